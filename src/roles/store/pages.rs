//! Reads byte ranges of a bucket's files by pages: cached, joined into few requests, each page fetched once even
//! if many ask for it at the same time.
//!
//! A page is 64 KiB of one file. A request costs about as much time as three megabytes of transfer, so missing
//! pages that lie near one another are fetched in one request, and long stretches are cut so that they travel
//! side by side.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use block::BlockId;
use bucket::{Bucket, layout};
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use model::Kind;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::Error;
use crate::cache::Cache;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 64 << 10;
/// Pages between two missing ones that are fetched along rather than starting another request.
const GAP: u64 = 8;
/// Pages of one request at most.
const LONGEST: u64 = 64;
/// Requests of one read at the same time.
const SIDE_BY_SIDE: usize = 16;
/// Requests of the whole store at the same time.
const ALL_REQUESTS: usize = 64;

/// A file of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FileKind {
    Index,
    /// By its number from 0.
    Segment(u32),
}

impl FileKind {
    pub(crate) fn path(self, id: BlockId) -> String {
        match self {
            FileKind::Index => layout::of(id, layout::INDEX),
            FileKind::Segment(n) => layout::segment(id, n),
        }
    }
}

/// What is read, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Postings,
    Series,
    Chunks,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Purpose::Postings => "Postings",
            Purpose::Series => "Series",
            Purpose::Chunks => "Chunks",
        }
    }
}

/// Bytes that one call has fetched, and may fetch.
pub(crate) struct Spent {
    bytes: AtomicU64,
    /// 0 is no limit.
    limit: u64,
}

impl Spent {
    pub(crate) fn new(limit: u64) -> Spent {
        Spent { bytes: AtomicU64::new(0), limit }
    }

