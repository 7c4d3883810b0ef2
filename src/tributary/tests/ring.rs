//! `tributary ring` against a live node: what it shows, what it proposes, what is refused and with which words.

// From outside, files and processes are the real ones.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A receiver that votes alone; killed when dropped.
struct Receiver {
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Receiver {
    fn start(dir: &Path, port: u16) -> Receiver {
        Receiver::start_at_level(dir, port, 0)
    }

    /// One that speaks no feature level above `level`, as an older version would.
    fn start_at_level(dir: &Path, port: u16, level: u32) -> Receiver {
        Receiver::start_of(dir, port, level, &format!("127.0.0.1:{port}"))
    }

    /// One more, in no ring, of the cluster of this one.
    fn start_beside(&self, dir: &Path, port: u16, level: u32) -> Receiver {
        std::fs::copy(self.dir.join("ring.json"), dir.join("ring.json")).unwrap();
        Receiver::start_of(dir, port, level, &self.address)
    }

    fn start_of(dir: &Path, port: u16, level: u32, voters: &str) -> Receiver {
        let address = format!("127.0.0.1:{port}");
        let ring = dir.join("ring.json");
        if !ring.exists() {
            std::fs::write(&ring, format!("[{{\"endpoints\": [\"{address}\"]}}]")).unwrap();
        }
        let log = std::fs::File::create(dir.join("receive.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["receive", "--http-address=127.0.0.1:0", "--remote-write.address=127.0.0.1:0"])
            .arg(format!("--grpc-address={address}"))
            .arg(format!("--receive.local-endpoint={address}"))
            .arg(format!("--control.voters={voters}"))
            .arg(format!("--receive.hashrings-file={}", ring.display()))
            .arg(format!("--tsdb.path={}", dir.join("data").display()))
            .arg("--label=replica=\"a\"")
            .arg(format!("--control.max-feature-level={level}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Receiver { child, address, dir: dir.to_owned() }
    }

    /// Standard output of a command that has to succeed.
    fn ring(&self, args: &[&str]) -> String {
        let (ok, out, err) = self.said(args);
        assert!(ok, "{args:?}: {out}{err}\n{}", self.log());
        out
    }

    /// Standard error of a command that has to fail.
    fn refused(&self, args: &[&str]) -> String {
        let (ok, out, err) = self.said(args);
        assert!(!ok, "{args:?}: {out}");
        err
    }

    fn said(&self, args: &[&str]) -> (bool, String, String) {
        let (name, rest) = args.split_first().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["ring", name, &format!("--control.voters={}", self.address)])
            .args(rest)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("receive.log")).unwrap_or_default()
    }

    /// Waits for a word in what `ring show` says.
    fn until(&self, words: &str) -> String {
        let begin = Instant::now();
        loop {
            let (_, out, err) = self.said(&["show"]);
            if out.contains(words) {
                return out;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no {words:?} in\n{out}{err}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn an_operator_sees_proposes_is_refused_and_takes_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Receiver::start(dir.path(), testkit::free_port());
    let shown = node.until("epoch 1: stable, 1 members");
    assert!(shown.contains(&format!("{} (leads)", node.address)), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&node.ring(&["show", "-o", "json"])).unwrap();
    assert_eq!((json["progress"]["epoch"].as_u64(), json["under_way"].as_bool()), (Some(1), Some(false)));
    assert_eq!(json["nodes"][0]["address"], node.address.as_str());

    // A member that is not there yet is waited for, and the change can be taken back.
    let other = "127.0.0.1:1";
    assert!(node.ring(&["add", other]).contains("joint epoch will be 2"));
    node.until("waits for 127.0.0.1:1 to be ready");
    assert!(node.ring(&["abort", "--by", "a mistake"]).contains("taken back"));
    node.until("epoch 1: stable");

    // What would lose data is refused with the way that works.
    let refused = node.refused(&["drain", &node.address]);
    assert!(refused.contains("endpoints"), "{refused}");
    let refused = node.refused(&["retire", &node.address]);
    assert!(refused.contains("tributary ring drain"), "{refused}");
    assert!(node.refused(&["drain", other]).contains("is not in the ring"));
    let bad = dir.path().join("bad.json");
    std::fs::write(&bad, "[{\"endpoints\": []}]").unwrap();
    assert!(node.refused(&["set", bad.to_str().unwrap()]).contains("endpoints is empty"));

    // Limits are checked before they are agreed on.
    let limits = dir.path().join("limits.yaml");
    std::fs::write(&limits, "write: {defautl: {}}").unwrap();
    assert!(node.refused(&["limits", "--set", limits.to_str().unwrap()]).contains("defautl"));
    std::fs::write(&limits, "write: {default: {head_series_limit: 5}}").unwrap();
    node.ring(&["limits", "--set", limits.to_str().unwrap()]);
    assert!(node.ring(&["limits"]).contains("head_series_limit: 5"));

    // Force says what may be lost, and does nothing without a word.
    let ring = dir.path().join("ring.json");
    let said = node.ring(&["force", ring.to_str().unwrap(), "--lost", other]);
    assert!(said.contains("--accept-loss"), "{said}");
    assert!(node.ring(&["history"]).contains("stable: 127.0.0.1"));
    let backup = dir.path().join("backup.json");
    node.ring(&["backup", backup.to_str().unwrap()]);
    assert!(node.refused(&["restore", backup.to_str().unwrap()]).contains("only where they know of none"));
    assert_eq!(node.ring(&["show", "--file"]), std::fs::read_to_string(&ring).unwrap());
}

/// A copy that is older than what a node has promised is not brought back by mistake, and where it is meant, writes go on.
#[test]
fn a_copy_from_before_the_last_ring_is_refused_unless_it_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let port = testkit::free_port();
    let node = Receiver::start(dir.path(), port);
    node.until("epoch 1: stable, 1 members");
    let backup = dir.path().join("backup.json");
    let backup = backup.to_str().unwrap();
    node.ring(&["backup", backup]);
    let ring = dir.path().join("zone.json");
    std::fs::write(
        &ring,
        format!("[{{\"endpoints\": [{{\"address\": \"{}\", \"az\": \"z\"}}]}}]", node.address),
    )
    .unwrap();
    let said = node.ring(&["set", ring.to_str().unwrap(), "--watch"]);
    assert!(said.contains("epoch 3: stable"), "{said}");
    node.until("epoch 3: stable");
    let begin = Instant::now();
    while !node.log().contains("any more\" epoch=3") {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", node.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(node);
    std::fs::remove_dir_all(dir.path().join("data/catalog")).unwrap();
    let node = Receiver::start(dir.path(), port);
    let begin = Instant::now();
    let refused = loop {
        let (ok, out, err) = node.said(&["restore", backup]);
        assert!(!ok, "{out}");
        if err.contains("has heard of epoch 3, and this copy ends with epoch 1") {
            break err;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{err}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(refused.contains("--accept-loss"), "{refused}");
    assert!(node.ring(&["restore", backup, "--accept-loss"]).contains("in an epoch after 3"));
    let shown = node.until("epoch 4: stable");
    node.until("yes           0.1.0     member\n");
    assert!(shown.contains("feature level"), "{shown}");
}

#[test]
fn a_version_more_and_one_back_again() {
    let (dir, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = testkit::free_port();
    let older = Receiver::start_at_level(dir.path(), port, 1);
    older.until("feature level 1");
    let gone = older.start_beside(aside.path(), testkit::free_port(), 1);
    older.until(&gone.address);
    assert!(older.refused(&["forget", &older.address]).contains("answers, and would register again"));
    let old = gone.address.clone();
    drop((older, gone));
    // An old one that is gone for good holds the level back until somebody says that it is.
    let newer = Receiver::start(dir.path(), port);
    newer.until(&format!("held at level 1 by {old}"));
    assert!(newer.ring(&["forget", "127.0.0.1:1"]).contains("was not known"));
    assert!(newer.ring(&["forget", &old]).contains("holds the feature level back no more"));
    newer.until("feature level 2");
    assert!(newer.ring(&["forget", &old]).contains("does not hold"));
    drop(newer);
    // What the newer version has put into the log is understood by the one before.
    let older = Receiver::start_at_level(dir.path(), port, 1);
    older.until("epoch 1: stable, 1 members");
    older.until("feature level 2");
}

#[test]
fn an_edit_of_the_ring_file_is_proposed_and_a_bad_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Receiver::start(dir.path(), testkit::free_port());
    node.until("epoch 1: stable");
    let ring = dir.path().join("ring.json");
    let said = |words: &str| {
        let begin = Instant::now();
        while !node.log().contains(words) {
            assert!(begin.elapsed() < Duration::from_secs(60), "no {words:?} in\n{}", node.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    std::fs::write(&ring, format!("[{{\"endpoints\": [\"{}\", \"127.0.0.1:1\"]}}]", node.address)).unwrap();
    said("the ring file was edited, and the edit is proposed");
    node.until("waits for 127.0.0.1:1 to be ready");
    // Put back: taken back.
    std::fs::write(&ring, format!("[{{\"endpoints\": [\"{}\"]}}]", node.address)).unwrap();
    node.until("epoch 1: stable");
}

#[test]
fn help_says_what_each_command_is_for() {
    let output = Command::new(env!("CARGO_BIN_EXE_tributary")).args(["ring", "--help"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for command in [
        "show", "set", "add", "drain", "retire", "force", "abort", "history", "forget", "limits", "backup",
        "restore",
    ] {
        assert!(text.contains(&format!("  {command} ")), "{command} is not in\n{text}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tributary")).args(["ring", "show"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--control.voters is needed"));
}
