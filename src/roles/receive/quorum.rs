//! Verdicts of replicas into one outcome per sample: pure, and blind to the order in which they arrive.
//!
//! Per sample: s replicas stored it or already had it, r refused it, u failed in passing, of n asked.
//! s >= w is accepted; else s + u >= w is retryable; else it is refused. An outcome is given before all have
//! answered only where no answer still missing could change it.
//!
//! In the middle of a change of the ring a sample has two sets of replicas, the old ring's and the new one's, and each
//! its own count: accepted is what both accept, refused what the old set refuses. Where only the new set refuses a retry can
//! help, because the change ends in a moment, one way or the other.

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

/// The sets of replicas of a sample that a word counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides(u8);

impl Sides {
    /// Of the only ring there is, or of the one that is being left.
    pub const OLD: Sides = Sides(1);
    pub const NEW: Sides = Sides(2);
    pub const BOTH: Sides = Sides(3);

    pub fn and(self, other: Sides) -> Sides {
        Sides(self.0 | other.0)
    }

    fn has(self, side: usize) -> bool {
        self.0 & (1 << side) != 0
    }
}

/// How many replicas a sample has in a ring, and how many of them make an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    replicas: u8,
    needed: u8,
}

/// The count of one request. Four bytes a sample and ring; no allocation after [`Quorum::new`].
#[derive(Clone, Debug)]
pub struct Quorum {
    /// Of the only ring, or of the old and the new one.
    rules: [Option<Rule>; 2],
    /// Of each sample one, or two.
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

impl Rule {
    fn new(replicas: usize, needed: usize) -> Rule {
        let replicas = replicas.clamp(1, 15) as u8;
        Rule { replicas, needed: needed.clamp(1, replicas as usize) as u8 }
    }
}

/// What both rings make of a sample, if no word still missing can change it.
fn both(old: Option<Outcome>, new: Option<Outcome>) -> Option<Outcome> {
    match (old?, new) {
        (Outcome::Accepted, new) => match new? {
            Outcome::Accepted => Some(Outcome::Accepted),
            Outcome::Refused(_) | Outcome::Retryable => Some(Outcome::Retryable),
        },
        (refused_or_retryable, _) => Some(refused_or_retryable),
    }
}

impl Quorum {
    /// For `samples` samples of which each has `replicas` (1 to 15), `needed` of them for an ack.
    pub fn new(samples: usize, replicas: usize, needed: usize) -> Quorum {
        let rules = [Some(Rule::new(replicas, needed)), None];
        Quorum { rules, tallies: vec![Tally::default(); samples], open: samples }
    }

    /// The same where nobody is asked about so many of them: those are not waited for.
    pub fn without(self, samples: usize) -> Quorum {
        Quorum { open: self.open.saturating_sub(samples), ..self }
    }

    /// As [`Quorum::new`], with replicas and needed of the old ring and of the new one.
    pub fn joint(samples: usize, old: (usize, usize), new: (usize, usize)) -> Quorum {
        let rules = [Some(Rule::new(old.0, old.1)), Some(Rule::new(new.0, new.1))];
        Quorum { rules, tallies: vec![Tally::default(); 2 * samples], open: samples }
    }

    fn sides(&self) -> usize {
        1 + usize::from(self.rules[1].is_some())
    }

    /// Takes one replica's word on one sample, for each of the rings in which it is a replica of it.
    pub fn observe(&mut self, sample: usize, verdict: Verdict, sides: Sides) {
        let (rules, many) = (self.rules, self.sides());
        let Some(tallies) = self.tallies.get_mut(sample * many..(sample + 1) * many) else { return };
        let was_open = settle(rules, tallies).is_none();
        for (side, (tally, rule)) in tallies.iter_mut().zip(rules.iter().flatten()).enumerate() {
            if sides.has(side) {
                tally.add(verdict, rule.replicas);
            }
        }
        if was_open && settle(rules, tallies).is_some() {
            self.open -= 1;
        }
    }

    /// The outcome of a sample, if it is settled.
    pub fn outcome(&self, sample: usize) -> Option<Outcome> {
        let many = self.sides();
        settle(self.rules, self.tallies.get(sample * many..(sample + 1) * many)?)
    }

    /// Whether every outcome is settled.
    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    /// The outcome of each sample; replicas that have not answered count as failed in passing.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> + '_ {
        self.tallies.chunks_exact(self.sides()).map(|tallies| {
            let mut last = [Tally::default(); 2];
            for ((last, tally), rule) in last.iter_mut().zip(tallies).zip(self.rules.iter().flatten()) {
                *last = *tally;
                last.unavailable = rule.replicas - tally.stored - tally.refused;
            }
            // With every word in, the rule always answers.
            settle(self.rules, &last[..tallies.len()]).unwrap_or(Outcome::Retryable)
        })
    }
}

