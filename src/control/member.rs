//! A node that has data, as a member of the cluster: it registers, says when it can take writes, and never mixes data of
//! two clusters.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Registration, State};
use model::Kind;
use runtime::World;

use crate::{Error, Handle};

/// Names the cluster in the data folder, so that it is known where the catalog is lost.
const FILE: &str = "cluster";
/// How often a proposal that could not be made is made again, and readiness looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// Feature levels that this version speaks, from and to. A level more comes with whatever an older version would
/// misunderstand: a command of the log, a frame, a file.
pub const LEVELS: (u32, u32) = (1, 1);

/// The cluster whose data a folder has; empty where it has never joined one.
pub fn cluster_of(world: &World, folder: &Path) -> Result<String, Error> {
    let path = folder.join(FILE);
    if !world.disk.exists(&path) {
        return Ok(String::new());
    }
    match world.disk.read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) => Err(Error {
            kind: Kind::Unavailable,
            message: format!("{}: {error}", path.display()),
            source: Some(error.into()),
        }),
    }
}

/// Keeps this node registered.
pub struct Member {
    handle: Handle,
    world: World,
    folder: PathBuf,
    who: Registration,
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// What a member has to tell the others, as things stand.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Register,
    Ready {
        epoch: u64,
    },
    Nothing,
    /// Somebody else runs at this address.
    Replaced,
}

impl Member {
    /// `who.cluster` is what [`cluster_of`] says of `folder`; `ready` says whether writes can be taken.
    pub fn new(
        handle: Handle,
        world: &World,
        folder: &Path,
        who: Registration,
        ready: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Member {
        Member { handle, world: world.clone(), folder: folder.to_owned(), who, ready }
    }

    /// Registers and tells what is to be told until it is dropped. An error is a node that must not run here: its data
    /// are another cluster's, its version is too old, or another one has taken its address.
    pub async fn run(&self) -> Result<(), Error> {
        let mut seen = self.handle.seen();
        let (mut registered, mut confirmed) = (false, false);
        let mut told = String::new();
        loop {
            let state = Arc::clone(&seen.borrow_and_update().state);
            let own = |node: &agreed::Node| node.incarnation == self.who.incarnation;
            confirmed |= registered && state.nodes.get(&self.who.address).is_some_and(own);
            let step = step(&state, &self.who, (registered, confirmed), (self.ready)());
            let command = match step {
                Step::Nothing => None,
                Step::Replaced => {
                    let message = format!(
                        "another node has started at {} and taken this one's place in the cluster; stop one of them",
                        self.who.address
                    );
                    return Err(Error::new(Kind::Refused, message));
                }
                Step::Register => {
                    Some(Command::Register { node: self.who.clone(), time: self.world.clock.now_ms() })
                }
                Step::Ready { epoch } => Some(Command::Ready { address: self.who.address.clone(), epoch }),
            };
            if let Some(command) = command {
                match self.handle.propose(command).await {
                    Ok(outcome) if step == Step::Register => {
                        registered = true;
                        told.clear();
                        self.remember(&state.cluster)?;
                        tracing::info!(
                            address = self.who.address,
                            cluster = state.cluster,
                            ?outcome,
                            "registered"
                        );
                    }
                    Ok(_) => {
                        tracing::info!(address = self.who.address, "ready for the ring that is proposed")
                    }
                    Err(error) if step == Step::Register && error.kind != Kind::Unavailable => {
                        return Err(error);
                    }
                    Err(error) if told != error.message => {
                        tracing::warn!(%error, "not registered yet");
                        told = error.message;
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    fn remember(&self, cluster: &str) -> Result<(), Error> {
        if cluster_of(&self.world, &self.folder)? == cluster {
            return Ok(());
        }
        let path = self.folder.join(FILE);
        let written = self.world.disk.write_atomic(&path, cluster.as_bytes());
        written.map_err(|error| Error {
            kind: Kind::Unavailable,
            message: format!("{}: {error}", path.display()),
            source: Some(error.into()),
        })
    }
}

/// `registered`: whether it was proposed with success, and whether the state has shown it since.
fn step(state: &State, who: &Registration, registered: (bool, bool), ready: bool) -> Step {
    let Some(current) = state.current() else { return Step::Nothing };
    let member = current.view.has(&who.address);
    let pending = state.pending.as_ref().filter(|p| p.ring.has(&who.address));
    match state.nodes.get(&who.address) {
        _ if !registered.0 => Step::Register,
        // What was proposed is not seen yet, or nobody needs this node any more.
        None if member || pending.is_some() => Step::Register,
        None => Step::Nothing,
        Some(node) if node.incarnation != who.incarnation => match registered.1 {
            true => Step::Replaced,
            false => Step::Nothing,
        },
        Some(_) => match pending {
            Some(p) if ready && !member && !p.ready.contains(&who.address) => Step::Ready { epoch: p.epoch },
            _ => Step::Nothing,
        },
    }
}
