//! An encoded rendition: which runs of ffmpeg make it, who waits for what, and when a run ends.
//!
//! All viewers share the runs. A segment a little ahead of a run is waited for; one far from every run gets a run of its own. A run stays a
//! bounded way ahead of what was asked for, and ends when nobody asks any more.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use balcony_media::codec::Colour;
use balcony_media::cut::Cuts;
use balcony_media::magnet::InfoHash;
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::Workshop;
use super::assemble::{Grid, Made};
use super::encode::{self, Coding, EncodeRun, FilmInput, RunError, Target};
use super::encoders::{Awaited, Lease};
use crate::film::Film;
use crate::segments::{Segment, SegmentError, SegmentStore, SegmentWriter};
use crate::tasks::End;
use crate::trust::{DeviceId, StreamId};

/// Segments (of about two seconds) that a run makes ahead of the last one that was asked for.
const AHEAD: u32 = 5;
/// A segment at most this far ahead of a run is waited for.
const NEAR: u32 = 6;
/// A run that nobody asks for more ends after this time.
const IDLE: Duration = Duration::from_secs(30);
/// How much of the older measurements of speed stays when a new one comes.
const SPEED_FADES: f64 = 0.7;
/// After so many segments a run's speed can be told: the first ones take their start as well.
const SPEED_TELLS: u32 = 4;
/// Seconds of film within a second that are too few to watch it.
const TOO_SLOW: f64 = 0.97;
/// A run that was begun tells its init segment within this time, or it is made without it.
const RUN_TELLS: Duration = Duration::from_secs(1);

/// One encoded rendition.
pub struct EncodeWorker {
    /// Its folder in the segment store.
    name: Arc<str>,
    /// Of which film.
    film: (InfoHash, usize),
    input: FilmInput,
    /// Seconds and file offsets of the places where a decoder may begin, where the film's index tells them.
    entries: Vec<(f64, u64)>,
    /// What ffmpeg is to make of it.
    target: Target,
    /// What its pictures are marked with.
    colour: Option<Colour>,
    /// Held by who makes the init segment without a run.
    heading: tokio::sync::Mutex<()>,
    workshop: Weak<Workshop>,
    segments: Arc<SegmentStore>,
    init: watch::Sender<Option<Bytes>>,
    /// Counts segments that were begun and runs that ended: whoever waits looks again.
    news: watch::Sender<u64>,
    runs: Mutex<Runs>,
}

#[derive(Default)]
struct Runs {
    last: u64,
    all: HashMap<u64, Run>,
    /// How the last run ended that did not end well.
    error: Option<MakeError>,
    /// Counts the runs whose encoder was taken: whoever waits for them goes in line again.
    taken: u64,
    /// How fast it was converted lately.
    speed: Speed,
}

/// Who asks for a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A stream that is being got ready.
    Start(StreamId),
    /// A device that watches it.
    Viewer(StreamId, DeviceId),
    /// Who puts the whole of it together to keep it.
    Keeper(StreamId),
}

impl Reader {
    fn is_viewer(&self) -> bool {
        !matches!(self, Self::Start(_))
    }

    /// The same one, or the start of the stream that it watches.
    fn stands_for(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Viewer(stream, _), Self::Start(started)) => stream == started,
            _ => self == other,
        }
    }
}

/// Seconds of film and the seconds that they took, older ones fading.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    film: f64,
    busy: f64,
    segments: u32,
}

impl Speed {
    fn add(&mut self, film: f64, busy: f64) {
        let stays = |before: f64| before * SPEED_FADES;
        *self = Self { film: stays(self.film) + film, busy: stays(self.busy) + busy, segments: self.segments.saturating_add(1) };
    }

    /// Seconds of film within a second, where that is too few, over segments enough to tell.
    fn too_slow(self) -> Option<f64> {
        let ratio = self.film / self.busy.max(0.001);
        (self.segments >= SPEED_TELLS && ratio < TOO_SLOW).then_some(ratio)
    }
}

