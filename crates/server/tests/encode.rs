//! Encoded segments made by real ffmpeg from real files: whichever run makes them, they join.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use balcony_media::codec::h264;
use balcony_media::encoder::{Devices, Encoder, Family, Silicon, Wanted};
use balcony_media::ffmpeg::{Hdr, Input, ToneMap, VideoJob};
use balcony_media::fmp4::Packet;
use balcony_media::fmp4::read::{Event, Reader};
use balcony_media::ladder::{Rate, Size, rung_bitrate};
use balcony_server::loopback::Loopback;
use balcony_server::produce::assemble::{Grid, Made};
use balcony_server::produce::encode::{Coding, EncodeRun, FilmInput, Patience, RunError, Target, Tools, header};
use balcony_server::produce::filters::Filters;
use balcony_server::produce::probe::{ProbeError, probe};
use balcony_server::produce::trial::{Choice, attempt_all};
use balcony_server::source::Source;
use balcony_server::spawner::Spawner;
use balcony_server::tasks::Tasks;
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LONG: Duration = Duration::from_secs(60);

fn program(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}

fn ffmpeg(args: &str, file: &Path) {
    let done = Command::new(program("FFMPEG_BIN", "ffmpeg"))
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(args.split_whitespace())
        .arg(file)
        .status()
        .expect("ffmpeg");
    assert!(done.success(), "{args}");
}

/// A film with B-frames, irregular key frames and a click each second.
fn film(folder: &Path, name: &str, seconds: u32) -> PathBuf {
    let path = folder.join(name);
    let codecs = if name.ends_with("avi") { "-c:v mpeg4 -g 50 -c:a mp3" } else { "-c:v libx264 -preset veryfast -bf 3 -g 90 -c:a aac" };
    let args = format!(
        "-f lavfi -i testsrc2=s=320x180:r=24000/1001:d={seconds} \
         -f lavfi -i aevalsrc=0.9*between(mod(t\\,1)\\,0\\,0.002):s=44100:d={seconds} {codecs} -pix_fmt yuv420p -shortest"
    );
    ffmpeg(&args, &path);
    path
}

async fn tools(ffmpeg: PathBuf) -> Tools {
    let tasks = Tasks::new();
    Tools {
        spawner: Spawner::start(PathBuf::from(env!("CARGO_BIN_EXE_balcony-server"))).expect("a thread"),
        loopback: Loopback::start(&tasks).await.expect("listening"),
        ffmpeg,
        ffprobe: program("FFPROBE_BIN", "ffprobe"),
        filters: Filters::default(),
        tasks,
        patience: Patience::default(),
        choice: Choice::of(Wanted::Auto, Devices::default()),
    }
}

async fn real_tools() -> Tools {
    tools(program("FFMPEG_BIN", "ffmpeg")).await
}

fn input(path: &Path, start_us: i64, indexed: bool) -> FilmInput {
    FilmInput { source: Source::local(path).expect("opened"), zero_us: start_us, origin_us: start_us, indexed, marks: None }
}

fn pictures(cuts: Vec<i64>, timescale: u32) -> Target {
    let encoder = Encoder::X264 { preset: "superfast", crf: 28, maxrate: 600_000, bufsize: 600_000, level: 30, set: 0 };
    let frame = (u64::from(timescale) * 1001).div_ceil(24_000) as u32;
    Target {
        stream: 0,
        language: "und".into(),
        grid: Grid { cuts: cuts.into(), timescale, frame },
        coding: Coding::Pictures {
            size: Size { width: 160, height: 90 },
            scale: true,
            interlaced: false,
            hdr: None,
            apart_us: None,
            burn: None,
            encoder,
            shift: 2 * u64::from(frame),
            threads: 2,
        },
    }
}

fn sound(seconds: i64) -> Target {
    let cuts: Vec<i64> = (0..=seconds / 2).map(|n| (n * 2 * 48_000 + 512) / 1024 * 1024).collect();
    Target {
        stream: 1,
        language: "eng".into(),
        grid: Grid { cuts: cuts.into(), timescale: 48_000, frame: 1024 },
        coding: Coding::Sound { channels: 2, bitrate: 128_000 },
    }
}

/// What one run made: the init segment and segments by number.
#[derive(Default)]
struct Collected {
    init: Bytes,
    segments: Vec<(u32, Bytes)>,
    again: usize,
    ended: bool,
}

/// Takes segments from `from` until `count` are whole or the run ends, and checks the order of what is handed on.
async fn collect(tools: &Tools, film: &FilmInput, target: &Target, from: u32, count: usize) -> Result<Collected, RunError> {
    collect_with(tools, film, target, from, count, |_| {}).await
}

