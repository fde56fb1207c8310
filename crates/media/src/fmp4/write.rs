//! The only writer of init segments and of what stands in front of the samples of a chunk (`styp`, `moof`, the header of `mdat`),
//! after CMAF (ISO 23000-19) and ISO 14496-12.
//!
//! It never sees a sample's bytes: the payload follows what is written here directly, in decode order, wherever it comes from. It does
//! not decide where a segment begins or ends (`cut` does); it turns times into rows, and rows into bytes, so that the same rows always
//! make the same bytes.
//!
//! Times: `tfdt` is in the track's own ticks, decode times never precede what was shown first, composition offsets are shifted to be
//! positive, and an edit list takes the shift back ([`InitTrack::media_time`]), so that presentation is the film's own time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::Row;
use crate::codec::{Colour, DescribedPicture, hevc};
use crate::container::Light;

/// The only track of every segment.
const TRACK_ID: u32 = 1;
/// `grouping_type` of samples that need others before them decoded first.
const ROLL: &[u8; 4] = b"roll";
/// Bytes of the `sbgp` of a chunk.
const GROUP_LEN: usize = 28;

/// What an init segment says.
#[derive(Debug, Clone, PartialEq)]
pub struct InitTrack {
    /// How the samples are coded.
    pub entry: Entry,
    /// Ticks per second, at least 1.
    pub timescale: u32,
    /// ISO 639-2 or BCP 47; anything else becomes `und`.
    pub language: String,
    /// Length of the presentation in ticks, where it is known.
    pub duration: Option<u64>,
    /// Media time in ticks that is shown at presentation zero: the shift of composition offsets (video) or the priming (audio).
    /// No edit list is written when it is 0.
    pub media_time: u64,
}

/// A sample entry (ISO 14496-12, 8.5.2).
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// H.264: `avc1`, or `avc3` where `config` holds no parameter sets.
    Avc {
        /// Body of `avcC`.
        config: Bytes,
        /// Size and shape.
        raster: Raster,
    },
    /// HEVC: `hvc1`, or `hev1` where `config` lacks parameter sets.
    Hevc {
        /// Body of `hvcC`.
        config: Bytes,
        /// Size and shape.
        raster: Raster,
    },
    /// AAC: `mp4a`.
    Aac {
        /// AudioSpecificConfig.
        config: Bytes,
        /// Channels of the decoder's output.
        channels: u16,
        /// Hertz of the decoder's output.
        sample_rate: u32,
    },
    /// AV1: `av01`.
    Av1 {
        /// Body of `av1C`.
        config: Bytes,
        /// Size and shape.
        raster: Raster,
    },
    /// VP9: `vp09`.
    Vp9 {
        /// Body of `vpcC`.
        config: Bytes,
        /// Size and shape.
        raster: Raster,
    },
    /// Any other sound.
    Sound(SoundEntry),
}

/// An AudioSampleEntry (ISO 14496-12, 12.2.3) of what is not AAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundEntry {
    /// How it is coded.
    pub coding: Coding,
    /// Body of the box that [`Coding`] names; empty of MP3.
    pub config: Bytes,
    /// Channels of the decoder's output.
    pub channels: u16,
    /// Bits of a sample, 16 where the codec has none of its own.
    pub bits: u16,
    /// Hertz of the decoder's output.
    pub sample_rate: u32,
    /// Samples of the track that have to be decoded before one that is entered at, where there are any (`roll_distance`, negative).
    pub roll: Option<i16>,
}

/// Codings of sound, with the box of their configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `ac-3` with `dac3` (ETSI TS 102 366, F.3).
    Ac3,
    /// `ec-3` with `dec3` (ETSI TS 102 366, F.5).
    Eac3,
    /// `Opus` with `dOps` (Opus in ISOBMFF, 4.3).
    Opus,
    /// `fLaC` with `dfLa` (FLAC in ISOBMFF, 3.3).
    Flac,
    /// `alac` with an `alac` of its own.
    Alac,
    /// `mp4a` with this `objectTypeIndication`.
    Mp3(u8),
}

/// How large pictures are and how they are to be shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raster {
    /// Pixels across, at most 65,535.
    pub width: u32,
    /// Pixels down, at most 65,535.
    pub height: u32,
    /// Width of a pixel over its height.
    pub pixel_aspect: (u32, u32),
    /// Colour, where it is known (written as `colr` of type `nclx`).
    pub colour: Option<Colour>,
    /// For which light they were made (`mdcv`, `clli`).
    pub light: Light,
}

impl From<&DescribedPicture> for Raster {
    /// As the stream itself tells it; a colour without any known code point is left out.
    fn from(told: &DescribedPicture) -> Self {
        let colour = told.colour.filter(|colour| (colour.primaries, colour.transfer, colour.matrix) != (2, 2, 2) || colour.full_range);
        Self {
            width: told.picture.width,
            height: told.picture.height,
            pixel_aspect: told.picture.pixel_aspect,
            colour,
            light: told.picture.light,
        }
    }
}

impl Entry {
    const fn is_video(&self) -> bool {
        self.raster().is_some()
    }

