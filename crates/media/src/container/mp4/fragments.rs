//! Movie fragments (ISO 14496-12, 8.8): where their key frames are (`sidx`, `mfra`), and reading them one after the other.
//!
//! A fragment's samples are known from its `moof` alone: the `mdat` behind it is stepped over.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::super::{Container, Damage, Frame, Index, KeyFrame, Kind, Samples, Sparse, Stop};
use super::boxes::{Fields, child, children};
use super::movie::{Movie, Trak, seconds};
use super::tables::rescale;
use super::{MOST_BOXES, Place, Top, place};

/// A larger `moof` is refused.
const LARGEST_MOOF: u64 = 16 * 1024 * 1024;
/// A larger `sidx` or `mfra` is refused.
const LARGEST_LIST: u64 = 64 * 1024 * 1024;
/// More samples in one fragment are refused.
const MOST_SAMPLES: usize = 1 << 20;
/// More `sidx` boxes than this are not followed.
const MOST_LISTS: usize = 1_000;

/// What the samples of a track have in common (`trex`, 8.8.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) id: u32,
    /// Every sample is a sync sample (sound, text).
    pub(crate) sound: bool,
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

impl Defaults {
    /// Reads the body of a `trex`.
    pub(crate) fn read(trex: &[u8]) -> Option<Self> {
        let (_, _, mut fields) = Fields::full(trex)?;
        let (id, _) = (fields.u32()?, fields.u32()?);
        Some(Self { id, sound: false, duration: fields.u32()?, size: fields.u32()?, flags: fields.u32()? })
    }
}

/// A sample as a `moof` tells it. Times are those of the media, edit list not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) track: u32,
    pub(crate) offset: u64,
    pub(crate) size: u32,
    pub(crate) dts: i64,
    pub(crate) composition: i32,
    pub(crate) duration: u32,
    pub(crate) key: bool,
}

/// Reads fragments in the order of the file and remembers what one leaves for the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    tracks: BTreeMap<u32, Defaults>,
    /// Where the next sample of a track begins when its fragment does not say so.
    clocks: BTreeMap<u32, i64>,
}

/// Fields of `tfhd` and `trun` are there or not by these flags.
mod flag {
    pub(super) const BASE_OFFSET: u32 = 0x1;
    pub(super) const DESCRIPTION: u32 = 0x2;
    pub(super) const DEFAULT_DURATION: u32 = 0x8;
    pub(super) const DEFAULT_SIZE: u32 = 0x10;
    pub(super) const DEFAULT_FLAGS: u32 = 0x20;
    pub(super) const BASE_IS_MOOF: u32 = 0x2_0000;

    pub(super) const DATA_OFFSET: u32 = 0x1;
    pub(super) const FIRST_FLAGS: u32 = 0x4;
    pub(super) const DURATION: u32 = 0x100;
    pub(super) const SIZE: u32 = 0x200;
    pub(super) const FLAGS: u32 = 0x400;
    pub(super) const COMPOSITION: u32 = 0x800;

    /// In a sample's own flags (8.8.3.1): no sync sample, or depends on others.
    pub(super) const NO_KEY: u32 = 0x0101_0000;
}

impl Reading {
    /// Begins with what the `moov` says.
    pub(crate) fn new(tracks: impl IntoIterator<Item = Defaults>) -> Self {
        Self { tracks: tracks.into_iter().map(|track| (track.id, track)).collect(), clocks: BTreeMap::new() }
    }

    /// The samples of a `moof` in the order of the file. `at` is the offset of the box, `body` what follows its head.
    pub(crate) fn fragment(&mut self, body: &Bytes, at: u64) -> Result<Vec<Told>, Damage> {
        let mut told = Vec::new();
        let mut end = at;
        for traf in children(body).filter(|one| one.kind == *b"traf") {
            end = self.track(&traf.body, at, end, &mut told)?;
        }
        told.sort_by_key(|sample| sample.offset);
        Ok(told)
    }

