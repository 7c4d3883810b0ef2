//! One series as it is taken into a batch: its labels checked and relabelled, its samples, and how it is shown to a human.

use model::{InvalidLabels, Labels, METRIC_NAME, TenantId, label_spans, placement_hash};
use storage::{HistogramRow, Refusal, WriteBatch};
use wire::remote_write::{DecodedV1, Series};

use crate::admit::Version;
use crate::decode::{Aside, Decoded, Reading};
use crate::status::Example;

/// Takes a parsed series into the batch, or sets it aside; true if it is now in the batch.
pub fn take(
    tenant: &TenantId,
    reading: Reading<'_>,
    columns: &DecodedV1,
    series: &Series,
    plain: &[u8],
    labels: &mut Vec<u8>,
    decoded: &mut Decoded,
    version: Version,
) -> bool {
    let samples = columns.samples_of(series);
    let kinds = samples.len() as u64 + u64::from(series.histograms);
    if kinds == 0 && series.exemplars == 0 {
        return false;
    }
    let checked = columns.canonical(series, plain, labels).map_err(|fault| fault.to_string());
    let fault = match checked.and_then(|()| reading.relabel(labels)) {
        Err(fault) => Some(fault),
        Ok(false) => {
            metrics::counter!("tributary_receive_relabel_dropped_samples_total").increment(kinds);
            return false;
        }
        Ok(true) if !has_name(labels) => Some("metric name is missing: no label __name__".to_owned()),
        Ok(true) => None,
    };
    let shown = || shown(columns.labels(series, plain));
    if let Some(detail) = fault {
        let timestamp = samples.first().map(|s| s.timestamp);
        decoded.aside.put(Refusal::InvalidLabels, kinds, || Example {
            series: shown(),
            timestamp,
            reason: Refusal::InvalidLabels,
            detail: Some(detail),
        });
        return false;
    }
    let batch = &mut decoded.batch;
    batch.open().extend_from_slice(samples);
    if columns.has_starts() {
        batch.push_starts(series.samples().map(|at| columns.start_timestamp(at)));
    }
    if series.histograms > 0 || series.exemplars > 0 {
        take_more(columns, series, plain, batch, &mut decoded.aside, version, &shown);
    }
    if !batch.is_open() {
        return false;
    }
    let hash = placement_hash(tenant.as_str(), labels);
    batch.close(labels, hash, None);
    true
}

/// Takes the histograms and exemplars of a series, as far as they are any.
pub fn take_more(
    columns: &DecodedV1,
    series: &Series,
    plain: &[u8],
    batch: &mut WriteBatch,
    aside: &mut Aside,
    version: Version,
    shown: &dyn Fn() -> String,
) {
    let mut put = |reason, timestamp, detail: String| {
        aside.put(reason, 1, || Example {
            series: shown(),
            timestamp: Some(timestamp),
            reason,
            detail: Some(detail),
        })
    };
    for row in columns.histograms_of(series) {
        let (timestamp, start) = (row.timestamp, row.start_timestamp);
        match &row.histogram {
            Ok(histogram) => {
                batch.push_histogram(HistogramRow { timestamp, start, histogram: histogram.clone() })
            }
            Err(fault) => put(Refusal::InvalidHistogram, timestamp, fault.to_string()),
        }
    }
    let mut labels = Vec::new();
    for exemplar in columns.exemplars_of(series) {
        match columns.exemplar_canonical(exemplar, plain, &mut labels) {
            Ok(()) => batch.push_exemplar(exemplar.timestamp, exemplar.value, &labels),
            Err(fault) if version == Version::V2 => {
                put(Refusal::InvalidExemplar, exemplar.timestamp, format!("exemplar: {fault}"))
            }
            Err(_) => {}
        }
    }
}

/// Whether canonical label bytes hold a metric name. Usually the first label: only capitals sort before it.
fn has_name(labels: &[u8]) -> bool {
    label_spans(labels).any(|(_, name, _)| name == METRIC_NAME.as_bytes())
}

/// Leaves a label out of canonical label bytes.
pub fn strip(labels: &mut Vec<u8>, name: &str) {
    let mut start = 0;
    let found = label_spans(labels).find_map(|(whole, own, _)| {
        let here = start..start + whole.len();
        start = here.end;
        (own == name.as_bytes()).then_some(here)
    });
    if let Some(range) = found {
        labels.drain(range);
    }
}

/// Longest text of labels in an answer.
const SHOWN_BYTES: usize = 400;

/// Labels for a human, whatever is wrong with them.
pub fn shown<'a>(labels: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> String {
    let mut out = String::from("{");
    for (at, (name, value)) in labels.enumerate() {
        if out.len() > SHOWN_BYTES {
            out.push_str(", ...");
            break;
        }
        let short = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            if bytes.len() > 100 { text + "..." } else { text }
        };
        let comma = if at == 0 { "" } else { ", " };
        let name = short(name);
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if plain { name } else { format!("{name:?}") };
        out.push_str(&format!("{comma}{name}={:?}", short(value)));
    }
    out.push('}');
    out
}

/// A series of a batch for a human, shortened.
pub fn show_series(labels: Result<Labels, InvalidLabels>) -> String {
    match labels {
        Ok(labels) => {
            let mut text = labels.to_string();
            if text.len() > SHOWN_BYTES {
                let cut = (0..=SHOWN_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                text.truncate(cut);
                text.push_str("...");
            }
            text
        }
        Err(error) => format!("({error})"),
    }
}
