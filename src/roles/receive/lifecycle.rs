//! The operator's doors: cut and ship now, read the ring again, and whether anything here is still needed.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;

use crate::ship::Ship;
use crate::write::Writer;

/// What the doors need.
pub struct Lifecycle {
    pub writer: Arc<Writer>,
    pub ship: Arc<Ship>,
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
    let writer = Arc::clone(&lifecycle.writer);
    match tokio::task::spawn_blocking(move || writer.ring().reload()).await {
        Ok(Ok(true)) => "ring reloaded\n".into_response(),
        Ok(Ok(false)) => "nothing has changed\n".into_response(),
        Ok(Err(error)) => {
            let text = format!("{error}; the ring before it stays in use\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn drained(State(lifecycle): State<Arc<Lifecycle>>) -> Response {
    let Some(engine) = lifecycle.writer.local().engine().cloned() else { return starting() };
    let left = lifecycle.ship.left_here(&engine);
    match left.is_empty() {
        true => "nothing here is needed any more\n".into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("still needed: {}\n", left.join("; "))).into_response()
        }
    }
}
