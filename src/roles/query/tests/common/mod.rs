//! Nodes in this process that serve a StoreAPI on a port of their own, and fail when told to.
#![allow(dead_code)] // Each test file uses its own part of this.

pub mod querier;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use chunk::{ChunkData, Encoding};
use model::{Kind, Labels, Matcher, Sample, TimeRange};
use rpc::{
    Advertised, Apis, FactServer, Health, NodeInfo, ServeOptions, Services, StoreBackend, StoreOptions,
    StoreServer, StoreView,
};
use runtime::World;
use storage::{
    Budget, Context, Error, LabelRequest, Listed, Notes, Select, SelectRequest, SeriesEntry, SeriesSet,
};
use wire::pb::thanos as pb;

/// The first sample's time, in milliseconds; samples are 15 s apart.
pub const START: i64 = 1_795_220_000_000;
pub const STEP: i64 = 15_000;
pub const SAMPLES: i64 = 60;

/// What a node has and how it behaves.
pub struct Node {
    pub component: &'static str,
    pub external: Labels,
    pub node: Option<NodeInfo>,
    /// The ring epoch that it is in.
    pub ring_epoch: AtomicU64,
    /// It has another disk than it began with.
    pub reborn: AtomicBool,
    pub series: Vec<SeriesEntry>,
    pub range: TimeRange,
    pub ready: AtomicBool,
    /// Taken down: whatever still arrives over an open connection is refused.
    pub down: AtomicBool,
    /// The answer breaks off after so many series.
    pub breaks_after: AtomicUsize,
    /// The answer stands still after so many series, as that of a stopped process.
    pub stalls_after: AtomicUsize,
    /// What it knows beside series.
    pub facts: Facts,
}

/// Answers to what is no question for series; empty where a node is not asked.
#[derive(Clone, Default)]
pub struct Facts {
    pub rules: Option<Vec<pb::RuleGroup>>,
    pub targets: Option<pb::TargetDiscovery>,
    pub exemplars: Option<Vec<pb::ExemplarData>>,
    pub statistics: Option<pb::TsdbStatistics>,
    pub metadata: Option<pb::MetricMetadata>,
}

macro_rules! tell {
    ($subject:ident, $field:ident) => {
        impl rpc::Tell<rpc::facts::$subject> for Served {
            fn tell(
                &self,
                _: &<rpc::facts::$subject as rpc::Subject>::Request,
                _: Option<&str>,
                _: &Context,
            ) -> Result<rpc::Told<<rpc::facts::$subject as rpc::Subject>::Item>, Error> {
                if self.0.down.load(SeqCst) {
                    return Err(Error::new(Kind::Unavailable, "taken down"));
                }
                let items = self.0.facts.$field.clone().into_iter().collect::<Items<_>>().0;
                Ok(rpc::Told { items, ..Default::default() })
            }
        }
    };
}

/// One item or a list of them.
struct Items<T>(Vec<T>);

impl<T> FromIterator<T> for Items<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Items<T> {
        Items(items.into_iter().collect())
    }
}

impl<T> FromIterator<Vec<T>> for Items<T> {
    fn from_iter<I: IntoIterator<Item = Vec<T>>>(items: I) -> Items<T> {
        Items(items.into_iter().flatten().collect())
    }
}

tell!(Rules, rules);
tell!(Targets, targets);
tell!(Exemplars, exemplars);
tell!(Statistics, statistics);
tell!(Metadata, metadata);

impl Node {
    pub fn new(component: &'static str, external: &[(&str, &str)]) -> Node {
        Node {
            component,
            external: Labels::from_pairs(external.iter().copied()).unwrap(),
            node: None,
            ring_epoch: AtomicU64::new(0),
            reborn: AtomicBool::new(false),
            series: Vec::new(),
            range: TimeRange::new(START - 1_000_000, i64::MAX),
            ready: AtomicBool::new(true),
            down: AtomicBool::new(false),
            breaks_after: AtomicUsize::new(usize::MAX),
            stalls_after: AtomicUsize::new(usize::MAX),
            facts: Facts::default(),
        }
    }

    /// One of three receivers: of every two samples in three it has a copy.
    pub fn receiver(replica: usize, replication_factor: u32, series: usize) -> Node {
        let name = format!("r{replica}");
        let mut node = Node::new(rpc::component::RECEIVE, &[("replica", &name), ("tenant_id", "t")]);
        node.node = Some(NodeInfo {
            replication_factor,
            write_quorum: replication_factor / 2 + 1,
            own_replica_labels: vec!["replica".to_owned()],
            incarnation: name,
            ready: true,
            ..NodeInfo::default()
        });
        let keeps = |series: usize, at: i64| {
            let first = (series as i64 + at) % 3;
            first == replica as i64 || (first + 1) % 3 == replica as i64
        };
        node.series = (0..series).map(|s| one(&labels_of(s), |at| keeps(s, at))).collect();
        node
    }

