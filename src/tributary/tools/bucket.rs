//! `tributary tools bucket`: what lies in a bucket.

use std::process::ExitCode;

use anyhow::Context as _;
use bucket::table::{self, InspectOutput, LsOutput};
use bucket::{Bucket, Catalogue, FetchSettings, Fetcher};
use clap::{ArgMatches, Command};
use runtime::World;
use settings::{Load, Log, Objstore, Scalar, Span, settings, with_flags};

use super::{fail, group, print};
use crate::boot;

settings! {
    /// Lists the blocks of a bucket.
    pub struct Ls {
        /// What is printed: ids, one a line; wide, with times and levels; or json, each block's meta.json.
        ["output"] output: LsFormat = LsFormat(LsOutput::Ids);
        /// Leaves out blocks that are marked for deletion.
        ["exclude-delete"] exclude_delete: bool = false;
        /// Longest time the whole listing may take.
        ["timeout"] timeout: Span = Span::from_mins(5);
        [..] objstore: Objstore;
        [..] log: Log;
    }
}

settings! {
    /// Shows the blocks of a bucket in columns, and what there is no block.
    pub struct Inspect {
        /// What is printed: table, csv, tsv or json.
        ["output"] output: InspectFormat = InspectFormat(InspectOutput::Table);
        /// Longest time the whole listing may take.
        ["timeout"] timeout: Span = Span::from_mins(5);
        [..] objstore: Objstore;
        [..] log: Log;
    }
}

pub fn command() -> Command {
    group("bucket", "Look into a bucket of blocks.")
        .subcommand(leaf::<Ls>("ls"))
        .subcommand(leaf::<Inspect>("inspect"))
}

fn leaf<S: Load>(name: &'static str) -> Command {
    with_flags::<S>(Command::new(name).about(S::about())).mut_arg("output", |arg| arg.short('o'))
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("ls", matches)) => tool(
            matches,
            |s: &Ls| (&s.log, &s.objstore, s.timeout),
            |s, blocks| table::ls(blocks, s.output.0, s.exclude_delete),
        ),
        Some(("inspect", matches)) => tool(
            matches,
            |s: &Inspect| (&s.log, &s.objstore, s.timeout),
            |s, blocks| table::inspect(blocks, s.output.0),
        ),
        _ => ExitCode::from(2),
    }
}

fn tool<S: Load>(
    matches: &ArgMatches,
    common: fn(&S) -> (&Log, &Objstore, Span),
    show: fn(&S, &Catalogue) -> Result<String, bucket::Error>,
) -> ExitCode {
    let world = World::real();
    let settings = match boot::settle::<S>(matches, &world) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    let (log, objstore, timeout) = common(&settings);
    boot::init_logs(log);
    let blocks = catalogue(&world, objstore, timeout);
    match blocks.and_then(|blocks| Ok(show(&settings, &blocks)?)) {
        Ok(text) => print(&text),
        Err(error) => fail(&error),
    }
}

fn catalogue(world: &World, objstore: &Objstore, timeout: Span) -> anyhow::Result<Catalogue> {
    let document = objstore.document().context(
        "no bucket is given: use --objstore.config-file, as in config/bucket-s3.yaml, or --objstore.config",
    )?;
    boot::install_crypto();
    let text = document.text(|path| world.disk.read(path))?;
    let bucket = Bucket::from_yaml(&text, world).with_context(|| document.origin())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let blocks = runtime.block_on(async {
        let fetcher = Fetcher::new(bucket, world, FetchSettings::default());
        tokio::time::timeout(timeout.as_duration(), fetcher.fetch())
            .await
            .with_context(|| format!("the bucket was not listed within --timeout={timeout}"))?
            .map_err(anyhow::Error::from)
    });
    runtime.shutdown_background();
    blocks
}

/// `--output` of ls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LsFormat(LsOutput);

impl Scalar for LsFormat {
    const PLACEHOLDER: &'static str = "FORMAT";

    fn parse(text: &str) -> Result<LsFormat, String> {
        let name = if text == "ids" { "" } else { text };
        name.parse().map(LsFormat).map_err(|_| format!("{text:?} is not a format: ids, wide or json"))
    }

    fn show(&self) -> String {
        let name = match self.0 {
            LsOutput::Ids => "ids",
            LsOutput::Wide => "wide",
            LsOutput::Json => "json",
        };
        name.to_owned()
    }
}

/// `--output` of inspect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InspectFormat(InspectOutput);

impl Scalar for InspectFormat {
    const PLACEHOLDER: &'static str = "FORMAT";

    fn parse(text: &str) -> Result<InspectFormat, String> {
        text.parse()
            .map(InspectFormat)
            .map_err(|_| format!("{text:?} is not a format: table, csv, tsv or json"))
    }

    fn show(&self) -> String {
        let name = match self.0 {
            InspectOutput::Table => "table",
            InspectOutput::Csv => "csv",
            InspectOutput::Tsv => "tsv",
            InspectOutput::Json => "json",
        };
        name.to_owned()
    }
}
