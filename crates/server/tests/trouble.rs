//! Trouble, seen from outside: the real program, real swarms, and whatever can go wrong with seeders, torrents, films, ffmpeg, disks,
//! processes and clients. Each ends in a clear state: no panic, no hang, no orphan, and no other stream is lost.

#[path = "support/liar.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod liar;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use liar::{Liar, many_files, one_file, sha1};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use server::{Answer, TestServer, lives};
use swarm::{Swarm, SwarmOptions};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Generous: nothing here measures time, it only must not be endless.
const LONG: u64 = 90;

// ---------------------------------------------------------------- films

fn ffmpeg(args: &str, out: &Path) {
    let made = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(args.split_whitespace()).arg(out).status();
    assert!(made.expect("ffmpeg").success(), "ffmpeg {args}");
}

/// Films of 854×480, H.264 and AAC, about 2.5 Mbit/s, a key frame every two seconds.
struct Films(tempfile::TempDir);

impl Films {
    fn new() -> Self {
        let films = Self(tempfile::Builder::new().prefix("trouble-films-").tempdir().expect("a folder"));
        ffmpeg(
            "-f lavfi -i testsrc2=s=854x480:r=24,noise=alls=24:allf=t -f lavfi -i sine=f=330:r=48000 -t 8 -c:v libx264 -preset ultrafast \
             -b:v 2400k -maxrate 2400k -bufsize 2400k -g 48 -sc_threshold 0 -pix_fmt yuv420p -c:a aac -b:a 96k",
            &films.path("seed.mp4"),
        );
        films
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A film of so many seconds; `args` says how it is packed.
    fn make(&self, name: &str, seconds: u32, args: &str) -> PathBuf {
        let seed = self.path("seed.mp4");
        let made = self.path(name);
        ffmpeg(&format!("-stream_loop -1 -i {} -t {seconds} -map 0 -c copy {args}", seed.display()), &made);
        made
    }

    fn mp4(&self, name: &str, seconds: u32) -> PathBuf {
        self.make(name, seconds, "-movflags +faststart")
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }
}

fn slow(rate: u64) -> SwarmOptions {
    SwarmOptions { rate: Some(rate), piece_len: 64 << 10, ..SwarmOptions::default() }
}

fn quick() -> SwarmOptions {
    SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }
}

// ---------------------------------------------------------------- looking at a server from outside

fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

fn url(status: &Value) -> String {
    status["streamUrl"].as_str().expect("a URL").to_owned()
}

/// The media beside the master playlist.
fn beside(status: &Value, name: &str) -> String {
    url(status).replace("master.m3u8", name)
}

fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or(0)
}

/// How many segments a rendition has.
async fn segments(server: &TestServer, status: &Value, rendition: &str) -> usize {
    let playlist = server.fetch(&beside(status, &format!("{rendition}/index.m3u8"))).await;
    let playlist = String::from_utf8_lossy(&playlist).into_owned();
    assert!(playlist.contains("#EXT-X-ENDLIST"), "{playlist}");
    playlist.lines().filter(|line| line.ends_with(".m4s")).count()
}

async fn segment(server: &TestServer, status: &Value, rendition: &str, n: usize) -> Answer {
    server.get(&beside(status, &format!("{rendition}/{n}.m4s"))).await
}

/// Waits until something is so.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn fails_with(server: &TestServer, id: &str, code: &str, what: &str) -> Value {
    let over = |status: &Value| matches!(status["status"].as_str(), Some("error" | "stopped"));
    let status = server.until(id, 2 * LONG, what, over).await;
    assert_eq!(
        (&status["status"], &status["phase"], &status["error"]["code"]),
        (&json!("error"), &json!("failed"), &json!(code)),
        "{what}: {status:#}"
    );
    let said = status["error"].to_string() + status["message"].as_str().expect("a message");
    assert!(status["error"]["title"].as_str().is_some_and(|title| title.len() > 5), "{what}: {status:#}");
    assert!(status["error"]["detail"].as_str().is_some_and(|detail| detail.len() > 10 && detail.len() < 400), "{what}: {status:#}");
    for secret in ["http://", "127.0.0.1", "/tmp/"] {
        assert!(!said.contains(secret), "{what} tells {secret}: {said}");
    }
    // Its media lead to nothing any more.
    problem(&server.get(&url(&status)).await, 404, "not_found");
    status
}

/// Checks that an answer is this problem, in the form of every problem.
#[track_caller]
fn problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    if answer.body.is_empty() {
        return; // HEAD
    }
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["code"], &body["type"]),
        (&json!(status), &json!(code), &json!(format!("/problems/{code}"))),
        "{body}"
    );
    for key in ["title", "detail", "error", "message", "traceId"] {
        assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {body}");
    }
    if matches!(status, 429 | 503) {
        assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "no Retry-After");
    }
}

/// Everything that is true of a server after any trouble.
async fn is_well(server: &TestServer) {
    assert_eq!(server.get("/api/health").await.json()["status"], "ok");
    let said = server.said();
    assert!(!said.contains("panicked") && !said.contains("stumbled"), "{said}");
}

async fn no_children(server: &TestServer) {
    eventually("no child is left", || server.children().is_empty()).await;
}

/// Files under a folder, by path.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// What of a torrent and of its segments lies on the disk.
fn left_of(server: &TestServer, status: &Value) -> Vec<PathBuf> {
    let hash = status["infoHash"].as_str().expect("a hash").to_owned();
    let of_it = |path: &PathBuf| path.to_string_lossy().contains(&hash);
    [server.data_dir(), server.cache_dir()].iter().flat_map(|folder| files_below(folder)).filter(of_it).collect()
}

/// A second stream that plays round and round while something else is in trouble.
struct Healthy {
    id: String,
    end: CancellationToken,
    rounds: JoinHandle<usize>,
    swarm: Swarm,
}

impl Healthy {
    async fn begin(server: &TestServer, films: &Films) -> Self {
        let swarm = Swarm::seed(films.mp4("healthy.mp4", 16), slow(700_000)).await;
        let ready = server.play(&swarm.link(), json!({})).await;
        let mut urls = Vec::new();
        for rendition in ["v0", "a1"] {
            for n in 0..segments(server, &ready, rendition).await {
                urls.push(server.here(&beside(&ready, &format!("{rendition}/{n}.m4s"))));
            }
        }
        let (end, client) = (CancellationToken::new(), server.client().clone());
        let rounds = tokio::spawn(play_round(client, urls, end.clone()));
        Self { id: id(&ready), end, rounds, swarm }
    }

    async fn played_on(self, server: &TestServer) {
        assert_eq!(server.status(&self.id).await["status"], "ready");
        self.end.cancel();
        assert!(self.rounds.await.expect("the healthy stream plays") > 0);
    }
}