/// The same; `on_chunk` hears the segment of each chunk.
async fn collect_with(
    tools: &Tools,
    film: &FilmInput,
    target: &Target,
    from: u32,
    count: usize,
    mut on_chunk: impl FnMut(u32),
) -> Result<Collected, RunError> {
    let mut run = EncodeRun::start(tools, film.clone(), target.clone(), from);
    let (mut collected, mut open, mut next) = (Collected::default(), Vec::new(), from);
    while collected.segments.len() < count {
        let Some(made) = tokio::time::timeout(LONG, run.next()).await.expect("in time") else { break };
        match made? {
            Made::Init(init) => {
                assert!(collected.init.is_empty(), "one init");
                collected.init = init;
            }
            Made::Chunk { segment, bytes, first } => {
                assert_eq!((segment, first), (next, open.is_empty()));
                assert_eq!(bytes.get(4..8), Some(if first { &b"styp"[..] } else { b"moof" }));
                open.extend_from_slice(&bytes);
                on_chunk(segment);
            }
            Made::SegmentDone { segment } => {
                assert!(segment == next && !open.is_empty());
                collected.segments.push((segment, Bytes::from(std::mem::take(&mut open))));
                next += 1;
            }
            Made::Again { segment } => {
                assert!(segment == next && !open.is_empty());
                collected.again += 1;
                open.clear();
            }
            Made::End => collected.ended = true,
        }
    }
    Ok(collected)
}

fn packets(init: &Bytes, segments: &[&Bytes]) -> Vec<Packet> {
    let mut reader = Reader::new();
    reader.push(init.clone());
    segments.iter().for_each(|bytes| reader.push((*bytes).clone()));
    let mut packets = Vec::new();
    let mut shift = 0;
    while let Some(event) = reader.next().expect("our own segments") {
        match event {
            Event::Header(tracks) => shift = tracks[0].media_time,
            Event::Packet(packet) => packets.push(Packet { pts: packet.pts - shift, ..packet }),
        }
    }
    packets
}

/// Everything of a segment but its bytes and sizes, which an encoder with several threads may choose anew.
fn shape(init: &Bytes, segment: &Bytes) -> Vec<(i64, i64, u32, bool)> {
    packets(init, &[segment]).iter().map(|packet| (packet.pts, packet.dts, packet.duration, packet.key)).collect()
}

