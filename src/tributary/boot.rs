//! How every role starts and ends: settings, logs, metrics, signals, then the role, then what it leaves open.
//!
//! Exit codes: 0 after a graceful end, 1 when the role failed or was cut off, 2 when what was asked for cannot
//! be: flags, files, values.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use runtime::{Shutdown, World};
use settings::{FileText, Load, Loaded, Log, LogFormat, LogLevel};

/// What a role is given besides its settings.
pub struct Parts {
    pub world: World,
    pub shutdown: Shutdown,
    pub metrics: telemetry::Handle,
    /// Every setting and its value, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
}

/// Exit code for what the operator has to put right before anything can start.
const UNUSABLE: u8 = 2;

/// Reads settings, with their file; on failure says why and gives the exit code.
pub fn settle<S: Load>(matches: &ArgMatches, world: &World) -> Result<Loaded<S>, ExitCode> {
    let refuse = |message: String| {
        eprintln!("error: {message}");
        ExitCode::from(UNUSABLE)
    };
    let path = settings::config_file(matches);
    let text = match &path {
        None => None,
        Some(path) => {
            let bytes = world
                .disk
                .read(path)
                .map_err(|e| refuse(format!("cannot read --config.file {}: {e}", path.display())))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| refuse(format!("--config.file {} is not UTF-8 text", path.display())))?;
            Some(text)
        }
    };
    let file = path.as_deref().zip(text.as_deref()).map(|(path, text)| FileText { path, text });
    settings::load::<S>(matches, file).map_err(|error| refuse(error.message))
}

/// Runs a role to its end.
pub fn start<S, R>(role: &'static str, matches: &ArgMatches, log: fn(&S) -> &Log, run: R) -> ExitCode
where
    S: Load,
    R: AsyncFnOnce(S, Parts) -> anyhow::Result<()>,
{
    let world = World::real();
    let loaded = match settle::<S>(matches, &world) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    init_logs(log(&loaded.settings));
    match runtime::raise_file_limit() {
        Ok(limit) => tracing::debug!(limit, "files that may be open"),
        Err(error) => tracing::warn!(%error, "cannot raise the number of files that may be open"),
    }
    match prepare(role, loaded, world, run) {
        Ok(()) => {
            tracing::info!(role, "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The log may be read by a machine; a person at a terminal gets one plain sentence.
            tracing::error!(role, error = chain(&error), "failed");
            eprintln!("error: {}", chain(&error));
            if is_unusable(&error) { ExitCode::from(UNUSABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn prepare<S, R>(role: &'static str, loaded: Loaded<S>, world: World, run: R) -> anyhow::Result<()>
where
    S: Load,
    R: AsyncFnOnce(S, Parts) -> anyhow::Result<()>,
{
    let build = telemetry::build();
    tracing::info!(
        role,
        version = build.version,
        revision = build.revision,
        settings = loaded.provenance.given().join(" "),
        "starting"
    );
    install_crypto();
    let metrics = telemetry::install_metrics()?;
    let flags = loaded.provenance.shown().map(|(name, value)| (name.to_owned(), value)).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tributary").build()?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let upkeep = metrics.clone();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_secs(5));
            loop {
                every.tick().await;
                upkeep.upkeep();
            }
        });
        let parts = Parts { world, shutdown: shutdown.clone(), metrics, flags };
        tokio::select! {
            outcome = run(loaded.settings, parts) => outcome,
            () = shutdown.wait_now() => Err(anyhow::anyhow!("cut off by a second stop signal")),
        }
    });
    // The role has ended what matters; blocking work that nobody waits for must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// TLS for outgoing connections (buckets) and listeners. A second call finds it installed, which is as good.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub fn init_logs(log: &Log) {
    let level = match log.level {
        LogLevel::Debug => telemetry::Level::Debug,
        LogLevel::Info => telemetry::Level::Info,
        LogLevel::Warn => telemetry::Level::Warn,
        LogLevel::Error => telemetry::Level::Error,
    };
    let format = match log.format {
        LogFormat::Logfmt => telemetry::Format::Logfmt,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::init_logs(level, format);
}

/// Whether an error is about what the operator gave: a ring file, a bucket's settings.
fn is_unusable(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let of_role = cause.downcast_ref::<model::Error>().map(|e| e.kind);
        of_role.or_else(|| cause.downcast_ref::<bucket::Error>().map(|e| e.kind))
    };
    error.chain().find_map(kind) == Some(model::Kind::Invalid)
}

/// An error and its causes as one sentence, saying nothing twice: many errors repeat their source.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
