//! Places writes by the epoch that was agreed on last, as far as it is known here; for routers and members alike.

use std::sync::Arc;

use agreed::State;
use api::Readiness;
use control::Handle;
use runtime::{Shutdown, World};

use crate::Error;
use crate::write::Writer;

/// Follows until the shutdown; ready from the first epoch on.
pub async fn run(
    handle: Handle,
    writer: Arc<Writer>,
    readiness: Readiness,
    world: World,
    until: Shutdown,
) -> Result<(), Error> {
    let mut seen = handle.seen();
    let mut ready = !writer.ring().is_unknown();
    loop {
        let state = Arc::clone(&seen.borrow_and_update().state);
        take(&state, &writer, &world);
        if !ready && !writer.ring().is_unknown() {
            ready = true;
            readiness.set_ready();
        }
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            changed = seen.changed() => if changed.is_err() {
                // The control plane has ended here; the last epoch stays.
                until.wait().await;
                return Ok(());
            }
        }
    }
}

/// Takes the current epoch over.
pub fn take(state: &State, writer: &Arc<Writer>, world: &World) {
    let Some(epoch) = state.current() else { return };
    match writer.learn(&state.cluster, state.generation, epoch.number, &epoch.view) {
        // Limits of tenants are shares of what their ring has.
        Ok(true) => crate::work::apply_limits(writer, world),
        Ok(false) => {}
        Err(error) => tracing::error!(epoch = epoch.number, %error, "a ring epoch cannot be used"),
    }
}
