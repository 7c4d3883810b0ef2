//! Frames: a kind, a body, a checksum; and the two that open a stream.

use super::bytes::{Put, Read};

/// The version of what is written here; both ends say which they know.
pub(crate) const VERSION: u32 = 1;

/// Kinds of frames, by direction: to the receiver, and back.
pub(crate) const HELLO: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
pub(crate) const WELCOME: u8 = 65;
pub(crate) const REPLY: u8 = 66;
pub(crate) const GOODBYE: u8 = 67;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame is cut short")]
    Short,
    #[error("frame has {0}")]
    Malformed(&'static str),
    #[error("frame does not have the checksum that it names")]
    Checksum,
    #[error("frame of kind {0} is not known here")]
    Kind(u8),
    #[error("frame has more {0} than are allowed")]
    Limit(&'static str),
}

/// Features, a bit each: requests name their ring epoch, and are told where it is a stale one.
pub(crate) const RING_EPOCHS: u64 = 1;

/// Begins a frame.
pub(crate) fn begin(kind: u8, out: &mut Vec<u8>) {
    out.clear();
    out.push(kind);
}

/// Ends it.
pub(crate) fn end(out: &mut Vec<u8>) {
    let sum = crc32c::crc32c(out);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// The kind and the body of a frame that is whole.
pub(crate) fn open(frame: &[u8]) -> Result<(u8, Read<'_>), FrameError> {
    let (covered, sum) = frame.split_last_chunk::<4>().ok_or(FrameError::Short)?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*sum) {
        return Err(FrameError::Checksum);
    }
    let (kind, body) = covered.split_first().ok_or(FrameError::Short)?;
    Ok((*kind, Read(body)))
}

/// The sender's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions that it can write.
    pub lowest: u32,
    pub highest: u32,
    /// What it can do beyond them, a bit each.
    pub features: u64,
    /// Its address, for logs.
    pub door: String,
}

/// The receiver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both use from now on; 0 where there is none.
    pub version: u32,
    /// Those of the sender's features that it can do as well.
    pub features: u64,
    /// Names that it keeps at most.
    pub names: u32,
    /// Longest frame that it takes, in bytes.
    pub frame_bytes: u32,
    /// Bytes of requests that may be under way at once.
    pub inflight_bytes: u32,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        begin(HELLO, &mut out);
        out.put_number(self.lowest.into());
        out.put_number(self.highest.into());
        out.put_number(self.features);
        out.put_counted(self.door.as_bytes());
        end(&mut out);
        out
    }

    /// What follows the known fields belongs to later versions and is passed over.
    pub fn decode(frame: &[u8]) -> Result<Hello, FrameError> {
        let (kind, mut read) = open(frame)?;
        if kind != HELLO {
            return Err(FrameError::Kind(kind));
        }
        let (lowest, highest, features) = (read.short()?, read.short()?, read.number()?);
        let door = String::from_utf8_lossy(read.counted()?).into_owned();
        Ok(Hello { lowest, highest, features, door })
    }
}

impl Welcome {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        begin(WELCOME, &mut out);
        out.put_number(self.version.into());
        out.put_number(self.features);
        for limit in [self.names, self.frame_bytes, self.inflight_bytes] {
            out.put_number(limit.into());
        }
        end(&mut out);
        out
    }

    /// As [`Hello::decode`].
    pub fn decode(frame: &[u8]) -> Result<Welcome, FrameError> {
        let (kind, mut read) = open(frame)?;
        if kind != WELCOME {
            return Err(FrameError::Kind(kind));
        }
        Ok(Welcome {
            version: read.short()?,
            features: read.number()?,
            names: read.short()?,
            frame_bytes: read.short()?,
            inflight_bytes: read.short()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greetings_come_back_and_pass_over_what_is_new() {
        let hello = Hello { lowest: 1, highest: 3, features: 5, door: "a:1".to_owned() };
        assert_eq!(Hello::decode(&hello.encode()).unwrap(), hello);
        let welcome = Welcome { version: 1, features: 0, names: 7, frame_bytes: 8, inflight_bytes: u32::MAX };
        let mut longer = welcome.encode();
        assert_eq!(Welcome::decode(&longer).unwrap(), welcome);
        assert_eq!(Hello::decode(&longer), Err(FrameError::Kind(WELCOME)));
        longer.truncate(longer.len() - 4);
        longer.extend(b"new");
        end(&mut longer);
        assert_eq!(Welcome::decode(&longer).unwrap(), welcome);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_seen(door in "[a-z]{0,20}", bit in any::<prop::sample::Index>()) {
            let mut frame = Hello { lowest: 1, highest: 1, features: 0, door }.encode();
            let bit = bit.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Hello::decode(&frame), Err(FrameError::Checksum));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut frame = bytes.clone();
            end(&mut frame);
            for frame in [bytes, frame] {
                let _ = Hello::decode(&frame);
                let _ = Welcome::decode(&frame);
            }
        }
    }
}
