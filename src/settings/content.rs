//! A document given by path or by content, as Thanos's `X-config-file` and `X-config`, and `$(VAR)` in it.

use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where a document comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathOrContent {
    Path(PathBuf),
    Content(String),
}

impl PathOrContent {
    /// Settles the pair of settings `name` and `name-file`: none, one, or an error if both are given.
    pub fn settle(
        name: &str,
        content: &Option<String>,
        path: &Option<PathBuf>,
    ) -> Result<Option<PathOrContent>, Error> {
        match (content, path) {
            (Some(_), Some(_)) => {
                Err(Error::new(format!("--{name} and --{name}-file exclude each other; give one of them")))
            }
            (Some(content), None) => Ok(Some(PathOrContent::Content(content.clone()))),
            (None, Some(path)) => Ok(Some(PathOrContent::Path(path.clone()))),
            (None, None) => Ok(None),
        }
    }

    /// The document's text; `read` fetches a file.
    pub fn text(&self, read: impl FnOnce(&Path) -> io::Result<Vec<u8>>) -> Result<String, Error> {
        match self {
            PathOrContent::Content(text) => Ok(text.clone()),
            PathOrContent::Path(path) => {
                let bytes =
                    read(path).map_err(|e| Error::new(format!("cannot read {}: {e}", path.display())))?;
                String::from_utf8(bytes)
                    .map_err(|_| Error::new(format!("{} is not UTF-8 text", path.display())))
            }
        }
    }

    /// What to call it in a message.
    pub fn origin(&self) -> String {
        match self {
            PathOrContent::Path(path) => path.display().to_string(),
            PathOrContent::Content(_) => "the inline document".to_owned(),
        }
    }
}

/// Replaces every `$(NAME)` by `look_up(NAME)`, usually an environment variable; one that is not set is an error
/// with its line. `$$(` and everything else stays as it is.
pub fn substitute(text: &str, look_up: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let name_end = after[2..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(|n| n + 2);
        match name_end {
            Some(end) if end > 2 && after[end..].starts_with(')') => {
                let name = &after[2..end];
                let value = look_up(name).ok_or_else(|| {
                    let line = text[..text.len() - after.len()].matches('\n').count() + 1;
                    Error::new(format!(
                        "line {line}: $({name}) refers to an environment variable that is not set"
                    ))
                })?;
                out.push_str(&value);
                rest = &after[end + 1..];
            }
            _ => {
                out.push_str("$(");
                rest = &after[2..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_two() {
        let settle = |content: Option<&str>, path: Option<&str>| {
            PathOrContent::settle("objstore.config", &content.map(str::to_owned), &path.map(PathBuf::from))
        };
        assert_eq!(settle(None, None), Ok(None));
        assert_eq!(settle(Some("a"), None), Ok(Some(PathOrContent::Content("a".to_owned()))));
        assert_eq!(
            settle(Some("a"), Some("b")).unwrap_err().message,
            "--objstore.config and --objstore.config-file exclude each other; give one of them"
        );
    }

    #[test]
    fn variables() {
        let look_up = |name: &str| (name == "KEY").then(|| "a$(KEY)".to_owned());
        assert_eq!(substitute("x: $(KEY)\ny: $(KEY)", look_up).unwrap(), "x: a$(KEY)\ny: a$(KEY)");
        for same in ["$KEY", "$(", "$()", "$(a b)", "$(KEY", "${KEY}", "cost $(5$)"] {
            assert_eq!(substitute(same, look_up).unwrap(), same);
        }
        assert_eq!(
            substitute("a\nb: $(NO)", look_up).unwrap_err().message,
            "line 2: $(NO) refers to an environment variable that is not set"
        );
    }
}