/// The outcome of the sample whose words were counted in `tallies`, one of each rule.
fn settle(rules: [Option<Rule>; 2], tallies: &[Tally]) -> Option<Outcome> {
    let mut settled =
        rules.iter().flatten().zip(tallies).map(|(r, tally)| tally.settle(r.replicas, r.needed));
    let first = settled.next()?;
    match settled.next() {
        None => first,
        Some(second) => both(first, second),
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
                        quorum.observe(0, *word, Sides::BOTH);
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
            quorum.observe(sample, Verdict::Stored, Sides::BOTH);
            quorum.observe(sample, Verdict::Duplicate, Sides::BOTH);
        }
        quorum.observe(1, Verdict::Refused(Refusal::TooOld), Sides::BOTH);
        assert!(!quorum.is_settled());
        quorum.observe(1, Verdict::Refused(Refusal::TooOld), Sides::BOTH);
        assert!(quorum.is_settled());
        let outcomes: Vec<_> = quorum.outcomes().collect();
        assert_eq!(outcomes, [Outcome::Accepted, Outcome::Refused(Refusal::TooOld), Outcome::Accepted]);
    }

    /// Replicas that never answer are failures in passing.
    #[test]
    fn silence_is_unavailable() {
        let mut quorum = Quorum::new(1, 3, 2);
        quorum.observe(0, Verdict::Stored, Sides::BOTH);
        assert_eq!(quorum.outcomes().next(), Some(Outcome::Retryable));
        quorum.observe(0, Verdict::Unavailable, Sides::BOTH);
        assert!(!quorum.is_settled(), "the third could still store it");
        quorum.observe(0, Verdict::Refused(Refusal::Conflict), Sides::BOTH);
        assert_eq!(quorum.outcomes().next(), Some(Outcome::Retryable));
    }

    /// Words beyond the number of replicas change nothing.
    #[test]
    fn a_word_too_many_is_ignored() {
        let mut quorum = Quorum::new(1, 1, 1);
        quorum.observe(0, Verdict::Unavailable, Sides::BOTH);
        quorum.observe(0, Verdict::Stored, Sides::BOTH);
        quorum.observe(9, Verdict::Stored, Sides::BOTH);
        assert_eq!(quorum.outcomes().next(), Some(Outcome::Retryable));
    }

    /// In the middle of a change, for every pair of replica sets of two and of three copies with every overlap: each
    /// combination of words, in every rotation of who speaks first. The outcome is what the two counts say, and an early one
    /// is of the last one's kind.
    #[test]
    fn two_rings_count_apart_and_an_ack_obeys_both() {
        let words = [Verdict::Stored, Verdict::Unavailable, Verdict::Refused(Refusal::Conflict)];
        let mut acked = 0;
        for replicas in 1..=3usize {
            for overlap in 0..=replicas {
                let nodes = 2 * replicas - overlap;
                let sides = |node: usize| match (node < replicas, node >= replicas - overlap) {
                    (true, true) => Sides::BOTH,
                    (true, false) => Sides::OLD,
                    _ => Sides::NEW,
                };
                let needed = replicas / 2 + 1;
                for number in 0..words.len().pow(nodes as u32) {
                    let said: Vec<Verdict> = (0..nodes as u32)
                        .map(|at| words[number / words.len().pow(at) % words.len()])
                        .collect();
                    let of = |side: Sides| {
                        let heard: Vec<Verdict> = (0..nodes)
                            .filter(|node| sides(*node).0 & side.0 != 0)
                            .map(|node| said[node])
                            .collect();
                        rule(&heard, needed)
                    };
                    let last = match (of(Sides::OLD), of(Sides::NEW)) {
                        (Outcome::Accepted, Outcome::Accepted) => Outcome::Accepted,
                        (Outcome::Accepted, _) => Outcome::Retryable,
                        (old, _) => old,
                    };
                    acked += usize::from(last == Outcome::Accepted);
                    for first in 0..nodes {
                        let mut quorum = Quorum::joint(1, (replicas, needed), (replicas, needed));
                        for at in 0..nodes {
                            let node = (first + at) % nodes;
                            quorum.observe(0, said[node], sides(node));
                            if quorum.is_settled() {
                                let early = quorum.outcome(0).unwrap();
                                assert_eq!(
                                    std::mem::discriminant(&early),
                                    std::mem::discriminant(&last),
                                    "{said:?} from {first}, {overlap} of {replicas} stay"
                                );
                                // An ack is as the agreed rule has it.
                                let stored: Vec<usize> =
                                    (0..nodes).filter(|n| said[*n].is_success()).collect();
                                let (old, new): (Vec<usize>, Vec<usize>) =
                                    ((0..replicas).collect(), (replicas - overlap..nodes).collect());
                                let sets = [(old.as_slice(), needed), (new.as_slice(), needed)];
                                let both = agreed::epoch::acked(&sets, |n| stored.contains(n));
                                assert_eq!(early == Outcome::Accepted, both);
                            }
                        }
                        assert!(quorum.is_settled(), "{said:?}");
                        assert_eq!(quorum.outcomes().next(), Some(last), "{said:?}");
                    }
                }
            }
        }
        assert!(acked > 50);
    }

    /// Who has not spoken counts as away in each of its rings.
    #[test]
    fn silence_of_one_ring_is_no_ack() {
        let mut quorum = Quorum::joint(2, (3, 2), (3, 2));
        for sample in 0..2 {
            quorum.observe(sample, Verdict::Stored, Sides::OLD);
            quorum.observe(sample, Verdict::Stored, Sides::BOTH);
        }
        assert!(!quorum.is_settled());
        assert_eq!(quorum.outcomes().collect::<Vec<_>>(), [Outcome::Retryable; 2]);
        quorum.observe(1, Verdict::Duplicate, Sides::NEW);
        assert_eq!(quorum.outcomes().collect::<Vec<_>>(), [Outcome::Retryable, Outcome::Accepted]);
    }
}
