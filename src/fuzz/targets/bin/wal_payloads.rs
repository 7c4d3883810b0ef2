//! libFuzzer on the target `wal_payloads` of the library beside this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::run("wal_payloads", bytes));
