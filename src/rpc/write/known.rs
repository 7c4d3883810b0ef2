//! A write whose series may be known by the store's handles alone.

use model::{TenantId, Timestamp};
use storage::{Error, SeriesHandle, Verdict, WriteBatch};

use super::{TenantGroup, WriteBackend, WriteRequest};

/// What a peer sent of one tenant.
#[derive(Clone, Debug)]
pub struct KnownWrite {
    pub tenant: TenantId,
    /// Rows have labels, or else a handle.
    pub batch: WriteBatch,
    /// Rows to store, as indices into `batch.series()`.
    pub rows: Vec<u32>,
    /// From 1: which copy this is, to be stored here; 0: not replicated yet.
    pub replica: u32,
    pub judged_at: Timestamp,
    /// The ring epoch that it was placed by; 0 where it was placed by none.
    pub ring_epoch: u64,
}

/// What became of it.
#[derive(Debug)]
pub struct KnownTaken {
    /// The batch that was given, for reuse.
    pub batch: WriteBatch,
    /// By the verdicts' indices in the batch; those of rows that were not to be stored, or are unknown, say nothing.
    pub verdicts: Vec<Verdict>,
    /// Rows that came with labels, and what to call them from now on.
    pub learned: Vec<(u32, SeriesHandle)>,
    /// Rows whose handles find nothing any more: nothing of them is stored.
    pub unknown: Vec<u32>,
}

/// Writes the rows that have labels, and names the others: for backends that know no handles.
pub async fn store_by_labels<B: WriteBackend + ?Sized>(
    backend: &B,
    write: KnownWrite,
) -> Result<KnownTaken, Error> {
    let sorted = write.by_labels();
    if sorted.batch.is_empty() {
        return Ok(sorted.answer(write, &[]));
    }
    let group = TenantGroup { tenant: write.tenant.clone(), batch: sorted.batch.clone() };
    let (replica, judged_at) = (write.replica, Some(write.judged_at));
    let request = WriteRequest { groups: vec![group], replica, judged_at, ring_epoch: write.ring_epoch };
    let answers = backend.write(request).await?.pop();
    Ok(sorted.answer(write, &answers.unwrap_or_default()))
}

/// Those rows of a write that have labels, in a batch of their own.
struct ByLabels {
    batch: WriteBatch,
    rows: Vec<u32>,
    unknown: Vec<u32>,
}

impl KnownWrite {
    fn by_labels(&self) -> ByLabels {
        let mut out = ByLabels { batch: WriteBatch::default(), rows: Vec::new(), unknown: Vec::new() };
        out.batch.splice(self.batch.is_spliced());
        out.batch.ask(self.batch.asks());
        for &row in &self.rows {
            let Some(series) = self.batch.series().get(row as usize) else { continue };
            let labels = self.batch.label_bytes(series);
            if labels.is_empty() {
                out.unknown.push(row);
                continue;
            }
            for at in series.samples() {
                out.batch.open().push(self.batch.samples()[at]);
                out.batch.push_start(self.batch.start_of(at));
            }
            for histogram in &self.batch.histograms()[self.batch.histograms_of(series)] {
                out.batch.push_histogram(histogram.clone());
            }
            for exemplar in &self.batch.exemplars()[self.batch.exemplars_of(series)] {
                let labels = self.batch.exemplar_labels(exemplar);
                out.batch.push_exemplar(exemplar.timestamp, exemplar.value, labels);
            }
            out.batch.close(labels, series.hash, None);
            out.rows.push(row);
        }
        out
    }
}

impl ByLabels {
    /// The answer for the whole write, from verdicts for this part of it.
    fn answer(self, write: KnownWrite, answers: &[Verdict]) -> KnownTaken {
        let mut verdicts = vec![Verdict::Unavailable; write.batch.verdicts()];
        for (row, series) in self.rows.iter().zip(self.batch.series()) {
            let to = write.batch.verdicts_of(&write.batch.series()[*row as usize]);
            for (from, to) in self.batch.verdicts_of(series).into_iter().zip(to) {
                for (from, to) in from.zip(to) {
                    verdicts[to] = answers.get(from).copied().unwrap_or(Verdict::Unavailable);
                }
            }
        }
        KnownTaken { batch: write.batch, verdicts, learned: Vec::new(), unknown: self.unknown }
    }
}
