//! A small HTTP/1.1 client: one kept connection, reconnecting, with whole bodies in and out.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What came back.
pub struct Answer {
    pub status: u16,
    /// There is a `Retry-After`.
    pub says_when: bool,
    pub body: Bytes,
}

/// One connection to `host:port`, opened when needed.
pub struct Client {
    authority: String,
    sender: Option<SendRequest<Full<Bytes>>>,
    timeout: Duration,
    /// What does not have everything may answer with what it has.
    pub partial: bool,
}

impl Client {
    /// `url` is `http://host:port[/path]`; the path is ignored.
    pub fn new(url: &str) -> Result<Client> {
        let (authority, _) = split(url)?;
        Ok(Client { authority, sender: None, timeout: Duration::from_secs(120), partial: false })
    }

    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// Sends and reads the whole answer. A broken connection is an error; the next call opens a new one.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Bytes)> {
        let answer = self.exchange(method, path, headers, body).await?;
        Ok((answer.status, answer.body))
    }

    /// As [`Client::send`], with what else the answer says.
    pub async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.send_once(method, path, headers, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.sender = None;
                Err(error)
            }
            Err(_) => {
                self.sender = None;
                bail!("no answer from {} within {timeout:?}", self.authority)
            }
        }
    }

    async fn send_once(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let mut sender = match self.sender.take().filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(&self.authority)
                    .await
                    .with_context(|| format!("connect {}", self.authority))?;
                stream.set_nodelay(true)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let mut request = http::Request::builder().method(method).uri(path).header("host", &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status().as_u16();
        let says_when = answer.headers().contains_key("retry-after");
        let body = answer.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, says_when, body })
    }

    pub async fn get(&mut self, path: &str) -> Result<(u16, Bytes)> {
        self.send("GET", path, &[], Bytes::new()).await
    }

    /// POSTs an instant query over the Prometheus HTTP API and gives the raw answer.
    pub async fn query(&mut self, query: &str, time_ms: i64) -> Result<(u16, Bytes)> {
        let mut body = format!("query={}&time={}", percent(query), time_ms as f64 / 1000.0);
        if self.partial {
            body.push_str("&partial_response=true");
        }
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", "/api/v1/query", &headers, body.into()).await
    }
}

/// Authority and path of an `http://` URL.
pub fn split(url: &str) -> Result<(String, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url:?} does not begin with http://"))?;
    Ok(match rest.find('/') {
        Some(at) => (rest[..at].to_owned(), rest[at..].to_owned()),
        None => (rest.to_owned(), "/".to_owned()),
    })
}

/// Percent-encodes everything but letters and digits.
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}