    /// Reads a `traf` (8.8.6) and returns where its data ends.
    fn track(&mut self, traf: &Bytes, at: u64, before: u64, told: &mut Vec<Told>) -> Result<u64, Damage> {
        let broken = |what| Damage::Broken { offset: at, what };
        let tfhd = child(traf, b"tfhd").ok_or(broken("a fragment of no track"))?;
        let (defaults, base) = self.head(&tfhd, at, before).ok_or(broken("the head of a track fragment is cut off"))?;
        let mut dts = match child(traf, b"tfdt").as_deref().map(decode_time) {
            Some(time) => time.ok_or(broken("the time of a track fragment is cut off"))?,
            None => self.clocks.get(&defaults.id).copied().unwrap_or(0),
        };
        let mut offset = base;
        for trun in children(traf).filter(|one| one.kind == *b"trun") {
            let run = Run { defaults, base };
            offset = run.read(&trun.body, offset, &mut dts, told).map_err(broken)?;
        }
        self.clocks.insert(defaults.id, dts);
        Ok(offset)
    }

    /// Reads `tfhd` (8.8.7): the track's defaults, and the offset that data offsets count from.
    fn head(&self, tfhd: &[u8], at: u64, before: u64) -> Option<(Defaults, u64)> {
        let (_, flags, mut fields) = Fields::full(tfhd)?;
        let id = fields.u32()?;
        let mut defaults = self.tracks.get(&id).copied().unwrap_or(Defaults { id, ..Defaults::default() });
        let mut base = if flags & flag::BASE_IS_MOOF == 0 { before } else { at };
        if flags & flag::BASE_OFFSET != 0 {
            base = fields.u64()?;
        }
        if flags & flag::DESCRIPTION != 0 {
            fields.skip(4)?;
        }
        for (bit, field) in [
            (flag::DEFAULT_DURATION, &mut defaults.duration),
            (flag::DEFAULT_SIZE, &mut defaults.size),
            (flag::DEFAULT_FLAGS, &mut defaults.flags),
        ] {
            if flags & bit != 0 {
                *field = fields.u32()?;
            }
        }
        Some((defaults, base))
    }
}

/// `tfdt` (8.8.12). Signed, because ffmpeg writes negative times there.
fn decode_time(tfdt: &[u8]) -> Option<i64> {
    let (version, _, mut fields) = Fields::full(tfdt)?;
    fields.word(version).map(u64::cast_signed)
}

/// What a `trun` (8.8.8) is read with.
struct Run {
    defaults: Defaults,
    base: u64,
}

impl Run {
    /// Adds the samples of a run that begins at `offset` unless it says otherwise, and returns where its data ends.
    fn read(&self, trun: &[u8], mut offset: u64, dts: &mut i64, told: &mut Vec<Told>) -> Result<u64, &'static str> {
        const CUT_OFF: &str = "a run of samples is cut off";
        let (_, flags, mut fields) = Fields::full(trun).ok_or(CUT_OFF)?;
        let count = fields.u32().ok_or(CUT_OFF)? as usize;
        if flags & flag::DATA_OFFSET != 0 {
            let relative = fields.i32().ok_or(CUT_OFF)?;
            offset = self.base.checked_add_signed(i64::from(relative)).ok_or("a run of samples lies outside of the file")?;
        }
        let mut first_flags = if flags & flag::FIRST_FLAGS != 0 { Some(fields.u32().ok_or(CUT_OFF)?) } else { None };
        let row = 4 * (flags & (flag::DURATION | flag::SIZE | flag::FLAGS | flag::COMPOSITION)).count_ones() as usize;
        if count.checked_mul(row).is_none_or(|len| len > fields.rest().len()) {
            return Err(CUT_OFF);
        }
        if count > MOST_SAMPLES.saturating_sub(told.len()) {
            return Err("more samples than a fragment can have");
        }
        told.reserve(count);
        for _ in 0..count {
            let mut field = |bit: u32, default: u32| if flags & bit == 0 { Some(default) } else { fields.u32() };
            let duration = field(flag::DURATION, self.defaults.duration).ok_or(CUT_OFF)?;
            let size = field(flag::SIZE, self.defaults.size).ok_or(CUT_OFF)?;
            let own = field(flag::FLAGS, first_flags.take().unwrap_or(self.defaults.flags)).ok_or(CUT_OFF)?;
            // Version 0 says unsigned; nobody writes offsets of more than 2^31, but negative ones have been seen there.
            let composition = field(flag::COMPOSITION, 0).ok_or(CUT_OFF)?.cast_signed();
            let key = self.defaults.sound || own & flag::NO_KEY == 0;
            told.push(Told { track: self.defaults.id, offset, size, dts: *dts, composition, duration, key });
            offset = offset.checked_add(u64::from(size)).ok_or("a run of samples lies outside of the file")?;
            *dts = dts.saturating_add(i64::from(duration));
        }
        Ok(offset)
    }
}

