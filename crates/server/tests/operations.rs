//! What whoever runs a server for months needs: readiness that means it, a database that survives its own end, a bundle for those who help.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use server::{Answer, TestServer};

/// Asks until the answer has this status: what was found a moment ago counts for two seconds.
async fn readyz(server: &TestServer, status: u16) -> Answer {
    let began = Instant::now();
    loop {
        let answer = server.get("/readyz").await;
        if answer.status == status {
            return answer;
        }
        assert!(began.elapsed().as_secs() < 30, "{} instead of {status}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn says(answer: &Answer, sentence: &str) {
    let problem = answer.json();
    assert_eq!((problem["status"].as_u64(), &problem["code"]), (Some(503), &json!("internal")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(sentence)), "{sentence} is not said: {problem}");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_means_that_everything_works() {
    let server = TestServer::open().await;
    assert_eq!(readyz(&server, 200).await.text(), "ready");

    // Somebody else writes and does not end.
    let other = rusqlite::Connection::open(server.data_dir().join("balcony.sqlite")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    says(&readyz(&server, 503).await, "the database cannot be written");
    assert_eq!(server.get("/healthz").await.status, 200, "it lives all the same");
    other.execute_batch("ROLLBACK").expect("free again");
    drop(other);
    readyz(&server, 200).await;

    // Renamed, so that it can come back.
    let (folder, elsewhere) = (server.data_dir(), server.data_dir().with_extension("away"));
    std::fs::rename(&folder, &elsewhere).expect("away");
    let gone = readyz(&server, 503).await;
    says(&gone, "the data folder cannot be written");
    assert!(!gone.text().contains("balcony-test"), "no path is told: {}", gone.text());
    std::fs::rename(&elsewhere, &folder).expect("back");
    readyz(&server, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ffmpeg_it_lives_and_is_not_ready() {
    let server = TestServer::with(&["--ffmpeg", "/nowhere/ffmpeg"], &[]).await;
    says(&readyz(&server, 503).await, "ffmpeg cannot be run");
    for path in ["/healthz", "/api/health"] {
        assert_eq!(server.get(path).await.status, 200);
    }
}

/// The copy is there when the server says that it listens, or shortly after.
async fn copy_is_there(server: &TestServer) {
    let began = Instant::now();
    while !names(&server.data_dir()).iter().any(|name| name.starts_with("balcony.sqlite.copy-")) {
        assert!(began.elapsed().as_secs() < 20, "no copy: {:?}", names(&server.data_dir()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect()
}

fn break_database(server: &TestServer) {
    let database = server.data_dir().join("balcony.sqlite");
    let mut bytes = std::fs::read(&database).expect("the database");
    bytes.iter_mut().skip(4096).step_by(7).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&database, &bytes).expect("damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_database_loses_nobodys_token_and_is_told() {
    let mut server = TestServer::open().await;
    let phone = server.pair("Phone", Some("Anna")).await;
    let lost = server.pair("Lost", Some("Anna")).await;
    let id = server.call(Method::GET, "/api/health", None).await.json()["serverId"].clone();
    // The copy of the first start has no phone yet; one that is older than a day is followed by another at the next start.
    copy_is_there(&server).await;
    server.end();
    for name in names(&server.data_dir()).iter().filter(|name| name.starts_with("balcony.sqlite.copy-")) {
        let old = format!("balcony.sqlite.copy-{}", jiff::Timestamp::now().as_millisecond() - 25 * 3_600_000);
        std::fs::rename(server.data_dir().join(name), server.data_dir().join(old)).expect("made old");
    }
    server.restart().await;
    let began = Instant::now();
    while names(&server.data_dir()).iter().filter(|name| name.starts_with("balcony.sqlite.copy-")).count() < 2 {
        assert!(began.elapsed().as_secs() < 20, "no second copy");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Revoked after the copy: it does not come back with it.
    let me = server.call_as(&lost, Method::GET, "/api/devices/me", None).await.json();
    let gone = server.call(Method::DELETE, &format!("/api/devices/{}", me["id"].as_str().expect("an id")), None).await;
    assert_eq!(gone.status, 204);
    server.end();
    break_database(&server);
    server.restart().await;

    assert_eq!(server.call_as(&phone, Method::GET, "/api/streams", None).await.status, 200, "the phone is known");
    assert_eq!(server.call_as(&lost, Method::GET, "/api/streams", None).await.status, 401, "the revoked one is not");
    assert_eq!(server.call(Method::GET, "/api/health", None).await.json()["serverId"], id);
    assert!(server.said().contains("the database was damaged"));
    assert!(names(&server.data_dir()).iter().any(|name| name.starts_with("balcony.sqlite.broken-")));
    let found = server.call(Method::GET, "/api/doctor", None).await.json();
    let told = found["findings"].as_array().expect("findings").iter().find(|one| one["messageKey"] == "database_set_aside").cloned();
    assert_eq!(told.expect("told")["level"], "note");
    trouble(&server, "its last copy took its place").await;
    readyz(&server, 200).await;
    // It is told once; the diagnosis goes on telling it.
    server.restart().await;
    assert!(server.call(Method::GET, "/api/overview", None).await.json()["trouble"].is_null());
}

/// The owner's pages and the tray are told of the database.
async fn trouble(server: &TestServer, words: &str) {
    let overview = server.call(Method::GET, "/api/overview", None).await.json();
    assert_eq!((&overview["state"], &overview["trouble"]["code"]), (&"trouble".into(), &"database_set_aside".into()), "{overview:#}");
    assert!(overview["trouble"]["message"].as_str().is_some_and(|message| message.contains(words)), "{overview:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_copy_it_begins_anew_and_says_so() {
    let mut server = TestServer::open().await;
    let phone = server.pair("Phone", None).await;
    server.end();
    for name in names(&server.data_dir()).iter().filter(|name| name.contains(".copy-")) {
        std::fs::remove_file(server.data_dir().join(name)).expect("removed");
    }
    break_database(&server);
    server.restart().await;
    assert_eq!(server.call_as(&phone, Method::GET, "/api/streams", None).await.status, 401);
    assert!(server.said().contains("none was to be had"), "it is said");
    trouble(&server, "it begins anew").await;
    assert_eq!(server.call(Method::GET, "/api/streams", None).await.status, 200);
}

/// Names and texts of an archive, unpacked by the system's own program.
fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bundle.tar.gz");
    std::fs::write(&file, archive).expect("written");
    let tar = Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(folder.path()).status().expect("tar");
    assert!(tar.success());
    let inside = folder.path().join("balcony-bundle");
    let mut found = BTreeMap::new();
    for folder in [inside.clone(), inside.join("logs")] {
        for name in names(&folder) {
            let path = folder.join(&name);
            if path.is_file() {
                found.insert(name, std::fs::read_to_string(path).expect("text"));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_helps_and_tells_nothing_secret() {
    let server =
        TestServer::with(&["--log", "trace", "--name", "Annas Laptop", "--peer", "203.0.113.8:6881", "--queue-length", "7"], &[]).await;
    let phone = server.pair("Bens Telefon", Some("Ben Unverwechselbar")).await;
    assert_eq!(server.call_as(&phone, Method::GET, "/api/doctor/bundle", None).await.status, 403);
    let hash = "c0ffee".repeat(7)[..40].to_owned();
    let link = format!("magnet:?xt=urn:btih:{hash}&dn=Very.Geheim.Film&x.pe=203.0.113.9:6881&tr=udp://tracker.example:1/passkey");
    let started = server.call_as(&phone, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": link }))).await;
    assert_eq!(started.status, 201, "{}", started.text());
    for path in ["/api/streams", "/m/wrong/master.m3u8"] {
        server.get(&format!("/t/{phone}{path}")).await;
    }
    let answer = server.call(Method::GET, "/api/doctor/bundle", None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/gzip")), "{}", answer.text());
    assert!(answer.header("content-disposition").is_some_and(|name| name.starts_with("attachment; filename=\"balcony-bundle-")));
    let by_api = unpack(&answer.body);

    // The command beside the server gives the same.
    let file = server.data_dir().join("for-them.tar.gz");
    let folder = server.data_dir().parent().expect("a folder").to_owned();
    let by_command = doctor(&folder, &file);
    for bundle in [&by_api, &by_command] {
        let names: Vec<_> = bundle.keys().map(String::as_str).collect();
        assert_eq!(names, ["balcony.log", "database.txt", "doctor.json", "metrics.txt", "report.txt", "settings.txt"]);
        let holds = |name: &str, part: &str| assert!(bundle[name].contains(part), "{part} is not in {name}:\n{}", bundle[name]);
        holds("report.txt", "streams: 1 downloading");
        holds("settings.txt", "queueLength = 7 (flag)");
        holds("settings.txt", "name = (not told)");
        holds("metrics.txt", "balcony_streams{status=\"downloading\"} 1");
        holds("database.txt", "table devices: 2 rows");
        holds("balcony.log", "a device was paired");
        holds("doctor.json", "\"findings\"");
        let ticket = started.json()["eventsUrl"].as_str().expect("an address").split('/').nth(4).expect("a ticket").to_owned();
        let secrets = [
            phone.as_str(),
            server.token(),
            &ticket,
            &hash,
            "c0ffee",
            "Geheim",
            "203.0.113",
            "tracker.example",
            "passkey",
            "Anna",
            "Bens",
            "Unverwechselbar",
            "urn:btih",
        ];
        for (name, text) in bundle {
            for secret in secrets {
                assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "{secret} is in {name}");
            }
        }
    }
}

/// Runs `doctor --bundle` on these folders and unpacks what it writes.
fn doctor(folder: &Path, file: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_balcony-server"));
    command.arg("doctor").arg("--bundle").arg(file).args([
        "--bind",
        "127.0.0.1",
        "--http-port",
        "0",
        "--https-port",
        "0",
        "--reserve-bytes",
        "0",
    ]);
    for name in ["config", "data", "cache"] {
        command.arg(format!("--{name}-dir")).arg(folder.join(name));
    }
    let output = command.stdin(Stdio::null()).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("nothing secret"), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::metadata(file).expect("written").permissions().mode() & 0o777, 0o600);
    unpack(&std::fs::read(file).expect("read"))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_the_command_packs_what_there_is() {
    let mut server = TestServer::open().await;
    let folder = server.data_dir().parent().expect("a folder").to_owned();
    server.end();
    let bundle = doctor(&folder, &folder.join("alone.tar.gz"));
    for (name, part) in [
        ("report.txt", "No server runs"),
        ("balcony.log", "stopped"),
        ("database.txt", "file balcony.sqlite:"),
        ("settings.txt", "reserveBytes = 0 (flag)"),
    ] {
        assert!(bundle[name].contains(part), "{part} is not in {name}:\n{}", bundle[name]);
    }
    // A place where nothing can be written is said.
    let mut command = Command::new(env!("CARGO_BIN_EXE_balcony-server"));
    command.args(["doctor", "--bundle", "/nowhere/file"]).args(["--http-port", "0", "--https-port", "0", "--bind", "127.0.0.1"]);
    for name in ["config", "data", "cache"] {
        command.arg(format!("--{name}-dir")).arg(folder.join(name));
    }
    let output = command.stdin(Stdio::null()).output().expect("the program");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/file could not be written"));
}
