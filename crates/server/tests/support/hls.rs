//! A player for tests: reads playlists with a parser of another make, fetches segments in any order, and looks at every packet twice,
//! by our own reader and by ffprobe.

use std::path::{Path, PathBuf};
use std::process::Output;

use balcony_media::fmp4::Packet;
use balcony_media::fmp4::read::{Event, PipeTrack, Reader};
use bytes::Bytes;
use m3u8_rs::{AlternativeMediaType, MasterPlaylist, MediaPlaylist};
use serde_json::Value;

use super::server::TestServer;

/// All playlists of a stream.
pub(crate) struct Hls {
    pub(crate) master: MasterPlaylist,
    pub(crate) renditions: Vec<Rendition>,
}

/// One media playlist and, after [`Rendition::fetch`], its segments.
#[derive(Clone)]
pub(crate) struct Rendition {
    pub(crate) name: String,
    pub(crate) folder: String,
    pub(crate) playlist: MediaPlaylist,
    pub(crate) init: Bytes,
    pub(crate) segments: Vec<Bytes>,
}

/// Playlists and init segments of a stream: the picture first, then each sound.
pub(crate) async fn open(server: &TestServer, stream_url: &str) -> Hls {
    let text = server.fetch(stream_url).await;
    let master = m3u8_rs::parse_master_playlist_res(&text).expect("a master playlist");
    let root = stream_url.rsplit_once('/').expect("a folder").0;
    let variants = master.variants.iter().map(|variant| variant.uri.clone());
    let sounds = master.alternatives.iter().filter(|other| other.media_type == AlternativeMediaType::Audio);
    let sounds = sounds.filter_map(|other| other.uri.clone());
    let mut renditions = Vec::new();
    let mut known = std::collections::HashSet::new();
    // A picture stands there once for each codec of sound.
    for uri in variants.chain(sounds).filter(|uri| known.insert(uri.clone())) {
        let url = format!("{root}/{uri}");
        let text = server.fetch(&url).await;
        let playlist = m3u8_rs::parse_media_playlist_res(&text).unwrap_or_else(|error| panic!("{uri}: {error:?}"));
        let folder = url.rsplit_once('/').expect("a folder").0.to_owned();
        let name = uri.split('/').next().expect("a name").to_owned();
        let map = playlist.segments[0].map.as_ref().expect("an init segment").uri.clone();
        let init = server.fetch(&format!("{folder}/{map}")).await;
        renditions.push(Rendition { name, folder, playlist, init, segments: Vec::new() });
    }
    Hls { master, renditions }
}

impl Hls {
    /// Fetches every segment: from the middle to the second next one, from the start to the middle, then the rest, so that each rendition
    /// comes from several productions.
    pub(crate) async fn fetch_scattered(&mut self, server: &TestServer) {
        for rendition in &mut self.renditions {
            let count = rendition.playlist.segments.len();
            let middle = count / 2;
            let order = (middle..count.min(middle + 2)).chain(0..middle).chain(middle + 2..count);
            rendition.fetch(server, order).await;
        }
    }
}

impl Rendition {
    /// Fetches segments in this order; all of them, in the end.
    pub(crate) async fn fetch(&mut self, server: &TestServer, order: impl IntoIterator<Item = usize>) {
        let mut segments = vec![Bytes::new(); self.playlist.segments.len()];
        for n in order {
            segments[n] = self.segment(server, n).await;
        }
        assert!(segments.iter().all(|bytes| !bytes.is_empty()), "{}: a segment with nothing in it", self.name);
        self.segments = segments;
    }

    pub(crate) async fn segment(&self, server: &TestServer, n: usize) -> Bytes {
        server.fetch(&format!("{}/{}", self.folder, self.playlist.segments[n].uri)).await
    }

    /// Start of each segment on the playlist's own time line in seconds, and the end.
    pub(crate) fn told(&self) -> Vec<f64> {
        let mut at = 0.0;
        let mut all = vec![0.0];
        for segment in &self.playlist.segments {
            // The parser keeps single precision; that is a microsecond for what a segment lasts.
            at += (f64::from(segment.duration) * 1e6).round() / 1e6;
            all.push(at);
        }
        all
    }

    /// The track, and its packets by segment.
    pub(crate) fn packets(&self) -> (PipeTrack, Vec<Vec<Packet>>) {
        let track = track_of(&self.init);
        let all = self.segments.iter().enumerate().map(|(n, segment)| {
            let mut reader = Reader::new();
            reader.push(self.init.clone());
            reader.push(segment.clone());
            let mut packets = Vec::new();
            while let Some(event) = reader.next().unwrap_or_else(|error| panic!("{} {n}: {error}", self.name)) {
                if let Event::Packet(packet) = event {
                    packets.push(packet);
                }
            }
            reader.finish().unwrap_or_else(|error| panic!("{} {n}: {error}", self.name));
            packets
        });
        (track, all.collect())
    }

    /// All of it as one file.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}.mp4", self.name));
        let whole: Vec<u8> = std::iter::once(&self.init).chain(&self.segments).flatten().copied().collect();
        std::fs::write(&path, whole).expect("written");
        path
    }

    /// Bits per second of each segment.
    pub(crate) fn rates(&self) -> Vec<f64> {
        let seconds = self.playlist.segments.iter().map(|segment| f64::from(segment.duration));
        self.segments.iter().zip(seconds).map(|(bytes, seconds)| bytes.len() as f64 * 8.0 / seconds).collect()
    }
}

