//! Whether all is well: as a command beside a server and alone, and by the API.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;

const EXE: &str = env!("CARGO_BIN_EXE_balcony-server");
const CHECKS: [&str; 12] =
    ["server", "ffmpeg", "ffprobe", "encoders", "cage", "ports", "disk", "database", "certificate", "discovery", "torrents", "clock"];

/// What the command said.
struct Said {
    code: Option<i32>,
    text: String,
    took: Duration,
}

impl Said {
    fn has(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for part in parts {
            assert!(self.text.lines().any(|line| line.contains(part)), "not said: {part}\n{}", self.text);
        }
    }
}

/// Runs the command on these folders, with more flags.
fn doctor(folder: &Path, flags: &[&str]) -> Said {
    doctor_by(Command::new(EXE), folder, flags)
}

fn doctor_by(mut command: Command, folder: &Path, flags: &[&str]) -> Said {
    let began = Instant::now();
    command.arg("doctor").args(["--bind", "127.0.0.1", "--http-port", "0", "--https-port", "0", "--reserve-bytes", "0"]);
    for name in ["config", "data", "cache"] {
        command.arg(format!("--{name}-dir")).arg(folder.join(name));
    }
    let output = command.args(flags).stdin(Stdio::null()).output().expect("the program");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).expect("text");
    Said { code: output.status.code(), text, took: began.elapsed() }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("doctor-test-").tempdir().expect("a folder")
}

fn folder_of(server: &TestServer) -> PathBuf {
    server.data_dir().parent().expect("a folder").to_owned()
}

/// A program that does what the script says.
fn stub(folder: &Path, name: &str, script: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
    file.to_str().expect("text").to_owned()
}

