//! The text tracks inside of a film: cues are found where the film is read, and remembered.
//!
//! Matroska and movie fragments: the stretch of the file between two cuts holds the text that belongs to it. It is walked from block to
//! block, once for all tracks; only the heads of blocks and the texts themselves are read. What the container lists by itself (a sample
//! table, Cues of a track) is read from its own place instead where only that is wanted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use balcony_media::container::marks::Search;
use balcony_media::container::{Codec, Frame, Index, KeyFrame, Kind, Sample, Samples, Sparse, Stop, Track, matroska, mp4};
use balcony_media::cut::{self, CopyCuts, Uncuttable};
use balcony_media::subtitle::script::{Event, Stage};
use balcony_media::subtitle::{self, Cue, Said, ass, charset};
use bytes::Bytes;

use crate::film::Film;
use crate::lock::lock;
use crate::source::SourceError;

/// Bytes looked at in one go, where they are already here.
const WINDOW: u64 = 256 * 1024;
/// Stretches are at least this long, in seconds, where the film is not cut for a copy.
const STRETCH: i64 = 4;
/// Text may stand this far behind the pictures that it is shown with, in milliseconds.
const BEHIND: i64 = 500;
/// How long a text without a told end is shown, in milliseconds.
const UNTOLD: i64 = 4000;
/// Texts that began before a segment and may still be shown are looked for this far back, in milliseconds, and so many of them.
const BACK: (i64, usize) = (30_000, 4);
/// Largest text of one sample, in bytes.
const LARGEST: u32 = 1 << 20;
/// Bytes of text that are remembered of one film.
const MOST_BYTES: usize = 64 << 20;
/// Texts that begin at one time, at most: the layers of a sign.
const SIDE_BY_SIDE: usize = 1000;
/// Elements that are passed at most on the way from a point of the index to its text.
const HEADS: usize = 16;
/// Cues of a track by where their text lies, with the stretch that they were met in.
type Placed = BTreeMap<(u64, usize), (Cue, Option<usize>)>;

/// How long all that is here is looked through for one answer.
const LOOKS: Duration = Duration::from_secs(3);
/// Who draws text waits for one that began at most this long before the picture, in milliseconds, and so long for all of them.
const JUST_BEFORE: i64 = 10_000;
const WAITS: Duration = Duration::from_secs(1);

/// What is known of a film's text.
pub struct Inside {
    /// Where stretches of the file begin. None: the container does not tell, or lists every sample.
    keys: Vec<KeyFrame>,
    scans: Mutex<HashMap<usize, Arc<tokio::sync::Mutex<Scan>>>>,
    known: Mutex<Known>,
    scripts: HashMap<usize, ass::Script>,
}

/// What one sample says: cues for players, and for who draws it what it was, where that is more.
#[derive(Default)]
struct Found {
    cues: Vec<Cue>,
    event: Option<Event>,
}

/// What was found.
#[derive(Default)]
struct Known {
    /// By the track's number, then the place of the sample in the file.
    cues: HashMap<usize, Placed>,
    /// The same of text with styles.
    events: HashMap<usize, BTreeMap<u64, Event>>,
    /// Samples that were read: their places in the file, or in the Cues, by track.
    read: HashSet<(usize, u64)>,
    bytes: usize,
}

impl Known {
    fn add(&mut self, stream: usize, place: u64, stretch: Option<usize>, found: Found) {
        if let Some(event) = found.event.filter(|event| self.bytes + event.len() + 64 <= MOST_BYTES) {
            let entry = self.events.entry(stream).or_default().entry(place);
            if let std::collections::btree_map::Entry::Vacant(vacant) = entry {
                self.bytes += event.len() + 64;
                vacant.insert(event);
            }
        }
        for (n, cue) in found.cues.into_iter().enumerate() {
            let len = cue.text.len() + 64;
            if self.bytes + len > MOST_BYTES {
                return;
            }
            let entry = self.cues.entry(stream).or_default().entry((place, n));
            if let std::collections::btree_map::Entry::Vacant(vacant) = entry {
                vacant.insert((cue, stretch));
                self.bytes += len;
            }
        }
    }
}

