//! The API as clients see it: statuses and bodies, byte for byte.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use api::{ApiSettings, Cors};
use axum::body::Body;
use common::{Memory, app, app_over, call, get, memory, post, read};
use http::Request;
use model::Kind;
use runtime::{Clock, SystemClock};
use storage::{Context, Error, LabelRequest, Listed, Notes, Select, SelectRequest, SeriesSet};

fn bad(error: &str) -> String {
    let error = serde_json::to_string(error).unwrap();
    format!(r#"{{"status":"error","errorType":"bad_data","error":{error}}}"#)
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let app = app();
    let time = |value: &str| format!("cannot parse {value:?} to a valid timestamp");
    for (path, error) in [
        ("query?query=up&time=abc", format!("invalid parameter \"time\": invalid time value for 'time': {}", time("abc"))),
        ("query?query=up&timeout=x", "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration".into()),
        ("query?query=up&limit=-1", "invalid parameter \"limit\": limit must be non-negative".into()),
        ("query?query=up&limit=x", "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax".into()),
        ("query?query=up&lookback_delta=x", "error parsing lookback delta duration: cannot parse \"x\" to a valid duration".into()),
        ("query?query=up&dedup=x", "'dedup' parameter: strconv.ParseBool: parsing \"x\": invalid syntax".into()),
        ("query_range?query=up&end=1&step=1", format!("invalid parameter \"start\": {}", time(""))),
        ("query_range?query=up&start=1&end=x&step=1", format!("invalid parameter \"end\": {}", time("x"))),
        ("query_range?query=up&start=2&end=1&step=1", "invalid parameter \"end\": end timestamp must not be before start time".into()),
        ("query_range?query=up&start=1&end=2", "invalid parameter \"step\": cannot parse \"\" to a valid duration".into()),
        ("query_range?query=up&start=1&end=2&step=0", "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer".into()),
        ("query_range?query=up&start=0&end=11001&step=1", "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)".into()),
        ("series", "no match[] parameter provided".into()),
        ("labels?start=x", format!("invalid parameter \"start\": invalid time value for 'start': {}", time("x"))),
        ("rules?type=x", "invalid parameter \"type\": not supported value \"x\"".into()),
        ("query_exemplars?query=up&start=2&end=1", "end timestamp must not be before start timestamp".into()),
    ] {
        let (status, body) = get(&app, &format!("/api/v1/{path}")).await;
        assert_eq!((status, body), (400, bad(&error)), "{path}");
    }
    let (status, body) = get(&app, "/api/v1/query?query=up%7B").await;
    assert_eq!(status, 400);
    assert!(body.contains("invalid parameter \\\"query\\\": ") && body.contains("parse error"), "{body}");
    let (status, body) = get(&app, "/api/v1/series?match[]=%7B%7D").await;
    assert_eq!(status, 400);
    assert!(body.contains("match[] must contain at least one non-empty matcher"), "{body}");
    // 11 001 points are allowed, as in Prometheus.
    let (status, _) = get(&app, "/api/v1/query_range?query=up&start=0&end=11000&step=1").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn instant_and_range_values() {
    let app = app();
    assert_eq!(
        get(&app, "/api/v1/query?query=up%7Bjob%3D%22a%22%7D").await,
        (200, r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[1795220319.380,"1"]}]}}"#.into())
    );
    assert_eq!(
        get(&app, "/api/v1/query?query=1%2B1&time=4").await,
        (200, r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#.into())
    );
    assert_eq!(
        get(&app, "/api/v1/query?query=absent_metric").await,
        (200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.into())
    );
    let form = "query=requests_total&start=1795220289.38&end=1795220319.38&step=15";
    assert_eq!(
        post(&app, "/api/v1/query_range", form).await,
        (200, r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"requests_total","code":"200"},"values":[[1795220289.380,"570"],[1795220304.380,"585"],[1795220319.380,"600"]]}]}}"#.into())
    );
    assert_eq!(
        get(&app, "/api/v1/format_query?query=sum+by(job)(up%3E%3D0)").await,
        (200, r#"{"status":"success","data":"sum by (job) (up \u003e= 0)"}"#.into())
    );
    assert_eq!(
        post(&app, "/api/v1/parse_query", "query=-1").await,
        (200, r#"{"status":"success","data":{"type":"numberLiteral","val":"-1"}}"#.into())
    );
    assert_eq!(get(&app, "/api/v1/parse_query?query=up%7B").await.0, 400);
    let (status, body) = get(&app, "/api/v1/query?query=up&limit=1&stats=true").await;
    assert_eq!(status, 200);
    assert!(body.contains(r#""stats":{"timings":{"evalTotalTime":"#), "{body}");
    assert!(body.ends_with(r#""warnings":["results truncated due to limit"]}"#), "{body}");
}

#[tokio::test]
async fn figures_of_a_query() {
    let app = app();
    let range = "query=requests_total&start=1795220289.38&end=1795220319.38&step=15";
    let (status, body) = get(&app, &format!("/api/v1/query_range?{range}&stats=all&analyze=true")).await;
    assert_eq!(status, 200, "{body}");
    let data = &serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"];
    let samples = &data["stats"]["samples"];
    assert_eq!(
        samples["totalQueryableSamplesPerStep"].to_string(),
        "[[1795220289.38,1],[1795220304.38,1],[1795220319.38,1]]"
    );
    assert_eq!(samples["totalQueryableSamples"], 3);
    let analysis = &data["analysis"];
    assert_eq!(analysis["name"], r#"[select] {__name__="requests_total"}"#);
    assert_eq!((&analysis["totalSamples"], &analysis["peakSamples"]), (&3.into(), &3.into()));
    assert!(analysis["executionTime"].as_str().is_some_and(|took| took.ends_with('s')), "{analysis}");
    let (_, body) = post(&app, "/api/v1/query_range", &format!("{range}&stats=true")).await;
    assert!(!body.contains("PerStep") && !body.contains("analysis"), "{body}");

    let plan = r#"{"status":"success","data":{"name":"[aggregate] sum by (job)","children":[{"name":"[select] {__name__=\"up\"}"}]}}"#;
    let query = "query=sum+by+(job)+(up)";
    assert_eq!(get(&app, &format!("/api/v1/query_explain?{query}&engine=thanos")).await, (200, plan.into()));
    let range = format!("{query}&start=1&end=2&step=1");
    assert_eq!(post(&app, "/api/v1/query_range_explain", &range).await, (200, plan.into()));
    for path in
        ["query_explain?query=up%7B", "query_explain?query=up&engine=x", "query_range_explain?query=up"]
    {
        assert_eq!(get(&app, &format!("/api/v1/{path}")).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn listings() {
    let app = app();
    let ok = |data: &str| (200, format!(r#"{{"status":"success","data":{data}}}"#));
    assert_eq!(get(&app, "/api/v1/labels").await, ok(r#"["__name__","code","job"]"#));
    assert_eq!(post(&app, "/api/v1/labels", "match[]=up").await, ok(r#"["__name__","job"]"#));
    assert_eq!(get(&app, "/api/v1/label/job/values").await, ok(r#"["a","b"]"#));
    assert_eq!(get(&app, "/api/v1/label/U______name____/values").await, ok(r#"["requests_total","up"]"#));
    assert_eq!(get(&app, "/api/v1/label/a-b/values").await, ok("[]"));
    assert_eq!(get(&app, "/api/v1/label/a%2Fb/values").await, ok("[]"));
    assert_eq!(get(&app, "/api/v1/label/job/values?start=1&end=2").await, ok("[]"));
    assert_eq!(
        get(&app, "/api/v1/series?match[]=up%7Bjob%3D%22b%22%7D&match[]=up").await,
        ok(r#"[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]"#)
    );
    let (_, body) = get(&app, "/api/v1/label/__name__/values?limit=1").await;
    assert_eq!(
        body,
        r#"{"status":"success","data":["requests_total"],"warnings":["results truncated due to limit"]}"#
    );
    let (_, body) = get(&app, "/api/v1/series?match[]=up&limit=1").await;
    assert!(body.contains("truncated") && !body.contains(r#""job":"b""#), "{body}");
}

/// What Grafana asks before and beside its queries.
#[tokio::test]
async fn grafana_probes() {
    let app = app();
    let (status, body) = post(&app, "/api/v1/query", "query=1%2B1&time=4").await;
    assert_eq!((status, body.contains(r#"[4,"2"]"#)), (200, true));
    let (status, body) = get(&app, "/api/v1/status/buildinfo").await;
    let info: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert!(info["data"]["version"].as_str().unwrap().starts_with("3."));
    assert!(info["data"].get("features").is_none() && info["data"].get("application").is_none());
    let probe = "query=test&start=1795220319380&end=1795220419380";
    let empty = (200, r#"{"status":"success","data":[]}"#.to_owned());
    assert_eq!(post(&app, "/api/v1/query_exemplars", probe).await, empty);
    assert_eq!(
        get(&app, "/api/v1/rules").await,
        (200, r#"{"status":"success","data":{"groups":[]}}"#.to_owned())
    );
    assert_eq!(
        get(&app, "/api/v1/metadata?limit=100").await,
        (200, r#"{"status":"success","data":{}}"#.to_owned())
    );
    for path in ["alerts", "status/flags", "status/runtimeinfo", "status/config", "targets"] {
        assert_eq!(get(&app, &format!("/api/v1/{path}")).await.0, 200, "{path}");
    }
    let (status, body) = get(&app, "/api/v1/rules/namespace/group").await;
    assert_eq!(status, 404);
    assert!(
        body.starts_with(r#"{"status":"error","errorType":"not_found","error":"404 page not found"#),
        "{body}"
    );
    // GET of something that is only asked by GET, with another method.
    let put = call(&app, Request::put("/api/v1/query").body(Body::empty()).unwrap()).await;
    assert_eq!(put.status(), 405);
    let label = call(&app, Request::post("/api/v1/label/job/values").body(Body::empty()).unwrap()).await;
    assert_eq!(label.status(), 405);
    // A selector as long as dashboards make them.
    let long = format!("/api/v1/query?query=up%7Bjob%3D~%22{}%22%7D", "abc%7C".repeat(10_000));
    assert_eq!(get(&app, &long).await.0, 200);
}

/// Calls of Grafana's data source by method and path: JSON always, never a page for people.
#[tokio::test]
async fn grafana_lists_and_fallbacks() {
    let app = app();
    let only_get = [
        "label/job/values",
        "metadata",
        "targets",
        "rules",
        "alerts",
        "targets/metadata",
        "alertmanagers",
        "status/config",
        "status/flags",
        "status/runtimeinfo",
        "status/buildinfo",
        "status/walreplay",
        "notifications",
    ];
    for path in only_get {
        let path = format!("/api/v1/{path}");
        let (status, body) = get(&app, &path).await;
        assert_eq!(status, 200, "{path}");
        assert!(body.starts_with(r#"{"status":"success","data":"#), "{path} {body}");
        // A POST is asked again as a GET after 400 or 405.
        assert_eq!(post(&app, &path, "").await.0, 405, "{path}");
    }
    // No head here: the page of a head is missing in JSON.
    let (status, body) = get(&app, "/api/v1/status/tsdb").await;
    assert_eq!((status, body.starts_with(r#"{"status":"error","errorType":"not_found""#)), (404, true));
    assert_eq!(
        get(&app, "/api/v1/status/buildinfo").await.1,
        format!(
            concat!(
                r#"{{"status":"success","data":{{"branch":"","buildDate":"","buildUser":"","goVersion":"","#,
                r#""revision":"tributary-{}","version":"3.5.0"}}}}"#
            ),
            env!("CARGO_PKG_VERSION")
        )
    );
    let ok = |data: &str| (200, format!(r#"{{"status":"success","data":{data}}}"#));
    // Times with fractions, parameters that an administrator may append, and selectors of variable queries.
    let when = "start=1795219719.38&end=1795220319.38&max_source_resolution=auto&deny_partial_response=1";
    assert_eq!(post(&app, "/api/v1/labels", when).await, ok(r#"["__name__","code","job"]"#));
    let series = |selector: &str| format!("{when}&match[]={selector}&limit=40000");
    let jobs = ok(r#"[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]"#);
    assert_eq!(post(&app, "/api/v1/series", &series("%7B__name__%3D~%22u.%22%7D")).await, jobs);
    assert_eq!(post(&app, "/api/v1/series", &series("%7Bjob!%3D%22%22%7D")).await, jobs);
    let values = format!("/api/v1/label/__name__/values?{}", series("%7Bjob%3D%22a%22%7D"));
    assert_eq!(get(&app, &values).await, ok(r#"["up"]"#));
    // What a proxy adds changes nothing.
    let request = Request::get("/api/v1/query?query=1&time=4")
        .header("x-dashboard-uid", "d")
        .header("x-panel-id", "7")
        .header("x-grafana-cache", "private, max-age=60")
        .header("x-scope-orgid", "t");
    let answer = read(call(&app, request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(answer, ok(r#"{"resultType":"scalar","result":[4,"1"]}"#));
}

#[tokio::test]
async fn the_document_is_served() {
    let response = call(&app(), Request::get("/api/v1/openapi.yaml").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "application/yaml");
    let (status, text) = read(response).await;
    assert_eq!((status, text.starts_with("openapi: 3.1.0\n")), (200, true));
    // Each operation that it describes is served, and no other method.
    let document: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        if api::TSDB_PATHS.contains(&path.as_str()) {
            continue; // Served by a router of its own.
        }
        for method in ["get", "post", "put", "delete"] {
            let uri = path.replace("{name}", "job");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(uri);
            let status = call(&app(), request.body(Body::empty()).unwrap()).await.status();
            let described = operations.get(method).is_some();
            assert_eq!(status != 405, described, "{method} {path} {status}");
            assert_ne!(status, 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn common_pages_and_readiness() {
    let (app, readiness) = app_over(Arc::new(memory()), ApiSettings::default());
    assert_eq!(get(&app, "/-/healthy").await, (200, "test is Healthy.\n".into()));
    assert_eq!(get(&app, "/-/ready").await, (200, "test is Ready.\n".into()));
    assert_eq!(get(&app, "/metrics").await, (200, "up 1\n".into()));
    let head = call(&app, Request::head("/-/ready").body(Body::empty()).unwrap()).await;
    assert_eq!(head.status(), 200);
    readiness.set_not_ready("replaying the log");
    assert_eq!(get(&app, "/-/ready").await, (503, "test is not ready: replaying the log\n".into()));
    assert_eq!(
        get(&app, "/api/v1/query?query=up").await,
        (
            503,
            r#"{"status":"error","errorType":"unavailable","error":"not ready: replaying the log"}"#.into()
        )
    );
    let (status, body) = get(&app, "/query_range").await;
    assert_eq!(
        (status, body.as_str()),
        (404, "404 page not found: /query_range is not served here; did you mean /api/v1/query_range?\n")
    );
}

#[tokio::test]
async fn other_origins() {
    let ask = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/api/v1/query?query=1")
            .header("origin", "http://a.example")
            .body(Body::empty())
            .unwrap()
    };
    let preflight = call(&app(), ask("OPTIONS")).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    let pattern = Arc::new(model::Pattern::new("http://.*[.]example").unwrap());
    let settings = ApiSettings { cors: Cors::Matching(pattern), ..ApiSettings::default() };
    let answer = call(&app_over(Arc::new(memory()), settings).0, ask("GET")).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://a.example");
    assert!(answer.headers().get_all("vary").iter().any(|v| v == "Origin"));
    let settings = ApiSettings { cors: Cors::Off, ..ApiSettings::default() };
    let answer = call(&app_over(Arc::new(memory()), settings).0, ask("GET")).await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn many_warnings_are_cut() {
    let notes = Notes { warnings: (0..13).map(|i| format!("w{i:02}")).collect(), infos: vec![] };
    let memory = Memory { notes, ..memory() };
    let (app, _) = app_over(Arc::new(memory), ApiSettings::default());
    let (_, body) = get(&app, "/api/v1/query?query=up").await;
    assert!(body.contains(r#""w09","3 more warning annotations omitted"]"#), "{body}");
}

#[tokio::test]
async fn over_budget_is_422_with_figures() {
    let settings = ApiSettings { max_memory: 1, ..ApiSettings::default() };
    let (app, _) = app_over(Arc::new(memory()), settings);
    let (status, body) = get(&app, "/api/v1/query?query=up").await;
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("\"errorType\":\"execution\"") && body.contains("--query.max-memory"), "{body}");
}

/// Answers with an error, or not at all until the asker has left.
struct Stubborn {
    error: Option<(Kind, &'static str)>,
    asked: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
}

impl Stubborn {
    fn answer<T>(&self, context: &Context) -> Result<T, Error> {
        self.asked.store(true, SeqCst);
        if let Some((kind, text)) = self.error {
            return Err(Error::new(kind, text));
        }
        loop {
            if let Err(error) = context.cancel.check(SystemClock.monotonic()) {
                self.released.store(true, SeqCst);
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Select for Stubborn {
    fn select(&self, _: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        self.answer(context)
    }

    fn label_names(&self, _: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.answer(context)
    }

    fn label_values(&self, _: &str, _: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.answer(context)
    }
}

#[tokio::test]
async fn kinds_of_failure_have_their_statuses() {
    for (kind, status, error_type) in [
        (Kind::Unavailable, 503, "unavailable"),
        (Kind::Exhausted, 422, "execution"),
        (Kind::Refused, 422, "execution"),
        (Kind::Corrupt, 500, "internal"),
        (Kind::Internal, 500, "internal"),
    ] {
        let failing = Stubborn {
            error: Some((kind, "why <it> failed")),
            asked: Arc::default(),
            released: Arc::default(),
        };
        let (app, _) = app_over(Arc::new(failing), ApiSettings::default());
        for path in ["query?query=up", "series?match[]=up", "labels", "label/job/values"] {
            let (got, body) = get(&app, &format!("/api/v1/{path}")).await;
            assert_eq!(got, status, "{kind:?} {path} {body}");
            let error = r#""error":"why \u003cit\u003e failed"}"#;
            assert!(body.contains(&format!("\"errorType\":\"{error_type}\",{error}")), "{body}");
        }
    }
}

/// Breaks off as often as it is told to.
struct BreaksOff(AtomicU32, Memory);

impl Select for BreaksOff {
    fn select(&self, request: &SelectRequest, context: &Context) -> Result<Box<dyn SeriesSet>, Error> {
        match self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::new(Kind::Unavailable, "a receiver went away in the middle of its answer")),
            Err(_) => self.1.select(request, context),
        }
    }

    fn label_names(&self, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.1.label_names(request, context)
    }

    fn label_values(&self, name: &str, request: &LabelRequest, context: &Context) -> Result<Listed, Error> {
        self.1.label_values(name, request, context)
    }
}

#[tokio::test]
async fn what_broke_off_is_asked_for_once_more_and_not_again() {
    for (breaks, status) in [(1, 200), (2, 503)] {
        let select = BreaksOff(AtomicU32::new(breaks), common::memory());
        let (app, _) = app_over(Arc::new(select), ApiSettings::default());
        for path in ["/api/v1/query?query=up", "/api/v1/query_range?query=up&start=0&end=1&step=1"] {
            let (got, body) = get(&app, path).await;
            assert_eq!(got, status, "{path}: {body}");
            if breaks == 2 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_query_ends_at_its_deadline() {
    let stubborn = Stubborn { error: None, asked: Arc::default(), released: Arc::default() };
    let (app, _) = app_over(Arc::new(stubborn), ApiSettings::default());
    for path in ["query?query=up&timeout=20ms", "labels?timeout=0.02"] {
        let (status, body) = get(&app, &format!("/api/v1/{path}")).await;
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("\"errorType\":\"timeout\",\"error\":\"query timed out"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_leaves_ends_the_query() {
    leave_after(b"GET /api/v1/query?query=up HTTP/1.1\r\nhost: a\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_leaves_ends_the_remote_read() {
    // One query without matchers; streamed chunks are accepted.
    let body = snap::raw::Encoder::new().compress_vec(&[0x0a, 2, 0x10, 9, 0x10, 1]).unwrap();
    let head = format!("POST /api/v1/read HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    leave_after(&[head.as_bytes(), &body].concat()).await;
}

async fn leave_after(request: &[u8]) {
    let (asked, released) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let stubborn = Stubborn { error: None, asked: asked.clone(), released: released.clone() };
    let (app, _) = app_over(Arc::new(stubborn), ApiSettings::default());
    let server = api::Server::bind("127.0.0.1:0", api::ServerSettings::default()).await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(app, async {
        let _ = stopped.await;
    }));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, request).await.unwrap();
    let wait = async |flag: &AtomicBool| {
        while !flag.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait(&asked)).await.unwrap();
    assert!(!released.load(SeqCst));
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), wait(&released)).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn federation() {
    let stale = model::stale_nan();
    let memory = memory()
        .with(&[("__name__", "gone"), ("job", "a")], |i| if i == 40 { stale } else { 1.0 })
        .with(&[("A", "first"), ("__name__", "up")], |_| f64::NAN)
        .with(&[("job", "nameless")], |_| 1.0);
    let (app, _) = app_over(Arc::new(memory), ApiSettings::default());
    let all = "/federate?match[]=up%7Bjob%3D%22a%22%7D&match[]=%7Bjob!%3D%22b%22,__name__!%3D%22%22%7D\
               &match[]=%7Bjob%3D%22nameless%22%7D";
    let response = call(&app, Request::get(all).body(Body::empty()).unwrap()).await;
    let media = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    assert_eq!(response.headers()["content-type"], media);
    assert_eq!(
        read(response).await,
        (
            200,
            "# TYPE requests_total untyped\n\
             requests_total{code=\"200\",instance=\"\"} 600 1795220319380\n\
             # TYPE up untyped\n\
             up{A=\"first\",instance=\"\"} NaN 1795220319380\n\
             up{job=\"a\",instance=\"\"} 1 1795220319380\n"
                .to_owned()
        )
    );
    assert_eq!(get(&app, "/federate").await, (200, String::new()));
    let (status, body) = get(&app, "/federate?match[]=up%7B").await;
    assert_eq!(status, 400);
    assert!(body.starts_with("invalid parameter \"match[]\": "), "{body}");
}

#[tokio::test]
async fn answers_in_gzip_for_those_who_take_it() {
    let mut memory = Memory::default();
    for i in 0..300 {
        memory = memory.with(&[("__name__", "m"), ("i", &format!("{i:04}"))], |t| t as f64 / 7.0);
    }
    let (app, _) = app_over(Arc::new(memory), ApiSettings::default());
    let long = "/api/v1/query_range?query=m&start=1795219719.38&end=1795220319.38&step=15";
    let (_, plain) = get(&app, long).await;
    let ask = |path: &str, method: &str| {
        let request = Request::builder().method(method).uri(path).header("accept-encoding", "br, gzip");
        request.body(Body::empty()).unwrap()
    };
    let packed = call(&app, ask(long, "GET")).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.headers().get("content-length").is_none());
    assert!(packed.headers().get_all("vary").iter().any(|v| v == "Accept-Encoding"));
    let mut body = packed.into_body().into_data_stream();
    let (mut bytes, mut pieces) = (Vec::new(), 0);
    while let Some(piece) = futures::StreamExt::next(&mut body).await {
        bytes.extend_from_slice(&piece.unwrap());
        pieces += 1;
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
    assert_eq!(text, plain);
    assert!(pieces > 1 && bytes.len() * 4 < plain.len(), "{pieces} {} {}", bytes.len(), plain.len());
    // A small answer, and one without a body, stay as they are, and say what they depend on.
    for (path, method) in [("/api/v1/query?query=1", "GET"), (long, "HEAD")] {
        let answer = call(&app, ask(path, method)).await;
        assert!(answer.headers().get("content-encoding").is_none(), "{path}");
        assert!(answer.headers().get_all("vary").iter().any(|v| v == "Accept-Encoding"));
    }
}

#[tokio::test]
async fn long_answers_arrive_whole() {
    let mut memory = Memory::default();
    for i in 0..300 {
        memory = memory.with(&[("__name__", "m"), ("i", &format!("{i:04}"))], |t| t as f64 / 7.0);
    }
    let (app, _) = app_over(Arc::new(memory), ApiSettings::default());
    let path = "/api/v1/query_range?query=m&start=1795219719.38&end=1795220319.38&step=15";
    let response = call(&app, Request::get(path).body(Body::empty()).unwrap()).await;
    assert!(response.headers().get("content-length").is_none());
    let (status, body) = read(response).await;
    assert_eq!(status, 200);
    let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
    let series = parsed["data"]["result"].as_array().unwrap();
    assert_eq!(series.len(), 300);
    for one in series {
        let values = one["values"].as_array().unwrap();
        assert_eq!(values.len(), 41);
        for (at, point) in values.iter().enumerate() {
            let v: f64 = point[1].as_str().unwrap().parse().unwrap();
            assert_eq!(v.to_bits(), (at as f64 / 7.0).to_bits());
        }
    }
}

/// What is asked of Prometheus 3 beside queries: answered, or refused with a type and a reason.
#[tokio::test]
async fn the_rest_of_the_surface() {
    let app = app();
    let (status, body) = get(&app, "/api/v1/features").await;
    let features: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    for (group, flags) in features["data"].as_object().unwrap() {
        assert!(flags.as_object().unwrap().values().all(serde_json::Value::is_boolean), "{group}");
    }
    assert_eq!(get(&app, "/version").await.1, get(&app, "/api/v1/status/buildinfo").await.1);
    let error = |kind: &str, text: &str| {
        let text = serde_json::to_string(text).unwrap();
        format!(r#"{{"status":"error","errorType":"{kind}","error":{text}}}"#)
    };
    for (path, status, body) in [
        (
            "search/metric_names",
            400,
            error("bad_data", "search API is disabled; this version does not serve it"),
        ),
        ("scrape_pools/config", 400, bad("no scrapePool parameter provided")),
        ("scrape_pools/config?scrapePool=x", 404, error("not_found", "scrape pool \"x\" not found")),
        (
            "targets/relabel_steps?scrapePool=x&labels=%7B%7D",
            404,
            error("not_found", "scrape pool \"x\" not found"),
        ),
        ("query?query=up&engine=x", 400, bad("'x' bad engine")),
        (
            "query?query=up&shard_info=%7B%22shard_index%22:3,%22total_shards%22:2%7D",
            400,
            bad("invalid parameter \"shard_info\": shard_index 3 of 2 shards"),
        ),
        (
            "query?query=up&max_source_resolution=-1",
            400,
            bad(
                "invalid parameter \"max_source_resolution\": negative 'max_source_resolution' is not accepted. Try a positive integer",
            ),
        ),
        (
            "rules?group_next_token=x",
            400,
            bad(
                "invalid parameter \"group_limit\": group_limit needs to be present in order to paginate over the groups",
            ),
        ),
        (
            "rules?group_limit=0",
            400,
            bad("invalid parameter \"group_limit\": group_limit needs to be greater than 0"),
        ),
        (
            "rules?group_limit=x",
            400,
            bad("invalid parameter \"group_limit\": group_limit needs to be a valid number"),
        ),
        (
            "rules?group_limit=1&group_next_token=x",
            400,
            bad(
                "invalid parameter \"group_next_token\": invalid group_next_token 'x'. were rule groups changed?",
            ),
        ),
        (
            "rules?exclude_alerts=x",
            400,
            bad("invalid parameter \"exclude_alerts\": strconv.ParseBool: parsing \"x\": invalid syntax"),
        ),
        ("query_exemplars?query=up%7B", 400, String::new()),
    ] {
        let (got, text) = get(&app, &format!("/api/v1/{path}")).await;
        assert_eq!(got, status, "{path} {text}");
        assert!(body.is_empty() || text == body, "{path} {text}");
    }
    let (status, body) = get(&app, "/api/v1/query?query=up&shard_info=%7B").await;
    assert!(status == 400 && body.contains("could not unmarshal parameter shard_info"), "{body}");
    // A question that selects nothing has no exemplars to list.
    assert_eq!(get(&app, "/api/v1/query_exemplars?query=1%2B1").await, (204, String::new()));
    // Options of every path, and what is deflated comes back.
    let asked = Request::options("/api/v1/rules").body(Body::empty()).unwrap();
    assert_eq!(call(&app, asked).await.status(), 204);
    let packed =
        Request::get("/api/v1/openapi.yaml").header("accept-encoding", "deflate").body(Body::empty());
    let packed = call(&app, packed.unwrap()).await;
    assert_eq!(packed.headers()["content-encoding"], "deflate");
    // The stream of notifications is open and says nothing.
    let live = call(&app, Request::get("/api/v1/notifications/live").body(Body::empty()).unwrap()).await;
    assert_eq!(live.headers()["content-type"], "text/event-stream");
}
