//! Writes `prometheus.WriteRequest` bytes: for senders, load tools and tests.

use model::histogram::Span;
use model::{Native, Sample, Timestamp};

/// Appends a request of `series` (labels, then samples, in the order given) to `out`, uncompressed.
pub fn encode_v1<'a, L, S>(series: impl IntoIterator<Item = (L, S)>, out: &mut Vec<u8>)
where
    L: IntoIterator<Item = (&'a str, &'a str)>,
    S: IntoIterator<Item = Sample>,
{
    let mut message = Vec::new();
    for (labels, samples) in series {
        message.clear();
        put_series(labels, samples, &mut message);
        put_bytes(1, &message, out);
    }
}

/// Packs a request as it travels: one snappy block.
pub fn compress(request: &[u8]) -> Result<Vec<u8>, crate::WireError> {
    snap::raw::Encoder::new()
        .compress_vec(request)
        .map_err(|error| crate::WireError::refused(format!("request cannot be compressed: {error}")))
}

/// Appends the fields of one `TimeSeries` message.
pub(crate) fn put_series<'a>(
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    samples: impl IntoIterator<Item = Sample>,
    out: &mut Vec<u8>,
) {
    for (name, value) in labels {
        out.push(1 << 3 | 2);
        put_varint(text_len(name) + text_len(value), out);
        put_bytes(1, name.as_bytes(), out);
        put_bytes(2, value.as_bytes(), out);
    }
    put_samples(samples, out);
}

/// Appends the sample fields of a `TimeSeries` message.
pub(crate) fn put_samples(samples: impl IntoIterator<Item = Sample>, out: &mut Vec<u8>) {
    for sample in samples {
        let timestamp = sample.timestamp as u64;
        out.push(2 << 3 | 2);
        out.push(9 + 1 + varint_len(timestamp) as u8);
        put_sample_fields(sample, out);
    }
}

/// Appends the fields of a `Sample` message.
pub(crate) fn put_sample_fields(sample: Sample, out: &mut Vec<u8>) {
    put_double(1, sample.value, out);
    out.push(2 << 3);
    put_varint(sample.timestamp as u64, out);
}

/// Appends the fields of a `Histogram` message, of either version. `start` is left out where it is 0.
pub fn put_histogram(timestamp: Timestamp, start: Timestamp, histogram: &Native, out: &mut Vec<u8>) {
    let (sum, schema, threshold, hint, custom) = match histogram {
        Native::Whole(h) => {
            put_number(1, h.count, out);
            put_number(6, h.zero_count, out);
            (h.sum, h.schema, h.zero_threshold, h.hint, &h.custom_values)
        }
        Native::Float(h) => {
            put_double(2, h.count, out);
            put_double(7, h.zero_count, out);
            (h.sum, h.schema, h.zero_threshold, h.hint, &h.custom_values)
        }
    };
    put_double(3, sum, out);
    put_number(4, zigzag(schema.into()), out);
    put_double(5, threshold, out);
    match histogram {
        Native::Whole(h) => {
            put_side(8, &h.negative_spans, Counts::Deltas(&h.negative_deltas), out);
            put_side(11, &h.positive_spans, Counts::Deltas(&h.positive_deltas), out);
        }
        Native::Float(h) => {
            put_side(8, &h.negative_spans, Counts::Floats(&h.negative_counts), out);
            put_side(11, &h.positive_spans, Counts::Floats(&h.positive_counts), out);
        }
    }
    put_number(14, hint as u64, out);
    put_number(15, timestamp as u64, out);
    put_doubles(16, custom, out);
    if start != 0 {
        put_number(17, start as u64, out);
    }
}

enum Counts<'a> {
    Deltas(&'a [i64]),
    Floats(&'a [f64]),
}

/// The buckets of one side: spans at `field`, deltas at the next, float counts at the one after it.
fn put_side(field: u32, spans: &[Span], counts: Counts<'_>, out: &mut Vec<u8>) {
    let mut packed = Vec::new();
    for span in spans {
        packed.clear();
        put_number(1, zigzag(span.offset.into()), &mut packed);
        put_number(2, span.length.into(), &mut packed);
        put_bytes(field as u8, &packed, out);
    }
    match counts {
        Counts::Deltas(deltas) if !deltas.is_empty() => {
            packed.clear();
            deltas.iter().for_each(|delta| put_varint(zigzag(*delta), &mut packed));
            put_bytes(field as u8 + 1, &packed, out);
        }
        Counts::Deltas(_) => {}
        Counts::Floats(counts) => put_doubles(field + 2, counts, out),
    }
}

fn put_doubles(field: u32, values: &[f64], out: &mut Vec<u8>) {
    if !values.is_empty() {
        put_varint(u64::from(field << 3 | 2), out);
        put_varint(8 * values.len() as u64, out);
        values.iter().for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
    }
}

pub(crate) fn put_number(field: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(field << 3), out);
    put_varint(value, out);
}

/// Appends a float, zero and its sign included; `field` is at most 15.
pub(crate) fn put_double(field: u8, value: f64, out: &mut Vec<u8>) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends a field of bytes; `field` is at most 15.
pub(crate) fn put_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text_len(text: &str) -> u64 {
    1 + varint_len(text.len() as u64) + text.len() as u64
}

fn varint_len(value: u64) -> u64 {
    (70 - (value | 1).leading_zeros() as u64) / 7
}
