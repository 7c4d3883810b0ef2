//! The limits in force: read from file or flag, watched, and exchanged as a whole when good ones come.
//!
//! Limits that are wrong at the start end the start; ones that are wrong later are reported and those before
//! them stay. Requests are held to them at the door, series where they live.

pub(crate) mod file;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use model::{Kind, TenantId};
use parking_lot::Mutex;
use runtime::{Turn, Turns, World};
use settings::PathOrContent;
use storage::TenantLimits;

pub use self::file::{Document, Pairs, Profile};
use crate::Error;
use crate::settings::Settings;
use crate::status::Denial;

/// Holds the limits in force.
pub struct Limits {
    world: World,
    source: Option<PathOrContent>,
    /// Where the file says nothing.
    base: Profile,
    /// Active series of a tenant on this node, where the file says nothing.
    node_series: u64,
    widest: i64,
    current: ArcSwap<Current>,
    /// Text in force; one reload at a time.
    text: Mutex<String>,
    /// Version of the agreed limits; 0 where the file rules.
    agreed: AtomicU64,
}

struct Current {
    document: Document,
    gate: Option<Turns>,
}

impl Limits {
    /// Reads the limits for the first time. Blocks on the disk.
    pub fn open(settings: &Settings, world: &World) -> Result<Limits, Error> {
        let admission = &settings.admission;
        let source = PathOrContent::settle(
            "receive.limits-config",
            &admission.limits_config,
            &admission.limits_config_file,
        )
        .map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        let limits = Limits {
            world: world.clone(),
            source,
            base: Profile { samples_per_second: admission.samples_per_second, ..Profile::default() },
            node_series: settings.storage.max_series_per_tenant,
            widest: settings.storage.out_of_order_window.ms(),
            current: ArcSwap::from_pointee(Current { document: Document::default(), gate: None }),
            text: Mutex::default(),
            agreed: AtomicU64::new(0),
        };
        let text = limits.read()?;
        limits.put(limits.parse(&text)?);
        *limits.text.lock() = text;
        Ok(limits)
    }

