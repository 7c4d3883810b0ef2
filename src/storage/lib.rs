//! The contracts at which everything meets: how samples are appended, how series are selected, and the
//! exact merge of sorted series.
//!
//! A write comes down as a [`WriteBatch`] and goes back up as one [`Verdict`] per sample. A query comes down
//! as a [`SelectRequest`] and goes back up as a [`SeriesSet`]: series sorted by labels, samples in encoded
//! chunks. The crate knows no file, no protocol and no place where series live.

mod batch;
mod columns;
mod context;
mod exemplars;
mod histograms;
mod limits;
mod merge;
mod metadata;
mod select;
mod write;

pub use batch::{
    ExemplarRow, HistogramRow, RowName, RowSource, SampleKind, SeriesHandle, SeriesRows, WriteBatch,
};
pub use chunk::ChunkData;
pub use columns::{Columns, decode_series};
pub use context::{Budget, Cancel, Context, Reservation};
pub use exemplars::{Exemplar, Exemplars, MAX_EXEMPLAR_RUNES, SeriesExemplars};
pub use histograms::{HistogramColumns, decode_mixed};
pub use limits::{LimitsOf, TenantLimits};
pub use merge::{Merge, collect, from_entries};
pub use metadata::{Meanings, MetadataRequest, MetadataSource};
pub use model::Error;
pub use select::{
    Hints, LabelNeed, LabelRequest, Listed, Need, Notes, PartialResponse, Select, SelectRequest, SeriesEntry,
    SeriesSet,
};
pub use write::{Append, AppendOutcome, Known, Refusal, Verdict};
