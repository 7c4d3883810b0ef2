//! Handshakes over loopback: who gets in, who does not and why, and certificates that change.

#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use http::HeaderMap;
use rcgen::DnType;
use runtime::World;
use secure::{
    Bound, ClientAuth, ClientFiles, ClientTls, Credentials, Entry, MinVersion, PeerNames, ServerFiles,
    ServerTls, WebSecurity, explain,
};
use testkit::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Rig {
    dir: tempfile::TempDir,
    world: World,
    authority: Authority,
}

impl Rig {
    fn new() -> Rig {
        let rig = Rig {
            dir: tempfile::tempdir().unwrap(),
            world: World::real(),
            authority: Authority::new("ours"),
        };
        std::fs::write(rig.path("ca.pem"), rig.authority.pem()).unwrap();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn server_files(&self, client_auth: ClientAuth) -> ServerFiles {
        let (certificate, key) = self.authority.issue(self.dir.path(), "server", "localhost", |_| {});
        let client_ca = (client_auth != ClientAuth::None).then(|| self.path("ca.pem"));
        ServerFiles {
            certificate,
            key,
            client_ca,
            client_auth,
            min_version: MinVersion::Tls13,
            protocols: vec![b"h2".to_vec()],
        }
    }

    fn client_files(&self) -> ClientFiles {
        ClientFiles { ca: Some(self.path("ca.pem")), ..ClientFiles::default() }
    }
}

/// One connection: what the server read and whom it saw, or why either side ended it.
async fn talk(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> Result<Option<PeerNames>, (String, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let there = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = server.accept(stream).await?;
        let names = PeerNames::of(&stream);
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.shutdown().await?;
        std::io::Result::Ok(names)
    };
    let here = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = client.connect(host, stream).await?;
        stream.write_all(b"x").await?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await?;
        std::io::Result::Ok(back)
    };
    let (there, here) = tokio::join!(there, here);
    match (there, here) {
        (Ok(names), Ok(back)) => {
            assert_eq!(back, b"x");
            Ok(names)
        }
        (there, here) => {
            let word = |error: Option<std::io::Error>| error.as_ref().map(explain).unwrap_or_default();
            Err((word(there.err()), word(here.err())))
        }
    }
}

#[tokio::test]
async fn who_gets_in_and_who_does_not() {
    let rig = Rig::new();
    let server = ServerTls::start("t", &rig.world, rig.server_files(ClientAuth::None)).unwrap();
    let client = ClientTls::start("t", &rig.world, rig.client_files()).unwrap();
    assert_eq!(talk(&server, &client, "localhost").await, Ok(None));

    let (_, here) = talk(&server, &client, "elsewhere.test").await.unwrap_err();
    assert!(here.contains("another name"), "{here}");
    let named = ClientFiles { server_name: Some("localhost".to_owned()), ..rig.client_files() };
    let named = ClientTls::start("t", &rig.world, named).unwrap();
    assert_eq!(talk(&server, &named, "elsewhere.test").await, Ok(None));

    std::fs::write(rig.path("other.pem"), Authority::new("theirs").pem()).unwrap();
    let stranger = ClientFiles { ca: Some(rig.path("other.pem")), ..ClientFiles::default() };
    let stranger = ClientTls::start("t", &rig.world, stranger).unwrap();
    let (there, here) = talk(&server, &stranger, "localhost").await.unwrap_err();
    assert!(here.contains("not trusted here"), "{here}");
    assert!(there.contains("does not trust who signed"), "{there}");

    let anyone = ClientFiles { skip_verify: true, ..ClientFiles::default() };
    let anyone = ClientTls::start("t", &rig.world, anyone).unwrap();
    assert_eq!(talk(&server, &anyone, "elsewhere.test").await, Ok(None));
}

#[tokio::test]
async fn clients_show_who_they_are() {
    let rig = Rig::new();
    let server = ServerTls::start("t", &rig.world, rig.server_files(ClientAuth::Required)).unwrap();
    let nameless = ClientTls::start("t", &rig.world, rig.client_files()).unwrap();
    let (there, here) = talk(&server, &nameless, "localhost").await.unwrap_err();
    assert!(there.contains("presented no certificate"), "{there}");
    assert!(here.contains("wants a certificate"), "{here}");

    let with = |files: (PathBuf, PathBuf)| {
        let files = ClientFiles { certificate: Some(files.0), key: Some(files.1), ..rig.client_files() };
        ClientTls::start("t", &rig.world, files).unwrap()
    };
    let named = with(rig.authority.issue(rig.dir.path(), "client", "c", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "team-a");
        params.distinguished_name.push(DnType::OrganizationalUnitName, "unit");
    }));
    let names = talk(&server, &named, "localhost").await.unwrap().unwrap();
    assert_eq!(names.common_name.as_deref(), Some("client"));
    assert_eq!(names.organization.as_deref(), Some("team-a"));
    assert_eq!(names.organizational_unit.as_deref(), Some("unit"));

    let expired = with(rig.authority.issue(rig.dir.path(), "old", "c", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    }));
    let (there, here) = talk(&server, &expired, "localhost").await.unwrap_err();
    assert!(there.contains("has expired"), "{there}");
    assert!(here.contains("our certificate has expired"), "{here}");

    let strange = with(Authority::new("theirs").issue(rig.dir.path(), "strange", "c", |_| {}));
    let (there, _) = talk(&server, &strange, "localhost").await.unwrap_err();
    assert!(there.contains("not trusted here"), "{there}");

    let optional = ServerTls::start("t", &rig.world, rig.server_files(ClientAuth::IfGiven)).unwrap();
    assert_eq!(talk(&optional, &nameless, "localhost").await, Ok(None));
}

