//! What metrics mean: heard at the door, placed like a series, kept by its owners in the catalog.
//!
//! The place of a metric is that of the series with its name alone, so that each metric has as many owners as a series
//! has copies. No quorum is waited for and no outcome of a write depends on it: senders say the same again every
//! minute, a door passes on what is new or changed, and everything once in ten minutes, so that an owner who missed it, or
//! who is an owner since a moment ago, has it soon. The last word wins.
//!
//! # Cost
//! Requests that say nothing of metrics pay nothing. Those of 2.0 say it with every series: a look into a table of
//! bounded size for each metric, nothing for its further series in a row.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use catalog::Catalog;
use model::{Kind, Labels, METRIC_NAME, Meaning, MetricKind, MetricMetadata, TenantId, Timestamp};
use parking_lot::Mutex;
use runtime::World;
use storage::{Context, Error, Meanings, MetadataRequest, MetadataSource};
use tokio::sync::Semaphore;
use wire::remote_write::DecodedV1;

use crate::ring::Target;
use crate::write::Writer;

/// After this time the same is passed on again.
const AGAIN_MS: i64 = 10 * 60 * 1000;
/// Requests whose news may be on their way at once; what more requests say is passed on when it is said again.
const BEHIND: usize = 64;
/// Metrics remembered as passed on. Beyond it the memory begins anew, and some is passed on once more.
const REMEMBERED: usize = 1 << 17;

/// One thing that a request says of a metric: its type's number, and where the texts lie in the plain body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    kind: u8,
    name: Range<u32>,
    help: Range<u32>,
    unit: Range<u32>,
}

/// Finds what a decoded request says of metrics; the same again for the next series of a metric is left out.
pub fn said(columns: &DecodedV1, plain: &[u8], out: &mut Vec<Saying>) {
    let place = |text: &str| {
        // Every text is a part of the body; an empty one may be a constant.
        let start = (text.as_ptr() as usize).wrapping_sub(plain.as_ptr() as usize);
        match text.is_empty() {
            true => 0..0,
            false => start as u32..(start + text.len()) as u32,
        }
    };
    for metadata in columns.metadata() {
        let Some((Some(name), help, unit)) = columns.metadata_texts(metadata, plain) else { continue };
        let saying = Saying { kind: metadata.kind, name: place(name), help: place(help), unit: place(unit) };
        if !name.is_empty() && out.last() != Some(&saying) {
            out.push(saying);
        }
    }
}

/// The metric that a series of 2.0 belongs to: its parts are described as one.
fn family(name: &str, kind: MetricKind) -> &str {
    let parts: &[&str] = match kind {
        MetricKind::Histogram => &["_bucket", "_count", "_sum"],
        MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricKind::Summary => &["_count", "_sum"],
        _ => &[],
    };
    parts.iter().find_map(|part| name.strip_suffix(part)).filter(|name| !name.is_empty()).unwrap_or(name)
}

/// Hears, passes on, keeps and answers.
pub struct MetadataDoor {
    writer: Arc<Writer>,
    world: World,
    catalog: OnceLock<Catalog>,
    max_per_tenant: u64,
    remembered: Mutex<Remembered>,
    /// Requests whose news are on their way behind their writes.
    behind: Arc<Semaphore>,
}

/// What was passed on: by tenant and metric, what was said, and when. Hashes all of them.
#[derive(Default)]
struct Remembered {
    state: RandomState,
    passed: HashMap<u64, (u64, Timestamp)>,
}

impl Remembered {
    fn key(&self, tenant: &TenantId, metric: &str) -> u64 {
        self.state.hash_one((tenant.as_str(), metric))
    }

    /// Whether it is to be passed on; then it is remembered.
    fn is_news(&mut self, tenant: &TenantId, metric: &str, said: (u8, &str, &str), now: Timestamp) -> bool {
        let (key, value) = (self.key(tenant, metric), self.state.hash_one(said));
        match self.passed.get(&key) {
            Some((known, at)) if *known == value && now.saturating_sub(*at) < AGAIN_MS => return false,
            Some(_) => {}
            None if self.passed.len() >= REMEMBERED => self.passed.clear(),
            None => {}
        }
        self.passed.insert(key, (value, now));
        true
    }
}

