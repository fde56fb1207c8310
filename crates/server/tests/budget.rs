//! The room on the disk has one owner: what films and segments take never passes the budget, whatever is asked for in whatever order.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use balcony_media::magnet::InfoHash;
use balcony_server::budget::{Account, Books, Film, Verdict};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

const LONG: u64 = 90;
const MIB: u64 = 1 << 20;

// ---------------------------------------------------------------- the books

/// What can happen to the room on a disk.
#[derive(Debug, Clone)]
enum Happening {
    /// Somebody asks for a film of so many bytes.
    Ask(u8, u64),
    /// Bytes of a film come.
    Come(u8, u64),
    /// A segment is written.
    Segment(u64),
    /// Somebody watches a film.
    Watch(u8),
    /// A film's last stream ends, and its bytes stay or go.
    End(u8, bool),
    /// Nothing happens for a while.
    Time(u16),
    /// `kill -9` and a start: promises and segments are gone, bytes are not.
    Crash,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let film = 0_u8..6;
    let one = prop_oneof![
        4 => (film.clone(), 1_u64..1500).prop_map(|(film, size)| Happening::Ask(film, size)),
        8 => (film.clone(), 1_u64..600).prop_map(|(film, size)| Happening::Come(film, size)),
        4 => (1_u64..200).prop_map(Happening::Segment),
        2 => film.clone().prop_map(Happening::Watch),
        1 => (film, any::<bool>()).prop_map(|(film, stays)| Happening::End(film, stays)),
        2 => any::<u16>().prop_map(Happening::Time),
        1 => Just(Happening::Crash),
    ];
    proptest::collection::vec(one, 1..200)
}

fn key(film: u8) -> Film {
    (InfoHash([film; 20]), usize::from(film))
}

/// A disk on which everything goes by the books.
struct Model {
    books: Books,
    now: i64,
}

impl Model {
    fn ask(&mut self, film: u8, size: u64) -> Result<(), TestCaseError> {
        let whole = self.books.films.get(&key(film)).map_or(size, |account| account.held.max(size));
        let mut verdict = self.books.admit(key(film), whole, self.now);
        if let Verdict::After { hold_back, leave, segments } = verdict {
            for held_back in &hold_back {
                let account = self.books.films.get_mut(held_back).expect("what waits is here");
                prop_assert!(*held_back != key(film) && account.promised > account.held, "nobody waits in vain");
                prop_assert!(self.now - account.used >= self.books.keep, "what is being watched goes on");
                account.promised = 0;
            }
            for (n, gone) in leave.iter().enumerate() {
                let account = self.books.films.remove(gone).expect("what leaves was here");
                prop_assert!(*gone != key(film), "nobody leaves for himself");
                prop_assert!(account.promised <= account.held, "what is being fetched stays");
                prop_assert!(self.now - account.used >= self.books.keep, "what is being watched stays");
                let idler = |other: &Account| {
                    other.promised <= other.held && other.held > 0 && other.used < account.used && self.now - other.used >= self.books.keep
                };
                // Those that are not whole leave after all that are.
                let alike = |other: &Film| hold_back.contains(other) == hold_back.contains(gone);
                let mut rest = self.books.films.iter().filter(|(other, _)| alike(other) && !leave[n..].contains(other));
                let other = rest.find(|(other, account)| **other != key(film) && idler(account));
                prop_assert!(other.is_none(), "the one first that was not watched for longest");
            }
            self.books.segments = self.books.segments.min(segments);
            verdict = self.books.admit(key(film), whole, self.now);
            prop_assert_eq!(&verdict, &Verdict::Fits, "when those have left that were named, it fits");
        }
        match verdict {
            Verdict::Fits => {
                let account = self.books.films.entry(key(film)).or_insert(Account { held: 0, promised: 0, used: self.now });
                account.promised = account.promised.max(whole);
                account.used = self.now;
            }
            Verdict::Never(shortage) => prop_assert!(shortage.needed > shortage.free && shortage.limit == self.books.limit),
            Verdict::After { .. } => unreachable!("asked twice"),
        }
        Ok(())
    }

