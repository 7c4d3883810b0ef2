//! Fields of varying width, one after the other: Prometheus's varbit integers and XORed floats.

use crate::bits::{BitReader, BitRun};
use crate::window::Window;

/// Appends fields to a buffer that it continues.
#[derive(Debug)]
pub struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Unused low bits of the buffer's last byte, 0 to 7.
    free: u8,
}

impl<'a> BitWriter<'a> {
    /// Continues after a buffer whose last byte has `free` unused low bits.
    pub(crate) fn new(out: &'a mut Vec<u8>, free: u8) -> BitWriter<'a> {
        BitWriter { out, free }
    }

    /// Unused low bits of the last byte: what the next writer is to be told.
    pub(crate) fn free(&self) -> u8 {
        self.free
    }

    #[inline]
    fn append(&mut self, run: BitRun) {
        self.free = run.append(self.out, self.free);
    }

    /// The low `count` bits of `value`, 1 to 64 of them; what is above them must be zero.
    pub(crate) fn bits(&mut self, value: u64, count: u32) {
        let mut run = BitRun::default();
        run.put(value, count);
        self.append(run);
    }

    /// A signed integer; small magnitudes take few bits.
    pub(crate) fn int(&mut self, value: i64) {
        // The range of n bits is asymmetric: -(2^(n-1))+1 to 2^(n-1).
        let class = match value {
            0 => return self.bits(0, 1),
            -3..=4 => 0,
            -31..=32 => 1,
            -255..=256 => 2,
            -2047..=2048 => 3,
            -131_071..=131_072 => 4,
            -16_777_215..=16_777_216 => 5,
            v if v > -(1 << 55) && v <= 1 << 55 => 6,
            _ => 7,
        };
        self.class(class, value as u64);
    }

    /// An unsigned integer.
    pub(crate) fn uint(&mut self, value: u64) {
        match WIDTHS.iter().position(|n| *n == 64 || value < 1u64 << n) {
            _ if value == 0 => self.bits(0, 1),
            // The last class takes everything.
            class => self.class(class.unwrap_or(WIDTHS.len() - 1), value),
        }
    }

    #[inline]
    fn class(&mut self, class: usize, value: u64) {
        let mut run = BitRun::default();
        match class {
            7 => run.put(0xff, 8),
            // class + 1 ones and a zero.
            _ => run.put((1 << (class + 2)) - 2, class as u32 + 2),
        }
        let width = WIDTHS[class];
        run.put(value & (u64::MAX >> (64 - width)), width);
        self.append(run);
    }

    /// A float by its difference to the one before.
    #[inline]
    pub(crate) fn xor(&mut self, window: &mut Window, xor: u64) {
        let mut run = BitRun::default();
        window.put(&mut run, xor);
        self.append(run);
    }
}

/// Bits of each class of integers; a class is announced by as many ones as its place, then a zero (but for
/// the last).
const WIDTHS: [u32; 8] = [3, 6, 9, 12, 18, 25, 56, 64];

/// Reads what [`BitWriter::int`] wrote.
#[inline]
pub(crate) fn int(r: &mut BitReader<'_>) -> i64 {
    let Some(width) = class(r) else { return 0 };
    let raw = r.bits(width) as i64;
    if width < 64 && raw > 1 << (width - 1) { raw - (1 << width) } else { raw }
}

/// Reads what [`BitWriter::uint`] wrote.
#[inline]
pub(crate) fn uint(r: &mut BitReader<'_>) -> u64 {
    class(r).map_or(0, |width| r.bits(width))
}

#[inline]
fn class(r: &mut BitReader<'_>) -> Option<u32> {
    let ones = (r.peek().leading_ones() as usize).min(WIDTHS.len());
    r.skip(if ones == WIDTHS.len() { ones } else { ones + 1 } as u32);
    ones.checked_sub(1).map(|class| WIDTHS[class])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64]) {
        let mut out = Vec::new();
        let mut w = BitWriter::new(&mut out, 0);
        for v in values {
            w.int(*v);
            w.uint(*v as u64);
        }
        let mut r = BitReader::new(&out);
        for v in values {
            assert_eq!(int(&mut r), *v);
            assert_eq!(uint(&mut r), *v as u64);
        }
        assert!(r.check().is_ok());
    }

    #[test]
    fn integers_round_trip_at_every_edge() {
        let mut values: Vec<i64> = vec![0, i64::MIN, i64::MAX];
        for n in [3u32, 6, 9, 12, 18, 25, 56] {
            for d in -2..=2 {
                values.extend([(1i64 << (n - 1)) + d, -(1i64 << (n - 1)) + d, (1i64 << n) + d]);
            }
        }
        round_trip(&values);
    }

    #[test]
    fn bits_are_prometheuss() {
        let text = |write: &dyn Fn(&mut BitWriter<'_>)| {
            let mut out = Vec::new();
            let mut w = BitWriter::new(&mut out, 0);
            write(&mut w);
            let free = w.free() as usize;
            let all: String = out.iter().map(|b| format!("{b:08b}")).collect();
            all[..all.len() - free].to_owned()
        };
        let int = |v: i64| text(&|w| w.int(v));
        let uint = |v: u64| text(&|w| w.uint(v));
        assert_eq!(int(0), "0");
        // 4 is the greatest of three bits, though its top bit is set; 5 takes the next class.
        assert_eq!(int(4), "10100");
        assert_eq!(int(-3), "10101");
        assert_eq!(int(-4), "110111100");
        assert_eq!(int(5), "110000101");
        assert_eq!(int(33), "1110000100001");
        assert_eq!(int(257), "11110000100000001");
        assert_eq!(int(2049), "111110000000100000000001");
        assert_eq!(int(131_073), "11111100000000100000000000000001");
        assert_eq!(int(16_777_217), format!("11111110{:056b}", 16_777_217));
        assert_eq!(int(1 << 55), format!("11111110{:056b}", 1u64 << 55));
        assert_eq!(int(-(1 << 55)), format!("11111111{:064b}", -(1i64 << 55) as u64));
        assert_eq!(int(i64::MIN), format!("11111111{:064b}", 1u64 << 63));
        assert_eq!(uint(7), "10111");
        assert_eq!(uint(8), "110001000");
        assert_eq!(uint((1 << 25) - 1), format!("1111110{}", "1".repeat(25)));
        assert_eq!(uint(1 << 25), format!("11111110{:056b}", 1 << 25));
        assert_eq!(uint(u64::MAX), "1".repeat(72));
    }

    proptest! {
        #[test]
        fn integers_round_trip(values in prop::collection::vec((any::<i64>(), 0u32..64), 0..50)) {
            round_trip(&values.iter().map(|(v, by)| v >> by).collect::<Vec<_>>());
        }
    }
}
