//! A query's tree as JSON, for the tree view of Prometheus's UI: the same names, in the same order.

use promql::Expr;
use promql::parse::{
    At, Binary, BinaryOp, Card, Duration, ExprKind, Matching, Modifiers, Selector, Type, UnaryOp,
};

use crate::{json, number};

/// Writes the tree; the parser bounds its height.
pub fn write(out: &mut Vec<u8>, expr: &Expr) {
    match &expr.kind {
        ExprKind::Number { value, .. } => number_literal(out, *value),
        ExprKind::String(text) | ExprKind::NotText(text) => literal(out, "stringLiteral", text),
        ExprKind::Selector(selector) => select(out, selector, None),
        ExprKind::Matrix { selector, window } => select(out, selector, Some(window)),
        ExprKind::Subquery(subquery) => {
            put(out, "{\"expr\":");
            write(out, &subquery.expr);
            put(out, ",\"offset\":");
            offset(out, &subquery.modifiers);
            put(out, ",\"range\":");
            ms(out, &subquery.window);
            anchor(out, &subquery.modifiers, |out| {
                put(out, ",\"step\":");
                optional_ms(out, subquery.step.as_ref());
            });
            put(out, ",\"type\":\"subquery\"}");
        }
        ExprKind::Call { function, args } => {
            put(out, "{\"args\":[");
            separated(out, args, write);
            put(out, "],\"func\":{\"argTypes\":[");
            separated(out, function.args, |out, kind| json::text(out, type_name(*kind)));
            put(out, "],\"name\":");
            json::text(out, function.name);
            put(out, ",\"returnType\":");
            json::text(out, type_name(function.returns));
            put(out, ",\"variadic\":");
            number::integer(out, i64::from(function.variadic));
            put(out, "},\"type\":\"call\"}");
        }
        ExprKind::Aggregate(aggregate) => {
            put(out, "{\"expr\":");
            write(out, &aggregate.expr);
            put(out, ",\"grouping\":");
            json::list(out, &aggregate.grouping);
            put(out, ",\"op\":");
            json::text(out, aggregate.op.as_str());
            put(out, ",\"param\":");
            match &aggregate.param {
                Some(param) => write(out, param),
                None => put(out, "null"),
            }
            put(out, ",\"type\":\"aggregation\",\"without\":");
            put(out, truth(aggregate.without));
            put(out, "}");
        }
        ExprKind::Binary(binary) => operator(out, binary),
        ExprKind::Unary { op, expr } => match (&expr.kind, op) {
            // A sign belongs to its number.
            (ExprKind::Number { value, .. }, UnaryOp::Minus) => number_literal(out, -value),
            (ExprKind::Number { value, .. }, UnaryOp::Plus) => number_literal(out, *value),
            _ => {
                put(out, "{\"expr\":");
                write(out, expr);
                put(out, ",\"op\":");
                put(out, if *op == UnaryOp::Minus { "\"-\"" } else { "\"+\"" });
                put(out, ",\"type\":\"unaryExpr\"}");
            }
        },
        ExprKind::Paren(inner) => {
            put(out, "{\"expr\":");
            write(out, inner);
            put(out, ",\"type\":\"parenExpr\"}");
        }
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Scalar => "scalar",
        Type::String => "string",
        Type::Vector => "vector",
        Type::Matrix => "matrix",
    }
}

fn separated<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

/// Never with an exponent.
fn number_literal(out: &mut Vec<u8>, value: f64) {
    let text = match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => v.to_string(),
    };
    literal(out, "numberLiteral", &text);
}

fn literal(out: &mut Vec<u8>, kind: &str, text: &str) {
    put(out, "{\"type\":\"");
    put(out, kind);
    put(out, "\",\"val\":");
    json::text(out, text);
    put(out, "}");
}

