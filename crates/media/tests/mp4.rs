//! The index of MP4 and QuickTime films against ffprobe: every sample of films that ffmpeg makes in many shapes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use balcony_media::container::mp4::{self, Context, Fragments};
use balcony_media::container::{Codec, Container, Damage, Frame, Index, Kind, Samples, Sparse, Stop};
use balcony_media::fmp4::Packet;
use balcony_media::fmp4::read::{Event, PipeTrack, Reader};
use bytes::Bytes;
use proptest::prelude::*;

/// A film in a file of its own, removed at the end.
struct Film {
    path: PathBuf,
    bytes: Bytes,
}

impl Drop for Film {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Film {
    /// Runs ffmpeg with `arguments` (blank-separated) and takes what it wrote.
    fn make(name: &str, arguments: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let status = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
            .args(arguments.split_whitespace())
            .arg(&path)
            .status()
            .expect("ffmpeg runs");
        assert!(status.success(), "ffmpeg {arguments}");
        let bytes = std::fs::read(&path).expect("ffmpeg wrote the film").into();
        Self { path, bytes }
    }

    fn index(&self) -> Index {
        drive(&self.bytes, mp4::index).0.expect("an index")
    }

    /// All packets as ffprobe sees them, by stream: pts, size, offset, key.
    fn packets(&self) -> BTreeMap<usize, Vec<(i64, u32, u64, bool)>> {
        let text = self.probe(&["-show_entries", "packet=stream_index,pts,size,pos,flags"]);
        let mut packets: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        // Side data leaves blank lines, and a cover image has no place in the file.
        for line in text.lines().filter(|line| !line.is_empty() && !line.contains("N/A")) {
            let fields: Vec<&str> = line.split(',').collect();
            let [stream, pts, size, pos, flags, ..] = fields.as_slice() else { panic!("{line}") };
            let row =
                (pts.parse().expect("a time"), size.parse().expect("a size"), pos.parse().expect("an offset"), flags.starts_with('K'));
            packets.entry(stream.parse().expect("a stream")).or_default().push(row);
        }
        packets
    }

    fn probe(&self, arguments: &[&str]) -> String {
        let output = Command::new("ffprobe").args(["-v", "error", "-of", "csv=p=0"]).args(arguments).arg(&self.path).output();
        String::from_utf8(output.expect("ffprobe runs").stdout).expect("text")
    }

    fn duration(&self) -> f64 {
        self.probe(&["-show_entries", "format=duration"]).trim().parse().expect("a number")
    }

    /// Every sample of the index is the packet that ffprobe sees.
    fn check_tables(&self) -> Index {
        let index = self.index();
        let packets = self.packets();
        for track in index.tracks.iter().filter(|track| track.kind != Kind::Other) {
            let Samples::Table(samples) = &track.samples else { panic!("no table") };
            let found: Vec<_> = samples.iter().map(|sample| (sample.pts, sample.size, sample.offset, sample.key)).collect();
            assert_eq!(Some(&found), packets.get(&track.stream), "stream {}", track.stream);
        }
        let told = index.duration.expect("a duration");
        assert!((told - self.duration()).abs() < 0.05, "{told} is not {}", self.duration());
        index
    }

    /// Every frame read from the fragments is the packet that ffprobe sees, and key frames lie where reading finds them.
    fn check_fragments(&self) -> Index {
        let index = self.index();
        assert_eq!(index.container, Container::FragmentedMp4);
        let packets = self.packets();
        let frames = self.frames(index.first_byte);
        for track in &index.tracks {
            let found: Vec<_> = frames
                .iter()
                .filter(|frame| frame.track == track.id)
                .map(|frame| (frame.pts, frame.len, frame.offset, frame.key))
                .collect();
            assert_eq!(Some(&found), packets.get(&track.stream), "stream {}", track.stream);
            for key in &track.key_frames {
                let from = self.frames(key.offset);
                let first = from.iter().find(|frame| frame.track == track.id && frame.key).expect("a key frame");
                assert_eq!(first.pts, key.pts);
            }
        }
        assert!(frames.is_sorted_by_key(|frame| frame.offset));
        index
    }

