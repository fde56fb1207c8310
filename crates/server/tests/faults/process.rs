//! The programs: ffmpeg in the middle of its work, and the server itself put to sleep.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::stage::{Held, House, PACE, Row, Theatre, Watch, eventually, id, is_told_to_wait};
use super::viewer::Viewer;

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
    let told = watch.told();
    // Once a request was in vain, the reason has been told.
    assert!(got.late == 0 || told.iter().any(|told| told.contains("still being converted")), "{} times late, and told: {told:?}", got.late);
    told.into_iter().for_each(|told| row.saw(told));
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
            tokio::time::sleep(Duration::from_secs(10)).await;
            stub.becomes("exec ffmpeg \"$@\"");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_talks_without_end_is_listened_to_and_works() {
    let stub = Stub::new();
    // It becomes ffmpeg, under a name of its own, when all it had to say was taken.
    let talks = "import os, sys\nfor _ in range(256):\n    left = b\"x\" * 32767 + b\"\\n\"\n    while left: left = left[os.write(2, left):]\n\
                 os.execvp(\"ffmpeg\", [\"ffmpeg-that-talked\"] + sys.argv[1:])";
    stub.becomes(&format!("exec /usr/bin/python3 -c '{talks}' \"$@\""));
    let talked =
        |house: &House| house.server.children().iter().any(|(_, line)| line.starts_with("ffmpeg-that-talked") && line.contains("libx264"));
    conversion_is_hit(
        "ffmpeg says eight megabytes on stderr before it works",
        &stub,
        async |house| eventually("it was listened to until the end", || talked(house)).await,
        async |_| {},
    )
    .await;
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
        tokio::time::sleep(Duration::from_secs(5)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_says_it_is_done_too_early_is_not_believed() {
    let stub = Stub::new();
    // So slow that the middle is left to those who come then.
    stub.becomes("exec ffmpeg -re \"$@\"");
    let mut row = Row::of("process", "ffmpeg ends after a few segments each time and says that it is done");
    let house = House::with(&["--ffmpeg", &stub.flag()], &[]).await;
    let theatre = Theatre::of(60).await;
    let (viewer, watch) = theatre.begins(&house.server, json!({ "quality": "360p" })).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    // Whatever it makes ends after so many bytes.
    stub.becomes(
        "for word; do shift; [ \"$word\" = pipe:1 ] && set -- \"$@\" -fs 600000; set -- \"$@\" \"$word\"; done; exec ffmpeg \"$@\"",
    );
    eventually("the slow one was killed", || signal_encoders(&house, Signal::SIGKILL)).await;
    let middle = viewer.last() / 2;
    let (mut cut_off, over) = (std::collections::BTreeSet::new(), tokio_util::sync::CancellationToken::new());
    let counts = async {
        while !over.is_cancelled() {
            let runs = house.server.children().into_iter().filter(|(_, line)| line.contains("-fs 600000") && line.contains("libx264"));
            cut_off.extend(runs.map(|(pid, _)| pid));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let plays = async {
        let got = viewer.plays(&house.server, middle..middle + 6).await;
        over.cancel();
        got
    };
    let ((), got) = tokio::join!(counts, plays);
    assert!(cut_off.len() > 1, "one run of so few bytes cannot have made all six segments: {cut_off:?}");
    row.saw(format!("six segments by {} runs, 503 segment_late × {}, broken off × {}", cut_off.len(), got.late, got.broken));
    watch.told().into_iter().for_each(|told| row.saw(told));
    stub.becomes("exec ffmpeg \"$@\"");
    let ended = Instant::now();
    viewer.gets(&house.server, middle + 6).await;
    row.back_after(ended.elapsed());
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_slower_than_the_film_is_late_in_words_and_right() {
    let stub = Stub::new();
    let mut row = Row::of("process", "ffmpeg gets a tenth of the processor: far slower than the film plays");
    let house = House::with(&["--ffmpeg", &stub.flag()], &[]).await;
    let theatre = Theatre::of(60).await;
    let (viewer, watch) = theatre.begins(&house.server, json!({ "quality": "360p" })).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    let middle = viewer.last() / 2;
    let (slowed, over) = (std::sync::atomic::AtomicUsize::new(0), tokio_util::sync::CancellationToken::new());
    let starves = async {
        while !over.is_cancelled() {
            signal_encoders(&house, Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_millis(180)).await;
            if signal_encoders(&house, Signal::SIGCONT) {
                slowed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        signal_encoders(&house, Signal::SIGCONT);
        Instant::now()
    };
    let plays = async {
        let got = viewer.plays(&house.server, middle..middle + 2).await;
        over.cancel();
        got
    };
    let (ended, got) = tokio::join!(starves, plays);
    assert!(slowed.into_inner() > 0, "it was slowed down");
    watch.told().into_iter().for_each(|told| row.saw(told));
    row.saw(format!("two segments in {:.1} s, 503 segment_late × {}", got.took.as_secs_f64(), got.late));
    viewer.gets(&house.server, middle + 2).await;
    row.back_after(ended.elapsed());
    held.is_all_there(&house.server, &viewer, &mut row).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_not_ended_by_a_player_that_asks_for_another_place_too_soon() {
    let mut row = Row::of("process", "a player asks for the middle and the end of a film that is only being got ready");
    let house = House::open().await;
    let theatre = Theatre::of(60).await;
    let started = house.server.start(&theatre.link(), json!({ "quality": "360p" })).await;
    let watch = Watch::over(&house.server, &id(&started));
    let master = started["streamUrl"].as_str().expect("a URL").to_owned();
    let mut asked = tokio::task::JoinSet::new();
    for n in [12, 25, 18, 6] {
        let (client, url) = (house.server.client().clone(), house.server.here(&master.replace("master.m3u8", &format!("v0/{n}.m4s"))));
        asked.spawn(async move { client.get(url).send().await.map(|answer| answer.status().as_u16()) });
    }
    let ready = house.server.until_ready(&id(&started)).await;
    let begun = Instant::now();
    while let Some(answer) = asked.join_next().await {
        let status = answer.expect("joined").expect("an answer");
        assert!(matches!(status, 200 | 503), "{status}");
        row.saw(format!("{status} for it"));
    }
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.plays(&house.server, 0..4).await;
    row.back_after(begun.elapsed());
    watch.told().into_iter().for_each(|told| row.saw(told));
    watch.ends().await;
    row.write();
    house.closes().await;
}

/// What a program that lies in ffprobe's place prints, as a script.
fn lies() -> Vec<(&'static str, String)> {
    let told = |format: &str, streams: &str| format!("exec cat <<'end'\n{{\"format\":{format},\"streams\":[{streams}]}}\nend");
    let good = r#"{"format_name":"avi","duration":"24.0","start_time":"0.0"}"#;
    let video = |more: &str| format!(r#"{{"index":0,"codec_type":"video","codec_name":"mpeg4",{more}}}"#);
    let usual = r#""width":854,"height":480,"pix_fmt":"yuv420p","r_frame_rate":"24/1","time_base":"1/24""#;
    let python = |script: &str| format!("exec /usr/bin/python3 -c '{script}'");
    vec![
        ("absurd sizes", told(good, &video(r#""width":2147483647,"height":2147483647,"r_frame_rate":"1/0","time_base":"0/0""#))),
        ("negative sizes", told(good, &video(r#""width":-1,"height":-480,"r_frame_rate":"-24/-1","time_base":"-1/24""#))),
        ("sizes beyond all numbers", told(good, &video(r#""width":1e400,"height":99999999999999999999999"#))),
        ("a length of 1e300 seconds", told(r#"{"format_name":"avi","duration":"1e300","start_time":"-1e300"}"#, &video(usual))),
        ("a negative length", told(r#"{"format_name":"avi","duration":"-24","start_time":"NaN"}"#, &video(usual))),
        ("an endless length", told(r#"{"format_name":"avi","duration":"inf","start_time":"0"}"#, &video(usual))),
        ("a thousandfold length", told(r#"{"format_name":"avi","duration":"24000","start_time":"0"}"#, &video(usual))),
        ("no tracks", told(good, "")),
        (
            "tracks that are not there",
            told(
                good,
                &format!(
                    "{},{}",
                    video(usual).replace("\"index\":0", "\"index\":4294967295"),
                    video(usual).replace("\"index\":0", "\"index\":-7")
                ),
            ),
        ),
        (
            "words for numbers",
            told(r#"{"format_name":17,"duration":{"a":[]},"start_time":null}"#, &video(r#""width":"wide","height":[480]"#)),
        ),
        (
            "fifty thousand tracks",
            python(
                "import json\nprint(json.dumps({\"format\": {\"format_name\": \"avi\", \"duration\": \"24.0\"}, \"streams\": [{\"index\": n, \"codec_type\": \"audio\", \"codec_name\": \"mp3\", \"channels\": 999999, \"sample_rate\": \"0\"} for n in range(50000)]}))",
            ),
        ),
        ("ten megabytes of nesting", python("import sys\nsys.stdout.write(\"[\" * 10000000)")),
        ("ten megabytes of one word", python("import sys\nsys.stdout.write(\"{\\\"format\\\":\\\"\" + \"x\" * 10000000 + \"\\\"}\")")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffprobe_that_lies_is_believed_nothing_that_hurts() {
    let mut row = Row::of("process", "ffprobe lies about the film, in thirteen ways");
    let stub = Stub::new();
    let house = House::with(&["--ffprobe", &stub.flag()], &[]).await;
    let picture = "-f lavfi -i testsrc2=s=854x480:r=24:d=24";
    let film = super::films::by_ffmpeg("film.avi", &format!("{picture} {} -c:v mpeg4 -b:v 900k -c:a mp3", super::films::sound(24.0)));
    let theatre = Theatre::showing(film).await;
    let before = house.server.rss();
    for (lie, script) in lies() {
        stub.becomes(&script);
        let started = house.server.start(&theatre.link(), json!({})).await;
        let over = |status: &serde_json::Value| matches!(status["status"].as_str(), Some("ready" | "error"));
        let told = house.server.until(&id(&started), super::viewer::LONG.as_secs(), lie, over).await;
        row.saw(format!(
            "{lie}: {}{}",
            told["status"].as_str().expect("a word"),
            told["error"]["code"].as_str().map_or(String::new(), |code| format!(" {code}"))
        ));
        if told["status"] == "ready" {
            // Whatever is promised then: an answer comes, and nothing breaks.
            let url = told["streamUrl"].as_str().expect("a URL").replace("master.m3u8", "v0/0.m4s");
            let answer = house.server.client().get(house.server.here(&url)).send().await.expect("an answer");
            assert!(matches!(answer.status().as_u16(), 200 | 404 | 503), "{lie}: {}", answer.status());
        }
        assert_eq!(house.server.get("/api/health").await.json()["status"], "ok", "{lie}");
        house.server.stop(&id(&started)).await;
    }
    let grown = house.server.rss().saturating_sub(before) >> 20;
    assert!(grown < 150, "{grown} MiB more");
    row.saw(format!("{grown} MiB of memory more"));
    stub.becomes("exec ffprobe \"$@\"");
    let ended = Instant::now();
    let ready = house.server.play(&theatre.link(), json!({})).await;
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.gets(&house.server, 0).await;
    row.back_after(ended.elapsed());
    viewer.plays(&house.server, 0..=viewer.last()).await;
    row.write();
    house.closes().await;
}
