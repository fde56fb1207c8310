//! Films of every coding that is passed on, from the magnet to the player: each packet, each picture and each sample of sound is the film's
//! own, at the film's own time, from the beginning and after a seek. The judge is ffmpeg, which decodes the film itself and what is made
//! of it.

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
use std::process::Command;

use films::{AAC, X264, both, by_ffmpeg, by_mkvmerge};
use hls::{Hls, Rendition, Seen};
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Seconds of each film; its copy has three segments or more.
const LENGTH: f64 = 13.0;
/// Samples per second of all sound that is compared.
const RATE: f64 = 48_000.0;
/// Matroska's times are whole milliseconds. ffprobe adds up such roundings over the frames of a lace.
const ROUNDED: f64 = 0.0035;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A client that plays everything.
fn everything() -> Value {
    json!({ "capabilities": {
        "video": ["h264", "hevc", "av1", "vp9"], "audio": ["aac", "ac3", "eac3", "opus", "flac", "mp3", "alac"], "hdr": true,
    } })
}

/// A film is passed on as it is: `codecs` begin what the master playlist says of its picture and its sound.
async fn judge(film: &Path, codecs: [&str; 2]) -> Hls {
    let swarm = Swarm::seed(film, SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let status = server.play(&swarm.link(), everything()).await;
    assert_eq!(status["mode"], "copy", "{status:#}");
    let url = status["streamUrl"].as_str().expect("an address").to_owned();
    let mut played = hls::open(&server, &url).await;
    let told = played.master.variants[0].codecs.clone().expect("CODECS");
    for (codec, told) in codecs.iter().zip(told.split(',')) {
        assert!(told.starts_with(codec), "{told} for {codec}");
    }
    played.fetch_scattered(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    for rendition in &played.renditions {
        judge_packets(film, rendition, folder.path()).await;
    }
    judge_pictures(film, &url, &played, folder.path()).await;
    judge_sound(film, &url, &played, folder.path()).await;
    assert_eq!(server.end().and_then(|status| status.code()), Some(0));
    played
}

/// Every packet of the film, with its bytes, at its time, and no time between two of them that is not the first one's.
async fn judge_packets(film: &Path, rendition: &Rendition, folder: &Path) {
    let stream = if rendition.name.starts_with('v') { "v:0" } else { "a:0" };
    let (ours, theirs) = (hls::packets_of(&rendition.write(folder), "0").await, hls::packets_of(film, stream).await);
    assert_eq!(ours.len(), theirs.len(), "{}: packets", rendition.name);
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let Seen { pts, hash, .. } = ours;
        assert_eq!(*hash, theirs.hash, "{}: bytes of packet {at}", rendition.name);
        assert!((pts - theirs.pts).abs() < ROUNDED, "{}: packet {at} at {pts} s, in the film at {} s", rendition.name, theirs.pts);
    }
    let (track, segments) = rendition.packets();
    let all: Vec<_> = segments.iter().flatten().collect();
    for (at, pair) in all.windows(2).enumerate() {
        assert_eq!(pair[0].dts + i64::from(pair[0].duration), pair[1].dts, "{}: packet {at}, ticks of {}", rendition.name, track.timescale);
    }
    let begins: Vec<_> = segments.iter().filter_map(|packets| packets.first()).collect();
    assert!(begins.len() >= 3 && begins.iter().all(|packet| packet.key), "{}: segments begin where decoding can", rendition.name);
}

/// The pictures of the whole stream, and of the stream entered at its second segment.
async fn judge_pictures(film: &Path, url: &str, played: &Hls, folder: &Path) {
    let Some(picture) = played.renditions.iter().find(|one| one.name.starts_with('v')) else { return };
    let theirs = hls::decode(text(film), "v:0").await;
    let ours = hls::decode(url, "v:0").await;
    assert!(ours.complaints.iter().all(|line| theirs.complaints.contains(line)), "{:#?}", ours.complaints);
    assert_eq!(ours.frames.len(), theirs.frames.len(), "pictures");
    for (at, (ours, theirs)) in ours.frames.iter().zip(&theirs.frames).enumerate() {
        assert!((ours.0 - theirs.0).abs() < 0.0016, "picture {at} at {} s, in the film at {} s", ours.0, theirs.0);
        assert_eq!(ours.1, theirs.1, "picture {at}");
    }
    let from = begins(picture);
    let entered = hls::decode(text(&enter(picture, folder)), "0").await;
    assert!(entered.complaints.is_empty(), "{:#?}", entered.complaints);
    // What is shown before the key frame and stored behind it belongs to who comes from there.
    let count = hls::packets_of(film, "v:0").await.iter().filter(|seen| seen.pts > from - 0.002).count();
    let rest: Vec<_> = theirs.frames.iter().rev().take(count).rev().map(|(_, hash)| hash).collect();
    let entered: Vec<_> = entered.frames.iter().map(|(_, hash)| hash).collect();
    assert!(entered == rest, "{} pictures from {from} s on, {} in the film", entered.len(), rest.len());
}

/// The sound of the whole stream, and of the stream entered at its second segment, sample by sample.
async fn judge_sound(film: &Path, url: &str, played: &Hls, folder: &Path) {
    let Some(sound) = played.renditions.iter().find(|one| one.name.starts_with('a')) else { return };
    // The times of packets in Matroska are rounded, so that the film's own first sample may be as much off.
    let slack = if film.extension().is_some_and(|ending| ending == "mkv" || ending == "webm") { 48 } else { 0 };
    let theirs = samples(text(film));
    let whole = samples(url);
    let lag = compare(&whole, &theirs, 0.0, slack);
    assert!(lag.is_some(), "the sound is another one, or off by more than {slack} samples");
    let clicks = (hls::clicks(url, 0.0).await, hls::clicks(text(film), 0.0).await);
    assert_eq!(clicks.0.len(), clicks.1.len());
    assert!(clicks.0.len() > 10 && clicks.0.iter().zip(&clicks.1).all(|(ours, theirs)| (ours - theirs).abs() < 0.002), "{clicks:?}");
    // A decoder that begins in the middle needs some packets to agree with one that came there.
    let entered = samples(text(&enter(sound, folder)));
    let (lag, off) = nearest(&entered, &whole, begins(sound) + 0.2);
    assert!(lag == 0 && off < 0.05, "the sound from the second segment on is {lag} samples off, and another one by {off}");
}

/// When the second segment begins, in seconds of the film.
fn begins(rendition: &Rendition) -> f64 {
    let (track, segments) = rendition.packets();
    (segments[1][0].pts - track.media_time) as f64 / f64::from(track.timescale)
}

/// A file of a rendition without its first segment.
fn enter(rendition: &Rendition, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{}-entered.mp4", rendition.name));
    let bytes: Vec<u8> = std::iter::once(&rendition.init).chain(&rendition.segments[1..]).flatten().copied().collect();
    std::fs::write(&path, bytes).expect("written");
    path
}

/// All sound as one channel of 16 bits; a sample's place is its time.
fn samples(input: &str) -> Vec<i16> {
    let filter = "aresample=48000:async=1:min_hard_comp=0.002:first_pts=0,pan=mono|c0=c0";
    let arguments = ["-v", "error", "-nostdin", "-copyts", "-i", input, "-map", "0:a:0", "-af", filter, "-f", "s16le", "-"];
    let pcm = Command::new("ffmpeg").args(arguments).output().expect("ffmpeg").stdout;
    pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// By how many samples, `slack` at most, the first sound is later than the second, where they are the same from `from` seconds to half a
/// second before the end but for the last bit.
fn compare(ours: &[i16], theirs: &[i16], from: f64, slack: i64) -> Option<i64> {
    let (begin, end) = ((from * RATE) as i64 + slack, ours.len().min(theirs.len()) as i64 - (RATE / 2.0) as i64);
    assert!(end - begin > RATE as i64, "enough to compare");
    let at = |sound: &[i16], place: i64| sound[usize::try_from(place).expect("within")];
    let same = |lag: i64| (begin..end).all(|place| at(ours, place + lag).abs_diff(at(theirs, place)) <= 1);
    (0..=slack).flat_map(|lag| [lag, -lag]).find(|lag| same(*lag))
}

/// By how many samples the first sound is later than the second, as far as can be told of two that are not quite the same: decoders of
/// AC-3 and Opus fill in noise by what they decoded before. And how much of the sound is different then.
fn nearest(ours: &[i16], theirs: &[i16], from: f64) -> (i64, f64) {
    let (begin, end) = ((from * RATE) as usize, ours.len().min(theirs.len()) - (RATE / 2.0) as usize);
    let difference = |lag: i64| -> u64 {
        let place = |place: usize| usize::try_from(place as i64 + lag).expect("within");
        (begin..end).map(|at| u64::from(ours[place(at)].abs_diff(theirs[at]))).sum()
    };
    let lag = (-50..=50).min_by_key(|lag| difference(*lag)).expect("some");
    let loud: u64 = theirs[begin..end].iter().map(|sample| u64::from(sample.unsigned_abs())).sum();
    (lag, difference(lag) as f64 / loud as f64)
}

/// The usual picture with sound of this coding.
fn with_sound(name: &str, coding: &str) -> PathBuf {
    by_ffmpeg(name, &format!("{} {X264} {coding}", both(LENGTH)))
}

const SURROUND: &str = "-af pan=5.1|FL=c0|FR=c0|FC=0.5*c0|LFE=0.1*c0|BL=0.6*c0|BR=0.4*c0";
const H264: &str = "avc1.64";

#[tokio::test(flavor = "multi_thread")]
async fn ac3_in_matroska() {
    judge(&with_sound("ac3.mkv", &format!("{SURROUND} -c:a ac3 -b:a 448k")), [H264, "ac-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ac3_of_mkvmerge() {
    judge(&by_mkvmerge("ac3.mkv", "", &with_sound("ac3.mkv", "-c:a ac3 -b:a 192k")), [H264, "ac-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ac3_in_mp4() {
    judge(&with_sound("ac3.mp4", "-c:a ac3 -b:a 192k"), [H264, "ac-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eac3_in_matroska() {
    judge(&with_sound("eac3.mkv", &format!("{SURROUND} -c:a eac3 -b:a 640k")), [H264, "ec-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eac3_in_mp4() {
    judge(&with_sound("eac3.mp4", "-c:a eac3 -b:a 256k"), [H264, "ec-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opus_in_matroska() {
    judge(&with_sound("opus.mkv", "-c:a libopus -b:a 96k"), [H264, "opus"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opus_of_mkvmerge() {
    judge(&by_mkvmerge("opus.mkv", "", &with_sound("opus.mkv", "-c:a libopus -b:a 96k")), [H264, "opus"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opus_in_mp4() {
    judge(&with_sound("opus.mp4", "-c:a libopus -b:a 96k"), [H264, "opus"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flac_in_matroska() {
    judge(&with_sound("flac.mkv", "-c:a flac"), [H264, "fLaC"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flac_in_mp4() {
    judge(&with_sound("flac.mp4", "-c:a flac -strict -2"), [H264, "fLaC"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mp3_in_matroska() {
    judge(&with_sound("mp3.mkv", "-c:a libmp3lame -b:a 128k"), [H264, "mp4a.6B"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mp3_in_mp4() {
    judge(&with_sound("mp3.mp4", "-c:a libmp3lame -b:a 128k"), [H264, "mp4a.6B"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alac_in_mp4() {
    judge(&with_sound("alac.mp4", "-c:a alac"), [H264, "alac"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alac_in_matroska() {
    judge(&with_sound("alac.mkv", "-c:a alac"), [H264, "alac"]).await;
}

/// A picture of this coding, with AAC beside it.
fn with_picture(name: &str, coding: &str) -> PathBuf {
    by_ffmpeg(name, &format!("{} {coding} {AAC}", both(LENGTH)))
}

/// Key frames at 0, 4.3 and 9.7 s, none of them open.
const KEYS: &str = "-g 999 -force_key_frames 0,1.1,4.3,5.0,9.7";
const VP9: &str = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 600k -auto-alt-ref 1 -lag-in-frames 16";
const AV1: &str = "-c:v libaom-av1 -usage realtime -cpu-used 8 -b:v 500k";
/// An open group of pictures about each two seconds, as x265 makes them when it is left alone.
const OPEN: &str = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -tag:v hvc1 \
     -x265-params log-level=none:bframes=4:b-pyramid=1:keyint=60:min-keyint=30:scenecut=40:open-gop=1:rc-lookahead=20";
const AAC_LC: &str = "mp4a.40.2";

#[tokio::test(flavor = "multi_thread")]
async fn vp9_in_webm_with_opus() {
    let film = by_ffmpeg("vp9.webm", &format!("{} {VP9} {KEYS} -c:a libopus -b:a 96k", both(LENGTH)));
    judge(&film, ["vp09.00.21.08", "opus"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vp9_in_mp4() {
    judge(&with_picture("vp9.mp4", &format!("{VP9} {KEYS}")), ["vp09.00.21.08", AAC_LC]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vp9_of_mkvmerge() {
    let film = by_mkvmerge("vp9.mkv", "", &with_picture("vp9.mp4", &format!("{VP9} {KEYS}")));
    judge(&film, ["vp09.00.21.08", AAC_LC]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn av1_in_matroska() {
    judge(&with_picture("av1.mkv", &format!("{AV1} {KEYS}")), ["av01.0.01M.08", AAC_LC]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn av1_in_mp4() {
    judge(&with_picture("av1.mp4", &format!("{AV1} {KEYS}")), ["av01.0.01M.08", AAC_LC]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_hevc_in_mp4() {
    judge(&with_picture("open.mp4", OPEN), ["hvc1.1.6.L63", AAC_LC]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_hevc_in_matroska() {
    judge(&with_picture("open.mkv", OPEN), ["hvc1.1.6.L63", AAC_LC]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_hevc_of_mkvmerge() {
    judge(&by_mkvmerge("open.mkv", "", &with_picture("open.mp4", OPEN)), ["hvc1.1.6.L63", AAC_LC]).await;
}

/// Colour and light that only the container tells.
#[tokio::test(flavor = "multi_thread")]
async fn hdr_of_mkvmerge() {
    const TOLD: &str = "--colour-matrix-coefficients 0:9 --colour-primaries 0:9 --colour-transfer-characteristics 0:16 \
         --max-content-light 0:1000 --max-frame-light 0:400 --max-luminance 0:1000 --min-luminance 0:0.0001 \
         --chromaticity-coordinates 0:0.708,0.292,0.17,0.797,0.131,0.046 --white-colour-coordinates 0:0.3127,0.329";
    let film = with_picture("deep.mp4", &OPEN.replace("yuv420p", "yuv420p10le"));
    let played = judge(&by_mkvmerge("hdr.mkv", TOLD, &film), ["hvc1.2.4.L63", AAC_LC]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let seen = hls::facts(&played.renditions[0].write(folder.path())).await["streams"][0].clone();
    // ffprobe itself tells what the pictures say of their colour, which is nothing.
    let colour = b"colrnclx\0\x09\0\x10\0\x09\0";
    assert!(played.renditions[0].init.windows(colour.len()).any(|bytes| bytes == colour), "BT.2020 and PQ");
    let light = seen["side_data_list"].as_array().expect("side data").clone();
    let field = |name: &str| light.iter().map(|one| one[name].clone()).find(|told| !told.is_null());
    assert_eq!(field("max_content"), Some(json!(1000)), "{light:#?}");
    assert_eq!(field("max_average"), Some(json!(400)));
    assert_eq!(field("max_luminance"), Some(json!("10000000/10000")));
    assert_eq!(field("green_x"), Some(json!("8500/50000")));
}

/// What a client does not name is converted; the picture is not.
#[tokio::test(flavor = "multi_thread")]
async fn only_for_who_plays_it() {
    let swarm = Swarm::seed(&with_sound("eac3.mp4", "-c:a eac3 -b:a 256k"), SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    for (options, mode) in [
        (json!({}), "convert_audio"),
        (json!({ "capabilities": { "audio": ["aac", "ac3", "flac"] } }), "convert_audio"),
        (json!({ "capabilities": { "audio": ["aac", "EC-3"] } }), "copy"),
    ] {
        let status = server.play(&swarm.link(), options.clone()).await;
        assert_eq!(status["mode"], mode, "{options}");
    }
    assert_eq!(server.end().and_then(|status| status.code()), Some(0));
}

/// Used by every film of this file.
#[test]
fn the_comparison_sees_one_sample() {
    let sound: Vec<i16> = (0..200_000_i64).map(|place| i16::try_from(place * place % 7919).expect("small")).collect();
    assert_eq!(compare(&sound, &sound, 0.0, 0), Some(0));
    assert_eq!(compare(&sound[1..], &sound, 0.0, 0), None);
    assert_eq!(compare(&sound[1..], &sound, 0.0, 5), Some(-1));
    assert_eq!(nearest(&sound[1..], &sound, 1.0), (-1, 0.0));
    assert!(text(&with_sound("aac.mp4", AAC)).ends_with("aac.mp4"));
}
