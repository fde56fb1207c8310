//! H.264 (ISO 14496-10): the body of `avcC` (ISO 14496-15, 5.3.3.1) and the sequence parameter set inside it.

use bytes::Bytes;

use super::bits::{Bits, Bytewise, unescaped};
use super::{Chroma, Colour, DescribedPicture, Usability, cropped, frame_rate};
use crate::container::Picture;

/// NAL unit types (table 7-1): a slice of an IDR picture, a sequence parameter set, the delimiter that must stand first.
const IDR: u8 = 5;
const SPS: u8 = 7;
const DELIMITER: u8 = 9;

/// What the body of an `avcC` box tells. `None` where it is damaged or holds no readable sequence parameter set.
pub fn describe(avcc: &[u8]) -> Option<DescribedPicture> {
    let mut body = Bytewise(avcc);
    let version = body.u8()?;
    body.take(3)?; // profile, compatibility, level: the parameter set repeats them and is what decoders obey
    let nal_length = nal_length(body.u8()?)?;
    let count = body.u8()? & 0x1f;
    if version != 1 {
        return None;
    }
    for _ in 0..count {
        let nal = body.nal()?;
        if let Some(sps) = Sps::read(nal) {
            return Some(sps.describe(nal_length));
        }
    }
    None
}

/// Whether a sample holds a slice of an IDR picture: nothing that follows refers to what came before it.
pub fn is_idr(sample: &[u8], nal_length: u8) -> bool {
    nals(sample, nal_length).any(|(kind, _)| kind == IDR)
}

/// A sample with these parameter sets ([`in_band`]) in front of its pictures, unless it brings its own.
pub fn with_sets(sample: Bytes, nal_length: u8, sets: &[u8]) -> Bytes {
    if nals(&sample, nal_length).any(|(kind, _)| kind == SPS) {
        return sample;
    }
    let delimiter = nals(&sample, nal_length).next().filter(|(kind, _)| *kind == DELIMITER);
    let (before, after) = sample.split_at(delimiter.map_or(0, |(_, end)| end).min(sample.len()));
    [before, sets, after].concat().into()
}

/// The types of a sample's NAL units, and where each ends.
fn nals(sample: &[u8], nal_length: u8) -> impl Iterator<Item = (u8, usize)> {
    let mut rest = Bytewise(sample);
    std::iter::from_fn(move || {
        let len = rest.take(usize::from(nal_length.max(1)))?.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
        let header = rest.take(len)?.first().copied().unwrap_or(0);
        Some((header & 0x1f, sample.len() - rest.0.len()))
    })
}

/// The parameter sets of an `avcC` box's body as they stand in a sample, each behind its length. `None` where it is damaged.
pub fn in_band(avcc: &[u8]) -> Option<Bytes> {
    let Config { nal_length, sequences, pictures, .. } = Config::read(avcc)?;
    let mut sets = Vec::new();
    for set in sequences.into_iter().chain(pictures) {
        let len = u32::try_from(set.len()).ok()?.to_be_bytes();
        sets.extend(len.get(len.len().checked_sub(usize::from(nal_length))?..)?);
        sets.extend(set);
    }
    Some(sets.into())
}

/// One `avcC` body with the parameter sets of two, so that samples of both can follow it. `None` where that cannot be: their profiles or
/// lengths differ, or their sets have the same numbers.
pub fn together(first: &[u8], second: &[u8]) -> Option<Bytes> {
    let (mut all, more) = (Config::read(first)?, Config::read(second)?);
    if all.profile != more.profile || all.nal_length != more.nal_length {
        return None;
    }
    let share = |some: &[&[u8]], others: &[&[u8]], number: fn(&[u8]) -> Option<u32>| {
        some.iter().any(|one| others.iter().any(|other| number(one).is_none() || number(one) == number(other)))
    };
    if share(&all.sequences, &more.sequences, sequence_number) || share(&all.pictures, &more.pictures, picture_number) {
        return None;
    }
    all.sequences.extend(more.sequences);
    all.pictures.extend(more.pictures);
    all.constraints &= more.constraints;
    all.level = all.level.max(more.level);
    all.write()
}

/// `seq_parameter_set_id` (7.3.2.1.1).
fn sequence_number(set: &[u8]) -> Option<u32> {
    Bits::new(&unescaped(set.get(4..)?)).ue()
}

