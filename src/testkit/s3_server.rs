//! A real S3 server for stories: moto (`pip install 'moto[server]'`), started on a free port of loopback.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server without content that ends when it is dropped. It takes any credentials.
pub struct S3Server {
    child: Child,
    address: SocketAddr,
}

impl S3Server {
    /// Starts one; none where moto is not installed, which is said on standard error and, where the variable `CI` is
    /// set, is an error.
    pub fn start() -> io::Result<Option<S3Server>> {
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        };
        let mut probe = Command::new("python3");
        quiet(probe.args(["-c", "import moto.server"]));
        if !probe.status().is_ok_and(|status| status.success()) {
            if std::env::var_os("CI").is_some() {
                return Err(io::Error::other("python3 has no moto.server: pip install 'moto[server]'"));
            }
            eprintln!("skipped: python3 has no moto.server (pip install 'moto[server]')");
            return Ok(None);
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let run = "import sys; from moto.server import main; main(sys.argv[1:])";
        let mut command = Command::new("python3");
        quiet(command.args(["-c", run, "-H", "127.0.0.1", "-p", &address.port().to_string()]));
        let mut server = S3Server { child: command.spawn()?, address };
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return Ok(Some(server));
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("the S3 server ended at its start: {status}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::other("the S3 server did not listen within 30 s"))
    }

    /// Host and port, plain HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        let head = format!("PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n", self.address);
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.contains(" 200 ") {
            true => Ok(()),
            false => Err(io::Error::other(format!("bucket {name} is not created: {answer}"))),
        }
    }

    /// The objstore document of a bucket on this server.
    pub fn objstore_yaml(&self, bucket: &str, prefix: &str) -> String {
        format!(
            "type: S3\nconfig:\n  bucket: {bucket}\n  endpoint: {}\n  insecure: true\n  region: us-east-1\n  \
             access_key: someone\n  secret_key: a-secret\n  part_size: 5242880\nprefix: {prefix}\n",
            self.address
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It holds nothing that is worth an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
