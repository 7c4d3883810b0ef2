//! The house rules: floors, files and words that every change must keep.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("src/acceptance lies two levels below the root").to_owned()
}

fn metadata(more: &[&str]) -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(more)
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON")
}

fn tracked() -> Vec<String> {
    let out = Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git runs");
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

/// A crate depends only on lower floors; neighbours never meet. Dev-dependencies obey the same.
#[test]
fn every_dependency_points_down() {
    let meta = metadata(&["--no-deps"]);
    let packages = meta["packages"].as_array().expect("packages");
    let floor = |p: &Value| -> Option<u64> { p["metadata"]["house"]["floor"].as_u64() };
    let floors: HashMap<&str, Option<u64>> =
        packages.iter().map(|p| (p["name"].as_str().expect("name"), floor(p))).collect();
    let mut edges = 0;
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let house = &package["metadata"]["house"]["floor"];
        assert!(
            house.is_u64() || house == "beside",
            "{name} has no floor: add [package.metadata.house] floor = N (or \"beside\") to its manifest"
        );
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("name");
            let Some(below) = floors.get(to) else { continue };
            edges += 1;
            let (Some(from), Some(below)) = (floors[name], *below) else {
                assert!(
                    floors[name].is_none(),
                    "{name} depends on {to}, which stands beside the house: nothing inside may"
                );
                continue;
            };
            // The tools of tests stand on floor 1 and are open to every dev-dependency from floor 1 up.
            let testkit = to == "tributary-testkit" && dependency["kind"] == "dev" && from >= 1;
            assert!(
                below < from || testkit,
                "{name} (floor {from}) depends on {to} (floor {below}): move what both need one floor down"
            );
        }
    }
    assert!(edges > 30, "only {edges} edges were seen: this test no longer reads the workspace");
}

/// Only licences that let anybody ship the binary.
#[test]
fn licences_are_permissive() {
    const ALLOWED: [&str; 14] = [
        "MIT",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "BSL-1.0",
        "CC0-1.0",
        "CDLA-Permissive-2.0",
        "0BSD",
        "Unlicense",
        "MIT-0",
    ];
    let meta = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    for package in meta["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let licence = package["license"].as_str().unwrap_or("");
        let clean = licence.replace(['(', ')'], " ").replace('/', " OR ");
        let fine = clean.split(" AND ").all(|all| all.split(" OR ").any(|one| ALLOWED.contains(&one.trim())));
        assert!(
            fine,
            "{name} has licence {licence:?}: choose another crate, or add it to the list with its reason"
        );
    }
}

#[test]
fn top_level_is_as_the_card_says() {
    const ALLOWED: [&str; 10] = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "proto",
        "hashring",
        "config",
        "loadtest",
        "docker-compose.yml",
        "README.md",
        "LICENSE",
    ];
    for file in tracked() {
        let top = file.split('/').next().expect("a path has a first part");
        let fine = ALLOWED.contains(&top) || top == "CHANGELOG.md" || top == "task" || top.starts_with('.');
        assert!(fine, "{top} does not belong at the top level: find its room in src/ARCHITECTURE.md");
    }
}

/// A module begins with one sentence that says its single job.
#[test]
fn every_module_says_its_job() {
    for file in tracked()
        .iter()
        .filter(|f| f.ends_with(".rs") && (f.starts_with("src/") || f.starts_with("loadtest/")))
    {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        let first = text.lines().find(|l| !l.starts_with("#![")).unwrap_or("");
        assert!(
            first.starts_with("//! "),
            "{file} does not begin with `//! ` and one sentence saying its job"
        );
    }
}

/// Every path and function that the architecture page names exists.
#[test]
fn the_architecture_page_is_true() {
    let page = std::fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("src/ARCHITECTURE.md");
    let mut paths = 0;
    for line in page.lines() {
        let mut last: Option<(String, String)> = None;
        for code in line.split('`').skip(1).step_by(2) {
            let is_path = code.starts_with("src/")
                || code.starts_with("proto/")
                || code.starts_with("hashring/")
                || code.starts_with("config/")
                || code.starts_with("loadtest/");
            if is_path {
                paths += 1;
                let path = root().join(code);
                assert!(path.exists(), "src/ARCHITECTURE.md names {code}, which does not exist: {line}");
                last = std::fs::read_to_string(&path).ok().map(|text| (code.to_owned(), text));
            } else if let (Some((path, text)), Some(function)) = (&last, code.strip_suffix("()")) {
                let name = function.rsplit("::").next().expect("a name has a last part");
                assert!(
                    text.contains(&format!("fn {name}")),
                    "src/ARCHITECTURE.md says that {path} has {code}; it has not"
                );
            }
        }
    }
    assert!(paths > 30, "only {paths} paths were seen: the page or this test has lost its way");
}

/// The project speaks of itself alone.
#[test]
fn no_paths_of_a_machine() {
    let home = ["/ho", "me/"].concat();
    let work = ["/wo", "rk/"].concat();
    for file in tracked() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            assert!(
                !line.contains(&work) && !line.contains(&home),
                "{file}:{} names a path of somebody's machine",
                at + 1
            );
        }
    }
}
