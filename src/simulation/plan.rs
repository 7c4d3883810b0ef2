//! What a seed stands for: how large the cluster is, what its senders send, and which troubles it meets.

use std::time::Duration;

use runtime::Chance;
use testkit::SeededChance;

/// Copies of every sample, and how many an acknowledgement needs.
pub const COPIES: usize = 3;
pub const QUORUM: usize = 2;

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub senders: usize,
    /// Of each sender.
    pub series: usize,
    pub scrape: Duration,
    /// How long troubles come.
    pub trouble: Duration,
    /// Mean pause between two of them.
    pub pause: Duration,
    /// Longest way of a message in ordinary times.
    pub latency: Duration,
    pub slowest_sync: Duration,
    /// Of 1000 messages, so many are lost, brought twice, or stored with the answer lost.
    pub lost: u64,
    pub twice: u64,
    pub unanswered: u64,
    pub block_range: Duration,
    pub out_of_order: Duration,
    /// Which kinds of trouble there are.
    pub crashes: bool,
    pub stops: bool,
    pub partitions: bool,
    pub full_disks: bool,
    pub failing_syncs: bool,
    pub clock_jumps: bool,
    pub failing_bucket: bool,
    pub cuts: bool,
}

/// How far a clock may be off, at most.
pub const SKEW: Duration = Duration::from_secs(60);

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let chance = SeededChance::new(seed ^ 0x51u64.rotate_left(40));
        let between = |low: u64, high: u64| low + chance.below(high - low + 1);
        let often = |of_ten: u64| chance.below(10) < of_ten;
        let rough = often(5);
        let mut plan = Plan {
            nodes: between(3, 5) as usize,
            senders: between(1, 3) as usize,
            series: between(2, 8) as usize,
            scrape: Duration::from_millis(between(2_000, 6_000)),
            trouble: Duration::from_secs(between(40, 150)),
            pause: Duration::from_millis(between(2_000, 12_000)),
            latency: Duration::from_millis(between(1, 30)),
            slowest_sync: Duration::from_millis(between(1, 40)),
            lost: if rough { between(0, 60) } else { 0 },
            twice: if rough { between(0, 60) } else { 0 },
            unanswered: if rough { between(0, 60) } else { 0 },
            block_range: Duration::from_secs(between(1, 4) * 30),
            out_of_order: Duration::from_secs(between(2, 8) * 30),
            crashes: often(6),
            stops: often(6),
            partitions: often(6),
            full_disks: often(2),
            failing_syncs: often(2),
            clock_jumps: often(2),
            failing_bucket: often(5),
            cuts: often(5),
        };
        if !(plan.crashes || plan.stops || plan.partitions) {
            plan.stops = true;
        }
        plan
    }
}
