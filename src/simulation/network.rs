//! The network in memory: delays, losses, repetitions and cut ways, between nodes, senders and queriers.
//!
//! What goes between receivers goes as bytes, encoded and decoded by the code that keeps hints. A way that is cut either
//! swallows what is sent, so that the caller's own time limit ends the call, or says at once that nobody is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use model::{Kind, Sample};
use parking_lot::Mutex;
use receive::simulated::Remote;
use rpc::{KnownWrite, WriteCall, WriteRequest};
use runtime::Chance;
use storage::{Verdict, WriteBatch};
use testkit::SeededChance;
use tokio::sync::oneshot;
use tower::ServiceExt;
use wire::pb::tributary::v1::PairSighting;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::{Life, Who};
use crate::breaks::Break;
use crate::note;
use crate::plan::Plan;
use crate::trace::Trace;

/// Whoever sends or is sent to: nodes by their number, others behind them.
pub type Seat = usize;

/// The first sender's, and the querier's.
pub const SENDERS: Seat = 100;
pub const QUERIER: Seat = 200;
/// The store's, the operator's, and the control plane's.
pub const GATEWAY: Seat = 201;
pub const OPERATOR: Seat = 202;
pub const CONTROL: Seat = 203;
/// A router's, which stores nothing.
pub const ROUTER: Seat = 50;

/// How a way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing comes back.
    Silent,
    /// An error comes back at once.
    Refused,
}

/// The network of one run.
pub struct Network {
    pub trace: Trace,
    plan: Plan,
    broken: Option<Break>,
    chance: SeededChance,
    state: Mutex<State>,
    calls: AtomicU64,
}

#[derive(Default)]
struct State {
    lives: BTreeMap<Seat, Arc<Life>>,
    cut: BTreeMap<(Seat, Seat), Cut>,
    slow: BTreeMap<(Seat, Seat), Duration>,
    /// Nothing is lost or repeated any more.
    calm: bool,
}

enum Fate {
    Arrives(Duration),
    Silent,
    Refused,
}

