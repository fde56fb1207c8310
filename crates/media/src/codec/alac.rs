//! ALAC: the ALACSpecificConfig ("magic cookie", Apple's ALACMagicCookieDescription), which MP4 keeps in a box `alac` inside of the sample
//! entry `alac`, and Matroska keeps bare.

use bytes::Bytes;

use super::DescribedSound;
use crate::container::Sound;

/// Bytes of it, without the layout of channels that may follow.
const LEN: usize = 24;

/// The configuration in the body of the box (behind version and flags, which are 0) or as it is.
fn cookie(config: &[u8]) -> Option<&[u8; LEN]> {
    // A frame has samples, so that no bare configuration begins with four zeros.
    config.strip_prefix(&[0; 4]).unwrap_or(config).first_chunk()
}

/// What the configuration tells. `None` where it is damaged.
pub fn describe(config: &[u8]) -> Option<DescribedSound> {
    let [l0, l1, l2, l3, version, bits, _, _, _, channels, _, _, _, _, _, _, _, _, _, _, r0, r1, r2, r3] = *cookie(config)?;
    let (frame_len, sample_rate) = (u32::from_be_bytes([l0, l1, l2, l3]), u32::from_be_bytes([r0, r1, r2, r3]));
    let sane = version == 0 && (1..=65_536).contains(&frame_len) && (1..=8).contains(&channels) && sample_rate > 0;
    sane.then(|| DescribedSound {
        codecs: "alac".to_owned(),
        sound: Sound { channels: u16::from(channels), sample_rate, frame_len: Some(frame_len) },
        bitrate: Some(u64::from(sample_rate) * u64::from(channels) * u64::from(bits) * 51 / 50),
    })
}

/// Bits of a sample.
pub fn bits(config: &[u8]) -> Option<u16> {
    let [.., bits] = *cookie(config)?.first_chunk::<6>()?;
    Some(u16::from(bits))
}

/// The body of the inner `alac` box.
pub fn body(config: &[u8]) -> Option<Bytes> {
    Some([&[0; 4], &cookie(config)?[..]].concat().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::bytes;
    use super::*;

    /// libavcodec's: 4,096 samples a frame, 16 bits, stereo, 48 kHz.
    const STEREO: &str = "000010000010280a0e02000000004004001770000000bb80";

    #[test]
    fn both_forms() {
        let bare = bytes(STEREO);
        let boxed = body(&bare).unwrap();
        assert_eq!(boxed.len(), 28);
        assert_eq!(body(&boxed), Some(boxed.clone()));
        let told = describe(&bare).unwrap();
        assert_eq!(describe(&boxed).unwrap(), told);
        assert_eq!((told.sound.channels, told.sound.sample_rate, told.sound.frame_len), (2, 48_000, Some(4_096)));
        assert_eq!(bits(&boxed), Some(16));
        assert_eq!(describe(&bare[..20]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(describe(&bytes).is_none() || body(&bytes).is_some());
        }
    }
}
