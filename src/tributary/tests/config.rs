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
        let known = name
            .strip_suffix(".yaml")
            .is_some_and(|stem| roles.iter().any(|role| role == stem) || stem.starts_with("bucket-"));
        assert!(known, "config/{name} belongs to no role: delete it, or name it bucket-*.yaml");
    }
}
