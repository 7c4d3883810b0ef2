//! The watched ring file as the everyday way to change the agreed ring: an edit that was seen to happen is proposed.
//!
//! The agreed ring rules, the file proposes: on start a file that differs is told of and not proposed, for nobody knows
//! which of the two is newer. An edit is proposed in the place of what the file said before it, by every node that sees
//! it; the first one counts. What is refused stays as it is, with the reason, and is proposed again from time to time
//! for as long as the file says so, since what stood in the way may pass: a receiver that was away comes back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agreed::{Outcome, State};
use control::{Change, Handle, Progress};
use hashring::Document;
use model::Kind;
use runtime::{Shutdown, World};
use tokio::sync::Notify;

use crate::Error;
use crate::ring;
use crate::watch::{self, Watched};

/// How soon a proposal that could not be judged is made again, and how soon one that was refused.
const AGAIN: Duration = Duration::from_secs(2);
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// A file that was edited.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edit {
    /// What it said when it last said what is agreed, or when it was first seen.
    before: String,
    text: String,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct File {
    /// As it was last seen.
    text: Option<String>,
    edit: Option<Edit>,
}

/// How the file stands to what is agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It says the same, or what is on its way.
    Agrees,
    /// It was edited, and is to be proposed.
    Proposes,
    /// It differed when it was first seen.
    Differs,
}

/// Whether two files mean the same ring.
fn same(one: &str, other: &str) -> bool {
    one == other
        || matches!((Document::parse(one), Document::parse(other)), (Ok(one), Ok(other)) if one.rings == other.rings)
}

impl File {
    /// Takes what the file says now.
    fn look(&mut self, text: String, state: &State) -> Stand {
        let target = state.pending.as_ref().map(|p| &p.ring);
        let target = target.or(state.current().map(|current| current.view.target()));
        let Some(target) = target else {
            // What was agreed is not known yet: the first look is still to come.
            return Stand::Agrees;
        };
        let agrees = same(&text, &target.plan().text);
        let before = self.text.replace(text.clone());
        if agrees {
            self.edit = None;
            return Stand::Agrees;
        }
        match (before, &mut self.edit) {
            (Some(before), None) if before != text => {
                self.edit = Some(Edit { before, text });
                Stand::Proposes
            }
            // An edit of the edit: what it takes the place of is what was agreed.
            (_, Some(edit)) => {
                edit.text = text;
                Stand::Proposes
            }
            (_, None) => Stand::Differs,
        }
    }
}

/// Watches and proposes until the shutdown.
///
/// `first` is the file as it was read when the process started: an edit while the log was replayed was seen to happen too.
pub async fn run(
    path: &Path,
    first: Option<String>,
    every: Duration,
    handle: Handle,
    world: World,
    who: String,
    until: Shutdown,
) -> Result<(), Error> {
    let nudge = Arc::new(Notify::new());
    let nudged = Arc::clone(&nudge);
    let watched = Watched {
        what: "ring file",
        path: Some(path.to_owned()),
        every,
        reload: Arc::new(move || nudged.notify_one()),
    };
    let watching = watch::run(watched, until.clone());
    let proposing = async {
        let (mut file, mut told) = (File { text: first, edit: None }, String::new());
        // What was proposed last, and when it may be again.
        let (mut proposed, mut again) = (None, world.clock.monotonic());
        let mut seen = handle.seen();
        loop {
            let state = Arc::clone(&seen.borrow_and_update().state);
            let looked = look(&mut file, path, &world, &state).await;
            judged(&looked, &world);
            match looked {
                Err(error) => {
                    tell(&mut told, &error.message, || tracing::error!(%error, "the agreed ring stays"));
                }
                Ok(Stand::Agrees) => {
                    differs(false);
                    told.clear();
                }
                Ok(Stand::Differs) => {
                    differs(true);
                    let text = "the ring file differs from the agreed ring, which rules; put what `tributary ring show --file` \
                                prints into the file, and edit that";
                    tell(&mut told, text, || tracing::warn!(path = %path.display(), "{text}"));
                }
                Ok(Stand::Proposes) => {
                    differs(true);
                    if proposed != file.edit || world.clock.monotonic() >= again {
                        let pause = propose(&file, &handle, &world, &who, &state, &mut told).await;
                        proposed.clone_from(&file.edit);
                        again = world.clock.monotonic() + pause;
                    }
                }
            }
            tokio::select! {
                () = until.wait() => return Ok(()),
                () = nudge.notified() => {}
                changed = seen.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(again.saturating_duration_since(world.clock.monotonic())), if file.edit.is_some() => {}
            }
        }
    };
    let (watched, proposed) = tokio::join!(watching, proposing);
    watched.and(proposed)
}

