//! Walks an `io.prometheus.write.v2.Request` by hand into the columns of version 1.0: every text is a symbol, and a
//! symbol is a range of the body like any other text.
//!
//! Rules beyond protobuf's own, each of which spoils its series and not the request: label references come in pairs and lie
//! within the table, as do those of metadata. Labels may come in any order; who makes them canonical sorts.

use model::Timestamp;

use super::columns::{DecodedV1, LabelPair, Series, SeriesFault};
use super::extras::{self, Exemplar, ExemplarLabels, Metadata, Subject, varints};
use super::{Limits, columns};
use crate::WireError;
use crate::walk::{Walk, Wire};

/// Symbols of one request; a sender that batches ten thousand series needs a tenth of it.
const MAX_SYMBOLS: usize = 1 << 20;

/// A decoded request, used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct DecodedV2 {
    /// Series and samples, as of version 1.0; [`Series::raw_labels`] is always empty.
    pub columns: DecodedV1,
    symbols: Vec<(u32, u32)>,
    /// Which symbols are not UTF-8, ascending.
    bad_symbols: Vec<u32>,
    /// References of the labels of all series, and where those of each series end.
    refs: Vec<u32>,
    ref_ends: Vec<u32>,
}

impl DecodedV2 {
    /// When counting started for the sample at this index of [`DecodedV1::samples`], in milliseconds; 0 where the
    /// sender does not say.
    pub fn start_timestamp(&self, sample: usize) -> Timestamp {
        self.columns.start_timestamp(sample)
    }

    /// Symbols of the request.
    pub fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// The symbols, in the order of their numbers.
    pub fn symbols<'a>(&'a self, body: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let text = |(start, end): &(u32, u32)| body.get(*start as usize..*end as usize).unwrap_or_default();
        self.symbols.iter().map(text)
    }

    /// Numbers of the symbols that are the labels of a series of [`DecodedV1::series`], as they were sent. Within the
    /// table unless the series has a fault.
    pub fn references(&self, series: usize) -> &[u32] {
        let end = |at: usize| self.ref_ends.get(at).map_or(0, |end| *end as usize);
        let start = series.checked_sub(1).map_or(0, end);
        self.refs.get(start..end(series)).unwrap_or_default()
    }

    /// Bytes that the columns hold on to between requests.
    pub fn capacity_bytes(&self) -> usize {
        self.columns.capacity_bytes()
            + self.symbols.capacity() * size_of::<(u32, u32)>()
            + (self.bad_symbols.capacity() + self.refs.capacity() + self.ref_ends.capacity())
                * size_of::<u32>()
    }

    fn clear(&mut self, limits: &Limits) {
        self.columns.clear(limits);
        self.symbols.clear();
        self.bad_symbols.clear();
        self.refs.clear();
        self.ref_ends.clear();
    }
}

/// Reads a decompressed body into `out`, which is cleared first and holds nothing of use after an error.
pub fn decode_v2(body: &[u8], limits: &Limits, out: &mut DecodedV2) -> Result<(), WireError> {
    out.clear(limits);
    if u32::try_from(body.len()).is_err() {
        return Err(WireError::refused(format!("write request too large: {} bytes", body.len())));
    }
    // Nothing says that the table comes before the series that refer to it.
    let mut walk = Walk::new(body);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        if field != 4 {
            walk.skip(field, wire)?;
            continue;
        }
        walk.expect(wire, Wire::Bytes, "a symbol")?;
        let text = walk.enter()?;
        if out.symbols.len() >= MAX_SYMBOLS {
            return Err(WireError::refused(format!(
                "write request has more than {MAX_SYMBOLS} symbols; send fewer series per request"
            )));
        }
        if std::str::from_utf8(&body[text.at..text.end]).is_err() {
            out.bad_symbols.push(out.symbols.len() as u32);
        }
        out.symbols.push((text.at as u32, text.end as u32));
    }
    let mut walk = Walk::new(body);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            5 => {
                walk.expect(wire, Wire::Bytes, "a time series")?;
                push_series(walk.enter()?, limits, out)?;
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(())
}

fn push_series(mut walk: Walk<'_>, limits: &Limits, out: &mut DecodedV2) -> Result<(), WireError> {
    columns::check_series_limit(&out.columns, limits)?;
    let first_label = out.columns.labels.len() as u32;
    let first_sample = out.columns.samples.len() as u32;
    let first_histogram = out.columns.histograms.len() as u32;
    let first_exemplar = out.columns.exemplars.len() as u32;
    let mut metadata = None;
    let mut refs = std::mem::take(&mut out.refs);
    let mut references =
        References { refs: &mut refs, left: limits.max_labels.saturating_mul(2), many: false };
    let first_ref = references.refs.len();
    while !walk.is_done() {
        if let Some(sample) = super::decode::usual_sample(&mut walk) {
            out.columns.push_sample((sample, 0));
            continue;
        }
        let (field, wire) = walk.key()?;
        match field {
            1 => references.take(&mut walk, wire)?,
            2 => {
                walk.expect(wire, Wire::Bytes, "a sample")?;
                let sample = super::decode::sample_with_start(walk.enter()?)?;
                out.columns.push_sample(sample);
            }
            3 => {
                walk.expect(wire, Wire::Bytes, "a histogram")?;
                out.columns.push_histogram(walk.enter()?)?;
            }
            4 => {
                walk.expect(wire, Wire::Bytes, "an exemplar")?;
                push_exemplar(walk.enter()?, out)?;
            }
            5 => {
                walk.expect(wire, Wire::Bytes, "metadata")?;
                metadata = Some(metadata_v2(walk.enter()?, metadata)?);
            }
            _ => walk.skip(field, wire)?,
        }
    }
    let too_many = references.many;
    let mut fault =
        resolve(&refs[first_ref..], &out.symbols, &out.bad_symbols, &mut out.columns.labels).err();
    out.ref_ends.push(refs.len() as u32);
    out.refs = refs;
    if too_many {
        fault = Some(SeriesFault::TooManyLabels);
    }
    if let Some(raw) = metadata {
        let symbol = |at: u32| out.symbols.get(at as usize).copied();
        match (symbol(raw.help), symbol(raw.unit)) {
            (Some(help), Some(unit)) => {
                let subject = Subject::Series(out.columns.series.len() as u32);
                out.columns.push_metadata(Metadata { kind: raw.kind, subject, help, unit });
            }
            // A request without symbols may still have metadata of defaults.
            _ if raw.help == 0 && raw.unit == 0 => {}
            _ => fault = fault.or(Some(SeriesFault::MetadataReference)),
        }
    }
    let columns = &mut out.columns;
    let histograms = columns.histograms.len() as u32 - first_histogram;
    let exemplars = columns.exemplars.len() as u32 - first_exemplar;
    columns.series.push(Series {
        labels: first_label..columns.labels.len() as u32,
        samples: first_sample..columns.samples.len() as u32,
        raw_labels: 0..0,
        first_histogram,
        first_exemplar,
        histograms,
        exemplars,
        fault,
    });
    Ok(())
}

