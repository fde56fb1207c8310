//! What stands around a stream in the API: looking into a torrent, the sample film, positions, events, the list, the token in the path.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::time::Duration;

use films::usual;
use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_is_looked_into_before_anything_is_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let torrent = folder.path().join("Films");
    std::fs::create_dir_all(torrent.join("extras")).expect("made");
    std::fs::copy(usual(12.0), torrent.join("Film.mp4")).expect("copied");
    std::fs::write(torrent.join("extras/notes.txt"), "read me").expect("written");
    let swarm = Swarm::seed(&torrent, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let answer = server.call(Method::POST, "/api/torrents/inspect", Some(json!({ "magnetLink": swarm.link() }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let found = answer.json();
    let film = std::fs::metadata(usual(12.0)).expect("a film").len();
    assert_eq!((string(&found, "name"), found["totalBytes"].as_u64()), ("Films", Some(film + 7)));
    let files = found["files"].as_array().expect("files");
    let told = |file: &Value| (string(file, "path").to_owned(), file["length"].as_u64(), file["playable"].as_bool());
    let mut told: Vec<_> = files.iter().map(told).collect();
    told.sort();
    assert_eq!(told, [("Film.mp4".into(), Some(film), Some(true)), ("extras/notes.txt".into(), Some(7), Some(false))]);
    assert_eq!(server.call(Method::GET, "/api/streams", None).await.json()["count"], 0);
    let wrong = server.call(Method::POST, "/api/torrents/inspect", Some(json!({ "magnetLink": "magnet:?dn=nothing" }))).await;
    assert_eq!((wrong.status, string(&wrong.json(), "code")), (400, "bad_magnet"));
    // What was looked into can be started without asking anybody again.
    let index = files.iter().find(|file| file["playable"] == true).map(|file| file["index"].clone());
    let status = server.play(&swarm.link(), json!({ "fileIndex": index })).await;
    assert_eq!(status["title"], "Film.mp4");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_film_is_made_seeded_and_played() {
    let server = TestServer::open().await;
    let sample = server.call(Method::GET, "/api/sample", None).await.json();
    let status = server.play(string(&sample, "magnetLink"), json!({})).await;
    assert_eq!((status["title"].clone(), status["mode"].clone()), (sample["title"].clone(), json!("copy")));
    let (told, found) = (sample["duration"].as_f64().expect("seconds"), status["duration"].as_f64().expect("seconds"));
    assert!((told - found).abs() < 0.2, "{told} and {found}");
    assert_eq!(status["audio"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert!(server.get(string(&status, "streamUrl")).await.text().contains("EXT-X-STREAM-INF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_kept_over_a_crash() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let id = string(&server.play(&swarm.link(), json!({})).await, "streamId").to_owned();
    let path = format!("/api/stream/{id}/position");
    let moved = server.call(Method::PUT, &path, Some(json!({ "seconds": 7.5 }))).await;
    assert_eq!((moved.status, moved.json()["position"].as_f64()), (200, Some(7.5)));
    for wrong in [json!({ "seconds": -1 }), json!({ "seconds": "seven" }), json!({})] {
        let answer = server.call(Method::PUT, &path, Some(wrong)).await;
        assert_eq!((answer.status, string(&answer.json(), "code")), (422, "invalid"));
    }
    server.until(&id, 10, "the position", |status| status["position"].as_f64() == Some(7.5)).await;
    // Written down within a moment of being told; the answer does not wait for the disk.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill_9();
    server.restart().await;
    assert_eq!(server.until_ready(&id).await["position"].as_f64(), Some(7.5));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_object_at_once_at_each_change_and_the_end() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let started = server.start(&swarm.link(), json!({})).await;
    let (id, url) = (string(&started, "streamId").to_owned(), server.here(string(&started, "eventsUrl")));
    // Without a header: the ticket in the path is enough.
    let of_stream = tokio::spawn(server::events(server.client().get(url)));
    let of_all = tokio::spawn(server::events(server.client().get(server.here("/api/events")).bearer_auth(server.token())));
    server.until_ready(&id).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.stop(&id).await;
    let told = tokio::time::timeout(Duration::from_secs(20), of_stream).await.expect("the events end with the stream").expect("read");
    let words: Vec<&str> = told.iter().filter(|(event, _)| event == "stream").map(|(_, data)| string(data, "status")).collect();
    assert_eq!(words.last(), Some(&"stopped"), "{words:?}");
    assert!(words.contains(&"ready"), "{words:?}");
    let progress: Vec<u64> = told.iter().filter_map(|(_, data)| data["progress"].as_u64()).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    assert_eq!(told.last(), Some(&("gone".to_owned(), json!({ "streamId": id }))));
    drop(server);
    let of_all = tokio::time::timeout(Duration::from_secs(20), of_all).await.expect("the events end with the server").expect("read");
    assert!(of_all.iter().any(|(event, data)| event == "gone" && string(data, "streamId") == id));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_start_is_the_same_stream_and_the_token_may_stand_in_the_path() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let bare = server.try_start(&swarm.link(), json!({})).await;
    let again = server.try_start(&swarm.link(), json!({})).await;
    let other = server.try_start(&swarm.link(), json!({ "quality": "360p" })).await;
    assert_eq!((bare.status, again.status, other.status), (201, 200, 201));
    let id = |answer: &server::Answer| string(&answer.json(), "streamId").to_owned();
    assert_eq!(id(&bare), id(&again));
    assert_ne!(id(&bare), id(&other));
    let listed = server.get(&format!("/t/{}/api/streams", server.token())).await;
    assert_eq!((listed.status, listed.json()["count"].as_u64()), (200, Some(2)));
    assert_eq!(server.get("/t/no-such-token/api/streams").await.status, 401);
    // A failed or stopped one is not given back.
    server.stop(&id(&bare)).await;
    let anew = server.try_start(&swarm.link(), json!({})).await;
    assert_eq!(anew.status, 201);
    assert_ne!(id(&anew), id(&bare));
}