/// `pic_parameter_set_id` (7.3.2.2).
fn picture_number(set: &[u8]) -> Option<u32> {
    Bits::new(&unescaped(set.get(1..)?)).ue()
}

/// The body of an `avcC` box, taken apart.
struct Config<'a> {
    profile: u8,
    constraints: u8,
    level: u8,
    nal_length: u8,
    sequences: Vec<&'a [u8]>,
    pictures: Vec<&'a [u8]>,
    /// What High profiles have behind it.
    rest: &'a [u8],
}

impl<'a> Config<'a> {
    fn read(avcc: &'a [u8]) -> Option<Self> {
        let mut body = Bytewise(avcc);
        let version = body.u8()?;
        let (profile, constraints, level) = (body.u8()?, body.u8()?, body.u8()?);
        let nal_length = nal_length(body.u8()?)?;
        let sequences = (0..body.u8()? & 0x1f).map(|_| body.nal()).collect::<Option<_>>()?;
        let pictures = (0..body.u8()?).map(|_| body.nal()).collect::<Option<_>>()?;
        (version == 1).then_some(Self { profile, constraints, level, nal_length, sequences, pictures, rest: body.0 })
    }

    fn write(&self) -> Option<Bytes> {
        let sets = |out: &mut Vec<u8>, sets: &[&[u8]]| {
            for set in sets {
                out.extend(u16::try_from(set.len()).ok()?.to_be_bytes());
                out.extend(*set);
            }
            Some(())
        };
        let mut out = vec![1, self.profile, self.constraints, self.level, 0xfc | (self.nal_length - 1)];
        out.push(0xe0 | u8::try_from(self.sequences.len()).ok().filter(|count| *count < 32)?);
        sets(&mut out, &self.sequences)?;
        out.push(u8::try_from(self.pictures.len()).ok()?);
        sets(&mut out, &self.pictures)?;
        out.extend(self.rest);
        Some(out.into())
    }
}

/// Name for `CODECS` (RFC 6381, 3.3) of a stream in an `avc1` sample entry.
pub fn codecs(profile: u8, constraints: u8, level: u8) -> String {
    format!("avc1.{profile:02X}{constraints:02X}{level:02X}")
}

/// Name for `CODECS` of what our own encoder makes: High profile at `level` (`level_idc`).
pub fn codecs_high(level: u8) -> String {
    codecs(100, 0, level)
}

/// The lowest `level_idc` of 3.0 and above that admits this picture at this rate (table A-1: macroblocks per second and per
/// frame, and A.3.1: no side longer than √(8 × macroblocks)); 62 where none does.
pub fn level_for(width: u32, height: u32, fps: f64) -> u8 {
    let (across, down) = (u64::from(width.div_ceil(16)), u64::from(height.div_ceil(16)));
    let frame = across * down;
    #[allow(clippy::cast_precision_loss)] // macroblock counts are far below 2^53
    let per_second = frame as f64 * fps.max(1.0);
    LEVELS
        .iter()
        .filter(|level| level.idc >= 30)
        .find(|level| {
            let side = 8 * u64::from(level.frame);
            frame <= u64::from(level.frame)
                && across * across <= side
                && down * down <= side
                && per_second <= f64::from(level.per_second) * 1.0001
        })
        .map_or(62, |level| level.idc)
}

/// Limits of a level in macroblocks (table A-1).
struct Level {
    idc: u8,
    /// MaxMBPS.
    per_second: u32,
    /// MaxFS.
    frame: u32,
    /// MaxDpbMbs.
    stored: u32,
}

const fn level(idc: u8, per_second: u32, frame: u32, stored: u32) -> Level {
    Level { idc, per_second, frame, stored }
}

const LEVELS: [Level; 20] = [
    level(9, 1_485, 99, 396), // 1b in the High profiles
    level(10, 1_485, 99, 396),
    level(11, 3_000, 396, 900),
    level(12, 6_000, 396, 2_376),
    level(13, 11_880, 396, 2_376),
    level(20, 11_880, 396, 2_376),
    level(21, 19_800, 792, 4_752),
    level(22, 20_250, 1_620, 8_100),
    level(30, 40_500, 1_620, 8_100),
    level(31, 108_000, 3_600, 18_000),
    level(32, 216_000, 5_120, 20_480),
    level(40, 245_760, 8_192, 32_768),
    level(41, 245_760, 8_192, 32_768),
    level(42, 522_240, 8_704, 34_816),
    level(50, 589_824, 22_080, 110_400),
    level(51, 983_040, 36_864, 184_320),
    level(52, 2_073_600, 36_864, 184_320),
    level(60, 4_177_920, 139_264, 696_320),
    level(61, 8_355_840, 139_264, 696_320),
    level(62, 16_711_680, 139_264, 696_320),
];

