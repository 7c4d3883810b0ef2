//! What an evaluation says of itself: samples step by step, operators one by one, and the plan.

use std::sync::Arc;

use model::{Labels, Sample};
use promql::testing::MemoryStore;
use promql::{
    Analysis, Details, Engine, EngineSettings, Explained, InstantRequest, QueryResult, RangeRequest,
};
use runtime::World;
use storage::Context;

const SERIES: u64 = 3;

/// A sample each second from 0 to 99.
fn store() -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    for series in 0..SERIES {
        let labels = Labels::from_pairs([("__name__", "a"), ("i", &series.to_string())]).unwrap();
        let samples: Vec<Sample> =
            (0..100).map(|i| Sample { timestamp: i * 1000, value: i as f64 }).collect();
        store.add(&labels, &samples).unwrap();
    }
    Arc::new(store)
}

fn engine() -> Engine {
    Engine::new(EngineSettings::default(), World::real())
}

fn request(query: &str) -> RangeRequest {
    let details = Details { per_step: true, analyze: true };
    RangeRequest {
        query: query.into(),
        start: 20_000,
        end: 60_000,
        step: 20_000,
        details,
        ..Default::default()
    }
}

fn ask(query: &str) -> QueryResult {
    engine().range(&request(query), store(), &Context::background()).unwrap()
}

#[test]
fn samples_are_counted_at_their_steps() {
    for (query, each) in [
        ("a", 1),
        ("sum(a)", 1),
        ("rate(a[10s])", 10),
        ("a + a", 2),
        // What is the same at every step counts at every step.
        ("a @ 50", 1),
        ("sum_over_time(a[10s] @ 50)", 10),
        // A subquery's values count, not what they were made of.
        ("sum_over_time(a[10s:5s])", 2),
        ("max_over_time(rate(a[10s])[10s:5s])", 2),
        ("sum_over_time(a[10s:5s] @ 50)", 2),
        ("scalar(a)", 1),
        ("scalar(a @ 50)", 1),
        ("1", 0),
    ] {
        let stats = ask(query).stats;
        let steps: Vec<(i64, u64)> = [20_000, 40_000, 60_000].map(|t| (t, each * SERIES)).to_vec();
        assert_eq!(stats.per_step, steps, "{query}");
        assert_eq!(stats.samples, 3 * each * SERIES, "{query}");
    }
    // Nobody asked.
    let plain = RangeRequest { details: Details::default(), ..request("a") };
    let result = engine().range(&plain, store(), &Context::background()).unwrap();
    assert!(result.stats.per_step.is_empty() && result.analysis.is_none());
    assert_eq!(result.stats.samples, 3 * SERIES);
}

#[test]
fn a_range_vector_counts_at_its_only_step() {
    let details = Details { per_step: true, analyze: true };
    let request = InstantRequest { query: "a[10s]".into(), time: 50_000, details, ..Default::default() };
    let stats = engine().instant(&request, store(), &Context::background()).unwrap().stats;
    assert_eq!((stats.per_step, stats.samples), (vec![(50_000, 10 * SERIES)], 10 * SERIES));
}

/// Names with samples, children in brackets.
fn shape(analysis: &Analysis) -> String {
    let children: Vec<String> = analysis.children.iter().map(shape).collect();
    let name = analysis.name.split(" of ").next().unwrap_or_default();
    format!("{name} {}({})", analysis.samples, children.join("; "))
}

fn plan(explained: &Explained) -> String {
    let children: Vec<String> = explained.children.iter().map(plan).collect();
    let name = explained.name.split(" of ").next().unwrap_or_default();
    format!("{name}({})", children.join("; "))
}

#[test]
fn operators_are_told_apart() {
    let analysis = ask("sum by (i) (rate(a[10s])) / on (i) a").analysis.unwrap();
    assert_eq!(
        shape(&analysis),
        "[join] / 99([aggregate] sum by (i) 90([window] rate 90()); [select] {__name__=\"a\"} 9())"
    );
    assert!(analysis.peak_samples.is_some_and(|peak| peak >= 9));
    let sides: std::time::Duration = analysis.children.iter().map(|child| child.took).sum();
    assert!(analysis.took >= sides, "{analysis:?}");
    // Several operators below what is none.
    let several = ask("scalar(a) + scalar(a)").analysis.unwrap();
    assert_eq!(several.children.len(), 2);
    assert!(several.name.starts_with("[query] scalar(a)"), "{several:?}");
}

#[test]
fn a_plan_is_shown_without_reading() {
    let explained = engine().explain_range(&request("topk(2, sum by (i) (rate(a[10s])))")).unwrap();
    assert_eq!(
        plan(&explained),
        "[aggregate] topk by ()([number] 2(); [aggregate] sum by (i)([window] rate()))"
    );
    let instant =
        |query: &str| engine().explain_instant(&InstantRequest { query: query.into(), ..Default::default() });
    assert_eq!(
        plan(&instant("a[10s:5s]").unwrap()),
        "[matrix] a subquery[10000ms:5000ms]([select] {__name__=\"a\"}())"
    );
    assert!(instant("a[10s").is_err());
    assert!(engine().explain_range(&request("a[10s]")).is_err());
}
