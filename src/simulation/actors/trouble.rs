//! What goes wrong, when and for how long: drawn from the seed, within what the plan allows.

use std::sync::Arc;
use std::time::Duration;

use runtime::Chance;
use testkit::SeededChance;

use crate::actors::Node;
use crate::network::{CONTROL, Cut, GATEWAY, OPERATOR, QUERIER, ROUTER, SENDERS, Seat};
use crate::note;
use crate::plan::SKEW;
use crate::universe::Shared;

/// Makes trouble.
pub struct Trouble {
    shared: Arc<Shared>,
    all: Vec<Arc<Node>>,
    chance: SeededChance,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Crash,
    CrashAll,
    Stop,
    Rolling,
    Isolate,
    Zone,
    Deaf,
    Asleep,
    NoQuorum,
    OneWay,
    Slow,
    FullDisk,
    FailingSync,
    ClockJump,
    BucketDown,
    Cut,
}

impl Trouble {
    pub fn new(shared: &Arc<Shared>, nodes: &[Arc<Node>]) -> Arc<Trouble> {
        let chance = SeededChance::new(shared.seed ^ 0x7472);
        Arc::new(Trouble { shared: Arc::clone(shared), all: nodes.to_vec(), chance })
    }

    /// Machines that are there.
    fn nodes(&self) -> Vec<Arc<Node>> {
        self.all.iter().filter(|node| node.is_up()).cloned().collect()
    }

