//! A receiver: the production role on a disk in memory, started, stopped in good order, crashed and started again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ::settings::{ByteSize, LabelPair, Span};
use api::Readiness;
use axum::Router;
use bucket::{Bucket, RetryPolicy};
use control::{Handle, Seen};
use http::Request;
use model::Kind;
use parking_lot::Mutex;
use receive::{Receive, Settings};
use rpc::WriteBackend;
use runtime::{Chance, Disk, Shutdown, Threads, World};
use testkit::{MemDisk, SeededChance};
use tower::ServiceExt;

use crate::breaks::Break;
use crate::disk::LyingDisk;
use crate::network::{ROUTER, Seat};
use crate::note;
use crate::plan::{COPIES, Plan};
use crate::steps::{SimClock, Stepper};
use crate::store::Store;
use crate::trace::Trace;
use crate::universe::Shared;

/// One life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeId {
    pub seat: Seat,
    pub number: u64,
}

/// Who a message comes from.
pub struct Who {
    pub seat: Seat,
    alive: Arc<AtomicBool>,
}

impl Who {
    /// One that never dies.
    pub fn of(seat: Seat) -> Arc<Who> {
        Arc::new(Who { seat, alive: Arc::new(AtomicBool::new(true)) })
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }
}

/// A process: from its start to its stop or crash.
pub struct Life {
    pub id: LifeId,
    pub trace: Trace,
    who: Arc<Who>,
    /// Whether its doors are open.
    open: AtomicBool,
    visits: Arc<AtomicU64>,
    receive: Arc<Receive>,
    router: Router,
    lifecycle: Router,
    peers: Arc<dyn WriteBackend>,
    /// What is agreed, as it knows it.
    agreed: Option<Handle>,
    stop: Shutdown,
}

