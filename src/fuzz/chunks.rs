//! Chunks: any bytes are samples or an error, and what was read is written so that it reads the same.

use chunk::histogram::{At, FloatIter, IntIter, encode_floats, encode_ints};
use model::histogram::{FloatHistogram, Span, indices};

/// Floats.
pub fn xor(bytes: &[u8]) {
    let Ok(iter) = chunk::xor::Iter::new(bytes) else { return };
    let samples: Vec<model::Sample> = iter.map_while(Result::ok).collect();
    let bits = |samples: &[model::Sample]| -> Vec<(i64, u64)> {
        samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect()
    };
    let again = chunk::xor::encode(samples.iter().copied()).expect("as many samples as a chunk may hold");
    let read: Result<Vec<_>, _> = chunk::xor::Iter::new(&again).expect("a count").collect();
    assert_eq!(bits(&read.expect("our own bytes")), bits(&samples));
}

/// Buckets that are not empty: a chunk may come back with room for more.
fn full(spans: &[Span], counts: &[f64]) -> Vec<(i32, u64)> {
    indices(spans).zip(counts.iter().map(|c| c.to_bits())).filter(|(_, c)| *c != 0).collect()
}

fn assert_same(sent: &At<FloatHistogram>, read: &At<FloatHistogram>) {
    let (a, b) = (&sent.histogram, &read.histogram);
    assert_eq!((sent.timestamp, a.is_stale()), (read.timestamp, b.is_stale()));
    if !a.is_stale() {
        assert_eq!(
            (a.schema, a.count.to_bits(), a.sum.to_bits()),
            (b.schema, b.count.to_bits(), b.sum.to_bits())
        );
        assert_eq!(a.zero_count.to_bits(), b.zero_count.to_bits());
        assert_eq!(a.custom_values.len(), b.custom_values.len());
        assert_eq!(full(&a.positive_spans, &a.positive_counts), full(&b.positive_spans, &b.positive_counts));
        assert_eq!(full(&a.negative_spans, &a.negative_counts), full(&b.negative_spans, &b.negative_counts));
    }
}

/// Native histograms, integer and float; those that pass a receiver's checks are encoded so that they decode alike.
pub fn histogram(bytes: &[u8]) {
    if let Ok(iter) = IntIter::new(bytes) {
        let sent: Vec<_> =
            iter.take(300).map_while(Result::ok).filter(|s| s.histogram.check().is_ok()).collect();
        let chunks = encode_ints(sent.iter().cloned(), 120).expect("checked histograms are encoded");
        let read = chunks.iter().flat_map(|c| IntIter::new(&c.bytes).expect("our own bytes"));
        let read: Vec<_> = read.map(|s| s.expect("our own samples")).collect();
        assert_eq!(read.len(), sent.len());
        for (a, b) in sent.iter().zip(&read) {
            let float =
                |s: &At<model::Histogram>| At { timestamp: s.timestamp, histogram: s.histogram.to_float() };
            assert_same(&float(a), &float(b));
        }
    }
    if let Ok(iter) = FloatIter::new(bytes) {
        let sent: Vec<_> =
            iter.take(300).map_while(Result::ok).filter(|s| s.histogram.check().is_ok()).collect();
        let chunks = encode_floats(sent.iter().cloned(), 120).expect("checked histograms are encoded");
        let read = chunks.iter().flat_map(|c| FloatIter::new(&c.bytes).expect("our own bytes"));
        let read: Vec<_> = read.map(|s| s.expect("our own samples")).collect();
        assert_eq!(read.len(), sent.len());
        sent.iter().zip(&read).for_each(|(a, b)| assert_same(a, b));
    }
}
