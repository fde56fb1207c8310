//! A whole life of a server that logs everything, with known secrets in every place where one can stand; then every file that it left is
//! searched for them, in every shape in which a library may print bytes.
//!
//! The search proves itself: what it must find (lines of the log, a planted secret) is looked for in the same way.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/hls.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod hls;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use balcony_media::magnet::Magnet;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use memchr::memmem::Finder;
use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Files that hold secrets because that is what they are for. Each is for this user only.
const KEEPERS: [&str; 3] = ["admin-token", "ticket-key", "ca.key"];

/// How long one call over HTTPS may take on a busy machine, in seconds.
const PATIENCE: &str = "30";

/// Something that must not be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Canary {
    what: String,
    secret: Vec<u8>,
    /// Whether the database may keep it, as it keeps the links of its streams.
    kept: bool,
}

#[derive(Default)]
struct Canaries(BTreeSet<Canary>);

impl Canaries {
    fn add(&mut self, what: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref().to_vec();
        assert!(secret.len() >= 8, "{what} is too short to be looked for");
        self.0.insert(Canary { what: what.to_owned(), secret, kept: false });
    }

    fn add_kept(&mut self, what: &str, secret: &str) {
        self.0.insert(Canary { what: what.to_owned(), secret: secret.into(), kept: true });
    }

    fn count(&self, what: &str) -> usize {
        self.0.iter().filter(|canary| canary.what.starts_with(what)).count()
    }
}

/// How a library may write bytes into a line.
fn shapes(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let decimals: Vec<String> = secret.iter().map(u8::to_string).collect();
    let percent: String = url::form_urlencoded::byte_serialize(secret).collect();
    let mut shapes = vec![
        ("as it is", secret.to_vec()),
        ("lower-case hex", HEXLOWER.encode(secret).into()),
        ("upper-case hex", HEXUPPER.encode(secret).into()),
        ("a list of numbers", decimals.join(", ").into()),
        ("base64url", BASE64URL_NOPAD.encode(secret).into()),
        ("base64", BASE64.encode(secret).trim_end_matches('=').into()),
        ("percent-encoded", percent.into()),
        ("escaped", secret.escape_ascii().to_string().into()),
        ("lower-case", secret.to_ascii_lowercase()),
    ];
    let mut seen = BTreeSet::new();
    shapes.retain(|(_, shape)| seen.insert(shape.clone()));
    shapes
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("its type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn is_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("log") || name == "stderr.txt")
}

/// Says where which secret stands, and what surrounds it.
fn search(folder: &Path, canaries: &Canaries) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(folder) {
        if path.file_name().is_some_and(|name| KEEPERS.iter().any(|keeper| name == *keeper)) {
            continue;
        }
        // What a running server has removed meanwhile holds nothing.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for canary in canaries.0.iter().filter(|canary| is_log(&path) || !canary.kept) {
            for (shape, needle) in shapes(&canary.secret) {
                if let Some(at) = Finder::new(&needle).find(&bytes) {
                    let around = &bytes[at.saturating_sub(300)..bytes.len().min(at + needle.len() + 100)];
                    let around = String::from_utf8_lossy(around);
                    found.push(format!("{}, {shape}, in {}: {around}", canary.what, path.display()));
                }
            }
        }
    }
    found
}

/// Sees the addresses that are given to children of the server, in their arguments.
struct Watch {
    stop: mpsc::Sender<()>,
    looking: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    fn over(server: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let looking = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(5)) {
                seen.extend(secrets_of_children(server));
            }
            seen
        });
        Self { stop, looking }
    }

    /// The part of each address that cannot be guessed.
    fn end(self) -> BTreeSet<String> {
        drop(self.stop);
        self.looking.join().expect("the watch")
    }
}

fn secrets_of_children(server: u32) -> Vec<String> {
    let numbers = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(server)
    };
    let secret = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        let word = line.split('\0').find(|word| word.starts_with("http://127.0.0.1:") && word.ends_with("/film"))?;
        Some(word.trim_end_matches("/film").rsplit('/').next()?.to_owned())
    };
    numbers.filter(child).filter_map(secret).collect()
}

