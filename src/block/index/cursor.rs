//! Reads big-endian integers and varints from a byte slice, never beyond its end.

use crate::Error;

/// A position in bytes that belong to an index or a chunk file.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

const SHORT: &str = "bytes end too early";

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or_else(|| Error::corrupt(SHORT))?;
        self.rest = tail;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        let (&byte, tail) = self.rest.split_first().ok_or_else(|| Error::corrupt(SHORT))?;
        self.rest = tail;
        Ok(byte)
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        let (head, tail) = self.rest.split_first_chunk::<4>().ok_or_else(|| Error::corrupt(SHORT))?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        let (head, tail) = self.rest.split_first_chunk::<8>().ok_or_else(|| Error::corrupt(SHORT))?;
        self.rest = tail;
        Ok(u64::from_be_bytes(*head))
    }

    /// An unsigned LEB128.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u64, Error> {
        if let Some((&byte, tail)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = tail;
            return Ok(u64::from(byte));
        }
        self.long_uvarint()
    }

    fn long_uvarint(&mut self) -> Result<u64, Error> {
        let mut out = 0u64;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            if byte < 0x80 {
                if at == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[at + 1..];
                return Ok(out | u64::from(byte) << (7 * at));
            }
            out |= u64::from(byte & 0x7f) << (7 * at);
        }
        Err(Error::corrupt(if self.rest.len() < 10 { SHORT } else { "a varint overflows 64 bits" }))
    }

    /// Goes behind so many LEB128, whatever their values.
    pub fn skip_varints(&mut self, count: usize) -> Result<(), Error> {
        let mut left = count;
        let mut at = 0;
        while left > 0 {
            let byte = *self.rest.get(at).ok_or_else(|| Error::corrupt(SHORT))?;
            left -= usize::from(byte < 0x80);
            at += 1;
        }
        self.rest = &self.rest[at..];
        Ok(())
    }

    /// A zigzag LEB128.
    #[inline]
    pub fn varint(&mut self) -> Result<i64, Error> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A text with its length as LEB128 before it.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.uvarint()?;
        self.take(usize::try_from(len).map_err(|_| Error::corrupt(SHORT))?)
    }
}

/// Appends an unsigned LEB128.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zigzag LEB128.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, (value << 1) as u64 ^ (value >> 63) as u64);
}

/// Splits `u32 length | body | u32 CRC32C of the body` off the front, checking the sum. Bytes behind it may follow.
pub fn checked_section<'a>(bytes: &'a [u8], what: &str) -> Result<&'a [u8], Error> {
    let mut cursor = Cursor::new(bytes);
    let body = (|| {
        let len = cursor.u32()?;
        let body = cursor.take(len as usize)?;
        Ok((body, cursor.u32()?))
    })();
    let (body, sum) = body.map_err(|e: Error| e.within(what))?;
    if crc32c::crc32c(body) != sum {
        return Err(Error::corrupt(format!("{what}: checksum does not match")));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_end_in_time() {
        for value in [0i64, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN, 1 << 35] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut cursor = Cursor::new(&out);
            assert_eq!(cursor.varint().unwrap(), value);
            assert!(cursor.is_empty());
            assert!(Cursor::new(&out[..out.len() - 1]).varint().is_err());
        }
        let mut cursor = Cursor::new(&[1, 0x80, 1, 0xff, 0xff, 3, 9]);
        cursor.skip_varints(3).unwrap();
        assert_eq!(cursor.rest(), [9]);
        assert!(Cursor::new(&[1, 0x80]).skip_varints(2).is_err());
        assert!(Cursor::new(&[0xff; 20]).uvarint().is_err());
        assert_eq!(Cursor::new(&[0xff; 9]).uvarint().unwrap_err().message, SHORT);
    }
}
