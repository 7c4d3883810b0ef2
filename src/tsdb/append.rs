//! Appending a batch: split by shard, in groups small enough for one record and a short lock.
//!
//! # Cost
//! One pass over the rows to sort them by shard, in buffers kept per thread; the rest is the head's.

use std::cell::RefCell;

use model::{Kind, TenantId, Timestamp};
use storage::{AppendOutcome, Refusal, Verdict, WriteBatch};

use crate::head::{Head, Rows};
use crate::tenants::Tenant;
use crate::{Engine, Error};

/// Samples of one series that are judged under one hold of the lock.
const ROW_SAMPLES: u32 = 4096;

thread_local! {
    static BY_SHARD: RefCell<Vec<Vec<Rows>>> = const { RefCell::new(Vec::new()) };
}

impl Engine {
    pub(crate) fn append(
        &self,
        tenant: &TenantId,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
    ) -> Result<AppendOutcome, Error> {
        if verdicts.len() != batch.samples().len() || rows.iter().any(|r| *r as usize >= batch.series().len())
        {
            return Err(Error::new(Kind::Internal, "an append's rows or verdicts do not fit its batch"));
        }
        let tenant = self.tenants.get_or_add(tenant);
        BY_SHARD.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut by_shard) => self.append_sorted(&tenant, batch, rows, judged_at, verdicts, &mut by_shard),
            Err(_) => self.append_sorted(&tenant, batch, rows, judged_at, verdicts, &mut Vec::new()),
        })
    }

    fn append_sorted(
        &self,
        tenant: &Tenant,
        batch: &WriteBatch,
        rows: &[u32],
        judged_at: Timestamp,
        verdicts: &mut [Verdict],
        by_shard: &mut Vec<Vec<Rows>>,
    ) -> Result<AppendOutcome, Error> {
        by_shard.resize_with(self.head.shards.len().max(by_shard.len()), Vec::new);
        by_shard.iter_mut().for_each(Vec::clear);
        for &row in rows {
            let series = &batch.series()[row as usize];
            let samples = series.samples();
            let of_shard = &mut by_shard[self.head.shard_of(series.hash)];
            let (mut start, end) = (samples.start as u32, samples.end as u32);
            while start < end {
                let part = Rows { row, start, end: end.min(start + self.row_samples) };
                start = part.end;
                of_shard.push(part);
            }
        }
        let (mut judged, mut created, mut stored) = (0usize, 0, 0);
        let mut failure = None;
        for (shard, parts) in self.head.shards.iter().zip(&*by_shard) {
            let mut left = parts.as_slice();
            while !left.is_empty() {
                let group = next_group(batch, left, self.head.settings.group_bytes);
                left = &left[group.len()..];
                let done = match &failure {
                    Some(_) => None,
                    None => match self
                        .head
                        .append_group(shard, &self.log, tenant, batch, group, judged_at, verdicts)
                    {
                        Ok(done) => Some(done),
                        // Labels that no record can hold: only they are refused.
                        Err(error) if error.kind == Kind::Invalid && group.len() == 1 => {
                            set(verdicts, group, Verdict::Refused(Refusal::InvalidLabels));
                            continue;
                        }
                        Err(error) => {
                            failure = Some(error);
                            None
                        }
                    },
                };
                match done {
                    Some(done) => {
                        judged += group.len();
                        created += done.created;
                        stored += done.stored;
                    }
                    None => set(verdicts, group, Verdict::Unavailable),
                }
            }
        }
        match failure {
            Some(error) if judged == 0 => return Err(error),
            Some(error) => tracing::debug!(error = %error, "part of a batch could not be taken"),
            None => {}
        }
        metrics::counter!("prometheus_tsdb_head_samples_appended_total", "type" => "float").increment(stored);
        if created > 0 {
            metrics::counter!("prometheus_tsdb_head_series_created_total").increment(u64::from(created));
            tenant.report_series();
        }
        Ok(AppendOutcome { log_position: self.log.tail(), created })
    }

    /// Samples of one series per part, so that a part fits a record.
    pub(crate) fn row_samples(group_bytes: usize) -> u32 {
        (group_bytes / crate::payload::SAMPLE_BYTES / 2).clamp(1, ROW_SAMPLES as usize) as u32
    }
}

/// As many parts from the front as fit a record; at least one.
fn next_group<'a>(batch: &WriteBatch, parts: &'a [Rows], most: usize) -> &'a [Rows] {
    let mut bytes = 0;
    let fits = |rows: &&Rows| {
        bytes += Head::cost(batch, **rows);
        bytes <= most
    };
    let n = parts.iter().take_while(fits).count().max(1);
    &parts[..n]
}

fn set(verdicts: &mut [Verdict], group: &[Rows], verdict: Verdict) {
    for rows in group {
        verdicts[rows.start as usize..rows.end as usize].fill(verdict);
    }
}
