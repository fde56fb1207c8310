//! Copied segments, described without their media: headers that we write, and ranges of the film's file.
//!
//! A copied segment never exists as a file. It is a list of parts whose media stays where it is, in the film. Where the container
//! has a table of samples the whole list follows from the index; else it grows while the container's blocks are read. Nothing here
//! reads the film's media.

use bytes::Bytes;

use crate::container::{Frame, Sample};
use crate::fmp4::Row;
use crate::fmp4::write::{self, Coded};

/// A stretch of a copied segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Bytes that we wrote: `styp`, `moof`, the header of `mdat`.
    Bytes(Bytes),
    /// Media, where it stands in the film's file.
    Film {
        /// File offset in bytes.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// How the samples of a track are put on the rendition's time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Ticks per second.
    pub timescale: u32,
    /// Pictures, whose decode times are their sorted presentation times; sound is decoded in the order of its times.
    pub video: bool,
    /// Ticks added to composition offsets (pictures) or decode times (sound), and taken back by the init segment's edit list.
    pub shift: u64,
    /// Ticks, part of `shift`, by which the decode times of a segment may be moved on whose key frame is not what it shows first (an open
    /// group of pictures): it then begins at its key frame like any other. 0 where that does not happen.
    pub lead: u64,
    /// The init segment tells a [`roll`](crate::fmp4::write::SoundEntry::roll), of which every sample is to be a member.
    pub rolls: bool,
}

/// A sample on its way into a chunk.
#[derive(Debug, Clone)]
struct Pending {
    pts: i64,
    key: bool,
    prefix: Bytes,
    offset: u64,
    len: u32,
}

/// Turns the samples of one segment into chunks of about half a second.
///
/// A chunk is closed by the decode times of its samples alone, so that the parts are the same however the samples arrive.
#[derive(Debug)]
pub struct SegmentParts {
    timing: Timing,
    segment: u32,
    chunk: u32,
    /// Samples in decode order that are not in a chunk yet, with those decode times that are final.
    pending: Vec<Pending>,
    decode: Vec<i64>,
    order: Order,
    /// Presentation time of the first sample.
    key: Option<i64>,
    /// How much earlier the earliest picture is shown than the key frame, once that is known.
    ahead: Option<i64>,
    /// The last decode time.
    last: Option<i64>,
    /// Where the segment ends, as far as it is known before its samples are.
    until: Option<i64>,
}

/// How decode times are found.
#[derive(Debug)]
enum Order {
    /// Sound: each sample's own time.
    Own,
    /// Pictures: sorted, as soon as no later picture can come before.
    Sorted(write::Reorder),
}

impl SegmentParts {
    /// Chunks of segment number `segment`; `depth` is how many pictures may be decoded before one that is shown first.
    pub fn new(timing: Timing, segment: u32, depth: u8) -> Self {
        let order = if timing.video { Order::Sorted(write::Reorder::new(depth)) } else { Order::Own };
        Self { timing, segment, chunk: 0, pending: Vec::new(), decode: Vec::new(), order, key: None, ahead: None, last: None, until: None }
    }

    /// Of a segment that ends at `until` ticks: decode times that are moved on (see [`Timing::lead`]) stay before it.
    #[must_use]
    pub const fn ending(mut self, until: i64) -> Self {
        self.until = Some(until);
        self
    }

    /// The same for samples that are found while reading: where pictures stand farther apart than the shift allows for, they are decoded
    /// ahead of time. (The shift of a table is that of its widest hole.)
    pub fn inline(timing: Timing, segment: u32, depth: u8) -> Self {
        let order =
            if timing.video { Order::Sorted(write::Reorder::within(depth, timing.shift.saturating_sub(timing.lead))) } else { Order::Own };
        Self { order, ..Self::new(timing, segment, depth) }
    }

    /// Takes the next sample in decode order; returns the chunks that it completes.
    pub fn push(&mut self, pts: i64, key: bool, prefix: Bytes, offset: u64, len: u32) -> Vec<Part> {
        self.pending.push(Pending { pts, key, prefix, offset, len });
        self.key.get_or_insert(pts);
        match &mut self.order {
            Order::Own => self.decode.push(pts),
            Order::Sorted(reorder) => {
                let time = reorder.push(pts);
                self.decode_at(time);
            }
        }
        let mut parts = Vec::new();
        while let Some(close) = self.closes() {
            self.close(close, None, &mut parts);
        }
        parts
    }

