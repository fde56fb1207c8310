//! What no muxer at hand writes: films put together element by element.

// A row of a table is no type of its own.
#![allow(clippy::type_complexity)]

use bytes::Bytes;

use super::super::{Codec, Damage, Frame, Index, KeyFrame, Kind, Light, Picture, Sparse, Stop, Track};
use super::{ATTACHMENTS, Blocks, CLUSTER, CUES, EBML, INFO, SEEK_HEAD, SEGMENT, TAGS, TRACKS, index, ticks};
use crate::codec::Colour;

const UNKNOWN: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

fn id(id: u32) -> Vec<u8> {
    id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// An element with a size of eight bytes, as libavformat writes its large ones.
fn el(element: u32, body: &[u8]) -> Vec<u8> {
    let size = (1u64 << 56 | body.len() as u64).to_be_bytes();
    [&id(element), &size[..], body].concat()
}

fn unsized_el(element: u32, body: &[u8]) -> Vec<u8> {
    [&id(element), &UNKNOWN[..], body].concat()
}

fn number(element: u32, value: u64) -> Vec<u8> {
    el(element, &value.to_be_bytes())
}

fn real(element: u32, value: f64) -> Vec<u8> {
    el(element, &value.to_be_bytes())
}

fn head() -> Vec<u8> {
    el(EBML, &el(0x4282, b"matroska"))
}

fn film(children: &[Vec<u8>]) -> Vec<u8> {
    [head(), el(SEGMENT, &children.concat())].concat()
}

fn tracks(entries: &[Vec<Vec<u8>>]) -> Vec<u8> {
    el(TRACKS, &entries.iter().flat_map(|entry| el(0xAE, &entry.concat())).collect::<Vec<_>>())
}

fn video_track() -> Vec<Vec<u8>> {
    vec![number(0xD7, 1), number(0x83, 1), el(0x86, b"V_VP9"), el(0xE0, &[number(0xB0, 640), number(0xBA, 360)].concat())]
}

/// Frames of 1024 samples at 48 kHz.
fn audio_track() -> Vec<Vec<u8>> {
    vec![
        number(0xD7, 2),
        number(0x83, 2),
        el(0x86, b"A_AAC"),
        el(0x63A2, &[0x11, 0x90]),
        el(0xE1, &[real(0xB5, 48_000.0), number(0x9F, 2)].concat()),
    ]
}

fn subtitle_track() -> Vec<Vec<u8>> {
    vec![number(0xD7, 3), number(0x83, 17), el(0x86, b"S_TEXT/UTF8")]
}

fn all_tracks() -> Vec<u8> {
    tracks(&[video_track(), audio_track(), subtitle_track()])
}

fn cluster(time: u64, children: &[Vec<u8>]) -> Vec<u8> {
    el(CLUSTER, &[number(0xE7, time), children.concat()].concat())
}

fn block(track: u8, time: i16, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | track], &time.to_be_bytes()[..], &[flags], payload].concat()
}

fn simple(track: u8, time: i16, payload: &[u8]) -> Vec<u8> {
    el(0xA3, &block(track, time, 0x80, payload))
}

fn seek(element: u32, position: u64) -> Vec<u8> {
    el(0x4DBB, &[el(0x53AB, &id(element)), number(0x53AC, position)].concat())
}

fn cue(time: u64, cluster: u64, relative: Option<u64>) -> Vec<u8> {
    let relative = relative.map(|at| number(0xF0, at)).unwrap_or_default();
    el(0xBB, &[number(0xB3, time), el(0xB7, &[number(0xF7, 1), number(0xF1, cluster), relative].concat())].concat())
}

/// The whole film known at once.
fn known(film: &[u8]) -> Sparse {
    let mut bytes = Sparse::new(film.len() as u64);
    bytes.insert(0, Bytes::copy_from_slice(film));
    bytes
}

fn index_of(film: &[u8]) -> Index {
    index(&known(film)).expect("an index")
}

fn read(film: &[u8], mut blocks: Blocks) -> Vec<Frame> {
    let bytes = known(film);
    let mut frames = Vec::new();
    while let Some(frame) = blocks.next(&bytes).expect("a sound film") {
        frames.push(frame);
    }
    frames
}

