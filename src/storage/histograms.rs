//! Series of floats and native histograms: two pairs of columns, decoded from chunks of any kind and merged exactly.
//!
//! [`crate::decode_series`] stays the way of those who reckon with floats only and must not overlook a histogram; this is
//! the way of those who know both.
//!
//! # Cost
//! A series without histograms costs what it costs there. Histograms are decoded one by one, with the vectors of each.

use std::cmp::Ordering;

use chunk::Encoding;
use chunk::histogram::{FloatIter, IntIter};
use model::histogram::ResetHint;
use model::{FloatHistogram, Kind, TimeRange, Timestamp, float_wins, histogram_wins};

use crate::columns::{decode_floats, note_start};
use crate::{ChunkData, Columns, Error};

/// Times (ascending, unique) and histograms, side by side.
#[derive(Clone, Debug, Default)]
pub struct HistogramColumns {
    pub timestamps: Vec<Timestamp>,
    /// With absolute float counts, whatever they were stored as.
    pub histograms: Vec<FloatHistogram>,
    /// As [`Columns::starts`].
    pub starts: Vec<Timestamp>,
}

impl HistogramColumns {
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    fn push(&mut self, timestamp: Timestamp, histogram: FloatHistogram) {
        self.timestamps.push(timestamp);
        self.histograms.push(histogram);
        if !self.starts.is_empty() {
            self.starts.push(0);
        }
    }

    fn push_started(&mut self, timestamp: Timestamp, histogram: FloatHistogram, start: Timestamp) {
        self.push(timestamp, histogram);
        note_start(&mut self.starts, self.timestamps.len(), start);
    }
}

/// Appends the samples of `chunks` that lie in `range` to `floats` and `histograms`, each sorted by time, and no time in
/// both. Where chunks differ about a time the answer is the same whatever their order: of two floats
/// [`model::pick_conflict`] decides, of two histograms [`model::compare_conflict`], and of a float and a histogram the one that is
/// no stale marker, else the histogram.
///
/// What a histogram says of resets holds for the one before it in its chunk, so that where chunks overlap nothing is said.
pub fn decode_mixed(
    chunks: &[ChunkData],
    range: TimeRange,
    floats: &mut Columns,
    histograms: &mut HistogramColumns,
) -> Result<(), Error> {
    let (first_float, first) = (floats.len(), histograms.len());
    let is_float = |c: &&ChunkData| matches!(c.encoding, Encoding::Xor | Encoding::Xor2);
    decode_floats(chunks.iter().filter(is_float), range, floats)?;
    let mut others: Vec<_> = chunks.iter().filter(|c| !is_float(c) && c.range.overlaps(&range)).collect();
    others.sort_by_key(|c| (c.range.start, c.range.end));
    let mut tangled = false;
    for chunk in others {
        let mut push = |timestamp: Timestamp, histogram: FloatHistogram, start: Timestamp| {
            if range.contains(timestamp) {
                tangled |= histograms.timestamps[first..].last().is_some_and(|last| *last >= timestamp);
                histograms.push_started(timestamp, histogram, start);
            }
        };
        match chunk.encoding {
            Encoding::Histogram => {
                for sample in IntIter::new(&chunk.bytes).map_err(corrupt)? {
                    let sample = sample.map_err(corrupt)?;
                    push(sample.timestamp, sample.histogram.to_float(), 0);
                }
            }
            Encoding::FloatHistogram => {
                for sample in FloatIter::new(&chunk.bytes).map_err(corrupt)? {
                    let sample = sample.map_err(corrupt)?;
                    push(sample.timestamp, sample.histogram, 0);
                }
            }
            Encoding::HistogramStart => {
                let mut samples = IntIter::started(&chunk.bytes).map_err(corrupt)?;
                while let Some(sample) = samples.next_started() {
                    let (sample, start) = sample.map_err(corrupt)?;
                    push(sample.timestamp, sample.histogram.to_float(), start);
                }
            }
            Encoding::FloatHistogramStart => {
                let mut samples = FloatIter::started(&chunk.bytes).map_err(corrupt)?;
                while let Some(sample) = samples.next_started() {
                    let (sample, start) = sample.map_err(corrupt)?;
                    push(sample.timestamp, sample.histogram, start);
                }
            }
            Encoding::Xor | Encoding::Xor2 => {}
            Encoding::Aggregate => {
                return Err(Error::new(
                    Kind::Refused,
                    "a downsampled chunk cannot be evaluated by this version",
                ));
            }
        }
    }
    if tangled {
        untangle(histograms, first);
    }
    if floats.len() > first_float && histograms.len() > first {
        one_per_time(floats, first_float, histograms, first);
    }
    Ok(())
}

