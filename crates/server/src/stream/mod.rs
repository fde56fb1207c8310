//! The life of a stream: what can happen to it ([`state`]), who makes it happen ([`actor`]) and what the phone sees of it ([`view`]).
//! Here stand the streams themselves: found by their owners, and by nobody else.

pub mod actor;
pub mod state;
pub mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use balcony_media::device::Capabilities;
use balcony_media::ladder::Quality;
use balcony_media::magnet::{InfoHash, Magnet};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use self::state::{Event, Failure, State};
use self::view::StreamView;
use crate::film::Presentation;
use crate::produce::Workshop;
use crate::segments::DEADLINE;
use crate::source::{Cursor, Source};
use crate::store::{Store, StreamRow};
use crate::tasks::Tasks;
use crate::torrent::Torrents;
use crate::trust::{DeviceId, PersonId, StreamId, Ticket, TicketKey};

/// A stream is watched while something of it was asked for within this time.
const WATCHED: Duration = Duration::from_secs(600);
/// How long a start waits for the disk.
const KEPT_WITHIN: Duration = Duration::from_secs(2);
/// A stream that is over can still be asked about for this long.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// Which URL `streamUrl` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the API's own words
pub enum Method {
    #[default]
    Auto,
    Hls,
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
}

/// What all streams stand on.
pub struct Ground {
    /// Torrents.
    pub torrents: Arc<Torrents>,
    /// Production of segments.
    pub workshop: Arc<Workshop>,
    /// What is kept over a restart.
    pub store: Arc<Store>,
    /// Who owns their tasks.
    pub tasks: Tasks,
    /// How tickets are made.
    pub key: TicketKey,
    /// Life from the start.
    pub expire_after: Duration,
    /// Metadata known, not ready, and not a byte comes.
    pub stall_timeout: Duration,
}

/// One stream.
pub struct Stream {
    /// Its name in URLs.
    pub id: StreamId,
    /// Who started it.
    pub device: DeviceId,
    /// Whose it is.
    pub person: PersonId,
    /// What is streamed.
    pub magnet: Magnet,
    /// What was asked for.
    pub options: Options,
    /// When it was started.
    pub created_at: Timestamp,
    ticket: Ticket,
    seen: watch::Sender<Seen>,
    /// The film's bytes, as soon as its torrent is known.
    source: watch::Sender<Option<Source>>,
    presentation: watch::Sender<Option<Arc<Presentation>>>,
    events: mpsc::UnboundedSender<Event>,
    /// Whether it is written down, and so comes back after a crash.
    kept: watch::Sender<bool>,
    /// Whether it is over and everything that only it needed is gone.
    released: watch::Sender<bool>,
    /// Where its viewer is, in seconds.
    position: watch::Sender<f64>,
    /// When something of it was last asked for.
    watched: Mutex<Option<Instant>>,
    /// Where its viewer is, held so that the torrent fetches what comes next.
    playhead: Mutex<Option<Playhead>>,
}

/// Where a viewer is in the film's file.
struct Playhead {
    segment: u32,
    cursor: Cursor,
}

/// What a stream shows, without its URLs (they depend on where the client came in).
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Where it stands.
    pub state: State,
    /// The object, with paths in place of URLs.
    pub view: StreamView,
}