    fn ms(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.chance.below(high - low))
    }

    fn kinds(&self) -> Vec<Kind> {
        let plan = &self.shared.plan;
        let ring = plan.ring.as_ref();
        let given: [(bool, &[Kind]); 10] = [
            (plan.crashes, &[Kind::Crash, Kind::Crash, Kind::Crash, Kind::CrashAll]),
            (plan.stops, &[Kind::Stop, Kind::Stop, Kind::Rolling]),
            (plan.partitions, &[Kind::Isolate, Kind::OneWay, Kind::OneWay, Kind::Slow]),
            (plan.full_disks, &[Kind::FullDisk]),
            (plan.failing_syncs, &[Kind::FailingSync]),
            (plan.clock_jumps, &[Kind::ClockJump]),
            (plan.failing_bucket, &[Kind::BucketDown]),
            (plan.cuts, &[Kind::Cut, Kind::Cut]),
            (ring.is_some() && plan.partitions, &[Kind::Zone]),
            (ring.is_some_and(|ring| ring.deaf), &[Kind::Deaf, Kind::Deaf, Kind::Asleep, Kind::NoQuorum]),
        ];
        given.iter().filter(|(on, _)| *on).flat_map(|(_, kinds)| kinds.iter().copied()).collect()
    }

    /// One of those that there are, now.
    pub fn one(&self) {
        let kinds = self.kinds();
        self.make(kinds[self.chance.below(kinds.len() as u64) as usize]);
    }

    /// Until the plan's time is over.
    pub async fn run(&self) {
        let end = tokio::time::Instant::now() + self.shared.plan.trouble;
        loop {
            let pause = self.shared.plan.pause.as_millis() as u64;
            tokio::time::sleep(self.ms(pause / 4, pause * 2)).await;
            if tokio::time::Instant::now() >= end || self.shared.is_over() {
                return;
            }
            self.one();
        }
    }

    fn make(&self, kind: Kind) {
        let nodes = self.nodes();
        let node = Arc::clone(&nodes[self.chance.below(nodes.len() as u64) as usize]);
        note!(self.shared.trace, "trouble: {kind:?} at r{}", node.seat);
        let shared = Arc::clone(&self.shared);
        match kind {
            Kind::Crash => self.crash(node),
            Kind::CrashAll => nodes.iter().for_each(|node| self.crash(Arc::clone(node))),
            Kind::Stop => {
                let away = self.ms(0, 15_000);
                tokio::spawn(async move {
                    node.stop().await;
                    tokio::time::sleep(away).await;
                    node.start().await;
                });
            }
            Kind::Rolling => self.roll(),
            Kind::Isolate => {
                let others = nodes.iter().map(|other| other.seat).filter(|seat| *seat != node.seat);
                self.isolate(&[node.seat], others.collect());
            }
            Kind::Zone => {
                // Machines stand in two places.
                let (here, there): (Vec<Seat>, Vec<Seat>) =
                    nodes.iter().map(|node| node.seat).partition(|seat| seat % 2 == node.seat % 2);
                self.isolate(&here, there);
            }
            Kind::Deaf => {
                let (how, seat) = (self.how(), node.seat);
                shared.network.cut(seat, CONTROL, how);
                shared.network.cut(CONTROL, seat, how);
                self.mend_way_later(seat, CONTROL, 120_000);
            }
            Kind::Asleep => {
                let (how, seat) = (self.how(), [ROUTER, QUERIER][self.chance.below(2) as usize]);
                shared.network.cut(seat, CONTROL, how);
                shared.network.cut(CONTROL, seat, how);
                self.mend_way_later(seat, CONTROL, 200_000);
            }
            Kind::NoQuorum => {
                let how = self.how();
                for seat in nodes.iter().map(|node| node.seat).chain([ROUTER, QUERIER, OPERATOR]) {
                    shared.network.cut(seat, CONTROL, how);
                }
                self.mend_later(CONTROL);
            }
            Kind::OneWay => {
                let to = nodes[self.chance.below(nodes.len() as u64) as usize].seat;
                shared.network.cut(node.seat, to, self.how());
                self.mend_later(node.seat);
            }
            Kind::Slow => {
                let by = self.ms(100, 5_000);
                nodes.iter().for_each(|to| shared.network.slow(node.seat, to.seat, by));
                self.mend_later(node.seat);
            }
            Kind::FullDisk => {
                let disk = node.disk();
                disk.set_capacity_limit(Some(disk.used() + self.chance.below(8 << 10)));
                shared.ledger.unreliable_from(node.newest_life());
                let after = self.ms(1_000, 20_000);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    // After a crash it is another one, without limits.
                    disk.set_capacity_limit(None);
                    note!(shared.trace, "r{} has room again", node.seat);
                });
            }
            Kind::FailingSync => {
                node.disk().fail_sync_after(self.chance.below(20));
                shared.ledger.unreliable_from(node.newest_life());
            }
            Kind::ClockJump => {
                let most = SKEW.as_millis() as u64;
                let by = self.ms(0, 2 * most).as_millis() as i64 - most as i64;
                node.clock().set_skew(by);
                let after = self.ms(1_000, 30_000);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    node.clock().set_skew(0);
                });
            }
            Kind::BucketDown => {
                shared.store.set_down(true);
                let after = self.ms(5_000, 60_000);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    shared.store.set_down(false);
                });
            }
            Kind::Cut => {
                tokio::spawn(async move {
                    if let Some(life) = node.life() {
                        let done = life.cut().await;
                        note!(shared.trace, "r{} is cut, all uploaded: {done}", node.seat);
                    }
                });
            }
        }
    }

    fn how(&self) -> Cut {
        if self.chance.below(2) == 0 { Cut::Silent } else { Cut::Refused }
    }

    fn crash(&self, node: Arc<Node>) {
        let away = self.ms(200, 20_000);
        tokio::spawn(async move {
            node.crash().await;
            tokio::time::sleep(away).await;
            node.start().await;
        });
    }

    /// One after the other is stopped and started, each once the one before is ready.
    fn roll(&self) {
        let (nodes, shared) = (self.nodes(), Arc::clone(&self.shared));
        let away = self.ms(0, 3_000);
        tokio::spawn(async move {
            for node in nodes {
                node.stop().await;
                tokio::time::sleep(away).await;
                node.start().await;
                for _ in 0..200 {
                    if node.life().is_some_and(|life| life.is_ready()) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            note!(shared.trace, "the rolling restart is over");
        });
    }

    /// Cuts some off from others, and half the time from everybody.
    fn isolate(&self, here: &[Seat], there: Vec<Seat>) {
        let shared = &self.shared;
        let outside = (SENDERS..SENDERS + shared.plan.senders).chain([QUERIER, ROUTER, CONTROL, GATEWAY]);
        let from_all = self.chance.below(2) == 0;
        let all: Vec<Seat> = there.into_iter().chain(outside.filter(|_| from_all)).collect();
        let how = self.how();
        for seat in here {
            for other in &all {
                shared.network.cut(*seat, *other, how);
                shared.network.cut(*other, *seat, how);
            }
            self.mend_later(*seat);
        }
    }

    fn mend_way_later(&self, a: Seat, b: Seat, most: u64) {
        let after = self.ms(5_000, most);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            shared.network.mend_way(a, b);
            note!(shared.trace, "the way between {a} and {b} is mended");
        });
    }

    fn mend_later(&self, seat: Seat) {
        let after = self.ms(500, 30_000);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            shared.network.mend(Some(seat));
            note!(shared.trace, "ways of r{seat} are mended");
        });
    }
}
