//! libFuzzer on the target `xor` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("xor", bytes));