fn push_exemplar(walk: Walk<'_>, out: &mut DecodedV2) -> Result<(), WireError> {
    columns::check_exemplar_limit(&out.columns)?;
    let mut refs = Vec::new();
    let mut references = References { refs: &mut refs, left: extras::MAX_EXEMPLAR_LABELS * 2, many: false };
    let (value, timestamp) = extras::exemplar(walk, &mut references)?;
    let too_many = references.many;
    let first = out.columns.exemplar_labels.len() as u32;
    let mut fault = resolve(&refs, &out.symbols, &out.bad_symbols, &mut out.columns.exemplar_labels).err();
    if too_many {
        fault = Some(SeriesFault::TooManyLabels);
    }
    let labels = first..out.columns.exemplar_labels.len() as u32;
    out.columns.exemplars.push(Exemplar { labels, value, timestamp, fault });
    Ok(())
}

/// References of labels, packed or not, in as many pieces as they come.
struct References<'a> {
    refs: &'a mut Vec<u32>,
    left: usize,
    many: bool,
}

impl ExemplarLabels for References<'_> {
    fn take(&mut self, walk: &mut Walk<'_>, wire: Wire) -> Result<(), WireError> {
        if wire != Wire::Bytes {
            return varints(walk, wire, &mut usize::MAX.clone(), |reference| self.push(reference));
        }
        let mut inner = walk.enter()?;
        // Each takes a byte at least: where they cannot be too many, nobody counts.
        if inner.end - inner.at > self.left {
            while !inner.is_done() {
                let reference = inner.varint()?;
                self.push(reference);
            }
            return Ok(());
        }
        let before = self.refs.len();
        self.refs.reserve(inner.end - inner.at);
        while inner.at < inner.end {
            // Nearly all take one byte or two.
            let reference = match inner.bytes[inner.at..inner.end] {
                [one, ..] if one < 0x80 => {
                    inner.at += 1;
                    u64::from(one)
                }
                [one, two, ..] if two < 0x80 => {
                    inner.at += 2;
                    u64::from(one & 0x7f) | u64::from(two) << 7
                }
                _ => inner.varint()?,
            };
            self.refs.push(reference as u32);
        }
        self.left -= self.refs.len() - before;
        Ok(())
    }
}

impl References<'_> {
    fn push(&mut self, reference: u64) {
        match self.left {
            0 => self.many = true,
            _ => {
                self.refs.push(reference as u32);
                self.left -= 1;
            }
        }
    }
}

/// Turns pairs of references into labels; what can be used of them is kept, for messages.
fn resolve(
    refs: &[u32],
    symbols: &[(u32, u32)],
    bad_symbols: &[u32],
    out: &mut Vec<LabelPair>,
) -> Result<(), SeriesFault> {
    let mut pairs = refs.chunks_exact(2);
    for pair in &mut pairs {
        let (Some(&name), Some(&value)) = (symbols.get(pair[0] as usize), symbols.get(pair[1] as usize))
        else {
            return Err(SeriesFault::LabelReference);
        };
        out.push(LabelPair { name, value });
    }
    if !pairs.remainder().is_empty() {
        return Err(SeriesFault::OddReferences);
    }
    if !bad_symbols.is_empty() && refs.iter().any(|at| bad_symbols.binary_search(at).is_ok()) {
        return Err(SeriesFault::Utf8);
    }
    Ok(())
}

/// Metadata before its references are resolved.
#[derive(Clone, Copy, Default)]
struct RawMetadata {
    kind: u8,
    help: u32,
    unit: u32,
}

/// A message that is sent in pieces is one: later fields win over `before`.
fn metadata_v2(mut walk: Walk<'_>, before: Option<RawMetadata>) -> Result<RawMetadata, WireError> {
    let mut raw = before.unwrap_or_default();
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 | 3 | 4 => {
                walk.expect(wire, Wire::Varint, "a number of metadata")?;
                let v = walk.varint()?;
                match field {
                    1 => raw.kind = extras::kind(v),
                    3 => raw.help = v as u32,
                    _ => raw.unit = v as u32,
                }
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(raw)
}
