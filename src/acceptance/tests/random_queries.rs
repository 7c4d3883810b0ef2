//! Random PromQL over a fixed data set, native histograms included: our engine and a Prometheus 3.5 that reads the same
//! blocks must agree. `PROMETHEUS_BIN` names the program; `RANDOM_QUERIES` and `RANDOM_SEED` make it longer or other.
//!
//! # Differences that have a reason
//! The generator leaves out what Prometheus 3.5 does not know (`first_over_time`, trim operators, fills, anchored and
//! smoothed selectors, start times, mismatched custom bounds). What remains is judged by [`explained`].

// From outside, files are the real ones.
#![allow(clippy::disallowed_methods)]

mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use acceptance::{Program, post_form};
use promql::testing::MemoryStore;
use promql::{Engine, EngineSettings, InstantRequest, QueryResult, RangeRequest, Value};
use random::{END, Generator, START, data};
use runtime::World;
use storage::Context;

/// What stands at one time of one series.
#[derive(Clone, Debug)]
enum Sample {
    Float(f64),
    /// Count, sum, and count of each bucket by its bounds.
    Histogram(f64, f64, Vec<(f64, f64, f64)>),
}

type Points = BTreeMap<String, BTreeMap<i64, Sample>>;

/// Series, and what was said about them.
type Answer = (Points, BTreeSet<String>);

/// When a query is asked, in milliseconds.
#[derive(Clone, Copy, Debug)]
enum When {
    At(i64),
    Range(i64, i64, i64),
}

#[test]
fn random_queries_agree_with_a_prometheus() {
    let Some(prometheus) = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from) else {
        eprintln!("SKIPPED: PROMETHEUS_BIN names no Prometheus 3.5");
        return;
    };
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (queries, seed) = (number("RANDOM_QUERIES", 300), number("RANDOM_SEED", 1));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = load(&dir.path().join("prometheus"));
    let flags = [
        "--storage.tsdb.retention.time=100y",
        "--enable-feature=promql-experimental-functions,native-histograms",
    ];
    let (program, url) = Program::prometheus(prometheus, dir.path(), "prometheus", "", &flags);
    let mut reference = program.start();
    reference.wait_ready(&format!("{url}/-/ready"));
    let engine = Engine::new(EngineSettings::default(), World::real());
    let mut generator = Generator::new(seed);
    let (mut empty, mut refused, mut known, mut odd) = (0, 0, BTreeMap::<&str, usize>::new(), Vec::new());
    for _ in 0..queries {
        let query = generator.query();
        let when = match generator.below(2) {
            0 => When::At(START + generator.below((END - START + 600_000) as usize) as i64),
            _ => {
                let start = START + generator.below((END - START) as usize) as i64;
                // Steps of whole seconds: others Prometheus rounds by way of a float.
                let step = 15_000 + 1000 * generator.below(200) as i64;
                When::Range(start, start + generator.below(1_200_000) as i64, step)
            }
        };
        let theirs = ask(&url, &query, when);
        let ours = evaluate(&engine, &store, &query, when);
        match (&theirs, &ours) {
            (Err(_), Err(_)) => refused += 1,
            (Ok(theirs), Ok(ours)) => {
                empty += usize::from(theirs.0.is_empty());
                if let Err(difference) = compare(theirs, ours) {
                    match explained(&query, when, &difference) {
                        Some(reason) => *known.entry(reason).or_default() += 1,
                        None => odd.push(format!("{query}\n    {when:?}: {difference}")),
                    }
                }
            }
            (Err(e), Ok(_)) | (Ok(_), Err(e)) => {
                let who = if theirs.is_err() { "Prometheus refuses" } else { "we refuse" };
                let difference = format!("{who}: {e}");
                match explained(&query, when, &difference) {
                    Some(reason) => *known.entry(reason).or_default() += 1,
                    None => odd.push(format!("{query}\n    {when:?}: {difference}")),
                }
            }
        }
        if odd.len() >= 40 {
            break;
        }
    }
    println!(
        "{queries} queries: {empty} empty, {refused} refused by both, explained {known:?}, odd {}",
        odd.len()
    );
    assert!(odd.is_empty(), "{} of {queries}:\n{}", odd.len(), odd.join("\n"));
}

