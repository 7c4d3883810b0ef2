//! The store role in its process: bucket, blocks, one gRPC and one HTTP listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Door, MetricsPage, Readiness, Security, Server, ServerSettings};
use axum::Router;
use bucket::{Bucket, FetchSettings};
use futures::FutureExt;
use model::Kind;
use rpc::{Health, ServeOptions, Services, StoreOptions, StoreServer, serve};
use runtime::{Shutdown, World};
use secure::ServerTls;
use tokio::net::TcpListener;

use crate::{Blocks, BlocksSettings, Discovery, Error, Settings};

/// Samples that Thanos counts to a chunk.
const SAMPLES_PER_CHUNK: u64 = 120;

/// A store gateway, built and not yet serving.
pub struct Store {
    blocks: Blocks,
    server: StoreServer,
    http: Server,
    grpc: TcpListener,
    grpc_address: SocketAddr,
    tls: Option<ServerTls>,
    grpc_grace: Duration,
    readiness: Readiness,
    metrics: MetricsPage,
}

impl Store {
    /// Reads the bucket's configuration and binds both ports; makes no request to the bucket.
    pub async fn build(settings: &Settings, world: &World, metrics: MetricsPage) -> Result<Store, Error> {
        let document = settings.objstore.document().ok_or_else(|| {
            Error::new(Kind::Invalid, "--objstore.config-file or --objstore.config is required")
        })?;
        let text =
            document.text(|path| world.disk.read(path)).map_err(|e| Error::new(Kind::Invalid, e.message))?;
        let bucket = Bucket::from_yaml(&text, world).map_err(|e| Error::from(e).within(document.origin()))?;
        Store::over(settings, world, bucket, metrics).await
    }

    /// As [`Store::build`], over a bucket that is there.
    pub async fn over(
        settings: &Settings,
        world: &World,
        bucket: Bucket,
        metrics: MetricsPage,
    ) -> Result<Store, Error> {
        for flag in settings.unused.given() {
            tracing::warn!(flag, "flag of Thanos has no effect here");
        }
        let blocks = Blocks::new(bucket, world, blocks_settings(settings), Arc::new(|_| false));
        let options = StoreOptions {
            max_concurrent: settings.limits.series_max_concurrency,
            max_series: settings.limits.request_series,
            max_chunks: settings.limits.request_samples.div_ceil(SAMPLES_PER_CHUNK),
            ..StoreOptions::default()
        };
        let server = StoreServer::new(Arc::new(blocks.clone()), options, world.clone());
        let common = &settings.common;
        let http_settings = ServerSettings {
            grace: common.http_grace_period.as_duration(),
            security: Security::of_file("http", common.http_config.as_deref(), world)
                .map_err(|e| Error::new(e.kind, e.to_string()))?,
            ..ServerSettings::default()
        };
        let tls = rpc::server_tls("grpc", &settings.grpc.tls.files(), world)
            .map_err(|e| Error::new(e.kind, e.to_string()))?;
        let unusable = |what: &str, e: &dyn std::fmt::Display| {
            Error::new(Kind::Unavailable, format!("cannot listen on {what}: {e}"))
        };
        let http_address = &common.http_address;
        let address = http_address
            .socket_address()
            .map_err(|e| unusable(&format!("--http-address {http_address}"), &e))?;
        let http = Server::bind(address, http_settings)
            .await
            .map_err(|e| Error::new(Kind::Unavailable, e.to_string()))?;
        let grpc_address = &settings.grpc.grpc_address;
        let failed = |e: std::io::Error| unusable(&format!("--grpc-address {grpc_address}"), &e);
        let address = grpc_address.socket_address().map_err(failed)?;
        let grpc = TcpListener::bind(address).await.map_err(failed)?;
        let grpc_address = grpc.local_addr().map_err(failed)?;
        Ok(Store {
            blocks,
            server,
            http,
            grpc,
            grpc_address,
            tls,
            grpc_grace: settings.grpc.grpc_grace_period.as_duration(),
            readiness: Readiness::starting("the bucket has not been searched yet"),
            metrics,
        })
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr()
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Serves until the shutdown, then lets calls under way finish. Ready after the first search of the bucket.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Store { blocks, server, http, grpc, grpc_address, grpc_grace, tls, readiness, metrics } = self;
        tracing::info!(listener = "grpc", address = %grpc_address, "listening");
        let ready = readiness.clone();
        let services = Services::new(Health::new(move || ready.is_ready())).store(server);
        let options = ServeOptions { grace: grpc_grace, tls, ..ServeOptions::default() };
        let routes = Door::new("store", readiness.clone(), metrics).open(Router::new());
        let watching = watch(blocks.clone(), readiness, shutdown.clone());
        let stop = shutdown.clone();
        let serving = async move {
            let ended = serve(grpc, services, options, stop.waiter()).await;
            // A listener that failed takes the role down with it.
            stop.trigger();
            ended
        };
        let waiter = shutdown.waiter();
        // Each is boxed: whether the whole can move between threads is too much for the compiler otherwise.
        let (ended, ..) = tokio::join!(
            serving.boxed(),
            http.serve(routes, waiter).boxed(),
            blocks.run(shutdown).boxed(),
            watching.boxed()
        );
        ended
    }
}

/// Ready once the bucket has been searched, stopping with the shutdown.
async fn watch(blocks: Blocks, readiness: Readiness, shutdown: Shutdown) {
    while !blocks.is_ready() && !shutdown.is_triggered() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if blocks.is_ready() {
        readiness.set_ready();
    }
    shutdown.wait().await;
    readiness.set_stopping();
}

fn blocks_settings(settings: &Settings) -> BlocksSettings {
    let (blocks, limits) = (&settings.blocks, &settings.limits);
    BlocksSettings {
        fetch: FetchSettings {
            min_time: blocks.min_time,
            max_time: blocks.max_time,
            consistency_delay: blocks.consistency_delay.as_duration(),
            ignore_deletion_marks_delay: blocks.ignore_deletion_marks_delay.as_duration(),
            concurrency: blocks.block_meta_fetch_concurrency,
            recursive: blocks.block_discovery_strategy == Discovery::Recursive,
            cache_dir: None,
        },
        data_dir: settings.data_dir.clone(),
        sync_every: blocks.sync_block_duration.as_duration(),
        index_cache: limits.index_cache_size.bytes(),
        chunk_cache: limits.chunk_pool_size.bytes(),
        header_memory: limits.index_header_memory.bytes(),
        read_concurrency: blocks.block_sync_concurrency,
        downloaded_limit: limits.downloaded_bytes_limit.bytes(),
    }
}
