//! Who waits, for what, and for how long: the real program with more streams than it may run at once.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use server::{Answer, TestServer};
use swarm::{Swarm, SwarmOptions};

/// Generous: it only must not be endless.
const LONG: u64 = 90;

/// A magnet of which nobody has anything: its stream looks for peers for two minutes.
fn nobody(n: u8) -> String {
    format!("c0ffee{n:02}c0ffee00c0ffee00c0ffee00c0ffee00")
}

fn id(status: &Value) -> String {
    status["streamId"].as_str().expect("an id").to_owned()
}

fn beside(status: &Value, name: &str) -> String {
    status["streamUrl"].as_str().expect("a URL").replace("master.m3u8", name)
}

async fn start_as(server: &TestServer, token: &str, link: &str, options: Value) -> Answer {
    let mut body = options;
    body["magnetLink"] = json!(link);
    server.call_as(token, Method::POST, "/api/stream/start", Some(body)).await
}

async fn started(server: &TestServer, token: &str, link: &str, options: Value) -> Value {
    let answer = start_as(server, token, link, options).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn is_refused(answer: &Answer) {
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("queue_full")), "{}", answer.text());
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("Retry-After");
    assert!((1..=120).contains(&wait), "{wait}");
}

fn place(status: &Value) -> Option<u64> {
    assert_eq!(status["phase"] == "queued", status["queuePosition"].is_u64(), "{status:#}");
    status["queuePosition"].as_u64()
}

fn films(folder: &Path, count: u32, seconds: u32) {
    let film = |n: u32| folder.join(format!("film{n}.mp4"));
    for n in 0..count {
        let args = format!(
            "-nostdin -v error -y -f lavfi -i testsrc2=s=640x360:r=24 -f lavfi -i sine=f={}:r=48000 -t {seconds} -c:v libx264 -preset ultrafast \
             -g 48 -pix_fmt yuv420p -c:a aac -movflags +faststart",
            300 + n
        );
        let made = Command::new("ffmpeg").args(args.split_whitespace()).arg(film(n)).status();
        assert!(made.expect("ffmpeg").success());
    }
}

/// An ffmpeg that encodes pictures no faster than `rate` times as they play.
fn steady_ffmpeg(folder: &Path, rate: u32) -> PathBuf {
    let path = folder.join("steady-ffmpeg");
    let script = format!("#!/bin/sh\ncase \"$*\" in *libx264*) exec ffmpeg -readrate {rate} \"$@\";; esac\nexec ffmpeg \"$@\"\n");
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made a program");
    path
}

