//! HEVC (ISO 23008-2): the body of `hvcC` (ISO 14496-15, 8.3.3.1) and the sequence parameter set inside it.

use bytes::{Bytes, BytesMut};

use super::bits::{Bits, Bytewise, unescaped};
use super::h264::nal_length;
use super::{Chroma, Colour, DescribedPicture, Usability, cropped, frame_rate};
use crate::container::Picture;

/// NAL unit types of the parameter sets (table 7-1).
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;

/// What the body of an `hvcC` box tells. `None` where it is damaged or holds no readable sequence parameter set.
pub fn describe(hvcc: &[u8]) -> Option<DescribedPicture> {
    let config = Config::read(hvcc)?;
    let sps = config.units.iter().filter(|unit| unit.kind == SPS).find_map(|unit| Sps::read(hvcc.get(unit.from..unit.to)?))?;
    Some(sps.describe(config.codecs(), config.level, config.nal_length))
}

/// Whether at least one kind of parameter set is missing, so that the samples must bring it: the sample entry is then `hev1`.
pub fn has_in_band_parameters_only(hvcc: &[u8]) -> bool {
    Config::read(hvcc).is_none_or(|config| config.lacks_parameters())
}

/// The same configuration with `array_completeness` set for all parameter sets, as the sample entry `hvc1` demands (8.4.1.1.1).
/// Bytes that are no `hvcC` come back as they are.
pub fn complete(hvcc: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(hvcc);
    for array in Config::read(hvcc).map(|config| config.arrays).unwrap_or_default() {
        if let Some(head) = bytes.get_mut(array).filter(|head| matches!(**head & 0x3f, VPS | SPS | PPS)) {
            *head |= 0x80;
        }
    }
    bytes.freeze()
}

/// A parameter set's place in the configuration.
struct Unit {
    kind: u8,
    from: usize,
    to: usize,
}

/// HEVCDecoderConfigurationRecord.
struct Config {
    /// `general_profile_space`, tier and `general_profile_idc`, in one byte.
    profile: u8,
    compatibility: u32,
    constraints: [u8; 6],
    level: u8,
    nal_length: u8,
    /// Where each array's first byte is.
    arrays: Vec<usize>,
    units: Vec<Unit>,
}

impl Config {
    fn read(hvcc: &[u8]) -> Option<Self> {
        let mut body = Bytewise(hvcc);
        let version = body.u8()?;
        let profile = body.u8()?;
        let compatibility = u32::from_be_bytes(body.take(4)?.try_into().ok()?);
        let constraints = body.take(6)?.try_into().ok()?;
        let level = body.u8()?;
        body.take(8)?; // segmentation, parallelism, chroma format, depths, average frame rate: the parameter set knows better
        let nal_length = nal_length(body.u8()?)?;
        if version > 1 {
            return None; // 0 was written by encoders before the standard was final
        }
        let mut config = Self { profile, compatibility, constraints, level, nal_length, arrays: Vec::new(), units: Vec::new() };
        for _ in 0..body.u8()? {
            config.arrays.push(hvcc.len() - body.0.len());
            let kind = body.u8()? & 0x3f;
            for _ in 0..body.u16()? {
                let len = body.nal()?.len();
                let to = hvcc.len() - body.0.len();
                config.units.push(Unit { kind, from: to - len, to });
            }
        }
        Some(config)
    }

    fn lacks_parameters(&self) -> bool {
        [VPS, SPS, PPS].iter().any(|kind| self.units.iter().all(|unit| unit.kind != *kind))
    }

    /// Name for `CODECS` (ISO 14496-15, Annex E.3), of the sample entry that the writer makes of this configuration.
    fn codecs(&self) -> String {
        let space = ["", "A", "B", "C"][usize::from(self.profile >> 6)];
        let tier = if self.profile & 0x20 == 0 { 'L' } else { 'H' };
        let told = self.constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let constraints: String = self.constraints.iter().take(told).map(|byte| format!(".{byte:X}")).collect();
        let compatibility = self.compatibility.reverse_bits();
        let entry = if self.lacks_parameters() { "hev1" } else { "hvc1" };
        format!("{entry}.{space}{}.{compatibility:X}.{tier}{}{constraints}", self.profile & 0x1f, self.level)
    }
}

