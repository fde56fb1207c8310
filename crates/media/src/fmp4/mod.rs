//! CMAF (ISO 23000-19) over ISO 14496-12: the only writer of init segments and chunks, the reader of ffmpeg's pipe, and the writer of a
//! film to keep.

pub mod entry;
pub mod read;
pub mod whole;
pub mod write;
pub mod wvtt;

use bytes::Bytes;

/// A sample as it is known before its bytes are: what a `trun` row needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Bytes.
    pub size: u32,
    /// Duration in ticks.
    pub duration: u32,
    /// Composition offset in ticks as written (shift included).
    pub composition: i64,
    /// A sync sample.
    pub key: bool,
}

/// A coded picture or frame of sound that came out of ffmpeg's pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `track_ID` in the pipe's own `moov`.
    pub track: u32,
    /// Presentation time in ticks of that track's timescale (edit list not applied, composition offset applied).
    pub pts: i64,
    /// Decode time in the same ticks.
    pub dts: i64,
    /// Duration in the same ticks.
    pub duration: u32,
    /// A sync sample.
    pub key: bool,
    /// The coded bytes.
    pub data: Bytes,
}
