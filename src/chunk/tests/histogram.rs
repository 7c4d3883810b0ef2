//! Histogram chunks: any life of a histogram comes back, what readers are told of resets is true, and bytes from
//! anywhere harm nobody.

use std::collections::BTreeMap;

use chunk::histogram::{At, FloatIter, IntAppender, IntIter, Pushed, encode_floats, encode_ints, header};
use chunk::{ChunkData, Error};
use model::histogram::{
    CUSTOM_BUCKETS, FloatHistogram, Histogram, ResetHint, Span, indices, same_bits, spans_of,
};
use model::stale_nan;
use proptest::prelude::*;

type Buckets = BTreeMap<i32, u64>;

fn deltas(counts: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut before = 0i64;
    counts.map(|c| (c as i64).wrapping_sub(std::mem::replace(&mut before, c as i64))).collect()
}

fn histogram(schema: i32, positive: &Buckets, negative: &Buckets, zero: u64) -> Histogram {
    let count = positive.values().chain(negative.values()).sum::<u64>() + zero;
    Histogram {
        schema,
        zero_count: zero,
        count,
        sum: count as f64 * 0.7,
        positive_spans: spans_of(positive.keys().copied()),
        negative_spans: spans_of(negative.keys().copied()),
        positive_deltas: deltas(positive.values().copied()),
        negative_deltas: deltas(negative.values().copied()),
        ..Histogram::default()
    }
}

/// What happens between two samples.
#[derive(Clone, Debug)]
enum Event {
    /// Counts grow; buckets may appear.
    Grow {
        positive: Vec<(i32, u64)>,
        negative: Vec<(i32, u64)>,
        zero: u64,
    },
    /// Empty buckets are left out.
    Tidy,
    /// A bucket falls.
    Fall(prop::sample::Index),
    Stale,
    Gauge,
    Hint(u8),
    Schema(i32),
    Threshold(f64),
    Bounds(Vec<u16>),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let grown = || prop::collection::vec((-6i32..7, 0u64..50), 0..4);
    prop_oneof![
        12 => (grown(), grown(), 0u64..5).prop_map(|(positive, negative, zero)| Event::Grow { positive, negative, zero }),
        2 => Just(Event::Tidy),
        1 => any::<prop::sample::Index>().prop_map(Event::Fall),
        2 => Just(Event::Stale),
        1 => Just(Event::Gauge),
        1 => (0u8..4).prop_map(Event::Hint),
        1 => (-4i32..9).prop_map(Event::Schema),
        1 => prop_oneof![Just(0.0), Just(0.5), Just(0.001), Just(2f64.powi(-128))].prop_map(Event::Threshold),
        1 => prop::collection::vec(1u16..3000, 14..20).prop_map(Event::Bounds),
        1 => Just(Event::Restart),
    ]
}

