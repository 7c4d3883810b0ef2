//! A series' samples of any kind as one list in order of time; histograms stay of the kind they were stored as.
//!
//! Evaluation turns every histogram into one with float counts; a remote reader is to get what was written. Series of
//! floats alone do not come here.

use chunk::histogram::{FloatIter, IntIter};
use chunk::{Encoding, plain};
use model::histogram::ResetHint;
use model::{Kind, Native, TimeRange, Timestamp, float_wins, native_wins, pick_conflict};
use storage::{ChunkData, Error};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Point {
    Float(f64),
    Histogram(Native),
}

/// Whether a chunk is of floats.
pub(super) fn is_float(chunk: &ChunkData) -> bool {
    matches!(chunk.encoding, Encoding::Xor | Encoding::Xor2)
}

/// The samples of `chunks` in `range`, each time once. Where chunks differ about a time the rules are those of
/// [`storage::decode_mixed`]; where they overlap, nothing is said of resets.
pub(super) fn points(chunks: &[ChunkData], range: TimeRange) -> Result<Vec<(Timestamp, Point)>, Error> {
    let mut sorted: Vec<_> = chunks.iter().filter(|c| c.range.overlaps(&range)).collect();
    sorted.sort_by_key(|c| (c.start(), c.end()));
    let mut out: Vec<(Timestamp, Point)> = Vec::new();
    let mut tangled = false;
    for chunk in sorted {
        for chunk in plain(chunk.clone()).map_err(corrupt)? {
            let mut push = |t: Timestamp, point: Point| {
                if range.contains(t) {
                    tangled |= out.last().is_some_and(|(last, _)| *last >= t);
                    out.push((t, point));
                }
            };
            match chunk.encoding {
                Encoding::Xor => {
                    for sample in chunk::xor::Iter::new(&chunk.bytes).map_err(corrupt)? {
                        let sample = sample.map_err(corrupt)?;
                        push(sample.timestamp, Point::Float(sample.value));
                    }
                }
                Encoding::Histogram => {
                    for sample in IntIter::new(&chunk.bytes).map_err(corrupt)? {
                        let sample = sample.map_err(corrupt)?;
                        push(sample.timestamp, Point::Histogram(Native::Whole(sample.histogram)));
                    }
                }
                Encoding::FloatHistogram => {
                    for sample in FloatIter::new(&chunk.bytes).map_err(corrupt)? {
                        let sample = sample.map_err(corrupt)?;
                        push(sample.timestamp, Point::Histogram(Native::Float(sample.histogram)));
                    }
                }
                other => {
                    let text = format!("chunks of encoding {other:?} cannot be read remotely");
                    return Err(Error::new(Kind::Refused, text));
                }
            }
        }
    }
    Ok(if tangled { untangle(out) } else { out })
}

fn corrupt(error: chunk::Error) -> Error {
    Error::with_source(Kind::Corrupt, format!("chunk does not decode: {error}"), error)
}

fn untangle(mut points: Vec<(Timestamp, Point)>) -> Vec<(Timestamp, Point)> {
    points.sort_by_key(|(t, _)| *t);
    let mut out: Vec<(Timestamp, Point)> = Vec::with_capacity(points.len());
    let mut rest = points.into_iter().peekable();
    while let Some((t, first)) = rest.next() {
        // Of each kind the best, and then the better of these: the same whatever the order.
        let (mut float, mut native) = (None, None);
        let mut meet = |point| match point {
            Point::Float(new) => float = Some(float.map_or(new, |kept| pick_conflict(kept, new))),
            Point::Histogram(mut new) => {
                if new.hint() != ResetHint::Gauge {
                    new.set_hint(ResetHint::Unknown);
                }
                if native.as_ref().is_none_or(|kept| native_wins(&new, kept)) {
                    native = Some(new);
                }
            }
        };
        meet(first);
        while let Some((_, next)) = rest.next_if(|(other, _)| *other == t) {
            meet(next);
        }
        out.push((
            t,
            match (float, native) {
                (Some(float), Some(native)) if float_wins(float, native.is_stale()) => Point::Float(float),
                (_, Some(native)) => Point::Histogram(native),
                (Some(float), None) => Point::Float(float),
                (None, None) => continue,
            },
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use chunk::histogram::{At, encode_floats, encode_ints};
    use model::histogram::{Histogram, Span};

    use super::*;

    fn histogram(count: i64) -> Histogram {
        Histogram {
            count: count as u64,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_deltas: vec![count],
            ..Histogram::default()
        }
    }

    #[test]
    fn kinds_stay_and_each_time_is_there_once() {
        let at = |timestamp, count| At { timestamp, histogram: histogram(count) };
        let half = |timestamp, count| At { timestamp, histogram: histogram(count).to_float() };
        let a = encode_ints([at(10, 1), at(20, 2), at(40, 4)], 120).unwrap();
        let b = encode_ints([at(10, 1), at(30, 3)], 120).unwrap();
        let c = encode_floats([half(40, 9), half(50, 5)], 120).unwrap();
        let floats = [(5, 0.5), (50, 1.0)].map(|(timestamp, value)| model::Sample { timestamp, value });
        let d = vec![ChunkData {
            range: TimeRange::new(5, 50),
            encoding: Encoding::Xor,
            bytes: chunk::xor::encode(floats).unwrap().into(),
        }];
        let mut chunks = [a, b, c, d].concat();
        let read = points(&chunks, TimeRange::new(6, 100)).unwrap();
        let times: Vec<_> = read.iter().map(|(t, _)| *t).collect();
        assert_eq!(times, [10, 20, 30, 40, 50]);
        assert!(matches!(&read[0].1, Point::Histogram(Native::Whole(h)) if h.count == 1));
        assert!(matches!(&read[3].1, Point::Histogram(Native::Float(h)) if h.count == 9.0));
        assert!(matches!(&read[4].1, Point::Histogram(Native::Float(_))));
        chunks.reverse();
        assert_eq!(points(&chunks, TimeRange::new(6, 100)).unwrap(), read);
    }
}