/// Times of the source's packets in seconds, in order of time.
fn source_times(path: &Path, stream: &str) -> Vec<f64> {
    let output = Command::new(program("FFPROBE_BIN", "ffprobe"))
        .args(["-v", "error", "-select_streams", stream, "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe");
    let mut times: Vec<f64> =
        String::from_utf8(output.stdout).expect("text").lines().filter_map(|line| line.trim_matches(',').parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// What ffmpeg complains about when it decodes all of it.
fn complaints(folder: &Path, init: &Bytes, segments: &[&Bytes]) -> String {
    let path = folder.join("joined.mp4");
    let mut all = init.to_vec();
    segments.iter().for_each(|bytes| all.extend_from_slice(bytes));
    std::fs::write(&path, all).expect("written");
    let output = Command::new(program("FFMPEG_BIN", "ffmpeg"))
        .args(["-hide_banner", "-loglevel", "warning", "-nostdin", "-xerror", "-i"])
        .arg(&path)
        .args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-"])
        .output()
        .expect("ffmpeg");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Three runs, from segments 0, 3 and 7, give what one run gives, and what they give together has no seam.
async fn runs_join(film: FilmInput, target: Target, folder: &Path) -> (Bytes, Vec<Bytes>) {
    let tools = real_tools().await;
    let whole = collect(&tools, &film, &target, 0, usize::MAX).await.expect("made");
    assert!(whole.ended && whole.segments.len() as u32 == target.grid.segments());
    let mut joined: Vec<Bytes> = Vec::new();
    for Range { start, end } in [0..3_u32, 3..7, 7..target.grid.segments()] {
        let part = collect(&tools, &film, &target, start, (end - start) as usize).await.expect("made");
        assert_eq!(part.init, whole.init, "one init segment for all runs");
        for (number, bytes) in part.segments {
            assert_eq!(shape(&whole.init, &bytes), shape(&whole.init, &whole.segments[number as usize].1), "segment {number}");
            joined.push(bytes);
        }
    }
    let segments: Vec<&Bytes> = joined.iter().collect();
    let packets = packets(&whole.init, &segments);
    for pair in packets.windows(2) {
        assert_eq!(pair[0].dts + i64::from(pair[0].duration), pair[1].dts, "neither gap nor overlap at {}", pair[1].dts);
    }
    assert_eq!(complaints(folder, &whole.init, &segments), "");
    assert_eq!(tools.tasks.end(Duration::from_secs(5)).await, 0, "no task is left");
    (whole.init, joined)
}

/// The pictures of the segments are those of the source, one for one, at their times.
fn same_pictures(init: &Bytes, segments: &[Bytes], timescale: u32, source: &Path, start: f64, tolerance: f64) {
    let mut times: Vec<i64> = packets(init, &segments.iter().collect::<Vec<_>>()).iter().map(|packet| packet.pts).collect();
    times.sort_unstable();
    let expected = source_times(source, "v:0");
    assert_eq!(times.len(), expected.len());
    for (time, expected) in times.iter().zip(expected) {
        let time = *time as f64 / f64::from(timescale);
        assert!((time - (expected - start)).abs() <= tolerance, "{time} is not {expected} - {start}");
    }
}

fn codecs(init: &Bytes) -> String {
    let mut reader = Reader::new();
    reader.push(init.clone());
    match reader.next().expect("our own init") {
        Some(Event::Header(tracks)) => h264::describe(&tracks[0].config).expect("parameter sets").codecs,
        other => panic!("{other:?}"),
    }
}

/// Every filter of the chain at once: fields, tones, size. Rotation is ffmpeg's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_an_interlaced_hdr_film_join() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hdr.mkv");
    let colour = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc";
    ffmpeg(&format!("-f lavfi -i testsrc2=s=320x180:r=25:d=10 -vf setfield=tff -c:v libx264 -flags +ildct+ilme -g 60 {colour}"), &path);
    let mut target = pictures((0..=10).map(|n| n * 90_000).collect(), 90_000);
    if let Coding::Pictures { interlaced, hdr, .. } = &mut target.coding {
        (*interlaced, *hdr) = (true, Some(Hdr::Pq));
    }
    let (init, segments) = runs_join(input(&path, 0, true), target, folder.path()).await;
    same_pictures(&init, &segments, 90_000, &path, 0.0, 0.00001);
    assert_eq!(codecs(&init), h264::codecs_high(30));
}

/// Whichever segment a run begins with, the same pictures of a fast film are left out, and cuts keep theirs. One cut lies at an odd picture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_the_pictures_of_a_fast_film_join() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fast.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=320x180:r=50:d=10 -c:v libx264 -preset ultrafast -bf 2 -g 50 -pix_fmt yuv420p", &path);
    let (timescale, frame) = (90_000, 1800);
    let mut cuts: Vec<i64> = (0..=10).map(|n| n * 90_000).collect();
    cuts[4] += frame;
    let mut target = pictures(cuts.clone(), timescale);
    target.grid.frame = 2 * frame as u32;
    if let Coding::Pictures { apart_us, shift, .. } = &mut target.coding {
        (*apart_us, *shift) = (Some(30_000), 4 * frame as u64);
    }
    let (init, segments) = runs_join(input(&path, 0, true), target, folder.path()).await;
    let mut times: Vec<i64> = packets(&init, &segments.iter().collect::<Vec<_>>()).iter().map(|packet| packet.pts).collect();
    times.sort_unstable();
    let expected: Vec<i64> = cuts.windows(2).flat_map(|pair| (pair[0]..pair[1]).step_by(2 * frame as usize)).collect();
    assert_eq!(times, expected);
}

/// Noise is what an encoder cannot save bits on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_segment_takes_more_than_the_rate_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("noise.mp4");
    ffmpeg(
        "-f lavfi -i testsrc2=s=640x360:r=24:d=12,noise=alls=60:allf=t+u -c:v libx264 -preset ultrafast -crf 18 -pix_fmt yuv420p",
        &path,
    );
    let size = Size { width: 640, height: 360 };
    let rate = rung_bitrate(size, 24.0);
    let encoder = Encoder::X264 { preset: "superfast", crf: 23, maxrate: rate.maxrate, bufsize: rate.bufsize, level: 30, set: 0 };
    let coding =
        Coding::Pictures { size, scale: false, interlaced: false, hdr: None, apart_us: None, burn: None, encoder, shift: 1024, threads: 2 };
    let grid = Grid { cuts: (0..=6).map(|n| n * 2 * 12_288).collect(), timescale: 12_288, frame: 512 };
    let target = Target { stream: 0, language: "und".into(), grid, coding };
    let made = collect(&real_tools().await, &input(&path, 0, true), &target, 0, usize::MAX).await.expect("made");
    let most = made.segments.iter().map(|(_, bytes)| bytes.len() as u64 * 8 / 2).max().expect("segments");
    assert!(most > rate.average && most <= rate.peak, "{most} bit/s of {rate:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_an_mp4_join_at_its_own_key_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 24);
    // Cuts in the ticks of the file: some at its key frames (every 90 frames), some between.
    let cuts = [0, 45, 90, 135, 180, 225, 270, 315, 360, 405, 450, 495, 576].map(|frame| frame * 1001).to_vec();
    let target = pictures(cuts.clone(), 24_000);
    let (init, segments) = runs_join(input(&path, 0, true), target, folder.path()).await;
    same_pictures(&init, &segments, 24_000, &path, 0.0, 0.00001);
    assert_eq!(codecs(&init), h264::codecs_high(30), "CODECS can be told before anything is encoded");
    for (segment, cut) in segments.iter().zip(cuts) {
        let first = shape(&init, segment)[0];
        assert_eq!((first.0, first.1, first.3), (cut, cut, true), "a segment begins with the key frame at its cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_a_matroska_file_join_on_a_grid_between_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mkv", 20);
    let origin = (source_times(&path, "v:0")[0].min(source_times(&path, "a:0")[0]) * 1e6) as i64;
    let film = FilmInput { zero_us: 0, origin_us: origin, ..input(&path, 0, true) };
    let target = pictures((0..=10).map(|n| n * 2 * 90_000).collect(), 90_000);
    let (init, segments) = runs_join(film, target, folder.path()).await;
    same_pictures(&init, &segments, 90_000, &path, 0.0, 0.00001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_a_broadcast_join_though_no_table_tells_where_to_seek() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.ts", 20);
    let tools = real_tools().await;
    let probed = probe(&tools, Source::local(&path).expect("opened"), LONG).await.expect("probed");
    assert!(probed.format == "mpegts" && probed.start_us > 1_000_000 && probed.tracks.len() == 2, "{probed:?}");
    assert!((probed.duration.expect("estimated") - 20.0).abs() < 0.2);
    let target = pictures((0..=10).map(|n| n * 2 * 90_000).collect(), 90_000);
    let (init, segments) = runs_join(input(&path, probed.start_us, false), target, folder.path()).await;
    same_pictures(&init, &segments, 90_000, &path, probed.start_us as f64 / 1e6, 0.00002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_an_avi_join() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.avi", 20);
    let target = pictures((0..=10).map(|n| n * 2 * 90_000).collect(), 90_000);
    let (init, segments) = runs_join(input(&path, 0, false), target, folder.path()).await;
    same_pictures(&init, &segments, 90_000, &path, 0.0, 0.00002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_lies_on_one_grid_and_is_heard_when_the_source_is() {
    for (name, indexed) in [("film.mp4", true), ("film.ts", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = film(folder.path(), name, 24);
        let tools = real_tools().await;
        let start = if indexed { 0 } else { probe(&tools, Source::local(&path).expect("opened"), LONG).await.expect("probed").start_us };
        let target = sound(24);
        let (init, segments) = runs_join(input(&path, start, indexed), target.clone(), folder.path()).await;
        for (segment, cut) in segments.iter().zip(target.grid.cuts.iter()) {
            assert_eq!(shape(&init, segment)[0], (*cut, *cut, 1024, true));
        }
        let heard = clicks(&folder.path().join("joined.mp4"));
        let expected = clicks(&path);
        assert!(heard.len() >= 23 && heard.len() == expected.len(), "{heard:?}");
        for (heard, expected) in heard.iter().zip(expected) {
            assert!(heard.abs_diff(expected) <= 24, "{name}: {heard} is not {expected}");
        }
    }
}

/// Where the click of each second begins, in samples of 48 kHz from the file's own zero: the first that is half as loud as the loudest.
fn clicks(path: &Path) -> Vec<usize> {
    let output = Command::new(program("FFMPEG_BIN", "ffmpeg"))
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-map", "0:a", "-af", "aresample=48000:async=1", "-ac", "1", "-f", "s16le", "-"])
        .output()
        .expect("ffmpeg");
    let samples: Vec<i32> = output.stdout.chunks_exact(2).map(|two| i32::from(i16::from_le_bytes([two[0], two[1]])).abs()).collect();
    let onset = |second: usize| {
        let from = second * 48_000 - 4_800;
        let window = samples.get(from..from + 9_600)?;
        let loudest = window.iter().max()?;
        assert!(*loudest > 3_000, "a click at {second} s");
        window.iter().position(|level| level * 2 >= *loudest).map(|at| from + at)
    };
    (1..samples.len() / 48_000).filter_map(onset).collect()
}

/// Each channel has a tone of its own: the middle one, where speech is, is heard on both sides and not much weaker than the sides' own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_channels_are_folded_into_two_without_loss_of_speech() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("surround.mkv");
    let tones = [300, 500, 700, 60, 1100, 1300].map(|tone| format!("0.4*sin({tone}*2*PI*t)")).join("|");
    ffmpeg(&format!("-f lavfi -i aevalsrc={tones}:s=48000:c=5.1:d=16 -c:a ac3 -b:a 448k"), &path);
    let target = Target { stream: 0, ..sound(16) };
    let (_, _) = runs_join(input(&path, 0, true), target, folder.path()).await;
    let sides = samples(&folder.path().join("joined.mp4"));
    let heard = |side: usize, tone: f64| {
        let stretch = sides.iter().skip(2 * 48_000).take(48_000).map(|pair| f64::from(pair[side])).enumerate();
        let (re, im) = stretch.fold((0.0, 0.0), |(re, im), (at, sample)| {
            let turn = at as f64 / 48_000.0 * tone * std::f64::consts::TAU;
            (re + sample * turn.cos(), im + sample * turn.sin())
        });
        f64::hypot(re, im) / 24_000.0 / 0.4
    };
    for (side, own, back, other) in [(0, 300.0, 1100.0, 500.0), (1, 500.0, 1300.0, 300.0)] {
        let [own, speech, back, other] = [own, 700.0, back, other].map(|tone| heard(side, tone));
        assert!((0.55..0.7).contains(&own) && (0.65..0.75).contains(&(speech / own)), "side {side}: {own}, speech {speech}");
        assert!((0.65..0.75).contains(&(back / own)) && other < 0.02, "side {side}: {back} from behind, {other} from the other side");
    }
    assert!(sides.iter().flatten().all(|sample| sample.abs() < 1.0), "it clips");
    // Neighbouring runs agree on what is heard, not only on when: no click at a seam.
    let steepest = sides.windows(2).map(|two| (two[1][0] - two[0][0]).abs()).fold(0.0f32, f32::max);
    assert!(steepest < 0.35, "a step of {steepest}");
}

/// Both channels of a file's sound.
fn samples(path: &Path) -> Vec<[f32; 2]> {
    let arguments = ["-map", "0:a", "-ac", "2", "-f", "f32le", "-"];
    let output = Command::new(program("FFMPEG_BIN", "ffmpeg")).args(["-v", "error", "-nostdin", "-i"]).arg(path).args(arguments).output();
    let four = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    output.expect("ffmpeg").stdout.chunks_exact(8).map(|pair| [four(&pair[..4]), four(&pair[4..])]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_past_the_true_end_are_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 5);
    let tools = real_tools().await;
    for (target, stream) in [(pictures((0..=6).map(|n| n * 2 * 24_000).collect(), 24_000), "v:0"), (sound(12), "a:0")] {
        for from in [0, 1, 5] {
            let made = collect(&tools, &input(&path, 0, true), &target, from, usize::MAX).await.expect("made");
            assert!(made.ended && made.segments.len() == 6 - from as usize, "{stream} from {from}");
            for (number, bytes) in &made.segments {
                let empty = packets(&made.init, &[bytes]).is_empty();
                assert_eq!(empty, *number >= 3, "{stream} from {from}: segment {number}");
            }
        }
    }
}

/// An executable in the place of ffmpeg. It lives in the cage: it may become another program, but start none, and write nothing.
fn stub(folder: &Path, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("stub-ffmpeg");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// So short that a test of hanging is quick; a child that is only slow, on a busy machine, needs the real patience.
const SHORT: Patience = Patience { still: Duration::from_millis(400), fruitless: Duration::from_secs(5) };

async fn with_stub(folder: &Path, script: &str, patience: Patience) -> Result<Collected, RunError> {
    let path = film(folder, "film.mp4", 8);
    let mut tools = tools(stub(folder, script)).await;
    tools.patience = patience;
    let target = pictures([0, 48, 96, 144, 192].map(|frame| frame * 1001).to_vec(), 24_000);
    collect(&tools, &input(&path, 0, true), &target, 0, usize::MAX).await
}

/// Says nothing for long; the stub's path stays among its arguments.
const HANG: &str = "exec /usr/bin/python3 -c 'import time; time.sleep(1000)' \"$0\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_hangs_is_given_up_after_three() {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let seen = Watch::over(folder.path());
    assert!(matches!(with_stub(folder.path(), HANG, SHORT).await, Err(RunError::Hung)));
    assert!(began.elapsed() < Duration::from_secs(500), "the stub sleeps longer than that");
    let started = seen.end();
    assert_eq!(started.len(), 3);
    assert!(started.iter().all(|pid| gone(*pid)));
}

/// Sees every process that was started in the place of ffmpeg, by the folder in its arguments.
struct Watch {
    stop: std::sync::mpsc::Sender<()>,
    looking: std::thread::JoinHandle<std::collections::BTreeSet<u32>>,
}

impl Watch {
    fn over(folder: &Path) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let folder = folder.to_owned();
        let looking = std::thread::spawn(move || {
            let mut seen = std::collections::BTreeSet::new();
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(10)) {
                seen.extend(stubs(&folder));
            }
            seen
        });
        Self { stop, looking }
    }

    fn end(self) -> Vec<u32> {
        drop(self.stop);
        self.looking.join().expect("joined").into_iter().collect()
    }
}

/// Processes that are being started or hang in the place of ffmpeg: they have the stub's path among their arguments.
fn stubs(folder: &Path) -> Vec<u32> {
    let path = folder.join("stub-ffmpeg").into_os_string().into_string().expect("text");
    let numbers = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&path)))
        .collect()
}

/// Children of this very process that are `program` by now. Other tests run in processes of their own.
fn children_of_this(program: &Path) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = program.file_name().expect("a name").to_owned();
    let own = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        let line = std::fs::read_link(format!("/proc/{pid}/exe"));
        parent == Some(std::process::id()) && line.is_ok_and(|exe| exe.file_name() == Some(&name))
    };
    numbers.filter(own).collect()
}

