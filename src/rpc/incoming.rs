//! Connections of a gRPC listener, plain or within TLS.
//!
//! Handshakes go on side by side, so that one that dawdles holds up nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use secure::{ServerTls, explain};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; further ones wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 8192;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection that was taken.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    info: TcpConnectInfo,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Takes connections, within TLS where it is given, for as long as the stream is held.
pub(crate) fn taken(listener: TcpListener, tls: Option<ServerTls>) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut shaking = JoinSet::new();
        loop {
            let next = async {
                let slot = slots.clone().acquire_owned().await.ok();
                let place = places.clone().acquire_owned().await.ok();
                (slot, place, listener.accept().await)
            };
            tokio::select! {
                () = ready.closed() => return,
                Some(_) = shaking.join_next(), if !shaking.is_empty() => {}
                (slot, place, accepted) = next => match accepted {
                    Ok((stream, _)) => {
                        let (tls, ready) = (tls.clone(), ready.clone());
                        shaking.spawn(async move {
                            let _slot = slot;
                            if let Some(connection) = shake(stream, place, tls.as_ref()).await {
                                // The listener is closing.
                                let _ = ready.send(Ok(connection)).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(listener = "grpc", %error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    });
    ReceiverStream::new(connections)
}

/// A connection that has said something, or has done its handshake: who does neither in time takes no place.
async fn shake(
    stream: TcpStream,
    place: Option<OwnedSemaphorePermit>,
    tls: Option<&ServerTls>,
) -> Option<Connection> {
    let info = stream.connect_info();
    let peer = info.remote_addr();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(?peer, %error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = tls else {
        let spoken = tokio::time::timeout(HANDSHAKE, stream.readable()).await;
        return matches!(spoken, Ok(Ok(()))).then(|| Connection {
            io: Box::new(stream),
            info,
            _place: place,
        });
    };
    let failed = |error: &str| {
        metrics::counter!("tributary_tls_handshake_failures_total", "listener" => "grpc").increment(1);
        tracing::warn!(listener = "grpc", ?peer, error, "TLS handshake failed");
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Connection { io: Box::new(stream), info, _place: place }),
        Ok(Err(error)) => {
            failed(&explain(&error));
            None
        }
        Err(_) => {
            failed("it took too long");
            None
        }
    }
}
