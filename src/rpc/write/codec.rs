//! gRPC messages of the write path: requests as raw bytes, responses by prost.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use wire::pb::thanos::WriteResponse;

pub(crate) const PATH: &str = "/thanos.WriteableStore/RemoteWrite";
pub(crate) const SERVICE: &str = "thanos.WriteableStore";

/// The server's side: request bytes in, responses out.
#[derive(Clone, Copy, Default)]
pub(crate) struct ServerCodec;

/// The client's side: request bytes out, responses in.
#[derive(Clone, Copy, Default)]
pub(crate) struct ClientCodec;

/// Bytes either way.
#[derive(Clone, Copy, Default)]
pub(crate) struct RawCodec;

#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

#[derive(Clone, Copy, Default)]
pub(crate) struct Response;

impl Codec for ServerCodec {
    type Encode = WriteResponse;
    type Decode = Bytes;
    type Encoder = Response;
    type Decoder = Raw;

    fn encoder(&mut self) -> Response {
        Response
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Codec for ClientCodec {
    type Encode = Bytes;
    type Decode = WriteResponse;
    type Encoder = Raw;
    type Decoder = Response;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Response {
        Response
    }
}

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

impl Encoder for Response {
    type Item = WriteResponse;
    type Error = Status;

    fn encode(&mut self, item: WriteResponse, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(format!("response does not encode: {error}")))
    }
}

impl Decoder for Response {
    type Item = WriteResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<WriteResponse>, Status> {
        let response = WriteResponse::decode(from)
            .map_err(|error| Status::internal(format!("response does not decode: {error}")))?;
        Ok(Some(response))
    }
}
