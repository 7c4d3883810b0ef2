//! What a query cost operator by operator, and how it would be evaluated, as Thanos writes both.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use promql::{Analysis, Explained, InstantRequest, RangeRequest};
use storage::Notes;

use super::evaluate::{Evaluation, Times};
use super::{ApiState, query};
use crate::params::Params;
use crate::reply::{Reply, Written};
use crate::{Problem, json};

pub(super) async fn explain_instant(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let asked = query::of_instant(&api, &headers, &params)?;
    explain(&api, &params, asked)
}

pub(super) async fn explain_range(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let asked = query::of_range(&api, &headers, &params)?;
    explain(&api, &params, asked)
}

fn explain(api: &ApiState, params: &Params, asked: Evaluation) -> Result<Response, Problem> {
    query::check_engine(params)?;
    let Evaluation { query, times, lookback: lookback_override, read, details, .. } = asked;
    let (engine, max_resolution) = (&api.inner.engine, read.max_source_resolution);
    let explained = match times {
        Times::Instant(time) => {
            let request = InstantRequest { query, time, lookback_override, max_resolution, details };
            engine.explain_instant(&request)
        }
        Times::Range { start, end, step } => {
            let request =
                RangeRequest { query, start, end, step, lookback_override, max_resolution, details };
            engine.explain_range(&request)
        }
    };
    let explained = explained.map_err(|why| Problem::parameter("query", why.message))?;
    let mut out = Vec::new();
    write_plan(&mut out, &explained);
    Ok(Reply::new(Written(out), Notes::default()).into_response())
}

fn write_plan(out: &mut Vec<u8>, plan: &Explained) {
    out.extend_from_slice(b"{\"name\":");
    json::text(out, &plan.name);
    children(out, &plan.children, write_plan);
    out.push(b'}');
}

/// `{"name":…,"executionTime":…,"peakSamples":…,"totalSamples":…,"children":[…]}`; what is zero or unknown is left out.
pub(super) fn write(out: &mut Vec<u8>, analysis: &Analysis) {
    out.extend_from_slice(b"{\"name\":");
    json::text(out, &analysis.name);
    out.extend_from_slice(b",\"executionTime\":");
    json::text(out, &go_duration(analysis.took));
    let peak = analysis.peak_samples.unwrap_or(0) as u64;
    for (name, samples) in [("peakSamples", peak), ("totalSamples", analysis.samples)] {
        if samples > 0 {
            out.extend_from_slice(format!(",\"{name}\":{samples}").as_bytes());
        }
    }
    children(out, &analysis.children, write);
    out.push(b'}');
}

fn children<T>(out: &mut Vec<u8>, all: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (at, child) in all.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b",\"children\":[" } else { b"," });
        write(out, child);
    }
    if !all.is_empty() {
        out.push(b']');
    }
}

/// As Go writes durations: `1h2m3.5s`, `1.5ms`, `0s`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let part = |unit: u128, name: &str| {
        let mut digits = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        digits.truncate(digits.trim_end_matches('0').len());
        let dot = if digits.is_empty() { "" } else { "." };
        format!("{}{dot}{digits}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => part(1_000, "µs"),
        1_000_000..1_000_000_000 => part(1_000_000, "ms"),
        _ => {
            let minutes = duration.as_secs() / 60;
            let seconds = duration - Duration::from_secs(minutes * 60);
            let below = if minutes == 0 { part(1_000_000_000, "s") } else { rest(seconds) };
            match (minutes / 60, minutes % 60) {
                (0, 0) => below,
                (0, minutes) => format!("{minutes}m{below}"),
                (hours, minutes) => format!("{hours}h{minutes}m{below}"),
            }
        }
    }
}

/// Seconds below a minute, after minutes.
fn rest(seconds: Duration) -> String {
    let text = format!("{}.{:09}", seconds.as_secs(), seconds.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_000, "1µs"),
            (1_050, "1.05µs"),
            (1_500_000, "1.5ms"),
            (2_000_000_001, "2.000000001s"),
            (60_000_000_000, "1m0s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (7_265_000_000_000, "2h1m5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
