//! Every route of the API document against everybody who must not get through: the expected status, and a valid problem document.
//!
//! Which routes there are is read from the document that the server hands out. A route that is in no table here fails the test, so that
//! a new one cannot be forgotten.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use serde_json::{Value, json};
use server::TestServer;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Everybody, and pages of every origin.
    Everybody,
    /// Everybody without a token, but no foreign pages.
    Strangers,
    /// Every device: what it asks about is its own, or nobody's.
    Devices,
    /// Every device: what the address names does not exist for it.
    Owners,
    /// The owner of the machine.
    Admin,
}

/// What is right for each route. The address is the document's own.
const ROUTES: &[(&str, &str, For)] = &[
    ("GET", "/api/health", For::Everybody),
    ("GET", "/healthz", For::Everybody),
    ("GET", "/readyz", For::Everybody),
    ("POST", "/api/pair", For::Strangers),
    ("POST", "/api/stream/start", For::Devices),
    ("GET", "/api/streams", For::Devices),
    ("GET", "/api/events", For::Devices),
    ("GET", "/api/sample", For::Devices),
    ("POST", "/api/torrents/inspect", For::Devices),
    ("POST", "/api/torrents/magnet", For::Devices),
    ("GET", "/api/overview", For::Admin),
    ("PUT", "/api/pause", For::Admin),
    ("GET", "/api/certificate", For::Admin),
    ("GET", "/api/stream/status/{streamId}", For::Owners),
    ("DELETE", "/api/stream/{streamId}", For::Owners),
    ("GET", "/api/stream/{streamId}/events", For::Owners),
    ("PUT", "/api/stream/{streamId}/position", For::Owners),
    ("POST", "/api/stream/{streamId}/download", For::Owners),
    ("DELETE", "/api/stream/{streamId}/download", For::Owners),
    ("GET", "/api/stream/{streamId}/subtitles", For::Owners),
    ("GET", "/api/stream/{streamId}/subtitles/{track}", For::Owners),
    ("POST", "/api/stream/{streamId}/subtitles", For::Owners),
    ("GET", "/api/devices", For::Devices),
    ("GET", "/api/devices/me", For::Devices),
    ("PATCH", "/api/devices/{deviceId}", For::Owners),
    ("DELETE", "/api/devices/{deviceId}", For::Owners),
    ("GET", "/api/history", For::Devices),
    ("DELETE", "/api/history", For::Devices),
    // What nobody has watched is forgotten already: there is no other answer.
    ("DELETE", "/api/history/{infoHash}/{fileIndex}", For::Devices),
    ("GET", "/api/notice", For::Devices),
    ("PUT", "/api/notice", For::Devices),
    ("GET", "/api/people", For::Admin),
    ("PATCH", "/api/people/{personId}", For::Admin),
    ("POST", "/api/pairings", For::Admin),
    ("GET", "/api/pairings/{offerId}", For::Admin),
    ("DELETE", "/api/pairings/{offerId}", For::Admin),
    ("GET", "/api/doctor", For::Admin),
    ("GET", "/api/doctor/report", For::Admin),
    ("GET", "/api/doctor/bundle", For::Admin),
    ("GET", "/metrics", For::Admin),
    ("GET", "/api/settings", For::Admin),
    ("PATCH", "/api/settings", For::Admin),
];

/// Ways to come that must not get through, or no further than they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    NoToken,
    WrongToken,
    RevokedToken,
    OtherDevice,
    CookieOnly,
    ForeignOrigin,
    ForeignHost,
    WrongContentType,
    TooLarge,
    BrokenJson,
    WrongShape,
}

const WAYS: [Way; 11] = [
    Way::NoToken,
    Way::WrongToken,
    Way::RevokedToken,
    Way::OtherDevice,
    Way::CookieOnly,
    Way::ForeignOrigin,
    Way::ForeignHost,
    Way::WrongContentType,
    Way::TooLarge,
    Way::BrokenJson,
    Way::WrongShape,
];

/// One operation of the document, with an address that can be asked.
struct Route {
    method: Method,
    pattern: String,
    path: String,
    allowed: For,
    has_body: bool,
    /// What the body has to be, where that is not JSON.
    raw: Option<String>,
}

