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
        Self { timing, segment, chunk: 0, pending: Vec::new(), decode: Vec::new(), order }
    }

    /// The same for samples that are found while reading: where pictures stand farther apart than the shift allows for, they are decoded
    /// ahead of time. (The shift of a table is that of its widest hole.)
    pub fn inline(timing: Timing, segment: u32, depth: u8) -> Self {
        let order = if timing.video { Order::Sorted(write::Reorder::within(depth, timing.shift)) } else { Order::Own };
        Self { order, ..Self::new(timing, segment, depth) }
    }

    /// Takes the next sample in decode order; returns the chunks that it completes.
    pub fn push(&mut self, pts: i64, key: bool, prefix: Bytes, offset: u64, len: u32) -> Vec<Part> {
        self.pending.push(Pending { pts, key, prefix, offset, len });
        match &mut self.order {
            Order::Own => self.decode.push(pts),
            Order::Sorted(reorder) => self.decode.extend(reorder.push(pts)),
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
            self.decode.extend(reorder.finish());
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
    let mut chunker = SegmentParts::new(timing, segment, depth);
    let mut parts = Vec::new();
    for sample in samples {
        parts.extend(chunker.push(sample.pts, sample.key, Bytes::new(), sample.offset, sample.size));
    }
    parts.extend(chunker.finish(end));
    parts
}

/// The shift that makes all composition offsets of a table of pictures positive, and the reorder depth: how many pictures at most are
/// decoded before one that is shown before them. `first` are the first samples of the segments, and the number of samples.
pub fn reorder_of_table(samples: &[Sample], first: &[usize]) -> (u64, u8) {
    let (mut shift, mut depth) = (0, 0);
    for (from, to) in first.iter().zip(first.iter().skip(1)) {
        let pts: Vec<i64> = samples.get(*from..*to).unwrap_or_default().iter().map(|sample| sample.pts).collect();
        shift = shift.max(write::shift_needed(&pts, &write::decode_times(&pts)));
        depth = depth.max(reorder_depth(&pts));
    }
    (shift, depth)
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

    const VIDEO: Timing = Timing { timescale: 1000, video: true, shift: 80, rolls: false };

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
        let parts = of_table(&samples, Timing { timescale: 1000, video: false, shift: 0, rolls: false }, 0, 0, 420);
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
        let (shift, depth) = reorder_of_table(&samples, &[0, 31]);
        assert_eq!((shift, depth), (40, 1));
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