    fn add(&self, bytes: u64) -> Result<(), Error> {
        let total = self.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if self.limit > 0 && total > self.limit {
            return Err(Error::new(
                Kind::Exhausted,
                format!(
                    "the call needs {total} bytes or more from the bucket, --store.grpc.downloaded-bytes-limit is {}; \
                     select fewer series or a shorter range, or raise the limit",
                    self.limit
                ),
            ));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    block: BlockId,
    file: FileKind,
    page: u64,
}

type Arriving = watch::Receiver<Option<Bytes>>;

/// The one way to the bytes of remote blocks.
pub(crate) struct Pages {
    bucket: Bucket,
    index: Cache<Key>,
    chunks: Cache<Key>,
    requests: Semaphore,
    arriving: Mutex<HashMap<Key, Arriving>>,
}

impl Pages {
    /// Limits in bytes.
    pub(crate) fn new(bucket: Bucket, index_limit: u64, chunk_limit: u64) -> Pages {
        Pages {
            bucket,
            index: Cache::new(index_limit),
            chunks: Cache::new(chunk_limit),
            requests: Semaphore::new(ALL_REQUESTS),
            arriving: Mutex::default(),
        }
    }

    /// Bytes held by the caches.
    pub(crate) fn memory(&self) -> usize {
        self.index.bytes() + self.chunks.bytes()
    }

    /// The bytes of each range, in order; shorter only where the file ends.
    pub(crate) async fn read(
        &self,
        block: BlockId,
        file: FileKind,
        ranges: &[Range<u64>],
        purpose: Purpose,
        spent: &Spent,
    ) -> Result<Vec<Bytes>, Error> {
        let cache = self.cache(file);
        let wanted: BTreeSet<u64> = ranges.iter().flat_map(pages_of).collect();
        let key = |page: u64| Key { block, file, page };
        let mut have: HashMap<u64, Bytes> = HashMap::with_capacity(wanted.len());
        // Every range begins within the file, and may end behind it.
        let sure = ranges
            .iter()
            .filter(|range| !range.is_empty())
            .map(|range| range.start / PAGE)
            .max()
            .unwrap_or(0);
        let mut missing = Vec::new();
        for &page in &wanted {
            match cache.get(&key(page)) {
                Some(bytes) => drop(have.insert(page, bytes)),
                None => missing.push(page),
            }
        }
        count(purpose, wanted.len(), have.len());
        if !missing.is_empty() {
            let (claims, mut others) = self.claim(&missing, key);
            let own: Vec<u64> = claims.pages.keys().copied().collect();
            self.fetch(block, file, (&own, sure), spent, &mut have, Some(claims)).await?;
            // Pages that somebody else was fetching already; where that failed, they are fetched here.
            let mut again = Vec::new();
            for (page, arriving) in &mut others {
                match arriving.wait_for(Option::is_some).await {
                    Ok(bytes) => have.extend(bytes.clone().map(|bytes| (*page, bytes))),
                    Err(_) => again.push(*page),
                }
            }
            if !again.is_empty() {
                self.fetch(block, file, (&again, sure), spent, &mut have, None).await?;
            }
        }
        ranges.iter().map(|range| assemble(range, &have)).collect()
    }

    /// Divides missing pages into those this call fetches and those that are on their way already.
    fn claim(&self, missing: &[u64], key: impl Fn(u64) -> Key) -> (Claims<'_>, Vec<(u64, Arriving)>) {
        let mut arriving = self.arriving.lock();
        let mut claims = Claims { of: self, pages: BTreeMap::new() };
        let mut others = Vec::new();
        for &page in missing {
            match arriving.get(&key(page)) {
                Some(other) => others.push((page, other.clone())),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    arriving.insert(key(page), receiver);
                    claims.pages.insert(page, (key(page), sender));
                }
            }
        }
        (claims, others)
    }

    /// Fetches pages of a file that has page `sure` and may end there.
    async fn fetch(
        &self,
        block: BlockId,
        file: FileKind,
        (pages, sure): (&[u64], u64),
        spent: &Spent,
        have: &mut HashMap<u64, Bytes>,
        mut claims: Option<Claims<'_>>,
    ) -> Result<(), Error> {
        let path = file.path(block);
        let requests = join(pages, sure);
        for request in &requests {
            spent.add((request.end - request.start) * PAGE)?;
        }
        let mut arrived = futures::stream::iter(requests)
            .map(|request| {
                let path = &path;
                async move {
                    let _permit = self.requests.acquire().await;
                    let range = request.start * PAGE..request.end * PAGE;
                    let bytes = self.bucket.get_range(path, range).await?;
                    Ok::<_, Error>((request, bytes))
                }
            })
            .buffer_unordered(SIDE_BY_SIDE);
        while let Some((request, bytes)) = arrived.try_next().await? {
            for page in request.clone() {
                if pages.binary_search(&page).is_err() {
                    continue;
                }
                let start = ((page - request.start) * PAGE).min(bytes.len() as u64) as usize;
                let end = (start + PAGE as usize).min(bytes.len());
                // A copy of its own, so that a page kept does not keep its whole request.
                let one = Bytes::copy_from_slice(&bytes[start..end]);
                self.cache(file).put(Key { block, file, page }, one.clone());
                if let Some(claims) = &mut claims {
                    claims.deliver(page, &one);
                }
                have.insert(page, one);
            }
        }
        Ok(())
    }

    fn cache(&self, file: FileKind) -> &Cache<Key> {
        match file {
            FileKind::Index => &self.index,
            FileKind::Segment(_) => &self.chunks,
        }
    }
}

/// Pages that one call has promised to fetch. Dropped early (an error, a caller who left), it lets those who wait
/// fetch for themselves.
struct Claims<'a> {
    of: &'a Pages,
    pages: BTreeMap<u64, (Key, watch::Sender<Option<Bytes>>)>,
}

impl Claims<'_> {
    fn deliver(&mut self, page: u64, bytes: &Bytes) {
        if let Some((key, sender)) = self.pages.remove(&page) {
            sender.send_replace(Some(bytes.clone()));
            self.of.arriving.lock().remove(&key);
        }
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut arriving = self.of.arriving.lock();
        self.pages.values().for_each(|(key, _)| drop(arriving.remove(key)));
    }
}

fn pages_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) }
}

/// Joins ascending pages into requests: ranges of pages with small gaps, none too long. The page after `sure`, which may
/// lie behind the end of the file, is asked for together with that one: a bucket refuses a request that begins there.
fn join(pages: &[u64], sure: u64) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for &page in pages {
        match out.last_mut() {
            Some(last) if page - last.end <= GAP && page + 1 - last.start <= LONGEST => last.end = page + 1,
            _ if page == sure + 1 => out.push(sure..page + 1),
            _ => out.push(page..page + 1),
        }
    }
    out
}

