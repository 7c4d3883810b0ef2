//! The data of a receiver: opened before anything is acknowledged, closed when nothing is under way any more.

use std::sync::Arc;

use catalog::Catalog;
use model::Kind;
use tsdb::Tsdb;

use crate::epochs::gate::Promise;
use crate::epochs::member::Kept;

use crate::settings::DurabilityName;
use crate::{Error, Receive, incarnation};

impl Receive {
    /// A router that is told where keeps hints, with a catalog of its own.
    pub(crate) async fn open_router(&self) -> Result<(), Error> {
        let Some(dir) = self.settings.hints(false).dir else {
            return Ok(());
        };
        let (world, hints) = (self.world.clone(), Arc::clone(&self.hints));
        let (machine, threads) = (self.machine, world.threads.clone());
        let opening = threads.blocking(move || {
            let catalog = machine.then(|| Catalog::open(&world, &dir.join("catalog"))).transpose()?;
            hints.open(catalog)
        });
        opening
            .await
            .map_err(|error| Error::with_source(Kind::Internal, format!("opening hints: {error}"), error))?
    }

    /// Replays the log and opens the catalog beside it; what is promised and known of this log is in force before the first write.
    pub(crate) async fn open_engine(&self) -> Result<Arc<Tsdb>, Error> {
        let (world, settings) = (self.world.clone(), self.engine_settings());
        let readiness = self.readiness.clone();
        let (dir, hints) = (settings.dir.clone(), Arc::clone(&self.hints));
        let (machine, threads) = (self.machine, world.threads.clone());
        let open = self.plane.as_ref().and_then(|plane| plane.catalog.clone());
        let opening = threads.blocking(move || {
            let mut told = 0;
            // Once the folder is known to be ours, and not only after a long replay: the doors are open already.
            let begin = || {
                let catalog = match open.clone() {
                    Some(catalog) => Some(catalog),
                    None => machine.then(|| Catalog::open(&world, &dir.join("catalog"))).transpose()?,
                };
                if let Err(error) = hints.open(catalog.clone()) {
                    hints.give_up();
                    tracing::error!(%error, dir = %dir.display(), "no hints are kept: what a replica misses it will not have");
                }
                Ok::<_, Error>(catalog)
            };
            let mut catalog = None;
            // With a control plane it was looked at before the node told anybody its name.
            let lost = open.is_none() && !incarnation::has_log(&world, &dir)?;
            let engine = Tsdb::open_with(world.clone(), settings, &mut |progress| {
                catalog.get_or_insert_with(begin);
                let percent = progress.done.saturating_mul(100) / progress.total.max(1);
                readiness.set_not_ready(format!("replaying the log, {percent} % done"));
                if percent >= told + 10 {
                    told = percent;
                    tracing::info!(percent, "replaying the log");
                }
            })?;
            if lost {
                incarnation::begin_anew(&world, &dir)?;
            }
            Ok::<_, Error>((engine, catalog.unwrap_or_else(begin)?, incarnation::read(&world, &dir)?))
        });
        let (engine, catalog, incarnation) = opening.await.map_err(|error| {
            Error::with_source(Kind::Internal, format!("opening the engine: {error}"), error)
        })??;
        self.keep_promise(&incarnation).await?;
        self.writer.local().open(Arc::clone(&engine))?;
        if let Some(catalog) = catalog {
            self.ship.open(catalog.clone());
            self.metadata.open(catalog);
        }
        self.store_door.set_incarnation(incarnation);
        Ok(engine)
    }

