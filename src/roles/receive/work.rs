//! All that goes on behind the doors of a receiver, from its start to its stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Kind;
use runtime::{Shutdown, TaskGroup, World};
use tsdb::Tsdb;

use crate::epochs::member::Member;
use crate::write::Writer;
use crate::{Error, Receive, epochs, ha, hints, ring_file, rounds, watch};

impl Receive {
    /// Everything that goes on behind the doors; ends with `stop`, or with the first failure.
    pub(crate) async fn work(&self, engine: Option<Arc<Tsdb>>, stop: Shutdown) -> Result<(), Error> {
        let inner = Shutdown::new();
        let tasks = TaskGroup::new(inner.clone());
        self.follow_agreed(&tasks, &inner);
        self.watch_files(&tasks, &inner);
        self.tend_peers(&tasks, &inner);
        if let Some(handle) = self.governed.handle().cloned() {
            let (writer, world, until) = (Arc::clone(&self.writer), self.world.clone(), inner.clone());
            let readiness = self.readiness.clone();
            tasks.spawn("ring epochs", epochs::follow::run(handle, writer, readiness, world, until));
        }
        if let Some(engine) = engine {
            self.tend_engine(engine, &tasks, &inner);
        }
        tokio::select! {
            biased;
            () = stop.wait() => inner.trigger(),
            () = inner.wait() => {}
        }
        tasks
            .join(Duration::from_secs(10))
            .await
            .map_err(|error| Error::with_source(Kind::Internal, error.to_string(), error))
    }

    /// What the control plane brings besides the ring: limits, proposals of the ring file, and what is told of both.
    fn follow_agreed(&self, tasks: &TaskGroup, until: &Shutdown) {
        let Some(plane) = &self.plane else { return };
        let (handle, stop) = (plane.handle.clone(), until.clone());
        tasks.spawn("agreed ring", ring_file::follow(handle, stop));
        let (handle, stop) = (plane.handle.clone(), until.clone());
        let (limits, writer, world) =
            (Arc::clone(&self.limits), Arc::clone(&self.writer), self.world.clone());
        tasks.spawn("agreed limits", async move {
            let mut seen = handle.seen();
            loop {
                let state = Arc::clone(&seen.borrow_and_update().state);
                if limits.agree(state.limits.version, &state.limits.text) {
                    apply_limits(&writer, &world);
                }
                tokio::select! {
                    () = stop.wait() => return Ok::<(), Error>(()),
                    changed = seen.changed() => if changed.is_err() { return Ok(()) },
                }
            }
        });
        if let Some(path) = self.settings.replication.hashrings_file.clone() {
            let (handle, stop, world) = (plane.handle.clone(), until.clone(), self.world.clone());
            let every = self.settings.replication.refresh.as_duration();
            let who =
                self.settings.replication.local_endpoint.clone().unwrap_or_else(|| "a router".to_owned());
            let first = plane.ring.clone();
            tasks.spawn("ring file proposals", async move {
                ring_file::run(&path, first, every, handle, world, who, stop).await
            });
        }
    }

    /// Takes the files of ring and limits over when they change.
    fn watch_files(&self, tasks: &TaskGroup, until: &Shutdown) {
        let replication = &self.settings.replication;
        let (writer, world) = (Arc::clone(&self.writer), self.world.clone());
        let reload = move || {
            // Success and failure are told by the holder itself.
            if writer.ring().reload().is_ok_and(|changed| changed) {
                apply_limits(&writer, &world);
            }
        };
        let ring = watch::Watched {
            what: "ring file",
            path: replication.hashrings_file.clone(),
            every: replication.refresh.as_duration(),
            reload: Arc::new(reload),
        };
        tasks.spawn("ring", watch::run(ring, until.clone()));
        let (limits, writer, world) =
            (Arc::clone(&self.limits), Arc::clone(&self.writer), self.world.clone());
        let reload = move || {
            if limits.reload().is_ok_and(|changed| changed) {
                apply_limits(&writer, &world);
            }
        };
        let limits = watch::Watched {
            what: "limits file",
            path: self.limits.path().map(Path::to_owned),
            every: self.settings.admission.limits_refresh.as_duration(),
            reload: Arc::new(reload),
        };
        tasks.spawn("limits", watch::run(limits, until.clone()));
    }

