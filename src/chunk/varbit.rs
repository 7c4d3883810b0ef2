//! Numbers of varying width inside a bit stream: Prometheus's varbit integers and XORed floats.

use crate::Error;
use crate::bits::{BitReader, BitWriter};

/// Bits of each class of integers; a class is announced by as many ones as its place, then a zero (but for
/// the last).
const WIDTHS: [u32; 8] = [3, 6, 9, 12, 18, 25, 56, 64];

/// Writes a signed integer; small magnitudes take few bits.
pub(crate) fn put_int(w: &mut BitWriter, out: &mut Vec<u8>, value: i64) {
    if value == 0 {
        return w.write(out, 0, 1);
    }
    // The range of n bits is asymmetric: -(2^(n-1))+1 to 2^(n-1).
    let fits = |n: u32| n == 64 || (-(1i64 << (n - 1)) < value && value <= 1i64 << (n - 1));
    put_class(w, out, value as u64, WIDTHS.iter().position(|n| fits(*n)));
}

/// Writes an unsigned integer.
pub(crate) fn put_uint(w: &mut BitWriter, out: &mut Vec<u8>, value: u64) {
    if value == 0 {
        return w.write(out, 0, 1);
    }
    put_class(w, out, value, WIDTHS.iter().position(|n| *n == 64 || value < 1u64 << n));
}

fn put_class(w: &mut BitWriter, out: &mut Vec<u8>, value: u64, class: Option<usize>) {
    // The last class takes everything.
    let class = class.unwrap_or(WIDTHS.len() - 1);
    if class == WIDTHS.len() - 1 {
        w.write(out, 0xff, 8);
    } else {
        // class + 1 ones and a zero.
        w.write(out, (1u64 << (class + 2)) - 2, class as u32 + 2);
    }
    w.write(out, value, WIDTHS[class]);
}

/// Reads what [`put_int`] wrote.
pub(crate) fn int(r: &mut BitReader<'_>) -> Result<i64, Error> {
    let Some(width) = class(r)? else { return Ok(0) };
    let raw = r.bits(width)?;
    if width == 64 {
        return Ok(raw as i64);
    }
    let raw = raw as i64;
    Ok(if raw > 1 << (width - 1) { raw - (1 << width) } else { raw })
}

/// Reads what [`put_uint`] wrote.
pub(crate) fn uint(r: &mut BitReader<'_>) -> Result<u64, Error> {
    match class(r)? {
        Some(width) => r.bits(width),
        None => Ok(0),
    }
}

fn class(r: &mut BitReader<'_>) -> Result<Option<u32>, Error> {
    let mut ones = 0;
    while ones < WIDTHS.len() && r.bit()? {
        ones += 1;
    }
    Ok(ones.checked_sub(1).map(|class| WIDTHS[class]))
}

/// The stretch of bits in which values of one field differ; none before the first difference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    leading: u8,
    trailing: u8,
}

const NONE: u8 = 0xff;

impl Default for Window {
    fn default() -> Self {
        Window { leading: NONE, trailing: 0 }
    }
}

impl Window {
    fn width(self) -> u32 {
        64 - u32::from(self.leading) - u32::from(self.trailing)
    }

    /// Writes `value` as its difference to `before`.
    pub(crate) fn put(&mut self, w: &mut BitWriter, out: &mut Vec<u8>, before: u64, value: u64) {
        let xor = before ^ value;
        if xor == 0 {
            return w.write(out, 0, 1);
        }
        // Five bits for the leading zeros: 31 at most.
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        if self.leading != NONE && leading >= self.leading && trailing >= self.trailing {
            w.write(out, 0b10, 2);
        } else {
            *self = Window { leading, trailing };
            // 64 significant bits do not fit six bits and are written as 0, which cannot occur otherwise.
            w.write(out, 0b11 << 11 | u64::from(leading) << 6 | u64::from(self.width() & 63), 13);
        }
        w.write(out, xor >> self.trailing, self.width());
    }

    /// Reads the value that follows `before`.
    pub(crate) fn take(&mut self, r: &mut BitReader<'_>, before: u64) -> Result<u64, Error> {
        if !r.bit()? {
            return Ok(before);
        }
        if r.bit()? {
            let head = r.bits(11)?;
            let leading = (head >> 6) as u8;
            let bits = match head & 63 {
                0 => 64,
                n => n as u8,
            };
            if leading + bits > 64 {
                return Err(Error::Malformed("value window is wider than 64 bits"));
            }
            *self = Window { leading, trailing: 64 - leading - bits };
        } else if self.leading == NONE {
            return Err(Error::Malformed("value reuses a window that was never set"));
        }
        Ok(before ^ r.bits(self.width())? << self.trailing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip_at_every_edge() {
        let mut values: Vec<i64> = vec![0, i64::MIN, i64::MAX];
        for n in [3u32, 6, 9, 12, 18, 25, 56] {
            for d in -2..=2 {
                values.extend([(1i64 << (n - 1)) + d, -(1i64 << (n - 1)) + d, (1i64 << n) + d]);
            }
        }
        let (mut w, mut out) = (BitWriter::default(), Vec::new());
        for v in &values {
            put_int(&mut w, &mut out, *v);
            put_uint(&mut w, &mut out, *v as u64);
        }
        let mut r = BitReader::new(&out);
        for v in values {
            assert_eq!(int(&mut r), Ok(v));
            assert_eq!(uint(&mut r), Ok(v as u64));
        }
    }

    #[test]
    fn bits_are_prometheuss() {
        let bits = |v: i64| {
            let (mut w, mut out) = (BitWriter::default(), Vec::new());
            put_int(&mut w, &mut out, v);
            out.iter().map(|b| format!("{b:08b}")).collect::<String>()
        };
        // 4 is the greatest of three bits, though its top bit is set; 5 takes the next class.
        assert_eq!(bits(4), "10100000");
        assert_eq!(bits(-3), "10101000");
        assert_eq!(bits(5), "1100001010000000"[..16].to_owned());
        assert!(bits(i64::MIN).starts_with("11111111"));
    }
}
