//! What a receiver says that has moved on to another ring epoch: nothing was judged, and which ring is to be used.

use model::Kind;
use storage::Error;

/// The write was placed by an epoch that the receiver has left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the write is placed by a ring that is over; the receiver is in epoch {epoch}")]
pub struct StaleEpoch {
    /// The receiver's own.
    pub epoch: u64,
    /// What that epoch is, in the words of those who route: opaque here.
    pub ring: Vec<u8>,
}

impl StaleEpoch {
    pub fn into_error(self) -> Error {
        Error::with_source(Kind::Refused, self.to_string(), self)
    }

    /// The cause of an error, if it is this one.
    pub fn of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a StaleEpoch> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(stale) = error.downcast_ref() {
                return Some(stale);
            }
            next = error.source();
        }
        None
    }
}
