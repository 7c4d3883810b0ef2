//! Looks at a file that may change: when the system says that it changed, and every so often in any case.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use runtime::Shutdown;
use tokio::sync::mpsc;

use crate::Error;

/// Editors and mounts change a file in several steps: the last one counts.
const SETTLE: Duration = Duration::from_millis(300);

/// A file, and what is done when it may have changed.
pub struct Watched {
    /// For the log.
    pub what: &'static str,
    /// None: there is nothing to watch.
    pub path: Option<PathBuf>,
    /// How often it is looked at in any case.
    pub every: Duration,
    /// Reads the file again and tells by itself what came of it. Blocks.
    pub reload: Arc<dyn Fn() + Send + Sync>,
}

/// Reloads until the shutdown.
pub async fn run(watched: Watched, shutdown: Shutdown) -> Result<(), Error> {
    let Watched { what, path, every, reload } = watched;
    let Some(path) = path else {
        shutdown.wait().await;
        return Ok(());
    };
    let (told, mut hints) = mpsc::channel(1);
    // Kept until the end: dropping it ends the watching.
    let _watcher = match watch(&path, told) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "{what} cannot be watched, it is only polled");
            None
        }
    };
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(every.max(Duration::from_secs(1))) => {}
            Some(()) = hints.recv() => {
                tokio::time::sleep(SETTLE).await;
                let _ = hints.try_recv();
            }
        }
        let reload = Arc::clone(&reload);
        if let Err(error) = tokio::task::spawn_blocking(move || reload()).await {
            tracing::error!(%error, "reload of the {what} broke off");
        }
    }
}

/// Watches the file's folder, since files are replaced rather than changed.
fn watch(path: &Path, told: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let read_only = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !read_only {
            // A hint that is waiting already says the same.
            let _ = told.try_send(());
        }
    })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
