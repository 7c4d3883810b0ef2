//! Changes of the ring: proposed, refused with the reason, and followed to their end.

use std::collections::BTreeSet;
use std::path::PathBuf;

use agreed::{Command, EpochNumber, Needed, Outcome, Placed, State};
use anyhow::{anyhow, bail};
use clap::ArgMatches;
use control::{Change, Seen};

use super::document::Document;
use super::{Session, show};

pub async fn edit(session: &Session, name: &str, matches: &ArgMatches) -> anyhow::Result<()> {
    let seen = session.seen().await?;
    if name == "forget" {
        return forget(session, &seen, matches).await;
    }
    let (by, time) = (session.by(matches, name), session.world.clock.now_ms());
    if name == "abort" {
        return match session.handle.propose(Command::Abort { by, time }).await? {
            Outcome::Already => say("nothing goes on that could be taken back"),
            _ => say("taken back: the ring is what it was before the change"),
        };
    }
    if name == "force" {
        return force(session, &seen, matches, by).await;
    }
    let agreed = agreed_text(&seen)?;
    let many =
        || matches.get_many::<String>("address").into_iter().flatten().cloned().collect::<BTreeSet<String>>();
    let (mut retire, mut copies) = (BTreeSet::new(), None);
    let text = match name {
        "set" => {
            copies = matches.get_one::<u8>("copies").map(|n| (*n, n / 2 + 1));
            session.read(&path(matches)?)?
        }
        "add" => {
            let mut ring = Document::parse(&agreed)?;
            let one = |name: &str| matches.get_one::<String>(name).map(String::as_str);
            for address in many() {
                if !seen.state.nodes.contains_key(&address) {
                    eprintln!(
                        "{address} has not registered yet: the change waits until it runs with these voters"
                    );
                }
                ring.add(&address, one("zone"), one("ring"))?;
            }
            ring.text()?
        }
        "drain" => {
            let mut ring = Document::parse(&agreed)?;
            ring.remove(&many())?;
            ring.text()?
        }
        "retire" => {
            retire = many();
            let mut ring = Document::parse(&agreed)?;
            match (matches.get_one::<String>("with"), retire.iter().next()) {
                (Some(with), Some(one)) if retire.len() == 1 => ring.replace(one, with)?,
                (Some(_), _) => bail!("--replace-with goes with one receiver at a time"),
                (None, _) => ring.remove(&retire)?,
            }
            let away = session.handle.away(retire.iter().cloned().collect()).await?;
            if let Some(here) = retire.iter().find(|a| !away.contains(*a)) {
                bail!("{here} answers; `tributary ring drain {here}` takes it out and keeps what it has");
            }
            copies_are_left(session, &seen.state, &retire).await?;
            ring.text()?
        }
        _ => bail!("{name} is not known"),
    };
    let change = Change { expect: agreed, text, copies, retire, by, time };
    let epoch = match session.handle.change(change).await? {
        Outcome::Pending { epoch } => {
            say(&format!("proposed; its joint epoch will be {epoch}"))?;
            Some(epoch)
        }
        Outcome::Already => {
            say("that is agreed already, or on its way")?;
            None
        }
        _ => {
            say("taken back: that is the ring as it was")?;
            None
        }
    };
    match matches.get_flag("watch") {
        true => {
            // What was agreed on comes back by way of the voters.
            let mut news = session.handle.seen();
            let later = news.wait_for(|now| is_of(&now.state, epoch));
            let _ = tokio::time::timeout(super::PATIENCE, later).await;
            show::watch(session).await
        }
        false => say("`tributary ring show --watch` says how far it is"),
    }
}