/// What the `moov` of a fragmented film says that reading its fragments needs.
#[derive(Debug, Clone)]
pub struct Context {
    reading: Reading,
    /// Presentation time minus composition time by track, in ticks.
    shifts: BTreeMap<u32, i64>,
    /// Samples that stand in tables of the `moov` (a film may begin without a fragment), in the order of the file.
    leading: Vec<Frame>,
    first_moof: u64,
}

impl Context {
    /// Reads it from the bytes from which [`super::index`] has read the index.
    pub fn read(bytes: &Sparse) -> Result<Self, Stop> {
        let top = Top::find(bytes)?;
        let mut movie = Movie::read(&top.moov, top.at, top.quicktime)?;
        movie.expand(bytes.len())?;
        let first = first_moof(bytes, &top)?.map_or(bytes.len(), |first| first.moof.at);
        Ok(Self::new(&movie, first))
    }

    fn new(movie: &Movie, first_moof: u64) -> Self {
        let mut leading: Vec<Frame> = movie.traks.iter().flat_map(leading).collect();
        leading.sort_by_key(|frame| frame.offset);
        Self {
            reading: Reading::new(movie.traks.iter().map(Trak::defaults)),
            shifts: movie.traks.iter().map(|trak| (trak.defaults.id, trak.edit.shift())).collect(),
            leading,
            first_moof,
        }
    }

    /// A sample as it is to be shown; `element` is the offset of its `moof`.
    fn frame(&self, told: &Told, element: u64) -> Frame {
        let shift = self.shifts.get(&told.track).copied().unwrap_or(0);
        Frame {
            track: u64::from(told.track),
            pts: told.dts.saturating_add(i64::from(told.composition)).saturating_add(shift),
            duration: Some(told.duration),
            key: told.key,
            prefix: Bytes::new(),
            element,
            offset: told.offset,
            len: told.size,
        }
    }
}

/// The samples of a track that stand in the table of the `moov`.
fn leading(trak: &Trak) -> impl Iterator<Item = Frame> {
    trak.samples().iter().map(|sample| Frame {
        track: trak.track.id,
        pts: sample.pts,
        duration: Some(sample.duration),
        key: sample.key,
        prefix: Bytes::new(),
        element: sample.offset,
        offset: sample.offset,
        len: sample.size,
    })
}

/// Frames of movie fragments, in the order of the file.
#[derive(Debug, Clone)]
pub struct Fragments {
    context: Context,
    ready: VecDeque<Frame>,
    at: u64,
}

impl Fragments {
    /// Begins at `offset`: that of any box of the top level, such as [`Index::first_byte`] or [`KeyFrame::offset`].
    pub fn at(offset: u64, mut context: Context) -> Self {
        let leading = std::mem::take(&mut context.leading);
        let ready: VecDeque<Frame> = leading.into_iter().skip_while(|frame| frame.offset < offset).collect();
        let at = if offset < context.first_moof { context.first_moof } else { offset };
        Self { context, ready, at }
    }

    /// The next frame, or `None` at the end of the file. A frame that the file does not wholly hold ends the film.
    ///
    /// Only heads of boxes and bodies of `moof` boxes are asked for. After [`Stop::Need`] call again with these bytes inserted.
    pub fn next(&mut self, bytes: &Sparse) -> Result<Option<Frame>, Stop> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                let whole = frame.offset.checked_add(u64::from(frame.len)).is_some_and(|end| end <= bytes.len());
                return Ok(whole.then_some(frame));
            }
            let Some(found) = place(bytes, self.at)? else { return Ok(None) };
            if found.kind == *b"moof" {
                let body = match found.read(bytes, LARGEST_MOOF, "a fragment") {
                    Err(Stop::Bad(Damage::Truncated)) => return Ok(None),
                    body => body?,
                };
                let told = self.context.reading.fragment(&body, found.at)?;
                self.ready = told.iter().map(|told| self.context.frame(told, found.at)).collect();
            }
            self.at = found.end;
        }
    }
}

/// What lies between a `moov` and the fragments.
#[derive(Debug)]
pub(super) struct First {
    moof: Place,
    lists: Vec<Place>,
}

