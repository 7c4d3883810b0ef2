//! Starts the servers under test, ours and peers, each on ports of its own with its data in a given folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Server, Usage, free_port};

pub const READY: Duration = Duration::from_secs(60);

/// A program to start, with what is said to it beside its ports and folders.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// A command under which it runs, such as `valgrind` and its flags; none in the ordinary case.
    pub under: Vec<String>,
    pub more: Vec<String>,
}

impl Program {
    pub fn new(path: impl Into<PathBuf>) -> Program {
        Program { path: path.into(), under: Vec::new(), more: Vec::new() }
    }

    pub fn with(mut self, flag: impl Into<String>) -> Program {
        self.more.push(flag.into());
        self
    }

    pub fn start(&self, name: &str, mut args: Vec<String>, log: &Path) -> Result<Server> {
        args.extend_from_slice(&self.more);
        match self.under.split_first() {
            None => Server::start(name, &self.path, &args, log),
            Some((command, flags)) => {
                let mut all = flags.to_vec();
                all.push(self.path.display().to_string());
                all.append(&mut args);
                Server::start(name, Path::new(command), &all, log)
            }
        }
    }
}

/// Servers that answer as one.
pub struct System {
    pub servers: Vec<Server>,
    pub write_urls: Vec<String>,
    pub query_url: String,
    pub data: PathBuf,
    pub drop_labels: Vec<String>,
    /// Ports at which the servers listen for one another.
    pub peer_ports: Vec<u16>,
}

impl System {
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for server in &self.servers {
            sum += server.usage()?;
        }
        Ok(sum)
    }

    /// SIGTERM to all, and waits for their ends.
    pub fn stop(self) -> Result<()> {
        for server in self.servers {
            let (name, pid) = (server.name.clone(), server.pid());
            server.stop(Duration::from_secs(60)).with_context(|| format!("stop {name} ({pid})"))?;
        }
        Ok(())
    }

    /// SIGKILL to all.
    pub fn kill(self) -> Result<()> {
        self.servers.into_iter().try_for_each(Server::kill)
    }
}

pub async fn standalone(program: &Program, data: &Path, ports: Option<(u16, u16)>) -> Result<System> {
    std::fs::create_dir_all(data)?;
    let (http, grpc) = match ports {
        Some(ports) => ports,
        None => (free_port()?, free_port()?),
    };
    let args = vec![
        "standalone".to_owned(),
        format!("--data-dir={}", data.join("data").display()),
        format!("--http-address=127.0.0.1:{http}"),
        format!("--grpc-address=127.0.0.1:{grpc}"),
    ];
    let url = format!("http://127.0.0.1:{http}");
    let mut server = program.start("standalone", args, &data.join("standalone.log"))?;
    server.wait_ready(&url, "/-/ready", READY).await?;
    Ok(System {
        servers: vec![server],
        write_urls: vec![format!("{url}/api/v1/write")],
        query_url: url,
        data: data.join("data"),
        drop_labels: Vec::new(),
        peer_ports: Vec::new(),
    })
}

/// One receiver alone, whose peers' door is open as well. It answers no queries.
pub async fn receiver(program: &Program, data: &Path) -> Result<System> {
    std::fs::create_dir_all(data)?;
    let [grpc, http, write] = [free_port()?, free_port()?, free_port()?];
    let args = vec![
        "receive".to_owned(),
        format!("--tsdb.path={}", data.join("receive").display()),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--http-address=127.0.0.1:{http}"),
        format!("--remote-write.address=127.0.0.1:{write}"),
        "--label=replica=\"0\"".to_owned(),
    ];
    let mut server = program.start("receive", args, &data.join("receive.log"))?;
    server.wait_ready(&format!("http://127.0.0.1:{http}"), "/-/ready", READY).await?;
    Ok(System {
        servers: vec![server],
        write_urls: vec![format!("http://127.0.0.1:{write}/api/v1/receive")],
        query_url: String::new(),
        data: data.to_owned(),
        drop_labels: Vec::new(),
        peer_ports: vec![grpc],
    })
}

/// Command line and readiness URL of one receiver.
pub struct ReceiverStart {
    pub args: Vec<String>,
    pub http: String,
}

/// The ports of a cluster, kept in its folder so that a receiver can come back where it was.
pub fn cluster_ports(data: &Path) -> Result<Vec<[u16; 3]>> {
    let file = data.join("ports.json");
    if let Ok(text) = std::fs::read_to_string(&file) {
        return Ok(serde_json::from_str(&text)?);
    }
    let mut ports = Vec::new();
    for _ in 0..4 {
        ports.push([free_port()?, free_port()?, free_port()?]);
    }
    std::fs::write(&file, serde_json::to_string(&ports)?)?;
    Ok(ports)
}

