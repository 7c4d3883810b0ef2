//! What happened, in order, as one number: two runs of a seed must agree in it.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

/// The record of one run. Clones are the same record.
#[derive(Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
    began: tokio::time::Instant,
}

struct State {
    hash: Xxh3,
    events: u64,
    /// Whether each event is printed as it comes.
    aloud: bool,
}

impl Trace {
    /// Within the run's runtime.
    pub fn new(aloud: bool) -> Trace {
        let state = State { hash: Xxh3::new(), events: 0, aloud };
        Trace { state: Arc::new(Mutex::new(state)), began: tokio::time::Instant::now() }
    }

    /// Milliseconds since the beginning, by the true clock.
    pub fn elapsed_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64
    }

    /// Whether somebody reads along.
    pub fn is_aloud(&self) -> bool {
        self.state.lock().aloud
    }

    pub fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>8} {what}", self.elapsed_ms());
        let mut state = self.state.lock();
        state.hash.update(line.as_bytes());
        state.events += 1;
        if state.aloud {
            println!("{line}");
        }
    }

    /// The hash of everything so far, and how many events there were.
    pub fn digest(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.hash.digest(), state.events)
    }
}

/// Notes an event, as `format!` would write it.
#[macro_export]
macro_rules! note {
    ($trace:expr, $($text:tt)*) => { $trace.note(format_args!($($text)*)) };
}