    fn frames(&self, from: u64) -> Vec<Frame> {
        let mut sparse = Sparse::new(self.bytes.len() as u64);
        let context = answer(&mut sparse, &self.bytes, Context::read).expect("a context");
        let mut fragments = Fragments::at(from, context);
        let mut frames = Vec::new();
        while let Some(frame) = answer(&mut sparse, &self.bytes, |sparse| fragments.next(sparse)).expect("a frame") {
            frames.push(frame);
        }
        frames
    }
}

/// Calls `parse` until it needs nothing more; returns the ranges that it asked for too.
fn drive<T>(bytes: &Bytes, parse: impl FnMut(&Sparse) -> Result<T, Stop>) -> (Result<T, Damage>, Vec<(u64, u64)>) {
    let mut parse = parse;
    let mut sparse = Sparse::new(bytes.len() as u64);
    let mut reads = Vec::new();
    loop {
        match parse(&sparse) {
            Ok(done) => return (Ok(done), reads),
            Err(Stop::Bad(damage)) => return (Err(damage), reads),
            Err(Stop::Need { offset, len }) => {
                assert!(len > 0 && reads.len() < 3_000, "asks for ever");
                reads.push((offset, len));
                sparse.insert(offset, bytes.slice(offset as usize..(offset + len) as usize));
            }
        }
    }
}

fn answer<T>(sparse: &mut Sparse, bytes: &Bytes, mut parse: impl FnMut(&Sparse) -> Result<T, Stop>) -> Result<T, Damage> {
    loop {
        match parse(sparse) {
            Ok(done) => return Ok(done),
            Err(Stop::Bad(damage)) => return Err(damage),
            Err(Stop::Need { offset, len }) => sparse.insert(offset, bytes.slice(offset as usize..(offset + len) as usize)),
        }
    }
}

const PICTURES: &str = "-f lavfi -i testsrc2=s=320x180:r=24000/1001:d=7";
const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=7";
const H264: &str = "-c:v libx264 -preset ultrafast -bf 2 -g 36 -pix_fmt yuv420p";

fn film(name: &str, output: &str) -> Film {
    Film::make(name, &format!("{PICTURES} {SOUND} {H264} -c:a aac {output}"))
}

#[test]
fn table_of_contents_in_front() {
    let film = film("front.mp4", "-movflags +faststart");
    let index = film.check_tables();
    let (_, reads) = drive(&film.bytes, mp4::index);
    assert_eq!(reads, [(0, 64 * 1024)]);
    assert_eq!(index.container, Container::Mp4);

    let video = index.video().expect("pictures");
    assert_eq!((&video.codec, video.id, video.stream, video.language.as_str()), (&Codec::H264, 1, 0, "und"));
    let picture = video.video.as_ref().expect("a picture");
    assert_eq!((picture.width, picture.height, picture.pixel_aspect, picture.rotation), (320, 180, (1, 1), 0));
    assert_eq!((picture.bit_depth, picture.reorder, picture.interlaced, picture.hdr), (Some(8), Some(2), false, false));
    assert!((picture.frame_rate.expect("a rate") - 24000.0 / 1001.0).abs() < 0.001);
    assert_eq!(video.config.first(), Some(&1));
    assert_eq!(video.first_pts, Some(0));
    assert!(!video.complex_edits);
    assert!(video.key_frames.len() >= 4);
    assert!(video.key_frames.iter().all(|frame| frame.closed));

    let audio = index.audio().next().expect("sound");
    assert_eq!((&audio.codec, audio.timescale, audio.first_pts, audio.complex_edits), (&Codec::Aac, 44_100, Some(-1024), false));
    let sound = audio.audio.as_ref().expect("a sound");
    assert_eq!((sound.channels, sound.sample_rate, sound.frame_len), (1, 44_100, Some(1024)));
    assert_eq!(audio.config.len(), 5);
    assert!(audio.default && audio.bitrate.is_some_and(|rate| (10_000..200_000).contains(&rate)));
}

#[test]
fn table_of_contents_behind_takes_three_reads() {
    let film = film("behind.mp4", "-b:v 3M");
    let index = film.check_tables();
    let (_, reads) = drive(&film.bytes, mp4::index);
    assert_eq!(reads.len(), 3, "{reads:?}");
    assert_eq!(reads.last().map(|(offset, len)| offset + len), Some(film.bytes.len() as u64));
    assert_eq!(index.first_byte, 48);
}

#[test]
fn a_quicktime_film_with_two_languages() {
    let film = Film::make(
        "languages.mov",
        &format!(
            "{PICTURES} {SOUND} {SOUND} -map 0 -map 1 -map 2 {H264} -c:a:0 aac -c:a:1 ac3 -metadata:s:a:0 language=ita \
             -metadata:s:a:1 language=fra -metadata:s:a:1 title=Commentary"
        ),
    );
    let index = film.check_tables();
    let told: Vec<_> =
        index.audio().map(|track| (track.codec.name(), track.language.as_str(), track.title.as_str(), track.default)).collect();
    assert_eq!(told, [("aac", "ita", "", true), ("ac3", "fra", "Commentary", false)]);
}

#[test]
fn uncompressed_sound_has_a_row_for_each_chunk() {
    let film = Film::make("linear.mov", &format!("{PICTURES} {SOUND} {H264} -c:a pcm_s16le -ac 2"));
    let index = film.index();
    let audio = index.audio().next().expect("sound");
    assert_eq!((&audio.codec, audio.audio.as_ref().map(|sound| sound.channels)), (&Codec::Pcm, Some(2)));
    let Samples::Table(chunks) = &audio.samples else { panic!("no table") };
    assert!(chunks.len() < 1_000);
    assert_eq!(chunks.iter().map(|chunk| u64::from(chunk.duration)).sum::<u64>(), 7 * 44_100);
    assert!(chunks.iter().all(|chunk| chunk.size == chunk.duration * 4));
    assert!(chunks.windows(2).all(|pair| pair[0].pts + i64::from(pair[0].duration) == pair[1].pts));
}

#[test]
fn turned_pictures() {
    let upright = film("upright.mp4", "-t 1");
    for rotate in [90, 180, 270] {
        let turned =
            Film::make(&format!("turned-{rotate}.mp4"), &format!("-i {} -c copy -metadata:s:v:0 rotate={rotate}", upright.path.display()));
        let index = turned.check_tables();
        // ffprobe counts against the clock.
        let told: i32 = turned.probe(&["-show_entries", "stream_side_data=rotation"]).trim().parse().expect("degrees");
        let expected = (360 - told).rem_euclid(360) as u16;
        let picture = index.video().and_then(|track| track.video.clone()).expect("pictures");
        assert_eq!((picture.rotation, picture.odd_matrix), (expected, false));
    }
}

#[test]
fn fragments_without_a_list() {
    let film = film("fragments.mp4", "-movflags +frag_keyframe+empty_moov+default_base_moof+skip_trailer");
    let index = film.check_fragments();
    assert!(index.tracks.iter().all(|track| track.samples == Samples::Inline && track.key_frames.is_empty()));
}

#[test]
fn fragments_with_random_access_at_the_end() {
    let film = film("random-access.mp4", "-movflags +frag_keyframe+empty_moov+delay_moov");
    let index = film.check_fragments();
    assert!(index.video().expect("pictures").key_frames.len() >= 4);
    assert!((index.duration.expect("a duration") - 7.0).abs() < 0.1);
}

#[test]
fn fragments_with_a_segment_index() {
    let film = Film::make("segments.mp4", &format!("{PICTURES} {H264} -movflags +frag_keyframe+dash+global_sidx"));
    let index = film.check_fragments();
    assert!(index.video().expect("pictures").key_frames.len() >= 4);
    assert!((index.duration.expect("a duration") - film.duration()).abs() < 0.1);
    let both = film_with_sound_in_fragments();
    assert!(both.check_fragments().video().expect("pictures").key_frames.len() >= 4);
}

fn film_with_sound_in_fragments() -> Film {
    film("segments-both.mp4", "-movflags +frag_keyframe+dash+global_sidx")
}

#[test]
fn fragments_behind_a_table() {
    let film = film("table-then-fragments.mp4", "-movflags +frag_keyframe");
    film.check_fragments();
}

#[test]
fn media_data_of_more_than_32_bits() {
    let film = film("wide.mp4", "");
    let mut bytes = film.bytes.to_vec();
    let at = bytes.windows(4).position(|kind| kind == b"mdat").expect("media data") - 4;
    // ffmpeg leaves eight bytes in front of the box for the longer head.
    assert_eq!(&bytes[at - 8..at], b"\0\0\0\x08free");
    let size = u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"))) + 8;
    bytes[at - 8..at].copy_from_slice(b"\0\0\0\x01mdat");
    bytes[at..at + 8].copy_from_slice(&size.to_be_bytes());
    let (wide, _) = drive(&bytes.into(), mp4::index);
    assert_eq!(wide.expect("an index"), film.index());
}

#[test]
fn sound_that_begins_late() {
    let film = Film::make("late.mp4", &format!("{PICTURES} -itsoffset 1.5 {SOUND} {H264} -c:a aac"));
    let index = film.check_tables();
    let audio = index.audio().next().expect("sound");
    // The delay is rounded to milliseconds in the file.
    let late = audio.first_pts.expect("a time") - (44_100 * 3 / 2 - 1024);
    assert!(late.abs() <= 45 && !audio.complex_edits, "{late} ticks off");
}

#[test]
fn a_film_cut_between_key_frames_is_not_copied() {
    let whole = film("whole.mp4", "");
    let cut = Film::make("cut.mp4", &format!("-ss 2.2 -i {} -c copy", whole.path.display()));
    let index = cut.index();
    let video = index.video().expect("pictures");
    assert!(!whole.index().video().expect("pictures").complex_edits);
    assert!(video.complex_edits && video.first_pts.is_some_and(|first| first < 0));
}

#[test]
fn open_groups_are_not_closed() {
    let film = Film::make(
        "open.mp4",
        &format!("{PICTURES} -c:v libx264 -preset ultrafast -bf 2 -g 24 -x264-params open-gop=1:b-adapt=0 -pix_fmt yuv420p"),
    );
    let index = film.index();
    let closed: Vec<bool> = index.video().expect("pictures").key_frames.iter().map(|frame| frame.closed).collect();
    assert_eq!(closed.first(), Some(&true), "nothing is shown before the first picture");
    assert!(closed.len() > 3 && closed[1..].contains(&false), "{closed:?}");
}

#[test]
fn a_cover_is_no_film() {
    let still = Film::make("still.png", "-f lavfi -i testsrc2=s=64x64:d=0.04 -frames:v 1");
    let whole = film("plain.mp4", "-t 2");
    let covered = Film::make(
        "covered.mp4",
        &format!("-i {} -i {} -map 0 -map 1 -c copy -disposition:v:1 attached_pic", whole.path.display(), still.path.display()),
    );
    let index = covered.check_tables();
    assert_eq!(index.tracks.iter().map(|track| track.stream).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(index.video().map(|track| &track.codec), Some(&Codec::H264));
}

#[test]
fn high_efficiency_video_in_ten_bits() {
    let film = Film::make(
        "hevc.mp4",
        &format!(
            "{PICTURES} -t 3 -c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=24:transfer=smpte2084 \
             -pix_fmt yuv420p10le -color_trc smpte2084 -tag:v hvc1 -movflags +faststart"
        ),
    );
    let index = film.check_tables();
    let video = index.video().expect("pictures");
    let picture = video.video.as_ref().expect("a picture");
    assert_eq!((&video.codec, picture.bit_depth, picture.hdr), (&Codec::Hevc, Some(10), true));
    assert!(!video.config.is_empty());
}

#[test]
fn subtitles_and_chapters() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (texts, chapters) = (folder.join("texts.srt"), folder.join("chapters.txt"));
    std::fs::write(&texts, "1\n00:00:01,000 --> 00:00:02,500\nHello\n\n2\n00:00:04,000 --> 00:00:05,000\nthere\n").expect("written");
    std::fs::write(&chapters, ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=3\ntitle=One\n").expect("written");
    let film = Film::make(
        "texts.mp4",
        &format!(
            "{PICTURES} -i {} -i {} -map 0 -map 1 -map_metadata 2 {H264} -c:s mov_text -metadata:s:s:0 language=eng",
            texts.display(),
            chapters.display()
        ),
    );
    let index = film.check_tables();
    let kinds: Vec<_> = index.tracks.iter().map(|track| (track.kind, track.codec.name(), track.language.as_str())).collect();
    assert_eq!(kinds[..2], [(Kind::Video, "h264", "und"), (Kind::Subtitle, "mov_text", "eng")]);
    assert_eq!(kinds[2..].iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [Kind::Other]);
}

#[test]
fn a_film_that_was_cut_off_keeps_what_is_there() {
    let film = film("cut-off.mp4", "-movflags +faststart");
    let whole = film.index();
    let len = film.bytes.len() * 2 / 3;
    let (index, _) = drive(&film.bytes.slice(..len), mp4::index);
    let index = index.expect("an index");
    for track in &index.tracks {
        let (Samples::Table(kept), Some(Samples::Table(all))) = (&track.samples, whole.track(track.id).map(|track| &track.samples)) else {
            panic!("no table")
        };
        assert_eq!(kept.as_slice(), &all[..kept.len()]);
        assert!(kept.len() < all.len() && !kept.is_empty());
        assert!(kept.iter().all(|sample| sample.offset + u64::from(sample.size) <= len as u64));
    }
    assert!(index.duration < whole.duration);
    let behind = drive(&film.bytes.slice(..2_000), mp4::index).0;
    assert_eq!(behind, Err(Damage::Truncated));
}

/// Reads the film through a pipe as the server makes ffmpeg write it, in parts of `part` bytes.
fn through_the_pipe(film: &Film, part: usize) -> (Vec<PipeTrack>, Vec<Packet>) {
    let mut reader = Reader::new();
    let (mut header, mut packets) = (Vec::new(), Vec::new());
    for part in film.bytes.chunks(part) {
        reader.push(Bytes::copy_from_slice(part));
        while let Some(event) = reader.next().expect("what ffmpeg writes") {
            match event {
                Event::Header(tracks) => header = tracks,
                Event::Packet(packet) => packets.push(packet),
            }
        }
    }
    reader.finish().expect("whole");
    (header, packets)
}

#[test]
fn the_pipe_gives_what_ffprobe_sees() {
    let source = film("source.mp4", "");
    let piped = Film::make(
        "piped.mp4",
        &format!(
            "-ss 2 -i {} -copyts -avoid_negative_ts disabled {H264} -c:a aac -f mp4 -movflags +delay_moov+default_base_moof+frag_discont \
             -frag_duration 200000",
            source.path.display()
        ),
    );
    let (header, packets) = through_the_pipe(&piped, 10_000);
    assert_eq!(through_the_pipe(&piped, usize::MAX), (header.clone(), packets.clone()));
    let told: Vec<_> =
        header.iter().map(|track| (track.kind, &track.codec, track.width, track.channels, track.config.is_empty())).collect();
    assert_eq!(told, [(Kind::Video, &Codec::H264, 320, 0, false), (Kind::Audio, &Codec::Aac, 0, 1, false)]);
    for (stream, probed) in piped.packets() {
        let track = &header[stream];
        let found: Vec<_> = packets.iter().filter(|packet| packet.track == track.id).collect();
        assert_eq!(found.len(), probed.len());
        for (packet, (pts, size, offset, key)) in found.iter().zip(probed) {
            assert_eq!((packet.pts - track.media_time, packet.key), (pts, key));
            assert_eq!(packet.data, &piped.bytes[offset as usize..offset as usize + size as usize]);
        }
        assert!(found.windows(2).all(|pair| pair[0].dts + i64::from(pair[0].duration) == pair[1].dts), "stream {stream}");
    }
}

#[test]
fn codecs_by_name() {
    let cases = [
        ("mpeg4 mp3", "names-1.mp4", "-c:v mpeg4 -c:a libmp3lame -ac 2"),
        ("mpeg2video ac3", "names-2.mp4", "-c:v mpeg2video -c:a ac3 -ac 6"),
        ("vp9 opus", "names-3.mp4", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
        ("h264 flac", "names-4.mp4", "-c:v libx264 -preset ultrafast -c:a flac -strict -2"),
        ("h264 eac3", "names-5.mp4", "-c:v libx264 -preset ultrafast -c:a eac3 -ac 6"),
        ("h264 alac", "names-6.mov", "-c:v libx264 -preset ultrafast -c:a alac"),
        ("prores aac", "names-7.mov", "-c:v prores -c:a aac"),
        ("mjpeg pcm", "names-8.mov", "-c:v mjpeg -c:a pcm_s24le"),
    ];
    for (expected, name, output) in cases {
        let film = Film::make(name, &format!("{PICTURES} {SOUND} -t 1 {output}"));
        let index = film.index();
        let codec = |kind| index.tracks.iter().find(|track| track.kind == kind).map(|track| track.codec.name().to_owned());
        let found = [codec(Kind::Video), codec(Kind::Audio)].map(Option::unwrap_or_default).join(" ");
        assert_eq!(found, expected);
        let sound = index.audio().next().and_then(|track| track.audio.clone()).expect("sound");
        let told = film.probe(&["-select_streams", "a", "-show_entries", "stream=sample_rate,channels"]);
        assert_eq!(format!("{},{}", sound.sample_rate, sound.channels), told.trim().trim_end_matches(','), "{expected}");
        if !expected.ends_with("pcm") {
            film.check_tables();
        }
    }
}

/// Reads whatever can be read of damaged bytes; the point is that it ends, and without a panic.
fn survive(bytes: &Bytes) {
    let (index, _) = drive(bytes, mp4::index);
    let Ok(index) = index else { return };
    for track in &index.tracks {
        if let Samples::Table(samples) = &track.samples {
            assert!(samples.iter().all(|sample| sample.offset + u64::from(sample.size) <= bytes.len() as u64));
        }
    }
    let mut sparse = Sparse::new(bytes.len() as u64);
    let Ok(context) = answer(&mut sparse, bytes, Context::read) else { return };
    let mut fragments = Fragments::at(index.first_byte, context);
    while let Ok(Some(frame)) = answer(&mut sparse, bytes, |sparse| fragments.next(sparse)) {
        assert!(frame.offset + u64::from(frame.len) <= bytes.len() as u64);
    }
}

/// Small films of both kinds, made once.
fn victims() -> &'static [Bytes] {
    static FILMS: std::sync::OnceLock<Vec<Bytes>> = std::sync::OnceLock::new();
    FILMS.get_or_init(|| {
        let tables = ["-movflags +faststart", "-f mov", "-movflags +frag_keyframe+dash+global_sidx", "-movflags +frag_keyframe"];
        let make = |(number, output): (usize, &&str)| film(&format!("victim-{number}.mp4"), &format!("-t 1 -g 6 {output}")).bytes.clone();
        tables.iter().enumerate().map(make).collect()
    })
}

/// Offsets of boxes' heads and what follows them, where damage hurts most.
fn sore_places(bytes: &[u8]) -> Vec<usize> {
    let letters = |kind: &[u8]| kind.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let heads = bytes.windows(8).enumerate().filter(|(_, head)| head[0] == 0 && letters(&head[4..]));
    heads.flat_map(|(at, _)| at..(at + 28).min(bytes.len())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn survives_any_bytes(head in prop::sample::select(vec![&b""[..], b"\0\0\0\x08ftyp", b"\0\0\0\x08free"]), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survive(&[head, &bytes].concat().into());
    }

    #[test]
    fn survives_damaged_films(
        film in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = victims()[film].to_vec();
        let places = sore_places(&bytes);
        for (at, value) in changes {
            bytes[places[at.index(places.len())]] = value;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        survive(&bytes.into());
    }
}
