//! Which seconds of a film are here, from which bytes of its file are: for the bar below a player.
//!
//! Key frames are the known places; between two of them time is taken to pass evenly with the bytes. That is exact enough for a picture,
//! and nothing else may rest on it: whether a segment can be sent is asked of its bytes.

use std::ops::Range;

use crate::container::Index;

/// Most spans that are told of one film.
pub const MAX_SPANS: usize = 64;
/// Spans that are so close to each other, in seconds, are one.
const TOUCHING: f64 = 0.05;

/// Where times of a film lie in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeMap {
    /// Byte and second, both strictly ascending; at least two.
    knots: Vec<(u64, f64)>,
}

impl TimeMap {
    /// Of a film of `duration` seconds in a file of `len` bytes.
    pub fn of(index: &Index, duration: f64, len: u64) -> Self {
        // No film lasts thirty years.
        let duration = if duration.is_finite() { duration.clamp(0.0, 1e9) } else { 0.0 };
        let last = (if index.end_byte == 0 { len } else { index.end_byte.min(len) }).max(1);
        let mut knots = vec![(index.first_byte.min(last - 1), 0.0)];
        let keys = index.video().map(|video| (video.key_frames.as_slice(), f64::from(video.timescale.max(1))));
        let mut keys: Vec<(u64, f64)> =
            keys.into_iter().flat_map(|(keys, scale)| keys.iter().map(move |key| (key.offset, key.pts as f64 / scale))).collect();
        keys.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (byte, second) in keys {
            let after = knots.last().is_none_or(|known| byte > known.0 && second > known.1);
            if after && byte < last && second < duration {
                knots.push((byte, second));
            }
        }
        knots.push((last, duration));
        Self { knots }
    }

    /// The second that is stored at a byte.
    fn second(&self, byte: u64) -> f64 {
        let at = self.knots.partition_point(|knot| knot.0 <= byte);
        let (before, after) = (at.checked_sub(1).and_then(|before| self.knots.get(before)), self.knots.get(at));
        match (before, after) {
            (Some((from, begin)), Some((to, end))) => begin + (end - begin) * ((byte - from) as f64 / (to - from) as f64),
            (Some((_, end)), None) => *end,
            (None, Some((_, begin))) => *begin,
            (None, None) => 0.0,
        }
    }

