//! Series in memory behind [`storage::Select`], encoded as everywhere else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chunk::Encoding;
use model::{Kind, Labels, Matcher, Sample, TimeRange};
use parking_lot::RwLock;
use storage::{
    ChunkData, Context, Error, LabelRequest, Listed, Notes, Select, SelectRequest, SeriesEntry, SeriesSet,
};

/// Samples per chunk, as Prometheus cuts them.
const CHUNK_SAMPLES: usize = 120;

/// A store for tests and benches; series are encoded when they are added.
#[derive(Default)]
pub struct MemoryStore {
    series: RwLock<BTreeMap<Labels, Vec<ChunkData>>>,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Adds samples in time order; a series may be added to several times.
    pub fn add(&self, labels: &Labels, samples: &[Sample]) -> Result<(), Error> {
        let mut chunks = Vec::new();
        for part in samples.chunks(CHUNK_SAMPLES) {
            let bytes = chunk::xor::encode(part.iter().copied())
                .map_err(|e| Error::with_source(Kind::Invalid, format!("samples do not encode: {e}"), e))?;
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            chunks.push(ChunkData {
                range: TimeRange::new(first.timestamp, last.timestamp),
                encoding: Encoding::Xor,
                bytes: Bytes::from(bytes),
            });
        }
        if !chunks.is_empty() {
            self.series.write().entry(labels.clone()).or_default().extend(chunks);
        }
        Ok(())
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

impl Select for MemoryStore {
    fn select(&self, request: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        Ok(storage::from_entries(self.matching(&request.matchers, request.range)))
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
