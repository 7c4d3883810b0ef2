//! How fast each tenant may write through this node: a bucket of ten seconds' worth of samples, and one of bytes.

use std::collections::HashMap;
use std::time::Instant;

use model::TenantId;
use parking_lot::Mutex;

use crate::status::Denial;

/// Seconds of its rate that a tenant may save up and spend at once.
const BURST_SECONDS: f64 = 10.0;
/// Tenants remembered; beyond it those with full buckets, who have nothing to lose by it, are forgotten.
const REMEMBERED: usize = 10_000;

/// What is counted, and which settings say how much of it.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Samples,
    /// As they are sent.
    Bytes,
}

impl Of {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Of::Samples => {
                ("samples", "--receive.tenant-samples-per-second, or samples_per_second_limit of the limits")
            }
            Of::Bytes => ("bytes", "bytes_per_second_limit of the limits"),
        }
    }
}

/// One bucket per tenant.
pub struct Rates {
    of: Of,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    held: f64,
    at: Instant,
    rate: f64,
}

impl Bucket {
    fn filled(&self, rate: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.held + passed * rate).min(rate * BURST_SECONDS)
    }
}

impl Rates {
    pub fn new(of: Of) -> Rates {
        Rates { of, buckets: Mutex::default() }
    }

    /// Takes `amount` out of the bucket of a tenant with `rate` per second (0: no limit), or says that it is empty and for
    /// how long. A request larger than the bucket passes when the bucket is full, and is paid off afterwards.
    pub fn take(&self, tenant: &TenantId, rate: u64, amount: u64, now: Instant) -> Result<(), Denial> {
        if rate == 0 || amount == 0 {
            return Ok(());
        }
        let limit = rate;
        let rate = rate as f64;
        let mut buckets = self.buckets.lock();
        if buckets.len() >= REMEMBERED && !buckets.contains_key(tenant) {
            buckets.retain(|_, bucket| bucket.filled(bucket.rate, now) < bucket.rate * BURST_SECONDS);
        }
        let full = Bucket { held: rate * BURST_SECONDS, at: now, rate };
        let bucket = buckets.entry(tenant.clone()).or_insert(full);
        let held = bucket.filled(rate, now);
        let wanted = (amount as f64).min(rate * BURST_SECONDS);
        if held < wanted {
            let (what, where_) = self.of.words();
            let text = format!(
                "tenant {tenant} writes more than {limit} {what} per second ({where_}); nothing of this request was taken"
            );
            metrics::counter!("tributary_receive_rate_limited_requests_total", "of" => what).increment(1);
            return Err(Denial::RateLimited(text, ((wanted - held) / rate).ceil() as u32));
        }
        *bucket = Bucket { held: held - amount as f64, at: now, rate };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::{Clock, SystemClock};

    use super::*;

    #[test]
    fn a_burst_passes_and_the_average_holds() {
        let (rates, now) = (Rates::new(Of::Samples), SystemClock.monotonic());
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        assert!(rates.take(&a, 100, 1000, now).is_ok());
        assert!(
            matches!(rates.take(&a, 100, 450, now), Err(Denial::RateLimited(text, 5)) if text.contains("100"))
        );
        assert!(rates.take(&b, 100, 1, now).is_ok(), "tenants do not share");
        assert!(rates.take(&a, 100, 100, now + Duration::from_secs(1)).is_ok());
        assert!(rates.take(&a, 100, 1, now + Duration::from_secs(1)).is_err());
        // More than a bucket holds passes once it is full.
        assert!(rates.take(&a, 100, 5000, now + Duration::from_secs(60)).is_ok());
        assert!(rates.take(&a, 100, 1, now + Duration::from_secs(90)).is_err());
        assert!(rates.take(&a, 0, u64::MAX, now).is_ok());
    }
}