    const fn raster(&self) -> Option<&Raster> {
        match self {
            Self::Avc { raster, .. } | Self::Hevc { raster, .. } | Self::Av1 { raster, .. } | Self::Vp9 { raster, .. } => Some(raster),
            Self::Aac { .. } | Self::Sound(_) => None,
        }
    }

    /// Whether its chunks are to be [`rolling_chunk`]s.
    pub const fn rolls(&self) -> bool {
        self.roll().is_some()
    }

    /// `roll_distance` of all samples.
    const fn roll(&self) -> Option<i16> {
        if let Self::Sound(sound) = self { sound.roll } else { None }
    }
}

/// The init segment of a track: `ftyp` and `moov`.
pub fn init(track: &InitTrack) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    boxed(&mut out, b"ftyp", |out| {
        out.extend(b"iso6");
        put32(out, 0);
        // Not `cmf2`: that structural brand forbids the edit list (ISO 23000-19, 7.7).
        out.extend(b"iso6cmfcmp41");
    });
    boxed(&mut out, b"moov", |out| {
        movie_header(out, track);
        boxed(out, b"trak", |out| {
            track_header(out, track);
            edits(out, track);
            media(out, track);
        });
        boxed(out, b"mvex", |out| {
            if let Some(duration) = track.duration {
                full(out, b"mehd", 1, 0, |out| put64(out, duration));
            }
            full(out, b"trex", 0, 0, |out| put_all(out, &[TRACK_ID, 1, 0, 0, 0]));
        });
    });
    Bytes::from(out)
}

/// The unity matrix of `mvhd` and `tkhd`.
const UNITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

fn movie_header(out: &mut Vec<u8>, track: &InitTrack) {
    full(out, b"mvhd", 0, 0, |out| {
        put_all(out, &[0, 0, track.timescale.max(1), 0]); // durations are those of the fragments
        put_all(out, &[0x1_0000, 0x0100_0000, 0, 0]);
        put_all(out, &UNITY);
        put_all(out, &[0; 6]);
        put32(out, TRACK_ID + 1);
    });
}

fn track_header(out: &mut Vec<u8>, track: &InitTrack) {
    const ENABLED_IN_MOVIE: u32 = 3;
    full(out, b"tkhd", 0, ENABLED_IN_MOVIE, |out| {
        put_all(out, &[0, 0, TRACK_ID, 0, 0]);
        put_all(out, &[0, 0, 0]); // reserved, layer and alternate group
        put32(out, if track.entry.is_video() { 0 } else { 0x0100_0000 });
        put_all(out, &UNITY);
        let (width, height) = track.entry.raster().map_or((0, 0), shown_size);
        put_all(out, &[width, height]);
    });
}

/// Size with square pixels, in 16.16 fixed point.
fn shown_size(raster: &Raster) -> (u32, u32) {
    let (across, down) = raster.pixel_aspect;
    let height = u64::from(clamp16(raster.height)) << 16;
    let width = (u64::from(clamp16(raster.width)) << 16) * u64::from(across.max(1)) / u64::from(down.max(1));
    (u32::try_from(width).unwrap_or(u32::MAX), u32::try_from(height).unwrap_or(u32::MAX))
}

/// One edit that lasts as long as the fragments do (duration 0) and starts at the first picture or sound that is meant to be shown.
fn edits(out: &mut Vec<u8>, track: &InitTrack) {
    if track.media_time == 0 {
        return;
    }
    boxed(out, b"edts", |out| {
        full(out, b"elst", 1, 0, |out| {
            put32(out, 1);
            put64(out, 0);
            put64(out, track.media_time.min(i64::MAX.unsigned_abs()));
            put32(out, 0x1_0000);
        });
    });
}

fn media(out: &mut Vec<u8>, track: &InitTrack) {
    boxed(out, b"mdia", |out| {
        full(out, b"mdhd", 0, 0, |out| {
            put_all(out, &[0, 0, track.timescale.max(1), 0]);
            put16(out, packed_language(&track.language));
            put16(out, 0);
        });
        let (kind, name) = if track.entry.is_video() { (b"vide", "Video") } else { (b"soun", "Sound") };
        full(out, b"hdlr", 0, 0, |out| {
            put32(out, 0);
            out.extend(kind);
            put_all(out, &[0, 0, 0]);
            out.extend(name.as_bytes());
            out.push(0);
        });
        if let Some(tag) = extended_language(&track.language) {
            full(out, b"elng", 0, 0, |out| {
                out.extend(tag.as_bytes());
                out.push(0);
            });
        }
        media_information(out, &track.entry);
    });
}

