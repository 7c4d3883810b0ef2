//! Appending a batch: split by shard, in groups small enough for one record and a short lock.
//!
//! # Cost
//! One pass over the rows to sort them by shard, in buffers kept per thread; the rest is the head's.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use model::{Kind, TenantId, Timestamp};
use storage::{AppendOutcome, Known, Refusal, SampleKind, Verdict, WriteBatch};

use crate::head::{Head, Notes, Rows};
use crate::tenants::Tenant;
use crate::{Engine, Error};

/// Samples of one series that are judged under one hold of the lock.
const ROW_SAMPLES: u32 = 4096;

/// Exemplars of one series that are judged under one hold of the lock.
const EXEMPLARS: u32 = 16;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    by_shard: Vec<Vec<Rows>>,
    notes: Notes,
}

/// What groups of an append came to.
#[derive(Default)]
struct Sums {
    judged: usize,
    created: u32,
    stored: u64,
    natives: u64,
    late: u64,
    failure: Option<Error>,
}

impl Engine {
    pub(crate) fn append(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        known: Option<Known<'_>>,
    ) -> Result<AppendOutcome, Error> {
        if verdicts.len() != batch.verdicts() || rows.iter().any(|r| *r as usize >= batch.series().len()) {
            return Err(Error::new(Kind::Internal, "an append's rows or verdicts do not fit its batch"));
        }
        if self.refuse_all.load(Relaxed) {
            return Err(Error::new(
                Kind::Unavailable,
                "this node is short of memory; send the request again",
            ));
        }
        let tenant = self.tenants.get_or_add(tenant);
        // Taken out while it is in use, so that a panic costs only the buffers.
        let mut scratch = SCRATCH.take();
        scratch.notes.learns = known.is_some();
        scratch.notes.clear();
        let mut sums = self.append_sorted(&tenant, batch, rows, judged_at, verdicts, &mut scratch);
        let Scratch { notes, .. } = &mut scratch;
        match known {
            Some(known) => {
                known.learned.append(&mut notes.learned);
                if !notes.missed.is_empty() {
                    let missed = std::mem::take(&mut notes.missed);
                    self.append_missed(&tenant, batch, &missed, judged_at, verdicts, known, &mut sums);
                }
            }
            None => set(verdicts, notes.missed.iter().map(|(rows, _)| rows), Verdict::Unavailable),
        }
        SCRATCH.set(scratch);
        let Sums { judged, created, stored, natives, late, failure } = sums;
        if late > 0 {
            metrics::counter!("prometheus_tsdb_head_out_of_order_samples_appended_total", "type" => "float")
                .increment(late);
        }
        match failure {
            Some(error) if judged == 0 => return Err(error),
            Some(error) => tracing::debug!(error = %error, "part of a batch could not be taken"),
            None => {}
        }
        metrics::counter!("prometheus_tsdb_head_samples_appended_total", "type" => "float").increment(stored);
        if natives > 0 {
            metrics::counter!("prometheus_tsdb_head_samples_appended_total", "type" => "histogram")
                .increment(natives);
        }
        if created > 0 {
            metrics::counter!("prometheus_tsdb_head_series_created_total").increment(u64::from(created));
            tenant.report_series();
        }
        Ok(AppendOutcome { log_position: self.log.tail(), created })
    }

    fn append_sorted(
        &self,
        tenant: &Tenant,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        scratch: &mut Scratch,
    ) -> Sums {
        let Scratch { by_shard, notes } = scratch;
        by_shard.resize_with(self.head.shards.len().max(by_shard.len()), Vec::new);
        by_shard.iter_mut().for_each(Vec::clear);
        let only_floats = batch.verdicts() == batch.samples().len();
        for &row in rows {
            let series = &batch.series()[row as usize];
            let of_shard = &mut by_shard[self.head.shard_of(series.hash)];
            split(row, series.samples(), self.row_samples, of_shard);
            if only_floats {
                continue;
            }
            // Histograms are judged one by one: some are larger than a thousand floats.
            let [_, histograms, _] = batch.verdicts_of(series);
            split(row, histograms, 1, of_shard);
        }
        // Last, because an exemplar makes no series, and senders may name it before the samples of its series.
        for &row in rows.iter().filter(|_| !batch.exemplars().is_empty()) {
            let series = &batch.series()[row as usize];
            let [_, _, exemplars] = batch.verdicts_of(series);
            split(row, exemplars, EXEMPLARS, &mut by_shard[self.head.shard_of(series.hash)]);
        }
        let mut sums = Sums::default();
        for (shard, parts) in self.head.shards.iter().zip(&*by_shard) {
            let mut left = parts.as_slice();
            while !left.is_empty() {
                let (group, bytes) = next_group(batch, left, self.head.settings.group_bytes);
                left = &left[group.len()..];
                let done = match &sums.failure {
                    Some(_) => None,
                    None => match self.head.append_group(
                        shard, &self.log, tenant, batch, group, bytes, judged_at, verdicts, notes,
                    ) {
                        Ok(done) => Some(done),
                        // Labels or a histogram that no record can hold: only they are refused.
                        Err(error) if error.kind == Kind::Invalid && group.len() == 1 => {
                            let why = match batch.kind_of(group[0].start as usize) {
                                SampleKind::Histogram => Refusal::InvalidHistogram,
                                _ => Refusal::InvalidLabels,
                            };
                            set(verdicts, group, Verdict::Refused(why));
                            continue;
                        }
                        Err(error) => {
                            sums.failure = Some(error);
                            None
                        }
                    },
                };
                match done {
                    Some(done) => {
                        sums.judged += group.len();
                        sums.created += done.created;
                        sums.stored += done.stored;
                        sums.natives += done.natives;
                        sums.late += done.late;
                    }
                    None => set(verdicts, group, Verdict::Unavailable),
                }
            }
        }
        self.log.announce();
        sums
    }

