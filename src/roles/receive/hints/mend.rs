//! Hints with damage: what can be read of them is delivered, what cannot is kept beside the folder and named.

use std::path::{Path, PathBuf};

use runtime::World;

use crate::Error;

/// Within the names of folders that are set aside.
pub const DAMAGED: &str = ".damaged-";

/// Where what is damaged of the folder `dir` is kept.
pub fn aside(world: &World, dir: &Path) -> PathBuf {
    let mut name = dir.to_owned().into_os_string();
    name.push(format!("{DAMAGED}{}", world.clock.now_ms()));
    name.into()
}

/// Takes what cannot be read out of the folder of `peer`, which nobody has open; how many of its files had damage.
pub fn mend(world: &World, dir: &Path, peer: &str) -> Result<usize, Error> {
    wal::mend(world, dir, &aside(world, dir), &mut |damage| {
        count(damage.bytes);
        let kept = damage.aside.as_ref().map(|path| path.display().to_string());
        tracing::error!(
            peer,
            folder = %dir.display(),
            segment = damage.segment,
            at = damage.at,
            bytes = damage.bytes,
            hints = damage.records,
            kept = kept.as_deref().unwrap_or("nothing: the end of the file is gone"),
            "hints are damaged: so many bytes of this segment, from `at` on, cannot be read, and the peer will not have the hints in \
             them from here; other replicas have these samples. All others are delivered. The segment as it was is kept: check the \
             disk; an undamaged copy of it, put into the folder with the node stopped, is delivered too; delete what is kept when \
             it is not needed any more"
        );
    })
}

/// Keeps a hint that was read and is not understood; nothing else waits for it.
pub fn keep_one(
    world: &World,
    dir: &Path,
    peer: &str,
    place: wal::Place,
    bytes: &[u8],
    error: &Error,
) -> Result<(), Error> {
    let aside = aside(world, dir);
    let path = aside.join(format!("hint-{:012}-{}", place.segment, place.seq));
    let attempt = || {
        world.disk.create_dir_all(&aside)?;
        world.disk.write_atomic(&path, bytes)?;
        world.disk.sync_dir(aside.parent().unwrap_or(Path::new("")))
    };
    attempt().map_err(|e| wal::error::io("keep a hint that cannot be read in", &path, e))?;
    count(bytes.len() as u64);
    tracing::error!(
        peer,
        %error,
        bytes = bytes.len(),
        segment = place.segment,
        kept = %path.display(),
        "a hint cannot be read, and the peer will not have it from here; other replicas have its samples. All others are \
         delivered. Was it written by a newer version, `tributary` of that version reads it"
    );
    Ok(())
}

/// One place that is damaged, with so many bytes that cannot be read.
pub fn count(bytes: u64) {
    metrics::counter!("tributary_hints_damaged_total").increment(1);
    metrics::counter!("tributary_hints_damaged_bytes_total").increment(bytes);
}
