//! The `moov` box: the movie's head and its tracks (ISO 14496-12, 8.2 to 8.8), without anything outside of it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::{Codec, Damage, Kind, Picture, Sample, Samples, Track};
use super::boxes::{Fields, child, children, descend};
use super::entry::{self, Entry, Form};
use super::fragments::Defaults;
use super::tables::{self, Budget, Edit, Table, Wanted};

/// More tracks than this are refused.
const MOST_TRACKS: usize = 1_000;

/// A `moov` as read.
#[derive(Debug)]
pub(crate) struct Movie {
    /// File offset of the box.
    at: u64,
    /// Ticks per second of the movie's own times.
    timescale: u32,
    /// Length in these ticks, 0 where it is not told.
    ticks: u64,
    /// Length with all fragments (`mehd`), in the same ticks.
    fragment_ticks: Option<u64>,
    /// Movie fragments may follow (`mvex`).
    pub(super) extends: bool,
    /// In the order of the file.
    pub(crate) traks: Vec<Trak>,
}

/// A `trak` as read.
#[derive(Debug)]
pub(crate) struct Trak {
    /// What is known of it; samples and key frames only after [`Movie::expand`].
    pub(crate) track: Track,
    /// Its time map.
    pub(super) edit: Edit,
    /// What its samples in fragments have in common.
    pub(super) defaults: Defaults,
    disabled: bool,
    still: bool,
    descriptions: usize,
    packing: Option<tables::Packing>,
    truncated: bool,
    /// What its samples in tables cover.
    pub(super) extent: Option<tables::Extent>,
    /// Tracks that hold this one's chapters.
    chapters: Vec<u32>,
    stbl: Bytes,
}

impl Trak {
    /// The composition time that is shown first (edit list), in ticks.
    pub(crate) fn media_time(&self) -> i64 {
        self.edit.media_time
    }

    pub(crate) fn defaults(&self) -> Defaults {
        self.defaults
    }
}

impl Movie {
    /// Reads the body of a `moov`. The sample tables are left for [`Movie::expand`].
    pub(crate) fn read(moov: &Bytes, at: u64, quicktime: bool) -> Result<Self, Damage> {
        let (timescale, ticks, matrix) = child(moov, b"mvhd").and_then(|mvhd| movie_head(&mvhd)).unwrap_or((1, 0, Matrix::UPRIGHT));
        if child(moov, b"cmov").is_some() {
            return Err(Damage::Broken { offset: at, what: "a compressed table of contents" });
        }
        let mvex = child(moov, b"mvex");
        let mut movie = Self { at, timescale, ticks, fragment_ticks: None, extends: mvex.is_some(), traks: Vec::new() };
        // Numbers as libavformat gives them: it makes a stream of each cover image too.
        let mut stream = 0;
        for one in children(moov) {
            match &one.kind {
                b"trak" if movie.traks.len() == MOST_TRACKS => return Err(Damage::TooLarge("the number of tracks")),
                b"trak" => {
                    movie.traks.push(trak(&one.body, timescale, matrix, stream, quicktime));
                    stream += 1;
                }
                b"udta" => stream += covers(&one.body),
                _ => {}
            }
        }
        if let Some(mvex) = mvex {
            movie.fragment_ticks = child(&mvex, b"mehd").and_then(|mehd| {
                let (version, _, mut fields) = Fields::full(&mehd)?;
                fields.word(version)
            });
            for trex in children(&mvex).filter(|one| one.kind == *b"trex").filter_map(|trex| Defaults::read(&trex.body)) {
                let wanted = movie.traks.iter_mut().find(|trak| trak.defaults.id == trex.id);
                if let Some(trak) = wanted {
                    trak.defaults = Defaults { sound: trak.defaults.sound, ..trex };
                }
            }
        }
        movie.set_apart();
        Ok(movie)
    }

    /// Chapters are texts or pictures about the film, not of it.
    fn set_apart(&mut self) {
        let chapters: BTreeSet<u64> = self.traks.iter().flat_map(|trak| &trak.chapters).map(|id| u64::from(*id)).collect();
        for trak in self.traks.iter_mut().filter(|trak| chapters.contains(&trak.track.id)) {
            trak.track.kind = Kind::Other;
        }
    }

