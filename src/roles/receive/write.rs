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
        let short = self.short(&plan, copies, batch.series().len());
        let pending = Pending::new(batch, copies, self.needed);
        for share in plan.shares {
            let needed = !short.is_empty() && share.rows.iter().any(|row| short[*row as usize]);
            let part = pending.part(share.rows);
            match &plan.current.targets[usize::from(share.endpoint)] {
                Target::Peer(peer) => peer.send(tenant, judged_at, share.copy as u32 + 1, part, needed),
                Target::Local => {
                    tokio::spawn(store(Arc::clone(&self.local), tenant.clone(), part, judged_at));
                }
            }
        }
        let collected = pending.collect(self.timeout).await;
        let lost = collected.outcomes.contains(&Outcome::Retryable);
        let result = if lost { "error" } else { "success" };
        metrics::counter!("thanos_receive_replications_total", "result" => result).increment(1);
        collected
    }
}

impl Writer {
    /// Rows that cannot be accepted if those peers that are left alone are not asked; empty where none is.
    fn short(&self, plan: &Plan, copies: usize, rows: usize) -> Vec<bool> {
        let is_away = |target: &Target| matches!(target, Target::Peer(peer) if peer.is_away());
        let away: Vec<bool> = plan.current.targets.iter().map(is_away).collect();
        if !away.contains(&true) {
            return Vec::new();
        }
        let mut missing = vec![0; rows];
        for share in plan.shares.iter().filter(|share| away[usize::from(share.endpoint)]) {
            share.rows.iter().for_each(|row| missing[*row as usize] += 1);
        }
        missing.into_iter().map(|missing| copies - missing < self.needed).collect()
    }
}

async fn store(local: Arc<Local>, tenant: TenantId, part: Part, judged_at: Timestamp) {
    let rows = part.rows().to_vec();
    match local.write(tenant, Arc::clone(part.batch()), rows, judged_at).await {
        Ok(verdicts) => part.answer(Answer::ByIndex(verdicts)),
        Err(why) => part.answer(Answer::Unavailable(why)),
    }
}
