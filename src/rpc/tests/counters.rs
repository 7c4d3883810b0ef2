//! Calls over loopback appear on the metrics page as Thanos's dashboards expect them.

mod common;

use std::sync::Arc;

use common::{Backend, Memory, Running, chunk, entry, eventually};
use model::{Labels, Matcher, TimeRange};
use rpc::{ClientOptions, StoreClient, StoreOptions, StoreServer};
use runtime::World;
use storage::{Context, Select, SelectRequest, collect};
use tokio::runtime::Handle;

#[tokio::test]
async fn handled_calls_are_counted_with_their_codes() {
    let page = telemetry::install_metrics().unwrap();
    let memory = Memory::new(vec![entry(&[("__name__", "up")], &[chunk(0, b"x")])]);
    let backend = Arc::new(Backend::new(vec![(Labels::empty(), Arc::new(memory) as Arc<dyn Select>)]));
    let server = StoreServer::new(backend, StoreOptions::default(), World::real());
    let running = Running::start(|services| services.store(server)).await;
    let client =
        StoreClient::new(&running.address, ClientOptions::default(), World::real(), Handle::current())
            .unwrap();
    client.info().await.unwrap();
    for matchers in [vec![Matcher::equal("__name__", "up")], vec![]] {
        let client = client.clone();
        let ask = move || {
            let request = SelectRequest::new(TimeRange::new(0, 10), matchers);
            collect(client.select(&request, &Context::background()).unwrap()).is_ok()
        };
        tokio::task::spawn_blocking(ask).await.unwrap();
    }
    running.stop().await;
    let line = |side: &str, service: &str, method: &str, kind: &str, code: &str| {
        let text = page.render();
        let wanted = [
            format!("grpc_{side}_handled_total{{"),
            format!("grpc_service=\"{service}\""),
            format!("grpc_method=\"{method}\""),
            format!("grpc_type=\"{kind}\""),
            format!("grpc_code=\"{code}\""),
        ];
        text.lines().any(|line| wanted.iter().all(|w| line.contains(w.as_str())) && line.ends_with(" 1"))
    };
    for side in ["server", "client"] {
        for (service, method, kind, code) in [
            ("thanos.info.Info", "Info", "unary", "OK"),
            ("thanos.Store", "Series", "server_stream", "OK"),
            ("thanos.Store", "Series", "server_stream", "InvalidArgument"),
        ] {
            eventually(&format!("{side} {method} {code}"), || line(side, service, method, kind, code)).await;
        }
    }
}
