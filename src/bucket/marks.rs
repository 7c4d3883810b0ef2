//! Marks: small files beside a block that say what shall become of it.

use block::BlockId;
use model::Kind;
use serde::{Deserialize, Serialize};

use crate::Error;

/// `deletion-mark.json`: the block is to be deleted once everybody has stopped reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionMark {
    pub id: BlockId,
    pub version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// Seconds since the epoch.
    pub deletion_time: i64,
}

impl DeletionMark {
    pub fn new(id: BlockId, now_ms: i64, details: &str) -> DeletionMark {
        DeletionMark { id, version: 1, details: details.to_owned(), deletion_time: now_ms.div_euclid(1000) }
    }

    /// Malformed content is a mark that nobody can read: it is reported as corrupt, and readers go on without
    /// it, as Thanos does.
    pub fn parse(text: &[u8]) -> Result<DeletionMark, Error> {
        let mark: DeletionMark = serde_json::from_slice(text).map_err(|e| {
            Error::new(Kind::Corrupt, format!("deletion-mark.json is not what a mark has: {e}"))
        })?;
        if mark.version != 1 {
            let message = format!("deletion-mark.json has version {}, only 1 is known", mark.version);
            return Err(Error::new(Kind::Refused, message));
        }
        Ok(mark)
    }

    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|e| Error::new(Kind::Internal, format!("deletion mark cannot be written: {e}")))
    }
}
