//! Stills for the time line of a player: which there are, on which sheet each one stands, and the playlists that tell it.
//!
//! A film is divided into stretches of equal length; each has one still, which stands for its middle. Stills are put together on sheets of
//! equal make, row by row. An image media playlist tells this to players of HLS (Roku's extension: `EXT-X-TILES`), WebVTT with media
//! fragments to all others (`xywh`, W3C Media Fragments 4.2.2). Nothing here makes a picture, or knows which of them can be made.

use std::fmt::Write;
use std::ops::Range;

use crate::container::Picture;
use crate::ladder::{self, Quality, Size};

/// The longer side of a still, in pixels: twice of what players show, for screens with fine pixels.
const LONGEST_SIDE: u32 = 320;
/// Seconds for which one still stands, from the finest on, and the longest film in seconds that gets it.
const STEPS: [(u32, f64); 2] = [(2, 300.0), (5, 900.0)];
/// The same for all longer films.
const USUAL_STEP: u32 = 10;
/// Films are told to be longer than this only by mistake; in seconds.
const LONGEST_FILM: f64 = 1e6;
/// Bits of a pixel that a still never needs.
const BITS_PER_PIXEL: u64 = 4;

/// Stills of a film.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Images {
    /// Of one still.
    pub size: Size,
    /// Stills side by side on a sheet.
    pub columns: u32,
    /// Stills one below the other on a sheet.
    pub rows: u32,
    /// Seconds for which one still stands.
    pub each: u32,
    /// Of the film, in seconds.
    pub duration: f64,
}

impl Images {
    /// Those of a film that looks like this and lasts so many seconds. `None` where it has no length.
    pub fn of(picture: &Picture, duration: f64) -> Option<Self> {
        if !(duration > 0.0 && duration < LONGEST_FILM) || picture.width == 0 || picture.height == 0 {
            return None;
        }
        let each = STEPS.into_iter().find(|(_, longest)| duration <= *longest).map_or(USUAL_STEP, |(each, _)| each);
        Some(Self { size: within(ladder::fit(picture, Quality::Source, None)), columns: 5, rows: 5, each, duration })
    }

    /// How many stills there are, at least one.
    pub fn stills(&self) -> u32 {
        ((self.duration / f64::from(self.each)).ceil() as u32).max(1)
    }

    /// How many of them a sheet has; the last one may have fewer.
    pub fn per_sheet(&self) -> u32 {
        self.columns * self.rows
    }

    /// How many sheets there are, at least one.
    pub fn sheets(&self) -> u32 {
        self.stills().div_ceil(self.per_sheet())
    }

    /// Seconds for which a whole sheet stands.
    pub fn sheet_seconds(&self) -> u32 {
        self.each * self.per_sheet()
    }

    /// The stills on a sheet; none past the last sheet.
    pub fn on(&self, sheet: u32) -> Range<u32> {
        let first = sheet.saturating_mul(self.per_sheet()).min(self.stills());
        first..first.saturating_add(self.per_sheet()).min(self.stills())
    }

    /// Start and end of the stretch for which a still stands, in seconds.
    pub fn stretch(&self, still: u32) -> (f64, f64) {
        let start = f64::from(still) * f64::from(self.each);
        (start, (start + f64::from(self.each)).min(self.duration).max(start))
    }

    /// The time that a still is to show, in seconds: the middle of its stretch, from which nothing in it is far.
    pub fn time(&self, still: u32) -> f64 {
        let (start, end) = self.stretch(still);
        (start + end) / 2.0
    }

    /// Pixels of a sheet, across and down.
    pub fn sheet_size(&self) -> (u32, u32) {
        (self.size.width * self.columns, self.size.height * self.rows)
    }

    /// Upper bound of bits per second.
    pub fn bandwidth(&self) -> u64 {
        let (width, height) = self.sheet_size();
        (u64::from(width) * u64::from(height) * BITS_PER_PIXEL / u64::from(self.sheet_seconds().max(1))).max(1)
    }
}

/// A size with the same shape whose longer side is no longer than that of a still; even for the coding of colours.
fn within(size: Size) -> Size {
    let longer = size.width.max(size.height);
    let side = |side: u32| {
        let scaled = u64::from(side) * u64::from(LONGEST_SIDE.min(longer));
        let rounded = (scaled + u64::from(longer)) / (2 * u64::from(longer.max(1))) * 2;
        u32::try_from(rounded).unwrap_or(2).max(2)
    };
    Size { width: side(size.width), height: side(size.height) }
}

