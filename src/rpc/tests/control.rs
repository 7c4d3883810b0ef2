//! Three voters and those who subscribe, each behind a gRPC listener of its own: losing one, losing the majority,
//! coming back.

// From outside, files are the real ones.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agreed::{Command, Outcome, RingPlan};
use catalog::Catalog;
use control::{About, Handle, Request, Response, Seen, Settings, Subscriber, Transport, Voter};
use model::Kind;
use rpc::{ClientOptions, ControlServer, GrpcTransport, Health, ServeOptions, Services};
use runtime::{Shutdown, World};
use settings::TlsFiles;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    handle: Handle,
    shutdown: Shutdown,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Cluster {
    dir: tempfile::TempDir,
    /// Everybody shows a certificate of this authority, and talks to nobody else.
    authority: Option<testkit::Authority>,
    voters: Vec<SocketAddr>,
    nodes: BTreeMap<String, Node>,
}

fn transport() -> Arc<dyn Transport> {
    transport_by(None)
}

fn transport_by(files: Option<TlsFiles>) -> Arc<dyn Transport> {
    let tls = files.map(|files| rpc::client_tls("control", &files, &World::real()).unwrap());
    let options = ClientOptions { connect_timeout: Duration::from_secs(1), tls, ..ClientOptions::default() };
    Arc::new(GrpcTransport::new(options, &tokio::runtime::Handle::current()))
}

fn limits(handle: &Handle, text: &str) -> Command {
    let expect = handle.now().state.limits.version;
    Command::SetLimits { expect, text: text.to_owned(), by: String::new(), time: 0 }
}

impl Cluster {
    fn new(voters: usize) -> Cluster {
        let voters = (0..voters).map(|_| SocketAddr::from(([127, 0, 0, 1], testkit::free_port()))).collect();
        Cluster { dir: tempfile::tempdir().unwrap(), authority: None, voters, nodes: BTreeMap::new() }
    }

    /// A certificate by this authority; it has to be shown, and is asked for, by those of ours.
    fn files(&self, name: &str, authority: &testkit::Authority, trusted: &testkit::Authority) -> TlsFiles {
        let ca = self.dir.path().join(format!("{name}-ca.pem"));
        std::fs::write(&ca, trusted.pem()).unwrap();
        let (certificate, key) = authority.issue(self.dir.path(), name, "127.0.0.1", |_| {});
        TlsFiles {
            certificate: Some(certificate),
            key: Some(key),
            ca: Some(ca),
            min_version: "1.3".to_owned(),
            ..TlsFiles::default()
        }
    }

    fn own(&self, name: &str) -> Option<TlsFiles> {
        let authority = self.authority.as_ref()?;
        Some(self.files(&name.replace(':', "-"), authority, authority))
    }

