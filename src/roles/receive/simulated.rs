//! A receiver for a simulation: all of its parts, over a given network and bucket and without a machine below.

use std::sync::Arc;

use api::Readiness;
use bucket::Bucket;
use runtime::World;

use crate::epochs::readers::Readers;
use crate::replicate::{Peer, PeerLimits};
use crate::{Error, Outside, Receive, Settings};

pub use crate::epochs::readers::Reader;
pub use crate::replicate::Remote;

/// Makes the way to the peer at an address.
pub type Way = Arc<dyn Fn(&str) -> Arc<dyn Remote> + Send + Sync>;

impl Receive {
    /// As [`Receive::build`], with another network and bucket, and others who read that. It keeps no catalog, measures no memory,
    /// and takes every peer for one of its own kind.
    pub fn simulated(
        settings: Settings,
        world: World,
        readiness: Readiness,
        way: Way,
        bucket: Option<Bucket>,
        readers: Vec<Arc<dyn Reader>>,
    ) -> Result<Receive, Error> {
        Receive::build_in(settings, world, readiness, |settings, world, _| {
            let replication = &settings.replication;
            let limits = PeerLimits::of(replication);
            let chance = Arc::clone(&world.chance);
            let connect = move |address: &str| {
                let peer = Peer::start(address, way(address), limits, Arc::clone(&chance));
                peer.set_ours(true);
                Ok(peer)
            };
            Ok(Outside { ways: Arc::new(connect), bucket, readers: Readers::of(readers), machine: false })
        })
    }

    /// What waits for each peer as hints: its address, and samples.
    pub fn hints_waiting(&self) -> Vec<(String, u64)> {
        self.hints.figures().into_iter().map(|(peer, _, samples, _)| (peer, samples)).collect()
    }
}
