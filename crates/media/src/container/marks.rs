//! Places in films that have no table of places: Matroska without Cues, movie fragments without `sidx`, FLV.
//!
//! Their clusters, fragments and tags tell the time wherever one looks. So a time is found by looking where it should be and drawing
//! nearer, with a few reads of a quarter of a megabyte; libavformat would read everything that lies before it. ffmpeg is then given the
//! file's head and what follows the place, as if nothing lay between. This file does not read; see [`Search`] for who does.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Container, Index, Samples, Sparse, mp4};

/// Bytes looked at in one go.
const WINDOW: u64 = 256 * 1024;
/// A mark this far ahead of the time that is looked for is near enough, in microseconds.
const NEAR: i64 = 2_000_000;
/// Bytes of a window that are looked at again with the next one: more than the head of a fragment takes.
const OVERLAP: u64 = 64 * 1024;
/// Looks that one search may take: 12 MB of the film.
const MOST_LOOKS: u32 = 64;
/// Guesses before the search goes on by halves.
const GUESSES: u32 = 8;
/// Names that are looked at in one window: they can stand in pictures by chance.
const MOST_NAMES: usize = 64;

/// A place at which a film can be entered, and the time that is told there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// File offset in bytes.
    pub offset: u64,
    /// File time in microseconds.
    pub us: i64,
}

/// How the places of a film are known.
#[derive(Debug, Clone)]
pub enum Marks {
    /// Clusters (RFC 9559, 5.1.3).
    Clusters {
        /// Where the first one begins.
        head: u64,
        /// Nanoseconds of a unit of their times.
        scale: u64,
    },
    /// Movie fragments (ISO 14496-12, 8.8.4).
    Fragments {
        /// How they are read.
        context: Arc<mp4::Context>,
        /// The film's tracks.
        index: Arc<Index>,
    },
    /// FLV tags (Adobe Flash Video File Format 10.1, annex E).
    Tags {
        /// Where those end that set up the decoders.
        head: u64,
    },
}

impl Marks {
    /// Of a film with an index that has no places in it; `None` where there are some, or nothing like them.
    pub fn of_index(index: &Arc<Index>, fragments: Option<&mp4::Context>) -> Option<Self> {
        if index.tracks.iter().any(|track| !track.key_frames.is_empty()) {
            return None;
        }
        match (index.container, fragments) {
            (Container::Matroska, _) => {
                let scale = index
                    .tracks
                    .iter()
                    .find_map(|track| if let Samples::Blocks(rules) = &track.samples { Some(rules.scale()) } else { None });
                Some(Self::Clusters { head: index.first_byte, scale: scale? })
            }
            (Container::FragmentedMp4, Some(context)) => Some(Self::Fragments { context: Arc::new(context.clone()), index: index.clone() }),
            _ => None,
        }
    }

    /// Of a film of which nothing is known but its first bytes.
    pub fn of_head(bytes: &[u8]) -> Option<Self> {
        flv_head(bytes).map(|head| Self::Tags { head })
    }

    /// Bytes at the file's beginning that every decoder needs.
    pub fn head(&self) -> u64 {
        match self {
            Self::Clusters { head, .. } | Self::Tags { head } => *head,
            Self::Fragments { index, .. } => index.first_byte,
        }
    }

    /// The first place in `window`, which lies at `offset` of a file of `len` bytes.
    pub fn first(&self, len: u64, offset: u64, window: &Bytes) -> Option<Mark> {
        match self {
            Self::Clusters { scale, .. } => {
                let found = names(window, b"\x1f\x43\xb6\x75", 0);
                found
                    .take(MOST_NAMES)
                    .find_map(|at| Some(Mark { offset: offset + at as u64, us: cluster_time(window.get(at + 4..)?, *scale)? }))
            }
            Self::Fragments { context, index } => {
                let mut known = Sparse::new(len);
                known.insert(offset, window.clone());
                let found = names(window, b"moof", 4);
                found.take(MOST_NAMES).find_map(|at| {
                    let us = fragment_time(window.get(at..)?, offset + at as u64, &known, context, index)?;
                    Some(Mark { offset: offset + at as u64, us })
                })
            }
            Self::Tags { .. } => {
                (0..window.len()).find_map(|at| Some(Mark { offset: offset + at as u64, us: tag_time(window.get(at..)?)? }))
            }
        }
    }
}

