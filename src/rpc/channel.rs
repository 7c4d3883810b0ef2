//! A connection to a peer, made on first use, kept alive and made again.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::Kind;
use secure::{ClientTls, explain};
use storage::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// How peers are spoken to. The defaults are Thanos's.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long a TCP connection may take.
    pub connect_timeout: Duration,
    /// How long a peer may be silent before it is asked for a sign of life, and how long it may take to give one.
    pub keepalive: Duration,
    pub keepalive_timeout: Duration,
    /// How long one frame of a stream, or one unary answer, may take; none waits for ever.
    pub response_timeout: Option<Duration>,
    /// Sent as `thanos-tenant` metadata.
    pub tenant: Option<String>,
    /// Within TLS, by these certificates.
    pub tls: Option<ClientTls>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            response_timeout: None,
            tenant: None,
            tls: None,
        }
    }
}

/// Largest message either way: as Thanos, whose limit is the largest 32-bit number.
pub(crate) const MAX_MESSAGE: usize = i32::MAX as usize;

/// A channel that connects when it is first used, on the runtime `handle`.
pub(crate) fn lazy(
    address: &str,
    options: &ClientOptions,
    handle: &tokio::runtime::Handle,
) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| {
            let message = format!("{address:?} is not an address to connect to: {error}");
            Error::with_source(Kind::Invalid, message, error)
        })?
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.keepalive)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(options.keepalive))
        // Frames of a megabyte over one connection: the default windows of 64 KiB would wait for every round trip.
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20));
    let _on_runtime = handle.enter();
    let Some(tls) = options.tls.clone() else { return Ok(endpoint.connect_lazy()) };
    let options = options.clone();
    // Certificates are looked at anew for each connection.
    let connector =
        tower::service_fn(move |address: http::Uri| connect(address, tls.clone(), options.clone()));
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect(
    address: http::Uri,
    tls: ClientTls,
    options: ClientOptions,
) -> std::io::Result<TokioIo<impl AsyncRead + AsyncWrite>> {
    let host = address.host().unwrap_or_default().to_owned();
    let port = address.port_u16().unwrap_or(443);
    let connecting = async {
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        stream.set_nodelay(true)?;
        tls.connect(&host, stream).await
    };
    match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(Ok(stream)) => Ok(TokioIo::new(stream)),
        Ok(Err(error)) => {
            Err(std::io::Error::new(error.kind(), format!("TLS with {host}:{port}: {}", explain(&error))))
        }
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("TLS with {host}:{port}: no handshake within {:?}", options.connect_timeout),
        )),
    }
}
