//! What a replica lacks of its share of a write, and what of that is to come to it later: all of it that the others accept, and
//! nothing else.

use std::sync::Arc;

use storage::{Refusal, SeriesRows, Verdict, WriteBatch};

use crate::pending::Answer;

/// What of a batch one replica did not take.
pub struct Lacking {
    /// Of which it lacks anything.
    pub rows: Vec<u32>,
    /// Which of their samples, ascending; none where it lacks them all.
    samples: Option<Vec<usize>>,
}

/// Whether a replica may have later what it does not take now. A sample that is too old for it alone is not in order for it,
/// because it has a newer one that the others do not have yet: as a hint it is judged as of its own time.
fn comes_later(verdict: Option<&Verdict>) -> bool {
    matches!(verdict, None | Some(Verdict::Unavailable | Verdict::Refused(Refusal::TooOld)))
}

impl Lacking {
    /// What a replica lacks of `rows`, by its answer.
    pub fn of(batch: &WriteBatch, rows: &[u32], answer: &Answer) -> Lacking {
        let (mut lacks, mut samples) = (Vec::new(), Vec::new());
        let mut next = 0;
        for row in rows {
            let Some(series) = batch.series().get(*row as usize) else { continue };
            let before = samples.len();
            for sample in batch.verdicts_of(series).into_iter().flatten() {
                let verdict = match answer {
                    Answer::ByIndex(verdicts) => verdicts.get(sample),
                    Answer::InOrder(verdicts) => verdicts.get(next),
                    Answer::Unavailable(_) | Answer::Away(_) | Answer::Stale(_) => {
                        return Lacking { rows: rows.to_vec(), samples: None };
                    }
                };
                next += 1;
                if comes_later(verdict) {
                    samples.push(sample);
                }
            }
            if samples.len() > before {
                lacks.push(*row);
            }
        }
        samples.sort_unstable();
        Lacking { rows: lacks, samples: Some(samples) }
    }

    /// What of it the others accept: rows of the batch, or of a smaller one where not everything in them is accepted. None
    /// where that is nothing.
    pub fn of_accepted(
        self,
        batch: &Arc<WriteBatch>,
        accepted: impl Fn(usize) -> bool,
    ) -> Option<(Arc<WriteBatch>, Vec<u32>)> {
        let lacks = |at: usize| self.samples.as_ref().is_none_or(|some| some.binary_search(&at).is_ok());
        let samples_of = |series: &SeriesRows| batch.verdicts_of(series).into_iter().flatten();
        let mut rows = self.rows.clone();
        let mut whole = true;
        rows.retain(|row| {
            let Some(series) = batch.series().get(*row as usize) else { return false };
            let wanted = samples_of(series).any(|at| lacks(at) && accepted(at));
            whole &= !wanted || samples_of(series).all(&accepted);
            wanted
        });
        match (rows.is_empty(), whole) {
            (true, _) => None,
            (false, true) => Some((Arc::clone(batch), rows)),
            // Once it comes as a hint, what was refused for its age would be taken.
            (false, false) => {
                let part = some_of(batch, &rows, &|at| lacks(at) && accepted(at));
                let all = 0..part.series().len() as u32;
                Some((Arc::new(part), all.collect()))
            }
        }
    }
}

/// Those samples of `rows` that are wanted, with their labels.
pub fn some_of(batch: &WriteBatch, rows: &[u32], wanted: &dyn Fn(usize) -> bool) -> WriteBatch {
    let (mut part, mut labels) = (WriteBatch::default(), Vec::new());
    for row in rows {
        let Some(series) = batch.series().get(*row as usize) else { continue };
        let [floats, histograms, exemplars] = batch.verdicts_of(series);
        for at in floats.filter(|at| wanted(*at)) {
            part.open().push(batch.samples()[at]);
            part.push_start(batch.start_of(at));
        }
        for at in histograms.filter(|at| wanted(*at)) {
            part.push_histogram(batch.histograms()[at - batch.first_histogram()].clone());
        }
        for at in exemplars.filter(|at| wanted(*at)) {
            let exemplar = &batch.exemplars()[at - batch.first_exemplar()];
            part.push_exemplar(exemplar.timestamp, exemplar.value, batch.exemplar_labels(exemplar));
        }
        match batch.labels_into(*row, &mut labels) {
            true => part.close(&labels, series.hash, None),
            false => {
                tracing::error!("a series without labels is not kept for a replica that lacks it");
                part.abandon();
            }
        }
    }
    part.splice(batch.is_spliced());
    part
}

#[cfg(test)]
mod tests {
    use model::{Labels, Sample};
    use proptest::prelude::*;

