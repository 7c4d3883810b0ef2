//! What goes wrong, when and for how long: drawn from the seed, within what the plan allows.

use std::sync::Arc;
use std::time::Duration;

use runtime::Chance;
use testkit::SeededChance;

use crate::actors::Node;
use crate::network::{Cut, QUERIER, SENDERS, Seat};
use crate::note;
use crate::plan::SKEW;
use crate::universe::Shared;

/// Makes trouble.
pub struct Trouble {
    shared: Arc<Shared>,
    nodes: Vec<Arc<Node>>,
    chance: SeededChance,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Crash,
    CrashAll,
    Stop,
    Rolling,
    Isolate,
    OneWay,
    Slow,
    FullDisk,
    FailingSync,
    ClockJump,
    BucketDown,
    Cut,
}

impl Trouble {
    pub fn new(shared: &Arc<Shared>, nodes: &[Arc<Node>]) -> Trouble {
        let chance = SeededChance::new(shared.seed ^ 0x7472);
        Trouble { shared: Arc::clone(shared), nodes: nodes.to_vec(), chance }
    }

    fn ms(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.chance.below(high - low))
    }

    fn kinds(&self) -> Vec<Kind> {
        let plan = &self.shared.plan;
        let given: [(bool, &[Kind]); 8] = [
            (plan.crashes, &[Kind::Crash, Kind::Crash, Kind::Crash, Kind::CrashAll]),
            (plan.stops, &[Kind::Stop, Kind::Stop, Kind::Rolling]),
            (plan.partitions, &[Kind::Isolate, Kind::OneWay, Kind::OneWay, Kind::Slow]),
            (plan.full_disks, &[Kind::FullDisk]),
            (plan.failing_syncs, &[Kind::FailingSync]),
            (plan.clock_jumps, &[Kind::ClockJump]),
            (plan.failing_bucket, &[Kind::BucketDown]),
            (plan.cuts, &[Kind::Cut, Kind::Cut]),
        ];
        given.iter().filter(|(on, _)| *on).flat_map(|(_, kinds)| kinds.iter().copied()).collect()
    }

    /// Until the plan's time is over.
    pub async fn run(&self) {
        let end = tokio::time::Instant::now() + self.shared.plan.trouble;
        let kinds = self.kinds();
        loop {
            let pause = self.shared.plan.pause.as_millis() as u64;
            tokio::time::sleep(self.ms(pause / 4, pause * 2)).await;
            if tokio::time::Instant::now() >= end || self.shared.is_over() {
                return;
            }
            let kind = kinds[self.chance.below(kinds.len() as u64) as usize];
            self.make(kind);
        }
    }

    fn make(&self, kind: Kind) {
        let node = Arc::clone(&self.nodes[self.chance.below(self.nodes.len() as u64) as usize]);
        note!(self.shared.trace, "trouble: {kind:?} at r{}", node.seat);
        let shared = Arc::clone(&self.shared);
        match kind {
            Kind::Crash => self.crash(node),
            Kind::CrashAll => self.nodes.iter().for_each(|node| self.crash(Arc::clone(node))),
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
                let others = (0..self.nodes.len()).filter(|seat| *seat != node.seat);
                let outside = (SENDERS..SENDERS + shared.plan.senders).chain([QUERIER]);
                let from_all = self.chance.below(2) == 0;
                let all: Vec<Seat> = others.chain(outside.filter(|_| from_all)).collect();
                let (how, seat) = (self.how(), node.seat);
                for other in all {
                    shared.network.cut(seat, other, how);
                    shared.network.cut(other, seat, how);
                }
                self.mend_later(seat);
            }
            Kind::OneWay => {
                let to = self.chance.below(self.nodes.len() as u64) as Seat;
                shared.network.cut(node.seat, to, self.how());
                self.mend_later(node.seat);
            }
            Kind::Slow => {
                let by = self.ms(100, 5_000);
                (0..self.nodes.len()).for_each(|to| shared.network.slow(node.seat, to, by));
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
        let (nodes, shared) = (self.nodes.clone(), Arc::clone(&self.shared));
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
