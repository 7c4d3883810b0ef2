//! A bit stream, most significant bit first, and Go's varints inside it.
//!
//! # Cost
//! The writer keeps one partial byte at the end of the buffer; a write touches at most nine bytes. The reader
//! refills a 64-bit window and hands out up to 57 bits without a branch per bit.

use crate::Error;

/// Appends bits to a byte vector. The last byte is zero-padded at every moment, so the buffer can be read
/// while it grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BitWriter {
    /// Unused low bits of the buffer's last byte, 0 to 7.
    free: u8,
}

impl BitWriter {
    /// Continues after a buffer whose last byte has `free` unused low bits.
    pub(crate) fn resume(free: u8) -> BitWriter {
        BitWriter { free }
    }

    pub(crate) fn free(&self) -> u8 {
        self.free
    }

    /// Writes the low `count` bits of `value`, 1 to 64 of them.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, value: u64, count: u32) {
        let mut left = count;
        let value = if count < 64 { value & ((1u64 << count) - 1) } else { value };
        if self.free > 0
            && let Some(last) = out.last_mut()
        {
            let free = self.free as u32;
            if left <= free {
                *last |= (value << (free - left)) as u8;
                self.free = (free - left) as u8;
                return;
            }
            *last |= (value >> (left - free)) as u8;
            left -= free;
        }
        let whole = left / 8;
        let rest = left % 8;
        for at in (0..whole).rev() {
            out.push((value >> (rest + at * 8)) as u8);
        }
        if rest > 0 {
            out.push((value << (8 - rest)) as u8);
            self.free = (8 - rest) as u8;
        } else {
            self.free = 0;
        }
    }
}

/// Reads bits from a byte slice.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    rest: &'a [u8],
    /// Unread bits, left-aligned.
    window: u64,
    /// How many of them there are.
    have: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { rest: bytes, window: 0, have: 0 }
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(eight) = self.rest.first_chunk::<8>() {
            let take = (64 - self.have) / 8;
            let fresh = u64::from_be_bytes(*eight);
            if take == 0 {
                return;
            }
            // Bits beyond the whole bytes taken are written again, with the same values, at the next refill.
            let keep = fresh & (u64::MAX << (64 - take * 8));
            self.window |= keep >> self.have;
            self.have += take * 8;
            self.rest = &self.rest[take as usize..];
        } else {
            while self.have <= 56 {
                let Some((&byte, tail)) = self.rest.split_first() else { break };
                self.window |= (byte as u64) << (56 - self.have);
                self.have += 8;
                self.rest = tail;
            }
        }
    }

    /// The next bit.
    #[inline]
    pub(crate) fn bit(&mut self) -> Result<bool, Error> {
        if self.have == 0 {
            self.refill();
            if self.have == 0 {
                return Err(Error::Truncated);
            }
        }
        let bit = self.window >> 63 != 0;
        self.window <<= 1;
        self.have -= 1;
        Ok(bit)
    }

    /// The next `count` bits, 0 to 64, in the low end of the result.
    #[inline]
    pub(crate) fn bits(&mut self, count: u32) -> Result<u64, Error> {
        if count == 0 {
            return Ok(0);
        }
        if self.have < count {
            self.refill();
        }
        if self.have >= count {
            let out = self.window >> (64 - count);
            self.window = if count == 64 { 0 } else { self.window << count };
            self.have -= count;
            return Ok(out);
        }
        if count > 56 {
            // The window cannot be filled up to this count from an odd position: take it in two.
            let high = self.bits(count - 32)?;
            let low = self.bits(32)?;
            return Ok(high << 32 | low);
        }
        Err(Error::Truncated)
    }

    /// An unsigned LEB128, byte by byte from the current bit.
    pub(crate) fn uvarint(&mut self) -> Result<u64, Error> {
        let mut out = 0u64;
        for at in 0..10 {
            let byte = self.bits(8)?;
            if at == 9 && byte > 1 {
                return Err(Error::Malformed("varint overflows 64 bits"));
            }
            out |= (byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err(Error::Malformed("varint overflows 64 bits"))
    }

    /// A zigzag LEB128.
    pub(crate) fn varint(&mut self) -> Result<i64, Error> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, (value << 1) as u64 ^ (value >> 63) as u64);
}
