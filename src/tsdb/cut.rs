//! From head to block: which windows are due, and the steps that lose and double nothing wherever they stop.
//!
//! ```text
//! freeze, durable ──► write block ──► open it ──► CUT in the log, durable ──► list it ──► drop from the head
//!        └─ any failure: thaw, remove the block          └─ a crash before: the block is removed at start
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use block::{BlockId, BlockWriter, Meta, MetaSpec, ThanosSpec};
use model::{Kind, Labels, TenantId, TimeRange, Timestamp};
use runtime::World;
use storage::ChunkData;

use crate::blocks::{OpenBlock, from_block};
use crate::head::{IDLE, Window};
use crate::shape::whole;
use crate::tenants::Tenant;
use crate::{Engine, Error, Settings, dir, payload};
use wal::error;

/// Windows of a tenant's head that are left alone by a backfill; more are cut from the oldest on.
const MOST_WINDOWS: usize = 3;
/// A late window is cut once nobody has written to it for this long, or after [`LATE_AT_MOST`], so that a backfill
/// makes one block of a window, not one a minute.
const LATE_SETTLES: i64 = 5 * 60_000;
const LATE_AT_MOST: i64 = 60 * 60_000;
/// How long the mark of a cut may take to become durable.
const MARK_WAIT: Duration = Duration::from_secs(60);
/// How long those who read the head are waited for before what was cut is dropped from it.
const READERS_WAIT: Duration = Duration::from_secs(30);
/// They are looked for after a cut, and this often otherwise.
const FORGET_EVERY: i64 = 10 * 60_000;

/// How much later than it should be a cut may be before it is worth a warning, and how often it is.
const GRACE: i64 = 10 * 60_000;
const WARN_EVERY: i64 = 30 * 60_000;

/// A block that has just been cut from the head and is open for reading.
#[derive(Clone)]
pub struct CutBlock {
    pub tenant: TenantId,
    pub id: BlockId,
    /// `<data>/blocks/<tenant>/<ULID>`.
    pub dir: PathBuf,
    pub meta: Meta,
}

/// Which of a tenant's windows (by start) are cut now.
pub(crate) fn due(
    windows: &[Window],
    block_range: i64,
    window: i64,
    now: Timestamp,
    force: bool,
) -> Vec<Timestamp> {
    let surplus = windows.len().saturating_sub(MOST_WINDOWS);
    let is_due = |(at, w): &(usize, &Window)| {
        let over = w.start.saturating_add(block_range).saturating_add(window) <= now;
        let settled = now.saturating_sub(w.last_write) >= LATE_SETTLES
            || now.saturating_sub(w.first_write) >= LATE_AT_MOST;
        force || *at < surplus || (over && settled)
    };
    windows.iter().enumerate().filter(is_due).map(|(_, w)| w.start).collect()
}

impl Engine {
    /// Cuts what is due. What fails for one tenant is logged and tried again next time; the first error is
    /// returned after all others had their turn, unless something was cut.
    pub(crate) fn cut(&self, now: Timestamp, force: bool) -> Result<Vec<CutBlock>, Error> {
        let _one_at_a_time = self.cutting.lock();
        let (range, window) = (self.settings.block_range, self.settings.out_of_order_window);
        let mut cut = Vec::new();
        let mut failure = None;
        for (index, windows) in self.head.windows() {
            let Some(tenant) = self.tenants.by_index(index) else { continue };
            let jitter = self.jitter(&tenant);
            for start in due(&windows, range, window.saturating_add(jitter), now, force) {
                let aligned = start.saturating_add(range).saturating_add(window) <= now || !force;
                match self.cut_window(&tenant, TimeRange::new(start, start + range - 1), aligned, now) {
                    Ok(Some(block)) => cut.push(block),
                    Ok(None) => {}
                    Err(error) => {
                        metrics::counter!("prometheus_tsdb_compactions_failed_total").increment(1);
                        tracing::error!(
                            tenant = %tenant.id, window = start, error = %error,
                            "window could not be cut; its samples stay in the head and the log"
                        );
                        failure.get_or_insert(error);
                    }
                }
            }
        }
        self.head.forget_cut(now);
        if !cut.is_empty() || now.saturating_sub(self.last_forgot.load(Relaxed)) >= FORGET_EVERY {
            self.last_forgot.store(now, Relaxed);
            let before = now.saturating_sub(window).saturating_sub(IDLE);
            let forgotten = self.head.forget_idle(before, &self.tenants);
            metrics::counter!("prometheus_tsdb_head_series_removed_total").increment(forgotten as u64);
        }
        self.report();
        self.watch(now);
        if let Err(error) = self.checkpoint() {
            tracing::error!(error = %error, "old log segments stay until the next cut");
        }
        match failure {
            Some(error) if cut.is_empty() => Err(error),
            _ => Ok(cut),
        }
    }

