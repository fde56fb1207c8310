//! The Clusters (RFC 9559, section 5.1.3): every frame of the film with its place, in file order.
//!
//! Only headers are looked at. Payloads are passed over, and so is everything that is not a Block.

use std::collections::VecDeque;

use super::super::{Frame, Index, KeyFrame, Kind, Samples, Sparse, Stop};
use super::ebml::{Element, Lack, PEEK, element, peek_within, signed, uint, unsigned};
use super::{ATTACHMENTS, BlockRules, CHAPTERS, CLUSTER, CUES, INFO, SEEK_HEAD, SEGMENT, TAGS, TRACKS, ticks};

const TIMESTAMP: u32 = 0xE7;
const SIMPLE_BLOCK: u32 = 0xA3;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const BLOCK_DURATION: u32 = 0x9B;
const REFERENCE_BLOCK: u32 = 0xFB;
const VOID: u32 = 0xEC;
const CRC_32: u32 = 0xBF;
const POSITION: u32 = 0xA7;
const PREV_SIZE: u32 = 0xAB;
const SILENT_TRACKS: u32 = 0x5854;
const ENCRYPTED_BLOCK: u32 = 0xAF;

/// Children of a BlockGroup to look at.
const MAX_GROUP: usize = 64;
/// Largest header of a laced Block.
const MAX_LACING: usize = 1 << 20;
/// Bytes in which the next Cluster is looked for after damage, and how many are asked for at a time.
const MAX_SEARCH: u64 = 4 << 20;
const SEARCH_READ: usize = 64 << 10;

/// Reads the frames of a film from a Cluster onwards.
///
/// Damage inside of a Cluster costs the rest of that Cluster: reading goes on at its end where a top-level element is found there, else at
/// the next Cluster that begins within 4 MiB of the damage (read in steps of 64 KiB); farther than that is [`Stop::Bad`]. A film that
/// ends in the middle of a Block ends before it.
#[derive(Debug, Clone)]
pub struct Blocks {
    lanes: Vec<Lane>,
    wanted: Option<Vec<u64>>,
    video: Option<u64>,
    /// Where the next element begins.
    at: u64,
    end: u64,
    cluster: Option<Cluster>,
    repair: Option<Repair>,
    ready: VecDeque<Frame>,
    from: Option<KeyFrame>,
    to: Option<KeyFrame>,
}

/// What is needed of a track.
#[derive(Debug, Clone)]
struct Lane {
    track: u64,
    timescale: u32,
    rules: BlockRules,
    /// Of sound: samples of a frame.
    frame_len: Option<u32>,
    /// Of sound: time of its first frame, if times are to be put on the grid of frames.
    phase: Option<i64>,
}

/// The Cluster that is being read.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    offset: u64,
    body: u64,
    end: Option<u64>,
    time: Option<u64>,
}

/// How to find the way after damage.
#[derive(Debug, Clone, Copy)]
enum Repair {
    /// See whether the Cluster's end is where it said.
    Jump { damage: u64, to: u64 },
    /// Look for a Cluster's ID.
    Search { damage: u64, at: u64 },
}

/// A Block before its times are worked out.
struct Block {
    track: u64,
    /// Relative to the Cluster's.
    time: i16,
    key: bool,
    /// File offset of the first frame.
    payload: u64,
    sizes: Vec<u32>,
    /// BlockDuration.
    duration: Option<u64>,
}

impl Blocks {
    /// Reads all tracks from `offset`, which is that of a Cluster (of [`Index::first_byte`] or of a [`KeyFrame`]), to the end of the film.
    pub fn at(offset: u64, index: &Index) -> Self {
        Self {
            lanes: index.tracks.iter().filter_map(Lane::of).collect(),
            wanted: None,
            video: index.video().map(|track| track.id),
            at: offset,
            end: index.end_byte,
            cluster: None,
            repair: None,
            ready: VecDeque::new(),
            from: None,
            to: None,
        }
    }

