//! A film to keep: the segments of several renditions put together as one MP4 file with its tables in front (ISO 14496-12), which plays
//! from its first bytes on and which every photo library and television takes.
//!
//! Segments go in, in any order of tracks but each track's own in order; what has to be appended to the file's media comes out. The
//! tables can be written when everything is in: [`Whole::head`] is what the file begins with, and the media follows directly. Sample
//! entries are taken over from the init segments as they are. Times are those of the segments: a track that begins later than the others
//! gets an empty edit, one with something before its first moment an edit that skips it.

use bytes::Bytes;

use super::read::{Event, ReadError, Reader};
use super::write::{boxed, data_reference, extended_language, full, packed_language, put_all, put16, put32, put64};
use crate::container::Damage;
use crate::container::mp4::boxes::{child, children, descend};
use crate::cut::rescale;
use crate::subtitle::Cue;

/// Ticks per second of the movie header and of edit lists: the common multiple of what broadcasts use.
const MOVIE_SCALE: u32 = 90_000;
/// Ticks per second of subtitles.
const TEXT_SCALE: u32 = 1000;
/// Longest text of one subtitle in bytes (3GPP TS 26.245, 5.17: its length is a 16-bit number).
const LONGEST_TEXT: usize = 0xffff;
/// A track of more samples is no film.
const MOST_SAMPLES: usize = 1 << 26;
/// More texts are not shown at once.
const MOST_AT_ONCE: usize = 16;
/// `tkhd` flags (8.3.2): in the movie, and enabled.
const IN_MOVIE: u32 = 2;
const ENABLED: u32 = 1;

/// A subtitle: when it is shown, in milliseconds, and its text without any markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// First moment.
    pub from: u64,
    /// The moment after the last one.
    pub until: u64,
    /// Lines are parted by `\n`.
    pub text: String,
}

/// Cues as lines: one at a time, since a track of text shows one sample at a time. What is said at once stands below each other.
pub fn lines(cues: &[Cue]) -> Vec<Line> {
    let mut moments: Vec<i64> = cues.iter().flat_map(|cue| [cue.start, cue.end]).collect();
    moments.sort_unstable();
    moments.dedup();
    let mut coming: Vec<&Cue> = cues.iter().collect();
    coming.sort_by_key(|cue| cue.start);
    let (mut coming, mut shown) = (coming.into_iter().peekable(), Vec::<&Cue>::new());
    let mut lines: Vec<Line> = Vec::new();
    for (from, until) in moments.iter().zip(moments.iter().skip(1)) {
        shown.retain(|cue| cue.end > *from);
        while let Some(cue) = coming.next_if(|cue| cue.start <= *from) {
            if cue.end > *from && shown.len() < MOST_AT_ONCE {
                shown.push(cue);
            }
        }
        let text: Vec<String> = shown.iter().map(|cue| plain(&cue.text)).filter(|text| !text.is_empty()).collect();
        let (Ok(from), Ok(until)) = (u64::try_from(*from), u64::try_from(*until)) else { continue };
        if !text.is_empty() {
            lines.push(Line { from, until, text: text.join("\n") });
        }
    }
    lines
}

/// The text of a WebVTT payload (W3C WebVTT, 4.2.2) without its tags and escapes.
fn plain(payload: &str) -> String {
    let mut out = String::with_capacity(payload.len());
    let mut within = false;
    for letter in payload.chars() {
        match letter {
            '<' => within = true,
            '>' => within = false,
            other if !within => out.push(other),
            _ => {}
        }
    }
    // The ampersand last: `&amp;lt;` is text.
    [("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", "\u{a0}"), ("&lrm;", ""), ("&rlm;", ""), ("&amp;", "&")]
        .into_iter()
        .fold(out, |text, (escape, letter)| text.replace(escape, letter))
        .trim()
        .to_owned()
}

/// A film that is being put together. See the module.
#[derive(Debug, Default)]
pub struct Whole {
    tracks: Vec<Track>,
    /// Bytes of media so far.
    media: u64,
    /// Which track's samples stand at the end of the media.
    last: Option<usize>,
}