/// What has to come: a status and the code of its problem. `None`: the way says nothing about this route.
fn expected(route: &Route, way: Way) -> Option<(u16, &'static str)> {
    let open = matches!(route.allowed, For::Everybody | For::Strangers);
    match way {
        Way::NoToken | Way::WrongToken | Way::RevokedToken | Way::CookieOnly => (!open).then_some((401, "unauthenticated")),
        Way::OtherDevice => match route.allowed {
            For::Admin => Some((403, "forbidden")),
            For::Owners => Some((404, "not_found")),
            For::Everybody | For::Strangers | For::Devices => None,
        },
        Way::ForeignOrigin => (route.allowed != For::Everybody).then_some((403, "forbidden")),
        Way::ForeignHost => Some((421, "wrong_host")),
        // Files of subtitles come as everything: what counts is what is in them.
        Way::WrongContentType if route.pattern.ends_with("/subtitles") => None,
        Way::WrongContentType => route.has_body.then_some((415, "unsupported_media_type")),
        Way::TooLarge => route.has_body.then_some((413, "too_large")),
        Way::BrokenJson => (route.has_body && route.raw.is_none()).then_some((400, "bad_request")),
        // What is in a file is looked at only where it belongs to a stream: else it would tell which streams there are.
        Way::WrongShape if route.pattern.ends_with("/subtitles") => None,
        Way::WrongShape => route.has_body.then_some((422, "invalid")),
    }
}

