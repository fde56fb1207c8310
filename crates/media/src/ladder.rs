//! Quality names, the boxes that they stand for, and how a picture is fitted into one.

use serde::{Deserialize, Serialize};

use crate::container::Picture;
use crate::cut::{Cuts, rescale};

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

impl Rate {
    /// Upper bound over segments of which the shortest that counts lasts `seconds`: what flows in while it lasts, and a full buffer.
    pub fn peak_of_segments(&self, seconds: f64) -> u64 {
        let bound = self.maxrate as f64 + self.bufsize as f64 / seconds.max(0.5);
        self.peak.max((bound * HEADERS) as u64)
    }
}

/// What boxes around the samples may take.
const HEADERS: f64 = 1.06;

/// What a small rung leaves out of a film with many pictures per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinned {
    /// Of so many pictures one is kept, where they stand evenly; at least 2.
    pub every: u32,
    /// A picture is kept that stands so far behind the one that was kept before it, in microseconds; and the first of each segment, so
    /// that a segment is the same whoever makes it. By time and not by number, because pictures may stand unevenly.
    pub apart_us: i64,
}

/// Pictures of a small rung that stand closer than this, in microseconds, are not worth their bits: 30 in a second are enough. A little
/// less than these take, because times are rounded.
const CLOSE_US: i64 = 30_000;

/// What is left out of a picture that is made as small as `size`; `None` where it is as large as the film, or not small, or slow enough.
pub fn thinned(picture: &Picture, size: Size) -> Option<Thinned> {
    let small = size.width <= 854 && size.height <= 480 && size != fit(picture, Quality::Source, None);
    let rate = picture.frame_rate.filter(|rate| small && (1.0..=480.0).contains(rate))?;
    let frame = 1e6 / rate;
    let every = (0.99 * CLOSE_US as f64 / frame).ceil() as u32;
    let between = ((f64::from(every) - 0.5) * frame) as i64;
    (every > 1).then(|| Thinned { every, apart_us: between.min(CLOSE_US) })
}

impl Thinned {
    /// Those of `times` (in ticks, ascending) that are kept between `cuts`.
    pub fn kept(&self, times: &[i64], cuts: &Cuts) -> Vec<i64> {
        let apart = rescale(self.apart_us, 1_000_000, cuts.timescale);
        let mut kept: Vec<i64> = Vec::new();
        for time in times {
            let far = |last: &i64| time.saturating_sub(*last) >= apart || cuts.segment_at(*last) < cuts.segment_at(*time);
            if kept.last().is_none_or(far) {
                kept.push(*time);
            }
        }
        kept
    }
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

/// How fast a machine encodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace(
    /// Pictures of a width and height, and how many of them are encoded within a second.
    pub Vec<(u32, u32, f64)>,
);

impl Pace {
    /// A machine that was not measured yet, from how many threads it runs at once.
    pub fn guess(threads: usize) -> Self {
        // A thread of an ordinary machine encodes about fifty pictures of 1080p within a second.
        Self(vec![(1920, 1080, 50.0 * threads.max(1) as f64)])
    }

    /// Whether pictures of this size can be encoded as fast as they are shown, with something left for decoding them.
    pub fn keeps_up(&self, size: Size, frames_per_second: f64) -> bool {
        let pixels = f64::from(size.width) * f64::from(size.height);
        // Of the sizes that are large enough the nearest one; beyond the largest one that was tried it is as fast per pixel.
        let of = |(width, height, _): &&(u32, u32, f64)| u64::from(*width) * u64::from(*height);
        let larger = self.0.iter().filter(|tried| of(tried) as f64 >= pixels).min_by_key(of);
        larger.or_else(|| self.0.iter().max_by_key(of)).is_some_and(|tried| {
            let speed = tried.2 * (of(&tried) as f64 / pixels.max(1.0)).min(1.0);
            speed >= frames_per_second * KEEPS_UP
        })
    }
}

/// So many times faster than it is shown a picture has to be encoded: it has to be decoded as well, and others want to be played too.
const KEEPS_UP: f64 = 2.0;
/// A rung with more pixels than this, in parts of the next larger picture, is not worth its encoder.
const WORTHWHILE: f64 = 0.85;
/// A rung of the source's own size is one where the source takes so many times its bits.
const HEAVY: u64 = 2;