    /// What every door needs, a router's too: who the peers are, what they miss, which of a pair is heard, and figures.
    fn tend_peers(&self, tasks: &TaskGroup, stop: &Shutdown) {
        if self.machine {
            let (peers, writer, until) = (Arc::clone(&self.peers), Arc::clone(&self.writer), stop.clone());
            tasks.spawn("peers", async move { peers.run(writer, until).await });
            let (memory, writer, until) =
                (Arc::clone(&self.write_door.memory), Arc::clone(&self.writer), stop.clone());
            tasks.spawn("memory", async move { memory.run(writer, until).await });
        }
        let (hints, writer) = (Arc::clone(&self.hints), Arc::clone(&self.writer));
        tasks.spawn("hints", hints::run(hints, writer, self.world.clone(), stop.clone()));
        let (ha, door) = (Arc::clone(&self.ha), Arc::clone(&self.write_door));
        let peers = ha::RingDoors(Arc::clone(&self.writer));
        tasks.spawn("HA pairs", ha::run(ha, door, Arc::new(peers), stop.clone()));
        let (door, of_peers) = (Arc::clone(&self.write_door), Arc::clone(&self.peer_door.identities));
        tasks.spawn("gauges", rounds::gauges(door, of_peers, stop.clone()));
    }

    /// What a node with data does with it. A log that has failed ends the process.
    fn tend_engine(&self, engine: Arc<Tsdb>, tasks: &TaskGroup, stop: &Shutdown) {
        if let Some(member) = self.member(&engine) {
            tasks.spawn("ring member", member.run(stop.clone()));
        }
        let (ship, cutter, until) = (Arc::clone(&self.ship), Arc::clone(&engine), stop.clone());
        tasks.spawn("cut and ship", async move {
            ship.run(cutter, until).await;
            Ok::<(), Error>(())
        });
        if let Some(catalog) = self.metadata.catalog().cloned() {
            tasks.spawn("catalog", rounds::measure(catalog, stop.clone()));
        }
        let counter = Arc::clone(&engine);
        tasks.spawn("active series", rounds::count_active(counter, self.world.clone(), stop.clone()));
        let until = stop.clone();
        tasks.spawn("log", async move {
            tokio::select! {
                biased;
                () = until.wait() => Ok(()),
                why = engine.poisoned() => Err(Error::new(
                    Kind::Internal,
                    format!("the log has failed and nothing can be acknowledged any more: {why}; restart"),
                )),
            }
        });
    }

    /// This node's part in the agreed ring, where it has a place of its own.
    fn member(&self, engine: &Arc<Tsdb>) -> Option<Member> {
        let handle = self.governed.handle()?.clone();
        let address = self.settings.replication.local_endpoint.clone()?;
        Some(Member {
            handle,
            transport: self.plane.as_ref().map(|plane| Arc::clone(&plane.transport)),
            governed: Arc::clone(&self.governed),
            writer: Arc::clone(&self.writer),
            engine: Arc::clone(engine),
            drain: Arc::clone(&self.drain),
            hints: Arc::clone(&self.hints),
            world: self.world.clone(),
            dir: self.settings.data_dir.clone(),
            address,
            levels: control::levels(u32::try_from(self.settings.max_feature_level).unwrap_or(u32::MAX)),
            tolerance: self.settings.storage.future_tolerance.ms(),
            kept: self.governed.kept(),
            told: 0,
            under_way: Vec::new(),
            newest: 0,
            cut: None,
            brought: 0,
        })
    }
}

/// Tells the engine, if it is open, that limits have changed.
pub fn apply_limits(writer: &Writer, world: &World) {
    if let Some(engine) = writer.local().engine() {
        engine.reload_limits(world.clock.now_ms());
    }
}
