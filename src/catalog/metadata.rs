//! What metrics mean, by tenant: the newest word on each, kept until its tenant has too many.
//!
//! Writers say it again and again; only what changed is written, and once in a while that it is still being said. None of
//! it is confirmed: what a crash takes comes again with the next writes.

use std::collections::HashMap;

use model::{Meaning, MetricKind, MetricMetadata, TenantId, Timestamp};

use crate::database::Confirm;
use crate::database::Inner;
use crate::error::Fault;
use crate::family::{LEDGER, METADATA};
use crate::{Catalog, Error, keys};

/// Longest name, help or unit in bytes. Longer names are refused, longer texts cut.
pub const MAX_TEXT: usize = 1024;
/// How often it is noted that a metric is still being spoken of.
const SEEN_EVERY_MS: i64 = 6 * 3600 * 1000;
/// Metrics of which nobody spoke for so long make room in a tenant that is full.
const FORGET_AFTER_MS: i64 = 24 * 3600 * 1000;
/// Tenants whose metrics are counted; a tenant beyond is counted again when it has something new.
const COUNTED: usize = 4096;
const VERSION: u8 = 1;

/// What became of the entries of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Metrics that were not known.
    pub new: u64,
    pub changed: u64,
    /// Known as they are.
    pub same: u64,
    /// Not taken: the tenant has as many as it may, or the name is none.
    pub refused: u64,
}

/// Metrics by tenant, of tenants that had something new lately.
#[derive(Default)]
pub(crate) struct Counts {
    tenants: HashMap<TenantId, Count>,
}

#[derive(Clone, Copy)]
struct Count {
    metrics: u64,
    /// When the last attempt was made to make room.
    swept: Timestamp,
}

struct Stored {
    meaning: Meaning,
    /// When it was last said, to within hours.
    seen: Timestamp,
}

/// Cuts at a character.
fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn encode(kind: MetricKind, help: &str, unit: &str, seen: Timestamp) -> Vec<u8> {
    let (help, unit) = (cut(help), cut(unit));
    let mut out = vec![VERSION, kind.code()];
    out.extend_from_slice(&seen.to_be_bytes());
    // MAX_TEXT fits.
    out.extend_from_slice(&(unit.len() as u16).to_be_bytes());
    out.extend_from_slice(unit.as_bytes());
    out.extend_from_slice(help.as_bytes());
    out
}

