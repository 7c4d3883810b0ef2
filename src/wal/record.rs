//! One record as bytes: header, checksum, payload, padding.

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 24;

/// Kinds from here on may be skipped by readers that do not know them; lower ones must not.
pub const FIRST_SKIPPABLE_KIND: u8 = 128;

pub(crate) const VERSION: u8 = 1;
const MAGIC: [u8; 2] = *b"TW";

/// Bytes that a record with `payload` bytes takes in a segment.
pub const fn framed_len(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(8)
}

/// A record's header; see `FORMAT.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub version: u8,
    pub kind: u8,
    pub len: u32,
    pub crc: u32,
    /// How many records up to this one were not known to be durable when it was written.
    pub unsynced: u32,
    pub seq: u64,
}

impl Header {
    /// The last sequence number that was durable when this record was written.
    pub(crate) fn synced(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.unsynced))
    }
}

/// Appends a record whose checksum is still missing; [`seal`] completes it.
pub(crate) fn put(out: &mut Vec<u8>, kind: u8, seq: u64, parts: &[&[u8]]) {
    let start = out.len();
    let len: usize = parts.iter().map(|p| p.len()).sum();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&seq.to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.resize(start + framed_len(len), 0);
}

/// Fills in what was durable at writing time and the checksum of every record in `bytes`, which [`put`] wrote.
/// Returns the number of records.
pub(crate) fn seal(bytes: &mut [u8], synced: u64) -> usize {
    let (mut at, mut count) = (0, 0);
    while at + HEADER_BYTES <= bytes.len() {
        let seq = u64_at(&bytes[at..], 16);
        let payload = u32_at(&bytes[at..], 4) as usize;
        let unsynced = u32::try_from(seq.saturating_sub(synced)).unwrap_or(u32::MAX);
        bytes[at + 12..at + 16].copy_from_slice(&unsynced.to_le_bytes());
        let crc = checksum(&bytes[at..at + HEADER_BYTES + payload]);
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        at += framed_len(payload);
        count += 1;
    }
    count
}

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A header that is plausible; its record takes this many bytes in all. Check with [`verify`].
    Record(Header, usize),
    /// Not a record.
    Nothing,
}

/// Reads a header without trusting it: `room` is what is left of the segment.
pub(crate) fn parse_header(bytes: &[u8], room: u64) -> Parsed {
    if bytes.len() < HEADER_BYTES || bytes[..2] != MAGIC {
        return Parsed::Nothing;
    }
    let header = Header {
        version: bytes[2],
        kind: bytes[3],
        len: u32_at(bytes, 4),
        crc: u32_at(bytes, 8),
        unsynced: u32_at(bytes, 12),
        seq: u64_at(bytes, 16),
    };
    let total = framed_len(header.len as usize);
    if total as u64 > room {
        return Parsed::Nothing;
    }
    Parsed::Record(header, total)
}

/// Ends a checkpoint and, in a spool, stands for records that are lost; holds the number of the record that follows.
pub(crate) const JUMP: u8 = 0;

/// The number behind a record: the next one, or the one to which it jumps.
pub(crate) fn number_behind(header: &Header, payload: &[u8]) -> u64 {
    let next = header.seq.saturating_add(1);
    if header.kind == JUMP && payload.len() == 8 { next.max(u64_at(payload, 0)) } else { next }
}

/// Whether a whole record (header and payload, `bytes` may go on) carries the right checksum.
pub(crate) fn verify(header: &Header, bytes: &[u8]) -> bool {
    let end = HEADER_BYTES + header.len as usize;
    bytes.len() >= end && checksum(&bytes[..end]) == header.crc
}

/// CRC32C of the header without its checksum field, then the payload.
fn checksum(record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&record[..8]);
    crc32c::crc32c_append(crc, &record[12..])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_format_page() {
        let mut bytes = Vec::new();
        put(&mut bytes, 128, 1, &[b"hi"]);
        seal(&mut bytes, 0);
        let hex: Vec<String> = bytes[8..12].iter().map(|b| format!("0x{b:02x}")).collect();
        assert!(include_str!("FORMAT.md").contains(&hex.join(", ")), "checksum is {hex:?}");
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_seen() {
        let mut bytes = Vec::new();
        put(&mut bytes, 2, 77, &[b"hello", b" world"]);
        assert_eq!(seal(&mut bytes, 70), 1);
        assert_eq!(bytes.len(), framed_len(11));
        let Parsed::Record(header, total) = parse_header(&bytes, 1000) else { panic!("no record") };
        assert_eq!((header.kind, header.seq, header.synced(), total), (2, 77, 70, bytes.len()));
        assert!(verify(&header, &bytes));
        for bit in 0..(HEADER_BYTES + 11) * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let intact = match parse_header(&bent, 1000) {
                Parsed::Record(header, _) => verify(&header, &bent),
                Parsed::Nothing => false,
            };
            assert!(!intact, "bit {bit}");
        }
    }
}
