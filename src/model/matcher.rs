//! A test on the value of one label.

use std::fmt;
use std::sync::Arc;

use crate::{Labels, Pattern, PatternError};

/// The four ways to test a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// `name op "value"`; patterns match the whole value. An absent label has the empty value.
#[derive(Clone)]
pub struct Matcher {
    pub name: Arc<str>,
    pub op: MatchOp,
    pub value: Arc<str>,
    pattern: Option<Arc<Pattern>>,
}

impl Matcher {
    /// Fails only where a pattern does not compile.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Matcher, PatternError> {
        let pattern = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(Pattern::new(value)?)),
            _ => None,
        };
        Ok(Matcher { name: name.into(), op, value: value.into(), pattern })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Matcher {
        Matcher { name: name.into(), op: MatchOp::Equal, value: value.into(), pattern: None }
    }

    /// Whether the value passes.
    pub fn matches(&self, value: &str) -> bool {
        let hit = match &self.pattern {
            Some(pattern) => pattern.matches(value),
            None => *self.value == *value,
        };
        hit != matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }

    /// Whether a series without the label passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The compiled pattern of a regex matcher.
    pub fn pattern(&self) -> Option<&Pattern> {
        self.pattern.as_deref()
    }

    /// The finite set of values that alone can pass, if there is one: of `=`, and of `=~` with plain
    /// alternatives.
    pub fn set_matches(&self) -> Option<Vec<&str>> {
        match (self.op, &self.pattern) {
            (MatchOp::Equal, _) => Some(vec![&self.value]),
            (MatchOp::Regex, Some(pattern)) => {
                pattern.set_matches().map(|s| s.iter().map(|v| &**v).collect())
            }
            _ => None,
        }
    }

    /// Whether all of `matchers` pass on `labels`.
    pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
        matchers.iter().all(|m| m.matches(labels.value(&m.name)))
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_value_and_absent_label() {
        let m = |op, v| Matcher::new(op, "a", v).unwrap();
        assert!(m(MatchOp::Regex, "x|yz").matches("yz"));
        assert!(!m(MatchOp::Regex, "x|yz").matches("ayz"));
        assert!(m(MatchOp::NotRegex, ".+").matches_empty());
        assert!(m(MatchOp::Equal, "").matches_empty());
        assert!(!m(MatchOp::NotEqual, "").matches_empty());
        assert!(m(MatchOp::Regex, ".*").matches("line\nbreak"));
        assert_eq!(m(MatchOp::Regex, "x|yz").set_matches(), Some(vec!["x", "yz"]));
        assert_eq!(m(MatchOp::Regex, "x.*").set_matches(), None);
    }
}
