//! The path of a decoded write: which ring, which shares, to whom, and how many must have said yes.
//!
//! Knows neither HTTP nor gRPC: both doors come here, and what comes back is an outcome per sample.

use std::sync::Arc;
use std::time::Duration;

use hashring::Ring;
use model::{Labels, TenantId, Timestamp};
use storage::WriteBatch;

use crate::local::Local;
use crate::pending::{Answer, Collected, Part, Pending};
use crate::quorum::Outcome;
use crate::ring::{Current, RingHolder, Target};
use crate::route::{self, Share};
use crate::settings::{Mode, Settings};
use crate::status::Denial;

/// How long peers that are left alone are spared while the others have not answered.
const SPARED: Duration = Duration::from_millis(100);

/// What routes, stores and waits.
pub struct Writer {
    mode: Mode,
    ring: RingHolder,
    local: Arc<Local>,
    needed: usize,
    timeout: Duration,
}

/// A write that knows where it goes.
pub struct Plan {
    current: Arc<Current>,
    shares: Vec<Share>,
}

/// See [`Writer::place`].
pub struct Place {
    ring: Option<Arc<Ring>>,
    local: Option<usize>,
}

impl Place {
    pub fn stores_here(&self, hash: u64) -> bool {
        let (Some(ring), Some(local)) = (&self.ring, self.local) else { return false };
        ring.replicas(hash).iter().any(|at| usize::from(*at) == local)
    }
}

impl Writer {
    pub fn new(settings: &Settings, ring: RingHolder, local: Arc<Local>) -> Writer {
        let replication = &settings.replication;
        Writer {
            mode: settings.mode(),
            ring,
            local,
            needed: replication.quorum.needed(replication.replication_factor as usize),
            timeout: replication.forward_timeout.as_duration(),
        }
    }

    pub fn ring(&self) -> &RingHolder {
        &self.ring
    }

    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Copies that must be durable for an ack.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Whether a write that says it is copy number `replica` is stored here, whatever the ring says. A router
    /// that stores nothing places it anew, and a node without a ring stores everything.
    pub fn stores_here(&self, replica: u32) -> bool {
        match self.mode {
            Mode::IngestorOnly => true,
            Mode::RouterIngestor => replica > 0,
            Mode::RouterOnly => false,
        }
    }

    /// How long a write waits for its copies.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// External labels that the ring gives to a tenant.
    pub fn ring_labels(&self, tenant: &str) -> Labels {
        self.ring.current().rings.external_labels(tenant)
    }

    /// Which of a tenant's series are stored here, by the ring as it is now.
    pub fn place(&self, tenant: &TenantId) -> Place {
        let current = self.ring.current();
        let local = current.targets.iter().position(|target| matches!(target, Target::Local));
        Place { ring: current.rings.resolve(tenant.as_str()), local }
    }

    /// Places a batch. Asks the ring once per series; for a thread that may compute.
    pub fn plan(&self, tenant: &TenantId, batch: &WriteBatch) -> Result<Plan, Denial> {
        let current = self.ring.current();
        let Some(ring) = current.rings.resolve(tenant.as_str()) else {
            return Err(Denial::Invalid(format!(
                "no ring takes tenant {:?}; add it to a ring, or add a ring without tenants",
                tenant.as_str()
            )));
        };
        let wants_copy = |endpoint| match &current.targets[usize::from(endpoint)] {
            Target::Local => false,
            Target::Peer(peer) => !peer.is_ours(),
        };
        let shares = route::split(batch, &ring, current.targets.len(), wants_copy);
        Ok(Plan { current, shares })
    }

    /// Sends a placed batch to all its replicas and waits for the quorum. Copies beyond it go on by themselves.
    pub async fn send(
        &self,
        plan: Plan,
        tenant: &TenantId,
        batch: Arc<WriteBatch>,
        judged_at: Timestamp,
    ) -> Collected {
        let copies = plan.current.rings.replication_factor();
        let pending = Pending::new(batch, copies, self.needed);
        let mut spared = Vec::new();
        for share in plan.shares {
            let (part, copy) = (pending.part(share.rows), share.copy as u32 + 1);
            match &plan.current.targets[usize::from(share.endpoint)] {
                Target::Peer(peer) if peer.is_away() => spared.push((peer, copy, part)),
                Target::Peer(peer) => peer.send(tenant, judged_at, copy, part, false),
                Target::Local => {
                    tokio::spawn(store(Arc::clone(&self.local), tenant.clone(), part, judged_at));
                }
            }
        }
        if !spared.is_empty() {
            // Who is left alone is asked only where the others do not suffice: it may be back since a moment ago.
            let needed = !pending.settles_without(spared.len(), SPARED).await;
            for (peer, copy, part) in spared {
                peer.send(tenant, judged_at, copy, part, needed);
            }
        }
        let collected = pending.collect(self.timeout).await;
        let lost = collected.outcomes.contains(&Outcome::Retryable);
        let result = if lost { "error" } else { "success" };
        metrics::counter!("thanos_receive_replications_total", "result" => result).increment(1);
        collected
    }
}

async fn store(local: Arc<Local>, tenant: TenantId, part: Part, judged_at: Timestamp) {
    let rows = part.rows().to_vec();
    match local.write(tenant, Arc::clone(part.batch()), rows, judged_at).await {
        Ok(verdicts) => part.answer(Answer::ByIndex(verdicts)),
        Err(why) => part.answer(Answer::Unavailable(why)),
    }
}