/// The media playlist of the sheets `0.jpg`, `1.jpg` … Complete from the first answer on.
pub fn playlist(images: &Images) -> String {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    let longest = (0..images.sheets()).map(|sheet| lasts(images, sheet)).fold(1.0, f64::max);
    put(&mut out, format_args!("#EXT-X-TARGETDURATION:{}\n", longest.ceil()));
    out.push_str("#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-IMAGES-ONLY\n");
    let Images { size: Size { width, height }, columns, rows, each, .. } = images;
    for sheet in 0..images.sheets() {
        put(&mut out, format_args!("#EXT-X-TILES:RESOLUTION={width}x{height},LAYOUT={columns}x{rows},DURATION={each}\n"));
        put(&mut out, format_args!("#EXTINF:{:.3},\n{sheet}.jpg\n", lasts(images, sheet)));
    }
    out.push_str("#EXT-X-ENDLIST\n");
    out
}

/// Seconds for which a sheet stands.
fn lasts(images: &Images, sheet: u32) -> f64 {
    let stills = images.on(sheet);
    images.stretch(stills.end.saturating_sub(1)).1 - images.stretch(stills.start).0
}

/// The same as WebVTT, one cue for each still.
pub fn vtt(images: &Images) -> String {
    let mut out = String::from("WEBVTT\n");
    let Size { width, height } = images.size;
    for sheet in 0..images.sheets() {
        for (at, still) in (0..).zip(images.on(sheet)) {
            let (from, to) = images.stretch(still);
            let (x, y) = (at % images.columns * width, at / images.columns * height);
            put(&mut out, format_args!("\n{} --> {}\n{sheet}.jpg#xywh={x},{y},{width},{height}\n", stamp(from), stamp(to)));
        }
    }
    out
}

/// A time as WebVTT writes it.
fn stamp(seconds: f64) -> String {
    let millis = (seconds.max(0.0) * 1000.0).round() as u64;
    format!("{:02}:{:02}:{:02}.{:03}", millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000)
}

