//! Limits, and what is agreed as a file: kept, and brought back to voters that have lost it.

use std::path::PathBuf;
use std::time::Duration;

use agreed::{Command, State};
use anyhow::{Context as _, anyhow, bail};
use clap::ArgMatches;
use control::{Mark, Request, Response, Seen};

use super::edit::say;
use super::{Session, show};

pub async fn limits(session: &Session, matches: &ArgMatches) -> anyhow::Result<()> {
    let seen = session.seen().await?;
    let agreed = &seen.state.limits;
    let Some(path) = matches.get_one::<PathBuf>("set") else {
        return match agreed.version {
            0 => say("no limits are agreed: each node has those of its own file"),
            _ => show::print(&agreed.text),
        };
    };
    let text = session.read(path)?;
    receive::check_limits(&text).map_err(|why| anyhow!("{}: {why}", path.display()))?;
    let (by, time) = (session.by(matches, "limits"), session.world.clock.now_ms());
    session.handle.propose(Command::SetLimits { expect: agreed.version, text, by, time }).await?;
    say("agreed: they are in force on every receiver in a moment")
}

pub async fn backup(session: &Session, matches: &ArgMatches) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(&session.seen().await?)?;
    text.push('\n');
    match matches.get_one::<PathBuf>("file") {
        None => show::print(&text),
        Some(path) => {
            session
                .world
                .disk
                .write_atomic(path, text.as_bytes())
                .with_context(|| path.display().to_string())?;
            say(&format!("written to {}", path.display()))
        }
    }
}

pub async fn restore(session: &Session, matches: &ArgMatches) -> anyhow::Result<()> {
    let kept: Seen = match (matches.get_one::<PathBuf>("file"), matches.get_one::<String>("from")) {
        (Some(path), None) => serde_json::from_str(&session.read(path)?)
            .with_context(|| format!("{} is no backup", path.display()))?,
        (None, Some(address)) => {
            let asked = Request::Watch { after: Mark::default() };
            match session.transport.call(address, asked).await? {
                Response::Watch(Some(seen)) => seen,
                _ => bail!("{address} remembers nothing"),
            }
        }
        _ => bail!("say what to restore: a backup, or --from with a receiver that remembers"),
    };
    let beyond = newest(session, &kept.state).await;
    let (by, time) = (session.by(matches, "restore"), session.world.clock.now_ms());
    let cluster = kept.state.cluster.clone();
    let state = Box::new(State::clone(&kept.state));
    session.handle.propose(Command::Restore { state, beyond, by, time }).await?;
    say(&format!(
        "cluster {cluster} is brought back, in an epoch after {}; changes that were agreed on after it was kept are gone, \
         and have to be made again",
        beyond.max(kept.state.current().map_or(0, |e| e.number))
    ))
}

/// The newest epoch that any node knows.
async fn newest(session: &Session, state: &State) -> u64 {
    let mut newest = 0;
    for address in state.nodes.keys() {
        let asked =
            tokio::time::timeout(Duration::from_secs(3), session.transport.call(address, Request::About));
        match asked.await {
            Ok(Ok(Response::About(about))) => newest = newest.max(about.epoch),
            _ => eprintln!(
                "{address} does not say which epoch it knows; it is taken at its word when it comes back"
            ),
        }
    }
    newest
}
