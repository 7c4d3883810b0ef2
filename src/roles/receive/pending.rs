//! One write on its way: collects the words of its replicas, and wakes its door when the outcome is settled.
//!
//! What a replica missed is remembered until the outcome is known: only what was accepted is worth a hint.
//!
//! Replicas hold a [`Part`] each. A part that is dropped without a word counts as failed in passing, so that
//! whatever happens to a queue, a task or a connection, the door gets its answer, and what others accept is kept for the
//! replica: each part has its [`Keeper`], with a place for what it keeps, from the beginning.
//!
//! Words count for the ring epoch in which they were asked for, and for no other: once a replica says that it has moved on, the
//! door hears of it at once, to ask anew by the ring that is.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rpc::StaleEpoch;
use storage::{Verdict, WriteBatch};
use tokio::sync::Notify;

use crate::lacking::Lacking;
use crate::quorum::{Outcome, Quorum, Sides};

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
    /// What replicas missed, until the outcome is known.
    missed: Vec<(Lacking, Keeper)>,
    /// The first thing that went wrong, in words.
    trouble: Option<String>,
    away: bool,
    /// The newest ring epoch that a replica has spoken of, having left the one of this write.
    stale: Option<StaleEpoch>,
}

/// Takes rows of a batch that a replica missed, once others have accepted them.
pub type Keeper = Box<dyn FnOnce(&Arc<WriteBatch>, Vec<u32>) + Send>;

/// What a write came to.
#[derive(Debug, Default)]
pub struct Collected {
    /// By verdict of the batch.
    pub outcomes: Vec<Outcome>,
    pub trouble: Option<String>,
    /// A replica was not reached. It may be back the next moment.
    pub away: bool,
    /// Set where a replica has left the write's ring epoch: what is not accepted is to be asked anew.
    pub stale: Option<StaleEpoch>,
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
    /// None judged: the replica has left the ring epoch of the write.
    Stale(StaleEpoch),
}

impl Pending {
    /// Counted by `quorum`.
    pub fn with(batch: Arc<WriteBatch>, quorum: Quorum) -> Arc<Pending> {
        let (missed, trouble, away, stale) = (Vec::new(), None, false, None);
        let state = Mutex::new(State { quorum, outstanding: 0, spared: 0, missed, trouble, away, stale });
        Arc::new(Pending { batch, state, settled: Notify::new() })
    }

    /// A replica's share of this write, with the rings in which it is a replica of each row: of all of them where none is given.
    /// `keeper` gets what the replica lacks of that which the others accept, now or later.
    pub fn part_of(
        self: &Arc<Pending>,
        rows: Vec<u32>,
        sides: Vec<Sides>,
        keeper: impl Into<Option<Keeper>>,
    ) -> Part {
        self.state.lock().outstanding += 1;
        Part { pending: Arc::clone(self), rows, sides, keeper: keeper.into(), answered: false }
    }