    pub async fn serve(self) -> Running {
        let node = Arc::new(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Arc::new(Served(node.clone()));
        let store = StoreServer::new(backend.clone(), StoreOptions::default(), World::real());
        let services = Services::new(Health::new(|| true))
            .store(store)
            .rules(FactServer::new(backend.clone(), Budget::unlimited(), World::real()))
            .targets(FactServer::new(backend.clone(), Budget::unlimited(), World::real()))
            .exemplars(FactServer::new(backend.clone(), Budget::unlimited(), World::real()))
            .metadata(FactServer::new(backend.clone(), Budget::unlimited(), World::real()))
            .statistics(FactServer::new(backend, Budget::unlimited(), World::real()));
        let task = tokio::spawn(async move {
            rpc::serve(listener, services, ServeOptions::default(), std::future::pending()).await.unwrap();
        });
        Running { node, address, task }
    }
}

pub fn labels_of(series: usize) -> Vec<(String, String)> {
    vec![("__name__".into(), "m".into()), ("i".into(), format!("{series:04}"))]
}

pub fn value_of(at: i64) -> f64 {
    at as f64 / 3.0
}

/// A series of the samples for which `keeps` says so.
pub fn one(labels: &[(String, String)], keeps: impl Fn(i64) -> bool) -> SeriesEntry {
    let kept: Vec<Sample> = (0..SAMPLES)
        .filter(|at| keeps(*at))
        .map(|at| Sample { timestamp: START + at * STEP, value: value_of(at) })
        .collect();
    let chunks = kept
        .chunks(25)
        .map(|part| ChunkData {
            range: TimeRange::new(part[0].timestamp, part[part.len() - 1].timestamp),
            encoding: Encoding::Xor,
            bytes: chunk::xor::encode(part.iter().copied()).unwrap().into(),
        })
        .collect();
    let labels = Labels::from_pairs(labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
    SeriesEntry { labels, chunks }
}

/// A node that serves; dropping it takes it down with its connections.
pub struct Running {
    pub node: Arc<Node>,
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub fn stop(&self) {
        self.node.down.store(true, SeqCst);
        self.task.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Served(Arc<Node>);

impl StoreBackend for Served {
    fn advertised(&self) -> Advertised {
        let node = &self.0;
        let ready = node.ready.load(SeqCst) && !node.down.load(SeqCst);
        Advertised {
            component: node.component,
            label_sets: vec![node.external.clone()],
            range: node.range,
            tsdb_infos: Vec::new(),
            apis: Apis {
                rules: node.facts.rules.is_some(),
                targets: node.facts.targets.is_some(),
                exemplars: node.facts.exemplars.as_ref().map(|_| node.range),
                status: node.facts.statistics.is_some(),
                metadata: node.facts.metadata.is_some(),
                ..Apis::default()
            },
            node: node.node.clone().map(|info| NodeInfo {
                ready,
                ring_epoch: node.ring_epoch.load(SeqCst),
                incarnation: match node.reborn.load(SeqCst) {
                    true => format!("{} anew", info.incarnation),
                    false => info.incarnation,
                },
                ..info
            }),
            ready,
        }
    }

    fn views(&self, _: TimeRange, _: &[Matcher]) -> Result<Vec<StoreView>, Error> {
        if self.0.down.load(SeqCst) {
            return Err(Error::new(Kind::Unavailable, "taken down"));
        }
        let select = Arc::new(Shelf(self.0.clone()));
        Ok(vec![StoreView { labels: self.0.external.clone(), range: self.0.range, select }])
    }
}

struct Shelf(Arc<Node>);

impl Shelf {
    fn matching(&self, matchers: &[Matcher]) -> Vec<SeriesEntry> {
        self.0.series.iter().filter(|e| Matcher::all_match(matchers, &e.labels)).cloned().collect()
    }
}

/// Waits until the node is taken down.
fn stand_still(node: &Node) -> Error {
    while !node.down.load(SeqCst) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Error::new(Kind::Unavailable, "was stopped")
}

struct Breaking {
    node: Arc<Node>,
    entries: std::vec::IntoIter<SeriesEntry>,
    left: usize,
    until_stalled: usize,
}

impl SeriesSet for Breaking {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        match self.until_stalled.checked_sub(1) {
            None => return Err(stand_still(&self.node)),
            Some(left) => self.until_stalled = left,
        }
        match self.left.checked_sub(1) {
            None => Err(Error::new(Kind::Unavailable, "the disk is gone")),
            Some(left) => {
                self.left = left;
                Ok(self.entries.next())
            }
        }
    }
}

impl Select for Shelf {
    fn select(&self, request: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        let entries = self.matching(&request.matchers).into_iter();
        let (left, until_stalled) = (self.0.breaks_after.load(SeqCst), self.0.stalls_after.load(SeqCst));
        Ok(Box::new(Breaking { node: self.0.clone(), entries, left, until_stalled }))
    }

    fn label_names(&self, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        if self.0.stalls_after.load(SeqCst) == 0 {
            return Err(stand_still(&self.0));
        }
        let found = self.matching(&request.matchers);
        let names = found.iter().flat_map(|e| e.labels.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>());
        Ok(listed(names))
    }

    fn label_values(&self, name: &str, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let found = self.matching(&request.matchers);
        Ok(listed(found.iter().filter_map(|e| e.labels.get(name).map(str::to_owned))))
    }
}

fn listed(values: impl Iterator<Item = String>) -> Listed {
    let unique: std::collections::BTreeSet<String> = values.collect();
    Listed { values: unique.into_iter().collect(), notes: Notes::default() }
}