    fn happen(&mut self, happening: &Happening) -> Result<(), TestCaseError> {
        match *happening {
            Happening::Ask(film, size) => self.ask(film, size)?,
            Happening::Come(film, bytes) => {
                if let Some(account) = self.books.films.get_mut(&key(film)) {
                    account.held = (account.held + bytes).min(account.promised.max(account.held));
                    if account.held >= account.promised {
                        account.promised = 0;
                    }
                }
            }
            Happening::Segment(bytes) => {
                // The oldest go for it, as long as there are any.
                let room = self.books.room_for_segments();
                if bytes <= room {
                    self.books.segments = self.books.segments.min(room - bytes) + bytes;
                }
            }
            Happening::Watch(film) => {
                let now = self.now;
                self.books.films.entry(key(film)).and_modify(|account| account.used = now);
            }
            Happening::End(film, true) => {
                self.books.films.entry(key(film)).and_modify(|account| account.promised = 0);
            }
            Happening::End(film, false) => drop(self.books.films.remove(&key(film))),
            Happening::Time(time) => self.now += i64::from(time),
            Happening::Crash => {
                self.books.segments = 0;
                self.books.films.values_mut().for_each(|account| account.promised = 0);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn never_above_the_budget_whatever_the_order(all in happenings(), limit in 100_u64..4000) {
        let books = Books { limit, segments: 0, films: std::collections::BTreeMap::new(), kept: std::collections::BTreeMap::new(), keep: 20_000 };
        let mut model = Model { books, now: 0 };
        for happening in &all {
            model.happen(happening)?;
            let taken = model.books.held() + model.books.segments;
            prop_assert!(taken <= limit, "{} bytes after {:?}", taken, happening);
            // Nor when everything that is promised has come.
            prop_assert!(model.books.held() + model.books.to_come() <= limit);
            prop_assert!(model.books.room_for_segments() > 0, "what is being converted can always be played");
        }
    }
}

#[test]
fn segments_go_first_then_films_that_nobody_watches_and_nothing_else() {
    let account = |held, promised, used| Account { held, promised, used };
    let films =
        [(key(1), account(300, 0, 10)), (key(2), account(300, 0, 5)), (key(3), account(100, 200, 60)), (key(4), account(50, 0, 99))];
    let books = Books { limit: 1600, segments: 500, films: films.into_iter().collect(), kept: std::collections::BTreeMap::new(), keep: 50 };
    let keys = |films: &[u8]| films.iter().copied().map(key).collect();
    let after = |hold_back: &[u8], leave: &[u8], segments| Verdict::After { hold_back: keys(hold_back), leave: keys(leave), segments };
    assert_eq!(books.admit(key(9), 200, 100), Verdict::Fits);
    assert_eq!(books.admit(key(9), 300, 100), after(&[], &[], 450));
    assert_eq!(books.admit(key(9), 800, 100), after(&[], &[2], 250));
    assert_eq!(books.admit(key(9), 1200, 100), after(&[], &[2, 1], 150));
    let Verdict::Never(shortage) = books.admit(key(9), 1300, 100) else { panic!("one is being fetched, one is being watched") };
    assert_eq!((shortage.needed, shortage.free, shortage.limit, shortage.others), (1300, 1250, 1600, 250));
    // Later nobody has watched the unfinished one for long: first what is to come of it waits, then it leaves as well.
    assert_eq!(books.admit(key(9), 1300, 110), after(&[3], &[2, 1], 150));
    assert_eq!(books.admit(key(9), 1400, 110), after(&[3], &[2, 1, 3], 150));
    assert!(matches!(books.admit(key(9), 1500, 110), Verdict::Never(_)));
}

#[test]
fn a_film_that_is_here_is_never_refused() {
    let films = [(key(1), Account { held: 300, promised: 0, used: 0 }), (key(2), Account { held: 500, promised: 600, used: 0 })];
    // Others have filled the disk: less may be taken now than is taken.
    let books = Books { limit: 100, segments: 0, films: films.into_iter().collect(), kept: std::collections::BTreeMap::new(), keep: 50 };
    assert_eq!(books.admit(key(1), 300, 10), Verdict::Fits);
    assert!(matches!(books.admit(key(1), 301, 10), Verdict::Never(_)));
}

// ---------------------------------------------------------------- the server

fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

fn ffmpeg(args: &str, out: &Path) {
    let made = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(args.split_whitespace()).arg(out).status();
    assert!(made.expect("ffmpeg").success(), "ffmpeg {args}");
}

/// Films of 320 kB a second, each another one.
fn film(folder: &Path, n: u32, seconds: u32) -> PathBuf {
    let out = folder.join(format!("film {n}.mp4"));
    ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=s=640x360:r=24,noise=alls=24:allf=t:all_seed={n} -f lavfi -i sine=f={}:r=48000 -t {seconds} \
             -c:v libx264 -preset ultrafast -b:v 2400k -minrate 2400k -maxrate 2400k -bufsize 1200k -g 48 -sc_threshold 0 \
             -pix_fmt yuv420p -c:a aac -b:a 96k -movflags +faststart",
            300 + n
        ),
        &out,
    );
    out
}

async fn seed(film: &Path) -> Swarm {
    Swarm::seed(film, SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }).await
}