fn gone(pid: u32) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if !std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[tokio::test]
async fn a_child_that_dies_is_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    match with_stub(folder.path(), "echo no such codec >&2; exit 3", Patience::default()).await {
        Err(RunError::Died { status, stderr }) => assert!(status.contains('3') && stderr == "no such codec", "{status}: {stderr}"),
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn rubbish_is_not_believed() {
    for script in ["exec yes", "exec head -c 100000 /dev/zero", "printf '\\000\\000\\000\\020ftypisomaaaa\\000\\000\\000\\020moovxxxxyyyy'"]
    {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(with_stub(folder.path(), script, Patience::default()).await, Err(RunError::Rubbish(_))), "{script}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_dies_in_the_middle_is_started_again_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let real = program("FFMPEG_BIN", "ffmpeg");
    let path = film(folder.path(), "film.mp4", 8);
    // The first child makes the film as slowly as it plays, and is killed in the middle of the second segment.
    let tools = tools(stub(folder.path(), &format!("exec {} -re \"$@\"", real.display()))).await;
    let target = pictures([0, 48, 96, 144, 192].map(|frame| frame * 1001).to_vec(), 24_000);
    let mut killed = None;
    let film = input(&path, 0, true);
    let made = collect_with(&tools, &film, &target, 0, usize::MAX, |segment| {
        if segment == 1 && killed.is_none() {
            stub(folder.path(), &format!("exec {} \"$@\"", real.display()));
            killed = children_of_this(&real).first().copied();
            kill(Pid::from_raw(killed.expect("a child") as i32), Signal::SIGKILL).expect("killed");
        }
    });
    let made = made.await.expect("made in the end");
    assert!(made.ended && made.segments.len() == 4, "{} segments", made.segments.len());
    assert!(killed.is_some() && made.again == 1, "the second child took a segment up again: {}", made.again);
    let segments: Vec<&Bytes> = made.segments.iter().map(|(_, bytes)| bytes).collect();
    let packets = packets(&made.init, &segments);
    assert_eq!(packets.len(), source_times(&folder.path().join("film.mp4"), "v:0").len());
    assert_eq!(packets.iter().filter(|packet| packet.key).count(), 4, "what was begun twice is there once");
    assert!(packets.windows(2).all(|pair| pair[0].dts + i64::from(pair[0].duration) == pair[1].dts));
    assert_eq!(complaints(folder.path(), &made.init, &segments), "");
}

#[tokio::test]
async fn dropping_a_run_ends_its_child() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 2);
    let tools = tools(stub(folder.path(), HANG)).await;
    let mut run = EncodeRun::start(&tools, input(&path, 0, true), pictures(vec![0, 48_048], 24_000), 0);
    let waited = Instant::now();
    while stubs(folder.path()).is_empty() && waited.elapsed() < Duration::from_secs(20) {
        assert!(tokio::time::timeout(Duration::from_millis(100), run.next()).await.is_err(), "nothing is made");
    }
    let pids = stubs(folder.path());
    assert!(pids.len() == 1 && Path::new(&format!("/proc/{}", pids[0])).exists());
    drop(run);
    // Lets the runtime drop the aborted task before this thread looks without a pause.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(gone(pids[0]));
}