/// The parts of a sequence parameter set (7.3.2.2) that matter outside a decoder.
#[derive(Debug, Clone, Copy)]
struct Sps {
    profile: u8,
    interlaced: bool,
    chroma: Chroma,
    luma_depth: u8,
    chroma_depth: u8,
    width: u32,
    height: u32,
    reorder: u8,
    shape: Usability,
    frame_rate: Option<f64>,
}

impl Sps {
    /// From a NAL unit with its header of two bytes.
    fn read(nal: &[u8]) -> Option<Self> {
        let (header, payload) = nal.split_at_checked(2)?;
        if header.first()? >> 1 & 0x3f != SPS {
            return None;
        }
        let payload = unescaped(payload);
        let bits = &mut Bits::new(&payload);
        bits.skip(4)?; // sps_video_parameter_set_id
        let sub_layers = bits.take(3)?;
        bits.skip(1)?; // sps_temporal_id_nesting_flag
        let tier = ProfileTier::read(bits, sub_layers)?;
        bits.ue_up_to(15)?; // sps_seq_parameter_set_id
        let chroma = Chroma::from_idc(bits.ue()?)?;
        if chroma == Chroma::Full {
            bits.skip(1)?; // separate_colour_plane_flag
        }
        let (coded_width, coded_height) = (bits.ue()?, bits.ue()?);
        let [left, right, top, bottom] = window(bits)?;
        let (unit_x, unit_y) = chroma.subsampling();
        let width = cropped(coded_width, unit_x, left, right)?;
        let height = cropped(coded_height, unit_y, top, bottom)?;
        let luma_depth = 8 + u8::try_from(bits.ue_up_to(8)?).ok()?;
        let chroma_depth = 8 + u8::try_from(bits.ue_up_to(8)?).ok()?;
        let order_bits = bits.ue_up_to(12)? + 4;
        let reorder = highest_reorder(bits, sub_layers)?;
        let interlaced = tier.interlaced;
        let mut sps = Self {
            profile: tier.profile,
            interlaced,
            chroma,
            luma_depth,
            chroma_depth,
            width,
            height,
            reorder,
            shape: Usability::UNTOLD,
            frame_rate: None,
        };
        let _ = sps.read_rest(bits, order_bits); // nothing in it is worth losing the track for
        Some(sps)
    }

    /// Over the coding tools to the usability information, and that.
    fn read_rest(&mut self, bits: &mut Bits<'_>, order_bits: u32) -> Option<()> {
        for _ in 0..6 {
            bits.ue()?; // block and transform sizes
        }
        if bits.flag()? && bits.flag()? {
            skip_scaling_lists(bits)?;
        }
        bits.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
        if bits.flag()? {
            bits.skip(8)?;
            bits.ue()?;
            bits.ue()?;
            bits.skip(1)?;
        }
        skip_short_term_sets(bits)?;
        if bits.flag()? {
            for _ in 0..bits.ue_up_to(32)? {
                bits.take(order_bits)?;
                bits.skip(1)?;
            }
        }
        bits.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
        if bits.flag()? { self.read_usability(bits) } else { Some(()) }
    }

    /// `vui_parameters` (E.2.1) as far as the clock.
    fn read_usability(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.shape.read(bits)?;
        bits.skip(1)?; // neutral_chroma_indication_flag
        let fields = bits.flag()?;
        self.interlaced |= fields;
        bits.skip(1)?; // frame_field_info_present_flag
        window(bits)?; // default display window
        if bits.flag()? {
            let (units, scale) = (bits.take(32)?, bits.take(32)?);
            self.frame_rate = frame_rate(scale, u64::from(units) * if fields { 2 } else { 1 });
        }
        Some(())
    }