impl MetadataDoor {
    pub fn new(writer: Arc<Writer>, world: &World, max_per_tenant: u64) -> MetadataDoor {
        MetadataDoor {
            writer,
            world: world.clone(),
            catalog: OnceLock::new(),
            max_per_tenant,
            remembered: Mutex::default(),
            behind: Arc::new(Semaphore::new(BEHIND)),
        }
    }

    /// From now on metadata is kept and told.
    pub fn open(&self, catalog: Catalog) {
        self.catalog.get_or_init(|| catalog);
    }

    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalog.get()
    }

    /// Of what a request says, that which is to be passed on.
    pub fn news(
        &self,
        tenant: &TenantId,
        said: &[Saying],
        plain: &[u8],
        now: Timestamp,
    ) -> Vec<MetricMetadata> {
        if said.is_empty() {
            return Vec::new();
        }
        let text = |at: &Range<u32>| {
            let bytes = plain.get(at.start as usize..at.end as usize).unwrap_or_default();
            std::str::from_utf8(bytes).unwrap_or_default()
        };
        let mut remembered = self.remembered.lock();
        let mut news = Vec::new();
        for one in said {
            let kind = MetricKind::from_code(one.kind);
            let (metric, help, unit) = (family(text(&one.name), kind), text(&one.help), text(&one.unit));
            if kind == MetricKind::Unknown && help.is_empty() && unit.is_empty() {
                // Says nothing, and must not take the place of something.
                continue;
            }
            if remembered.is_news(tenant, metric, (one.kind, help, unit), now) {
                let meaning = Meaning { kind, help: help.to_owned(), unit: unit.to_owned() };
                news.push(MetricMetadata { metric: metric.to_owned(), meaning });
            }
        }
        news
    }

    fn forget(&self, tenant: &TenantId, said: &[MetricMetadata]) {
        let mut remembered = self.remembered.lock();
        for one in said {
            let key = remembered.key(tenant, &one.metric);
            remembered.passed.remove(&key);
        }
    }

    /// Brings news to their owners beside the write that they came with, which does not wait for any of it.
    pub fn pass_on_behind(self: &Arc<Self>, tenant: &TenantId, news: Vec<MetricMetadata>, here: bool) {
        if news.is_empty() {
            return;
        }
        let Ok(place) = Arc::clone(&self.behind).try_acquire_owned() else {
            count("failed", news.len() as u64);
            return self.forget(tenant, &news);
        };
        let (door, tenant) = (Arc::clone(self), tenant.clone());
        tokio::spawn(async move {
            door.pass_on(&tenant, news, here).await;
            drop(place);
        });
    }

    /// Brings news to their owners. What is kept here is readable when this returns; peers are told behind it. What
    /// does not arrive is passed on again when it is heard again. `here` keeps everything here, whatever the ring.
    pub async fn pass_on(self: &Arc<Self>, tenant: &TenantId, news: Vec<MetricMetadata>, here: bool) {
        if news.is_empty() {
            return;
        }
        if here {
            return self.keep_or_forget(tenant, news).await;
        }
        let current = self.writer.ring().current();
        let Some(ring) = current.rings.resolve(tenant.as_str()) else { return };
        let mut shares: HashMap<usize, Vec<MetricMetadata>> = HashMap::new();
        for one in news {
            let Ok(labels) = Labels::from_pairs([(METRIC_NAME, one.metric.as_str())]) else { continue };
            for owner in ring.replicas(labels.placement_hash(tenant.as_str())) {
                shares.entry(usize::from(*owner)).or_default().push(one.clone());
            }
        }
        let mut own = None;
        for (owner, share) in shares {
            match &current.targets[owner] {
                Target::Local => own = Some(share),
                Target::Peer(peer) => {
                    let (door, peer, tenant) = (Arc::clone(self), Arc::clone(peer), tenant.clone());
                    tokio::spawn(async move {
                        let told = peer.tell(&tenant, &share).await;
                        count(if told.is_ok() { "sent" } else { "send_failed" }, share.len() as u64);
                        if let Err(why) = told {
                            tracing::debug!(peer = peer.address(), why, "metadata was not taken");
                            door.forget(&tenant, &share);
                        }
                    });
                }
            }
        }
        if let Some(share) = own {
            self.keep_or_forget(tenant, share).await;
        }
    }

    async fn keep_or_forget(self: &Arc<Self>, tenant: &TenantId, said: Vec<MetricMetadata>) {
        let said = Arc::new(said);
        if let Err(error) = self.keep(tenant, Arc::clone(&said)).await {
            tracing::debug!(%tenant, %error, "metadata is not kept");
            self.forget(tenant, &said);
        }
    }

    /// Keeps what is placed on this node.
    pub async fn keep(
        self: &Arc<Self>,
        tenant: &TenantId,
        said: Arc<Vec<MetricMetadata>>,
    ) -> Result<(), Error> {
        let Some(catalog) = self.catalog.get().cloned() else {
            return Err(Error::new(
                Kind::Unavailable,
                "this receiver is starting: its catalog is not open yet",
            ));
        };
        let (tenant, max, now) = (tenant.clone(), self.max_per_tenant, self.world.clock.now_ms());
        let many = said.len() as u64;
        let kept = tokio::task::spawn_blocking(move || catalog.metadata_put(&tenant, &said, max, now));
        match kept.await {
            Ok(Ok(put)) => {
                count("kept", put.new + put.changed);
                count("known", put.same);
                count("refused", put.refused);
                Ok(())
            }
            Ok(Err(error)) => {
                count("failed", many);
                Err(Error::with_source(error.kind, error.message.clone(), error))
            }
            Err(error) => Err(Error::with_source(Kind::Internal, "keeping metadata was broken off", error)),
        }
    }
}

