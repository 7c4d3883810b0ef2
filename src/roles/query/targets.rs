//! Where endpoints are said to be: addresses, names to look up, and the files that list them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

/// What one configured text means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `host:port`, connected to as it is.
    Fixed(String),
    /// `dns+host:port`: every address of the host.
    Addresses { host: String, port: u16 },
    /// `dnssrv+name`: the SRV records, and every address of each target.
    ServiceAddresses(String),
    /// `dnssrvnoa+name`: the SRV records' targets as they are.
    Service(String),
}

impl Target {
    /// Reads a text as `--endpoint` takes it.
    pub fn parse(text: &str) -> Result<Target, String> {
        let (scheme, rest) = match text.split_once('+') {
            Some((scheme, rest)) if !scheme.contains([':', '.']) => (scheme, rest),
            _ => ("", text),
        };
        match scheme {
            "" => host_and_port(rest).map(|_| Target::Fixed(rest.to_owned())),
            "dns" | "dnsdualstack" => {
                let (host, port) = host_and_port(rest)?;
                Ok(Target::Addresses { host: host.to_owned(), port })
            }
            "dnssrv" | "dnssrvnoa" if rest.is_empty() => Err("the name is missing".to_owned()),
            "dnssrv" => Ok(Target::ServiceAddresses(rest.to_owned())),
            "dnssrvnoa" => Ok(Target::Service(rest.to_owned())),
            other => Err(format!("{other}+ is unknown; there are dns+, dnssrv+ and dnssrvnoa+")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Fixed(address) => f.write_str(address),
            Target::Addresses { host, port } => write!(f, "dns+{host}:{port}"),
            Target::ServiceAddresses(name) => write!(f, "dnssrv+{name}"),
            Target::Service(name) => write!(f, "dnssrvnoa+{name}"),
        }
    }
}

fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    if text.contains("://") {
        return Err("is a URL; give host:port".to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or("has no port; give host:port")?;
    let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || bare_v6 || host.contains(['/', ' ']) {
        return Err(format!("{host:?} is not a host"));
    }
    Ok((host, port))
}

/// A target, and whether every answer needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub target: Target,
    pub strict: bool,
}

/// Reads a file of file discovery: `[{"targets": ["host:port"], "labels": {}}]`, JSON or YAML.
pub fn read_sd_file(text: &str) -> Result<BTreeSet<Wanted>, String> {
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        targets: Vec<String>,
    }
    let groups: Vec<Group> = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let texts = groups.into_iter().flat_map(|group| group.targets);
    texts.map(|text| wanted(&text, false)).collect()
}

/// Reads Thanos's `--endpoint.sd-config-file`. Keys without a meaning here (TLS, groups) are refused, not
/// ignored, where ignoring them would connect differently from what was asked.
pub fn read_sd_config(text: &str) -> Result<BTreeSet<Wanted>, String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        endpoints: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        address: String,
        #[serde(default)]
        strict: bool,
        #[serde(default)]
        group: bool,
    }
    let config: Config = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let read = |entry: Entry| match entry.group {
        true => Err(format!("{:?}: endpoint groups are not supported by this version", entry.address)),
        false => wanted(&entry.address, entry.strict),
    };
    config.endpoints.into_iter().map(read).collect()
}

fn wanted(text: &str, strict: bool) -> Result<Wanted, String> {
    let target = Target::parse(text).map_err(|why| format!("{text:?}: {why}"))?;
    if strict && !matches!(target, Target::Fixed(_)) {
        return Err(format!("{text:?}: a strict endpoint is a fixed host:port, no name to look up"));
    }
    Ok(Wanted { target, strict })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let fixed = |text: &str| Ok(Target::Fixed(text.to_owned()));
        assert_eq!(Target::parse("receive-0:10901"), fixed("receive-0:10901"));
        assert_eq!(Target::parse("[::1]:10901"), fixed("[::1]:10901"));
        assert_eq!(
            Target::parse("dns+receive.svc:10901"),
            Ok(Target::Addresses { host: "receive.svc".into(), port: 10901 })
        );
        for text in ["dns+a:1", "dnssrv+_grpc._tcp.a", "dnssrvnoa+_grpc._tcp.a", "a:1"] {
            assert_eq!(Target::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "a", "a:b", ":1", "dns+a", "dnssrv+", "etcd+a:1", "http://a:1", "::1:1", "a:70000"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files() {
        let json = r#"[{"targets": ["a:1", "dns+b:2"], "labels": {"x": "y"}}]"#;
        assert_eq!(read_sd_file(json).unwrap().len(), 2);
        assert_eq!(read_sd_file("- targets: ['a:1']\n- targets: ['a:1']\n").unwrap().len(), 1);
        assert!(read_sd_file("- targets: ['a']").unwrap_err().contains("has no port"));
        assert!(read_sd_file("{").is_err());
        let yaml = "endpoints:\n  - address: a:1\n    strict: true\n  - address: dnssrv+b\n";
        assert_eq!(read_sd_config(yaml).unwrap().iter().filter(|w| w.strict).count(), 1);
        assert!(read_sd_config("endpoints: [{address: dns+a:1, strict: true}]").is_err());
        assert!(read_sd_config("endpoints: [{address: 'a:1', group: true}]").is_err());
    }
}
