//! Deleting from the head: samples are taken out under the shard's lock, and the log says so in the same order.
//!
//! Nothing is hidden by a list of deletions: what is deleted is gone, so reads and cuts know nothing of it, and a
//! replay takes it out again where the log says. The caller holds off cuts.

use std::sync::atomic::Ordering::Relaxed;

use model::{Matcher, TimeRange};
use wal::Log;

use super::shard::{BITE, Head};
use crate::Error;
use crate::payload::{self, FIXED_BYTES};
use crate::tenants::Tenant;

/// What a deletion did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Series that had samples in the range.
    pub series: u64,
    /// Series whose samples are all still there, and why.
    pub failed: u64,
    pub failure: Option<Error>,
}

impl Head {
    /// Deletes a tenant's samples in `range` of the series that pass all matchers. A series from which they cannot be
    /// taken, because its chunks are damaged, keeps all it has and does not keep the others from losing theirs.
    /// Whatever is gone from memory is gone in the log; after an error, doing it again does the rest.
    pub(crate) fn delete(
        &self,
        log: &Log,
        tenant: &Tenant,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Done, Error> {
        let mut done = Done::default();
        let bite = BITE.min(self.settings.group_bytes / 16).max(1);
        for shard in &self.shards {
            let matching: Vec<(u32, u64)> = {
                let state = shard.state.lock();
                let Some(known) = state.tenant(tenant.index) else { continue };
                let slots = known.postings.resolve(matchers, &state.texts, |slot| state.series.list(slot));
                slots.into_iter().filter_map(|slot| state.series.hot(slot).map(|s| (slot, s.id))).collect()
            };
            for some in matching.chunks(bite) {
                let mut permit = log.reserve((FIXED_BYTES + some.len() * 10) as u64, 1)?;
                let mut ids = Vec::new();
                let mut state = shard.state.lock();
                for &(slot, id) in some {
                    let Some(mut series) = state.get_mut(slot).filter(|s| s.hot.id == id) else { continue };
                    match series.delete(range) {
                        Ok(true) => {
                            ids.push(id);
                            tenant.exemplars.lock().delete((shard.index, id), range);
                        }
                        Ok(false) => {}
                        Err(error) => {
                            let labels = state.labels(slot);
                            tracing::error!(tenant = %tenant.id, series = %labels, error = %error,
                                "samples of a series cannot be deleted");
                            done.failed += 1;
                            done.failure.get_or_insert(error);
                        }
                    }
                }
                if !ids.is_empty() {
                    let record = payload::delete(shard.index, range, &ids);
                    state.last_position = permit.enqueue(payload::DELETE, &[&record])?;
                    done.series += ids.len() as u64;
                }
            }
        }
        Ok(done)
    }

    /// Removes all series of a tenant, of which nothing is to be kept.
    pub(crate) fn remove_tenant(&self, tenant: &Tenant) -> u64 {
        let mut removed = 0;
        for shard in &self.shards {
            let slots = shard.state.lock().tenant(tenant.index).map(|known| known.postings.all.to_vec());
            for some in slots.unwrap_or_default().chunks(BITE) {
                let mut state = shard.state.lock();
                let ours = |slot: &u32| {
                    state.get(*slot).is_some_and(|s| s.hot.tenant == tenant.index && s.is_empty())
                };
                let ours: Vec<u32> = some.iter().copied().filter(ours).collect();
                removed += state.remove(&ours).iter().map(|(_, n)| *n as u64).sum::<u64>();
            }
            let mut state = shard.state.lock();
            state.drop_empty_tenant(tenant.index);
        }
        tenant.series.fetch_sub(removed.min(tenant.series.load(Relaxed)), Relaxed);
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Labels, Sample, TenantId, TimeRange};
    use storage::{Append, Verdict, WriteBatch};
    use testkit::MemDisk;

    use crate::{Settings, Tsdb};

    const NOW: i64 = 1_700_006_400_000;
    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn open(disk: &MemDisk) -> Arc<Tsdb> {
        let (world, _) = testkit::world(Arc::new(disk.clone()), NOW, 1);
        let settings =
            Settings { dir: "/data".into(), shards: 1, segment_bytes: 64 << 10, ..Settings::default() };
        Tsdb::open(world, settings).unwrap()
    }

    /// Samples of each series in a range, where they decode.
    fn counts(tsdb: &Tsdb, range: TimeRange) -> Vec<usize> {
        let state = tsdb.engine.head.shards[0].state.lock();
        let count = |slot: u32| {
            let (mut bytes, mut chunks) = (Vec::new(), Vec::new());
            state.get(slot).unwrap().chunks(range, &mut bytes, &mut chunks);
            let samples =
                chunks.iter().flat_map(|c| chunk::xor::Iter::new(&bytes[c.start..c.end]).unwrap().flatten());
            samples.filter(|s| range.contains(s.timestamp)).count()
        };
        (0..3).map(count).collect()
    }

    #[test]
    fn a_damaged_series_keeps_all_and_the_others_lose_theirs_also_in_the_log() {
        let disk = MemDisk::new();
        let tenant = TenantId::new("t").unwrap();
        let mut tsdb = open(&disk);
        let mut batch = WriteBatch::default();
        for name in NAMES {
            let labels = Labels::from_pairs([("__name__", name)]).unwrap();
            let samples =
                (0..300).map(|i| Sample { timestamp: NOW - 3_000_000 + i * 10_000, value: i as f64 });
            batch.push(labels.as_bytes(), labels.placement_hash("t"), samples);
        }
        let mut verdicts = vec![Verdict::Unavailable; batch.verdicts()];
        tsdb.append(&tenant, &batch, &[0, 1, 2], NOW, &mut verdicts).unwrap();
        assert!(verdicts.iter().all(|v| *v == Verdict::Stored));

        // Of the second series, one chunk turns bad in memory.
        let bad = tsdb.engine.head.shards[0].state.lock().series.damage_for_test(1);
        let gone = TimeRange::new(NOW - 2_900_000, bad.start + (bad.end - bad.start) / 2);
        let all = counts(&tsdb, gone)[0];
        let delete = |tsdb: &Tsdb| tsdb.delete_series(&tenant, &[Vec::new()], gone);
        for _ in 0..2 {
            let error = delete(&tsdb).unwrap_err();
            assert!(error.message.contains("1 series of the head are damaged"), "{error}");
            let left = counts(&tsdb, gone);
            assert_eq!((left[0], left[2]), (0, 0));
        }
        // In the log it is whole: what a restart finds there is what memory had, and then nothing is in the way.
        drop(tsdb);
        tsdb = open(&disk);
        assert_eq!(counts(&tsdb, gone), [0, all, 0]);
        assert_eq!(delete(&tsdb).unwrap().series, 1);
        assert_eq!(counts(&tsdb, gone), [0, 0, 0]);
    }
}
