//! The way of a magnet, seen from outside: the real program, a real swarm, and films of every make. What a player gets is judged against
//! the film itself: every frame, every time, every byte.

#[path = "support/films.rs"]
mod films;
#[path = "support/hls.rs"]
mod hls;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::Path;

use films::{AAC, X264, X265, both, by_ffmpeg, by_mkvmerge, picture, sound, usual};
use hls::{Hls, Rendition, Seen};
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Times in playlists are whole microseconds.
const EXACT: f64 = 2e-6;
/// Times in Matroska and AVI are rounded to a millisecond or worse.
const ROUNDED: f64 = 0.001;

/// How a track reaches the player.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Every byte and every time as in the film.
    Copied,
    /// The same pictures or sounds at the same times, coded anew.
    Converted,
    /// The film has none.
    Absent,
}

use Way::{Absent, Converted, Copied};

/// A film, what is asked for, and what has to come of it.
struct Case<'a> {
    film: &'a Path,
    options: Value,
    picture: Way,
    sound: Way,
    /// Seconds that sound may stand from the picture that it is stored beside, in a container that does not tell where.
    interleave: f64,
}

/// What ffprobe tells of the film itself; times count from the film's own zero.
struct Original {
    facts: Value,
    zero: f64,
    pictures: Vec<Seen>,
    sounds: Vec<Seen>,
}

impl Original {
    async fn of(film: &Path) -> Self {
        let facts = hls::facts(film).await;
        // Containers with tables of ours have a zero of their own; the others begin where they begin.
        let begins = film.extension().is_some_and(|ending| ending == "ts" || ending == "avi");
        let start = facts["format"]["start_time"].as_str().and_then(|text| text.parse::<f64>().ok()).filter(|_| begins);
        let zero = start.unwrap_or(0.0);
        let shifted = |mut list: Vec<Seen>| {
            list.iter_mut().for_each(|packet| packet.pts -= zero);
            list
        };
        let pictures = shifted(hls::packets_of(film, "v:0").await);
        let sounds = shifted(hls::packets_of(film, "a:0").await);
        Self { facts, zero, pictures, sounds }
    }

    fn stream(&self, kind: &str) -> &Value {
        let all = self.facts["streams"].as_array().expect("streams");
        all.iter().find(|stream| stream["codec_type"] == kind).expect("a stream of this kind")
    }

    /// Seconds between two pictures on average.
    fn frame(&self) -> f64 {
        let rate = self.stream("video")["avg_frame_rate"].as_str().expect("a rate");
        let (over, under) = rate.split_once('/').expect("a fraction");
        under.parse::<f64>().expect("a number") / over.parse::<f64>().expect("a number")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn string<'a>(status: &'a Value, key: &str) -> &'a str {
    status[key].as_str().unwrap_or_else(|| panic!("no {key} in {status:#}"))
}