async fn look(file: &mut File, path: &Path, world: &World, state: &State) -> Result<Stand, Error> {
    let (disk, from) = (Arc::clone(&world.disk), path.to_owned());
    let read = tokio::task::spawn_blocking(move || disk.read(&from)).await;
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Kind::Invalid, format!("ring file {} cannot be read: {error}", path.display()))
    };
    let bytes = read.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    let text = String::from_utf8(bytes).map_err(|e| failed(&e))?;
    // One that is being written is not an edit.
    let document = Document::parse(&text)
        .map_err(|e| Error::new(Kind::Invalid, format!("ring file {}: {e}", path.display())))?;
    if file.text.as_ref() != Some(&text) {
        document.warnings.iter().for_each(|warning| tracing::warn!(path = %path.display(), "{warning}"));
    }
    Ok(file.look(text, state))
}

/// Proposes the edit; how long to wait before it is proposed again.
async fn propose(
    file: &File,
    handle: &Handle,
    world: &World,
    who: &str,
    state: &State,
    told: &mut String,
) -> Duration {
    let Some(edit) = &file.edit else { return AGAIN };
    let agreed =
        state.current().map(|current| current.view.target().plan().text.as_str()).unwrap_or_default();
    let on_its_way = state.pending.as_ref().is_some_and(|p| same(&edit.before, &p.ring.plan().text));
    // Another spelling of the agreed ring is the agreed ring, and what is only on its way stands before it.
    let expect =
        if on_its_way || same(&edit.before, agreed) { agreed.to_owned() } else { edit.before.clone() };
    let change = Change {
        expect,
        text: edit.text.clone(),
        copies: None,
        retire: Default::default(),
        by: format!("the ring file of {who}"),
        time: world.clock.now_ms(),
    };
    let count = |outcome: &'static str| {
        metrics::counter!("tributary_ring_file_proposals_total", "outcome" => outcome).increment(1);
    };
    match handle.change(change).await {
        Ok(Outcome::Already) => count("already"),
        Ok(outcome) => {
            count("taken");
            tracing::info!(?outcome, "the ring file was edited, and the edit is proposed");
        }
        Err(error) if error.kind == Kind::Unavailable => {
            count("later");
            tell(told, &error.message, || tracing::warn!(%error, "the edit of the ring file waits"));
        }
        Err(error) => {
            count("refused");
            tell(told, &error.message, || {
                tracing::error!(%error, "the edit of the ring file is refused, the agreed ring stays");
            });
            return REFUSED_AGAIN;
        }
    }
    AGAIN
}

/// As for a ring that is a file: whether the last look found one that can be used.
fn judged(looked: &Result<Stand, Error>, world: &World) {
    metrics::counter!("thanos_receive_hashrings_file_refreshes_total").increment(1);
    match looked {
        Ok(_) => ring::succeeded(world),
        Err(_) => {
            metrics::counter!("thanos_receive_hashrings_file_errors_total").increment(1);
            metrics::gauge!("thanos_receive_config_last_reload_successful").set(0);
        }
    }
}

fn differs(yes: bool) {
    metrics::gauge!("tributary_ring_file_differs").set(f64::from(u8::from(yes)));
}

