//! Matroska films as mkvmerge and libavformat make them: our index and every single frame against what ffprobe says of the same file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use balcony_media::container::matroska::{Blocks, index};
use balcony_media::container::{Codec, Frame, Index, KeyFrame, Kind, Sparse, Stop};
use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

const FFMPEG: &str = "/usr/bin/ffmpeg";
const FFPROBE: &str = "/usr/bin/ffprobe";

/// Moving picture with a key frame every two seconds, and a tone.
const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=24:duration=12";
const TONE: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=12";
const H264: &str = "-c:v libx264 -preset ultrafast -g 48 -bf 2 -pix_fmt yuv420p";

/// A folder with the films of one test.
struct Studio {
    folder: TempDir,
}

impl Studio {
    fn new() -> Self {
        Self { folder: TempDir::with_prefix("matroska-").expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs ffmpeg in the folder; arguments are separated by spaces.
    fn ffmpeg(&self, arguments: &str, name: &str) -> Film {
        self.run(FFMPEG, &format!("-nostdin -v error -y {arguments} {name}"));
        Film::open(&self.path(name))
    }

    fn mkvmerge(&self, arguments: &str, name: &str) -> Film {
        self.run("mkvmerge", &format!("-q -o {name} {arguments}"));
        Film::open(&self.path(name))
    }

    /// What ffmpeg writes when it cannot go back to fill in sizes.
    fn piped(&self, arguments: &str, name: &str) -> Film {
        let written = self.run(FFMPEG, &format!("-nostdin -v error {arguments} -"));
        std::fs::write(self.path(name), written).expect("a film is written");
        Film::open(&self.path(name))
    }

    fn run(&self, program: &str, arguments: &str) -> Vec<u8> {
        let done = Command::new(program)
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            done.status.success(),
            "{program} {arguments}\n{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        done.stdout
    }

    fn h264_aac(&self) -> Film {
        self.ffmpeg(&format!("{PICTURE} {TONE} {H264} -c:a aac -ac 2"), "film.mkv")
    }
}

/// A film whose bytes are told only when they are asked for.
struct Film {
    path: PathBuf,
    data: Bytes,
    known: Sparse,
    rounds: usize,
}

impl Film {
    fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::of(std::fs::read(path).expect("the film").into()) }
    }

    fn of(data: Bytes) -> Self {
        let known = Sparse::new(data.len() as u64);
        Self { path: PathBuf::new(), data, known, rounds: 0 }
    }

    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Tells what `stop` asks for; the reason when it asks for nothing.
    fn tell(&mut self, stop: Stop) -> Option<Stop> {
        let Stop::Need { offset, len } = stop else { return Some(stop) };
        assert!(len > 0 && offset + len <= self.len(), "asked for {len} bytes at {offset} of {}", self.len());
        assert!(self.known.known(offset, 1).is_empty(), "asked for byte {offset}, which it had");
        self.rounds += 1;
        assert!(self.rounds <= 50_000, "asks without end");
        self.known.insert(offset, self.data.slice(offset as usize..(offset + len) as usize));
        None
    }

    fn try_index(&mut self) -> Result<Index, Stop> {
        loop {
            match index(&self.known) {
                Ok(index) => return Ok(index),
                Err(stop) => {
                    if let Some(bad) = self.tell(stop) {
                        return Err(bad);
                    }
                }
            }
        }
    }

    fn index(&mut self) -> Index {
        self.try_index().unwrap_or_else(|bad| panic!("{}: {bad}", self.path.display()))
    }

    fn next(&mut self, blocks: &mut Blocks) -> Result<Option<Frame>, Stop> {
        loop {
            match blocks.next(&self.known) {
                Ok(frame) => return Ok(frame),
                Err(stop) => {
                    if let Some(bad) = self.tell(stop) {
                        return Err(bad);
                    }
                }
            }
        }
    }

    fn read(&mut self, mut blocks: Blocks) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next(&mut blocks).expect("a sound film") {
            frames.push(frame);
        }
        frames
    }

    fn frames(&mut self, index: &Index) -> Vec<Frame> {
        self.read(Blocks::at(index.first_byte, index))
    }
}

