//! What ffprobe tells of a file whose container has no index of ours (AVI, MPEG-TS, WMV, FLV …).
//!
//! It runs in the same cage and on the same kind of lease as ffmpeg, under a deadline, and what it writes is read with bounds. Films
//! whose tables we read ourselves never come here: a probe costs an eighth of a second and a few megabytes of the torrent.

use std::io;
use std::time::Duration;

use balcony_media::codec::Colour;
use balcony_media::container::{Codec, Kind, Picture, Samples, Sound, Track};
use balcony_media::ffmpeg::ProbeJob;
use bytes::Bytes;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::encode::{Tools, until_hung};
use crate::cage::{EXIT_UNCAGED, Limits, Reach};
use crate::source::{Source, SourceError};
use crate::spawner::Child;

/// Most bytes that a probe may write.
const MOST_BYTES: u64 = 1 << 20;

/// Most tracks that are taken.
const MOST_TRACKS: usize = 128;

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// Length of the film in seconds, told or estimated by libavformat; `None` where even that fails.
    pub duration: Option<f64>,
    /// The least time stamp of the file in microseconds: where film time begins.
    pub start_us: i64,
    /// libavformat's name of the format (`avi`, `mpegts`, …).
    pub format: String,
    /// All tracks in libavformat's order. Times are in ticks of film time: 90000 per second for pictures, the sampling rate for sound,
    /// 1000 for the rest. Nothing is known of samples, key frames and configurations.
    pub tracks: Vec<Track>,
}

/// Why a file could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It was not done in time, or hung.
    #[error("the file could not be looked at in time")]
    Late,
    /// ffprobe ended with an error: as a rule, this is no film.
    #[error("ffprobe ended with {status}: {stderr}")]
    Refused {
        /// Exit code or signal.
        status: String,
        /// The last that it said, at most 4 KB.
        stderr: String,
    },
    /// What it wrote cannot be understood, or is longer than any film needs.
    #[error("ffprobe's answer cannot be understood")]
    Unreadable,
    /// The film cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// ffprobe could not be started.
    #[error("ffprobe could not be started: {0}")]
    Start(#[from] io::Error),
}

impl ProbeError {
    /// The same without the film's address, which is nobody's business.
    fn without(self, url: &str) -> Self {
        match self {
            Self::Refused { status, stderr } => Self::Refused { status, stderr: stderr.replace(url, "the film") },
            other => other,
        }
    }
}

/// Looks at a file. After `deadline` the child is killed and the answer is [`ProbeError::Late`].
pub async fn probe(tools: &Tools, source: Source, deadline: Duration) -> Result<Probed, ProbeError> {
    let lease = tools.loopback.lease(source)?;
    let args = ProbeJob { url: lease.url() }.args();
    let mut child = tools.spawner.spawn(Limits::PROBE, &Reach::port(lease.port()), &tools.ffprobe, &args).await?;
    child.id().into_iter().for_each(|pid| lease.give_to(pid));
    let told = tokio::select! {
        told = tokio::time::timeout(deadline, listen(&mut child)) => told.unwrap_or(Err(ProbeError::Late)),
        () = until_hung(&lease, tools.patience) => Err(ProbeError::Late),
    };
    if let Some(error) = lease.error() {
        return Err(error.into());
    }
    let json = told.map_err(|error| error.without(&lease.url()))?;
    read(&json).ok_or(ProbeError::Unreadable)
}

async fn listen(child: &mut Child) -> Result<Vec<u8>, ProbeError> {
    let pipe = child.take_stdout().ok_or_else(|| io::Error::other("no pipe"))?;
    let mut json = Vec::new();
    pipe.take(MOST_BYTES + 1).read_to_end(&mut json).await?;
    if json.len() as u64 > MOST_BYTES {
        return Err(ProbeError::Unreadable);
    }
    let ended = child.wait().await?;
    if ended.status.code() == Some(EXIT_UNCAGED) {
        return Err(ProbeError::Start(io::Error::other(ended.stderr)));
    }
    if ended.status.success() { Ok(json) } else { Err(ProbeError::Refused { status: ended.status.to_string(), stderr: ended.stderr }) }
}

/// Reads ffprobe's JSON (`-show_format -show_streams`). `None` where it is none, or tells no format.
pub fn read(json: &[u8]) -> Option<Probed> {
    let told: Told = serde_json::from_slice(json).ok()?;
    let start = number(told.format.start_time.as_deref()).unwrap_or(0.0);
    let duration = number(told.format.duration.as_deref()).filter(|seconds| *seconds > 0.0);
    let tracks = told.streams.into_iter().take(MOST_TRACKS).map(|stream| stream.track(start)).collect();
    Some(Probed { duration, start_us: (start * 1e6).round() as i64, format: told.format.format_name, tracks })
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    streams: Vec<Stream>,
    format: Format,
}

