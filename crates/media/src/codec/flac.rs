//! FLAC (RFC 9639): STREAMINFO, wherever a container keeps it, and the body of `dfLa` (FLAC in ISOBMFF, 3.3.2).

use bytes::Bytes;

use super::DescribedSound;
use crate::container::Sound;

/// Bytes of a STREAMINFO block without its header (8.2).
const STREAM_INFO: usize = 34;

/// The STREAMINFO in Matroska's CodecPrivate (`fLaC` and metadata blocks) or in the body of `dfLa` (version, flags, metadata blocks).
fn stream_info(config: &[u8]) -> Option<&[u8; STREAM_INFO]> {
    let blocks = config.strip_prefix(b"fLaC").or_else(|| config.strip_prefix(&[0; 4]))?;
    let (header, rest) = blocks.split_first_chunk::<4>()?;
    let [kind, len @ ..] = header;
    (kind & 0x7f == 0 && *len == [0, 0, 34]).then(|| rest.first_chunk()).flatten()
}

/// What the configuration tells. `None` where there is no STREAMINFO, or it names no rate.
pub fn describe(config: &[u8]) -> Option<DescribedSound> {
    let info = stream_info(config)?;
    let [small0, small1, large0, large1, _, _, _, _, _, _, a, b, c, d, ..] = *info;
    let (smallest, largest) = (u16::from_be_bytes([small0, small1]), u16::from_be_bytes([large0, large1]));
    let sample_rate = u32::from(a) << 12 | u32::from(b) << 4 | u32::from(c) >> 4;
    let (channels, bits) = (u16::from(c >> 1 & 7) + 1, u64::from((c & 1) << 4 | d >> 4) + 1);
    // A stream of blocks of one length says so; its last block may still be shorter.
    let frame_len = (smallest == largest && largest > 0).then_some(u32::from(largest));
    // No frame is longer than the samples as they are, but for its headers.
    let bitrate = u64::from(sample_rate) * u64::from(channels) * bits * 51 / 50;
    (sample_rate > 0).then(|| DescribedSound {
        codecs: "fLaC".to_owned(),
        sound: Sound { channels, sample_rate, frame_len },
        bitrate: Some(bitrate),
    })
}

/// Bits of a sample.
pub fn bits(config: &[u8]) -> Option<u16> {
    let [.., c, d] = *stream_info(config)?.first_chunk::<14>()?;
    Some(u16::from((c & 1) << 4 | d >> 4) + 1)
}

/// The body of `dfLa`, with STREAMINFO alone: comments, pictures and seek tables are of no use to a player of segments.
pub fn dfla(config: &[u8]) -> Option<Bytes> {
    const LAST_BLOCK: u8 = 0x80;
    let info = stream_info(config)?;
    Some([&[0, 0, 0, 0, LAST_BLOCK, 0, 0, 34][..], info].concat().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::bytes;
    use super::*;

    /// CodecPrivate of libavformat: 48 kHz, stereo, 16 bits, blocks of 4,608 samples; a second block follows.
    const STEREO: &str = "664c6143000000221200120000024e0002890bb802f00000bb8000000000000000000000000000000000840000020000";

    #[test]
    fn both_forms() {
        let private = bytes(STEREO);
        let body = dfla(&private).unwrap();
        assert_eq!(body.len(), 42);
        assert_eq!(body[..8], [0, 0, 0, 0, 0x80, 0, 0, 34]);
        assert_eq!(dfla(&body), Some(body.clone()));
        let told = describe(&private).unwrap();
        assert_eq!(describe(&body).unwrap(), told);
        assert_eq!((told.sound.channels, told.sound.sample_rate, told.sound.frame_len), (2, 48_000, Some(4_608)));
        assert_eq!((bits(&body), told.bitrate), (Some(16), Some(1_566_720)));
    }

    #[test]
    fn other_blocks_first_or_changing_lengths() {
        let mut private = bytes(STEREO);
        private[8] = 1;
        assert_eq!(describe(&private).unwrap().sound.frame_len, None);
        private[4] = 4;
        assert_eq!(describe(&private), None);
        assert_eq!(dfla(b"fLaC"), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60), named: bool) {
            let config = [if named { &b"fLaC\0\0\0\x22"[..] } else { &[] }, &bytes].concat();
            let told = describe(&config);
            prop_assert!(told.is_none() || dfla(&config).is_some() && bits(&config).is_some());
        }
    }
}
