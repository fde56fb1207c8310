//! Where a film is cut into segments.
//!
//! A cut list maps segment numbers to times. The copy of a film can only be cut where decoding can begin; a conversion can be cut
//! anywhere, and is cut at every cut of the copy and about every two seconds between them, so that players can change between the
//! two without a gap. Nothing here knows bytes other than the file offsets of key frames.

use crate::container::{Codec, Index, KeyFrame, Kind, Sample, Samples, Track};

/// A copied segment lasts at least this long, in seconds: the first closed key frame after it ends the segment.
const COPY_AT_LEAST: i64 = 4;
/// A film whose closed key frames are farther apart, in seconds, is not copied: seeking in it would take too long.
const COPY_AT_MOST: i64 = 20;
/// An encoded segment lasts about this long, in seconds.
const ENCODED: f64 = 2.0;
/// What is less than this part of a step at the end of a grid is no segment of its own.
const RUNT: f64 = 0.25;
/// Sound stands at most this far, in seconds, from the pictures that it is stored beside; else the film is not interleaved.
const INTERLEAVED_WITHIN: f64 = 1.0;
/// Audio samples in one AAC frame.
pub const AAC_FRAME: i64 = 1024;
/// Sampling rate of encoded sound in hertz.
pub const AAC_RATE: u32 = 48_000;

/// The segments of one rendition: their boundaries in ticks of its timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuts {
    /// Ticks per second.
    pub timescale: u32,
    /// Presentation time at which each segment begins, strictly ascending, never empty.
    starts: Vec<i64>,
    /// Presentation time at which the last segment ends, past the last start.
    end: i64,
}

impl Cuts {
    /// Boundaries from ascending start times; starts that do not ascend or lie at or past `end` are left out.
    /// A rendition has always one segment, if only an empty one of one tick.
    pub fn new(timescale: u32, starts: impl IntoIterator<Item = i64>, end: i64) -> Self {
        let mut kept: Vec<i64> = Vec::new();
        for start in starts {
            if kept.last().is_none_or(|last| start > *last) && (start < end || kept.is_empty()) {
                kept.push(start);
            }
        }
        if kept.is_empty() {
            kept.push(0);
        }
        let end = end.max(kept.last().copied().unwrap_or(0).saturating_add(1));
        Self { timescale: timescale.max(1), starts: kept, end }
    }

    /// A grid of steps of `seconds` from 0 to `duration` seconds. A rest of less than a quarter of a step belongs to the last one: the end
    /// of a film that tells its duration in frames would be a segment with nothing in it, for which some players wait for ever.
    pub fn grid(timescale: u32, seconds: f64, duration: f64) -> Self {
        let end = ticks(duration.clamp(0.0, 1e7), timescale);
        let count = (duration / seconds.max(0.1) - RUNT).ceil().clamp(1.0, 1e6) as i64;
        Self::new(timescale, (0..count).map(|n| ticks(n as f64 * seconds, timescale)), end)
    }

    /// Number of segments, at least 1.
    pub fn count(&self) -> u32 {
        u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    /// Start of segment `n` in ticks; past the last segment it is the end of the film.
    pub fn start(&self, n: u32) -> i64 {
        self.starts.get(n as usize).copied().unwrap_or(self.end)
    }

    /// End of segment `n` in ticks.
    pub fn end(&self, n: u32) -> i64 {
        self.start(n.saturating_add(1))
    }

    /// The same cuts, and more of them about two seconds apart up to `end`, where that is later; as in [`Cuts::grid`].
    pub fn lengthened(&self, end: i64) -> Self {
        let step = ticks(ENCODED, self.timescale).max(1);
        let runt = ticks(ENCODED * RUNT, self.timescale);
        let starts = (0_i64..1_000_000).map(|n| self.end.saturating_add(n.saturating_mul(step)));
        let more = starts.take_while(|start| start.saturating_add(runt) < end);
        Self::new(self.timescale, self.starts.iter().copied().chain(more), self.end.max(end))
    }

    /// Start of segment `n` in seconds.
    pub fn start_seconds(&self, n: u32) -> f64 {
        self.start(n) as f64 / f64::from(self.timescale)
    }

    /// All boundaries in ticks: every start, then the end.
    pub fn boundaries(&self) -> impl Iterator<Item = i64> + '_ {
        self.starts.iter().copied().chain([self.end])
    }

