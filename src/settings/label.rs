//! A label on the command line: `name="value"`.

use std::fmt;

use crate::Scalar;

/// A label name and its value, as in `--label=replica="a"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelPair {
    pub name: String,
    pub value: String,
}

impl LabelPair {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> LabelPair {
        LabelPair { name: name.into(), value: value.into() }
    }
}

impl Scalar for LabelPair {
    const PLACEHOLDER: &'static str = "NAME=\"VALUE\"";

    fn parse(text: &str) -> Result<LabelPair, String> {
        let wrong = || format!("{text:?} is not a label such as replica=\"a\"");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name_ok = !name.is_empty()
            && name
                .bytes()
                .enumerate()
                .all(|(at, b)| b.is_ascii_alphabetic() || b == b'_' || (at > 0 && b.is_ascii_digit()));
        if !name_ok {
            return Err(format!("{name:?} is not a label name; allowed are letters, digits and _"));
        }
        // Shells eat the quotes of --label=replica="a": what is left is unambiguous, so it is taken.
        let value = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or_else(wrong)?,
            None => value.to_owned(),
        };
        Ok(LabelPair { name: name.to_owned(), value })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The text up to the closing quote, which must be the end, with Go's simple escapes taken back.
fn unquote(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(out),
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('"' | '\\' | '\'') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
}

impl fmt::Display for LabelPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=\"", self.name)?;
        for c in self.value.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_plain() {
        for (text, name, value) in [
            ("replica=\"a\"", "replica", "a"),
            ("replica=a", "replica", "a"),
            ("a_1=\"x=\\\"y\\\"\\n\"", "a_1", "x=\"y\"\n"),
            ("a=", "a", ""),
        ] {
            let pair = LabelPair::parse(text).unwrap();
            assert_eq!(pair, LabelPair::new(name, value));
            assert_eq!(LabelPair::parse(&pair.to_string()), Ok(pair));
        }
        for bad in ["", "a", "=x", "1a=x", "a-b=x", "a=\"x", "a=\"x\"y", "a=\"\\q\""] {
            assert!(LabelPair::parse(bad).is_err(), "{bad}");
        }
    }
}
