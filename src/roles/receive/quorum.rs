//! Verdicts of replicas into one outcome per sample: pure, and blind to the order in which they arrive.
//!
//! Per sample: s replicas stored it or already had it, r refused it, u failed in passing, of n asked.
//! s >= w is accepted; else s + u >= w is retryable; else it is refused. An outcome is given before all have
//! answered only where no answer still missing could change it.

use storage::{Refusal, Verdict};

/// What becomes of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The reason is the least of those that were given.
    Refused(Refusal),
    /// A retry can help.
    Retryable,
}

impl Outcome {
    /// As a single replica would say it.
    pub fn verdict(self) -> Verdict {
        match self {
            Outcome::Accepted => Verdict::Stored,
            Outcome::Refused(reason) => Verdict::Refused(reason),
            Outcome::Retryable => Verdict::Unavailable,
        }
    }
}

/// The count of one request. Four bytes a sample; no allocation after [`Quorum::new`].
#[derive(Clone, Debug)]
pub struct Quorum {
    replicas: u8,
    needed: u8,
    tallies: Vec<Tally>,
    /// Samples whose outcome is still open.
    open: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    stored: u8,
    refused: u8,
    unavailable: u8,
    /// Least refusal given, 0 for none.
    reason: u8,
}

impl Tally {
    /// Adds one replica's word; more words than replicas are not counted.
    fn add(&mut self, verdict: Verdict, replicas: u8) {
        if self.stored + self.refused + self.unavailable >= replicas {
            return;
        }
        match verdict {
            Verdict::Stored | Verdict::Duplicate => self.stored += 1,
            Verdict::Unavailable => self.unavailable += 1,
            Verdict::Refused(reason) => {
                self.refused += 1;
                let code = reason as u8;
                self.reason = if self.reason == 0 { code } else { self.reason.min(code) };
            }
        }
    }

    /// The outcome, if no word still missing can change it.
    fn settle(&self, replicas: u8, needed: u8) -> Option<Outcome> {
        let missing = replicas - self.stored - self.refused - self.unavailable;
        if self.stored >= needed {
            Some(Outcome::Accepted)
        } else if replicas - self.refused < needed {
            // A refusal always has its code; the fallback only spares a panic.
            let reason = Refusal::from_code(self.reason).unwrap_or(Refusal::OutOfBounds);
            Some(Outcome::Refused(reason))
        } else if self.stored + missing < needed && self.stored + self.unavailable >= needed {
            Some(Outcome::Retryable)
        } else {
            None
        }
    }
}

impl Quorum {
    /// For `samples` samples of which each has `replicas` (1 to 15), `needed` of them for an ack.
    pub fn new(samples: usize, replicas: usize, needed: usize) -> Quorum {
        let replicas = replicas.clamp(1, 15) as u8;
        let needed = needed.clamp(1, replicas as usize) as u8;
        Quorum { replicas, needed, tallies: vec![Tally::default(); samples], open: samples }
    }

    /// The same where nobody is asked about so many of them: those are not waited for.
    pub fn without(self, samples: usize) -> Quorum {
        Quorum { open: self.open.saturating_sub(samples), ..self }
    }

    /// Takes one replica's word on one sample.
    pub fn observe(&mut self, sample: usize, verdict: Verdict) {
        let (replicas, needed) = (self.replicas, self.needed);
        let Some(tally) = self.tallies.get_mut(sample) else { return };
        let was_open = tally.settle(replicas, needed).is_none();
        tally.add(verdict, replicas);
        if was_open && tally.settle(replicas, needed).is_some() {
            self.open -= 1;
        }
    }

    /// The outcome of a sample, if it is settled.
    pub fn outcome(&self, sample: usize) -> Option<Outcome> {
        self.tallies.get(sample)?.settle(self.replicas, self.needed)
    }

