//! Text that people and clients write: ring files, limits, relabelling and queries.

use std::io::BufRead;

use hashring::{Algorithm, Document, Rings};

/// A ring file, and the rings that it makes.
pub fn hashrings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(document) = Document::parse(text) else { return };
    // Placement tables cost a thousand sections per endpoint.
    if document.rings.iter().map(|ring| ring.endpoints.len()).sum::<usize>() > 8 {
        return;
    }
    for factor in [1, 3] {
        let Ok(rings) = Rings::build(&document, factor, Algorithm::Ketama) else { continue };
        for tenant in ["", "a", "team-1"] {
            if let Some(ring) = rings.resolve(tenant) {
                for hash in [0, 1 << 40, u64::MAX] {
                    assert!(ring.replicas(hash).len() <= rings.endpoints().len());
                }
            }
        }
    }
}

/// A limits file: it is refused in one line of words, or no tenant's window is wider than the node's.
pub fn limits(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    const WIDEST: i64 = 7_200_000;
    match receive::proof::limits(text, WIDEST) {
        Err(error) => assert!(!error.is_empty()),
        Ok(windows) => {
            assert!(windows.into_iter().flatten().all(|ms| (0..=WIDEST).contains(&ms)), "{text:?}")
        }
    }
}

/// Relabelling rules, then a line of `--- ` and a line per label pair. What the rules make of labels is labels that a series may
/// have, and the same each time.
pub fn relabelling(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (rules, pairs) = text.split_once("\n--- \n").unwrap_or((text, ""));
    let Ok(rules) = relabel::parse(rules) else { return };
    let mut builder = model::LabelsBuilder::default();
    for line in pairs.as_bytes().lines().map_while(Result::ok) {
        let (name, value) = line.split_once('=').unwrap_or((&line, ""));
        builder.set(name, value);
    }
    let usual = model::Labels::from_pairs([("__name__", "up"), ("instance", "a:9090"), ("job", "x")]);
    for labels in [builder.finish(), usual].into_iter().flatten() {
        let out = rules.apply(&labels);
        if let Ok(Some(labels)) = &out {
            model::Labels::check(labels.as_bytes()).expect("labels that a series may have");
        }
        assert_eq!(out, rules.apply(&labels));
        if rules.is_empty() {
            assert_eq!(out, Ok(Some(labels)));
        }
    }
}

/// A query: what is parsed is printed so that it parses to the same text.
pub fn promql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(expr) = promql::parse(text) else { return };
    let printed = expr.to_string();
    let again =
        promql::parse(&printed).unwrap_or_else(|error| panic!("{text:?} prints {printed:?}: {error}"));
    assert_eq!(again.to_string(), printed, "{text:?}");
}
