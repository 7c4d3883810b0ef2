//! The size of a block: the same two hours of samples, cut by us and written by Prometheus.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Serialize;

use super::{Bench, Kind};
use crate::http::Client;
use crate::ingest::{self, Ledger, Plan};
use crate::process::{folder_size, folders_where};
use crate::workload::Workload;

/// A server's blocks of the data.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Block {
    pub server: String,
    pub series: u64,
    pub samples: u64,
    pub blocks: usize,
    pub index_bytes: u64,
    pub chunk_bytes: u64,
    pub bytes_per_sample: f64,
    pub chunk_bytes_per_sample: f64,
}

const STEPS: u32 = 480;
const WINDOW_S: i64 = 7200;

/// Ours, and Prometheus's.
pub async fn run(bench: &Bench) -> Result<Vec<Block>> {
    let series = bench.scaled(20_000);
    // The last whole window of two hours, every scrape of it.
    let start = (super::unix_seconds()? / WINDOW_S - 1) * WINDOW_S;
    let workload = Arc::new(Workload::new(series, STEPS, start * 1000, 15_000, bench.options.batch, 1));
    let bodies = ingest::encode_all(&workload);
    let mut out = Vec::new();
    for kind in [Kind::Ours, Kind::Prometheus] {
        bench.say(&format!("block: {}, {series} series x {STEPS} samples", kind.name()));
        let data = bench.fresh("block")?;
        let system = bench.start(kind, &data).await?;
        let plan = Plan {
            urls: system.write_urls.clone(),
            connections: bench.options.connections,
            rate: 0,
            retry_for: Duration::from_secs(60),
            quiet: true,
            bodies: Some(bodies.clone()),
            door: Default::default(),
            home: None,
            elsewhere: false,
        };
        let ledger = Arc::new(Ledger::new(workload.requests()));
        let outcome = ingest::run(workload.clone(), ledger, &plan, 0..STEPS, Arc::default()).await?;
        if outcome.failed > 0 {
            bail!("{}: {} requests failed: {}", kind.name(), outcome.failed, outcome.errors.join("; "));
        }
        let mut client = Client::new(&system.query_url)?.with_timeout(Duration::from_secs(300));
        let path = if kind == Kind::Ours { "/-/cut" } else { "/api/v1/admin/tsdb/snapshot" };
        let (status, text) = client.send("POST", path, &[], Bytes::new()).await?;
        if status != 200 {
            bail!("{path} answered {status}: {}", String::from_utf8_lossy(&text));
        }
        let block = measure(&data, kind, outcome.samples, series as u64)
            .with_context(|| format!("blocks of {}", kind.name()))?;
        bench.say(&format!(
            "    {} block, {:.3} B per sample, of which chunks {:.3}",
            block.blocks, block.bytes_per_sample, block.chunk_bytes_per_sample
        ));
        out.push(block);
        system.stop()?;
        bench.drop_data(&data);
    }
    Ok(out)
}

/// All blocks below a folder; a copy of one in a bucket counts once.
fn measure(data: &Path, kind: Kind, samples: u64, series: u64) -> Result<Block> {
    let mut folders =
        folders_where(data, &|path| path.join("index").is_file() && path.join("chunks").is_dir());
    folders.sort_by_key(|path| path.file_name().map(|name| name.to_owned()));
    folders.dedup_by_key(|path| path.file_name().map(|name| name.to_owned()));
    if folders.is_empty() {
        bail!("no block was written");
    }
    let mut out =
        Block { server: kind.name().to_owned(), series, samples, blocks: folders.len(), ..Block::default() };
    for folder in &folders {
        out.index_bytes += std::fs::metadata(folder.join("index"))?.len();
        out.chunk_bytes += folder_size(&folder.join("chunks"));
    }
    out.bytes_per_sample = (out.index_bytes + out.chunk_bytes) as f64 / samples as f64;
    out.chunk_bytes_per_sample = out.chunk_bytes as f64 / samples as f64;
    Ok(out)
}
