//! Frames of Zstandard, opened only after it was judged what they can become.
//!
//! A frame says how many bytes it becomes, or does not; its blocks say in their headers what they become at most. Both are
//! read before anything is opened, so that neither a frame that lies nor one that keeps silent costs more than the limit.
//!
//! Source: RFC 8878, sections 3.1.1 and 3.1.2.

use std::cell::RefCell;

use ::zstd::zstd_safe::{DCtx, get_error_name};

use super::Limits;
use crate::WireError;

const FRAME: u32 = 0xfd2f_b528;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
/// Most bytes that a block becomes.
const MAX_BLOCK: u64 = 128 << 10;

/// What frames become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// At most.
    pub bytes: u64,
    /// So many and no fewer, unless the frames lie.
    pub is_exact: bool,
}

thread_local! {
    /// Used again: making one costs more than opening a small body.
    static DECODER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// Opens frames into `scratch` and gives back the part that they fill, as [`super::decompress`] does. Nothing is
/// allocated for a body that says that it is too large; one that says nothing gets room for the limit at most.
pub fn decompress_zstd<'a>(
    body: &[u8],
    limits: &Limits,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], WireError> {
    let extent = extent(body)?;
    let max = limits.max_bytes as u64;
    let too_large = |bytes: u64, more: &str| {
        WireError::refused(format!(
            "write request too large: {more}{bytes} bytes after decompression, {max} are allowed; send fewer samples \
             per request"
        ))
    };
    if extent.is_exact && extent.bytes > max {
        return Err(too_large(extent.bytes, ""));
    }
    let room = extent.bytes.min(max) as usize;
    if scratch.len() < room {
        scratch.resize(room, 0);
    }
    let opened = DECODER.with_borrow_mut(|decoder| {
        decoder.get_or_insert_with(DCtx::create).decompress(&mut scratch[..room], body)
    });
    match opened {
        Ok(filled) => Ok(&scratch[..filled]),
        // Only frames that do not say their size can meet the end of the room.
        Err(_) if !extent.is_exact && extent.bytes > max => Err(too_large(max, "more than ")),
        Err(code) => Err(invalid(get_error_name(code))),
    }
}

fn invalid(why: &str) -> WireError {
    WireError::invalid(format!("body is not a zstd frame: {why}"))
}

/// Walks the headers of frames and blocks, which the body must hold whole.
pub(super) fn extent(body: &[u8]) -> Result<Extent, WireError> {
    let mut rest = Rest(body);
    let mut all = Extent { bytes: 0, is_exact: true };
    if body.is_empty() {
        return Err(invalid("it is empty"));
    }
    while !rest.0.is_empty() {
        let magic = rest.number(4)? as u32;
        if SKIPPABLE.contains(&magic) {
            let skipped = rest.number(4)?;
            rest.skip(skipped)?;
            continue;
        }
        if magic != FRAME {
            return Err(invalid("the magic number is another"));
        }
        let frame = frame(&mut rest)?;
        all.bytes = all.bytes.saturating_add(frame.bytes);
        all.is_exact &= frame.is_exact;
    }
    Ok(all)
}

fn frame(rest: &mut Rest<'_>) -> Result<Extent, WireError> {
    let descriptor = rest.number(1)?;
    let is_single = descriptor & 1 << 5 != 0;
    let window = if is_single { u64::MAX } else { window_of(rest.number(1)?) };
    rest.skip([0, 1, 2, 4][(descriptor & 3) as usize])?;
    let declared = match (descriptor >> 6, is_single) {
        (0, false) => None,
        (0, true) => Some(rest.number(1)?),
        (1, _) => Some(rest.number(2)? + 256),
        (2, _) => Some(rest.number(4)?),
        _ => Some(rest.number(8)?),
    };
    let (mut most, mut is_last) = (0u64, false);
    while !is_last {
        let header = rest.number(3)?;
        is_last = header & 1 != 0;
        let size = header >> 3;
        let (held, becomes) = match header >> 1 & 3 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, MAX_BLOCK.min(window)),
            _ => return Err(invalid("a block is of no kind")),
        };
        if size > MAX_BLOCK {
            return Err(invalid("a block is larger than blocks are"));
        }
        rest.skip(held)?;
        most = most.saturating_add(becomes);
    }
    if descriptor & 1 << 2 != 0 {
        rest.skip(4)?;
    }
    match declared {
        Some(bytes) if bytes > most => {
            Err(invalid(&format!("it claims to hold {bytes} bytes, and its blocks hold {most} at most")))
        }
        Some(bytes) => Ok(Extent { bytes, is_exact: true }),
        None => Ok(Extent { bytes: most, is_exact: false }),
    }
}

/// Bytes that a frame may look back, as its window descriptor says.
fn window_of(descriptor: u64) -> u64 {
    let base = 1u64 << (10 + (descriptor >> 3));
    base + base / 8 * (descriptor & 7)
}

