//! The files in `config/` are what the settings say: same keys, same defaults, same help.
//!
//! To rewrite them after a setting has changed: `UPDATE_GOLDEN=1 cargo test -p tributary --test config`.

// From outside, files are the real ones.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;

fn tributary(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tributary")).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("run tributary {args:?}: {e}"));
    assert!(output.status.success(), "tributary {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap_or_else(|e| panic!("tributary {args:?}: {e}"))
}

/// Roles with settings: what `tools config` takes.
fn roles() -> Vec<String> {
    let help = tributary(&["tools", "config", "--help"]);
    let values = help.split("[possible values: ").nth(1).and_then(|rest| rest.split(']').next());
    let values = values.unwrap_or_else(|| panic!("no roles in\n{help}"));
    values.split(", ").map(|role| role.trim().to_owned()).collect()
}

#[test]
fn example_files_agree_with_the_settings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    for role in roles() {
        let path = folder.join(format!("{role}.yaml"));
        let right = tributary(&["tools", "config", &role]);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &right).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        }
        let found = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let differs = right.lines().zip(found.lines()).find(|(right, found)| right != found);
        assert!(
            right == found,
            "config/{role}.yaml differs from the settings of the role, first at {differs:?}; \
             UPDATE_GOLDEN=1 cargo test -p tributary --test config rewrites it"
        );
    }
}

#[test]
fn no_example_file_is_left_behind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let roles = roles();
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("list {}: {e}", folder.display()));
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let known = name.strip_suffix(".yaml").is_some_and(|stem| {
            roles.iter().any(|role| role == stem) || stem.starts_with("bucket-") || stem == "limits"
        });
        assert!(
            known,
            "config/{name} belongs to no role: delete it, or name it bucket-*.yaml or limits.yaml"
        );
    }
}

#[test]
fn example_files_are_read_as_they_stand_and_uncommented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let check = |role: &str, path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["tools", "config", role, "--check"])
            .arg(path)
            .output()
            .unwrap_or_else(|e| panic!("check {role}: {e}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    for role in roles() {
        let path = folder.join(format!("{role}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let uncommented: String = text
            .lines()
            .map(|line| if is_key(line) { format!("{}\n", &line[1..]) } else { format!("{line}\n") })
            .collect();
        let keys = uncommented.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
        assert!(keys > 10, "{role}: {uncommented}");
        let copy = std::env::temp_dir().join(format!("tributary-{role}-{}.yaml", std::process::id()));
        std::fs::write(&copy, &uncommented).unwrap_or_else(|e| panic!("write {}: {e}", copy.display()));
        let (as_it_stands, of_file) = (check(&role, &path), check(&role, &copy));
        let _ = std::fs::remove_file(&copy);
        if role == "store" {
            // The one role that cannot run on defaults.
            for (_, _, err) in [as_it_stands, of_file] {
                assert_eq!(err, "error: --objstore.config-file or --objstore.config is required\n");
            }
            continue;
        }
        assert!(as_it_stands.0 && of_file.0, "{role}: {}{}", as_it_stands.2, of_file.2);
        // The same values, now from the file.
        let values = |text: &str| -> Vec<String> {
            text.lines().filter_map(|l| l.rsplit_once(" (")).map(|(value, _)| value.to_owned()).collect()
        };
        assert_eq!(values(&as_it_stands.1), values(&of_file.1), "{role}");
        assert!(of_file.1.contains(".yaml line "), "{role}: {}", of_file.1);
    }
}

#[test]
fn bucket_files_name_what_they_need_from_the_environment() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let ls = |file: &str, env: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["tools", "bucket", "ls", "--timeout=2s"])
            .arg(format!("--objstore.config-file={}", folder.join(file).display()))
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(std::env::temp_dir())
            .output()
            .unwrap_or_else(|e| panic!("ls: {e}"));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let err = ls("bucket-s3.yaml", &[]);
    assert!(err.contains("$(BUCKET_NAME)"), "{err}");
    // Whole, it is read; then there is nobody at that port.
    let err = ls(
        "bucket-s3.yaml",
        &[
            ("BUCKET_NAME", "b"),
            ("S3_ENDPOINT", "127.0.0.1:9"),
            ("S3_REGION", "r"),
            ("S3_ACCESS_KEY", "a"),
            ("S3_SECRET_KEY", "hunter2"),
        ],
    );
    assert!(err.contains("error: ") && !err.contains("configuration"), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
}
