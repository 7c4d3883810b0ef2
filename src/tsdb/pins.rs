//! Readers of the head that are still on their way: what they may yet read is not dropped before they are done.
//!
//! A reader pins the head before it looks at the list of blocks; a cut lists its block, then lets those go who pinned
//! before, then drops. Whoever is too slow is told so at the next look instead of missing samples.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The readers of one tenant's head, those since the last cut together.
#[derive(Default)]
pub(crate) struct Pins {
    current: Mutex<Arc<Readers>>,
}

#[derive(Default)]
struct Readers {
    count: Mutex<usize>,
    done: Condvar,
    /// What they read may be gone.
    too_late: AtomicBool,
}

/// One reader; lets go on drop.
pub(crate) struct Pin(Arc<Readers>);

impl Pins {
    pub(crate) fn pin(&self) -> Pin {
        let current = self.current.lock();
        *current.count.lock() += 1;
        Pin(current.clone())
    }

    /// Waits for those who have pinned until now, but not longer than `most`; then what they read may be dropped.
    /// Gives how many were left behind.
    pub(crate) fn release(&self, most: Duration) -> usize {
        let before = std::mem::take(&mut *self.current.lock());
        let mut count = before.count.lock();
        if *count > 0 {
            before.done.wait_while_for(&mut count, |count| *count > 0, most);
        }
        before.too_late.store(true, Relaxed);
        *count
    }
}

impl Pin {
    /// Whether samples may have been dropped since. To be asked under the lock of the shard that is read: who drops
    /// takes it after this was set.
    pub(crate) fn is_too_late(&self) -> bool {
        self.0.too_late.load(Relaxed)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_waits_for_those_before_it_only() {
        let pins = Arc::new(Pins::default());
        assert_eq!(pins.release(Duration::from_secs(60)), 0);
        let before = pins.pin();
        let cut = {
            let pins = pins.clone();
            std::thread::spawn(move || pins.release(Duration::from_secs(60)))
        };
        // Whoever comes once the cut waits does not make it wait longer.
        while Arc::ptr_eq(&before.0, &pins.pin().0) {
            std::thread::yield_now();
        }
        let after = pins.pin();
        assert!(!before.is_too_late());
        drop(before);
        assert_eq!(cut.join().unwrap(), 0);
        assert!(!after.is_too_late());
        assert_eq!(pins.release(Duration::ZERO), 1);
        assert!(after.is_too_late());
        assert!(!pins.pin().is_too_late());
    }
}
