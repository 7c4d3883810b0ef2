//! Ports for servers that tests start.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A loopback port that was free a moment ago, from below those that the system gives to whoever connects: one of these
/// may be taken again before the server that it is for has it. Never twice the same in a process, within thousands.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7919);
    (0..10_000)
        .map(|_| 10_000 + (begin.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 20_000) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no free port")
}
