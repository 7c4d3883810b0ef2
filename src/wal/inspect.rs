//! A look at a log's segments without changing them, for operators.

use std::path::Path;

use model::Kind;
use runtime::World;

use crate::Error;
use crate::error;
use crate::reader::Scan;
use crate::record;
use crate::segment;

/// What one segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    pub name: String,
    pub bytes: u64,
    pub records: u64,
    /// Numbers of its first and last record; none while empty.
    pub seqs: Option<(u64, u64)>,
    /// Where reading stopped although more bytes follow, and how many.
    pub damaged: Option<(u64, u64)>,
    /// Why the segment cannot be read at all.
    pub error: Option<String>,
}

/// Walks every segment of the log in `dir`; damage is part of the answer.
pub fn inspect(world: &World, dir: &Path) -> Result<Vec<SegmentSummary>, Error> {
    let names = world.disk.list(dir).map_err(|e| error::io("list log folder", dir, e))?;
    let mut out = Vec::new();
    for name in names {
        let Some(index) = segment::index_of(&name, "segment-") else { continue };
        let mut summary =
            SegmentSummary { name, bytes: 0, records: 0, seqs: None, damaged: None, error: None };
        if let Err(error) = walk(world, dir, index, &mut summary) {
            summary.error = Some(error.to_string());
        }
        out.push(summary);
    }
    if out.is_empty() {
        return Err(Error::new(Kind::Invalid, format!("{} holds no log segments", dir.display())));
    }
    Ok(out)
}

fn walk(world: &World, dir: &Path, index: u64, summary: &mut SegmentSummary) -> Result<(), Error> {
    let segment = segment::open(&*world.disk, dir, index)?;
    summary.bytes = segment.len;
    let mut scan = Scan::new(&segment);
    if let Some(header) = scan.peek_any()? {
        let (first, mut next) = (header.seq, header.seq);
        while let Some((header, payload)) = scan.next(next)? {
            next = record::number_behind(&header, payload);
            summary.records += 1;
        }
        summary.seqs = Some((first, next - 1));
    }
    summary.damaged = scan.dirty_until()?.map(|until| (scan.offset(), until - scan.offset()));
    Ok(())
}