fn assemble(range: &Range<u64>, have: &HashMap<u64, Bytes>) -> Result<Bytes, Error> {
    let pages = pages_of(range);
    let lost = || Error::new(Kind::Internal, "a page that was fetched is not there");
    let within = |page: u64, bytes: &Bytes| {
        let base = page * PAGE;
        let start = range.start.saturating_sub(base).min(bytes.len() as u64) as usize;
        let end = (range.end - base).min(bytes.len() as u64) as usize;
        start..end.max(start)
    };
    if pages.end - pages.start == 1 {
        let bytes = have.get(&pages.start).ok_or_else(lost)?;
        return Ok(bytes.slice(within(pages.start, bytes)));
    }
    let mut out = Vec::with_capacity(pages.clone().map(|p| have.get(&p).map_or(0, Bytes::len)).sum());
    for page in pages {
        let bytes = have.get(&page).ok_or_else(lost)?;
        out.extend_from_slice(&bytes[within(page, bytes)]);
        if (bytes.len() as u64) < PAGE {
            break;
        }
    }
    Ok(out.into())
}

fn count(purpose: Purpose, asked: usize, hit: usize) {
    let item = purpose.as_str();
    metrics::counter!("thanos_store_index_cache_requests_total", "item_type" => item).increment(asked as u64);
    metrics::counter!("thanos_store_index_cache_hits_total", "item_type" => item).increment(hit as u64);
}

/// Shares pages between calls.
pub(crate) type SharedPages = Arc<Pages>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use runtime::World;

    use super::*;

    #[test]
    fn requests_are_few_and_not_too_long() {
        assert_eq!(join(&[0, 1, 2, 5, 30, 31], 31), [0..6, 30..32]);
        let many: Vec<u64> = (0..200).collect();
        assert_eq!(join(&many, 199), [0..64, 64..128, 128..192, 192..200]);
        assert_eq!(join(&[], 0), []);
        assert_eq!(join(&[3, 31], 30), [3..4, 30..32]);
    }

    /// How long a chunk is stands in the chunk, so more is asked for than there may be.
    #[tokio::test]
    async fn a_range_may_end_pages_behind_its_file() {
        for short in [0, 1, 771] {
            let file: Vec<u8> = (0..2 * PAGE - short).map(|n| (n / 7) as u8).collect();
            let bucket = Bucket::over(Arc::new(InMemory::new()), "short", &World::real());
            let id = BlockId::from_parts(1, 1);
            bucket.put(&FileKind::Segment(0).path(id), file.clone().into()).await.unwrap();
            for limit in [0, 1 << 30] {
                let pages = Pages::new(bucket.clone(), limit, limit);
                let spent = Spent::new(0);
                let len = file.len();
                // Of the second, one page is there already.
                for range in [len - 900..len - 800, len - 800..len + 4096, len - 900..len + 4096] {
                    let within = range.start as u64..range.end as u64;
                    let read = pages
                        .read(
                            id,
                            FileKind::Segment(0),
                            std::slice::from_ref(&within),
                            Purpose::Chunks,
                            &spent,
                        )
                        .await;
                    assert_eq!(read.unwrap(), [&file[range.start..len.min(range.end)]]);
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn any_range_is_what_the_file_has_and_is_fetched_once() {
        let slow =
            ThrottleConfig { wait_get_per_call: Duration::from_millis(30), ..ThrottleConfig::default() };
        let store = ThrottledStore::new(InMemory::new(), slow);
        let bucket = Bucket::over(Arc::new(store), "slow", &World::real());
        let id = BlockId::from_parts(1, 1);
        let file: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        bucket.put(&FileKind::Index.path(id), file.clone().into()).await.unwrap();
        let ranges = [0..5, 65_530..65_540, 100..100, 60_000..299_999, 299_990..400_000, 0..300_000];
        for limit in [0, 1 << 30] {
            let pages = Pages::new(bucket.clone(), limit, limit);
            let spent = Spent::new(0);
            let (a, b) = tokio::join!(
                pages.read(id, FileKind::Index, &ranges, Purpose::Series, &spent),
                pages.read(id, FileKind::Index, &ranges, Purpose::Series, &spent),
            );
            for got in [a.unwrap(), b.unwrap()] {
                for (range, bytes) in ranges.iter().zip(got) {
                    let end = (range.end as usize).min(file.len());
                    assert_eq!(bytes, file[range.start as usize..end], "{range:?}");
                }
            }
            assert_eq!(spent.bytes.load(Relaxed), 7 * PAGE, "fetched once for both");
            assert!(pages.arriving.lock().is_empty());
        }
        let pages = Pages::new(bucket, 0, 0);
        let all = std::slice::from_ref(&ranges[5]);
        let error = pages.read(id, FileKind::Index, all, Purpose::Series, &Spent::new(PAGE)).await;
        assert_eq!(error.unwrap_err().kind, Kind::Exhausted);
        assert!(pages.arriving.lock().is_empty(), "a failed call leaves nobody waiting");
    }
}
