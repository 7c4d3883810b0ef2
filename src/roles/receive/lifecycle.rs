//! The operator's doors: cut and ship now, read the ring again, and whether anything here is still needed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use runtime::World;

use crate::epochs::member::Governed;
use crate::limits::Limits;
use crate::ship::Ship;
use crate::write::Writer;

/// What the doors need.
pub struct Lifecycle {
    pub writer: Arc<Writer>,
    pub ship: Arc<Ship>,
    pub limits: Arc<Limits>,
    pub governed: Arc<Governed>,
    /// As the ring has it.
    pub address: String,
    /// See [`Governed::drained`].
    pub grace: Duration,
    pub world: World,
    /// A loopback listener, or the operator said so.
    pub allowed: bool,
}

pub fn router(lifecycle: Arc<Lifecycle>) -> Router {
    Router::new()
        .route("/-/cut", post(cut))
        .route("/-/reload", post(reload))
        .route("/-/drained", get(drained))
        .with_state(lifecycle)
}

fn forbidden() -> Response {
    let text = "lifecycle requests are served on a loopback listener, or with --web.enable-lifecycle\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

fn starting() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "this receiver is starting: its log is being replayed\n")
        .into_response()
}

async fn cut(State(lifecycle): State<Arc<Lifecycle>>) -> Response {
    if !lifecycle.allowed {
        return forbidden();
    }
    let Some(engine) = lifecycle.writer.local().engine().cloned() else { return starting() };
    // The work goes on if the one who asked leaves.
    let ship = Arc::clone(&lifecycle.ship);
    let work = tokio::spawn(async move { ship.cut_and_ship(&engine, true).await });
    match work.await {
        Ok(Ok(round)) if round.left.is_empty() => {
            let mut text = format!("{} blocks cut, {} uploaded\n", round.cut.len(), round.uploaded);
            text.extend(round.cut.iter().map(|dir| format!("{}\n", dir.display())));
            text.into_response()
        }
        Ok(Ok(round)) => {
            let text =
                format!("{} blocks cut, not all uploaded: {}\n", round.cut.len(), round.left.join("; "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn reload(State(lifecycle): State<Arc<Lifecycle>>) -> Response {
    if !lifecycle.allowed {
        return forbidden();
    }
    let seen = Arc::clone(&lifecycle);
    let threads = lifecycle.world.threads.clone();
    let work = threads.blocking(move || {
        // Each by itself: what is wrong with one must not keep the other.
        let outcomes = [("ring", seen.writer.ring().reload()), ("limits", seen.limits.reload())];
        if outcomes.iter().any(|(_, outcome)| matches!(outcome, Ok(true))) {
            crate::work::apply_limits(&seen.writer, &seen.world);
        }
        outcomes
    });
    let outcomes = match work.await {
        Ok(outcomes) => outcomes,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let mut text = String::new();
    let mut status = StatusCode::OK;
    for (what, outcome) in outcomes {
        match outcome {
            Ok(false) => {}
            Ok(true) => text.push_str(&format!("{what} reloaded\n")),
            Err(error) => {
                status = StatusCode::INTERNAL_SERVER_ERROR;
                text.push_str(&format!("{error}; the {what} before it stays in use\n"));
            }
        }
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    (status, text).into_response()
}

async fn drained(State(lifecycle): State<Arc<Lifecycle>>) -> Response {
    let Some(engine) = lifecycle.writer.local().engine().cloned() else { return starting() };
    if let Err(why) = lifecycle.governed.drained(&lifecycle.address, lifecycle.grace) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("still needed: {why}\n")).into_response();
    }
    let left = lifecycle.ship.left_here(&engine);
    match left.is_empty() {
        true if lifecycle.governed.handle().is_some_and(|handle| handle.about().voter) => {
            "nothing here is needed any more but its vote: it is one of --control.voters\n".into_response()
        }
        true => "nothing here is needed any more\n".into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("still needed: {}\n", left.join("; "))).into_response()
        }
    }
}