/// Bytes of the length in front of a NAL unit, from the byte that holds `lengthSizeMinusOne`.
pub(super) const fn nal_length(byte: u8) -> Option<u8> {
    match byte & 3 {
        2 => None, // three bytes are not allowed
        other => Some(other + 1),
    }
}

/// The parts of a sequence parameter set (7.3.2.1.1) that matter outside a decoder.
#[derive(Debug, Clone, Copy)]
struct Sps {
    profile: u8,
    constraints: u8,
    level: u8,
    chroma: Chroma,
    luma_depth: u8,
    chroma_depth: u8,
    order_type: u32,
    macroblocks: u64,
    width: u32,
    height: u32,
    frames_only: bool,
    vui: Vui,
}

/// Video usability information (E.1.1).
#[derive(Debug, Clone, Copy)]
struct Vui {
    shape: Usability,
    frame_rate: Option<f64>,
    fixed_rate: bool,
    reorder: Option<u32>,
}

impl Sps {
    /// From a NAL unit with its header.
    fn read(nal: &[u8]) -> Option<Self> {
        let (header, payload) = nal.split_first()?;
        if header & 0x1f != SPS {
            return None;
        }
        let payload = unescaped(payload);
        let bits = &mut Bits::new(&payload);
        let (profile, constraints, level) = (bits.byte()?, bits.byte()?, bits.byte()?);
        bits.ue_up_to(31)?; // seq_parameter_set_id
        let (chroma, luma_depth, chroma_depth) = if has_chroma_format(profile) { chroma_format(bits)? } else { (Chroma::Quarter, 8, 8) };
        bits.ue_up_to(12)?; // log2_max_frame_num_minus4
        let order_type = skip_picture_order(bits)?;
        bits.ue()?; // max_num_ref_frames
        bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
        let across = bits.ue()?.checked_add(1)?;
        let map_units = bits.ue()?.checked_add(1)?;
        let frames_only = bits.flag()?;
        if !frames_only {
            bits.skip(1)?; // mb_adaptive_frame_field_flag
        }
        bits.skip(1)?; // direct_8x8_inference_flag
        let fields = if frames_only { 1 } else { 2 };
        let down = map_units.checked_mul(fields)?;
        let [left, right, top, bottom] = if bits.flag()? { [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?] } else { [0; 4] };
        let (unit_x, unit_y) = chroma.subsampling();
        let width = cropped(across.checked_mul(16)?, unit_x, left, right)?;
        let height = cropped(down.checked_mul(16)?, unit_y * fields, top, bottom)?;
        let mut vui = Vui { shape: Usability::UNTOLD, frame_rate: None, fixed_rate: false, reorder: None };
        if bits.flag() == Some(true) {
            let _ = vui.read(bits); // some encoders cut it short: what was read stays
        }
        Some(Self {
            profile,
            constraints,
            level,
            chroma,
            luma_depth,
            chroma_depth,
            order_type,
            macroblocks: u64::from(across) * u64::from(down),
            width,
            height,
            frames_only,
            vui,
        })
    }

    fn describe(&self, nal_length: u8) -> DescribedPicture {
        let colour = self.vui.shape.colour;
        DescribedPicture {
            codecs: codecs(self.profile, self.constraints, self.level),
            picture: Picture {
                width: self.width,
                height: self.height,
                pixel_aspect: self.vui.shape.pixel_aspect,
                rotation: 0,
                odd_matrix: false,
                frame_rate: self.vui.frame_rate,
                interlaced: !self.frames_only,
                bit_depth: Some(self.luma_depth),
                hdr: colour.is_some_and(Colour::is_hdr),
                reorder: Some(self.reorder()),
                ..Picture::default()
            },
            profile: self.profile,
            level: self.level,
            chroma: self.chroma,
            chroma_bit_depth: self.chroma_depth,
            colour,
            fixed_rate: self.vui.fixed_rate,
            nal_length,
        }
    }

