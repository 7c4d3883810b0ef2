//! The write contract: a batch of samples goes in, a verdict per sample comes out.

use std::ops::Range;

use model::{InvalidLabels, Labels, Sample, TenantId, Timestamp};

use crate::Error;

/// Samples of many series of one tenant, in two flat columns, reusable without allocation.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    labels: Vec<u8>,
    series: Vec<SeriesRows>,
    samples: Vec<Sample>,
}

/// Where one series of a batch lies.
#[derive(Clone, Debug)]
pub struct SeriesRows {
    labels: Range<u32>,
    samples: Range<u32>,
    /// [`Labels::placement_hash`] of tenant and labels: the ring section, the shard and the lookup key.
    pub hash: u64,
    /// Where the store kept the series when it was last met. Such a row may come without labels.
    pub handle: Option<SeriesHandle>,
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
    /// As one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    pub fn from_bits(bits: u64) -> SeriesHandle {
        SeriesHandle { index: (bits >> 32) as u32, generation: bits as u32 }
    }
}

impl SeriesRows {
    /// Indices of its samples in [`WriteBatch::samples`]; also of their verdicts.
    pub fn samples(&self) -> Range<usize> {
        self.samples.start as usize..self.samples.end as usize
    }
}

impl From<SeriesHandle> for u64 {
    fn from(handle: SeriesHandle) -> u64 {
        handle.to_bits()
    }
}

impl WriteBatch {
    pub fn clear(&mut self) {
        self.labels.clear();
        self.series.clear();
        self.samples.clear();
    }

    /// Adds a series by its canonical label bytes ([`Labels::as_bytes`]), which the caller has checked, and
    /// its samples in the order in which they were sent.
    pub fn push(&mut self, labels: &[u8], hash: u64, samples: impl IntoIterator<Item = Sample>) {
        self.open().extend(samples);
        self.close(labels, hash, None);
    }

    /// Adds a series by its handle, without labels; for [`Append::append_known`] only.
    pub fn push_known(&mut self, handle: SeriesHandle, hash: u64, samples: impl IntoIterator<Item = Sample>) {
        self.open().extend(samples);
        self.close(&[], hash, Some(handle));
    }

    /// Where the samples of the next series are appended; [`WriteBatch::close`] makes a series of them, and
    /// [`WriteBatch::abandon`] drops them.
    pub fn open(&mut self) -> &mut Vec<Sample> {
        &mut self.samples
    }

    /// Ends a series that was begun with [`WriteBatch::open`]. Labels may be empty where there is a handle.
    pub fn close(&mut self, labels: &[u8], hash: u64, handle: Option<SeriesHandle>) {
        let (label_start, sample_start) = (self.labels.len() as u32, self.taken() as u32);
        self.labels.extend_from_slice(labels);
        self.series.push(SeriesRows {
            labels: label_start..self.labels.len() as u32,
            samples: sample_start..self.samples.len() as u32,
            hash,
            handle,
        });
    }

    /// Drops what was appended since the last series ended.
    pub fn abandon(&mut self) {
        self.samples.truncate(self.taken());
    }

    /// Samples that belong to a series.
    fn taken(&self) -> usize {
        self.series.last().map_or(0, |series| series.samples.end as usize).min(self.samples.len())
    }