impl Runs {
    /// This reader reads none of them any more; those that nobody else reads end. Answers whether any did.
    fn leave(&mut self, reader: &Reader) -> bool {
        let before = self.all.len();
        self.all.retain(|_, run| {
            run.readers.retain(|other| !reader.stands_for(other));
            // What a start waits for was left by nobody.
            let left = run.readers.is_empty() && Arc::strong_count(&run.starts) == 1;
            if let (true, Some(encoder)) = (left, &run.encoder) {
                // Nobody else need give way meanwhile.
                encoder.end();
            }
            !left
        });
        self.all.len() < before
    }
}

struct Run {
    /// The segment that it makes now.
    at: Arc<AtomicU32>,
    /// It may make segments up to this one.
    until: watch::Sender<u32>,
    read: Instant,
    /// Starts that wait for it hold this: it is not ended for a viewer who went elsewhere.
    starts: Arc<()>,
    /// Who asked for something that it makes, and did not turn to something else since.
    readers: HashSet<Reader>,
    /// Its encoder, or its place in line for one. Sound needs none.
    encoder: Option<Arc<Lease>>,
    _task: AbortOnDropHandle<End>,
}

impl Run {
    /// It makes segment `n` soon, or has made it just now.
    fn is_near(&self, n: u32) -> bool {
        let at = self.at.load(Ordering::Acquire);
        n + AHEAD + 1 >= at && n <= at + NEAR
    }

    /// It will make segment `n` soon.
    fn serves(&self, n: u32) -> bool {
        self.is_near(n) && self.at.load(Ordering::Acquire) <= n
    }
}

impl EncodeWorker {
    /// A rendition of which nothing is made yet. `identity` names it within its film; `colour` is what its pictures are marked with.
    pub fn new(film: &Film, target: Target, colour: Option<Colour>, identity: &str, workshop: &Arc<Workshop>) -> Arc<Self> {
        Arc::new(Self {
            name: format!("{}-{identity}", film.name()).into(),
            film: (film.info_hash, film.file),
            input: film.input(),
            entries: film.copy.as_ref().map(|copy| copy.entries().collect()).unwrap_or_default(),
            target,
            colour,
            heading: tokio::sync::Mutex::default(),
            workshop: Arc::downgrade(workshop),
            segments: workshop.segments.clone(),
            init: watch::Sender::new(None),
            news: watch::Sender::new(0),
            runs: Mutex::default(),
        })
    }

    /// The init segment, from a run if there is one, and without one otherwise: only who asks for a segment begins a run.
    pub async fn init(self: &Arc<Self>) -> Result<Bytes, SegmentError> {
        let mut init = self.init.subscribe();
        let from_run = async {
            // The sender lives as long as this does.
            let found = init.wait_for(Option::is_some).await.map_err(|_| gone())?;
            found.clone().ok_or_else(gone)
        };
        let without_run = async {
            // What another encoder would stand in with has to be in it, and no run knows that.
            if !self.runs().all.is_empty() && self.target.silicon().is_none() {
                tokio::time::sleep(RUN_TELLS).await;
            }
            self.head().await
        };
        tokio::select! {
            biased;
            found = from_run => found,
            made = without_run => made,
        }
    }

    /// Makes the init segment, unless somebody did before.
    async fn head(&self) -> Result<Bytes, SegmentError> {
        let _one = self.heading.lock().await;
        if let Some(known) = self.init.borrow().clone() {
            return Ok(known);
        }
        let workshop = self.workshop.upgrade().ok_or_else(gone)?;
        let made = encode::header(&workshop.tools, &self.target, self.colour).await.map_err(MakeError::from)?;
        self.learn(made.clone());
        Ok(made)
    }

    /// An init segment became known; the first one counts.
    fn learn(&self, init: Bytes) {
        self.init.send_if_modified(|known| match known {
            Some(before) => {
                if *before != init {
                    // They differ in what a picture is marked with, if at all: everything else follows from the arguments.
                    tracing::debug!(rendition = %self.name, "a run tells another init segment than is known");
                }
                false
            }
            None => {
                *known = Some(init);
                true
            }
        });
    }

    /// Segment `n`, as soon as it begins to exist, for a viewer.
    pub async fn segment(self: &Arc<Self>, n: u32, reader: &Reader) -> Result<Segment, SegmentError> {
        self.wait_for(n, reader, None).await
    }

