//! One run: a cluster, its senders, its querier and its troubles in one thread, and what must hold at the end.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bucket::Bucket;
use hashring::{Algorithm, Document, Rings};
use parking_lot::Mutex;
use runtime::{Threads, World};
use testkit::{MemDisk, SeededChance};

use crate::actors::{Gateway, LifeId, Node, Operator, Pair, Querier, Sender, Trouble, address};
use crate::breaks::Break;
use crate::control::Authority;
use crate::invariants::{self, Violation};
use crate::ledger::{Key, Ledger};
use crate::network::{Network, ROUTER, Seat};
use crate::note;
use crate::oracle::{self, Answer};
use crate::plan::{COPIES, Plan, SEATS};
use crate::steps::SimClock;
use crate::store::Store;
use crate::trace::Trace;

/// How long all may take to come to rest once the trouble is over.
const SETTLE: Duration = Duration::from_secs(900);

/// Pause between two looks at what all nodes have.
const AUDIT: Duration = Duration::from_secs(11);

/// What all who act have in common.
pub struct Shared {
    pub seed: u64,
    pub plan: Plan,
    pub broken: Option<Break>,
    pub trace: Trace,
    pub began: tokio::time::Instant,
    pub network: Arc<Network>,
    pub store: Arc<Store>,
    pub gateway: Arc<Gateway>,
    /// Where the ring is agreed on.
    pub control: Option<Arc<Authority>>,
    /// Seats that take writes of senders.
    doors: Mutex<BTreeSet<Seat>>,
    pub ledger: Ledger,
    violations: Mutex<Vec<Violation>>,
    queries: Mutex<(u64, u64)>,
    remains: Mutex<Remains>,
}

impl Shared {
    /// It is to be gone when the run is over.
    pub fn passes(&self, name: String, part: Weak<dyn Any + Send + Sync>) {
        self.remains.lock().push((name, part));
    }

    /// Lets go of all that would hold itself.
    fn end(self: &Arc<Shared>) -> Remains {
        for life in self.network.end() {
            life.pass(self);
        }
        let mut remains = std::mem::take(&mut *self.remains.lock());
        let (all, network, store) =
            (Arc::downgrade(self), Arc::downgrade(&self.network), Arc::downgrade(&self.store));
        remains.extend([
            ("the run".to_owned(), all as _),
            ("the network".to_owned(), network as _),
            ("the bucket".to_owned(), store as _),
        ]);
        remains
    }

    pub fn violated(&self, violation: Option<Violation>) {
        if let Some(violation) = violation {
            note!(self.trace, "VIOLATED {}: {}", violation.rule, violation.what);
            self.violations.lock().push(violation);
        }
    }

    /// A node that does not open its log cannot be judged any further.
    pub fn is_over(&self) -> bool {
        self.violations.lock().iter().any(|violation| violation.rule == invariants::log_opens::RULE)
    }

    /// Whoever were asked now: whether what is called complete would be.
    pub fn judge_reads(&self, nodes: &[Arc<Node>], when: &str) {
        let Some(control) = &self.control else { return };
        let state = control.state();
        let all = |answer: Answer| -> BTreeSet<(Key, i64)> { answer.values().into_keys().collect() };
        let mut have = BTreeMap::new();
        for node in nodes {
            let Some(life) = node.life().filter(|life| life.is_ready()) else { continue };
            // Whom the ring does not know does not count, whatever it is called.
            if !state.knows_log(&address(node.seat), &life.incarnation()) {
                continue;
            }
            if let Ok(answer) = oracle::views(&life).and_then(oracle::merged) {
                have.insert(address(node.seat), all(answer));
            }
        }
        let Ok(shown) = oracle::merged_with(Vec::new(), &self.gateway.blocks()).map(all) else { return };
        let acked = self.ledger.acked_until(self.trace.elapsed_ms());
        self.violated(invariants::acked_is_readable::check(&state, &acked, &have, &shown, when));
    }

    pub fn failed_start(&self, id: LifeId, why: &str) {
        self.violated(Some(invariants::log_opens::failed(&format!("r{}", id.seat), why)));
    }

    /// Seats that senders may write to.
    pub fn doors(&self) -> Vec<Seat> {
        self.doors.lock().iter().copied().collect()
    }

