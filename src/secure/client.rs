//! TLS of connections to peers.

use std::path::PathBuf;
use std::sync::Arc;

use runtime::World;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::files::{certificates, key, provider, roots};
use crate::{Error, MinVersion, Watched};

/// Where the certificates of a client are.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    /// Authorities that sign servers' certificates; none trusts those of the system.
    pub ca: Option<PathBuf>,
    /// What this side shows of itself.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name that a server's certificate must have, where it is not the one that was dialled.
    pub server_name: Option<String>,
    /// Trusts any certificate. For tests of an operator's own.
    pub skip_verify: bool,
    pub min_version: MinVersion,
    pub protocols: Vec<Vec<u8>>,
}

impl ClientFiles {
    fn paths(&self) -> Vec<PathBuf> {
        [&self.ca, &self.certificate, &self.key].into_iter().flatten().cloned().collect()
    }

    fn build(&self, world: &World) -> Result<Arc<ClientConfig>, Error> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(|error| Error::invalid(error.to_string()))?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            let roots = match &self.ca {
                Some(path) => roots(world, path)?,
                None => system_roots()?,
            };
            builder.with_root_certificates(roots)
        };
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(path)) => builder
                .with_client_auth_cert(certificates(world, certificate)?, key(world, path)?)
                .map_err(|error| {
                    Error::invalid(format!(
                        "{} and {} do not make a pair: {error}",
                        certificate.display(),
                        path.display()
                    ))
                })?,
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(Error::invalid("a certificate and its key are given together or not at all")),
        };
        config.alpn_protocols = self.protocols.clone();
        Ok(Arc::new(config))
    }
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match added {
        0 => Err(Error::invalid(
            "the system has no certificates of authorities; name a file with those to trust",
        )),
        _ => Ok(roots),
    }
}

/// What this side shows and trusts, as it is now.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<Watched<Arc<ClientConfig>>>,
    server_name: Option<String>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    pub fn start(name: &str, world: &World, files: ClientFiles) -> Result<ClientTls, Error> {
        let (paths, server_name) = (files.paths(), files.server_name.clone());
        let config =
            Watched::start(format!("TLS towards {name}"), world, paths, move |world| files.build(world))?;
        Ok(ClientTls { config, server_name })
    }

    /// Does the handshake of a new connection to `host`, a name or an address. The caller bounds its time.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = self.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
        TlsConnector::from(self.config.current().as_ref().clone()).connect(name, stream).await
    }

    /// Looks at the files now.
    pub fn refresh(&self) -> bool {
        self.config.refresh()
    }
}

/// Believes every certificate, and checks that the other side has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
