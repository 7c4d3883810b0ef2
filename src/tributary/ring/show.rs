//! What is agreed, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use agreed::{Needed, View};
use anyhow::anyhow;
use clap::ArgMatches;
use control::{About, Phase, Progress, Request, Response, Seen};
use serde_json::json;

use super::Session;

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn is_json(matches: &ArgMatches) -> bool {
    matches.get_one::<String>("output").is_some_and(|form| form == "json")
}

pub async fn show(session: &Session, matches: &ArgMatches) -> anyhow::Result<()> {
    let seen = session.seen().await?;
    if matches.get_flag("file") {
        let current = seen.state.current().ok_or_else(|| anyhow!("the cluster has no ring yet"))?;
        return print(&current.view.target().plan().text);
    }
    let nodes = nodes(session, &seen).await;
    print(&match is_json(matches) {
        true => format!("{}\n", serde_json::to_string_pretty(&machine(&seen, &nodes))?),
        false => people(&seen, &nodes, session.world.clock.now_ms()),
    })?;
    match matches.get_flag("watch") {
        true => watch(session).await,
        false => Ok(()),
    }
}

/// Says how far a change is whenever that changes, until it is at its end.
pub async fn watch(session: &Session) -> anyhow::Result<()> {
    let mut seen = session.handle.seen();
    let mut told = String::new();
    loop {
        let progress = Progress::of(&seen.borrow_and_update().state);
        let sentence = progress.to_string();
        if sentence != told {
            print(&format!("{sentence}\n"))?;
            told = sentence;
        }
        if !progress.is_under_way() {
            return Ok(());
        }
        seen.changed().await?;
    }
}

/// Everybody who is registered or votes, as each says who it is; none for those who do not answer.
async fn nodes(session: &Session, seen: &Seen) -> BTreeMap<String, Option<About>> {
    let mut addresses: Vec<String> = seen.state.nodes.keys().cloned().collect();
    if let Some(current) = seen.state.current() {
        addresses.extend(current.view.members().into_iter().map(str::to_owned));
    }
    addresses.sort();
    addresses.dedup();
    let ask = |address: String| {
        let transport = session.transport.clone();
        tokio::spawn(async move {
            match transport.call(&address, Request::About).await {
                Ok(Response::About(about)) => (address, Some(about)),
                _ => (address, None),
            }
        })
    };
    let asked: Vec<_> = addresses.into_iter().map(ask).collect();
    let mut nodes = BTreeMap::new();
    for one in asked {
        nodes.extend(one.await.ok());
    }
    let voters: Vec<String> =
        nodes.values().flatten().flat_map(|about| about.group.keys().cloned()).collect();
    for address in voters {
        if !nodes.contains_key(&address) {
            let (address, about) = ask(address).await.unwrap_or_default();
            nodes.insert(address, about);
        }
    }
    nodes
}

/// What a node is, in a word or two.
fn standing(seen: &Seen, address: &str) -> String {
    let state = &seen.state;
    let (Some(node), Some(current)) = (state.nodes.get(address), state.current()) else {
        return "not registered".to_owned();
    };
    match state.needed(address) {
        Some(Needed::Member) if !current.view.has(address) => "comes".to_owned(),
        Some(Needed::Member) => match &current.view {
            View::Joint { old, .. } if !old.has(address) => "comes".to_owned(),
            View::Joint { new, .. } if !new.has(address) => "leaves".to_owned(),
            _ if node.min_epoch < current.number => "member, has not adopted the epoch".to_owned(),
            _ => "member".to_owned(),
        },
        Some(Needed::Holds { epoch }) => format!("drains, epoch {epoch} first"),
        None => "not needed".to_owned(),
    }
}

fn leader(nodes: &BTreeMap<String, Option<About>>) -> Option<&str> {
    nodes.values().flatten().filter(|about| about.in_touch).find_map(|about| about.leader.as_deref())
}