/// Walks from the `moov` to the first `moof`, `None` where there is none.
pub(super) fn first_moof(bytes: &Sparse, top: &Top) -> Result<Option<First>, Stop> {
    let mut lists = Vec::new();
    let mut at = top.end;
    for _ in 0..MOST_BOXES {
        let Some(found) = place(bytes, at)? else { return Ok(None) };
        match &found.kind {
            b"moof" => return Ok(Some(First { moof: found, lists })),
            b"sidx" => lists.push(found),
            _ => {}
        }
        at = found.end;
    }
    Err(Damage::TooLarge("the number of boxes").into())
}

/// The index of a film in fragments.
pub(super) fn index(bytes: &Sparse, movie: Movie, first: First) -> Result<Index, Stop> {
    let context = Context::new(&movie, first.moof.at);
    let opening = Opening::read(bytes, &context, &first.moof)?;
    let film = movie.traks.iter().find(|trak| trak.track.kind == Kind::Video);
    let mut list = match film {
        Some(film) => {
            List::of_segments(bytes, film, &first)?.map_or_else(|| List::random_access(bytes, film, &context), |list| Ok(Some(list)))?
        }
        None => None,
    }
    .and_then(|list| list.within(bytes.len()));
    if let (Some(list), Some(film)) = (&mut list, film) {
        list.settle(&opening, film);
    }
    let duration = match (movie.told_duration(), list.as_ref().and_then(|list| list.end)) {
        (Some(told), _) => Some(told),
        (None, Some(end)) => Some(end),
        (None, None) => match list.as_ref().and_then(|list| list.frames.last()) {
            Some(last) => end_of_fragment(bytes, &context, &movie, last.offset)?,
            None => None,
        },
    }
    .filter(|seconds| *seconds > 0.0);
    let first_byte = context.leading.first().map_or(first.moof.at, |frame| frame.offset.min(first.moof.at));
    let film = film.map(|film| film.track.id);
    let mut tracks = movie.into_tracks();
    for track in &mut tracks {
        track.samples = Samples::Inline;
        track.first_pts = track.first_pts.or(opening.first_pts.get(&track.id).copied());
        if let Some(picture) = &mut track.video {
            picture.frame_rate = picture.frame_rate.or(opening.rate(track.id, track.timescale));
        }
        if Some(track.id) == film {
            let frames = list.take().map(|list| list.frames).unwrap_or_default();
            track.key_frames.extend(frames);
            track.key_frames.dedup_by_key(|frame| frame.offset);
        } else {
            track.key_frames.clear();
        }
    }
    // Without a list, the few key frames of the tables would look like the whole film's.
    if tracks.iter().flat_map(|track| &track.key_frames).all(|frame| frame.offset < first.moof.at) {
        tracks.iter_mut().for_each(|track| track.key_frames.clear());
    }
    Ok(Index { container: Container::FragmentedMp4, duration, tracks, first_byte, end_byte: bytes.len() })
}

/// What the first fragment tells.
struct Opening {
    at: u64,
    /// Smallest presentation time of each track in it.
    first_pts: BTreeMap<u64, i64>,
    /// The first key frame of each track in it.
    first_key: BTreeMap<u64, i64>,
    /// Number of samples of each track in it, and their durations in ticks together.
    lasts: BTreeMap<u64, (u32, u64)>,
}

impl Opening {
    fn read(bytes: &Sparse, context: &Context, moof: &Place) -> Result<Self, Stop> {
        let body = moof.read(bytes, LARGEST_MOOF, "a fragment")?;
        let told = context.reading.clone().fragment(&body, moof.at)?;
        let mut opening = Self { at: moof.at, first_pts: BTreeMap::new(), first_key: BTreeMap::new(), lasts: BTreeMap::new() };
        for frame in told.iter().map(|told| context.frame(told, moof.at)) {
            let first = opening.first_pts.entry(frame.track).or_insert(frame.pts);
            *first = frame.pts.min(*first);
            let lasts = opening.lasts.entry(frame.track).or_default();
            *lasts = (lasts.0.saturating_add(1), lasts.1.saturating_add(u64::from(frame.duration.unwrap_or(0))));
            if frame.key {
                opening.first_key.entry(frame.track).or_insert(frame.pts);
            }
        }
        Ok(opening)
    }

    /// Samples per second of a track, as far as the first fragment tells.
    fn rate(&self, track: u64, timescale: u32) -> Option<f64> {
        let (count, ticks) = self.lasts.get(&track).copied().filter(|(_, ticks)| *ticks > 0)?;
        #[allow(clippy::cast_precision_loss)] // durations of a few samples
        Some(f64::from(count) * f64::from(timescale) / ticks as f64)
    }
}