/// Which of these times (ascending) may stand for `at`, the nearest first: that one in any case, and a few more that are at most `reach`
/// away.
pub fn nearest(times: &[i64], at: i64, reach: u64) -> Vec<usize> {
    const MOST: usize = 6;
    let behind = times.partition_point(|time| *time < at);
    let mut those: Vec<usize> = (behind.saturating_sub(MOST)..times.len().min(behind.saturating_add(MOST))).collect();
    let away = |index: &usize| times.get(*index).map_or(u64::MAX, |time| time.abs_diff(at));
    those.sort_by_key(away);
    let near = those.iter().skip(1).take_while(|index| away(index) <= reach).count();
    those.truncate(MOST.min(1 + near));
    those
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text); // writing to a String cannot fail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picture(width: u32, height: u32, pixel_aspect: (u32, u32), rotation: u16) -> Picture {
        Picture { width, height, pixel_aspect, rotation, ..Picture::default() }
    }

    fn film(duration: f64) -> Images {
        Images::of(&picture(1920, 1080, (1, 1), 0), duration).expect("stills")
    }

    #[test]
    fn sizes() {
        let table = [
            (picture(1920, 1080, (1, 1), 0), (320, 180)),
            (picture(3840, 1606, (1, 1), 0), (320, 134)),
            (picture(1080, 1920, (1, 1), 0), (180, 320)),
            (picture(1920, 1080, (1, 1), 90), (180, 320)),
            (picture(720, 576, (64, 45), 0), (320, 180)),
            (picture(640, 480, (0, 0), 0), (320, 240)),
            (picture(160, 90, (1, 1), 0), (160, 90)),
            (picture(65_535, 2, (1, 1), 0), (320, 2)),
        ];
        for (picture, size) in table {
            let Size { width, height } = Images::of(&picture, 60.0).expect("stills").size;
            assert_eq!((width, height), size, "{picture:?}");
        }
        for nothing in [picture(0, 1080, (1, 1), 0), picture(1920, 0, (1, 1), 0)] {
            assert_eq!(Images::of(&nothing, 60.0), None);
        }
        for duration in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Images::of(&picture(2, 2, (1, 1), 0), duration), None);
        }
    }

    #[test]
    fn stills_and_sheets() {
        let table = [
            // Seconds; seconds each, stills, sheets, those on the last sheet, time of the last one.
            (1.0, 2, 1, 1, 1, 0.5),
            (20.0, 2, 10, 1, 10, 19.0),
            (50.1, 2, 26, 2, 1, 50.05),
            (600.0, 5, 120, 5, 20, 597.5),
            (7201.0, 10, 721, 29, 21, 7200.5),
        ];
        for (duration, each, stills, sheets, last, time) in table {
            let film = film(duration);
            assert_eq!((film.each, film.stills(), film.sheets()), (each, stills, sheets), "{duration}");
            assert_eq!(film.on(sheets - 1).len(), last, "{duration}");
            assert!((film.time(stills - 1) - time).abs() < 1e-9, "{duration}");
            assert!(film.on(sheets).is_empty() && film.on(u32::MAX).is_empty());
        }
    }

    #[test]
    fn a_playlist() {
        insta::assert_snapshot!(playlist(&film(61.5)), @r"
        #EXTM3U
        #EXT-X-VERSION:7
        #EXT-X-TARGETDURATION:50
        #EXT-X-MEDIA-SEQUENCE:0
        #EXT-X-PLAYLIST-TYPE:VOD
        #EXT-X-IMAGES-ONLY
        #EXT-X-TILES:RESOLUTION=320x180,LAYOUT=5x5,DURATION=2
        #EXTINF:50.000,
        0.jpg
        #EXT-X-TILES:RESOLUTION=320x180,LAYOUT=5x5,DURATION=2
        #EXTINF:11.500,
        1.jpg
        #EXT-X-ENDLIST
        ");
    }

    #[test]
    fn cues() {
        let text = vtt(&film(7201.0));
        assert!(text.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:10.000\n0.jpg#xywh=0,0,320,180\n"));
        assert!(text.contains("\n\n00:01:10.000 --> 00:01:20.000\n0.jpg#xywh=640,180,320,180\n"));
        assert!(text.ends_with("\n\n02:00:00.000 --> 02:00:01.000\n28.jpg#xywh=0,720,320,180\n"));
        assert_eq!(text.matches("-->").count(), 721);
    }

    #[test]
    fn the_nearest() {
        let times = [0, 40, 50, 100, 300];
        let table: [(i64, u64, &[usize]); 6] =
            [(0, 0, &[0]), (46, 0, &[2]), (46, 6, &[2, 1]), (46, 60, &[2, 1, 0, 3]), (1000, 10, &[4]), (-5, 45, &[0, 1])];
        for (at, reach, found) in table {
            assert_eq!(nearest(&times, at, reach), found, "{at} {reach}");
        }
        assert!(nearest(&[], 5, u64::MAX).is_empty());
    }

    proptest! {
        #[test]
        fn every_moment_has_its_still(duration in 0.01_f64..100_000.0, part in 0.0_f64..1.0) {
            let film = film(duration);
            let at = duration * part;
            let still = (at / f64::from(film.each)) as u32;
            let sheet = still / film.per_sheet();
            prop_assert!(sheet < film.sheets() && film.on(sheet).contains(&still));
            let all: f64 = (0..film.sheets()).map(|sheet| lasts(&film, sheet)).sum();
            prop_assert!((all - duration).abs() < 1e-3);
            prop_assert!((film.time(still) - at).abs() <= f64::from(film.each) / 2.0 + 1e-6);
        }

        #[test]
        fn nothing_is_nearer(mut times in proptest::collection::vec(any::<i64>(), 1..40), at: i64, reach: u64) {
            times.sort_unstable();
            let found = nearest(&times, at, reach);
            let away = |index: usize| times[index].abs_diff(at);
            prop_assert_eq!(Some(away(found[0])), (0..times.len()).map(away).min());
            prop_assert!(found[1..].iter().all(|index| away(*index) <= reach));
        }

        #[test]
        fn any_picture(width: u32, height: u32, across: u32, down: u32, rotation: u16) {
            if let Some(images) = Images::of(&picture(width, height, (across, down), rotation), 100.0) {
                let Size { width, height } = images.size;
                prop_assert!(width >= 2 && height >= 2 && width % 2 == 0 && height % 2 == 0 && width.max(height) <= LONGEST_SIDE);
            }
        }
    }
}