impl Inside {
    /// Nothing is read yet.
    pub fn new(index: &Index, copy: &Result<CopyCuts, Uncuttable>) -> Self {
        let texts = || index.tracks.iter().filter(|track| track.kind == Kind::Subtitle);
        let script = |track: &Track| (track.stream, ass::Script::read(&String::from_utf8_lossy(&track.config)));
        let scripts = texts().filter(|track| track.codec == Codec::Ass).map(script).collect();
        let keys = match (copy, index.video()) {
            (Ok(copy), _) => copy.keys.clone(),
            (Err(_), Some(video)) => apart(video),
            (Err(_), None) => Vec::new(),
        };
        Self { keys, scans: Mutex::default(), known: Mutex::default(), scripts }
    }

    /// The cues of the track that are shown between two times (milliseconds), in order.
    ///
    /// # Errors
    /// When bytes cannot be had.
    pub async fn between(&self, film: &Film, stream: usize, from: i64, to: i64) -> Result<Vec<Cue>, SourceError> {
        let Some(track) = film.track(stream) else { return Ok(Vec::new()) };
        let those = match &track.samples {
            Samples::Table(samples) => {
                self.read_table(film, track, samples, from, to).await?;
                Vec::new()
            }
            Samples::Blocks(_) | Samples::Inline if self.keys.is_empty() => {
                self.look_through(film, &[0], Instant::now() + LOOKS).await?;
                Vec::new()
            }
            Samples::Blocks(_) | Samples::Inline => {
                self.read_earlier(film, track, self.stretches(film, from, to).0, from).await?;
                self.read_stretches(film, from, to).await?
            }
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cues: Vec<Cue> = Vec::new();
        for (cue, stretch) in known.cues.get(&stream).into_iter().flat_map(BTreeMap::values) {
            let shown = cue.start < to && cue.end > from;
            // Text that lies in a stretch whose time it does not touch is told with it all the same: nobody would find it elsewhere.
            let astray = |(at, start, end): &(usize, i64, i64)| Some(*at) == *stretch && (cue.start >= *end || cue.end <= *start);
            if shown || those.iter().any(astray) {
                cues.push(cue.clone());
            }
        }
        drop(known);
        subtitle::order(&mut cues);
        Ok(cues)
    }

    /// What is drawn between two times (milliseconds), for who draws it on `stage`. It waits for all of that, and a little for what began
    /// before and may still be there.
    ///
    /// # Errors
    /// When bytes cannot be had.
    pub async fn events(&self, film: &Film, stream: usize, (from, to): (i64, i64), stage: Stage) -> Result<Vec<Event>, SourceError> {
        let Some(track) = film.track(stream) else { return Ok(Vec::new()) };
        match &track.samples {
            Samples::Table(samples) => self.read_table(film, track, samples, from, to).await?,
            Samples::Blocks(_) | Samples::Inline if self.keys.is_empty() => self.walk(film, from, to).await?,
            Samples::Blocks(_) | Samples::Inline => {
                self.read_earlier(film, track, self.stretches(film, from, to).0, from).await?;
                // What is not here in time is passed by: the picture does not wait for what may have ended long ago.
                tokio::time::timeout(WAITS, self.await_earlier(film, track, from)).await.unwrap_or(Ok(()))?;
                self.read_stretches(film, from, to).await?;
            }
        }
        let known = lock(&self.known);
        if track.codec == Codec::Ass {
            let events = known.events.get(&stream).into_iter().flat_map(BTreeMap::values);
            return Ok(events.filter(|event| event.start < to && event.end > from).cloned().collect());
        }
        let cues = known.cues.get(&stream).into_iter().flat_map(BTreeMap::values).map(|(cue, _)| cue);
        let cues = cues.filter(|cue| cue.start < to && cue.end > from);
        Ok(cues.zip(0..).filter_map(|(cue, order)| Event::of_cue(cue, order, stage)).collect())
    }

    /// Up to which time (milliseconds) all that is drawn from `from` on is here, at most `most`.
    pub fn here_until(&self, film: &Film, stream: usize, from: i64, most: i64) -> i64 {
        let Some(track) = film.track(stream) else { return most };
        if let Samples::Table(samples) = &track.samples {
            let time = |sample: &Sample| cut::rescale(sample.pts, track.timescale, 1000);
            let mut missing = samples.iter().skip_while(|sample| time(sample) < from).take_while(|sample| time(sample) < most);
            let missing = missing.find(|sample| !film.source.available(sample.offset..sample.offset.saturating_add(sample.size.into())));
            return missing.map_or(most, time);
        }
        let (first, last) = self.stretches(film, from, most);
        let missing = (first..=last).find(|stretch| !film.source.available(self.range(film, *stretch)));
        missing.map_or(most, |stretch| self.time(film, stretch).unwrap_or(from)).min(most)
    }

    /// All cues that are known, or can be from what is here of the film, and whether these are all.
    ///
    /// # Errors
    /// When bytes cannot be had.
    pub async fn known(&self, film: &Film, stream: usize) -> Result<(Vec<Cue>, bool), SourceError> {
        let Some(track) = film.track(stream) else { return Ok((Vec::new(), true)) };
        let deadline = Instant::now() + LOOKS;
        let complete = match &track.samples {
            Samples::Table(samples) => self.look_at_table(film, track, samples, deadline).await?,
            Samples::Blocks(_) | Samples::Inline if !track.key_frames.is_empty() => {
                self.look_at_points(film, track, &track.key_frames, deadline).await?
            }
            Samples::Blocks(_) | Samples::Inline => {
                let all: Vec<usize> = (0..self.keys.len().max(1)).collect();
                self.look_through(film, &all, deadline).await?;
                self.all_scanned(all.len()).await
            }
        };
        let known = lock(&self.known);
        let mut cues: Vec<Cue> = known.cues.get(&stream).into_iter().flat_map(BTreeMap::values).map(|(cue, _)| cue.clone()).collect();
        drop(known);
        subtitle::order(&mut cues);
        Ok((cues, complete))
    }

    /// Time at which a stretch begins, in milliseconds.
    fn time(&self, film: &Film, stretch: usize) -> Option<i64> {
        let timescale = film.index.video()?.timescale;
        self.keys.get(stretch).map(|key| cut::rescale(key.pts, timescale, 1000))
    }

    /// The first and the last stretch that has something of the time between.
    fn stretches(&self, film: &Film, from: i64, to: i64) -> (usize, usize) {
        let timescale = film.index.video().map_or(1, |video| video.timescale);
        let begun = |at: i64, with: bool| {
            self.keys.partition_point(|key| {
                let time = cut::rescale(key.pts, timescale, 1000);
                time < at || with && time == at
            })
        };
        let first = begun(from, true).saturating_sub(1);
        (first, begun(to, false).saturating_sub(1).max(first))
    }

    /// Reads what lies in the stretches of the time between, and answers which those are, and their times.
    async fn read_stretches(&self, film: &Film, from: i64, to: i64) -> Result<Vec<(usize, i64, i64)>, SourceError> {
        let (first, last) = self.stretches(film, from, to);
        let mut those = Vec::new();
        for stretch in first..=last {
            let ends = self.time(film, stretch + 1);
            let until = if ends.is_some_and(|ends| to < ends) { to.saturating_add(BEHIND) } else { i64::MAX };
            self.advance(film, stretch, until).await?;
            those.push((stretch, self.time(film, stretch).unwrap_or(i64::MIN), ends.unwrap_or(i64::MAX)));
        }
        Ok(those)
    }

    /// Reads a film that does not tell where its parts are, from its beginning or from a place that is looked for, until the pictures have
    /// reached `to`.
    async fn walk(&self, film: &Film, from: i64, to: i64) -> Result<(), SourceError> {
        let first = self.scan(film, 0);
        let reached = first.lock().await.reached;
        let until = to.saturating_add(BEHIND);
        if from.saturating_sub(BACK.0) <= reached.max(0) {
            let mut scan = first.lock().await;
            return self.read_on(film, 0, &mut scan, until).await;
        }
        let Some(place) = place_of(film, from.saturating_sub(BEHIND)).await? else { return Ok(()) };
        let mut scan = Scan::from(film, self, place);
        while !scan.done && scan.reached < until {
            if let Step::Text { stream, place, found } = scan.step(film, true).await? {
                lock(&self.known).add(stream, place, None, found);
            }
        }
        Ok(())
    }

    /// Reads on in a stretch until the pictures have reached `until` (milliseconds), or to its end.
    async fn advance(&self, film: &Film, stretch: usize, until: i64) -> Result<(), SourceError> {
        let scan = self.scan(film, stretch);
        let mut scan = scan.lock().await;
        let wanted = if until == i64::MAX { self.range(film, stretch) } else { 0..0 };
        tokio::select! {
            read = self.read_on(film, stretch, &mut scan, until) => read,
            // The rest is wanted while the beginning is read: block after block it would come one piece at a time.
            never = want(film, wanted) => match never {},
        }
    }

    async fn read_on(&self, film: &Film, stretch: usize, scan: &mut Scan, until: i64) -> Result<(), SourceError> {
        while !scan.done && scan.reached < until {
            match scan.step(film, true).await? {
                Step::Text { stream, place, found } => lock(&self.known).add(stream, place, Some(stretch), found),
                Step::Passed | Step::Missing => {}
            }
        }
        Ok(())
    }

    /// Reads what is here of some stretches, and waits for nothing.
    async fn look_through(&self, film: &Film, stretches: &[usize], deadline: Instant) -> Result<(), SourceError> {
        for stretch in stretches {
            let scan = self.scan(film, *stretch);
            // Somebody reads it already.
            let Ok(mut scan) = scan.try_lock() else { continue };
            while !scan.done {
                if Instant::now() > deadline {
                    return Ok(());
                }
                match scan.step(film, false).await? {
                    Step::Text { stream, place, found } => lock(&self.known).add(stream, place, Some(*stretch), found),
                    Step::Missing => break,
                    Step::Passed => {}
                }
            }
        }
        Ok(())
    }

    async fn all_scanned(&self, count: usize) -> bool {
        let scans: Vec<_> = lock(&self.scans).values().cloned().collect();
        if scans.len() < count {
            return false;
        }
        for scan in scans {
            if !scan.lock().await.done {
                return false;
            }
        }
        true
    }

    fn scan(&self, film: &Film, stretch: usize) -> Arc<tokio::sync::Mutex<Scan>> {
        let mut scans = lock(&self.scans);
        scans.entry(stretch).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Scan::new(film, self, stretch)))).clone()
    }

    /// Where a stretch lies in the file.
    fn range(&self, film: &Film, stretch: usize) -> std::ops::Range<u64> {
        let from =
            if stretch == 0 { film.index.first_byte } else { self.keys.get(stretch).map_or(film.index.first_byte, |key| key.offset) };
        let to = self.keys.get(stretch + 1).map_or(film.source.len(), |key| key.offset);
        from.min(to)..to
    }

    /// What began before a segment and may still be shown in it, as far as it is here.
    async fn read_earlier(&self, film: &Film, track: &Track, stretch: usize, from: i64) -> Result<(), SourceError> {
        if track.key_frames.is_empty() {
            let before: Vec<usize> =
                stretch.checked_sub(1).filter(|before| film.source.available(self.range(film, *before))).into_iter().collect();
            return self.look_through(film, &before, Instant::now() + LOOKS).await;
        }
        let time = |key: &KeyFrame| cut::rescale(key.pts, track.timescale, 1000);
        let end = track.key_frames.partition_point(|key| time(key) < from);
        let start = track.key_frames.partition_point(|key| time(key) < from.saturating_sub(BACK.0)).max(end.saturating_sub(BACK.1));
        let points = track.key_frames.get(start..end).unwrap_or_default();
        self.look_at_points(film, track, points, Instant::now() + LOOKS).await.map(|_| ())
    }

    /// Waits for what began just before a time, as far as the Cues tell its place.
    async fn await_earlier(&self, film: &Film, track: &Track, from: i64) -> Result<(), SourceError> {
        let time = |key: &KeyFrame| cut::rescale(key.pts, track.timescale, 1000);
        let end = track.key_frames.partition_point(|key| time(key) < from);
        let start = track.key_frames.partition_point(|key| time(key) < from.saturating_sub(JUST_BEFORE)).max(end.saturating_sub(BACK.1));
        // The latest is the likeliest to be there still.
        for point in track.key_frames.get(start..end).unwrap_or_default().iter().rev() {
            if !lock(&self.known).read.contains(&place_of_point(track, point)) {
                self.read_point(film, track, point, true).await?;
            }
        }
        Ok(())
    }

    /// Reads texts that the Cues tell the places of, as far as they are here. Answers whether all were.
    async fn look_at_points(&self, film: &Film, track: &Track, points: &[KeyFrame], deadline: Instant) -> Result<bool, SourceError> {
        let mut all = true;
        for point in points {
            if lock(&self.known).read.contains(&place_of_point(track, point)) {
                continue;
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            all &= self.read_point(film, track, point, false).await?;
        }
        Ok(all)
    }

    /// Reads the texts that a point of the Cues leads to: all that begin with the one it names, which stand side by side. `false` where
    /// they are not here and are not waited for.
    async fn read_point(&self, film: &Film, track: &Track, point: &KeyFrame, waits: bool) -> Result<bool, SourceError> {
        let blocks = matroska::Blocks::cued(&film.index, track.id, point);
        let mut scan = Scan::of_blocks(blocks, film.source.len(), texts_of(film, &self.scripts));
        let mut step = scan.first_text(film, waits).await?;
        let place = place_of_point(track, point);
        if matches!(step, Step::Missing) {
            return Ok(false);
        }
        for _ in 0..SIDE_BY_SIDE {
            let Step::Text { stream, place: at, found } = step else { break };
            lock(&self.known).add(stream, at, None, found);
            step = scan.step(film, false).await?;
        }
        lock(&self.known).read.insert(place);
        Ok(true)
    }

    /// Reads the samples of a table that begin between two times, and those before them that are here and still shown.
    async fn read_table(&self, film: &Film, track: &Track, samples: &[Sample], from: i64, to: i64) -> Result<(), SourceError> {
        let time = |sample: &Sample| cut::rescale(sample.pts, track.timescale, 1000);
        let first = samples.partition_point(|sample| time(sample) < from);
        let last = samples.partition_point(|sample| time(sample) < to).max(first);
        for (at, sample) in samples.iter().enumerate().take(last).skip(first.saturating_sub(BACK.1)) {
            let end = sample.offset.saturating_add(u64::from(sample.size));
            if at >= first || film.source.available(sample.offset..end) {
                self.read_sample(film, track, sample).await?;
            }
        }
        Ok(())
    }

    async fn look_at_table(&self, film: &Film, track: &Track, samples: &[Sample], deadline: Instant) -> Result<bool, SourceError> {
        let mut all = true;
        for sample in samples {
            if Instant::now() > deadline {
                return Ok(false);
            }
            let end = sample.offset.saturating_add(u64::from(sample.size));
            if film.source.available(sample.offset..end) {
                self.read_sample(film, track, sample).await?;
            } else {
                all = false;
            }
        }
        Ok(all)
    }

    async fn read_sample(&self, film: &Film, track: &Track, sample: &Sample) -> Result<(), SourceError> {
        let place = (track.stream, sample.offset);
        // Two bytes are a length of nothing: the gap between two texts.
        if sample.size <= 2 || sample.size > LARGEST || lock(&self.known).read.contains(&place) {
            return Ok(());
        }
        let payload = film.source.read_at(sample.offset, sample.size as usize).await?;
        let found = read_text(track, self.scripts.get(&track.stream), sample.pts, Some(sample.duration), &payload);
        let mut known = lock(&self.known);
        known.add(track.stream, sample.offset, None, found);
        known.read.insert(place);
        Ok(())
    }
}

