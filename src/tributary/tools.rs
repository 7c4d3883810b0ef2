//! `tributary tools`: what an operator runs by hand, beside the roles.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::cli;

pub fn command() -> Command {
    let config = Command::new("config")
        .about("Print the example settings file of a role: every key with its help and default.")
        .arg(Arg::new("role").required(true).value_parser(cli::ROLES).help("The role."));
    Command::new("tools")
        .about("Tools for operators.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(config)
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("config", matches)) => config(matches),
        _ => ExitCode::from(2),
    }
}

fn config(matches: &ArgMatches) -> ExitCode {
    let role = matches.get_one::<String>("role").and_then(|role| cli::example(role));
    match role {
        Some(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        None => ExitCode::from(2),
    }
}