fn media_information(out: &mut Vec<u8>, entry: &Entry) {
    boxed(out, b"minf", |out| {
        if entry.is_video() {
            full(out, b"vmhd", 0, 1, |out| put_all(out, &[0, 0]));
        } else {
            full(out, b"smhd", 0, 0, |out| put32(out, 0));
        }
        boxed(out, b"dinf", |out| {
            full(out, b"dref", 0, 0, |out| {
                put32(out, 1);
                full(out, b"url ", 0, 1, |_| {}); // flag 1: in this file
            });
        });
        boxed(out, b"stbl", |out| {
            full(out, b"stsd", 0, 0, |out| {
                put32(out, 1);
                sample_entry(out, entry);
            });
            full(out, b"stts", 0, 0, |out| put32(out, 0));
            full(out, b"stsc", 0, 0, |out| put32(out, 0));
            full(out, b"stsz", 0, 0, |out| put_all(out, &[0, 0]));
            full(out, b"stco", 0, 0, |out| put32(out, 0));
            if let Some(roll) = entry.roll() {
                // SampleGroupDescriptionBox (8.9.3) with one AudioRollRecoveryEntry (10.1) of two bytes.
                full(out, b"sgpd", 1, 0, |out| {
                    out.extend(ROLL);
                    put_all(out, &[2, 1]);
                    out.extend(roll.to_be_bytes());
                });
            }
        });
    });
}

fn sample_entry(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Avc { config, raster } => {
            let parameter_sets = config.get(5).is_some_and(|count| count & 0x1f != 0);
            visual(out, if parameter_sets { b"avc1" } else { b"avc3" }, raster, b"avcC", config);
        }
        Entry::Hevc { config, raster } => {
            if hevc::has_in_band_parameters_only(config) {
                visual(out, b"hev1", raster, b"hvcC", config);
            } else {
                visual(out, b"hvc1", raster, b"hvcC", &hevc::complete(config));
            }
        }
        Entry::Av1 { config, raster } => visual(out, b"av01", raster, b"av1C", config),
        Entry::Vp9 { config, raster } => visual(out, b"vp09", raster, b"vpcC", config),
        Entry::Aac { config, channels, sample_rate } => {
            audible(out, b"mp4a", *channels, 16, *sample_rate, |out| full(out, b"esds", 0, 0, |out| elementary_stream(out, 0x40, config)));
        }
        Entry::Sound(sound) => other_sound(out, sound),
    }
}

fn other_sound(out: &mut Vec<u8>, sound: &SoundEntry) {
    let (kind, inner) = match sound.coding {
        Coding::Ac3 => (b"ac-3", b"dac3"),
        Coding::Eac3 => (b"ec-3", b"dec3"),
        Coding::Opus => (b"Opus", b"dOps"),
        Coding::Flac => (b"fLaC", b"dfLa"),
        Coding::Alac => (b"alac", b"alac"),
        Coding::Mp3(_) => (b"mp4a", b"esds"),
    };
    audible(out, kind, sound.channels, sound.bits, sound.sample_rate, |out| match sound.coding {
        Coding::Mp3(object_type) => full(out, inner, 0, 0, |out| elementary_stream(out, object_type, &[])),
        _ => boxed(out, inner, |out| out.extend(&sound.config)),
    });
}

/// VisualSampleEntry (ISO 14496-12, 12.1.3).
fn visual(out: &mut Vec<u8>, kind: &[u8; 4], raster: &Raster, config_kind: &[u8; 4], config: &[u8]) {
    boxed(out, kind, |out| {
        data_reference(out);
        put_all(out, &[0; 4]);
        put16(out, clamp16(raster.width));
        put16(out, clamp16(raster.height));
        put_all(out, &[0x48_0000, 0x48_0000, 0]); // 72 dots per inch
        put16(out, 1); // frames per sample
        out.extend([0; 32]); // compressor's name
        put16(out, 0x18);
        put16(out, u16::MAX);
        boxed(out, config_kind, |out| out.extend(config));
        if let Some(colour) = raster.colour {
            boxed(out, b"colr", |out| {
                out.extend(b"nclx");
                for code in [colour.primaries, colour.transfer, colour.matrix] {
                    put16(out, u16::from(code));
                }
                out.push(if colour.full_range { 0x80 } else { 0 });
            });
        }
        if let Some(mastering) = raster.light.mastering {
            boxed(out, b"mdcv", |out| out.extend(mastering));
        }
        if let Some(content) = raster.light.content {
            boxed(out, b"clli", |out| out.extend(content));
        }
        let (across, down) = raster.pixel_aspect;
        if across != down && across != 0 && down != 0 {
            boxed(out, b"pasp", |out| put_all(out, &[across, down]));
        }
    });
}

/// AudioSampleEntry (ISO 14496-12, 12.2.3) with the box of its coding. A rate that does not fit is told as the largest whole part of it
/// that does (FLAC in ISOBMFF, 3.3.1); the configuration knows it in full.
fn audible(out: &mut Vec<u8>, kind: &[u8; 4], channels: u16, bits: u16, sample_rate: u32, config: impl FnOnce(&mut Vec<u8>)) {
    let told = (1..=8_u32).filter(|parts| sample_rate.is_multiple_of(*parts)).find_map(|parts| u16::try_from(sample_rate / parts).ok());
    boxed(out, kind, |out| {
        data_reference(out);
        put_all(out, &[0, 0]);
        put16(out, channels);
        put16(out, bits);
        put32(out, 0);
        put32(out, u32::from(told.unwrap_or(u16::MAX)) << 16);
        config(out);
    });
}