#[derive(Debug)]
struct Track {
    kind: Kind,
    /// Bodies of boxes that are taken over from the init segment.
    header: Bytes,
    handler: Bytes,
    /// `elng`, where there is one, and the boxes of `minf` but for `stbl`: whole.
    language: Language,
    information: Vec<(Boxes, Bytes)>,
    /// Boxes of `stbl` that are no tables of samples: `stsd`, `sgpd`.
    described: Vec<(Boxes, Bytes)>,
    timescale: u32,
    /// Media time of what is shown first, as the init segment's edit list tells.
    media_time: i64,
    reader: Reader,
    samples: Vec<Sample>,
    chunks: Vec<Chunk>,
}

type Boxes = [u8; 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Video,
    Audio,
    Text,
}

/// A language in both of its spellings: the packed one of `mdhd`, and the body of `elng`.
#[derive(Debug, Clone, Default)]
struct Language {
    packed: u16,
    tag: Option<Bytes>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    dts: i64,
    duration: u32,
    composition: i32,
    size: u32,
    key: bool,
}

/// Samples of one track that stand next to each other.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    offset: u64,
    samples: u32,
}

impl Whole {
    /// Nothing in it yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of media so far.
    pub fn media(&self) -> u64 {
        self.media
    }

    /// A track, from its init segment. The first one of a kind is the one that plays. Answers its number.
    ///
    /// # Errors
    /// [`Damage`] where this is no init segment of one track of picture or sound.
    pub fn add(&mut self, init: &Bytes) -> Result<usize, Damage> {
        let broken = |what| Damage::Broken { offset: 0, what };
        let trak = descend(init, &[b"moov", b"trak"]).ok_or(broken("an init segment without a track"))?;
        let mdia = child(&trak, b"mdia").ok_or(broken("a track without media"))?;
        let take = |from: &Bytes, kind| child(from, kind).ok_or(broken("an init segment that lacks a box"));
        let (header, handler, mdhd) = (take(&trak, b"tkhd")?, take(&mdia, b"hdlr")?, take(&mdia, b"mdhd")?);
        let minf = take(&mdia, b"minf")?;
        let stbl = take(&minf, b"stbl")?;
        let kind = match handler.get(8..12) {
            Some(b"vide") => Kind::Video,
            Some(b"soun") => Kind::Audio,
            _ => return Err(broken("a track that is neither picture nor sound")),
        };
        let packed = mdhd.get(20..22).and_then(|two| <[u8; 2]>::try_from(two).ok()).map_or(0x55c4, u16::from_be_bytes);
        let language = Language { packed, tag: child(&mdia, b"elng") };
        let information = children(&minf).filter(|one| one.kind != *b"stbl").map(|one| (one.kind, one.body)).collect();
        let tables: [&Boxes; 4] = [b"stts", b"stsc", b"stsz", b"stco"];
        let described = children(&stbl).filter(|one| !tables.contains(&&one.kind)).map(|one| (one.kind, one.body)).collect();
        let mut reader = Reader::new();
        reader.push(init.clone());
        let told = match reader.next() {
            Ok(Some(Event::Header(tracks))) => tracks.into_iter().next(),
            _ => None,
        };
        let told = told.ok_or(broken("an init segment that tells of no track"))?;
        let (timescale, media_time) = (told.timescale.max(1), told.media_time);
        let track = Track {
            kind,
            header,
            handler,
            language,
            information,
            described,
            timescale,
            media_time,
            reader,
            samples: vec![],
            chunks: vec![],
        };
        self.tracks.push(track);
        Ok(self.tracks.len() - 1)
    }

    /// The next bytes of a track's segments. Answers what has to be appended to the media, in this order.
    ///
    /// # Errors
    /// [`ReadError`] where they are no segments.
    pub fn push(&mut self, track: usize, bytes: Bytes) -> Result<Vec<Bytes>, ReadError> {
        let mut media = Vec::new();
        let Some(own) = self.tracks.get_mut(track) else { return Ok(media) };
        own.reader.push(bytes);
        while let Some(event) = own.reader.next()? {
            let Event::Packet(packet) = event else { continue };
            if own.samples.len() >= MOST_SAMPLES {
                return Err(Damage::TooLarge("a track").into());
            }
            let composition = i32::try_from(packet.pts.saturating_sub(packet.dts)).unwrap_or(0);
            let size = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
            own.samples.push(Sample { dts: packet.dts, duration: packet.duration, composition, size, key: packet.key });
            own.stands_at(self.media, self.last == Some(track));
            self.last = Some(track);
            self.media += packet.data.len() as u64;
            media.push(packet.data);
        }
        Ok(media)
    }

