//! Something made of files, made anew when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use runtime::World;
use xxhash_rust::xxh3::Xxh3;

use crate::Error;
use crate::files::read;

/// How often files are looked at. They are small, and rotated hours before they expire.
const INTERVAL: Duration = Duration::from_secs(5);

type Build<T> = Box<dyn Fn(&World) -> Result<T, Error> + Send + Sync>;

/// The newest whole version of something made of files.
pub struct Watched<T> {
    /// What it is, in logs.
    name: String,
    world: World,
    files: Vec<PathBuf>,
    build: Build<T>,
    current: ArcSwap<T>,
    /// Hash of the files' content when they were last looked at.
    seen: Mutex<u128>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Makes the first version; an error is one of the start. Within a tokio runtime the files are looked at every
    /// few seconds from then on, for as long as somebody holds this.
    pub fn start(
        name: impl Into<String>,
        world: &World,
        files: Vec<PathBuf>,
        build: impl Fn(&World) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Arc<Watched<T>>, Error> {
        let name = name.into();
        let first = build(world).map_err(|error| Error::invalid(format!("{name}: {error}")))?;
        let watched = Arc::new(Watched {
            seen: Mutex::new(content(world, &files)),
            name,
            world: world.clone(),
            files,
            build: Box::new(build),
            current: ArcSwap::from_pointee(first),
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !watched.files.is_empty()
        {
            let weak = Arc::downgrade(&watched);
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(INTERVAL).await;
                    let Some(watched) = weak.upgrade() else { return };
                    if tokio::task::spawn_blocking(move || watched.refresh()).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(watched)
    }

    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the files; true if there is a new version. A pair of files that is written one after the other is
    /// wrong for a moment: the old version stays until the next look.
    pub fn refresh(&self) -> bool {
        let content = content(&self.world, &self.files);
        let mut seen = self.seen.lock();
        if *seen == content {
            return false;
        }
        match (self.build)(&self.world) {
            Ok(next) => {
                *seen = content;
                self.current.store(Arc::new(next));
                metrics::counter!("tributary_security_reloads_total", "outcome" => "taken").increment(1);
                tracing::info!(what = self.name, "read again");
                true
            }
            Err(error) => {
                metrics::counter!("tributary_security_reloads_total", "outcome" => "refused").increment(1);
                tracing::error!(what = self.name, %error, "the files have changed and are wrong; what was read before stays");
                false
            }
        }
    }
}

fn content(world: &World, files: &[PathBuf]) -> u128 {
    let mut hash = Xxh3::new();
    for path in files {
        match read(world, path) {
            Ok(bytes) => {
                hash.update(&(bytes.len() as u64).to_le_bytes());
                hash.update(&bytes);
            }
            // Told when it is used.
            Err(_) => hash.update(b"\xff"),
        }
    }
    hash.digest128()
}
