//! The copy that this node keeps itself: appended on a bounded pool, answered when its log is durable.

use std::sync::{Arc, OnceLock};

use model::{TenantId, Timestamp};
use runtime::{Pool, PoolError};
use storage::{Append, Verdict, WriteBatch};
use tsdb::Tsdb;

use crate::Error;

/// The engine, once it is open, and the threads that work for it.
pub struct Local {
    engine: OnceLock<Arc<Tsdb>>,
    pool: Pool,
}

impl Local {
    pub fn new(pool: Pool) -> Local {
        Local { engine: OnceLock::new(), pool }
    }

    /// None until the log has been replayed.
    pub fn engine(&self) -> Option<&Arc<Tsdb>> {
        self.engine.get()
    }

    /// From now on writes are taken.
    pub fn open(&self, engine: Arc<Tsdb>) -> Result<(), Error> {
        let twice = |_| Error::new(model::Kind::Internal, "the engine was opened twice");
        self.engine.set(engine).map_err(twice)
    }

    /// Stores the series `rows` (all of them if none are named), and answers when that is durable: a verdict
    /// for every sample of the batch, of which those of the rows count. An error is the reason why nothing
    /// can be said to be stored; a retry can help.
    pub async fn write(
        &self,
        tenant: TenantId,
        batch: Arc<WriteBatch>,
        rows: Option<Vec<u32>>,
        judged_at: Timestamp,
    ) -> Result<Vec<Verdict>, String> {
        let Some(engine) = self.engine.get().cloned() else {
            return Err("this receiver is starting: its log is being replayed".to_owned());
        };
        let appender = Arc::clone(&engine);
        let appended = self.pool.run(move || {
            let rows = rows.unwrap_or_else(|| (0..batch.series().len() as u32).collect());
            let mut verdicts = vec![Verdict::Unavailable; batch.samples().len()];
            appender
                .append(&tenant, &batch, &rows, judged_at, &mut verdicts)
                .map(|outcome| (outcome.log_position, verdicts))
        });
        let (position, verdicts) =
            appended.await.map_err(|e: PoolError| e.to_string())?.map_err(|e| e.message)?;
        engine.wait_durable(position).await.map_err(|e| e.message)?;
        Ok(verdicts)
    }
}
