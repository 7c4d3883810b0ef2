//! Makes Rust of `proto/`: the only reader of that folder, in need of no protoc.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// Every file, so that one nobody uses yet still has to compile.
const FILES: [&str; 23] = [
    "grpc/health/v1/health.proto",
    "io/prometheus/write/v2/types.proto",
    "opentelemetry/collector.proto",
    "opentelemetry/common.proto",
    "opentelemetry/metrics.proto",
    "opentelemetry/resource.proto",
    "prometheus/remote.proto",
    "prometheus/types.proto",
    "thanos/exemplars.proto",
    "thanos/hints.proto",
    "thanos/info.proto",
    "thanos/labels.proto",
    "thanos/metadata.proto",
    "thanos/prompb.proto",
    "thanos/query.proto",
    "thanos/rpc.proto",
    "thanos/rules.proto",
    "thanos/status.proto",
    "thanos/targets.proto",
    "thanos/types.proto",
    "tributary/control/v1/control.proto",
    "tributary/v1/node.proto",
    "tributary/v1/write.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let root = manifest.join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    write(&out.join("descriptors.bin"), &compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .bytes(".thanos.Chunk.data")
        .bytes(".prometheus.Chunk.data")
        .bytes(".prometheus_copy.Chunk.data")
        .include_file("pb.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

#[allow(clippy::disallowed_methods)] // A build script has no World.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::write(path, bytes)
}
