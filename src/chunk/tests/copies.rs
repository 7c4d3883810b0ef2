//! Where chunks end decides how many of three replicas' chunks are equal byte for byte: the rule of the engine against
//! others. `FULL=1 cargo test --release -p tributary-chunk --test copies -- --nocapture` prints the
//! figures of `src/decisions/0010-chunk-cut.md`.

use std::collections::HashMap;

use chunk::{cut, xor};
use model::Sample;

const WINDOW: i64 = 2 * 3_600_000;
/// Series that come in one request.
const BATCH: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// 120 samples, counted from the window's edge.
    Count,
    /// Half an hour, moved by a hash of the series, or 240 samples.
    Offset,
    /// The engine's: as many equal parts of the window as make 120 samples each, told by the chunk's first steps.
    Parts,
}

fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The chunks of a window's samples.
fn chunks(samples: &[Sample], rule: Rule, series: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = samples;
    while let Some(first) = rest.first() {
        let n = match rule {
            Rule::Count => 120,
            Rule::Offset => {
                let offset = mix(series as u64) as i64 & i64::MAX;
                let part = |t: i64| (t + offset % 1_800_000).div_euclid(1_800_000);
                rest.iter().take(240).take_while(|s| part(s.timestamp) == part(first.timestamp)).count()
            }
            Rule::Parts => cut::split(rest, WINDOW).next().map_or(0, <[Sample]>::len),
        };
        let (chunk, tail) = rest.split_at(n.min(rest.len()));
        out.push(xor::encode(chunk.iter().copied()).unwrap());
        rest = tail;
    }
    out
}

/// Samples of one series in one window: a scrape every `step` with some jitter, and the values of its kind.
fn samples(series: usize, window: i64, step: i64) -> Vec<Sample> {
    let start = window * WINDOW + (mix(series as u64 / 40) % step as u64) as i64;
    let mut counter = 0.0;
    (0..WINDOW / step)
        .map(|n| {
            let seed = mix((series as u64) << 32 | (window * 10_000 + n) as u64);
            counter += (seed % 1000) as f64;
            let value = match series % 10 {
                0..=3 => series as f64,
                4..=7 => counter,
                _ => (seed % 100_003) as f64 / 1000.0,
            };
            Sample { timestamp: start + n * step + (seed % 7) as i64 / 6, value }
        })
        .filter(|s| s.timestamp < (window + 1) * WINDOW)
        .collect()
}

/// Bytes of one replica, and the share of chunks that all three have, in percent. One request in `lost` never
/// reaches one of the replicas. A retry and a restart change nothing: what is there already is not taken again, and
/// the log gives back what was taken, in its order.
fn run(rule: Rule, step: i64, lost: u64, (windows, count): (i64, usize)) -> (usize, f64) {
    let (mut bytes, mut all, mut equal) = (0, 0, 0);
    for window in 0..windows {
        for series in 0..count {
            let sent = samples(series, window, step);
            let mut copies: HashMap<Vec<u8>, usize> = HashMap::new();
            for replica in 0..3 {
                let arrives = |(n, _): &(usize, &Sample)| {
                    let request = mix((series / BATCH) as u64 ^ (*n as u64) << 20 ^ (window as u64) << 40);
                    !request.is_multiple_of(lost) || request / lost % 3 != replica
                };
                let taken: Vec<Sample> =
                    sent.iter().enumerate().filter(arrives).map(|(_, sample)| *sample).collect();
                for chunk in chunks(&taken, rule, series) {
                    bytes += chunk.len();
                    all += 1;
                    *copies.entry(chunk).or_default() += 1;
                }
            }
            equal += copies.values().filter(|n| **n == 3).sum::<usize>();
        }
    }
    (bytes / 3, equal as f64 * 100.0 / f64::from(all))
}

#[test]
fn the_rule_costs_no_more_than_others_and_keeps_more_copies_equal() {
    println!("{:8}{:>8}{:>12}{:>14}{:>12}", "rule", "step s", "one lost in", "bytes", "equal %");
    let full = std::env::var_os("FULL").is_some();
    let steps: &[i64] = if full { &[10_000, 15_000, 30_000, 60_000] } else { &[15_000, 60_000] };
    let losses: &[u64] = if full { &[u64::MAX, 2000, 200] } else { &[u64::MAX, 200] };
    let size = if full { (3, 120) } else { (1, 40) };
    for &step in steps {
        for &lost in losses {
            let [count, offset, parts] =
                [Rule::Count, Rule::Offset, Rule::Parts].map(|rule| (rule, run(rule, step, lost, size)));
            for (rule, (bytes, equal)) in [count, offset, parts] {
                let shown = if lost == u64::MAX { "none".to_owned() } else { lost.to_string() };
                let name = format!("{rule:?}");
                println!("{name:8}{:>8}{shown:>12}{bytes:>14}{equal:>12.1}", step / 1000);
            }
            // Without loss all rules give equal copies; none is cheaper than the engine's by more than 2 %.
            if lost == u64::MAX {
                assert!([count, offset, parts].iter().all(|(_, (_, equal))| *equal == 100.0));
            }
            let least = offset.1.0.min(count.1.0);
            assert!(parts.1.0 * 100 <= least * 102, "{step} {count:?} {offset:?} {parts:?}");
            assert!(parts.1.1 >= count.1.1, "{step} {count:?} {parts:?}");
            if lost == 200 && step == 15_000 {
                assert!(parts.1.1 >= count.1.1 + 15.0, "{count:?} {parts:?}");
            }
        }
    }
}