    /// The segment that holds the time `at` (ticks); times before the film belong to the first one, after it to the last.
    pub fn segment_at(&self, at: i64) -> u32 {
        let after = self.starts.partition_point(|start| *start <= at);
        u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// How long segment `n` is shown, in ticks, at least 1: what lies before the film's beginning (the priming of a sound) is not, and
    /// counts in no playlist, or all that follows would be told late.
    pub fn shown(&self, n: u32) -> u64 {
        u64::try_from(self.end(n).max(1).saturating_sub(self.start(n).max(0))).unwrap_or(1).max(1)
    }

    /// How long segment `n` is shown, in seconds.
    pub fn seconds(&self, n: u32) -> f64 {
        self.shown(n) as f64 / f64::from(self.timescale)
    }

    /// Duration of the longest segment in seconds.
    pub fn longest(&self) -> f64 {
        (0..self.count()).map(|n| self.seconds(n)).fold(0.0, f64::max)
    }
}

/// The cuts of a film that is copied, with the bytes between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCuts {
    /// Boundaries in ticks of the video track.
    pub cuts: Cuts,
    /// The key frame with which each segment begins.
    pub keys: Vec<KeyFrame>,
    /// File offset just past the last media byte.
    pub end_byte: u64,
}

impl CopyCuts {
    /// File offset at which segment `n` begins, and the sound that is stored beside it: 0 for the first one. Of Matroska it is told to
    /// within the head of a Cluster.
    pub fn byte(&self, n: u32) -> u64 {
        match self.keys.get(n as usize) {
            Some(_) if n == 0 => 0,
            Some(key) => key.offset.saturating_add(key.block.unwrap_or(0)),
            None => self.end_byte,
        }
    }

    /// File offset at which reading for segment `n` begins (a Cluster in Matroska).
    pub fn read_from(&self, n: u32) -> u64 {
        self.keys.get(n as usize).map_or(self.end_byte, |key| key.offset)
    }
}

impl CopyCuts {
    /// Seconds and file offsets at which segments begin.
    pub fn entries(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let seconds = |pts: i64| pts as f64 / f64::from(self.cuts.timescale);
        self.keys.iter().map(move |key| (seconds(key.pts), key.offset))
    }
}

/// Why a film's pictures cannot be cut without decoding them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncuttable {
    /// The container does not tell where key frames are.
    NoIndex,
    /// Closed key frames are more than 20 s apart.
    TooSparse,
}

/// Cuts a film at its own key frames: at the first closed one at least four seconds after the last cut.
pub fn copy_cuts(index: &Index, video: &Track) -> Result<CopyCuts, Uncuttable> {
    let scale = i64::from(video.timescale);
    let end = film_end(index, video).ok_or(Uncuttable::NoIndex)?;
    let mut keys: Vec<KeyFrame> = Vec::new();
    let mut last_closed: Option<i64> = None;
    for key in &video.key_frames {
        // Before the first picture there is nothing that an open one could refer to. In HEVC, what refers to pictures before an open key
        // frame is marked (RASL), and a decoder that begins there leaves it out; in the other codecs it would show rubbish.
        if !key.closed && last_closed.is_some() && video.codec != Codec::Hevc {
            continue;
        }
        if last_closed.is_some_and(|last| key.pts - last > COPY_AT_MOST * scale) {
            return Err(Uncuttable::TooSparse);
        }
        last_closed = Some(key.pts);
        if keys.last().is_none_or(|last| key.pts - last.pts >= COPY_AT_LEAST * scale) && key.pts < end {
            keys.push(*key);
        }
    }
    let last = last_closed.ok_or(Uncuttable::NoIndex)?;
    if keys.is_empty() {
        return Err(Uncuttable::NoIndex);
    }
    if end - last > COPY_AT_MOST * scale {
        return Err(Uncuttable::TooSparse);
    }
    let cuts = Cuts::new(video.timescale, keys.iter().map(|key| key.pts), end);
    Ok(CopyCuts { cuts, keys, end_byte: index.end_byte })
}

/// Cuts of a converted picture: all cuts of the copy, and about every two seconds between them.
///
/// `copy` is in ticks of the source's video track, and so are the cuts. Where `frames` (all presentation times, ascending) are known, each
/// cut is the time of a picture. What lies before the presentation's zero is not shown, so nothing is cut there.
pub fn encoded_video_cuts(copy: Option<&Cuts>, timescale: u32, duration: f64, frames: &[i64]) -> Cuts {
    let Some(copy) = copy else {
        return Cuts::grid(timescale, ENCODED, duration);
    };
    let mut starts = Vec::new();
    for n in (0..copy.count()).filter(|n| copy.end(*n) > 0) {
        let (start, end) = (copy.start(n).max(0), copy.end(n));
        let seconds = (end - start) as f64 / f64::from(copy.timescale);
        let parts = (seconds / ENCODED).round().clamp(1.0, 1e4) as i64;
        starts.push(start);
        for part in 1..parts {
            let ideal = start + (i128::from(end - start) * i128::from(part) / i128::from(parts)) as i64;
            let at = frames.get(frames.partition_point(|pts| *pts < ideal)).copied().unwrap_or(ideal);
            if at < end {
                starts.push(at);
            }
        }
    }
    Cuts::new(copy.timescale, starts, copy.end(copy.count().saturating_sub(1)))
}

