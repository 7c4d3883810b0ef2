//! Where records wait for the writer: laid out for their segments already, under one short lock.
//!
//! ```text
//! durable <= written <= enqueued (next_seq - 1)
//! ```
//! Space is promised before it is used: a [`crate::Permit`] holds bytes that will fit into the current
//! segment or into the spare one, so that a full disk is met before anything is judged, never after.

use std::sync::Arc;

use crate::record;
use crate::segment::Segment;

/// A stretch of the buffer that goes into one segment.
pub(crate) struct Run {
    pub segment: Arc<Segment>,
    /// Where in the file.
    pub offset: u64,
    /// Where in the buffer it starts; it ends where the next run starts.
    pub start: usize,
    /// Sequence number of its first record.
    pub first_seq: u64,
}

pub(crate) struct Staging {
    pub buf: Vec<u8>,
    pub runs: Vec<Run>,
    pub next_seq: u64,
    pub current: Arc<Segment>,
    /// End of what is laid out in the current segment.
    pub offset: u64,
    pub spare: Option<Arc<Segment>>,
    /// Bytes held by permits.
    pub reserved: u64,
    /// First sequence number and index of every segment that holds records, oldest first.
    pub firsts: Vec<(u64, u64)>,
    /// Why there is no spare segment, once an attempt to make one has failed.
    pub read_only: Option<Arc<str>>,
    /// The writer is to take what is here.
    pub announced: bool,
    /// Somebody waits for a sync up to here, whatever the mode.
    pub sync_wanted: u64,
    /// No more records are taken.
    pub closed: bool,
    /// The writer is to stop without writing.
    pub abandoned: bool,
}

impl Staging {
    /// Whether there is anything that the writer should begin with.
    pub(crate) fn has_work(&self) -> bool {
        self.announced && !self.buf.is_empty()
    }

    /// Whether `bytes` more, in records of any size, are sure to fit. The invariant: what is reserved fits
    /// into the rest of the current segment, or, where that is too short for it, into the spare.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        let wanted = self.reserved + bytes;
        let rest = self.current.len - self.offset;
        wanted <= rest || self.spare.as_ref().is_some_and(|s| wanted <= room(s))
    }

    /// Lays a record out at the tail; the caller holds a permit for it. Returns its sequence number and
    /// whether the spare segment was taken for it, or none where (against the invariant) nothing fits.
    pub(crate) fn push(&mut self, kind: u8, parts: &[&[u8]]) -> Option<(u64, bool)> {
        let len = record::framed_len(parts.iter().map(|p| p.len()).sum()) as u64;
        let mut switched = false;
        if self.offset + len > self.current.len {
            self.current = self.spare.take()?;
            self.offset = crate::segment::SEGMENT_HEADER_BYTES;
            switched = true;
            if self.offset + len > self.current.len {
                return None;
            }
        }
        let seq = self.next_seq;
        if self.runs.last().is_none_or(|run| run.segment.index != self.current.index) {
            let start = self.buf.len();
            self.runs.push(Run { segment: self.current.clone(), offset: self.offset, start, first_seq: seq });
        }
        if self.firsts.last().is_none_or(|(_, index)| *index != self.current.index) {
            self.firsts.push((seq, self.current.index));
        }
        record::put(&mut self.buf, kind, seq, parts);
        self.next_seq += 1;
        self.offset += len;
        Some((seq, switched))
    }
}

/// Bytes for records in a fresh segment.
pub(crate) fn room(segment: &Segment) -> u64 {
    segment.len.saturating_sub(crate::segment::SEGMENT_HEADER_BYTES)
}
