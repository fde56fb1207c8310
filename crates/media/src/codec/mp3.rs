//! MP3 (ISO 11172-3 and 13818-3, layer III): MP4 keeps nothing of it but its kind, so there is only that to tell.

use super::DescribedSound;
use crate::container::Sound;

/// Rates of MPEG-1; the lower ones are of MPEG-2 and "2.5", whose frames are half as long.
const MPEG1: [u32; 3] = [48_000, 44_100, 32_000];
/// Most bits per second of either.
const MOST: [u64; 2] = [320_000, 160_000];

/// `objectTypeIndication` (ISO 14496-1, table 5) of MP3 at this rate: "11172-3" or "13818-3" sound.
pub fn object_type(sample_rate: u32) -> u8 {
    if MPEG1.contains(&sample_rate) { 0x6b } else { 0x69 }
}

/// What is known of a track of MP3 with these channels at this rate. `None` for what MP3 cannot be.
pub fn describe(sound: &Sound) -> Option<DescribedSound> {
    let whole = MPEG1.contains(&sound.sample_rate);
    let half = [24_000, 22_050, 16_000, 12_000, 11_025, 8_000].contains(&sound.sample_rate);
    let bitrate = if whole { MOST[0] } else { MOST[1] };
    (matches!(sound.channels, 1 | 2) && (whole || half)).then(|| DescribedSound {
        codecs: format!("mp4a.{:X}", object_type(sound.sample_rate)),
        sound: Sound { frame_len: Some(if whole { 1_152 } else { 576 }), ..sound.clone() },
        bitrate: Some(bitrate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_standards() {
        let told = |channels, sample_rate| describe(&Sound { channels, sample_rate, frame_len: None });
        let line = |told: DescribedSound| (told.codecs, told.sound.frame_len, told.bitrate);
        assert_eq!(told(2, 44_100).map(line), Some(("mp4a.6B".into(), Some(1_152), Some(320_000))));
        assert_eq!(told(1, 22_050).map(line), Some(("mp4a.69".into(), Some(576), Some(160_000))));
        assert_eq!(told(6, 44_100), None);
        assert_eq!(told(2, 96_000), None);
    }
}
