//! The binary: chooses a role, gives it a world, runs it and lets it drain.

mod boot;
mod cli;
mod ring;
mod roles;
mod standalone;
mod tools;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
