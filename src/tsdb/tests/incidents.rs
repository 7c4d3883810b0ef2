//! Incidents that other systems had, replayed on the engine; each test ends with the number under which we keep it.
// A disk that waits for real threads, in real time.
#![allow(clippy::disallowed_methods)]

mod rig;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rig::{HOUR, MINUTE, NOON, Rig, batch, settings, tenant};
use runtime::{Disk, File, World};
use storage::Refusal::TooFarInFuture;
use storage::Verdict::{Duplicate, Refused, Stored};
use storage::{Append, Verdict};
use testkit::MemDisk;
use tsdb::{Settings, Tsdb};

/// A clock that ran ahead at one target closed the head to everybody for as long as it was ahead.
#[test]
fn far_future_sample_is_refused_alone_t6() {
    let mut rig = Rig::new();
    let far = NOON + HOUR;
    // In one request, first of all, for its own series and for others.
    let rows: [(&str, &[(i64, f64)]); 3] =
        [("a", &[(far, 9.0), (NOON, 1.0)]), ("b", &[(NOON, 2.0)]), ("c", &[(NOON - HOUR, 3.0)])];
    assert_eq!(rig.try_push("t", &rows).unwrap(), [Refused(TooFarInFuture), Stored, Stored, Stored]);
    for minute in 1..=5 {
        let now = NOON + minute * MINUTE;
        rig.clock.set(now);
        assert_eq!(rig.push("t", "a", &[(far, 9.0)]), [Refused(TooFarInFuture)], "minute {minute}");
        assert_eq!(rig.push("t", "a", &[(now, 1.0)]), [Stored], "minute {minute}");
        assert_eq!(rig.push("t", "new", &[(now - 90 * MINUTE, 4.0)]), [Stored], "minute {minute}");
        if minute == 3 {
            rig.kill();
        }
    }
    // Once it is its time, it is taken.
    rig.clock.set(far - 10 * MINUTE);
    assert_eq!(rig.push("t", "a", &[(far, 9.0), (far - 40 * MINUTE, 5.0)]), [Stored, Stored]);
    let a: Vec<(i64, f64)> = (0..=5).map(|m| (NOON + m * MINUTE, 1.0)).collect();
    let a = [&a[..], &[(far - 40 * MINUTE, 5.0), (far, 9.0)]].concat();
    let new: Vec<(i64, f64)> = (1..=5).map(|m| (NOON - (90 - m) * MINUTE, 4.0)).collect();
    rig.expect("t", &[("a", &a), ("b", &[(NOON, 2.0)]), ("c", &[(NOON - HOUR, 3.0)]), ("new", &new)]);
}

/// A sender that was cut off for 90 minutes came back with its backlog and lost the part beyond the head's window, or its
/// live samples waited behind the backlog.
#[test]
fn backlog_of_ninety_minutes_comes_with_live_data_t7() {
    const STEP: i64 = 15_000;
    const SERIES: usize = 6;
    let mut rig = Rig::with(Settings { segment_bytes: 256 << 10, ..settings() });
    let names: Vec<String> = (0..SERIES).map(|n| format!("s{n}")).collect();
    let scrape = |rig: &Rig, t: i64, of: std::ops::Range<usize>| {
        let sample = [(t, (t / 1000) as f64)];
        let rows: Vec<(&str, &[(i64, f64)])> = names[of].iter().map(|n| (n.as_str(), &sample[..])).collect();
        let verdicts = rig.try_push("t", &rows).unwrap();
        assert!(verdicts.iter().all(|v| v.is_success()), "{t}: {verdicts:?}");
        verdicts
    };
    // Ten minutes in peace, then 90 minutes away, over the edge of a window.
    let away = NOON - 30 * MINUTE;
    for t in (away - 10 * MINUTE..away).step_by(STEP as usize) {
        rig.clock.set(t);
        scrape(&rig, t, 0..SERIES);
    }
    let back = away + 90 * MINUTE;
    let (mut old, mut now) = (away, back);
    // Each live scrape comes with four of the backlog, of which one request is repeated, and readers see it at once.
    while old < back {
        rig.clock.set(now);
        assert!(scrape(&rig, now, 0..SERIES).iter().all(|v| *v == Stored));
        let newest = rig.read_range("t", model::TimeRange::new(now, now));
        assert_eq!(newest.len(), SERIES, "live data waits behind the backlog");
        for _ in 0..4 {
            if old < back {
                // Two shards of the sender, not in step.
                scrape(&rig, old, 3..SERIES);
                scrape(&rig, old, 0..3);
                old += STEP;
            }
        }
        assert!(scrape(&rig, old - STEP, 0..2).iter().all(|v| *v == Duplicate));
        rig.tsdb.cut(now, false).unwrap();
        if (now / STEP) % 40 == 0 {
            rig.kill();
        }
        now += STEP;
    }
    let wanted: Vec<(i64, u64)> = (away - 10 * MINUTE..now)
        .step_by(STEP as usize)
        .map(|t| (t, ((t / 1000) as f64).to_bits()))
        .collect();
    for when in ["in the head", "after a kill", "in blocks"] {
        let read = rig.read("t");
        assert_eq!(read.len(), SERIES, "{when}");
        for (name, samples) in read {
            assert!(samples == wanted, "{name} {when}: {} of {} samples", samples.len(), wanted.len());
        }
        match when {
            "in the head" => rig.kill(),
            _ => drop(rig.tsdb.cut(now + 6 * HOUR, false).unwrap()),
        }
    }
    assert!(rig.tsdb.local_blocks(&tenant("t")).len() >= 2);
}

