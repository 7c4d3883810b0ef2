//! Three voters in one process: forming, losing one, losing the majority, losing a catalog, a full disk, catching up.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Outcome, RingPlan};
use catalog::Catalog;
use control::{Error, Hello, Request, Response, Seen, Settings, Transport, Voter};
use model::Kind;
use parking_lot::Mutex;
use runtime::World;
use testkit::SmallDisk;

const VOTERS: [&str; 3] = ["a:1", "b:1", "c:1"];

/// Everybody who runs, and who is cut off.
#[derive(Default)]
struct Wires {
    voters: BTreeMap<String, Voter>,
    /// Who runs and does not vote.
    others: BTreeSet<String>,
    cut: BTreeSet<String>,
}

struct Wire {
    from: String,
    wires: Arc<Mutex<Wires>>,
}

#[async_trait::async_trait]
impl Transport for Wire {
    async fn call(&self, address: &str, request: Request) -> Result<Response, Error> {
        let to = {
            let wires = self.wires.lock();
            if wires.others.contains(address) {
                return Ok(Response::NoVoter);
            }
            let open = !wires.cut.contains(address) && !wires.cut.contains(&self.from);
            wires.voters.get(address).filter(|_| open).cloned()
        };
        let Some(to) = to else { return Err(Error::new(Kind::Unavailable, "no way there")) };
        // As bytes, so that everything that is said can be written down.
        let request: Request = serde_json::from_slice(&serde_json::to_vec(&request).unwrap()).unwrap();
        let response = to.serve(request).await;
        Ok(serde_json::from_slice(&serde_json::to_vec(&response).unwrap()).unwrap())
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    wires: Arc<Mutex<Wires>>,
}

fn plan() -> RingPlan {
    let text = r#"[{"endpoints": ["x:1", "y:1", "z:1"]}]"#.to_owned();
    RingPlan { text, replication: 3, quorum: 2, hashmod: false }
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { dir: tempfile::tempdir().unwrap(), wires: Arc::default() }
    }

    async fn of_three() -> Cluster {
        let cluster = Cluster::new();
        for address in VOTERS {
            cluster.start(address).await;
        }
        for address in VOTERS {
            cluster.until(address, |seen| !seen.state.cluster.is_empty()).await;
        }
        cluster
    }

    fn folder(&self, address: &str) -> PathBuf {
        self.dir.path().join(address.replace(':', "-"))
    }