/// When the last sample of the fragment at `at` ends, in seconds.
fn end_of_fragment(bytes: &Sparse, context: &Context, movie: &Movie, at: u64) -> Result<Option<f64>, Stop> {
    let Some(found) = place(bytes, at)?.filter(|found| found.kind == *b"moof") else { return Ok(None) };
    let body = found.read(bytes, LARGEST_MOOF, "a fragment")?;
    let told = context.reading.clone().fragment(&body, at)?;
    let end = |frame: Frame| {
        let trak = movie.traks.iter().find(|trak| trak.track.id == frame.track)?;
        let last = frame.pts.saturating_add(i64::from(frame.duration.unwrap_or(0)));
        Some(seconds(last, trak.track.timescale))
    };
    Ok(told.iter().filter_map(|told| end(context.frame(told, at))).reduce(f64::max))
}

/// Whether decoding of `film` can begin in the fragment at `at`, as far as it can be read.
fn has_key(bytes: &Sparse, context: &Context, film: &Trak, at: u64) -> Result<bool, Stop> {
    let body = match place(bytes, at)? {
        Some(found) if found.kind == *b"moof" => found.read(bytes, LARGEST_MOOF, "a fragment"),
        _ => return Ok(false),
    };
    match body {
        Ok(body) => Ok(context.reading.clone().fragment(&body, at)?.iter().any(|told| told.track == film.defaults.id && told.key)),
        Err(Stop::Bad(_)) => Ok(true),
        Err(need) => Err(need),
    }
}

/// Key frames as a list in the file names them.
struct List {
    frames: Vec<KeyFrame>,
    /// Seconds at which the film ends, where the list tells it.
    end: Option<f64>,
}

impl List {
    /// From the `sidx` boxes (8.16.3) in front of the first fragment, if they are about `film` and cover nearly all of the file.
    /// One `sidx` for each fragment, which can only be found by walking through the film, is no index.
    fn of_segments(bytes: &Sparse, film: &Trak, first: &First) -> Result<Option<Self>, Stop> {
        let mut frames = Vec::new();
        let mut end = 0_i64;
        let mut covered = 0_u64;
        let mut next: VecDeque<Place> = first.lists.iter().copied().collect();
        for _ in 0..MOST_LISTS {
            let Some(list) = next.pop_front() else { break };
            let body = list.read(bytes, LARGEST_LIST, "the segment index")?;
            let Some(segments) = Segments::read(&body, list.end).filter(|segments| u64::from(segments.track) == film.track.id) else {
                continue;
            };
            for segment in segments.segments {
                if segment.is_list {
                    next.extend(place(bytes, segment.at)?.filter(|found| found.kind == *b"sidx"));
                    continue;
                }
                covered = covered.max(segment.end);
                let time = |ticks| rescale(ticks, segments.timescale, film.track.timescale);
                end = end.max(time(segment.until));
                if segment.starts_with_key {
                    frames.push(KeyFrame { pts: time(segment.from), offset: segment.at, block: None, closed: segment.closed });
                }
            }
        }
        frames.sort_by_key(|frame| frame.offset);
        let whole = covered > bytes.len() / 10 * 9 && !frames.is_empty();
        Ok(whole.then(|| Self { frames, end: Some(seconds(end, film.track.timescale)) }))
    }

    /// From the `mfra` at the end of the file (8.8.9), if it has one and that lists `film`.
    fn random_access(bytes: &Sparse, film: &Trak, context: &Context) -> Result<Option<Self>, Stop> {
        let Some(tail) = bytes.len().checked_sub(16) else { return Ok(None) };
        let last = bytes.get(tail, 16)?;
        let mut fields = Fields::new(&last);
        if fields.u32() != Some(16) || fields.kind() != Some(*b"mfro") || fields.skip(4).is_none() {
            return Ok(None);
        }
        let size = u64::from(fields.u32().unwrap_or(0));
        let Some(at) = bytes.len().checked_sub(size).filter(|at| *at < tail) else { return Ok(None) };
        let Some(found) = place(bytes, at)?.filter(|found| found.kind == *b"mfra" && found.end == bytes.len()) else { return Ok(None) };
        let body = found.read(bytes, LARGEST_LIST, "the random access index")?;
        let lists = children(&body).filter(|one| one.kind == *b"tfra");
        let mut frames =
            lists.filter_map(|tfra| random_access(&tfra.body)).find(|(track, _)| *track == film.defaults.id).map(|(_, frames)| frames);
        for frame in frames.iter_mut().flatten() {
            frame.pts = frame.pts.saturating_add(film.edit.shift());
        }
        // libavformat lists every fragment, whether it has a key frame or not; two looks tell.
        for frame in frames.iter().flat_map(|frames| [frames.get(1), frames.last()]).flatten() {
            if frame.offset < bytes.len() && !has_key(bytes, context, film, frame.offset)? {
                return Ok(None);
            }
        }
        Ok(frames.filter(|frames| !frames.is_empty()).map(|frames| Self { frames, end: None }))
    }

