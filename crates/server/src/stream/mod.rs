//! The life of a stream: what can happen to it ([`state`]), who makes it happen ([`actor`]) and what the phone sees of it ([`view`]).
//! Here stand the streams themselves: found by those they exist for, and by nobody else.

pub mod actor;
mod epitaph;
pub mod lives;
pub mod queue;
mod shelf;
pub mod state;
pub mod view;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use balcony_media::device::Capabilities;
use balcony_media::ladder::Quality;
use balcony_media::magnet::{InfoHash, Magnet};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::actor::Beginning;
use self::epitaph::Epitaph;
use self::lives::{Lifetime, Lives, uptime};
use self::queue::{Entrance, Full, Limits, Slots};
use self::shelf::Shelf;
use self::state::{Event, State};
use self::view::{DownloadView, Named, Saved, StreamView};
use crate::download::{self, Downloads};
use crate::film::Presentation;
use crate::heap::Heap;
use crate::history::{self, History};
use crate::lock::lock;
use crate::metrics::Making;
use crate::produce::Workshop;
use crate::produce::worker::Reader;
use crate::segments::DEADLINE;
use crate::settings::Live;
use crate::source::{Cursor, Source};
use crate::store::{Store, StoreError, StreamRow};
use crate::swarm::Swarm;
use crate::tasks::Tasks;
use crate::trust::ticket::TicketKey;
use crate::trust::{DeviceId, Devices, Holder, PersonId, StreamId, Ticket, TicketKeys};

/// A device is watching that asked for something to see within this time.
pub const WATCHING: Duration = Duration::from_secs(60);
/// A player that asked for a segment in vain and asks no more within this time does not wait for it. Longer than a request may wait.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// A wait for a conversion is told from here on.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// How often it is looked whether new streams need a new ticket key.
const KEYS_PACE: Duration = Duration::from_secs(3600);
/// How many streams of an earlier run begin again at once.
const WAKING: usize = 16;
/// How long a start waits for the disk.
const KEPT_WITHIN: Duration = Duration::from_secs(2);
/// The fact in the store that tells whether everything is paused.
const PAUSED: &str = "paused";

/// Which URL `streamUrl` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the API's own words
pub enum Method {
    #[default]
    Auto,
    Hls,
    Dash,
    Original,
}

/// What was asked for at the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// The cap of the picture.
    pub quality: Quality,
    /// The file that was named.
    pub file_index: Option<usize>,
    /// What the client plays.
    pub capabilities: Capabilities,
    /// Which URL to give.
    pub method: Method,
    /// The subtitle track to draw into the picture.
    pub burn: Option<String>,
}

/// What all streams stand on.
pub struct Ground {
    /// Torrents.
    pub torrents: Arc<Swarm>,
    /// Production of segments.
    pub workshop: Arc<Workshop>,
    /// What is kept over a restart.
    pub store: Arc<Store>,
    /// What was watched.
    pub history: Arc<History>,
    /// Who owns their tasks.
    pub tasks: Tasks,
    /// Cancelled when the doors close: what is told for as long as anybody listens ends then, and keeps no door open.
    pub closing: CancellationToken,
    /// How tickets are made.
    pub keys: TicketKeys,
    /// Whose they are.
    pub devices: Arc<Devices>,
    /// How long a stream lives, and how long it waits for bytes.
    pub live: watch::Receiver<Live>,
    /// How long things count.
    pub lives: Lives,
    /// How many streams may wait, and how many need not.
    pub limits: Limits,
    /// Films to keep.
    pub downloads: Arc<Downloads>,
    /// What gives free memory back.
    pub heap: Arc<Heap>,
}

/// One stream.
pub struct Stream {
    /// Its name in URLs.
    pub id: StreamId,
    /// Whose it is.
    pub person: PersonId,
    /// What is streamed.
    pub magnet: Magnet,
    /// What was asked for.
    pub options: Options,
    /// When it was started.
    pub created_at: Timestamp,
    /// Who started it, or has taken it over.
    device: Mutex<DeviceId>,
    /// What its tickets are made with, for life.
    key: Arc<TicketKey>,
    seen: watch::Sender<Seen>,
    /// The film's bytes, as soon as its torrent is known.
    source: watch::Sender<Option<Source>>,
    presentation: watch::Sender<Option<Arc<Presentation>>>,
    events: mpsc::UnboundedSender<Event>,
    /// Who may be told of which devices.
    devices: Arc<Devices>,
    /// Of all streams: that something changed.
    moves: watch::Sender<u64>,
    /// Whether it is written down, and so comes back after a crash.
    kept: watch::Sender<bool>,
    /// Whether it is over and everything that only it needed is gone.
    released: watch::Sender<bool>,
    /// Where its viewer is, in seconds.
    position: watch::Sender<f64>,
    /// When something of it was last asked for.
    watched: Mutex<Watched>,
    /// Of pictures and of sound: what ffmpeg is late with.
    behind: Mutex<[Behind; 2]>,
    /// Which of the pictures each reader saw last.
    looks: Mutex<HashMap<Reader, usize>>,
    /// Where its viewer is, held so that the torrent fetches what comes next.
    playhead: Mutex<Option<Playhead>>,
    /// It was given a slot of its device.
    slot: AtomicBool,
    /// It is ready, and its film is not open. Set with `watched` held, so that nobody who wants it is overheard.
    asleep: AtomicBool,
    /// How long things count.
    lives: Lives,
}

