//! The web configuration file of exporter-toolkit: TLS and passwords of an HTTP listener (`--http.config`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use runtime::World;
use rustls::ServerConfig;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::checks::{Busy, Checks};
use crate::files::read;
use crate::server::accept;
use crate::{ClientAuth, Error, MinVersion, Passwords, ServerFiles, Watched};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<Tls>,
    http_server_config: HttpServer,
    basic_auth_users: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    client_ca_file: Option<PathBuf>,
    client_allowed_sans: Vec<String>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Vec<String>,
    curve_preferences: Vec<String>,
    prefer_server_cipher_suites: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpServer {
    http2: Option<bool>,
    headers: BTreeMap<String, String>,
}

/// What a file says, settled and with its certificates read.
pub struct WebConfig {
    tls: Option<Arc<ServerConfig>>,
    passwords: Arc<Passwords>,
}

/// The security of an HTTP listener, as the file says now.
#[derive(Clone)]
pub struct WebSecurity {
    config: Arc<Watched<WebConfig>>,
    checks: Checks,
}

/// Whether a request may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Admitted,
    Refused,
    /// Too many passwords wait to be checked; another attempt may pass.
    Busy,
}

impl std::fmt::Debug for WebSecurity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebSecurity")
    }
}

impl WebSecurity {
    /// Reads the file and what it names; changes of the file and of the certificates named at the start are seen.
    pub fn start(name: &str, world: &World, path: &Path) -> Result<WebSecurity, Error> {
        let key: Vec<u8> = (0..4).flat_map(|_| world.chance.next_u64().to_le_bytes()).collect();
        let file = parse(world, path)?;
        let mut files = vec![path.to_owned()];
        if let Some(tls) = file.files(path)? {
            files.extend(tls.paths());
        }
        let owned = path.to_owned();
        let build = move |world: &World| {
            let file = parse(world, &owned)?;
            let tls = file.files(&owned)?.map(|files| files.build(world)).transpose()?;
            Ok(WebConfig { tls, passwords: Arc::new(Passwords::new(file.basic_auth_users, &key)?) })
        };
        let config = Watched::start(format!("security of listener {name}"), world, files, build)?;
        Ok(WebSecurity { config, checks: Checks::default() })
    }

    pub fn has_tls(&self) -> bool {
        self.config.current().tls.is_some()
    }

    pub fn wants_passwords(&self) -> bool {
        !self.config.current().passwords.is_empty()
    }

    /// Does the handshake of a new connection; none where the file asks for no TLS.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<Result<TlsStream<TcpStream>, TcpStream>> {
        match &self.config.current().tls {
            None => Ok(Err(stream)),
            Some(config) => accept(config, stream).await.map(Ok),
        }
    }

    /// Whether a request may come in.
    pub async fn admits(&self, headers: &HeaderMap) -> Entry {
        let passwords = Arc::clone(&self.config.current().passwords);
        if passwords.is_empty() {
            return Entry::Admitted;
        }
        match self.checks.name(&passwords, headers).await {
            Ok(Some(_)) => Entry::Admitted,
            Ok(None) => Entry::Refused,
            Err(Busy) => Entry::Busy,
        }
    }

    /// Looks at the files now.
    pub fn refresh(&self) -> bool {
        self.config.refresh()
    }
}

fn parse(world: &World, path: &Path) -> Result<File, Error> {
    let at = |error: String| Error::invalid(format!("{}: {error}", path.display()));
    let text = String::from_utf8(read(world, path)?).map_err(|_| at("not UTF-8 text".to_owned()))?;
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    let file: File = serde_saphyr::from_str(&text).map_err(|error| at(error.to_string()))?;
    if !file.http_server_config.headers.is_empty() {
        return Err(at("http_server_config.headers is not supported; take it out".to_owned()));
    }
    Ok(file)
}

impl File {
    /// The certificates named; paths are relative to the file.
    fn files(&self, path: &Path) -> Result<Option<ServerFiles>, Error> {
        let at = |error: String| Error::invalid(format!("{}: tls_server_config: {error}", path.display()));
        let Some(tls) = &self.tls_server_config else { return Ok(None) };
        let folder = path.parent().unwrap_or(Path::new("."));
        let beside = |file: &Option<PathBuf>| file.as_ref().map(|file| folder.join(file));
        let (Some(certificate), Some(key)) = (beside(&tls.cert_file), beside(&tls.key_file)) else {
            return Err(at("cert_file and key_file are both needed".to_owned()));
        };
        for (given, name) in [
            (!tls.cipher_suites.is_empty(), "cipher_suites"),
            (!tls.curve_preferences.is_empty(), "curve_preferences"),
            (!tls.client_allowed_sans.is_empty(), "client_allowed_sans"),
            (tls.max_version.as_deref().is_some_and(|v| v != "TLS13"), "max_version"),
        ] {
            if given {
                return Err(at(format!(
                    "{name} is not supported; take it out, every suite on offer is a safe one"
                )));
            }
        }
        let _ = tls.prefer_server_cipher_suites;
        let client_auth = match tls.client_auth_type.as_deref() {
            None | Some("" | "NoClientCert") => ClientAuth::None,
            Some("VerifyClientCertIfGiven") => ClientAuth::IfGiven,
            Some("RequireAndVerifyClientCert") => ClientAuth::Required,
            Some(other @ ("RequestClientCert" | "RequireClientCert" | "RequireAnyClientCert")) => {
                return Err(at(format!(
                    "client_auth_type {other} asks for certificates without checking them; choose RequireAndVerifyClientCert"
                )));
            }
            Some(other) => return Err(at(format!("client_auth_type {other:?} is not known"))),
        };
        let min_version = tls.min_version.as_deref().map_or(Ok(MinVersion::Tls12), MinVersion::parse);
        let mut protocols = vec![b"http/1.1".to_vec()];
        if self.http_server_config.http2.unwrap_or(true) {
            protocols.insert(0, b"h2".to_vec());
        }
        Ok(Some(ServerFiles {
            certificate,
            key,
            client_ca: beside(&tls.client_ca_file),
            client_auth,
            min_version: min_version.map_err(|error| at(error.message))?,
            protocols,
        }))
    }
}
