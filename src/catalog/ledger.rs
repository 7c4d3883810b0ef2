//! The upload ledger: which blocks of a tenant are in which bucket.
//!
//! It saves requests and says which local blocks were uploaded; the bucket stays the truth. Entries are confirmed when
//! a call returns.

use std::collections::BTreeMap;

use crate::database::Confirm;
use crate::database::Inner;
use crate::family::LEDGER;
use crate::{Catalog, Error, keys};

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// It was uploaded, or found there.
    Uploaded,
    /// It was marked for deletion in the bucket, by somebody who may: it is not to be uploaded again.
    Retired,
}

/// A block of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    pub state: LedgerState,
    /// Which bucket is meant.
    pub bucket: String,
    /// Bytes that were sent; 0 where it was there, or is not known.
    pub size: u64,
    /// When this became known, in milliseconds.
    pub time: i64,
}

const VERSION: u8 = 1;

impl LedgerEntry {
    fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            LedgerState::Uploaded => 1,
            LedgerState::Retired => 2,
        };
        let mut out = vec![VERSION, state];
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(self.bucket.as_bytes());
        out
    }

    fn decode(value: &[u8]) -> Option<LedgerEntry> {
        let (head, rest) = value.split_first_chunk::<2>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (time, bucket) = rest.split_first_chunk::<8>()?;
        let state = match head {
            [VERSION, 1] => LedgerState::Uploaded,
            [VERSION, 2] => LedgerState::Retired,
            _ => return None,
        };
        let bucket = std::str::from_utf8(bucket).ok()?.to_owned();
        Some(LedgerEntry { state, bucket, size: u64::from_be_bytes(*size), time: i64::from_be_bytes(*time) })
    }
}

impl Catalog {
    /// The blocks of a tenant (empty where there are no tenants), by their ids as texts.
    pub fn ledger(&self, tenant: &str) -> Result<BTreeMap<String, LedgerEntry>, Error> {
        let mut out = BTreeMap::new();
        self.inner.scan_tenant(LEDGER, tenant, |block, value| {
            let entry = LedgerEntry::decode(value);
            let entry = entry.ok_or_else(|| keys::strange(&self.inner.dir, LEDGER, block.as_bytes()))?;
            out.insert(block.to_owned(), entry);
            Ok(true)
        })?;
        Ok(out)
    }

    /// Notes blocks; what was said of them before is replaced.
    pub fn ledger_put<'a>(
        &self,
        tenant: &str,
        blocks: impl IntoIterator<Item = (&'a str, &'a LedgerEntry)>,
    ) -> Result<(), Error> {
        self.inner.write(Confirm::Yes, |db, batch, _| {
            let family = Inner::family(db, LEDGER)?;
            for (block, entry) in blocks {
                batch.put_cf(family, keys::key(tenant, block), entry.encode());
            }
            Ok(())
        })
    }

    /// Forgets blocks.
    pub fn ledger_remove<'a>(
        &self,
        tenant: &str,
        blocks: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Error> {
        self.inner.write(Confirm::Yes, |db, batch, _| {
            let family = Inner::family(db, LEDGER)?;
            for block in blocks {
                batch.delete_cf(family, keys::key(tenant, block));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_lead_back_and_bytes_never_panic(
            size in any::<u64>(), time in any::<i64>(), bucket in ".{0,40}", retired in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let state = if retired { LedgerState::Retired } else { LedgerState::Uploaded };
            let entry = LedgerEntry { state, bucket, size, time };
            prop_assert_eq!(LedgerEntry::decode(&entry.encode()), Some(entry));
            if let Some(entry) = LedgerEntry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
