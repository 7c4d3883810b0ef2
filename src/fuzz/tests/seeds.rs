//! The stored inputs of every target, and some thousand mutations of them, on the stable compiler.
//!
//! `UPDATE_SEEDS=1 cargo test -p tributary-fuzz` writes the seeds that are made by code anew.

mod make;

use std::path::{Path, PathBuf};

use runtime::Chance;
use testkit::SeededChance;

/// Mutations of a target's seeds in one run of the tests.
const MUTATIONS: u64 = 3000;
/// Of those that open a log on a disk, which takes some hundred microseconds.
const SLOW_MUTATIONS: u64 = 300;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

#[allow(clippy::disallowed_methods)]
fn stored(target: &str) -> Vec<Vec<u8>> {
    let folder = folder(target);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Another input from one or two: flipped bits, bytes of note, cuts, repetitions and splices.
fn mutate(chance: &SeededChance, of: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = of.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(out.len() as u64 + 1) as usize;
        match chance.below(7) {
            0 if at < out.len() => out[at] ^= 1 << chance.below(8),
            1 if at < out.len() => out[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{'][chance.below(7) as usize],
            2 => out.truncate(at),
            3 => out.insert(at, chance.below(256) as u8),
            4 if at < out.len() => drop(out.remove(at)),
            5 => {
                let end = (at + chance.below(16) as usize).min(out.len());
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            _ => {
                let from = chance.below(with.len() as u64 + 1) as usize;
                out.truncate(at);
                out.extend_from_slice(&with[from..]);
            }
        }
    }
    out
}

#[test]
fn every_target_holds_for_its_seeds_and_their_neighbours() {
    let mut total = 0;
    for (name, run) in fuzz::TARGETS {
        let seeds = stored(name);
        assert!(!seeds.is_empty(), "{name} has no seeds in {}", folder(name).display());
        seeds.iter().for_each(|seed| run(seed));
        let chance = SeededChance::new(name.bytes().map(u64::from).sum());
        let mutations = if name.starts_with("wal") { SLOW_MUTATIONS } else { MUTATIONS };
        for n in 0..mutations {
            let pick = |chance: &SeededChance| &seeds[chance.below(seeds.len() as u64) as usize];
            let (of, with) = (pick(&chance), pick(&chance));
            let input = mutate(&chance, of, with);
            let outcome = std::panic::catch_unwind(|| run(&input));
            assert!(outcome.is_ok(), "{name}: mutation {n} is a finding: {}", hex(&input));
        }
        total += seeds.len() as u64 + mutations;
    }
    println!("{total} inputs over {} targets", fuzz::TARGETS.len());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The seeds that code makes are those in the folder, so that a change of a format is seen here.
#[test]
#[allow(clippy::disallowed_methods)]
fn seeds_are_of_the_formats_of_today() {
    for (target, name, bytes) in make::all() {
        let path = folder(target).join(name);
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(path.exists(), "{} is missing: run with UPDATE_SEEDS=1", path.display());
    }
}

/// Each target is a program for libFuzzer as well.
#[test]
#[allow(clippy::disallowed_methods)]
fn every_target_is_a_program() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let manifest = std::fs::read_to_string(targets.join("Cargo.toml")).unwrap();
    for (name, _) in fuzz::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in {}", targets.display());
        assert!(targets.join(format!("bin/{name}.rs")).exists(), "{name} has no program");
    }
}
