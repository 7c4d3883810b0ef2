//! Commands and flags.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::doors::Door;
use crate::overload::{self, Rush};
use crate::peers::{self, Case, Pace};
use crate::scenarios::{self, Shape};
use crate::{demo, engine, floor, queries, report, ring};

fn command() -> Command {
    Command::new("loadtest")
        .about("Remote-write load with verification, beside peers in the same run")
        .subcommand_required(true)
        .subcommand(
            shape(Command::new("send").about("Send to servers that run already, then verify"))
                .arg(Arg::new("url").required(true).num_args(1..).help("Full write URLs"))
                .arg(opt("verify", "Base URL of the Prometheus API to read back from"))
                .arg(opt("drop-label", "Label to ignore when reading back").action(ArgAction::Append))
                .arg(opt("pid", "Process to measure").action(ArgAction::Append)),
        )
        .subcommand(
            shape(Command::new("compare").about("Start servers one after the other, load and measure each"))
                .arg(opt("server", "standalone, cluster, prometheus or victoria-metrics; may be repeated").action(ArgAction::Append))
                .arg(opt("runs", "Runs of each, of which the median is shown").default_value("1")),
        )
        .subcommand(
            shape(Command::new("crash").about("kill -9 of standalone in mid-ingest, restart, verify"))
                .arg(opt("cycles", "How many times").default_value("10")),
        )
        .subcommand(
            shape(Command::new("node-loss").about("Three receivers, RF 3; kill -9 of one while data flows; it comes back"))
                .arg(opt("away", "Seconds for which the receiver is away").default_value("5")),
        )
        .subcommand(
            shape(Command::new("peers").about(
                "Three receivers, RF 3; one is stopped, behind a black hole, restarted, out of disk, or all restart in turn",
            ))
            .arg(opt("case", "stopped, black-hole, restarts, full-disk, rolling or all-killed; may be repeated").action(ArgAction::Append))
            .arg(opt("away", "Seconds of trouble").default_value("60"))
            .arg(opt("restarts", "How often the receiver restarts").default_value("200"))
            .arg(apart("The receiver in trouble has a core to itself, as it would have a machine; all else shares another"))
            .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("4 s of trouble, 3 restarts unless more are asked for, no times judged")),
        )
        .subcommand(
            shape(Command::new("overload").about(
                "A standalone node is offered several times what it manages, over many connections; it must shed and recover",
            ))
            .arg(opt("rush-connections", "Connections of the rush").default_value("10000"))
            .arg(apart("The node has a core to itself, as it would have a machine; who offers has another"))
            .arg(opt("times", "How many times what it manages is offered").default_value("5"))
            .arg(opt("seconds", "How long").default_value("10"))
            .arg(opt("flag", "A further flag of the node, as --name=value; may be repeated").action(ArgAction::Append)),
        )
        .subcommand(
            shape(Command::new("ring").about(
                "Changes of an agreed ring under load, by edits of its file, with trouble in their middle and two queries every second",
            ))
            .arg(
                opt(
                    "case",
                    "scale, empty-disk, replace, bucket-down, quorum-lost, asleep, apart, zone-lost, versions, lost-log, restored, forced, or, in \
                     network namespaces, cut-one, cut-zone or cut-router; may be repeated; scale if absent",
                )
                .action(ArgAction::Append),
            )
            .arg(opt("away", "Seconds of trouble; what is usual of the case if absent"))
            .arg(opt("older", "A build of the version before, for the case versions; the same held at its level if absent"))
            .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("A few seconds of everything")),
        )
        .subcommand(engine_command())
        .subcommand(
            Command::new("queries")
                .about("CPU, time and memory of queries beside peers on the same data; large queries under a budget")
                .arg(opt("series", "Number of series; 0 leaves the comparison out").default_value("100000"))
                .arg(opt("hours", "Hours of data, a scrape every 15 s").default_value("2"))
                .arg(opt("large", "Series of the part about large queries; 0 leaves it out").default_value("1000000"))
                .arg(opt("repeat", "Seconds for which a query is repeated on a server").default_value("1.5"))
                .arg(opt("binary", "The tributary binary").default_value(default_binary()))
                .arg(opt("prometheus", "The Prometheus binary").default_value("prometheus"))
                .arg(opt("victoria-metrics", "The VictoriaMetrics binary").default_value("victoria-metrics"))
                .arg(opt("results", "Folder under which <date>-<machine> is written; nothing is written without"))
                .arg(opt("dir", "Folder under which data is kept while the run lasts")),
        )
        .subcommand(
            Command::new("instructions")
                .about("Instructions per sample of a server under callgrind, and the functions that cost most")
                .arg(opt("server", "standalone, receive, cluster or floor").default_value("standalone"))
                .arg(opt("door", "rw1, rw1-zstd, rw2, thanos or thanos-tenants").default_value("rw1"))
                .arg(opt("series", "Number of series").default_value("20000"))
                .arg(opt("samples", "Scrapes of known series that are counted").default_value("10"))
                .arg(opt("binary", "The tributary binary").default_value(default_binary()))
                .arg(opt("dir", "Folder for data and logs; a temporary one if absent")),
        )
        .subcommand(
            Command::new("floor-server")
                .about("Serve remote write and only decompress, walk and hash: the least that any receiver costs")
                .arg(Arg::new("listen").required(true).help("Address to listen on")),
        )
        .subcommand(
            Command::new("demo")
                .about("Write the demo service's series (counters with resets, histograms, stale markers) to several servers")
                .arg(Arg::new("url").required(true).num_args(1..).help("Full write URLs"))
                .arg(opt("minutes", "How far back the data begins").default_value("100"))
                .arg(opt("end", "Unix seconds at which it ends; now if absent")),
        )
}

