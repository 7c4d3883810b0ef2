//! How far the catalog has promised to remember: the sequence number of the last write that was confirmed.
//!
//! RocksDB takes a log that ends too early for one that a crash has cut, and goes on without what is missing; a
//! flipped bit in a length looks the same. Whoever is told that a write is safe must never see it gone without a
//! word, so the number of the last such write stands here, in two slots that are written in turn.
//!
//! ```text
//! offset 0 and 512:  "TCAT" | sequence u64 LE | crc32c u32 LE over what is before it
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::{File, World};

use crate::Error;
use crate::error;

const FILE: &str = "acked";
const MAGIC: &[u8; 4] = b"TCAT";
/// Slots lie in sectors of their own: a torn write spoils the one that is written.
const STRIDE: u64 = 512;
const LEN: usize = 16;

pub(crate) struct Mark {
    file: Arc<dyn File>,
    path: PathBuf,
    /// The highest confirmed sequence number.
    pub sequence: u64,
    /// Where the next one goes.
    slot: u64,
}

fn encode(sequence: u64) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..4].copy_from_slice(MAGIC);
    out[4..12].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; LEN]) -> Option<u64> {
    let crc = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    (&bytes[..4] == MAGIC && crc == crc32c::crc32c(&bytes[..12])).then(|| {
        u64::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11]])
    })
}

/// The slots of a file: their numbers, none for one that was never written. An error where neither can be read.
fn slots(content: &[u8]) -> Result<[Option<u64>; 2], &'static str> {
    let mut out = [None, None];
    let mut empty = 0;
    for (at, slot) in out.iter_mut().enumerate() {
        let start = at * STRIDE as usize;
        let bytes =
            content.get(start..).and_then(|rest| rest.first_chunk::<LEN>()).ok_or("it is cut short")?;
        *slot = decode(bytes);
        empty += usize::from(bytes.iter().all(|b| *b == 0));
    }
    match out {
        [None, None] if empty < 2 => Err("neither of its numbers can be read"),
        _ => Ok(out),
    }
}

impl Mark {
    /// Reads the folder's mark, and makes one where there is neither mark nor database.
    pub fn open(world: &World, dir: &Path, has_database: bool) -> Result<Mark, Error> {
        let path = dir.join(FILE);
        let disk = &*world.disk;
        if !disk.exists(&path) {
            if has_database {
                return Err(error::damaged(dir, format!("{FILE} is missing")));
            }
            // A name of its own first: a mark that is there is whole.
            disk.write_atomic(&path, &[0; 2 * STRIDE as usize]).map_err(|e| error::io("write", &path, e))?;
        }
        let content = disk.read(&path).map_err(|e| error::io("read", &path, e))?;
        let slots = slots(&content).map_err(|why| error::damaged(dir, format!("{FILE}: {why}")))?;
        let file = disk.open(&path).map_err(|e| error::io("open", &path, e))?;
        let sequence = slots[0].max(slots[1]).unwrap_or(0);
        Ok(Mark { file, path, sequence, slot: u64::from(slots[0] >= slots[1]) })
    }

    /// Notes that everything up to `sequence` is safe; returns once that is safe too.
    pub fn advance(&mut self, sequence: u64) -> Result<(), Error> {
        if sequence <= self.sequence {
            return Ok(());
        }
        let at = self.slot * STRIDE;
        self.file.write_all_at(&encode(sequence), at).map_err(|e| error::io("write", &self.path, e))?;
        self.file.sync_data().map_err(|e| error::io("sync", &self.path, e))?;
        self.sequence = sequence;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_costs_the_newest_number_only() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let path = dir.path().join(FILE);
        let mut mark = Mark::open(&world, dir.path(), false).unwrap();
        assert_eq!(mark.sequence, 0);
        for n in 1..=5 {
            mark.advance(n * 10).unwrap();
            mark.advance(3).unwrap();
            assert_eq!(Mark::open(&world, dir.path(), true).unwrap().sequence, n * 10);
        }
        let content = world.disk.read(&path).unwrap();
        for at in 0..LEN {
            for start in [0, STRIDE as usize] {
                let mut torn = content.clone();
                torn[start + at] ^= 1;
                world.disk.write_atomic(&path, &torn).unwrap();
                let left = Mark::open(&world, dir.path(), true).unwrap();
                assert_eq!(left.sequence, if start == 0 { 50 } else { 40 });
                torn[512 - start + at] ^= 4;
                world.disk.write_atomic(&path, &torn).unwrap();
                assert_eq!(Mark::open(&world, dir.path(), true).err().unwrap().kind, model::Kind::Corrupt);
            }
        }
        world.disk.write_atomic(&path, &content[..20]).unwrap();
        assert!(Mark::open(&world, dir.path(), true).is_err());
        world.disk.remove_file(&path).unwrap();
        assert!(Mark::open(&world, dir.path(), true).is_err());
    }
}