impl Stream {
    /// The object that the API answers; `base` is the scheme, host and port by which the client came in.
    pub fn view(&self, base: &str) -> StreamView {
        absolute(self.seen.borrow().view.clone(), base)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.seen.borrow().state.clone()
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

    /// What is played, waiting for it as long as a request may wait.
    pub async fn presentation(&self) -> Option<Arc<Presentation>> {
        self.touch();
        once_known(&self.presentation).await
    }

    /// The film's bytes, waiting for them to be known as long as a request may wait.
    pub async fn source(&self) -> Option<Source> {
        self.touch();
        once_known(&self.source).await
    }

    /// What is played, if that is known.
    pub fn presentation_now(&self) -> Option<Arc<Presentation>> {
        self.presentation.borrow().clone()
    }

    /// Somebody asked for something of it.
    pub fn touch(&self) {
        *lock(&self.watched) = Some(Instant::now());
    }

    /// Whether somebody is watching.
    pub fn is_watched(&self) -> bool {
        lock(&self.watched).is_some_and(|at| at.elapsed() < WATCHED)
    }

    /// Whether nobody asked for anything for a while.
    fn is_idle_for(&self, time: Duration) -> bool {
        lock(&self.watched).is_none_or(|at| at.elapsed() > time)
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

    /// Address of its media, from the server's root.
    pub fn media_path(&self) -> String {
        format!("/m/{}", self.ticket.as_str())
    }

    fn row(&self, expires_at: Timestamp) -> StreamRow {
        let seen = self.seen.borrow();
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let failure = if let State::Failed(failure) = &seen.state { serde_json::to_value(failure).ok() } else { None };
        StreamRow {
            id: self.id.to_string(),
            device: self.device.to_string(),
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
        }
    }
}

/// Puts the scheme, host and port before a view's paths.
fn absolute(mut view: StreamView, base: &str) -> StreamView {
    for path in [view.stream_url.as_mut(), Some(&mut view.events_url), view.direct_url.as_mut()].into_iter().flatten() {
        path.insert_str(0, base);
    }
    view
}

/// All streams.
pub struct Streams {
    ground: Arc<Ground>,
    all: Mutex<HashMap<StreamId, Arc<Stream>>>,
}

impl Streams {
    /// No streams yet.
    pub fn new(ground: Arc<Ground>) -> Arc<Self> {
        Arc::new(Self { ground, all: Mutex::default() })
    }

    /// What they stand on.
    pub fn ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// Brings back what the store has: each stream with its id, person and addresses.
    pub async fn restore(self: &Arc<Self>) -> Result<(), crate::store::StoreError> {
        let torrents = self.ground.store.torrents().await?;
        let mut needed = Vec::new();
        for row in self.ground.store.streams().await? {
            let over = row.stopped_at.is_some() || row.expires_at < Timestamp::now() || row.status == "stopped";
            let Some(mut stream) = (!over).then(|| Born::from_row(&row)).flatten() else {
                self.ground.store.delete_stream(&row.id).await?;
                continue;
            };
            if let Some(torrent) = torrents.iter().find(|torrent| torrent.info_hash == row.info_hash) {
                stream.magnet.peers.clone_from(&torrent.peers);
            }
            let failure = row.error.and_then(|error| serde_json::from_value(error).ok());
            needed.push(stream.magnet.info_hash);
            self.bear(&mut lock(&self.all), stream, failure);
        }
        for torrent in torrents.iter().filter(|torrent| needed.iter().all(|hash| hash.to_string() != torrent.info_hash)) {
            self.ground.store.delete_torrent(&torrent.info_hash).await?;
        }
        self.ground.torrents.sweep(&needed);
        Ok(())
    }

    /// Starts a stream, or finds the one that the same device started with the same options. `true`: it is a new one.
    pub fn start(self: &Arc<Self>, device: DeviceId, person: PersonId, magnet: Magnet, options: Options) -> (Arc<Stream>, bool) {
        let same = |stream: &&Arc<Stream>| {
            stream.device == device && stream.magnet.info_hash == magnet.info_hash && stream.options == options && !stream.state().is_over()
        };
        // One lock from the look to the birth: the same request twice at once is one stream.
        let mut all = lock(&self.all);
        if let Some(stream) = all.values().find(same) {
            return (stream.clone(), false);
        }
        // In whole milliseconds, as the store keeps it: it is the same after a restart.
        let created_at = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default();
        let expires_at = created_at.checked_add(self.ground.expire_after).unwrap_or(Timestamp::MAX);
        let born = Born { id: StreamId::random(), device, person, magnet, options, created_at, expires_at, position: 0.0 };
        (self.bear(&mut all, born, None), true)
    }

    /// The stream with this name, if it exists for this person (the owner sees all).
    pub fn get(&self, id: &str, person: &PersonId, admin: bool) -> Option<Arc<Stream>> {
        let id = StreamId::parse(id)?;
        lock(&self.all).get(&id).filter(|stream| admin || stream.person == *person).cloned()
    }

    /// The stream that a ticket opens.
    pub fn by_ticket(&self, ticket: &str) -> Option<Arc<Stream>> {
        let (device, id) = Ticket::verify(&self.ground.key, ticket)?;
        lock(&self.all).get(&id).filter(|stream| stream.device == device).cloned()
    }

    /// All streams that exist for this person, oldest first.
    pub fn list(&self, person: &PersonId, admin: bool) -> Vec<Arc<Stream>> {
        let mut list: Vec<_> = lock(&self.all).values().filter(|stream| admin || stream.person == *person).cloned().collect();
        list.sort_by(|a, b| (a.created_at, a.id.as_str()).cmp(&(b.created_at, b.id.as_str())));
        list
    }

    /// Whether another stream that is not over needs this torrent, or this file of it.
    fn others_need(&self, gone: &StreamId, magnet: &Magnet, file: Option<usize>) -> (bool, bool) {
        let all = lock(&self.all);
        let mut others =
            all.values().filter(|other| other.id != *gone && other.magnet.info_hash == magnet.info_hash && !other.state().is_over());
        let same_file = others.clone().any(|other| other.seen.borrow().view.file_index == file);
        (others.next().is_some(), same_file)
    }

    /// Whether any stream that is not over, or failed with its bytes kept, needs this torrent.
    pub fn needs(&self, info_hash: &InfoHash) -> bool {
        let all = lock(&self.all);
        let over = |state: State| matches!(state, State::Stopped | State::Expired);
        all.values().any(|stream| stream.magnet.info_hash == *info_hash && !over(stream.state()))
    }

    /// Bytes of films on the disk, each counted once.
    pub fn film_bytes(&self) -> u64 {
        let all = lock(&self.all);
        let mut films = HashMap::new();
        for stream in all.values().filter(|stream| !matches!(stream.state(), State::Stopped | State::Expired)) {
            let seen = stream.seen.borrow();
            films.insert((stream.magnet.info_hash, seen.view.file_index), seen.view.downloaded_bytes.unwrap_or(0));
        }
        films.values().sum()
    }

    fn forget(&self, id: &StreamId) {
        lock(&self.all).remove(id);
    }

    fn bear(self: &Arc<Self>, all: &mut HashMap<StreamId, Arc<Stream>>, born: Born, failure: Option<Failure>) -> Arc<Stream> {
        let ticket = Ticket::issue(&self.ground.key, &born.device, &born.id);
        let (events, inbox) = mpsc::unbounded_channel();
        let view = actor::first_view(&born, ticket.as_str());
        let stream = Arc::new(Stream {
            id: born.id.clone(),
            device: born.device,
            person: born.person,
            magnet: born.magnet,
            options: born.options,
            created_at: born.created_at,
            ticket,
            seen: watch::Sender::new(Seen { state: State::Queued { place: 1 }, view }),
            source: watch::Sender::new(None),
            presentation: watch::Sender::new(None),
            events,
            kept: watch::Sender::new(false),
            released: watch::Sender::new(false),
            position: watch::Sender::new(born.position),
            watched: Mutex::default(),
            playhead: Mutex::default(),
        });
        all.insert(born.id, stream.clone());
        let actor = actor::Actor::new(self.clone(), stream.clone(), born.expires_at);
        self.ground.tasks.spawn("stream", actor.live(inbox, failure));
        stream
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
    fn from_row(row: &StreamRow) -> Option<Self> {
        Some(Self {
            id: StreamId::parse(&row.id)?,
            device: DeviceId::parse(&row.device)?,
            person: PersonId::parse(&row.person)?,
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

/// A panic elsewhere leaves these values whole: each is replaced in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
