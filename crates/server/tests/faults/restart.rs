//! The server is killed with no chance to tidy up, or the current goes, at any moment of a busy time.
//!
//! What it had answered before is a promise. After each start the promises are compared with what is there, and the files with the
//! database.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::server::{TestServer, lives};
use super::stage::{House, Row, Theatre, eventually, id, number, rows};
use super::viewer::{LONG, Viewer};

/// How often it is killed; `FAULTS_KILLS` is another number.
const KILLS: u64 = 50;

/// How often the current goes; `FAULTS_CUTS` is another number.
const CUTS: u64 = 10;

/// What chance the test has; `FAULTS_SEED` is another one.
const SEED: u64 = 0x0bad_cafe_f00d_d00d;

/// Numbers as if by chance (Marsaglia's xorshift).
struct Chance(u64);

impl Chance {
    /// Of its own for each of those who are busy.
    fn of(seed: u64, kill: u64, who: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, kill, who).hash(&mut hasher);
        Self(hasher.finish() | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn number_from(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// What the server has answered, and what it was asked when it was killed.
#[derive(Default)]
struct Promises {
    /// Streams that were started; whether they were stopped, or a stop was asked for and not answered.
    streams: BTreeMap<String, Fate>,
    /// The position that was answered last, and those that were asked for since.
    positions: BTreeMap<String, (f64, Vec<f64>)>,
    /// Tokens of phones that were paired.
    tokens: Vec<String>,
    /// Hashes that were asked for and not answered.
    unanswered: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Started,
    PerhapsStopped,
    /// It was answered after so long.
    Stopped(Duration),
}

/// A client that is busy with everything, until the server dies under it.
struct Busy {
    client: reqwest::Client,
    base: String,
    token: String,
    promises: Arc<Mutex<Promises>>,
    /// The paths of segments of streams that are ready.
    segments: Vec<String>,
    /// Streams that are never stopped.
    kept: Vec<String>,
    end: CancellationToken,
}

impl Busy {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = tokio::select! {
            answer = request.send() => answer.ok()?,
            () = self.end.cancelled() => return None,
        };
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    fn promises(&self) -> std::sync::MutexGuard<'_, Promises> {
        self.promises.lock().expect("promises")
    }

    /// `None` when the server is gone.
    async fn does_something(&self, chance: &mut Chance, started: &mut usize) -> Option<()> {
        // Each life of the server begins with all of them: not too many.
        let crowded = self.promises().streams.values().filter(|fate| **fate == Fate::Started).count() > 20;
        match if crowded { 2 } else { chance.below(10) } {
            // A device may start twenty in a minute, and each life of the server counts anew.
            0 | 1 if *started < 15 => {
                *started += 1;
                self.starts(chance).await
            }
            2 => self.stops(chance).await,
            3 | 4 => self.moves(chance).await,
            5 if *started < 15 => {
                *started += 5;
                self.pairs().await
            }
            _ => self.plays(chance).await,
        }
    }

    async fn starts(&self, chance: &mut Chance) -> Option<()> {
        let hash = format!("{:016x}{:016x}{:08x}", chance.below(u64::MAX), chance.below(u64::MAX), 0xfa_u32);
        self.promises().unanswered.insert(hash.clone());
        let (status, stream) = self.call(Method::POST, "/api/stream/start", Some(json!({ "magnetLink": hash }))).await?;
        assert_eq!(status, 201, "{stream:#}");
        let mut promises = self.promises();
        promises.unanswered.remove(&hash);
        promises.streams.insert(id(&stream), Fate::Started);
        Some(())
    }

    async fn stops(&self, chance: &mut Chance) -> Option<()> {
        let one = {
            let mut promises = self.promises();
            let mut alive = promises.streams.iter_mut().filter(|(id, fate)| **fate == Fate::Started && !self.kept.contains(id));
            // Some stay.
            let Some((one, fate)) = alive.nth(chance.below(3) as usize) else { return Some(()) };
            *fate = Fate::PerhapsStopped;
            one.clone()
        };
        let asked = Instant::now();
        let (status, answer) = self.call(Method::DELETE, &format!("/api/stream/{one}"), None).await?;
        assert_eq!(status, 200, "{answer:#}");
        self.promises().streams.insert(one, Fate::Stopped(asked.elapsed()));
        Some(())
    }

    async fn moves(&self, chance: &mut Chance) -> Option<()> {
        let one = self.kept[chance.below(self.kept.len() as u64) as usize].clone();
        let seconds = chance.below(50_000) as f64 / 1000.0;
        self.promises().positions.entry(one.clone()).or_default().1.push(seconds);
        let (status, answer) = self.call(Method::PUT, &format!("/api/stream/{one}/position"), Some(json!({ "seconds": seconds }))).await?;
        assert_eq!(status, 200, "{answer:#}");
        let mut promises = self.promises();
        let (answered, asked) = promises.positions.entry(one).or_default();
        // Three are busy at once: which of two answers came last is told by nobody.
        asked.push(*answered);
        *answered = seconds;
        Some(())
    }

    async fn pairs(&self) -> Option<()> {
        let (status, offer) = self.call(Method::POST, "/api/pairings", Some(json!({}))).await?;
        assert_eq!(status, 201, "{offer:#}");
        let body = json!({ "code": offer["code"], "deviceName": "a phone", "platform": "test" });
        let (status, paired) = self.call(Method::POST, "/api/pair", Some(body)).await?;
        // Ten a minute; and a new offer ends the one before it, which may be another's.
        if !matches!(status, 410 | 429) {
            assert_eq!(status, 201, "{paired:#}");
            self.promises().tokens.push(paired["token"].as_str().expect("a token").to_owned());
        }
        Some(())
    }

    async fn plays(&self, chance: &mut Chance) -> Option<()> {
        let url = format!("{}{}", self.base, self.segments[chance.below(self.segments.len() as u64) as usize]);
        let request = self.client.get(url).send();
        tokio::select! {
            answer = request => drop(answer.ok()?.bytes().await.ok()?),
            // Players give up too.
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
            () = self.end.cancelled() => return None,
        }
        Some(())
    }
}

/// Whole names of 40 hex digits below a folder.
fn hashes_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hash: String = name.chars().take_while(char::is_ascii_hexdigit).collect();
        if hash.len() == 40 {
            found.insert(hash);
        }
        if entry.path().is_dir() {
            found.extend(hashes_below(&entry.path()));
        }
    }
    found
}

