//! What a query is said to hold is what it holds: bytes in its budget beside bytes of the allocator.

use std::sync::Arc;

use model::{Labels, Sample};
use promql::testing::MemoryStore;
use promql::{Engine, EngineSettings, InstantRequest, RangeRequest};
use runtime::World;
use storage::{Budget, Context};

/// Samples per series, a second apart.
const SAMPLES: i64 = 400;

fn store() -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    for at in 0..300 {
        let (series, group) = (at.to_string(), (at % 50).to_string());
        let pairs = [("__name__", "m_total"), ("group", group.as_str()), ("series", series.as_str())];
        let labels = Labels::from_pairs(pairs).unwrap();
        let samples: Vec<Sample> = (0..SAMPLES)
            .map(|i| Sample { timestamp: i * 1000, value: (i * at % 1000) as f64 + i as f64 })
            .collect();
        store.add(&labels, &samples).unwrap();
    }
    Arc::new(store)
}

/// Queries, whether each is asked of a range, and its step.
fn queries() -> Vec<(&'static str, bool, i64)> {
    let all = [
        ("m_total", true),
        ("m_total[6m]", false),
        ("rate(m_total[1m])", true),
        ("sum(rate(m_total[1m]))", true),
        ("sum by (group) (m_total)", true),
        ("sum by (series) (rate(m_total[1m]))", true),
        ("topk(10, m_total)", true),
        ("sort_desc(m_total)", false),
        ("quantile by (group) (0.9, m_total)", true),
        ("count_values(\"value\", m_total)", true),
        ("m_total / m_total", true),
        ("m_total * on (group) group_left () sum by (group) (m_total)", true),
        ("m_total and m_total > 500", true),
        ("m_total or -m_total", true),
        ("max_over_time(rate(m_total[1m])[5m:10s])", true),
        ("label_replace(m_total, \"other\", \"$1\", \"series\", \"(.*)\")", true),
        ("quantile_over_time(0.9, m_total[30s])", true),
    ];
    let fine = ["sum(rate(m_total[1m]))", "sum by (group) (m_total)", "max(m_total)"];
    all.map(|(query, range)| (query, range, 2000))
        .into_iter()
        .chain(fine.map(|query| (query, true, 100)))
        .collect()
}

#[test]
fn what_is_counted_is_what_is_allocated() {
    // One thread, for the allocator counts by thread.
    let engine = Engine::new(EngineSettings { threads: 1, ..EngineSettings::default() }, World::real());
    let store = store();
    let mut wrong = Vec::new();
    for (query, range, step) in queries() {
        let context = Context { budget: Budget::new("all", u64::MAX), ..Context::background() };
        let mut result = None;
        let real = allocation_counter::measure(|| {
            let answer = if range {
                let request = RangeRequest {
                    query: query.to_owned(),
                    start: 0,
                    end: SAMPLES * 1000,
                    step,
                    ..RangeRequest::default()
                };
                engine.range(&request, store.clone(), &context)
            } else {
                let time = SAMPLES * 1000;
                let request = InstantRequest { query: query.to_owned(), time, ..InstantRequest::default() };
                engine.instant(&request, store.clone(), &context)
            };
            result = Some(answer.expect(query));
        });
        let (counted, real) = (context.budget.peak(), real.bytes_max);
        println!(
            "{query} by {step}: {counted} counted, {real} allocated, {:.2}",
            counted as f64 / real as f64
        );
        // What every query needs besides, plan and operators, is small and not counted; neither is the room that
        // vectors have grown by and do not use yet.
        let real = real.saturating_sub(192 << 10);
        if counted < real * 8 / 10 || counted > real * 3 / 2 + (128 << 10) {
            wrong.push(format!("{query}: {counted} counted, {real} allocated"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
