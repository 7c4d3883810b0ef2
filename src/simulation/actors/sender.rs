//! A Prometheus server as far as remote write goes: scrapes, queues, sends in order and repeats until it is told not to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use model::Sample;
use parking_lot::Mutex;
use runtime::Chance;
use testkit::SeededChance;
use tokio::sync::Notify;

use crate::ledger::{Ack, Key};
use crate::network::{SENDERS, Seat};
use crate::note;
use crate::steps::EPOCH;
use crate::universe::Shared;

/// How long an answer is waited for, and the longest pause between two attempts, as in Prometheus.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Scrapes that may become one request where it lags behind.
const TOGETHER: usize = 4;

/// A sender.
pub struct Sender {
    number: usize,
    shared: Arc<Shared>,
    chance: SeededChance,
    queue: Mutex<VecDeque<i64>>,
    news: Notify,
    scrapes: AtomicBool,
    /// Nothing waits and nothing is on its way.
    idle: AtomicBool,
}

impl Sender {
    /// Starts to scrape and to send.
    pub fn start(number: usize, shared: &Arc<Shared>) -> Arc<Sender> {
        let sender = Arc::new(Sender {
            number,
            shared: Arc::clone(shared),
            chance: SeededChance::new(shared.seed ^ ((number as u64 + 77) << 24)),
            queue: Mutex::default(),
            news: Notify::new(),
            scrapes: AtomicBool::new(true),
            idle: AtomicBool::new(true),
        });
        tokio::spawn(Arc::clone(&sender).scrape());
        tokio::spawn(Arc::clone(&sender).send());
        sender
    }

    /// No more scrapes; what is queued still goes out.
    pub fn finish(&self) {
        self.scrapes.store(false, Relaxed);
    }

    pub fn is_idle(&self) -> bool {
        self.queue.lock().is_empty() && self.idle.load(Relaxed)
    }

    fn seat(&self) -> Seat {
        SENDERS + self.number
    }

    async fn scrape(self: Arc<Sender>) {
        while self.scrapes.load(Relaxed) {
            let jitter = Duration::from_millis(self.chance.below(200));
            tokio::time::sleep(self.shared.plan.scrape + jitter).await;
            self.queue.lock().push_back(EPOCH + self.shared.trace.elapsed_ms());
            self.idle.store(false, Relaxed);
            self.news.notify_one();
        }
    }

    async fn send(self: Arc<Sender>) {
        loop {
            let times: Vec<i64> = {
                let mut queue = self.queue.lock();
                let many = queue.len().min(TOGETHER);
                queue.drain(..many).collect()
            };
            if times.is_empty() {
                self.idle.store(true, Relaxed);
                self.news.notified().await;
                continue;
            }
            self.deliver(&times).await;
        }
    }

    async fn deliver(&self, times: &[i64]) {
        let keys: Vec<Key> =
            (0..self.shared.plan.series).map(|series| Key { sender: self.number, series }).collect();
        let samples: Vec<(Key, i64)> =
            keys.iter().flat_map(|key| times.iter().map(move |at| (*key, *at))).collect();
        let Some(body) = body(&keys, times) else { return };
        self.shared.ledger.sent(&samples);
        let tenant = crate::ledger::tenant(self.number);
        let mut pause = Duration::from_millis(30);
        for attempt in 0u32.. {
            let doors = self.shared.doors();
            let to = doors[self.chance.below(doors.len() as u64) as usize];
            let door = self.shared.network.life(to).map(|life| life.id);
            let posted = self.shared.network.post(self.seat(), to, tenant.as_str(), body.clone());
            let status = tokio::time::timeout(PATIENCE, posted).await.ok().flatten();
            let at = self.shared.trace.elapsed_ms();
            note!(
                self.shared.trace,
                "s{} attempt {attempt} at r{to}, {} samples from {}: {status:?}",
                self.number,
                samples.len(),
                times[0] - EPOCH
            );
            match (status, door) {
                (Some(200..=299), Some(door)) => {
                    return self.shared.ledger.acked(&samples, Ack { at, door });
                }
                (Some(400..=499), _) => return self.shared.ledger.refused(&samples, at),
                _ => {}
            }
            tokio::time::sleep(pause + Duration::from_millis(self.chance.below(50))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn body(keys: &[Key], times: &[i64]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let texts: Vec<(String, String)> = keys.iter().map(|key| (key.name(), key.instance())).collect();
    let series = keys.iter().zip(&texts).map(|(key, (name, instance))| {
        let labels = [("__name__", name.as_str()), ("instance", instance.as_str())];
        (labels, times.iter().map(|at| Sample { timestamp: *at, value: key.value(*at) }))
    });
    wire::remote_write::encode_v1(series, &mut plain);
    wire::remote_write::compress(&plain).ok()
}
