//! Whether the readers of the bucket have found a block: each store gateway is asked for it, or, where none is named, time
//! enough has passed since it was uploaded for every reader to have searched the bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use block::{BlockId, Meta};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Labels, TimeRange};
use parking_lot::Mutex;
use rpc::{ClientOptions, StoreClient};
use runtime::World;
use secure::ClientTls;
use tokio::time::Instant;

use crate::Error;
use crate::settings::Settings;

/// How long one store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One that reads the bucket for queries.
pub trait Reader: Send + Sync {
    /// Whether it shows the block `id`, which has these labels and times. The error is in words.
    fn shows<'a>(
        &'a self,
        id: &'a str,
        labels: &'a Labels,
        range: TimeRange,
    ) -> BoxFuture<'a, Result<bool, String>>;
}

impl Reader for StoreClient {
    fn shows<'a>(
        &'a self,
        id: &'a str,
        labels: &'a Labels,
        range: TimeRange,
    ) -> BoxFuture<'a, Result<bool, String>> {
        async move { StoreClient::shows(self, id, labels, range).await.map_err(|error| error.message) }
            .boxed()
    }
}

/// Asks the stores.
pub struct Readers {
    stores: Vec<Arc<dyn Reader>>,
    delay: Duration,
    /// Where there are no stores: since when blocks are known to be in the bucket.
    since: Mutex<BTreeMap<BlockId, Instant>>,
}

impl Readers {
    /// Connects to nobody yet; within a tokio runtime.
    pub fn new(settings: &Settings, world: &World, tls: Option<ClientTls>) -> Result<Readers, Error> {
        let options = ClientOptions {
            connect_timeout: PATIENCE,
            response_timeout: Some(PATIENCE),
            tls,
            ..ClientOptions::default()
        };
        let client = |address: &String| {
            let handle = tokio::runtime::Handle::current();
            let client = StoreClient::new(address, options.clone(), world.clone(), handle);
            client.map(|client| Arc::new(client) as Arc<dyn Reader>).map_err(|error| {
                Error::with_source(error.kind, format!("--receive.drain-store {address}: {error}"), error)
            })
        };
        let drain = &settings.drain;
        let stores = drain.stores.iter().map(client).collect::<Result<_, _>>()?;
        Ok(Readers { stores, delay: drain.delay.as_duration(), since: Mutex::default() })
    }

    /// These, instead of those of the settings.
    #[cfg(feature = "simulation")]
    pub fn of(stores: Vec<Arc<dyn Reader>>) -> Readers {
        Readers { stores, delay: Duration::ZERO, since: Mutex::default() }
    }

    /// Whether all of them show the block `id` of the bucket, which has what `meta` says. The error is in words.
    pub async fn show(&self, id: BlockId, meta: &Meta) -> Result<bool, String> {
        if self.stores.is_empty() {
            let since = *self.since.lock().entry(id).or_insert_with(Instant::now);
            return Ok(since.elapsed() >= self.delay);
        }
        let labels: Labels = meta.external_labels().map_err(|error| error.to_string())?;
        let range = TimeRange::new(meta.min_time, meta.max_time);
        for store in &self.stores {
            if !store.shows(&id.to_string(), &labels, range).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
