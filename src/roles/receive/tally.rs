//! What came of a request, counted: outcomes of its samples, and the first that was refused, as an example.

use model::{InvalidLabels, Labels};
use storage::{Refusal, SampleKind, Verdict, WriteBatch};

use crate::admit::Version;
use crate::decode::Aside;
use crate::pending::Collected;
use crate::quorum::Outcome;
use crate::series;
use crate::status::{self, Example, Summary};

/// Counts what a body held that can never be stored.
pub fn set_aside(summary: &mut Summary, aside: Aside) {
    summary.refuse(Refusal::InvalidLabels, aside.invalid_labels);
    summary.refuse(Refusal::Unsupported, aside.unsupported);
    summary.refuse(Refusal::InvalidHistogram, aside.invalid_histograms);
    summary.refuse(Refusal::InvalidExemplar, aside.invalid_exemplars);
    summary.example = aside.example;
}

/// Verdicts of this node alone. `labels_of` gives the labels of rows that came without them.
pub fn add_verdicts(
    summary: &mut Summary,
    batch: &WriteBatch,
    verdicts: &[Verdict],
    version: Version,
    labels_of: impl Fn(u32) -> Result<Labels, InvalidLabels>,
) {
    let outcomes = verdicts.iter().map(|verdict| match verdict {
        Verdict::Stored | Verdict::Duplicate => Outcome::Accepted,
        Verdict::Unavailable => Outcome::Retryable,
        Verdict::Refused(reason) => Outcome::Refused(*reason),
    });
    count_outcomes(summary, batch, outcomes, version, &labels_of);
}

/// What the replicas of a batch said together.
pub fn sum_up(summary: &mut Summary, batch: &WriteBatch, collected: Collected, version: Version) {
    let labels_of = |row| {
        let mut labels = Vec::new();
        batch.labels_into(row, &mut labels);
        Labels::from_bytes(&labels)
    };
    count_outcomes(summary, batch, collected.outcomes.into_iter(), version, &labels_of);
    summary.trouble = collected.trouble;
}

fn count_outcomes(
    summary: &mut Summary,
    batch: &WriteBatch,
    outcomes: impl Iterator<Item = Outcome>,
    version: Version,
    labels_of: &dyn Fn(u32) -> Result<Labels, InvalidLabels>,
) {
    // Senders of 1.0 learn nothing of exemplars: Prometheus as a receiver of it keeps silent too.
    let told_of_exemplars = version == Version::V2;
    for (at, outcome) in outcomes.enumerate() {
        let kind = batch.kind_of(at);
        summary.count(kind, outcome, told_of_exemplars);
        if let Outcome::Refused(reason) = outcome
            && summary.example.is_none()
            && (kind != SampleKind::Exemplar || told_of_exemplars && status::is_fault(reason))
        {
            summary.example = example(batch, at, reason, labels_of);
        }
    }
}

fn example(
    batch: &WriteBatch,
    verdict: usize,
    reason: Refusal,
    labels_of: &dyn Fn(u32) -> Result<Labels, InvalidLabels>,
) -> Option<Example> {
    let holds = |series| batch.verdicts_of(series).iter().any(|range| range.contains(&verdict));
    let row = batch.series().iter().position(holds)?;
    let series = &batch.series()[row];
    let labels = match batch.label_bytes(series) {
        [] => labels_of(row as u32),
        _ => batch.labels(series),
    };
    let timestamp = batch.timestamp_of(verdict);
    Some(Example { series: series::show_series(labels), timestamp, reason, detail: None })
}
