//! One task per stream: it carries out what [`step`] decides, keeps the numbers moving, and ends everything that it started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use balcony_media::codec;
use balcony_media::container::{Codec, Container, Index, Track};
use balcony_media::encoder::Wanted;
use balcony_media::fetched::TimeMap;
use balcony_media::ladder::Size;
use balcony_media::magnet::InfoHash;
use balcony_media::plan::{self, Mode, Why};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::lives::{Lifetime, uptime};
use super::queue::Entrance;
use super::state::{Effect, Event, Failure, FailureCode, Found, Life, State, step};
use super::view::{self, AudioView, ErrorView, Moving, Phase, Status, StreamView, VideoView};
use super::{Born, Ground, Method, Stream, Streams};
use crate::film::{self, Film, OpenError, Presentation, Tables, read_index};
use crate::metrics::METRICS;
use crate::mock::{Act, Part};
use crate::produce::Workshop;
use crate::produce::encoders::Lease;
use crate::produce::probe::{self, ProbeError};
use crate::produce::worker::Reader;
use crate::segments::{Segment, SegmentError};
use crate::source::{Source, SourceError};
use crate::store::{Store, StoreError, StreamRow, TorrentRow};
use crate::subtitles;
use crate::swarm::Torrent;
use crate::tasks::End;
use crate::torrent::{TorrentError, TorrentState, TorrentStats};

/// How often the numbers of a stream that is not ready are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often those of a ready one are.
const LOOK_READY: Duration = Duration::from_secs(1);
/// How often those of one are that is whole and that nobody watches: nothing of it moves.
const LOOK_RESTING: Duration = Duration::from_secs(5);
/// How often a stream is looked at that only waits for the end of its life, at most.
const LOOK_OVER: Duration = Duration::from_secs(60);
/// How long a stream of an earlier run may keep the next one from beginning again.
const WAKE: Duration = Duration::from_secs(5);
/// A playhead that nobody moves any more lets go of the torrent's look-ahead.
const IDLE_PLAYHEAD: Duration = Duration::from_secs(120);

/// Bytes that come at some speed, and of which none was right for so long: somebody sends what is wrong.
const NONE_RIGHT: Duration = Duration::from_secs(10);
/// Who was connected within this time counts in words: peers who are dropped and dialled again are not told twice a second.
const COMPANY: Duration = Duration::from_secs(12);
/// A stream that could not be written down is tried again after so long, and then after twice as long, up to the last.
const SAVE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the end of a stream waits until it is written down.
const SAVE_WITHIN: Duration = Duration::from_secs(10);

/// Room for a first segment is waited for, and looked for so often.
const ROOM_AGAIN: Duration = Duration::from_secs(5);

/// How long ffprobe may look at a film whose bytes have to come first.
const PROBE_WAIT: Duration = Duration::from_secs(120);

/// What a stream shows before anything is known.
pub fn first_view(born: &Born) -> StreamView {
    let stream_url = match born.options.method {
        Method::Auto | Method::Hls => Some("/master.m3u8".to_owned()),
        Method::Dash => Some("/manifest.mpd".to_owned()),
        Method::Original => None,
    };
    StreamView {
        stream_id: born.id.to_string(),
        status: Status::Downloading,
        phase: Phase::Queued,
        progress: 0,
        eta: None,
        message: "Starting".into(),
        message_key: "starting",
        message_params: json!({}),
        title: None,
        info_hash: born.magnet.info_hash.to_string(),
        file_index: None,
        quality: born.options.quality.name().to_owned(),
        queue_position: None,
        download_speed: None,
        upload_speed: None,
        peers: None,
        download_progress: None,
        downloaded_bytes: None,
        total_bytes: None,
        fetched: None,
        stream_url,
        dash_url: Some("/manifest.mpd".to_owned()),
        direct_url: None,
        events_url: "/events".to_owned(),
        duration: None,
        position: born.position,
        rungs: None,
        mode: None,
        why: None,
        why_key: None,
        burn: None,
        video: None,
        audio: None,
        subtitles: None,
        created_at: born.created_at.to_string(),
        expires_at: born.expires_at.to_string(),
        error: None,
        download: None,
        device: None,
        person: None,
        watching: Vec::new(),
    }
}

/// How a stream's task begins.
pub enum Beginning {
    /// As one that somebody asks for just now.
    New(Entrance),
    /// As one of an earlier run that was not ready. With a slot it begins when those before it have begun, or somebody asks for it.
    Again(Entrance),
    /// As one of an earlier run that was ready.
    Ready {
        /// The whole file was here.
        complete: bool,
    },
    /// As one that had failed in an earlier run.
    Failed(Failure),
}

impl Beginning {
    /// The life that begins.
    pub fn life(&self) -> Life {
        match self {
            Self::New(Entrance::Turn) | Self::Again(Entrance::Turn) => Life::born(1),
            Self::New(Entrance::Place(place)) | Self::Again(Entrance::Place(place)) => Life::born(*place),
            Self::Ready { complete } => Life::of(State::Ready { complete: *complete }),
            Self::Failed(failure) => Life::of(State::Failed(failure.clone())),
        }
    }
}

/// The task of one stream.
pub struct Actor {
    streams: Arc<Streams>,
    stream: Arc<Stream>,
    end: Lifetime,
    since: Instant,
    /// Bytes of the film at the last look, and when they last changed.
    came: (u64, Instant),
    /// When somebody who has it was connected last.
    met: Option<Instant>,
    torrent: Option<Torrent>,
    /// Peers that the search for metadata knows.
    found_peers: Arc<AtomicUsize>,
    first: Vec<Segment>,
    /// What it plays, in the mock.
    part: Option<Part>,
    /// Where the film's times lie in its file, and what was here of it at the last look.
    times: Option<(TimeMap, Option<u64>)>,
    /// Whether everything is paused.
    paused: watch::Receiver<bool>,
    work: Option<AbortOnDropHandle<End>>,
    /// The last writing of it.
    saving: Option<JoinHandle<End>>,
    /// Cancelled when something newer is to be written.
    newer: CancellationToken,
    answers: (mpsc::UnboundedSender<Answer>, mpsc::UnboundedReceiver<Answer>),
    /// Cancelled when the device that it stands for is revoked.
    starter: CancellationToken,
    /// Somebody has asked for it just now, and not before a restart.
    new: bool,
    /// The encoder for its first segment, while it is not used yet.
    encoder: Option<Lease>,
    /// There is no room for its first segment.
    lacks_room: Arc<AtomicBool>,
    /// It sleeps, and its film or its torrent could not be closed yet: somebody still reads them.
    lingers: bool,
}

