//! The command line: one subcommand per role, each with the flags of its settings.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use runtime::World;
use settings::{Load, with_flags};

use crate::standalone::{self, StandaloneSettings};
use crate::{boot, ring, roles, tools};

const ABOUT: &str = "A receive-first home for Prometheus metrics, wire- and format-compatible with Thanos.";

const STORY: &str = "Prometheus servers remote_write into it; it keeps recent samples in a local TSDB, cuts standard \
    Prometheus blocks, ships them to object storage and answers PromQL over the Prometheus HTTP API. Each role \
    is a subcommand; standalone is all of them in one process.";

pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match command().try_get_matches_from(args) {
        Ok(matches) => dispatch(&matches),
        Err(error) => {
            // Help and version are answers, not errors. A closed pipe cannot be told anything.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            }
        }
    }
}

fn dispatch(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("standalone", matches)) => {
            boot::start("standalone", matches, |s: &StandaloneSettings| &s.log, standalone::run)
        }
        Some(("receive", matches)) => {
            boot::start("receive", matches, |s: &receive::Settings| &s.common.log, roles::receive)
        }
        Some(("query", matches)) => {
            boot::start("query", matches, |s: &query::Settings| &s.common.log, roles::query)
        }
        Some(("store", matches)) => {
            boot::start("store", matches, |s: &store::Settings| &s.common.log, roles::store)
        }
        Some(("ring", matches)) => ring::run(matches),
        Some(("tools", matches)) => tools::run(matches),
        // Clap requires one of those that command() lists.
        _ => ExitCode::from(2),
    }
}

/// The whole command line.
pub fn command() -> Command {
    let build = telemetry::build();
    Command::new("tributary")
        .about(ABOUT)
        .long_about(format!("{ABOUT}\n\n{STORY}"))
        .version(build.version)
        .long_version(format!("{} (revision {}, {})", build.version, build.revision, build.rustc))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(110)
        .subcommand(role::<StandaloneSettings>("standalone"))
        .subcommand(role::<receive::Settings>("receive"))
        .subcommand(role::<query::Settings>("query"))
        .subcommand(role::<store::Settings>("store"))
        .subcommand(ring::command())
        .subcommand(tools::command())
}

/// A role's subcommand: its doc text and its flags.
fn role<S: Load>(name: &'static str) -> Command {
    let about = S::about();
    let first = about.split("\n\n").next().unwrap_or_default().to_owned();
    with_flags::<S>(Command::new(name).about(first).long_about(about).max_term_width(110))
}

/// The example file of a role, if there is such a role.
pub fn example(role: &str) -> Option<String> {
    match role {
        "standalone" => Some(settings::example::<StandaloneSettings>(role)),
        "receive" => Some(settings::example::<receive::Settings>(role)),
        "query" => Some(settings::example::<query::Settings>(role)),
        "store" => Some(settings::example::<store::Settings>(role)),
        _ => None,
    }
}

/// Reads a settings file as a role would: every value and its origin, or the exit code after saying what is
/// wrong.
pub fn check(role: &str, file: &str) -> Result<Option<String>, ExitCode> {
    fn settled<S: Load>(file: &str) -> Result<Option<String>, ExitCode> {
        let args = [format!("--{}={file}", settings::CONFIG_FILE)];
        let command = with_flags::<S>(Command::new("check").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|error| {
            eprintln!("error: {error}");
            ExitCode::from(2)
        })?;
        Ok(Some(boot::settle::<S>(&matches, &World::real())?.provenance.to_string()))
    }
    match role {
        "standalone" => settled::<StandaloneSettings>(file),
        "receive" => settled::<receive::Settings>(file),
        "query" => settled::<query::Settings>(file),
        "store" => settled::<store::Settings>(file),
        _ => Ok(None),
    }
}

/// Roles that have an example file.
pub const ROLES: [&str; 4] = ["standalone", "receive", "query", "store"];
