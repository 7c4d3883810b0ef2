//! A bucket and its verbs: list, get, put, delete, each counted, timed, retried and explained.
//!
//! Stands below everything that keeps blocks outside this machine: upload, store gateway, tools. Paths are
//! relative to the `prefix` of the objstore file. It does not know what a block holds.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use block::{BlockId, Meta};
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use model::Kind;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use runtime::World;

use crate::connect::{self, Connected};
use crate::error::{Place, explain};
use crate::parts::blocking;
use crate::{DeletionMark, Error, Operation, Provider, RetryPolicy, config, layout};

/// A bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) provider: Provider,
    name: String,
    pub(crate) endpoint: String,
    pub(crate) prefix: String,
    pub(crate) part_size: usize,
    pub(crate) retry: RetryPolicy,
    pub(crate) world: World,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Relative to the bucket's prefix.
    pub path: String,
    pub size: u64,
    /// Milliseconds since the epoch.
    pub modified_ms: i64,
}

/// One level of a listing: what lies there and the folders below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub objects: Vec<Object>,
    /// Names of the folders, without slashes.
    pub folders: Vec<String>,
}

impl Bucket {
    /// Reads an objstore file's text; makes no request yet. `$(NAME)` is taken from the environment.
    pub fn from_yaml(text: &str, world: &World) -> Result<Bucket, Error> {
        let config = config::parse(text, &|name| std::env::var(name).ok())?;
        for key in &config.ignored {
            tracing::warn!(%key, "objstore key has no effect in this version");
        }
        Ok(Bucket::from_connected(connect::connect(&config, world)?, world))
    }

    /// A bucket in a folder of this machine.
    pub fn filesystem(dir: &FsPath, world: &World) -> Result<Bucket, Error> {
        Ok(Bucket::from_connected(connect::filesystem(dir, world)?, world))
    }

    /// A bucket that is gone with the process.
    pub fn in_memory(world: &World) -> Bucket {
        Bucket::over(Arc::new(object_store::memory::InMemory::new()), "memory", world)
    }

    /// A bucket over any store: for tests and embedders.
    pub fn over(store: Arc<dyn ObjectStore>, name: &str, world: &World) -> Bucket {
        let connected = Connected {
            store,
            provider: Provider::Other,
            bucket: name.to_owned(),
            endpoint: name.to_owned(),
            prefix: String::new(),
            part_size: 5 << 20,
        };
        Bucket::from_connected(connected, world)
    }

    fn from_connected(connected: Connected, world: &World) -> Bucket {
        let Connected { store, provider, bucket, endpoint, prefix, part_size } = connected;
        let inner = Inner {
            store,
            provider,
            name: bucket,
            endpoint,
            prefix,
            part_size,
            retry: RetryPolicy::default(),
            world: world.clone(),
        };
        Bucket { inner: Arc::new(inner) }
    }

    /// The same bucket, retried otherwise.
    pub fn with_retry(&self, retry: RetryPolicy) -> Bucket {
        let inner = &*self.inner;
        let inner = Inner {
            store: inner.store.clone(),
            provider: inner.provider,
            name: inner.name.clone(),
            endpoint: inner.endpoint.clone(),
            prefix: inner.prefix.clone(),
            part_size: inner.part_size,
            retry,
            world: inner.world.clone(),
        };
        Bucket { inner: Arc::new(inner) }
    }

    /// The bucket's name, as metrics and errors show it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What tells this bucket from every other: kind, endpoint, name and prefix. No secret is in it.
    pub fn identity(&self) -> String {
        let Inner { provider, endpoint, name, prefix, .. } = &*self.inner;
        format!("{provider:?} {endpoint} {name} {prefix}")
    }

    pub fn provider(&self) -> Provider {
        self.inner.provider
    }

    // === listing ===

