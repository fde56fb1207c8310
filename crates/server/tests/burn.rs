//! Subtitles that are drawn into the picture, seen from outside: the real program, a real swarm, and films with images of text or scripts
//! that are made here, a white bar each. Every picture of what a player gets is decoded and looked at: the bar is in its place at its
//! times, and at no other.

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

/// `0:00:02.00`
fn stamp(seconds: f64) -> String {
    let hundredths = (seconds * 100.0).round() as u32;
    format!("0:{:02}:{:02}.{:02}", hundredths / 6000, hundredths / 100 % 60, hundredths % 100)
}

/// The bar as a script: a drawing that its style puts at the upper left, moved to its place. `more` stands behind it.
fn script(more: &str) -> String {
    let [x, y, width, height] = BAR;
    let events: String = TIMES
        .iter()
        .map(|(from, to)| {
            let (from, to) = (stamp(*from), stamp(*to));
            format!("Dialogue: 0,{from},{to},Bar,,0,0,0,,{{\\pos({x},{y})\\p1}}m 0 0 l {width} 0 {width} {height} 0 {height}\n")
        })
        .collect();
    format!(
        "[Script Info]\nScriptType: v4.00+\nPlayResX: {}\nPlayResY: {}\n\n[V4+ Styles]\n\
         Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, \
         ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n\
         Style: Bar,sans-serif,40,&H00FFFFFF,&H00FFFFFF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,0,0,7,0,0,0,1\n\n\
         [Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n{events}{more}",
        PLANE[0], PLANE[1]
    )
}

/// A dark film of this size; its subtitles are this text in this format.
fn film_with(name: &str, size: &str, subtitles: Option<(&str, &str, String)>) -> PathBuf {
    let dark = format!("-f lavfi -i color=c=0x202020:s={size}:r=24000/1001:d={SECONDS} {}", films::sound(SECONDS));
    let recipe = match subtitles {
        None => format!("{dark} {X264} {}", films::AAC),
        Some((file, codec, text)) => {
            let text = films::make(file, &text, |out| std::fs::write(out, &text).expect("written"));
            format!("{dark} -i {} -map 0 -map 1 -map 2 {X264} {} -c:s {codec}", text.display(), films::AAC)
        }
    };
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
    let status = server.play(&swarm.link(), json!({"burn": "s9"})).await;
    assert_eq!(told(&status), [Some("copy"), Some("copy"), None], "{status:#}");
    let why = status["why"].as_str().expect("why");
    assert!(why.ends_with("No subtitles are drawn into it: the film has no subtitles with the id s9 that can be drawn"), "{why}");
}

/// Plays a film with its first subtitles drawn into it, a segment in the middle first, and looks at every picture of each size.
async fn bars_of(film: PathBuf) -> TestServer {
    let folder = tempfile::tempdir().expect("a folder");
    let swarm = Swarm::seed(film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({"quality": "360p", "burn": "s1"})).await;
    assert_eq!(told(&status), [Some("convert"), Some("burn"), Some("s1")], "{status:#}");
    let mut burnt = hls::open(&server, status["streamUrl"].as_str().expect("a URL")).await;
    burnt.fetch_scattered(&server).await;
    look(&burnt.renditions[0], folder.path(), Some((0.5, 950.0 / 1080.0))).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_the_film_is_drawn_with_its_styles() {
    bars_of(film_with("styled.mkv", "854x480", Some(("styled.ass", "ass", script(""))))).await;
}

/// What libass makes of nonsense is its affair; the film plays, and what is sane is still drawn.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_script_harms_nothing() {
    let at = format!("Dialogue: 0,{},{},Bar,,0,0,0,,", stamp(40.0), stamp(41.0));
    let bad = [
        "{\\pos(1e30,-1e30)\\fscx1000000\\fs99999\\bord99999\\blur99999\\c&H000000&}x".to_owned(),
        "{\\p1\\c&H000000&}m 2147483647 -2147483648 l 99999999999 1 b 1 2 3 4 5 6 s".to_owned(),
        "{\\clip(m 0 0 l 1e9 1e9)\\t(0,0,\\frz99999999)\\k999999999\\c&H000000&".to_owned(),
        format!("{{\\c&H000000&}}{}", "{".repeat(60_000)),
        "{\\fn/etc/passwd\\c&H000000&}x".to_owned(),
    ];
    let more: String = bad.iter().map(|text| format!("{at}{text}\n")).collect();
    let more = format!("{more}Dialogue: 0,0:00:42.00,0:00:41.00,None,,x\n[Fonts]\nfontname: a.ttf\n!!!\n");
    bars_of(film_with("hostile.mkv", "854x480", Some(("hostile.ass", "ass", script(&more))))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_beside_the_film_is_drawn() {
    let root = tempfile::Builder::new().prefix("Beside ").tempdir().expect("a folder");
    std::fs::copy(film_with("bare.mkv", "854x480", None), root.path().join("Film.mkv")).expect("copied");
    std::fs::write(root.path().join("Film.en.ass"), script("")).expect("written");
    bars_of(root.path().to_owned()).await;
}

/// Text that has no styles stands below in the middle, while it is said and never else.
#[tokio::test(flavor = "multi_thread")]
async fn plain_text_is_drawn_below_in_the_middle() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines: String = (1..)
        .zip(TIMES)
        .map(|(n, (from, to))| {
            let stamp =
                |seconds: f64| format!("0{},{:03}", stamp(seconds).split('.').next().unwrap_or_default(), (seconds * 1000.0) as u32 % 1000);
            format!("{n}\n{} --> {}\nMMMMMMMMMMMM\nWWWWWWWWWWWW\n\n", stamp(from), stamp(to))
        })
        .collect();
    let swarm = Swarm::seed(film_with("spoken.mkv", "854x480", Some(("spoken.srt", "srt", lines))), SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({"quality": "360p", "burn": "s1"})).await;
    assert_eq!(told(&status), [Some("convert"), Some("burn"), Some("s1")], "{status:#}");
    let mut burnt = hls::open(&server, status["streamUrl"].as_str().expect("a URL")).await;
    burnt.fetch_scattered(&server).await;
    let written = burnt.renditions[0].write(folder.path());
    let pictures = hls::thumbnails(&written.display().to_string()).await;
    assert_eq!(pictures.len(), (SECONDS / FRAME).round() as usize);
    for (n, picture) in pictures.iter().enumerate() {
        let time = n as f64 * FRAME;
        if TIMES.iter().any(|(from, to)| (time - from).abs() < 1.5 * FRAME || (time - to).abs() < 1.5 * FRAME) {
            continue;
        }
        let said = TIMES.iter().any(|(from, to)| (*from..*to).contains(&time));
        let bright: Vec<(usize, usize)> =
            picture.iter().enumerate().filter(|(_, luma)| **luma > 90).map(|(at, _)| (at % SMALL.0, at / SMALL.0)).collect();
        assert_eq!(bright.len() > 20, said, "{} bright at {time}", bright.len());
        assert!(bright.iter().all(|(x, y)| *y > SMALL.1 * 2 / 3 && (SMALL.0 / 5..SMALL.0 * 4 / 5).contains(x)), "{time}: {bright:?}");
    }
}
