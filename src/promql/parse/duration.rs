//! Durations and expressions of durations: in brackets, after `offset`, and as their values.

use super::expr::Parser;
use super::lex::{Tok, Token, read_number};
use super::*;

type Parsed<T = Duration> = Result<T, ParseError>;

/// Longest duration in seconds: what Go's nanoseconds hold.
const MAX_SECONDS: f64 = i64::MAX as f64 / 1e9;

/// Most operators in all duration expressions of a query: they are walked by recursion.
const MAX_OPERATORS: usize = 256;

impl Parser<'_> {
    /// The value of a duration token in seconds.
    pub(super) fn duration_seconds(&self, token: Token) -> Parsed<f64> {
        let text = self.slice(token);
        match model::parse_duration(text) {
            Ok(ms) => Ok(ms as f64 / 1000.0),
            Err(model::DurationError::Range(_)) => Err(self.fail(token.range(), "duration out of range")),
            Err(_) => Err(self.fail(token.range(), format!("bad number or duration syntax: {text:?}"))),
        }
    }

    /// What stands in brackets.
    pub(super) fn duration_expr(&mut self, min_precedence: u8) -> Parsed {
        self.deeper()?;
        let mut lhs = self.duration_unary()?;
        loop {
            let op = match self.peek() {
                Tok::Add => BinaryOp::Add,
                Tok::Sub => BinaryOp::Sub,
                Tok::Mul => BinaryOp::Mul,
                Tok::Div => BinaryOp::Div,
                Tok::Mod => BinaryOp::Mod,
                Tok::Pow => BinaryOp::Pow,
                _ => break,
            };
            let precedence = op.precedence();
            if precedence < min_precedence {
                break;
            }
            self.next();
            self.duration_ops += 1;
            if self.duration_ops > MAX_OPERATORS {
                let message = format!("more than {MAX_OPERATORS} operators in duration expressions");
                return Err(self.fail(lhs.range, message));
            }
            let rhs = self.duration_expr(if op == BinaryOp::Pow { precedence } else { precedence + 1 })?;
            let range = lhs.range.start..rhs.range.end;
            if matches!(op, BinaryOp::Div | BinaryOp::Mod) && constant(&rhs) == Some(0.0) {
                let what = if op == BinaryOp::Div { "division by zero" } else { "modulo by zero" };
                return Err(self.fail(rhs.range, what));
            }
            let kind = DurationKind::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs) };
            lhs = Duration { kind, range };
        }
        self.shallower();
        Ok(lhs)
    }

    fn duration_unary(&mut self) -> Parsed {
        let token = self.token();
        let op = match token.tok {
            Tok::Add => UnaryOp::Plus,
            Tok::Sub => UnaryOp::Minus,
            _ => return self.duration_primary(),
        };
        self.next();
        // As in expressions, a sign binds less than `^`.
        let expr = self.duration_expr(BinaryOp::Pow.precedence())?;
        let range = token.start..expr.range.end;
        Ok(Duration { kind: DurationKind::Unary { op, expr: Box::new(expr) }, range })
    }

    /// After `offset`: a sign and one operand; an operator behind it belongs to the expression around.
    pub(super) fn offset_duration(&mut self) -> Parsed {
        let token = self.token();
        let op = match token.tok {
            Tok::Add => Some(UnaryOp::Plus),
            Tok::Sub => Some(UnaryOp::Minus),
            _ => None,
        };
        if op.is_some() {
            self.next();
        }
        if !matches!(self.peek(), Tok::Duration | Tok::Number | Tok::LeftParen)
            && !self.word().is_some_and(is_duration_function)
        {
            return Err(self.unexpected(" in offset, expected number or duration"));
        }
        let expr = self.duration_primary()?;
        let Some(op) = op else { return Ok(expr) };
        let range = token.start..expr.range.end;
        Ok(Duration { kind: DurationKind::Unary { op, expr: Box::new(expr) }, range })
    }

    fn duration_primary(&mut self) -> Parsed {
        let token = self.token();
        let range = token.range();
        let literal = |seconds, duration| DurationKind::Literal { seconds, duration };
        let kind = match token.tok {
            Tok::Duration => literal(self.duration_seconds(token)?, true),
            Tok::Number => {
                let seconds = read_number(self.slice(token)).unwrap_or(f64::NAN);
                if seconds.is_nan() || seconds.abs() > MAX_SECONDS {
                    return Err(self.fail(range, "duration out of range"));
                }
                literal(seconds, false)
            }
            Tok::LeftParen => {
                self.next();
                let inner = self.duration_expr(0)?;
                let close = self.expect(Tok::RightParen, " in duration expression")?;
                return Ok(Duration {
                    kind: DurationKind::Paren(Box::new(inner)),
                    range: token.start..close.end,
                });
            }
            Tok::Word => return self.duration_call(token),
            _ => return Err(self.unexpected(", expected duration")),
        };
        self.next();
        Ok(Duration { kind, range })
    }

    fn duration_call(&mut self, token: Token) -> Parsed {
        let name = self.slice(token).to_ascii_lowercase();
        if !is_duration_function(&name) {
            return Err(self.unexpected(", expected duration"));
        }
        let place = " in duration expression";
        self.next();
        self.expect(Tok::LeftParen, place)?;
        let kind = match name.as_str() {
            "step" => DurationKind::Step,
            "range" => DurationKind::Range,
            _ => {
                let lhs = Box::new(self.duration_expr(0)?);
                self.expect(Tok::Comma, place)?;
                let rhs = Box::new(self.duration_expr(0)?);
                if name == "min_of" { DurationKind::Min(lhs, rhs) } else { DurationKind::Max(lhs, rhs) }
            }
        };
        let close = self.expect(Tok::RightParen, place)?;
        Ok(Duration { kind, range: token.start..close.end })
    }

    /// A window or a step that is known already must be greater than 0.
    pub(super) fn positive(&self, duration: &Duration) -> Parsed<()> {
        match constant(duration) {
            Some(seconds) if (seconds * 1000.0).round() <= 0.0 => {
                Err(self.fail(duration.range.clone(), "duration must be greater than 0"))
            }
            Some(seconds) if seconds > MAX_SECONDS => {
                Err(self.fail(duration.range.clone(), "duration out of range"))
            }
            _ => Ok(()),
        }
    }
}