/// What ffprobe says of one packet.
#[derive(Debug)]
struct Packet {
    stream: usize,
    /// Milliseconds, where the file tells it.
    pts: Option<i64>,
    size: u64,
    key: bool,
}

fn packets(path: &Path) -> Vec<Packet> {
    let out = Command::new(FFPROBE)
        .args(["-v", "error", "-fflags", "+noparse+nofillin", "-show_entries", "packet=stream_index,pts,size,flags", "-of", "compact=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe runs");
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).expect("text");
    let line = |line: &str| {
        let field = |name: &str| line.split('|').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        Some(Packet {
            stream: field("stream_index")?.parse().ok()?,
            pts: field("pts").and_then(|pts| pts.parse().ok()),
            size: field("size")?.parse().ok()?,
            key: field("flags")?.starts_with('K'),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Compares every frame of every track with ffprobe, and the key frames with the Cues.
#[track_caller]
fn agrees_with_ffprobe(film: &mut Film) -> (Index, Vec<Frame>) {
    let index = film.index();
    let frames = film.frames(&index);
    let packets = packets(&film.path);
    assert!(!packets.is_empty());
    let mut differences = String::new();
    for track in &index.tracks {
        let ours: Vec<&Frame> = frames.iter().filter(|frame| frame.track == track.id).collect();
        let theirs: Vec<&Packet> = packets.iter().filter(|packet| packet.stream == track.stream).collect();
        assert_eq!(ours.len(), theirs.len(), "frames of track {}", track.id);
        for (place, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            let size = u64::from(our.len) + our.prefix.len() as u64;
            let pts = our.pts as f64 * 1000.0 / f64::from(track.timescale);
            let allowed = if track.kind == Kind::Audio { 2.01 } else { 0.51 };
            let same_time = their.pts.is_none_or(|their| (pts - their as f64).abs() <= allowed);
            // libavformat calls only the first frame of a laced Block a key frame, which means nothing for sound.
            let same_key = our.key == their.key || track.kind != Kind::Video;
            if size != their.size || !same_key || !same_time {
                writeln!(differences, "track {} frame {place}: {our:?} at {pts} ms, but {their:?}", track.id).expect("a string");
            }
        }
    }
    let some: Vec<&str> = differences.lines().take(6).collect();
    assert!(some.is_empty(), "{}: {} differences, such as {some:#?}", film.path.display(), differences.lines().count());
    for key in index.video().map(|video| video.key_frames.as_slice()).unwrap_or_default() {
        let first = film.read(Blocks::between(&index, Some(key), None).only(&[index.video().expect("a picture").id])).remove(0);
        assert!(first.key && first.pts == key.pts, "{key:?} begins with {first:?}");
    }
    (index, frames)
}

/// All segments between key frames together are the film, frame by frame, and sound joins without a gap.
#[track_caller]
fn segments_are_the_film(film: &mut Film, index: &Index, frames: &[Frame]) {
    let keys: Vec<KeyFrame> = index.video().expect("a picture").key_frames.clone();
    assert!(keys.len() >= 3, "too few key frames to tell: {keys:?}");
    let mut together = Vec::new();
    let mut from = None;
    for to in keys.iter().skip(1).map(Some).chain([None]) {
        together.extend(film.read(Blocks::between(index, from, to)));
        from = to;
    }
    assert_eq!(together.len(), frames.len());
    assert!(together == frames, "segments differ from the film");
}

#[track_caller]
fn sound_is_on_its_grid(index: &Index, frames: &[Frame]) {
    for track in index.audio() {
        let len = i64::from(track.audio.as_ref().and_then(|sound| sound.frame_len).expect("frames of one length"));
        let times: Vec<i64> = frames.iter().filter(|frame| frame.track == track.id).map(|frame| frame.pts).collect();
        let jump = times.windows(2).position(|pair| pair[1] - pair[0] != len);
        assert!(jump.is_none(), "track {}: frames of {len}, but {jump:?} {:?}", track.id, &times[jump.unwrap_or(0)..][..4]);
    }
}

#[test]
fn libavformat_film() {
    let studio = Studio::new();
    let mut film = studio.h264_aac();
    let (index, frames) = agrees_with_ffprobe(&mut film);
    let video = index.video().expect("a picture");
    assert_eq!(video.codec, Codec::H264);
    assert_eq!(video.config.first(), Some(&1), "an avcC body");
    let picture = video.video.as_ref().expect("a picture");
    assert_eq!((picture.width, picture.height, picture.pixel_aspect), (320, 180, (1, 1)));
    assert!((picture.frame_rate.expect("a rate") - 24.0).abs() < 0.01);
    // libavformat moves everything by the 21 ms of the encoder's priming, so that no time is negative.
    let first = 21 * 90;
    let times: Vec<i64> = video.key_frames.iter().map(|key| key.pts - first).collect();
    assert_eq!(times, [0, 180_000, 360_000, 540_000, 720_000, 900_000]);
    assert_eq!(video.first_pts, Some(first));
    assert_eq!((picture.bit_depth, picture.reorder, picture.hdr, picture.interlaced), (Some(8), Some(2), false, false));
    let audio = index.audio().next().expect("sound");
    assert_eq!((audio.codec.clone(), audio.timescale), (Codec::Aac, 48_000));
    assert_eq!(audio.first_pts, Some(0));
    assert!((index.duration.expect("a duration") - 12.0).abs() < 0.1);
    sound_is_on_its_grid(&index, &frames);
    segments_are_the_film(&mut film, &index, &frames);
}

#[test]
fn mkvmerge_film_with_laced_sound_and_cues_at_the_end() {
    let studio = Studio::new();
    studio.ffmpeg(&format!("{PICTURE} {TONE} {H264} -c:a aac -ac 2"), "film.mp4");
    let mut film = studio.mkvmerge("--language 1:fre --track-name 1:Commentaire --default-track-flag 1:0 film.mp4", "merged.mkv");
    let (index, frames) = agrees_with_ffprobe(&mut film);
    let audio = index.audio().next().expect("sound");
    assert_eq!((audio.language.as_str(), audio.title.as_str(), audio.default), ("fr", "Commentaire", false));
    let laced = frames.windows(2).filter(|pair| pair[0].element == pair[1].element).count();
    assert!(laced > 100, "only {laced} laced frames");
    sound_is_on_its_grid(&index, &frames);
    segments_are_the_film(&mut film, &index, &frames);
}

#[test]
fn a_film_is_indexed_with_a_few_small_reads() {
    let studio = Studio::new();
    let source = "-f lavfi -i testsrc2=size=640x360:rate=24:duration=4,noise=alls=60:allf=t -f lavfi -i sine=duration=4";
    studio.ffmpeg(&format!("{source} {H264} -qp 34 -c:a aac"), "loop.mkv");
    studio.ffmpeg("-stream_loop 14 -i loop.mkv -c copy", "film.mkv");
    for (mut film, what) in [(Film::open(&studio.path("film.mkv")), "libavformat"), (studio.mkvmerge("film.mkv", "merged.mkv"), "mkvmerge")]
    {
        let index = film.index();
        assert_eq!(index.video().expect("a picture").key_frames.len(), 30, "{what}");
        assert!(film.rounds <= 8, "{what}: {} reads", film.rounds);
        assert!(film.known.held() < 300_000 && film.len() > 10_000_000, "{what}: {} of {} bytes", film.known.held(), film.len());
    }
}

#[test]
fn cues_in_front() {
    let studio = Studio::new();
    let mut film = studio.ffmpeg(&format!("{PICTURE} {TONE} {H264} -c:a aac -reserve_index_space 4096"), "film.mkv");
    let (index, frames) = agrees_with_ffprobe(&mut film);
    segments_are_the_film(&mut film, &index, &frames);
    let mut film = studio.ffmpeg("-i film.mkv -c copy -cues_to_front 1", "front.mkv");
    let (index, frames) = agrees_with_ffprobe(&mut film);
    segments_are_the_film(&mut film, &index, &frames);
}

#[test]
fn webm_with_opus_and_vorbis() {
    let studio = Studio::new();
    let vp9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 48";
    let mut film =
        studio.ffmpeg(&format!("{PICTURE} {TONE} {TONE} -map 0 -map 1 -map 2 {vp9} -c:a:0 libopus -c:a:1 libvorbis"), "film.webm");
    let (index, frames) = agrees_with_ffprobe(&mut film);
    let codecs: Vec<_> = index.tracks.iter().map(|track| track.codec.clone()).collect();
    assert_eq!(codecs, [Codec::Vp9, Codec::Opus, Codec::Vorbis]);
    assert!(index.tracks[1].first_pts.is_some_and(|pts| pts < 0), "CodecDelay is subtracted");
    segments_are_the_film(&mut film, &index, &frames);
}

#[test]
fn live_webm_with_unknown_sizes_and_no_cues() {
    let studio = Studio::new();
    let vp8 = "-c:v libvpx -deadline realtime -cpu-used 8 -g 48";
    let mut film = studio.piped(&format!("{PICTURE} {TONE} {vp8} -c:a libopus -f webm -live 1"), "live.webm");
    let (index, frames) = agrees_with_ffprobe(&mut film);
    assert!(index.video().expect("a picture").key_frames.is_empty());
    assert_eq!(index.duration, None);
    assert_eq!(index.end_byte, film.len());
    assert_eq!(film.read(Blocks::between(&index, None, None)), frames);
}

#[test]
fn many_sound_codecs_and_subtitles() {
    let studio = Studio::new();
    std::fs::write(studio.path("words.srt"), "1\n00:00:01,000 --> 00:00:02,500\nHello\n\n2\n00:00:05,000 --> 00:00:06,000\nWorld\n")
        .expect("subtitles");
    let maps = "-map 0 -map 1 -map 1 -map 1 -map 1 -map 1 -map 2 -map 2";
    let sound = "-c:a:0 ac3 -c:a:1 eac3 -c:a:2 libmp3lame -c:a:3 flac -c:a:4 mp2";
    let subtitles = "-c:s:0 srt -c:s:1 ass -metadata:s:s:0 language=ger -disposition:s:0 forced -disposition:s:1 0";
    let mut film = studio.ffmpeg(&format!("{PICTURE} {TONE} -i words.srt {maps} {H264} {sound} {subtitles}"), "film.mkv");
    for name in ["film.mkv", "merged.mkv"] {
        if name == "merged.mkv" {
            film = studio.mkvmerge("film.mkv", name);
        }
        let (index, frames) = agrees_with_ffprobe(&mut film);
        let codecs: Vec<_> = index.tracks.iter().map(|track| track.codec.name().to_owned()).collect();
        assert_eq!(codecs, ["h264", "ac3", "eac3", "mp3", "flac", "mp2", "srt", "ass"]);
        let subtitle = &index.tracks[6];
        let language = if name == "merged.mkv" { "de" } else { "ger" };
        assert_eq!((subtitle.language.as_str(), subtitle.forced), (language, true));
        let words: Vec<_> = frames.iter().filter(|frame| frame.track == subtitle.id).map(|frame| (frame.pts, frame.duration)).collect();
        assert_eq!(words, [(1023, Some(1500)), (5023, Some(1000))], "with the 23 ms by which libavformat moves everything");
        sound_is_on_its_grid(&index, &frames);
        segments_are_the_film(&mut film, &index, &frames);
    }
}

#[test]
fn header_stripping_is_a_prefix() {
    let studio = Studio::new();
    studio.ffmpeg(&format!("{PICTURE} {TONE} -c:v mpeg4 -g 48 -c:a ac3"), "film.mkv");
    let mut film = studio.mkvmerge("--compression 0:mpeg4_p2 film.mkv", "stripped.mkv");
    let (index, frames) = agrees_with_ffprobe(&mut film);
    let video = index.video().expect("a picture");
    assert_eq!((&video.codec, video.complex_edits), (&Codec::Mpeg4, false));
    let prefixes = |track: u64| frames.iter().filter(move |frame| frame.track == track).map(|frame| frame.prefix.as_ref());
    assert!(prefixes(video.id).all(|prefix| prefix == [0, 0, 1]));
    assert!(prefixes(index.audio().next().expect("sound").id).all(<[u8]>::is_empty));
}

#[test]
fn compressed_frames_are_not_to_be_copied() {
    let studio = Studio::new();
    studio.ffmpeg(&format!("{PICTURE} {TONE} {H264} -c:a ac3"), "film.mkv");
    let mut film = studio.mkvmerge("--compression 1:zlib film.mkv", "packed.mkv");
    let index = film.index();
    assert!(index.audio().all(|track| track.complex_edits));
    assert!(index.video().is_some_and(|track| !track.complex_edits));
}

#[test]
fn a_film_that_is_cut_off_keeps_what_is_there() {
    let studio = Studio::new();
    let whole = studio.h264_aac();
    let all = {
        let mut film = Film::of(whole.data.clone());
        let index = film.index();
        film.frames(&index)
    };
    for share in [30, 55, 80] {
        let mut film = Film::of(whole.data.slice(..whole.data.len() * share / 100));
        let index = film.index();
        assert!(index.video().expect("a picture").key_frames.is_empty(), "its Cues were at the end");
        let frames = film.frames(&index);
        assert!(frames.len() > all.len() * share / 200, "{} of {} frames at {share} %", frames.len(), all.len());
        assert!(all.starts_with(&frames));
        assert!(frames.iter().all(|frame| frame.offset + u64::from(frame.len) <= film.len()));
    }
}

#[test]
fn a_film_with_a_hole_plays_on() {
    let studio = Studio::new();
    let arguments = format!("{PICTURE} {TONE} {H264} -c:a aac -cluster_time_limit 1000 -f matroska");
    for (film, sizes) in [(studio.ffmpeg(&arguments, "film.mkv"), "known"), (studio.piped(&arguments, "piped.mkv"), "unknown")] {
        let mut sound = Film::of(film.data.clone());
        let index = sound.index();
        let all = sound.frames(&index);
        let mut holed = film.data.to_vec();
        let middle = all[all.len() / 2].element as usize;
        holed[middle..middle + 3000].fill(0);
        let mut holed = Film::of(holed.into());
        let frames = holed.frames(&index);
        assert_eq!(frames.last(), all.last(), "{sizes} sizes");
        assert!(frames.len() > all.len() * 3 / 4 && frames.len() < all.len(), "{} of {}", frames.len(), all.len());
    }
}

fn small_film() -> Bytes {
    static FILM: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    let make = || {
        let studio = Studio::new();
        let source = "-f lavfi -i testsrc2=size=64x64:rate=24:duration=2 -f lavfi -i sine=duration=2";
        studio.ffmpeg(&format!("{source} {H264} -g 6 -c:a aac -cluster_time_limit 300"), "source.mkv");
        studio.mkvmerge("source.mkv", "film.mkv").data
    };
    FILM.get_or_init(make).clone()
}

/// Reads whatever it is to the end or to its damage.
fn survives(data: Bytes) {
    let mut film = Film::of(data);
    let Ok(index) = film.try_index() else { return };
    let mut starts = vec![Blocks::at(index.first_byte, &index)];
    for key in index.tracks.iter().flat_map(|track| &track.key_frames).take(3) {
        starts.push(Blocks::between(&index, Some(key), None));
        starts.push(Blocks::between(&index, None, Some(key)));
    }
    for mut blocks in starts {
        let mut last = 0;
        while let Ok(Some(frame)) = film.next(&mut blocks) {
            assert!(frame.offset + u64::from(frame.len) <= film.len());
            assert!(frame.element >= last, "goes backwards");
            last = frame.element;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..600), genuine in 0..400usize) {
        let film = small_film();
        survives([&film[..genuine], &data[..]].concat().into());
    }

    #[test]
    fn mutated_films(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), head in any::<bool>(), cut in any::<Option<prop::sample::Index>>()) {
        let mut film = small_film().to_vec();
        let reach = if head { 5000.min(film.len()) } else { film.len() };
        for (place, byte) in changes {
            film[place.index(reach)] = byte;
        }
        if let Some(cut) = cut {
            film.truncate(cut.index(film.len()));
        }
        survives(film.into());
    }
}
