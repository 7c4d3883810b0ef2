//! XORed values: only the stretch of bits in which two neighbours differ is written.
//!
//! Floats of XOR chunks and every float of a histogram chunk are written this way, each field with a window of its own.

use crate::Error;
use crate::bits::{BitReader, BitRun, PEEK};

/// No window of meaningful bits yet.
const NONE: u8 = 0xff;

/// The writer's window: zero bits before and behind the stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    leading: u8,
    trailing: u8,
}

impl Default for Window {
    fn default() -> Self {
        Window { leading: NONE, trailing: 0 }
    }
}

impl Window {
    /// Adds a value by its difference to the one before: at most 77 bits.
    #[inline(always)]
    pub(crate) fn put(&mut self, run: &mut BitRun, xor: u64) {
        if xor == 0 {
            return run.put(0, 1);
        }
        // Five bits for the leading zeros: 31 at most.
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        if self.leading != NONE && leading >= self.leading && trailing >= self.trailing {
            let bits = 64 - u32::from(self.leading) - u32::from(self.trailing);
            run.put(0b10, 2);
            run.put(xor >> self.trailing, bits);
        } else {
            *self = Window { leading, trailing };
            let bits = 64 - u32::from(leading) - u32::from(trailing);
            // 64 significant bits do not fit six bits and are written as 0, which cannot occur otherwise.
            run.put(0b11 << 11 | u64::from(leading) << 6 | u64::from(bits & 63), 13);
            run.put(xor >> trailing, bits);
        }
    }
}

/// The reader's window: how many bits, and how many zeroes follow. Width 0: none yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadWindow {
    width: u8,
    trailing: u8,
}

impl ReadWindow {
    /// Reads a difference that begins behind the first `used` of the reader's next `bits`, which the reader has not
    /// stepped over yet; `used` is 44 at most.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        reader: &mut BitReader<'_>,
        bits: u64,
        mut used: u32,
    ) -> Result<u64, Error> {
        let head = bits << used;
        if head >> 63 == 0 {
            reader.skip(used + 1);
            return Ok(0);
        }
        if head >> 62 == 0b11 {
            let leading = (head >> 57 & 0x1f) as u8;
            let width = match (head >> 51 & 0x3f) as u8 {
                0 => 64,
                width => width,
            };
            if leading + width > 64 {
                return malformed(reader, "value window is wider than 64 bits");
            }
            self.trailing = 64 - leading - width;
            self.width = width;
            used += 13;
        } else if self.width == 0 {
            return malformed(reader, "value reuses a window that was never set");
        } else {
            used += 2;
        }
        let width = u32::from(self.width);
        let xor = if used + width <= PEEK {
            reader.skip(used + width);
            bits << used >> (64 - width)
        } else {
            reader.skip(used);
            reader.bits(width)
        };
        Ok(xor << self.trailing)
    }
}

/// What looks malformed may be the zeroes behind a truncated chunk.
#[cold]
fn malformed(reader: &mut BitReader<'_>, what: &'static str) -> Result<u64, Error> {
    reader.skip(PEEK);
    reader.check()?;
    Err(Error::Malformed(what))
}