fn count(outcome: &'static str, metrics: u64) {
    if metrics > 0 {
        metrics::counter!("tributary_receive_metadata_total", "outcome" => outcome).increment(metrics);
    }
}

impl MetadataSource for MetadataDoor {
    fn metadata(&self, request: &MetadataRequest, context: &Context) -> Result<Meanings, Error> {
        let Some(catalog) = self.catalog.get() else {
            return Err(Error::new(
                Kind::Unavailable,
                "this receiver is starting: its catalog is not open yet",
            ));
        };
        let mut held = context.budget.reserve(0)?;
        let mut found = Meanings::default();
        let mut failed = Ok(());
        let mut take = |one: MetricMetadata| {
            failed = held.grow(one.text_bytes() as u64 + 96);
            if context.cancel.is_raised() {
                failed = Err(Error::new(Kind::Refused, "query was canceled"));
            }
            let taken = found.add(one, request.limit);
            // Of all tenants a name can come again further on; of one tenant none does.
            failed.is_ok() && (taken || request.tenant.is_none())
        };
        let read = catalog.metadata(request.tenant.as_ref(), request.metric.as_deref(), &mut take);
        read.map_err(|error| Error::with_source(error.kind, error.message.clone(), error))?;
        failed?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_metric_are_one() {
        for (name, kind, want) in [
            ("a_bucket", MetricKind::Histogram, "a"),
            ("a_count", MetricKind::Summary, "a"),
            ("a_bucket", MetricKind::Summary, "a_bucket"),
            ("a_gsum", MetricKind::GaugeHistogram, "a"),
            ("a_total", MetricKind::Counter, "a_total"),
            ("_count", MetricKind::Histogram, "_count"),
        ] {
            assert_eq!(family(name, kind), want);
        }
    }

    #[test]
    fn the_same_is_passed_on_once_in_a_while() {
        let mut remembered = Remembered::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let mut news = |tenant, said, now| remembered.is_news(tenant, "up", said, now);
        assert!(news(&a, (1, "x", ""), 0) && news(&b, (1, "x", ""), 0));
        assert!(!news(&a, (1, "x", ""), AGAIN_MS - 1));
        assert!(news(&a, (1, "y", ""), 5) && news(&a, (2, "y", ""), 6));
        assert!(!news(&a, (2, "y", ""), 7) && news(&a, (2, "y", ""), 6 + AGAIN_MS));
        for n in 0..2 * REMEMBERED {
            remembered.is_news(&a, &format!("m{n}"), (1, "", ""), 0);
        }
        assert!(remembered.passed.len() <= REMEMBERED);
    }
}
