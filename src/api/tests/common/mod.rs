//! Series in memory behind the API, and a client that is one function call.

use std::sync::Arc;

use api::{ApiSettings, ApiState, Door, Problem, QueryPool, Queryable, ReadParams, Readiness, router, v1};
use axum::Router;
use axum::body::Body;
use chunk::Encoding;
use http::{Request, Response};
use model::{Labels, Matcher, Sample, TimeRange};
use runtime::{ManualClock, World};
use storage::{
    ChunkData, Context, Error, LabelRequest, Listed, Notes, Select, SelectRequest, SeriesEntry, SeriesSet,
};
use tower::ServiceExt;

/// The time that tests call now, in milliseconds.
pub const NOW: i64 = 1_795_220_319_380;

/// A few series, each sampled every 15 s for ten minutes before [`NOW`].
#[derive(Clone, Default)]
pub struct Memory {
    pub series: Vec<SeriesEntry>,
    pub notes: Notes,
}

impl Memory {
    pub fn with(mut self, labels: &[(&str, &str)], value: impl Fn(i64) -> f64) -> Memory {
        let samples: Vec<Sample> =
            (0..=40).map(|i| Sample { timestamp: NOW - (40 - i) * 15_000, value: value(i) }).collect();
        let range = TimeRange::new(samples[0].timestamp, NOW);
        let bytes = chunk::xor::encode(samples).unwrap().into();
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        self.series
            .push(SeriesEntry { labels, chunks: vec![ChunkData { range, encoding: Encoding::Xor, bytes }] });
        self.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        self
    }

    fn matching(&self, range: TimeRange, matchers: &[Matcher]) -> Vec<SeriesEntry> {
        let keep = |entry: &&SeriesEntry| {
            Matcher::all_match(matchers, &entry.labels)
                && entry.chunks.iter().any(|c| c.range.overlaps(&range))
        };
        self.series.iter().filter(keep).cloned().collect()
    }
}

struct Answer(std::vec::IntoIter<SeriesEntry>, Notes);

impl SeriesSet for Answer {
    fn next(&mut self) -> Result<Option<SeriesEntry>, Error> {
        Ok(self.0.next())
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.1)
    }
}

impl Select for Memory {
    fn select(&self, request: &SelectRequest, _: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        let found = self.matching(request.range, &request.matchers);
        Ok(Box::new(Answer(found.into_iter(), self.notes.clone())))
    }

    fn label_names(&self, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let found = self.matching(request.range, &request.matchers);
        let names = found.iter().flat_map(|e| e.labels.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>());
        Ok(listed(names))
    }

    fn label_values(&self, name: &str, request: &LabelRequest, _: &Context) -> Result<Listed, Error> {
        let found = self.matching(request.range, &request.matchers);
        Ok(listed(found.iter().filter_map(|e| e.labels.get(name).map(str::to_owned))))
    }
}

fn listed(values: impl Iterator<Item = String>) -> Listed {
    let unique: std::collections::BTreeSet<String> = values.collect();
    Listed { values: unique.into_iter().collect(), notes: Notes::default() }
}

/// Hands out one select whatever is asked.
pub struct Always(pub Arc<dyn Select>);

impl Queryable for Always {
    fn select_for(&self, _: &ReadParams) -> Result<Arc<dyn Select>, Problem> {
        Ok(self.0.clone())
    }
}

/// A process with an API over `select`, ready unless told otherwise.
pub fn app_over(select: Arc<dyn Select>, settings: ApiSettings) -> (Router, Readiness) {
    let world = World { clock: Arc::new(ManualClock::new(NOW)), ..World::real() };
    let readiness = Readiness::starting("replaying the log");
    readiness.set_ready();
    let engine = promql::Engine::new(promql::EngineSettings::default(), world.clone());
    let pool = QueryPool::new(2, world.clone());
    let state = ApiState::new(Arc::new(Always(select)), engine, pool, readiness.clone(), world, settings);
    let door = Door::new("test", readiness.clone(), Arc::new(|| "up 1\n".to_owned())).with_paths(&v1::PATHS);
    (door.open(router(state)), readiness)
}

/// `job="a"` and `job="b"` of `up`, and a counter.
pub fn memory() -> Memory {
    Memory::default()
        .with(&[("__name__", "up"), ("job", "a")], |_| 1.0)
        .with(&[("__name__", "up"), ("job", "b")], |_| 0.0)
        .with(&[("__name__", "requests_total"), ("code", "200")], |i| i as f64 * 15.0)
}

#[allow(dead_code)]
pub fn app() -> Router {
    app_over(Arc::new(memory()), ApiSettings::default()).0
}

pub async fn call(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

/// Status and body of a GET.
pub async fn get(app: &Router, path: &str) -> (u16, String) {
    read(call(app, Request::get(path).body(Body::empty()).unwrap()).await).await
}

/// Status and body of a POST with a form.
#[allow(dead_code)]
pub async fn post(app: &Router, path: &str, form: &str) -> (u16, String) {
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap();
    read(call(app, request).await).await
}

pub async fn read(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