/// Compares what was promised with what is there. The server has just started. What was asked and not answered is settled by this.
async fn keeps(server: &TestServer, mut promises: Promises, row: &mut Row) -> Promises {
    let list = server.call(Method::GET, "/api/streams", None).await.json();
    let streams = list["streams"].as_array().expect("a list");
    let there: BTreeMap<String, &Value> = streams.iter().map(|stream| (id(stream), stream)).collect();
    for (id, fate) in &mut promises.streams {
        let lives = there.get(id).is_some_and(|stream| stream["status"] != "stopped");
        match fate {
            Fate::Started if !lives => row.lost(format!("a stream that was started: {:?}", there.get(id))),
            Fate::Stopped(after) if lives => {
                row.lost(format!("a stream that was stopped, as was answered after {after:?}, is back: {:#}", there[id]));
            }
            Fate::PerhapsStopped if lives => *fate = Fate::Started,
            Fate::PerhapsStopped => *fate = Fate::Stopped(Duration::ZERO),
            Fate::Started | Fate::Stopped(_) => {}
        }
    }
    for (id, stream) in there.iter().filter(|(_, stream)| stream["status"] != "stopped") {
        let hash = stream["infoHash"].as_str().expect("a hash");
        if promises.streams.contains_key(id) {
            continue;
        }
        if !promises.unanswered.contains(hash) {
            row.lost(format!("there is a stream that nobody started: {stream:#}"));
        }
        promises.streams.insert(id.clone(), Fate::Started);
    }
    promises.unanswered.clear();
    for (id, (answered, asked)) in &mut promises.positions {
        let at = there.get(id).and_then(|stream| stream["position"].as_f64());
        if at != Some(*answered) && !at.is_some_and(|at| asked.contains(&at)) {
            row.lost(format!("the position {answered} is {at:?}"));
        }
        (*answered, *asked) = (at.unwrap_or(*answered), Vec::new());
    }
    for token in &promises.tokens {
        let answer = server.call_as(token, Method::GET, "/api/streams", None).await;
        if answer.status != 200 {
            row.lost(format!("a phone is not known any more: {}", answer.status));
        }
    }
    promises
}

