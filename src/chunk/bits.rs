//! A bit stream, most significant bit first, and Go's varints inside it.
//!
//! # Cost
//! The writer collects a sample's bits in a register and appends them with one copy of sixteen bytes. The reader loads
//! eight bytes at its position and hands out up to 57 bits from them: one load and one shift, no state to refill.

use crate::Error;

/// Bits that are collected to be appended at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BitRun {
    bits: u128,
    count: u32,
}

/// Most bits of one run: with the seven that may share its first byte it fills 16 bytes.
const RUN: u32 = 121;

impl BitRun {
    /// Adds the low `count` bits of `value`, 1 to 64 of them; what is above them must be zero. Not more than
    /// [`RUN`] bits in all.
    #[inline(always)]
    pub(crate) fn put(&mut self, value: u64, count: u32) {
        debug_assert!(self.count + count <= RUN && (count == 64 || value >> count == 0));
        self.bits = self.bits << count | u128::from(value);
        self.count += count;
    }

    /// Appends the run to a buffer whose last byte has `free` unused low bits, 0 to 7, and returns how many it has
    /// then. The last byte is zero-padded, so the buffer can be read while it grows.
    #[inline(always)]
    pub(crate) fn append(self, out: &mut impl Out, free: u8) -> u8 {
        let mut run = self;
        if free > 0
            && let Some(last) = out.pop()
        {
            let used = 8 - u32::from(free);
            run.bits |= u128::from(last >> free) << run.count;
            run.count += used;
        }
        let bytes = (run.bits << (128 - run.count)).to_be_bytes();
        out.put_first(&bytes, run.count.div_ceil(8) as usize);
        (run.count.next_multiple_of(8) - run.count) as u8
    }
}

/// Where bytes of a chunk are appended.
pub(crate) trait Out {
    fn pop(&mut self) -> Option<u8>;
    fn put(&mut self, byte: u8);
    /// Appends the first `len` of sixteen bytes.
    fn put_first(&mut self, bytes: &[u8; 16], len: usize);
}

impl Out for Vec<u8> {
    #[inline(always)]
    fn pop(&mut self) -> Option<u8> {
        Vec::pop(self)
    }

    #[inline(always)]
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline(always)]
    fn put_first(&mut self, bytes: &[u8; 16], len: usize) {
        // Sixteen bytes are copied at once and cut: cheaper than a copy of varying length.
        let len = self.len() + len;
        self.extend_from_slice(bytes);
        self.truncate(len);
    }
}

/// The first `len` bytes of a place of fixed size. What does not fit is dropped: who appends makes sure before.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub bytes: &'a mut [u8],
    pub len: usize,
}

impl Out for Place<'_> {
    #[inline(always)]
    fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        self.bytes.get(self.len).copied()
    }

    #[inline(always)]
    fn put(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
        }
        self.len += 1;
    }

    #[inline(always)]
    fn put_first(&mut self, bytes: &[u8; 16], len: usize) {
        let rest = self.bytes.get_mut(self.len..).unwrap_or_default();
        match rest.first_chunk_mut::<16>() {
            Some(sixteen) => *sixteen = *bytes,
            None => {
                let len = len.min(rest.len());
                rest[..len].copy_from_slice(&bytes[..len]);
            }
        }
        self.len += len;
    }
}

/// Reads bits from a byte slice. Beyond the end there are zeroes without end: who reads asks
/// [`BitReader::check`] once per sample, not once per bit.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bit, counted from the first of `bytes`.
    position: usize,
}

/// Bits of [`BitReader::peek`] that are always there.
pub(crate) const PEEK: u32 = 57;

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, position: 0 }
    }

    /// The next bits, left-aligned; the first [`PEEK`] of them are valid.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        let at = self.position / 8;
        let word = match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(eight) => u64::from_be_bytes(*eight),
            None => self.peek_at_end(at),
        };
        word << (self.position % 8)
    }

    /// As many bytes as there are from `at` on, and zeroes.
    #[cold]
    fn peek_at_end(&self, at: usize) -> u64 {
        if let Some(last) = self.bytes.last_chunk::<8>() {
            let missing = at + 8 - self.bytes.len();
            return u64::from_be_bytes(*last).checked_shl(8 * missing as u32).unwrap_or(0);
        }
        let mut eight = [0; 8];
        let rest = self.bytes.get(at..).unwrap_or_default();
        let len = rest.len().min(8);
        eight[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(eight)
    }

    #[inline(always)]
    pub(crate) fn skip(&mut self, bits: u32) {
        self.position += bits as usize;
    }

    /// The next `count` bits, 1 to 64, in the low end of the result.
    #[inline(always)]
    pub(crate) fn bits(&mut self, count: u32) -> u64 {
        if count <= PEEK {
            let out = self.peek() >> (64 - count);
            self.skip(count);
            return out;
        }
        let high = self.peek() >> 32;
        self.skip(32);
        let low = self.peek() >> (96 - count);
        self.skip(count - 32);
        high << (count - 32) | low
    }

    /// Whether all bits read so far were there.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.position > self.bytes.len() * 8 { Err(Error::Truncated) } else { Ok(()) }
    }

    /// Bits that are still there.
    pub(crate) fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.position)
    }

    /// An unsigned LEB128, byte by byte from the current bit.
    pub(crate) fn uvarint(&mut self) -> Result<u64, Error> {
        let mut out = 0u64;
        for at in 0..10 {
            let byte = self.bits(8);
            self.check()?;
            if at == 9 && byte > 1 {
                break;
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

pub(crate) fn put_uvarint(out: &mut impl Out, mut value: u64) {
    while value >= 0x80 {
        out.put(value as u8 | 0x80);
        value >>= 7;
    }
    out.put(value as u8);
}

pub(crate) fn put_varint(out: &mut impl Out, value: i64) {
    put_uvarint(out, (value << 1) as u64 ^ (value >> 63) as u64);
}
