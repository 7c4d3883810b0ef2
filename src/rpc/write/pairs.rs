//! What doors tell each other of HA pairs: in our part of a write request without samples, and of its answer.

use wire::pb::tributary::v1::{PairSighting, WriteContext};
use wire::remote_write::PeerEncoder;

use super::{WriteClient, WriteError};

impl WriteClient {
    /// Tells one of our receivers what is known here, and gives what is known there; of a receiver of an earlier version,
    /// nothing.
    pub async fn exchange_pairs(&self, pairs: Vec<PairSighting>) -> Result<Vec<PairSighting>, WriteError> {
        let context = WriteContext {
            door: self.inner.options.door.clone(),
            all_kinds: true,
            pairs,
            ..WriteContext::default()
        };
        // A request names a tenant, whoever it is.
        let body = PeerEncoder::default().finish("pairs", 1, false, Some(&context));
        match self.inner.exchange(body.into()).await? {
            Ok(response) => Ok(response.tributary.map(|answer| answer.pairs).unwrap_or_default()),
            Err(status) => self.inner.verdicts_of_status(&status, 0).map(|_| Vec::new()),
        }
    }
}