/// Where a name stands, less the bytes that come `before` it.
fn names<'a>(window: &'a [u8], name: &'static [u8; 4], before: usize) -> impl Iterator<Item = usize> + 'a {
    window.windows(4).enumerate().filter(move |(_, four)| four == name).filter_map(move |(at, _)| at.checked_sub(before))
}

/// The time of a Cluster, in microseconds: its Timestamp is its first child, behind a CRC-32 at most (RFC 9559, 5.1.3.1).
fn cluster_time(body: &[u8], scale: u64) -> Option<i64> {
    // The size before it may be unknown; only its own length counts (RFC 8794, section 4).
    let len = body.first()?.leading_zeros() as usize + 1;
    let mut rest = body.get(len..)?;
    if rest.first() == Some(&0xbf) && rest.get(1) == Some(&0x84) {
        rest = rest.get(6..)?;
    }
    if rest.first() != Some(&0xe7) {
        return None;
    }
    let len = usize::from(rest.get(1)?.checked_sub(0x80).filter(|len| (1..=8).contains(len))?);
    let units = rest.get(2..2 + len)?.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    // Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock or Void follow; anything else was no Cluster.
    let follows = rest.get(2 + len)?;
    if !matches!(follows, 0xa7 | 0xab | 0xa3 | 0xa0 | 0xaf | 0xec) {
        return None;
    }
    i64::try_from(u128::from(units) * u128::from(scale) / 1000).ok()
}

/// The time of a fragment's first sample, in microseconds. Fragments that say where in the file their samples lie cannot be moved.
fn fragment_time(bytes: &[u8], offset: u64, known: &Sparse, context: &mp4::Context, index: &Index) -> Option<i64> {
    let len = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let body = bytes.get(..len)?;
    let absolute = names(body, b"tfhd", 0).any(|at| body.get(at + 7).is_none_or(|flags| flags & 1 != 0));
    if absolute {
        return None;
    }
    let frame = mp4::Fragments::at(offset, context.clone()).next(known).ok()??;
    let track = index.track(frame.track)?;
    i64::try_from(i128::from(frame.pts) * 1_000_000 / i128::from(track.timescale.max(1))).ok()
}

/// Body length and type of the tag at the beginning of `bytes`.
fn tag(bytes: &[u8]) -> Option<(usize, u8)> {
    let kind = *bytes.first()?;
    let len = u32::from_be_bytes([0, *bytes.get(1)?, *bytes.get(2)?, *bytes.get(3)?]) as usize;
    let stream = bytes.get(8..11)?;
    (matches!(kind, 8 | 9 | 18) && stream == [0, 0, 0]).then_some((len, kind))
}

/// The time of a tag of sound or picture, in microseconds, if another tag follows where it ends.
fn tag_time(bytes: &[u8]) -> Option<i64> {
    let (len, kind) = tag(bytes)?;
    if kind == 18 || len == 0 {
        return None;
    }
    let behind = bytes.get(11 + len..11 + len + 4)?;
    if u32::from_be_bytes(*behind.first_chunk()?) as usize != 11 + len {
        return None;
    }
    tag(bytes.get(15 + len..)?)?;
    let time = u32::from_be_bytes([*bytes.get(7)?, *bytes.get(4)?, *bytes.get(5)?, *bytes.get(6)?]);
    Some(i64::from(time) * 1000)
}