/// The turn of a stream of an earlier run.
enum Turn {
    Awaited(BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>),
    /// It has come; the next one's comes when this one is given back.
    Come {
        since: Instant,
        _permit: OwnedSemaphorePermit,
    },
    Taken,
}

impl Turn {
    /// Waits for it; for ever where there is nothing to wait for.
    async fn comes(&mut self) {
        match self {
            Self::Awaited(turn) => {
                let permit = turn.await;
                *self = permit.map_or(Self::Taken, |permit| Self::Come { since: Instant::now(), _permit: permit });
            }
            Self::Come { .. } | Self::Taken => std::future::pending().await,
        }
    }

    /// Lets the next one go on once this one has begun, or does not come on. `opening`: its film is not open yet.
    fn pass(&mut self, life: &Life, opening: bool) {
        let waits = life.asleep || matches!(life.state, State::Queued { .. });
        let done = match &self {
            Self::Awaited(_) => !waits,
            Self::Come { since, .. } => !(waits || opening) || since.elapsed() > WAKE,
            Self::Taken => true,
        };
        if done {
            *self = Self::Taken;
        }
    }
}

/// What work brings back besides the event.
enum Answer {
    Torrent(u32, Torrent, usize),
    Presentation(u32, Arc<Presentation>),
    Encoder(u32, Option<Lease>),
    First(u32, Vec<Segment>),
    Found(u32, Found),
}

impl Answer {
    /// For which piece of work it is. One of an older epoch belongs to a life that is over: what it brings is dropped.
    const fn epoch(&self) -> u32 {
        match self {
            Self::Torrent(epoch, ..)
            | Self::Presentation(epoch, _)
            | Self::Encoder(epoch, _)
            | Self::First(epoch, _)
            | Self::Found(epoch, _) => *epoch,
        }
    }

    /// What of the mock's time line it ends, if anything.
    const fn act(&self) -> Option<Act> {
        match self {
            Self::Torrent(..) => Some(Act::Metadata),
            Self::Presentation(..) => Some(Act::Index),
            Self::Found(_, Found::FirstSegments) => Some(Act::FirstSegments),
            Self::Encoder(..) | Self::First(..) | Self::Found(..) => None,
        }
    }
}

/// What work has come to; in the mock, when it is time for it.
async fn in_time(came: Result<Answer, Failure>, part: Option<Part>) -> Result<Answer, Failure> {
    let answer = came?;
    if let (Some(part), Some(act)) = (part, answer.act()) {
        part.cue(act).await?;
    }
    Ok(answer)
}

impl Actor {
    /// For a stream that was just born or brought back.
    pub fn new(streams: Arc<Streams>, stream: Arc<Stream>, end: Lifetime) -> Self {
        let now = Instant::now();
        let starter = streams.ground.devices.life(&stream.device());
        let age = Duration::try_from(Timestamp::now().duration_since(stream.created_at)).unwrap_or_default();
        let part = streams.ground.torrents.mock().map(|mock| mock.part(&stream.magnet, age));
        let paused = streams.ground.torrents.paused();
        Self {
            starter,
            new: false,
            streams,
            stream,
            end,
            since: now,
            came: (0, now),
            met: None,
            torrent: None,
            found_peers: Arc::default(),
            first: Vec::new(),
            part,
            times: None,
            paused,
            work: None,
            saving: None,
            newer: CancellationToken::new(),
            answers: mpsc::unbounded_channel(),
            encoder: None,
            lacks_room: Arc::default(),
            lingers: false,
        }
    }

    /// Lives until the stream is over and what it had is closed.
    pub async fn live(mut self, mut inbox: mpsc::UnboundedReceiver<Event>, beginning: Beginning) {
        let mut turn = Turn::Taken;
        let mut life = beginning.life();
        let mut over_since: Option<Instant> = None;
        match beginning {
            Beginning::New(entrance) => {
                self.new = true;
                if entrance == Entrance::Turn {
                    life = self.happen(life, Event::Turn).await;
                } else {
                    self.save();
                }
            }
            // What has come whole needs nothing but a viewer; the rest of others is fetched.
            Beginning::Again(Entrance::Turn) | Beginning::Ready { complete: false } => {
                turn = Turn::Awaited(Box::pin(self.streams.waking.clone().acquire_owned()));
            }
            Beginning::Again(Entrance::Place(_)) | Beginning::Ready { complete: true } | Beginning::Failed(_) => {}
        }
        self.show(&life.state);
        loop {
            if matches!(life.state, State::Stopped | State::Expired) {
                let since = *over_since.get_or_insert_with(Instant::now);
                if !self.lingers || since.elapsed() > self.stream.lives.remembered {
                    return self.streams.bury(&self.stream, self.end.told, since + self.stream.lives.remembered);
                }
            }
            turn.pass(&life, self.is_opening(&life.state));
            let pause = self.pause(&life);
            let event = tokio::select! {
                () = turn.comes() => Some(if life.asleep { Event::Wanted } else { Event::Turn }),
                event = inbox.recv() => event,
                answer = self.answers.1.recv() => answer.filter(|answer| answer.epoch() == life.epoch).and_then(|answer| self.take(answer)),
                () = self.starter.cancelled() => self.outlive_starter().await,
                () = tokio::time::sleep(pause) => {
                    self.close_film().await;
                    self.look(&life)
                }
            };
            if let Some(event) = event {
                life = self.happen(life, event).await;
            } else {
                self.show(&life.state);
            }
        }
    }

