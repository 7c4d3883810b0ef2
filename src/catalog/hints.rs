//! The index of hint files: what each file of a peer's hints holds, and how far they were delivered.
//!
//! Everything here can be read from the files themselves; what a crash takes is delivered once more, which changes
//! nothing at the peer. So nothing is confirmed.

use std::collections::BTreeMap;

use model::Timestamp;

use crate::database::{Confirm, Inner};
use crate::family::HINTS;
use crate::{Catalog, Error, keys};

const VERSION: u8 = 1;
/// Number of the entry that is no file but says how far a peer's hints were delivered. Files count from 1.
const CURSOR: u64 = 0;

/// One file of hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintFile {
    /// From 1, as in its name.
    pub index: u64,
    pub hints: u64,
    pub samples: u64,
    pub bytes: u64,
    /// When the first and the last of its hints were kept, in milliseconds.
    pub oldest: Timestamp,
    pub newest: Timestamp,
}

/// How far the hints of a peer were delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintCursor {
    /// Name of the folder's life; of another one the rest says nothing.
    pub life: [u8; 16],
    pub segment: u64,
    pub offset: u64,
    pub seq: u64,
}

/// What the index knows of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HintIndex {
    pub cursor: Option<HintCursor>,
    pub files: Vec<HintFile>,
}

fn key(peer: &str, number: u64) -> Vec<u8> {
    let mut key = keys::key(peer, "");
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn split(key: &[u8]) -> Option<(&str, u64)> {
    let (peer, number) = key.split_last_chunk::<8>()?;
    let (zero, peer) = peer.split_last()?;
    (*zero == 0).then_some((std::str::from_utf8(peer).ok()?, u64::from_be_bytes(*number)))
}

impl HintFile {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [self.hints, self.samples, self.bytes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.oldest.to_be_bytes());
        out.extend_from_slice(&self.newest.to_be_bytes());
        out
    }

    fn decode(index: u64, value: &[u8]) -> Option<HintFile> {
        let (version, rest) = value.split_first()?;
        let numbers: Vec<[u8; 8]> = rest.chunks(8).filter_map(|chunk| chunk.try_into().ok()).collect();
        let [hints, samples, bytes, oldest, newest] = numbers[..] else { return None };
        let [hints, samples, bytes] = [hints, samples, bytes].map(u64::from_be_bytes);
        let [oldest, newest] = [oldest, newest].map(i64::from_be_bytes);
        (*version == VERSION && rest.len() == 40).then_some(HintFile {
            index,
            hints,
            samples,
            bytes,
            oldest,
            newest,
        })
    }
}

impl HintCursor {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.life);
        for number in [self.segment, self.offset, self.seq] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    fn decode(value: &[u8]) -> Option<HintCursor> {
        let (version, rest) = value.split_first()?;
        let (life, rest) = rest.split_first_chunk::<16>()?;
        let numbers: Vec<u64> =
            rest.chunks(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_be_bytes).collect();
        let [segment, offset, seq] = numbers[..] else { return None };
        (*version == VERSION && rest.len() == 24).then_some(HintCursor { life: *life, segment, offset, seq })
    }
}

/// Puts one entry into an index by peer; false where it cannot be read.
pub(crate) fn take(key: &[u8], value: &[u8], out: &mut BTreeMap<String, HintIndex>) -> bool {
    let Some((peer, number)) = split(key) else { return false };
    let index = out.entry(peer.to_owned()).or_default();
    if number == CURSOR {
        index.cursor = HintCursor::decode(value);
        return index.cursor.is_some();
    }
    let file = HintFile::decode(number, value);
    index.files.extend(file);
    file.is_some()
}

impl Catalog {
    /// What is known of all peers' hints.
    pub fn hints(&self) -> Result<BTreeMap<String, HintIndex>, Error> {
        let mut out = BTreeMap::new();
        self.inner.scan(HINTS, (&[], None), |key, value| match take(key, value, &mut out) {
            true => Ok(true),
            false => Err(keys::strange(&self.inner.dir, HINTS, key)),
        })?;
        Ok(out)
    }

    /// Says of a peer's hints which files they are in, which are gone, and how far they were delivered.
    pub fn hints_put(
        &self,
        peer: &str,
        files: &[HintFile],
        gone: &[u64],
        cursor: Option<&HintCursor>,
    ) -> Result<(), Error> {
        self.inner.write(Confirm::No, |db, batch, _| {
            let family = Inner::family(db, HINTS)?;
            for file in files {
                batch.put_cf(family, key(peer, file.index), file.encode());
            }
            for index in gone {
                batch.delete_cf(family, key(peer, *index));
            }
            if let Some(cursor) = cursor {
                batch.put_cf(family, key(peer, CURSOR), cursor.encode());
            }
            Ok(())
        })
    }

    /// Forgets a peer's hints.
    pub fn hints_forget(&self, peer: &str) -> Result<(), Error> {
        let (start, end) = keys::range(peer);
        let mut known = Vec::new();
        self.inner.scan(HINTS, (&start, Some(&end)), |key, _| {
            known.push(key.to_vec());
            Ok(true)
        })?;
        self.inner.write(Confirm::No, |db, batch, _| {
            let family = Inner::family(db, HINTS)?;
            known.iter().for_each(|key| batch.delete_cf(family, key));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runtime::World;

    use super::*;

    #[test]
    fn the_index_of_a_peer_is_kept_apart_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&World::real(), dir.path()).unwrap();
        let file = |index| HintFile { index, hints: 2, samples: 9, bytes: 100, oldest: -5, newest: 7 };
        let cursor = HintCursor { life: [7; 16], segment: 2, offset: 64, seq: 9 };
        catalog.hints_put("a:1", &[file(1), file(2)], &[], Some(&cursor)).unwrap();
        catalog.hints_put("a:10", &[file(3)], &[], None).unwrap();
        catalog.hints_put("a:1", &[file(3)], &[1], None).unwrap();
        catalog.close().unwrap();
        drop(catalog);
        let catalog = Catalog::open(&World::real(), dir.path()).unwrap();
        let known = catalog.hints().unwrap();
        assert_eq!(known["a:1"], HintIndex { cursor: Some(cursor), files: vec![file(2), file(3)] });
        assert_eq!(known["a:10"].files, [file(3)]);
        catalog.hints_forget("a:1").unwrap();
        assert_eq!(catalog.hints().unwrap().keys().collect::<Vec<_>>(), ["a:10"]);
    }

    proptest! {
        #[test]
        fn entries_of_any_bytes_never_panic(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            take(&key, &value, &mut BTreeMap::new());
            if let Some(file) = HintFile::decode(1, &value) {
                prop_assert_eq!(file.encode(), value.clone());
            }
            if let Some(cursor) = HintCursor::decode(&value) {
                prop_assert_eq!(cursor.encode(), value);
            }
        }
    }
}
