//! The Pratt parser of expressions.

use super::lex::{Tok, Token, lex, read_number};
use super::unquote::{unquote, unquote_bytes};
use super::*;

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Token>,
    /// What is still open at the end of the text.
    pub(super) open: Option<Tok>,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Height of the tree that was built last.
    pub(super) height: usize,
    /// Operators seen in duration expressions.
    pub(super) duration_ops: usize,
    pub(super) limits: Limits,
}

type Parsed<T = Expr> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, limits: Limits) -> Parsed<Parser<'a>> {
        if text.len() > limits.bytes {
            return Err(ParseError::new(
                text,
                0..0,
                format!("query is {} bytes long; at most {} are allowed", text.len(), limits.bytes),
            ));
        }
        let (tokens, open) = lex(text)?;
        Ok(Parser { text, tokens, open, at: 0, depth: 0, height: 0, duration_ops: 0, limits })
    }

    /// Number of tokens that can make the tree higher; more than its height.
    pub(super) fn operators(&self) -> usize {
        let flat = |t: &&Token| {
            matches!(
                t.tok,
                Tok::Number | Tok::Duration | Tok::Text | Tok::Comma | Tok::RightParen | Tok::Assign
            )
        };
        self.tokens.len() - self.tokens.iter().filter(flat).count()
    }

    /// The one expression that the text consists of.
    pub(super) fn whole(&mut self) -> Parsed {
        if self.peek() == Tok::End {
            return Err(self.fail(0..0, "no expression found in input"));
        }
        let expr = self.expr(0)?;
        match self.peek() {
            Tok::End => Ok(expr),
            _ => Err(self.unexpected("")),
        }
    }

    fn expr(&mut self, min_precedence: u8) -> Parsed {
        self.deeper()?;
        let mut lhs = self.unary()?;
        let mut height = self.height;
        while let Some(op) = self.binary_op() {
            let precedence = op.precedence();
            if precedence < min_precedence {
                break;
            }
            let op_range = self.next().range();
            let (returns_bool, matching) = self.binary_modifiers()?;
            // `^` associates to the right, all others to the left.
            let rhs = self.expr(if op == BinaryOp::Pow { precedence } else { precedence + 1 })?;
            height = height.max(self.height) + 1;
            self.grown(height)?;
            let range = lhs.range.start..rhs.range.end;
            let binary = Binary { op, op_range, returns_bool, lhs, rhs, matching };
            lhs = Expr { kind: ExprKind::Binary(Box::new(binary)), range };
        }
        self.shallower();
        Ok(lhs)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        use BinaryOp::*;
        Some(match self.peek() {
            Tok::Add => Add,
            Tok::Sub => Sub,
            Tok::Mul => Mul,
            Tok::Div => Div,
            Tok::Mod => Mod,
            Tok::Pow => Pow,
            Tok::Equal => Eq,
            Tok::NotEqual => Ne,
            Tok::Less => Lt,
            Tok::LessEqual => Le,
            Tok::Greater => Gt,
            Tok::GreaterEqual => Ge,
            Tok::TrimUpper => TrimUpper,
            Tok::TrimLower => TrimLower,
            Tok::Word => {
                let word = self.word()?;
                *[And, Or, Unless, Atan2].iter().find(|op| op.as_str().eq_ignore_ascii_case(word))?
            }
            _ => return None,
        })
    }

    fn binary_modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let mut matching = Matching::default();
        let returns_bool = self.word_is("bool");
        if returns_bool {
            self.next();
        }
        let on = self.word_is("on");
        if on || self.word_is("ignoring") {
            self.next();
            matching.on = on;
            matching.labels = self.label_list()?;
            let left = self.word_is("group_left");
            if left || self.word_is("group_right") {
                self.next();
                matching.card = if left { Card::ManyToOne } else { Card::OneToMany };
                if self.peek() == Tok::LeftParen {
                    matching.include = self.label_list()?;
                }
            }
        }
        while self.peek_after() == Tok::LeftParen
            && let Some(word) = self.word()
        {
            let (left, right) = match word.to_ascii_lowercase().as_str() {
                "fill" => (true, true),
                "fill_left" => (true, false),
                "fill_right" => (false, true),
                _ => break,
            };
            let start = self.next();
            self.next();
            let value = self.signed_number(" in fill modifier")?;
            self.expect(Tok::RightParen, " in fill modifier")?;
            if (left && matching.fill_left.is_some()) || (right && matching.fill_right.is_some()) {
                return Err(self.fail(start.range(), "fill modifier may not be set multiple times"));
            }
            matching.fill_left = if left { Some(value) } else { matching.fill_left };
            matching.fill_right = if right { Some(value) } else { matching.fill_right };
        }
        Ok((returns_bool, matching))
    }

    pub(super) fn signed_number(&mut self, place: &str) -> Parsed<f64> {
        let sign = match self.peek() {
            Tok::Sub => -1.0,
            Tok::Add => 1.0,
            _ => 0.0,
        };
        if sign != 0.0 {
            self.next();
        }
        let token = self.token();
        let value = match token.tok {
            Tok::Number | Tok::Word => read_number(self.slice(token)),
            Tok::Duration => Some(self.duration_seconds(token)?),
            _ => None,
        };
        let value = value.ok_or_else(|| self.unexpected(place))?;
        self.next();
        Ok(if sign < 0.0 { -value } else { value })
    }

    fn unary(&mut self) -> Parsed {
        let token = self.token();
        let op = match token.tok {
            Tok::Add => UnaryOp::Plus,
            Tok::Sub => UnaryOp::Minus,
            _ => return self.postfix(),
        };
        self.next();
        // A sign binds as tightly as `*`: `-1 ^ 2` is `-(1 ^ 2)`.
        let expr = self.expr(BinaryOp::Pow.precedence())?;
        let range = token.start..expr.range.end;
        if let ExprKind::Number { value, duration } = expr.kind {
            let value = if op == UnaryOp::Minus { -value } else { value };
            return Ok(Expr { kind: ExprKind::Number { value, duration }, range });
        }
        self.grown(self.height + 1)?;
        Ok(Expr { kind: ExprKind::Unary { op, expr: Box::new(expr) }, range })
    }

    fn postfix(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            expr = match self.peek() {
                Tok::LeftBracket => self.brackets(expr)?,
                Tok::At => self.at_modifier(expr)?,
                Tok::Word if self.word_is("offset") => self.offset_modifier(expr)?,
                Tok::Word if self.word_is("anchored") => self.extended_modifier(expr, true)?,
                Tok::Word if self.word_is("smoothed") => self.extended_modifier(expr, false)?,
                _ => return Ok(expr),
            };
            self.grown(self.height + 1)?;
        }
    }

    fn primary(&mut self) -> Parsed {
        let token = self.token();
        let range = token.range();
        self.height = 0;
        match token.tok {
            Tok::Number => {
                self.next();
                let value = read_number(self.slice(token)).unwrap_or(f64::NAN);
                Ok(Expr { kind: ExprKind::Number { value, duration: false }, range })
            }
            Tok::Duration => {
                let value = self.duration_seconds(token)?;
                self.next();
                Ok(Expr { kind: ExprKind::Number { value, duration: true }, range })
            }
            Tok::Text => {
                self.next();
                let literal = self.slice(token);
                let kind = match unquote_bytes(literal).map_err(|m| self.fail(range.clone(), m))? {
                    Ok(text) => ExprKind::String(text),
                    Err(_) => ExprKind::NotText(literal.to_owned()),
                };
                Ok(Expr { kind, range })
            }
            Tok::LeftParen => {
                self.next();
                let inner = self.expr(0)?;
                let close = self.expect(Tok::RightParen, "")?;
                self.grown(self.height + 1)?;
                Ok(Expr { kind: ExprKind::Paren(Box::new(inner)), range: token.start..close.end })
            }
            Tok::LeftBrace => self.selector(None, false),
            Tok::Word => self.named(token),
            _ => Err(self.unexpected("")),
        }
    }

    fn named(&mut self, token: Token) -> Parsed {
        let name = self.slice(token);
        let after = self.peek_after();
        if let Some(op) = AggregateOp::from_name(name) {
            let following = self.tokens.get(self.at + 1).map_or("", |t| &self.text[t.range()]);
            let modifier = ["by", "without"].iter().any(|m| following.eq_ignore_ascii_case(m));
            if after == Tok::LeftParen || modifier {
                self.next();
                return self.aggregate(op, token);
            }
        }
        if after == Tok::LeftParen {
            self.next();
            return self.call(name, token);
        }
        if let Some(value) = read_number(name) {
            self.next();
            return Ok(Expr { kind: ExprKind::Number { value, duration: false }, range: token.range() });
        }
        let reserved = ["bool", "on", "ignoring", "group_left", "group_right", "atan2"];
        if reserved.iter().any(|word| word.eq_ignore_ascii_case(name)) {
            return Err(self.unexpected(""));
        }
        self.next();
        self.selector(Some(token), false)
    }

    fn aggregate(&mut self, op: AggregateOp, start: Token) -> Parsed {
        let mut grouping = self.grouping()?;
        let mut args = self.args(false)?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let range = start.start..self.last_end();
        let (grouping, without) = grouping.unwrap_or_default();
        let wanted = if op.takes_param() { 2 } else { 1 };
        if args.is_empty() {
            return Err(self.fail(range, "no arguments for aggregate expression provided"));
        }
        if args.len() != wanted {
            return Err(self.fail(
                range,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                    args.len()
                ),
            ));
        }
        let (Some(expr), param) = (args.pop(), args.pop()) else {
            return Err(self.fail(range, "no arguments for aggregate expression provided"));
        };
        let aggregate = Aggregate { op, param, expr, grouping, without };
        Ok(Expr { kind: ExprKind::Aggregate(Box::new(aggregate)), range })
    }

    fn grouping(&mut self) -> Parsed<Option<(Vec<String>, bool)>> {
        let without = self.word_is("without");
        if !without && !self.word_is("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some((self.label_list()?, without)))
    }

    /// `(a, "b.c", d)`.
    fn label_list(&mut self) -> Parsed<Vec<String>> {
        let place = " in grouping opts";
        self.expect(Tok::LeftParen, place)?;
        let mut labels = Vec::new();
        while self.peek() != Tok::RightParen {
            let token = self.token();
            let label = match token.tok {
                Tok::Word if !self.slice(token).contains(':') => self.slice(token).to_owned(),
                Tok::Text => unquote(self.slice(token)).map_err(|m| self.fail(token.range(), m))?,
                _ => return Err(self.unexpected(" in grouping opts, expected label")),
            };
            if label.is_empty() {
                return Err(self.fail(token.range(), "label name in grouping opts is empty"));
            }
            self.next();
            labels.push(label);
            if !self.eat(Tok::Comma) {
                break;
            }
        }
        self.expect(Tok::RightParen, place)?;
        Ok(labels)
    }

    fn call(&mut self, name: &str, start: Token) -> Parsed {
        let Some(function) = functions::find(name) else {
            return Err(self.fail(start.range(), format!("unknown function with name {name:?}")));
        };
        let args = self.args(name == "info")?;
        Ok(Expr { kind: ExprKind::Call { function, args }, range: start.start..self.last_end() })
    }

    /// `(a, b)`; the second argument of `info` is a bare list of matchers, which may all match empty.
    fn args(&mut self, of_info: bool) -> Parsed<Vec<Expr>> {
        self.expect(Tok::LeftParen, "")?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.eat(Tok::RightParen) {
            return Ok(args);
        }
        loop {
            if of_info && args.len() == 1 && self.peek() == Tok::LeftBrace {
                args.push(self.selector(None, true)?);
            } else {
                args.push(self.expr(0)?);
            }
            height = height.max(self.height);
            let comma = self.token();
            if !self.eat(Tok::Comma) {
                break;
            }
            if self.peek() == Tok::RightParen {
                return Err(self.fail(comma.range(), "trailing commas not allowed in function call args"));
            }
        }
        self.expect(Tok::RightParen, " in function call args")?;
        self.grown(height + 1)?;
        Ok(args)
    }
}
