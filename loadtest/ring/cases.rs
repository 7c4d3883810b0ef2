//! The stories: what happens to the ring, in which order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::peers::Proxy;
use crate::ring::cluster::Cluster;
use crate::ring::{Pace, Stage, parted};
use crate::scenarios::Shape;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Three receivers become five and three again; one is killed in each change, and those that left are deleted.
    Scale,
    /// A receiver loses its disk and comes back under its name.
    EmptyDisk,
    /// A receiver is gone for good, and another one takes its place.
    Replace,
    /// A receiver leaves while the bucket is down.
    BucketDown,
    /// Two of three voters are away, from the middle of a change on.
    QuorumLost,
    /// A router is stopped while the ring changes twice.
    Asleep,
    /// A router hears nothing of the control plane while the ring changes twice.
    Apart,
    /// All receivers of a zone are away.
    ZoneLost,
    /// The log of a receiver is lost, its catalog is not.
    LostLog,
    /// The catalogs of all voters are lost, and what was agreed is brought back from a backup.
    Restored,
    /// Two of three receivers are gone for good, and the ring is forced.
    Forced,
    /// A receiver is cut off from the others, which it can still be asked in front of.
    CutOne,
    /// All receivers of a zone are cut off from the others.
    CutZone,
    /// A router is cut off from the voters, and from nobody else, while the ring changes twice.
    CutRouter,
    /// A version more, receiver by receiver, and one of them back again.
    Versions,
}

/// The proxies between the router and the voters, where there are any.
pub type Wires = Vec<Proxy>;