#[tokio::test]
async fn a_probe_is_bounded_in_time_and_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 2);
    let source = Source::local(&path).expect("opened");
    let mut tools = real_tools().await;
    tools.ffprobe = stub(folder.path(), HANG);
    let began = Instant::now();
    assert!(matches!(probe(&tools, source.clone(), Duration::from_millis(300)).await, Err(ProbeError::Late)));
    assert!(began.elapsed() < Duration::from_secs(500), "the stub sleeps longer than that");
    tools.ffprobe = stub(folder.path(), "exec yes");
    assert!(matches!(probe(&tools, source.clone(), LONG).await, Err(ProbeError::Unreadable)));
    tools.ffprobe = program("FFPROBE_BIN", "ffprobe");
    // A playlist that calls itself a film would make ffmpeg fetch what it names.
    let playlist = folder.path().join("film.mkv");
    std::fs::write(&playlist, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/secret\n#EXT-X-ENDLIST\n")
        .expect("written");
    let refused = probe(&tools, Source::local(&playlist).expect("opened"), LONG).await;
    assert!(matches!(&refused, Err(ProbeError::Refused { stderr, .. }) if stderr.contains("whitelist")), "{refused:?}");
}

// ---------------------------------------------------------------- encoders in silicon

/// A program that takes the arguments of Nvidia's encoder and codes with x264: this machine has no card. It obeys as one does; `instead` may
/// change the arguments of a run that reads a film, or of a trial, before it becomes ffmpeg.
fn card(folder: &Path, instead: &str) -> PathBuf {
    let real = program("FFMPEG_BIN", "ffmpeg");
    let script = format!(
        r#"case "$*" in *h264_nvenc*) ;; *) exec {real} "$@";; esac
n=$#
film=
case "$*" in *http://*) film=yes;; esac
{instead}
while [ $n -gt 0 ]; do
    word=$1; shift; n=$((n-1))
    case $word in
        h264_nvenc) set -- "$@" libx264 -sc_threshold 0 -crf 23 -pix_fmt yuv420p;;
        -tune|-rc|-cq|-b:v|-no-scenecut|-rc-lookahead) shift; n=$((n-1));;
        -preset) set -- "$@" -preset superfast; shift; n=$((n-1));;
        -force_key_frames) set -- "$@" -force_key_frames "${{keys:-$1}}"; shift; n=$((n-1));;
        -frames:v) set -- "$@" -frames:v "$1"; shift; n=$((n-1)); pictures=;;
        -video_track_timescale) set -- "$@" ${{pictures:+-frames:v $pictures}} -video_track_timescale;;
        *) set -- "$@" "$word";;
    esac
