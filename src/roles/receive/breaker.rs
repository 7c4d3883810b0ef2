//! Whether a peer is asked at all: judged by its errors, its slowness and its silence, one probe at a time afterwards.
//!
//! ```text
//! closed ── 3 errors in a row, 8 of 16 calls bad, or silence ──▶ open ── pause over ──▶ probing ── quick success ──▶ closed
//!                                                                 ▲──────────── anything else ──────┘
//! ```
//! A call is bad that fails or takes longer than `slow`. Silence is that calls are on their way and none ended for as long.
//! Pauses double and are jittered, so that doors do not come back all at once. Pure: times and chance are given.

use std::time::Duration;

use tokio::time::Instant;

/// When a peer is left alone, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub slow: Duration,
    pub first_pause: Duration,
    pub max_pause: Duration,
}

const ERRORS_IN_A_ROW: u32 = 3;
/// Bad calls of the last sixteen.
const BAD_CALLS: u32 = 8;

/// Why a peer is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Errors,
    Latency,
    Silence,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Errors => "errors",
            Cause::Latency => "latency",
            Cause::Silence => "silence",
        }
    }
}

/// May a call go out?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Go,
    /// It decides whether others may.
    Probe,
    /// Not for this long.
    Stop(Duration),
}

/// What a call is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Usual,
    Probe,
    /// Sent although the peer is left alone, because its write cannot succeed without it.
    Needed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Instant },
    Probing { since: Instant },
}

/// The state of one peer.
#[derive(Debug)]
pub struct Breaker {
    rules: Rules,
    phase: Phase,
    /// Pauses since it was last closed.
    pauses: u32,
    errors: u32,
    /// The newest call is the lowest bit; 1 is bad.
    history: u16,
    in_flight: u32,
    progress: Option<Instant>,
}

impl Breaker {
    pub fn new(rules: Rules) -> Breaker {
        Breaker {
            rules,
            phase: Phase::Closed,
            pauses: 0,
            errors: 0,
            history: 0,
            in_flight: 0,
            progress: None,
        }
    }

    /// 0 closed, 1 probing, 2 open.
    pub fn level(&self) -> u8 {
        match self.phase {
            Phase::Closed => 0,
            Phase::Probing { .. } => 1,
            Phase::Open { .. } => 2,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether a call would not be let through now.
    pub fn stops(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::Open { until } => now < until,
            Phase::Probing { since } => now < since + 2 * self.rules.slow,
        }
    }

    /// Asks for one call. A probe that is not ended within twice `slow` is taken for lost.
    pub fn pass(&mut self, now: Instant) -> Pass {
        match self.phase {
            Phase::Closed => Pass::Go,
            Phase::Open { until } if now < until => Pass::Stop(until - now),
            Phase::Probing { since } if now < since + 2 * self.rules.slow => {
                Pass::Stop((since + 2 * self.rules.slow - now).min(self.rules.first_pause))
            }
            Phase::Open { .. } | Phase::Probing { .. } => {
                self.phase = Phase::Probing { since: now };
                Pass::Probe
            }
        }
    }

    pub fn begin(&mut self, now: Instant) {
        if self.in_flight == 0 {
            self.progress = Some(now);
        }
        self.in_flight += 1;
    }

    /// A call has ended: with an answer after so long, or without. `chance` is from 0 to 1. Some where that opens it.
    pub fn end(&mut self, answer: Option<Duration>, role: Role, now: Instant, chance: f64) -> Option<Cause> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.progress = Some(now);
        let quick = answer.is_some_and(|took| took <= self.rules.slow);
        if quick && role != Role::Usual && self.phase != Phase::Closed {
            *self =
                Breaker { in_flight: self.in_flight, progress: self.progress, ..Breaker::new(self.rules) };
            return None;
        }
        if role == Role::Probe {
            let cause = if answer.is_some() { Cause::Latency } else { Cause::Errors };
            self.open(now, chance);
            return Some(cause);
        }
        if self.phase != Phase::Closed {
            return None;
        }
        self.errors = if answer.is_none() { self.errors + 1 } else { 0 };
        self.history = self.history << 1 | u16::from(!quick);
        let cause = if self.errors >= ERRORS_IN_A_ROW {
            Cause::Errors
        } else if self.history.count_ones() >= BAD_CALLS {
            Cause::Latency
        } else {
            return None;
        };
        self.open(now, chance);
        Some(cause)
    }

    /// Opens where calls are on their way and none has ended for too long.
    pub fn look(&mut self, now: Instant, chance: f64) -> Option<Cause> {
        let silent = self.in_flight > 0
            && self.progress.is_some_and(|at| now.saturating_duration_since(at) >= self.rules.slow);
        if self.phase != Phase::Closed || !silent {
            return None;
        }
        self.open(now, chance);
        Some(Cause::Silence)
    }

