//! A decoded request: flat columns of series, labels and samples, used again for the next one; beside them what few
//! requests carry, histograms, exemplars and metadata.

use std::ops::Range;

use model::{Sample, Timestamp};

use super::Limits;
use super::extras::{self, Exemplar, HistogramSample, Metadata, Subject};
use crate::WireError;
use crate::walk::Walk;

/// Name and value of one label, as byte ranges of the decompressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelPair {
    pub(super) name: (u32, u32),
    pub(super) value: (u32, u32),
}

/// One series of a request, as it was sent: labels in the sender's order, sampling order untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub(super) labels: Range<u32>,
    pub(super) samples: Range<u32>,
    /// From the first label's key to the last label's end, where nothing else lies between.
    pub(super) raw_labels: Range<u32>,
    pub(super) first_histogram: u32,
    pub(super) first_exemplar: u32,
    /// Number of its native histograms.
    pub histograms: u32,
    /// Number of its exemplars.
    pub exemplars: u32,
    /// Why its labels cannot be used, seen while reading; its samples are refused, the others go on.
    pub fault: Option<SeriesFault>,
}

impl Series {
    /// Indices of its samples in [`DecodedV1::samples`].
    pub fn samples(&self) -> Range<usize> {
        self.samples.start as usize..self.samples.end as usize
    }

    pub fn label_count(&self) -> usize {
        self.labels.len()
    }

    /// The bytes of its label fields on the wire, if they lie in one piece: what a cache of known series is
    /// keyed by. Empty without labels.
    pub fn raw_labels(&self) -> Range<usize> {
        self.raw_labels.start as usize..self.raw_labels.end as usize
    }
}

/// What is wrong with a series before any rule of ours is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesFault {
    /// A label's name or value is not UTF-8.
    Utf8,
    /// It has more labels than [`Limits::max_labels`]; only the first ones were kept.
    TooManyLabels,
    /// Its label references do not come in pairs (2.0).
    OddReferences,
    /// A label reference lies outside of the symbol table (2.0).
    LabelReference,
    /// A reference of its metadata lies outside of the symbol table (2.0).
    MetadataReference,
}

/// Why labels as sent do not make a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    #[error("label name or value is not valid UTF-8")]
    Utf8,
    #[error("more than {0} labels")]
    TooMany(usize),
    #[error("a label name is empty")]
    EmptyName,
    #[error("label {0:?} appears twice")]
    Duplicate(String),
    #[error("label references do not come in pairs")]
    OddReferences,
    #[error("a label reference lies outside of the symbol table")]
    LabelReference,
    #[error("a reference of the metadata lies outside of the symbol table")]
    MetadataReference,
    #[error("series has no labels")]
    None,
    #[error("labels take {0} bytes; at most {max} are allowed", max = model::MAX_LABELS_BYTES)]
    TooLong(usize),
}

/// Columns of one request. Series, labels and samples keep the order in which they were sent.
#[derive(Clone, Debug, Default)]
pub struct DecodedV1 {
    pub(super) series: Vec<Series>,
    pub(super) labels: Vec<LabelPair>,
    pub(super) samples: Vec<Sample>,
    /// Start timestamps beside the samples; shorter where the last samples have none.
    pub(super) starts: Vec<Timestamp>,
    pub(super) histograms: Vec<HistogramSample>,
    pub(super) exemplars: Vec<Exemplar>,
    pub(super) exemplar_labels: Vec<LabelPair>,
    pub(super) metadata: Vec<Metadata>,
    pub(super) metadata_count: u32,
    /// Buckets of histograms that the request may still have.
    pub(super) buckets_left: usize,
    pub(super) max_labels: usize,
}

impl DecodedV1 {
    pub(super) fn clear(&mut self, limits: &Limits) {
        self.series.clear();
        self.labels.clear();
        self.samples.clear();
        self.starts.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.exemplar_labels.clear();
        self.metadata.clear();
        self.metadata_count = 0;
        self.buckets_left = extras::MAX_BUCKETS;
        self.max_labels = limits.max_labels;
    }

