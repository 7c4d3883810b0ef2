//! What is held of HA pairs, put on the disk by a door that stops in good order and taken up by its next life.
//!
//! The file is a line of JSON that says whose the requests are, their bodies one behind the other as they came, and a CRC-32C
//! of both, little-endian. It is written once and gone as soon as it is read: whoever crashes has none.

use std::path::Path;

use model::{TenantId, Timestamp};
use runtime::World;
use serde::{Deserialize, Serialize};
use wire::remote_write::Packing;

use super::tracker::{Form, Kept};
use crate::admit::Version;

const CRC_BYTES: usize = 4;

/// A request that was acknowledged and is not stored.
#[derive(Debug)]
pub struct Resting {
    pub tenant: TenantId,
    pub cluster: String,
    pub replica: String,
    pub newest: Timestamp,
    pub kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Line {
    tenant: String,
    cluster: String,
    replica: String,
    newest: Timestamp,
    judged_at: Timestamp,
    version: Version,
    zstd: bool,
    bytes: usize,
}

/// Writes the file, if there is anything. Blocks on the disk.
pub fn write(world: &World, path: &Path, resting: &[Resting]) -> Result<(), String> {
    if resting.is_empty() {
        return Ok(());
    }
    let bytes = encode(resting)?;
    if let Some(dir) = path.parent() {
        world.disk.create_dir_all(dir).map_err(|error| error.to_string())?;
    }
    world.disk.write_atomic(path, &bytes).map_err(|error| error.to_string())
}

/// Reads the file and removes it, whatever it holds; nothing where there is none. Blocks on the disk.
pub fn take(world: &World, path: &Path) -> Result<Vec<Resting>, String> {
    if !world.disk.exists(path) {
        return Ok(Vec::new());
    }
    let bytes = world.disk.read(path).map_err(|error| error.to_string())?;
    world.disk.remove_file(path).map_err(|error| error.to_string())?;
    decode(&bytes)
}

fn encode(resting: &[Resting]) -> Result<Vec<u8>, String> {
    let line = |one: &Resting| {
        let (version, packing) = one.kept.form;
        Line {
            tenant: one.tenant.as_str().to_owned(),
            cluster: one.cluster.clone(),
            replica: one.replica.clone(),
            newest: one.newest,
            judged_at: one.kept.judged_at,
            version,
            zstd: packing == Packing::Zstd,
            bytes: one.kept.body.len(),
        }
    };
    let lines: Vec<Line> = resting.iter().map(line).collect();
    let mut bytes = serde_json::to_vec(&lines).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    resting.iter().for_each(|one| bytes.extend_from_slice(&one.kept.body));
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Vec<Resting>, String> {
    let damaged = || "it is damaged".to_owned();
    let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(damaged)?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let end = content.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
    let (head, mut bodies) = (&content[..end], &content[end + 1..]);
    let lines: Vec<Line> = serde_json::from_slice(head).map_err(|error| error.to_string())?;
    let mut resting = Vec::with_capacity(lines.len());
    for line in lines {
        let (body, rest) = bodies.split_at_checked(line.bytes).ok_or_else(damaged)?;
        bodies = rest;
        let packing = if line.zstd { Packing::Zstd } else { Packing::Snappy };
        let form: Form = (line.version, packing);
        resting.push(Resting {
            tenant: TenantId::new(&line.tenant).map_err(|error| error.to_string())?,
            cluster: line.cluster,
            replica: line.replica,
            newest: line.newest,
            kept: Kept { form, body: body.to_vec(), judged_at: line.judged_at },
        });
    }
    Ok(resting)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(body: &[u8], version: Version, packing: Packing) -> Resting {
        Resting {
            tenant: TenantId::new("t").unwrap(),
            cluster: "c\n".to_owned(),
            replica: "b".to_owned(),
            newest: 17,
            kept: Kept { form: (version, packing), body: body.to_vec(), judged_at: -3 },
        }
    }

    #[test]
    fn what_rests_is_taken_up_once() {
        let dir = tempfile::tempdir().unwrap();
        let (world, path) = (World::real(), dir.path().join("ha").join("held"));
        write(&world, &path, &[]).unwrap();
        assert!(take(&world, &path).unwrap().is_empty());
        let all = [
            one(b"one\n", Version::V1, Packing::Snappy),
            one(
                b"",
                Version::Otlp(crate::otlp::Form { json: true, coding: crate::otlp::Coding::Gzip }),
                Packing::Snappy,
            ),
            one(b"three", Version::V2, Packing::Zstd),
        ];
        write(&world, &path, &all).unwrap();
        let taken = take(&world, &path).unwrap();
        assert_eq!(format!("{taken:?}"), format!("{all:?}"));
        assert!(take(&world, &path).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn damage_is_noticed_and_is_no_panic(at in any::<prop::sample::Index>(), flip in 1u8.., rubbish: Vec<u8>) {
            let mut bytes = encode(&[one(b"body", Version::V1, Packing::Snappy)]).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&bytes[..at]).is_err());
            let mut sealed = rubbish;
            sealed.extend_from_slice(&crc32c::crc32c(&sealed).to_le_bytes());
            let _ = decode(&sealed);
        }
    }
}