impl Case {
    pub const ALL: [Case; 15] = [
        Case::Scale,
        Case::EmptyDisk,
        Case::Replace,
        Case::BucketDown,
        Case::QuorumLost,
        Case::Asleep,
        Case::Apart,
        Case::ZoneLost,
        Case::Versions,
        Case::LostLog,
        Case::Restored,
        Case::Forced,
        Case::CutOne,
        Case::CutZone,
        Case::CutRouter,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Case::Scale => "scale",
            Case::EmptyDisk => "empty-disk",
            Case::Replace => "replace",
            Case::BucketDown => "bucket-down",
            Case::QuorumLost => "quorum-lost",
            Case::Asleep => "asleep",
            Case::Apart => "apart",
            Case::ZoneLost => "zone-lost",
            Case::Versions => "versions",
            Case::LostLog => "lost-log",
            Case::Restored => "restored",
            Case::Forced => "forced",
            Case::CutOne => "cut-one",
            Case::CutZone => "cut-zone",
            Case::CutRouter => "cut-router",
        }
    }

    /// Whether its processes are in network namespaces, after [`super::enter`].
    pub fn in_namespaces(self) -> bool {
        matches!(self, Case::CutOne | Case::CutZone | Case::CutRouter)
    }

    pub fn of(name: &str) -> Result<Case> {
        let known = Case::ALL.into_iter().find(|case| case.name() == name);
        known.with_context(|| format!("unknown case {name:?}; known are {:?}", Case::ALL.map(Case::name)))
    }

    /// The cluster as it is in the beginning, with data flowing.
    pub(super) async fn open(self, shape: &Shape, data: PathBuf, pace: Pace) -> Result<Stage> {
        let cluster = |nodes, voters: &[usize]| Cluster::new(shape, data, pace, nodes, voters);
        let mut wires = Wires::new();
        let (mut cluster, members) = match self {
            Case::Scale => (cluster(5, &[0, 1, 2])?, vec![0, 1, 2]),
            Case::EmptyDisk | Case::LostLog | Case::Restored => (cluster(3, &[0, 1, 2])?, vec![0, 1, 2]),
            Case::Forced => (cluster(8, &[5, 6, 7])?, vec![0, 1, 2]),
            Case::Versions => (cluster(5, &[0, 1, 2])?.at_level(1), vec![0, 1, 2]),
            Case::Replace => (cluster(4, &[0, 1, 2])?, vec![0, 1, 2]),
            Case::BucketDown => (cluster(4, &[0, 1, 2])?, vec![0, 1, 2, 3]),
            // The voters keep no data: without two of them, the data have all their copies.
            Case::QuorumLost => (cluster(8, &[5, 6, 7])?, vec![0, 1, 2]),
            Case::Asleep | Case::Apart => (cluster(5, &[0, 1, 2])?, vec![0, 1, 2, 3]),
            Case::CutOne => (cluster(3, &[0, 1, 2])?.in_namespaces()?, vec![0, 1, 2]),
            // The voters stand apart, so that a router can lose them and nobody else.
            Case::CutRouter => (cluster(8, &[5, 6, 7])?.in_namespaces()?, vec![0, 1, 2, 3]),
            Case::CutZone => {
                let cluster = cluster(6, &[0, 2, 4])?.in_zones(&["a", "a", "b", "b", "c", "c"]);
                (cluster.in_namespaces()?, vec![0, 1, 2, 3, 4, 5])
            }
            Case::ZoneLost => {
                (cluster(6, &[0, 2, 4])?.in_zones(&["a", "a", "b", "b", "c", "c"]), vec![0, 1, 2, 3, 4, 5])
            }
        };
        let url = cluster.form(&members).await?;
        let mut urls: Vec<String> = match self {
            // One that stays.
            Case::Forced => vec![cluster.write_url(0)],
            // Those of the zone that goes are not behind the load balancer any more, or are found out by it.
            Case::ZoneLost | Case::CutZone => [0, 2, 4].map(|at| cluster.write_url(at)).to_vec(),
            _ => [0, 1, 2].map(|at| cluster.write_url(at)).to_vec(),
        };
        match self {
            Case::Asleep | Case::CutOne | Case::CutRouter => {
                urls[1] = cluster.start_router(&cluster.voters()).await?;
            }
            Case::Apart => {
                for port in cluster.voter_ports() {
                    wires.push(Proxy::start(port).await?);
                }
                let ways: Vec<String> =
                    wires.iter().map(|wire| format!("127.0.0.1:{}", wire.port())).collect();
                urls[1] = cluster.start_router(&ways).await?;
            }
            _ => {}
        }
        Stage::open(shape, pace, cluster, url, urls, wires)
    }

    pub(super) async fn play(self, stage: &mut Stage) -> Result<()> {
        match self {
            Case::Scale => scale(stage).await,
            Case::EmptyDisk => empty_disk(stage).await,
            Case::Replace => replace(stage).await,
            Case::BucketDown => bucket_down(stage).await,
            Case::QuorumLost => quorum_lost(stage).await,
            Case::Asleep => asleep(stage).await,
            Case::Apart | Case::CutRouter => apart(stage).await,
            Case::CutOne => parted::one(stage).await,
            Case::CutZone => parted::zone(stage).await,
            Case::ZoneLost => zone_lost(stage).await,
            Case::Versions => versions(stage).await,
            Case::LostLog => lost_log(stage).await,
            Case::Restored => restored(stage).await,
            Case::Forced => forced(stage).await,
        }
    }

    /// What is tried once everything was read back.
    pub(super) async fn epilogue(self, stage: &mut Stage) -> Result<()> {
        match self {
            Case::ZoneLost => too_many_lost(stage).await,
            Case::CutOne => parted::has_everything(stage, 2).await,
            _ => Ok(()),
        }
    }
}

async fn scale(stage: &mut Stage) -> Result<()> {
    stage.cluster.start(&[3, 4]).await?;
    let begun = Instant::now();
    stage.cluster.edit(&[0, 1, 2, 3, 4])?;
    stage.cluster.kill(1)?;
    stage.pause().await;
    stage.cluster.start(&[1]).await?;
    stage.cluster.settled(&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]).await?;
    stage.note(format!("grown in {:.1?}, one killed", begun.elapsed()));
    stage.pause().await;

    let begun = Instant::now();
    let before = stage.cluster.gauge(0, "tributary_ring_epoch").await.unwrap_or_default();
    stage.cluster.edit(&[0, 1, 2])?;
    stage.cluster.until(0, "tributary_ring_epoch", |epoch| epoch > before).await?;
    stage.cluster.kill(4)?;
    stage.pause().await;
    stage.cluster.start(&[4]).await?;
    stage.cluster.settled(&[0, 1, 2], &[0, 1, 2]).await?;
    stage.note(format!("shrunk in {:.1?}, one killed", begun.elapsed()));
    for at in [3, 4] {
        let took = stage.cluster.drained(at).await?;
        stage.cluster.remove(at)?;
        stage.note(format!("receiver {at} drained {took:.1?} after that, stopped and deleted"));
    }
    stage.pause().await;
    Ok(())
}