    /// The first segment, for a start that has got `encoder` for it.
    pub async fn first_segment(self: &Arc<Self>, reader: &Reader, encoder: Option<Lease>) -> Result<Segment, SegmentError> {
        self.wait_for(0, reader, encoder).await
    }

    /// This reader has turned to another rendition: what is made for nobody else ends.
    pub fn leave(&self, reader: &Reader) {
        let left = self.runs().leave(reader);
        if left {
            self.tell();
        }
    }

    /// Waits until the first segment, which has begun as `segment`, is whole. It is not stopped for others meanwhile; if it has to be
    /// because nothing comes, it is begun again.
    pub async fn whole_first(self: &Arc<Self>, reader: &Reader, mut segment: Segment) -> Result<(), SegmentError> {
        loop {
            let taken = self.runs().taken;
            let awaited = self.ask(0, reader);
            let done = segment.done().await;
            drop(awaited);
            match done {
                // How often it is begun again is limited where it is made.
                Err(SegmentError::Anew) => segment = self.wait_for(0, reader, None).await?,
                Err(_) if self.runs().taken != taken => segment = self.wait_for(0, reader, None).await?,
                done => return done,
            }
        }
    }

    async fn wait_for(self: &Arc<Self>, n: u32, reader: &Reader, mut encoder: Option<Lease>) -> Result<Segment, SegmentError> {
        let mut news = self.news.subscribe();
        let mut begun = None;
        loop {
            news.borrow_and_update();
            if let Some(segment) = self.segments.get(&self.name, n) {
                self.ask(n, reader);
                return Ok(segment);
            }
            let _awaited = match self.ask(n, reader) {
                // One that is still in line does not count for who has an encoder.
                Some(awaited) if encoder.is_none() || !self.needs_encoder() => {
                    encoder = None;
                    awaited
                }
                _ => {
                    let taken = self.runs().taken;
                    // A run that was begun for this very request and is gone without the segment has failed, unless its encoder was taken.
                    if begun.is_some_and(|before| before == taken) {
                        return Err(self.runs().error.take().map_or_else(gone, SegmentError::from));
                    }
                    begun = Some(taken);
                    self.begin(n, reader, encoder.take())?;
                    continue;
                }
            };
            news.changed().await.map_err(|_| gone())?;
        }
    }

    /// Whether an encoder is needed for the first segment: none makes it, and none has made it.
    pub fn needs_encoder(&self) -> bool {
        let pictures = matches!(self.target.coding, Coding::Pictures { .. });
        let runs = self.runs();
        let near = runs.all.values().any(|run| run.serves(0) && run.encoder.as_ref().is_none_or(|lease| lease.waits_since().is_none()));
        pictures && !near && !self.segments.has(&self.name, 0)
    }

    /// Waits until no encoder is needed for the first segment any more.
    pub async fn first_comes(&self) {
        // The sender lives as long as this does.
        let mut news = self.news.subscribe();
        while self.needs_encoder() && news.changed().await.is_ok() {}
    }

    /// Seconds of film that are converted within a second, while that is too few to watch it.
    pub fn too_slow(&self) -> Option<f64> {
        let runs = self.runs();
        if runs.all.is_empty() { None } else { runs.speed.too_slow() }
    }

    /// Since when somebody waits for an encoder for it.
    pub fn waits_for_encoder(&self) -> Option<Instant> {
        self.runs().all.values().filter_map(|run| run.encoder.as_ref()?.waits_since()).min()
    }

    /// Ends all runs and deletes what they made.
    pub fn stop(&self) {
        self.runs().all.clear();
        self.segments.remove(&self.name);
    }

    /// Lets the run that will make or has just made segment `n` go on a little farther. Where one will make it, that one is not stopped
    /// for anybody else while the answer is kept; `None` where there is none.
    fn ask(&self, n: u32, reader: &Reader) -> Option<(Option<Awaited>, Option<Arc<()>>)> {
        let mut runs = self.runs();
        for run in runs.all.values_mut().filter(|run| run.is_near(n)) {
            run.read = Instant::now();
            run.readers.insert(reader.clone());
            if let Some(encoder) = &run.encoder {
                encoder.read(reader.is_viewer());
            }
            run.until.send_if_modified(|until| {
                let farther = n + AHEAD > *until;
                *until = (*until).max(n + AHEAD);
                farther
            });
        }
        let serving = runs.all.values().find(|run| run.serves(n))?;
        let start = matches!(reader, Reader::Start(_)).then(|| serving.starts.clone());
        Some((serving.encoder.as_ref().map(Lease::awaited), start))
    }

