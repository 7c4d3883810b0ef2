//! Regular expressions as Prometheus means them: Go's RE2 syntax, matching the whole text, `.` matching
//! newlines, in linear time and bounded size.
//!
//! The `regex` crate does the matching. Its syntax differs from Go's in a few places, so the text is
//! translated first: `\d \w \s \b` are ASCII, a brace that opens no repetition is literal, `\Q..\E` quotes,
//! repetition counts end at 1000, and what Go does not know (class set operations, `(?x)`, nested classes)
//! keeps Go's meaning or is refused.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

/// Compiled programs above this many bytes are refused.
const SIZE_LIMIT: usize = 1 << 20;
/// Groups nested deeper than this are refused.
const NEST_LIMIT: u32 = 250;
/// Alternatives beyond this many are matched as an automaton, not as a set.
const SET_LIMIT: usize = 256;

/// A compiled pattern that matches whole values.
pub struct Pattern {
    regex: Regex,
    set: Option<Vec<Box<str>>>,
    prefix: Box<str>,
    everything: bool,
    non_empty: bool,
}

/// A pattern that does not compile; the text says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct PatternError(pub String);

impl Pattern {
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        let translated = translate(text)?;
        let regex = RegexBuilder::new(&format!("^(?s:{translated})$"))
            .size_limit(SIZE_LIMIT)
            .nest_limit(NEST_LIMIT)
            .build()
            .map_err(|e| PatternError(one_line(&e)))?;
        let hir = regex_syntax::ParserBuilder::new()
            .nest_limit(NEST_LIMIT)
            .dot_matches_new_line(true)
            .build()
            .parse(&translated)
            .map_err(|e| PatternError(e.to_string()))?;
        let set = literal_set(&hir);
        let prefix = if set.is_some() { Box::default() } else { literal_prefix(&hir) };
        Ok(Pattern {
            regex,
            set,
            prefix,
            everything: matches!(text, ".*" | "(.*)"),
            non_empty: matches!(text, ".+" | "(.+)"),
        })
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        if self.everything {
            return true;
        }
        if self.non_empty {
            return !value.is_empty();
        }
        if let Some(set) = &self.set {
            return set.binary_search_by(|item| (**item).cmp(value)).is_ok();
        }
        value.starts_with(&*self.prefix) && self.regex.is_match(value)
    }

    /// All values that can match, sorted, when they are finitely many plain texts.
    pub fn set_matches(&self) -> Option<&[Box<str>]> {
        self.set.as_deref()
    }

    /// A text with which every match begins; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The compiled, anchored expression, for replacement with groups.
    pub fn regex(&self) -> &Regex {
        &self.regex
    }
}

/// The whole language of `hir`, if it is a small set of texts without assertions.
fn literal_set(hir: &Hir) -> Option<Vec<Box<str>>> {
    let mut set: Vec<Box<str>> =
        expand(hir)?.into_iter().map(|b| String::from_utf8(b).ok().map(Into::into)).collect::<Option<_>>()?;
    set.sort();
    set.dedup();
    Some(set)
}

fn expand(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![Vec::new()]),
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => expand(&capture.sub),
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
            let mut out = Vec::new();
            for range in class.iter() {
                for c in range.start()..=range.end() {
                    if out.len() >= SET_LIMIT {
                        return None;
                    }
                    out.push(c.to_string().into_bytes());
                }
            }
            Some(out)
        }
        HirKind::Alternation(parts) => {
            let mut out = Vec::new();
            for part in parts {
                out.extend(expand(part)?);
                if out.len() > SET_LIMIT {
                    return None;
                }
            }
            Some(out)
        }
        HirKind::Concat(parts) => {
            let mut out = vec![Vec::new()];
            for part in parts {
                let tails = expand(part)?;
                if out.len() * tails.len() > SET_LIMIT {
                    return None;
                }
                out = out
                    .iter()
                    .flat_map(|head| tails.iter().map(move |tail| [&head[..], tail].concat()))
                    .collect();
            }
            Some(out)
        }
        _ => None,
    }
}

fn literal_prefix(hir: &Hir) -> Box<str> {
    fn walk(hir: &Hir, out: &mut Vec<u8>) -> bool {
        match hir.kind() {
            HirKind::Literal(literal) => {
                out.extend_from_slice(&literal.0);
                true
            }
            HirKind::Capture(capture) => walk(&capture.sub, out),
            HirKind::Concat(parts) => parts.iter().all(|part| walk(part, out)),
            _ => false,
        }
    }
    let mut out = Vec::new();
    walk(hir, &mut out);
    match String::from_utf8(out) {
        Ok(text) => text.into(),
        Err(_) => Box::default(),
    }
}

