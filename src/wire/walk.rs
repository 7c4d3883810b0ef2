//! The grammar of protobuf: keys, varints, lengths, and skipping what is unknown.

use crate::WireError;

/// Groups nested deeper than this are refused; nothing that we read nests at all.
const MAX_DEPTH: u32 = 100;

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    GroupStart = 3,
    GroupEnd = 4,
    Fixed32 = 5,
}

/// A place in a message.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    pub end: usize,
}

/// Joins the low seven bits of each of eight bytes.
#[inline]
fn seven_bits(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}

fn cut(what: &str, at: usize) -> WireError {
    WireError::invalid(format!("protobuf is cut short in {what} at byte {at}"))
}

impl<'a> Walk<'a> {
    pub fn new(bytes: &'a [u8]) -> Walk<'a> {
        Walk { bytes, at: 0, end: bytes.len() }
    }

    #[inline]
    pub fn is_done(&self) -> bool {
        self.at >= self.end
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 && self.at < self.end => {
                self.at += 1;
                Ok(byte as u64)
            }
            _ => self.long_varint(),
        }
    }

    /// Of up to eight bytes at once where they are there, which they are but at the end of a body: what lies behind
    /// the end of the message is loaded with them, and not used.
    #[inline]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        if let Some(word) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*word);
            // The first byte without its top bit is the last one.
            let stops = !word & 0x8080_8080_8080_8080;
            if stops != 0 {
                let bits = stops.trailing_zeros() + 1;
                let next = self.at + (bits / 8) as usize;
                if next <= self.end {
                    self.at = next;
                    return Ok(seven_bits(word & (u64::MAX >> (64 - bits))));
                }
            }
        }
        self.any_varint()
    }

    #[cold]
    fn any_varint(&mut self) -> Result<u64, WireError> {
        let start = self.at;
        let mut value = 0u64;
        for (n, &byte) in self.bytes[start..self.end].iter().take(10).enumerate() {
            value |= ((byte & 0x7f) as u64) << (7 * n);
            if byte < 0x80 {
                if n == 9 && byte > 1 {
                    break;
                }
                self.at = start + n + 1;
                return Ok(value);
            }
        }
        if self.end - start < 10 {
            return Err(cut("a number", start));
        }
        Err(WireError::invalid(format!("protobuf has a number of more than 64 bits at byte {start}")))
    }

    #[inline]
    pub fn key(&mut self) -> Result<(u32, Wire), WireError> {
        let start = self.at;
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            other => {
                return Err(WireError::invalid(format!(
                    "protobuf has unknown wire type {other} at byte {start}"
                )));
            }
        };
        match u32::try_from(key) {
            Ok(key) if key >> 3 != 0 => Ok((key >> 3, wire)),
            _ => Err(WireError::invalid(format!("protobuf has impossible key {key} at byte {start}"))),
        }
    }

    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        match self.bytes[..self.end].get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(cut("a fixed number", self.at)),
        }
    }

    /// A length, and the walk over what it encloses; this walk goes on behind it.
    #[inline]
    pub fn enter(&mut self) -> Result<Walk<'a>, WireError> {
        let start = self.at;
        let len = self.varint()?;
        if len > (self.end - self.at) as u64 {
            return Err(cut("a field", start));
        }
        let inner = Walk { bytes: self.bytes, at: self.at, end: self.at + len as usize };
        self.at = inner.end;
        Ok(inner)
    }

    /// Steps over the value of an unknown field.
    pub fn skip(&mut self, field: u32, wire: Wire) -> Result<(), WireError> {
        self.skip_nested(field, wire, 0)
    }

    fn skip_nested(&mut self, field: u32, wire: Wire, depth: u32) -> Result<(), WireError> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.fixed64().map(drop),
            Wire::Bytes => self.enter().map(drop),
            Wire::Fixed32 if self.end - self.at >= 4 => {
                self.at += 4;
                Ok(())
            }
            Wire::Fixed32 => Err(cut("a fixed number", self.at)),
            Wire::GroupStart if depth >= MAX_DEPTH => {
                Err(WireError::invalid(format!("protobuf nests groups too deeply at byte {}", self.at)))
            }
            Wire::GroupStart => loop {
                let (inner, wire) = self.key()?;
                match wire {
                    Wire::GroupEnd if inner == field => return Ok(()),
                    _ => self.skip_nested(inner, wire, depth + 1)?,
                }
            },
            Wire::GroupEnd => {
                Err(WireError::invalid(format!("protobuf ends a group never begun at byte {}", self.at)))
            }
        }
    }

    /// Refuses a known field of the wrong shape.
    #[inline]
    pub fn expect(&self, got: Wire, want: Wire, what: &str) -> Result<(), WireError> {
        if got == want {
            return Ok(());
        }
        Err(WireError::invalid(format!(
            "protobuf has {what} as {got:?} instead of {want:?} at byte {}",
            self.at
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(mut value: u64, padding: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        // A number may be longer than it needs to be.
        for _ in 0..padding.min(10 - out.len()) {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
        out
    }

    proptest! {
        #[test]
        fn numbers_are_read_alike_with_and_without_bytes_behind(
            value in any::<u64>(), shift in 0u32..64, padding in 0usize..3, behind in proptest::collection::vec(any::<u8>(), 0..12)
        ) {
            let value = value >> shift;
            let mut bytes = encoded(value, padding);
            let len = bytes.len();
            for end in [len, len + behind.len()] {
                bytes.truncate(len);
                bytes.extend(&behind);
                let mut walk = Walk { bytes: &bytes, at: 0, end };
                prop_assert_eq!(walk.varint().unwrap(), value);
                prop_assert_eq!(walk.at, len);
            }
            // What lies behind the end of the message is not read.
            let mut walk = Walk { bytes: &bytes, at: 0, end: len - 1 };
            prop_assert!(walk.varint().is_err());
        }

        #[test]
        fn any_bytes_are_read_as_byte_by_byte(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0x80), Just(0xff), Just(0x01)], 0..14
        )) {
            let (mut fast, mut slow) = (Walk::new(&bytes), Walk::new(&bytes));
            let (got, want) = (fast.varint(), slow.any_varint());
            prop_assert_eq!(got.map_err(|e| e.message), want.map_err(|e| e.message));
            prop_assert_eq!(fast.at, slow.at);
        }
    }
}