    /// Reads what lies in the file from the block of the key frame `from` (`None`: the beginning) up to, and without, that of the key frame
    /// `to` (`None`: the end). Both are key frames of [`Index::video`].
    ///
    /// Both ends are found by the same rule, so that neighbours share no frame and lose none: in the key frame's Cluster, the first key
    /// frame of the picture that is not shown earlier than the Cues say; failing that, the beginning of the next Cluster.
    pub fn between(index: &Index, from: Option<&KeyFrame>, to: Option<&KeyFrame>) -> Self {
        let start = from.map_or(index.first_byte, |key| key.offset);
        Self { from: from.copied(), to: to.copied(), ..Self::at(start, index) }
    }

    /// Reads the one block of `track` that a cue of that track points at, and what follows it.
    pub fn cued(index: &Index, track: u64, cue: &KeyFrame) -> Self {
        Self { video: Some(track), ..Self::between(index, Some(cue), None) }.only(&[track])
    }

    /// Yields only frames of `tracks` ([`Track::id`](super::super::Track::id)).
    #[must_use]
    pub fn only(mut self, tracks: &[u64]) -> Self {
        self.wanted = Some(tracks.to_vec());
        self
    }

    /// The next frame; each frame of a laced Block by itself. After [`Stop::Need`] call again with those bytes.
    ///
    /// Asks for 64 bytes at a time where nothing is known, for less at the end of the film.
    pub fn next(&mut self, bytes: &Sparse) -> Result<Option<Frame>, Stop> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            if self.at >= self.end {
                return Ok(None);
            }
            match self.repair {
                Some(repair) => self.repair(bytes, repair)?,
                None => self.step(bytes)?,
            }
        }
    }

    /// Passes over one element.
    fn step(&mut self, bytes: &Sparse) -> Result<(), Stop> {
        if self.cluster.is_some_and(|cluster| cluster.end.is_some_and(|end| self.at >= end)) {
            self.cluster = None;
        }
        match element(bytes, self.at) {
            Ok(element) => self.enter(bytes, &element),
            Err(Stop::Bad(_)) => {
                self.damaged();
                Ok(())
            }
            Err(need) => Err(need),
        }
    }

    fn enter(&mut self, bytes: &Sparse, element: &Element) -> Result<(), Stop> {
        match (element.id, self.cluster) {
            (CLUSTER, _) => {
                self.enter_cluster(element);
                Ok(())
            }
            (id, _) if is_top_level(id) => {
                self.cluster = None;
                self.pass(element);
                Ok(())
            }
            (TIMESTAMP, Some(cluster)) => self.read_timestamp(bytes, element, cluster),
            (SIMPLE_BLOCK | BLOCK_GROUP, Some(cluster)) => self.read_frames(bytes, element, cluster),
            (VOID | CRC_32, _) | (POSITION | PREV_SIZE | SILENT_TRACKS | ENCRYPTED_BLOCK, Some(_)) => {
                self.pass(element);
                Ok(())
            }
            // What a later version of the format may bring can be passed over where the Cluster's end bounds the mistake.
            (_, Some(Cluster { end: Some(_), .. })) => {
                self.pass(element);
                Ok(())
            }
            _ => {
                self.damaged();
                Ok(())
            }
        }
    }

    fn enter_cluster(&mut self, element: &Element) {
        self.cluster = Some(Cluster { offset: element.offset, body: element.body, end: element.end(), time: None });
        self.at = element.body;
        if self.from.is_some_and(|key| element.offset > key.offset) {
            self.from = None;
        }
        if self.to.is_some_and(|key| element.offset > key.offset) {
            self.at = self.end;
        }
    }

    /// Goes on behind `element`, if that is inside of what it lies in.
    fn pass(&mut self, element: &Element) {
        match element.end() {
            Some(end) if end <= self.limit() => self.at = end,
            _ => self.damaged(),
        }
    }

    /// File offset that nothing may reach beyond here.
    fn limit(&self) -> u64 {
        self.cluster.and_then(|cluster| cluster.end).unwrap_or(self.end)
    }

    fn read_timestamp(&mut self, bytes: &Sparse, element: &Element, cluster: Cluster) -> Result<(), Stop> {
        let Some(size) = element.size.filter(|size| *size <= 8) else {
            self.damaged();
            return Ok(());
        };
        let Some(time) = known_uint(bytes, element.body, size)? else {
            self.at = self.end;
            return Ok(());
        };
        let cluster = Cluster { time: Some(time), ..cluster };
        let shortcut = self.shortcut(bytes, cluster)?;
        self.cluster = Some(cluster);
        self.pass(element);
        if let Some(shortcut) = shortcut {
            self.at = self.at.max(shortcut);
        }
        Ok(())
    }

    /// File offset of the Block at which to begin, where the Cues told it and told the truth.
    fn shortcut(&self, bytes: &Sparse, cluster: Cluster) -> Result<Option<u64>, Stop> {
        let Some((key, block)) = self.from.and_then(|key| Some((key, key.block?))).filter(|(key, _)| key.offset == cluster.offset) else {
            return Ok(None);
        };
        let at = cluster.body.saturating_add(block);
        if at >= cluster.end.unwrap_or(self.end).min(self.end) {
            return Ok(None);
        }
        let found = element(bytes, at).and_then(|element| match element.id {
            SIMPLE_BLOCK | BLOCK_GROUP => self.frames(bytes, &element, cluster),
            _ => Ok(Vec::new()),
        });
        match found {
            Ok(frames) => Ok(frames.first().is_some_and(|frame| self.is_key_frame(frame) && frame.pts == key.pts).then_some(at)),
            Err(Stop::Bad(_)) => Ok(None),
            Err(need) => Err(need),
        }
    }

    fn is_key_frame(&self, frame: &Frame) -> bool {
        frame.key && Some(frame.track) == self.video
    }

    fn read_frames(&mut self, bytes: &Sparse, element: &Element, cluster: Cluster) -> Result<(), Stop> {
        let frames = match self.frames(bytes, element, cluster) {
            Ok(frames) if element.end().is_some_and(|end| end <= self.limit().min(self.end)) => frames,
            Err(need @ Stop::Need { .. }) => return Err(need),
            _ => {
                self.damaged();
                return Ok(());
            }
        };
        self.pass(element);
        let reached = |key: KeyFrame| {
            cluster.offset == key.offset && frames.first().is_some_and(|frame| self.is_key_frame(frame) && frame.pts >= key.pts)
        };
        if self.to.is_some_and(reached) {
            self.at = self.end;
            return Ok(());
        }
        if self.from.is_some_and(reached) {
            self.from = None;
        }
        if self.from.is_none() {
            let wanted = |frame: &Frame| self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&frame.track));
            self.ready.extend(frames.into_iter().filter(wanted));
        }
        Ok(())
    }

    /// The frames of a SimpleBlock or BlockGroup; none where its track or the Cluster's time is not known.
    fn frames(&self, bytes: &Sparse, element: &Element, cluster: Cluster) -> Result<Vec<Frame>, Stop> {
        let Some(size) = element.size.filter(|_| element.end().is_some_and(|end| end <= bytes.len())) else {
            return Err(Stop::truncated());
        };
        let is_known = |track| self.lanes.iter().any(|lane| lane.track == track);
        let block = match element.id {
            SIMPLE_BLOCK => read_block(bytes, element.body, size, is_known)?.map(|(block, key)| Block { key, ..block }),
            _ => read_group(bytes, element, is_known)?,
        };
        let (Some(block), Some(time)) = (block, cluster.time) else { return Ok(Vec::new()) };
        let lane = self.lanes.iter().find(|lane| lane.track == block.track);
        Ok(lane.map(|lane| lane.frames(&block, time, element.offset)).unwrap_or_default())
    }

    /// Called where the next element cannot be read or believed.
    fn damaged(&mut self) {
        let damage = self.at;
        let end = self.cluster.take().and_then(|cluster| cluster.end);
        self.repair = match end.filter(|end| *end > damage) {
            // The film was cut off inside of this Cluster: nothing can follow.
            Some(end) if end > self.end => {
                self.at = self.end;
                None
            }
            Some(to) => Some(Repair::Jump { damage, to }),
            None => Some(Repair::Search { damage, at: damage.saturating_add(1) }),
        };
    }

    fn repair(&mut self, bytes: &Sparse, repair: Repair) -> Result<(), Stop> {
        match repair {
            Repair::Jump { damage, to } => {
                let sound = match element(bytes, to) {
                    Ok(element) => is_top_level(element.id),
                    Err(Stop::Bad(_)) => to == self.end,
                    Err(need) => return Err(need),
                };
                if sound {
                    self.resume(to);
                } else {
                    self.repair = Some(Repair::Search { damage, at: damage.saturating_add(1) });
                }
                Ok(())
            }
            Repair::Search { damage, at } => self.search(bytes, damage, at),
        }
    }

    fn resume(&mut self, at: u64) {
        self.at = at;
        self.repair = None;
    }

    /// Looks for a Cluster in the next piece of the file.
    fn search(&mut self, bytes: &Sparse, damage: u64, at: u64) -> Result<(), Stop> {
        if at >= self.end {
            self.resume(self.end);
            return Ok(());
        }
        if at - damage > MAX_SEARCH {
            return Err(Stop::broken(damage, "no Cluster follows"));
        }
        let piece = bytes.get(at, peek_within(bytes, at, SEARCH_READ))?;
        let at = match piece.windows(4).position(|window| window == CLUSTER.to_be_bytes()) {
            Some(found) => {
                let found = at.saturating_add(found as u64);
                if begins_cluster(bytes, found)? {
                    self.resume(found);
                    return Ok(());
                }
                found.saturating_add(1)
            }
            // The ID may begin in this piece and end in the next.
            None if piece.len() > 3 => at.saturating_add(piece.len() as u64 - 3),
            None => self.end,
        };
        self.repair = Some(Repair::Search { damage, at });
        Ok(())
    }
}