    /// What of the list lies within the file; nothing where a later place has an earlier time, as such a list is made of lies.
    fn within(mut self, file_len: u64) -> Option<Self> {
        self.frames.retain(|frame| frame.offset < file_len);
        self.frames.is_sorted_by(|one, next| one.pts < next.pts).then_some(self)
    }

    /// Some writers apply the edit list to the times in their lists and some do not: the first fragment's own times decide.
    fn settle(&mut self, opening: &Opening, film: &Trak) {
        let Some(first) = self.frames.first().filter(|first| first.offset <= opening.at) else { return };
        let Some(real) = opening.first_key.get(&film.track.id) else { return };
        let off = real.saturating_sub(first.pts);
        for frame in &mut self.frames {
            frame.pts = frame.pts.saturating_add(off);
        }
        self.end = self.end.map(|end| end + seconds(off, film.track.timescale));
    }
}

/// A `sidx` as read.
struct Segments {
    track: u32,
    timescale: u32,
    segments: Vec<Segment>,
}

/// One reference of a `sidx`.
struct Segment {
    /// It refers to another `sidx`.
    is_list: bool,
    at: u64,
    end: u64,
    /// Presentation time of its first and past its last picture.
    from: i64,
    until: i64,
    starts_with_key: bool,
    closed: bool,
}

impl Segments {
    /// Reads the body of a `sidx`; `anchor` is the offset just past it, from which its references count.
    fn read(sidx: &[u8], anchor: u64) -> Option<Self> {
        let (version, _, mut fields) = Fields::full(sidx)?;
        let (track, timescale) = (fields.u32()?, fields.u32()?.max(1));
        let mut from = fields.word(version)?.cast_signed();
        let mut at = anchor.checked_add(fields.word(version)?)?;
        fields.skip(2)?;
        let count = usize::from(fields.u16()?);
        let mut segments = Vec::with_capacity(count.min(fields.rest().len() / 12));
        for _ in 0..count {
            let (reference, duration, access) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let end = at.checked_add(u64::from(reference & 0x7fff_ffff))?;
            let until = from.saturating_add(i64::from(duration));
            let starts_with_key = access >> 31 == 1;
            // Access points of types 1 and 2 are followed by nothing that is shown before them; 0 is "not told".
            let closed = access >> 28 & 7 <= 2;
            segments.push(Segment { is_list: reference >> 31 == 1, at, end, from, until, starts_with_key, closed });
            (at, from) = (end, until);
        }
        Some(Self { track, timescale, segments })
    }
}

/// The track and the key frames of a `tfra` (8.8.10); times are those of the media.
fn random_access(tfra: &[u8]) -> Option<(u32, Vec<KeyFrame>)> {
    let (version, _, mut fields) = Fields::full(tfra)?;
    let (track, lengths, count) = (fields.u32()?, fields.u32()?, fields.u32()?);
    // Lengths of the numbers of traf, trun and sample, which are left out.
    let numbers = (lengths >> 4 & 3) + (lengths >> 2 & 3) + (lengths & 3) + 3;
    let row = numbers as usize + if version == 0 { 8 } else { 16 };
    let mut rows = fields.take(usize::try_from(count).ok()?.checked_mul(row)?)?.chunks_exact(row);
    let mut frames: Vec<KeyFrame> = rows
        .by_ref()
        .filter_map(|row| {
            let mut fields = Fields::new(row);
            let (pts, offset) = (fields.word(version)?.cast_signed(), fields.word(version)?);
            Some(KeyFrame { pts, offset, block: None, closed: true })
        })
        .collect();
    frames.sort_by_key(|frame| frame.offset);
    // Several key frames in one fragment: the first is where reading begins.
    frames.dedup_by_key(|frame| frame.offset);
    Some((track, frames))
}
