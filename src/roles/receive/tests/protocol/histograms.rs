//! Native histograms of remote write 2.0: which are stored, and which are none.

use wire::pb::io::prometheus::write::v2::histogram::{Count, ZeroCount};
use wire::pb::io::prometheus::write::v2::{BucketSpan, Histogram};

use super::*;

const H: &[(&str, &str)] = &[("__name__", "h")];
const WHOLE: &str = "h 0:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}";
const CUSTOM: &str =
    "h 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}";

fn of(histogram: Histogram) -> Two {
    two(H).histogram(0, histogram)
}

fn with(mut histogram: Histogram, change: impl FnOnce(&mut Histogram)) -> Histogram {
    change(&mut histogram);
    histogram
}

fn whole(change: impl FnOnce(&mut Histogram)) -> Two {
    of(with(histogram(), change))
}

fn bounds(change: impl FnOnce(&mut Histogram)) -> Two {
    of(with(custom(), change))
}

/// The same with floats for counts.
fn float() -> Histogram {
    Histogram {
        count: Some(Count::CountFloat(9.5)),
        zero_count: Some(ZeroCount::ZeroCountFloat(0.5)),
        positive_deltas: Vec::new(),
        positive_counts: vec![2.0, 3.0],
        negative_deltas: Vec::new(),
        negative_counts: vec![4.0],
        ..histogram()
    }
}

pub fn cases() -> Vec<Case> {
    [stored(), schemas(), refused(), custom_bounds()].into_iter().flatten().collect()
}

fn good(name: &'static str, sent: Two, line: &'static str) -> Case {
    case(name).sends(sent, 204, wrote(0, 1, 0), "").stores(&[line])
}

fn bad(name: &'static str, sent: Two) -> Case {
    // What is beside it is stored.
    case(name)
        .sends(
            sent.and(&[("__name__", "good")]).float(0, 1.0),
            400,
            wrote(1, 0, 0),
            "invalid_native_histogram: 1",
        )
        .stores(&["good 0:1"])
}

