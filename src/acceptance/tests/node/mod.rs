//! A single node with a hundred minutes of data.
#![allow(dead_code)] // Each test file uses its own part of this.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Program, Running, beside};

pub struct Node {
    pub running: Running,
    pub url: String,
    /// The time of its newest data, in seconds.
    pub now: i64,
    /// Where it keeps them.
    pub dir: tempfile::TempDir,
}

pub fn node() -> Node {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (program, url) = Program::standalone(dir.path());
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_secs() as i64;
    let fed = Command::new(beside("loadtest"))
        .args(["demo", "--minutes", "100", "--end", &now.to_string()])
        .arg(format!("{url}/api/v1/write"))
        .output()
        .expect("loadtest runs");
    assert!(fed.status.success(), "{}", String::from_utf8_lossy(&fed.stderr));
    Node { running, url, now, dir }
}
