//! What an operator may tune of a receiver: Thanos's flags where they have a meaning here, and ours.
//!
//! The groups are public so that `standalone` shows the same flags with the same help.

mod admission;
mod otlp;
mod pairs;
mod replication;
mod storage;
mod tenancy;
mod tls;

pub use admission::{Admission, Relabel};
pub use otlp::Otlp;
pub use pairs::HaPairs;
pub use replication::{AlgorithmName, Draining, QuorumName, Replication};
pub use storage::{DurabilityName, Storage};
pub use tenancy::Tenancy;
pub use tls::WriteTls;

use std::path::PathBuf;

use model::Labels;
use settings::{Common, Control, Grpc, LabelPair, Listen, Objstore, Span, settings};

use crate::thanos::WithoutEffect;

settings! {
    /// Takes remote writes, places them on the ring, keeps copies, cuts blocks and ships them.
    pub struct Settings {
        [..] common: Common;
        [..] grpc: Grpc;
        /// Address of the HTTP listener for remote write.
        ["remote-write.address"] remote_write_address: Listen = Listen::everywhere(19291);
        /// Allows the admin calls: deleting series (POST /api/v1/admin/tsdb/delete_series and clean_tombstones)
        /// and tenants (DELETE /api/v1/admin/tenants/TENANT). Whoever reaches the HTTP listener can then delete.
        ["web.enable-admin-api"] enable_admin_api: bool = false;
        /// Folder of the log and the local blocks.
        ["tsdb.path"] data_dir: PathBuf = PathBuf::from("./data");
        /// External label of this node, as name="value"; may be given several times. Blocks and series over
        /// the StoreAPI carry it. Receivers of one ring need labels that differ.
        ["label"] labels: Vec<LabelPair> = Vec::new();
        [..] storage: Storage;
        [..] tenancy: Tenancy;
        [..] replication: Replication;
        [..] control: Control;
        /// This node's address among the voters. Default: receive.local-endpoint.
        ["control.address"] control_address: Option<String> = None;
        /// Highest feature level that this node speaks; 0 for all that its version knows. A cluster that may have to go back
        /// further than one level is held at the level of the older version by it, on any one receiver.
        ["control.max-feature-level"] max_feature_level: u64 = 0;
        [..] drain: Draining;
        [..] admission: Admission;
        [..] tls: WriteTls;
        [..] otlp: Otlp;
        [..] relabel: Relabel;
        [..] ha: HaPairs;
        [..] objstore: Objstore;
        /// Most series that one StoreAPI request may bring; 0 is no limit.
        ["store.limits.request-series"] request_series: u64 = 0;
        /// Most samples that one StoreAPI request may bring, counted in chunks of 120; 0 is no limit.
        ["store.limits.request-samples"] request_samples: u64 = 0;
        /// After this time peers and queriers are asked to connect anew, so that load spreads; 0 never asks.
        ["grpc-server-max-connection-age"] max_connection_age: Span = Span::from_mins(60);
        [..] without_effect: WithoutEffect;
    }
}

impl Settings {
    /// How hints are kept, by a node that may store nothing itself.
    pub(crate) fn hints(&self, stores: bool) -> crate::hints::Settings {
        let replication = &self.replication;
        let own = || stores.then(|| self.data_dir.join("hints"));
        let dir = replication.hints_dir.clone().or_else(own).filter(|_| replication.hints_bytes.bytes() > 0);
        crate::hints::Settings {
            dir,
            max_bytes: replication.hints_bytes.bytes(),
            max_age: replication.hints_age.ms(),
            rate: replication.hints_rate.bytes(),
            queue_bytes: replication.forward_queue.bytes(),
            // The spare segment of the log, the next one, and a checkpoint or a block beside them.
            reserve: self.storage.segment_bytes.bytes().saturating_mul(4),
            // A node that stores nothing is taken to be set up as those that do.
            window: self.storage.out_of_order_window.ms(),
        }
    }

