//! The doors that a workload can be sent through: remote write 1.0 and 2.0, in snappy or zstd, and Thanos's
//! `WriteableStore` in both shapes of its requests.

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// A protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    #[default]
    Rw1,
    /// In zstd.
    Rw1Zstd,
    Rw2,
    /// One tenant's series in fields of the request.
    Thanos,
    /// Series by tenant, as Thanos sends them from 0.43 on.
    ThanosTenants,
}

const NAMES: [(&str, Door); 5] = [
    ("rw1", Door::Rw1),
    ("rw1-zstd", Door::Rw1Zstd),
    ("rw2", Door::Rw2),
    ("thanos", Door::Thanos),
    ("thanos-tenants", Door::ThanosTenants),
];

impl Door {
    pub fn from_name(name: &str) -> Result<Door> {
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, door)) => Ok(*door),
            None => bail!("{name:?} is no door; there are {}", NAMES.map(|(name, _)| name).join(", ")),
        }
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, door)| *door == self).map_or("", |(name, _)| name)
    }

    pub fn is_grpc(self) -> bool {
        matches!(self, Door::Thanos | Door::ThanosTenants)
    }

    pub fn headers(self) -> [(&'static str, &'static str); 4] {
        let (kind, encoding, version) = match self {
            Door::Rw2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", "2.0.0"),
            Door::Rw1Zstd => ("application/x-protobuf", "zstd", "0.1.0"),
            _ => ("application/x-protobuf", "snappy", "0.1.0"),
        };
        [
            ("content-type", kind),
            ("content-encoding", encoding),
            ("x-prometheus-remote-write-version", version),
            ("user-agent", "tributary-loadtest"),
        ]
    }
}

/// One gRPC connection, opened when needed.
pub struct GrpcClient {
    authority: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl GrpcClient {
    pub fn new(authority: &str) -> GrpcClient {
        GrpcClient { authority: authority.to_owned(), sender: None }
    }

    /// Calls `WriteableStore.RemoteWrite` with a message in its frame, compressed as Thanos does; 200 where the status is
    /// OK, else 503 and what it says.
    pub async fn write(&mut self, body: Bytes) -> Result<(u16, Bytes)> {
        let mut sender = match self.sender.take().filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(&self.authority).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let request =
            http::Request::post(format!("http://{}/thanos.WriteableStore/RemoteWrite", self.authority))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-encoding", "snappy")
                .body(Full::new(body))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let collected = body.collect().await?;
        let told = |name: &str| {
            let trailer = collected.trailers().and_then(|trailers| trailers.get(name));
            trailer
                .or(head.headers.get(name))
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        self.sender = Some(sender);
        match told("grpc-status").as_deref() {
            Some("0") => Ok((200, Bytes::new())),
            status => Ok((503, format!("{status:?} {:?}", told("grpc-message")).into())),
        }
    }
}
