//! A cluster of the shipped binary: receivers on a static ring, a bucket on disk, a store and a querier.

use std::path::{Path, PathBuf};

use testkit::free_port;

use crate::process::{Program, Running, binary};

/// Ports and folders of a cluster; processes are started one by one.
pub struct Cluster {
    dir: PathBuf,
    receivers: Vec<Ports>,
    store: Ports,
    query: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    grpc: u16,
    http: u16,
    write: u16,
}

impl Ports {
    fn free() -> Ports {
        Ports { grpc: free_port(), http: free_port(), write: free_port() }
    }
}

impl Cluster {
    /// `receivers` nodes that all replicate to each other, with a filesystem bucket; nothing runs yet.
    pub fn new(dir: &Path, receivers: usize) -> Cluster {
        let cluster = Cluster {
            dir: dir.to_owned(),
            receivers: (0..receivers).map(|_| Ports::free()).collect(),
            store: Ports::free(),
            query: Ports::free(),
        };
        let endpoints: Vec<String> =
            cluster.receivers.iter().map(|p| format!("127.0.0.1:{}", p.grpc)).collect();
        let ring = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]);
        write(&dir.join("hashrings.json"), &ring.to_string());
        let bucket = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.join("bucket").display());
        write(&dir.join("bucket.yaml"), &bucket);
        cluster
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bucket's folder.
    pub fn bucket(&self) -> PathBuf {
        self.dir.join("bucket")
    }

    /// Where receiver `at` takes remote writes.
    pub fn write_url(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}/api/v1/receive", self.receivers[at].write)
    }

    /// Base of receiver `at`'s lifecycle and metrics.
    pub fn receiver_url(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.receivers[at].http)
    }

    /// Base of the HTTP API.
    pub fn query_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.query.http)
    }

    fn start(&self, name: &str, args: Vec<String>, ready: &str) -> Running {
        let log = self.dir.join(format!("{name}.log"));
        let mut running = Program { name: name.to_owned(), path: binary(), args, log }.start();
        running.wait_ready(&format!("{ready}/-/ready"));
        running
    }

    /// Starts receiver `at` without waiting: receivers of a new cluster become ready together.
    pub fn launch_receiver(&self, at: usize, replication_factor: usize) -> Running {
        let ports = self.receivers[at];
        let args = vec![
            "receive".to_owned(),
            format!("--tsdb.path={}", self.dir.join(format!("receive-{at}")).display()),
            format!("--grpc-address=127.0.0.1:{}", ports.grpc),
            format!("--http-address=127.0.0.1:{}", ports.http),
            format!("--remote-write.address=127.0.0.1:{}", ports.write),
            format!("--label=replica=\"{at}\""),
            "--receive.replica-label=replica".to_owned(),
            format!("--receive.local-endpoint=127.0.0.1:{}", ports.grpc),
            format!("--receive.hashrings-file={}", self.dir.join("hashrings.json").display()),
            format!("--receive.replication-factor={replication_factor}"),
            format!("--objstore.config-file={}", self.dir.join("bucket.yaml").display()),
        ];
        let name = format!("receive-{at}");
        let log = self.dir.join(format!("{name}.log"));
        Program { name, path: binary(), args, log }.start()
    }

    pub fn wait_receiver(&self, at: usize, running: &mut Running) {
        running.wait_ready(&format!("{}/-/ready", self.receiver_url(at)));
    }

    pub fn start_store(&self) -> Running {
        let args = vec![
            "store".to_owned(),
            format!("--data-dir={}", self.dir.join("store").display()),
            format!("--grpc-address=127.0.0.1:{}", self.store.grpc),
            format!("--http-address=127.0.0.1:{}", self.store.http),
            format!("--objstore.config-file={}", self.dir.join("bucket.yaml").display()),
            "--sync-block-duration=2s".to_owned(),
        ];
        self.start("store", args, &format!("http://127.0.0.1:{}", self.store.http))
    }

    /// A querier over all receivers, and over the store where `with_store`.
    pub fn start_query(&self, with_store: bool) -> Running {
        let mut args = vec![
            "query".to_owned(),
            format!("--grpc-address=127.0.0.1:{}", self.query.grpc),
            format!("--http-address=127.0.0.1:{}", self.query.http),
        ];
        args.extend(self.receivers.iter().map(|p| format!("--endpoint=127.0.0.1:{}", p.grpc)));
        if with_store {
            args.push(format!("--endpoint=127.0.0.1:{}", self.store.grpc));
        }
        self.start("query", args, &self.query_url())
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
