//! Nanoseconds per sample of opening and reading a remote write body.
fn main() {}
