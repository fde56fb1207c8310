//! AAC: the AudioSpecificConfig (ISO 14496-3, 1.6.2.1) with both ways of announcing spectral band replication and parametric stereo.

use super::DescribedSound;
use super::bits::Bits;
use crate::container::Sound;

/// Audio object types (table 1.17).
const LC: u8 = 2;
const SBR: u8 = 5;
const ER_BSAC: u8 = 22;
const ER_LD: u8 = 23;
const PS: u8 = 29;
const ELD: u8 = 39;
const USAC: u8 = 42;

/// What an AudioSpecificConfig tells. `None` where it is damaged or names no rate.
///
/// A stream may hide spectral band replication in its frames without any announcement (a core of 24 kHz or less): that is not seen here.
pub fn describe(asc: &[u8]) -> Option<DescribedSound> {
    Config::read(asc).map(|config| config.describe())
}

/// AudioSpecificConfig as read.
#[derive(Debug, Clone, Copy)]
struct Config {
    object_type: u8,
    core_rate: u32,
    /// 0 where it could not be told.
    channels: u16,
    /// Of the core.
    frame_len: Option<u32>,
    /// Rate of the output, where spectral band replication is announced.
    sbr_rate: Option<u32>,
    ps: bool,
}

impl Config {
    fn read(asc: &[u8]) -> Option<Self> {
        let bits = &mut Bits::new(asc);
        let first_type = object_type(bits)?;
        let core_rate = rate(bits)?;
        let channel_configuration = bits.take(4)?;
        let announced = matches!(first_type, SBR | PS);
        let sbr_rate = if announced { Some(rate(bits)?) } else { None };
        let object_type = if announced { object_type(bits)? } else { first_type };
        if announced && object_type == ER_BSAC {
            bits.skip(4)?; // extensionChannelConfiguration
        }
        let mut config =
            Self { object_type, core_rate, channels: channels(channel_configuration), frame_len: None, sbr_rate, ps: first_type == PS };
        // Players decode streams whose configuration ends here, so a missing rest is no reason to refuse it.
        let _ = config.read_rest(bits, channel_configuration);
        Some(config)
    }

    fn read_rest(&mut self, bits: &mut Bits<'_>, channel_configuration: u32) -> Option<()> {
        if self.object_type == ELD {
            self.frame_len = Some(if bits.flag()? { 480 } else { 512 });
            return Some(());
        }
        if !matches!(self.object_type, 1..=4 | 6 | 7 | 17 | 19..=23) {
            return Some(());
        }
        self.read_general(bits, channel_configuration)?;
        if matches!(self.object_type, 17 | 19..=23) && bits.take(2)? >= 2 {
            return Some(()); // an error protection of its own hides what follows
        }
        if self.sbr_rate.is_none() { self.read_late_announcement(bits) } else { Some(()) }
    }

    /// GASpecificConfig (4.4.1).
    fn read_general(&mut self, bits: &mut Bits<'_>, channel_configuration: u32) -> Option<()> {
        let short = bits.flag()?;
        self.frame_len = Some(match (self.object_type == ER_LD, short) {
            (false, false) => 1024,
            (false, true) => 960,
            (true, false) => 512,
            (true, true) => 480,
        });
        if bits.flag()? {
            bits.skip(14)?; // coreCoderDelay
        }
        let extended = bits.flag()?;
        if channel_configuration == 0 {
            self.channels = program_channels(bits)?;
        }
        if matches!(self.object_type, 6 | 20) {
            bits.skip(3)?; // layerNr
        }
        if extended {
            match self.object_type {
                ER_BSAC => bits.skip(16)?,
                17 | 19 | 20 | ER_LD => bits.skip(3)?,
                _ => {}
            }
            bits.skip(1)?; // extensionFlag3
        }
        Some(())
    }

    /// The backward compatible way: a sync word behind everything else.
    fn read_late_announcement(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        if bits.left() < 16 || bits.take(11)? != 0x2b7 || object_type(bits)? != SBR || !bits.flag()? {
            return Some(());
        }
        self.sbr_rate = Some(rate(bits)?);
        if bits.left() >= 12 && bits.take(11)? == 0x548 {
            self.ps = bits.flag()?;
        }
        Some(())
    }

    fn describe(&self) -> DescribedSound {
        let named = match (self.ps, self.sbr_rate) {
            (true, _) => PS,
            (false, Some(_)) => SBR,
            (false, None) => self.object_type,
        };
        let sample_rate = self.sbr_rate.unwrap_or(self.core_rate);
        let doubled = u64::from(sample_rate) == 2 * u64::from(self.core_rate);
        let frame_len = self.frame_len.filter(|_| self.object_type != USAC).map(|len| if doubled { len * 2 } else { len });
        let channels = if self.ps && self.channels == 1 { 2 } else { self.channels };
        DescribedSound { codecs: format!("mp4a.40.{named}"), sound: Sound { channels, sample_rate, frame_len }, bitrate: None }
    }
}

/// The AudioSpecificConfig of plain AAC-LC, for streams whose container keeps none. `None` for rates that are not in the table
/// (1.18) or channels that have no configuration of their own.
pub fn plain(sample_rate: u32, channels: u16) -> Option<[u8; 2]> {
    let index = RATES.iter().position(|rate| *rate == sample_rate).and_then(|index| u16::try_from(index).ok())?;
    let configuration = match channels {
        1..=6 => channels,
        8 => 7,
        _ => return None,
    };
    Some((u16::from(LC) << 11 | index << 7 | configuration << 3).to_be_bytes())
}