/// When something of a stream was last asked for, and by whom.
#[derive(Default)]
struct Watched {
    last: Option<Instant>,
    by: HashMap<DeviceId, Instant>,
}

/// What is waited for of pictures or of sound that ffmpeg makes.
#[derive(Default)]
struct Behind {
    /// Since when no segment that was asked for came.
    since: Option<Instant>,
    /// When one was last asked for, or given up.
    asked: Option<Instant>,
}

/// Where a viewer is in the film's file.
struct Playhead {
    segment: u32,
    cursor: Cursor,
}

/// What a stream shows, without its URLs (they depend on who looks, and where the client came in).
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Where it stands.
    pub state: State,
    /// The object; in place of URLs, what stands behind the ticket, and nobody's name.
    pub view: StreamView,
    /// The devices that are watching.
    pub watching: Vec<DeviceId>,
}

/// A device that looks at a stream by a ticket.
#[derive(Clone)]
pub struct Viewing {
    /// What it looks at.
    pub stream: Arc<Stream>,
    /// Who looks.
    pub holder: Holder,
}

impl Viewing {
    /// It asked for something to see.
    pub fn touch(&self) {
        self.stream.touch(&self.holder.device);
    }
}

impl Stream {
    /// The object that the API answers to this device; `base` is the scheme, host and port by which the client came in.
    pub fn view(&self, base: &str, viewer: &Holder) -> StreamView {
        let ticket = Ticket::issue(&self.key, &viewer.device, &self.id);
        let Seen { view, watching, .. } = self.seen.borrow().clone();
        let mut view = behind(view, &format!("{base}/m/{}", ticket.as_str()));
        let named = |device: &DeviceId| Some(Named { id: device.to_string(), name: self.devices.name_for(device, viewer)? });
        view.watching = watching.iter().filter_map(named).collect();
        view.device = named(&self.device());
        let person = if viewer.admin { self.devices.person_name(&self.person) } else { None };
        view.person = person.map(|name| Named { id: self.person.to_string(), name });
        view
    }

    /// The devices that are watching, and when the first of them will have stopped unless it asks again.
    pub fn watching(&self) -> (Vec<DeviceId>, Option<Instant>) {
        let watched = lock(&self.watched);
        let now = Instant::now();
        let those = watched.by.iter().filter(|(_, at)| now.duration_since(**at) < WATCHING);
        let (mut devices, ends): (Vec<_>, Vec<_>) = those.map(|(device, at)| (device.clone(), *at + WATCHING)).unzip();
        devices.sort();
        (devices, ends.into_iter().min())
    }

    /// Who started it, or has taken it over.
    pub fn device(&self) -> DeviceId {
        lock(&self.device).clone()
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.seen.borrow().state.clone()
    }

    /// Name of the file that is played, once it is known.
    pub fn title(&self) -> Option<String> {
        self.seen.borrow().view.title.clone()
    }

    /// How the making of its file to keep goes; in place of its URL, what stands behind the ticket.
    pub fn downloads(&self, view: Option<DownloadView>) {
        let changed = self.seen.send_if_modified(|seen| std::mem::replace(&mut seen.view.download, view.clone()) != view);
        if changed {
            self.moved();
        }
    }

