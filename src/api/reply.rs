//! Successful answers, written in pieces.
//!
//! An answer is turned into JSON while it is sent: at most one piece of 64 KiB exists at a time, whatever the
//! size of the result. Order and form of the envelope are Prometheus's.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use model::Labels;
use storage::Notes;

use crate::json;

/// Bytes after which a piece is sent.
const PIECE: usize = 64 << 10;
/// Most warnings, and most infos, that one answer carries.
const MAX_NOTES: usize = 10;

/// What stands after `"data":`, written bit by bit.
pub trait Data: Send + 'static {
    /// Writes on until `out` has about `until` bytes; true once all is written.
    fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool;
}

/// Data that is JSON already.
pub struct Written(pub Vec<u8>);

impl Data for Written {
    fn write(&mut self, out: &mut Vec<u8>, _: usize) -> bool {
        out.append(&mut self.0);
        true
    }
}

/// A list, one item at a time.
pub struct List<T> {
    items: Vec<T>,
    at: usize,
    write: fn(&mut Vec<u8>, &T),
}

impl List<String> {
    /// Names or values.
    pub fn texts(items: Vec<String>) -> List<String> {
        List { items, at: 0, write: |out, item| json::text(out, item) }
    }
}

impl List<Labels> {
    /// Label sets as objects.
    pub fn series(items: Vec<Labels>) -> List<Labels> {
        List { items, at: 0, write: json::labels }
    }
}

impl<T: Send + 'static> Data for List<T> {
    fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool {
        if self.at == 0 {
            out.push(b'[');
        }
        while self.at < self.items.len() && out.len() < until {
            if self.at > 0 {
                out.push(b',');
            }
            (self.write)(out, &self.items[self.at]);
            self.at += 1;
        }
        // An empty list is never mistaken for one that was just begun: it ends in the same call.
        let done = self.at == self.items.len();
        if done {
            out.push(b']');
        }
        done
    }
}

/// A successful answer.
pub struct Reply<D> {
    data: D,
    notes: Notes,
}

impl<D: Data> Reply<D> {
    pub fn new(data: D, notes: Notes) -> Reply<D> {
        Reply { data, notes }
    }
}

impl<D: Data> IntoResponse for Reply<D> {
    fn into_response(self) -> Response {
        // Partial answers must not be cached; what PromQL itself remarks would be remarked again.
        let passing = self.notes.warnings.iter().any(|text| !text.starts_with("PromQL"));
        let mut pieces = Pieces { data: self.data, notes: self.notes, state: State::Head };
        let first = pieces.next().unwrap_or_default();
        let body = match pieces.state {
            // Small answers go out whole, with their length.
            State::Done => Body::from(first),
            _ => {
                let all = std::iter::once(first).chain(pieces).map(Ok::<_, Infallible>);
                Body::from_stream(futures::stream::iter(all))
            }
        };
        let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
        if passing {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }
}

struct Pieces<D> {
    data: D,
    notes: Notes,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Head,
    Data,
    Done,
}

impl<D: Data> Iterator for Pieces<D> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        match self.state {
            State::Done => return None,
            State::Head => out.extend_from_slice(b"{\"status\":\"success\",\"data\":"),
            State::Data => out.reserve(PIECE + (PIECE >> 3)),
        }
        self.state = State::Data;
        if self.data.write(&mut out, PIECE) {
            self.state = State::Done;
            notes(&mut out, "warnings", "warning", &self.notes.warnings);
            notes(&mut out, "infos", "info", &self.notes.infos);
            out.push(b'}');
        }
        Some(out.into())
    }
}

fn notes(out: &mut Vec<u8>, key: &str, what: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    out.extend_from_slice(format!(",\"{key}\":").as_bytes());
    if texts.len() <= MAX_NOTES {
        return json::list(out, texts);
    }
    let mut shown = texts[..MAX_NOTES].to_vec();
    shown.push(format!("{} more {what} annotations omitted", texts.len() - MAX_NOTES));
    json::list(out, &shown);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn envelope_and_notes() {
        let none = Reply::new(List::texts(Vec::new()), Notes::default()).into_response();
        assert_eq!(body(none).await, r#"{"status":"success","data":[]}"#);
        let mut said =
            Notes { warnings: (0..12).map(|i| format!("w{i}")).collect(), infos: vec!["i<".into()] };
        let many = Reply::new(Written(b"{}".to_vec()), said.clone()).into_response();
        let text = body(many).await;
        assert!(
            text.ends_with(r#""w9","2 more warning annotations omitted"],"infos":["i\u003c"]}"#),
            "{text}"
        );
        said.warnings.truncate(10);
        let ten = body(Reply::new(Written(b"{}".to_vec()), said).into_response()).await;
        assert!(!ten.contains("omitted"));
    }

    #[tokio::test]
    async fn long_answers_are_the_same_in_pieces() {
        let items: Vec<String> = (0..50_000).map(|i| format!("value-{i}")).collect();
        let response = Reply::new(List::texts(items.clone()), Notes::default()).into_response();
        assert!(response.headers().get(header::CONTENT_LENGTH).is_none());
        let parsed: serde_json::Value = serde_json::from_str(&body(response).await).unwrap();
        assert_eq!(parsed["data"], serde_json::json!(items));
    }
}