    fn cut_window(
        &self,
        tenant: &Arc<Tenant>,
        window: TimeRange,
        aligned: bool,
        now: Timestamp,
    ) -> Result<Option<CutBlock>, Error> {
        let start = self.world.clock.monotonic();
        let id = BlockId::new(&self.world);
        let parent = dir::blocks_dir(&self.settings.dir).join(tenant.id.as_str());
        let mut frozen = self.head.freeze(&self.log, tenant, window, &id.to_string())?;
        if let Err(error) = self.log.wait_synced(frozen.position, MARK_WAIT) {
            self.head.thaw(&frozen);
            return Err(error);
        }
        let mut series = self.head.frozen_series(&mut frozen);
        let written = self.write_block(tenant, window, aligned, id, &parent, &mut series);
        drop(series);
        let marked = written.and_then(|open| {
            Ok((open, self.log.append(payload::CUT, &payload::cut(&tenant.id, &id.to_string()))?))
        });
        let (open, position) = match marked {
            Ok(marked) => marked,
            Err(error) => {
                self.head.thaw(&frozen);
                if self.world.disk.exists(&parent.join(id.to_string()))
                    && let Err(error) = block::remove(&self.world, &parent, id)
                {
                    tracing::error!(tenant = %tenant.id, block = %id, error = %error, "block of a failed cut stays");
                }
                return Err(error);
            }
        };
        if let Err(error) = self.log.wait_synced(position, MARK_WAIT) {
            // The mark may or may not be in the log; only a restart can tell. Until then the block must stay, and
            // nothing may be built on either.
            self.log.poison(&format!("mark of block {id} is not known to be durable: {error}"));
            return Err(error);
        }
        if let Some(open) = &open {
            let mut blocks = tenant.blocks.write();
            blocks.push(open.clone());
            blocks.sort_by_key(|b| (b.local.meta.min_time, b.local.id));
        }
        tenant.cut_through.fetch_max(window.end.saturating_add(1), Relaxed);
        let late = tenant.pins.release(READERS_WAIT);
        if late > 0 {
            tracing::warn!(tenant = %tenant.id, readers = late, "slow reads of the head are broken off by a cut");
        }
        self.head.drop_frozen(&frozen, now);
        let took = self.world.clock.monotonic().duration_since(start);
        let Some(open) = open else { return Ok(None) };
        metrics::counter!("prometheus_tsdb_compactions_total").increment(1);
        metrics::histogram!("prometheus_tsdb_compaction_duration_seconds").record(took.as_secs_f64());
        let stats = &open.local.meta.stats;
        tracing::info!(
            tenant = %tenant.id, block = %id, series = stats.num_series, samples = stats.num_samples,
            ms = took.as_millis() as u64, "block cut"
        );
        Ok(Some(CutBlock {
            tenant: tenant.id.clone(),
            id,
            dir: open.local.dir.clone(),
            meta: open.local.meta.clone(),
        }))
    }

    /// Writes the block and opens it; none where nothing was left to write.
    fn write_block(
        &self,
        tenant: &Tenant,
        window: TimeRange,
        aligned: bool,
        id: BlockId,
        parent: &std::path::Path,
        series: &mut dyn Iterator<Item = (Labels, Vec<ChunkData>)>,
    ) -> Result<Option<Arc<OpenBlock>>, Error> {
        let mut series = series.peekable();
        if series.peek().is_none() {
            return Ok(None);
        }
        let disk = &*self.world.disk;
        if !disk.exists(parent) {
            disk.create_dir_all(parent).map_err(|e| error::io("create", parent, e))?;
            let root = dir::blocks_dir(&self.settings.dir);
            disk.sync_dir(&root).map_err(|e| error::io("sync", &root, e))?;
        }
        let mut writer = BlockWriter::create(&self.world, parent, id).map_err(from_block)?;
        let mut bad = Vec::new();
        for (labels, chunks) in series {
            let written = whole(&chunks, self.settings.block_range)
                .and_then(|chunks| writer.add_series(&labels, &chunks).map_err(from_block));
            match written {
                Ok(()) => {}
                // What is wrong with the series must not keep the others; what is wrong with the disk must.
                Err(error) if matches!(error.kind, Kind::Corrupt | Kind::Invalid | Kind::Refused) => {
                    bad.push((labels, chunks, error))
                }
                Err(error) => return Err(error),
            }
        }
        if !bad.is_empty() {
            self.quarantine(tenant, id, &bad)?;
        }
        let supplementary = window.start < tenant.cut_through.load(Relaxed);
        let own = self.settings.tenant_labels.as_ref().map(|of| (of.0)(&tenant.id)).unwrap_or_default();
        let external = own.overlay(&self.settings.external_labels);
        let mut labels: BTreeMap<String, String> =
            external.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        if !self.settings.tenant_label.is_empty() {
            labels.insert(self.settings.tenant_label.clone(), tenant.id.as_str().to_owned());
        }
        let spec = MetaSpec {
            range: aligned.then(|| (window.start, window.end + 1)),
            level: 1,
            hints: if supplementary { vec!["from-out-of-order".to_owned()] } else { Vec::new() },
            thanos: Some(ThanosSpec { labels, source: "receive".to_owned(), resolution: 0 }),
            ..MetaSpec::default()
        };
        match writer.finish(spec).map_err(from_block)? {
            None => Ok(None),
            Some(_) => Ok(Some(Arc::new(OpenBlock::open(&self.world, &tenant.id, parent, id)?))),
        }
    }

