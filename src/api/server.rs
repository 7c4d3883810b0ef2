//! A listener that is bound early and serves its routes when they exist.
//!
//! HTTP/1.1 and HTTP/2 without TLS on one port. A role binds in `build`, so that a port in use ends the start at
//! once and tests learn the port they were given, and serves in `run`. Knows nothing of what the routes mean.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use model::Kind;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::Error;

/// Limits of one listener.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// What the listener is for, in logs: "http", "remote-write".
    pub name: &'static str,
    /// How long requests in flight may go on after the shutdown began.
    pub grace: Duration,
    /// How long a client may take to send the head of its next request; idle connections are closed by it.
    pub header_timeout: Duration,
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Longest head of a request. Grafana puts whole selectors into URLs.
    pub max_head_bytes: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            name: "http",
            grace: Duration::from_secs(120),
            header_timeout: Duration::from_secs(300),
            max_connections: 4096,
            max_head_bytes: 1 << 20,
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
            Error::new(Kind::Unavailable, text, Some(e))
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

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    settings: ServerSettings,
    mut closed: watch::Receiver<bool>,
    slot: Option<OwnedSemaphorePermit>,
) {
    let _slot = slot;
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let routes = routes.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
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
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = begun(&mut closed) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}
