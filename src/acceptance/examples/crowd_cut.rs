//! Many tenants whose windows are cut together: how long writes take meanwhile, and how much memory.
//!
//! `cargo run --release -p tributary-acceptance --example crowd_cut -- --tenants 1000 --series 10000`
//!
//! One thread writes 500 known series at a time, each write durable, first in peace and then while all tenants' blocks are cut.
//! Prints the latencies and the anonymous memory of both times.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use model::{Labels, Sample, TenantId};
use runtime::{ManualClock, World};
use storage::{Append, Verdict, WriteBatch};
use tsdb::Tsdb;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HOUR: i64 = 3_600_000;
const STEP: i64 = 15_000;
const START: i64 = 1_700_006_400_000;
/// Series of a write.
const BATCH: usize = 500;

fn option(name: &str, default: usize) -> usize {
    let mut args = std::env::args();
    args.find(|arg| arg == name);
    args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Anonymous memory of this process, in MiB.
fn anonymous() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

struct Writer {
    engine: Arc<Tsdb>,
    tenants: Vec<TenantId>,
    series: usize,
    batch: WriteBatch,
    verdicts: Vec<Verdict>,
}

impl Writer {
    /// One sample of `count` series of a tenant from `first` on; how long it took until it was durable.
    fn write(&mut self, tenant: usize, first: usize, count: usize, t: i64) -> Duration {
        let of = &self.tenants[tenant % self.tenants.len()];
        self.batch.clear();
        for n in first..(first + count).min(self.series) {
            let labels = Labels::from_pairs([
                ("__name__", format!("metric_{}", n % 50).as_str()),
                ("instance", format!("10.0.{}.{}:9100", n / 50 / 250, n / 50 % 250).as_str()),
                ("job", "crowd"),
            ])
            .expect("labels in order");
            let sample = Sample { timestamp: t, value: (t / 1000 + n as i64) as f64 };
            self.batch.push(labels.as_bytes(), labels.placement_hash(of.as_str()), [sample]);
        }
        let all: Vec<u32> = (0..self.batch.verdicts() as u32).collect();
        self.verdicts.clear();
        self.verdicts.resize(all.len(), Verdict::Unavailable);
        let begin = Instant::now();
        let outcome = self.engine.append(of, &self.batch, &all, t, &mut self.verdicts).expect("an append");
        self.engine
            .wait_durable_blocking(outcome.log_position, Duration::from_secs(120))
            .expect("a durable log");
        let took = begin.elapsed();
        assert!(self.verdicts.iter().all(|v| v.is_success()), "{:?}", self.verdicts.first());
        took
    }

    /// Writes to one tenant after the other until told to stop, each of its series one step after the last.
    fn go_on(&mut self, from: i64, stop: impl Fn(usize) -> bool) -> Vec<Duration> {
        let (parts, tenants) = (self.series.div_ceil(BATCH), self.tenants.len());
        let mut took = Vec::new();
        while !stop(took.len()) {
            let n = took.len();
            let round = (n / (parts * tenants)) as i64;
            took.push(self.write(n % tenants, n / tenants % parts * BATCH, BATCH, from + round * STEP));
        }
        took.sort_unstable();
        took
    }
}

fn say(when: &str, took: &[Duration]) {
    let at = |p: f64| took.get(((took.len() as f64 - 1.0) * p) as usize).copied().unwrap_or_default();
    println!(
        "{when}: {} writes, p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn main() {
    let (tenants, series) = (option("--tenants", 1000), option("--series", 10_000));
    let peace = Duration::from_secs(option("--peace", 20) as u64);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let clock = Arc::new(ManualClock::new(START));
    let world = World { clock: clock.clone(), ..World::real() };
    let settings = tsdb::Settings {
        dir: dir.path().join("data"),
        external_labels: Labels::from_pairs([("replica", "a")]).expect("a label"),
        ..tsdb::Settings::default()
    };
    let engine = Tsdb::open(world, settings).expect("a new engine");
    let tenants: Vec<TenantId> =
        (0..tenants).map(|n| TenantId::new(&format!("tenant-{n:04}")).expect("a tenant")).collect();
    let mut writer = Writer {
        engine: engine.clone(),
        tenants: tenants.clone(),
        series,
        batch: WriteBatch::default(),
        verdicts: Vec::new(),
    };
    let begin = Instant::now();
    for n in 0..tenants.len() {
        for first in (0..series).step_by(10_000) {
            writer.write(n, first, 10_000, START);
        }
    }
    println!("{} series made in {:.1?}", engine.head_stats().series, begin.elapsed());

    let until = Instant::now() + peace;
    let before = writer.go_on(START + STEP, |_| Instant::now() >= until);
    let steady = anonymous();
    say("in peace", &before);
    println!("anonymous memory in peace: {steady:.0} MiB");

    // Past every tenant's due time; live data belongs to the window of now.
    let now = START + 8 * HOUR;
    clock.set(now);
    let (done, begin) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let cutter = {
        let (engine, done) = (engine.clone(), done.clone());
        std::thread::spawn(move || {
            let blocks = engine.cut(now, false).map(|blocks| blocks.len());
            done.store(true, Relaxed);
            blocks
        })
    };
    let peak = {
        let done = done.clone();
        std::thread::spawn(move || {
            let mut peak = 0f64;
            while !done.load(Relaxed) {
                peak = peak.max(anonymous());
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        })
    };
    let during = writer.go_on(now, |_| done.load(Relaxed));
    let blocks = cutter.join().expect("the cutter ends").expect("a cut");
    let peak = peak.join().expect("the sampler ends");
    println!("{blocks} blocks cut in {:.1?}", begin.elapsed());
    say("during the cut", &during);
    println!(
        "anonymous memory during the cut: at most {peak:.0} MiB, {:.2} times that in peace",
        peak / steady
    );
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100].as_secs_f64();
    println!("p99 during the cut: {:.2} times that in peace", p99(&during) / p99(&before));
    assert_eq!(blocks, tenants.len());
    engine.close().expect("a log that closes");
}
