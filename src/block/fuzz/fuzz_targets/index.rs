//! Sections of an index with any content behind right sums: no panic, whatever is asked of them.
#![no_main]

use block::index::{PostingOffsets, Symbols, decode_postings, decode_series};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fn section(body: &[u8]) -> Bytes {
    let sum = crc32c::crc32c(body).to_be_bytes();
    Bytes::from([&(body.len() as u32).to_be_bytes()[..], body, &sum].concat())
}

fuzz_target!(|body: &[u8]| {
    let any = section(body);
    let _ = decode_postings(&any);
    if let Ok(offsets) = PostingOffsets::parse(&any, 1 << 20) {
        for name in offsets.names() {
            for value in offsets.values(name).unwrap_or_default() {
                let _ = offsets.posting_range(name, &value);
            }
        }
    }
    if let Ok(symbols) = Symbols::parse(&any) {
        for number in 0..symbols.len().min(100) as u32 + 1 {
            let _ = symbols.get(number);
        }
    }
    let symbols = Symbols::parse(&section(b"\0\0\0\x03\x01a\x01b\x02\xff\xff")).expect("a right table");
    let mut entry = Vec::new();
    block::index::cursor::put_uvarint(&mut entry, body.len() as u64);
    entry.extend_from_slice(body);
    entry.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    let _ = decode_series(&entry, &symbols);
});