/// A tracker that knows nobody, and remembers how it was asked.
struct Tracker {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tracker {
    /// Answers until the runtime of the test ends.
    async fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let len = client.read(&mut head).await.unwrap_or_default();
                heard.lock().expect("the list").push(String::from_utf8_lossy(&head[..len]).into_owned());
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nspam").await;
            }
        });
        Self { address, asked }
    }

    fn was_asked(&self, with: &str) -> bool {
        self.asked.lock().expect("the list").iter().any(|head| head.lines().next().is_some_and(|line| line.contains(with)))
    }
}

/// The server, what it was told, and what it told.
struct Life {
    server: TestServer,
    canaries: Canaries,
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// The same with another first letter: what somebody types who almost knows it.
fn almost(secret: &str) -> String {
    let first = if secret.starts_with('A') { 'B' } else { 'A' };
    format!("{first}{}", &secret[1..])
}

/// `host:port` of an address.
fn authority(url: &str) -> &str {
    url.split("://").nth(1).expect("an address")
}

impl Life {
    async fn begin() -> Self {
        // With trackers: their addresses may hold what only a member of the tracker knows.
        let server = TestServer::among_strangers(&["--allow-private-peers", "--log", "trace"]).await;
        let mut life = Self { server, canaries: Canaries::default() };
        let token = life.server.token().to_owned();
        life.canaries.add("the owner's token", &token);
        life.canaries.add("the owner's token, mistyped", almost(&token));
        life
    }

    async fn offer(&mut self) -> [String; 3] {
        let offer = self.server.call(Method::POST, "/api/pairings", Some(json!({}))).await;
        assert_eq!(offer.status, 201, "{}", offer.text());
        let offer = offer.json();
        let (_, fragment) = string(&offer, "url").split_once("/p#v1.").expect("a fragment");
        let (id, secret) = (string(&offer, "offerId"), fragment.split('.').nth(1).expect("a secret"));
        let code = string(&offer, "code");
        self.canaries.add("an offer's secret", secret);
        self.canaries.add("an offer's secret, mistyped", almost(secret));
        self.canaries.add("a short code", code);
        self.canaries.add("a short code, mistyped", almost(code));
        self.canaries.add("a short code, in groups", format!("{}-{}", &code[..4], &code[4..]));
        [id, secret, code].map(str::to_owned)
    }

    async fn try_pair(&mut self, body: Value, status: u16) -> Value {
        let answer = server::answer(self.server.client().post(self.server.here("/api/pair")).json(&body)).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        answer.json()
    }

    /// By the QR code, after two wrong tries.
    async fn pair_by_secret(&mut self) -> Value {
        let [id, secret, code] = self.offer().await;
        let base = json!({ "deviceName": "Anna's phone", "platform": "test" });
        let with = |more: Value| {
            let mut body = base.clone();
            more.as_object().expect("an object").iter().for_each(|(key, value)| body[key] = value.clone());
            body
        };
        self.try_pair(with(json!({ "code": almost(&code) })), 403).await;
        self.try_pair(with(json!({ "offerId": id, "secret": almost(&secret) })), 403).await;
        let paired = self.try_pair(with(json!({ "offerId": id, "secret": secret })), 201).await;
        self.canaries.add("a device's token", string(&paired, "token"));
        // Its time is over: refused in another way.
        self.try_pair(with(json!({ "code": code })), 410).await;
        paired
    }

    /// By the short code as people type it, over HTTPS.
    async fn pair_by_code(&mut self) -> Value {
        let [_, _, code] = self.offer().await;
        let typed = format!("{}-{}", &code[..4], &code[4..]).to_lowercase();
        let body = json!({ "code": typed, "deviceName": "Ben's phone", "platform": "test" }).to_string();
        let (status, paired) = self.curl(&["--http2", "--json", &body], "/api/pair").await;
        assert_eq!(status, "2 201", "{paired}");
        let paired: Value = serde_json::from_str(&paired).expect("JSON");
        self.canaries.add("a device's token", string(&paired, "token"));
        paired
    }

