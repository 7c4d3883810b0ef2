//! `tributary tools wal`: what a log holds, read without changing it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::wal::SegmentSummary;
use clap::{Arg, ArgMatches, Command, value_parser};
use runtime::World;

use super::{fail, group, print};

pub fn command() -> Command {
    let dir = Arg::new("dir").required(true).value_name("DIR").value_parser(value_parser!(PathBuf)).help(
        "Data folder of a stopped receiver or standalone, or the folder of the log in it. A running one \
         shows damage where it is just writing.",
    );
    let inspect = Command::new("inspect")
        .about("List the segments of a log: records, their numbers, and where one cannot be read.")
        .arg(dir);
    group("wal", "Look into the log of a node.").subcommand(inspect)
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("inspect", matches)) => inspect(matches),
        _ => ExitCode::from(2),
    }
}

fn inspect(matches: &ArgMatches) -> ExitCode {
    let world = World::real();
    let Some(dir) = matches.get_one::<PathBuf>("dir") else { return ExitCode::from(2) };
    match ::wal::inspect(&world, &log_of(&world, dir)) {
        Ok(segments) => {
            let said = print(&table(&segments));
            let readable = segments.iter().all(|s| s.damaged.is_none() && s.error.is_none());
            if readable { said } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error.into()),
    }
}

/// The log's folder, where the data folder above it was named.
fn log_of(world: &World, dir: &Path) -> PathBuf {
    let below = dir.join("wal");
    if world.disk.is_dir(&below) { below } else { dir.to_owned() }
}

fn table(segments: &[SegmentSummary]) -> String {
    let mut out = format!("{:<24} {:>12} {:>10} {:>21}  STATE\n", "SEGMENT", "BYTES", "RECORDS", "NUMBERS");
    for segment in segments {
        let numbers = segment.seqs.map(|(first, last)| format!("{first}-{last}")).unwrap_or_default();
        let state = match (&segment.error, segment.damaged) {
            (Some(error), _) => error.clone(),
            (None, Some((at, bytes))) => format!("unreadable from byte {at}: {bytes} bytes follow"),
            (None, None) => "good".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<24} {:>12} {:>10} {numbers:>21}  {state}",
            segment.name, segment.bytes, segment.records
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_shown_where_it_begins() {
        let good = SegmentSummary {
            name: "segment-1".to_owned(),
            bytes: 128,
            records: 3,
            seqs: Some((7, 9)),
            damaged: None,
            error: None,
        };
        let torn = SegmentSummary { damaged: Some((64, 10)), ..good.clone() };
        let text = table(&[good, torn]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains(" 7-9  good"), "{text}");
        assert!(lines[2].ends_with("unreadable from byte 64: 10 bytes follow"), "{text}");
    }
}
