//! What a decoder's configuration tells about a track: size, depth, colour, reordering, and its name in `CODECS` (RFC 6381).
//!
//! Containers hold these few bytes beside the samples; here they are read, never written, and no sample is looked at. All bytes are
//! foreign: every reading is total and answers `None` instead of guessing.

pub mod aac;
pub mod alac;
pub mod av1;
mod bits;
pub mod dolby;
pub mod flac;
pub mod h264;
pub mod hevc;
pub mod mp3;
pub mod opus;
pub mod vp9;

use crate::container::{Codec, Picture, Sound, Track};

/// What is known of a video track from its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedPicture {
    /// Name for `CODECS` (RFC 6381) with the sample entry that the writer makes: `avc1.64001F`, `hvc1.1.6.L93.B0`, or `hev1…` where
    /// the configuration lacks a parameter set.
    pub codecs: String,
    /// Size, shape, depth, reordering; rotation is a matter of the container and always 0 here.
    pub picture: Picture,
    /// `profile_idc`.
    pub profile: u8,
    /// `level_idc`: 10 × the level in H.264 (40 is 4.0), 30 × in HEVC (120 is 4.0).
    pub level: u8,
    /// How chroma is sampled.
    pub chroma: Chroma,
    /// Bits per chroma sample.
    pub chroma_bit_depth: u8,
    /// Colour as the stream tells it, if it does.
    pub colour: Option<Colour>,
    /// Whether `picture.frame_rate` is promised to be constant.
    pub fixed_rate: bool,
    /// Bytes of the length in front of each NAL unit in a sample: 1, 2 or 4; 0 of codecs without NAL units.
    pub nal_length: u8,
}

impl DescribedPicture {
    /// The name for `CODECS` where parameter sets are (also) in the samples: `avc3…`, `hev1…`.
    pub fn codecs_in_band(&self) -> String {
        self.codecs.replacen("avc1", "avc3", 1).replacen("hvc1", "hev1", 1)
    }
}

/// What is known of an audio track from its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedSound {
    /// Name for `CODECS` (RFC 6381) with the sample entry that the writer makes: `mp4a.40.2`, `ec-3`, `opus`.
    pub codecs: String,
    /// Channels and rate of the decoder's output, samples of that output per frame.
    pub sound: Sound,
    /// Bits per second that it never exceeds, where the configuration tells.
    pub bitrate: Option<u64>,
}

/// Bytes of a track's first frame that [`learn`] can make use of.
pub const FIRST_FRAME: usize = 16 << 10;

/// Whether a track's container leaves out something that its first frame tells: see [`learn`].
pub fn is_incomplete(track: &Track) -> bool {
    let without_config = matches!(track.codec, Codec::Ac3 | Codec::Eac3) && track.config.is_empty();
    let without_header = track.codec == Codec::Vp9 && vp9::describe(&track.config).is_none();
    let without_len = matches!(track.codec, Codec::Opus) && track.audio.as_ref().is_some_and(|sound| sound.frame_len.is_none());
    without_config || without_header || without_len
}

/// Fills in what Matroska does not keep of a track, from the beginning of its first frame: the configuration of AC-3 and E-AC-3 with the
/// channels and the length of frames that follow from it, the length of Opus packets, and the configuration of VP9. What the frame does
/// not tell stays as it was.
pub fn learn(track: &mut Track, frame: &[u8]) {
    if track.codec == Codec::Vp9 {
        let picture = track.video.get_or_insert_default();
        if let Some(config) = vp9::vpcc(frame, picture.frame_rate.unwrap_or(30.0), picture.colour) {
            picture.bit_depth = vp9::describe(&config).and_then(|told| told.picture.bit_depth);
            track.config = config;
        }
        return;
    }
    let sound = track.audio.get_or_insert_default();
    let config = match track.codec {
        Codec::Ac3 => dolby::dac3(frame),
        Codec::Eac3 => dolby::dec3(frame),
        Codec::Opus => {
            sound.frame_len = opus::packet_len(frame);
            return;
        }
        _ => None,
    };
    let Some(config) = config else { return };
    let told = if track.codec == Codec::Ac3 { dolby::describe_ac3(&config) } else { dolby::describe_eac3(&config) };
    // Times are counted in ticks of the rate that the container told; another one would be a different track.
    let Some(told) = told.filter(|told| told.sound.sample_rate == sound.sample_rate) else { return };
    track.bitrate = track.bitrate.or(told.bitrate);
    *sound = told.sound;
    track.config = config;
}