/// A vector selector or, with a window, a matrix selector.
fn select(out: &mut Vec<u8>, selector: &Selector, window: Option<&Duration>) {
    put(out, "{\"anchored\":");
    put(out, truth(selector.modifiers.anchored));
    put(out, ",\"matchers\":[");
    // The name's matcher stands first in our tree and last in theirs.
    let mut matchers: Vec<_> = selector.matchers.iter().collect();
    if selector.name.is_some() && !matchers.is_empty() {
        matchers.rotate_left(1);
    }
    separated(out, &matchers, |out, matcher| {
        put(out, "{\"name\":");
        json::text(out, &matcher.name);
        put(out, ",\"type\":");
        json::text(out, matcher.op.as_str());
        put(out, ",\"value\":");
        json::text(out, &matcher.value);
        put(out, "}");
    });
    put(out, "],\"name\":");
    json::text(out, selector.name.as_deref().unwrap_or(""));
    put(out, ",\"offset\":");
    offset(out, &selector.modifiers);
    if let Some(window) = window {
        put(out, ",\"range\":");
        ms(out, window);
    }
    put(out, ",\"smoothed\":");
    put(out, truth(selector.modifiers.smoothed));
    anchor(out, &selector.modifiers, |_| {});
    put(
        out,
        if window.is_some() { ",\"type\":\"matrixSelector\"}" } else { ",\"type\":\"vectorSelector\"}" },
    );
}

/// The time after `@`, with what stands between its two members.
fn anchor(out: &mut Vec<u8>, modifiers: &Modifiers, between: impl FnOnce(&mut Vec<u8>)) {
    put(out, ",\"startOrEnd\":");
    put(
        out,
        match modifiers.at {
            Some(At::Start) => "\"start\"",
            Some(At::End) => "\"end\"",
            _ => "null",
        },
    );
    between(out);
    put(out, ",\"timestamp\":");
    match modifiers.at {
        Some(At::Time(ms)) => number::integer(out, ms),
        _ => put(out, "null"),
    }
}

fn offset(out: &mut Vec<u8>, modifiers: &Modifiers) {
    optional_ms(out, modifiers.offset.as_ref());
}

fn optional_ms(out: &mut Vec<u8>, duration: Option<&Duration>) {
    match duration {
        Some(duration) => ms(out, duration),
        None => put(out, "0"),
    }
}

/// Milliseconds; what depends on a range query's step counts as 0 here.
fn ms(out: &mut Vec<u8>, duration: &Duration) {
    number::integer(out, (duration.seconds(0.0, 0.0) * 1000.0).round() as i64);
}

fn operator(out: &mut Vec<u8>, binary: &Binary) {
    let Binary { op, returns_bool, lhs, rhs, matching: how, .. } = binary;
    put(out, "{\"bool\":");
    put(out, truth(*returns_bool));
    put(out, ",\"lhs\":");
    write(out, lhs);
    put(out, ",\"matching\":");
    match lhs.type_of() == Type::Vector && rhs.type_of() == Type::Vector {
        true => matching(out, how, *op),
        false => put(out, "null"),
    }
    put(out, ",\"op\":");
    json::text(out, op.as_str());
    put(out, ",\"rhs\":");
    write(out, rhs);
    put(out, ",\"type\":\"binaryExpr\"}");
}