    fn validate(&self) -> Result<(), String> {
        if !self.tenancy.certificate_field.is_empty() && self.tls.client_ca.is_none() {
            return Err("--receive.tenant-certificate-field needs --remote-write.server-tls-client-ca, or nobody shows a \
                        certificate"
                .to_owned());
        }
        if self.control.on() {
            if self.votes() && !self.has_ring() {
                return Err(
                    "a voter needs the ring that the cluster starts with: --receive.hashrings-file or \
                            --receive.hashrings"
                        .to_owned(),
                );
            }
            if self.votes() && !self.mode().stores() {
                return Err("--control.address is one of --control.voters, and this node has no data folder to vote in; \
                            let a receiver with --receive.local-endpoint vote"
                    .to_owned());
            }
        }
        let labels = self.external_labels()?;
        let replicated = self.replication.replication_factor > 1;
        let clustered = self.has_ring() || replicated || self.objstore.document().is_some();
        if labels.is_empty() && clustered && self.mode() != Mode::RouterOnly {
            return Err(
                "no external labels: give at least one --label name=\"value\" that no other receiver has; \
                 blocks and copies are told apart by it"
                    .to_owned(),
            );
        }
        if labels.get(&self.tenancy.label).is_some() {
            return Err(format!(
                "--label {} is taken by --receive.tenant-label-name; choose another name",
                self.tenancy.label
            ));
        }
        if let Some(name) = &self.replication.replica_label
            && labels.get(name).is_none()
        {
            return Err(format!("--receive.replica-label names {name:?}, which is not among the --label"));
        }
        Ok(())
    }

    /// The node's external labels, checked.
    pub fn external_labels(&self) -> Result<Labels, String> {
        let pairs = self.labels.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
        Labels::from_pairs(pairs).map_err(|error| format!("--label: {error}"))
    }

    /// The label that tells this node's copies from its peers'.
    pub fn own_replica_label(&self) -> Option<String> {
        let named = self.replication.replica_label.clone();
        named.or_else(|| {
            let usual = ["tributary_replica", "receive_replica", "replica"];
            let found = usual.into_iter().find(|name| self.labels.iter().any(|pair| pair.name == *name));
            found.map(str::to_owned)
        })
    }

    pub fn has_ring(&self) -> bool {
        self.replication.hashrings_file.is_some() || self.replication.hashrings.is_some()
    }

    /// This node's address in the control plane.
    pub fn control_address(&self) -> Option<&str> {
        self.control_address.as_deref().or(self.replication.local_endpoint.as_deref())
    }

    /// Whether this node is one of the voters.
    pub fn votes(&self) -> bool {
        let voters = self.control.voters();
        self.control_address().is_some_and(|own| voters.iter().any(|voter| voter == own))
    }

    pub fn mode(&self) -> Mode {
        match (self.has_ring() || self.control.on(), &self.replication.local_endpoint) {
            (true, Some(_)) => Mode::RouterIngestor,
            (true, None) => Mode::RouterOnly,
            (false, _) => Mode::IngestorOnly,
        }
    }
}

/// What a receiver does, by what it was given: as Thanos decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A ring and a place in it: routes, and stores what falls to it.
    RouterIngestor,
    /// A ring without a place in it: routes, stores nothing, opens no data folder.
    RouterOnly,
    /// No ring: stores everything it is sent.
    IngestorOnly,
}

impl Mode {
    pub fn stores(self) -> bool {
        self != Mode::RouterOnly
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::RouterIngestor => "RouterIngestor",
            Mode::RouterOnly => "RouterOnly",
            Mode::IngestorOnly => "IngestorOnly",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &[&str]) -> Result<Settings, String> {
        settings::from_args::<Settings>(args).map_err(|e| e.to_string())
    }

    #[test]
    fn modes_follow_ring_and_place() {
        let ring = "--receive.hashrings=[]";
        let label = "--label=replica=\"a\"";
        assert_eq!(given(&[]).unwrap().mode(), Mode::IngestorOnly);
        assert_eq!(given(&[ring]).unwrap().mode(), Mode::RouterOnly);
        let both = given(&[ring, label, "--receive.local-endpoint=a:1"]).unwrap();
        assert_eq!(both.mode(), Mode::RouterIngestor);
        assert_eq!(both.own_replica_label().as_deref(), Some("replica"));
        let behind_routers = given(&[label, "--receive.replication-factor=3"]).unwrap();
        assert_eq!(behind_routers.mode(), Mode::IngestorOnly);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_way_out() {
        let ring = "--receive.hashrings=[]";
        for (args, part) in [
            (&[ring, "--receive.local-endpoint=a:1"][..], "--label"),
            (&["--objstore.config=type: FILESYSTEM"], "--label"),
            (&["--receive.replication-factor=3"], "--label"),
            (&["--receive.replication-factor=0"], "from 1 to 15"),
            (&["--receive.default-tenant-id=../x"], "default-tenant-id"),
            (&["--label=tenant_id=\"x\""], "tenant-label-name"),
            (&["--receive.replica-label=zone"], "not among the --label"),
            (&["--receive.quorum=all"], "majority or one"),
            (&["--receive.durability=slow"], "durable or fast"),
        ] {
            let error = given(args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