    /// Reads the sample tables of all tracks that matter; samples that do not lie within `file_len` bytes are left out.
    pub(super) fn expand(&mut self, file_len: u64) -> Result<(), Damage> {
        let mut budget = Budget::default();
        for trak in self.traks.iter_mut().filter(|trak| trak.track.kind != Kind::Other) {
            let wanted = Wanted { at: self.at, file_len, all_key: trak.track.kind != Kind::Video, packing: trak.packing, edit: &trak.edit };
            let table = tables::expand(&trak.stbl, &wanted, &mut budget)?;
            trak.fill(table);
        }
        let films = |trak: &Trak| trak.track.kind == Kind::Video && !trak.still;
        let has_film = self.traks.iter().any(films);
        for trak in self.traks.iter_mut().filter(|trak| trak.track.kind == Kind::Video) {
            let one = trak.samples().len() == 1;
            if (trak.still && (has_film || trak.disabled || one)) || (trak.disabled && one) {
                trak.track.kind = Kind::Other;
                trak.track.key_frames.clear();
            }
        }
        Ok(())
    }

    /// Seconds, by the movie's head where the tables do not contradict it.
    pub(super) fn duration(&self) -> Option<f64> {
        let films = || self.traks.iter().filter(|trak| matches!(trak.track.kind, Kind::Video | Kind::Audio));
        let longest = |traks: &mut dyn Iterator<Item = &Trak>| traks.filter_map(Trak::end).filter(|end| *end > 0.0).reduce(f64::max);
        if films().any(|trak| trak.truncated) {
            let pictures = longest(&mut films().filter(|trak| trak.track.kind == Kind::Video));
            return pictures.or_else(|| longest(&mut films()));
        }
        let tables = longest(&mut films());
        let told = self.told_duration();
        match (tables, told) {
            (Some(tables), Some(told)) if (tables - told).abs() > 0.5 => Some(tables),
            (tables, told) => told.or(tables),
        }
    }

    /// Seconds, by the movie's head alone.
    pub(super) fn told_duration(&self) -> Option<f64> {
        // Where fragments follow a table, the head tells the length of the table.
        let own = if self.extends && self.has_tables() { 0 } else { self.ticks };
        let ticks = self.fragment_ticks.filter(|ticks| *ticks > 0).unwrap_or(own);
        // A 32-bit "unknown" is all ones (8.2.2.3).
        let known = ticks > 0 && ticks != u64::from(u32::MAX) && ticks != u64::MAX;
        known.then(|| seconds(i64::try_from(ticks).unwrap_or(i64::MAX), self.timescale))
    }

    /// Whether samples stand in the tables of the `moov`.
    fn has_tables(&self) -> bool {
        self.traks.iter().any(|trak| !trak.samples().is_empty())
    }

    pub(super) fn into_tracks(self) -> Vec<Track> {
        self.traks.into_iter().map(|trak| trak.track).collect()
    }
}

/// Ticks as seconds.
#[allow(clippy::cast_precision_loss)] // exact far beyond the length of any film
pub(super) fn seconds(ticks: i64, timescale: u32) -> f64 {
    ticks as f64 / f64::from(timescale.max(1))
}

impl Trak {
    pub(super) fn samples(&self) -> &[Sample] {
        match &self.track.samples {
            Samples::Table(samples) => samples,
            Samples::Blocks(_) | Samples::Inline => &[],
        }
    }

    /// When the last sample ends, in seconds.
    fn end(&self) -> Option<f64> {
        self.extent.map(|extent| seconds(extent.end, self.track.timescale))
    }

    fn fill(&mut self, table: Table) {
        let timescale = self.track.timescale;
        let first = table.samples.first().map(|sample| sample.pts);
        let track = &mut self.track;
        track.first_pts = first;
        track.complex_edits |= table.mixed && self.descriptions > 1;
        if let Some(extent) = table.extent.filter(|_| table.media_ticks > 0 && !table.truncated) {
            let bits = u128::from(extent.bytes) * 8;
            track.bitrate = u64::try_from(bits * u128::from(timescale) / u128::from(table.media_ticks)).ok().or(track.bitrate);
        }
        if let Some(picture) = &mut track.video {
            picture.frame_rate = frame_rate(&table, timescale);
            track.key_frames = tables::key_frames(&table.samples);
            track.complex_edits |= table.extent.is_some_and(|extent| extent.begin < 0);
        }
        if let Some(sound) = &mut track.audio {
            // Priming is a few thousand samples; what is longer was cut away by somebody.
            track.complex_edits |= first.is_some_and(|first| first < -i64::from(timescale / 4));
            if sound.frame_len.is_none() && sound.sample_rate == timescale && self.packing.is_none() {
                sound.frame_len = table.usual_duration.filter(|len| *len > 1);
            }
        }
        self.truncated = table.truncated;
        self.extent = table.extent;
        track.samples = Samples::Table(table.samples);
    }
}

