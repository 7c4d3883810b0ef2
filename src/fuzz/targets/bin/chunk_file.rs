//! libFuzzer on the target `chunk_file` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("chunk_file", bytes));
