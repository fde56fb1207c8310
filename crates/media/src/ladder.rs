//! Quality names, the boxes that they stand for, and how a picture is fitted into one.

use serde::{Deserialize, Serialize};

use crate::container::Picture;

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[allow(missing_docs)] // each is a box named after its lines
pub enum Quality {
    /// The server chooses; as large as the source.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// The source as it is, where the client can play it.
    #[serde(rename = "source")]
    Source,
    #[serde(rename = "2160p")]
    P2160,
    #[serde(rename = "1440p")]
    P1440,
    #[serde(rename = "1080p")]
    P1080,
    #[serde(rename = "720p")]
    P720,
    #[serde(rename = "480p")]
    P480,
    #[serde(rename = "360p")]
    P360,
}

impl Quality {
    /// All of them, as the API lists them.
    pub const ALL: [Self; 8] = [Self::Auto, Self::Source, Self::P2160, Self::P1440, Self::P1080, Self::P720, Self::P480, Self::P360];

    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Source => "source",
            Self::P2160 => "2160p",
            Self::P1440 => "1440p",
            Self::P1080 => "1080p",
            Self::P720 => "720p",
            Self::P480 => "480p",
            Self::P360 => "360p",
        }
    }

    /// The quality with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quality| quality.name() == name)
    }

    /// Lines of the box; `None` where there is none.
    pub fn lines(self) -> Option<u32> {
        match self {
            Self::Auto | Self::Source => None,
            Self::P2160 => Some(2160),
            Self::P1440 => Some(1440),
            Self::P1080 => Some(1080),
            Self::P720 => Some(720),
            Self::P480 => Some(480),
            Self::P360 => Some(360),
        }
    }
}

/// A picture size in square pixels, both even for encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Width of a picture when its pixels are made square.
pub fn square_width(picture: &Picture) -> u32 {
    let (num, den) = picture.pixel_aspect;
    if num == 0 || den == 0 {
        return picture.width;
    }
    let width = (u64::from(picture.width) * u64::from(num) + u64::from(den) / 2) / u64::from(den);
    u32::try_from(width).unwrap_or(picture.width)
}

/// The size at which a picture is shown when it is fitted, upright and with square pixels, into a quality's 16:9 box and under a
/// client's largest height. Never larger than the picture; at least 2 × 2. Odd sides lose one pixel.
pub fn fit(picture: &Picture, quality: Quality, max_height: Option<u32>) -> Size {
    let upright = (square_width(picture).max(2), picture.height.max(2));
    let (width, height) = if picture.rotation % 180 == 90 { (upright.1, upright.0) } else { upright };
    let lines = [quality.lines(), max_height].into_iter().flatten().min();
    let Some(lines) = lines.map(|lines| lines.clamp(2, 8640)) else {
        return even(width, height);
    };
    // 480 lines are 853⅓ pixels wide: the box gets the next even number, as encoders and other ladders have it.
    let (box_width, box_height) = ((u64::from(lines) * 16).div_ceil(9).next_multiple_of(2), u64::from(lines));
    let (w, h) = (u64::from(width), u64::from(height));
    if w <= box_width && h <= box_height {
        return even(width, height);
    }
    let (w, h) = if w * 9 > h * 16 { (box_width, h * box_width / w) } else { ((w * box_height).div_ceil(h), box_height) };
    even(u32::try_from(w).unwrap_or(2), u32::try_from(h).unwrap_or(2))
}

fn even(width: u32, height: u32) -> Size {
    Size { width: (width & !1).max(2), height: (height & !1).max(2) }
}

/// Bits per second that an encoded picture of this size never exceeds for long: the cap that its encoder is given.
pub fn rate_cap(size: Size, frames_per_second: f64) -> u64 {
    let pixels = f64::from(size.width) * f64::from(size.height);
    let rate = frames_per_second.clamp(1.0, 120.0);
    // 720p24 gets 4 Mbit/s. Larger pictures need less per pixel, and faster ones less per picture.
    let of_size = 4.0e6 * (pixels / (1280.0 * 720.0)).powf(0.8);
    (of_size * (rate / 24.0).powf(0.6)).max(300_000.0) as u64
}