    /// [`SegmentParts::push`] of a frame that was found inline.
    pub fn push_frame(&mut self, frame: Frame) -> Vec<Part> {
        self.push(frame.pts, frame.key, frame.prefix, frame.offset, frame.len)
    }

    /// No sample follows in this segment, which ends at `end` ticks. A segment without samples is a valid empty one that begins there.
    pub fn finish(mut self, end: i64) -> Vec<Part> {
        if let Order::Sorted(reorder) = &mut self.order {
            let times = reorder.finish();
            self.decode_at(times);
        }
        let mut parts = Vec::new();
        while let Some(close) = self.closes() {
            self.close(close, None, &mut parts);
        }
        if !self.pending.is_empty() {
            self.close(self.pending.len(), Some(end), &mut parts);
        } else if self.chunk == 0 {
            parts.push(Part::Bytes(write::chunk(self.sequence(), self.base(end), &[], true)));
        }
        parts
    }

    /// Takes sorted presentation times as decode times. All are moved on by as much as the first is before the key frame, so that the
    /// segment does not reach back into the one before; at its end they close up, where the next segment leads less.
    fn decode_at(&mut self, times: impl IntoIterator<Item = i64>) {
        const CLOSE_UP: i64 = 8;
        for time in times {
            let lead = i64::try_from(self.timing.lead).unwrap_or(i64::MAX);
            let ahead = *self.ahead.get_or_insert_with(|| self.key.unwrap_or(time).saturating_sub(time).clamp(0, lead));
            let latest = self.until.filter(|until| time < *until).map_or(i64::MAX, |until| until - (until - time) / CLOSE_UP);
            let moved = if ahead == 0 { time } else { time.saturating_add(ahead).min(latest) };
            let after = self.last.map_or(moved, |last| moved.max(last.saturating_add(1)));
            self.last = Some(after);
            self.decode.push(after);
        }
    }

    /// Number of samples of a chunk that is complete: half a second of them, and the time of the next is known.
    fn closes(&self) -> Option<usize> {
        let first = self.decode.first()?;
        let half = i64::from(self.timing.timescale / 2);
        let at = self.decode.iter().position(|dts| dts - first >= half)?;
        (at > 0).then_some(at)
    }

    fn close(&mut self, count: usize, end: Option<i64>, parts: &mut Vec<Part>) {
        let Some(first) = self.decode.first().copied() else {
            return;
        };
        let rows: Vec<Row> = (0..count).filter_map(|at| self.row(at, end)).collect();
        let chunk = if self.timing.rolls { write::rolling_chunk } else { write::chunk };
        parts.push(Part::Bytes(chunk(self.sequence(), self.base(first), &rows, self.chunk == 0)));
        for sample in self.pending.drain(..count.min(self.pending.len())) {
            append(parts, sample.prefix, sample.offset, u64::from(sample.len));
        }
        self.decode.drain(..count.min(self.decode.len()));
        self.chunk += 1;
    }

    fn row(&self, at: usize, end: Option<i64>) -> Option<Row> {
        let (sample, dts) = (self.pending.get(at)?, *self.decode.get(at)?);
        let next = self.decode.get(at + 1).copied().or(end).unwrap_or(dts);
        let size = sample.len.saturating_add(u32::try_from(sample.prefix.len()).unwrap_or(0));
        let coded = Coded { pts: sample.pts, size, key: sample.key };
        let shift = if self.timing.video { self.timing.shift } else { 0 };
        Some(write::row(&coded, dts, next, shift))
    }

    fn base(&self, dts: i64) -> u64 {
        let shift = if self.timing.video { 0 } else { self.timing.shift };
        u64::try_from(dts.saturating_add_unsigned(shift)).unwrap_or(0)
    }

    fn sequence(&self) -> u32 {
        self.segment.wrapping_mul(256).wrapping_add(self.chunk).wrapping_add(1)
    }
}