    /// Whether its film is being looked for or opened.
    fn is_opening(&self, state: &State) -> bool {
        match state {
            State::Metadata | State::Opening => true,
            State::Ready { .. } => self.stream.presentation_now().is_none(),
            _ => false,
        }
    }

    /// How long nothing needs to be looked at.
    fn pause(&self, life: &Life) -> Duration {
        let moving = |pause| self.part.as_ref().map_or(pause, |part| part.pause(pause));
        match life.state {
            State::Metadata | State::Opening | State::Probing | State::Lined { .. } | State::Warming(_) => moving(LOOK),
            State::Ready { complete: true } if !life.asleep && self.stream.watching().0.is_empty() => {
                moving(LOOK_RESTING.min(self.stream.lives.rests))
            }
            State::Ready { .. } if !life.asleep => moving(LOOK_READY),
            State::Ready { .. } if self.lingers => LOOK_RESTING,
            // It is told for how long it has been waiting, and a slot gets free when nobody watches another stream any more.
            State::Queued { .. } if !self.stream.slot.load(Ordering::Acquire) => LOOK_READY,
            State::Ready { .. } => self.end.left(uptime()).min(self.stream.lives.rests).clamp(LOOK_READY, LOOK_OVER),
            State::Queued { .. } | State::Failed(_) => self.end.left(uptime()).clamp(LOOK_READY, LOOK_OVER),
            State::Stopped | State::Expired => self.stream.lives.remembered.min(LOOK_OVER),
        }
    }

    /// The device that it stands for was revoked: another one of the same person that watches takes it over, else it ends.
    async fn outlive_starter(&mut self) -> Option<Event> {
        if let Some(life) = self.stream.take_over(&self.streams.ground.devices) {
            self.starter = life;
            self.save();
            return None;
        }
        // Heard once.
        self.starter = CancellationToken::new();
        Some(Event::Stop)
    }

    async fn happen(&mut self, life: Life, event: Event) -> Life {
        let before = std::mem::discriminant(&life.state);
        let (life, effects) = step(life, event);
        if std::mem::discriminant(&life.state) != before {
            self.since = Instant::now();
            self.came.1 = Instant::now();
            if self.new && matches!(life.state, State::Ready { .. }) {
                self.remember();
                METRICS.became_ready(self.stream.created_at);
            }
            if matches!(life.state, State::Ready { .. }) {
                // Who holds segments keeps them on the disk.
                self.first.clear();
            }
        }
        self.show(&life.state);
        for effect in effects {
            self.carry_out(effect).await;
        }
        if matches!(life.state, State::Stopped | State::Expired) {
            self.stream.released.send_replace(true);
        }
        life
    }

    /// It begins where its person was the last time, unless its viewer has moved it already.
    fn resume(&self, file: usize) {
        let history = &self.streams.ground.history;
        if self.new
            && self.stream.position() == 0.0
            && let Some(seconds) = history.begins_at(&self.stream.person, &(self.stream.magnet.info_hash, file))
        {
            self.stream.position.send_replace(seconds);
        }
    }

