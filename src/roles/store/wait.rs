//! Lets a thread that may block wait for a request, no longer than its query lives.

use std::future::Future;
use std::time::Duration;

use runtime::World;
use storage::Context;
use tokio::runtime::Handle;

use crate::Error;

/// How soon a query that was given up is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// What a blocking reader needs in order to wait.
#[derive(Clone)]
pub(crate) struct Waiter {
    pub handle: Handle,
    pub world: World,
}

impl Waiter {
    /// Runs `work` to its end, or to that of the query.
    pub(crate) fn wait<T>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.check(context)?;
        self.handle.block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    () = tokio::time::sleep(LOOK) => self.check(context)?,
                }
            }
        })
    }

    pub(crate) fn check(&self, context: &Context) -> Result<(), Error> {
        context.cancel.check(self.world.clock.monotonic())
    }
}