    /// Nobody is let through any more.
    pub fn shut(&mut self) {
        self.phase = Phase::Open { until: Instant::now() + Duration::from_secs(3600) };
    }

    fn open(&mut self, now: Instant, chance: f64) {
        let whole = self.rules.first_pause.saturating_mul(1 << self.pauses.min(16)).min(self.rules.max_pause);
        let pause = whole.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        self.pauses = self.pauses.saturating_add(1);
        self.phase = Phase::Open { until: now + pause };
        (self.errors, self.history) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> (Breaker, Instant) {
        let rules = Rules { slow: 100 * MS, first_pause: 200 * MS, max_pause: 1000 * MS };
        (Breaker::new(rules), Instant::now())
    }

    fn call(breaker: &mut Breaker, now: Instant, answer: Option<Duration>) -> Option<Cause> {
        let probe = match breaker.pass(now) {
            Pass::Stop(left) => panic!("left alone for {left:?}"),
            pass => pass == Pass::Probe,
        };
        breaker.begin(now);
        breaker.end(answer, if probe { Role::Probe } else { Role::Usual }, now, 1.0)
    }

    #[test]
    fn errors_open_it_and_a_quick_probe_closes_it() {
        let (mut breaker, now) = breaker();
        assert_eq!(call(&mut breaker, now, None), None);
        assert_eq!(call(&mut breaker, now, None), None);
        assert_eq!(call(&mut breaker, now, Some(MS)), None);
        for wanted in [None, None, Some(Cause::Errors)] {
            assert_eq!(call(&mut breaker, now, None), wanted);
        }
        assert_eq!(breaker.pass(now), Pass::Stop(200 * MS));
        let later = now + 200 * MS;
        assert_eq!(breaker.pass(later), Pass::Probe);
        assert!(matches!(breaker.pass(later), Pass::Stop(_)), "one at a time");
        breaker.begin(later);
        assert_eq!(breaker.end(Some(MS), Role::Probe, later, 1.0), None);
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_call_that_is_needed_closes_it_but_does_not_lengthen_its_pause() {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            call(&mut breaker, now, None);
        }
        for _ in 0..10 {
            breaker.begin(now);
            assert_eq!(breaker.end(None, Role::Needed, now, 1.0), None);
        }
        assert_eq!(breaker.pass(now), Pass::Stop(200 * MS));
        breaker.begin(now);
        breaker.end(Some(MS), Role::Needed, now, 1.0);
        assert!(breaker.is_closed() && !breaker.stops(now));
    }

    #[test]
    fn pauses_double_to_their_limit_and_a_slow_probe_is_none() {
        let (mut breaker, mut now) = breaker();
        for _ in 0..3 {
            call(&mut breaker, now, None);
        }
        for wanted in [200, 400, 800, 1000, 1000] {
            let Pass::Stop(left) = breaker.pass(now) else { panic!("closed") };
            assert_eq!(left, wanted * MS);
            now += left;
            assert_eq!(call(&mut breaker, now, Some(101 * MS)), Some(Cause::Latency));
        }
        // A probe of which nobody hears again does not close the way for ever.
        now += 1000 * MS;
        assert_eq!(breaker.pass(now), Pass::Probe);
        assert_eq!(breaker.pass(now + 200 * MS), Pass::Probe);
    }

    #[test]
    fn slowness_opens_it_and_a_slow_call_now_and_then_does_not() {
        let (mut breaker, now) = breaker();
        for n in 0..200 {
            let took = if n % 3 == 0 { 500 * MS } else { MS };
            assert_eq!(call(&mut breaker, now, Some(took)), None, "{n}");
        }
        let opened = (0..8).find_map(|_| call(&mut breaker, now, Some(500 * MS)));
        assert_eq!(opened, Some(Cause::Latency));
    }

    #[test]
    fn silence_is_that_nothing_ends() {
        let (mut breaker, now) = breaker();
        breaker.begin(now);
        breaker.begin(now + 50 * MS);
        assert_eq!(breaker.look(now + 99 * MS, 1.0), None);
        breaker.end(Some(MS), Role::Usual, now + 99 * MS, 1.0);
        assert_eq!(breaker.look(now + 150 * MS, 1.0), None, "it moves");
        assert_eq!(breaker.look(now + 199 * MS, 1.0), Some(Cause::Silence));
        breaker.end(None, Role::Usual, now + 200 * MS, 1.0);
        assert_eq!(breaker.level(), 2);
        assert_eq!(breaker.look(now + 999 * MS, 1.0), None);
    }
}
