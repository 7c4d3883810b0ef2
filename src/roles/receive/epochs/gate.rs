//! Which ring epochs writes are taken of: the promise of this node, raised only, and who is still being let in by the one
//! before.
//!
//! A write holds a [`Pass`] until its samples are in the log. Once an older promise has no pass left, nothing of the epochs
//! that it let in comes any more: what is in the head then is all there is of them.

use std::sync::Arc;
use std::time::Duration;

use agreed::EpochNumber;
use arc_swap::ArcSwap;
use rpc::{ANY_EPOCH, StaleEpoch};

/// How often it is looked whether the last pass is gone.
const LOOK: Duration = Duration::from_millis(5);

/// What is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The ring is a file: everything.
    None,
    /// This node has not taken its place in the ring yet: nothing that names an epoch.
    Unplaced,
    /// Epochs from this one on; who comes with an earlier one is told what that one is. Who names none has placed by a ring of its
    /// own, which may be years old: that is taken only as long as this node is a member.
    From { epoch: EpochNumber, told: Vec<u8>, member: bool },
}

/// Held by a write that was let in until it is in the log.
pub type Pass = Arc<Promise>;

/// Why a write is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    Stale(StaleEpoch),
    Unplaced,
    /// This node is not in the agreed ring, of which the write knows nothing.
    NoMember,
}

impl Closed {
    /// In words, for who is to come again.
    pub fn why(&self) -> &'static str {
        match self {
            Closed::Stale(_) => "the write's ring epoch is over",
            Closed::Unplaced => "this receiver has not taken its place in the ring yet",
            Closed::NoMember => {
                "this receiver is not in the ring that was agreed on, and may be stopped and deleted; whoever sends to it goes by a \
                 ring of its own: start it with --control.voters, or bring its ring file up to date"
            }
        }
    }
}

/// The promise in force.
pub struct Gate {
    promise: ArcSwap<Promise>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { promise: ArcSwap::from_pointee(Promise::None) }
    }
}

impl Gate {
    /// Lets a write of an epoch in; 0: of Thanos, or by a ring from a file; [`ANY_EPOCH`]: whatever was promised.
    pub fn pass(&self, epoch: EpochNumber) -> Result<Pass, Closed> {
        let promise = self.promise.load_full();
        match &*promise {
            Promise::None => Ok(promise),
            _ if epoch == ANY_EPOCH => Ok(promise),
            Promise::From { member: false, .. } if epoch == 0 => Err(Closed::NoMember),
            _ if epoch == 0 => Ok(promise),
            Promise::Unplaced => Err(Closed::Unplaced),
            Promise::From { epoch: least, .. } if epoch >= *least => Ok(promise),
            Promise::From { epoch, told, .. } => {
                Err(Closed::Stale(StaleEpoch { epoch: *epoch, ring: told.clone() }))
            }
        }
    }

    /// Another promise from now on; the one before, which may have passes left.
    pub fn raise(&self, promise: Promise) -> Pass {
        // Whoever has read the one before holds it by the time that this returns.
        self.promise.swap(Arc::new(promise))
    }

    /// The least epoch that is let in; 0 where none is refused.
    pub fn least(&self) -> EpochNumber {
        match &**self.promise.load() {
            Promise::From { epoch, .. } => *epoch,
            Promise::None | Promise::Unplaced => 0,
        }
    }
}

/// Returns once nobody else holds the pass.
pub async fn returned(pass: &Pass) {
    while Arc::strong_count(pass) > 1 {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

    use super::*;

    fn from(epoch: EpochNumber) -> Promise {
        Promise::From { epoch, told: vec![epoch as u8], member: true }
    }

    #[test]
    fn a_ring_of_ones_own_counts_only_for_members_and_hints_are_taken_by_all() {
        let gate = Gate::default();
        for (promise, of_none) in [
            (Promise::None, Ok(())),
            (Promise::Unplaced, Ok(())),
            (from(3), Ok(())),
            (Promise::From { epoch: 3, told: Vec::new(), member: false }, Err(Closed::NoMember)),
        ] {
            gate.raise(promise);
            assert_eq!(gate.pass(0).map(drop), of_none);
            assert!(gate.pass(ANY_EPOCH).is_ok());
        }
    }

    #[tokio::test]
    async fn writes_of_epochs_that_are_left_are_told_and_those_under_way_are_waited_for() {
        let gate = Gate::default();
        assert!(gate.pass(9).is_ok());
        gate.raise(Promise::Unplaced);
        assert_eq!(gate.pass(9), Err(Closed::Unplaced));
        assert!(gate.pass(0).is_ok());
        gate.raise(from(2));
        let under_way = gate.pass(2).unwrap();
        let before = gate.raise(from(3));
        let stale = StaleEpoch { epoch: 3, ring: vec![3] };
        assert_eq!((gate.pass(2), gate.least()), (Err(Closed::Stale(stale)), 3));
        assert!(gate.pass(0).is_ok() && gate.pass(3).is_ok() && gate.pass(4).is_ok());
        let waiting = tokio::spawn(async move { returned(&before).await });
        tokio::time::sleep(4 * LOOK).await;
        assert!(!waiting.is_finished());
        drop(under_way);
        waiting.await.unwrap();
    }

    /// However a write and a raise meet, the write is refused or waited for.
    #[test]
    fn nobody_slips_through_while_the_promise_is_raised() {
        const EPOCHS: usize = 300;
        let gate = Gate::default();
        gate.raise(from(1));
        let counters = || (0..=EPOCHS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let (begun, ended, stop) = (counters(), counters(), AtomicBool::new(false));
        let sealed: Vec<u64> = std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        let epoch = gate.least();
                        std::thread::yield_now();
                        let Ok(_pass) = gate.pass(epoch) else { continue };
                        begun[epoch as usize].fetch_add(1, SeqCst);
                        std::thread::yield_now();
                        ended[epoch as usize].fetch_add(1, SeqCst);
                    }
                });
            }
            let sealed = (2..=EPOCHS).map(|epoch| {
                // Somebody was let in by the one before.
                while begun[epoch - 1].load(SeqCst) == 0 {
                    std::thread::yield_now();
                }
                let before = gate.raise(from(epoch as u64));
                while Arc::strong_count(&before) > 1 {
                    std::thread::yield_now();
                }
                ended[epoch - 1].load(SeqCst)
            });
            let sealed = sealed.collect();
            stop.store(true, SeqCst);
            sealed
        });
        for (at, sealed) in sealed.into_iter().enumerate() {
            let last = begun[at + 1].load(SeqCst);
            assert_eq!(last, sealed, "of epoch {} came {last}, {sealed} before it was sealed", at + 1);
        }
    }
}
