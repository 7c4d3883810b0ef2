//! Exemplars of remote write 2.0.

use super::*;

const UP: &[(&str, &str)] = &[("__name__", "up")];
const HOUR: i64 = 3_600_000;

type Labels = &'static [(&'static str, &'static str)];

fn up(timestamp: i64) -> Two {
    two(UP).float(timestamp, 1.0)
}

pub fn cases() -> Vec<Case> {
    let of = |name, labels: Labels, line: &'static str| {
        case(name).sends(up(0).exemplar(0, 0.5, labels), 204, wrote(1, 0, 1), "").stores(&["up 0:1", line])
    };
    let valued = |name, value: f64, line: &'static str| {
        case(name)
            .sends(up(0).exemplar(0, value, &[("a", "b")]), 204, wrote(1, 0, 1), "")
            .stores(&["up 0:1", line])
    };
    let mut long = up(0).exemplar(0, 1.0, &[("trace_id", "x")]);
    long = long.exemplar(1, 1.0, &[("trace_id", &"é".repeat(121))]);
    let fits = up(0).exemplar(0, 1.0, &[("trace_id", &"é".repeat(2))]);
    vec![
        of("trace_id", &[("trace_id", "abc")], r#"exemplar up 0:0.5 {trace_id="abc"}"#),
        of("trace_and_span", &[("trace_id", "a"), ("span_id", "b")], r#"exemplar up 0:0.5 {span_id="b", trace_id="a"}"#),
        of("other_labels", &[("user", "x")], r#"exemplar up 0:0.5 {user="x"}"#),
        of(
            "many_labels",
            &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5"), ("f", "6")],
            r#"exemplar up 0:0.5 {a="1", b="2", c="3", d="4", e="5", f="6"}"#,
        ),
        of("no_labels", &[], "exemplar up 0:0.5 {}"),
        of("special_characters", &[("path", "/a?b=\"c\"\n\\")], r#"exemplar up 0:0.5 {path="/a?b=\"c\"\n\\"}"#),
        of("unicode", &[("stadt", "Köln 🚀")], r#"exemplar up 0:0.5 {stadt="Köln 🚀"}"#),
        case("three_series_with_an_exemplar_each")
            .sends(
                two(&[("__name__", "a")])
                    .float(0, 1.0)
                    .exemplar(0, 1.0, &[("t", "1")])
                    .and(&[("__name__", "b")])
                    .float(0, 1.0)
                    .exemplar(0, 2.0, &[("t", "2")])
                    .and(&[("__name__", "c")])
                    .float(0, 1.0)
                    .exemplar(0, 3.0, &[("t", "3")]),
                204,
                wrote(3, 0, 3),
                "",
            )
            .stores(&[
                "a 0:1",
                "b 0:1",
                "c 0:1",
                r#"exemplar a 0:1 {t="1"}"#,
                r#"exemplar b 0:2 {t="2"}"#,
                r#"exemplar c 0:3 {t="3"}"#,
            ]),
        case("three_messages_of_one_series_by_time")
            .sends(
                up(-HOUR)
                    .exemplar(-HOUR, 1.0, &[("t", "1")])
                    .and(UP)
                    .float(-60_000, 1.0)
                    .exemplar(-60_000, 2.0, &[("t", "2")])
                    .and(UP)
                    .float(0, 1.0)
                    .exemplar(0, 3.0, &[("t", "3")]),
                204,
                wrote(3, 0, 3),
                "",
            )
            .stores(&[
                "up -3600000:1 -60000:1 0:1",
                r#"exemplar up -3600000:1 {t="1"}"#,
                r#"exemplar up -60000:2 {t="2"}"#,
                r#"exemplar up 0:3 {t="3"}"#,
            ]),
        case("exemplar_of_a_series_without_a_name").sends(
            two(&[("a", "b")]).float(0, 1.0).exemplar(0, 1.0, &[]),
            400,
            wrote(0, 0, 0),
            "metric name is missing",
        ),
        case("exemplar_of_a_series_with_an_empty_name").sends(
            two(&[("__name__", ""), ("a", "b")]).float(0, 1.0).exemplar(0, 1.0, &[]),
            400,
            wrote(0, 0, 0),
            "metric name is missing",
        ),
        valued("value_zero", 0.0, r#"exemplar up 0:0 {a="b"}"#),
        valued("value_negative", -123.456, r#"exemplar up 0:-123.456 {a="b"}"#),
        valued("value_large", 1e10, r#"exemplar up 0:10000000000 {a="b"}"#),
        valued("value_small", 1e-10, r#"exemplar up 0:0.0000000001 {a="b"}"#),
        valued("value_plus_infinity", f64::INFINITY, r#"exemplar up 0:inf {a="b"}"#),
        valued("value_minus_infinity", f64::NEG_INFINITY, r#"exemplar up 0:-inf {a="b"}"#),
        valued("value_nan", f64::NAN, r#"exemplar up 0:NaN {a="b"}"#),
        case("the_same_exemplar_again_is_no_fault")
            .sends(up(0).exemplar(0, 1.0, &[("t", "1")]), 204, wrote(1, 0, 1), "")
            .sends(up(0).exemplar(0, 1.0, &[("t", "1")]), 204, wrote(1, 0, 1), "")
            .stores(&["up 0:1", r#"exemplar up 0:1 {t="1"}"#]),
        case("an_older_exemplar_within_the_window")
            .sends(up(0).exemplar(0, 1.0, &[("t", "1")]), 204, wrote(1, 0, 1), "")
            .sends(up(1).exemplar(-5, 1.0, &[("t", "0")]), 204, wrote(1, 0, 1), "")
            .stores(&["up 0:1 1:1", r#"exemplar up -5:1 {t="0"}"#, r#"exemplar up 0:1 {t="1"}"#]),
        case("an_older_exemplar_beyond_the_window")
            .sends(up(0).exemplar(0, 1.0, &[("t", "1")]), 204, wrote(1, 0, 1), "")
            .sends(up(1).exemplar(-3 * HOUR, 1.0, &[("t", "0")]), 400, wrote(1, 0, 0), "too_old_sample: 1")
            .stores(&["up 0:1 1:1", r#"exemplar up 0:1 {t="1"}"#]),
        case("more_than_128_characters_are_not_kept_and_no_fault")
            .sends(long, 204, wrote(1, 0, 1), "")
            .stores(&["up 0:1", r#"exemplar up 0:1 {trace_id="x"}"#]),
        case("characters_count_and_not_bytes")
            .sends(fits, 204, wrote(1, 0, 1), "")
            .stores(&["up 0:1", r#"exemplar up 0:1 {trace_id="éé"}"#]),
        case("odd_references_of_an_exemplar")
            .sends(
                up(0).exemplar(0, 1.0, &[("a", "b")]).with(|s| s.exemplars[0].labels_refs.push(1)),
                400,
                wrote(1, 0, 0),
                "do not come in pairs",
            )
            .stores(&["up 0:1"]),
        case("exemplar_without_data_of_a_known_series")
            .sends(up(0), 204, wrote(1, 0, 0), "")
            .sends(two(UP).exemplar(0, 1.0, &[("t", "1")]), 204, wrote(0, 0, 1), "")
            .stores(&["up 0:1", r#"exemplar up 0:1 {t="1"}"#]),
        case("exemplar_without_data_of_no_series").sends(
            two(UP).exemplar(0, 1.0, &[("t", "1")]),
            400,
            wrote(0, 0, 0),
            "invalid_exemplar: 1",
        ),
        case("exemplar_of_a_histogram")
            .sends(two(UP).histogram(0, custom()).exemplar(0, 0.3, &[("t", "1")]), 204, wrote(0, 1, 1), "")
            .stores(&[
                "up 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}",
                r#"exemplar up 0:0.3 {t="1"}"#,
            ]),
    ]
}
