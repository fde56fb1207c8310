//! The door, from outside: the real binary, real sockets, raw bytes where clients could not misbehave enough.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_balcony-server");

/// A server on its own folders and a free port; killed when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    https: SocketAddr,
    token: String,
    folder: tempfile::TempDir,
    stderr: PathBuf,
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BALCONY_")) {
        command.env_remove(name);
    }
    for name in ["config", "data", "cache"] {
        command.arg(format!("--{name}-dir")).arg(folder.join(name));
    }
    command.args(["--bind", "127.0.0.1", "--http-port", "0", "--https-port", "0", "--no-dht", "--no-trackers", "--no-mdns"]);
    command
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("folder"), arguments)
    }

    fn start_in(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let stderr = folder.path().join("stderr");
        let mut command = command(folder.path());
        command.args(arguments).stdout(Stdio::piped()).stderr(std::fs::File::create(&stderr).expect("file"));
        let mut child = command.spawn().expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let words = line.trim().strip_prefix("listening ").unwrap_or_else(|| panic!("{line:?}: {}", read(&stderr)));
        let word = |name: &str| words.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        let address = |name: &str| word(name).unwrap_or_else(|| panic!("{line:?}"));
        let (address, https) = (address("http"), address("https"));
        let token = read(&folder.path().join("data/admin-token")).trim().to_owned();
        Self { child, address, https, token, folder, stderr }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream
    }

    /// Sends these very bytes and reads one answer.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may answer and stop reading before everything is sent.
        let _ = stream.write_all(bytes);
        Answer::read(&mut BufReader::new(stream))
    }

    /// `GET /path` becomes a whole request with a right Host; header lines follow.
    fn ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.raw(&request(self.address, line, headers, body))
    }

    /// A connection to that address, from that one of ours.
    fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("bound");
        socket.connect(&to.into()).expect("connected");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream
    }

    /// A TLS connection that trusts the server's own authority and nobody else.
    fn tls(&self, alpn: &[&str]) -> StreamOwned<ClientConnection, TcpStream> {
        let config = Arc::new(client(&self.data("ca.pem"), alpn));
        let tcp = TcpStream::connect(self.https).expect("connected");
        tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let connection = ClientConnection::new(config, ServerName::from(self.https.ip())).expect("a client");
        StreamOwned::new(connection, tcp)
    }

    /// The same as [`Server::ask`], over HTTPS.
    fn ask_https(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = self.tls(&["http/1.1"]);
        stream.write_all(&request(self.https, line, headers, body)).expect("sent");
        Answer::read(&mut BufReader::new(stream))
    }

    /// Asks this address, with its own name as the host.
    fn ask_at(&self, address: SocketAddr, line: &str, headers: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.write_all(&request(address, line, headers, b"")).expect("sent");
        Answer::read(&mut BufReader::new(stream))
    }

    /// Pairs a phone; answers its token.
    fn pair(&self, name: &str) -> String {
        let json = "Content-Type: application/json";
        let offer = self.ask("POST /api/pairings", &[&self.authorization(), json], b"{}");
        assert_eq!(offer.status, 201, "{offer:?}");
        let body = serde_json::json!({ "code": offer.json()["code"], "deviceName": name, "platform": "test" }).to_string();
        let paired = self.ask("POST /api/pair", &[json], body.as_bytes());
        assert_eq!(paired.status, 201, "{paired:?}");
        paired.json()["token"].as_str().expect("a token").to_owned()
    }

    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    #[cfg(unix)]
    fn signal(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("pid"));
        nix::sys::signal::kill(pid, signal).expect("sent");
        self.wait()
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `GET /path` as a whole request with this host; header lines follow.
fn request(host: SocketAddr, line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// A TLS client that trusts the certificate of this file.
fn client(ca: &Path, alpn: &[&str]) -> ClientConfig {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("its authority")).expect("a certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn read(reader: &mut impl BufRead) -> Self {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a status line");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        let mut headers = vec![];
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a header");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Self { status, headers, body: vec![] };
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        answer.body = vec![0; length];
        reader.read_exact(&mut answer.body).expect("the body");
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a whole problem, and that its document and its status line agree.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["type"], format!("/problems/{code}"));
        assert_eq!((&document["title"], &document["detail"]), (&document["error"], &document["message"]));
        assert!(!document["title"].as_str().expect("text").is_empty() && !document["detail"].as_str().expect("text").is_empty());
        assert_eq!(document["traceId"].as_str().expect("text").len(), 16);
        document
    }
}

#[test]
fn health_needs_no_token() {
    let server = Server::start(&[]);
    let answer = server.ask("GET /api/health", &[], b"");
    assert_eq!(answer.status, 200);
    let health = answer.json();
    assert_eq!((&health["status"], &health["version"]), (&"ok".into(), &env!("CARGO_PKG_VERSION").into()));
    assert!(health["serverId"].as_str().expect("text").len() == 16 && health["timestamp"].as_str().expect("text").ends_with('Z'));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.ask(&format!("GET {path}"), &[], b"").status, 200, "{path}");
    }
    let document = server.ask("GET /api/openapi.json", &["Origin: https://anyone.example"], b"");
    assert_eq!(document.header("access-control-allow-origin"), Some("*"));
    assert!(document.json()["paths"]["/api/health"].is_object());
}

