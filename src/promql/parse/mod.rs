//! Text to tree: lexer, Pratt parser, types, and the tree's canonical text.
//!
//! Stands first in every query. The whole language of Prometheus 3 is read, experimental parts included; what
//! the evaluation cannot do yet is refused later, by name. Every node knows its byte range, so that errors
//! and annotations can point at it.

mod ast;
mod check;
mod cursor;
mod display;
mod duration;
mod error;
mod expr;
pub mod functions;
mod lex;
mod selector;
mod selectors;
mod unquote;

pub use ast::*;
pub use error::{ParseError, line_column};
use model::Matcher;
pub use selectors::selectors;

use crate::room::with_room;
pub(crate) use unquote::unquote;

/// How much text and nesting is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Deepest nesting of parentheses, calls and signs.
    pub depth: usize,
    /// Longest text in bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { depth: 128, bytes: 256 << 10 }
    }
}

/// Reads a query and checks its types.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    parse_within(text, Limits::default())
}

/// [`parse`] with limits of one's own.
pub fn parse_within(text: &str, limits: Limits) -> Result<Expr, ParseError> {
    let mut parser = expr::Parser::new(text, limits)?;
    // Only parentheses make the parser go deep, and operators in a row make its tree high.
    let operators = parser.operators();
    let refuse = |message| ParseError::new(text, 0..text.len(), message);
    with_room(operators / 3, refuse, || {
        let expr = parser.whole()?;
        check::check(text, &expr)?;
        Ok(expr)
    })
}

/// Reads the labels of one series, `name{label="value", ...}`: only `=` is allowed.
pub fn parse_series_labels(text: &str) -> Result<model::Labels, ParseError> {
    let selector = expr::Parser::new(text, Limits::default())?.series()?;
    let fail = |message: String| ParseError::new(text, 0..text.len(), message);
    if let Some(odd) = selector.matchers.iter().find(|m| m.op != model::MatchOp::Equal) {
        return Err(fail(format!("a series is written with = only, got {odd}")));
    }
    model::Labels::from_pairs(selector.matchers.iter().map(|m| (&*m.name, &*m.value)))
        .map_err(|e| fail(e.to_string()))
}

/// Reads a selector as in `match[]`: at least one matcher must not match the empty value.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let expr = expr::Parser::new(text, Limits::default())?.whole()?;
    let ExprKind::Selector(selector) = expr.kind else {
        return Err(ParseError::new(text, expr.range, "a series selector is expected here"));
    };
    if selector.modifiers != Modifiers::default() {
        return Err(ParseError::new(text, expr.range, "modifiers are not allowed in a series selector"));
    }
    if selector.matchers.iter().all(Matcher::matches_empty) {
        return Err(ParseError::new(text, expr.range, "match[] must contain at least one non-empty matcher"));
    }
    Ok(selector.matchers)
}