impl Network {
    pub fn new(seed: u64, plan: &Plan, broken: Option<Break>, trace: &Trace) -> Arc<Network> {
        Arc::new(Network {
            trace: trace.clone(),
            plan: plan.clone(),
            broken,
            chance: SeededChance::new(seed ^ 0x6e65),
            state: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    // === who is there, and what is wrong ===

    pub fn enter(&self, seat: Seat, life: Arc<Life>) {
        self.state.lock().lives.insert(seat, life);
    }

    pub fn leave(&self, seat: Seat) {
        self.state.lock().lives.remove(&seat);
    }

    /// The run is over: who was there. Whoever is there and the network hold each other.
    pub fn end(&self) -> Vec<Arc<Life>> {
        std::mem::take(&mut self.state.lock().lives).into_values().collect()
    }

    pub fn cut(&self, from: Seat, to: Seat, how: Cut) {
        self.state.lock().cut.insert((from, to), how);
    }

    pub fn slow(&self, from: Seat, to: Seat, by: Duration) {
        self.state.lock().slow.insert((from, to), by);
    }

    /// Ends every cut and slowness between `a` and others, or everywhere.
    pub fn mend(&self, a: Option<Seat>) {
        let mut state = self.state.lock();
        let keep = |(from, to): &(Seat, Seat)| a.is_some_and(|a| *from != a && *to != a);
        state.cut.retain(|way, _| keep(way));
        state.slow.retain(|way, _| keep(way));
        if self.broken == Some(Break::StaysCut) {
            state.cut.insert((0, 1), Cut::Silent);
        }
    }

    /// Ends the cuts of one way, both directions.
    pub fn mend_way(&self, a: Seat, b: Seat) {
        let mut state = self.state.lock();
        state.cut.remove(&(a, b));
        state.cut.remove(&(b, a));
    }

    /// From now on every message arrives once.
    pub fn calm(&self) {
        self.mend(None);
        self.state.lock().calm = true;
    }

    pub fn life(&self, seat: Seat) -> Option<Arc<Life>> {
        self.state.lock().lives.get(&seat).cloned()
    }

    // === messages ===

    fn roll(&self, of_1000: u64) -> bool {
        !self.state.lock().calm && self.chance.below(1000) < of_1000
    }

    fn fate(&self, from: Seat, to: Seat) -> Fate {
        let delay = Duration::from_micros(self.chance.below(self.plan.latency.as_micros() as u64 + 1));
        let state = self.state.lock();
        match state.cut.get(&(from, to)) {
            Some(Cut::Silent) => return Fate::Silent,
            Some(Cut::Refused) => return Fate::Refused,
            None => {}
        }
        let slow = state.slow.get(&(from, to)).copied().unwrap_or_default();
        drop(state);
        if self.roll(self.plan.lost) {
            return Fate::Silent;
        }
        Fate::Arrives(delay + slow)
    }

    /// Whether this message comes once more.
    pub fn repeats(&self) -> bool {
        self.roll(self.plan.twice)
    }

    /// Whether the answer to it is lost.
    pub fn swallows(&self) -> bool {
        self.roll(self.plan.unanswered)
    }

    /// One way of one message; false where nobody is there.
    pub async fn hop(&self, from: Seat, to: Seat) -> bool {
        match self.fate(from, to) {
            Fate::Arrives(delay) => {
                tokio::time::sleep(delay).await;
                true
            }
            Fate::Refused => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                false
            }
            Fate::Silent => std::future::pending().await,
        }
    }

    /// The life at a seat that takes calls now.
    fn at(&self, seat: Seat) -> Option<Arc<Life>> {
        self.life(seat).filter(|life| life.takes_calls())
    }

    /// The way of a receiver to another.
    pub fn way(self: &Arc<Network>, from: &Arc<Who>, to: Seat) -> Arc<dyn Remote> {
        Arc::new(Way { network: Arc::clone(self), from: Arc::clone(from), to })
    }

    /// A write of a sender; the status, or none where nothing came back. Never ends where that is silence.
    pub async fn post(self: &Arc<Network>, from: Seat, to: Seat, tenant: &str, body: Vec<u8>) -> Option<u16> {
        if !self.hop(from, to).await {
            return None;
        }
        let life = self.at(to)?;
        if self.broken == Some(Break::Refuses) && self.chance.below(20) == 0 {
            return Some(400);
        }
        if self.broken == Some(Break::PutsOff) && from == SENDERS {
            return Some(503);
        }
        let (answer, answered) = oneshot::channel();
        let visit = life.visit();
        let tenant = tenant.to_owned();
        tokio::spawn(async move {
            let request = Request::post("/api/v1/receive")
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
                .header("content-length", body.len())
                .header("thanos-tenant", tenant)
                .body(Body::from(body));
            let Ok(request) = request else { return };
            let Ok(response) = life.router().oneshot(request).await;
            let status = response.status().as_u16();
            if status != 204 && life.trace.is_aloud() {
                let text = to_bytes(response.into_body(), 1 << 16).await.unwrap_or_default();
                note!(life.trace, "answer {status} {}", String::from_utf8_lossy(&text));
            }
            drop(visit);
            if life.is_alive() {
                let _ = answer.send(status);
            }
        });
        let status = answered.await.ok()?;
        if self.roll(self.plan.unanswered) || !self.hop(to, from).await {
            return None;
        }
        Some(status)
    }

    /// A question of the querier; the life that answers, or why there is none.
    pub async fn ask(&self, to: Seat) -> Result<Arc<Life>, String> {
        let asked = async {
            if !self.hop(QUERIER, to).await {
                return Err("unreachable".to_owned());
            }
            let life = self.at(to).ok_or("connection refused")?;
            if !self.hop(to, QUERIER).await {
                return Err("connection reset".to_owned());
            }
            if life.is_alive() { Ok(life) } else { Err("connection reset".to_owned()) }
        };
        tokio::time::timeout(Duration::from_secs(2), asked)
            .await
            .map_err(|_| "no answer in time".to_owned())?
    }

    async fn call(self: &Arc<Network>, from: &Arc<Who>, to: Seat, call: WriteCall) -> Answer {
        let number = self.calls.fetch_add(1, Relaxed);
        let bytes = rpc::keep_write(&call);
        note!(self.trace, "call {number} {}>{to} {} bytes {:016x}", from.seat, bytes.len(), xxh3_64(&bytes));
        if self.broken == Some(Break::AckEarly) && self.chance.below(4) == 0 {
            let samples = call.rows.iter().map(|row| call.batch.series()[*row as usize].samples().len());
            return Ok(vec![Verdict::Stored; samples.sum()]);
        }
        let gone = |why: &str| storage::Error::new(Kind::Unavailable, format!("r{to}:1: {why}"));
        if !self.hop(from.seat, to).await {
            return Err(gone("unreachable"));
        }
        if self.roll(self.plan.twice) {
            let (network, bytes) = (Arc::clone(self), bytes.clone());
            let later = Duration::from_millis(self.chance.below(20_000));
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let Some(life) = network.at(to) else { return };
                let other = network.broken == Some(Break::Twice);
                let answer = serve(&life, &bytes, number, network.broken, move |sample| match other {
                    true => Sample { timestamp: sample.timestamp + 1, ..sample },
                    false => sample,
                });
                note!(network.trace, "call {number} again: {}", brief(&answer.await));
            });
        }
        let life = self.at(to).ok_or_else(|| gone("connection refused"))?;
        let (answer, answered) = oneshot::channel();
        let other = self.broken == Some(Break::Values) && self.chance.below(50) == 0;
        let (visit, broken) = (life.visit(), self.broken);
        tokio::spawn(async move {
            let served = serve(&life, &bytes, number, broken, move |sample| match other {
                true => Sample { value: sample.value + 1.0, ..sample },
                false => sample,
            });
            let served = served.await;
            drop(visit);
            if life.is_alive() {
                let _ = answer.send(served);
            }
        });
        let served = answered.await.map_err(|_| gone("connection reset"))?;
        note!(self.trace, "call {number} {}", brief(&served));
        if self.roll(self.plan.unanswered) || !self.hop(to, from.seat).await {
            return Err(gone("connection reset"));
        }
        served
    }
}

