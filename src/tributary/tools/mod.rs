//! `tributary tools`: what an operator runs by hand, beside the roles.

mod bucket;
mod catalog;
mod promqltest;
mod wal;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::{boot, cli};

pub fn command() -> Command {
    let config =
        Command::new("config")
            .about("Print the example settings file of a role: every key with its help and default.")
            .arg(Arg::new("role").required(true).value_parser(cli::ROLES).help("The role."))
            .arg(Arg::new("check").long("check").value_name("FILE").help(
                "Instead, read a settings file as the role would, and print where each value comes from.",
            ));
    group("tools", "Tools for operators.")
        .subcommand(bucket::command())
        .subcommand(catalog::command())
        .subcommand(promqltest::command())
        .subcommand(wal::command())
        .subcommand(config)
}

/// A command that only holds others.
fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("bucket", matches)) => bucket::run(matches),
        Some(("catalog", matches)) => catalog::run(matches),
        Some(("promqltest", matches)) => promqltest::run(matches),
        Some(("wal", matches)) => wal::run(matches),
        Some(("config", matches)) => config(matches),
        // Clap requires one of those that command() lists.
        _ => ExitCode::from(2),
    }
}

fn config(matches: &ArgMatches) -> ExitCode {
    let Some(role) = matches.get_one::<String>("role") else { return ExitCode::from(2) };
    let text = match matches.get_one::<String>("check") {
        None => cli::example(role),
        Some(file) => match cli::check(role, file) {
            Ok(text) => text,
            Err(code) => return code,
        },
    };
    text.map_or(ExitCode::from(2), |text| print(&text))
}

/// Writes a tool's answer. A reader who has seen enough (`| head`) is no error.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&anyhow::Error::new(error).context("cannot write the answer"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", boot::chain(error));
    ExitCode::FAILURE
}
