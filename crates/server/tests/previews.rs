//! Stills for the time line, seen from outside: films whose grey tells the time, so that each still can be held against the key frame that
//! it should show.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use films::{AAC, by_ffmpeg, sound};
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Seconds between key frames, of the film, of one still; stills of a sheet; pixels of a still.
const KEYS: f64 = 2.6;
const LENGTH: f64 = 59.5;
const EACH: f64 = 2.0;
const ON_SHEET: usize = 25;
const SIZE: (usize, usize) = (320, 180);
/// Grey of a place of which there is nothing.
const DARK: f64 = 25.0;

/// Grey by whole seconds, with some noise, so that there is something to fetch.
fn film(name: &str, coding: &str) -> PathBuf {
    let picture = format!("-f lavfi -i color=black:s=320x180:r=25:d={LENGTH},geq=lum=70+2*floor(T):cb=128:cr=128,noise=alls=12:allf=t");
    by_ffmpeg(name, &format!("{picture} {} -force_key_frames expr:gte(t,n_forced*{KEYS}) {coding} -g 999 {AAC}", sound(LENGTH)))
}

fn mp4(name: &str) -> PathBuf {
    film(name, "-c:v libx264 -preset veryfast -b:v 800k -pix_fmt yuv420p -bf 3 -sc_threshold 0 -movflags +faststart")
}

/// The greys that still `n` may have, in full range: that of the nearest key frame, or of another that is as near. A film in fragments shows
/// its first picture only after those that were held back.
fn expected(n: usize) -> Vec<f64> {
    let (start, end) = (n as f64 * EACH, ((n + 1) as f64 * EACH).min(LENGTH));
    let keys: Vec<f64> = (0..100).map(|key| f64::from(key) * KEYS).take_while(|key| *key < LENGTH - 0.04).collect();
    let away = |key: f64| (key - f64::midpoint(start, end)).abs();
    let least = keys.iter().map(|key| away(*key)).fold(LENGTH, f64::min);
    let those = keys.into_iter().filter(|key| away(*key) < least + 0.21);
    those.map(|key| (70.0 + 2.0 * (key + 0.001).floor() - 16.0) * 255.0 / 219.0).collect()
}

fn is_right(still: usize, grey: f64) -> bool {
    expected(still).into_iter().any(|right| (grey - right).abs() < 2.0)
}

/// Mean grey of each still of a sheet; the sheet has to have the size that was told.
fn greys(jpeg: &[u8]) -> Vec<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sheet.jpg");
    std::fs::write(&path, jpeg).expect("written");
    let arguments = ["-v", "error", "-i", path.to_str().expect("a path"), "-pix_fmt", "gray", "-f", "rawvideo", "-"];
    let done = Command::new("ffmpeg").args(arguments).stdin(Stdio::null()).output().expect("ffmpeg");
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    let width = SIZE.0 * 5;
    assert_eq!(done.stdout.len(), width * SIZE.1 * 5, "five stills across and down");
    let grey = |still: usize| {
        let (x, y) = (still % 5 * SIZE.0, still / 5 * SIZE.1);
        let rows = (y..y + SIZE.1).flat_map(|row| &done.stdout[row * width + x..row * width + x + SIZE.0]);
        rows.map(|pixel| f64::from(*pixel)).sum::<f64>() / (SIZE.0 * SIZE.1) as f64
    };
    (0..ON_SHEET).map(grey).collect()
}

fn is_dark(grey: f64) -> bool {
    (grey - DARK).abs() < 3.0
}

/// All stills of a whole sheet, and darkness behind the film's end.
fn judge(sheet: usize, jpeg: &[u8], name: &str) {
    for (at, grey) in greys(jpeg).into_iter().enumerate() {
        let still = sheet * ON_SHEET + at;
        if still as f64 * EACH >= LENGTH {
            assert!(is_dark(grey), "{name}: still {still} behind the end has {grey}");
        } else {
            assert!(is_right(still, grey), "{name}: still {still} has {grey}, not {:?}", expected(still));
        }
    }
}

