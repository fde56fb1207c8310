//! Sample descriptions (`stsd`): ISO 14496-12, 8.5.2 and 12; ISO 14496-14 and -15; the QuickTime file format's sound descriptions.
//!
//! Says what a track's samples are and hands out the decoder's configuration as it is. Does not look at samples.

use bytes::Bytes;

use super::super::{Codec, Picture, Sound};
use super::boxes::{Boxed, Fields, Kind, child, children};
use super::tables::Packing;
use crate::codec::{Colour, aac, av1, h264, hevc, vp9};

/// What the first sample description of a track says.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) codec: Option<Codec>,
    /// The body of the codec's own configuration box, or what `esds` carries for the decoder.
    pub(super) config: Bytes,
    pub(super) video: Option<Picture>,
    pub(super) audio: Option<Sound>,
    /// Pictures that stand for themselves (JPEG, PNG), of which covers and thumbnails are made.
    pub(super) still: bool,
    /// Average bits per second.
    pub(super) bitrate: Option<u64>,
    /// Uncompressed sound.
    pub(super) packing: Option<Packing>,
    /// All its texts are to be shown always.
    pub(super) forced: bool,
    /// Number of different descriptions in the list.
    pub(super) descriptions: usize,
}

/// Which form of description to read, from the track's `hdlr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Video,
    Audio,
    Other,
}

/// Reads the body of `stsd`. What cannot be read stays unknown.
pub(super) fn read(stsd: &Bytes, form: Form, quicktime: bool) -> Entry {
    let Some((version, _, mut fields)) = Fields::full(stsd) else { return Entry::default() };
    if fields.u32().is_none() {
        return Entry::default();
    }
    let list = stsd.slice_ref(fields.rest());
    let descriptions = different(&list);
    let Some(first) = children(&list).next() else { return Entry::default() };
    let read = match form {
        Form::Video => video(&first),
        Form::Audio => audio(&first, quicktime || version == 0),
        Form::Other => text(&first),
    };
    let mut entry = read.unwrap_or_default();
    entry.codec.get_or_insert_with(|| Codec::Unknown(printable(first.kind)));
    entry.descriptions = descriptions;
    entry
}

/// How many neighbouring descriptions differ, plus one. A list that merely repeats itself is one description.
fn different(list: &Bytes) -> usize {
    let mut last: Option<Boxed> = None;
    children(list).fold(0, |count, entry| {
        let same = last.as_ref().is_some_and(|last| last.kind == entry.kind && last.body == entry.body);
        last = Some(entry);
        count + usize::from(!same)
    })
}