/// Why Prometheus 3.5 and we may differ about a query.
fn explained(query: &str, when: When, difference: &str) -> Option<&'static str> {
    let has = |part: &str| query.contains(part);
    let differs = |part: &str| difference.contains(part);
    let rates = has("rate(") || has("increase(");
    let gauges = has("sizes") || has("{job=\"api\"}[") || has("{job=\"api\"})[");
    let negated = has("-(") && has(":");
    // The last step lies before the end.
    let behind = matches!(when, When::Range(start, end, step) if (end - start) % step != 0);
    let reasons = [
        (has("mad_over_time"), "3.14 corrected mad_over_time where a sample is NaN"),
        (
            rates && (gauges || (has(":") && differs("Histogram("))),
            "3.6 corrected the extrapolation of counter histograms below 0",
        ),
        (
            negated && (differs("not a counter") || differs("not a gauge")),
            "3.7 made histograms that were negated gauges",
        ),
        (
            has(" - ") && has(":") && differs("only we say") && differs("not a counter"),
            "later versions make differences of histograms gauges",
        ),
        (
            has(":") && behind && (differs("only Prometheus says") || differs("Prometheus refuses")),
            "Prometheus also evaluates steps of a subquery behind the last window, and tells what it meets there",
        ),
        (
            (has("stddev") || has("stdvar")) && differs("e-1"),
            "deviations of values that are all but equal depend on the order of the sum",
        ),
        (
            has("histogram_fraction") && differs("NaN"),
            "3.7.3 corrected histogram_fraction where the lower bound is in the first bucket",
        ),
        (
            differs("we refuse: multiple matches for labels: many-to-one"),
            "later versions refuse an ambiguous comparison also where it keeps nothing",
        ),
        (
            differs("only we say") && differs("conflicting counter resets"),
            "later versions look for conflicting resets in averages and over time",
        ),
        (
            differs("mix of histograms"),
            "which of two notes is told of a mixture depends on the order of the series, which is chance after `or`",
        ),
        (
            differs("only we say") && differs("incompatible sample types"),
            "of several operands without an operator, Prometheus tells the last pair of a step",
        ),
        (
            (has("stddev") || has("stdvar")) && (has("timestamp(") || has("time()")),
            "deviations of times have few digits left",
        ),
        (
            has("^") && ["sin(", "cos(", "tan("].iter().any(|name| has(name)),
            "Go's powers differ in the last bit, which decides the angle of a huge number",
        ),
        (
            differs("Histogram(NaN, NaN"),
            "NaN times a bucket that is empty but written down is a bucket; later versions drop it before",
        ),
    ];
    reasons.iter().find(|(hit, _)| *hit).map(|(_, reason)| *reason)
}

/// The same chunks as a block for Prometheus and in our own store.
fn load(folder: &std::path::Path) -> Arc<MemoryStore> {
    let (world, store) = (World::real(), MemoryStore::new());
    world.disk.create_dir_all(folder).expect("a data folder");
    let id = block::BlockId::new(&world);
    let mut writer = block::BlockWriter::create(&world, folder, id).expect("a block");
    for (labels, chunks) in data() {
        writer.add_series(&labels, &chunks).expect("a series");
        store.extend(&labels, chunks);
    }
    writer.finish(block::MetaSpec { level: 1, ..block::MetaSpec::default() }).expect("a whole block");
    Arc::new(store)
}

