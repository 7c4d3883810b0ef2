//! The door of the crate: a request in, a result out.
//!
//! Holds the settings, attaches deadline and budget to one evaluation and runs parse, plan and exec in turn.
//! It knows neither where series come from nor who asked.

use std::sync::Arc;

use model::Timestamp;
use runtime::World;
use storage::{Context, Select};

use crate::{EngineSettings, Error, QueryResult};

/// A query at one time.
#[derive(Clone, Debug, Default)]
pub struct InstantRequest {
    pub query: String,
    /// Milliseconds since the epoch.
    pub time: Timestamp,
    /// Instead of the engine's lookback, in milliseconds.
    pub lookback_override: Option<i64>,
    /// Coarsest downsampling that may be used, in milliseconds; 0 means raw samples only.
    pub max_resolution: i64,
}

/// A query at every step of a time range; both ends belong to it.
#[derive(Clone, Debug, Default)]
pub struct RangeRequest {
    pub query: String,
    pub start: Timestamp,
    pub end: Timestamp,
    /// Milliseconds, greater than 0.
    pub step: i64,
    /// Instead of the engine's lookback, in milliseconds.
    pub lookback_override: Option<i64>,
    /// Coarsest downsampling that may be used, in milliseconds; 0 means raw samples only.
    pub max_resolution: i64,
}

/// Evaluates queries. Cheap to clone; holds no data.
#[derive(Clone)]
pub struct Engine {
    settings: Arc<EngineSettings>,
    world: World,
}

impl Engine {
    pub fn new(settings: EngineSettings, world: World) -> Engine {
        Engine { settings: Arc::new(settings), world }
    }

    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// Evaluates at one time. Blocks; to be called on a pool kept for queries.
    pub fn instant(
        &self,
        request: &InstantRequest,
        select: Arc<dyn Select>,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        let _ = (request, select, context, &self.world);
        Err(Error::unsupported("evaluation"))
    }

    /// Evaluates at every step of a range; the value is always a matrix.
    pub fn range(
        &self,
        request: &RangeRequest,
        select: Arc<dyn Select>,
        context: &Context,
    ) -> Result<QueryResult, Error> {
        let _ = (request, select, context, &self.world);
        Err(Error::unsupported("evaluation"))
    }
}
