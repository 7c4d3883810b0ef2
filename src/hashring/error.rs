//! Why a ring file or a ring is refused.

use model::Kind;

/// Says where in the file (counted from 1, where known) and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(.line, .column))]
pub struct Error {
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// Names the field and what would be right.
    pub message: String,
}

fn place(line: &Option<usize>, column: &Option<usize>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: "),
        (Some(line), None) => format!("line {line}: "),
        _ => String::new(),
    }
}

impl Error {
    /// Always the file's fault: it has to be changed.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }

    pub(crate) fn new(message: impl Into<String>) -> Error {
        Error { line: None, column: None, message: message.into() }
    }

    pub(crate) fn json(error: serde_json::Error) -> Error {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        // serde_json repeats the position at the end of its own text.
        let suffix = format!(" at line {line} column {column}");
        let message = text.strip_suffix(&suffix).unwrap_or(&text).to_owned();
        if line == 0 {
            return Error::new(message);
        }
        Error { line: Some(line), column: Some(column), message }
    }
}