/// What a ladder is made for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The cap that was asked for.
    pub cap: Quality,
    /// The client's largest height.
    pub max_height: Option<u32>,
    /// Bits per second of the copy that stands above the rungs, where there is one.
    pub copy: Option<u64>,
    /// How fast rungs above 720p may be; the others are always there.
    pub pace: &'a Pace,
}

/// The rungs for a picture, the largest first, of sizes that differ enough to choose between. Without a copy at least one.
pub fn rungs(picture: &Picture, wanted: &Wanted<'_>) -> Vec<Rung> {
    let most = wanted.cap.lines().unwrap_or(u32::MAX);
    let rate = picture.frame_rate.filter(|rate| *rate > 0.0 && *rate <= 240.0).unwrap_or(25.0);
    let source = fit(picture, Quality::Source, None);
    let mut rungs: Vec<Rung> = Vec::new();
    for quality in [Quality::P2160, Quality::P1440, Quality::P1080, Quality::P720, Quality::P480, Quality::P360] {
        let lines = quality.lines().unwrap_or(0);
        let size = fit(picture, quality, wanted.max_height);
        let rung = Rung { quality, size, rate: rung_bitrate(size, rate) };
        if lines > most {
            continue;
        }
        match rungs.last_mut() {
            // Of two boxes that both hold the whole picture only the smaller one names it truly.
            Some(larger) if larger.size == size => larger.quality = quality,
            Some(larger) if !is_worthwhile(size, larger.size) => {}
            _ => rungs.push(rung),
        }
    }
    rungs.retain(|rung| {
        // Hardly larger than 720p, at most.
        let small = !is_worthwhile(Size { width: 1280, height: 720 }, rung.size);
        let besides_copy = wanted.copy.is_none_or(|bits| is_worthwhile(rung.size, source) || bits > HEAVY * rung.rate.maxrate);
        besides_copy && (small || wanted.pace.keeps_up(rung.size, rate))
    });
    rungs
}

