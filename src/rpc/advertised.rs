//! What a node says of itself, as plain values, to and from `thanos.info.InfoResponse`.

use model::{Labels, TimeRange};
use wire::pb::thanos::ZLabelSet;
use wire::pb::thanos::info;
use wire::pb::tributary::v1;

use crate::convert;

/// Names of components as Thanos spells them.
pub mod component {
    pub const RECEIVE: &str = "receive";
    pub const STORE: &str = "store";
    pub const QUERY: &str = "query";
    pub const SIDECAR: &str = "sidecar";
    pub const RULE: &str = "rule";
}

/// What a store tells those who might ask it.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// One of [`component`].
    pub component: &'static str,
    /// External label sets of what is served; used by queriers to leave a store out.
    pub label_sets: Vec<Labels>,
    /// Times of which samples may be here. A head that still takes samples ends at `i64::MAX`.
    pub range: TimeRange,
    pub tsdb_infos: Vec<TsdbInfo>,
    /// Set by our receivers; Thanos's queriers do not see it.
    pub node: Option<NodeInfo>,
    /// What else can be asked for.
    pub apis: Apis,
    /// Until then StoreAPI calls answer Unavailable and Info names no store.
    pub ready: bool,
}

/// The services of a node beside the StoreAPI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apis {
    pub rules: bool,
    pub targets: bool,
    pub metadata: bool,
    /// Times of which it may have exemplars.
    pub exemplars: Option<TimeRange>,
    pub query: bool,
    /// Statistics of its head.
    pub status: bool,
}

impl Apis {
    /// What either has.
    pub fn or(self, other: Apis) -> Apis {
        let exemplars = match (self.exemplars, other.exemplars) {
            (Some(a), Some(b)) => Some(a.cover(&b)),
            (a, b) => a.or(b),
        };
        Apis {
            rules: self.rules || other.rules,
            targets: self.targets || other.targets,
            metadata: self.metadata || other.metadata,
            exemplars,
            query: self.query || other.query,
            status: self.status || other.status,
        }
    }
}

/// Times and labels of one database behind a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsdbInfo {
    pub labels: Labels,
    pub range: TimeRange,
}

/// What our own nodes add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// 0 where the node is no receiver.
    pub replication_factor: u32,
    pub write_quorum: u32,
    /// External labels that tell this node's copies from its peers'.
    pub own_replica_labels: Vec<String>,
    /// Changes when the node starts with an empty log.
    pub incarnation: String,
    pub ready: bool,
    /// Subcommands that run in this process.
    pub roles: Vec<String>,
    /// All samples before this time (ms) are in the bucket.
    pub uploaded_before: Option<i64>,
    pub version: String,
    /// Addresses of all receivers of its ring, as the ring file has them.
    pub ring_members: Vec<String>,
    /// The address under which its ring has it, where it has it; else empty.
    pub ring_address: String,
    /// The ring epoch before which it takes no writes; 0 where the ring is a file.
    pub ring_epoch: u64,
}

/// What a peer said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// As the peer spells it; one of [`component`] or another of Thanos's names.
    pub component: String,
    pub label_sets: Vec<Labels>,
    /// None while the peer's store is not ready, or where it has none.
    pub store: Option<PeerStore>,
    /// None where the peer is not one of ours.
    pub node: Option<NodeInfo>,
    pub apis: Apis,
}

/// A peer's StoreAPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStore {
    pub range: TimeRange,
    /// Whether it removes replica labels and sorts again; where not, the asker must.
    pub strips_replica_labels: bool,
    pub shards: bool,
    pub tsdb_infos: Vec<TsdbInfo>,
}

impl Advertised {
    pub(crate) fn to_pb(&self) -> info::InfoResponse {
        let tsdb_info = |t: &TsdbInfo| info::TsdbInfo {
            labels: Some(label_set(&t.labels)),
            min_time: t.range.start,
            max_time: t.range.end,
        };
        let store = info::StoreInfo {
            min_time: self.range.start,
            max_time: self.range.end,
            supports_sharding: true,
            supports_without_replica_labels: true,
            tsdb_infos: self.tsdb_infos.iter().map(tsdb_info).collect(),
            supports_projections: false,
        };
        info::InfoResponse {
            label_sets: self.label_sets.iter().map(label_set).collect(),
            component_type: self.component.to_owned(),
            store: self.ready.then_some(store),
            tributary: self.node.as_ref().map(NodeInfo::to_pb),
            rules: self.apis.rules.then(Default::default),
            metric_metadata: self.apis.metadata.then(Default::default),
            targets: self.apis.targets.then(Default::default),
            exemplars: self
                .apis
                .exemplars
                .map(|range| info::ExemplarsInfo { min_time: range.start, max_time: range.end }),
            query: self.apis.query.then(Default::default),
            status: self.apis.status.then(Default::default),
        }
    }
}

impl NodeInfo {
    fn to_pb(&self) -> v1::NodeInfo {
        v1::NodeInfo {
            replication_factor: self.replication_factor,
            write_quorum: self.write_quorum,
            own_replica_labels: self.own_replica_labels.clone(),
            incarnation: self.incarnation.clone(),
            ready: self.ready,
            roles: self.roles.clone(),
            uploaded_before_ms: self.uploaded_before,
            version: self.version.clone(),
            ring_members: self.ring_members.clone(),
            ring_address: self.ring_address.clone(),
            ring_epoch: self.ring_epoch,
        }
    }

    fn from_pb(pb: v1::NodeInfo) -> NodeInfo {
        NodeInfo {
            replication_factor: pb.replication_factor,
            write_quorum: pb.write_quorum,
            own_replica_labels: pb.own_replica_labels,
            incarnation: pb.incarnation,
            ready: pb.ready,
            roles: pb.roles,
            uploaded_before: pb.uploaded_before_ms,
            version: pb.version,
            ring_members: pb.ring_members,
            ring_address: pb.ring_address,
            ring_epoch: pb.ring_epoch,
        }
    }
}

impl PeerInfo {
    pub(crate) fn from_pb(pb: info::InfoResponse) -> Result<PeerInfo, storage::Error> {
        let labels = |set: &ZLabelSet| convert::labels_from_pb(&set.labels);
        let store = match pb.store {
            None => None,
            Some(store) => {
                let mut tsdb_infos = Vec::with_capacity(store.tsdb_infos.len());
                for t in &store.tsdb_infos {
                    tsdb_infos.push(TsdbInfo {
                        labels: t.labels.as_ref().map(labels).transpose()?.unwrap_or_default(),
                        range: TimeRange::new(t.min_time, t.max_time),
                    });
                }
                Some(PeerStore {
                    range: TimeRange::new(store.min_time, store.max_time),
                    strips_replica_labels: store.supports_without_replica_labels,
                    shards: store.supports_sharding,
                    tsdb_infos,
                })
            }
        };
        let apis = Apis {
            rules: pb.rules.is_some(),
            targets: pb.targets.is_some(),
            metadata: pb.metric_metadata.is_some(),
            exemplars: pb.exemplars.map(|e| TimeRange::new(e.min_time, e.max_time)),
            query: pb.query.is_some(),
            status: pb.status.is_some(),
        };
        Ok(PeerInfo {
            apis,
            component: pb.component_type,
            label_sets: pb.label_sets.iter().map(labels).collect::<Result<_, _>>()?,
            store,
            node: pb.tributary.map(NodeInfo::from_pb),
        })
    }
}

fn label_set(labels: &Labels) -> ZLabelSet {
    ZLabelSet { labels: convert::labels_to_pb(labels) }
}
