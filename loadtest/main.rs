//! Load tests: realistic remote-write traffic, measured beside peers, then read back and compared bit for bit.
//!
//! Speaks public protocols only, so that it drives anything that takes remote write and answers PromQL.

mod cli;
mod demo;
mod doors;
mod engine;
mod floor;
mod http;
mod ingest;
mod instructions;
mod overload;
mod peers;
mod process;
mod queries;
mod report;
mod ring;
mod scenarios;
mod servers;
mod verify;
mod workload;

use std::process::ExitCode;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    // Dropping a run ends its servers and removes its folders; a signal must do no less.
    let ended = tokio::select! {
        ended = cli::run() => ended,
        () = asked_to_end() => Err(anyhow::anyhow!("asked to end")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