/// A disk on which each file of a block waits until writes have gone through meanwhile.
struct Waiting {
    disk: MemDisk,
    /// Writes acknowledged so far.
    writes: Mutex<u64>,
    moved: Condvar,
    /// How many files have waited.
    waited: Mutex<u64>,
}

impl Waiting {
    fn acknowledged(&self) {
        *self.writes.lock() += 1;
        self.moved.notify_all();
    }
}

impl Disk for Waiting {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if path.components().any(|part| part.as_os_str() == "blocks") {
            let mut writes = self.writes.lock();
            let wanted = *writes + 2;
            while *writes < wanted {
                if self.moved.wait_for(&mut writes, Duration::from_secs(30)).timed_out() {
                    return Err(io::Error::other("no write went through while a block was written"));
                }
            }
            *self.waited.lock() += 1;
        }
        self.disk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open_read(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }
    fn is_dir(&self, path: &Path) -> bool {
        self.disk.is_dir(path)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        self.disk.len(path)
    }
}

/// When all tenants' heads were cut at two o'clock, writes waited for it, of the tenants that were cut and of the others.
#[test]
fn writes_go_on_while_the_blocks_of_many_tenants_are_written_t12() {
    const TENANTS: usize = 60;
    let disk = Arc::new(Waiting {
        disk: MemDisk::new(),
        writes: Mutex::new(0),
        moved: Condvar::new(),
        waited: Mutex::new(0),
    });
    let (world, clock) = testkit::world(disk.clone(), NOON, 1);
    let tsdb = Tsdb::open(world, settings()).unwrap();
    let names: Vec<_> = (0..TENANTS).map(|n| tenant(&format!("tenant-{n}"))).collect();
    let write = |n: usize, t: i64, now: i64| {
        let of = &names[n % TENANTS];
        let (batch, all) = batch(of, &[("a", &[(t, 1.0)]), ("b", &[(t, 2.0)])]);
        let mut verdicts = [Verdict::Unavailable; 2];
        let outcome = tsdb.append(of, &batch, &all, now, &mut verdicts).unwrap();
        assert_eq!(verdicts, [Stored; 2]);
        tsdb.wait_durable_blocking(outcome.log_position, Duration::from_secs(20)).unwrap();
        disk.acknowledged();
    };
    (0..TENANTS).for_each(|n| write(n, NOON, NOON));
    let now = NOON + 5 * HOUR;
    clock.set(now);
    let cut = std::thread::scope(|scope| {
        let cutter = scope.spawn(|| tsdb.cut(now, false));
        let mut n = 0;
        while !cutter.is_finished() {
            // Late samples of the window that is being cut are not the point here: live ones are.
            write(n, now + n as i64, now + n as i64);
            n += 1;
        }
        cutter.join().unwrap()
    });
    assert_eq!(cut.unwrap().len(), TENANTS);
    assert!(*disk.waited.lock() >= 3 * TENANTS as u64, "{} files waited", *disk.waited.lock());
}

/// And memory went up by a multiple, for everything was copied at once: a cut takes one tenant at a time.
#[test]
fn a_cut_of_many_tenants_takes_little_memory_beside_the_head_t12() {
    const TENANTS: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let (world, clock) = testkit::world(World::real().disk, NOON, 1);
    let settings = Settings { dir: dir.path().join("data"), segment_bytes: 1 << 20, ..settings() };
    let tsdb = Tsdb::open(world, settings).unwrap();
    let head = allocation_counter::measure(|| (0..TENANTS).for_each(|n| fill(&tsdb, n))).bytes_current;
    clock.set(NOON + 5 * HOUR);
    let mut blocks = 0;
    let cut = allocation_counter::measure(|| blocks = tsdb.cut(NOON + 5 * HOUR, false).unwrap().len());
    assert_eq!(blocks, TENANTS);
    println!("{head} bytes of heads, at most {} more during the cut", cut.bytes_max);
    // Of that, 1 MiB is buffers of whatever size the head has, and the blocks that were opened stay.
    assert!((cut.bytes_max as i64) < head / 4, "{} beside {head} bytes", cut.bytes_max);
}

/// Ten minutes of 300 series.
fn fill(tsdb: &Tsdb, n: usize) {
    let of = tenant(&format!("tenant-{n}"));
    let names: Vec<String> = (0..300).map(|n| format!("metric_{n}")).collect();
    for i in 0..10 {
        let sample = [(NOON + i * MINUTE, (n as f64).sqrt() * i as f64)];
        let rows: Vec<(&str, &[(i64, f64)])> =
            names.iter().map(|name| (name.as_str(), &sample[..])).collect();
        let (batch, all) = batch(&of, &rows);
        let mut verdicts = vec![Verdict::Unavailable; rows.len()];
        tsdb.append(&of, &batch, &all, sample[0].0, &mut verdicts).unwrap();
        assert!(verdicts.iter().all(|v| *v == Stored));
    }
}
