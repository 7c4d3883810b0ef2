//! `/federate`: the newest sample of every matching series, as a page that a Prometheus scrapes.
//!
//! Samples carry their own times, so that the scraper keeps them; types are unknown here, so every metric is
//! untyped. Native histograms have no place in the text format and are left out, as Prometheus does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chunk::Encoding;
use futures::stream;
use http::{HeaderMap, header};
use model::{Labels, METRIC_NAME, Sample, TimeRange, is_stale};
use storage::{Columns, Context, Merge, Reservation, Select, SelectRequest, SeriesSet, decode_series};

use super::ApiState;
use crate::params::Params;
use crate::{Problem, number};

const PIECE: usize = 64 << 10;
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
const UTF_8: &str = "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8";

pub(super) async fn federate(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Result<Params, Problem>,
) -> Response {
    match params {
        Ok(params) => page(api, headers, params).await,
        Err(problem) => Err(problem),
    }
    .unwrap_or_else(Problem::into_text)
}

async fn page(api: ApiState, headers: HeaderMap, params: Params) -> Result<Response, Problem> {
    api.ready()?;
    let sets = super::series::matcher_sets(&params)?;
    let now = api.now_ms();
    let range = TimeRange::new(now.saturating_sub(api.inner.engine.settings().lookback_ms), now);
    let world = api.inner.world.clone();
    let work = move |select: Arc<dyn Select>, context: &Context| {
        let mut opened = Vec::with_capacity(sets.len());
        for matchers in sets {
            opened.push(select.select(&SelectRequest::new(range, matchers), context)?);
        }
        let mut merged = Merge::new(opened);
        let (mut found, mut held) = (Vec::new(), context.budget.reserve(0)?);
        let mut columns = Columns::default();
        while let Some(mut entry) = merged.next()? {
            context.cancel.check(world.clock.monotonic())?;
            entry.chunks.retain(|chunk| chunk.encoding == Encoding::Xor);
            columns.clear();
            decode_series(&entry.chunks, range, &mut columns)?;
            let newest = columns.timestamps.last().zip(columns.values.last());
            let Some((&timestamp, &value)) = newest.filter(|(_, v)| !is_stale(**v)) else { continue };
            if !entry.labels.metric_name().is_empty() {
                held.grow(entry.labels.as_bytes().len() as u64 + 48)?;
                found.push((entry.labels, Sample { timestamp, value }));
            }
        }
        // Labels that sort before the name would tear metrics apart.
        found.sort_by(|a, b| a.0.metric_name().cmp(b.0.metric_name()));
        Ok((found, held))
    };
    let (found, held) = super::series::run(&api, &headers, &params, work).await?;
    let utf_8 = accepts_utf_8(&headers);
    let pages = Pages { samples: found.into_iter(), of: None, utf_8, _held: held };
    let head = [(header::CONTENT_TYPE, if utf_8 { UTF_8 } else { PLAIN })];
    Ok((head, Body::from_stream(stream::iter(pages))).into_response())
}

/// Whether the scraper reads names that are more than letters, digits and underscores.
fn accepts_utf_8(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next() == Some("text/plain") && parts.any(|part| part == "escaping=allow-utf-8")
    })
}

/// The text, written as it is sent.
struct Pages {
    samples: std::vec::IntoIter<(Labels, Sample)>,
    /// The metric whose type was written last.
    of: Option<String>,
    utf_8: bool,
    _held: Reservation,
}

impl Iterator for Pages {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut out = Vec::new();
        while out.len() < PIECE
            && let Some((labels, sample)) = self.samples.next()
        {
            let name = Name::new(labels.metric_name(), self.utf_8, true);
            if self.of.as_deref() != Some(&name.text) {
                out.extend_from_slice(b"# TYPE ");
                name.write(&mut out);
                out.extend_from_slice(b" untyped\n");
                self.of = Some(name.text.clone());
            }
            line(&mut out, &name, &labels, sample, self.utf_8);
        }
        (!out.is_empty()).then(|| Ok(out.into()))
    }
}

