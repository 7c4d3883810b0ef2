//! The one table from what became of a write to an HTTP status, the same for every path and every sender.
//!
//! 204 all taken; 400 some refused for good, the rest taken; 503 with Retry-After where a retry can help; 429
//! with Retry-After only where nothing was taken because the tenant passed its own rate. Never 409, and
//! never a 5xx for what a retry cannot mend: Prometheus drops what gets a 4xx and repeats what gets a 5xx.

use std::fmt::Write as _;

use storage::{Refusal, SampleKind};

use crate::quorum::Outcome;

/// What became of the samples of one request.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Floats and histograms.
    pub accepted: u64,
    /// Those of them that were not stored, because the other replica of an HA pair is listened to.
    pub deduplicated: u64,
    /// Those of them that are histograms.
    pub histograms: u64,
    /// Exemplars that were taken. Those that were not are no reason to send a request again.
    pub exemplars: u64,
    pub retryable: u64,
    /// By the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// The first sample that was refused.
    pub example: Option<Example>,
    /// Why samples are retryable, in words, if somebody said so.
    pub trouble: Option<String>,
}

/// A refused sample, named so that its sender finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// As PromQL writes it, or as much of it as could be read.
    pub series: String,
    /// Milliseconds; none where the series as a whole is at fault.
    pub timestamp: Option<i64>,
    pub reason: Refusal,
    /// More precise than the reason, where more is known.
    pub detail: Option<String>,
}

impl Summary {
    /// Counts one sample. Exemplars that are refused count where the sender is `told_of_exemplars`.
    pub fn count(&mut self, kind: SampleKind, outcome: Outcome, told_of_exemplars: bool) {
        match (outcome, kind) {
            (Outcome::Accepted, SampleKind::Exemplar) => self.exemplars += 1,
            (Outcome::Accepted, _) => {
                self.accepted += 1;
                self.histograms += u64::from(kind == SampleKind::Histogram);
            }
            (Outcome::Refused(reason), SampleKind::Exemplar) => {
                self.refuse(reason, u64::from(told_of_exemplars && is_fault(reason)))
            }
            (Outcome::Retryable, SampleKind::Exemplar) => {}
            (Outcome::Retryable, _) => self.retryable += 1,
            (Outcome::Refused(reason), _) => self.refuse(reason, 1),
        }
    }

    pub fn refuse(&mut self, reason: Refusal, samples: u64) {
        if let Some(at) = Refusal::ALL.iter().position(|r| *r == reason) {
            self.refused[at] += samples;
        }
    }

    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// Whether an exemplar that is refused for this reason is the sender's fault: that a node keeps none is not.
pub fn is_fault(reason: Refusal) -> bool {
    reason != Refusal::Unsupported
}

/// Why a request was turned away before any of its samples was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request itself is wrong.
    Invalid(String),
    /// Larger than a limit allows.
    TooLarge(String),
    /// Of a type or encoding that is not taken.
    Unsupported(String),
    /// Nobody known sent it.
    Unauthorized(String),
    /// Sent for a tenant that its sender may not write for.
    Forbidden(String),
    /// The tenant passed its own rate; nothing was taken.
    /// After so many seconds its rate allows it again.
    RateLimited(String, u32),
    /// The node cannot take it now: starting, stopping, out of memory or disk.
    Busy(String),
}

/// An answer: status, seconds after which to try again, and a text for humans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<u32>,
    pub body: String,
}

/// Seconds until a retry, where one can help. Prometheus waits that long instead of its own back-off.
const RETRY_AFTER: u32 = 1;

/// The answer to a request whose samples were judged.
pub fn of_summary(summary: &Summary) -> Reply {
    let refused = summary.refused_total();
    if summary.retryable > 0 {
        let mut body = format!(
            "{} of {} samples could not be stored by enough receivers for now; send the request again",
            summary.retryable,
            summary.accepted + summary.retryable + refused
        );
        if let Some(trouble) = &summary.trouble {
            let _ = write!(body, ": {trouble}");
        }
        body.push('\n');
        return Reply { status: 503, retry_after: Some(RETRY_AFTER), body };
    }
    if refused > 0 {
        return Reply { status: 400, retry_after: None, body: refusals(summary, refused) };
    }
    Reply { status: 204, retry_after: None, body: String::new() }
}

