//! libFuzzer on the target `histogram_start` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("histogram_start", bytes));
