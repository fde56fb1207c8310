//! Copied segments of films whose samples are found while reading (Matroska, movie fragments).
//!
//! Reading one segment's blocks tells where its samples are; their media is not touched. A description is kept while it is of use
//! and can be made again at any time, always the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use balcony_media::container::{Frame, Index, KeyFrame, Sparse, Stop, Track, matroska, mp4};
use balcony_media::cut::CopyCuts;
use balcony_media::segment::{SegmentParts, Timing};

use crate::segments::{Part, Segment};
use crate::source::{Cursor, Source, SourceError};
use crate::tasks::Tasks;

/// Bytes looked at in one go, where they are already here.
const WINDOW: usize = 256 * 1024;
/// Descriptions kept of one rendition. One is a few kilobytes.
const KEPT: usize = 64;
/// A sample that lasts longer than this, in seconds, is the last one before a hole.
const LONGEST_SAMPLE: i64 = 1;

/// A copied track whose samples are found while reading.
pub struct Inline {
    /// The film's bytes.
    pub source: Source,
    /// The film's index.
    pub index: Arc<Index>,
    /// Of a film in movie fragments: how to read them.
    pub fragments: Option<mp4::Context>,
    /// Where the film is cut.
    pub copy: CopyCuts,
    /// [`Track::id`].
    pub track: u64,
    /// Pictures begin at key frames; sound begins at file offsets.
    pub timing: Timing,
    /// [`SegmentParts::new`]
    pub depth: u8,
    /// Ticks of one frame of sound.
    pub frame_len: Option<u32>,
    /// Who runs the reading.
    pub tasks: Tasks,
    /// Descriptions by segment number.
    pub kept: Mutex<HashMap<u32, (Instant, Segment)>>,
}

impl Inline {
    /// Segment `n`, described or being described.
    pub fn segment(self: &Arc<Self>, n: u32) -> Segment {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((used, segment)) = kept.get_mut(&n).filter(|(_, segment)| !segment.is_failed()) {
            *used = Instant::now();
            return segment.clone();
        }
        let segment = Segment::growing();
        kept.insert(n, (Instant::now(), segment.clone()));
        if kept.len() > KEPT {
            let oldest = kept.iter().filter(|(_, (_, segment))| segment.is_done()).min_by_key(|(_, (used, _))| *used).map(|(n, _)| *n);
            oldest.map(|n| kept.remove(&n));
        }
        let (inline, growing) = (self.clone(), segment.clone());
        self.tasks.spawn("describe segment", async move { inline.describe(n, growing).await });
        segment
    }

    async fn describe(&self, n: u32, segment: Segment) {
        match self.read(n, &segment).await {
            Ok(()) => segment.finish(),
            Err(error) => segment.fail(error.into()),
        }
    }

    async fn read(&self, n: u32, segment: &Segment) -> Result<(), SourceError> {
        let mut parts = SegmentParts::inline(self.timing, n, self.depth).ending(self.copy.cuts.end(n));
        let mut reader = FrameReader::new(self, n);
        let mut last: Option<(i64, i64)> = None;
        let mut begun = false;
        while let Some(frame) = reader.next().await? {
            if self.is_before(n, &frame, begun) {
                continue;
            }
            if self.is_behind(n, &frame) {
                break;
            }
            begun = true;
            let usual = last.map_or(0, |(pts, _)| frame.pts - pts);
            last = Some((frame.pts, usual));
            segment.extend(parts.push_frame(frame).into_iter().map(Part::from));
        }
        let end = self.end(n, last);
        segment.extend(parts.finish(end).into_iter().map(Part::from));
        Ok(())
    }

    /// Fragments are entered at their start: pictures before the key frame belong to the segment before.
    fn is_before(&self, n: u32, frame: &Frame, begun: bool) -> bool {
        self.timing.video && !begun && !(frame.key && frame.pts >= self.copy.cuts.start(n))
    }

    fn is_behind(&self, n: u32, frame: &Frame) -> bool {
        let last = n + 1 >= self.copy.cuts.count();
        self.timing.video && !last && frame.key && frame.pts >= self.copy.cuts.end(n)
    }