fn engine_command() -> Command {
    Command::new("engine")
        .about("CPU, memory, disk, cuts and restarts beside peers in one run, held against the targets")
        .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("A tenth of every size, once"))
        .arg(opt("only", "Run this section only; may be repeated").action(ArgAction::Append))
        .arg(opt("runs", "Runs of ours and VictoriaMetrics, of which medians are shown").default_value("3"))
        .arg(opt("binary", "The tributary binary").default_value(default_binary()))
        .arg(opt("prometheus", "The Prometheus binary").default_value("prometheus"))
        .arg(opt("victoria-metrics", "The VictoriaMetrics binary").default_value("victoria-metrics"))
        .arg(opt("victoria-metrics-next", "A newer one, measured as well; also by VICTORIA_METRICS_NEXT"))
        .arg(opt("connections", "Connections that send at once").default_value("4"))
        .arg(opt("batch", "Series per request").default_value("2000"))
        .arg(
            opt("results", "Folder under which <date>-<machine> is written")
                .default_value("loadtest/results"),
        )
        .arg(opt("dir", "Folder under which data is kept while the run lasts"))
}

fn opt(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help)
}

fn apart(help: &'static str) -> Arg {
    Arg::new("apart").long("apart").action(ArgAction::SetTrue).help(help)
}

fn shape(command: Command) -> Command {
    command
        .arg(opt("series", "Number of series").default_value("100000"))
        .arg(opt("samples", "Samples per series").default_value("120"))
        .arg(opt("interval", "Seconds between samples").default_value("15"))
        .arg(opt("back", "Minutes before now at which the data begins").default_value("90"))
        .arg(opt("batch", "Series per request").default_value("2000"))
        .arg(opt("connections", "Connections that send at once").default_value("4"))
        .arg(opt("rate", "Samples per second; 0 is as fast as answers come").default_value("0"))
        .arg(opt("seed", "Seed of series and values").default_value("1"))
        .arg(opt("binary", "The tributary binary").default_value(default_binary()))
        .arg(opt("dir", "Folder for data and logs; a temporary one if absent"))
        .arg(opt("json", "Write the results to this file as well"))
        .arg(Arg::new("no-verify").long("no-verify").action(ArgAction::SetTrue).help("Do not read back"))
}

