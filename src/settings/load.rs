//! What every settings struct can do: describe itself, take a value by name, be checked; and the loading of one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::file::{self, FileText};
use crate::{Error, Value, flags};

/// A struct declared with [`crate::settings!`].
pub trait Load: Default + Clone + fmt::Debug {
    /// The struct's doc text.
    fn about() -> String;

    /// Appends its settings, groups flattened, in the order of declaration.
    fn describe(out: &mut Vec<Setting>);

    /// Sets the field behind flag `name`; `None` if it has no such flag.
    fn put(&mut self, name: &str, texts: &[String]) -> Option<Result<(), String>>;

    /// Texts of the field behind flag `name`, as [`Load::put`] reads them.
    fn texts(&self, name: &str) -> Option<Vec<String>>;

    /// The struct's own `fn validate(&self) -> Result<(), String>` if it has one, and that of its groups.
    fn check(&self) -> Result<(), String>;

    /// All settings.
    fn all() -> Vec<Setting> {
        let mut out = Vec::new();
        Self::describe(&mut out);
        out
    }
}

/// One tunable value: a flag, a key of the file, a line of help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The flag without dashes, and the key.
    pub name: &'static str,
    pub help: String,
    /// The default as text; empty for none.
    pub default: Vec<String>,
    /// What stands for the value in help: `DURATION`, `N`.
    pub placeholder: &'static str,
    pub repeatable: bool,
    /// A boolean: stands without a value, has a `--no-` twin.
    pub switch: bool,
    /// Works, but is not shown.
    pub hidden: bool,
    /// Under which heading it is shown.
    pub heading: String,
}

impl Setting {
    /// Heading of settings that belong to no group.
    pub const OWN: &'static str = "Options";

    /// Describes a field; used by the macro.
    pub fn of<V: Value>(
        name: &'static str,
        help: &[&str],
        default: &V,
        hidden: bool,
        about: &str,
    ) -> Setting {
        Setting {
            name,
            help: prose(help),
            default: default.texts(),
            placeholder: V::PLACEHOLDER,
            repeatable: V::REPEATABLE,
            switch: V::SWITCH,
            hidden,
            heading: heading(about),
        }
    }
}

/// Doc lines as one text; an empty line stays a paragraph's end.
pub fn prose(lines: &[&str]) -> String {
    let mut out = String::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() {
            out.push_str("\n\n");
        } else {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push(' ');
            }
            out.push_str(line);
        }
    }
    out.trim().to_owned()
}

/// A group's doc text is its heading; the longer story of a role is none.
fn heading(about: &str) -> String {
    let first = about.split(['.', ':']).next().unwrap_or_default().trim();
    if first.is_empty() || first.len() > 24 { Setting::OWN.to_owned() } else { first.to_owned() }
}

/// Lets `self.validate()` in the macro's code find the struct's own method first, and this one if there is none.
pub trait ValidByDefault {
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl<T: Load> ValidByDefault for T {}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: u64 },
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// The origin and the value of every setting, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance(BTreeMap<&'static str, (Origin, Vec<String>)>);

impl Provenance {
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.0.get(name).map(|(origin, _)| origin)
    }

    /// Name, origin and value texts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Origin, &[String])> {
        self.0.iter().map(|(name, (origin, texts))| (*name, origin, texts.as_slice()))
    }

    /// Name and value of every setting, fit to be shown: a document is not repeated, as it may hold secrets.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.iter().map(|(name, _, texts)| (name, shown(name, texts)))
    }

    /// Those that somebody set, as `name=value` texts fit to be shown.
    pub fn given(&self) -> Vec<String> {
        let given = self.iter().filter(|(_, origin, _)| **origin != Origin::Default);
        given.map(|(name, _, texts)| format!("{name}={}", shown(name, texts))).collect()
    }
}

fn shown(name: &str, texts: &[String]) -> String {
    let text = texts.join(", ");
    // Thanos names every setting that takes a whole document `something.config` or `something-config`.
    let is_document = name.ends_with("config") || text.contains('\n');
    if is_document && !text.is_empty() { "<document>".to_owned() } else { text }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, origin, texts) in self.iter() {
            writeln!(f, "{name}: {} ({origin})", shown(name, texts))?;
        }
        Ok(())
    }
}

/// Settings, checked, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded<S> {
    pub settings: S,
    pub provenance: Provenance,
}

/// Settles the settings of `S` from parsed flags (of a command made by [`crate::with_flags`]) and the text of the
/// file that [`crate::config_file`] names.
pub fn load<S: Load>(matches: &clap::ArgMatches, file: Option<FileText<'_>>) -> Result<Loaded<S>, Error> {
    let all = S::all();
    let mut settings = S::default();
    let mut origins: BTreeMap<&'static str, Origin> = BTreeMap::new();
    if let Some(file) = file {
        for entry in file::parse(&all, file)? {
            put(&mut settings, entry.name, &entry.texts).map_err(|problem| {
                let at = format!("{} line {}", file.path.display(), entry.line);
                Error::new(format!("{at}: {}: {problem}", entry.name))
            })?;
            origins.insert(entry.name, Origin::File { path: file.path.to_owned(), line: entry.line });
        }
    }
    for setting in &all {
        if let Some(texts) = flags::given(matches, setting) {
            put(&mut settings, setting.name, &texts)
                .map_err(|problem| Error::new(format!("--{}: {problem}", setting.name)))?;
            origins.insert(setting.name, Origin::Flag);
        }
    }
    settings.check().map_err(Error::new)?;
    let provenance = all.iter().map(|setting| {
        let origin = origins.remove(setting.name).unwrap_or(Origin::Default);
        (setting.name, (origin, settings.texts(setting.name).unwrap_or_default()))
    });
    let provenance = Provenance(provenance.collect());
    Ok(Loaded { settings, provenance })
}

fn put<S: Load>(settings: &mut S, name: &str, texts: &[String]) -> Result<(), String> {
    settings.put(name, texts).unwrap_or_else(|| Err("no such setting".to_owned()))
}

/// Settles settings from flags alone, as a test or a tool gives them: `["--label=a=b"]`.
pub fn from_args<S: Load>(args: &[&str]) -> Result<S, Error> {
    let command = flags::with_flags::<S>(clap::Command::new("settings").no_binary_name(true));
    let matches = command.try_get_matches_from(args).map_err(|e| Error::new(e.to_string()))?;
    load(&matches, None).map(|loaded| loaded.settings)
}