fn corrupt(error: chunk::Error) -> Error {
    Error::with_source(Kind::Corrupt, format!("chunk does not decode: {error}"), error)
}

fn untangle(out: &mut HistogramColumns, first: usize) {
    let mut starts = out.starts.split_off(first.min(out.starts.len()));
    starts.resize(out.timestamps.len() - first, 0);
    let times = out.timestamps.drain(first..);
    let mut samples: Vec<_> =
        times.zip(out.histograms.drain(first..)).zip(starts).map(|((t, h), start)| (t, h, start)).collect();
    samples.sort_by_key(|(t, ..)| *t);
    for (t, mut histogram, start) in samples {
        if histogram.hint != ResetHint::Gauge {
            histogram.hint = ResetHint::Unknown;
        }
        let last = out.timestamps[first..].last().copied();
        match out.histograms.last_mut() {
            Some(kept) if last == Some(t) => {
                if histogram_wins(&histogram, kept) {
                    *kept = histogram;
                }
                let count = out.timestamps.len();
                let known = out.starts.get(count - 1).copied().unwrap_or(0);
                note_start(&mut out.starts, count, known.max(start));
            }
            _ => out.push_started(t, histogram, start),
        }
    }
}

/// Where a time is in both, one of them is dropped.
fn one_per_time(floats: &mut Columns, first_float: usize, histograms: &mut HistogramColumns, first: usize) {
    let (mut f, mut h) = (first_float, first);
    let (mut drop_floats, mut drop_histograms) = (Vec::new(), Vec::new());
    while let (Some(tf), Some(th)) = (floats.timestamps.get(f), histograms.timestamps.get(h)) {
        match tf.cmp(th) {
            Ordering::Less => f += 1,
            Ordering::Greater => h += 1,
            Ordering::Equal => {
                if float_wins(floats.values[f], histograms.histograms[h].is_stale()) {
                    drop_histograms.push(h);
                } else {
                    drop_floats.push(f);
                }
                (f, h) = (f + 1, h + 1);
            }
        }
    }
    remove(&mut floats.timestamps, &drop_floats);
    remove(&mut floats.values, &drop_floats);
    remove(&mut floats.starts, &drop_floats);
    remove(&mut histograms.timestamps, &drop_histograms);
    remove(&mut histograms.histograms, &drop_histograms);
    remove(&mut histograms.starts, &drop_histograms);
}

/// Removes the items at ascending indices.
fn remove<T>(list: &mut Vec<T>, dropped: &[usize]) {
    let (mut at, mut next) = (0, 0);
    list.retain(|_| {
        let gone = dropped.get(next) == Some(&at);
        next += usize::from(gone);
        at += 1;
        !gone
    });
}

#[cfg(test)]
mod tests {
    use chunk::histogram::{At, encode_floats, encode_ints};
    use model::histogram::{Histogram, Span};
    use model::{Sample, stale_nan};

    use super::*;

    fn histogram(counts: &[i64]) -> Histogram {
        let mut before = 0;
        Histogram {
            count: counts.iter().sum::<i64>() as u64,
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive_deltas: counts.iter().map(|c| c - std::mem::replace(&mut before, *c)).collect(),
            ..Histogram::default()
        }
    }

    fn at(timestamp: Timestamp, counts: &[i64]) -> At<Histogram> {
        At { timestamp, histogram: histogram(counts) }
    }

    fn stale(timestamp: Timestamp) -> At<Histogram> {
        At { timestamp, histogram: Histogram { sum: stale_nan(), ..Histogram::default() } }
    }

    fn floats(samples: &[(Timestamp, f64)]) -> ChunkData {
        let bytes = chunk::xor::encode(samples.iter().map(|&(timestamp, value)| Sample { timestamp, value }));
        ChunkData {
            range: TimeRange::new(samples[0].0, samples[samples.len() - 1].0),
            encoding: Encoding::Xor,
            bytes: bytes.unwrap().into(),
        }
    }

    type Read = (Vec<(Timestamp, f64)>, Vec<(Timestamp, FloatHistogram, ResetHint)>);

    fn read(chunks: &[ChunkData], range: TimeRange) -> Read {
        let (mut floats, mut histograms) = (Columns::default(), HistogramColumns::default());
        // What is there already stays as it is.
        floats.push(99, 9.0);
        histograms.push(99, FloatHistogram::default());
        decode_mixed(chunks, range, &mut floats, &mut histograms).unwrap();
        let pairs = floats.timestamps.into_iter().zip(floats.values).skip(1).collect();
        let rows = histograms.timestamps.into_iter().zip(histograms.histograms).skip(1);
        (pairs, rows.map(|(t, h)| (t, h.clone(), h.hint)).collect())
    }

