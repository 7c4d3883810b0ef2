//! The gRPC listener: services together on one port, kept alive, and ended in order.

use std::sync::Arc;
use std::time::Duration;

use model::Kind;
use secure::ServerTls;
use storage::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use wire::pb::thanos::exemplars_server::ExemplarsServer;
use wire::pb::thanos::info::info_server::InfoServer;
use wire::pb::thanos::metadata_server::MetadataServer;
use wire::pb::thanos::query_server::QueryServer as PbQueryServer;
use wire::pb::thanos::rules_server::RulesServer;
use wire::pb::thanos::status_server::StatusServer;
use wire::pb::thanos::store_server::StoreServer as PbStoreServer;
use wire::pb::thanos::targets_server::TargetsServer;

use crate::channel::MAX_MESSAGE;
use crate::facts::{Exemplars, FactServer, Metadata, Rules, Statistics, Targets};
use crate::incoming;
use crate::method::Only;
use crate::metrics::CountCalls;
use crate::peer::PeerOptions;
use crate::plane::ControlServer;
use crate::{Health, QueryServer, StoreServer, WriteServer};

/// What is served on one port.
#[derive(Clone, Default)]
pub struct Services {
    routes: Routes,
    /// True from the shutdown on, for streams that would never end by themselves.
    closing: Arc<watch::Sender<bool>>,
}

impl Services {
    /// Answers whether the process is ready; every server has it.
    pub fn new(health: Health) -> Services {
        Services { routes: Routes::new(health.into_service()), closing: Arc::default() }
    }

    fn with(self, add: impl FnOnce(Routes) -> Routes) -> Services {
        Services { routes: add(self.routes), closing: self.closing }
    }

    /// The StoreAPI and Info of a store.
    pub fn store(self, store: StoreServer) -> Services {
        let series = PbStoreServer::new(store.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(series).add_service(InfoServer::new(store)))
    }

    /// PromQL.
    pub fn query(self, query: QueryServer) -> Services {
        let service = PbQueryServer::new(query).max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(service))
    }

    /// Rule groups.
    pub fn rules(self, rules: FactServer<Rules>) -> Services {
        let service = RulesServer::new(rules).max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(service))
    }

    /// Scrape targets.
    pub fn targets(self, targets: FactServer<Targets>) -> Services {
        let service = TargetsServer::new(targets).max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(service))
    }

    /// Exemplars.
    pub fn exemplars(self, exemplars: FactServer<Exemplars>) -> Services {
        let service = ExemplarsServer::new(exemplars).max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(service))
    }

    /// What metrics mean.
    pub fn metadata(self, metadata: FactServer<Metadata>) -> Services {
        let service = MetadataServer::new(metadata).max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(service))
    }

    /// Figures of the head.
    pub fn statistics(self, statistics: FactServer<Statistics>) -> Services {
        let service = StatusServer::new(statistics).max_encoding_message_size(MAX_MESSAGE);
        self.with(|routes| routes.add_service(service))
    }

    /// Agrees with the others, or says what is agreed.
    pub fn control(self, control: ControlServer) -> Services {
        let service = control.into_service(self.closing.subscribe());
        self.with(|routes| routes.add_service(service))
    }

    /// Takes writes from peers, in single calls and, where the peer is one of ours, in frames.
    pub fn write(self, write: WriteServer) -> Services {
        self.write_with(write, PeerOptions::default())
    }

    /// The same, with limits for the streams.
    pub fn write_with(self, write: WriteServer, options: PeerOptions) -> Services {
        let framed = write.framed(options, self.closing.subscribe());
        self.with(|routes| routes.add_service(Only(write)).add_service(Only(framed)))
    }

    /// Takes writes in single calls alone, as releases before the frames did.
    pub fn write_unframed(self, write: WriteServer) -> Services {
        self.with(|routes| routes.add_service(Only(write)))
    }
}

/// How a listener keeps its connections.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How long a caller may be silent before it is asked for a sign of life, and how long it may take.
    pub keepalive: Duration,
    pub keepalive_timeout: Duration,
    /// Connections are asked to reconnect after this time, so that load spreads (`--grpc-server-max-connection-age`).
    pub max_connection_age: Option<Duration>,
    /// How long calls under way may take after the shutdown began (`--grpc-grace-period`).
    pub grace: Duration,
    pub tls: Option<ServerTls>,
}

impl Default for ServeOptions {
    fn default() -> ServeOptions {
        ServeOptions {
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: Some(Duration::from_secs(3600)),
            grace: Duration::from_secs(120),
            tls: None,
        }
    }
}

/// Serves until `shutdown` resolves, then lets calls under way end within the grace period. A
/// [`std::net::TcpListener`] becomes one of tokio's by `set_nonblocking(true)` and `TcpListener::from_std`.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let (began, mut begun) = tokio::sync::watch::channel(false);
    let closing = services.closing;
    let signal = async move {
        shutdown.await;
        closing.send_replace(true);
        // The other end lives as long as this function.
        let _ = began.send(true);
    };
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(options.keepalive))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .tcp_nodelay(true)
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20));
    if let Some(age) = options.max_connection_age {
        server = server.max_connection_age(age);
    }
    let router = server.layer(CountCalls).add_routes(services.routes);
    let serving = router.serve_with_incoming_shutdown(incoming::taken(listener, options.tls), signal);
    let grace_over = async {
        if begun.wait_for(|begun| *begun).await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(options.grace).await;
    };
    tokio::select! {
        ended = serving => ended.map_err(|error| {
            Error::with_source(Kind::Unavailable, format!("grpc listener failed: {error}"), error)
        }),
        () = grace_over => {
            tracing::warn!(grace = ?options.grace, "calls still under way after the grace period were cut off");
            Ok(())
        }
    }
}