/// Cuts of encoded sound: the picture's cuts, each moved to the nearest boundary of the global grid of AAC frames (1024 at 48 kHz).
pub fn encoded_audio_cuts(video: &Cuts) -> Cuts {
    let snap = |at: i64| {
        let samples = i128::from(at) * i128::from(AAC_RATE) * 2 / i128::from(video.timescale);
        let frame = (samples + i128::from(AAC_FRAME)).div_euclid(i128::from(AAC_FRAME) * 2);
        i64::try_from(frame).unwrap_or(0).saturating_mul(AAC_FRAME)
    };
    let mut boundaries: Vec<i64> = video.boundaries().map(snap).collect();
    if let Some(first) = boundaries.first_mut() {
        *first = 0;
    }
    let end = boundaries.pop().unwrap_or(AAC_FRAME);
    Cuts::new(AAC_RATE, boundaries, end)
}

/// Which samples of a table belong to each segment of copied sound, and the cuts that follow from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleCuts {
    /// Boundaries in ticks of the track.
    pub cuts: Cuts,
    /// First sample of each segment; one more entry than there are segments, the last is the number of samples.
    pub first: Vec<usize>,
}

/// Cuts copied sound of an MP4 at the same places *of the file* as the picture: a segment of sound then needs no byte that its
/// segment of pictures does not need. Where sound and picture are not stored side by side, it is cut by time.
pub fn copied_table_cuts(copy: &CopyCuts, track: &Track) -> SampleCuts {
    let samples = match &track.samples {
        Samples::Table(samples) => samples.as_slice(),
        Samples::Inline | Samples::Blocks(_) => &[],
    };
    let by_byte = boundaries_by(copy, |n| samples.partition_point(|sample| sample.offset < copy.byte(n)), samples.len());
    let near = |n: u32, at: usize| {
        samples.get(at).is_none_or(|sample| {
            let sound = sample.pts as f64 / f64::from(track.timescale);
            (sound - copy.cuts.start_seconds(n)).abs() <= INTERLEAVED_WITHIN
        })
    };
    let ordered = samples.is_sorted_by_key(|sample| sample.offset);
    let interleaved = ordered && (1..copy.cuts.count()).all(|n| by_byte.get(n as usize).is_some_and(|at| near(n, *at)));
    let first = if interleaved {
        by_byte
    } else {
        let at = |n: u32| rescale(copy.cuts.start(n), copy.cuts.timescale, track.timescale);
        boundaries_by(copy, |n| samples.partition_point(|sample| sample.pts < at(n)), samples.len())
    };
    SampleCuts { cuts: cuts_of(track, samples, &first), first }
}

fn boundaries_by(copy: &CopyCuts, at: impl Fn(u32) -> usize, len: usize) -> Vec<usize> {
    let mut first: Vec<usize> = (0..copy.cuts.count()).map(|n| if n == 0 { 0 } else { at(n) }).collect();
    first.push(len);
    let mut floor = 0;
    for entry in &mut first {
        floor = floor.max(*entry);
        *entry = floor;
    }
    first
}

/// Segments may hold no sample (a track that ends early); each keeps its number, so starts must still ascend.
fn cuts_of(track: &Track, samples: &[Sample], first: &[usize]) -> Cuts {
    let end = samples.last().map_or(1, |sample| sample.pts.saturating_add(i64::from(sample.duration)));
    let mut starts: Vec<i64> = Vec::with_capacity(first.len());
    for at in first.iter().take(first.len().saturating_sub(1)) {
        let start = samples.get(*at).map_or(end, |sample| sample.pts);
        starts.push(starts.last().map_or(start, |last| start.max(last.saturating_add(1))));
    }
    let end = end.max(starts.last().copied().unwrap_or(0).saturating_add(1));
    Cuts::new(track.timescale, starts, end)
}