    pub fn series(&self) -> &[SeriesRows] {
        &self.series
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Canonical label bytes of a series of this batch.
    pub fn label_bytes(&self, series: &SeriesRows) -> &[u8] {
        &self.labels[series.labels.start as usize..series.labels.end as usize]
    }

    /// Labels of a series of this batch; allocates.
    pub fn labels(&self, series: &SeriesRows) -> Result<Labels, InvalidLabels> {
        Labels::from_bytes(self.label_bytes(series))
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

/// What one replica says of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Taken.
    Stored,
    /// The same (series, time, value) was there already: a success.
    Duplicate,
    /// Will not be taken, now or on a retry.
    Refused(Refusal),
    /// Not taken for a passing reason; a retry can help.
    Unavailable,
}

impl Verdict {
    /// Whether the sample is there after this verdict.
    pub fn is_success(self) -> bool {
        matches!(self, Verdict::Stored | Verdict::Duplicate)
    }
}

/// Why a sample is refused for good. The discriminants travel between peers: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// Another value is stored for this series and time.
    Conflict = 1,
    /// Older than the out-of-order window and not in order for its series, or older than the oldest age.
    TooOld = 2,
    /// More than the tolerated time ahead of the clock.
    TooFarInFuture = 3,
    /// Labels are missing, doubled, misspelt or too long.
    InvalidLabels = 4,
    /// A kind of sample that is not stored (yet).
    Unsupported = 5,
    /// The tenant has as many series as it may have; only new series are refused.
    SeriesLimit = 6,
    /// Outside the times that can be stored at all.
    OutOfBounds = 7,
}

impl Refusal {
    /// All of them, for metrics and tests.
    pub const ALL: [Refusal; 7] = [
        Refusal::Conflict,
        Refusal::TooOld,
        Refusal::TooFarInFuture,
        Refusal::InvalidLabels,
        Refusal::Unsupported,
        Refusal::SeriesLimit,
        Refusal::OutOfBounds,
    ];

    pub fn from_code(code: u8) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|r| *r as u8 == code)
    }

    /// Value of the `reason` label in metrics, after Prometheus's and Thanos's words.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Conflict => "duplicate_sample_for_timestamp",
            Refusal::TooOld => "too_old_sample",
            Refusal::TooFarInFuture => "too_far_in_future",
            Refusal::InvalidLabels => "invalid_labels",
            Refusal::Unsupported => "unsupported",
            Refusal::SeriesLimit => "series_limit",
            Refusal::OutOfBounds => "out_of_bounds",
        }
    }

    /// What to tell the sender.
    pub fn explain(self) -> &'static str {
        match self {
            Refusal::Conflict => {
                "duplicate sample for timestamp: another value is stored for this series and time"
            }
            Refusal::TooOld => {
                "too old sample: older than the out-of-order window and not in order for its series"
            }
            Refusal::TooFarInFuture => "sample is too far in the future; check the sender's clock",
            Refusal::InvalidLabels => "invalid labels",
            Refusal::Unsupported => "native histograms are not stored by this version",
            Refusal::SeriesLimit => {
                "the tenant has reached its limit of active series; existing series are still taken"
            }
            Refusal::OutOfBounds => "timestamp is out of bounds",
        }
    }
}

/// What an append answers besides its verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// Every verdict, duplicates included, may leave the node only when the log is durable up to here.
    pub log_position: u64,
    /// Series that did not exist before.
    pub created: u32,
}

/// What a caller who has met series before gives an append, and gets from it.
pub struct Known<'a> {
    /// Writes the canonical labels of a row that came without them to the (empty) buffer; false where it
    /// cannot. Asked only for rows whose handle finds nothing any more, with no lock held.
    pub labels: &'a dyn Fn(u32, &mut Vec<u8>) -> bool,
    /// Rows that were found or made by their labels, and the handles to use for them from now on. A row can
    /// be named more than once.
    pub learned: &'a mut Vec<(u32, SeriesHandle)>,
}

/// Somebody who stores samples.
pub trait Append: Send + Sync {
    /// Judges and stages the samples of the series `rows` (indices into `batch.series()`), writing each
    /// sample's verdict at its index in `verdicts`, which is as long as `batch.samples()`.
    ///
    /// `judged_at` is the time at which the door let the request in: the accepted window is counted from
    /// there, on every replica alike. An error means that nothing of the batch was judged.
    fn append(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
    ) -> Result<AppendOutcome, Error>;
    /// As [`Append::append`], for a batch whose rows may be known by handles alone. With equal labels both
    /// give equal verdicts, whatever handles are worth.
    fn append_known(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        known: Known<'_>,
    ) -> Result<AppendOutcome, Error>;
}