/// A box type as text, with what is not printable left out.
fn printable(kind: Kind) -> String {
    kind.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

fn video(entry: &Boxed) -> Option<Entry> {
    let mut fields = Fields::new(&entry.body);
    fields.skip(24)?;
    let (width, height) = (fields.u16()?, fields.u16()?);
    fields.skip(50)?;
    let boxes: Vec<Boxed> = children(&entry.body.slice_ref(fields.rest())).collect();
    let body = |kind: &Kind| boxes.iter().find(|one| one.kind == *kind).map(|one| one.body.clone());
    let mut still = false;
    let (codec, config) = match &entry.kind {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" | b"dva1" | b"dvav" => (Codec::H264, body(b"avcC")),
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => (Codec::Hevc, body(b"hvcC")),
        b"av01" | b"dav1" => (Codec::Av1, body(b"av1C")),
        b"vp08" => (Codec::Vp8, body(b"vpcC")),
        b"vp09" => (Codec::Vp9, body(b"vpcC")),
        b"mp4v" => body(b"esds").and_then(|esds| Descriptor::read(&esds)).map_or((Codec::Mpeg4, None), |descriptor| {
            let codec = descriptor.codec();
            still = matches!(&codec, Codec::Unknown(name) if name == "mjpeg" || name == "png");
            (codec, Some(descriptor.specific))
        }),
        b"xvid" | b"XVID" | b"DIVX" | b"FMP4" | b"DX50" => (Codec::Mpeg4, body(b"esds").map(|esds| specific(&esds))),
        b"mp2v" | b"m2v1" | b"mpg2" | b"hdv1" | b"hdv2" | b"hdv3" => (Codec::Mpeg2Video, None),
        b"jpeg" | b"mjpa" | b"mjpb" | b"AVDJ" => {
            still = true;
            (Codec::Unknown("mjpeg".to_owned()), None)
        }
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => (Codec::Unknown("prores".to_owned()), None),
        b"AVdn" | b"AVdh" => (Codec::Unknown("dnxhd".to_owned()), None),
        b"s263" | b"h263" | b"H263" => (Codec::Unknown("h263".to_owned()), None),
        b"png " => {
            still = true;
            (Codec::Unknown("png".to_owned()), None)
        }
        _ => (Codec::Unknown(printable(entry.kind)), None),
    };
    let config = config.unwrap_or_default();
    let told = match codec {
        Codec::H264 => h264::describe(&config).map(|described| described.picture),
        Codec::Hevc => hevc::describe(&config).map(|described| described.picture),
        Codec::Av1 => av1::describe(&config).map(|described| described.picture),
        Codec::Vp9 => vp9::describe(&config).map(|described| Picture { pixel_aspect: (1, 1), ..described.picture }),
        _ => None,
    };
    let mut picture = told.unwrap_or_else(|| Picture { pixel_aspect: (1, 1), ..Picture::default() });
    if picture.width == 0 || picture.height == 0 {
        (picture.width, picture.height) = (u32::from(width), u32::from(height));
    }
    // Only the stream's own table of rates is promised by it; the sample table knows better.
    picture.frame_rate = None;
    if let Some(aspect) = body(b"pasp").as_deref().and_then(pixel_aspect) {
        picture.pixel_aspect = aspect;
    }
    picture.interlaced |= body(b"fiel").is_some_and(|fiel| fiel.first() == Some(&2));
    picture.colour = body(b"colr").as_deref().and_then(colour);
    picture.hdr |= picture.colour.is_some_and(Colour::is_hdr);
    picture.light.mastering = body(b"mdcv").as_deref().and_then(<[u8]>::first_chunk).copied();
    picture.light.content = body(b"clli").as_deref().and_then(<[u8]>::first_chunk).copied();
    picture.hdr |= [b"dvcC", b"dvvC"].into_iter().filter_map(body).any(|dolby| dolby_is_hdr(&dolby));
    let bitrate = body(b"btrt").as_deref().and_then(average);
    Some(Entry { codec: Some(codec), config, video: Some(picture), still, bitrate, ..Entry::default() })
}

/// `pasp`: horizontal and vertical spacing of pixels (12.1.4).
fn pixel_aspect(pasp: &[u8]) -> Option<(u32, u32)> {
    let mut fields = Fields::new(pasp);
    let (across, down) = (fields.u32()?, fields.u32()?);
    (across > 0 && down > 0).then_some((across, down))
}

/// `colr` with code points of ITU-T H.273 (12.1.5; `nclc` is QuickTime's).
fn colour(colr: &[u8]) -> Option<Colour> {
    let mut fields = Fields::new(colr);
    let kind = fields.kind().filter(|kind| kind == b"nclx" || kind == b"nclc")?;
    let mut code = || fields.u16().and_then(|code| u8::try_from(code).ok());
    let (primaries, transfer, matrix) = (code()?, code()?, code()?);
    let full_range = kind == *b"nclx" && fields.u8().is_some_and(|byte| byte & 0x80 != 0);
    ((primaries, transfer, matrix) != (2, 2, 2)).then_some(Colour { primaries, transfer, matrix, full_range })
}

/// Dolby Vision's configuration record: only compatibility 2 promises a picture of standard range.
fn dolby_is_hdr(dvcc: &[u8]) -> bool {
    dvcc.get(4).is_some_and(|byte| byte >> 4 != 2)
}

/// `btrt`: the average bit rate (8.5.2.2).
fn average(btrt: &[u8]) -> Option<u64> {
    let mut fields = Fields::new(btrt);
    fields.skip(8)?;
    fields.u32().filter(|rate| *rate > 0).map(u64::from)
}

fn audio(entry: &Boxed, quicktime: bool) -> Option<Entry> {
    let mut fields = Fields::new(&entry.body);
    fields.skip(8)?;
    let version = fields.u16()?;
    fields.skip(6)?;
    let (mut channels, mut bits) = (u32::from(fields.u16()?), u32::from(fields.u16()?));
    fields.skip(4)?;
    let mut sample_rate = fields.u32()? >> 16;
    let mut packing = None;
    match version {
        1 if quicktime => {
            let (frames, _, bytes, _) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
            packing = (frames > 0 && bytes > 0).then_some(Packing { frames, bytes });
        }
        2 if quicktime => {
            fields.skip(4)?;
            sample_rate = hertz(f64::from_bits(fields.u64()?));
            channels = fields.u32()?;
            fields.skip(4)?;
            bits = fields.u32()?;
            fields.skip(4)?;
            let (bytes, frames) = (fields.u32()?, fields.u32()?);
            packing = (frames > 0 && bytes > 0).then_some(Packing { frames, bytes });
        }
        _ => {}
    }
    let boxes = entry.body.slice_ref(fields.rest());
    let wave = child(&boxes, b"wave");
    let body = |kind: &Kind| child(&boxes, kind).or_else(|| child(wave.as_ref()?, kind));
    let (codec, config) = sound_codec(entry.kind, body);
    let packing = match codec {
        Codec::Pcm => packing.or_else(|| Some(Packing { frames: 1, bytes: (linear_bits(entry.kind, bits) / 8).checked_mul(channels)? })),
        Codec::Unknown(_) => packing,
        _ => None,
    };
    let mut sound = Sound { channels: u16::try_from(channels).unwrap_or(u16::MAX), sample_rate, frame_len: None };
    match codec {
        Codec::Aac => {
            sound.frame_len = Some(1024);
            if let Some(told) = aac::describe(&config) {
                let channels = if told.sound.channels == 0 { sound.channels } else { told.sound.channels };
                sound = Sound { channels, frame_len: told.sound.frame_len.or(sound.frame_len), ..told.sound };
            }
        }
        Codec::Ac3 => {
            sound.frame_len = Some(1536);
            // The description's own number is often a constant 2.
            (sound.channels, sound.sample_rate) = dolby_digital(&config).unwrap_or((sound.channels, sound.sample_rate));
        }
        Codec::Eac3 => (sound.channels, sound.sample_rate) = dolby_digital_plus(&config).unwrap_or((sound.channels, sound.sample_rate)),
        _ => {}
    }
    let bitrate = body(b"btrt").as_deref().and_then(average).or_else(|| Descriptor::read(&body(b"esds")?)?.average());
    let packing = packing.filter(|packing| packing.bytes > 0);
    Some(Entry { codec: Some(codec), config, audio: Some(sound), bitrate, packing, ..Entry::default() })
}

/// Channels and rate of the body of `dac3` (ETSI TS 102 366, F.4).
fn dolby_digital(dac3: &[u8]) -> Option<(u16, u32)> {
    let word = Fields::new(dac3).u24()?;
    Some((dolby_channels(word >> 11, word >> 10), dolby_rate(word >> 22)?))
}

/// Channels and rate of the body of `dec3` (ETSI TS 102 366, F.6): of its first substream and those that depend on it.
fn dolby_digital_plus(dec3: &[u8]) -> Option<(u16, u32)> {
    let mut fields = Fields::new(dec3);
    fields.u16()?;
    let word = fields.u24()?;
    // Dependent substreams bring the two rear channels of 7.1.
    let rear = if word >> 1 & 15 > 0 { 2 } else { 0 };
    let channels = dolby_channels(word >> 9, word >> 8) + rear;
    Some((channels, dolby_rate(word >> 22)?))
}

/// From `acmod` and `lfeon` in the lowest bits.
fn dolby_channels(acmod: u32, lfeon: u32) -> u16 {
    let full = match acmod & 7 {
        0 | 2 => 2,
        1 => 1,
        3 | 4 => 3,
        5 | 6 => 4,
        _ => 5,
    };
    full + (lfeon & 1) as u16
}

/// From `fscod` in the lowest bits.
fn dolby_rate(fscod: u32) -> Option<u32> {
    [48_000, 44_100, 32_000].get(fscod as usize & 3).copied()
}

/// A rate in hertz that a sound description of version 2 tells as a floating point number.
fn hertz(rate: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range, as compared
    if (1.0..=10_000_000.0).contains(&rate) { rate.round() as u32 } else { 0 }
}

fn sound_codec(kind: Kind, body: impl Fn(&Kind) -> Option<Bytes>) -> (Codec, Bytes) {
    let (codec, config) = match &kind {
        b"mp4a" => match body(b"esds").and_then(|esds| Descriptor::read(&esds)) {
            Some(descriptor) => (descriptor.codec(), Some(descriptor.specific)),
            None => (Codec::Aac, None),
        },
        b"ac-3" | b"sac3" | b"AC-3" => (Codec::Ac3, body(b"dac3")),
        b"ec-3" | b"EC-3" => (Codec::Eac3, body(b"dec3")),
        b"dtsc" | b"dtse" | b"dtsh" | b"dtsl" | b"dtsx" | b"DTS " => (Codec::Dts, body(b"ddts")),
        b"mlpa" => (Codec::TrueHd, body(b"dmlp")),
        b".mp3" | b"mp3 " | b"ms\0\x55" => (Codec::Mp3, None),
        b".mp2" | b"ms\0\x50" => (Codec::Mp2, None),
        b"Opus" => (Codec::Opus, body(b"dOps")),
        b"fLaC" => (Codec::Flac, body(b"dfLa")),
        b"alac" => (Codec::Alac, body(b"alac")),
        b"raw " | b"NONE" | b"twos" | b"sowt" | b"lpcm" | b"ipcm" | b"fpcm" | b"in24" | b"in32" | b"fl32" | b"fl64" => (Codec::Pcm, None),
        _ => (Codec::Unknown(printable(kind)), None),
    };
    (codec, config.unwrap_or_default())
}

/// Bits of one sample of uncompressed sound: the older names say it themselves, and what stands in the description is then often wrong.
fn linear_bits(kind: Kind, told: u32) -> u32 {
    match &kind {
        b"in24" => 24,
        b"in32" | b"fl32" => 32,
        b"fl64" => 64,
        _ => told.max(8),
    }
}

fn text(entry: &Boxed) -> Option<Entry> {
    let mut fields = Fields::new(&entry.body);
    fields.skip(8)?;
    let mut forced = false;
    let (codec, config) = match &entry.kind {
        b"tx3g" => {
            // displayFlags (3GPP TS 26.245, 5.16); the bit for "all samples are forced" is Apple's.
            forced = fields.u32()? & 0x8000_0000 != 0;
            (Codec::MovText, None)
        }
        b"text" => (Codec::MovText, None),
        b"wvtt" => (Codec::WebVtt, child(&entry.body.slice_ref(fields.rest()), b"vttC")),
        b"mp4s" => {
            let esds = child(&entry.body.slice_ref(fields.rest()), b"esds")?;
            let descriptor = Descriptor::read(&esds)?;
            (descriptor.codec(), Some(descriptor.specific))
        }
        _ => (Codec::Unknown(printable(entry.kind)), None),
    };
    Some(Entry { codec: Some(codec), config: config.unwrap_or_default(), forced, ..Entry::default() })
}

/// What `esds` says about a stream: the DecoderConfigDescriptor of ISO 14496-1, 7.2.6.6.
#[derive(Debug)]
struct Descriptor {
    object_type: u8,
    average: u32,
    specific: Bytes,
}

impl Descriptor {
    fn read(esds: &Bytes) -> Option<Self> {
        let (_, _, fields) = Fields::full(esds)?;
        let (tag, mut stream) = descriptor(&mut Fields::new(fields.rest()))?;
        if tag == 3 {
            stream.skip(2)?;
            let flags = stream.u8()?;
            if flags & 0x80 != 0 {
                stream.skip(2)?;
            }
            if flags & 0x40 != 0 {
                let url = stream.u8()?;
                stream.skip(usize::from(url))?;
            }
            if flags & 0x20 != 0 {
                stream.skip(2)?;
            }
        }
        let mut decoder = if tag == 3 { descriptor(&mut stream).filter(|(tag, _)| *tag == 4)?.1 } else { stream };
        let object_type = decoder.u8()?;
        decoder.skip(8)?;
        let average = decoder.u32()?;
        let specific = descriptor(&mut decoder).filter(|(tag, _)| *tag == 5).map(|(_, specific)| esds.slice_ref(specific.rest()));
        Some(Self { object_type, average, specific: specific.unwrap_or_default() })
    }

    fn average(&self) -> Option<u64> {
        (self.average > 0).then_some(u64::from(self.average))
    }

    /// The object type by the register of <https://mp4ra.org/registered-types/object-types>.
    fn codec(&self) -> Codec {
        match self.object_type {
            0x20 => Codec::Mpeg4,
            0x21 => Codec::H264,
            0x23 => Codec::Hevc,
            0x40 | 0x66..=0x68 => self.advanced_or_layer3(),
            0x60..=0x65 => Codec::Mpeg2Video,
            0x69 | 0x6b => Codec::Mp3,
            0x6a => Codec::Unknown("mpeg1video".to_owned()),
            0x6c => Codec::Unknown("mjpeg".to_owned()),
            0x6d => Codec::Unknown("png".to_owned()),
            0xa5 => Codec::Ac3,
            0xa6 => Codec::Eac3,
            0xa9..=0xac => Codec::Dts,
            0xad => Codec::Opus,
            0xb1 => Codec::Vp9,
            0xdd => Codec::Vorbis,
            0xe0 => Codec::VobSub,
            other => Codec::Unknown(format!("mp4-{other:02x}")),
        }
    }

    /// Object type 0x40 is "MPEG-4 audio", of which AAC is the most but not all (ISO 14496-3, table 1.17).
    fn advanced_or_layer3(&self) -> Codec {
        let Some([a, b]) = self.specific.first_chunk::<2>().filter(|_| self.object_type == 0x40) else { return Codec::Aac };
        // 31 announces a number of 6 more bits, 32 and up.
        let object_type = if a >> 3 == 31 { 32 + ((a & 7) << 3 | b >> 5) } else { a >> 3 };
        match object_type {
            33 => Codec::Mp2,
            34 => Codec::Mp3,
            36 => Codec::Unknown("als".to_owned()),
            _ => Codec::Aac,
        }
    }
}

/// What `esds` carries for the decoder.
fn specific(esds: &Bytes) -> Bytes {
    Descriptor::read(esds).map(|descriptor| descriptor.specific).unwrap_or_default()
}

/// A tag and the bytes that it is followed by; lengths have up to four bytes of seven bits (ISO 14496-1, 8.3.3). A length past the end is cut.
fn descriptor<'a>(fields: &mut Fields<'a>) -> Option<(u8, Fields<'a>)> {
    let tag = fields.u8()?;
    let mut len = 0_usize;
    for _ in 0..4 {
        let byte = fields.u8()?;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = fields.take(len.min(fields.rest().len()))?;
    Some((tag, Fields::new(body)))
}
