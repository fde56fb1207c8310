//! AV1: the body of `av1C` (AV1 in ISOBMFF, 2.3.3), which Matroska keeps as well, and the sequence header inside it (AV1 specification,
//! 5.5).

use super::bits::Bits;
use super::{Chroma, Colour, DescribedPicture, frame_rate};
use crate::container::Picture;

/// `obu_type` of a sequence header.
const SEQUENCE_HEADER: u32 = 1;
/// Open bitstream units of a configuration that are looked at.
const MOST_UNITS: usize = 8;

/// What the body of `av1C` tells. Size and colour are those of the sequence header, where the configuration holds one. `None` where it is
/// damaged.
pub fn describe(av1c: &[u8]) -> Option<DescribedPicture> {
    let (head, units) = av1c.split_first_chunk::<4>()?;
    let [version, first, second, _] = *head;
    if version != 0x81 {
        return None;
    }
    let (profile, level) = (first >> 5, first & 0x1f);
    let flag = |bit: u8| second >> bit & 1 == 1;
    let (high, twelve, mono, across, down) = (flag(6), flag(5), flag(4), flag(3), flag(2));
    let depth = match (high, twelve) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    let chroma = match (mono, across, down) {
        (true, ..) => Chroma::Monochrome,
        (_, true, true) => Chroma::Quarter,
        (_, true, false) => Chroma::Half,
        _ => Chroma::Full,
    };
    let sequence = sequence(units);
    let colour = sequence.as_ref().and_then(|sequence| sequence.colour);
    let tier = if flag(7) { 'H' } else { 'M' };
    let mut codecs = format!("av01.{profile}.{level:02}{tier}.{depth:02}");
    if let Some(Colour { primaries, transfer, matrix, full_range }) = colour {
        let sampling = format!("{}{}{}", u8::from(across), u8::from(down), if across && down { second & 3 } else { 0 });
        codecs += &format!(".{}.{sampling}.{primaries:02}.{transfer:02}.{matrix:02}.{}", u8::from(mono), u8::from(full_range));
    }
    let (width, height) = sequence.as_ref().map_or((0, 0), |sequence| (sequence.width, sequence.height));
    Some(DescribedPicture {
        codecs,
        picture: Picture {
            width,
            height,
            pixel_aspect: (1, 1),
            frame_rate: sequence.as_ref().and_then(|sequence| sequence.frame_rate),
            bit_depth: Some(depth),
            hdr: colour.is_some_and(Colour::is_hdr),
            reorder: Some(0), // one shown picture in each sample, in the order in which they are shown
            ..Picture::default()
        },
        profile,
        level,
        chroma,
        chroma_bit_depth: depth,
        colour,
        fixed_rate: false,
        nal_length: 0,
    })
}

/// The parts of a sequence header that matter outside a decoder.
#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    width: u32,
    height: u32,
    frame_rate: Option<f64>,
    colour: Option<Colour>,
}

/// The first sequence header among open bitstream units (5.3).
fn sequence(mut units: &[u8]) -> Option<Sequence> {
    for _ in 0..MOST_UNITS {
        let bits = &mut Bits::new(units);
        bits.skip(1)?;
        let kind = bits.take(4)?;
        let (extended, sized) = (bits.flag()?, bits.flag()?);
        bits.skip(if extended { 9 } else { 1 })?;
        let left = bits.left() / 8;
        let len = if sized { size(bits)? } else { left };
        let begin = units.len() - bits.left() / 8;
        let body = units.get(begin..begin.checked_add(len)?)?;
        if kind == SEQUENCE_HEADER {
            let mut sequence = Sequence::default();
            // A header that is cut off tells what stands before the cut.
            let _ = sequence.read(&mut Bits::new(body));
            return (sequence.width > 0).then_some(sequence);
        }
        units = units.get(begin + len..)?;
    }
    None
}

