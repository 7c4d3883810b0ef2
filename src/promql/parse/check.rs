//! Types: every operand must be what its operator or function takes.

use std::ops::Range;

use super::*;

/// Checks the whole tree, children first.
pub(super) fn check(text: &str, expr: &Expr) -> Result<(), ParseError> {
    Checker { text }.check(expr).map(|_| ())
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn fail<T>(&self, range: &Range<usize>, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.text, range.clone(), message))
    }

    fn expect(&self, expr: &Expr, wanted: Type, place: &str) -> Result<(), ParseError> {
        let got = self.check(expr)?;
        if got == wanted {
            return Ok(());
        }
        self.fail(
            &expr.range,
            format!("expected type {} in {place}, got {}", wanted.describe(), got.describe()),
        )
    }

    fn check(&self, expr: &Expr) -> Result<Type, ParseError> {
        match &expr.kind {
            ExprKind::Paren(inner) => {
                self.check(inner)?;
            }
            ExprKind::Unary { expr: inner, .. } => {
                let got = self.check(inner)?;
                if !matches!(got, Type::Scalar | Type::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                        got.describe()
                    );
                    return self.fail(&expr.range, message);
                }
            }
            ExprKind::Subquery(subquery) => {
                let got = self.check(&subquery.expr)?;
                if got != Type::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {} instead", got.describe());
                    return self.fail(&expr.range, message);
                }
            }
            ExprKind::Aggregate(aggregate) => {
                self.expect(&aggregate.expr, Type::Vector, "aggregation expression")?;
                if let Some(param) = &aggregate.param {
                    let wanted =
                        if aggregate.op == AggregateOp::CountValues { Type::String } else { Type::Scalar };
                    self.expect(param, wanted, "aggregation parameter")?;
                }
            }
            ExprKind::Binary(binary) => self.binary(expr, binary)?,
            ExprKind::Call { function, args } => self.call(expr, function, args)?,
            ExprKind::Number { .. }
            | ExprKind::String(_)
            | ExprKind::NotText(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix { .. } => {}
        }
        Ok(expr.type_of())
    }

    fn binary(&self, expr: &Expr, binary: &Binary) -> Result<(), ParseError> {
        let (left, right) = (self.check(&binary.lhs)?, self.check(&binary.rhs)?);
        let op_range = binary.op_range.clone();
        let matching = &binary.matching;
        if binary.returns_bool && !binary.op.is_comparison() {
            return self.fail(&op_range, "bool modifier can only be used on comparison operators");
        }
        if binary.op.is_comparison() && !binary.returns_bool && left == Type::Scalar && right == Type::Scalar
        {
            return self.fail(&op_range, "comparisons between scalars must use BOOL modifier");
        }
        if matching.on
            && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
        {
            let message = format!("label {label:?} must not occur in ON and GROUP clause at once");
            return self.fail(&op_range, message);
        }
        for (side, got) in [(&binary.lhs, left), (&binary.rhs, right)] {
            if !matches!(got, Type::Scalar | Type::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return self.fail(&side.range, message);
            }
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if left == Type::Scalar || right == Type::Scalar {
            if binary.op.is_set() {
                let message =
                    format!("set operator {:?} not allowed in binary scalar expression", binary.op.as_str());
                return self.fail(&expr.range, message);
            }
            if !matching.labels.is_empty() {
                return self.fail(&expr.range, "vector matching only allowed between instant vectors");
            }
            if fills {
                let message = "filling in missing series only allowed between instant vectors";
                return self.fail(&expr.range, message);
            }
        } else if binary.op.is_set() {
            if matching.card != Card::OneToOne {
                let message = format!("no grouping allowed for {:?} operation", binary.op.as_str());
                return self.fail(&expr.range, message);
            }
            if fills {
                return self.fail(&expr.range, "filling in missing series not allowed for set operators");
            }
        }
        Ok(())
    }

    fn call(&self, expr: &Expr, function: &functions::Function, args: &[Expr]) -> Result<(), ParseError> {
        let (wanted, got, name) = (function.args.len(), args.len(), function.name);
        if function.variadic == 0 {
            if wanted != got {
                let message = format!("expected {wanted} argument(s) in call to {name:?}, got {got}");
                return self.fail(&expr.range, message);
            }
        } else {
            let least = wanted - 1;
            let most = least + function.variadic.max(0) as usize;
            if got < least {
                let message = format!("expected at least {least} argument(s) in call to {name:?}, got {got}");
                return self.fail(&expr.range, message);
            }
            if function.variadic > 0 && got > most {
                let message = format!("expected at most {most} argument(s) in call to {name:?}, got {got}");
                return self.fail(&expr.range, message);
            }
        }
        for (at, arg) in args.iter().enumerate() {
            let wanted = function.args[at.min(wanted - 1)];
            self.expect(arg, wanted, &format!("call to function {name:?}"))?;
        }
        if name == "info"
            && let Some(second) = args.get(1)
            && !matches!(&second.kind, ExprKind::Selector(s) if s.name.is_none())
        {
            let message = format!("expected label selectors only in call to function {name:?}");
            return self.fail(&second.range, message);
        }
        Ok(())
    }
}

impl Expr {
    /// What it evaluates to, provided that its types have been checked.
    pub fn type_of(&self) -> Type {
        match &self.kind {
            ExprKind::Number { .. } => Type::Scalar,
            ExprKind::String(_) | ExprKind::NotText(_) => Type::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => Type::Vector,
            ExprKind::Matrix { .. } | ExprKind::Subquery(_) => Type::Matrix,
            ExprKind::Call { function, .. } => function.returns,
            ExprKind::Paren(inner) | ExprKind::Unary { expr: inner, .. } => inner.type_of(),
            ExprKind::Binary(binary) => {
                let scalar = |e: &Expr| e.type_of() == Type::Scalar;
                if scalar(&binary.lhs) && scalar(&binary.rhs) { Type::Scalar } else { Type::Vector }
            }
        }
    }

    /// Number of nodes on the longest way from here down.
    pub fn height(&self) -> usize {
        1 + match &self.kind {
            ExprKind::Paren(inner) | ExprKind::Unary { expr: inner, .. } => inner.height(),
            ExprKind::Subquery(subquery) => subquery.expr.height(),
            ExprKind::Call { args, .. } => args.iter().map(Expr::height).max().unwrap_or(0),
            ExprKind::Binary(binary) => binary.lhs.height().max(binary.rhs.height()),
            ExprKind::Aggregate(aggregate) => {
                aggregate.param.as_ref().map_or(0, Expr::height).max(aggregate.expr.height())
            }
            _ => 0,
        }
    }

    /// The expression inside any parentheses.
    pub fn bare(&self) -> &Expr {
        match &self.kind {
            ExprKind::Paren(inner) => inner.bare(),
            _ => self,
        }
    }
}