fn tell(told: &mut String, text: &str, say: impl FnOnce()) {
    if told != text {
        say();
        *told = text.to_owned();
    }
}

/// Says in the log and in metrics how far a change of the ring is, until the shutdown.
pub async fn follow(handle: Handle, until: Shutdown) -> Result<(), Error> {
    let mut seen = handle.seen();
    let mut told = String::new();
    loop {
        let state = Arc::clone(&seen.borrow_and_update().state);
        let progress = Progress::of(&state);
        let sentence = progress.to_string();
        if progress.epoch > 0 {
            tell(&mut told, &sentence, || tracing::info!(ring = sentence, "the agreed ring"));
        }
        control::measure(&handle);
        tokio::select! {
            () = until.wait() => return Ok(()),
            changed = seen.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use agreed::{Command, RingPlan};

    use super::*;

    fn text(members: &[&str]) -> String {
        let quoted: Vec<String> = members.iter().map(|m| format!("\"{m}:1\"")).collect();
        format!("[{{\"endpoints\": [{}]}}]", quoted.join(", "))
    }

    fn state(members: &[&str]) -> State {
        let mut state = State::default();
        let plan = RingPlan { text: text(members), replication: 2, quorum: 2, hashmod: false };
        state.apply(Command::Form { cluster: "c".to_owned(), plan, by: String::new(), time: 0 }).unwrap();
        state
    }

    #[test]
    fn only_an_edit_that_was_seen_is_proposed() {
        let agreed = state(&["a", "b", "c"]);
        let mut file = File::default();
        // Nothing is decided before it is known what is agreed.
        assert_eq!(file.look(text(&["x"]), &State::default()), Stand::Agrees);
        assert_eq!(file.look(text(&["a", "b"]), &agreed), Stand::Differs);
        assert_eq!(file.look(text(&["a", "b"]), &agreed), Stand::Differs);
        // In another spelling it is the same.
        let spelled = text(&["a", "b", "c"]).replace(", ", ",\n ");
        assert_eq!(file.look(spelled.clone(), &agreed), Stand::Agrees);
        assert_eq!(file.look(text(&["a", "b"]), &agreed), Stand::Proposes);
        assert_eq!(file.look(text(&["a", "b", "d"]), &agreed), Stand::Proposes);
        let edit = Edit { before: spelled, text: text(&["a", "b", "d"]) };
        assert_eq!(file.edit, Some(edit));
        // Agreed by whoever was first.
        assert_eq!(file.look(text(&["a", "b", "d"]), &state(&["a", "b", "d"])), Stand::Agrees);
        assert_eq!(file.edit, None);
    }

    #[tokio::test]
    async fn an_edit_changes_the_agreed_ring_and_a_bad_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (world, path) = (World::real(), dir.path().join("ring.json"));
        let put = |members: &[&str]| world.disk.write_atomic(&path, text(members).as_bytes()).unwrap();
        put(&["a", "b"]);
        let handle = Handle::alone(state(&["a", "b"]));
        let until = Shutdown::new();
        let every = Duration::from_secs(1);
        let (at, runs, stop) = (path.clone(), handle.clone(), until.clone());
        let who = "a:1".to_owned();
        let in_world = world.clone();
        let watching = tokio::spawn(async move { run(&at, None, every, runs, in_world, who, stop).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Fewer nodes than copies: refused, and the ring stays.
        put(&["a"]);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(handle.now().state.pending.is_none());
        put(&["a", "b", "c"]);
        let mut seen = handle.seen();
        let pending = seen.wait_for(|seen| seen.state.pending.is_some());
        let seen = tokio::time::timeout(Duration::from_secs(30), pending).await.unwrap().unwrap().clone();
        assert_eq!(seen.state.warming(), ["c:1"]);
        assert_eq!(seen.state.pending.as_ref().unwrap().by, "the ring file of a:1");
        until.trigger();
        watching.await.unwrap().unwrap();
    }
}