fn is_worthwhile(size: Size, below: Size) -> bool {
    let pixels = |size: Size| f64::from(size.width) * f64::from(size.height);
    pixels(size) <= pixels(below) * WORTHWHILE
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

    fn names(width: u32, height: u32, cap: Quality, copy: Option<u64>, pace: &Pace) -> Vec<String> {
        let rungs = rungs(&picture(width, height), &Wanted { cap, max_height: None, copy, pace });
        rungs.iter().map(|rung| format!("{} {}x{}", rung.quality.name(), rung.size.width, rung.size.height)).collect()
    }

    #[test]
    fn a_ladder_ends_at_the_cap_and_at_the_source() {
        let fast = Pace(vec![(1920, 1080, 60.0)]);
        let cases: [(u32, u32, Quality, &[&str]); 7] = [
            (1920, 1080, Quality::Auto, &["1080p 1920x1080", "720p 1280x720", "480p 854x480", "360p 640x360"]),
            (3840, 1600, Quality::P720, &["720p 1280x532", "480p 854x354", "360p 640x266"]),
            (1280, 534, Quality::Source, &["720p 1280x534", "480p 854x356", "360p 640x266"]),
            (320, 240, Quality::Auto, &["360p 320x240"]),
            // 4K is more than this machine can, so its best is 1080p.
            (3840, 2160, Quality::Auto, &["1080p 1920x1080", "720p 1280x720", "480p 854x480", "360p 640x360"]),
            // Hardly larger than 720p.
            (1300, 730, Quality::Auto, &["1080p 1300x730", "480p 854x478", "360p 640x358"]),
            (640, 360, Quality::P480, &["360p 640x360"]),
        ];
        for (width, height, cap, expected) in cases {
            assert_eq!(names(width, height, cap, None, &fast), expected, "{width}x{height} {cap:?}");
        }
    }

    #[test]
    fn below_a_copy_stands_what_is_smaller() {
        let fast = Pace(vec![(1920, 1080, 60.0)]);
        assert_eq!(names(1920, 1080, Quality::Auto, Some(8_000_000), &fast), ["720p 1280x720", "480p 854x480", "360p 640x360"]);
        assert_eq!(names(1920, 1080, Quality::Auto, Some(40_000_000), &fast)[0], "1080p 1920x1080", "a heavy one has a light twin");
        assert_eq!(names(640, 360, Quality::Auto, Some(1_000_000), &fast), [""; 0]);
    }

    #[test]
    fn a_slow_machine_has_a_low_ladder() {
        let slow = Pace(vec![(1920, 1080, 20.0)]);
        assert_eq!(names(1920, 1080, Quality::Auto, None, &slow), ["720p 1280x720", "480p 854x480", "360p 640x360"]);
        assert_eq!(names(1280, 720, Quality::Auto, None, &Pace::default()), ["720p 1280x720", "480p 854x480", "360p 640x360"]);
        let size = |width, height| Size { width, height };
        let measured = Pace(vec![(1920, 1080, 100.0), (3840, 2160, 30.0)]);
        let cases = [(1920, 1080, 50.0, true), (1920, 1080, 60.0, false), (3840, 2160, 15.0, true), (2560, 1440, 24.0, false)];
        for (width, height, rate, keeps_up) in cases {
            assert_eq!(measured.keeps_up(size(width, height), rate), keeps_up, "{width}x{height} {rate}");
        }
    }

    #[test]
    fn the_largest_height_of_a_client_is_the_top() {
        let pace = Pace::guess(8);
        let rungs = rungs(&picture(1920, 1080), &Wanted { cap: Quality::Auto, max_height: Some(900), copy: None, pace: &pace });
        assert_eq!(rungs.iter().map(|rung| rung.size.height).collect::<Vec<_>>(), [900, 720, 480, 360]);
    }

    #[test]
    fn the_promise_holds_a_full_buffer_over_two_seconds() {
        for (width, height, fps) in [(1280, 720, 24.0), (1920, 1080, 60.0), (2, 2, 1.0)] {
            let rate = rung_bitrate(Size { width, height }, fps);
            assert!(rate.average < rate.maxrate && 2 * rate.peak >= 2 * rate.maxrate + rate.bufsize, "{rate:?}");
            assert!(rate.peak_of_segments(1.0) >= 2 * rate.maxrate && rate.peak_of_segments(9.0) == rate.peak, "{rate:?}");
        }
    }

    #[test]
    fn fast_films_are_thinned_where_they_are_small() {
        let of = |rate: f64, size: (u32, u32)| {
            let picture = Picture { frame_rate: Some(rate), ..picture(1280, 720) };
            thinned(&picture, Size { width: size.0, height: size.1 }).map(|thinned| (thinned.every, thinned.apart_us))
        };
        let small = (854, 480);
        for rate in [23.976, 25.0, 29.97, 30.0, 33.0] {
            assert_eq!(of(rate, small), None, "{rate}");
        }
        let cases = [(48.0, 2), (50.0, 2), (60_000.0 / 1001.0, 2), (60.0, 2), (100.0, 3), (120.0, 4)];
        for (rate, every) in cases {
            let (found, apart) = of(rate, small).expect("thinned");
            let frame = 1e6 / rate;
            assert_eq!(found, every, "{rate}");
            // Far from both of what lies beside it: times may be whole milliseconds.
            let room = (apart as f64 - f64::from(every - 1) * frame).min(f64::from(every) * frame - apart as f64);
            assert!(room > 2_000.0, "{rate}: {room} us");
            assert_eq!(of(rate, (640, 360)).map(|found| found.0), Some(every));
            assert_eq!(of(rate, (1280, 720)), None);
        }
        let itself = Picture { frame_rate: Some(60.0), ..picture(640, 360) };
        assert_eq!(thinned(&itself, Size { width: 640, height: 360 }), None, "nothing larger is offered");
        assert_eq!(thinned(&picture(1280, 720), Size { width: 640, height: 360 }), None, "no rate is known");
    }

    #[test]
    fn a_thinned_segment_begins_with_its_first_picture() {
        let cuts = Cuts::new(1000, [0, 100, 180], 400);
        let thinned = Thinned { every: 2, apart_us: 30_000 };
        let even: Vec<i64> = (0..20).map(|n| n * 20).collect();
        assert_eq!(thinned.kept(&even, &cuts), [0, 40, 80, 100, 140, 180, 220, 260, 300, 340, 380]);
        // What stands far apart stays, whatever the film is like elsewhere.
        assert_eq!(thinned.kept(&[0, 33, 66, 83, 100, 117, 133, 160], &cuts), [0, 33, 66, 100, 133]);
    }

    #[test]
    fn names_come_back() {
        for quality in Quality::ALL {
            assert_eq!(Quality::named(quality.name()), Some(quality));
        }
        assert_eq!(Quality::named("8k"), None);
    }
}
