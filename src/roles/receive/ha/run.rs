//! What goes on behind the door for HA pairs: noticing who is silent, agreeing on who takes over, and storing what was
//! held of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agreed::Command;
use agreed::command::Election;
use futures::StreamExt;
use futures::future::BoxFuture;
use model::Kind;
use runtime::{Shutdown, World};

use super::pair::Wish;
use super::tracker::{Ha, Name, Play};
use super::{Doors, file, gossip, rest};
use crate::Error;

/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });
/// Pairs of which requests are stored at once.
const PLAYS: usize = 8;
/// Pause before one that could not be stored is tried again.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// Stores what was held.
pub trait Plays: Send + Sync {
    /// False where a retry can help.
    fn store<'a>(&'a self, play: &'a Play) -> BoxFuture<'a, bool>;
}

/// Remembers who was listened to before the start. Blocks on the disk.
pub fn open(ha: &Ha) {
    let Some(path) = &ha.file else { return };
    match file::read(ha.world(), path) {
        Ok(elections) => ha.remember(elections),
        // Worth a moment's overlap, which is spliced, and no failed start.
        Err(error) => tracing::warn!(
            error, path = %path.display(),
            "elections of HA pairs cannot be read; the first replica of each that is heard is listened to"
        ),
    }
}

/// Does something with the file of what was held over a stop; what goes wrong is worth a gap in the worst case, and no failed
/// start or stop.
async fn on_disk<T: Default + Send + 'static>(
    ha: &Ha,
    does: impl FnOnce(&World, &Path) -> Result<T, String> + Send + 'static,
) -> T {
    let Some(path) = ha.rest.clone() else { return T::default() };
    let (world, threads) = (ha.world().clone(), ha.world().threads.clone());
    let done = threads.blocking(move || (does(&world, &path), path)).await;
    match done {
        Ok((Ok(done), _)) => done,
        Ok((Err(error), path)) => {
            tracing::error!(
                error, path = %path.display(),
                "what was held of HA pairs is lost over this stop; a replica that is silent now may leave a gap"
            );
            T::default()
        }
        Err(error) => {
            tracing::error!(%error, "what was held of HA pairs is lost over this stop");
            T::default()
        }
    }
}

/// Does it until `until`. The doors are closed by then: what is held waits on the disk for the next life.
pub async fn run(
    ha: Arc<Ha>,
    plays: Arc<dyn Plays>,
    doors: Arc<dyn Doors>,
    until: Shutdown,
) -> Result<(), Error> {
    if ha.enabled() {
        let others = doors.others().len();
        match (ha.control.get().is_some(), others) {
            (true, _) => tracing::info!("HA pairs: the receivers agree on who is listened to"),
            (false, 0) => tracing::info!(
                "HA pairs: this node alone decides who is listened to; all replicas of a pair must write to it"
            ),
            (false, _) => tracing::warn!(
                others,
                "HA pairs: without --control.voters receivers tell each other who is listened to and do not agree on it;                  replicas of a pair that reach receivers cut off from each other may both be stored for a while"
            ),
        }
    }
    let resting = on_disk(&ha, rest::take).await;
    ha.take_up(resting);
    let work =
        async { tokio::join!(elect(&ha), remember(&ha), play(&ha, &*plays), gossip::run(&ha, &*doors)) };
    tokio::select! {
        () = until.wait() => {}
        _ = work => {}
    }
    let resting = ha.put_to_rest();
    on_disk(&ha, move |world, path| rest::write(world, path, &resting)).await;
    Ok(())
}

async fn elect(ha: &Arc<Ha>) {
    let mut seen = ha.control.get().map(control::Handle::seen);
    loop {
        if let Some(seen) = &mut seen {
            let state = Arc::clone(&seen.borrow_and_update().state);
            ha.follow(&state.elections);
        }
        ha.tidy();
        for (name, wish) in ha.wishes() {
            tokio::spawn(ask(Arc::clone(ha), name, wish));
        }
        let changed = async {
            let told = match &mut seen {
                Some(seen) => seen.changed().await.is_ok(),
                None => false,
            };
            // Without anybody who could tell there is nothing to wait for.
            if !told {
                futures::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = ha.due.notified() => {}
            () = changed => {}
        }
    }
}

/// Has an election agreed on; where nobody can agree, holds it here alone.
async fn ask(ha: Arc<Ha>, name: Name, wish: Wish) {
    let Some(control) = ha.control.get() else { return };
    let elected = ha.elected(&wish, wish.expect + 1);
    let election = Election {
        tenant: name.0.as_str().to_owned(),
        group: name.1.clone(),
        replica: elected.replica.clone(),
        expect: wish.expect,
        splice_from: elected.splice_from,
        time: elected.since,
        // The door has counted its own; what others have is theirs.
        cap: u32::MAX,
    };
    match control.propose(Command::Elect(election)).await {
        Ok(_) => ha.asked(&name, elected, true),
        Err(error) if error.kind == Kind::Refused => {
            tracing::debug!(%error, cluster = name.1, "another election was first");
            ha.overruled(&name);
            ha.follow(&control.now().state.elections);
        }
        Err(error) => {
            metrics::counter!("tributary_ha_tracker_elections_failed_total").increment(1);
            tracing::warn!(
                %error, tenant = %name.0, cluster = name.1,
                "the receivers cannot agree on who is listened to; this one goes by what it hears itself"
            );
            let alone = ha.elected(&wish, wish.expect);
            ha.asked(&name, alone, false);
            // Whoever cannot agree now can hardly in a moment.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn remember(ha: &Arc<Ha>) {
    let Some(path) = ha.file.clone().filter(|_| ha.control.get().is_none()) else { return };
    let mut failed = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(elections) = ha.changed() else { continue };
        let (world, path) = (ha.world().clone(), path.clone());
        let threads = world.threads.clone();
        let written = threads.blocking(move || file::write(&world, &path, elections)).await;
        match written.map_err(|error| error.to_string()).and_then(|written| written) {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::warn!(error, "who is listened to of each HA pair is not remembered over a restart");
            }
            Err(_) => {}
        }
    }
}

async fn play(ha: &Arc<Ha>, plays: &dyn Plays) {
    loop {
        // Of one pair in their order, so that series are filled from their ends on.
        let mut by_pair: BTreeMap<Name, Vec<Arc<Play>>> = BTreeMap::new();
        for play in std::iter::from_fn(|| ha.next_play()) {
            by_pair.entry((play.tenant.clone(), play.cluster.clone())).or_default().push(play);
        }
        let of_pair = |(_, all): (Name, Vec<Arc<Play>>)| async move {
            for play in all {
                // It is acknowledged: only a node that stops gives it up.
                while !plays.store(&play).await {
                    tokio::time::sleep(AGAIN).await;
                }
                ha.played(&play);
            }
        };
        futures::stream::iter(by_pair).for_each_concurrent(PLAYS, of_pair).await;
        ha.play.notified().await;
    }
}