    /// `max_num_reorder_frames`, or what E.2.1 infers where it is not told, sharpened where B pictures cannot be.
    fn reorder(&self) -> u8 {
        let intra_only = self.constraints & 0x10 != 0 && matches!(self.profile, 44 | 86 | 100 | 110 | 122 | 244);
        let baseline = self.profile == 66 || self.profile == 77 && self.constraints & 0x80 != 0;
        let told = self.vui.reorder.map(|frames| frames.min(16));
        let inferred = if intra_only || baseline || self.order_type == 2 { 0 } else { self.stored_frames() };
        u8::try_from(told.unwrap_or(inferred)).unwrap_or(16)
    }

    /// MaxDpbFrames (A.3.1 h).
    fn stored_frames(&self) -> u32 {
        let level_1b = self.level == 11 && self.constraints & 0x10 != 0 && matches!(self.profile, 66 | 77 | 88);
        let idc = if level_1b { 9 } else { self.level };
        let stored = LEVELS.iter().find(|level| level.idc >= idc).map_or(696_320, |level| level.stored);
        let frames = u64::from(stored) / self.macroblocks.max(1);
        u32::try_from(frames).unwrap_or(u32::MAX).min(16)
    }
}

impl Vui {
    fn read(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.shape.read(bits)?;
        if bits.flag()? {
            let (units, scale) = (bits.take(32)?, bits.take(32)?);
            self.fixed_rate = bits.flag()?;
            self.frame_rate = frame_rate(scale, u64::from(units) * 2); // the clock counts fields
        }
        let nal_hrd = bits.flag()?;
        if nal_hrd {
            skip_hrd(bits)?;
        }
        let vcl_hrd = bits.flag()?;
        if vcl_hrd {
            skip_hrd(bits)?;
        }
        if nal_hrd || vcl_hrd {
            bits.skip(1)?; // low_delay_hrd_flag
        }
        bits.skip(1)?; // pic_struct_present_flag
        if bits.flag()? {
            bits.skip(1)?; // motion_vectors_over_pic_boundaries_flag
            for _ in 0..4 {
                bits.ue()?; // max bytes and bits per picture, longest motion vectors
            }
            self.reorder = Some(bits.ue()?);
        }
        Some(())
    }
}

