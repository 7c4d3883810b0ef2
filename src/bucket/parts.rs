//! Files of this machine on their way into a bucket: read in pieces, sent in parts, never whole in memory; into a folder of
//! the same file system by a second name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use model::Kind;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use runtime::World;

use crate::{Bucket, Error, Operation, Provider};

/// Parts of one file on their way at once; with the part size this bounds an upload's memory.
const PARTS_IN_FLIGHT: usize = 3;

impl Bucket {
    /// Uploads a file of this machine, in parts where it is large; answers its size. Memory: a few parts. The file must be
    /// durable and must not change any more: a bucket on the same file system gets no copy of it.
    pub async fn put_file(&self, path: &str, file: &Path) -> Result<u64, Error> {
        let source = LocalFile::open(&self.inner.world, file).await?;
        if self.link(path, file).await {
            self.count_uploaded(source.len);
            return Ok(source.len);
        }
        if source.len <= self.inner.part_size as u64 {
            let content = source.read(0, source.len as usize).await?;
            self.put(path, content).await?;
            return Ok(source.len);
        }
        let started = self.inner.world.clock.monotonic();
        let mut made = 0;
        let outcome = loop {
            made += 1;
            match self.put_parts(path, &source).await {
                Err(error) => match self.inner.retry.pause(made, error.kind, self.dice()) {
                    Some(pause) => {
                        tracing::debug!(path, %error, attempt = made, "upload in parts starts again");
                        tokio::time::sleep(pause).await;
                    }
                    None => break Err(error),
                },
                done => break done,
            }
        };
        self.observe(Operation::Upload, started, outcome.as_ref().err());
        outcome?;
        self.count_uploaded(source.len);
        Ok(source.len)
    }

    /// Gives the file its name in the bucket, durable. False: it has to be copied.
    async fn link(&self, path: &str, file: &Path) -> bool {
        if self.inner.provider != Provider::Filesystem {
            return false;
        }
        let root = Path::new(&self.inner.endpoint).join(&self.inner.prefix);
        let (disk, from, to) = (self.inner.world.disk.clone(), file.to_owned(), root.join(path));
        let linked = blocking(&self.inner.world, move || {
            let folders = to.ancestors().skip(1).take_while(|folder| folder.starts_with(&root));
            if let Some(parent) = to.parent() {
                disk.create_dir_all(parent)?;
            }
            // Part of it, from an upload that was broken off.
            if disk.exists(&to) {
                disk.remove_file(&to)?;
            }
            disk.hard_link(&from, &to)?;
            folders.into_iter().try_for_each(|folder| disk.sync_dir(folder))
        });
        match linked.await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(path, %error, "file is copied into the bucket: it cannot be linked");
                false
            }
        }
    }

    async fn put_parts(&self, path: &str, source: &LocalFile) -> Result<(), Error> {
        let at = self.location(path);
        let told = |e| self.explain(Operation::Upload, path, e);
        let mut upload = self.inner.store.put_multipart(&at).await.map_err(told)?;
        match self.send_parts(path, source, &mut upload).await {
            Ok(()) => upload.complete().await.map(drop).map_err(told),
            Err(error) => {
                // Parts that stay behind cost money and are invisible; the first error is the one to report.
                if let Err(abort) = upload.abort().await {
                    tracing::warn!(path, error = %abort, "parts of a failed upload stay in the bucket");
                }
                Err(error)
            }
        }
    }

    async fn send_parts(
        &self,
        path: &str,
        source: &LocalFile,
        upload: &mut Box<dyn MultipartUpload>,
    ) -> Result<(), Error> {
        let told = |e| self.explain(Operation::Upload, path, e);
        let mut in_flight = FuturesUnordered::new();
        let mut at = 0;
        while at < source.len {
            let want = (source.len - at).min(self.inner.part_size as u64);
            let part = source.read(at, want as usize).await?;
            in_flight.push(upload.put_part(PutPayload::from_bytes(part)));
            at += want;
            if in_flight.len() >= PARTS_IN_FLIGHT
                && let Some(done) = in_flight.next().await
            {
                done.map_err(told)?;
            }
        }
        while let Some(done) = in_flight.next().await {
            done.map_err(told)?;
        }
        Ok(())
    }
}

/// A file of this machine, read in pieces off the async threads.
struct LocalFile {
    path: PathBuf,
    file: Arc<dyn runtime::File>,
    len: u64,
    world: World,
}

impl LocalFile {
    async fn open(world: &World, path: &Path) -> Result<LocalFile, Error> {
        let (disk, owned) = (world.disk.clone(), path.to_owned());
        let opened = blocking(world, move || {
            let file = disk.open_read(&owned)?;
            let len = file.len()?;
            Ok((file, len))
        })
        .await;
        let (file, len) = opened.map_err(|e| local(path, e))?;
        Ok(LocalFile { path: path.to_owned(), file, len, world: world.clone() })
    }

    async fn read(&self, at: u64, len: usize) -> Result<Bytes, Error> {
        let file = self.file.clone();
        let read = blocking(&self.world, move || {
            let mut buf = vec![0; len];
            file.read_exact_at(&mut buf, at)?;
            Ok(Bytes::from(buf))
        });
        read.await.map_err(|e| local(&self.path, e))
    }
}

/// Trouble with the block on this machine, not with the bucket: a retry does not help.
fn local(path: &Path, error: std::io::Error) -> Error {
    Error::with_source(
        Kind::Corrupt,
        format!("cannot read {}: {error}; the block on this machine is incomplete", path.display()),
        error,
    )
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    world.threads.blocking(work).await.map_err(std::io::Error::other)?
}
