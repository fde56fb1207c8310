//! The quality ladder, seen from outside: what is offered, that nothing of it is made before somebody asks, and that a player can change
//! from any picture to any other at any cut.

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

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use films::{AAC, X264, by_ffmpeg, picture, sound};
use hls::Rendition;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// H.264 with irregular key frames, and noise enough in it to use up what a rung may take.
fn film() -> PathBuf {
    let noisy = "-vf noise=alls=30:allf=t";
    by_ffmpeg("ladder.mp4", &format!("{} {} {noisy} {X264} {AAC} -movflags +faststart", picture("1280x720", 12.0), sound(12.0)))
}

/// A film that has to be converted whoever watches.
fn old_film() -> PathBuf {
    by_ffmpeg("old.mp4", &format!("{} {} -c:v mpeg4 -q:v 6 -g 50 {AAC}", picture("960x540", 20.0), sound(20.0)))
}

fn string<'a>(status: &'a Value, key: &str) -> &'a str {
    status[key].as_str().unwrap_or_else(|| panic!("no {key} in {status:#}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Processes that encode pictures.
fn encoders(server: &TestServer) -> HashSet<u32> {
    server
        .children()
        .into_iter()
        .filter(|(_, line)| line.contains("-force_key_frames") && !line.contains(" cage "))
        .map(|(pid, _)| pid)
        .collect()
}

fn rendition<'a>(played: &'a hls::Hls, name: &str) -> &'a Rendition {
    played.renditions.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Seconds at which the pictures of a segment are shown, in order.
async fn shown(init: &[u8], segment: &[u8], aside: &Path) -> Vec<f64> {
    let path = aside.join("one.mp4");
    std::fs::write(&path, [init, segment].concat()).expect("written");
    let decoded = hls::decode(text(&path), "v:0").await;
    assert!(decoded.complaints.is_empty(), "{:#?}", decoded.complaints);
    decoded.frames.iter().map(|(at, _)| *at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rung_lies_on_the_time_line_of_the_copy() {
    let swarm = Swarm::seed(film(), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    assert_eq!(status["mode"], "copy", "{status:#}");
    let mut played = hls::open(&server, string(&status, "streamUrl")).await;

    let sizes: Vec<_> =
        played.master.variants.iter().map(|one| one.resolution.expect("RESOLUTION")).map(|size| (size.width, size.height)).collect();
    // The copy of so noisy a film takes more than twice what a rung of its size may.
    assert_eq!(sizes.first(), Some(&(1280, 720)));
    assert_eq!(sizes[sizes.len() - 2..], [(854, 480), (640, 360)], "{sizes:?}");
    assert!(
        played
            .master
            .variants
            .iter()
            .all(|one| one.audio.as_deref() == Some("aac") && one.frame_rate.is_some_and(|rate| (rate - 23.976).abs() < 0.001))
    );
    let targets: HashSet<u64> = played.renditions.iter().map(|one| one.playlist.target_duration).collect();
    assert_eq!(targets.len(), 1, "one target duration");
    // Playlists and init segments of all rungs are here, and nothing was made for them.
    assert!(encoders(&server).is_empty(), "{:?}", server.children());

    played.fetch_scattered(&server).await;
    let copy = rendition(&played, "v0");
    let cuts = copy.told();
    let aside = tempfile::tempdir().expect("a folder");
    let worst_sound = rendition(&played, "a1").rates().into_iter().fold(0.0, f64::max);
    let rungs: Vec<&Rendition> = played.renditions.iter().filter(|one| one.name.starts_with('v') && one.name != "v0").collect();
    let line = rungs[0].told();
    for cut in &cuts {
        assert!(line.iter().any(|at| (at - cut).abs() < 2e-6), "no rung is cut at {cut} s: {line:?}");
    }
    for rung in &rungs {
        assert_eq!(rung.told(), line, "{} is cut elsewhere", rung.name);
        let (track, segments) = rung.packets();
        let mut next = None;
        for (n, packets) in segments.iter().enumerate() {
            let first = packets.first().expect("a picture");
            assert!(first.key);
            let begins = (first.pts - track.media_time) as f64 / f64::from(track.timescale);
            assert!((begins - line[n]).abs() < 1e-5, "{} {n} begins at {begins} s, not at {} s", rung.name, line[n]);
            for packet in packets {
                assert_eq!(packet.dts, next.unwrap_or(packet.dts), "{} {n}: a gap", rung.name);
                next = Some(packet.dts + i64::from(packet.duration));
            }
        }
    }
    for variant in &played.master.variants {
        let one = rendition(&played, variant.uri.split('/').next().expect("a folder"));
        let long_enough = one.rates().into_iter().zip(&one.playlist.segments).filter(|(_, segment)| segment.duration >= 0.5);
        let worst = long_enough.map(|(rate, _)| rate).fold(0.0, f64::max) + worst_sound;
        assert!(variant.bandwidth as f64 >= worst, "{}: BANDWIDTH {} but {worst} measured", variant.uri, variant.bandwidth);
    }

    // From rung to rung at each cut, and now and then to the copy: all pictures of the film, each once, at its time.
    let mut times = Vec::new();
    let mut at = 0;
    while at + 1 < line.len() {
        let to_copy = cuts.iter().position(|cut| (cut - line[at]).abs() < 2e-6).filter(|n| n % 2 == 1 && n + 1 < cuts.len());
        if let Some(n) = to_copy {
            times.extend(shown(&copy.init, &copy.segments[n], aside.path()).await);
            at = line.iter().position(|time| (time - cuts[n + 1]).abs() < 2e-6).expect("a cut");
        } else {
            let rung = rungs[at % rungs.len()];
            times.extend(shown(&rung.init, &rung.segments[at], aside.path()).await);
            at += 1;
        }
    }
    let film = hls::decode(text(&film()), "v:0").await;
    assert_eq!(times.len(), film.frames.len());
    for (ours, (theirs, _)) in times.iter().zip(&film.frames) {
        assert!((ours - theirs).abs() < 0.0016, "a picture at {ours} s, in the film at {theirs} s");
    }
}

/// The address of segment `n` of a rendition.
fn segment(status: &Value, name: &str, n: u32) -> String {
    format!("{}/{name}/{n}.m4s", string(status, "streamUrl").rsplit_once('/').expect("a folder").0)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_viewers_of_three_rungs_share_three_productions() {
    let swarm = Swarm::seed(old_film(), SwarmOptions::default()).await;
    let server = TestServer::with(&["--max-productions", "8"], &[]).await;
    let mut viewers = Vec::new();
    for n in 0..20 {
        // Clients that differ: each has a stream of its own.
        viewers.push(server.play(&swarm.link(), json!({ "capabilities": { "maxHeight": 2000 + n } })).await);
    }
    let master = m3u8_rs::parse_master_playlist_res(&server.fetch(string(&viewers[0], "streamUrl")).await).expect("a master playlist");
    assert_eq!(master.variants.len(), 3, "{master:?}");
    let mut seen = HashSet::new();
    let watch = async |n: usize, status: &Value| {
        for number in 0..6 {
            server.fetch(&segment(status, &format!("v{}", n % 3), number)).await;
        }
    };
    let all = futures_util::future::join_all(viewers.iter().enumerate().map(|(n, status)| watch(n, status)));
    let look = async {
        loop {
            seen.extend(encoders(&server));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = all => {}
        () = look => {}
    }
    assert_eq!(seen.len(), 3, "as many runs of ffmpeg as rungs");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_the_picture_gives_its_encoder_free() {
    let swarm = Swarm::seed(old_film(), SwarmOptions::default()).await;
    let server = TestServer::with(&["--max-productions", "1"], &[]).await;
    let status = server.play(&swarm.link(), json!({})).await;
    server.fetch(&segment(&status, "v0", 1)).await;
    let before = encoders(&server);
    assert_eq!(before.len(), 1);
    // Up and down: each time the only encoder there is goes along at once.
    for (n, name) in [(2, "v2"), (3, "v1"), (4, "v0")] {
        let asked = Instant::now();
        server.fetch(&segment(&status, name, n)).await;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(8), "{name} came after {took:?}: another one's encoder was not free");
        let now = encoders(&server);
        assert!(now.len() <= 1 && now.is_disjoint(&before), "{now:?}, before {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_a_cap_and_the_ladder_outlives_a_restart() {
    let swarm = Swarm::seed(old_film(), SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let sizes = async |server: &TestServer, url: &str| {
        let master = m3u8_rs::parse_master_playlist_res(&server.fetch(url).await).expect("a master playlist");
        master.variants.iter().map(|one| one.resolution.expect("RESOLUTION").height).collect::<Vec<_>>()
    };
    let status = server.play(&swarm.link(), json!({ "quality": "480p" })).await;
    assert_eq!((status["whyKey"].as_str(), status["mode"].as_str()), (Some("video_codec"), Some("convert")));
    let url = string(&status, "streamUrl").to_owned();
    assert_eq!(sizes(&server, &url).await, [480, 360]);
    // A machine that is found to be slower meanwhile keeps what it has offered.
    std::fs::write(server.data_dir().join("pace.json"), "{}").expect("written");
    server.kill_9();
    server.restart().await;
    assert_eq!(sizes(&server, &url).await, [480, 360]);
}
