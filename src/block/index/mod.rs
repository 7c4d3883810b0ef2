//! The index of a block, decoded from plain bytes, wherever they were fetched from.
//!
//! | module | holds |
//! |---|---|
//! | [`toc`] | where the sections are: the last 52 bytes |
//! | [`symbols`] | every label name and value, numbered |
//! | [`series`] | labels and chunk references of one series |
//! | [`postings`] | series of one label pair, and the set algebra over them |
//! | [`offsets`] | label pair to the place of its postings |
//! | [`header`] | symbols and offsets together: what is kept in memory of an index |
//! | [`plan`] | matchers to the postings lists that must be read |

pub mod cursor;
pub mod header;
pub mod offsets;
pub mod plan;
pub mod postings;
pub mod series;
pub mod symbols;
pub mod toc;
pub(crate) mod writer;

pub use header::IndexHeader;
pub use offsets::PostingOffsets;
pub use plan::Plan;
pub use postings::{Postings, decode_postings};
pub use series::{ChunkMeta, decode_series};
pub use symbols::Symbols;
pub use toc::Toc;

/// First four bytes of the file.
pub const MAGIC: [u8; 4] = [0xba, 0xaa, 0xd7, 0x00];
/// The version that is written, and the only one that is read.
pub const VERSION: u8 = 2;
/// Bytes before the first section: magic and version.
pub const HEAD_LEN: u64 = 5;
/// Every how many symbols, and values of a name, a position is kept in memory.
pub const SPARSE: usize = 32;
/// Label name and value under which all series of a block are listed.
pub const ALL_POSTINGS: (&str, &str) = ("", "");

use crate::Error;

/// Checks the first five bytes of an index.
pub fn check_head(bytes: &[u8]) -> Result<(), Error> {
    match bytes.first_chunk::<5>() {
        Some([a, b, c, d, _]) if [*a, *b, *c, *d] != MAGIC => {
            Err(Error::corrupt("index does not begin with the magic number of an index"))
        }
        Some([.., VERSION]) => Ok(()),
        Some([.., version]) => Err(Error::new(
            model::Kind::Refused,
            format!(
                "index has version {version}, only {VERSION} is read; rewrite the block with a current tool"
            ),
        )),
        None => Err(Error::corrupt("index is shorter than its head")),
    }
}
