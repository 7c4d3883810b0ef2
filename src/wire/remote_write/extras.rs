//! What requests carry beside float samples: native histograms, exemplars and metadata.
//!
//! Both versions share these messages but for their texts, which stand in the message (1.0) or in a table of the request
//! (2.0). All of them are rare, so this code is plain where the float path is quick.

use std::ops::Range;

use model::histogram::{FloatHistogram, Histogram, Native, ResetHint, Span};
use model::{InvalidHistogram, Timestamp};

use super::columns::{LabelPair, SeriesFault};
use crate::WireError;
use crate::walk::{Walk, Wire};

/// Most of each kind in one request: a message of two bytes must not cost a hundred of memory without end.
pub(super) const MAX_HISTOGRAMS: usize = 1 << 17;
pub(super) const MAX_EXEMPLARS: usize = 1 << 18;
pub(super) const MAX_METADATA: usize = 1 << 17;
/// Buckets, spans and bounds of all histograms of one request.
pub(super) const MAX_BUCKETS: usize = 4 << 20;
/// Labels of one exemplar; real ones have two or three, and 128 characters in all.
pub(super) const MAX_EXEMPLAR_LABELS: usize = 64;

/// One native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// Milliseconds.
    pub timestamp: Timestamp,
    /// When counting started, in milliseconds; 0 where the sender does not say.
    pub start_timestamp: Timestamp,
    /// Checked, and of a schema that is stored (finer ones are reduced); or why it is refused.
    pub histogram: Result<Native, InvalidHistogram>,
}

/// One exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub(super) labels: Range<u32>,
    pub value: f64,
    /// Milliseconds.
    pub timestamp: Timestamp,
    /// Why its labels cannot be used.
    pub fault: Option<SeriesFault>,
}

/// Type, help and unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Number of the type: 0 unknown, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram, 5 summary, 6 info, 7 state set;
    /// what senders invent beyond is unknown too.
    pub kind: u8,
    pub(super) subject: Subject,
    pub(super) help: (u32, u32),
    pub(super) unit: (u32, u32),
}

/// Whose metadata it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The metric family of this name (1.0).
    Name((u32, u32)),
    /// The series at this index (2.0).
    Series(u32),
}

pub(super) fn kind(raw: u64) -> u8 {
    u8::try_from(raw).ok().filter(|k| *k <= 7).unwrap_or(0)
}

fn span_of(walk: &Walk<'_>) -> (u32, u32) {
    (walk.at as u32, walk.end as u32)
}

