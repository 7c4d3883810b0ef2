//! `/api/v1/status/tsdb` for roles with a head: what its series are made of, tenant by tenant; and its local blocks.
//!
//! Two forms: Prometheus's for a process that is asked as one Prometheus, and Thanos's list of tenants. Counting
//! visits every series, so one request is answered at a time and the others wait.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderMap;
use model::TimeRange;
use runtime::World;
use storage::{Cancel, Notes};

use super::asked;
use crate::params::Params;
use crate::reply::{Reply, Written};
use crate::{Cors, ErrorType, Problem, QueryPool, cors, gzip, json, number};

/// Longest time of one count.
const TIMEOUT: Duration = Duration::from_secs(120);
const LIMIT: usize = 10;
const MAX_LIMIT: usize = 10_000;

/// A list of names with counts, greatest first.
pub type Counts = Vec<(String, u64)>;

/// Figures of one tenant's series in the head.
#[derive(Clone, Debug)]
pub struct HeadFigures {
    pub series: u64,
    /// Distinct pairs of label and value.
    pub label_pairs: u64,
    pub chunks: u64,
    /// Times of the samples; empty if there are none.
    pub range: TimeRange,
    pub series_by_metric: Counts,
    pub values_by_label: Counts,
    pub bytes_by_label: Counts,
    pub series_by_pair: Counts,
}

/// Somebody who has a head.
pub trait Heads: Send + Sync {
    /// Tenants with series. Fails while the log is being replayed.
    fn tenants(&self) -> Result<Vec<String>, Problem>;

    /// Figures of a tenant with lists of at most `limit`; none if it has no series. Blocks; ends early when
    /// `cancel` is raised.
    fn figures(&self, tenant: &str, limit: usize, cancel: &Cancel) -> Result<Option<HeadFigures>, Problem>;

    /// What is said of a tenant's local blocks, oldest first; none for those who have no blocks of their own.
    fn blocks(&self, tenant: &str) -> Result<Vec<block::Meta>, Problem> {
        let _ = tenant;
        Ok(Vec::new())
    }
}

/// How the page is asked and answered.
#[derive(Clone)]
pub struct HeadPage {
    pub heads: Arc<dyn Heads>,
    /// Headers that may name the tenant, in this order.
    pub tenant_headers: Vec<String>,
    /// Whose figures are shown where no header names a tenant.
    pub default_tenant: String,
    /// Thanos's form: a list, also of `all_tenants`.
    pub listed: bool,
    pub cors: Cors,
    pub world: World,
}

#[derive(Clone)]
struct Door {
    page: Arc<HeadPage>,
    pool: QueryPool,
}

/// The paths of the pages.
pub const TSDB_PATHS: [&str; 2] = ["/api/v1/status/tsdb", "/api/v1/status/tsdb/blocks"];

/// The routes of the pages.
pub fn tsdb_router(page: HeadPage) -> Router {
    let cors = page.cors.clone();
    let pool = QueryPool::aside(1, page.world.clone());
    Router::new()
        .route(TSDB_PATHS[0], asked::<Door>(get(show)))
        .route(TSDB_PATHS[1], asked::<Door>(get(blocks)))
        .with_state(Door { page: Arc::new(page), pool })
        .layer(axum::middleware::from_fn(gzip::apply))
        .layer(axum::middleware::from_fn_with_state(cors, cors::apply))
}

impl Door {
    /// The tenant that a header names.
    fn named(&self, headers: &HeaderMap) -> Option<String> {
        let header = |name: &String| headers.get(name.as_str())?.to_str().ok().filter(|t| !t.is_empty());
        self.page.tenant_headers.iter().find_map(header).map(str::to_owned)
    }
}

/// The local blocks of one tenant, as their `meta.json` has them without what Thanos adds.
async fn blocks(State(door): State<Door>, headers: HeaderMap) -> Result<Response, Problem> {
    let tenant = door.named(&headers).unwrap_or_else(|| door.page.default_tenant.clone());
    let mut metas = door.page.heads.blocks(&tenant)?;
    for meta in &mut metas {
        meta.thanos = None;
        meta.other.clear();
    }
    let written = serde_json::to_string(&metas).map_err(|error| {
        Problem::new(ErrorType::Internal, format!("the list of blocks cannot be written: {error}"))
    })?;
    let data = format!("{{\"blocks\":{written}}}").into_bytes();
    Ok(Reply::new(Written(data), Notes::default()).into_response())
}