/// Streams a film and judges everything that comes of it.
async fn judge(case: Case<'_>) {
    let swarm = Swarm::seed(case.film, SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let status = server.play(&swarm.link(), case.options.clone()).await;
    let mode = match (case.picture, case.sound) {
        (Converted, _) => "convert",
        (_, Converted) => "convert_audio",
        _ => "copy",
    };
    assert_eq!(status["mode"], mode, "{status:#}");
    let url = string(&status, "streamUrl").to_owned();
    let original = Original::of(case.film).await;
    let mut played = hls::open(&server, &url).await;
    played.fetch_scattered(&server).await;
    let folder = tempfile::tempdir().expect("a folder");

    let (picture, sounds): (Vec<&Rendition>, Vec<&Rendition>) = played.renditions.iter().partition(|one| one.name.starts_with('v'));
    assert_eq!(picture.is_empty(), case.picture == Absent);
    assert_eq!(sounds.is_empty(), case.sound == Absent);
    judge_playlists(&played, &folder.path().join("first")).await;
    for rendition in &played.renditions {
        judge_rendition(&case, rendition, &original, folder.path()).await;
    }
    judge_decoding(&case, &url, &original).await;
    judge_sameness(&case, &server, &swarm, &url, &played).await;
    for (rendition, again) in played.renditions.iter().zip(&after_restart(&case, &mut server, &url, &played).await) {
        judge_mixture(&case, rendition, again, &original, folder.path()).await;
    }
    assert_eq!(server.end().and_then(|status| status.code()), Some(0));
}

/// One rendition: its joins, its times and, of a copy, its bytes.
async fn judge_rendition(case: &Case<'_>, rendition: &Rendition, original: &Original, folder: &Path) {
    let on_grid = ["avi", "ts", "bare.mp4"].iter().any(|ending| text(case.film).ends_with(ending));
    let whole = rendition.write(folder);
    if rendition.name.starts_with('v') {
        judge_joins(rendition, on_grid, if case.picture == Copied { EXACT } else { original.frame() + ROUNDED });
        judge_times(rendition, &whole, &original.pictures, case.picture, original.frame()).await;
    } else {
        let frame = 1024.0 / f64::from(hls::track_of(&rendition.init).sample_rate);
        judge_joins(rendition, on_grid, if case.sound == Copied { EXACT.max(case.interleave) } else { frame + ROUNDED });
        judge_times(rendition, &whole, &original.sounds, case.sound, frame).await;
    }
}

/// Every second segment from one life of the server, the others from the next one: no production made both neighbours.
async fn judge_mixture(case: &Case<'_>, first: &Rendition, second: &Rendition, original: &Original, folder: &Path) {
    assert_eq!(first.init, second.init, "{}: init segments of two lives", first.name);
    let pairs = first.segments.iter().zip(&second.segments).enumerate();
    let segments = pairs.map(|(n, (first, second))| if n % 2 == 0 { first } else { second }.clone()).collect();
    let mixture = Rendition { segments, ..first.clone() };
    judge_rendition(case, &mixture, original, folder).await;
    let mixed = hls::decode(text(&mixture.write(folder)), "0").await;
    let plain = hls::decode(text(&first.write(folder)), "0").await;
    assert_eq!((mixed.complaints, mixed.frames.len()), (plain.complaints, plain.frames.len()), "{}", first.name);
}

/// Playlists are true: one target duration, no segment longer, rates bounded, codecs and sizes those of the init segments.
async fn judge_playlists(played: &Hls, aside: &Path) {
    std::fs::create_dir_all(aside).expect("a folder");
    let targets: Vec<u64> = played.renditions.iter().map(|one| one.playlist.target_duration).collect();
    assert!(targets.windows(2).all(|pair| pair[0] == pair[1]), "target durations {targets:?}");
    for rendition in &played.renditions {
        let list = &rendition.playlist;
        assert!(list.end_list && list.independent_segments && list.version == Some(7), "{}: {list:?}", rendition.name);
        assert!(list.segments.iter().all(|segment| f64::from(segment.duration).round() as u64 <= list.target_duration));
    }
    let folder = |uri: &str| uri.split('/').next().unwrap_or_default().to_owned();
    let worst = |of: &dyn Fn(&Rendition) -> bool| {
        let of_kind = played.renditions.iter().filter(|one| of(one));
        // A runt lasts no time in which a rate would mean anything.
        let rates = of_kind.flat_map(|one| {
            one.rates().into_iter().zip(&one.playlist.segments).filter(|(_, segment)| segment.duration >= 0.5).map(|(rate, _)| rate)
        });
        rates.fold(0.0, f64::max)
    };
    let sound = worst(&|one| one.name.starts_with('a'));
    for variant in &played.master.variants {
        let name = folder(&variant.uri);
        let measured = sound + if name.starts_with('v') { worst(&|one| one.name == name) } else { 0.0 };
        assert!(variant.bandwidth as f64 >= measured, "BANDWIDTH {} but {measured} measured", variant.bandwidth);
        assert!(variant.average_bandwidth.is_some_and(|average| average <= variant.bandwidth));
    }
    for rendition in &played.renditions {
        // A film that has to be converted has a ladder of pictures.
        let own = played.master.variants.iter().find(|variant| folder(&variant.uri) == rendition.name);
        let variant = own.or(played.master.variants.first()).expect("a variant");
        let told: Vec<&str> = variant.codecs.as_deref().expect("CODECS").split(',').collect();
        let track = hls::track_of(&rendition.init);
        let whole = rendition.write(aside);
        let seen = hls::facts(&whole).await["streams"][0].clone();
        let codec = match seen["codec_name"].as_str().expect("a codec") {
            "h264" => format!("avc1.{:02x}{:02x}{:02x}", track.config[1], track.config[2], track.config[3]),
            "hevc" => "hvc1.".to_owned(),
            "aac" => "mp4a.40.2".to_owned(),
            other => panic!("{other} was not expected"),
        };
        assert!(told.iter().any(|one| one.to_lowercase().starts_with(&codec)), "{codec} is not among {told:?}");
        if seen["codec_type"] == "video" {
            let size = variant.resolution.as_ref().expect("RESOLUTION");
            assert_eq!((Some(size.width), Some(size.height)), (seen["width"].as_u64(), seen["height"].as_u64()));
            assert!(matches!(seen["sample_aspect_ratio"].as_str(), None | Some("1:1" | "N/A")), "{seen:#}");
            // The last picture may be shown for longer, as long as there is sound.
            let mut shown: Vec<f64> = hls::packets_of(&whole, "0").await.iter().map(|packet| packet.pts).collect();
            shown.sort_by(f64::total_cmp);
            let rate = (shown.len() - 1) as f64 / (shown[shown.len() - 1] - shown[0]);
            let told = variant.frame_rate.expect("FRAME-RATE");
            assert!((told - rate).abs() < rate * 0.02, "FRAME-RATE {told} but {rate} measured");
        }
    }
}

/// Segments of different productions join: nothing missing, nothing twice, no step; and each begins when the playlist says.
fn judge_joins(rendition: &Rendition, on_grid: bool, tolerance: f64) {
    let name = &rendition.name;
    let (track, segments) = rendition.packets();
    let seconds = |ticks: i64| ticks as f64 / f64::from(track.timescale);
    let told = rendition.told();
    let mut next: Option<i64> = None;
    let mut zero = None;
    for (n, packets) in segments.iter().enumerate() {
        let Some(first) = packets.first() else { continue };
        if track.kind == balcony_media::container::Kind::Video {
            assert!(first.key, "{name} {n} begins with a key frame");
        }
        for packet in packets {
            assert!(packet.duration > 0, "{name} {n}: a packet of no duration");
            let expected = next.unwrap_or(packet.dts);
            assert_eq!(packet.dts, expected, "{name} {n}: {} ticks of {} off", packet.dts - expected, track.timescale);
            assert!(packet.pts >= packet.dts, "{name} {n}: shown before it is decoded");
            next = Some(packet.dts + i64::from(packet.duration));
        }
        let begins = packets.iter().map(|packet| packet.pts - track.media_time).min().map_or(0.0, seconds);
        // A film with an index is cut from its first picture on, wherever that is; a grid begins with the film. What a sound's decoder needs
        // to start lies before the film, and is told nowhere.
        let zero = *zero.get_or_insert(if on_grid { 0.0 } else { begins.max(0.0) });
        let off = begins - zero - told[n];
        let primed = track.kind == balcony_media::container::Kind::Audio && (-0.15..0.0).contains(&begins);
        let late = n == 0 && (off > 0.0 || primed); // the film's first picture may come later than the film
        assert!(late || off.abs() <= tolerance, "{name} {n} begins {off} s from where the playlist says ({} s)", told[n]);
    }
}

/// Packets have the times of the film's own, and its bytes where they are copied.
async fn judge_times(rendition: &Rendition, whole: &Path, original: &[Seen], way: Way, frame: f64) {
    let name = &rendition.name;
    let seen = hls::packets_of(whole, "0").await;
    let clock = |packet: &Seen| packet.dts.expect("DTS");
    assert!(seen.windows(2).all(|pair| clock(&pair[0]) < clock(&pair[1])), "{name}: DTS goes back");
    match way {
        Copied => {
            assert_eq!(seen.len(), original.len(), "{name}: packets");
            // Matroska's own times are whole milliseconds, and are put back on the grid of frames. ffprobe adds up such roundings over the
            // frames of a lace.
            let tolerance = if name.starts_with('v') { 0.00151 } else { 0.0035 };
            for (at, (ours, theirs)) in seen.iter().zip(original).enumerate() {
                assert_eq!(ours.hash, theirs.hash, "{name}: bytes of packet {at}");
                assert!(
                    (ours.pts - theirs.pts).abs() < tolerance,
                    "{name}: packet {at} at {} s, in the film at {} s",
                    ours.pts,
                    theirs.pts
                );
            }
        }
        _ => {
            let sorted = |list: &[Seen]| {
                let mut times: Vec<f64> = list.iter().map(|packet| packet.pts).collect();
                times.sort_by(f64::total_cmp);
                times
            };
            let (ours, theirs) = (sorted(&seen), sorted(original));
            let ends = |times: &[f64]| (times[0].max(0.0), times[times.len() - 1]);
            let ((begin, end), (film_begin, film_end)) = (ends(&ours), ends(&theirs));
            assert!((begin - film_begin).abs() <= frame * 1.01, "{name}: begins at {begin} s, the film at {film_begin} s");
            assert!((end - film_end).abs() <= frame * 2.01, "{name}: ends at {end} s, the film at {film_end} s");
        }
    }
}

/// The whole stream decodes without a word that the film itself does not give rise to, into the film's own frames at the film's own times.
async fn judge_decoding(case: &Case<'_>, url: &str, original: &Original) {
    if case.picture != Absent {
        let (ours, theirs) = (hls::decode(url, "v:0").await, hls::decode(text(case.film), "v:0").await);
        let new: Vec<_> = ours.complaints.iter().filter(|line| !theirs.complaints.contains(line)).collect();
        assert!(new.is_empty(), "{new:#?}");
        assert_eq!(ours.frames.len(), theirs.frames.len(), "pictures");
        let tolerance = if case.picture == Copied { 0.0016 } else { original.frame() * 0.51 };
        for (at, (ours, theirs)) in ours.frames.iter().zip(&theirs.frames).enumerate() {
            let theirs = (theirs.0 - original.zero, &theirs.1);
            assert!((ours.0 - theirs.0).abs() < tolerance, "picture {at} at {} s, in the film at {} s", ours.0, theirs.0);
            assert!(case.picture != Copied || ours.1 == *theirs.1, "picture {at} is another one");
        }
        if case.picture == Converted {
            judge_pictures(url, text(case.film)).await;
        }
    }
    if case.sound != Absent {
        let (ours, theirs) = (hls::decode(url, "a:0").await, hls::decode(text(case.film), "a:0").await);
        let new: Vec<_> = ours.complaints.iter().filter(|line| !theirs.complaints.contains(line)).collect();
        assert!(new.is_empty(), "{new:#?}");
        let (ours, theirs) = (hls::clicks(url, 0.0).await, hls::clicks(text(case.film), original.zero).await);
        assert_eq!(ours.len(), theirs.len(), "clicks at {ours:?}, in the film at {theirs:?}");
        assert!(ours.len() > 5, "{ours:?}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs() < 0.003, "a click at {ours} s, in the film at {theirs} s");
        }
    }
}

/// Each converted picture is the film's picture of that time, and not its neighbour.
async fn judge_pictures(url: &str, film: &str) {
    let (ours, theirs) = (hls::thumbnails(url).await, hls::thumbnails(film).await);
    assert_eq!(ours.len(), theirs.len());
    for (at, (picture, three)) in ours.iter().skip(1).zip(theirs.windows(3)).enumerate() {
        let [before, same, after] = [0, 1, 2].map(|one| hls::difference(picture, &three[one]));
        assert!(same <= before && same <= after, "picture {}: {same} from its own, {before} and {after} from its neighbours", at + 1);
    }
}

/// Another viewer gets the same bytes of a copy in another order.
async fn judge_sameness(case: &Case<'_>, server: &TestServer, swarm: &Swarm, url: &str, played: &Hls) {
    let copied = |one: &Rendition| if one.name.starts_with('v') { case.picture == Copied } else { case.sound == Copied };
    let mut options = case.options.clone();
    options["method"] = json!("hls");
    let second = server.play(&swarm.link(), options).await;
    assert_ne!(string(&second, "streamUrl"), url);
    let other = hls::open(server, string(&second, "streamUrl")).await;
    for (mine, theirs) in played.renditions.iter().zip(&other.renditions) {
        assert_eq!(mine.playlist, theirs.playlist);
        assert_eq!(mine.init, theirs.init);
        for n in (0..mine.segments.len()).rev().filter(|_| copied(mine)) {
            assert!(theirs.segment(server, n).await == mine.segments[n], "{} {n} for another viewer", mine.name);
        }
    }
}

/// What the same address gives after a `kill -9` and a restart, fetched from the end on; a copy is the same byte for byte.
async fn after_restart(case: &Case<'_>, server: &mut TestServer, url: &str, played: &Hls) -> Vec<Rendition> {
    server.kill_9();
    server.restart().await;
    let mut again = hls::open(server, url).await;
    for (mine, theirs) in played.renditions.iter().zip(&mut again.renditions) {
        assert_eq!(mine.playlist, theirs.playlist);
        theirs.fetch(server, (0..mine.segments.len()).rev()).await;
        let copied = if mine.name.starts_with('v') { case.picture == Copied } else { case.sound == Copied };
        assert!(!copied || mine.segments == theirs.segments, "{} after a restart", mine.name);
    }
    again.renditions
}

/// A film that is judged as it is asked for without options.
async fn judge_plain(film: &Path, picture: Way, sound: Way) {
    // Sound in Matroska has no index of its own: it is cut where the picture's bytes are.
    let interleave = if film.extension().is_some_and(|ending| ending == "mkv") { 0.1 } else { 0.0 };
    judge(Case { film, options: json!({}), picture, sound, interleave }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mp4_with_its_tables_in_front() {
    judge_plain(&usual(23.0), Copied, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mp4_with_its_tables_behind() {
    judge_plain(&by_ffmpeg("behind.mp4", &format!("{} {X264} {AAC}", both(17.0))), Copied, Copied).await;
}

/// The sound begins half a second after the picture: an empty edit.
#[tokio::test(flavor = "multi_thread")]
async fn mp4_whose_sound_begins_late() {
    let film = by_ffmpeg("late.mp4", &format!("{} -itsoffset 0.5 {} {X264} {AAC}", picture("640x360", 17.0), sound(16.5)));
    judge_plain(&film, Copied, Copied).await;
}

/// Cut out of a longer film without coding it anew: there are pictures before the first one that is shown.
#[tokio::test(flavor = "multi_thread")]
async fn mp4_cut_out_of_another() {
    let film = by_ffmpeg("cut.mp4", &format!("-ss 2.8 -i {} -c copy", text(&usual(23.0))));
    judge_plain(&film, Converted, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matroska_of_mkvmerge() {
    judge_plain(&by_mkvmerge("merged.mkv", "", &usual(23.0)), Copied, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matroska_of_libavformat() {
    judge_plain(&by_ffmpeg("av.mkv", &format!("-i {} -c copy", text(&usual(23.0)))), Copied, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matroska_with_ac3() {
    let film = by_ffmpeg("ac3.mkv", &format!("{} {X264} -c:a ac3 -b:a 192k", both(17.0)));
    judge_plain(&film, Copied, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matroska_in_a_smaller_picture() {
    let film = by_ffmpeg("av.mkv", &format!("-i {} -c copy", text(&usual(23.0))));
    let options = json!({ "quality": "360p", "capabilities": { "maxHeight": 180 } });
    judge(Case { film: &film, options, picture: Converted, sound: Copied, interleave: 0.1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hevc_for_who_plays_it() {
    let film = by_ffmpeg("hevc.mp4", &format!("{} {X265} {AAC}", both(17.0)));
    let options = json!({ "capabilities": { "video": ["h264", "hevc"], "audio": ["aac"] } });
    judge(Case { film: &film, options, picture: Copied, sound: Copied, interleave: 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hevc_for_who_does_not() {
    let film = by_ffmpeg("hevc.mp4", &format!("{} {X265} {AAC}", both(17.0)));
    judge_plain(&film, Converted, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn avi() {
    let film = by_ffmpeg("old.avi", &format!("{} -c:v mpeg4 -q:v 4 -bf 2 -g 50 -c:a libmp3lame -b:a 128k", both(12.0)));
    judge_plain(&film, Converted, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transport_stream_that_begins_late() {
    let coding = "-c:v mpeg2video -q:v 4 -bf 2 -g 12 -c:a mp2 -b:a 192k -output_ts_offset 4242";
    let film = by_ffmpeg("late.ts", &format!("-f lavfi -i testsrc2=s=640x360:r=25:d=12 {} {coding}", sound(12.0)));
    judge_plain(&film, Converted, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragmented_mp4_with_an_index() {
    let film = by_ffmpeg("index.mp4", &format!("{} {X264} {AAC} -movflags +frag_keyframe+default_base_moof+dash+global_sidx", both(17.0)));
    // As with Matroska, only the pictures have an index.
    judge(Case { film: &film, options: json!({}), picture: Copied, sound: Copied, interleave: 0.1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragmented_mp4_without_one() {
    let film = by_ffmpeg("bare.mp4", &format!("{} {X264} {AAC} -movflags +frag_keyframe+empty_moov+skip_trailer", both(12.0)));
    judge_plain(&film, Converted, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_picture() {
    let film = by_ffmpeg("large.mp4", &format!("{} {} {X264} {AAC}", picture("1280x720", 12.0), sound(12.0)));
    judge(Case { film: &film, options: json!({ "quality": "360p" }), picture: Converted, sound: Copied, interleave: 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated() {
    let film = by_ffmpeg("rotated.mp4", &format!("-i {} -c copy -t 10 -metadata:s:v:0 rotate=90", text(&usual(23.0))));
    judge_plain(&film, Converted, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uneven_frame_rate() {
    let uneven = "-vf select='not(eq(mod(n\\,7)\\,3))*not(eq(mod(n\\,31)\\,5))' -fps_mode vfr";
    let film = by_ffmpeg("uneven.mp4", &format!("{} {uneven} {X264} {AAC}", both(17.0)));
    judge_plain(&film, Copied, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uneven_frame_rate_converted() {
    let uneven = "-vf select='not(eq(mod(n\\,7)\\,3))*not(eq(mod(n\\,31)\\,5))' -fps_mode vfr";
    let film = by_ffmpeg("uneven.mp4", &format!("{} {uneven} {X264} {AAC}", both(17.0)));
    judge(Case {
        film: &film,
        options: json!({ "quality": "360p", "capabilities": { "maxHeight": 180 } }),
        picture: Converted,
        sound: Copied,
        interleave: 0.0,
    })
    .await;
}

const OPEN_GOP: &str =
    "-c:v libx264 -preset veryfast -crf 26 -pix_fmt yuv420p -bf 3 -g 60 -sc_threshold 0 -x264-params open-gop=1:keyint=60";

/// Matroska does not tell which key frames are closed. Where one is not, the pictures that it makes possible are decoded behind it and
/// shown before it: all of them have to be there, each at its time.
#[tokio::test(flavor = "multi_thread")]
async fn open_gops_in_matroska() {
    let film = by_ffmpeg("open.mkv", &format!("{} {OPEN_GOP} {AAC}", both(17.0)));
    let swarm = Swarm::seed(&film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    let original = Original::of(&film).await;
    let case = Case { film: &film, options: json!({}), picture: Copied, sound: Copied, interleave: 0.1 };
    judge_decoding(&case, string(&status, "streamUrl"), &original).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_gops_in_mp4() {
    let film = by_ffmpeg("open.mp4", &format!("{} {OPEN_GOP} {AAC}", both(17.0)));
    judge_plain(&film, Copied, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sound() {
    judge_plain(&by_ffmpeg("silent.mp4", &format!("{} {X264}", picture("640x360", 12.0))), Copied, Absent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_picture() {
    judge_plain(&by_ffmpeg("sound.m4v", &format!("{} {AAC} -f mp4", sound(12.0))), Absent, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_longer_than_its_picture() {
    let film = by_ffmpeg("longer.mp4", &format!("{} {} {X264} {AAC}", picture("640x360", 12.0), sound(17.5)));
    judge_plain(&film, Copied, Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn converted_sound_longer_than_its_picture() {
    let film = by_ffmpeg("longer.mkv", &format!("{} {} {X264} -c:a ac3", picture("640x360", 12.0), sound(17.5)));
    judge_plain(&film, Copied, Converted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn converted_sound_longer_than_its_picture_in_mp4() {
    let film = by_ffmpeg("longer-ac3.mp4", &format!("{} {} {X264} -c:a ac3", picture("640x360", 12.0), sound(17.5)));
    judge_plain(&film, Copied, Converted).await;
}

/// The film is found among text files and samples, whatever the index names; a named film is taken.
#[tokio::test(flavor = "multi_thread")]
async fn the_film_among_many_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let torrent = folder.path().join("A Film (2020)");
    std::fs::create_dir_all(torrent.join("Sample")).expect("a folder");
    std::fs::write(torrent.join("00 read me.txt"), "nothing\n".repeat(1 << 17)).expect("written");
    std::fs::write(torrent.join("zz.nfo"), "nothing").expect("written");
    std::fs::copy(usual(23.0), torrent.join("A Film.mp4")).expect("copied");
    let sample = by_ffmpeg("silent.mp4", &format!("{} {X264}", picture("640x360", 12.0)));
    std::fs::copy(sample, torrent.join("Sample/sample.mp4")).expect("copied");
    let swarm = Swarm::seed(&torrent, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    // The order of the files is the torrent's own.
    let names = ["00 read me.txt", "zz.nfo", "A Film.mp4", "sample.mp4"];
    let metainfo = std::fs::read(swarm.torrent_file()).expect("the torrent");
    let place = |name: &str| metainfo.windows(name.len()).position(|window| window == name.as_bytes()).expect("the file");
    let index = |name: &str| names.iter().filter(|other| place(other) < place(name)).count();
    let chosen = index("A Film.mp4") as u64;
    let text_files = ["00 read me.txt", "zz.nfo"].map(|name| json!({ "fileIndex": index(name) }));
    let strange = [json!({}), json!({ "fileIndex": 99 }), json!({ "fileIndex": -1 }), json!({ "fileIndex": chosen })];
    for options in text_files.into_iter().chain(strange) {
        let status = server.play(&swarm.link(), options).await;
        assert_eq!((status["title"].as_str(), status["fileIndex"].as_u64()), (Some("A Film.mp4"), Some(chosen)), "{status:#}");
        assert_eq!(status["totalBytes"].as_u64(), std::fs::metadata(torrent.join("A Film.mp4")).ok().map(|film| film.len()));
    }
    let named = server.play(&swarm.link(), json!({ "fileIndex": index("sample.mp4") })).await;
    assert_eq!(named["title"], "sample.mp4", "{named:#}");
    let mut played = hls::open(&server, string(&named, "streamUrl")).await;
    played.fetch_scattered(&server).await;
}

/// A copy and a conversion of one film: each ends alone, and the last one takes everything with it.
#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_torrent() {
    let film = usual(23.0);
    let swarm = Swarm::seed(&film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let copy = server.play(&swarm.link(), json!({})).await;
    let small = server.play(&swarm.link(), json!({ "capabilities": { "maxHeight": 180 } })).await;
    assert_eq!((string(&copy, "mode"), string(&small, "mode")), ("copy", "convert"));
    let mut first = hls::open(&server, string(&copy, "streamUrl")).await;
    let mut second = hls::open(&server, string(&small, "streamUrl")).await;
    first.fetch_scattered(&server).await;
    second.fetch_scattered(&server).await;
    // The same sound, and every cut of the copy is one of the conversion.
    assert_eq!(first.renditions[1].segments, second.renditions[1].segments);
    let cuts = second.renditions[0].told();
    for cut in first.renditions[0].told() {
        assert!(cuts.iter().any(|other| (other - cut).abs() < EXACT), "{cut} is no cut of {cuts:?}");
    }
    server.stop(string(&copy, "streamId")).await;
    assert_eq!(server.get(string(&copy, "streamUrl")).await.status, 404);
    assert_eq!(server.status(string(&copy, "streamId")).await["status"], "stopped");
    second.fetch_scattered(&server).await;
    server.stop(string(&small, "streamId")).await;
    assert_eq!(server.get(string(&small, "streamUrl")).await.status, 404);
    let begun = std::time::Instant::now();
    // What is left is the torrent engine's list of nothing.
    while bytes_in(&server.cache_dir()) > 1_000 || !server.children().is_empty() {
        assert!(
            begun.elapsed().as_secs() < 20,
            "left: {:?} {:?} {:?}",
            server.children(),
            files_in(&server.data_dir()),
            files_in(&server.cache_dir())
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn files_in(folder: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let Ok(list) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in list.flatten() {
        match entry.metadata() {
            Ok(about) if about.is_dir() => files.extend(files_in(&entry.path())),
            Ok(about) => files.push((entry.path(), about.len())),
            Err(_) => {}
        }
    }
    files
}

fn bytes_in(folder: &Path) -> u64 {
    files_in(folder).iter().map(|(_, len)| len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_viewers_at_once() {
    let swarm = Swarm::seed(usual(23.0), SwarmOptions::default()).await;
    let server = std::sync::Arc::new(TestServer::open().await);
    let idle = server.rss();
    let status = server.play(&swarm.link(), json!({})).await;
    let url = string(&status, "streamUrl").to_owned();
    let viewers = (0..20).map(|viewer| {
        let (server, url) = (server.clone(), url.clone());
        tokio::spawn(async move {
            let mut played = hls::open(&server, &url).await;
            for rendition in &mut played.renditions {
                let count = rendition.playlist.segments.len();
                // Each begins elsewhere.
                rendition.fetch(&server, (0..count).map(|n| (n + viewer) % count)).await;
            }
            played.renditions.into_iter().map(|one| (one.init, one.segments)).collect::<Vec<_>>()
        })
    });
    let mut all = Vec::new();
    for viewer in viewers.collect::<Vec<_>>() {
        all.push(viewer.await.expect("a viewer"));
    }
    assert!(all.iter().all(|one| *one == all[0]));
    let mib = |bytes: u64| bytes >> 20;
    eprintln!("memory in MiB: idle {}, after 20 viewers {}, most {}", mib(idle), mib(server.rss()), mib(server.peak_rss()));
}

/// A film of about 8 MB over a line of 600 kB/s.
async fn slow() -> (std::path::PathBuf, Swarm) {
    let film =
        by_ffmpeg("slow.mp4", &format!("{} {X264} -b:v 2600k -crf 1 -maxrate 2800k -bufsize 2800k {AAC} -movflags +faststart", both(24.0)));
    let options = SwarmOptions { rate: Some(600_000), piece_len: 64 << 10, ..SwarmOptions::default() };
    let swarm = Swarm::seed(&film, options).await;
    (film, swarm)
}

#[tokio::test(flavor = "multi_thread")]
async fn playing_while_it_downloads() {
    let (film, swarm) = slow().await;
    let server = TestServer::open().await;
    let started = server.start(&swarm.link(), json!({})).await;
    let id = string(&started, "streamId").to_owned();
    let seen = std::sync::Mutex::new(vec![started]);
    let ready = server
        .until(&id, 60, "ready", |status| {
            seen.lock().expect("the list").push(status.clone());
            status["status"] == "ready"
        })
        .await;
    let seen = seen.into_inner().expect("the list");
    for pair in seen.windows(2) {
        let progress = |status: &Value| status["progress"].as_u64().expect("progress");
        assert!(progress(&pair[0]) <= progress(&pair[1]), "{:#}\n{:#}", pair[0], pair[1]);
    }
    for status in &seen {
        assert!(!string(status, "message").is_empty() && !string(status, "messageKey").is_empty(), "{status:#}");
        assert!(matches!(string(status, "status"), "downloading" | "ready"), "{status:#}");
    }
    assert_eq!((seen[0]["status"].as_str(), ready["progress"].as_u64()), (Some("downloading"), Some(100)));
    let missing = |status: &Value| status["totalBytes"].as_u64().expect("a size") - status["downloadedBytes"].as_u64().expect("bytes");
    let len = std::fs::metadata(&film).expect("the film").len();
    assert_eq!(ready["totalBytes"].as_u64(), Some(len));
    assert!(missing(&ready) > len / 3, "{ready:#}");

    let played = hls::open(&server, string(&ready, "streamUrl")).await;
    let pictures = &played.renditions[0];
    // A seek, and its segment is sent while it comes: a copy in one piece would arrive all at once.
    let far = pictures.told().iter().position(|start| *start > 19.0).expect("a segment at 80 %");
    let url = format!("{}/{}", pictures.folder, pictures.playlist.segments[far].uri);
    let mut answer = server.client().get(server.here(&url)).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let (mut arrivals, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = answer.chunk().await.expect("a chunk") {
        bytes += chunk.len();
        arrivals.push((std::time::Instant::now(), bytes));
    }
    let after = server.status(&id).await;
    assert!(missing(&after) > 0, "the seek was served only when everything was here");
    let (first, last) = (arrivals[0], arrivals[arrivals.len() - 1]);
    assert!(first.1 < bytes / 2, "{} of {bytes} bytes at once", first.1);
    assert!(last.0 - first.0 > std::time::Duration::from_millis(100), "the whole segment came at once");

    // A range of the original at another place, still before the end.
    let direct = string(&ready, "directUrl").to_owned();
    let from = len * 6 / 10;
    let range = server.client().get(server.here(&direct)).header("range", format!("bytes={from}-{}", from + 999)).send().await;
    let range = range.expect("an answer");
    assert_eq!(range.status(), 206);
    let whole = std::fs::read(&film).expect("the film");
    assert_eq!(range.bytes().await.expect("bytes"), whole[from as usize..from as usize + 1000]);
    let complete = server.until(&id, 60, "complete", |status| status["phase"] == "complete").await;
    assert_eq!((missing(&complete), complete["progress"].as_u64()), (0, Some(100)));
}

/// The original file for players that want it.
#[tokio::test(flavor = "multi_thread")]
async fn the_original_file() {
    let film = usual(23.0);
    let swarm = Swarm::seed(&film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({ "method": "original" })).await;
    let (url, whole) = (server.here(string(&status, "directUrl")), std::fs::read(&film).expect("the film"));
    assert_eq!(status["streamUrl"], status["directUrl"]);
    let len = whole.len();
    let ask = async |headers: &[(&str, String)]| {
        let mut request = server.client().get(&url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.expect("an answer");
        let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
        (code, headers, answer.bytes().await.expect("a body"))
    };
    let head = server.client().head(&url).send().await.expect("an answer");
    let header = |name: &str| head.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!((head.status().as_u16(), header("content-length"), header("accept-ranges")), (200, len.to_string(), "bytes".into()));
    assert_eq!(header("content-type"), "video/mp4");
    let etag = header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "{etag}");
    let (code, headers, body) = ask(&[]).await;
    assert_eq!(
        (code, headers["content-length"].to_str().ok(), headers["etag"].to_str().ok()),
        (200, Some(&*len.to_string()), Some(&*etag))
    );
    assert!(body == whole);
    let ranges = [("bytes=0-0", 0, 1), ("bytes=100-299", 100, 200), ("bytes=-500", len - 500, 500)];
    let open = format!("bytes={}-", len - 7);
    let past = format!("bytes={}-{}", len - 9, len + 100);
    for (range, from, count) in ranges.into_iter().chain([(&*open, len - 7, 7), (&*past, len - 9, 9)]) {
        for condition in [None, Some(etag.clone())] {
            let mut asked = vec![("range", range.to_owned())];
            asked.extend(condition.map(|etag| ("if-range", etag)));
            let (code, headers, body) = ask(&asked).await;
            let told = format!("bytes {from}-{}/{len}", from + count - 1);
            assert_eq!((code, headers["content-range"].to_str().ok()), (206, Some(&*told)), "{range}");
            assert!(body == whole[from..from + count], "{range}");
        }
    }
    let (code, _, body) = ask(&[("range", "bytes=0-9".into()), ("if-range", "\"another\"".into())]).await;
    assert_eq!((code, body.len()), (200, len));
    let (code, headers, _) = ask(&[("range", format!("bytes={len}-"))]).await;
    assert_eq!((code, headers["content-range"].to_str().ok()), (416, Some(&*format!("bytes */{len}"))));
    let list = server.get(&format!("{}/play.m3u", url.split("/file/").next().expect("its folder"))).await;
    assert_eq!((list.status, list.header("content-type")), (200, Some("audio/x-mpegurl")));
    assert!(
        list.text().starts_with("#EXTM3U\n#EXTINF:23,usual.mp4\n") && list.text().contains(string(&status, "directUrl")),
        "{}",
        list.text()
    );
}