impl Lane {
    fn of(track: &super::super::Track) -> Option<Self> {
        let Samples::Blocks(rules) = &track.samples else { return None };
        let sound = track.audio.as_ref().filter(|_| track.kind == Kind::Audio);
        let frame_len = sound.and_then(|sound| sound.frame_len).filter(|len| *len > 0);
        // On a grid that is finer than the rounding of block times, the nearest line is not the right one.
        let coarse = frame_len.is_some_and(|len| u64::from(len) * 1000 >= 3 * u64::from(track.timescale));
        Some(Self {
            track: track.id,
            timescale: track.timescale,
            rules: rules.clone(),
            frame_len,
            phase: track.first_pts.filter(|_| coarse),
        })
    }

    /// `time` is the Cluster's, `element` the file offset of what holds the Block.
    fn frames(&self, block: &Block, time: u64, element: u64) -> Vec<Frame> {
        let scale = i128::from(self.rules.scale);
        let start = (i128::from(time) + i128::from(block.time)) * scale - self.rules.shift();
        let count = block.sizes.len().max(1) as i128;
        let told = block.duration.map(|duration| i128::from(duration) * scale / count);
        let frame_time = told.or(self.rules.frame_time.map(i128::from));
        let first = self.on_grid(ticks(start, self.timescale));
        let mut offset = block.payload;
        let mut frames = Vec::with_capacity(block.sizes.len());
        for (place, len) in block.sizes.iter().copied().enumerate() {
            let pts = match (self.frame_len, place) {
                (_, 0) => first,
                (Some(samples), _) => first.saturating_add(i64::from(samples).saturating_mul(place as i64)),
                (None, _) => ticks(start + frame_time.unwrap_or(0) * place as i128, self.timescale),
            };
            let duration = self.frame_len.or_else(|| u32::try_from(ticks(frame_time?, self.timescale)).ok());
            let prefix = self.rules.prefix.clone();
            if len > 0 || !prefix.is_empty() {
                frames.push(Frame { track: self.track, pts, duration, key: block.key, prefix, element, offset, len });
            }
            offset = offset.saturating_add(u64::from(len));
        }
        frames
    }

