//! Bytes of an earlier run, seen from outside: the real program is ended (in order, or not), somebody damages what lies on the disk, and
//! what it gives after its next start is the film all the same.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

const LONG: u64 = 90;

fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

fn path_of(url: &str) -> String {
    url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned())).expect("a path")
}

/// The film's file on the server's disk.
fn file_of(server: &TestServer, status: &Value) -> PathBuf {
    let hash = status["infoHash"].as_str().expect("a hash");
    server.cache_dir().join("torrents/torrents").join(hash).join("0")
}

/// Everything of a stream that a player would fetch, by its path.
async fn played(server: &TestServer, status: &Value) -> BTreeMap<String, Bytes> {
    let mut all = BTreeMap::new();
    for rendition in ["v0", "a1"] {
        let list = path_of(&status["streamUrl"].as_str().expect("a URL").replace("master.m3u8", &format!("{rendition}/index.m3u8")));
        let playlist = server.fetch(&list).await;
        let folder = list.rsplit_once('/').expect("a folder").0.to_owned();
        for name in String::from_utf8_lossy(&playlist).lines().filter(|line| line.ends_with(".m4s")) {
            let path = format!("{folder}/{name}");
            all.insert(path.clone(), server.fetch(&path).await);
        }
    }
    all
}

/// Turns bits of `count` stretches of 4 KiB over, evenly over the whole file. Its time stays what it was, as when a disk fails.
fn damage(file: &PathBuf, count: u64) {
    let open = File::options().read(true).write(true).open(file).expect("the film");
    let before = open.metadata().expect("its time").modified().expect("its time");
    let len = open.metadata().expect("its length").len();
    for n in 0..count {
        let at = (len - 4096) / count * n + 1000;
        let mut bytes = [0; 4096];
        open.read_exact_at(&mut bytes, at).expect("read");
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        open.write_all_at(&bytes, at).expect("written");
    }
    open.set_modified(before).expect("its time");
}

/// A film of a minute that is copied as it is.
fn film() -> PathBuf {
    films::by_ffmpeg(
        "steady.mp4",
        &format!("{} -c:v libx264 -preset veryfast -crf 22 -g 48 -pix_fmt yuv420p {} -movflags +faststart", films::both(60.0), films::AAC),
    )
}

fn number_of(path: &str) -> usize {
    path.rsplit_once('/').and_then(|(_, name)| name.strip_suffix(".m4s")?.parse().ok()).expect("a number")
}

async fn complete(server: &TestServer, swarm: &Swarm) -> Value {
    let ready = server.play(&swarm.link(), json!({})).await;
    assert_eq!(ready["mode"], "copy");
    server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await
}

/// What is played before and after is the same to the byte, however it ended and whatever happened to the film meanwhile.
async fn plays_the_same(end: impl FnOnce(&mut TestServer), harm: impl FnOnce(&PathBuf)) {
    let film = film();
    let swarm = Swarm::seed(&film, SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }).await;
    let mut server = TestServer::open().await;
    let status = complete(&server, &swarm).await;
    let before = played(&server, &status).await;
    assert!(before.len() > 10 && before.values().all(|bytes| !bytes.is_empty()));
    end(&mut server);
    harm(&file_of(&server, &status));
    server.restart().await;
    let again = server.until_ready(&id(&status)).await;
    assert_eq!(again["streamUrl"].as_str().map(path_of), status["streamUrl"].as_str().map(path_of));
    let after = played(&server, &again).await;
    assert!(before == after, "a segment is another than before");
    let whole = server.fetch(&path_of(again["directUrl"].as_str().expect("a URL"))).await;
    assert!(whole == std::fs::read(&film).expect("the film"), "the film is another");
    assert_eq!(server.status(&id(&status)).await["status"], "ready");
    assert!(!server.said().contains("panicked"));
}

fn in_order(server: &mut TestServer) {
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_never_played_after_an_orderly_end() {
    plays_the_same(in_order, |file| damage(file, 7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_never_played_after_kill_9() {
    plays_the_same(TestServer::kill_9, |file| damage(file, 7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_cut_off_or_gone_is_fetched_again() {
    plays_the_same(TestServer::kill_9, |file| File::options().write(true).open(file).and_then(|file| file.set_len(300_000)).expect("cut"))
        .await;
    plays_the_same(in_order, |file| std::fs::remove_file(file).expect("removed")).await;
}

/// Nobody has the film any more: what is right of it plays without delay, and nothing that is wrong is given to anybody.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_plays_though_the_rest_cannot_be_had() {
    let film = film();
    let mut swarm = Swarm::seed(&film, SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }).await;
    let mut server = TestServer::open().await;
    let status = complete(&server, &swarm).await;
    let before = played(&server, &status).await;
    let file = file_of(&server, &status);
    server.kill_9();
    swarm.kill();
    let open = File::options().write(true).open(&file).expect("the film");
    let len = open.metadata().expect("its length").len();
    // The last third is nothing but zeros: the pages that a power cut took.
    open.write_all_at(&vec![0; (len / 3) as usize], len - len / 3).expect("written");
    drop(open);
    server.restart().await;
    let again = server.until_ready(&id(&status)).await;
    let pictures: Vec<_> = before.iter().filter(|(path, _)| path.contains("/v0/")).collect();
    let began = Instant::now();
    for (path, expected) in pictures.iter().filter(|(path, _)| number_of(path) < pictures.len() / 2) {
        let body = server.fetch(path).await;
        let differs = body.iter().zip(expected.iter()).position(|(a, b)| a != b);
        assert!(body == **expected, "{path} is another: {} bytes of {}, other from {differs:?} on", body.len(), expected.len());
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let (last, _) = pictures.iter().max_by_key(|(path, _)| number_of(path)).expect("segments");
    assert_eq!(server.get(last).await.status, 503, "nobody has the last one");
    let said = server.until(&id(&again), LONG, "said to be waiting", |status| status["downloadProgress"].as_f64() < Some(99.0)).await;
    assert_eq!(said["status"], "ready", "{said:#}");
    swarm.revive();
    let after = played(&server, &again).await;
    assert!(before == after, "a segment is another than before");
}
