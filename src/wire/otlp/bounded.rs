//! Decodes an `ExportMetricsServiceRequest` whose messages are counted first.
//!
//! An empty message takes two bytes on the wire and a hundred in memory, and messages nest: so nothing is
//! allocated before a walk over the bytes has said how many there are and how deep.

use prost::Message;

use super::Request;
use crate::WireError;
use crate::walk::{Walk, Wire};

/// Most messages of all kinds in one request: points, attributes, exemplars. A request of 10 000 points with ten
/// attributes each has a fifth of it.
pub const MAX_MESSAGES: usize = 1 << 20;
/// Most numbers in the buckets of one request.
pub const MAX_BUCKETS: usize = 4 << 20;
/// How deep attribute values may nest.
pub const MAX_DEPTH: usize = 32;

/// The messages that hold others.
#[derive(Clone, Copy)]
enum Shape {
    Request,
    ResourceMetrics,
    Resource,
    ScopeMetrics,
    Scope,
    Metric,
    Numbers,
    Histograms,
    Exponentials,
    Summaries,
    Number,
    Histogram,
    Exponential,
    Buckets,
    Summary,
    Exemplar,
    Pair,
    Value,
    Array,
    Pairs,
    Leaf,
}

/// What a field of a message holds, if that is a message.
fn inner(shape: Shape, field: u32) -> Option<Shape> {
    use Shape::*;
    Some(match (shape, field) {
        (Request, 1) => ResourceMetrics,
        (ResourceMetrics, 1) => Resource,
        (ResourceMetrics, 2) => ScopeMetrics,
        (Resource, 1) | (Scope, 3) | (Metric, 12) | (Pairs, 1) => Pair,
        (ScopeMetrics, 1) => Scope,
        (ScopeMetrics, 2) => Metric,
        (Metric, 5 | 7) => Numbers,
        (Metric, 9) => Histograms,
        (Metric, 10) => Exponentials,
        (Metric, 11) => Summaries,
        (Numbers, 1) => Number,
        (Histograms, 1) => Histogram,
        (Exponentials, 1) => Exponential,
        (Summaries, 1) => Summary,
        (Number | Summary | Exemplar, 7) | (Histogram, 9) | (Exponential, 1) => Pair,
        (Number, 5) | (Histogram, 8) | (Exponential, 11) => Exemplar,
        (Exponential, 8 | 9) => Buckets,
        (Summary, 6) => Leaf,
        (Pair, 2) | (Array, 1) => Value,
        (Value, 5) => Array,
        (Value, 6) => Pairs,
        _ => return None,
    })
}

#[derive(Default)]
struct Counts {
    messages: usize,
    buckets: usize,
}

fn count(mut walk: Walk<'_>, shape: Shape, depth: usize, counts: &mut Counts) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::refused(format!("OTLP attribute values nest deeper than {MAX_DEPTH}")));
    }
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        if wire != Wire::Bytes {
            // One number of a list that is not packed.
            counts.buckets += usize::from(matches!(shape, Shape::Histogram | Shape::Buckets));
            walk.skip(field, wire)?;
            continue;
        }
        let part = walk.enter()?;
        match (shape, field) {
            // Eight bytes each here; at least one each there.
            (Shape::Histogram, 6 | 7) => counts.buckets += (part.end - part.at) / 8,
            (Shape::Buckets, 2) => counts.buckets += part.end - part.at,
            _ => {
                if let Some(shape) = inner(shape, field) {
                    counts.messages += 1;
                    count(part, shape, depth + 1, counts)?;
                }
            }
        }
        if counts.messages > MAX_MESSAGES || counts.buckets > MAX_BUCKETS {
            return Err(WireError::refused(format!(
                "OTLP request has more than {MAX_MESSAGES} points and attributes, or {MAX_BUCKETS} buckets; send smaller batches"
            )));
        }
    }
    Ok(())
}

/// Decodes protobuf.
pub fn decode(plain: &[u8]) -> Result<Request, WireError> {
    count(Walk::new(plain), Shape::Request, 0, &mut Counts::default())?;
    Request::decode(plain)
        .map_err(|error| WireError::invalid(format!("OTLP request does not decode: {error}")))
}