    /// Asks over HTTPS; the version of HTTP and the status, and the body.
    async fn curl(&self, arguments: &[&str], path: &str) -> (String, String) {
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", PATIENCE, "--write-out", "\n%{http_version} %{http_code}"])
            .arg("--cacert")
            .arg(self.server.ca_pem())
            .args(arguments)
            .arg(format!("{}{path}", self.server.https()))
            .output()
            .await
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').expect("a status");
        (status.to_owned(), body.to_owned())
    }

    /// Every way to show a token, right and wrong, in header, path, cookie; to every entrance.
    async fn show(&self, token: &str) {
        let path = format!("/t/{token}/api/streams");
        let bearer = format!("Authorization: Bearer {token}");
        assert_eq!(self.server.call_as(token, Method::GET, "/api/streams", None).await.status, 200);
        assert_eq!(self.server.get(&path).await.status, 200);
        for version in ["--http1.1", "--http2"] {
            let spoken = if version == "--http2" { "2 200" } else { "1.1 200" };
            assert_eq!(self.curl(&[version, "-H", &bearer], "/api/streams").await.0, spoken);
            assert_eq!(self.curl(&[version], &path).await.0, spoken);
        }
        let mistyped = almost(token);
        assert_eq!(self.server.call_as(&mistyped, Method::GET, "/api/streams", None).await.status, 401);
        assert_eq!(self.server.get(&format!("/t/{mistyped}/api/streams")).await.status, 401);
        assert_eq!(self.curl(&["--http2"], &format!("/t/{mistyped}/api/streams")).await.0, "2 401");
        for header in [format!("Authorization: Basic {token}"), format!("Authorization: {token}"), format!("Cookie: token={token}")] {
            assert_eq!(self.curl(&["--http2", "-H", &header], "/api/streams").await.0, "2 401", "{header}");
        }
        assert_eq!(self.server.get(&format!("/api/streams?token={token}")).await.status, 401);
    }

    /// What is refused before any code of ours sees it, or by the first that does.
    fn show_raw(&self, token: &str) {
        let here = authority(self.server.base());
        let path = format!("/t/{token}/api/streams");
        let line = |path: &str, host: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        let bearer = format!("Authorization: Bearer {token}");
        for (request, status) in [
            (line(&path, "evil.example", ""), "421"),
            (line(&format!("http://evil.example{path}"), here, ""), "421"),
            (line(&format!("{path}\u{1}"), here, ""), "400"),
            (format!("GET {path} HTTP/7.3\r\nHost: {here}\r\n\r\n"), "400"),
            (line(&path, here, &format!("{bearer}\u{1}\r\n")), "400"),
            (line(&format!("{path}?{}", "x".repeat(70_000)), here, &format!("{bearer}\r\n")), "4"),
            (line(&path, here, &format!("X: {}\r\n{bearer}\r\n", "x".repeat(20_000))), "413"),
        ] {
            let answer = self.raw(here, &request);
            let told = answer.split(' ').nth(1).unwrap_or_default();
            assert!(
                told.starts_with(status),
                "{:?} instead of {status} for {:?}",
                answer.lines().next(),
                &request[..request.len().min(200)]
            );
        }
        let on_tls = self.raw(authority(self.server.https()), &line(&path, authority(self.server.https()), ""));
        assert!(on_tls.starts_with("HTTP/1.1 308"), "{on_tls}");
    }

