//! Remote write 1.0: the same rules, and nothing is said of what was written.

use super::*;

const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "api")];
const GOOD: &[(&str, &str)] = &[("__name__", "good")];
const HOUR: i64 = 3_600_000;

fn up(timestamp: i64, value: f64) -> One {
    one(UP).float(timestamp, value)
}

pub fn cases() -> Vec<Case> {
    // Its neighbour is stored.
    let bad = |name, sent: One, says| {
        case(name).sends(sent.and(GOOD).float(0, 1.0), 400, SILENT, says).stores(&["good 0:1"])
    };
    vec![
        case("two_series_with_labels_in_any_order")
            .sends(
                Sent::from(
                    one(&[UP[1], UP[0]]).float(0, 1.0).and(&[("z", "1"), ("__name__", "down")]).float(0, 0.0),
                )
                .header("X-Prometheus-Remote-Write-Version", ""),
                204,
                SILENT,
                "",
            )
            .stores(&[r#"down{z="1"} 0:0"#, r#"up{job="api"} 0:1"#]),
        bad("without_a_name", one(&[UP[1]]).float(0, 1.0), "metric name is missing"),
        bad("without_labels", one(&[]).float(0, 1.0), "series has no labels"),
        bad("doubled_label", one(&[UP[0], UP[1], UP[1]]).float(0, 1.0), "label \"job\" appears twice"),
        bad("empty_label_name", one(&[UP[0], ("", "x")]).float(0, 1.0), "a label name is empty"),
        bad("label_that_is_no_utf_8", One::empty().bytes(b"\xff\xfe"), "not valid UTF-8"),
        bad("more_than_ten_minutes_ahead", up(HOUR, 1.0), "too_far_in_future: 1"),
        bad("three_days_old", up(-72 * HOUR, 1.0), "too_old_sample: 1"),
        case("empty_value_is_an_absent_label")
            .sends(one(&[UP[0], ("a", "")]).float(0, 1.0), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("beyond_the_window_and_not_in_order")
            .sends(up(0, 1.0), 204, SILENT, "")
            .sends(up(-3 * HOUR, 2.0).float(1, 3.0), 400, SILENT, "too_old_sample: 1")
            .stores(&[r#"up{job="api"} 0:1 1:3"#]),
        case("out_of_order_within_the_window")
            .sends(up(0, 1.0), 204, SILENT, "")
            .sends(up(-HOUR, 2.0), 204, SILENT, "")
            .stores(&[r#"up{job="api"} -3600000:2 0:1"#]),
        case("same_time_and_value_again")
            .sends(up(0, 1.0), 204, SILENT, "")
            .sends(up(0, 1.0), 204, SILENT, "")
            .stores(&[r#"up{job="api"} 0:1"#]),
        case("same_time_and_another_value")
            .sends(up(0, 1.0), 204, SILENT, "")
            .sends(up(0, 2.0), 400, SILENT, "duplicate_sample_for_timestamp: 1")
            .stores(&[r#"up{job="api"} 0:1"#]),
        case("one_series_twice_in_a_request")
            .sends(up(0, 1.0).and(UP).float(1, 2.0), 204, SILENT, "")
            .stores(&[r#"up{job="api"} 0:1 1:2"#]),
        case("histogram")
            .sends(one(UP).histogram(0, histogram()), 204, SILENT, "")
            .stores(&[r#"up{job="api"} 0:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}"#]),
        case("histogram_with_bounds_of_its_own")
            .sends(one(UP).histogram(0, custom()), 204, SILENT, "")
            .stores(&[concat!(
                r#"up{job="api"} 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2"#,
                " bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}"
            )]),
        bad(
            "histogram_that_is_none",
            one(UP)
                .histogram(0, wire::pb::io::prometheus::write::v2::Histogram { schema: 77, ..histogram() }),
            "invalid_native_histogram: 1",
        ),
        case("exemplar")
            .sends(up(0, 1.0).exemplar(0, 0.5, &[("trace_id", "x")]), 204, SILENT, "")
            .stores(&[r#"up{job="api"} 0:1"#, r#"exemplar up{job="api"} 0:0.5 {trace_id="x"}"#]),
        case("exemplars_that_are_refused_never_fail_a_request")
            .sends(up(0, 1.0).exemplar(0, 0.5, &[("trace_id", "x")]), 204, SILENT, "")
            .sends(
                up(1, 1.0)
                    .exemplar(-3 * HOUR, 0.5, &[("trace_id", "older")])
                    .exemplar(1, 0.5, &[("a", "1"), ("a", "2")])
                    .exemplar(1, 0.5, &[("trace_id", &"x".repeat(200))]),
                204,
                SILENT,
                "",
            )
            .sends(one(&[("__name__", "nobody")]).exemplar(0, 0.5, &[]), 204, SILENT, "")
            .stores(&[r#"up{job="api"} 0:1 1:1"#, r#"exemplar up{job="api"} 0:0.5 {trace_id="x"}"#]),
        case("exemplar_before_the_samples_of_its_new_series")
            .sends(
                one(UP).exemplar(0, 0.5, &[("trace_id", "x")]).and(GOOD).float(0, 1.0).and(UP).float(0, 1.0),
                204,
                SILENT,
                "",
            )
            .stores(&["good 0:1", r#"up{job="api"} 0:1"#, r#"exemplar up{job="api"} 0:0.5 {trace_id="x"}"#]),
        case("metadata")
            .sends(One::empty().metadata("up", 2, "Whether.", "").metadata("t", 1, "", "s"), 204, SILENT, "")
            .stores(&[r#"metadata t counter "" "s""#, r#"metadata up gauge "Whether." """#]),
        case("unknown_fields_are_ignored")
            .sends(up(0, 1.0).trailing(&[0x7a, 2, b'h', b'i']), 204, SILENT, "")
            .stores(&[r#"up{job="api"} 0:1"#]),
        case("a_series_without_anything").sends(one(UP), 204, SILENT, ""),
    ]
}
