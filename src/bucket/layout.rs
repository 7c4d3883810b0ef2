//! Names inside a bucket: one folder per block, named by its ULID, as Thanos lays it out.

use block::BlockId;

/// Uploaded last, deleted first: a folder without it is no block.
pub const META: &str = block::meta::FILE;
pub const INDEX: &str = "index";
pub const CHUNKS: &str = "chunks";
pub const DELETION_MARK: &str = "deletion-mark.json";

/// `<ulid>/<file>`.
pub fn of(id: BlockId, file: &str) -> String {
    format!("{id}/{file}")
}

/// `<ulid>/chunks/000001` for segment 0, as chunk references count them.
pub fn segment(id: BlockId, segment: u32) -> String {
    format!("{id}/{CHUNKS}/{:06}", u64::from(segment) + 1)
}
