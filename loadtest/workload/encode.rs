//! Bodies, quickly: each series' label bytes are encoded once and copied from then on; of 2.0 they are symbols.

use std::collections::HashMap;
use std::io::Write;

use crate::doors::Door;

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
        self.plain(workload, request, scratch);
        compress(scratch)
    }

    /// The body of a request as it goes through a door.
    pub fn through(
        &self,
        door: Door,
        workload: &Workload,
        request: Request,
        scratch: &mut Vec<u8>,
    ) -> Vec<u8> {
        match door {
            Door::Rw1 => return self.body(workload, request, scratch),
            Door::Rw2 => {
                plain_v2(workload, request, scratch);
                return compress(scratch);
            }
            _ => self.plain(workload, request, scratch),
        }
        let tenant = |out: &mut Vec<u8>| put_text(out, 0x12, "default-tenant");
        match door {
            // In memory nothing fails.
            Door::Rw1Zstd => return zstd::bulk::compress(scratch, 1).unwrap_or_default(),
            Door::ThanosTenants => {
                tenant(scratch);
                let mut out = vec![0x22];
                put_uvarint(&mut out, scratch.len() as u64);
                out.append(scratch);
                *scratch = out;
            }
            _ => tenant(scratch),
        }
        // The first copy.
        scratch.extend_from_slice(&[0x18, 1]);
        let mut packed = snap::write::FrameEncoder::new(Vec::new());
        let _ = packed.write_all(scratch);
        let packed = packed.into_inner().unwrap_or_default();
        [&[1][..], &(packed.len() as u32).to_be_bytes(), &packed].concat()
    }

    /// Not compressed.
    fn plain(&self, workload: &Workload, request: Request, scratch: &mut Vec<u8>) {
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
    }
}

/// Version 2.0: each text once, labels by its number.
fn plain_v2(workload: &Workload, request: Request, out: &mut Vec<u8>) {
    let all = &workload.series[request.first..request.first + request.len];
    let mut numbers = HashMap::from([("", 0u64)]);
    let mut symbols = vec![""];
    for (name, value) in all.iter().flat_map(|series| &series.labels) {
        for text in [name.as_str(), value.as_str()] {
            numbers.entry(text).or_insert_with(|| {
                symbols.push(text);
                symbols.len() as u64 - 1
            });
        }
    }
    out.clear();
    symbols.iter().for_each(|text| put_text(out, 0x22, text));
    let time = workload.time(request.step);
    for (at, series) in all.iter().enumerate() {
        let mut refs = Vec::new();
        for (name, value) in &series.labels {
            put_uvarint(&mut refs, numbers[name.as_str()]);
            put_uvarint(&mut refs, numbers[value.as_str()]);
        }
        let mut sample = vec![0x09];
        sample.extend_from_slice(&workload.value(request.first + at, request.step).to_le_bytes());
        sample.push(0x10);
        put_uvarint(&mut sample, time as u64);
        out.push(0x2a);
        put_uvarint(out, (field_len(refs.len()) + field_len(sample.len())) as u64);
        for (tag, part) in [(0x0a, &refs), (0x12, &sample)] {
            out.push(tag);
            put_uvarint(out, part.len() as u64);
            out.extend_from_slice(part);
        }
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