/// A series: times mostly steady, and histograms as an instrument would send them.
fn life() -> impl Strategy<Value = Vec<At<Histogram>>> {
    let step = prop_oneof![8 => Just(15_000i64), 2 => 1i64..40_000, 1 => 1i64..1 << 40];
    (0i64..1 << 41, prop::collection::vec((step, event()), 1..80)).prop_map(|(mut at, events)| {
        let (mut positive, mut negative, mut zero) = (Buckets::new(), Buckets::new(), 0);
        let mut shape = Histogram::default();
        let mut out = Vec::new();
        for (step, event) in events {
            at += step;
            let (mut stale, mut hint) = (false, shape.hint);
            match event {
                Event::Grow { positive: up, negative: down, zero: more } => {
                    up.into_iter().for_each(|(at, n)| *positive.entry(at).or_default() += n);
                    down.into_iter().for_each(|(at, n)| *negative.entry(at).or_default() += n);
                    zero += more;
                }
                Event::Tidy => {
                    [&mut positive, &mut negative].into_iter().for_each(|b| b.retain(|_, n| *n > 0))
                }
                Event::Fall(which) if !positive.is_empty() => {
                    let which = which.index(positive.len());
                    let bucket = positive.values_mut().nth(which).unwrap();
                    *bucket = bucket.saturating_sub(7);
                }
                Event::Fall(_) => {}
                Event::Stale => stale = true,
                Event::Gauge => {
                    shape.hint = match shape.hint {
                        ResetHint::Gauge => ResetHint::Unknown,
                        _ => ResetHint::Gauge,
                    }
                }
                Event::Hint(code) => hint = ResetHint::from_code(code).unwrap(),
                Event::Schema(schema) => (shape.schema, shape.custom_values) = (schema, [].into()),
                Event::Threshold(t) => shape.zero_threshold = t,
                Event::Bounds(bounds) => {
                    shape.schema = CUSTOM_BUCKETS;
                    let mut at = -0.3;
                    let next = |b: u16| {
                        at += f64::from(b) / 1000.0;
                        at
                    };
                    shape.custom_values = bounds.into_iter().map(next).collect();
                }
                Event::Restart => {
                    (positive, negative, zero) = Default::default();
                }
            }
            if shape.schema == CUSTOM_BUCKETS {
                (negative, zero, shape.zero_threshold) = (Buckets::new(), 0, 0.0);
                positive.retain(|at, _| (0..=13).contains(at));
            }
            let mut h = histogram(shape.schema, &positive, &negative, zero);
            h.zero_threshold = shape.zero_threshold;
            h.custom_values = shape.custom_values.clone();
            h.hint = hint;
            if stale {
                h = Histogram { sum: stale_nan(), ..Histogram::default() };
            }
            assert_eq!(h.check(), Ok(()));
            out.push(At { timestamp: at, histogram: h });
        }
        out
    })
}

fn full(spans: &[Span], counts: &[f64]) -> Vec<(i32, f64)> {
    indices(spans).zip(counts.iter().copied()).filter(|(_, c)| *c != 0.0).collect()
}

/// Equal but for buckets that are only room.
fn same(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    if a.is_stale() || b.is_stale() {
        return a.is_stale() && b.is_stale();
    }
    a.schema == b.schema
        && same_bits(
            &[a.count, a.zero_count, a.sum, a.zero_threshold],
            &[b.count, b.zero_count, b.sum, b.zero_threshold],
        )
        && (a.hint == ResetHint::Gauge) == (b.hint == ResetHint::Gauge)
        && full(&a.positive_spans, &a.positive_counts) == full(&b.positive_spans, &b.positive_counts)
        && full(&a.negative_spans, &a.negative_counts) == full(&b.negative_spans, &b.negative_counts)
        && same_bits(&a.custom_values, &b.custom_values)
}

fn ints(chunk: &ChunkData) -> Result<Vec<At<Histogram>>, Error> {
    IntIter::new(&chunk.bytes)?.collect()
}

fn floats(chunk: &ChunkData) -> Result<Vec<At<FloatHistogram>>, Error> {
    FloatIter::new(&chunk.bytes)?.collect()
}

fn floated(list: &[At<Histogram>]) -> Vec<At<FloatHistogram>> {
    list.iter().map(|s| At { timestamp: s.timestamp, histogram: s.histogram.to_float() }).collect()
}

/// Whether any count of `after` is below that of `before`: what a counter does only when it starts anew.
fn fell(before: &FloatHistogram, after: &FloatHistogram) -> bool {
    let side = |a: &[(i32, f64)], b: &[(i32, f64)]| {
        let now: BTreeMap<_, _> = b.iter().copied().collect();
        a.iter().any(|(at, n)| now.get(at).copied().unwrap_or(0.0) < *n)
    };
    after.count < before.count
        || after.zero_count < before.zero_count
        || side(
            &full(&before.positive_spans, &before.positive_counts),
            &full(&after.positive_spans, &after.positive_counts),
        )
        || side(
            &full(&before.negative_spans, &before.negative_counts),
            &full(&after.negative_spans, &after.negative_counts),
        )
}

