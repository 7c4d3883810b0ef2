//! Float chunks: delta-of-delta times and XORed values, bit for bit as Prometheus writes them.
//!
//! # Cost
//! `Appender::push` writes one to three bit fields; `Iter::next` reads as many. Neither allocates, but for
//! the growth of the output.

use model::{Sample, Timestamp};

use crate::Error;
use crate::bits::{BitReader, BitWriter, put_uvarint, put_varint};

/// Most samples that fit the 16-bit count.
pub const MAX_SAMPLES: u16 = u16::MAX;

/// No window of meaningful bits yet.
const NO_WINDOW: u8 = 0xff;

/// State needed to append to a chunk that lives elsewhere: 32 bytes beside the chunk's own.
#[derive(Clone, Copy, Debug)]
pub struct Appender {
    timestamp: Timestamp,
    value: f64,
    delta: u64,
    leading: u8,
    trailing: u8,
    free: u8,
    count: u16,
}

impl Default for Appender {
    fn default() -> Self {
        Appender { timestamp: 0, value: 0.0, delta: 0, leading: NO_WINDOW, trailing: 0, free: 0, count: 0 }
    }
}

impl Appender {
    /// Samples pushed so far.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Time of the last sample; meaningless while empty.
    pub fn last_timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Value of the last sample; meaningless while empty.
    pub fn last_value(&self) -> f64 {
        self.value
    }

    /// Appends to `out`, which holds this chunk and nothing else and is a complete chunk after every call.
    pub fn push(&mut self, out: &mut Vec<u8>, sample: Sample) -> Result<(), Error> {
        match self.count {
            MAX_SAMPLES => return Err(Error::Full),
            0 => {
                out.clear();
                out.extend_from_slice(&[0, 0]);
                put_varint(out, sample.timestamp);
                out.extend_from_slice(&sample.value.to_bits().to_be_bytes());
            }
            1 => {
                self.delta = sample.timestamp.wrapping_sub(self.timestamp) as u64;
                put_uvarint(out, self.delta);
                self.free = 0;
                self.push_value(out, sample.value);
            }
            _ => {
                let delta = sample.timestamp.wrapping_sub(self.timestamp) as u64;
                let dod = delta.wrapping_sub(self.delta) as i64;
                self.delta = delta;
                let mut w = BitWriter::resume(self.free);
                match dod {
                    0 => w.write(out, 0, 1),
                    -8191..=8192 => w.write(out, 0b10 << 14 | dod as u64 & 0x3fff, 16),
                    -65535..=65536 => w.write(out, 0b110 << 17 | dod as u64 & 0x1_ffff, 20),
                    -524_287..=524_288 => w.write(out, 0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
                    _ => {
                        w.write(out, 0b1111, 4);
                        w.write(out, dod as u64, 64);
                    }
                }
                self.free = w.free();
                self.push_value(out, sample.value);
            }
        }
        self.timestamp = sample.timestamp;
        self.value = sample.value;
        self.count += 1;
        out[..2].copy_from_slice(&self.count.to_be_bytes());
        Ok(())
    }

    fn push_value(&mut self, out: &mut Vec<u8>, value: f64) {
        let mut w = BitWriter::resume(self.free);
        let xor = value.to_bits() ^ self.value.to_bits();
        if xor == 0 {
            w.write(out, 0, 1);
        } else {
            // Five bits for the leading zeros: 31 at most.
            let leading = xor.leading_zeros().min(31) as u8;
            let trailing = xor.trailing_zeros() as u8;
            if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
                let bits = 64 - u32::from(self.leading) - u32::from(self.trailing);
                w.write(out, 0b10, 2);
                w.write(out, xor >> self.trailing, bits);
            } else {
                self.leading = leading;
                self.trailing = trailing;
                let bits = 64 - u32::from(leading) - u32::from(trailing);
                // 64 significant bits do not fit six bits and are written as 0, which cannot occur otherwise.
                let head = 0b11 << 11 | u64::from(leading) << 6 | u64::from(bits & 63);
                w.write(out, head, 13);
                w.write(out, xor >> trailing, bits);
            }
        }
        self.free = w.free();
    }
}

/// Encodes sorted samples as one chunk; at most [`MAX_SAMPLES`].
pub fn encode(samples: impl IntoIterator<Item = Sample>) -> Result<Vec<u8>, Error> {
    let (mut appender, mut out) = (Appender::default(), Vec::with_capacity(128));
    for sample in samples {
        appender.push(&mut out, sample)?;
    }
    if out.is_empty() {
        out.extend_from_slice(&[0, 0]);
    }
    Ok(out)
}

/// Number of samples in a chunk, from its first two bytes.
pub fn count(bytes: &[u8]) -> Result<u16, Error> {
    let head = bytes.first_chunk::<2>().ok_or(Error::Truncated)?;
    Ok(u16::from_be_bytes(*head))
}

/// Walks the samples of a chunk. Ends after its count or at the first error.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    reader: BitReader<'a>,
    left: u16,
    read: u16,
    timestamp: Timestamp,
    value: u64,
    delta: u64,
    leading: u8,
    trailing: u8,
}

impl<'a> Iter<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Iter<'a>, Error> {
        let left = count(bytes)?;
        Ok(Iter {
            reader: BitReader::new(&bytes[2..]),
            left,
            read: 0,
            timestamp: 0,
            value: 0,
            delta: 0,
            leading: NO_WINDOW,
            trailing: 0,
        })
    }

    fn step(&mut self) -> Result<Sample, Error> {
        match self.read {
            0 => {
                self.timestamp = self.reader.varint()?;
                self.value = self.reader.bits(64)?;
            }
            1 => {
                self.delta = self.reader.uvarint()?;
                self.timestamp = self.timestamp.wrapping_add(self.delta as i64);
                self.read_value()?;
            }
            _ => {
                let dod = self.read_dod()?;
                self.delta = self.delta.wrapping_add(dod as u64);
                self.timestamp = self.timestamp.wrapping_add(self.delta as i64);
                self.read_value()?;
            }
        }
        self.read += 1;
        Ok(Sample { timestamp: self.timestamp, value: f64::from_bits(self.value) })
    }

    #[inline]
    fn read_dod(&mut self) -> Result<i64, Error> {
        let mut ones = 0;
        while ones < 4 && self.reader.bit()? {
            ones += 1;
        }
        let width = match ones {
            0 => return Ok(0),
            1 => 14,
            2 => 17,
            3 => 20,
            _ => return Ok(self.reader.bits(64)? as i64),
        };
        let raw = self.reader.bits(width)? as i64;
        // The range is asymmetric: 2^(n-1) itself is positive.
        Ok(if raw > 1 << (width - 1) { raw - (1 << width) } else { raw })
    }

    #[inline]
    fn read_value(&mut self) -> Result<(), Error> {
        if !self.reader.bit()? {
            return Ok(());
        }
        if self.reader.bit()? {
            let head = self.reader.bits(11)?;
            let leading = (head >> 6) as u8;
            let bits = match head & 63 {
                0 => 64,
                n => n as u8,
            };
            if leading + bits > 64 {
                return Err(Error::Malformed("value window is wider than 64 bits"));
            }
            self.leading = leading;
            self.trailing = 64 - leading - bits;
        } else if self.leading == NO_WINDOW {
            return Err(Error::Malformed("value reuses a window that was never set"));
        }
        let bits = 64 - u32::from(self.leading) - u32::from(self.trailing);
        self.value ^= self.reader.bits(bits)? << self.trailing;
        Ok(())
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<Sample, Error>;

    #[inline]
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
