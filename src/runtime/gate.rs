//! A semaphore counted in bytes: how much may be held at once by those who pass.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of bytes. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct ByteGate {
    semaphore: Arc<Semaphore>,
    limit: u64,
}

/// Why somebody may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Never fits.
    #[error("{wanted} bytes are wanted, the limit is {limit}")]
    TooLarge { wanted: u64, limit: u64 },
    /// Does not fit now.
    #[error("{wanted} bytes are wanted, {held} of {limit} are in use")]
    Full { wanted: u64, held: u64, limit: u64 },
}

/// Bytes held; given back on drop.
#[derive(Debug)]
#[must_use]
pub struct BytePermit {
    permit: OwnedSemaphorePermit,
}

impl ByteGate {
    /// A gate for `limit` bytes; limits beyond what the machine can count are cut to that.
    pub fn new(limit: u64) -> ByteGate {
        let limit = limit.min(Semaphore::MAX_PERMITS as u64);
        ByteGate { semaphore: Arc::new(Semaphore::new(limit as usize)), limit }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.limit - self.semaphore.available_permits() as u64
    }

    /// Takes `bytes` or says at once why not.
    pub fn try_acquire(&self, bytes: u64) -> Result<BytePermit, GateError> {
        let count = self.count(bytes)?;
        match Arc::clone(&self.semaphore).try_acquire_many_owned(count) {
            Ok(permit) => Ok(BytePermit { permit }),
            Err(_) => Err(GateError::Full { wanted: bytes, held: self.held(), limit: self.limit }),
        }
    }

    /// Takes `bytes`, waiting for them in the order of arrival; an error only if they never fit.
    pub async fn acquire(&self, bytes: u64) -> Result<BytePermit, GateError> {
        let count = self.count(bytes)?;
        match Arc::clone(&self.semaphore).acquire_many_owned(count).await {
            Ok(permit) => Ok(BytePermit { permit }),
            // The semaphore is never closed.
            Err(_) => Err(GateError::Full { wanted: bytes, held: self.held(), limit: self.limit }),
        }
    }

    fn count(&self, bytes: u64) -> Result<u32, GateError> {
        match u32::try_from(bytes) {
            Ok(count) if bytes <= self.limit => Ok(count),
            _ => Err(GateError::TooLarge { wanted: bytes, limit: self.limit.min(u32::MAX as u64) }),
        }
    }
}

impl BytePermit {
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let extra = self.bytes().saturating_sub(bytes);
        drop(self.permit.split(extra as usize));
    }

    /// Parts with `bytes`, or with all there is.
    pub fn split(&mut self, bytes: u64) -> Option<BytePermit> {
        let permit = self.permit.split(bytes.min(self.bytes()) as usize)?;
        Some(BytePermit { permit })
    }

    /// Takes over the bytes of another permit of the same gate.
    pub fn absorb(&mut self, other: BytePermit) {
        self.permit.merge(other.permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn full_waits_and_too_large_never_does() {
        let gate = ByteGate::new(100);
        let mut held = gate.try_acquire(80).unwrap();
        assert_eq!(gate.try_acquire(30).unwrap_err(), GateError::Full { wanted: 30, held: 80, limit: 100 });
        assert_eq!(gate.acquire(101).await.unwrap_err(), GateError::TooLarge { wanted: 101, limit: 100 });
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.acquire(30).await.unwrap().bytes() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        held.shrink(60);
        assert_eq!(waiting.await.unwrap(), 30);
        held.absorb(gate.try_acquire(10).unwrap());
        let mut parted = held.split(20).unwrap();
        assert_eq!((held.bytes(), parted.bytes(), gate.held()), (50, 20, 70));
        held.absorb(parted.split(1000).unwrap());
        assert_eq!((held.bytes(), parted.bytes(), gate.held()), (70, 0, 70));
        drop(held);
        assert_eq!(gate.held(), 0);
    }
}
