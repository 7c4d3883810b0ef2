//! Notes which compiler builds us, for the build information.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.ok().and_then(|out| String::from_utf8(out.stdout).ok());
    println!("cargo:rustc-env=TRIBUTARY_RUSTC={}", version.as_deref().unwrap_or("unknown").trim());
}
