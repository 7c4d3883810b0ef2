//! A value that tasks wait for; those who wait are woken in the order in which they came.
//!
//! Tokio's own watch channel wakes in an order of chance, which no seed decides: a run of the simulation could not be
//! repeated. Here the order is that of arrival.

use std::fmt;

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The value.
pub struct Signal<T> {
    value: RwLock<T>,
    changed: Notify,
}

impl<T> Signal<T> {
    pub fn new(value: T) -> Signal<T> {
        Signal { value: RwLock::new(value), changed: Notify::new() }
    }

    /// The value as it is now. Not to be held for long, nor over an await.
    pub fn get(&self) -> RwLockReadGuard<'_, T> {
        self.value.read()
    }

    /// Changes the value and wakes all who wait.
    pub fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.write());
        self.changed.notify_waiters();
    }

    /// Waits until `look` finds something in the value.
    pub async fn until<R>(&self, mut look: impl FnMut(&T) -> Option<R>) -> R {
        loop {
            // Hears of every change from here on, whether it is polled or not.
            let changed = self.changed.notified();
            let found = look(&self.value.read());
            match found {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&*self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_hear_of_a_change_in_the_order_in_which_they_came() {
        let signal = Arc::new(Signal::new(0));
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let (signal, order) = (Arc::clone(&signal), Arc::clone(&order));
                tokio::spawn(async move {
                    let seen = signal.until(|value| (*value > 1).then_some(*value)).await;
                    order.lock().push(n);
                    seen
                })
            })
            .collect();
        tokio::task::yield_now().await;
        for value in [1, 2] {
            signal.change(|now| *now = value);
            tokio::task::yield_now().await;
        }
        for one in waiting {
            assert_eq!(one.await.unwrap(), 2);
        }
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
        assert_eq!(signal.until(|value| Some(*value)).await, 2);
    }
}
