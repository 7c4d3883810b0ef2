//! A network of its own for a cluster: every process in a namespace with one address, a router between them that can swallow
//! what goes from one to another, and nothing of it on the machine once the run is over.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Set in the process that runs inside.
const INSIDE: &str = "LOADTEST_INSIDE";
const NAMES: &str = "/run/netns";

/// Starts this program anew, with the same arguments, where it may make networks, unless it is there already. Says SKIPPED where
/// that is not permitted.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let alone = ["--net", "--mount", "--propagation=private"];
    let as_root = [&alone[..], &["--map-root-user"]].concat();
    let may = |flags: &[&str]| {
        let try_it = "mount -t tmpfs none /run && mkdir /run/netns && ip netns add a && ip link add place0 type veth peer name eth0 netns a";
        Command::new("unshare").args(flags).args(["sh", "-c", try_it]).output()
    };
    let mut why = String::new();
    for flags in [&alone[..], &as_root] {
        match may(flags) {
            Ok(out) if out.status.success() => {
                let program = std::env::current_exe()?;
                let mut again = Command::new("unshare");
                again.args(flags).arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
                // Comes back only where it fails.
                return Err(again.exec()).context("unshare");
            }
            Ok(out) => why = String::from_utf8_lossy(&out.stderr).trim().to_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    bail!("SKIPPED: no network namespaces can be made here: {why}")
}

/// Namespaces, in the order in which they were made, and what is cut between them.
pub struct Net {
    places: Vec<String>,
    /// Rules of the router, as they were added.
    cuts: Vec<Vec<String>>,
}

impl Net {
    /// After [`enter`]. This process stands at the router and reaches everybody, whatever is cut.
    pub fn new() -> Result<Net> {
        if std::env::var_os(INSIDE).is_none() {
            bail!("not in a network of its own");
        }
        run("mount", &["-t", "tmpfs", "none", "/run"])?;
        std::fs::create_dir_all(NAMES)?;
        run("ip", &["link", "set", "lo", "up"])?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward between namespaces")?;
        Ok(Net { places: Vec::new(), cuts: Vec::new() })
    }

    /// A namespace more, and its address.
    pub fn place(&mut self, name: &str) -> Result<Ipv4Addr> {
        let at = self.places.len();
        self.places.push(name.to_owned());
        let (address, here, gate) = (address(at), link(at), Ipv4Addr::new(10, 77, 0, 1).to_string());
        run("ip", &["netns", "add", name])?;
        run("ip", &["link", "add", &here, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        self.wire(at)?;
        let inside = |args: &[&str]| {
            let namespace = format!("--net={NAMES}/{name}");
            run("nsenter", &[&[namespace.as_str(), "ip"], args].concat())
        };
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["address", "add", &format!("{address}/32"), "dev", "eth0"])?;
        inside(&["route", "add", &gate, "dev", "eth0"])?;
        inside(&["route", "add", "default", "via", &gate])?;
        Ok(address)
    }

    /// Brings up the router's end of a link.
    fn wire(&self, at: usize) -> Result<()> {
        let here = link(at);
        run("ip", &["link", "set", &here, "up"])?;
        run("ip", &["address", "replace", "10.77.0.1/32", "dev", &here])?;
        run("ip", &["route", "replace", &format!("{}/32", address(at)), "dev", &here])
    }

    /// The command under which a program runs in this namespace, with the same process id.
    pub fn inside(&self, name: &str) -> Option<Vec<String>> {
        self.places.iter().any(|place| place == name).then(|| {
            let words = ["nsenter", &format!("--net={NAMES}/{name}"), "--"];
            words.map(str::to_owned).to_vec()
        })
    }

    fn at(&self, name: &str) -> Result<usize> {
        self.places.iter().position(|place| place == name).with_context(|| format!("no place {name}"))
    }

    /// From now on nothing goes from any of these to any of those: it is swallowed, and nobody is told.
    pub fn swallow(&mut self, from: &[&str], to: &[&str]) -> Result<()> {
        for from in from {
            for to in to {
                let (from, to) = (self.at(from)?, self.at(to)?);
                let rule = ["iif", &link(from), "to", &address(to).to_string(), "blackhole"];
                run("ip", &[&["rule", "add"], &rule[..]].concat())?;
                self.cuts.push(rule.map(str::to_owned).to_vec());
            }
        }
        Ok(())
    }

    /// From now on nothing goes between these and those, in either direction.
    pub fn part(&mut self, these: &[&str], those: &[&str]) -> Result<()> {
        self.swallow(these, those)?;
        self.swallow(those, these)
    }

    /// All but these.
    pub fn others(&self, these: &[&str]) -> Vec<String> {
        self.places.iter().filter(|place| !these.contains(&place.as_str())).cloned().collect()
    }

    /// Takes the cable out: whoever sends there is told that there is no way.
    pub fn unplug(&self, name: &str) -> Result<()> {
        run("ip", &["link", "set", &link(self.at(name)?), "down"])
    }

    pub fn plug(&self, name: &str) -> Result<()> {
        self.wire(self.at(name)?)
    }

    /// Nothing is swallowed any more.
    pub fn heal(&mut self) -> Result<()> {
        for rule in self.cuts.drain(..) {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            run("ip", &[&["rule", "del"], &rule[..]].concat())?;
        }
        Ok(())
    }
}

fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, at as u8 + 1)
}

fn link(at: usize) -> String {
    format!("place{at}")
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let out = Command::new(program).args(args).output().with_context(|| format!("start {program}"))?;
    if !out.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