fn frame_rate(table: &Table, timescale: u32) -> Option<f64> {
    if let Some(usual) = table.usual_duration {
        return Some(f64::from(timescale) / f64::from(usual));
    }
    #[allow(clippy::cast_precision_loss)] // counts of pictures
    let rate = table.samples.len() as f64 * f64::from(timescale) / table.media_ticks as f64;
    (rate.is_finite() && rate > 0.0 && !table.truncated).then_some(rate)
}

fn movie_head(mvhd: &[u8]) -> Option<(u32, u64, Matrix)> {
    let (version, _, mut fields) = Fields::full(mvhd)?;
    fields.word(version)?;
    fields.word(version)?;
    let timescale = fields.u32()?.max(1);
    let ticks = fields.word(version)?;
    fields.skip(16)?;
    Some((timescale, ticks, Matrix::read(&mut fields).unwrap_or(Matrix::UPRIGHT)))
}

/// The part of a transformation matrix (6.2.2) that turns and mirrors, in 16.16 fixed point: `a b / c d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Matrix([i64; 4]);

impl Matrix {
    const UPRIGHT: Self = Self([1 << 16, 0, 0, 1 << 16]);

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (a, b, _) = (fields.i32()?, fields.i32()?, fields.i32()?);
        let (c, d, _) = (fields.i32()?, fields.i32()?, fields.i32()?);
        fields.skip(12)?;
        Some(Self([a, b, c, d].map(i64::from)))
    }

    fn then(self, next: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, next.0);
        // Each product is at most 2^62: halved before the sum.
        let sum = |x: i64, y: i64, z: i64, w: i64| ((x * y) / 2 + (z * w) / 2) / (1 << 15);
        Self([sum(a, e, b, g), sum(a, f, b, h), sum(c, e, d, g), sum(c, f, d, h)])
    }

    /// Degrees clockwise, or `None` where it is no turn by quarters.
    fn rotation(self) -> Option<u16> {
        // A hundredth is rounding.
        match self.0.map(|part| if part.abs() < 655 { 0 } else { part.signum() }) {
            [1, 0, 0, 1] => Some(0),
            [0, 1, -1, 0] => Some(90),
            [-1, 0, 0, -1] => Some(180),
            [0, -1, 1, 0] => Some(270),
            // No matrix at all.
            [0, 0, 0, 0] => Some(0),
            _ => None,
        }
    }
}

/// Number of cover images in a movie's `udta` (QuickTime metadata, `ilst`).
fn covers(udta: &Bytes) -> usize {
    let Some(meta) = child(udta, b"meta") else { return 0 };
    // In MP4 it is a full box, in QuickTime it is not.
    let list = meta.get(4..).map(|rest| meta.slice_ref(rest)).and_then(|body| child(&body, b"ilst")).or_else(|| child(&meta, b"ilst"));
    let Some(covr) = list.and_then(|list| child(&list, b"covr")) else { return 0 };
    children(&covr).filter(|one| one.kind == *b"data" && matches!(one.body.get(3), Some(13 | 14))).count()
}

/// Reads a `trak`. Always answers with a track, of [`Kind::Other`] where nothing can be made of it: the ones after it keep their numbers.
fn trak(trak: &Bytes, movie_scale: u32, movie_matrix: Matrix, stream: usize, quicktime: bool) -> Trak {
    let head =
        child(trak, b"tkhd").and_then(|tkhd| track_head(&tkhd)).unwrap_or(TrackHead { id: 0, enabled: false, matrix: Matrix::UPRIGHT });
    let mdia = child(trak, b"mdia").unwrap_or_default();
    let (timescale, language) = child(&mdia, b"mdhd").and_then(|mdhd| media_head(&mdhd, quicktime)).unwrap_or((1, None));
    let extended = child(&mdia, b"elng").and_then(|elng| Some(until_zero(elng.get(4..)?))).filter(|tag| !tag.is_empty());
    let mut kind = child(&mdia, b"hdlr").map_or(Kind::Other, |hdlr| kind(&hdlr));
    let stbl = descend(&mdia, &[b"minf", b"stbl"]).unwrap_or_default();
    let form = match kind {
        Kind::Video => Form::Video,
        Kind::Audio => Form::Audio,
        Kind::Subtitle | Kind::Other => Form::Other,
    };
    let entry: Entry = child(&stbl, b"stsd").map(|stsd| entry::read(&stsd, form, quicktime)).unwrap_or_default();
    let (mut video, audio) = (entry.video, entry.audio);
    if (kind == Kind::Video && video.is_none()) || (kind == Kind::Audio && audio.is_none()) || head.id == 0 {
        kind = Kind::Other;
    }
    if let Some(picture) = &mut video {
        turn(picture, head.matrix.then(movie_matrix));
    }
    let edit = descend(trak, &[b"edts", b"elst"]).and_then(|elst| Edit::read(&elst, movie_scale, timescale)).unwrap_or_default();
    let track = Track {
        id: u64::from(head.id),
        stream,
        kind,
        codec: entry.codec.unwrap_or(Codec::Unknown(String::new())),
        config: entry.config,
        timescale,
        language: extended.or(language).unwrap_or_else(|| "und".to_owned()),
        title: descend(trak, &[b"udta", b"name"]).map(|name| until_zero(&name)).unwrap_or_default(),
        default: head.enabled,
        forced: entry.forced,
        bitrate: entry.bitrate,
        video,
        audio,
        samples: Samples::Table(Vec::new()),
        key_frames: Vec::new(),
        first_pts: None,
        complex_edits: edit.complex,
    };
    Trak {
        track,
        edit,
        defaults: Defaults { id: head.id, sound: kind != Kind::Video, ..Defaults::default() },
        disabled: !head.enabled,
        still: entry.still,
        descriptions: entry.descriptions,
        packing: entry.packing,
        truncated: false,
        extent: None,
        chapters: descend(trak, &[b"tref", b"chap"]).map(|chap| numbers(&chap)).unwrap_or_default(),
        stbl,
    }
}

