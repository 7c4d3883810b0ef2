//! Which series a query selects, without evaluating it.

use model::Matcher;

use super::ast::{Expr, ExprKind, Selector};

/// The matchers of every selector of `expr`, in the order of the text.
pub fn selectors(expr: &Expr) -> Vec<Vec<Matcher>> {
    let mut found = Vec::new();
    walk(expr, &mut found);
    found
}

fn walk(expr: &Expr, found: &mut Vec<Vec<Matcher>>) {
    let mut take = |selector: &Selector| found.push(selector.matchers.clone());
    match &expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotText(_) => {}
        ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => take(selector),
        ExprKind::Subquery(subquery) => walk(&subquery.expr, found),
        ExprKind::Call { args, .. } => args.iter().for_each(|arg| walk(arg, found)),
        ExprKind::Aggregate(aggregate) => {
            aggregate.param.iter().for_each(|param| walk(param, found));
            walk(&aggregate.expr, found);
        }
        ExprKind::Binary(binary) => {
            walk(&binary.lhs, found);
            walk(&binary.rhs, found);
        }
        ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => walk(expr, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_selector() {
        let text = r#"sum by (a) (topk(scalar(one), -(two{x="1"} + rate(three[5m])))) or max_over_time(four[1h:1m]) > 1"#;
        let found = selectors(&crate::parse(text).unwrap());
        let names: Vec<_> = found.iter().map(|set| set[0].value.to_string()).collect();
        assert_eq!(names, ["one", "two", "three", "four"]);
        assert_eq!(found[1].len(), 2);
        assert!(selectors(&crate::parse("1 + 2").unwrap()).is_empty());
    }
}