/// A name as the page may write it.
struct Name {
    text: String,
    quoted: bool,
}

impl Name {
    fn new(name: &str, utf_8: bool, metric: bool) -> Name {
        let fits = |(at, c): (usize, char)| {
            c.is_ascii_alphabetic() || c == '_' || (metric && c == ':') || (at > 0 && c.is_ascii_digit())
        };
        let plain = name.char_indices().all(fits);
        let text = match plain || utf_8 {
            true => name.to_owned(),
            false => name.char_indices().map(|at| if fits(at) { at.1 } else { '_' }).collect(),
        };
        Name { text, quoted: utf_8 && !plain }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self.quoted {
            true => quoted(out, &self.text),
            false => out.extend_from_slice(self.text.as_bytes()),
        }
    }
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

fn line(out: &mut Vec<u8>, name: &Name, labels: &Labels, sample: Sample, utf_8: bool) {
    // A quoted name stands among the labels.
    if !name.quoted {
        name.write(out);
    }
    out.push(b'{');
    if name.quoted {
        name.write(out);
        out.push(b',');
    }
    // Without it the scraper would put the address of this server in its place.
    let instance = labels.get("instance").is_none().then_some(("instance", ""));
    let pairs = labels.iter().filter(|(name, _)| *name != METRIC_NAME).chain(instance);
    for (at, (label, value)) in pairs.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        Name::new(label, utf_8, false).write(out);
        out.push(b'=');
        quoted(out, value);
    }
    out.extend_from_slice(b"} ");
    number::exposition(out, sample.value);
    out.push(b' ');
    number::integer(out, sample.timestamp);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(utf_8: bool) -> String {
        let series = [
            [("__name__", "a:b"), ("instance", "x"), ("p", "say \"hi\"\n\\")].as_slice(),
            &[("__name__", "a:b"), ("j:k", "1")],
            &[("__name__", "http.load"), ("ü", "2")],
        ];
        let sample = |at: usize| Sample { timestamp: -5 + at as i64, value: 1e6 + at as f64 };
        let samples: Vec<_> = series
            .iter()
            .enumerate()
            .map(|(at, pairs)| (Labels::from_pairs(pairs.iter().copied()).unwrap(), sample(at)))
            .collect();
        let held = Context::background().budget.reserve(0).unwrap();
        let pages = Pages { samples: samples.into_iter(), of: None, utf_8, _held: held };
        let bytes: Vec<u8> = pages.flat_map(|piece| piece.unwrap().to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn names_are_escaped_or_quoted() {
        assert_eq!(
            page(false),
            "# TYPE a:b untyped\n\
             a:b{instance=\"x\",p=\"say \\\"hi\\\"\\n\\\\\"} 1e+06 -5\n\
             a:b{j_k=\"1\",instance=\"\"} 1.000001e+06 -4\n\
             # TYPE http_load untyped\n\
             http_load{_=\"2\",instance=\"\"} 1.000002e+06 -3\n"
        );
        assert_eq!(
            page(true),
            "# TYPE a:b untyped\n\
             a:b{instance=\"x\",p=\"say \\\"hi\\\"\\n\\\\\"} 1e+06 -5\n\
             a:b{\"j:k\"=\"1\",instance=\"\"} 1.000001e+06 -4\n\
             # TYPE \"http.load\" untyped\n\
             {\"http.load\",\"ü\"=\"2\",instance=\"\"} 1.000002e+06 -3\n"
        );
    }

    #[test]
    fn who_reads_utf_8() {
        let of = |accept| accepts_utf_8(&HeaderMap::from_iter([(header::ACCEPT, accept)]));
        let text = |text| http::HeaderValue::from_static(text);
        assert!(of(text(
            "application/openmetrics-text;version=1.0.0,text/plain;version=1.0.0; escaping=allow-utf-8;q=0.4"
        )));
        assert!(!of(text("text/plain;version=0.0.4;q=0.3,*/*;q=0.2")));
        assert!(!of(text("application/openmetrics-text;escaping=allow-utf-8,text/plain")));
    }
}