type Answer = Result<Vec<Verdict>, storage::Error>;

fn brief(answer: &Answer) -> String {
    match answer {
        Ok(verdicts) => {
            let good = verdicts.iter().filter(|verdict| verdict.is_success()).count();
            format!("{good} of {} stored", verdicts.len())
        }
        Err(error) => error.to_string(),
    }
}

/// What a receiver does with a peer's write. Calls of even numbers come as peers of our kind make them, others as
/// Thanos's do.
async fn serve(
    life: &Life,
    bytes: &[u8],
    number: u64,
    broken: Option<Break>,
    change: impl Fn(Sample) -> Sample,
) -> Answer {
    let stale_taken = broken == Some(Break::StaleTaken);
    let WriteRequest { groups, replica, judged_at, mut ring_epoch } = rpc::kept_write(bytes)?;
    if stale_taken {
        ring_epoch = rpc::ANY_EPOCH;
    }
    let mut verdicts = Vec::new();
    for mut group in groups {
        let mut batch = WriteBatch::default();
        let spliced = group.batch.is_spliced();
        batch.splice(spliced);
        batch.ask(group.batch.asks());
        for series in group.batch.series() {
            let samples = group.batch.samples()[series.samples()].iter().map(|sample| change(*sample));
            batch.push(group.batch.label_bytes(series), series.hash, samples);
        }
        // Frames have no word for what is spliced.
        if number.is_multiple_of(2) || spliced {
            group.batch = batch;
            let request = WriteRequest { groups: vec![group], replica, judged_at, ring_epoch };
            verdicts.extend(life.peers().write(request).await?.into_iter().flatten());
        } else {
            let rows = (0..batch.series().len() as u32).collect();
            let judged_at = judged_at.unwrap_or_default();
            let tenant = group.tenant;
            let write = KnownWrite { tenant, batch, rows, replica, judged_at, ring_epoch };
            verdicts.extend(life.peers().write_known(write).await?.verdicts);
        }
    }
    Ok(verdicts)
}

struct Way {
    network: Arc<Network>,
    from: Arc<Who>,
    to: Seat,
}

impl Remote for Way {
    fn exchange_pairs(
        &self,
        told: Vec<PairSighting>,
    ) -> BoxFuture<'_, Result<Vec<PairSighting>, storage::Error>> {
        async move {
            let gone = || storage::Error::new(Kind::Unavailable, format!("r{}:1: unreachable", self.to));
            let (network, from) = (&self.network, self.from.seat);
            if !network.hop(from, self.to).await {
                return Err(gone());
            }
            let life = network.at(self.to).ok_or_else(gone)?;
            let answer = life.peers().exchange_pairs(told);
            match network.hop(self.to, from).await {
                true => Ok(answer),
                false => Err(gone()),
            }
        }
        .boxed()
    }

    fn write(&self, call: WriteCall) -> BoxFuture<'_, Answer> {
        async move {
            if !self.from.is_alive() {
                return std::future::pending().await;
            }
            let answer = self.network.call(&self.from, self.to, call).await;
            if !self.from.is_alive() {
                return std::future::pending().await;
            }
            answer
        }
        .boxed()
    }
}
