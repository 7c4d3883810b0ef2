//! Rounds of a receiver that show how it is: gauges, the memory of the catalog, active series.

use std::sync::Arc;
use std::time::Duration;

use catalog::Catalog;
use model::Kind;
use runtime::{Shutdown, World};
use tsdb::Tsdb;

use crate::Error;
use crate::http::WriteDoor;

/// How often the active series of tenants near a limit are counted, and how many times later those of all.
const COUNT_EVERY: Duration = Duration::from_secs(15);
const COUNT_ALL_AFTER: u32 = 20;

pub async fn count_active(engine: Arc<Tsdb>, world: World, until: Shutdown) -> Result<(), Error> {
    for round in 0u32.. {
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
        let (engine, now) = (Arc::clone(&engine), world.clock.now_ms());
        let all = round.is_multiple_of(COUNT_ALL_AFTER);
        if let Err(error) = world.threads.blocking(move || engine.count_active(now, all)).await {
            tracing::error!(%error, "counting of active series broke off");
        }
    }
    Ok(())
}

/// Shows what the catalog holds in memory.
pub async fn measure(catalog: Catalog, until: Shutdown) -> Result<(), Error> {
    loop {
        let shown = catalog.clone();
        // It waits for the disk where the catalog is being opened anew.
        let measured = tokio::task::spawn_blocking(move || shown.measure()).await;
        measured.map_err(|error| Error::with_source(Kind::Internal, "measuring the catalog", error))?;
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(15)) => {}
        }
    }
}

/// How often series that did not come for long are looked for.
const IDENTITY_SWEEP: Duration = Duration::from_secs(60);

pub async fn gauges(
    door: Arc<WriteDoor>,
    of_peers: Arc<identity::Identities>,
    until: Shutdown,
) -> Result<(), Error> {
    let mut swept = door.world.clock.monotonic();
    loop {
        let now = door.world.clock.monotonic();
        if now.saturating_duration_since(swept) >= IDENTITY_SWEEP {
            swept = now;
            let (identities, now) = (Arc::clone(&door.identities), door.world.clock.now_ms());
            let of_peers = Arc::clone(&of_peers);
            let sweep = move || match Arc::ptr_eq(&identities, &of_peers) {
                true => identities.sweep(now),
                false => identities.sweep(now) + of_peers.sweep(now),
            };
            // Where nobody has time for it, there is a next time.
            if let Ok(forgotten) = door.pool.run(sweep).await {
                metrics::counter!("tributary_identity_forgotten_total").increment(forgotten as u64);
            }
        }
        let identities = door.identities.stats();
        metrics::gauge!("tributary_identity_series").set(identities.series as f64);
        metrics::gauge!("tributary_identity_bytes").set(identities.bytes as f64);
        metrics::gauge!("tributary_receive_inflight_bytes").set(door.admission.held_bytes() as f64);
        for peer in door.writer.ring().current().peers() {
            let labels = [("peer", peer.address().to_owned())];
            metrics::gauge!("tributary_receive_peer_queue_bytes", &labels[..])
                .set(peer.queued_bytes() as f64);
            metrics::gauge!("tributary_receive_peer_breaker", &labels[..])
                .set(f64::from(peer.breaker_level()));
            metrics::gauge!("tributary_peer_names", &labels[..]).set(peer.names().unwrap_or(0) as f64);
        }
        tokio::select! {
            biased;
            () = until.wait() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}
