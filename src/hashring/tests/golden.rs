//! Placements that may never change: the files in `hashring/golden/`, which a second implementation wrote,
//! a naive computation of the same, and the example files beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hashring::{Algorithm, Document, Endpoint, Rings};
use model::Labels;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

#[derive(Deserialize)]
struct Golden {
    ring: serde_json::Value,
    replication_factor: usize,
    placements: Vec<Placement>,
}

#[derive(Deserialize)]
struct Placement {
    tenant: String,
    labels: BTreeMap<String, String>,
    /// Of tenant and labels, in hexadecimal.
    hash: String,
    ring: String,
    endpoints: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hashring")
}

fn json_files(dir: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .map(|(name, path)| (name, std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn golden_placements_hold() {
    let files = json_files(&folder().join("golden"));
    assert!(files.len() >= 7, "golden files are missing");
    for (file, text) in files {
        let golden: Golden = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let document = Document::parse(&golden.ring.to_string()).unwrap();
        let rings = Rings::build(&document, golden.replication_factor, Algorithm::Ketama).unwrap();
        assert!(golden.placements.len() >= 50, "{file}");
        for placement in golden.placements {
            let labels = Labels::from_pairs(&placement.labels).unwrap();
            let hash = labels.placement_hash(&placement.tenant);
            let ring = rings.resolve(&placement.tenant).unwrap();
            let held: Vec<_> =
                ring.replicas(hash).iter().map(|r| rings.endpoints()[*r as usize].address.clone()).collect();
            assert_eq!(format!("{hash:016x}"), placement.hash, "{file}: hash of {labels}");
            assert_eq!(
                (ring.name(), held),
                (placement.ring.as_str(), placement.endpoints),
                "{file}: {labels}"
            );
        }
    }
}

/// Thanos's rule as plainly as it can be written: all sections sorted, one walk per section.
fn naive(endpoints: &[Endpoint], copies: usize) -> Vec<(u64, Vec<u16>)> {
    let mut sections: Vec<(u64, u16)> = Vec::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        sections.extend(
            (1..=1000).map(|i| (xxh64(format!("{}:{i}", endpoint.address).as_bytes(), 0), at as u16)),
        );
    }
    sections.sort_unstable();
    let zones: std::collections::BTreeSet<&str> = endpoints.iter().map(|e| e.zone.as_str()).collect();
    let walk = |start: usize| {
        let mut spread: BTreeMap<&str, usize> = zones.iter().map(|zone| (*zone, 0)).collect();
        let mut chosen: Vec<u16> = Vec::new();
        let mut at = start;
        while chosen.len() < copies {
            let owner = sections[at % sections.len()].1;
            at += 1;
            let zone = endpoints[owner as usize].zone.as_str();
            let least = *spread.values().min().unwrap();
            let crowded = spread.len() > 1 && spread[zone] > 0 && spread[zone] > least;
            if !chosen.contains(&owner) && !crowded {
                *spread.get_mut(zone).unwrap() += 1;
                chosen.push(owner);
            }
        }
        chosen
    };
    (0..sections.len()).map(|start| (sections[start].0, walk(start))).collect()
}

#[test]
fn every_section_of_every_example_is_as_computed_naively() {
    for (file, text) in json_files(&folder()).into_iter().filter(|(name, _)| name != "schema.json") {
        let document = Document::parse(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(document.warnings.is_empty(), "{file}: {:?}", document.warnings);
        let smallest = document.rings.iter().map(|r| r.endpoints.len()).min().unwrap();
        for copies in 1..=smallest.min(4) {
            let rings = Rings::build(&document, copies, Algorithm::Ketama).unwrap();
            for (spec, ring) in document.rings.iter().zip(rings.rings()) {
                let expected = naive(&spec.endpoints, copies);
                assert_eq!(ring.sections().count(), expected.len());
                for ((end, replicas), (hash, owners)) in ring.sections().zip(expected) {
                    let named: Vec<_> = owners
                        .iter()
                        .map(|o| rings.index_of(&spec.endpoints[*o as usize].address).unwrap())
                        .collect();
                    assert_eq!((end, replicas), (hash, &named[..]), "{file}, {copies} copies");
                }
            }
        }
    }
}
