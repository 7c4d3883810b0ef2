//! Writes `prometheus.WriteRequest` bytes: for senders, load tools and tests.

use model::Sample;

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
        out.push(1 << 3 | 1);
        out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        out.push(2 << 3);
        put_varint(timestamp, out);
    }
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
