//! Answers other nodes and operators in the name of a control plane's handle.

use std::sync::Arc;

use control::{About, Handle, Request, Response};
use tokio::sync::watch;
use tonic::Status;
use wire::pb::tributary::control::v1 as pb;
use wire::pb::tributary::control::v1::control_server;

/// The gRPC face of a [`Handle`]. Cheap to clone.
#[derive(Clone)]
pub struct ControlServer {
    handle: Handle,
    describe: Arc<dyn Fn(&mut About) + Send + Sync>,
}

impl ControlServer {
    /// `describe` adds what the node knows of itself: its address, its incarnation, whether it is ready.
    pub fn new(handle: Handle, describe: Arc<dyn Fn(&mut About) + Send + Sync>) -> ControlServer {
        ControlServer { handle, describe }
    }

    pub(crate) fn into_service(self, closing: watch::Receiver<bool>) -> control_server::ControlServer<Open> {
        control_server::ControlServer::new(Open { server: self, closing })
            .max_decoding_message_size(super::MAX_BYTES)
            .max_encoding_message_size(super::MAX_BYTES)
    }
}

/// At a listener.
#[derive(Clone)]
pub(crate) struct Open {
    server: ControlServer,
    closing: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl control_server::Control for Open {
    async fn call(
        &self,
        request: tonic::Request<pb::CallRequest>,
    ) -> Result<tonic::Response<pb::CallResponse>, Status> {
        let request: Request = serde_json::from_slice(&request.into_inner().request).map_err(|e| {
            Status::invalid_argument(format!("a request that this version does not know: {e}"))
        })?;
        let watches = matches!(request, Request::Watch { .. });
        let mut closing = self.closing.clone();
        let mut response = tokio::select! {
            response = self.server.handle.serve(request) => response,
            // Who only waits for news is not waited for.
            _ = closing.wait_for(|closing| *closing), if watches => Response::Watch(None),
        };
        if let Response::About(about) = &mut response {
            (self.server.describe)(about);
        }
        let response =
            serde_json::to_vec(&response).map_err(|e| Status::internal(format!("the answer: {e}")))?;
        Ok(tonic::Response::new(pb::CallResponse { response }))
    }
}
