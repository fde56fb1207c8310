//! A film: one file of a torrent, its index, and the renditions that are made of it. Shared by all streams that play it.
//!
//! Opening a film reads a few hundred kilobytes. From then on every playlist can be written, and any segment can be asked for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use balcony_media::container::marks::Marks;
use balcony_media::container::{Container, Damage, Index, Sparse, Stop, Track, matroska, mp4, tail};
use balcony_media::cut::{self, CopyCuts, Cuts, Uncuttable};
use balcony_media::ladder::{self, Quality, Size, Wanted};
use balcony_media::magnet::InfoHash;
use balcony_media::plan::{AudioPlan, Plan, VideoPlan};

use crate::produce::Workshop;
use crate::produce::encode::FilmInput;
use crate::produce::previews::Previews;
use crate::produce::rendition::{AAC, Rendition};
use crate::source::{Source, SourceError};
use crate::subtitles::{self, Drawing};

/// Bytes read at the start of a file before anything is known about it.
const HEAD: u64 = 64 * 1024;
/// Bytes at the end of a film in which its last time stamps are looked for, one after the other.
const TAILS: [u64; 2] = [1 << 20, 8 << 20];
/// An index that needs more reads than this is not one.
const MOST_READS: usize = 512;
/// An index that needs more bytes than this is not one.
const MOST_BYTES: u64 = 512 << 20;

/// A film and what was found out about it.
pub struct Film {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Which file of it.
    pub file: usize,
    /// Its bytes.
    pub source: Source,
    /// Its tracks.
    pub index: Arc<Index>,
    /// Where its copy can be cut.
    pub copy: Result<CopyCuts, Uncuttable>,
    /// Length in seconds.
    pub duration: f64,
    /// Time stamp of the container at the film's time zero, in microseconds: what ffmpeg has to be told.
    pub zero_us: i64,
    /// How its movie fragments are read, where it has any.
    pub fragments: Option<mp4::Context>,
    /// What is known of its subtitles.
    pub text: subtitles::Inside,
    /// Its stills for the time line, where they can be made.
    pub previews: Option<Previews>,
    renditions: Mutex<HashMap<String, Arc<Rendition>>>,
}

/// What was read from a film's own tables.
pub struct Tables {
    /// Its tracks.
    pub index: Index,
    /// How its movie fragments are read, where it has any.
    pub fragments: Option<mp4::Context>,
}

/// Why a film cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its bytes cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No index of ours: ffprobe has to look.
    #[error("the container has no index that can be read from here: {0}")]
    NoIndex(Damage),
}

/// Reads the index of a film from as few bytes as its container allows.
pub async fn read_index(source: &Source) -> Result<Tables, OpenError> {
    tokio::select! {
        tables = read_tables(source) => tables,
        never = want_tail(source) => match never {},
    }
}

/// Wants the film's last piece beside its first one, where the tables probably end with it: in Matroska the Cues do. It then comes
/// before all the requests that a peer is given for what follows the beginning.
async fn want_tail(source: &Source) -> Infallible {
    let name = source.name().to_ascii_lowercase();
    let (len, piece) = (source.len(), source.piece_len().unwrap_or(u64::MAX));
    if [".mkv", ".webm"].iter().any(|end| name.ends_with(end)) && len > 2 * piece {
        // Whoever reads the tables hears of an error; here it does not matter.
        source.wait_available(len - 1..len).await.ok();
    }
    std::future::pending().await
}

async fn read_tables(source: &Source) -> Result<Tables, OpenError> {
    let mut known = Sparse::new(source.len());
    known.insert(0, read(source, 0, HEAD).await?);
    let parse = parser(&known)?;
    for _ in 0..MOST_READS {
        match parse(&known) {
            Ok(index) => {
                let in_fragments = index.container == Container::FragmentedMp4;
                let fragments = in_fragments.then(|| mp4::Context::read(&known).ok()).flatten();
                let mut tables = Tables { index, fragments };
                if cut::duration(&tables.index).is_none() {
                    tables.index.duration = estimate(source, &tables).await?;
                }
                return Ok(tables);
            }
            Err(Stop::Bad(damage)) => return Err(OpenError::NoIndex(damage)),
            Err(Stop::Need { offset, len }) if known.held() + len <= MOST_BYTES => {
                known.insert(offset, read(source, offset, len).await?);
            }
            Err(Stop::Need { .. }) => break,
        }
    }
    Err(OpenError::NoIndex(Damage::TooLarge("its index")))
}

type Parser = fn(&Sparse) -> Result<Index, Stop>;

/// The parser for what the first bytes say; a file's name says nothing.
fn parser(known: &Sparse) -> Result<Parser, OpenError> {
    let head = known.known(0, 12);
    match (head.get(..4), head.get(4..8)) {
        (Some(b"\x1a\x45\xdf\xa3"), _) => Ok(matroska::index),
        (_, Some(b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"pnot" | b"styp" | b"sidx")) => Ok(mp4::index),
        _ => Err(OpenError::NoIndex(Damage::NotThis("a container with an index of ours"))),
    }
}

