//! Limits, and what is agreed as a file: kept, and brought back to voters that have lost it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use agreed::{Command, State};
use anyhow::{Context as _, anyhow, bail};
use clap::ArgMatches;
use control::{About, Mark, Request, Response, Seen};

use super::edit::say;
use super::{Session, show};

/// How often a node is asked what it has heard of.
const TRIES: usize = 5;
const BETWEEN: Duration = Duration::from_secs(1);

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
    let heard = heard(session, &kept.state).await;
    let known = kept.state.current().map_or(0, |e| e.number);
    let beyond = heard.newest.max(known);
    if let Some((address, remembers)) = heard.later(known) {
        let way = match remembers {
            true => format!("bring back what it remembers (`tributary ring restore --from {address}`)"),
            false => "bring back a later copy if there is one".to_owned(),
        };
        let lost = format!(
            "{address} has heard of epoch {beyond}, and this copy ends with epoch {known}: what was acknowledged since lies \
             on receivers of rings that it does not know, and queries would miss it without a word until those are added \
             again"
        );
        if !matches.get_flag("accept") {
            bail!("{lost}; {way}, or give --accept-loss to go on from this one all the same");
        }
        say(&lost)?;
    }
    let (by, time) = (session.by(matches, "restore"), session.world.clock.now_ms());
    let cluster = kept.state.cluster.clone();
    let state = Box::new(State::clone(&kept.state));
    session.handle.propose(Command::Restore { state, beyond, by, time }).await?;
    say(&format!(
        "cluster {cluster} is brought back, in an epoch after {beyond}; changes that were agreed on after it was kept are \
         gone, and have to be made again"
    ))
}

/// What the nodes of a cluster have heard of.
#[derive(Default)]
struct Heard {
    newest: u64,
    /// Who has heard of it, and whether it remembers what that was.
    by: Option<(String, bool)>,
}

impl Heard {
    /// Who has heard of something after epoch `known`.
    fn later(&self, known: u64) -> Option<(&str, bool)> {
        self.by
            .as_ref()
            .filter(|_| self.newest > known)
            .map(|(address, remembers)| (address.as_str(), *remembers))
    }

    fn take(&mut self, address: &str, about: &About) {
        let (epoch, remembers) = match about.epoch >= about.promised {
            true => (about.epoch, true),
            false => (about.promised, false),
        };
        if (epoch, remembers) > (self.newest, self.by.as_ref().is_some_and(|by| by.1)) {
            *self = Heard { newest: epoch, by: Some((address.to_owned(), remembers)) };
        }
    }
}

/// The newest epoch that any node has heard of.
async fn heard(session: &Session, state: &State) -> Heard {
    let mut heard = Heard::default();
    let members = state.epochs.iter().flat_map(|epoch| epoch.view.members());
    let addresses: BTreeSet<&str> = state.nodes.keys().map(String::as_str).chain(members).collect();
    let ask = |address: &str| {
        let (address, transport) = (address.to_owned(), session.transport.clone());
        tokio::spawn(async move {
            // It may be starting, as everybody is who has lost what was agreed.
            for n in 0..TRIES {
                if n > 0 {
                    tokio::time::sleep(BETWEEN).await;
                }
                if let Ok(Response::About(about)) = transport.call(&address, Request::About).await {
                    return (address, Some(about));
                }
            }
            (address, None)
        })
    };
    let asked: Vec<_> = addresses.into_iter().map(ask).collect();
    for one in asked {
        match one.await {
            Ok((address, Some(about))) => heard.take(&address, &about),
            Ok((address, None)) => eprintln!(
                "{address} does not say which epoch it knows; it is taken at its word when it comes back"
            ),
            Err(error) => eprintln!("asking a node broke off: {error}"),
        }
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_measured_by_the_last_that_anybody_heard_of() {
        let mut heard = Heard::default();
        assert_eq!(heard.later(0), None);
        let about = |epoch, promised| About { epoch, promised, ..About::default() };
        heard.take("a:1", &about(4, 4));
        heard.take("b:1", &about(0, 7));
        assert_eq!((heard.newest, heard.later(7)), (7, None));
        assert_eq!(heard.later(6), Some(("b:1", false)));
        // Who remembers it is of more help.
        heard.take("c:1", &about(7, 3));
        heard.take("d:1", &about(0, 7));
        assert_eq!(heard.later(6), Some(("c:1", true)));
    }
}