    /// Keeps series that no block takes, as they are, for a later look.
    fn quarantine(
        &self,
        tenant: &Tenant,
        id: BlockId,
        bad: &[(Labels, Vec<ChunkData>, Error)],
    ) -> Result<(), Error> {
        let mut text = String::new();
        for (labels, chunks, error) in bad {
            metrics::counter!("tributary_tsdb_series_quarantined_total").increment(1);
            tracing::error!(
                tenant = %tenant.id, series = %labels, error = %error,
                "series cannot be written into a block; it is set aside in the quarantine folder"
            );
            let hex = |c: &ChunkData| c.bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let line = serde_json::json!({
                "tenant": tenant.id.as_str(),
                "series": labels.to_string(),
                "error": error.message,
                "chunks": chunks.iter().map(|c| serde_json::json!({
                    "start": c.range.start, "end": c.range.end, "encoding": c.encoding as u8, "hex": hex(c),
                })).collect::<Vec<_>>(),
            });
            text.push_str(&line.to_string());
            text.push('\n');
        }
        let dir = dir::quarantine_dir(&self.settings.dir);
        let disk = &*self.world.disk;
        disk.create_dir_all(&dir).map_err(|e| error::io("create", &dir, e))?;
        let path = dir.join(format!("{id}.json"));
        disk.write_atomic(&path, text.as_bytes()).map_err(|e| error::io("write", &path, e))
    }

    /// How much later than it could be a tenant's windows are cut on this node: always the same, and others for
    /// other tenants and nodes.
    fn jitter(&self, tenant: &Tenant) -> i64 {
        let own = self.settings.external_labels.placement_hash(tenant.id.as_str());
        match self.settings.cut_jitter {
            most if most > 0 => (own % most as u64) as i64,
            _ => 0,
        }
    }

    /// Says how old the oldest samples are that no block has, and warns where a cut should long have taken them.
    fn watch(&self, now: Timestamp) {
        let windows = self.head.windows();
        let all = windows.iter().flat_map(|(tenant, windows)| windows.iter().map(move |w| (w, *tenant)));
        let Some((oldest, tenant)) = all.min_by_key(|(w, _)| w.first_write) else {
            metrics::gauge!("tributary_tsdb_oldest_unsealed_seconds").set(0);
            return;
        };
        let age = now.saturating_sub(oldest.first_write).max(0);
        metrics::gauge!("tributary_tsdb_oldest_unsealed_seconds").set(age as f64 / 1e3);
        if age < self.oldest_allowed() || now.saturating_sub(self.last_warned.load(Relaxed)) < WARN_EVERY {
            return;
        }
        self.last_warned.store(now, Relaxed);
        let tenant = self.tenants.by_index(tenant).map(|tenant| tenant.id.to_string()).unwrap_or_default();
        tracing::warn!(
            tenant,
            window = oldest.start,
            age_ms = age,
            "samples have been in the head for longer than any cut should leave them: look for errors of cuts"
        );
    }

    /// How long samples may be in the head before something is wrong.
    fn oldest_allowed(&self) -> i64 {
        let Settings { block_range, out_of_order_window, cut_jitter, future_tolerance, .. } = self.settings;
        let due = block_range.saturating_add(out_of_order_window).saturating_add(future_tolerance);
        due.saturating_add(cut_jitter).saturating_add(LATE_AT_MOST).saturating_add(GRACE)
    }

