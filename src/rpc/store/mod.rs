//! The StoreAPI: series out of views as a server, series of a peer as a client.

mod answer;
mod client;
mod frames;
mod labels;
mod server;
mod shape;
mod shown;

use std::sync::Arc;

use model::{Labels, Matcher, TimeRange};
use storage::{Error, Select};

pub use answer::{PeerSeries, PeerSet, Waited, Watch};
pub(crate) use client::Inner;
pub use client::StoreClient;
pub use server::{StoreOptions, StoreServer};
pub use shape::in_shard;

use crate::Advertised;

/// Somebody whose series are served.
pub trait StoreBackend: Send + Sync + 'static {
    /// What Info says; cheap, asked often.
    fn advertised(&self) -> Advertised;

    /// What there is to ask for `range`: one view for each set of external labels (a tenant, a block group).
    /// Views whose labels contradict `matchers` may be left out, or not: the server looks again. May block.
    fn views(&self, range: TimeRange, matchers: &[Matcher]) -> Result<Vec<StoreView>, Error>;

    /// As [`StoreBackend::views`], for a caller who names a tenant, or none. Only those who keep tenants apart
    /// at this door look at it.
    fn views_for(
        &self,
        _tenant: Option<&str>,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<StoreView>, Error> {
        self.views(range, matchers)
    }

    /// ULIDs of the blocks that are served now, where there are blocks that others wait for.
    fn blocks(&self) -> Option<Vec<String>> {
        None
    }
}

/// Series that share external labels.
#[derive(Clone)]
pub struct StoreView {
    /// Laid over every series of the view; on equal names they win.
    pub labels: Labels,
    /// Times of which it may have samples.
    pub range: TimeRange,
    /// Its series, without the external labels.
    pub select: Arc<dyn Select>,
}
