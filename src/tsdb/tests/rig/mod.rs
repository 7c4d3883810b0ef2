//! An engine on a disk in memory, with verbs for stories.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Matcher, Sample, TenantId, TimeRange};
use runtime::{ManualClock, World};
use storage::{
    Append, Columns, Context, LimitsOf, Select, SelectRequest, TenantLimits, Verdict, WriteBatch, collect,
    decode_series,
};
use testkit::MemDisk;
use tsdb::{Error, Settings, Tsdb};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
/// A time that begins a window.
pub const NOON: i64 = 1_700_006_400_000 / (2 * HOUR) * (2 * HOUR);
const WAIT: Duration = Duration::from_secs(20);

pub type Samples = BTreeMap<String, Vec<(i64, u64)>>;

pub struct Rig {
    pub disk: MemDisk,
    pub world: World,
    pub clock: Arc<ManualClock>,
    pub settings: Settings,
    pub tsdb: Arc<Tsdb>,
}

pub fn settings() -> Settings {
    Settings {
        dir: PathBuf::from("/data"),
        shards: 2,
        segment_bytes: 16 << 10,
        external_labels: Labels::from_pairs([("replica", "a")]).unwrap(),
        read_wait: Duration::from_secs(5),
        ..Settings::default()
    }
}

/// The same limits for every tenant.
pub fn limits(set: impl FnOnce(&mut TenantLimits)) -> LimitsOf {
    let mut limits = TenantLimits::default();
    set(&mut limits);
    LimitsOf(Arc::new(move |_| limits.clone()))
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(settings())
    }

    pub fn with(settings: Settings) -> Rig {
        Rig::on(MemDisk::new(), settings)
    }

    pub fn on(disk: MemDisk, settings: Settings) -> Rig {
        let (world, clock) = testkit::world(Arc::new(disk.clone()), NOON, 1);
        let tsdb = Tsdb::open(world.clone(), settings.clone()).unwrap();
        Rig { disk, world, clock, settings, tsdb }
    }

    /// Ends the process without a word and starts it again; what was only in memory is gone.
    pub fn kill(&mut self) {
        self.reopen().unwrap();
    }

    pub fn reopen(&mut self) -> Result<(), Error> {
        let other = Settings { dir: PathBuf::from("/elsewhere"), ..self.settings.clone() };
        let (elsewhere, _) = testkit::world(Arc::new(MemDisk::new()), NOON, 1);
        self.tsdb = Tsdb::open(elsewhere, other).unwrap();
        self.tsdb = Tsdb::open(self.world.clone(), self.settings.clone())?;
        Ok(())
    }

    pub fn now(&self) -> i64 {
        self.world.clock.now_ms()
    }

    /// Appends samples of one series and waits until they are durable.
    pub fn push(&self, of: &str, series: &str, samples: &[(i64, f64)]) -> Vec<Verdict> {
        self.try_push(of, &[(series, samples)]).unwrap()
    }

    pub fn try_push(&self, of: &str, rows: &[(&str, &[(i64, f64)])]) -> Result<Vec<Verdict>, String> {
        let tenant = tenant(of);
        let (batch, all) = batch(&tenant, rows);
        let mut verdicts = vec![Verdict::Unavailable; batch.samples().len()];
        let outcome =
            self.tsdb.append(&tenant, &batch, &all, self.now(), &mut verdicts).map_err(|e| e.to_string())?;
        self.tsdb.wait_durable_blocking(outcome.log_position, WAIT).map_err(|e| e.to_string())?;
        Ok(verdicts)
    }

    pub fn read(&self, of: &str) -> Samples {
        self.read_range(of, TimeRange::ALL)
    }

    pub fn read_range(&self, of: &str, range: TimeRange) -> Samples {
        read(&self.tsdb, of, range, vec![])
    }

    /// Every sample once, as `wanted` has them.
    pub fn expect(&self, of: &str, wanted: &[(&str, &[(i64, f64)])]) {
        let wanted: Samples = wanted
            .iter()
            .map(|(name, samples)| {
                ((*name).to_owned(), samples.iter().map(|(t, v)| (*t, v.to_bits())).collect())
            })
            .collect();
        assert_eq!(self.read(of), wanted);
    }
}

pub fn batch(tenant: &TenantId, rows: &[(&str, &[(i64, f64)])]) -> (WriteBatch, Vec<u32>) {
    let mut batch = WriteBatch::default();
    for (series, samples) in rows {
        let labels = Labels::from_pairs([("__name__", *series), ("job", "test")]).unwrap();
        let samples = samples.iter().map(|&(timestamp, value)| Sample { timestamp, value });
        batch.push(labels.as_bytes(), labels.placement_hash(tenant.as_str()), samples);
    }
    (batch, (0..rows.len() as u32).collect())
}

pub fn read(tsdb: &Tsdb, of: &str, range: TimeRange, matchers: Vec<Matcher>) -> Samples {
    let Some(view) = tsdb.tenant(&tenant(of)) else { return Samples::new() };
    let set = view.select(&SelectRequest::new(range, matchers), &Context::background()).unwrap();
    let (entries, _) = collect(set).unwrap();
    let mut out = Samples::new();
    for entry in entries {
        let mut columns = Columns::default();
        decode_series(&entry.chunks, range, &mut columns).unwrap();
        let samples: Vec<(i64, u64)> =
            columns.timestamps.iter().copied().zip(columns.values.iter().map(|v| v.to_bits())).collect();
        if !samples.is_empty() {
            let before = out.insert(entry.labels.metric_name().to_owned(), samples);
            assert!(before.is_none(), "series {} came twice", entry.labels);
        }
    }
    out
}
