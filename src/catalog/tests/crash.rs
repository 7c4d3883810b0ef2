//! A crash at any moment leaves every confirmed write; damage is refused with the way out, and never passes for a crash.
//!
//! RocksDB writes its files itself, so a crash is made by cutting copies of them: the log behind any byte that was written
//! after a confirmation, with the mark as it was then.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use catalog::{Catalog, Error, LedgerEntry, LedgerState};
use model::{Kind, Meaning, MetricMetadata, TenantId};
use runtime::World;

fn entry(size: u64) -> LedgerEntry {
    LedgerEntry { state: LedgerState::Uploaded, bucket: "b".repeat(30), size, time: 5 }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(file.file_name());
        match file.path().is_dir() {
            true => copy(&file.path(), &target),
            false => drop(fs::copy(file.path(), target).unwrap()),
        }
    }
}

fn log_of(dir: &Path) -> PathBuf {
    let logs = fs::read_dir(dir.join("db")).unwrap().flatten().map(|e| e.path());
    logs.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap()
}

/// What is in the ledger, by the number that was written.
fn ledger(dir: &Path) -> Result<Vec<u64>, Error> {
    let catalog = Catalog::open(&World::real(), dir)?;
    Ok(catalog.ledger("t")?.into_values().map(|e| e.size).collect())
}

/// A small stream of numbers that is the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The folder of a catalog that was not closed, with the log's length and the mark after each confirmed write.
struct Run {
    dir: tempfile::TempDir,
    steps: Vec<(u64, Vec<u8>)>,
}

fn run(writes: u64) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let catalog = Catalog::open(&World::real(), &live).unwrap();
    let now = |log: &Path| (fs::metadata(log).unwrap().len(), fs::read(live.join("acked")).unwrap());
    let log = log_of(&live);
    let mut steps = vec![now(&log)];
    for n in 0..writes {
        catalog.ledger_put("t", [(format!("{n:04}").as_str(), &entry(n))]).unwrap();
        steps.push(now(&log));
        if n % 3 == 0 {
            // Not confirmed, and lost at will.
            let meaning = Meaning { help: "x".repeat(40), ..Meaning::default() };
            let one = MetricMetadata { metric: format!("m{n}"), meaning };
            catalog.metadata_put(&TenantId::new("t").unwrap(), &[one], 0, 0).unwrap();
        }
    }
    copy(&live, &dir.path().join("image"));
    drop(catalog);
    Run { dir, steps }
}

#[test]
fn cut_anywhere_the_confirmed_prefix_is_there() {
    let writes = 40;
    let run = run(writes);
    let image = run.dir.path().join("image");
    let log = log_of(&image).strip_prefix(&image).unwrap().to_owned();
    let whole = fs::read(image.join(&log)).unwrap();
    let mut dice = Dice(7);
    let mut cuts = 0;
    let mut check = |n: usize, at: u64| {
        let work = run.dir.path().join("work");
        let _ = fs::remove_dir_all(&work);
        copy(&image, &work);
        fs::write(work.join(&log), &whole[..at as usize]).unwrap();
        // The mark follows the log: at this moment it says at most `n`.
        fs::write(work.join("acked"), &run.steps[n].1).unwrap();
        let found = ledger(&work).unwrap_or_else(|e| panic!("cut at {at}, {n} confirmed: {e}"));
        let least: Vec<u64> = (0..n as u64).collect();
        assert!(found.starts_with(&least), "cut at {at}: {n} were confirmed, there are {found:?}");
        assert!(found.len() <= n + 1 && found.is_sorted());
        // And what was healed stays healed.
        assert_eq!(ledger(&work).unwrap(), found);
        cuts += 1;
    };
    for n in 0..run.steps.len() {
        let (start, end) = (run.steps[n].0, run.steps.get(n + 1).map_or(whole.len() as u64, |s| s.0));
        check(n, start);
        for _ in 0..2 {
            check(n, start + dice.below((end - start).max(1)));
        }
    }
    println!("{cuts} cuts");
}

#[test]
fn a_log_that_lost_what_was_confirmed_is_refused() {
    let run = run(12);
    let image = run.dir.path().join("image");
    let log = log_of(&image).strip_prefix(&image).unwrap().to_owned();
    let whole = fs::read(image.join(&log)).unwrap();
    let last = run.steps.last().unwrap().0;
    let refused = |work: &Path, what: &str| {
        let error = ledger(work).expect_err(what);
        assert_eq!(error.kind, Kind::Corrupt, "{what}: {error}");
        assert!(error.message.contains("move this folder away and start again"), "{error}");
    };
    for at in [0, 1, last / 2, run.steps[11].0, last - 1] {
        let work = run.dir.path().join(format!("cut-{at}"));
        copy(&image, &work);
        fs::write(work.join(&log), &whole[..at as usize]).unwrap();
        refused(&work, "a log that ends too early");
    }
    for what in ["db/CURRENT", "db", "acked", "tributary-catalog.json"] {
        let work = run.dir.path().join(format!("without-{}", what.replace('/', "-")));
        copy(&image, &work);
        let path = work.join(what);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        refused(&work, what);
    }
    let work = run.dir.path().join("without-log");
    copy(&image, &work);
    fs::remove_file(work.join(&log)).unwrap();
    refused(&work, "no log");
}