/// Reads a `MetricMetadata` message of version 1.0.
pub(super) fn metadata_v1(mut walk: Walk<'_>) -> Result<Metadata, WireError> {
    let (mut code, mut name, mut help, mut unit) = (0, (0, 0), (0, 0), (0, 0));
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => {
                walk.expect(wire, Wire::Varint, "a metric's type")?;
                code = kind(walk.varint()?);
            }
            2 | 4 | 5 => {
                walk.expect(wire, Wire::Bytes, "a metric's text")?;
                let span = span_of(&walk.enter()?);
                match field {
                    2 => name = span,
                    4 => help = span,
                    _ => unit = span,
                }
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(Metadata { kind: code, subject: Subject::Name(name), help, unit })
}

/// Where an exemplar's labels come from.
pub(super) trait ExemplarLabels {
    /// Takes field 1 of the message.
    fn take(&mut self, walk: &mut Walk<'_>, wire: Wire) -> Result<(), WireError>;
}

/// Value and time of an exemplar; its labels go to `labels`. The message is alike in both versions but for these.
pub(super) fn exemplar(
    mut walk: Walk<'_>,
    labels: &mut impl ExemplarLabels,
) -> Result<(f64, Timestamp), WireError> {
    let (mut value, mut timestamp) = (0.0, 0);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => labels.take(&mut walk, wire)?,
            2 => {
                walk.expect(wire, Wire::Fixed64, "an exemplar's value")?;
                value = f64::from_bits(walk.fixed64()?);
            }
            3 => {
                walk.expect(wire, Wire::Varint, "an exemplar's timestamp")?;
                timestamp = walk.varint()? as i64;
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok((value, timestamp))
}

/// Labels that stand in the message.
pub(super) struct InMessage<'a> {
    pub out: &'a mut Vec<LabelPair>,
    pub left: usize,
    pub too_many: bool,
}

impl ExemplarLabels for InMessage<'_> {
    fn take(&mut self, walk: &mut Walk<'_>, wire: Wire) -> Result<(), WireError> {
        walk.expect(wire, Wire::Bytes, "an exemplar's label")?;
        let pair = super::decode::label(walk.enter()?)?;
        match self.left {
            0 => self.too_many = true,
            _ => {
                self.out.push(pair);
                self.left -= 1;
            }
        }
        Ok(())
    }
}

/// A count, as whole number or as float; the one sent last counts.
#[derive(Clone, Copy)]
enum Count {
    Whole(u64),
    Float(f64),
}

/// Reads a `Histogram` message of either version, checks it and reduces its schema. `buckets` is what the request may
/// still hold.
pub(super) fn histogram(mut walk: Walk<'_>, buckets: &mut usize) -> Result<HistogramSample, WireError> {
    let (mut count, mut zero) = (Count::Whole(0), Count::Whole(0));
    let mut whole = Histogram::default();
    let (mut positive_counts, mut negative_counts, mut custom) = (Vec::new(), Vec::new(), Vec::new());
    let (mut timestamp, mut start_timestamp) = (0, 0);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 | 6 => {
                walk.expect(wire, Wire::Varint, "a histogram's count")?;
                let n = Count::Whole(walk.varint()?);
                *(if field == 1 { &mut count } else { &mut zero }) = n;
            }
            2 | 7 => {
                walk.expect(wire, Wire::Fixed64, "a histogram's count")?;
                let n = Count::Float(f64::from_bits(walk.fixed64()?));
                *(if field == 2 { &mut count } else { &mut zero }) = n;
            }
            3 | 5 => {
                walk.expect(wire, Wire::Fixed64, "a histogram's sum or zero threshold")?;
                let v = f64::from_bits(walk.fixed64()?);
                *(if field == 3 { &mut whole.sum } else { &mut whole.zero_threshold }) = v;
            }
            4 => {
                walk.expect(wire, Wire::Varint, "a histogram's schema")?;
                whole.schema = sint32(walk.varint()?);
            }
            8 | 11 => {
                walk.expect(wire, Wire::Bytes, "a bucket span")?;
                let span = bucket_span(walk.enter()?)?;
                take(buckets, 1)?;
                if field == 8 { &mut whole.negative_spans } else { &mut whole.positive_spans }.push(span);
            }
            9 => varints(&mut walk, wire, buckets, |v| whole.negative_deltas.push(sint64(v)))?,
            12 => varints(&mut walk, wire, buckets, |v| whole.positive_deltas.push(sint64(v)))?,
            10 => doubles(&mut walk, wire, buckets, &mut negative_counts)?,
            13 => doubles(&mut walk, wire, buckets, &mut positive_counts)?,
            16 => doubles(&mut walk, wire, buckets, &mut custom)?,
            14 => {
                walk.expect(wire, Wire::Varint, "a histogram's reset hint")?;
                let code = u8::try_from(walk.varint()?).ok();
                whole.hint = code.and_then(ResetHint::from_code).unwrap_or_default();
            }
            15 | 17 => {
                walk.expect(wire, Wire::Varint, "a histogram's timestamp")?;
                let t = walk.varint()? as i64;
                *(if field == 15 { &mut timestamp } else { &mut start_timestamp }) = t;
            }
            _ => walk.skip(field, wire)?,
        }
    }
    whole.custom_values = custom.into();
    // Which kind it is, is said by the field of the count alone: a count of 0.0 makes a float histogram.
    let made = match count {
        Count::Float(count) => Native::Float(FloatHistogram {
            schema: whole.schema,
            zero_threshold: whole.zero_threshold,
            zero_count: if let Count::Float(zero) = zero { zero } else { 0.0 },
            count,
            sum: whole.sum,
            hint: whole.hint,
            positive_spans: whole.positive_spans,
            negative_spans: whole.negative_spans,
            positive_counts,
            negative_counts,
            custom_values: whole.custom_values,
        }),
        Count::Whole(count) => {
            whole.count = count;
            whole.zero_count = if let Count::Whole(zero) = zero { zero } else { 0 };
            Native::Whole(whole)
        }
    };
    Ok(HistogramSample { timestamp, start_timestamp, histogram: settle(made) })
}

/// Checks, and brings to a form that is stored: of a stale marker only that it is one.
fn settle(mut made: Native) -> Result<Native, InvalidHistogram> {
    if made.is_stale() {
        return Ok(match made {
            Native::Whole(h) => Native::Whole(Histogram { sum: h.sum, ..Histogram::default() }),
            Native::Float(h) => Native::Float(FloatHistogram { sum: h.sum, ..FloatHistogram::default() }),
        });
    }
    made.check()?;
    made.reduce_schema();
    Ok(made)
}

fn bucket_span(mut walk: Walk<'_>) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 | 2 => {
                walk.expect(wire, Wire::Varint, "a bucket span's number")?;
                let v = walk.varint()?;
                if field == 1 { span.offset = sint32(v) } else { span.length = v as u32 }
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(span)
}

/// A repeated number, packed or one by one: both are legal.
pub(super) fn varints(
    walk: &mut Walk<'_>,
    wire: Wire,
    budget: &mut usize,
    mut push: impl FnMut(u64),
) -> Result<(), WireError> {
    if wire == Wire::Varint {
        take(budget, 1)?;
        push(walk.varint()?);
        return Ok(());
    }
    walk.expect(wire, Wire::Bytes, "packed numbers")?;
    let mut inner = walk.enter()?;
    while !inner.is_done() {
        take(budget, 1)?;
        push(inner.varint()?);
    }
    Ok(())
}

fn doubles(walk: &mut Walk<'_>, wire: Wire, budget: &mut usize, out: &mut Vec<f64>) -> Result<(), WireError> {
    if wire == Wire::Fixed64 {
        take(budget, 1)?;
        out.push(f64::from_bits(walk.fixed64()?));
        return Ok(());
    }
    walk.expect(wire, Wire::Bytes, "packed floats")?;
    let mut inner = walk.enter()?;
    while !inner.is_done() {
        take(budget, 1)?;
        out.push(f64::from_bits(inner.fixed64()?));
    }
    Ok(())
}

fn take(budget: &mut usize, count: usize) -> Result<(), WireError> {
    *budget = budget.checked_sub(count).ok_or_else(|| {
        WireError::refused(format!(
            "write request has more than {MAX_BUCKETS} histogram buckets; send fewer per request"
        ))
    })?;
    Ok(())
}

fn sint32(raw: u64) -> i32 {
    let raw = raw as u32;
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

fn sint64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}
