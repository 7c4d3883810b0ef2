//! Bytes in memory that begin where a disk wants them to.

/// A buffer that is used again; see [`crate::File::alignment`].
#[derive(Debug, Default)]
pub struct Aligned(Vec<u8>);

impl Aligned {
    /// The first `len` bytes from a multiple of `alignment` on, with whatever is left there from before.
    pub fn bytes(&mut self, len: usize, alignment: usize) -> &mut [u8] {
        let alignment = alignment.next_power_of_two();
        if self.0.len() < len + alignment {
            self.0 = vec![0; len + alignment];
        }
        let start = self.0.as_ptr().align_offset(alignment);
        // No such place: the write will say so.
        let start = if start < alignment { start } else { 0 };
        &mut self.0[start..start + len]
    }

    /// As [`Aligned::bytes`], all of them zero.
    pub fn zeroed(&mut self, len: usize, alignment: usize) -> &mut [u8] {
        let bytes = self.bytes(len, alignment);
        bytes.fill(0);
        bytes
    }

    /// Gives the memory back where it is more than `most`.
    pub fn shrink(&mut self, most: usize) {
        if self.0.len() > most {
            self.0 = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_at_multiples_and_grow() {
        let mut buf = Aligned::default();
        for (len, alignment) in [(1, 1), (10, 512), (9000, 4096), (4096, 4096), (0, 4096)] {
            let bytes = buf.bytes(len, alignment);
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr() as usize % alignment, 0);
            bytes.fill(7);
            assert!(buf.zeroed(len, alignment).iter().all(|byte| *byte == 0));
        }
        buf.shrink(100);
        assert!(buf.0.is_empty());
    }
}
