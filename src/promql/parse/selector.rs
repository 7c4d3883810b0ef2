//! Selectors and what may follow them: ranges, subqueries, `offset`, `@`, `anchored`, `smoothed`.

use std::ops::Range;

use model::{METRIC_NAME, MatchOp, Matcher};

use super::expr::Parser;
use super::lex::{Tok, Token};
use super::unquote::unquote;
use super::*;

type Parsed<T = Expr> = Result<T, ParseError>;

impl Parser<'_> {
    /// A selector whose name, if any, has been read. Data matchers of `info` may all match empty.
    pub(super) fn selector(&mut self, name: Option<Token>, data_matchers: bool) -> Parsed {
        let start = name.map_or(self.token().start, |t| t.start);
        let mut selector = Selector { name: None, matchers: Vec::new(), modifiers: Modifiers::default() };
        if let Some(token) = name {
            let name = self.slice(token);
            selector.name = Some(name.to_owned());
            selector.matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        if self.peek() == Tok::LeftBrace {
            self.matchers(&mut selector, start)?;
        }
        let range = start..self.last_end();
        if !data_matchers && selector.matchers.iter().all(Matcher::matches_empty) {
            return Err(self.fail(range, "vector selector must contain at least one non-empty matcher"));
        }
        Ok(Expr { kind: ExprKind::Selector(selector), range })
    }

    /// The selector that the text consists of, which may match empty.
    pub(super) fn series(&mut self) -> Parsed<Selector> {
        let name = if self.peek() == Tok::Word { Some(self.next()) } else { None };
        let expr = self.selector(name, true)?;
        match (self.peek(), expr.kind) {
            (Tok::End, ExprKind::Selector(selector)) => Ok(selector),
            _ => Err(self.unexpected(" after a series")),
        }
    }

    fn matchers(&mut self, selector: &mut Selector, start: usize) -> Parsed<()> {
        let place = " in label matching";
        self.expect(Tok::LeftBrace, place)?;
        while self.peek() != Tok::RightBrace {
            let token = self.token();
            let quoted = token.tok == Tok::Text;
            let label = match token.tok {
                Tok::Word if !self.slice(token).contains(':') => self.slice(token).to_owned(),
                Tok::Text => unquote(self.slice(token)).map_err(|m| self.fail(token.range(), m))?,
                _ => return Err(self.unexpected(&format!("{place}, expected identifier or \"}}\""))),
            };
            self.next();
            let op = match self.peek() {
                Tok::Assign => MatchOp::Equal,
                Tok::NotEqual => MatchOp::NotEqual,
                Tok::Match => MatchOp::Regex,
                Tok::NotMatch => MatchOp::NotRegex,
                // A quoted name alone is the metric's name.
                Tok::Comma | Tok::RightBrace if quoted => {
                    self.twice(selector, start..token.end, &label)?;
                    selector.matchers.push(Matcher::equal(METRIC_NAME, &label));
                    self.eat(Tok::Comma);
                    continue;
                }
                _ => return Err(self.unexpected(&format!("{place}, expected label matching operator"))),
            };
            self.next();
            let value_token = self.expect(Tok::Text, &format!("{place}, expected string"))?;
            let value = unquote(self.slice(value_token)).map_err(|m| self.fail(value_token.range(), m))?;
            if label == METRIC_NAME {
                if selector.name.is_some() {
                    self.twice(selector, start..token.end, &value)?;
                }
            } else if label.is_empty() {
                return Err(self.fail(token.range(), "label name in a matcher is empty"));
            }
            let matcher = Matcher::new(op, &label, &value)
                .map_err(|e| self.fail(token.start..value_token.end, e.to_string()))?;
            selector.matchers.push(matcher);
            if !self.eat(Tok::Comma) {
                break;
            }
        }
        self.expect(Tok::RightBrace, &format!("{place}, expected \",\" or \"}}\""))?;
        Ok(())
    }

    fn twice(&self, selector: &Selector, range: Range<usize>, name: &str) -> Parsed<()> {
        match selector.matchers.iter().find(|m| *m.name == *METRIC_NAME && m.op == MatchOp::Equal) {
            Some(first) => {
                Err(self
                    .fail(range, format!("metric name must not be set twice: {:?} or {name:?}", first.value)))
            }
            None => Ok(()),
        }
    }

    /// `[window]` or `[window:step]`.
    pub(super) fn brackets(&mut self, expr: Expr) -> Parsed {
        let open = self.expect(Tok::LeftBracket, "")?;
        let window = self.duration_expr(0)?;
        if self.eat(Tok::Colon) {
            let step = if self.peek() == Tok::RightBracket { None } else { Some(self.duration_expr(0)?) };
            let close = self.expect(Tok::RightBracket, " in subquery selector, expected \"]\"")?;
            let range = expr.range.start..close.end;
            self.positive(&window)?;
            if let Some(step) = &step {
                self.positive(step)?;
            }
            let subquery = Subquery { expr, window, step, modifiers: Modifiers::default() };
            return Ok(Expr { kind: ExprKind::Subquery(Box::new(subquery)), range });
        }
        let close =
            self.expect(Tok::RightBracket, " in subquery or range selector, expected \":\" or \"]\"")?;
        self.positive(&window)?;
        let place = open.start..close.end;
        let ExprKind::Selector(selector) = expr.kind else {
            return Err(self.fail(place, "ranges only allowed for vector selectors"));
        };
        if selector.modifiers.offset.is_some() {
            return Err(self.fail(place, "no offset modifiers allowed before range"));
        }
        if selector.modifiers.at.is_some() {
            return Err(self.fail(place, "no @ modifiers allowed before range"));
        }
        Ok(Expr { kind: ExprKind::Matrix { selector, window }, range: expr.range.start..close.end })
    }

    fn modifiers<'e>(&self, expr: &'e mut Expr, what: &str) -> Parsed<&'e mut Modifiers> {
        let range = expr.range.clone();
        match &mut expr.kind {
            ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => Ok(&mut selector.modifiers),
            ExprKind::Subquery(subquery) => Ok(&mut subquery.modifiers),
            _ => Err(self.fail(
                range,
                format!(
                    "{what} must be preceded by an instant vector selector or range vector selector or a \
                     subquery"
                ),
            )),
        }
    }

    pub(super) fn offset_modifier(&mut self, mut expr: Expr) -> Parsed {
        self.next();
        let whole = expr.range.clone();
        let offset = self.offset_duration()?;
        let modifiers = self.modifiers(&mut expr, "offset modifier")?;
        if modifiers.offset.is_some() {
            return Err(self.fail(whole, "offset may not be set multiple times"));
        }
        modifiers.offset = Some(offset);
        expr.range.end = self.last_end();
        Ok(expr)
    }

    pub(super) fn at_modifier(&mut self, mut expr: Expr) -> Parsed {
        self.next();
        let whole = expr.range.clone();
        let at = match self.word().map(str::to_ascii_lowercase).as_deref() {
            Some(word @ ("start" | "end")) => {
                self.next();
                self.expect(Tok::LeftParen, " in @ modifier")?;
                self.expect(Tok::RightParen, " in @ modifier")?;
                if word == "start" { At::Start } else { At::End }
            }
            _ => {
                let from = self.token().start;
                let seconds = self.signed_number(" in @, expected timestamp")?;
                let ms = seconds * 1000.0;
                if !ms.is_finite() || ms.abs() >= i64::MAX as f64 {
                    let range = from..self.last_end();
                    return Err(
                        self.fail(range, format!("timestamp out of bounds for @ modifier: {seconds}"))
                    );
                }
                At::Time(ms.round() as i64)
            }
        };
        let modifiers = self.modifiers(&mut expr, "@ modifier")?;
        if modifiers.at.is_some() {
            return Err(self.fail(whole, "@ <timestamp> may not be set multiple times"));
        }
        modifiers.at = Some(at);
        expr.range.end = self.last_end();
        Ok(expr)
    }

    pub(super) fn extended_modifier(&mut self, mut expr: Expr, anchored: bool) -> Parsed {
        let token = self.next();
        let word = if anchored { "anchored" } else { "smoothed" };
        if matches!(expr.kind, ExprKind::Subquery(_)) {
            return Err(self.fail(token.range(), format!("{word} modifier is not supported for subqueries")));
        }
        let modifiers = self.modifiers(&mut expr, &format!("{word} modifier"))?;
        if modifiers.anchored || modifiers.smoothed {
            return Err(
                self.fail(token.range(), "only one of anchored and smoothed may be set, and only once")
            );
        }
        modifiers.anchored = anchored;
        modifiers.smoothed = !anchored;
        expr.range.end = self.last_end();
        Ok(expr)
    }
}