#[tokio::test]
async fn certificates_change_while_connections_come() {
    let rig = Rig::new();
    let server = ServerTls::start("t", &rig.world, rig.server_files(ClientAuth::None)).unwrap();
    let client = ClientTls::start("t", &rig.world, rig.client_files()).unwrap();
    assert!(talk(&server, &client, "localhost").await.is_ok());
    assert!(!server.refresh(), "nothing has changed");

    // Half of a change is refused, and the old pair stays.
    let pem = std::fs::read(rig.path("server.pem")).unwrap();
    let next = Authority::new("next");
    next.issue(rig.dir.path(), "server", "localhost", |_| {});
    let whole = std::fs::read(rig.path("server.pem")).unwrap();
    std::fs::write(rig.path("server.pem"), &pem).unwrap();
    assert!(!server.refresh(), "certificate and key are no pair");
    assert!(talk(&server, &client, "localhost").await.is_ok());

    std::fs::write(rig.path("server.pem"), whole).unwrap();
    assert!(server.refresh());
    assert!(talk(&server, &client, "localhost").await.is_err(), "signed by somebody else");
    std::fs::write(rig.path("ca.pem"), next.pem()).unwrap();
    assert!(client.refresh());
    assert!(talk(&server, &client, "localhost").await.is_ok());
}

#[test]
fn files_that_are_wrong_say_so() {
    let rig = Rig::new();
    let files = rig.server_files(ClientAuth::None);
    let error =
        |files| ServerTls::start("t", &rig.world, files).err().map(|e| e.to_string()).unwrap_or_default();
    let missing = ServerFiles { key: rig.path("nosuch"), ..files.clone() };
    assert!(error(missing).contains("cannot read"));
    let swapped = ServerFiles { key: files.certificate.clone(), ..files.clone() };
    assert!(error(swapped).contains("holds no private key"));
    let other = rig.authority.issue(rig.dir.path(), "other", "localhost", |_| {});
    let unpaired = ServerFiles { key: other.1, ..files.clone() };
    assert!(error(unpaired).contains("do not make a pair"));
    let unsigned = ServerFiles { client_auth: ClientAuth::Required, ..files };
    assert!(error(unsigned).contains("who signs them"));
    let half = ClientFiles { certificate: Some(rig.path("server.pem")), ..rig.client_files() };
    let error = ClientTls::start("t", &rig.world, half).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("together"), "{error}");
    assert!(MinVersion::parse("1.1").is_err() && MinVersion::parse("TLS12").is_ok());
}

fn basic(pair: &str) -> HeaderMap {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    HeaderMap::from_iter([(http::header::AUTHORIZATION, format!("Basic {encoded}").parse().unwrap())])
}