fn is_duration_function(name: &str) -> bool {
    ["step", "range", "min_of", "max_of"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Duration {
    /// Its value in seconds, given the query's step and range in seconds.
    pub fn seconds(&self, step: f64, range: f64) -> f64 {
        use DurationKind::*;
        match &self.kind {
            Literal { seconds, .. } => *seconds,
            Step => step,
            Range => range,
            Min(a, b) => a.seconds(step, range).min(b.seconds(step, range)),
            Max(a, b) => a.seconds(step, range).max(b.seconds(step, range)),
            Paren(inner) => inner.seconds(step, range),
            Unary { op: UnaryOp::Plus, expr } => expr.seconds(step, range),
            Unary { op: UnaryOp::Minus, expr } => -expr.seconds(step, range),
            Binary { op, lhs, rhs } => {
                let (a, b) = (lhs.seconds(step, range), rhs.seconds(step, range));
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod => a % b,
                    BinaryOp::Pow => a.powf(b),
                    _ => f64::NAN,
                }
            }
        }
    }
}

/// The value if neither `step()` nor `range()` is in it.
fn constant(duration: &Duration) -> Option<f64> {
    fn fixed(duration: &Duration) -> bool {
        use DurationKind::*;
        match &duration.kind {
            Literal { .. } => true,
            Step | Range => false,
            Min(a, b) | Max(a, b) => fixed(a) && fixed(b),
            Paren(inner) => fixed(inner),
            Unary { expr, .. } => fixed(expr),
            Binary { lhs, rhs, .. } => fixed(lhs) && fixed(rhs),
        }
    }
    fixed(duration).then(|| duration.seconds(0.0, 0.0))
}