done
exec {real} $slowly "$@""#,
        real = real.display()
    );
    stub(folder, &script)
}

/// As [`pictures`], by the card.
fn pictures_of_the_card(cuts: Vec<i64>, timescale: u32) -> Target {
    let mut target = pictures(cuts, timescale);
    if let Coding::Pictures { encoder, .. } = &mut target.coding {
        let rate = Rate { maxrate: 600_000, bufsize: 600_000, peak: 960_000, average: 360_000 };
        *encoder = Encoder::of_rung(&rate, 30, Some(Silicon::Nvenc));
    }
    target
}

/// How alike the pictures of two files are, from 0 to 1.
fn likeness(folder: &Path, init: &Bytes, segments: &[&Bytes], source: &Path) -> f64 {
    let path = folder.join("likeness.mp4");
    std::fs::write(&path, segments.iter().fold(init.to_vec(), |all, bytes| [&all, &bytes[..]].concat())).expect("written");
    let output = Command::new(program("FFMPEG_BIN", "ffmpeg"))
        .args(["-hide_banner", "-nostdin", "-i"])
        .arg(&path)
        .arg("-i")
        .arg(source)
        .args(["-lavfi", "[1:v]scale=160:90,settb=1/24000[b];[0:v]settb=1/24000[a];[a][b]ssim", "-f", "null", "-"])
        .output()
        .expect("ffmpeg");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let all = said.rsplit_once("All:").unwrap_or_else(|| panic!("{said}")).1;
    all.split_whitespace().next().expect("a number").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_works_makes_it_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 8);
    let tools = tools(card(folder.path(), "")).await;
    let target = pictures_of_the_card([0, 48, 96, 144, 192].map(|frame| frame * 1001).to_vec(), 24_000);
    let made = collect(&tools, &input(&path, 0, true), &target, 0, usize::MAX).await.expect("made");
    assert!(made.ended && made.again == 0 && made.segments.len() == 4);
    assert_eq!(tools.choice.told().distrusted, []);
    let init = header(&tools, &target, None).await.expect("a header");
    assert_eq!(codecs(&init), "avc1.64001E");
    let segments: Vec<Bytes> = made.segments.iter().map(|(_, bytes)| bytes.clone()).collect();
    same_pictures(&init, &segments, 24_000, &path, 0.0, 0.001);
    let all: Vec<&Bytes> = segments.iter().collect();
    assert_eq!(complaints(folder.path(), &init, &all), "");
}

