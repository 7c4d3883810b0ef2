//! The read contract: what is asked, and series with their chunks as the answer.

use model::{Labels, Matcher, TimeRange};

use crate::{ChunkData, Context, Error};

/// Somebody who can answer for series: a head, a block, a remote store, or many of them at once.
///
/// Calls block the thread that makes them; implementations that wait for a network do their waiting behind a
/// bounded channel. They run on the pools kept for queries, never on a thread that drives sockets.
pub trait Select: Send + Sync {
    /// Series whose labels pass all matchers, sorted by labels, each with every chunk that overlaps the range.
    /// Chunks may reach beyond the range and may overlap one another; [`crate::decode_series`] settles both.
    fn select(&self, request: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error>;

    /// As [`Select::select`], for an asker who needs less: what is not needed may be left away, and all of it may
    /// come as well. Each series comes once, but where labels were left away several may look the same.
    fn scan(
        &self,
        request: &SelectRequest,
        need: &Need,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, Error> {
        let _ = need;
        self.select(request, context)
    }

    /// Names of the labels of all matching series, sorted.
    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, Error>;

    /// Values of label `name` over all matching series, sorted.
    fn label_values(&self, name: &str, request: &LabelRequest, context: &Context) -> Result<Listed, Error>;
}

/// What to select.
#[derive(Clone, Debug)]
pub struct SelectRequest {
    /// Closed range of the samples wanted.
    pub range: TimeRange,
    pub matchers: Vec<Matcher>,
    pub hints: Hints,
    /// At most this many series; 0 means all.
    pub limit: usize,
    /// Labels alone are wanted: entries come without chunks.
    pub skip_chunks: bool,
}

impl SelectRequest {
    /// All series that pass `matchers`, with their samples in `range`.
    pub fn new(range: TimeRange, matchers: Vec<Matcher>) -> SelectRequest {
        SelectRequest { range, matchers, hints: Hints::default(), limit: 0, skip_chunks: false }
    }
}

/// What of an answer is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub labels: LabelNeed,
    /// Series sorted by all their labels; any order else.
    pub sorted: bool,
    /// All samples; else only each series' newest one in the range, stale marker or not.
    pub all_samples: bool,
}

/// Labels that are needed, by name, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelNeed {
    All,
    Only(Vec<String>),
    Except(Vec<String>),
}

impl Need {
    /// Everything that [`Select::select`] gives.
    pub fn everything() -> Need {
        Need { labels: LabelNeed::All, sorted: true, all_samples: true }
    }
}

/// What the asker will do with the answer; never changes what is right, only what is cheap.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Milliseconds between evaluation steps; 0 for an instant query.
    pub step: i64,
    /// The function around the selector, empty if none.
    pub function: String,
    /// Length of the range selector in milliseconds; 0 if none.
    pub range: i64,
    /// Grouping labels of the aggregation around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` is `by` (else `without`).
    pub by: bool,
    /// Coarsest resolution that may be used, in milliseconds; 0 means raw samples only.
    pub max_resolution: i64,
    /// Labels removed from results before merging (replica labels).
    pub without_labels: Vec<String>,
}

/// What to list.
#[derive(Clone, Debug)]
pub struct LabelRequest {
    pub range: TimeRange,
    /// Empty: over all series.
    pub matchers: Vec<Matcher>,
    /// At most this many; 0 means all. A list that was cut says so in its notes.
    pub limit: usize,
}

/// Names or values, sorted and unique, with what has to be said about them.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub values: Vec<String>,
    pub notes: Notes,
}

/// Warnings and infos that belong to an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

impl Notes {
    /// Adds a warning unless it is there already.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// Takes over another's notes.
    pub fn absorb(&mut self, other: Notes) {
        for text in other.warnings {
            self.warn(text);
        }
        for text in other.infos {
            if !self.infos.contains(&text) {
                self.infos.push(text);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }
}

/// What becomes of a source that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialResponse {
    /// The answer goes on without it, with a warning that names it.
    Warn,
    /// The query fails.
    Abort,
}

/// One series and its chunks, by (start, end).
#[derive(Clone, Debug)]
pub struct SeriesEntry {
    pub labels: Labels,
    pub chunks: Vec<ChunkData>,
}

/// Series in the order of their labels; equal labels are never revisited once left.
pub trait SeriesSet: Send {
    /// The next series, or none at the end. After an error or the end it is not called again.
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error>;

    /// What has to be said about the answer; complete only after the end.
    fn notes(&mut self) -> Notes {
        Notes::default()
    }
}
