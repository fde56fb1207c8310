//! A film to keep against independent readers: what ffmpeg decodes of it, and when, is what it decodes of the film that it came from.

#![allow(clippy::unwrap_used)] // tests say what they expect by failing

use std::path::Path;
use std::process::Command;

use balcony_media::container::{Kind, Samples, Sparse, mp4};
use balcony_media::fmp4::whole::{Line, Whole, lines};
use balcony_media::subtitle::Cue;
use bytes::Bytes;
use proptest::prelude::*;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("ffmpeg and ffprobe are installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.trim().is_empty(), "{program} {arguments:?}\n{complaints}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One track of a film in fragments: its init segment, and everything behind it.
fn fragments(film: &Path, stream: &str) -> (Bytes, Bytes) {
    let out = film.with_extension(format!("{}.mp4", stream.replace(':', "")));
    let flags = "+frag_keyframe+delay_moov+default_base_moof";
    run("ffmpeg", &["-v", "error", "-y", "-i", text(film), "-map", &format!("0:{stream}"), "-c", "copy", "-movflags", flags, text(&out)]);
    let bytes = Bytes::from(std::fs::read(&out).unwrap());
    let moov = bytes.windows(4).position(|four| four == b"moov").unwrap() - 4;
    let length = u32::from_be_bytes(bytes[moov..moov + 4].try_into().unwrap()) as usize;
    (bytes.slice(..moov + length), bytes.slice(moov + length..))
}

/// Puts tracks together, in turns of so many bytes.
fn put_together(tracks: &[(Bytes, Bytes)], step: usize, lines: &[Line]) -> Vec<u8> {
    let mut whole = Whole::new();
    let mut media = Vec::new();
    let numbers: Vec<usize> = tracks.iter().map(|(init, _)| whole.add(init).unwrap()).collect();
    let longest = tracks.iter().map(|(_, rest)| rest.len()).max().unwrap();
    for at in (0..longest).step_by(step) {
        for (number, (_, rest)) in numbers.iter().zip(tracks) {
            let piece = rest.slice(at.min(rest.len())..(at + step).min(rest.len()));
            whole.push(*number, piece).unwrap().iter().for_each(|bytes| media.extend_from_slice(bytes));
        }
    }
    whole.add_text("ger", "Deutsch", lines).iter().for_each(|bytes| media.extend_from_slice(bytes));
    assert_eq!(media.len() as u64, whole.media());
    let mut file = whole.head().to_vec();
    file.extend(media);
    file
}

fn line(from: u64, until: u64, text: &str) -> Line {
    Line { from, until, text: text.to_owned() }
}

#[test]
fn what_is_kept_plays_as_the_film_does() {
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("film.mp4");
    run(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=320x180:r=30000/1001:d=6",
            "-f",
            "lavfi",
            "-i",
            "sine=f=440:r=48000:d=6",
            "-force_key_frames",
            "0,1.1,4.3",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            "-bf",
            "3",
            "-preset",
            "veryfast",
            "-c:a",
            "aac",
            "-metadata:s:a:0",
            "language=fre",
            text(&film),
        ],
    );
    let tracks = [fragments(&film, "v:0"), fragments(&film, "a:0")];
    let lines = [line(500, 1500, "Grüße\nund mehr"), line(1000, 2000, "überlappt"), line(3000, 3000, "nie"), line(5000, 6500, "Ende")];
    let kept = folder.path().join("kept.mp4");
    std::fs::write(&kept, put_together(&tracks, 7001, &lines)).unwrap();

    for stream in ["0:v", "0:a"] {
        let decoded = |path| run("ffmpeg", &["-v", "error", "-i", text(path), "-map", stream, "-f", "framemd5", "-"]);
        let frames = |path| decoded(path).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        let differs = frames(&kept).iter().zip(&frames(&film)).position(|(kept, film)| kept != film);
        assert_eq!((differs, frames(&kept).len()), (None, frames(&film).len()), "{stream}");
    }
    let said = run("ffprobe", &["-v", "error", "-show_entries", "stream=codec_name:stream_tags=language", "-of", "csv=p=0", text(&kept)]);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["h264,und", "aac,fre", "mov_text,ger"]);
    let subtitles = run("ffmpeg", &["-v", "error", "-i", text(&kept), "-map", "0:s", "-f", "webvtt", "-"]);
    let expected =
        "WEBVTT\n\n00:00.500 --> 00:01.500\nGrüße\nund mehr\n\n00:01.500 --> 00:02.000\nüberlappt\n\n00:05.000 --> 00:06.500\nEnde";
    assert_eq!(subtitles.trim(), expected);
    let bytes = std::fs::read(&kept).unwrap();
    let at = |four: &[u8; 4]| bytes.windows(4).position(|window| window == four).unwrap();
    assert!(at(b"moov") < at(b"mdat"), "its tables stand in front");
}

#[test]
fn cues_become_lines_of_which_one_is_shown_at_a_time() {
    let cue = |start, end, text: &str| Cue { start, end, text: text.to_owned(), settings: String::new() };
    let cues = [cue(1000, 3000, "<i>one</i>"), cue(2000, 4000, "two &amp;lt; &lt;3"), cue(6000, 7000, "<b></b>"), cue(2000, 2500, "x")];
    let expected = [
        line(1000, 2000, "one"),
        line(2000, 2500, "one\ntwo &lt; <3\nx"),
        line(2500, 3000, "one\ntwo &lt; <3"),
        line(3000, 4000, "two &lt; <3"),
    ];
    assert_eq!(lines(&cues), expected);
}

#[test]
fn what_is_no_track_is_refused() {
    assert!(Whole::new().add(&Bytes::from_static(b"\0\0\0\x08moov")).is_err());
    let mut whole = Whole::new();
    assert!(whole.push(3, Bytes::from_static(b"nothing")).unwrap().is_empty(), "a track that was never added has no media");
    assert_eq!(whole.media(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the pieces come, our own reader of films finds every sample where it stands.
    #[test]
    fn tables_name_the_samples(step in 1usize..4000, texts in proptest::collection::vec((0u64..5000, 0u64..3000, "[a-zäß ]{0,40}"), 0..6)) {
        let init = include_bytes!("kept/init.mp4");
        let rest = include_bytes!("kept/segment.m4s");
        let track = (Bytes::from_static(init), Bytes::from_static(rest));
        let mut lines: Vec<Line> = texts.into_iter().map(|(from, lasts, text)| Line { from, until: from + lasts, text }).collect();
        lines.sort_by_key(|line| line.from);
        let file = Bytes::from(put_together(&[track.clone(), track], step, &lines));
        let mut known = Sparse::new(file.len() as u64);
        known.insert(0, file.clone());
        let index = mp4::index(&known).unwrap();
        let sound: Vec<_> = index.tracks.iter().filter(|track| track.kind == Kind::Audio).collect();
        prop_assert_eq!(sound.len(), 2);
        let read = |at: usize| -> Vec<Bytes> {
            let Samples::Table(samples) = &sound[at].samples else { panic!("no table") };
            samples.iter().map(|one| file.slice(one.offset as usize..(one.offset + u64::from(one.size)) as usize)).collect()
        };
        prop_assert_eq!(read(0), read(1));
        prop_assert!(read(0).len() > 20);
        prop_assert!(rest.windows(read(0)[9].len()).any(|window| window == read(0)[9]));
    }
}