fn frames_of(film: &[u8]) -> Vec<Frame> {
    let index = index_of(film);
    read(film, Blocks::at(index.first_byte, &index))
}

fn track_of(entry: Vec<Vec<u8>>) -> Track {
    index_of(&film(&[tracks(&[entry])])).tracks.remove(0)
}

/// The payload of each frame.
fn payloads(film: &[u8], frames: &[Frame]) -> Vec<Vec<u8>> {
    let payload = |frame: &Frame| film[frame.offset as usize..][..frame.len as usize].to_vec();
    frames.iter().map(payload).collect()
}

#[test]
fn lacing() {
    let long = vec![7; 600];
    let cases: [(&str, u8, Vec<u8>, Vec<usize>); 6] = [
        ("none", 0x80, vec![1, 2, 3], vec![3]),
        ("Xiph", 0x82, [&[2, 255, 255, 90, 3][..], &long, &[1, 2, 3, 4]].concat(), vec![600, 3, 1]),
        ("Xiph, a size of 255", 0x82, [&[1, 255, 0][..], &long[..255], &[9]].concat(), vec![255, 1]),
        ("fixed", 0x84, [&[2][..], &[1, 1, 2, 2, 3, 3]].concat(), vec![2, 2, 2]),
        ("EBML", 0x86, [&[2, 0x42, 0x58, 0x5E, 0xD8][..], &long, &long[..305], &[4]].concat(), vec![600, 305, 1]),
        ("a single laced frame", 0x86, vec![0, 5, 6], vec![2]),
    ];
    for (name, flags, body, sizes) in cases {
        let film = film(&[all_tracks(), cluster(1000, &[el(0xA3, &block(2, 24, flags, &body))])]);
        let frames = frames_of(&film);
        assert_eq!(frames.iter().map(|frame| frame.len as usize).collect::<Vec<_>>(), sizes, "{name}");
        let first = 1024 * 48;
        assert_eq!(frames.iter().map(|frame| frame.pts).collect::<Vec<_>>(), [first, first + 1024, first + 2048][..sizes.len()], "{name}");
        let all = payloads(&film, &frames).concat();
        assert!(body.ends_with(&all), "{name}");
    }
}

#[test]
fn lacing_that_is_none_costs_the_rest_of_its_cluster() {
    let broken: [(&str, u8, &[u8]); 5] = [
        ("no header", 0x82, &[]),
        ("sizes cut off", 0x82, &[3, 255, 255]),
        ("sizes past the end", 0x82, &[1, 200, 1, 2]),
        ("a negative size", 0x86, &[2, 0x81, 0x80, 1, 2, 3]),
        ("no number", 0x86, &[1, 0x00, 1, 2, 3]),
    ];
    for (name, flags, body) in broken {
        let bad = cluster(0, &[simple(1, 0, b"kept"), el(0xA3, &block(2, 0, flags, body)), simple(1, 40, b"lost")]);
        let film = film(&[all_tracks(), bad, cluster(80, &[simple(1, 0, b"next")])]);
        assert_eq!(payloads(&film, &frames_of(&film)), [b"kept", b"next"], "{name}");
    }
}

#[test]
fn block_groups() {
    let group = |children: &[Vec<u8>]| el(0xA0, &children.concat());
    let film = film(&[
        all_tracks(),
        cluster(
            500,
            &[
                group(&[el(0xA1, &block(1, 0, 0, b"key"))]),
                group(&[number(0xFB, 40), el(0xA1, &block(1, -40, 0, b"delta"))]),
                group(&[el(0xA1, &block(3, 100, 0, b"words")), number(0x9B, 1500), el(0x75A2, &[5])]),
                group(&[el(0xA1, &block(9, 0, 0, b"of no track"))]),
                el(0xAF, b"encrypted"),
                simple(1, 80, b"simple"),
            ],
        ),
    ]);
    let frames = frames_of(&film);
    let told: Vec<_> = frames.iter().map(|frame| (frame.track, frame.pts, frame.duration, frame.key)).collect();
    assert_eq!(told, [(1, 45_000, None, true), (1, 41_400, None, false), (3, 600, Some(1500), true), (1, 52_200, None, true)]);
    assert_eq!(payloads(&film, &frames), [&b"key"[..], b"delta", b"words", b"simple"]);
    assert_eq!(film[frames[2].element as usize], 0xA0, "the element is the group, not the Block in it");
}

