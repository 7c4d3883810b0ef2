//! `tributary tools wal`: what a log holds, and a new one of what is left of a damaged one; neither changes it.

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
        .arg(dir.clone());
    let to = Arg::new("to")
        .long("to")
        .required(true)
        .value_name("FOLDER")
        .value_parser(value_parser!(PathBuf))
        .help("Folder for the new log; it must not exist, or be empty.");
    let salvage = Command::new("salvage")
        .about(
            "Copy what can be read of a log that is refused as damaged, before and after the damage, into a new \
             one, and say exactly what is lost. The damaged log is not changed.",
        )
        .arg(dir)
        .arg(to);
    group("wal", "Look into the log of a node.").subcommand(inspect).subcommand(salvage)
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("inspect", matches)) => inspect(matches),
        Some(("salvage", matches)) => salvage(matches),
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

fn salvage(matches: &ArgMatches) -> ExitCode {
    let world = World::real();
    let folders = (matches.get_one::<PathBuf>("dir"), matches.get_one::<PathBuf>("to"));
    let (Some(dir), Some(to)) = folders else { return ExitCode::from(2) };
    let from = log_of(&world, dir);
    match tsdb::salvage(&world, &from, to) {
        Ok(done) => print(&report(&done, &from, to)),
        Err(error) => fail(&error.into()),
    }
}

/// What was kept, what was lost, and what to do with the new log.
fn report(done: &tsdb::Salvaged, from: &Path, to: &Path) -> String {
    let losses = &done.losses;
    let mut out = format!("{} records read, {} float samples\n", losses.records, done.samples);
    for (kind, count) in &done.kept {
        let _ = writeln!(out, "  {kind:<12} {count:>10}");
    }
    for (why, count) in &done.left_out {
        let _ = writeln!(out, "{count} records left out: {why}");
    }
    if done.orphans > 0 {
        let _ = writeln!(
            out,
            "{} samples belong to series whose labels are lost: they will be skipped",
            done.orphans
        );
    }
    for name in &losses.missing {
        let _ = writeln!(out, "lost: {name} is missing");
    }
    for lost in &losses.bytes {
        let bytes = lost.until - lost.from;
        let _ = writeln!(out, "lost: {} bytes {} to {} ({bytes} bytes)", lost.file, lost.from, lost.until);
    }
    for (first, last) in &losses.numbers {
        let _ = writeln!(out, "lost: records {first} to {last} ({} records)", last - first + 1);
    }
    let clean = losses.bytes.is_empty() && losses.numbers.is_empty() && losses.missing.is_empty();
    if clean {
        out.push_str("nothing is lost\n");
    }
    let _ = writeln!(
        out,
        "\nThe new log is in {}. To use it, with the node stopped:\n  mv {} {}.damaged\n  mv {} {}",
        to.display(),
        from.display(),
        from.display(),
        to.display(),
        from.display()
    );
    out
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
    fn losses_are_named_with_what_to_do_next() {
        let losses = ::wal::Losses {
            records: 99,
            bytes: vec![::wal::LostBytes { file: "segment-1".to_owned(), from: 64, until: 104 }],
            numbers: vec![(20, 21)],
            missing: vec!["segment-2".to_owned()],
        };
        let done = tsdb::Salvaged { losses, samples: 500, orphans: 3, ..Default::default() };
        let text = report(&done, Path::new("data/wal"), Path::new("new"));
        for part in [
            "99 records read, 500 float samples",
            "3 samples belong to series whose labels are lost",
            "segment-2 is missing",
            "segment-1 bytes 64 to 104 (40 bytes)",
            "records 20 to 21 (2 records)",
            "mv data/wal data/wal.damaged\n  mv new data/wal",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

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
