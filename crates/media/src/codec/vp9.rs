//! VP9: the uncompressed header of a key frame (VP9 bitstream specification, 6.2), and the body of `vpcC` (VP codecs in ISOBMFF, section
//! "VP Codec Configuration Box") that MP4 keeps in its place. Matroska keeps nothing that tells as much.

use bytes::Bytes;

use super::bits::Bits;
use super::{Chroma, Colour, DescribedPicture};
use crate::container::Picture;

/// Version 1 and no flags: drafts before it had another layout.
const VERSION: [u8; 4] = [1, 0, 0, 0];
/// Levels (VP9 levels, Annex A): ten times the level, luma samples per second, luma samples of a picture, longest side.
const LEVELS: [(u8, u64, u64, u64); 14] = [
    (10, 829_440, 36_864, 512),
    (11, 2_764_800, 73_728, 768),
    (20, 4_608_000, 122_880, 960),
    (21, 9_216_000, 245_760, 1_344),
    (30, 20_736_000, 552_960, 2_048),
    (31, 36_864_000, 983_040, 2_752),
    (40, 83_558_400, 2_228_224, 4_160),
    (41, 160_432_128, 2_228_224, 4_160),
    (50, 311_951_360, 8_912_896, 8_384),
    (51, 588_251_136, 8_912_896, 8_384),
    (52, 1_176_502_272, 8_912_896, 8_384),
    (60, 1_176_502_272, 35_651_584, 16_832),
    (61, 2_353_004_544, 35_651_584, 16_832),
    (62, 4_706_009_088, 35_651_584, 16_832),
];

/// What the body of `vpcC` tells; it knows no size. `None` where it is damaged or of a draft.
pub fn describe(vpcc: &[u8]) -> Option<DescribedPicture> {
    let [profile, level, packed, primaries, transfer, matrix, ..] = *vpcc.strip_prefix(&VERSION)? else { return None };
    let (depth, subsampling, full_range) = (packed >> 4, packed >> 1 & 7, packed & 1 == 1);
    let chroma = match subsampling {
        0 | 1 => Chroma::Quarter,
        2 => Chroma::Half,
        3 => Chroma::Full,
        _ => return None,
    };
    if profile > 3 || !matches!(depth, 8 | 10 | 12) {
        return None;
    }
    let known = (primaries, transfer, matrix) != (2, 2, 2);
    let colour = known.then_some(Colour { primaries, transfer, matrix, full_range });
    let mut codecs = format!("vp09.{profile:02}.{level:02}.{depth:02}");
    if let Some(colour) = colour {
        codecs += &format!(".{subsampling:02}.{primaries:02}.{transfer:02}.{matrix:02}.{:02}", u8::from(colour.full_range));
    }
    Some(DescribedPicture {
        codecs,
        picture: Picture { bit_depth: Some(depth), hdr: colour.is_some_and(Colour::is_hdr), reorder: Some(0), ..Picture::default() },
        profile,
        level,
        chroma,
        chroma_bit_depth: depth,
        colour,
        fixed_rate: false,
        nal_length: 0,
    })
}

/// The body of `vpcC` of a track whose first frame this is. `rate` are its pictures per second; `told` is the colour that the container
/// knows, which is better than what the frame can say. `None` where it is no key frame of VP9.
pub fn vpcc(frame: &[u8], rate: f64, told: Option<Colour>) -> Option<Bytes> {
    let key = KeyFrame::read(frame)?;
    let colour = told.unwrap_or(key.colour);
    let subsampling = match key.chroma {
        Chroma::Half => 2,
        Chroma::Full => 3,
        _ => 1, // 4:2:0 with chroma where luma is: nothing tells which of both it is
    };
    let packed = key.depth << 4 | subsampling << 1 | u8::from(colour.full_range);
    let [primaries, transfer, matrix] = [colour.primaries, colour.transfer, colour.matrix];
    let body = [key.profile, level(key.width, key.height, rate), packed, primaries, transfer, matrix, 0, 0];
    Some([&VERSION[..], &body].concat().into())
}

/// The lowest level that admits such a picture; the highest where none does.
fn level(width: u32, height: u32, rate: f64) -> u8 {
    let luma = u64::from(width) * u64::from(height);
    let longest = u64::from(width.max(height));
    #[allow(clippy::cast_precision_loss)] // sizes are below 2^32
    let per_second = luma as f64 * rate.clamp(1.0, 480.0);
    #[allow(clippy::cast_precision_loss)]
    let admits = |level: &&(u8, u64, u64, u64)| per_second <= level.1 as f64 * 1.0001 && luma <= level.2 && longest <= level.3;
    LEVELS.iter().find(admits).map_or(62, |level| level.0)
}