    /// Appends rows whose handles found nothing by their labels. Rare: a series came back after it was
    /// forgotten.
    fn append_missed(
        &self,
        tenant: &Tenant,
        batch: &WriteBatch,
        missed: &[(Rows, u64)],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        known: Known<'_>,
        sums: &mut Sums,
    ) {
        let (mut again, mut labels) = (WriteBatch::default(), Vec::new());
        let mut parts = Vec::with_capacity(missed.len());
        for &(rows, hash) in missed {
            let samples = rows.start as usize..rows.end as usize;
            let series = &batch.series()[rows.row as usize];
            labels.clear();
            labels.extend_from_slice(batch.label_bytes(series));
            if labels.is_empty() && !(known.labels)(rows.row, &mut labels) {
                verdicts[samples].fill(Verdict::Unavailable);
                continue;
            }
            copy(batch, samples.clone(), &mut again);
            again.close(&labels, hash, None);
            parts.push((rows.row, samples));
        }
        again.splice(batch.is_spliced());
        again.ask(batch.asks());
        let rows: Vec<u32> = (0..parts.len() as u32).collect();
        let mut judged = vec![Verdict::Unavailable; again.verdicts()];
        let mut scratch = Scratch { notes: Notes { learns: true, ..Notes::default() }, ..Scratch::default() };
        let more = self.append_sorted(tenant, &again, &rows, judged_at, &mut judged, &mut scratch);
        for (series, (_, samples)) in again.series().iter().zip(&parts) {
            // All of one kind.
            for range in again.verdicts_of(series).into_iter().filter(|range| !range.is_empty()) {
                verdicts[samples.clone()].copy_from_slice(&judged[range]);
            }
        }
        let learned = scratch.notes.learned.into_iter();
        known.learned.extend(learned.map(|(row, handle)| (parts[row as usize].0, handle)));
        sums.judged += more.judged;
        sums.created += more.created;
        sums.stored += more.stored;
        sums.natives += more.natives;
        sums.late += more.late;
        sums.failure = sums.failure.take().or(more.failure);
    }

    /// Samples of one series per part, so that a part fits a record.
    pub(crate) fn row_samples(group_bytes: usize) -> u32 {
        (group_bytes / crate::payload::SAMPLE_BYTES / 2).clamp(1, ROW_SAMPLES as usize) as u32
    }
}

/// As many parts from the front as fit a record, at least one, and the most bytes that they take in the log.
fn next_group<'a>(batch: &WriteBatch, parts: &'a [Rows], most: usize) -> (&'a [Rows], usize) {
    let (mut n, mut bytes) = (0, 0);
    for rows in parts {
        let with = bytes + Head::cost(batch, *rows);
        if n > 0 && with > most {
            break;
        }
        (n, bytes) = (n + 1, with);
    }
    (&parts[..n], bytes)
}

/// Makes parts of at most `most` samples.
fn split(row: u32, samples: Range<usize>, most: u32, parts: &mut Vec<Rows>) {
    let (mut start, end) = (samples.start as u32, samples.end as u32);
    while start < end {
        let part = Rows { row, start, end: end.min(start + most) };
        start = part.end;
        parts.push(part);
    }
}

/// Appends the samples at these verdicts, all of one kind, to the next series of another batch.
fn copy(batch: &WriteBatch, verdicts: Range<usize>, to: &mut WriteBatch) {
    for at in verdicts {
        match batch.kind_of(at) {
            SampleKind::Float => {
                to.open().push(batch.samples()[at]);
                to.push_start(batch.start_of(at));
            }
            SampleKind::Histogram => {
                to.push_histogram(batch.histograms()[at - batch.first_histogram()].clone());
            }
            SampleKind::Exemplar => {
                let row = &batch.exemplars()[at - batch.first_exemplar()];
                to.push_exemplar(row.timestamp, row.value, batch.exemplar_labels(row));
            }
        }
    }
}

fn set<'a>(verdicts: &mut [Verdict], group: impl IntoIterator<Item = &'a Rows>, verdict: Verdict) {
    for rows in group {
        verdicts[rows.start as usize..rows.end as usize].fill(verdict);
    }
}