/// How many chroma samples belong to a luma sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chroma {
    /// No colour at all (4:0:0).
    Monochrome,
    /// 4:2:0.
    Quarter,
    /// 4:2:2.
    Half,
    /// 4:4:4.
    Full,
}

impl Chroma {
    /// From `chroma_format_idc` (H.264 and HEVC, table 6-1).
    const fn from_idc(idc: u32) -> Option<Self> {
        match idc {
            0 => Some(Self::Monochrome),
            1 => Some(Self::Quarter),
            2 => Some(Self::Half),
            3 => Some(Self::Full),
            _ => None,
        }
    }

    /// Luma samples per chroma sample, across and down; 1 where there is no chroma.
    const fn subsampling(self) -> (u32, u32) {
        match self {
            Self::Quarter => (2, 2),
            Self::Half => (2, 1),
            Self::Full | Self::Monochrome => (1, 1),
        }
    }
}

/// Colour description with the code points of ITU-T H.273; 2 is "unspecified".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// `colour_primaries`.
    pub primaries: u8,
    /// `transfer_characteristics`.
    pub transfer: u8,
    /// `matrix_coefficients`.
    pub matrix: u8,
    /// Luma uses all code values, not the studio range.
    pub full_range: bool,
}

impl Colour {
    /// Perceptual quantizer (16) or hybrid log-gamma (18).
    pub const fn is_hdr(self) -> bool {
        matches!(self.transfer, 16 | 18)
    }
}

/// The part of "video usability information" that H.264 (E.1.1) and HEVC (E.2.1) write alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usability {
    pixel_aspect: (u32, u32),
    colour: Option<Colour>,
}

impl Usability {
    const UNTOLD: Self = Self { pixel_aspect: (1, 1), colour: None };

    /// Reads up to and including `chroma_loc_info`. What was read before the bits end stays.
    fn read(&mut self, bits: &mut bits::Bits<'_>) -> Option<()> {
        if bits.flag()? {
            self.pixel_aspect = pixel_aspect(bits)?;
        }
        if bits.flag()? {
            bits.skip(1)?; // overscan_appropriate_flag
        }
        if bits.flag()? {
            bits.skip(3)?; // video_format
            let full_range = bits.flag()?;
            let (primaries, transfer, matrix) = if bits.flag()? { (bits.byte()?, bits.byte()?, bits.byte()?) } else { (2, 2, 2) };
            self.colour = Some(Colour { primaries, transfer, matrix, full_range });
        }
        if bits.flag()? {
            bits.ue()?;
            bits.ue()?;
        }
        Some(())
    }
}

/// `aspect_ratio_idc` and what follows it (table E-1 of both standards). A ratio with a zero is "not told".
fn pixel_aspect(bits: &mut bits::Bits<'_>) -> Option<(u32, u32)> {
    const TABLE: [(u32, u32); 17] = [
        (1, 1),
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    let idc = bits.byte()?;
    if idc != 255 {
        return Some(TABLE.get(usize::from(idc)).copied().unwrap_or((1, 1)));
    }
    let told = (bits.take(16)?, bits.take(16)?);
    Some(if told.0 == 0 || told.1 == 0 { (1, 1) } else { told })
}

/// Length of a picture's side after cropping, within what a sample entry can say (16 bits).
fn cropped(coded: u32, unit: u32, before: u32, after: u32) -> Option<u32> {
    let away = before.checked_add(after)?.checked_mul(unit)?;
    coded.checked_sub(away).filter(|side| (1..=u32::from(u16::MAX)).contains(side))
}

/// Pictures per second from a clock, if it is a rate that a film can have.
fn frame_rate(ticks_per_second: u32, ticks_per_picture: u64) -> Option<f64> {
    if ticks_per_picture == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // both come from 32-bit numbers
    let rate = f64::from(ticks_per_second) / ticks_per_picture as f64;
    (1.0..=480.0).contains(&rate).then_some(rate)
}

#[cfg(test)]
pub(crate) mod samples;