    /// The one before is closed once the last of its voter's tasks has ended.
    async fn catalog(&self, world: &World, address: &str) -> Catalog {
        for _ in 0..200 {
            match Catalog::open(world, &self.folder(address)) {
                Ok(catalog) => return catalog,
                Err(error) if error.kind == Kind::Refused => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the catalog of {address} is never closed");
    }

    async fn start(&self, address: &str) -> Voter {
        self.start_with(address, self.catalog(&World::real(), address).await).await
    }

    async fn start_with(&self, address: &str, catalog: Catalog) -> Voter {
        self.start_of(address, catalog, &VOTERS).await
    }

    async fn start_of(&self, address: &str, catalog: Catalog, voters: &[&str]) -> Voter {
        let world = World::real();
        let voters = voters.iter().map(|v| (*v).to_owned()).collect();
        let settings = Settings { address: address.to_owned(), voters, plan: plan(), cluster: String::new() };
        let wire = Wire { from: address.to_owned(), wires: Arc::clone(&self.wires) };
        let voter = Voter::start(&world, &catalog, settings, Arc::new(wire)).await.unwrap();
        self.wires.lock().voters.insert(address.to_owned(), voter.clone());
        let runs = voter.clone();
        tokio::spawn(async move { runs.run().await });
        voter
    }

    async fn stop(&self, address: &str) {
        let voter = self.wires.lock().voters.remove(address);
        voter.unwrap().stop().await;
    }

    fn voter(&self, address: &str) -> Voter {
        self.wires.lock().voters[address].clone()
    }

    async fn until(&self, address: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut watch = self.voter(address).watch();
        let seen = tokio::time::timeout(Duration::from_secs(60), watch.wait_for(|seen| wanted(seen)));
        seen.await.unwrap_or_else(|_| panic!("{address} never saw it")).unwrap().clone()
    }

    /// The address of whoever leads, as the others see it.
    async fn leader(&self, asked: &str) -> String {
        for _ in 0..600 {
            if let Some(leader) =
                self.voter(asked).leader().filter(|l| self.wires.lock().voters.contains_key(l))
            {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody leads");
    }
}

fn limits(expect: u64) -> Command {
    Command::SetLimits { expect, text: format!("version {}", expect + 1), by: String::new(), time: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_once_and_survives_one() {
    let cluster = Cluster::of_three().await;
    let name = cluster.voter("a:1").watch().borrow().state.cluster.clone();
    for address in VOTERS {
        assert_eq!(cluster.voter(address).watch().borrow().state.cluster, name);
    }
    // Whoever is asked, the one who leads decides; refusals come back in words.
    for (n, address) in VOTERS.into_iter().enumerate() {
        assert_eq!(cluster.voter(address).propose(limits(n as u64)).await.unwrap(), Outcome::Done);
    }
    let error = cluster.voter("b:1").propose(limits(0)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("version 3, not 0"), "{error}");

    let first = cluster.leader("a:1").await;
    let rest: Vec<&str> = VOTERS.into_iter().filter(|v| *v != first).collect();
    cluster.stop(&first).await;
    assert_eq!(
        cluster.voter(rest[0]).propose(limits(3)).await.or_later(&cluster, rest[0]).await,
        Outcome::Done
    );

    // Alone, the last one knows what was agreed and agrees on nothing new.
    cluster.stop(rest[0]).await;
    let error = cluster.voter(rest[1]).propose(limits(4)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    cluster.stop(rest[1]).await;
    cluster.start(rest[1]).await;
    assert_eq!(cluster.until(rest[1], |seen| seen.state.limits.version == 4).await.state.cluster, name);

    // All back: nothing is formed anew.
    for address in [&first, rest[0]] {
        cluster.start(address).await;
        assert_eq!(cluster.until(address, |seen| seen.state.limits.version == 4).await.state.cluster, name);
    }
}

trait OrLater {
    async fn or_later(self, cluster: &Cluster, address: &str) -> Outcome;
}

impl OrLater for Result<Outcome, Error> {
    /// While a leader is chosen, asking again helps.
    async fn or_later(mut self, cluster: &Cluster, address: &str) -> Outcome {
        for _ in 0..10 {
            match self {
                Ok(outcome) => return outcome,
                Err(error) if error.kind == Kind::Unavailable => {
                    let expect = cluster.voter(address).watch().borrow().state.limits.version;
                    self = cluster.voter(address).propose(limits(expect)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("never agreed: {self:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_without_its_catalog_comes_back_as_another() {
    let cluster = Cluster::of_three().await;
    let first = cluster.leader("a:1").await;
    let lost = VOTERS.into_iter().find(|v| *v != first).unwrap();
    let number = cluster.voter(lost).id();
    cluster.stop(lost).await;
    // The database is closed once nobody holds it; the folder of a new one stands for the disk that was replaced.
    let gone = cluster.folder(lost);
    World::real().disk.rename(&gone, &gone.with_extension("gone")).unwrap();
    let again = cluster.start(lost).await;
    assert_ne!(again.id(), number, "its vote is gone, so it must not have the same one");
    let name = cluster.voter(&first).watch().borrow().state.cluster.clone();
    assert_eq!(cluster.until(lost, |seen| !seen.state.cluster.is_empty()).await.state.cluster, name);

    // It counts: with it and one of the others there is a majority.
    let other = VOTERS.into_iter().find(|v| *v != first && *v != lost).unwrap();
    for address in [other, lost] {
        let mut tries = 0;
        while cluster.voter(address).group().get(lost) != Some(&again.id()) {
            tries += 1;
            assert!(tries < 1200, "{:?}", cluster.voter(address).group());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(cluster.voter(address).group().len(), 3);
    }
    cluster.stop(&first).await;
    let outcome = again.propose(limits(0)).await.or_later(&cluster, lost).await;
    assert_eq!(outcome, Outcome::Done);
}

/// A second node with a voter's address must not push it out of the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_address_of_a_voter_that_runs_is_refused() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader("a:1").await;
    let taken = VOTERS.into_iter().find(|v| *v != leader).unwrap();
    let number = cluster.voter(taken).id();
    let world = World::real();
    let catalog = cluster.catalog(&world, "other").await;
    let voters = VOTERS.map(str::to_owned).to_vec();
    let settings = Settings { address: taken.to_owned(), voters, plan: plan(), cluster: String::new() };
    let wire = Wire { from: "other".to_owned(), wires: Arc::clone(&cluster.wires) };
    let other = Voter::start(&world, &catalog, settings, Arc::new(wire)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), other.run()).await.unwrap();
    let error = ended.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains(&format!("another node answers at {taken}")), "{error}");
    // Nor is it let in where it does not look itself, or while the other one is away.
    let hello = |id: u64| Hello {
        address: taken.to_owned(),
        id,
        initialized: false,
        cluster: String::new(),
        voters: BTreeSet::new(),
    };
    let asked = async |id: u64| match cluster.voter(&leader).serve(Request::Join(hello(id))).await {
        Response::Join(result) => result,
        other => panic!("{other:?}"),
    };
    assert!(asked(other.id()).await.unwrap_err().contains("another node answers"));
    cluster.stop(taken).await;
    assert!(asked(other.id()).await.unwrap_err().contains("nobody answers"));
    assert_eq!(cluster.voter(&leader).group().get(taken), Some(&number));
}

/// Voters of which one was told of others form nothing with it, whoever starts first; once it is told of all, they are one
/// cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_that_were_told_of_different_ones_form_no_group_together() {
    for (wrong, first) in [(&["b:1"][..], false), (&["b:1"][..], true), (&["b:1", "c:1", "d:1"][..], false)] {
        let cluster = Cluster::new();
        let world = World::real();
        if first {
            cluster.start_of("b:1", cluster.catalog(&world, "b:1").await, wrong).await;
        }
        for address in ["a:1", "c:1"] {
            cluster.start(address).await;
        }
        if !first {
            cluster.start_of("b:1", cluster.catalog(&world, "b:1").await, wrong).await;
        }
        if wrong.len() == 1 {
            cluster.until("b:1", |seen| !seen.state.cluster.is_empty()).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for address in ["a:1", "c:1"] {
            let seen = cluster.voter(address).watch().borrow().clone();
            assert_eq!(seen.state.cluster, "", "{address} has formed a cluster with {wrong:?}");
        }
        cluster.stop("b:1").await;
        cluster.start("b:1").await;
        let name = cluster.until("b:1", |seen| !seen.state.cluster.is_empty()).await.state.cluster.clone();
        for address in ["a:1", "c:1"] {
            let seen = cluster.until(address, |seen| !seen.state.cluster.is_empty()).await;
            assert_eq!(seen.state.cluster, name);
        }
    }
}

/// Three become five and three again, by what the nodes are started with; those that are left are the ones that count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_come_and_go_with_what_all_are_told() {
    let cluster = Cluster::of_three().await;
    let five = ["a:1", "b:1", "c:1", "d:1", "e:1"];
    let world = World::real();
    let counted = async |address: &str, many: usize| {
        for _ in 0..1200 {
            if cluster.voter(address).group().len() == many {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{address} counts on {:?}", cluster.voter(address).group());
    };
    for address in five {
        if VOTERS.contains(&address) {
            cluster.stop(address).await;
        }
        cluster.start_of(address, cluster.catalog(&world, address).await, &five).await;
    }
    for address in five {
        counted(address, 5).await;
    }
    for address in ["d:1", "e:1"] {
        cluster.stop(address).await;
        cluster.wires.lock().others.insert(address.to_owned());
    }
    for address in VOTERS {
        cluster.stop(address).await;
        cluster.start(address).await;
    }
    for address in VOTERS {
        counted(address, 3).await;
    }
    let first = cluster.leader("a:1").await;
    cluster.stop(&first).await;
    let left = VOTERS.into_iter().find(|v| *v != first).unwrap();
    assert_eq!(cluster.voter(left).propose(limits(0)).await.or_later(&cluster, left).await, Outcome::Done);
}

/// A voter whose disk was full takes part again by itself, and does not say meanwhile that it is in touch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_disk_was_full_comes_back() {
    let cluster = Cluster::new();
    let Some(disk) = SmallDisk::mount(&cluster.dir.path().join("disk"), 48) else { return };
    let small = Catalog::open(&World::real(), &disk.path().join("catalog")).unwrap();
    cluster.start_with("b:1", small).await;
    for address in ["a:1", "c:1"] {
        cluster.start(address).await;
    }
    for address in VOTERS {
        cluster.until(address, |seen| !seen.state.cluster.is_empty()).await;
    }
    let ballast = disk.fill(0);
    let mut agreed = 0;
    while cluster.voter("b:1").in_touch() {
        assert!(agreed < 600, "a full disk is noticed");
        let text = "x".repeat(1 << 16);
        let limits = Command::SetLimits {
            expect: agreed,
            text: format!("{agreed}{text}"),
            by: String::new(),
            time: 0,
        };
        if cluster.voter("a:1").propose(limits).await.is_ok() {
            agreed += 1;
        }
        agreed = agreed.max(cluster.voter("a:1").watch().borrow().state.limits.version);
    }
    std::fs::remove_file(ballast).unwrap();
    cluster.until("b:1", |seen| seen.state.limits.version >= agreed).await;
    // It counts: with it and one of the others there is a majority.
    cluster.stop("c:1").await;
    let version = cluster.voter("b:1").watch().borrow().state.limits.version;
    assert_eq!(
        cluster.voter("b:1").propose(limits(version)).await.or_later(&cluster, "b:1").await,
        Outcome::Done
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_for_long_gets_the_state_and_not_the_log() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader("a:1").await;
    let away = VOTERS.into_iter().find(|v| *v != leader).unwrap();
    cluster.wires.lock().cut.insert(away.to_owned());
    for version in 0..700 {
        cluster.voter(&leader).propose(limits(version)).await.unwrap();
    }
    assert!(cluster.voter(away).watch().borrow().state.limits.version < 700);
    cluster.wires.lock().cut.clear();
    let seen = cluster.until(away, |seen| seen.state.limits.version == 700).await;
    assert_eq!(seen, *cluster.voter(&leader).watch().borrow());
    // And has it after a restart, alone.
    for address in VOTERS {
        cluster.stop(address).await;
    }
    cluster.start(away).await;
    cluster.until(away, |seen| seen.state.limits.version == 700).await;
}
