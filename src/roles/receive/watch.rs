//! Looks at the ring file: when the system says that it changed, and every so often in any case.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use runtime::Shutdown;
use tokio::sync::mpsc;

use crate::Error;
use crate::settings::Replication;
use crate::write::Writer;

/// Editors and mounts change a file in several steps: the last one counts.
const SETTLE: Duration = Duration::from_millis(300);

/// Reloads until the shutdown; a node without a ring file has nothing to watch.
pub async fn run(writer: Arc<Writer>, settings: Replication, shutdown: Shutdown) -> Result<(), Error> {
    let Some(path) = settings.hashrings_file else {
        shutdown.wait().await;
        return Ok(());
    };
    let (told, mut hints) = mpsc::channel(1);
    // Kept until the end: dropping it ends the watching.
    let _watcher = match watch(&path, told) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "ring file cannot be watched, it is only polled");
            None
        }
    };
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(settings.refresh.as_duration().max(Duration::from_secs(1))) => {}
            Some(()) = hints.recv() => {
                tokio::time::sleep(SETTLE).await;
                let _ = hints.try_recv();
            }
        }
        let writer = Arc::clone(&writer);
        // Success and failure are told by the holder itself.
        if let Err(error) = tokio::task::spawn_blocking(move || writer.ring().reload().is_ok()).await {
            tracing::error!(%error, "ring reload broke off");
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
