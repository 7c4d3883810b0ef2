//! Certificates and keys from PEM files.

use std::path::Path;
use std::sync::Arc;

use runtime::World;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn read(world: &World, path: &Path) -> Result<Vec<u8>, Error> {
    world.disk.read(path).map_err(|error| Error::invalid(format!("cannot read {}: {error}", path.display())))
}

pub(crate) fn certificates(world: &World, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(world, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::invalid(format!("{} holds no certificate in PEM", path.display()))),
        Err(error) => Err(Error::invalid(format!("{} is not PEM: {error}", path.display()))),
    }
}

/// What is said of a key never quotes it.
pub(crate) fn key(world: &World, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read(world, path)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| Error::invalid(format!("{} holds no private key in PEM", path.display())))
}

pub(crate) fn roots(world: &World, path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(world, path)? {
        roots
            .add(certificate)
            .map_err(|error| Error::invalid(format!("{} holds no authority: {error}", path.display())))?;
    }
    Ok(roots)
}
