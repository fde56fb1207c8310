//! Matroska and WebM (RFC 9559): the table of contents of a film from a few reads, and its frames while it is read.
//!
//! [`index`] looks at the head of the file, follows the SeekHead to what lies elsewhere and fetches the Cues as a whole, wherever they
//! are; it never searches and never guesses an offset. [`Blocks`] walks Clusters and names the place of every frame without asking for a
//! single payload. A film that is cut off, or whose Cues are missing, still has an index of what is there.
//!
//! What the Cues do not tell: whether a key frame is closed. [`KeyFrame::closed`](super::KeyFrame::closed) is always set here; a frame
//! that follows a key frame and is shown before it can only be seen in the Blocks.

mod attachments;
mod blocks;
mod cues;
mod ebml;
mod tracks;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::ebml::{Element, children, element, float, peek_within, text, uint};
use super::{Container, Damage, Index, KeyFrame, Kind, Samples, Sparse, Stop, Track};
use crate::codec;

pub use self::attachments::{Attached, attachments};
pub use self::blocks::Blocks;

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// Bytes that are read first.
const HEAD: usize = 64 << 10;
/// Largest Tracks and Cues elements that are read.
const MAX_TABLE: u64 = 64 << 20;
/// Largest SeekHead, Info and Tags elements that are read.
const MAX_SMALL: u64 = 1 << 20;
/// Elements to pass on the way to the first Cluster.
const MAX_STEPS: usize = 1000;
/// SeekHead elements to read beside those that lie on that way.
const MAX_SEEK_HEADS: usize = 4;
/// Bytes after the beginning of the first Cluster in which the first frame of each track is looked for.
const MAX_PROBE: u64 = 1 << 20;
/// Bytes that are asked for at a time while looking for it.
const PROBE_READ: usize = 32 << 10;

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114D_9B74;
const INFO: u32 = 0x1549_A966;
const TRACKS: u32 = 0x1654_AE6B;
const CUES: u32 = 0x1C53_BB6B;
const TAGS: u32 = 0x1254_C367;
const CHAPTERS: u32 = 0x1043_A770;
const ATTACHMENTS: u32 = 0x1941_A469;
const CLUSTER: u32 = 0x1F43_B675;

/// How the times and payloads of a track's Blocks are to be understood: what [`Blocks`] needs beside the public fields of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRules {
    /// TimestampScale: nanoseconds in one unit of Cluster and Block times.
    scale: u64,
    /// CodecDelay: nanoseconds to subtract from every time.
    delay: u64,
    /// Time of the Segment, in nanoseconds, at which the film begins: 0, or less where pictures stand before the Segment's zero.
    zero: i64,
    /// DefaultDuration: nanoseconds of one frame.
    frame_time: Option<u64>,
    /// What header stripping took from each frame.
    prefix: Bytes,
}

impl BlockRules {
    /// Nanoseconds in one unit of Cluster and Block times.
    pub(super) fn scale(&self) -> u64 {
        self.scale
    }

    /// Nanoseconds to subtract from a time of the Segment.
    fn shift(&self) -> i128 {
        i128::from(self.delay) + i128::from(self.zero)
    }

    /// The Segment's time at the film's beginning, in microseconds.
    pub(super) fn zero_us(&self) -> i64 {
        self.zero.div_euclid(1000)
    }
}

/// The table of contents of a Matroska or WebM file.
///
/// Reads the first 64 KiB, what the SeekHead says lies elsewhere, and at most 1 MiB of the first Clusters for [`Track::first_pts`].
pub fn index(bytes: &Sparse) -> Result<Index, Stop> {
    bytes.get(0, peek_within(bytes, 0, HEAD))?;
    let segment = open_segment(bytes)?;
    let mut contents = Contents::walk(bytes, &segment)?;
    let info = match contents.locate(bytes, INFO)? {
        Some(element) => Info::read(&body(bytes, &element, MAX_SMALL)?.unwrap_or_default()),
        None => Info::default(),
    };
    let Some(place) = contents.locate(bytes, TRACKS)? else {
        return Err(Stop::broken(segment.data, "there are no tracks"));
    };
    let tracks = body(bytes, &place, MAX_TABLE)?.ok_or(Stop::Bad(Damage::TooLarge("the Tracks element")))?;
    let (uids, tracks): (Vec<u64>, Vec<Track>) = tracks::read(&tracks, info.scale).into_iter().unzip();
    let mut index = Index {
        container: Container::Matroska,
        duration: info.duration,
        tracks,
        first_byte: contents.first_cluster.unwrap_or(segment.end),
        end_byte: segment.end,
    };
    let entry = find_first_frames(bytes, &mut index)?;
    begin_with_the_picture(&mut index);
    if let Some(cues) = contents.locate(bytes, CUES)? {
        let table = body(bytes, &cues, MAX_TABLE)?.unwrap_or_default();
        cues::read(&table, segment.data, &mut index);
    }
    if entry {
        add_first_key_frame(&mut index);
    }
    read_bitrates(bytes, &contents, &uids, &mut index.tracks);
    Ok(index)
}

