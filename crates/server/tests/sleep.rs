//! A film that is whole and that nobody watches is closed, and nobody can tell but by the memory that it does not take: the real program
//! with a real swarm.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Generous: it only must not be endless.
const LONG: u64 = 90;
/// Short, so that tests need not wait.
const RESTS: (&str, &str) = ("TEST_STREAM_RESTS_MS", "800");

fn film(folder: &Path, n: u32, seconds: u32) -> PathBuf {
    let path = folder.join(format!("film {n}.mp4"));
    let args = format!(
        "-nostdin -v error -y -f lavfi -i testsrc2=s=640x360:r=24,noise=alls=16:allf=t:all_seed={n} -f lavfi -i sine=f=330:r=48000 \
         -t {seconds} -c:v libx264 -preset ultrafast -b:v 2M -maxrate 2M -bufsize 2M -g 48 -pix_fmt yuv420p -c:a aac -movflags +faststart"
    );
    let made = Command::new("ffmpeg").args(args.split_whitespace()).arg(&path).status();
    assert!(made.expect("ffmpeg").success());
    path
}

async fn seed(film: &Path) -> Swarm {
    Swarm::seed(film, SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }).await
}

fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

fn beside(status: &Value, name: &str) -> String {
    status["streamUrl"].as_str().expect("a URL").replace("master.m3u8", name)
}

async fn complete(server: &TestServer, swarm: &Swarm, options: Value) -> Value {
    let ready = server.play(&swarm.link(), options).await;
    server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await
}

/// Files of this torrent that the server has open.
fn open_files(server: &TestServer, status: &Value) -> usize {
    let folder = format!("/torrents/{}/", status["infoHash"].as_str().expect("an info hash"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its descriptors").flatten();
    open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.to_string_lossy().contains(&folder))).count()
}

