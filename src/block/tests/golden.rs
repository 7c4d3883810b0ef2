//! A tiny block that never changes by a byte, and stays readable: `testdata/golden`.
//!
//! After a change of the format that is meant, `BLESS=1 cargo test -p tributary-block --test golden` writes it anew;
//! keep the old one under another name and keep reading it.

mod common;

use std::path::{Path, PathBuf};

use block::{Block, BlockWriter};
use common::*;
use runtime::World;

const LOAD: &str = r#"
    http_requests_total{code="200", path="/é☃"} 0+7x30
    http_requests_total{code="500", path="/"} 0 0 1 stale
    up 1 _ 0 NaN
"#;

#[test]
fn bytes_stay_as_they_are() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
    let real = World::real();
    let series = testkit::parse_load(LOAD, 1_709_000_000_000, 15_000).unwrap();
    let (world, disk) = memory();
    let writer = BlockWriter::create(&world, Path::new("/data"), id()).unwrap().with_segment_size(140);
    write_with(writer, &series, 20).unwrap();
    let root = Path::new("/data").join(ID);
    for file in disk.files() {
        let kept = golden.join(ID).join(file.strip_prefix(&root).unwrap());
        let bytes = world.disk.read(&file).unwrap();
        if std::env::var_os("BLESS").is_some() {
            real.disk.create_dir_all(kept.parent().unwrap()).unwrap();
            real.disk.write_atomic(&kept, &bytes).unwrap();
        }
        let want = real.disk.read(&kept).unwrap_or_else(|e| panic!("{}: {e}", kept.display()));
        assert_eq!(bytes, want, "{}", file.display());
    }
    let block = Block::open(&real, &golden.join(ID)).unwrap();
    block.verify().unwrap();
    assert_eq!(read(&block), series);
}
