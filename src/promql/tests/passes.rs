//! What the passes of a plan leave to be read: how often sources are asked, for which series, and for what of them.

use std::sync::Arc;

use model::{Labels, Sample};
use parking_lot::Mutex;
use promql::testing::MemoryStore;
use promql::{Engine, EngineSettings, QueryResult, RangeRequest, Value};
use runtime::World;
use storage::{
    Budget, Context, Error, LabelNeed, LabelRequest, Listed, Need, Select, SelectRequest, SeriesSet,
};

/// A store that remembers what it was asked for.
#[derive(Default)]
struct Asked {
    store: MemoryStore,
    asked: Mutex<Vec<(String, Need)>>,
}

impl Select for Asked {
    fn select(&self, request: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        self.scan(request, &Need::everything(), context)
    }

    fn scan(
        &self,
        request: &SelectRequest,
        need: &Need,
        context: &Context,
    ) -> Result<Box<dyn SeriesSet>, Error> {
        let matchers: Vec<String> = request.matchers.iter().map(|m| m.to_string()).collect();
        self.asked.lock().push((matchers.join(","), need.clone()));
        self.store.scan(request, need, context)
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.store.label_names(request, context)
    }

    fn label_values(&self, name: &str, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.store.label_values(name, request, context)
    }
}

const SERIES: usize = 300;

fn asked() -> Arc<Asked> {
    let asked = Asked::default();
    for name in ["a_total", "b_total"] {
        for at in 0..SERIES {
            let labels = Labels::from_pairs([
                ("__name__", name.to_owned()),
                ("i", at.to_string()),
                ("zone", format!("z{}", at % 3)),
            ]);
            let samples: Vec<Sample> =
                (0..60).map(|i| Sample { timestamp: i * 1000, value: (i * at as i64) as f64 }).collect();
            asked.store.add(&labels.unwrap(), &samples).unwrap();
        }
    }
    Arc::new(asked)
}

fn ask_within(asked: &Arc<Asked>, query: &str, budget: u64) -> Result<QueryResult, promql::Error> {
    let settings = EngineSettings { max_memory_per_query: budget, ..EngineSettings::default() };
    let request =
        RangeRequest { query: query.into(), start: 10_000, end: 50_000, step: 10_000, ..Default::default() };
    let context = Context { budget: Budget::new("test", 1 << 30), ..Context::background() };
    let result = Engine::new(settings, World::real()).range(&request, asked.clone(), &context);
    assert_eq!(context.budget.used(), 0, "{query}");
    result
}

fn ask(asked: &Arc<Asked>, query: &str) -> Vec<(Labels, Vec<u64>)> {
    shown(ask_within(asked, query, 1 << 30).unwrap())
}

fn shown(result: QueryResult) -> Vec<(Labels, Vec<u64>)> {
    let Value::Matrix(series) = result.value else { panic!("a matrix is expected") };
    series.into_iter().map(|s| (s.labels, s.points.iter().map(|p| p.v.to_bits()).collect())).collect()
}

fn reads(asked: &Asked) -> Vec<(String, Need)> {
    std::mem::take(&mut *asked.asked.lock())
}

#[test]
fn a_selector_is_read_once_however_often_it_stands_there() {
    let asked = asked();
    for (query, times) in [
        ("a_total / (a_total + a_total)", 1),
        ("rate(a_total[5s]) / ignoring(i) group_left sum by (zone) (rate(a_total[5s]))", 1),
        ("sum(a_total) / count(a_total)", 1),
        ("a_total / b_total", 2),
        ("rate(a_total[5s]) / rate(a_total[9s])", 2),
        ("a_total - a_total offset 5s", 2),
        // The same selector at other times.
        ("a_total / max_over_time(a_total[20s:1s])", 2),
        ("max_over_time(a_total[20s:1s]) / max_over_time(a_total[20s:1s])", 1),
        ("a_total @ 20 + a_total @ 20", 1),
        ("topk(2, a_total) or bottomk(2, a_total)", 1),
    ] {
        ask(&asked, query);
        let reads = reads(&asked);
        let b = reads.iter().filter(|(text, _)| text.contains("b_total")).count();
        assert_eq!(reads.len(), times, "{query}: {reads:?}, {b}");
    }
    // The result is that of two reads.
    let twice = ask(&asked, "a_total + a_total");
    assert_eq!(reads(&asked).len(), 1);
    assert_eq!(twice, ask(&asked, "a_total{i=~\".*\"} + a_total"));
    assert_eq!(reads(&asked).len(), 2);
    assert_eq!(twice.len(), SERIES);
}

