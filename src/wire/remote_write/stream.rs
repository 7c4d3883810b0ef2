//! Walks a `prometheus.WriteRequest` series by series for callers who recognise labels by their raw bytes.
//!
//! A caller that knows how long the labels of the next series should be asks for that stretch, recognises it,
//! and reads only the samples behind it. Whatever does not look as predicted is read in full, with the same
//! result as [`super::decode_v1`]: a stretch that parsed as labels once parses as the same labels again. Series with
//! more than labels and samples are always read in full, into columns that hold these series of the whole request
//! and its metadata.
//!
//! # Cost
//! Of a recognised series only keys and samples are looked at. No allocation once the columns have grown.

use std::ops::Range;

use model::Sample;

use super::columns::{DecodedV1, LabelFault, Series};
use super::decode::{LABEL_KEY, push_series, sample, usual_label, usual_sample};
use super::{Limits, columns, extras};
use crate::WireError;
use crate::walk::{Walk, Wire};

/// Key of a series in a request.
const SERIES_KEY: u8 = 1 << 3 | 2;

/// A place among the series of a decompressed body.
pub struct RequestWalk<'a> {
    walk: Walk<'a>,
    limits: Limits,
    series: usize,
    /// Whether field 3 is metadata, as at the door.
    has_metadata: bool,
}

/// One series of a body, not yet read.
#[derive(Clone, Copy, Debug)]
pub struct SeriesAt {
    start: usize,
    end: usize,
}

impl<'a> RequestWalk<'a> {
    /// Clears `columns`, to which what is read in full is added.
    pub fn new(
        body: &'a [u8],
        limits: &Limits,
        columns: &mut DecodedV1,
    ) -> Result<RequestWalk<'a>, WireError> {
        columns.clear(limits);
        if u32::try_from(body.len()).is_err() {
            return Err(WireError::refused(format!("write request too large: {} bytes", body.len())));
        }
        Ok(RequestWalk { walk: Walk::new(body), limits: *limits, series: 0, has_metadata: true })
    }

    /// As [`RequestWalk::new`] for a stretch of a peer's request, of which only fields 1 count.
    pub fn of_peer(
        body: &'a [u8],
        limits: &Limits,
        columns: &mut DecodedV1,
    ) -> Result<RequestWalk<'a>, WireError> {
        Ok(RequestWalk { has_metadata: false, ..RequestWalk::new(body, limits, columns)? })
    }

    /// The next series; none at the end of the body. Metadata on the way goes into `columns`.
    #[inline]
    pub fn next_series(&mut self, columns: &mut DecodedV1) -> Result<Option<SeriesAt>, WireError> {
        while !self.walk.is_done() {
            // Nearly all fields are series, and their key is one byte.
            let is_usual = self.walk.bytes.get(self.walk.at) == Some(&SERIES_KEY);
            let (field, wire) = match is_usual {
                true => {
                    self.walk.at += 1;
                    (1, Wire::Bytes)
                }
                false => self.walk.key()?,
            };
            match field {
                1 => {
                    self.walk.expect(wire, Wire::Bytes, "a time series")?;
                    let inner = self.walk.enter()?;
                    columns::check_series_count(self.series, &self.limits)?;
                    self.series += 1;
                    return Ok(Some(SeriesAt { start: inner.at, end: inner.end }));
                }
                3 if self.has_metadata => {
                    self.walk.expect(wire, Wire::Bytes, "metadata")?;
                    let metadata = extras::metadata_v1(self.walk.enter()?)?;
                    columns.push_metadata(metadata);
                }
                _ => self.walk.skip(field, wire)?,
            }
        }
        Ok(None)
    }

    /// The first `len` bytes of a series, if its labels can end there.
    #[inline]
    pub fn predicted(&self, series: SeriesAt, len: usize) -> Option<&'a [u8]> {
        let message = &self.walk.bytes[series.start..series.end];
        let region = message.get(..len)?;
        match message.get(len) {
            Some(&LABEL_KEY) => None,
            _ => Some(region),
        }
    }

    /// The bytes of a series' labels, found by their lengths; none where it does not begin with labels.
    #[inline]
    pub fn labels(&self, series: SeriesAt) -> Option<&'a [u8]> {
        let mut walk = Walk { bytes: self.walk.bytes, at: series.start, end: series.end };
        while walk.at < walk.end && walk.bytes[walk.at] == LABEL_KEY {
            walk.at += 1;
            walk.enter().ok()?;
        }
        (walk.at > series.start).then(|| &self.walk.bytes[series.start..walk.at])
    }

    /// Where the first `len` bytes of a series lie in the body.
    pub fn place(&self, series: SeriesAt, len: usize) -> Range<u32> {
        series.start as u32..(series.start + len) as u32
    }

    /// Reads what stands behind labels of `labels_len` bytes and appends its samples to `out`. False if there is
    /// anything else, such as more labels: the series must then be read in full, and what was appended be dropped.
    #[inline]
    pub fn samples(
        &self,
        series: SeriesAt,
        labels_len: usize,
        out: &mut Vec<Sample>,
    ) -> Result<bool, WireError> {
        let mut walk = Walk { bytes: self.walk.bytes, at: series.start + labels_len, end: series.end };
        while !walk.is_done() {
            if let Some(sample) = usual_sample(&mut walk) {
                out.push(sample);
                continue;
            }
            let (field, wire) = walk.key()?;
            match field {
                2 => {
                    walk.expect(wire, Wire::Bytes, "a sample")?;
                    out.push(sample(walk.enter()?)?);
                }
                1 | 3 | 4 => return Ok(false),
                _ => walk.skip(field, wire)?,
            }
        }
        Ok(true)
    }

    /// Reads a series in full, as the last one of `columns`.
    pub fn read<'c>(
        &self,
        series: SeriesAt,
        columns: &'c mut DecodedV1,
    ) -> Result<Option<&'c Series>, WireError> {
        push_series(
            Walk { bytes: self.walk.bytes, at: series.start, end: series.end },
            &self.limits,
            columns,
        )?;
        Ok(columns.series().last())
    }
}