    fn begin(self: &Arc<Self>, n: u32, reader: &Reader, encoder: Option<Lease>) -> Result<(), SegmentError> {
        let workshop = self.workshop.upgrade().ok_or_else(gone)?;
        let pictures = matches!(self.target.coding, Coding::Pictures { .. });
        let mut runs = self.runs();
        // A run that it alone has read is left behind by a seek.
        runs.leave(reader);
        let encoder = pictures.then(|| Arc::new(encoder.unwrap_or_else(|| workshop.encoders.for_viewer())));
        runs.last += 1;
        runs.error = None;
        let id = runs.last;
        let (at, until) = (Arc::new(AtomicU32::new(n)), watch::Sender::new(n + AHEAD));
        let tasks = workshop.tools.tasks.clone();
        let task = self.clone().run(id, n, at.clone(), until.subscribe(), encoder.clone(), workshop);
        let task = AbortOnDropHandle::new(tasks.spawn("rendition", task));
        let readers = HashSet::from([reader.clone()]);
        runs.all.insert(id, Run { at, until, read: Instant::now(), starts: Arc::default(), readers, encoder, _task: task });
        Ok(())
    }

    async fn run(
        self: Arc<Self>,
        id: u64,
        from: u32,
        at: Arc<AtomicU32>,
        until: watch::Receiver<u32>,
        encoder: Option<Arc<Lease>>,
        workshop: Arc<Workshop>,
    ) {
        if self.target.silicon().is_some() && self.init.borrow().is_none() {
            // It is not known to any run; whoever watches wants it as soon as the first picture.
            let worker = self.clone();
            workshop.tools.tasks.spawn("header", async move { worker.head().await.map_or((), drop) });
        }
        let ended = match encoder.as_deref() {
            Some(encoder) => {
                let mut making = Box::pin(self.encode(id, from, &at, until, encoder, &workshop));
                let ended = tokio::select! {
                    ended = &mut making => ended,
                    () = encoder.taken() => Ok(()),
                };
                // Before the segment that it is making fails: whoever hears of that then knows why. One that was left behind by a seek has
                // failed whoever still waits for it.
                let mut runs = self.runs();
                runs.taken += u64::from(encoder.is_taken() && runs.all.contains_key(&id));
                drop(runs);
                ended
            }
            None => self.make(from, &at, until, None, &workshop).await,
        };
        {
            let mut runs = self.runs();
            if let Err(error) = ended {
                tracing::warn!(%error, rendition = %self.name, "a conversion ended early");
                runs.error = Some(error);
            }
            runs.all.remove(&id);
        }
        self.tell();
    }

    /// Makes pictures, as soon as there is an encoder; not at all when nobody asks for them before.
    async fn encode(
        &self,
        id: u64,
        from: u32,
        at: &AtomicU32,
        until: watch::Receiver<u32>,
        encoder: &Lease,
        workshop: &Arc<Workshop>,
    ) -> Result<(), MakeError> {
        while tokio::time::timeout(IDLE, encoder.granted()).await.is_err() {
            if self.runs().all.get(&id).is_none_or(|run| run.read.elapsed() >= IDLE) {
                return Ok(());
            }
        }
        // Streams that are in line for the same segment need not be any more.
        self.tell();
        self.make(from, at, until, Some(encoder), workshop).await
    }