async fn empty_disk(stage: &mut Stage) -> Result<()> {
    stage.cluster.kill(1)?;
    std::fs::remove_dir_all(stage.cluster.folder(1))?;
    stage.note("receiver 1, which votes, is killed and its folder deleted");
    tokio::time::sleep(stage.pace.away(30)).await;
    let before = stage.cluster.gauge(0, "tributary_ring_epoch").await.unwrap_or_default();
    stage.cluster.start(&[1]).await?;
    stage.cluster.until(0, "tributary_ring_epoch", |epoch| epoch > before).await?;
    stage.cluster.settled(&[0, 1, 2], &[0, 1, 2]).await?;
    stage.note("it is back with an empty folder, as a new disk");
    stage.pause().await;
    any_may_be_away(stage).await
}

/// Those that stay bring in what a lost disk had, and then any of the three may be away.
async fn any_may_be_away(stage: &mut Stage) -> Result<()> {
    if stage.pace.quick {
        return Ok(());
    }
    let took = stage.cluster.until_bare(0).await?;
    stage.note(format!("everything of before is in the bucket {took:.0?} after that"));
    stage.cluster.kill(0)?;
    stage.acks_go_on("with one receiver away").await;
    stage.cluster.start(&[0]).await?;
    stage.note("receiver 0 was killed meanwhile and came back");
    stage.pause().await;
    Ok(())
}

async fn replace(stage: &mut Stage) -> Result<()> {
    stage.cluster.kill(2)?;
    std::fs::remove_dir_all(stage.cluster.folder(2))?;
    stage.note("receiver 2 is killed and its folder deleted");
    tokio::time::sleep(stage.pace.away(30)).await;
    // An edit that forgets it is refused: nobody knows that it will not come back.
    stage.cluster.start(&[3]).await?;
    let (old, new) = (stage.cluster.address(2), stage.cluster.address(3));
    let said = stage.cluster.ring(&["drain", &old]).await;
    if said.is_ok() {
        stage.broken("a receiver that is away is drained");
    }
    let begun = Instant::now();
    stage.cluster.ring(&["retire", &old, "--replace-with", &new]).await?;
    stage.cluster.settled(&[0, 1, 3], &[0, 1, 3]).await?;
    stage.note(format!("receiver 3 has taken its place, in {:.1?}", begun.elapsed()));
    stage.pause().await;
    any_may_be_away(stage).await
}

