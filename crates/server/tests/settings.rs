//! The settings over the real program: what they show, what a change does, and what is refused.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use reqwest::Method;
use serde_json::{Value, json};
use server::{Answer, TestServer};

const FILE: &str = "# Written by Anna.\nname = \"Den\" # not the cellar\n\n# as long as a weekend\nexpire-after = \"2d\"\n";

async fn server(flags: &[&str], environment: &[(&str, &str)], file: &str) -> TestServer {
    let mut server = TestServer::with(flags, environment).await;
    server.end();
    std::fs::create_dir_all(server.config_dir()).expect("a folder");
    std::fs::write(server.config_dir().join("config.toml"), file).expect("written");
    server.restart().await;
    server
}

fn text(server: &TestServer) -> String {
    std::fs::read_to_string(server.config_dir().join("config.toml")).expect("the file")
}

async fn settings(server: &TestServer) -> Value {
    let answer = server.call(Method::GET, "/api/settings", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn change(server: &TestServer, asked: Value) -> Answer {
    server.call(Method::PATCH, "/api/settings", Some(asked)).await
}

async fn name(server: &TestServer) -> String {
    server.get("/api/health").await.json()["name"].as_str().expect("a name").to_owned()
}

fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")), "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["code"], code);
    problem["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_can_draw_itself_from_the_settings() {
    let server = server(&[], &[("BALCONY_QUEUE_LENGTH", "7")], FILE).await;
    let all = settings(&server).await;
    let file = server.config_dir().join("config.toml");
    assert_eq!((all["configFile"].as_str(), &all["restartNeeded"], &all["mistakes"]), (file.to_str(), &json!([]), &json!([])));
    let expected = json!({
        "value": "Den", "default": all["settings"]["name"]["default"], "source": "file", "changeable": true,
        "kind": "text", "effect": "now", "group": "server", "about": "The name of this server, as people see it",
    });
    assert_eq!(all["settings"]["name"], expected);
    let queue = &all["settings"]["queueLength"];
    assert_eq!((&queue["value"], &queue["source"], &queue["changeable"]), (&json!(7), &json!("environment"), &json!(false)));
    let expire = &all["settings"]["expireAfter"];
    assert_eq!((&expire["value"], &expire["default"], &expire["kind"]), (&json!(172_800), &json!(86_400), &json!("time")));
    assert_eq!(all["settings"]["httpPort"]["source"], "flag");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_is_felt_at_once_and_stays() {
    let mut server = server(&[], &[], FILE).await;
    assert_eq!(name(&server).await, "Den");
    let answer = change(&server, json!({ "name": "Studio", "expireAfter": "12h", "maxProductions": 5 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let changed = answer.json();
    assert_eq!(changed["settings"]["name"]["value"], "Studio");
    assert_eq!((&changed["settings"]["maxProductions"]["value"], &changed["restartNeeded"]), (&json!(5), &json!(["maxProductions"])));
    assert_eq!(name(&server).await, "Studio");
    let expected =
        "# Written by Anna.\nname = \"Studio\" # not the cellar\n\n# as long as a weekend\nexpire-after = \"12h\"\nmax-productions = 5\n";
    assert_eq!(text(&server), expected);

    server.restart().await;
    assert_eq!(name(&server).await, "Studio");
    let all = settings(&server).await;
    assert_eq!((&all["restartNeeded"], &all["settings"]["expireAfter"]["value"]), (&json!([]), &json!(43_200)));
    let answer = change(&server, json!({ "name": null })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(name(&server).await, answer.json()["settings"]["name"]["default"].as_str().expect("a name"));
    assert!(!text(&server).contains("name =") && text(&server).starts_with("# Written by Anna.\n"), "{}", text(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_all_at_once() {
    let server = server(&[], &[], FILE).await;
    let asked = json!({ "colour": "red", "expireAfter": "soon", "queueLength": -1, "name": "a\u{202e}b" });
    let detail = refused(&change(&server, asked).await, 422, "invalid");
    assert!(detail.contains("\"ab\"") && !detail.contains('\u{202e}'), "what is quoted turns nothing around: {detail}");
    for part in ["\"colour\"", "expireAfter wants a time", "queueLength wants a number", "name wants a name"] {
        assert!(detail.contains(part), "{detail}");
    }
    let many: serde_json::Map<String, Value> = (0..500).map(|n| (format!("{n}{}", "x".repeat(100)), json!(1))).collect();
    let detail = refused(&change(&server, Value::Object(many)).await, 422, "invalid");
    assert!(detail.ends_with("And 480 more.") && detail.len() < 3_000, "{detail}");
    refused(&change(&server, json!(["name"])).await, 422, "invalid");
    refused(&change(&server, json!({ "httpPort": 1, "name": "x" })).await, 409, "conflict");
    assert_eq!((text(&server).as_str(), name(&server).await.as_str()), (FILE, "Den"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_left_alone_and_said() {
    let server = server(&[], &[], FILE).await;
    let broken = "name = \"Den\"\nexpire-after 2d\n";
    std::fs::write(server.config_dir().join("config.toml"), broken).expect("written");
    let detail = refused(&change(&server, json!({ "name": "x" })).await, 409, "conflict");
    assert!(detail.contains("line 2"), "{detail}");
    assert_eq!((text(&server).as_str(), name(&server).await.as_str()), (broken, "Den"));
    let all = settings(&server).await;
    assert_eq!(all["settings"]["name"]["value"], "Den");
    assert!(all["mistakes"][0].as_str().is_some_and(|sentence| sentence.contains("line 2")), "{}", all["mistakes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_all_arrive() {
    let server = server(&[], &[], FILE).await;
    let changes = [
        json!({ "name": "Studio" }),
        json!({ "expireAfter": 3600 }),
        json!({ "queueLength": 3 }),
        json!({ "maxProductions": 4 }),
        json!({ "peers": ["192.168.1.5:6881"] }),
        json!({ "cacheMaxBytes": "5GiB" }),
    ];
    for answer in futures_util::future::join_all(changes.iter().map(|asked| change(&server, asked.clone()))).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let all = settings(&server).await;
    for (key, value) in [
        ("name", json!("Studio")),
        ("expireAfter", json!(3600)),
        ("queueLength", json!(3)),
        ("maxProductions", json!(4)),
        ("cacheMaxBytes", json!(5_368_709_120_u64)),
    ] {
        assert_eq!(all["settings"][key]["value"], value, "{key}");
    }
    assert_eq!(all["settings"]["peers"]["value"], json!(["192.168.1.5:6881"]));
    assert!(text(&server).starts_with("# Written by Anna.\nname = \"Studio\" # not the cellar\n"), "{}", text(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_token_sees_them() {
    let server = TestServer::open().await;
    for method in [Method::GET, Method::PATCH] {
        let answer =
            server.client().request(method, server.here("/api/settings")).json(&json!({ "name": "x" })).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 401);
    }
    assert!(!server.config_dir().join("config.toml").exists());
}

const NOBODY_HAS_IT: &str = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567";

#[tokio::test(flavor = "multi_thread")]
async fn the_next_stream_lives_as_long_as_was_said() {
    let server = server(&[], &[], FILE).await;
    let life = |stream: &Value| {
        let time = |key: &str| stream[key].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
        (time("expiresAt") - time("createdAt")).total(jiff::Unit::Hour).expect("hours").round() as i64
    };
    let first = server.start(NOBODY_HAS_IT, json!({})).await;
    assert_eq!(life(&first), 48);
    assert_eq!(change(&server, json!({ "expireAfter": "3h" })).await.status, 200);
    let second = server.start(NOBODY_HAS_IT, json!({ "quality": "480p" })).await;
    assert_eq!(life(&second), 3);
    assert_eq!(life(&server.status(first["streamId"].as_str().expect("an id")).await), 48, "what has begun keeps its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_cache_is_felt_by_the_next_film() {
    let server = server(&[], &[], FILE).await;
    let sample = server.call(Method::GET, "/api/sample", None).await.json();
    let link = sample["magnetLink"].as_str().expect("a magnet");
    let changed = change(&server, json!({ "cacheMaxBytes": "1MB" })).await.json();
    assert_eq!((&changed["settings"]["cacheMaxBytes"]["value"], &changed["restartNeeded"]), (&json!(1_000_000), &json!([])));
    // The cache is shared out anew every two seconds.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let started = server.start(link, json!({})).await;
    let id = started["streamId"].as_str().expect("an id");
    let over = server.until(id, 60, "refused", |status| status["status"] == "error" || status["status"] == "ready").await;
    assert_eq!(over["error"]["code"], "no_space", "{over:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_comes_only_when_that_is_said_twice() {
    let mut server = TestServer::open().await;
    let certificate = server.data_dir().join("ca.pem");
    let old = std::fs::read(&certificate).expect("an authority");
    let data_dir = server.data_dir();
    let reset = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_balcony-server"));
        let done = command.args(["reset-ca", "--data-dir"]).arg(&data_dir).args(words).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = reset(&["--yes"]);
    assert!(code == Some(1) && said.contains(&format!("pid {}", server.pid())), "{code:?} {said}");
    server.end();
    let (code, said) = reset(&[]);
    assert!(code == Some(1) && said.contains("reset-ca --yes"), "{code:?} {said}");
    assert_eq!(std::fs::read(&certificate).expect("kept"), old);
    let (code, said) = reset(&["--yes"]);
    assert!(code == Some(0) && said.contains("trust anew"), "{code:?} {said}");
    assert!(!certificate.exists());
    server.restart().await;
    assert_ne!(std::fs::read(&certificate).expect("a new one"), old);
    assert_eq!(server.call(Method::GET, "/api/streams", None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_neither_sees_nor_changes_them() {
    let server = server(&[], &[], FILE).await;
    let offer = server.call(Method::POST, "/api/pairings", Some(json!({}))).await;
    assert_eq!(offer.status, 201, "{}", offer.text());
    let body = json!({ "code": offer.json()["code"], "deviceName": "Phone", "platform": "test" });
    let paired = server.call(Method::POST, "/api/pair", Some(body)).await;
    assert_eq!(paired.status, 201, "{}", paired.text());
    let token = paired.json()["token"].as_str().expect("a token").to_owned();
    for method in [Method::GET, Method::PATCH] {
        let request = server.client().request(method, server.here("/api/settings")).bearer_auth(&token);
        refused(&server::answer(request.json(&json!({ "name": "x" }))).await, 403, "forbidden");
    }
    assert_eq!((text(&server).as_str(), name(&server).await.as_str()), (FILE, "Den"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_with_the_owners_rights_changes_nothing_that_reaches_into_the_machine() {
    let server = server(&[], &[], FILE).await;
    let offer = server.call(Method::POST, "/api/pairings", Some(json!({ "admin": true }))).await.json();
    let body = json!({ "code": offer["code"], "deviceName": "Phone", "platform": "test" });
    let paired = server.call(Method::POST, "/api/pair", Some(body)).await;
    assert_eq!(paired.status, 201, "{}", paired.text());
    let token = paired.json()["token"].as_str().expect("a token").to_owned();
    let by_phone = async |method, body: Value| {
        let request = server.client().request(method, server.here("/api/settings")).bearer_auth(&token);
        server::answer(request.json(&body)).await
    };
    let (phones, owners) = (by_phone(Method::GET, json!({})).await.json(), settings(&server).await);
    for key in ["ffmpeg", "ffprobe", "tlsCert", "tlsKey", "hostNames", "corsOrigins", "peers", "caUnconstrained", "log"] {
        assert_eq!(
            (&phones["settings"][key]["changeable"], &owners["settings"][key]["changeable"]),
            (&json!(false), &json!(true)),
            "{key}"
        );
        let value = if key.ends_with('s') { json!([]) } else { Value::Null };
        let detail = refused(&by_phone(Method::PATCH, json!({ "name": "Hers", key: value })).await, 403, "forbidden");
        assert!(detail.contains(key), "{detail}");
    }
    assert_eq!((text(&server).as_str(), name(&server).await.as_str()), (FILE, "Den"));
    assert_eq!(phones["settings"]["name"]["changeable"], true);
    let changed = by_phone(Method::PATCH, json!({ "name": "Hers", "queueLength": 3 })).await;
    assert_eq!((changed.status, name(&server).await.as_str()), (200, "Hers"), "{}", changed.text());
    assert_eq!(change(&server, json!({ "log": "debug", "peers": ["192.168.1.5:6881"] })).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_not_written_down() {
    let server = server(&[], &[], FILE).await;
    let ca = server.data_dir().join("ca.pem");
    let detail = refused(&change(&server, json!({ "tlsCert": ca, "tlsKey": ca })).await, 422, "invalid");
    assert!(detail.ends_with("there is no private key in PEM form (PKCS#8, SEC1 or PKCS#1) in the key's file."), "{detail}");
    assert_eq!(text(&server), FILE);
}