    async fn make(
        &self,
        from: u32,
        at: &AtomicU32,
        mut until: watch::Receiver<u32>,
        encoder: Option<&Lease>,
        workshop: &Arc<Workshop>,
    ) -> Result<(), MakeError> {
        self.refocus(from, workshop).await;
        let mut run = EncodeRun::start(&workshop.tools, self.input.clone(), self.target.clone(), from);
        let mut writer: Option<SegmentWriter> = None;
        let (mut busy, mut asked) = (Duration::ZERO, Instant::now());
        self.runs().speed = Speed::default();
        while let Some(made) = run.next().await {
            busy += asked.elapsed();
            encoder.into_iter().for_each(Lease::made);
            match made? {
                Made::Init(init) if self.target.silicon().is_none() => self.learn(init),
                Made::Init(_) => {}
                Made::Chunk { segment, bytes, first } => {
                    if first {
                        if !may_go_on(&mut until, segment, encoder).await || self.segments.has(&self.name, segment) {
                            return Ok(());
                        }
                        at.store(segment, Ordering::Release);
                        writer = Some(self.segments.create(&self.name, segment)?);
                        self.tell();
                    }
                    if let Some(mut held) = writer.take() {
                        if let Err(error) = held.append(&bytes) {
                            // Whoever waits for it hears why it does not come.
                            held.fail(SegmentError::Cache(error.kind()));
                            return Err(error.into());
                        }
                        writer = Some(held);
                    }
                }
                Made::SegmentDone { segment } => {
                    if let Some(writer) = writer.take() {
                        writer.finish();
                    }
                    at.store(segment + 1, Ordering::Release);
                    let Grid { timescale, .. } = self.target.grid;
                    let ticks = self.target.grid.cut(segment + 1) - self.target.grid.cut(segment);
                    self.runs().speed.add(ticks as f64 / f64::from(timescale.max(1)), std::mem::take(&mut busy).as_secs_f64());
                }
                Made::Again { segment } => {
                    // Readers of the void chunks are told; the next one to ask gets the new ones.
                    if let Some(writer) = writer.take() {
                        writer.fail(SegmentError::Anew);
                    }
                    at.store(segment, Ordering::Release);
                }
                Made::End => break,
            }
            // What it waited for those who watch does not count.
            asked = Instant::now();
        }
        Ok(())
    }

    /// The torrent goes on at the place where ffmpeg is about to read.
    async fn refocus(&self, from: u32, workshop: &Workshop) {
        let cut = self.target.grid.cut(from) as f64 / f64::from(self.target.grid.timescale) - self.target.lead_us() as f64 / 1e6;
        let entry = self.entries.iter().take_while(|(seconds, _)| *seconds <= cut).last();
        if let Some((_, byte)) = entry.filter(|_| from > 0) {
            self.input.source.refocus(*byte, self.viewers(workshop)).await;
        }
    }

    /// How many streams play its film, at least 1.
    fn viewers(&self, workshop: &Workshop) -> usize {
        workshop.film(self.film.0, self.film.1).map_or(1, |film| film.viewers())
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A panic elsewhere leaves the table whole.
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The grid of a rendition's cuts; `frame` is the usual length of a sample in ticks.
pub fn grid(cuts: &Cuts, frame: u32) -> Grid {
    Grid { cuts: cuts.boundaries().collect(), timescale: cuts.timescale, frame }
}

/// Why segments are not made any more.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    /// ffmpeg or the film.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The disk.
    #[error("the segment cache cannot be written: {0}")]
    Cache(#[from] std::io::Error),
}

impl From<MakeError> for SegmentError {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::Run(RunError::Source(error)) => Self::Source(error),
            MakeError::Run(error) => Self::Failed(error.in_short()),
            MakeError::Cache(error) => Self::Cache(error.kind()),
        }
    }
}

/// Waits until somebody asks for `segment` or one near it; `false` when nobody does.
async fn may_go_on(until: &mut watch::Receiver<u32>, segment: u32, encoder: Option<&Lease>) -> bool {
    let rests = *until.borrow() < segment;
    if let (true, Some(encoder)) = (rests, encoder) {
        encoder.rests(true);
    }
    let goes_on = matches!(tokio::time::timeout(IDLE, until.wait_for(|until| *until >= segment)).await, Ok(Ok(_)));
    if let (true, Some(encoder)) = (rests, encoder) {
        encoder.rests(false);
    }
    goes_on
}

fn gone() -> SegmentError {
    SegmentError::Failed("its production ended".into())
}