#[test]
fn what_does_not_exist_is_a_problem() {
    let server = Server::start(&[]);
    server.ask("GET /nothing/here", &[], b"").is_problem(404, "not_found");
    server.ask("GET /api/nothing", &[&server.authorization()], b"").is_problem(404, "not_found");
    let wrong = server.ask("DELETE /api/health", &[], b"");
    wrong.is_problem(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("GET,HEAD"));
    let head = server.raw(format!("HEAD /nothing HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).replace("HEAD", "GET").as_bytes());
    head.is_problem(404, "not_found");
}

#[test]
fn nothing_of_the_api_opens_without_a_token() {
    let server = Server::start(&[]);
    let (good, bad) = (server.authorization(), format!("Authorization: Bearer {}", "A".repeat(43)));
    for headers in [&[][..], &[bad.as_str()], &["Authorization: Basic eDp5"], &[&good, &good]] {
        let answer = server.ask("GET /api/nothing", headers, b"");
        answer.is_problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // Admitted, as far as the router.
    server.ask(&format!("GET /t/{}/api/nothing", server.token), &[], b"").is_problem(404, "not_found");
    assert_eq!(server.ask(&format!("GET /t/{}/api/health", server.token), &[], b"").status, 200);
    for path in ["/t/x/api/nothing".to_owned(), format!("/t/{}/api/nothing", "A".repeat(43)), format!("/t/{}/m/x", server.token)] {
        server.ask(&format!("GET {path}"), &[], b"").is_problem(401, "unauthenticated");
    }
}

#[test]
fn the_host_has_to_be_ours_and_only_one() {
    let server = Server::start(&[]);
    let port = server.address.port();
    let ask = |lines: &str| server.raw(format!("{lines}\r\n\r\n").as_bytes());
    for host in
        [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("LOCALHOST:{port}"), "localhost".to_owned(), "[::1]".to_owned()]
    {
        assert_eq!(ask(&format!("GET /healthz HTTP/1.1\r\nHost: {host}")).status, 200, "{host}");
    }
    assert_eq!(ask(&format!("GET http://localhost:{port}/healthz HTTP/1.1\r\nHost: localhost:{port}")).status, 200);
    for lines in [
        "GET /healthz HTTP/1.1\r\nHost: evil.example".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example".to_owned(),
        "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost".to_owned(),
        "GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example".to_owned(),
        "GET /healthz HTTP/1.1".to_owned(),
        "GET /healthz HTTP/1.0".to_owned(),
        "GET /m/ticket/master.m3u8 HTTP/1.1\r\nHost: evil.example".to_owned(),
    ] {
        ask(&lines).is_problem(421, "wrong_host");
    }
}

#[test]
fn foreign_pages_are_refused_and_own_ones_served() {
    let server = Server::start(&["--cors-origin", "https://app.example"]);
    let own = format!("Origin: http://{}", server.address);
    let token = server.authorization();
    for origin in ["Origin: https://evil.example", "Origin: null", "Origin: http://localhost:1"] {
        server.ask("GET /api/nothing", &[&token, origin], b"").is_problem(403, "forbidden");
        server.ask("OPTIONS /api/stream/start", &[origin, "Access-Control-Request-Method: POST"], b"").is_problem(403, "forbidden");
        assert_eq!(server.ask("GET /api/health", &[origin], b"").status, 200);
    }
    for origin in [own.as_str(), "Origin: https://app.example", "Origin: tauri://localhost", "Origin: capacitor://localhost"] {
        // Refused for want of a token, and the page may read that.
        let answer = server.ask("GET /api/nothing", &[origin], b"");
        answer.is_problem(401, "unauthenticated");
        assert_eq!(answer.header("access-control-allow-origin"), origin.strip_prefix("Origin: "));
        assert_eq!(answer.header("vary"), Some("Origin"));
        let preflight = server.ask("OPTIONS /api/stream/start", &[origin, "Access-Control-Request-Method: POST"], b"");
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, origin.strip_prefix("Origin: ")));
        assert!(preflight.header("access-control-allow-headers").is_some_and(|names| names.contains("Authorization")));
    }
    let media = server.ask("GET /m/none/master.m3u8", &["Origin: https://evil.example"], b"");
    assert_eq!((media.status, media.header("access-control-allow-origin")), (404, Some("*")));
}

#[test]
fn requests_that_break_http_get_problems_too() {
    let server = Server::start(&[]);
    let host = format!("Host: {}", server.address);
    server.raw(b"GARBAGE\r\n\r\n").is_problem(400, "bad_request");
    server.raw(format!("GET / HTTP/1.1\r\n{host}\r\nno colon\r\n\r\n").as_bytes()).is_problem(400, "bad_request");
    for size in [17 << 10, 120 << 10, 2 << 20] {
        let headers = format!("GET /healthz HTTP/1.1\r\n{host}\r\nX-Big: {}\r\n\r\n", "x".repeat(size));
        server.raw(headers.as_bytes()).is_problem(413, "too_large");
    }
    let many: String = (0..400).map(|n| format!("X-{n}: y\r\n")).collect();
    server.raw(format!("GET /healthz HTTP/1.1\r\n{host}\r\n{many}\r\n").as_bytes()).is_problem(413, "too_large");
    server.raw(format!("GET /{} HTTP/1.1\r\n{host}\r\n\r\n", "x".repeat(9 << 10)).as_bytes()).is_problem(413, "too_large");
    let fits = format!("GET /healthz HTTP/1.1\r\n{host}\r\nX-Fits: {}\r\n\r\n", "x".repeat(15 << 10));
    assert_eq!(server.raw(fits.as_bytes()).status, 200);
}

#[test]
fn http2_without_tls_comes_through_the_same_door() {
    let server = Server::start(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(server.address).await.expect("connected");
        let (mut client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
        tokio::spawn(connection);
        let host = server.address.to_string();
        let big = "x".repeat(20 << 10);
        let table = [
            (host.as_str(), "/api/health", "", 200, None),
            (&host, "/api/nothing", "", 401, Some("unauthenticated")),
            (&host, "/api/health", &big, 413, Some("too_large")),
            ("evil.example", "/api/health", "", 421, Some("wrong_host")),
        ];
        for (authority, path, header, status, code) in table {
            let uri = format!("http://{authority}{path}");
            let request = http::Request::get(uri).header("x-big", header).body(()).expect("request");
            let (answer, _) = client.send_request(request, true).expect("sent");
            let answer = answer.await.expect("answered");
            assert_eq!(answer.status().as_u16(), status, "{authority}{path}");
            let document: Value = serde_json::from_slice(&answer.into_body().data().await.expect("a body").expect("data")).expect("JSON");
            assert_eq!(document["code"].as_str(), code);
        }
    });
}

#[test]
fn strangers_are_slowed_down_and_known_devices_are_not() {
    let server = Server::start(&[]);
    let ask = |line: &str, headers: &[&str]| (0..60).map(|_| server.ask(line, headers, b"")).collect::<Vec<_>>();
    let refused = (0..1000).map(|_| server.ask("GET /api/nothing", &[], b"")).find(|answer| answer.status != 401).expect("slowed down");
    refused.is_problem(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(ask("GET /api/nothing", &[&server.authorization()]).iter().all(|answer| answer.status == 404));
    assert!(ask("GET /", &[]).iter().all(|answer| answer.status != 429), "pages are never counted");
}

#[test]
fn https_is_the_whole_api() {
    let server = Server::start(&[]);
    let health = server.ask_https("GET /api/health", &[], b"");
    assert_eq!((health.status, &health.json()["status"]), (200, &"ok".into()));
    server.ask_https("GET /api/nothing", &[], b"").is_problem(401, "unauthenticated");
    server.ask_https("GET /api/nothing", &[&server.authorization()], b"").is_problem(404, "not_found");
    let magnet = format!("{{\"magnetLink\":\"{}\"}}", "a".repeat(40));
    let headers = [server.authorization(), "Content-Type: application/json".to_owned()];
    let headers = headers.each_ref().map(String::as_str);
    for (started, base) in [
        (server.ask_https("POST /api/stream/start", &headers, magnet.as_bytes()), format!("https://{}/m/", server.https)),
        (server.ask("POST /api/stream/start", &headers, magnet.as_bytes()), format!("http://{}/m/", server.address)),
    ] {
        assert!(matches!(started.status, 200 | 201), "{started:?}");
        let events = started.json()["eventsUrl"].as_str().expect("an address").to_owned();
        assert!(events.starts_with(&base), "{events} is not on {base}");
    }
    let mut broken = server.tls(&["http/1.1"]);
    broken.write_all(b"GARBAGE\r\n\r\n").expect("sent");
    Answer::read(&mut BufReader::new(broken)).is_problem(400, "bad_request");
    let big = format!("X-Big: {}", "x".repeat(20 << 10));
    server.ask_https("GET /healthz", &[&big], b"").is_problem(413, "too_large");
    let huge = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: {}\r\n\r\n", "x".repeat(120 << 10));
    let mut stream = server.tls(&["http/1.1"]);
    let _ = stream.write_all(huge.as_bytes());
    Answer::read(&mut BufReader::new(stream)).is_problem(413, "too_large");
}

#[test]
fn nobody_else_vouches_for_us() {
    let (server, other) = (Server::start(&[]), Server::start(&[]));
    let config = Arc::new(client(&other.data("ca.pem"), &["http/1.1"]));
    let connection = ClientConnection::new(config, ServerName::from(server.https.ip())).expect("a client");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(server.https).expect("connected"));
    let error = stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").expect_err("not trusted");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn http2_over_tls_comes_through_the_same_door() {
    let server = Server::start(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(&server.data("ca.pem"), &["h2", "http/1.1"])));
        let tcp = tokio::net::TcpStream::connect(server.https).await.expect("connected");
        let tls = connector.connect(ServerName::from(server.https.ip()), tcp).await.expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut client, connection) = h2::client::handshake(tls).await.expect("HTTP/2");
        tokio::spawn(connection);
        let host = server.https.to_string();
        let (big, bearer) = ("x".repeat(20 << 10), format!("Bearer {}", server.token));
        type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, Option<&'a str>);
        let table: &[Row<'_>] = &[
            (&host, "/api/health", &[], 200, None),
            (&host, "/api/health", &[("host", &host)], 200, None),
            (&host, "/api/nothing", &[], 401, Some("unauthenticated")),
            (&host, "/api/nothing", &[("authorization", &bearer)], 404, Some("not_found")),
            (&host, "/api/nothing", &[("authorization", &bearer), ("origin", "https://evil.example")], 403, Some("forbidden")),
            (&host, "/api/health", &[("x-big", &big)], 413, Some("too_large")),
            (&host, "/api/health", &[("x-a", &big), ("x-b", &big), ("x-c", &big), ("x-d", &big), ("x-e", &big)], 413, Some("too_large")),
            ("evil.example", "/api/health", &[], 421, Some("wrong_host")),
            (&host, "/api/health", &[("host", "evil.example")], 421, Some("wrong_host")),
            (&host, "/api/health", &[("host", "localhost")], 421, Some("wrong_host")),
            (&host, "/api/health", &[("host", &host), ("host", &host)], 421, Some("wrong_host")),
        ];
        for (authority, path, headers, status, code) in table {
            let mut request = http::Request::get(format!("https://{authority}{path}"));
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let (answer, _) = client.send_request(request.body(()).expect("request"), true).expect("sent");
            let answer = answer.await.unwrap_or_else(|error| panic!("{error}: {authority}{path} {headers:?}"));
            assert_eq!(answer.status().as_u16(), *status, "{authority}{path} {headers:?}");
            let document: Value = serde_json::from_slice(&answer.into_body().data().await.expect("a body").expect("data")).expect("JSON");
            assert_eq!(document["code"].as_str(), *code);
        }
        // What the framework refuses by itself, and a body of the wrong kind.
        for (method, path, body, status, code) in
            [("DELETE", "/api/health", "", 405, "method_not_allowed"), ("POST", "/api/stream/start", "{}", 415, "unsupported_media_type")]
        {
            let uri = format!("https://{host}{path}");
            let request = http::Request::builder().method(method).uri(uri).header("authorization", &bearer).body(()).expect("request");
            let (answer, mut send) = client.send_request(request, body.is_empty()).expect("sent");
            if !body.is_empty() {
                send.send_data(body.into(), true).expect("sent");
            }
            let answer = answer.await.expect("answered");
            assert_eq!(answer.status().as_u16(), status, "{method} {path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let document: Value = serde_json::from_slice(&answer.into_body().data().await.expect("a body").expect("data")).expect("JSON");
            assert_eq!(document["code"], code);
        }
    });
}