    pub fn series(&self) -> &[Series] {
        &self.series
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    pub fn samples_of(&self, series: &Series) -> &[Sample] {
        &self.samples[series.samples()]
    }

    /// When counting started for the sample at this index of [`DecodedV1::samples`], in milliseconds; 0 where the
    /// sender does not say.
    pub fn start_timestamp(&self, sample: usize) -> Timestamp {
        self.starts.get(sample).copied().unwrap_or(0)
    }

    /// Whether any sample says when counting started.
    pub fn has_starts(&self) -> bool {
        !self.starts.is_empty()
    }

    /// Adds a sample to the series at hand.
    #[inline]
    pub(super) fn push_sample(&mut self, (sample, start): (Sample, Timestamp)) {
        if start != 0 {
            self.starts.resize(self.samples.len(), 0);
            self.starts.push(start);
        }
        self.samples.push(sample);
    }

    /// Metadata entries of the request.
    pub fn metadata_count(&self) -> u32 {
        self.metadata_count
    }

    /// Metadata entries as they were sent: of 1.0 by metric, of 2.0 by series.
    pub fn metadata(&self) -> &[Metadata] {
        &self.metadata
    }

    /// Of an entry of [`DecodedV1::metadata`]: the metric's name (none where the series lacks one), help and unit. None
    /// where a text is not UTF-8. `body` is what was decoded.
    pub fn metadata_texts<'a>(
        &'a self,
        metadata: &Metadata,
        body: &'a [u8],
    ) -> Option<(Option<&'a str>, &'a str, &'a str)> {
        let text = |span| std::str::from_utf8(slice(body, span)).ok();
        let name = match metadata.subject {
            Subject::Name(span) => Some(text(span)?),
            Subject::Series(at) => {
                let mut labels = self.labels(self.series.get(at as usize)?, body);
                match labels.find(|(name, _)| *name == model::METRIC_NAME.as_bytes()) {
                    Some((_, value)) => Some(std::str::from_utf8(value).ok()?),
                    None => None,
                }
            }
        };
        Some((name, text(metadata.help)?, text(metadata.unit)?))
    }

    /// Native histograms of a series, in the order in which they were sent.
    pub fn histograms_of(&self, series: &Series) -> &[HistogramSample] {
        let first = series.first_histogram as usize;
        self.histograms.get(first..first + series.histograms as usize).unwrap_or_default()
    }

    /// Exemplars of a series, in the order in which they were sent.
    pub fn exemplars_of(&self, series: &Series) -> &[Exemplar] {
        let first = series.first_exemplar as usize;
        self.exemplars.get(first..first + series.exemplars as usize).unwrap_or_default()
    }

    /// Names and values of an exemplar's labels, as of [`DecodedV1::labels`].
    pub fn exemplar_labels<'a>(
        &'a self,
        exemplar: &Exemplar,
        body: &'a [u8],
    ) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + 'a {
        self.exemplar_labels[exemplar.labels.start as usize..exemplar.labels.end as usize]
            .iter()
            .map(|pair| (slice(body, pair.name), slice(body, pair.value)))
    }

    /// Writes an exemplar's labels to `out` in canonical form, as [`DecodedV1::canonical`] does; none are fine.
    pub fn exemplar_canonical(
        &self,
        exemplar: &Exemplar,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), LabelFault> {
        out.clear();
        let pairs = &self.exemplar_labels[exemplar.labels.start as usize..exemplar.labels.end as usize];
        check_fault(exemplar.fault, self.max_labels)?;
        canonical_pairs(pairs, body, out)
    }

    pub(super) fn push_histogram(&mut self, walk: Walk<'_>) -> Result<(), WireError> {
        if self.histograms.len() >= extras::MAX_HISTOGRAMS {
            return Err(WireError::refused(format!(
                "write request has more than {} histograms; send fewer per request",
                extras::MAX_HISTOGRAMS
            )));
        }
        let histogram = extras::histogram(walk, &mut self.buckets_left)?;
        self.histograms.push(histogram);
        Ok(())
    }

    pub(super) fn push_exemplar(&mut self, walk: Walk<'_>) -> Result<(), WireError> {
        check_exemplar_limit(self)?;
        let first = self.exemplar_labels.len();
        let mut labels = extras::InMessage {
            out: &mut self.exemplar_labels,
            left: extras::MAX_EXEMPLAR_LABELS,
            too_many: false,
        };
        let (value, timestamp) = extras::exemplar(walk, &mut labels)?;
        let too_many = labels.too_many;
        let utf8 = self.exemplar_labels[first..].iter().all(|pair| is_utf8(walk.bytes, pair));
        let fault = match (too_many, utf8) {
            (true, _) => Some(SeriesFault::TooManyLabels),
            (_, false) => Some(SeriesFault::Utf8),
            _ => None,
        };
        let labels = first as u32..self.exemplar_labels.len() as u32;
        self.exemplars.push(Exemplar { labels, value, timestamp, fault });
        Ok(())
    }

    /// Counts an entry, and keeps it while there are few.
    pub(super) fn push_metadata(&mut self, metadata: Metadata) {
        self.metadata_count += 1;
        if self.metadata.len() < extras::MAX_METADATA {
            self.metadata.push(metadata);
        }
    }

    /// Native histograms of all series.
    pub fn histogram_count(&self) -> u64 {
        self.series.iter().map(|s| s.histograms as u64).sum()
    }

    /// Exemplars of all series.
    pub fn exemplar_count(&self) -> u64 {
        self.series.iter().map(|s| s.exemplars as u64).sum()
    }

    /// Bytes that the columns hold on to between requests.
    pub fn capacity_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Series>()
            + self.labels.capacity() * size_of::<LabelPair>()
            + self.samples.capacity() * size_of::<Sample>()
            + self.starts.capacity() * size_of::<Timestamp>()
            + self.histograms.capacity() * size_of::<HistogramSample>()
            + self.exemplars.capacity() * size_of::<Exemplar>()
            + self.exemplar_labels.capacity() * size_of::<LabelPair>()
            + self.metadata.capacity() * size_of::<Metadata>()
    }

    /// Names and values of a series' labels as bytes, in the sender's order. `body` is what was decoded;
    /// the bytes are UTF-8 unless [`Series::fault`] says otherwise.
    pub fn labels<'a>(
        &'a self,
        series: &Series,
        body: &'a [u8],
    ) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + 'a {
        self.labels[series.labels.start as usize..series.labels.end as usize]
            .iter()
            .map(|pair| (slice(body, pair.name), slice(body, pair.value)))
    }

    /// Writes a series' labels to `out` in the canonical form of [`model::Labels::as_bytes`]: sorted by name,
    /// labels with empty values dropped. `out` is cleared first. Labels that come sorted cost one pass.
    pub fn canonical(&self, series: &Series, body: &[u8], out: &mut Vec<u8>) -> Result<(), LabelFault> {
        out.clear();
        check_fault(series.fault, self.max_labels)?;
        out.reserve(series.raw_labels.len());
        canonical_pairs(&self.labels[series.labels.start as usize..series.labels.end as usize], body, out)?;
        match out.len() {
            0 => Err(LabelFault::None),
            len if len > model::MAX_LABELS_BYTES => Err(LabelFault::TooLong(len)),
            _ => Ok(()),
        }
    }
}

