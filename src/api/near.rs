//! The path that somebody who asked for a wrong one probably meant.

/// Words by which senders of other systems name the place for writes.
const WRITE_WORDS: [&str; 9] =
    ["remote_write", "remote-write", "remotewrite", "write", "receive", "push", "prom", "ingest", "prompush"];

/// Of `paths`, the one meant by `asked`, if one is clearly near.
pub fn suggest(asked: &str, paths: &[&'static str]) -> Option<&'static str> {
    let asked = asked.trim_end_matches('/').to_ascii_lowercase();
    let last = asked.rsplit('/').next().unwrap_or("");
    if last.is_empty() {
        return None;
    }
    // The same thing under another prefix, a slash too many, or another case.
    if let Some(path) = paths.iter().find(|p| asked.ends_with(*p) || p.ends_with(&format!("/{last}"))) {
        return Some(path);
    }
    if WRITE_WORDS.contains(&last)
        && let Some(path) = paths.iter().find(|p| p.ends_with("/receive"))
    {
        return Some(path);
    }
    let nearest = paths.iter().map(|p| (distance(last, p.rsplit('/').next().unwrap_or("")), p)).min()?;
    (nearest.0 <= 2 && nearest.0 * 2 < last.len()).then_some(*nearest.1)
}

/// Number of characters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // A path that long is no slip of the pen.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 5] =
        ["/metrics", "/-/ready", "/api/v1/receive", "/api/v1/query", "/api/v1/query_range"];

    #[test]
    fn near_misses_find_the_right_path() {
        for (asked, right) in [
            ("/api/v1/remote_write", Some("/api/v1/receive")),
            ("/api/prom/push", Some("/api/v1/receive")),
            ("/receive", Some("/api/v1/receive")),
            ("/api/v1/receive/", Some("/api/v1/receive")),
            ("/prometheus/api/v1/query_range", Some("/api/v1/query_range")),
            ("/api/v1/qurey", Some("/api/v1/query")),
            ("/ready", Some("/-/ready")),
            ("/metric", Some("/metrics")),
            ("/favicon.ico", None),
            ("/", None),
            ("/x", None),
        ] {
            assert_eq!(suggest(asked, &PATHS), right, "{asked}");
        }
        assert_eq!(suggest(&"/a".repeat(1000), &PATHS), None);
    }
}