fn one_line(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("expression compiles to more than {limit} bytes"),
        other => {
            let text = other.to_string();
            text.lines().last().unwrap_or(&text).trim_start_matches("error: ").to_owned()
        }
    }
}

/// Rewrites Go's syntax so that the `regex` crate reads the same meaning.
fn translate(text: &str) -> Result<String, PatternError> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '\\' => at = escape(&chars, at, false, &mut out)?,
            '[' => at = class(&chars, at, &mut out)?,
            '{' => {
                at = match repetition(&chars, at)? {
                    Some(end) => {
                        out.extend(&chars[at..end]);
                        end
                    }
                    None => {
                        out.push_str("\\{");
                        at + 1
                    }
                }
            }
            '}' => {
                out.push_str("\\}");
                at += 1;
            }
            '(' if chars.get(at + 1) == Some(&'?') => {
                at = group(&chars, at, &mut out)?;
            }
            c => {
                out.push(c);
                at += 1;
            }
        }
    }
    Ok(out)
}

/// `(?flags)`, `(?flags:`, `(?P<name>`, `(?<name>`: only Go's flags i, m, s, U.
fn group(chars: &[char], at: usize, out: &mut String) -> Result<usize, PatternError> {
    let mut end = at + 2;
    if matches!(chars.get(end), Some('P' | '<')) {
        out.push_str("(?");
        return Ok(at + 2);
    }
    while let Some(&c) = chars.get(end) {
        end += 1;
        match c {
            'i' | 'm' | 's' | 'U' | '-' => {}
            ':' | ')' => {
                out.extend(&chars[at..end]);
                return Ok(end);
            }
            _ => break,
        }
    }
    let shown: String = chars[at..end.min(chars.len())].iter().collect();
    Err(PatternError(format!("invalid or unsupported Perl syntax: `{shown}`")))
}

/// The end of `{n}`, `{n,}` or `{n,m}` at `at`; none where the brace is literal.
fn repetition(chars: &[char], at: usize) -> Result<Option<usize>, PatternError> {
    let number = |mut i: usize| {
        let start = i;
        while chars.get(i).is_some_and(char::is_ascii_digit) {
            i += 1;
        }
        (i, chars[start..i].iter().collect::<String>())
    };
    let (mut i, low) = number(at + 1);
    if low.is_empty() {
        return Ok(None);
    }
    let mut high = low.clone();
    if chars.get(i) == Some(&',') {
        (i, high) = number(i + 1);
    }
    if chars.get(i) != Some(&'}') {
        return Ok(None);
    }
    let too_big = |n: &str| !n.is_empty() && n.parse::<u32>().map_or(true, |n| n > 1000);
    if too_big(&low) || too_big(&high) {
        let shown: String = chars[at..=i].iter().collect();
        return Err(PatternError(format!("invalid repeat count: `{shown}`")));
    }
    Ok(Some(i + 1))
}

/// One escape at `at`; returns where it ends.
fn escape(chars: &[char], at: usize, in_class: bool, out: &mut String) -> Result<usize, PatternError> {
    let Some(&c) = chars.get(at + 1) else {
        return Err(PatternError("trailing backslash at end of expression: ``".to_owned()));
    };
    let replaced = match (c, in_class) {
        ('d', false) => "[0-9]",
        ('D', false) => "[^0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('W', false) => "[^0-9A-Za-z_]",
        ('s', false) => "[\\t\\n\\x0C\\r ]",
        ('S', false) => "[^\\t\\n\\x0C\\r ]",
        ('d', true) => "0-9",
        ('w', true) => "0-9A-Za-z_",
        ('s', true) => "\\t\\n\\x0C\\r ",
        ('D', true) => "[^0-9]",
        ('W', true) => "[^0-9A-Za-z_]",
        ('S', true) => "[^\\t\\n\\x0C\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('z', false) => "\\z",
        ('A', false) => "\\A",
        ('Q', false) => {
            let mut end = at + 2;
            while end < chars.len() && !(chars[end] == '\\' && chars.get(end + 1) == Some(&'E')) {
                out.push_str(&regex_syntax::escape(&chars[end].to_string()));
                end += 1;
            }
            return Ok((end + 2).min(chars.len()));
        }
        ('a', _) => "\\x07",
        ('f', _) => "\\x0C",
        ('n', _) => "\\n",
        ('r', _) => "\\r",
        ('t', _) => "\\t",
        ('v', _) => "\\x0B",
        ('x' | 'p' | 'P', _) => {
            out.push('\\');
            out.push(c);
            return Ok(at + 2);
        }
        ('0'..='7', _) if c == '0' || chars.get(at + 2).is_some_and(|d| ('0'..='7').contains(d)) => {
            let digits = chars[at + 1..].iter().take(3).take_while(|d| ('0'..='7').contains(*d)).count();
            let value =
                chars[at + 1..at + 1 + digits].iter().fold(0, |v, d| v * 8 + d.to_digit(8).unwrap_or(0));
            out.push_str(&format!("\\x{{{value:x}}}"));
            return Ok(at + 1 + digits);
        }
        (c, _) if c.is_ascii_punctuation() => {
            out.push('\\');
            out.push(c);
            return Ok(at + 2);
        }
        (c, _) => return Err(PatternError(format!("invalid escape sequence: `\\{c}`"))),
    };
    out.push_str(replaced);
    Ok(at + 2)
}

