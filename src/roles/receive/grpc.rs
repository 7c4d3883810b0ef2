//! Writes that come from peers: stored here where they say which copy they are, else placed like any other.

use std::sync::Arc;

use futures::future::join_all;
use model::{Kind, MetricMetadata, TenantId, Timestamp};
use rpc::{KnownTaken, KnownWrite, TenantGroup, WriteBackend, WriteRequest};
use runtime::World;
use storage::{Error, Verdict};

use crate::admit::Admission;
use crate::metadata::MetadataDoor;
use crate::status::Denial;
use crate::write::Writer;

/// The gRPC door for writes.
pub struct PeerDoor {
    pub writer: Arc<Writer>,
    pub admission: Admission,
    pub world: World,
    pub metadata: Arc<MetadataDoor>,
}

#[tonic::async_trait]
impl WriteBackend for PeerDoor {
    async fn write(&self, request: WriteRequest) -> Result<Vec<Vec<Verdict>>, Error> {
        let here = self.writer.stores_here(request.replica);
        if here && self.writer.local().engine().is_none() {
            return Err(Error::new(
                Kind::Unavailable,
                "this receiver is starting: its log is being replayed",
            ));
        }
        // The door that took the request has judged its time; only Thanos's writes are judged here.
        let judged_at = request.judged_at.unwrap_or_else(|| self.world.clock.now_ms());
        let groups = request.groups.into_iter().map(|group| self.group(group, here, judged_at));
        join_all(groups).await.into_iter().collect()
    }

    async fn write_known(&self, write: KnownWrite) -> Result<KnownTaken, Error> {
        if !self.writer.stores_here(write.replica) {
            // Placed anew, for which every row needs its labels.
            return rpc::store_by_labels(self, write).await;
        }
        let bytes: usize = write.batch.series().iter().map(|series| write.batch.bytes_of(series)).sum();
        let _permit = self.admission.hold(bytes as u64).await.map_err(refuse)?;
        let written = self.writer.local().write_known(write, self.writer.timeout()).await;
        written.map_err(|why| Error::new(Kind::Unavailable, why))
    }

    async fn write_metadata(&self, tenant: TenantId, said: Vec<MetricMetadata>) -> Result<(), Error> {
        // Who calls has placed it; a ring that has moved since is put right when it is said again.
        self.metadata.keep(&tenant, Arc::new(said)).await
    }
}

impl PeerDoor {
    async fn group(
        &self,
        group: TenantGroup,
        here: bool,
        judged_at: Timestamp,
    ) -> Result<Vec<Verdict>, Error> {
        let TenantGroup { tenant, batch } = group;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: usize = batch.series().iter().map(|series| batch.bytes_of(series)).sum();
        let _permit = self.admission.hold(bytes as u64).await.map_err(refuse)?;
        if here {
            let written =
                self.writer.local().write_all(tenant, batch, judged_at, self.writer.timeout()).await;
            return written.map_err(|why| Error::new(Kind::Unavailable, why));
        }
        let plan = self.writer.plan(&tenant, &batch).map_err(refuse)?;
        let collected = self.writer.send(plan, &tenant, Arc::new(batch), judged_at).await;
        Ok(collected.outcomes.into_iter().map(|outcome| outcome.verdict()).collect())
    }
}

fn refuse(denial: Denial) -> Error {
    match denial {
        Denial::Busy(text) => Error::new(Kind::Unavailable, text),
        Denial::RateLimited(text, _) => Error::new(Kind::Exhausted, text),
        Denial::Invalid(text)
        | Denial::Unauthorized(text)
        | Denial::Forbidden(text)
        | Denial::TooLarge(text)
        | Denial::Unsupported(text) => Error::new(Kind::Invalid, text),
    }
}