    fn describe(&self, codecs: String, level: u8, nal_length: u8) -> DescribedPicture {
        let colour = self.shape.colour;
        DescribedPicture {
            codecs,
            picture: Picture {
                width: self.width,
                height: self.height,
                pixel_aspect: self.shape.pixel_aspect,
                rotation: 0,
                odd_matrix: false,
                frame_rate: self.frame_rate,
                interlaced: self.interlaced,
                bit_depth: Some(self.luma_depth),
                hdr: colour.is_some_and(Colour::is_hdr),
                reorder: Some(self.reorder),
                ..Picture::default()
            },
            profile: self.profile,
            level,
            chroma: self.chroma,
            chroma_bit_depth: self.chroma_depth,
            colour,
            fixed_rate: false, // only the hypothetical decoder's parameters promise that
            nal_length,
        }
    }
}

/// The general part of `profile_tier_level` (7.3.3).
struct ProfileTier {
    profile: u8,
    interlaced: bool,
}

impl ProfileTier {
    fn read(bits: &mut Bits<'_>, sub_layers: u32) -> Option<Self> {
        bits.skip(3)?;
        let profile = u8::try_from(bits.take(5)?).ok()?;
        bits.skip(32)?;
        let (progressive, interlaced) = (bits.flag()?, bits.flag()?);
        bits.skip(46 + 8)?; // the other constraint flags, general_level_idc
        let mut present = Vec::with_capacity(8);
        for _ in 0..sub_layers {
            present.push((bits.flag()?, bits.flag()?));
        }
        if sub_layers > 0 {
            bits.skip(2 * (8 - usize::try_from(sub_layers).ok()?))?;
        }
        for (with_profile, with_level) in present {
            bits.skip(if with_profile { 88 } else { 0 } + if with_level { 8 } else { 0 })?;
        }
        Some(Self { profile, interlaced: interlaced && !progressive })
    }
}

/// A cropping window behind its flag: left, right, top, bottom.
fn window(bits: &mut Bits<'_>) -> Option<[u32; 4]> {
    if bits.flag()? { Some([bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?]) } else { Some([0; 4]) }
}

/// `sps_max_num_reorder_pics` of the highest sub-layer.
fn highest_reorder(bits: &mut Bits<'_>, sub_layers: u32) -> Option<u8> {
    let each = bits.flag()?;
    let mut reorder = 0;
    for _ in if each { 0 } else { sub_layers }..=sub_layers {
        bits.ue()?;
        reorder = bits.ue_up_to(16)?;
        bits.ue()?;
    }
    u8::try_from(reorder).ok()
}

/// `scaling_list_data` (7.3.4).
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Option<()> {
    for size in 0..4_u32 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !bits.flag()? {
                bits.ue()?;
                continue;
            }
            if size > 1 {
                bits.se()?;
            }
            for _ in 0..64.min(1_u32 << (4 + 2 * size)) {
                bits.se()?;
            }
        }
    }
    Some(())
}