#[test]
fn plain_http_on_the_port_of_tls_is_led_to_https() {
    let server = Server::start(&[]);
    let port = server.https.port();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/", "/api/streams?a=b", "/m/x/master.m3u8", "//evil.example/"] {
            let answer = server.ask_at(server.https, &format!("{method} {path}"), &[]);
            assert_eq!(answer.status, 308, "{method} {path}");
            assert_eq!(answer.header("location"), Some(format!("https://127.0.0.1:{port}{path}").as_str()));
        }
    }
    for method in ["GET", "OPTIONS"] {
        let answer = server.ask_at(server.https, &format!("{method} *"), &[]);
        assert_eq!((answer.status, answer.header("location")), (308, Some(format!("https://127.0.0.1:{port}/").as_str())));
    }
    let ask = |host: &str| {
        let mut stream = TcpStream::connect(server.https).expect("connected");
        write!(stream, "GET /x HTTP/1.1\r\n{host}Connection: close\r\n\r\n").expect("sent");
        Answer::read(&mut BufReader::new(stream))
    };
    let own = ask("Host: localhost:1\r\n");
    assert_eq!((own.status, own.header("location")), (308, Some(format!("https://localhost:{port}/x").as_str())));
    for host in ["Host: evil.example\r\n", "", "Host: localhost\r\nHost: evil.example\r\n", "Host: localhost@evil.example\r\n"] {
        let answer = ask(host);
        answer.is_problem(421, "wrong_host");
        assert_eq!(answer.header("location"), None);
    }
}