async fn show(State(door): State<Door>, headers: HeaderMap, params: Params) -> Result<Response, Problem> {
    let limit = limit(params.get("limit"))?;
    let named = door.named(&headers);
    let everybody = door.page.listed && params.optional_bool("all_tenants")?.unwrap_or(false);
    if everybody && named.is_some() {
        return Err(Problem::bad_data("all_tenants and a tenant header exclude one another; give one"));
    }
    let cancel = Cancel::new(Some(door.pool.now() + TIMEOUT));
    let (page, seen) = (door.page.clone(), cancel.clone());
    let work = move || -> Result<Vec<u8>, Problem> {
        let tenants = match everybody {
            true => page.heads.tenants()?,
            false => vec![named.unwrap_or_else(|| page.default_tenant.clone())],
        };
        let mut out = Vec::new();
        let mut first = true;
        for tenant in tenants {
            let figures = page.heads.figures(&tenant, limit, &seen)?;
            match (page.listed, figures) {
                (false, figures) => write(&mut out, None, &figures.unwrap_or_else(nothing)),
                // A tenant without series is not in the list.
                (true, None) => {}
                (true, Some(figures)) => {
                    out.push(if first { b'[' } else { b',' });
                    first = false;
                    write(&mut out, Some(&tenant), &figures);
                }
            }
        }
        if page.listed {
            out.extend_from_slice(if first { b"[]" } else { b"]" });
        }
        Ok(out)
    };
    let data = door.pool.run(&cancel, "", work).await?.value?;
    Ok(Reply::new(Written(data), Notes::default()).into_response())
}

fn limit(text: &str) -> Result<usize, Problem> {
    match text.parse() {
        _ if text.is_empty() => Ok(LIMIT),
        Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Ok(0) | Err(_) => Err(Problem::bad_data("limit must be a positive number")),
        Ok(_) => Err(Problem::bad_data(format!("limit must not exceed {MAX_LIMIT}"))),
    }
}

fn nothing() -> HeadFigures {
    HeadFigures {
        series: 0,
        label_pairs: 0,
        chunks: 0,
        range: TimeRange::EMPTY,
        series_by_metric: Counts::new(),
        values_by_label: Counts::new(),
        bytes_by_label: Counts::new(),
        series_by_pair: Counts::new(),
    }
}