/// A bracketed class at `at`; Go has no set operations and no nesting, so `[`, `&`, `~` are literal inside.
fn class(chars: &[char], at: usize, out: &mut String) -> Result<usize, PatternError> {
    let missing = || {
        let shown: String = chars[at..].iter().collect();
        PatternError(format!("missing closing ]: `{shown}`"))
    };
    out.push('[');
    let mut i = at + 1;
    if chars.get(i) == Some(&'^') {
        out.push('^');
        i += 1;
    }
    let first = i;
    loop {
        match *chars.get(i).ok_or_else(missing)? {
            ']' if i > first => {
                out.push(']');
                return Ok(i + 1);
            }
            '\\' => i = escape(chars, i, true, out)?,
            '[' if chars.get(i + 1) == Some(&':') => {
                let end =
                    (i + 2..chars.len().saturating_sub(1)).find(|&j| chars[j] == ':' && chars[j + 1] == ']');
                let end = end.ok_or_else(missing)?;
                out.extend(&chars[i..end + 2]);
                i = end + 2;
            }
            c @ ('[' | ']' | '&' | '~' | '^') => {
                out.push('\\');
                out.push(c);
                i += 1;
            }
            // A doubled hyphen would be read as a set difference.
            '-' if chars.get(i + 1) == Some(&'-') || i == first => {
                out.push_str("\\-");
                i += 1;
            }
            c => {
                out.push(c);
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let p = Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        for text in yes {
            assert!(p.matches(text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(!p.matches(text), "{pattern} should not match {text:?}");
        }
    }

    #[test]
    fn go_syntax() {
        check("a{,3}", &["a{,3}"], &["aaa"]);
        check("a{b", &["a{b"], &[]);
        check("a{2}", &["aa"], &["a{2}"]);
        check(r"\Qa.b\E.", &["a.bx"], &["axbx"]);
        check(r"\d+", &["12"], &["٣"]);
        check(r"[\w-]+", &["a-b_9"], &["é", ""]);
        check("[[:alpha:]]+", &["abc"], &["1"]);
        check("[a&&b]+", &["a&b"], &["c"]);
        check("[]a]+", &["]a"], &["b"]);
        check("(?i)abc", &["ABC"], &["abd"]);
        check("a.c", &["a\nc"], &["ac"]);
        check("", &[""], &["a"]);
        check("(?P<x>a|b)c", &["ac", "bc"], &["c"]);
        check(r"\x41\101", &["AA"], &[]);
        check("foo|bar|ba[zt]", &["foo", "bat"], &["ba"]);
        for bad in ["a{1001}", "(?x)a", "(", "[a", r"\", "a**b(", r"\C", "(?=a)"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn literals_are_found() {
        let set = |p: &str| Pattern::new(p).unwrap().set_matches().map(|s| s.join(","));
        assert_eq!(set("a|b|cd").as_deref(), Some("a,b,cd"));
        assert_eq!(set("node-(1|2)").as_deref(), Some("node-1,node-2"));
        assert_eq!(set("up").as_deref(), Some("up"));
        assert_eq!(set("a.*"), None);
        assert_eq!(Pattern::new("node_.*total").unwrap().prefix(), "node_");
    }

    #[test]
    fn size_is_bounded() {
        assert!(Pattern::new(&"(a{1000}){1000}".repeat(3)).is_err());
        assert!(Pattern::new(&"(".repeat(10_000)).is_err());
    }
}
