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
    let on_grid = ["avi", "ts", "bare.mp4"].iter().any(|ending| text(case.film).ends_with(ending));
    if let Some(picture) = picture.first() {
        judge_joins(picture, on_grid, if case.picture == Copied { EXACT } else { original.frame() + ROUNDED });
        judge_times(picture, &picture.write(folder.path()), &original.pictures, case.picture, original.frame()).await;
    }
    if let Some(sound) = sounds.first() {
        let frame = 1024.0 / f64::from(hls::track_of(&sound.init).sample_rate);
        judge_joins(sound, on_grid, if case.sound == Copied { EXACT.max(case.interleave) } else { frame + ROUNDED });
        judge_times(sound, &sound.write(folder.path()), &original.sounds, case.sound, frame).await;
    }
    judge_decoding(&case, &url, &original).await;
    judge_sameness(&case, &mut server, &swarm, &url, &played).await;
    assert_eq!(server.end().and_then(|status| status.code()), Some(0));
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
    let [variant] = &played.master.variants[..] else { panic!("one variant: {:?}", played.master.variants) };
    let worst = |kind: char| {
        let of_kind = played.renditions.iter().filter(move |one| one.name.starts_with(kind));
        // A runt lasts no time in which a rate would mean anything.
        let rates = of_kind.flat_map(|one| {
            one.rates().into_iter().zip(&one.playlist.segments).filter(|(_, segment)| segment.duration >= 0.5).map(|(rate, _)| rate)
        });
        rates.fold(0.0, f64::max)
    };
    let measured = worst('v') + worst('a');
    assert!(variant.bandwidth as f64 >= measured, "BANDWIDTH {} but {measured} measured", variant.bandwidth);
    assert!(variant.average_bandwidth.is_some_and(|average| average <= variant.bandwidth));
    let told: Vec<&str> = variant.codecs.as_deref().expect("CODECS").split(',').collect();
    for rendition in &played.renditions {
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
        // A film with an index is cut from its first picture on, wherever that is; a grid begins with the film.
        let zero = *zero.get_or_insert(if on_grid { 0.0 } else { begins });
        let off = begins - zero - told[n];
        let late = n == 0 && off > 0.0; // the film's first picture may come later than the film
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

/// Another viewer gets the same bytes of a copy in another order, and so does one after a `kill -9` and a restart.
async fn judge_sameness(case: &Case<'_>, server: &mut TestServer, swarm: &Swarm, url: &str, played: &Hls) {
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
    server.kill_9();
    server.restart().await;
    server.until_ready(string(&second, "streamId")).await;
    let again = hls::open(server, url).await;
    for (mine, theirs) in played.renditions.iter().zip(&again.renditions) {
        assert_eq!(mine.playlist, theirs.playlist);
        for n in (0..mine.segments.len()).rev() {
            let bytes = theirs.segment(server, n).await;
            assert!(!copied(mine) || bytes == mine.segments[n], "{} {n} after a restart", mine.name);
        }
    }
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
