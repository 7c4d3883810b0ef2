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
        default_client_config: Option<ClientConfig>,
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
        #[serde(default)]
        client_config: Option<ClientConfig>,
    }
    let config: Config = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    if let Some(client) = config.default_client_config {
        client.check("default_client_config")?;
    }
    let read = |entry: Entry| {
        if let Some(client) = entry.client_config {
            client.check(&format!("{:?}: client_config", entry.address))?;
        }
        match entry.group {
            true => Err(format!("{:?}: endpoint groups are not supported by this version", entry.address)),
            false => wanted(&entry.address, entry.strict),
        }
    };
    config.endpoints.into_iter().map(read).collect()
}

/// How Thanos is told to connect. Read only to find what cannot be done: connections here are plain.
#[derive(Deserialize)]
struct ClientConfig {
    #[serde(default)]
    tls_config: Option<TlsConfig>,
    #[serde(default)]
    server_name: Option<String>,
}

#[derive(Deserialize)]
struct TlsConfig {
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    insecure_skip_verify: Option<bool>,
    #[serde(default)]
    cert_file: Option<String>,
    #[serde(default)]
    key_file: Option<String>,
    #[serde(default)]
    ca_file: Option<String>,
    #[serde(default)]
    min_version: Option<String>,
}

impl ClientConfig {
    /// Refuses what asks for TLS, as Thanos understands it: the switch, and every key that implies it. Values
    /// that mean "no TLS" pass.
    fn check(&self, place: &str) -> Result<(), String> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        let tls = self.tls_config.as_ref();
        let keys = [
            ("tls_config.enabled", tls.is_some_and(|t| t.enabled == Some(true))),
            ("tls_config.insecure_skip_verify", tls.is_some_and(|t| t.insecure_skip_verify == Some(true))),
            ("tls_config.cert_file", tls.is_some_and(|t| given(&t.cert_file))),
            ("tls_config.key_file", tls.is_some_and(|t| given(&t.key_file))),
            ("tls_config.ca_file", tls.is_some_and(|t| given(&t.ca_file))),
            ("tls_config.min_version", tls.is_some_and(|t| given(&t.min_version))),
            ("server_name", given(&self.server_name)),
        ];
        match keys.into_iter().find(|(_, set)| *set) {
            None => Ok(()),
            Some((key, _)) => Err(format!(
                "{place}.{key} asks for TLS, which connections to endpoints do not have in this version; \
                 remove the key to connect without TLS, or put a proxy that speaks TLS beside this process \
                 and give its address"
            )),
        }
    }
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

    #[test]
    fn keys_that_ask_for_tls_are_refused_by_name() {
        for key in [
            "tls_config: {enabled: true}",
            "tls_config: {insecure_skip_verify: true}",
            "tls_config: {cert_file: a.pem}",
            "tls_config: {key_file: a.key}",
            "tls_config: {ca_file: ca.pem}",
            "tls_config: {min_version: TLS13}",
            "server_name: store",
        ] {
            let name = match key.split_once('{') {
                Some((_, inner)) => format!("tls_config.{}", inner.split(':').next().unwrap()),
                None => "server_name".to_owned(),
            };
            let default = format!("default_client_config: {{{key}}}\nendpoints: [{{address: 'a:1'}}]");
            let own = format!("endpoints: [{{address: 'a:1', client_config: {{{key}}}}}]");
            let anchored = format!(
                "default_client_config: &cc\n  {key}\nendpoints:\n- address: a:1\n  client_config: *cc\n"
            );
            let refused = read_sd_config(&default).unwrap_err();
            assert!(refused.starts_with(&format!("default_client_config.{name} asks for TLS")), "{refused}");
            assert!(refused.contains("remove the key"), "{refused}");
            let refused = read_sd_config(&own).unwrap_err();
            assert!(refused.starts_with(&format!("\"a:1\": client_config.{name} asks")), "{refused}");
            assert!(read_sd_config(&anchored).unwrap_err().contains(&format!("{name} asks for TLS")));
        }
        // What means "no TLS", and what changes nothing about the answers.
        let plain = "default_client_config:\n  tls_config: {enabled: false, ca_file: ''}\n  compression: snappy\n\
                     endpoints:\n- address: a:1\n  client_config:\n    tls_config:\n";
        assert_eq!(read_sd_config(plain).unwrap().len(), 1);
    }
}
