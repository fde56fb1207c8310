//! Opus: the identification header (RFC 7845, 5.1) that Matroska keeps, the body of `dOps` (Opus in ISOBMFF, 4.3.2) that MP4 keeps, and
//! the first byte of a packet (RFC 6716, 3.1), which tells how long it lasts.

use bytes::Bytes;

use super::DescribedSound;
use crate::container::Sound;

/// Hertz: whatever was put in, this comes out of every decoder.
pub const RATE: u32 = 48_000;
/// A player that enters the film begins to decode this much earlier, in samples: 80 ms (RFC 7845, 4.6).
pub const PRE_ROLL: u32 = 3_840;
/// Longest packet in samples: 120 ms.
const LONGEST: u32 = 5_760;
/// Most bits per second of one stream (RFC 7845, 8: 1,275 bytes in 20 ms).
const MOST: u64 = 510_000;

/// What an identification header or a `dOps` tells, in the latter's order of bytes.
struct Head<'a> {
    channels: u8,
    pre_skip: u16,
    input_rate: u32,
    gain: u16,
    family: u8,
    /// Streams, coupled streams, and the stream of each channel.
    mapping: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(config: &'a [u8]) -> Option<Self> {
        let identified = config.strip_prefix(b"OpusHead");
        let (fields, rest) = identified.unwrap_or(config).split_first_chunk::<11>()?;
        let [version, channels, skip0, skip1, rate0, rate1, rate2, rate3, gain0, gain1, family] = *fields;
        let (skip, rate, gain) = ([skip0, skip1], [rate0, rate1, rate2, rate3], [gain0, gain1]);
        let little = identified.is_some();
        let sixteen = |bytes| if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
        let input_rate = if little { u32::from_le_bytes(rate) } else { u32::from_be_bytes(rate) };
        // The header counts its versions from 1 and is understood up to 15; the box has only one, 0.
        if channels == 0 || if little { version > 15 } else { version != 0 } {
            return None;
        }
        let mapping = if family == 0 { &[][..] } else { rest.get(..2 + usize::from(channels))? };
        if family == 0 && channels > 2 {
            return None;
        }
        Some(Self { channels, pre_skip: sixteen(skip), input_rate, gain: sixteen(gain), family, mapping })
    }
}

/// What an identification header or the body of `dOps` tells. `None` where it is neither.
pub fn describe(config: &[u8]) -> Option<DescribedSound> {
    let head = Head::read(config)?;
    let streams = head.mapping.first().copied().unwrap_or(1).max(1);
    let sound = Sound { channels: u16::from(head.channels), sample_rate: RATE, frame_len: None };
    Some(DescribedSound { codecs: "opus".to_owned(), sound, bitrate: Some(MOST * u64::from(streams)) })
}

/// The body of `dOps` of an identification header, or of such a body itself.
pub fn dops(config: &[u8]) -> Option<Bytes> {
    let head = Head::read(config)?;
    let mut out = vec![0, head.channels];
    out.extend(head.pre_skip.to_be_bytes());
    out.extend(head.input_rate.to_be_bytes());
    out.extend(head.gain.to_be_bytes());
    out.push(head.family);
    out.extend(head.mapping);
    Some(out.into())
}

/// Samples in a packet. `None` where it is empty or longer than Opus allows.
pub fn packet_len(packet: &[u8]) -> Option<u32> {
    let first = *packet.first()?;
    let frame = match first >> 3 {
        mode @ 0..=11 => [480, 960, 1_920, 2_880].get(usize::from(mode & 3)).copied()?,
        mode @ 12..=15 => 480 << (mode & 1),
        mode => 120 << (mode & 3),
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|len| (1..=LONGEST).contains(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEREO: &[u8] = b"OpusHead\x01\x02\x38\x01\x44\xac\x00\x00\x00\x00\x00";
    const SURROUND: &[u8] = b"OpusHead\x01\x06\x38\x01\x80\xbb\x00\x00\xff\xfe\x01\x04\x02\x00\x04\x01\x02\x03\x05";

    #[test]
    fn both_forms() {
        let stereo = dops(STEREO).unwrap();
        assert_eq!(stereo[..], *b"\x00\x02\x01\x38\x00\x00\xac\x44\x00\x00\x00");
        let surround = dops(SURROUND).unwrap();
        assert_eq!(surround[..], *b"\x00\x06\x01\x38\x00\x00\xbb\x80\xfe\xff\x01\x04\x02\x00\x04\x01\x02\x03\x05");
        for (head, body, channels, bitrate) in [(STEREO, stereo, 2, 510_000), (SURROUND, surround, 6, 2_040_000)] {
            assert_eq!(dops(&body), Some(body.clone()));
            let told = describe(head).unwrap();
            assert_eq!(describe(&body).unwrap(), told);
            assert_eq!((told.sound.channels, told.sound.sample_rate, told.bitrate), (channels, 48_000, Some(bitrate)));
        }
        assert_eq!(dops(&SURROUND[..25]), None);
        assert_eq!(dops(b"OpusHead\x01\x00\x38\x01\x80\xbb\x00\x00\x00\x00\x00"), None);
    }

    #[test]
    fn lengths() {
        let table: [(&[u8], Option<u32>); 9] = [
            (&[0xfc, 1], Some(960)),      // CELT, 20 ms
            (&[0xe0], Some(120)),         // CELT, 2.5 ms
            (&[0xfd], Some(1_920)),       // two frames of 20 ms
            (&[0x18], Some(2_880)),       // SILK, 60 ms
            (&[0x70], Some(480)),         // hybrid, 10 ms
            (&[0x7b, 0x83], Some(2_880)), // hybrid, three of 20 ms
            (&[0xff, 0x00], None),
            (&[0xff, 0x3f], None), // 1.26 s
            (&[], None),
        ];
        for (packet, len) in table {
            assert_eq!(packet_len(packet), len, "{packet:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40), named: bool) {
            let config = [if named { &b"OpusHead"[..] } else { &[] }, &bytes].concat();
            prop_assert_eq!(describe(&config).is_some(), dops(&config).is_some());
            if let Some(body) = dops(&config) {
                prop_assert_eq!(dops(&body), Some(body));
            }
            let _ = packet_len(&bytes);
        }
    }
}
