//! Load tests: realistic remote-write traffic, measured beside peers, then read back and compared bit for bit.
//!
//! Speaks public protocols only, so that it drives anything that takes remote write and answers PromQL.

mod cli;
mod demo;
mod http;
mod ingest;
mod process;
mod report;
mod scenarios;
mod servers;
mod verify;
mod workload;

use std::process::ExitCode;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match cli::run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}
