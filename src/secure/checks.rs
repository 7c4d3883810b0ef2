//! Turns for passwords that have to be checked: a few at once, a short queue, and the rest is asked to come again.

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::Semaphore;

use crate::Passwords;
use crate::passwords::Glance;

/// Passwords checked at once: bcrypt fills a core for tens of milliseconds.
const AT_ONCE: usize = 2;
/// Requests that may wait for that.
const WAITING: usize = 64;

/// Clones are the same queue.
#[derive(Clone)]
pub(crate) struct Checks {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Too many passwords wait to be checked; another attempt may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl Default for Checks {
    fn default() -> Checks {
        Checks { turns: Arc::new(Semaphore::new(AT_ONCE)), places: Arc::new(Semaphore::new(WAITING)) }
    }
}

impl Checks {
    /// The name of whoever sent the headers, if their password is right. One that was seen before is judged at once;
    /// others wait for their turn, so that guesses take no more than their share of the cores.
    pub(crate) async fn name(
        &self,
        passwords: &Arc<Passwords>,
        headers: &HeaderMap,
    ) -> Result<Option<String>, Busy> {
        match passwords.glance(headers) {
            Glance::Right(name) => return Ok(Some(name)),
            Glance::Wrong => return Ok(None),
            Glance::Unknown => {}
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        // Neither semaphore is ever closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        let (passwords, headers) = (Arc::clone(passwords), headers.clone());
        let check = move || {
            // Held until it is done, also where the client has left.
            let _held = (place, turn);
            passwords.check(&headers)
        };
        Ok(tokio::task::spawn_blocking(check).await.unwrap_or(None))
    }
}
