//! How everything stands, and what a stream tells of who watches it and of what is here: true, told when it changes, and only to whom it
//! concerns. And pausing everything.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use films::{AAC, both, by_ffmpeg, usual};
use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// A film of eight megabytes, which lie as evenly in it as its 15 segments do.
fn long() -> PathBuf {
    const EVEN: &str = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -bf 3 -g 96 -sc_threshold 0 -b:v 1M -minrate 1M -maxrate 1M -bufsize 1M \
         -x264-params nal-hrd=cbr:force-cfr=1";
    by_ffmpeg("long.mp4", &format!("{} {EVEN} {AAC} -movflags +faststart", both(60.0)))
}

/// So slow that a minute is not enough, and quick enough for the first segment.
fn slow() -> SwarmOptions {
    SwarmOptions { rate: Some(150_000), piece_len: 32 << 10, ..SwarmOptions::default() }
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap_or_else(|| panic!("{list:#}")).iter().map(|one| string(one, "name")).collect()
}

async fn overview(server: &TestServer) -> Value {
    let answer = server.call(Method::GET, "/api/overview", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn pause(server: &TestServer, paused: bool) -> Value {
    let answer = server.call(Method::PUT, "/api/pause", Some(json!({ "paused": paused }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["paused"], paused);
    answer.json()
}

async fn status_as(server: &TestServer, token: &str, id: &str) -> Value {
    let answer = server.call_as(token, Method::GET, &format!("/api/stream/status/{id}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Asks until it is so.
async fn until(server: &TestServer, token: &str, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = status_as(server, token, id).await;
        if holds(&status) {
            return status;
        }
        assert!(begun.elapsed().as_secs() < 40, "not {what}: {status:#}\n{}", server.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn start_as(server: &TestServer, token: &str, link: &str) -> String {
    let answer = server.call_as(token, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": link }))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    string(&answer.json(), "streamId").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_are_true_and_told_when_they_change() {
    let server = TestServer::open().await;
    let phone = server.pair("Phone", Some("Anna")).await;
    let idle = overview(&server).await;
    assert_eq!((string(&idle, "state"), idle["paused"].as_bool()), ("idle", Some(false)), "{idle:#}");
    for key in ["streams", "watching", "preparing", "downloadSpeed", "uploadSpeed", "usedBytes"] {
        assert_eq!(idle[key], 0, "{key} in {idle:#}");
    }
    assert!(idle["budgetBytes"].as_u64() > Some(0) && idle["freeBytes"].as_u64() > Some(0), "{idle:#}");

    let listen = async |token: &str| {
        let answer = server.client().get(server.here("/api/events")).bearer_auth(token).send().await;
        answer.expect("an answer")
    };
    let (owner_hears, phone_hears) = (listen(server.token()).await, listen(&phone).await);
    let (owner_heard, phone_heard) = (tokio::spawn(server::heard(owner_hears)), tokio::spawn(server::heard(phone_hears)));
    let swarm = Swarm::seed(&long(), slow()).await;
    let id = start_as(&server, &phone, &swarm.link()).await;
    let ready = until(&server, &phone, &id, "ready", |status| status["status"] == "ready").await;
    assert_eq!(server.get(string(&ready, "streamUrl")).await.status, 200);
    let active = overview(&server).await;
    assert_eq!(
        (string(&active, "state"), &active["streams"], &active["watching"], &active["preparing"]),
        ("active", &json!(1), &json!(1), &json!(0))
    );
    let speed = server.until(&id, 20, "fetched", |status| status["downloadSpeed"].as_u64() > Some(0)).await;
    assert!(overview(&server).await["usedBytes"].as_u64() >= speed["downloadedBytes"].as_u64(), "{speed:#}");
    // Told once a second; this one must not be skipped.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.stop(&id).await;
    let over = overview(&server).await;
    assert_eq!((&over["streams"], &over["watching"], &over["downloadSpeed"]), (&json!(0), &json!(0), &json!(0)), "{over:#}");
    // The last of them is told within its second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    drop(server);

    let heard = |events: Vec<(String, Value)>| events.into_iter().filter(|(event, _)| event == "overview").map(|(_, data)| data).collect();
    let told: Vec<Value> = heard(owner_heard.await.expect("no panic"));
    assert_eq!(told.first().map(|first| string(first, "state")), Some("idle"), "at once");
    assert!(told.iter().any(|seen| seen["preparing"] == 1), "{told:#?}");
    assert!(told.iter().any(|seen| seen["state"] == "active" && seen["watching"] == 1), "{told:#?}");
    assert_eq!(told.last().map(|last| (&last["streams"], &last["watching"])), Some((&json!(0), &json!(0))), "{told:#?}");
    assert!(told.windows(2).all(|two| two[0] != two[1]), "only when something changed");
    let others: Vec<Value> = heard(phone_heard.await.expect("no panic"));
    assert_eq!(others, [Value::Null; 0], "it is for the owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_nothing_comes_what_is_here_plays_and_a_restart_changes_nothing() {
    let swarm = Swarm::seed(&long(), slow()).await;
    let mut server = TestServer::open().await;
    let id = string(&server.start(&swarm.link(), json!({})).await, "streamId").to_owned();
    server.until_ready(&id).await;
    pause(&server, true).await;
    let paused = server.until(&id, 10, "paused", |status| status["messageKey"] == "paused").await;
    assert_eq!((string(&paused, "status"), &paused["downloadSpeed"]), ("ready", &json!(0)), "{paused:#}");
    assert!(paused["downloadProgress"].as_f64() < Some(100.0), "{paused:#}");
    let here = server.status(&id).await["downloadedBytes"].clone();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.status(&id).await["downloadedBytes"], here, "nothing came");

    // What is here still plays; what is not is late, and the stream lives on.
    let master = string(&paused, "streamUrl").to_owned();
    assert!(!server.fetch(&master.replace("master.m3u8", "v0/0.m4s")).await.is_empty());
    let last = server.get(&master.replace("master.m3u8", "v0/11.m4s")).await;
    assert_eq!((last.status, string(&last.json(), "code")), (503, "segment_late"));

    // A stream that begins now says what it waits for.
    let other = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let waiting = string(&server.start(&other.link(), json!({})).await, "streamId").to_owned();
    let told = server.until(&waiting, 5, "paused", |status| status["messageKey"] == "paused").await;
    assert_eq!((string(&told, "phase"), string(&told, "status")), ("metadata", "downloading"), "{told:#}");
    assert!(string(&told, "message").starts_with("Paused"), "{told:#}");

    server.restart().await;
    let still = overview(&server).await;
    assert_eq!((still["paused"].as_bool(), string(&still, "state")), (Some(true), "idle"), "{still:#}");
    let back = server.until_ready(&id).await;
    assert!(!server.fetch(&string(&back, "streamUrl").replace("master.m3u8", "v0/0.m4s")).await.is_empty());
    assert_eq!(server.status(&id).await["messageKey"], "paused");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(string(&server.status(&waiting).await, "messageKey"), "paused");

    assert_eq!(pause(&server, false).await["paused"], false);
    server.until(&waiting, 30, "complete", |status| status["phase"] == "complete").await;
    server.until(&id, 30, "fetched again", |status| status["downloadedBytes"].as_u64() > here.as_u64()).await;
    assert_eq!(server.status(&id).await["messageKey"], "playable");
    for wrong in [json!({ "paused": "yes" }), json!({}), json!({ "paused": true, "until": 3 })] {
        assert_eq!(server.call(Method::PUT, "/api/pause", Some(wrong)).await.status, 422);
    }
    assert_eq!(overview(&server).await["paused"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_the_middle_of_waiting_is_no_failure() {
    let mut swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    swarm.kill();
    let server = TestServer::with(&["--metadata-timeout", "3s"], &[]).await;
    let id = string(&server.start(&swarm.link(), json!({})).await, "streamId").to_owned();
    pause(&server, true).await;
    // Longer than anybody may take to give the metadata.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.status(&id).await["messageKey"], "paused");
    swarm.revive();
    pause(&server, false).await;
    server.until_ready(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seconds_that_are_here_are_those_whose_bytes_are() {
    let film = long();
    let swarm = Swarm::seed(&film, slow()).await;
    let server = TestServer::open().await;
    let started = server.start(&swarm.link(), json!({})).await;
    assert_eq!(started["fetched"], Value::Null, "nothing is known yet");
    let id = string(&started, "streamId").to_owned();
    let ready = server.until_ready(&id).await;
    // A place far ahead is wanted: what is here has a hole.
    server.get(&string(&ready, "streamUrl").replace("master.m3u8", "v0/9.m4s")).await;
    let seen = server.until(&id, 30, "two spans", |status| status["fetched"].as_array().is_some_and(|spans| spans.len() > 1)).await;
    let spans: Vec<(f64, f64)> = seen["fetched"]
        .as_array()
        .expect("spans")
        .iter()
        .map(|span| (span[0].as_f64().expect("from"), span[1].as_f64().expect("to")))
        .collect();
    let duration = seen["duration"].as_f64().expect("a duration");
    assert_eq!(spans[0].0, 0.0, "{spans:?}");
    assert!(spans.iter().all(|(from, to)| from < to && *to <= duration + 0.1), "{spans:?} of {duration}");
    assert!(spans.windows(2).all(|two| two[0].1 < two[1].0), "{spans:?}");
    // The film's bytes come evenly: so many of them, so many seconds.
    let seconds: f64 = spans.iter().map(|(from, to)| to - from).sum();
    let share = seen["downloadedBytes"].as_f64().expect("bytes") / seen["totalBytes"].as_f64().expect("bytes");
    assert!((seconds / duration - share).abs() < 0.15, "{seconds} s of {duration} s, {share} of the bytes: {spans:?}");
    server.stop(&id).await;
    assert_eq!(server.status(&id).await["fetched"], Value::Null);

    let quick = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let all = server.play(&quick.link(), json!({})).await;
    let all = server.until(string(&all, "streamId"), 20, "complete", |status| status["phase"] == "complete").await;
    let whole = all["duration"].as_f64().expect("a duration");
    let spans = all["fetched"].as_array().expect("spans");
    assert_eq!((spans.len(), spans[0][0].as_f64()), (1, Some(0.0)), "{spans:?}");
    assert!((spans[0][1].as_f64().expect("an end") - whole).abs() <= 0.1, "{spans:?} of {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_to_whom_it_concerns() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let phone = server.pair("Annas Telefon", Some("Anna")).await;
    let tablet = server.pair("Annas Tafel", Some("Anna")).await;
    let bert = server.pair("Berts Telefon", Some("Bert")).await;
    let id = start_as(&server, &phone, &swarm.link()).await;
    let own = until(&server, &phone, &id, "ready", |status| status["status"] == "ready").await;
    assert_eq!(
        (string(&own["device"], "name"), &own["person"], names(&own["watching"])),
        ("Annas Telefon", &Value::Null, vec![]),
        "{own:#}"
    );

    // Both of hers watch, and the owner looks in.
    let seen_by = async |token: &str, id: &str| string(&status_as(&server, token, id).await, "streamUrl").to_owned();
    for token in [phone.as_str(), &tablet, server.token()] {
        assert_eq!(server.get(&seen_by(token, &id).await).await.status, 200);
    }
    let both = |status: &Value| names(&status["watching"]).len() == 2;
    for token in [&phone, &tablet] {
        let mut seen =
            names(&until(&server, token, &id, "watched", both).await["watching"]).into_iter().map(str::to_owned).collect::<Vec<_>>();
        seen.sort();
        assert_eq!(seen, ["Annas Tafel", "Annas Telefon"], "the owner's own watching is not theirs to know");
    }
    let all = until(&server, server.token(), &id, "watched by three", |status| names(&status["watching"]).len() == 3).await;
    assert_eq!((string(&all["person"], "name"), string(&all["device"], "name")), ("Anna", "Annas Telefon"));
    assert_eq!(overview(&server).await["watching"], 3);

    // Of the same film, another person hears nothing of her.
    let berts = start_as(&server, &bert, &swarm.link()).await;
    let of_bert = until(&server, &bert, &berts, "ready", |status| status["status"] == "ready").await;
    assert_eq!(server.get(string(&of_bert, "streamUrl")).await.status, 200);
    let of_bert = until(&server, &bert, &berts, "watched", |status| !names(&status["watching"]).is_empty()).await;
    assert_eq!(
        (string(&of_bert["device"], "name"), &of_bert["person"], names(&of_bert["watching"])),
        ("Berts Telefon", &Value::Null, vec!["Berts Telefon"])
    );
    assert!(!of_bert.to_string().contains("Anna"), "{of_bert:#}");
    for token in [&phone, &tablet] {
        assert!(!status_as(&server, token, &id).await.to_string().contains("Bert"));
    }

    // Her telephone is given to him: what it started stays hers, and tells her no more of it.
    let device = string(&own["device"], "id").to_owned();
    let given = server.call(Method::PATCH, &format!("/api/devices/{device}"), Some(json!({ "person": "Bert" }))).await;
    assert_eq!(given.status, 200, "{}", given.text());
    let left = status_as(&server, &tablet, &id).await;
    assert_eq!((&left["device"], names(&left["watching"])), (&Value::Null, vec!["Annas Tafel"]), "{left:#}");
    assert_eq!(server.call_as(&phone, Method::GET, &format!("/api/stream/status/{id}"), None).await.status, 404);
    assert_eq!(string(&status_as(&server, server.token(), &id).await["device"], "name"), "Annas Telefon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_convert_is_in_trouble() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("ffmpeg");
    let server = TestServer::with(&["--ffmpeg", nowhere.to_str().expect("text")], &[]).await;
    let seen = overview(&server).await;
    assert_eq!((string(&seen, "state"), string(&seen["trouble"], "code")), ("trouble", "no_ffmpeg"), "{seen:#}");
    assert!(string(&seen["trouble"], "message").contains("--ffmpeg") && string(&seen["trouble"], "messageKey") == "no_ffmpeg");
    std::fs::write(&nowhere, "").expect("written");
    assert_eq!(string(&overview(&server).await, "state"), "idle", "it is found when it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_the_one_that_phones_meet() {
    let server = TestServer::open().await;
    let told = server.call(Method::GET, "/api/certificate", None).await.json();
    let health = server.get("/api/health").await.json();
    assert_eq!((string(&told, "kind"), &told["fingerprint"]), ("own", &health["fingerprint"]));
    assert!(string(&told, "authority").contains("Balcony"), "{told:#}");
    assert_eq!(string(&told, "fingerprintForPeople").split(' ').map(str::len).collect::<Vec<_>>(), [4; 8]);
    let names: Vec<&str> = told["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"localhost") && names.contains(&"127.0.0.1"), "{names:?}");
    let day = |key: &str| string(&told, key).parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{key}: {error}"));
    let now = jiff::Timestamp::now();
    assert!(day("notBefore") < now && now < day("notAfter"), "{told:#}");
    let days = day("notAfter").duration_since(day("notBefore")).as_hours() / 24;
    assert_eq!(days, 90);
}
