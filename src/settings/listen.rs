//! An address to listen on, in Go's notation as well: `0.0.0.0:10902`, `:10901`, `[::]:1`, `localhost:9090`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::Scalar;

/// A host (empty for every interface) and a port (0 for any free one). Names are resolved by whoever binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    host: String,
    port: u16,
}

impl Listen {
    pub fn new(host: impl Into<String>, port: u16) -> Listen {
        Listen { host: host.into(), port }
    }

    /// Every IPv4 interface: `0.0.0.0:port`.
    pub fn everywhere(port: u16) -> Listen {
        Listen::new("0.0.0.0", port)
    }

    /// `127.0.0.1:port`.
    pub fn loopback(port: u16) -> Listen {
        Listen::new("127.0.0.1", port)
    }

    /// Without brackets; empty where every interface is meant.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Text for a `bind` that looks names up itself; an empty host is every interface.
    pub fn bind_text(&self) -> String {
        if self.host.is_empty() { format!("[::]:{}", self.port) } else { self.to_string() }
    }

    /// The address to bind: an empty host is every interface, IPv6 included where the machine has it. A name
    /// is looked up, which may block; meant for the start of a role.
    pub fn socket_address(&self) -> io::Result<SocketAddr> {
        if self.host.is_empty() {
            let has_ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
            let all: IpAddr =
                if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            return Ok(SocketAddr::new(all, self.port));
        }
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found =
            found.map_err(|e| io::Error::new(e.kind(), format!("cannot look up {}: {e}", self.host)))?;
        found
            .into_iter()
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host)))
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl Scalar for Listen {
    const PLACEHOLDER: &'static str = "HOST:PORT";

    fn parse(text: &str) -> Result<Listen, String> {
        let wrong = || format!("{text:?} is not an address such as 0.0.0.0:10902, :10902 or [::1]:10902");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or_else(wrong)?;
                let ip = inner.parse::<IpAddr>().map_err(|_| wrong())?;
                ip.to_string()
            }
            None if host.contains([':', ' ', '/', '[', ']']) => return Err(wrong()),
            None => host.to_owned(),
        };
        Ok(Listen { host, port })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, loopback) in [
            ("0.0.0.0:10902", false),
            (":10901", false),
            ("[::]:1", false),
            ("[::1]:9", true),
            ("localhost:0", true),
            ("127.0.0.1:1", true),
            ("metrics.example:65535", false),
        ] {
            let listen = Listen::parse(text).unwrap();
            assert_eq!(listen.is_loopback(), loopback, "{text}");
            assert_eq!(listen.to_string(), text);
        }
        let bound = |text| Listen::parse(text).unwrap().socket_address().unwrap().to_string();
        assert_eq!(bound("127.0.0.1:5"), "127.0.0.1:5");
        assert_eq!(bound("[::1]:5"), "[::1]:5");
        assert!(["[::]:5", "0.0.0.0:5"].contains(&bound(":5").as_str()));
        for bad in ["", "10902", "a:", "a:65536", "a:x", "::1:9", "[::1:9", "http://a:1", "[a]:1"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
    }
}