#[test]
fn times() {
    // A unit of 100 µs, a delay of half a millisecond, and a Block before the beginning of its Cluster.
    let info = el(INFO, &[number(0x2A_D7B1, 100_000), real(0x4489, 123_456.0)].concat());
    let delayed = [video_track(), vec![number(0x56AA, 500_000), number(0x23_E383, 40_000_000)]].concat();
    let film = film(&[info, tracks(&[delayed]), cluster(3, &[simple(1, -10, b"a"), simple(1, 30_000, b"b")])]);
    let index = index_of(&film);
    // The film begins with its first picture, 1.2 ms before the Segment's zero.
    assert_eq!(index.zero_us(), -1200);
    assert!((index.duration.expect("told") - 12.346_8).abs() < 1e-9);
    let times: Vec<_> = frames_of(&film).iter().map(|frame| (frame.pts, frame.duration)).collect();
    assert_eq!(times, [(0, Some(3600)), (270_090, Some(3600))]);
    assert_eq!(ticks(i128::MAX, 90_000), i64::MAX);
    assert_eq!(ticks(i128::MIN, 90_000), i64::MIN);
    assert_eq!(ticks(-5_556, 90_000), -1);
    assert_eq!(ticks(5_555, 90_000), 0);
}

#[test]
fn sound_is_put_on_the_grid_of_its_first_frame() {
    // Frames of 21.333 ms that begin at 7 ms; the fourth was meant to be late.
    let times = [7, 28, 50, 75, 92, 21_341];
    let blocks: Vec<Vec<u8>> = times.iter().map(|time| simple(2, *time, b"aac")).collect();
    let film = film(&[all_tracks(), cluster(0, &blocks)]);
    assert_eq!(index_of(&film).tracks[1].first_pts, Some(336));
    let found: Vec<i64> = frames_of(&film).iter().map(|frame| frame.pts).collect();
    assert_eq!(found, [336, 336 + 1024, 336 + 2048, 3600, 336 + 4 * 1024, 336 + 1000 * 1024]);
}

#[test]
fn segments_meet_at_key_frames_in_the_middle_of_a_cluster() {
    let blocks = [simple(2, 0, b"s0"), simple(1, 0, b"k0"), simple(2, 20, b"s1"), simple(1, 40, b"k1"), simple(2, 40, b"s2")];
    let relative = 17 + blocks[..3].concat().len() as u64;
    for cues_tell in [Some(relative), None, Some(3), Some(1 << 40)] {
        let clusters = [cluster(0, &blocks), cluster(80, &[simple(2, 0, b"s3"), simple(1, 0, b"k2"), simple(2, 4, b"s4")])];
        let cues = |first: u64| {
            let second = first + clusters[0].len() as u64;
            el(CUES, &[cue(80, second, None), cue(0, first, None), cue(40, first, cues_tell), cue(0, first, None)].concat())
        };
        let first = (all_tracks().len() + cues(0).len()) as u64;
        let film = film(&[all_tracks(), cues(first), clusters.concat()]);
        let index = index_of(&film);
        let keys = index.video().expect("a picture").key_frames.clone();
        assert_eq!(keys.iter().map(|key| key.pts).collect::<Vec<_>>(), [0, 3600, 7200]);
        let segment = |from, to| payloads(&film, &read(&film, Blocks::between(&index, from, to)));
        assert_eq!(segment(None, Some(&keys[1])), [b"s0", b"k0", b"s1"], "{cues_tell:?}");
        assert_eq!(segment(Some(&keys[0]), Some(&keys[1])), [b"k0", b"s1"], "{cues_tell:?}");
        assert_eq!(segment(Some(&keys[1]), Some(&keys[2])), [b"k1", b"s2", b"s3"], "{cues_tell:?}");
        assert_eq!(segment(Some(&keys[2]), None), [b"k2", b"s4"], "{cues_tell:?}");
    }
}

