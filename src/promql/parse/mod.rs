//! Text to tree.
mod ast;
mod error;
pub mod functions;
pub use ast::*;
pub use error::{ParseError, line_column};
use model::Matcher;

/// Reads a query.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    Err(ParseError::new(text, 0..text.len(), "not yet"))
}

/// Reads a selector as in `match[]`: at least one matcher must not match the empty value.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    Err(ParseError::new(text, 0..text.len(), "not yet"))
}