    /// What was promised in an earlier life of this log holds from the first write on.
    async fn keep_promise(&self, incarnation: &str) -> Result<(), Error> {
        if self.governed.handle().is_none() {
            return Ok(());
        }
        let (world, dir, incarnation) =
            (self.world.clone(), self.settings.data_dir.clone(), incarnation.to_owned());
        let threads = self.world.threads.clone();
        let reading = threads.blocking(move || Kept::read(&world, &dir, &incarnation)).await;
        let kept =
            reading.map_err(|error| Error::with_source(Kind::Internal, "reading the promise", error))??;
        if kept.min_epoch > 0 {
            // Whether it is a member still is looked at in a moment.
            let promise = Promise::From { epoch: kept.min_epoch, told: Vec::new(), member: true };
            self.writer.local().gate().raise(promise);
        }
        self.governed.keep(kept);
        Ok(())
    }

    fn engine_settings(&self) -> tsdb::Settings {
        let storage = &self.settings.storage;
        // Weak: the writer has the engine, and would be kept by it.
        let writer = Arc::downgrade(&self.writer);
        tsdb::Settings {
            dir: self.settings.data_dir.clone(),
            out_of_order_window: storage.out_of_order_window.ms(),
            future_tolerance: storage.future_tolerance.ms(),
            max_sample_age: storage.max_sample_age.ms(),
            block_range: storage.block_duration.ms(),
            retention: if storage.retention.is_zero() { i64::MAX } else { storage.retention.ms() },
            external_labels: self.labels.clone(),
            tenant_label: self.settings.tenancy.label.clone(),
            tenant_labels: Some(tsdb::TenantLabels(Arc::new(move |tenant| {
                writer.upgrade().map(|writer| writer.ring_labels(tenant.as_str())).unwrap_or_default()
            }))),
            durability: match storage.durability {
                DurabilityName::Durable => tsdb::Durability::Durable,
                DurabilityName::Fast => tsdb::Durability::Fast,
            },
            limits: Some(self.limits_of()),
            active_window: storage.active_window.ms(),
            cut_jitter: storage.cut_jitter.ms(),
            segment_bytes: storage.segment_bytes.bytes(),
            max_exemplars: usize::try_from(storage.max_exemplars).unwrap_or(usize::MAX),
            max_series_exemplars: usize::try_from(storage.max_series_exemplars).unwrap_or(usize::MAX),
            created_timestamp_zero_ingestion: storage.start_as_zero,
            ..tsdb::Settings::default()
        }
    }

    /// The limits of a tenant in the engine here: its share of what the ring may have.
    fn limits_of(&self) -> storage::LimitsOf {
        let (limits, writer) = (Arc::clone(&self.limits), Arc::downgrade(&self.writer));
        storage::LimitsOf(Arc::new(move |tenant| {
            let current = writer.upgrade().map(|writer| writer.ring().current());
            let ring = current.and_then(|current| current.rings.resolve(tenant.as_str()));
            let nodes = ring.map_or(1, |ring| ring.len());
            limits.of_engine(tenant, nodes)
        }))
    }

    /// Ends what goes on behind answered writes, then hints, catalog and log; nothing is lost that was acknowledged.
    pub(crate) async fn close(&self, engine: Option<Arc<Tsdb>>) -> Result<(), Error> {
        if let Some(plane) = &self.plane {
            // It writes into the catalog.
            plane.handle.stop().await;
        }
        let current = self.writer.ring().current();
        let grace = self.settings.replication.forward_timeout.as_duration();
        self.writer.finish(grace).await;
        futures::future::join_all(current.peers().map(|peer| peer.close(grace))).await;
        let hints = Arc::clone(&self.hints);
        let kept = self.world.threads.blocking(move || hints.close()).await;
        kept.map_err(|error| Error::with_source(Kind::Internal, format!("closing hints: {error}"), error))?;
        let Some(engine) = engine else { return Ok(()) };
        let catalog = self.metadata.catalog().cloned();
        let closing = self.world.threads.blocking(move || {
            if let Some(Err(error)) = catalog.map(|catalog| catalog.close()) {
                // What was confirmed is safe already.
                tracing::warn!(%error, "the newest metadata may be lost");
            }
            engine.close()
        });
        closing.await.map_err(|error| {
            Error::with_source(Kind::Internal, format!("closing the engine: {error}"), error)
        })?
    }
}
