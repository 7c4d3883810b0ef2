//! Snappy blocks, opened only after their declared size was judged.

use snap::raw::{Decoder, decompress_len};

use super::Limits;
use crate::WireError;

/// Bodies that expand to less are not judged by ratio.
const RATIO_FROM: usize = 1 << 20;

/// Opens a snappy block into `scratch` and gives back the part that it fills. `scratch` only grows; it is
/// the caller's to keep for the next body. Nothing is allocated for a body whose declared size is refused.
pub fn decompress<'a>(body: &[u8], limits: &Limits, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], WireError> {
    let declared = decompress_len(body)
        .map_err(|error| WireError::invalid(format!("body is not a snappy block: {error}")))?;
    if declared > limits.max_bytes {
        return Err(WireError::refused(format!(
            "write request too large: {declared} bytes after decompression, {} are allowed; send fewer \
             samples per request",
            limits.max_bytes
        )));
    }
    if declared > RATIO_FROM && declared / limits.max_ratio.max(1) > body.len() {
        return Err(WireError::refused(format!(
            "body of {} bytes claims to hold {declared}: more than {} times its size is not plausible",
            body.len(),
            limits.max_ratio
        )));
    }
    if scratch.len() < declared {
        scratch.resize(declared, 0);
    }
    let filled = Decoder::new()
        .decompress(body, &mut scratch[..declared])
        .map_err(|error| WireError::invalid(format!("body is not a snappy block: {error}")))?;
    Ok(&scratch[..filled])
}

#[cfg(test)]
mod tests {
    use model::Kind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bomb_is_refused_before_memory_is_spent() {
        let limits = Limits::default();
        let mut scratch = Vec::new();
        // A declared length of 4 GiB - 1 in five bytes.
        let error = decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], &limits, &mut scratch).unwrap_err();
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.message.contains("4294967295 bytes"), "{error}");
        // 2 MiB of zeroes in a hundred thousandth of that.
        let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 8 << 20]).unwrap();
        let tight = Limits { max_ratio: 10, ..limits };
        assert_eq!(decompress(&bomb, &tight, &mut scratch).unwrap_err().kind, Kind::Refused);
        assert_eq!(scratch.capacity(), 0);
        assert!(decompress(&bomb, &limits, &mut scratch).is_ok());
    }

    #[test]
    fn garbage_says_what_it_is_not() {
        for body in [&b""[..], b"\x05hello", b"\xff\xff\xff\xff\xff\xff\xff"] {
            let error = decompress(body, &Limits::default(), &mut Vec::new()).unwrap_err();
            assert!(error.message.starts_with("body is not a snappy block"), "{error}");
            assert_eq!(error.kind, Kind::Invalid);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decompress(&body, &Limits::default(), &mut Vec::new());
        }

        #[test]
        fn round_trip(body in proptest::collection::vec(any::<u8>(), 0..2000), old in 0..3000usize) {
            let packed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
            let mut scratch = vec![7; old];
            prop_assert_eq!(decompress(&packed, &Limits::default(), &mut scratch).unwrap(), &body[..]);
        }
    }
}