/// Which samples of a video table belong to each copied segment; as [`SampleCuts::first`].
pub fn copied_video_samples(copy: &CopyCuts, samples: &[Sample]) -> Vec<usize> {
    let mut first = Vec::with_capacity(copy.keys.len() + 1);
    let mut from = 0;
    for (n, key) in copy.keys.iter().enumerate() {
        let found = samples.get(from..).and_then(|rest| rest.iter().position(|sample| sample.key && sample.pts == key.pts));
        from += found.unwrap_or(0);
        first.push(if n == 0 { 0 } else { from });
    }
    first.push(samples.len());
    first
}

/// The film's last moment in ticks of its video track: from the sample table, else from the container's duration.
fn film_end(index: &Index, video: &Track) -> Option<i64> {
    match &video.samples {
        Samples::Table(samples) => samples.iter().map(|sample| sample.pts.saturating_add(i64::from(sample.duration))).max(),
        Samples::Inline | Samples::Blocks(_) => {
            index.duration.filter(|seconds| *seconds > 0.0).map(|seconds| ticks(seconds, video.timescale))
        }
    }
}

/// Length of the film in seconds as a person would name it: of the picture where there is one, else of the longest sound.
pub fn duration(index: &Index) -> Option<f64> {
    let of_table = |track: &Track| match &track.samples {
        Samples::Table(samples) => samples
            .iter()
            .map(|sample| sample.pts.saturating_add(i64::from(sample.duration)))
            .max()
            .map(|end| end as f64 / f64::from(track.timescale)),
        Samples::Inline | Samples::Blocks(_) => None,
    };
    let video = index.tracks.iter().find(|track| track.kind == Kind::Video).and_then(of_table);
    video.or(index.duration).filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

/// Seconds in ticks, rounded to the nearest.
pub fn ticks(seconds: f64, timescale: u32) -> i64 {
    (seconds * f64::from(timescale)).round() as i64
}

/// Ticks of one timescale in ticks of another, rounded to the nearest.
pub fn rescale(at: i64, from: u32, to: u32) -> i64 {
    let from = i128::from(from.max(1));
    let scaled = (i128::from(at) * i128::from(to) * 2 + from).div_euclid(from * 2);
    i64::try_from(scaled).unwrap_or(if at < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::container::{Container, Picture};

    fn key(pts: i64) -> KeyFrame {
        KeyFrame { pts, offset: u64::try_from(pts).unwrap_or(0) * 10, block: None, closed: true }
    }

    fn film(keys: Vec<KeyFrame>, seconds: f64) -> (Index, Track) {
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
            key_frames: keys,
            first_pts: Some(0),
            complex_edits: false,
        };
        let tracks = vec![video.clone()];
        (Index { container: Container::Matroska, duration: Some(seconds), tracks, first_byte: 5, end_byte: 1_000_000 }, video)
    }

    fn starts(cuts: &Cuts) -> Vec<i64> {
        (0..cuts.count()).map(|n| cuts.start(n)).collect()
    }

    #[test]
    fn a_grid_ends_with_no_runt() {
        let grid = |duration| Cuts::grid(1000, 2.0, duration).boundaries().collect::<Vec<_>>();
        assert_eq!(grid(6.01), [0, 2000, 4000, 6010]);
        assert_eq!(grid(6.5), [0, 2000, 4000, 6500]);
        assert_eq!(grid(6.6), [0, 2000, 4000, 6000, 6600]);
        assert_eq!(grid(0.01), [0, 10]);
    }

    #[test]
    fn what_lies_before_the_beginning_is_not_shown() {
        let primed = Cuts::new(48_000, [-1024, 202_752, 400_384], 480_000);
        assert_eq!((0..3).map(|n| primed.shown(n)).collect::<Vec<_>>(), [202_752, 197_632, 79_616]);
        assert_eq!((0..3).map(|n| primed.shown(n)).sum::<u64>(), 480_000, "the last one ends where the film does");
        assert_eq!(Cuts::new(1000, [-40, -20], 10).shown(0), 1, "nothing of it, and players know no segment without a duration");
        assert_eq!(Cuts::new(1000, [83], 1000).seconds(0), 0.917);
    }

    #[test]
    fn sound_that_goes_on_behind_the_picture_is_cut_too() {
        let cuts = Cuts::new(1000, [0, 2100], 4000);
        assert_eq!(cuts.lengthened(3999), cuts);
        assert_eq!(cuts.lengthened(4400).boundaries().collect::<Vec<_>>(), [0, 2100, 4400]);
        assert_eq!(cuts.lengthened(9000).boundaries().collect::<Vec<_>>(), [0, 2100, 4000, 6000, 8000, 9000]);
    }

    #[test]
    fn cuts_count_from_the_last_cut() {
        let (index, video) = film([0, 3000, 4500, 5000, 8400, 8500, 9000].map(key).to_vec(), 12.0);
        let copy = copy_cuts(&index, &video).expect("cuttable");
        assert_eq!(starts(&copy.cuts), [0, 4500, 8500]);
        assert_eq!(copy.cuts.end(2), 12_000);
        assert_eq!((copy.byte(0), copy.byte(1), copy.byte(3)), (0, 45_000, 1_000_000));
    }

    #[test]
    fn open_key_frames_are_no_cuts() {
        let mut keys = [0, 5000, 10_000].map(key).to_vec();
        keys[1].closed = false;
        let (index, video) = film(keys, 12.0);
        assert_eq!(starts(&copy_cuts(&index, &video).expect("cuttable").cuts), [0, 10_000]);
        let video = Track { codec: Codec::Hevc, ..video };
        assert_eq!(starts(&copy_cuts(&index, &video).expect("cuttable").cuts), [0, 5000, 10_000]);
    }

    #[test]
    fn sparse_key_frames_are_not_copied() {
        let (index, video) = film([0, 21_000].map(key).to_vec(), 25.0);
        assert_eq!(copy_cuts(&index, &video), Err(Uncuttable::TooSparse));
        let (index, video) = film(vec![key(0)], 25.0);
        assert_eq!(copy_cuts(&index, &video), Err(Uncuttable::TooSparse));
        let (index, video) = film(vec![], 25.0);
        assert_eq!(copy_cuts(&index, &video), Err(Uncuttable::NoIndex));
    }

    #[test]
    fn encoded_cuts_keep_every_cut_of_the_copy() {
        let copy = Cuts::new(1000, [0, 10_400, 14_500], 15_000);
        let frames: Vec<i64> = (0..375).map(|n| n * 40).collect();
        let cuts = encoded_video_cuts(Some(&copy), 1000, 15.0, &frames);
        assert_eq!(starts(&cuts), [0, 2080, 4160, 6240, 8320, 10_400, 12_480, 14_500]);
        let sound = encoded_audio_cuts(&cuts);
        assert!(starts(&sound).iter().all(|at| at % AAC_FRAME == 0));
        assert_eq!(sound.count(), cuts.count());
    }

    #[test]
    fn sound_that_is_not_interleaved_is_cut_by_time() {
        let (_, video) = film([0, 5000].map(key).to_vec(), 10.0);
        let (index, _) = film(video.key_frames.clone(), 10.0);
        let copy = copy_cuts(&index, &video).expect("cuttable");
        let sample = |n: i64, offset| Sample { offset, pts: n * 20, size: 10, duration: 20, key: true };
        let beside: Vec<Sample> = (0..500).map(|n| sample(n, n as u64 * 200 + 7)).collect();
        let behind: Vec<Sample> = (0..500).map(|n| sample(n, 2_000_000 + n as u64 * 10)).collect();
        for (samples, first) in [(beside, 250), (behind, 250)] {
            let track = Track { samples: Samples::Table(samples), ..video.clone() };
            assert_eq!(copied_table_cuts(&copy, &track).first, [0, first, 500]);
        }
    }

    proptest! {
        #[test]
        fn every_time_lies_in_its_segment(steps in proptest::collection::vec(1i64..30_000, 1..200), at in 0i64..5_000_000) {
            let mut time = 0;
            let starts: Vec<i64> = steps.iter().map(|step| { time += step; time - step }).collect();
            let cuts = Cuts::new(1000, starts, time);
            let n = cuts.segment_at(at);
            prop_assert!(n < cuts.count());
            if at < time {
                prop_assert!(cuts.start(n) <= at && at < cuts.end(n));
            }
        }

        #[test]
        fn encoded_cuts_are_about_two_seconds(steps in proptest::collection::vec(4000i64..20_000, 1..50)) {
            let mut time = 0;
            let starts: Vec<i64> = steps.iter().map(|step| { time += step; time - step }).collect();
            let copy = Cuts::new(1000, starts.clone(), time);
            let cuts = encoded_video_cuts(Some(&copy), 1000, time as f64 / 1000.0, &[]);
            for n in 0..cuts.count() {
                prop_assert!((1.5..=3.0).contains(&cuts.seconds(n)));
            }
            for start in starts {
                prop_assert_eq!(cuts.start(cuts.segment_at(start)), start);
            }
        }
    }
}
