//! What was watched: by person, across devices and restarts, until it is forgotten; and the notice that each person is shown once.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::time::{Duration, Instant};

use films::usual;
use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// How long a position may wait for the disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(6);

async fn ask(server: &TestServer, token: &str, method: Method, path: &str, body: Option<Value>) -> Value {
    let answer = server.call_as(token, method, path, body).await;
    assert!(matches!(answer.status, 200 | 201), "{path}: {}", answer.text());
    answer.json()
}

async fn films_of(server: &TestServer, token: &str) -> Vec<Value> {
    ask(server, token, Method::GET, "/api/history", None).await["films"].as_array().expect("films").clone()
}

async fn start(server: &TestServer, token: &str, link: &str) -> String {
    let begun = ask(server, token, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": link }))).await;
    begun["streamId"].as_str().expect("an id").to_owned()
}

/// Starts a stream and waits until it is ready.
async fn play(server: &TestServer, token: &str, link: &str) -> Value {
    let id = start(server, token, link).await;
    let begun = Instant::now();
    loop {
        let status = ask(server, token, Method::GET, &format!("/api/stream/status/{id}"), None).await;
        if status["status"] == "ready" {
            return status;
        }
        assert!(begun.elapsed().as_secs() < 60 && status["status"] != "error", "{status:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn watch(server: &TestServer, token: &str, id: &Value, seconds: f64) {
    let path = format!("/api/stream/{}/position", id.as_str().expect("an id"));
    ask(server, token, Method::PUT, &path, Some(json!({ "seconds": seconds }))).await;
}

async fn forget(server: &TestServer, token: &str, path: &str) {
    let answer = server.call_as(token, Method::DELETE, path, None).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_goes_on_where_it_was_on_any_device_and_nobody_else_knows() {
    let mut server = TestServer::open().await;
    let swarm = Swarm::seed(usual(20.0), SwarmOptions::default()).await;
    let (phone, tablet, other) =
        (server.pair("Phone", Some("Anna")).await, server.pair("Tablet", Some("Anna")).await, server.pair("Bert", None).await);

    let first = play(&server, &phone, &swarm.link()).await;
    assert_eq!(first["position"], 0.0);
    let films = films_of(&server, &phone).await;
    let [film] = films.as_slice() else { panic!("one film: {films:?}") };
    let expected = json!({
        "infoHash": first["infoHash"], "fileIndex": 0, "title": first["title"], "magnetLink": film["magnetLink"], "duration": first["duration"],
        "position": 0.0, "updatedAt": film["updatedAt"], "device": { "id": film["device"]["id"], "name": "Phone" },
        "streamId": first["streamId"],
    });
    assert_eq!(*film, expected);
    watch(&server, &phone, &first["streamId"], 12.5).await;
    assert_eq!(films_of(&server, &tablet).await[0]["position"], 12.5);

    // Another device of the same person goes on, and is the one that watched last; the older stream stays where it was.
    let second = play(&server, &tablet, film["magnetLink"].as_str().expect("a link")).await;
    assert_eq!((&second["position"], second["streamId"] == first["streamId"]), (&json!(12.5), false));
    watch(&server, &tablet, &second["streamId"], 15.0).await;
    let film = films_of(&server, &phone).await.remove(0);
    assert_eq!((&film["position"], &film["device"]["name"], &film["streamId"]), (&json!(15.0), &json!("Tablet"), &second["streamId"]));

    // For everybody else, the owner included, it does not exist.
    let third = play(&server, &other, &swarm.link()).await;
    assert_eq!(third["position"], 0.0);
    assert_eq!(films_of(&server, &other).await.len(), 1);
    assert_eq!(films_of(&server, server.token()).await, [] as [Value; 0]);
    // The owner may move a stream of somebody's, and is no device of theirs.
    watch(&server, server.token(), &third["streamId"], 3.0).await;
    let film = films_of(&server, &other).await.remove(0);
    assert_eq!((&film["position"], &film["device"]["name"]), (&json!(3.0), &json!("Bert")));
    assert_eq!(films_of(&server, server.token()).await, [] as [Value; 0]);

    // Forgotten by one person, it is still there for the other; whoever goes on watching is remembered anew.
    forget(&server, &phone, "/api/history").await;
    assert_eq!((films_of(&server, &tablet).await.len(), films_of(&server, &other).await.len()), (0, 1));
    watch(&server, &tablet, &second["streamId"], 16.0).await;
    assert_eq!(films_of(&server, &phone).await[0]["position"], 16.0);

    // It survives the server, its streams and the device; one that is given away leaves it behind.
    for (token, stream) in [(&phone, &first), (&tablet, &second), (&other, &third)] {
        let path = format!("/api/stream/{}", stream["streamId"].as_str().expect("an id"));
        ask(&server, token, Method::DELETE, &path, None).await;
    }
    tokio::time::sleep(WRITTEN_WITHIN).await;
    server.kill_9();
    server.restart().await;
    let film = films_of(&server, &phone).await.remove(0);
    assert_eq!((&film["position"], &film["streamId"], &film["device"]["name"]), (&json!(16.0), &Value::Null, &json!("Tablet")));
    let me = ask(&server, &tablet, Method::GET, "/api/devices/me", None).await;
    let path = format!("/api/devices/{}", me["id"].as_str().expect("an id"));
    ask(&server, server.token(), Method::PATCH, &path, Some(json!({ "person": "Carl" }))).await;
    assert_eq!(films_of(&server, &tablet).await, [] as [Value; 0]);
    let film = films_of(&server, &phone).await.remove(0);
    assert_eq!((&film["position"], &film["device"]), (&json!(16.0), &Value::Null));

    // One film, by either way to write its hash, as often as one likes; what is no film is nothing.
    let hash = film["infoHash"].as_str().expect("a hash");
    forget(&server, &phone, &format!("/api/history/{hash}/1")).await;
    assert_eq!(films_of(&server, &phone).await.len(), 1);
    for _ in 0..2 {
        forget(&server, &phone, &format!("/api/history/{hash}/0")).await;
        assert_eq!((films_of(&server, &phone).await.len(), films_of(&server, &other).await.len()), (0, 1));
    }
    for path in ["/api/history/x/0", &format!("/api/history/{hash}/-1"), &format!("/api/history/{hash}/x")] {
        let answer = server.call_as(&phone, Method::DELETE, path, None).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")), "{path}");
    }
    server.restart().await;
    assert_eq!((films_of(&server, &phone).await.len(), films_of(&server, &other).await.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_the_end_begins_anew_and_a_restart_is_no_watching() {
    let mut server = TestServer::open().await;
    let swarm = Swarm::seed(usual(20.0), SwarmOptions::default()).await;
    let phone = server.pair("Phone", None).await;
    let first = play(&server, &phone, &swarm.link()).await;
    watch(&server, &phone, &first["streamId"], 5000.0).await;
    assert_eq!(films_of(&server, &phone).await[0]["position"], first["duration"]);
    let path = format!("/api/stream/{}", first["streamId"].as_str().expect("an id"));
    ask(&server, &phone, Method::DELETE, &path, None).await;
    assert_eq!(films_of(&server, &phone).await[0]["streamId"], Value::Null);
    let second = play(&server, &phone, &swarm.link()).await;
    assert_eq!((&second["position"], &films_of(&server, &phone).await[0]["position"]), (&json!(0.0), &json!(0.0)));
    forget(&server, &phone, "/api/history").await;
    server.kill_9();
    server.restart().await;
    let path = format!("/api/stream/status/{}", second["streamId"].as_str().expect("an id"));
    let begun = Instant::now();
    while ask(&server, &phone, Method::GET, &path, None).await["status"] != "ready" {
        assert!(begun.elapsed().as_secs() < 60);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(films_of(&server, &phone).await, [] as [Value; 0], "what was forgotten does not come back by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_person_reads_the_notice_once() {
    let mut server = TestServer::open().await;
    let (phone, tablet, other) =
        (server.pair("Phone", Some("Anna")).await, server.pair("Tablet", Some("Anna")).await, server.pair("Bert", None).await);
    let notice = async |token: &str, body: Option<Value>| {
        let method = if body.is_some() { Method::PUT } else { Method::GET };
        let notice = ask(&server, token, method, "/api/notice", body).await;
        assert!(notice["text"].as_str().expect("a text").contains("Share only what you may"), "{notice}");
        notice["seen"].as_bool().expect("whether it was seen")
    };
    assert!(server.said().contains("Share only what you may"), "the first start prints it");
    assert!(!notice(&phone, None).await && !notice(server.token(), None).await);
    assert!(notice(&phone, Some(json!({ "seen": true }))).await);
    assert!(notice(&tablet, None).await && !notice(&other, None).await && !notice(server.token(), None).await);
    assert!(notice(server.token(), Some(json!({ "seen": true }))).await);
    server.restart().await;
    let seen = async |token: &str| ask(&server, token, Method::GET, "/api/notice", None).await["seen"] == true;
    assert!(seen(&phone).await && !seen(&other).await && seen(server.token()).await);
    assert_eq!(server.said().matches("Share only what you may").count(), 1, "it is printed once");
}