/// ES_Descriptor (ISO 14496-1, 7.2.6.5) of sound, around what its decoder needs to know (ISO 14496-14, 5.6).
fn elementary_stream(out: &mut Vec<u8>, object_type: u8, config: &[u8]) {
    descriptor(out, 3, |out| {
        out.extend([0, 0, 0]); // ES_ID 0 in files, no flags
        descriptor(out, 4, |out| {
            out.extend([object_type, 0x15]); // audio stream
            out.extend([0; 11]); // buffer and bit rates: not told
            if !config.is_empty() {
                descriptor(out, 5, |out| out.extend(config));
            }
        });
        descriptor(out, 6, |out| out.push(2)); // sync layer as in MP4 files
    });
}

/// A descriptor with its length in four bytes of seven bits.
fn descriptor(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    body(&mut inner);
    out.push(tag);
    for shift in [21, 14, 7, 0] {
        let seven = u8::try_from(inner.len() >> shift & 0x7f).unwrap_or(0);
        out.push(if shift == 0 { seven } else { seven | 0x80 });
    }
    out.extend(inner);
}

pub(super) fn data_reference(out: &mut Vec<u8>) {
    out.extend([0; 6]);
    put16(out, 1);
}

/// Three letters in 15 bits (`mdhd`); `und` for anything else.
pub(super) fn packed_language(language: &str) -> u16 {
    let letters = <[u8; 3]>::try_from(language.as_bytes()).ok().filter(|letters| letters.iter().all(u8::is_ascii_lowercase));
    letters.unwrap_or(*b"und").iter().fold(0, |packed, letter| packed << 5 | u16::from(letter - 0x60))
}

/// A BCP 47 tag that does not fit in `mdhd`.
pub(super) fn extended_language(language: &str) -> Option<&str> {
    let is_tag = (2..=35).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_tag && packed_language(language) == packed_language("und") && language != "und").then_some(language)
}

/// Everything in front of the payload of a chunk: `styp` where a segment begins, `moof`, and the header of an `mdat` that holds the
/// samples of `rows`. The payload must follow directly, in the order of the rows.
///
/// Every row of sound is `key`. `sequence` counts fragments, `base_decode_time` is the first row's decode time in ticks. Without rows it is a valid empty segment.
pub fn chunk(sequence: u32, base_decode_time: u64, rows: &[Row], first_of_segment: bool) -> Bytes {
    write_chunk(&Form::of(rows), sequence, base_decode_time, rows, first_of_segment)
}

/// [`chunk`] of a track whose entry has a [`SoundEntry::roll`]: all rows are in that group.
pub fn rolling_chunk(sequence: u32, base_decode_time: u64, rows: &[Row], first_of_segment: bool) -> Bytes {
    write_chunk(&Form { rolls: !rows.is_empty(), ..Form::of(rows) }, sequence, base_decode_time, rows, first_of_segment)
}

fn write_chunk(form: &Form, sequence: u32, base_decode_time: u64, rows: &[Row], first_of_segment: bool) -> Bytes {
    let len = form.len(first_of_segment);
    let mut out = Vec::with_capacity(len);
    if first_of_segment {
        boxed(&mut out, b"styp", |out| {
            out.extend(b"cmfs");
            put32(out, 0);
            out.extend(b"cmfscmffmsdh");
        });
    }
    boxed(&mut out, b"moof", |out| {
        full(out, b"mfhd", 0, 0, |out| put32(out, sequence));
        boxed(out, b"traf", |out| {
            form.fragment_header(out);
            full(out, b"tfdt", 1, 0, |out| put64(out, base_decode_time));
            form.run(out, rows);
            form.group(out);
        });
    });
    form.media_data_header(&mut out);
    debug_assert_eq!(out.len(), len);
    Bytes::from(out)
}

/// Bytes of what [`chunk`] writes for these rows, without writing it.
pub fn chunk_len(rows: &[Row], first_of_segment: bool) -> usize {
    Form::of(rows).len(first_of_segment)
}

/// Bytes of the samples of these rows.
pub fn payload_len(rows: &[Row]) -> u64 {
    rows.iter().map(|row| u64::from(row.size)).sum()
}

/// Bits of `sample_flags` (ISO 14496-12, 8.8.3.1): depends on no other; depends on others and is no sync sample.
const KEY_FLAGS: u32 = 0x0200_0000;
const OTHER_FLAGS: u32 = 0x0101_0000;

const fn flags(row: &Row) -> u32 {
    if row.key { KEY_FLAGS } else { OTHER_FLAGS }
}

/// The shortest way to write some rows: what all of them share stands once in `tfhd`, the rest in every row of `trun`.
#[derive(Debug, Clone, Copy)]
struct Form {
    rows: usize,
    payload: u64,
    /// Shared by all rows.
    duration: Option<u32>,
    size: Option<u32>,
    /// Shared by all rows, or by all but the first.
    flags: Option<u32>,
    /// The first row's, where only it differs.
    first_flags: Option<u32>,
    composition: bool,
    negative: bool,
    /// All rows are in the group of [`ROLL`].
    rolls: bool,
}

