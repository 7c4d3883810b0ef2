//! `thanos.Query`: PromQL over gRPC, by which queriers stack and rulers ask.
//!
//! Times on the wire are whole seconds. A plan without a text (Thanos's distributed engine) is refused: what is
//! served is the language, not the plan of one engine's version.

mod client;
mod server;

use model::{Kind, Labels, Matcher, Timestamp};
use storage::{Error, Reservation};
use wire::pb::prometheus_copy::TimeSeries;
use wire::pb::thanos::ShardInfo;

pub use client::Told;
pub use server::QueryServer;

/// A query as it came over the wire, in our units.
#[derive(Clone, Debug, Default)]
pub struct QueryCall {
    pub query: String,
    pub times: CallTimes,
    /// Seconds; none is the server's own limit.
    pub timeout_s: Option<i64>,
    /// Milliseconds; 0 means raw samples only.
    pub max_resolution: i64,
    /// Instead of the configured ones, unless empty.
    pub replica_labels: Vec<String>,
    pub store_matchers: Vec<Vec<Matcher>>,
    pub dedup: bool,
    pub partial: bool,
    pub shard: Option<ShardInfo>,
    /// Milliseconds.
    pub lookback: Option<i64>,
    /// The tenant that the caller names.
    pub tenant: Option<String>,
}

/// The times of a call, in milliseconds but in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTimes {
    Instant(Timestamp),
    Range { start: Timestamp, end: Timestamp, step: i64 },
}

impl Default for CallTimes {
    fn default() -> CallTimes {
        CallTimes::Instant(0)
    }
}

/// An answer; its series are made one by one while they are sent.
pub struct QueryTold {
    pub warnings: Vec<String>,
    pub series: Box<dyn Iterator<Item = TimeSeries> + Send>,
    pub samples: u64,
    pub peak_samples: u64,
    /// Bytes held until all is sent.
    pub held: Option<Reservation>,
}

/// Somebody who evaluates queries. Dropping the future ends the evaluation.
#[tonic::async_trait]
pub trait QueryBackend: Send + Sync + 'static {
    async fn query(&self, call: QueryCall) -> Result<QueryTold, Error>;
}

/// Labels as the messages carry them.
pub fn labels_to_pb(labels: &Labels) -> Vec<wire::pb::thanos::Label> {
    crate::convert::labels_to_pb(labels)
}

/// Whole seconds as milliseconds.
fn ms(seconds: i64, what: &str) -> Result<i64, Error> {
    seconds
        .checked_mul(1000)
        .ok_or_else(|| Error::new(Kind::Invalid, format!("{what} of {seconds} seconds is out of range")))
}