#[test]
fn a_handshake_that_does_not_go_on_is_cut_off_and_costs_no_noise() {
    let server = Server::start(&[]);
    let started = Instant::now();
    let mut ends = vec![];
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01", b"G", b"\x16\x03\x01\xff\xff", b"\x16garbage that is no record"] {
        let mut stream = TcpStream::connect(server.https).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream.write_all(bytes).expect("sent");
        ends.push(std::thread::spawn(move || {
            // Whatever is said (an alert), it ends, by an end or by a reset.
            let _ = stream.read_to_end(&mut vec![]);
        }));
    }
    // Gone at once: nobody waits for them.
    for _ in 0..20 {
        drop(TcpStream::connect(server.https).expect("connected"));
    }
    for end in ends {
        end.join().expect("ended");
    }
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    assert_eq!(server.ask_https("GET /healthz", &[], b"").status, 200);
    let said = read(&server.stderr);
    assert!(!said.contains("WARN") && !said.contains("ERROR") && !said.contains("handshake"), "{said}");
}

#[test]
fn plain_http_gives_the_lan_no_more_than_what_leads_to_https() {
    let server = Server::start(&["--bind", "127.0.0.2"]);
    let lan: SocketAddr = (IpAddr::from([127, 0, 0, 2]), server.address.port()).into();
    assert_eq!(server.https.ip(), lan.ip());
    let https = format!("https://127.0.0.2:{}", server.https.port());
    for path in ["/api/health", "/healthz", "/readyz", "/p", "/ca.pem", "/ca.crt", "/ca.mobileconfig"] {
        let answer = server.ask_at(lan, &format!("GET {path}"), &["Origin: https://anyone.example"]);
        let right = if path.starts_with("/p") || path.starts_with("/ca") { 403 } else { 200 };
        assert_eq!(answer.status, right, "{path}: foreign pages may know that we live, and no more");
        let answer = server.ask_at(lan, &format!("GET {path}"), &[]);
        assert_eq!(answer.status, 200, "{path}");
    }
    let bearer = server.authorization();
    let by_path = format!("/t/{}/api/streams", server.token);
    for (method, path) in [
        ("GET", "/api/streams"),
        ("GET", "/api/openapi.json"),
        ("POST", "/api/stream/start"),
        ("POST", "/api/pair"),
        ("OPTIONS", "/api/streams"),
        ("GET", "/metrics"),
        ("GET", "/m/ticket/master.m3u8"),
        ("HEAD", "/api/health/x"),
        ("GET", &by_path),
    ] {
        let mut stream = TcpStream::connect(lan).expect("connected");
        stream.write_all(&request(lan, &format!("{} {path}", method.replace("HEAD", "GET")), &[&bearer], b"")).expect("sent");
        let problem = Answer::read(&mut BufReader::new(stream)).is_problem(403, "forbidden");
        assert!(problem["detail"].as_str().expect("text").contains(&https), "{problem}");
        assert!(!problem.to_string().contains(&server.token));
    }
    let root = server.ask_at(lan, "GET /", &[]);
    assert_eq!((root.status, root.header("location")), (307, Some("/p")));
    for path in ["/pair", "/settings?a=b", "/index.html"] {
        let answer = server.ask_at(lan, &format!("GET {path}"), &[]);
        assert_eq!((answer.status, answer.header("location")), (308, Some(format!("{https}{path}").as_str())));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let mut stream = TcpStream::connect(lan).expect("connected");
    stream.write_all(b"GET /pair HTTP/1.1\r\nHost: evil.example\r\n\r\n").expect("sent");
    Answer::read(&mut BufReader::new(stream)).is_problem(421, "wrong_host");
    // On loopback the same server is the full API.
    server.ask("GET /api/nothing", &[&bearer], b"").is_problem(404, "not_found");
    assert_eq!(server.ask("GET /p", &[], b"").status, 200);
}

#[test]
fn browsers_hear_what_they_may_do() {
    let server = Server::start(&[]);
    for path in ["/", "/p", "/pair", "/nothing"] {
        let page = server.ask(&format!("GET {path}"), &[], b"");
        let policy = page.header("content-security-policy").unwrap_or_else(|| panic!("{page:?}"));
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        // The pages that were built into the program are asked for again each time.
        let kept = if page.status == 200 && path != "/p" { "no-cache" } else { "no-store" };
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", kept),
        ] {
            assert_eq!(page.header(name), Some(value), "{path} {name}");
        }
        assert!(page.header("permissions-policy").is_some() && page.header("strict-transport-security").is_none(), "{path}");
    }
    for (path, resources) in [("/api/health", "cross-origin"), ("/api/openapi.json", "cross-origin"), ("/api/nothing", "same-origin")] {
        let answer = server.ask(&format!("GET {path}"), &[], b"");
        let expected = [Some("nosniff"), Some("no-store"), Some(resources)];
        assert_eq!(
            ["x-content-type-options", "cache-control", "cross-origin-resource-policy"].map(|name| answer.header(name)),
            expected,
            "{path}"
        );
    }
    let included = ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"];
    server.ask("GET /", &included, b"").is_problem(403, "forbidden");
    server.ask("GET /api/streams", &["Sec-Fetch-Site: cross-site", &server.authorization()], b"").is_problem(403, "forbidden");
    let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
    assert_ne!(server.ask("GET /", &link, b"").status, 403);
}

