//! Rewrites a query so that it gives the same result at any time: `@` on every selector that has none.

use crate::parse::{At, Expr, ExprKind, Subquery};

/// Functions whose value depends on the evaluation time itself.
const UNSAFE: [&str; 16] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "start",
    "end",
    "step",
    "range",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
    "start_timestamp",
];

/// The same query fixed at `time`, or none where a function looks at the evaluation time.
pub(super) fn pinned(expr: &Expr, time: i64) -> Option<Expr> {
    let mut expr = expr.clone();
    pin(&mut expr, time).then_some(expr)
}

fn pin(expr: &mut Expr, time: i64) -> bool {
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotText(_) => true,
        ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => {
            selector.modifiers.at.get_or_insert(At::Time(time));
            true
        }
        ExprKind::Subquery(subquery) => {
            let Subquery { expr, modifiers, .. } = &mut **subquery;
            modifiers.at.get_or_insert(At::Time(time));
            // What stands inside keeps moving with the subquery's own steps.
            is_safe(expr)
        }
        // The second argument of info() is a list of matchers, looked up at the time of the first.
        ExprKind::Call { function, args } if function.name == "info" => {
            args.iter_mut().take(1).all(|arg| pin(arg, time))
        }
        ExprKind::Call { function, args } => {
            !UNSAFE.contains(&function.name) && args.iter_mut().all(|arg| pin(arg, time))
        }
        ExprKind::Aggregate(aggregate) => {
            aggregate.param.as_mut().is_none_or(|param| pin(param, time)) && pin(&mut aggregate.expr, time)
        }
        ExprKind::Binary(binary) => pin(&mut binary.lhs, time) && pin(&mut binary.rhs, time),
        ExprKind::Unary { expr, .. } => pin(expr, time),
        ExprKind::Paren(inner) => pin(inner, time),
    }
}

fn is_safe(expr: &Expr) -> bool {
    pinned_anywhere(&expr.to_string())
}

fn pinned_anywhere(text: &str) -> bool {
    !UNSAFE.iter().any(|name| text.contains(&format!("{name}(")))
}