/// The binary that was built beside this one.
fn default_binary() -> &'static str {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("tributary")));
    let path = beside.unwrap_or_else(|| PathBuf::from("tributary"));
    // One string for the life of the process.
    Box::leak(path.display().to_string().into_boxed_str())
}

fn number<T: std::str::FromStr>(args: &ArgMatches, name: &str) -> Result<T> {
    let text = args.get_one::<String>(name).with_context(|| format!("--{name} is missing"))?;
    text.parse().ok().with_context(|| format!("--{name}={text}: not a number that fits"))
}

fn list(args: &ArgMatches, name: &str) -> Vec<String> {
    args.get_many::<String>(name).map(|v| v.cloned().collect()).unwrap_or_default()
}

fn read_shape(args: &ArgMatches) -> Result<Shape> {
    Ok(Shape {
        series: number(args, "series")?,
        samples: number(args, "samples")?,
        interval_ms: number::<i64>(args, "interval")? * 1000,
        back: Duration::from_secs(number::<u64>(args, "back")? * 60),
        batch: number(args, "batch")?,
        connections: number(args, "connections")?,
        rate: number(args, "rate")?,
        seed: number(args, "seed")?,
        binary: PathBuf::from(args.get_one::<String>("binary").context("--binary is missing")?),
        older: args.try_get_one::<String>("older").ok().flatten().map(PathBuf::from),
        dir: args.get_one::<String>("dir").map(PathBuf::from),
        verify: !args.get_flag("no-verify"),
    })
}

/// Runs what the command line asks for; false where something was lost, doubled or wrong.
pub async fn run() -> Result<bool> {
    let matches = command().get_matches();
    let Some((name, args)) = matches.subcommand() else { return Ok(false) };
    if name == "demo" {
        let end = args.get_one::<String>("end").map(|_| number(args, "end")).transpose()?;
        demo::run(&list(args, "url"), number(args, "minutes")?, end).await?;
        return Ok(true);
    }
    match name {
        "engine" => return run_engine(args).await,
        "queries" => return run_queries(args).await,
        "instructions" => return run_instructions(args).await,
        "floor-server" => {
            let listen = args.get_one::<String>("listen").context("listen is missing")?;
            floor::serve(listen.parse().with_context(|| format!("{listen:?} is no address"))?).await?;
            return Ok(true);
        }
        _ => {}
    }
    let shape = read_shape(args)?;
    let results = match name {
        "send" => {
            let pids = list(args, "pid")
                .iter()
                .map(|p| p.parse())
                .collect::<Result<Vec<u32>, _>>()
                .context("--pid")?;
            let verify = args.get_one::<String>("verify").map(String::as_str);
            vec![scenarios::send(&shape, list(args, "url"), verify, &list(args, "drop-label"), &pids).await?]
        }
        "compare" => {
            let mut servers = list(args, "server");
            if servers.is_empty() {
                servers =
                    ["standalone", "cluster", "prometheus", "victoria-metrics"].map(str::to_owned).to_vec();
            }
            scenarios::compare(&shape, &servers, number(args, "runs")?).await?
        }
        "peers" => {
            let (quick, apart) = (args.get_flag("quick"), args.get_flag("apart"));
            let pace = match quick {
                true => Pace {
                    quick,
                    away: Duration::from_secs(4),
                    restarts: match args.value_source("restarts") {
                        Some(ValueSource::CommandLine) => number(args, "restarts")?,
                        _ => 3,
                    },
                    apart,
                },
                false => Pace {
                    quick,
                    away: Duration::from_secs(number(args, "away")?),
                    restarts: number(args, "restarts")?,
                    apart,
                },
            };
            let cases = list(args, "case").iter().map(|name| Case::of(name)).collect::<Result<Vec<_>>>()?;
            peers::run(&shape, if cases.is_empty() { &Case::ALL } else { &cases }, pace).await?
        }
        "overload" => {
            let rush = Rush {
                connections: number(args, "rush-connections")?,
                times: number(args, "times")?,
                length: Duration::from_secs(number(args, "seconds")?),
                apart: args.get_flag("apart"),
                flags: list(args, "flag"),
            };
            vec![overload::run(&shape, rush).await?]
        }
        "ring" => {
            let cases =
                list(args, "case").iter().map(|name| ring::Case::of(name)).collect::<Result<Vec<_>>>()?;
            let away = args.get_one::<String>("away").map(|_| number(args, "away")).transpose()?;
            let pace = ring::Pace { quick: args.get_flag("quick"), away: away.map(Duration::from_secs) };
            let cases = if cases.is_empty() { vec![ring::Case::Scale] } else { cases };
            if cases.iter().any(|case| case.in_namespaces()) {
                ring::enter()?;
            }
            ring::run(&shape, &cases, pace).await?
        }
        "crash" => vec![scenarios::crash(&shape, number(args, "cycles")?).await?],
        _ => vec![scenarios::node_loss(&shape, Duration::from_secs(number(args, "away")?)).await?],
    };
    print!("{}", report::table(&results));
    if let Some(path) = args.get_one::<String>("json") {
        std::fs::write(path, report::json(&results)?).with_context(|| format!("write {path}"))?;
    }
    Ok(results.iter().all(report::Line::passed))
}

