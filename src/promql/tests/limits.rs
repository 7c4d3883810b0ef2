//! What ends an evaluation: budgets, limits, cancellation, deadlines, and what is not supported.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Kind, Labels, Sample, TimeRange};
use promql::testing::MemoryStore;
use promql::{Class, Engine, EngineSettings, Error, InstantRequest, QueryResult, RangeRequest, Value};
use runtime::World;
use storage::{
    Budget, ChunkData, Context, LabelRequest, Listed, Notes, PartialResponse, Select, SelectRequest,
    SeriesEntry, SeriesSet,
};

fn store() -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    for at in 0..100 {
        let labels = Labels::from_pairs([("__name__", "m_total"), ("i", &at.to_string())]).unwrap();
        let samples: Vec<Sample> =
            (0..100).map(|i| Sample { timestamp: i * 1000, value: i as f64 }).collect();
        store.add(&labels, &samples).unwrap();
    }
    Arc::new(store)
}

fn ask(settings: EngineSettings, context: &Context, query: &str) -> Result<QueryResult, Error> {
    let request = RangeRequest {
        query: query.to_owned(),
        start: 0,
        end: 100_000,
        step: 1000,
        ..RangeRequest::default()
    };
    Engine::new(settings, World::real()).range(&request, store(), context)
}

#[test]
fn more_samples_than_allowed() {
    let settings = EngineSettings { max_samples: 500, ..EngineSettings::default() };
    let error = ask(settings.clone(), &Context::background(), "m_total").unwrap_err();
    assert_eq!((error.kind, error.class), (Kind::Exhausted, Class::Execution));
    assert_eq!(error.message, "query processing would load too many samples into memory in query execution");
    // The aggregation streams: it never holds all series at once.
    let result = ask(settings, &Context::background(), "sum(rate(m_total[10s]))").unwrap();
    assert!(result.stats.peak_samples < 500, "{:?}", result.stats);
    assert_eq!(result.stats.samples, 100 * (45 + 91 * 10 + 9));
}

#[test]
fn more_bytes_than_allowed() {
    let context =
        Context { budget: Budget::new("--query.max-memory-total", 50_000), ..Context::background() };
    let error = ask(EngineSettings::default(), &context, "m_total").unwrap_err();
    assert_eq!((error.kind, error.class), (Kind::Exhausted, Class::Execution));
    assert!(error.message.contains("--query.max-memory-total"), "{error}");
    assert_eq!(context.budget.used(), 0);
    let settings = EngineSettings { max_memory_per_query: 50_000, ..EngineSettings::default() };
    assert_eq!(ask(settings, &Context::background(), "m_total").unwrap_err().kind, Kind::Exhausted);
}

#[test]
fn the_asker_leaves_or_the_deadline_passes() {
    let context = Context::background();
    context.cancel.raise();
    let error = ask(EngineSettings::default(), &context, "m_total").unwrap_err();
    assert_eq!(error.class, Class::Canceled);
    let settings = EngineSettings { timeout: Duration::ZERO, ..EngineSettings::default() };
    let error = ask(settings, &Context::background(), "m_total").unwrap_err();
    assert_eq!((error.kind, error.class), (Kind::Unavailable, Class::Timeout));
}

#[test]
fn a_subquery_of_too_many_steps() {
    let error = ask(EngineSettings::default(), &Context::background(), "sum_over_time(m_total[10y:1ms])")
        .unwrap_err();
    assert_eq!(error.kind, Kind::Exhausted);
}

#[test]
fn budgets_are_given_back() {
    let context = Context { budget: Budget::new("test", 1 << 30), ..Context::background() };
    let result = ask(EngineSettings::default(), &context, "topk(3, m_total) or sort(m_total * 2)").unwrap();
    assert!(result.stats.peak_bytes > 0);
    assert_eq!(context.budget.used(), 0);
}

/// Answers with one series of downsampled data, or with an error.
struct Odd(Option<Kind>);

impl Select for Odd {
    fn select(&self, _: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, storage::Error> {
        if let Some(kind) = self.0 {
            return Err(storage::Error::new(kind, "no answer"));
        }
        let chunk = ChunkData {
            range: TimeRange::new(0, 1000),
            encoding: chunk::Encoding::Aggregate,
            bytes: Bytes::from_static(b"\0\0"),
        };
        let labels = Labels::from_pairs([("__name__", "h")]).unwrap();
        Ok(storage::from_entries(vec![SeriesEntry { labels, chunks: vec![chunk] }]))
    }

    fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Ok(Listed::default())
    }

    fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Ok(Listed::default())
    }
}

#[test]
fn what_is_not_supported_is_an_error_never_a_wrong_answer() {
    let engine = Engine::new(EngineSettings::default(), World::real());
    let context = Context::background();
    let ask = |query: &str, select: Odd| {
        let request = InstantRequest { query: query.to_owned(), time: 1000, ..InstantRequest::default() };
        engine.instant(&request, Arc::new(select), &context)
    };
    let error = ask("h", Odd(None)).unwrap_err();
    assert_eq!(error.class, Class::Execution, "{error}");
    let error = ask("h", Odd(Some(Kind::Unavailable))).unwrap_err();
    assert_eq!((error.kind, error.class), (Kind::Unavailable, Class::Storage));
}