fn stored() -> Vec<Case> {
    let empty = Histogram { count: Some(Count::CountInt(0)), ..Default::default() };
    let no_float = Histogram { count: Some(Count::CountFloat(0.0)), ..Default::default() };
    vec![
        good("both_sides_and_zero", whole(|_| {}), WHOLE),
        good(
            "positive_only",
            whole(|h| {
                (h.negative_spans, h.negative_deltas) = (vec![], vec![]);
                h.count = Some(Count::CountInt(6));
            }),
            "h 0:{count 6 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3}",
        ),
        good(
            "negative_only",
            whole(|h| {
                (h.positive_spans, h.positive_deltas) = (vec![], vec![]);
                h.count = Some(Count::CountInt(5));
            }),
            "h 0:{count 5 sum 18.5 schema 1 zero 1@0.001 -0=4}",
        ),
        good(
            "zero_only",
            of(Histogram {
                count: Some(Count::CountInt(3)),
                zero_count: Some(ZeroCount::ZeroCountInt(3)),
                zero_threshold: 0.5,
                ..Default::default()
            }),
            "h 0:{count 3 sum 0 schema 0 zero 3@0.5}",
        ),
        good("bounds_of_its_own", bounds(|_| {}), CUSTOM),
        good("no_buckets", of(empty), "h 0:{count 0 sum 0 schema 0}"),
        good("floats", of(float()), "h 0:{count 9.5 sum 18.5 schema 1 zero 0.5@0.001 +0=2 +2=3 -0=4}"),
        // The kind is told by the field that is set, not by its value.
        case("floats_that_count_zero")
            .sends(of(no_float.clone()), 204, wrote(0, 1, 0), "")
            .sends(
                two(H).histogram(1, Histogram { count: Some(Count::CountFloat(0.5)), ..no_float }),
                204,
                wrote(0, 1, 0),
                "",
            )
            .stores(&["h 0:{count 0 sum 0 schema 0} 1:{count 0.5 sum 0 schema 0}"]),
        case("stale_marker")
            .sends(whole(|_| {}).histogram(1, Histogram { sum: model::stale_nan(), ..Default::default() }), 204, wrote(0, 2, 0), "")
            .stores(&["h 0:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4} 1:{stale}"]),
        case("two_histograms_of_two_series")
            .sends(whole(|_| {}).and(&[("__name__", "i")]).histogram(0, float()), 204, wrote(0, 2, 0), "")
            .stores(&[WHOLE, "i 0:{count 9.5 sum 18.5 schema 1 zero 0.5@0.001 +0=2 +2=3 -0=4}"]),
        case("with_metadata")
            .sends(whole(|_| {}).metadata(3, "Sizes.", "bytes"), 204, wrote(0, 1, 0), "")
            .stores(&[WHOLE, r#"metadata h histogram "Sizes." "bytes""#]),
        case("with_an_exemplar")
            .sends(whole(|_| {}).exemplar(0, 2.0, &[("t", "1")]), 204, wrote(0, 1, 1), "")
            .stores(&[WHOLE, r#"exemplar h 0:2 {t="1"}"#]),
        case("with_metadata_and_an_exemplar")
            .sends(whole(|_| {}).metadata(3, "Sizes.", "").exemplar(0, 2.0, &[("t", "1")]), 204, wrote(0, 1, 1), "")
            .stores(&[WHOLE, r#"exemplar h 0:2 {t="1"}"#, r#"metadata h histogram "Sizes." """#]),
        case("two_with_metadata")
            .sends(
                whole(|_| {}).metadata(3, "Sizes.", "").and(&[("__name__", "i")]).histogram(0, custom()).metadata(4, "Depths.", ""),
                204,
                wrote(0, 2, 0),
                "",
            )
            .stores(&[
                WHOLE,
                "i 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}",
                r#"metadata h histogram "Sizes." """#,
                r#"metadata i gaugehistogram "Depths." """#,
            ]),
        case("the_same_again_is_no_fault")
            .sends(whole(|_| {}), 204, wrote(0, 1, 0), "")
            .sends(whole(|_| {}), 204, wrote(0, 1, 0), "")
            .stores(&[WHOLE]),
        case("another_at_the_same_time")
            .sends(whole(|_| {}), 204, wrote(0, 1, 0), "")
            .sends(whole(|h| h.sum = 1.0), 400, wrote(0, 0, 0), "duplicate_sample_for_timestamp: 1")
            .stores(&[WHOLE]),
        case("a_start_is_kept_as_a_zero_that_is_not_counted")
            .sends(whole(|h| h.start_timestamp = -1000), 204, wrote(0, 1, 0), "")
            .stores(&["h -1000:{count 0 sum 0 schema 1 zero 0@0.001} 0:{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}"]),
        case("sum_of_nan_counts_at_least_its_buckets")
            .sends(
                whole(|h| {
                    h.sum = f64::NAN;
                    h.count = Some(Count::CountInt(11));
                }),
                204,
                wrote(0, 1, 0),
                "",
            )
            .stores(&["h 0:{count 11 sum NaN schema 1 zero 1@0.001 +0=2 +2=3 -0=4}"]),
    ]
}

fn schemas() -> Vec<Case> {
    vec![
        good(
            "schema_9_becomes_8",
            whole(|h| h.schema = 9),
            "h 0:{count 10 sum 18.5 schema 8 zero 1@0.001 +0=2 +1=3 -0=4}",
        ),
        good(
            "schema_52_becomes_8",
            whole(|h| h.schema = 52),
            "h 0:{count 10 sum 18.5 schema 8 zero 1@0.001 +0=2 +1=3 -0=4}",
        ),
        good(
            "schema_minus_4",
            whole(|h| h.schema = -4),
            "h 0:{count 10 sum 18.5 schema -4 zero 1@0.001 +0=2 +2=3 -0=4}",
        ),
        bad("schema_minus_5", whole(|h| h.schema = -5)),
        bad("schema_53", whole(|h| h.schema = 53)),
        bad("schema_minus_54", whole(|h| h.schema = -54)),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        bad("count_99_of_10", whole(|h| h.count = Some(Count::CountInt(99)))),
        bad(
            "count_below_its_buckets_with_a_sum_of_nan",
            whole(|h| {
                h.sum = f64::NAN;
                h.count = Some(Count::CountInt(9));
            }),
        ),
        bad("spans_longer_than_buckets", whole(|h| h.positive_spans[0].length = 2)),
        bad("buckets_longer_than_spans", whole(|h| h.positive_deltas.push(1))),
        bad("a_later_span_goes_back", whole(|h| h.positive_spans[1].offset = -1)),
        bad("a_bucket_counts_below_zero", whole(|h| h.positive_deltas = vec![2, -3])),
        bad("a_float_bucket_below_zero", of(with(float(), |h| h.positive_counts[0] = -1.0))),
        bad("a_float_count_below_zero", of(with(float(), |h| h.count = Some(Count::CountFloat(-1.0))))),
        bad("custom_bounds_of_an_exponential_schema", whole(|h| h.custom_values = vec![1.0])),
        good(
            "floats_whose_count_is_not_their_sum",
            of(with(float(), |h| h.count = Some(Count::CountFloat(99.0)))),
            "h 0:{count 99 sum 18.5 schema 1 zero 0.5@0.001 +0=2 +2=3 -0=4}",
        ),
    ]
}

fn custom_bounds() -> Vec<Case> {
    vec![
        bad("bounds_that_go_down", bounds(|h| h.custom_values[1] = 0.05)),
        bad("bounds_that_are_equal", bounds(|h| h.custom_values[1] = 0.1)),
        bad("a_bound_of_nan", bounds(|h| h.custom_values[1] = f64::NAN)),
        bad("a_bound_of_infinity", bounds(|h| h.custom_values[5] = f64::INFINITY)),
        bad("more_buckets_than_bounds_and_one", bounds(|h| {
            h.positive_spans[0].length = 8;
            h.positive_deltas.extend([0, 0]);
            h.count = Some(Count::CountInt(14));
        })),
        good(
            "the_bucket_beyond_the_last_bound",
            bounds(|h| {
                h.positive_spans[0].length = 7;
                h.positive_deltas.push(-1);
                h.count = Some(Count::CountInt(11));
            }),
            "h 0:{count 11 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 +6=1 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}",
        ),
        bad("a_zero_bucket_beside_bounds", bounds(|h| {
            h.zero_count = Some(ZeroCount::ZeroCountInt(1));
            h.count = Some(Count::CountInt(11));
        })),
        bad("a_zero_threshold_beside_bounds", bounds(|h| h.zero_threshold = 0.1)),
        bad("negative_buckets_beside_bounds", bounds(|h| {
            h.negative_spans = vec![BucketSpan { offset: 0, length: 1 }];
            h.negative_deltas = vec![1];
            h.count = Some(Count::CountInt(11));
        })),
        case("bounds_change_between_samples")
            .sends(bounds(|_| {}), 204, wrote(0, 1, 0), "")
            .sends(two(H).histogram(1, with(custom(), |h| h.custom_values[5] = 20.0)), 204, wrote(0, 1, 0), "")
            .stores(&[concat!(
                "h 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}",
                " 1:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 20.0]}"
            )]),
    ]
}
