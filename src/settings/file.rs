//! The YAML file of `--config.file`: one flat map whose keys are the flag names.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::{Error, Setting, nearest};

/// A settings file that has been read.
#[derive(Clone, Copy, Debug)]
pub struct FileText<'a> {
    /// For messages.
    pub path: &'a Path,
    pub text: &'a str,
}

/// One key of the file.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) texts: Vec<String>,
    /// Counted from 1.
    pub(crate) line: u64,
}

/// Reads the file against the settings it may hold. A key without a value is as good as absent.
pub(crate) fn parse(settings: &[Setting], file: FileText<'_>) -> Result<Vec<Entry>, Error> {
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    if file.text.lines().all(blank) {
        return Ok(Vec::new());
    }
    let parsed = serde_saphyr::with_deserializer_from_str(file.text, |de| Keys(settings).deserialize(de));
    let read = parsed.map_err(|e| broken(file, &e))?;
    match read.unknown {
        Some((key, line)) => Err(unknown(settings, file, &key, line)),
        None => Ok(read.entries),
    }
}

/// Without the excerpt of the file that the parser would add: a neighbouring line may hold a secret.
fn broken(file: FileText<'_>, error: &serde_saphyr::Error) -> Error {
    let error = error.without_snippet();
    let said = error.to_string();
    let said = said.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    let said = said.split(" at line ").next().unwrap_or_default();
    let path = file.path.display();
    Error::new(match error.location() {
        Some(at) => format!("{path} line {}: {said}", at.line()),
        None => format!("{path}: {said}"),
    })
}

fn unknown(settings: &[Setting], file: FileText<'_>, key: &str, line: u64) -> Error {
    let shown = settings.iter().filter(|s| !s.hidden).map(|s| s.name);
    let hint = match nearest(key.trim_start_matches('-'), shown) {
        Some(name) => format!("did you mean {name:?}?"),
        None => "--help lists the settings of this role".to_owned(),
    };
    Error::new(format!("{} line {line}: unknown setting {key:?}; {hint}", file.path.display()))
}

/// What a file says.
#[derive(Default)]
struct Read {
    entries: Vec<Entry>,
    /// The first key that is no setting, and its line.
    unknown: Option<(String, u64)>,
}

struct Keys<'s>(&'s [Setting]);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, one `name: value` a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let mut out = Read::default();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            let Some(setting) = self.0.iter().find(|s| s.name == key.value) else {
                map.next_value::<IgnoredAny>()?;
                out.unknown.get_or_insert((key.value, line));
                continue;
            };
            let texts = if setting.repeatable {
                map.next_value_seed(Many)?
            } else {
                map.next_value::<Option<String>>()?.map(|text| vec![text])
            };
            if let Some(texts) = texts {
                out.entries.push(Entry { name: setting.name, texts, line });
            }
        }
        Ok(out)
    }
}

/// One text or a list of them.
struct Many;

impl<'de> DeserializeSeed<'de> for Many {
    type Value = Option<Vec<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Many {
    type Value = Option<Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            texts.push(text);
        }
        Ok(Some(texts))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(vec![text.to_owned()]))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(vec![value.to_string()]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(vec![value.to_string()]))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(vec![value.to_string()]))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(vec![value.to_string()]))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
