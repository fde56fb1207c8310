//! From ffmpeg's packets to segments: what is dropped, where a segment ends, and what each chunk holds.
//!
//! Pure: packets on the film's time line go in, [`Made`] comes out. Whichever run of ffmpeg a packet comes from, and wherever that run
//! began, the same film gives the same times, because segments begin at the key frame that belongs to their cut (pictures) or at the
//! cut's place on the global grid (sound), and decode times follow from presentation times alone.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use balcony_media::ffmpeg::AAC_FRAME;
use balcony_media::fmp4::Row;
use balcony_media::fmp4::write::{Chunker, Coded, Reorder, chunk, row};
use bytes::{Bytes, BytesMut};

/// How long a chunk should be.
const CHUNK_MS: u32 = 500;

/// Most chunks of a segment: ten minutes. No cut lists make such segments; an encoder that never makes a key frame again would.
const MOST_CHUNKS: u32 = 1200;

/// What a run hands on, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// The init segment. Comes first and once; the same for all runs of a rendition.
    Init(Bytes),
    /// The next chunk of a segment.
    Chunk {
        /// Number of the segment.
        segment: u32,
        /// `moof` and `mdat`, behind a `styp` where it is the first.
        bytes: Bytes,
        /// Whether the segment begins with it.
        first: bool,
    },
    /// The segment is whole.
    SegmentDone {
        /// Its number.
        segment: u32,
    },
    /// ffmpeg failed within this segment: what was handed on of it is void, it comes again from its first chunk.
    Again {
        /// Its number.
        segment: u32,
    },
    /// Nothing follows.
    End,
}

/// A packet on the film's time line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Presentation time in ticks of the rendition.
    pub pts: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// The coded bytes.
    pub data: Bytes,
}

/// The encoder did what it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// It goes on and on.
    #[error("the encoder makes no key frames")]
    Endless,
    /// A segment should begin, and does not.
    #[error("the encoder makes no key frame where one was asked for")]
    Missing,
}

/// Where segments begin, and in which ticks.
#[derive(Debug, Clone)]
pub struct Grid {
    /// Cuts in ticks: segment `n` lies between `cuts[n]` and `cuts[n + 1]`. Ascending, at least two.
    pub cuts: Arc<[i64]>,
    /// Ticks per second.
    pub timescale: u32,
    /// Ordinary length of a sample in ticks.
    pub frame: u32,
}