    /// Whether every outcome is settled.
    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    /// The outcome of each sample; replicas that have not answered count as failed in passing.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> + '_ {
        self.tallies.iter().map(|tally| {
            let mut tally = *tally;
            tally.unavailable = self.replicas - tally.stored - tally.refused;
            // With every word in, the rule always answers.
            tally.settle(self.replicas, self.needed).unwrap_or(Outcome::Retryable)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [Verdict; 5] = [
        Verdict::Stored,
        Verdict::Duplicate,
        Verdict::Unavailable,
        Verdict::Refused(Refusal::Conflict),
        Verdict::Refused(Refusal::TooOld),
    ];

    /// The rule as it is written, with every word in.
    fn rule(words: &[Verdict], needed: usize) -> Outcome {
        let stored = words.iter().filter(|w| w.is_success()).count();
        let unavailable = words.iter().filter(|w| **w == Verdict::Unavailable).count();
        if stored >= needed {
            Outcome::Accepted
        } else if stored + unavailable >= needed {
            Outcome::Retryable
        } else {
            let reason = words.iter().filter_map(|w| match w {
                Verdict::Refused(reason) => Some(*reason),
                _ => None,
            });
            Outcome::Refused(reason.min().unwrap())
        }
    }

    /// Every sequence of words, which is every set in every order, for replication factors 1 to 5 and every
    /// quorum: the final outcome is the rule's, and an early one is of the final one's kind.
    #[test]
    fn every_order_of_every_set() {
        for replicas in 1..=5usize {
            for needed in 1..=replicas {
                for number in 0..WORDS.len().pow(replicas as u32) {
                    let words: Vec<Verdict> = (0..replicas as u32)
                        .map(|at| WORDS[number / WORDS.len().pow(at) % WORDS.len()])
                        .collect();
                    let last = rule(&words, needed);
                    let mut quorum = Quorum::new(1, replicas, needed);
                    for word in &words {
                        quorum.observe(0, *word);
                        if quorum.is_settled() {
                            let early = quorum.outcomes().next().unwrap();
                            assert_eq!(
                                std::mem::discriminant(&early),
                                std::mem::discriminant(&last),
                                "{words:?}, {needed} needed"
                            );
                        }
                    }
                    assert!(quorum.is_settled(), "{words:?}, {needed} needed");
                    assert_eq!(quorum.outcomes().next().unwrap(), last, "{words:?}, {needed} needed");
                }
            }
        }
    }

    /// One bad sample among good ones is settled by itself, and nobody is waited for without need.
    #[test]
    fn samples_are_settled_one_by_one() {
        let mut quorum = Quorum::new(3, 3, 2);
        for sample in [0, 2] {
            quorum.observe(sample, Verdict::Stored);
            quorum.observe(sample, Verdict::Duplicate);
        }
        quorum.observe(1, Verdict::Refused(Refusal::TooOld));
        assert!(!quorum.is_settled());
        quorum.observe(1, Verdict::Refused(Refusal::TooOld));
        assert!(quorum.is_settled());
        let outcomes: Vec<_> = quorum.outcomes().collect();
        assert_eq!(outcomes, [Outcome::Accepted, Outcome::Refused(Refusal::TooOld), Outcome::Accepted]);
    }

    /// Replicas that never answer are failures in passing.
    #[test]
    fn silence_is_unavailable() {
        let mut quorum = Quorum::new(1, 3, 2);
        quorum.observe(0, Verdict::Stored);
        assert_eq!(quorum.outcomes().next(), Some(Outcome::Retryable));
        quorum.observe(0, Verdict::Unavailable);
        assert!(!quorum.is_settled(), "the third could still store it");
        quorum.observe(0, Verdict::Refused(Refusal::Conflict));
        assert_eq!(quorum.outcomes().next(), Some(Outcome::Retryable));
    }

    /// Words beyond the number of replicas change nothing.
    #[test]
    fn a_word_too_many_is_ignored() {
        let mut quorum = Quorum::new(1, 1, 1);
        quorum.observe(0, Verdict::Unavailable);
        quorum.observe(0, Verdict::Stored);
        quorum.observe(9, Verdict::Stored);
        assert_eq!(quorum.outcomes().next(), Some(Outcome::Retryable));
    }
}
