//! Float chunks of newer Prometheus (encoding 4): times and values share a prefix, stale markers take five bits, and
//! samples may carry the time at which their counter began.

use model::{Sample, Timestamp, is_stale, stale_nan};

use crate::Error;
use crate::bits::{BitReader, put_uvarint, put_varint};
use crate::starts::{ReadStarts, WriteStarts};
use crate::varbit::BitWriter;
use crate::xor::{MAX_SAMPLES, count};

/// A sample and when its counter began, 0 where that is not known.
pub type Started = (Sample, Timestamp);

/// Bytes before the first sample: count and the header of starts.
const HEADER_BYTES: usize = 3;

/// Walks the samples of a chunk. Ends after its count or at the first error.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    reader: BitReader<'a>,
    left: u16,
    read: u16,
    timestamp: Timestamp,
    delta: u64,
    /// Bits of the last value that was not a stale marker.
    base: u64,
    /// Zero bits before and behind the stretch of bits that differ.
    leading: u32,
    trailing: u32,
    starts: ReadStarts,
}

impl<'a> Iter<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Iter<'a>, Error> {
        let left = count(bytes)?;
        let header = *bytes.get(HEADER_BYTES - 1).ok_or(Error::Truncated)?;
        Ok(Iter {
            reader: BitReader::new(&bytes[HEADER_BYTES..]),
            left,
            read: 0,
            timestamp: 0,
            delta: 0,
            base: 0,
            leading: 0,
            trailing: 0,
            starts: ReadStarts::new(header),
        })
    }

    fn step(&mut self) -> Result<Started, Error> {
        let before = self.timestamp;
        let value = match self.read {
            0 => {
                self.timestamp = self.reader.varint()?;
                let value = f64::from_bits(self.reader.bits(64));
                if !is_stale(value) {
                    self.base = value.to_bits();
                }
                value
            }
            1 => {
                self.delta = self.reader.uvarint()?;
                self.timestamp = self.timestamp.wrapping_add(self.delta as i64);
                self.value()?
            }
            _ => self.joint()?,
        };
        let start = self.starts.next(&mut self.reader, self.read, before, self.timestamp)?;
        self.reader.check()?;
        self.read += 1;
        Ok((Sample { timestamp: self.timestamp, value }, start))
    }

    /// Time and value under one prefix.
    fn joint(&mut self) -> Result<f64, Error> {
        let ones = self.reader.peek().leading_ones().min(5);
        self.reader.skip(if ones == 5 { 5 } else { ones + 1 });
        let width = match ones {
            2 => 13,
            3 => 20,
            4 => 64,
            _ => 0,
        };
        if width > 0 {
            let raw = self.reader.bits(width) as i64;
            let dod = if width < 64 && raw >= 1 << (width - 1) { raw - (1 << width) } else { raw };
            self.delta = self.delta.wrapping_add(dod as u64);
        }
        self.timestamp = self.timestamp.wrapping_add(self.delta as i64);
        match ones {
            0 => Ok(f64::from_bits(self.base)),
            1 => {
                let anew = self.reader.bits(1) == 1;
                self.difference(anew)
            }
            5 => Ok(stale_nan()),
            _ => self.value(),
        }
    }

    fn value(&mut self) -> Result<f64, Error> {
        let ones = self.reader.peek().leading_ones().min(3);
        self.reader.skip(if ones == 3 { 3 } else { ones + 1 });
        match ones {
            0 => Ok(f64::from_bits(self.base)),
            1 => self.difference(false),
            2 => self.difference(true),
            _ => Ok(stale_nan()),
        }
    }

    fn difference(&mut self, anew: bool) -> Result<f64, Error> {
        if anew {
            self.leading = self.reader.bits(5) as u32;
            let width = match self.reader.bits(6) as u32 {
                0 => 64,
                width => width,
            };
            if self.leading + width > 64 {
                self.reader.check()?;
                return Err(Error::Malformed("value window is wider than 64 bits"));
            }
            self.trailing = 64 - self.leading - width;
        }
        let width = 64 - self.leading - self.trailing;
        self.base ^= self.reader.bits(width) << self.trailing;
        Ok(f64::from_bits(self.base))
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<Started, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

/// Encodes sorted samples as one chunk; at most [`MAX_SAMPLES`].
pub fn encode(samples: impl IntoIterator<Item = Started>) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; HEADER_BYTES];
    let mut writer = Writer::default();
    let (mut number, mut free) = (0u16, 0);
    for (sample, start) in samples {
        if number == MAX_SAMPLES {
            return Err(Error::Full);
        }
        if number == 0 {
            put_varint(&mut out, sample.timestamp);
        } else if number == 1 {
            writer.delta = sample.timestamp.wrapping_sub(writer.timestamp) as u64;
            put_uvarint(&mut out, writer.delta);
        }
        let mut w = BitWriter::new(&mut out, free);
        writer.put(&mut w, number, sample);
        writer.starts.put(&mut w, number, writer.timestamp, sample.timestamp, start);
        free = w.free();
        writer.timestamp = sample.timestamp;
        number += 1;
    }
    out[..2].copy_from_slice(&number.to_be_bytes());
    out[2] = writer.starts.header;
    Ok(out)
}