    /// Sound comes in frames of one length, but Matroska rounds their times, mostly to milliseconds: what is at most 1.5 ms beside the grid
    /// of frames that begins with the first one is put on it. What is farther away was meant so.
    fn on_grid(&self, pts: i64) -> i64 {
        let (Some(len), Some(phase)) = (self.frame_len, self.phase) else { return pts };
        let (len, phase, pts_wide) = (i128::from(len), i128::from(phase), i128::from(pts));
        let line = phase + (pts_wide - phase + len / 2).div_euclid(len) * len;
        let near = (pts_wide - line).abs() * 2000 <= 3 * i128::from(self.timescale);
        if near { i64::try_from(line).unwrap_or(pts) } else { pts }
    }
}

fn is_top_level(id: u32) -> bool {
    matches!(id, CLUSTER | CUES | TAGS | SEEK_HEAD | INFO | TRACKS | CHAPTERS | ATTACHMENTS | SEGMENT)
}

/// Whether a Cluster begins at `offset`: its ID can stand in any payload, its first child cannot be just anything.
fn begins_cluster(bytes: &Sparse, offset: u64) -> Result<bool, Stop> {
    let child = element(bytes, offset).and_then(|cluster| element(bytes, cluster.body));
    match child {
        Ok(child) => Ok(matches!(child.id, TIMESTAMP | CRC_32 | VOID | POSITION | PREV_SIZE | SILENT_TRACKS)),
        Err(Stop::Bad(_)) => Ok(false),
        Err(need) => Err(need),
    }
}

