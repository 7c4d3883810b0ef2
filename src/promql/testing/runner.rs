//! Executes a script: loads, evaluates each query in several ways, and reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{FloatHistogram, Labels};
use runtime::World;
use storage::{Context, Select};

use super::compare;
use super::memory::{MemoryStore, Stored};
use super::nhcb;
use super::pin::pinned;
use super::script::{Command, CommandKind, Eval, Loaded, parse};
use super::series::Item;
use crate::{Engine, EngineSettings, Error, InstantRequest, QueryResult, RangeRequest};

/// What became of a script.
#[derive(Debug, Default)]
pub struct Report {
    /// Evals that did all that they should.
    pub passed: usize,
    pub failures: Vec<Failure>,
}

/// An eval that did not do what it should.
#[derive(Debug)]
pub struct Failure {
    pub line: usize,
    pub query: String,
    pub reason: String,
}

/// Runs a script; an error means that the script itself cannot be read.
pub fn run_script(text: &str) -> Result<Report, String> {
    let settings = EngineSettings {
        delayed_name_removal: true,
        use_start_timestamps: true,
        ..EngineSettings::default()
    };
    let runner = Runner {
        engine: Engine::new(settings, World::real()),
        store: Arc::new(MemoryStore::new()),
        context: Context::background(),
    };
    let mut report = Report::default();
    for Command { line, kind } in parse(text)? {
        match kind {
            CommandKind::Clear => runner.store.clear(),
            CommandKind::Load { step, series, with_nhcb } => {
                runner.load(step, series, with_nhcb).map_err(|e| format!("line {line}: {e}"))?
            }
            CommandKind::Eval(eval) => match runner.eval(&eval) {
                Ok(()) => report.passed += 1,
                Err(reason) => report.failures.push(Failure { line, query: eval.query, reason }),
            },
        }
    }
    Ok(report)
}

struct Runner {
    engine: Engine,
    store: Arc<MemoryStore>,
    context: Context,
}

impl Runner {
    fn load(&self, step: i64, series: Vec<Loaded>, with_nhcb: bool) -> Result<(), storage::Error> {
        // Within one block a repeated series replaces the earlier one.
        let latest: BTreeMap<Labels, Loaded> = series.into_iter().map(|s| (s.labels.clone(), s)).collect();
        if with_nhcb {
            for (labels, samples) in nhcb::convert(latest.values(), step) {
                self.store.add_mixed(&labels, &samples)?;
            }
        }
        for Loaded { labels, items, starts } in latest.into_values() {
            let mut samples: Vec<Stored> = Vec::new();
            for (at, item) in items.into_iter().enumerate() {
                let time = at as i64 * step;
                let value = match item {
                    Item::Missing => continue,
                    // The marker is of the kind of what it ends.
                    Item::Float(v)
                        if model::is_stale(v) && samples.last().is_some_and(|s| s.value.is_err()) =>
                    {
                        Err(Arc::new(FloatHistogram { sum: v, ..FloatHistogram::default() }))
                    }
                    Item::Float(v) => Ok(v),
                    Item::Histogram { histogram, .. } => Err(histogram),
                };
                let start = starts.get(at).copied().flatten().map_or(0, |offset| time + offset);
                samples.push(Stored { time, start, value });
            }
            self.store.add_mixed(&labels, &samples)?;
        }
        Ok(())
    }

    fn instant(&self, query: &str, time: i64) -> Result<QueryResult, Error> {
        let request = InstantRequest { query: query.to_owned(), time, ..InstantRequest::default() };
        self.engine.instant(&request, self.select(), &self.context)
    }

    fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Result<QueryResult, Error> {
        let request = RangeRequest { query: query.to_owned(), start, end, step, ..RangeRequest::default() };
        self.engine.range(&request, self.select(), &self.context)
    }

    fn select(&self) -> Arc<dyn Select> {
        self.store.clone()
    }

    fn eval(&self, eval: &Eval) -> Result<(), String> {
        if let Some(reason) = &eval.broken {
            return Err(reason.clone());
        }
        if eval.step > 0 {
            let result = self.range(&eval.query, eval.start, eval.end, eval.step);
            return judge(eval, result, compare::range).map(|_| ());
        }
        let time = eval.matrix.map_or(eval.start, |(_, end, _)| end);
        if !judge(eval, self.instant(&eval.query, time), compare::instant)? {
            return Ok(());
        }
        self.at_other_times(eval, time)?;
        let of_query = ["start()", "end()", "range()", "step()"].iter().any(|f| eval.query.contains(f));
        if eval.string.is_none() && eval.matrix.is_none() && !eval.ordered && !of_query {
            let result = self
                .range(&eval.query, eval.start - 60_000, eval.start + 60_000, 60_000)
                .map_err(|e| format!("as a range query: {e}"))?;
            compare::middle(eval, &result).map_err(|e| format!("as a range query: {e}"))?;
        }
        Ok(())
    }

    /// The same query fixed by `@` must give the same at any time.
    fn at_other_times(&self, eval: &Eval, time: i64) -> Result<(), String> {
        let expr = crate::parse(&eval.query).map_err(|e| e.to_string())?;
        let Some(fixed) = pinned(&expr, time) else { return Ok(()) };
        let text = fixed.to_string();
        let times =
            if time == 0 { vec![-1000, 0, 1000] } else { vec![-10 * time, 0, time / 5, time, 10 * time] };
        for at in times {
            let result = self.instant(&text, at).map_err(|e| format!("{text} at {at}: {e}"))?;
            compare::instant(eval, &result).map_err(|e| format!("{text} at {at}: {e}"))?;
        }
        Ok(())
    }
}

/// Judges a result; false where a failure was expected and came.
fn judge(
    eval: &Eval,
    result: Result<QueryResult, Error>,
    compare: impl Fn(&Eval, &QueryResult) -> Result<(), String>,
) -> Result<bool, String> {
    match (&eval.fail, result) {
        (None, Ok(result)) => compare(eval, &result).map(|()| true),
        (None, Err(error)) => Err(format!("failed: {error}")),
        (Some(_), Ok(_)) => Err("should fail, but does not".to_owned()),
        (Some(texts), Err(error)) => {
            let message = error.to_string();
            if texts.iter().all(|t| t.matches(&message)) {
                Ok(false)
            } else {
                Err(format!("fails with another message: {message}"))
            }
        }
    }
}
