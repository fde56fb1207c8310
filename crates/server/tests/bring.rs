//! Torrent files that somebody brings: the magnet of one, what is kept of it, and what hostile ones come to.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/liar.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod liar;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::time::Duration;

use films::usual;
use liar::{many_files, one_file, sha1};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use server::{Answer, TestServer};
use swarm::{Swarm, SwarmOptions};

const KIND: &str = "application/x-bittorrent";

async fn bring_as(server: &TestServer, token: &str, kind: &str, bytes: Vec<u8>) -> Answer {
    let request = server.client().post(server.here("/api/torrents/magnet")).bearer_auth(token);
    server::answer(request.header(CONTENT_TYPE, kind).body(bytes)).await
}

async fn bring(server: &TestServer, bytes: Vec<u8>) -> Answer {
    bring_as(server, server.token(), KIND, bytes).await
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// What lies in the folder of kept metadata.
fn kept(server: &TestServer) -> Vec<String> {
    let folder = server.cache_dir().join("torrents/metainfo");
    let names =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.collect()
}

/// A metainfo file around an info dictionary, with these trackers.
fn around(info: &[u8], trackers: &[&str]) -> Vec<u8> {
    let text = |text: &str| format!("{}:{text}", text.len());
    let tiers: String = trackers.iter().map(|tracker| format!("l{}e", text(tracker))).collect();
    let first = trackers.first().copied().unwrap_or("http://none.example/announce");
    let head = format!(
        "d{}{}{}l{tiers}e{}{}{}",
        text("announce"),
        text(first),
        text("announce-list"),
        text("comment"),
        text("hello"),
        text("info")
    );
    [head.as_bytes(), info, b"8:url-listl30:http://127.0.0.1:1/webseed.mkve", b"e"].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_torrent_file_asks_nobody_what_is_in_it() {
    let mut swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let file = std::fs::read(swarm.torrent_file()).expect("the torrent file");
    swarm.kill();
    let server = TestServer::open().await;
    let phone = server.pair("Phone", None).await;
    let answer = bring_as(&server, &phone, "application/x-bittorrent; charset=binary", file).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let brought = answer.json();
    let len = std::fs::metadata(usual(12.0)).expect("a film").len();
    assert_eq!((string(&brought, "infoHash"), string(&brought, "name")), (swarm.info_hash().to_string().as_str(), "usual.mp4"));
    assert_eq!(brought["totalBytes"].as_u64(), Some(len));
    let link = string(&brought, "magnetLink");
    assert!(link.starts_with(&format!("magnet:?xt=urn:btih:{}&dn=usual.mp4", swarm.info_hash())), "{link}");
    assert_eq!(kept(&server), [format!("{}.torrent", swarm.info_hash())]);

    // Nobody is there who could tell what is in it.
    let started = server.start(link, json!({})).await;
    let id = string(&started, "streamId").to_owned();
    let known = server.until(&id, 5, "known", |status| status["title"] == "usual.mp4").await;
    assert_eq!((known["totalBytes"].as_u64(), string(&known, "phase")), (Some(len), "connecting"), "{known:#}");
    // Then somebody who has it is heard of.
    swarm.revive();
    server.start(&swarm.link(), json!({ "quality": "360p" })).await;
    server.until_ready(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_looking_for_it_has_it_at_once() {
    let info = one_file("film.mkv", "1000000", "262144", 4);
    let server = TestServer::open().await;
    let id = string(&server.start(&sha1(&info).to_string(), json!({})).await, "streamId").to_owned();
    server.until(&id, 5, "looked for", |status| status["phase"] == "metadata").await;
    let brought = bring(&server, around(&info, &[])).await;
    assert_eq!(brought.status, 200, "{}", brought.text());
    let known = server.until(&id, 5, "known", |status| status["title"] == "film.mkv").await;
    assert_eq!(known["totalBytes"], 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_trackers_are_cleaned_and_nothing_else_of_it_is_kept() {
    let info = many_files(&[(vec!["a", "film.mkv"], "300000"), (vec!["b.txt"], "10")], 262_144, 2);
    let hash = sha1(&info);
    let trackers = [
        "udp://tracker.example:6969/announce",
        "file:///etc/passwd",
        "UDP://TRACKER.example:6969/announce",
        "javascript:alert(1)",
        "https://other.example/announce?key=1",
        "http://user:secret@[::1",
    ];
    let many: Vec<String> = (0..600).map(|n| format!("udp://tracker{n}.example:{}/announce", 1000 + n)).collect();
    let all: Vec<&str> = trackers.iter().copied().chain(many.iter().map(String::as_str)).collect();
    let server = TestServer::open().await;
    let answer = bring(&server, around(&info, &all)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let brought = answer.json();
    assert_eq!((string(&brought, "name"), brought["totalBytes"].as_u64()), ("pack", Some(300_010)));
    let link = string(&brought, "magnetLink");
    let magnet = balcony_media::magnet::Magnet::parse(link).expect("a magnet");
    assert!(link.len() <= 8 << 10 && magnet.trackers.len() <= 50, "{} bytes, {} trackers", link.len(), magnet.trackers.len());
    assert_eq!(magnet.trackers[..2], ["udp://tracker.example:6969/announce", "https://other.example/announce?key=1"]);
    assert!(!magnet.trackers.iter().any(|tracker| tracker.contains("passwd") || tracker.contains("alert") || tracker.contains("secret")));
    let on_disk = std::fs::read(server.cache_dir().join(format!("torrents/metainfo/{hash}.torrent"))).expect("kept");
    assert_eq!(on_disk, [&b"d4:info"[..], &info, b"e"].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_refused_and_leave_nothing_behind() {
    let server = TestServer::open().await;
    let deep = [&b"d1:x"[..], &b"l".repeat(2 << 20), &b"e".repeat(2 << 20), b"e"].concat();
    let unreadable: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("no torrent", b"<html>not found</html>".to_vec()),
        ("a dictionary of nothing", b"de".to_vec()),
        ("no info", b"d8:announce3:abce".to_vec()),
        ("an info that is none", b"d4:infoi5ee".to_vec()),
        ("cut off", around(&one_file("a.mkv", "1000000", "262144", 4), &[])[..150].to_vec()),
        ("deep nesting", deep),
        ("a length that never ends", [&b"d4:info99999999999999999999"[..], b":xe"].concat()),
        ("zeros", vec![0; 8 << 20]),
    ];
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("a piece length of nothing", one_file("a.mkv", "1000000", "0", 4)),
        ("a length that wraps", one_file("a.mkv", "18446744073709551615", "262144", 4)),
        ("too few hashes", one_file("a.mkv", "1000000", "262144", 1)),
        ("a way up", many_files(&[(vec!["..", "..", "etc", "a.mkv"], "1000")], 262_144, 1)),
        ("a way up in one part", many_files(&[(vec!["../../a.mkv"], "1000")], 262_144, 1)),
        ("no files", many_files(&[], 262_144, 0)),
    ];
    let unreadable = unreadable.into_iter().map(|(what, file)| (what, file, "invalid"));
    let hostile = hostile.into_iter().map(|(what, info)| (what, around(&info, &[]), "unsafe_torrent"));
    for (what, file, code) in unreadable.chain(hostile) {
        let answer = bring(&server, file).await;
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        assert_eq!(string(&answer.json(), "code"), code, "{what}: {}", answer.text());
    }
    let large = bring(&server, vec![b'd'; (8 << 20) + 1]).await;
    assert_eq!((large.status, string(&large.json(), "code")), (413, "too_large"));
    let fine = around(&one_file("a.mkv", "1000000", "262144", 4), &[]);
    let other = bring_as(&server, server.token(), "application/octet-stream", fine.clone()).await;
    assert_eq!((other.status, string(&other.json(), "code")), (415, "unsupported_media_type"));
    assert_eq!(kept(&server), [""; 0], "nothing was written");
    assert_eq!(bring(&server, fine).await.status, 200, "and the server is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_streams_is_forgotten_at_the_next_start() {
    let mut server = TestServer::open().await;
    for n in 1..=3 {
        let file = around(&one_file(&format!("{n}.mkv"), "1000000", "262144", 4), &[]);
        assert_eq!(bring(&server, file).await.status, 200);
    }
    assert_eq!(kept(&server).len(), 3);
    let streamed = one_file("1.mkv", "1000000", "262144", 4);
    let id = string(&server.start(&sha1(&streamed).to_string(), json!({})).await, "streamId").to_owned();
    server.until(&id, 5, "known", |status| status["title"] == "1.mkv").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.restart().await;
    assert_eq!(kept(&server), [format!("{}.torrent", sha1(&streamed))]);
    let answer = server.call(Method::GET, &format!("/api/stream/status/{id}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