/// The length of a film whose container does not tell it, in seconds: from the last time stamps in its last bytes.
async fn estimate(source: &Source, tables: &Tables) -> Result<Option<f64>, OpenError> {
    for tail in TAILS {
        let len = tail.min(source.len());
        let offset = source.len() - len;
        let bytes = read(source, offset, len).await?;
        let found = tail::last_time(&tables.index, tables.fragments.as_ref(), offset, bytes);
        if found.is_some() || len == source.len() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The bytes `[offset, offset + len)` of a film, or as many of them as there are before its end.
pub(crate) async fn read(source: &Source, offset: u64, len: u64) -> Result<bytes::Bytes, SourceError> {
    let len = len.min(source.len().saturating_sub(offset));
    source.read_at(offset, usize::try_from(len).unwrap_or(usize::MAX)).await
}

impl Film {
    /// A film from its index, or from what ffprobe told (`zero_us`: the container's time stamp at the film's beginning).
    pub fn new(info_hash: InfoHash, file: usize, source: Source, tables: Tables, zero_us: i64) -> Self {
        let Tables { index, fragments } = tables;
        let zero_us = zero_us.saturating_add(index.zero_us());
        let copy = index.video().ok_or(Uncuttable::NoIndex).and_then(|video| cut::copy_cuts(&index, video));
        let duration = cut::duration(&index).unwrap_or(0.0);
        let text = subtitles::Inside::new(&index, &copy);
        let previews = Previews::of(&index, duration);
        let (index, renditions) = (Arc::new(index), Mutex::default());
        Self { info_hash, file, source, index, copy, duration, zero_us, fragments, text, previews, renditions }
    }

    /// Whether the index came from the container's own tables.
    pub fn has_tables(&self) -> bool {
        matches!(self.index.container, Container::Mp4 | Container::FragmentedMp4 | Container::Matroska)
    }

    /// The track with ffmpeg's number `0:stream`.
    pub fn track(&self, stream: usize) -> Option<&Track> {
        self.index.tracks.iter().find(|track| track.stream == stream)
    }

    /// How many streams play it: each presentation holds it, and the workshop once.
    pub fn viewers(self: &Arc<Self>) -> usize {
        Arc::strong_count(self).saturating_sub(1).max(1)
    }

    /// The film as ffmpeg has to be told of it.
    pub fn input(&self) -> FilmInput {
        let first = |track: &Track| track.first_pts.map(|pts| cut::rescale(pts, track.timescale, 1_000_000));
        // libavformat counts a Matroska film from the first time stamp of any track, and an MP4 film from its edit list's zero.
        let least = self.index.tracks.iter().filter_map(first).min().filter(|_| self.index.container == Container::Matroska);
        let origin_us = self.zero_us + least.unwrap_or(0);
        let marks = Marks::of_index(&self.index, self.fragments.as_ref());
        FilmInput { source: self.source.clone(), zero_us: self.zero_us, origin_us, indexed: self.has_tables(), marks }
    }

    /// Name of the film's folder in the segment cache, and the first part of its renditions' names.
    pub fn name(&self) -> String {
        format!("{}-{}", self.info_hash, self.file)
    }

    /// The rendition with this identity, made when it is asked for first.
    fn rendition(&self, identity: &str, make: impl FnOnce() -> Rendition) -> Arc<Rendition> {
        let mut all = self.renditions.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(identity.to_owned()).or_insert_with(|| Arc::new(make())).clone()
    }

    /// Ends everything that runs for it and deletes what was made of it.
    pub fn stop(&self) {
        self.renditions().iter().for_each(|rendition| rendition.stop());
        self.previews.iter().for_each(Previews::stop);
    }

    /// All renditions that exist.
    pub fn renditions(&self) -> Vec<Arc<Rendition>> {
        self.renditions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// A film as one stream plays it: its plan, and the renditions that follow from it.
pub struct Presentation {
    /// What is played.
    pub film: Arc<Film>,
    /// How.
    pub plan: Plan,
    /// The picture, `v0`, `v1` …: the one to begin with first. None for a film with sound only.
    pub pictures: Vec<Arc<Rendition>>,
    /// Each sound track, `a1`, `a2` …
    pub audio: Vec<Arc<Rendition>>,
    /// The same tracks as AAC, `b1`, `b2` …, where they are something else and stand beside tracks that are not: a player that changes
    /// between them has one codec then.
    pub in_aac: Vec<Option<Arc<Rendition>>>,
    /// Its subtitles, `s1`, `s2` …
    pub text: subtitles::Tracks,
    /// Why no subtitles are drawn into the picture, where somebody asked for it.
    pub undrawn: Option<subtitles::Undrawn>,
}

impl Presentation {
    /// Puts a plan into renditions, sharing those that other streams of the film use. `rungs` are the sizes of the encoded pictures, the
    /// largest first; where the plan is no copy, at least one. `drawing` is drawn into them.
    pub fn new(film: Arc<Film>, plan: Plan, drawing: Option<&Drawing>, rungs: &[Size], workshop: &Arc<Workshop>) -> Self {
        let pictures = film.index.video().map(|track| pictures(&film, track, &plan, drawing, rungs, workshop)).unwrap_or_default();
        let sound = |plan: &AudioPlan| {
            let track = film.track(plan.stream)?;
            let how = if plan.copy { "copy" } else { "aac" };
            let identity = format!("a{}-{how}", plan.stream);
            Some(film.rendition(&identity, || Rendition::audio(&film, track, plan, &identity, workshop)))
        };
        let audio: Vec<Arc<Rendition>> = plan.audio.iter().filter_map(sound).collect();
        let mixed = audio.iter().any(|rendition| audio.first().is_some_and(|first| rendition.group() != first.group()));
        let in_aac = plan.audio.iter().zip(&audio).map(|(plan, main)| {
            let wanted = mixed && main.group() != AAC;
            wanted.then(|| sound(&AudioPlan { copy: false, ..plan.clone() })).flatten()
        });
        let in_aac = in_aac.collect();
        let text = subtitles::Tracks::inside(&film, text_cuts(&film, &pictures, &audio));
        Self { film, plan, pictures, audio, in_aac, text, undrawn: None }
    }

    /// The picture to begin with; `None` for a film with sound only.
    pub fn video(&self) -> Option<&Arc<Rendition>> {
        self.pictures.first()
    }

    /// The rendition with this name in a URL.
    pub fn named(&self, name: &str) -> Option<&Arc<Rendition>> {
        let (kind, number) = name.split_at_checked(1)?;
        // Each has one name.
        let number: usize = number.parse().ok().filter(|parsed: &usize| parsed.to_string() == number)?;
        match kind {
            "v" => self.pictures.get(number),
            "a" => self.audio.get(number.checked_sub(1)?),
            "b" => self.in_aac.get(number.checked_sub(1)?)?.as_ref(),
            _ => None,
        }
    }

    /// The sound that plays when nobody chooses: the one that the file marks, else the first.
    pub fn default_audio(&self) -> usize {
        let marked = self.plan.audio.iter().position(|plan| self.film.track(plan.stream).is_some_and(|track| track.default));
        marked.unwrap_or(0)
    }

    /// All renditions with their names in URLs.
    pub fn all(&self) -> impl Iterator<Item = (String, &Arc<Rendition>)> {
        let pictures = self.pictures.iter().enumerate().map(|(at, rendition)| (format!("v{at}"), rendition));
        let audio = self.audio.iter().enumerate().map(|(at, rendition)| (format!("a{}", at + 1), rendition));
        let in_aac = self.in_aac.iter().enumerate().filter_map(|(at, rendition)| Some((format!("b{}", at + 1), rendition.as_ref()?)));
        pictures.chain(audio).chain(in_aac)
    }

    /// Where this rendition stands among the pictures.
    pub fn picture_at(&self, rendition: &Arc<Rendition>) -> Option<usize> {
        self.pictures.iter().position(|picture| Arc::ptr_eq(picture, rendition))
    }
}

/// Text is cut as what a player begins with.
fn text_cuts(film: &Film, pictures: &[Arc<Rendition>], audio: &[Arc<Rendition>]) -> Cuts {
    let first = pictures.first().or(audio.first()).map(|rendition| rendition.cuts.clone());
    first.unwrap_or_else(|| Cuts::grid(1000, 2.0, film.duration))
}

/// The pictures of a plan: the copy where there is one, then the rungs.
fn pictures(
    film: &Arc<Film>,
    track: &Track,
    plan: &Plan,
    drawing: Option<&Drawing>,
    rungs: &[Size],
    workshop: &Arc<Workshop>,
) -> Vec<Arc<Rendition>> {
    let copy = match (&plan.video, &film.copy) {
        (Some(VideoPlan::Copy), Ok(copy)) => {
            let known = film.renditions().into_iter().find(|known| known.identity == "v-copy");
            let make = || Rendition::copied_video(film, track, copy, "v-copy", workshop);
            known.or_else(|| make().map(|made| film.rendition("v-copy", || made)))
        }
        _ => None,
    };
    let encoded = rungs.iter().map(|size| {
        let identity = format!("v-{}x{}{}", size.width, size.height, drawing.map_or("", Drawing::name));
        film.rendition(&identity, || Rendition::encoded_video(film, track, *size, drawing.cloned(), &identity, workshop))
    });
    copy.into_iter().chain(encoded).collect()
}

/// The sizes into which a film's picture is encoded under a plan.
pub fn rungs(film: &Arc<Film>, plan: &Plan, cap: Quality, max_height: Option<u32>, workshop: &Arc<Workshop>) -> Vec<Size> {
    let Some(track) = film.index.video() else { return Vec::new() };
    let picture = track.video.clone().unwrap_or_default();
    let copied = pictures(film, track, plan, None, &[], workshop);
    let source = ladder::fit(&picture, cap, max_height);
    if source.height > 720 || source.width > 1280 {
        workshop.measure();
    }
    let wanted = Wanted { cap, max_height, copy: copied.first().map(|copy| copy.average), pace: &workshop.now() };
    ladder::rungs(&picture, &wanted).into_iter().map(|rung| rung.size).collect()
}
