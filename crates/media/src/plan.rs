//! What is copied, what is converted, and the sentence why.
//!
//! Copying is always better: it costs nothing and loses nothing. So the plan asks only for reasons against it, and the first reason
//! that it finds is the one that a person reads.

use crate::codec::{self, Chroma};
use crate::container::{Codec, Index, Track};
use crate::cut::Uncuttable;
use crate::device::Capabilities;
use crate::fmp4::entry;
use crate::ladder::{self, Quality, Size};

/// How a stream is made, in the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is converted.
    Copy,
    /// The picture is copied, the sound is not.
    ConvertAudio,
    /// The picture is converted.
    Convert,
}

impl Mode {
    /// `copy`, `convert_audio` or `convert`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::ConvertAudio => "convert_audio",
            Self::Convert => "convert",
        }
    }
}

/// Why something is converted, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Everything plays as it is.
    Copy {
        /// For people, e.g. `H.264`.
        video: String,
        /// For people; `None` where the film has no sound.
        audio: Option<String>,
    },
    /// The client does not play this video codec or this flavour of it.
    VideoCodec(String),
    /// The client does not play this audio codec.
    AudioCodec(String),
    /// A smaller picture was asked for.
    Quality {
        /// Height of the converted picture in pixels.
        height: u32,
    },
    /// Subtitles are to be drawn into the picture.
    Burn,
    /// Field pictures.
    Interlaced,
    /// The picture must be turned.
    Rotated,
    /// HDR on a client without it.
    Hdr,
    /// No list of key frames.
    NoIndex,
    /// Closed key frames are too far apart.
    SparseKeyFrames,
    /// The container stores the track in a way that cannot be passed on.
    Storage,
}

impl Why {
    /// Stable name for clients that say it in another language.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Copy { .. } => "copy",
            Self::VideoCodec(_) => "video_codec",
            Self::AudioCodec(_) => "audio_codec",
            Self::Quality { .. } => "quality",
            Self::Burn => "burn",
            Self::Interlaced => "interlaced",
            Self::Rotated => "rotated",
            Self::Hdr => "hdr",
            Self::NoIndex => "no_index",
            Self::SparseKeyFrames => "sparse_key_frames",
            Self::Storage => "storage",
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copy { video, audio: Some(audio) } => write!(f, "{video} and {audio} play on this device as they are"),
            Self::Copy { video, audio: None } => write!(f, "{video} plays on this device as it is"),
            Self::VideoCodec(name) => write!(f, "This device cannot play {name} pictures, so they are converted to H.264"),
            Self::AudioCodec(name) => {
                write!(f, "This device cannot play {name} sound, so it is converted to AAC; the picture is untouched")
            }
            Self::Quality { height } => write!(f, "A smaller picture was asked for, so the film is converted to {height} lines"),
            Self::Burn => f.write_str("Subtitles are drawn into the picture, so it is converted"),
            Self::Interlaced => f.write_str("The film is interlaced, so the picture is converted"),
            Self::Rotated => f.write_str("The film has to be turned, so the picture is converted"),
            Self::Hdr => f.write_str("This device does not show HDR, so the colours are converted"),
            Self::NoIndex => f.write_str("The file has no index to seek by, so the picture is converted"),
            Self::SparseKeyFrames => {
                f.write_str("The film can be entered at few places only, so the picture is converted to make seeking quick")
            }
            Self::Storage => f.write_str("The file stores the film in a way that players do not read, so it is converted"),
        }
    }
}

/// What happens to the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoPlan {
    /// Its samples are passed on.
    Copy,
    /// It is converted to H.264 of this size.
    Encode(Size),
}

/// What happens to one sound track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPlan {
    /// [`Track::stream`].
    pub stream: usize,
    /// Passed on as it is, else converted to AAC.
    pub copy: bool,
}

/// How a film is made playable for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The sum of it.
    pub mode: Mode,
    /// The reason.
    pub why: Why,
    /// Of the picture; `None` for a film with sound only.
    pub video: Option<VideoPlan>,
    /// Subtitles are drawn into the picture.
    pub draws: bool,
    /// Of each sound track, in file order.
    pub audio: Vec<AudioPlan>,
}

