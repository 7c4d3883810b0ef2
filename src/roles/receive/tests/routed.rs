//! A router of Thanos writes to a receiver: both shapes of its requests, over and over, so that series are met again; what is
//! stored, and the one status that it is told.

mod rig;
#[path = "protocol/stored.rs"]
mod stored;

use model::stale_nan;
use rig::{Node, now, single};
use tonic::Code;
use wire::pb::prometheus_copy::{Exemplar, Histogram, Sample, TimeSeries, histogram};
use wire::pb::thanos::writeable_store_client::WriteableStoreClient;
use wire::pb::thanos::{Label, TimeSeriesTenantTuple, WriteRequest};

fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    pairs.iter().map(|(n, v)| Label { name: n.to_string(), value: v.to_string() }).collect()
}

fn float(pairs: &[(&str, &str)], timestamp: i64, value: f64) -> TimeSeries {
    TimeSeries { labels: labels(pairs), samples: vec![Sample { value, timestamp }], ..Default::default() }
}

fn native(pairs: &[(&str, &str)], timestamp: i64, count: u64) -> TimeSeries {
    let histogram = Histogram {
        timestamp,
        count: Some(histogram::Count::CountInt(count)),
        sum: if count == 0 { stale_nan() } else { 1.0 },
        zero_count: Some(histogram::ZeroCount::ZeroCountInt(count)),
        ..Default::default()
    };
    let exemplar = Exemplar { labels: labels(&[("trace_id", "x")]), value: 0.5, timestamp };
    TimeSeries {
        labels: labels(pairs),
        histograms: vec![histogram],
        exemplars: vec![exemplar],
        ..Default::default()
    }
}

/// Either shape for two tenants: one request, or one for each.
fn requests(by_tenant: bool, a: Vec<TimeSeries>, b: Vec<TimeSeries>) -> Vec<WriteRequest> {
    let both = [("a", a), ("b", b)];
    if by_tenant {
        let tuple = |(tenant, timeseries): (&str, Vec<TimeSeries>)| TimeSeriesTenantTuple {
            timeseries,
            tenant: tenant.to_owned(),
        };
        let timeseries_tenant_data = both.map(tuple).to_vec();
        return vec![WriteRequest { timeseries_tenant_data, replica: 1, ..Default::default() }];
    }
    let one = |(tenant, timeseries): (&str, Vec<TimeSeries>)| WriteRequest {
        timeseries,
        tenant: tenant.to_owned(),
        replica: 1,
        ..Default::default()
    };
    both.map(one).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_shapes_are_stored_and_series_are_met_again() {
    for by_tenant in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(single(dir.path())).await;
        let mut client = WriteableStoreClient::connect(format!("http://{}", node.grpc)).await.unwrap();
        let t = now();
        let up = [("__name__", "up"), ("job", "api")];
        // In another order it is the same series.
        let turned = [up[1], up[0]];
        for n in 0..4 {
            let a = vec![float(&up, t + n, n as f64), native(&[("__name__", "h")], t + n, n as u64 + 1)];
            let b = vec![float(&turned, t + n, -1.0), float(&[("__name__", "only_b")], t + n, f64::INFINITY)];
            // Twice: what is there already is success.
            for request in [requests(by_tenant, a.clone(), b.clone()), requests(by_tenant, a, b)].concat() {
                client.remote_write(request).await.unwrap();
            }
        }
        let h = |n: u32| format!("{{count {n} sum 1 schema 0}}");
        let a = [
            format!("h 0:{} 1:{} 2:{} 3:{}", h(1), h(2), h(3), h(4)),
            r#"up{job="api"} 0:0 1:1 2:2 3:3"#.to_owned(),
            r#"exemplar h 0:0.5 {trace_id="x"}"#.to_owned(),
            r#"exemplar h 1:0.5 {trace_id="x"}"#.to_owned(),
            r#"exemplar h 2:0.5 {trace_id="x"}"#.to_owned(),
            r#"exemplar h 3:0.5 {trace_id="x"}"#.to_owned(),
        ];
        assert_eq!(stored::lines(&node, "a", t), a, "{by_tenant}");
        let b = ["only_b 0:inf 1:inf 2:inf 3:inf", r#"up{job="api"} 0:-1 1:-1 2:-1 3:-1"#];
        assert_eq!(stored::lines(&node, "b", t), b, "{by_tenant}");

        // What is refused settles the batch, and costs the others nothing; the same of series that are known and new.
        for (case, bad) in [
            ("conflict", float(&up, t, 9.0)),
            ("future", float(&up, t + 3_600_000, 9.0)),
            ("nameless", float(&up[1..], t, 9.0)),
            ("doubled", float(&[up[0], up[1], up[1]], t, 9.0)),
            ("histogram", native(&[("__name__", "h"), ("schema", "x")], t + 3_600_000, 3)),
        ] {
            for n in 0..2 {
                let good = float(&[("__name__", "good"), ("case", case)], t + n, 1.0);
                let request = requests(by_tenant, vec![bad.clone(), good], Vec::new()).remove(0);
                let status = client.remote_write(request).await.unwrap_err();
                assert_eq!(status.code(), Code::AlreadyExists, "{case}: {status:?}");
            }
            let line = format!("good{{case=\"{case}\"}} 0:1 1:1");
            assert!(stored::lines(&node, "a", t).contains(&line), "{case}");
        }
        let wrong = WriteRequest {
            tenant: "..".to_owned(),
            ..requests(false, vec![float(&up, t, 1.0)], vec![]).remove(0)
        };
        assert_eq!(client.remote_write(wrong).await.unwrap_err().code(), Code::InvalidArgument);
        node.stop().await.unwrap();
    }
}
