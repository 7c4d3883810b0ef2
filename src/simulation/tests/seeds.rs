//! Many seeds hold every rule, and the same seed is the same run.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use simulation::{Options, replay, run};

/// Seeds of a test run; `SIMULATION_SEEDS` asks for another number, `SIMULATION_FROM` begins elsewhere.
const SEEDS: u64 = 500;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn every_seed_keeps_every_promise() {
    let (from, seeds) = (number("SIMULATION_FROM", 0), number("SIMULATION_SEEDS", SEEDS));
    let (next, queries, complete) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failures = std::thread::scope(|scope| {
        let look = || {
            let mut failures = Vec::new();
            loop {
                let at = next.fetch_add(1, Relaxed);
                if at >= seeds {
                    return failures;
                }
                let report = run(Options { seed: from + at, broken: None, aloud: false });
                assert!(report.acked > 0, "seed {}: nothing was acknowledged", from + at);
                assert!(
                    report.left.is_empty(),
                    "seed {}: still there: {}",
                    from + at,
                    report.left.join(", ")
                );
                queries.fetch_add(report.queries, Relaxed);
                complete.fetch_add(report.complete, Relaxed);
                if let Some(first) = report.violations.first() {
                    let what = format!("{}: {}", first.rule, first.what);
                    failures.push(format!("{what}\n  replay with: {}", replay(from + at, None)));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(look)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<String>>()
    });
    assert!(failures.is_empty(), "{} of {seeds} seeds failed:\n{}", failures.len(), failures.join("\n"));
    // A querier that never dared to call an answer complete would prove nothing.
    assert!(complete.load(Relaxed) * 2 > queries.load(Relaxed), "too few complete answers");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..12 {
        let options = Options { seed, broken: None, aloud: false };
        let (first, second) = (run(options), run(options));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        assert_ne!(first.hash, run(Options { seed: seed + 1000, ..options }).hash);
    }
}
