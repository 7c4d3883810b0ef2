//! What a newcomer needs next: the lines for prometheus.yml and a query to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use axum::Router;
use axum::routing::get;

/// Tells it in the log, and in plain lines on standard error.
pub fn show(http: SocketAddr, grpc: SocketAddr, data_dir: &Path) {
    let base = base(http);
    tracing::info!(
        remote_write = format!("{base}/api/v1/write"),
        query = format!("{base}/api/v1/query?query=up"),
        store_api = %grpc,
        data_dir = %data_dir.display(),
        "ready for a Prometheus"
    );
    eprint!("{}", text(&base));
}

/// The same lines at `/`, for whoever opens the address in a browser.
pub fn router(http: SocketAddr) -> Router {
    let text = text(&base(http));
    Router::new().route("/", get(move || std::future::ready(text.clone())))
}

/// The URL by which this machine reaches the listener.
fn base(http: SocketAddr) -> String {
    let host: IpAddr = match http.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(host, http.port()))
}

fn text(base: &str) -> String {
    format!(
        "\nTributary takes writes and answers queries at {base}\n\n\
         Add this to prometheus.yml:\n\n\
         remote_write:\n  - url: {base}/api/v1/write\n\n\
         and ask:\n\n\
         curl -s '{base}/api/v1/query?query=up'\n\n\
         Grafana: a data source of type Prometheus with the URL {base}\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_can_be_reached() {
        let url = |address: &str| base(address.parse().unwrap());
        assert_eq!(url("127.0.0.1:10902"), "http://127.0.0.1:10902");
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80"), "http://[::1]:80");
        assert!(text("http://h:1").contains("remote_write:\n  - url: http://h:1/api/v1/write\n"));
    }
}
