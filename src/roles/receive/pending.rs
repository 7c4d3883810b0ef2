//! One write on its way: collects the words of its replicas, and wakes its door when the outcome is settled.
//!
//! What a replica missed is remembered until the outcome is known: only what was accepted is worth a hint.
//!
//! Replicas hold a [`Part`] each. A part that is dropped without a word counts as failed in passing, so that
//! whatever happens to a queue, a task or a connection, the door gets its answer.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use storage::{Verdict, WriteBatch};
use tokio::sync::Notify;

use crate::quorum::{Outcome, Quorum};

/// A write that waits for its quorum.
pub struct Pending {
    batch: Arc<WriteBatch>,
    state: Mutex<State>,
    settled: Notify,
}

struct State {
    quorum: Quorum,
    /// Parts that were given out and not answered, and how many of them nobody was asked for yet.
    outstanding: usize,
    spared: usize,
    /// Rows that replicas missed, until the outcome is known.
    missed: Vec<(Vec<u32>, Keeper)>,
    /// The first thing that went wrong, in words.
    trouble: Option<String>,
    away: bool,
}

/// Takes rows of a batch that a replica missed, once others have accepted them.
pub type Keeper = Box<dyn FnOnce(&Arc<WriteBatch>, Vec<u32>) + Send>;

/// What a write came to.
#[derive(Debug)]
pub struct Collected {
    /// By verdict of the batch.
    pub outcomes: Vec<Outcome>,
    pub trouble: Option<String>,
    /// A replica was not reached. It may be back the next moment.
    pub away: bool,
}

/// What one replica says of the rows that it was asked to store.
#[derive(Debug)]
pub enum Answer {
    /// A verdict for every sample of the batch, of which those of the rows count.
    ByIndex(Vec<Verdict>),
    /// The verdicts of the rows in their order, of each as [`WriteBatch::verdicts_of`] lists them.
    InOrder(Vec<Verdict>),
    /// None stored, and why.
    Unavailable(String),
    /// The same of one that was not reached.
    Away(String),
}

impl Pending {
    #[cfg(test)]
    pub fn new(batch: Arc<WriteBatch>, replicas: usize, needed: usize) -> Arc<Pending> {
        Pending::without(batch, 0, replicas, needed)
    }

    /// A write of a batch, or of a part of it: about `samples` of its samples nobody is asked.
    pub fn without(batch: Arc<WriteBatch>, samples: usize, replicas: usize, needed: usize) -> Arc<Pending> {
        let quorum = Quorum::new(batch.verdicts(), replicas, needed).without(samples);
        let (missed, trouble, away) = (Vec::new(), None, false);
        let state = Mutex::new(State { quorum, outstanding: 0, spared: 0, missed, trouble, away });
        Arc::new(Pending { batch, state, settled: Notify::new() })
    }

    /// A replica's share of this write.
    pub fn part(self: &Arc<Pending>, rows: Vec<u32>) -> Part {
        self.state.lock().outstanding += 1;
        Part { pending: Arc::clone(self), rows, answered: false }
    }

    /// Whether every sample is settled although `spared` parts were not sent yet: false once all others have answered
    /// and that did not suffice, or after `limit`.
    pub async fn settles_without(&self, spared: usize, limit: Duration) -> bool {
        let answered = async {
            loop {
                {
                    let mut state = self.state.lock();
                    state.spared = spared;
                    if state.quorum.is_settled() || state.outstanding <= spared {
                        return state.quorum.is_settled();
                    }
                }
                self.settled.notified().await;
            }
        };
        let settled = tokio::time::timeout(limit, answered).await.unwrap_or(false);
        self.state.lock().spared = 0;
        settled
    }

    /// Waits until every sample is settled, at most for `limit`; replicas that have not answered by then count
    /// as failed in passing.
    pub async fn collect(&self, limit: Duration) -> Collected {
        let settled = async {
            while !self.state.lock().quorum.is_settled() {
                self.settled.notified().await;
            }
        };
        let late = tokio::time::timeout(limit, settled).await.is_err();
        let mut state = self.state.lock();
        if late && state.trouble.is_none() {
            state.trouble = Some(format!("replicas did not answer within {limit:?}"));
        }
        let away = state.away && !late;
        Collected { outcomes: state.quorum.outcomes().collect(), trouble: state.trouble.clone(), away }
    }

