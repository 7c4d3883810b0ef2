//! The way to peers over gRPC.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use model::{MetricMetadata, TenantId};
use rpc::{ClientOptions, WriteCall, WriteClient, WriteClientOptions};
use runtime::World;
use secure::ClientTls;
use storage::Verdict;
use wire::pb::tributary::v1::PairSighting;

use crate::breaker::Rules;
use crate::replicate::{Peer, PeerLimits, Remote};
use crate::ring::Connect;
use crate::settings::Replication;
use crate::{Error, Settings};

impl PeerLimits {
    pub fn of(replication: &Replication) -> PeerLimits {
        PeerLimits {
            workers: replication.forward_workers as usize,
            queue_bytes: replication.forward_queue.bytes(),
            deadline: replication.straggler_timeout.as_duration(),
            rules: Rules {
                slow: replication.slow_after.as_duration(),
                first_pause: Duration::from_millis(200),
                max_pause: replication.forward_max_backoff.as_duration(),
            },
        }
    }
}

/// Makes peers of addresses.
pub fn grpc(settings: &Settings, world: &World, tls: Option<ClientTls>) -> Connect {
    let replication = &settings.replication;
    let limits = PeerLimits::of(replication);
    let options = WriteClientOptions {
        // A connection that is dead must be known to be before the peer is probed for long.
        channel: ClientOptions {
            tls,
            connect_timeout: replication.slow_after.as_duration(),
            keepalive: replication.slow_after.as_duration(),
            keepalive_timeout: replication.slow_after.as_duration(),
            ..ClientOptions::default()
        },
        timeout: replication.straggler_timeout.as_duration(),
        // Whether a peer is asked is decided above it.
        max_backoff: Duration::ZERO,
        door: replication.local_endpoint.clone().unwrap_or_default(),
        peer: replication.peer_frames.then(|| replication.peer()),
        ..WriteClientOptions::default()
    };
    let world = world.clone();
    Arc::new(move |address: &str| {
        let handle = tokio::runtime::Handle::current();
        let client = WriteClient::new(address, options.clone(), world.clone(), &handle)
            .map_err(|error| Error::with_source(error.kind, format!("peer {address}: {error}"), error))?;
        let chance = Arc::clone(&world.chance);
        Ok(Peer::start(address, Arc::new(Grpc(client)), limits, chance))
    })
}

struct Grpc(WriteClient);

impl Remote for Grpc {
    fn write(&self, call: WriteCall) -> BoxFuture<'_, Result<Vec<Verdict>, storage::Error>> {
        let write = async move {
            let failed =
                |error: rpc::WriteError| storage::Error::with_source(error.kind, error.to_string(), error);
            self.0.write(call).await.map_err(failed)
        };
        write.boxed()
    }

    fn names(&self) -> Option<usize> {
        self.0.names()
    }

    fn exchange_pairs(
        &self,
        told: Vec<PairSighting>,
    ) -> BoxFuture<'_, Result<Vec<PairSighting>, storage::Error>> {
        let failed =
            |error: rpc::WriteError| storage::Error::with_source(error.kind, error.to_string(), error);
        async move { self.0.exchange_pairs(told).await.map_err(failed) }.boxed()
    }

    fn write_metadata<'a>(
        &'a self,
        tenant: &'a TenantId,
        said: &'a [MetricMetadata],
    ) -> BoxFuture<'a, Result<(), storage::Error>> {
        let failed =
            |error: rpc::WriteError| storage::Error::with_source(error.kind, error.to_string(), error);
        async move { self.0.write_metadata(tenant, said).await.map_err(failed) }.boxed()
    }
}
