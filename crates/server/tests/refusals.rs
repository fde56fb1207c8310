//! What handlers refuse, over real sockets: bodies, parameters, panics; and how connections end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use balcony_server::http::listener::{self, Connections, Speech};
use balcony_server::http::problem::{self, Json, Path, Query};
use balcony_server::tasks::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(serde::Deserialize)]
struct Wish {
    number: u32,
}

async fn start() -> (SocketAddr, Tasks) {
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "slow but done"
    };
    let router = Router::new()
        .route("/wish", post(|Json(wish): Json<Wish>| async move { Json(json!({ "number": wish.number })) }))
        .route("/item/{number}", get(|Path(number): Path<u32>| async move { number.to_string() }))
        .route("/search", get(|Query(wish): Query<Wish>| async move { wish.number.to_string() }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a secret reason")
                }
            }),
        )
        .route("/slow", get(slow))
        .layer(middleware::from_fn(problem::note_route))
        .layer(middleware::from_fn(problem::layer));
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let (address, tasks) = (tcp.local_addr().expect("address"), Tasks::new());
    listener::serve(tcp, Speech::Plain, router, &Connections::default(), &tasks);
    (address, tasks)
}

/// Sends everything at once and reads until the server closes.
async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let _ = stream.write_all(request).await;
    let mut answer = vec![];
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("answered in time").expect("read to the end");
    String::from_utf8(answer).expect("text")
}

async fn post_wish(address: SocketAddr, kind: &str, body: &[u8]) -> (u16, Value) {
    let length = body.len();
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let head = format!("POST /wish HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n");
    parse(&raw(address, &[head.as_bytes(), body].concat()).await)
}

async fn fetch(address: SocketAddr, path: &str) -> (u16, Value) {
    parse(&raw(address, format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).await)
}

fn parse(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("status");
    assert_eq!(status >= 400, head.contains("content-type: application/problem+json"), "{head}");
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn bodies() {
    let (address, _tasks) = start().await;
    let json = "application/json";
    let spaces = |n: usize| format!("{{\"number\":7}}{}", " ".repeat(n - 12));
    let table = [
        (json, "{\"number\":7}".to_owned(), 200, Value::Null),
        ("Application/JSON; charset=utf-8", "{\"number\":7}".to_owned(), 200, Value::Null),
        ("application/merge-patch+json", "{\"number\":7}".to_owned(), 200, Value::Null),
        (json, spaces(64 << 10), 200, Value::Null),
        (json, spaces((64 << 10) + 1), 413, "too_large".into()),
        (json, spaces(8 << 20), 413, "too_large".into()),
        (json, spaces(9 << 20), 413, "too_large".into()),
        (json, "{\"number\":".to_owned(), 400, "bad_request".into()),
        (json, String::new(), 400, "bad_request".into()),
        (json, "{\"number\":\"x\"}".to_owned(), 422, "invalid".into()),
        (json, "{}".to_owned(), 422, "invalid".into()),
        ("text/plain", "{\"number\":7}".to_owned(), 415, "unsupported_media_type".into()),
        ("", "{\"number\":7}".to_owned(), 415, "unsupported_media_type".into()),
    ];
    for (kind, body, status, code) in table {
        let answer = post_wish(address, kind, body.as_bytes()).await;
        assert_eq!((answer.0, &answer.1["code"]), (status, &code), "{kind} {} bytes: {}", body.len(), answer.1);
    }
}

#[tokio::test]
async fn parameters_methods_and_panics() {
    let (address, _tasks) = start().await;
    for (path, status, code) in [
        ("/item/7", 200, None),
        ("/item/seven", 404, Some("not_found")),
        ("/item/%FF", 404, Some("not_found")),
        ("/search?number=7", 200, None),
        ("/search?number=x", 400, Some("bad_request")),
        ("/search", 400, Some("bad_request")),
        ("/wish", 405, Some("method_not_allowed")),
        ("/none", 404, Some("not_found")),
        ("/panic", 500, Some("internal")),
    ] {
        let (found, document) = fetch(address, path).await;
        assert_eq!((found, document["code"].as_str()), (status, code), "{path}");
        assert!(!document.to_string().contains("secret reason"));
    }
    assert_eq!(fetch(address, "/item/8").await.0, 200, "it lives on after a panic");
}

#[tokio::test]
async fn a_running_request_ends_before_the_server_does() {
    let (address, tasks) = start().await;
    let asked = tokio::spawn(async move { raw(address, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await });
    let idle = TcpStream::connect(address).await.expect("connected");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    assert_eq!(tasks.end(Duration::from_secs(10)).await, 0);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(asked.await.expect("joined").ends_with("slow but done"));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    drop(idle);
}

/// `Transfer-Encoding` and `Content-Length` together, or two lengths, are how requests are smuggled past proxies.
#[tokio::test]
async fn ambiguous_lengths_are_refused() {
    let (address, _tasks) = start().await;
    for lengths in ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: -1", "Content-Length: 1, 2", "Transfer-Encoding: gzip"] {
        let request = format!("POST /wish HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{lengths}\r\n\r\n{{}}");
        let (status, document) = parse(&raw(address, request.as_bytes()).await);
        assert_eq!((status, document["code"].as_str()), (400, Some("bad_request")), "{lengths}");
    }
}
