//! Writes between receivers: Thanos's `RemoteWrite` with a verdict for each sample beside it.

mod backoff;
mod client;
pub(crate) mod codec;
mod kept;
mod known;
mod metadata;
mod pairs;
mod server;
mod snappy;
mod stale;
pub(crate) mod verdicts;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::{MetricMetadata, TenantId, Timestamp};
use storage::{Error, Verdict, WriteBatch};
use wire::pb::tributary::v1::PairSighting;

pub use client::{WriteClient, WriteClientOptions, WriteError, WriteFault};
pub use kept::{keep_write, kept_write};
pub use known::{KnownTaken, KnownWrite, store_by_labels};
pub use server::WriteServer;
pub use stale::StaleEpoch;

/// Somebody who takes writes from peers.
#[tonic::async_trait]
pub trait WriteBackend: Send + Sync + 'static {
    /// Takes what a peer sent and answers, for each group, one verdict per sample of its batch, durable
    /// where it says so. An error means that nothing of the request was judged; one that is caused by [`StaleEpoch`], that
    /// the caller is to place it by another ring.
    async fn write(&self, request: WriteRequest) -> Result<Vec<Vec<Verdict>>, Error>;

    /// As [`WriteBackend::write`] for one tenant, of whose series some are known by handles alone. Who knows no handles
    /// stores the others and names those.
    async fn write_known(&self, write: KnownWrite) -> Result<KnownTaken, Error> {
        store_by_labels(self, write).await
    }

    /// Takes a request as it came, from a peer that wants one status for all of it: a verdict for each float and
    /// histogram, in any order. None: who does not read such gets it decoded, by [`WriteBackend::write`].
    async fn write_plain(&self, _: &PlainWrite) -> Option<Result<Vec<Verdict>, Error>> {
        None
    }

    /// Hears what another door knows of HA pairs, and says what is known here.
    fn exchange_pairs(&self, _: Vec<PairSighting>) -> Vec<PairSighting> {
        Vec::new()
    }

    /// Takes what one of our doors says of metrics that are placed here. Who keeps none has nothing to do.
    async fn write_metadata(&self, _: TenantId, _: Vec<MetricMetadata>) -> Result<(), Error> {
        Ok(())
    }
}

/// Of what counts for no ack, a hint above all: it is taken in every ring epoch, by who has left the ring as well.
pub const ANY_EPOCH: u64 = u64::MAX;

/// What a peer sent, its labels checked and sorted.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub groups: Vec<TenantGroup>,
    /// From 1: which copy this is, to be stored here; 0: not replicated yet.
    pub replica: u32,
    /// When the door let it in; none from Thanos, whose writes are judged on arrival.
    pub judged_at: Option<Timestamp>,
    /// The ring epoch that it was placed by; 0 where it was placed by none, [`ANY_EPOCH`] where that does not matter.
    pub ring_epoch: u64,
}

/// A request of Thanos, its series not read.
#[derive(Clone, Debug)]
pub struct PlainWrite {
    pub body: Bytes,
    /// Tenants, each with a stretch of the body whose fields 1 are its series.
    pub groups: Vec<(TenantId, Range<usize>)>,
    /// As [`WriteRequest::replica`].
    pub replica: u32,
}

/// Series of one tenant.
#[derive(Clone, Debug)]
pub struct TenantGroup {
    pub tenant: TenantId,
    pub batch: WriteBatch,
}

/// What to send to a peer: the series `rows` of a batch.
#[derive(Clone, Debug)]
pub struct WriteCall {
    pub tenant: TenantId,
    pub batch: Arc<WriteBatch>,
    /// Indices into `batch.series()`.
    pub rows: Vec<u32>,
    /// From 1: which copy the peer is to store; 0: it is to replicate.
    pub replica: u32,
    pub judged_at: Timestamp,
    /// The ring epoch that it is placed by; 0: by a ring that was not agreed on.
    pub ring_epoch: u64,
}

/// How a request lays out its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteShape {
    /// One tenant (fields 1 and 2): understood by every version of Thanos and by us.
    #[default]
    Single,
    /// Series by tenant (field 4): Thanos from 0.43 on, where it is the only shape sent.
    ByTenant,
}