struct KeyFrame {
    profile: u8,
    depth: u8,
    chroma: Chroma,
    colour: Colour,
    width: u32,
    height: u32,
}

impl KeyFrame {
    fn read(frame: &[u8]) -> Option<Self> {
        let bits = &mut Bits::new(frame);
        if bits.take(2)? != 2 {
            return None; // frame_marker
        }
        let profile = u8::from(bits.flag()?) | u8::from(bits.flag()?) << 1;
        if profile == 3 && bits.flag()? {
            return None;
        }
        let (shown_again, other) = (bits.flag()?, bits.flag()?);
        bits.skip(2)?; // show_frame, error_resilient_mode
        if shown_again || other || bits.take(24)? != 0x49_8342 {
            return None;
        }
        let depth = match (profile, profile >= 2 && bits.flag()?) {
            (0 | 1, _) => 8,
            (_, false) => 10,
            (_, true) => 12,
        };
        let (colour, chroma) = colour(bits, profile)?;
        let (width, height) = (bits.take(16)? + 1, bits.take(16)? + 1);
        Some(Self { profile, depth, chroma, colour, width, height })
    }
}

/// `color_config` (6.2.2) behind the depth, in the code points of ITU-T H.273.
fn colour(bits: &mut Bits<'_>, profile: u8) -> Option<(Colour, Chroma)> {
    const RGB: u32 = 7;
    let space = bits.take(3)?;
    let (primaries, transfer, matrix) = match space {
        1 | 3 => (6, 6, 6), // BT.601 and SMPTE 170
        2 => (1, 1, 1),     // BT.709
        4 => (7, 7, 7),     // SMPTE 240
        5 => (9, 2, 9),     // BT.2020, of which the transfer is open
        RGB => (1, 13, 0),
        _ => (2, 2, 2),
    };
    let full_range = space == RGB || bits.flag()?;
    let chroma = match (profile & 1 == 1, space) {
        (true, RGB) => Chroma::Full,
        (true, _) => match (bits.flag()?, bits.flag()?) {
            (true, true) => return None,
            (true, false) => Chroma::Half,
            (false, false) => Chroma::Full,
            (false, true) => return None, // 4:4:0 has no number in `vpcC`
        },
        (false, _) => Chroma::Quarter,
    };
    if profile & 1 == 1 {
        bits.skip(1)?;
    }
    Some((Colour { primaries, transfer, matrix, full_range }, chroma))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::bytes;
    use super::*;

    #[test]
    fn a_key_frame() {
        // marker, profile 0, key, shown, sync code, BT.709, 640 × 360
        let frame = bytes("82498342402 7f0167c".replace(' ', "").as_str());
        let body = vpcc(&frame, 24.0, None).unwrap();
        assert_eq!(body[..], [1, 0, 0, 0, 0, 21, 0x82, 1, 1, 1, 0, 0]);
        let told = describe(&body).unwrap();
        assert_eq!((told.codecs.as_str(), told.picture.bit_depth, told.picture.hdr), ("vp09.00.21.08.01.01.01.01.00", Some(8), false));
        let pq = Colour { primaries: 9, transfer: 16, matrix: 9, full_range: false };
        let told = describe(&vpcc(&frame, 24.0, Some(pq)).unwrap()).unwrap();
        assert!(told.picture.hdr && told.codecs.ends_with(".01.09.16.09.00"));
        let mut other = frame;
        other[0] |= 4; // not a key frame
        assert_eq!(vpcc(&other, 24.0, None), None);
    }

    #[test]
    fn levels() {
        for (width, height, rate, expected) in [
            (256, 144, 15.0, 10),
            (1280, 720, 30.0, 31),
            (1920, 1080, 30.0, 40),
            (1920, 1080, 60.0, 41),
            (3840, 2160, 60.0, 51),
            (40_000, 2, 1.0, 62),
        ] {
            assert_eq!(level(width, height, rate), expected, "{width}x{height} at {rate}");
        }
    }

    #[test]
    fn a_draft_is_refused() {
        assert_eq!(describe(&[0, 0, 0, 0, 0, 31, 0x80, 2, 2, 0, 0, 0]), None);
        assert_eq!(describe(&[1, 0, 0, 0, 0, 31, 0x80, 2, 2, 2, 0, 0]).unwrap().codecs, "vp09.00.31.08");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..30), rate: f64, marked: bool) {
            let frame = [if marked { &[0x82, 0x49, 0x83, 0x42][..] } else { &[] }, &bytes].concat();
            if let Some(body) = vpcc(&frame, rate, None) {
                prop_assert!(describe(&body).is_some());
            }
            let _ = describe(&[&VERSION[..], &bytes].concat());
        }
    }
}