#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    format_name: String,
    start_time: Option<String>,
    duration: Option<String>,
}

/// Numbers that may be unknown are texts in ffprobe's JSON.
#[derive(Deserialize)]
struct Stream {
    index: u32,
    #[serde(default)]
    codec_type: String,
    #[serde(default)]
    codec_name: String,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    sample_aspect_ratio: Option<String>,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    field_order: Option<String>,
    color_transfer: Option<String>,
    bits_per_raw_sample: Option<String>,
    #[serde(default)]
    channels: u16,
    sample_rate: Option<String>,
    bit_rate: Option<String>,
    start_time: Option<String>,
    #[serde(default)]
    side_data_list: Vec<SideData>,
    #[serde(default)]
    disposition: Disposition,
    #[serde(default)]
    tags: Tags,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Disposition {
    default: u8,
    forced: u8,
    attached_pic: u8,
    timed_thumbnails: u8,
}

#[derive(Deserialize, Default)]
struct Tags {
    language: Option<String>,
    title: Option<String>,
}

impl Stream {
    fn track(self, start: f64) -> Track {
        let kind = self.kind();
        let sample_rate = self.sample_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0);
        let timescale = match kind {
            Kind::Video => 90_000,
            Kind::Audio if sample_rate > 0 => sample_rate,
            Kind::Audio => 48_000,
            Kind::Subtitle | Kind::Other => 1000,
        };
        let first = number(self.start_time.as_deref()).map(|at| ((at - start) * f64::from(timescale)).round() as i64);
        Track {
            id: u64::from(self.index),
            stream: self.index as usize,
            kind,
            codec: codec(&self.codec_name),
            config: Bytes::new(),
            timescale,
            language: self.tags.language.clone().unwrap_or_else(|| "und".into()),
            title: self.tags.title.clone().unwrap_or_default(),
            default: self.disposition.default != 0,
            forced: self.disposition.forced != 0,
            bitrate: self.bit_rate.as_deref().and_then(|rate| rate.parse().ok()),
            video: (kind == Kind::Video).then(|| self.picture()),
            audio: (kind == Kind::Audio).then_some(Sound { channels: self.channels, sample_rate, frame_len: None }),
            samples: Samples::Inline,
            key_frames: Vec::new(),
            first_pts: first,
            complex_edits: false,
        }
    }

    fn kind(&self) -> Kind {
        match self.codec_type.as_str() {
            "video" if self.disposition.attached_pic != 0 || self.disposition.timed_thumbnails != 0 => Kind::Other,
            "video" => Kind::Video,
            "audio" => Kind::Audio,
            "subtitle" => Kind::Subtitle,
            _ => Kind::Other,
        }
    }

    fn picture(&self) -> Picture {
        let turned = self.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0.0);
        // ffprobe counts anti-clockwise.
        let clockwise = (-turned).rem_euclid(360.0);
        let quarter = (clockwise / 90.0).round();
        let rate = [&self.avg_frame_rate, &self.r_frame_rate].into_iter().flatten().find_map(|rate| fraction(rate, '/'));
        let transfer = match self.color_transfer.as_deref() {
            Some("smpte2084") => Some(16),
            Some("arib-std-b67") => Some(18),
            _ => None,
        };
        // Such pictures have the colours of BT.2020. Of others it does not matter here.
        let colour = transfer.map(|transfer| Colour { primaries: 9, transfer, matrix: 9, full_range: false });
        Picture {
            width: self.width,
            height: self.height,
            pixel_aspect: self.sample_aspect_ratio.as_deref().and_then(ratio).unwrap_or((1, 1)),
            rotation: (quarter as u16 % 4) * 90,
            odd_matrix: (clockwise - quarter * 90.0).abs() > 0.5,
            frame_rate: rate,
            interlaced: self.field_order.as_deref().is_some_and(|order| !matches!(order, "progressive" | "unknown")),
            bit_depth: self.bits_per_raw_sample.as_deref().and_then(|bits| bits.parse().ok()),
            hdr: transfer.is_some(),
            colour,
            ..Picture::default()
        }
    }
}

