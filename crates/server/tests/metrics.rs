//! What Prometheus is told: the contract's names and labels, in a form that Prometheus's own parser takes, and each of them moves.

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

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Names, kinds and labels of the contract. A histogram's `le` belongs to its kind.
const CONTRACT: [(&str, &str, &[&str]); 9] = [
    ("balcony_streams", "gauge", &["status"]),
    ("balcony_time_to_ready_seconds", "histogram", &[]),
    ("balcony_segment_wait_seconds", "histogram", &[]),
    ("balcony_productions", "gauge", &["mode"]),
    ("balcony_transcode_speed_ratio", "gauge", &[]),
    ("balcony_torrent_bytes_total", "counter", &["direction"]),
    ("balcony_cache_bytes", "gauge", &[]),
    ("balcony_http_requests_total", "counter", &["route", "status"]),
    ("balcony_auth_failures_total", "counter", &[]),
];

/// Prometheus's own client, from Debian's package. Reads the text and writes what it understood.
const PARSER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
print(json.dumps([
    {'name': family.name, 'kind': family.type, 'help': family.documentation,
     'samples': [[sample.name, sample.labels, sample.value] for sample in family.samples]}
    for family in parse(sys.stdin.read())
]))";

async fn scrape(server: &TestServer) -> String {
    let answer = server.call(Method::GET, "/metrics", None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    answer.text()
}

fn parsed(text: &str) -> Vec<Value> {
    let mut python = Command::new("/usr/bin/python3");
    let mut python = python.args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    python.stdin.take().expect("its stdin").write_all(text.as_bytes()).expect("written");
    let output = python.wait_with_output().expect("its answer");
    assert!(output.status.success(), "the parser of python3-prometheus-client refuses it:\n{text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The value of one line of the text.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no {series}:\n{text}"));
    line.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_understands_it_and_everything_moves() {
    let server = TestServer::open().await;
    let before = scrape(&server).await;
    let recipe = format!("{} {} {} {} -movflags +faststart", films::picture("854x480", 20.0), films::sound(20.0), films::X264, films::AAC);
    let film = Swarm::seed(films::by_ffmpeg("counted.mp4", &recipe), SwarmOptions::default()).await;
    let stream = server.play(&film.link(), json!({ "quality": "360p" })).await;
    assert_eq!(stream["mode"], "convert", "{stream:#}");
    let mut played = hls::open(&server, stream["streamUrl"].as_str().expect("an address")).await;
    played.fetch_scattered(&server).await;
    for path in ["/api/streams", "/t/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/api/streams", "/m/nothing/master.m3u8", "/nothing/here"] {
        server.get(path).await;
    }
    let after = scrape(&server).await;
    for (series, least) in [
        ("balcony_streams{status=\"ready\"}", 1.0),
        ("balcony_time_to_ready_seconds_count", 1.0),
        ("balcony_time_to_ready_seconds_sum", 0.01),
        ("balcony_segment_wait_seconds_count", 2.0),
        ("balcony_transcode_speed_ratio", 0.01),
        ("balcony_torrent_bytes_total{direction=\"down\"}", 10_000.0),
        ("balcony_cache_bytes", 10_000.0),
        ("balcony_auth_failures_total", 2.0),
    ] {
        let (was, is) = (value(&before, series), value(&after, series));
        assert!(is >= was + least, "{series} went from {was} to {is}");
    }
    let segments = "balcony_http_requests_total{route=\"/m/{ticket}/{rendition}/{name}\",status=\"200\"}";
    assert!(value(&after, segments) > 2.0 && !before.contains(segments));
    for status in ["downloading", "converting", "error", "stopped"] {
        assert!(value(&after, &format!("balcony_streams{{status=\"{status}\"}}")) < 0.5, "{after}");
    }
    judge(&parsed(&after));

    // Nothing that anybody sent or was given stands in it.
    let ticket = stream["streamUrl"].as_str().expect("an address").split('/').nth(4).expect("a ticket");
    for secret in [ticket, server.token(), stream["streamId"].as_str().expect("an id"), "nothing", "AAAA", "counted.mp4"] {
        assert!(!after.contains(secret), "{secret}:\n{after}");
    }
}

/// Exactly the contract's names, kinds and labels.
fn judge(families: &[Value]) {
    let mut found = BTreeMap::new();
    for family in families {
        let (name, kind) = (family["name"].as_str().expect("a name"), family["kind"].as_str().expect("a kind"));
        // The client names counters without their ending.
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(family["help"].as_str().is_some_and(|help| !help.is_empty()), "{name}");
        for sample in family["samples"].as_array().expect("samples") {
            let mut labels: Vec<_> = sample[1].as_object().expect("labels").keys().cloned().collect();
            labels.retain(|label| !(kind == "histogram" && label == "le"));
            assert!(sample[2].as_f64().is_some_and(|value| value >= 0.0), "{sample}");
            found.entry((name.clone(), kind.to_owned())).or_insert_with(|| labels.clone());
            assert_eq!(found[&(name.clone(), kind.to_owned())], labels, "{sample}");
        }
    }
    let expected = CONTRACT.map(|(name, kind, labels)| {
        ((name.to_owned(), kind.to_owned()), labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>())
    });
    assert_eq!(found, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_owners_alone_and_does_not_grow_with_what_is_asked() {
    let server = TestServer::open().await;
    let phone = server.pair("Phone", None).await;
    assert_eq!(server.call_as(&phone, Method::GET, "/metrics", None).await.status, 403);
    assert_eq!(server.get("/metrics").await.status, 401);
    assert_eq!(server.get(&format!("/t/{}/metrics", server.token())).await.status, 200);
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let ask = async |n: usize| {
        for path in [format!("/api/stream/status/nobody{n}"), format!("/api/nothing/{n}"), format!("/page/{n}?q={n}")] {
            server.call(Method::GET, &path, None).await;
        }
    };
    ask(0).await;
    let first = series(&scrape(&server).await);
    for n in 1..40 {
        ask(n).await;
    }
    assert_eq!(series(&scrape(&server).await), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_leads_from_an_answer_to_the_log() {
    let server = TestServer::with(&["--log", "debug"], &[]).await;
    let good = server.call(Method::GET, "/api/streams", None).await;
    let refused = server.get("/api/streams").await;
    let unknown = server.call(Method::GET, "/api/stream/status/nobody", None).await;
    let mut seen = std::collections::BTreeSet::new();
    for answer in [&good, &refused, &unknown] {
        let id = answer.header("x-trace-id").expect("an id").to_owned();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(server.said().contains(&format!("trace=\"{id}\"")), "{id} is not in the log");
        if answer.status >= 400 {
            assert_eq!(answer.json()["traceId"], id.as_str());
        }
        assert!(seen.insert(id), "two requests have one id");
    }
    // What a stream does later is found by its own name, and by the request that began it.
    let started = server.start(&format!("magnet:?xt=urn:btih:{}", "ab".repeat(20)), json!({})).await;
    let id = started["streamId"].as_str().expect("an id").to_owned();
    server.stop(&id).await;
    assert!(server.said().contains(&format!("stream{{id={id}}}")), "nothing is logged in the stream's span");
}

/// Each panel of the dashboard asks for something that is told.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/grafana.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(path).expect("the dashboard")).expect("JSON");
    let mut asked = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{title} asks for nothing"));
        for target in targets {
            let query = target["expr"].as_str().unwrap_or_else(|| panic!("{title} has no query"));
            let names: Vec<_> =
                query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("balcony_")).collect();
            assert!(!names.is_empty(), "{title}: {query}");
            for name in names {
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
                let known = CONTRACT.iter().find(|(known, ..)| *known == family);
                let (_, kind, labels) = known.unwrap_or_else(|| panic!("{title} asks for {name}"));
                assert_eq!(*kind == "histogram", name != family, "{title}: {query}");
                asked.insert(family.to_owned());
                for word in query.split("by (").skip(1).filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(", ")) {
                    assert!(word == "le" || labels.contains(&word), "{title} sorts by {word}: {query}");
                }
            }
        }
    }
    assert_eq!(asked.len(), CONTRACT.len(), "the dashboard leaves something out: {asked:?}");
}
