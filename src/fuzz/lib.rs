//! What is fuzzed: one function per decoder, which panics where bytes lead to a panic or to an answer that is wrong.
//!
//! The functions have two callers: `targets`, where libFuzzer searches for hours, and `tests/seeds.rs`, which runs
//! the stored inputs of `seeds` and some thousand mutations of them with every test run.
//!
//! ```text
//! cd src/fuzz && cargo +nightly fuzz run --fuzz-dir targets -s none wal seeds/wal
//! ```

mod blocks;
mod chunks;
mod log;
mod open_telemetry;
mod text;
mod wire_bodies;

/// A name, as the folder of its seeds and the program in `targets` are called, and what it does with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("snappy", wire_bodies::snappy),
    ("remote_write", wire_bodies::remote_write),
    ("remote_write_v2", wire_bodies::remote_write_v2),
    ("peer_write", wire_bodies::peer_write),
    ("peer_frames", wire_bodies::peer_frames),
    ("recognised", wire_bodies::recognised),
    ("otlp", open_telemetry::request),
    ("xor", chunks::xor),
    ("xor2", chunks::xor2),
    ("histogram", chunks::histogram),
    ("histogram_start", chunks::histogram_start),
    ("index", blocks::index),
    ("index_file", blocks::index_file),
    ("chunk_file", blocks::chunk_file),
    ("meta", blocks::meta),
    ("tombstones", blocks::tombstones),
    ("wal", log::segment),
    ("wal_payloads", log::payloads),
    ("hashrings", text::hashrings),
    ("limits", text::limits),
    ("relabel", text::relabelling),
    ("promql", text::promql),
];

/// Runs the target of this name.
///
/// # Panics
/// Where there is none, and where the target finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("no target is called {name}")).1(bytes)
}