impl Form {
    fn of(rows: &[Row]) -> Self {
        let (first, rest) = rows.split_first().map_or((None, rows), |(first, rest)| (Some(first), rest));
        let later = rest.first().or(first);
        let flags_shared = later.is_some_and(|later| rest.iter().all(|row| row.key == later.key));
        let first_differs = first.zip(later).is_some_and(|(first, later)| first.key != later.key);
        Self {
            rows: rows.len(),
            payload: payload_len(rows),
            duration: first.map(|first| first.duration).filter(|shared| rest.iter().all(|row| row.duration == *shared)),
            size: first.map(|first| first.size).filter(|shared| rest.iter().all(|row| row.size == *shared)),
            flags: later.map(flags).filter(|_| flags_shared),
            first_flags: first.map(flags).filter(|_| flags_shared && first_differs),
            composition: rows.iter().any(|row| row.composition != 0),
            negative: rows.iter().any(|row| row.composition < 0),
            rolls: false,
        }
    }

    const fn long_media_data(&self) -> bool {
        self.payload > u32::MAX as u64 - 8
    }

    const fn media_data_header_len(&self) -> usize {
        if self.long_media_data() { 16 } else { 8 }
    }

    const fn fragment_header_len(&self) -> usize {
        16 + 4 * (self.duration.is_some() as usize + self.size.is_some() as usize + self.flags.is_some() as usize)
    }

    const fn row_len(&self) -> usize {
        let fields = self.duration.is_none() as usize + self.size.is_none() as usize + self.flags.is_none() as usize;
        4 * (fields + self.composition as usize)
    }

    const fn run_len(&self) -> usize {
        let rows = if self.rows == 0 { 0 } else { self.rows.saturating_mul(self.row_len()) };
        20 + 4 * (self.first_flags.is_some() as usize) + rows
    }

    const fn movie_fragment_len(&self) -> usize {
        8 + 16 + 8 + self.fragment_header_len() + 20 + self.run_len() + if self.rolls { GROUP_LEN } else { 0 }
    }

    const fn len(&self, first_of_segment: bool) -> usize {
        (if first_of_segment { 28 } else { 0 }) + self.movie_fragment_len() + self.media_data_header_len()
    }

    /// `tfhd` (8.8.7) with the moof as the base of offsets.
    fn fragment_header(&self, out: &mut Vec<u8>) {
        let shared = [(self.duration, 0x08), (self.size, 0x10), (self.flags, 0x20)];
        let bits = shared.iter().filter(|(value, _)| value.is_some()).fold(0x02_0000, |bits, (_, bit)| bits | bit);
        full(out, b"tfhd", 0, bits, |out| {
            put32(out, TRACK_ID);
            for value in shared.iter().filter_map(|(value, _)| *value) {
                put32(out, value);
            }
        });
    }

    /// `trun` (8.8.8).
    fn run(&self, out: &mut Vec<u8>, rows: &[Row]) {
        let own = self.rows > 0;
        let bits = 0x01
            | if self.first_flags.is_some() { 0x04 } else { 0 }
            | if own && self.duration.is_none() { 0x100 } else { 0 }
            | if own && self.size.is_none() { 0x200 } else { 0 }
            | if own && self.flags.is_none() { 0x400 } else { 0 }
            | if self.composition { 0x800 } else { 0 };
        full(out, b"trun", u8::from(self.negative), bits, |out| {
            put32(out, u32::try_from(self.rows).unwrap_or(u32::MAX));
            put32(out, u32::try_from(self.movie_fragment_len() + self.media_data_header_len()).unwrap_or(u32::MAX));
            if let Some(flags) = self.first_flags {
                put32(out, flags);
            }
            for row in rows {
                self.row(out, row);
            }
        });
    }

    /// `sbgp` (8.9.2): all samples belong to the only description of the init segment.
    fn group(&self, out: &mut Vec<u8>) {
        if self.rolls {
            full(out, b"sbgp", 0, 0, |out| {
                out.extend(ROLL);
                put_all(out, &[1, u32::try_from(self.rows).unwrap_or(u32::MAX), 1]);
            });
        }
    }

    fn row(&self, out: &mut Vec<u8>, row: &Row) {
        if self.duration.is_none() {
            put32(out, row.duration);
        }
        if self.size.is_none() {
            put32(out, row.size);
        }
        if self.flags.is_none() {
            put32(out, flags(row));
        }
        if self.composition {
            out.extend(if self.negative { signed(row.composition).to_be_bytes() } else { unsigned(row.composition).to_be_bytes() });
        }
    }

    fn media_data_header(&self, out: &mut Vec<u8>) {
        if self.long_media_data() {
            put32(out, 1);
            out.extend(b"mdat");
            put64(out, self.payload.saturating_add(16));
        } else {
            put32(out, u32::try_from(self.payload + 8).unwrap_or(u32::MAX));
            out.extend(b"mdat");
        }
    }
}

fn signed(composition: i64) -> i32 {
    i32::try_from(composition).unwrap_or(if composition < 0 { i32::MIN } else { i32::MAX })
}

fn unsigned(composition: i64) -> u32 {
    u32::try_from(composition).unwrap_or(if composition < 0 { 0 } else { u32::MAX })
}

