//! Text to tokens.
//!
//! Words are not told apart here: what is a keyword depends on where it stands, and every keyword may also be
//! a label name. Inside square brackets a colon stands alone (`[5m:1m]`); elsewhere it belongs to a name.

use std::ops::Range;

use super::ParseError;

/// Kinds of token; the text is in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    End,
    /// Name, keyword, function, `inf`, `nan`.
    Word,
    Number,
    Duration,
    Text,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    /// `=`
    Assign,
    /// `==`
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `=~`
    Match,
    /// `!~`
    NotMatch,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
}

/// A token and its bytes in the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Token {
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// All tokens of `text`, ended by [`Tok::End`], and the innermost bracket that is still open there.
pub(crate) fn lex(text: &str) -> Result<(Vec<Token>, Option<Tok>), ParseError> {
    let mut lexer =
        Lexer { text, bytes: text.as_bytes(), at: 0, brackets: 0, open: Vec::new(), out: Vec::new() };
    while lexer.step()? {}
    let end = text.len();
    lexer.out.push(Token { tok: Tok::End, start: end, end });
    Ok((lexer.out, lexer.open.pop()))
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    brackets: u32,
    open: Vec<Tok>,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, tok: Tok, len: usize) {
        match tok {
            Tok::LeftParen | Tok::LeftBrace | Tok::LeftBracket => self.open.push(tok),
            Tok::RightParen | Tok::RightBrace | Tok::RightBracket => {
                self.open.pop();
            }
            _ => {}
        }
        self.out.push(Token { tok, start: self.at, end: self.at + len });
        self.at += len;
    }

    fn fail(&self, range: Range<usize>, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, range, message)
    }

    fn step(&mut self) -> Result<bool, ParseError> {
        while self.at < self.bytes.len() && matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        if self.at >= self.bytes.len() {
            return Ok(false);
        }
        let (byte, next) = (self.peek(0), self.peek(1));
        match byte {
            b'#' => {
                let rest = &self.bytes[self.at..];
                self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            }
            b'(' => self.push(Tok::LeftParen, 1),
            b')' => self.push(Tok::RightParen, 1),
            b'{' => self.push(Tok::LeftBrace, 1),
            b'}' => self.push(Tok::RightBrace, 1),
            b'[' => {
                self.brackets += 1;
                self.push(Tok::LeftBracket, 1)
            }
            b']' => {
                self.brackets = self.brackets.saturating_sub(1);
                self.push(Tok::RightBracket, 1)
            }
            b',' => self.push(Tok::Comma, 1),
            b'@' => self.push(Tok::At, 1),
            b'+' => self.push(Tok::Add, 1),
            b'-' => self.push(Tok::Sub, 1),
            b'*' => self.push(Tok::Mul, 1),
            b'/' => self.push(Tok::Div, 1),
            b'%' => self.push(Tok::Mod, 1),
            b'^' => self.push(Tok::Pow, 1),
            b'=' if next == b'=' => self.push(Tok::Equal, 2),
            b'=' if next == b'~' => self.push(Tok::Match, 2),
            b'=' => self.push(Tok::Assign, 1),
            b'!' if next == b'=' => self.push(Tok::NotEqual, 2),
            b'!' if next == b'~' => self.push(Tok::NotMatch, 2),
            b'<' if next == b'=' => self.push(Tok::LessEqual, 2),
            b'<' if next == b'/' => self.push(Tok::TrimUpper, 2),
            b'<' => self.push(Tok::Less, 1),
            b'>' if next == b'=' => self.push(Tok::GreaterEqual, 2),
            b'>' if next == b'/' => self.push(Tok::TrimLower, 2),
            b'>' => self.push(Tok::Greater, 1),
            b'"' | b'\'' | b'`' => self.string(byte)?,
            b'0'..=b'9' => self.number()?,
            b'.' if next.is_ascii_digit() => self.number()?,
            b':' if self.brackets > 0 => self.push(Tok::Colon, 1),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':' => {
                let brackets = self.brackets > 0;
                let rest = &self.bytes[self.at..];
                let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || (*b == b':' && !brackets);
                let len = rest.iter().position(|b| !part(b)).unwrap_or(rest.len());
                self.push(Tok::Word, len);
            }
            _ => {
                let c = self.text[self.at..].chars().next().unwrap_or('?');
                let range = self.at..self.at + c.len_utf8();
                let after = self.text[range.end..].chars().next();
                return Err(match after {
                    Some(after) if c == '!' => {
                        self.fail(range, format!("unexpected character after '!': {after:?}"))
                    }
                    _ => self.fail(range, format!("unexpected character: {c:?}")),
                });
            }
        }
        Ok(true)
    }

    fn string(&mut self, quote: u8) -> Result<(), ParseError> {
        let mut len = 1;
        loop {
            match self.peek(len) {
                0 if self.at + len >= self.bytes.len() => {
                    let what =
                        if quote == b'`' { "unterminated raw string" } else { "unterminated quoted string" };
                    return Err(self.fail(self.at..self.bytes.len(), what));
                }
                b'\\' if quote != b'`' => len += 2,
                b'\n' if quote != b'`' => {
                    return Err(self.fail(self.at..self.at + len, "unterminated quoted string"));
                }
                b if b == quote => break,
                _ => len += 1,
            }
        }
        self.push(Tok::Text, len + 1);
        Ok(())
    }

    /// A number or a duration; `1e3`, `0x1f`, `1_000`, `5m`, `1h30m`.
    fn number(&mut self) -> Result<(), ParseError> {
        let rest = &self.bytes[self.at..];
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'.';
        let mut len = rest.iter().position(|b| !word(b)).unwrap_or(rest.len());
        let hex = len > 1 && rest[0] == b'0' && matches!(rest[1], b'x' | b'X');
        // The sign of an exponent: the word ends in `e` and all before it is digits.
        if !hex
            && matches!(rest[len - 1], b'e' | b'E')
            && matches!(rest.get(len), Some(b'+' | b'-'))
            && rest[..len - 1].iter().all(|b| b.is_ascii_digit() || *b == b'.' || *b == b'_')
        {
            let digits = rest[len + 1..].iter().take_while(|b| b.is_ascii_digit() || **b == b'_').count();
            if digits > 0 {
                len += 1 + digits;
            }
        }
        let text = &self.text[self.at..self.at + len];
        let tok = if read_number(text).is_some() {
            Tok::Number
        } else if looks_like_duration(text) {
            Tok::Duration
        } else {
            return Err(self.fail(self.at..self.at + len, format!("bad number or duration syntax: {text:?}")));
        };
        self.push(tok, len);
        Ok(())
    }
}

