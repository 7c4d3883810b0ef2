//! What travels with one query: its cancellation, its deadline and its byte budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use model::Kind;

use crate::{Error, PartialResponse};

/// Everything an evaluation hands down to those who read for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    pub cancel: Cancel,
    pub budget: Budget,
    pub partial: PartialResponse,
}

impl Context {
    /// No deadline, no limit, incomplete answers are errors: for tests and internal reads.
    pub fn background() -> Context {
        Context { cancel: Cancel::new(None), budget: Budget::unlimited(), partial: PartialResponse::Abort }
    }
}

/// A flag that ends an evaluation, raised by a caller who left or by the deadline.
#[derive(Clone, Debug)]
pub struct Cancel {
    raised: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Cancel {
    pub fn new(deadline: Option<Instant>) -> Cancel {
        Cancel { raised: Arc::default(), deadline }
    }

    /// Ends every evaluation that holds a clone.
    pub fn raise(&self) {
        self.raised.store(true, Relaxed);
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub fn is_raised(&self) -> bool {
        self.raised.load(Relaxed)
    }

    /// To be called once per morsel of work, at most a millisecond apart. `now` is the caller's monotonic clock.
    pub fn check(&self, now: Instant) -> Result<(), Error> {
        if self.is_raised() {
            return Err(Error::new(Kind::Refused, "query was canceled"));
        }
        match self.deadline {
            Some(deadline) if now >= deadline => Err(Error::new(Kind::Unavailable, "query timed out")),
            _ => Ok(()),
        }
    }
}

/// Bytes that one query, and all queries of the process together, may hold.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<BudgetInner>,
}

#[derive(Debug)]
struct BudgetInner {
    name: &'static str,
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    parent: Option<Budget>,
}

impl Budget {
    /// A budget of `limit` bytes; `name` appears in the refusal, as the operator knows the setting.
    pub fn new(name: &'static str, limit: u64) -> Budget {
        Budget::build(name, limit, None)
    }

    pub fn unlimited() -> Budget {
        Budget::build("unlimited", u64::MAX, None)
    }

    /// A budget of its own that also draws on this one.
    pub fn child(&self, name: &'static str, limit: u64) -> Budget {
        Budget::build(name, limit, Some(self.clone()))
    }

    fn build(name: &'static str, limit: u64, parent: Option<Budget>) -> Budget {
        let inner = BudgetInner { name, limit, used: AtomicU64::new(0), peak: AtomicU64::new(0), parent };
        Budget { inner: Arc::new(inner) }
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.inner.used.load(Relaxed)
    }

    /// Most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.inner.peak.load(Relaxed)
    }

    pub fn limit(&self) -> u64 {
        self.inner.limit
    }

    /// Takes `bytes` until the reservation is dropped, or says which limit stands in the way, with the figures.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        self.take(bytes)?;
        Ok(Reservation { budget: self.clone(), bytes })
    }

    fn take(&self, bytes: u64) -> Result<(), Error> {
        let inner = &*self.inner;
        let before = inner.used.fetch_add(bytes, Relaxed);
        let after = before.saturating_add(bytes);
        if after > inner.limit {
            inner.used.fetch_sub(bytes, Relaxed);
            return Err(Error::new(
                Kind::Exhausted,
                format!(
                    "query needs more memory than {} allows: {} bytes in use, {} more wanted, limit {} bytes; \
                     select fewer series or a shorter range, or raise the limit",
                    inner.name, before, bytes, inner.limit
                ),
            ));
        }
        if let Some(parent) = &inner.parent
            && let Err(error) = parent.take(bytes)
        {
            inner.used.fetch_sub(bytes, Relaxed);
            return Err(error);
        }
        inner.peak.fetch_max(after, Relaxed);
        Ok(())
    }

    fn give(&self, bytes: u64) {
        self.inner.used.fetch_sub(bytes, Relaxed);
        if let Some(parent) = &self.inner.parent {
            parent.give(bytes);
        }
    }
}

/// Bytes held in a budget; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds `more` bytes in addition.
    pub fn grow(&mut self, more: u64) -> Result<(), Error> {
        self.budget.take(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Holds `fewer` bytes less, or nothing where it held fewer.
    pub fn shrink(&mut self, fewer: u64) {
        let fewer = fewer.min(self.bytes);
        self.budget.give(fewer);
        self.bytes -= fewer;
    }

    /// Holds `bytes` from now on, more or less than before.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Error> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more)?,
            None => self.shrink(self.bytes - bytes),
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_draws_on_parent_and_gives_back() {
        let process = Budget::new("--query.max-memory-total", 100);
        let query = process.child("--query.max-memory", 80);
        let mut held = query.reserve(50).unwrap();
        assert!(query.reserve(40).unwrap_err().message.contains("--query.max-memory allows"));
        let other = process.child("--query.max-memory", 80);
        assert!(other.reserve(60).unwrap_err().message.contains("--query.max-memory-total"));
        assert_eq!(other.used(), 0);
        held.grow(30).unwrap();
        assert_eq!((process.used(), query.peak()), (80, 80));
        held.resize(10).unwrap();
        assert_eq!((process.used(), query.used(), held.bytes()), (10, 10, 10));
        assert!(held.resize(81).is_err());
        held.resize(80).unwrap();
        assert_eq!((process.used(), query.peak()), (80, 80));
        held.shrink(30);
        assert_eq!((process.used(), query.used(), held.bytes()), (50, 50, 50));
        held.shrink(51);
        assert_eq!((process.used(), query.used(), held.bytes()), (0, 0, 0));
        held.resize(80).unwrap();
        drop(held);
        assert_eq!((process.used(), query.used()), (0, 0));
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn cancel_and_deadline() {
        let now = Instant::now();
        let cancel = Cancel::new(Some(now + std::time::Duration::from_secs(1)));
        assert!(cancel.check(now).is_ok());
        assert_eq!(
            cancel.check(now + std::time::Duration::from_secs(2)).unwrap_err().kind,
            Kind::Unavailable
        );
        cancel.clone().raise();
        assert_eq!(cancel.check(now).unwrap_err().kind, Kind::Refused);
    }
}