async fn run_engine(args: &ArgMatches) -> Result<bool> {
    let path = |name: &str| args.get_one::<String>(name).map(PathBuf::from);
    let options = engine::Options {
        binary: path("binary").context("--binary is missing")?,
        prometheus: path("prometheus").context("--prometheus is missing")?,
        victoria: path("victoria-metrics").context("--victoria-metrics is missing")?,
        victoria_next: path("victoria-metrics-next")
            .or_else(|| std::env::var_os("VICTORIA_METRICS_NEXT").map(PathBuf::from)),
        quick: args.get_flag("quick"),
        runs: number(args, "runs")?,
        connections: number(args, "connections")?,
        batch: number(args, "batch")?,
        only: list(args, "only"),
        dir: path("dir"),
    };
    let partial = !options.only.is_empty() || options.quick;
    let report = engine::run(options).await?;
    print!("{}", report.markdown());
    // A part or a trial must not overwrite the day's figures.
    if !partial {
        let folder = engine::results_folder(&path("results").context("--results is missing")?)?;
        report.write(&folder)?;
        eprintln!("written: {}", folder.display());
    }
    Ok(report.targets.iter().all(|t| t.pass))
}

async fn run_instructions(args: &ArgMatches) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("loadtest-").tempdir()?;
    let data = args.get_one::<String>("dir").map_or(folder.path().to_owned(), PathBuf::from);
    let binary = args.get_one::<String>("binary").map(PathBuf::from).context("--binary is missing")?;
    let server = args.get_one::<String>("server").context("--server is missing")?;
    let door = Door::from_name(args.get_one::<String>("door").context("--door is missing")?)?;
    let (series, scrapes) = (number(args, "series")?, number(args, "samples")?);
    let counts = crate::instructions::run(&binary, &data, series, scrapes, server, door).await?;
    print!("{}", engine::counts(&counts));
    Ok(true)
}

async fn run_queries(args: &ArgMatches) -> Result<bool> {
    let path = |name: &str| args.get_one::<String>(name).map(PathBuf::from);
    let options = queries::Options {
        binary: path("binary").context("--binary is missing")?,
        prometheus: path("prometheus").context("--prometheus is missing")?,
        victoria: path("victoria-metrics").context("--victoria-metrics is missing")?,
        series: number(args, "series")?,
        hours: number(args, "hours")?,
        large: number(args, "large")?,
        repeat: number(args, "repeat")?,
        dir: path("dir"),
    };
    let report = queries::run(&options).await?;
    print!("{}", report.markdown());
    if let Some(results) = path("results") {
        let folder = engine::results_folder(&results)?;
        std::fs::create_dir_all(&folder)?;
        let name = format!("queries-{}x{}h", options.series, options.hours);
        std::fs::write(folder.join(format!("{name}.md")), report.markdown())?;
        std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(report.passed())
}
