//! The write contract: a [`WriteBatch`] goes in, a verdict per sample comes out.

use model::{TenantId, Timestamp};

use crate::{Error, SeriesHandle, WriteBatch};

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
    /// A native histogram whose numbers contradict one another.
    InvalidHistogram = 8,
    /// An exemplar that is no exemplar, or whose series is not there. It costs its sample nothing.
    InvalidExemplar = 9,
    /// The tenant has as many series of this metric as it may have; only new series are refused.
    MetricSeriesLimit = 10,
    /// The tenant makes new series faster than it may.
    NewSeriesRate = 11,
    /// A new series has more or longer labels than the tenant's may have.
    LabelLimit = 12,
}

impl Refusal {
    /// All of them, for metrics and tests.
    pub const ALL: [Refusal; 12] = [
        Refusal::Conflict,
        Refusal::TooOld,
        Refusal::TooFarInFuture,
        Refusal::InvalidLabels,
        Refusal::Unsupported,
        Refusal::SeriesLimit,
        Refusal::OutOfBounds,
        Refusal::InvalidHistogram,
        Refusal::InvalidExemplar,
        Refusal::MetricSeriesLimit,
        Refusal::NewSeriesRate,
        Refusal::LabelLimit,
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
            Refusal::InvalidHistogram => "invalid_native_histogram",
            Refusal::InvalidExemplar => "invalid_exemplar",
            Refusal::MetricSeriesLimit => "metric_series_limit",
            Refusal::NewSeriesRate => "new_series_rate",
            Refusal::LabelLimit => "label_limit",
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
            Refusal::Unsupported => {
                "this kind of sample is not stored by this version, or by one of its receivers"
            }
            Refusal::SeriesLimit => {
                "the tenant has reached its limit of active series; existing series are still taken"
            }
            Refusal::OutOfBounds => "timestamp is out of bounds",
            Refusal::InvalidHistogram => "native histogram contradicts itself",
            Refusal::InvalidExemplar => "exemplar has malformed labels, or there is no such series",
            Refusal::MetricSeriesLimit => {
                "the tenant has reached its limit of active series of this metric; existing series are still taken"
            }
            Refusal::NewSeriesRate => {
                "the tenant makes new series faster than it may; existing series are still taken"
            }
            Refusal::LabelLimit => "the series has more or longer labels than the tenant's may have",
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
    /// sample's verdict at its index in `verdicts`, which is [`WriteBatch::verdicts`] long.
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
