//! A checkpoint: what must be known before the first segment that is kept, so that older ones can go.
//!
//! A file of records like a segment's, written whole under a temporary name. Its last record has kind 0 and
//! holds the number of the first record of the segments that follow.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use runtime::{Disk, File, PIECE, Pace, World};

use crate::Error;
use crate::error;
use crate::log::{Log, Settings};
use crate::reader::{Scan, refuse_unknown};
use crate::record::{self, JUMP, u64_at};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};

pub(crate) const PREFIX: &str = "checkpoint-";
/// Kind of the last record.
pub(crate) const END: u8 = JUMP;
fn checkpoint_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{index:012}"))
}

/// Takes the records of a new checkpoint.
pub struct CheckpointWriter {
    file: Arc<dyn File>,
    path: PathBuf,
    buf: Vec<u8>,
    offset: u64,
    seq: u64,
    world: World,
    pace: Pace,
}

impl CheckpointWriter {
    /// Begins the checkpoint before segment `index`, under a temporary name.
    pub(crate) fn create(world: &World, dir: &Path, index: u64) -> Result<CheckpointWriter, Error> {
        let disk = &*world.disk;
        let path = checkpoint_path(dir, index).with_extension("tmp");
        if disk.exists(&path) {
            disk.remove_file(&path).map_err(|e| error::io("remove", &path, e))?;
        }
        let file = disk.create(&path).map_err(|e| error::io("create log checkpoint", &path, e))?;
        file.write_all_at(&segment::encode_header(index), 0)
            .map_err(|e| error::io("write log checkpoint", &path, e))?;
        Ok(CheckpointWriter {
            file,
            path,
            buf: Vec::new(),
            offset: SEGMENT_HEADER_BYTES,
            seq: 1,
            world: world.clone(),
            pace: Pace::default(),
        })
    }

    /// Ends the checkpoint and gives it its name, durable. `first_seq`: the first record of the segments.
    pub(crate) fn finish(mut self, world: &World, first_seq: u64) -> Result<(), Error> {
        self.put(END, &[&first_seq.to_le_bytes()])?;
        self.flush()?;
        let named = self.path.with_extension("");
        world
            .disk
            .rename(&self.path, &named)
            .map_err(|e| error::io("rename log checkpoint", &self.path, e))?;
        let dir = named.parent().unwrap_or(Path::new("."));
        world.disk.sync_dir(dir).map_err(|e| error::io("sync log folder", dir, e))
    }

    /// Adds one record.
    pub fn put(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), Error> {
        record::put(&mut self.buf, kind, self.seq, parts);
        self.seq += 1;
        if self.buf.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        record::seal(&mut self.buf, self.seq - 1);
        let CheckpointWriter { file, path, buf, offset, world, pace, .. } = self;
        // In pieces with rests between them: the log itself syncs beside us and would wait for all of it.
        pace.after(world, || {
            file.write_all_at(buf, *offset).map_err(|e| error::io("write log checkpoint", path, e))?;
            file.sync_data().map_err(|e| error::io("sync log checkpoint", path, e))
        })?;
        *offset += buf.len() as u64;
        buf.clear();
        Ok(())
    }
}

impl Log {
    /// Writes a checkpoint by `fill` and, once it is durable, deletes all segments before `keep_from`. A
    /// no-op where that would free less than the last checkpoint took. A failure leaves the log as it was.
    pub fn checkpoint<E: From<Error>>(
        &self,
        keep_from: u64,
        fill: &mut dyn FnMut(&mut CheckpointWriter) -> Result<(), E>,
    ) -> Result<usize, E> {
        let shared = &*self.shared;
        let (disk, dir) = (&*shared.world.disk, shared.settings.dir.as_path());
        let (keep_from, first_seq) = {
            let staging = shared.staging.lock();
            let keep_from = keep_from.min(staging.current.index);
            let kept = staging.firsts.iter().find(|(_, index)| *index >= keep_from);
            (keep_from, kept.map_or(staging.next_seq, |(seq, _)| *seq))
        };
        let names = disk.list(dir).map_err(|e| error::io("list log folder", dir, e))?;
        let old = |name: &str, prefix| segment::index_of(name, prefix).filter(|index| *index < keep_from);
        // What it costs to write is what the last one cost: it must free at least as much.
        let size = |prefix| -> Result<u64, Error> {
            let mut sum = 0;
            for name in names.iter().filter(|name| old(name, prefix).is_some()) {
                let path = dir.join(name);
                sum += disk.len(&path).map_err(|e| error::io("size of log file", &path, e))?;
            }
            Ok(sum)
        };
        let freed = size("segment-")?;
        if freed == 0 || freed < size(PREFIX)? {
            return Ok(0);
        }
        let mut writer = CheckpointWriter::create(&shared.world, dir, keep_from)?;
        fill(&mut writer)?;
        writer.finish(&shared.world, first_seq)?;

        // From here on the old files are obsolete; what cannot be deleted now goes at the next start.
        let mut deleted = 0;
        for name in &names {
            let is_segment = old(name, "segment-").is_some();
            if is_segment || old(name, PREFIX).is_some() {
                let path = dir.join(name);
                disk.remove_file(&path).map_err(|e| error::io("remove obsolete log file", &path, e))?;
                deleted += usize::from(is_segment);
            }
        }
        disk.sync_dir(dir).map_err(|e| error::io("sync log folder", dir, e))?;
        shared.staging.lock().firsts.retain(|(_, index)| *index >= keep_from);
        metrics::counter!("tributary_wal_segments_deleted_total").increment(deleted as u64);
        Ok(deleted)
    }
}

/// Hands the records of a checkpoint over and returns the number of the first record of the segments.
pub(crate) fn read<E: From<Error>>(
    disk: &dyn Disk,
    dir: &Path,
    index: u64,
    settings: &Settings,
    sink: &mut dyn FnMut(u8, u64, &[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let path = checkpoint_path(dir, index);
    let file = disk.open_read(&path).map_err(|e| error::io("open log checkpoint", &path, e))?;
    let len = file.len().map_err(|e| error::io("size of log checkpoint", &path, e))?;
    let segment = segment::check(Segment { index, path, file, len })?;
    let mut scan = Scan::new(&segment);
    let mut seq = 1;
    while let Some((header, payload)) = scan.next(seq)? {
        if header.kind == END && payload.len() == 8 {
            return Ok(u64_at(payload, 0));
        }
        refuse_unknown(&header, settings, dir)?;
        sink(header.kind, seq, payload)?;
        seq += 1;
    }
    Err(Error::new(
        Kind::Corrupt,
        format!(
            "log checkpoint {} is damaged at byte {}; {}",
            segment.path.display(),
            scan.offset(),
            segment::WAY_OUT
        ),
    )
    .into())
}
