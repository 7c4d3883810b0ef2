//! Any bytes decode to samples or an error; samples that decode are encoded so that they decode to the same.
#![no_main]

use chunk::xor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(iter) = xor::Iter::new(bytes) else { return };
    let samples: Vec<model::Sample> = iter.map_while(Result::ok).collect();
    let again = xor::encode(samples.iter().copied()).expect("as many samples as a chunk may hold");
    let read: Result<Vec<_>, _> = xor::Iter::new(&again).expect("a count").collect();
    assert_eq!(read.expect("our own bytes"), samples);
});