#[tokio::test]
async fn credentials_are_bound_to_tenants() {
    let rig = Rig::new();
    let path = rig.path("credentials.yml");
    let write = |name: &str, text: &str| std::fs::write(rig.path(name), text).unwrap();
    write("a.token", "token-of-team-a-0123456789\n");
    // SHA-256 of "hello"; whoever hashes decides how long a token is.
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let hash = bcrypt::hash("right", 4).unwrap();
    let text = format!(
        "credentials:\n- {{tenant: team-a, bearer_token_file: a.token}}\n- {{tenant: '*', bearer_token_sha256: {hello}}}\n\
         - {{tenant: team-c, username: c, password_hash: '{hash}'}}\n"
    );
    write("credentials.yml", &text);
    let check = |tenant: &str| if tenant == ".." { Err("is a path".to_owned()) } else { Ok(()) };
    let credentials = Credentials::start(&rig.world, &path, check).unwrap();
    let bearer = |token: &str| {
        HeaderMap::from_iter([(http::header::AUTHORIZATION, format!("bearer {token}").parse().unwrap())])
    };
    let of = async |headers: HeaderMap| credentials.bound(&headers).await.unwrap();
    let team = |name: &str| Some(Bound::Tenant(name.to_owned()));
    assert_eq!(of(bearer("token-of-team-a-0123456789")).await, team("team-a"));
    assert_eq!(of(bearer("hello")).await, Some(Bound::Any));
    assert_eq!(of(basic("c:right")).await, team("team-c"));
    for wrong in [bearer("token-of-team-a-012345678"), bearer(""), basic("c:wrong"), HeaderMap::new()] {
        assert_eq!(of(wrong).await, None);
    }
    // A token that is exchanged is seen, and a file that is wrong changes nothing.
    write("a.token", "another-token-of-team-a");
    assert!(credentials.refresh());
    assert_eq!(of(bearer("token-of-team-a-0123456789")).await, None);
    assert_eq!(of(bearer("another-token-of-team-a")).await, team("team-a"));
    for (text, why) in [
        ("credentials: []", "nobody could write"),
        ("credentials: [{tenant: a}]", "needs either"),
        ("credentials: [{tenant: a, bearer_token: x}]", "bearer_token"),
        ("credentials: [{tenant: .., username: a, password_hash: b}]", "is a path"),
        ("credentials: [{tenant: a, bearer_token_sha256: abc}]", "64 hexadecimal digits"),
        ("credentials: [{tenant: a, bearer_token_file: short}]", "shorter than 16"),
        ("credentials: [{tenant: a, username: a, password_hash: b}]", "no bcrypt hash"),
        (
            "credentials: [{tenant: a, bearer_token_file: a.token}, {tenant: b, bearer_token_file: a.token}]",
            "before",
        ),
    ] {
        write("short", "tooshort");
        write("credentials.yml", text);
        assert!(!credentials.refresh(), "{text}");
        let error =
            Credentials::start(&rig.world, &path, check).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(why), "{text}: {error}");
        assert!(!error.contains("another-token"), "{error}");
    }
    assert_eq!(of(bearer("another-token-of-team-a")).await, team("team-a"));
}

#[tokio::test]
async fn guesses_wait_in_a_short_queue_and_known_pairs_do_not() {
    let rig = Rig::new();
    let path = rig.path("web.yml");
    // Dear enough that the queue fills before it empties.
    let hash = bcrypt::hash("right", 6).unwrap();
    std::fs::write(&path, format!("basic_auth_users: {{ann: '{hash}'}}\n")).unwrap();
    let web = WebSecurity::start("t", &rig.world, &path).unwrap();
    assert_eq!(web.admits(&basic("ann:right")).await, Entry::Admitted);
    let guesses: Vec<_> = (0..200).map(|i| basic(&format!("ann:{i}"))).collect();
    let all = futures::future::join_all(guesses.iter().map(|guess| web.admits(guess)));
    let known = async {
        tokio::task::yield_now().await;
        web.admits(&basic("ann:right")).await
    };
    let (answers, known) = tokio::join!(all, known);
    assert_eq!(known, Entry::Admitted);
    let busy = answers.iter().filter(|answer| **answer == Entry::Busy).count();
    let refused = answers.iter().filter(|answer| **answer == Entry::Refused).count();
    assert_eq!((busy, refused), (200 - 64, 64));
    // A wrong pair is remembered as well.
    assert_eq!(web.admits(&guesses[0]).await, Entry::Refused);
}

#[tokio::test]
async fn the_web_configuration_file() {
    let rig = Rig::new();
    rig.server_files(ClientAuth::None);
    let hash = bcrypt::hash("right", 4).unwrap();
    let path = rig.path("web.yml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(&format!(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\nbasic_auth_users:\n  ann: '{hash}'\n"
    ));
    let web = WebSecurity::start("t", &rig.world, &path).unwrap();
    assert!(web.has_tls() && web.wants_passwords());
    for (pair, good) in
        [("ann:right", true), ("ann:right", true), ("ann:wrong", false), ("bob:right", false), ("ann", false)]
    {
        let entry = if good { Entry::Admitted } else { Entry::Refused };
        assert_eq!(web.admits(&basic(pair)).await, entry, "{pair}");
    }
    assert_eq!(web.admits(&HeaderMap::new()).await, Entry::Refused);
    write("basic_auth_users: {}\n");
    assert!(web.refresh());
    assert!(!web.has_tls());
    assert_eq!(web.admits(&HeaderMap::new()).await, Entry::Admitted);
    for (text, part) in [
        ("tls_server_config: {cert_file: server.pem}", "key_file"),
        ("tls_server_confg: {}", "tls_server_confg"),
        ("basic_auth_users: {ann: plain}", "no bcrypt hash"),
        ("tls_server_config: {cert_file: server.pem, key_file: server.key, min_version: TLS10}", "not safe"),
        (
            "tls_server_config: {cert_file: server.pem, key_file: server.key, client_auth_type: RequestClientCert}",
            "without checking",
        ),
        (
            "tls_server_config: {cert_file: server.pem, key_file: server.key, cipher_suites: [A]}",
            "cipher_suites is not supported",
        ),
    ] {
        write(text);
        let error =
            WebSecurity::start("t", &rig.world, &path).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!web.refresh(), "{text}");
        assert_eq!(web.admits(&HeaderMap::new()).await, Entry::Admitted, "the old one stays");
    }
}