    /// Subtitles (`tx3g`, 3GPP TS 26.245, 5.16), in order of time and not overlapping. Answers what has to be appended to the media.
    pub fn add_text(&mut self, language: &str, name: &str, lines: &[Line]) -> Vec<Bytes> {
        let mut track = text_track(language, name);
        let mut media = Vec::new();
        for (from, until, text) in without_holes(lines) {
            let data = text_sample(text);
            let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let duration = u32::try_from(until - from).unwrap_or(u32::MAX);
            let dts = i64::try_from(from).unwrap_or(i64::MAX);
            track.samples.push(Sample { dts, duration, composition: 0, size, key: true });
            track.stands_at(self.media, track.chunks.last().is_some());
            self.media += data.len() as u64;
            media.push(data);
        }
        if !track.samples.is_empty() {
            self.last = None;
            self.tracks.push(track);
        }
        media
    }

    /// What the file begins with: `ftyp`, `moov` and the header of the `mdat` that all media is the body of.
    pub fn head(&self) -> Bytes {
        // The tables are as long wherever the media begins.
        let length = self.written(0).len() as u64;
        Bytes::from(self.written(length))
    }

    fn written(&self, media_at: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096 + self.tracks.iter().map(|track| track.samples.len() * 12).sum::<usize>());
        boxed(&mut out, b"ftyp", |out| {
            out.extend(b"isom");
            put32(out, 0x200);
            out.extend(b"isomiso2mp41");
        });
        boxed(&mut out, b"moov", |out| {
            let longest = self.tracks.iter().map(|track| track.timing().movie_duration).max().unwrap_or(0);
            full(out, b"mvhd", 1, 0, |out| {
                put_all(out, &[0; 4]);
                put32(out, MOVIE_SCALE);
                put64(out, longest);
                put_all(out, &[0x1_0000, 0x0100_0000, 0, 0]);
                put_all(out, &[0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000]);
                put_all(out, &[0; 6]);
                put32(out, u32::try_from(self.tracks.len() + 1).unwrap_or(u32::MAX));
            });
            for (number, track) in self.tracks.iter().enumerate() {
                let first = self.tracks.iter().position(|other| other.kind == track.kind) == Some(number);
                let shown = first && track.kind != Kind::Text;
                boxed(out, b"trak", |out| track.write(out, number + 1, shown, media_at));
            }
        });
        put32(&mut out, 1);
        out.extend(b"mdat");
        put64(&mut out, self.media + 16);
        out
    }
}

/// Where a track lies on the movie's time line.
struct Timing {
    /// Decode time of the first sample: zero of the track's own media.
    zero: i64,
    /// Ticks of the movie before anything is shown.
    empty: u64,
    /// Media time of what is shown first.
    skipped: u64,
    /// Ticks of the media from first to last decode time, the last duration included.
    media_duration: u64,
    /// Ticks of the movie that are shown.
    shown: u64,
    /// Ticks of the movie until its end.
    movie_duration: u64,
}

impl Track {
    /// Its newest sample stands at this offset of the media; `behind`: right behind the one before.
    fn stands_at(&mut self, offset: u64, behind: bool) {
        match self.chunks.last_mut().filter(|_| behind) {
            Some(chunk) => chunk.samples += 1,
            None => self.chunks.push(Chunk { offset, samples: 1 }),
        }
    }

    fn timing(&self) -> Timing {
        let zero = self.samples.first().map_or(0, |first| first.dts);
        let end = self.samples.last().map_or(0, |last| last.dts.saturating_add(i64::from(last.duration)));
        let last_shown =
            self.samples.iter().map(|one| one.dts.saturating_add(i64::from(one.composition)).saturating_add(i64::from(one.duration)));
        let shown_until = last_shown.max().unwrap_or(0).saturating_sub(self.media_time);
        let in_movie = |ticks: i64| u64::try_from(rescale(ticks, self.timescale, MOVIE_SCALE)).unwrap_or(0);
        let begins = zero.saturating_sub(self.media_time);
        let empty = in_movie(begins.max(0));
        let movie_duration = in_movie(shown_until.max(0)).max(empty);
        Timing {
            zero,
            empty,
            skipped: u64::try_from(begins.saturating_neg()).unwrap_or(0),
            media_duration: u64::try_from(end.saturating_sub(zero)).unwrap_or(0),
            shown: movie_duration - empty,
            movie_duration,
        }
    }

