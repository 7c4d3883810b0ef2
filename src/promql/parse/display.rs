//! The canonical text of a tree; reading it again gives the same tree.

use std::fmt::{self, Display, Formatter, Write};

use model::{METRIC_NAME, Matcher};

use super::unquote::quote;
use super::*;

/// A number as PromQL reads it back.
pub(crate) struct Num(pub(crate) f64);

impl Display for Num {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            v if v.is_nan() => f.write_str("NaN"),
            // Without a plus: `+Inf ^ 2` would be read as the sign of a power.
            v if v.is_infinite() => f.write_str(if v > 0.0 { "Inf" } else { "-Inf" }),
            v if v != 0.0 && (v.abs() < 1e-6 || v.abs() >= 1e21) => write!(f, "{v:e}"),
            v => write!(f, "{v}"),
        }
    }
}

fn plain_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn label(name: &str) -> String {
    if plain_name(name) { name.to_owned() } else { quote(name) }
}

fn labels(names: &[String]) -> String {
    names.iter().map(|n| label(n)).collect::<Vec<_>>().join(", ")
}

fn matcher(m: &Matcher) -> String {
    format!("{}{}{}", label(&m.name), m.op.as_str(), quote(&m.value))
}

/// A number, written as a duration where it was one and the text stays the same value.
fn number(f: &mut Formatter<'_>, value: f64, duration: bool) -> fmt::Result {
    let ms = value * 1000.0;
    if duration && ms.abs() < 9e15 && ms.fract() == 0.0 {
        return f.write_str(&model::format_duration(ms as i64));
    }
    write!(f, "{}", Num(value))
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number { value, duration } => number(f, *value, *duration),
            ExprKind::String(text) => f.write_str(&quote(text)),
            ExprKind::NotText(literal) => f.write_str(literal),
            ExprKind::Selector(selector) => {
                write!(f, "{}{}", Bare(selector), selector.modifiers)
            }
            ExprKind::Matrix { selector, window } => {
                write!(f, "{}[{window}]{}", Bare(selector), selector.modifiers)
            }
            ExprKind::Subquery(s) => {
                write!(f, "{}[{}:", s.expr, s.window)?;
                if let Some(step) = &s.step {
                    write!(f, "{step}")?;
                }
                write!(f, "]{}", s.modifiers)
            }
            ExprKind::Call { function, args } => {
                write!(f, "{}(", function.name)?;
                list(f, args)?;
                f.write_char(')')
            }
            ExprKind::Aggregate(a) => {
                f.write_str(a.op.as_str())?;
                if a.without {
                    write!(f, " without ({}) ", labels(&a.grouping))?;
                } else if !a.grouping.is_empty() {
                    write!(f, " by ({}) ", labels(&a.grouping))?;
                }
                f.write_char('(')?;
                if let Some(param) = &a.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", a.expr)
            }
            ExprKind::Binary(b) => {
                write!(f, "{} {}", b.lhs, b.op.as_str())?;
                if b.returns_bool {
                    f.write_str(" bool")?;
                }
                write!(f, "{} {}", b.matching, b.rhs)
            }
            ExprKind::Unary { op, expr } => {
                f.write_char(if *op == UnaryOp::Minus { '-' } else { '+' })?;
                write!(f, "{expr}")
            }
            ExprKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

fn list(f: &mut Formatter<'_>, args: &[Expr]) -> fmt::Result {
    for (at, arg) in args.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        match arg.kind {
            // Here no operator can take the sign for its own.
            ExprKind::Number { value: f64::INFINITY, duration: false } => f.write_str("+Inf")?,
            _ => write!(f, "{arg}")?,
        }
    }
    Ok(())
}

/// A selector without modifiers.
struct Bare<'a>(&'a Selector);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut matchers = &self.0.matchers[..];
        if let Some(name) = &self.0.name {
            f.write_str(name)?;
            matchers = &matchers[matchers.len().min(1)..];
            if matchers.is_empty() {
                return Ok(());
            }
        }
        let texts: Vec<String> = matchers.iter().map(matcher).collect();
        write!(f, "{{{}}}", texts.join(","))
    }
}

impl Display for Modifiers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.anchored {
            f.write_str(" anchored")?;
        }
        if self.smoothed {
            f.write_str(" smoothed")?;
        }
        match self.at {
            Some(At::Time(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0)?,
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
            None => {}
        }
        match &self.offset {
            Some(offset) => write!(f, " offset {offset}"),
            None => Ok(()),
        }
    }
}

impl Display for Matching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.on || !self.labels.is_empty() || matches!(self.card, Card::ManyToOne | Card::OneToMany) {
            write!(f, " {} ({})", if self.on { "on" } else { "ignoring" }, labels(&self.labels))?;
        }
        if matches!(self.card, Card::ManyToOne | Card::OneToMany) {
            let word = if self.card == Card::ManyToOne { "group_left" } else { "group_right" };
            write!(f, " {word} ({})", labels(&self.include))?;
        }
        match (self.fill_left, self.fill_right) {
            (Some(l), Some(r)) if l.to_bits() == r.to_bits() => write!(f, " fill ({})", Num(l)),
            (l, r) => {
                if let Some(l) = l {
                    write!(f, " fill_left ({})", Num(l))?;
                }
                if let Some(r) = r {
                    write!(f, " fill_right ({})", Num(r))?;
                }
                Ok(())
            }
        }
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Literal { seconds, duration } => number(f, *seconds, *duration),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::Min(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::Max(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Binary { op, lhs, rhs } => write!(f, "{lhs} {} {rhs}", op.as_str()),
            DurationKind::Unary { op, expr } => {
                write!(f, "{}{expr}", if *op == UnaryOp::Minus { '-' } else { '+' })
            }
            DurationKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

impl Selector {
    /// The metric name it asks for, by name or by `__name__="..."`.
    pub fn metric_name(&self) -> Option<&str> {
        let named = |m: &&Matcher| *m.name == *METRIC_NAME && m.op == model::MatchOp::Equal;
        self.matchers.iter().find(named).map(|m| &*m.value)
    }
}