fn evaluate(engine: &Engine, store: &Arc<MemoryStore>, query: &str, when: When) -> Result<Answer, String> {
    let (select, context) = (store.clone(), Context::background());
    let result = match when {
        When::At(time) => {
            let request = InstantRequest { query: query.to_owned(), time, ..InstantRequest::default() };
            engine.instant(&request, select, &context)
        }
        When::Range(start, end, step) => {
            let request =
                RangeRequest { query: query.to_owned(), start, end, step, ..RangeRequest::default() };
            engine.range(&request, select, &context)
        }
    };
    result.map(answer).map_err(|e| e.to_string())
}

fn answer(result: QueryResult) -> Answer {
    let notes = result.notes.warnings.iter().chain(&result.notes.infos).map(|text| plain(text)).collect();
    let labels =
        |labels: &model::Labels| labels.iter().map(|(n, v)| format!("{n}={v:?},")).collect::<String>();
    let native = |h: &model::FloatHistogram| {
        let buckets = promql::native::all_buckets(h);
        let there = buckets.iter().filter(|b| b.count != 0.0).map(|b| (b.lower, b.upper, b.count));
        Sample::Histogram(h.count, h.sum, there.collect())
    };
    let points = match result.value {
        Value::Scalar(t, v) => BTreeMap::from([(String::new(), BTreeMap::from([(t, Sample::Float(v))]))]),
        Value::String(..) => Points::new(),
        Value::Vector(samples) => samples
            .iter()
            .map(|s| {
                let value = s.histogram.as_ref().map_or(Sample::Float(s.point.v), |h| native(h));
                (labels(&s.labels), BTreeMap::from([(s.point.t, value)]))
            })
            .collect(),
        Value::Matrix(series) => series
            .iter()
            .map(|s| {
                let floats = s.points.iter().map(|p| (p.t, Sample::Float(p.v)));
                let natives = s.histograms.iter().map(|p| (p.t, native(&p.h)));
                (labels(&s.labels), floats.chain(natives).collect())
            })
            .collect(),
    };
    (points, notes)
}

/// A note without what versions tell differently: names of metrics that have none, the buckets in question; and, of
/// operands without an operator, which ones they are, for Prometheus only tells the last pair.
fn plain(note: &str) -> String {
    let place = note.rsplit_once(" (").map_or("", |(_, place)| place);
    for part in [
        "needed to be fixed for monotonicity",
        "incompatible sample types encountered",
        "is missing or has a malformed value",
        " for metric name",
    ] {
        if let Some((head, _)) = note.split_once(part) {
            return format!("{head}{part} ({place}");
        }
    }
    note.to_owned()
}

fn ask(url: &str, query: &str, when: When) -> Result<Answer, String> {
    let s = |ms: i64| format!("{}", ms as f64 / 1000.0);
    let said = match when {
        When::At(t) => post_form(&format!("{url}/api/v1/query"), &[("query", query), ("time", &s(t))]),
        When::Range(start, end, step) => post_form(
            &format!("{url}/api/v1/query_range"),
            &[("query", query), ("start", &s(start)), ("end", &s(end)), ("step", &s(step))],
        ),
    };
    let json = said.expect("Prometheus answers").json();
    if json["status"] != "success" {
        return Err(json["error"].as_str().unwrap_or("no reason").to_owned());
    }
    let said = ["warnings", "infos"].map(|key| json[key].as_array().cloned().unwrap_or_default());
    let notes = said.iter().flatten().map(|note| plain(note.as_str().unwrap_or(""))).collect();
    let result = &json["data"]["result"];
    if json["data"]["resultType"] == "scalar" {
        let (t, v) = point(result);
        return Ok((BTreeMap::from([(String::new(), BTreeMap::from([(t, v)]))]), notes));
    }
    let mut out = Points::new();
    for one in result.as_array().into_iter().flatten() {
        let mut metric: Vec<(&String, &str)> = one["metric"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name, value.as_str().unwrap_or("")))
            .collect();
        metric.sort();
        let labels = metric.iter().map(|(name, value)| format!("{name}={value:?},")).collect();
        let mut points = BTreeMap::new();
        for key in ["values", "histograms"] {
            points.extend(one[key].as_array().into_iter().flatten().map(point));
        }
        for key in ["value", "histogram"] {
            points.extend(one.get(key).map(point));
        }
        out.insert(labels, points);
    }
    Ok((out, notes))
}

