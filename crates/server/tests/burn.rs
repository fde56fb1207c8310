//! Subtitles that are drawn into the picture, seen from outside: the real program, a real swarm, and films with images of text that are
//! made here, a white bar each. Every picture of what a player gets is decoded and looked at: the bar is in its place at its times, and at
//! no other.

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

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// When the bar is seen, in seconds. One is shown over many cuts, one where the middle of the film is entered.
const TIMES: [(f64, f64); 4] = [(2.0, 4.0), (9.0, 17.0), (26.0, 29.5), (52.0, 54.0)];
const SECONDS: f64 = 56.0;
const FRAME: f64 = 1001.0 / 24_000.0;
/// Where it is on a plane of 1920 × 1080: left, top, width, height.
const BAR: [u16; 4] = [600, 900, 720, 100];
const PLANE: [u16; 2] = [1920, 1080];
/// A copy can be cut every four seconds.
const X264: &str =
    "-c:v libx264 -preset veryfast -crf 26 -pix_fmt yuv420p -bf 3 -g 999 -sc_threshold 0 -force_key_frames expr:gte(t,n_forced*4)";
/// Size of the small pictures of [`hls::thumbnails`].
const SMALL: (usize, usize) = (96, 54);

/// One segment of a `.sup` file: `PG`, time stamps of 90 kHz, its type, its length, its body.
fn segment(seconds: f64, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"PG".to_vec();
    bytes.extend(((seconds * 90_000.0) as u32).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.push(kind);
    bytes.extend(u16::try_from(body.len()).expect("a short body").to_be_bytes());
    bytes.extend(body);
    bytes
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A white bar from one time to another, as Blu-rays have it: composition, window, palette, object, end; then a composition of nothing.
fn bar(number: u16, (from, to): (f64, f64)) -> Vec<u8> {
    let [x, y, width, height] = BAR;
    let composition =
        |number: u16, state: u8, objects: u8| [words(&PLANE), vec![0x10], words(&[number]), vec![state, 0, 0, objects]].concat();
    let shown = [composition(2 * number, 0x80, 1), words(&[0]), vec![0, 0], words(&[x, y])].concat();
    let window = [vec![1, 0], words(&BAR)].concat();
    let [wide, narrow] = width.to_be_bytes();
    let line = [0, 0xc0 | wide, narrow, 1, 0, 0];
    let data = [words(&[width, height]), line.repeat(height.into())].concat();
    let [_, a, b, c] = u32::try_from(data.len()).expect("a small object").to_be_bytes();
    let object = [vec![0, 0, 0, 0xc0, a, b, c], data].concat();
    [
        segment(from, 0x16, &shown),
        segment(from, 0x17, &window),
        segment(from, 0x14, &[0, 0, 1, 235, 128, 128, 255]),
        segment(from, 0x15, &object),
        segment(from, 0x80, &[]),
        segment(to, 0x16, &composition(2 * number + 1, 0, 0)),
        segment(to, 0x17, &window),
        segment(to, 0x80, &[]),
    ]
    .concat()
}

/// A dark film of this size with the bar as its first subtitles and a text as its second.
fn film(name: &str, size: &str) -> PathBuf {
    let sup = films::make("bars.sup", &format!("{TIMES:?} {BAR:?} {PLANE:?}"), |out| {
        let all: Vec<u8> = (0..).zip(TIMES).flat_map(|(number, times)| bar(number, times)).collect();
        std::fs::write(out, all).expect("written");
    });
    let text = films::make("text.srt", "one line", |out| std::fs::write(out, "1\n00:00:01,000 --> 00:00:02,000\nText\n").expect("written"));
    let recipe = format!(
        "-copyts -f lavfi -i color=c=0x202020:s={size}:r=24000/1001:d={SECONDS} {} -f sup -i {} -i {} -map 0 -map 1 -map 2 -map 3 {} -c:s:0 copy -c:s:1 srt {}",
        films::sound(SECONDS),
        sup.display(),
        text.display(),
        X264,
        films::AAC
    );
    films::by_ffmpeg(name, &recipe)
}

/// Looks at every picture of a rendition. `place`: the bar's middle in parts of the picture's width and height; `None` where no bar may be.
async fn look(rendition: &hls::Rendition, folder: &Path, place: Option<(f64, f64)>) {
    let written = rendition.write(folder);
    let pictures = hls::thumbnails(&written.display().to_string()).await;
    let (track, packets) = rendition.packets();
    let shown = packets.iter().flatten().map(|packet| (packet.pts - track.media_time) as f64 / f64::from(track.timescale));
    let mut times: Vec<f64> = shown.collect();
    times.sort_by(f64::total_cmp);
    assert_eq!((pictures.len(), times.len()), ((SECONDS / FRAME).round() as usize, pictures.len()), "{}", rendition.name);
    // A muxer moves all tracks of a film together, by the priming of its sound.
    let zero = times[0];
    assert!(zero.abs() < 0.025, "{zero}");
    for (n, (picture, time)) in pictures.iter().zip(&times).enumerate() {
        let time = time - zero;
        assert!((time - n as f64 * FRAME).abs() < 0.002, "picture {n} stands at {time}");
        let near = |at: f64| (time - at).abs() < 1.5 * FRAME;
        if TIMES.iter().any(|(from, to)| near(*from) || near(*to)) {
            continue;
        }
        let expected = place.filter(|_| TIMES.iter().any(|(from, to)| (*from..*to).contains(&time)));
        let bright: Vec<(usize, usize)> =
            picture.iter().enumerate().filter(|(_, luma)| **luma > 150).map(|(at, _)| (at % SMALL.0, at / SMALL.0)).collect();
        let Some((x, y)) = expected else {
            assert!(bright.is_empty(), "{}: something is drawn at {time}: {bright:?}", rendition.name);
            continue;
        };
        let middle = |of: fn(&(usize, usize)) -> usize| bright.iter().map(|at| of(at) as f64 + 0.5).sum::<f64>() / bright.len() as f64;
        let (seen_x, seen_y) = (middle(|at| at.0) / SMALL.0 as f64, middle(|at| at.1) / SMALL.1 as f64);
        assert!(bright.len() > 60, "{}: no bar at {time}", rendition.name);
        assert!((seen_x - x).abs() < 0.02 && (seen_y - y).abs() < 0.02, "{}: the bar is at {seen_x}, {seen_y} at {time}", rendition.name);
    }
}

fn told(status: &Value) -> [Option<&str>; 3] {
    ["mode", "whyKey", "burn"].map(|key| status[key].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_seen_in_their_place_at_their_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = Swarm::seed(film("images.mkv", "854x480"), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({"quality": "360p", "burn": "s1"})).await;
    assert_eq!(told(&status), [Some("convert"), Some("burn"), Some("s1")], "{status:#}");
    let again = server.try_start(&swarm.link(), json!({"quality": "360p", "burn": "s1"})).await;
    assert_eq!((again.status, again.json()["streamId"].clone()), (200, status["streamId"].clone()));
    let mut burnt = hls::open(&server, status["streamUrl"].as_str().expect("a URL")).await;
    burnt.fetch_scattered(&server).await;
    // The middle of 900 to 1000 of 1080 lines.
    look(&burnt.renditions[0], folder.path(), Some((0.5, 950.0 / 1080.0))).await;

    // The same size without them, while the other plays.
    let plain = server.play(&swarm.link(), json!({"quality": "360p"})).await;
    assert_ne!(plain["streamId"], status["streamId"]);
    assert_eq!(told(&plain), [Some("convert"), Some("quality"), None]);
    let mut plain = hls::open(&server, plain["streamUrl"].as_str().expect("a URL")).await;
    plain.fetch_scattered(&server).await;
    look(&plain.renditions[0], folder.path(), None).await;
}

/// The bars of the cinema are cut off, as films are passed on: what lay on them is on the picture, and undistorted.
#[tokio::test(flavor = "multi_thread")]
async fn images_made_for_a_higher_picture_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = Swarm::seed(film("wide.mkv", "640x272"), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({"burn": "s1"})).await;
    assert_eq!(told(&status), [Some("convert"), Some("burn"), Some("s1")], "{status:#}");
    let mut burnt = hls::open(&server, status["streamUrl"].as_str().expect("a URL")).await;
    burnt.fetch_scattered(&server).await;
    let pictures: Vec<_> = burnt.renditions.iter().filter(|rendition| rendition.name.starts_with('v')).collect();
    assert!(!pictures.is_empty());
    for picture in pictures {
        look(picture, folder.path(), Some((0.5, 950.0 / 1080.0))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_drawn_is_said() {
    let swarm = Swarm::seed(film("images.mkv", "854x480"), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    for id in ["first", "s0", "s01", "a1"] {
        let refused = server.try_start(&swarm.link(), json!({"burn": id})).await;
        assert_eq!((refused.status, refused.json()["code"].clone()), (422, json!("invalid")), "{id}");
    }
    // A text, and one that the film does not have.
    for id in ["s2", "s9"] {
        let status = server.play(&swarm.link(), json!({"burn": id})).await;
        assert_eq!(told(&status), [Some("copy"), Some("copy"), None], "{status:#}");
        assert!(status["why"].as_str().is_some_and(|why| why.ends_with(&format!("no images of text with the id {id}"))), "{status:#}");
    }
}
