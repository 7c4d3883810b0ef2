//! The gRPC doors: Thanos's StoreAPI, Info, WriteableStore and health, as servers over traits and as clients.
//!
//! Of a query: `roles/query` asks a [`StoreClient`] (a [`storage::Select`]); the peer's [`StoreServer`] asks the
//! views of its [`StoreBackend`] and streams sorted series back. Of a write: the router's [`WriteClient`] sends a
//! part of a batch; the peer's [`WriteServer`] hands it to its [`WriteBackend`] and returns a verdict per sample.
//! Errors become gRPC statuses, and statuses errors, in `status.rs` only. The crate does not know where series
//! live, who owns them, or how many copies are enough.

mod advertised;
mod call;
mod channel;
mod convert;
pub mod facts;
mod health;
mod incoming;
mod method;
mod metrics;
pub mod peer;
mod plane;
pub mod query;
mod serve;
mod status;
pub mod store;
mod tls;
pub mod write;

pub use advertised::{Advertised, Apis, NodeInfo, PeerInfo, PeerStore, TsdbInfo, component};
pub use call::CallBudget;
pub use channel::ClientOptions;
pub use facts::{FactServer, Subject, Tell, Told};
pub use health::Health;
pub use peer::PeerOptions;
pub use plane::{ControlServer, GrpcTransport};
pub use query::{QueryBackend, QueryServer};
pub use serve::{ServeOptions, Services, serve};
pub use status::{
    INCARNATION_METADATA, RING_EPOCH_METADATA, TENANT_METADATA, error_from_status, status_from_error,
};
pub use store::in_shard;
pub use store::{
    PeerSeries, PeerSet, StoreBackend, StoreClient, StoreOptions, StoreServer, StoreView, Waited, Watch,
};
pub use tls::{client_tls, server_tls};
pub use write::{
    ANY_EPOCH, KnownTaken, KnownWrite, PlainWrite, StaleEpoch, TenantGroup, WriteBackend, WriteCall,
    WriteClient, WriteClientOptions, WriteError, WriteFault, WriteRequest, WriteServer, WriteShape,
    keep_write, kept_write, store_by_labels,
};