fn point(json: &serde_json::Value) -> (i64, Sample) {
    let number = |v: &serde_json::Value| v.as_str().and_then(|t| t.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let time = (json[0].as_f64().unwrap_or(f64::NAN) * 1000.0).round() as i64;
    let value = &json[1];
    if value.is_string() {
        return (time, Sample::Float(number(value)));
    }
    let buckets = value["buckets"].as_array().into_iter().flatten();
    let buckets = buckets.map(|b| (number(&b[1]), number(&b[2]), number(&b[3]))).collect();
    (time, Sample::Histogram(number(&value["count"]), number(&value["sum"]), buckets))
}

/// Equal up to the rounding of sums in another order.
fn close(a: f64, b: f64, scale: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(scale)
}

fn compare((theirs, their_notes): &Answer, (ours, our_notes): &Answer) -> Result<(), String> {
    compare_points(theirs, ours)?;
    // Prometheus shows ten of each at most, and 3.5 does not know the one about sorting. Where it has to say the same
    // at several places, it tells one of them.
    if their_notes.len() >= 10 {
        return Ok(());
    }
    if let Some(note) = their_notes.difference(our_notes).next() {
        return Err(format!("only Prometheus says: {note}"));
    }
    let text = |note: &str| note.rsplit_once(" (").map_or(note.to_owned(), |(text, _)| text.to_owned());
    let told: BTreeSet<String> = their_notes.iter().map(|note| text(note)).collect();
    match our_notes.iter().find(|n| !told.contains(&text(n)) && !n.contains("sort is ineffective")) {
        Some(note) => Err(format!("only we say: {note}")),
        None => Ok(()),
    }
}

fn compare_points(theirs: &Points, ours: &Points) -> Result<(), String> {
    let only = |a: &Points, b: &Points| a.keys().find(|key| !b.contains_key(*key)).cloned();
    if let Some(labels) = only(theirs, ours) {
        return Err(format!("only Prometheus has {{{labels}}} ({} and {})", theirs.len(), ours.len()));
    }
    if let Some(labels) = only(ours, theirs) {
        return Err(format!("only we have {{{labels}}} ({} and {})", theirs.len(), ours.len()));
    }
    for (labels, theirs) in theirs {
        let ours = &ours[labels];
        if !theirs.keys().eq(ours.keys()) {
            return Err(format!("{{{labels}}}: {} points and our {}", theirs.len(), ours.len()));
        }
        for (time, theirs) in theirs {
            let ours = &ours[time];
            if !same(theirs, ours) {
                return Err(format!("{{{labels}}} at {time}: {theirs:?} and our {ours:?}"));
            }
        }
    }
    Ok(())
}

fn same(theirs: &Sample, ours: &Sample) -> bool {
    match (theirs, ours) {
        (Sample::Float(a), Sample::Float(b)) => close(*a, *b, 0.0),
        (Sample::Histogram(n, s, a), Sample::Histogram(m, t, b)) => {
            // What cancels out exactly here may leave a trace there.
            let scale = a.iter().chain(b).map(|b| b.2.abs()).fold(n.abs().max(m.abs()), f64::max);
            let count = |list: &[(f64, f64, f64)], of: &(f64, f64, f64)| {
                list.iter().find(|b| (b.0, b.1) == (of.0, of.1)).map_or(0.0, |b| b.2)
            };
            close(*n, *m, 0.0)
                && close(*s, *t, 1e-6)
                && a.iter().chain(b).all(|of| close(count(a, of), count(b, of), scale))
        }
        _ => false,
    }
}
