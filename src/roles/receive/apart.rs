//! What of a spliced write is stored, settled for all of its replicas before any of them stores it.
//!
//! Two senders scrape the same, and a sample of the one that stands beside one of the other is not taken. Replicas that decide
//! that each for itself come to different ends: one that missed the other's sample, which is to come to it as a hint, takes
//! what the rest pass over, and a query sees one scrape twice. So all of them are asked first, and what stands beside anything
//! that any of them has is stored by none. What was acknowledged is known to one at least of those who must have answered.
//!
//! A receiver of a version that does not know the question takes it for a write, and judges each sample by itself, as all did
//! before there was a question: while versions are mixed a scrape may be seen twice for one that it lacked, as with that
//! version alone, and nothing that was acknowledged is missing.
//!
//! # Cost
//! One more call to each replica, and a clone of the batch, of what comes for a while after another sender took over.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use model::{TenantId, Timestamp};
use rpc::{ANY_EPOCH, WriteCall};
use storage::{Verdict, WriteBatch};
use tokio::time::Instant;

use crate::lacking::some_of;
use crate::pending::Collected;
use crate::quorum::{Outcome, Sides};
use crate::ring::Target;
use crate::write::{Plan, Writer};

/// How long those are waited for that are not needed for an answer: whoever is slow may have what nobody acknowledged.
const GRACE: Duration = Duration::from_millis(250);

/// What replicas have said of the samples of a batch, by verdict.
#[derive(Debug)]
struct Words {
    /// Of each sample, how many of the ring that is, or is being left, have nothing beside it, and how many must have said so.
    apart: Vec<(u8, u8)>,
    /// Whether anybody has something beside it.
    beside: Vec<bool>,
}

impl Words {
    /// Of so many samples. Nobody is to be asked yet.
    fn new(samples: usize) -> Words {
        Words { apart: vec![(0, 0); samples], beside: vec![false; samples] }
    }

    /// Somebody is asked about a sample of whom `needed` at most have to answer.
    fn ask(&mut self, sample: usize, needed: u8) {
        if let Some((_, must)) = self.apart.get_mut(sample) {
            *must = (*must).max(needed.min(*must + 1));
        }
    }

    fn hear(&mut self, sample: usize, counts: bool, verdict: Verdict) {
        match (verdict, self.apart.get_mut(sample), self.beside.get_mut(sample)) {
            (Verdict::Stored, Some((apart, _)), _) => *apart += u8::from(counts),
            (Verdict::Duplicate, _, Some(beside)) => *beside = true,
            _ => {}
        }
    }

    fn suffice(&self) -> bool {
        self.apart.iter().zip(&self.beside).all(|((apart, must), beside)| *beside || apart >= must)
    }
}

impl Writer {
    /// As [`Writer::send`]; of a spliced batch what stands apart from all that its replicas have. The rest counts as stored.
    pub async fn send_apart(
        &self,
        plan: Plan,
        tenant: &TenantId,
        batch: Arc<WriteBatch>,
        judged_at: Timestamp,
    ) -> Collected {
        let samples = batch.verdicts();
        let refused = |trouble: &str| Collected {
            outcomes: vec![Outcome::Retryable; samples],
            trouble: Some(trouble.to_owned()),
            ..Collected::default()
        };
        let is_alone = || plan.current.rings.replication_factor() < 2 && plan.current.before.is_none();
        if !batch.is_spliced() || is_alone() {
            return self.send(plan, tenant, batch, judged_at).await;
        }
        let words = self.ask(&plan, tenant, &batch, judged_at).await;
        if !words.suffice() {
            return refused("too few receivers say what they have of another replica of the HA pair");
        }
        if !words.beside.contains(&true) {
            return self.send(plan, tenant, batch, judged_at).await;
        }
        let apart = |at: usize| words.beside.get(at) == Some(&false);
        let wanted =
            |row: &u32| batch.verdicts_of(&batch.series()[*row as usize]).into_iter().flatten().any(apart);
        let rows: Vec<u32> = (0..batch.series().len() as u32).filter(wanted).collect();
        let part = Arc::new(some_of(&batch, &rows, &apart));
        let passed_over = words.beside.iter().filter(|beside| **beside).count();
        metrics::counter!("tributary_receive_passed_over_samples_total").increment(passed_over as u64);
        let mut collected = Collected::default();
        if !part.is_empty() {
            let Ok(plan) = self.plan(tenant, &part) else {
                return refused("the ring has changed in the middle of a write");
            };
            collected = self.send(plan, tenant, part, judged_at).await;
        }
        let mut sent = std::mem::take(&mut collected.outcomes).into_iter();
        let outcome = |beside: &bool| match beside {
            true => Outcome::Accepted,
            false => sent.next().unwrap_or(Outcome::Retryable),
        };
        collected.outcomes = words.beside.iter().map(outcome).collect();
        collected
    }

