//! A read request: decompressed and decoded within bounds, and turned into selections.

use model::{MatchOp, Matcher, TimeRange};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use storage::SelectRequest;
use wire::pb::prometheus::{LabelMatcher, ReadRequest, label_matcher, read_request::ResponseType};

use super::MAX_BYTES;
use crate::Problem;

/// Most fields in one request, counted before they are decoded: an empty field takes two bytes of a body and a
/// hundred of memory.
const MAX_FIELDS: usize = 100_000;

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Samples,
    Chunks,
}

/// One of the questions of a request.
#[derive(Clone, Debug)]
pub(super) struct ReadQuery {
    pub request: SelectRequest,
}

/// Reads a compressed body.
pub(super) fn parse(body: &[u8]) -> Result<(Vec<ReadQuery>, Answer), Problem> {
    let corrupt = |_| Problem::bad_data("snappy: corrupt input");
    let declared = snap::raw::decompress_len(body).map_err(corrupt)?;
    if declared > MAX_BYTES {
        return Err(Problem::bad_data(format!(
            "read request too large: {declared} bytes after decompression, {MAX_BYTES} are allowed"
        )));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(corrupt)?;
    let malformed = |why: String| Problem::bad_data(format!("cannot decode the read request: {why}"));
    let fields = count_fields(&plain, Place::Request).ok_or_else(|| malformed("it is cut short".into()))?;
    if fields > MAX_FIELDS {
        return Err(Problem::bad_data(format!(
            "read request too large: it has {fields} fields, {MAX_FIELDS} are allowed"
        )));
    }
    let request = ReadRequest::decode(&plain[..]).map_err(|e| malformed(e.to_string()))?;
    let answer = choose(&request.accepted_response_types)?;
    let queries = request.queries.into_iter().map(query).collect::<Result<_, _>>()?;
    Ok((queries, answer))
}

/// The first type that we know; none asked for means samples.
fn choose(accepted: &[i32]) -> Result<Answer, Problem> {
    let known = |kind: &i32| match ResponseType::try_from(*kind) {
        Ok(ResponseType::Samples) => Some(Answer::Samples),
        Ok(ResponseType::StreamedXorChunks) => Some(Answer::Chunks),
        Err(_) => None,
    };
    match accepted {
        [] => Ok(Answer::Samples),
        some => some.iter().find_map(known).ok_or_else(|| {
            Problem::bad_data(format!(
                "server does not support any of the requested response types: {some:?}; \
                 supported: SAMPLES (0), STREAMED_XOR_CHUNKS (1)"
            ))
        }),
    }
}

fn query(query: wire::pb::prometheus::Query) -> Result<ReadQuery, Problem> {
    let matchers = query.matchers.iter().map(matcher).collect::<Result<_, _>>()?;
    let range = TimeRange::new(query.start_timestamp_ms, query.end_timestamp_ms);
    let mut request = SelectRequest::new(range, matchers);
    if let Some(hints) = query.hints {
        request.hints.step = hints.step_ms;
        request.hints.function = hints.func;
        request.hints.range = hints.range_ms;
        request.hints.grouping = hints.grouping;
        request.hints.by = hints.by;
    }
    Ok(ReadQuery { request })
}

fn matcher(matcher: &LabelMatcher) -> Result<Matcher, Problem> {
    let op = match label_matcher::Type::try_from(matcher.r#type) {
        Ok(label_matcher::Type::Eq) => MatchOp::Equal,
        Ok(label_matcher::Type::Neq) => MatchOp::NotEqual,
        Ok(label_matcher::Type::Re) => MatchOp::Regex,
        Ok(label_matcher::Type::Nre) => MatchOp::NotRegex,
        Err(_) => return Err(Problem::bad_data("invalid matcher type")),
    };
    let wrong = |why| Problem::bad_data(format!("matcher {}{}: {why}", matcher.name, op.as_str()));
    Matcher::new(op, &matcher.name, &matcher.value).map_err(wrong)
}

/// Where in a request a field stands.
#[derive(Clone, Copy)]
enum Place {
    Request,
    Query,
    Leaf,
}

/// Fields of a message and of the messages in it; packed numbers count one by one. None if it is cut short.
fn count_fields(mut bytes: &[u8], place: Place) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).ok()?;
        count += 1;
        let skipped = match wire_type {
            WireType::Varint => {
                decode_varint(&mut bytes).ok()?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut bytes).ok()?).ok()?,
            // Groups are in no version of these messages.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let (inner, rest) = bytes.split_at_checked(skipped)?;
        bytes = rest;
        count += match (place, tag, wire_type) {
            (Place::Request, 1, WireType::LengthDelimited) => count_fields(inner, Place::Query)?,
            (Place::Request, 2, WireType::LengthDelimited) => inner.len(),
            (Place::Query, 3 | 4, WireType::LengthDelimited) => count_fields(inner, Place::Leaf)?,
            _ => 0,
        };
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::pb::prometheus::{Query, ReadHints};

    use super::*;

    fn packed(message: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(message).unwrap()
    }

    fn refused(body: &[u8]) -> String {
        let problem = parse(body).unwrap_err();
        assert_eq!(problem.error_type, crate::ErrorType::BadData);
        problem.message
    }

    #[test]
    fn questions() {
        let m = |kind: label_matcher::Type, value: &str| LabelMatcher {
            r#type: kind as i32,
            name: "a".into(),
            value: value.into(),
        };
        use label_matcher::Type::*;
        let hints = ReadHints { func: "rate".into(), range_ms: 5, ..ReadHints::default() };
        let query = Query {
            start_timestamp_ms: 1,
            end_timestamp_ms: 2,
            matchers: vec![m(Eq, "1"), m(Neq, "2"), m(Re, "3|4"), m(Nre, "5")],
            hints: Some(hints),
        };
        let mut request = ReadRequest { queries: vec![query], accepted_response_types: vec![7, 1, 0] };
        let (queries, answer) = parse(&packed(&request.encode_to_vec())).unwrap();
        assert_eq!(answer, Answer::Chunks);
        let asked = &queries[0].request;
        let texts: Vec<String> = asked.matchers.iter().map(ToString::to_string).collect();
        assert_eq!(texts.join(","), r#"a="1",a!="2",a=~"3|4",a!~"5""#);
        assert_eq!(
            (asked.range, &*asked.hints.function, asked.hints.range),
            (TimeRange::new(1, 2), "rate", 5)
        );
        request.accepted_response_types = vec![];
        assert_eq!(parse(&packed(&request.encode_to_vec())).unwrap().1, Answer::Samples);
        request.accepted_response_types = vec![9];
        assert!(refused(&packed(&request.encode_to_vec())).contains("response types: [9]"));
        request.accepted_response_types = vec![];
        request.queries[0].matchers[2].value = "(".into();
        assert!(refused(&packed(&request.encode_to_vec())).starts_with("matcher a=~: "));
        request.queries[0].matchers[2].r#type = 4;
        assert_eq!(refused(&packed(&request.encode_to_vec())), "invalid matcher type");
    }

    #[test]
    fn bodies_beyond_bounds_are_refused_before_memory_is_taken() {
        assert_eq!(refused(b"\xff\xff\xff\xff\xff\xff"), "snappy: corrupt input");
        assert_eq!(refused(b""), "snappy: corrupt input");
        // Declares 4 GiB less one byte.
        assert!(refused(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).contains("4294967295 bytes"));
        // Queries, and types, of two bytes and one byte each.
        let queries = [0x0a, 0].repeat(MAX_FIELDS + 1);
        assert!(refused(&packed(&queries)).contains("it has 100001 fields"));
        let types = ReadRequest { queries: vec![], accepted_response_types: vec![0; MAX_FIELDS + 1] };
        assert!(refused(&packed(&types.encode_to_vec())).contains("100000 are allowed"));
        assert!(refused(&packed(&[0x0a, 5])).contains("cut short"));
        assert!(refused(&packed(&[0x0a, 2, 0x1a, 9])).contains("cut short"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_answered(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&packed(&bytes));
        }

        #[test]
        fn fields_are_counted_as_they_are_decoded(
            queries in proptest::collection::vec((0usize..5, 0usize..4), 0..6), types in 0usize..5,
        ) {
            let of = |(matchers, grouping): &(usize, usize)| Query {
                matchers: vec![LabelMatcher { r#type: 1, name: "n".into(), value: "v".into() }; *matchers],
                hints: Some(ReadHints { grouping: vec!["g".into(); *grouping], ..ReadHints::default() }),
                ..Query::default()
            };
            let fields: usize = queries.iter().map(|(m, g)| 2 + 4 * m + g).sum();
            let request = ReadRequest {
                queries: queries.iter().map(of).collect(),
                accepted_response_types: vec![1; types],
            };
            let expected = fields + types + usize::from(types > 0);
            prop_assert_eq!(count_fields(&request.encode_to_vec(), Place::Request), Some(expected));
        }
    }
}