/// The parts of a segment whose samples stand in a table. `end` is the time at which it ends, in ticks.
pub fn of_table(samples: &[Sample], timing: Timing, segment: u32, depth: u8, end: i64) -> Vec<Part> {
    let mut chunker = SegmentParts::new(timing, segment, depth).ending(end);
    let mut parts = Vec::new();
    for sample in samples {
        parts.extend(chunker.push(sample.pts, sample.key, Bytes::new(), sample.offset, sample.size));
    }
    parts.extend(chunker.finish(end));
    parts
}

/// How the pictures of a table are reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reordering {
    /// [`Timing::shift`]: makes all composition offsets positive.
    pub shift: u64,
    /// [`Timing::lead`]
    pub lead: u64,
    /// How many pictures at most are decoded before one that is shown before them.
    pub depth: u8,
}

/// How the pictures of a table are reordered. `first` are the first samples of the segments, and the number of samples.
pub fn reorder_of_table(samples: &[Sample], first: &[usize]) -> Reordering {
    let Reordering { mut shift, mut lead, mut depth } = Reordering::default();
    for (from, to) in first.iter().zip(first.iter().skip(1)) {
        let pts: Vec<i64> = samples.get(*from..*to).unwrap_or_default().iter().map(|sample| sample.pts).collect();
        shift = shift.max(write::shift_needed(&pts, &write::decode_times(&pts)));
        depth = depth.max(reorder_depth(&pts));
        let earliest = pts.iter().min().zip(pts.first());
        lead = lead.max(earliest.map_or(0, |(earliest, key)| key.saturating_sub(*earliest).unsigned_abs()));
    }
    Reordering { shift: shift.saturating_add(lead), lead, depth }
}

/// Most pictures that stand before one in decode order and after it in time.
fn reorder_depth(pts: &[i64]) -> u8 {
    // No decoder holds back more than 16 pictures (H.264 and HEVC), so nobody needs to look farther.
    let before = |at: usize| pts.get(at.saturating_sub(32)..at).unwrap_or_default();
    let depth = pts.iter().enumerate().map(|(at, own)| before(at).iter().filter(|earlier| *earlier > own).count()).max();
    u8::try_from(depth.unwrap_or(0)).unwrap_or(u8::MAX)
}

