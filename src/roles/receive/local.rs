//! The copy that this node keeps itself: appended on a bounded pool, answered when its log is durable.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{TenantId, Timestamp};
use rpc::{ANY_EPOCH, KnownTaken, KnownWrite, WriteCall};
use runtime::{Pool, PoolError, Turns};
use storage::{Append, Known, Verdict, WriteBatch};
use tsdb::Tsdb;

use crate::Error;
use crate::epochs::gate::{Gate, Pass};
use crate::hints::Untaken;

thread_local! {
    /// Rows and verdicts of a batch, used again.
    static SCRATCH: RefCell<(Vec<u32>, Vec<Verdict>)> = RefCell::default();
}

fn starting() -> String {
    "this receiver is starting: its log is being replayed".to_owned()
}

/// The engine, once it is open, and the threads that work for it.
pub struct Local {
    engine: OnceLock<Arc<Tsdb>>,
    pool: Pool,
    /// Tenants take turns on the pool.
    turns: Turns,
    gate: Gate,
}

impl Local {
    pub fn new((pool, turns): (Pool, Turns)) -> Local {
        Local { engine: OnceLock::new(), pool, turns, gate: Gate::default() }
    }

    /// Which ring epochs writes are taken of.
    pub fn gate(&self) -> &Gate {
        &self.gate
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

    /// Whether an append of so many bytes would not have to wait.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.engine.get().is_some_and(|engine| engine.has_room(bytes))
    }

    /// Appends all of a batch on the calling thread, which may compute and take locks, and shows the verdicts to
    /// `judge`. Rows without labels need `known`. The verdicts may leave this node only when the log is durable up to the position that is returned.
    pub fn append<R>(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        judged_at: Timestamp,
        known: Option<Known<'_>>,
        judge: impl FnOnce(&[Verdict]) -> R,
    ) -> Result<(u64, R), String> {
        let engine = self.engine.get().ok_or_else(starting)?;
        let (mut rows, mut verdicts) = SCRATCH.take();
        rows.clear();
        rows.extend(0..batch.series().len() as u32);
        verdicts.clear();
        verdicts.resize(batch.verdicts(), Verdict::Unavailable);
        let appended = match known {
            Some(known) => engine.append_known(tenant, batch, &rows, judged_at, &mut verdicts, known),
            None => engine.append(tenant, batch, &rows, judged_at, &mut verdicts),
        };
        let outcome = appended.map_err(|error| error.message)?;
        let judged = judge(&verdicts);
        SCRATCH.set((rows, verdicts));
        Ok((outcome.log_position, judged))
    }

    /// Returns once the log is durable up to `position`; the error says why it is not.
    pub async fn durable(&self, position: u64, limit: Duration) -> Result<(), String> {
        let engine = self.engine.get().ok_or_else(starting)?;
        match tokio::time::timeout(limit, engine.wait_durable(position)).await {
            Ok(waited) => waited.map_err(|error| error.message),
            Err(_) => Err(format!("the disk did not confirm the log within {limit:?}")),
        }
    }

    /// Stores a whole batch on a thread of the pool and answers when that is durable.
    pub async fn write_all(
        self: &Arc<Local>,
        tenant: TenantId,
        batch: WriteBatch,
        judged_at: Timestamp,
        limit: Duration,
        pass: Pass,
    ) -> Result<Vec<Verdict>, String> {
        let whose = tenant.clone();
        let append = move |local: &Local| {
            let appended = local.append(&whose, &batch, judged_at, None, <[Verdict]>::to_vec);
            drop(pass);
            appended
        };
        self.run(&tenant, limit, append).await
    }

