//! Certificates and TLS as other programs meet them: openssl and curl against the real server, and against what its authority signs.
//!
//! What rustls as a client thinks of them stands beside the code; who may enter where, in `door.rs`.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use balcony_server::http::listener::{self, Connections, Speech};
use balcony_server::tasks::Tasks;
use balcony_server::trust::Authority;
use balcony_server::trust::names::Names;
use balcony_server::trust::tls::{Certificates, Policy, Tls};
use serde_json::{Value, json};
use server::TestServer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn openssl(arguments: &[&str]) -> String {
    let output = run("openssl", arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", said(&output));
    said(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// An authority of ours in a folder of its own, used by openssl.
struct Signer {
    folder: TempDir,
    ca: Authority,
}

impl Signer {
    fn new(constrained: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Authority::load_or_create(folder.path(), "signer", constrained).expect("made");
        Self { folder, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has openssl sign a new key for these names, and leaves `<name>.pem` and `<name>.key`.
    fn sign(&self, name: &str, sans: &str) -> (PathBuf, PathBuf) {
        let [cert, key, request] = ["pem", "key", "csr"].map(|kind| self.path(&format!("{name}.{kind}")));
        let sans = format!("subjectAltName={sans}");
        let curve = "ec_paramgen_curve:P-256";
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            curve,
            "-nodes",
            "-keyout",
            text(&key),
            "-out",
            text(&request),
            "-subj",
            "/CN=leaf",
            "-addext",
            &sans,
        ]);
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        let by = ["-CA", text(&ca), "-CAkey", text(&ca_key), "-copy_extensions", "copy", "-days", "10"];
        openssl(&[&["x509", "-req", "-in", text(&request), "-out", text(&cert)], by.as_slice()].concat());
        (cert, key)
    }

    fn verify(&self, cert: &Path, option: &str, host: &str) -> Output {
        run("openssl", &["verify", "-x509_strict", "-CAfile", text(&self.path("ca.pem")), option, host, text(cert)])
    }
}

#[test]
fn openssl_refuses_foreign_names_below_the_authority() {
    let bound = Signer::new(true);
    let (good, _) = bound.sign("good", "DNS:anna.local,DNS:localhost,IP:192.168.1.7,IP:fd00::7");
    for (option, host) in [("-verify_hostname", "anna.local"), ("-verify_ip", "192.168.1.7"), ("-verify_ip", "fd00::7")] {
        let output = bound.verify(&good, option, host);
        assert!(output.status.success(), "{host}: {}", said(&output));
    }
    let free = Signer::new(false);
    for (option, host, san) in [
        ("-verify_hostname", "example.org", "DNS:example.org"),
        ("-verify_ip", "8.8.8.8", "IP:8.8.8.8"),
        ("-verify_ip", "2001:db8::1", "IP:2001:db8::1"),
    ] {
        let refused = bound.verify(&bound.sign("foreign", san).0, option, host);
        assert!(!refused.status.success() && said(&refused).contains("permitted subtree violation"), "{host}: {}", said(&refused));
        let accepted = free.verify(&free.sign("foreign", san).0, option, host);
        assert!(accepted.status.success(), "without constraints {host} is accepted: {}", said(&accepted));
    }
}

#[test]
fn openssl_takes_no_mail_signed_below_the_authority() {
    let signer = Signer::new(true);
    // Of mail addresses the name constraints say nothing.
    let (mail, _) = signer.sign("mail", "email:director@bank.example");
    let ca = signer.path("ca.pem");
    for (purpose, cert, good) in [("sslserver", signer.sign("good", "DNS:anna.local").0, true), ("smimesign", mail, false)] {
        let output = run("openssl", &["verify", "-x509_strict", "-purpose", purpose, "-CAfile", text(&ca), text(&cert)]);
        assert_eq!(output.status.success(), good, "{purpose}: {}", said(&output));
        assert!(good || said(&output).contains("purpose"), "{purpose}: {}", said(&output));
    }
}

/// Port of HTTPS.
fn https(server: &TestServer) -> u16 {
    let run = std::fs::read(server.data_dir().join("run.json")).expect("run.json");
    let run: Value = serde_json::from_slice(&run).expect("run.json");
    let address: std::net::SocketAddr = run["https"].as_str().expect("https").parse().expect("an address");
    address.port()
}

fn s_client(port: u16, arguments: &[&str]) -> Output {
    run("openssl", &[&["s_client", "-connect", &format!("127.0.0.1:{port}")], arguments].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_curl_accept_the_authority_and_nobody_without_it() {
    let server = TestServer::with(&["--name", "Anna's Studio"], &[]).await;
    let (port, ca) = (https(&server), server.data_dir().join("ca.pem"));
    for (url, version) in [
        (format!("https://127.0.0.1:{port}/api/health"), "--http2"),
        (format!("https://localhost:{port}/api/health"), "--http2"),
        (format!("https://annas-studio.local:{port}/api/health"), "--http1.1"),
    ] {
        let here = format!("annas-studio.local:{port}:127.0.0.1");
        let ask = |trust: &[&str]| {
            let show =
                ["-sS", "--noproxy", "*", "--resolve", &here, "-o", "/dev/null", "-w", "%{http_code} %{http_version} %{ssl_verify_result}"];
            run("curl", &[show.as_slice(), trust, &[version, &url]].concat())
        };
        let accepted = ask(&["--cacert", text(&ca)]);
        let spoken = if version == "--http2" { "200 2 0" } else { "200 1.1 0" };
        assert_eq!((accepted.status.code(), said(&accepted).as_str()), (Some(0), spoken), "{url}");
        assert_eq!(ask(&[]).status.code(), Some(60), "{url} is not to be trusted without the authority");
    }
    let trust = ["-CAfile", text(&ca), "-verify_return_error", "-verify_ip", "127.0.0.1"];
    for version in ["-tls1_2", "-tls1_3"] {
        let accepted = s_client(port, &[trust.as_slice(), &[version]].concat());
        assert!(accepted.status.success() && said(&accepted).contains("Verify return code: 0 (ok)"), "{version}: {}", said(&accepted));
    }
    assert!(!s_client(port, &["-verify_return_error"]).status.success());
    assert!(!s_client(port, &["-CAfile", text(&ca), "-verify_return_error", "-verify_hostname", "example.org"]).status.success());
    let leaf = server.data_dir().join("leaf.pem");
    std::fs::write(&leaf, said(&s_client(port, &[]))).expect("written");
    for (option, host, good) in [
        ("-verify_hostname", "localhost", true),
        ("-verify_hostname", "annas-studio.local", true),
        ("-verify_ip", "127.0.0.1", true),
        ("-verify_ip", "::1", true),
        ("-verify_hostname", "example.org", false),
        ("-verify_ip", "8.8.8.8", false),
    ] {
        let output = run("openssl", &["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", text(&ca), option, host, text(&leaf)]);
        assert_eq!(output.status.success(), good, "{host}: {}", said(&output));
    }
}

/// A child that ends with the test.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// openssl as a server that speaks TLS 1.1, and its port.
fn old_server() -> (Beside, u16) {
    let signer = Signer::new(false);
    let (cert, key) = signer.sign("old", "DNS:localhost");
    let arguments =
        ["s_server", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-accept", "127.0.0.1:0", "-cert", text(&cert), "-key", text(&key)];
    // It ends when its stdin does.
    let child = Command::new("openssl").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Beside(child.expect("openssl"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("its stdout")).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("ACCEPT ")).expect("it listens");
    let port = line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    std::thread::spawn(move || lines.for_each(drop));
    (child, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_1_is_refused_even_to_a_client_that_speaks_it() {
    let server = TestServer::open().await;
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let (_beside, control) = old_server();
    let spoken = s_client(control, &old);
    assert!(spoken.status.success() && said(&spoken).contains("Protocol  : TLSv1.1"), "this client speaks it: {}", said(&spoken));
    let newer = s_client(https(&server), &["-tls1_2", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(newer.status.success(), "one version later it is let in: {}", said(&newer));
    // rustls refuses for want of signature algorithms, which only TLS 1.2 brought, before it looks at the version.
    let refused = s_client(https(&server), &old);
    assert!(!refused.status.success() && said(&refused).contains("alert handshake failure"), "{}", said(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_led_to_https() {
    let server = TestServer::open().await;
    let port = https(&server);
    let ask = |host: String| {
        let url = format!("http://127.0.0.1:{port}/some/page?x=1");
        said(&run(
            "curl",
            &["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", &format!("Host: {host}"), &url],
        ))
    };
    assert_eq!(ask(format!("localhost:{port}")), format!("308 https://localhost:{port}/some/page?x=1"));
    assert_eq!(ask("evil.example".to_owned()), "421 ");
}

async fn connect(port: u16, ca: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec())).expect("an authority");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let host = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(config).connect(host, stream).await.expect("trusted")
}

fn leaf(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("sent")[0].to_vec()
}

/// Reads on until this was heard.
async fn hear(stream: &mut TlsStream<TcpStream>, what: &str) {
    let mut heard = Vec::new();
    let listening = async {
        while !String::from_utf8_lossy(&heard).contains(what) {
            assert_ne!(stream.read_buf(&mut heard).await.expect("no break"), 0, "it ended before {what}");
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, listening).await.is_ok();
    assert!(in_time, "no {what} in {}", String::from_utf8_lossy(&heard));
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_own_certificate_is_exchanged_under_open_connections() {
    let signer = Signer::new(true);
    let (cert, key) = (signer.path("live.pem"), signer.path("live.key"));
    let put = |from: &(PathBuf, PathBuf)| {
        std::fs::copy(&from.1, &key).expect("copied");
        std::fs::copy(&from.0, &cert).expect("copied");
    };
    let (first, second) = (signer.sign("first", "DNS:localhost"), signer.sign("second", "DNS:localhost"));
    put(&first);
    let server = TestServer::with(&["--tls-cert", text(&cert), "--tls-key", text(&key)], &[]).await;
    assert!(!server.data_dir().join("ca.pem").exists(), "no authority is made that nobody needs");
    let port = https(&server);
    let mut open = connect(port, signer.ca.der()).await;
    let old = leaf(&open);
    let request = format!("GET /t/{}/api/events HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n", server.token());
    open.write_all(request.as_bytes()).await.expect("sent");
    hear(&mut open, "text/event-stream").await;

    std::fs::write(&cert, "no certificate").expect("written");
    until("said that it is wrong", async || server.said().contains("cannot be used")).await;
    assert_eq!(leaf(&connect(port, signer.ca.der()).await), old, "the old one stays in use");

    put(&second);
    until("exchanged", async || leaf(&connect(port, signer.ca.der()).await) != old).await;
    let started = server.start(&format!("magnet:?xt=urn:btih:{}", "ab".repeat(20)), json!({})).await;
    hear(&mut open, started["streamId"].as_str().expect("an id")).await;
}

#[test]
fn a_server_with_a_wrong_certificate_does_not_start() {
    let signer = Signer::new(true);
    let (cert, _) = signer.sign("one", "DNS:localhost");
    let (_, other) = signer.sign("two", "DNS:localhost");
    let folder = tempfile::tempdir().expect("a folder");
    let [config, data, cache] = ["config", "data", "cache"].map(|name| folder.path().join(name));
    let flags = ["serve", "--bind", "127.0.0.1", "--http-port", "0", "--https-port", "0", "--no-dht", "--no-mdns", "--no-trackers"];
    let folders = ["--config-dir", text(&config), "--data-dir", text(&data), "--cache-dir", text(&cache)];
    let wrong = ["--tls-cert", text(&cert), "--tls-key", text(&other)];
    let output = run(env!("CARGO_BIN_EXE_balcony-server"), &[flags.as_slice(), &folders, &wrong].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    let sentence = told.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(sentence.contains(text(&cert)) && sentence.ends_with("the key does not belong to this certificate"), "{told}");
}

#[test]
fn keys_in_every_usual_form_are_taken() {
    let signer = Signer::new(true);
    let path = |name: &str| signer.path(name);
    let self_signed = |key: &str, cert: &str| {
        openssl(&[
            "req",
            "-x509",
            "-key",
            text(&path(key)),
            "-out",
            text(&path(cert)),
            "-subj",
            "/CN=x",
            "-addext",
            "subjectAltName=DNS:a.example",
            "-days",
            "5",
        ]);
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", text(&path("rsa8"))]);
    openssl(&["rsa", "-in", text(&path("rsa8")), "-traditional", "-out", text(&path("rsa1"))]);
    openssl(&["ecparam", "-name", "secp384r1", "-genkey", "-out", text(&path("ec1"))]);
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", text(&path("ed"))]);
    openssl(&["pkcs8", "-topk8", "-in", text(&path("rsa8")), "-passout", "pass:secret", "-out", text(&path("locked8"))]);
    openssl(&["rsa", "-in", text(&path("rsa8")), "-traditional", "-aes128", "-passout", "pass:secret", "-out", text(&path("locked1"))]);
    for (key, cert) in [("rsa8", "rsa.pem"), ("ec1", "ec.pem"), ("ed", "ed.pem")] {
        self_signed(key, cert);
    }
    let begins = |name: &str| std::fs::read_to_string(path(name)).expect("read").lines().next().expect("a line").to_owned();
    assert_eq!(
        ["rsa8", "rsa1", "ec1", "locked8", "locked1"].map(begins),
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PARAMETERS", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY"]
            .map(|kind| format!("-----BEGIN {kind}-----"))
    );
    let open = |cert: &str, key: &str| Tls::open(Certificates::Files { cert: path(cert), key: path(key) }, Names::default());
    for (cert, key) in [("rsa.pem", "rsa8"), ("rsa.pem", "rsa1"), ("ec.pem", "ec1"), ("ed.pem", "ed")] {
        assert_eq!(open(cert, key).unwrap_or_else(|error| panic!("{key}: {error}")).hosts(), ["a.example"]);
    }
    for key in ["locked8", "locked1"] {
        let error = open("rsa.pem", key).expect_err("locked").to_string();
        assert!(error.contains("the key is encrypted"), "{key}: {error}");
    }
}

/// 24 MiB, slowly enough that certificates change meanwhile: curl asks for 8 MiB a second.
const BODY: usize = 24 << 20;

fn router() -> axum::Router {
    let body = || async {
        let chunk = bytes::Bytes::from(vec![7_u8; 64 << 10]);
        let chunks = futures_util::stream::iter((0..BODY / chunk.len()).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
        axum::body::Body::from_stream(chunks)
    };
    axum::Router::new().route("/film", axum::routing::get(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_outlives_renewals() {
    let signer = Signer::new(true);
    let (ca, pem) = (signer.ca.der().to_vec(), signer.path("ca.pem"));
    let policy = Policy { renew_after: Duration::from_millis(200), settle: Duration::from_millis(20), ..Policy::default() };
    let authority = Authority::load_or_create(signer.folder.path(), "", true).expect("read");
    let tls = Tls::open_with(Certificates::Own(authority), Names::default(), policy).expect("opened");
    let tasks = Tasks::new();
    let sockets = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = sockets.local_addr().expect("its address").port();
    listener::serve(sockets, Speech::tls(tls.server_config()), router(), &Connections::default(), &tasks);
    let stop = CancellationToken::new();
    let (_names, names) = watch::channel(Names::default());
    let keeping = tokio::spawn(tls.clone().keep_fresh(names, stop.clone()));
    let downloads: Vec<_> = ["--http1.1", "--http2"]
        .iter()
        .map(|version| {
            let url = format!("https://localhost:{port}/film");
            let arguments = ["-sS", "--noproxy", "*", "--cacert", text(&pem), "--limit-rate", "8M", version, &url];
            let curl = Command::new("curl").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut curl = Beside(curl.expect("curl"));
            let mut stdout = curl.0.stdout.take().expect("its stdout");
            let read = std::thread::spawn(move || {
                let mut all = Vec::new();
                stdout.read_to_end(&mut all).map(|_| all)
            });
            (curl, read)
        })
        .collect();
    // Several renewals fall into the time of each download.
    let mut seen = vec![leaf(&connect(port, &ca).await)];
    while downloads.iter().any(|(_, read)| !read.is_finished()) {
        let now = leaf(&connect(port, &ca).await);
        if !seen.contains(&now) {
            seen.push(now);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(seen.len() >= 4, "{} certificates were seen", seen.len());
    for (mut curl, read) in downloads {
        let status = curl.0.wait().expect("its end");
        let mut stderr = String::new();
        curl.0.stderr.take().expect("its stderr").read_to_string(&mut stderr).expect("read");
        assert!(status.success(), "{stderr}");
        let body = read.join().expect("no panic").expect("read");
        assert!(body.len() == BODY && body.iter().all(|byte| *byte == 7), "{} bytes", body.len());
    }
    stop.cancel();
    keeping.await.expect("ended");
    tasks.end(Duration::from_secs(2)).await;
}
