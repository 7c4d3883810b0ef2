//! Of an HA pair one is seen, and the loss of either costs no more than a scrape (DESIGN.md, HA pairs): of a longer gap nothing
//! was acknowledged, or only once the one that sent it had been given up for its silence.

use super::{Violation, found};
use crate::ledger::PAIR;
use crate::oracle::Answer;
use crate::steps::EPOCH;

const RULE: &str = "pair_is_seen_once";

/// `every`: between two scrapes, in milliseconds; `until`: when the pair ended, since the beginning; `taken`: scrapes that were
/// acknowledged at once.
pub fn check(answer: &Answer, every: i64, until: i64, taken: &[i64]) -> Option<Violation> {
    let mut faults = Vec::new();
    let mut seen = 0;
    for read in answer.series.iter().filter(|read| read.key().is_some_and(|key| key.sender == PAIR)) {
        seen += 1;
        let times: Vec<i64> = read.samples.iter().map(|(at, _)| at - EPOCH).collect();
        for pair in times.windows(2) {
            let apart = pair[1] - pair[0];
            if 2 * apart <= every {
                faults.push(format!("{}: {} and {} are one scrape twice", read.labels, pair[0], pair[1]));
            }
            let lacks = |at: &i64| 2 * (at - pair[0]) > every && 2 * (pair[1] - at) > every;
            if 2 * apart > 3 * every && taken.iter().any(lacks) {
                faults.push(format!("{}: nothing between {} and {}", read.labels, pair[0], pair[1]));
            }
        }
        let (first, last) = (times.first().copied().unwrap_or(i64::MAX), times.last().copied().unwrap_or(0));
        if first > 3 * every || last < until - 3 * every {
            faults.push(format!("{}: from {first} to {last} of {until}", read.labels));
        }
    }
    if seen != 2 {
        faults.push(format!("{seen} series of 2"));
    }
    found(RULE, &faults, |which| format!("a scrape every {every} ms: {which}"))
}