/// Decides for a film, a client and a quality. `draws`: subtitles are to be drawn into the picture; `cuttable` tells whether the film has
/// places to cut its copy at.
pub fn decide(index: &Index, client: &Capabilities, quality: Quality, draws: bool, cuttable: Result<(), Uncuttable>) -> Plan {
    let video = index.video();
    let draws = draws && video.is_some();
    let drawn = draws.then_some(Why::Burn);
    let against_video = drawn.or_else(|| video.and_then(|track| against_picture(track, client, quality, cuttable)));
    let video_plan = video.map(|track| match &against_video {
        None => VideoPlan::Copy,
        Some(_) => VideoPlan::Encode(encoded_size(track, client, quality)),
    });
    let passed = |track: &Track| cuttable.is_ok() && against_sound(track, client).is_none();
    let audio: Vec<AudioPlan> = index.audio().map(|track| AudioPlan { stream: track.stream, copy: passed(track) }).collect();
    // The sound that plays first tells the story; other languages may be converted silently.
    let first = index.audio().find(|track| track.default).or_else(|| index.audio().next());
    let converted_sound = first.filter(|track| audio.iter().any(|plan| plan.stream == track.stream && !plan.copy));
    let (mode, why) = match (against_video, converted_sound) {
        (Some(why), _) => (Mode::Convert, why),
        (None, Some(track)) => (Mode::ConvertAudio, against_sound(track, client).unwrap_or(Why::NoIndex)),
        (None, None) => {
            let video = video.map_or_else(|| "The sound".into(), |track| label(&track.codec));
            (Mode::Copy, Why::Copy { video, audio: first.map(|track| label(&track.codec)) })
        }
    };
    Plan { mode, why, video: video_plan, draws, audio }
}

fn against_picture(track: &Track, client: &Capabilities, quality: Quality, cuttable: Result<(), Uncuttable>) -> Option<Why> {
    let picture = track.video.clone().unwrap_or_default();
    if !client.plays_video(&track.codec) || !track.codec.is_packaged() {
        return Some(Why::VideoCodec(label(&track.codec)));
    }
    if let Some(flavour) = strange_flavour(track, client) {
        return Some(Why::VideoCodec(flavour));
    }
    if track.complex_edits {
        return Some(Why::Storage);
    }
    if picture.interlaced {
        return Some(Why::Interlaced);
    }
    if picture.rotation != 0 || picture.odd_matrix {
        return Some(Why::Rotated);
    }
    if picture.hdr && !client.hdr {
        return Some(Why::Hdr);
    }
    let size = encoded_size(track, client, quality);
    if size != ladder::fit(&picture, Quality::Source, None) {
        return Some(Why::Quality { height: size.height });
    }
    match cuttable {
        Ok(()) => None,
        Err(Uncuttable::NoIndex) => Some(Why::NoIndex),
        Err(Uncuttable::TooSparse) => Some(Why::SparseKeyFrames),
    }
}

/// A flavour of a known codec that common players do not decode: H.264 in more than 8 bits or in 4:2:2, levels above 5.2.
fn strange_flavour(track: &Track, client: &Capabilities) -> Option<String> {
    match track.codec {
        Codec::H264 => match codec::h264::describe(&track.config) {
            None => Some("H.264 without parameters".into()),
            Some(what) if what.picture.bit_depth.is_some_and(|depth| depth > 8) => Some("10-bit H.264".into()),
            Some(what) if what.chroma != Chroma::Quarter => Some("H.264 with full colour".into()),
            Some(what) if what.level > 52 => Some("H.264 above level 5.2".into()),
            Some(_) => None,
        },
        // Who plays HEVC, AV1 or VP9 plays ten bits of them, but only 4:2:0; twelve bits are of no player.
        _ => match entry::picture(track) {
            None => Some(format!("{} without parameters", label(&track.codec))),
            Some((_, what)) if what.picture.bit_depth.is_some_and(|depth| depth > 10) => Some(format!("12-bit {}", label(&track.codec))),
            Some((_, what)) if !matches!(what.chroma, Chroma::Quarter | Chroma::Monochrome) => {
                Some(format!("{} with full colour", label(&track.codec)))
            }
            // Ten bits of VP9 are a profile of their own, which comes with screens for HDR.
            Some((_, what)) if track.codec == Codec::Vp9 && what.profile > 0 && !client.hdr => Some("10-bit VP9".into()),
            Some(_) => None,
        },
    }
}

fn against_sound(track: &Track, client: &Capabilities) -> Option<Why> {
    if !client.plays_audio(&track.codec) || entry::sound(track).is_none() {
        return Some(Why::AudioCodec(label(&track.codec)));
    }
    let channels = track.audio.as_ref().map_or(0, |sound| sound.channels);
    if track.codec == Codec::Aac && channels > 8 {
        return Some(Why::AudioCodec(format!("{channels}-channel AAC")));
    }
    track.complex_edits.then_some(Why::Storage)
}

fn encoded_size(track: &Track, client: &Capabilities, quality: Quality) -> Size {
    let picture = track.video.clone().unwrap_or_default();
    ladder::fit(&picture, quality, client.max_height)
}