    /// Gauges that are cheap enough to set once a minute.
    fn report(&self) {
        let mut head = TimeRange::EMPTY;
        let mut exemplars = 0;
        for tenant in self.tenants.all() {
            exemplars += tenant.exemplars.lock().len();
            head = head.cover(&self.head.window_range(tenant.index));
            metrics::gauge!("prometheus_tsdb_blocks_loaded", "tenant" => tenant.id.as_str().to_owned())
                .set(tenant.blocks.read().len() as f64);
            // Values of a tenant that are not set for long leave the page.
            tenant.report_series();
        }
        metrics::gauge!("prometheus_tsdb_exemplar_exemplars_in_storage").set(exemplars as f64);
        if !head.is_empty() {
            metrics::gauge!("prometheus_tsdb_head_min_time").set(head.start as f64);
            metrics::gauge!("prometheus_tsdb_head_max_time").set(head.end as f64);
        }
    }

    /// Lets log segments go whose samples are all in blocks.
    fn checkpoint(&self) -> Result<(), Error> {
        let needed = self.head.first_needed(self.log.tail());
        let keep_from = self.log.segment_of(needed);
        let deleted = self
            .log
            .checkpoint::<Error>(keep_from, &mut |writer| self.head.write_series(&self.tenants, writer))?;
        if deleted > 0 {
            tracing::info!(segments = deleted, "log segments deleted: their samples are in blocks");
        }
        Ok(())
    }
}

/// Removes a block whose mark never reached the log: its samples are all in the head again.
pub(crate) fn remove_orphan(
    world: &World,
    data: &std::path::Path,
    tenant: &TenantId,
    block: &str,
) -> Result<(), Error> {
    let parent = dir::blocks_dir(data).join(tenant.as_str());
    let Some(id) = BlockId::parse(block) else { return Ok(()) };
    if !world.disk.exists(&parent.join(block)) {
        return Ok(());
    }
    tracing::info!(tenant = %tenant, block = %id, "block of an interrupted cut removed; its samples are in the head");
    block::remove(world, &parent, id).map_err(from_block)
}

#[cfg(test)]
mod tests {
    use model::Sample;

    use super::*;
    use crate::head::encode;

    #[test]
    fn what_is_due() {
        const H: i64 = 3_600_000;
        let window =
            |start, last_write| Window { start, first_position: 1, first_write: last_write, last_write };
        let live = [window(0, 2 * H), window(2 * H, 4 * H)];
        assert_eq!(due(&live, 2 * H, 2 * H, 4 * H - 1, false), Vec::<i64>::new());
        assert_eq!(due(&live, 2 * H, 2 * H, 4 * H, false), [0]);
        assert_eq!(due(&live, 2 * H, 2 * H, 4 * H, true), [0, 2 * H]);
        // A late window that is being written to waits, but not for ever.
        let now = 100 * H;
        assert_eq!(due(&[window(0, now - 1)], 2 * H, 2 * H, now, false), Vec::<i64>::new());
        assert_eq!(due(&[window(0, now - LATE_SETTLES)], 2 * H, 2 * H, now, false), [0]);
        // A backfill over many windows: the oldest go.
        let many: Vec<Window> = (0..5).map(|i| window(i * 2 * H, now)).collect();
        assert_eq!(due(&many, 2 * H, 2 * H, now, false), [0, 2 * H]);
    }

    #[test]
    fn a_series_that_cannot_be_cut_is_set_aside_and_the_cut_goes_on_t13() {
        let disk = testkit::MemDisk::new();
        let (world, _) = testkit::world(Arc::new(disk), 0, 1);
        let settings = crate::Settings { dir: "/data".into(), segment_bytes: 64 << 10, ..Default::default() };
        let tsdb = crate::Tsdb::open(world.clone(), settings).unwrap();
        let engine = &tsdb.engine;
        let tenant = engine.tenants.get_or_add(&TenantId::new("t").unwrap());
        let good =
            encode(&[Sample { timestamp: 5, value: 1.0 }, Sample { timestamp: 6, value: 2.0 }]).unwrap();
        let cut_short = ChunkData { bytes: good.bytes.slice(..12), ..good.clone() };
        let elsewhere = ChunkData { range: TimeRange::new(4, 6), ..good.clone() };
        let series = [("a", &cut_short), ("b", &good), ("c", &elsewhere)]
            .map(|(name, chunk)| (Labels::from_pairs([("__name__", name)]).unwrap(), vec![chunk.clone()]));
        let parent = dir::blocks_dir(&engine.settings.dir).join("t");
        let id = BlockId::new(&world);
        let window = TimeRange::new(0, 7_199_999);
        let open =
            engine.write_block(&tenant, window, true, id, &parent, &mut series.into_iter()).unwrap().unwrap();
        assert_eq!(open.local.meta.stats.num_series, 1);
        let aside =
            world.disk.read(&dir::quarantine_dir(&engine.settings.dir).join(format!("{id}.json"))).unwrap();
        let aside = String::from_utf8(aside).unwrap();
        assert_eq!(aside.lines().count(), 2);
        assert!(aside.contains("does not hold the times it says"), "{aside}");
    }
}
