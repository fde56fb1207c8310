//! The machine stays awake while somebody watches: the real program, systemd's own, and a stand-in for logind on a bus of the test's own.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use server::TestServer;

/// How long each thing may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A film of the mock that is ready at once.
const READY: &str = "magnet:?xt=urn:btih:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A bus with somebody on it who answers as logind does.
struct Logind {
    bus: Child,
    service: Child,
    /// Open for as long as it shall answer.
    _told: ChildStdin,
    says: mpsc::Receiver<Value>,
    address: String,
}

impl Logind {
    fn open() -> Self {
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon");
        let mut address = String::new();
        BufReader::new(bus.stdout.take().expect("its stdout")).read_line(&mut address).expect("its address");
        let address = address.trim().to_owned();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/desktop/services.py");
        let mut service = Command::new("/usr/bin/python3")
            .arg(script)
            .arg("login")
            .env("DBUS_SESSION_BUS_ADDRESS", &address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let told = service.stdin.take().expect("its stdin");
        let (tell, says) = mpsc::channel();
        let lines = BufReader::new(service.stdout.take().expect("its stdout")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                tell.send(serde_json::from_str(&line).expect("JSON")).ok();
            }
        });
        let logind = Self { bus, service, _told: told, says, address };
        assert_eq!(logind.hears()["ready"], "org.freedesktop.login1");
        logind
    }

    fn hears(&self) -> Value {
        self.says.recv_timeout(PATIENCE).expect("nobody asks logind for anything")
    }

    fn hears_nothing(&self, seconds: u64) {
        assert_eq!(self.says.recv_timeout(Duration::from_secs(seconds)).ok(), None);
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        for child in [&mut self.service, &mut self.bus] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

async fn server_on(bus: &str) -> TestServer {
    TestServer::mock_with_films(&["--mock-speed", "20"], &[("DBUS_SYSTEM_BUS_ADDRESS", bus)]).await
}

/// Plays a little of a film.
async fn watch(server: &TestServer) -> String {
    let stream = server.play(READY, json!({})).await;
    server.fetch(stream["streamUrl"].as_str().expect("an address")).await;
    stream["streamId"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_awake_while_somebody_watches_and_however_it_ends() {
    let logind = Logind::open();
    let mut server = server_on(&logind.address).await;
    logind.hears_nothing(2);
    let id = watch(&server).await;
    let asked = logind.hears();
    assert_eq!(asked, json!({ "inhibited": "sleep:idle", "who": "Balcony", "why": "Somebody watches a film", "mode": "block" }));
    server.stop(&id).await;
    assert_eq!(logind.hears(), json!({ "released": "sleep:idle" }));
    // Again, and killed this time.
    watch(&server).await;
    assert_eq!(logind.hears()["inhibited"], "sleep:idle");
    let children = server.children();
    assert!(children.iter().any(|(_, line)| line.contains("systemd-inhibit")), "{children:?}");
    server.kill_9();
    assert_eq!(logind.hears(), json!({ "released": "sleep:idle" }));
    for (pid, line) in children.iter().filter(|(_, line)| line.contains("systemd-inhibit") || line.starts_with("cat")) {
        let began = std::time::Instant::now();
        while server::lives(*pid) {
            assert!(began.elapsed() < PATIENCE, "{line} outlives the server");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // And ended in order.
    server.restart().await;
    watch(&server).await;
    assert_eq!(logind.hears()["inhibited"], "sleep:idle");
    assert!(server.end().is_some_and(|status| status.success()));
    assert_eq!(logind.hears(), json!({ "released": "sleep:idle" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_be_asked_films_play_all_the_same() {
    let server = server_on("unix:path=/nowhere/bus").await;
    let id = watch(&server).await;
    server.stop(&id).await;
    let said = server.said();
    assert!(!said.contains("WARN") || !said.contains("asleep"), "{said}");
}
