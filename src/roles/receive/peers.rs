//! What the peers of the ring say of themselves: whose they are, and whether their labels differ from ours.
//!
//! Copies and blocks are told apart by external labels. Two receivers with equal labels would write blocks that
//! nobody can tell apart, so with copies and a bucket the start fails if a peer has ours, and nothing is
//! uploaded until every peer was seen to have others. Of two twins the later one ends: a receiver that runs
//! goes on, without uploads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use model::{Kind, Labels};
use rpc::{ClientOptions, PeerInfo, StoreClient};
use runtime::{Shutdown, World};
use secure::ClientTls;

use crate::Error;
use crate::ring::RingHolder;
use crate::settings::Settings;
use crate::write::Writer;

/// How long one peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often peers are asked until all have answered, and afterwards.
const ASK_SOON: Duration = Duration::from_secs(2);
const ASK_LATER: Duration = Duration::from_secs(30);

/// Asks peers, and knows whether uploads may begin.
pub struct Peers {
    world: World,
    labels: Labels,
    tenant_label: String,
    /// Copies and a bucket: labels must differ.
    must_differ: bool,
    verified: AtomicBool,
    tls: Option<ClientTls>,
}

impl Peers {
    pub fn new(settings: &Settings, world: &World, labels: Labels, tls: Option<ClientTls>) -> Peers {
        let must_differ = settings.replication.replication_factor > 1
            && settings.objstore.document().is_some()
            && settings.mode().stores();
        Peers {
            world: world.clone(),
            labels,
            tenant_label: settings.tenancy.label.clone(),
            must_differ,
            verified: AtomicBool::new(!must_differ),
            tls,
        }
    }

    /// Whether blocks may be uploaded.
    pub fn labels_differ(&self) -> bool {
        self.verified.load(Relaxed)
    }

    /// Asks until the shutdown. An error is a peer that had our labels when this node started.
    pub async fn run(&self, writer: Arc<Writer>, shutdown: Shutdown) -> Result<(), Error> {
        let mut cleared: BTreeSet<String> = BTreeSet::new();
        let mut warned = false;
        let mut twins: BTreeSet<String> = BTreeSet::new();
        let mut starting = true;
        loop {
            let round = self.round(writer.ring(), &mut cleared, &mut twins, starting);
            let all = tokio::select! {
                () = shutdown.wait() => return Ok(()),
                all = round => all?,
            };
            starting = false;
            if all && !self.verified.swap(true, Relaxed) {
                tracing::info!("every peer's external labels differ from ours: blocks may be uploaded");
            }
            metrics::gauge!("tributary_receive_peer_labels_verified")
                .set(f64::from(u8::from(self.labels_differ())));
            if !self.labels_differ() && !warned {
                warned = true;
                tracing::warn!(
                    "uploads wait until every peer of the ring has answered and shown labels of its own"
                );
            }
            let pause = if all { ASK_LATER } else { ASK_SOON };
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One question to each peer; true if all of them are cleared.
    async fn round(
        &self,
        ring: &RingHolder,
        cleared: &mut BTreeSet<String>,
        twins: &mut BTreeSet<String>,
        starting: bool,
    ) -> Result<bool, Error> {
        let current = ring.current();
        let asked = current.peers().map(|peer| async move { (peer, self.ask(peer.address()).await) });
        let mut all = true;
        for (peer, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(info) => {
                    peer.set_ours(info.node.is_some());
                    if self.must_differ && self.has_our_labels(&info) {
                        let text = format!(
                            "peer {} has the same external labels as this node, {}: blocks of the two could not be \
                             told apart; give each receiver a --label value of its own",
                            peer.address(),
                            self.labels
                        );
                        if starting {
                            return Err(Error::new(Kind::Invalid, text));
                        }
                        if twins.insert(peer.address().to_owned()) {
                            tracing::error!("{text}");
                        }
                        all = false;
                        continue;
                    }
                    twins.remove(peer.address());
                    cleared.insert(peer.address().to_owned());
                }
                Err(error) => {
                    tracing::debug!(peer = peer.address(), %error, "peer does not say what it is");
                }
            }
            all &= cleared.contains(peer.address());
        }
        Ok(all)
    }

    async fn ask(&self, address: &str) -> Result<PeerInfo, storage::Error> {
        let options = ClientOptions {
            connect_timeout: PATIENCE,
            response_timeout: Some(PATIENCE),
            tls: self.tls.clone(),
            ..ClientOptions::default()
        };
        let handle = tokio::runtime::Handle::current();
        StoreClient::new(address, options, self.world.clone(), handle)?.info().await
    }

    /// Whether a label set of the peer equals ours, tenants left aside.
    fn has_our_labels(&self, info: &PeerInfo) -> bool {
        let bare = |labels: &Labels| labels.filter(|name| name != self.tenant_label);
        info.label_sets.iter().any(|labels| bare(labels) == self.labels)
    }
}