/// Waits until nothing of the torrent is open any more.
async fn asleep(server: &TestServer, status: &Value) {
    for _ in 0..LONG * 10 {
        if open_files(server, status) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is open all the time: {:#}", server.status(&id(status)).await);
}

/// What a client may compare: everything but who watches and how the line is.
fn lasting(status: &Value) -> Value {
    let mut status = status.clone();
    for key in ["watching", "peers", "downloadSpeed", "uploadSpeed"] {
        status.as_object_mut().expect("an object").remove(key);
    }
    status
}

/// Does something while it is looked whether the stream is ready all the time.
async fn while_ready<T>(server: &TestServer, status: &Value, work: impl Future<Output = T>) -> T {
    let watch = async {
        loop {
            assert_eq!(server.status(&id(status)).await["status"], "ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = watch => unreachable!("it watches for ever"),
    }
}

async fn segments(server: &TestServer, status: &Value) -> Vec<Bytes> {
    let playlist = server.fetch(&beside(status, "v0/index.m3u8")).await;
    let mut all = vec![server.fetch(&beside(status, "v0/init.mp4")).await];
    for name in String::from_utf8_lossy(&playlist).lines().filter(|line| line.ends_with(".m4s")) {
        all.push(server.fetch(&beside(status, &format!("v0/{name}"))).await);
    }
    assert!(all.len() > 3);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_watches_is_closed_and_plays_again_the_same_though_nobody_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = film(folder.path(), 1, 20);
    let mut swarm = seed(&film).await;
    let server = TestServer::with(&[], &[RESTS]).await;
    let stream = complete(&server, &swarm, json!({})).await;
    let before = segments(&server, &stream).await;
    assert!(open_files(&server, &stream) > 0, "a film that is being watched is open");
    swarm.kill();
    let awake = server.status(&id(&stream)).await;
    for _ in 0..3 {
        while_ready(&server, &stream, asleep(&server, &stream)).await;
        assert_eq!(lasting(&server.status(&id(&stream)).await), lasting(&awake), "it shows the same");
        let after = while_ready(&server, &stream, segments(&server, &stream)).await;
        assert!(after == before, "a segment is another than before");
    }
    asleep(&server, &stream).await;
    let original = server.fetch(stream["directUrl"].as_str().expect("a URL")).await;
    assert!(original == std::fs::read(&film).expect("the film"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_sleeps_too_and_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = seed(&film(folder.path(), 2, 12)).await;
    let server = TestServer::with(&[], &[RESTS]).await;
    let stream = complete(&server, &swarm, json!({ "quality": "360p", "capabilities": { "video": [] } })).await;
    assert_eq!(stream["mode"], "convert");
    for _ in 0..2 {
        asleep(&server, &stream).await;
        assert_eq!(server.children().len(), 0, "no ffmpeg runs for it");
        assert!(!while_ready(&server, &stream, server.fetch(&beside(&stream, "v0/1.m4s"))).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_streams_of_a_film_keeps_it_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = seed(&film(folder.path(), 3, 20)).await;
    let server = TestServer::with(&[], &[RESTS]).await;
    let watched = complete(&server, &swarm, json!({})).await;
    let other = complete(&server, &swarm, json!({ "method": "original" })).await;
    assert_ne!(id(&watched), id(&other));
    let before = segments(&server, &watched).await;
    for n in 0..30 {
        assert!(server.fetch(&beside(&watched, "v0/0.m4s")).await == before[1]);
        assert!(open_files(&server, &watched) > 0, "it was closed under a viewer, in round {n}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The one that sleeps wakes while the other one is awake.
    let original = server.fetch(other["directUrl"].as_str().expect("a URL")).await;
    assert_eq!(original.len() as u64, other["totalBytes"].as_u64().expect("a length"));
    asleep(&server, &watched).await;
    // One of them ends, and the other one goes on to sleep and to wake.
    assert!(segments(&server, &watched).await == before);
    server.stop(&id(&watched)).await;
    asleep(&server, &other).await;
    let again = while_ready(&server, &other, server.fetch(other["directUrl"].as_str().expect("a URL"))).await;
    assert!(again == original);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pauses_in_the_middle_of_the_original_file_reads_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = film(folder.path(), 4, 120);
    let swarm = seed(&film).await;
    let server = TestServer::with(&[], &[RESTS]).await;
    let stream = complete(&server, &swarm, json!({})).await;
    let answer = server.client().get(server.here(stream["directUrl"].as_str().expect("a URL"))).send().await.expect("an answer");
    let mut body = answer.bytes_stream();
    let mut read = body.next().await.expect("a first part").expect("bytes").to_vec();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(open_files(&server, &stream) > 0, "it is still being read");
    while let Some(bytes) = body.next().await {
        read.extend_from_slice(&bytes.expect("it goes on"));
    }
    assert!(read == std::fs::read(&film).expect("the film"));
    drop(body);
    asleep(&server, &stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_in_its_sleep_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = seed(&film(folder.path(), 5, 10)).await;
    let server = TestServer::with(&[], &[RESTS]).await;
    let stream = complete(&server, &swarm, json!({})).await;
    asleep(&server, &stream).await;
    let films = server.cache_dir().join("torrents/torrents").join(stream["infoHash"].as_str().expect("an info hash"));
    assert!(films.exists());
    server.stop(&id(&stream)).await;
    assert!(!films.exists(), "its bytes are gone");
    // It can be had again.
    let again = complete(&server, &swarm, json!({})).await;
    assert_ne!(id(&again), id(&stream));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_sleeps_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut swarm = seed(&film(folder.path(), 6, 20)).await;
    let mut server = TestServer::with(&[], &[RESTS]).await;
    let stream = complete(&server, &swarm, json!({})).await;
    let before = segments(&server, &stream).await;
    asleep(&server, &stream).await;
    let shown = server.status(&id(&stream)).await;
    swarm.kill();
    server.kill_9();
    server.restart().await;
    let after = server.status(&id(&stream)).await;
    for key in ["status", "phase", "downloadProgress", "downloadedBytes", "totalBytes", "title", "duration", "message"] {
        assert_eq!(after[key], shown[key], "{key}: {after:#}");
    }
    assert!(while_ready(&server, &stream, segments(&server, &stream)).await == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_leave_in_its_sleep_says_so_and_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (seed(&film(folder.path(), 7, 24)).await, seed(&film(folder.path(), 8, 24)).await);
    let server = TestServer::with(&["--cache-max-bytes", "10MiB"], &[RESTS, ("TEST_FILM_KEPT_MS", "500")]).await;
    let old = complete(&server, &first, json!({})).await;
    let before = segments(&server, &old).await;
    asleep(&server, &old).await;
    let new = complete(&server, &second, json!({})).await;
    let left = server.until(&id(&old), LONG, "said to have left", |status| status["phase"] == "playable").await;
    assert_eq!((&left["status"], &left["downloadedBytes"]), (&json!("ready"), &json!(0)), "{left:#}");
    asleep(&server, &new).await;
    assert!(while_ready(&server, &old, segments(&server, &old)).await == before, "the same film as before");
    assert_eq!(server.status(&id(&new)).await["status"], "ready");
}
