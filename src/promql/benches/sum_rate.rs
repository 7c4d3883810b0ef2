//! `sum by (...) (rate(...))` over 10 000 series of 240 samples, and a few neighbours.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use model::{Labels, Sample};
use promql::testing::MemoryStore;
use promql::{Engine, EngineSettings, RangeRequest};
use runtime::World;
use storage::Context;

const SERIES: usize = 10_000;
const SAMPLES: i64 = 240;
const INTERVAL: i64 = 15_000;

fn store() -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    for at in 0..SERIES {
        let labels = Labels::from_pairs([
            ("__name__", "http_requests_total".to_owned()),
            ("pod", format!("pod-{:03}", at / 100)),
            ("path", format!("/api/{:02}", at % 100)),
        ])
        .expect("labels");
        let step = 1.0 + (at % 7) as f64;
        let samples: Vec<Sample> = (0..SAMPLES)
            .map(|i| Sample { timestamp: i * INTERVAL + (at % 13) as i64, value: step * (i % 200) as f64 })
            .collect();
        store.add(&labels, &samples).expect("samples");
    }
    Arc::new(store)
}

fn bench(c: &mut Criterion) {
    let store = store();
    let engine = Engine::new(EngineSettings::default(), World::real());
    let context = Context::background();
    let mut group = c.benchmark_group("10k series x 240 samples");
    group.sample_size(10);
    for query in [
        "sum by (pod) (rate(http_requests_total[5m]))",
        "sum(http_requests_total)",
        "count(http_requests_total)",
        "max_over_time(http_requests_total[30m]) > 100000",
    ] {
        let request = RangeRequest {
            query: query.to_owned(),
            start: 0,
            end: SAMPLES * INTERVAL,
            step: 60_000,
            ..RangeRequest::default()
        };
        group.bench_function(query, |b| {
            b.iter(|| engine.range(&request, store.clone(), &context).expect("result"));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