struct Guests {
    admin: String,
    other: String,
    revoked: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_everybody_it_should() {
    let server = TestServer::open().await;
    let guests = guests(&server).await;
    let document = server.get("/api/openapi.json").await.json();
    let routes = routes(&document);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for route in &routes {
        for way in WAYS {
            let Some((status, code)) = expected(route, way) else { continue };
            checked += 1;
            if let Err(error) = check(&server, &guests, &document, route, way, status, code).await {
                wrong.push(format!("{} {} by {way:?}: {error}", route.method, route.pattern));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {checked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 5 * routes.len(), "{checked} checks of {} routes", routes.len());
}

/// The routes of the document; every one has to be in the table, and the other way round.
fn routes(document: &Value) -> Vec<Route> {
    let mut found = Vec::new();
    for (pattern, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_uppercase();
            let known = ROUTES.iter().find(|(m, p, _)| *m == method && p == pattern);
            let (_, _, allowed) = *known.unwrap_or_else(|| panic!("{method} {pattern} is new: say in this file's table who may use it"));
            // An id that is well formed and that nobody has.
            let path = pattern.split('/').map(|part| if part.starts_with('{') { "nobodyhasthisid0" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            let method = method.parse().expect("a method");
            let kinds = operation["requestBody"]["content"].as_object();
            let raw = kinds.and_then(|kinds| kinds.keys().find(|kind| *kind != "application/json")).cloned();
            found.push(Route { method, pattern: pattern.clone(), path, allowed, has_body: kinds.is_some(), raw });
        }
    }
    assert_eq!(found.len(), ROUTES.len(), "the table has routes that the document has not");
    found
}

async fn guests(server: &TestServer) -> Guests {
    let other = pair(server, "Other").await;
    let revoked = pair(server, "Revoked").await;
    let me = ask(server, &revoked, Method::GET, "/api/devices/me").await;
    let id = me["id"].as_str().unwrap_or_else(|| panic!("{me}")).to_owned();
    let gone = server.call(Method::DELETE, &format!("/api/devices/{id}"), None).await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    Guests { admin: server.token().to_owned(), other, revoked }
}

/// A device of a person of its own.
async fn pair(server: &TestServer, name: &str) -> String {
    let offer = server.call(Method::POST, "/api/pairings", Some(json!({}))).await;
    assert_eq!(offer.status, 201, "{}", offer.text());
    let body = json!({ "code": offer.json()["code"], "deviceName": name, "platform": "test" });
    let paired = server.client().post(server.here("/api/pair")).json(&body).send().await.expect("an answer");
    assert_eq!(paired.status(), 201);
    let answer: Value = serde_json::from_slice(&paired.bytes().await.expect("a body")).expect("JSON");
    answer["token"].as_str().expect("a token").to_owned()
}

async fn ask(server: &TestServer, token: &str, method: Method, path: &str) -> Value {
    let answer = server.client().request(method, server.here(path)).bearer_auth(token).send().await.expect("an answer");
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

async fn check(
    server: &TestServer,
    guests: &Guests,
    document: &Value,
    route: &Route,
    way: Way,
    status: u16,
    code: &str,
) -> Result<(), String> {
    let answer = send(server, guests, route, way).await;
    if answer.status == 429 {
        // The limit of strangers: their turn comes again.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let again = send(server, guests, route, way).await;
        return judge(&again, document, route, status, code);
    }
    judge(&answer, document, route, status, code)
}

async fn send(server: &TestServer, guests: &Guests, route: &Route, way: Way) -> server::Answer {
    let request = server.client().request(route.method.clone(), server.here(&route.path)).timeout(Duration::from_secs(20));
    // Whoever is not in question comes as the owner, so that nothing else is refused.
    let request = match way {
        Way::NoToken => request,
        Way::WrongToken => request.bearer_auth("A".repeat(43)),
        Way::RevokedToken => request.bearer_auth(&guests.revoked),
        Way::OtherDevice => request.bearer_auth(&guests.other),
        Way::CookieOnly => request.header(COOKIE, format!("token={0}; Authorization=Bearer {0}", guests.admin)),
        Way::ForeignOrigin => request.bearer_auth(&guests.admin).header(ORIGIN, "https://evil.example"),
        Way::ForeignHost => request.bearer_auth(&guests.admin).header(HOST, "evil.example"),
        Way::WrongContentType | Way::TooLarge | Way::BrokenJson | Way::WrongShape => request.bearer_auth(&guests.admin),
    };
    let request = match way {
        _ if !route.has_body => request,
        Way::TooLarge if route.raw.is_some() => {
            request.header(CONTENT_TYPE, route.raw.clone().unwrap_or_default()).body(vec![b'd'; (8 << 20) + (128 << 10)])
        }
        Way::WrongShape if route.raw.is_some() => request.header(CONTENT_TYPE, route.raw.clone().unwrap_or_default()).body("d4:infodee"),
        Way::WrongContentType => request.header(CONTENT_TYPE, "text/plain").body("{}"),
        Way::TooLarge => request.header(CONTENT_TYPE, "application/json").body(format!("{{\"x\":\"{}\"}}", "x".repeat(70_000))),
        Way::BrokenJson => request.header(CONTENT_TYPE, "application/json").body("{\"magnetLink\":"),
        Way::WrongShape => request.json(&json!([1])),
        _ if route.pattern.ends_with("/subtitles") => request.body("1\n00:00:01,000 --> 00:00:02,000\nHi\n"),
        // Of the right shape, so that nothing but the stream is in question.
        _ if route.pattern.ends_with("/position") => request.json(&json!({ "seconds": 1 })),
        _ => request.json(&json!({})),
    };
    server::answer(request).await
}

/// The status, a whole problem document, and a status that the API document announces.
fn judge(answer: &server::Answer, document: &Value, route: &Route, status: u16, code: &str) -> Result<(), String> {
    let text = answer.text();
    if answer.status != status {
        return Err(format!("{} instead of {status}: {text}", answer.status));
    }
    if answer.header("content-type") != Some("application/problem+json") {
        return Err(format!("it is {:?}", answer.header("content-type")));
    }
    let problem = answer.json();
    let string = |key: &str| problem[key].as_str().filter(|text| !text.is_empty()).ok_or(format!("no {key}: {text}"));
    for key in ["type", "title", "detail", "code", "error", "message", "traceId"] {
        string(key)?;
    }
    if string("code")? != code || string("type")? != format!("/problems/{code}") || problem["status"] != status {
        return Err(format!("the wrong problem: {text}"));
    }
    if string("error")? != string("title")? || string("message")? != string("detail")? {
        return Err(format!("title and detail are not repeated: {text}"));
    }
    let operation = &document["paths"][&route.pattern][route.method.as_str().to_lowercase()];
    if operation["responses"].get(status.to_string()).is_none() {
        return Err(format!("{status} is not in the API document"));
    }
    Ok(())
}

#[test]
fn the_table_names_no_route_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for (method, path, _) in ROUTES {
        assert!(seen.insert((method, path)), "{method} {path}");
    }
}