    /// Runs what ends in an append on a thread of the pool, when it is the tenant's turn; answers once the log is durable up
    /// to the position that it gives.
    pub async fn run<R: Send + 'static>(
        self: &Arc<Local>,
        tenant: &TenantId,
        limit: Duration,
        work: impl FnOnce(&Local) -> Result<(u64, R), String> + Send + 'static,
    ) -> Result<R, String> {
        let local = Arc::clone(self);
        let turn = self.turns.take(tenant.as_str()).await;
        let done = self.pool.run(move || work(&local)).await;
        let (position, answer) = done.map_err(|e: PoolError| e.to_string())??;
        drop(turn);
        self.durable(position, limit).await?;
        Ok(answer)
    }

    /// Stores what a peer sent, of whose series some are known by handles alone, and answers when that is durable.
    pub async fn write_known(
        self: &Arc<Local>,
        write: KnownWrite,
        limit: Duration,
        pass: Pass,
    ) -> Result<KnownTaken, String> {
        let engine = Arc::clone(self.engine.get().ok_or_else(starting)?);
        let turn = self.turns.take(write.tenant.as_str()).await;
        let appended = self.pool.run(move || {
            let KnownWrite { tenant, batch, rows, judged_at, .. } = write;
            let mut verdicts = vec![Verdict::Unavailable; batch.verdicts()];
            let (mut learned, unknown) = (Vec::new(), RefCell::new(Vec::new()));
            let labels = |row: u32, _: &mut Vec<u8>| {
                // Once for each kind of sample that it has.
                let mut unknown = unknown.borrow_mut();
                if unknown.last() != Some(&row) {
                    unknown.push(row);
                }
                false
            };
            let known = Known { labels: &labels, learned: &mut learned };
            let outcome = engine.append_known(&tenant, &batch, &rows, judged_at, &mut verdicts, known);
            let mut unknown = unknown.into_inner();
            unknown.sort_unstable();
            unknown.dedup();
            drop(pass);
            outcome.map(|outcome| (outcome.log_position, KnownTaken { batch, verdicts, learned, unknown }))
        });
        let appended = appended.await.map_err(|e: PoolError| e.to_string())?;
        drop(turn);
        let (position, taken) = appended.map_err(|error| error.message)?;
        self.durable(position, limit).await?;
        Ok(taken)
    }

    /// Stores what this node missed of a write that others have.
    pub async fn take_hint(&self, call: WriteCall) -> Result<Vec<Verdict>, Untaken> {
        let WriteCall { tenant, batch, rows, judged_at, .. } = call;
        let unplaced =
            |_| Untaken::Failed(storage::Error::new(model::Kind::Unavailable, "the gate is shut for hints"));
        // Whatever the epoch: a hint counts for no ack.
        let pass = self.gate.pass(ANY_EPOCH).map_err(unplaced)?;
        let written = self.write(tenant, batch, rows, judged_at, pass).await;
        written.map_err(|why| Untaken::Failed(storage::Error::new(model::Kind::Unavailable, why)))
    }

    /// Stores the series `rows` of a batch that others store as well, and answers when that is durable: a
    /// verdict for every sample of the batch, of which those of the rows count. An error is the reason why
    /// nothing can be said to be stored; a retry can help.
    pub async fn write(
        &self,
        tenant: TenantId,
        batch: Arc<WriteBatch>,
        rows: Vec<u32>,
        judged_at: Timestamp,
        pass: Pass,
    ) -> Result<Vec<Verdict>, String> {
        let engine = Arc::clone(self.engine.get().ok_or_else(starting)?);
        let appender = Arc::clone(&engine);
        let turn = self.turns.take(tenant.as_str()).await;
        let appended = self.pool.run(move || {
            let mut verdicts = vec![Verdict::Unavailable; batch.verdicts()];
            let mut learned = Vec::new();
            let labels = |row: u32, out: &mut Vec<u8>| batch.labels_into(row, out);
            let known = Known { labels: &labels, learned: &mut learned };
            let outcome = appender.append_known(&tenant, &batch, &rows, judged_at, &mut verdicts, known);
            batch.learned(&learned);
            // It is in the head, and will be in the log: a cut from now on has it.
            drop(pass);
            outcome.map(|outcome| (outcome.log_position, verdicts))
        });
        let appended = appended.await.map_err(|e: PoolError| e.to_string())?;
        drop(turn);
        let (position, verdicts) = appended.map_err(|error| error.message)?;
        engine.wait_durable(position).await.map_err(|error| error.message)?;
        Ok(verdicts)
    }
}