fn refusals(summary: &Summary, refused: u64) -> String {
    let mut body =
        format!("{refused} of {} samples refused, the others are stored", summary.accepted + refused);
    if summary.accepted == 0 {
        body = format!("all {refused} samples refused");
    }
    let counts = Refusal::ALL.iter().zip(summary.refused).filter(|(_, count)| *count > 0);
    for (at, (reason, count)) in counts.enumerate() {
        let _ = write!(body, "{} {}: {count}", if at == 0 { ":" } else { "," }, reason.reason());
    }
    if let Some(example) = &summary.example {
        let _ = write!(body, "; first: {}", example.series);
        if let Some(timestamp) = example.timestamp {
            let _ = write!(body, " at {timestamp}");
        }
        let _ = write!(body, ": {}", example.detail.as_deref().unwrap_or(example.reason.explain()));
    }
    body.push('\n');
    body
}

/// The answer to a request that was turned away whole.
pub fn of_denial(denial: &Denial) -> Reply {
    let (status, retry_after, text) = match denial {
        Denial::Invalid(text) => (400, None, text),
        Denial::Unauthorized(text) => (401, None, text),
        Denial::Forbidden(text) => (403, None, text),
        Denial::TooLarge(text) => (413, None, text),
        Denial::Unsupported(text) => (415, None, text),
        Denial::RateLimited(text, after) => (429, Some((*after).max(RETRY_AFTER)), text),
        Denial::Busy(text) => (503, Some(RETRY_AFTER), text),
    };
    Reply { status, retry_after, body: format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(accepted: u64, retryable: u64, refused: &[(Refusal, u64)]) -> Summary {
        let mut summary = Summary { accepted, retryable, ..Summary::default() };
        for (reason, count) in refused {
            summary.refuse(*reason, *count);
        }
        summary
    }

    #[test]
    fn the_table() {
        let refused = [(Refusal::Conflict, 1)];
        for (accepted, retryable, refused, status) in [
            (0, 0, &[][..], 204),
            (5, 0, &[], 204),
            (5, 0, &refused, 400),
            (0, 0, &refused, 400),
            (5, 1, &[], 503),
            (0, 1, &refused, 503),
            (5, 1, &refused, 503),
        ] {
            let reply = of_summary(&summary(accepted, retryable, refused));
            assert_eq!(reply.status, status);
            assert_eq!(reply.retry_after.is_some(), status == 503);
            assert_ne!(reply.status, 409);
        }
    }

    #[test]
    fn a_refusal_says_how_many_why_and_which() {
        let mut summary = summary(7, 0, &[(Refusal::TooOld, 2), (Refusal::InvalidLabels, 1)]);
        summary.example = Some(Example {
            series: "up{job=\"a\"}".to_owned(),
            timestamp: Some(1000),
            reason: Refusal::TooOld,
            detail: None,
        });
        let body = of_summary(&summary).body;
        assert_eq!(
            body,
            "3 of 10 samples refused, the others are stored: too_old_sample: 2, invalid_labels: 1; first: \
             up{job=\"a\"} at 1000: too old sample: older than the out-of-order window and not in order for \
             its series\n"
        );
    }

    #[test]
    fn denials() {
        let text = || "x".to_owned();
        let status = |denial| of_denial(&denial).status;
        assert_eq!(status(Denial::Invalid(text())), 400);
        assert_eq!(status(Denial::Unauthorized(text())), 401);
        assert_eq!(status(Denial::Forbidden(text())), 403);
        assert_eq!(status(Denial::TooLarge(text())), 413);
        assert_eq!(status(Denial::Unsupported(text())), 415);
        assert_eq!(of_denial(&Denial::RateLimited(text(), 3)).retry_after, Some(3));
        assert_eq!(
            of_denial(&Denial::Busy(text())),
            Reply { status: 503, retry_after: Some(1), body: "x\n".into() }
        );
    }
}