fn write(out: &mut Vec<u8>, tenant: Option<&str>, figures: &HeadFigures) {
    out.push(b'{');
    if let Some(tenant) = tenant {
        out.extend_from_slice(b"\"tenant\":");
        json::text(out, tenant);
        out.push(b',');
    }
    out.extend_from_slice(b"\"headStats\":{\"numSeries\":");
    let put = |out: &mut Vec<u8>, key: &str, value: &dyn Display| {
        out.extend_from_slice(format!("{key}{value}").as_bytes());
    };
    put(out, "", &figures.series);
    put(out, ",\"numLabelPairs\":", &figures.label_pairs);
    put(out, ",\"chunkCount\":", &figures.chunks);
    put(out, ",\"minTime\":", &figures.range.start);
    put(out, ",\"maxTime\":", &figures.range.end);
    out.push(b'}');
    for (key, list) in [
        ("seriesCountByMetricName", &figures.series_by_metric),
        ("labelValueCountByLabelName", &figures.values_by_label),
        ("memoryInBytesByLabelName", &figures.bytes_by_label),
        ("seriesCountByLabelValuePair", &figures.series_by_pair),
    ] {
        put(out, ",\"", &key);
        out.extend_from_slice(b"\":[");
        for (at, (name, count)) in list.iter().enumerate() {
            out.extend_from_slice(if at > 0 { b",{\"name\":" } else { b"{\"name\":" });
            json::text(out, name);
            out.extend_from_slice(b",\"value\":");
            number::integer(out, i64::try_from(*count).unwrap_or(i64::MAX));
            out.push(b'}');
        }
        out.push(b']');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    struct Two;

    impl Heads for Two {
        fn tenants(&self) -> Result<Vec<String>, Problem> {
            Ok(["a", "b", "gone"].map(str::to_owned).to_vec())
        }

        fn figures(&self, tenant: &str, limit: usize, _: &Cancel) -> Result<Option<HeadFigures>, Problem> {
            let series = match tenant {
                "a" => 1,
                "b" => 2,
                _ => return Ok(None),
            };
            let mut by_metric = vec![("up<".to_owned(), series), ("down".to_owned(), 1)];
            by_metric.truncate(limit);
            let range = TimeRange::new(5, 9);
            Ok(Some(HeadFigures { series, range, series_by_metric: by_metric, ..nothing() }))
        }

        fn blocks(&self, tenant: &str) -> Result<Vec<block::Meta>, Problem> {
            let meta = r#"{"ulid":"01KC4D6GXQA4CRHYKV78NEBVAE","minTime":1,"maxTime":9,"version":1,
                "stats":{"numSamples":7},"compaction":{"level":1},"thanos":{"labels":{"a":"b"}},"more":1}"#;
            Ok(if tenant == "b" { vec![serde_json::from_str(meta).unwrap()] } else { Vec::new() })
        }
    }

    async fn ask(listed: bool, query: &str, tenant: Option<&str>) -> (u16, String) {
        at(TSDB_PATHS[0], listed, query, tenant).await
    }

    async fn at(path: &str, listed: bool, query: &str, tenant: Option<&str>) -> (u16, String) {
        let page = HeadPage {
            heads: Arc::new(Two),
            tenant_headers: vec!["THANOS-TENANT".to_owned()],
            default_tenant: "a".to_owned(),
            listed,
            cors: Cors::Any,
            world: World::real(),
        };
        let mut request = Request::get(format!("{path}{query}"));
        if let Some(tenant) = tenant {
            request = request.header("thanos-tenant", tenant);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = tsdb_router(page).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn both_forms() {
        let (status, body) = ask(false, "?limit=1", Some("b")).await;
        assert_eq!(status, 200);
        assert_eq!(
            body,
            "{\"status\":\"success\",\"data\":{\"headStats\":{\"numSeries\":2,\"numLabelPairs\":0,\
             \"chunkCount\":0,\"minTime\":5,\"maxTime\":9},\
             \"seriesCountByMetricName\":[{\"name\":\"up\\u003c\",\"value\":2}],\
             \"labelValueCountByLabelName\":[],\"memoryInBytesByLabelName\":[],\
             \"seriesCountByLabelValuePair\":[]}}"
        );
        // Nobody's figures are those of an empty head, with Prometheus's times.
        let (_, body) = ask(false, "", Some("nobody")).await;
        assert!(
            body.contains("\"numSeries\":0") && body.contains("\"minTime\":9223372036854775807"),
            "{body}"
        );
        let tenants = |body: &str| -> Vec<String> {
            let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
            let list = parsed["data"].as_array().unwrap();
            list.iter().map(|one| one["tenant"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(tenants(&ask(true, "", None).await.1), ["a"]);
        assert_eq!(tenants(&ask(true, "", Some("b")).await.1), ["b"]);
        assert_eq!(tenants(&ask(true, "", Some("nobody")).await.1), [""; 0]);
        assert_eq!(tenants(&ask(true, "?all_tenants=true", None).await.1), ["a", "b"]);
        assert_eq!(ask(true, "?all_tenants=true", Some("b")).await.0, 400);
    }

    #[tokio::test]
    async fn blocks_of_the_named_tenant() {
        let (status, body) = at(TSDB_PATHS[1], false, "", Some("b")).await;
        assert_eq!(status, 200);
        assert_eq!(
            body,
            "{\"status\":\"success\",\"data\":{\"blocks\":[{\"ulid\":\"01KC4D6GXQA4CRHYKV78NEBVAE\",\
             \"minTime\":1,\"maxTime\":9,\"stats\":{\"numSamples\":7},\"compaction\":{\"level\":1},\"version\":1}]}}"
        );
        let (_, body) = at(TSDB_PATHS[1], true, "", None).await;
        assert!(body.contains("{\"blocks\":[]}"), "{body}");
    }

    #[tokio::test]
    async fn limits() {
        for (text, why) in [
            ("0", "limit must be a positive number"),
            ("-1", "limit must be a positive number"),
            ("x", "limit must be a positive number"),
            ("10001", "limit must not exceed 10000"),
        ] {
            let (status, body) = ask(false, &format!("?limit={text}"), None).await;
            assert_eq!(status, 400);
            assert!(body.contains(why), "{body}");
        }
        assert_eq!(ask(false, "?limit=10000", None).await.0, 200);
    }
}
