//! The writer against an independent reader: films that ffmpeg made are packaged here, and ffmpeg must read the same pictures, the same
//! sound and the same times out of the result. The packets come from ffprobe, so no parser of ours is involved.

#![allow(clippy::unwrap_used)] // tests say what they expect by failing

use std::path::{Path, PathBuf};
use std::process::Command;

use balcony_media::codec::{aac, h264, hevc};
use balcony_media::fmp4::Row;
use balcony_media::fmp4::write::{Coded, Entry, InitTrack, Raster, chunk, chunk_bounds, chunk_len, init, payload_len, rows, shift_needed};
use bytes::Bytes;

/// A packet as ffprobe tells it, with its bytes.
#[derive(Debug, Clone, PartialEq)]
struct Packet {
    pts: i64,
    dts: i64,
    duration: u32,
    key: bool,
    data: Vec<u8>,
}

/// One track of a film.
struct Track {
    timescale: u32,
    config: Bytes,
    packets: Vec<Packet>,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("ffmpeg and ffprobe are installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.trim().is_empty(), "{program} {arguments:?}\n{complaints}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Twelve seconds with B pictures, irregular closed GOPs and AAC with priming.
fn film(folder: &Path, name: &str, coding: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let mut arguments = vec!["-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30000/1001:d=12"];
    arguments.extend(["-f", "lavfi", "-i", "sine=f=440:r=48000:d=12", "-force_key_frames", "0,1.1,4.3,5.0,9.7", "-c:a", "aac"]);
    arguments.extend(coding);
    arguments.push(text(&path));
    run("ffmpeg", &arguments);
    path
}

const X264: &[&str] = &["-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "3", "-preset", "veryfast"];
const X265: &[&str] = &["-c:v", "libx265", "-pix_fmt", "yuv420p", "-tag:v", "hvc1", "-preset", "ultrafast", "-forced-idr", "1"];

/// Packets of a stream (`v:0`, `a:0`) whose file offsets ffprobe knows, as for MP4.
fn packets(path: &Path, stream: &str) -> Vec<Packet> {
    let file = std::fs::read(path).unwrap();
    let entries = "packet=pts,dts,duration,size,pos,flags";
    let told = run("ffprobe", &["-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "compact=p=0", text(path)]);
    told.lines().filter(|line| line.contains("pos=")).map(|line| packet(line, &file)).collect()
}

fn packet(line: &str, file: &[u8]) -> Packet {
    let field = |name: &str| line.split('|').find_map(|part| part.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {line}"));
    let number = |name: &str| field(name).parse::<i64>().unwrap_or_else(|_| panic!("{name} in {line}"));
    let from = usize::try_from(number("pos=")).unwrap();
    let to = from + usize::try_from(number("size=")).unwrap();
    Packet {
        pts: number("pts="),
        dts: number("dts="),
        duration: field("duration=").parse().unwrap_or(0), // not told of the first packet of fragments that have an edit list
        key: field("flags=").starts_with('K'),
        data: file[from..to].to_vec(),
    }
}

fn track(path: &Path, stream: &str, config: &[u8; 4]) -> Track {
    let base =
        run("ffprobe", &["-v", "error", "-select_streams", stream, "-show_entries", "stream=time_base", "-of", "csv=p=0", text(path)]);
    let timescale = base.trim().strip_prefix("1/").unwrap().parse().unwrap();
    Track { timescale, config: configuration(&std::fs::read(path).unwrap(), config), packets: packets(path, stream) }
}

/// The body of the first box of a kind, wherever it is; of `esds` the AudioSpecificConfig alone.
fn configuration(file: &[u8], kind: &[u8; 4]) -> Bytes {
    let at = file.windows(4).position(|window| window == kind).unwrap();
    let size = u32::from_be_bytes(file[at - 4..at].try_into().unwrap());
    let body = &file[at + 4..at - 4 + usize::try_from(size).unwrap()];
    if kind != b"esds" {
        return Bytes::copy_from_slice(body);
    }
    let specific = body.windows(4).position(|window| window == [5, 0x80, 0x80, 0x80]).unwrap();
    let len = usize::from(body[specific + 4]);
    Bytes::copy_from_slice(&body[specific + 5..specific + 5 + len])
}

/// A rendition: its init segment and its segments, each with where it begins in ticks.
struct Rendition {
    init: Bytes,
    segments: Vec<Vec<u8>>,
    shift: u64,
}

/// Rows and payload as a segment, in chunks of half a second, checked strictly.
fn segment(number: usize, base: i64, all: &[Row], packets: &[Packet], timescale: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut time = u64::try_from(base).unwrap();
    for (part, range) in chunk_bounds(all.iter().map(|row| row.duration), timescale, 500).into_iter().enumerate() {
        let rows = &all[range.clone()];
        let head = chunk(u32::try_from(number * 100 + part).unwrap(), time, rows, part == 0);
        assert_eq!(head.len(), chunk_len(rows, part == 0));
        out.extend(&head);
        out.extend(packets[range].iter().flat_map(|packet| &packet.data));
        time += rows.iter().map(|row| u64::from(row.duration)).sum::<u64>();
    }
    out
}

fn video_rendition(track: &Track, entry: Entry) -> Rendition {
    let cuts: Vec<usize> = track.packets.iter().enumerate().filter(|(_, packet)| packet.key).map(|(at, _)| at).collect();
    assert!(cuts.len() >= 5, "the film has the key frames that were asked for");
    let ends = cuts.iter().skip(1).copied().chain([track.packets.len()]);
    let groups: Vec<&[Packet]> = cuts.iter().zip(ends).map(|(from, to)| &track.packets[*from..to]).collect();
    let shift = groups
        .iter()
        .map(|group| {
            let pts: Vec<_> = group.iter().map(|packet| packet.pts).collect();
            shift_needed(&pts, &balcony_media::fmp4::write::decode_times(&pts))
        })
        .max()
        .unwrap();
    assert!(shift > 0, "the film has B pictures");
    let film_end = track.packets.iter().map(|packet| packet.pts + i64::from(packet.duration)).max().unwrap();
    let segments = groups.iter().enumerate().map(|(number, group)| {
        let coded: Vec<_> = group
            .iter()
            .map(|packet| Coded { pts: packet.pts, size: u32::try_from(packet.data.len()).unwrap(), key: packet.key })
            .collect();
        let end = groups.get(number + 1).map_or(film_end, |next| next[0].pts);
        let (base, rows) = rows(&coded, end, shift);
        assert_eq!(base, group[0].pts, "a segment begins at its key frame");
        segment(number, base, &rows, group, track.timescale)
    });
    let segments = segments.collect();
    let track = InitTrack { entry, timescale: track.timescale, language: "und".into(), duration: None, media_time: shift };
    Rendition { init: init(&track), segments, shift }
}

fn sound_rendition(track: &Track) -> Rendition {
    let told = aac::describe(&track.config).unwrap();
    let priming = -track.packets[0].pts;
    assert_eq!(priming, 1024);
    let segments = track.packets.chunks(100).enumerate().map(|(number, group)| {
        let rows: Vec<_> = group
            .iter()
            .map(|packet| Row { size: u32::try_from(packet.data.len()).unwrap(), duration: packet.duration, composition: 0, key: true })
            .collect();
        segment(number, group[0].pts + priming, &rows, group, track.timescale)
    });
    let segments = segments.collect();
    let entry = Entry::Aac { config: track.config.clone(), channels: told.sound.channels, sample_rate: told.sound.sample_rate };
    let shift = u64::try_from(priming).unwrap();
    let duration = Some(12 * u64::from(track.timescale));
    let track = InitTrack { entry, timescale: track.timescale, language: "deu".into(), duration, media_time: shift };
    Rendition { init: init(&track), segments, shift }
}

impl Rendition {
    /// A file of the init segment and some segments.
    fn save(&self, path: &Path, from: usize) {
        let mut bytes = self.init.to_vec();
        for segment in &self.segments[from..] {
            bytes.extend(segment);
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// What ffmpeg decodes: a hash per frame, without its times.
fn decoded(path: &Path, stream: &str) -> Vec<String> {
    let map = format!("0:{stream}");
    let told = run("ffmpeg", &["-v", "warning", "-i", text(path), "-map", &map, "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    told.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

fn entry(track: &Track, kind: &[u8; 4]) -> Entry {
    let config = track.config.clone();
    if kind == b"avcC" {
        let raster = Raster::from(&h264::describe(&config).unwrap());
        Entry::Avc { config, raster }
    } else {
        let raster = Raster::from(&hevc::describe(&config).unwrap());
        Entry::Hevc { config, raster }
    }
}

/// Every packet keeps its bytes and its presentation time, and decode times ascend.
fn same_packets(written: &[Packet], source: &[Packet]) {
    assert_eq!(written.len(), source.len());
    for (written, source) in written.iter().zip(source) {
        assert_eq!((written.pts, written.key), (source.pts, source.key));
        assert!(written.data == source.data);
    }
    assert!(written.is_sorted_by(|before, after| before.dts < after.dts), "decode times ascend");
}

fn pictures_survive(name: &str, coding: &[&str], kind: &[u8; 4]) {
    let folder = tempfile::tempdir().unwrap();
    let source = film(folder.path(), name, coding);
    let video = track(&source, "v:0", kind);
    let rendition = video_rendition(&video, entry(&video, kind));
    check_boxes(&rendition);

    let whole = folder.path().join("whole.mp4");
    rendition.save(&whole, 0);
    let pictures = decoded(&source, "v:0");
    assert!(pictures.len() > 300);
    assert_eq!(decoded(&whole, "v:0"), pictures);
    same_packets(&packets(&whole, "v:0"), &video.packets);

    let middle = folder.path().join("middle.mp4");
    rendition.save(&middle, 2);
    let skipped = video.packets.iter().enumerate().filter(|(_, packet)| packet.key).nth(2).unwrap().0;
    assert_eq!(decoded(&middle, "v:0"), pictures[skipped..]);
    same_packets(&packets(&middle, "v:0"), &video.packets[skipped..]);
}

#[test]
fn h264_pictures_survive() {
    pictures_survive("avc.mp4", X264, b"avcC");
}

#[test]
fn hevc_pictures_survive() {
    pictures_survive("hevc.mp4", &[X265, &["-x265-params", "log-level=none:open-gop=0"]].concat(), b"hvcC");
}

#[test]
fn sound_survives() {
    let folder = tempfile::tempdir().unwrap();
    let source = film(folder.path(), "sound.mp4", X264);
    let sound = track(&source, "a:0", b"esds");
    let rendition = sound_rendition(&sound);
    check_boxes(&rendition);

    let whole = folder.path().join("whole.mp4");
    rendition.save(&whole, 0);
    same_packets(&packets(&whole, "a:0"), &sound.packets);
    let frames = decoded(&source, "a:0");
    assert!(frames.len() > 500);
    // libavformat decodes the priming of fragments (before time zero), and cuts the source's last frame at the end of its edit.
    let written = decoded(&whole, "a:0");
    assert!(written.len() > frames.len());
    let different = written[1..].iter().zip(&frames[..frames.len() - 1]).position(|(written, source)| written != source);
    assert_eq!(different, None);

    let middle = folder.path().join("middle.mp4");
    rendition.save(&middle, 2);
    same_packets(&packets(&middle, "a:0"), &sound.packets[200..]);
    let language = run("ffprobe", &["-v", "error", "-show_entries", "stream_tags=language", "-of", "csv=p=0", text(&whole)]);
    assert_eq!(language.trim(), "deu");
}

#[test]
fn an_empty_segment_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let source = film(folder.path(), "empty.mp4", X264);
    let video = track(&source, "v:0", b"avcC");
    let mut rendition = video_rendition(&video, entry(&video, b"avcC"));
    let end = video.packets.iter().map(|packet| packet.pts + i64::from(packet.duration)).max().unwrap().try_into().unwrap();
    rendition.segments.push(chunk(900, end, &[], true).to_vec());
    check_boxes(&rendition);
    let whole = folder.path().join("whole.mp4");
    rendition.save(&whole, 0);
    assert_eq!(decoded(&whole, "v:0"), decoded(&source, "v:0"));
}

#[test]
fn what_ffprobe_says_of_the_shape() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["-vf", "setsar=4/3", "-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709"];
    let source = film(folder.path(), "shape.mp4", &[X264, &more].concat());
    let video = track(&source, "v:0", b"avcC");
    let whole = folder.path().join("whole.mp4");
    video_rendition(&video, entry(&video, b"avcC")).save(&whole, 0);
    let fields = "stream=codec_tag_string,width,height,sample_aspect_ratio,display_aspect_ratio,color_space,color_transfer,color_primaries";
    let shape =
        |path: &Path| run("ffprobe", &["-v", "error", "-select_streams", "v:0", "-show_entries", fields, "-of", "csv=p=0", text(path)]);
    assert_eq!(shape(&whole), "avc1,320,180,4:3,64:27,bt709,bt709,bt709\n");
    assert_eq!(shape(&whole), shape(&source));
}

/// A box: its kind and its body.
type Part<'a> = (&'a [u8], &'a [u8]);

/// The boxes that fill these bytes exactly.
fn boxes(mut bytes: &[u8]) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let size = usize::try_from(u32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap();
        assert!(size >= 8 && size <= bytes.len(), "a box of {size} in {}", bytes.len());
        let (this, rest) = bytes.split_at(size);
        if [b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl", b"mvex", b"moof", b"traf"]
            .iter()
            .any(|kind| *kind == &this[4..8])
        {
            boxes(&this[8..]);
        }
        found.push((&this[4..8], &this[8..]));
        bytes = rest;
    }
    found
}

fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> &'a [u8] {
    boxes(body).into_iter().find(|(found, _)| found == kind).unwrap_or_else(|| panic!("no {}", String::from_utf8_lossy(kind))).1
}

/// Reads big-endian numbers one after another.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn u32(&mut self) -> u32 {
        let (number, rest) = self.0.split_first_chunk::<4>().unwrap();
        self.0 = rest;
        u32::from_be_bytes(*number)
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }
}

/// Sizes add up, offsets lead to the payload, decode times join, offsets are positive, the edit list takes the shift back.
fn check_boxes(rendition: &Rendition) {
    let kinds: Vec<_> = boxes(&rendition.init).iter().map(|part| part.0.to_vec()).collect();
    assert_eq!(kinds, [b"ftyp", b"moov"]);
    let trak = child(child(&rendition.init, b"moov"), b"trak");
    let mut edit = Numbers(child(child(trak, b"edts"), b"elst"));
    let edit = (edit.u32(), edit.u32(), edit.u64(), edit.u64(), edit.u32());
    assert_eq!(edit, (0x0100_0000, 1, 0, rendition.shift, 0x1_0000));
    let mut next_time = None;
    for segment in &rendition.segments {
        let parts = boxes(segment);
        assert_eq!(parts[0].0, b"styp");
        for pair in parts[1..].chunks(2) {
            check_chunk(pair, &mut next_time);
        }
    }
}

fn check_chunk(pair: &[Part<'_>], next_time: &mut Option<u64>) {
    let [(b"moof", moof), (b"mdat", mdat)] = pair else { panic!("a chunk is moof and mdat") };
    let traf = child(moof, b"traf");
    let mut tfdt = Numbers(child(traf, b"tfdt"));
    assert_eq!(tfdt.u32(), 0x0100_0000);
    let time = tfdt.u64();
    assert_eq!(next_time.unwrap_or(time), time, "decode times join");
    let mut tfhd = Numbers(child(traf, b"tfhd"));
    let shared = tfhd.u32();
    assert_eq!((shared & !0x38, tfhd.u32()), (0x02_0000, 1));
    let mut default = |bit| (shared & bit != 0).then(|| tfhd.u32());
    let (duration, size, flags) = (default(0x08), default(0x10), default(0x20));
    let mut trun = Numbers(child(traf, b"trun"));
    let own = trun.u32();
    assert_eq!(own >> 24, 0, "offsets are positive");
    let count = trun.u32();
    assert_eq!(usize::try_from(trun.u32()).unwrap(), moof.len() + 16, "the payload follows");
    let first_flags = (own & 4 != 0).then(|| trun.u32());
    let (mut ticks, mut bytes) = (0_u64, 0_u64);
    for at in 0..count {
        let mut field = |bit| (own & bit != 0).then(|| trun.u32());
        ticks += u64::from(field(0x100).or(duration).unwrap());
        bytes += u64::from(field(0x200).or(size).unwrap());
        let flags = field(0x400).or(first_flags.filter(|_| at == 0)).or(flags).unwrap();
        assert!([0x0200_0000, 0x0101_0000].contains(&flags));
        field(0x800);
    }
    assert!(trun.0.is_empty() && tfhd.0.is_empty());
    assert_eq!(bytes, mdat.len() as u64);
    *next_time = Some(time + ticks);
}

#[test]
fn payload_length_is_the_sum() {
    let rows = [1_u32, 2, u32::MAX].map(|size| Row { size, duration: 1, composition: 0, key: true });
    assert_eq!(payload_len(&rows), 4_294_967_298);
}