/// Whatever a card does in the middle of a film: x264 goes on at the same segment, and nobody sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x264_stands_in_for_a_card_that_fails_in_the_middle() {
    for (mode, instead, why) in [
        ("it dies", "[ $film ] && slowly=-re", "signal"),
        ("it hangs", "[ $film ] && slowly=-re", "hangs"),
        ("it ends too soon", "[ $film ] && pictures=70", "before the film"),
        ("it makes no key frames", "[ $film ] && keys=0,2.0", "key frame"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = film(folder.path(), "film.mp4", 8);
        let mut tools = tools(card(folder.path(), instead)).await;
        tools.patience = Patience { still: Duration::from_secs(4), ..Patience::default() };
        let target = pictures_of_the_card([0, 48, 96, 144, 192].map(|frame| frame * 1001).to_vec(), 24_000);
        let init = header(&tools, &target, None).await.expect("a header");
        let real = program("FFMPEG_BIN", "ffmpeg");
        let mut hit = false;
        let film = input(&path, 0, true);
        let made = collect_with(&tools, &film, &target, 0, usize::MAX, |segment| {
            let signal = if mode == "it dies" { Signal::SIGKILL } else { Signal::SIGSTOP };
            if segment == 1 && !hit && instead.contains("slowly") {
                hit = true;
                for pid in children_of_this(&real) {
                    kill(Pid::from_raw(pid as i32), signal).expect("sent");
                }
            }
        });
        let made = made.await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert!(made.ended && made.segments.len() == 4, "{mode}: {} segments", made.segments.len());
        let distrusted = tools.choice.told().distrusted;
        assert!(distrusted.len() == 1 && distrusted[0].0 == Silicon::Nvenc && distrusted[0].1.contains(why), "{mode}: {distrusted:?}");
        let segments: Vec<Bytes> = made.segments.iter().map(|(_, bytes)| bytes.clone()).collect();
        let all: Vec<&Bytes> = segments.iter().collect();
        // The init segment that everybody gets, and that of the run that began: what is missing in it stands in the samples.
        for init in [&init, &made.init] {
            same_pictures(init, &segments, 24_000, &path, 0.0, 0.001);
            let packets = packets(init, &all);
            assert_eq!(packets.iter().filter(|packet| packet.key).count(), 4, "{mode}");
            assert!(packets.windows(2).all(|pair| pair[0].dts + i64::from(pair[0].duration) == pair[1].dts), "{mode}");
            assert_eq!(complaints(folder.path(), init, &all), "", "{mode}");
            let likeness = likeness(folder.path(), init, &all, &path);
            assert!(likeness > 0.9, "{mode}: {likeness}");
        }
        // The next film is not given to it.
        let again = collect(&tools, &film, &target, 1, usize::MAX).await.expect("made");
        assert!(again.again == 0 && again.segments.len() == 3, "{mode}");
        for (number, bytes) in &again.segments {
            assert_eq!(shape(&init, bytes), shape(&init, &segments[*number as usize]), "{mode}: segment {number}");
        }
    }
}

/// A player that obeys the configuration alone decodes the stand-in's pictures too: their sets are in it, under another number.
#[tokio::test]
async fn the_header_holds_the_sets_of_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let tools = tools(card(folder.path(), "")).await;
    let target = pictures_of_the_card(vec![0, 48_048], 24_000);
    let config = |init: &Bytes| {
        let mut reader = Reader::new();
        reader.push(init.clone());
        match reader.next().expect("our own init") {
            Some(Event::Header(tracks)) => tracks[0].config.clone(),
            other => panic!("{other:?}"),
        }
    };
    let both = config(&header(&tools, &target, None).await.expect("a header"));
    assert_eq!((both[5] & 0x1f, h264::describe(&both).expect("sets").codecs.as_str()), (2, "avc1.64001E"));
    // Without a card there is the other one alone.
    let tools = tools_without_a_card(folder.path()).await;
    let alone = config(&header(&tools, &target, None).await.expect("a header"));
    assert_eq!(alone[5] & 0x1f, 1);
}

async fn tools_without_a_card(folder: &Path) -> Tools {
    tools(stub(folder, &format!("case \"$*\" in *nvenc*) exit 1;; esac\nexec {} \"$@\"", program("FFMPEG_BIN", "ffmpeg").display()))).await
}

