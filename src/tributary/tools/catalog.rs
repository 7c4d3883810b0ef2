//! `tributary tools catalog`: what a node's catalog holds, read without changing it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::catalog::Inspection;
use clap::{Arg, ArgMatches, Command, value_parser};
use runtime::World;

use super::{fail, group, print};

pub fn command() -> Command {
    let dir = Arg::new("dir")
        .required(true)
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Data folder of a receiver or standalone, running or not, or the folder catalog in it.");
    let inspect = Command::new("inspect")
        .about("Read every entry of a catalog; list its families with entries, tenants and sizes.")
        .arg(dir);
    group("catalog", "Look into the catalog of a node.").subcommand(inspect)
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("inspect", matches)) => inspect(matches),
        _ => ExitCode::from(2),
    }
}

fn inspect(matches: &ArgMatches) -> ExitCode {
    let Some(dir) = matches.get_one::<PathBuf>("dir") else { return ExitCode::from(2) };
    let world = World::real();
    let inner = dir.join("catalog");
    let dir: &Path = if world.disk.is_dir(&inner) { &inner } else { dir };
    match ::catalog::inspect(&world, dir) {
        Ok(seen) => print(&table(&seen)),
        Err(error) => fail(&anyhow::Error::new(error)),
    }
}

fn table(seen: &Inspection) -> String {
    let mut out = format!(
        "layout version {}, {} writes, confirmed up to {}\n",
        seen.version, seen.sequence, seen.confirmed
    );
    let _ = writeln!(
        out,
        "{:<12}{:>12}{:>10}{:>14}{:>8}{:>14}",
        "FAMILY", "ENTRIES", "TENANTS", "BYTES", "FILES", "FILE BYTES"
    );
    for family in &seen.families {
        let _ = writeln!(
            out,
            "{:<12}{:>12}{:>10}{:>14}{:>8}{:>14}",
            family.name, family.entries, family.tenants, family.bytes, family.files, family.file_bytes
        );
    }
    if !seen.hints.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<32}{:>8}{:>12}{:>14}{:>14}",
            "HINTS FOR", "FILES", "HINTS", "SAMPLES", "BYTES"
        );
    }
    for (peer, index) in &seen.hints {
        let sum = |of: fn(&::catalog::HintFile) -> u64| index.files.iter().map(of).sum::<u64>();
        let _ = writeln!(
            out,
            "{peer:<32}{:>8}{:>12}{:>14}{:>14}",
            index.files.len(),
            sum(|file| file.hints),
            sum(|file| file.samples),
            sum(|file| file.bytes)
        );
    }
    out
}
