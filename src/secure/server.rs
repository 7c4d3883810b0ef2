//! TLS of a listener.

use std::path::PathBuf;
use std::sync::Arc;

use runtime::World;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::files::{certificates, key, provider, roots};
use crate::{Error, MinVersion, Watched};

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    #[default]
    None,
    /// One that is shown must be good.
    IfGiven,
    Required,
}

/// Where the certificates of a listener are.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities that sign clients' certificates.
    pub client_ca: Option<PathBuf>,
    pub client_auth: ClientAuth,
    pub min_version: MinVersion,
    /// Protocols offered within TLS, best first: `h2`, `http/1.1`.
    pub protocols: Vec<Vec<u8>>,
}

impl ServerFiles {
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    pub(crate) fn build(&self, world: &World) -> Result<Arc<ServerConfig>, Error> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(|error| Error::invalid(error.to_string()))?;
        let builder = match (&self.client_ca, self.client_auth) {
            (None, ClientAuth::None) => builder.with_no_client_auth(),
            (None, _) => {
                return Err(Error::invalid(
                    "client certificates are wanted, and no file says who signs them",
                ));
            }
            (Some(_), ClientAuth::None) => builder.with_no_client_auth(),
            (Some(path), auth) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(world, path)?), provider);
                let verifier = match auth {
                    ClientAuth::Required => verifier,
                    _ => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(world, &self.certificate)?, key(world, &self.key)?)
            .map_err(|error| {
                Error::invalid(format!(
                    "{} and {} do not make a pair: {error}",
                    self.certificate.display(),
                    self.key.display()
                ))
            })?;
        config.alpn_protocols = self.protocols.clone();
        Ok(Arc::new(config))
    }
}

/// The certificates of a listener, as they are now.
#[derive(Clone)]
pub struct ServerTls(Arc<Watched<Arc<ServerConfig>>>);

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    pub fn start(name: &str, world: &World, files: ServerFiles) -> Result<ServerTls, Error> {
        let paths = files.paths();
        Watched::start(format!("TLS of listener {name}"), world, paths, move |world| files.build(world))
            .map(ServerTls)
    }

    /// Does the handshake of a new connection. The caller bounds its time.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        accept(&self.0.current(), stream).await
    }

    /// Looks at the files now.
    pub fn refresh(&self) -> bool {
        self.0.refresh()
    }
}

pub(crate) async fn accept(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    TlsAcceptor::from(Arc::clone(config)).accept(stream).await
}

/// What a client's certificate says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    pub common_name: Option<String>,
    pub organization: Option<String>,
    pub organizational_unit: Option<String>,
}

impl PeerNames {
    /// The fields that may name a tenant, as settings spell them.
    pub const FIELDS: [&str; 3] = ["organization", "organizationalUnit", "commonName"];

    /// One of [`PeerNames::FIELDS`].
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "organization" => self.organization.as_deref(),
            "organizationalUnit" => self.organizational_unit.as_deref(),
            "commonName" => self.common_name.as_deref(),
            _ => None,
        }
    }

    /// Of the certificate that the client proved to have.
    pub fn of(stream: &TlsStream<TcpStream>) -> Option<PeerNames> {
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates()?.first()?;
        PeerNames::read(certificate)
    }

    /// Reads the subject of a certificate in DER: the three attributes that name tenants, the first of each.
    pub fn read(certificate: &[u8]) -> Option<PeerNames> {
        // Certificate { tbs { [0] version, serial, algorithm, issuer, validity, subject, ... } ... }
        let (certificate, _) = Der::enter(certificate, 0x30)?;
        let (mut tbs, _) = Der::enter(certificate, 0x30)?;
        if tbs.first() == Some(&0xa0) {
            tbs = Der::next(tbs)?.2;
        }
        for _ in 0..4 {
            tbs = Der::next(tbs)?.2;
        }
        let (mut subject, _) = Der::enter(tbs, 0x30)?;
        let mut names = PeerNames::default();
        while !subject.is_empty() {
            let (mut set, rest) = Der::enter(subject, 0x31)?;
            subject = rest;
            while !set.is_empty() {
                let (pair, rest) = Der::enter(set, 0x30)?;
                set = rest;
                let (kind, value) = Der::enter(pair, 0x06)?;
                let (_, text, _) = Der::next(value)?;
                let Ok(text) = std::str::from_utf8(text) else { continue };
                // 2.5.4.x: common name, organization, organizational unit.
                let place = match kind {
                    [0x55, 0x04, 3] => &mut names.common_name,
                    [0x55, 0x04, 10] => &mut names.organization,
                    [0x55, 0x04, 11] => &mut names.organizational_unit,
                    _ => continue,
                };
                place.get_or_insert_with(|| text.to_owned());
            }
        }
        Some(names)
    }
}

/// The little of DER that a subject needs.
struct Der;

impl Der {
    /// Tag, content, and what follows.
    fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let (&tag, rest) = bytes.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let len = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let mut len = 0usize;
                for _ in 0..first & 0x7f {
                    let (&byte, tail) = rest.split_first()?;
                    len = len << 8 | usize::from(byte);
                    rest = tail;
                }
                len
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        Some((tag, content, rest))
    }

    fn enter(bytes: &[u8], want: u8) -> Option<(&[u8], &[u8])> {
        let (tag, content, rest) = Der::next(bytes)?;
        (tag == want).then_some((content, rest))
    }
}
