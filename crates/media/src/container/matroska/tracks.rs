//! The Tracks element (RFC 9559, section 5.1.4): what the film consists of and how its parts are coded.
//!
//! Reads an element that is in memory; sees no Block.

use bytes::Bytes;

use super::super::{Codec, Kind, Light, Picture, Samples, Sound, Track};
use super::ebml::{children, float, text, uint};
use super::{BlockRules, SECOND};
use crate::codec::{Colour, aac, av1, h264, hevc, opus};

/// More tracks than any film has; what follows is ignored.
const MAX_TRACKS: usize = 256;

/// A TrackEntry as it is written, defaults of the specification filled in.
struct Entry<'a> {
    number: u64,
    uid: u64,
    kind: u64,
    enabled: bool,
    default: bool,
    forced: bool,
    frame_time: Option<u64>,
    time_factor: f64,
    delay: u64,
    name: String,
    language: Option<String>,
    bcp47: Option<String>,
    codec: String,
    private: &'a [u8],
    video: &'a [u8],
    audio: &'a [u8],
    encodings: Encodings,
    dolby_vision: bool,
}

impl<'a> Entry<'a> {
    fn read(body: &'a [u8]) -> Self {
        let mut entry = Self {
            number: 0,
            uid: 0,
            kind: 0,
            enabled: true,
            default: true,
            forced: false,
            frame_time: None,
            time_factor: 1.0,
            delay: 0,
            name: String::new(),
            language: None,
            bcp47: None,
            codec: String::new(),
            private: &[],
            video: &[],
            audio: &[],
            encodings: Encodings::default(),
            dolby_vision: false,
        };
        for (id, body) in children(body) {
            match id {
                0xD7 => entry.number = uint(body),
                0x73C5 => entry.uid = uint(body),
                0x83 => entry.kind = uint(body),
                0xB9 => entry.enabled = uint(body) != 0,
                0x88 => entry.default = uint(body) != 0,
                0x55AA => entry.forced = uint(body) != 0,
                0x23_E383 => entry.frame_time = Some(uint(body)).filter(|time| *time > 0),
                0x23_314F => entry.time_factor = float(body),
                0x56AA => entry.delay = uint(body),
                0x536E => entry.name = text(body),
                0x22_B59C => entry.language = Some(text(body)),
                0x22_B59D => entry.bcp47 = Some(text(body)),
                0x86 => entry.codec = text(body),
                0x63A2 => entry.private = body,
                0xE0 => entry.video = body,
                0xE1 => entry.audio = body,
                0x6D80 => entry.encodings = Encodings::read(body),
                0x41E4 => entry.dolby_vision |= is_dolby_vision(body),
                _ => {}
            }
        }
        entry
    }

    fn language(&self) -> String {
        let told = |tag: &Option<String>| tag.clone().filter(|tag| !tag.is_empty());
        told(&self.bcp47).or_else(|| told(&self.language)).unwrap_or_else(|| "eng".to_owned())
    }

    fn private(&self) -> Bytes {
        if !self.encodings.of_private || self.private.is_empty() {
            return Bytes::copy_from_slice(self.private);
        }
        let mut whole = self.encodings.prefix.to_vec();
        whole.extend_from_slice(self.private);
        whole.into()
    }
}

/// BlockAdditionMapping (RFC 9559, section 5.1.4.1.17) that carries a Dolby Vision configuration: `dvcC`, `dvvC` or `dvwC`.
fn is_dolby_vision(body: &[u8]) -> bool {
    children(body).any(|(id, body)| id == 0x41E7 && matches!(uint(body), 0x6476_6343 | 0x6476_7643 | 0x6476_7743))
}

/// ContentEncodings (RFC 9559, section 5.1.4.1.31).
#[derive(Default)]
struct Encodings {
    /// Bytes that header stripping took from every frame.
    prefix: Bytes,
    /// They were taken from CodecPrivate too.
    of_private: bool,
    /// Something that is more than header stripping.
    opaque: bool,
}

impl Encodings {
    fn read(body: &[u8]) -> Self {
        let mut all = Self::default();
        for (count, (_, body)) in children(body).filter(|(id, _)| *id == 0x6240).enumerate() {
            all.add(body);
            all.opaque |= count > 0;
        }
        all
    }