/// Where the tags end that only set up: metadata and the decoders' configurations.
fn flv_head(bytes: &[u8]) -> Option<u64> {
    if !bytes.starts_with(b"FLV\x01") {
        return None;
    }
    let header = u32::from_be_bytes(*bytes.get(5..)?.first_chunk()?) as usize;
    let mut at = header.checked_add(4)?;
    while let Some((len, kind)) = bytes.get(at..).and_then(tag) {
        let body = bytes.get(at + 11..).unwrap_or_default();
        let codec = body.first().copied().unwrap_or(0);
        // The packet type of AVC, HEVC and AAC is 0 for a configuration (E.4.2.1, E.4.3.1).
        let sets_up = match kind {
            18 => true,
            9 => matches!(codec & 0x0f, 7 | 12) && body.get(1) == Some(&0),
            _ => codec >> 4 == 10 && body.get(1) == Some(&0),
        };
        if !sets_up {
            break;
        }
        at = at.checked_add(len)?.checked_add(15)?;
    }
    (at <= bytes.len()).then_some(at as u64)
}

/// Looks for the last mark before a time, drawing nearer from both sides.
#[derive(Debug, Clone)]
pub struct Search {
    target: i64,
    low: Mark,
    high: Mark,
    found: bool,
    /// Where the last guess was, and how far nothing was found behind it.
    scan: Option<(u64, u64)>,
    guesses: u32,
    looks: u32,
}

impl Search {
    /// A file whose media lies in `bytes` and takes from `begin` to `end` microseconds; wanted is a mark before `target`.
    pub fn new(bytes: Range<u64>, begin: i64, end: i64, target: i64) -> Self {
        let low = Mark { offset: bytes.start, us: begin };
        let high = Mark { offset: bytes.end, us: end.max(target) };
        Self { target, low, high, found: false, scan: None, guesses: 0, looks: 0 }
    }

    /// The bytes to look at next; `None` when it is done.
    pub fn window(&mut self) -> Option<Range<u64>> {
        if self.looks >= MOST_LOOKS {
            return None;
        }
        let from = match self.scan {
            Some((_, seen)) => seen,
            None => self.guess()?,
        };
        Some(from..from.saturating_add(WINDOW).min(self.high.offset))
    }

    fn guess(&mut self) -> Option<u64> {
        let room = self.high.offset.saturating_sub(self.low.offset);
        let near = self.found && self.target.saturating_sub(self.low.us) <= NEAR;
        if near || room <= WINDOW {
            return None;
        }
        self.guesses += 1;
        // A little before the place: a mark behind it is of no use.
        let ahead = i128::from(self.target.saturating_sub(NEAR / 2).saturating_sub(self.low.us).max(0));
        let part = ahead * i128::from(room) / i128::from(self.high.us.saturating_sub(self.low.us).max(1));
        let guess = u64::try_from(part).unwrap_or(room);
        // Where guessing does not help any more, halves do.
        let step = if self.guesses <= GUESSES { guess } else { room / 2 };
        let from = self.low.offset.saturating_add(step.clamp(1, room - WINDOW / 2));
        self.scan = Some((from, from));
        Some(from)
    }

    /// What was found in that window.
    pub fn looked(&mut self, window: &Range<u64>, mark: Option<Mark>) {
        self.looks += 1;
        let Some((from, _)) = self.scan else { return };
        let over = window.end >= self.high.offset;
        match mark {
            Some(mark) if mark.us <= self.target && mark.offset > self.low.offset => (self.low, self.found, self.scan) = (mark, true, None),
            Some(mark) => (self.high, self.scan) = (Mark { offset: from, us: mark.us.max(self.low.us) }, None),
            None if over => (self.high.offset, self.scan) = (from, None),
            // What begins in one window may end in the next.
            None => self.scan = Some((from, window.end.saturating_sub(OVERLAP).max(window.start + 1))),
        }
    }

