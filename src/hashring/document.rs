//! The ring file: Thanos's `hashrings.json`, read and checked, with the place of every mistake.
//!
//! An array of rings; the first whose tenants match takes the write. What is spelled wrong is refused here
//! and not at the first write: an unknown algorithm (Thanos would quietly place by hashmod), a pattern that
//! does not parse, an endpoint listed twice, zones under hashmod. Unknown keys are kept as warnings.

use std::collections::{BTreeMap, BTreeSet};

use model::Labels;
use serde::{Deserialize, Deserializer};

use crate::{Error, Glob};

/// How a ring places series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Consistent hashing: an added or removed endpoint moves only its own share. Understands zones.
    #[default]
    Ketama,
    /// Hash modulo number of endpoints: any change moves nearly everything. For migration only.
    Hashmod,
}

impl Algorithm {
    /// By the name used in files and flags.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        match name {
            "ketama" => Some(Algorithm::Ketama),
            "hashmod" => Some(Algorithm::Hashmod),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Ketama => "ketama",
            Algorithm::Hashmod => "hashmod",
        }
    }
}

/// A receiver as the ring names it. The spelling of `address` is the input of the placement: another
/// spelling of the same machine is another endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port` of the receiver's gRPC server.
    pub address: String,
    /// Where Thanos would speak Cap'n Proto; kept, not used.
    pub capnproto_address: String,
    /// Availability zone; empty if none is named.
    pub zone: String,
}

/// Whose writes a ring takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantMatch {
    /// Everybody's: the ring names no tenants.
    All,
    Exact(BTreeSet<String>),
    /// The names as literals too, because external labels go by literal name.
    Glob(Vec<Glob>),
}

impl TenantMatch {
    pub fn matches(&self, tenant: &str) -> bool {
        match self {
            TenantMatch::All => true,
            TenantMatch::Exact(names) => names.contains(tenant),
            TenantMatch::Glob(globs) => globs.iter().any(|g| g.as_str() == tenant || g.matches(tenant)),
        }
    }

    /// Whether `tenant` is listed letter by letter.
    pub fn lists(&self, tenant: &str) -> bool {
        match self {
            TenantMatch::All => false,
            TenantMatch::Exact(names) => names.contains(tenant),
            TenantMatch::Glob(globs) => globs.iter().any(|g| g.as_str() == tenant),
        }
    }
}

/// One ring of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSpec {
    /// For logs and metrics; may be empty.
    pub name: String,
    pub tenants: TenantMatch,
    /// In the order of the file, addresses unique, at least one.
    pub endpoints: Vec<Endpoint>,
    /// None: the process's default applies.
    pub algorithm: Option<Algorithm>,
    /// Laid under the receiver's own external labels for the tenants that the ring lists.
    pub external_labels: Labels,
    /// A subset of the endpoints per tenant; checked when rings are built.
    pub shuffle_sharding: Option<ShuffleSharding>,
}

/// Thanos's `shuffle_sharding_config`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ShuffleSharding {
    #[serde(default)]
    pub shard_size: i64,
    #[serde(default)]
    pub cache_size: i64,
    #[serde(default)]
    pub zone_awareness_disabled: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub overrides: Vec<ShuffleOverride>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ShuffleOverride {
    #[serde(default)]
    pub shard_size: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub tenants: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub tenant_matcher_type: String,
}

/// A whole ring file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub rings: Vec<RingSpec>,
    /// What is allowed but probably not meant, to be logged.
    pub warnings: Vec<String>,
}

impl Document {
    /// Reads and checks a ring file.
    pub fn parse(text: &str) -> Result<Document, Error> {
        let raw: Vec<Checked> = serde_json::from_str(text).map_err(Error::json)?;
        if raw.is_empty() {
            return Err(Error::new("the file lists no ring; it must be an array of at least one"));
        }
        let mut warnings = Vec::new();
        for (at, ring) in raw.iter().enumerate() {
            warnings.extend(
                ring.unknown.iter().map(|key| format!("ring [{at}]: unknown key {key:?} is ignored")),
            );
            if at + 1 < raw.len() && ring.spec.tenants == TenantMatch::All {
                warnings.push(format!(
                    "ring [{at}] takes every tenant, so that the rings after it are never used"
                ));
            }
        }
        Ok(Document { rings: raw.into_iter().map(|r| r.spec).collect(), warnings })
    }

