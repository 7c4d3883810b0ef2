//! Whose turn it is: a fixed number at once, and of those who wait one of each party after the other.
//!
//! A party (a tenant) that asks a thousand questions makes its own wait, not those of others. Within a party the
//! order is that of arrival. Whoever stops waiting loses the place, and a place that was just given passes on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A gate. Clones are the same gate.
#[derive(Clone)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

struct State {
    free: usize,
    /// Parties with somebody waiting, the next one first.
    order: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<Turn>>>,
}

/// A place; passed on when it is dropped.
pub struct Turn {
    gate: Option<Turns>,
}

impl Turns {
    pub fn new(at_once: usize) -> Turns {
        let state = State { free: at_once.max(1), order: VecDeque::new(), waiting: HashMap::new() };
        Turns { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a place.
    pub async fn take(&self, party: &str) -> Turn {
        let waiting = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Turn { gate: Some(self.clone()) };
            }
            let (sender, receiver) = oneshot::channel();
            let party: Arc<str> = party.into();
            let queue = state.waiting.entry(party.clone()).or_default();
            queue.push_back(sender);
            if queue.len() == 1 {
                state.order.push_back(party);
            }
            receiver
        };
        match waiting.await {
            Ok(turn) => turn,
            // A sender is only dropped with a turn in it, or with the gate: then nobody counts any more.
            Err(_) => Turn { gate: None },
        }
    }

    fn pass_on(&self) {
        let mut turn = Turn { gate: Some(self.clone()) };
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.next();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(sender) = next else {
                turn.gate = None;
                return;
            };
            match sender.send(turn) {
                Ok(()) => return,
                // The one whose turn it was has left.
                Err(back) => turn = back,
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        loop {
            let party = self.order.pop_front()?;
            let Some(queue) = self.waiting.get_mut(&party) else { continue };
            let next = queue.pop_front();
            if queue.is_empty() {
                self.waiting.remove(&party);
            } else {
                self.order.push_back(party);
            }
            if next.is_some() {
                return next;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parties_take_turns_and_leavers_lose_their_place() {
        let gate = Turns::new(1);
        let first = gate.take("busy").await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (at, party) in ["busy", "busy", "busy", "small", "gone", "small"].into_iter().enumerate() {
            let (gate, seen) = (gate.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = gate.take(party).await;
                seen.lock().push((party, at));
            }));
            tokio::task::yield_now().await;
        }
        tasks[4].abort();
        tokio::task::yield_now().await;
        drop(first);
        for (at, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.is_ok(), at != 4);
        }
        let order = served.lock().clone();
        assert_eq!(order, [("busy", 0), ("small", 3), ("busy", 1), ("small", 5), ("busy", 2)]);
        // Every place is back.
        assert_eq!(gate.state.lock().free, 1);
        assert!(gate.state.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_place_given_to_one_who_left_passes_on() {
        let gate = Turns::new(1);
        let first = gate.take("a").await;
        let mut leaving = Box::pin(gate.take("a"));
        assert!(futures::poll!(&mut leaving).is_pending());
        drop(first);
        // The turn lies in the channel of somebody who never looks again.
        drop(leaving);
        let again = tokio::time::timeout(std::time::Duration::from_secs(5), gate.take("b")).await;
        assert!(again.is_ok());
    }
}