/// Refuses to retire who had the last copies that are left: beside those of the ring, receivers that were retired before and
/// whose data are not all in the bucket are gone as well.
async fn copies_are_left(session: &Session, state: &State, retire: &BTreeSet<String>) -> anyhow::Result<()> {
    let open = state.epochs.iter().filter(|epoch| !epoch.retired);
    let left_before: BTreeSet<String> = open
        .flat_map(|epoch| epoch.view.members())
        .filter(|a| !matches!(state.needed(a), Some(Needed::Member)))
        .map(str::to_owned)
        .collect();
    let mut gone = session.handle.away(left_before.into_iter().collect()).await?;
    gone.extend(retire.iter().cloned());
    let short = state.out_of_reach(&gone);
    let Some(first) = short.first() else { return Ok(()) };
    let lost: Vec<&str> =
        gone.iter().filter(|a| short.iter().any(|s| s.set.contains(a))).map(String::as_str).collect();
    bail!(
        "what was acknowledged in epoch {} may lie on {} alone, among the copies on {}, and is not in the bucket yet; bring one of \
         them back, wait until `tributary ring history` says that it is, or see what `tributary ring \
         force FILE --lost {}` gives up",
        first.epoch,
        lost.join(", "),
        first.set.join(", "),
        lost.join(",")
    )
}

/// Whether the change that was taken is in this state: changes of before may still be on their way.
fn is_of(state: &State, epoch: Option<EpochNumber>) -> bool {
    let Some(epoch) = epoch else { return true };
    state.pending.as_ref().is_some_and(|pending| pending.epoch >= epoch)
        || state.current().is_some_and(|current| current.number >= epoch)
}

async fn forget(session: &Session, seen: &Seen, matches: &ArgMatches) -> anyhow::Result<()> {
    let addresses: Vec<String> =
        matches.get_many::<String>("address").into_iter().flatten().cloned().collect();
    let away = session.handle.away(addresses.clone()).await?;
    if let Some(here) = addresses.iter().find(|a| !away.contains(*a)) {
        bail!("{here} answers, and would register again; stop it first");
    }
    let time = session.world.clock.now_ms();
    for address in addresses {
        let forget = Command::Forget { address: address.clone() };
        if seen.state.admits(&forget).is_ok() {
            match session.handle.propose(forget).await? {
                Outcome::Already => say(&format!("{address} was not known"))?,
                _ => say(&format!("{address} is forgotten"))?,
            }
            continue;
        }
        // A version that may still come back could not read that in the log.
        match (seen.state.stand_in(&address, control::LEVELS)?, seen.state.nodes.contains_key(&address)) {
            (Some(node), _) => {
                session.handle.propose(Command::Register { node, time }).await?;
                say(&format!(
                    "{address} holds the feature level back no more; it is listed until the cluster is at level {}",
                    forget.level()
                ))?;
            }
            (None, true) => say(&format!(
                "{address} does not hold the feature level back; it is listed until the cluster is at level {}",
                forget.level()
            ))?,
            (None, false) => say(&format!("{address} was not known"))?,
        }
    }
    Ok(())
}

fn agreed_text(seen: &Seen) -> anyhow::Result<String> {
    let current = seen.state.current().ok_or_else(|| anyhow!("the cluster has no ring yet"))?;
    Ok(current.view.ground().plan().text.clone())
}

fn path(matches: &ArgMatches) -> anyhow::Result<PathBuf> {
    matches.get_one::<PathBuf>("file").cloned().ok_or_else(|| anyhow!("no file was named"))
}

async fn force(session: &Session, seen: &Seen, matches: &ArgMatches, by: String) -> anyhow::Result<()> {
    let lost: BTreeSet<String> = matches.get_many::<String>("lost").into_iter().flatten().cloned().collect();
    let plan = control::plan(&seen.state, session.read(&path(matches)?)?, None)?;
    let next = Placed::try_from(plan.clone())?;
    let words = seen.state.would_lose(&next, &lost);
    match words.is_empty() {
        true => say("nothing that was acknowledged is lost by it, as far as it is known")?,
        false => words.iter().try_for_each(|line| say(line))?,
    }
    if !matches.get_flag("accept") {
        return say("nothing was done: give --accept-loss to do it all the same");
    }
    let time = session.world.clock.now_ms();
    session.handle.propose(Command::Force { plan, lost, by, time }).await?;
    say("done: this is the ring from now on; it stands in the history with your name")
}

/// A line on standard output; a reader who has seen enough is no error.
pub(super) fn say(line: &str) -> anyhow::Result<()> {
    show::print(&format!("{line}\n"))
}