#[test]
fn a_film_that_begins_before_zero_keeps_its_first_pictures() {
    let first = [simple(2, -720, b"s0"), simple(1, -700, b"k0"), simple(1, -660, b"p0"), simple(2, -50, b"s1")];
    let clusters = [cluster(0, &first), cluster(3300, &[simple(1, 0, b"k1"), simple(2, 0, b"s2")])];
    // Nothing before zero can be named in the Cues.
    let cues = |at: u64| el(CUES, &cue(3300, at + clusters[0].len() as u64, None));
    let first = (all_tracks().len() + cues(0).len()) as u64;
    let film = film(&[all_tracks(), cues(first), clusters.concat()]);
    let index = index_of(&film);
    assert_eq!(index.zero_us(), -700_000);
    let video = index.video().expect("a picture");
    assert_eq!(video.key_frames.iter().map(|key| key.pts).collect::<Vec<_>>(), [0, 360_000]);
    assert_eq!((video.first_pts, index.tracks[1].first_pts), (Some(0), Some(-960)), "sound may begin before the picture");
    let frames = read(&film, Blocks::between(&index, None, Some(&video.key_frames[1])));
    assert_eq!(payloads(&film, &frames), [b"s0", b"k0", b"p0", b"s1"]);
    assert_eq!(frames[2].pts, 3600);
    let second = read(&film, Blocks::between(&index, Some(&video.key_frames[1]), None));
    assert_eq!(payloads(&film, &second), [b"k1", b"s2"]);
}

#[test]
fn the_shortcut_of_the_cues_is_taken_and_checked() {
    let padding = el(0xEC, &vec![0; 1 << 20]);
    let blocks = [simple(1, 0, b"k0"), padding, simple(1, 40, b"k1")];
    let relative = 17 + (blocks[0].len() + blocks[1].len()) as u64;
    let film = film(&[all_tracks(), cluster(0, &blocks)]);
    let index = index_of(&film);
    let key = KeyFrame { pts: 3600, offset: index.first_byte, block: Some(relative), closed: true };
    let mut bytes = Sparse::new(film.len() as u64);
    let mut blocks = Blocks::between(&index, Some(&key), None);
    let mut asked = Vec::new();
    let frame = loop {
        match blocks.next(&bytes) {
            Err(Stop::Need { offset, len }) => {
                asked.push((offset, len));
                bytes.insert(offset, Bytes::copy_from_slice(&film[offset as usize..(offset + len) as usize]));
            }
            done => break done.expect("sound").expect("a frame"),
        }
    };
    assert_eq!(frame.pts, 3600);
    assert_eq!(asked, [(index.first_byte, 64), (index.first_byte + 12 + relative, film.len() as u64 - (index.first_byte + 12 + relative))]);
}

#[test]
fn elements_lie_where_a_second_seek_head_says() {
    let clusters = cluster(0, &[simple(1, 0, b"k0")]);
    let info = el(INFO, &real(0x4489, 5000.0));
    let tracks = all_tracks();
    let front_len = el(SEEK_HEAD, &seek(SEEK_HEAD, 0)).len() as u64;
    let second_at = front_len + clusters.len() as u64;
    let build = |shift: u64| {
        let places = [seek(INFO, shift), seek(TRACKS, shift + info.len() as u64), seek(CUES, 3)];
        let more = seek(CUES, shift + (info.len() + tracks.len()) as u64);
        el(SEEK_HEAD, &[places.concat(), more, seek(SEEK_HEAD, 0), seek(SEEK_HEAD, second_at)].concat())
    };
    let second = build(second_at + build(0).len() as u64);
    let cues = el(CUES, &cue(0, front_len, None));
    let front = el(SEEK_HEAD, &seek(SEEK_HEAD, second_at));
    let film = film(&[front, clusters, second, info, tracks, cues]);
    let index = index_of(&film);
    assert_eq!(index.duration, Some(5.0));
    assert_eq!(index.tracks.len(), 3);
    let key = index.tracks[0].key_frames[0];
    assert_eq!((key.offset, key.pts), (index.first_byte, 0));
    assert_eq!(frames_of(&film).len(), 1);
}