async fn play_round(client: reqwest::Client, urls: Vec<String>, end: CancellationToken) -> usize {
    let mut seen: HashMap<String, Bytes> = HashMap::new();
    let mut rounds = 0;
    loop {
        for url in &urls {
            let body = play_one(&client, url).await;
            let before = seen.entry(url.clone()).or_insert_with(|| body.clone());
            assert!(!body.is_empty() && *before == body, "another segment than before: {url}");
        }
        rounds += 1;
        // A whole round always, however soon it is ended.
        if end.is_cancelled() {
            return rounds;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn play_one(client: &reqwest::Client, url: &str) -> Bytes {
    for _ in 0..10 {
        let answer = client.get(url).send().await.expect("an answer");
        match answer.status().as_u16() {
            200 => return answer.bytes().await.expect("a whole body"),
            503 => tokio::time::sleep(Duration::from_secs(1)).await,
            other => panic!("the healthy stream got {other}"),
        }
    }
    panic!("the healthy stream was late ten times");
}

// ---------------------------------------------------------------- 1: seeders

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_dies_in_the_middle_and_comes_back() {
    let films = Films::new();
    let server = TestServer::open().await;
    let healthy = Healthy::begin(&server, &films).await;
    let mut swarm = Swarm::seed(films.mp4("film.mp4", 90), slow(900_000)).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    let (id, last) = (id(&ready), segments(&server, &ready, "v0").await - 1);
    swarm.kill();
    let alone = |status: &Value| number(status, "downloadSpeed") == 0 && number(status, "peers") == 0;
    let status = server.until(&id, LONG, "alone", alone).await;
    assert_eq!((&status["status"], &status["phase"]), (&json!("ready"), &json!("playable")));
    // The message says what is waited for, and for how long.
    let waits = |status: &Value| status["messageKey"] == "playable_waits_for_bytes" && number(&status["messageParams"], "seconds") > 0;
    let status = server.until(&id, LONG, "said to be waiting", waits).await;
    assert!(status["message"].as_str().is_some_and(|message| message.contains(" s)")), "{status:#}");
    // What is here plays on, what is not is late, and nothing breaks.
    assert_eq!(segment(&server, &ready, "v0", 0).await.status, 200);
    problem(&segment(&server, &ready, "v0", last).await, 503, "segment_late");
    swarm.revive();
    let late = server.fetch(&beside(&ready, &format!("v0/{last}.m4s"))).await;
    assert!(!late.is_empty());
    let status = server.until(&id, LONG, "complete", |status| status["phase"] == "complete").await;
    assert_eq!((status["downloadProgress"].as_f64(), &status["downloadedBytes"]), (Some(100.0), &status["totalBytes"]));
    healthy.played_on(&server).await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_dies_before_the_first_picture_and_comes_back() {
    let films = Films::new();
    let server = TestServer::open().await;
    let mut swarm = Swarm::seed(films.mp4("film.mp4", 30), slow(150_000)).await;
    let id = id(&server.start(&swarm.link(), json!({})).await);
    server.until(&id, LONG, "begun", |status| number(status, "downloadedBytes") > 0).await;
    swarm.kill();
    let waits = |status: &Value| status["phase"] == "connecting" && number(&status["messageParams"], "seconds") > 0;
    let status = server.until(&id, LONG, "waiting for peers", waits).await;
    assert_eq!(status["status"], "downloading");
    assert!(status["message"].as_str().is_some_and(|message| message.contains(" s)")), "{status:#}");
    swarm.revive();
    server.until_ready(&id).await;
    is_well(&server).await;
}

// ---------------------------------------------------------------- 2, 3: torrents of nobody, and lies

#[tokio::test(flavor = "multi_thread")]
async fn a_magnet_of_nobody_ends_and_so_does_one_whose_bytes_never_come() {
    let films = Films::new();
    let server = TestServer::with(&["--metadata-timeout", "3s", "--stall-timeout", "3s"], &[]).await;
    let healthy = Healthy::begin(&server, &films).await;
    let nobody = server.start("magnet:?xt=urn:btih:c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
    assert_eq!((&nobody["status"], nobody["message"].as_str().is_some_and(|text| !text.is_empty())), (&json!("downloading"), true));
    // This one tells what is in the torrent, and never sends a piece of it.
    let info = one_file("film.mkv", "4000000", "262144", 16);
    let miser = Liar::tell(info.clone()).await;
    let link = |hash: &str, peer: std::net::SocketAddr| format!("magnet:?xt=urn:btih:{hash}&x.pe={peer}");
    let stalled = server.start(&link(&sha1(&info).to_string(), miser.address), json!({})).await;
    let known = server.until(&id(&stalled), LONG, "known", |status| status["title"] == "film.mkv").await;
    assert!(known["directUrl"].as_str().is_some_and(|url| url.ends_with("/file/film.mkv")), "{known:#}");
    fails_with(&server, &id(&nobody), "no_peers", "a magnet of nobody").await;
    fails_with(&server, &id(&stalled), "no_peers", "bytes that never come").await;
    // The same again is a new stream; one that has failed does not stand in its way.
    let again = server.try_start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
    assert_eq!(again.status, 201);
    assert_ne!(id(&again.json()), id(&nobody));
    healthy.played_on(&server).await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_lies_ends_the_stream_and_nothing_is_written() {
    let films = Films::new();
    let server = TestServer::with(&["--metadata-timeout", "20s"], &[]).await;
    let healthy = Healthy::begin(&server, &films).await;
    let names: Vec<String> = (0..100_000).map(|n| format!("{n}.mkv")).collect();
    let thousands: Vec<(Vec<&str>, &str)> = names.iter().map(|name| (vec![name.as_str()], "1")).collect();
    let lies = [
        ("a piece length of nothing", one_file("a.mkv", "1000000", "0", 4)),
        ("a length that wraps", one_file("a.mkv", "18446744073709551615", "262144", 4)),
        ("an absurd length", one_file("a.mkv", "9000000000000000000", "67108864", 4)),
        ("a hundred thousand files", many_files(&thousands, 262_144, 1)),
        ("a way up", many_files(&[(vec!["..", "..", "etc", "a.mkv"], "1000")], 262_144, 1)),
        ("an absolute way", many_files(&[(vec!["/etc/a.mkv"], "1000")], 262_144, 1)),
        ("too few hashes", one_file("a.mkv", "1000000", "262144", 1)),
    ];
    let nothing_to_play = many_files(&[(vec!["read.me"], "1000"), (vec!["setup.exe"], "9000")], 262_144, 1);
    let all = lies.into_iter().map(|(what, info)| (what, "unsafe_torrent", info));
    let all = all.chain([("no film in it", "not_playable", nothing_to_play)]);
    let mut trials = Vec::new();
    for (what, code, info) in all {
        let hash = sha1(&info);
        let liar = Liar::tell(info).await;
        let started = server.start(&format!("magnet:?xt=urn:btih:{hash}&x.pe={}", liar.address), json!({})).await;
        trials.push((what, code, started, liar));
    }
    for (what, code, started, _liar) in &trials {
        let status = fails_with(&server, &id(started), code, what).await;
        assert_eq!(left_of(&server, &status), Vec::<PathBuf>::new(), "{what}");
    }
    healthy.played_on(&server).await;
    is_well(&server).await;
}

// ---------------------------------------------------------------- 4: films

fn cut_at(path: &Path, share: f64) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("the film");
    bytes.truncate((bytes.len() as f64 * share) as usize);
    bytes
}

/// Overwrites ranges, given as shares of the film, with what comes out of `fill`.
fn damaged(path: &Path, holes: &[(f64, usize)], fill: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("the film");
    for (share, len) in holes {
        let from = (bytes.len() as f64 * share) as usize;
        bytes.iter_mut().skip(from).take(*len).enumerate().for_each(|(at, byte)| *byte = fill(at));
    }
    bytes
}

fn rubbish(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("it is in there")
}

/// How a damaged film may end.
enum Fate {
    /// At least this share of its segments comes, per cent.
    Plays(usize),
    NotPlayable,
    /// Either; but clearly.
    Ends,
}

fn damaged_films(films: &Films) -> Vec<(&'static str, PathBuf, Fate)> {
    let front = films.mp4("front.mp4", 40);
    let behind = films.make("behind.mp4", 40, "");
    let mkv = films.make("whole.mkv", 40, "");
    let mut bad_tables = std::fs::read(&front).expect("the film");
    let tables = find(&bad_tables, b"stbl") + 4;
    let end = find(&bad_tables, b"mdat") - 8;
    bad_tables.iter_mut().take(end).skip(tables).enumerate().for_each(|(at, byte)| *byte = rubbish(at));
    let mut bad_cues = std::fs::read(&mkv).expect("the film");
    let cues = bad_cues.len() - 400;
    bad_cues.iter_mut().skip(cues).enumerate().for_each(|(at, byte)| *byte = rubbish(at));
    vec![
        ("cut.mp4: index in front, cut at 70 %", films.write("cut.mp4", &cut_at(&front, 0.7)), Fate::Plays(60)),
        ("headless.mp4: index behind, cut off", films.write("headless.mp4", &cut_at(&behind, 0.7)), Fate::NotPlayable),
        (
            "holes.mp4: holes of 64 KiB",
            films.write("holes.mp4", &damaged(&front, &[(0.3, 1 << 16), (0.5, 1 << 16), (0.8, 1 << 16)], |_| 0)),
            Fate::Plays(100),
        ),
        (
            "holes.mkv: holes of 64 KiB",
            films.write("holes.mkv", &damaged(&mkv, &[(0.3, 1 << 16), (0.5, 1 << 16), (0.8, 1 << 16)], |_| 0)),
            Fate::Plays(80),
        ),
        (
            "rubbish.mkv: rubbish of 64 KiB",
            films.write("rubbish.mkv", &damaged(&mkv, &[(0.2, 1 << 16), (0.6, 1 << 16)], rubbish)),
            Fate::Plays(80),
        ),
        ("cut.mkv: cut off at 70 %", films.write("cut.mkv", &cut_at(&mkv, 0.7)), Fate::Plays(60)),
        ("cues.mkv: its list of cues is rubbish", films.write("cues.mkv", &bad_cues), Fate::Ends),
        ("tables.mp4: its tables are rubbish", films.write("tables.mp4", &bad_tables), Fate::NotPlayable),
        ("text.mkv: a text", films.write("text.mkv", &b"This is not a film. ".repeat(20_000)), Fate::NotPlayable),
        ("zeros.mp4: zeros", films.write("zeros.mp4", &vec![0; 2 << 20]), Fate::NotPlayable),
        ("noise.avi: noise", films.write("noise.avi", &(0..1 << 20).map(rubbish).collect::<Vec<_>>()), Fate::NotPlayable),
        ("tiny.mkv: a few bytes", films.write("tiny.mkv", b"\x1a\x45\xdf\xa3 tiny"), Fate::NotPlayable),
        ("head.mkv: nothing but a beginning", films.write("head.mkv", &cut_at(&mkv, 0.0005)), Fate::Ends),
    ]
}

/// Asks for all segments of all renditions, and gives what share of them came, per cent.
async fn share_that_plays(server: &TestServer, ready: &Value, what: &str) -> usize {
    let master = String::from_utf8_lossy(&server.fetch(&url(ready)).await).into_owned();
    let renditions: Vec<&str> = ["v0", "a1"].into_iter().filter(|name| master.contains(&format!("{name}/index.m3u8"))).collect();
    let (mut all, mut came) = (0, 0);
    for rendition in renditions {
        for n in 0..segments(server, ready, rendition).await {
            let request = server.client().get(server.here(&beside(ready, &format!("{rendition}/{n}.m4s"))));
            let answer = request.timeout(Duration::from_secs(LONG)).send().await.unwrap_or_else(|error| panic!("{what} {n}: {error}"));
            all += 1;
            match answer.status().as_u16() {
                // A body may break off where the film does, but it must end.
                200 => match answer.bytes().await {
                    Ok(_) => came += 1,
                    Err(error) => assert!(!error.is_timeout(), "{what}: segment {n} of {rendition} hangs"),
                },
                503 => {}
                other => panic!("{what}: segment {n} of {rendition}: {other}"),
            }
        }
    }
    came * 100 / all.max(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_films_play_as_far_as_they_can_or_say_that_they_cannot() {
    let films = Arc::new(Films::new());
    let server = Arc::new(TestServer::open().await);
    let healthy = Healthy::begin(&server, &films).await;
    let mut trials = JoinSet::new();
    for (what, path, fate) in damaged_films(&films) {
        let server = server.clone();
        trials.spawn(async move {
            let swarm = Swarm::seed(path, quick()).await;
            let id = id(&server.start(&swarm.link(), json!({})).await);
            let over = |status: &Value| matches!(status["status"].as_str(), Some("error" | "ready"));
            let status = server.until(&id, LONG, what, over).await;
            let plays = status["status"] == "ready";
            match fate {
                Fate::Plays(share) => {
                    assert!(plays, "{what}: {status:#}");
                    let came = share_that_plays(&server, &status, what).await;
                    assert!(came >= share, "{what}: only {came} % plays");
                }
                Fate::Ends if plays => {
                    share_that_plays(&server, &status, what).await;
                }
                Fate::Ends => {
                    // Whether our index, ffprobe or ffmpeg finds out first depends on what is left of the film.
                    let code = if status["error"]["code"] == "conversion_failed" { "conversion_failed" } else { "not_playable" };
                    fails_with(&server, &id, code, what).await;
                }
                Fate::NotPlayable => {
                    fails_with(&server, &id, "not_playable", what).await;
                }
            }
            server.stop(&id).await;
        });
    }
    while let Some(trial) = trials.join_next().await {
        trial.expect("a clear end");
    }
    no_children(&server).await;
    healthy.played_on(&server).await;
    is_well(&server).await;
}

// ---------------------------------------------------------------- 5: ffmpeg

/// A segment whose production may break down while it is being sent: players ask again.
async fn comes_in_the_end(server: &TestServer, url: &str) {
    for _ in 0..20 {
        let answer = server.client().get(server.here(url)).send().await.expect("an answer");
        match answer.status().as_u16() {
            200 if answer.bytes().await.is_ok_and(|body| !body.is_empty()) => return,
            200 | 503 => tokio::time::sleep(Duration::from_millis(200)).await,
            other => panic!("{other} for {url}"),
        }
    }
    panic!("{url} never came whole\n{}", server.said());
}

/// A program that behaves as it was told last, in place of ffmpeg or ffprobe. It lives in the cage as they do: it may become another
/// program, but it can start none.
struct Stub {
    path: PathBuf,
    program: String,
}

impl Stub {
    fn new(films: &Films, program: &str, mode: &str) -> Self {
        let stub = Self { path: films.path(&format!("{program}-{mode}")), program: program.to_owned() };
        stub.set(mode);
        stub
    }

    /// From its next start on.
    fn set(&self, mode: &str) {
        let program = &self.program;
        let script = match mode {
            "real" => format!("exec {program} \"$@\""),
            "hang" => "exec sleep 1000".to_owned(),
            "deaf" => "trap '' TERM INT HUP; exec sleep 1000".to_owned(),
            "die" => "echo \"something is wrong with $*\" >&2; exit 3".to_owned(),
            "killed" => "kill -SEGV $$".to_owned(),
            "rubbish" => "exec head -c 300000 /dev/urandom".to_owned(),
            "flood" => "exec cat /dev/urandom".to_owned(),
            "nothing" | "missing" => "exit 0".to_owned(),
            // As slowly as it plays, so that somebody can end it in the middle.
            "middle" => format!("exec {program} -re \"$@\""),
            "once" => "exec /usr/bin/python3 -c 'import sys, time; time.sleep(4); sys.exit(1)'".to_owned(),
            other => panic!("no mode {other}"),
        };
        let aside = self.path.with_extension("aside");
        std::fs::write(&aside, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).expect("made a program");
        std::fs::rename(&aside, &self.path).expect("in place");
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("text")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_misbehaves_ends_the_conversion_and_nothing_else() {
    let films = Arc::new(Films::new());
    films.mp4("film.mp4", 24);
    let mut trials = JoinSet::new();
    for (mode, fails) in [
        ("hang", true),
        ("deaf", true),
        ("die", true),
        ("killed", true),
        ("rubbish", true),
        ("flood", true),
        ("nothing", true),
        ("middle", false),
        ("once", false),
    ] {
        let films = films.clone();
        trials.spawn(async move {
            let stub = Stub::new(&films, "ffmpeg", mode);
            let server = TestServer::with(&["--ffmpeg", stub.path()], &[]).await;
            let swarm = Swarm::seed(films.path("film.mp4"), quick()).await;
            let copied = server.play(&swarm.link(), json!({})).await;
            let id = id(&server.start(&swarm.link(), json!({ "quality": "360p" })).await);
            if fails {
                fails_with(&server, &id, "conversion_failed", mode).await;
            } else {
                // The first one dies; the next ones do what they should.
                eventually("the first one runs", || !server.children().is_empty()).await;
                stub.set("real");
                if mode == "middle" {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                    for (pid, _) in server.children() {
                        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).ok();
                    }
                }
                let ready = server.until_ready(&id).await;
                for n in 0..segments(&server, &ready, "v0").await {
                    comes_in_the_end(&server, &beside(&ready, &format!("v0/{n}.m4s"))).await;
                }
                server.stop(&id).await;
            }
            no_children(&server).await;
            // The copy of the same film is untouched.
            assert_eq!(share_that_plays(&server, &copied, mode).await, 100, "{mode}");
            assert_eq!(server.status(copied["streamId"].as_str().expect("an id")).await["status"], "ready");
            is_well(&server).await;
        });
    }
    while let Some(trial) = trials.join_next().await {
        trial.expect("a clear end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_breaks_down_under_a_ready_stream_makes_it_late_and_it_lives_on() {
    let films = Films::new();
    let stub = Stub::new(&films, "ffmpeg", "real");
    let server = TestServer::with(&["--ffmpeg", stub.path()], &[]).await;
    let healthy = Healthy::begin(&server, &films).await;
    let swarm = Swarm::seed(films.make("film.mkv", 240, "-c:a ac3"), quick()).await;
    let ready = server.play(&swarm.link(), json!({ "quality": "360p" })).await;
    let id = id(&ready);
    let last = segments(&server, &ready, "v0").await - 1;
    for (mode, at) in [("hang", last), ("die", last / 2), ("rubbish", last * 3 / 4)] {
        stub.set(mode);
        problem(&segment(&server, &ready, "v0", at).await, 503, "segment_late");
        assert_eq!(server.status(&id).await["status"], "ready", "{mode}");
        stub.set("real");
        let url = beside(&ready, &format!("v0/{at}.m4s"));
        assert!(!server.fetch(&url).await.is_empty(), "{mode}");
    }
    server.stop(&id).await;
    no_children(&server).await;
    healthy.played_on(&server).await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffprobe_that_misbehaves_ends_the_stream() {
    let films = Arc::new(Films::new());
    ffmpeg(&format!("-i {} -c:v mpeg4 -c:a mp3", films.path("seed.mp4").display()), &films.path("film.avi"));
    let mut trials = JoinSet::new();
    for (mode, code) in [
        ("hang", "conversion_failed"),
        ("deaf", "conversion_failed"),
        ("die", "not_playable"),
        ("killed", "not_playable"),
        ("rubbish", "not_playable"),
        ("flood", "not_playable"),
        ("nothing", "not_playable"),
        ("missing", "conversion_failed"),
    ] {
        let films = films.clone();
        trials.spawn(async move {
            let stub = Stub::new(&films, "ffprobe", mode);
            let program = if mode == "missing" { "/nowhere/ffprobe" } else { stub.path() };
            let server = TestServer::with(&["--ffprobe", program], &[]).await;
            let swarm = Swarm::seed(films.path("film.avi"), quick()).await;
            let id = id(&server.start(&swarm.link(), json!({})).await);
            fails_with(&server, &id, code, mode).await;
            no_children(&server).await;
            // When it is repaired, the same film plays.
            if mode == "die" {
                stub.set("real");
                server.play(&swarm.link(), json!({})).await;
            }
            is_well(&server).await;
        });
    }
    while let Some(trial) = trials.join_next().await {
        trial.expect("a clear end");
    }
}

// ---------------------------------------------------------------- 6: disks

/// A file system of a few megabytes, for as long as it lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where that is not permitted, with the reason on stderr.
    fn new(megabytes: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("trouble-disk-").tempdir().expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self(folder)),
            Ok(done) => {
                eprintln!("skipped, no small file system can be mounted here: {}", String::from_utf8_lossy(&done.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped, no small file system can be mounted here: {error}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Takes all the room but so many bytes, and what others give back in the next moments.
    fn fill(&self, leave: u64) {
        let mut hog = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("hog")).expect("a file");
        for _ in 0..5 {
            let free = nix_free(&self.path());
            let full = hog.write_all(&vec![1; usize::try_from(free.saturating_sub(leave)).expect("a small disk")]);
            // Others write too: what does not fit any more is as good.
            assert!(full.is_ok() || full.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("hog")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn nix_free(folder: &Path) -> u64 {
    let told = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(folder).output().expect("stat").stdout;
    String::from_utf8_lossy(&told).split_whitespace().map(|number| number.parse::<u64>().expect("a number")).product()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_up_the_film_that_does_not_fit_and_no_other() {
    let Some(disk) = SmallDisk::new(64) else { return };
    let films = Films::new();
    let cache = disk.path().join("cache");
    let server = TestServer::with(&["--cache-dir", cache.to_str().expect("text")], &[]).await;
    let healthy = Healthy::begin(&server, &films).await;
    server.until(&healthy.id, LONG, "complete", |status| status["phase"] == "complete").await;
    // One that is larger than the disk is refused before anything of it comes.
    let huge = Swarm::seed(films.mp4("huge.mp4", 300), quick()).await;
    let refused = fails_with(&server, &id(&server.start(&huge.link(), json!({})).await), "no_space", "a film larger than the disk").await;
    assert!(number(&refused, "downloadedBytes") == 0, "{refused:#}");
    // One that would fit, but somebody else takes the room in the meantime.
    let swarm = Swarm::seed(films.mp4("film.mp4", 60), slow(1_500_000)).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    disk.fill(1 << 20);
    let waits = |status: &Value| status["messageKey"] == "no_space" && number(&status["messageParams"], "seconds") > 0;
    let status = server.until(&id(&ready), LONG, "said to wait for room", waits).await;
    assert_eq!((&status["status"], &status["error"]), (&json!("ready"), &Value::Null), "{status:#}");
    // What is here of it plays on.
    assert_eq!(segment(&server, &ready, "v0", 0).await.status, 200);
    // When there is room again, it goes on by itself.
    disk.make_room();
    let again = server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await;
    assert_eq!(share_that_plays(&server, &again, "again").await, 100);
    healthy.played_on(&server).await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_while_converting_is_said_to_be_full() {
    let Some(disk) = SmallDisk::new(64) else { return };
    let films = Films::new();
    let cache = disk.path().join("cache");
    let server = TestServer::with(&["--cache-dir", cache.to_str().expect("text")], &[]).await;
    let healthy = Healthy::begin(&server, &films).await;
    let swarm = Swarm::seed(films.mp4("film.mp4", 60), quick()).await;
    let copied = server.play(&swarm.link(), json!({})).await;
    for stream in [&healthy.id, &id(&copied)] {
        server.until(stream, LONG, "complete", |status| status["phase"] == "complete").await;
    }
    let converted = server.play(&swarm.link(), json!({ "quality": "360p" })).await;
    let last = segments(&server, &converted, "v0").await - 1;
    disk.fill(0);
    // A ready stream is late; a new conversion waits and says for what.
    problem(&segment(&server, &converted, "v0", last).await, 503, "segment_late");
    let new = server.start(&healthy.swarm.link(), json!({ "quality": "360p" })).await;
    server.until(&id(&new), LONG, "waits for room", |status| status["messageKey"] == "no_space").await;
    healthy.played_on(&server).await;
    disk.make_room();
    server.until_ready(&id(&new)).await;
    assert!(!server.fetch(&beside(&converted, &format!("v0/{last}.m4s"))).await.is_empty());
    is_well(&server).await;
}

// ---------------------------------------------------------------- 7: kill -9

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_streams_are_back_with_their_bytes_and_nothing_else_lives_on() {
    let films = Films::new();
    let mut server = TestServer::open().await;
    let mut swarm = Swarm::seed(films.mp4("film.mp4", 60), slow(1_000_000)).await;
    let mut other = Swarm::seed(films.make("other.mkv", 120, "-c:a ac3"), slow(1_000_000)).await;
    let copied = server.play(&swarm.link(), json!({})).await;
    let converted = server.play(&other.link(), json!({ "quality": "360p" })).await;
    let (copied_id, converted_id) = (id(&copied), id(&converted));
    let first = server.fetch(&beside(&copied, "v0/0.m4s")).await;
    let last = segments(&server, &converted, "v0").await - 1;
    // ffmpeg waits for bytes at the end of a film that comes slowly.
    let client = server.client().clone();
    let asked = tokio::spawn(client.get(server.here(&beside(&converted, &format!("v0/{last}.m4s")))).send());
    eventually("ffmpeg runs", || server.children().iter().any(|(_, line)| line.contains("ffmpeg"))).await;
    let before = [server.status(&copied_id).await, server.status(&converted_id).await];
    let children = server.children();
    server.kill_9();
    drop(asked);
    swarm.kill();
    other.kill();
    eventually("no child survives", || !children.iter().any(|(pid, _)| lives(*pid))).await;
    server.restart().await;
    let list = server.call(Method::GET, "/api/streams", None).await.json();
    assert_eq!(list["count"], 2, "{list:#}");
    // Nobody is there who could send anything: what is back was never away.
    for before in &before {
        let held = number(before, "downloadedBytes");
        assert!(held > 0);
        let back = |status: &Value| number(status, "downloadedBytes") >= held;
        let after = server.until(&id(before), LONG, "back with its bytes", back).await;
        for key in ["streamId", "infoHash", "title", "fileIndex", "quality", "createdAt", "expiresAt", "totalBytes"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        for key in ["streamUrl", "directUrl", "eventsUrl"] {
            assert_eq!(server.here(after[key].as_str().expect("a URL")), server.here(before[key].as_str().expect("a URL")), "{key}");
        }
    }
    server.until_ready(&copied_id).await;
    assert_eq!(server.fetch(&beside(&copied, "v0/0.m4s")).await, first, "the old ticket opens the same segment");
    server.until_ready(&converted_id).await;
    assert!(!server.fetch(&beside(&converted, "v0/0.m4s")).await.is_empty());
    swarm.revive();
    other.revive();
    for (ready, id) in [(&copied, &copied_id), (&converted, &converted_id)] {
        server.until(id, LONG, "complete", |status| status["phase"] == "complete").await;
        assert_eq!(share_that_plays(&server, ready, "after kill -9").await, 100);
    }
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_in_any_phase_streams_go_on() {
    let films = Films::new();
    let mut server = TestServer::with(&["--metadata-timeout", "60s"], &[]).await;
    let mut swarm = Swarm::seed(films.mp4("film.mp4", 30), slow(100_000)).await;
    let buffering = id(&server.start(&swarm.link(), json!({})).await);
    server.until(&buffering, LONG, "buffering", |status| number(status, "downloadedBytes") > 0).await;
    let nobody = id(&server.start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({ "quality": "480p" })).await);
    let stopped = id(&server.start("c0ffee01c0ffee01c0ffee01c0ffee01c0ffee01", json!({})).await);
    server.stop(&stopped).await;
    // At once after the answer: what was answered is there after the crash.
    let fresh = server.start("c0ffee02c0ffee02c0ffee02c0ffee02c0ffee02", json!({})).await;
    server.kill_9();
    server.restart().await;
    for (which, phase) in [(&nobody, "metadata"), (&id(&fresh), "metadata")] {
        let status = server.until(which, LONG, phase, |status| status["phase"] == phase).await;
        assert_eq!(status["status"], "downloading", "{status:#}");
    }
    assert_eq!(server.status(&nobody).await["quality"], "480p");
    assert_eq!(server.status(&id(&fresh)).await["createdAt"], fresh["createdAt"]);
    let after = server.call(Method::GET, &format!("/api/stream/status/{stopped}"), None).await;
    assert!(after.status == 404 || after.json()["status"] == "stopped", "{}", after.text());
    swarm.revive();
    server.until_ready(&buffering).await;
    is_well(&server).await;
}

// ---------------------------------------------------------------- 8: stop

async fn is_stopped(server: &TestServer, started: &Value, what: &str) {
    let answer = server.stop(&id(started)).await;
    assert_eq!(answer, json!({ "streamId": id(started), "status": "stopped", "message": "Stream resources released" }), "{what}");
    assert_eq!(left_of(server, started), Vec::<PathBuf>::new(), "{what}: it says released");
    let status = server.status(&id(started)).await;
    assert_eq!((&status["status"], &status["phase"]), (&json!("stopped"), &json!("stopped")), "{what}");
    for name in ["master.m3u8", "v0/index.m3u8", "v0/init.mp4", "v0/0.m4s", "a1/0.m4s", "play.m3u", "events", "file/film.mp4"] {
        problem(&server.get(&beside(started, name)).await, 404, "not_found");
    }
    // Again is no mistake.
    assert_eq!(server.stop(&id(started)).await["status"], "stopped", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_releases_everything_in_each_phase() {
    let films = Films::new();
    let stub = Stub::new(&films, "ffmpeg", "hang");
    let server = TestServer::with(&["--ffmpeg", stub.path()], &[]).await;
    let healthy = Healthy::begin(&server, &films).await;
    let nobody = server.start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
    is_stopped(&server, &nobody, "metadata").await;

    let crawling = Swarm::seed(films.mp4("crawling.mp4", 30), slow(100_000)).await;
    let buffering = server.start(&crawling.link(), json!({})).await;
    server.until(&id(&buffering), LONG, "buffering", |status| number(status, "downloadedBytes") > 0).await;
    is_stopped(&server, &buffering, "buffering").await;

    let swarm = Swarm::seed(films.mp4("film.mp4", 60), slow(1_500_000)).await;
    let converting = server.start(&swarm.link(), json!({ "quality": "360p" })).await;
    server.until(&id(&converting), LONG, "converting", |status| status["phase"] == "converting").await;
    eventually("ffmpeg runs", || !server.children().is_empty()).await;
    is_stopped(&server, &converting, "converting").await;
    no_children(&server).await;

    stub.set("real");
    for what in ["ready", "ready again", "and again"] {
        let ready = server.play(&swarm.link(), json!({ "quality": "360p" })).await;
        assert!(!left_of(&server, &ready).is_empty());
        // Somebody waits for a segment, another one reads the film.
        let last = segments(&server, &ready, "v0").await - 1;
        let (client, late) = (server.client().clone(), server.here(&beside(&ready, &format!("v0/{last}.m4s"))));
        let waiting = tokio::spawn(async move { client.get(late).send().await?.bytes().await });
        let (client, film) = (server.client().clone(), server.here(ready["directUrl"].as_str().expect("a URL")));
        let reading = tokio::spawn(async move { client.get(film).send().await?.bytes().await });
        eventually("ffmpeg runs", || !server.children().is_empty()).await;
        is_stopped(&server, &ready, what).await;
        no_children(&server).await;
        // Both get an end, be it a bad one.
        for asked in [waiting, reading] {
            let ended = tokio::time::timeout(Duration::from_secs(LONG), asked).await;
            drop(ended.expect("the body ends").expect("joined"));
        }
    }
    healthy.played_on(&server).await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_others_of_the_same_torrent_alone_and_the_last_one_takes_all() {
    let films = Films::new();
    let server = TestServer::open().await;
    let swarm = Swarm::seed(films.mp4("film.mp4", 40), slow(1_500_000)).await;
    let copied = server.play(&swarm.link(), json!({})).await;
    let converted = server.play(&swarm.link(), json!({ "quality": "360p" })).await;
    server.stop(&id(&converted)).await;
    assert_eq!(share_that_plays(&server, &copied, "the other one").await, 100);
    assert_eq!(server.status(&id(&copied)).await["status"], "ready");
    is_stopped(&server, &copied, "the last one").await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_watches_ends_with_its_time() {
    let films = Films::new();
    let mut server = TestServer::with(&["--expire-after", "2s"], &[]).await;
    let swarm = Swarm::seed(films.mp4("film.mp4", 20), quick()).await;
    let unwatched = server.start(&swarm.link(), json!({})).await;
    let nobody = server.start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
    for stream in [&unwatched, &nobody] {
        let over = server.until(&id(stream), LONG, "over", |status| status["status"] == "stopped").await;
        assert_eq!(over["phase"], "expired");
    }
    eventually("its bytes are gone", || left_of(&server, &unwatched).is_empty()).await;
    // This one is watched: it lives on.
    let watched = server.play(&swarm.link(), json!({})).await;
    assert!(!server.fetch(&beside(&watched, "v0/0.m4s")).await.is_empty());
    // What runs out while the server is away is gone when it is back, with its bytes.
    server.kill_9();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.restart().await;
    let answer = server.call(Method::GET, &format!("/api/stream/status/{}", id(&watched)), None).await;
    assert!(answer.status == 404 || answer.json()["status"] == "stopped", "{}", answer.text());
    eventually("its bytes are gone", || left_of(&server, &watched).is_empty()).await;
    is_well(&server).await;
}

// ---------------------------------------------------------------- 9: bad input

#[tokio::test(flavor = "multi_thread")]
async fn bad_starts_are_refused_with_their_reason() {
    let server = TestServer::open().await;
    let good = "magnet:?xt=urn:btih:c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
    let long = format!("{good}&dn={}", "x".repeat(9000));
    let nested = "[".repeat(20_000);
    let cases = [
        ("a page", json!({ "magnetLink": "https://example.org/film" }), 400, "bad_magnet"),
        ("nothing", json!({ "magnetLink": "" }), 400, "bad_magnet"),
        ("no hash", json!({ "magnetLink": "magnet:?dn=film" }), 400, "bad_magnet"),
        ("a short hash", json!({ "magnetLink": "magnet:?xt=urn:btih:c0ffee" }), 400, "bad_magnet"),
        ("a hash that is none", json!({ "magnetLink": "magnet:?xt=urn:btih:zzffee00c0ffee00c0ffee00c0ffee00c0ffee00" }), 400, "bad_magnet"),
        ("zeros", json!({ "magnetLink": "magnet:?xt=urn:btih:0000000000000000000000000000000000000000" }), 400, "bad_magnet"),
        ("bare zeros", json!({ "magnetLink": "0".repeat(40) }), 400, "bad_magnet"),
        ("over 8 KiB", json!({ "magnetLink": long }), 400, "bad_magnet"),
        ("no magnet", json!({}), 422, "invalid"),
        ("a list", json!([]), 422, "invalid"),
        ("a number for a magnet", json!({ "magnetLink": 5 }), 422, "invalid"),
        ("null for a magnet", json!({ "magnetLink": null }), 422, "invalid"),
        ("a number for a quality", json!({ "magnetLink": good, "quality": 720 }), 422, "invalid"),
        ("text for capabilities", json!({ "magnetLink": good, "capabilities": "all" }), 422, "invalid"),
        ("an unknown quality", json!({ "magnetLink": good, "quality": "8000p" }), 422, "invalid"),
        ("an unknown method", json!({ "magnetLink": good, "method": "carrier pigeon" }), 422, "invalid"),
    ];
    for (what, body, status, code) in cases {
        let answer = server.call(Method::POST, "/api/stream/start", Some(body)).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        problem(&answer, status, code);
        assert!(!answer.text().contains(&"x".repeat(81)), "{what}: too much of what was sent comes back");
    }
    let url = server.here("/api/stream/start");
    let raw = |kind: &'static str, body: Vec<u8>| {
        server.client().post(&url).bearer_auth(server.token()).header("content-type", kind).body(body).send()
    };
    for (what, kind, body, status) in [
        ("broken JSON", "application/json", b"{".to_vec(), 400),
        ("deep JSON", "application/json", nested.into_bytes(), 400),
        ("not text", "application/json", vec![0xff, 0xfe, 0], 400),
        ("another type", "text/plain", b"{}".to_vec(), 415),
        ("too large", "application/json", vec![b' '; 65 << 10], 413),
    ] {
        let answer = raw(kind, body).await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-type"].as_bytes()),
            (status, &b"application/problem+json"[..]),
            "{what}"
        );
    }
    problem(&server.get("/api/streams").await, 401, "unauthenticated");
    let endless = "a".repeat(3000);
    for id in ["nonsense", "..", "%2e%2e", "a%00b", &endless] {
        let answer = server.call(Method::GET, &format!("/api/stream/status/{id}"), None).await;
        assert_eq!(answer.status, 404, "{id}: {}", answer.text());
        let answer = server.call(Method::DELETE, &format!("/api/stream/{id}"), None).await;
        assert!(matches!(answer.status, 404 | 405), "{id}: {}", answer.text());
    }
    assert_eq!(server.call(Method::GET, "/api/streams", None).await.json()["count"], 0);
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_file_index_is_tolerated() {
    let films = Films::new();
    let folder = films.path("pack");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::rename(films.mp4("film.mp4", 16), folder.join("film.mp4")).expect("moved");
    std::fs::write(folder.join("a.txt"), "read me").expect("written");
    let server = TestServer::open().await;
    let swarm = Swarm::seed(&folder, quick()).await;
    for index in
        [json!(0), json!(-1), json!(99), json!(1.5), json!("1"), json!(null), json!(i64::MAX), json!(1e300), json!([]), json!(true)]
    {
        let answer = server.try_start(&swarm.link(), json!({ "fileIndex": index, "quality": "480p" })).await;
        assert!(matches!(answer.status, 200 | 201), "{index}: {}", answer.text());
        let ready = server.until_ready(&id(&answer.json())).await;
        assert_eq!(ready["title"], "film.mp4", "{index}");
    }
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_for_media_are_refused_with_their_reason() {
    let films = Films::new();
    let server = TestServer::open().await;
    let swarm = Swarm::seed(films.mp4("film.mp4", 20), quick()).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    let other = TestServer::open().await;
    let foreign = other.start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
    let ticket = url(&ready).split('/').nth(4).expect("a ticket").to_owned();
    let foreign = url(&foreign).split('/').nth(4).expect("a ticket").to_owned();
    let last = ticket.chars().last().expect("not empty");
    let forged = format!("{}{}", &ticket[..ticket.len() - 1], if last == 'A' { 'E' } else { 'A' });
    let swapped = format!("{}{}", &foreign[..22], &ticket[22..]);
    let endless = "A".repeat(5000);
    let tickets =
        [forged.as_str(), &swapped, &foreign, "x", "%00", "..", "%2e%2e", "a%2fb", &endless, &ticket[..20], &ticket.to_lowercase()];
    for bad in tickets {
        for name in ["master.m3u8", "v0/0.m4s", "file/film.mp4", "events", "play.m3u"] {
            // Guesses are served at 20 a second.
            tokio::time::sleep(Duration::from_millis(60)).await;
            let answer = server.get(&format!("/m/{bad}/{name}")).await;
            assert_eq!(answer.status, 404, "{bad} {name}: {}", answer.text());
        }
    }
    for name in [
        "v0/999999.m4s",
        "v0/4294967295.m4s",
        "v0/4294967296.m4s",
        "v0/99999999999999999999999.m4s",
        "v0/-1.m4s",
        "v0/.m4s",
        "v0/1e1.m4s",
        "v0/0x0.m4s",
        "v0/00.m4s",
        "v0/+0.m4s",
        "v0/0.m4s.m4s",
        "v0/0.ts",
        "v0/",
        "v0",
        "v9/0.m4s",
        "v/0.m4s",
        "a0/0.m4s",
        "a2/0.m4s",
        "a99999999999/0.m4s",
        "%F0%9F%8E%AC/0.m4s",
        "%ff/0.m4s",
        "v0/%2e%2e%2f0.m4s",
        "v0/..%2f..%2fadmin-token",
        "%2e%2e/admin-token",
        "v0/0.m4s/x",
        "a1/index.m3u8x",
        "master.m3u8/x",
        "nothing",
    ] {
        let answer = server.get(&beside(&ready, name)).await;
        assert_eq!(answer.status, 404, "{name}: {}", answer.text());
        problem(&answer, 404, "not_found");
    }
    for name in ["master.m3u8", "v0/index.m3u8", "v0/init.mp4", "v0/0.m4s", "file/film.mp4", "events", "play.m3u"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::from_bytes(b"BREW").expect("a method")] {
            let answer = server.call(method.clone(), &beside(&ready, name), None).await;
            problem(&answer, 405, "method_not_allowed");
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{method} {name}");
        }
    }
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_range_are_right_for_segments_and_the_file() {
    let films = Films::new();
    let server = TestServer::open().await;
    let path = films.mp4("film.mp4", 20);
    let film = std::fs::read(&path).expect("the film");
    let swarm = Swarm::seed(&path, quick()).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    let direct = ready["directUrl"].as_str().expect("a URL").to_owned();
    let segment = beside(&ready, "v0/1.m4s");
    let whole = server.fetch(&segment).await;
    for (url, bytes) in [(&direct, &film[..]), (&segment, &whole[..])] {
        let len = bytes.len();
        let head = server.call(Method::HEAD, url, None).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some(len.to_string().as_str()), 0), "{url}");
        assert_eq!(head.header("accept-ranges"), Some("bytes"));
        let middle = format!("bytes={}-{}", len / 3, len / 2);
        let cases: [(&str, u16, &[u8]); 12] = [
            ("bytes=0-0", 206, &bytes[..1]),
            (&middle, 206, &bytes[len / 3..=len / 2]),
            ("bytes=-5", 206, &bytes[len - 5..]),
            ("bytes=0-", 206, bytes),
            ("bytes=5-99999999999999999999999999", 206, &bytes[5..]),
            ("bytes=99999999999-", 416, &[]),
            ("bytes=-0", 416, &[]),
            ("bytes=5-4", 200, bytes),
            ("bytes=x-y", 200, bytes),
            ("bytes=", 200, bytes),
            ("lines=1-2", 200, bytes),
            ("", 200, bytes),
        ];
        for (range, status, expected) in cases {
            let answer = server.client().get(server.here(url)).header("range", range).send().await.expect("an answer");
            let (got, shown) = (answer.status().as_u16(), answer.headers().get("content-range").cloned());
            let body = answer.bytes().await.expect("a body");
            assert_eq!(got, status, "{range} of {url}");
            if status == 416 {
                assert_eq!(
                    shown.and_then(|shown| shown.to_str().map(str::to_owned).ok()),
                    Some(format!("bytes */{len}")),
                    "{range} of {url}"
                );
                assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["code"], "range_not_satisfiable");
            } else {
                assert!(body == expected, "{range} of {url}: {} bytes instead of {}", body.len(), expected.len());
                assert_eq!(shown.is_some(), status == 206, "{range} of {url}");
            }
            let head = server.client().head(server.here(url)).header("range", range).send().await.expect("an answer");
            assert_eq!(head.status().as_u16(), status, "HEAD {range} of {url}");
        }
    }
    is_well(&server).await;
}

// ---------------------------------------------------------------- 10: SIGTERM

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_everything_in_order_and_streams_come_back() {
    let films = Films::new();
    let mut server = TestServer::with(&["--metadata-timeout", "60s"], &[]).await;
    let mut swarm = Swarm::seed(films.mp4("film.mp4", 60), slow(800_000)).await;
    let other = Swarm::seed(films.make("other.mkv", 120, "-c:a ac3"), slow(800_000)).await;
    let copied = server.play(&swarm.link(), json!({})).await;
    let converted = server.play(&other.link(), json!({ "quality": "360p" })).await;
    let nobody = server.start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
    // Segments and a film that are being sent, events that are being listened to, a conversion that waits for bytes.
    let last = segments(&server, &copied, "v0").await - 1;
    let far = segments(&server, &converted, "v0").await - 1;
    let mut asked = JoinSet::new();
    for path in [
        beside(&copied, &format!("v0/{last}.m4s")),
        beside(&converted, &format!("v0/{far}.m4s")),
        beside(&copied, "events"),
        copied["directUrl"].as_str().expect("a URL").to_owned(),
    ] {
        let request = server.client().get(server.here(&path));
        asked.spawn(async move { request.send().await?.bytes().await });
    }
    eventually("ffmpeg runs", || !server.children().is_empty()).await;
    let held = number(&server.status(&id(&copied)).await, "downloadedBytes");
    let children: BTreeSet<u32> = server.children().into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(server.end().expect("it ran").code(), Some(0), "{}", server.said());
    eventually("no child survives", || !children.iter().any(|pid| lives(*pid))).await;
    while let Some(ended) = tokio::time::timeout(Duration::from_secs(LONG), asked.join_next()).await.expect("all bodies end") {
        drop(ended.expect("joined"));
    }
    swarm.kill();
    server.restart().await;
    // A stop of the server is no failure of a stream.
    let back = |status: &Value| number(status, "downloadedBytes") >= held;
    let after = server.until(&id(&copied), LONG, "back with its bytes", back).await;
    assert_ne!(after["status"], "error", "{after:#}");
    server.until_ready(&id(&copied)).await;
    server.until_ready(&id(&converted)).await;
    server.until(&id(&nobody), LONG, "searching", |status| status["phase"] == "metadata").await;
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_a_deaf_ffmpeg_leaves_no_orphan() {
    let films = Films::new();
    let stub = Stub::new(&films, "ffmpeg", "deaf");
    let mut server = TestServer::with(&["--ffmpeg", stub.path()], &[]).await;
    let swarm = Swarm::seed(films.mp4("film.mp4", 20), quick()).await;
    let id = id(&server.start(&swarm.link(), json!({ "quality": "360p" })).await);
    server.until(&id, LONG, "converting", |status| status["phase"] == "converting").await;
    eventually("the stub runs", || server.children().iter().any(|(_, line)| line.contains("sleep 1000"))).await;
    let children = server.children();
    assert_eq!(server.end().expect("it ran").code(), Some(0), "{}", server.said());
    eventually("no child survives", || !children.iter().any(|(pid, _)| lives(*pid))).await;
}
