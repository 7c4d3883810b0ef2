//! libFuzzer on the target `xor2` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("xor2", bytes));