/// An unsigned integer of at most eight bytes, `None` where the file ends before.
fn known_uint(bytes: &Sparse, offset: u64, size: u64) -> Result<Option<u64>, Stop> {
    match bytes.get(offset, usize::try_from(size.min(8)).unwrap_or(0)) {
        Ok(body) => Ok(Some(uint(&body))),
        Err(Stop::Bad(_)) => Ok(None),
        Err(need) => Err(need),
    }
}

/// BlockGroup (RFC 9559, section 5.1.3.5). A Block that refers to no other can be decoded alone.
fn read_group(bytes: &Sparse, group: &Element, is_known: impl Fn(u64) -> bool) -> Result<Option<Block>, Stop> {
    let broken = || Stop::broken(group.offset, "a BlockGroup that is none");
    let end = group.end().ok_or_else(broken)?;
    let (mut block, mut key, mut duration) = (None, true, None);
    let mut at = group.body;
    for _ in 0..MAX_GROUP {
        if at >= end {
            break;
        }
        let child = element(bytes, at)?;
        let size = child.size.ok_or_else(broken)?;
        at = child.end().filter(|child_end| *child_end <= end).ok_or_else(broken)?;
        match child.id {
            BLOCK => match read_block(bytes, child.body, size, &is_known)? {
                Some((read, _)) => block = Some(read),
                None => return Ok(None),
            },
            BLOCK_DURATION => duration = known_uint(bytes, child.body, size)?,
            REFERENCE_BLOCK => key = false,
            _ => {}
        }
    }
    Ok(block.map(|block| Block { key, duration, ..block }))
}

