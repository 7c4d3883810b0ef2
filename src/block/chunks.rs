//! Chunk segment files: eight bytes of head, then chunks back to back.
//!
//! A chunk on disk is `uvarint length of the payload | encoding byte | payload | CRC32C of encoding and payload`.
//! Its reference is the segment's number (from 0; the files count from 1) and the offset of its length.

use bytes::Bytes;
use chunk::Encoding;

use crate::Error;
use crate::index::cursor::{Cursor, put_uvarint};

/// First four bytes of a segment.
pub const MAGIC: [u8; 4] = [0x85, 0xbd, 0x40, 0xdd];
/// Magic number, version 1 and three zero bytes.
pub const HEAD: [u8; 8] = [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
/// A segment never grows beyond this many bytes.
pub const SEGMENT_SIZE: u64 = 512 << 20;
/// Bytes that hold the length of any chunk.
pub const LEN_BYTES: usize = 5;
/// Bytes around a payload at most: length, encoding, checksum.
pub const MAX_FRAME: u64 = LEN_BYTES as u64 + 1 + 4;

/// Folder of the segments in a block.
pub const DIR: &str = "chunks";

/// File name of a segment, by its number from 0.
pub fn file_name(segment: usize) -> String {
    format!("{:06}", segment + 1)
}

/// Checks the first eight bytes of a segment.
pub fn check_head(bytes: &[u8]) -> Result<(), Error> {
    match bytes.first_chunk::<8>() {
        Some([a, b, c, d, ..]) if [*a, *b, *c, *d] != MAGIC => {
            Err(Error::corrupt("segment does not begin with the magic number of chunks"))
        }
        Some([_, _, _, _, 1, ..]) => Ok(()),
        Some([_, _, _, _, version, ..]) => Err(Error::new(
            model::Kind::Refused,
            format!("segment has version {version}, only 1 is read; rewrite the block with a current tool"),
        )),
        None => Err(Error::corrupt("segment is shorter than its head")),
    }
}

/// Bytes the whole chunk takes on disk, from its first [`LEN_BYTES`].
pub fn chunk_len(head: &[u8]) -> Result<usize, Error> {
    let head = &head[..head.len().min(LEN_BYTES)];
    let mut cursor = Cursor::new(head);
    let payload = cursor.uvarint()?;
    usize::try_from(payload)
        .ok()
        .and_then(|len| len.checked_add(head.len() - cursor.rest().len() + 5))
        .ok_or_else(|| Error::corrupt("chunk: length overflows"))
}

/// Reads the chunk that starts at `bytes[0]`, checking its sum; more bytes may follow it. The payload shares `bytes`.
pub fn decode_chunk(bytes: &Bytes) -> Result<(Encoding, Bytes), Error> {
    let mut cursor = Cursor::new(&bytes[..bytes.len().min(LEN_BYTES)]);
    let len = cursor.uvarint().map_err(|e| e.within("chunk"))?;
    let prefix = bytes.len().min(LEN_BYTES) - cursor.rest().len();
    let mut cursor = Cursor::new(&bytes[prefix..]);
    let summed = usize::try_from(len)
        .ok()
        .and_then(|len| len.checked_add(1))
        .ok_or_else(|| Error::corrupt("chunk: length overflows"))
        .and_then(|len| cursor.take(len))
        .map_err(|e| e.within(format_args!("chunk of {len} bytes")))?;
    if cursor.u32().map_err(|e| e.within("chunk"))? != crc32c::crc32c(summed) {
        return Err(Error::corrupt("chunk: checksum does not match"));
    }
    let (Some(&encoding), payload) = (summed.first(), bytes.slice(prefix + 1..prefix + summed.len())) else {
        return Err(Error::corrupt("chunk: encoding is missing"));
    };
    match Encoding::from_byte(encoding) {
        Some(encoding) => Ok((encoding, payload)),
        None => Err(Error::new(
            model::Kind::Refused,
            format!("chunk has encoding {encoding}, which this version does not know"),
        )),
    }
}

/// Appends a chunk in the file's form.
pub fn encode_chunk(out: &mut Vec<u8>, encoding: Encoding, payload: &[u8]) {
    put_uvarint(out, payload.len() as u64);
    let start = out.len();
    out.push(encoding as u8);
    out.extend_from_slice(payload);
    let sum = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Number of samples a payload announces; of an aggregate, those of its first part present.
pub fn sample_count(encoding: Encoding, payload: &[u8]) -> Result<u64, Error> {
    let short = || Error::corrupt("chunk payload ends before its count");
    let two =
        |bytes: &[u8]| bytes.first_chunk::<2>().map(|c| u64::from(u16::from_be_bytes(*c))).ok_or_else(short);
    match encoding {
        // The two bits above it say something of resets.
        Encoding::HistogramStart | Encoding::FloatHistogramStart => Ok(two(payload)? & 0x3fff),
        Encoding::Aggregate => {
            let mut cursor = Cursor::new(payload);
            while !cursor.is_empty() {
                let len = cursor.uvarint()?;
                if len > 0 {
                    cursor.u8()?;
                    return two(cursor.rest());
                }
            }
            Ok(0)
        }
        _ => two(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_round_trips_and_every_flip_is_seen() {
        let mut out = Vec::new();
        encode_chunk(&mut out, Encoding::Xor, b"\x00\x01payload");
        assert_eq!(chunk_len(&out).unwrap(), out.len());
        let bytes = Bytes::from([&out[..], b"behind"].concat());
        let (encoding, payload) = decode_chunk(&bytes).unwrap();
        assert_eq!((encoding, &payload[..]), (Encoding::Xor, &b"\x00\x01payload"[..]));
        assert_eq!(sample_count(encoding, &payload).unwrap(), 1);
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_chunk(&bad.into()).is_err(), "bit {bit}");
        }
        for end in 0..out.len() {
            assert!(decode_chunk(&bytes.slice(..end)).is_err());
        }
    }
}