    fn add(&mut self, body: &[u8]) {
        const HEADER_STRIPPING: u64 = 3;
        let (mut scope, mut encrypted, mut algorithm, mut settings) = (1, false, 0, &[][..]);
        for (id, body) in children(body) {
            match id {
                0x5032 => scope = uint(body),
                0x5033 => encrypted = uint(body) != 0,
                0x5034 => {
                    for (id, body) in children(body) {
                        match id {
                            0x4254 => algorithm = uint(body),
                            0x4255 => settings = body,
                            _ => {}
                        }
                    }
                }
                0x5035 => encrypted = true,
                _ => {}
            }
        }
        if encrypted || algorithm != HEADER_STRIPPING {
            self.opaque = true;
            return;
        }
        if scope & 1 != 0 {
            self.prefix = Bytes::copy_from_slice(settings);
        }
        // With the frames left whole, the bytes taken from CodecPrivate alone would have to be kept apart. Nobody writes that.
        self.of_private = scope & 3 == 3;
        self.opaque |= scope & 3 == 2;
    }
}

/// All tracks of a Tracks body, with the UID of each (Tags refer to it). `scale` is the TimestampScale in nanoseconds.
///
/// Tracks of kinds that libavformat does not number are left out.
pub(super) fn read(body: &[u8], scale: u64) -> Vec<(u64, Track)> {
    let entries = children(body).filter(|(id, _)| *id == 0xAE).map(|(_, body)| Entry::read(body));
    let mut tracks: Vec<(u64, Track)> = Vec::new();
    for entry in entries.filter(|entry| matches!(entry.kind, 1 | 2 | 17 | 33) && !entry.codec.is_empty()).take(MAX_TRACKS) {
        let stream = tracks.len();
        tracks.push((entry.uid, track(&entry, stream, scale)));
    }
    tracks
}

fn track(entry: &Entry<'_>, stream: usize, scale: u64) -> Track {
    let kind = match entry.kind {
        1 => Kind::Video,
        2 => Kind::Audio,
        17 => Kind::Subtitle,
        _ => Kind::Other,
    };
    let private = entry.private();
    let codec = codec(&entry.codec, &private);
    let mut audio = (kind == Kind::Audio).then(|| sound(entry, &codec, &private));
    let config = match (&codec, &audio) {
        (Codec::Aac, Some(sound)) if private.is_empty() => aac_config(&entry.codec, sound, core_rate(entry)),
        _ => private,
    };
    if let (Codec::Aac, Some(sound)) = (&codec, &mut audio) {
        correct_sound(sound, &config);
    }
    Track {
        id: entry.number,
        stream,
        kind,
        timescale: match &audio {
            Some(sound) => sound.sample_rate,
            None if kind == Kind::Video => 90_000,
            None => 1000,
        },
        language: entry.language(),
        title: entry.name.clone(),
        default: entry.default && entry.enabled,
        forced: entry.forced,
        bitrate: None,
        video: (kind == Kind::Video).then(|| picture(entry, &codec, &config)),
        audio,
        samples: Samples::Blocks(BlockRules {
            scale,
            delay: entry.delay,
            zero: 0,
            frame_time: entry.frame_time,
            prefix: entry.encodings.prefix.clone(),
        }),
        key_frames: Vec::new(),
        first_pts: None,
        complex_edits: entry.encodings.opaque || (entry.time_factor - 1.0).abs() > f64::EPSILON,
        codec,
        config,
    }
}

/// CodecID (RFC 9559, section 5.1.4.1.21; the names are in the Matroska codec specification).
fn codec(id: &str, private: &[u8]) -> Codec {
    match id {
        "V_MPEG4/ISO/AVC" => Codec::H264,
        "V_MPEGH/ISO/HEVC" => Codec::Hevc,
        "V_AV1" => Codec::Av1,
        "V_VP8" => Codec::Vp8,
        "V_VP9" => Codec::Vp9,
        "V_MPEG4/ISO/SP" | "V_MPEG4/ISO/ASP" | "V_MPEG4/ISO/AP" => Codec::Mpeg4,
        "V_MPEG2" => Codec::Mpeg2Video,
        "V_MS/VFW/FOURCC" => video_for_windows(private),
        "A_AC3" | "A_AC3/BSID9" | "A_AC3/BSID10" => Codec::Ac3,
        "A_EAC3" => Codec::Eac3,
        "A_TRUEHD" => Codec::TrueHd,
        "A_MPEG/L3" => Codec::Mp3,
        "A_MPEG/L2" => Codec::Mp2,
        "A_OPUS" => Codec::Opus,
        "A_VORBIS" => Codec::Vorbis,
        "A_FLAC" => Codec::Flac,
        "A_ALAC" => Codec::Alac,
        "S_TEXT/UTF8" | "S_TEXT/ASCII" => Codec::Srt,
        "S_TEXT/ASS" | "S_TEXT/SSA" | "S_ASS" | "S_SSA" => Codec::Ass,
        "S_TEXT/WEBVTT" => Codec::WebVtt,
        "S_HDMV/PGS" => Codec::Pgs,
        "S_VOBSUB" => Codec::VobSub,
        "S_DVBSUB" => Codec::DvbSub,
        _ if id == "A_AAC" || id.starts_with("A_AAC/") => Codec::Aac,
        _ if id == "A_DTS" || id.starts_with("A_DTS/") => Codec::Dts,
        _ if id.starts_with("A_PCM/") => Codec::Pcm,
        _ => Codec::Unknown(id.to_owned()),
    }
}

