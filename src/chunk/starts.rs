//! Start times of samples, as newer Prometheus writes them beside the values of a chunk.
//!
//! A byte of the header says whether the first sample has one, and from which sample on they are written; until
//! then all share the first one. What is written is how far before the sample before it a counter began, and from
//! the second such value on the difference to the one before.

use model::Timestamp;

use crate::Error;
use crate::bits::{BitReader, put_varint};
use crate::varbit::{BitWriter, int};

/// Starts are written from this sample on at the latest: the header has no room for a later one.
const LATEST_CHANGE: u16 = 127;
/// The header's bit that says that the first sample has a start.
const FIRST_KNOWN: u8 = 0x80;

/// Reads start times, one after each sample.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadStarts {
    header: u8,
    start: Timestamp,
    back: i64,
}

impl ReadStarts {
    pub(crate) fn new(header: u8) -> ReadStarts {
        ReadStarts { header, ..ReadStarts::default() }
    }

    /// The start of sample `number` (from 0) at `time`, 0 where it is not known; `before` is the time of the sample
    /// before it.
    pub(crate) fn next(
        &mut self,
        r: &mut BitReader<'_>,
        number: u16,
        before: Timestamp,
        time: Timestamp,
    ) -> Result<Timestamp, Error> {
        let change = u16::from(self.header & !FIRST_KNOWN);
        if number == 0 {
            if self.header & FIRST_KNOWN != 0 {
                self.start = time.wrapping_sub(r.varint()?);
            }
        } else if change > 0 && number >= change {
            let read = int(r);
            self.back = if number == change { read } else { self.back.wrapping_add(read) };
            self.start = before.wrapping_sub(self.back);
        }
        Ok(self.start)
    }
}

/// Writes what [`ReadStarts`] reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteStarts {
    /// The header's byte so far.
    pub(crate) header: u8,
    start: Timestamp,
    back: i64,
}

impl WriteStarts {
    pub(crate) fn put(
        &mut self,
        w: &mut BitWriter<'_>,
        number: u16,
        before: Timestamp,
        time: Timestamp,
        start: Timestamp,
    ) {
        let change = u16::from(self.header & !FIRST_KNOWN);
        let back = before.wrapping_sub(start);
        if number == 0 {
            if start != 0 {
                self.header |= FIRST_KNOWN;
                let mut bytes = Vec::with_capacity(10);
                put_varint(&mut bytes, time.wrapping_sub(start));
                bytes.iter().for_each(|byte| w.bits(u64::from(*byte), 8));
            }
        } else if change > 0 {
            w.int(back.wrapping_sub(self.back));
            self.back = back;
        } else if start != self.start || number == LATEST_CHANGE {
            self.header |= number as u8;
            w.int(back);
            self.back = back;
        }
        self.start = start;
    }
}
