//! Floats of remote write 2.0: labels, values, times, start times.

use super::*;

const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "api")];
const NAMELESS: &[(&str, &str)] = &[("job", "api")];
const HOUR: i64 = 3_600_000;

fn up(timestamp: i64, value: f64) -> Two {
    two(UP).float(timestamp, value)
}

/// Field 6 of a series, where start times once stood: an hour before 2026.
fn once_created() -> Vec<u8> {
    let mut out = vec![6 << 3];
    prost::encoding::encode_varint(1_767_222_000_000, &mut out);
    out
}

pub fn cases() -> Vec<Case> {
    [labels(), values(), times(), starts(), parts()].into_iter().flatten().collect()
}

fn labels() -> Vec<Case> {
    let m = |labels: &[(&str, &str)]| two(labels).float(0, 1.0);
    vec![
        case("three_labels_unsorted")
            .sends(m(&[("job", "api"), ("__name__", "up"), ("instance", "a:80")]), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{instance="a:80", job="api"} 0:1"#]),
        case("label_value_with_newlines")
            .sends(m(&[("__name__", "up"), ("text", "a\nb\n")]), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{text="a\nb\n"} 0:1"#]),
        case("dots_in_names")
            .sends(m(&[("__name__", "http.requests"), ("a.b", "c.d")]), 204, wrote(1, 0, 0), "")
            .stores(&[r#"http.requests{a.b="c.d"} 0:1"#]),
        case("spaces_in_names")
            .sends(m(&[("__name__", "http requests"), ("a b", "c d")]), 204, wrote(1, 0, 0), "")
            .stores(&[r#"http requests{a b="c d"} 0:1"#]),
        case("without_a_name").sends(m(NAMELESS), 400, wrote(0, 0, 0), "metric name is missing"),
        case("without_labels").sends(m(&[]), 400, wrote(0, 0, 0), "series has no labels"),
        case("with_an_empty_name").sends(
            m(&[("__name__", ""), ("job", "api")]),
            400,
            wrote(0, 0, 0),
            "metric name is missing",
        ),
        case("doubled_label").sends(
            m(&[("__name__", "up"), ("a", "1"), ("a", "2")]),
            400,
            wrote(0, 0, 0),
            "label \"a\" appears twice",
        ),
        case("empty_label_name").sends(
            m(&[("__name__", "up"), ("", "1")]),
            400,
            wrote(0, 0, 0),
            "a label name is empty",
        ),
        case("empty_value_is_an_absent_label")
            .sends(m(&[("__name__", "up"), ("a", ""), ("b", "1")]), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{b="1"} 0:1"#]),
        case("odd_count_of_references").sends(
            up(0, 1.0).with(|s| s.labels_refs.push(1)).and(NAMELESS),
            400,
            wrote(0, 0, 0),
            "do not come in pairs",
        ),
        case("reference_out_of_range").sends(
            up(0, 1.0).with(|s| s.labels_refs[1] = 99),
            400,
            wrote(0, 0, 0),
            "outside of the symbol table",
        ),
        case("largest_reference").sends(
            up(0, 1.0).with(|s| s.labels_refs[1] = u32::MAX),
            400,
            wrote(0, 0, 0),
            "outside of the symbol table",
        ),
        case("table_of_symbols_without_the_empty_text")
            .sends(up(0, 1.0).without_empty_symbol(), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1"#]),
        case("unknown_fields_are_ignored")
            .sends(up(0, 1.0).trailing(&[0x7a, 2, b'h', b'i']), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1"#]),
    ]
}

fn values() -> Vec<Case> {
    let of = |name, value, line: &'static str| {
        case(name).sends(up(0, value), 204, wrote(1, 0, 0), "").stores(&[line])
    };
    let four = |names: [&str; 4], value: f64| {
        let mut all = Two::empty();
        for (at, name) in names.into_iter().enumerate() {
            let n = at.to_string();
            let labels = [("__name__", name), ("n", n.as_str())];
            all = match at {
                0 => two(&labels[usize::from(name.is_empty())..]),
                _ => all.and(&labels[usize::from(name.is_empty())..]),
            }
            .float(0, value);
        }
        all
    };
    vec![
        of("value_one", 1.0, r#"up{job="api"} 0:1"#),
        // The bits of a stale marker as a number, as a public suite sends it.
        of(
            "value_of_the_stale_markers_bits_as_a_number",
            9218868437227405314.0,
            r#"up{job="api"} 0:9218868437227405000"#,
        ),
        of("value_of_nan_bits_as_a_number", 9221120237041090561.0, r#"up{job="api"} 0:9221120237041091000"#),
        of("value_plus_infinity", f64::INFINITY, r#"up{job="api"} 0:inf"#),
        of("value_minus_infinity", f64::NEG_INFINITY, r#"up{job="api"} 0:-inf"#),
        of("value_nan", f64::NAN, r#"up{job="api"} 0:NaN"#),
        of("value_stale", model::stale_nan(), r#"up{job="api"} 0:stale"#),
        case("four_series").sends(four(["a", "b", "c", "d"], 2.0), 204, wrote(4, 0, 0), "").stores(&[
            r#"a{n="0"} 0:2"#,
            r#"b{n="1"} 0:2"#,
            r#"c{n="2"} 0:2"#,
            r#"d{n="3"} 0:2"#,
        ]),
        case("four_series_without_a_name").sends(
            four([""; 4], f64::INFINITY),
            400,
            wrote(0, 0, 0),
            "all 4 samples refused",
        ),
        case("one_of_four_series_without_a_name")
            .sends(
                four(["a", "", "c", "d"], -1.5),
                400,
                wrote(3, 0, 0),
                "1 of 4 samples refused, the others are stored",
            )
            .stores(&[r#"a{n="0"} 0:-1.5"#, r#"c{n="2"} 0:-1.5"#, r#"d{n="3"} 0:-1.5"#]),
    ]
}

fn times() -> Vec<Case> {
    vec![
        case("same_time_and_value_again")
            .sends(up(0, 1.0), 204, wrote(1, 0, 0), "")
            .sends(up(0, 1.0), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1"#]),
        case("same_time_and_another_value")
            .sends(up(0, 1.0), 204, wrote(1, 0, 0), "")
            .sends(up(0, 2.0).float(1, 3.0), 400, wrote(1, 0, 0), "duplicate_sample_for_timestamp: 1")
            .stores(&[r#"up{job="api"} 0:1 1:3"#]),
        case("the_next_millisecond")
            .sends(up(0, 1.0), 204, wrote(1, 0, 0), "")
            .sends(up(1, 1.0), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1 1:1"#]),
        case("an_hour_ago_and_now")
            .sends(up(-HOUR, 1.0).float(0, 2.0).and(UP).exemplar(0, 1.0, &[]), 204, wrote(2, 0, 1), "")
            .stores(&[r#"up{job="api"} -3600000:1 0:2"#, r#"exemplar up{job="api"} 0:1 {}"#]),
        case("an_hour_ago_behind_now")
            .sends(up(0, 2.0), 204, wrote(1, 0, 0), "")
            .sends(up(-HOUR, 1.0), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} -3600000:1 0:2"#]),
        case("times_in_no_order_in_one_series")
            .sends(up(2, 3.0).float(0, 1.0).float(1, 2.0), 204, wrote(3, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1 1:2 2:3"#]),
        case("beyond_the_window_and_not_in_order")
            .sends(up(0, 1.0), 204, wrote(1, 0, 0), "")
            .sends(up(-3 * HOUR, 2.0).float(1, 3.0), 400, wrote(1, 0, 0), "too_old_sample: 1")
            .stores(&[r#"up{job="api"} 0:1 1:3"#]),
        case("three_days_old").sends(up(-72 * HOUR, 1.0), 400, wrote(0, 0, 0), "too_old_sample: 1"),
        case("more_than_ten_minutes_ahead")
            .sends(up(HOUR, 1.0).float(0, 2.0), 400, wrote(1, 0, 0), "too_far_in_future: 1")
            .stores(&[r#"up{job="api"} 0:2"#]),
        case("nine_minutes_ahead")
            .sends(up(540_000, 1.0), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 540000:1"#]),
        case("the_earliest_time")
            .sends(
                up(0, 2.0).and(&[("__name__", "b")]).with(|s| {
                    s.samples.push(wire::pb::io::prometheus::write::v2::Sample {
                        value: 1.0,
                        timestamp: i64::MIN / 2,
                        start_timestamp: 0,
                    })
                }),
                400,
                wrote(1, 0, 0),
                "1 of 2 samples refused",
            )
            .stores(&[r#"up{job="api"} 0:2"#]),
        case("one_series_twice_in_a_request")
            .sends(up(0, 1.0).and(UP).float(1, 2.0).and(UP).float(0, 1.0), 204, wrote(3, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1 1:2"#]),
        case("one_series_twice_with_labels_in_another_order")
            .sends(
                up(0, 1.0).and(&[UP[1], UP[0]]).float(0, 2.0),
                400,
                wrote(1, 0, 0),
                "duplicate_sample_for_timestamp: 1",
            )
            .stores(&[r#"up{job="api"} 0:1"#]),
    ]
}

fn starts() -> Vec<Case> {
    vec![
        case("created_in_the_old_place_is_ignored")
            .sends(up(0, 1.0).trailing(&once_created()), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1"#]),
        case("created_in_the_old_place_beside_metadata")
            .sends(up(0, 1.0).metadata(1, "Help.", "").trailing(&once_created()), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:1"#, r#"metadata up counter "Help." """#]),
        case("created_in_the_old_place_beside_an_exemplar")
            .sends(
                up(0, 1.0).exemplar(0, 1.0, &[("trace_id", "x")]).trailing(&once_created()),
                204,
                wrote(1, 0, 1),
                "",
            )
            .stores(&[r#"up{job="api"} 0:1"#, r#"exemplar up{job="api"} 0:1 {trace_id="x"}"#]),
        case("created_in_the_old_place_beside_a_histogram")
            .sends(two(UP).histogram(0, histogram()).trailing(&once_created()), 204, wrote(0, 1, 0), "")
            .stores(&[r#"up{job="api"} 0:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}"#]),
        case("a_start_is_kept_as_a_zero_that_is_not_counted")
            .sends(two(UP).started(0, 5.0, -1000).started(1, 6.0, -1000), 204, wrote(2, 0, 0), "")
            .stores(&[r#"up{job="api"} -1000:0 0:5 1:6"#]),
        case("a_start_beyond_the_window_is_no_fault")
            .sends(two(UP).started(0, 5.0, -100 * HOUR), 204, wrote(1, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:5"#]),
        case("a_start_where_there_is_a_sample_is_no_fault")
            .sends(up(0, 5.0), 204, wrote(1, 0, 0), "")
            .sends(two(UP).started(1, 6.0, 0 - 1).started(2, 7.0, 0), 204, wrote(2, 0, 0), "")
            .stores(&[r#"up{job="api"} 0:5 1:6 2:7"#]),
    ]
}

fn parts() -> Vec<Case> {
    let good: &[(&str, &str)] = &[("__name__", "good")];
    vec![
        case("every_kind_of_fault_spares_the_rest")
            .sends(
                two(NAMELESS)
                    .float(0, 1.0)
                    .and(UP)
                    .float(0, 1.0)
                    .with(|s| s.labels_refs.push(1))
                    .and(&[("__name__", "h")])
                    .histogram(
                        0,
                        wire::pb::io::prometheus::write::v2::Histogram {
                            sum: 1.0,
                            schema: 9000,
                            ..histogram()
                        },
                    )
                    .and(good)
                    .float(0, 1.0)
                    .float(HOUR, 1.0),
                400,
                wrote(1, 0, 0),
                "4 of 5 samples refused, the others are stored",
            )
            .stores(&["good 0:1"]),
        case("a_series_with_floats_and_histograms")
            .sends(two(good).float(0, 1.0).histogram(1, histogram()), 204, wrote(1, 1, 0), "")
            .stores(&["good 0:1 1:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}"]),
        case("a_series_without_anything")
            .sends(two(good).and(good).float(0, 1.0), 204, wrote(1, 0, 0), "")
            .stores(&["good 0:1"]),
    ]
}