/// One that cannot even begin while others run on it is only full, and goes on being trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_is_full_is_not_a_bad_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 8);
    let target = pictures_of_the_card([0, 48, 96, 144, 192].map(|frame| frame * 1001).to_vec(), 24_000);
    for (crowded, expected) in [(true, 0), (false, 1)] {
        let tools = tools_without_a_card(folder.path()).await;
        let other = crowded.then(|| tools.choice.begun(&Silicon::Nvenc));
        let made = collect(&tools, &input(&path, 0, true), &target, 0, usize::MAX).await.expect("made");
        assert_eq!((made.segments.len(), tools.choice.told().distrusted.len()), (4, expected), "{crowded}");
        drop(other);
    }
}

/// A film that nothing can be made of says nothing about the card.
#[tokio::test]
async fn a_card_is_not_blamed_for_what_x264_cannot_do_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = film(folder.path(), "film.mp4", 2);
    let tools = tools(stub(folder.path(), "exit 1")).await;
    let target = pictures_of_the_card(vec![0, 48_048], 24_000);
    let made = collect(&tools, &input(&path, 0, true), &target, 0, usize::MAX).await;
    assert!(matches!(made, Err(RunError::Died { .. })));
    assert_eq!(tools.choice.told().distrusted, []);
    // It says that the film ends after two of sixteen seconds, and so says x264.
    let tools = self::tools(card(folder.path(), "")).await;
    let target = pictures_of_the_card((0..=8).map(|n| n * 48_048).collect(), 24_000);
    let made = collect(&tools, &input(&path, 0, true), &target, 0, usize::MAX).await.expect("made");
    assert_eq!((made.ended, made.segments.len(), tools.choice.told().distrusted), (true, 8, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_believes_only_what_it_sees() {
    for (instead, flaw) in [
        ("", None),
        ("keys=0,1.2", Some("key frames")),
        ("keys=0,0.2785,0.5,0.7585,1.2785", Some("key frames")),
        ("exec head -c 3000 /dev/zero", Some("")),
        ("exit 1", Some("exit status: 1")),
        ("echo 'Cannot load libcuda.so.1' >&2; exit 1", Some("Cannot load libcuda.so.1")),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let tools = tools(card(folder.path(), instead)).await;
        let told = attempt_all(&tools.spawner, &tools.ffmpeg, Wanted::One(Family::Nvenc)).await;
        let found = told.tried[0].flaw.clone();
        match flaw {
            None => {
                assert!(told.used().is_some() && told.tried[0].largest == Some((1920, 1080)), "{told:?}");
                assert!(told.tried[0].pace[0].2 > 1.0, "{told:?}");
            }
            Some(flaw) => {
                assert!(told.used().is_none(), "{instead}: {told:?}");
                assert!(found.as_deref().is_some_and(|found| found.contains(flaw)), "{instead}: {found:?}");
            }
        }
    }
    // What this machine lacks is said by ffmpeg itself.
    let tools = real_tools().await;
    let told = attempt_all(&tools.spawner, &tools.ffmpeg, Wanted::One(Family::Nvenc)).await;
    assert!(told.used().is_some() || told.tried[0].flaw.is_some());
}

/// Luma of a grey field behind a tone map, by ffmpeg itself.
fn mapped(path: &Path, tones: ToneMap) -> u8 {
    let input = Input { url: String::new(), stream: 0, zero_us: 0, origin_us: 0, lead_us: 0, indexed: true, spliced: false };
    let job = VideoJob {
        input,
        boundaries_us: vec![0],
        end_us: None,
        frame_us: 40_000,
        size: Size { width: 64, height: 64 },
        scale: true,
        interlaced: false,
        hdr: Some(tones),
        apart_us: None,
        burn: None,
        timescale: 90_000,
        encoder: Encoder::of_rung(&rung_bitrate(Size { width: 64, height: 64 }, 25.0), 30, None),
        threads: 1,
    };
    let args = job.args();
    let filters = args.iter().skip_while(|arg| *arg != "-vf").nth(1).expect("filters");
    let output = Command::new(program("FFMPEG_BIN", "ffmpeg"))
        .args(["-v", "error", "-nostdin", "-i", path.to_str().expect("text"), "-vf", filters, "-frames:v", "1", "-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{filters}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout[64 * 32 + 32]
}

#[test]
fn tones_are_mapped_by_tables_as_by_zscale() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grey.mkv");
    for (from, transfer) in [(Hdr::Pq, "smpte2084"), (Hdr::Hlg, "arib-std-b67")] {
        let mut before = 0;
        for luma in [64, 200, 300, 400, 500, 600, 700, 900] {
            let source = format!("color=black:s=64x64:d=0.04:r=25,format=yuv420p10le,geq=lum={luma}:cb=512:cr=512");
            let marked = format!("-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -color_range tv");
            ffmpeg(&format!("-f lavfi -i {source} -c:v libx264 -qp 0 {marked}"), &path);
            let by = |zscale| mapped(&path, ToneMap { from, zscale });
            // Where the picture is whiter than white, tables end at white.
            let (exact, table) = (by(true).min(235), by(false));
            assert!(exact.abs_diff(table) <= 16, "{from:?} of {luma}: {exact} by zscale, {table} by tables");
            assert!(table > before || table >= 235 || luma == 64, "{from:?} of {luma}: {table} behind {before}");
            before = table;
        }
    }
}
