//! Reads that go on while other things happen, and those that need less than everything.

mod rig;

use std::collections::BTreeSet;

use chunk::xor;
use model::{Labels, Matcher, TimeRange, stale_nan};
use rig::{MINUTE, NOON, Rig, tenant};
use storage::{
    Budget, Columns, Context, LabelNeed, Need, Select, SelectRequest, SeriesSet, collect, decode_series,
};

const SERIES: usize = 3000;

fn full(rig: &Rig) {
    let names: Vec<String> = (0..SERIES).map(|i| format!("m{i:04}")).collect();
    let samples: Vec<(i64, f64)> = (0..3).map(|i| (NOON + i * MINUTE, i as f64)).collect();
    let rows: Vec<(&str, &[(i64, f64)])> =
        names.iter().map(|name| (name.as_str(), samples.as_slice())).collect();
    rig.try_push("t", &rows).unwrap();
}

fn need(labels: LabelNeed, sorted: bool, all_samples: bool) -> Need {
    Need { labels, sorted, all_samples }
}

#[test]
fn a_cut_in_the_middle_of_a_read_takes_nothing_from_it() {
    for sorted in [true, false] {
        let rig = Rig::new();
        full(&rig);
        let view = rig.tsdb.tenant(&tenant("t")).unwrap();
        let request = SelectRequest::new(TimeRange::ALL, vec![]);
        let need = need(LabelNeed::All, sorted, true);
        let mut set = view.scan(&request, &need, &Context::background()).unwrap();
        let mut seen = BTreeSet::new();
        let mut take = |set: &mut dyn SeriesSet, most: usize| {
            for _ in 0..most {
                let Some(entry) = set.next().unwrap() else { return false };
                let mut columns = Columns::default();
                decode_series(&entry.chunks, TimeRange::ALL, &mut columns).unwrap();
                assert_eq!(columns.values, [0.0, 1.0, 2.0]);
                assert!(seen.insert(entry.labels));
            }
            true
        };
        assert!(take(&mut *set, 10));
        let cutter = {
            let (tsdb, now) = (rig.tsdb.clone(), rig.now());
            std::thread::spawn(move || tsdb.cut(now, true).unwrap().len())
        };
        while rig.tsdb.local_blocks(&tenant("t")).is_empty() {
            std::thread::yield_now();
        }
        assert!(!take(&mut *set, SERIES));
        drop(set);
        assert_eq!(cutter.join().unwrap(), 1);
        assert_eq!(seen.len(), SERIES);
        // From the block now.
        assert_eq!(rig.read("t").len(), SERIES);
    }
}

#[test]
fn what_is_not_needed_is_left_away() {
    let rig = Rig::new();
    full(&rig);
    rig.push("t", "m0000", &[(NOON + 3 * MINUTE, stale_nan())]);
    // Late, so that the newest sample is not the one that came last.
    rig.push("t", "m0001", &[(NOON + MINUTE + 1, 7.0)]);
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let ask = |matchers: Vec<Matcher>, end: i64, need: Need| {
        let request = SelectRequest::new(TimeRange::new(NOON, end), matchers);
        let set = view.scan(&request, &need, &Context::background()).unwrap();
        let (entries, _) = collect(set).unwrap();
        let newest = |e: &storage::SeriesEntry| {
            let mut columns = Columns::default();
            decode_series(&e.chunks, request.range, &mut columns).unwrap();
            (columns.len(), columns.values[columns.len() - 1])
        };
        entries.iter().map(|e| (e.labels.clone(), newest(e))).collect::<Vec<_>>()
    };
    let job = Labels::from_pairs([("job", "test")]).unwrap();
    let only_job = LabelNeed::Only(vec!["gone".into(), "job".into()]);
    for all_samples in [true, false] {
        let all = ask(vec![], NOON + 5 * MINUTE, need(only_job.clone(), false, all_samples));
        assert_eq!(all.len(), SERIES);
        assert!(all.iter().all(|(labels, _)| *labels == job));
        let stale = all.iter().filter(|(_, (_, newest))| model::is_stale(*newest)).count();
        assert_eq!(stale, 1);
        assert_eq!(all.iter().filter(|(_, (_, newest))| *newest == 2.0).count(), SERIES - 1);
    }
    let named = |name: &str| vec![Matcher::equal("__name__", name)];
    let newest = need(LabelNeed::Except(vec!["job".into()]), false, false);
    let name = |name: &str| Labels::from_pairs([("__name__", name)]).unwrap();
    assert_eq!(ask(named("m0002"), NOON + 5 * MINUTE, newest.clone()), [(name("m0002"), (1, 2.0))]);
    // In the middle of the data there is no short way.
    assert_eq!(ask(named("m0002"), NOON + MINUTE, newest.clone()), [(name("m0002"), (2, 1.0))]);
    assert_eq!(ask(named("m0001"), NOON + MINUTE + 1, newest), [(name("m0001"), (3, 7.0))]);
}

#[test]
fn a_read_holds_one_load_not_everything() {
    let rig = Rig::new();
    full(&rig);
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let request = SelectRequest::new(TimeRange::ALL, vec![]);
    let peak = |need: &Need| {
        let budget = Budget::new("test", 1 << 30);
        let context = Context { budget: budget.clone(), ..Context::background() };
        let mut set = view.scan(&request, need, &context).unwrap();
        while set.next().unwrap().is_some() {}
        drop(set);
        assert_eq!(budget.used(), 0);
        budget.peak()
    };
    let (streamed, everything) =
        (peak(&need(LabelNeed::Only(vec![]), false, true)), peak(&Need::everything()));
    let one = xor::MOST_BYTES as u64 * 3;
    assert!(streamed > 16 * SERIES as u64 && streamed < everything, "{streamed} of {everything}");
    assert!(everything < SERIES as u64 * (one + 300), "{everything}");
    // What does not fit is refused, and what was held is given back.
    let budget = Budget::new("--query.max-memory", 100_000);
    let context = Context { budget: budget.clone(), ..Context::background() };
    let refused = view.scan(&request, &Need::everything(), &context).and_then(collect).unwrap_err();
    assert_eq!(refused.kind, model::Kind::Exhausted);
    assert_eq!(budget.used(), 0);
}