fn turn(picture: &mut Picture, matrix: Matrix) {
    match matrix.rotation() {
        Some(rotation) => picture.rotation = rotation,
        None => picture.odd_matrix = true,
    }
}

struct TrackHead {
    id: u32,
    enabled: bool,
    matrix: Matrix,
}

fn track_head(tkhd: &[u8]) -> Option<TrackHead> {
    let (version, flags, mut fields) = Fields::full(tkhd)?;
    fields.word(version)?;
    fields.word(version)?;
    let id = fields.u32()?;
    fields.skip(4)?;
    fields.word(version)?;
    fields.skip(16)?;
    let matrix = Matrix::read(&mut fields).unwrap_or(Matrix::UPRIGHT);
    Some(TrackHead { id, enabled: flags & 1 != 0, matrix })
}

fn media_head(mdhd: &[u8], quicktime: bool) -> Option<(u32, Option<String>)> {
    let (version, _, mut fields) = Fields::full(mdhd)?;
    fields.word(version)?;
    fields.word(version)?;
    let timescale = fields.u32()?.max(1);
    fields.word(version)?;
    Some((timescale, fields.u16().and_then(|code| language(code, quicktime))))
}

/// Three letters of 5 bits each (8.4.2.3), or in QuickTime a Macintosh language code.
fn language(code: u16, quicktime: bool) -> Option<String> {
    const MACINTOSH: [&str; 46] = [
        "eng", "fra", "deu", "ita", "nld", "swe", "spa", "dan", "por", "nor", "heb", "jpn", "ara", "fin", "gre", "isl", "mlt", "tur",
        "hrv", "zho", "urd", "hin", "tha", "kor", "lit", "pol", "hun", "est", "lav", "smi", "fao", "fas", "rus", "zho", "nld", "gle",
        "sqi", "ron", "ces", "slk", "slv", "yid", "srp", "mkd", "bul", "ukr",
    ];
    if code < 0x400 {
        return MACINTOSH.get(usize::from(code)).filter(|_| quicktime).map(|name| (*name).to_owned());
    }
    let letters = [code >> 10, code >> 5, code].map(|letter| (letter & 31) as u8);
    letters.iter().all(|letter| (1..=26).contains(letter)).then(|| letters.iter().map(|letter| char::from(letter + 0x60)).collect())
}

/// The handler type of `hdlr` (8.4.3).
fn kind(hdlr: &[u8]) -> Kind {
    match hdlr.get(8..12) {
        Some(b"vide") => Kind::Video,
        Some(b"soun") => Kind::Audio,
        Some(b"subt" | b"sbtl" | b"text" | b"clcp" | b"subp") => Kind::Subtitle,
        _ => Kind::Other,
    }
}

/// Text up to its closing zero, if it has one; at most 1,000 bytes of it.
fn until_zero(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text.get(..1_000).unwrap_or(text)).trim().to_owned()
}

fn numbers(body: &[u8]) -> Vec<u32> {
    body.as_chunks::<4>().0.iter().map(|row| u32::from_be_bytes(*row)).take(MOST_TRACKS).collect()
}