async fn bucket_down(stage: &mut Stage) -> Result<()> {
    let (bucket, aside) = (stage.cluster.data.join("bucket"), stage.cluster.data.join("bucket.aside"));
    std::fs::rename(&bucket, &aside)?;
    std::fs::write(&bucket, "in the way")?;
    let away = stage.pace.away(300);
    stage.note(format!("the bucket is down for {away:.0?}, and receiver 3 is to leave"));
    stage.cluster.edit(&[0, 1, 2])?;
    stage.cluster.settled(&[0, 1, 2], &[0, 1, 2]).await?;
    let begun = Instant::now();
    while begun.elapsed() < away {
        if stage.cluster.stays_for(3).await?.is_none() {
            bail!("receiver 3 says that it may go, and the bucket has nothing");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let why = stage.cluster.stays_for(3).await?.unwrap_or_default();
    std::fs::remove_file(&bucket)?;
    std::fs::rename(&aside, &bucket)?;
    stage.note(format!("the bucket is back; receiver 3 stayed for: {}", why.trim()));
    let took = stage.cluster.drained(3).await?;
    stage.cluster.remove(3)?;
    stage.note(format!("receiver 3 drained {took:.1?} after that, stopped and deleted"));
    stage.pause().await;
    Ok(())
}

async fn quorum_lost(stage: &mut Stage) -> Result<()> {
    // Two of the old ring hear nothing for a moment, so that the change cannot be over before the voters are gone.
    stage.cluster.start(&[3]).await?;
    stage.cluster.edit(&[0, 1, 2, 3, 4])?;
    stage.cluster.until(5, "tributary_control_ring_warming", |n| n == 1.0).await?;
    stage.cluster.begin(&[4])?;
    for at in [1, 2] {
        stage.cluster.signal(at, "STOP")?;
    }
    let held = Instant::now();
    let joint = stage.cluster.until(5, "tributary_control_ring_joint", |joint| joint == 1.0).await;
    if joint.is_ok() {
        for at in [6, 7] {
            stage.cluster.kill(at)?;
        }
    }
    for at in [1, 2] {
        stage.cluster.signal(at, "CONT")?;
    }
    joint?;
    let away = stage.pace.away(600);
    stage.note(format!(
        "two of three voters are killed in the middle of a change, for {away:.0?} ({:.1?} to get there)",
        held.elapsed()
    ));
    let begun = Instant::now();
    let mut looked = 0;
    while begun.elapsed() < away {
        stage.acks_go_on("without a majority of voters").await;
        let joint = stage.cluster.gauge(5, "tributary_control_ring_joint").await;
        looked += 1;
        if joint != Some(1.0) {
            bail!("the change is not in its middle any more, and nobody can have agreed on that");
        }
    }
    stage.note(format!("looked {looked} times: the change was in its middle, and writes went on"));
    let begun = Instant::now();
    stage.cluster.start(&[6, 7]).await?;
    stage.cluster.settled(&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]).await?;
    stage.note(format!("the voters are back, the change at its end {:.1?} after that", begun.elapsed()));
    stage.pause().await;
    Ok(())
}

/// Four receivers become five, then receiver 3 leaves and is deleted.
async fn two_changes(stage: &mut Stage) -> Result<()> {
    stage.cluster.start(&[4]).await?;
    stage.cluster.edit(&[0, 1, 2, 3, 4])?;
    stage.cluster.settled(&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]).await?;
    stage.pause().await;
    stage.cluster.edit(&[0, 1, 2, 4])?;
    stage.cluster.settled(&[0, 1, 2, 4], &[0, 1, 2, 4]).await?;
    stage.cluster.drained(3).await?;
    stage.cluster.remove(3)?;
    stage.note("receiver 4 has come, receiver 3 has gone and is deleted");
    Ok(())
}

/// Writes go through the router again; it has to have found out by whichever way it could.
async fn router_is_right(stage: &mut Stage) -> Result<()> {
    stage.flow.home.fetch_add(1, Relaxed);
    stage.pause().await;
    let replanned = stage.cluster.router_gauge("tributary_receive_replanned_total").await.unwrap_or_default();
    let epoch = stage.cluster.router_gauge("tributary_ring_epoch").await;
    let agreed = stage.cluster.gauge(0, "tributary_ring_epoch").await;
    stage.note(format!(
        "the router was told of a newer ring {replanned} times; it places by epoch {epoch:?}, agreed is {agreed:?}"
    ));
    Ok(())
}

async fn asleep(stage: &mut Stage) -> Result<()> {
    stage.cluster.signal_router("STOP")?;
    let begun = Instant::now();
    let changed = two_changes(stage).await;
    tokio::time::sleep(stage.pace.away(60).saturating_sub(begun.elapsed())).await;
    stage.cluster.signal_router("CONT")?;
    changed?;
    stage.note(format!("the router slept for {:.1?}", begun.elapsed()));
    router_is_right(stage).await
}

/// Whether what the router and the voters say to each other is swallowed.
fn voters_unheard(stage: &mut Stage, on: bool) -> Result<()> {
    stage.wires.iter().for_each(|wire| wire.swallow(on));
    match &mut stage.cluster.net {
        Some(net) if on => net.part(&["router"], &["receive-5", "receive-6", "receive-7"]),
        Some(net) => net.heal(),
        None => Ok(()),
    }
}

