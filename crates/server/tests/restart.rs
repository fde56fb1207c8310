//! What comes back after a restart, and as what: the real program, killed and started again on the same folders.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Generous: it only must not be endless.
const LONG: u64 = 90;

fn film(folder: &Path, seconds: u32) -> PathBuf {
    let path = folder.join("film.mp4");
    let args = format!(
        "-nostdin -v error -y -f lavfi -i testsrc2=s=640x360:r=24,noise=alls=16:allf=t -f lavfi -i sine=f=330:r=48000 -t {seconds} \
         -c:v libx264 -preset ultrafast -b:v 2M -maxrate 2M -bufsize 2M -g 48 -pix_fmt yuv420p -c:a aac -movflags +faststart"
    );
    let made = Command::new("ffmpeg").args(args.split_whitespace()).arg(&path).status();
    assert!(made.expect("ffmpeg").success());
    path
}

fn nobody(n: u8) -> String {
    format!("c0ffee{n:02}c0ffee00c0ffee00c0ffee00c0ffee00")
}

fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

fn beside(status: &Value, name: &str) -> String {
    status["streamUrl"].as_str().expect("a URL").replace("master.m3u8", name)
}

/// Files with something in them below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ready_is_ready_at_once_and_plays_though_nobody_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = TestServer::open().await;
    let mut swarm = Swarm::seed(film(folder.path(), 20), SwarmOptions::default()).await;
    let copied = server.play(&swarm.link(), json!({})).await;
    let converted = server.play(&swarm.link(), json!({ "quality": "360p", "capabilities": { "video": [] } })).await;
    for stream in [&copied, &converted] {
        server.until(&id(stream), LONG, "complete", |status| status["phase"] == "complete").await;
    }
    let moved = server.call(Method::PUT, &format!("/api/stream/{}/position", id(&copied)), Some(json!({ "seconds": 7.5 }))).await;
    assert_eq!(moved.status, 200);
    server.until(&id(&copied), LONG, "moved", |status| status["position"] == 7.5).await;
    let before = [server.status(&id(&copied)).await, server.status(&id(&converted)).await];
    let bytes = [server.fetch(&beside(&copied, "v0/1.m4s")).await, server.fetch(&beside(&converted, "v0/1.m4s")).await];
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill_9();
    swarm.kill();
    server.restart().await;
    for (before, bytes) in before.iter().zip(&bytes) {
        let after = server.status(&id(before)).await;
        let same = [
            "streamId",
            "status",
            "phase",
            "progress",
            "title",
            "infoHash",
            "fileIndex",
            "quality",
            "duration",
            "mode",
            "why",
            "whyKey",
            "video",
            "audio",
            "downloadProgress",
            "downloadedBytes",
            "totalBytes",
            "position",
            "createdAt",
            "expiresAt",
        ];
        for key in same {
            assert_eq!(after[key], before[key], "{key}: {after:#}");
        }
        for key in ["streamUrl", "directUrl", "eventsUrl"] {
            assert_eq!(server.here(after[key].as_str().expect("a URL")), server.here(before[key].as_str().expect("a URL")), "{key}");
        }
        // The film is opened for whoever asks, and stays ready all the time.
        let watch = async {
            loop {
                assert_eq!(server.status(&id(before)).await["status"], "ready");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let url = beside(before, "v0/1.m4s");
        let first = tokio::select! {
            first = server.fetch(&url) => first,
            () = watch => unreachable!("it watches for ever"),
        };
        // What is encoded anew from another place is as good, but not the same.
        assert!(if before["mode"] == "copy" { first == *bytes } else { !first.is_empty() }, "the segment as before");
    }
    let original = server.fetch(before[0]["directUrl"].as_str().expect("a URL")).await;
    assert!(original == std::fs::read(folder.path().join("film.mp4")).expect("the film"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ready_and_not_whole_is_ready_and_the_rest_comes_unasked() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = TestServer::open().await;
    let slow = SwarmOptions { rate: Some(1_000_000), piece_len: 64 << 10, ..SwarmOptions::default() };
    let swarm = Swarm::seed(film(folder.path(), 40), slow).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    assert_eq!(ready["phase"], "playable");
    server.kill_9();
    server.restart().await;
    let after = server.status(&id(&ready)).await;
    assert_eq!((&after["status"], &after["phase"]), (&json!("ready"), &json!("playable")), "{after:#}");
    assert!(!server.fetch(&beside(&ready, "v0/0.m4s")).await.is_empty());
    server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_film_that_cannot_be_opened_any_more_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = TestServer::with(&["--metadata-timeout", "2s"], &[]).await;
    let mut swarm = Swarm::seed(film(folder.path(), 6), SwarmOptions::default()).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    server.until(&id(&ready), LONG, "complete", |status| status["phase"] == "complete").await;
    server.end();
    swarm.kill();
    std::fs::remove_dir_all(server.cache_dir()).expect("removed");
    server.restart().await;
    assert_eq!(server.status(&id(&ready)).await["status"], "ready", "nobody has asked for it yet");
    server.get(&beside(&ready, "v0/0.m4s")).await;
    let failed = server.until(&id(&ready), LONG, "failed", |status| status["status"] == "error").await;
    assert_eq!(failed["error"]["code"], "no_peers", "{failed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_comes_back_in_its_order() {
    let mut server = TestServer::with(&["--max-streams-per-device", "1"], &[]).await;
    let anna = server.pair("Anna's phone", None).await;
    let mut streams = Vec::new();
    for n in 0..4 {
        let body = json!({ "magnetLink": nobody(n) });
        let answer = server.call_as(&anna, Method::POST, "/api/stream/start", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        streams.push(id(&answer.json()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.kill_9();
    server.restart().await;
    server.until(&streams[0], LONG, "on its way", |status| status["phase"] == "metadata").await;
    for (place, stream) in streams.iter().enumerate().skip(1) {
        let status = server.status(stream).await;
        assert_eq!((&status["phase"], &status["queuePosition"]), (&json!("queued"), &json!(place)), "{status:#}");
    }
    server.stop(&streams[0]).await;
    server.until(&streams[1], LONG, "on its way", |status| status["phase"] == "metadata").await;
}

/// Stopped and expired streams answer for as long as they are remembered, over a restart too; nothing of them is left on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_answers_for_a_while_and_then_not_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = Swarm::seed(film(folder.path(), 10), SwarmOptions::default()).await;
    let environment = [("TEST_STREAM_WATCHED_MS", "2000"), ("TEST_STREAM_REMEMBERED_MS", "9000")];
    let mut server = TestServer::with(&["--expire-after", "3s"], &environment).await;
    let ended = server.play(&swarm.link(), json!({ "quality": "360p", "capabilities": { "video": [] } })).await;
    assert!(!server.fetch(&beside(&ended, "v0/0.m4s")).await.is_empty());
    // Somebody watches it beyond its time.
    let created: jiff::Timestamp = ended["createdAt"].as_str().expect("a time").parse().expect("a time");
    while jiff::Timestamp::now().duration_since(created).as_secs_f64() < 4.0 {
        assert!(!server.fetch(&beside(&ended, "v0/0.m4s")).await.is_empty());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(server.status(&id(&ended)).await["status"], "ready", "it is being watched");
    let over = server.until(&id(&ended), LONG, "over", |status| status["status"] == "stopped").await;
    assert_eq!(over["phase"], "expired");
    for known in
        ["title", "infoHash", "fileIndex", "quality", "duration", "mode", "why", "video", "audio", "subtitles", "createdAt", "progress"]
    {
        assert_eq!(over[known], ended[known], "{known} is told as before");
    }
    let listed = server.call(Method::GET, "/api/streams", None).await.json();
    assert_eq!((&listed["count"], &listed["streams"][0]), (&json!(1), &over));
    let stopped = id(&server.start(&nobody(0), json!({})).await);
    server.stop(&stopped).await;
    let hash = ended["infoHash"].as_str().expect("an info hash");
    let left: Vec<_> = files(&server.cache_dir()).into_iter().filter(|path| path.to_string_lossy().contains(hash)).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "everything that it wrote is gone");
    server.kill_9();
    server.restart().await;
    for (stream, phase) in [(id(&ended), "expired"), (stopped.clone(), "stopped")] {
        let status = server.status(&stream).await;
        assert_eq!((&status["status"], &status["phase"]), (&json!("stopped"), &json!(phase)), "{status:#}");
    }
    for stream in [id(&ended), stopped] {
        for tries in 0.. {
            let answer = server.call(Method::GET, &format!("/api/stream/status/{stream}"), None).await;
            if answer.status == 404 {
                break;
            }
            assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("stopped")));
            assert!(tries < 300, "it is remembered for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(server.call(Method::GET, "/api/streams", None).await.json()["count"], 0);
}
