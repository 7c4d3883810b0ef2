//! Programs under test and their peers.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::free_port;

use crate::cluster::write;
use crate::http::get;

/// What to start.
pub struct Program {
    pub name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub log: PathBuf,
}

impl Program {
    /// A single node with its data and its log under `dir`, and the URL at which it will be.
    pub fn standalone(dir: &Path) -> (Program, String) {
        let (http, grpc) = (free_port(), free_port());
        let program = Program {
            name: "standalone".to_owned(),
            path: binary(),
            args: vec![
                "standalone".to_owned(),
                format!("--data-dir={}", dir.join("data").display()),
                format!("--http-address=127.0.0.1:{http}"),
                format!("--grpc-address=127.0.0.1:{grpc}"),
            ],
            log: dir.join("log"),
        };
        (program, format!("http://127.0.0.1:{http}"))
    }

    /// A Prometheus with its configuration, data and log under `dir`, and the URL at which it will be. `OWN_ADDRESS` in the
    /// configuration stands for that.
    pub fn prometheus(
        path: PathBuf,
        dir: &Path,
        name: &str,
        config: &str,
        flags: &[&str],
    ) -> (Program, String) {
        let address = format!("127.0.0.1:{}", free_port());
        let file = dir.join(format!("{name}.yml"));
        write(&file, &config.replace("OWN_ADDRESS", &address));
        let mut args = vec![
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.join(name).display()),
            format!("--web.listen-address={address}"),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let log = dir.join(format!("{name}.log"));
        (Program { name: name.to_owned(), path, args, log }, format!("http://{address}"))
    }

    /// A node_exporter, and where it will be scraped.
    pub fn node_exporter(path: PathBuf, dir: &Path) -> (Program, String) {
        let address = format!("127.0.0.1:{}", free_port());
        let args = vec![format!("--web.listen-address={address}")];
        let log = dir.join("node_exporter.log");
        (Program { name: "node_exporter".to_owned(), path, args, log }, address)
    }
}

/// A started program; killed when dropped.
pub struct Running {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Program {
    pub fn start(&self) -> Running {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", self.log.display()));
        let both = log.try_clone().unwrap_or_else(|e| panic!("clone the log's handle: {e}"));
        let child =
            Command::new(&self.path).args(&self.args).stdin(Stdio::null()).stdout(both).stderr(log).spawn();
        let child = child.unwrap_or_else(|e| panic!("start {}: {e}", self.path.display()));
        Running { name: self.name.clone(), log: self.log.clone(), child }
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `url` answers 200; panics with the end of the log where it does not.
    pub fn wait_ready(&mut self, url: &str) {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status}:\n{}", self.name, self.tail());
            }
            if get(url).is_ok_and(|a| a.status == 200) {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{} is not ready at {url}:\n{}",
                self.name,
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap_or_else(|e| panic!("kill {}: {e}", self.name));
        self.child.wait().unwrap_or_else(|e| panic!("wait for {}: {e}", self.name));
    }

    /// SIGTERM; panics where it does not end by itself with success.
    pub fn stop(mut self) {
        let sent = Command::new("kill").arg(self.pid().to_string()).status();
        assert!(sent.is_ok_and(|s| s.success()), "send SIGTERM to {}", self.name);
        let begin = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    assert!(
                        status.success(),
                        "{} ended with {status} on SIGTERM:\n{}",
                        self.name,
                        self.tail()
                    );
                    return;
                }
                _ if begin.elapsed() > Duration::from_secs(30) => {
                    panic!("{} ignores SIGTERM:\n{}", self.name, self.tail())
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already in the ordinary case; a failing test must leave no server behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `tributary` binary that Cargo built beside this test.
pub fn binary() -> PathBuf {
    beside("tributary")
}

/// A binary of this workspace that Cargo built beside this test.
pub fn beside(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let path = exe.parent().and_then(Path::parent).map(|dir| dir.join(name)).unwrap_or_default();
    assert!(path.exists(), "{} is missing; run `cargo build --workspace --bins` first", path.display());
    path
}

/// A program on the PATH; says so and gives none where it is not installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed; `.ci/setup` installs what the tests use");
    }
    found
}

/// Polls until nothing differs any more; panics with what did after a quarter of a minute.
pub fn wait_agreed(what: &str, mut difference: impl FnMut() -> Option<String>) {
    let begin = Instant::now();
    while let Some(difference) = difference() {
        assert!(begin.elapsed() < Duration::from_secs(15), "{what}: {difference}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Polls until `done` gives a value; panics with `what` after a minute.
pub fn wait_until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