    /// Sends these bytes and reads what comes.
    fn raw(&self, to: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(to).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        // The server may answer and hang up before everything is sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A link with all that one can hold: a name, and what a tracker gave to one of its members, in every kind of address.
    fn link(&mut self, swarm: &Swarm, tracker: &Tracker, passkey: &str) -> String {
        let host = tracker.address;
        let trackers: String = [
            format!("http://{host}/announce?passkey={passkey}"),
            format!("http://{host}/{passkey}/announce"),
            format!("http://{passkey}@{host}/announce"),
            format!("http://127.0.0.1:9/announce?passkey={passkey}"),
            format!("http://tracker.invalid/announce?passkey={passkey}"),
            format!("udp://127.0.0.1:9/{passkey}"),
        ]
        .iter()
        .map(|tracker| format!("&tr={}", url::form_urlencoded::byte_serialize(tracker.as_bytes()).collect::<String>()))
        .collect();
        let link = format!("{}&dn=a%20film%20{passkey}{trackers}", swarm.link());
        self.link_is_secret(&link);
        self.canaries.add_kept("what only a link holds", passkey);
        link
    }

    fn link_is_secret(&mut self, link: &str) {
        self.canaries.add_kept("a link", link);
        self.canaries.add_kept("a link without its scheme", link.trim_start_matches("magnet:?"));
        if let Ok(magnet) = Magnet::parse(link) {
            self.canaries.add_kept("a link as we write it", &magnet.to_link());
        }
    }

    /// Starts a stream and waits until it is over or ready.
    async fn play(&mut self, token: &str, link: &str, options: Value, status: &str) -> Value {
        let mut body = options;
        body["magnetLink"] = link.into();
        let started = self.server.call_as(token, Method::POST, "/api/stream/start", Some(body)).await;
        assert!(matches!(started.status, 200 | 201), "{}", started.text());
        let path = format!("/api/stream/status/{}", string(&started.json(), "streamId"));
        loop {
            let stream = self.server.call_as(token, Method::GET, &path, None).await.json();
            let events = string(&stream, "eventsUrl").to_owned();
            let ticket = events.split("/m/").nth(1).and_then(|rest| rest.split('/').next()).expect("a ticket");
            self.canaries.add("a ticket", ticket);
            if ["ready", "error", "stopped"].contains(&string(&stream, "status")) {
                assert_eq!(stream["status"], status, "{stream:#}");
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that a ticket opens, by every entrance; and what a wrong one does not.
    async fn watch_film(&mut self, stream: &Value) {
        let url = string(stream, "streamUrl").to_owned();
        let mut played = hls::open(&self.server, &url).await;
        played.fetch_scattered(&self.server).await;
        let direct = string(stream, "directUrl").to_owned();
        assert_eq!(self.server.get(&direct).await.status, 200);
        let path = |url: &str| format!("/m/{}", url.split_once("/m/").expect("media").1);
        let playlist = path(&url);
        assert_eq!(self.curl(&["--http2"], &playlist).await.0, "2 200");
        assert_eq!(self.curl(&["--http2", "-r", "0-99"], &path(&direct)).await.0, "2 206");
        // Events go on: a second of them is enough.
        let events = self.curl(&["--http2", "--max-time", "1"], &path(string(stream, "eventsUrl"))).await;
        assert!(events.0 == "2 200" && events.1.contains("data:"), "{events:?}");
        let ticket = playlist.split('/').nth(2).expect("a ticket").to_owned();
        self.canaries.add("a ticket, mistyped", almost(&ticket));
        let wrong = playlist.replace(&ticket, &almost(&ticket));
        assert_eq!(self.server.get(&wrong).await.status, 404);
        assert_eq!(self.curl(&["--http2"], &wrong).await.0, "2 404");
        let foreign = format!("GET {playlist} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        assert!(self.raw(authority(self.server.base()), &foreign).starts_with("HTTP/1.1 421"));
    }

    /// The keys that lie in the data folder, in the shapes in which they lie there, and bare.
    fn keys(&mut self) {
        let read = |name: &str| std::fs::read_to_string(self.server.data_dir().join(name)).expect("a key's file");
        let (tickets, authority) = (read("ticket-key"), read("ca.key"));
        for line in tickets.lines() {
            let hex = line.split_whitespace().nth(2).expect("a key");
            self.canaries.add("a key of tickets, as its file has it", hex);
            self.canaries.add("a key of tickets", HEXLOWER.decode(hex.as_bytes()).expect("hex"));
        }
        let lines: Vec<&str> = authority.lines().filter(|line| !line.starts_with("-----") && !line.is_empty()).collect();
        let der = BASE64.decode(lines.concat().as_bytes()).expect("base64");
        // PKCS #8 of a P-256 key: an octet string of 32 bytes is the secret number (RFC 5915). The public key behind it is no secret.
        let at = Finder::new(&[0x04, 0x20]).find(&der).expect("the secret number") + 2;
        self.canaries.add("the authority's secret number", &der[at..at + 32]);
        // Three bytes are four letters; the line in which it ends holds most of it.
        let width = lines[0].len() / 4 * 3;
        for line in &lines[at / width..=(at + 31) / width] {
            self.canaries.add("a line of the authority's key", line);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_in_any_log() {
    let mut life = Life::begin().await;
    let owner = life.server.token().to_owned();
    let (anna, ben) = (life.pair_by_secret().await, life.pair_by_code().await);
    life.offer().await;
    let (anna_token, ben_token) = (string(&anna, "token").to_owned(), string(&ben, "token").to_owned());
    for token in [&owner, &anna_token] {
        life.canaries.add("a token, mistyped", almost(token));
        life.show(token).await;
        life.show_raw(token);
    }

    let folder = tempfile::tempdir().expect("a folder");
    let recipe = format!("{} {} {} {} -movflags +faststart", films::picture("854x480", 20.0), films::sound(20.0), films::X264, films::AAC);
    let film = Swarm::seed(films::by_ffmpeg("large.mp4", &recipe), SwarmOptions::default()).await;
    let rubbish_path = folder.path().join("rubbish.avi");
    swarm::random_film(&rubbish_path, 600_000);
    let rubbish = Swarm::seed(&rubbish_path, SwarmOptions::default()).await;
    let tracker = Tracker::open().await;
    let children = Watch::over(life.server.pid());
    let link = life.link(&film, &tracker, "canary5x7Qpasskey0Kz9");
    let copied = life.play(&anna_token, &link, json!({}), "ready").await;
    life.watch_film(&copied).await;
    let converted = life.play(&anna_token, &link, json!({ "quality": "360p" }), "ready").await;
    assert_eq!(converted["mode"], "convert", "{converted:#}");
    life.watch_film(&converted).await;
    let link = life.link(&rubbish, &tracker, "canary8w2Hpasskey1Ln4");
    life.play(&anna_token, &link, json!({}), "error").await;
    for broken in
        ["magnet:?xt=urn:btih:canarybrokenhash&dn=canarybrokenname", "magnet:?dn=canaryofnohash&tr=udp%3A%2F%2Fcanary.invalid%3A1"]
    {
        life.link_is_secret(broken);
        let body = json!({ "magnetLink": broken });
        for path in ["/api/stream/start", "/api/torrents/inspect"] {
            let refused = life.server.call_as(&anna_token, Method::POST, path, Some(body.clone())).await;
            assert!(matches!(refused.status, 400 | 422), "{path}: {}", refused.text());
        }
    }
    for secret in children.end() {
        life.canaries.add("the address of a film for ffmpeg", secret);
    }

    let device = format!("/api/devices/{}", string(&ben, "deviceId"));
    assert_eq!(life.server.call(Method::DELETE, &device, None).await.status, 204);
    assert_eq!(life.server.call_as(&ben_token, Method::GET, "/api/streams", None).await.status, 401);
    assert_eq!(life.server.get(&format!("/t/{ben_token}/api/streams")).await.status, 401);
    let settings = life.server.call(Method::PATCH, "/api/settings", Some(json!({ "name": "Studio", "stallTimeout": "5m" }))).await;
    assert_eq!(settings.status, 200, "{}", settings.text());

    for asked in ["&passkey=canary5x7Qpasskey0Kz9", "/canary5x7Qpasskey0Kz9/announce"] {
        assert!(tracker.was_asked(asked), "{asked}: {:?}", tracker.asked);
    }
    life.keys();
    life.server.restart().await;
    assert_eq!(life.server.call_as(&anna_token, Method::GET, "/api/streams", None).await.status, 200);
    life.server.fetch(string(&copied, "streamUrl")).await;
    life.server.stop(string(&copied, "streamId")).await;
    assert_eq!(life.server.get(string(&copied, "streamUrl")).await.status, 404);
    life.show_raw(&anna_token);
    life.keys();
    let folder = life.server.data_dir().parent().expect("its folder").to_owned();
    let names = files(&folder);
    for name in
        ["stderr.txt", "data/logs/balcony.log", "data/run.json", "data/balcony.sqlite", "data/balcony.sqlite-wal", "config/config.toml"]
    {
        assert!(names.contains(&folder.join(name)), "{name} is not among {names:?}");
    }
    // While it runs, the database has its newest part in a file of its own.
    nothing_in(&folder, &life.canaries);
    life.server.end();
    judge(&life);
    nothing_in(&folder, &life.canaries);
    would_be_found(&folder.join("data/logs"), &life.canaries);
}

/// The packages that wrote lines of the two lowest levels.
fn speakers(log: &str) -> BTreeSet<&str> {
    log.lines()
        .filter(|line| [" TRACE ", " DEBUG "].iter().any(|level| line.contains(level)))
        .filter_map(|line| line.split(' ').find_map(|word| word.strip_suffix(':')?.split_once("::")))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))
        .collect()
}

/// That there was something to find, and somewhere to find it.
fn judge(life: &Life) {
    let canaries = &life.canaries;
    for (what, least) in [
        ("a device's token", 2),
        ("an offer's secret", 6),
        ("a short code", 9),
        ("a ticket", 4),
        ("the address of a film for ffmpeg", 2),
        ("a link", 6),
    ] {
        assert!(canaries.count(what) >= least, "{} of {what}: {:?}", canaries.count(what), canaries.0);
    }
    let said = life.server.said();
    let log = std::fs::read_to_string(life.server.data_dir().join("logs/balcony.log")).expect("the log");
    assert!(log.lines().count() > 100 && log.contains(" TRACE "), "{log}");
    // Those that see addresses, headers or links. hyper, rustls and reqwest are built without their logging.
    let speakers = speakers(&said);
    for name in ["balcony_server", "h2", "librqbit", "librqbit_tracker_comms", "mio"] {
        assert!(speakers.contains(name), "nothing of {name} was logged, only of {speakers:?}");
    }
    for line in [
        "route=\"/api/pair\" status=201",
        "route=\"/api/pair\" status=403",
        "route=\"/api/streams\" status=200",
        "route=\"/m/{ticket}/master.m3u8\" status=200",
        "route=\"/m/{ticket}/master.m3u8\" status=404",
        "route=\"/m/{ticket}/events\" status=200",
        "route=\"/m/{ticket}/file/{name}\" status=206",
        "status=421",
        "a file could not be looked at",
        "a connection ended",
        "a pairing offer was opened",
        "stopped",
    ] {
        assert!(said.contains(line), "{line} was not logged");
    }
}

fn nothing_in(folder: &Path, canaries: &Canaries) {
    let found = search(folder, canaries);
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n\n"));
}

fn would_be_found(logs: &Path, canaries: &Canaries) {
    for canary in &canaries.0 {
        std::fs::write(logs.join("planted.log"), [b"before ", canary.secret.as_slice(), b" after"].concat()).expect("planted");
        let found = search(logs, canaries);
        assert!(found.iter().any(|line| line.starts_with(&canary.what)), "{} would not be found", canary.what);
    }
}

#[test]
fn the_search_finds_every_shape_wherever_it_lies() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("a/b");
    std::fs::create_dir_all(&deep).expect("made");
    let mut canaries = Canaries::default();
    canaries.add("a token", "Secret/Token+7");
    canaries.add_kept("a link", "magnet:?xt=urn:btih:abc");
    for (shape, bytes) in shapes(b"Secret/Token+7") {
        std::fs::write(deep.join("balcony.sqlite-wal"), [b"x", bytes.as_slice(), b"\xff"].concat()).expect("written");
        let found = search(folder.path(), &canaries);
        assert!(found.len() == 1 && found[0].starts_with(&format!("a token, {shape}, in ")), "{shape}: {found:?}");
    }
    std::fs::write(deep.join("balcony.sqlite-wal"), "magnet:?xt=urn:btih:abc").expect("written");
    assert_eq!(search(folder.path(), &canaries), Vec::<String>::new(), "the database keeps links");
    std::fs::rename(deep.join("balcony.sqlite-wal"), deep.join("balcony.log.3")).expect("renamed");
    assert_eq!(search(folder.path(), &canaries).len(), 1, "no log does");
    std::fs::write(deep.join("balcony.log.3"), "nothing").expect("written");
    std::fs::write(folder.path().join("admin-token"), "Secret/Token+7").expect("written");
    assert_eq!(search(folder.path(), &canaries), Vec::<String>::new(), "a file that is there for it");
}