/// Productions of pictures that run right now.
fn encoders(server: &TestServer) -> usize {
    server
        .children()
        .iter()
        .filter(|(_, line)| line.contains("libx264") && line.contains("-readrate") && !line.contains("balcony-server"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_device_may_have_waits_in_line_and_goes_on_as_soon_as_it_can() {
    let server = TestServer::with(&["--max-streams-per-device", "2", "--queue-length", "3"], &[]).await;
    let (anna, bert) = (server.pair("Anna's phone", None).await, server.pair("Bert's phone", None).await);
    let mut own = Vec::new();
    for (n, expected) in [(0, None), (1, None), (2, Some(1)), (3, Some(2)), (4, Some(3))] {
        let status = started(&server, &anna, &nobody(n), json!({})).await;
        assert_eq!(place(&status), expected, "{status:#}");
        own.push(status);
    }
    let first = &own[2];
    assert_eq!(
        (&first["status"], &first["messageKey"], &first["messageParams"]["place"]),
        (&json!("downloading"), &json!("queued"), &json!(1))
    );
    let told = server.until(&id(first), LONG, "told for how long", |status| status["messageParams"]["seconds"].as_u64() >= Some(1)).await;
    assert!(told["message"].as_str().is_some_and(|message| message.contains("number 1")), "{told:#}");
    // The queue is full: nobody may wait any more, but who need not wait may start, and the owner may start any number.
    is_refused(&start_as(&server, &anna, &nobody(5), json!({})).await);
    for n in [6, 7] {
        assert_eq!(place(&started(&server, &bert, &nobody(n), json!({})).await), None);
    }
    is_refused(&start_as(&server, &bert, &nobody(8), json!({})).await);
    for n in 10..14 {
        assert_eq!(place(&server.start(&nobody(n), json!({})).await), None);
    }
    // The same again is the same.
    let again = start_as(&server, &anna, &nobody(4), json!({})).await;
    assert_eq!((again.status, &again.json()["streamId"]), (200, &own[4]["streamId"]));
    // Whoever was refused waits as soon as there is room; places fall, and the first goes on.
    server.stop(&id(&own[3])).await;
    let status = server.until(&id(&own[4]), LONG, "second", |status| place(status) == Some(2)).await;
    assert_eq!(status["phase"], "queued");
    assert_eq!(place(&started(&server, &anna, &nobody(5), json!({})).await), Some(3));
    let stopped = Instant::now();
    server.stop(&id(&own[0])).await;
    let status = server.until(&id(&own[2]), LONG, "on its way", |status| place(status).is_none()).await;
    assert_eq!(status["phase"], "metadata");
    assert!(stopped.elapsed() < Duration::from_secs(5), "at once, not when somebody looks");
    server.until(&id(&own[4]), LONG, "first", |status| place(status) == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_holds_five_places_and_no_more() {
    let server = TestServer::with(&["--max-streams-per-device", "1"], &[]).await;
    let (anna, bert) = (server.pair("Anna's phone", None).await, server.pair("Bert's phone", None).await);
    for n in 0..6 {
        let expected = if n == 0 { None } else { Some(u64::from(n)) };
        assert_eq!(place(&started(&server, &anna, &nobody(n), json!({})).await), expected);
    }
    is_refused(&start_as(&server, &anna, &nobody(6), json!({})).await);
    // There is room for others.
    for (n, expected) in [(7, None), (8, Some(1))] {
        assert_eq!(place(&started(&server, &bert, &nobody(n), json!({})).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_ready_gives_its_slot_up_unless_somebody_watches() {
    let folder = tempfile::tempdir().expect("a folder");
    films(folder.path(), 1, 10);
    let swarm = Swarm::seed(folder.path().join("film0.mp4"), SwarmOptions::default()).await;
    let server = TestServer::with(&["--max-streams-per-device", "1"], &[("TEST_STREAM_WATCHED_MS", "3000")]).await;
    let anna = server.pair("Anna's phone", None).await;
    let film = started(&server, &anna, &swarm.link(), json!({})).await;
    server.until_ready(&id(&film)).await;
    // Nobody watches it: the next one need not wait.
    let next = started(&server, &anna, &nobody(0), json!({})).await;
    assert_eq!(place(&next), None);
    server.stop(&id(&next)).await;
    // Somebody does.
    assert!(!server.fetch(&beside(&film, "v0/0.m4s")).await.is_empty());
    let waiting = started(&server, &anna, &nobody(1), json!({})).await;
    assert_eq!(place(&waiting), Some(1));
    assert_eq!(server.status(&id(&film)).await["status"], "ready");
    // Until nobody has for a while.
    let status = server.until(&id(&waiting), LONG, "on its way", |status| place(status).is_none()).await;
    assert_eq!(status["phase"], "metadata");
    assert_eq!(server.status(&id(&film)).await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_go_round_the_people_and_there_are_never_more_than_were_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = folder.path().join("pack");
    std::fs::create_dir(&pack).expect("a folder");
    films(&pack, 6, 16);
    let swarm = Swarm::seed(&pack, SwarmOptions::default()).await;
    let ffmpeg = steady_ffmpeg(folder.path(), 4);
    let flags = ["--max-productions", "2", "--max-streams-per-device", "10", "--ffmpeg", ffmpeg.to_str().expect("text")];
    let server = TestServer::with(&flags, &[]).await;
    let (anna, bert) = (server.pair("Anna's phone", None).await, server.pair("Bert's phone", None).await);
    let film = |n: u32| json!({ "fileIndex": n, "quality": "360p", "capabilities": { "video": [], "audio": ["aac"] } });
    let mut streams = Vec::new();
    for n in 0..5 {
        streams.push(id(&started(&server, &anna, &swarm.link(), film(n)).await));
    }
    // Two are being made, three wait.
    let lined = |status: &Value| status["messageKey"] == "queued_for_encoder";
    for stream in &streams[2..] {
        server.until(stream, LONG, "in line", |status| lined(status) || status["status"] == "ready").await;
    }
    streams.push(id(&started(&server, &bert, &swarm.link(), film(5)).await));
    let (mut places, mut order, mut most) = (vec![u64::MAX; 6], Vec::new(), 0);
    let mut waited = HashSet::new();
    let begun = Instant::now();
    while order.len() < 6 {
        assert!(begun.elapsed().as_secs() < LONG, "not all get their turn: {order:?}");
        most = most.max(encoders(&server));
        for (n, stream) in streams.iter().enumerate() {
            let status = server.status(stream).await;
            assert!(status["error"].is_null(), "{status:#}");
            if let Some(place) = place(&status) {
                assert!(place >= 1 && place <= places[n], "a place that was told rises: {status:#}");
                assert!(status["message"].as_str().is_some_and(|message| message.contains("converter")), "{status:#}");
                places[n] = place;
                waited.insert(n);
            }
            if status["status"] == "ready" && !order.contains(&n) {
                order.push(n);
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!((1..=2).contains(&most), "{most} encoders at once");
    assert!(waited.len() >= 3, "{waited:?}");
    // In which order Anna's came to stand in line is not known: each is there when its film's tables have been read.
    assert_ne!(order.last(), Some(&5), "Bert's film comes before the last of Anna's: {order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_takes_the_encoder_that_nobody_reads_and_waits_for_one_that_somebody_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = folder.path().join("pack");
    std::fs::create_dir(&pack).expect("a folder");
    films(&pack, 2, 120);
    let swarm = Swarm::seed(&pack, SwarmOptions::default()).await;
    let server = TestServer::with(&["--max-productions", "1"], &[]).await;
    let film = |n: u32| json!({ "fileIndex": n, "quality": "360p", "capabilities": { "video": [], "audio": ["aac"] } });
    let first = server.play(&swarm.link(), film(0)).await;
    let second = server.play(&swarm.link(), film(1)).await;
    // The only encoder went from the first to the second, which nobody looks at; each of its viewer's steps takes it back.
    let far = server.fetch(&beside(&first, "v0/40.m4s")).await;
    assert!(!far.is_empty());
    let other = server.fetch(&beside(&second, "v0/0.m4s")).await;
    assert!(!other.is_empty());
    // Now the first one is being watched, and the second one's viewer has to wait: it is said why, and no stream suffers.
    assert!(!server.fetch(&beside(&first, "v0/41.m4s")).await.is_empty());
    let (client, url) = (server.client().clone(), server.here(&beside(&second, "v0/50.m4s")));
    let asked = tokio::spawn(async move { server::answer(client.get(url)).await });
    let told = server.until(&id(&second), LONG, "told why", |status| status["messageKey"] == "playable_waits_for_encoder").await;
    assert_eq!((&told["status"], &told["phase"].as_str().is_some_and(|phase| phase != "queued")), (&json!("ready"), &true), "{told:#}");
    let answer = asked.await.expect("joined");
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    if answer.status == 503 {
        assert_eq!(answer.json()["code"], "segment_late");
        assert!(answer.header("retry-after").is_some());
    }
    // It gets it when the first one was not read for a while, and the first one gets it back for its viewer.
    assert!(!server.fetch(&beside(&second, "v0/50.m4s")).await.is_empty());
    assert!(!server.fetch(&beside(&first, "v0/20.m4s")).await.is_empty());
    for stream in [&first, &second] {
        server
            .until(&id(stream), LONG, "well", |status| status["status"] == "ready" && status["messageKey"] != "playable_waits_for_encoder")
            .await;
    }
    // What is asked for again is the same.
    assert!(server.fetch(&beside(&first, "v0/40.m4s")).await == far);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_whose_bytes_do_not_come_keeps_no_encoder_from_others_and_goes_on_when_they_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let heavy = folder.path().join("heavy.mp4");
    let args = "-nostdin -v error -y -f lavfi -i testsrc2=s=640x360:r=24,noise=alls=24:allf=t -f lavfi -i sine=f=330:r=48000 -t 20 -c:v libx264 \
                -preset ultrafast -b:v 3M -maxrate 3M -bufsize 3M -g 48 -pix_fmt yuv420p -c:a aac -movflags +faststart";
    assert!(Command::new("ffmpeg").args(args.split_whitespace()).arg(&heavy).status().expect("ffmpeg").success());
    films(folder.path(), 1, 10);
    let slow = SwarmOptions { rate: Some(80_000), piece_len: 16 << 10, ..SwarmOptions::default() };
    let mut crawling = Swarm::seed(&heavy, slow).await;
    let healthy = Swarm::seed(folder.path().join("film0.mp4"), SwarmOptions::default()).await;
    let server = TestServer::with(&["--max-productions", "1"], &[]).await;
    let convert = json!({ "quality": "360p", "capabilities": { "video": [], "audio": ["aac"] } });
    let starved = id(&server.start(&crawling.link(), convert.clone()).await);
    server.until(&starved, LONG, "converting", |status| status["phase"] == "converting").await;
    crawling.kill();
    let other = id(&server.start(&healthy.link(), convert).await);
    server.until(&other, LONG, "in line", |status| status["messageKey"] == "queued_for_encoder").await;
    server.until_ready(&other).await;
    let status = server.status(&starved).await;
    assert_eq!((&status["status"], &status["phase"]), (&json!("converting"), &json!("converting")), "{status:#}");
    crawling.revive();
    server.until_ready(&starved).await;
}