    /// It is known to senders from now on, or not any more.
    pub fn door(&self, seat: Seat, open: bool) {
        let mut doors = self.doors.lock();
        if open {
            doors.insert(seat);
        } else {
            doors.remove(&seat);
        }
    }

    pub fn count_query(&self, complete: bool) {
        let mut queries = self.queries.lock();
        queries.0 += 1;
        queries.1 += u64::from(complete);
    }
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub broken: Option<Break>,
    /// Prints every event.
    pub aloud: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    /// The same in every run of the seed.
    pub hash: u64,
    pub events: u64,
    pub sent: usize,
    pub acked: usize,
    pub queries: u64,
    pub complete: u64,
    pub violations: Vec<Violation>,
    /// What has outlived the run: nothing, or many runs need more and more memory.
    pub left: Vec<String>,
}

/// Runs one seed to its end.
pub fn run(options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for a simulation: {error}"));
    let (mut report, remains) = runtime.block_on(live(options));
    drop(runtime);
    report.left =
        remains.into_iter().filter(|(_, part)| part.strong_count() > 0).map(|(name, _)| name).collect();
    report
}

/// Parts of a run, by name, to be looked for when it is over.
type Remains = Vec<(String, Weak<dyn Any + Send + Sync>)>;

async fn live(options: Options) -> (Report, Remains) {
    let Options { seed, broken, aloud } = options;
    let plan = Plan::of(seed);
    let trace = Trace::new(aloud);
    note!(trace, "{plan:?}");
    let network = Network::new(seed, &plan, broken, &trace);
    let store = Store::new(seed, broken);
    let control = plan.ring.as_ref().map(|_| Authority::new(seed, plan.nodes, &network, broken));
    let shared = Arc::new(Shared {
        seed,
        broken,
        began: tokio::time::Instant::now(),
        gateway: Gateway::new(&plan, &network, &store, broken),
        network,
        store,
        control,
        doors: Mutex::default(),
        trace,
        plan,
        ledger: Ledger::default(),
        violations: Mutex::default(),
        queries: Mutex::default(),
        remains: Mutex::default(),
    });
    let universe = Universe::begin(&shared).await;
    let asking = tokio::spawn(Arc::clone(&universe.querier).run());
    let auditing = tokio::spawn(audit(Arc::clone(&shared), universe.nodes.clone()));
    universe.trouble.run().await;
    universe.senders.iter().for_each(|sender| sender.finish());
    universe.settle().await;
    auditing.abort();
    if !shared.is_over() {
        universe.judge().await;
    }
    asking.abort();
    let (sent, acked) = shared.ledger.counts();
    let (hash, events) = shared.trace.digest();
    let (queries, complete) = *shared.queries.lock();
    let violations = shared.violations.lock().clone();
    let report = Report { seed, hash, events, sent, acked, queries, complete, violations, left: Vec::new() };
    (report, shared.end())
}

/// Looks now and then whether any choice of nodes would be called complete and is not.
async fn audit(shared: Arc<Shared>, nodes: Vec<Arc<Node>>) {
    loop {
        tokio::time::sleep(AUDIT).await;
        shared.judge_reads(&nodes, &format!("at {} ms", shared.trace.elapsed_ms()));
    }
}

struct Universe {
    shared: Arc<Shared>,
    nodes: Vec<Arc<Node>>,
    senders: Vec<Arc<Sender>>,
    querier: Arc<Querier>,
    operator: Option<Arc<Operator>>,
    trouble: Arc<Trouble>,
    pair: Option<Arc<Pair>>,
}

