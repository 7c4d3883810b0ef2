//! The bucket's storage: objects in memory, requests that fail while the bucket is down, and lost objects where it lies.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use runtime::Chance;
use testkit::SeededChance;

use crate::breaks::Break;

/// What every node of a run uploads to.
pub struct Store {
    inner: InMemory,
    /// Of 100 requests, so many fail while the bucket is down: three in four.
    down: AtomicBool,
    chance: SeededChance,
    broken: Option<Break>,
}

impl Store {
    pub fn new(seed: u64, broken: Option<Break>) -> Arc<Store> {
        let chance = SeededChance::new(seed ^ 0x6275);
        Arc::new(Store { inner: InMemory::new(), down: AtomicBool::new(false), chance, broken })
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Relaxed);
    }

    fn ask(&self) -> Result<()> {
        match self.down.load(Relaxed) && self.chance.below(4) > 0 {
            false => Ok(()),
            true => Err(Error::Generic { store: "simulated", source: "the bucket is down".into() }),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.ask()?;
        if self.broken == Some(Break::BucketLies) && self.chance.below(10) == 0 {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let done = self.inner.put_opts(at, payload, opts).await?;
        // It is there, but its writer does not learn of it.
        self.ask()?;
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.ask()?;
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.ask()?;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.ask() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.ask()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.ask()?;
        self.inner.copy_opts(from, to, options).await
    }
}
