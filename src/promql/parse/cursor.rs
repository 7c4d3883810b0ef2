//! The parser's place among the tokens: looking, taking, refusing, and the bounds on depth and height.

use std::ops::Range;

use super::expr::Parser;
use super::lex::{Tok, Token};
use super::*;

type Parsed<T> = Result<T, ParseError>;

/// Tallest tree: later passes walk it by recursion.
const MAX_HEIGHT: usize = 256;

/// Words that are no names where an expression begins.
const KEYWORDS: [&str; 8] =
    ["bool", "on", "ignoring", "group_left", "group_right", "by", "without", "offset"];

impl<'a> Parser<'a> {
    pub(super) fn token(&self) -> Token {
        self.tokens[self.at]
    }

    pub(super) fn peek(&self) -> Tok {
        self.token().tok
    }

    pub(super) fn peek_after(&self) -> Tok {
        self.tokens.get(self.at + 1).map_or(Tok::End, |t| t.tok)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.token();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(super) fn slice(&self, token: Token) -> &'a str {
        &self.text[token.range()]
    }

    /// The next token's text if it is a word.
    pub(super) fn word(&self) -> Option<&'a str> {
        (self.peek() == Tok::Word).then(|| self.slice(self.token()))
    }

    pub(super) fn word_is(&self, keyword: &str) -> bool {
        self.word().is_some_and(|w| w.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn eat(&mut self, tok: Tok) -> bool {
        let hit = self.peek() == tok;
        if hit {
            self.next();
        }
        hit
    }

    pub(super) fn expect(&mut self, tok: Tok, place: &str) -> Parsed<Token> {
        if self.peek() == tok { Ok(self.next()) } else { Err(self.unexpected(place)) }
    }

    /// End of the token before the next one.
    pub(super) fn last_end(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |at| self.tokens[at].end)
    }

    pub(super) fn fail(&self, range: Range<usize>, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, range, message)
    }

    /// The next token does not belong here; `place` is empty or like ` in aggregation`.
    pub(super) fn unexpected(&self, place: &str) -> ParseError {
        let token = self.token();
        let text = self.slice(token);
        let what = match token.tok {
            Tok::End => match self.open {
                Some(Tok::LeftParen) => return self.fail(token.range(), "unclosed left parenthesis"),
                Some(Tok::LeftBracket) => return self.fail(token.range(), "unclosed left bracket"),
                Some(_) => return self.fail(token.range(), "unexpected end of input inside braces"),
                None => "end of input".to_owned(),
            },
            Tok::Word if AggregateOp::from_name(text).is_some() => format!("<aggr:{text}>"),
            Tok::Word if KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(text)) => format!("<{text}>"),
            Tok::Word => format!("identifier {text:?}"),
            Tok::Number => format!("number {text:?}"),
            Tok::Duration => format!("duration {text:?}"),
            Tok::Text => format!("string {text}"),
            Tok::RightParen if place.is_empty() => "right parenthesis ')'".to_owned(),
            Tok::LeftParen
            | Tok::RightParen
            | Tok::LeftBrace
            | Tok::RightBrace
            | Tok::LeftBracket
            | Tok::RightBracket
            | Tok::Comma
            | Tok::Colon => format!("{text:?}"),
            _ => format!("<op:{text}>"),
        };
        self.fail(token.range(), format!("unexpected {what}{place}"))
    }

    pub(super) fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            let range = self.token().range();
            return Err(
                self.fail(range, format!("expression is nested more than {} levels deep", self.limits.depth))
            );
        }
        Ok(())
    }

    pub(super) fn shallower(&mut self) {
        self.depth -= 1;
    }

    /// Notes the height of the tree just built.
    pub(super) fn grown(&mut self, height: usize) -> Parsed<()> {
        self.height = height;
        if height > MAX_HEIGHT {
            let range = self.token().range();
            return Err(self.fail(range, format!("expression is more than {MAX_HEIGHT} operators high")));
        }
        Ok(())
    }
}
