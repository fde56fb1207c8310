//! What a film file contains: tracks, key frames, samples, found with a few reads.
//!
//! The types here are shared by all containers. Parsing is sans-IO: see [`Sparse`] and [`Stop`]. Nothing here decides what to do
//! with a track; that is `plan`.

pub mod marks;
pub mod matroska;
pub mod mp4;
mod sparse;
pub mod tail;

use bytes::Bytes;
pub use sparse::Sparse;

use crate::codec::Colour;

/// Why a parser stopped before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Bytes are missing: fetch this range, insert it in the [`Sparse`], call again.
    #[error("needs {len} bytes at {offset}")]
    Need {
        /// File offset in bytes.
        offset: u64,
        /// Number of bytes, at least 1.
        len: u64,
    },
    /// More bytes will not help.
    #[error(transparent)]
    Bad(#[from] Damage),
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends before something that it promised.
    #[error("the file is cut off")]
    Truncated,
    /// Not a file of this format at all.
    #[error("this is not {0}")]
    NotThis(&'static str),
    /// The format's rules are broken at an offset.
    #[error("damaged at byte {offset}: {what}")]
    Broken {
        /// File offset in bytes.
        offset: u64,
        /// What rule is broken, in a few words.
        what: &'static str,
    },
    /// A table is larger than anything that a film needs.
    #[error("{0} is larger than any film needs")]
    TooLarge(&'static str),
}

impl Stop {
    /// The file ends too early.
    pub const fn truncated() -> Self {
        Self::Bad(Damage::Truncated)
    }

    /// A rule of the format is broken at `offset`.
    pub const fn broken(offset: u64, what: &'static str) -> Self {
        Self::Bad(Damage::Broken { offset, what })
    }
}

/// The container formats that have an index of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// ISO base media file (MP4, MOV) with sample tables.
    Mp4,
    /// ISO base media file in movie fragments (`moof`).
    FragmentedMp4,
    /// Matroska or WebM.
    Matroska,
    /// Something else, of which only ffmpeg knows how to read it.
    Other,
}

/// The table of contents of a film file.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// What the file is.
    pub container: Container,
    /// Length of the film in seconds, where the container tells it (0 is "not told").
    pub duration: Option<f64>,
    /// All tracks, in the order in which libavformat numbers them (`0:N`).
    pub tracks: Vec<Track>,
    /// Matroska: file offset of the first Cluster; fragmented MP4: of the first `moof`; MP4: of the first sample.
    pub first_byte: u64,
    /// File offset just past the last media byte (end of the Segment, or of the file).
    pub end_byte: u64,
}

impl Index {
    /// The picture that is shown: the first video track that is not a cover image.
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind == Kind::Video)
    }

    /// All sound tracks in file order.
    pub fn audio(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| track.kind == Kind::Audio)
    }

    /// The container's own time at time zero of this index, in microseconds: 0, but for films whose pictures begin before that.
    pub fn zero_us(&self) -> i64 {
        let of = |track: &Track| if let Samples::Blocks(rules) = &track.samples { Some(rules.zero_us()) } else { None };
        self.tracks.iter().find_map(of).unwrap_or(0)
    }

    /// The track with the container's own number `id`.
    pub fn track(&self, id: u64) -> Option<&Track> {
        self.tracks.iter().find(|track| track.id == id)
    }
}

/// What a track is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Moving picture (a cover image or thumbnail track is [`Kind::Other`]).
    Video,
    /// Sound.
    Audio,
    /// Subtitles, text or images.
    Subtitle,
    /// Anything else.
    Other,
}

/// How a track is coded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is the codec's own name
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Vp8,
    Vp9,
    Mpeg4,
    Mpeg2Video,
    Aac,
    Ac3,
    Eac3,
    Dts,
    TrueHd,
    Mp3,
    Mp2,
    Opus,
    Vorbis,
    Flac,
    Alac,
    Pcm,
    Srt,
    Ass,
    WebVtt,
    MovText,
    Pgs,
    VobSub,
    DvbSub,
    /// The container's own name of a codec that is not in this list.
    Unknown(String),
}

impl Codec {
    /// The short lower-case name that the API and ffmpeg use (`h264`, `hevc`, `aac`, `ac3`, …).
    pub fn name(&self) -> &str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Mpeg4 => "mpeg4",
            Self::Mpeg2Video => "mpeg2video",
            Self::Aac => "aac",
            Self::Ac3 => "ac3",
            Self::Eac3 => "eac3",
            Self::Dts => "dts",
            Self::TrueHd => "truehd",
            Self::Mp3 => "mp3",
            Self::Mp2 => "mp2",
            Self::Opus => "opus",
            Self::Vorbis => "vorbis",
            Self::Flac => "flac",
            Self::Alac => "alac",
            Self::Pcm => "pcm",
            Self::Srt => "srt",
            Self::Ass => "ass",
            Self::WebVtt => "vtt",
            Self::MovText => "mov_text",
            Self::Pgs => "pgs",
            Self::VobSub => "vobsub",
            Self::DvbSub => "dvbsub",
            Self::Unknown(name) => name,
        }
    }
}

