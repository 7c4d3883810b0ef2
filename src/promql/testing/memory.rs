//! Series in memory behind [`storage::Select`], encoded as everywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chunk::Encoding;
use chunk::histogram::{At, encode_floats, with_starts};
use model::{FloatHistogram, Kind, Labels, Matcher, Sample, TimeRange, Timestamp};
use parking_lot::RwLock;
use storage::{
    ChunkData, Columns, Context, Error, LabelNeed, LabelRequest, Listed, Need, Notes, Select, SelectRequest,
    SeriesEntry, SeriesSet, decode_series,
};

/// Samples per chunk, as Prometheus cuts them.
const CHUNK_SAMPLES: usize = 120;

/// A store for tests and benches; series are encoded when they are added.
#[derive(Default)]
pub struct MemoryStore {
    series: RwLock<BTreeMap<Labels, Vec<ChunkData>>>,
}

/// A sample to be stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub time: Timestamp,
    /// When its counter began, 0 where that is not known.
    pub start: Timestamp,
    /// A float, or else a histogram.
    pub value: Result<f64, Arc<FloatHistogram>>,
}

impl Stored {
    fn is_float(&self) -> bool {
        self.value.is_ok()
    }
}

fn refused(e: chunk::Error) -> Error {
    Error::with_source(Kind::Invalid, format!("samples do not encode: {e}"), e)
}

fn floats(run: &[Stored]) -> Result<Vec<ChunkData>, Error> {
    let value = |s: &Stored| s.value.as_ref().copied().unwrap_or(f64::NAN);
    let mut out = Vec::new();
    for part in run.chunks(CHUNK_SAMPLES) {
        let range = TimeRange::new(part[0].time, part[part.len() - 1].time);
        let samples = part.iter().map(|s| Sample { timestamp: s.time, value: value(s) });
        let started = part.iter().any(|s| s.start != 0);
        let (encoding, bytes) = match started {
            true => {
                let samples = samples.zip(part.iter().map(|s| s.start));
                (Encoding::Xor2, chunk::xor2::encode(samples).map_err(refused)?)
            }
            false => (Encoding::Xor, chunk::xor::encode(samples).map_err(refused)?),
        };
        out.push(ChunkData { range, encoding, bytes: Bytes::from(bytes) });
    }
    Ok(out)
}

fn histograms(run: &[Stored]) -> Result<Vec<ChunkData>, Error> {
    let samples = run.iter().filter_map(|s| {
        let histogram = s.value.as_ref().err()?;
        Some(At { timestamp: s.time, histogram: (**histogram).clone() })
    });
    let chunks = encode_floats(samples, CHUNK_SAMPLES as u16).map_err(refused)?;
    if run.iter().all(|s| s.start == 0) {
        return Ok(chunks);
    }
    let started = |chunk: &ChunkData| {
        let within = run.iter().filter(|s| chunk.range.contains(s.time));
        let starts: Vec<Timestamp> = within.map(|s| s.start).collect();
        with_starts(chunk, &starts).map_err(refused)
    };
    chunks.iter().map(started).collect()
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Adds samples in time order; a series may be added to several times.
    pub fn add(&self, labels: &Labels, samples: &[Sample]) -> Result<(), Error> {
        let mut chunks = Vec::new();
        for part in samples.chunks(CHUNK_SAMPLES) {
            let bytes = chunk::xor::encode(part.iter().copied()).map_err(refused)?;
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            chunks.push(ChunkData {
                range: TimeRange::new(first.timestamp, last.timestamp),
                encoding: Encoding::Xor,
                bytes: Bytes::from(bytes),
            });
        }
        self.extend(labels, chunks);
        Ok(())
    }

    /// The same for samples of both kinds.
    pub fn add_mixed(&self, labels: &Labels, samples: &[Stored]) -> Result<(), Error> {
        let mut chunks = Vec::new();
        for run in samples.chunk_by(|a, b| a.is_float() == b.is_float()) {
            match run[0].value {
                Ok(_) => chunks.extend(floats(run)?),
                Err(_) => chunks.extend(histograms(run)?),
            }
        }
        self.extend(labels, chunks);
        Ok(())
    }

    /// Adds chunks as they are.
    pub fn extend(&self, labels: &Labels, chunks: Vec<ChunkData>) {
        if !chunks.is_empty() {
            self.series.write().entry(labels.clone()).or_default().extend(chunks);
        }
    }

    pub fn clear(&self) {
        self.series.write().clear();
    }

    fn matching(&self, matchers: &[Matcher], range: TimeRange) -> Vec<SeriesEntry> {
        let series = self.series.read();
        let hits = series.iter().filter(|(labels, _)| Matcher::all_match(matchers, labels));
        hits.map(|(labels, chunks)| SeriesEntry {
            labels: labels.clone(),
            chunks: chunks.iter().filter(|c| c.range.overlaps(&range)).cloned().collect(),
        })
        .filter(|entry| !entry.chunks.is_empty())
        .collect()
    }
}

/// Leaves the newest sample in `range`, where all are floats without start times.
fn newest_alone(chunks: &mut Vec<ChunkData>, range: TimeRange) -> Result<(), Error> {
    if chunks.iter().any(|c| c.encoding != Encoding::Xor) {
        return Ok(());
    }
    let mut columns = Columns::default();
    decode_series(chunks, range, &mut columns)?;
    chunks.clear();
    if let (Some(&timestamp), Some(&value)) = (columns.timestamps.last(), columns.values.last()) {
        let mut bytes = Vec::new();
        chunk::xor::put_one(&mut bytes, Sample { timestamp, value });
        let range = TimeRange::new(timestamp, timestamp);
        chunks.push(ChunkData { range, encoding: Encoding::Xor, bytes: bytes.into() });
    }
    Ok(())
}

impl Select for MemoryStore {
    fn select(&self, request: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        Ok(storage::from_entries(self.matching(&request.matchers, request.range)))
    }

    /// Leaves away all that is not needed, so that who needs more than was said is found out.
    fn scan(&self, request: &SelectRequest, need: &Need, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        let mut entries = self.matching(&request.matchers, request.range);
        for entry in &mut entries {
            entry.labels = match &need.labels {
                LabelNeed::All => entry.labels.clone(),
                LabelNeed::Only(names) => entry.labels.filter(|name| names.iter().any(|n| n == name)),
                LabelNeed::Except(names) => entry.labels.filter(|name| !names.iter().any(|n| n == name)),
            };
            if !need.all_samples {
                newest_alone(&mut entry.chunks, request.range)?;
            }
        }
        entries.retain(|entry| !entry.chunks.is_empty());
        if !need.sorted {
            // Any order: every third one first.
            let (mut first, rest): (Vec<_>, Vec<_>) =
                entries.into_iter().enumerate().partition(|(at, _)| at % 3 == 0);
            first.extend(rest);
            entries = first.into_iter().map(|(_, entry)| entry).collect();
        }
        Ok(storage::from_entries(entries))
    }

    fn label_names(&self, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let entries = self.matching(&request.matchers, request.range);
        let names: BTreeSet<String> =
            entries.iter().flat_map(|e| e.labels.iter().map(|(n, _)| n.to_owned())).collect();
        Ok(Listed { values: names.into_iter().collect(), notes: Notes::default() })
    }

    fn label_values(&self, name: &str, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let entries = self.matching(&request.matchers, request.range);
        let values: BTreeSet<String> =
            entries.iter().filter_map(|e| e.labels.get(name).map(str::to_owned)).collect();
        Ok(Listed { values: values.into_iter().collect(), notes: Notes::default() })
    }
}