    /// One nameless ring of one endpoint, for a node that has no ring file.
    pub fn single(address: &str) -> Document {
        let endpoint =
            Endpoint { address: address.to_owned(), capnproto_address: String::new(), zone: String::new() };
        let spec = RingSpec {
            name: String::new(),
            tenants: TenantMatch::All,
            endpoints: vec![endpoint],
            algorithm: Some(Algorithm::Ketama),
            external_labels: Labels::empty(),
            shuffle_sharding: None,
        };
        Document { rings: vec![spec], warnings: Vec::new() }
    }
}

// === from JSON ===

/// As written. Thanos's own writers emit `null` for empty lists, so every list and map may be null.
#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "null_as_default")]
    hashring: String,
    #[serde(default, deserialize_with = "null_as_default")]
    tenants: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    tenant_matcher_type: String,
    #[serde(default, deserialize_with = "null_as_default")]
    endpoints: Vec<RawEndpoint>,
    #[serde(default, deserialize_with = "null_as_default")]
    algorithm: String,
    #[serde(default, deserialize_with = "null_as_default")]
    external_labels: BTreeMap<String, String>,
    #[serde(default)]
    shuffle_sharding_config: Option<ShuffleSharding>,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

/// Checked while it is read, so that the JSON reader adds line and column to what the check says.
#[derive(Deserialize)]
#[serde(try_from = "Raw")]
struct Checked {
    spec: RingSpec,
    unknown: Vec<String>,
}

#[derive(Deserialize)]
#[serde(try_from = "EndpointForm")]
struct RawEndpoint(Endpoint);

#[derive(Deserialize)]
#[serde(untagged, expecting = "endpoint must be a string \"host:port\" or an object with \"address\"")]
enum EndpointForm {
    Address(String),
    Object {
        address: String,
        #[serde(default)]
        capnproto_address: String,
        #[serde(default)]
        az: String,
    },
}

impl TryFrom<EndpointForm> for RawEndpoint {
    type Error = String;

    fn try_from(form: EndpointForm) -> Result<RawEndpoint, String> {
        let (address, capnproto_address, zone) = match form {
            EndpointForm::Address(address) => (address, String::new(), String::new()),
            EndpointForm::Object { address, capnproto_address, az } => (address, capnproto_address, az),
        };
        check_address(&address)?;
        Ok(RawEndpoint(Endpoint { address, capnproto_address, zone }))
    }
}

fn check_address(address: &str) -> Result<(), String> {
    if address.is_empty() {
        return Err("endpoint address is empty; write \"host:port\"".to_owned());
    }
    if address.contains("://") {
        return Err(format!("endpoint {address:?} is a URL; write the gRPC address as \"host:port\""));
    }
    if address.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("endpoint {address:?} contains blanks; write \"host:port\""));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => Ok(()),
        _ => Err(format!("endpoint {address:?} has no host and port; write \"host:port\"")),
    }
}

