//! libFuzzer on the target `peer_frames` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("peer_frames", bytes));