fn decode(value: &[u8]) -> Option<Stored> {
    let (head, rest) = value.split_first_chunk::<2>()?;
    let (seen, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (unit, help) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let [VERSION, code] = head else { return None };
    let meaning = Meaning { kind: MetricKind::from_code(*code), help: text(help)?, unit: text(unit)? };
    Some(Stored { meaning, seen: i64::from_be_bytes(*seen) })
}

impl Catalog {
    /// Takes what is said of metrics at `now`. Beyond `max` metrics of the tenant new ones are refused, after those of
    /// which nobody spoke for a day have made room; 0 is no limit.
    pub fn metadata_put(
        &self,
        tenant: &TenantId,
        entries: &[MetricMetadata],
        max: u64,
        now: Timestamp,
    ) -> Result<Put, Error> {
        let inner = &*self.inner;
        inner.write(Confirm::No, |db, batch, counts| {
            let family = Inner::family(db, METADATA)?;
            let mut put = Put::default();
            // What this call has put itself is not in the database yet.
            let mut fresh: HashMap<&str, &Meaning> = HashMap::new();
            for entry in entries {
                let MetricMetadata { metric, meaning } = entry;
                if metric.is_empty() || metric.len() > MAX_TEXT || metric.contains('\0') {
                    put.refused += 1;
                    continue;
                }
                let key = keys::key(tenant.as_str(), metric);
                let known = match fresh.get(metric.as_str()) {
                    Some(meaning) => Some(Stored { meaning: (*meaning).clone(), seen: now }),
                    None => match db.get_pinned_cf(family, &key)? {
                        Some(value) => {
                            let strange = || keys::strange(&inner.dir, METADATA, &key);
                            Some(decode(&value).ok_or_else(strange)?)
                        }
                        None => None,
                    },
                };
                let same = |known: &Stored| {
                    known.meaning.kind == meaning.kind
                        && known.meaning.help == cut(&meaning.help)
                        && known.meaning.unit == cut(&meaning.unit)
                };
                match &known {
                    Some(known) if same(known) => {
                        put.same += 1;
                        if now.saturating_sub(known.seen) < SEEN_EVERY_MS {
                            continue;
                        }
                    }
                    Some(_) => put.changed += 1,
                    None if max > 0 && !self.room(db, batch, counts, tenant, max, now)? => {
                        put.refused += 1;
                        continue;
                    }
                    None => {
                        if let Some(count) = counts.tenants.get_mut(tenant) {
                            count.metrics += 1;
                        }
                        put.new += 1;
                    }
                }
                batch.put_cf(family, &key, encode(meaning.kind, &meaning.help, &meaning.unit, now));
                fresh.insert(metric, meaning);
            }
            Ok(put)
        })
    }

    /// Whether a tenant may have one more metric.
    fn room(
        &self,
        db: &rocksdb::DB,
        batch: &mut rocksdb::WriteBatch,
        counts: &mut Counts,
        tenant: &TenantId,
        max: u64,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        if !counts.tenants.contains_key(tenant) {
            if counts.tenants.len() >= COUNTED {
                counts.tenants.clear();
            }
            let metrics = self.sweep(db, tenant, i64::MIN, &mut |_| {})?;
            counts.tenants.insert(tenant.clone(), Count { metrics, swept: i64::MIN });
        }
        let Some(count) = counts.tenants.get_mut(tenant) else { return Ok(false) };
        if count.metrics < max {
            return Ok(true);
        }
        // Once an hour: a tenant that stays full must not cost a scan per metric.
        if now.saturating_sub(count.swept) < 3600 * 1000 {
            return Ok(false);
        }
        let family = Inner::family(db, METADATA)?;
        let before = now.saturating_sub(FORGET_AFTER_MS);
        count.metrics = self.sweep(db, tenant, before, &mut |key| batch.delete_cf(family, key))?;
        count.swept = now;
        Ok(count.metrics < max)
    }

    /// Counts a tenant's metrics, leaving out those last spoken of before `before`, which `old` gets.
    fn sweep(
        &self,
        db: &rocksdb::DB,
        tenant: &TenantId,
        before: Timestamp,
        old: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, Fault> {
        let (start, end) = keys::range(tenant.as_str());
        let mut options = rocksdb::ReadOptions::default();
        options.fill_cache(false);
        options.set_iterate_upper_bound(end);
        let from = rocksdb::IteratorMode::From(&start, rocksdb::Direction::Forward);
        let mut kept = 0;
        for entry in db.iterator_cf_opt(Inner::family(db, METADATA)?, options, from) {
            let (key, value) = entry?;
            let stored = decode(&value).ok_or_else(|| keys::strange(&self.inner.dir, METADATA, &key))?;
            if stored.seen < before {
                old(&key);
            } else {
                kept += 1;
            }
        }
        Ok(kept)
    }

    /// Shows what is known of metrics to `take` until it answers false: of one tenant or of all (then a metric can come
    /// more than once), of one metric or of all, in the order of tenants and names.
    pub fn metadata(
        &self,
        tenant: Option<&TenantId>,
        metric: Option<&str>,
        take: &mut dyn FnMut(MetricMetadata) -> bool,
    ) -> Result<(), Error> {
        let inner = &*self.inner;
        if let (Some(tenant), Some(metric)) = (tenant, metric) {
            let key = keys::key(tenant.as_str(), metric);
            let value = inner.read("read", |db| Ok(db.get_cf(Inner::family(db, METADATA)?, &key)?))?;
            if let Some(value) = value {
                let stored = decode(&value).ok_or_else(|| keys::strange(&inner.dir, METADATA, &key))?;
                take(MetricMetadata { metric: metric.to_owned(), meaning: stored.meaning });
            }
            return Ok(());
        }
        let (start, end) = match tenant {
            Some(tenant) => keys::range(tenant.as_str()),
            None => (Vec::new(), vec![0xff]),
        };
        inner.scan(METADATA, (&start, Some(&end)), |key, value| {
            let strange = || keys::strange(&inner.dir, METADATA, key);
            let (_, name) = keys::split(key).ok_or_else(strange)?;
            if metric.is_some_and(|metric| metric != name) {
                return Ok(true);
            }
            let stored = decode(value).ok_or_else(strange)?;
            Ok(take(MetricMetadata { metric: name.to_owned(), meaning: stored.meaning }))
        })
    }

    /// Forgets a tenant: its blocks, and what is said of its metrics.
    pub fn forget_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        self.inner.write(Confirm::Yes, |db, batch, counts| {
            let (start, end) = keys::range(tenant.as_str());
            for family in [LEDGER, METADATA] {
                batch.delete_range_cf(Inner::family(db, family)?, &start, &end);
            }
            counts.tenants.remove(tenant);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_lead_back_and_bytes_never_panic(
            code in 0u8..10, help in ".{0,600}", unit in ".{0,20}", seen in any::<i64>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let kind = MetricKind::from_code(code);
            let stored = decode(&encode(kind, &help, &unit, seen)).unwrap();
            prop_assert_eq!(stored.seen, seen);
            prop_assert_eq!(stored.meaning.kind, kind);
            prop_assert!(help.starts_with(&stored.meaning.help) && stored.meaning.help.len() + 4 > help.len().min(MAX_TEXT));
            prop_assert_eq!(stored.meaning.unit, unit);
            decode(&bytes);
        }
    }
}
