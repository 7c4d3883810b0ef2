//! Many remote blocks as one [`Select`]: read side by side, merged in order.
//!
//! Each block is a stream that works one batch ahead of its reader, on threads kept for that, so that the waiting for
//! many blocks is done once and not in turn. A block that cannot be read fails the answer, or, where the asker takes
//! partial answers, is left out with a warning that names it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use block::BlockId;
use model::{Kind, Labels, TimeRange};
use storage::{
    Context, LabelRequest, Listed, Merge, Notes, PartialResponse, Reservation, Select, SelectRequest,
    SeriesEntry, SeriesSet,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::Error;
use crate::blocks::Limited;
use crate::pages::Spent;
use crate::remote::{Ask, Batch, RemoteBlock, Scan};
use crate::wait::Waiter;

/// Bytes of chunks that all streams of one answer fetch ahead together.
const AHEAD: u64 = 64 << 20;
/// No stream fetches less than this, or more than that, in one batch.
const LEAST_BATCH: u64 = 256 << 10;
const MOST_BATCH: u64 = 8 << 20;

/// What every group of a store has in common.
pub(crate) struct Reading {
    pub waiter: Waiter,
    /// Blocks at work at the same time.
    pub permits: Arc<Semaphore>,
    /// Bytes one call may fetch; 0 is no limit.
    pub downloaded_limit: u64,
}

/// Blocks that share external labels.
pub(crate) struct Group {
    /// External labels.
    pub labels: Labels,
    /// Cover of the blocks' ranges.
    pub range: TimeRange,
    /// By their times.
    pub blocks: Vec<Arc<RemoteBlock>>,
    pub reading: Arc<Reading>,
}

impl Group {
    pub(crate) fn new(labels: Labels, mut blocks: Vec<Arc<RemoteBlock>>, reading: Arc<Reading>) -> Group {
        blocks.sort_by_key(|block| (block.meta.min_time, block.id));
        let range = blocks.iter().fold(TimeRange::EMPTY, |all, block| all.cover(&block.range()));
        Group { labels, range, blocks, reading }
    }

    fn blocks_in(&self, range: TimeRange) -> Vec<Arc<RemoteBlock>> {
        if range.is_empty() {
            return Vec::new();
        }
        self.blocks.iter().filter(|block| block.range().overlaps(&range)).cloned().collect()
    }

    fn ask(&self, range: TimeRange, matchers: &[model::Matcher], blocks: usize, context: &Context) -> Ask {
        Ask {
            range,
            matchers: matchers.into(),
            limit: 0,
            skip_chunks: false,
            context: context.clone(),
            spent: Arc::new(Spent::new(self.reading.downloaded_limit)),
            batch_bytes: (AHEAD / blocks.max(1) as u64).clamp(LEAST_BATCH, MOST_BATCH),
        }
    }

    /// Asks every block for a set of names and unites them.
    fn list(
        &self,
        request: &LabelRequest,
        context: &Context,
        of: impl Fn(&Arc<RemoteBlock>, &Ask) -> Result<BTreeSet<String>, Error> + Clone + Send + 'static,
    ) -> Result<Listed, storage::Error> {
        let blocks = self.blocks_in(request.range);
        let ask = self.ask(request.range, &request.matchers, blocks.len(), context);
        let jobs: Vec<_> = blocks
            .iter()
            .map(|block| {
                let (block, ask, of) = (block.clone(), ask.clone(), of.clone());
                (block.id, self.reading.start(move || of(&block, &ask)))
            })
            .collect();
        let mut values = BTreeSet::new();
        let mut notes = Notes::default();
        for (id, job) in jobs {
            match self.reading.finish(context, job) {
                Ok(found) => values.extend(found),
                Err(error) => self.reading.left_out(id, error, context, &mut notes)?,
            }
        }
        let mut values: Vec<String> = values.into_iter().collect();
        if request.limit > 0 && values.len() > request.limit {
            values.truncate(request.limit);
            notes.warn("results truncated due to limit");
        }
        Ok(Listed { values, notes })
    }
}

impl Select for Group {
    fn select(
        &self,
        request: &SelectRequest,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, storage::Error> {
        let blocks = self.blocks_in(request.range);
        metrics::histogram!("thanos_bucket_store_series_blocks_queried").record(blocks.len() as f64);
        let ask = self.ask(request.range, &request.matchers, blocks.len(), context);
        let ask = Ask { limit: request.limit, skip_chunks: request.skip_chunks, ..ask };
        let streams = blocks.into_iter().map(|block| {
            Box::new(Stream::start(block, ask.clone(), self.reading.clone())) as Box<dyn SeriesSet>
        });
        let merged = Merge::new(streams.collect());
        let left = if request.limit == 0 { usize::MAX } else { request.limit };
        Ok(Box::new(Limited { set: merged, left }))
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, storage::Error> {
        self.list(request, context, |block, ask| block.label_names(ask))
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest,
        context: &Context,
    ) -> Result<Listed, storage::Error> {
        let name = name.to_owned();
        self.list(request, context, move |block, ask| block.label_values(&name, ask))
    }
}

impl Reading {
    /// Runs `work` on a thread that may block, once a permit is free.
    fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> JoinHandle<Result<T, Error>> {
        let permits = self.permits.clone();
        self.waiter.handle.spawn(async move {
            let permit = permits.acquire_owned().await;
            let done = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work()
            });
            match done.await {
                Ok(done) => done,
                Err(error) => Err(Error::new(Kind::Internal, format!("reading a block broke off: {error}"))),
            }
        })
    }

    fn finish<T>(&self, context: &Context, job: JoinHandle<Result<T, Error>>) -> Result<T, Error> {
        self.waiter.wait(context, async {
            match job.await {
                Ok(done) => done,
                Err(error) => Err(Error::new(Kind::Internal, format!("reading a block broke off: {error}"))),
            }
        })
    }

    /// Decides what a block's failure does to the answer: a warning, or the error. A query that ended, or that is
    /// over its limits, is never answered in part.
    fn left_out(
        &self,
        id: BlockId,
        mut error: Error,
        context: &Context,
        notes: &mut Notes,
    ) -> Result<(), storage::Error> {
        self.waiter.check(context)?;
        if error.kind == Kind::Exhausted {
            return Err(error);
        }
        if error.kind == Kind::Corrupt {
            error.message.push_str(&format!("; delete block {id} from the bucket, or mark it for deletion"));
        }
        metrics::counter!("tributary_store_block_read_failures_total").increment(1);
        tracing::warn!(block = %id, %error, kind = ?error.kind, "block cannot be read");
        match context.partial {
            PartialResponse::Abort => Err(error),
            PartialResponse::Warn => {
                notes.warn(format!("block {id} is left out: {error}"));
                Ok(())
            }
        }
    }
}

type Job = JoinHandle<Result<(Scan, Batch), Error>>;

/// The series of one block, one batch ahead.
struct Stream {
    id: BlockId,
    ask: Ask,
    reading: Arc<Reading>,
    now: VecDeque<SeriesEntry>,
    /// Memory of the batch at hand.
    _held: Option<Reservation>,
    next: Option<Job>,
    notes: Notes,
}

impl Stream {
    fn start(block: Arc<RemoteBlock>, ask: Ask, reading: Arc<Reading>) -> Stream {
        let (id, asked) = (block.id, ask.clone());
        let next = reading.start(move || {
            let mut scan = block.scan(&asked).map_err(|e| e.within(format_args!("block {}", block.id)))?;
            let batch = scan.batch(&asked)?;
            Ok((scan, batch))
        });
        Stream {
            id,
            ask,
            reading,
            now: VecDeque::new(),
            _held: None,
            next: Some(next),
            notes: Notes::default(),
        }
    }
}

impl SeriesSet for Stream {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        loop {
            if let Some(entry) = self.now.pop_front() {
                return Ok(Some(entry));
            }
            let Some(job) = self.next.take() else { return Ok(None) };
            match self.reading.finish(&self.ask.context, job) {
                Ok((_, batch)) if batch.entries.is_empty() => return Ok(None),
                Ok((mut scan, batch)) => {
                    self.now = batch.entries.into();
                    self._held = batch.held;
                    let ask = self.ask.clone();
                    debug_assert_eq!(scan.id(), self.id);
                    self.next = Some(self.reading.start(move || {
                        let batch = scan.batch(&ask)?;
                        Ok((scan, batch))
                    }));
                }
                Err(error) => {
                    self.reading.left_out(self.id, error, &self.ask.context, &mut self.notes)?;
                    return Ok(None);
                }
            }
        }
    }

    fn notes(&mut self) -> Notes {
        self.notes.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What waits for a permit does not start; what runs ends with its batch.
        if let Some(job) = &self.next {
            job.abort();
        }
    }
}