    fn write(&self, out: &mut Vec<u8>, id: usize, enabled: bool, media_at: u64) {
        let timing = self.timing();
        full(out, b"tkhd", 1, IN_MOVIE | if enabled { ENABLED } else { 0 }, |out| {
            put_all(out, &[0; 4]);
            put32(out, u32::try_from(id).unwrap_or(u32::MAX));
            put32(out, 0);
            put64(out, timing.movie_duration);
            put_all(out, &[0; 2]);
            // One of each kind plays at a time (8.3.2.3).
            put16(out, 0);
            put16(
                out,
                match self.kind {
                    Kind::Video => 0,
                    Kind::Audio => 1,
                    Kind::Text => 2,
                },
            );
            out.extend(self.header.get(36..84).unwrap_or(&[0; 48]));
        });
        if timing.empty > 0 || timing.skipped > 0 {
            boxed(out, b"edts", |out| {
                full(out, b"elst", 1, 0, |out| {
                    put32(out, if timing.empty > 0 { 2 } else { 1 });
                    if timing.empty > 0 {
                        put64(out, timing.empty);
                        put64(out, u64::MAX);
                        put32(out, 0x1_0000);
                    }
                    put64(out, timing.shown);
                    put64(out, timing.skipped);
                    put32(out, 0x1_0000);
                });
            });
        }
        boxed(out, b"mdia", |out| {
            full(out, b"mdhd", 1, 0, |out| {
                put_all(out, &[0; 4]);
                put32(out, self.timescale);
                put64(out, timing.media_duration);
                put16(out, self.language.packed);
                put16(out, 0);
            });
            boxed(out, b"hdlr", |out| out.extend(&self.handler));
            if let Some(tag) = &self.language.tag {
                boxed(out, b"elng", |out| out.extend(tag));
            }
            boxed(out, b"minf", |out| {
                for (kind, body) in &self.information {
                    boxed(out, kind, |out| out.extend(body));
                }
                boxed(out, b"stbl", |out| self.tables(out, timing.zero, media_at));
            });
        });
    }

    /// The tables of samples (8.5 to 8.7).
    fn tables(&self, out: &mut Vec<u8>, zero: i64, media_at: u64) {
        for (kind, body) in &self.described {
            boxed(out, kind, |out| out.extend(body));
        }
        // A sample lasts until the next one is decoded, whatever it said itself: so holes and overlaps cannot add up.
        let next = self.samples.iter().skip(1).map(|next| Some(next.dts)).chain([None]);
        let mut at = zero;
        let durations = self.samples.iter().zip(next).map(|(sample, next)| {
            let until = next.unwrap_or_else(|| sample.dts.saturating_add(i64::from(sample.duration)));
            let lasts = u32::try_from(until.saturating_sub(at)).unwrap_or(0);
            at = at.saturating_add(i64::from(lasts));
            lasts
        });
        runs(out, b"stts", 0, durations);
        if self.samples.iter().any(|sample| sample.composition != 0) {
            let version = u8::from(self.samples.iter().any(|sample| sample.composition < 0));
            runs(out, b"ctts", version, self.samples.iter().map(|sample| sample.composition.cast_unsigned()));
        }
        if self.samples.iter().any(|sample| !sample.key) {
            full(out, b"stss", 0, 0, |out| {
                let keys = self.samples.iter().zip(1u32..).filter(|(sample, _)| sample.key).map(|(_, number)| number);
                counted(out, keys);
            });
        }
        full(out, b"stsc", 0, 0, |out| {
            let mut before = None;
            let changes: Vec<[u32; 3]> = self
                .chunks
                .iter()
                .zip(1u32..)
                .filter(|(chunk, _)| before.replace(chunk.samples) != Some(chunk.samples))
                .map(|(chunk, number)| [number, chunk.samples, 1])
                .collect();
            put32(out, u32::try_from(changes.len()).unwrap_or(u32::MAX));
            changes.iter().for_each(|change| put_all(out, change));
        });
        full(out, b"stsz", 0, 0, |out| {
            put32(out, 0);
            counted(out, self.samples.iter().map(|sample| sample.size));
        });
        full(out, b"co64", 0, 0, |out| {
            put32(out, u32::try_from(self.chunks.len()).unwrap_or(u32::MAX));
            self.chunks.iter().for_each(|chunk| put64(out, media_at.saturating_add(chunk.offset)));
        });
    }
}