/// A request that is being served.
pub struct Visit(Arc<AtomicU64>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Life {
    pub fn is_alive(&self) -> bool {
        self.who.is_alive()
    }

    pub fn takes_calls(&self) -> bool {
        self.is_alive() && self.open.load(Relaxed)
    }

    pub fn visit(&self) -> Visit {
        self.visits.fetch_add(1, Relaxed);
        Visit(Arc::clone(&self.visits))
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub fn peers(&self) -> &Arc<dyn WriteBackend> {
        &self.peers
    }

    pub fn receive(&self) -> &Arc<Receive> {
        &self.receive
    }

    /// It is over, and is to be gone with all that it had.
    pub fn pass(self: &Arc<Life>, shared: &Shared) {
        let name = |part: &str| format!("{part} of r{}, life {}", self.id.seat, self.id.number);
        shared.passes(name("the process"), Arc::downgrade(self) as _);
        shared.passes(name("the receiver"), Arc::downgrade(&self.receive) as _);
        if let Some(engine) = self.receive.tsdb() {
            shared.passes(name("the engine"), Arc::downgrade(&engine) as _);
        }
    }

    pub fn is_ready(&self) -> bool {
        self.takes_calls() && self.receive.readiness().is_ready()
    }

    /// What it knows of the ring epoch, as it says to queriers.
    pub fn epoch(&self) -> u64 {
        self.receive.store_backend().advertised().node.map_or(0, |node| node.ring_epoch)
    }

    /// Which log it has, as it says to queriers.
    pub fn incarnation(&self) -> String {
        self.receive.store_backend().advertised().node.map_or_else(String::new, |node| node.incarnation)
    }

    /// Whether it says that nothing here is needed any more.
    pub async fn is_drained(&self) -> bool {
        let Ok(request) = Request::get("/-/drained").body(axum::body::Body::empty()) else { return false };
        let Ok(response) = self.lifecycle.clone().oneshot(request).await;
        let drained = response.status().is_success();
        if !drained && self.trace.is_aloud() {
            let text = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap_or_default();
            note!(self.trace, "r{}: {}", self.id.seat, String::from_utf8_lossy(&text).trim());
        }
        drained
    }

    /// As an operator asks for it; whether all is cut and uploaded.
    pub async fn cut(&self) -> bool {
        let Ok(request) = Request::post("/-/cut").body(axum::body::Body::empty()) else { return false };
        let _visit = self.visit();
        let Ok(response) = self.lifecycle.clone().oneshot(request).await;
        response.status().is_success()
    }
}

/// What a machine is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Nobody has put it up yet.
    Free = 0,
    Up = 1,
    /// Taken away, with its folder.
    Gone = 2,
}

/// A machine with a receiver on it.
pub struct Node {
    pub seat: Seat,
    shared: Arc<Shared>,
    clock: SimClock,
    disk: Mutex<MemDisk>,
    life: Mutex<Option<Arc<Life>>>,
    lives: AtomicU64,
    /// See [`Use`].
    used: AtomicU8,
    /// What was known of the control plane when a life ended.
    memory: Mutex<Option<Seen>>,
    /// Whether a disk of it is gone.
    emptied: AtomicBool,
    chance: SeededChance,
    /// One who starts or stops it at a time.
    hand: tokio::sync::Mutex<()>,
}

/// How long a stop may take before the process is killed.
const GRACE: Duration = Duration::from_secs(60);

pub fn address(seat: Seat) -> String {
    format!("r{seat}:1")
}

/// The seat at an address.
pub fn seat_of(address: &str) -> Option<Seat> {
    address.strip_prefix('r')?.split(':').next()?.parse().ok()
}

/// A ring of these seats.
pub fn ring(seats: &[Seat]) -> String {
    let all: Vec<String> = seats.iter().map(|seat| format!("{:?}", address(*seat))).collect();
    format!("[{{\"endpoints\": [{}]}}]", all.join(", "))
}

impl Node {
    pub fn new(seat: Seat, shared: &Arc<Shared>) -> Arc<Node> {
        Arc::new(Node {
            seat,
            shared: Arc::clone(shared),
            clock: SimClock::new(shared.began),
            disk: Mutex::new(MemDisk::new()),
            life: Mutex::new(None),
            lives: AtomicU64::new(0),
            used: AtomicU8::new(Use::Free as u8),
            memory: Mutex::default(),
            emptied: AtomicBool::new(false),
            chance: SeededChance::new(shared.seed ^ ((seat as u64 + 1) << 32)),
            hand: tokio::sync::Mutex::new(()),
        })
    }

    fn used(&self, as_what: Use) -> bool {
        self.used.load(Relaxed) == as_what as u8
    }

    pub fn is_free(&self) -> bool {
        self.used(Use::Free)
    }

    /// Whether it is there to run.
    pub fn is_up(&self) -> bool {
        self.used(Use::Up)
    }

    pub fn put_up(&self) {
        self.used.store(Use::Up as u8, Relaxed);
        self.shared.door(self.seat, true);
    }

    /// It does not start any more.
    pub fn take_away(&self) {
        self.used.store(Use::Gone as u8, Relaxed);
        self.shared.door(self.seat, false);
    }

    /// Whether it has lost a disk.
    pub fn was_emptied(&self) -> bool {
        self.emptied.load(Relaxed)
    }

    /// The machine stops at once and its disk is gone.
    pub async fn lose_disk(self: &Arc<Node>) {
        let _one = self.hand.lock().await;
        self.crash().await;
        note!(self.trace(), "r{} has lost its disk", self.seat);
        self.empty();
    }

    /// It is taken away for good, and its folder deleted.
    pub fn delete(&self) {
        note!(self.trace(), "r{} is taken away", self.seat);
        self.take_away();
        self.empty();
    }

    fn empty(&self) {
        self.emptied.store(true, Relaxed);
        *self.disk.lock() = MemDisk::new();
        *self.memory.lock() = None;
    }

    fn trace(&self) -> &Trace {
        &self.shared.trace
    }

    pub fn life(&self) -> Option<Arc<Life>> {
        self.life.lock().clone()
    }

    /// The life that runs, or the last one.
    pub fn newest_life(&self) -> LifeId {
        LifeId { seat: self.seat, number: self.lives.load(Relaxed).saturating_sub(1) }
    }

    pub fn disk(&self) -> MemDisk {
        self.disk.lock().clone()
    }

    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    fn settings(&self, plan: &Plan) -> Settings {
        let ms = |d: Duration| Span::from_ms(d.as_millis() as u64);
        let mut settings = Settings {
            data_dir: PathBuf::from("/data"),
            labels: vec![LabelPair::new("replica", format!("r{}", self.seat))],
            ..Settings::default()
        };
        settings.common.enable_lifecycle = true;
        settings.replication.hashrings = Some(ring(&(0..plan.nodes).collect::<Vec<_>>()));
        match self.seat {
            ROUTER => settings.replication.hints_dir = Some(PathBuf::from("/data/hints")),
            seat => settings.replication.local_endpoint = Some(address(seat)),
        }
        settings.ha.enabled = plan.pair.is_some();
        settings.drain.grace = Span::from_secs(8);
        settings.replication.replication_factor = COPIES as u32;
        settings.storage.segment_bytes = ByteSize::from_bytes(32 << 10);
        settings.storage.block_duration = ms(plan.block_range);
        settings.storage.out_of_order_window = ms(plan.out_of_order);
        settings.storage.cut_jitter = Span::from_secs(10);
        settings.storage.retention = Span::from_ms(0);
        settings
    }

    fn world(&self, number: u64, alive: &Arc<AtomicBool>) -> World {
        let seed = self.shared.seed ^ ((self.seat as u64 + 1) << 40) ^ (number << 48);
        let disk = self.disk();
        let disk: Arc<dyn Disk> = match self.shared.broken {
            Some(Break::SyncLies) => Arc::new(LyingDisk(disk)),
            _ => Arc::new(disk),
        };
        let stepper = Stepper::new(seed ^ 1, Arc::clone(alive), self.shared.plan.slowest_sync);
        World {
            clock: Arc::new(self.clock.clone()),
            chance: Arc::new(SeededChance::new(seed)),
            disk,
            threads: Threads::Stepped(Arc::new(stepper)),
        }
    }

    /// Starts the process, unless it runs. Returns at once: it becomes ready by itself.
    pub async fn start(self: &Arc<Node>) {
        let _one = self.hand.lock().await;
        self.begin();
    }

    fn begin(self: &Arc<Node>) {
        if self.life().is_some() || !self.is_up() {
            return;
        }
        let number = self.lives.fetch_add(1, Relaxed);
        let id = LifeId { seat: self.seat, number };
        let alive = Arc::new(AtomicBool::new(true));
        let who = Arc::new(Who { seat: self.seat, alive: Arc::clone(&alive) });
        let world = self.world(number, &alive);
        let (network, from) = (Arc::clone(&self.shared.network), Arc::clone(&who));
        let way = move |address: &str| network.way(&from, seat_of(address).unwrap_or(usize::MAX));
        let store: Arc<Store> = Arc::clone(&self.shared.store);
        let retry = RetryPolicy {
            attempts: 2,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(1),
        };
        let bucket = Bucket::over(store, "simulated", &world).with_retry(retry);
        let settings = self.settings(&self.shared.plan);
        let readiness = Readiness::starting("the receiver starts");
        let readers = match self.shared.control {
            Some(_) => vec![self.shared.gateway.reader(&who)],
            None => Vec::new(),
        };
        let seen = self.memory.lock().clone().unwrap_or_default();
        let agreed = self.shared.control.as_ref().map(|control| control.subscribe(&who, &world, seen));
        let built = Receive::simulated(settings, world, readiness, Arc::new(way), Some(bucket), readers);
        let receive = match built {
            Ok(receive) => Arc::new(receive),
            Err(error) => return self.shared.failed_start(id, &error.to_string()),
        };
        if let Some(handle) = agreed.clone() {
            receive.elect_by(handle.clone());
            receive.govern(handle);
        }
        let life = Arc::new(Life {
            id,
            agreed,
            trace: self.trace().clone(),
            who,
            open: AtomicBool::new(true),
            visits: Arc::default(),
            router: receive.write_router(),
            lifecycle: receive.lifecycle_router(),
            peers: receive.write_backend(),
            receive,
            stop: Shutdown::new(),
        });
        note!(self.trace(), "r{} starts, life {number}", self.seat);
        *self.life.lock() = Some(Arc::clone(&life));
        self.shared.network.enter(self.seat, Arc::clone(&life));
        let node = Arc::clone(self);
        tokio::spawn(async move {
            let learning = life.agreed.clone().map(|handle| tokio::spawn(async move { handle.run().await }));
            let ended = life.receive.run(life.stop.clone()).await;
            life.pass(&node.shared);
            if let Some(learning) = learning {
                learning.abort();
            }
            node.ended(&life, ended).await;
        });
    }

    /// The process has ended, by itself or as it was told.
    async fn ended(self: &Arc<Node>, life: &Arc<Life>, how: Result<(), receive::Error>) {
        if !life.is_alive() {
            return;
        }
        let told = life.stop.is_triggered();
        match &how {
            Ok(()) => note!(self.trace(), "r{} has stopped", self.seat),
            Err(error) => {
                note!(self.trace(), "r{} ends: {error}", self.seat);
                self.shared.ledger.broke_off(life.id);
                // A log that opens no more is found out; a disk that is full or has failed is a trouble of the plan.
                let troubled = self.shared.plan.full_disks || self.shared.plan.failing_syncs;
                if !life.receive.readiness().is_ready() && !told && (error.kind == Kind::Corrupt || !troubled)
                {
                    self.shared.failed_start(life.id, &error.to_string());
                }
            }
        }
        if told || self.shared.is_over() {
            self.end(life);
            return;
        }
        // Whoever watches over processes starts it again; what a failed sync has lost is lost now.
        self.crash_now(life);
        let node = Arc::clone(self);
        let pause = Duration::from_millis(500 + self.chance.below(3_000));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            node.start().await;
        });
    }

    /// What the catalog would have kept; now and then it is not the last that was heard.
    fn remember(&self, life: &Arc<Life>) {
        if let Some(handle) = &life.agreed
            && self.chance.below(4) > 0
        {
            *self.memory.lock() = Some(handle.now());
        }
    }

    fn end(&self, life: &Arc<Life>) {
        self.remember(life);
        life.who.alive.store(false, Relaxed);
        self.shared.network.leave(self.seat);
        *self.life.lock() = None;
        if self.shared.broken == Some(Break::HintsLost) {
            let _ = self.disk().remove_dir_all("/data/hints".as_ref());
        }
    }

    /// Stops the process in good order: doors close and finish what is in flight, then the rest ends.
    pub async fn stop(self: &Arc<Node>) {
        let _one = self.hand.lock().await;
        let Some(life) = self.life() else { return };
        note!(self.trace(), "r{} is told to stop", self.seat);
        life.open.store(false, Relaxed);
        life.receive.readiness().set_stopping();
        let ended = async {
            while life.visits.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            life.stop.trigger();
            while life.is_alive() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            note!(self.trace(), "r{} does not stop and is killed", self.seat);
            self.shared.ledger.broke_off(life.id);
            self.crash_now(&life);
        }
    }

    /// The machine stops at once, and what was not synced may be gone.
    pub async fn crash(self: &Arc<Node>) {
        if let Some(life) = self.life() {
            note!(self.trace(), "r{} crashes", self.seat);
            self.shared.ledger.broke_off(life.id);
            self.crash_now(&life);
        }
    }

    fn crash_now(&self, life: &Arc<Life>) {
        self.remember(life);
        life.who.alive.store(false, Relaxed);
        self.shared.network.leave(self.seat);
        *self.life.lock() = None;
        {
            let mut disk = self.disk.lock();
            let after = disk.crash(self.chance.next_u64());
            disk.fail_after(0);
            *disk = after;
        }
        if self.shared.broken == Some(Break::LogDamaged) {
            self.damage_log();
        }
        // What is left of it comes to its end, unheard and without a disk.
        life.stop.trigger();
    }

    /// Flips bits in the first record of the newest segment that has several.
    fn damage_log(&self) {
        let disk = self.disk();
        let logs = disk.files().into_iter().filter(|path| {
            path.parent().is_some_and(|dir| dir.ends_with("wal"))
                && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
        });
        for path in logs.collect::<Vec<_>>() {
            let _ = disk.damage(&path, |bytes| {
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                if used > 2048 {
                    bytes[64 + 100] ^= 0xff;
                }
            });
        }
    }

    /// Everything that a trouble may have done to the machine is put right.
    pub fn repair(&self) {
        let disk = self.disk();
        disk.set_capacity_limit(None);
        disk.fail_sync_after(u64::MAX);
        self.clock.set_skew(0);
    }
}
