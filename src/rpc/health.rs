//! `grpc.health.v1.Health`: serving once the node says that it is ready.

use std::sync::Arc;

use wire::pb::grpc::health::v1::health_check_response::ServingStatus;
use wire::pb::grpc::health::v1::health_server::{self, HealthServer};
use wire::pb::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

use futures::stream::{self, Stream, StreamExt};
use std::pin::Pin;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How often a watcher is told of a change.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Answers for the whole process, whatever service is asked for.
#[derive(Clone)]
pub struct Health {
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Health {
    pub fn new(ready: impl Fn() -> bool + Send + Sync + 'static) -> Health {
        Health { ready: Arc::new(ready) }
    }

    pub(crate) fn into_service(self) -> HealthServer<Health> {
        HealthServer::new(self)
    }

    fn status(&self) -> ServingStatus {
        if (self.ready)() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: self.status() as i32 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = stream::unfold((self.clone(), None), |(health, told)| async move {
            loop {
                let now = health.status();
                if told != Some(now) {
                    let answer = HealthCheckResponse { status: now as i32 };
                    return Some((Ok(answer), (health, Some(now))));
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}