    /// The file that holds them, if one does.
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.source {
            Some(PathOrContent::Path(path)) => Some(path),
            Some(PathOrContent::Content(_)) | None => None,
        }
    }

    /// Limits that the nodes have agreed on take the place of the file; true if they changed. What cannot be read here,
    /// as a newer version may have written it, is reported and those before it stay.
    pub fn agree(&self, version: u64, text: &str) -> bool {
        if version == 0 || self.agreed.load(Relaxed) == version {
            return false;
        }
        let mut held = self.text.lock();
        self.agreed.store(version, Relaxed);
        match file::parse(text, &self.base, self.widest) {
            Ok(document) => {
                tracing::info!(version, tenants = document.tenants.len(), "agreed limits are in force");
                self.put(document);
                text.clone_into(&mut held);
                true
            }
            Err(error) => {
                metrics::counter!("thanos_receive_limits_config_reload_err_total").increment(1);
                tracing::error!(
                    version,
                    error,
                    "agreed limits cannot be read, those before them stay in force"
                );
                false
            }
        }
    }

    /// Reads them again; true if they changed. After an error those before are in force. Blocks on the disk.
    pub fn reload(&self) -> Result<bool, Error> {
        if self.path().is_none() || self.agreed.load(Relaxed) > 0 {
            return Ok(false);
        }
        let mut held = self.text.lock();
        let outcome = self.read().and_then(|text| {
            if text == *held {
                return Ok(false);
            }
            metrics::counter!("thanos_receive_limits_config_reload_total").increment(1);
            let document = self.parse(&text)?;
            tracing::info!(tenants = document.tenants.len(), "limits have changed");
            self.put(document);
            *held = text;
            Ok(true)
        });
        metrics::gauge!("tributary_receive_limits_config_last_reload_successful")
            .set(f64::from(u8::from(outcome.is_ok())));
        if let Err(error) = &outcome {
            metrics::counter!("thanos_receive_limits_config_reload_err_total").increment(1);
            tracing::error!(%error, "limits are not reloaded, those before them stay in force");
        }
        outcome
    }

    fn read(&self) -> Result<String, Error> {
        let Some(source) = &self.source else { return Ok(String::new()) };
        source
            .text(|path| self.world.disk.read(path))
            .map_err(|error| Error::new(Kind::Invalid, format!("limits file: {error}")))
    }

    fn parse(&self, text: &str) -> Result<Document, Error> {
        file::parse(text, &self.base, self.widest).map_err(|why| {
            let origin = self.source.as_ref().map(PathOrContent::origin).unwrap_or_default();
            Error::new(Kind::Invalid, format!("limits in {origin}: {why}"))
        })
    }

    fn put(&self, document: Document) {
        for key in &document.idle {
            tracing::warn!(key, "key of the limits has no effect: active series are counted where they live");
        }
        report("", &document.default);
        for (tenant, profile) in &document.tenants {
            report(tenant.as_str(), profile);
        }
        let before = self.current.load();
        let gate = match document.max_concurrency {
            0 => None,
            same if same == before.document.max_concurrency => before.gate.clone(),
            most => Some(Turns::new(usize::try_from(most).unwrap_or(usize::MAX).min(1 << 20))),
        };
        self.current.store(Arc::new(Current { document, gate }));
    }

    /// What a tenant may do.
    pub fn of(&self, tenant: &TenantId) -> Profile {
        let current = self.current.load();
        let Document { default, tenants, .. } = &current.document;
        tenants.get(tenant).unwrap_or(default).clone()
    }

    /// What the engine here holds a tenant to, as one of `nodes` receivers that share its series.
    pub fn of_engine(&self, tenant: &TenantId, nodes: usize) -> TenantLimits {
        let profile = self.of(tenant);
        let series = match profile.head_series {
            None => self.node_series,
            Some(all) => all.div_ceil(nodes.max(1) as u64),
        };
        TenantLimits { series, ..profile.engine }
    }

    /// A place among the writes in flight; waits for it as long as the request may, and tenants take turns.
    pub async fn enter(&self, tenant: &TenantId, wait: std::time::Duration) -> Result<Option<Turn>, Denial> {
        let Some(gate) = self.current.load().gate.clone() else { return Ok(None) };
        match tokio::time::timeout(wait, gate.take(tenant.as_str())).await {
            Ok(turn) => Ok(Some(turn)),
            Err(_) => Err(Denial::Busy(format!(
                "write.global.max_concurrency of the limits is used up: no other write ended within {wait:?}"
            ))),
        }
    }

    /// Whether a request with so many series and samples may be taken.
    pub fn check(
        &self,
        tenant: &TenantId,
        profile: &Profile,
        series: u64,
        samples: u64,
    ) -> Result<(), Denial> {
        for (limit, most, found) in
            [("series", profile.request_series, series), ("samples", profile.request_samples, samples)]
        {
            if most > 0 && found > most {
                over(tenant, limit, found - most);
                return Err(Denial::TooLarge(format!(
                    "the request has {found} {limit}, tenant {tenant} may send {most} at once \
                     (request.{limit}_limit of the limits)"
                )));
            }
        }
        Ok(())
    }

    /// Whether a request of so many bytes may be taken.
    pub fn check_size(&self, tenant: &TenantId, profile: &Profile, bytes: u64) -> Result<(), Denial> {
        if profile.size_bytes == 0 || bytes <= profile.size_bytes {
            return Ok(());
        }
        over(tenant, "body_size", bytes - profile.size_bytes);
        Err(Denial::TooLarge(format!(
            "the request has {bytes} bytes, tenant {tenant} may send {} at once (request.size_bytes_limit of the \
             limits)",
            profile.size_bytes
        )))
    }
}

/// Whether a text can be the limits of a cluster; the error says where it cannot.
pub fn check(text: &str) -> Result<(), String> {
    file::parse(text, &Profile::default(), i64::MAX).map(drop)
}

fn over(tenant: &TenantId, limit: &'static str, by: u64) {
    metrics::histogram!(
        "thanos_receive_write_limits_hit", "tenant" => tenant.to_string(), "limit" => limit
    )
    .record(by as f64);
}