fn number(text: Option<&str>) -> Option<f64> {
    text?.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// `64:45`, both parts positive.
fn ratio(text: &str) -> Option<(u32, u32)> {
    let (over, under) = text.split_once(':')?;
    let parts = (over.parse().ok()?, under.parse().ok()?);
    (parts.0 > 0 && parts.1 > 0).then_some(parts)
}

fn fraction(text: &str, sign: char) -> Option<f64> {
    let (over, under) = text.split_once(sign)?;
    let value = over.parse::<f64>().ok()? / under.parse::<f64>().ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

/// libavcodec's names.
fn codec(name: &str) -> Codec {
    match name {
        "h264" => Codec::H264,
        "hevc" => Codec::Hevc,
        "av1" => Codec::Av1,
        "vp8" => Codec::Vp8,
        "vp9" => Codec::Vp9,
        "mpeg4" => Codec::Mpeg4,
        "mpeg2video" => Codec::Mpeg2Video,
        "aac" => Codec::Aac,
        "ac3" => Codec::Ac3,
        "eac3" => Codec::Eac3,
        "dts" => Codec::Dts,
        "truehd" => Codec::TrueHd,
        "mp3" => Codec::Mp3,
        "mp2" => Codec::Mp2,
        "opus" => Codec::Opus,
        "vorbis" => Codec::Vorbis,
        "flac" => Codec::Flac,
        "alac" => Codec::Alac,
        "subrip" => Codec::Srt,
        "ass" | "ssa" => Codec::Ass,
        "webvtt" => Codec::WebVtt,
        "mov_text" => Codec::MovText,
        "hdmv_pgs_subtitle" => Codec::Pgs,
        "dvd_subtitle" => Codec::VobSub,
        "dvb_subtitle" => Codec::DvbSub,
        pcm if pcm.starts_with("pcm_") => Codec::Pcm,
        other => Codec::Unknown(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROADCAST: &str = r#"{"streams":[
        {"index":0,"codec_name":"mpeg2video","codec_type":"video","width":720,"height":576,"sample_aspect_ratio":"64:45","field_order":"tt",
         "r_frame_rate":"25/1","avg_frame_rate":"0/0","start_time":"1.480000","disposition":{"default":1},
         "side_data_list":[{"side_data_type":"CPB properties"},{"side_data_type":"Display Matrix","rotation":-90}]},
        {"index":1,"codec_name":"mp2","codec_type":"audio","sample_rate":"48000","channels":2,"start_time":"1.400000","bit_rate":"192000",
         "tags":{"language":"deu","title":"Ton"}},
        {"index":2,"codec_name":"dvb_subtitle","codec_type":"subtitle","disposition":{"forced":1}},
        {"index":3,"codec_name":"mjpeg","codec_type":"video","disposition":{"attached_pic":1}},
        {"index":4,"codec_type":"data"}],
        "format":{"format_name":"mpegts","start_time":"1.400000","duration":"60.25"}}"#;

    #[test]
    fn a_broadcast_is_read() {
        let probed = read(BROADCAST.as_bytes()).expect("an answer");
        assert_eq!((probed.duration, probed.start_us, probed.format.as_str()), (Some(60.25), 1_400_000, "mpegts"));
        let kinds: Vec<Kind> = probed.tracks.iter().map(|track| track.kind).collect();
        assert_eq!(kinds, [Kind::Video, Kind::Audio, Kind::Subtitle, Kind::Other, Kind::Other]);
        let video = &probed.tracks[0];
        let picture = video.video.as_ref().expect("a picture");
        assert_eq!((picture.pixel_aspect, picture.rotation, picture.odd_matrix, picture.interlaced), ((64, 45), 90, false, true));
        assert_eq!((picture.frame_rate, video.timescale, video.first_pts, video.default), (Some(25.0), 90_000, Some(7200), true));
        let audio = &probed.tracks[1];
        assert_eq!((&audio.codec, audio.first_pts, audio.bitrate), (&Codec::Mp2, Some(0), Some(192_000)));
        assert_eq!((audio.language.as_str(), audio.title.as_str()), ("deu", "Ton"));
        assert!(probed.tracks[2].forced && probed.tracks[4].codec == Codec::Unknown(String::new()));
    }

    #[test]
    fn what_is_not_told_is_not_invented() {
        let probed =
            read(br#"{"streams":[{"index":0,"codec_type":"video"}],"format":{"duration":"N/A","start_time":"nan"}}"#).expect("an answer");
        assert_eq!((probed.duration, probed.start_us), (None, 0));
        assert_eq!(probed.tracks[0].video.as_ref().and_then(|picture| picture.frame_rate), None);
        for json in ["", "{}", "[]", r#"{"format":7}"#, r#"{"streams":[{"index":-1}],"format":{}}"#] {
            assert_eq!(read(json.as_bytes()), None, "{json}");
        }
    }
}