/// What stands for a point of the Cues among what was read.
fn place_of_point(track: &Track, point: &KeyFrame) -> (usize, u64) {
    (track.stream, point.offset.wrapping_add(point.block.unwrap_or(0).wrapping_mul(0x1_0001)))
}

/// Where to enter a film that does not tell where its parts are, to meet what begins at a time (milliseconds): found with a few looks.
async fn place_of(film: &Film, at: i64) -> Result<Option<u64>, SourceError> {
    let Some(marks) = film.input().marks else { return Ok(None) };
    let end = (film.duration * 1e6) as i64;
    let mut search = Search::new(marks.head()..film.source.len(), 0, end, at.saturating_mul(1000));
    while let Some(window) = search.window() {
        let len = usize::try_from(window.end - window.start).unwrap_or(0);
        let bytes = film.source.read_at(window.start, len).await?;
        search.looked(&window, marks.first(film.source.len(), window.start, &bytes));
    }
    Ok(search.mark().map(|mark| mark.offset))
}

/// Key frames some seconds apart.
fn apart(video: &Track) -> Vec<KeyFrame> {
    let least = STRETCH * i64::from(video.timescale);
    let mut keys: Vec<KeyFrame> = Vec::new();
    for key in &video.key_frames {
        if keys.last().is_none_or(|last| key.pts.saturating_sub(last.pts) >= least) {
            keys.push(*key);
        }
    }
    keys
}

