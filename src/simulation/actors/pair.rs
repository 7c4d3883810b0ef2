//! Two Prometheus servers that scrape the same targets: each dies and comes back, and both write to whichever door there is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use model::Sample;
use parking_lot::Mutex;
use runtime::Chance;
use testkit::SeededChance;
use tokio::sync::Notify;

use crate::breaks::Break;
use crate::ledger::{Key, PAIR};
use crate::network::{SENDERS, Seat};
use crate::note;
use crate::plan::PairPlan;
use crate::steps::EPOCH;
use crate::universe::Shared;

/// How long an answer is waited for, and the longest pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const NAMES: [&str; 2] = ["a", "b"];
/// How long both scrape after the trouble, so that whoever took over has time for it.
const AFTER: Duration = Duration::from_secs(90);

/// A pair.
pub struct Pair {
    shared: Arc<Shared>,
    plan: PairPlan,
    replicas: Vec<Arc<Replica>>,
    /// In milliseconds since the beginning; 0 while they scrape.
    ended: AtomicI64,
}

struct Replica {
    number: usize,
    every: Duration,
    shared: Arc<Shared>,
    chance: SeededChance,
    queue: Mutex<VecDeque<i64>>,
    news: Notify,
    lives: AtomicBool,
    scrapes: AtomicBool,
    idle: AtomicBool,
    /// Scrapes that were acknowledged at once, in milliseconds since the beginning.
    taken: Mutex<Vec<i64>>,
}

impl Pair {
    /// Both begin to scrape.
    pub fn start(shared: &Arc<Shared>, plan: PairPlan) -> Arc<Pair> {
        let replica = |number: usize| {
            Arc::new(Replica {
                number,
                every: plan.scrape,
                shared: Arc::clone(shared),
                chance: SeededChance::new(shared.seed ^ ((number as u64 + 177) << 24)),
                queue: Mutex::default(),
                news: Notify::new(),
                lives: AtomicBool::new(true),
                scrapes: AtomicBool::new(true),
                idle: AtomicBool::new(true),
                taken: Mutex::default(),
            })
        };
        let replicas: Vec<_> = (0..2).map(replica).collect();
        for (replica, offset) in replicas.iter().zip(plan.offsets) {
            tokio::spawn(Arc::clone(replica).scrape(offset, plan.scrape));
            tokio::spawn(Arc::clone(replica).send());
        }
        let pair = Arc::new(Pair { shared: Arc::clone(shared), plan, replicas, ended: AtomicI64::new(0) });
        tokio::spawn(Arc::clone(&pair).live());
        pair
    }

    /// One after the other dies for a while, one at a time.
    async fn live(self: Arc<Pair>) {
        let chance = SeededChance::new(self.shared.seed ^ 0x6c69);
        let end = self.shared.began + self.shared.plan.trouble;
        loop {
            tokio::time::sleep(Duration::from_millis(15_000 + chance.below(40_000))).await;
            if tokio::time::Instant::now() >= end {
                break;
            }
            let one = &self.replicas[chance.below(2) as usize];
            note!(self.shared.trace, "replica {} dies", NAMES[one.number]);
            one.lives.store(false, Relaxed);
            one.queue.lock().clear();
            tokio::time::sleep(Duration::from_millis(45_000 + chance.below(60_000))).await;
            note!(self.shared.trace, "replica {} is back", NAMES[one.number]);
            one.lives.store(true, Relaxed);
        }
        tokio::time::sleep(AFTER).await;
        self.replicas.iter().for_each(|replica| replica.scrapes.store(false, Relaxed));
        self.ended.store(self.shared.trace.elapsed_ms(), Relaxed);
    }

    /// When they stopped, in milliseconds since the beginning.
    pub fn ended(&self) -> i64 {
        self.ended.load(Relaxed)
    }

    /// Whether both have sent all that they had.
    pub fn is_idle(&self) -> bool {
        self.ended() > 0
            && self
                .replicas
                .iter()
                .all(|replica| replica.queue.lock().is_empty() && replica.idle.load(Relaxed))
    }

    /// Scrapes of either that were acknowledged before its next one, in milliseconds since the beginning.
    pub fn taken(&self) -> Vec<i64> {
        self.replicas.iter().flat_map(|replica| replica.taken.lock().clone()).collect()
    }

    pub fn plan(&self) -> &PairPlan {
        &self.plan
    }
}

impl Replica {
    async fn scrape(self: Arc<Replica>, offset: Duration, every: Duration) {
        let mut next = tokio::time::Instant::now() + offset;
        loop {
            tokio::time::sleep_until(next).await;
            next += every;
            if !self.scrapes.load(Relaxed) {
                return;
            }
            if !self.lives.load(Relaxed) {
                continue;
            }
            self.queue.lock().push_back(EPOCH + self.shared.trace.elapsed_ms());
            self.idle.store(false, Relaxed);
            self.news.notify_one();
        }
    }

    async fn send(self: Arc<Replica>) {
        loop {
            let next = self.queue.lock().pop_front();
            match next {
                Some(at) => self.deliver(at).await,
                None => {
                    self.idle.store(true, Relaxed);
                    self.news.notified().await;
                }
            }
        }
    }

    async fn deliver(&self, at: i64) {
        let keys: Vec<Key> = (0..2).map(|series| Key { sender: PAIR, series }).collect();
        let samples: Vec<(Key, i64)> = keys.iter().map(|key| (*key, at)).collect();
        let Some(body) = self.body(&keys, at) else { return };
        self.shared.ledger.sent(&samples);
        let tenant = crate::ledger::tenant(PAIR);
        let mut pause = Duration::from_millis(30);
        while self.lives.load(Relaxed) {
            let doors = self.shared.doors();
            let to = doors[self.chance.below(doors.len() as u64) as usize];
            let from: Seat = SENDERS + PAIR + self.number;
            let posted = self.shared.network.post(from, to, tenant.as_str(), body.clone());
            let status = match self.shared.broken {
                Some(Break::StandbyUnheard) if self.number == 1 => Some(204),
                _ => tokio::time::timeout(PATIENCE, posted).await.ok().flatten(),
            };
            note!(self.shared.trace, "replica {} at r{to}: {} {status:?}", NAMES[self.number], at - EPOCH);
            match status {
                Some(200..=299) => {
                    let scraped = at - EPOCH;
                    if self.shared.trace.elapsed_ms() < scraped + self.every.as_millis() as i64 {
                        self.taken.lock().push(scraped);
                    }
                    return;
                }
                Some(400..=499) => {
                    let at = self.shared.trace.elapsed_ms();
                    return self.shared.ledger.refused(&samples, at);
                }
                _ => {}
            }
            tokio::time::sleep(pause + Duration::from_millis(self.chance.below(50))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn body(&self, keys: &[Key], at: i64) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        let texts: Vec<(String, String)> = keys.iter().map(|key| (key.name(), key.instance())).collect();
        let series = keys.iter().zip(&texts).map(|(key, (name, instance))| {
            let labels = [
                ("__name__", name.as_str()),
                ("__replica__", NAMES[self.number]),
                ("cluster", "c"),
                ("instance", instance.as_str()),
            ];
            (labels, [Sample { timestamp: at, value: key.value(at) }].into_iter())
        });
        wire::remote_write::encode_v1(series, &mut plain);
        wire::remote_write::compress(&plain).ok()
    }
}