/// Where the Segment's children are.
struct Segment {
    /// File offset of its first child, from which Matroska counts all positions.
    data: u64,
    /// File offset just past the last one, at most the end of the file.
    end: u64,
}

/// Checks the EBML header and finds the Segment behind it.
fn open_segment(bytes: &Sparse) -> Result<Segment, Stop> {
    const NOT_THIS: Stop = Stop::Bad(Damage::NotThis("Matroska"));
    let header = element(bytes, 0).map_err(|stop| if matches!(stop, Stop::Bad(_)) { NOT_THIS } else { stop })?;
    if header.id != EBML {
        return Err(NOT_THIS);
    }
    let head = body(bytes, &header, HEAD as u64)?.ok_or(NOT_THIS)?;
    let doc_type = children(&head).find(|(id, _)| *id == 0x4282).map(|(_, body)| text(body));
    if !matches!(doc_type.as_deref(), None | Some("matroska" | "webm")) {
        return Err(NOT_THIS);
    }
    let mut at = header.end().unwrap_or(u64::MAX);
    for _ in 0..MAX_STEPS {
        let found = element(bytes, at)?;
        if found.id == SEGMENT {
            // A size of nothing is what a muxer leaves that was stopped before it could fill it in.
            let end = found.end().filter(|end| *end > found.body).unwrap_or(bytes.len());
            return Ok(Segment { data: found.body, end: end.min(bytes.len()) });
        }
        at = found.end().ok_or_else(|| Stop::broken(at, "there is no Segment"))?;
    }
    Err(Stop::broken(at, "there is no Segment"))
}

/// The body of an element, cut at the end of the file. `None` where it is larger than `max` or of unknown size.
fn body(bytes: &Sparse, element: &Element, max: u64) -> Result<Option<Bytes>, Stop> {
    let Some(size) = element.size.filter(|size| *size <= max) else {
        return Ok(None);
    };
    let len = peek_within(bytes, element.body, usize::try_from(size).unwrap_or(usize::MAX));
    bytes.get(element.body, len).map(Some)
}

/// What is known of the places of the Segment's children.
struct Contents {
    data: u64,
    /// Those that lie before the first Cluster.
    met: Vec<Element>,
    first_cluster: Option<u64>,
    /// ID and file offset of those that a SeekHead names.
    named: Vec<(u32, u64)>,
    /// File offsets of the SeekHeads that were read.
    seek_heads: Vec<u64>,
}

impl Contents {
    /// Passes over the children of the Segment up to the first Cluster.
    fn walk(bytes: &Sparse, segment: &Segment) -> Result<Self, Stop> {
        let mut contents = Self { data: segment.data, met: Vec::new(), first_cluster: None, named: Vec::new(), seek_heads: Vec::new() };
        let mut at = segment.data;
        for _ in 0..MAX_STEPS {
            if at >= segment.end {
                break;
            }
            let Some(found) = if_sound(element(bytes, at))? else { break };
            match found.id {
                CLUSTER => {
                    contents.first_cluster = Some(at);
                    break;
                }
                SEEK_HEAD => contents.read_seek_head(bytes, &found)?,
                _ => contents.met.push(found),
            }
            match found.end() {
                Some(end) => at = end,
                None => break,
            }
        }
        Ok(contents)
    }