async fn want(film: &Film, range: std::ops::Range<u64>) -> std::convert::Infallible {
    if !range.is_empty() {
        // Whoever reads hears of an error; here it does not matter.
        film.source.wait_available(range).await.ok();
    }
    std::future::pending().await
}

/// What one step of a scan has come to.
enum Step {
    /// A text.
    Text { stream: usize, place: u64, found: Found },
    /// Something else, or the end.
    Passed,
    /// Bytes are not here.
    Missing,
}

/// A walk through a stretch of the file. It can be left at any await and gone on with later.
struct Scan {
    blocks: Blocks,
    window: Sparse,
    /// A text that was found, and not read yet.
    pending: Option<Frame>,
    texts: Arc<Vec<Text>>,
    /// [`Track::id`] and ticks per second of the pictures.
    clock: Option<(u64, u32)>,
    /// How far the pictures have come, in milliseconds.
    reached: i64,
    done: bool,
}

enum Blocks {
    Matroska(Box<matroska::Blocks>),
    Fragments(Box<mp4::Fragments>),
}

/// What is needed of a text track.
struct Text {
    track: Track,
    script: Option<ass::Script>,
}

fn texts_of(film: &Film, scripts: &HashMap<usize, ass::Script>) -> Arc<Vec<Text>> {
    let is_text = |track: &&Track| matches!(track.codec, Codec::Srt | Codec::Ass | Codec::WebVtt | Codec::MovText);
    let tracks = film.index.tracks.iter().filter(|track| track.kind == Kind::Subtitle).filter(is_text);
    // Lists of samples are not needed, and may be long.
    let plain = |track: &Track| Track { key_frames: Vec::new(), config: Bytes::new(), ..track.clone() };
    Arc::new(tracks.map(|track| Text { track: plain(track), script: scripts.get(&track.stream).cloned() }).collect())
}

