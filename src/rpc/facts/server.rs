//! Serves a subject: one call at a time on a blocking thread, its answer in frames.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use runtime::World;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use wire::pb::thanos as pb;

use super::{Exemplars, Frame, Metadata, Rules, Statistics, Subject, Targets, Tell};
use crate::call::{self, CallBudget, RaiseOnDrop};
use crate::status_from_error;

/// Calls of one subject that are worked on at once; the others wait.
const CONCURRENT: usize = 8;

/// The gRPC face of somebody who can [`Tell`]. Cheap to clone.
pub struct FactServer<S: Subject> {
    teller: Arc<dyn Tell<S>>,
    budget: CallBudget,
    permits: Arc<Semaphore>,
    world: World,
}

impl<S: Subject> Clone for FactServer<S> {
    fn clone(&self) -> FactServer<S> {
        FactServer {
            teller: self.teller.clone(),
            budget: self.budget.clone(),
            permits: self.permits.clone(),
            world: self.world.clone(),
        }
    }
}

type Frames<S> = BoxStream<'static, Result<<S as Subject>::Response, Status>>;

impl<S: Subject> FactServer<S> {
    /// `budget` bounds what answers hold while they are gathered and until they are sent.
    pub fn new(teller: Arc<dyn Tell<S>>, budget: impl Into<CallBudget>, world: World) -> FactServer<S> {
        FactServer { teller, budget: budget.into(), permits: Arc::new(Semaphore::new(CONCURRENT)), world }
    }

    async fn answer(&self, request: Request<S::Request>) -> Result<Response<Frames<S>>, Status> {
        let (metadata, _, mut body) = request.into_parts();
        let partial = call::partial_of(false, *S::strategy(&mut body));
        let context = call::context(&metadata, self.world.clock.monotonic(), &self.budget, partial);
        let guard = RaiseOnDrop(context.cancel.clone());
        let permits = self.permits.clone();
        let permit = permits.acquire_owned().await.map_err(|_| Status::unavailable("shutting down"))?;
        let (teller, tenant) = (self.teller.clone(), call::tenant_of(&metadata));
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut told = teller.tell(&body, tenant.as_deref(), &context)?;
            if told.held.is_none() {
                // Texts in memory take about twice what they take on the wire.
                let bytes = told.items.iter().map(|item| 2 * item.encoded_len() as u64).sum();
                told.held = Some(context.budget.reserve(bytes)?);
            }
            Ok::<_, storage::Error>(told)
        });
        let told =
            done.await.map_err(|error| Status::internal(format!("answering ended abnormally: {error}")))?;
        drop(guard);
        let told = told.map_err(|error| status_from_error(&error))?;
        let held = told.held;
        let frames =
            told.warnings.into_iter().map(Frame::Warning).chain(told.items.into_iter().map(Frame::Item));
        let frames: Vec<_> = frames.map(S::write).collect();
        let frames = stream::iter(frames).map(move |frame| {
            let _until_sent = &held;
            Ok(frame)
        });
        Ok(Response::new(frames.boxed()))
    }
}

#[tonic::async_trait]
impl pb::rules_server::Rules for FactServer<Rules> {
    type RulesStream = Frames<Rules>;

    async fn rules(&self, request: Request<pb::RulesRequest>) -> Result<Response<Frames<Rules>>, Status> {
        self.answer(request).await
    }
}

#[tonic::async_trait]
impl pb::targets_server::Targets for FactServer<Targets> {
    type TargetsStream = Frames<Targets>;

    async fn targets(
        &self,
        request: Request<pb::TargetsRequest>,
    ) -> Result<Response<Frames<Targets>>, Status> {
        self.answer(request).await
    }
}

#[tonic::async_trait]
impl pb::exemplars_server::Exemplars for FactServer<Exemplars> {
    type ExemplarsStream = Frames<Exemplars>;

    async fn exemplars(
        &self,
        request: Request<pb::ExemplarsRequest>,
    ) -> Result<Response<Frames<Exemplars>>, Status> {
        self.answer(request).await
    }
}

#[tonic::async_trait]
impl pb::metadata_server::Metadata for FactServer<Metadata> {
    type MetricMetadataStream = Frames<Metadata>;

    async fn metric_metadata(
        &self,
        request: Request<pb::MetricMetadataRequest>,
    ) -> Result<Response<Frames<Metadata>>, Status> {
        self.answer(request).await
    }
}

#[tonic::async_trait]
impl pb::status_server::Status for FactServer<Statistics> {
    type TSDBStatisticsStream = Frames<Statistics>;

    async fn tsdb_statistics(
        &self,
        request: Request<pb::TsdbStatisticsRequest>,
    ) -> Result<Response<Frames<Statistics>>, Status> {
        self.answer(request).await
    }
}
