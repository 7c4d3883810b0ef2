//! libFuzzer on the target `remote_write_v2` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("remote_write_v2", bytes));
