//! Float chunks: delta-of-delta times and XORed values, bit for bit as Prometheus writes them.
//!
//! # Cost
//! `Appender::push` appends once per sample; `Iter::next` loads eight bytes once or twice. Neither allocates, but for
//! the growth of the output. Measured by `benches/xor.rs`.

use model::{Sample, TimeRange, Timestamp};

use crate::Error;
use crate::bits::{BitReader, BitRun, Out, Place, put_uvarint, put_varint};
use crate::window::{ReadWindow, Window};

/// Most samples that fit the 16-bit count.
pub const MAX_SAMPLES: u16 = u16::MAX;

/// Most bytes by which one sample makes a chunk longer: the count, a time and a value in full.
pub const MOST_BYTES: usize = 20;

/// State needed to append to a chunk that lives elsewhere: 32 bytes beside the chunk's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appender {
    timestamp: Timestamp,
    value: f64,
    delta: u64,
    window: Window,
    free: u8,
    count: u16,
}

/// A sample's bytes, beginning with the byte that it continues.
pub struct Aside {
    bytes: [u8; 2 * MOST_BYTES],
    len: usize,
}

impl Aside {
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// An [`Appender`] in 16 bytes, without the time of its last sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    value: f64,
    delta: u32,
    window: Window,
    free: u8,
    count: u8,
}

impl Packed {
    /// Samples pushed so far.
    #[inline]
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Value of the last sample; meaningless while empty.
    #[inline]
    pub fn last_value(&self) -> f64 {
        self.value
    }

    /// The appender that was packed; `timestamp` is that of its last sample.
    #[inline]
    pub fn unpack(self, timestamp: Timestamp) -> Appender {
        let Packed { value, delta, window, free, count } = self;
        Appender { timestamp, value, delta: delta.into(), window, free, count: count.into() }
    }
}

