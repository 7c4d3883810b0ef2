//! libFuzzer on the target `limits` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("limits", bytes));
