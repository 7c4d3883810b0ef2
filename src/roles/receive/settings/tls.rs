//! TLS of the listener for writes, and towards peers.

use std::path::PathBuf;

use runtime::World;
use secure::ClientTls;
use settings::{TlsFiles, settings};

use crate::Error;

settings! {
    /// TLS of the listener for writes, and towards peers.
    pub struct WriteTls {
        /// Certificate of the listener for writes, in PEM. Without it the listener is open to whoever reaches it.
        ["remote-write.server-tls-cert"] certificate: Option<PathBuf> = None;
        /// Key of that certificate, in PEM.
        ["remote-write.server-tls-key"] key: Option<PathBuf> = None;
        /// Who signs senders' certificates, in PEM. With it only senders that show such a certificate are let in.
        ["remote-write.server-tls-client-ca"] client_ca: Option<PathBuf> = None;
        /// Oldest version of TLS that senders may speak: 1.2 or 1.3.
        ["remote-write.server-tls-min-version"] min_version: String = "1.3".to_owned();
        /// Speaks TLS with the other receivers of the ring.
        ["remote-write.client-tls-secure"] to_peers: bool = false;
        /// Trusts any certificate of a peer. Whoever stands in between can then read and change what is written.
        ["remote-write.client-tls-skip-verify"] skip_verify: bool = false;
        /// What this receiver shows to its peers, in PEM.
        ["remote-write.client-tls-cert"] client_certificate: Option<PathBuf> = None;
        /// Key of that certificate, in PEM.
        ["remote-write.client-tls-key"] client_key: Option<PathBuf> = None;
        /// Who signs peers' certificates, in PEM; without it, whoever the system trusts.
        ["remote-write.client-tls-ca"] ca: Option<PathBuf> = None;
        /// Name that peers' certificates must have, where it is not the one in the ring.
        ["remote-write.client-server-name"] server_name: Option<String> = None;
        /// Oldest version of TLS that is spoken with peers: 1.2 or 1.3.
        ["remote-write.client-tls-min-version"] client_min_version: String = "1.3".to_owned();
    }
}

impl WriteTls {
    fn validate(&self) -> Result<(), String> {
        let prefix = "remote-write";
        let flag = |name: &str| format!("{prefix}.{name}");
        self.server().server(
            &flag("server-tls-cert"),
            &flag("server-tls-key"),
            &flag("server-tls-client-ca"),
        )?;
        self.client().pair(&flag("client-tls-cert"), &flag("client-tls-key"))
    }

    pub fn server(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.client_ca.clone(),
            min_version: self.min_version.clone(),
            ..TlsFiles::default()
        }
    }

    pub fn client(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.client_certificate.clone(),
            key: self.client_key.clone(),
            ca: self.ca.clone(),
            min_version: self.client_min_version.clone(),
            server_name: self.server_name.clone(),
            skip_verify: self.skip_verify,
        }
    }

    /// TLS towards peers, if it is asked for.
    pub fn towards_peers(&self, world: &World) -> Result<Option<ClientTls>, Error> {
        if !self.to_peers {
            return Ok(None);
        }
        rpc::client_tls("peers", &self.client(), world).map(Some)
    }
}