    /// Where the segment's last sample ends. A film's told end may lie far behind its last picture (longer sound): that picture is not
    /// stretched over the rest.
    fn end(&self, n: u32, last: Option<(i64, i64)>) -> i64 {
        let told = self.copy.cuts.end(n);
        let longest = LONGEST_SAMPLE * i64::from(self.timing.timescale);
        match (last, self.frame_len) {
            (Some((pts, usual)), len) if !self.timing.video => pts + len.map_or(usual.clamp(1, longest), i64::from),
            (Some((pts, _)), _) => told.clamp(pts + 1, pts + longest),
            (None, _) if self.timing.video => told,
            (None, _) => balcony_media::cut::rescale(told, self.copy.cuts.timescale, self.timing.timescale),
        }
    }
}

/// Frames of one track from a place in the file on.
struct FrameReader {
    blocks: Blocks,
    cursor: Cursor,
    window: Sparse,
}

enum Blocks {
    Matroska(Box<matroska::Blocks>),
    /// All tracks' fragments, and the track that is wanted.
    Fragments(mp4::Fragments, u64),
}

impl FrameReader {
    /// Reads what lies in the file between the key frames of segment `n` and the next one: the same rule for pictures and sound, so that
    /// neighbours share nothing and lose nothing.
    fn new(inline: &Inline, n: u32) -> Self {
        let copy = &inline.copy;
        let key = |n: u32| copy.keys.get(n as usize);
        let from: Option<&KeyFrame> = if n == 0 { None } else { key(n) };
        let (offset, until) = (copy.read_from(n), key(n + 1).map_or(inline.source.len(), |key| key.offset));
        let (blocks, offset, until) = match &inline.fragments {
            Some(context) => {
                let offset = if n == 0 { inline.index.first_byte } else { offset };
                (Blocks::Fragments(mp4::Fragments::at(offset, context.clone()), inline.track), offset, until)
            }
            None => {
                let blocks = matroska::Blocks::between(&inline.index, from, key(n + 1)).only(&[inline.track]);
                (Blocks::Matroska(Box::new(blocks)), offset, inline.source.len())
            }
        };
        let cursor = inline.source.cursor(offset);
        Self { blocks, window: Sparse::new(until), cursor }
    }

    /// The next frame; `None` at the end of the segment's stretch of the file, as far as it can be told without asking for more.
    async fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            let found = match &mut self.blocks {
                Blocks::Matroska(blocks) => blocks.next(&self.window),
                Blocks::Fragments(fragments, track) => match fragments.next(&self.window) {
                    Ok(Some(frame)) if frame.track != *track => continue,
                    other => other,
                },
            };
            match found {
                Ok(frame) => return Ok(frame),
                Err(Stop::Need { offset, len }) => self.fetch(offset, len).await?,
                Err(Stop::Bad(damage)) => {
                    tracing::debug!(%damage, "a copied segment ends early");
                    return Ok(None);
                }
            }
        }
    }

    /// Makes a new window at `offset`: all that is here already, but waits only for what is needed.
    async fn fetch(&mut self, offset: u64, len: u64) -> Result<(), SourceError> {
        let end = self.window.len();
        let len = usize::try_from(len.min(end.saturating_sub(offset))).unwrap_or(usize::MAX);
        let known = self.window.known(offset, len);
        let mut held = known.len();
        let mut window = Sparse::new(end);
        window.insert(offset, known);
        self.cursor.seek(offset + held as u64);
        while held < len {
            let bytes = self.cursor.read(WINDOW).await?;
            if bytes.is_empty() {
                break;
            }
            window.insert(offset + held as u64, bytes.clone());
            held += bytes.len();
        }
        self.window = window;
        Ok(())
    }
}

/// First presentation time of a track, in ticks, as far as it is known.
pub fn priming(track: &Track) -> u64 {
    track.first_pts.filter(|pts| *pts < 0).map_or(0, i64::unsigned_abs)
}