#[test]
fn alone_it_tells_what_is_and_leaves_nothing_behind() {
    let folder = folder();
    let said = doctor(folder.path(), &[]);
    let well =
        ["No server runs", "ffmpeg ", "ffprobe ", "Films can be converted", "no database yet", "no certificate yet", "The clock says"];
    said.has(0, &[&well[..], &["Nothing is broken."]].concat());
    let levels = ["good    ", "note    ", "broken  "];
    for line in said.text.lines().rev().skip(1) {
        assert!(levels.iter().any(|level| line.starts_with(level)) && line.ends_with('.') && !line.contains(". "), "{line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
}

#[test]
fn whatever_ffmpeg_does_it_is_told_in_time() {
    let folder = folder();
    let made = |name: &str, script: &str| stub(folder.path(), name, script);
    let missing = folder.path().join("nothing").to_str().expect("text").to_owned();
    let old = "case \"$*\" in *version*) echo 'ffmpeg version 4.4.2 Copyright';; esac";
    let silent = "case \"$*\" in *version*) echo 'ffmpeg version 7.1 Copyright';; esac; exit 0";
    // Knows its lists, but has no x264 that works.
    let broken = "case \"$*\" in *libx264*) echo 'Cannot load libx264.so' >&2; exit 1;; *) exec ffmpeg \"$@\";; esac";
    let cases = [
        (missing.clone(), "ffmpeg was not found", 4),
        (made("hangs", "exec sleep 120"), "does not answer within 5 s", 9),
        (made("dies", "echo 'dyld: no such library' >&2; exit 3"), "cannot be run: dyld: no such library", 4),
        (made("old", old), "ffmpeg 4.4.2 is too old", 4),
        (made("empty", silent), "was built without matroska, mov, libx264, aac", 4),
        (made("broken", broken), "Films cannot be converted, a trial failed: Cannot load libx264.so", 6),
    ];
    for (program, sentence, seconds) in cases {
        let said = doctor(folder.path(), &["--ffmpeg", &program]);
        said.has(1, &[sentence, "broken."]);
        assert!(said.took.as_secs() < seconds * 3, "{program}: {:?}", said.took);
    }
    doctor(folder.path(), &["--ffprobe", &missing]).has(1, &["ffprobe was not found", "--ffprobe"]);
    let left = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let left: Vec<_> = left.filter(|line| String::from_utf8_lossy(line).contains("sleep\x00120")).collect();
    assert!(left.is_empty(), "a program outlives the examination");
}

#[test]
fn the_ffmpeg_that_starts_quickest_is_used_unless_one_is_named() {
    let folder = folder();
    // The shell counts for a while before it tells its version: long beside a real start, short beside the time that the search may take.
    let slowly = "i=0; case \"$*\" in -version) while [ $i -lt 150000 ]; do i=$((i+1)); done;; esac; exec /usr/bin/ffmpeg \"$@\"";
    let slow = stub(folder.path(), "ffmpeg", slowly);
    let found = |flags: &[&str]| {
        let mut command = Command::new(EXE);
        command.env_remove("FFMPEG_BIN").env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
        doctor_by(command, &folder.path().join("house"), flags)
    };
    let real = Path::new("/usr/bin/ffmpeg").canonicalize().expect("an ffmpeg").display().to_string();
    found(&[]).has(0, &[&format!(" is here: {real}."), &format!("{real} was chosen rather than {slow}")]);
    found(&["--ffmpeg", &slow]).has(0, &[&format!(" is here: {slow}."), "ffmpeg starts in "]);
}

#[test]
fn an_encoder_that_is_asked_for_is_tried() {
    let folder = folder();
    let card = stub(folder.path(), "card", "case \"$*\" in *h264_nvenc*) echo 'no card here' >&2; exit 1;; esac; exec ffmpeg \"$@\"");
    for (encoder, sentence) in [
        ("nvenc", "The encoder nvenc was asked for and does not work here (nvenc: no card here)"),
        ("off", "Converting pictures is switched off (--encoder off)"),
        ("x264", "Films can be converted, by the processor."),
    ] {
        doctor(folder.path(), &["--ffmpeg", &card, "--encoder", encoder]).has(0, &[sentence]);
    }
}

#[test]
fn ports_and_folders_that_are_in_the_way_are_named() {
    let folder = folder();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let own = format!("(process {})", std::process::id());
    doctor(folder.path(), &["--https-port", &port]).has(1, &[&format!("Port {port} is taken by"), &own, "--https-port"]);
    doctor(folder.path(), &["--bind", "192.0.2.1"]).has(1, &["does not have the address 192.0.2.1", "One thing is broken."]);
    std::fs::write(folder.path().join("file"), "").expect("written");
    let file = folder.path().join("file").to_str().expect("text").to_owned();
    doctor(folder.path(), &["--cache-dir", &file]).has(1, &["The cache folder", "it is no folder", "--cache-dir"]);
    doctor(folder.path(), &["--reserve-bytes", "900TB"]).has(1, &["no film can be loaded", "900 TB"]);
    doctor(folder.path(), &["--tls-cert", &file, "--tls-key", &file]).has(1, &["The certificate cannot be used"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_server_it_hears_what_that_knows_and_disturbs_nothing() {
    let mut server = TestServer::open().await;
    let folder = folder_of(&server);
    let runs = format!("The server runs (process {})", server.pid());
    let said = doctor(&folder, &[]);
    said.has(
        0,
        &[
            &runs,
            "The server listens on port",
            "The certificate is valid for",
            "The database is sound",
            "DHT and trackers are switched off",
        ],
    );
    // What was asked for differs from what the server was started with: both are told.
    doctor(&folder, &["--ffprobe", "/nowhere/ffprobe"])
        .has(1, &["ffprobe was not found (/nowhere/ffprobe)", "The certificate is valid for"]);
    assert_eq!(server.call(Method::GET, "/api/streams", None).await.status, 200);

    // One that stands still is no server, and one that is gone neither.
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a number"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let silent = format!("The server (process {pid}) does not answer");
    doctor(&folder, &[]).has(1, &[&silent]);
    kill(pid, Signal::SIGCONT).expect("going on");
    server.kill_9();
    assert!(server.data_dir().join("run.json").exists());
    doctor(&folder, &[]).has(0, &["No server runs", "The certificate authority is here", "The database is sound"]);

    // What is broken is seen and not touched.
    server.restart().await;
    server.end();
    let database = server.data_dir().join("balcony.sqlite");
    let mut bytes = std::fs::read(&database).expect("the database");
    bytes.iter_mut().skip(4096).step_by(7).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&database, &bytes).expect("damaged");
    doctor(&folder, &[]).has(1, &["is damaged", "One thing is broken."]);
    assert!(std::fs::read(&database).expect("the database") == bytes);
    assert!(!server.data_dir().join("balcony.sqlite-wal").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_tools_says_so_to_whoever_asks() {
    let server = TestServer::with(&["--ffmpeg", "/nowhere/ffmpeg"], &[]).await;
    let found = server.call(Method::GET, "/api/doctor", None).await.json();
    assert_eq!(found["ok"], false);
    let missing = found["findings"].as_array().expect("findings").iter().find(|one| one["check"] == "ffmpeg").expect("ffmpeg").clone();
    let params = json!({ "program": "ffmpeg", "path": "/nowhere/ffmpeg" });
    assert_eq!(
        (&missing["level"], &missing["messageKey"], &missing["messageParams"]),
        (&json!("broken"), &json!("program_missing"), &params)
    );
    // The command has the right ffmpeg, the server has not.
    doctor(&folder_of(&server), &[]).has(1, &["ffmpeg was not found (/nowhere/ffmpeg)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_asks_by_the_api_and_nobody_waits_for_it() {
    let server = TestServer::open().await;
    let phone = server.pair("Annas Telefon", Some("Anna")).await;
    assert_eq!(server.call_as(&phone, Method::GET, "/api/doctor", None).await.status, 403);
    let began = Instant::now();
    let ask = || async {
        let answer = server.call(Method::GET, "/api/doctor", None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let quick = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = Instant::now();
        assert_eq!(server.call_as(&phone, Method::GET, "/api/streams", None).await.status, 200);
        asked.elapsed()
    };
    let (first, second, quick) = tokio::join!(ask(), ask(), quick);
    assert!(began.elapsed().as_secs() < 25 && quick.as_secs() < 2, "{:?}, {quick:?}", began.elapsed());
    // The clock tells that it is one examination.
    assert_eq!(first, second);
    assert_eq!((&first["ok"], &first["version"]), (&json!(true), &json!(env!("CARGO_PKG_VERSION"))), "{first:#}");
    let findings = first["findings"].as_array().expect("findings");
    let mut checks: Vec<_> = findings.iter().map(|finding| finding["check"].as_str().expect("a check")).collect();
    checks.dedup();
    assert_eq!(checks, CHECKS);
    for finding in findings {
        let text = |key: &str| finding[key].as_str().unwrap_or_else(|| panic!("{finding}")).to_owned();
        assert!(matches!(text("level").as_str(), "good" | "note") && text("message").ends_with('.') && !text("messageKey").is_empty());
        assert!(finding["messageParams"].is_object());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_tells_strangers_nothing() {
    let server = TestServer::with(&["--queue-length", "7"], &[]).await;
    let phone = server.pair("Annas Telefon", Some("Anna")).await;
    let hash = "c0ffee".repeat(7)[..40].to_owned();
    let link = format!("magnet:?xt=urn:btih:{hash}&dn=Very.Secret.Film&x.pe=203.0.113.9:6881&tr=udp://tracker.example:1/passkey");
    let started = server.call_as(&phone, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": link }))).await;
    assert_eq!(started.status, 201, "{}", started.text());
    let answer = server.call(Method::GET, "/api/doctor/report", None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")), "{}", answer.text());
    let text = answer.text();
    for part in
        ["Balcony: ", "system: linux", "streams: 1 downloading", "devices: 2", "queueLength", "good   server", "The database is sound."]
    {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "{part} is missing:\n{text}");
    }
    let id = started.json()["streamId"].as_str().expect("an id").to_owned();
    let secrets = [phone.as_str(), server.token(), &hash, "magnet:", "Secret", "203.0.113", "tracker.example", "passkey", "Anna", &id];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret}:\n{text}");
    }
    let ticket = started.json()["eventsUrl"].as_str().expect("an address").split('/').nth(4).expect("a ticket").to_owned();
    assert!(!text.contains(&ticket));
    let _: Value = server.call(Method::GET, "/api/doctor", None).await.json();
}
