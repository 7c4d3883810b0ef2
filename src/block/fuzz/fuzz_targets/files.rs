//! Any bytes as one of a block's files: no panic.
#![no_main]

use block::index::{IndexHeader, Toc};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = block::Meta::parse(bytes).map(|meta| meta.to_json());
    let _ = block::tombstones::Tombstones::parse(bytes);
    let file = Bytes::copy_from_slice(bytes);
    let _ = block::chunks::decode_chunk(&file);
    let _ = block::chunks::check_head(bytes);
    let size = bytes.len() as u64;
    if let Ok(toc) = Toc::decode(bytes, size) {
        let (front, table) = (toc.symbols_range(), toc.table_range(size));
        let part = |r: std::ops::Range<u64>| file.slice(r.start as usize..r.end as usize);
        let _ = IndexHeader::new(toc, size, &part(front), &part(table));
    }
});
