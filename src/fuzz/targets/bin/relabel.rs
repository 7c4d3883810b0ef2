//! libFuzzer on the target `relabel` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("relabel", bytes));
