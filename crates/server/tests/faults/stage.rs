//! What every fault is tried on: a film, its seeder, the line between, a server, somebody who looks at what is told, and the row of the
//! table that comes of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::films;
use super::line::Line;
use super::server::TestServer;
use super::swarm::{Swarm, SwarmOptions};
use super::viewer::{LONG, Viewer};

/// A film of so many seconds, 854×480, H.264 and AAC, a key frame every two seconds, about 2 Mbit/s of which no second is like another.
pub(crate) fn film(seconds: u32) -> PathBuf {
    let picture = format!("-f lavfi -i testsrc2=s=854x480:r=24:d={seconds},noise=alls=20:allf=t");
    let code =
        "-c:v libx264 -preset ultrafast -b:v 1900k -maxrate 1900k -bufsize 1900k -g 48 -keyint_min 48 -sc_threshold 0 -pix_fmt yuv420p";
    let arguments = format!("{picture} {} {code} {} -movflags +faststart", films::sound(f64::from(seconds)), films::AAC);
    films::by_ffmpeg("film.mp4", &arguments)
}

/// Bytes per second at which the film comes a little faster than it plays.
pub(crate) const PACE: u64 = 600_000;

/// One fault's row.
pub(crate) struct Row {
    kind: &'static str,
    fault: &'static str,
    seen: Vec<String>,
    back: Option<Duration>,
    lost: Vec<String>,
}

impl Row {
    pub(crate) fn of(kind: &'static str, fault: &'static str) -> Self {
        Self { kind, fault, seen: Vec::new(), back: None, lost: Vec::new() }
    }

    /// What the viewer was told or got while it lasted.
    pub(crate) fn saw(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.seen.contains(&what) {
            self.seen.push(what);
        }
    }

    /// How long after its end the film went on.
    pub(crate) fn back_after(&mut self, took: Duration) {
        self.back = Some(self.back.map_or(took, |longest| longest.max(took)));
    }

    pub(crate) fn lost(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("lost: {what}");
        self.lost.push(what);
    }

    /// Writes it down; nothing may be lost.
    pub(crate) fn write(self) {
        let lost = if self.lost.is_empty() { "nothing".to_owned() } else { self.lost.join("; ") };
        let row = json!({
            "kind": self.kind, "fault": self.fault, "seen": self.seen.join("; "),
            "backAfter": self.back.map(|back| (back.as_secs_f64() * 100.0).round() / 100.0), "lost": lost,
        });
        eprintln!("{row}");
        if let Some(folder) = std::env::var_os("FAULTS_TABLE") {
            let name: String = self.fault.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect();
            std::fs::write(Path::new(&folder).join(format!("{}-{name}.json", self.kind)), row.to_string()).expect("the row is kept");
        }
        assert!(self.lost.is_empty(), "lost: {lost}");
    }
}

/// A film, whoever has it, and the line to them.
pub(crate) struct Theatre {
    pub(crate) film: PathBuf,
    pub(crate) swarm: Swarm,
    pub(crate) line: Line,
}

impl Theatre {
    /// One seeder of a film of so many seconds behind an open line.
    pub(crate) async fn of(seconds: u32) -> Self {
        Self::showing(film(seconds)).await
    }

    pub(crate) async fn showing(film: PathBuf) -> Self {
        Self::seeded(film, 1).await
    }

    /// So many seeders of a film; the first one is behind the line.
    pub(crate) async fn seeded(film: PathBuf, seeders: usize) -> Self {
        let swarm = Swarm::seed(&film, SwarmOptions { piece_len: 64 << 10, seeders, ..SwarmOptions::default() }).await;
        let line = Line::to(swarm.magnet().peers[0]).await;
        Self { film, swarm, line }
    }

    /// The magnet as people paste it, with the line's address.
    pub(crate) fn link(&self) -> String {
        self.link_to(&[self.line.front()])
    }

    pub(crate) fn link_to(&self, peers: &[std::net::SocketAddr]) -> String {
        let peers: String = peers.iter().map(|peer| format!("&x.pe={peer}")).collect();
        format!("magnet:?xt=urn:btih:{}{peers}", self.swarm.info_hash())
    }

