//! The table against a plain map: whatever is learned, forgotten and linked, nobody is taken for somebody else.

use std::collections::HashMap;

use identity::{Id, Identities, Met, Settings};
use proptest::prelude::*;
use runtime::World;

const MINUTE: i64 = 60_000;

fn identities(max_series: usize) -> Identities {
    Identities::new(Settings { max_series, idle_minutes: 10 }, &*World::real().chance)
}

/// Resolves label bytes in order as a request would; learns those that are new under `handle + row`.
fn request(of: &Identities, tenant: &str, series: &[Vec<u8>], handle: u64, now: i64) -> Vec<Option<u64>> {
    let mut rows = Vec::new();
    let mut seen = Vec::new();
    {
        let session = of.session(tenant, now);
        let mut last: Option<Id> = None;
        for labels in series {
            let key = session.key(labels);
            let hinted = last
                .and_then(|last| session.expected(last))
                .filter(|expected| expected.label_bytes() == labels.len())
                .and_then(|expected| session.confirm(expected, key));
            let known = hinted.or_else(|| session.find(key));
            if let Some(known) = known {
                if let Some(last) = last {
                    session.link(last, known.id);
                }
                last = Some(known.id);
            }
            seen.push(known.and_then(|known| known.handle));
            let hash = labels.len() as u64;
            rows.push(Met { id: known.map(|k| k.id), key, len: labels.len() as u32, hash });
        }
    }
    let new = (0..).zip(&rows).filter(|(_, met)| met.id.is_none());
    let handles: Vec<(u32, u64)> = new.map(|(row, _)| (row, handle + u64::from(row))).collect();
    of.learn(tenant, &mut rows, &handles, false, now);
    seen
}

proptest! {
    #[test]
    fn nobody_is_taken_for_somebody_else(
        steps in proptest::collection::vec(
            (0usize..3, proptest::collection::vec((0u8..40, 1usize..4), 0..12), 0i64..9, any::<bool>()), 1..40),
    ) {
        let of = identities(60);
        let mut model: HashMap<(usize, Vec<u8>), Vec<u64>> = HashMap::new();
        let mut now = 0;
        for (step, (tenant, series, minutes, sweep)) in steps.into_iter().enumerate() {
            now += minutes * MINUTE;
            if sweep {
                of.sweep(now);
            }
            let series: Vec<Vec<u8>> = series.into_iter().map(|(byte, len)| vec![byte; len]).collect();
            let handle = step as u64 * 1000;
            let name = ["a", "b", "c"][tenant];
            let seen = request(&of, name, &series, handle, now);
            for (row, (labels, seen)) in series.into_iter().zip(seen).enumerate() {
                // Any handle that it was ever given, and no other.
                let given = model.entry((tenant, labels)).or_default();
                if let Some(seen) = seen {
                    prop_assert!(given.contains(&seen));
                } else {
                    given.push(handle + row as u64);
                }
            }
            prop_assert!(of.stats().series <= 60);
        }
    }
}

fn names(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|n| format!("series {n}").into_bytes()).collect()
}

#[test]
fn what_is_idle_is_forgotten_and_its_place_used_again() {
    let of = identities(100_000);
    request(&of, "a", &names(0..10_000), 0, 0);
    request(&of, "b", &names(0..10_000), 0, 0);
    let full = of.stats();
    assert_eq!((full.series, full.tenants), (20_000, 2));
    assert!(full.bytes < 20_000 * 75, "{full:?}");
    assert_eq!(of.sweep(10 * MINUTE), 0);
    assert!(request(&of, "a", &names(0..10_000), 0, 10 * MINUTE).iter().all(Option::is_some));
    assert_eq!(of.sweep(11 * MINUTE), 10_000);
    let left = of.stats();
    assert_eq!((left.series, left.tenants), (10_000, 1));
    assert!(request(&of, "b", &names(0..10_000), 0, 11 * MINUTE).iter().all(Option::is_none));
    assert!(request(&of, "b", &names(0..10_000), 0, 11 * MINUTE).iter().all(Option::is_some));
    assert_eq!(of.stats(), full);
}

#[test]
fn there_is_never_more_than_may_be() {
    let of = identities(1000);
    request(&of, "a", &names(0..3000), 0, 0);
    assert_eq!(of.stats().series, 1000);
    // Where it is full, what did not come for some minutes goes first.
    request(&of, "a", &names(0..500), 0, 6 * MINUTE);
    assert_eq!(of.sweep(6 * MINUTE), 500);
    request(&of, "a", &names(1500..2000), 0, 6 * MINUTE);
    assert_eq!(of.stats().series, 1000);
}

#[test]
fn a_new_handle_replaces_the_old_one() {
    let of = identities(1000);
    let all = names(0..3);
    request(&of, "a", &all, 7, 0);
    let known = |n: usize| {
        let session = of.session("a", 0);
        let key = session.key(&all[n]);
        (session.find(key).unwrap(), key)
    };
    let (before, key) = known(1);
    assert_eq!(before.handle, Some(8));
    let mut rows = [Met { id: Some(before.id), key, len: 8, hash: before.hash }];
    of.learn("a", &mut rows, &[(0, 99u64)], false, 0);
    assert_eq!(known(1).0.handle, Some(99));
    assert_eq!(known(0).0.handle, Some(7));
    // A number that is now somebody else's is not renewed.
    of.learn("a", &mut [Met { key: known(0).1, ..rows[0] }], &[(0, 5u64)], false, 0);
    assert_eq!(known(1).0.handle, Some(99));
    let session = of.session("a", 0);
    let expected = session.expected(known(0).0.id).unwrap();
    assert_eq!(expected.label_bytes(), all[1].len());
    assert_eq!(session.confirm(expected, session.key(&all[1])).map(|known| known.id), Some(before.id));
}
