//! The wall's clock jumps, as it does when a machine wakes, finds its time server, or has an empty battery.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::stage::{Held, House, PACE, Row, Theatre, id};
use super::viewer::LONG;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A clock that goes wrong when it is told to, for one server.
struct Clock {
    folder: tempfile::TempDir,
}

impl Clock {
    /// A right one.
    fn new() -> Self {
        let clock = Self { folder: tempfile::Builder::new().prefix("faults-clock-").tempdir().expect("a folder") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.library()).arg(source).status();
        assert!(made.expect("a C compiler").success());
        clock.is_wrong_by(0);
        clock
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn error(&self) -> PathBuf {
        self.folder.path().join("error")
    }

    async fn house(&self) -> House {
        let (library, error) = (self.library(), self.error());
        let environment = [("LD_PRELOAD", library.to_str().expect("text")), ("FAULTS_CLOCK", error.to_str().expect("text"))];
        House::with(&[], &environment).await
    }

    /// From now on by so many seconds.
    fn is_wrong_by(&self, seconds: i64) {
        let aside = self.folder.path().join("aside");
        std::fs::write(&aside, seconds.to_string()).expect("written");
        std::fs::rename(&aside, self.error()).expect("in place");
    }
}

/// Seconds by which the server takes the time to be another one than it is.
async fn wrong_by(house: &House) -> i64 {
    let begun = jiff::Timestamp::now();
    let told = house.server.call(Method::POST, "/api/pairings", Some(json!({}))).await.json();
    let expires: jiff::Timestamp = told["expiresAt"].as_str().expect("a time").parse().expect("RFC 3339");
    // An offer lasts for minutes, and not for hours.
    (expires.as_second() - begun.as_second()) / HOUR * HOUR
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_nothing_and_locks_nobody_out() {
    let mut row =
        Row::of("clock", "the wall's clock jumps a day and 400 days ahead, an hour and 20 years back; then it is wrong from a start on");
    let clock = Clock::new();
    let (mut house, theatre) = (clock.house().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    let phone = house.server.pair("phone", Some("Anna")).await;
    watch.ends().await;
    for jump in [DAY, 400 * DAY, -HOUR, -20 * 365 * DAY] {
        // An offer of before the jump is good after it: its minutes are counted by another clock.
        let offer = house.server.call(Method::POST, "/api/pairings", Some(json!({ "person": "Anna" }))).await.json();
        clock.is_wrong_by(jump);
        let body = json!({ "code": offer["code"], "deviceName": format!("{jump}"), "platform": "test" });
        let paired = house.server.call(Method::POST, "/api/pair", Some(body)).await;
        if paired.status != 201 {
            row.lost(format!("an offer of before the jump: {}", paired.text()));
        }
        let seen = wrong_by(&house).await;
        assert!((seen - jump).abs() <= HOUR, "the server's clock is wrong by {seen} s and not by {jump} s");
        let jumped = Instant::now();
        let watch = super::stage::Watch::over(&house.server, &viewer.id);
        viewer.plays(&house.server, 0..3).await;
        row.back_after(jumped.elapsed());
        let newcomer = house.server.pair(&format!("new {jump}"), Some("Bert")).await;
        for token in [&phone, &newcomer] {
            let answer = house.server.call_as(token, Method::GET, "/api/streams", None).await;
            assert_eq!(answer.status, 200, "{jump}: {}", answer.text());
        }
        held.is_all_there(&house.server, &viewer, &mut row).await;
        watch.told().into_iter().for_each(|told| row.saw(told));
        watch.ends().await;
        // Another film begins, and the encrypted door answers.
        let other = house.server.start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
        house.server.stop(&id(&other)).await;
        let tls = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}"])
            .arg(format!("{}/api/health", house.server.https()))
            .output()
            .expect("curl");
        assert_eq!(String::from_utf8_lossy(&tls.stdout), "200", "{jump}: {}", String::from_utf8_lossy(&tls.stderr));
    }
    // With a wrong clock from the beginning; and right again. One that is days ahead is not tried: to a server that starts, days have
    // passed then, and a stream's time is over.
    for wrong in [-20 * 365 * DAY, HOUR, 0] {
        clock.is_wrong_by(wrong);
        house.server.restart().await;
        let began = Instant::now();
        assert_eq!(house.server.call_as(&phone, Method::GET, "/api/streams", None).await.status, 200, "{wrong}");
        house.server.until(&viewer.id, LONG.as_secs(), "ready", |status| status["status"] == "ready").await;
        viewer.gets(&house.server, 0).await;
        row.back_after(began.elapsed());
        held.is_all_there(&house.server, &viewer, &mut row).await;
    }
    theatre.line.at_rate(None);
    viewer.plays(&house.server, 0..=viewer.last()).await;
    row.write();
    house.closes().await;
}
