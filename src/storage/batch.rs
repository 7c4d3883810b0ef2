//! What is appended at once: samples of many series of one tenant, in flat columns that are used again.
//!
//! Most batches hold floats alone, and cost nothing for what else there may be: histograms, exemplars and start
//! timestamps lie in columns of their own, which stay empty. Verdicts are numbered through: floats first, by their index
//! in [`WriteBatch::samples`], then histograms, then exemplars.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use model::{InvalidLabels, Labels, Native, Sample, Timestamp};

/// Samples of many series of one tenant, reusable without allocation.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    labels: Vec<u8>,
    series: Vec<SeriesRows>,
    samples: Vec<Sample>,
    /// Start timestamps beside the samples; may be shorter than these.
    starts: Vec<Timestamp>,
    histograms: Vec<HistogramRow>,
    exemplars: Vec<ExemplarRow>,
    exemplar_labels: Vec<u8>,
    /// Of series that have more than floats.
    more: Vec<More>,
    source: Source,
    spliced: bool,
    asks: bool,
}

/// Where a batch came from, for what its rows do not carry themselves.
pub trait RowSource: Send + Sync {
    /// What a row's series is called in this process, if it is known.
    fn name(&self, row: u32) -> Option<RowName>;

    /// Writes the canonical labels of a row that came without them to the (empty) buffer; false where it cannot.
    fn labels(&self, row: u32, out: &mut Vec<u8>) -> bool;

    /// Bytes that are kept for all rows together.
    fn bytes(&self) -> usize;

    /// Rows that the store here found or made, and their handles from now on.
    fn learned(&self, handles: &[(u32, SeriesHandle)]);
}

/// A number that stands for a series in this process. Numbers are given again; the check, of 64 bits that nobody
/// outside can choose, tells the series apart that had the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowName {
    pub id: u32,
    pub check: u64,
}

#[derive(Clone, Default)]
struct Source(Option<Arc<dyn RowSource>>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(..)" } else { "None" })
    }
}

/// Where one series of a batch lies.
#[derive(Clone, Debug)]
pub struct SeriesRows {
    labels: Range<u32>,
    samples: Range<u32>,
    /// Index into [`WriteBatch::more`] plus one; 0 where there are only floats.
    more: u32,
    /// [`Labels::placement_hash`] of tenant and labels: the ring section, the shard and the lookup key.
    pub hash: u64,
    /// Where the store kept the series when it was last met. Such a row may come without labels.
    pub handle: Option<SeriesHandle>,
}

#[derive(Clone, Debug)]
struct More {
    histograms: Range<u32>,
    exemplars: Range<u32>,
}

/// One native histogram, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramRow {
    /// Milliseconds.
    pub timestamp: Timestamp,
    /// When counting started, in milliseconds; 0 where nobody says.
    pub start: Timestamp,
    pub histogram: Native,
}

/// One exemplar; its labels are [`WriteBatch::exemplar_labels`].
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarRow {
    /// Milliseconds.
    pub timestamp: Timestamp,
    pub value: f64,
    labels: Range<u32>,
}

/// What a verdict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleKind {
    Float,
    Histogram,
    Exemplar,
}

/// A store's own name for a place of a series, worth nothing elsewhere and nothing after a restart. Together
/// with the hash it finds the series without its labels. One whose series is gone finds nothing, never
/// another series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesHandle {
    /// The place.
    pub index: u32,
    /// Which of the series that have lain there.
    pub generation: u32,
}

impl SeriesHandle {
    /// Finds nothing, in any store.
    pub const NOWHERE: SeriesHandle = SeriesHandle { index: u32::MAX, generation: u32::MAX };

    /// As one number.
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    #[inline]
    pub fn from_bits(bits: u64) -> SeriesHandle {
        SeriesHandle { index: (bits >> 32) as u32, generation: bits as u32 }
    }
}

impl From<SeriesHandle> for u64 {
    fn from(handle: SeriesHandle) -> u64 {
        handle.to_bits()
    }
}

impl SeriesRows {
    /// Indices of its floats in [`WriteBatch::samples`]; also of their verdicts.
    #[inline]
    pub fn samples(&self) -> Range<usize> {
        wide(&self.samples)
    }
}

impl WriteBatch {
    pub fn clear(&mut self) {
        self.labels.clear();
        self.series.clear();
        self.samples.clear();
        self.starts.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.exemplar_labels.clear();
        self.more.clear();
        self.source = Source::default();
        (self.spliced, self.asks) = (false, false);
    }

