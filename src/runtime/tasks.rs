//! Named background tasks that end together: one that fails stops all, and its error is the group's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::Shutdown;

/// Why a group did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("{name}: {source}")]
    Failed { name: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{name} panicked: {message}")]
    Panicked { name: String, message: String },
    #[error("still running after the grace period, aborted: {}", .names.join(", "))]
    Late { names: Vec<String> },
}

/// Tasks of one process or one role. Clones are the same group.
#[derive(Clone)]
pub struct TaskGroup {
    inner: Arc<Inner>,
    shutdown: Shutdown,
}

struct Inner {
    running: Mutex<BTreeMap<u64, (String, AbortHandle)>>,
    failure: Mutex<Option<TaskError>>,
    /// Number of tasks that run.
    count: watch::Sender<u64>,
    next: Mutex<u64>,
}

impl TaskGroup {
    /// A group that ends by `shutdown` and triggers it when a task fails.
    pub fn new(shutdown: Shutdown) -> TaskGroup {
        let inner = Inner {
            running: Mutex::default(),
            failure: Mutex::new(None),
            count: watch::Sender::new(0),
            next: Mutex::new(0),
        };
        TaskGroup { inner: Arc::new(inner), shutdown }
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs a task. It is expected to end when the shutdown is triggered.
    pub fn spawn<F, E>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let name = name.into();
        let id = {
            let mut next = self.inner.next.lock();
            *next += 1;
            *next
        };
        let handle = tokio::spawn(async move { task.await.map_err(Into::into) });
        self.inner.running.lock().insert(id, (name.clone(), handle.abort_handle()));
        self.inner.count.send_modify(|n| *n += 1);
        let group = self.clone();
        tokio::spawn(async move {
            let failure = match handle.await {
                Ok(Ok(())) => None,
                Ok(Err(source)) => Some(TaskError::Failed { name, source }),
                Err(ended) if ended.is_cancelled() => None,
                Err(ended) => Some(TaskError::Panicked { name, message: ended.to_string() }),
            };
            if let Some(failure) = failure {
                tracing::error!(error = %failure, "task failed: stopping");
                group.inner.failure.lock().get_or_insert(failure);
                group.shutdown.trigger();
            }
            group.inner.running.lock().remove(&id);
            group.inner.count.send_modify(|n| *n -= 1);
        });
    }

    /// Names of the tasks that run.
    pub fn names(&self) -> Vec<String> {
        self.inner.running.lock().values().map(|(name, _)| name.clone()).collect()
    }

    /// Waits for the shutdown, then up to `grace` for every task to end; those that do not are aborted. A
    /// stop at once cuts the grace short. The error is that of the first task that failed.
    pub async fn join(&self, grace: Duration) -> Result<(), TaskError> {
        self.shutdown.wait().await;
        let mut count = self.inner.count.subscribe();
        let all_ended = async {
            let _ = count.wait_for(|n| *n == 0).await;
        };
        let in_time = tokio::select! {
            _ = all_ended => true,
            _ = tokio::time::sleep(grace) => false,
            _ = self.shutdown.wait_now() => false,
        };
        let mut late = Vec::new();
        if !in_time {
            for (name, abort) in self.inner.running.lock().values() {
                abort.abort();
                late.push(name.clone());
            }
        }
        match self.inner.failure.lock().take() {
            Some(failure) => Err(failure),
            None if late.is_empty() => Ok(()),
            None => Err(TaskError::Late { names: late }),
        }
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("running", &self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_stops_all_and_is_reported() {
        let group = TaskGroup::new(Shutdown::new());
        let shutdown = group.shutdown().clone();
        group.spawn("patient", async move {
            shutdown.wait().await;
            Ok::<(), String>(())
        });
        group.spawn("broken", async { Err("disk is gone") });
        let error = group.join(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "broken: disk is gone");
        assert!(group.names().is_empty());
    }

    #[tokio::test]
    async fn the_late_are_named_and_aborted() {
        let group = TaskGroup::new(Shutdown::new());
        group.spawn("stubborn", async {
            std::future::pending::<()>().await;
            Ok::<(), String>(())
        });
        group.shutdown().trigger();
        let error = group.join(Duration::from_millis(10)).await.unwrap_err();
        assert!(error.to_string().ends_with("aborted: stubborn"), "{error}");
    }
}