/// All `st_ref_pic_set` (7.3.7) of the parameter set. Only their sizes matter: one set can be written relative to the one before.
fn skip_short_term_sets(bits: &mut Bits<'_>) -> Option<()> {
    let mut pictures = 0_u32; // of the set before
    for set in 0..bits.ue_up_to(64)? {
        let relative = set > 0 && bits.flag()?;
        if relative {
            bits.skip(1)?;
            bits.ue()?;
            let mut kept = 0;
            for _ in 0..=pictures {
                if bits.flag()? || bits.flag()? {
                    kept += 1;
                }
            }
            pictures = kept;
        } else {
            pictures = bits.ue_up_to(16)? + bits.ue_up_to(16)?;
            for _ in 0..pictures {
                bits.ue()?;
                bits.skip(1)?;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{HEVC, HEVC_HDR, HEVC_INTRA, bytes};
    use super::*;

    /// A line to compare: name, size, depth, chroma, reordering, rate, HDR.
    fn line(hex: &str) -> String {
        let told = describe(&bytes(hex)).unwrap();
        let look = &told.picture;
        format!(
            "{} {}x{} {} bit {:?} reorder {} {:.3} Hz{} {:?}",
            told.codecs,
            look.width,
            look.height,
            look.bit_depth.unwrap(),
            told.chroma,
            look.reorder.unwrap(),
            look.frame_rate.unwrap(),
            if look.hdr { " HDR" } else { "" },
            told.colour.map(|colour| (colour.primaries, colour.transfer, colour.matrix, colour.full_range)),
        )
    }

    #[test]
    fn real_encoders() {
        insta::assert_snapshot!([HEVC, HEVC_HDR, HEVC_INTRA].map(line).join("\n"), @r"
        hvc1.1.6.L63.90 640x360 8 bit Quarter reorder 2 24.000 Hz Some((2, 2, 2, false))
        hvc1.2.4.L63.90 638x358 10 bit Quarter reorder 2 23.976 Hz HDR Some((9, 16, 9, false))
        hvc1.4.10.L63.9D.28 640x360 10 bit Half reorder 0 24.000 Hz Some((2, 2, 2, false))
        ");
    }

    #[test]
    fn names_of_annex_e() {
        let config = |profile, compatibility, constraints, level| {
            let units = [VPS, SPS, PPS].map(|kind| Unit { kind, from: 0, to: 0 }).into();
            Config { profile, compatibility, constraints, level, nal_length: 4, arrays: Vec::new(), units }.codecs()
        };
        assert_eq!(config(0x01, 0x6000_0000, [0xb0, 0, 0, 0, 0, 0], 93), "hvc1.1.6.L93.B0");
        assert_eq!(config(0x41 | 0x20, 0x6000_0000, [0, 0, 0x0c, 0, 0, 0], 150), "hvc1.A1.6.H150.0.0.C");
        assert_eq!(config(0x02, 0x2000_0000, [0; 6], 120), "hvc1.2.4.L120");
    }

    #[test]
    fn complete_marks_parameter_sets_only() {
        let hvcc = bytes(HEVC_INTRA);
        let completed = complete(&hvcc);
        let changed: Vec<_> = hvcc.iter().zip(&completed).filter(|(before, after)| before != after).collect();
        assert_eq!(changed, [(&0x20, &0xa0), (&0x21, &0xa1), (&0x22, &0xa2)]);
        assert_eq!(describe(&hvcc), describe(&completed));
        assert_eq!(complete(b"rubbish"), &b"rubbish"[..]);
    }

    #[test]
    fn parameters_in_band() {
        assert!(!has_in_band_parameters_only(&bytes(HEVC)));
        let mut none = bytes(HEVC);
        none.truncate(23);
        none[22] = 0;
        assert!(has_in_band_parameters_only(&none));
        assert_eq!(describe(&none), None);
        let mut no_picture_parameters = bytes(HEVC);
        no_picture_parameters[22] = 2;
        assert_eq!(describe(&no_picture_parameters).unwrap().codecs, "hev1.1.6.L63.90");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = describe(&bytes);
            let _ = complete(&bytes);
            let _ = Sps::read(&[&[0x42, 1], &bytes[..]].concat());
        }

        #[test]
        fn damaged_configurations(which in 0..3_usize, at in 0..120_usize, with: u8, cut in 0..60_usize) {
            let mut hvcc = bytes([HEVC, HEVC_HDR, HEVC_INTRA][which]);
            let at = at % hvcc.len();
            hvcc[at] ^= with;
            hvcc.truncate(hvcc.len().saturating_sub(cut));
            prop_assert_eq!(complete(&hvcc).len(), hvcc.len());
            if let Some(told) = describe(&hvcc) {
                prop_assert!(told.picture.width > 0 && told.picture.height > 0);
            }
        }
    }
}