/// Decode times of the pictures of one segment, whose presentation times are given in decode order: the i-th picture is decoded at the
/// i-th smallest presentation time. Strictly ascending: where the film shows two pictures at once, the later one is moved on by a tick.
pub fn decode_times(pts: &[i64]) -> Vec<i64> {
    let mut sorted = pts.to_vec();
    sorted.sort_unstable();
    let mut last = None;
    for time in &mut sorted {
        *time = ascending(&mut last, *time);
    }
    sorted
}

fn ascending(last: &mut Option<i64>, time: i64) -> i64 {
    let next = last.map_or(time, |last| time.max(last.saturating_add(1)));
    *last = Some(next);
    next
}

/// [`decode_times`] for a segment of which the pictures arrive one by one.
///
/// `depth` pictures at most may precede a picture in decoding order and follow it in output order (the parameter sets' promise). Then the
/// smallest of any `depth + 1` waiting times is final, and the result is that of [`decode_times`]. A film that breaks the promise gets,
/// in each place, the smallest of the `depth + 1` times that wait there, but always at least a tick more than the picture before: that
/// depends on the order of pictures in the film only, never on when they arrive.
#[derive(Debug, Clone)]
pub struct Reorder {
    depth: usize,
    waiting: BinaryHeap<Reverse<i64>>,
    last: Option<i64>,
    /// The rendition's shift, where decode times are kept within it.
    shift: Option<u64>,
    /// The last `depth` times that were final, as they were before they were kept within the shift.
    before: VecDeque<i64>,
}

impl Reorder {
    /// For a film that reorders at most `depth` pictures.
    pub fn new(depth: u8) -> Self {
        Self { depth: usize::from(depth), waiting: BinaryHeap::new(), last: None, shift: None, before: VecDeque::new() }
    }

    /// The same, and no picture is decoded more than `shift` ticks after it is shown, so that no composition offset is negative.
    ///
    /// Where pictures stand evenly, `depth` of them last no longer than the shift, and the result is that of [`Reorder::new`]. Behind a
    /// hole (a variable frame rate, a broken stretch of the file) it is not: the time before the hole would be the decode time of a
    /// picture that is shown before it. Readers that meet one negative offset shift the whole track.
    pub fn within(depth: u8, shift: u64) -> Self {
        Self { shift: Some(shift), ..Self::new(depth) }
    }

    /// Takes the presentation time of the next picture in decode order; gives the decode time of the earliest picture that has none yet,
    /// if it is final.
    pub fn push(&mut self, pts: i64) -> Option<i64> {
        self.waiting.push(Reverse(pts));
        if self.waiting.len() > self.depth { self.pop() } else { None }
    }

    /// The segment is complete: the decode times of all pictures that have none yet. The next push begins a new segment.
    pub fn finish(&mut self) -> Vec<i64> {
        let rest = std::iter::from_fn(|| self.pop()).collect();
        self.last = None;
        self.before.clear();
        rest
    }

    fn pop(&mut self) -> Option<i64> {
        let Reverse(time) = self.waiting.pop()?;
        let time = self.kept(time);
        Some(ascending(&mut self.last, time))
    }

    /// A picture at this place or behind it is shown no earlier than the one `depth` places before: that many pictures may go ahead.
    fn kept(&mut self, time: i64) -> i64 {
        let Some(shift) = self.shift else { return time };
        if self.before.is_empty() {
            // Nothing of a segment is shown before its first picture.
            self.before.extend((1..=self.depth).rev().map(|ahead| time.saturating_sub_unsigned(ahead as u64)));
        }
        let Some(earliest) = self.before.pop_front() else { return time };
        self.before.push_back(time);
        time.min(earliest.saturating_add_unsigned(shift))
    }
}

/// The smallest shift (ticks, ≥ 0) that makes every composition offset of a segment positive: the value for
/// [`InitTrack::media_time`], as the largest over all segments of a rendition.
pub fn shift_needed(pts: &[i64], dts: &[i64]) -> u64 {
    pts.iter().zip(dts).map(|(pts, dts)| dts.saturating_sub(*pts)).max().map_or(0, |shift| u64::try_from(shift).unwrap_or(0))
}

/// A picture before its place in a `trun` is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coded {
    /// Presentation time in ticks.
    pub pts: i64,
    /// Bytes.
    pub size: u32,
    /// Decoding can begin here.
    pub key: bool,
}

/// The row of a picture that is decoded at `dts` and lasts until the next one's decode time (or, the last of a segment, until the
/// segment's end), all in ticks. `shift` is the rendition's ([`InitTrack::media_time`]).
pub fn row(coded: &Coded, dts: i64, next_dts: i64, shift: u64) -> Row {
    let lasts = next_dts.saturating_sub(dts).max(0);
    Row {
        size: coded.size,
        duration: u32::try_from(lasts).unwrap_or(u32::MAX),
        composition: coded.pts.saturating_sub(dts).saturating_add_unsigned(shift),
        key: coded.key,
    }
}