impl Codec {
    /// Whether the CMAF writer has a sample entry for it.
    pub fn is_packaged(&self) -> bool {
        let sound = matches!(self, Self::Aac | Self::Ac3 | Self::Eac3 | Self::Opus | Self::Flac | Self::Mp3 | Self::Alac);
        sound || matches!(self, Self::H264 | Self::Hevc | Self::Av1 | Self::Vp9)
    }
}

/// A codec's name as people write it.
pub fn label(codec: &Codec) -> String {
    match codec {
        Codec::H264 => "H.264".into(),
        Codec::Hevc => "HEVC".into(),
        Codec::Av1 => "AV1".into(),
        Codec::Vp8 => "VP8".into(),
        Codec::Vp9 => "VP9".into(),
        Codec::Mpeg4 => "MPEG-4".into(),
        Codec::Mpeg2Video => "MPEG-2".into(),
        Codec::Aac => "AAC".into(),
        Codec::Ac3 => "AC-3".into(),
        Codec::Eac3 => "E-AC-3".into(),
        Codec::Dts => "DTS".into(),
        Codec::TrueHd => "TrueHD".into(),
        Codec::Mp3 => "MP3".into(),
        Codec::Mp2 => "MP2".into(),
        Codec::Opus => "Opus".into(),
        Codec::Vorbis => "Vorbis".into(),
        Codec::Flac => "FLAC".into(),
        Codec::Alac => "ALAC".into(),
        Codec::Pcm => "PCM".into(),
        other => other.name().chars().filter(|c| c.is_ascii_graphic()).take(20).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Container, Kind, Picture, Samples, Sound};

    /// High profile, level 4.0, 1920 × 1080, and a plain AAC configuration, as common encoders write them.
    const AVCC: &[u8] = &[
        1, 100, 0, 40, 255, 225, 0, 27, 103, 100, 0, 40, 172, 217, 64, 120, 2, 39, 229, 192, 68, 0, 0, 3, 0, 4, 0, 0, 3, 0, 192, 60, 96,
        198, 88, 1, 0, 6, 104, 235, 227, 203, 34, 192,
    ];
    const ASC: &[u8] = &[0x11, 0x90];

    fn track(kind: Kind, codec: Codec, config: &'static [u8]) -> Track {
        Track {
            id: 1,
            stream: usize::from(kind == Kind::Audio),
            kind,
            codec,
            config: bytes::Bytes::from_static(config),
            timescale: 1000,
            language: "und".into(),
            title: String::new(),
            default: true,
            forced: false,
            bitrate: None,
            video: (kind == Kind::Video).then(|| Picture { width: 1920, height: 1080, pixel_aspect: (1, 1), ..Picture::default() }),
            audio: (kind == Kind::Audio).then_some(Sound { channels: 2, sample_rate: 48_000, frame_len: Some(1024) }),
            samples: Samples::Inline,
            key_frames: vec![],
            first_pts: None,
            complex_edits: false,
        }
    }

    fn film(change: impl Fn(&mut Track), sound: Codec) -> Index {
        let mut video = track(Kind::Video, Codec::H264, AVCC);
        change(&mut video);
        let audio = track(Kind::Audio, sound, ASC);
        Index { container: Container::Mp4, duration: None, tracks: vec![video, audio], first_byte: 0, end_byte: 0 }
    }

    fn picture(track: &mut Track) -> &mut Picture {
        track.video.get_or_insert_default()
    }

    #[test]
    fn reasons() {
        let plain = Capabilities::default();
        let all = Capabilities { video: vec!["h264".into(), "hevc".into()], hdr: true, ..plain.clone() };
        type Case<'a> = (Index, &'a Capabilities, Quality, Result<(), Uncuttable>, Mode, &'static str);
        let cases: [Case<'_>; 12] = [
            (film(|_| (), Codec::Aac), &plain, Quality::Auto, Ok(()), Mode::Copy, "copy"),
            (film(|_| (), Codec::Aac), &plain, Quality::P1080, Ok(()), Mode::Copy, "copy"),
            (film(|_| (), Codec::Ac3), &plain, Quality::Auto, Ok(()), Mode::ConvertAudio, "audio_codec"),
            (film(|_| (), Codec::Aac), &plain, Quality::P720, Ok(()), Mode::Convert, "quality"),
            (film(|v| v.codec = Codec::Hevc, Codec::Aac), &plain, Quality::Auto, Ok(()), Mode::Convert, "video_codec"),
            (film(|v| v.codec = Codec::Mpeg4, Codec::Mp3), &plain, Quality::Auto, Err(Uncuttable::NoIndex), Mode::Convert, "video_codec"),
            (film(|v| picture(v).interlaced = true, Codec::Aac), &plain, Quality::Source, Ok(()), Mode::Convert, "interlaced"),
            (film(|v| picture(v).rotation = 90, Codec::Aac), &plain, Quality::Source, Ok(()), Mode::Convert, "rotated"),
            (film(|v| picture(v).hdr = true, Codec::Aac), &plain, Quality::Auto, Ok(()), Mode::Convert, "hdr"),
            (film(|v| picture(v).hdr = true, Codec::Aac), &all, Quality::Auto, Ok(()), Mode::Copy, "copy"),
            (film(|_| (), Codec::Aac), &plain, Quality::Auto, Err(Uncuttable::TooSparse), Mode::Convert, "sparse_key_frames"),
            (film(|v| v.complex_edits = true, Codec::Aac), &plain, Quality::Auto, Ok(()), Mode::Convert, "storage"),
        ];
        for (at, (index, client, quality, cuttable, mode, why)) in cases.into_iter().enumerate() {
            let plan = decide(&index, client, quality, false, cuttable);
            assert_eq!((plan.mode, plan.why.key()), (mode, why), "case {at}: {}", plan.why);
        }
    }

    #[test]
    fn subtitles_in_the_picture_take_a_conversion_of_it_and_leave_the_sound() {
        let plan = decide(&film(|_| (), Codec::Aac), &Capabilities::default(), Quality::Auto, true, Ok(()));
        assert_eq!((plan.mode, plan.why.key()), (Mode::Convert, "burn"));
        assert_eq!(plan.video, Some(VideoPlan::Encode(Size { width: 1920, height: 1080 })));
        assert!(plan.draws && plan.audio.iter().all(|sound| sound.copy));
        // There is no picture to draw into.
        let mut heard = film(|_| (), Codec::Aac);
        heard.tracks.retain(|track| track.kind == Kind::Audio);
        let plan = decide(&heard, &Capabilities::default(), Quality::Auto, true, Ok(()));
        assert_eq!((plan.mode, plan.draws), (Mode::Copy, false));
    }

    /// AV1 in 10 bits, VP9 in 8 and in 10 bits, VP9 in 4:4:4, and one whose configuration is missing.
    const AV1C: &[u8] = &[0x81, 0x01, 0x4c, 0];
    const VP9: &[u8] = &[1, 0, 0, 0, 0, 40, 0x82, 2, 2, 2, 0, 0];
    const VP9_DEEP: &[u8] = &[1, 0, 0, 0, 2, 40, 0xa2, 9, 16, 9, 0, 0];
    const VP9_FULL: &[u8] = &[1, 0, 0, 0, 1, 40, 0x86, 2, 2, 2, 0, 0];

    #[test]
    fn flavours() {
        let client = Capabilities { video: vec!["av1".into(), "vp9".into()], ..Capabilities::default() };
        let hdr = Capabilities { hdr: true, ..client.clone() };
        for (codec, config, client, mode) in [
            (Codec::Av1, AV1C, &client, Mode::Copy),
            (Codec::Av1, &AV1C[..2], &client, Mode::Convert),
            (Codec::Av1, AV1C, &Capabilities::default(), Mode::Convert),
            (Codec::Vp9, VP9, &client, Mode::Copy),
            (Codec::Vp9, VP9_DEEP, &client, Mode::Convert),
            (Codec::Vp9, VP9_DEEP, &hdr, Mode::Copy),
            (Codec::Vp9, VP9_FULL, &hdr, Mode::Convert),
            (Codec::Vp9, b"", &hdr, Mode::Convert),
        ] {
            let index = film(|v| (v.codec, v.config) = (codec.clone(), bytes::Bytes::from_static(config)), Codec::Aac);
            assert_eq!(decide(&index, client, Quality::Auto, false, Ok(())).mode, mode, "{codec:?} {config:02x?}");
        }
    }

    #[test]
    fn an_odd_sized_film_is_not_converted_for_its_size() {
        let index = film(|v| (picture(v).width, picture(v).height) = (853, 479), Codec::Aac);
        assert_eq!(decide(&index, &Capabilities::default(), Quality::Auto, false, Ok(())).mode, Mode::Copy);
    }

    #[test]
    fn the_sentence() {
        let plan = decide(&film(|_| (), Codec::Aac), &Capabilities::default(), Quality::Auto, false, Ok(()));
        assert_eq!(plan.why.to_string(), "H.264 and AAC play on this device as they are");
    }
}
