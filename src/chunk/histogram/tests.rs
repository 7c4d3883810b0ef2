//! Histogram chunks: what is pushed comes back, layouts widen, resets begin new chunks.

use model::histogram::{CUSTOM_BUCKETS, FloatHistogram, Histogram, ResetHint, Span};
use model::stale_nan;

use super::*;

fn span(offset: i32, length: u32) -> Span {
    Span { offset, length }
}

fn histogram(spans: &[Span], counts: &[i64]) -> Histogram {
    let mut before = 0;
    Histogram {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: 1,
        count: 1 + counts.iter().sum::<i64>() as u64,
        sum: counts.iter().sum::<i64>() as f64 * 1.7,
        positive_spans: spans.to_vec(),
        positive_deltas: counts.iter().map(|c| c - std::mem::replace(&mut before, *c)).collect(),
        ..Histogram::default()
    }
}

/// Pushes all, as ints and as floats; gives what is read back of each.
fn both(list: &[Histogram]) -> (Vec<At<Histogram>>, Vec<At<FloatHistogram>>) {
    let (mut ints, mut floats) = (IntAppender::default(), FloatAppender::default());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (at, h) in list.iter().enumerate() {
        let time = 1_700_000_000_000 + at as i64 * 15_000 + (at as i64 % 3);
        assert_eq!(ints.push(&mut a, time, h), Ok(Pushed::Appended));
        assert_eq!(floats.push(&mut b, time, &h.to_float()), Ok(Pushed::Appended));
    }
    let a = IntIter::new(&a).unwrap().map(Result::unwrap).collect();
    let b = FloatIter::new(&b).unwrap().map(Result::unwrap).collect();
    (a, b)
}

#[test]
fn steady_layout_round_trips() {
    let list: Vec<_> =
        (0..200).map(|i| histogram(&[span(-2, 2), span(1, 3)], &[i, 2 * i, i / 3, 40 + i * i, 7])).collect();
    let (ints, floats) = both(&list);
    for (at, h) in list.iter().enumerate() {
        assert_eq!(&ints[at].histogram, h);
        assert_eq!(floats[at].histogram, h.to_float());
        assert_eq!(ints[at].timestamp, floats[at].timestamp);
        let hint = if at == 0 { ResetHint::Unknown } else { ResetHint::NotReset };
        assert_eq!(ints[at].histogram.hint, hint);
    }
}

#[test]
fn new_buckets_widen_the_chunk_and_lost_empty_ones_are_filled() {
    let list = [
        histogram(&[span(0, 2)], &[1, 2]),
        histogram(&[span(0, 2), span(3, 1)], &[1, 3, 1]),
        histogram(&[span(-1, 3), span(3, 1)], &[5, 1, 3, 2]),
        // Bucket 2 was there, empty, and is left out again.
        histogram(&[span(-1, 4), span(2, 1)], &[5, 1, 3, 0, 2]),
        histogram(&[span(-1, 3), span(3, 1)], &[5, 1, 4, 2]),
    ];
    let (ints, floats) = both(&list);
    assert_eq!(ints.len(), 5);
    for (at, h) in list.iter().enumerate() {
        let read = &ints[at].histogram;
        assert_eq!((read.count, read.sum), (h.count, h.sum));
        assert_eq!(read.check(), Ok(()));
        // The same counts at the same indices; buckets that are only room are empty.
        let full = |h: &FloatHistogram| {
            let all = model::histogram::indices(&h.positive_spans).zip(h.positive_counts.clone());
            all.filter(|(_, c)| *c != 0.0).collect::<Vec<_>>()
        };
        assert_eq!(full(&read.to_float()), full(&h.to_float()), "sample {at}");
        assert_eq!(full(&floats[at].histogram), full(&h.to_float()), "sample {at}");
    }
}