impl Grid {
    /// Number of segments.
    pub fn segments(&self) -> u32 {
        u32::try_from(self.cuts.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Where segment `n` begins, or the film ends; the last cut for numbers beyond.
    pub fn cut(&self, n: u32) -> i64 {
        self.cuts.get(n as usize).or_else(|| self.cuts.last()).copied().unwrap_or(0)
    }

    /// The last segment among those before `end` whose cut is not after `time`, looking from `from` on.
    fn segment_at(&self, time: i64, from: u32, end: u32) -> Option<u32> {
        (from..end).take_while(|n| self.cut(*n) <= time).last()
    }
}

/// Writes the chunks of one segment after the other.
struct Packager {
    grid: Grid,
    segment: u32,
    written: u32,
    chunker: Chunker,
    base: Option<i64>,
    rows: Vec<Row>,
    data: Vec<Bytes>,
    made: VecDeque<Made>,
}

impl Packager {
    fn new(grid: Grid, segment: u32) -> Self {
        let chunker = Chunker::new(grid.timescale, CHUNK_MS);
        Self { grid, segment, written: 0, chunker, base: None, rows: Vec::new(), data: Vec::new(), made: VecDeque::new() }
    }

    /// The next sample of the segment, decoded at `dts`.
    fn sample(&mut self, dts: i64, row: Row, data: Bytes) {
        self.base.get_or_insert(dts);
        self.rows.push(row);
        self.data.push(data);
        if self.chunker.push(row.duration) {
            self.flush();
        }
    }

    /// Hands on what there is as a chunk.
    fn flush(&mut self) {
        let Some(base) = self.base.take() else { return };
        let rows = mem::take(&mut self.rows);
        let head = self.head(base, &rows);
        let data = mem::take(&mut self.data);
        let mut bytes = BytesMut::with_capacity(head.len() + data.iter().map(Bytes::len).sum::<usize>());
        bytes.extend_from_slice(&head);
        data.iter().for_each(|data| bytes.extend_from_slice(data));
        self.hand_on(bytes.freeze());
    }

    fn head(&self, base: i64, rows: &[Row]) -> Bytes {
        // Unlike a count of all chunks ever made, this is the same in every run.
        let sequence = self.segment.saturating_mul(256).saturating_add(self.written.min(255)).saturating_add(1);
        chunk(sequence, u64::try_from(base).unwrap_or(0), rows, self.written == 0)
    }

    fn hand_on(&mut self, bytes: Bytes) {
        self.made.push_back(Made::Chunk { segment: self.segment, bytes, first: self.written == 0 });
        self.written += 1;
    }

    /// Ends the segment, with an empty chunk if it has none, and goes on to the next.
    fn close(&mut self) {
        self.flush();
        if self.written == 0 {
            let head = self.head(self.grid.cut(self.segment), &[]);
            self.hand_on(head);
        }
        self.made.push_back(Made::SegmentDone { segment: self.segment });
        self.segment += 1;
        self.written = 0;
        self.chunker = Chunker::new(self.grid.timescale, CHUNK_MS);
    }

    /// Ends segments until `segment` is the one to be written.
    fn close_until(&mut self, segment: u32) {
        while self.segment < segment {
            self.close();
        }
    }
}

/// Assembles the segments `from..until` of a rendition.
pub struct Assembler {
    until: u32,
    packager: Packager,
    kind: Kind,
}

enum Kind {
    Pictures(Pictures),
    Sound {
        /// Number of the next frame of the grid.
        next: Option<i64>,
    },
}

struct Pictures {
    slack: i64,
    shift: u64,
    wary: bool,
    open: bool,
    reorder: Reorder,
    waiting: VecDeque<(Coded, Bytes)>,
    times: VecDeque<i64>,
}

impl Assembler {
    /// For pictures. A key frame up to `slack` ticks before a cut belongs to it. `reorder` is the number of pictures that the encoder may
    /// hold back, `shift` what composition offsets are shifted by, in ticks.
    pub fn pictures(grid: Grid, from: u32, until: u32, slack: i64, reorder: u32, shift: u64) -> Self {
        let depth = u8::try_from(reorder).unwrap_or(16);
        // Pictures of a variable rate, and those around a broken stretch, stand farther apart than the shift was made for.
        let reorder = if shift > 0 { Reorder::within(depth, shift) } else { Reorder::new(depth) };
        let pictures = Pictures { slack, shift, wary: false, open: false, reorder, waiting: VecDeque::new(), times: VecDeque::new() };
        Self { until, packager: Packager::new(grid, from), kind: Kind::Pictures(pictures) }
    }

    /// The same, of an encoder that is not relied upon: the first picture at or behind a cut must be a key frame.
    pub fn wary(mut self) -> Self {
        if let Kind::Pictures(pictures) = &mut self.kind {
            pictures.wary = true;
        }
        self
    }

    /// For AAC. All cuts must lie on the grid of 1024 samples.
    pub fn sound(grid: Grid, from: u32, until: u32) -> Self {
        Self { until, packager: Packager::new(grid, from), kind: Kind::Sound { next: None } }
    }

    /// The segment that is being assembled, or will be next.
    pub fn segment(&self) -> u32 {
        self.packager.segment
    }

    /// Whether something of that segment was handed on.
    pub fn within_segment(&self) -> bool {
        self.packager.written > 0
    }

    /// Whether the first sample that counts has come.
    pub fn begun(&self) -> bool {
        match &self.kind {
            Kind::Pictures(pictures) => pictures.open,
            Kind::Sound { next } => next.is_some(),
        }
    }

    /// Whether all that was asked for is made.
    pub fn done(&self) -> bool {
        self.packager.segment >= self.until
    }

    /// What is ready to be handed on.
    pub fn take(&mut self) -> Option<Made> {
        self.packager.made.pop_front()
    }

    /// The next packet in decode order.
    pub fn push(&mut self, sample: Sample) -> Result<(), Misplaced> {
        if self.done() {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Pictures(pictures) => pictures.push(&mut self.packager, self.until, sample),
            Kind::Sound { next } => {
                push_frame(next, &mut self.packager, self.until, sample);
                Ok(())
            }
        }
    }

    /// The film is over: what is left becomes the end of its segment, and all segments behind it are empty.
    pub fn finish(&mut self) {
        if self.done() {
            return;
        }
        if let Kind::Pictures(pictures) = &mut self.kind {
            let told = self.packager.grid.cut(self.packager.grid.segments());
            pictures.drain(&mut self.packager, told, Ending::Film);
        }
        self.packager.close_until(self.until);
    }
}

/// What follows the last picture of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// A picture that is shown at the end of this segment.
    Picture,
    /// Nothing: the end that the container tells may be wrong.
    Film,
}

impl Pictures {
    fn push(&mut self, packager: &mut Packager, until: u32, sample: Sample) -> Result<(), Misplaced> {
        if sample.key && !self.turn(packager, until, sample.pts) {
            return Ok(());
        }
        if !self.open {
            return Ok(());
        }
        if self.wary && !sample.key && packager.segment + 1 < until && sample.pts >= packager.grid.cut(packager.segment + 1) {
            return Err(Misplaced::Missing);
        }
        if packager.written > MOST_CHUNKS {
            return Err(Misplaced::Endless);
        }
        let size = u32::try_from(sample.data.len()).unwrap_or(u32::MAX);
        self.times.extend(self.reorder.push(sample.pts));
        self.waiting.push_back((Coded { pts: sample.pts, size, key: sample.key }, sample.data));
        while let (Some(now), Some(next)) = (self.times.front().copied(), self.times.get(1).copied()) {
            self.write(packager, now, next);
        }
        Ok(())
    }

