//! The contract for what metrics mean: a filter and a limit go in, types, helps and units come out.

use std::collections::BTreeMap;

use model::{Meaning, MetricMetadata, TenantId};

use crate::{Context, Error, Notes};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataRequest {
    /// Whose metrics; none asks for everybody's, where whoever asks may see them.
    pub tenant: Option<TenantId>,
    /// One metric alone.
    pub metric: Option<String>,
    /// At most so many metrics.
    pub limit: Option<usize>,
}

/// What is said of metrics, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meanings {
    /// Each different thing that is said of a metric, once.
    pub metrics: BTreeMap<String, Vec<Meaning>>,
    pub notes: Notes,
}

impl Meanings {
    /// Adds what is said of a metric unless it is there already; false where it is beyond `limit`.
    pub fn add(&mut self, said: MetricMetadata, limit: Option<usize>) -> bool {
        let full = limit.is_some_and(|limit| self.metrics.len() >= limit);
        if full && !self.metrics.contains_key(&said.metric) {
            return false;
        }
        let all = self.metrics.entry(said.metric).or_default();
        if !all.contains(&said.meaning) {
            all.push(said.meaning);
        }
        true
    }
}

/// Somebody who knows what metrics mean. Blocks; runs on the pools kept for queries.
pub trait MetadataSource: Send + Sync {
    fn metadata(&self, request: &MetadataRequest, context: &Context) -> Result<Meanings, Error>;
}
