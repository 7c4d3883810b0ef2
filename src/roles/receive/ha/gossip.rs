//! Doors tell each other which replicas they hear and whom they listen to, every second.
//!
//! A replica that keeps its connection to one door is silent at all others: only together do they know who is there. A
//! door tells the receivers of the ring what it knows, from others too, and is told the same by them; so that doors
//! that store nothing, which nobody calls, know as much.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use model::TenantId;
use wire::pb::tributary::v1::{PairSighting, ReplicaSighting};

use super::pair::Elected;
use super::tracker::Ha;
use crate::replicate::Peer;
use crate::write::Writer;

const TELL_EVERY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });
/// Pairs of which nobody was heard for this long are not spoken of.
const NEWS: Duration = Duration::from_secs(60);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The other doors, as far as they can be called.
pub trait Doors: Send + Sync {
    fn others(&self) -> Vec<Arc<dyn Door>>;
}

/// One of them.
pub trait Door: Send + Sync {
    /// Tells it, and is told by it; nothing where it does not answer.
    fn exchange(&self, told: Vec<PairSighting>) -> BoxFuture<'_, Option<Vec<PairSighting>>>;
}

/// The receivers of the ring.
pub struct RingDoors(pub Arc<Writer>);

impl Doors for RingDoors {
    fn others(&self) -> Vec<Arc<dyn Door>> {
        let current = self.0.ring().current();
        let ours = current.peers().filter(|peer| peer.is_ours() && !peer.is_away());
        ours.map(|peer| Arc::clone(peer) as Arc<dyn Door>).collect()
    }
}

impl Door for Peer {
    fn exchange(&self, told: Vec<PairSighting>) -> BoxFuture<'_, Option<Vec<PairSighting>>> {
        // One that does not answer is silent, which says nothing of whom it hears.
        async move { self.exchange_pairs(told).await.ok() }.boxed()
    }
}

pub(super) async fn run(ha: &Arc<Ha>, doors: &dyn Doors) {
    loop {
        let others = doors.others();
        ha.has_others.store(!others.is_empty(), Relaxed);
        tokio::select! {
            () = tokio::time::sleep(TELL_EVERY) => {}
            () = ha.ask.notified() => {}
        }
        let (told, at) = (ha.sightings(), ha.at());
        if told.is_empty() {
            continue;
        }
        let answers = others.iter().map(|door| tokio::time::timeout(PATIENCE, door.exchange(told.clone())));
        for answer in join_all(answers).await.into_iter().flatten().flatten() {
            ha.take_sightings(answer);
        }
        ha.told(at);
    }
}

impl Ha {
    /// What this door knows.
    pub fn sightings(&self) -> Vec<PairSighting> {
        let at = self.at();
        let mut all = Vec::new();
        self.each(|tenant, cluster, pair| {
            if at.saturating_sub(pair.heard()) > NEWS {
                return;
            }
            let elected = pair.elected().cloned().unwrap_or_default();
            let replicas = pair.sightings().map(|(replica, heard, newest)| ReplicaSighting {
                replica: replica.to_owned(),
                age_ms: u64::try_from(at.saturating_sub(heard).as_millis()).unwrap_or(u64::MAX),
                newest_ms: newest,
            });
            all.push(PairSighting {
                tenant: tenant.as_str().to_owned(),
                cluster: cluster.to_owned(),
                elected: elected.replica,
                term: elected.term,
                splice_from_ms: elected.splice_from,
                since_ms: elected.since,
                replicas: replicas.collect(),
            });
        });
        all
    }

    /// Hears what another door knows. What is no tenant is nobody's.
    pub fn take_sightings(&self, told: Vec<PairSighting>) {
        for pair in told {
            let Ok(tenant) = TenantId::new(&pair.tenant) else { continue };
            let elected = (!pair.elected.is_empty()).then_some(Elected {
                replica: pair.elected,
                term: pair.term,
                splice_from: pair.splice_from_ms,
                since: pair.since_ms,
            });
            let replicas = pair.replicas.into_iter();
            let replicas = replicas.map(|r| (r.replica, Duration::from_millis(r.age_ms), r.newest_ms));
            self.hear_of(&(tenant, pair.cluster), elected, replicas);
        }
    }
}