    /// SeekHead (RFC 9559, section 5.1.1).
    fn read_seek_head(&mut self, bytes: &Sparse, head: &Element) -> Result<(), Stop> {
        self.seek_heads.push(head.offset);
        let Some(head) = if_sound(body(bytes, head, MAX_SMALL))?.flatten() else { return Ok(()) };
        for (_, seek) in children(&head).filter(|(id, _)| *id == 0x4DBB) {
            let (mut id, mut position) = (0, None);
            for (child, body) in children(seek) {
                match child {
                    0x53AB => id = u32::try_from(uint(body)).unwrap_or(0),
                    0x53AC => position = Some(uint(body)),
                    _ => {}
                }
            }
            // Some muxers list all Clusters; those need no place here.
            if let (INFO | TRACKS | CUES | TAGS | ATTACHMENTS | SEEK_HEAD, Some(position)) = (id, position) {
                self.named.push((id, self.data.saturating_add(position)));
            }
        }
        Ok(())
    }

    /// The element `id`: met on the way, else the first place named by a SeekHead at which it really is.
    fn locate(&mut self, bytes: &Sparse, id: u32) -> Result<Option<Element>, Stop> {
        if let Some(met) = self.met.iter().find(|element| element.id == id) {
            return Ok(Some(*met));
        }
        let mut next = 0;
        loop {
            while let Some((named, offset)) = self.named.get(next).copied() {
                next += 1;
                if named == id
                    && let Some(found) = if_sound(element(bytes, offset))?.filter(|found| found.id == id)
                {
                    return Ok(Some(found));
                }
            }
            let unread = self.named.iter().find(|(named, offset)| *named == SEEK_HEAD && !self.seek_heads.contains(offset));
            let Some((_, offset)) = unread.copied().filter(|_| self.seek_heads.len() < MAX_SEEK_HEADS) else {
                return Ok(None);
            };
            match if_sound(element(bytes, offset))?.filter(|found| found.id == SEEK_HEAD) {
                Some(head) => self.read_seek_head(bytes, &head)?,
                None => self.seek_heads.push(offset),
            }
        }
    }
}

/// Nothing where the file is damaged: what is left of it may do.
fn if_sound<T>(read: Result<T, Stop>) -> Result<Option<T>, Stop> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Bad(_)) => Ok(None),
        Err(need) => Err(need),
    }
}

/// Info (RFC 9559, section 5.1.2).
struct Info {
    /// TimestampScale.
    scale: u64,
    /// Seconds.
    duration: Option<f64>,
}

impl Default for Info {
    fn default() -> Self {
        Self { scale: 1_000_000, duration: None }
    }
}

impl Info {
    fn read(body: &[u8]) -> Self {
        let mut info = Self::default();
        let mut duration = 0.0;
        for (id, body) in children(body) {
            match id {
                0x2A_D7B1 if uint(body) > 0 => info.scale = uint(body),
                0x4489 => duration = float(body),
                _ => {}
            }
        }
        let seconds = duration * info.scale as f64 / SECOND as f64;
        info.duration = (seconds.is_finite() && seconds > 0.0).then_some(seconds);
        info
    }
}

/// A film whose pictures begin before the Segment's zero begins with them, so that none of them is left out: all its times count from the
/// first one. Sound alone may begin earlier: that is what its decoder needs to start.
fn begin_with_the_picture(index: &mut Index) {
    let Some((first, timescale)) = index.video().and_then(|track| Some((track.first_pts?, track.timescale))) else { return };
    let Some(scale) = index.video().and_then(|track| if let Samples::Blocks(rules) = &track.samples { Some(rules.scale) } else { None })
    else {
        return;
    };
    if first >= 0 {
        return;
    }
    // Times of the Segment are whole units; ticks are finer.
    let unit = i128::from(scale.max(1));
    let zero = i128::from(first) * i128::from(SECOND) / i128::from(timescale.max(1));
    let zero = (zero - unit / 2) / unit * unit;
    let Ok(zero) = i64::try_from(zero) else { return };
    for track in &mut index.tracks {
        if let Samples::Blocks(rules) = &mut track.samples {
            rules.zero = zero;
        }
        let later = ticks(-i128::from(zero), track.timescale);
        track.first_pts = track.first_pts.map(|pts| pts.saturating_add(later));
    }
    index.duration = index.duration.map(|seconds| seconds - zero as f64 / SECOND as f64);
}