fn matching(out: &mut Vec<u8>, matching: &Matching, op: BinaryOp) {
    put(out, "{\"card\":\"");
    put(
        out,
        match matching.card {
            _ if op.is_set() => "many-to-many",
            Card::OneToOne => "one-to-one",
            Card::ManyToOne => "many-to-one",
            Card::OneToMany => "one-to-many",
            Card::ManyToMany => "many-to-many",
        },
    );
    put(out, "\",\"fillValues\":{\"lhs\":");
    let fill = |out: &mut Vec<u8>, value: Option<f64>| match value {
        Some(value) => number::json_float(out, value),
        None => put(out, "null"),
    };
    fill(out, matching.fill_left);
    put(out, ",\"rhs\":");
    fill(out, matching.fill_right);
    put(out, "},\"include\":");
    json::list(out, &matching.include);
    put(out, ",\"labels\":");
    json::list(out, &matching.labels);
    put(out, ",\"on\":");
    put(out, truth(matching.on));
    put(out, "}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tree(query: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, &promql::parse(query).unwrap());
        String::from_utf8(out).unwrap()
    }

    /// Keys in the order of the alphabet, as serde_json's map writes them too.
    fn check(query: &str, expected: Value) {
        assert_eq!(tree(query).replace("\\u003e", ">"), expected.to_string(), "{query}");
    }

    fn up() -> Value {
        json!({"type": "vectorSelector", "name": "up", "offset": 0, "timestamp": null, "startOrEnd": null,
            "anchored": false, "smoothed": false,
            "matchers": [{"name": "__name__", "type": "=", "value": "up"}]})
    }

    #[test]
    fn every_kind_of_node() {
        check("up", up());
        check("1e3", json!({"type": "numberLiteral", "val": "1000"}));
        check("1e-9", json!({"type": "numberLiteral", "val": "0.000000001"}));
        check("-Inf", json!({"type": "numberLiteral", "val": "-Inf"}));
        check("-up", json!({"type": "unaryExpr", "op": "-", "expr": up()}));
        check("\"a\\\"b\"", json!({"type": "stringLiteral", "val": "a\"b"}));
        check("(up)", json!({"type": "parenExpr", "expr": up()}));
        check(
            "sum without (a, b) (up)",
            json!({"type": "aggregation", "op": "sum", "expr": up(), "param": null, "grouping": ["a", "b"],
                "without": true}),
        );
        check(
            "topk(3, up)",
            json!({"type": "aggregation", "op": "topk", "expr": up(), "grouping": [], "without": false,
                "param": {"type": "numberLiteral", "val": "3"}}),
        );
        check(
            "rate(a{b!~\"c\"}[5m] @ 7.5 offset -1m)",
            json!({"type": "call",
                "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                "args": [{"type": "matrixSelector", "name": "a", "range": 300000, "offset": -60000,
                    "timestamp": 7500, "startOrEnd": null, "anchored": false, "smoothed": false,
                    "matchers": [{"name": "b", "type": "!~", "value": "c"},
                        {"name": "__name__", "type": "=", "value": "a"}]}]}),
        );
        let subquery = |step: i64| {
            json!({"type": "subquery", "expr": up(), "range": 3600000, "offset": 0, "step": step,
                "timestamp": null, "startOrEnd": "end"})
        };
        check("up[1h:] @ end()", subquery(0));
        check("up[1h:30s] @ end()", subquery(30000));
    }

    #[test]
    fn how_operators_match() {
        let two = json!({"type": "numberLiteral", "val": "2"});
        check(
            "up > bool 2",
            json!({"type": "binaryExpr", "op": ">", "lhs": up(), "rhs": two, "matching": null, "bool": true}),
        );
        let of = |op: &str, matching: Value| json!({"type": "binaryExpr", "op": op, "lhs": up(), "rhs": up(), "bool": false, "matching": matching});
        let none = json!({"lhs": null, "rhs": null});
        check(
            "up * on (a) group_left (b) up",
            of(
                "*",
                json!({"card": "many-to-one", "on": true, "labels": ["a"], "include": ["b"], "fillValues": none}),
            ),
        );
        check(
            "up unless up",
            of(
                "unless",
                json!({"card": "many-to-many", "on": false, "labels": [], "include": [], "fillValues": none}),
            ),
        );
        check(
            "up + fill_right (2) up",
            of(
                "+",
                json!({"card": "one-to-one", "on": false, "labels": [], "include": [],
                "fillValues": {"lhs": null, "rhs": 2}}),
            ),
        );
    }

    #[test]
    fn the_highest_tree_has_room() {
        let mut highest = String::new();
        for operators in (0..5000).rev().step_by(50) {
            highest = format!("up{}", "+1".repeat(operators));
            if promql::parse(&highest).is_ok() {
                break;
            }
        }
        assert!(highest.len() > 100);
        // As much stack as a thread of the server has.
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let walked =
            thread.spawn(move || (tree(&highest).len(), promql::parse(&highest).unwrap().to_string()));
        assert!(walked.unwrap().join().is_ok());
    }
}
