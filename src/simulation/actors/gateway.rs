//! The store: looks for new blocks in the bucket now and then, and shows what it has found.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::BlockId;
use bucket::Bucket;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Labels, TimeRange};
use parking_lot::Mutex;
use receive::simulated::Reader;
use runtime::{Threads, World};
use testkit::{MemDisk, SeededChance};

use crate::actors::Who;
use crate::breaks::Break;
use crate::network::{GATEWAY, Network};
use crate::note;
use crate::oracle::{self, Opened};
use crate::plan::Plan;
use crate::steps::SimClock;
use crate::store::Store;

/// A store gateway.
pub struct Gateway {
    network: Arc<Network>,
    bucket: Bucket,
    world: World,
    shown: Mutex<BTreeMap<BlockId, Arc<Opened>>>,
    broken: Option<Break>,
    plan: Plan,
}

impl Gateway {
    pub fn new(
        plan: &Plan,
        network: &Arc<Network>,
        store: &Arc<Store>,
        broken: Option<Break>,
    ) -> Arc<Gateway> {
        let clock = Arc::new(SimClock::new(tokio::time::Instant::now()));
        let (chance, disk) = (Arc::new(SeededChance::new(1)), Arc::new(MemDisk::new()));
        let world = World { clock, chance, disk, threads: Threads::Real };
        let bucket = Bucket::over(Arc::clone(store) as _, "simulated", &world);
        let network = Arc::clone(network);
        Arc::new(Gateway { network, bucket, world, shown: Mutex::default(), broken, plan: plan.clone() })
    }

    /// Looks for blocks for as long as it is let.
    pub async fn run(self: Arc<Gateway>) {
        let Some(ring) = &self.plan.ring else { return };
        loop {
            tokio::time::sleep(ring.look).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let Ok(there) = self.bucket.list_blocks().await else { return };
        for id in there {
            if self.shown.lock().contains_key(&id) || self.overlooks(id) {
                continue;
            }
            // What cannot be had now is looked for again.
            if let Ok(Some(opened)) = oracle::fetch(&self.bucket, &self.world, id).await {
                note!(self.network.trace, "the store shows {id}");
                self.shown.lock().insert(id, Arc::new(opened));
            }
        }
    }

    fn overlooks(&self, id: BlockId) -> bool {
        self.broken == Some(Break::StoreLies) && id.to_string().bytes().all(|byte| byte != b'7')
    }

    /// All that it shows at this moment.
    pub fn blocks(&self) -> Vec<Arc<Opened>> {
        self.shown.lock().values().cloned().collect()
    }

    /// The way of a receiver that asks whether its blocks are shown.
    pub fn reader(self: &Arc<Gateway>, who: &Arc<Who>) -> Arc<dyn Reader> {
        Arc::new(Asked { gateway: Arc::clone(self), who: Arc::clone(who) })
    }
}

struct Asked {
    gateway: Arc<Gateway>,
    who: Arc<Who>,
}

impl Reader for Asked {
    fn shows<'a>(&'a self, id: &'a str, _: &'a Labels, _: TimeRange) -> BoxFuture<'a, Result<bool, String>> {
        async move {
            let Gateway { network, shown, broken, .. } = &*self.gateway;
            let asked = async {
                if !network.hop(self.who.seat, GATEWAY).await {
                    return Err("the store is unreachable".to_owned());
                }
                let lies = *broken == Some(Break::StoreLies);
                let shown = lies || shown.lock().keys().any(|there| there.to_string() == id);
                match network.hop(GATEWAY, self.who.seat).await {
                    true => Ok(shown),
                    false => Err("connection reset".to_owned()),
                }
            };
            let answer = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
            if !self.who.is_alive() {
                return std::future::pending().await;
            }
            answer.unwrap_or_else(|_| Err("no answer in time".to_owned()))
        }
        .boxed()
    }
}