/// CodecPrivate is a BITMAPINFOHEADER: its FourCC tells the codec, but not that frames are cut as other containers do, so that only
/// what is never copied gets a name of its own.
fn video_for_windows(private: &[u8]) -> Codec {
    let fourcc = private.get(16..20).map(|fourcc| String::from_utf8_lossy(fourcc).to_ascii_uppercase()).unwrap_or_default();
    match fourcc.as_str() {
        "XVID" | "DIVX" | "DX50" | "FMP4" | "MP4V" => Codec::Mpeg4,
        "MPG2" => Codec::Mpeg2Video,
        _ => Codec::Unknown(format!("V_MS/VFW/FOURCC/{fourcc}")),
    }
}

/// Of the Video element (RFC 9559, section 5.1.4.1.28).
#[derive(Default)]
struct Video {
    size: [u64; 2],
    crop: [u64; 2],
    display: [Option<u64>; 2],
    unit: u64,
    /// FlagInterlaced: 1 interlaced, 2 progressive.
    interlaced: u64,
    /// Primaries, transfer and matrix by ITU-T H.273.
    colour: [u64; 3],
    /// 2: all code values.
    range: u64,
    bits: u64,
    light: Light,
    pose: [f64; 3],
}

impl Video {
    fn read(body: &[u8]) -> Self {
        let mut video = Self::default();
        for (id, body) in children(body) {
            match id {
                0xB0 => video.size[0] = uint(body),
                0xBA => video.size[1] = uint(body),
                0x54AA | 0x54BB => video.crop[1] = video.crop[1].saturating_add(uint(body)),
                0x54CC | 0x54DD => video.crop[0] = video.crop[0].saturating_add(uint(body)),
                0x54B0 => video.display[0] = Some(uint(body)),
                0x54BA => video.display[1] = Some(uint(body)),
                0x54B2 => video.unit = uint(body),
                0x9A => video.interlaced = uint(body),
                0x55B0 => {
                    video.read_colour(body);
                }
                0x7670 => {
                    for (id, body) in children(body) {
                        match id {
                            0x7673 => video.pose[0] = float(body),
                            0x7674 => video.pose[1] = float(body),
                            0x7675 => video.pose[2] = float(body),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        video
    }

    /// Colour (RFC 9559, section 5.1.4.1.28.16).
    fn read_colour(&mut self, body: &[u8]) {
        let (mut most, mut average) = (0, 0);
        for (id, body) in children(body) {
            match id {
                0x55BB => self.colour[0] = uint(body),
                0x55BA => self.colour[1] = uint(body),
                0x55B1 => self.colour[2] = uint(body),
                0x55B9 => self.range = uint(body),
                0x55B2 => self.bits = uint(body),
                0x55BC => most = uint(body),
                0x55BD => average = uint(body),
                0x55D0 => self.light.mastering = mastering(body),
                _ => {}
            }
        }
        let level = |light: u64| u16::try_from(light).unwrap_or(u16::MAX).to_be_bytes();
        let ([a, b], [c, d]) = (level(most), level(average));
        self.light.content = (most > 0).then_some([a, b, c, d]);
    }

    /// What it says of colour, if anything.
    fn colour(&self) -> Option<Colour> {
        let code = |told: u64| u8::try_from(told).ok().filter(|told| *told > 0).unwrap_or(2);
        let [primaries, transfer, matrix] = self.colour.map(code);
        let told = (primaries, transfer, matrix) != (2, 2, 2);
        told.then_some(Colour { primaries, transfer, matrix, full_range: self.range == 2 })
    }

    /// Width and height after cropping; a crop that would leave nothing is ignored.
    fn size(&self) -> (u32, u32) {
        let cropped = |size: u64, crop: u64| {
            let left = size.checked_sub(crop).filter(|left| *left > 0).unwrap_or(size);
            u32::try_from(left).unwrap_or(u32::MAX)
        };
        (cropped(self.size[0], self.crop[0]), cropped(self.size[1], self.crop[1]))
    }

    /// Display size over coded size. A display size within a pixel of square pixels *is* square: muxers round it.
    fn pixel_aspect(&self) -> (u32, u32) {
        const UNKNOWN_UNIT: u64 = 4;
        let (width, height) = self.size();
        let (width, height) = (u128::from(width), u128::from(height));
        let whole = self.unit == 0;
        let side = |told: Option<u64>, coded: u128| told.map(u128::from).or(whole.then_some(coded)).filter(|side| *side > 0);
        let (Some(shown_width), Some(shown_height)) = (side(self.display[0], width), side(self.display[1], height)) else {
            return (1, 1);
        };
        if self.unit >= UNKNOWN_UNIT || width == 0 || height == 0 {
            return (1, 1);
        }
        let (x, y) = (shown_width * height, shown_height * width);
        if whole && x.abs_diff(y) < height.max(width) {
            return (1, 1);
        }
        let divisor = greatest_common_divisor(x, y);
        match (u32::try_from(x / divisor), u32::try_from(y / divisor)) {
            (Ok(x), Ok(y)) => (x, y),
            _ => (1, 1),
        }
    }

    /// Clockwise quarter turns, and whether that is not all. ProjectionPoseRoll turns counter-clockwise.
    fn rotation(&self) -> (u16, bool) {
        let [yaw, pitch, roll] = self.pose;
        let clockwise = (-roll).rem_euclid(360.0);
        let quarter = (clockwise / 90.0).round();
        let odd = yaw != 0.0 || pitch != 0.0 || (clockwise - quarter * 90.0).abs() > 0.5;
        let turned = [0, 90, 180, 270].into_iter().find(|turn| (f64::from(*turn) - quarter * 90.0).abs() < 0.5).unwrap_or(0);
        (if odd { 0 } else { turned }, odd)
    }
}

/// What the Video element tells; what it leaves open is taken from the decoder's configuration.
fn picture(entry: &Entry<'_>, codec: &Codec, config: &[u8]) -> Picture {
    let video = Video::read(entry.video);
    let stream = match codec {
        Codec::H264 => h264::describe(config),
        Codec::Hevc => hevc::describe(config),
        Codec::Av1 => av1::describe(config),
        _ => None,
    };
    let stream = stream.map(|stream| stream.picture).unwrap_or_default();
    let (width, height) = video.size();
    let (rotation, odd_matrix) = video.rotation();
    let has_display = video.display.iter().any(Option::is_some);
    let pixel_aspect = if has_display || stream.pixel_aspect.0 == 0 { video.pixel_aspect() } else { stream.pixel_aspect };
    Picture {
        width: if width > 0 { width } else { stream.width },
        height: if height > 0 { height } else { stream.height },
        pixel_aspect,
        rotation,
        odd_matrix,
        frame_rate: entry.frame_time.map(|time| SECOND as f64 / time as f64).or(stream.frame_rate),
        interlaced: video.interlaced == 1 || video.interlaced == 0 && stream.interlaced,
        bit_depth: u8::try_from(video.bits).ok().filter(|bits| *bits > 0).or(stream.bit_depth),
        hdr: matches!(video.colour[1], 16 | 18) || entry.dolby_vision || stream.hdr,
        reorder: stream.reorder,
        colour: video.colour(),
        light: video.light,
    }
}

/// MasteringMetadata (RFC 9559, section 5.1.4.1.28.30) as the body of `mdcv`; `None` where a part of it is missing.
fn mastering(body: &[u8]) -> Option<[u8; 24]> {
    let told = |wanted: u32| children(body).find(|(id, _)| *id == wanted).map(|(_, body)| float(body)).filter(|told| told.is_finite());
    let mut out = Vec::with_capacity(24);
    // Green, blue, red, white; across and down in the diagram of colours.
    for id in [0x55D3, 0x55D4, 0x55D5, 0x55D6, 0x55D1, 0x55D2, 0x55D7, 0x55D8] {
        out.extend(((told(id)? * 50_000.0).round().clamp(0.0, 65_535.0) as u16).to_be_bytes());
    }
    for id in [0x55D9, 0x55DA] {
        out.extend(((told(id)? * 10_000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32).to_be_bytes());
    }
    out.try_into().ok()
}

/// An AudioSpecificConfig knows better than the Audio element: muxers write the rate before or after spectral band replication.
fn correct_sound(sound: &mut Sound, config: &[u8]) {
    let Some(told) = aac::describe(config).map(|told| told.sound) else { return };
    let channels = if told.channels > 0 { told.channels } else { sound.channels };
    // A configuration without a word of replication leaves open what the Audio element says about it.
    if told.sample_rate >= sound.sample_rate {
        *sound = Sound { channels, ..told };
    } else {
        sound.channels = channels;
        let doubled = sound.sample_rate / told.sample_rate.max(1) == 2;
        sound.frame_len = told.frame_len.map(|len| if doubled { 2 * len } else { len });
    }
}

/// A sampling rate that a track can have, in hertz.
fn rate(hertz: f64) -> Option<u32> {
    (1.0..=1e7).contains(&hertz).then(|| hertz.round() as u32)
}

/// SamplingFrequency: with spectral band replication half of what the decoder puts out.
fn core_rate(entry: &Entry<'_>) -> u32 {
    children(entry.audio).find(|(id, _)| *id == 0xB5).and_then(|(_, body)| rate(float(body))).unwrap_or(8000)
}

fn sound(entry: &Entry<'_>, codec: &Codec, private: &[u8]) -> Sound {
    let output = children(entry.audio).find(|(id, _)| *id == 0x78B5).and_then(|(_, body)| rate(float(body)));
    let channels = children(entry.audio).find(|(id, _)| *id == 0x9F).map_or(1, |(_, body)| uint(body));
    // Every Opus decoder puts out 48 kHz; what stands here is where the sound once came from.
    let sample_rate = if *codec == Codec::Opus { opus::RATE } else { output.unwrap_or_else(|| core_rate(entry)) };
    Sound { channels: u16::try_from(channels).unwrap_or(u16::MAX), sample_rate, frame_len: frame_len(entry, codec, private, sample_rate) }
}

/// Samples (of the decoder's output) in each frame, where the codec or the track says that all are alike.
fn frame_len(entry: &Entry<'_>, codec: &Codec, private: &[u8], sample_rate: u32) -> Option<u32> {
    let told = entry.frame_time.and_then(|time| {
        let samples = (u128::from(time) * u128::from(sample_rate) + u128::from(SECOND / 2)) / u128::from(SECOND);
        u32::try_from(samples).ok().filter(|samples| (1..=65_536).contains(samples))
    });
    match codec {
        Codec::Aac => {
            let doubled = u64::from(sample_rate) >= 2 * u64::from(core_rate(entry));
            Some(if doubled { 2048 } else { 1024 })
        }
        Codec::Ac3 => Some(1536),
        Codec::Eac3 => told.or(Some(1536)),
        Codec::Mp3 if sample_rate < 32_000 => Some(576),
        Codec::Mp3 | Codec::Mp2 => Some(1152),
        Codec::Dts | Codec::TrueHd | Codec::Opus => told,
        Codec::Flac => flac_block(private),
        Codec::Alac => private.get(..4).and_then(|len| u32::try_from(uint(len)).ok()).filter(|len| (1..=65_536).contains(len)),
        _ => None,
    }
}

/// The block size of a FLAC stream whose STREAMINFO (RFC 9639, section 8.2) says that it never changes. CodecPrivate is `fLaC`, a metadata
/// block header of four bytes, then STREAMINFO.
fn flac_block(private: &[u8]) -> Option<u32> {
    let smallest = uint(private.get(8..10)?);
    let largest = uint(private.get(10..12)?);
    (private.starts_with(b"fLaC") && smallest == largest).then(|| u32::try_from(largest).ok()).flatten().filter(|len| *len > 0)
}

/// The AudioSpecificConfig that a track leaves out, from what the CodecID and the Audio element tell; empty where they tell too little.
fn aac_config(id: &str, sound: &Sound, core_rate: u32) -> Bytes {
    let object: u16 = match id.rsplit('/').next() {
        Some("MAIN") => 1,
        Some("SSR") => 3,
        Some("LTP") => 4,
        _ => 2,
    };
    let plain = |rate| aac::plain(rate, sound.channels).map(u16::from_be_bytes);
    let (Some(core), Some(output)) = (plain(core_rate), plain(sound.sample_rate)) else { return Bytes::new() };
    let core = core & 0x07FF | object << 11;
    if !id.ends_with("/SBR") && sound.sample_rate == core_rate {
        return Bytes::copy_from_slice(&core.to_be_bytes());
    }
    // The backward compatible sign of spectral band replication (ISO 14496-3, 1.6.5.1): 0x2B7, object type 5, a flag, the output's rate.
    let output_rate = u64::from(output >> 7 & 0xF);
    let sign = 0x2B7 << 13 | 5 << 8 | 1 << 7 | output_rate << 3;
    Bytes::copy_from_slice(&(u64::from(core) << 24 | sign).to_be_bytes()[3..])
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}
