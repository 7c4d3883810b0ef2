//! Asks a peer about a subject and reads its whole answer, within the query's budget.

use model::Kind;
use prost::Message;
use storage::{Context, Error};
use tonic::Code;

use super::{Frame, Subject, Told};
use crate::call;
use crate::metrics::client_handled;
use crate::store::StoreClient;

impl StoreClient {
    /// What the peer knows of subject `S`. Blocks the calling thread; ends early when `context` does.
    pub fn ask<S: Subject>(&self, request: &S::Request, context: &Context) -> Result<Told<S::Item>, Error> {
        let mut request = request.clone();
        *S::strategy(&mut request) = call::strategy(context);
        let inner = self.inner.clone();
        let budget = context.budget.clone();
        let work = async move {
            let call = S::call(inner.channel.clone(), inner.request(request));
            let mut frames = inner.within(S::METHOD.0, call).await?;
            let mut told = Told { held: Some(budget.reserve(0)?), ..Told::default() };
            while let Some(frame) = inner.frame(S::METHOD.0, &mut frames).await? {
                match S::read(frame) {
                    Some(Frame::Item(item)) => {
                        if let Some(held) = &mut told.held {
                            // Texts in memory take about twice what they take on the wire.
                            held.grow(2 * item.encoded_len() as u64)?;
                        }
                        told.items.push(item);
                    }
                    Some(Frame::Warning(text)) => told.warnings.push(format!("{}: {text}", inner.address)),
                    None => {
                        return Err(Error::new(
                            Kind::Internal,
                            format!("{}: an answer without content", inner.address),
                        ));
                    }
                }
            }
            client_handled(S::METHOD.0, Code::Ok);
            Ok(told)
        };
        self.inner.wait(context, work)
    }
}