/// One track of a film.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// The container's own number: `track_ID` (ISO 14496-12, 8.3.2) or `TrackNumber` (RFC 9559, 5.1.4.1.1).
    pub id: u64,
    /// Position among all tracks of the file: ffmpeg's `0:N`.
    pub stream: usize,
    /// What it is for.
    pub kind: Kind,
    /// How it is coded.
    pub codec: Codec,
    /// The decoder's configuration in the form that an MP4 sample entry carries: the body of `avcC` or `hvcC` (without box header),
    /// or for AAC the AudioSpecificConfig (ISO 14496-3, 1.6.2.1). Empty where there is none. Matroska's `CodecPrivate` as it is for others.
    pub config: Bytes,
    /// Ticks per second of all times of this track, at least 1.
    pub timescale: u32,
    /// ISO 639-2 or BCP 47, as in the file; `und` where it is not told.
    pub language: String,
    /// Name for people, empty where there is none.
    pub title: String,
    /// Marked as the one to choose.
    pub default: bool,
    /// Marked as to be shown always (subtitles of foreign speech).
    pub forced: bool,
    /// Bits per second over the whole film, where the container tells enough to know.
    pub bitrate: Option<u64>,
    /// Of a video track.
    pub video: Option<Picture>,
    /// Of an audio track.
    pub audio: Option<Sound>,
    /// Where its samples are.
    pub samples: Samples,
    /// Key frames in order of time, of a video track whose container lists them. For Matroska: its Cues. May be empty.
    pub key_frames: Vec<KeyFrame>,
    /// Presentation time of the first sample in ticks, where it is known (may be negative: AAC priming).
    pub first_pts: Option<i64>,
    /// The file's time map for this track cannot be expressed by one shift (several edits, speed changes): do not copy it.
    /// Also set where the container itself compresses or encrypts the frames (Matroska ContentEncodings other than header stripping).
    pub complex_edits: bool,
}

/// How pictures look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// Coded width in pixels after cropping.
    pub width: u32,
    /// Coded height in pixels after cropping.
    pub height: u32,
    /// Width of one pixel over its height as a fraction, `(1, 1)` where square or not told.
    pub pixel_aspect: (u32, u32),
    /// Clockwise rotation for display: 0, 90, 180 or 270 degrees.
    pub rotation: u16,
    /// Mirrored, or turned by something that is no quarter: cannot be named by `rotation` alone.
    pub odd_matrix: bool,
    /// Pictures per second, where known.
    pub frame_rate: Option<f64>,
    /// Interlaced, as far as the container or the parameter sets tell.
    pub interlaced: bool,
    /// Bits per luma sample, where known.
    pub bit_depth: Option<u8>,
    /// HDR10, HLG or Dolby Vision transfer (ITU-T H.273 transfer 16 or 18).
    pub hdr: bool,
    /// Largest number of pictures that may precede one in decoding order and follow it in output order, where the parameter sets tell.
    pub reorder: Option<u8>,
    /// Colour as the container tells it, if it does.
    pub colour: Option<Colour>,
    /// For which light the pictures were made, where the container tells.
    pub light: Light,
}

/// Static metadata of HDR pictures, in the form that an MP4 sample entry carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Light {
    /// Body of `mdcv` (ISO 14496-12, 12.1.5; SMPTE ST 2086): chromaticities of green, blue, red and white in 1/50,000, largest and
    /// smallest luminance in 1/10,000 cd/m².
    pub mastering: Option<[u8; 24]>,
    /// Body of `clli` (ISO 14496-12, 12.1.6): largest light of a pixel, and of a picture on average, in cd/m².
    pub content: Option<[u8; 4]>,
}

/// How sound is sampled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sound {
    /// Number of channels.
    pub channels: u16,
    /// Sampling rate in hertz (that of the decoder's output).
    pub sample_rate: u32,
    /// Audio samples in each coded frame, where it is constant (AAC 1024, AC-3 1536 …).
    pub frame_len: Option<u32>,
}

/// A place where decoding can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFrame {
    /// Presentation time in ticks of the track.
    pub pts: i64,
    /// File offset from which to read: the sample itself in MP4, its Cluster in Matroska, its `moof` in fragmented MP4.
    pub offset: u64,
    /// Matroska: where its SimpleBlock or BlockGroup is, in bytes from the beginning of the Cluster's body (CueRelativePosition), if the
    /// Cues tell. `None` elsewhere.
    pub block: Option<u64>,
    /// No picture that follows it in the file is shown before it (closed GOP), as far as the container tells.
    pub closed: bool,
}

/// Where the samples of a track are.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// MP4: every sample, in decode order.
    Table(Vec<Sample>),
    /// Matroska: found while reading, by [`matroska::Blocks`].
    Blocks(matroska::BlockRules),
    /// Found only while reading (movie fragments).
    Inline,
}

/// One coded picture or frame of sound in a sample table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// File offset in bytes.
    pub offset: u64,
    /// Presentation time in ticks, edit list applied.
    pub pts: i64,
    /// Bytes.
    pub size: u32,
    /// Duration in ticks (decode time delta).
    pub duration: u32,
    /// Decoding can begin here.
    pub key: bool,
}

/// One frame that was found while reading clusters or fragments. Its payload is `prefix` followed by `len` bytes of the file at `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// [`Track::id`].
    pub track: u64,
    /// Presentation time in ticks of the track.
    pub pts: i64,
    /// Duration in ticks, where the container tells it.
    pub duration: Option<u32>,
    /// Decoding can begin here.
    pub key: bool,
    /// Bytes that the container left out (header stripping), usually none.
    pub prefix: Bytes,
    /// File offset at which reading must begin to meet this frame, which is what cuts by file offset compare: Matroska: its SimpleBlock or
    /// BlockGroup element; movie fragments: its `moof`.
    pub element: u64,
    /// File offset of the payload.
    pub offset: u64,
    /// Bytes of the payload in the file.
    pub len: u32,
}
