//! The YAML file of `--config.file`: one flat map whose keys are the flag names.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
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
    // Without the excerpt of the file that the parser would add: a neighbouring line may hold a secret.
    parsed.map_err(|e| {
        let said = e.without_snippet().to_string();
        let said = said.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
        Error::new(format!("{}: {said}", file.path.display()))
    })
}

struct Keys<'s>(&'s [Setting]);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Vec<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Entry>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, one `name: value` a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Entry>, A::Error> {
        let mut out = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            let Some(setting) = self.0.iter().find(|s| s.name == key.value) else {
                return Err(serde::de::Error::custom(unknown(self.0, &key.value, line)));
            };
            let texts = if setting.repeatable {
                map.next_value_seed(Many)?
            } else {
                map.next_value::<Option<String>>()?.map(|text| vec![text])
            };
            if let Some(texts) = texts {
                out.push(Entry { name: setting.name, texts, line });
            }
        }
        Ok(out)
    }
}

fn unknown(settings: &[Setting], key: &str, line: u64) -> String {
    let shown = settings.iter().filter(|s| !s.hidden).map(|s| s.name);
    match nearest(key.trim_start_matches('-'), shown) {
        Some(name) => format!("line {line}: unknown setting {key:?}; did you mean {name:?}?"),
        None => format!("line {line}: unknown setting {key:?}; --help lists the settings of this role"),
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
