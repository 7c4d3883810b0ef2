//! Tenant patterns with the meaning of Go's `filepath.Match`.
//!
//! `*` any run of characters but `/`; `?` one character but `/`; `[a-z]` and `[^a-z]` one character of (not
//! of) a class, `/` included as in Go; `\x` the character itself. The whole name must match.

use std::fmt;

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Star,
    Any,
    Char(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}: {1}")]
pub struct BadPattern(pub String, pub &'static str);

impl Glob {
    pub fn new(text: &str) -> Result<Glob, BadPattern> {
        let bad = |why| BadPattern(text.to_owned(), why);
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' => Part::Char(chars.next().ok_or_else(|| bad("nothing after the last backslash"))?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    // As in Go: `]` first is a syntax error, and so is a bare `-` at either end of a range.
                    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                        let low = bound(&mut chars).map_err(bad)?;
                        let high = match chars.next_if_eq(&'-') {
                            Some(_) => bound(&mut chars).map_err(bad)?,
                            None => low,
                        };
                        ranges.push((low, high));
                    }
                    Part::Class { negated, ranges }
                }
                c => Part::Char(c),
            });
        }
        // A run of stars means one star; fewer parts keep the match linear in practice.
        parts.dedup_by(|a, b| *a == Part::Star && *b == Part::Star);
        Ok(Glob { text: text.to_owned(), parts })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `name` matches. At most name x pattern steps.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut part) = (0, 0);
        // Where the last star stood and how far it had swallowed: the only point to come back to.
        let mut back: Option<(usize, usize)> = None;
        loop {
            let step = match self.parts.get(part) {
                Some(Part::Star) => {
                    back = Some((part, at));
                    part += 1;
                    continue;
                }
                Some(one) => at < name.len() && one.takes(name[at]),
                None if at == name.len() => return true,
                None => false,
            };
            if step {
                at += 1;
                part += 1;
                continue;
            }
            match back {
                Some((star, from)) if from < name.len() && name[from] != '/' => {
                    back = Some((star, from + 1));
                    at = from + 1;
                    part = star + 1;
                }
                _ => return false,
            }
        }
    }
}

/// One end of a range in a class.
fn bound(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    match chars.next() {
        Some('\\') => chars.next().ok_or("class is not closed"),
        Some('-' | ']') => Err("empty class or misplaced '-'"),
        Some(c) => Ok(c),
        None => Err("class is not closed"),
    }
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Part::Star => false,
            Part::Any => c != '/',
            Part::Char(own) => *own == c,
            Part::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The table of Go's path/filepath match tests, as far as it concerns names.
    #[test]
    fn matches_as_go_does() {
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "abc", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^b-d]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a?b", "a/b", Some(false)),
            ("a*b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "x", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("\\", "a", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("*x", "xxx", Some(true)),
            ("", "", Some(true)),
            ("", "a", Some(false)),
        ] {
            assert_eq!(Glob::new(pattern).ok().map(|g| g.matches(name)), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_a_quoted_name_matches_itself(pattern in "\\PC{0,20}", name in "\\PC{0,20}") {
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(&name);
            }
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(Glob::new(&quoted).unwrap().matches(&name));
        }
    }
}
