//! HA pairs: of several Prometheus servers that scrape the same targets one is listened to at a time.
//!
//! A request is looked at once it is unpacked ([`Opened::look`]): where all of its series name one pair and one replica,
//! [`Ha`] says whether it is stored or held. What is stored has the replica's label left out, once for each series that is
//! met for the first time: series of each replica are recognised in a space of their own, in which nobody else's are, so
//! that what is known of a series was learned without the label. What is held is kept as it came, and goes the same way
//! when its sender is elected (`run`), spliced.

mod file;
mod gossip;
pub mod pair;
mod rest;
mod run;
mod tracker;

use std::cell::RefCell;

use model::TenantId;
use wire::otlp::{Aside, Settings as Translation};
use wire::remote_write::{Limits, Packed, PairLabels, Sent, sent_v1, sent_v2};

pub use gossip::{Doors, RingDoors};
pub use run::{Plays, open, run};
pub use tracker::{Ha, Heard, Play};

use crate::admit::Version;
use crate::decode::deny;
use crate::otlp;
use crate::status::Denial;

/// Bytes of a buffer that a thread keeps between requests.
const KEEP_BYTES: usize = 8 << 20;

thread_local! {
    static SPACE: RefCell<Vec<u8>> = RefCell::default();
}

/// How a request comes to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// From a sender.
    Sent,
    /// As a copy, from a router that has decided.
    Copied,
    /// It was held, and its sender is listened to now.
    Played,
}

/// A body, unpacked.
pub struct Opened {
    pub space: Vec<u8>,
    pub len: usize,
    /// Of OTLP: what has no form in remote write.
    pub aside: Option<Aside>,
    by_symbols: bool,
}

impl Opened {
    pub fn open(
        version: Version,
        body: Packed<'_>,
        limits: &Limits,
        translation: &Translation,
    ) -> Result<Opened, Denial> {
        if let Version::Otlp(form) = version {
            let (space, aside) = otlp::translate(body.bytes, form, limits, translation)?;
            return Ok(Opened { len: space.len(), space, aside: Some(aside), by_symbols: true });
        }
        let mut space = SPACE.take();
        let len = body.open(limits, &mut space).map_err(deny)?.len();
        Ok(Opened { space, len, aside: None, by_symbols: version == Version::V2 })
    }

    /// Who sent it, where all of its series say so.
    pub fn look(&self, labels: PairLabels<'_>) -> Option<Sent<'_>> {
        let plain = self.space.get(..self.len)?;
        match self.by_symbols {
            true => sent_v2(plain, labels),
            false => sent_v1(plain, labels),
        }
    }

    /// Gives the buffer to the thread's next request.
    pub fn close(self) {
        if self.space.capacity() <= KEEP_BYTES {
            SPACE.set(self.space);
        }
    }
}

/// Counts a request of a tenant with pairs that does not say with one voice whose it is.
pub fn count_untold(tenant: &TenantId) {
    metrics::counter!("tributary_ha_tracker_untold_requests_total", "tenant" => tenant.to_string())
        .increment(1);
}

/// The space in which the series of one replica are recognised; no tenant has such a name.
pub fn space(tenant: &TenantId, sent: &Sent<'_>, out: &mut String) {
    out.clear();
    for part in [tenant.as_str(), "\0", sent.cluster, "\0", sent.replica] {
        out.push_str(part);
    }
}

#[cfg(test)]
mod story;