    /// Whether every sample is settled although `spared` parts were not sent yet: false once all others have answered
    /// and that did not suffice, or after `limit`. True as well where the write has to be asked for anew.
    pub async fn settles_without(&self, spared: usize, limit: Duration) -> bool {
        let answered = async {
            loop {
                {
                    let mut state = self.state.lock();
                    state.spared = spared;
                    if state.quorum.is_settled() || state.stale.is_some() {
                        return true;
                    }
                    if state.outstanding <= spared {
                        return false;
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
    /// as failed in passing. Ends early where a replica has left the ring epoch of the write.
    pub async fn collect(&self, limit: Duration) -> Collected {
        let settled = async {
            loop {
                {
                    let state = self.state.lock();
                    if state.quorum.is_settled() || state.stale.is_some() {
                        return;
                    }
                }
                self.settled.notified().await;
            }
        };
        let late = tokio::time::timeout(limit, settled).await.is_err();
        let mut state = self.state.lock();
        if late && state.trouble.is_none() {
            state.trouble = Some(format!("replicas did not answer within {limit:?}"));
        }
        let away = state.away && !late;
        let outcomes: Vec<Outcome> = state.quorum.outcomes().collect();
        let stale = state.stale.clone().filter(|_| outcomes.iter().any(|one| *one != Outcome::Accepted));
        Collected { outcomes, trouble: state.trouble.clone(), away, stale }
    }

    fn hear(&self, (rows, sides): (&[u32], &[Sides]), answer: &Answer, missed: Option<(Lacking, Keeper)>) {
        let mut state = self.state.lock();
        self.count(&mut state, (rows, sides), answer);
        state.missed.extend(missed);
        state.outstanding = state.outstanding.saturating_sub(1);
        if !state.quorum.is_settled() {
            if state.outstanding <= state.spared || state.stale.is_some() {
                self.settled.notify_one();
            }
            return;
        }
        self.settled.notify_one();
        let missed = std::mem::take(&mut state.missed);
        let accepted = |sample| state.quorum.outcome(sample) == Some(Outcome::Accepted);
        let wanted: Vec<_> = missed
            .into_iter()
            .filter_map(|(lacking, keeper)| Some((lacking.of_accepted(&self.batch, accepted)?, keeper)))
            .collect();
        drop(state);
        for ((batch, rows), keeper) in wanted {
            keeper(&batch, rows);
        }
    }

    fn count(&self, state: &mut State, (rows, sides): (&[u32], &[Sides]), answer: &Answer) {
        let mut next = 0;
        for (at, row) in rows.iter().enumerate() {
            let sides = sides.get(at).copied().unwrap_or(Sides::BOTH);
            let Some(series) = self.batch.series().get(*row as usize) else { continue };
            for sample in self.batch.verdicts_of(series).into_iter().flatten() {
                let verdict = match answer {
                    Answer::ByIndex(verdicts) => verdicts.get(sample),
                    Answer::InOrder(verdicts) => verdicts.get(next),
                    Answer::Unavailable(_) | Answer::Away(_) | Answer::Stale(_) => None,
                };
                // An answer that is too short says nothing of the rest.
                state.quorum.observe(sample, verdict.copied().unwrap_or(Verdict::Unavailable), sides);
                next += 1;
            }
        }
        state.away |= matches!(answer, Answer::Away(_));
        match answer {
            Answer::Unavailable(why) | Answer::Away(why) => {
                state.trouble.get_or_insert_with(|| why.clone());
            }
            Answer::Stale(stale) if state.stale.as_ref().is_none_or(|known| known.epoch < stale.epoch) => {
                state.trouble.get_or_insert_with(|| stale.to_string());
                state.stale = Some(stale.clone());
            }
            _ => {}
        }
    }
}

/// One replica's share of a write.
pub struct Part {
    pending: Arc<Pending>,
    rows: Vec<u32>,
    sides: Vec<Sides>,
    keeper: Option<Keeper>,
    answered: bool,
}

/// Bytes that rows of a batch keep alive or send, for budgets: labels, samples and what describes them.
pub fn bytes_of(batch: &WriteBatch, rows: &[u32]) -> u64 {
    let rows = rows.iter().filter_map(|row| batch.series().get(*row as usize));
    rows.map(|series| batch.bytes_of(series) as u64).sum()
}

impl Part {
    pub fn batch(&self) -> &Arc<WriteBatch> {
        &self.pending.batch
    }

    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Gives the replica's word. What it lacks goes to the keeper as far as the others accept it.
    pub fn answer(mut self, answer: Answer) {
        self.give(&answer);
    }

    fn give(&mut self, answer: &Answer) {
        self.answered = true;
        let missed = self.keeper.take().and_then(|keeper| {
            let lacking = Lacking::of(&self.pending.batch, &self.rows, answer);
            (!lacking.rows.is_empty()).then_some((lacking, keeper))
        });
        self.pending.hear((&self.rows, &self.sides), answer, missed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.answered {
            self.give(&Answer::Unavailable("the write was given up".to_owned()));
        }
    }
}

#[cfg(test)]
impl Pending {
    pub fn new(batch: Arc<WriteBatch>, replicas: usize, needed: usize) -> Arc<Pending> {
        let quorum = Quorum::new(batch.verdicts(), replicas, needed);
        Pending::with(batch, quorum)
    }

    pub fn part(self: &Arc<Pending>, rows: Vec<u32>) -> Part {
        self.part_of(rows, Vec::new(), None)
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
                let part = |keeper| pending.part_of(vec![0, 1], Vec::new(), keeper);
                match who {
                    // Without a word: as if its task or its queue had gone.
                    0 => drop(part(keeper.take())),
                    1 => part(None).answer(Answer::InOrder(vec![Verdict::Stored; 2])),
                    _ => part(None).answer(second.take().unwrap()),
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

    #[tokio::test]
    async fn a_replica_that_has_moved_on_is_heard_at_once_unless_the_others_suffice() {
        let stale = |epoch| Answer::Stale(StaleEpoch { epoch, ring: Vec::new() });
        let long = Duration::from_secs(60);
        let pending = Pending::new(batch(2, 1), 3, 2);
        let [a, b, _silent] = [(); 3].map(|()| pending.part(vec![0, 1]));
        a.answer(stale(2));
        b.answer(stale(3));
        let collected = pending.collect(long).await;
        assert_eq!(collected.stale.map(|told| told.epoch), Some(3));
        assert_eq!(collected.outcomes, [Outcome::Retryable; 2]);

        // Accepted in its own epoch; who has moved on lacks the copy, as one that was away.
        let kept = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&kept);
        let pending = Pending::new(batch(2, 1), 3, 2);
        let [a, c] = [(); 2].map(|()| pending.part(vec![0, 1]));
        let keeper: Keeper = Box::new(move |_, rows| *seen.lock() = Some(rows));
        a.answer(Answer::InOrder(vec![Verdict::Stored; 2]));
        pending.part_of(vec![0, 1], Vec::new(), keeper).answer(stale(2));
        c.answer(Answer::InOrder(vec![Verdict::Stored; 2]));
        let collected = pending.collect(long).await;
        assert_eq!((collected.stale, collected.outcomes), (None, vec![Outcome::Accepted; 2]));
        assert_eq!(kept.lock().take(), Some(vec![0, 1]));
    }
}
