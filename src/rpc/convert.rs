//! Labels, matchers and chunks, to and from Thanos's messages.

use chunk::Encoding;
use model::{Kind, Labels, LabelsBuilder, MatchOp, Matcher, TimeRange};
use storage::{ChunkData, Error};
use wire::pb::thanos::{self as pb, chunk::Encoding as PbEncoding, label_matcher::Type};
use xxhash_rust::xxh64::xxh64;

pub(crate) fn labels_to_pb(labels: &Labels) -> Vec<pb::Label> {
    labels.iter().map(|(name, value)| pb::Label { name: name.to_owned(), value: value.to_owned() }).collect()
}

pub(crate) fn labels_from_pb(labels: &[pb::Label]) -> Result<Labels, Error> {
    let mut builder = LabelsBuilder::default();
    for label in labels {
        builder.push(&label.name, &label.value);
    }
    builder
        .finish()
        .map_err(|error| Error::with_source(Kind::Corrupt, format!("peer sent bad labels: {error}"), error))
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
