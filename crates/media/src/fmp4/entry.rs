//! The sample entry of a film's own track: whether it can be packaged as it is, and what players have to be told of it.
//!
//! Containers keep a decoder's configuration in forms of their own; here they all become the one that MP4 keeps. No sample is looked at.

use super::write::{Coding, Entry, Raster, SoundEntry};
use crate::codec::{self, DescribedPicture, DescribedSound, alac, dolby, flac, mp3, opus};
use crate::container::{Codec, Track};
use crate::playlist::hls::VideoRange;

/// A sound track as it would be packaged. `None` where the codec has no sample entry here, or its configuration is missing or damaged.
pub fn sound(track: &Track) -> Option<(Entry, DescribedSound)> {
    let config = &track.config;
    let told = track.audio.clone().unwrap_or_default();
    if track.codec == Codec::Aac {
        let described = codec::aac::describe(config)?;
        let entry = Entry::Aac { config: config.clone(), channels: told.channels, sample_rate: told.sample_rate };
        return Some((entry, described));
    }
    let (coding, described, body) = match track.codec {
        Codec::Ac3 => (Coding::Ac3, dolby::describe_ac3(config)?, config.clone()),
        Codec::Eac3 => (Coding::Eac3, dolby::describe_eac3(config)?, config.clone()),
        Codec::Opus => (Coding::Opus, opus::describe(config)?, opus::dops(config)?),
        Codec::Flac => (Coding::Flac, flac::describe(config)?, flac::dfla(config)?),
        Codec::Alac => (Coding::Alac, alac::describe(config)?, alac::body(config)?),
        Codec::Mp3 => (Coding::Mp3(mp3::object_type(told.sample_rate)), mp3::describe(&told)?, bytes::Bytes::new()),
        _ => return None,
    };
    let bits = match coding {
        Coding::Flac => flac::bits(config)?,
        Coding::Alac => alac::bits(config)?,
        _ => 16,
    };
    let roll = (coding == Coding::Opus).then(|| {
        let packet = told.frame_len.unwrap_or(960).clamp(120, opus::PRE_ROLL);
        i16::try_from(opus::PRE_ROLL.div_ceil(packet)).map_or(-4, |packets| -packets)
    });
    let sound = &described.sound;
    let entry = SoundEntry { coding, config: body, channels: sound.channels, bits, sample_rate: sound.sample_rate, roll };
    Some((Entry::Sound(entry), described))
}

/// A picture track as it would be packaged. `None` as of [`sound`].
pub fn picture(track: &Track) -> Option<(Entry, DescribedPicture)> {
    let config = track.config.clone();
    let shown = track.video.clone().unwrap_or_default();
    let described = match track.codec {
        Codec::H264 => codec::h264::describe(&config)?,
        Codec::Hevc => codec::hevc::describe(&config)?,
        Codec::Av1 => codec::av1::describe(&config)?,
        Codec::Vp9 => codec::vp9::describe(&config)?,
        _ => return None,
    };
    let raster = Raster {
        width: shown.width,
        height: shown.height,
        pixel_aspect: shown.pixel_aspect,
        colour: shown.colour.or(described.colour),
        light: shown.light,
    };
    let entry = match track.codec {
        Codec::H264 => Entry::Avc { config, raster },
        Codec::Hevc => Entry::Hevc { config, raster },
        Codec::Av1 => Entry::Av1 { config, raster },
        _ => Entry::Vp9 { config, raster },
    };
    Some((entry, described))
}

/// What `VIDEO-RANGE` has to say of a picture track as it is: its container knows better than its parameter sets.
pub fn video_range(track: &Track) -> VideoRange {
    let told = track.video.as_ref().and_then(|shown| shown.colour);
    match told.or_else(|| picture(track).and_then(|(_, what)| what.colour)).map(|colour| colour.transfer) {
        Some(16) => VideoRange::Pq,
        Some(18) => VideoRange::Hlg,
        _ => VideoRange::Sdr,
    }
}