    use super::*;

    const STORED: Verdict = Verdict::Stored;
    const AWAY: Verdict = Verdict::Unavailable;
    const OLD: Verdict = Verdict::Refused(Refusal::TooOld);
    const CONFLICT: Verdict = Verdict::Refused(Refusal::Conflict);

    /// Two series of two floats and an exemplar each: verdicts 0, 1 and 4; 2, 3 and 5.
    fn batch() -> Arc<WriteBatch> {
        let mut batch = WriteBatch::default();
        for name in ["up", "down"] {
            let labels = Labels::from_pairs([("__name__", name)]).unwrap();
            batch.open().extend([1, 2].map(|timestamp| Sample { timestamp, value: 1.0 }));
            batch.push_exemplar(2, 1.0, &[]);
            batch.close(labels.as_bytes(), labels.placement_hash("t"), None);
        }
        Arc::new(batch)
    }

    /// Times of the floats and exemplars of each series that come later.
    fn later(answer: &Answer, accepted: [bool; 6]) -> Vec<(String, Vec<i64>)> {
        let batch = batch();
        let lacking = Lacking::of(&batch, &[0, 1], answer);
        let Some((part, rows)) = lacking.of_accepted(&batch, |at| accepted[at]) else { return Vec::new() };
        let told = rows.iter().map(|row| {
            let series = &part.series()[*row as usize];
            let samples = part.verdicts_of(series).into_iter().flatten();
            let name = part.labels(series).unwrap().get("__name__").unwrap().to_owned();
            (name, samples.map(|at| part.timestamp_of(at).unwrap()).collect())
        });
        told.collect()
    }

    fn both(up: &[i64], down: &[i64]) -> Vec<(String, Vec<i64>)> {
        let named = [("up", up), ("down", down)].into_iter().filter(|(_, times)| !times.is_empty());
        named.map(|(name, times)| (name.to_owned(), times.to_vec())).collect()
    }

    #[test]
    fn what_is_accepted_comes_later_and_nothing_that_is_refused() {
        let all = [1, 2, 2];
        let away = || Answer::Away(String::new());
        assert_eq!(later(&away(), [true; 6]), both(&all, &all));
        assert_eq!(later(&away(), [false; 6]), both(&[], &[]));
        assert_eq!(later(&away(), [false, true, true, true, true, true]), both(&[2, 2], &all));
        assert_eq!(later(&away(), [true, true, false, false, true, false]), both(&all, &[]));
        // The first float of both is too old for this one alone, that of the second for the others as well.
        let said = Answer::InOrder(vec![OLD, STORED, STORED, OLD, STORED, STORED]);
        assert_eq!(later(&said, [true; 6]), both(&all, &all));
        assert_eq!(later(&said, [true, true, false, true, true, true]), both(&all, &[]));
        assert_eq!(later(&said, [true, false, false, true, true, true]), both(&[1], &[]));
        let said = Answer::ByIndex(vec![STORED, AWAY, CONFLICT, STORED, STORED, CONFLICT]);
        assert_eq!(later(&said, [true, true, false, true, true, true]), both(&all, &[]));
        // One that is too short says nothing of the rest.
        assert_eq!(later(&Answer::InOrder(vec![STORED; 3]), [true; 6]), both(&[], &all));
    }

    proptest! {
        /// Whatever is said and accepted: all comes that is lacking and accepted, nothing that is not accepted.
        #[test]
        fn all_that_lacks_and_nothing_refused(
            said in proptest::collection::vec(0usize..4, 6), accepted: [bool; 6], by_index: bool,
        ) {
            let verdicts: Vec<Verdict> = said.iter().map(|n| [STORED, AWAY, OLD, CONFLICT][*n]).collect();
            // By row: floats, then the exemplar.
            let order = [0, 1, 4, 2, 3, 5];
            let answer = match by_index {
                true => Answer::ByIndex(verdicts.clone()),
                false => Answer::InOrder(order.iter().map(|at| verdicts[*at]).collect()),
            };
            let came = later(&answer, accepted);
            for (name, row) in [("up", [0, 1, 4]), ("down", [2, 3, 5])] {
                let wanted: Vec<usize> =
                    row.into_iter().filter(|at| accepted[*at] && comes_later(Some(&verdicts[*at]))).collect();
                let came = came.iter().find(|(of, _)| of == name).map_or(0, |(_, times)| times.len());
                prop_assert!(came >= wanted.len());
                prop_assert!(came <= row.into_iter().filter(|at| accepted[*at]).count());
                prop_assert_eq!(came == 0, wanted.is_empty());
            }
        }
    }
}
