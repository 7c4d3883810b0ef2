//! Text that people and clients write: ring files and queries.

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

/// A query: what is parsed is printed so that it parses to the same text.
pub fn promql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(expr) = promql::parse(text) else { return };
    let printed = expr.to_string();
    let again =
        promql::parse(&printed).unwrap_or_else(|error| panic!("{text:?} prints {printed:?}: {error}"));
    assert_eq!(again.to_string(), printed, "{text:?}");
}
