//! A listener that is bound early and serves its routes when they exist.
//!
//! HTTP/1.1 and HTTP/2 on one port, within TLS where certificates are given. A role binds in `build`, so that a port in use ends the start at
//! once and tests learn the port they were given, and serves in `run`. Knows nothing of what the routes mean.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use model::Kind;
use runtime::World;
use secure::{Entry, PeerNames, ServerTls, WebSecurity, explain};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::io::InspectReader;
use tower::ServiceExt;

use crate::Error;
use crate::pace::Pace;

/// What a listener asks of those who connect.
#[derive(Clone, Debug, Default)]
pub enum Security {
    #[default]
    None,
    /// TLS and passwords by a web configuration file.
    Web(WebSecurity),
    Tls(ServerTls),
}

impl Security {
    /// By the web configuration file of `--http.config`, if there is one.
    pub fn of_file(name: &str, path: Option<&Path>, world: &World) -> Result<Security, Error> {
        let failed = |error: secure::Error| Error::new(error.kind, format!("--http.config: {error}"));
        match path {
            None => Ok(Security::None),
            Some(path) => WebSecurity::start(name, world, path).map(Security::Web).map_err(failed),
        }
    }

    /// Whether anybody may connect without showing anything.
    pub fn is_none(&self) -> bool {
        matches!(self, Security::None)
    }
}

/// Limits of one listener.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// What the listener is for, in logs: "http", "remote-write".
    pub name: &'static str,
    /// How long requests in flight may go on after the shutdown began.
    pub grace: Duration,
    /// How long a connection may be idle until the head of its next request is there.
    pub header_timeout: Duration,
    /// How long a client may take for a head, from its first byte on; for the first one, from the connection on.
    pub head_timeout: Duration,
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Longest head of a request. Grafana puts whole selectors into URLs.
    pub max_head_bytes: usize,
    /// How long a client may take for the handshake of TLS.
    pub handshake_timeout: Duration,
    pub security: Security,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            name: "http",
            grace: Duration::from_secs(120),
            header_timeout: Duration::from_secs(300),
            head_timeout: Duration::from_secs(10),
            max_connections: 16_384,
            max_head_bytes: 1 << 20,
            handshake_timeout: Duration::from_secs(10),
            security: Security::None,
        }
    }
}

/// A bound listener.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    settings: ServerSettings,
}

impl Server {
    /// Takes the port of `address` (`host:port`); nothing is answered before [`Server::serve`], connections wait.
    pub async fn bind(
        address: impl ToSocketAddrs + fmt::Display,
        settings: ServerSettings,
    ) -> Result<Server, Error> {
        let text = address.to_string();
        let failed = |e: std::io::Error| {
            let text = format!("cannot listen on {text} ({}): {e}", settings.name);
            Error::with_source(Kind::Unavailable, text, e)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Server { listener, address, settings })
    }

    /// The address that was bound, with the port that the system chose for `:0`.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests by `routes` until `shutdown` ends, then lets those in flight finish for the grace period.
    pub async fn serve(self, routes: Router, shutdown: impl Future<Output = ()> + Send) {
        let Server { listener, address, settings } = self;
        tracing::info!(listener = settings.name, %address, "listening");
        let slots = Arc::new(Semaphore::new(settings.max_connections));
        let (closing, closed) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let next = async {
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                (slot, accepted) = next => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(connection(
                            stream, peer, routes.clone(), settings.clone(), closed.clone(), slot,
                        ));
                    }
                    Err(error) => {
                        // Out of file descriptors, or the peer left already: neither ends the listener.
                        tracing::warn!(listener = settings.name, %error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        closing.send_replace(true);
        let drain = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(settings.grace, drain).await.is_err() {
            tracing::warn!(
                listener = settings.name,
                open = connections.len(),
                "grace period is over, closing the connections that are left"
            );
            connections.shutdown().await;
        }
        tracing::info!(listener = settings.name, %address, "closed");
    }
}

/// Ends when the shutdown has begun.
async fn begun(closed: &mut watch::Receiver<bool>) {
    while !*closed.borrow_and_update() {
        if closed.changed().await.is_err() {
            return;
        }
    }
}

/// Does the handshake where there is one, then serves.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    settings: ServerSettings,
    closed: watch::Receiver<bool>,
    slot: Option<OwnedSemaphorePermit>,
) {
    let _slot = slot;
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let shaken = async {
        match &settings.security {
            Security::None => Ok(Err(stream)),
            Security::Web(web) => web.accept(stream).await,
            Security::Tls(tls) => tls.accept(stream).await.map(Ok),
        }
    };
    match tokio::time::timeout(settings.handshake_timeout, shaken).await {
        Ok(Ok(Err(plain))) => http(plain, peer, None, routes, settings, closed).await,
        Ok(Ok(Ok(stream))) => {
            let names = PeerNames::of(&stream);
            http(stream, peer, names, routes, settings, closed).await;
        }
        Ok(Err(error)) => {
            metrics::counter!("tributary_tls_handshake_failures_total", "listener" => settings.name)
                .increment(1);
            tracing::warn!(listener = settings.name, %peer, error = explain(&error), "TLS handshake failed");
        }
        Err(_) => {
            metrics::counter!("tributary_tls_handshake_failures_total", "listener" => settings.name)
                .increment(1);
            tracing::debug!(listener = settings.name, %peer, "TLS handshake took too long");
        }
    }
}

/// Whether the request may come in by the listener's passwords; else the answer to it.
async fn admitted(security: &Security, headers: &http::HeaderMap) -> Result<(), axum::response::Response> {
    let Security::Web(web) = security else { return Ok(()) };
    let (status, header, text) = match web.admits(headers).await {
        Entry::Admitted => return Ok(()),
        Entry::Refused => {
            (http::StatusCode::UNAUTHORIZED, (http::header::WWW_AUTHENTICATE, "Basic"), "Unauthorized\n")
        }
        Entry::Busy => (
            http::StatusCode::SERVICE_UNAVAILABLE,
            (http::header::RETRY_AFTER, "1"),
            "too many passwords wait to be checked; try again\n",
        ),
    };
    let mut response = axum::response::Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header.0, http::HeaderValue::from_static(header.1));
    Err(response)
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    names: Option<PeerNames>,
    routes: Router,
    settings: ServerSettings,
    mut closed: watch::Receiver<bool>,
) {
    let security = settings.security.clone();
    let pace = Pace::begin();
    let seen = pace.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (routes, security, names) = (routes.clone(), security.clone(), names.clone());
        let open = seen.request(request.version() == http::Version::HTTP_2);
        async move {
            let _open = open;
            if let Err(answer) = admitted(&security, request.headers()).await {
                return Ok(answer);
            }
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            if let Some(names) = names {
                request.extensions_mut().insert(names);
            }
            let answer = routes.oneshot(request).await;
            answer.map_err(|never: Infallible| never)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.max_head_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let seen = pace.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            seen.bytes();
        }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = pace.dawdles(settings.head_timeout) => {
            metrics::counter!("tributary_http_slow_heads_total", "listener" => settings.name).increment(1);
            tracing::debug!(%peer, "the head of a request took too long");
            return;
        }
        () = begun(&mut closed) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}