    /// Wakes at each change.
    pub fn changes(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Waits until it is written down: from then on it comes back after a crash. A disk that does not write in time is no reason to refuse.
    pub async fn kept(&self) {
        let mut kept = self.kept.subscribe();
        let wait = tokio::time::timeout(KEPT_WITHIN, kept.wait_for(|kept| *kept));
        if wait.await.is_err() {
            tracing::warn!(stream = %self.id, "a stream is not written down yet");
        }
    }

    /// Waits until it is ready or over, but not longer than a start may wait.
    pub async fn settled(&self) {
        let mut changes = self.changes();
        let settled = changes.wait_for(|seen| seen.state.is_over() || matches!(seen.state, State::Ready { .. }));
        tokio::time::timeout(KEPT_WITHIN, settled).await.ok();
    }

    /// Waits until it is over and everything that only it needed is gone.
    pub async fn released(&self) {
        // The sender lives as long as the stream does.
        self.released.subscribe().wait_for(|released| *released).await.ok();
    }

    /// Where its viewer is, in seconds.
    pub fn position(&self) -> f64 {
        *self.position.borrow()
    }

    /// Its viewer is somewhere else now; written down by its task.
    pub fn move_to(&self, seconds: f64) {
        self.position.send_replace(seconds);
        self.tell(Event::Moved);
    }

    /// Something happened to it.
    pub fn tell(&self, event: Event) {
        // A stream whose actor has ended is over: nothing can happen to it.
        self.events.send(event).ok();
    }

    /// What its addresses under a ticket begin with, for this device; `base` is as in [`Stream::view`].
    pub fn media(&self, base: &str, viewer: &Holder) -> String {
        format!("{base}/m/{}", Ticket::issue(&self.key, &viewer.device, &self.id).as_str())
    }

    /// What it shows of its subtitles.
    pub fn subtitles(&self) -> Vec<view::SubtitleView> {
        self.seen.borrow().view.subtitles.clone().unwrap_or_default()
    }

    /// Its subtitles are these now; written down by its task.
    pub fn has_subtitles(&self, those: Vec<view::SubtitleView>) {
        self.seen.send_modify(|seen| seen.view.subtitles = Some(those));
        self.moved();
        self.tell(Event::Moved);
    }

    /// What is played, waiting for it as long as a request may wait.
    pub async fn presentation(&self) -> Option<Arc<Presentation>> {
        once_known(&self.presentation).await
    }

    /// The film's bytes, waiting for them to be known as long as a request may wait.
    pub async fn source(&self) -> Option<Source> {
        once_known(&self.source).await
    }

    /// What is played, if that is known.
    pub fn presentation_now(&self) -> Option<Arc<Presentation>> {
        self.presentation.borrow().clone()
    }

    /// The film, as it is remembered, once it is known which one it is.
    pub fn film(&self) -> Option<history::Film> {
        let seen = self.seen.borrow();
        let (file, title, duration) = (seen.view.file_index?, seen.view.title.clone()?, seen.view.duration);
        Some(history::Film { key: (self.magnet.info_hash, file), title, magnet_link: self.magnet.to_link(), duration })
    }

    /// Somebody wants it: it need not wait for those of an earlier run of whom nobody asks anything.
    fn wake(&self) {
        if self.asleep.load(Ordering::Acquire) {
            self.tell(Event::Wanted);
        } else if self.slot.load(Ordering::Acquire) && matches!(self.seen.borrow().state, State::Queued { .. }) {
            self.tell(Event::Turn);
        }
    }

    /// Whether it takes one of its device's slots: it is not ready yet, or watched.
    fn holds_slot(&self) -> bool {
        let state = self.state();
        match state {
            State::Ready { .. } => self.is_watched(),
            state => !state.is_over() && self.slot.load(Ordering::Acquire),
        }
    }

    /// Somebody asks for a segment that ffmpeg makes.
    pub fn awaits(&self, making: Making) {
        let now = Instant::now();
        self.change_behind(making, |behind| {
            // A player that was late with something and went elsewhere does not wait any more.
            if behind.asked.is_none_or(|asked| now.duration_since(asked) > FORGOTTEN) {
                behind.since = None;
            }
            behind.since.get_or_insert(now);
            behind.asked = Some(now);
        });
    }

    /// Such a segment came, or was not there in time.
    pub fn came(&self, making: Making, in_time: bool) {
        self.change_behind(making, |behind| {
            behind.asked = Some(Instant::now());
            if in_time {
                behind.since = None;
            }
        });
    }

    fn change_behind(&self, making: Making, change: impl FnOnce(&mut Behind)) {
        let [pictures, sound] = &mut *lock(&self.behind);
        change(match making {
            Making::Convert => pictures,
            Making::ConvertAudio => sound,
        });
    }

    /// For how long somebody has been waiting for ffmpeg, where that is long enough to be told.
    pub fn waits_for_conversion(&self) -> Option<Duration> {
        let behind = lock(&self.behind);
        let asked = behind.iter().filter(|behind| behind.asked.is_some_and(|asked| asked.elapsed() < FORGOTTEN));
        asked.filter_map(|behind| Some(behind.since?.elapsed())).max().filter(|time| *time >= TOLD_AFTER)
    }

    /// This device asked for something of it.
    pub fn touch(&self, viewer: &DeviceId) {
        let now = Instant::now();
        let came = {
            let mut watched = lock(&self.watched);
            watched.last = Some(now);
            match watched.by.get_mut(viewer) {
                Some(at) => now.duration_since(std::mem::replace(at, now)) >= WATCHING,
                None => {
                    // Whoever has stopped watching is forgotten when the next one comes.
                    watched.by.retain(|_, at| now.duration_since(*at) < self.lives.watched);
                    watched.by.insert(viewer.clone(), now);
                    true
                }
            }
        };
        // Only now: it may have been about to fall asleep.
        self.wake();
        self.source.borrow().iter().for_each(Source::touch);
        if came {
            self.moved();
            self.tell(Event::Wanted);
        }
    }

    /// Tells those who look at all streams together that something changed.
    fn moved(&self) {
        self.moves.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether somebody is watching.
    pub fn is_watched(&self) -> bool {
        lock(&self.watched).last.is_some_and(|at| at.elapsed() < self.lives.watched)
    }

    /// Falls asleep if nobody asked for anything for so long: from now on whoever does wakes it and waits for its film.
    fn fall_asleep(&self, after: Duration) -> bool {
        let watched = lock(&self.watched);
        let idle = watched.last.is_none_or(|at| at.elapsed() >= after);
        if idle {
            self.asleep.store(true, Ordering::Release);
            self.source.send_replace(None);
            self.presentation.send_replace(None);
        }
        idle
    }

    /// Whether nobody asked for anything for a while.
    fn is_idle_for(&self, time: Duration) -> bool {
        lock(&self.watched).last.is_none_or(|at| at.elapsed() > time)
    }

    /// Gives it to another device of the same person that is watching, and answers how long that one lives. `None` where there is none.
    fn take_over(&self, devices: &Devices) -> Option<CancellationToken> {
        let mut watching: Vec<_> = {
            let watched = lock(&self.watched);
            watched.by.iter().filter(|(_, at)| at.elapsed() < self.lives.watched).map(|(device, at)| (*at, device.clone())).collect()
        };
        // The one that watched last.
        watching.sort_by(|a, b| b.cmp(a));
        let heir = watching.into_iter().filter_map(|(_, device)| devices.holder(&device)).find(|holder| holder.person == self.person)?;
        *lock(&self.device) = heir.device;
        Some(heir.gone)
    }

    /// Moves the playhead to `segment` of a copy, whose bytes begin at `byte`: the torrent fetches from there on. A jump throws away
    /// what is in flight for the old place, where that pays.
    pub async fn play_at(&self, presentation: &Presentation, segment: u32, byte: u64) {
        let film = &presentation.film;
        let far = {
            let mut playhead = lock(&self.playhead);
            let far = playhead.as_ref().is_none_or(|playhead| segment < playhead.segment || segment > playhead.segment + 2);
            match playhead.as_mut() {
                Some(playhead) if playhead.segment != segment => {
                    playhead.segment = segment;
                    playhead.cursor.seek(byte);
                }
                Some(_) => {}
                None => *playhead = Some(Playhead { segment, cursor: film.source.cursor(byte) }),
            }
            if let Some(playhead) = playhead.as_mut() {
                playhead.cursor.hold();
            }
            far
        };
        if far {
            film.source.refocus(byte, film.viewers()).await;
        }
    }

    /// This reader sees the picture with this number from now on: what is made of another one for it alone ends, and its encoder is free.
    pub fn looks_at(&self, presentation: &Presentation, at: usize, reader: &Reader) {
        let before = {
            let mut looks = lock(&self.looks);
            // A stream has few viewers; who has left long ago costs nothing.
            looks.insert(reader.clone(), at).unwrap_or(0)
        };
        // Until it is ready, the first picture is needed whoever looks at what.
        if let (true, Some(left)) = (before != at && matches!(self.state(), State::Ready { .. }), presentation.pictures.get(before)) {
            left.leave(reader);
        }
    }

    fn row(&self, expires_at: Timestamp) -> StreamRow {
        let seen = self.seen.borrow();
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let failure = if let State::Failed(failure) = &seen.state { serde_json::to_value(failure).ok() } else { None };
        StreamRow {
            id: self.id.to_string(),
            device: self.device().to_string(),
            person: self.person.to_string(),
            info_hash: self.magnet.info_hash.to_string(),
            magnet: self.magnet.to_link(),
            options: serde_json::to_value(&self.options).unwrap_or_default(),
            file_index: seen.view.file_index.and_then(|index| u32::try_from(index).ok()),
            status: word(serde_json::to_value(seen.view.status).unwrap_or_default()),
            phase: word(serde_json::to_value(seen.view.phase).unwrap_or_default()),
            error: failure,
            title: seen.view.title.clone(),
            position: self.position(),
            created_at: self.created_at,
            expires_at,
            stopped_at: matches!(seen.state, State::Stopped | State::Expired).then(Timestamp::now),
            ticket_key: self.key.number(),
            // Only what is ready comes back as it was.
            view: matches!(seen.state, State::Ready { .. }).then(|| serde_json::to_value(Saved::of(&seen.view)).unwrap_or_default()),
        }
    }
}

/// Completes a view's URLs with what stands before them.
fn behind(mut view: StreamView, media: &str) -> StreamView {
    let download = view.download.as_mut().and_then(|download| download.url.as_mut());
    let paths = [view.stream_url.as_mut(), view.dash_url.as_mut(), Some(&mut view.events_url), view.direct_url.as_mut(), download];
    for path in paths.into_iter().flatten() {
        path.insert_str(0, media);
    }
    view
}

/// All streams.
pub struct Streams {
    ground: Arc<Ground>,
    shelf: RwLock<Shelf>,
    /// Counts those that were born, for those who show all of them.
    births: watch::Sender<u64>,
    /// Counts whatever changes in any of them, for those who look at all of them together.
    moves: watch::Sender<u64>,
    /// Held by who pauses everything.
    pausing: Mutex<()>,
    /// Who waits for a slot of its device. Taken after the shelf, where both are.
    slots: Mutex<Slots<StreamId, DeviceId, PersonId>>,
    /// Wakes who forgets streams when one is over.
    burials: Notify,
    /// Streams of an earlier run begin again a few at a time: thousands at once would keep everybody waiting.
    waking: Arc<Semaphore>,
}

impl Streams {
    /// No streams yet.
    pub fn new(ground: Arc<Ground>) -> Arc<Self> {
        let (births, moves) = (watch::Sender::new(0), watch::Sender::new(0));
        let slots = Mutex::new(Slots::new(ground.limits));
        Arc::new(Self {
            ground,
            slots,
            shelf: RwLock::default(),
            births,
            moves,
            pausing: Mutex::default(),
            burials: Notify::new(),
            waking: Arc::new(Semaphore::new(WAKING)),
        })
    }

    /// What they stand on.
    pub fn ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// Brings back what the store has: each stream with its id, person and addresses, and whether everything is paused.
    pub async fn restore(self: &Arc<Self>) -> Result<(), StoreError> {
        let (paused, _) = self.ground.store.fact(PAUSED, false.to_string()).await?;
        self.ground.torrents.pause(paused == true.to_string());
        let torrents: HashMap<_, _> =
            self.ground.store.torrents().await?.into_iter().map(|torrent| (torrent.info_hash.clone(), torrent)).collect();
        let (mut needed, mut over) = (HashSet::new(), Vec::new());
        for row in self.ground.store.streams().await? {
            let Some((mut stream, was)) = Born::from_row(&row, &self.ground.keys).zip(Was::of(&row, Timestamp::now(), self.ground.lives))
            else {
                over.push(row.id);
                continue;
            };
            if let Some(torrent) = torrents.get(&row.info_hash) {
                stream.magnet.peers.clone_from(&torrent.peers);
            }
            if !matches!(was, Was::Over(..)) {
                needed.insert(stream.magnet.info_hash);
            }
            self.bear_again(stream, was, row);
        }
        self.ground.store.delete_streams(over).await?;
        let needed_names: HashSet<_> = needed.iter().map(ToString::to_string).collect();
        let unneeded = torrents.into_keys().filter(|hash| !needed_names.contains(hash)).collect();
        self.ground.store.delete_torrents(unneeded).await?;
        self.ground.torrents.sweep(&needed.into_iter().collect::<Vec<_>>());
        let alive = self.read().all().filter(|stream| !stream.state().is_over()).map(|stream| stream.id.to_string()).collect();
        self.ground.downloads.sweep(&alive);
        Ok(())
    }

    /// Starts a stream, or finds the one that the same device started for the same person with the same options. `true`: it is a new one.
    ///
    /// # Errors
    /// When it would have to wait, and so many wait already.
    pub fn start(self: &Arc<Self>, starter: &Holder, magnet: Magnet, options: Options) -> Result<(Arc<Stream>, bool), Full> {
        let same = |stream: &&Arc<Stream>| {
            stream.person == starter.person
                && stream.options == options
                && *lock(&stream.device) == starter.device
                && !stream.seen.borrow().state.is_over()
        };
        // One lock from the look to the birth: the same request twice at once is one stream.
        let mut shelf = self.write();
        if let Some(stream) = shelf.of_torrent(&magnet.info_hash).find(same) {
            stream.wake();
            return Ok((stream.clone(), false));
        }
        let (id, device, person) = (StreamId::random(), starter.device.clone(), starter.person.clone());
        let entrance = if starter.admin {
            Entrance::Turn
        } else {
            let (held, elsewhere) = (held(&shelf, &device, &person), self.ground.workshop.encoders.waiting(&person));
            lock(&self.slots).enter(id.clone(), device.clone(), person.clone(), held, elsewhere)?
        };
        // In whole milliseconds, as the store keeps it: it is the same after a restart.
        let created_at = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default();
        let expires_at = created_at.checked_add(self.ground.live.borrow().expire_after).unwrap_or(Timestamp::MAX);
        let key = self.ground.keys.newest();
        let born = Born { id, device, person, key, magnet, options, created_at, expires_at, position: 0.0 };
        let view = actor::first_view(&born);
        Ok((self.bear(&mut shelf, born, view, Beginning::New(entrance)), true))
    }

    /// Brings a stream of an earlier run back, or what is left of it.
    fn bear_again(self: &Arc<Self>, born: Born, was: Was, row: StreamRow) {
        let mut shelf = self.write();
        let mut view = actor::first_view(&born);
        let kept = self.ground.downloads.is_whole(born.id.as_str());
        view.title = row.title;
        view.file_index = row.file_index.and_then(|file| usize::try_from(file).ok());
        let beginning = match was {
            Was::Over(state, since) => {
                let (id, expires_at) = (born.id.clone(), born.expires_at);
                let stream = self.stream(born, Seen { state, view, watching: Vec::new() }, mpsc::unbounded_channel().0);
                let until = Instant::now() + self.ground.lives.remembered.saturating_sub(since);
                return shelf.bury(id, Epitaph::of(&stream, expires_at, until));
            }
            Was::Failed(failure) => Beginning::Failed(failure),
            Was::Ready { complete, saved } => {
                saved.put_into(&mut view);
                Beginning::Ready { complete }
            }
            Was::Underway => {
                // It finds out anew which film it is.
                (view.title, view.file_index) = (None, None);
                let (id, device, person) = (born.id.clone(), born.device.clone(), born.person.clone());
                let entrance = match self.ground.devices.holder(&device) {
                    Some(holder) if !holder.admin => {
                        let held = held(&shelf, &device, &person);
                        lock(&self.slots).enter_again(id, device, person, held)
                    }
                    _ => Entrance::Turn,
                };
                Beginning::Again(entrance)
            }
        };
        let stream = self.bear(&mut shelf, born, view, beginning);
        if kept && !stream.state().is_over() {
            stream.downloads(Some(download::whole(&stream)));
        }
    }

    /// Gives free slots to the streams that wait for them, and tells the others their places.
    pub fn settle(&self) {
        let shelf = self.read();
        let mut slots = lock(&self.slots);
        if slots.is_empty() {
            return;
        }
        for id in slots.turns(|device, person| held(&shelf, device, person)) {
            if let Some(stream) = shelf.get(&id) {
                stream.slot.store(true, Ordering::Release);
                stream.tell(Event::Turn);
            }
        }
        for (id, place) in slots.moved() {
            if let Some(stream) = shelf.get(&id) {
                stream.tell(Event::Place(place));
            }
        }
    }

    /// A stream waits for no slot any more, or may have none.
    fn leave_queue(&self, id: &StreamId) {
        lock(&self.slots).leave(id);
        self.settle();
    }

    /// The stream with this name, if it exists for this device.
    pub fn get(&self, id: &str, viewer: &Holder) -> Option<Arc<Stream>> {
        let id = StreamId::parse(id)?;
        let shelf = self.read();
        let over = || self.exhumed(&id, shelf.epitaph(&id)?);
        shelf.get(&id).cloned().or_else(over).filter(|stream| viewer.sees(&stream.person))
    }

    /// What a ticket opens: its device lives and sees the stream, which is not over, and the ticket was made with the stream's key.
    pub fn by_ticket(&self, ticket: &str) -> Option<Viewing> {
        let claim = Ticket::verify(&self.ground.keys, ticket)?;
        let holder = self.ground.devices.holder(&claim.device)?;
        let stream = self.read().get(&claim.stream).cloned()?;
        (holder.sees(&stream.person) && stream.key.number() == claim.key).then_some(Viewing { stream, holder })
    }

    /// All streams that exist for this device, the oldest first.
    pub fn list(&self, viewer: &Holder) -> Vec<Arc<Stream>> {
        let shelf = self.read();
        let mut list: Vec<_> =
            if viewer.admin { shelf.all().cloned().collect() } else { shelf.of_person(&viewer.person).cloned().collect() };
        let over = shelf.epitaphs().filter(|(_, epitaph)| viewer.sees(&epitaph.person));
        list.extend(over.filter_map(|(id, epitaph)| self.exhumed(id, epitaph)));
        drop(shelf);
        list.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        list
    }

    /// Wakes when a stream was born.
    pub fn births(&self) -> watch::Receiver<u64> {
        self.births.subscribe()
    }

    /// Pauses everything, or lets it go on; it counts at once, and is on the disk when this returns.
    pub fn pause(&self, paused: bool) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        // So that what counts is what is written, whoever asks at the same time.
        let _turn = lock(&self.pausing);
        self.ground.torrents.pause(paused);
        self.ground.store.set_fact(PAUSED, paused.to_string())
    }

    /// Wakes when anything changed in any stream.
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// How many are over and remembered.
    pub fn over(&self) -> u64 {
        self.read().epitaphs().len() as u64
    }

    /// All streams, in no order, but those that are over and closed.
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.read().all().cloned().collect()
    }

