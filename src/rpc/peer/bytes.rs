//! Numbers and stretches of bytes, written and read: what all frames are made of.

use super::FrameError;

/// Writes to the end of a buffer.
pub(crate) trait Put {
    /// Seven bits a byte, lowest first.
    fn put_number(&mut self, number: u64);

    /// A number with a sign: small ones of either are short.
    fn put_signed(&mut self, number: i64);

    /// Bytes with their length before them.
    fn put_counted(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline]
    fn put_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    #[inline]
    fn put_signed(&mut self, number: i64) {
        self.put_number(((number << 1) ^ (number >> 63)) as u64);
    }

    fn put_counted(&mut self, bytes: &[u8]) {
        self.put_number(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'a>(pub &'a [u8]);

impl<'a> Read<'a> {
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, FrameError> {
        let (&byte, rest) = self.0.split_first().ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn number(&mut self) -> Result<u64, FrameError> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(FrameError::Malformed("a number of more than 64 bits"));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64, FrameError> {
        let raw = self.number()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A number that has to fit 32 bits.
    pub(crate) fn short(&mut self) -> Result<u32, FrameError> {
        u32::try_from(self.number()?).map_err(|_| FrameError::Malformed("a number of more than 32 bits"))
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn counted(&mut self) -> Result<&'a [u8], FrameError> {
        let count = self.number()?;
        self.take(usize::try_from(count).map_err(|_| FrameError::Short)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            number: u64, signed: i64, bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let mut out = Vec::new();
            out.put_number(number);
            out.put_signed(signed);
            out.put_counted(&bytes);
            let mut read = Read(&out);
            prop_assert_eq!(read.number().unwrap(), number);
            prop_assert_eq!(read.signed().unwrap(), signed);
            prop_assert_eq!(read.counted().unwrap(), &bytes[..]);
            prop_assert!(read.is_done());
            let mut cut = Read(&out[..out.len() - 1]);
            prop_assert!(cut.number().is_err() || cut.signed().is_err() || cut.counted().is_err());
        }
    }

    #[test]
    fn numbers_too_long_are_refused() {
        assert!(Read(&[0xff; 11]).number().is_err());
        assert_eq!(Read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).number(), Ok(u64::MAX));
        assert!(Read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number().is_err());
    }
}