/// `leb128` (4.10.5).
fn size(bits: &mut Bits<'_>) -> Option<usize> {
    let mut value = 0_usize;
    for place in 0..8 {
        let byte = bits.byte()?;
        value |= usize::from(byte & 0x7f).checked_shl(7 * place)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl Sequence {
    fn read(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let profile = bits.take(3)?;
        bits.skip(1)?; // still_picture
        let reduced = bits.flag()?;
        if reduced {
            bits.skip(5)?;
        } else {
            self.read_operation(bits)?;
        }
        let (across, down) = (bits.take(4)? + 1, bits.take(4)? + 1);
        let (width, height) = (bits.take(across)?.checked_add(1)?, bits.take(down)?.checked_add(1)?);
        if !reduced && bits.flag()? {
            bits.skip(7)?; // lengths of frame numbers
        }
        bits.skip(3)?;
        (self.width, self.height) = (width, height);
        if !reduced {
            skip_tools(bits)?;
        }
        bits.skip(3)?; // super resolution, directional enhancement, restoration
        self.read_colour(bits, profile)
    }

    /// Timing and operating points.
    fn read_operation(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let mut delay_bits = None;
        if bits.flag()? {
            let (units, scale) = (bits.take(32)?, bits.take(32)?);
            if bits.flag()? {
                let pictures = u64::from(bits.ue()?) + 1;
                self.frame_rate = frame_rate(scale, u64::from(units).checked_mul(pictures)?);
            }
            if bits.flag()? {
                delay_bits = Some(usize::try_from(bits.take(5)?).ok()? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let display_delays = bits.flag()?;
        for _ in 0..=bits.take(5)? {
            bits.skip(12)?;
            if bits.take(5)? > 7 {
                bits.skip(1)?; // seq_tier
            }
            if let Some(delay) = delay_bits {
                bits.optional(2 * delay + 1)?;
            }
            if display_delays {
                bits.optional(4)?;
            }
        }
        Some(())
    }

    /// `color_config` (5.5.2).
    fn read_colour(&mut self, bits: &mut Bits<'_>, profile: u32) -> Option<()> {
        let high = bits.flag()?;
        if profile == 2 && high {
            bits.skip(1)?; // twelve_bit
        }
        let mono = profile != 1 && bits.flag()?;
        if !bits.flag()? {
            return Some(());
        }
        let (primaries, transfer, matrix) = (bits.byte()?, bits.byte()?, bits.byte()?);
        let rgb = !mono && (primaries, transfer, matrix) == (1, 13, 0);
        let full_range = rgb || bits.flag()?;
        let told = (primaries, transfer, matrix) != (2, 2, 2);
        self.colour = told.then_some(Colour { primaries, transfer, matrix, full_range });
        Some(())
    }
}

/// From `enable_interintra_compound` to the bits of order hints.
fn skip_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(4)?;
    let hints = bits.flag()?;
    bits.skip(if hints { 2 } else { 0 })?;
    let screen_content = bits.flag()? || bits.flag()?;
    if screen_content && !bits.flag()? {
        bits.skip(1)?; // seq_force_integer_mv
    }
    bits.skip(if hints { 3 } else { 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{AV1, AV1_HDR, bytes};
    use super::*;

    fn line(hex: &str) -> String {
        let told = describe(&bytes(hex)).unwrap();
        let look = &told.picture;
        format!(
            "{} {}x{} {} bit {:?}{}",
            told.codecs,
            look.width,
            look.height,
            look.bit_depth.unwrap(),
            told.chroma,
            if look.hdr { " HDR" } else { "" }
        )
    }

    #[test]
    fn real_encoders() {
        insta::assert_snapshot!([AV1, AV1_HDR].map(line).join("\n"), @r"
        av01.0.01M.08 640x360 8 bit Quarter
        av01.0.01M.10.0.110.09.16.09.0 638x358 10 bit Quarter HDR
        ");
    }

    #[test]
    fn without_a_sequence_header() {
        let told = describe(&bytes(AV1)[..4]).unwrap();
        assert_eq!((told.picture.width, told.colour), (0, None));
        assert_eq!(describe(&[0x80, 0, 0, 0]), None);
        assert_eq!(describe(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = describe(&[&[0x81][..], &bytes].concat());
            let _ = sequence(&bytes);
        }

        #[test]
        fn damaged_configurations(at in 0..40_usize, with: u8, cut in 0..20_usize) {
            let mut av1c = bytes(AV1_HDR);
            let at = at % av1c.len();
            av1c[at] ^= with;
            av1c.truncate(av1c.len().saturating_sub(cut));
            if let Some(told) = describe(&av1c) {
                prop_assert!(told.codecs.starts_with("av01.") && told.codecs.len() < 40);
            }
        }
    }
}
