//! What senders have sent and what they were told of it: every sample with the time of its acknowledgement and its door.

use std::collections::{BTreeMap, BTreeSet};

use model::{Labels, TenantId};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::LifeId;
use crate::network::Seat;

/// The sender that is two.
pub const PAIR: usize = 90;

/// A series of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub sender: usize,
    pub series: usize,
}

impl Key {
    /// Senders take turns between two tenants.
    pub fn tenant(self) -> TenantId {
        tenant(self.sender)
    }

    pub fn name(self) -> String {
        format!("m{}", self.series)
    }

    pub fn instance(self) -> String {
        format!("s{}", self.sender)
    }

    pub fn labels(self) -> Labels {
        let mut pairs = vec![("__name__", self.name()), ("instance", self.instance())];
        if self.sender == PAIR {
            pairs.push(("cluster", "c".to_owned()));
        }
        Labels::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_str()))).unwrap_or_else(|_| Labels::empty())
    }

    /// The value that the series has at a time: nobody else's, and never another.
    pub fn value(self, timestamp: i64) -> f64 {
        let hash = xxh3_64(format!("{} {} {timestamp}", self.sender, self.series).as_bytes());
        (hash >> 12) as f64
    }
}

pub fn tenant(sender: usize) -> TenantId {
    let name = if sender.is_multiple_of(2) { "even" } else { "odd" };
    match TenantId::new(name) {
        Ok(tenant) => tenant,
        Err(_) => unreachable!("a plain word is a tenant"),
    }
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// By the true clock, in milliseconds since the beginning.
    pub at: i64,
    pub door: LifeId,
}

/// The ledger of one run.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Every sample that was ever sent, by series and time.
    sent: BTreeMap<(Key, i64), Option<Ack>>,
    /// What was refused for good, and when by the true clock.
    refused: Vec<((Key, i64), i64)>,
    /// Lives that may have lost what they had not yet brought to a peer.
    broken_off: BTreeSet<LifeId>,
    /// Nodes whose disks may not keep what they are given, from this life on.
    unreliable: BTreeMap<Seat, u64>,
}

impl Ledger {
    /// To be called before a sample leaves its sender.
    pub fn sent(&self, samples: &[(Key, i64)]) {
        let mut state = self.state.lock();
        for sample in samples {
            state.sent.entry(*sample).or_default();
        }
    }

    pub fn acked(&self, samples: &[(Key, i64)], ack: Ack) {
        let mut state = self.state.lock();
        for sample in samples {
            state.sent.insert(*sample, Some(ack));
        }
    }

    pub fn refused(&self, samples: &[(Key, i64)], at: i64) {
        self.state.lock().refused.extend(samples.iter().map(|sample| (*sample, at)));
    }

    /// A life that ended without order: what it had not brought to a peer may be gone.
    pub fn broke_off(&self, life: LifeId) {
        self.state.lock().broken_off.insert(life);
    }

    /// From this life on, what a node keeps for its peers may be lost: its disk is full, or fails.
    pub fn unreliable_from(&self, life: LifeId) {
        self.state.lock().unreliable.entry(life.seat).or_insert(life.number);
    }

    /// What was refused for good, and when.
    pub fn refusals(&self) -> Vec<((Key, i64), i64)> {
        self.state.lock().refused.clone()
    }

    pub fn has_sent(&self, key: Key, timestamp: i64) -> bool {
        self.state.lock().sent.contains_key(&(key, timestamp))
    }

    /// Samples acknowledged by `until` (milliseconds since the beginning), in order.
    pub fn acked_until(&self, until: i64) -> Vec<(Key, i64)> {
        let state = self.state.lock();
        let acked = state.sent.iter().filter(|(_, ack)| ack.is_some_and(|ack| ack.at <= until));
        acked.map(|(sample, _)| *sample).collect()
    }

    /// Samples that were acknowledged, however late, at a door that went on, or ended in good order: every owner is to have
    /// them in the end.
    pub fn acked_in_order(&self) -> Vec<(Key, i64)> {
        let state = self.state.lock();
        let in_order = |ack: &Option<Ack>| {
            let Some(Ack { door, .. }) = ack else { return false };
            let reliable = state.unreliable.get(&door.seat).is_none_or(|from| door.number < *from);
            reliable && !state.broken_off.contains(door)
        };
        state.sent.iter().filter(|(_, ack)| in_order(ack)).map(|(sample, _)| *sample).collect()
    }

    /// Sent, and acknowledged.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.sent.len(), state.sent.values().filter(|ack| ack.is_some()).count())
    }
}