    /// The spans `[from, to]` of the film in seconds that these ascending ranges of its file hold: ascending, apart from each other, to a
    /// tenth of a second. Where there would be more than [`MAX_SPANS`], the shortest ones are left out.
    pub fn spans(&self, here: &[Range<u64>]) -> Vec<[f64; 2]> {
        let mut spans: Vec<[f64; 2]> = Vec::new();
        for range in here {
            let (from, to) = (self.second(range.start), self.second(range.end));
            match spans.last_mut() {
                Some(last) if from <= last[1] + TOUCHING => last[1] = last[1].max(to),
                _ => spans.push([from, to]),
            }
        }
        let tenths = |second: f64| (second * 10.0).round() / 10.0;
        let mut spans: Vec<[f64; 2]> =
            spans.into_iter().map(|[from, to]| [tenths(from), tenths(to)]).filter(|[from, to]| to > from).collect();
        if spans.len() > MAX_SPANS {
            spans.sort_by(|a, b| (b[1] - b[0]).total_cmp(&(a[1] - a[0])));
            spans.truncate(MAX_SPANS);
            spans.sort_by(|a, b| a[0].total_cmp(&b[0]));
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::container::{Codec, Container, KeyFrame, Kind, Picture, Samples, Track};

    /// A film whose key frames lie at these bytes and seconds.
    fn index(keys: &[(u64, i64)], first_byte: u64, end_byte: u64) -> Index {
        let key_frames = keys.iter().map(|(offset, second)| KeyFrame { pts: second * 1000, offset: *offset, block: None, closed: true });
        let video = Track {
            id: 1,
            stream: 0,
            kind: Kind::Video,
            codec: Codec::H264,
            config: bytes::Bytes::new(),
            timescale: 1000,
            language: "und".into(),
            title: String::new(),
            default: true,
            forced: false,
            bitrate: None,
            video: Some(Picture::default()),
            audio: None,
            samples: Samples::Inline,
            key_frames: key_frames.collect(),
            first_pts: Some(0),
            complex_edits: false,
        };
        Index { container: Container::Mp4, duration: None, tracks: vec![video], first_byte, end_byte }
    }

    #[test]
    fn bytes_are_seconds() {
        // A head of 100 bytes, a slow half and a quick half, a tail of 100 bytes.
        let map = TimeMap::of(&index(&[(100, 0), (200, 10), (1100, 20)], 100, 2000), 30.0, 2100);
        type Case<'a> = (&'a str, &'a [(u64, u64)], &'a [[f64; 2]]);
        let cases: [Case<'_>; 9] = [
            ("nothing", &[], &[]),
            ("the head alone", &[(0, 100)], &[]),
            ("the tail alone", &[(2000, 2100)], &[]),
            ("all", &[(0, 2100)], &[[0.0, 30.0]]),
            ("up to a key frame", &[(0, 200)], &[[0.0, 10.0]]),
            ("within two key frames", &[(650, 1100)], &[[15.0, 20.0]]),
            ("two pieces", &[(0, 150), (1100, 2000)], &[[0.0, 5.0], [20.0, 30.0]]),
            ("pieces side by side", &[(100, 150), (150, 200)], &[[0.0, 10.0]]),
            ("less than a tenth of a second", &[(100, 100)], &[]),
        ];
        for (what, here, expected) in cases {
            let here: Vec<Range<u64>> = here.iter().map(|(from, to)| *from..*to).collect();
            assert_eq!(map.spans(&here), expected, "{what}");
        }
    }

    #[test]
    fn a_film_without_key_frames_passes_evenly() {
        let none = Index { container: Container::Other, duration: None, tracks: Vec::new(), first_byte: 0, end_byte: 0 };
        assert_eq!(TimeMap::of(&none, 60.0, 600).spans(&[0..60, 300..600]), [[0.0, 6.0], [30.0, 60.0]]);
        for (duration, len) in [(f64::NAN, 0), (-1.0, 5), (f64::INFINITY, 1), (0.0, 0)] {
            assert_eq!(TimeMap::of(&none, duration, len).spans(std::slice::from_ref(&(0..u64::MAX))), [[0.0; 2]; 0], "{duration} {len}");
        }
    }

    #[test]
    fn of_too_many_spans_the_longest_are_told() {
        let none = Index { container: Container::Other, duration: None, tracks: Vec::new(), first_byte: 0, end_byte: 10_000 };
        let map = TimeMap::of(&none, 10_000.0, 10_000);
        let scattered: Vec<Range<u64>> = (0..100).map(|n| n * 100..n * 100 + n + 1).collect();
        let spans = map.spans(&scattered);
        assert_eq!((spans.len(), spans[0]), (MAX_SPANS, [3600.0, 3637.0]));
        assert!(spans.is_sorted_by(|a, b| a[1] < b[0]), "{spans:?}");
    }

    proptest! {
        #[test]
        fn no_film_and_no_ranges_make_it_stumble(
            keys in proptest::collection::vec((any::<u64>(), any::<i32>()), 0..20),
            first in any::<u64>(), end in any::<u64>(), len in any::<u64>(), duration in any::<f64>(),
            mut bytes in proptest::collection::vec(any::<u64>(), 0..300),
        ) {
            bytes.sort_unstable();
            let keys: Vec<(u64, i64)> = keys.into_iter().map(|(offset, second)| (offset, i64::from(second))).collect();
            let ranges: Vec<Range<u64>> = bytes.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let spans = TimeMap::of(&index(&keys, first, end), duration, len).spans(&ranges);
            prop_assert!(spans.len() <= MAX_SPANS);
            prop_assert!(spans.iter().all(|[from, to]| *from >= 0.0 && to > from && *to <= duration + 0.1));
            prop_assert!(spans.is_sorted_by(|a, b| a[1] <= b[0]));
        }
    }
}
