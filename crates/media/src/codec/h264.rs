//! H.264 (ISO 14496-10): the body of `avcC` (ISO 14496-15, 5.3.3.1) and the sequence parameter set inside it.

use super::bits::{Bits, Bytewise, unescaped};
use super::{Chroma, Colour, DescribedPicture, Usability, cropped, frame_rate};
use crate::container::Picture;

/// NAL unit type of a sequence parameter set.
const SPS: u8 = 7;

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
