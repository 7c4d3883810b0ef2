//! Labels, matchers and chunks, to and from Thanos's messages.

use chunk::Encoding;
use model::{Kind, Labels, MatchOp, Matcher, TimeRange};
use storage::{ChunkData, Error};
use wire::pb::thanos::{self as pb, chunk::Encoding as PbEncoding, label_matcher::Type};
use xxhash_rust::xxh64::xxh64;

pub(crate) fn labels_to_pb(labels: &Labels) -> Vec<pb::Label> {
    labels.iter().map(|(name, value)| pb::Label { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// Labels as a peer sent them. Sorted ones, as nearly all are, become canonical bytes at once.
pub(crate) fn labels_from_pb(labels: &[pb::Label]) -> Result<Labels, Error> {
    let sorted = labels.windows(2).all(|pair| pair[0].name < pair[1].name);
    let whole = labels.iter().all(|l| !l.name.is_empty() && !l.value.is_empty());
    let made = if sorted && whole {
        let mut bytes = Vec::with_capacity(labels.iter().map(|l| l.name.len() + l.value.len() + 8).sum());
        for label in labels {
            put_text(&label.name, &mut bytes);
            put_text(&label.value, &mut bytes);
        }
        Labels::from_bytes(&bytes)
    } else {
        Labels::from_pairs(labels.iter().map(|l| (&l.name, &l.value)))
    };
    made.map_err(|error| Error::with_source(Kind::Corrupt, format!("peer sent bad labels: {error}"), error))
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    // The length as LEB128, which is what protobuf writes too.
    let mut len = text.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn matchers_to_pb(matchers: &[Matcher]) -> Vec<pb::LabelMatcher> {
    let kind = |op| match op {
        MatchOp::Equal => Type::Eq,
        MatchOp::NotEqual => Type::Neq,
        MatchOp::Regex => Type::Re,
        MatchOp::NotRegex => Type::Nre,
    };
    let to_pb = |m: &Matcher| pb::LabelMatcher {
        r#type: kind(m.op) as i32,
        name: m.name.to_string(),
        value: m.value.to_string(),
    };
    matchers.iter().map(to_pb).collect()
}

pub(crate) fn matchers_from_pb(matchers: &[pb::LabelMatcher]) -> Result<Vec<Matcher>, Error> {
    let from_pb = |m: &pb::LabelMatcher| {
        let op = match Type::try_from(m.r#type) {
            Ok(Type::Eq) => MatchOp::Equal,
            Ok(Type::Neq) => MatchOp::NotEqual,
            Ok(Type::Re) => MatchOp::Regex,
            Ok(Type::Nre) => MatchOp::NotRegex,
            Err(_) => {
                return Err(Error::new(Kind::Invalid, format!("matcher type {} is not known", m.r#type)));
            }
        };
        Matcher::new(op, &m.name, &m.value).map_err(|error| {
            Error::with_source(Kind::Invalid, format!("matcher on {:?}: {error}", m.name), error)
        })
    };
    matchers.iter().map(from_pb).collect()
}

/// A chunk as it is stored; the StoreAPI numbers encodings one lower than chunk files do.
pub(crate) fn chunk_to_pb(chunk: &ChunkData) -> Result<pb::AggrChunk, Error> {
    let encoding = match chunk.encoding {
        Encoding::Xor2 | Encoding::HistogramStart | Encoding::FloatHistogramStart => {
            // The StoreAPI has no name for these: peers get the samples without their start times.
            let plain = chunk::plain(chunk.clone())
                .map_err(|e| Error::with_source(Kind::Corrupt, format!("chunk does not decode: {e}"), e))?;
            return match &plain[..] {
                [chunk] => chunk_to_pb(chunk),
                _ => Err(Error::new(Kind::Corrupt, "a chunk of histograms holds a counter reset")),
            };
        }
        Encoding::Xor => PbEncoding::Xor,
        Encoding::Histogram => PbEncoding::Histogram,
        Encoding::FloatHistogram => PbEncoding::FloatHistogram,
        Encoding::Aggregate => {
            return Err(Error::new(Kind::Refused, "downsampled chunks cannot be sent by this version"));
        }
    };
    let raw = pb::Chunk { r#type: encoding as i32, hash: xxh64(&chunk.bytes, 0), data: chunk.bytes.clone() };
    Ok(pb::AggrChunk {
        min_time: chunk.range.start,
        max_time: chunk.range.end,
        raw: Some(raw),
        ..Default::default()
    })
}

/// The raw chunk of a frame; aggregates are refused, never dropped.
pub(crate) fn chunk_from_pb(chunk: pb::AggrChunk) -> Result<ChunkData, Error> {
    let range = TimeRange::new(chunk.min_time, chunk.max_time);
    let Some(raw) = chunk.raw else {
        return Err(Error::new(
            Kind::Refused,
            "peer sent downsampled chunks, which this version cannot read",
        ));
    };
    let encoding = match PbEncoding::try_from(raw.r#type) {
        Ok(PbEncoding::Xor) => Encoding::Xor,
        Ok(PbEncoding::Histogram) => Encoding::Histogram,
        Ok(PbEncoding::FloatHistogram) => Encoding::FloatHistogram,
        Err(_) => {
            let message = format!("peer sent a chunk of unknown encoding {}", raw.r#type);
            return Err(Error::new(Kind::Corrupt, message));
        }
    };
    // A chunk keeps its frame alive as long as it shares its memory; most frames are little but chunks.
    Ok(ChunkData { range, encoding, bytes: raw.data })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_are_what_the_model_makes_of_them(
            pairs in proptest::collection::vec(("[abc]{0,2}", "[xy]{0,2}|z{120,300}"), 0..5),
            sort in any::<bool>(),
        ) {
            let mut labels: Vec<_> =
                pairs.into_iter().map(|(name, value)| pb::Label { name, value }).collect();
            if sort {
                labels.sort_by(|a, b| a.name.cmp(&b.name));
            }
            let made = Labels::from_pairs(labels.iter().map(|l| (&l.name, &l.value)));
            prop_assert_eq!(labels_from_pb(&labels).ok(), made.ok());
        }
    }

    #[test]
    fn chunks_keep_their_bytes_and_unknown_ones_are_refused() {
        let chunk = ChunkData {
            range: TimeRange::new(-5, 5),
            encoding: Encoding::FloatHistogram,
            bytes: Bytes::from_static(b"abc"),
        };
        let sent = chunk_to_pb(&chunk).unwrap();
        assert_eq!(sent.raw.as_ref().unwrap().r#type, 2);
        assert_eq!(chunk_from_pb(sent.clone()).unwrap(), chunk);
        let raw = pb::Chunk { r#type: 9, ..Default::default() };
        let odd = pb::AggrChunk { raw: Some(raw), ..sent.clone() };
        assert_eq!(chunk_from_pb(odd).unwrap_err().kind, Kind::Corrupt);
        let aggregate = pb::AggrChunk { raw: None, count: Some(Default::default()), ..sent };
        assert_eq!(chunk_from_pb(aggregate).unwrap_err().kind, Kind::Refused);
    }

    #[test]
    fn matchers_round_trip_and_bad_ones_are_named() {
        let all = [
            Matcher::equal("a", "1"),
            Matcher::new(MatchOp::NotRegex, "b", "x|y").unwrap(),
            Matcher::new(MatchOp::Regex, "c", ".*").unwrap(),
            Matcher::new(MatchOp::NotEqual, "d", "").unwrap(),
        ];
        assert_eq!(matchers_from_pb(&matchers_to_pb(&all)).unwrap(), all);
        let bad = pb::LabelMatcher { r#type: 2, name: "a".to_owned(), value: "(".to_owned() };
        let error = matchers_from_pb(&[bad]).unwrap_err();
        assert!(error.kind == Kind::Invalid && error.message.starts_with("matcher on \"a\""), "{error}");
    }
}