proptest! {
    #[test]
    fn any_life_comes_back(list in life(), per_chunk in 1u16..40) {
        let expected = floated(&list);
        let whole = encode_ints(list, per_chunk).unwrap();
        let float = encode_floats(expected.iter().cloned(), per_chunk).unwrap();
        // One rule: both kinds of counts are cut alike, with the same word on resets.
        let shape = |c: &ChunkData| (c.range, header(&c.bytes).unwrap());
        prop_assert_eq!(whole.iter().map(shape).collect::<Vec<_>>(), float.iter().map(shape).collect::<Vec<_>>());
        let whole: Vec<Vec<_>> = whole.iter().map(|c| floated(&ints(c).unwrap())).collect();
        let float: Vec<Vec<_>> = float.iter().map(|c| floats(c).unwrap()).collect();
        for chunks in [whole, float] {
            let read = chunks.concat();
            prop_assert_eq!(read.len(), expected.len());
            for (read, sent) in read.iter().zip(&expected) {
                prop_assert_eq!(read.timestamp, sent.timestamp);
                prop_assert!(same(&read.histogram, &sent.histogram), "{:?} for {:?}", read, sent);
                prop_assert_eq!(read.histogram.check(), Ok(()));
            }
            for chunk in chunks {
                prop_assert!(chunk.len() <= usize::from(per_chunk));
                for pair in chunk.windows(2) {
                    let (before, after) = (&pair[0].histogram, &pair[1].histogram);
                    if after.hint == ResetHint::NotReset {
                        prop_assert!(!fell(before, after), "{:?} then {:?}", before, after);
                    }
                    prop_assert!(!before.is_stale() || after.is_stale());
                }
            }
        }
    }

    #[test]
    fn cut_short_is_an_error(list in life(), cut in 0.0f64..1.0) {
        for chunk in encode_ints(list.clone(), 120).unwrap() {
            let mut cut_off = chunk.clone();
            cut_off.bytes = chunk.bytes.slice(..(chunk.bytes.len() as f64 * cut) as usize);
            prop_assert_eq!(ints(&cut_off), Err(Error::Truncated));
        }
        for chunk in encode_floats(floated(&list), 120).unwrap() {
            let mut cut_off = chunk.clone();
            cut_off.bytes = chunk.bytes.slice(..(chunk.bytes.len() as f64 * cut) as usize);
            prop_assert_eq!(floats(&cut_off), Err(Error::Truncated));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = IntIter::new(&bytes).map(Iterator::count);
        let _ = FloatIter::new(&bytes).map(Iterator::count);
    }

    #[test]
    fn damaged_chunks_never_panic(list in life(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let chunks = encode_ints(list.clone(), 120).unwrap().into_iter();
        for chunk in chunks.chain(encode_floats(floated(&list), 120).unwrap()) {
            let mut bytes = chunk.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = IntIter::new(&bytes).map(Iterator::count);
            let _ = FloatIter::new(&bytes).map(Iterator::count);
        }
    }

    /// Whatever is pushed, checked or not: refused or stored, and the chunk stays readable.
    #[test]
    fn what_was_not_checked_does_no_harm(
        list in prop::collection::vec(
            (any::<i64>(), any::<i32>(), any::<u64>(), prop::collection::vec((any::<i32>(), 0u32..5), 0..3),
             prop::collection::vec(any::<i64>(), 0..6)),
            1..6,
        ),
    ) {
        let (mut appender, mut out) = (IntAppender::default(), Vec::new());
        for (at, schema, count, spans, positive_deltas) in list {
            let positive_spans = spans.into_iter().map(|(offset, length)| Span { offset, length }).collect();
            let h = Histogram { schema, count, positive_spans, positive_deltas, ..Histogram::default() };
            let before = appender.count();
            let added = matches!(appender.push(&mut out, at, &h), Ok(Pushed::Appended));
            prop_assert_eq!(appender.count(), before + u16::from(added));
            if appender.count() > 0 {
                let read = IntIter::new(&out).unwrap().collect::<Result<Vec<_>, _>>();
                prop_assert_eq!(read.map(|r| r.len()), Ok(usize::from(appender.count())));
            }
        }
    }
}

/// Bytes worked out by hand from the format.
#[test]
fn golden_by_hand() {
    let bytes = |head: &[u8], bits: &str| -> Vec<u8> {
        let bits: Vec<u8> = bits.chars().filter_map(|c| c.to_digit(2)).map(|b| b as u8).collect();
        let tail = bits.chunks(8).map(|b| (0..8).fold(0, |v, at| v << 1 | b.get(at).copied().unwrap_or(0)));
        head.iter().copied().chain(tail).collect()
    };
    let at = |timestamp, positive: &[i64], count, sum, hint| At {
        timestamp,
        histogram: Histogram {
            schema: 2,
            zero_threshold: 2f64.powi(-128),
            zero_count: 1,
            count,
            sum,
            hint,
            positive_spans: vec![Span { offset: -1, length: 2 }],
            positive_deltas: positive.to_vec(),
            ..Histogram::default()
        },
    };
    let list = [
        at(1000, &[2, 1], 6, 1.0, ResetHint::Unknown),
        at(1010, &[3, 0], 7, 1.0, ResetHint::NotReset),
        at(1020, &[4, 0], 9, 1.0, ResetHint::NotReset),
    ];
    let chunk = encode_ints(list.clone(), 120).unwrap();
    // Three samples, nothing known of resets; threshold, schema 2, one span of two buckets from -1, no negative side.
    let layout = "01110100  10 010  10 001 10 010 10 111  0";
    // 1000 takes twelve bits; then count 6, one in the zero bucket, the sum, 2 and 1 more.
    let first = format!("11110 001111101000  10 110  10 001  {:064b}  10 010 10 001", 1f64.to_bits());
    // Steps of ten; changes of changes.
    let second = "110 001010  10 001  0  0  10 001 10 111";
    let third = "0  10 001  0  0  0  10 001";
    assert_eq!(chunk[0].bytes, bytes(&[0, 3, 0], &format!("{layout}{first}{second}{third}")));
    assert_eq!(ints(&chunk[0]).unwrap(), list);

    let float = encode_floats(floated(&list[..2]), 120).unwrap();
    let bits = |v: f64| format!("{:064b}", v.to_bits());
    let first: String = [6.0, 1.0, 1.0, 2.0, 3.0].map(bits).concat();
    // 6 ^ 7 has 13 leading zeroes and one bit; zero bucket and sum stay; 2 ^ 3 has 12 and one; the other stays.
    let second = "110 001010  11 01101 000001 1  0  0  11 01100 000001 1  0";
    let expected = bytes(&[0, 2, 0], &format!("{layout}11110 001111101000{first}{second}"));
    assert_eq!(float[0].bytes, expected);
    assert_eq!(floats(&float[0]).unwrap(), floated(&list[..2]));
}

#[test]
fn a_layout_that_outgrows_a_chunk_begins_another() {
    let wide = |from: i32| {
        let buckets: Buckets = (from..from + 60_000).map(|at| (at, 1)).collect();
        At { timestamp: i64::from(from), histogram: histogram(0, &buckets, &Buckets::new(), 0) }
    };
    let gauge = |mut at: At<Histogram>| {
        at.histogram.hint = ResetHint::Gauge;
        at
    };
    let chunks = encode_ints([0, 60_000, 120_000].map(|from| gauge(wide(from))), 120).unwrap();
    assert_eq!(chunks.iter().map(|c| ints(c).unwrap().len()).collect::<Vec<_>>(), [2, 1]);
}