#[test]
fn resets_stale_markers_and_other_layouts_begin_a_chunk() {
    let first = histogram(&[span(0, 2)], &[5, 5]);
    let next = |h: &Histogram| {
        let (mut ints, mut floats) = (IntAppender::default(), FloatAppender::default());
        let (mut a, mut b) = (Vec::new(), Vec::new());
        ints.push(&mut a, 1, &first).unwrap();
        floats.push(&mut b, 1, &first.to_float()).unwrap();
        let said = ints.push(&mut a, 2, h).unwrap();
        assert_eq!(floats.push(&mut b, 2, &h.to_float()).unwrap(), said);
        said
    };
    let with = |change: &dyn Fn(&mut Histogram)| {
        let mut h = histogram(&[span(0, 2)], &[6, 6]);
        change(&mut h);
        next(&h)
    };
    assert_eq!(with(&|_| {}), Pushed::Appended);
    // A bucket falls although the count grows.
    assert_eq!(next(&histogram(&[span(0, 2)], &[4, 50])), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(next(&histogram(&[span(1, 1)], &[50])), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(with(&|h| h.count = 3), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(with(&|h| h.zero_count = 0), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(with(&|h| h.schema = 3), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(with(&|h| h.zero_threshold = 0.5), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(with(&|h| h.hint = ResetHint::Reset), Pushed::NewChunk(ResetHint::Reset));
    assert_eq!(with(&|h| h.hint = ResetHint::Gauge), Pushed::NewChunk(ResetHint::Gauge));
    assert_eq!(with(&|h| h.sum = stale_nan()), Pushed::Appended);

    // Nothing follows a stale marker in its chunk.
    let (mut ints, mut out) = (IntAppender::default(), Vec::new());
    ints.push(&mut out, 1, &first).unwrap();
    ints.push(&mut out, 2, &Histogram { sum: stale_nan(), ..Histogram::default() }).unwrap();
    assert_eq!(ints.push(&mut out, 3, &first), Ok(Pushed::NewChunk(ResetHint::Unknown)));
    let read: Vec<_> = IntIter::new(&out).unwrap().map(Result::unwrap).collect();
    assert!(read[1].histogram.is_stale());
    assert_eq!(read[0].histogram, first);
}

#[test]
fn gauges_may_fall() {
    let gauge = |counts: &[i64]| Histogram { hint: ResetHint::Gauge, ..histogram(&[span(0, 2)], counts) };
    let list = [gauge(&[5, 5]), gauge(&[1, 9]), gauge(&[0, 0])];
    let (ints, floats) = both(&list);
    for (at, h) in list.iter().enumerate() {
        assert_eq!(&ints[at].histogram, h);
        assert_eq!(ints[at].histogram.hint, ResetHint::Gauge);
        assert_eq!(floats[at].histogram, h.to_float());
    }
}

#[test]
fn custom_bounds_travel() {
    let h = |n: i64| Histogram {
        schema: CUSTOM_BUCKETS,
        count: n as u64 * 2,
        sum: 3.5,
        positive_spans: vec![span(1, 2)],
        positive_deltas: vec![n, 0],
        custom_values: [0.005, 0.1, 1e-9, 40_000.0].into(),
        ..Histogram::default()
    };
    let (ints, floats) = both(&[h(1), h(4)]);
    assert_eq!(ints[1].histogram, h(4));
    assert_eq!(floats[0].histogram, h(1).to_float());
    let mut other = h(5);
    other.custom_values = [0.005, 0.1, 1.0, 40_000.0].into();
    let (mut ints, mut out) = (IntAppender::default(), Vec::new());
    ints.push(&mut out, 1, &h(1)).unwrap();
    assert_eq!(ints.push(&mut out, 2, &other), Ok(Pushed::NewChunk(ResetHint::Reset)));
}

#[test]
fn damaged_bytes_end_in_errors() {
    let list: Vec<_> =
        (0..20).map(|i| histogram(&[span(-2, 2), span(1, 3)], &[i, 2 * i, i, 40 + i, 7])).collect();
    let (mut ints, mut floats, mut a, mut b) =
        (IntAppender::default(), FloatAppender::default(), Vec::new(), Vec::new());
    for (at, h) in list.iter().enumerate() {
        ints.push(&mut a, at as i64, h).unwrap();
        floats.push(&mut b, at as i64, &h.to_float()).unwrap();
    }
    // Neither a cut nor a flipped bit may panic or run away; what is read is bounded by the count.
    for bytes in [&a, &b] {
        for cut in 0..bytes.len() {
            let _ = IntIter::new(&bytes[..cut]).map(|iter| iter.count());
            let _ = FloatIter::new(&bytes[..cut]).map(|iter| iter.count());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let _ = IntIter::new(&bent).map(|iter| iter.take(1000).count());
            let _ = FloatIter::new(&bent).map(|iter| iter.take(1000).count());
        }
    }
    assert!(IntIter::new(&a[..a.len() / 2]).unwrap().any(|s| s.is_err()));
}