    /// Says that the batch comes from another sender of the same series than what is stored: of its samples those that
    /// stand too close to one that is there are not taken, and count as there already.
    pub fn splice(&mut self, spliced: bool) {
        self.spliced = spliced;
    }

    /// See [`WriteBatch::splice`].
    #[inline]
    pub fn is_spliced(&self) -> bool {
        self.spliced
    }

    /// Says that nothing of the batch, which is spliced, is to be stored: of each sample it is asked whether it would be taken
    /// ([`Verdict::Stored`], also where it is there already), or stands too close to another ([`Verdict::Duplicate`]).
    pub fn ask(&mut self, asks: bool) {
        self.asks = asks;
        self.spliced |= asks;
    }

    /// See [`WriteBatch::ask`].
    #[inline]
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// Says who knows of the rows what they do not carry themselves. Once there is a source, a row without labels gets
    /// them by [`WriteBatch::labels_into`] alone.
    pub fn attach(&mut self, source: Arc<dyn RowSource>) {
        self.source = Source(Some(source));
    }

    /// What a row's series is called in this process, if it is known.
    pub fn name_of(&self, row: u32) -> Option<RowName> {
        self.source.0.as_ref()?.name(row)
    }

    /// Writes the canonical labels of a row to `out`, which is cleared: its own or its source's. False where nobody
    /// has them.
    pub fn labels_into(&self, row: u32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some(series) = self.series.get(row as usize) else { return false };
        let own = self.label_bytes(series);
        if own.is_empty() && series.handle.is_some() {
            return self.source.0.as_ref().is_some_and(|source| source.labels(row, out));
        }
        out.extend_from_slice(own);
        true
    }

    /// Tells the source, if there is one, what the store here calls rows.
    pub fn learned(&self, handles: &[(u32, SeriesHandle)]) {
        if let Some(source) = self.source.0.as_ref().filter(|_| !handles.is_empty()) {
            source.learned(handles);
        }
    }

    /// Adds a series by its canonical label bytes ([`Labels::as_bytes`]), which the caller has checked, and
    /// its samples in the order in which they were sent.
    pub fn push(&mut self, labels: &[u8], hash: u64, samples: impl IntoIterator<Item = Sample>) {
        self.open().extend(samples);
        self.close(labels, hash, None);
    }

    /// Adds a series by its handle, without labels; for [`crate::Append::append_known`] only.
    pub fn push_known(&mut self, handle: SeriesHandle, hash: u64, samples: impl IntoIterator<Item = Sample>) {
        self.open().extend(samples);
        self.close(&[], hash, Some(handle));
    }

    /// Where the floats of the next series are appended; [`WriteBatch::close`] makes a series of them, and
    /// [`WriteBatch::abandon`] drops them.
    #[inline]
    pub fn open(&mut self) -> &mut Vec<Sample> {
        &mut self.samples
    }

    /// Says when counting started for the float appended last.
    pub fn push_start(&mut self, start: Timestamp) {
        if start != 0 && !self.samples.is_empty() {
            self.starts.resize(self.samples.len() - 1, 0);
            self.starts.push(start);
        }
    }

    /// Says it for the floats appended last, one each.
    pub fn push_starts(&mut self, starts: impl ExactSizeIterator<Item = Timestamp>) {
        self.starts.resize(self.samples.len().saturating_sub(starts.len()), 0);
        self.starts.extend(starts);
    }

    /// Adds a histogram to the next series.
    pub fn push_histogram(&mut self, row: HistogramRow) {
        self.histograms.push(row);
    }

    /// Adds an exemplar to the next series; `labels` are canonical bytes, possibly none.
    pub fn push_exemplar(&mut self, timestamp: Timestamp, value: f64, labels: &[u8]) {
        let start = self.exemplar_labels.len() as u32;
        self.exemplar_labels.extend_from_slice(labels);
        let labels = start..self.exemplar_labels.len() as u32;
        self.exemplars.push(ExemplarRow { timestamp, value, labels });
    }