    /// Ids of all folders that are named as blocks are; one listing, other names are passed over.
    pub async fn list_blocks(&self) -> Result<Vec<BlockId>, Error> {
        let level = self.list_level("").await?;
        let mut ids: Vec<BlockId> = level.folders.iter().filter_map(|name| BlockId::parse(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// What lies directly in `folder` (empty: the root).
    pub async fn list_level(&self, folder: &str) -> Result<Level, Error> {
        self.check_folder().await?;
        let at = self.location(folder);
        let listed =
            self.run(Operation::Iter, folder, || self.inner.store.list_with_delimiter(Some(&at))).await?;
        let mut level = Level::default();
        level.objects.extend(listed.objects.iter().map(|o| self.object(o)));
        level.folders.extend(listed.common_prefixes.iter().filter_map(|p| p.filename()).map(str::to_owned));
        Ok(level)
    }

    /// Everything below `folder` (empty: the whole bucket).
    pub async fn list_all(&self, folder: &str) -> Result<Vec<Object>, Error> {
        self.check_folder().await?;
        let at = self.location(folder);
        let listed: Vec<ObjectMeta> = self
            .run(Operation::Iter, folder, || self.inner.store.list(Some(&at)).try_collect::<Vec<_>>())
            .await?;
        Ok(listed.iter().map(|o| self.object(o)).collect())
    }

    /// A folder that is gone would list as an empty bucket, and whoever believed that would forget every block.
    async fn check_folder(&self) -> Result<(), Error> {
        if self.inner.provider != Provider::Filesystem {
            return Ok(());
        }
        let (disk, dir) = (self.inner.world.disk.clone(), PathBuf::from(&self.inner.endpoint));
        match blocking(&self.inner.world, move || Ok(disk.is_dir(&dir))).await {
            Ok(true) => Ok(()),
            _ => Err(Error::new(
                Kind::Unavailable,
                format!(
                    "the folder {} of the bucket is gone; is its file system mounted?",
                    self.inner.endpoint
                ),
            )),
        }
    }

    // === reading ===

    /// A whole object; meant for small ones.
    pub async fn get(&self, path: &str) -> Result<Bytes, Error> {
        let at = self.location(path);
        let bytes = self
            .run(Operation::Get, path, || async { self.inner.store.get(&at).await?.bytes().await })
            .await?;
        self.count_fetched(Operation::Get, bytes.len());
        Ok(bytes)
    }

    /// As [`Bucket::get`]; none if the object is not there.
    pub async fn get_opt(&self, path: &str) -> Result<Option<Bytes>, Error> {
        match self.get(path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes `range` of an object; shorter only where the object ends before.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let at = self.location(path);
        let bytes =
            self.run(Operation::GetRange, path, || self.inner.store.get_range(&at, range.clone())).await?;
        self.count_fetched(Operation::GetRange, bytes.len());
        Ok(bytes)
    }

    /// Several ranges, in their order, at most `at_once` requests at a time. Ranges are fetched as they are:
    /// who wants neighbours joined plans that before.
    pub async fn get_ranges(
        &self,
        path: &str,
        ranges: &[Range<u64>],
        at_once: usize,
    ) -> Result<Vec<Bytes>, Error> {
        futures::stream::iter(ranges.iter().cloned().map(|range| self.get_range(path, range)))
            .buffered(at_once.max(1))
            .try_collect()
            .await
    }

    /// Size in bytes; none if the object is not there.
    pub async fn size(&self, path: &str) -> Result<Option<u64>, Error> {
        let at = self.location(path);
        match self.run(Operation::Attributes, path, || self.inner.store.head(&at)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if error.missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn exists(&self, path: &str) -> Result<bool, Error> {
        let at = self.location(path);
        match self.run(Operation::Exists, path, || self.inner.store.head(&at)).await {
            Ok(_) => Ok(true),
            Err(error) if error.missing => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A block's meta.json; an error with `missing` where there is none.
    pub async fn meta(&self, id: BlockId) -> Result<Meta, Error> {
        let path = layout::of(id, layout::META);
        let bytes = self.get(&path).await?;
        parse_meta(id, &bytes)
    }

    /// A block's deletion mark, if it has one.
    pub async fn deletion_mark(&self, id: BlockId) -> Result<Option<DeletionMark>, Error> {
        let path = layout::of(id, layout::DELETION_MARK);
        self.get_opt(&path).await?.map(|bytes| DeletionMark::parse(&bytes)).transpose()
    }

    // === writing ===

    /// Writes a small object whole.
    pub async fn put(&self, path: &str, content: Bytes) -> Result<(), Error> {
        let at = self.location(path);
        self.run(Operation::Upload, path, || {
            self.inner.store.put(&at, PutPayload::from_bytes(content.clone()))
        })
        .await?;
        self.count_uploaded(content.len() as u64);
        Ok(())
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let at = self.location(path);
        match self.run(Operation::Delete, path, || self.inner.store.delete(&at)).await {
            Err(error) if error.missing => Ok(()),
            done => done,
        }
    }

    /// Deletes a block so that at every moment it is either whole or no block: meta.json first, its deletion
    /// mark last.
    pub async fn delete_block(&self, id: BlockId) -> Result<(), Error> {
        let mark = layout::of(id, layout::DELETION_MARK);
        self.delete(&layout::of(id, layout::META)).await?;
        for object in self.list_all(&id.to_string()).await? {
            if object.path != mark {
                self.delete(&object.path).await?;
            }
        }
        self.delete(&mark).await
    }

    // === the common way of every request ===

    async fn run<T, F, Fut>(&self, operation: Operation, path: &str, request: F) -> Result<T, Error>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, object_store::Error>>,
    {
        let started = self.inner.world.clock.monotonic();
        let mut made = 0;
        let outcome = loop {
            made += 1;
            match request().await {
                Ok(value) => break Ok(value),
                Err(error) => {
                    let error = self.explain(operation, path, error);
                    match self.inner.retry.pause(made, error.kind, self.dice()) {
                        Some(pause) => {
                            tracing::debug!(%error, attempt = made, "bucket operation is tried again");
                            tokio::time::sleep(pause).await;
                        }
                        None => break Err(error),
                    }
                }
            }
        };
        self.observe(operation, started, outcome.as_ref().err());
        outcome
    }

    pub(crate) fn explain(&self, operation: Operation, path: &str, error: object_store::Error) -> Error {
        let inner = &*self.inner;
        let place = Place { provider: inner.provider, bucket: &inner.name, endpoint: &inner.endpoint };
        explain(&place, operation, path, error)
    }

    pub(crate) fn dice(&self) -> u64 {
        RetryPolicy::roll(&self.inner.world)
    }

    /// A missing object is an answer, not a failure.
    pub(crate) fn observe(&self, operation: Operation, started: std::time::Instant, error: Option<&Error>) {
        let labels = [("bucket", self.inner.name.clone()), ("operation", operation.as_str().to_owned())];
        metrics::counter!("thanos_objstore_bucket_operations_total", &labels).increment(1);
        match error {
            Some(error) if !error.missing => {
                metrics::counter!("thanos_objstore_bucket_operation_failures_total", &labels).increment(1);
            }
            _ => {
                let took = self.inner.world.clock.monotonic().saturating_duration_since(started);
                metrics::histogram!("thanos_objstore_bucket_operation_duration_seconds", &labels)
                    .record(took.as_secs_f64());
            }
        }
    }

    fn count_fetched(&self, operation: Operation, bytes: usize) {
        let labels = [("bucket", self.inner.name.clone()), ("operation", operation.as_str().to_owned())];
        metrics::counter!("thanos_objstore_bucket_operation_fetched_bytes_total", &labels)
            .increment(bytes as u64);
    }

    pub(crate) fn count_uploaded(&self, bytes: u64) {
        let labels = [("bucket", self.inner.name.clone()), ("operation", "upload".to_owned())];
        metrics::counter!("thanos_objstore_bucket_operation_transferred_bytes_total", &labels)
            .increment(bytes);
        metrics::gauge!("thanos_objstore_bucket_last_successful_upload_time", "bucket" => self.inner.name.clone())
            .set(self.inner.world.clock.now_ms() as f64 / 1000.0);
    }

    pub(crate) fn location(&self, path: &str) -> Path {
        // `from` splits at slashes and drops empty parts, so that prefix and path may each be empty.
        Path::from(format!("{}/{path}", self.inner.prefix))
    }

    fn object(&self, meta: &ObjectMeta) -> Object {
        let whole = meta.location.as_ref();
        let path = whole.strip_prefix(&self.inner.prefix).unwrap_or(whole).trim_start_matches('/');
        Object { path: path.to_owned(), size: meta.size, modified_ms: meta.last_modified.timestamp_millis() }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("provider", &self.inner.provider)
            .field("name", &self.inner.name)
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

/// Checks that a meta.json belongs to the block in whose folder it lies.
pub(crate) fn parse_meta(id: BlockId, bytes: &[u8]) -> Result<Meta, Error> {
    let meta = Meta::parse(bytes)
        .map_err(|e| Error::with_source(Kind::Corrupt, format!("block {id}: {}", e.message), e))?;
    if meta.ulid != id {
        return Err(Error::new(
            Kind::Corrupt,
            format!("block {id}: meta.json says it is block {}", meta.ulid),
        ));
    }
    Ok(meta)
}
