//! A store that fails when told, and block folders to ship.
#![allow(dead_code)]

use std::fmt;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use block::{BlockId, BlockWriter, Meta, MetaSpec, ThanosSpec};
use bucket::{Bucket, RetryPolicy};
use bytes::Bytes;
use chunk::ChunkData;
use futures::stream::{BoxStream, StreamExt};
use model::{Labels, Sample, TimeRange};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;
use runtime::World;

type Judge = Box<dyn FnMut(&str, &str) -> Option<Error> + Send>;

/// An in-memory store that notes every call (`put a/b`) and asks before it does it.
pub struct Faulty {
    pub inner: InMemory,
    log: Arc<Mutex<Vec<String>>>,
    judge: Arc<Mutex<Judge>>,
    /// Asked once it is done: what it answers is all that the caller hears.
    after: Arc<Mutex<Judge>>,
}

impl Faulty {
    pub fn new() -> Arc<Faulty> {
        let judge: Judge = Box::new(|_, _| None);
        let after: Judge = Box::new(|_, _| None);
        Arc::new(Faulty {
            inner: InMemory::new(),
            log: Arc::default(),
            judge: Arc::new(Mutex::new(judge)),
            after: Arc::new(Mutex::new(after)),
        })
    }

    /// What happened since the last look.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    pub fn on_each(&self, judge: impl FnMut(&str, &str) -> Option<Error> + Send + 'static) {
        *self.judge.lock().unwrap() = Box::new(judge);
    }

    /// Asks of what was done to the bucket: an error is an answer that got lost.
    pub fn after_each(&self, judge: impl FnMut(&str, &str) -> Option<Error> + Send + 'static) {
        *self.after.lock().unwrap() = Box::new(judge);
    }

    pub fn heal(&self) {
        self.on_each(|_, _| None);
        self.after_each(|_, _| None);
    }

    pub fn bucket(self: &Arc<Self>, world: &World) -> Bucket {
        let quick = RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(2),
        };
        Bucket::over(self.clone(), "test", world).with_retry(quick)
    }

    fn ask(&self, verb: &str, path: &str) -> Result<()> {
        self.log.lock().unwrap().push(format!("{verb} {path}"));
        let refused = (self.judge.lock().unwrap())(verb, path);
        refused.map_or(Ok(()), Err)
    }
}

pub fn unavailable() -> Error {
    let text = "Server returned non-2xx status code: 503 Service Unavailable: ";
    Error::Generic { store: "test", source: text.to_owned().into() }
}

pub fn denied(path: &str) -> Error {
    Error::PermissionDenied { path: path.to_owned(), source: "<Code>AccessDenied</Code>".to_owned().into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.ask("put", at.as_ref())?;
        let done = self.inner.put_opts(at, payload, opts).await?;
        (self.after.lock().unwrap())("put", at.as_ref()).map_or(Ok(done), Err)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.ask("begin", at.as_ref())?;
        let inner = self.inner.put_multipart_opts(at, opts).await?;
        let (log, judge, after) = (self.log.clone(), self.judge.clone(), self.after.clone());
        Ok(Box::new(FaultyUpload { inner, path: at.to_string(), log, judge, after }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.ask(if options.head { "head" } else { "get" }, at.as_ref())?;
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.ask("ranges", at.as_ref())?;
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let log = self.log.clone();
        let noted = locations.inspect(move |at| {
            if let Ok(at) = at {
                log.lock().unwrap().push(format!("delete {at}"));
            }
        });
        self.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.ask("list", prefix.map_or("", |p| p.as_ref())) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.ask("level", prefix.map_or("", |p| p.as_ref()))?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    path: String,
    log: Arc<Mutex<Vec<String>>>,
    judge: Arc<Mutex<Judge>>,
    after: Arc<Mutex<Judge>>,
}

impl FaultyUpload {
    fn ask(&self, verb: &str) -> Result<()> {
        self.log.lock().unwrap().push(format!("{verb} {}", self.path));
        (self.judge.lock().unwrap())(verb, &self.path).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyUpload")
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.ask("part") {
            Ok(()) => self.inner.put_part(data),
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.ask("complete")?;
        let done = self.inner.complete().await?;
        (self.after.lock().unwrap())("complete", &self.path).map_or(Ok(done), Err)
    }

    async fn abort(&mut self) -> Result<()> {
        self.ask("abort")?;
        self.inner.abort().await
    }
}

/// A folder that looks like a block: one segment of `segment` bytes and a small index.
pub fn folder(world: &World, parent: &FsPath, id: BlockId, min_time: i64, segment: usize) -> (PathBuf, Meta) {
    let dir = parent.join(id.to_string());
    world.disk.create_dir_all(&dir.join("chunks")).unwrap();
    let content: Vec<u8> = (0..segment).map(|n| (n * 31 % 251) as u8).collect();
    world.disk.write_atomic(&dir.join("chunks/000001"), &content).unwrap();
    world.disk.write_atomic(&dir.join("index"), b"an index").unwrap();
    let text = format!(
        "{{\"ulid\":\"{id}\",\"minTime\":{min_time},\"maxTime\":{},\"version\":1,\"stats\":{{\"numSamples\":7}},\
         \"compaction\":{{\"level\":1,\"sources\":[\"{id}\"]}},\"thanos\":{{\"labels\":{{\"replica\":\"a\"}},\
         \"source\":\"receive\"}}}}",
        min_time + 100
    );
    let meta = Meta::parse(text.as_bytes()).unwrap();
    world.disk.write_atomic(&dir.join("meta.json"), &meta.to_json().unwrap()).unwrap();
    (dir, meta)
}

/// A block of one series with `samples` samples that do not compress.
pub fn real(world: &World, parent: &FsPath, id: BlockId, min_time: i64, samples: usize) -> (PathBuf, Meta) {
    let mut writer = BlockWriter::create(world, parent, id).unwrap();
    let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
    let all: Vec<Sample> = (0..samples as i64)
        .map(|i| Sample { timestamp: min_time + i, value: ((i as f64) * 0.7).sin() })
        .collect();
    let chunks: Vec<ChunkData> = all
        .chunks(120)
        .map(|some| ChunkData {
            range: TimeRange::new(some[0].timestamp, some[some.len() - 1].timestamp),
            encoding: chunk::Encoding::Xor,
            bytes: chunk::xor::encode(some.iter().copied()).unwrap().into(),
        })
        .collect();
    writer.add_series(&labels, &chunks).unwrap();
    let thanos = ThanosSpec { labels: [("r".to_owned(), "a".to_owned())].into(), ..ThanosSpec::default() };
    let meta = writer.finish(MetaSpec { thanos: Some(thanos), ..MetaSpec::default() }).unwrap().unwrap();
    (parent.join(id.to_string()), meta)
}

pub fn id(n: i64) -> BlockId {
    BlockId::from_parts(n, 7)
}