/// Profiles whose parameter set names a chroma format (7.3.2.1.1).
const fn has_chroma_format(profile: u8) -> bool {
    matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

/// Chroma format, depth of luma and of chroma, and over the scaling lists.
fn chroma_format(bits: &mut Bits<'_>) -> Option<(Chroma, u8, u8)> {
    let chroma = Chroma::from_idc(bits.ue()?)?;
    if chroma == Chroma::Full {
        bits.skip(1)?; // separate_colour_plane_flag
    }
    let luma_depth = 8 + u8::try_from(bits.ue_up_to(6)?).ok()?;
    let chroma_depth = 8 + u8::try_from(bits.ue_up_to(6)?).ok()?;
    bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
    if bits.flag()? {
        let lists = if chroma == Chroma::Full { 12 } else { 8 };
        for list in 0..lists {
            if bits.flag()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Some((chroma, luma_depth, chroma_depth))
}

/// `scaling_list` (7.3.2.1.1.1): it ends early once the next scale is 0.
fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Option<()> {
    let mut last = 8_i64;
    for _ in 0..size {
        let next = (last + bits.se()?).rem_euclid(256);
        if next == 0 {
            return Some(());
        }
        last = next;
    }
    Some(())
}

/// Over the fields of picture order; gives `pic_order_cnt_type`.
fn skip_picture_order(bits: &mut Bits<'_>) -> Option<u32> {
    let order_type = bits.ue_up_to(2)?;
    if order_type == 0 {
        bits.ue_up_to(12)?;
    }
    if order_type == 1 {
        bits.skip(1)?;
        bits.se()?;
        bits.se()?;
        for _ in 0..bits.ue_up_to(255)? {
            bits.se()?;
        }
    }
    Some(order_type)
}

/// `hrd_parameters` (E.1.2).
fn skip_hrd(bits: &mut Bits<'_>) -> Option<()> {
    let last = bits.ue_up_to(31)?;
    bits.skip(8)?;
    for _ in 0..=last {
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    bits.skip(20)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{CROPPED, HIGH, HIGH10, HIGH422, HIGH444, INTERLACED, SCALED, bytes};
    use super::*;

    /// A line to compare: name, size, shape, depth, chroma, reordering, rate, interlaced.
    fn line(hex: &str) -> String {
        let told = describe(&bytes(hex)).unwrap();
        let look = &told.picture;
        format!(
            "{} {}x{} {}:{} {} bit {:?} reorder {} {:.3} Hz{}",
            told.codecs,
            look.width,
            look.height,
            look.pixel_aspect.0,
            look.pixel_aspect.1,
            look.bit_depth.unwrap(),
            told.chroma,
            look.reorder.unwrap(),
            look.frame_rate.unwrap(),
            if look.interlaced { " interlaced" } else { "" },
        )
    }

    #[test]
    fn real_encoders() {
        let told = [HIGH, CROPPED, INTERLACED, HIGH10, HIGH422, HIGH444, SCALED].map(line).join("\n");
        insta::assert_snapshot!(told, @r"
        avc1.64001E 640x360 1:1 8 bit Quarter reorder 2 25.000 Hz
        avc1.42C01E 638x358 4:3 8 bit Quarter reorder 0 29.970 Hz
        avc1.64001E 720x576 16:11 8 bit Quarter reorder 2 25.000 Hz interlaced
        avc1.6E001E 640x360 1:1 10 bit Quarter reorder 2 24.000 Hz
        avc1.7A001E 640x360 1:1 10 bit Half reorder 2 24.000 Hz
        avc1.F4001E 640x360 1:1 8 bit Full reorder 2 24.000 Hz
        avc1.64001E 640x360 1:1 8 bit Quarter reorder 2 24.000 Hz
        ");
    }

    #[test]
    fn samples_tell_whether_one_can_begin_with_them() {
        let sample = |nals: &[&[u8]]| nals.iter().flat_map(|nal| [&[0, 0, 0, nal.len() as u8][..], nal].concat()).collect::<Vec<u8>>();
        for (nals, begins) in
            [(&[&[9_u8, 16][..], &[6, 1], &[0x65, 1]][..], true), (&[&[0x41, 5]], false), (&[&[0x01], &[]], false), (&[], false)]
        {
            assert_eq!(is_idr(&sample(nals), 4), begins, "{nals:?}");
        }
        // One byte of length; a length beyond the end.
        assert!(is_idr(&[1, 0x41, 1, 0x65], 1) && !is_idr(&[0, 0, 0, 9, 0x65], 4) && !is_idr(&[0, 0], 4));
    }

    #[test]
    fn parameter_sets_stand_in_front_of_pictures() {
        let sets = in_band(&bytes(HIGH)).unwrap();
        assert_eq!((nals(&sets, 4).map(|(kind, _)| kind).collect::<Vec<_>>(), sets.len()), (vec![7, 8], 4 + 26 + 4 + 6));
        assert_eq!(in_band(&bytes(HIGH)[..20]), None);
        let kinds = |sample: &'static [u8]| {
            let told = with_sets(Bytes::from_static(sample), 4, &sets);
            nals(&told, 4).map(|(kind, _)| kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&[0, 0, 0, 1, 0x65]), [7, 8, 5]);
        assert_eq!(kinds(&[0, 0, 0, 2, 9, 16, 0, 0, 0, 1, 0x65]), [9, 7, 8, 5], "the delimiter stays first");
        assert_eq!(kinds(&[0, 0, 0, 1, 0x67, 0, 0, 0, 1, 0x68, 0, 0, 0, 1, 0x65]), [7, 8, 5], "it brings its own");
        assert_eq!(kinds(&[]), [7, 8]);
    }

    #[test]
    fn two_encoders_in_one_configuration() {
        let first = bytes(HIGH);
        // The same with the number 1: `ue` of 0 is `1`, of 1 `010`; what follows in the sets is of no interest here.
        let mut second = first.clone();
        (second[12], second[38]) = (0b0101_0110, 0b0100_1011);
        second[3] = 31;
        let both = together(&first, &second).unwrap();
        assert_eq!((both[3], both[5] & 0x1f), (31, 2));
        assert_eq!(describe(&both).unwrap().codecs, describe(&first).unwrap().codecs, "the first one is described");
        assert_eq!(nals(&in_band(&both).unwrap(), 4).map(|(kind, _)| kind).collect::<Vec<_>>(), [7, 7, 8, 8]);
        assert!(both.ends_with(&[0xfd, 0xf8, 0xf8, 0]), "what High profiles have behind it");
        assert_eq!(together(&first, &first), None, "the numbers are the same");
        assert_eq!(together(&first, &bytes(CROPPED)), None, "another profile");
        assert_eq!(together(&first, &second[..30]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(a in proptest::collection::vec(any::<u8>(), 0..80), b in proptest::collection::vec(any::<u8>(), 0..80), len in 0u8..6) {
            let _ = (together(&a, &b), in_band(&a), is_idr(&a, len), with_sets(Bytes::from(a.clone()), len, &b));
            // What was read is written back.
            if let Some(config) = Config::read(&a) {
                prop_assert!(config.write().is_none_or(|written| written.len() == a.len()));
            }
        }
    }

    #[test]
    fn the_lowest_level_that_fits() {
        let table = [
            (640, 360, 25.0, 30),
            (1280, 720, 30.0, 31),
            (1280, 720, 29.97, 31),
            (1280, 720, 60.0, 32),
            (1920, 1080, 30.0, 40),
            (1920, 1080, 60.0, 42),
            (1920, 800, 24.0, 40),
            (3840, 2160, 30.0, 51),
            (3840, 2160, 60.0, 52),
            (4096, 64, 24.0, 40),
            (4112, 64, 24.0, 42),
            (65_535, 65_535, 480.0, 62),
            (0, 0, 0.0, 30),
        ];
        for (width, height, fps, level) in table {
            assert_eq!(level_for(width, height, fps), level, "{width}x{height} at {fps}");
        }
        assert_eq!(codecs_high(31), "avc1.64001F");
    }

    /// A parameter set without usability information, written by hand: Main 4.0, 1920×1088 in macroblocks, no cropping.
    fn without_usability(profile: u8, constraints: u8) -> Vec<u8> {
        // ue: sps id 0, frame num 0, order type 0, order lsb 0, reference frames 4, gaps 0, 120 wide, 68 high, frames only, 8x8, no crop, no VUI
        let mut text = String::from("1111001010");
        for value in [119_u32, 67] {
            let code = format!("{:b}", value + 1);
            text.push_str(&"0".repeat(code.len() - 1));
            text.push_str(&code);
        }
        text.push_str("11001");
        let mut sps = vec![0x67, profile, constraints, 40];
        for eight in text.as_bytes().chunks(8) {
            let padded = format!("{:0<8}", std::str::from_utf8(eight).unwrap());
            sps.push(u8::from_str_radix(&padded, 2).unwrap());
        }
        let mut avcc = vec![1, profile, constraints, 40, 0xff, 0xe1, 0, u8::try_from(sps.len()).unwrap()];
        avcc.extend(sps);
        avcc.push(0);
        avcc
    }

    #[test]
    fn reordering_is_inferred_from_the_level() {
        let reorder = |profile, constraints| describe(&without_usability(profile, constraints)).unwrap().picture.reorder;
        assert_eq!(reorder(77, 0), Some(4)); // 32,768 / (120 × 68)
        assert_eq!(reorder(66, 0), Some(0));
        assert_eq!(reorder(77, 0x80), Some(0));
        let told = describe(&without_usability(77, 0)).unwrap();
        assert_eq!((told.picture.width, told.picture.height, told.picture.frame_rate), (1920, 1088, None));
    }

    #[test]
    fn without_a_parameter_set_nothing_is_told() {
        assert_eq!(describe(&[1, 100, 0, 30, 0xff, 0xe0, 0]), None);
        assert_eq!(describe(&[]), None);
        let mut three_byte_lengths = bytes(HIGH);
        three_byte_lengths[4] = 0xfe;
        assert_eq!(describe(&three_byte_lengths), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = describe(&bytes);
            let _ = Sps::read(&[&[0x67, 100, 0, 40], &bytes[..]].concat());
            let _ = Sps::read(&[&[0x67, 66, 0, 40, 0xff], &bytes[..]].concat());
        }

        #[test]
        fn damaged_configurations(which in 0..7_usize, at in 0..40_usize, with: u8, cut in 0..60_usize) {
            let mut avcc = bytes([HIGH, CROPPED, INTERLACED, HIGH10, HIGH422, HIGH444, SCALED][which]);
            let at = at % avcc.len();
            avcc[at] ^= with;
            avcc.truncate(avcc.len().saturating_sub(cut % 30));
            if let Some(told) = describe(&avcc) {
                prop_assert!(told.picture.width > 0 && told.picture.height > 0);
                prop_assert!(told.picture.reorder.is_some_and(|frames| frames <= 16));
            }
        }
    }
}
