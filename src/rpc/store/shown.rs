//! Which blocks a store shows: asked by their ULIDs in the hints of a Series request, as Thanos has them.
//!
//! A store of Thanos answers such a request with the series of those blocks and names the blocks that it has looked at; ours
//! names them and sends nothing else, which is all that is asked for here.

use model::{Kind, Labels, MatchOp, Matcher, TimeRange};
use prost::Message;
use storage::Error;
use tonic::Streaming;
use wire::pb::hintspb::{Block, SeriesRequestHints, SeriesResponseHints};
use wire::pb::thanos::{self as pb, series_response::Result as Frame};

use super::client::StoreClient;
use crate::{convert, metrics};

/// The label by which blocks are asked for.
const BLOCK_ID: &str = "__block_id";
const REQUEST: &str = "type.googleapis.com/hintspb.SeriesRequestHints";
const RESPONSE: &str = "type.googleapis.com/hintspb.SeriesResponseHints";

/// What a request demands of blocks' ULIDs; none where it asks for series.
pub(super) fn asked(request: &pb::SeriesRequest) -> Result<Option<Vec<Matcher>>, Error> {
    let Some(hints) = request.hints.as_ref().filter(|hints| hints.type_url == REQUEST) else {
        return Ok(None);
    };
    let hints = SeriesRequestHints::decode(hints.value.as_slice()).map_err(|error| {
        Error::with_source(Kind::Invalid, format!("hints cannot be read: {error}"), error)
    })?;
    let mut matchers = convert::matchers_from_pb(&hints.block_matchers)?;
    matchers.retain(|matcher| &*matcher.name == BLOCK_ID);
    Ok((!matchers.is_empty()).then_some(matchers))
}

/// Those of `ids` that all matchers take, as the frame that names them.
pub(super) fn named(ids: &[String], matchers: &[Matcher]) -> pb::SeriesResponse {
    let wanted = ids.iter().filter(|id| matchers.iter().all(|matcher| matcher.matches(id)));
    let queried_blocks = wanted.map(|id| Block { id: id.clone() }).collect();
    let hints = SeriesResponseHints { queried_blocks, ..SeriesResponseHints::default() };
    let any = prost_types::Any { type_url: RESPONSE.to_owned(), value: hints.encode_to_vec() };
    pb::SeriesResponse { result: Some(Frame::Hints(any)) }
}

impl StoreClient {
    /// Whether the store shows a block: its ULID, its external labels and its times say which it is.
    pub async fn shows(&self, id: &str, labels: &Labels, range: TimeRange) -> Result<bool, Error> {
        let inner = &self.inner;
        let by_id = convert::matchers_to_pb(&[Matcher::equal(BLOCK_ID, id)]);
        let hints = SeriesRequestHints { block_matchers: by_id, ..SeriesRequestHints::default() };
        let mut matchers: Vec<Matcher> =
            labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        // A request that demands nothing of the series themselves is refused.
        matchers.extend(Matcher::new(MatchOp::Regex, "__name__", ".+").ok());
        let request = pb::SeriesRequest {
            min_time: range.start,
            max_time: range.end,
            matchers: convert::matchers_to_pb(&matchers),
            skip_chunks: true,
            limit: 1,
            hints: Some(prost_types::Any { type_url: REQUEST.to_owned(), value: hints.encode_to_vec() }),
            ..pb::SeriesRequest::default()
        };
        let mut client = inner.client();
        let call = client.series(inner.request(request));
        let mut stream: Streaming<pb::SeriesResponse> = inner.within(metrics::SERIES, call).await?;
        let mut shown = false;
        while let Some(frame) = inner.frame(metrics::SERIES, &mut stream).await? {
            let Some(Frame::Hints(any)) = frame.result else { continue };
            if let Ok(hints) = SeriesResponseHints::decode(any.value.as_slice()) {
                shown |= hints.queried_blocks.iter().any(|block| block.id == id);
            }
        }
        metrics::client_handled(metrics::SERIES, tonic::Code::Ok);
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_named_where_they_are_asked_for() {
        assert_eq!(asked(&pb::SeriesRequest::default()).unwrap(), None);
        let by = |name: &str, value: &str| {
            let block_matchers = convert::matchers_to_pb(&[Matcher::equal(name, value)]);
            let hints = SeriesRequestHints { block_matchers, ..SeriesRequestHints::default() };
            let any = prost_types::Any { type_url: REQUEST.to_owned(), value: hints.encode_to_vec() };
            asked(&pb::SeriesRequest { hints: Some(any), ..pb::SeriesRequest::default() }).unwrap()
        };
        assert_eq!(by("replica", "a"), None);
        let matchers = by(BLOCK_ID, "01B").unwrap();
        let Some(Frame::Hints(any)) = named(&["01A".to_owned(), "01B".to_owned()], &matchers).result else {
            panic!("hints are a frame of their own");
        };
        let told = SeriesResponseHints::decode(any.value.as_slice()).unwrap();
        assert_eq!(told.queried_blocks, [Block { id: "01B".to_owned() }]);
        let rubbish = prost_types::Any { type_url: REQUEST.to_owned(), value: vec![0xff] };
        assert!(asked(&pb::SeriesRequest { hints: Some(rubbish), ..pb::SeriesRequest::default() }).is_err());
    }
}
