//! The programs: ffmpeg in the middle of its work, and the server itself put to sleep.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::stage::{Held, House, PACE, Row, Theatre, eventually, is_told_to_wait};

/// A program in the place of ffmpeg that can be another one at its next start. It lives in the cage: it may become another program, but
/// it can start none.
struct Stub {
    folder: tempfile::TempDir,
}

impl Stub {
    fn new() -> Self {
        let stub = Self { folder: tempfile::Builder::new().prefix("faults-ffmpeg-").tempdir().expect("a folder") };
        stub.becomes("exec ffmpeg \"$@\"");
        stub
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ffmpeg")
    }

    fn flag(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    fn becomes(&self, script: &str) {
        let aside = self.folder.path().join("aside");
        std::fs::write(&aside, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).expect("made a program");
        std::fs::rename(&aside, self.path()).expect("in place");
    }

    fn vanishes(&self) {
        std::fs::remove_file(self.path()).expect("removed");
    }
}

/// Sends a signal to whatever encodes for this house; `false` when nothing does.
fn signal_encoders(house: &House, signal: Signal) -> bool {
    let encoders: Vec<u32> = house.server.children().into_iter().filter(|(_, line)| line.contains("libx264")).map(|(pid, _)| pid).collect();
    // One that has just ended is as good as hit.
    encoders.iter().filter(|pid| kill(Pid::from_raw(**pid as i32), signal).is_ok()).count() > 0
}

/// Somebody watches a film that is being converted. The fault comes when he jumps to another place and ffmpeg works there; it may end
/// by itself or be ended. The film goes on.
async fn conversion_is_hit(fault: &'static str, stub: &Stub, begins: impl AsyncFnOnce(&House), ends: impl AsyncFnOnce(&House)) {
    let mut row = Row::of("process", fault);
    let house = House::with(&["--ffmpeg", &stub.flag()], &[]).await;
    let theatre = Theatre::of(60).await;
    let (viewer, watch) = theatre.begins(&house.server, json!({ "quality": "360p" })).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    let hit = async {
        begins(&house).await;
        let hit = Instant::now();
        ends(&house).await;
        (hit, Instant::now())
    };
    let jump = async {
        let got = viewer.gets(&house.server, viewer.last() / 2).await;
        (got, Instant::now())
    };
    let ((_, ended), (got, came)) = tokio::join!(hit, jump);
    watch.told().into_iter().for_each(|told| row.saw(told));
    if got.late + got.broken > 0 {
        row.saw(format!("503 segment_late × {}, broken off × {}", got.late, got.broken));
    }
    row.back_after(came.saturating_duration_since(ended));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    let middle = viewer.last() / 2;
    viewer.plays(&house.server, middle..middle + 4).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_is_killed_is_taken_up_where_it_was() {
    let stub = Stub::new();
    conversion_is_hit(
        "ffmpeg is killed in the middle of its work",
        &stub,
        async |house| eventually("ffmpeg was killed", || signal_encoders(house, Signal::SIGKILL)).await,
        async |_| {},
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_freezes_is_noticed_and_begun_anew() {
    let stub = Stub::new();
    conversion_is_hit(
        "ffmpeg freezes in the middle of its work and never moves again",
        &stub,
        async |house| eventually("ffmpeg was frozen", || signal_encoders(house, Signal::SIGSTOP)).await,
        async |_| {},
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_is_removed_while_somebody_watches_is_found_again_when_it_is_back() {
    let stub = Stub::new();
    stub.becomes("exec ffmpeg -re \"$@\"");
    conversion_is_hit(
        "ffmpeg is removed while somebody watches, and installed again after ten seconds",
        &stub,
        async |house| {
            stub.vanishes();
            eventually("ffmpeg was killed", || signal_encoders(house, Signal::SIGKILL)).await;
        },
        async |_| {
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            stub.becomes("exec ffmpeg \"$@\"");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_talks_without_end_is_listened_to_and_works() {
    let stub = Stub::new();
    stub.becomes("for word; do shift; [ \"$word\" = error ] && word=trace; set -- \"$@\" \"$word\"; done; exec ffmpeg \"$@\"");
    conversion_is_hit("ffmpeg fills its stderr with megabytes", &stub, async |_| {}, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_asleep_calls_its_peers_again() {
    let mut row = Row::of("process", "the machine sleeps for five seconds; all peers hang up meanwhile");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    let server = Pid::from_raw(house.server.pid() as i32);
    kill(server, Signal::SIGSTOP).expect("asleep");
    theatre.line.refuses();
    let jump = async {
        let got = viewer.gets(&house.server, viewer.last()).await;
        (got, Instant::now())
    };
    let wakes = async {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        kill(server, Signal::SIGCONT).expect("awake");
        // The network is back a moment later, as it is.
        is_told_to_wait(&house.server, &viewer.id, &mut row).await;
        theatre.line.at_rate(None);
        theatre.line.recovers();
        Instant::now()
    };
    let (ended, (got, came)) = tokio::join!(wakes, jump);
    watch.told().into_iter().for_each(|told| row.saw(told));
    row.saw(format!("503 segment_late × {}", got.late));
    row.back_after(came.saturating_duration_since(ended));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}