/// Puts media behind the last part, as one range with it where they touch.
fn append(parts: &mut Vec<Part>, prefix: Bytes, offset: u64, len: u64) {
    if !prefix.is_empty() {
        parts.push(Part::Bytes(prefix));
    } else if let Some(Part::Film { offset: from, len: so_far }) = parts.last_mut()
        && *from + *so_far == offset
    {
        *so_far += len;
        return;
    }
    if len > 0 {
        parts.push(Part::Film { offset, len });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO: Timing = Timing { timescale: 1000, video: true, shift: 80, lead: 0, rolls: false };

    /// A picture group of the shape I P B B P B B, 40 ms each, from `start` on.
    fn group(start: i64, len: usize) -> Vec<Sample> {
        let order = |n: usize| match n % 3 {
            _ if n == 0 => 0,
            1 => n + 2,
            _ => n - 1,
        };
        let mut samples: Vec<Sample> = (0..len)
            .map(|n| Sample { offset: 1000 + n as u64 * 150, pts: start + order(n) as i64 * 40, size: 100, duration: 40, key: n == 0 })
            .collect();
        let mut times: Vec<i64> = samples.iter().map(|sample| sample.pts).collect();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), len, "each picture has its own time");
        samples.iter_mut().for_each(|sample| sample.duration = 40);
        samples
    }

    fn payload(parts: &[Part]) -> Vec<(u64, u64)> {
        parts.iter().filter_map(|part| if let Part::Film { offset, len } = part { Some((*offset, *len)) } else { None }).collect()
    }

    #[test]
    fn chunks_last_about_half_a_second() {
        let samples = group(4000, 100);
        let parts = of_table(&samples, VIDEO, 1, 2, 8000);
        let headers = parts.iter().filter(|part| matches!(part, Part::Bytes(_))).count();
        assert_eq!(headers, 8, "4 s in chunks of 13 pictures");
        assert_eq!(payload(&parts).iter().map(|(_, len)| len).sum::<u64>(), 100 * 100);
    }

    #[test]
    fn media_that_touches_is_one_range() {
        let samples: Vec<Sample> =
            (0..20).map(|n| Sample { offset: 50 + n * 10, pts: n as i64 * 21, size: 10, duration: 21, key: true }).collect();
        let parts = of_table(&samples, Timing { timescale: 1000, video: false, shift: 0, lead: 0, rolls: false }, 0, 0, 420);
        assert_eq!(payload(&parts), [(50, 200)]);
    }

    #[test]
    fn a_segment_without_samples_is_a_valid_empty_one() {
        let parts = of_table(&[], VIDEO, 3, 2, 8000);
        assert_eq!(parts, [Part::Bytes(write::chunk(3 * 256 + 1, 8000, &[], true))]);
    }

    #[test]
    fn reorder_of_a_pyramid() {
        let samples = group(0, 31);
        assert_eq!(reorder_of_table(&samples, &[0, 31]), Reordering { shift: 40, lead: 0, depth: 1 });
    }

    /// Decode times and durations of a segment, by our own reader.
    fn times(parts: &[Part]) -> Vec<(i64, i64, u32)> {
        let timescale = 1000;
        let config = Bytes::from_static(b"\x01\x64\0\x1e\xff\xe0\0");
        let raster = write::Raster { width: 2, height: 2, pixel_aspect: (1, 1), ..write::Raster::default() };
        let entry = write::Entry::Avc { config, raster };
        let init = write::InitTrack { entry, timescale, language: "und".into(), duration: None, media_time: 0 };
        let mut reader = crate::fmp4::read::Reader::new();
        reader.push(write::init(&init));
        for part in parts {
            reader.push(match part {
                Part::Bytes(bytes) => bytes.clone(),
                Part::Film { len, .. } => Bytes::from(vec![0; usize::try_from(*len).expect("small")]),
            });
        }
        let mut found = Vec::new();
        while let Some(event) = reader.next().expect("whole") {
            if let crate::fmp4::read::Event::Packet(packet) = event {
                found.push((packet.pts, packet.dts, packet.duration));
            }
        }
        found
    }

    #[test]
    fn an_open_group_begins_at_its_key_frame() {
        let sample = |pts: i64, key| Sample { offset: 0, pts, size: 1, duration: 40, key };
        // Two pictures of each group are shown before its key frame, but none of the third group.
        let film = [
            (80, true),
            (0, false),
            (40, false),
            (120, false),
            (240, true),
            (160, false),
            (200, false),
            (280, false),
            (320, true),
            (360, false),
        ];
        let samples: Vec<Sample> = film.map(|(pts, key)| sample(pts, key)).to_vec();
        let first = [0, 4, 8, 10];
        let told = reorder_of_table(&samples, &first);
        assert_eq!(told, Reordering { shift: 120, lead: 80, depth: 1 });
        let timing = Timing { timescale: 1000, video: true, shift: told.shift, lead: told.lead, rolls: false };
        let ends = [240, 320, 400];
        let segment = |n: usize| times(&of_table(&samples[first[n]..first[n + 1]], timing, n as u32, told.depth, ends[n]));
        assert_eq!(segment(0).iter().map(|(_, dts, _)| *dts).collect::<Vec<_>>(), [80, 120, 160, 200]);
        // Where the next group does not lead, decode times close up before it.
        assert_eq!(segment(1).iter().map(|(_, dts, _)| *dts).collect::<Vec<_>>(), [240, 280, 310, 315]);
        for n in 0..3 {
            let rows = segment(n);
            let shown: Vec<i64> = rows.iter().map(|(pts, ..)| pts - 120).collect();
            assert_eq!(shown, samples[first[n]..first[n + 1]].iter().map(|sample| sample.pts).collect::<Vec<_>>());
            assert!(rows.iter().all(|(pts, dts, _)| pts >= dts));
            let end = rows.last().map(|(_, dts, duration)| dts + i64::from(*duration));
            assert_eq!(end, Some(ends[n]), "segment {n}");
        }
    }

    proptest! {
        #[test]
        fn the_same_parts_however_deep_the_known_reorder_is(len in 1usize..200, deeper in 0u8..4) {
            let len = len / 3 * 3 + 1;
            let samples = group(0, len);
            let end = len as i64 * 40;
            prop_assert_eq!(of_table(&samples, VIDEO, 0, 2, end), of_table(&samples, VIDEO, 0, 2 + deeper, end));
        }
    }
}
