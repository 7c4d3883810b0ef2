//! The oldest version of TLS that is spoken.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::Error;

/// Older ones than 1.2 are broken, and refused with that word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    Tls12,
    #[default]
    Tls13,
}

impl MinVersion {
    /// By Thanos's name (`1.2`) or exporter-toolkit's (`TLS12`).
    pub fn parse(text: &str) -> Result<MinVersion, Error> {
        match text.trim_start_matches("TLS") {
            "1.2" | "12" => Ok(MinVersion::Tls12),
            "1.3" | "13" => Ok(MinVersion::Tls13),
            "1.0" | "10" | "1.1" | "11" => {
                Err(Error::invalid(format!("TLS version {text:?} is not safe any more; choose 1.2 or 1.3")))
            }
            _ => Err(Error::invalid(format!("{text:?} is not a version of TLS; choose 1.2 or 1.3"))),
        }
    }

    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            MinVersion::Tls12 => &ALL,
            MinVersion::Tls13 => &ALL[..1],
        }
    }
}
