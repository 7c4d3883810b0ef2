//! Reads through every path: a node's head and blocks, all nodes merged as the querier merges, and the bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Block, BlockId};
use bucket::Bucket;
use model::{Labels, TimeRange};
use rpc::StoreBackend;
use runtime::{Disk, World};
use storage::{
    ChunkData, Columns, Context, Merge, Select, SelectRequest, SeriesEntry, SeriesSet, decode_series,
};
use testkit::MemDisk;

use crate::actors::Life;
use crate::ledger::Key;

/// Samples as they were read: tenant and labels, times and values in the order in which they came.
#[derive(Debug, Default)]
pub struct Answer {
    pub series: Vec<Read>,
}

/// A series as it was read.
#[derive(Debug)]
pub struct Read {
    pub tenant: String,
    pub labels: Labels,
    pub samples: Vec<(i64, f64)>,
}

impl Answer {
    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.series.iter().map(|series| series.samples.len()).sum()
    }

    /// By what the ledger calls a sample; those that it cannot name are left out.
    pub fn values(&self) -> BTreeMap<(Key, i64), f64> {
        let named = self.series.iter().filter_map(|read| Some((read.key()?, &read.samples)));
        named.flat_map(|(key, samples)| samples.iter().map(move |(at, value)| ((key, *at), *value))).collect()
    }
}

impl Read {
    /// The series of a sender that this is.
    pub fn key(&self) -> Option<Key> {
        let series = self.labels.get("__name__")?.strip_prefix('m')?.parse().ok()?;
        let sender = self.labels.get("instance")?.strip_prefix('s')?.parse().ok()?;
        let key = Key { sender, series };
        (key.tenant().as_str() == self.tenant && key.labels() == self.labels).then_some(key)
    }
}

/// One tenant's series on one node.
pub struct View {
    tenant: String,
    select: Arc<dyn Select>,
}

/// What a node has, as it says at its StoreAPI.
pub fn views(life: &Life) -> Result<Vec<View>, String> {
    let backend: Arc<dyn StoreBackend> = life.receive().store_backend();
    let found = backend.views(TimeRange::ALL, &[]).map_err(|error| error.to_string())?;
    found
        .into_iter()
        .map(|view| {
            let tenant = view.labels.get("tenant_id").ok_or("a view without a tenant")?.to_owned();
            Ok(View { tenant, select: view.select })
        })
        .collect()
}

/// Copies become one: everything that `views` show.
pub fn merged(views: Vec<View>) -> Result<Answer, String> {
    merged_with(views, &[])
}

/// Everything that `views` and blocks of the bucket show.
pub fn merged_with(views: Vec<View>, blocks: &[Arc<Opened>]) -> Result<Answer, String> {
    let mut by_tenant: BTreeMap<String, Vec<Box<dyn SeriesSet>>> = BTreeMap::new();
    let request = SelectRequest::new(TimeRange::ALL, Vec::new());
    for view in views {
        let set = view.select.select(&request, &Context::background()).map_err(|e| e.to_string())?;
        by_tenant.entry(view.tenant).or_default().push(set);
    }
    for opened in blocks {
        by_tenant.entry(opened.tenant.clone()).or_default().push(opened.series()?);
    }
    let mut answer = Answer::default();
    for (tenant, sets) in by_tenant {
        read(&tenant, Merge::new(sets), &mut answer)?;
    }
    Ok(answer)
}

fn read(tenant: &str, mut set: impl SeriesSet, answer: &mut Answer) -> Result<(), String> {
    while let Some(SeriesEntry { labels, chunks }) = set.next().map_err(|error| error.to_string())? {
        let samples = decode(&chunks)?;
        answer.series.push(Read { tenant: tenant.to_owned(), labels, samples });
    }
    Ok(())
}

fn decode(chunks: &[ChunkData]) -> Result<Vec<(i64, f64)>, String> {
    let mut columns = Columns::default();
    decode_series(chunks, TimeRange::ALL, &mut columns).map_err(|error| error.to_string())?;
    Ok(columns.timestamps.into_iter().zip(columns.values).collect())
}

/// A block of the bucket.
pub struct Opened {
    /// Of which node.
    replica: String,
    tenant: String,
    block: Block,
}

impl Opened {
    fn series(&self) -> Result<Box<dyn SeriesSet>, String> {
        let series = self.block.series(&[], TimeRange::ALL, 0, false).map_err(|error| error.to_string())?;
        Ok(Box::new(OfBlock(series)))
    }
}

/// A block, fetched, opened and verified; none where it is not there as a whole.
pub async fn fetch(bucket: &Bucket, world: &World, id: BlockId) -> Result<Option<Opened>, String> {
    // A folder without meta.json is an upload that is under way, and no block.
    let Ok(meta) = bucket.meta(id).await else { return Ok(None) };
    let labels = meta.external_labels().map_err(|error| error.to_string())?;
    let (Some(replica), Some(tenant)) = (labels.get("replica"), labels.get("tenant_id")) else {
        return Err(format!("block {id} has the labels {labels}"));
    };
    let disk = MemDisk::new();
    let dir = PathBuf::from("/").join(id.to_string());
    for object in bucket.list_all(&id.to_string()).await.map_err(|error| error.to_string())? {
        let bytes = bucket.get(&object.path).await.map_err(|error| error.to_string())?;
        put(&disk, &Path::new("/").join(&object.path), &bytes).map_err(|error| error.to_string())?;
    }
    let world = World { disk: Arc::new(disk), ..world.clone() };
    let block = Block::open(&world, &dir).map_err(|error| error.to_string())?;
    block.verify().map_err(|error| error.to_string())?;
    Ok(Some(Opened { replica: replica.to_owned(), tenant: tenant.to_owned(), block }))
}

/// Everything in the bucket, by the node whose label its blocks have.
pub async fn bucket(bucket: &Bucket, world: &World) -> Result<BTreeMap<String, Answer>, String> {
    let ids = bucket.list_blocks().await.map_err(|error| error.to_string())?;
    let mut found: BTreeMap<(String, String), Vec<Box<dyn SeriesSet>>> = BTreeMap::new();
    for id in ids {
        let Some(opened) = fetch(bucket, world, id).await? else { continue };
        let series = opened.series()?;
        found.entry((opened.replica, opened.tenant)).or_default().push(series);
    }
    let mut by_node: BTreeMap<String, Answer> = BTreeMap::new();
    for ((replica, tenant), sets) in found {
        read(&tenant, Merge::new(sets), by_node.entry(replica).or_default())?;
    }
    Ok(by_node)
}

fn put(disk: &MemDisk, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        disk.create_dir_all(parent)?;
    }
    disk.create(path)?.write_all_at(bytes, 0)
}

struct OfBlock(block::BlockSeries);

impl SeriesSet for OfBlock {
    fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
        let next = self.0.next().transpose();
        let next = next.map_err(|error| storage::Error::new(error.kind, error.message))?;
        Ok(next.map(|(labels, chunks)| SeriesEntry { labels, chunks }))
    }
}