impl Scan {
    fn new(film: &Film, inside: &Inside, stretch: usize) -> Self {
        let texts = texts_of(film, &inside.scripts);
        let key = |n: usize| inside.keys.get(n);
        let from = if stretch == 0 { None } else { key(stretch) };
        match &film.fragments {
            Some(context) => {
                let range = inside.range(film, stretch);
                let blocks = Blocks::Fragments(Box::new(mp4::Fragments::at(range.start, context.clone())));
                Self::over(blocks, range.end, texts, film)
            }
            None => {
                let mut wanted: Vec<u64> = texts.iter().map(|text| text.track.id).collect();
                wanted.extend(film.index.video().map(|video| video.id));
                let blocks = matroska::Blocks::between(&film.index, from, key(stretch + 1)).only(&wanted);
                Self::over(Blocks::Matroska(Box::new(blocks)), film.source.len(), texts, film)
            }
        }
    }

    /// From a place in a film that does not tell where its parts are.
    fn from(film: &Film, inside: &Inside, place: u64) -> Self {
        let texts = texts_of(film, &inside.scripts);
        let blocks = match &film.fragments {
            Some(context) => Blocks::Fragments(Box::new(mp4::Fragments::at(place, context.clone()))),
            None => {
                let mut wanted: Vec<u64> = texts.iter().map(|text| text.track.id).collect();
                wanted.extend(film.index.video().map(|video| video.id));
                Blocks::Matroska(Box::new(matroska::Blocks::at(place, &film.index).only(&wanted)))
            }
        };
        Self::over(blocks, film.source.len(), texts, film)
    }