    /// A key frame: begins the segment whose cut it belongs to. Answers whether it is wanted.
    fn turn(&mut self, packager: &mut Packager, until: u32, pts: i64) -> bool {
        let segments = packager.grid.segments();
        // The last segment of the film has no picture behind its end that would end it, unless the film is longer than was told.
        let last = if until >= segments { until } else { until + 1 };
        let Some(segment) = packager.grid.segment_at(pts.saturating_add(self.slack), packager.segment, last) else {
            return self.open;
        };
        let too_late = packager.grid.cut(segments).saturating_add(i64::from(packager.grid.timescale));
        if self.open && (segment > packager.segment || pts > too_late) {
            self.drain(packager, pts, Ending::Picture);
            self.open = false;
        }
        if pts > too_late {
            packager.close_until(until);
            return false;
        }
        packager.close_until(segment.min(until));
        self.open = segment < until;
        self.open
    }

    /// Writes what waits; the last picture lasts until `end`.
    fn drain(&mut self, packager: &mut Packager, end: i64, ending: Ending) {
        self.times.extend(self.reorder.finish());
        while let Some(now) = self.times.front().copied() {
            let frame = i64::from(packager.grid.frame);
            let next = self.times.get(1).copied().unwrap_or_else(|| match ending {
                Ending::Film if end <= now || end - now > 2 * frame => now.saturating_add(frame),
                Ending::Film | Ending::Picture => end.max(now.saturating_add(1)),
            });
            self.write(packager, now, next);
        }
    }