#[test]
fn cues_that_point_outside_are_dropped() {
    let cues = |first: u64| el(CUES, &[cue(0, first, None), cue(40, 1 << 50, None), cue(60, u64::MAX, None), cue(80, 0, None)].concat());
    let clusters = cluster(0, &[simple(1, 0, b"k0")]);
    let first = (all_tracks().len() + cues(0).len()) as u64;
    let keys = |film: &[u8]| index_of(film).tracks[0].key_frames.iter().map(|key| key.pts).collect::<Vec<_>>();
    assert_eq!(keys(&film(&[all_tracks(), cues(first), clusters.clone()])), [0]);
    let behind = film(&[all_tracks(), clusters, cues(all_tracks().len() as u64)]);
    assert!(keys(&behind).is_empty(), "no SeekHead names these, and nobody searches");
}

#[test]
fn unknown_sizes() {
    let first = unsized_el(CLUSTER, &[number(0xE7, 0), simple(1, 0, b"a"), el(0xEC, &[0; 99]), simple(2, 0, b"b")].concat());
    let second = unsized_el(CLUSTER, &[number(0xE7, 40), simple(1, 0, b"c")].concat());
    let tail = [el(CUES, &cue(0, 0, None)), el(TAGS, &[]), cluster(80, &[simple(1, 0, b"d")])].concat();
    let film = [head(), unsized_el(SEGMENT, &[all_tracks(), first, second, tail].concat())].concat();
    assert_eq!(payloads(&film, &frames_of(&film)), [b"a", b"b", b"c", b"d"]);
    assert_eq!(index_of(&film).end_byte, film.len() as u64);
}

#[test]
fn damage_without_end_is_told() {
    let mut film = film(&[all_tracks(), unsized_el(CLUSTER, &number(0xE7, 0))]);
    film.extend(vec![0; 5 << 20]);
    let size = film.len();
    let segment = head().len() + 5;
    film[segment..segment + 7].copy_from_slice(&((size - segment - 7) as u64).to_be_bytes()[1..]);
    let index = index_of(&film);
    let stop = Blocks::at(index.first_byte, &index).next(&known(&film));
    assert!(matches!(stop, Err(Stop::Bad(Damage::Broken { what: "no Cluster follows", .. }))), "{stop:?}");
}

#[test]
fn not_a_film() {
    let not_this = Err(Stop::Bad(Damage::NotThis("Matroska")));
    assert_eq!(index(&known(b"")), not_this);
    assert_eq!(index(&known(b"RIFF....AVI LIST")), not_this);
    assert_eq!(index(&known(&el(EBML, &el(0x4282, b"something")))), not_this);
    assert!(matches!(index(&known(&film(&[cluster(0, &[])]))), Err(Stop::Bad(Damage::Broken { what: "there are no tracks", .. }))));
    assert_eq!(index(&Sparse::new(1 << 30)), Err(Stop::Need { offset: 0, len: 64 << 10 }));
}

#[test]
fn what_lies_before_the_first_cluster_is_passed_over_without_its_body() {
    let film = film(&[all_tracks(), el(ATTACHMENTS, &vec![1; 1 << 20]), cluster(0, &[simple(1, 0, b"k"), simple(2, 0, b"s")])]);
    let mut bytes = Sparse::new(film.len() as u64);
    let mut asked = 0;
    while let Err(Stop::Need { offset, len }) = index(&bytes) {
        asked += len;
        bytes.insert(offset, Bytes::copy_from_slice(&film[offset as usize..(offset + len) as usize]));
    }
    assert!(asked < (64 << 10) + 300, "{asked} bytes");
    assert_eq!(index(&bytes).expect("an index").tracks[1].first_pts, Some(0));
}

#[test]
fn statistics_tell_the_rate() {
    let with_uid = [video_track(), vec![number(0x73C5, 77)]].concat();
    let simple_tag = el(0x67C8, &[el(0x45A3, b"BPS"), el(0x4487, b"1234567")].concat());
    let tag = el(TAGS, &el(0x7373, &[el(0x63C0, &number(0x63C5, 77)), simple_tag].concat()));
    let index = index_of(&film(&[tracks(&[with_uid, audio_track()]), tag]));
    assert_eq!(index.tracks.iter().map(|track| track.bitrate).collect::<Vec<_>>(), [Some(1_234_567), None]);
}

