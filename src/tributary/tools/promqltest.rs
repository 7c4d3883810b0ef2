//! `tributary tools promqltest`: runs scripts in the format of Prometheus's promqltest on our engine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use promql::testing::{Report, run_script};
use runtime::World;

use super::{fail, print};

pub fn command() -> Command {
    Command::new("promqltest")
        .about(
            "Run PromQL test scripts (`load`, `eval`, `clear`) and tell how many evaluations of each file pass.",
        )
        .arg(
            Arg::new("file")
                .required(true)
                .num_args(1..)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Scripts, run one after the other, each with a store of its own."),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::SetTrue)
                .help("Show each failure: its line, the query, what was expected and what came."),
        )
}

/// Succeeds if every evaluation of every file does.
pub fn run(matches: &ArgMatches) -> ExitCode {
    let world = World::real();
    let verbose = matches.get_flag("verbose");
    let files = matches.get_many::<PathBuf>("file").into_iter().flatten();
    let (mut passed, mut failed, mut unread, mut count) = (0, 0, false, 0);
    let mut out = String::new();
    for file in files {
        count += 1;
        match script(&world, file) {
            Ok(report) => {
                passed += report.passed;
                failed += report.failures.len();
                out.push_str(&shown(file, &report, verbose));
            }
            Err(error) => {
                unread = true;
                fail(&error);
            }
        }
    }
    if count > 1 {
        out.push_str(&format!("{count} files: {passed} passed, {failed} failed\n"));
    }
    let said = print(&out);
    if failed > 0 || unread { ExitCode::FAILURE } else { said }
}

fn script(world: &World, file: &Path) -> anyhow::Result<Report> {
    let name = file.display();
    let bytes = world.disk.read(file).map_err(|e| anyhow::anyhow!("cannot read {name}: {e}"))?;
    let text = String::from_utf8(bytes).map_err(|e| anyhow::anyhow!("{name} is not UTF-8: {e}"))?;
    run_script(&text).map_err(|e| anyhow::anyhow!("{name}: {e}"))
}

fn shown(file: &Path, report: &Report, verbose: bool) -> String {
    let name = file.display();
    let mut out = format!("{name}: {} passed, {} failed\n", report.passed, report.failures.len());
    for failure in report.failures.iter().filter(|_| verbose) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}:{}: {}\n    {}", failure.line, failure.query, failure.reason);
    }
    out
}