/// Limits of an encoded rendition, in bits per second (and bits, for the buffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The rate at which the decoder's model buffer is filled.
    pub maxrate: u64,
    /// Size of that buffer in bits: one second.
    pub bufsize: u64,
    /// Upper bound over any two seconds of the output, with room for headers: what `BANDWIDTH` may promise for the picture
    /// (RFC 8216, 4.3.4.2).
    pub peak: u64,
    /// What an ordinary film takes: for `AVERAGE-BANDWIDTH`.
    pub average: u64,
}

/// The bits that a rendition of this size may take.
pub fn rung_bitrate(size: Size, frames_per_second: f64) -> Rate {
    let maxrate = rate_cap(size, frames_per_second);
    Rate { maxrate, bufsize: maxrate, peak: maxrate * 8 / 5, average: maxrate * 3 / 5 }
}

/// One encoded rendition of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// The name of its box.
    pub quality: Quality,
    /// Its picture.
    pub size: Size,
    /// Its bits.
    pub rate: Rate,
}

/// The rungs for a picture under a cap, the largest first: no two of one size, and at least one.
pub fn rungs(picture: &Picture, cap: Quality) -> Vec<Rung> {
    let most = cap.lines().unwrap_or(u32::MAX);
    let boxes = [Quality::P1080, Quality::P720, Quality::P480, Quality::P360];
    let mut rungs: Vec<Rung> = Vec::new();
    for quality in boxes.into_iter().filter(|quality| quality.lines().is_some_and(|lines| lines <= most)) {
        let size = fit(picture, quality, None);
        // Of two boxes that both hold the whole picture only the smaller one names it truly.
        if rungs.last().is_some_and(|larger| larger.size == size) {
            rungs.pop();
        }
        rungs.push(Rung { quality, size, rate: rung_bitrate(size, picture.frame_rate.unwrap_or(25.0)) });
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Picture {
        Picture { width, height, pixel_aspect: (1, 1), ..Picture::default() }
    }

    #[test]
    fn boxes() {
        let cases = [
            (picture(1920, 1080), Quality::P720, None, (1280, 720)),
            (picture(1920, 800), Quality::P720, None, (1280, 532)),
            (picture(640, 360), Quality::P720, None, (640, 360)),
            (picture(1080, 1920), Quality::P720, None, (404, 720)),
            (picture(853, 479), Quality::Auto, None, (852, 478)),
            (picture(3840, 2160), Quality::Source, Some(1080), (1920, 1080)),
            (Picture { pixel_aspect: (64, 45), ..picture(720, 576) }, Quality::Auto, None, (1024, 576)),
            (Picture { rotation: 90, ..picture(1920, 1080) }, Quality::P360, None, (202, 360)),
        ];
        for (picture, quality, max_height, (width, height)) in cases {
            assert_eq!(fit(&picture, quality, max_height), Size { width, height }, "{picture:?} {quality:?}");
        }
    }

    #[test]
    fn a_ladder_ends_at_the_cap_and_at_the_source() {
        let names = |width, height, cap| -> Vec<String> {
            let rungs = rungs(&picture(width, height), cap);
            rungs.iter().map(|rung| format!("{} {}x{}", rung.quality.name(), rung.size.width, rung.size.height)).collect()
        };
        assert_eq!(names(1920, 1080, Quality::Auto), ["1080p 1920x1080", "720p 1280x720", "480p 854x480", "360p 640x360"]);
        assert_eq!(names(3840, 1600, Quality::P720), ["720p 1280x532", "480p 854x354", "360p 640x266"]);
        assert_eq!(names(1280, 534, Quality::Source), ["720p 1280x534", "480p 854x356", "360p 640x266"]);
        assert_eq!(names(320, 240, Quality::Auto), ["360p 320x240"]);
    }

    #[test]
    fn the_promise_holds_a_full_buffer_over_two_seconds() {
        for (width, height, fps) in [(1280, 720, 24.0), (1920, 1080, 60.0), (2, 2, 1.0)] {
            let rate = rung_bitrate(Size { width, height }, fps);
            assert!(rate.average < rate.maxrate && 2 * rate.peak >= 2 * rate.maxrate + rate.bufsize, "{rate:?}");
        }
    }

    #[test]
    fn names_come_back() {
        for quality in Quality::ALL {
            assert_eq!(Quality::named(quality.name()), Some(quality));
        }
        assert_eq!(Quality::named("8k"), None);
    }
}
