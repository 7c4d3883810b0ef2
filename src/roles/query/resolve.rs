//! Names to addresses.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::targets::Target;

/// The addresses behind one target, or why they are not known.
pub type Resolved = Pin<Box<dyn Future<Output = Result<BTreeSet<String>, String>> + Send>>;

/// Somebody who looks names up; a test has its own.
pub trait Resolve: Send + Sync {
    fn resolve(&self, target: Target) -> Resolved;
}

/// The name servers of this machine's configuration.
pub struct Dns {
    /// The configuration may be unreadable; that matters only to those who look names up.
    resolver: Result<TokioResolver, String>,
}

impl Dns {
    pub fn new() -> Dns {
        let builder = TokioResolver::builder_tokio();
        let resolver = builder.and_then(|b| b.build()).map_err(|e| format!("cannot set up DNS: {e}"));
        Dns { resolver }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Dns::new()
    }
}

impl Resolve for Dns {
    fn resolve(&self, target: Target) -> Resolved {
        let resolver = self.resolver.clone();
        Box::pin(async move {
            match target {
                Target::Fixed(address) => Ok(BTreeSet::from([address])),
                Target::Addresses { host, port } => addresses(&resolver?, &host, port).await,
                Target::Service(name) => {
                    let records = service(&resolver?, &name).await?;
                    Ok(records.into_iter().map(|(host, port)| format!("{host}:{port}")).collect())
                }
                Target::ServiceAddresses(name) => {
                    let resolver = resolver?;
                    let mut all = BTreeSet::new();
                    for (host, port) in service(&resolver, &name).await? {
                        all.extend(addresses(&resolver, &host, port).await?);
                    }
                    Ok(all)
                }
            }
        })
    }
}

async fn addresses(resolver: &TokioResolver, host: &str, port: u16) -> Result<BTreeSet<String>, String> {
    let found = resolver.lookup_ip(host).await.map_err(|e| format!("looking up {host}: {e}"))?;
    let shown = |ip: std::net::IpAddr| std::net::SocketAddr::new(ip, port).to_string();
    Ok(found.iter().map(shown).collect())
}

async fn service(resolver: &TokioResolver, name: &str) -> Result<Vec<(String, u16)>, String> {
    let found = resolver.srv_lookup(name).await.map_err(|e| format!("looking up SRV {name}: {e}"))?;
    let record = |data: &RData| match data {
        RData::SRV(srv) => Some((srv.target.to_utf8().trim_end_matches('.').to_owned(), srv.port)),
        _ => None,
    };
    Ok(found.answers().iter().filter_map(|answer| record(&answer.data)).collect())
}
