//! Remote-write 1.0 bodies, quickly: each series' label bytes are encoded once and copied from then on.

use super::{Request, Workload};

/// Encodes the requests of one workload.
pub struct BodyEncoder {
    /// Encoded label fields of all series, end to end.
    labels: Vec<u8>,
    ends: Vec<u32>,
}

impl BodyEncoder {
    pub fn new(workload: &Workload) -> BodyEncoder {
        let (mut labels, mut ends) = (Vec::new(), Vec::with_capacity(workload.series.len()));
        for series in &workload.series {
            for (name, value) in &series.labels {
                let len = field_len(name.len()) + field_len(value.len());
                labels.push(0x0a);
                put_uvarint(&mut labels, len as u64);
                put_text(&mut labels, 0x0a, name);
                put_text(&mut labels, 0x12, value);
            }
            ends.push(labels.len() as u32);
        }
        BodyEncoder { labels, ends }
    }

    /// The snappy-compressed body of a request; `scratch` is reused between calls.
    pub fn body(&self, workload: &Workload, request: Request, scratch: &mut Vec<u8>) -> Vec<u8> {
        scratch.clear();
        let time = workload.time(request.step);
        let mut sample = Vec::with_capacity(24);
        for series in request.first..request.first + request.len {
            sample.clear();
            sample.push(0x09);
            sample.extend_from_slice(&workload.value(series, request.step).to_le_bytes());
            sample.push(0x10);
            put_uvarint(&mut sample, time as u64);
            let start = if series == 0 { 0 } else { self.ends[series - 1] as usize };
            let labels = &self.labels[start..self.ends[series] as usize];
            scratch.push(0x0a);
            put_uvarint(scratch, (labels.len() + field_len(sample.len())) as u64);
            scratch.extend_from_slice(labels);
            scratch.push(0x12);
            put_uvarint(scratch, sample.len() as u64);
            scratch.extend_from_slice(&sample);
        }
        compress(scratch)
    }
}

/// A body for series given by hand: labels and (time, value) samples.
pub fn body_of(series: &[(Vec<(String, String)>, Vec<(i64, f64)>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, samples) in series {
        let mut one = Vec::new();
        for (name, value) in labels {
            one.push(0x0a);
            put_uvarint(&mut one, (field_len(name.len()) + field_len(value.len())) as u64);
            put_text(&mut one, 0x0a, name);
            put_text(&mut one, 0x12, value);
        }
        for (time, value) in samples {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(0x10);
            put_uvarint(&mut sample, *time as u64);
            one.push(0x12);
            put_uvarint(&mut one, sample.len() as u64);
            one.extend_from_slice(&sample);
        }
        out.push(0x0a);
        put_uvarint(&mut out, one.len() as u64);
        out.extend_from_slice(&one);
    }
    compress(&out)
}

fn compress(raw: &[u8]) -> Vec<u8> {
    // Only an input above 4 GiB can fail, and a request is far below.
    snap::raw::Encoder::new().compress_vec(raw).unwrap_or_default()
}

fn field_len(len: usize) -> usize {
    1 + uvarint_len(len as u64) + len
}

fn uvarint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: &str) {
    out.push(tag);
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
