//! Writes bytes of any length one after the other to files that take whole blocks.
//!
//! The block in which the last write ended is written again, with what follows it. That endangers nothing that was durable:
//! whatever of it reaches the disk is what was there before.

use std::io;

use runtime::Aligned;

use crate::segment::Segment;

/// Remembers where it stopped.
#[derive(Default)]
pub(crate) struct Pen {
    out: Aligned,
    /// Segment and offset at which the last write ended, and what its last block holds up to there.
    at: (u64, u64),
    tail: Vec<u8>,
}

impl Pen {
    /// Writes `bytes` at `offset`, and zeroes up to the next block. Nothing behind them may be in use.
    pub(crate) fn write(&mut self, segment: &Segment, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (file, block) = (&segment.file, segment.file.alignment());
        if block <= 1 {
            return file.write_all_at(bytes, offset);
        }
        let before = (offset % block as u64) as usize;
        let (from, end) = (offset - before as u64, before + bytes.len());
        let out = self.out.bytes(end.next_multiple_of(block), block);
        if before > 0 {
            if self.at == (segment.index, offset) {
                out[..before].copy_from_slice(&self.tail);
            } else {
                file.read_exact_at(&mut out[..block], from)?;
            }
        }
        out[before..end].copy_from_slice(bytes);
        out[end..].fill(0);
        file.write_all_at(out, from)?;
        self.tail.clear();
        self.tail.extend_from_slice(&out[end - end % block..end]);
        self.at = (segment.index, offset + bytes.len() as u64);
        Ok(())
    }

    pub(crate) fn shrink(&mut self, most: usize) {
        self.out.shrink(most);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runtime::Disk;
    use testkit::MemDisk;

    use super::*;

    #[test]
    fn what_is_written_in_any_lengths_is_there_as_one() {
        let disk = MemDisk::new().with_alignment(512);
        let whole: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
        let path = Path::new("/segment");
        disk.create(path).unwrap().set_len(8192).unwrap();
        let open =
            || Segment { index: 1, path: path.into(), file: disk.open_direct(path).unwrap(), len: 8192 };
        let (mut pen, mut at) = (Pen::default(), 0);
        for (n, len) in [64, 448, 512, 1, 1023, 8, 1000, 0, 1944].into_iter().enumerate() {
            // Now and then another one takes it up.
            if n % 3 == 2 {
                pen = Pen::default();
            }
            pen.write(&open(), &whole[at..at + len], at as u64).unwrap();
            at += len;
        }
        assert_eq!(at, whole.len());
        let bytes = disk.read(path).unwrap();
        assert_eq!(bytes[..5000], whole);
        assert!(bytes[5000..].iter().all(|byte| *byte == 0));
        let unaligned = open().file.write_all_at(&whole[..10], 512);
        assert!(unaligned.is_err());
    }
}
