//! A block's files: any bytes, and any content behind right sums.

use block::index::{IndexHeader, PostingOffsets, Symbols, Toc, decode_postings, decode_series};
use block::tombstones::Tombstones;
use bytes::Bytes;

fn section(body: &[u8]) -> Bytes {
    let sum = crc32c::crc32c(body).to_be_bytes();
    Bytes::from([&(body.len() as u32).to_be_bytes()[..], body, &sum].concat())
}

/// Sections of an index with any content behind right sums, whatever is asked of them.
pub fn index(body: &[u8]) {
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
}

/// A whole index, as it lies in a bucket.
pub fn index_file(bytes: &[u8]) {
    let file = Bytes::copy_from_slice(bytes);
    let _ = block::index::check_head(bytes);
    let size = bytes.len() as u64;
    let Ok(toc) = Toc::decode(bytes, size) else { return };
    let (front, table) = (toc.symbols_range(), toc.table_range(size));
    let part = |r: std::ops::Range<u64>| file.slice(r.start as usize..r.end as usize);
    let Ok(header) = IndexHeader::new(toc, size, &part(front), &part(table)) else { return };
    for name in header.names() {
        for value in header.values(name).unwrap_or_default() {
            if let Ok(Some(range)) = header.posting_range(name, &value) {
                assert!(range.start <= range.end, "{range:?}");
                if range.end <= size {
                    let _ = decode_postings(&part(range));
                }
            }
        }
    }
}

/// A chunk of a segment, and a segment's head.
pub fn chunk_file(bytes: &[u8]) {
    let _ = block::chunks::check_head(bytes);
    let _ = block::chunks::decode_chunk(&Bytes::copy_from_slice(bytes));
}

/// `meta.json`: what is written after reading is read and written the same from then on.
pub fn meta(bytes: &[u8]) {
    let again = |bytes: &[u8]| block::Meta::parse(bytes).expect("our own meta.json").to_json().expect("JSON");
    if let Ok(meta) = block::Meta::parse(bytes) {
        // The first time, versions of 0 and absent ones become 1.
        let written = again(&meta.to_json().expect("what was JSON is JSON again"));
        assert_eq!(again(&written), written);
    }
}

/// Tombstones, raw and with their sum put right: what is read is written so that it reads the same.
pub fn tombstones(bytes: &[u8]) {
    let _ = Tombstones::parse(bytes);
    // Magic and version, then any body with its sum.
    let mut file = vec![0x01, 0x30, 0xBA, 0x30, 0x01];
    file.extend_from_slice(bytes);
    file.extend_from_slice(&crc32c::crc32c(bytes).to_be_bytes());
    let _ = Tombstones::parse(&file);
}