    /// Starts it and waits until it is ready; somebody sits down, and somebody looks at what is told from the beginning.
    pub(crate) async fn begins(&self, server: &TestServer, options: Value) -> (Viewer, Watch) {
        let started = server.start(&self.link(), options).await;
        let watch = Watch::over(server, &id(&started));
        let ready = server.until_ready(&id(&started)).await;
        (Viewer::of(server, &ready, &self.film).await, watch)
    }
}

/// A server that nothing was asked of yet, and what it held then.
pub(crate) struct House {
    pub(crate) server: TestServer,
    open_files: BTreeSet<String>,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(&[], &[]).await
    }

    pub(crate) async fn with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::of(TestServer::with(flags, environment).await)
    }

    pub(crate) fn of(server: TestServer) -> Self {
        let open_files = open_files(&server);
        Self { server, open_files }
    }

    /// Stops all streams, and finds that nothing is left of them: no child, no open file, no bytes on the disk. Then the server ends in
    /// order.
    pub(crate) async fn closes(mut self) {
        let server = &self.server;
        assert_eq!(server.get("/api/health").await.json()["status"], "ok");
        let list = server.call(Method::GET, "/api/streams", None).await.json();
        let mut hashes = BTreeSet::new();
        for stream in list["streams"].as_array().expect("a list") {
            hashes.insert(stream["infoHash"].as_str().expect("a hash").to_owned());
            server.stop(&id(stream)).await;
        }
        eventually("no child is left", || server.children().is_empty()).await;
        for hash in hashes {
            eventually("no file of a film is left", || !files_below(server).iter().any(|path| path.contains(&hash))).await;
        }
        eventually("no open file is left", || open_files(server).difference(&self.open_files).next().is_none()).await;
        let said = server.said();
        assert!(!said.contains("panicked") && !said.contains("stumbled"), "{said}");
        let ended = self.server.end().expect("it ran");
        assert_eq!(ended.code(), Some(0), "{}", self.server.said());
    }
}

/// Files that the server has open. The database opens and closes its own as it likes.
fn open_files(server: &TestServer) -> BTreeSet<String> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its descriptors");
    let names = entries.flatten().filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
    names.filter(|name| name.starts_with('/') && !name.contains("balcony.sqlite")).collect()
}