    fn over(blocks: Blocks, end: u64, texts: Arc<Vec<Text>>, film: &Film) -> Self {
        let clock = film.index.video().map(|video| (video.id, video.timescale));
        Self { blocks, window: Sparse::new(end), pending: None, texts, clock, reached: i64::MIN, done: false }
    }

    fn of_blocks(blocks: matroska::Blocks, end: u64, texts: Arc<Vec<Text>>) -> Self {
        let blocks = Blocks::Matroska(Box::new(blocks));
        Self { blocks, window: Sparse::new(end), pending: None, texts, clock: None, reached: i64::MIN, done: false }
    }

    /// Takes the next frame. `waits`: for bytes that are not here.
    async fn step(&mut self, film: &Film, waits: bool) -> Result<Step, SourceError> {
        if self.pending.is_none() {
            let found = match &mut self.blocks {
                Blocks::Matroska(blocks) => blocks.next(&self.window),
                Blocks::Fragments(fragments) => fragments.next(&self.window),
            };
            match found {
                Ok(Some(frame)) => self.pending = Some(frame),
                Ok(None) => return Ok(self.end()),
                Err(Stop::Need { offset, len }) => {
                    return Ok(if self.fetch(film, offset, len, waits).await? { Step::Passed } else { Step::Missing });
                }
                Err(Stop::Bad(damage)) => {
                    tracing::debug!(%damage, "a stretch of text ends early");
                    return Ok(self.end());
                }
            }
        }
        let Some(frame) = &self.pending else { return Ok(Step::Passed) };
        if let Some((_, timescale)) = self.clock.filter(|(id, _)| *id == frame.track) {
            self.reached = self.reached.max(cut::rescale(frame.pts, timescale, 1000));
        }
        let text = self.texts.iter().find(|text| text.track.id == frame.track && frame.len <= LARGEST);
        let Some(text) = text else {
            self.pending = None;
            return Ok(Step::Passed);
        };
        let end = frame.offset.saturating_add(u64::from(frame.len));
        if !waits && !film.source.available(frame.offset..end) {
            return Ok(Step::Missing);
        }
        let body = film.source.read_at(frame.offset, frame.len as usize).await?;
        let payload = [&frame.prefix[..], &body[..]].concat();
        let found = read_text(&text.track, text.script.as_ref(), frame.pts, frame.duration, &payload);
        let step = Step::Text { stream: text.track.stream, place: frame.offset, found };
        self.pending = None;
        Ok(step)
    }