/// Compares the files with the database.
async fn agrees(server: &TestServer, row: &mut Row) {
    let database = server.data_dir().join("balcony.sqlite");
    for said in rows(&database, "PRAGMA integrity_check") {
        if said != "ok" {
            row.lost(format!("the database is damaged: {said}"));
        }
    }
    // Tidying up goes on while it listens.
    let begun = Instant::now();
    loop {
        let known: BTreeSet<String> = rows(&database, "SELECT info_hash FROM torrents").into_iter().collect();
        let lying: BTreeSet<String> = [server.data_dir(), server.cache_dir()].iter().flat_map(|folder| hashes_below(folder)).collect();
        let strange: Vec<&String> = lying.difference(&known).collect();
        if strange.is_empty() {
            return;
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return row.lost(format!("files of nobody lie there: {strange:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What has been fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// They are all there afterwards.
    Stay,
    /// Those that had not reached the disk are fetched again.
    MayGo,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_answered_is_there_after_kill_9_at_any_moment() {
    let row = Row::of("restart", "kill -9 at fifty moments of a busy time");
    let server = TestServer::with(&["--metadata-timeout", "1h"], &[]).await;
    survives(row, server, number_from("FAULTS_KILLS", KILLS), Bytes::Stay, TestServer::kill_9).await;
}

/// A disk of its own, of which only that survives which was brought to it.
struct Platter {
    image: tempfile::NamedTempFile,
    at: PathBuf,
}

impl Platter {
    /// `None` where such a thing may not be made, with the reason on stderr.
    fn new() -> Option<Self> {
        let image = image();
        image.as_file().set_len(512 << 20).expect("long enough");
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-E", "lazy_itable_init=0,root_owner=0:0"]).arg(image.path());
        let platter = Self { image, at: PathBuf::new() };
        let (probe, fine) = (tempfile::tempdir().expect("a folder"), does(&mut make));
        let tried = fine && platter.mount(probe.path());
        if tried {
            does(Command::new("umount").arg(probe.path()));
        } else {
            eprintln!("skipped: no file system can be made and mounted here");
        }
        tried.then_some(platter)
    }

    /// Nothing is brought to the disk by itself within the time of a test, but what is asked for.
    fn mount(&self, at: &Path) -> bool {
        does(Command::new("mount").args(["-o", "loop,commit=600"]).arg(self.image.path()).arg(at))
    }

    /// The current goes: nothing that was not brought to the disk will be there.
    fn loses_power(&mut self, server: &mut TestServer) {
        // It falls silent at once; only its disk would tell it otherwise.
        kill(Pid::from_raw(server.pid() as i32), Signal::SIGSTOP).expect("stopped");
        // FS_IOC_SHUTDOWN without flushing the log: from now on nothing reaches the disk.
        let off = "import fcntl, os, struct, sys\nfcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        assert!(does(Command::new("/usr/bin/python3").args(["-c", off]).arg(&self.at)), "the disk is switched off");
        let children = server.children();
        server.kill_9();
        let gone = Instant::now();
        while children.iter().any(|(pid, _)| lives(*pid)) || !does(Command::new("umount").arg(&self.at)) {
            assert!(gone.elapsed() < LONG, "the disk is still in use");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Namespaces that others made meanwhile may still have the dead one mounted, and it would be found again by its file.
        let next = image();
        assert!(does(Command::new("cp").arg("--sparse=always").args([self.image.path(), next.path()])), "it is copied");
        self.image = next;
        assert!(self.mount(&self.at), "the journal is played back");
    }
}

impl Drop for Platter {
    fn drop(&mut self) {
        if !self.at.as_os_str().is_empty() {
            does(Command::new("umount").arg("-l").arg(&self.at));
            let _ = std::fs::remove_dir(&self.at);
        }
    }
}

fn image() -> tempfile::NamedTempFile {
    tempfile::Builder::new().prefix("faults-platter-").tempfile().expect("a file")
}

/// Whether a program does what it should; what it says otherwise is on stderr.
fn does(program: &mut Command) -> bool {
    let done = program.output();
    done.is_ok_and(|done| {
        if !done.status.success() {
            eprintln!("{program:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        done.status.success()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_answered_is_there_after_a_power_cut_at_any_moment() {
    let row = Row::of("restart", "the current goes at ten moments of a busy time: what was not brought to the disk is lost");
    let Some(mut platter) = Platter::new() else { return };
    let server = TestServer::in_folder(&["--metadata-timeout", "1h"], |folder| {
        platter.at = folder.to_owned();
        assert!(platter.mount(folder));
    })
    .await;
    survives(row, server, number_from("FAULTS_CUTS", CUTS), Bytes::MayGo, |server| platter.loses_power(server)).await;
}

/// Three clients are busy with everything, and the server dies in this way, so often; what it had answered is there each time.
async fn survives(mut row: Row, mut server: TestServer, kills: u64, bytes: Bytes, mut dies: impl FnMut(&mut TestServer)) {
    let theatre = Theatre::of(60).await;
    theatre.line.at_rate(Some(400_000));
    let seed = number_from("FAULTS_SEED", SEED);
    let copied = server.play(&theatre.link(), json!({})).await;
    let converted = server.play(&theatre.link(), json!({ "quality": "360p" })).await;
    let viewers = [Viewer::of(&server, &copied, &theatre.film).await, Viewer::of(&server, &converted, &theatre.film).await];
    let kept: Vec<String> = viewers.iter().map(|viewer| viewer.id.clone()).collect();
    let segments: Vec<String> = viewers.iter().flat_map(|viewer| (0..=viewer.last()).map(|n| viewer.picture(n))).collect();
    let segments: Vec<String> = segments.iter().map(|url| server.here(url).replace(server.base(), "")).collect();
    let first = server.fetch(&viewers[0].picture(0)).await;
    let promises = Arc::<Mutex<Promises>>::default();
    for id in &kept {
        promises.lock().expect("promises").streams.insert(id.clone(), Fate::Started);
    }
    let (mut held, mut slowest) = (0, Duration::ZERO);
    for kill in 0..kills {
        let end = CancellationToken::new();
        let busy = (0..3).map(|who| {
            let busy = Busy {
                client: reqwest::Client::builder().no_proxy().build().expect("a client"),
                base: server.base().to_owned(),
                token: server.token().to_owned(),
                promises: promises.clone(),
                segments: segments.clone(),
                kept: kept.clone(),
                end: end.clone(),
            };
            let (mut chance, mut started) = (Chance::of(seed, kill, who), 10);
            tokio::spawn(async move { while busy.does_something(&mut chance, &mut started).await.is_some() {} })
        });
        let busy: Vec<_> = busy.collect();
        tokio::time::sleep(Duration::from_millis(Chance::of(seed, kill, 9).below(700))).await;
        let children = server.children();
        dies(&mut server);
        end.cancel();
        for busy in busy {
            busy.await.expect("every answer was a right one");
        }
        eventually("no child survives", || !children.iter().any(|(pid, _)| lives(*pid))).await;
        let begun = Instant::now();
        server.restart().await;
        slowest = slowest.max(begun.elapsed());
        let promised = std::mem::take(&mut *promises.lock().expect("promises"));
        let settled = keeps(&server, promised, &mut row).await;
        *promises.lock().expect("promises") = settled;
        // What was fetched before is not fetched again.
        let back = |status: &Value| bytes == Bytes::MayGo || number(status, "downloadedBytes") >= held;
        let status = server.until(&kept[0], LONG.as_secs(), "back with its bytes", back).await;
        held = number(&status, "downloadedBytes");
        if kill % 10 == 9 {
            agrees(&server, &mut row).await;
        }
    }
    row.saw(format!("nobody is answered for {:.1} s at most, then as before", slowest.as_secs_f64()));
    let ended = Instant::now();
    theatre.line.at_rate(None);
    viewers[0].gets(&server, viewers[0].last()).await;
    row.back_after(ended.elapsed());
    assert!(server.fetch(&viewers[0].picture(0)).await == first, "the first segment is another one");
    for viewer in &viewers {
        viewer.plays(&server, 0..=viewer.last()).await;
    }
    server.until(&kept[0], LONG.as_secs(), "complete", |status| status["phase"] == "complete").await;
    let direct = server.fetch(copied["directUrl"].as_str().expect("a URL")).await;
    assert!(direct == std::fs::read(&theatre.film).expect("the film"), "the film is another one");
    agrees(&server, &mut row).await;
    row.write();
    House::of(server).closes().await;
}