    /// The same in every order of the chunks.
    fn read_all_ways(chunks: &[ChunkData]) -> Read {
        let expected = read(chunks, TimeRange::ALL);
        for turn in 1..chunks.len() {
            let mut turned = chunks.to_vec();
            turned.rotate_left(turn);
            assert_eq!(format!("{:?}", read(&turned, TimeRange::ALL)), format!("{expected:?}"));
        }
        let reversed: Vec<_> = chunks.iter().rev().cloned().collect();
        assert_eq!(format!("{:?}", read(&reversed, TimeRange::ALL)), format!("{expected:?}"));
        expected
    }

    #[test]
    fn both_kinds_of_counts_and_floats_in_one_series() {
        let ints = encode_ints([at(10, &[1, 2]), at(20, &[2, 2])], 120).unwrap();
        let half = |t, counts: &[i64]| At { timestamp: t, histogram: histogram(counts).to_float() };
        let halves = encode_floats([half(30, &[3, 3]), half(40, &[4, 4])], 120).unwrap();
        let chunks = [ints, halves, vec![floats(&[(1, 1.0), (2, 2.0)])]].concat();
        let (f, h) = read(&chunks, TimeRange::ALL);
        assert_eq!(f, [(1, 1.0), (2, 2.0)]);
        assert_eq!(h.iter().map(|r| r.0).collect::<Vec<_>>(), [10, 20, 30, 40]);
        assert_eq!(h[3].1, histogram(&[4, 4]).to_float());
        let hints: Vec<_> = h.iter().map(|r| r.2).collect();
        use ResetHint::{NotReset, Unknown};
        assert_eq!(hints, [Unknown, NotReset, Unknown, NotReset]);
        let (f, h) = read(&chunks, TimeRange::new(2, 20));
        assert_eq!((f.len(), h.len()), (1, 2));
    }

    #[test]
    fn copies_are_one_and_conflicts_do_not_depend_on_order() {
        let a = encode_ints([at(10, &[1, 2]), at(20, &[2, 2]), at(30, &[2, 3])], 120).unwrap();
        // The same, with room for one more bucket, a sample between, and another value at 30.
        let b = encode_ints([at(10, &[1, 2, 0]), at(15, &[1, 2, 1]), at(30, &[2, 3, 9])], 120).unwrap();
        let marker = encode_ints([stale(20)], 120).unwrap();
        let (_, h) = read_all_ways(&[a, b, marker].concat());
        assert_eq!(h.iter().map(|r| r.0).collect::<Vec<_>>(), [10, 15, 20, 30]);
        assert_eq!(h[0].1.positive_counts, [1.0, 2.0]);
        assert_eq!(h[2].1.positive_counts, [2.0, 2.0]);
        assert_eq!(h[3].1.count, 14.0);
        assert!(h.iter().all(|r| r.2 == ResetHint::Unknown), "nothing is known of resets between chunks");
    }

    #[test]
    fn a_time_is_a_float_or_a_histogram() {
        let h = encode_ints([at(10, &[1]), at(20, &[2]), stale(30)], 120).unwrap();
        let chunks = [h, vec![floats(&[(10, 1.0), (20, stale_nan()), (30, 3.0), (40, 4.0)])]].concat();
        let (f, h) = read_all_ways(&chunks);
        assert_eq!(f, [(30, 3.0), (40, 4.0)]);
        assert_eq!(h.iter().map(|r| r.0).collect::<Vec<_>>(), [10, 20]);
    }

    #[test]
    fn damage_is_told_and_aggregates_are_refused() {
        let mut chunk = encode_ints([at(10, &[1]), at(20, &[2])], 120).unwrap().remove(0);
        let try_read = |chunk: &ChunkData| {
            let (mut floats, mut histograms) = (Columns::default(), HistogramColumns::default());
            let chunks = std::slice::from_ref(chunk);
            decode_mixed(chunks, TimeRange::ALL, &mut floats, &mut histograms).unwrap_err().kind
        };
        chunk.bytes = chunk.bytes.slice(..5);
        assert_eq!(try_read(&chunk), Kind::Corrupt);
        chunk.encoding = Encoding::Aggregate;
        assert_eq!(try_read(&chunk), Kind::Refused);
    }
}