    /// Ends a series that was begun with [`WriteBatch::open`] and its like. Labels may be empty where there is a
    /// handle.
    #[inline]
    pub fn close(&mut self, labels: &[u8], hash: u64, handle: Option<SeriesHandle>) {
        let (label_start, sample_start) = (self.labels.len() as u32, self.taken() as u32);
        self.labels.extend_from_slice(labels);
        let more = match self.histograms.is_empty() && self.exemplars.is_empty() {
            true => 0,
            false => self.close_more(),
        };
        self.series.push(SeriesRows {
            labels: label_start..self.labels.len() as u32,
            samples: sample_start..self.samples.len() as u32,
            more,
            hash,
            handle,
        });
    }

    fn close_more(&mut self) -> u32 {
        let (histograms, exemplars) = self.taken_more();
        if self.histograms.len() == histograms && self.exemplars.len() == exemplars {
            return 0;
        }
        self.more.push(More {
            histograms: histograms as u32..self.histograms.len() as u32,
            exemplars: exemplars as u32..self.exemplars.len() as u32,
        });
        self.more.len() as u32
    }

    /// Drops what was appended since the last series ended.
    pub fn abandon(&mut self) {
        let (histograms, exemplars) = self.taken_more();
        self.samples.truncate(self.taken());
        self.starts.truncate(self.samples.len());
        self.histograms.truncate(histograms);
        self.exemplars.truncate(exemplars);
        self.exemplar_labels.truncate(self.exemplars.last().map_or(0, |e| e.labels.end as usize));
    }

    /// Floats that belong to a series.
    #[inline]
    fn taken(&self) -> usize {
        self.series.last().map_or(0, |series| series.samples.end as usize).min(self.samples.len())
    }

    /// Histograms and exemplars that belong to a series.
    fn taken_more(&self) -> (usize, usize) {
        self.more.last().map_or((0, 0), |m| (m.histograms.end as usize, m.exemplars.end as usize))
    }

    /// Whether anything was appended since the last series ended.
    pub fn is_open(&self) -> bool {
        (self.samples.len(), (self.histograms.len(), self.exemplars.len()))
            != (self.taken(), self.taken_more())
    }

    #[inline]
    pub fn series(&self) -> &[SeriesRows] {
        &self.series
    }

    #[inline]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// When counting started for a float, in milliseconds; 0 where nobody says.
    pub fn start_of(&self, sample: usize) -> Timestamp {
        self.starts.get(sample).copied().unwrap_or(0)
    }

    /// Whether any float says when counting started.
    #[inline]
    pub fn has_starts(&self) -> bool {
        !self.starts.is_empty()
    }

    pub fn histograms(&self) -> &[HistogramRow] {
        &self.histograms
    }

    pub fn exemplars(&self) -> &[ExemplarRow] {
        &self.exemplars
    }

    /// Histograms of a series, as indices into [`WriteBatch::histograms`].
    pub fn histograms_of(&self, series: &SeriesRows) -> Range<usize> {
        self.more_of(series).map_or(0..0, |more| wide(&more.histograms))
    }

    /// Exemplars of a series, as indices into [`WriteBatch::exemplars`].
    pub fn exemplars_of(&self, series: &SeriesRows) -> Range<usize> {
        self.more_of(series).map_or(0..0, |more| wide(&more.exemplars))
    }

    fn more_of(&self, series: &SeriesRows) -> Option<&More> {
        self.more.get((series.more as usize).checked_sub(1)?)
    }

    /// Canonical label bytes of an exemplar of this batch.
    pub fn exemplar_labels(&self, exemplar: &ExemplarRow) -> &[u8] {
        &self.exemplar_labels[wide(&exemplar.labels)]
    }

    /// Number of verdicts: one per float, histogram and exemplar.
    pub fn verdicts(&self) -> usize {
        self.samples.len() + self.histograms.len() + self.exemplars.len()
    }

    /// Index of the verdict of histogram number 0.
    #[inline]
    pub fn first_histogram(&self) -> usize {
        self.samples.len()
    }

    /// Index of the verdict of exemplar number 0.
    #[inline]
    pub fn first_exemplar(&self) -> usize {
        self.samples.len() + self.histograms.len()
    }

    /// Where the verdicts of a series lie: of its floats, its histograms, its exemplars. Whoever lists a series'
    /// verdicts in a row, as peers do, lists them in this order.
    pub fn verdicts_of(&self, series: &SeriesRows) -> [Range<usize>; 3] {
        let behind = |range: Range<usize>, at: usize| range.start + at..range.end + at;
        [
            series.samples(),
            behind(self.histograms_of(series), self.first_histogram()),
            behind(self.exemplars_of(series), self.first_exemplar()),
        ]
    }