#[test]
fn defaults_of_a_track() {
    let index = index_of(&film(&[all_tracks()]));
    let [video, audio, subtitle] = &index.tracks[..] else { panic!("three tracks") };
    assert_eq!((video.kind, video.timescale, video.stream), (Kind::Video, 90_000, 0));
    assert_eq!((audio.kind, audio.timescale, audio.stream), (Kind::Audio, 48_000, 1));
    assert_eq!((subtitle.kind, subtitle.timescale, &subtitle.codec), (Kind::Subtitle, 1000, &Codec::Srt));
    assert_eq!((video.language.as_str(), video.default, video.forced, video.complex_edits), ("eng", true, false, false));
    let told = track_of(
        [subtitle_track(), vec![el(0x22_B59C, b"chi\0"), el(0x22_B59D, b"zh-TW"), el(0x536E, "Untertitel ü".as_bytes())]].concat(),
    );
    assert_eq!((told.language.as_str(), told.title.as_str()), ("zh-TW", "Untertitel ü"));
    let flags = track_of([subtitle_track(), vec![number(0x88, 1), number(0x55AA, 1), number(0xB9, 0)]].concat());
    assert_eq!((flags.default, flags.forced), (false, true), "a track that is switched off is not the one to choose");
    assert!(track_of([video_track(), vec![real(0x23_314F, 2.0)]].concat()).complex_edits);
}

#[test]
fn tracks_are_numbered_as_libavformat_does() {
    let buttons = vec![number(0xD7, 8), number(0x83, 18), el(0x86, b"B_VOBBTN")];
    let nameless = vec![number(0xD7, 9), number(0x83, 1)];
    let index = index_of(&film(&[tracks(&[buttons, video_track(), nameless, subtitle_track()])]));
    assert_eq!(index.tracks.iter().map(|track| (track.id, track.stream)).collect::<Vec<_>>(), [(1, 0), (3, 1)]);
}

#[test]
fn codecs() {
    let mut xvid = vec![0; 40];
    xvid[16..20].copy_from_slice(b"XVID");
    let mut avc = xvid.clone();
    avc[16..20].copy_from_slice(b"H264");
    let cases: [(&str, &[u8], Codec); 15] = [
        ("V_MPEG4/ISO/AVC", &[], Codec::H264),
        ("V_MPEGH/ISO/HEVC", &[], Codec::Hevc),
        ("V_MPEG4/ISO/ASP", &[], Codec::Mpeg4),
        ("V_MS/VFW/FOURCC", &xvid, Codec::Mpeg4),
        ("V_MS/VFW/FOURCC", &avc, Codec::Unknown("V_MS/VFW/FOURCC/H264".to_owned())),
        ("A_AAC/MPEG4/LC", &[], Codec::Aac),
        ("A_DTS/LOSSLESS", &[], Codec::Dts),
        ("A_PCM/INT/LIT", &[], Codec::Pcm),
        ("A_AC3/BSID9", &[], Codec::Ac3),
        ("A_MPEG/L1", &[], Codec::Unknown("A_MPEG/L1".to_owned())),
        ("S_TEXT/SSA", &[], Codec::Ass),
        ("S_TEXT/WEBVTT", &[], Codec::WebVtt),
        ("S_HDMV/PGS", &[], Codec::Pgs),
        ("S_VOBSUB", &[], Codec::VobSub),
        ("S_DVBSUB", &[], Codec::DvbSub),
    ];
    for (name, private, codec) in cases {
        let track = track_of(vec![number(0xD7, 1), number(0x83, 1), el(0x86, name.as_bytes()), el(0x63A2, private)]);
        assert_eq!(track.codec, codec, "{name}");
    }
}