#[test]
fn notes_of_the_source_arrive() {
    struct Empty;
    impl Select for Empty {
        fn select(&self, _: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, storage::Error> {
            struct Set;
            impl SeriesSet for Set {
                fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
                    Ok(None)
                }
                fn notes(&mut self) -> Notes {
                    Notes { warnings: vec!["one store is away".into()], infos: Vec::new() }
                }
            }
            Ok(Box::new(Set))
        }
        fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
            Ok(Listed::default())
        }
        fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
            Ok(Listed::default())
        }
    }
    let engine = Engine::new(EngineSettings::default(), World::real());
    let request = InstantRequest { query: "sum(a) or b".into(), ..InstantRequest::default() };
    let context = Context { partial: PartialResponse::Warn, ..Context::background() };
    let result = engine.instant(&request, Arc::new(Empty), &context).unwrap();
    assert_eq!(result.notes.warnings, ["one store is away"]);
    assert!(matches!(result.value, Value::Vector(v) if v.is_empty()));
}

/// So many series, made as they are asked for.
struct Many(u32);

impl Select for Many {
    fn select(&self, request: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, storage::Error> {
        struct Set(std::ops::Range<u32>, ChunkData);
        impl SeriesSet for Set {
            fn next(&mut self) -> Result<Option<SeriesEntry>, storage::Error> {
                let Some(at) = self.0.next() else { return Ok(None) };
                let labels =
                    Labels::from_pairs([("__name__", "m_total"), ("i", &format!("{at:06}"))]).unwrap();
                Ok(Some(SeriesEntry { labels, chunks: vec![self.1.clone()] }))
            }
        }
        let samples = (0..4).map(|i| Sample { timestamp: i * 15_000, value: i as f64 });
        let chunk = ChunkData {
            range: TimeRange::new(0, 45_000),
            encoding: chunk::Encoding::Xor,
            bytes: chunk::xor::encode(samples).unwrap().into(),
        };
        assert!(request.range.overlaps(&chunk.range));
        Ok(Box::new(Set(0..self.0, chunk)))
    }

    fn label_names(&self, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Ok(Listed::default())
    }

    fn label_values(&self, _: &str, _: &LabelRequest, _: &Context) -> Result<Listed, storage::Error> {
        Ok(Listed::default())
    }
}

#[test]
fn two_hundred_thousand_series_within_few_bytes_are_an_answer_or_a_refusal() {
    const SERIES: u32 = 200_000;
    let process = Budget::new("--query.max-memory-total", 64 << 20);
    let limit = 8 << 20;
    let settings = EngineSettings { max_memory_per_query: limit, ..EngineSettings::default() };
    let engine = Engine::new(settings, World::real());
    let ask = |query: &str| {
        let request = InstantRequest { query: query.into(), time: 45_000, ..InstantRequest::default() };
        let context = Context { budget: process.clone(), ..Context::background() };
        engine.instant(&request, Arc::new(Many(SERIES)), &context)
    };
    for (query, value) in [("count(m_total)", SERIES as f64), ("sum(increase(m_total[1m]))", f64::NAN)] {
        let result = ask(query).unwrap();
        let Value::Vector(rows) = &result.value else { panic!("a vector is expected") };
        assert!(value.is_nan() || rows[0].point.v == value, "{query}");
        assert!(result.stats.peak_bytes < limit, "{query}: {}", result.stats.peak_bytes);
    }
    for query in ["m_total", "m_total / m_total", "topk(3, m_total)", "sort(m_total)", "m_total[1m]"] {
        let error = ask(query).unwrap_err();
        assert_eq!((error.kind, error.class), (Kind::Exhausted, Class::Execution), "{query}");
        assert!(
            error.message.contains("--query.max-memory allows")
                && error.message.contains("limit 8388608 bytes"),
            "{error}"
        );
        // It takes nothing with it.
        assert_eq!(process.used(), 0, "{query}");
    }
    assert!(ask("count(m_total)").is_ok());
}

#[test]
fn helpers_change_neither_results_nor_their_order() {
    let ask = |threads: usize, query: &str| {
        let settings = EngineSettings { threads, ..EngineSettings::default() };
        let request =
            RangeRequest { query: query.into(), start: 0, end: 45_000, step: 15_000, ..Default::default() };
        let context = Context { budget: Budget::new("test", 1 << 30), ..Context::background() };
        let result =
            Engine::new(settings, World::real()).range(&request, Arc::new(Many(12_000)), &context).unwrap();
        assert_eq!(context.budget.used(), 0);
        let Value::Matrix(rows) = result.value else { panic!("a matrix is expected") };
        let shown = |s: &promql::Series| {
            (s.labels.clone(), s.points.iter().map(|p| (p.t, p.v.to_bits())).collect::<Vec<_>>())
        };
        (rows.iter().map(shown).collect::<Vec<_>>(), result.stats.samples, result.notes)
    };
    for query in ["m_total", "rate(m_total[1m])", "sum(m_total)", "quantile_over_time(2, m_total[1m])"] {
        assert_eq!(ask(1, query), ask(4, query), "{query}");
    }
}