fn voters(nodes: &BTreeMap<String, Option<About>>) -> Vec<&str> {
    let group = nodes.values().flatten().map(|about| &about.group).max_by_key(|group| group.len());
    group.map(|group| group.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn people(seen: &Seen, nodes: &BTreeMap<String, Option<About>>, now: i64) -> String {
    let state = &seen.state;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "cluster   {}, revision {}, feature level {}",
        state.cluster, seen.revision, state.level
    );
    let behind = behind(seen);
    if !behind.is_empty() {
        let _ = writeln!(
            out,
            "          held at level {} by {}: start a newer version, or, if gone for good, `ring forget`",
            state.level,
            behind.join(", ")
        );
    }
    let lead = leader(nodes);
    let voter = |address: &&str| match nodes.get(*address) {
        _ if lead == Some(address) => format!("{address} (leads)"),
        Some(Some(_)) => (*address).to_owned(),
        _ => format!("{address} (does not answer)"),
    };
    let group = voters(nodes);
    let all: Vec<String> = group.iter().map(voter).collect();
    let _ = writeln!(
        out,
        "voters    {}",
        if all.is_empty() { "none answers".to_owned() } else { all.join(", ") }
    );
    if lead.is_none() {
        out.push_str(
            "          nobody leads: nothing can be changed until a majority of them answers; writes and reads go on\n",
        );
    }
    let progress = Progress::of(state);
    if let Some(current) = state.current() {
        let plan = current.view.target().plan();
        let _ = writeln!(out, "copies    {}, an ack needs {}", plan.replication, plan.quorum);
        let _ =
            writeln!(out, "epoch     {}, {} ago, by {}", current.number, ago(now, current.since), current.by);
    }
    let _ = writeln!(out, "now       {progress}");
    match &progress.phase {
        Phase::Warming { ready, waiting, .. } => {
            let _ = writeln!(out, "          ready: {}; waited for: {}", words(ready), words(waiting));
        }
        Phase::Joint { refuse_old, waiting, .. } => {
            let _ = writeln!(
                out,
                "          the old ring is refused by: {}; not yet by: {}",
                words(refuse_old),
                words(waiting)
            );
        }
        Phase::Stable | Phase::Unformed => {}
    }
    for (epochs, left) in unretired(&progress) {
        let _ = writeln!(
            out,
            "          {epochs} read from receivers; not yet all in the bucket: {}",
            words(left)
        );
    }
    if state.limits.version > 0 {
        let _ = writeln!(out, "limits    version {}, by {}", state.limits.version, state.limits.by);
    }
    let width = nodes.keys().map(String::len).max().unwrap_or(0).max(7);
    let _ = writeln!(out, "\n{:<width$}  {:<12}  {:<8}  IN THE RING", "NODE", "ANSWERS", "VERSION");
    for (address, about) in nodes {
        let (answers, version) = match about {
            None => ("no", ""),
            Some(about) if !about.ready => ("starts", about.version.as_str()),
            Some(about) => ("yes", about.version.as_str()),
        };
        let votes = state.needed(address).is_none() && group.contains(&address.as_str());
        let also = if votes { ", but it votes" } else { "" };
        let standing = standing(seen, address);
        let _ = writeln!(out, "{address:<width$}  {answers:<12}  {version:<8}  {standing}{also}");
    }
    out
}

/// Epochs in a row of which the same members have not said that all is in the bucket, in one.
fn unretired(progress: &Progress) -> Vec<(String, &Vec<String>)> {
    let mut rows: Vec<(u64, u64, &Vec<String>)> = Vec::new();
    for (epoch, left) in &progress.unretired {
        match rows.last_mut() {
            Some((_, last, of)) if *of == left => *last = *epoch,
            _ => rows.push((*epoch, *epoch, left)),
        }
    }
    let words = |(first, last, left): (u64, u64, _)| match first == last {
        true => (format!("epoch {first} is"), left),
        false => (format!("epochs {first} to {last} are"), left),
    };
    rows.into_iter().map(words).collect()
}

/// Those that speak no more than the level of the cluster, where others do.
fn behind(seen: &Seen) -> Vec<&str> {
    let state = &seen.state;
    let most = state.nodes.values().map(|node| node.levels.1).max().unwrap_or(0);
    let slow = state.nodes.iter().filter(|(_, node)| node.levels.1 <= state.level && node.levels.1 < most);
    slow.map(|(address, _)| address.as_str()).collect()
}

fn words(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

fn ago(now: i64, then: i64) -> String {
    let seconds = now.saturating_sub(then).max(0) / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn machine(seen: &Seen, nodes: &BTreeMap<String, Option<About>>) -> serde_json::Value {
    let state = &seen.state;
    let plan = state.current().map(|current| current.view.target().plan());
    let node = |(address, about): (&String, &Option<About>)| {
        let known = state.nodes.get(address);
        json!({
            "address": address,
            "answers": about.is_some(),
            "ready": about.as_ref().is_some_and(|about| about.ready),
            "version": about.as_ref().map(|about| &about.version),
            "standing": standing(seen, address),
            "needed": state.needed(address).is_some(),
            "registered": known,
        })
    };
    json!({
        "cluster": state.cluster,
        "generation": state.generation,
        "revision": seen.revision,
        "level": state.level,
        "leader": leader(nodes),
        "voters": voters(nodes),
        "progress": Progress::of(state),
        "under_way": Progress::of(state).is_under_way(),
        "ring": plan,
        "limits": state.limits.version,
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

pub async fn history(session: &Session, matches: &ArgMatches) -> anyhow::Result<()> {
    let seen = session.seen().await?;
    if is_json(matches) {
        return print(&format!("{}\n", serde_json::to_string_pretty(&seen.state.epochs)?));
    }
    let now = session.world.clock.now_ms();
    let mut out = String::new();
    for epoch in &seen.state.epochs {
        let kind = match &epoch.view {
            View::Stable(ring) => format!("stable: {}", ring.members().collect::<Vec<_>>().join(", ")),
            View::Joint { old, new } => {
                let (gone, come): (Vec<&str>, Vec<&str>) = (
                    old.members().filter(|a| !new.has(a)).collect(),
                    new.members().filter(|a| !old.has(a)).collect(),
                );
                let words = |who: &[&str]| if who.is_empty() { "nobody".to_owned() } else { who.join(", ") };
                let (old, new) = (old.plan(), new.plan());
                let copies = match (old.replication, new.replication) {
                    (old, new) if old == new => String::new(),
                    (old, new) => format!(", copies {old} to {new}"),
                };
                format!("changing: in {}, out {}{copies}", words(&come), words(&gone))
            }
        };
        let data = if epoch.retired { "in the bucket" } else { "read from receivers" };
        let _ = writeln!(out, "{:>6}  {:>8} ago  {data}  {kind}", epoch.number, ago(now, epoch.since));
        let _ = writeln!(out, "        by {}", epoch.by);
        if !epoch.lost.is_empty() {
            let lost: Vec<&str> = epoch.lost.iter().map(String::as_str).collect();
            let _ = writeln!(out, "        given up with what only they had: {}", lost.join(", "));
        }
    }
    print(&out)
}