impl TryFrom<Raw> for Checked {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Checked, String> {
        let ring = match raw.hashring.as_str() {
            "" => "ring".to_owned(),
            name => format!("ring {name:?}"),
        };
        let algorithm = match raw.algorithm.as_str() {
            "" => None,
            name => Some(Algorithm::from_name(name).ok_or_else(|| {
                format!("{ring}: algorithm {name:?} is unknown; allowed are \"ketama\" and \"hashmod\"")
            })?),
        };
        let endpoints: Vec<Endpoint> = raw.endpoints.into_iter().map(|e| e.0).collect();
        if endpoints.is_empty() && !raw.unknown.is_empty() {
            let keys: Vec<&str> = raw.unknown.keys().map(String::as_str).collect();
            return Err(match keys.iter().find(|key| like_endpoints(key)) {
                Some(key) => format!("{ring}: unknown key {key:?}; did you mean \"endpoints\"?"),
                None => {
                    format!("{ring}: endpoints is empty, and these keys are unknown: {}", keys.join(", "))
                }
            });
        }
        if endpoints.is_empty() {
            return Err(format!("{ring}: endpoints is empty; list at least one receiver"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = endpoints.iter().find(|e| !seen.insert(e.address.as_str())) {
            return Err(format!("{ring}: endpoints lists {:?} twice", twice.address));
        }
        let tenants = tenant_match(&ring, raw.tenants, &raw.tenant_matcher_type)?;
        let external_labels = Labels::from_pairs(&raw.external_labels)
            .map_err(|error| format!("{ring}: external_labels: {error}"))?;
        // As in Thanos: without a size for everybody there is none for anybody.
        let shuffle_sharding = raw.shuffle_sharding_config.filter(|s| s.shard_size > 0);
        let spec =
            RingSpec { name: raw.hashring, tenants, endpoints, algorithm, external_labels, shuffle_sharding };
        Ok(Checked { spec, unknown: raw.unknown.into_keys().collect() })
    }
}

/// Whether a key that is not known probably stands for `endpoints`.
fn like_endpoints(key: &str) -> bool {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    plain.trim_end_matches('s') == "endpoint" || ["nodes", "members", "receivers"].contains(&plain.as_str())
}

fn tenant_match(ring: &str, tenants: Vec<String>, kind: &str) -> Result<TenantMatch, String> {
    let glob = match kind {
        "" | "exact" => false,
        "glob" => true,
        other => {
            return Err(format!(
                "{ring}: tenant_matcher_type {other:?} is unknown; allowed are \"exact\" and \"glob\""
            ));
        }
    };
    if tenants.is_empty() {
        return Ok(TenantMatch::All);
    }
    if !glob {
        return Ok(TenantMatch::Exact(tenants.into_iter().collect()));
    }
    let globs: Result<Vec<Glob>, _> = tenants.iter().map(|t| Glob::new(t)).collect();
    globs.map(TenantMatch::Glob).map_err(|error| format!("{ring}: tenants: {error}"))
}

fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_both_forms_of_an_endpoint() {
        let text = r#"[{"hashring": "one", "tenants": null, "endpoints": ["a:1", {"address": "b:2", "az": "z"}],
            "external_labels": {"x": "y"}, "comment": 1}]"#;
        let document = Document::parse(text).unwrap();
        let ring = &document.rings[0];
        assert_eq!(ring.tenants, TenantMatch::All);
        assert_eq!(ring.endpoints[1].zone, "z");
        assert_eq!(ring.external_labels.get("x"), Some("y"));
        assert_eq!(document.warnings, ["ring [0]: unknown key \"comment\" is ignored"]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, part) in [
            ("", Some(1), "EOF"),
            ("{}", Some(1), "expected a sequence"),
            ("[]", None, "no ring"),
            ("[\n {\"endpoints\": [\"a:1\",]}]", Some(2), "trailing comma"),
            ("[\n\n{\"endpoints\": []}]", Some(3), "endpoints is empty"),
            ("[{\"endpoint\": [\"a:1\"]}]", Some(1), "unknown key \"endpoint\"; did you mean \"endpoints\"?"),
            ("[{\"End_Points\": [\"a:1\"]}]", Some(1), "did you mean \"endpoints\"?"),
            ("[{\"colour\": 1}]", Some(1), "these keys are unknown: colour"),
            (
                "[{\"hashring\": \"r\",\n\"endpoints\": [\"a:1\", \"a:1\"]}]",
                Some(2),
                "ring \"r\": endpoints lists \"a:1\" twice",
            ),
            ("[{\"endpoints\": [\"a\"]}]", Some(1), "write \"host:port\""),
            ("[{\"endpoints\": [\"http://a:1\"]}]", Some(1), "is a URL"),
            ("[{\"endpoints\": [7]}]", Some(1), "endpoint must be"),
            (
                "[{\"endpoints\": [\"a:1\"], \"algorithm\": \"rendezvous\"}]",
                Some(1),
                "allowed are \"ketama\"",
            ),
            (
                "[{\"endpoints\": [\"a:1\"], \"tenants\": [\"[\"], \"tenant_matcher_type\": \"glob\"}]",
                Some(1),
                "pattern",
            ),
            (
                "[{\"endpoints\": [\"a:1\"], \"tenants\": [\"x\"], \"tenant_matcher_type\": \"regex\"}]",
                Some(1),
                "\"glob\"",
            ),
            ("[{\"endpoints\": [\"a:1\"], \"external_labels\": {\"\": \"x\"}}]", Some(1), "external_labels"),
        ] {
            let error = Document::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = Document::parse(&text);
        }

        #[test]
        fn any_mutation_of_a_ring_is_read_or_refused(at in 0usize..200, with in "\\PC{0,3}") {
            let text = r#"[{"hashring":"a","tenants":["b*"],"tenant_matcher_type":"glob","endpoints":["c:1",{"address":"d:2","az":"z"}],"algorithm":"ketama","external_labels":{"e":"f"},"shuffle_sharding_config":{"shard_size":1}}]"#;
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.min(chars.len() - 1);
            chars.splice(at..at + 1, with.chars());
            if let Ok(document) = Document::parse(&chars.into_iter().collect::<String>()) {
                for rf in 0..4 {
                    let _ = crate::Rings::build(&document, rf, Algorithm::Ketama);
                }
            }
        }
    }
}