    fn write(&mut self, packager: &mut Packager, now: i64, next: i64) {
        self.times.pop_front();
        if let Some((coded, data)) = self.waiting.pop_front() {
            packager.sample(now, row(&coded, now, next, self.shift), data);
        }
    }
}

/// A frame of sound: its place is the nearest on the grid. What lies before the first segment or was there already is dropped.
fn push_frame(next: &mut Option<i64>, packager: &mut Packager, until: u32, sample: Sample) {
    let number = sample.pts.saturating_add(AAC_FRAME / 2).div_euclid(AAC_FRAME);
    let at = number.saturating_mul(AAC_FRAME);
    if at < packager.grid.cut(packager.segment) || next.is_some_and(|next| number < next) {
        return;
    }
    if next.is_some_and(|next| number > next) {
        // A hole: the next chunk tells a time of its own.
        packager.flush();
    }
    *next = Some(number.saturating_add(1));
    while packager.segment < until && at >= packager.grid.cut(packager.segment + 1) {
        packager.close();
    }
    if packager.segment < until {
        let size = u32::try_from(sample.data.len()).unwrap_or(u32::MAX);
        packager.sample(at, Row { size, duration: 1024, composition: 0, key: true }, sample.data);
    }
}

#[cfg(test)]
mod tests {
    use balcony_media::fmp4::Packet;
    use balcony_media::fmp4::read::{Event, Reader};
    use balcony_media::fmp4::write::{Entry, InitTrack, Raster, init};
    use proptest::prelude::*;

    use super::*;

    fn grid(cuts: &[i64], frame: u32) -> Grid {
        Grid { cuts: cuts.into(), timescale: 1000, frame }
    }

    fn sample(pts: i64, key: bool) -> Sample {
        Sample { pts, key, data: Bytes::from_static(b"data") }
    }

    /// Times and keys of each segment: what a player sees.
    fn segments(made: &[Made]) -> Vec<(u32, Vec<Packet>)> {
        let raster = Raster { width: 2, height: 2, pixel_aspect: (1, 1), ..Raster::default() };
        let entry = Entry::Avc { config: Bytes::from_static(b"\x01\x64\0\x1e\xff\xe0\0"), raster };
        let track = InitTrack { entry, timescale: 1000, language: "und".into(), duration: None, media_time: 0 };
        let (mut reader, mut packets, mut segments) = (Reader::new(), Vec::new(), Vec::new());
        reader.push(init(&track));
        for made in made {
            match made {
                Made::Chunk { bytes, .. } => reader.push(bytes.clone()),
                Made::SegmentDone { segment } => segments.push((*segment, std::mem::take(&mut packets))),
                other => panic!("{other:?}"),
            }
            while let Some(event) = reader.next().expect("our own bytes") {
                if let Event::Packet(packet) = event {
                    packets.push(packet);
                }
            }
        }
        segments
    }

    fn assemble(mut assembler: Assembler, samples: &[Sample]) -> Vec<(u32, Vec<Packet>)> {
        for sample in samples {
            assembler.push(sample.clone()).expect("ends");
        }
        assembler.finish();
        assert!(assembler.done());
        segments(&std::iter::from_fn(|| assembler.take()).collect::<Vec<_>>())
    }

    fn times(segments: &[(u32, Vec<Packet>)]) -> Vec<(u32, Vec<i64>)> {
        segments.iter().map(|(number, packets)| (*number, packets.iter().map(|packet| packet.pts).collect())).collect()
    }

    #[test]
    fn a_picture_that_stands_longer_than_a_segment_leaves_it_empty() {
        let film = [(0, true), (40, false), (2500, true), (2540, true)].map(|(pts, key)| sample(pts, key));
        let cuts = [0, 1000, 2000, 3000];
        let made = assemble(Assembler::pictures(grid(&cuts, 40), 0, 3, 1, 2, 0), &film);
        assert_eq!(times(&made), [(0, vec![0, 40]), (1, vec![]), (2, vec![2500, 2540])]);
        assert_eq!(made[0].1[1].duration, 2460, "it is shown until the next one");
        assert_eq!(times(&assemble(Assembler::pictures(grid(&cuts, 40), 1, 3, 1, 2, 0), &film[2..])), times(&made)[1..]);
    }

