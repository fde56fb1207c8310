//! The index of MP4 and QuickTime films against ffprobe: every sample of films that ffmpeg makes in many shapes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use balcony_media::container::mp4::{self, Context, Fragments};
use balcony_media::container::{Codec, Container, Damage, Frame, Index, Kind, Samples, Sparse, Stop};
use bytes::Bytes;

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
        for line in text.lines().filter(|line| !line.is_empty()) {
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
