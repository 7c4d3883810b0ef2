//! How voters reach each other, and openraft's network on top of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Kind;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode, OptionalSend, Snapshot};

use parking_lot::Mutex;

use crate::Error;
use crate::message::{Request, Response};
use crate::types::{Types, Vote};

/// Carries a request to the node at an address and brings its answer. It gives up by itself after
/// [`Request::patience`].
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    async fn call(&self, address: &str, request: Request) -> Result<Response, Error>;
}

/// How often in a row a voter has not answered before it is said.
const SILENT: u32 = 4;

/// Makes openraft's connections.
#[derive(Clone)]
pub(crate) struct Network {
    transport: Arc<dyn Transport>,
    /// How often in a row each voter has not answered.
    silent: Arc<Mutex<BTreeMap<u64, u32>>>,
}

impl Network {
    pub fn new(transport: Arc<dyn Transport>) -> Network {
        Network { transport, silent: Arc::default() }
    }
}

/// To one voter.
pub(crate) struct Line {
    network: Network,
    id: u64,
    node: BasicNode,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Line;

    async fn new_client(&mut self, id: u64, node: &BasicNode) -> Line {
        Line { network: self.clone(), id, node: node.clone() }
    }
}

impl Line {
    async fn call(&self, request: Request) -> Result<Response, Unreachable> {
        let answer = match self.network.transport.call(&self.node.addr, request).await {
            Ok(Response::Stranger(id)) => Err(Error::new(
                Kind::Unavailable,
                format!("{} is voter {id} now, not {}", self.node.addr, self.id),
            )),
            other => other,
        };
        self.tell(answer.as_ref().err());
        answer.map_err(|error| Unreachable::new(&error))
    }

    /// Says once that a voter is silent, and once that it is not any more.
    fn tell(&self, error: Option<&Error>) {
        let times = {
            let mut silent = self.network.silent.lock();
            match error {
                None => silent.remove(&self.id),
                Some(_) => {
                    let times = silent.entry(self.id).or_default();
                    *times = times.saturating_add(1);
                    Some(*times)
                }
            }
        };
        let (voter, id) = (&self.node.addr, self.id);
        match (error, times) {
            (Some(error), Some(SILENT)) => {
                tracing::warn!(voter, id, %error, "a voter does not answer; nothing can be agreed without a majority");
            }
            (None, Some(SILENT..)) => tracing::info!(voter, id, "a voter that was silent answers again"),
            _ => {}
        }
    }

    fn strange(&self) -> NetworkError {
        NetworkError::new(&AnyError::error(format!(
            "{} answered something else than was asked",
            self.node.addr
        )))
    }
}

type Failure = RPCError<u64, BasicNode, RaftError<u64>>;

impl RaftNetwork<Types> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure> {
        match self.call(Request::Append { to: self.id, rpc }).await? {
            Response::Append(result) => result.map_err(|e| RemoteError::new(self.id, e).into()),
            _ => Err(self.strange().into()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Failure> {
        match self.call(Request::Vote { to: self.id, rpc }).await? {
            Response::Vote(result) => result.map_err(|e| RemoteError::new(self.id, e).into()),
            _ => Err(self.strange().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let state = String::from_utf8(*snapshot.snapshot)
            .map_err(|e| StreamingError::Network(NetworkError::new(&AnyError::new(&e))))?;
        let request = Request::Snapshot { to: self.id, vote, meta: snapshot.meta, state };
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = self.call(request) => answer?,
        };
        match answer {
            Response::Snapshot(result) => {
                result.map_err(|e| StreamingError::RemoteError(RemoteError::new(self.id, e)))
            }
            _ => Err(StreamingError::Network(self.strange())),
        }
    }
}