/// Blocks that films and segments take on the disk.
fn taken(cache: &Path) -> u64 {
    fn below(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| if entry.path().is_dir() { below(&entry.path()) } else { entry.metadata().map_or(0, |it| it.blocks() * 512) })
            .sum()
    }
    below(&cache.join("torrents/torrents")) + below(&cache.join("segments"))
}

/// Looks at the disk all the time, from outside.
struct Auditor {
    most: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    looks: Option<std::thread::JoinHandle<()>>,
}

impl Auditor {
    fn of(server: &TestServer) -> Self {
        let (most, end, cache) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), server.cache_dir());
        let looks = std::thread::spawn({
            let (most, end) = (most.clone(), end.clone());
            move || {
                while !end.load(Ordering::Relaxed) {
                    most.fetch_max(taken(&cache), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self { most, end, looks: Some(looks) }
    }

    fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.looks.take().map(std::thread::JoinHandle::join);
    }
}

/// All segments of a rendition, in order.
async fn segments(server: &TestServer, status: &Value, rendition: &str) -> Vec<Bytes> {
    let list = status["streamUrl"].as_str().expect("a URL").replace("master.m3u8", &format!("{rendition}/index.m3u8"));
    let playlist = server.fetch(&list).await;
    let folder = list.rsplit_once('/').expect("a folder").0.to_owned();
    let mut all = Vec::new();
    for name in String::from_utf8_lossy(&playlist).lines().filter(|line| line.ends_with(".m4s")) {
        all.push(server.fetch(&format!("{folder}/{name}")).await);
    }
    all
}

async fn complete(server: &TestServer, swarm: &Swarm) -> Value {
    let ready = server.play(&swarm.link(), json!({})).await;
    server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await
}

async fn no_space(server: &TestServer, swarm: &Swarm) -> Value {
    let started = server.start(&swarm.link(), json!({})).await;
    let status = server.until(&id(&started), LONG, "over", |status| status["status"] == "error").await;
    assert_eq!(status["error"]["code"], "no_space", "{status:#}");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_beside_what_is_watched_is_refused_with_figures() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (seed(&film(folder.path(), 1, 24)).await, seed(&film(folder.path(), 2, 24)).await);
    let server = TestServer::with(&["--cache-max-bytes", "12MiB"], &[]).await;
    let audit = Auditor::of(&server);
    let watched = complete(&server, &first).await;
    let refused = no_space(&server, &second).await;
    let detail = refused["error"]["detail"].as_str().expect("a sentence");
    assert!(detail.contains("needs 7.") && detail.contains("of 13 MB") && detail.contains("are kept for films"), "{detail}");
    assert!(refused["downloadedBytes"].as_u64().unwrap_or(0) == 0, "{refused:#}");
    // Nobody else has to stand back for it.
    assert_eq!(server.status(&id(&watched)).await["phase"], "complete");
    // What stands in the way is stopped: there is room.
    server.stop(&id(&watched)).await;
    complete(&server, &second).await;
    assert!(audit.most() > 7 * MIB && audit.most() <= 12 * MIB, "{} bytes", audit.most());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_nobody_watches_leaves_and_comes_back_when_somebody_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (seed(&film(folder.path(), 3, 24)).await, seed(&film(folder.path(), 4, 24)).await);
    let server = TestServer::with(&["--cache-max-bytes", "12MiB"], &[("TEST_FILM_KEPT_MS", "1000")]).await;
    let audit = Auditor::of(&server);
    let old = complete(&server, &first).await;
    let before = segments(&server, &old, "v0").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let new = complete(&server, &second).await;
    let other = segments(&server, &new, "v0").await;
    // Its stream lives on, and says that it is not all here.
    let left = server.until(&id(&old), LONG, "said to have left", |status| status["phase"] == "playable").await;
    assert_eq!((&left["status"], &left["downloadedBytes"]), (&json!("ready"), &json!(0)), "{left:#}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = segments(&server, &old, "v0").await;
    assert!(before == after && before != other, "the same film as before");
    assert_eq!(server.status(&id(&new)).await["status"], "ready");
    let seen = server.call(reqwest::Method::GET, "/api/overview", None).await.json();
    let number = |key: &str| seen[key].as_u64().unwrap_or_else(|| panic!("no {key}: {seen:#}"));
    assert_eq!(number("budgetBytes"), 12 * MIB);
    assert_eq!(number("usedBytes"), number("filmBytes") + number("segmentBytes"));
    assert!(audit.most() > 7 * MIB && audit.most() <= 12 * MIB, "{} bytes", audit.most());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_larger_than_the_rest_of_the_budget_plays_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = film(folder.path(), 5, 24);
    // A sixteenth is left to segments.
    let budget = film.metadata().expect("a film").len() / 15 * 16 + (128 << 10);
    let swarm = seed(&film).await;
    let server = TestServer::with(&["--cache-max-bytes", &budget.to_string()], &[]).await;
    let audit = Auditor::of(&server);
    let copied = complete(&server, &swarm).await;
    let converted = server.play(&swarm.link(), json!({ "quality": "360p", "capabilities": { "video": ["vp9"] } })).await;
    assert_eq!(converted["mode"], "convert", "{converted:#}");
    let all = segments(&server, &converted, "v0").await;
    let bytes: usize = all.iter().map(Bytes::len).sum();
    assert!(all.len() > 8 && all.iter().all(|segment| !segment.is_empty()));
    let film = copied["totalBytes"].as_u64().expect("its length");
    assert!(film + bytes as u64 > budget, "{bytes} bytes of a conversion are to be more than what is left");
    // And again from its beginning, which has left meanwhile.
    assert_eq!(segments(&server, &converted, "v0").await.len(), all.len());
    assert_eq!(server.status(&id(&copied)).await["status"], "ready");
    assert!(audit.most() <= budget, "{} bytes, {bytes} of segments", audit.most());
}

/// Says that it waits for room.
fn waits_for_room(status: &Value) -> bool {
    status["messageKey"] == "no_space"
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_longer_fits_after_a_restart_plays_what_is_here_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = film(folder.path(), 20, 30);
    let slow = SwarmOptions { rate: Some(700_000), piece_len: 64 << 10, ..SwarmOptions::default() };
    let swarm = Swarm::seed(&film, slow).await;
    let mut server = TestServer::open().await;
    let ready = server.play(&swarm.link(), json!({})).await;
    server.until(&id(&ready), LONG, "a third", |status| status["downloadProgress"].as_f64() > Some(33.0)).await;
    let beside = |name: &str| ready["streamUrl"].as_str().expect("a URL").replace("master.m3u8", name);
    let first = server.fetch(&beside("v0/0.m4s")).await;
    let allow = async |server: &TestServer, bytes: u64| {
        let changed = server.call(reqwest::Method::PATCH, "/api/settings", Some(json!({ "cacheMaxBytes": bytes }))).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
    };
    allow(&server, 5 * MIB).await;
    server.kill_9();
    server.restart().await;
    let audit = Auditor::of(&server);
    let waits = server.until(&id(&ready), LONG, "said to wait for room", waits_for_room).await;
    assert_eq!((&waits["status"], &waits["phase"]), (&json!("ready"), &json!("playable")), "{waits:#}");
    assert!(server.fetch(&beside("v0/0.m4s")).await == first, "what is here plays");
    let last = server.get(&beside("v0/6.m4s")).await;
    assert_eq!(last.status, 503, "what is not here is late");
    assert_eq!(server.status(&id(&ready)).await["status"], "ready");
    assert!(audit.most() <= 5 * MIB, "{} bytes", audit.most());
    allow(&server, 16 * MIB).await;
    server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await;
    let whole = server.fetch(ready["directUrl"].as_str().expect("a URL")).await;
    assert!(whole == std::fs::read(&film).expect("the film"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_film_that_nobody_watches_stands_back_and_goes_on_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let slow = SwarmOptions { rate: Some(400_000), piece_len: 64 << 10, ..SwarmOptions::default() };
    let patient = Swarm::seed(&film(folder.path(), 21, 24), slow).await;
    let wanted = seed(&film(folder.path(), 22, 24)).await;
    let server = TestServer::with(&["--cache-max-bytes", "12MiB"], &[("TEST_FILM_KEPT_MS", "1000")]).await;
    let audit = Auditor::of(&server);
    let old = server.play(&patient.link(), json!({})).await;
    assert_eq!(old["phase"], "playable");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let new = complete(&server, &wanted).await;
    let waits = server.until(&id(&old), LONG, "said to wait for room", waits_for_room).await;
    assert_eq!(waits["status"], "ready", "{waits:#}");
    assert!(waits["downloadedBytes"].as_u64() > Some(0), "what came of it stays: {waits:#}");
    // The other one ends: the first one goes on though nobody asks for it.
    server.stop(&id(&new)).await;
    server.until(&id(&old), LONG, "complete", |status| status["phase"] == "complete").await;
    assert!(audit.most() <= 12 * MIB, "{} bytes", audit.most());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_without_room_for_its_first_segment_waits_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = seed(&film(folder.path(), 23, 12)).await;
    let mut server = TestServer::with(&["--cache-max-bytes", "12MiB"], &[]).await;
    let copied = complete(&server, &swarm).await;
    let hash = copied["infoHash"].as_str().expect("an info hash");
    // Something that nobody knows of takes all the room.
    let other = server.cache_dir().join("torrents/torrents").join(hash).join("other");
    std::fs::write(&other, vec![1; 12 << 20]).expect("written");
    server.kill_9();
    server.restart().await;
    let converted = server.start(&swarm.link(), json!({ "quality": "360p", "capabilities": { "video": [] } })).await;
    let waits = server.until(&id(&converted), LONG, "said to wait for room", waits_for_room).await;
    assert_eq!((&waits["status"], &waits["phase"]), (&json!("converting"), &json!("converting")), "{waits:#}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(server.status(&id(&converted)).await["status"], "error");
    std::fs::remove_file(&other).expect("removed");
    let ready = server.until_ready(&id(&converted)).await;
    assert_ne!(ready["messageKey"], "no_space", "{ready:#}");
    assert!(!server.fetch(&ready["streamUrl"].as_str().expect("a URL").replace("master.m3u8", "v0/0.m4s")).await.is_empty());
}
