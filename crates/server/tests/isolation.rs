//! Only for whom it is: what one person streams does not exist for another, devices of one person share it, and a device that is revoked
//! is out at once.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/hls.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod hls;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use balcony_server::store::Store;
use balcony_server::trust::devices::{Devices, NewDevice};
use balcony_server::trust::token::Token;
use data_encoding::BASE64URL_NOPAD;
use films::{AAC, both, by_ffmpeg, usual};
use reqwest::Method;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use server::{Answer, TestServer};
use swarm::{Swarm, SwarmOptions};
use tokio::net::{TcpListener, TcpStream};

/// An id that is well formed and that nothing has.
const NOBODYS: &str = "nobodyhasthisid0";
/// How soon a revoked device is out.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A device of somebody's.
struct Phone {
    token: String,
    id: String,
    person: String,
}

impl Phone {
    async fn ask(&self, server: &TestServer, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = server.client().request(method, server.here(path)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        server::answer(request).await
    }

    async fn get(&self, server: &TestServer, path: &str) -> Value {
        let answer = self.ask(server, Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Starts a stream and answers its id.
    async fn start(&self, server: &TestServer, link: &str) -> String {
        let answer = self.ask(server, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": link }))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        string(&answer.json(), "streamId").to_owned()
    }

    /// Asks until it stands as it should.
    async fn until(&self, server: &TestServer, id: &str, phase: &[&str]) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.get(server, &format!("/api/stream/status/{id}")).await;
            if phase.contains(&string(&status, "phase")) {
                return status;
            }
            assert!(begun.elapsed().as_secs() < 90, "not {phase:?}: {status:#}\n{}", server.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn play(&self, server: &TestServer, link: &str) -> Value {
        let id = self.start(server, link).await;
        self.until(server, &id, &["playable", "complete"]).await
    }

    async fn streams(&self, server: &TestServer) -> Vec<String> {
        let list = self.get(server, "/api/streams").await;
        let ids: Vec<_> = list["streams"].as_array().expect("streams").iter().map(|view| string(view, "streamId").to_owned()).collect();
        assert_eq!(list["count"], ids.len());
        ids
    }

    /// What it hears on `path` from now on: the answer has begun.
    async fn listen(&self, server: &TestServer, path: &str) -> tokio::task::JoinHandle<Vec<(String, Value)>> {
        let answer = server.client().get(server.here(path)).bearer_auth(&self.token).send().await;
        tokio::spawn(server::heard(answer.expect("an answer")))
    }
}

/// A server with these devices: name and person of each.
async fn house(flags: &[&str], devices: &[(&str, &str)]) -> (TestServer, Vec<Phone>) {
    let mut server = TestServer::with(flags, &[]).await;
    server.end();
    let store = Store::open(&server.data_dir().join("balcony.sqlite")).expect("its database");
    let known = Devices::open(Arc::new(store), &Token::random()).await.expect("its devices");
    let mut phones = Vec::new();
    for (name, person) in devices {
        let (name, person) = ((*name).to_owned(), Some((*person).to_owned()));
        let device = NewDevice { name, platform: "test".into(), person, admin: false, from: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let (view, token) = known.pair(device).await.expect("paired");
        phones.push(Phone { token: token.reveal().to_owned(), id: view.id.to_string(), person: view.person_id.to_string() });
    }
    drop(known);
    server.restart().await;
    (server, phones)
}

fn owner(server: &TestServer) -> Phone {
    Phone { token: server.token().to_owned(), id: "owner".into(), person: "owner".into() }
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// What of an answer does not change from one to the next.
fn told(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body.as_object_mut().expect("an object").remove("traceId");
    (answer.status, body)
}

fn path_of(url: &str) -> &str {
    let at = url.find("/m/").unwrap_or_else(|| panic!("no media: {url}"));
    &url[at..]
}

fn ticket_of(url: &str) -> &str {
    path_of(url).split('/').nth(2).expect("a ticket")
}

/// The first segment of everything that a master playlist names.
async fn plays(server: &TestServer, url: &str) -> usize {
    let hls = hls::open(server, url).await;
    for rendition in &hls.renditions {
        assert!(!rendition.segment(server, 0).await.is_empty());
    }
    hls.renditions.len()
}

/// A film that has to be converted, and of which there is more than anybody buffers.
fn to_convert() -> PathBuf {
    by_ffmpeg(
        "mpeg4.mp4",
        &format!("{} -c:v mpeg4 -b:v 3M -minrate 3M -maxrate 3M -bufsize 3M -g 48 {AAC} -movflags +faststart", both(90.0)),
    )
}

fn encoders(server: &TestServer) -> usize {
    server.children().iter().filter(|(_, line)| line.contains("libx264")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_person_streams_exists_for_their_devices_and_the_owner_and_for_nobody_else() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let (mut server, phones) = house(&[], &[("Phone", "Anna"), ("Tablet", "Anna"), ("Phone", "Bert")]).await;
    let [anna, tablet, bert] = &phones[..] else { panic!("three") };
    let heard = bert.listen(&server, "/api/events").await;
    let status = anna.play(&server, &swarm.link()).await;
    let id = string(&status, "streamId").to_owned();

    // Every route of a stream, for somebody else: what it says of an id that nothing has.
    let document = server.get("/api/openapi.json").await.json();
    let mut routes = 0;
    for (pattern, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys().filter(|_| pattern.contains("{streamId}")) {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let body = (method != Method::GET && method != Method::DELETE).then(|| json!({ "seconds": 3.5 }));
            let there = bert.ask(&server, method.clone(), &pattern.replace("{streamId}", &id), body.clone()).await;
            let nowhere = bert.ask(&server, method.clone(), &pattern.replace("{streamId}", NOBODYS), body).await;
            assert_eq!((told(&there), there.status), (told(&nowhere), 404), "{method} {pattern}");
            routes += 1;
        }
    }
    assert!(routes >= 4, "{routes}");
    assert_eq!(bert.streams(&server).await, [""; 0]);

    // Both devices of hers see it, each by an address of its own, and so does the owner.
    let mut addresses = Vec::new();
    for device in [anna, tablet, &owner(&server)] {
        assert_eq!(device.streams(&server).await, std::slice::from_ref(&id));
        let view = device.get(&server, &format!("/api/stream/status/{id}")).await;
        assert_eq!(string(&view, "status"), "ready");
        assert_eq!(plays(&server, string(&view, "streamUrl")).await, 2);
        assert_eq!(server.get(string(&view, "directUrl")).await.body, std::fs::read(usual(12.0)).expect("the film"));
        addresses.push(path_of(string(&view, "streamUrl")).to_owned());
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "{addresses:?}");

    // No part of one ticket fits another.
    let own = bert.play(&server, &swarm.link()).await;
    assert_ne!(string(&own, "streamId"), id);
    let whole = |view: &Value| BASE64URL_NOPAD.decode(ticket_of(string(view, "streamUrl")).as_bytes()).expect("a ticket");
    let (hers, his) = (whole(&status), whole(&own));
    let ids = 16 + 2 + 1;
    let (device, stream) = (ids..ids + bert.id.len(), ids + bert.id.len()..his.len());
    assert_eq!((&his[device.clone()], &his[stream.clone()]), (bert.id.as_bytes(), string(&own, "streamId").as_bytes()));
    let forged = [
        [&his[..stream.start], &hers[stream.clone()]].concat(),
        [&hers[..device.start], &his[device.clone()], &hers[stream.clone()]].concat(),
        [&his[..16], &hers[16..]].concat(),
        [&his[..device.start], &hers[device], &his[stream]].concat(),
        [&hers[..16], &[0, 9], &hers[18..]].concat(),
    ];
    let nowhere = told(&server.get("/m/nonsense/master.m3u8").await);
    assert_eq!(nowhere.0, 404);
    for (n, ticket) in forged.iter().enumerate() {
        for of in ["master.m3u8", "v0/0.m4s", "events", "play.m3u", "file/film.mp4"] {
            // Guesses are served at 20 a second.
            tokio::time::sleep(Duration::from_millis(60)).await;
            let answer = server.get(&format!("/m/{}/{of}", BASE64URL_NOPAD.encode(ticket))).await;
            assert_eq!(told(&answer), nowhere, "forgery {n}, {of}");
        }
    }

    // What he may stop and move is his own.
    assert_eq!(bert.ask(&server, Method::DELETE, &format!("/api/stream/{id}"), None).await.status, 404);
    assert_eq!(anna.get(&server, &format!("/api/stream/status/{id}")).await["position"], 0.0);
    assert_eq!(anna.streams(&server).await, std::slice::from_ref(&id));

    server.restart().await;
    let heard = heard.await.expect("heard to the end");
    assert!(heard.iter().all(|(_, data)| !data.to_string().contains(&id)), "{heard:?}");
    assert!(heard.iter().any(|(event, data)| event == "stream" && data["streamId"] == own["streamId"]));
    for (device, address) in [anna, tablet, &owner(&server)].into_iter().zip(&addresses) {
        let view = device.until(&server, &id, &["playable", "complete"]).await;
        assert_eq!(path_of(string(&view, "streamUrl")), address);
        plays(&server, address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_given_away_leaves_everything_behind() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let (server, phones) = house(&[], &[("Phone", "Anna"), ("Tablet", "Anna"), ("Phone", "Bert")]).await;
    let [anna, tablet, bert] = &phones[..] else { panic!("three") };
    let hers = tablet.play(&server, &swarm.link()).await;
    let his = bert.play(&server, &swarm.link()).await;
    let (id, url) = (string(&hers, "streamId"), string(&hers, "streamUrl"));
    let all = tablet.listen(&server, "/api/events").await;
    let one = tablet.listen(&server, &format!("/api/stream/{id}/events")).await;
    plays(&server, url).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let given = json!({ "person": "bert" });
    assert_eq!(tablet.ask(&server, Method::PATCH, &format!("/api/devices/{}", tablet.id), Some(given.clone())).await.status, 403);
    let answer = server.call(Method::PATCH, &format!("/api/devices/{}", tablet.id), Some(given)).await;
    assert_eq!((answer.status, string(&answer.json(), "personId").to_owned()), (200, bert.person.clone()), "{}", answer.text());

    assert_eq!(tablet.ask(&server, Method::GET, &format!("/api/stream/status/{id}"), None).await.status, 404);
    assert_eq!(told(&server.get(url).await), told(&server.get("/m/nonsense/master.m3u8").await));
    assert_eq!(tablet.streams(&server).await, [string(&his, "streamId")]);
    let seen = tablet.get(&server, &format!("/api/stream/status/{}", string(&his, "streamId"))).await;
    plays(&server, string(&seen, "streamUrl")).await;
    // With her it stays, and goes on.
    let stays = anna.get(&server, &format!("/api/stream/status/{id}")).await;
    assert_eq!(string(&stays, "status"), "ready");
    plays(&server, string(&stays, "streamUrl")).await;
    // The same start is another stream now: it is his.
    let again = tablet.ask(&server, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": swarm.link() }))).await;
    assert_eq!(again.status, 201, "{}", again.text());
    assert!(![id, string(&his, "streamId")].contains(&string(&again.json(), "streamId")));

    let one = tokio::time::timeout(AT_ONCE, one).await.expect("its events end").expect("heard");
    assert_eq!(one.last(), Some(&("gone".to_owned(), json!({ "streamId": id }))));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!all.is_finished(), "the device is in, as somebody else's");
    drop(server);
    let all = all.await.expect("heard");
    let gone = all.iter().position(|(event, data)| event == "gone" && data["streamId"] == id).expect("it is told");
    assert!(all[gone + 1..].iter().all(|(_, data)| data["streamId"] != id), "{all:?}");
    assert!(all[gone + 1..].iter().any(|(event, data)| event == "stream" && data["streamId"] == his["streamId"]), "{all:?}");
    assert!(all.iter().all(|(event, _)| event != "device"), "devices are the owner's business");
}

/// Hands a seeder's bytes on and counts them.
async fn counted(seeder: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let (front, bytes) = (listener.local_addr().expect("its address"), Arc::new(AtomicU64::new(0)));
    let sum = bytes.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(seeder) = TcpStream::connect(seeder).await else { continue };
            let sum = sum.clone();
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (from_seeder, mut to_seeder)) = (client.into_split(), seeder.into_split());
                let up = tokio::io::copy(&mut from_client, &mut to_seeder);
                let down = async {
                    let mut buffer = vec![0; 16 << 10];
                    loop {
                        from_seeder.readable().await?;
                        let len = match from_seeder.try_read(&mut buffer) {
                            Ok(0) => return std::io::Result::Ok(()),
                            Ok(len) => len,
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                            Err(error) => return Err(error),
                        };
                        sum.fetch_add(len as u64, Ordering::Relaxed);
                        tokio::io::AsyncWriteExt::write_all(&mut to_client, &buffer[..len]).await?;
                    }
                };
                tokio::select! { _ = up => {} _ = down => {} }
            });
        }
    });
    (front, bytes)
}

/// What everybody may see move, and what is another one in each run.
const MOVING: [&str; 15] = [
    "streamId",
    "id",
    "personId",
    "createdAt",
    "expiresAt",
    "lastSeenAt",
    "downloadSpeed",
    "uploadSpeed",
    "peers",
    "traceId",
    "eta",
    "message",
    "watching",
    "messageParams",
    "timestamp",
];

/// An answer without what moves; of media addresses, what stands behind the ticket.
fn still(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| !MOVING.contains(&key.as_str())).map(|(key, value)| (key.clone(), still(value))).collect()
        }
        Value::Array(values) => values.iter().map(still).collect(),
        Value::String(text) if text.contains("/m/") => json!(path_of(text).splitn(4, '/').nth(3)),
        other => other.clone(),
    }
}

/// Everything that a person can learn of a film and of the house: as it is, and without what moves.
async fn everything(server: &TestServer, phone: &Phone, id: &str, link: &str) -> (Vec<String>, Vec<Value>) {
    let (mut raw, mut answers) = (Vec::new(), Vec::new());
    let status = format!("/api/stream/status/{id}");
    let inspect = Some(json!({ "magnetLink": link }));
    let calls = [
        (Method::GET, status.as_str(), None),
        (Method::GET, "/api/streams", None),
        (Method::GET, "/api/devices", None),
        (Method::GET, "/api/devices/me", None),
        (Method::GET, "/api/people", None),
        (Method::POST, "/api/torrents/inspect", inspect.clone()),
        (Method::POST, "/api/stream/start", inspect),
    ];
    for (method, path, body) in calls {
        let answer = phone.ask(server, method, path, body).await;
        raw.push(answer.text());
        answers.push(json!([answer.status, still(&answer.json())]));
    }
    let view = phone.get(server, &status).await;
    let (url, direct) = (string(&view, "streamUrl"), string(&view, "directUrl"));
    let root = url.rsplit_once('/').expect("a folder").0;
    for part in ["master.m3u8", "v0/index.m3u8", "a1/index.m3u8", "v0/init.mp4", "v0/0.m4s", "a1/0.m4s", "v0/99.m4s"] {
        let answer = server.get(&format!("{root}/{part}")).await;
        raw.push(answer.text());
        let body = if answer.status == 200 { json!(blake3::hash(&answer.body).to_string()) } else { still(&answer.json()) };
        answers.push(json!([answer.status, answer.header("etag"), answer.header("cache-control"), body]));
    }
    let file = server.get(direct).await;
    answers.push(json!([file.status, file.header("etag"), blake3::hash(&file.body).to_string()]));
    (raw, answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_share_a_torrent_and_nothing_tells_them() {
    let film = usual(20.0);
    let swarm = Swarm::seed(&film, SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }).await;
    let (front, bytes) = counted(swarm.magnet().peers[0]).await;
    let link = format!("magnet:?xt=urn:btih:{}&x.pe={front}", swarm.info_hash());

    let (server, phones) = house(&[], &[("Annas own phone", "Anna"), ("Phone", "Bert")]).await;
    let [anna, bert] = &phones[..] else { panic!("two") };
    let hers = anna.play(&server, &link).await;
    let hers_id = string(&hers, "streamId");
    plays(&server, string(&hers, "streamUrl")).await;
    let heard = bert.listen(&server, "/api/events").await;
    let his = bert.start(&server, &link).await;
    bert.until(&server, &his, &["complete"]).await;
    anna.until(&server, hers_id, &["complete"]).await;
    let together = everything(&server, bert, &his, &link).await;
    let size = std::fs::metadata(&film).expect("the film").len();
    let fetched = bytes.load(Ordering::Relaxed);
    assert!((size..size * 5 / 4 + (64 << 10)).contains(&fetched), "{fetched} bytes of {size} came from the seeder");

    // She stops: he goes on, and is told nothing.
    assert_eq!(anna.ask(&server, Method::DELETE, &format!("/api/stream/{hers_id}"), None).await.status, 200);
    let after = everything(&server, bert, &his, &link).await;
    assert_eq!(after.1, together.1);
    drop(server);
    let heard = heard.await.expect("heard");
    assert!(heard.iter().any(|(event, _)| event == "stream"));

    let (control, alone) = house(&[], &[("Phone", "Bert")]).await;
    let own = alone[0].start(&control, &link).await;
    alone[0].until(&control, &own, &["complete"]).await;
    let expected = everything(&control, &alone[0], &own, &link).await;
    for (with_her, without) in together.1.iter().zip(&expected.1) {
        assert_eq!(with_her, without);
    }

    let hers = [hers_id, &anna.id, &anna.person, &anna.token, ticket_of(string(&hers, "streamUrl")), "Anna"];
    let events = heard.iter().map(|(event, data)| format!("{event} {data}"));
    for text in together.0.iter().chain(&after.0).cloned().chain(events) {
        assert!(hers.iter().all(|word| !text.contains(word)), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_share_a_conversion_and_one_may_leave() {
    let swarm = Swarm::seed(to_convert(), SwarmOptions::default()).await;
    let (server, phones) = house(&[], &[("Phone", "Anna"), ("Phone", "Bert")]).await;
    let [anna, bert] = &phones[..] else { panic!("two") };
    let link = swarm.link();
    let (hers, his) = tokio::join!(anna.play(&server, &link), bert.play(&server, &link));
    assert_eq!((string(&hers, "mode"), string(&his, "mode")), ("convert", "convert"));
    let picture = |view: &Value| format!("{}/v0", string(view, "streamUrl").rsplit_once('/').expect("a folder").0);
    let (of_hers, of_his) = (picture(&hers), picture(&his));
    let mut most = 0;
    for n in 0..8 {
        let (url_a, url_b) = (format!("{of_hers}/{n}.m4s"), format!("{of_his}/{n}.m4s"));
        let (a, b) = tokio::join!(server.fetch(&url_a), server.fetch(&url_b));
        assert_eq!(a, b);
        most = most.max(encoders(&server));
    }
    assert_eq!(most, 1, "one production for both");
    anna.ask(&server, Method::DELETE, &format!("/api/stream/{}", string(&hers, "streamId")), None).await;
    assert_eq!(server.get(&format!("{of_hers}/8.m4s")).await.status, 404);
    for n in 8..14 {
        assert!(!server.fetch(&format!("{of_his}/{n}.m4s")).await.is_empty());
    }
    assert_eq!(encoders(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_within_two_seconds() {
    let converted = Swarm::seed(to_convert(), SwarmOptions::default()).await;
    let copied = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let (server, phones) = house(&[], &[("Phone", "Anna"), ("Tablet", "Anna"), ("Phone", "Bert")]).await;
    let [anna, tablet, bert] = &phones[..] else { panic!("three") };
    let his = bert.play(&server, &copied.link()).await;
    let his_events = bert.listen(&server, "/api/events").await;
    let hers = anna.play(&server, &converted.link()).await;
    let id = string(&hers, "streamId");
    let segment = |n: u32| format!("{}/v0/{n}.m4s", string(&hers, "streamUrl").rsplit_once('/').expect("a folder").0);
    server.fetch(&segment(0)).await;
    let all = anna.listen(&server, "/api/events").await;
    let one = anna.listen(&server, &format!("/api/stream/{id}/events")).await;
    let by_ticket = anna.listen(&server, path_of(string(&hers, "eventsUrl"))).await;
    // Of the file more is under way than any buffer holds.
    let size = std::fs::metadata(to_convert()).expect("the film").len();
    let mut file = server.client().get(server.here(string(&hers, "directUrl"))).send().await.expect("an answer");
    let mut got = file.chunk().await.expect("its beginning").expect("bytes").len() as u64;
    assert_eq!((encoders(&server), all.is_finished()), (1, false));

    let asked = Instant::now();
    assert_eq!(server.call(Method::DELETE, &format!("/api/devices/{}", anna.id), None).await.status, 204);
    assert_eq!(anna.ask(&server, Method::GET, "/api/streams", None).await.status, 401);
    assert_eq!(server.get(&segment(1)).await.status, 404);
    assert_eq!(server.get(&format!("/t/{}/api/streams", anna.token)).await.status, 401);
    let broke = loop {
        match file.chunk().await {
            Ok(Some(bytes)) => got += bytes.len() as u64,
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broke && got < size, "{got} of {size}");
    for events in [all, one, by_ticket] {
        tokio::time::timeout(AT_ONCE, events).await.expect("its events end").expect("heard");
    }
    while encoders(&server) > 0 {
        assert!(asked.elapsed() < AT_ONCE, "the production goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());

    // Nobody watched it with her.
    assert_eq!(string(&tablet.get(&server, &format!("/api/stream/status/{id}")).await, "status"), "stopped");
    assert_eq!(bert.streams(&server).await, [string(&his, "streamId")]);
    plays(&server, string(&his, "streamUrl")).await;
    assert!(!his_events.is_finished());
}

/// How much a client's own system keeps for it, in bytes: asked for, and with what Linux makes of that.
const CLIENTS_BUFFER: usize = 64 << 10;
const CLIENT_HAS: u64 = 4 * CLIENTS_BUFFER as u64;

/// Reads 600 kB each second until that fails; counts the bytes.
fn read_paced(mut from: impl Read, counted: &AtomicU64) -> std::io::Error {
    let mut piece = vec![0; 15_000];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return std::io::ErrorKind::UnexpectedEof.into(),
            Ok(read) => drop(counted.fetch_add(read as u64, Ordering::Relaxed)),
            Err(error) => return error,
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A connection of a client that keeps little.
fn small_connection(server: &TestServer, base: &str) -> std::net::TcpStream {
    let address: SocketAddr = base.split_once("://").expect("an address").1.parse().expect("an address");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(CLIENTS_BUFFER).expect("set");
    socket.connect(&address.into()).unwrap_or_else(|error| panic!("{error}: {}", server.said()));
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

/// A client of TLS that trusts the server's authority.
fn trusting(server: &TestServer, alpn: &str) -> Arc<rustls::ClientConfig> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.ca_pem()).expect("its authority")).expect("a certificate");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_reader_is_thrown_away_when_it_is_revoked() {
    let swarm = Swarm::seed(&to_convert(), SwarmOptions::default()).await;
    let (server, phones) = house(&[], &[("Plain", "Anna"), ("Tls", "Anna"), ("Bert's", "Bert")]).await;
    let loopback = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    for (phone, over_tls) in phones.iter().zip([false, true]) {
        let view = phone.play(&server, &swarm.link()).await;
        let path = path_of(string(&view, "directUrl"));
        let base = if over_tls { server.https() } else { server.base() };
        let host = base.split_once("://").expect("an address").1;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut tcp = small_connection(&server, base);
        let paced = Arc::new(AtomicU64::default());
        let (counting, config, name) = (paced.clone(), trusting(&server, "http/1.1"), loopback.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let error = if over_tls {
                let mut tls = rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).expect("a client"), tcp);
                tls.write_all(head.as_bytes()).expect("sent");
                read_paced(tls, &counting)
            } else {
                tcp.write_all(head.as_bytes()).expect("sent");
                read_paced(tcp, &counting)
            };
            (error, Instant::now())
        });
        let begun = Instant::now();
        while paced.load(Ordering::Relaxed) < 1_000_000 {
            assert!(begun.elapsed().as_secs() < 30 && !reading.is_finished(), "{}", server.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.call(Method::DELETE, &format!("/api/devices/{}", phone.id), None).await.status, 204);
        let (revoked, before) = (Instant::now(), paced.load(Ordering::Relaxed));
        let (error, ended) = reading.await.expect("read");
        let more = paced.load(Ordering::Relaxed) - before;
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "TLS: {over_tls}, {more} bytes more");
        assert!(more <= CLIENT_HAS, "TLS: {over_tls}: {more} bytes more");
        assert!(ended - revoked < AT_ONCE, "TLS: {over_tls}: {:?}", ended - revoked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_reset_too_when_its_device_is_revoked() {
    let swarm = Swarm::seed(&to_convert(), SwarmOptions::default()).await;
    let (server, phones) = house(&[], &[("Phone", "Anna")]).await;
    let view = phones[0].play(&server, &swarm.link()).await;
    let uri = format!("{}{}", server.https(), path_of(string(&view, "directUrl")));
    let tcp = small_connection(&server, server.https());
    tcp.set_nonblocking(true).expect("set");
    let tcp = TcpStream::from_std(tcp).expect("a connection");
    let connector = tokio_rustls::TlsConnector::from(trusting(&server, "h2"));
    let tls = connector.connect(ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), tcp).await.expect("a handshake");
    // As much in flight as browsers allow.
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(6 << 20).initial_connection_window_size(15 << 20);
    let (mut client, connection) = settings.handshake::<_, bytes::Bytes>(tls).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::get(uri).body(()).expect("a request");
    let mut film = client.send_request(request, true).expect("sent").0.await.expect("an answer").into_body();
    let first = film.data().await.expect("a beginning").expect("bytes");
    film.flow_control().release_capacity(first.len()).expect("released");
    assert_eq!(server.call(Method::DELETE, &format!("/api/devices/{}", phones[0].id), None).await.status, 204);
    let ended = tokio::time::timeout(AT_ONCE, connection).await.expect("it ends").expect("ended");
    let error = ended.expect_err("reset");
    assert_eq!(error.get_io().map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionReset), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_watched_is_taken_over() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let (mut server, phones) = house(&[], &[("Phone", "Anna"), ("Tablet", "Anna"), ("Phone", "Bert")]).await;
    let [anna, tablet, _] = &phones[..] else { panic!("three") };
    let hers = anna.play(&server, &swarm.link()).await;
    let id = string(&hers, "streamId").to_owned();
    plays(&server, string(&hers, "streamUrl")).await;
    let seen = tablet.get(&server, &format!("/api/stream/status/{id}")).await;
    let url = path_of(string(&seen, "streamUrl")).to_owned();
    plays(&server, &url).await;
    // A device may forget itself.
    assert_eq!(anna.ask(&server, Method::DELETE, &format!("/api/devices/{}", anna.id), None).await.status, 204);
    assert_eq!(server.get(string(&hers, "streamUrl")).await.status, 404);
    plays(&server, &url).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(string(&tablet.get(&server, &format!("/api/stream/status/{id}")).await, "status"), "ready");
    server.kill_9();
    server.restart().await;
    tablet.until(&server, &id, &["playable", "complete"]).await;
    plays(&server, &url).await;
    // Now it is the tablet's: with it, it goes.
    assert_eq!(server.call(Method::DELETE, &format!("/api/devices/{}", tablet.id), None).await.status, 204);
    let status = owner(&server).until(&server, &id, &["stopped"]).await;
    assert_eq!(string(&status, "status"), "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_see_and_change_what_is_theirs() {
    let (server, phones) = house(&[], &[("Phone", "Anna"), ("Tablet", "Anna"), ("Phone", "Bert")]).await;
    let [anna, tablet, bert] = &phones[..] else { panic!("three") };
    let owner = owner(&server);
    let heard = owner.listen(&server, "/api/events").await;
    let ids =
        |list: &Value| list["devices"].as_array().expect("devices").iter().map(|view| string(view, "id").to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&anna.get(&server, "/api/devices").await), [anna.id.clone(), tablet.id.clone()]);
    assert_eq!(ids(&owner.get(&server, "/api/devices").await).len(), 4);
    let me = anna.get(&server, "/api/devices/me").await;
    assert_eq!((string(&me, "id"), string(&me, "person"), me["current"].as_bool()), (anna.id.as_str(), "Anna", Some(true)));
    assert_eq!((string(&me, "platform"), string(&me, "lastAddress"), me["admin"].as_bool()), ("test", "127.0.0.1", Some(false)));

    let of = |phone: &Phone| format!("/api/devices/{}", phone.id);
    let nowhere = format!("/api/devices/{NOBODYS}");
    let name = json!({ "name": "Kitchen" });
    let table = [
        // Her own, another one of hers, somebody else's, nobody's.
        (anna, Method::PATCH, of(anna), Some(name.clone()), 200),
        (anna, Method::PATCH, of(tablet), Some(name.clone()), 403),
        (anna, Method::DELETE, of(tablet), None, 403),
        (anna, Method::PATCH, of(bert), Some(name.clone()), 404),
        (anna, Method::DELETE, of(bert), None, 404),
        (anna, Method::DELETE, nowhere.clone(), None, 404),
        (anna, Method::PATCH, of(anna), Some(json!({ "person": "Bert" })), 403),
        (anna, Method::GET, "/api/people".into(), None, 403),
        (anna, Method::PATCH, "/api/people/owner".into(), Some(json!({ "name": "Me" })), 403),
        // Things that make no sense.
        (anna, Method::PATCH, of(anna), Some(json!({ "name": " \u{202e} " })), 422),
        (anna, Method::PATCH, of(anna), Some(json!({ "name": "x".repeat(61) })), 422),
        (anna, Method::PATCH, of(anna), Some(json!({ "name": 7 })), 422),
        (anna, Method::PATCH, of(anna), Some(json!({ "nmae": "x" })), 422),
        (&owner, Method::PATCH, of(bert), Some(json!({ "admin": true })), 422),
        (&owner, Method::PATCH, nowhere.clone(), Some(name.clone()), 404),
        (&owner, Method::DELETE, nowhere, None, 404),
        (&owner, Method::DELETE, "/api/devices/owner".into(), None, 409),
        (&owner, Method::PATCH, "/api/devices/owner".into(), Some(json!({ "person": "Bert" })), 409),
        (&owner, Method::PATCH, "/api/devices/owner".into(), Some(json!({ "name": "The computer" })), 200),
        (&owner, Method::PATCH, of(tablet), Some(json!({ "name": "  Anna's\u{7} tablet " })), 200),
        (&owner, Method::PATCH, format!("/api/people/{}", bert.person), Some(json!({ "name": "Albert" })), 200),
        (&owner, Method::PATCH, "/api/people/nobody".into(), Some(json!({ "name": "X" })), 404),
        (&owner, Method::PATCH, "/api/people/owner".into(), Some(json!({ "name": "" })), 422),
        (&owner, Method::DELETE, of(bert), None, 204),
    ];
    for (who, method, path, body, status) in table {
        let answer = who.ask(&server, method.clone(), &path, body.clone()).await;
        assert_eq!(answer.status, status, "{} {method} {path} {body:?}: {}", who.id, answer.text());
    }
    let list = owner.get(&server, "/api/devices").await;
    let names: Vec<_> = list["devices"].as_array().expect("devices").iter().map(|view| string(view, "name")).collect();
    assert_eq!(names, ["The computer", "Kitchen", "Anna's tablet"]);
    let people = owner.get(&server, "/api/people").await;
    let people: Vec<_> =
        people["people"].as_array().expect("people").iter().map(|view| (string(view, "name"), view["devices"].as_u64())).collect();
    assert_eq!(people, [("Owner", Some(1)), ("Anna", Some(2)), ("Albert", Some(0))]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(server);
    let heard: Vec<_> = heard.await.expect("heard").into_iter().filter(|(event, _)| event == "device").map(|(_, data)| data).collect();
    let changes: Vec<_> = heard.iter().map(|data| string(data, "change")).collect();
    assert_eq!(changes, ["changed", "changed", "changed", "revoked"], "{heard:?}");
    assert_eq!((string(&heard[0]["device"], "name"), string(&heard[3], "deviceId")), ("Kitchen", bert.id.as_str()));
}

/// What the version before devices and numbered keys left behind.
fn as_the_first_version_left_it(server: &TestServer) {
    let database = rusqlite::Connection::open(server.data_dir().join("balcony.sqlite")).expect("the database");
    let older = "DROP TABLE subtitles; DROP TABLE history; ALTER TABLE people DROP COLUMN notice_seen_at;
                 DROP INDEX streams_by_device; DROP INDEX streams_by_person; DROP INDEX devices_by_person;
                 ALTER TABLE devices DROP COLUMN admin; ALTER TABLE streams DROP COLUMN view;
                 ALTER TABLE streams DROP COLUMN ticket_key; PRAGMA user_version = 1;";
    database.execute_batch(older).expect("as it was");
    let key = server.data_dir().join("ticket-key");
    let line = std::fs::read_to_string(&key).expect("the key");
    std::fs::write(&key, format!("{}\n", line.split_whitespace().last().expect("a secret"))).expect("as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_version_left_is_taken_over() {
    let swarm = Swarm::seed(&usual(12.0), SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let before = server.play(&swarm.link(), json!({})).await;
    let (id, token) = (string(&before, "streamId").to_owned(), server.token().to_owned());
    server.end();
    as_the_first_version_left_it(&server);
    server.restart().await;
    assert_eq!(server.token(), token);
    let after = server.until_ready(&id).await;
    assert_eq!(after["createdAt"], before["createdAt"]);
    plays(&server, string(&after, "streamUrl")).await;
    let owner = owner(&server);
    let me = owner.get(&server, "/api/devices/me").await;
    assert_eq!((string(&me, "id"), me["admin"].as_bool()), ("owner", Some(true)));
    // From here on, addresses stay.
    server.kill_9();
    server.restart().await;
    let again = server.until_ready(&id).await;
    assert_eq!(path_of(string(&again, "streamUrl")), path_of(string(&after, "streamUrl")));
    plays(&server, string(&after, "streamUrl")).await;
}
