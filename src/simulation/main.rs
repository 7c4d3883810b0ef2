//! Runs seeds: one aloud to see what happened, or many to see whether anything does.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::Parser;
use simulation::{Break, Options, replay, run};

/// Runs a cluster in one seeded thread.
#[derive(Parser)]
struct Arguments {
    /// The first seed, or the only one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Breaks a rule on purpose.
    #[arg(long = "break", value_enum)]
    broken: Option<Break>,
    /// Prints every event.
    #[arg(long)]
    aloud: bool,
    /// Prints what the nodes log, as RUST_LOG says.
    #[arg(long)]
    logs: bool,
    /// Seeds at once.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Goes on after a violation.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.logs {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let (next, failed, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Relaxed);
                    if at >= arguments.seeds || (failed.load(Relaxed) > 0 && !arguments.keep_going) {
                        return;
                    }
                    let seed = arguments.seed + at;
                    let report = run(Options { seed, broken: arguments.broken, aloud: arguments.aloud });
                    if arguments.seeds == 1 {
                        println!("{report:#?}");
                    }
                    for left in &report.left {
                        println!("seed {seed}: {left} has outlived the run");
                    }
                    if !report.violations.is_empty() {
                        failed.fetch_add(1, Relaxed);
                        for violation in report.violations.iter().take(5) {
                            println!("seed {seed}: {}: {}", violation.rule, violation.what);
                        }
                        println!("seed {seed}: replay with: {}", replay(seed, arguments.broken));
                    }
                    let done = done.fetch_add(1, Relaxed) + 1;
                    if done.is_multiple_of(500) {
                        println!("{done} seeds, {} failed", failed.load(Relaxed));
                    }
                }
            });
        }
    });
    let (done, failed) = (done.load(Relaxed), failed.load(Relaxed));
    println!("{done} seeds, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
