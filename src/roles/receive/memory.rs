//! The node's memory as a budget: measured every second, and writes are refused for a while before it runs out.
//!
//! First those that would make new series, since they are what makes memory grow, then all. Both are answered 503
//! with Retry-After: senders keep what they have and send it again. Reads go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use runtime::Shutdown;
use tsdb::Pressure;

use crate::Error;
use crate::status::Denial;
use crate::write::Writer;

const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Percent of the limit from which on new series, and all writes, are refused.
const NEW_SERIES_FROM: u64 = 90;
const ALL_FROM: u64 = 95;
/// Percent below a mark at which it counts as left.
const SLACK: u64 = 2;

/// Says how many bytes the process holds.
pub type Meter = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// The budget, and how much of it is used.
pub struct Memory {
    /// None: nobody knows what there is, and nothing is refused.
    limit: Option<u64>,
    meter: Meter,
    used: AtomicU64,
    level: AtomicU8,
}

/// Which writes are refused at `used` of `limit` bytes; `before` stays until use is well below its mark.
pub fn judge(used: u64, limit: u64, before: Pressure) -> Pressure {
    let percent = used.saturating_mul(100) / limit.max(1);
    let from = |mark: u64, held: bool| if held { mark - SLACK } else { mark };
    if percent >= from(ALL_FROM, before == Pressure::All) {
        Pressure::All
    } else if percent >= from(NEW_SERIES_FROM, before != Pressure::None) {
        Pressure::NewSeries
    } else {
        Pressure::None
    }
}

impl Memory {
    /// `limit`: bytes, 0 for what the machine or the container gives.
    pub fn new(limit: u64) -> Memory {
        let limit = if limit > 0 { Some(limit) } else { telemetry::memory_limit() };
        Memory::with(limit, Arc::new(telemetry::memory_used))
    }

    pub fn with(limit: Option<u64>, meter: Meter) -> Memory {
        Memory { limit, meter, used: AtomicU64::new(0), level: AtomicU8::new(0) }
    }

    fn pressure(&self) -> Pressure {
        match self.level.load(Relaxed) {
            0 => Pressure::None,
            1 => Pressure::NewSeries,
            _ => Pressure::All,
        }
    }

    /// Measures once and tells the engine.
    pub fn measure(&self, writer: &Writer) {
        let (Some(limit), Some(used)) = (self.limit, (self.meter)()) else { return };
        let before = self.pressure();
        let now = judge(used, limit, before);
        self.used.store(used, Relaxed);
        metrics::gauge!("tributary_receive_memory_used_bytes").set(used as f64);
        metrics::gauge!("tributary_receive_memory_limit_bytes").set(limit as f64);
        metrics::gauge!("tributary_receive_memory_pressure").set(f64::from(now as u8));
        if now != before {
            tracing::warn!(
                used, limit, refused = ?now,
                "memory pressure has changed: writes of what is named are answered 503 until it is over"
            );
        }
        self.level.store(now as u8, Relaxed);
        if let Some(engine) = writer.local().engine() {
            engine.set_pressure(now);
        }
    }

    /// Whether a write may be read at all.
    pub fn check(&self) -> Result<(), Denial> {
        if self.pressure() != Pressure::All {
            return Ok(());
        }
        metrics::counter!("tributary_receive_memory_refused_total").increment(1);
        Err(Denial::Busy(format!(
            "this receiver is short of memory: {} of {} bytes are used; send the request again",
            self.used.load(Relaxed),
            self.limit.unwrap_or(0)
        )))
    }

    /// Measures until the shutdown.
    pub async fn run(self: Arc<Memory>, writer: Arc<Writer>, until: Shutdown) -> Result<(), Error> {
        loop {
            self.measure(&writer);
            tokio::select! {
                biased;
                () = until.wait() => return Ok(()),
                () = tokio::time::sleep(MEASURE_EVERY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_series_are_refused_first_and_each_mark_is_left_with_slack() {
        let mut level = Pressure::None;
        for (used, wanted) in [
            (0, Pressure::None),
            (89, Pressure::None),
            (90, Pressure::NewSeries),
            (89, Pressure::NewSeries),
            (94, Pressure::NewSeries),
            (95, Pressure::All),
            (93, Pressure::All),
            (92, Pressure::NewSeries),
            (88, Pressure::NewSeries),
            (87, Pressure::None),
            (200, Pressure::All),
            (10, Pressure::None),
        ] {
            level = judge(used, 100, level);
            assert_eq!(level, wanted, "{used}");
        }
        assert_eq!(judge(5, 0, Pressure::None), Pressure::All);
    }

    #[test]
    fn a_write_is_turned_away_only_under_the_last_pressure() {
        let memory = Memory::with(Some(1000), Arc::new(|| Some(0)));
        assert!(memory.check().is_ok());
        memory.level.store(Pressure::NewSeries as u8, Relaxed);
        assert!(memory.check().is_ok());
        memory.level.store(Pressure::All as u8, Relaxed);
        memory.used.store(960, Relaxed);
        assert!(matches!(memory.check(), Err(Denial::Busy(text)) if text.contains("960 of 1000")));
    }
}