    /// What a verdict is about.
    #[inline]
    pub fn kind_of(&self, verdict: usize) -> SampleKind {
        match verdict {
            at if at < self.first_histogram() => SampleKind::Float,
            at if at < self.first_exemplar() => SampleKind::Histogram,
            _ => SampleKind::Exemplar,
        }
    }

    /// The time of what a verdict is about.
    pub fn timestamp_of(&self, verdict: usize) -> Option<Timestamp> {
        match self.kind_of(verdict) {
            SampleKind::Float => self.samples.get(verdict).map(|s| s.timestamp),
            SampleKind::Histogram => {
                self.histograms.get(verdict - self.first_histogram()).map(|h| h.timestamp)
            }
            SampleKind::Exemplar => self.exemplars.get(verdict - self.first_exemplar()).map(|e| e.timestamp),
        }
    }

    /// Bytes of memory that a series takes here, for budgets.
    pub fn bytes_of(&self, series: &SeriesRows) -> usize {
        let mut bytes = 32 + series.labels.len() + 16 * series.samples.len();
        if let (true, Some(source)) = (series.labels.is_empty(), &self.source.0) {
            bytes += source.bytes() / self.series.len().max(1);
        }
        if let Some(more) = self.more_of(series) {
            let rows = &self.histograms[wide(&more.histograms)];
            bytes += rows.iter().map(|row| 32 + row.histogram.bytes()).sum::<usize>();
            let exemplars = &self.exemplars[wide(&more.exemplars)];
            bytes += exemplars.iter().map(|e| size_of::<ExemplarRow>() + e.labels.len()).sum::<usize>();
        }
        bytes
    }

    /// Canonical label bytes of a series of this batch.
    #[inline]
    pub fn label_bytes(&self, series: &SeriesRows) -> &[u8] {
        &self.labels[wide(&series.labels)]
    }

    /// Labels of a series of this batch; allocates.
    pub fn labels(&self, series: &SeriesRows) -> Result<Labels, InvalidLabels> {
        Labels::from_bytes(self.label_bytes(series))
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

fn wide(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
mod tests {
    use model::histogram::Histogram;

    use super::*;

    fn histogram(timestamp: Timestamp) -> HistogramRow {
        HistogramRow { timestamp, start: 0, histogram: Native::Whole(Histogram::default()) }
    }

    fn sample(timestamp: Timestamp) -> Sample {
        Sample { timestamp, value: 0.0 }
    }

    #[test]
    fn verdicts_are_numbered_through() {
        let mut batch = WriteBatch::default();
        batch.push(b"a", 1, [sample(1), sample(2)]);
        batch.push_start(7);
        batch.push_histogram(histogram(3));
        batch.push_exemplar(4, 0.5, b"x");
        batch.close(b"b", 2, None);
        batch.open().push(sample(9));
        batch.push_histogram(histogram(9));
        batch.push_exemplar(9, 0.5, b"gone");
        assert!(batch.is_open());
        batch.abandon();
        assert!(!batch.is_open());
        batch.push_exemplar(6, 0.5, b"yz");
        batch.push_histogram(histogram(5));
        batch.open().push(sample(8));
        batch.close(b"c", 3, None);
        let of = |n: usize| batch.verdicts_of(&batch.series()[n]);
        assert_eq!(of(0), [0..2, 3..3, 5..5]);
        assert_eq!(of(1), [2..2, 3..4, 5..6]);
        assert_eq!(of(2), [2..3, 4..5, 6..7]);
        assert_eq!(batch.verdicts(), 7);
        let times: Vec<_> = (0..7).map(|at| batch.timestamp_of(at).unwrap()).collect();
        assert_eq!(times, [1, 2, 8, 3, 5, 4, 6]);
        assert_eq!(
            [2, 3, 5].map(|at| batch.kind_of(at)),
            [SampleKind::Float, SampleKind::Histogram, SampleKind::Exemplar]
        );
        assert_eq!((batch.start_of(1), batch.start_of(2)), (7, 0));
        let labels: Vec<_> = batch.exemplars().iter().map(|e| batch.exemplar_labels(e)).collect();
        assert_eq!(labels, [&b"x"[..], b"yz"]);
    }

    #[test]
    fn what_floats_alone_cost() {
        assert!(size_of::<SeriesRows>() <= 40, "{}", size_of::<SeriesRows>());
    }
}
