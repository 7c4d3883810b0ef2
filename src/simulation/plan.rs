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
    /// Where the ring is agreed on, what an operator does to it.
    pub ring: Option<RingPlan>,
    /// Whether an HA pair writes, too.
    pub pair: Option<PairPlan>,
}

/// Two Prometheus servers that scrape the same.
#[derive(Clone, Debug)]
pub struct PairPlan {
    pub scrape: Duration,
    /// When each scrapes for the first time.
    pub offsets: [Duration; 2],
}

/// Seats that receivers may take where the ring changes.
pub const SEATS: usize = 6;

/// A cluster whose ring is agreed on.
#[derive(Clone, Debug)]
pub struct RingPlan {
    pub edits: Vec<Edit>,
    /// Mean pause before an edit.
    pub pause: Duration,
    /// Whether one writes through a router that stores nothing.
    pub router: bool,
    /// Whether ways to the control plane are cut, of one or of all.
    pub deaf: bool,
    /// How often the store looks for new blocks.
    pub look: Duration,
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// So many more receivers.
    Grow(usize),
    /// So many less; each is stopped and its folder deleted once it says that it is drained.
    Shrink(usize),
    /// One for another.
    Swap,
    /// The disk of one is gone; it comes back with an empty one.
    EmptyDisk,
    /// A machine is gone with its disk; another takes its place.
    Retire,
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
            ring: None,
            pair: None,
        };
        if !(plan.crashes || plan.stops || plan.partitions) {
            plan.stops = true;
        }
        if !seed.is_multiple_of(2) {
            plan.nodes = 3;
            plan.ring = Some(RingPlan::of(&chance));
        }
        if seed % 8 == 7 {
            plan.with_pair(&chance);
        }
        plan
    }
}

impl Plan {
    /// What is held of a standby lies in the memory of a door and goes with it: in these runs doors live. Who did not have a
    /// series before the ring changed cannot tell what lies beside what it is to fill in: the ring stays. And doors that
    /// neither agree nor hear each other go by what each hears: the network loses nothing between them, but ways to the control
    /// plane are cut as in other runs.
    fn with_pair(&mut self, chance: &SeededChance) {
        let ms = |low: u64, high: u64| Duration::from_millis(low + chance.below(high - low));
        let scrape = ms(3_000, 6_000);
        let offset = || ms(0, scrape.as_millis() as u64);
        self.pair = Some(PairPlan { scrape, offsets: [offset(), offset()] });
        self.trouble = self.trouble.max(Duration::from_secs(120));
        (self.crashes, self.stops, self.partitions) = (false, false, false);
        (self.full_disks, self.failing_syncs, self.clock_jumps) = (false, false, false);
        // With a chunk every few scrapes a series forgets its interval, by which a splice is judged.
        self.block_range = Duration::from_secs(7200);
        self.cuts = false;
        self.failing_bucket = true;
        (self.lost, self.twice, self.unanswered) = (0, 0, 0);
        if let Some(ring) = &mut self.ring {
            ring.edits = Vec::new();
        }
    }
}

impl RingPlan {
    fn of(chance: &SeededChance) -> RingPlan {
        let between = |low: u64, high: u64| low + chance.below(high - low + 1);
        let (mut members, mut disks) = (3, 1);
        let mut edits = Vec::new();
        for _ in 0..between(1, 3) {
            let edit = match between(0, 9) {
                0..=3 if members < 5 => Edit::Grow(between(1, 5 - members as u64) as usize),
                0..=5 if members > 3 => Edit::Shrink(members - 3),
                6 if disks > 0 => Edit::EmptyDisk,
                7 if disks > 0 => Edit::Retire,
                _ => Edit::Swap,
            };
            match edit {
                Edit::Grow(more) => members += more,
                Edit::Shrink(less) => members -= less,
                // What is lost twice may be lost for good: two copies are what an acknowledgement stands for.
                Edit::EmptyDisk | Edit::Retire => disks -= 1,
                Edit::Swap => {}
            }
            edits.push(edit);
        }
        RingPlan {
            edits,
            pause: Duration::from_millis(between(2_000, 20_000)),
            router: between(0, 1) == 1,
            deaf: between(0, 1) == 1,
            look: Duration::from_millis(between(1_000, 15_000)),
        }
    }
}
