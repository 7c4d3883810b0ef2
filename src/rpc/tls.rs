//! TLS of gRPC listeners and channels, as settings name their files.

use model::Kind;
use runtime::World;
use secure::{ClientAuth, ClientFiles, ClientTls, MinVersion, ServerFiles, ServerTls};
use settings::TlsFiles;
use storage::Error;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

fn invalid(error: secure::Error) -> Error {
    Error::new(Kind::Invalid, error.message)
}

/// TLS of a listener; none where no certificate is given.
pub fn server_tls(name: &str, files: &TlsFiles, world: &World) -> Result<Option<ServerTls>, Error> {
    let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else { return Ok(None) };
    let files = ServerFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: files.ca.clone(),
        client_auth: if files.ca.is_some() { ClientAuth::Required } else { ClientAuth::None },
        min_version: MinVersion::parse(&files.min_version).map_err(invalid)?,
        protocols: vec![H2.to_vec(), HTTP1.to_vec()],
    };
    ServerTls::start(name, world, files).map(Some).map_err(invalid)
}

/// TLS towards peers.
pub fn client_tls(name: &str, files: &TlsFiles, world: &World) -> Result<ClientTls, Error> {
    let files = ClientFiles {
        ca: files.ca.clone(),
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        server_name: files.server_name.clone().filter(|name| !name.is_empty()),
        skip_verify: files.skip_verify,
        min_version: MinVersion::parse(&files.min_version).map_err(invalid)?,
        protocols: vec![H2.to_vec()],
    };
    ClientTls::start(name, world, files).map_err(invalid)
}
