//! Servers under test: started on loopback, measured from /proc, stopped by process id.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http::Client;

/// A running server and where it answers.
pub struct Server {
    pub name: String,
    child: Child,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu: f64,
    /// Anonymous and shared memory in bytes: what the process itself holds.
    pub anon: u64,
    /// Mapped files in bytes.
    pub file: u64,
    /// Bytes handed to the disk.
    pub written: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.anon += other.anon;
        self.file += other.file;
        self.written += other.written;
    }
}

impl Server {
    /// Starts `program` with its output in `log`.
    pub fn start(name: &str, program: &Path, args: &[String], log: &Path) -> Result<Server> {
        let out = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Server { name: name.to_owned(), child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn usage(&self) -> Result<Usage> {
        usage(self.pid())
    }

    /// Waits until `path` answers 200, and says how long that took.
    pub async fn wait_ready(&mut self, url: &str, path: &str, within: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let mut client = Client::new(url)?.with_timeout(Duration::from_secs(2));
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready; its log says why", self.name);
            }
            if let Ok((200, _)) = client.get(path).await {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > within {
                bail!("{} was not ready at {url}{path} within {within:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end; SIGKILL after `within`.
    pub fn stop(mut self, within: Duration) -> Result<Duration> {
        let begin = Instant::now();
        Command::new("kill").arg(self.pid().to_string()).status()?;
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > within {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{} did not stop within {within:?} of SIGTERM", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(begin.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended in the ordinary case; a test that fails must not leave a server behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Confines a process, its threads and what they start to a core.
pub fn run_on(pid: u32, core: usize) -> Result<()> {
    let args = ["-a", "-p", "-c", &core.to_string(), &pid.to_string()];
    let out = Command::new("taskset").args(args).output().context("taskset, which --apart needs")?;
    if !out.status.success() {
        bail!("cannot confine process {pid} to core {core}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// CPU and memory of a process, from /proc.
pub fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("malformed /proc/pid/stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ is 100 on every Linux that this runs on.
    let mut out = Usage { cpu: ticks / 100.0, ..Usage::default() };
    for line in fs::read_to_string(format!("/proc/{pid}/status"))?.lines() {
        let mut words = line.split_whitespace();
        let (key, value) = (words.next().unwrap_or(""), words.next().unwrap_or("0"));
        match key {
            "RssAnon:" | "RssShmem:" => out.anon += value.parse::<u64>()? * 1024,
            "RssFile:" => out.file += value.parse::<u64>()? * 1024,
            _ => {}
        }
    }
    for line in fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default().lines() {
        if let Some(bytes) = line.strip_prefix("write_bytes: ") {
            out.written = bytes.trim().parse()?;
        }
    }
    Ok(out)
}

fn status_bytes(pid: u32, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        text.lines().find_map(|l| l.strip_prefix(key)).with_context(|| format!("no {key} in status"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Resident memory of a process now.
pub fn rss(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most resident memory since `reset_peak_rss`.
pub fn peak_rss(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Makes the kernel forget the highest resident memory so far.
pub fn reset_peak_rss(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of resident memory")
}

/// The most anonymous memory that a process was seen to hold while it is watched, polled ten times a second.
pub struct Watch {
    task: tokio::task::JoinHandle<()>,
    peak: Arc<AtomicU64>,
}

impl Watch {
    pub fn start(pids: Vec<u32>) -> Watch {
        let peak = Arc::new(AtomicU64::new(0));
        let seen = peak.clone();
        let task = tokio::spawn(async move {
            loop {
                let now: u64 = pids.iter().filter_map(|&pid| usage(pid).ok()).map(|u| u.anon).sum();
                seen.fetch_max(now, Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Watch { task, peak }
    }

    pub fn stop(self) -> u64 {
        self.peak.load(Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A loopback port that was free a moment ago, from below those that the system gives to whoever connects: one of these
/// may be taken again before the server that it is for has it.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7919);
    (0..10_000)
        .map(|_| 10_000 + (begin.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 20_000) as u16)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port")
}

/// Bytes of all files below a folder.
pub fn folder_size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// All folders below `path` (itself included) with this property.
pub fn folders_where(path: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut out = Vec::new();
    if wanted(path) {
        out.push(path.to_owned());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            out.extend(folders_where(&entry.path(), wanted));
        }
    }
    out
}

/// Bytes of the files in all folders called `wal`, without the zeros at their ends: segments may be allocated
/// before they are written.
pub fn wal_size(data: &Path) -> u64 {
    let mut sum = 0;
    for folder in folders_where(data, &|path| path.file_name().is_some_and(|name| name == "wal")) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                sum += written_len(&entry.path()).unwrap_or(0);
            }
        }
    }
    sum
}

/// Length of a file up to its last byte that is not zero.
fn written_len(path: &Path) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).open(path)?;
    let mut end = file.metadata()?.len();
    let mut piece = vec![0; 1 << 20];
    while end > 0 {
        let from = end.saturating_sub(piece.len() as u64);
        let part = &mut piece[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = part.iter().rposition(|&b| b != 0) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// Payload bytes that went, in both directions, over the connections open to these local ports; none where `ss`,
/// which knows, is not installed.
pub fn bytes_over(ports: &[u16]) -> Option<u64> {
    let mut sum = 0;
    for port in ports {
        let out = Command::new("ss").args(["-tinH", &format!("dport = :{port}")]).output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout);
        sum += text
            .split_whitespace()
            .filter_map(|word| {
                word.strip_prefix("bytes_sent:").or_else(|| word.strip_prefix("bytes_received:"))
            })
            .filter_map(|bytes| bytes.parse::<u64>().ok())
            .sum::<u64>();
    }
    Some(sum)
}
