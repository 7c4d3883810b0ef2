//! What the catalog keeps, within its memory, and what it says when it is refused.

#![allow(clippy::disallowed_methods)]

use std::path::Path;

use catalog::{Catalog, LedgerEntry, LedgerState, MAX_TEXT, MEMORY_LIMIT, Put, inspect};
use model::{Kind, Meaning, MetricKind, MetricMetadata, TenantId};
use runtime::World;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn metric(name: &str, help: &str) -> MetricMetadata {
    let meaning = Meaning { kind: MetricKind::Counter, help: help.to_owned(), unit: "bytes".to_owned() };
    MetricMetadata { metric: name.to_owned(), meaning }
}

fn entry(size: u64) -> LedgerEntry {
    LedgerEntry { state: LedgerState::Uploaded, bucket: "s3://b/p".to_owned(), size, time: 5 }
}

fn all(catalog: &Catalog, tenant: Option<&TenantId>, name: Option<&str>) -> Vec<MetricMetadata> {
    let mut out = Vec::new();
    catalog
        .metadata(tenant, name, &mut |one| {
            out.push(one);
            true
        })
        .unwrap();
    out
}

fn open(dir: &Path) -> Catalog {
    Catalog::open(&World::real(), dir).unwrap()
}

#[test]
fn a_ledger_is_its_tenants_own_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    catalog.ledger_put("a", [("01A", &entry(1)), ("01B", &entry(2))]).unwrap();
    catalog.ledger_put("a.b", [("01C", &entry(3))]).unwrap();
    catalog.ledger_put("", [("01D", &entry(4))]).unwrap();
    catalog.ledger_remove("a", ["01A", "none"]).unwrap();
    drop(catalog);
    let catalog = open(dir.path());
    let blocks = |tenant: &str| catalog.ledger(tenant).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(blocks("a"), [("01B".to_owned(), entry(2))]);
    assert_eq!(blocks("a.b"), [("01C".to_owned(), entry(3))]);
    assert_eq!(blocks(""), [("01D".to_owned(), entry(4))]);
    assert!(blocks("b").is_empty());
}

#[test]
fn the_newest_word_on_a_metric_stands() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let (a, b) = (tenant("a"), tenant("b"));
    let put = |tenant, entries: &[MetricMetadata]| catalog.metadata_put(tenant, entries, 3, 1000).unwrap();
    let two = [metric("up", "one"), metric("up", "two"), metric("down", "x")];
    assert_eq!(put(&a, &two), Put { new: 2, changed: 1, ..Put::default() });
    assert_eq!(put(&a, &two[1..]), Put { same: 2, ..Put::default() });
    put(&b, &[metric("up", "other")]);
    assert_eq!(all(&catalog, Some(&a), Some("up")), [metric("up", "two")]);
    assert_eq!(all(&catalog, Some(&a), None), [metric("down", "x"), metric("up", "two")]);
    assert_eq!(all(&catalog, None, Some("up")), [metric("up", "two"), metric("up", "other")]);
    assert!(all(&catalog, Some(&tenant("c")), None).is_empty());
    // Names that are none, and texts that are too long.
    let long = metric("long", &"é".repeat(MAX_TEXT));
    let odd = [metric("", "x"), metric(&"x".repeat(MAX_TEXT + 1), "x"), metric("a\0b", "x"), long];
    assert_eq!(put(&a, &odd), Put { new: 1, refused: 3, ..Put::default() });
    assert_eq!(all(&catalog, Some(&a), Some("long"))[0].meaning.help.len(), MAX_TEXT);
    catalog.forget_tenant(&a).unwrap();
    assert!(all(&catalog, Some(&a), None).is_empty());
    assert_eq!(all(&catalog, Some(&b), None).len(), 1);
}

#[test]
fn a_full_tenant_forgets_what_nobody_speaks_of() {
    let dir = tempfile::tempdir().unwrap();
    let (a, hour) = (tenant("a"), 3_600_000);
    let put =
        |catalog: &Catalog, name: &str, now| catalog.metadata_put(&a, &[metric(name, "x")], 2, now).unwrap();
    let catalog = open(dir.path());
    for (name, now) in [("one", 0), ("two", 0), ("one", 20 * hour)] {
        assert_eq!(put(&catalog, name, now).refused, 0);
    }
    drop(catalog);
    // Counted again from what is there.
    let catalog = open(dir.path());
    assert_eq!(put(&catalog, "three", 20 * hour).refused, 1);
    assert_eq!(put(&catalog, "three", 20 * hour + 1).refused, 1);
    // Existing ones always pass.
    assert_eq!(put(&catalog, "one", 21 * hour).same, 1);
    assert_eq!(put(&catalog, "three", 26 * hour).new, 1);
    let names: Vec<String> = all(&catalog, Some(&a), None).into_iter().map(|m| m.metric).collect();
    assert_eq!(names, ["one", "three"]);
    assert_eq!(put(&catalog, "four", 26 * hour).refused, 1);
}

#[test]
fn memory_stays_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let mut most = catalog.memory().total();
    assert!(most < 4 << 20, "{most} bytes while empty");
    let help = "what an exporter says of a metric, at the usual length of such a text ".repeat(2);
    for round in 0..300 {
        let tenant = tenant(&format!("tenant-{}", round % 50));
        let entries: Vec<_> = (0..500).map(|n| metric(&format!("metric_{round}_{n}_total"), &help)).collect();
        // A full buffer refuses for a moment; the next one is taken.
        while let Err(error) = catalog.metadata_put(&tenant, &entries, 0, 0) {
            assert_eq!(error.kind, Kind::Unavailable, "{error}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        most = most.max(catalog.memory().total());
    }
    let mut seen = 0;
    catalog
        .metadata(None, None, &mut |_| {
            seen += 1;
            true
        })
        .unwrap();
    for n in 0..2000 {
        all(&catalog, Some(&tenant("tenant-7")), Some(&format!("metric_7_{n}_total")));
    }
    most = most.max(catalog.memory().total());
    assert_eq!(seen, 150_000);
    assert!(most < MEMORY_LIMIT, "{most} bytes");
    println!("most bytes held: {most}");
    let log: u64 = std::fs::read_dir(dir.path().join("db"))
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|e| e == "log"))
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!(log < 24 << 20, "{log} bytes of log");
}

#[test]
fn one_process_at_a_time_and_newer_layouts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let refused = Catalog::open(&World::real(), dir.path()).err().unwrap();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(refused.message.contains("in use by another process; stop it first"), "{refused}");
    catalog.ledger_put("a", [("01A", &entry(7))]).unwrap();
    catalog.metadata_put(&tenant("a"), &[metric("up", "x")], 0, 0).unwrap();
    catalog.metadata_put(&tenant("b"), &[metric("up", "x")], 0, 0).unwrap();
    // Beside the running one.
    let seen = inspect(&World::real(), dir.path()).unwrap();
    let of = |name: &str| seen.families.iter().find(|f| f.name == name).unwrap().clone();
    assert_eq!((of("ledger").entries, of("ledger").tenants, of("metadata").tenants), (1, 1, 2));
    assert_eq!((of("raft-log").entries, seen.version), (0, 1));
    assert!(seen.confirmed <= seen.sequence && seen.confirmed > 0);
    drop(catalog);
    std::fs::write(dir.path().join("tributary-catalog.json"), r#"{"version":2}"#).unwrap();
    for error in [Catalog::open(&World::real(), dir.path()).err(), inspect(&World::real(), dir.path()).err()]
    {
        let error = error.unwrap();
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.message.contains("version 2") && error.message.contains("newer version"), "{error}");
    }
}