#[test]
fn starts_are_limited_and_mistyped_links_are_not_counted() {
    let server = Server::start(&[]);
    let headers = [server.authorization(), "Content-Type: application/json".to_owned()];
    let start = |link: &str| {
        let body = format!("{{\"magnetLink\":\"{link}\"}}");
        server.ask("POST /api/stream/start", &headers.each_ref().map(String::as_str), body.as_bytes())
    };
    assert!((0..30).all(|_| start("magnet:?dn=nothing").status == 400));
    let link = format!("magnet:?xt=urn:btih:{}", "a1".repeat(20));
    assert!((0..20).all(|_| matches!(start(&link).status, 200 | 201)));
    let refused = (0..20).map(|_| start(&link)).find(|answer| !matches!(answer.status, 200 | 201)).expect("limited");
    refused.is_problem(429, "too_many_requests");
    assert!(
        refused.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait))),
        "{refused:?}"
    );
    // The other calls of this device go on.
    assert_eq!(server.ask("GET /api/streams", &[&server.authorization()], b"").status, 200);
}

#[test]
fn attempts_to_pair_are_limited_by_address() {
    let server = Server::start(&[]);
    let body = br#"{"code":"AAAAAAAA","deviceName":"x","platform":"x"}"#;
    let attempt_at = |path: &str, from: [u8; 4]| {
        let mut stream = Server::connect_from(from, server.address);
        stream.write_all(&request(server.address, &format!("POST {path}"), &["Content-Type: application/json"], body)).expect("sent");
        Answer::read(&mut BufReader::new(stream))
    };
    let attempt = |from| attempt_at("/api/pair", from);
    let first: Vec<_> = (0..10).map(|_| attempt([127, 0, 0, 3]).status).collect();
    assert!(first.iter().all(|status| matches!(status, 403 | 410)), "{first:?}");
    let refused = (0..5).map(|_| attempt([127, 0, 0, 3])).find(|answer| answer.status == 429).expect("limited");
    refused.is_problem(429, "too_many_requests");
    assert!(refused.header("retry-after").and_then(|wait| wait.parse::<u64>().ok()).is_some_and(|wait| (1..=6).contains(&wait)));
    assert!(matches!(attempt([127, 0, 0, 4]).status, 403 | 410), "others may try");
    // A token in front, good or not, does not lead around it.
    for token in [&server.token, &"A".repeat(43)] {
        let path = format!("/t/{token}/api/pair");
        let refused = (0..12).map(|_| attempt_at(&path, [127, 0, 0, 5])).find(|answer| answer.status == 429);
        refused.unwrap_or_else(|| panic!("not limited with {token}")).is_problem(429, "too_many_requests");
    }
}