impl Universe {
    async fn begin(shared: &Arc<Shared>) -> Universe {
        let plan = &shared.plan;
        let seats = if plan.ring.is_some() { SEATS } else { plan.nodes };
        let router = plan.ring.as_ref().is_some_and(|ring| ring.router);
        let seats = (0..seats).chain(router.then_some(ROUTER));
        let nodes: Vec<_> = seats.map(|seat| Node::new(seat, shared)).collect();
        for node in nodes.iter().filter(|node| node.seat < plan.nodes || node.seat == ROUTER) {
            node.put_up();
            node.start().await;
        }
        if plan.ring.is_some() {
            tokio::spawn(Arc::clone(&shared.gateway).run());
        }
        let trouble = Trouble::new(shared, &nodes);
        let start = |control| Operator::start(shared, control, &nodes, &trouble);
        let operator = shared.control.as_ref().map(start);
        let senders = (0..shared.plan.senders).map(|number| Sender::start(number, shared)).collect();
        let pair = plan.pair.clone().map(|pair| Pair::start(shared, pair));
        Universe {
            shared: Arc::clone(shared),
            nodes,
            senders,
            querier: Querier::new(shared),
            operator,
            trouble,
            pair,
        }
    }

    /// The trouble is over: what is broken is repaired, and everybody comes to rest.
    async fn settle(&self) {
        note!(self.shared.trace, "the trouble is over");
        self.shared.network.calm();
        self.shared.store.set_down(false);
        let end = tokio::time::Instant::now() + SETTLE;
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if self.shared.is_over() {
                return;
            }
            for node in &self.nodes {
                node.repair();
                node.start().await;
            }
            let restless = self.restless();
            let left = self.operator.as_ref().and_then(|operator| operator.left());
            if restless.is_empty() && left.is_none() {
                break;
            }
            if tokio::time::Instant::now() >= end {
                self.shared.violated(invariants::settles::check(&restless));
                self.shared.violated(invariants::changes_end::check(left));
                return;
            }
        }
        note!(self.shared.trace, "senders and nodes have settled");
        loop {
            // Whatever was on its way when the last answer came has gone out, or has become a hint.
            tokio::time::sleep(Duration::from_secs(35)).await;
            let waiting = self.hints();
            if waiting.is_empty() {
                break;
            }
            if tokio::time::Instant::now() >= end + SETTLE {
                self.shared.violated(invariants::converges::check_hints(&waiting));
                break;
            }
        }
    }

    fn restless(&self) -> Vec<String> {
        let mut restless = Vec::new();
        for (number, sender) in self.senders.iter().enumerate() {
            if !sender.is_idle() {
                restless.push(format!("s{number} still has something to send"));
            }
        }
        if self.pair.as_ref().is_some_and(|pair| !pair.is_idle()) {
            restless.push("the pair still has something to send".to_owned());
        }
        for node in self.nodes.iter().filter(|node| node.is_up()) {
            if !node.life().is_some_and(|life| life.is_ready()) {
                restless.push(format!("r{} is not ready", node.seat));
            }
        }
        restless
    }

    fn hints(&self) -> Vec<String> {
        let lives = self.nodes.iter().filter_map(|node| node.life());
        let waiting = lives.flat_map(|life| {
            let of = life.id.seat;
            life.receive().hints_waiting().into_iter().map(move |(peer, samples)| (of, peer, samples))
        });
        // What is for somebody who is gone waits for its age.
        let gone = |peer: &str| self.nodes.iter().any(|node| address(node.seat) == peer && !node.is_up());
        let waiting = waiting.filter(|(_, peer, samples)| *samples > 0 && !gone(peer));
        waiting.map(|(of, peer, samples)| format!("{samples} samples at r{of} for {peer}")).collect()
    }

    async fn judge(&self) {
        self.judge_copies("in the end", true).await;
        self.querier.ask().await;
        self.judge_pair();
        self.judge_refusals();
        self.judge_bucket().await;
        for node in &self.nodes {
            node.crash().await;
            node.start().await;
        }
        for _ in 0..600 {
            if self.nodes.iter().all(|node| !node.is_up() || node.life().is_some_and(|life| life.is_ready()))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.judge_copies("after a last crash of all", false).await;
    }

    /// Reads every node by itself, and counts on how many of its owners each sample is.
    async fn judge_copies(&self, when: &str, converged: bool) {
        let mut holders: BTreeMap<(Key, i64), usize> = BTreeMap::new();
        let owners = Owners::new(&self.shared.plan);
        for node in &self.nodes {
            let Some(life) = node.life() else { continue };
            match oracle::views(&life).and_then(oracle::merged) {
                Ok(answer) => {
                    let told = format!("r{} {when}", node.seat);
                    self.shared.violated(invariants::once::check(&self.shared.ledger, &answer, &told));
                    self.shared.violated(invariants::values_stay::check(&answer, &told));
                    for sample in answer.values().into_keys() {
                        if owners.of(sample.0).contains(&node.seat) {
                            *holders.entry(sample).or_default() += 1;
                        }
                    }
                }
                Err(error) => note!(self.shared.trace, "r{} cannot be read: {error}", node.seat),
            }
        }
        if self.shared.control.is_some() {
            return self.shared.judge_reads(&self.nodes, when);
        }
        let acked = self.shared.ledger.acked_until(i64::MAX);
        self.shared.violated(invariants::acked_is_kept::check(&acked, &holders, when));
        if converged {
            let due = self.shared.ledger.acked_in_order();
            self.shared.violated(invariants::converges::check(&due, &holders));
        }
    }

    /// What all nodes and the store have between them.
    fn everything(&self) -> Result<Answer, String> {
        let lives = self.nodes.iter().filter_map(|node| node.life());
        let views: Result<Vec<_>, String> = lives.map(|life| oracle::views(&life)).collect();
        oracle::merged_with(views?.into_iter().flatten().collect(), &self.shared.gateway.blocks())
    }

    fn judge_refusals(&self) {
        let refused = self.shared.ledger.refusals();
        let (window, clocks_jump) = (self.shared.plan.out_of_order, self.shared.plan.clock_jumps);
        if refused.is_empty() || clocks_jump {
            return;
        }
        match self.everything() {
            Ok(answer) => self.shared.violated(invariants::refused_for_cause::check(
                &refused,
                &answer.values().into_keys().collect(),
                window.as_millis() as i64,
            )),
            Err(error) => note!(self.shared.trace, "what was refused cannot be looked for: {error}"),
        }
    }

    /// What all have between them of the pair.
    fn judge_pair(&self) {
        let Some(pair) = &self.pair else { return };
        match self.everything() {
            Ok(answer) => self.shared.violated(invariants::pair_is_seen_once::check(
                &answer,
                pair.plan().scrape.as_millis() as i64,
                pair.ended(),
                &pair.taken(),
            )),
            Err(error) => note!(self.shared.trace, "the pair cannot be read: {error}"),
        }
    }

    async fn judge_bucket(&self) {
        let mut cut = Vec::new();
        for node in &self.nodes {
            let Some(life) = node.life().filter(|_| !node.was_emptied() && node.seat != ROUTER) else {
                continue;
            };
            for _ in 0..5 {
                if life.cut().await {
                    cut.push(life);
                    break;
                }
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
        let clock = Arc::new(SimClock::new(self.shared.began));
        let (chance, disk) = (Arc::new(SeededChance::new(1)), Arc::new(MemDisk::new()));
        let world = World { clock, chance, disk, threads: Threads::Real };
        let bucket = Bucket::over(self.shared.store.clone(), "simulated", &world);
        let there = match oracle::bucket(&bucket, &world).await {
            Ok(there) => there,
            Err(why) => return self.shared.violated(Some(invariants::bucket_has_it::unreadable(&why))),
        };
        let nothing = Answer::default();
        for life in cut {
            let name = format!("r{}", life.id.seat);
            let Ok(here) = oracle::views(&life).and_then(oracle::merged) else { continue };
            let blocks = there.get(&name).unwrap_or(&nothing);
            self.shared.violated(invariants::bucket_has_it::check(&name, &here, blocks));
        }
    }
}

/// The owners of every series by the ring, as production places them.
struct Owners {
    rings: Option<Rings>,
}

impl Owners {
    fn new(plan: &Plan) -> Owners {
        let document = Document::parse(&crate::actors::ring(&(0..plan.nodes).collect::<Vec<_>>()));
        Owners { rings: document.and_then(|d| Rings::build(&d, COPIES, Algorithm::Ketama)).ok() }
    }

    fn of(&self, key: Key) -> Vec<usize> {
        let tenant = key.tenant();
        let hash = key.labels().placement_hash(tenant.as_str());
        let ring = self.rings.as_ref().and_then(|rings| rings.resolve(tenant.as_str()));
        ring.map_or_else(Vec::new, |ring| ring.replicas(hash).iter().map(|at| usize::from(*at)).collect())
    }
}
