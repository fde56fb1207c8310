//! Pairing from the outside: offers, tries, the terminal's `pair`, and what a paired device may do; against the real program.
//!
//! That an offer ends after two minutes is not waited for here; `trust::pairing` proves it with a clock of its own.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;

/// How long the terminal's command may take for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// A client with an address of its own, as every phone has: all of 127.0.0.0/8 is this machine.
fn phone(number: u8) -> reqwest::Client {
    let address: IpAddr = [127, 0, 7, number].into();
    reqwest::Client::builder().no_proxy().local_address(address).build().expect("a client")
}

async fn ask(client: &reqwest::Client, server: &TestServer, body: &Value) -> (u16, Value) {
    let response = client.post(format!("{}/api/pair", server.base())).json(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    (status, response.json().await.expect("JSON"))
}

async fn with_token(server: &TestServer, token: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = server.client().request(method, server.here(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

async fn open(server: &TestServer, body: Value) -> Value {
    let answer = server.call(Method::POST, "/api/pairings", Some(body)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn standing(server: &TestServer, offer: &Value) -> Value {
    let answer = server.call(Method::GET, &format!("/api/pairings/{}", string(offer, "offerId")), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The offer's id, its secret and the fingerprint, from the text of a QR code.
fn parts(url: &str) -> [&str; 3] {
    let (_, fragment) = url.split_once("/p#v1.").unwrap_or_else(|| panic!("{url}"));
    let parts: Vec<&str> = fragment.split('.').collect();
    parts.try_into().unwrap_or_else(|_| panic!("{url}"))
}

fn by_secret(offer: &Value, name: &str) -> Value {
    let [id, secret, _] = parts(string(offer, "url"));
    json!({ "offerId": id, "secret": secret, "deviceName": name, "platform": "Android 15" })
}

fn by_code(code: &str, name: &str) -> Value {
    json!({ "code": code, "deviceName": name, "platform": "iOS 18" })
}

/// A code that cannot be the right one.
fn wrong(offer: &Value) -> String {
    let code = string(offer, "code");
    let first = if code.starts_with('A') { 'B' } else { 'A' };
    format!("{first}{}", &code[1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_code_on_the_screen_to_a_device_and_out_again() {
    let server = TestServer::open().await;
    let answer = server.call(Method::POST, "/api/pairings", None).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let offer = answer.json();
    let keys: BTreeSet<&str> = offer.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["code", "expiresAt", "offerId", "qrSvg", "url"]));
    assert_eq!(answer.header("location"), Some(&*format!("/api/pairings/{}", string(&offer, "offerId"))));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let code = string(&offer, "code");
    assert!(code.len() == 8 && code.bytes().all(|b| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&b)), "{code}");
    let left = string(&offer, "expiresAt").parse::<jiff::Timestamp>().expect("a time").duration_since(jiff::Timestamp::now());
    assert!((100..=121).contains(&left.as_secs()), "{left:?}");

    let health = server.get("/api/health").await.json();
    let [id, secret, fingerprint] = parts(string(&offer, "url"));
    assert_eq!((id, fingerprint), (string(&offer, "offerId"), string(&health, "fingerprint")));
    assert_eq!((secret.len(), fingerprint.len()), (22, 22));
    let address = string(&offer, "url").strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an address");
    let address: std::net::SocketAddr = address.parse().expect("an address and a port");
    assert_eq!(Some(address.port()), server.base().rsplit(':').next().and_then(|port| port.parse().ok()));
    let elsewhere = if_addrs::get_if_addrs().expect("interfaces").iter().any(|interface| !interface.is_loopback());
    assert!(!(elsewhere && address.ip().is_loopback()), "a phone cannot reach {address}");
    assert!(string(&offer, "qrSvg").starts_with("<svg ") && !string(&offer, "qrSvg").contains(secret));
    let open = standing(&server, &offer).await;
    assert_eq!((string(&open, "state"), &open["triesLeft"], string(&open, "address")), ("open", &json!(5), &*address.to_string()));

    let (status, paired) = ask(&phone(1), &server, &by_secret(&offer, " Pixel\u{202e} 8 ")).await;
    assert_eq!(status, 201, "{paired:#}");
    let token = string(&paired, "token");
    let server_view = json!({
        "id": health["serverId"], "name": health["name"], "fingerprint": fingerprint, "version": env!("CARGO_PKG_VERSION"),
    });
    let expected = json!({
        "token": token, "deviceId": paired["deviceId"], "deviceName": "Pixel 8", "person": "Pixel 8", "server": server_view,
    });
    assert_eq!(paired, expected);
    let (status, me) = with_token(&server, token, Method::GET, "/api/devices/me", None).await;
    assert_eq!((status, &me["id"], string(&me, "platform"), &me["current"]), (200, &paired["deviceId"], "Android 15", &json!(true)));
    let list = server.call(Method::GET, "/api/devices", None).await.json();
    let ours = |device: &&Value| device["id"] == paired["deviceId"];
    let listed = list["devices"].as_array().expect("devices").iter().find(ours).expect("listed");
    assert_eq!((string(listed, "name"), string(listed, "person"), string(listed, "lastAddress")), ("Pixel 8", "Pixel 8", "127.0.0.1"));
    let used = standing(&server, &offer).await;
    assert_eq!((string(&used, "state"), &used["device"]["id"], &used["address"]), ("used", &paired["deviceId"], &Value::Null));

    for body in [by_secret(&offer, "Thief"), by_code(code, "Thief")] {
        let (status, refused) = ask(&phone(2), &server, &body).await;
        assert_eq!((status, string(&refused, "code")), (410, "offer_expired"));
    }
    let (status, refused) = with_token(&server, token, Method::POST, "/api/pairings", Some(json!({}))).await;
    assert_eq!((status, string(&refused, "code")), (403, "forbidden"));
    for method in [Method::GET, Method::DELETE] {
        let path = format!("/api/pairings/{id}");
        assert_eq!(with_token(&server, token, method, &path, None).await.0, 403);
    }

    let path = format!("/api/devices/{}", string(&paired, "deviceId"));
    assert_eq!(server.call(Method::DELETE, &path, None).await.status, 204);
    let revoked = Instant::now();
    while with_token(&server, token, Method::GET, "/api/devices/me", None).await.0 != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(2), "revoked, and still in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_phones_with_the_right_code_one_comes_in() {
    let server = TestServer::open().await;
    let offer = open(&server, json!({})).await;
    let body = by_secret(&offer, "Phone");
    let phones: Vec<reqwest::Client> = (1..=50).map(phone).collect();
    let tries = phones.iter().map(|phone| ask(phone, &server, &body));
    let answers = futures_util::future::join_all(tries).await;
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(201), count(410)), (1, 49), "{answers:?}");
    let tokens: Vec<&str> = answers.iter().filter_map(|(_, answer)| answer["token"].as_str()).collect();
    assert_eq!(tokens.len(), 1);
    let devices = server.call(Method::GET, "/api/devices", None).await.json();
    let paired = devices["devices"].as_array().expect("devices").iter().filter(|device| device["name"] == "Phone").count();
    assert_eq!(paired, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_tries_end_it_and_nonsense_costs_none() {
    let server = TestServer::open().await;
    let offer = open(&server, json!({})).await;
    let right = by_code(string(&offer, "code"), "Phone");
    let nonsense = [
        json!({ "deviceName": "x", "platform": "y" }),
        json!({ "deviceName": "x", "secret": "a", "code": "b" }),
        json!({ "deviceName": "x", "code": 7 }),
        json!({ "code": right["code"], "platform": "y" }),
        json!({ "code": right["code"], "deviceName": " \u{202e} " }),
        json!({ "code": right["code"], "deviceName": "x".repeat(61) }),
        json!({ "code": right["code"], "deviceName": "x", "platform": "y".repeat(41) }),
    ];
    for body in &nonsense {
        let (status, refused) = ask(&phone(1), &server, body).await;
        assert_eq!((status, string(&refused, "code")), (422, "invalid"), "{body}");
    }
    assert_eq!(standing(&server, &offer).await["triesLeft"], 5);
    // Another offer's id: over, and this one pays nothing for it.
    let mut stray = by_secret(&offer, "Phone");
    for id in ["k3v9abcdefghijkl", "../../etc/passwd"] {
        stray["offerId"] = id.into();
        let (status, refused) = ask(&phone(2), &server, &stray).await;
        assert_eq!((status, string(&refused, "code")), (410, "offer_expired"));
    }
    assert_eq!(standing(&server, &offer).await["triesLeft"], 5);

    let [id, ..] = parts(string(&offer, "url"));
    let wrong_secret = json!({ "offerId": id, "secret": "A".repeat(22), "deviceName": "x", "platform": "" });
    let said = ["4 tries left.", "3 tries left.", "2 tries left.", "1 try left.", "It has ended now; the computer shows a new one."];
    for (number, left) in said.into_iter().enumerate() {
        let body = if number % 2 == 0 { by_code(&wrong(&offer), "x") } else { wrong_secret.clone() };
        let (status, refused) = ask(&phone(3), &server, &body).await;
        let detail = format!("That is not the code on the computer. {left}");
        assert_eq!((status, string(&refused, "code"), string(&refused, "detail")), (403, "forbidden", &*detail));
    }
    for body in [&right, &by_secret(&offer, "Phone")] {
        assert_eq!(ask(&phone(4), &server, body).await.0, 410);
    }
    let ended = standing(&server, &offer).await;
    assert_eq!((string(&ended, "state"), &ended["triesLeft"], &ended["device"]), ("ended", &json!(0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_offer_takes_the_place_of_the_old_one_and_any_can_be_taken_back() {
    let server = TestServer::open().await;
    let (old, new) = (open(&server, json!({})).await, open(&server, json!({ "person": "Anna" })).await);
    assert_eq!(string(&standing(&server, &old).await, "state"), "replaced");
    assert_eq!(ask(&phone(1), &server, &by_secret(&old, "x")).await.0, 410);
    // The old code, without an id, is no wrong try at the new offer: its screen was replaced.
    let (status, refused) = ask(&phone(1), &server, &by_code(string(&old, "code"), "x")).await;
    assert_eq!((status, string(&refused, "code")), (410, "offer_expired"));
    assert_eq!(standing(&server, &new).await["triesLeft"], 5);

    let code = string(&new, "code");
    let sloppy = format!(" {}-{} ", &code[..4].to_lowercase().replace('0', "o").replace('1', "l"), &code[4..].replace('1', "I"));
    let (status, first) = ask(&phone(2), &server, &by_code(&sloppy, "Anna's phone")).await;
    assert_eq!((status, string(&first, "person")), (201, "Anna"), "{first:#}");

    let again = open(&server, json!({ "person": "anna" })).await;
    let (_, second) = ask(&phone(2), &server, &by_secret(&again, "Anna's tablet")).await;
    assert_eq!(string(&second, "person"), "Anna", "the same person, whatever the case");

    let back = open(&server, json!({})).await;
    let path = format!("/api/pairings/{}", string(&back, "offerId"));
    for _ in 0..2 {
        assert_eq!(server.call(Method::DELETE, &path, None).await.status, 204);
    }
    assert_eq!(ask(&phone(3), &server, &by_secret(&back, "x")).await.0, 410);
    assert_eq!(string(&standing(&server, &back).await, "state"), "ended");
    for (method, path) in
        [(Method::GET, "/api/pairings/none"), (Method::DELETE, "/api/pairings/none"), (Method::GET, "/api/pairings/..%2Fx")]
    {
        assert_eq!(server.call(method, path, None).await.status, 404, "{path}");
    }
    for body in [
        json!({ "person": "" }),
        json!({ "person": "x".repeat(61) }),
        json!({ "person": "Anna", "admin": true }),
        json!({ "admin": "yes" }),
        json!({ "name": "Anna" }),
        json!([]),
    ] {
        assert_eq!(server.call(Method::POST, "/api/pairings", Some(body)).await.status, 422);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_wishes_for_nothing_whatever_its_kind() {
    let server = TestServer::open().await;
    for kind in [None, Some("application/json"), Some("application/x-www-form-urlencoded")] {
        let mut request = server.client().post(server.here("/api/pairings")).bearer_auth(server.token());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        assert_eq!(request.send().await.expect("an answer").status(), 201, "{kind:?}");
    }
    let broken = server.client().post(server.here("/api/pairings")).bearer_auth(server.token());
    let broken = broken.header("content-type", "application/json").body(" ").send().await.expect("an answer");
    assert_eq!(broken.status(), 400);
}

/// Lets a device in with the owner's rights, and answers its token and its id.
async fn admin(server: &TestServer, number: u8) -> (String, String) {
    let offer = open(server, json!({ "admin": true })).await;
    let (status, paired) = ask(&phone(number), server, &by_secret(&offer, "Admin's phone")).await;
    assert_eq!(status, 201, "{paired:#}");
    (string(&paired, "token").to_owned(), string(&paired, "deviceId").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stolen_phone_opened_is_over_with_it() {
    let server = TestServer::open().await;
    for (number, revoke) in [(1, true), (2, false)] {
        let (token, device) = admin(&server, number).await;
        let (status, refused) = with_token(&server, &token, Method::POST, "/api/pairings", Some(json!({ "admin": true }))).await;
        assert_eq!((status, string(&refused, "code")), (403, "forbidden"));
        let (status, offer) = with_token(&server, &token, Method::POST, "/api/pairings", Some(json!({}))).await;
        assert_eq!(status, 201, "{offer:#}");
        assert_eq!(string(&standing(&server, &offer).await, "state"), "open");
        let path = format!("/api/devices/{device}");
        if revoke {
            assert_eq!(server.call(Method::DELETE, &path, None).await.status, 204);
        } else {
            // Given away, it is no admin any more.
            assert_eq!(server.call(Method::PATCH, &path, Some(json!({ "person": "Berta" }))).await.status, 200);
        }
        for body in [by_secret(&offer, "Thief"), by_code(string(&offer, "code"), "Thief")] {
            let (status, refused) = ask(&phone(number), &server, &body).await;
            assert_eq!((status, string(&refused, "code")), (410, "offer_expired"), "{refused:#}");
        }
        assert_eq!(string(&standing(&server, &offer).await, "state"), "ended");
    }
    let devices = server.call(Method::GET, "/api/devices", None).await.json();
    assert!(devices["devices"].as_array().expect("devices").iter().all(|device| device["name"] != "Thief"), "{devices:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_tries_ten_times_a_minute() {
    let server = TestServer::open().await;
    let hasty = phone(1);
    let body = by_code("ABCDEFGH", "x");
    for number in 0..10 {
        assert_eq!(ask(&hasty, &server, &body).await.0, 410, "{number}: nothing is open");
    }
    let refused = hasty.post(format!("{}/api/pair", server.base())).json(&body).send().await.expect("an answer");
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().ok().and_then(|text| text.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(string(&refused.json().await.expect("JSON"), "code"), "too_many_requests");
    let offer = open(&server, json!({})).await;
    assert_eq!(ask(&phone(2), &server, &by_secret(&offer, "x")).await.0, 201, "others are not held up");
}

/// A running `balcony-server pair`, its stdout read as it comes.
struct Terminal {
    process: Child,
    lines: mpsc::Receiver<String>,
    shown: String,
}

impl Terminal {
    fn start(data_dir: &Path, flags: &[&str]) -> Self {
        let folder = data_dir.parent().expect("a parent");
        let mut process = Command::new(env!("CARGO_BIN_EXE_balcony-server"))
            .arg("pair")
            .args(["--data-dir".as_ref(), data_dir.as_os_str()])
            .args(["--config-dir".as_ref(), folder.join("config").as_os_str()])
            .args(["--cache-dir".as_ref(), folder.join("cache").as_os_str()])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let stdout = process.stdout.take().expect("its stdout");
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                said.send(line).ok();
            }
        });
        Self { process, lines, shown: String::new() }
    }

    /// Reads on until a line has this in it, and answers that line.
    fn until(&mut self, what: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {what} in:\n{}", self.shown));
            self.shown.push_str(&line);
            self.shown.push('\n');
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Reads until the code has been shown, and answers it with its hyphen.
    fn code(&mut self) -> String {
        let line = self.until("and type ");
        self.until("ends in");
        // Told to listen on loopback, as every server of these tests.
        self.until("The server listens on this computer only (--bind): no phone can reach it.");
        line.rsplit(' ').next().expect("a code").to_owned()
    }

    /// How it ended, and what it wrote to stderr.
    fn end(&mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("its end") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.shown);
            std::thread::sleep(Duration::from_millis(20));
        };
        for line in self.lines.iter() {
            self.shown.push_str(&line);
            self.shown.push('\n');
        }
        let mut said = String::new();
        self.process.stderr.take().expect("its stderr").read_to_string(&mut said).expect("text");
        (status, said)
    }

    /// What a camera reads in what was shown: light letters on a dark ground.
    fn scanned(&self) -> String {
        let blocks = ['█', '▀', '▄'];
        let lines: Vec<&str> = self.shown.lines().filter(|line| line.contains(blocks)).collect();
        let half = |line: &&str, lit: char| -> Vec<u8> { line.chars().map(|c| if c == '█' || c == lit { 255 } else { 0 }).collect() };
        let rows: Vec<Vec<u8>> = lines.iter().flat_map(|line| [half(line, '▀'), half(line, '▄')]).collect();
        let (width, height) = (rows[0].len() * 4, rows.len() * 4);
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| rows[y / 4][x / 4]);
        let grids = picture.detect_grids();
        assert_eq!(grids.len(), 1, "{}", self.shown);
        grids[0].decode().expect("decoded").1
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_shows_a_code_and_says_who_came_in() {
    let server = TestServer::open().await;
    let mut terminal = Terminal::start(&server.data_dir(), &[]);
    let code = terminal.code();
    assert_eq!((code.len(), code.find('-')), (9, Some(4)));
    assert!(terminal.shown.contains("ends in 1"), "{}", terminal.shown);
    assert!(!terminal.shown.contains('\x1b'), "colours only on a terminal");
    assert!(terminal.shown.lines().all(|line| line.chars().count() <= 80), "{}", terminal.shown);
    let scanned = terminal.scanned();
    let [id, ..] = parts(&scanned);
    let state = server.call(Method::GET, &format!("/api/pairings/{id}"), None).await.json();
    assert_eq!(string(&state, "state"), "open");
    let (status, paired) = ask(&phone(1), &server, &by_code(&code, "Pixel 8")).await;
    assert_eq!(status, 201, "{paired:#}");
    let (ended, said) = terminal.end();
    assert_eq!((ended.code(), said.as_str()), (Some(0), ""), "{}", terminal.shown);
    let last = terminal.shown.split_once("Pixel 8 was paired just now. If that was not you, revoke it:\n").expect("who came in").1;
    assert!(last.contains(&format!("/api/devices/{}", string(&paired, "deviceId"))), "{last}");
    // What it says does what it says.
    let revoked = Command::new("sh").arg("-c").arg(format!("{} --silent --noproxy '*'", last.trim())).status().expect("a shell");
    assert!(revoked.success());
    assert_eq!(with_token(&server, string(&paired, "token"), Method::GET, "/api/devices/me", None).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_pairs_the_owner_and_people() {
    let server = TestServer::open().await;
    let mut terminal = Terminal::start(&server.data_dir(), &["--admin"]);
    let code = terminal.code();
    assert!(terminal.shown.contains("may do all that you may"), "{}", terminal.shown);
    let (_, admin) = ask(&phone(1), &server, &by_code(&code, "Browser")).await;
    assert_eq!(terminal.end().0.code(), Some(0), "{}", terminal.shown);
    assert_eq!(with_token(&server, string(&admin, "token"), Method::POST, "/api/pairings", Some(json!({}))).await.0, 201);

    let mut people = BTreeSet::new();
    for device in ["Phone", "Tablet"] {
        let mut terminal = Terminal::start(&server.data_dir(), &["--person", "Anna"]);
        let code = terminal.code();
        let (_, paired) = ask(&phone(2), &server, &by_code(&code, device)).await;
        assert_eq!(string(&paired, "person"), "Anna");
        assert_eq!(terminal.end().0.code(), Some(0), "{}", terminal.shown);
        assert!(terminal.shown.contains(&format!("{device} was paired just now for Anna.")), "{}", terminal.shown);
        let (_, me) = with_token(&server, string(&paired, "token"), Method::GET, "/api/devices/me", None).await;
        people.insert(string(&me, "personId").to_owned());
        assert_eq!(with_token(&server, string(&paired, "token"), Method::POST, "/api/pairings", Some(json!({}))).await.0, 403);
    }
    assert_eq!(people.len(), 1, "two devices, one person");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_takes_its_code_back_and_hears_of_its_end() {
    let mut server = TestServer::open().await;
    let mut terminal = Terminal::start(&server.data_dir(), &[]);
    let code = terminal.code();
    kill(Pid::from_raw(terminal.process.id() as i32), Signal::SIGINT).expect("sent");
    let (ended, _) = terminal.end();
    assert_eq!(ended.code(), Some(1), "{}", terminal.shown);
    assert!(terminal.shown.contains("The code was taken back."), "{}", terminal.shown);
    assert_eq!(ask(&phone(1), &server, &by_code(&code, "x")).await.0, 410);

    let mut terminal = Terminal::start(&server.data_dir(), &[]);
    terminal.code();
    open(&server, json!({})).await;
    assert_eq!(terminal.end().0.code(), Some(1));
    assert!(terminal.shown.contains("a newer one was opened elsewhere"), "{}", terminal.shown);

    let mut terminal = Terminal::start(&server.data_dir(), &[]);
    terminal.code();
    for _ in 0..5 {
        ask(&phone(2), &server, &by_code("00000", "x")).await;
    }
    assert_eq!(terminal.end().0.code(), Some(1));
    assert!(terminal.shown.contains("too many wrong ones were tried"), "{}", terminal.shown);

    let mut terminal = Terminal::start(&server.data_dir(), &[]);
    terminal.code();
    server.end();
    let (ended, said) = terminal.end();
    assert_eq!((ended.code(), said.trim()), (Some(1), "The server has ended, and this code with it."));

    let (ended, said) = Terminal::start(&server.data_dir(), &[]).end();
    let folder = server.data_dir();
    assert_eq!((ended.code(), said.trim()), (Some(1), &*format!("No server runs on {}. Start it first: balcony-server", folder.display())));
}

/// Every file below a folder, with its content.
fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let content =
        |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![(path.clone(), std::fs::read(path).expect("read"))] };
    entries.flat_map(content).collect()
}

/// However much is logged, and whatever is kept, nothing of it opens the door.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_written_down() {
    let mut server = TestServer::with(&["--log", "trace"], &[]).await;
    let mut canaries = Vec::new();
    let offer = open(&server, json!({})).await;
    let [_, secret, _] = parts(string(&offer, "url"));
    canaries.extend([secret.to_owned(), string(&offer, "code").to_owned()]);
    ask(&phone(1), &server, &by_code(&wrong(&offer), "x")).await;
    let (status, paired) = ask(&phone(1), &server, &by_secret(&offer, "Phone")).await;
    assert_eq!(status, 201);
    let token = string(&paired, "token").to_owned();
    with_token(&server, &token, Method::GET, "/api/devices/me", None).await;
    server.get(&format!("/t/{token}/api/devices/me")).await;
    canaries.push(token);
    let over_tls = open(&server, json!({})).await;
    let [_, secret, _] = parts(string(&over_tls, "url"));
    canaries.extend([secret.to_owned(), string(&over_tls, "code").to_owned()]);
    for version in ["--http1.1", "--http2"] {
        let tries = [by_code(&wrong(&over_tls), "x"), by_secret(&over_tls, "TLS phone")];
        for body in tries {
            let (_, answer) = curl(&server, &[version, "--json", &body.to_string()], "/api/pair").await;
            if let Some(token) = answer["token"].as_str() {
                let bearer = format!("Authorization: Bearer {token}");
                assert_eq!(curl(&server, &[version, "-H", &bearer], "/api/devices/me").await.0, 200);
                canaries.push(token.to_owned());
            }
        }
    }
    assert_eq!(canaries.len(), 6, "both phones came in");
    server.end();
    let said = server.said();
    assert!(said.contains("TRACE") && said.contains("a device was paired"), "it logs");
    let mut texts = files(&server.data_dir());
    assert!(texts.iter().any(|(path, _)| path.ends_with("logs/balcony.log")));
    texts.push(("stderr".into(), said.into_bytes()));
    for canary in &canaries {
        for (path, text) in &texts {
            let found = text.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{canary} stands in {}", path.display());
        }
    }
}

/// Asks over HTTPS, trusting nobody but the server's own authority.
async fn curl(server: &TestServer, arguments: &[&str], path: &str) -> (u16, Value) {
    let run = std::fs::read(server.data_dir().join("run.json")).expect("run.json");
    let run: Value = serde_json::from_slice(&run).expect("JSON");
    let port = string(&run, "https").rsplit(':').next().expect("a port").to_owned();
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--write-out", "\n%{http_code}"])
        .arg("--cacert")
        .arg(server.data_dir().join("ca.pem"))
        .args(arguments)
        .arg(format!("https://127.0.0.1:{port}{path}"))
        .output()
        .await
        .expect("curl");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_pairs_over_https_once_it_trusts_the_server() {
    let server = TestServer::open().await;
    let offer = open(&server, json!({})).await;
    let body = by_secret(&offer, "Pixel 8").to_string();
    let (status, paired) = curl(&server, &["--json", &body], "/api/pair").await;
    assert_eq!(status, 201, "{paired:#}");
    let bearer = format!("Authorization: Bearer {}", string(&paired, "token"));
    let me = || async { curl(&server, &["-H", &bearer], "/api/devices/me").await };
    let (status, view) = me().await;
    assert_eq!((status, &view["id"]), (200, &paired["deviceId"]));
    assert_eq!(curl(&server, &["-H", &bearer, "--json", "{}"], "/api/pairings").await.0, 403);
    let path = format!("/api/devices/{}", string(&paired, "deviceId"));
    assert_eq!(server.call(Method::DELETE, &path, None).await.status, 204);
    let revoked = Instant::now();
    while me().await.0 != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(2), "revoked, and still in");
    }
}