impl Appender {
    /// In little space, where that holds it: up to 255 samples, the last two less than 2^32 ms apart.
    #[inline]
    pub fn pack(&self) -> Option<Packed> {
        let Appender { timestamp: _, value, delta, window, free, count } = *self;
        let (delta, count) = (u32::try_from(delta).ok()?, u8::try_from(count).ok()?);
        Some(Packed { value, delta, window, free, count })
    }

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
        if self.count == MAX_SAMPLES {
            return Err(Error::Full);
        }
        if self.count == 0 {
            out.clear();
        }
        self.put(out, sample);
        out[..2].copy_from_slice(&self.count.to_be_bytes());
        Ok(())
    }

    /// As [`Appender::push`], for a chunk that lies in pieces: the first `len` bytes of `tail` are its last ones, at
    /// least one of them unless it is empty. Its first two bytes, the count, are left to the caller. Returns the
    /// new length; [`Error::NoRoom`] means that nothing was done, which never is where [`MOST_BYTES`] are left.
    #[inline]
    pub fn push_tail(&mut self, tail: &mut [u8], len: usize, sample: Sample) -> Result<usize, Error> {
        if self.count == MAX_SAMPLES {
            return Err(Error::Full);
        }
        if tail.len() >= len + MOST_BYTES {
            let mut place = Place { bytes: tail, len };
            self.put(&mut place, sample);
            return Ok(place.len);
        }
        let start = len.saturating_sub(1);
        let mut next = *self;
        let aside = next.push_aside(tail.get(start).copied().unwrap_or(0), sample);
        let room = tail.get_mut(start..start + aside.bytes().len()).ok_or(Error::NoRoom)?;
        room.copy_from_slice(aside.bytes());
        *self = next;
        Ok(start + aside.bytes().len())
    }

    /// As [`Appender::push`], to a chunk that lies elsewhere and ends with the byte `last`: gives the bytes that
    /// take the place of that one.
    pub fn push_aside(&mut self, last: u8, sample: Sample) -> Aside {
        let mut bytes = [0; 2 * MOST_BYTES];
        bytes[0] = last;
        let len = usize::from(self.count > 0);
        let mut place = Place { bytes: &mut bytes, len };
        self.put(&mut place, sample);
        let len = place.len;
        Aside { bytes, len }
    }

    #[inline(always)]
    fn put(&mut self, out: &mut impl Out, sample: Sample) {
        match self.count {
            0 => {
                // The count comes here.
                out.put(0);
                out.put(0);
                put_varint(out, sample.timestamp);
                let mut run = BitRun::default();
                run.put(sample.value.to_bits(), 64);
                run.append(out, 0);
            }
            1 => {
                self.delta = sample.timestamp.wrapping_sub(self.timestamp) as u64;
                put_uvarint(out, self.delta);
                let mut run = BitRun::default();
                self.put_value(&mut run, sample.value);
                self.free = run.append(out, 0);
            }
            _ => {
                let delta = sample.timestamp.wrapping_sub(self.timestamp) as u64;
                let dod = delta.wrapping_sub(self.delta) as i64;
                self.delta = delta;
                let mut run = BitRun::default();
                match dod {
                    0 => run.put(0, 1),
                    -8191..=8192 => run.put(0b10 << 14 | dod as u64 & 0x3fff, 16),
                    -65535..=65536 => run.put(0b110 << 17 | dod as u64 & 0x1_ffff, 20),
                    -524_287..=524_288 => run.put(0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
                    _ => {
                        run.put(0b1111, 4);
                        run.put(dod as u64, 64);
                        // Too long to share a run with the value.
                        self.free = std::mem::take(&mut run).append(out, self.free);
                    }
                }
                self.put_value(&mut run, sample.value);
                self.free = run.append(out, self.free);
            }
        }
        self.timestamp = sample.timestamp;
        self.value = sample.value;
        self.count += 1;
    }

    #[inline(always)]
    fn put_value(&mut self, run: &mut BitRun, value: f64) {
        self.window.put(run, value.to_bits() ^ self.value.to_bits());
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

/// Appends a chunk of one sample.
pub fn put_one(out: &mut Vec<u8>, sample: Sample) {
    out.extend_from_slice(&[0, 1]);
    put_varint(out, sample.timestamp);
    out.extend_from_slice(&sample.value.to_bits().to_be_bytes());
}

/// Appends times and values of the samples in `range`, as far as times ascend beyond it: what comes after the first
/// later sample is not looked at.
pub fn decode_range(
    bytes: &[u8],
    range: TimeRange,
    timestamps: &mut Vec<Timestamp>,
    values: &mut Vec<f64>,
) -> Result<(), Error> {
    let mut iter = Iter::new(bytes)?;
    let (from, from_value) = (timestamps.len(), values.len());
    let most = usize::from(iter.left);
    timestamps.resize(from + most, 0);
    values.resize(from_value + most, 0.0);
    let (times_out, values_out) = (&mut timestamps[from..], &mut values[from_value..]);
    let mut kept = 0;
    let mut outcome = Ok(());
    for _ in 0..most {
        match iter.step() {
            Ok(sample) if sample.timestamp <= range.end => {
                // What lies before the range is written over by the next one.
                if let (Some(time), Some(value)) = (times_out.get_mut(kept), values_out.get_mut(kept)) {
                    (*time, *value) = (sample.timestamp, sample.value);
                }
                kept += usize::from(sample.timestamp >= range.start);
            }
            Ok(_) => break,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    timestamps.truncate(from + kept);
    values.truncate(from_value + kept);
    outcome
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
    window: ReadWindow,
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
            window: ReadWindow::default(),
        })
    }

    /// The first two samples, whose times are varints.
    #[cold]
    fn first_steps(&mut self) -> Result<(), Error> {
        if self.read == 0 {
            self.timestamp = self.reader.varint()?;
            self.value = self.reader.bits(64);
        } else {
            self.delta = self.reader.uvarint()?;
            self.timestamp = self.timestamp.wrapping_add(self.delta as i64);
            let bits = self.reader.peek();
            self.read_value(bits, 0)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn step(&mut self) -> Result<Sample, Error> {
        if self.read < 2 {
            self.first_steps()?;
        } else {
            let mut bits = self.reader.peek();
            // Bits of `bits` that are used up. Time and the head of the value take 37 at most, of 57.
            let mut used = 1;
            if bits >> 63 != 0 {
                let (dod, width) = match (!bits).leading_zeros() {
                    1 => (narrow::<14>(bits << 2), 16),
                    2 => (narrow::<17>(bits << 3), 20),
                    3 => (narrow::<20>(bits << 4), 24),
                    _ => {
                        self.reader.skip(4);
                        let dod = self.reader.bits(64) as i64;
                        bits = self.reader.peek();
                        (dod, 0)
                    }
                };
                used = width;
                self.delta = self.delta.wrapping_add(dod as u64);
            }
            self.timestamp = self.timestamp.wrapping_add(self.delta as i64);
            self.read_value(bits, used)?;
        }
        self.reader.check()?;
        self.read += 1;
        Ok(Sample { timestamp: self.timestamp, value: f64::from_bits(self.value) })
    }

    #[inline(always)]
    fn read_value(&mut self, bits: u64, used: u32) -> Result<(), Error> {
        self.value ^= self.window.take(&mut self.reader, bits, used)?;
        Ok(())
    }
}

/// The top `WIDTH` bits as a number. The range is asymmetric: 2^(WIDTH-1) itself is positive.
#[inline(always)]
fn narrow<const WIDTH: u32>(bits: u64) -> i64 {
    let raw = (bits >> (64 - WIDTH)) as i64;
    if raw > 1 << (WIDTH - 1) { raw - (1 << WIDTH) } else { raw }
}

impl Iterator for Iter<'_> {
    type Item = Result<Sample, Error>;

    #[inline(always)]
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

    fn size_hint(&self) -> (usize, Option<usize>) {
        // A damaged chunk may end early.
        (0, Some(self.left as usize))
    }
}