/// A sheet with nothing missing.
async fn whole(server: &TestServer, url: &str) -> bytes::Bytes {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let answer = server.get(url).await;
        if answer.status == 200 && answer.header("cache-control").is_some_and(|told| told.contains("immutable")) {
            assert_eq!(answer.header("content-type"), Some("image/jpeg"));
            return answer.body;
        }
        assert!(matches!(answer.status, 200 | 503), "{}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{url} is never whole");
}

async fn all_here(server: &TestServer, status: &Value) {
    let id = status["streamId"].as_str().expect("an id");
    server.until(id, 60, "all here", |status| status["downloadProgress"].as_f64().is_some_and(|part| part >= 1.0)).await;
}

fn folder(status: &Value) -> String {
    status["streamUrl"].as_str().expect("an address").rsplit_once('/').expect("a folder").0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn stills_of_a_whole_film() {
    let swarm = Swarm::seed(mp4("grey.mp4"), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    let master = server.get(status["streamUrl"].as_str().expect("an address")).await.text();
    let line = master.lines().find_map(|line| line.strip_prefix("#EXT-X-IMAGE-STREAM-INF:")).expect("stills");
    assert!(line.ends_with(",RESOLUTION=320x180,CODECS=\"jpeg\",URI=\"i1/index.m3u8\""), "{line}");
    let bandwidth: f64 =
        line.strip_prefix("BANDWIDTH=").and_then(|rest| rest.split(',').next()).expect("a rate").parse().expect("a number");
    let folder = folder(&status);

    let playlist = server.get(&format!("{folder}/i1/index.m3u8")).await;
    assert_eq!(playlist.header("content-type"), Some("application/vnd.apple.mpegurl"));
    let playlist = playlist.text();
    assert!(playlist.contains("#EXT-X-IMAGES-ONLY\n") && playlist.ends_with("\n1.jpg\n#EXT-X-ENDLIST\n"), "{playlist}");
    assert_eq!(playlist.matches("#EXT-X-TILES:RESOLUTION=320x180,LAYOUT=5x5,DURATION=2\n").count(), 2);
    let lasts: f64 = playlist.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.trim_end_matches(',').parse::<f64>().ok()).sum();
    assert!((lasts - LENGTH).abs() < 0.1, "{lasts}");

    let cues = server.get(&format!("{folder}/i1/index.vtt")).await;
    assert_eq!(cues.header("content-type"), Some("text/vtt; charset=utf-8"));
    assert_eq!(cues.text().matches(" --> ").count(), 30);
    assert!(cues.text().contains("\n00:00:12.000 --> 00:00:14.000\n0.jpg#xywh=320,180,320,180\n"));

    all_here(&server, &status).await;
    for sheet in 0..2 {
        let url = format!("{folder}/i1/{sheet}.jpg");
        let jpeg = whole(&server, &url).await;
        judge(sheet, &jpeg, "grey.mp4");
        assert!(jpeg.len() as f64 * 8.0 / (ON_SHEET as f64 * EACH) <= bandwidth, "{} bytes", jpeg.len());
        assert_eq!(server.get(&url).await.body, jpeg);
    }
    for wrong in ["2.jpg", "00.jpg", "-1.jpg", "0.png", "init.mp4", "0.m4s", "4294967295.jpg"] {
        assert_eq!(server.get(&format!("{folder}/i1/{wrong}")).await.status, 404, "{wrong}");
    }
    let left: Vec<_> = server.children().into_iter().filter(|(_, line)| line.contains("tile=5x5")).collect();
    assert!(left.is_empty(), "{left:?}");

    let mpd = server.get(status["dashUrl"].as_str().expect("an address")).await.text();
    let mpd = dash_mpd_core::parse(&mpd).expect("a manifest");
    let set = mpd.periods[0].adaptations.iter().find(|set| set.contentType.as_deref() == Some("image")).expect("stills");
    let one = &set.representations[0];
    assert_eq!((one.id.as_deref(), one.width, one.height), (Some("i1"), Some(1600), Some(900)));
    let template = set.SegmentTemplate.as_ref().expect("a template");
    assert_eq!((template.media.as_deref(), template.duration), (Some("$RepresentationID$/$Number$.jpg"), Some(50.0)));

    // What was made ends with the stream, as all its media.
    server.stop(status["streamId"].as_str().expect("an id")).await;
    assert_eq!(server.get(&format!("{folder}/i1/0.jpg")).await.status, 404);
}

/// Containers without a table of samples, and pictures that refer over key frames.
#[tokio::test(flavor = "multi_thread")]
async fn stills_of_other_films() {
    let from = mp4("grey.mp4");
    let copy = |name: &str, how: &str| by_ffmpeg(name, &format!("-i {} -c copy {how}", from.display()));
    let hevc = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:bframes=4:open-gop=1:keyint=65:min-keyint=65:scenecut=0";
    let films = [
        copy("grey.mkv", ""),
        copy("grey-in-fragments.mp4", "-movflags +frag_keyframe+empty_moov+default_base_moof+global_sidx"),
        film("grey-hevc.mkv", hevc),
    ];
    for path in films {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let swarm = Swarm::seed(&path, SwarmOptions::default()).await;
        let server = TestServer::open().await;
        let status = server.play(&swarm.link(), json!({})).await;
        all_here(&server, &status).await;
        for sheet in 0..2 {
            let jpeg = whole(&server, &format!("{}/i1/{sheet}.jpg", folder(&status))).await;
            judge(sheet, &jpeg, &name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_for_a_still() {
    let film = mp4("grey.mp4");
    let len = std::fs::metadata(Path::new(&film)).expect("its length").len();
    let slow = SwarmOptions { rate: Some(len / 25), piece_len: 32 << 10, ..SwarmOptions::default() };
    let swarm = Swarm::seed(film, slow).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    let (id, folder) = (status["streamId"].as_str().expect("an id").to_owned(), folder(&status));

    let asked = Instant::now();
    let last = server.get(&format!("{folder}/i1/1.jpg")).await;
    assert_eq!((last.status, last.json()["code"].as_str()), (503, Some("segment_late")), "{}", last.text());
    assert_eq!(last.header("retry-after"), Some("10"));
    assert!(asked.elapsed() < Duration::from_secs(4), "it was waited for: {:?}", asked.elapsed());

    let first = server.get(&format!("{folder}/i1/0.jpg")).await;
    assert_eq!((first.status, first.header("cache-control")), (200, Some("no-cache")), "{}", first.text());
    let greys = greys(&first.body);
    let shown = greys.iter().take_while(|grey| !is_dark(**grey)).count();
    assert!((1..ON_SHEET).contains(&shown), "{greys:?}");
    assert!(greys[shown..].iter().all(|grey| is_dark(*grey)), "{greys:?}");
    assert!(is_right(0, greys[0]), "{greys:?}");

    // Had a still been fetched for, the end of the film would be here before its middle.
    let now = server.status(&id).await;
    let ranges = now["fetched"].as_array().expect("what is here").clone();
    let end = |range: &Value| range[1].as_f64().expect("a time");
    assert!(ranges.iter().all(|range| end(range) < 50.0), "{ranges:?}");

    all_here(&server, &status).await;
    for sheet in 0..2 {
        judge(sheet, &whole(&server, &format!("{folder}/i1/{sheet}.jpg")).await, "grey.mp4");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_without_pictures_has_none() {
    let swarm = Swarm::seed(by_ffmpeg("song-12.mp4", &format!("{} {AAC}", sound(12.0))), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    assert!(!server.get(status["streamUrl"].as_str().expect("an address")).await.text().contains("IMAGE"));
    for name in ["index.m3u8", "index.vtt", "0.jpg"] {
        assert_eq!(server.get(&format!("{}/i1/{name}", folder(&status))).await.status, 404, "{name}");
    }
}
