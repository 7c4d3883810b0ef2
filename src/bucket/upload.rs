//! Puts one block of this machine into a bucket so that it is never visible in part.
//!
//! Order: chunks, index, a check of every size, and meta.json last: whoever lists the bucket takes a folder
//! without meta.json for no block. An interrupted upload is taken up where it stopped: what lies there with
//! its full size under the block's own, never reused name is not sent again.

use std::collections::BTreeMap;
use std::path::Path;

use block::Meta;
use block::meta::{BlockFile, rfc3339};
use bytes::Bytes;
use model::Kind;
use runtime::World;

use crate::parts::blocking;
use crate::{Bucket, Error, layout};

/// What an upload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The block was in the bucket before, whole.
    pub already: bool,
    /// Bytes sent by this call.
    pub bytes: u64,
}

/// Uploads the block in the folder `dir`, of which `meta` is the meta.json. A block that is in the bucket
/// already is left alone. Kind `Corrupt` or `Invalid`: the fault lies with this block; anything else: with the
/// bucket.
pub async fn upload_block(
    bucket: &Bucket,
    world: &World,
    dir: &Path,
    meta: &Meta,
) -> Result<Uploaded, Error> {
    let files = survey(world, dir, meta).await?;
    let there: BTreeMap<String, u64> =
        bucket.list_all(&meta.ulid.to_string()).await?.into_iter().map(|o| (o.path, o.size)).collect();
    let meta_path = layout::of(meta.ulid, layout::META);
    if there.contains_key(&meta_path) {
        return Ok(Uploaded { already: true, bytes: 0 });
    }
    let mut bytes = 0;
    for file in &files {
        let path = layout::of(meta.ulid, &file.rel_path);
        if there.get(&path) != Some(&file.size_bytes) {
            bytes += bucket.put_file(&path, &dir.join(&file.rel_path)).await?;
        }
    }
    for file in &files {
        let path = layout::of(meta.ulid, &file.rel_path);
        let size = bucket.size(&path).await?;
        if size != Some(file.size_bytes) {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "upload of block {} is not complete: {} has {} bytes here and {} in bucket {:?}",
                    meta.ulid,
                    file.rel_path,
                    file.size_bytes,
                    size.map_or("none".to_owned(), |n| n.to_string()),
                    bucket.name()
                ),
            ));
        }
    }
    let text = for_bucket(meta, files, world.clock.now_ms())?;
    bytes += text.len() as u64;
    bucket.put(&meta_path, text).await?;
    Ok(Uploaded { already: false, bytes })
}

/// The block's files with their sizes, in the order in which they are sent: chunks, then index. Fails where the
/// folder is not what meta.json says.
async fn survey(world: &World, dir: &Path, meta: &Meta) -> Result<Vec<BlockFile>, Error> {
    let broken = |what: String| {
        Error::new(
            Kind::Corrupt,
            format!("block {} in {} cannot be uploaded: {what}", meta.ulid, dir.display()),
        )
    };
    if meta.thanos.as_ref().is_none_or(|t| t.labels.is_empty()) {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "block {} has no external labels; a block in a bucket needs them to be told apart",
                meta.ulid
            ),
        ));
    }
    let (disk, folder) = (world.disk.clone(), dir.to_owned());
    let found = blocking(world, move || {
        let mut files = Vec::new();
        for name in disk.list(&folder.join(layout::CHUNKS))? {
            let rel_path = format!("{}/{name}", layout::CHUNKS);
            files.push((disk.len(&folder.join(&rel_path))?, rel_path));
        }
        files.push((disk.len(&folder.join(layout::INDEX))?, layout::INDEX.to_owned()));
        Ok(files)
    });
    let found = found.await.map_err(|e| broken(e.to_string()))?;
    let segments = found.len() - 1;
    for (at, (_, rel_path)) in found[..segments].iter().enumerate() {
        let want = format!("{}/{:06}", layout::CHUNKS, at + 1);
        if *rel_path != want {
            return Err(broken(format!("it has {rel_path} where {want} is due")));
        }
    }
    if segments == 0 {
        return Err(broken("it has no chunk files".to_owned()));
    }
    let known: BTreeMap<&str, u64> = meta
        .thanos
        .iter()
        .flat_map(|t| &t.files)
        .filter(|f| f.size_bytes > 0)
        .map(|f| (f.rel_path.as_str(), f.size_bytes))
        .collect();
    for (size, rel_path) in &found {
        match known.get(rel_path.as_str()) {
            _ if *size == 0 => return Err(broken(format!("{rel_path} is empty"))),
            Some(told) if told != size => {
                return Err(broken(format!("{rel_path} has {size} bytes, its meta.json says {told}")));
            }
            _ => {}
        }
    }
    Ok(found
        .into_iter()
        .map(|(size_bytes, rel_path)| BlockFile { rel_path, size_bytes, ..BlockFile::default() })
        .collect())
}

/// The meta.json that goes up: the block's own, with its files and the time.
fn for_bucket(meta: &Meta, mut files: Vec<BlockFile>, now_ms: i64) -> Result<Bytes, Error> {
    let mut meta = meta.clone();
    let mut thanos = meta.thanos.take().unwrap_or_default();
    let segment = |f: &BlockFile| f.rel_path.strip_prefix("chunks/").map(str::to_owned);
    thanos.segment_files = files.iter().filter_map(segment).collect();
    for file in &mut files {
        // A hash that the writer noted stays.
        if let Some(known) = thanos.files.iter().find(|f| f.rel_path == file.rel_path) {
            file.other.clone_from(&known.other);
        }
    }
    files.push(BlockFile { rel_path: layout::META.to_owned(), ..BlockFile::default() });
    files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    thanos.files = files;
    thanos.upload_time = rfc3339(now_ms);
    meta.thanos = Some(thanos);
    let text = meta.to_json().map_err(|e| Error::with_source(e.kind, e.message.clone(), e))?;
    Ok(Bytes::from(text))
}