    #[test]
    fn what_lies_before_the_first_cut_or_a_second_behind_the_last_is_dropped() {
        let film: Vec<Sample> = (0..200).map(|n| sample(n * 40, n % 5 == 0)).collect();
        let made = assemble(Assembler::pictures(grid(&[0, 1000, 2000, 3000], 40), 1, 3, 1, 2, 0), &film);
        let made = times(&made);
        assert_eq!(
            (made[0].1.first(), made[0].1.last(), made[1].1.first(), made[1].1.last()),
            (Some(&1000), Some(&1960), Some(&2000), Some(&4160))
        );
    }

    #[test]
    fn a_hole_in_the_sound_is_told_and_nothing_is_played_twice() {
        let at = |numbers: &[i64]| numbers.iter().map(|n| sample(n * 1024 + 3, true)).collect::<Vec<_>>();
        let cuts = [0, 4 * 1024, 8 * 1024];
        let made = assemble(Assembler::sound(grid(&cuts, 1024), 0, 2), &at(&[-1, 0, 1, 1, 3, 2, 6, 7, 8]));
        assert_eq!(times(&made), [(0, vec![0, 1024, 3 * 1024]), (1, vec![6 * 1024, 7 * 1024])]);
    }

    #[test]
    fn an_encoder_without_key_frames_is_stopped() {
        let mut assembler = Assembler::pictures(grid(&[0, 1000, 2000], 40), 0, 2, 1, 2, 0);
        let result = (0..100_000).try_for_each(|n| {
            let pushed = assembler.push(sample(n * 40, n == 0));
            while assembler.take().is_some() {}
            pushed
        });
        assert_eq!(result, Err(Misplaced::Endless));
    }

    #[test]
    fn a_cut_without_a_key_frame_is_noticed_where_that_is_watched() {
        let film = |key_at: i64| (0..100).map(move |n| sample(n * 40, n == 0 || n == key_at || n == 50)).collect::<Vec<_>>();
        let cuts = grid(&[0, 1000, 2000, 4000], 40);
        let made = |mut assembler: Assembler, film: Vec<Sample>| film.into_iter().try_for_each(|sample| assembler.push(sample));
        for (key_at, wary, expected) in
            [(25, true, Ok(())), (26, true, Err(Misplaced::Missing)), (26, false, Ok(())), (24, true, Err(Misplaced::Missing))]
        {
            let assembler = Assembler::pictures(cuts.clone(), 0, 3, 1, 2, 80);
            let assembler = if wary { assembler.wary() } else { assembler };
            assert_eq!(made(assembler, film(key_at)), expected, "{key_at}");
        }
    }

    proptest! {
        /// Whatever the pictures' times: a run from any segment gives the same times as a run from the first, and no seam shows.
        #[test]
        fn runs_agree(steps in prop::collection::vec((1i64..400, any::<bool>()), 1..200), from in 0u32..6, cut in 200i64..2000) {
            let cuts: Vec<i64> = (0..=6).map(|n| n * cut).collect();
            let mut at = 0;
            // Like the encoder: a key frame at the first picture at or after each cut, elsewhere now and then.
            let (mut film, mut last) = (Vec::new(), -1);
            for (step, key) in steps {
                let cut_number = at / cut;
                film.push(sample(at, cut_number > last || (key && step > 350)));
                last = cut_number;
                at += step;
            }
            let whole = assemble(Assembler::pictures(grid(&cuts, 40), 0, 6, 0, 2, 0), &film);
            let start = film.iter().position(|sample| sample.key && sample.pts >= cuts[from as usize]);
            let later = assemble(Assembler::pictures(grid(&cuts, 40), from, 6, 0, 2, 0), &film[start.unwrap_or(film.len())..]);
            prop_assert_eq!(&later[..], &whole[from as usize..]);
            let packets: Vec<&Packet> = whole.iter().flat_map(|(_, packets)| packets).collect();
            for pair in packets.windows(2) {
                prop_assert_eq!(pair[0].dts + i64::from(pair[0].duration), pair[1].dts);
            }
        }
    }
}
