//! Why there is no security to be had, and why a handshake failed, in words.

use model::Kind;
use rustls::{AlertDescription, CertificateError};

/// A file that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

impl Error {
    pub fn invalid(message: impl Into<String>) -> Error {
        Error { kind: Kind::Invalid, message: message.into() }
    }
}

/// What went wrong in a handshake, so that an expired certificate is told from a strange or a missing one.
pub fn explain(error: &std::io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error.to_string();
    };
    match tls {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the other side's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the other side's certificate is not valid yet; compare the clocks".to_owned()
            }
            CertificateError::UnknownIssuer => {
                "the other side's certificate is signed by an authority that is not trusted here".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the other side's certificate is for another name: {fault}")
            }
            CertificateError::Revoked => "the other side's certificate has been revoked".to_owned(),
            fault => format!("the other side's certificate is wrong: {fault}"),
        },
        rustls::Error::NoCertificatesPresented => "the other side presented no certificate".to_owned(),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                "the other side says that our certificate has expired".to_owned()
            }
            AlertDescription::UnknownCA => {
                "the other side does not trust who signed our certificate".to_owned()
            }
            AlertDescription::CertificateRequired => "the other side wants a certificate from us".to_owned(),
            AlertDescription::BadCertificate => {
                "the other side takes our certificate for a wrong one".to_owned()
            }
            alert => format!("the other side ended the handshake: {alert:?}"),
        },
        rustls::Error::PeerIncompatible(why) => format!("no version or cipher in common: {why:?}"),
        rustls::Error::InvalidMessage(_) => "the other side does not speak TLS".to_owned(),
        other => other.to_string(),
    }
}
