//! A thousand connections offer several times what a node manages: the rest is turned away with 429 or 503 and a time to come
//! again, what was taken is there once, and ten seconds later everything is taken again. `OVERLOAD_CONNECTIONS` makes it larger.

use std::process::Command;

use acceptance::{beside, binary};

#[test]
fn a_rush_is_shed_and_what_was_taken_is_there() {
    let connections = std::env::var("OVERLOAD_CONNECTIONS").unwrap_or_else(|_| "1000".to_owned());
    let out = Command::new(beside("loadtest"))
        .args(["overload", "--series", "4000", "--samples", "90", "--batch", "200", "--seconds", "3"])
        .arg(format!("--rush-connections={connections}"))
        // A few dozen of them at once.
        .arg("--flag=--receive.max-inflight-bytes=1MiB")
        // A quick machine is through with what a thousand connections can have open in less than the usual time.
        .arg("--flag=--receive.inflight-wait=50ms")
        .arg(format!("--binary={}", binary().display()))
        .output()
        .expect("loadtest runs");
    let text = String::from_utf8_lossy(&out.stdout);
    println!("{text}");
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("acked: 0 lost, 0 twice, 0 wrong, 0 strange"), "{text}");
    assert!(text.contains("503: "), "nobody was turned away: {text}");
    assert!(!text.contains("BROKEN"), "{text}");
}
