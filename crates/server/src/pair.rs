//! `balcony-server pair`: shows a pairing code in the terminal and waits until a phone has come in by it.
//!
//! A client of the server that runs on the same data folder, by its HTTP API on loopback like everybody else's; it opens
//! no port and no database. Exit code 0 when a device was paired, else 1.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXUPPER};
use jiff::Timestamp;
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::qr::{self, Ink};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// How often to ask how the offer stands.
const PACE: Duration = Duration::from_secs(1);
/// How many times more to ask for the name of a device that has come in.
const NAME_PATIENCE: u32 = 5;

/// Said where the address that is shown leads to nobody.
const ALONE: &str = "The server listens on this computer only (--bind): no phone can reach it.";

/// What the device that comes in shall become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// It may do all that the owner may.
    pub admin: bool,
    /// Whose device it will be.
    pub person: Option<String>,
}

/// Shows a code on stdout and waits for its end, or for `stop`, which takes the code back.
pub async fn run(data_dir: &Path, wanted: &Wanted, stop: impl Future<Output = ()>) -> ExitCode {
    let mut screen = Screen::of_stdout();
    match show(data_dir, wanted, &mut screen, stop).await {
        Ok(farewell) => {
            screen.say(&farewell.text);
            if farewell.paired { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(Trouble(sentence)) => {
            screen.clear_line();
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Why there is no code, or no longer: a sentence that says what to do.
#[derive(Debug, PartialEq, Eq)]
struct Trouble(String);

impl Trouble {
    fn no_server(data_dir: &Path) -> Self {
        Self(format!("No server runs on {}. Start it first: balcony-server", data_dir.display()))
    }

    fn server_ended() -> Self {
        Self("The server has ended, and this code with it.".to_owned())
    }
}

/// The last words.
#[derive(Debug, PartialEq, Eq)]
struct Farewell {
    text: String,
    paired: bool,
}

async fn show<W: Write>(
    data_dir: &Path,
    wanted: &Wanted,
    screen: &mut Screen<W>,
    stop: impl Future<Output = ()>,
) -> Result<Farewell, Trouble> {
    let server = Server::find(data_dir)?;
    let offer = server.open(wanted).await.map_err(|failed| match failed {
        Failed::Unreachable => Trouble::no_server(data_dir),
        Failed::Refused(_, sentence) => Trouble(sentence),
    })?;
    screen.offer(&offer, wanted);
    if server.alone {
        screen.say(ALONE);
    }
    tokio::select! {
        standing = server.follow(&offer, screen) => {
            let standing = standing.map_err(|failed| match failed {
                Failed::Refused(status, sentence) if status != StatusCode::NOT_FOUND => Trouble(sentence),
                Failed::Refused(..) | Failed::Unreachable => Trouble::server_ended(),
            })?;
            Ok(farewell(&standing, &server))
        }
        () = stop => {
            // It ends by itself soon, should the server not hear this.
            let _ = server.end(&offer).await;
            Ok(Farewell { text: "The code was taken back.".to_owned(), paired: false })
        }
    }
}

fn farewell(standing: &Standing, server: &Server) -> Farewell {
    let again = "For another one: balcony-server pair";
    let text = match (standing.state.as_str(), &standing.device) {
        ("used", Some(device)) => {
            let (name, revoke) = (&device.name, server.revoke(&device.id));
            let whose = if device.person == *name { String::new() } else { format!(" for {}", device.person) };
            format!("{name} was paired just now{whose}. If that was not you, revoke it:\n  {revoke}")
        }
        ("used", None) => "A device was paired, and is gone again.".to_owned(),
        ("expired", _) => format!("This code has ended. {again}"),
        ("replaced", _) => "This code has ended: a newer one was opened elsewhere.".to_owned(),
        _ if standing.tries_left == 0 => format!("This code has ended: too many wrong ones were tried. {again}"),
        _ => format!("This code was taken back. {again}"),
    };
    Farewell { text, paired: standing.state == "used" && standing.device.is_some() }
}

/// Why a call failed.
#[derive(Debug)]
enum Failed {
    /// Nobody answers.
    Unreachable,
    /// The server says no: its status, and its sentence.
    Refused(StatusCode, String),
}

/// The running server, as its data folder tells of it.
struct Server {
    client: Client,
    base: String,
    token_file: PathBuf,
    token: String,
    /// Whether it listens for this computer only.
    alone: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    http: String,
    #[serde(default)]
    https: Option<SocketAddr>,
    admin_token_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Offer {
    offer_id: String,
    code: String,
    url: String,
    #[serde(deserialize_with = "time")]
    expires_at: Timestamp,
}

/// RFC 3339.
fn time<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Timestamp, D::Error> {
    String::deserialize(reader)?.parse().map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    state: String,
    tries_left: u8,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    device: Option<Device>,
}

#[derive(Deserialize)]
struct Device {
    id: String,
    name: String,
    person: String,
}

impl Server {
    fn find(data_dir: &Path) -> Result<Self, Trouble> {
        let run = std::fs::read(data_dir.join("run.json")).map_err(|_| Trouble::no_server(data_dir))?;
        let run: Run = serde_json::from_slice(&run).map_err(|_| Trouble::no_server(data_dir))?;
        let token = std::fs::read_to_string(&run.admin_token_file);
        let token = token.map_err(|error| Trouble(format!("{} cannot be read: {error}.", run.admin_token_file.display())))?;
        // Loopback needs no proxy, whatever the environment says.
        let client = Client::builder().no_proxy().timeout(CALL).build();
        let client = client.map_err(|error| Trouble(format!("No HTTP client: {error}.")))?;
        let base = format!("http://{}", run.http);
        let alone = run.https.is_some_and(|https| https.ip().is_loopback());
        Ok(Self { client, base, token_file: run.admin_token_file, token: token.trim().to_owned(), alone })
    }

    async fn open(&self, wanted: &Wanted) -> Result<Offer, Failed> {
        let mut body = json!({ "admin": wanted.admin });
        if let Some(person) = &wanted.person {
            body["person"] = person.as_str().into();
        }
        self.call(Method::POST, "/api/pairings", Some(&body)).await
    }

    /// Waits until the offer is over, and shows meanwhile how it stands.
    async fn follow<W: Write>(&self, offer: &Offer, screen: &mut Screen<W>) -> Result<Standing, Failed> {
        let path = format!("/api/pairings/{}", offer.offer_id);
        let mut pace = tokio::time::interval(PACE);
        let (mut url, mut patience) = (offer.url.clone(), NAME_PATIENCE);
        loop {
            pace.tick().await;
            let standing: Standing = self.call(Method::GET, &path, None).await?;
            match standing.state.as_str() {
                "open" => match standing.address.and_then(|address| moved(&url, &address)) {
                    Some(moved) => {
                        url = moved;
                        screen.moved(&url, &offer.code);
                    }
                    None => screen.waiting(offer.expires_at),
                },
                // It has come in and is being written down.
                "used" if standing.device.is_none() && patience > 0 => patience -= 1,
                _ => return Ok(standing),
            }
        }
    }

    async fn end(&self, offer: &Offer) -> Result<(), Failed> {
        let request = self.client.delete(format!("{}/api/pairings/{}", self.base, offer.offer_id)).bearer_auth(&self.token);
        request.send().await.map(drop).map_err(|_| Failed::Unreachable)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Failed> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|_| Failed::Unreachable)?;
        let status = response.status();
        let text = response.bytes().await.map_err(|_| Failed::Unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&text).map_err(|_| Failed::Refused(status, not_understood()));
        }
        let problem: Value = serde_json::from_slice(&text).unwrap_or_default();
        Err(Failed::Refused(status, problem["detail"].as_str().map_or_else(not_understood, str::to_owned)))
    }

    /// How to revoke a device without a window.
    fn revoke(&self, device: &str) -> String {
        let file = self.token_file.display();
        format!(r#"curl -X DELETE -H "Authorization: Bearer $(cat '{file}')" {}/api/devices/{device}"#, self.base)
    }
}

fn not_understood() -> String {
    "The answer of the server cannot be understood. Is it of another version?".to_owned()
}

/// `host:port` in the text of a QR code.
fn address_in(url: &str) -> &str {
    url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// The text of a QR code with another address; `None` where it has this one already.
fn moved(url: &str, address: &str) -> Option<String> {
    let old = address_in(url);
    (!old.is_empty() && old != address).then(|| url.replacen(old, address, 1))
}

/// The fingerprint in the text of a QR code, as the phone shows it: upper-case hex in groups of four.
fn fingerprint_in(url: &str) -> Option<String> {
    let (_, letters) = url.rsplit_once('.')?;
    let bytes = BASE64URL_NOPAD.decode(letters.as_bytes()).ok().filter(|bytes| !bytes.is_empty())?;
    let groups: Vec<String> = bytes.chunks(2).map(|pair| HEXUPPER.encode(pair)).collect();
    Some(groups.join(" "))
}

/// A short code as people read it: `ABCD-EFGH`.
fn grouped(code: &str) -> String {
    code.split_at_checked(4).map_or_else(|| code.to_owned(), |(front, back)| format!("{front}-{back}"))
}

/// Where all of this is shown.
struct Screen<W> {
    out: W,
    ink: Ink,
    /// Whether a line may be written anew while time passes.
    live: bool,
}

impl Screen<io::Stdout> {
    fn of_stdout() -> Self {
        let out = io::stdout();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = out.is_terminal() && !dumb;
        // https://no-color.org
        let ink = if terminal && !set("NO_COLOR") { Ink::Colour } else { Ink::Plain };
        Self { out, ink, live: terminal }
    }
}

impl<W: Write> Screen<W> {
    fn offer(&mut self, offer: &Offer, wanted: &Wanted) {
        self.code(&offer.url, &offer.code);
        if let Some(fingerprint) = fingerprint_in(&offer.url) {
            self.say(&format!("Fingerprint to compare on the phone:\n  {fingerprint}"));
        }
        if wanted.admin {
            self.say("Whoever comes in by this code may do all that you may.");
        }
        self.say(&format!("It lets one device in and ends in {} s.", seconds_left(offer.expires_at)));
    }

    fn moved(&mut self, url: &str, code: &str) {
        self.clear_line();
        self.say("The network has changed. From now on it is this one:\n");
        self.code(url, code);
    }

    fn code(&mut self, url: &str, code: &str) {
        let address = address_in(url);
        let drawn = qr::letters(url, self.ink).unwrap_or_default();
        self.say(&format!("Point the phone's camera at this code:\n\n{drawn}"));
        self.say(&format!("No camera? Open http://{address}/p on the phone and type {}\n", grouped(code)));
    }

    fn waiting(&mut self, until: Timestamp) {
        if self.live {
            // A terminal that is gone is noticed by the signal that comes with it.
            let _ = write!(self.out, "\r\x1b[KWaiting for a phone, {} s left", seconds_left(until));
            let _ = self.out.flush();
        }
    }

    fn clear_line(&mut self) {
        if self.live {
            let _ = write!(self.out, "\r\x1b[K");
        }
    }

    fn say(&mut self, text: &str) {
        self.clear_line();
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }
}

fn seconds_left(until: Timestamp) -> i64 {
    until.duration_since(Timestamp::now()).as_secs().max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://192.168.1.7:3001/p#v1.k3v9abcdefghijkl.AbCdEfGhIjKlMnOpQrStUv.AAECAwQFBgcICQoLDA0ODw";

    fn server() -> Server {
        let (base, token_file, token) = ("http://127.0.0.1:3001".into(), "/d/admin-token".into(), String::new());
        Server { client: Client::new(), base, token_file, token, alone: false }
    }

    #[test]
    fn what_is_read_from_the_text_of_the_code() {
        assert_eq!(address_in(URL), "192.168.1.7:3001");
        assert_eq!(fingerprint_in(URL).as_deref(), Some("0001 0203 0405 0607 0809 0A0B 0C0D 0E0F"));
        assert_eq!(fingerprint_in("http://192.168.1.7:3001/p#v1.a.b."), None);
        assert_eq!(moved(URL, "192.168.1.7:3001"), None);
        assert_eq!(moved(URL, "[fd00::7]:3001"), Some(URL.replace("192.168.1.7", "[fd00::7]")));
        assert_eq!((grouped("ABCDEFGH").as_str(), grouped("ä").as_str()), ("ABCD-EFGH", "ä"));
    }

    #[test]
    fn the_last_words() {
        let device = |person: &str| Some(Device { id: "d1".into(), name: "Pixel 8".into(), person: person.into() });
        let curl = r#"curl -X DELETE -H "Authorization: Bearer $(cat '/d/admin-token')" http://127.0.0.1:3001/api/devices/d1"#;
        for (state, tries_left, device, paired, text) in [
            ("used", 5, device("Pixel 8"), true, format!("Pixel 8 was paired just now. If that was not you, revoke it:\n  {curl}")),
            ("used", 5, device("Anna"), true, format!("Pixel 8 was paired just now for Anna. If that was not you, revoke it:\n  {curl}")),
            ("used", 5, None, false, "A device was paired, and is gone again.".into()),
            ("expired", 3, None, false, "This code has ended. For another one: balcony-server pair".into()),
            ("replaced", 5, None, false, "This code has ended: a newer one was opened elsewhere.".into()),
            ("ended", 0, None, false, "This code has ended: too many wrong ones were tried. For another one: balcony-server pair".into()),
            ("ended", 5, None, false, "This code was taken back. For another one: balcony-server pair".into()),
        ] {
            let standing = Standing { state: state.into(), tries_left, address: None, device };
            assert_eq!(farewell(&standing, &server()), Farewell { text, paired });
        }
    }

    #[test]
    fn what_the_terminal_shows() {
        let offer = Offer {
            offer_id: "k3v9abcdefghijkl".into(),
            code: "ABCDEFGH".into(),
            url: URL.into(),
            expires_at: Timestamp::now() + jiff::SignedDuration::from_secs(100),
        };
        let shown = |live, ink, admin| {
            let mut screen = Screen { out: Vec::new(), ink, live };
            screen.offer(&offer, &Wanted { admin, person: None });
            screen.waiting(offer.expires_at);
            String::from_utf8(screen.out).expect("text")
        };
        let plain = shown(false, Ink::Plain, false);
        assert!(!plain.contains('\x1b') && !plain.contains('\r'), "{plain}");
        assert!(plain.contains("Open http://192.168.1.7:3001/p on the phone and type ABCD-EFGH\n"), "{plain}");
        assert!(plain.contains("0001 0203 0405 0607") && plain.contains("ends in 9") && !plain.contains("may do all"), "{plain}");
        assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
        assert!(!plain.contains("AbCdEfGhIjKlMnOpQrStUv"), "the secret stands in the picture only");
        let live = shown(true, Ink::Colour, true);
        assert!(live.contains("\r\x1b[KWaiting for a phone, 9") && live.contains("48;5;231") && live.contains("may do all"), "{live}");
    }

    #[tokio::test]
    async fn no_server() {
        let folder = tempfile::tempdir().expect("folder");
        let wanted = Wanted { admin: false, person: None };
        let mut screen = Screen { out: Vec::new(), ink: Ink::Plain, live: false };
        let expected = Err(Trouble::no_server(folder.path()));
        assert_eq!(show(folder.path(), &wanted, &mut screen, std::future::pending()).await, expected);
        // Left behind by one that was killed: its port is closed.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let token = folder.path().join("admin-token");
        std::fs::write(&token, "x").expect("written");
        let run = json!({ "pid": 1, "http": closed.to_string(), "https": null, "adminTokenFile": token });
        std::fs::write(folder.path().join("run.json"), run.to_string()).expect("written");
        assert_eq!(show(folder.path(), &wanted, &mut screen, std::future::pending()).await, expected);
        assert!(screen.out.is_empty());
    }
}
