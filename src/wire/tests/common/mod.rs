//! Histograms as a protobuf library reads them, beside ours.
#![allow(dead_code)]

use model::histogram::{FloatHistogram, Histogram, Native, ResetHint, Span};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::pb::prometheus as pb;
use wire::remote_write::HistogramSample;

fn any_spans() -> impl Strategy<Value = Vec<pb::BucketSpan>> {
    let span = prop_oneof![
        6 => (0i32..3, 0u32..4),
        1 => (any::<i32>(), any::<u32>()),
    ];
    vec(span.prop_map(|(offset, length)| pb::BucketSpan { offset, length }), 0..3)
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![4 => (0u32..100).prop_map(f64::from), 1 => any::<f64>(), 1 => Just(model::stale_nan())]
}

/// Some that pass the checks, and many that do not.
pub fn any_histogram() -> impl Strategy<Value = pb::Histogram> {
    let wild = (
        (
            any::<Option<(bool, u64)>>(),
            any::<Option<(bool, u64)>>(),
            any_float(),
            prop_oneof![-5i32..12, any::<i32>()],
        ),
        (any_float(), any_spans(), any_spans(), -1i32..6, any::<i64>()),
        (vec(-3i64..4, 0..6), vec(-3i64..4, 0..6), vec(any_float(), 0..6), vec(any_float(), 0..6)),
        vec(any_float(), 0..3),
    )
        .prop_map(
            |(
                (count, zero, sum, schema),
                (zero_threshold, positive_spans, negative_spans, reset_hint, timestamp),
                (positive_deltas, negative_deltas, positive_counts, negative_counts),
                custom_values,
            )| {
                pb::Histogram {
                    count: count.map(|(float, n)| match float {
                        true => pb::histogram::Count::CountFloat(n as f64),
                        false => pb::histogram::Count::CountInt(n),
                    }),
                    zero_count: zero.map(|(float, n)| match float {
                        true => pb::histogram::ZeroCount::ZeroCountFloat(n as f64),
                        false => pb::histogram::ZeroCount::ZeroCountInt(n),
                    }),
                    sum,
                    schema,
                    zero_threshold,
                    negative_spans,
                    negative_deltas,
                    negative_counts,
                    positive_spans,
                    positive_deltas,
                    positive_counts,
                    reset_hint,
                    timestamp,
                    custom_values,
                }
            },
        );
    let sound = (vec(0i64..50, 0..6), 0u64..5, -4i32..13, 0i32..4, any::<bool>(), -9i32..9).prop_map(
        |(counts, zero, schema, reset_hint, float, offset)| {
            let count = counts.iter().sum::<i64>() as u64 + zero;
            let mut before = 0;
            let deltas = counts.iter().map(|c| c - std::mem::replace(&mut before, *c)).collect();
            let span = pb::BucketSpan { offset, length: counts.len() as u32 };
            let both = pb::Histogram {
                sum: count as f64,
                schema,
                zero_threshold: 0.5,
                positive_spans: vec![span],
                reset_hint,
                ..Default::default()
            };
            match float {
                true => pb::Histogram {
                    count: Some(pb::histogram::Count::CountFloat(count as f64)),
                    zero_count: Some(pb::histogram::ZeroCount::ZeroCountFloat(zero as f64)),
                    positive_counts: counts.iter().map(|c| *c as f64).collect(),
                    ..both
                },
                false => pb::Histogram {
                    count: Some(pb::histogram::Count::CountInt(count)),
                    zero_count: Some(pb::histogram::ZeroCount::ZeroCountInt(zero)),
                    positive_deltas: deltas,
                    ..both
                },
            }
        },
    );
    prop_oneof![wild, sound]
}

fn spans(list: &[pb::BucketSpan]) -> Vec<Span> {
    list.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
}

/// The histogram of a message, before any check.
pub fn native(h: &pb::Histogram) -> Native {
    let hint = u8::try_from(h.reset_hint).ok().and_then(ResetHint::from_code).unwrap_or_default();
    let (positive_spans, negative_spans) = (spans(&h.positive_spans), spans(&h.negative_spans));
    let custom_values = h.custom_values.clone().into();
    match h.count {
        Some(pb::histogram::Count::CountFloat(count)) => Native::Float(FloatHistogram {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: match h.zero_count {
                Some(pb::histogram::ZeroCount::ZeroCountFloat(n)) => n,
                _ => 0.0,
            },
            count,
            sum: h.sum,
            hint,
            positive_spans,
            negative_spans,
            positive_counts: h.positive_counts.clone(),
            negative_counts: h.negative_counts.clone(),
            custom_values,
        }),
        count => Native::Whole(Histogram {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: match h.zero_count {
                Some(pb::histogram::ZeroCount::ZeroCountInt(n)) => n,
                _ => 0,
            },
            count: if let Some(pb::histogram::Count::CountInt(n)) = count { n } else { 0 },
            sum: h.sum,
            hint,
            positive_spans,
            negative_spans,
            positive_deltas: h.positive_deltas.clone(),
            negative_deltas: h.negative_deltas.clone(),
            custom_values,
        }),
    }
}

/// What the library read, checked and reduced, must be what we give, or the same refusal.
pub fn assert_same_histogram(ours: &HistogramSample, theirs: &pb::Histogram, start_timestamp: i64) {
    assert_eq!((ours.timestamp, ours.start_timestamp), (theirs.timestamp, start_timestamp));
    let mut expected = native(theirs);
    match (expected.check(), &ours.histogram) {
        (Ok(()), Ok(ours)) => {
            if !expected.is_stale() {
                expected.reduce_schema();
            }
            let kind = |n: &Native| matches!(n, Native::Whole(_));
            assert_eq!((ours, kind(ours)), (&expected, kind(&expected)));
            assert_eq!(ours.check(), Ok(()));
        }
        // Compared as texts: a refusal that names a NaN equals itself there.
        (Err(expected), Err(ours)) => assert_eq!(ours.to_string(), expected.to_string()),
        (expected, ours) => panic!("{ours:?} but {expected:?}"),
    }
}