#[test]
fn guessed_tickets_are_limited_and_good_ones_are_not() {
    let server = Server::start(&[]);
    let headers = [server.authorization(), "Content-Type: application/json".to_owned()];
    let magnet = format!("{{\"magnetLink\":\"{}\"}}", "b".repeat(40));
    let started = server.ask("POST /api/stream/start", &headers.each_ref().map(String::as_str), magnet.as_bytes()).json();
    let events = started["eventsUrl"].as_str().expect("an address");
    let good = events.strip_prefix(&format!("http://{}", server.address)).expect("ours").to_owned();
    let mut line = BufReader::new(server.connect());
    let mut guess = |n: usize| {
        write!(line.get_mut(), "GET /m/guessed{n}/master.m3u8 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        Answer::read(&mut line)
    };
    // One after the other without waiting for the answers, so that it is quick on a busy machine, too.
    let mut quick = BufReader::new(server.connect());
    let guesses: String = (0..200).map(|n| format!("GET /m/quick{n}/master.m3u8 HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    quick.get_mut().write_all(guesses.as_bytes()).expect("sent");
    let refused = (0..200).map(|_| Answer::read(&mut quick)).find(|answer| answer.status != 404).expect("limited");
    refused.is_problem(429, "too_many_requests");
    assert!(refused.header("retry-after").is_some());
    for n in 0..40 {
        guess(n);
        let mut stream = server.connect();
        write!(stream, "GET {good} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        assert_eq!(Answer::read(&mut BufReader::new(stream)).status, 200);
    }
}

#[test]
fn few_torrents_are_looked_into_at_once_and_a_revoked_device_waits_no_longer() {
    let server = Server::start(&[]);
    let token = server.pair("Phone");
    let bearer = format!("Authorization: Bearer {token}");
    let begin = |n: usize| {
        let mut stream = server.connect();
        let body = format!("{{\"magnetLink\":\"{n:040x}\"}}");
        stream
            .write_all(&request(
                server.address,
                "POST /api/torrents/inspect",
                &[&bearer, "Content-Type: application/json"],
                body.as_bytes(),
            ))
            .expect("sent");
        BufReader::new(stream)
    };
    let waiting: Vec<_> = (1..4).map(begin).collect();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let refused = Answer::read(&mut begin(4));
    refused.is_problem(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let id = server.ask("GET /api/devices/me", &[&bearer], b"").json()["id"].as_str().expect("its id").to_owned();
    assert_eq!(server.ask(&format!("DELETE /api/devices/{id}"), &[&server.authorization()], b"").status, 204);
    for mut waiting in waiting {
        Answer::read(&mut waiting).is_problem(401, "unauthenticated");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_device_that_revokes_itself_hears_so_before_its_connection_is_reset() {
    let server = Server::start(&[]);
    let bearer = format!("Bearer {}", server.pair("Phone"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(server.address).await.expect("connected");
        let (mut client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let mut ask = |method: &str, path: &str| {
            let uri = format!("http://{}{path}", server.address);
            let request = http::Request::builder().method(method).uri(uri).header("authorization", &bearer).body(()).expect("request");
            client.send_request(request, true).expect("sent").0
        };
        let me = ask("GET", "/api/devices/me").await.expect("answered");
        let me: Value = serde_json::from_slice(&me.into_body().data().await.expect("a body").expect("data")).expect("JSON");
        let mut events = ask("GET", "/api/events").await.expect("answered").into_body();
        assert!(events.data().await.expect("a beginning").is_ok());
        let revoked = Instant::now();
        let answer = ask("DELETE", &format!("/api/devices/{}", me["id"].as_str().expect("its id"))).await.expect("answered");
        assert_eq!(answer.status(), 204);
        while let Some(Ok(_)) = events.data().await {}
        let ended = connection.await.expect("ended");
        assert!(revoked.elapsed() < Duration::from_secs(2), "{:?}", revoked.elapsed());
        assert!(ended.is_err(), "reset");
    });
}

/// A connection that says that it speaks HTTP/2, and then nothing.
fn sits(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let mut stream = Server::connect_from(from, to);
    // The preface and an empty SETTINGS frame (RFC 9113 sections 3.4 and 6.5).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").ok();
    stream
}

#[test]
fn strangers_who_sit_on_all_connections_do_not_keep_a_phone_out() {
    let server = Server::start(&["--bind", "127.0.0.2"]);
    let bearer = format!("Authorization: Bearer {}", server.pair("Phone"));
    let lan = |port| SocketAddr::from(([127, 0, 0, 2], port));
    let https = lan(server.https.port());
    let config = Arc::new(client(&server.data("ca.pem"), &["http/1.1"]));
    let phone = |from| {
        let tls = ClientConnection::new(config.clone(), ServerName::from(https.ip())).expect("a client");
        BufReader::new(StreamOwned::new(tls, Server::connect_from(from, https)))
    };
    let ask = |phone: &mut BufReader<StreamOwned<ClientConnection, TcpStream>>| {
        let head = format!("GET /api/devices/me HTTP/1.1\r\nHost: {https}\r\n{bearer}\r\n\r\n");
        phone.get_mut().write_all(head.as_bytes()).expect("sent");
        Answer::read(phone).status
    };
    let mut sitting: Vec<_> = (0..512).map(|n| sits([127, 0, 1, (n / 128) as u8 + 1], lan(server.address.port()))).collect();
    let mut first = phone([127, 0, 0, 3]);
    assert_eq!(ask(&mut first), 200, "with four addresses");
    // Whoever showed a token stays, however many come.
    sitting.extend((0..600).map(|n| sits([127, 0, 2, (n % 50) as u8 + 1], lan(server.address.port()))));
    assert_eq!(ask(&mut first), 200, "its connection is kept");
    assert_eq!(ask(&mut phone([127, 0, 0, 4])), 200, "with fifty addresses");
    let out = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        let mut sink = vec![];
        !stream.read_to_end(&mut sink).is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock))
    };
    assert!(out(&mut sitting[0]), "who sat there longest had to leave");
    assert!(!out(sitting.last_mut().expect("the last")));
}

#[test]
fn a_device_that_floods_is_refused_and_others_are_not() {
    let server = Server::start(&[]);
    let (flooding, calm) = (server.pair("Flooding"), server.pair("Calm"));
    let count = 1500;
    let mut flood = BufReader::new(server.connect());
    let one = format!("GET /api/devices/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {flooding}\r\n\r\n");
    let mut sending = flood.get_ref().try_clone().expect("cloned");
    let sender = std::thread::spawn(move || sending.write_all(one.repeat(count).as_bytes()).expect("sent"));
    let started = Instant::now();
    let answers: Vec<_> = (0..count).map(|_| Answer::read(&mut flood)).collect();
    let seconds = started.elapsed().as_secs_f64();
    sender.join().expect("sent");
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(served >= 400, "{served}: what is in store");
    assert!(served as f64 <= 410.0 + 200.0 * seconds, "{served} in {seconds} s");
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.is_problem(429, "too_many_requests");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    let calm = format!("Authorization: Bearer {calm}");
    assert!((0..50).all(|_| server.ask("GET /api/devices/me", &[&calm], b"").status == 200));
}

#[test]
fn a_device_is_sent_so_much_at_once_and_no_more() {
    let server = Server::start(&[]);
    let token = server.pair("Phone");
    let headers = [format!("Authorization: Bearer {token}"), "Content-Type: application/json".to_owned()];
    let magnet = format!("{{\"magnetLink\":\"{}\"}}", "b".repeat(40));
    let started = server.ask("POST /api/stream/start", &headers.each_ref().map(String::as_str), magnet.as_bytes()).json();
    let events = started["eventsUrl"].as_str().expect("an address");
    let path = events.strip_prefix(&format!("http://{}", server.address)).expect("ours");
    let open = || {
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut reader = BufReader::new(stream);
        (Answer::read(&mut reader), reader)
    };
    let mut lines: Vec<_> = (0..64).map(|_| open()).collect();
    assert!(lines.iter().all(|(answer, _)| answer.status == 200));
    let (refused, _) = open();
    refused.is_problem(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    lines.truncate(60);
    let started = Instant::now();
    while open().0.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "seats are given back");
        std::thread::sleep(Duration::from_millis(50));
    }
    // A revoked device hears nothing more, and its connection ends.
    let me = server.ask("GET /api/devices/me", &[&headers[0]], b"").json();
    let id = me["id"].as_str().expect("its id");
    assert_eq!(server.ask(&format!("DELETE /api/devices/{id}"), &[&server.authorization()], b"").status, 204);
    let revoked = Instant::now();
    for (_, mut reader) in lines {
        reader.read_to_end(&mut vec![]).ok();
    }
    assert!(revoked.elapsed() < Duration::from_secs(10), "{:?}", revoked.elapsed());
    assert_eq!(open().0.status, 404);
}

#[test]
fn one_address_cannot_take_all_connections() {
    let server = Server::start(&["--bind", "127.0.0.2"]);
    let lan: SocketAddr = (IpAddr::from([127, 0, 0, 2]), server.address.port()).into();
    let ask = |stream: &TcpStream| {
        let mut stream = stream;
        stream.write_all(&request(lan, "GET /healthz", &[], b"")).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok().filter(|read| *read > 0)
    };
    let open: Vec<_> = (0..128).map(|_| Server::connect_from([127, 0, 0, 5], lan)).collect();
    let closed = || {
        let is_closed = |stream: &&TcpStream| {
            stream.set_nonblocking(true).expect("set");
            matches!(stream.peek(&mut [0]), Ok(0))
        };
        open.iter().filter(is_closed).count()
    };
    assert_eq!(closed(), 0);
    let one_more = Server::connect_from([127, 0, 0, 5], lan);
    assert!(ask(&one_more).is_some(), "who comes new is served");
    let started = Instant::now();
    while closed() == 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "one of the same address has to go for it");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(closed(), 1);
    assert!(ask(&Server::connect_from([127, 0, 0, 6], lan)).is_some(), "another address is served");
    assert_eq!(server.ask("GET /healthz", &[], b"").status, 200);
    drop(open);
    let started = Instant::now();
    while ask(&Server::connect_from([127, 0, 0, 5], lan)).is_none() {
        assert!(started.elapsed() < Duration::from_secs(20), "places are given back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_body_that_does_not_come_is_answered_with_a_problem() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let head = format!(
        "POST /api/torrents/inspect HTTP/1.1\r\nHost: localhost\r\n{}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        server.authorization()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    Answer::read(&mut BufReader::new(stream)).is_problem(408, "bad_request");
}

#[test]
fn a_connection_is_kept_for_many_requests() {
    let server = Server::start(&[]);
    let mut reader = BufReader::new(server.connect());
    for _ in 0..3 {
        write!(reader.get_mut(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        assert_eq!(Answer::read(&mut reader).status, 200);
        write!(reader.get_mut(), "GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        Answer::read(&mut reader).is_problem(404, "not_found");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::create_dir(folder.path().join("config")).expect("made");
    std::fs::write(folder.path().join("config/config.toml"), "colour = \"red\"\nexpire-after = \"soon\"\n").expect("written");
    let mut command = command(folder.path());
    command.args(["--wat", "--stall-timeout", "5"]).env("BALCONY_NOPE", "1").env("BALCONY_QUEUE_LENGTH", "many");
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).expect("text");
    let expected = ["--wat", "BALCONY_NOPE", "colour", "--expire-after", "--stall-timeout", "--queue-length"];
    assert_eq!(text.lines().count(), expected.len(), "{text}");
    for name in expected {
        assert_eq!(text.lines().filter(|line| line.contains(name) && line.ends_with('.')).count(), 1, "{name}: {text}");
    }
    assert!(!folder.path().join("data").exists(), "it did not start");
}

#[test]
fn the_api_document_is_printed() {
    let output = Command::new(BINARY).arg("openapi").output().expect("run");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success() && document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert!(document["components"]["schemas"]["Problem"].is_object());
}

#[cfg(unix)]
mod life {
    use super::*;
    use nix::sys::signal::Signal;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}")).permissions().mode() & 0o777
    }

    #[test]
    fn run_json_tells_where_we_are_and_secrets_are_for_us_only() {
        let server = Server::start(&[]);
        let run: Value = serde_json::from_str(&read(&server.data("run.json"))).expect("JSON");
        assert_eq!(run["pid"], server.child.id());
        assert_eq!(run["http"], server.address.to_string());
        assert_eq!(run["https"], server.https.to_string());
        let token_file = PathBuf::from(run["adminTokenFile"].as_str().expect("text"));
        assert_eq!(read(&token_file).trim(), server.token);
        assert!(token_file.is_absolute() && server.token.len() == 43);
        assert_eq!(mode(&server.data("")), 0o700);
        for name in ["admin-token", "ticket-key", "balcony.sqlite", "balcony.sqlite-wal", "lock", "run.json", "logs/balcony.log"] {
            assert_eq!(mode(&server.data(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_signal_stops_in_order() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut server = Server::start(&[]);
            // An idle connection does not hold it up.
            let mut idle = BufReader::new(server.connect());
            write!(idle.get_mut(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            assert_eq!(Answer::read(&mut idle).status, 200);
            let started = Instant::now();
            assert_eq!(server.signal(signal).code(), Some(0), "{}", read(&server.stderr));
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
            assert!(!server.data("run.json").exists());
            assert!(read(&server.data("logs/balcony.log")).contains("stopped"));
        }
    }

    #[test]
    fn the_second_server_is_refused_with_the_pid_of_the_first() {
        let server = Server::start(&[]);
        let second = command(server.folder.path()).output().expect("run");
        let text = String::from_utf8(second.stderr).expect("text");
        assert_eq!(second.status.code(), Some(1));
        assert!(text.contains(&format!("pid {}", server.child.id())), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        // The first is not disturbed.
        assert!(server.data("run.json").exists());
        assert_eq!(server.ask("GET /healthz", &[], b"").status, 200);
    }

    #[test]
    fn after_a_kill_it_starts_again_as_the_same_server() {
        let mut server = Server::start(&[]);
        let id = server.ask("GET /api/health", &[], b"").json()["serverId"].clone();
        let token = server.token.clone();
        assert!(read(&server.stderr).contains("This is your own server."), "the notice of the first start");
        assert_eq!(server.signal(Signal::SIGKILL).code(), None);
        let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("folder"));
        let again = Server::start_in(folder, &[]);
        assert_eq!(again.ask("GET /api/health", &[], b"").json()["serverId"], id);
        assert_eq!(again.token, token);
        assert!(!read(&again.stderr).contains("This is your own server."), "the notice comes once");
    }

    #[test]
    fn a_database_in_the_way_is_said_in_a_sentence() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(folder.path().join("data/balcony.sqlite")).expect("made");
        let output = command(folder.path()).output().expect("run");
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("balcony.sqlite cannot be opened") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn no_token_reaches_the_log() {
        let mut server = Server::start(&["--log", "trace"]);
        for line in [format!("GET /t/{}/api/nothing", server.token), "GET /api/nothing".to_owned(), "GET /api/health".to_owned()] {
            server.ask(&line, &[&server.authorization()], b"");
        }
        server.signal(Signal::SIGTERM);
        let log = read(&server.data("logs/balcony.log")) + &read(&server.stderr);
        assert!(log.contains("/api/health"), "routes are logged");
        assert!(!log.contains(&server.token));
    }
}