    fn hear(&self, rows: &[u32], answer: &Answer, missed: Option<(Vec<u32>, Keeper)>) {
        let mut state = self.state.lock();
        self.count(&mut state, rows, answer);
        state.missed.extend(missed);
        state.outstanding = state.outstanding.saturating_sub(1);
        if !state.quorum.is_settled() {
            if state.outstanding <= state.spared {
                self.settled.notify_one();
            }
            return;
        }
        self.settled.notify_one();
        let missed = std::mem::take(&mut state.missed);
        let wanted: Vec<_> = missed
            .into_iter()
            .map(|(mut rows, keeper)| {
                rows.retain(|row| self.is_accepted(&state.quorum, *row));
                (rows, keeper)
            })
            .collect();
        drop(state);
        for (rows, keeper) in wanted {
            if !rows.is_empty() {
                keeper(&self.batch, rows);
            }
        }
    }

    /// Whether anything of a row is accepted.
    fn is_accepted(&self, quorum: &Quorum, row: u32) -> bool {
        let Some(series) = self.batch.series().get(row as usize) else { return false };
        let mut samples = self.batch.verdicts_of(series).into_iter().flatten();
        samples.any(|sample| quorum.outcome(sample) == Some(Outcome::Accepted))
    }

    fn count(&self, state: &mut State, rows: &[u32], answer: &Answer) {
        let mut next = 0;
        for row in rows {
            let Some(series) = self.batch.series().get(*row as usize) else { continue };
            for sample in self.batch.verdicts_of(series).into_iter().flatten() {
                let verdict = match answer {
                    Answer::ByIndex(verdicts) => verdicts.get(sample),
                    Answer::InOrder(verdicts) => verdicts.get(next),
                    Answer::Unavailable(_) | Answer::Away(_) => None,
                };
                // An answer that is too short says nothing of the rest.
                state.quorum.observe(sample, verdict.copied().unwrap_or(Verdict::Unavailable));
                next += 1;
            }
        }
        state.away |= matches!(answer, Answer::Away(_));
        if let Answer::Unavailable(why) | Answer::Away(why) = answer
            && state.trouble.is_none()
        {
            state.trouble = Some(why.clone());
        }
    }
}

/// One replica's share of a write.
pub struct Part {
    pending: Arc<Pending>,
    rows: Vec<u32>,
    answered: bool,
}

impl Part {
    pub fn batch(&self) -> &Arc<WriteBatch> {
        &self.pending.batch
    }

    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Bytes that this share keeps alive or sends, for budgets: labels, samples and what describes them.
    pub fn bytes(&self) -> u64 {
        let batch = self.batch();
        let rows = self.rows.iter().filter_map(|row| batch.series().get(*row as usize));
        rows.map(|series| batch.bytes_of(series) as u64).sum()
    }

    /// Gives the replica's word.
    pub fn answer(mut self, answer: Answer) {
        self.answered = true;
        self.pending.hear(&self.rows, &answer, None);
    }

    /// Gives the word of a replica that has not stored all of it; `keeper` gets what it lacks of that which the others
    /// accept, now or later.
    pub fn missed(mut self, answer: Answer, keeper: Keeper) {
        self.answered = true;
        let rows = match &answer {
            Answer::Unavailable(_) | Answer::Away(_) => self.rows.clone(),
            Answer::InOrder(verdicts) => self.lacking(verdicts),
            Answer::ByIndex(verdicts) => self.lacking_of(verdicts),
        };
        self.pending.hear(&self.rows, &answer, (!rows.is_empty()).then_some((rows, keeper)));
    }

    /// Rows of which anything was not taken in passing.
    fn lacking(&self, verdicts: &[Verdict]) -> Vec<u32> {
        let mut verdicts = verdicts.iter();
        let batch = self.batch();
        let lacks = |row: &&u32| {
            let Some(series) = batch.series().get(**row as usize) else { return false };
            let many = batch.verdicts_of(series).into_iter().flatten().count();
            let heard = verdicts.by_ref().take(many).filter(|v| **v != Verdict::Unavailable).count();
            heard < many
        };
        self.rows.iter().filter(lacks).copied().collect()
    }

