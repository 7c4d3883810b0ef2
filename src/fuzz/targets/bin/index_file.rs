//! libFuzzer on the target `index_file` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("index_file", bytes));