    /// The mark, if there is one behind the beginning.
    pub fn mark(&self) -> Option<Mark> {
        self.found.then_some(self.low)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(marks: &[Mark], len: u64, end: i64, target: i64) -> (Option<Mark>, u32) {
        let mut search = Search::new(100..len, 0, end, target);
        while let Some(window) = search.window() {
            let mark = marks.iter().find(|mark| window.contains(&mark.offset)).copied();
            assert!(!window.is_empty());
            search.looked(&window, mark);
        }
        (search.mark(), search.looks)
    }

    #[test]
    fn an_even_film_is_entered_after_a_few_looks() {
        let marks: Vec<Mark> = (0..1200).map(|n| Mark { offset: 100 + n * 900_000, us: n as i64 * 1_000_000 }).collect();
        let len = 100 + 1200 * 900_000;
        for target in [5_500_000, 600_000_000, 1_199_000_000] {
            let (mark, looks) = find(&marks, len, 1_200_000_000, target);
            let mark = mark.expect("a mark");
            assert!((0..=NEAR).contains(&(target - mark.us)) && looks <= 16, "{target}: {mark:?} after {looks} looks");
        }
        assert_eq!(find(&marks, len, 1_200_000_000, 0).0, None, "the beginning is no place to be looked for");
    }

    proptest! {
        #[test]
        fn a_mark_is_never_behind_the_time(steps in prop::collection::vec((1u64..3_000_000, 1i64..20_000_000), 1..100), at in 0u8..=255) {
            let (mut offset, mut us, mut marks) = (100, 0, Vec::new());
            for (bytes, time) in steps {
                marks.push(Mark { offset, us });
                (offset, us) = (offset + bytes, us + time);
            }
            let target = us * i64::from(at) / 255;
            let (mark, looks) = find(&marks, offset, us, target);
            prop_assert!(looks <= MOST_LOOKS);
            if let Some(mark) = mark {
                prop_assert!(mark.us <= target && marks.contains(&mark));
            }
        }

        #[test]
        fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = (flv_head(&bytes), tag_time(&bytes), cluster_time(&bytes, u64::MAX));
            let mut named = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
            named.extend(&bytes);
            let _ = flv_head(&named);
        }
    }

    #[test]
    fn clusters_tell_their_time() {
        let cluster = |tail: &[u8]| [b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff", tail].concat();
        let marks = Marks::Clusters { head: 10, scale: 1_000_000 };
        let whole = Bytes::from([b"rubbish \x1f\x43\xb6\x75 and more", &cluster(b"\xe7\x82\x30\x39\xa3\x81x")[..]].concat());
        assert_eq!(marks.first(1000, 500, &whole), Some(Mark { offset: 521, us: 12_345_000 }));
        for other in [&b"\xe7\x82\x30\x39\x11"[..], b"\xe7\x89", b"\xa3\x81x", b""] {
            assert_eq!(marks.first(1000, 500, &cluster(other).into()), None);
        }
    }

    #[test]
    fn tags_tell_their_time_and_set_up_first() {
        let tag = |kind: u8, time: u32, body: &[u8]| {
            let len = (body.len() as u32).to_be_bytes();
            let time = time.to_be_bytes();
            let head = [kind, len[1], len[2], len[3], time[1], time[2], time[3], time[0], 0, 0, 0];
            [&head[..], body, &(body.len() as u32 + 11).to_be_bytes()].concat()
        };
        let setup =
            [b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec(), tag(18, 0, b"onMetaData"), tag(9, 0, b"\x17\0\0\0\0"), tag(8, 0, b"\xaf\0\x11")];
        let media = [tag(9, 40, b"\x27\x01picture"), tag(8, 0x0100_0007, b"\xaf\x01sound"), tag(9, 80, b"\x27\x01picture")].concat();
        let whole = [setup.concat(), media.clone()].concat();
        let marks = Marks::of_head(&whole).expect("an FLV");
        assert_eq!(marks.head(), setup.concat().len() as u64);
        let window = Bytes::from(media);
        assert_eq!(marks.first(1 << 30, 7, &window), Some(Mark { offset: 7, us: 40_000 }));
        assert_eq!(marks.first(1 << 30, 8, &window.slice(1..)).map(|mark| mark.us), Some(0x0100_0007 * 1000));
        assert!(Marks::of_head(b"RIFF").is_none());
    }
}
