//! A reader that has only byte ranges, as a store gateway has, finds what an open block finds. Decoders of fetched
//! bytes survive any bytes.

mod common;

use std::cell::Cell;
use std::ops::Range;
use std::path::Path;

use block::chunks::{self, chunk_len, decode_chunk};
use block::index::series::{self, entry_len, estimated_range};
use block::index::{IndexHeader, Plan, PostingOffsets, Symbols, Toc, decode_postings, decode_series};
use bytes::Bytes;
use common::*;
use model::{MatchOp, Matcher};
use proptest::prelude::*;

/// An object that counts what is fetched of it.
struct Object {
    bytes: Bytes,
    fetched: Cell<usize>,
}

impl Object {
    fn get(&self, range: &Range<u64>) -> Bytes {
        self.fetched.set(self.fetched.get() + (range.end - range.start) as usize);
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn object(bytes: Vec<u8>) -> Object {
    Object { bytes: bytes.into(), fetched: Cell::new(0) }
}

#[test]
fn ranges_answer_as_the_open_block_does() {
    let (world, _) = memory();
    let text: String =
        (0..3000).map(|n| format!("m{}{{job=\"j{}\", instance=\"{n}\"}} {n}+1x30\n", n % 5, n % 7)).collect();
    write(&world, Path::new("/data"), &testkit::parse_load(&text, 0, 15_000).unwrap(), 10);
    let dir = Path::new("/data").join(ID);
    let block = open(&world, Path::new("/data"));
    let index = object(world.disk.read(&dir.join("index")).unwrap());
    let segment = object(world.disk.read(&dir.join("chunks/000001")).unwrap());

    let size = index.size();
    let toc = Toc::decode(&index.get(&Toc::range(size).unwrap()), size).unwrap();
    let (front, table) = (index.get(&toc.symbols_range()), index.get(&toc.table_range(size)));
    let header = IndexHeader::new(toc, size, &front, &table).unwrap();
    assert_eq!(header.names().collect::<Vec<_>>(), ["__name__", "instance", "job"]);
    assert_eq!(header.values("job").unwrap().len(), 7);
    assert_eq!(header.offsets.count("instance"), 3000);
    for n in 0..3000 {
        let range = header.posting_range("instance", &n.to_string()).unwrap().unwrap();
        assert_eq!(range.end - range.start, 16, "a list of one");
    }
    for absent in ["", "3000", "zzz", "!"] {
        assert_eq!(header.posting_range("instance", absent).unwrap(), None);
    }
    assert_eq!(header.posting_range("nothing", "x").unwrap(), None);
    assert!(header.memory() < 3000, "{} bytes for 3010 symbols and pairs", header.memory());
    for (at, text) in header.symbols.iter().enumerate() {
        assert_eq!(header.symbol(at as u32).unwrap(), text.unwrap());
    }
    assert!(header.symbol(header.symbols.len() as u32).is_err());

    let m = |op, name, value| Matcher::new(op, name, value).unwrap();
    let matchers = [
        m(MatchOp::Equal, "job", "j3"),
        m(MatchOp::Regex, "instance", "1.*7"),
        m(MatchOp::NotEqual, "__name__", "m3"),
    ];
    let plan = Plan::new(&matchers, &header).unwrap();
    index.fetched.set(0);
    let numbers = plan.apply(&mut |range| Ok(index.get(range))).unwrap();
    assert_eq!(index.fetched.get() as u64, plan.ranges().map(|r| r.end - r.start).sum::<u64>());
    let mut got = Vec::new();
    for number in numbers {
        // A guess that is too short first, then the length that the entry itself says.
        let head = index.get(&estimated_range(number, 5, &toc.series_range()).unwrap());
        let len = entry_len(&head).unwrap() as u64;
        let start = series::offset(number);
        let (labels, metas) = decode_series(&index.get(&(start..start + len)), &header.symbols).unwrap();
        assert!(decode_series(&index.get(&(start..start + len - 1)), &header.symbols).is_err());
        if !Matcher::all_match(&plan.check, &labels) {
            continue;
        }
        let mut found = Vec::new();
        for meta in metas {
            assert_eq!(meta.segment(), 0);
            let head = segment.get(&(meta.offset()..meta.offset() + chunks::LEN_BYTES as u64));
            let len = chunk_len(&head).unwrap() as u64;
            let (encoding, bytes) =
                decode_chunk(&segment.get(&(meta.offset()..meta.offset() + len))).unwrap();
            found.push(chunk::ChunkData { range: meta.range, encoding, bytes });
        }
        got.push((labels, found));
    }
    assert!(!got.is_empty());
    assert_eq!(got, try_select(&block, &matchers).unwrap());
    assert!(estimated_range(u32::MAX, 5, &toc.series_range()).is_err());
}

/// A section with a right length and sum around any bytes, so that what is inside is reached.
fn section(body: &[u8]) -> Bytes {
    let sum = crc32c::crc32c(body);
    Bytes::from([&(body.len() as u32).to_be_bytes()[..], body, &sum.to_be_bytes()].concat())
}

/// Found by fuzzing: the greatest symbol number was taken for one that is cached.
#[test]
fn the_greatest_symbol_number_does_not_exist() {
    let symbols = Symbols::parse(&section(b"\0\0\0\x01\x01a")).unwrap();
    let body = b"\x01\x00\xff\xff\xff\xff\x0f\x00";
    let entry = [&[body.len() as u8][..], body, &crc32c::crc32c(body).to_be_bytes()].concat();
    let error = decode_series(&entry, &symbols).unwrap_err();
    assert!(error.message.contains("symbol 4294967295"), "{error}");
}

fn small_counts() -> impl Strategy<Value = Vec<u8>> {
    (0u32..6, prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..60))
        .prop_map(|(count, rest)| [&count.to_be_bytes()[..], &rest].concat())
}

proptest! {
    #[test]
    fn sections_of_any_content_never_panic(body in small_counts()) {
        if let Ok(symbols) = Symbols::parse(&section(&body)) {
            for at in 0..symbols.len() as u32 + 1 {
                let _ = symbols.get(at);
            }
        }
        if let Ok(offsets) = PostingOffsets::parse(&section(&body), 1000) {
            for name in offsets.names().map(str::to_owned).collect::<Vec<_>>() {
                let _ = offsets.values(&name);
            }
            let _ = offsets.all_range();
        }
        let _ = decode_postings(&section(&body));
    }

    #[test]
    fn series_and_chunks_of_any_content_never_panic(body in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..80)) {
        let symbols = Symbols::parse(&section(b"\0\0\0\x03\x01a\x01b\x02\xff\xff")).unwrap();
        let sum = crc32c::crc32c(&body).to_be_bytes();
        let entry = [&[body.len() as u8][..], &body, &sum].concat();
        let _ = decode_series(&entry, &symbols);
        let _ = decode_series(&body, &symbols);
        let _ = entry_len(&body);
        let _ = chunk_len(&body);
        let _ = decode_chunk(&Bytes::from(body.clone()));
        let _ = Toc::decode(&body, 80);
        let _ = block::Meta::parse(&body);
        let _ = block::tombstones::Tombstones::parse(&[&b"\x01\x30\xba\x30\x01"[..], &body, &sum].concat());
    }
}