    fn remember(&self) {
        if let Some(film) = self.stream.film() {
            self.streams.ground.history.entered(&self.stream.person, self.stream.device(), film, self.stream.position());
        }
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::FindMetadata(epoch) => self.find_metadata(epoch),
            Effect::OpenFilm(epoch) => self.open_film(epoch),
            Effect::AwaitEncoder(epoch) => self.await_encoder(epoch),
            Effect::Reopen(epoch) => self.reopen(epoch),
            Effect::MakeFirstSegments(epoch) => self.make_first_segments(epoch),
            Effect::EndWork => {
                if let Some(work) = self.work.take() {
                    work.abort();
                    // Gone before anything is released: else it could still share a film that nobody would forget.
                    work.await.ok();
                }
            }
            Effect::LeaveQueue => {
                self.encoder = None;
                self.streams.leave_queue(&self.stream.id);
            }
            Effect::Sleep => self.sleep().await,
            Effect::Release => self.release(),
            Effect::Delete => self.delete().await,
            Effect::Save => self.save(),
            Effect::AwaitSaved => saved(&mut self.saving, SAVE_WITHIN).await,
        }
    }

    /// Runs work that ends with this stream, and reports what it found.
    fn work(&mut self, epoch: u32, work: impl Future<Output = Result<Answer, Failure>> + Send + 'static) {
        let (answers, part) = (self.answers.0.clone(), self.part.clone());
        let task = async move {
            let answer = in_time(work.await, part).await.unwrap_or_else(|failure| Answer::Found(epoch, Found::Failure(failure)));
            // The actor may have ended; then nobody wants to know.
            answers.send(answer).ok();
        };
        self.work = Some(AbortOnDropHandle::new(self.streams.ground.tasks.spawn("stream work", task)));
    }

    fn take(&mut self, answer: Answer) -> Option<Event> {
        Some(match answer {
            Answer::Torrent(epoch, torrent, file) => {
                self.stream.seen.send_modify(|seen| {
                    let entry = torrent.files().iter().find(|entry| entry.index == file);
                    seen.view.file_index = Some(file);
                    seen.view.title = entry.map(|entry| entry.name().to_owned());
                    seen.view.total_bytes = entry.map(|entry| entry.length);
                    let name = entry.map_or("film", |entry| entry.name());
                    let direct = format!("/file/{}", url_name(name));
                    if self.stream.options.method == Method::Original {
                        seen.view.stream_url = Some(direct.clone());
                    }
                    seen.view.direct_url = Some(direct);
                });
                self.torrent = Some(torrent);
                self.resume(file);
                Event::Found(epoch, Found::Metadata)
            }
            Answer::Presentation(epoch, presentation) => {
                self.stream.seen.send_modify(|seen| describe(&mut seen.view, &presentation, self.stream.options.burn.as_deref()));
                let (mode, film) = (presentation.plan.mode, &presentation.film);
                let encoder = presentation.video().is_some_and(|video| video.needs_encoder());
                self.times = Some((TimeMap::of(&film.index, film.duration, film.source.len()), None));
                self.stream.presentation.send_replace(Some(presentation));
                Event::Found(epoch, Found::Presentation { mode, encoder })
            }
            Answer::Encoder(epoch, encoder) => {
                self.encoder = encoder;
                Event::Found(epoch, Found::Encoder)
            }
            Answer::First(epoch, segments) => {
                self.first = segments;
                let _ = epoch;
                return None;
            }
            Answer::Found(epoch, found) => Event::Found(epoch, found),
        })
    }

    fn find_metadata(&mut self, epoch: u32) {
        let (ground, magnet, wanted) = (self.streams.ground.clone(), self.stream.magnet.clone(), self.stream.options.file_index);
        let peers = self.found_peers.clone();
        self.work(epoch, async move {
            let torrent =
                ground.torrents.add(&magnet, |found| peers.store(found.peers, Ordering::Relaxed)).await.map_err(torrent_failure)?;
            let file = crate::torrent::choose_film(torrent.files(), wanted).ok_or_else(|| {
                Failure::new(FailureCode::NotPlayable, "There is no film among the files of this torrent; choose another one.")
            })?;
            Ok(Answer::Torrent(epoch, torrent, file))
        });
    }

    fn open_film(&mut self, epoch: u32) {
        let (ground, stream, torrent) = (self.streams.ground.clone(), self.stream.clone(), self.torrent.clone());
        let (answers, file, new) = (self.answers.0.clone(), self.stream.seen.borrow().view.file_index, self.new);
        self.work(epoch, async move {
            let (Some(torrent), Some(file)) = (torrent, file) else {
                return Err(Failure::new(FailureCode::TorrentFailed, "The torrent went away; start it again."));
            };
            let presentation = opened(&ground, &stream, &torrent, file, new, || {
                answers.send(Answer::Found(epoch, Found::NeedsProbe)).ok();
            });
            presentation.await.map(|presentation| Answer::Presentation(epoch, presentation))
        });
    }

    /// Lets go of everything that is open for it, until somebody wants it again. What it shows stays.
    async fn sleep(&mut self) {
        tracing::debug!("nobody watches it: its film is closed");
        self.first.clear();
        *super::lock(&self.stream.playhead) = None;
        (self.torrent, self.times, self.encoder) = (None, None, None);
        self.came = (0, Instant::now());
        self.found_peers.store(0, Ordering::Relaxed);
        self.stream.seen.send_modify(|seen| (seen.view.download_speed, seen.view.upload_speed) = (Some(0), Some(0)));
        self.lingers = true;
        self.close_film().await;
    }

    /// Closes the film and the torrent of a stream that sleeps, as soon as nobody has them any more: other streams that play them, answers
    /// that are still being read.
    async fn close_film(&mut self) {
        if !self.lingers {
            return;
        }
        let (ground, info_hash) = (&self.streams.ground, &self.stream.magnet.info_hash);
        let file = self.stream.seen.borrow().view.file_index;
        let closed = file.is_none_or(|file| ground.workshop.rest(*info_hash, file));
        self.lingers = !(closed && ground.torrents.rest(info_hash).await);
        ground.heap.freed();
    }

    /// Opens the film of a stream that sleeps.
    fn reopen(&mut self, epoch: u32) {
        self.lingers = false;
        self.stream.asleep.store(false, Ordering::Release);
        let (ground, stream, answers) = (self.streams.ground.clone(), self.stream.clone(), self.answers.0.clone());
        let (peers, file) = (self.found_peers.clone(), self.stream.seen.borrow().view.file_index);
        self.work(epoch, async move {
            let found = ground.torrents.add(&stream.magnet, |found| peers.store(found.peers, Ordering::Relaxed));
            let torrent = found.await.map_err(torrent_failure)?;
            let file = file
                .filter(|file| torrent.files().iter().any(|entry| entry.index == *file))
                .ok_or_else(|| Failure::new(FailureCode::TorrentFailed, "The film is not in its torrent any more; start it again."))?;
            answers.send(Answer::Torrent(epoch, torrent.clone(), file)).ok();
            let presentation = opened(&ground, &stream, &torrent, file, false, || {}).await?;
            Ok(Answer::Presentation(epoch, presentation))
        });
    }

    /// Waits for an encoder, or until somebody else's makes what is needed.
    fn await_encoder(&mut self, epoch: u32) {
        let (ground, stream, presentation) = (self.streams.ground.clone(), self.stream.clone(), self.stream.presentation_now());
        self.work(epoch, async move {
            let Some(video) = presentation.and_then(|presentation| presentation.video().cloned()) else {
                return Ok(Answer::Encoder(epoch, None));
            };
            let told = stream.clone();
            let lease = ground.workshop.encoders.for_first_segment(stream.person.clone(), move |place| told.tell(Event::Place(place)));
            let has = tokio::select! {
                () = lease.granted() => true,
                () = video.first_comes() => false,
            };
            Ok(Answer::Encoder(epoch, has.then_some(lease)))
        });
    }

    fn make_first_segments(&mut self, epoch: u32) {
        let (presentation, mut encoder) = (self.stream.presentation_now(), self.encoder.take());
        let (answers, lacks_room) = (self.answers.0.clone(), self.lacks_room.clone());
        lacks_room.store(false, Ordering::Release);
        let mut made_room = self.streams.ground.workshop.segments.budget().made_room();
        let reader = Reader::Start(self.stream.id.clone());
        self.work(epoch, async move {
            let Some(presentation) = presentation else {
                return Err(Failure::new(FailureCode::TorrentFailed, "The film went away; start it again."));
            };
            loop {
                made_room.mark_unchanged();
                let told = |segments| {
                    answers.send(Answer::First(epoch, segments)).ok();
                };
                let made = first_segments(&presentation, &reader, encoder.take(), told).await;
                let full = made.as_ref().err().is_some_and(is_full);
                lacks_room.store(full, Ordering::Release);
                if !full {
                    made.map_err(|error| segment_failure(&error))?;
                    break;
                }
                tracing::info!("there is no room for the first segment: it is waited for");
                tokio::time::sleep(ROOM_AGAIN / 5).await;
                tokio::time::timeout(ROOM_AGAIN, made_room.changed()).await.ok();
            }
            Ok(Answer::Found(epoch, Found::FirstSegments))
        });
    }

    /// Looks at what moves by itself: time, bytes, the torrent's health.
    fn look(&mut self, life: &Life) -> Option<Event> {
        let state = &life.state;
        if state.is_over() {
            let long_gone = matches!(state, State::Failed(_)) && self.end.left(uptime()).is_zero();
            return long_gone.then_some(Event::Expire);
        }
        if self.end.left(uptime()).is_zero() && !self.stream.is_watched() {
            return Some(Event::Expire);
        }
        if matches!(state, State::Queued { .. }) {
            self.streams.settle();
        }
        if !life.asleep && self.may_sleep(state) && self.stream.fall_asleep(self.stream.lives.rests) {
            return Some(Event::Rest);
        }
        if self.stream.is_idle_for(IDLE_PLAYHEAD) && matches!(state, State::Ready { .. }) {
            *super::lock(&self.stream.playhead) = None;
        }
        let stats = self.stats()?;
        if let Some(error) = stats.error {
            return Some(Event::Broke(source_failure(&error)));
        }
        if stats.downloaded != self.came.0 {
            self.came = (stats.downloaded, Instant::now());
        }
        if stats.total > 0 && stats.downloaded >= stats.total && *state == (State::Ready { complete: false }) {
            return Some(Event::Complete);
        }
        let is_ready = matches!(state, State::Ready { .. });
        if !is_ready {
            // Somebody waits for it.
            self.stream.source.borrow().iter().for_each(Source::touch);
        }
        if *self.paused.borrow() || self.lacks_room.load(Ordering::Acquire) || (stats.state == TorrentState::Full && !is_ready) {
            // Nothing is expected to come.
            self.came.1 = Instant::now();
        }
        let waiting = !matches!(state, State::Ready { .. });
        if waiting && stats.downloaded < stats.total && self.came.1.elapsed() > self.streams.ground.live.borrow().stall_timeout {
            let detail = "Not a byte came for a long time. Try again later, or choose a release that more people have.";
            return Some(Event::Broke(Failure::new(FailureCode::NoPeers, detail)));
        }
        None
    }

    /// Whether nothing of its film is to come, and has not been for a while. The mock has nothing that could be closed.
    fn may_sleep(&self, state: &State) -> bool {
        let at_rest = *state == (State::Ready { complete: true }) && self.part.is_none() && self.stream.presentation_now().is_some();
        let Some((torrent, file)) = self.torrent.as_ref().zip(self.stream.seen.borrow().view.file_index).filter(|_| at_rest) else {
            return false;
        };
        let stats = torrent.stats(file);
        let comes = stats.downloaded < stats.total && torrent.is_fetched(file);
        !comes && self.came.0 == stats.downloaded && self.came.1.elapsed() >= self.stream.lives.rests
    }

    /// How the film's torrent is doing, once it is known.
    fn stats(&self) -> Option<TorrentStats> {
        let file = self.stream.seen.borrow().view.file_index?;
        let stats = self.torrent.as_ref()?.stats(file);
        Some(match &self.part {
            Some(part) => part.stats(stats),
            None => stats,
        })
    }

    /// Projects the state and the moving numbers into what the phone sees.
    fn show(&mut self, state: &State) {
        let stats = self.stats();
        let fetched = stats.as_ref().and_then(|stats| self.newly_fetched(stats.downloaded));
        let peers = match &stats {
            Some(stats) => stats.peers,
            None => self.part.as_ref().map_or_else(|| self.found_peers.load(Ordering::Relaxed), Part::peers),
        };
        let speed = stats.as_ref().map_or(0, |stats| stats.download_speed);
        // What comes and is wrong does not count.
        let comes = speed > 0 && self.came.1.elapsed() < NONE_RIGHT;
        let starved = stats.as_ref().is_some_and(|stats| stats.downloaded < stats.total && !comes);
        let ready = matches!(state, State::Ready { .. });
        let since = if ready { self.came.1 } else { self.since };
        let paused = *self.paused.borrow();
        let lacks_room = matches!(state, State::Warming(_)) && self.lacks_room.load(Ordering::Acquire);
        let full = lacks_room || stats.as_ref().is_some_and(|stats| stats.state == TorrentState::Full);
        if peers > 0 {
            self.met = Some(Instant::now());
        }
        let in_company = self.met.is_some_and(|met| met.elapsed() < COMPANY);
        let presentation = self.stream.presentation_now();
        let pictures = presentation.iter().flat_map(|presentation| &presentation.pictures);
        let encoder = pictures.filter_map(|picture| picture.waits_for_encoder()).min();
        // Too slow by itself, and not because it waits for bytes: they come faster than they are shown.
        let fed = presentation.as_ref().is_some_and(|presentation| {
            let film = &presentation.film;
            let complete = stats.as_ref().is_some_and(|stats| stats.downloaded >= stats.total);
            complete || speed as f64 * film.duration > film.source.len() as f64
        });
        let pictures = presentation.iter().flat_map(|presentation| &presentation.pictures);
        let slow = pictures
            .filter_map(|picture| picture.too_slow())
            .fold(None, |least: Option<f64>, ratio| Some(least.map_or(ratio, |least| least.min(ratio))));
        let moving = Moving {
            slow: slow.filter(|_| fed && ready).map(|ratio| (ratio * 100.0) as u64),
            seconds: since.elapsed().as_secs(),
            peers: peers.max(usize::from(in_company)),
            speed,
            starved: starved || lacks_room,
            encoder: encoder.map(|since| since.elapsed().as_secs()),
            behind: self.stream.waits_for_conversion().map(|time| time.as_secs()),
            asleep: self.stream.asleep.load(Ordering::Acquire),
            paused,
            full,
            first: self.first_bytes(),
        };
        // A film that has left to make room is not here as a whole any more.
        let left = *state == (State::Ready { complete: true })
            && (stats.as_ref().is_some_and(|stats| stats.downloaded < stats.total) || moving.asleep && self.has_left_asleep());
        let shown = if left { &State::Ready { complete: false } } else { state };
        let words = match &self.part {
            Some(part) => part.words(state, moving),
            None => view::words(shown, &moving),
        };
        let left_asleep = left && stats.is_none();
        let watching = if state.is_over() { Vec::new() } else { self.stream.watching().0 };
        let changed = self.stream.seen.send_if_modified(|seen| {
            let mut next = seen.clone();
            next.state = state.clone();
            next.watching = watching;
            let view = &mut next.view;
            view.status = words.status;
            view.phase = words.phase;
            view.progress =
                if matches!(words.status, Status::Error | Status::Stopped) { view.progress } else { view.progress.max(words.progress) };
            view.eta = words.eta;
            view.message = words.message;
            view.message_key = words.key;
            view.message_params = words.params;
            view.queue_position = match state {
                State::Queued { place } => Some(*place),
                State::Lined { place, .. } => *place,
                _ => None,
            };
            view.expires_at = self.end.told.to_string();
            view.position = self.stream.position();
            if state.is_over() {
                (view.download_speed, view.upload_speed, view.peers, view.fetched) = (None, None, None, None);
            } else {
                view.peers = Some(peers);
                view.fetched = fetched.or(view.fetched.take());
            }
            if let (Some(stats), false) = (&stats, state.is_over()) {
                view.download_speed = Some(stats.download_speed);
                view.upload_speed = Some(stats.upload_speed);
                view.downloaded_bytes = Some(stats.downloaded);
                view.total_bytes = Some(stats.total);
                let percent = stats.downloaded as f64 * 100.0 / stats.total.max(1) as f64;
                view.download_progress = Some((percent * 10.0).floor() / 10.0);
            }
            if left_asleep {
                (view.downloaded_bytes, view.download_progress, view.fetched) = (Some(0), Some(0.0), Some(Vec::new()));
            }
            view.error = if let State::Failed(failure) = state { Some(ErrorView::from(failure)) } else { None };
            let changed = next != *seen;
            *seen = next;
            changed
        });
        if changed {
            self.stream.moved();
        }
    }

    /// Whether the film was given up for another one's sake while it slept.
    fn has_left_asleep(&self) -> bool {
        let file = self.stream.seen.borrow().view.file_index;
        file.is_some_and(|file| !self.streams.ground.torrents.holds(&self.stream.magnet.info_hash, file))
    }

    /// The spans of the film that are here, where they are others than at the last look.
    fn newly_fetched(&mut self, downloaded: u64) -> Option<Vec<[f64; 2]>> {
        let file = self.stream.seen.borrow().view.file_index?;
        let torrent = self.torrent.as_ref()?;
        let (times, looked) = self.times.as_mut()?;
        // Taken first: what comes while we look is looked at again.
        let change = torrent.change(downloaded);
        (looked.replace(change) != Some(change)).then(|| times.spans(&torrent.fetched(file, downloaded)))
    }

    fn first_bytes(&self) -> Option<(u64, u64)> {
        let presentation = self.stream.presentation_now()?;
        let ranges: Vec<_> = self.first.iter().flat_map(Segment::film_ranges).collect();
        let all: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let source = &presentation.film.source;
        let have = ranges.into_iter().map(|range| source.available_from(range.start, range.end - range.start)).sum();
        (all > 0).then_some((have, all))
    }

    /// Lets go of the film and of what was made of it, unless another stream plays it.
    fn release(&mut self) {
        self.first.clear();
        *super::lock(&self.stream.playhead) = None;
        self.stream.source.send_replace(None);
        self.stream.presentation.send_replace(None);
        let Some(file) = self.stream.seen.borrow().view.file_index else { return };
        let (_, film_needed) = self.streams.others_need(&self.stream.id, &self.stream.magnet, Some(file));
        if !film_needed {
            self.streams.ground.workshop.forget(self.stream.magnet.info_hash, file);
            self.streams.ground.heap.freed();
            // A stream that has failed keeps its bytes, but nothing more is fetched for it.
            self.torrent.iter().for_each(|torrent| torrent.release(file));
        }
    }

    /// Deletes the torrent with its bytes, or the film's file of it, as far as no other stream needs them.
    async fn delete(&mut self) {
        self.streams.ground.downloads.forget(self.stream.id.as_str());
        let (ground, magnet) = (&self.streams.ground, &self.stream.magnet);
        let file = self.stream.seen.borrow().view.file_index;
        let (torrent_needed, film_needed) = self.streams.others_need(&self.stream.id, magnet, file);
        let torrent = self.torrent.take();
        if !torrent_needed {
            ground.torrents.forget(&magnet.info_hash).await;
            if let Err(error) = ground.store.delete_torrent(&magnet.info_hash.to_string()).await {
                tracing::warn!(%error, "a torrent could not be forgotten");
            }
        } else if let (Some(torrent), Some(file), false) = (torrent, file, film_needed) {
            torrent.release(file);
        }
        if torrent_needed {
            // Those who need it may all be asleep.
            self.lingers = true;
            self.close_film().await;
        }
    }

    /// Writes the stream down, one state after the other, while life goes on.
    fn save(&mut self) {
        let row = self.stream.row(self.end.told);
        let over = row.stopped_at.is_some();
        let torrent = (!over).then(|| self.torrent_row(row.file_index));
        let (before, store, stream) = (self.saving.take(), self.streams.ground.store.clone(), self.stream.clone());
        std::mem::take(&mut self.newer).cancel();
        let newer = self.newer.clone();
        // Not cut off when the server ends: the last state is the one that counts.
        let saving = self.streams.ground.tasks.spawn_ending("save stream", |end| async move {
            if let Some(before) = before {
                before.await.ok();
            }
            let mut pause = SAVE_AGAIN.0;
            while let Err(error) = write_down(&store, &stream, &row, torrent.as_ref()).await {
                tracing::error!(%error, stream = %stream.id, "a stream could not be written down; it is tried again in {pause:?}");
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(SAVE_AGAIN.1),
                    // That one writes what is true by then.
                    () = newer.cancelled() => return,
                    () = end.cancelled() => return,
                }
            }
        });
        self.saving = Some(saving);
    }

    fn torrent_row(&self, file: Option<u32>) -> TorrentRow {
        let magnet = &self.stream.magnet;
        let named = || (magnet.trackers.clone(), magnet.peers.clone());
        let (trackers, peers) = self.torrent.as_ref().map(Torrent::kept).map_or_else(named, |kept| (kept.trackers, kept.peers));
        let (info_hash, name) = (magnet.info_hash.to_string(), magnet.name.clone());
        TorrentRow { info_hash, name, trackers, peers, selected: file.into_iter().collect() }
    }
}

