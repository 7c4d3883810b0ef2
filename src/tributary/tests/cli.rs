//! The command line from outside: help of every role, and mistakes answered with what would be right.

// From outside, files are the real ones.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn tributary(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tributary")).args(args).output();
    output.unwrap_or_else(|e| panic!("run tributary {args:?}: {e}"))
}

/// Exit code, standard output, standard error.
fn said(args: &[&str]) -> (Option<i32>, String, String) {
    let output = tributary(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The roles that `--help` lists, what operators run by hand aside.
fn roles() -> Vec<String> {
    let (code, help, _) = said(&["--help"]);
    assert_eq!(code, Some(0));
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names = commands.filter(|l| !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next());
    names.filter(|name| !["tools", "ring"].contains(name)).map(str::to_owned).collect()
}

struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> TempFile {
        let path = std::env::temp_dir().join(format!("tributary-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        TempFile(path)
    }

    fn flag(&self) -> String {
        format!("--config.file={}", self.0.display())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // The system's temporary folder is cleaned by the system where this fails.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_role_has_help_with_defaults() {
    let roles = roles();
    assert!(roles.iter().any(|role| role == "standalone"), "{roles:?}");
    for role in &roles {
        let (code, help, _) = said(&[role, "--help"]);
        assert_eq!(code, Some(0), "{role}");
        for part in ["--config.file <PATH>", "--log.level <LEVEL>", "[default: logfmt]", "Logging:"] {
            assert!(help.contains(part), "{role}: {part} is not in\n{help}");
        }
    }
}

#[test]
fn unknown_flags_meet_the_nearest() {
    for role in roles() {
        let (code, _, err) = said(&[&role, "--http-adress=:1"]);
        assert_eq!(code, Some(2), "{role}");
        assert!(err.contains("--http-address"), "{role}: {err}");
        let (code, _, err) = said(&[&role, "--http-address=1"]);
        assert_eq!(code, Some(2), "{role}");
        assert!(err.starts_with("error: --http-address: \"1\" is not an address"), "{role}: {err}");
    }
}

#[test]
fn broken_files_are_named_with_their_line() {
    let unknown = TempFile::new("unknown.yaml", "log.level: info\n\nhttp-adress: ':1'\n");
    let broken = TempFile::new("broken.yaml", "log.level: info\nlog.format: [\n");
    for role in roles() {
        let (code, _, err) = said(&[&role, &unknown.flag()]);
        assert_eq!(code, Some(2), "{role}");
        assert!(
            err.contains("line 3: unknown setting \"http-adress\"; did you mean \"http-address\"?"),
            "{role}: {err}"
        );
        let (code, _, err) = said(&[&role, &broken.flag()]);
        assert_eq!(code, Some(2), "{role}");
        assert!(err.contains("broken.yaml line "), "{role}: {err}");
        let (code, _, err) = said(&[&role, "--config.file=/no/such/file.yaml"]);
        assert_eq!(code, Some(2), "{role}");
        assert!(err.contains("cannot read --config.file /no/such/file.yaml"), "{role}: {err}");
    }
}

#[test]
fn no_command_shows_the_commands() {
    let (code, _, err) = said(&[]);
    assert_eq!(code, Some(2));
    assert!(err.contains("standalone"), "{err}");
    let (code, version, _) = said(&["--version"]);
    assert_eq!(code, Some(0));
    assert!(version.starts_with(concat!("tributary ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn a_bucket_is_needed_and_must_be_readable() {
    let (code, _, err) = said(&["tools", "bucket", "ls"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("--objstore.config-file"), "{err}");
    let (code, _, err) = said(&["tools", "bucket", "inspect", "--objstore.config=type: S4"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("S4"), "{err}");
    let (code, _, err) = said(&["tools", "bucket", "ls", "--output=x"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("ids, wide or json"), "{err}");
}

#[test]
fn an_empty_bucket_is_empty() {
    let dir = std::env::temp_dir().join(format!("tributary-bucket-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    let bucket =
        format!("--objstore.config={{type: FILESYSTEM, config: {{directory: '{}'}}}}", dir.display());
    let (code, out, err) = said(&["tools", "bucket", "ls", &bucket]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    let (code, out, err) = said(&["tools", "bucket", "inspect", "-o", "csv", &bucket]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("ULID,FROM,UNTIL"), "{out}");
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn promqltest_runs_scripts_and_shows_failures() {
    let good = TempFile::new(
        "good.test",
        "load 1m\n  m 1 2 {{count:3 sum:4 buckets:[1 2]}}\n\neval instant at 1m m\n  m 2\n",
    );
    let bad = TempFile::new(
        "bad.test",
        "load 1m\n  m 1\n\neval instant at 0 m\n  m 2\n\neval instant at 0 m\n  m 1\n",
    );
    let broken = TempFile::new("broken.test", "nonsense\n");
    let [good, bad, broken] = [&good, &bad, &broken].map(|file| file.0.display().to_string());
    let (code, out, err) = said(&["tools", "promqltest", &good]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), format!("{good}: 1 passed, 0 failed\n").as_str(), "")
    );
    let (code, out, _) = said(&["tools", "promqltest", "-v", &good, &bad]);
    assert_eq!(code, Some(1));
    for part in
        ["bad.test: 1 passed, 1 failed", "bad.test:4: m\n", "wanted 2, got", "2 files: 2 passed, 1 failed"]
    {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    let (code, _, err) = said(&["tools", "promqltest", &broken, "/nowhere/at/all.test"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("invalid command \"nonsense\"") && err.contains("cannot read /nowhere"), "{err}");
}