#[derive(Default)]
struct Writer {
    timestamp: Timestamp,
    delta: u64,
    base: u64,
    window: Option<(u32, u32)>,
    starts: WriteStarts,
}

impl Writer {
    fn put(&mut self, w: &mut BitWriter<'_>, number: u16, sample: Sample) {
        match number {
            0 => {
                w.bits(sample.value.to_bits(), 64);
                if !is_stale(sample.value) {
                    self.base = sample.value.to_bits();
                }
            }
            1 => self.value(w, sample.value),
            _ => {
                let delta = sample.timestamp.wrapping_sub(self.timestamp) as u64;
                let dod = delta.wrapping_sub(self.delta) as i64;
                self.delta = delta;
                match dod {
                    0 if is_stale(sample.value) => return w.bits(0b11111, 5),
                    0 if sample.value.to_bits() == self.base => return w.bits(0, 1),
                    0 => {
                        w.bits(0b10, 2);
                        return self.difference(w, sample.value, 1, 0b0, 0b1);
                    }
                    -4096..=4095 => w.bits(0b110 << 13 | dod as u64 & 0x1fff, 16),
                    -524_288..=524_287 => w.bits(0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
                    _ => {
                        w.bits(0b11110, 5);
                        w.bits(dod as u64, 64);
                    }
                }
                self.value(w, sample.value);
            }
        }
    }

    fn value(&mut self, w: &mut BitWriter<'_>, value: f64) {
        if is_stale(value) {
            w.bits(0b111, 3);
        } else if value.to_bits() == self.base {
            w.bits(0, 1);
        } else {
            w.bits(1, 1);
            self.difference(w, value, 1, 0b0, 0b10);
        }
    }

    /// `reuse` and `anew` are the prefixes, of `width` bits (and one more where `anew` needs it).
    fn difference(&mut self, w: &mut BitWriter<'_>, value: f64, width: u32, reuse: u64, anew: u64) {
        let xor = value.to_bits() ^ self.base;
        self.base = value.to_bits();
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        match self.window {
            Some((before, behind)) if leading >= before && trailing >= behind => {
                w.bits(reuse, width);
                w.bits(xor >> behind, 64 - before - behind);
            }
            _ => {
                self.window = Some((leading, trailing));
                w.bits(anew, if anew > 1 { width + 1 } else { width });
                let bits = 64 - leading - trailing;
                w.bits(u64::from(leading) << 6 | u64::from(bits & 63), 11);
                w.bits(xor >> trailing, bits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(samples: &[(i64, f64, i64)]) {
        let all = samples.iter().map(|&(timestamp, value, start)| (Sample { timestamp, value }, start));
        let bytes = encode(all.clone()).unwrap();
        let read: Result<Vec<_>, _> = Iter::new(&bytes).unwrap().collect();
        assert_eq!(read.unwrap(), all.collect::<Vec<_>>());
        for cut in 0..bytes.len() {
            // Never more than there is, and no panic.
            if let Ok(iter) = Iter::new(&bytes[..cut]) {
                assert!(iter.count() <= samples.len());
            }
        }
    }

    #[test]
    fn bits_are_prometheuss() {
        let at = |timestamp, value| (Sample { timestamp, value }, 0);
        let bytes = encode([at(0, 1.0), at(10, 1.0), at(20, 1.0), at(30, stale_nan()), at(40, 1.0)]).unwrap();
        // Equal, equal with an equal distance, stale, back at the value before it.
        assert_eq!(bytes[..3], [0, 5, 0]);
        assert_eq!(bytes[12..], [10, 0b0011_1110]);
    }

    #[test]
    fn starts_from_the_first_from_later_and_after_many() {
        round_trip(&[(0, 1.0, 0), (10, 2.0, 5), (20, 3.0, 5), (30, 4.0, 25)]);
        round_trip(&[(100, 1.0, 50), (110, 2.0, 50), (120, 2.0, 50), (130, stale_nan(), 125)]);
        let many: Vec<_> =
            (0..300).map(|i| (i * 15_000 + i % 7, (i % 5) as f64, if i < 200 { 0 } else { i })).collect();
        round_trip(&many);
    }

    proptest! {
        #[test]
        fn anything_round_trips(
            steps in prop::collection::vec((0u32..40, any::<i32>(), 0usize..6, any::<f64>(), 0i64..3), 0..150),
        ) {
            let mut time = 0i64;
            let samples: Vec<_> = steps
                .iter()
                .map(|(by, step, kind, value, start)| {
                    time += i64::from(*step).unsigned_abs() as i64 >> (by % 32);
                    let value = match kind {
                        0 => stale_nan(),
                        1 => 1.0,
                        2 => (*step as f64).trunc(),
                        _ => *value,
                    };
                    (time, value, if *start == 0 { 0 } else { time - start * 1000 })
                })
                .collect();
            round_trip(&samples);
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(iter) = Iter::new(&bytes) {
                iter.for_each(drop);
            }
        }
    }
}