/// The rows of a whole segment of pictures in decode order, and its base decode time. `end` is where the next segment begins.
pub fn rows(pictures: &[Coded], end: i64, shift: u64) -> (i64, Vec<Row>) {
    let pts: Vec<i64> = pictures.iter().map(|coded| coded.pts).collect();
    let times = decode_times(&pts);
    let following = times.iter().skip(1).copied().chain([end]);
    let rows = pictures.iter().zip(&times).zip(following).map(|((coded, dts), next)| row(coded, *dts, next, shift)).collect();
    (times.first().copied().unwrap_or(end), rows)
}

/// Where chunks end: as soon as one lasts as long as it should. Tells it sample by sample, so that a chunk can leave at once.
#[derive(Debug, Clone, Copy)]
pub struct Chunker {
    target: u64,
    filled: u64,
}

impl Chunker {
    /// Chunks of `target_ms` milliseconds and at most one sample more.
    pub fn new(timescale: u32, target_ms: u32) -> Self {
        Self { target: (u64::from(timescale) * u64::from(target_ms)).div_ceil(1000), filled: 0 }
    }

    /// Takes the duration of the next sample in ticks; `true` if the chunk ends behind it. A segment's end ends a chunk anyway:
    /// begin the next segment with a new `Chunker`.
    pub const fn push(&mut self, duration: u32) -> bool {
        self.filled = self.filled.saturating_add(duration as u64);
        let full = self.filled >= self.target;
        if full {
            self.filled = 0;
        }
        full
    }
}

/// Divides the samples of a segment, given by their durations in ticks, into chunks of about `target_ms` milliseconds: what a
/// [`Chunker`] says, with the rest as the last chunk. Empty where there are no samples.
pub fn chunk_bounds(durations: impl IntoIterator<Item = u32>, timescale: u32, target_ms: u32) -> Vec<Range<usize>> {
    let mut chunker = Chunker::new(timescale, target_ms);
    let (mut bounds, mut begin, mut end) = (Vec::new(), 0, 0);
    for duration in durations {
        end += 1;
        if chunker.push(duration) {
            bounds.push(begin..end);
            begin = end;
        }
    }
    if begin < end {
        bounds.push(begin..end);
    }
    bounds
}

/// A box: its size is filled in once its body is written.
pub(super) fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put32(out, 0);
    out.extend(kind);
    body(out);
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
}

/// A box with version and flags.
pub(super) fn full(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        put32(out, u32::from(version) << 24 | flags);
        body(out);
    });
}

pub(super) fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put_all(out: &mut Vec<u8>, values: &[u32]) {
    for value in values {
        put32(out, *value);
    }
}