/// Copies made while writes go on: each holds at least what was confirmed before the copy began.
#[test]
fn copies_in_mid_flight_hold_what_was_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let catalog = Catalog::open(&World::real(), &live).unwrap();
    let help = "h".repeat(900);
    let writer = catalog.clone();
    let noise = std::thread::spawn(move || {
        let tenant = TenantId::new("noise").unwrap();
        for n in 0..4000u32 {
            let meaning = Meaning { help: help.clone(), ..Meaning::default() };
            let one = MetricMetadata { metric: format!("m{n}"), meaning };
            // Full buffers refuse for a moment.
            let _ = writer.metadata_put(&tenant, &[one], 0, 0);
        }
    });
    let mut copies = BTreeMap::new();
    for n in 0..60u64 {
        catalog.ledger_put("t", [(format!("{n:04}").as_str(), &entry(n))]).unwrap();
        if n % 6 == 5 {
            let to = dir.path().join(format!("copy-{n}"));
            fs::create_dir_all(to.join("db")).unwrap();
            // As a crash would leave it: the mark first, then names before content, so that nothing is missing.
            let catalog_files = ["tributary-catalog.json", "acked"];
            for name in catalog_files {
                fs::copy(live.join(name), to.join(name)).unwrap();
            }
            if copy_database(&live.join("db"), &to.join("db")) {
                copies.insert(n, to);
            }
        }
    }
    noise.join().unwrap();
    assert!(copies.len() >= 3, "only {} copies were consistent", copies.len());
    for (n, copy) in copies {
        let found = ledger(&copy).unwrap_or_else(|e| panic!("copy after {n}: {e}"));
        assert!(found.starts_with(&(0..=n).collect::<Vec<u64>>()), "copy after {n}: {found:?}");
    }
}

/// False where files came or went meanwhile: no moment looked like that copy.
fn copy_database(from: &Path, to: &Path) -> bool {
    let names = || -> Vec<_> {
        let mut all: Vec<_> = fs::read_dir(from).unwrap().flatten().map(|e| e.file_name()).collect();
        all.sort();
        all
    };
    let before = names();
    // Content that the manifest speaks of must be there: it is copied last.
    let (manifest, others): (Vec<_>, Vec<_>) =
        before.iter().partition(|name| name.to_string_lossy().starts_with("MANIFEST"));
    let log_last = others.iter().filter(|n| n.to_string_lossy().ends_with(".log"));
    let rest = others.iter().filter(|n| !n.to_string_lossy().ends_with(".log"));
    for name in rest.chain(log_last).copied().chain(manifest) {
        if fs::copy(from.join(name), to.join(name)).is_err() {
            return false;
        }
    }
    names() == before
}

/// One flipped bit in any file: refused, or the same content. Never other content, never a panic.
#[test]
fn flipped_bits_are_never_silent() {
    let run = run(30);
    // A second life, so that there are table files beside the log.
    let image = run.dir.path().join("image");
    {
        let catalog = Catalog::open(&World::real(), &image).unwrap();
        catalog.ledger_put("t", [("0030", &entry(30))]).unwrap();
        catalog.close().unwrap();
    }
    let want: Vec<u64> = (0..=30).collect();
    let mut files = vec![image.join("acked"), image.join("tributary-catalog.json")];
    files.extend(fs::read_dir(image.join("db")).unwrap().flatten().map(|e| e.path()));
    let (mut flips, mut refused) = (0, 0);
    let mut dice = Dice(99);
    for file in files {
        let name = file.strip_prefix(&image).unwrap().to_owned();
        let content = fs::read(&file).unwrap();
        if content.is_empty() {
            continue;
        }
        let tries = if name.to_string_lossy().contains("OPTIONS") || name.ends_with("LOG") { 3 } else { 40 };
        for _ in 0..tries {
            let mut damaged = content.clone();
            let at = dice.below(content.len() as u64) as usize;
            damaged[at] ^= 1 << dice.below(8);
            let work = run.dir.path().join("work");
            let _ = fs::remove_dir_all(&work);
            copy(&image, &work);
            fs::write(work.join(&name), damaged).unwrap();
            flips += 1;
            match ledger(&work) {
                Ok(found) => assert_eq!(found, want, "bit of byte {at} of {}", name.display()),
                Err(error) => {
                    refused += 1;
                    let said = [Kind::Corrupt, Kind::Refused, Kind::Unavailable].contains(&error.kind);
                    assert!(said && error.message.contains("catalog"), "{}: {error}", name.display());
                }
            }
        }
    }
    println!("{flips} flips, {refused} refused");
    assert!(refused > flips / 4);
}
