//! What nodes tell beside samples: rules, targets, exemplars and figures of their heads.
//!
//! Thanos gives each of these a service of its own with one method of one shape: a request, and a stream of items
//! and warnings. [`Subject`] is that shape; a node answers for a subject by [`Tell`], and is asked by
//! [`crate::StoreClient::ask`].

mod client;
mod meanings;
mod server;
mod subjects;

use storage::{Context, Error, Reservation};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

pub use meanings::{Meaningful, add_metadata, metadata_request, metadata_request_to_pb, metadata_to_pb};
pub use server::FactServer;
pub use subjects::{Exemplars, Metadata, Rules, Statistics, Targets};

use crate::metrics::Method;

/// Something that nodes can be asked about.
pub trait Subject: Sized + Send + Sync + 'static {
    type Request: Clone + Send + Sync + 'static;
    type Response: Send + 'static;
    type Item: prost::Message + 'static;

    /// The one method of its service.
    #[doc(hidden)]
    const METHOD: FactMethod;

    /// Calls a peer.
    fn call(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send;

    /// An item, a warning, or nothing that this version knows.
    fn read(response: Self::Response) -> Option<Frame<Self::Item>>;

    /// The opposite of [`Subject::read`].
    fn write(frame: Frame<Self::Item>) -> Self::Response;

    /// The partial response strategy of a request.
    fn strategy(request: &mut Self::Request) -> &mut i32;
}

/// A method's name in metrics.
#[derive(Clone, Copy, Debug)]
pub struct FactMethod(pub(crate) Method);

/// One frame of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<T> {
    Item(T),
    Warning(String),
}

/// An answer.
#[derive(Debug)]
pub struct Told<T> {
    pub items: Vec<T>,
    pub warnings: Vec<String>,
    /// The items' bytes in the asker's budget.
    pub held: Option<Reservation>,
}

impl<T> Default for Told<T> {
    fn default() -> Told<T> {
        Told { items: Vec::new(), warnings: Vec::new(), held: None }
    }
}

/// Somebody who knows of a subject. Blocks; runs on threads kept for that.
pub trait Tell<S: Subject>: Send + Sync {
    /// `tenant` is the one that the caller names.
    fn tell(
        &self,
        request: &S::Request,
        tenant: Option<&str>,
        context: &Context,
    ) -> Result<Told<S::Item>, Error>;
}
