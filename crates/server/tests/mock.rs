//! The mock, seen from outside: what people who write clients rely on. The real program, real sockets; a player judges what it plays.

#[path = "support/hls.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod hls;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use server::{Answer, FILM, SHORT, TestServer, answer, events};

const ANY: &str = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=Some+Film+(2020).mkv";

/// Where its films lie.
fn films(data_dir: &Path) -> PathBuf {
    data_dir.join("mock")
}

/// A mock at this speed that has its films, as at a second start.
async fn mock(speed: &str, flags: &[&str]) -> TestServer {
    let flags: Vec<&str> = ["--mock-speed", speed].iter().chain(flags).copied().collect();
    TestServer::mock_with_films(&flags, &[]).await
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key}: {value:#}"))
}

fn all_of(digit: char) -> String {
    std::iter::repeat_n(digit, 40).collect()
}

/// Status, phase and progress, of which a client draws its page.
fn face(status: &Value) -> (String, String, u64) {
    (text(status, "status").into(), text(status, "phase").into(), status["progress"].as_u64().expect("progress"))
}

/// What a stream showed, each time when its face was another one: seconds since its start, and the whole object.
async fn played(server: &TestServer, started: Value, begun: Instant, last: &str) -> Vec<(f64, Value)> {
    let id = text(&started, "streamId").to_owned();
    let mut shown = vec![(begun.elapsed().as_secs_f64(), started)];
    loop {
        let status = server.status(&id).await;
        let before = &shown.last().expect("one at least").1;
        assert!(status["downloadedBytes"].as_u64() >= before["downloadedBytes"].as_u64(), "bytes go back: {status:#}");
        let over = text(&status, "phase") == last;
        if face(&status) != face(before) || over {
            shown.push((begun.elapsed().as_secs_f64(), status));
        }
        if over {
            return shown;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never {last}: {:#}", shown.last().expect("one").1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_magnet_runs_the_time_line_and_then_plays() {
    const SPEED: f64 = 10.0;
    let server = mock("10", &[]).await;
    let begun = Instant::now();
    let started = server.start(ANY, json!({})).await;
    let shown = played(&server, started, begun, "complete").await;

    let line = [
        (0.0, "downloading", "metadata", 0),
        (5.0, "downloading", "connecting", 25),
        (10.0, "downloading", "buffering", 50),
        (15.0, "converting", "converting", 75),
        (20.0, "ready", "playable", 100),
        (60.0, "ready", "complete", 100),
    ];
    let faces: Vec<_> = shown.iter().map(|(_, status)| face(status)).collect();
    let expected: Vec<_> = line.iter().map(|(_, status, phase, progress)| ((*status).into(), (*phase).into(), *progress)).collect();
    assert_eq!(faces, expected);
    for ((at, status), (due, ..)) in shown.iter().zip(&line) {
        // Never early; late by what a busy machine may be late.
        let late = at - due / SPEED;
        assert!((-0.001..0.6).contains(&late), "{} came {late} s late", text(status, "phase"));
    }

    // What is known when: as in the real server, what is not known is left out.
    let known: [(&str, usize); 10] = [
        ("title", 1),
        ("fileIndex", 1),
        ("totalBytes", 1),
        ("directUrl", 1),
        ("downloadSpeed", 1),
        ("duration", 2),
        ("video", 2),
        ("audio", 2),
        ("mode", 2),
        ("why", 2),
    ];
    for (key, from) in known {
        let has: Vec<bool> = shown.iter().map(|(_, status)| status.get(key).is_some()).collect();
        let should: Vec<bool> = (0..shown.len()).map(|at| at >= from).collect();
        assert_eq!(has, should, "{key}");
    }
    for (_, status) in &shown {
        assert!(!text(status, "message").is_empty() && !text(status, "messageKey").is_empty() && status.get("error").is_none());
    }
    let etas: Vec<Option<u64>> = shown.iter().map(|(_, status)| status["eta"].as_u64()).collect();
    assert_eq!((etas[0], etas[4], etas[5]), (None, None, None));
    assert!((1..=2).contains(&etas[1].expect("an eta")) && etas[3] == Some(1), "{etas:?}");
    let numbers = |at: usize, key: &str| shown[at].1[key].as_u64().unwrap_or(u64::MAX);
    assert_eq!((numbers(1, "downloadedBytes"), numbers(1, "peers")), (0, 0), "nobody is connected yet");
    assert!(numbers(3, "peers") > 0 && numbers(3, "downloadSpeed") > 0 && numbers(3, "downloadedBytes") > 0);
    let total = films(&server.data_dir()).join(FILM).metadata().expect("the film").len();
    assert_eq!((numbers(5, "downloadedBytes"), numbers(5, "totalBytes")), (total, total));
    assert!((15.0..25.0).contains(&shown[4].1["downloadProgress"].as_f64().expect("a number")));

    let ready = &shown[5].1;
    assert_eq!((text(ready, "title"), text(ready, "mode"), ready["duration"].as_f64()), ("Some Film (2020).mp4", "copy", Some(60.0)));
    assert_eq!(ready["video"]["width"], 1280);
    assert_eq!(ready["audio"].as_array().map(Vec::len), Some(2));
    plays_wholly(&server, ready).await;
    gives_the_file(&server, ready, &films(&server.data_dir()).join(FILM)).await;
}

/// Every segment of every rendition is there, and all of it decodes without a complaint.
async fn plays_wholly(server: &TestServer, ready: &Value) {
    let mut found = hls::open(server, text(ready, "streamUrl")).await;
    assert_eq!(found.renditions.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["v0", "v1", "v2", "a1", "a2"]);
    found.fetch_scattered(server).await;
    let folder = tempfile::tempdir().expect("a folder");
    for rendition in &found.renditions {
        let file = rendition.write(folder.path());
        let facts = hls::facts(&file).await;
        let (kind, codec, stream) = if rendition.name.starts_with('v') { ("video", "h264", "v:0") } else { ("audio", "aac", "a:0") };
        assert_eq!((text(&facts["streams"][0], "codec_type"), text(&facts["streams"][0], "codec_name")), (kind, codec));
        let decoded = hls::decode(&file.to_string_lossy(), stream).await;
        assert_eq!(decoded.complaints, Vec::<String>::new(), "{}", rendition.name);
        let last = decoded.frames.last().expect("frames").0;
        assert!((59.0..60.5).contains(&last), "{} ends at {last}", rendition.name);
        if kind == "video" {
            assert_eq!(decoded.frames.len(), 60 * 24);
        }
    }
}

/// The original bytes, wholly and in parts.
async fn gives_the_file(server: &TestServer, ready: &Value, film: &Path) {
    let original = std::fs::read(film).expect("the film");
    let url = text(ready, "directUrl");
    assert_eq!(server.fetch(url).await, original);
    let part = answer(server.client().get(server.here(url)).header("range", "bytes=1000000-1000099")).await;
    assert_eq!((part.status, &part.body[..]), (206, &original[1_000_000..1_000_100]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 1000000-1000099/{}", original.len()).as_str()));
    let behind = answer(server.client().get(server.here(url)).header("range", "bytes=99999999999-")).await;
    assert_eq!(behind.status, 416);
}

#[tokio::test(flavor = "multi_thread")]
async fn some_info_hashes_have_a_fate_of_their_own() {
    const SPEED: f64 = 20.0;
    let server = mock("20", &[]).await;

    let answer = server.try_start(&all_of('a'), json!({})).await;
    assert_eq!((answer.status, face(&answer.json())), (201, ("ready".into(), "playable".into(), 100)), "within the first answer");
    let master = server.get(text(&answer.json(), "streamUrl")).await;
    assert_eq!((master.status, master.text().starts_with("#EXTM3U")), (200, true));

    let begun = Instant::now();
    let nobody = server.start(&all_of('e'), json!({})).await;
    let breaks = server.start(&all_of('d'), json!({})).await;
    let never = server.start(&all_of('c'), json!({})).await;
    let (nobody, breaks) = tokio::join!(played(&server, nobody, begun, "failed"), played(&server, breaks, begun, "failed"));

    let (at, failed) = nobody.last().expect("the end");
    assert!((-0.001..0.6).contains(&(at - 5.0 / SPEED)), "{at}");
    assert_eq!(face(failed), ("error".into(), "failed".into(), 0));
    assert_eq!((text(&failed["error"], "code"), text(failed, "messageKey")), ("no_peers", "failed"));

    let (at, failed) = breaks.last().expect("the end");
    assert!((-0.001..0.6).contains(&(at - 17.5 / SPEED)), "{at}");
    assert_eq!(text(&breaks[breaks.len() - 2].1, "status"), "converting", "it fails while converting");
    assert_eq!((face(failed), text(&failed["error"], "code")), (("error".into(), "failed".into(), 75), "conversion_failed"));
    assert_eq!(failed.get("peers"), None, "nobody is connected for a stream that is over");

    // Far behind the time at which all others are ready.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = text(&never, "streamId");
    assert_eq!(face(&server.status(id).await), ("downloading".into(), "metadata".into(), 0));
    assert_eq!(text(&server.stop(id).await, "status"), "stopped");
    assert_eq!(face(&server.status(id).await), ("stopped".into(), "stopped".into(), 0));
    // A failed one is started anew, with its whole time line.
    let again = server.try_start(&all_of('d'), json!({})).await;
    assert_eq!((again.status, face(&again.json()).1), (201, "metadata".to_owned()));
}

async fn inspect(server: &TestServer, link: &str) -> Answer {
    server.call(Method::POST, "/api/torrents/inspect", Some(json!({ "magnetLink": link }))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_can_be_looked_into_and_any_film_of_it_played() {
    let server = mock("50", &[]).await;
    let pack = inspect(&server, ANY).await;
    assert_eq!(pack.status, 200);
    let pack = pack.json();
    assert_eq!((text(&pack, "name"), text(&pack, "infoHash")), ("Some Film (2020)", "0123456789abcdef0123456789abcdef01234567"));
    let files = pack["files"].as_array().expect("files");
    assert_eq!(pack["totalBytes"].as_u64(), files.iter().map(|file| file["length"].as_u64()).sum());
    assert!(files.iter().filter(|file| file["playable"] == true).count() > 1 && files.iter().any(|file| file["playable"] == false));

    let (begun, nobody) = (Instant::now(), inspect(&server, &all_of('e')).await);
    assert_eq!((nobody.status, text(&nobody.json(), "code")), (422, "no_peers"));
    assert!(begun.elapsed() < Duration::from_secs(1), "as fast as the clock");
    assert_eq!(inspect(&server, &all_of('c')).await.status, 422);
    assert_eq!(inspect(&server, &all_of('a')).await.status, 200);

    let table = [
        (json!({}), 0, FILM),
        (json!({ "fileIndex": 1 }), 1, SHORT),
        (json!({ "fileIndex": 2 }), 0, FILM),
        (json!({ "fileIndex": 5 }), 0, FILM),
    ];
    for (options, chosen, film) in table {
        let ready = server.play(ANY, options.clone()).await;
        assert_eq!(ready["fileIndex"], chosen, "{options}");
        let path = text(&files[chosen], "path");
        assert_eq!(Some(text(&ready, "title")), path.rsplit('/').next());
        let local = films(&server.data_dir()).join(film);
        let seconds = text(&hls::facts(&local).await["streams"][0], "duration").parse::<f64>().expect("a number");
        assert!((ready["duration"].as_f64().expect("a duration") - seconds).abs() < 0.1, "{options}: {seconds}");
        assert_eq!(ready["totalBytes"].as_u64(), Some(local.metadata().expect("it").len()));
    }

    let sample = server.call(Method::GET, "/api/sample", None).await.json();
    let ready = server.play(text(&sample, "magnetLink"), json!({})).await;
    assert_eq!((text(&ready, "title"), ready["duration"].as_f64()), (text(&sample, "title"), sample["duration"].as_f64()));
    // One that has to be converted is.
    let small = server.play(ANY, json!({ "quality": "360p" })).await;
    assert_eq!(text(&small, "mode"), "convert");
    let found = hls::open(&server, text(&small, "streamUrl")).await;
    let resolution = found.master.variants[0].resolution.expect("a resolution");
    assert_eq!((resolution.width, resolution.height), (640, 360));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_else_is_the_real_server() {
    let server = mock("10", &[]).await;
    // People do not see each other's streams, and without a token nobody sees anything.
    let (anna, ben) = (server.pair("Anna's phone", None).await, server.pair("Ben's phone", None).await);
    let body = json!({ "magnetLink": ANY });
    let started = server.call_as(&anna, Method::POST, "/api/stream/start", Some(body.clone())).await.json();
    let id = text(&started, "streamId").to_owned();
    let told = {
        let address = server.here(&format!("/api/stream/{id}/events"));
        let request = server.client().get(address).bearer_auth(&anna);
        tokio::spawn(events(request))
    };
    let of_it = format!("/api/stream/status/{id}");
    assert_eq!(server.call_as(&ben, Method::GET, &of_it, None).await.status, 404);
    assert_eq!(server.call_as(&ben, Method::GET, "/api/streams", None).await.json()["count"], 0);
    assert_eq!(server.get(&of_it).await.status, 401);
    let again = server.call_as(&anna, Method::POST, "/api/stream/start", Some(body.clone())).await;
    assert_eq!((again.status, text(&again.json(), "streamId")), (200, id.as_str()));
    // Ben's stream of the same film has a time line of its own.
    server.until(&id, 10, "buffering", |status| face(status).2 >= 50).await;
    let bens = server.call_as(&ben, Method::POST, "/api/stream/start", Some(body)).await;
    assert_eq!((bens.status, face(&bens.json()).2), (201, 0));

    server.until_ready(&id).await;
    let moved = server.call_as(&anna, Method::PUT, &format!("/api/stream/{id}/position"), Some(json!({ "seconds": 12.5 }))).await;
    assert_eq!((moved.status, moved.json()["position"].as_f64()), (200, Some(12.5)));
    let stopped = server.call_as(&anna, Method::DELETE, &format!("/api/stream/{id}"), None).await;
    assert_eq!((stopped.status, text(&stopped.json(), "status")), (200, "stopped"));
    assert_eq!(server.get(text(&started, "streamUrl")).await.status, 404, "its ticket has died with it");
    let status = server.call_as(&anna, Method::GET, &of_it, None).await;
    assert_eq!((status.status, face(&status.json()).1), (200, "stopped".to_owned()));

    let told = tokio::time::timeout(Duration::from_secs(10), told).await.expect("they end with the stream").expect("read");
    let mut faces: Vec<_> = told.iter().filter(|(event, _)| event == "stream").map(|(_, data)| face(data).2).collect();
    faces.dedup();
    // The last one is of the stopped stream.
    assert_eq!(faces, [0, 25, 50, 75, 100], "{told:#?}");
    assert_eq!(told.last().map(|(event, _)| event.as_str()), Some("gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_the_clock() {
    let server = mock("10", &[]).await;
    let started = server.start(ANY, json!({})).await;
    let id = text(&started, "streamId");
    server.until(id, 10, "buffering", |status| face(status).2 == 50).await;
    let pause = |paused: bool| server.call(Method::PUT, "/api/pause", Some(json!({ "paused": paused })));
    assert_eq!(pause(true).await.json()["paused"], true);
    let paused = server.until(id, 10, "paused", |status| text(status, "messageKey") == "paused").await;
    assert_eq!((face(&paused).2, paused["downloadSpeed"].as_u64(), paused.get("eta")), (50, Some(0), None));
    // Twice as long as all that was left.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let still = server.status(id).await;
    assert_eq!((face(&still), &still["downloadedBytes"]), (face(&paused), &paused["downloadedBytes"]));
    assert_eq!(pause(false).await.json()["paused"], false);
    let ready = server.until_ready(id).await;
    let fetched = ready["fetched"].as_array().expect("spans of the film");
    assert_eq!((fetched.len(), fetched[0][0].as_f64()), (1, Some(0.0)), "it comes from the beginning: {fetched:?}");
    assert!((5.0..30.0).contains(&fetched[0][1].as_f64().expect("a number")), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_back_as_far_as_their_age_says() {
    let mut server = mock("4", &[]).await;
    let ready = server.play(&all_of('a'), json!({})).await;
    let begun = Instant::now();
    let on_its_way = server.start(ANY, json!({})).await;
    let failed = server.start(&all_of('e'), json!({})).await;
    let id = |stream: &Value| text(stream, "streamId").to_owned();
    server.until(&id(&failed), 10, "failed", |status| text(status, "status") == "error").await;
    server.call(Method::PUT, &format!("/api/stream/{}/position", id(&ready)), Some(json!({ "seconds": 33.0 }))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill_9();
    let restarted = Instant::now();
    server.restart().await;
    assert!(restarted.elapsed() < Duration::from_secs(5), "its films are still there");

    let back = server.until_ready(&id(&ready)).await;
    assert_eq!((back["position"].as_f64(), server_path(&back)), (Some(33.0), server_path(&ready)));
    server.fetch(text(&ready, "streamUrl")).await;
    let error = server.status(&id(&failed)).await;
    assert_eq!((text(&error, "status"), text(&error["error"], "code")), ("error", "no_peers"));
    let came = server.until_ready(&id(&on_its_way)).await;
    let took = begun.elapsed().as_secs_f64();
    // It goes on from where its age says, and not from the beginning.
    assert!((4.9..9.0).contains(&took), "{took} s: {came:#}");
    assert_eq!(server.end().and_then(|status| status.code()), Some(0));
}

/// Its address behind the port, which is another one after a restart.
fn server_path(stream: &Value) -> Option<&str> {
    text(stream, "streamUrl").rsplit_once("/m/").map(|(_, path)| path)
}

/// A socket of a process, as in `/proc/net`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    kind: &'static str,
    local: String,
    remote: String,
    listens: bool,
}

/// Sockets of the internet that a process has open.
fn sockets(pid: u32) -> BTreeSet<Socket> {
    let own: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its files")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = BTreeSet::new();
    for kind in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            // proc(5): sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode.
            let fields: Vec<&str> = line.split_whitespace().collect();
            if own.contains(fields[9]) {
                found.insert(Socket { kind, local: fields[1].into(), remote: fields[2].into(), listens: fields[3] == "0A" });
            }
        }
    }
    found
}

/// As in `/proc/net/tcp`.
fn port(address: &str) -> &str {
    address.rsplit_once(':').expect("a port").1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_the_film_and_nothing_but_its_own_doors_is_open() {
    // Everything that finds peers is on, and the magnet names some.
    let server = TestServer::mock(&["--mock-speed", "10", "--no-dht=false"], &[], |_| {}).await;
    assert!(films(&server.data_dir()).join(FILM).exists() && films(&server.data_dir()).join(SHORT).exists(), "before it listens");
    let link = format!("{ANY}&tr=http%3A%2F%2F127.0.0.1%3A9%2Fannounce&tr=udp%3A%2F%2F127.0.0.1%3A9&x.pe=127.0.0.1:9");
    let started = server.start(&link, json!({})).await;
    let id = text(&started, "streamId");
    let mut seen = BTreeSet::new();
    loop {
        seen.extend(sockets(server.pid()));
        if text(&server.status(id).await, "phase") == "complete" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let doors: BTreeSet<&str> = seen.iter().filter(|socket| socket.listens).map(|socket| port(&socket.local)).collect();
    let of = |address: &str| format!("{:04X}", address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port"));
    let (http, https) = (of(server.base()), of(server.https()));
    assert!(doors.contains(http.as_str()) && doors.contains(https.as_str()), "{seen:#?}");
    // The third one is where its own ffmpeg reads films, on loopback.
    assert_eq!(doors.len(), 3, "{seen:#?}");
    for socket in &seen {
        assert!(socket.kind.starts_with("tcp"), "{socket:?}");
        assert!(socket.local.starts_with("0100007F:"), "on loopback only, as it was bound: {socket:?}");
        assert!(socket.listens || doors.contains(port(&socket.local)), "somebody was called: {socket:?}");
    }
    assert!(!server.cache_dir().join("torrents").exists(), "no torrent engine was opened");
    assert!(server.said().contains("this is the mock"), "it says what it is");
}
