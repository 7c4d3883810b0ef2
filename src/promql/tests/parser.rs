//! Properties of the parser: no text makes it panic, and a tree's text reads back as the same tree.

use promql::parse::{
    Aggregate, Binary, Duration, DurationKind, Expr, ExprKind, Modifiers, Selector, Subquery,
};
use proptest::prelude::*;

/// Pieces that make up queries, so that random strings of them often parse.
const PIECES: &[&str] = &[
    "foo",
    "bar",
    "{a=\"b\"}",
    "{a!~\"x.*\", \"b.c\"='d'}",
    "[5m]",
    "[5m:1m]",
    "[2*(step()+1s):]",
    "offset",
    "-",
    "5m",
    "1h30m",
    "(",
    ")",
    "sum",
    "topk",
    "by",
    "without",
    "(a)",
    "(a, \"b c\")",
    ",",
    "rate(",
    "histogram_quantile(0.9,",
    "+",
    "*",
    "^",
    "==",
    "bool",
    "and",
    "unless",
    "or",
    "on(a)",
    "ignoring(a)",
    "group_left(c)",
    "fill(0)",
    "@",
    "start()",
    "123.5",
    "0x1f",
    "NaN",
    "Inf",
    "1e-9",
    "\"text\"",
    "`raw`",
    "'\\u00e9'",
    "#c\n",
    "anchored",
    "smoothed",
    "atan2",
    "</",
    "[",
    "]",
    "{",
    "}",
    ":",
    "é",
];

fn strip(expr: &mut Expr) {
    expr.range = 0..0;
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotText(_) => {}
        ExprKind::Selector(selector) => strip_modifiers(&mut selector.modifiers),
        ExprKind::Matrix { selector: Selector { modifiers, .. }, window } => {
            strip_modifiers(modifiers);
            strip_duration(window);
        }
        ExprKind::Subquery(subquery) => {
            let Subquery { expr, window, step, modifiers } = &mut **subquery;
            strip(expr);
            strip_duration(window);
            step.iter_mut().for_each(strip_duration);
            strip_modifiers(modifiers);
        }
        ExprKind::Call { args, .. } => args.iter_mut().for_each(strip),
        ExprKind::Aggregate(aggregate) => {
            let Aggregate { param, expr, .. } = &mut **aggregate;
            param.iter_mut().for_each(strip);
            strip(expr);
        }
        ExprKind::Binary(binary) => {
            let Binary { lhs, rhs, op_range, .. } = &mut **binary;
            *op_range = 0..0;
            strip(lhs);
            strip(rhs);
        }
        ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => strip(expr),
    }
}

fn strip_modifiers(modifiers: &mut Modifiers) {
    modifiers.offset.iter_mut().for_each(strip_duration);
}

fn strip_duration(duration: &mut Duration) {
    duration.range = 0..0;
    match &mut duration.kind {
        DurationKind::Min(a, b) | DurationKind::Max(a, b) | DurationKind::Binary { lhs: a, rhs: b, .. } => {
            strip_duration(a);
            strip_duration(b);
        }
        DurationKind::Unary { expr, .. } | DurationKind::Paren(expr) => strip_duration(expr),
        _ => {}
    }
}

/// NaN is not equal to itself: trees are compared by their debug text.
fn round_trip(text: &str) {
    let Ok(mut first) = promql::parse(text) else { return };
    let shown = first.to_string();
    let mut second = promql::parse(&shown).unwrap_or_else(|e| panic!("{text:?} -> {shown:?}: {e}"));
    strip(&mut first);
    strip(&mut second);
    assert_eq!(format!("{first:?}"), format!("{second:?}"), "{text:?} -> {shown:?}");
    assert_eq!(second.to_string(), shown);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in ".{0,60}") {
        round_trip(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14)) {
        round_trip(&pieces.join(" "));
    }

    #[test]
    fn any_selector(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..4)) {
        let _ = promql::parse_selector(&pieces.join(""));
    }
}

#[test]
fn known_queries_round_trip() {
    for text in [
        "sum by (a, b) (rate(foo{x=\"y\"}[5m])) / on (a) group_left (c) bar > bool 1",
        "-foo ^ 2 ^ 3",
        "-1 ^ 2",
        "Inf ^ 31",
        "topk(5, foo) by (a)",
        "foo offset -(1m + 2 * 3s) @ 12.345",
        "max_over_time((a - b)[1h:5m] offset 5m)",
        "a + on (x) group_right (y) fill_left(1) fill_right(-2) b",
        "{\"a.b\", c=~\"d|e\"}",
        "histogram_quantile(0.9, sum(rate(x_bucket[1m])) without (instance))",
        "count_values(\"v\", foo) or vector(+Inf)",
        "info(foo, {a=~\".*\"})",
        "rate(foo[1m] smoothed)",
        "foo[min_of(step(), 5m):max_of(1s, range())]",
    ] {
        promql::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        round_trip(text);
    }
}

#[test]
fn errors_say_where() {
    for (text, message) in [
        ("sum(", "1:5: parse error: unclosed left parenthesis"),
        ("foo{a=\"b\"", "1:10: parse error: unexpected end of input inside braces"),
        ("foo\n + bool bar", "2:2: parse error: bool modifier can only be used on comparison operators"),
        (
            "rate(foo)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("abs(1, 2)", "1:1: parse error: expected 1 argument(s) in call to \"abs\", got 2"),
        ("nope(foo)", "1:1: parse error: unknown function with name \"nope\""),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("1 == 2", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        (
            "foo[5m] + 1",
            "1:1: parse error: binary expression must contain only scalar and instant vector types",
        ),
        (
            "foo offset x",
            "1:12: parse error: unexpected identifier \"x\" in offset, expected number or duration",
        ),
        ("foo[0]", "1:5: parse error: duration must be greater than 0"),
        ("sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"),
        ("", "1:1: parse error: no expression found in input"),
    ] {
        let error = promql::parse(text).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
    }
}

#[test]
fn deep_and_long_texts_are_refused() {
    for text in [
        "(".repeat(100_000),
        "-".repeat(100_000),
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        format!("1{}", "+1".repeat(50_000)),
        format!("foo[1{}]", "+1".repeat(50_000)),
        format!("foo{}", "[1m:]".repeat(20_000)),
        format!("{}foo", "abs(".repeat(20_000)),
        " ".repeat(1 << 20),
    ] {
        assert!(promql::parse(&text).is_err(), "{}", &text[..20]);
    }
}

#[test]
fn the_highest_trees_are_evaluated() {
    let engine = promql::Engine::new(promql::EngineSettings::default(), runtime::World::real());
    let store = std::sync::Arc::new(promql::testing::MemoryStore::new());
    for text in [
        format!("1{}", "+1".repeat(250)),
        format!("vector(1){}", " or vector(2)".repeat(250)),
        format!("{}vector(1){}", "abs(".repeat(100), ")".repeat(100)),
        format!("{}vector(1){}", "(".repeat(100), ")".repeat(100)),
        format!("{}vector(1){}", "(1 + ".repeat(60), ")".repeat(60)),
    ] {
        let request = promql::InstantRequest { query: text, ..Default::default() };
        engine.instant(&request, store.clone(), &storage::Context::background()).unwrap();
    }
}

#[test]
fn selectors_for_match_parameters() {
    assert_eq!(promql::parse_selector("foo{a=\"b\"}").unwrap().len(), 2);
    for bad in ["{a=~\".*\"}", "foo + 1", "foo offset 5m", "foo[5m]", "sum(foo)", "foo bar"] {
        assert!(promql::parse_selector(bad).is_err(), "{bad}");
    }
}
