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
}

impl SeriesRows {
    /// Indices of its samples in [`WriteBatch::samples`]; also of their verdicts.
    pub fn samples(&self) -> Range<usize> {
        self.samples.start as usize..self.samples.end as usize
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
        let label_start = self.labels.len() as u32;
        let sample_start = self.samples.len() as u32;
        self.labels.extend_from_slice(labels);
        self.samples.extend(samples);
        self.series.push(SeriesRows {
            labels: label_start..self.labels.len() as u32,
            samples: sample_start..self.samples.len() as u32,
            hash,
        });
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
}