/// What an init segment says.
pub(crate) fn track_of(init: &Bytes) -> PipeTrack {
    let mut reader = Reader::new();
    reader.push(init.clone());
    match reader.next().expect("an init segment") {
        Some(Event::Header(tracks)) => tracks.into_iter().next().expect("a track"),
        other => panic!("no header but {other:?}"),
    }
}

/// A packet as ffprobe sees it; times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) pts: f64,
    pub(crate) dts: Option<f64>,
    pub(crate) duration: Option<f64>,
    pub(crate) hash: String,
}

/// All packets of a stream (`v:0`, `a:0`) in decode order.
pub(crate) async fn packets_of(film: &Path, stream: &str) -> Vec<Seen> {
    let entries = "packet=pts_time,dts_time,duration_time,data_hash";
    let arguments = ["-v", "error", "-select_streams", stream, "-show_data_hash", "MD5", "-show_entries", entries, "-of", "json"];
    let told = ffprobe(&arguments, film).await;
    let number = |packet: &Value, name: &str| packet[name].as_str().and_then(|text| text.parse::<f64>().ok());
    let list = told["packets"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|packet| Seen {
            pts: number(packet, "pts_time").or_else(|| number(packet, "dts_time")).expect("a time"),
            dts: number(packet, "dts_time"),
            duration: number(packet, "duration_time"),
            hash: packet["data_hash"].as_str().expect("a hash").to_owned(),
        })
        .collect()
}

/// What ffprobe says of a file's streams and format.
pub(crate) async fn facts(film: &Path) -> Value {
    ffprobe(&["-v", "error", "-show_streams", "-show_format", "-of", "json"], film).await
}

async fn ffprobe(arguments: &[&str], film: &Path) -> Value {
    let done = tokio::process::Command::new("ffprobe").args(arguments).arg(film).output().await.expect("ffprobe");
    assert!(done.status.success(), "ffprobe {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// What ffmpeg says while it decodes: frames with their times in seconds, and every complaint.
pub(crate) struct Decoded {
    pub(crate) frames: Vec<(f64, String)>,
    pub(crate) complaints: Vec<String>,
}

/// Decodes a stream of a file or address wholly.
pub(crate) async fn decode(input: &str, stream: &str) -> Decoded {
    let map = format!("0:{stream}");
    let arguments = ["-v", "error", "-nostdin", "-copyts", "-i", input, "-map", &map, "-fps_mode", "passthrough", "-f", "framemd5", "-"];
    let done = ffmpeg(&arguments).await;
    let text = String::from_utf8_lossy(&done.stdout);
    let base = text.lines().find_map(|line| line.strip_prefix("#tb 0: ")).unwrap_or("1/1");
    let (numerator, denominator) = base.split_once('/').expect("a time base");
    let tick = numerator.parse::<f64>().expect("a number") / denominator.parse::<f64>().expect("a number");
    let frame = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        Some((fields.get(2)?.parse::<f64>().ok()? * tick, (*fields.get(5)?).to_owned()))
    };
    let frames = text.lines().filter(|line| !line.starts_with('#')).filter_map(frame).collect();
    Decoded { frames, complaints: complaints(&done) }
}

fn complaints(done: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&done.stderr);
    // Addresses of decoders in memory differ from run to run.
    let plain = |line: &str| {
        line.split_once(" @ 0x")
            .map_or(line.to_owned(), |(name, rest)| format!("{name}{}", rest.trim_start_matches(|c: char| c.is_ascii_hexdigit())))
    };
    text.lines().filter(|line| !line.contains("non monotonically increasing dts to muxer")).map(plain).collect()
}

async fn ffmpeg(arguments: &[&str]) -> Output {
    tokio::process::Command::new("ffmpeg").args(arguments).output().await.expect("ffmpeg")
}

/// Side of the small pictures of [`thumbnails`].
const WIDTH: usize = 96;
const HEIGHT: usize = 54;

/// Every picture, small and grey.
pub(crate) async fn thumbnails(input: &str) -> Vec<Vec<u8>> {
    let scale = format!("scale={WIDTH}:{HEIGHT},format=gray");
    let arguments =
        ["-v", "error", "-nostdin", "-i", input, "-map", "0:v:0", "-vf", &scale, "-fps_mode", "passthrough", "-f", "rawvideo", "-"];
    ffmpeg(&arguments).await.stdout.chunks_exact(WIDTH * HEIGHT).map(<[u8]>::to_vec).collect()
}

/// How much two small pictures differ.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
}

/// Times in seconds, counted from `zero` on, at which clicks begin in the first sound.
pub(crate) async fn clicks(input: &str, zero: f64) -> Vec<f64> {
    // `aresample` puts silence where a track begins late, so that a sample's place is its time.
    let filter = format!("asetpts=PTS-{zero}/TB,aresample=48000:async=1:min_hard_comp=0.001:first_pts=0,pan=mono|c0=c0");
    let arguments = ["-v", "error", "-nostdin", "-copyts", "-i", input, "-map", "0:a:0"];
    let rest = ["-af", &filter, "-f", "s16le", "-"];
    let pcm = ffmpeg(&[&arguments[..], &rest[..]].concat()).await.stdout;
    let samples = pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs());
    let mut found: Vec<f64> = Vec::new();
    for (at, loud) in samples.enumerate() {
        let seconds = at as f64 / 48_000.0;
        if loud > 8_000 && found.last().is_none_or(|last| seconds - last > 0.5) {
            found.push(seconds);
        }
    }
    found
}