pub fn cluster_receiver(data: &Path, at: usize) -> Result<ReceiverStart> {
    let [grpc, http, write] = cluster_ports(data)?[at];
    let args = vec![
        "receive".to_owned(),
        format!("--tsdb.path={}", data.join(format!("receive-{at}")).display()),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--http-address=127.0.0.1:{http}"),
        format!("--remote-write.address=127.0.0.1:{write}"),
        format!("--label=replica=\"{at}\""),
        format!("--receive.local-endpoint=127.0.0.1:{grpc}"),
        format!("--receive.hashrings-file={}", data.join("hashrings.json").display()),
        "--receive.replication-factor=3".to_owned(),
    ];
    Ok(ReceiverStart { args, http: format!("http://127.0.0.1:{http}") })
}

/// Three receivers with RF 3 and a querier.
pub async fn cluster(program: &Program, data: &Path) -> Result<System> {
    std::fs::create_dir_all(data)?;
    let ports = cluster_ports(data)?;
    let endpoints: Vec<String> = ports[..3].iter().map(|[grpc, ..]| format!("127.0.0.1:{grpc}")).collect();
    let ring = serde_json::json!([{ "hashring": "default", "endpoints": endpoints }]);
    std::fs::write(data.join("hashrings.json"), ring.to_string())?;
    let mut servers = Vec::new();
    let mut starts = Vec::new();
    for at in 0..3 {
        let start = cluster_receiver(data, at)?;
        let name = format!("receive-{at}");
        servers.push(program.start(&name, start.args.clone(), &data.join(format!("{name}.log")))?);
        starts.push(start);
    }
    for (server, start) in servers.iter_mut().zip(&starts) {
        server.wait_ready(&start.http, "/-/ready", READY).await?;
    }
    let [grpc, http, _] = ports[3];
    let mut args = vec![
        "query".to_owned(),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--http-address=127.0.0.1:{http}"),
    ];
    args.extend(endpoints.iter().map(|e| format!("--endpoint={e}")));
    let query_url = format!("http://127.0.0.1:{http}");
    let mut querier = program.start("query", args, &data.join("query.log"))?;
    querier.wait_ready(&query_url, "/-/ready", READY).await?;
    servers.push(querier);
    Ok(System {
        servers,
        write_urls: ports[..3]
            .iter()
            .map(|[_, _, write]| format!("http://127.0.0.1:{write}/api/v1/receive"))
            .collect(),
        query_url,
        data: data.to_owned(),
        drop_labels: vec!["tenant_id".to_owned(), "replica".to_owned()],
        peer_ports: ports[..3].iter().map(|[grpc, ..]| *grpc).collect(),
    })
}

pub async fn prometheus(program: &Program, data: &Path) -> Result<System> {
    std::fs::create_dir_all(data)?;
    let config = data.join("prometheus.yml");
    std::fs::write(&config, "")?;
    let args = |port: u16| {
        vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ]
    };
    peer("prometheus", program, "/-/ready", data, args).await
}

pub async fn victoria(program: &Program, data: &Path) -> Result<System> {
    let args = |port: u16| {
        vec![
            format!("-storageDataPath={}", data.join("data").display()),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            "-retentionPeriod=1".to_owned(),
            // So that a count over all series of a large run is answered at all.
            "-search.maxUniqueTimeseries=5000000".to_owned(),
            "-search.maxSeries=5000000".to_owned(),
            "-search.maxQueryDuration=300s".to_owned(),
        ]
    };
    peer("victoria-metrics", program, "/health", data, args).await
}

/// The floor: this very program, as `floor-server`.
pub async fn floor(data: &Path) -> Result<System> {
    floor_under(Vec::new(), data).await
}

/// The floor under another command.
pub async fn floor_under(under: Vec<String>, data: &Path) -> Result<System> {
    let program = Program { under, ..Program::new(std::env::current_exe()?) };
    let args = |port: u16| vec!["floor-server".to_owned(), format!("127.0.0.1:{port}")];
    peer("floor", &program, "/-/ready", data, args).await
}

/// A peer that takes remote write at Prometheus's path and answers its API.
async fn peer(
    name: &str,
    program: &Program,
    ready: &str,
    data: &Path,
    args: impl Fn(u16) -> Vec<String>,
) -> Result<System> {
    std::fs::create_dir_all(data)?;
    let port = free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let mut server = program.start(name, args(port), &data.join(format!("{name}.log")))?;
    server.wait_ready(&url, ready, READY).await?;
    Ok(System {
        servers: vec![server],
        write_urls: vec![format!("{url}/api/v1/write")],
        query_url: url,
        data: data.join("data"),
        drop_labels: Vec::new(),
        peer_ports: Vec::new(),
    })
}