    /// Gives new streams a new ticket key every week, and deletes the keys that no stream has any more, until it is told to stop.
    pub async fn tend_keys(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if let Err(error) = self.renew_keys(Timestamp::now()) {
                tracing::warn!(%error, "the ticket keys could not be renewed");
            }
            if tokio::time::timeout(KEYS_PACE, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    fn renew_keys(&self, now: Timestamp) -> std::io::Result<()> {
        self.ground.keys.renew(now)?;
        // After the renewal: a stream that is born from here on has the newest key, which stays in any case.
        let shelf = self.read();
        let over = shelf.epitaphs().map(|(_, epitaph)| epitaph.key.number());
        let in_use = shelf.all().map(|stream| stream.key.number()).chain(over).collect();
        drop(shelf);
        self.ground.keys.keep(&in_use)
    }

    /// Whether another stream that is not over needs this torrent, or this file of it.
    fn others_need(&self, gone: &StreamId, magnet: &Magnet, file: Option<usize>) -> (bool, bool) {
        let shelf = self.read();
        let others = shelf.of_torrent(&magnet.info_hash).filter(|other| other.id != *gone && !other.state().is_over());
        others.fold((false, false), |(_, same_file), other| (true, same_file || other.seen.borrow().view.file_index == file))
    }

    /// Whether any stream that is not over, or failed with its bytes kept, needs this torrent.
    pub fn needs(&self, info_hash: &InfoHash) -> bool {
        self.read().of_torrent(info_hash).any(|stream| !matches!(stream.state(), State::Stopped | State::Expired))
    }

    /// A stream is over and closed: from now on it can only be asked about, until it is forgotten.
    fn bury(&self, stream: &Stream, expires_at: Timestamp, until: Instant) {
        let epitaph = Epitaph::of(stream, expires_at, until);
        self.write().bury(stream.id.clone(), epitaph);
        self.burials.notify_one();
    }

    /// Forgets each stream when it has been over for long enough, until it is told to stop.
    pub async fn tend_over(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.read().epitaphs().map(|(_, epitaph)| epitaph.until).min();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                // The new one may be forgotten before all others: those of an earlier run may be remembered for longer.
                () = self.burials.notified() => continue,
                () = stop.cancelled() => return,
            }
            let forgotten = self.write().forget(Instant::now()).iter().map(ToString::to_string).collect();
            if let Err(error) = self.ground.store.delete_streams(forgotten).await {
                tracing::warn!(%error, "streams that are over could not be forgotten");
            }
        }
    }