    /// The text that a point of the index leads to, as far as that is here or waited for. Heads of elements are passed before it.
    async fn first_text(&mut self, film: &Film, waits: bool) -> Result<Step, SourceError> {
        for _ in 0..HEADS {
            match self.step(film, waits).await? {
                Step::Passed if !self.done => {}
                step => return Ok(step),
            }
        }
        Ok(Step::Passed)
    }

    fn end(&mut self) -> Step {
        self.done = true;
        self.window = Sparse::new(0);
        Step::Passed
    }

    /// Makes a new window: all that is here already, but waits only for what is needed. `false`: that is not here.
    async fn fetch(&mut self, film: &Film, offset: u64, len: u64, waits: bool) -> Result<bool, SourceError> {
        let end = self.window.len();
        let needed = offset..offset.saturating_add(len).min(end);
        if !film.source.available(needed.clone()) {
            if !waits {
                return Ok(false);
            }
            film.source.wait_available(needed.clone()).await?;
        }
        let here = film.source.available_from(offset, WINDOW.max(len)).min(end.saturating_sub(offset)).max(needed.end - needed.start);
        let bytes = film.source.read_at(offset, usize::try_from(here).unwrap_or(usize::MAX)).await?;
        let mut window = Sparse::new(end);
        window.insert(offset, bytes);
        self.window = window;
        Ok(true)
    }
}

/// What one sample says; `pts` and `duration` in ticks of the track.
fn read_text(track: &Track, script: Option<&ass::Script>, pts: i64, duration: Option<u32>, payload: &[u8]) -> Found {
    let inflated = track.complex_edits.then(|| inflate(payload)).flatten();
    let payload = inflated.as_deref().unwrap_or(payload);
    let at = |ticks: i64| cut::rescale(ticks, track.timescale, 1000);
    let start = at(pts);
    let end = match duration.filter(|duration| *duration > 0) {
        Some(duration) => at(pts.saturating_add(i64::from(duration))),
        None => start.saturating_add(UNTOLD),
    };
    let text = || charset::decode(payload, Some(&track.language));
    let mut event = None;
    let said: Vec<Said> = match &track.codec {
        Codec::Srt => vec![subtitle::srt::said(&text())],
        Codec::Ass => {
            let text = text();
            event = Event::of_block(&text, start, end);
            vec![script.cloned().unwrap_or_default().block(&text)]
        }
        Codec::MovText => vec![subtitle::mov_text::said(payload)],
        Codec::WebVtt if matches!(track.samples, Samples::Blocks(_)) => vec![subtitle::vtt::block(payload)],
        Codec::WebVtt => subtitle::vtt::sample(payload),
        _ => Vec::new(),
    };
    Found { cues: said.into_iter().filter_map(|said| Cue::new(start, end, said)).collect(), event }
}

/// A text that the container has compressed (Matroska ContentCompAlgo 0, RFC 1950), if it is that.
pub(super) fn inflate(payload: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(payload).take(u64::from(LARGEST)).read_to_end(&mut text).ok()?;
    Some(text)
}