/// Writes the labels of a stretch of label fields ([`Series::raw_labels`]) to `out`, which is cleared first, as
/// [`DecodedV1::canonical`] does. `columns` is room to work in.
pub fn canonical_labels(
    region: &[u8],
    limits: &Limits,
    columns: &mut DecodedV1,
    out: &mut Vec<u8>,
) -> Result<(), LabelFault> {
    out.clear();
    if in_order(region, out) {
        return Ok(());
    }
    columns.clear(limits);
    if push_series(Walk::new(region), &Limits { max_series: usize::MAX, ..*limits }, columns).is_err() {
        out.clear();
        return Err(LabelFault::None);
    }
    match columns.series.pop() {
        Some(series) => columns.canonical(&series, region, out),
        None => Err(LabelFault::None),
    }
}

/// Copies labels that are ASCII, sorted, not empty, and each in the usual form; false for others.
fn in_order(region: &[u8], out: &mut Vec<u8>) -> bool {
    if region.len() > model::MAX_LABELS_BYTES || !region.is_ascii() {
        return false;
    }
    let mut walk = Walk::new(region);
    let mut last: &[u8] = b"";
    while let Some((pair, next)) = usual_label(&walk) {
        let span = |(start, end): (u32, u32)| region.get(start as usize - 1..end as usize);
        let (Some(name), Some(value)) = (span(pair.name), span(pair.value)) else { return false };
        if name[1..] <= *last || value.len() == 1 {
            return false;
        }
        last = &name[1..];
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        walk.at = next;
    }
    walk.is_done() && !out.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Metadata, decode_v1, encode_v1};
    use super::*;

    /// Everything of a request.
    #[derive(Debug, PartialEq, Default)]
    struct Seen {
        labels: Vec<Result<Vec<u8>, LabelFault>>,
        samples: Vec<Vec<(i64, u64)>>,
        /// As text, because a NaN is not what it is.
        others: Vec<String>,
        metadata: Vec<Metadata>,
        metadata_count: u32,
    }

    impl Seen {
        fn add(&mut self, columns: &DecodedV1, series: &Series, body: &[u8]) {
            let mut labels = Vec::new();
            let result = columns.canonical(series, body, &mut labels);
            self.labels.push(result.map(|()| labels));
            self.samples.push(bits(columns.samples_of(series)));
            let exemplars = columns.exemplars_of(series).iter();
            let exemplars: Vec<_> = exemplars.map(|e| (e.value.to_bits(), e.timestamp, e.fault)).collect();
            self.others.push(format!("{:?} {exemplars:?}", columns.histograms_of(series)));
        }
    }

    fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
        samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect()
    }

    fn whole(body: &[u8], limits: &Limits) -> Result<Seen, String> {
        let mut out = DecodedV1::default();
        decode_v1(body, limits, &mut out).map_err(|e| e.message)?;
        let metadata = out.metadata().to_vec();
        let mut seen = Seen { metadata, metadata_count: out.metadata_count(), ..Seen::default() };
        out.series().iter().for_each(|series| seen.add(&out, series, body));
        Ok(seen)
    }

    /// As a caller who knows every stretch of labels that ever parsed, and nothing else.
    fn streamed(body: &[u8], limits: &Limits, known: &mut Vec<Vec<u8>>) -> Result<Seen, String> {
        let (mut full, mut room) = (DecodedV1::default(), DecodedV1::default());
        let mut walk = RequestWalk::new(body, limits, &mut full).map_err(|e| e.message)?;
        let mut seen = Seen::default();
        while let Some(at) = walk.next_series(&mut full).map_err(|e| e.message)? {
            let mut samples = Vec::new();
            let predicted = known
                .iter()
                .find_map(|region| walk.predicted(at, region.len()).filter(|stretch| stretch == region));
            let found = predicted.or_else(|| walk.labels(at).filter(|r| known.iter().any(|k| k == r)));
            if let Some(region) = found
                && walk.samples(at, region.len(), &mut samples).map_err(|e| e.message)?
            {
                let mut labels = Vec::new();
                let result = canonical_labels(region, limits, &mut room, &mut labels);
                seen.labels.push(result.map(|()| labels));
                seen.samples.push(bits(&samples));
                seen.others.push("[] []".to_owned());
                continue;
            }
            let series = walk.read(at, &mut full).map_err(|e| e.message)?.cloned().unwrap();
            seen.add(&full, &series, body);
            if seen.labels.last().is_some_and(Result::is_ok) && !series.raw_labels().is_empty() {
                known.push(body[series.raw_labels()].to_vec());
            }
        }
        seen.metadata = full.metadata().to_vec();
        seen.metadata_count = full.metadata_count();
        Ok(seen)
    }

    fn check(body: &[u8], limits: &Limits) {
        let want = whole(body, limits);
        let mut known = Vec::new();
        for round in 0..3 {
            let got = streamed(body, limits, &mut known);
            assert_eq!(got, want, "round {round}");
        }
    }

    fn label() -> impl Strategy<Value = (String, String)> {
        let text = prop_oneof!["[a-c]{0,2}", "é{0,2}", Just("x".repeat(130))];
        ("[a-c]{0,2}", text)
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let sample = (any::<i64>(), any::<u64>())
            .prop_map(|(timestamp, bits)| Sample { timestamp, value: f64::from_bits(bits) });
        let series = (proptest::collection::vec(label(), 0..4), proptest::collection::vec(sample, 0..3));
        proptest::collection::vec(series, 0..5).prop_map(|all| {
            let mut body = Vec::new();
            let borrowed = all.iter().map(|(labels, samples)| {
                (labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), samples.iter().copied())
            });
            encode_v1(borrowed, &mut body);
            body
        })
    }

    proptest! {
        #[test]
        fn streamed_is_whole_for_requests(body in request(), again in request()) {
            check(&[body.clone(), again, body].concat(), &Limits::default());
        }

        #[test]
        fn streamed_is_whole_for_damaged_requests(
            body in request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
        ) {
            let mut damaged = [body.clone(), body.clone()].concat();
            if !damaged.is_empty() {
                let at = at.index(damaged.len());
                damaged[at] = byte;
            }
            damaged.extend(&body[..cut.index(body.len() + 1)]);
            check(&damaged, &Limits { max_series: 9, max_labels: 3, ..Limits::default() });
        }

        #[test]
        fn streamed_is_whole_for_any_bytes(body in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(0x0a), Just(0x12), Just(0x1a), Just(0x22), Just(0), Just(1), Just(2), Just(4)
        ], 0..60)) {
            check(&body, &Limits { max_series: 9, max_labels: 3, ..Limits::default() });
        }
    }

    #[test]
    fn labels_behind_samples_and_between_them_are_found() {
        let label = |name: &[u8]| {
            [&[0x0a, 2 + name.len() as u8 + 3, 0x0a, name.len() as u8], name, &[0x12, 1, b'v']].concat()
        };
        let sample = [0x12, 2, 0x10, 5];
        let series = |parts: &[&[u8]]| {
            let message = parts.concat();
            [&[0x0a, message.len() as u8][..], &message].concat()
        };
        let (a, b) = (label(b"a"), label(b"b"));
        let body = [
            series(&[&a, &sample]),
            series(&[&a, &b, &sample]),
            series(&[&a, &sample, &b]),
            series(&[&sample, &a]),
            series(&[&sample, &a, &b]),
            series(&[&a, &[0x8a, 0x00, b.len() as u8 - 2], &b[2..], &sample]),
            series(&[&a]),
            series(&[&a, &sample, &[0x1a, 2, 0x18, 7]]),
            series(&[&a, &sample, &[0x22, 2, 0x78, 7]]),
            vec![0x1a, 4, 0x12, 2, b'x', b'y'],
        ]
        .concat();
        let seen = whole(&body, &Limits::default()).unwrap();
        assert_eq!(seen.labels.iter().filter(|l| l.is_ok()).count(), 9);
        check(&body, &Limits::default());
    }
}
