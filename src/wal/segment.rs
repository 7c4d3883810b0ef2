//! Segment files: names, the header, and how a zeroed spare one comes to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Kind;
use runtime::{Disk, File};

use crate::Error;
use crate::error;
use crate::record::{u32_at, u64_at};

/// Bytes before the first record.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
const MAGIC: &[u8; 8] = b"TRIBWAL\n";
const VERSION: u32 = 1;
/// What an operator does with a log that is refused.
pub(crate) const WAY_OUT: &str = "restore the folder from a copy, or run `tributary tools wal inspect` to see what is damaged and \
    `tributary tools wal salvage` to make a log of what can still be read";
/// How much of a new segment is zeroed at once, and synced.
const STEP_BYTES: u64 = 1 << 20;
const SYNC_BYTES: u64 = 4 << 20;

/// An open segment, or a checkpoint, which looks like one.
pub(crate) struct Segment {
    pub index: u64,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
    /// Size of the file; all of it is allocated.
    pub len: u64,
}

pub(crate) fn segment_name(index: u64) -> String {
    format!("segment-{index:012}")
}

pub(crate) fn segment_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(segment_name(index))
}

/// The index in a segment's name, or in a checkpoint's.
pub(crate) fn index_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn encode_header(index: u64) -> [u8; SEGMENT_HEADER_BYTES as usize] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&index.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Creates an allocated, zeroed segment: under a temporary name until it is whole, so that using it later
/// changes no metadata at all.
pub(crate) fn create(disk: &dyn Disk, dir: &Path, index: u64, len: u64) -> Result<Segment, Error> {
    let path = segment_path(dir, index);
    let temporary = dir.join(format!("{}.tmp", segment_name(index)));
    let attempt = || -> std::io::Result<Arc<dyn File>> {
        if disk.exists(&temporary) {
            disk.remove_file(&temporary)?;
        }
        let file = disk.create(&temporary)?;
        // In steps: one long flush would hold up the log's own syncs on the same disk. Written zeroes, so that writing
        // records later changes no metadata.
        let zeroes = vec![0; len.min(STEP_BYTES) as usize];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(STEP_BYTES);
            file.write_all_at(&zeroes[..n as usize], at)?;
            at += n;
            if at.is_multiple_of(SYNC_BYTES) {
                file.sync_data()?;
            }
        }
        file.write_all_at(&encode_header(index), 0)?;
        file.sync_data()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(dir)?;
        Ok(file)
    };
    attempt().map(|file| Segment { index, path: path.clone(), file, len }).map_err(|error| {
        // Gives the space back; the next attempt starts over.
        if let Err(again) = disk.remove_file(&temporary) {
            tracing::debug!(path = %temporary.display(), error = %again, "temporary segment stays");
        }
        error::io("allocate log segment", &path, error)
    })
}

/// Opens an existing segment and checks its header.
pub(crate) fn open(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Segment, Error> {
    check(open_any(disk, dir, index)?)
}

/// Opens an existing segment whatever its header is.
pub(crate) fn open_any(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Segment, Error> {
    let path = segment_path(dir, index);
    let file = disk.open(&path).map_err(|e| error::io("open log segment", &path, e))?;
    let len = file.len().map_err(|e| error::io("size of log file", &path, e))?;
    Ok(Segment { index, path, file, len })
}

/// What every file of a log must begin with: enough bytes, our mark, a version that this build reads, its own index.
pub(crate) fn check(segment: Segment) -> Result<Segment, Error> {
    let path = &segment.path;
    let mut head = [0; SEGMENT_HEADER_BYTES as usize];
    let corrupt =
        |what: &str| Error::new(Kind::Corrupt, format!("log file {} {what}; {WAY_OUT}", path.display()));
    if segment.len < SEGMENT_HEADER_BYTES {
        return Err(corrupt(&format!("has {} bytes, fewer than its header", segment.len)));
    }
    segment.file.read_exact_at(&mut head, 0).map_err(|e| error::io("read log file", path, e))?;
    if &head[..8] != MAGIC || u32_at(&head, 60) != crc32c::crc32c(&head[..60]) {
        return Err(corrupt("has a damaged header (bytes 0 to 63)"));
    }
    let version = u32_at(&head, 8);
    if version > VERSION {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "log file {} has format version {version}, this build reads up to {VERSION}; \
                 start the newer version again",
                path.display()
            ),
        ));
    }
    if u64_at(&head, 16) != segment.index {
        return Err(corrupt("is named after another index than its header says"));
    }
    Ok(segment)
}
