//! Whether a client takes its time: from the first byte of a request's head to its end only so long may pass.
//!
//! Hyper's own timeout cannot tell a connection that is idle, which may stay for minutes, from one on which a head comes
//! byte by byte so that it takes a place for as long. This sees both ends of a head: the bytes on the connection, and the
//! call of the service.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is seen of one connection. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Pace(Arc<Seen>);

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    began: Notify,
}

#[derive(Default)]
struct State {
    /// Requests whose answers are not ready.
    open: usize,
    /// When the head began that is not read to its end.
    head: Option<Instant>,
    /// HTTP/2, which asks idle connections for signs of life by itself: their bytes begin no head.
    framed: bool,
}

/// A request whose head has been read; ends with its answer.
pub(crate) struct Open(Pace);

impl Pace {
    /// Of a connection that was just opened: whoever opens one has something to say.
    pub(crate) fn begin() -> Pace {
        let pace = Pace::default();
        pace.bytes();
        pace
    }

    /// The head of a request is complete.
    pub(crate) fn request(&self, framed: bool) -> Open {
        let mut state = self.0.state.lock();
        state.framed |= framed;
        state.open += 1;
        state.head = None;
        Open(self.clone())
    }

    /// Bytes have arrived.
    pub(crate) fn bytes(&self) {
        let mut state = self.0.state.lock();
        if state.open == 0 && state.head.is_none() && !state.framed {
            state.head = Some(Instant::now());
            self.0.began.notify_one();
        }
    }

    /// Returns when a head has taken longer than `limit`.
    pub(crate) async fn dawdles(&self, limit: Duration) {
        loop {
            let head = self.0.state.lock().head;
            match head {
                None => self.0.began.notified().await,
                Some(began) => {
                    tokio::time::sleep_until(began + limit).await;
                    if self.0.state.lock().head == Some(began) {
                        return;
                    }
                }
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.state.lock().open -= 1;
    }
}
