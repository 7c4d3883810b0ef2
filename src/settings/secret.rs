//! A value that is never shown.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Scalar};

/// A text whose `Debug` and `Display` are masked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that has to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Where a secret is kept: `file:PATH` or `env:NAME`. A secret itself is not a setting: command lines are
/// visible to every process of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    Env(String),
}

impl SecretSource {
    /// Fetches the secret; one line end at the end of a file is dropped.
    pub fn load(
        &self,
        read: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
        env: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Secret, Error> {
        match self {
            SecretSource::File(path) => {
                let bytes =
                    read(path).map_err(|e| Error::new(format!("cannot read secret file {path:?}: {e}")))?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::new(format!("secret file {path:?} is not UTF-8")))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text)))
            }
            SecretSource::Env(name) => env(name)
                .map(Secret::new)
                .ok_or_else(|| Error::new(format!("environment variable {name} is not set"))),
        }
    }
}

impl Scalar for SecretSource {
    const PLACEHOLDER: &'static str = "file:PATH|env:NAME";

    fn parse(text: &str) -> Result<SecretSource, String> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(SecretSource::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Ok(SecretSource::Env(name.to_owned())),
            // The text may be the secret itself: it is not repeated.
            _ => Err("a secret is given as file:PATH or env:NAME, never by itself".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            SecretSource::File(path) => format!("file:{}", path.display()),
            SecretSource::Env(name) => format!("env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "<secret> <secret>");
        assert!(!SecretSource::parse("hunter2").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn from_file_or_environment() {
        let file = SecretSource::parse("file:/run/key").unwrap();
        let secret = file.load(|_| Ok(b"k\n".to_vec()), |_| None).unwrap();
        assert_eq!(secret.reveal(), "k");
        let env = SecretSource::parse("env:KEY").unwrap();
        assert_eq!(env.load(|_| unreachable!(), |_| Some("v".to_owned())).unwrap().reveal(), "v");
        let gone = env.load(|_| unreachable!(), |_| None).unwrap_err();
        assert_eq!(gone.message, "environment variable KEY is not set");
    }
}
