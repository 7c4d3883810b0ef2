//! Walks a `prometheus.WriteRequest` by hand into columns.
//!
//! Accepts whatever a protobuf library accepts: unknown fields, fields in any order and more than once,
//! numbers longer than needed. One difference: a text that is not UTF-8 spoils its series, exemplar or metadata,
//! not the request.
//!
//! # Cost
//! One pass over the body; no allocation once the columns have grown.

use model::{Sample, Timestamp};

use super::columns::{DecodedV1, LabelPair, Series, SeriesFault};
use super::{Limits, columns, extras};
use crate::WireError;
use crate::walk::{Walk, Wire};

pub(super) const LABEL_KEY: u8 = 1 << 3 | 2;
/// Key of a sample in a series.
const SAMPLE_KEY: u8 = 0x12;
const NAME_KEY: u8 = 1 << 3 | 2;
const VALUE_KEY: u8 = 2 << 3 | 2;

/// Reads a decompressed body into `out`, which is cleared first and holds nothing of use after an error.
pub fn decode_v1(body: &[u8], limits: &Limits, out: &mut DecodedV1) -> Result<(), WireError> {
    out.clear(limits);
    if u32::try_from(body.len()).is_err() {
        return Err(WireError::refused(format!("write request too large: {} bytes", body.len())));
    }
    let mut walk = Walk::new(body);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => {
                walk.expect(wire, Wire::Bytes, "a time series")?;
                push_series(walk.enter()?, limits, out)?;
            }
            3 => {
                walk.expect(wire, Wire::Bytes, "metadata")?;
                let metadata = extras::metadata_v1(walk.enter()?)?;
                out.push_metadata(metadata);
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(())
}

/// Reads one `TimeSeries` message as the next series of `out`; [`crate::pb`]'s copies of the message in other
/// packages are equal on the wire.
pub(crate) fn push_series(mut walk: Walk<'_>, limits: &Limits, out: &mut DecodedV1) -> Result<(), WireError> {
    columns::check_series_limit(out, limits)?;
    let first_label = out.labels.len();
    let first_sample = out.samples.len();
    let (first_histogram, first_exemplar) = (out.histograms.len() as u32, out.exemplars.len() as u32);
    let mut too_many = false;
    // The labels' stretch of the body, and whether anything else lies inside.
    let (mut raw_start, mut raw_end, mut whole) = (walk.at, walk.at, true);
    while !walk.is_done() {
        if let Some(sample) = usual_sample(&mut walk) {
            out.push_sample((sample, 0));
            continue;
        }
        let key_at = walk.at;
        let usual = usual_label(&walk);
        let (field, wire) = if usual.is_some() { (1, Wire::Bytes) } else { walk.key()? };
        match field {
            1 => {
                walk.expect(wire, Wire::Bytes, "a label")?;
                if raw_end == raw_start {
                    raw_start = key_at;
                } else if raw_end != key_at {
                    whole = false;
                }
                let pair = match usual {
                    Some((pair, next)) => {
                        walk.at = next;
                        pair
                    }
                    None => label(walk.enter()?)?,
                };
                raw_end = walk.at;
                if out.labels.len() - first_label < limits.max_labels {
                    out.labels.push(pair);
                } else {
                    too_many = true;
                }
            }
            2 => {
                walk.expect(wire, Wire::Bytes, "a sample")?;
                out.push_sample(sample_with_start(walk.enter()?)?);
            }
            3 => {
                walk.expect(wire, Wire::Bytes, "an exemplar")?;
                out.push_exemplar(walk.enter()?)?;
            }
            4 => {
                walk.expect(wire, Wire::Bytes, "a histogram")?;
                out.push_histogram(walk.enter()?)?;
            }
            _ => walk.skip(field, wire)?,
        }
    }
    // Where every byte of the stretch is ASCII, so is every text in it: one wide pass instead of many short
    // ones. A text of 128 bytes or more has a length byte that is not, and is looked at by itself.
    let utf8 = walk.bytes[raw_start..raw_end].is_ascii()
        || out.labels[first_label..].iter().all(|pair| columns::is_utf8(walk.bytes, pair));
    let fault = match (too_many, utf8) {
        (true, _) => Some(SeriesFault::TooManyLabels),
        (_, false) => Some(SeriesFault::Utf8),
        _ => None,
    };
    let raw_labels = if whole { raw_start as u32..raw_end as u32 } else { 0..0 };
    out.series.push(Series {
        labels: first_label as u32..out.labels.len() as u32,
        samples: first_sample as u32..out.samples.len() as u32,
        raw_labels,
        first_histogram,
        first_exemplar,
        histograms: out.histograms.len() as u32 - first_histogram,
        exemplars: out.exemplars.len() as u32 - first_exemplar,
        fault,
    });
    Ok(())
}

/// A label as nearly every sender writes it: name, then value, all lengths in one byte. Gives the label and
/// where it ends; whatever looks different is left to [`label`].
#[inline]
pub(super) fn usual_label(walk: &Walk<'_>) -> Option<(LabelPair, usize)> {
    let rest = walk.bytes[..walk.end].get(walk.at..)?;
    let &[LABEL_KEY, len, NAME_KEY, name_len] = rest.first_chunk::<4>()? else { return None };
    let (len, name_len) = (len as usize, name_len as usize);
    if (len | name_len) >= 0x80 {
        return None;
    }
    let message = rest.get(2..2 + len)?;
    let after_name = message.get(2 + name_len..)?;
    let &[VALUE_KEY, value_len] = after_name.first_chunk::<2>()? else { return None };
    if value_len >= 0x80 || 2 + value_len as usize != after_name.len() {
        return None;
    }
    let name = walk.at + 4;
    let value = name + name_len + 2;
    let end = walk.at + 2 + len;
    let pair = LabelPair { name: (name as u32, (name + name_len) as u32), value: (value as u32, end as u32) };
    Some((pair, end))
}

#[inline]
pub(super) fn label(mut walk: Walk<'_>) -> Result<LabelPair, WireError> {
    let mut pair = LabelPair { name: (0, 0), value: (0, 0) };
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 | 2 => {
                walk.expect(wire, Wire::Bytes, "a label's text")?;
                let text = walk.enter()?;
                let span = (text.at as u32, text.end as u32);
                if field == 1 {
                    pair.name = span;
                } else {
                    pair.value = span;
                }
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(pair)
}

/// A sample in the form in which every sender writes it, value and then time, with its key and length before it.
/// None, and nothing read, where it looks different.
#[inline]
pub(super) fn usual_sample(walk: &mut Walk<'_>) -> Option<Sample> {
    let message = walk.bytes.get(..walk.end)?.get(walk.at..)?;
    // Key, length, key of the value, value, key of the time, and a time of one byte or more.
    let head = message.first_chunk::<13>()?;
    let len = usize::from(head[1]);
    if head[0] != SAMPLE_KEY || head[2] != 0x09 || head[11] != 0x10 || !(11..0x80).contains(&len) {
        return None;
    }
    if message.len() < 2 + len {
        return None;
    }
    let mut time = Walk { bytes: walk.bytes, at: walk.at + 12, end: walk.at + 2 + len };
    let timestamp = time.varint().ok()? as i64;
    if time.at != walk.at + 2 + len {
        return None;
    }
    let value = head[3..11].first_chunk::<8>()?;
    walk.at = time.at;
    Some(Sample { timestamp, value: f64::from_bits(u64::from_le_bytes(*value)) })
}

#[inline]
pub(super) fn sample(mut walk: Walk<'_>) -> Result<Sample, WireError> {
    let mut sample = Sample { timestamp: 0, value: 0.0 };
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => {
                walk.expect(wire, Wire::Fixed64, "a sample's value")?;
                sample.value = f64::from_bits(walk.fixed64()?);
            }
            2 => {
                walk.expect(wire, Wire::Varint, "a sample's timestamp")?;
                sample.timestamp = walk.varint()? as i64;
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(sample)
}

/// The same, and when counting started (0: not said), as version 2.0 and our own nodes have it.
pub(super) fn sample_with_start(mut walk: Walk<'_>) -> Result<(Sample, Timestamp), WireError> {
    let (mut sample, mut start) = (Sample { timestamp: 0, value: 0.0 }, 0);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => {
                walk.expect(wire, Wire::Fixed64, "a sample's value")?;
                sample.value = f64::from_bits(walk.fixed64()?);
            }
            2 => {
                walk.expect(wire, Wire::Varint, "a sample's timestamp")?;
                sample.timestamp = walk.varint()? as i64;
            }
            // In version 1.0 this field means nothing, so that it may be of any kind.
            3 if wire == Wire::Varint => start = walk.varint()? as i64,
            _ => walk.skip(field, wire)?,
        }
    }
    Ok((sample, start))
}
