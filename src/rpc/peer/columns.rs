//! The columns of a request: runs of references, steps of time, values without their trailing zeroes.

use super::FrameError;
use super::bytes::{Put, Read};

/// Equal steps in a row from which on they are written once.
const RUN: usize = 3;

/// Steps of a column of signed numbers; a sender's scrape has one time for all its samples.
#[derive(Default)]
pub(crate) struct Steps {
    steps: Vec<i64>,
    last: i64,
}

impl Steps {
    pub(crate) fn clear(&mut self, last: i64) {
        self.steps.clear();
        self.last = last;
    }

    #[inline]
    pub(crate) fn push(&mut self, number: i64) {
        self.steps.push(number.wrapping_sub(self.last));
        self.last = number;
    }

    /// Runs: `count << 1 | 1` and one step for all, or `count << 1` and as many steps.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut rest = self.steps.as_slice();
        while !rest.is_empty() {
            let equal = rest.iter().take_while(|step| **step == rest[0]).count();
            if equal >= RUN || equal == rest.len() {
                out.put_number((equal as u64) << 1 | 1);
                out.put_signed(rest[0]);
                rest = &rest[equal..];
                continue;
            }
            let differ = rest.windows(RUN).position(|few| few.iter().all(|step| *step == few[0]));
            let (some, others) = rest.split_at(differ.unwrap_or(rest.len()));
            out.put_number((some.len() as u64) << 1);
            some.iter().for_each(|step| out.put_signed(*step));
            rest = others;
        }
    }
}

/// Reads what [`Steps`] wrote.
pub(crate) struct ReadSteps<'a> {
    read: Read<'a>,
    last: i64,
    left: u64,
    /// The step of all that are left, where it is one.
    step: Option<i64>,
}

impl<'a> ReadSteps<'a> {
    pub(crate) fn new(bytes: &'a [u8], last: i64) -> ReadSteps<'a> {
        ReadSteps { read: Read(bytes), last, left: 0, step: None }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<i64, FrameError> {
        if self.left == 0 {
            let head = self.read.number()?;
            self.left = head >> 1;
            if self.left == 0 {
                return Err(FrameError::Malformed("an empty run of steps"));
            }
            self.step = if head & 1 == 1 { Some(self.read.signed()?) } else { None };
        }
        self.left -= 1;
        let step = match self.step {
            Some(step) => step,
            None => self.read.signed()?,
        };
        self.last = self.last.wrapping_add(step);
        Ok(self.last)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.read.is_done()
    }
}

/// Writes values: how many of their eight bytes are not trailing zeroes, four bits each, then those bytes, highest
/// first. A counter below a million takes four bytes, zero none.
pub(crate) fn put_values(values: impl Iterator<Item = f64> + Clone, out: &mut Vec<u8>) {
    let mut odd = None;
    let mut lengths = values.clone().map(|value| significant(value.to_bits()));
    while let Some(low) = lengths.next() {
        match lengths.next() {
            Some(high) => out.push(low | high << 4),
            None => {
                odd = Some(low);
                break;
            }
        }
    }
    out.extend(odd);
    for value in values {
        let bits = value.to_bits();
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[..usize::from(significant(bits))]);
    }
}

#[inline]
fn significant(bits: u64) -> u8 {
    // Zero has 64 trailing zeroes.
    8 - (bits.trailing_zeros() / 8) as u8
}

/// Reads what [`put_values`] wrote.
pub(crate) struct ReadValues<'a> {
    lengths: &'a [u8],
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ReadValues<'a> {
    /// Of `count` values.
    pub(crate) fn new(column: &'a [u8], count: usize) -> Result<ReadValues<'a>, FrameError> {
        let (lengths, bytes) = column.split_at_checked(count.div_ceil(2)).ok_or(FrameError::Short)?;
        Ok(ReadValues { lengths, bytes, at: 0 })
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<f64, FrameError> {
        let pair = self.lengths.get(self.at / 2).ok_or(FrameError::Short)?;
        let length = usize::from(if self.at.is_multiple_of(2) { pair & 0xf } else { pair >> 4 });
        self.at += 1;
        if length > 8 {
            return Err(FrameError::Malformed("a value of more than eight bytes"));
        }
        let bits = match self.bytes.first_chunk::<8>() {
            // A shift by all 64 bits is none.
            Some(bytes) => u64::from_be_bytes(*bytes) & !u64::MAX.checked_shr(8 * length as u32).unwrap_or(0),
            None => {
                let mut bytes = [0; 8];
                bytes[..length].copy_from_slice(self.bytes.get(..length).ok_or(FrameError::Short)?);
                u64::from_be_bytes(bytes)
            }
        };
        self.bytes = &self.bytes[length..];
        Ok(f64::from_bits(bits))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![4 => Just(15_000), 2 => -3..3i64, 1 => any::<i64>()]
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            2 => (0..2_000_000u32).prop_map(f64::from),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(0.0)
        ]
    }

    proptest! {
        #[test]
        fn steps_come_back(numbers in proptest::collection::vec(number(), 0..50), from: i64) {
            let mut steps = Steps::default();
            steps.clear(from);
            numbers.iter().for_each(|n| steps.push(*n));
            let mut out = Vec::new();
            steps.write(&mut out);
            let mut read = ReadSteps::new(&out, from);
            for number in &numbers {
                prop_assert_eq!(read.next().unwrap(), *number);
            }
            prop_assert!(read.is_done());
            prop_assert!(read.next().is_err());
        }

        #[test]
        fn values_come_back(values in proptest::collection::vec(value(), 0..50)) {
            let mut out = Vec::new();
            put_values(values.iter().copied(), &mut out);
            let mut read = ReadValues::new(&out, values.len()).unwrap();
            for value in &values {
                prop_assert_eq!(read.next().unwrap().to_bits(), value.to_bits());
            }
            prop_assert!(read.is_done());
        }

        #[test]
        fn arbitrary_columns_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), count in 0..80usize) {
            let mut steps = ReadSteps::new(&bytes, 0);
            let values = ReadValues::new(&bytes, count);
            for _ in 0..count {
                let _ = steps.next();
            }
            if let Ok(mut values) = values {
                while values.next().is_ok() {}
            }
        }
    }

    #[test]
    fn what_a_scrape_takes() {
        let mut steps = Steps::default();
        steps.clear(1_000_000);
        (0..500).for_each(|_| steps.push(999_990));
        let mut out = Vec::new();
        steps.write(&mut out);
        // The first step differs from the others.
        assert_eq!(out.len(), 5);
        out.clear();
        put_values((0..500).map(f64::from), &mut out);
        assert!(out.len() < 500 * 4, "{}", out.len());
    }
}
