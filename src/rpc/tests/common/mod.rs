//! Views in memory and servers on loopback ports of their own.
#![allow(dead_code)] // Each test file uses its own part of this.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use chunk::Encoding;
use model::{Labels, Matcher, TimeRange};
use rpc::{Advertised, Health, ServeOptions, Services, StoreBackend, StoreView, component};
use storage::{
    ChunkData, Context, Error, LabelRequest, Listed, Notes, Select, SelectRequest, SeriesEntry, SeriesSet,
    from_entries,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

pub fn chunk(start: i64, bytes: &[u8]) -> ChunkData {
    ChunkData {
        range: TimeRange::new(start, start + 9),
        encoding: Encoding::Xor,
        bytes: Bytes::copy_from_slice(bytes),
    }
}

pub fn entry(pairs: &[(&str, &str)], chunks: &[ChunkData]) -> SeriesEntry {
    SeriesEntry { labels: labels(pairs), chunks: chunks.to_vec() }
}

/// Series held in memory.
#[derive(Default)]
pub struct Memory {
    entries: Vec<SeriesEntry>,
    pub warning: Option<String>,
}

impl Memory {
    pub fn new(mut entries: Vec<SeriesEntry>) -> Memory {
        entries.sort_by(|a, b| a.labels.cmp(&b.labels));
        Memory { entries, warning: None }
    }

    fn matching(&self, matchers: &[Matcher]) -> impl Iterator<Item = &SeriesEntry> {
        self.entries.iter().filter(|e| Matcher::all_match(matchers, &e.labels))
    }
}

struct Noted(Box<dyn SeriesSet>, Option<String>);

impl SeriesSet for Noted {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        self.0.next()
    }

    fn notes(&mut self) -> Notes {
        Notes { warnings: self.1.iter().cloned().collect(), infos: Vec::new() }
    }
}

impl Select for Memory {
    fn select(&self, request: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        let mut found: Vec<_> = self.matching(&request.matchers).cloned().collect();
        for entry in &mut found {
            entry.chunks.retain(|c| c.range.overlaps(&request.range) && !request.skip_chunks);
        }
        if request.limit > 0 {
            found.truncate(request.limit);
        }
        Ok(Box::new(Noted(from_entries(found), self.warning.clone())))
    }

    fn label_names(&self, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let names: BTreeSet<String> = self
            .matching(&request.matchers)
            .flat_map(|e| e.labels.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
            .collect();
        Ok(Listed { values: names.into_iter().collect(), notes: Notes::default() })
    }

    fn label_values(&self, name: &str, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let values: BTreeSet<String> =
            self.matching(&request.matchers).filter_map(|e| e.labels.get(name).map(str::to_owned)).collect();
        Ok(Listed { values: values.into_iter().collect(), notes: Notes::default() })
    }
}

/// Series without end, counted as they are made.
#[derive(Default)]
pub struct Endless {
    pub made: Arc<AtomicUsize>,
    pub pause: Duration,
}

impl Select for Endless {
    fn select(&self, _: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        struct Set(Arc<AtomicUsize>, Duration);
        impl SeriesSet for Set {
            fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
                std::thread::sleep(self.1);
                let n = self.0.fetch_add(1, SeqCst);
                Ok(Some(entry(&[("n", &format!("{n:09}"))], &[chunk(0, &[0; 100_000])])))
            }
        }
        Ok(Box::new(Set(self.made.clone(), self.pause)))
    }

    fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        Ok(Listed::default())
    }

    fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        Ok(Listed::default())
    }
}

pub struct Backend {
    pub views: Vec<StoreView>,
    pub ready: AtomicBool,
    pub node: Option<rpc::NodeInfo>,
}

impl Backend {
    pub fn new(views: Vec<(Labels, Arc<dyn Select>)>) -> Backend {
        let view = |(labels, select)| StoreView { labels, range: TimeRange::new(0, i64::MAX), select };
        Backend { views: views.into_iter().map(view).collect(), ready: AtomicBool::new(true), node: None }
    }
}

impl StoreBackend for Backend {
    fn advertised(&self) -> Advertised {
        Advertised {
            component: component::RECEIVE,
            label_sets: self.views.iter().map(|v| v.labels.clone()).collect(),
            range: TimeRange::new(0, i64::MAX),
            tsdb_infos: Vec::new(),
            node: self.node.clone(),
            apis: Default::default(),
            ready: self.ready.load(SeqCst),
        }
    }

    fn views(&self, _: TimeRange, _: &[Matcher]) -> Result<Vec<StoreView>, Error> {
        Ok(self.views.clone())
    }
}

/// A server that stops when told, or when dropped.
pub struct Running {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    pub async fn start(add: impl FnOnce(Services) -> Services) -> Running {
        Running::start_at("127.0.0.1:0", add).await
    }

    pub async fn start_at(address: &str, add: impl FnOnce(Services) -> Services) -> Running {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let services = add(Services::new(Health::new(|| true)));
        let options = ServeOptions { grace: Duration::from_secs(2), ..ServeOptions::default() };
        let task = tokio::spawn(rpc::serve(listener, services, options, async {
            let _ = stopped.await;
        }));
        Running { address, stop: Some(stop), task }
    }

    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.task.await.unwrap().unwrap();
    }
}

/// Waits until `done`, at most five seconds.
pub async fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