/// A Block or the body of a SimpleBlock (RFC 9559, section 10) and the key frame bit that only the latter has. `None`: not of a known track.
fn read_block(bytes: &Sparse, body: u64, size: u64, is_known: impl Fn(u64) -> bool) -> Result<Option<(Block, bool)>, Stop> {
    let broken = || Stop::broken(body, "a Block that is none");
    let whole = usize::try_from(size).unwrap_or(usize::MAX);
    let mut window = PEEK;
    while window <= MAX_LACING {
        let look = whole.min(window);
        let held = bytes.known(body, look);
        match parse_block(&held, body, size, &is_known) {
            Ok(block) => return Ok(block),
            Err(Lack::Bad) => return Err(broken()),
            Err(Lack::More) if held.len() < look => {
                bytes.get(body, look)?;
                return Err(Stop::truncated());
            }
            Err(Lack::More) if look == whole => return Err(broken()),
            Err(Lack::More) => window = window.saturating_mul(8),
        }
    }
    Err(broken())
}

fn parse_block(held: &[u8], body: u64, size: u64, is_known: impl Fn(u64) -> bool) -> Result<Option<(Block, bool)>, Lack> {
    let (track, track_len) = unsigned(held)?;
    if !is_known(track) {
        return Ok(None);
    }
    let rest = held.get(track_len..).unwrap_or_default();
    let (Some(&[high, low, flags]), Some(laces)) = (rest.first_chunk::<3>(), rest.get(3..)) else { return Err(Lack::More) };
    let fixed = track_len as u64 + 3;
    let left = size.checked_sub(fixed).ok_or(Lack::Bad)?;
    let (sizes, lacing_len) = laced(flags >> 1 & 3, laces, left)?;
    let sizes = sizes.into_iter().map(|size| u32::try_from(size).map_err(|_| Lack::Bad)).collect::<Result<Vec<_>, _>>()?;
    let payload = body.saturating_add(fixed).saturating_add(lacing_len);
    let block = Block { track, time: i16::from_be_bytes([high, low]), key: false, payload, sizes, duration: None };
    Ok(Some((block, flags & 0x80 != 0)))
}

/// Sizes of the frames in a Block of which `left` bytes remain, and length of the lacing header (RFC 9559, section 10.3).
fn laced(lacing: u8, held: &[u8], left: u64) -> Result<(Vec<u64>, u64), Lack> {
    if lacing == 0 {
        return Ok((vec![left], 0));
    }
    let count = usize::from(*held.first().ok_or(Lack::More)?) + 1;
    let table = held.get(1..).unwrap_or_default();
    let (mut sizes, len) = match lacing {
        1 => xiph_sizes(table, count - 1)?,
        3 => ebml_sizes(table, count - 1)?,
        _ => {
            let each = left.checked_sub(1).ok_or(Lack::Bad)? / count as u64;
            (vec![each; count - 1], 0)
        }
    };
    let header = len as u64 + 1;
    let taken = sizes.iter().try_fold(header, |sum, size| sum.checked_add(*size));
    sizes.push(taken.and_then(|taken| left.checked_sub(taken)).ok_or(Lack::Bad)?);
    Ok((sizes, header))
}

fn xiph_sizes(table: &[u8], count: usize) -> Result<(Vec<u64>, usize), Lack> {
    let mut at = 0;
    let mut sizes = Vec::with_capacity(count);
    while sizes.len() < count {
        let mut size = 0;
        loop {
            let byte = *table.get(at).ok_or(Lack::More)?;
            at += 1;
            size += u64::from(byte);
            if byte != 0xFF {
                break;
            }
        }
        sizes.push(size);
    }
    Ok((sizes, at))
}

fn ebml_sizes(table: &[u8], count: usize) -> Result<(Vec<u64>, usize), Lack> {
    let mut at = 0;
    let mut sizes: Vec<u64> = Vec::with_capacity(count);
    while sizes.len() < count {
        let rest = table.get(at..).unwrap_or_default();
        let (size, len) = match sizes.last() {
            None => unsigned(rest)?,
            Some(last) => {
                let (difference, len) = signed(rest)?;
                (last.checked_add_signed(difference).ok_or(Lack::Bad)?, len)
            }
        };
        at += len;
        sizes.push(size);
    }
    Ok((sizes, at))
}