/// What is left of a body.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, bytes: u64) -> Result<(), WireError> {
        let at = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.0 = self.0.get(at..).ok_or_else(|| invalid("it is cut short"))?;
        Ok(())
    }

    /// A number of so many bytes, at most eight.
    fn number(&mut self, bytes: usize) -> Result<u64, WireError> {
        let (head, rest) = self.0.split_at_checked(bytes).ok_or_else(|| invalid("it is cut short"))?;
        self.0 = rest;
        Ok(head.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use model::Kind;
    use proptest::prelude::*;

    use super::*;

    fn packed(plain: &[u8], level: i32) -> Vec<u8> {
        ::zstd::bulk::compress(plain, level).unwrap()
    }

    /// A frame that does not say its size, a block for each piece.
    fn streamed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        for piece in pieces {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn open(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, WireError> {
        let limits = Limits { max_bytes, ..Limits::default() };
        decompress_zstd(body, &limits, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    /// So many blocks of one repeated byte, 128 KiB each, of a frame that says or does not say its size.
    fn bomb(blocks: u32, declared: Option<u64>) -> Vec<u8> {
        let mut out = FRAME.to_le_bytes().to_vec();
        match declared {
            Some(bytes) => {
                out.push(0b1110_0000);
                out.extend(bytes.to_le_bytes());
            }
            // A window of 128 KiB.
            None => out.extend([0, 7 << 3]),
        }
        for block in 1..=blocks {
            let header = u32::from(block == blocks) | 1 << 1 | (MAX_BLOCK as u32) << 3;
            out.extend(&header.to_le_bytes()[..3]);
            out.push(b'x');
        }
        out
    }

    #[test]
    fn bombs_are_refused_before_memory_is_spent() {
        let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
        for declared in [Some(1000 * MAX_BLOCK), None] {
            let mut scratch = Vec::new();
            let body = bomb(1000, declared);
            let error = decompress_zstd(&body, &limits, &mut scratch).unwrap_err();
            assert_eq!(error.kind, Kind::Refused, "{error}");
            assert!(error.message.contains("write request too large"), "{error}");
            // What is silent about its size gets room for the limit.
            assert!(scratch.capacity() <= if declared.is_some() { 0 } else { 1 << 20 });
            assert_eq!(extent(&body).unwrap().bytes, 1000 * MAX_BLOCK);
        }
        assert_eq!(open(&bomb(8, Some(8 * MAX_BLOCK)), 1 << 20).unwrap().len(), 1 << 20);
        assert_eq!(open(&bomb(8, None), 1 << 20).unwrap(), vec![b'x'; 1 << 20]);
    }

    #[test]
    fn frames_that_lie_are_refused() {
        // More than its blocks can hold: nothing is allocated for it.
        let mut scratch = Vec::new();
        let limits = Limits { max_bytes: 1 << 40, ..Limits::default() };
        let error = decompress_zstd(&bomb(2, Some(1 << 39)), &limits, &mut scratch).unwrap_err();
        assert!(error.message.contains("claims to hold 549755813888 bytes"), "{error}");
        assert_eq!(scratch.capacity(), 0);
        // Less than they do.
        let error = open(&bomb(2, Some(100)), 1 << 20).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
    }

    #[test]
    fn garbage_says_what_it_is_not() {
        let good = packed(b"hello hello hello hello", 1);
        for body in [&b""[..], b"hello", &good[..good.len() - 1], &good[..6], &[&good[..], b"x"].concat()] {
            let error = open(body, 1000).unwrap_err();
            assert!(error.message.starts_with("body is not a zstd frame"), "{error}");
            assert_eq!(error.kind, Kind::Invalid);
        }
    }

    #[test]
    fn several_frames_are_one_body() {
        let skippable = [&0x184d_2a53u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc"].concat();
        let body = [packed(b"one ", 3), skippable, streamed(&[b"two ", b"three"])].concat();
        assert_eq!(open(&body, 1 << 20).unwrap(), b"one two three");
        assert!(!extent(&body).unwrap().is_exact);
    }

    proptest! {
        #[test]
        fn round_trip(body in proptest::collection::vec(0u8..4, 0..5000), level in 1..6, old in 0..3000usize) {
            let (whole, parts) = (packed(&body, level), streamed(&body.chunks(700).collect::<Vec<_>>()));
            prop_assert_eq!(extent(&whole).unwrap(), Extent { bytes: body.len() as u64, is_exact: true });
            prop_assert!(extent(&parts).unwrap().bytes >= body.len() as u64);
            for packed in [whole, parts] {
                let mut scratch = vec![7; old];
                prop_assert_eq!(decompress_zstd(&packed, &Limits::default(), &mut scratch).unwrap(), &body[..]);
            }
        }

        #[test]
        fn damage_never_panics(body in proptest::collection::vec(0u8..4, 0..600), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut packed = packed(&body, 1);
            let at = at.index(packed.len());
            packed[at] = byte;
            let _ = open(&packed, 1 << 16);
            let _ = open(&packed[at..], 1 << 16);
        }
    }
}