/// The Cues of some films leave out the key frame with which the picture begins (those that stand before zero cannot be named there).
fn add_first_key_frame(index: &mut Index) {
    let offset = index.first_byte;
    let Some(track) = index.tracks.iter_mut().find(|track| track.kind == Kind::Video) else { return };
    let (Some(pts), Some(first)) = (track.first_pts, track.key_frames.first()) else { return };
    if pts < first.pts {
        track.key_frames.insert(0, KeyFrame { pts, offset, block: None, closed: true });
    }
}

/// Fills [`Track::first_pts`] of pictures and sound. A track that begins later than 1 MiB into the Clusters keeps `None`. Answers whether
/// the first picture of the film is a key frame.
fn find_first_frames(bytes: &Sparse, index: &mut Index) -> Result<bool, Stop> {
    let limit = index.first_byte.saturating_add(MAX_PROBE).min(index.end_byte);
    let wanted = index.tracks.iter().filter(|track| matches!(track.kind, Kind::Video | Kind::Audio)).map(|track| track.id);
    let mut wanted: Vec<u64> = wanted.collect();
    let video = index.video().map(|track| track.id);
    let mut entry = false;
    let mut blocks = Blocks::at(index.first_byte, index);
    while !wanted.is_empty() {
        let frame = match blocks.next(bytes) {
            Ok(Some(frame)) if frame.element < limit => frame,
            Err(Stop::Need { offset, len }) if offset < limit => {
                let more = peek_within(bytes, offset, PROBE_READ) as u64;
                return Err(Stop::Need { offset, len: len.max(more) });
            }
            _ => break,
        };
        if let Some(place) = wanted.iter().position(|id| *id == frame.track) {
            wanted.swap_remove(place);
            entry |= frame.key && Some(frame.track) == video;
            if let Some(track) = index.tracks.iter_mut().find(|track| track.id == frame.track) {
                track.first_pts = Some(frame.pts);
                if codec::is_incomplete(track) {
                    let len = (frame.len as usize).min(codec::FIRST_FRAME);
                    let head = bytes.get(frame.offset, peek_within(bytes, frame.offset, len))?;
                    codec::learn(track, &[&frame.prefix[..], &head].concat());
                }
            }
        }
    }
    Ok(entry)
}

/// Fills [`Track::bitrate`] from the statistics that mkvmerge writes as Tags, where these are known without a read of their own.
fn read_bitrates(bytes: &Sparse, contents: &Contents, uids: &[u64], tracks: &mut [Track]) {
    let named = contents.named.iter().filter(|(id, _)| *id == TAGS).filter_map(|(_, offset)| element(bytes, *offset).ok());
    let met = contents.met.iter().copied();
    let Some(place) = met.chain(named).find(|element| element.id == TAGS) else { return };
    let Ok(Some(tags)) = body(bytes, &place, MAX_SMALL) else { return };
    for (_, tag) in children(&tags).filter(|(id, _)| *id == 0x7373) {
        let Some(bits) = bits_per_second(tag) else { continue };
        for (_, target) in children(tag).filter(|(id, _)| *id == 0x63C0) {
            for (_, uid) in children(target).filter(|(id, _)| *id == 0x63C5) {
                let tracks = uids.iter().zip(tracks.iter_mut()).filter(|(known, _)| **known == uint(uid));
                tracks.for_each(|(_, track)| track.bitrate = Some(bits));
            }
        }
    }
}

/// The SimpleTag `BPS` of a Tag (older files: `BPS-eng`).
fn bits_per_second(tag: &[u8]) -> Option<u64> {
    children(tag).filter(|(id, _)| *id == 0x67C8).find_map(|(_, simple)| {
        let value = |wanted| children(simple).find(|(id, _)| *id == wanted).map(|(_, body)| text(body));
        let named = value(0x45A3).is_some_and(|name| name == "BPS" || name == "BPS-eng");
        named.then(|| value(0x4487)?.trim().parse().ok()).flatten()
    })
}

/// Nanoseconds as ticks of a track, rounded to the nearest.
fn ticks(nanoseconds: i128, timescale: u32) -> i64 {
    let second = i128::from(SECOND);
    let ticks = (nanoseconds.saturating_mul(i128::from(timescale)).saturating_add(second / 2)).div_euclid(second);
    i64::try_from(ticks).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
}