fn check_fault(fault: Option<SeriesFault>, max_labels: usize) -> Result<(), LabelFault> {
    match fault {
        Some(SeriesFault::Utf8) => Err(LabelFault::Utf8),
        Some(SeriesFault::TooManyLabels) => Err(LabelFault::TooMany(max_labels)),
        Some(SeriesFault::OddReferences) => Err(LabelFault::OddReferences),
        Some(SeriesFault::LabelReference) => Err(LabelFault::LabelReference),
        Some(SeriesFault::MetadataReference) => Err(LabelFault::MetadataReference),
        None => Ok(()),
    }
}

/// Appends labels, sorted by name and without those of empty values. Labels that come sorted cost one pass.
fn canonical_pairs(pairs: &[LabelPair], body: &[u8], out: &mut Vec<u8>) -> Result<(), LabelFault> {
    let mut last: &[u8] = b"";
    let mut sorted = true;
    for pair in pairs {
        let (name, value) = (slice(body, pair.name), slice(body, pair.value));
        if name.is_empty() {
            return Err(LabelFault::EmptyName);
        }
        // Most neighbours differ in their first letter.
        if name.first() <= last.first() && name <= last {
            sorted = false;
            break;
        }
        last = name;
        if !value.is_empty() {
            put_span(out, body, pair.name, name);
            put_span(out, body, pair.value, value);
        }
    }
    if sorted {
        return Ok(());
    }
    out.clear();
    let mut pairs: Vec<_> = pairs.iter().map(|p| (slice(body, p.name), slice(body, p.value))).collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(LabelFault::Duplicate(String::from_utf8_lossy(pair[0].0).into_owned()));
    }
    for (name, value) in pairs {
        if name.is_empty() {
            return Err(LabelFault::EmptyName);
        }
        put_label(out, name, value);
    }
    Ok(())
}

fn slice(body: &[u8], (start, end): (u32, u32)) -> &[u8] {
    // Of another body than the one decoded the ranges mean nothing, but must not panic.
    body.get(start as usize..end as usize).unwrap_or_default()
}

/// Appends a text that stands at `span` of the body, with its length byte where that is the canonical one.
fn put_span(out: &mut Vec<u8>, body: &[u8], span: (u32, u32), text: &[u8]) {
    match body.get((span.0 as usize).wrapping_sub(1)..span.1 as usize) {
        Some(with_len) if text.len() < 0x80 && with_len[0] as usize == text.len() => {
            out.extend_from_slice(with_len);
        }
        _ => put_bytes(out, text),
    }
}

fn put_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !value.is_empty() {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

pub(super) fn is_utf8(body: &[u8], pair: &LabelPair) -> bool {
    let valid = |span| std::str::from_utf8(slice(body, span)).is_ok();
    valid(pair.name) && valid(pair.value)
}

pub(super) fn check_series_limit(columns: &DecodedV1, limits: &Limits) -> Result<(), WireError> {
    check_series_count(columns.series.len(), limits)
}

/// Whether one more than `count` series may come.
#[inline]
pub(super) fn check_series_count(count: usize, limits: &Limits) -> Result<(), WireError> {
    if count < limits.max_series {
        return Ok(());
    }
    Err(WireError::refused(format!(
        "write request has more than {} series; send fewer per request",
        limits.max_series
    )))
}

pub(super) fn check_exemplar_limit(columns: &DecodedV1) -> Result<(), WireError> {
    if columns.exemplars.len() < extras::MAX_EXEMPLARS {
        return Ok(());
    }
    Err(WireError::refused(format!(
        "write request has more than {} exemplars; send fewer per request",
        extras::MAX_EXEMPLARS
    )))
}