/// Waits until everything is written down, but not for ever on a disk that does not take it.
async fn saved(saving: &mut Option<JoinHandle<End>>, limit: Duration) {
    if let Some(mut writing) = saving.take()
        && tokio::time::timeout(limit, &mut writing).await.is_err()
    {
        *saving = Some(writing);
    }
}

/// Writes a stream and its torrent down.
async fn write_down(store: &Store, stream: &Stream, row: &StreamRow, torrent: Option<&TorrentRow>) -> Result<(), StoreError> {
    if store.save_stream(row).await? {
        stream.kept.send_replace(true);
    } else {
        tracing::debug!(stream = %stream.id, "a stream of a device that is gone is not written down");
    }
    match torrent {
        Some(torrent) => store.save_torrent(torrent).await,
        None => Ok(()),
    }
}

/// What a stream plays, from its film, which may wait for room unless it is a `new` one's; `probes` is told when that has to be found out
/// by ffprobe. The torrent goes on from the film's start meanwhile.
async fn opened(
    ground: &Arc<Ground>,
    stream: &Arc<Stream>,
    torrent: &Torrent,
    file: usize,
    new: bool,
    probes: impl FnOnce() + Send,
) -> Result<Arc<Presentation>, Failure> {
    let source = if new { torrent.film(file).await } else { torrent.film_again(file).await }.map_err(torrent_failure)?;
    stream.source.send_replace(Some(source.clone()));
    let mut ahead = source.cursor(0);
    ahead.hold();
    let film = match ground.workshop.film(stream.magnet.info_hash, file) {
        Some(film) => film,
        None => {
            let film = match read_index(&source).await {
                Ok(tables) => Film::new(stream.magnet.info_hash, file, source, tables, 0),
                Err(OpenError::Source(error)) => return Err(source_failure(&error)),
                Err(OpenError::NoIndex(damage)) => {
                    tracing::debug!(%damage, "no index of ours");
                    probes();
                    let pause = ground.torrents.paused();
                    film_from_probe(&ground.workshop, stream.magnet.info_hash, file, source, pause).await?
                }
            };
            ground.workshop.share(film)
        }
    };
    if film.index.video().is_none() && film.index.audio().next().is_none() {
        return Err(Failure::new(FailureCode::NotPlayable, "The file holds neither pictures nor sound; choose another one."));
    }
    if film.duration <= 0.0 {
        return Err(Failure::new(
            FailureCode::NotPlayable,
            "How long the film is cannot be found out; its file may be cut off. Choose another release.",
        ));
    }
    let cuttable = film.copy.as_ref().map(|_| ()).map_err(|why| *why);
    let sent = match ground.store.subtitles(stream.id.as_str(), file).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(%error, "the subtitles that were sent are not known");
            Vec::new()
        }
    };
    let sources = subtitles::Sources { film: &film, torrent, file, sent: &sent, workshop: &ground.workshop };
    let (drawing, undrawn) = match &stream.options.burn {
        Some(id) => sources.drawing(id).await.map_or_else(|why| (None, Some(why)), |drawing| (Some(drawing), None)),
        None => (None, None),
    };
    let plan = plan::decide(&film.index, &stream.options.capabilities, stream.options.quality, drawing.is_some(), cuttable);
    let converts = ground.workshop.tools.choice.wanted() != Wanted::Off;
    if plan.mode == Mode::Convert && !converts {
        return Err(not_converted(&plan.why));
    }
    let rungs = match stream.seen.borrow().view.rungs.clone() {
        _ if !converts => Vec::new(),
        Some(kept) => kept.into_iter().map(|(width, height)| Size { width, height }).collect(),
        None => film::rungs(&film, &plan, stream.options.quality, stream.options.capabilities.max_height, &ground.workshop),
    };
    let mut presentation = Presentation::new(film, plan, drawing.as_ref(), &rungs, &ground.workshop);
    presentation.undrawn = undrawn;
    presentation.text.add_beside(torrent, file);
    presentation.text.add_kept(sent);
    *super::lock(&stream.playhead) = Some(super::Playhead { segment: 0, cursor: ahead });
    Ok(Arc::new(presentation))
}