#[test]
fn what_is_too_much_to_keep_is_read_again() {
    let asked = asked();
    let query = "sum(a_total) / count(a_total)";
    let wanted = ask(&asked, query);
    assert_eq!(reads(&asked).len(), 1);
    let got = shown(ask_within(&asked, query, 20_000).unwrap());
    assert_eq!(reads(&asked).len(), 2);
    assert_eq!(got, wanted);
    // Nor does it read more than there is room for, and everything is given back.
    assert_eq!(
        ask_within(&asked, "a_total / (a_total + a_total)", 20_000).unwrap_err().kind,
        model::Kind::Exhausted
    );
}

#[test]
fn labels_that_nobody_looks_at_are_not_asked_for() {
    let asked = asked();
    let only = |names: &[&str]| LabelNeed::Only(names.iter().map(|n| (*n).to_owned()).collect());
    for (query, labels, sorted) in [
        ("count(a_total)", only(&[]), false),
        ("sum(a_total)", only(&["__name__"]), false),
        ("sum by (zone) (rate(a_total[5s]))", only(&["__name__", "zone"]), false),
        ("max by (zone) (abs(-a_total * 2))", only(&["__name__", "zone"]), false),
        ("min by (zone) (max_over_time(rate(a_total[5s])[10s:1s]))", only(&["__name__", "zone"]), false),
        (
            "count without (i) (a_total)",
            LabelNeed::Except(["__name__", "__type__", "__unit__", "i"].map(str::to_owned).to_vec()),
            false,
        ),
        ("absent(a_total)", only(&[]), false),
        // Series that lose their names must not fall together unnoticed.
        ("sum(rate({zone=\"z1\"}[5s]))", LabelNeed::All, false),
        ("count by (__type__) (a_total)", LabelNeed::All, false),
        ("sum(label_replace(a_total, \"x\", \"$1\", \"i\", \"(.*)\"))", LabelNeed::All, false),
        ("sum(topk(2, a_total))", LabelNeed::All, true),
        ("a_total", LabelNeed::All, false),
    ] {
        let _ = ask_within(&asked, query, 1 << 30);
        let reads = reads(&asked);
        assert_eq!((&reads[0].1.labels, reads[0].1.sorted), (&labels, sorted), "{query}");
    }
}

#[test]
fn what_one_side_must_be_the_other_must_be_too() {
    let asked = asked();
    let zone = "zone=\"z1\"";
    for (query, narrowed) in [
        ("a_total{zone=\"z1\"} / b_total", true),
        ("b_total / a_total{zone=\"z1\"}", true),
        ("a_total{zone=\"z1\"} and on (zone) b_total", true),
        ("b_total and a_total{zone=\"z1\"}", true),
        ("a_total{zone=\"z1\"} unless b_total", true),
        ("b_total * on (zone) group_left () sum by (zone) (rate(a_total{zone=\"z1\"}[5s]))", true),
        // What is computed of rows before they are matched may note something of each: a sum that it mixes kinds.
        ("rate(a_total{zone=\"z1\"}[5s]) * on (zone) group_left () sum by (zone) (b_total)", false),
        // Rows that are alike are an error as soon as the other side has any row, so that side stays as it is.
        ("b_total * on (i) group_left () a_total{zone=\"z1\",i=\"1\"}", false),
        // What is not matched may be anything.
        ("sum by (i) (a_total{zone=\"z1\"}) / sum by (i) (b_total)", false),
        ("a_total{zone=\"z1\"} and on (i) b_total", false),
        ("b_total unless a_total{zone=\"z1\"}", false),
        ("a_total{zone=\"z1\"} or b_total", false),
        ("a_total{zone=\"z1\"} + fill(0) b_total", false),
        ("topk(1, b_total) / a_total{zone=\"z1\"}", false),
    ] {
        ask_within(&asked, query, 1 << 30).unwrap_or_else(|e| panic!("{query}: {e}"));
        let reads = reads(&asked);
        let (other, _) = reads.iter().find(|(text, _)| text.contains("b_total")).unwrap();
        assert_eq!(other.contains(zone), narrowed, "{query}: {other}");
    }
    // Rows of the "one" side that are alike are an error, matched or not.
    let query = "a_total{zone=\"z1\",i=\"1\"} * on (zone) group_left () b_total";
    let error = ask_within(&asked, query, 1 << 30).unwrap_err();
    assert!(error.message.contains("found duplicate series"), "{error}");
}