fn report(tenant: &str, profile: &Profile) {
    for (limit, value) in [
        ("body_size", profile.size_bytes),
        ("series", profile.request_series),
        ("samples", profile.request_samples),
    ] {
        metrics::gauge!("thanos_receive_write_limits", "tenant" => tenant.to_owned(), "limit" => limit)
            .set(value as f64);
    }
    metrics::gauge!("thanos_receive_head_series_limit", "tenant" => tenant.to_owned())
        .set(profile.head_series.unwrap_or(0) as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_limits_replace_and_broken_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let path = dir.path().join("limits.yaml");
        let put = |text: &str| world.disk.write_atomic(&path, text.as_bytes()).unwrap();
        let mut settings = Settings::default();
        settings.admission.limits_config_file = Some(path.clone());
        settings.storage.max_series_per_tenant = 5;
        let missing = Limits::open(&settings, &world).err().unwrap();
        assert!(missing.message.contains("cannot read"), "{missing}");
        put("write:\n  defautl: {}\n");
        let wrong = Limits::open(&settings, &world).err().unwrap();
        assert!(
            wrong.message.contains("limits.yaml: line 2") && wrong.message.contains("defautl"),
            "{wrong}"
        );
        put("write:\n  default:\n    head_series_limit: 100\n");
        let limits = Limits::open(&settings, &world).unwrap();
        let tenant = TenantId::new("t").unwrap();
        assert_eq!(limits.of_engine(&tenant, 3).series, 34);
        assert!(!limits.reload().unwrap());
        put("write:\n  default:\n    head_series_limit: x\n");
        assert!(limits.reload().unwrap_err().message.contains("line 3"));
        assert_eq!(limits.of_engine(&tenant, 1).series, 100);
        put("write:\n  tenants:\n    t: {request: {series_limit: 2, size_bytes_limit: 10}}\n");
        assert!(limits.reload().unwrap());
        assert_eq!(limits.of_engine(&tenant, 3).series, 5, "the flag counts where the file says nothing");
        let profile = limits.of(&tenant);
        assert!(limits.check(&tenant, &profile, 2, 1000).is_ok());
        assert!(matches!(limits.check(&tenant, &profile, 3, 3), Err(Denial::TooLarge(_))));
        assert!(limits.check_size(&tenant, &profile, 10).is_ok());
        assert!(matches!(limits.check_size(&tenant, &profile, 11), Err(Denial::TooLarge(_))));
    }

    #[test]
    fn agreed_limits_take_the_place_of_the_file() {
        let mut settings = Settings::default();
        settings.admission.limits_config = Some("write: {default: {head_series_limit: 7}}".to_owned());
        let limits = Limits::open(&settings, &World::real()).unwrap();
        let tenant = TenantId::new("t").unwrap();
        assert!(!limits.agree(0, ""));
        assert_eq!(limits.of_engine(&tenant, 1).series, 7);
        assert!(limits.agree(1, "write: {default: {head_series_limit: 9}}"));
        assert!(!limits.agree(1, "write: {default: {head_series_limit: 9}}"));
        assert!(!limits.agree(2, "write: {default: {head_series_limit: x}}"));
        assert_eq!(limits.of_engine(&tenant, 1).series, 9);
        assert!(check("write: {defautl: {}}").is_err() && check("write: {}").is_ok());
    }

    #[tokio::test]
    async fn writes_in_flight_have_places() {
        let mut settings = Settings::default();
        settings.admission.limits_config = Some("write: {global: {max_concurrency: 1}}".to_owned());
        let limits = Limits::open(&settings, &World::real()).unwrap();
        let wait = std::time::Duration::from_millis(20);
        let tenant = TenantId::new("a").unwrap();
        let held = limits.enter(&tenant, wait).await.unwrap();
        assert!(held.is_some());
        assert!(matches!(limits.enter(&tenant, wait).await, Err(Denial::Busy(_))));
        drop(held);
        assert!(limits.enter(&tenant, wait).await.unwrap().is_some());
    }
}