fn looks_like_duration(text: &str) -> bool {
    let last = text.as_bytes().last();
    text.bytes().all(|b| b.is_ascii_digit() || b"smhdwy".contains(&b))
        && last.is_some_and(|b| b.is_ascii_alphabetic())
}

/// The value of a number as Go's ParseInt (base 0) or ParseFloat would read it.
pub(crate) fn read_number(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let digits: String = {
        // Underscores may only stand between digits (or after the base's prefix).
        let bytes = lower.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let near =
                |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(|b| b.is_ascii_alphanumeric());
            if *byte == b'_' && !(near(at.checked_sub(1)) && near(Some(at + 1))) {
                return None;
            }
        }
        lower.chars().filter(|c| *c != '_').collect()
    };
    if let Some(rest) = digits.strip_prefix("0x") {
        return i64::from_str_radix(rest, 16).ok().map(|v| v as f64);
    }
    match digits.as_str() {
        "inf" => return Some(f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    if !digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-')) {
        return None;
    }
    // An integer with a leading zero is octal, as Go reads it with base 0.
    if digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
        && let Ok(value) = i64::from_str_radix(&digits[1..], 8)
    {
        return Some(value as f64);
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("1", 1.0),
            ("0x1F", 31.0),
            ("1_000", 1000.0),
            ("1e3", 1000.0),
            ("1.5e-3", 0.0015),
            (".5", 0.5),
            ("5.", 5.0),
            ("010", 8.0),
            ("Inf", f64::INFINITY),
        ] {
            assert_eq!(read_number(text), Some(value), "{text}");
        }
        for bad in ["_1", "1__0", "1_", "0x", "1e", "5m"] {
            assert_eq!(read_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn brackets_split_colons() {
        let kinds = |text| lex(text).unwrap().0.iter().map(|t| t.tok).collect::<Vec<_>>();
        assert_eq!(kinds("a:b"), [Tok::Word, Tok::End]);
        assert_eq!(
            kinds("[5m:1m]"),
            [Tok::LeftBracket, Tok::Duration, Tok::Colon, Tok::Duration, Tok::RightBracket, Tok::End]
        );
        assert!(lex("\"a").is_err());
        assert!(lex("1x").is_err());
    }
}
