//! A decoded request: flat columns of series, labels and samples, used again for the next one.

use std::ops::Range;

use model::Sample;

use super::Limits;

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
    /// Native histograms, which this version counts and does not read.
    pub histograms: u32,
    /// Exemplars, likewise.
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
    pub(super) metadata: u32,
    pub(super) max_labels: usize,
}

impl DecodedV1 {
    pub(super) fn clear(&mut self, limits: &Limits) {
        self.series.clear();
        self.labels.clear();
        self.samples.clear();
        self.metadata = 0;
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

    /// Metadata entries of the request.
    pub fn metadata_count(&self) -> u32 {
        self.metadata
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
        match series.fault {
            Some(SeriesFault::Utf8) => return Err(LabelFault::Utf8),
            Some(SeriesFault::TooManyLabels) => return Err(LabelFault::TooMany(self.max_labels)),
            None => {}
        }
        out.reserve(series.raw_labels.len());
        let mut last: &[u8] = b"";
        let mut sorted = true;
        for pair in &self.labels[series.labels.start as usize..series.labels.end as usize] {
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
        if !sorted {
            out.clear();
            let mut pairs: Vec<_> = self.labels(series, body).collect();
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
        }
        match out.len() {
            0 => Err(LabelFault::None),
            len if len > model::MAX_LABELS_BYTES => Err(LabelFault::TooLong(len)),
            _ => Ok(()),
        }
    }
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