async fn apart(stage: &mut Stage) -> Result<()> {
    voters_unheard(stage, true)?;
    let begun = Instant::now();
    two_changes(stage).await?;
    router_is_right(stage).await?;
    let replanned = stage.cluster.router_gauge("tributary_receive_replanned_total").await;
    if replanned.is_none_or(|times| times == 0.0) {
        stage.broken("the router was never told of a newer ring by those it writes to");
    }
    tokio::time::sleep(stage.pace.away(300).saturating_sub(begun.elapsed())).await;
    voters_unheard(stage, false)?;
    stage.note(format!("the router heard nothing of the voters for {:.1?}", begun.elapsed()));
    let begun = Instant::now();
    let agreed = stage.cluster.gauge(0, "tributary_ring_epoch").await;
    while stage.cluster.router_gauge("tributary_ring_epoch").await != agreed {
        if begun.elapsed() > Duration::from_secs(120) {
            stage.broken("the router never learns the agreed epoch again");
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stage.note(format!("it places by the agreed epoch {:.1?} after that", begun.elapsed()));
    stage.pause().await;
    Ok(())
}

async fn zone_lost(stage: &mut Stage) -> Result<()> {
    for at in [0, 1] {
        stage.cluster.kill(at)?;
    }
    let away = stage.pace.away(60);
    stage.note(format!("both receivers of zone a are killed, one of which votes, for {away:.0?}"));
    let begun = Instant::now();
    while begun.elapsed() < away {
        stage.acks_go_on("without a zone").await;
    }
    stage.cluster.start(&[0, 1]).await?;
    stage.note("the zone is back");
    stage.pause().await;
    Ok(())
}

async fn versions(stage: &mut Stage) -> Result<()> {
    let level = "tributary_control_feature_level";
    stage.cluster.until(0, level, |level| level == 1.0).await?;
    // One more of the version before, which will not come back.
    stage.cluster.start(&[3]).await?;
    // It has registered, and promised.
    stage.cluster.until(3, "tributary_ring_min_epoch", |epoch| epoch >= 1.0).await?;
    stage.cluster.kill(3)?;
    std::fs::remove_dir_all(stage.cluster.folder(3))?;
    for (at, newest) in [(0, 0), (1, 0), (2, 0), (1, 1)] {
        // A version of the level before can come back: nothing is in the log that it could not read.
        if stage.cluster.gauge(at, level).await > Some(2.0) {
            stage.broken("the level is one that no version speaks");
        }
        stage.cluster.set_level(newest);
        stage.cluster.restart(at).await?;
        let speaks = if newest == 0 { "all levels" } else { "level 1 alone" };
        stage.note(format!("receiver {at} speaks {speaks}"));
        stage.pause().await;
        if at == 2 {
            held_back(stage, 3).await?;
            stage.cluster.until(0, level, |level| level == 2.0).await?;
            stage.note("the cluster is at level 2");
        }
    }
    // The ring changes with both versions in it, and back.
    stage.cluster.start(&[4]).await?;
    stage.cluster.edit(&[0, 1, 2, 4])?;
    stage.cluster.settled(&[0, 1, 2, 4], &[0, 1, 2, 4]).await?;
    stage.acks_go_on("with a receiver of the version before").await;
    stage.cluster.edit(&[0, 1, 2])?;
    stage.cluster.settled(&[0, 1, 2], &[0, 1, 2]).await?;
    let took = stage.cluster.drained(4).await?;
    stage
        .note(format!("one has come and gone with both versions in the ring, drained {took:.1?} after that"));
    Ok(())
}

/// One that is gone for good holds the level of all back until somebody says so.
async fn held_back(stage: &mut Stage, gone: usize) -> Result<()> {
    let gone = stage.cluster.address(gone);
    let shown = stage.cluster.ring(&["show"]).await?;
    if !shown.contains(&format!("held at level 1 by {gone}")) {
        stage.broken(format!("it is not said who holds the level back: {shown}"));
    }
    stage.cluster.ring(&["forget", &gone]).await?;
    stage.note("the one that will not come back holds the level back no more");
    Ok(())
}

async fn lost_log(stage: &mut Stage) -> Result<()> {
    stage.cluster.kill(1)?;
    std::fs::remove_dir_all(stage.cluster.folder(1).join("wal"))?;
    let before = stage.cluster.gauge(0, "tributary_ring_epoch").await.unwrap_or_default();
    stage.cluster.start(&[1]).await?;
    stage.cluster.until(0, "tributary_ring_epoch", |epoch| epoch > before).await?;
    stage.cluster.settled(&[0, 1, 2], &[0, 1, 2]).await?;
    stage.note("receiver 1 came back with its catalog and without its log: it counts as a new disk");
    stage.pause().await;
    Ok(())
}

async fn restored(stage: &mut Stage) -> Result<()> {
    let backup = stage.cluster.data.join("backup.json").display().to_string();
    stage.cluster.ring(&["backup", &backup]).await?;
    stage.hush().await?;
    for at in [0, 1, 2] {
        stage.cluster.kill(at)?;
        std::fs::remove_dir_all(stage.cluster.folder(at).join("catalog"))?;
    }
    // They replay their logs, and wait for somebody who knows what was agreed.
    stage.cluster.begin(&[0, 1, 2])?;
    let begun = Instant::now();
    while let Err(error) = stage.cluster.ring_at_once(&["restore", &backup]).await {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(error.context("nothing can be restored"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stage.cluster.ready(&[0, 1, 2]).await?;
    stage.cluster.settled(&[0, 1, 2], &[0, 1, 2]).await?;
    stage.note("the catalogs of all voters were lost; what was agreed is back from the backup");
    stage.go_on();
    stage.acks_go_on("with what was brought back").await;
    Ok(())
}

async fn forced(stage: &mut Stage) -> Result<()> {
    // What is on its way to a third copy arrives; then two of the three are gone.
    stage.hush().await?;
    for at in [1, 2] {
        stage.cluster.kill(at)?;
        std::fs::remove_dir_all(stage.cluster.folder(at))?;
    }
    stage.cluster.start(&[3, 4]).await?;
    let lost = format!("{},{}", stage.cluster.address(1), stage.cluster.address(2));
    let text = serde_json::json!([{ "hashring": "default", "endpoints": [
        stage.cluster.address(0), stage.cluster.address(3), stage.cluster.address(4),
    ] }]);
    let file = stage.cluster.data.join("forced.json");
    std::fs::write(&file, text.to_string())?;
    let file = file.display().to_string();
    let words = stage.cluster.ring(&["force", &file, "--lost", &lost]).await?;
    if !words.contains("are given up") || !words.contains("--accept-loss") {
        stage.broken(format!("it is not said what may be lost: {words}"));
    }
    stage.cluster.ring(&["force", &file, "--lost", &lost, "--accept-loss"]).await?;
    stage.cluster.settled(&[0, 3, 4], &[0, 3, 4]).await?;
    let mut logged = false;
    for voter in [5, 6, 7] {
        let log = stage.cluster.data.join(format!("receive-{voter}.log"));
        logged |= std::fs::read_to_string(log)?.contains("the ring is forced");
    }
    if !logged {
        stage.broken("no voter has logged that the ring was forced");
    }
    if !stage.cluster.ring(&["history"]).await?.contains("given up with what only they had") {
        stage.broken("the history does not say what was given up");
    }
    stage.note("two of three receivers were gone for good; the ring was forced, said and logged");
    stage.go_on();
    stage.acks_go_on("with the ring that was forced").await;
    Ok(())
}

/// With a zone and one more away there are series of which a single copy is left: nobody may call that complete.
async fn too_many_lost(stage: &mut Stage) -> Result<()> {
    for at in [0, 1, 2] {
        stage.cluster.kill(at)?;
    }
    let workload = Arc::clone(&stage.flow.workload);
    let (instance, _) = crate::verify::targets(&workload).swap_remove(0);
    let mut client = crate::http::Client::new(&stage.url)?;
    let range = workload.end_ms() - workload.start_ms + 1000;
    let query = format!("count_over_time({{instance=\"{instance}\"}}[{range}ms])");
    let (status, body) = client.query(&query, workload.end_ms()).await?;
    let text = String::from_utf8_lossy(&body);
    if status == 200 && !text.contains("\"warnings\"") {
        bail!("with two zones hurt an answer is called complete");
    }
    Ok(())
}