fn clamp16(side: u32) -> u16 {
    u16::try_from(side).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = Row> {
        (0_u32..4, 0_u32..3, -2_i64..4, any::<bool>()).prop_map(|(size, duration, composition, key)| Row {
            size,
            duration,
            composition,
            key,
        })
    }

    /// A film in decode order that reorders at most `depth` pictures, made by letting pictures wait in a buffer of that size.
    fn reordered(shown: usize, picks: &[usize], depth: usize) -> Vec<i64> {
        let mut decode = Vec::new();
        let mut early: Vec<i64> = Vec::new();
        for (time, pick) in (0..i64::try_from(shown).unwrap()).zip(picks.iter().cycle()) {
            if let Some(place) = early.iter().position(|waiting| *waiting == time) {
                early.remove(place);
                continue; // was decoded before its turn
            }
            for ahead in 1..=i64::try_from(pick % (depth + 1)).unwrap() {
                let candidate = time + ahead * 2;
                if early.len() < depth && candidate < i64::try_from(shown).unwrap() && !early.contains(&candidate) {
                    early.push(candidate);
                    decode.push(candidate);
                }
            }
            decode.push(time);
        }
        decode.iter().map(|time| time * 40).collect()
    }

    #[test]
    fn decode_times_are_sorted_presentation_times() {
        assert_eq!(decode_times(&[0, 120, 40, 80, 200, 160]), [0, 40, 80, 120, 160, 200]);
        assert_eq!(decode_times(&[0, 40, 40, 40, 41]), [0, 40, 41, 42, 43]);
        assert_eq!(decode_times(&[i64::MAX, i64::MAX]), [i64::MAX, i64::MAX]);
        assert_eq!(decode_times(&[]), Vec::<i64>::new());
    }

    #[test]
    fn a_broken_promise_still_ascends() {
        let mut reorder = Reorder::new(1);
        let mut times: Vec<_> = [0, 160, 120, 80, 40, 200].into_iter().filter_map(|pts| reorder.push(pts)).collect();
        times.extend(reorder.finish());
        assert_eq!(times, [0, 120, 121, 122, 160, 200]);
        assert_eq!(reorder.push(7), None);
        assert_eq!(reorder.finish(), [7]); // nothing is left of the segment before
    }

    #[test]
    fn behind_a_hole_no_picture_is_decoded_after_it_is_shown() {
        // Two pictures of 40 ticks may be held back; between 80 and 1000 there is nothing.
        let film = [0, 120 + 880, 40, 80, 1120, 1040, 1080, 1160];
        let mut reorder = Reorder::within(2, 80);
        let mut times: Vec<i64> = film.into_iter().filter_map(|pts| reorder.push(pts)).collect();
        times.extend(reorder.finish());
        assert_eq!(times, [0, 40, 80, 120, 160, 1080, 1120, 1160]);
        assert!(film.iter().zip(&times).all(|(pts, dts)| pts + 80 >= *dts));
        // Without holes nothing changes.
        let even = [0, 120, 40, 80, 240, 160, 200];
        let mut reorder = Reorder::within(2, 80);
        let mut times: Vec<i64> = even.into_iter().filter_map(|pts| reorder.push(pts)).collect();
        times.extend(reorder.finish());
        assert_eq!(times, decode_times(&even));
    }

    #[test]
    fn rows_of_a_segment_end_at_the_next() {
        let coded = |pts, key| Coded { pts, size: 10, key };
        let (base, rows) = rows(&[coded(1000, true), coded(1120, false), coded(1040, false), coded(1080, false)], 1160, 80);
        assert_eq!(base, 1000);
        let told: Vec<_> = rows.iter().map(|row| (row.duration, row.composition, row.key)).collect();
        assert_eq!(told, [(40, 80, true), (40, 160, false), (40, 40, false), (40, 40, false)]);
        assert_eq!(super::rows(&[], 5, 0), (5, Vec::new()));
        assert_eq!(shift_needed(&[1000, 1120, 1040, 1080], &[1000, 1040, 1080, 1120]), 40);
    }

    #[test]
    fn chunks_of_half_a_second() {
        assert_eq!(chunk_bounds([40; 30], 1000, 500), [0..13, 13..26, 26..30]);
        assert_eq!(chunk_bounds([1024; 3], 48_000, 500), vec![0..3; 1]);
        assert_eq!(chunk_bounds([90_000; 2], 90_000, 500), [0..1, 1..2]);
        assert!(chunk_bounds([], 90_000, 500).is_empty());
        assert_eq!(chunk_bounds([0; 2], 1, 0), [0..1, 1..2]);
    }

    #[test]
    fn languages() {
        assert_eq!(packed_language("eng"), 0x15c7);
        assert_eq!(packed_language("und"), 0x55c4);
        assert_eq!(packed_language("EN{"), 0x55c4);
        assert_eq!(extended_language("pt-BR"), Some("pt-BR"));
        assert_eq!(extended_language("eng"), None);
        assert_eq!(extended_language("und"), None);
        assert_eq!(extended_language("a\0b"), None);
    }

    #[test]
    fn a_payload_beyond_32_bits() {
        let rows = [Row { size: u32::MAX, duration: 1, composition: 0, key: true }; 2];
        let head = chunk(1, 0, &rows, false);
        assert_eq!(head.len(), chunk_len(&rows, false));
        let (_, tail) = head.split_at(head.len() - 16);
        assert_eq!(tail, [&[0, 0, 0, 1], b"mdat".as_slice(), &(2 * u64::from(u32::MAX) + 16).to_be_bytes()].concat());
    }

    proptest! {
        #[test]
        fn length_is_known_before_writing(rows in proptest::collection::vec(any_row(), 0..6), first: bool) {
            prop_assert_eq!(chunk(3, 9, &rows, first).len(), chunk_len(&rows, first));
            let group = if rows.is_empty() { 0 } else { GROUP_LEN };
            prop_assert_eq!(rolling_chunk(3, 9, &rows, first).len(), chunk_len(&rows, first) + group);
        }

        #[test]
        fn streaming_agrees_with_the_batch(shown in 0_usize..60, picks in proptest::collection::vec(0_usize..9, 1..9), depth in 0_u8..5) {
            let pts = reordered(shown, &picks, usize::from(depth));
            let mut reorder = Reorder::new(depth);
            let mut times: Vec<_> = pts.iter().filter_map(|pts| reorder.push(*pts)).collect();
            times.extend(reorder.finish());
            prop_assert_eq!(times, decode_times(&pts));
        }

        #[test]
        fn streaming_is_total(pts in proptest::collection::vec(any::<i64>(), 0..40), depth: u8) {
            let mut reorder = Reorder::new(depth);
            let mut times: Vec<_> = pts.iter().filter_map(|pts| reorder.push(*pts)).collect();
            times.extend(reorder.finish());
            prop_assert_eq!(times.len(), pts.len());
            prop_assert!(times.is_sorted());
            let coded: Vec<_> = pts.iter().map(|pts| Coded { pts: *pts, size: 1, key: true }).collect();
            let (_, rows) = rows(&coded, 0, u64::MAX);
            prop_assert_eq!(chunk(0, 0, &rows, true).len(), chunk_len(&rows, true));
        }

        #[test]
        fn chunks_cover_all_samples(durations in proptest::collection::vec(0_u32..5000, 0..80)) {
            let bounds = chunk_bounds(durations.iter().copied(), 1000, 500);
            let covered: Vec<usize> = bounds.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..durations.len()).collect::<Vec<_>>());
            for range in bounds.iter().rev().skip(1) {
                let ticks: u32 = durations[range.clone()].iter().sum();
                prop_assert!(ticks >= 500 && ticks - durations[range.end - 1] < 500);
            }
        }
    }
}
