//! Carries requests to other nodes over connections that are made when they are first needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::{Error, Request, Response, Transport};
use model::Kind;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonic::Code;
use tonic::transport::Channel;
use wire::pb::tributary::control::v1::CallRequest;
use wire::pb::tributary::control::v1::control_client::ControlClient;

use crate::channel::{self, ClientOptions};
use crate::error_from_status;

/// Connections kept; nodes that are not spoken to any more give way.
const CONNECTIONS: usize = 256;

/// The way to every node, by address. Cheap to clone.
#[derive(Clone)]
pub struct GrpcTransport {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    runtime: Handle,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl GrpcTransport {
    /// Connects on the runtime `runtime`, with TLS where the options say so.
    pub fn new(options: ClientOptions, runtime: &Handle) -> GrpcTransport {
        let inner = Inner { options, runtime: runtime.clone(), channels: Mutex::default() };
        GrpcTransport { inner: Arc::new(inner) }
    }

    fn channel(&self, address: &str) -> Result<Channel, Error> {
        let mut channels = self.inner.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = channel::lazy(address, &self.inner.options, &self.inner.runtime)?;
        if channels.len() >= CONNECTIONS {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

#[async_trait::async_trait]
impl Transport for GrpcTransport {
    async fn call(&self, address: &str, request: Request) -> Result<Response, Error> {
        let (name, patience) = (request.name(), request.patience());
        let wrong = |e: serde_json::Error| {
            Error::new(Kind::Internal, format!("{address}: what is said of {name} cannot be read: {e}"))
        };
        let bytes = serde_json::to_vec(&request).map_err(wrong)?;
        let mut client = ControlClient::new(self.channel(address)?)
            .max_decoding_message_size(super::MAX_BYTES)
            .max_encoding_message_size(super::MAX_BYTES);
        let calling = client.call(CallRequest { request: bytes });
        let counted = |outcome: &'static str| {
            metrics::counter!("tributary_control_calls_total", "request" => name, "outcome" => outcome)
                .increment(1);
        };
        match tokio::time::timeout(patience, calling).await {
            Ok(Ok(answer)) => {
                counted("answered");
                serde_json::from_slice(&answer.into_inner().response).map_err(wrong)
            }
            Ok(Err(status)) => {
                counted("failed");
                // A node that runs without a control plane, or in another version, may have one later.
                let mut error = error_from_status(address, &status);
                if status.code() == Code::Unimplemented {
                    error.message = format!(
                        "{address} runs without a control plane; was it started with --control.voters?"
                    );
                }
                if error.kind != Kind::Invalid {
                    error.kind = Kind::Unavailable;
                }
                Err(error)
            }
            Err(_) => {
                counted("late");
                let message = format!("{address} did not answer within {patience:?} ({name})");
                Err(Error::new(Kind::Unavailable, message))
            }
        }
    }
}