/// A list with its length in front.
fn counted(out: &mut Vec<u8>, values: impl Iterator<Item = u32>) {
    let values: Vec<u32> = values.collect();
    put32(out, u32::try_from(values.len()).unwrap_or(u32::MAX));
    put_all(out, &values);
}

/// A table of equal values in runs (`stts`, `ctts`).
fn runs(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, values: impl Iterator<Item = u32>) {
    let mut runs: Vec<[u32; 2]> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some([count, same]) if *same == value => *count += 1,
            _ => runs.push([1, value]),
        }
    }
    full(out, kind, version, 0, |out| {
        put32(out, u32::try_from(runs.len()).unwrap_or(u32::MAX));
        runs.iter().for_each(|run| put_all(out, run));
    });
}

/// Lines as stretches from zero on of which none is left out: where nothing is said, there is no text. The last one has none, too: readers
/// show what comes last to the end of the film.
fn without_holes(lines: &[Line]) -> Vec<(u64, u64, &str)> {
    let mut all = Vec::new();
    let mut at = 0;
    for line in lines {
        let from = line.from.max(at);
        if line.until > from {
            all.extend((from > at).then_some((at, from, "")));
            all.push((from, line.until, line.text.as_str()));
            at = line.until;
        }
    }
    if at > 0 {
        all.push((at, at + 1, ""));
    }
    all
}

/// Text as a sample: its length, and its bytes. At most so much as the length can tell, cut between letters.
fn text_sample(text: &str) -> Bytes {
    let text = text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default();
    let mut out = Vec::with_capacity(text.len() + 2);
    put16(&mut out, u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.extend(text.as_bytes());
    Bytes::from(out)
}

/// A track of subtitles without samples: white letters at the bottom, in the middle.
fn text_track(language: &str, name: &str) -> Track {
    let body = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        Bytes::from(out)
    };
    let header = body(&|out| {
        out.extend([0; 36]);
        put32(out, 0);
        put_all(out, &[0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000, 0, 0]);
    });
    let handler = body(&|out| {
        put_all(out, &[0, 0]);
        out.extend(b"sbtl");
        put_all(out, &[0; 3]);
        let plain = name.chars().filter(|letter| !letter.is_control()).take(60).collect::<String>();
        out.extend(plain.as_bytes());
        out.push(0);
    });
    let tag = extended_language(language).map(|tag| {
        body(&|out| {
            put32(out, 0);
            out.extend(tag.as_bytes());
            out.push(0);
        })
    });
    let reference = body(&|out| {
        put_all(out, &[0, 1]);
        full(out, b"url ", 0, 1, |_| {});
    });
    let described = body(&|out| {
        put_all(out, &[0, 1]);
        boxed(out, b"tx3g", |out| {
            data_reference(out);
            put32(out, 0);
            out.extend([1, 0xff]); // centred, at the bottom
            put32(out, 0); // nothing behind the letters
            out.extend([0; 8]); // a box of no size: the whole picture
            out.extend([0, 0, 0, 0, 0, 1, 0, 18]); // all letters, font 1, plain, 18 points
            put32(out, u32::MAX); // white
            boxed(out, b"ftab", |out| {
                put16(out, 1);
                put16(out, 1);
                out.push(10);
                out.extend(b"Sans-Serif");
            });
        });
    });
    Track {
        kind: Kind::Text,
        header,
        handler,
        language: Language { packed: packed_language(language), tag },
        information: vec![
            (*b"nmhd", Bytes::from_static(&[0; 4])),
            (*b"dinf", body(&|out| boxed(out, b"dref", |out| out.extend(&reference)))),
        ],
        described: vec![(*b"stsd", described)],
        timescale: TEXT_SCALE,
        media_time: 0,
        reader: Reader::new(),
        samples: Vec::new(),
        chunks: Vec::new(),
    }
}