#[test]
fn pictures() {
    let square = Picture { width: 640, height: 360, pixel_aspect: (1, 1), ..Picture::default() };
    let colour = |transfer| el(0x55B0, &[number(0x55BA, transfer), number(0x55B2, 10)].concat());
    let told = |transfer| Some(Colour { primaries: 2, transfer, matrix: 2, full_range: false });
    let pose = |id, degrees| el(0x7670, &real(id, degrees));
    let chromaticities =
        [0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.329].into_iter().zip(0x55D1..).map(|(told, id)| real(id, told));
    let mastering = [chromaticities.collect::<Vec<_>>().concat(), real(0x55D9, 1000.0), real(0x55DA, 0.0001)].concat();
    let light = el(0x55B0, &[number(0x55BC, 1000), number(0x55BD, 400), el(0x55D0, &mastering)].concat());
    let mdcv = [8500, 39_850, 6550, 2300, 35_400, 14_600, 15_635, 16_450].map(u16::to_be_bytes).concat();
    let mdcv = [&mdcv[..], &10_000_000_u32.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    let lit = Light { mastering: mdcv.first_chunk().copied(), content: Some([3, 232, 1, 144]) };
    let cases: [(&str, Vec<u8>, Picture); 16] = [
        ("light", light, Picture { light: lit, ..square.clone() }),
        ("light in parts", el(0x55B0, &el(0x55D0, &real(0x55D9, 1000.0))), square.clone()),
        ("nothing more", vec![], square.clone()),
        ("a display size", [number(0x54B0, 854), number(0x54BA, 360)].concat(), Picture { pixel_aspect: (427, 320), ..square.clone() }),
        ("a ratio", [number(0x54B0, 4), number(0x54BA, 3), number(0x54B2, 3)].concat(), Picture { pixel_aspect: (3, 4), ..square.clone() }),
        ("rounded", [number(0x54B0, 641), number(0x54BA, 360)].concat(), square.clone()),
        ("not rounded", [number(0x54B0, 642), number(0x54BA, 360)].concat(), Picture { pixel_aspect: (321, 320), ..square.clone() }),
        ("nobody knows", [number(0x54B0, 4), number(0x54BA, 3), number(0x54B2, 4)].concat(), square.clone()),
        (
            "cropped",
            [number(0x54BB, 20), number(0x54AA, 20), number(0x54CC, 8)].concat(),
            Picture { width: 632, height: 320, ..square.clone() },
        ),
        ("cropped away", number(0x54BB, 2000), square.clone()),
        ("HDR10", colour(16), Picture { hdr: true, bit_depth: Some(10), colour: told(16), ..square.clone() }),
        ("BT.709", colour(1), Picture { bit_depth: Some(10), colour: told(1), ..square.clone() }),
        ("fields", number(0x9A, 1), Picture { interlaced: true, ..square.clone() }),
        ("a quarter turn to the left", pose(0x7675, 90.0), Picture { rotation: 270, ..square.clone() }),
        ("a little", pose(0x7675, 10.0), Picture { odd_matrix: true, ..square.clone() }),
        ("mirrored", pose(0x7673, 180.0), Picture { odd_matrix: true, ..square.clone() }),
    ];
    for (name, more, picture) in cases {
        let body = [number(0xB0, 640), number(0xBA, 360), more].concat();
        let track = track_of([video_track()[..3].to_vec(), vec![el(0xE0, &body)]].concat());
        assert_eq!(track.video, Some(picture), "{name}");
    }
    let dolby = track_of([video_track(), vec![el(0x41E4, &number(0x41E7, 0x6476_7643))]].concat());
    assert!(dolby.video.expect("a picture").hdr);
}

#[test]
fn sounds() {
    let flac = [&b"fLaC\x80\0\0\x22"[..], &[0x10, 0, 0x10, 0]].concat();
    let told = |nanoseconds| number(0x23_E383, nanoseconds);
    let cases: [(&str, &[u8], f64, Option<f64>, Vec<u8>, Option<u32>); 13] = [
        ("A_AAC", &[0x11, 0x90], 48_000.0, None, vec![], Some(1024)),
        ("A_AAC", &[0x11, 0x94], 48_000.0, None, vec![], Some(960)),
        ("A_AAC", &[0x13, 0x10], 24_000.0, Some(48_000.0), vec![], Some(2048)),
        ("A_AAC", &[], 24_000.0, Some(48_000.0), vec![], Some(2048)),
        ("A_AC3", &[], 48_000.0, None, vec![], Some(1536)),
        ("A_EAC3", &[], 48_000.0, None, vec![], Some(1536)),
        ("A_EAC3", &[], 48_000.0, None, told(5_333_333), Some(256)),
        ("A_MPEG/L3", &[], 44_100.0, None, vec![], Some(1152)),
        ("A_MPEG/L3", &[], 22_050.0, None, vec![], Some(576)),
        ("A_DTS", &[], 48_000.0, None, told(10_666_667), Some(512)),
        ("A_FLAC", &flac, 48_000.0, None, vec![], Some(4096)),
        ("A_OPUS", &[], 48_000.0, None, vec![], None),
        ("A_VORBIS", &[], 48_000.0, None, told(20_000_000), None),
    ];
    for (name, private, core, output, more, frame_len) in cases {
        let output = output.map(|rate| real(0x78B5, rate)).unwrap_or_default();
        let audio = el(0xE1, &[real(0xB5, core), output, number(0x9F, 2)].concat());
        let track = track_of(vec![number(0xD7, 1), number(0x83, 2), el(0x86, name.as_bytes()), el(0x63A2, private), audio, more]);
        assert_eq!(track.audio.expect("sound").frame_len, frame_len, "{name} at {core}");
    }
}

#[test]
fn aac_without_a_configuration_gets_one() {
    let cases: [(&str, f64, Option<f64>, u64, &[u8]); 6] = [
        ("A_AAC/MPEG4/LC", 48_000.0, None, 2, &[0x11, 0x90]),
        ("A_AAC/MPEG2/MAIN", 44_100.0, None, 6, &[0x0A, 0x30]),
        ("A_AAC", 44_100.0, None, 1, &[0x12, 0x08]),
        ("A_AAC/MPEG4/LC/SBR", 24_000.0, Some(48_000.0), 2, &[0x13, 0x10, 0x56, 0xE5, 0x98]),
        ("A_AAC/MPEG4/LC", 12_345.0, None, 2, &[]),
        ("A_AAC/MPEG4/LC", 48_000.0, None, 9, &[]),
    ];
    for (name, core, output, channels, config) in cases {
        let output = output.map(|rate| real(0x78B5, rate)).unwrap_or_default();
        let audio = el(0xE1, &[real(0xB5, core), output, number(0x9F, channels)].concat());
        let track = track_of(vec![number(0xD7, 1), number(0x83, 2), el(0x86, name.as_bytes()), audio]);
        assert_eq!(track.config, config, "{name}");
    }
}

#[test]
fn content_encodings() {
    let encoding = |scope: u64, children: Vec<u8>| el(0x6240, &[number(0x5032, scope), children].concat());
    let strip = el(0x5034, &[number(0x4254, 3), el(0x4255, b"xy")].concat());
    let zlib = el(0x5034, &number(0x4254, 0));
    let cases: [(&str, Vec<u8>, bool, &[u8], &[u8]); 6] = [
        ("frames stripped", encoding(1, strip.clone()), false, b"xy", b"cc"),
        ("all stripped", encoding(3, strip.clone()), false, b"xy", b"xycc"),
        ("zlib", encoding(1, zlib.clone()), true, b"", b"cc"),
        ("encrypted", encoding(1, [number(0x5033, 1), el(0x5035, &[])].concat()), true, b"", b"cc"),
        ("two layers", [encoding(1, strip.clone()), encoding(1, zlib)].concat(), true, b"xy", b"cc"),
        ("an empty one is zlib", el(0x6240, &[]), true, b"", b"cc"),
    ];
    for (name, encodings, complex, prefix, config) in cases {
        let entry = [video_track(), vec![el(0x63A2, b"cc"), el(0x6D80, &encodings)]].concat();
        let film = film(&[tracks(&[entry]), cluster(0, &[simple(1, 0, b"z")])]);
        let track = index_of(&film).tracks.remove(0);
        assert_eq!((track.complex_edits, &track.config[..]), (complex, config), "{name}");
        assert_eq!(frames_of(&film)[0].prefix, prefix, "{name}");
    }
}
