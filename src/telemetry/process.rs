//! The `process_*` metrics that Prometheus users expect, read from `/proc` when the page is rendered.
//!
//! Where there is no `/proc` they are absent. This reads files by itself: the kernel's tables are no part of
//! the disk that a simulation owns.

use std::fs;

use metrics::gauge;

/// The kernel shows times in units of 1/100 s on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn update() {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if let Some(stat) = parse_stat(&text("/proc/self/stat")) {
        // The metrics crate's counters are whole numbers: a gauge keeps the hundredths.
        gauge!("process_cpu_seconds_total").set(stat.cpu_seconds);
        gauge!("process_threads").set(stat.threads);
        if let Some(boot) = boot_time(&text("/proc/stat")) {
            gauge!("process_start_time_seconds").set(boot + stat.started_after_boot);
        }
    }
    let status = text("/proc/self/status");
    for (name, key) in
        [("process_resident_memory_bytes", "VmRSS:"), ("process_virtual_memory_bytes", "VmSize:")]
    {
        if let Some(bytes) = status_bytes(&status, key) {
            gauge!(name).set(bytes);
        }
    }
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        // The listing itself holds one.
        gauge!("process_open_fds").set(fds.count().saturating_sub(1) as f64);
    }
    if let Some(max) = max_fds(&text("/proc/self/limits")) {
        gauge!("process_max_fds").set(max);
    }
}

/// Bytes of memory that the process holds and the system cannot take back; none where nobody says.
pub fn memory_used() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let anonymous = status_bytes(&status, "RssAnon:")?;
    Some((anonymous + status_bytes(&status, "RssShmem:").unwrap_or(0.0)) as u64)
}

/// Bytes of memory that the process may use: its container's limit, else what the machine has.
pub fn memory_limit() -> Option<u64> {
    let text = |path: &str| fs::read_to_string(path).ok();
    let own =
        text("/sys/fs/cgroup/memory.max").or_else(|| text("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let own = own.and_then(|text| text.trim().parse::<u64>().ok());
    let machine = text("/proc/meminfo").and_then(|text| status_bytes(&text, "MemTotal:")).map(|n| n as u64);
    // Without a limit the older kind shows a number beyond all memory.
    own.into_iter().chain(machine).min()
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_after_boot: f64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |nth: usize| fields.get(nth - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
        threads: field(20)?,
        started_after_boot: field(22)? / TICKS_PER_SECOND,
    })
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn status_bytes(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn max_fds(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 8 18 12345 20\n";
        assert_eq!(
            parse_stat(stat),
            Some(Stat { cpu_seconds: 3.0, threads: 8.0, started_after_boot: 123.45 })
        );
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat(""), None);
        assert_eq!(boot_time("cpu 1\nbtime 100\n"), Some(100.0));
        assert_eq!(status_bytes("VmSize:\t 8 kB\nVmRSS:\t 2 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!(
            max_fds("Max open files            1024                 4096                 files"),
            Some(1024.0)
        );
    }
}