fn files_below(server: &TestServer) -> Vec<String> {
    fn below(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            found.push(entry.path().to_string_lossy().into_owned());
            if entry.path().is_dir() {
                below(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    [server.data_dir(), server.cache_dir()].iter().for_each(|folder| below(folder, &mut found));
    found
}

/// What the database says, read by another program while the server runs.
pub(crate) fn rows(path: &Path, query: &str) -> Vec<String> {
    let script = "import sqlite3, sys\nbase = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)\n\
                  for row in base.execute(sys.argv[2]): print(*row)";
    let done = Command::new("/usr/bin/python3").args(["-c", script]).arg(path).arg(query).output().expect("python3");
    assert!(done.status.success(), "{query}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
}

pub(crate) fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

pub(crate) fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or(0)
}

/// What a person reads, without the numbers in it.
fn in_words(status: &Value) -> String {
    let message = status["message"].as_str().unwrap_or_default();
    let plain: String = message.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
    let plain = plain.split('#').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("…");
    format!("{}: “{plain}”", status["status"].as_str().unwrap_or_default())
}

/// Waits until something is so that nobody tells by himself.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Looks at a stream's status all the time, as a phone does, and insists on what always holds: there is a reason in words for every
/// state, `ready` stays ready, and progress never goes back.
pub(crate) struct Watch {
    told: Arc<Mutex<Vec<Value>>>,
    end: CancellationToken,
    looking: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn over(server: &TestServer, id: &str) -> Self {
        let (told, end) = (Arc::<Mutex<Vec<Value>>>::default(), CancellationToken::new());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
        let ask = client.get(server.here(&format!("/api/stream/status/{id}"))).bearer_auth(server.token());
        let looking = tokio::spawn(look(ask, told.clone(), end.clone()));
        Self { told, end, looking }
    }

    /// Messages that were told since the last time somebody asked, without the seconds in them.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut told: Vec<String> = Vec::new();
        for line in self.told_in_order() {
            if !told.contains(&line) {
                told.push(line);
            }
        }
        told
    }

    /// The same in their order: one that comes again is told again.
    pub(crate) fn told_in_order(&self) -> Vec<String> {
        let statuses = std::mem::take(&mut *self.told.lock().expect("what was told"));
        let mut told: Vec<String> = statuses.iter().map(in_words).collect();
        told.dedup();
        told
    }

    /// Ends looking; whatever was wrong fails the test here.
    pub(crate) async fn ends(self) {
        self.end.cancel();
        self.looking.await.expect("what is told is right at any time");
    }
}

async fn look(ask: reqwest::RequestBuilder, told: Arc<Mutex<Vec<Value>>>, end: CancellationToken) {
    let (mut ready, mut progress) = (false, 0);
    while !end.is_cancelled() {
        // A server that is away says nothing, and that is the fault of the test.
        if let Ok(answer) = ask.try_clone().expect("no body").send().await
            && let Ok(status) = answer.json::<Value>().await
            && status["streamId"].is_string()
        {
            let message = status["message"].as_str().unwrap_or_default();
            assert!(message.len() > 5 && status["messageKey"].as_str().is_some_and(|key| !key.is_empty()), "no reason: {status:#}");
            let word = status["status"].as_str().unwrap_or_default();
            assert!(!ready || matches!(word, "ready" | "stopped"), "no longer ready: {status:#}");
            let now = number(&status, "progress");
            assert!(now >= progress, "from {progress} back to {now}: {status:#}");
            (ready, progress) = (ready || word == "ready", now);
            told.lock().expect("what was told").push(status);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = end.cancelled() => {}
        }
    }
}

/// Waits until the person who watches is told that bytes are being waited for, and for how long.
pub(crate) async fn is_told_to_wait(server: &TestServer, id: &str, row: &mut Row) {
    let waits = |status: &Value| {
        let key = status["messageKey"].as_str().unwrap_or_default();
        let waits =
            matches!(key, "playable_waits_for_bytes" | "waiting_for_bytes" | "connecting" | "looking_for_peers" | "asking_for_metadata");
        waits
            && number(&status["messageParams"], "seconds") > 0
            && status["message"].as_str().is_some_and(|message| message.contains(" s)"))
    };
    row.saw(in_words(&server.until(id, LONG.as_secs(), "told what is waited for", waits).await));
}

/// What a fault may not take away from a stream.
pub(crate) struct Held {
    before: Value,
    segment: bytes::Bytes,
}

const LASTING: [&str; 8] = ["streamId", "infoHash", "title", "fileIndex", "quality", "createdAt", "position", "totalBytes"];

impl Held {
    pub(crate) async fn by(server: &TestServer, viewer: &Viewer) -> Self {
        let segment = server.fetch(&viewer.picture(0)).await;
        Self { before: server.status(&viewer.id).await, segment }
    }

    /// Compares; writes into the row what is gone.
    pub(crate) async fn is_all_there(&self, server: &TestServer, viewer: &Viewer, row: &mut Row) {
        let after = server.status(&viewer.id).await;
        for key in LASTING {
            if after[key] != self.before[key] {
                row.lost(format!("{key}: {} instead of {}", after[key], self.before[key]));
            }
        }
        for key in ["streamUrl", "directUrl", "eventsUrl"] {
            let path = |status: &Value| server.here(status[key].as_str().unwrap_or_default());
            if path(&after) != path(&self.before) {
                row.lost(key);
            }
        }
        let (before, now) = (number(&self.before, "downloadedBytes"), number(&after, "downloadedBytes"));
        if now < before {
            row.lost(format!("{} bytes", before - now));
        }
        if after["status"] != "ready" {
            row.lost(format!("it is {} and no longer ready", after["status"]));
        } else if server.fetch(&viewer.picture(0)).await != self.segment {
            row.lost("the first segment is another one");
        }
    }
}