    /// A stream that is over as one that can be asked.
    fn exhumed(&self, id: &StreamId, epitaph: &Epitaph) -> Option<Arc<Stream>> {
        let (born, state, view) = epitaph.read(id)?;
        let stream = self.stream(born, Seen { state, view, watching: Vec::new() }, mpsc::unbounded_channel().0);
        stream.kept.send_replace(true);
        stream.released.send_replace(true);
        Some(Arc::new(stream))
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn bear(self: &Arc<Self>, shelf: &mut Shelf, born: Born, view: StreamView, beginning: Beginning) -> Arc<Stream> {
        let (events, inbox) = mpsc::unbounded_channel();
        let end = Lifetime::new(born.expires_at, Timestamp::now(), uptime());
        let mut stream = self.stream(born, Seen { state: beginning.life().state, view, watching: Vec::new() }, events);
        *stream.slot.get_mut() = matches!(beginning, Beginning::New(Entrance::Turn) | Beginning::Again(Entrance::Turn));
        *stream.asleep.get_mut() = matches!(beginning, Beginning::Ready { .. });
        let stream = Arc::new(stream);
        shelf.put(stream.clone());
        self.births.send_modify(|count| *count += 1);
        stream.moved();
        let actor = actor::Actor::new(self.clone(), stream.clone(), end);
        let span = tracing::info_span!("stream", id = %stream.id);
        self.ground.tasks.spawn("stream", actor.live(inbox, beginning).instrument(span));
        stream
    }

    /// One that nobody knows yet.
    fn stream(&self, born: Born, seen: Seen, events: mpsc::UnboundedSender<Event>) -> Stream {
        Stream {
            id: born.id,
            person: born.person,
            magnet: born.magnet,
            options: born.options,
            created_at: born.created_at,
            device: Mutex::new(born.device),
            key: born.key,
            seen: watch::Sender::new(seen),
            source: watch::Sender::new(None),
            presentation: watch::Sender::new(None),
            events,
            devices: self.ground.devices.clone(),
            moves: self.moves.clone(),
            kept: watch::Sender::new(false),
            released: watch::Sender::new(false),
            position: watch::Sender::new(born.position),
            watched: Mutex::default(),
            behind: Mutex::default(),
            looks: Mutex::default(),
            playhead: Mutex::default(),
            slot: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            lives: self.ground.lives,
        }
    }
}

/// How many slots of a device are taken.
fn held(shelf: &Shelf, device: &DeviceId, person: &PersonId) -> usize {
    shelf.of_person(person).filter(|stream| *lock(&stream.device) == *device && stream.holds_slot()).count()
}

/// What a stream of an earlier run was.
enum Was {
    /// It goes through everything again.
    Underway,
    /// It can be played: its film is opened when somebody wants it.
    Ready {
        complete: bool,
        saved: Box<Saved>,
    },
    Failed(state::Failure),
    /// It was over, for so long; it can still be asked about.
    Over(State, Duration),
}

impl Was {
    /// What the row tells; `None` where nobody asks about it any more.
    fn of(row: &StreamRow, now: Timestamp, lives: Lives) -> Option<Self> {
        let (over, since) = match row.stopped_at {
            Some(at) if row.phase == "expired" => (Some(State::Expired), at),
            Some(at) => (Some(State::Stopped), at),
            None if row.expires_at < now => (Some(State::Expired), row.expires_at),
            None => (None, now),
        };
        if let Some(state) = over {
            let since = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            return (since < lives.remembered).then_some(Self::Over(state, since));
        }
        if let Some(failure) = row.error.clone().and_then(|error| serde_json::from_value(error).ok()) {
            return Some(Self::Failed(failure));
        }
        let saved = row.view.clone().filter(|_| row.status == "ready" && row.file_index.is_some());
        let saved = saved.and_then(|saved| serde_json::from_value(saved).ok());
        Some(saved.map_or(Self::Underway, |saved| Self::Ready { complete: row.phase == "complete", saved }))
    }
}

/// A stream before it lives.
pub struct Born {
    /// Its name in URLs.
    pub id: StreamId,
    /// Who started it.
    pub device: DeviceId,
    /// Whose it is.
    pub person: PersonId,
    /// What its tickets are made with.
    pub key: Arc<TicketKey>,
    /// What is streamed.
    pub magnet: Magnet,
    /// What was asked for.
    pub options: Options,
    /// When it was started.
    pub created_at: Timestamp,
    /// When it ends if nobody watches.
    pub expires_at: Timestamp,
    /// Where its viewer was, in seconds.
    pub position: f64,
}

impl Born {
    /// Where its key is lost, it gets the newest one, and so new addresses.
    fn from_row(row: &StreamRow, keys: &TicketKeys) -> Option<Self> {
        Some(Self {
            id: StreamId::parse(&row.id)?,
            device: DeviceId::parse(&row.device)?,
            person: PersonId::parse(&row.person)?,
            key: keys.get(row.ticket_key).unwrap_or_else(|| keys.newest()),
            magnet: Magnet::parse(&row.magnet).ok()?,
            options: serde_json::from_value(row.options.clone()).ok()?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            position: row.position,
        })
    }
}

async fn once_known<T: Clone>(value: &watch::Sender<Option<T>>) -> Option<T> {
    let mut value = value.subscribe();
    let found = tokio::time::timeout(DEADLINE, value.wait_for(Option::is_some)).await;
    found.ok()?.ok()?.clone()
}