/// What would have to be converted on a server that converts no pictures.
fn not_converted(why: &Why) -> Failure {
    let advice = match why {
        Why::Quality { .. } => "Ask for the quality \"source\"",
        Why::Burn => "Start it without subtitles that are drawn into the picture",
        _ => "Choose another release, or play the file itself in a player of your own",
    };
    Failure::new(
        FailureCode::NotPlayable,
        format!("It would have to be converted, which is switched off on this server (--encoder off). {why}. {advice}."),
    )
}

/// Lets the first segments of picture and sound be made, and waits until they are here; `told` is told of them once they have begun.
async fn first_segments(
    presentation: &Presentation,
    reader: &Reader,
    mut encoder: Option<Lease>,
    told: impl FnOnce(Vec<Segment>) + Send,
) -> Result<(), SegmentError> {
    let audio = presentation.audio.get(presentation.default_audio());
    let renditions: Vec<_> = presentation.video().into_iter().chain(audio).cloned().collect();
    let mut segments = Vec::new();
    for rendition in &renditions {
        // The picture comes first, and the encoder is for it.
        segments.extend(rendition.first_segment(reader, encoder.take()).await?);
    }
    told(segments.clone());
    let source = &presentation.film.source;
    for (rendition, segment) in renditions.iter().zip(segments) {
        rendition.whole_first(reader, segment.clone()).await?;
        rendition.init().await?;
        for range in segment.film_ranges() {
            source.wait_available(range).await?;
        }
    }
    Ok(())
}