    fn addresses(&self) -> Vec<String> {
        self.voters.iter().map(SocketAddr::to_string).collect()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name.replace(':', "-"))
    }

    /// The one before is closed once the last of its tasks has ended.
    async fn catalog(&self, name: &str) -> Catalog {
        for _ in 0..400 {
            match Catalog::open(&World::real(), &self.folder(name)) {
                Ok(catalog) => return catalog,
                Err(error) if error.kind == Kind::Refused => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the catalog of {name} is never closed");
    }

    async fn start_voter(&mut self, at: usize) {
        let (world, address) = (World::real(), self.voters[at].to_string());
        let text = r#"[{"endpoints": ["x:1", "y:1", "z:1"]}]"#.to_owned();
        let settings = Settings {
            address: address.clone(),
            voters: self.addresses(),
            plan: RingPlan { text, replication: 3, quorum: 2, hashmod: false },
            cluster: String::new(),
        };
        let catalog = self.catalog(&address).await;
        let voter = Voter::start(&world, &catalog, settings, transport_by(self.own(&address))).await.unwrap();
        self.serve(&address, voter.into(), self.voters[at]).await;
    }

    async fn start_subscriber(&mut self, name: &str) {
        let catalog = self.catalog(name).await;
        let transport = transport_by(self.own(name));
        let subscriber = Subscriber::start(&World::real(), Some(&catalog), self.addresses(), transport);
        self.serve(name, subscriber.unwrap().into(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
    }

    async fn serve(&mut self, name: &str, handle: Handle, at: SocketAddr) {
        let listener = TcpListener::bind(at).await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let describe = Arc::new(move |about: &mut About| about.address.clone_from(&own));
        let server = ControlServer::new(handle.clone(), describe);
        let services = Services::new(Health::new(|| true)).control(server);
        let (shutdown, runs) = (Shutdown::new(), handle.clone());
        let tls = self.own(name).and_then(|files| rpc::server_tls(name, &files, &World::real()).unwrap());
        let options = ServeOptions { grace: Duration::from_millis(200), tls, ..ServeOptions::default() };
        let serving = rpc::serve(listener, services, options, shutdown.waiter());
        let tasks = vec![
            tokio::spawn(async move { serving.await.unwrap() }),
            tokio::spawn(async move { runs.run().await.unwrap() }),
        ];
        self.nodes.insert(name.to_owned(), Node { handle, shutdown, tasks });
    }

    async fn stop(&mut self, name: &str) {
        let Node { handle, shutdown, tasks } = self.nodes.remove(name).unwrap();
        shutdown.trigger();
        handle.stop().await;
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }

    fn handle(&self, name: &str) -> &Handle {
        &self.nodes[name].handle
    }

    async fn until(&self, name: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.handle(name).seen();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| wanted(seen))).await;
        waited.unwrap_or_else(|_| panic!("{name} never saw it")).unwrap().clone()
    }

    /// Agreed on, as soon as somebody leads.
    async fn agree(&self, name: &str, text: &str) {
        let handle = self.handle(name);
        for _ in 0..20 {
            match handle.propose(limits(handle, text)).await {
                Ok(Outcome::Done | Outcome::Already) => return,
                Ok(other) => panic!("{other:?}"),
                // Also where the state here is not the newest one yet.
                Err(error) if error.kind != Kind::Invalid => {
                    tokio::time::sleep(Duration::from_millis(200)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("never agreed on {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_learn_and_propose_survive_voters_and_go_on_without_a_majority() {
    let mut cluster = Cluster::new(3);
    let voters = cluster.addresses();
    for at in 0..3 {
        cluster.start_voter(at).await;
    }
    cluster.start_subscriber("router").await;
    let formed = cluster.until("router", |seen| !seen.state.cluster.is_empty()).await;
    cluster.agree("router", "one").await;
    for name in voters.iter().map(String::as_str).chain(["router"]) {
        let seen = cluster.until(name, |seen| seen.state.limits.text == "one").await;
        assert_eq!(seen.state.cluster, formed.state.cluster);
    }
    assert!(cluster.handle("router").about().in_touch);
    // Everybody says who it is, and a refusal travels in words.
    let Response::About(about) = transport().call(&voters[1], Request::About).await.unwrap() else {
        panic!()
    };
    assert_eq!((about.address.as_str(), about.group.len(), about.voter), (voters[1].as_str(), 3, true));
    let stale = Command::SetLimits { expect: 7, text: String::new(), by: String::new(), time: 0 };
    let refused = cluster.handle("router").propose(stale).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(refused.message.contains("not 7"), "{refused}");

    // One less, whichever it is.
    let leader = cluster.handle(&voters[0]).about().leader.unwrap();
    cluster.stop(&leader).await;
    cluster.agree("router", "two").await;
    cluster.until("router", |seen| seen.state.limits.text == "two").await;

    // No majority: nothing new, and what is known stays, also over a restart.
    let left: Vec<String> = voters.iter().filter(|v| **v != leader).cloned().collect();
    cluster.stop(&left[0]).await;
    let error =
        cluster.handle("router").propose(limits(cluster.handle("router"), "three")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    cluster.stop("router").await;
    cluster.start_subscriber("router").await;
    assert_eq!(cluster.handle("router").now().state.limits.text, "two");

    // Back again.
    for (at, voter) in voters.iter().enumerate() {
        if !cluster.nodes.contains_key(voter) {
            cluster.start_voter(at).await;
        }
    }
    cluster.agree("router", "three").await;
    let seen = cluster.until("router", |seen| seen.state.limits.text == "three").await;
    assert_eq!(seen.state.cluster, formed.state.cluster);
}

/// Voters and those who subscribe show certificates to each other; who has none, or one of somebody else, is not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_know_each_other_by_their_certificates() {
    let mut cluster = Cluster::new(3);
    cluster.authority = Some(testkit::Authority::new("ours"));
    let voters = cluster.addresses();
    for at in 0..3 {
        cluster.start_voter(at).await;
    }
    cluster.start_subscriber("router").await;
    cluster.until("router", |seen| !seen.state.cluster.is_empty()).await;
    cluster.agree("router", "one").await;
    for voter in &voters {
        cluster.until(voter, |seen| seen.state.limits.text == "one").await;
    }
    let (ours, theirs) = (cluster.authority.as_ref().unwrap(), testkit::Authority::new("theirs"));
    let stranger = cluster.files("stranger", &theirs, ours);
    let nobody = TlsFiles { certificate: None, key: None, ..stranger.clone() };
    for files in [None, Some(nobody), Some(stranger)] {
        let transport = transport_by(files.clone());
        let asked = transport.call(&voters[0], Request::About);
        let said = tokio::time::timeout(PATIENCE, asked).await.unwrap();
        assert!(said.is_err(), "{files:?} is answered");
    }
    let own = transport_by(cluster.own("operator"));
    assert!(matches!(own.call(&voters[0], Request::About).await, Ok(Response::About(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_of_another_cluster_are_not_believed() {
    let mut ours = Cluster::new(1);
    ours.start_voter(0).await;
    ours.start_subscriber("router").await;
    ours.until("router", |seen| !seen.state.cluster.is_empty()).await;
    ours.stop("router").await;

    let mut theirs = Cluster::new(1);
    theirs.start_voter(0).await;
    theirs.until(&theirs.addresses()[0], |seen| !seen.state.cluster.is_empty()).await;
    let catalog = ours.catalog("router").await;
    let lost = Subscriber::start(&World::real(), Some(&catalog), theirs.addresses(), transport()).unwrap();
    let error = tokio::time::timeout(PATIENCE, lost.run()).await.unwrap().unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains("the voters of its own cluster"), "{error}");
}
