//! `series`, `labels` and `label/<name>/values`: what there is, without samples.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use model::{Labels, Matcher, TimeRange};
use storage::{Cancel, Context, LabelRequest, Listed, Merge, Notes, Select, SelectRequest, SeriesSet};

use super::ApiState;
use crate::Problem;
use crate::params::Params;
use crate::reply::{List, Reply};

const TRUNCATED: &str = "results truncated due to limit";

/// Series between whose labels bytes are accounted and cancellation is looked at.
const MORSEL: usize = 256;

pub(super) async fn series(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    api.ready()?;
    let limit = params.limit()?;
    let sets = matcher_sets(&params)?;
    if sets.is_empty() {
        return Err(Problem::bad_data("no match[] parameter provided"));
    }
    let range = range(&api, &params)?;
    let world = api.inner.world.clone();
    let work = move |select: Arc<dyn Select>, context: &Context| {
        let mut opened = Vec::with_capacity(sets.len());
        for matchers in sets {
            let mut request = SelectRequest::new(range, matchers);
            request.skip_chunks = true;
            request.hints.function = "series".to_owned();
            // One more than wanted tells a full answer from a cut one.
            request.limit = if limit > 0 { limit + 1 } else { 0 };
            opened.push(select.select(&request, context)?);
        }
        let mut merged: Box<dyn SeriesSet> = match opened.len() {
            1 => opened.remove(0),
            _ => Box::new(Merge::new(opened)),
        };
        let mut held = context.budget.reserve(0)?;
        let (mut found, mut bytes): (Vec<Labels>, usize) = (Vec::new(), 0);
        let mut cut = false;
        while let Some(entry) = merged.next()? {
            if limit > 0 && found.len() == limit {
                cut = true;
                break;
            }
            bytes += entry.labels.as_bytes().len() + 32;
            found.push(entry.labels);
            if found.len().is_multiple_of(MORSEL) {
                held.grow(std::mem::take(&mut bytes) as u64)?;
                context.cancel.check(world.clock.monotonic())?;
            }
        }
        let mut notes = merged.notes();
        if cut {
            notes.warn(TRUNCATED);
        }
        Ok((found, notes))
    };
    let (found, notes) = run(&api, &headers, &params, work).await?;
    Ok(Reply::new(List::series(found), notes).into_response())
}

pub(super) async fn label_names(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    list(api, headers, params, |select, request, context| select.label_names(request, context)).await
}

pub(super) async fn label_values(
    State(api): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let name = unescape(&name);
    if name.is_empty() {
        return Err(Problem::bad_data("invalid label name: \"\""));
    }
    list(api, headers, params, move |select, request, context| select.label_values(&name, request, context))
        .await
}

async fn list(
    api: ApiState,
    headers: HeaderMap,
    params: Params,
    ask: impl Fn(&dyn Select, &LabelRequest, &Context) -> Result<Listed, storage::Error> + Send + 'static,
) -> Result<Response, Problem> {
    api.ready()?;
    let limit = params.limit()?;
    let mut sets = matcher_sets(&params)?;
    if sets.is_empty() {
        sets.push(Vec::new());
    }
    let range = range(&api, &params)?;
    let work = move |select: Arc<dyn Select>, context: &Context| {
        let (mut union, mut notes) = (BTreeSet::new(), Notes::default());
        let single = sets.len() == 1;
        let mut only = Vec::new();
        for matchers in sets {
            let request = LabelRequest { range, matchers, limit: if limit > 0 { limit + 1 } else { 0 } };
            let listed = ask(&*select, &request, context)?;
            notes.absorb(listed.notes);
            if single {
                only = listed.values;
            } else {
                union.extend(listed.values);
            }
        }
        let mut values = if single { only } else { union.into_iter().collect() };
        if limit > 0 && values.len() > limit {
            values.truncate(limit);
            notes.warn(TRUNCATED);
        }
        Ok((values, notes))
    };
    let (values, notes) = run(&api, &headers, &params, work).await?;
    Ok(Reply::new(List::texts(values), notes).into_response())
}

pub(super) async fn run<T: Send + 'static>(
    api: &ApiState,
    headers: &HeaderMap,
    params: &Params,
    work: impl FnOnce(Arc<dyn Select>, &Context) -> Result<T, storage::Error> + Send + 'static,
) -> Result<T, Problem> {
    let timeout = params.optional_duration("timeout")?;
    let read = api.read_params(headers, params, None)?;
    let context = api.context(timeout, &read);
    let cancel: Cancel = context.cancel.clone();
    let select = api.inner.queryable.select_for(&read)?;
    let party = read.tenant.as_deref().unwrap_or("");
    let ran = api.inner.pool.run(&cancel, party, move || work(select, &context)).await?;
    ran.value.map_err(|e| Problem::of_query(e.kind, e.message, &cancel, api.inner.pool.now()))
}

pub(super) fn matcher_sets(params: &Params) -> Result<Vec<Vec<Matcher>>, Problem> {
    let read = |text: &str| match promql::parse_selector(text) {
        Ok(set) if set.iter().any(|m| !m.matches_empty()) => Ok(set),
        // The parser demands it as well, in the words of a query.
        Err(why) if !why.to_string().contains("non-empty matcher") => Err(Problem::parameter("match[]", why)),
        _ => Err(Problem::parameter("match[]", "match[] must contain at least one non-empty matcher")),
    };
    params.all("match[]").map(read).collect()
}

/// The times asked for; without a start everything, or what the operator allows by default.
fn range(api: &ApiState, params: &Params) -> Result<TimeRange, Problem> {
    let start = params.optional_time("start")?;
    let end = params.optional_time("end")?;
    let back = i64::try_from(api.inner.settings.metadata_default_range.as_millis()).unwrap_or(i64::MAX);
    let earliest = match back {
        0 => i64::MIN,
        back => end.unwrap_or_else(|| api.now_ms()).saturating_sub(back),
    };
    Ok(TimeRange::new(start.unwrap_or(earliest), end.unwrap_or(i64::MAX)))
}

/// Undoes `U__` escaping of label names: `_2e_` is a dot, `__` an underscore. A name that is no escape stands as
/// it is.
fn unescape(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    try_unescape(escaped).unwrap_or_else(|| name.to_owned())
}

fn try_unescape(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('_')?;
        let digits = &rest[..end];
        rest = &rest[end + 1..];
        match digits.len() {
            0 => out.push('_'),
            1..=6 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
            }
            _ => return None,
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names() {
        for (name, plain) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___1f600_", "😀"),
            ("U__a_", "U__a_"),
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_1234567_", "U__a_1234567_"),
            ("U__a_d800_", "U__a_d800_"),
            ("a_2e_b", "a_2e_b"),
        ] {
            assert_eq!(unescape(name), plain, "{name}");
        }
    }
}