/// Whether there was no room to write it.
fn is_full(error: &SegmentError) -> bool {
    use std::io::ErrorKind;
    matches!(error, SegmentError::Cache(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

fn describe(view: &mut StreamView, presentation: &Presentation, burn: Option<&str>) {
    let film = &presentation.film;
    let (why, key) = view::why(&presentation.plan.why);
    view.mode = Some(presentation.plan.mode.name().to_owned());
    view.burn = burn.filter(|_| presentation.plan.draws).map(str::to_owned);
    view.why = Some(match &presentation.undrawn {
        Some(undrawn) => format!("{why}. No subtitles are drawn into it: {undrawn}"),
        None => why,
    });
    view.why_key = Some(key);
    let encoded = presentation.pictures.iter().filter(|picture| picture.is_encoded()).filter_map(|picture| picture.resolution);
    view.rungs = Some(encoded.map(|size| (size.width, size.height)).collect());
    view.duration = (film.duration > 0.0).then_some((film.duration * 1000.0).round() / 1000.0);
    view.video = film.index.video().map(video_view);
    let audio = film.index.audio().enumerate().map(|(at, track)| audio_view(at, track, at == presentation.default_audio()));
    view.audio = Some(audio.collect());
    view.subtitles = Some(presentation.text.views());
}

fn video_view(track: &Track) -> VideoView {
    let picture = track.video.clone().unwrap_or_default();
    let frame_rate = picture.frame_rate.map(|rate| (rate * 1000.0).round() / 1000.0);
    VideoView {
        codec: track.codec.name().to_owned(),
        width: picture.width,
        height: picture.height,
        frame_rate,
        hdr: picture.hdr,
        bitrate: track.bitrate,
    }
}

fn audio_view(at: usize, track: &Track, default: bool) -> AudioView {
    let told = track.audio.as_ref().map_or(0, |sound| sound.channels);
    let channels =
        if track.codec == Codec::Aac { codec::aac::describe(&track.config).map_or(told, |what| what.sound.channels) } else { told };
    AudioView {
        id: format!("a{}", at + 1),
        codec: track.codec.name().to_owned(),
        language: track.language.clone(),
        title: track.title.clone(),
        channels,
        default,
    }
}

/// A file's name as one path segment of a URL.
pub(crate) fn url_name(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A film whose container has no index of ours, as ffprobe sees it.
async fn film_from_probe(
    workshop: &Workshop,
    info_hash: InfoHash,
    file: usize,
    source: Source,
    mut pause: watch::Receiver<bool>,
) -> Result<Film, Failure> {
    let probed = loop {
        pause.mark_unchanged();
        let probed = probe::probe(&workshop.tools, source.clone(), PROBE_WAIT).await;
        // What was late because of a pause has all its time again after it.
        let paused = *pause.borrow() || pause.has_changed().unwrap_or(false);
        match probed {
            Err(ProbeError::Late) if paused => pause.wait_for(|paused| !*paused).await.map_or((), drop),
            probed => break probed.map_err(probe_failure)?,
        }
    };
    let end_byte = source.len();
    let index = Index { container: Container::Other, duration: probed.duration, tracks: probed.tracks, first_byte: 0, end_byte };
    Ok(Film::new(info_hash, file, source, Tables { index, fragments: None }, probed.start_us))
}

fn probe_failure(error: ProbeError) -> Failure {
    tracing::info!(%error, "a file could not be looked at");
    match error {
        ProbeError::Source(error) => source_failure(&error),
        ProbeError::Refused { .. } | ProbeError::Unreadable => {
            Failure::new(FailureCode::NotPlayable, "The file cannot be read as a film; choose another one.")
        }
        ProbeError::Late => Failure::new(FailureCode::ConversionFailed, "Looking at the file with ffprobe took too long. Start it again."),
        ProbeError::Start(_) => {
            Failure::new(FailureCode::ConversionFailed, "ffprobe could not be started. Install ffmpeg, or say where it is with --ffprobe.")
        }
    }
}

pub(crate) fn torrent_failure(error: TorrentError) -> Failure {
    let (code, advice) = match &error {
        TorrentError::NoPeers { .. } => (FailureCode::NoPeers, "Try again later, or choose a release that more people have."),
        TorrentError::Unsafe(_) => (FailureCode::UnsafeTorrent, "Choose another release."),
        TorrentError::NoSpace { .. } => (FailureCode::NoSpace, "Make room or stop another stream, then start it again."),
        TorrentError::NothingPlayable => (FailureCode::NotPlayable, "Choose another release."),
        TorrentError::Gone | TorrentError::Failed(_) => (FailureCode::TorrentFailed, "Start it again."),
    };
    let sentence = capital(error.to_string());
    Failure::new(code, format!("{}. {advice}", sentence.trim_end_matches('.')))
}

fn capital(mut sentence: String) -> String {
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    sentence
}

/// What a person reads when the film's bytes stop coming.
pub fn source_failure(error: &SourceError) -> Failure {
    match error {
        SourceError::NoSpace => {
            Failure::new(FailureCode::NoSpace, "The disk is full. Make room or stop another stream, then start it again.")
        }
        other => Failure::new(FailureCode::TorrentFailed, format!("{}. Start it again.", capital(other.to_string()))),
    }
}

pub(crate) fn segment_failure(error: &SegmentError) -> Failure {
    match error {
        SegmentError::Source(error) => source_failure(error),
        full if is_full(full) => source_failure(&SourceError::NoSpace),
        other => {
            let sentence = capital(other.to_string());
            Failure::new(FailureCode::ConversionFailed, format!("{sentence}. Start it again, or choose another quality."))
        }
    }
}