    /// The same of verdicts for the whole batch.
    fn lacking_of(&self, verdicts: &[Verdict]) -> Vec<u32> {
        let batch = self.batch();
        let lacks = |row: &&u32| {
            let Some(series) = batch.series().get(**row as usize) else { return false };
            let mut samples = batch.verdicts_of(series).into_iter().flatten();
            samples.any(|at| verdicts.get(at).is_none_or(|verdict| *verdict == Verdict::Unavailable))
        };
        self.rows.iter().filter(lacks).copied().collect()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.answered {
            self.pending.hear(&self.rows, &Answer::Unavailable("the write was given up".to_owned()), None);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use model::{Labels, Sample};
    use storage::Refusal;

    use super::*;

    /// Series `up{n="0"}`, `up{n="1"}` ... of `samples` samples each.
    pub fn batch(series: usize, samples: usize) -> Arc<WriteBatch> {
        let mut batch = WriteBatch::default();
        for n in 0..series {
            let labels = Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())]).unwrap();
            let samples = (0..samples).map(|t| Sample { timestamp: t as i64, value: 1.0 });
            batch.push(labels.as_bytes(), labels.placement_hash("t"), samples);
        }
        Arc::new(batch)
    }

    #[tokio::test]
    async fn settles_at_the_quorum_without_the_straggler() {
        let pending = Pending::new(batch(2, 2), 3, 2);
        let straggler = pending.part(vec![0, 1]);
        pending.part(vec![0, 1]).answer(Answer::InOrder(vec![Verdict::Stored; 4]));
        pending.part(vec![0]).answer(Answer::ByIndex(vec![Verdict::Stored; 4]));
        let one = Verdict::Refused(Refusal::TooOld);
        pending.part(vec![1]).answer(Answer::InOrder(vec![Verdict::Duplicate, one]));
        // The last sample has one yes and one no: the straggler decides.
        let waiting = tokio::spawn({
            let pending = Arc::clone(&pending);
            async move { pending.collect(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        straggler.answer(Answer::InOrder(vec![one; 4]));
        let outcomes = waiting.await.unwrap().outcomes;
        assert_eq!(outcomes[..3], [Outcome::Accepted; 3]);
        assert_eq!(outcomes[3], Outcome::Refused(Refusal::TooOld));
    }

    #[tokio::test]
    async fn a_part_that_vanishes_is_a_word_too() {
        let pending = Pending::new(batch(1, 1), 3, 2);
        for _ in 0..2 {
            drop(pending.part(vec![0]));
        }
        let collected = pending.collect(Duration::from_secs(60)).await;
        assert_eq!(collected.outcomes, [Outcome::Retryable]);
        assert!(collected.trouble.is_some());
    }

    #[test]
    fn what_a_replica_missed_is_kept_if_the_others_accept_it_whoever_comes_first() {
        let kept = |order: &[usize], second: Answer| {
            let pending = Pending::new(batch(2, 1), 3, 2);
            let kept = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&kept);
            let keeper: Keeper = Box::new(move |_, rows| *seen.lock() = Some(rows));
            let mut keeper = Some(keeper);
            let mut second = Some(second);
            for who in order {
                let part = pending.part(vec![0, 1]);
                match who {
                    0 => part.missed(Answer::Unavailable("away".to_owned()), keeper.take().unwrap()),
                    1 => part.answer(Answer::InOrder(vec![Verdict::Stored; 2])),
                    _ => part.answer(second.take().unwrap()),
                }
            }
            kept.lock().take()
        };
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for order in orders {
            let all = Answer::InOrder(vec![Verdict::Stored; 2]);
            assert_eq!(kept(&order, all), Some(vec![0, 1]), "{order:?}");
            // The one that nobody else has either is sent again by its sender.
            let one = Answer::InOrder(vec![Verdict::Unavailable, Verdict::Duplicate]);
            assert_eq!(kept(&order, one), Some(vec![1]), "{order:?}");
            assert_eq!(kept(&order, Answer::Unavailable("away".to_owned())), None, "{order:?}");
        }
    }

    #[tokio::test]
    async fn who_is_spared_is_asked_once_the_others_do_not_suffice() {
        let long = Duration::from_secs(60);
        let stored = || Answer::InOrder(vec![Verdict::Stored]);
        let pending = Pending::new(batch(1, 1), 3, 2);
        let [a, b, spared] = [(); 3].map(|()| pending.part(vec![0]));
        a.answer(stored());
        let waiting = tokio::spawn({
            let pending = Arc::clone(&pending);
            async move { pending.settles_without(1, long).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        b.answer(Answer::Unavailable("away".to_owned()));
        assert!(!waiting.await.unwrap());
        spared.answer(stored());
        assert_eq!(pending.collect(long).await.outcomes, [Outcome::Accepted]);

        let pending = Pending::new(batch(1, 1), 3, 2);
        let [a, b, _spared] = [(); 3].map(|()| pending.part(vec![0]));
        a.answer(stored());
        assert!(
            !pending.settles_without(1, Duration::from_millis(10)).await,
            "one that is silent is not waited for"
        );
        b.answer(stored());
        assert!(pending.settles_without(1, long).await);
    }

    #[tokio::test]
    async fn silence_ends_at_the_limit() {
        let pending = Pending::new(batch(1, 1), 3, 2);
        let _silent = pending.part(vec![0]);
        let collected = pending.collect(Duration::from_millis(20)).await;
        assert_eq!(collected.outcomes, [Outcome::Retryable]);
        assert_eq!(collected.trouble.unwrap(), "replicas did not answer within 20ms");
    }
}