    /// Asks all replicas of the rows of a batch, and waits for those that are needed, and for the others for a moment.
    async fn ask(
        &self,
        plan: &Plan,
        tenant: &TenantId,
        batch: &Arc<WriteBatch>,
        judged_at: Timestamp,
    ) -> Words {
        let mut question = WriteBatch::clone(batch);
        question.ask(true);
        let question = Arc::new(question);
        let current = &plan.current;
        let (replicas, needed) = match &current.before {
            Some(before) => (before.rings.replication_factor(), before.needed),
            None => (current.rings.replication_factor(), current.needed),
        };
        // Of those who have what was acknowledged one is among them. Who asks for fewer copies than that has chosen to go on.
        let needed = (replicas + 1).saturating_sub(needed).clamp(1, needed.max(1)) as u8;
        let mut words = Words::new(batch.verdicts());
        let mut answers: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        for share in &plan.shares {
            let target = &current.targets[usize::from(share.endpoint)];
            let asked = match target {
                Target::Local => true,
                Target::Peer(peer) => peer.is_ours(),
            };
            if !asked {
                continue;
            }
            each(batch, share, |sample, counts| words.ask(sample, if counts { needed } else { 0 }));
            let call = WriteCall {
                tenant: tenant.clone(),
                batch: Arc::clone(&question),
                rows: share.rows.clone(),
                replica: 1,
                judged_at,
                ring_epoch: ANY_EPOCH,
            };
            let answer = async move {
                match target {
                    Target::Peer(peer) => (share, false, peer.ask(call).await),
                    Target::Local => (share, true, self.local().take_hint(call).await.ok()),
                }
            };
            answers.push(answer.boxed());
        }
        let began = Instant::now();
        loop {
            let until = began + if words.suffice() { GRACE } else { self.timeout() };
            let Ok(Some((share, by_index, verdicts))) = tokio::time::timeout_at(until, answers.next()).await
            else {
                return words;
            };
            let Some(verdicts) = verdicts else { continue };
            let mut next = 0;
            each(batch, share, |sample, counts| {
                let at = if by_index { sample } else { next };
                next += 1;
                words.hear(sample, counts, verdicts.get(at).copied().unwrap_or(Verdict::Unavailable));
            });
        }
    }
}

/// The samples of a share in their order, and whether its replica is one of the ring that is, or that is being left.
fn each(batch: &WriteBatch, share: &crate::route::Share, mut see: impl FnMut(usize, bool)) {
    for (at, row) in share.rows.iter().enumerate() {
        let Some(series) = batch.series().get(*row as usize) else { continue };
        let counts = share.sides.get(at).is_none_or(|sides| *sides != Sides::NEW);
        batch.verdicts_of(series).into_iter().flatten().for_each(|sample| see(sample, counts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APART: Verdict = Verdict::Stored;
    const BESIDE: Verdict = Verdict::Duplicate;

    /// Whether words of three replicas, of which two are needed, suffice, and whether the sample is stored.
    fn words(said: &[Verdict]) -> (bool, bool) {
        let mut words = Words::new(1);
        (0..3).for_each(|_| words.ask(0, 2));
        said.iter().for_each(|verdict| words.hear(0, true, *verdict));
        (words.suffice(), !words.beside[0])
    }

    #[test]
    fn one_that_has_another_is_enough_and_one_that_has_none_is_not() {
        assert_eq!(words(&[BESIDE]), (true, false));
        assert_eq!(words(&[APART, APART, BESIDE]), (true, false));
        assert_eq!(words(&[APART]), (false, true));
        assert_eq!(words(&[APART, Verdict::Unavailable]), (false, true));
        assert_eq!(words(&[APART, Verdict::Unavailable, APART]), (true, true));
    }

    #[test]
    fn who_is_not_asked_is_not_needed_and_who_is_new_does_not_count() {
        let mut words = Words::new(2);
        words.ask(0, 2);
        words.ask(0, 0);
        assert!(!words.suffice());
        words.hear(0, false, APART);
        assert!(!words.suffice());
        words.hear(0, true, APART);
        assert!(words.suffice(), "the second has nobody to ask");
        words.hear(1, false, BESIDE);
        assert_eq!(words.beside, [false, true]);
    }
}