/// `samplingFrequencyIndex` (table 1.18).
const RATES: [u32; 13] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// GetAudioObjectType (1.6.2.1).
fn object_type(bits: &mut Bits<'_>) -> Option<u8> {
    let first = bits.take(5)?;
    let told = if first == 31 { 32 + bits.take(6)? } else { first };
    u8::try_from(told).ok().filter(|told| *told != 0)
}

/// A sampling frequency in hertz, from the table or in 24 bits.
fn rate(bits: &mut Bits<'_>) -> Option<u32> {
    let index = bits.take(4)?;
    let told = if index == 15 { bits.take(24)? } else { *RATES.get(usize::try_from(index).ok()?)? };
    (told != 0).then_some(told)
}

/// Channels of a `channelConfiguration` (table 1.19); 0 where the configuration does not tell.
const fn channels(configuration: u32) -> u16 {
    match configuration {
        1 => 1,
        2 => 2,
        3 => 3,
        4 => 4,
        5 => 5,
        6 => 6,
        7 | 12 | 14 => 8,
        11 => 7,
        13 => 24,
        _ => 0,
    }
}

/// Channels of a `program_config_element` (4.4.1.1), and over it.
fn program_channels(bits: &mut Bits<'_>) -> Option<u16> {
    bits.skip(4 + 2 + 4)?;
    let groups = [bits.take(4)?, bits.take(4)?, bits.take(4)?]; // front, side, back
    let low_frequency = bits.take(2)?;
    let (associated, coupling) = (bits.take(3)?, bits.take(4)?);
    for mixdown in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(mixdown)?;
        }
    }
    let mut channels = u16::try_from(low_frequency).ok()?;
    for _ in 0..groups.iter().sum() {
        channels += if bits.flag()? { 2 } else { 1 };
        bits.skip(4)?;
    }
    for (count, width) in [(low_frequency, 4), (associated, 4), (coupling, 5)] {
        bits.skip(usize::try_from(count).ok()? * width)?;
    }
    bits.align();
    let comment = bits.byte()?;
    bits.skip(usize::from(comment) * 8)?;
    Some(channels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(asc: &[u8]) -> Option<(String, u16, u32, Option<u32>, u32)> {
        let (told, config) = (describe(asc)?, Config::read(asc)?);
        Some((told.codecs, told.sound.channels, told.sound.sample_rate, told.sound.frame_len, config.core_rate))
    }

    #[test]
    fn table() {
        #[allow(clippy::type_complexity)]
        let table: [(&[u8], &str, u16, u32, u32, u32); 10] = [
            (&[0x11, 0x90], "mp4a.40.2", 2, 48_000, 1024, 48_000),
            (&[0x13, 0x88, 0x56, 0xe5, 0x00], "mp4a.40.2", 1, 22_050, 1024, 22_050), // announced: no replication
            (&[0x12, 0x30, 0x56, 0xe5, 0x00], "mp4a.40.2", 6, 44_100, 1024, 44_100),
            (&[0x11, 0x94], "mp4a.40.2", 2, 48_000, 960, 48_000),
            (&[0x17, 0x80, 0x5d, 0xc0, 0x10], "mp4a.40.2", 2, 48_000, 1024, 48_000), // rate in 24 bits
            (&[0x2b, 0x11, 0x88, 0x00], "mp4a.40.5", 2, 48_000, 2048, 24_000),       // hierarchical announcement
            (&[0xeb, 0x09, 0x88, 0x00], "mp4a.40.29", 2, 48_000, 2048, 24_000),
            (&[0x13, 0x10, 0x56, 0xe5, 0x98], "mp4a.40.5", 2, 48_000, 2048, 24_000), // backward compatible
            (&[0x13, 0x08, 0x56, 0xe5, 0x9d, 0x48, 0x80], "mp4a.40.29", 2, 48_000, 2048, 24_000),
            (&[0x11, 0xb8], "mp4a.40.2", 8, 48_000, 1024, 48_000),
        ];
        for (asc, codecs, channels, rate, frame, core) in table {
            assert_eq!(line(asc), Some((codecs.to_owned(), channels, rate, Some(frame), core)), "{asc:02x?}");
        }
        assert_eq!(describe(&[]), None);
        assert_eq!(describe(&[0x16, 0x90]), None); // reserved rate
    }

    #[test]
    fn channels_of_a_program() {
        // LC, 48 kHz, configuration 0; front: a single and a pair, no side, back: a pair, one low-frequency channel, empty comment
        let text = concat!("00010", "0011", "0000", "000", "0000", "01", "0011", "0010", "0000", "0001", "01", "000", "0000", "000");
        let text = format!("{text}{}", concat!("00000", "10000", "10001", "0000"));
        let mut bytes: Vec<u8> = text
            .as_bytes()
            .chunks(8)
            .map(|eight| u8::from_str_radix(&format!("{:0<8}", str::from_utf8(eight).unwrap()), 2).unwrap())
            .collect();
        bytes.push(0);
        assert_eq!(line(&bytes), Some(("mp4a.40.2".to_owned(), 6, 48_000, Some(1024), 48_000)));
    }

    #[test]
    fn plain_is_described_as_made() {
        for (rate, channels) in [(48_000, 2), (44_100, 6), (7_350, 1), (96_000, 8)] {
            let told = describe(&plain(rate, channels).unwrap()).unwrap();
            assert_eq!((told.sound.sample_rate, told.sound.channels, told.codecs.as_str()), (rate, channels, "mp4a.40.2"));
        }
        assert_eq!(plain(47_999, 2), None);
        assert_eq!(plain(48_000, 7), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(told) = describe(&bytes) {
                prop_assert!(told.sound.sample_rate > 0);
            }
        }
    }
}
