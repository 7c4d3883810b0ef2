//! Chunks: any bytes are samples or an error, and what was read is written so that it reads the same.

use bytes::Bytes;
use chunk::histogram::{At, FloatIter, IntIter, encode_floats, encode_ints, with_starts};
use chunk::{ChunkData, Encoding};
use model::histogram::{FloatHistogram, Span, indices};
use model::{TimeRange, Timestamp};

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

/// Floats with start times: what is read is written so that it reads the same, starts too, and older readers get the floats.
pub fn xor2(bytes: &[u8]) {
    let Ok(iter) = chunk::xor2::Iter::new(bytes) else { return };
    let samples: Vec<_> = iter.map_while(Result::ok).collect();
    let bits = |samples: &[chunk::xor2::Started]| -> Vec<(i64, u64, i64)> {
        samples.iter().map(|(s, start)| (s.timestamp, s.value.to_bits(), *start)).collect()
    };
    let again = chunk::xor2::encode(samples.iter().copied()).expect("as many samples as a chunk may hold");
    let read: Result<Vec<_>, _> = chunk::xor2::Iter::new(&again).expect("a count").collect();
    assert_eq!(bits(&read.expect("our own bytes")), bits(&samples));
    let older = chunk::plain(whole(Encoding::Xor2, &again)).expect("our own bytes");
    let floats = older.iter().flat_map(|c| chunk::xor::Iter::new(&c.bytes).expect("our own bytes"));
    let floats: Vec<_> =
        floats.map(|s| s.expect("our own samples")).map(|s| (s.timestamp, s.value.to_bits())).collect();
    assert_eq!(floats, samples.iter().map(|(s, _)| (s.timestamp, s.value.to_bits())).collect::<Vec<_>>());
}

fn whole(encoding: Encoding, bytes: &[u8]) -> ChunkData {
    ChunkData { range: TimeRange::ALL, encoding, bytes: Bytes::copy_from_slice(bytes) }
}

/// Native histograms with start times; those that pass a receiver's checks are encoded so that they decode alike, with
/// starts and without.
pub fn histogram_start(bytes: &[u8]) {
    for encoding in [Encoding::HistogramStart, Encoding::FloatHistogramStart] {
        if bytes.len() < 1 << 12 {
            let _ = chunk::plain(whole(encoding, bytes));
        }
    }
    if let Ok(mut iter) = IntIter::started(bytes) {
        let sent = std::iter::from_fn(|| iter.next_started());
        let sent: Vec<_> =
            sent.take(300).map_while(Result::ok).filter(|(s, _)| s.histogram.check().is_ok()).collect();
        let chunks =
            encode_ints(sent.iter().map(|(s, _)| s.clone()), 100).expect("checked histograms are encoded");
        let mut left = sent.iter();
        for chunk in &chunks {
            let count = IntIter::new(&chunk.bytes).expect("our own bytes").count();
            let these: Vec<_> = left.by_ref().take(count).collect();
            let starts: Vec<Timestamp> = these.iter().map(|(_, start)| *start).collect();
            let started = with_starts(chunk, &starts).expect("a chunk of our own takes starts");
            let mut iter = IntIter::started(&started.bytes).expect("our own bytes");
            let float =
                |s: &At<model::Histogram>| At { timestamp: s.timestamp, histogram: s.histogram.to_float() };
            for (sample, start) in these {
                let (read, begun) = iter.next_started().expect("as many").expect("our own samples");
                assert_same(&float(sample), &float(&read));
                assert_eq!(begun, *start);
            }
            assert!(iter.next_started().is_none());
            assert!(chunk::plain(started).is_ok());
        }
        assert!(left.next().is_none());
    }
    if let Ok(mut iter) = FloatIter::started(bytes) {
        let sent = std::iter::from_fn(|| iter.next_started());
        let sent: Vec<_> =
            sent.take(300).map_while(Result::ok).filter(|(s, _)| s.histogram.check().is_ok()).collect();
        let chunks =
            encode_floats(sent.iter().map(|(s, _)| s.clone()), 100).expect("checked histograms are encoded");
        let mut left = sent.iter();
        for chunk in &chunks {
            let count = FloatIter::new(&chunk.bytes).expect("our own bytes").count();
            let these: Vec<_> = left.by_ref().take(count).collect();
            let starts: Vec<Timestamp> = these.iter().map(|(_, start)| *start).collect();
            let started = with_starts(chunk, &starts).expect("a chunk of our own takes starts");
            let mut iter = FloatIter::started(&started.bytes).expect("our own bytes");
            for (sample, start) in these {
                let (read, begun) = iter.next_started().expect("as many").expect("our own samples");
                assert_same(sample, &read);
                assert_eq!(begun, *start);
            }
            assert!(iter.next_started().is_none());
            assert!(chunk::plain(started).is_ok());
        }
        assert!(left.next().is_none());
    }
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
