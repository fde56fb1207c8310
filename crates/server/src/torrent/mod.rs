//! Torrents: from a magnet to files that can be read while they come. The only folder that names librqbit.
//!
//! One librqbit session fetches. A second one, the scout, has no sources of its own and only reads metadata from peers that we name:
//! so every address that is dialled has passed [`peers::Admission`], and what a torrent says about itself is distrusted
//! ([`metainfo`]) before anything of it is written. Metadata is kept by info hash: the second start of a torrent asks nobody for it.

mod disk;
mod live;
mod metainfo;
mod peers;
mod rendezvous;
mod scout;
mod seed;
mod wants;

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use balcony_media::magnet::{InfoHash, Magnet};
use bytes::Bytes;
use librqbit::dht::{DhtPersistenceConfig, Id20};
use librqbit::{Api, ConnectionOptions, DhtSessionConfig, PeerConnectionOptions, Session, SessionOptions, SessionPersistenceConfig};
use librqbit_tracker_comms::UdpTrackerClient;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub(crate) use self::live::FilmFile;
pub use self::live::{KeptTorrent, Torrent, TorrentState, TorrentStats};
use self::live::{Origin, Shared};
pub use self::metainfo::{FileEntry, choose_film};
use self::metainfo::{Metainfo, Offered, Refused};
use self::peers::{Admission, Finder, PeerBook, PublicNames};
use self::rendezvous::Rendezvous;
pub use self::seed::Seed;
pub(crate) use self::wants::Want;
use crate::amount::size;
use crate::budget::{Budget, Terms};
use crate::source::SourceError;

/// A peer that does not answer the telephone within this time is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that says nothing for so long is given up.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// The port that is announced when nothing listens: trackers do not work with none.
const DEFAULT_PORT: u16 = 4240;
/// Requests of 16 KiB that a peer may be asked for at once.
const REQUEST_WINDOW: usize = 32;

/// What the torrent engine needs to know.
#[derive(Debug, Clone)]
pub struct TorrentConfig {
    /// Folder for everything that it writes.
    pub data_dir: PathBuf,
    /// Peers of every torrent. They may be private.
    pub peers: Vec<SocketAddr>,
    /// Whether torrents may talk to private and loopback addresses.
    pub allow_private_peers: bool,
    /// Whether to look for peers in the DHT.
    pub dht: bool,
    /// Whether to ask trackers.
    pub trackers: bool,
    /// How long to look for somebody who has a torrent's metadata.
    pub metadata_timeout: Duration,
    /// Free space on the disk that is never touched, in bytes, where no budget is given.
    pub reserve_bytes: u64,
    /// Most bytes that all films may have together, where no budget is given.
    pub budget_bytes: u64,
    /// Who owns the room on the disk; `None`: films share it with nobody. It must know [`Torrents::films_in`] the data folder.
    pub budget: Option<Arc<Budget>>,
    /// Where other peers can reach us; `None` to dial only.
    pub listen: Option<SocketAddr>,
    /// Requests of 16 KiB that a peer may be asked for at once. More is faster on long lines, fewer makes seeks quicker.
    pub request_window: usize,
}

impl TorrentConfig {
    /// The contract's defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            peers: Vec::new(),
            allow_private_peers: false,
            dht: true,
            trackers: true,
            metadata_timeout: Duration::from_secs(120),
            reserve_bytes: 2 << 30,
            budget_bytes: u64::MAX,
            budget: None,
            listen: None,
            request_window: REQUEST_WINDOW,
        }
    }
}

/// Why a torrent cannot be streamed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TorrentError {
    /// Nobody gave the metadata in time.
    #[error("nobody was found who has this torrent (asked {asked} peers)")]
    NoPeers {
        /// How many peers were asked.
        asked: usize,
    },
    /// The metadata is a trap or nonsense. A sentence for people.
    #[error("{0}")]
    Unsafe(String),
    /// It does not fit.
    #[error(
        "the film needs {} more, and {} can be had: of {} for films and segments, {} are kept for films that are being watched or fetched",
        size(*needed), size(*free), size(*limit), size(*others)
    )]
    NoSpace {
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
        /// Bytes that films and segments may take together.
        limit: u64,
        /// Bytes of them that other films keep.
        others: u64,
    },
    /// There is no film in it, or not under this number.
    #[error("there is no film in this torrent")]
    NothingPlayable,
    /// It was removed in the meantime.
    #[error("the torrent was removed")]
    Gone,
    /// The engine or the disk failed.
    #[error("the torrent failed: {0}")]
    Failed(String),
}

impl From<SourceError> for TorrentError {
    fn from(fault: SourceError) -> Self {
        match fault {
            SourceError::Gone => Self::Gone,
            SourceError::NoSpace => Self::NoSpace { needed: 0, free: 0, limit: 0, others: 0 },
            SourceError::Failed(text) => Self::Failed(text),
            SourceError::PastEnd | SourceError::TooManyReaders | SourceError::Io(_) => Self::Failed(fault.to_string()),
        }
    }
}

/// An error of the engine as one line of bounded length.
fn text_of(error: impl Display) -> String {
    let line = format!("{error:#}");
    line.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// A torrent whose metadata somebody brought, and which needs nobody's for a start.
#[derive(Debug)]
pub struct Brought {
    /// To be given to a start.
    pub magnet: Magnet,
    /// The name that the torrent gives itself.
    pub name: Option<String>,
    /// Bytes of all files together.
    pub total: u64,
}

impl Brought {
    /// What a metainfo file tells, with nothing kept of it.
    ///
    /// # Errors
    /// When it is none, or not to be trusted.
    pub async fn examine(bytes: Bytes) -> Result<Self, BringError> {
        let Offered { magnet, metainfo } = examine_offered(bytes).await?;
        Ok(Self { magnet, name: metainfo.name, total: metainfo.total })
    }
}

/// The checks of [`Offered::examine`] in a task of their own, as for [`examine`].
async fn examine_offered(bytes: Bytes) -> Result<Offered, BringError> {
    match tokio::task::spawn_blocking(move || Offered::examine(&bytes)).await {
        Ok(Ok(offered)) => Ok(offered),
        Ok(Err(Refused::Unreadable(why))) => Err(BringError::Unreadable(why)),
        Ok(Err(Refused::Unsafe(why))) => Err(BringError::Unsafe(why)),
        Err(_) => Err(BringError::Unsafe("The torrent's metadata is damaged: its sizes cannot be.".into())),
    }
}

/// Why metadata that somebody brought was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BringError {
    /// It is none. A sentence for people.
    #[error("{0}")]
    Unreadable(String),
    /// It is a trap or nonsense. A sentence for people.
    #[error("{0}")]
    Unsafe(String),
    /// There is no room for it.
    #[error("there is no space left for the torrent's metadata")]
    NoSpace,
    /// The disk failed.
    #[error("the metadata could not be kept: {0}")]
    Failed(std::io::ErrorKind),
}

/// How the search for metadata goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddProgress {
    /// For how long it has been going on.
    pub waited: Duration,
    /// Peers that are known so far.
    pub peers: usize,
}

/// The torrent engine. Dropping it ends everything at once; [`close`](Self::close) does so in order.
pub struct Torrents(Arc<Engine>);

struct Engine {
    config: TorrentConfig,
    shared: Arc<Shared>,
    scout: Arc<Session>,
    admission: Arc<Admission>,
    finder: Arc<Finder>,
    rendezvous: Arc<Rendezvous>,
    table: Mutex<HashMap<InfoHash, Entry>>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.end.cancel();
        self.shared.session.cancellation_token().cancel();
        self.scout.cancellation_token().cancel();
    }
}

type Outcome = Option<Result<Torrent, TorrentError>>;

enum Entry {
    Adding(Search),
    There {
        torrent: Torrent,
        finding: CancellationToken,
    },
    /// It is being closed until this ends; then it can be taken up anew.
    Closing(watch::Receiver<()>),
}

/// A search for metadata, as those see it who wait for it.
#[derive(Clone)]
struct Search {
    outcome: watch::Receiver<Outcome>,
    progress: watch::Receiver<AddProgress>,
    book: Arc<PeerBook>,
    /// Somebody brought the metadata.
    brought: Arc<Notify>,
    /// Ends the search.
    finding: CancellationToken,
}

impl Torrents {
    /// Opens the engine in the data folder. Torrents of an earlier run come back by [`restore`](Self::restore) or [`add`](Self::add).
    pub async fn open(config: TorrentConfig) -> Result<Self, TorrentError> {
        let failed = |what: &str, error: &dyn Display| TorrentError::Failed(format!("{what}: {}", text_of(error)));
        let folders = Folders(&config.data_dir);
        for folder in [folders.torrents(), folders.metainfo(), folders.session()] {
            std::fs::create_dir_all(&folder).map_err(|error| failed("the data folder", &error))?;
        }
        let admission = Arc::new(Admission::new(config.allow_private_peers, config.peers.iter().copied()));
        let block_list = folders.session().join("blocked.txt");
        std::fs::write(&block_list, admission.block_list(seed::ADDRESS)).map_err(|error| failed("the data folder", &error))?;
        // librqbit would take its torrents up again by itself, without our checks, peers and priorities.
        let _ = std::fs::remove_file(folders.session().join("session.json"));

        let end = CancellationToken::new();
        let fetching = fetching_session(&config, &block_list, &end);
        let session = Session::new_with_opts(folders.torrents(), fetching).await.map_err(|error| failed("the torrent engine", &error))?;
        let scout = Session::new_with_opts(folders.torrents(), scout_session(&end)).await;
        let scout = scout.map_err(|error| failed("the torrent engine", &error))?;
        let udp = UdpTrackerClient::new(end.child_token(), None).await.map_err(|error| failed("the tracker socket", &error))?;
        let http = http_client(&admission).map_err(|error| failed("the tracker client", &error))?;
        let (rendezvous, meet_at) = Rendezvous::open(end.clone()).await.map_err(|error| failed("the loopback tracker", &error))?;
        let finder = Finder {
            dht: session.get_dht().cloned(),
            http,
            udp,
            own_id: own_id()?,
            port: session.announce_port().unwrap_or(DEFAULT_PORT),
            trackers: config.trackers,
        };
        let shared = Shared {
            api: Api::new(session.clone(), None),
            session,
            count: Default::default(),
            next_id: Default::default(),
            request_window: config.request_window,
            rendezvous: format!("udp://{meet_at}"),
            budget: config.budget.clone().unwrap_or_else(|| {
                let terms = Terms { reserve: config.reserve_bytes, ..Terms::of(config.budget_bytes) };
                Budget::open(&folders.torrents(), terms)
            }),
            open: Mutex::default(),
            folder: folders.torrents(),
            bitfields: folders.session(),
            sweeping: Arc::new(Semaphore::new(1)),
            paused: watch::Sender::new(false),
            end,
        };
        Ok(Self(Arc::new(Engine {
            config,
            shared: Arc::new(shared),
            scout,
            admission,
            finder: Arc::new(finder),
            rendezvous,
            table: Mutex::default(),
        })))
    }

    /// The torrent of a magnet, as soon as its metadata is known and found acceptable.
    ///
    /// Adding the same torrent again gives the same one, with the new magnet's peers; while the metadata is being looked for, all who
    /// ask wait for the same search. Dropping the answer gives the search up if nobody else waits for it. A torrent that has failed is
    /// taken up anew, with its bytes. `progress` is told about once a second, and always at the start.
    pub async fn add(&self, magnet: &Magnet, mut progress: impl FnMut(AddProgress) + Send) -> Result<Torrent, TorrentError> {
        let origin = self.origin(magnet);
        let mut last_chance = false;
        loop {
            let joined = match self.find_or_begin(magnet.info_hash, &origin).await {
                Found::There(torrent) => return Ok(torrent),
                Found::Adding(search) => search,
                Found::Closing(ended) => {
                    is_closed(ended).await;
                    continue;
                }
            };
            let was_given_up = |found: &Result<Torrent, TorrentError>| matches!(found, Err(TorrentError::Gone));
            match joined.wait(&mut progress).await {
                // We joined a search in the moment in which it was given up by those who had begun it.
                found if was_given_up(&found) && !last_chance && !self.0.shared.end.is_cancelled() => last_chance = true,
                found => return found,
            }
        }
    }

    /// The torrent, if it is here already.
    pub fn get(&self, info_hash: &InfoHash) -> Option<Torrent> {
        match self.0.table().get(info_hash) {
            Some(Entry::There { torrent, .. }) => Some(torrent.clone()),
            _ => None,
        }
    }

    /// Keeps the metadata that somebody brings (a metainfo file, BEP 3): the torrent's next start asks nobody for it, and who is looking
    /// for it now has it. It stays until the torrent is [forgotten](Self::forget).
    ///
    /// # Errors
    /// When it is none, or not to be trusted, or cannot be written.
    pub async fn bring(&self, bytes: Bytes) -> Result<Brought, BringError> {
        let Offered { magnet, metainfo } = examine_offered(bytes).await?;
        let (name, total) = (metainfo.name, metainfo.total);
        if self.get(&magnet.info_hash).is_none() {
            let kept_at = Folders(&self.0.config.data_dir).metainfo_of(&magnet.info_hash);
            let written = tokio::task::spawn_blocking(move || disk::write_lasting(&kept_at, &metainfo.bytes)).await;
            written.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())).map_err(|error| match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => BringError::NoSpace,
                kind => BringError::Failed(kind),
            })?;
        }
        if let Some(Entry::Adding(search)) = self.0.table().get(&magnet.info_hash) {
            search.brought.notify_one();
        }
        Ok(Brought { magnet, name, total })
    }

    /// Takes up the torrents of an earlier run, their files included, all at once. Those whose metadata was not kept are looked for
    /// like new ones, so one that nobody has any more delays the answer by the metadata timeout.
    pub async fn restore(&self, kept: Vec<KeptTorrent>) -> Vec<(InfoHash, Result<Torrent, TorrentError>)> {
        let restored = kept.into_iter().map(|kept| async move {
            let magnet = Magnet { trackers: kept.trackers, peers: kept.peers, ..Magnet::of(kept.info_hash) };
            let mut torrent = self.add(&magnet, |_| {}).await;
            if let Ok(found) = torrent.clone() {
                for index in kept.selected {
                    if let Err(error) = found.film(index).await {
                        torrent = Err(error);
                        break;
                    }
                }
            }
            (kept.info_hash, torrent)
        });
        futures_util::future::join_all(restored).await
    }

    /// Closes a torrent that nobody has any more: neither memory nor a peer is kept for it. Its files and its record stay, and the next
    /// [`add`](Self::add) takes it up as after a restart. `false` where somebody has it, or looks for it.
    pub async fn rest(&self, info_hash: &InfoHash) -> bool {
        let (torrent, finding, done) = {
            let mut table = self.0.table();
            match table.get(info_hash) {
                // Whoever has one has got it from this table, under this lock.
                Some(Entry::There { torrent, .. }) if torrent.is_only_one() => {}
                Some(_) => return false,
                None => return true,
            }
            let (done, ended) = watch::channel(());
            let Some(Entry::There { torrent, finding }) = table.insert(*info_hash, Entry::Closing(ended)) else { return false };
            (torrent, finding, done)
        };
        let (engine, info_hash) = (self.0.clone(), *info_hash);
        // A task of its own: it must not be half closed because the one who asked is gone.
        let closed = tokio::spawn(async move {
            finding.cancel();
            engine.rendezvous.forget(&info_hash.0);
            torrent.close(SourceError::Gone).await;
            let synced = torrent.clone();
            let _ = tokio::task::spawn_blocking(move || synced.sync()).await;
            engine.shared.open().remove(&info_hash);
            drop(torrent);
            engine.table().remove(&info_hash);
            // Whoever waits for the end looks into the table then.
            drop(done);
        });
        closed.await.is_ok()
    }

    /// Whether anything of a film is on the disk.
    pub fn holds(&self, info_hash: &InfoHash, file: usize) -> bool {
        self.0.shared.budget.holds(&(*info_hash, file))
    }

    /// Removes a torrent with everything that was kept of it. Whoever reads it gets [`SourceError::Gone`].
    pub async fn forget(&self, info_hash: &InfoHash) {
        while let Some(ended) = self.0.closing(info_hash) {
            is_closed(ended).await;
        }
        let entry = self.0.table().remove(info_hash);
        self.0.rendezvous.forget(&info_hash.0);
        self.0.shared.open().remove(info_hash);
        match entry {
            Some(Entry::There { torrent, finding }) => {
                finding.cancel();
                torrent.close(SourceError::Gone).await;
            }
            Some(Entry::Adding(search)) => search.finding.cancel(),
            Some(Entry::Closing(_)) | None => {}
        }
        let folders = Folders(&self.0.config.data_dir);
        let folder = folders.torrent(info_hash);
        let of_session = |ending: &str| folders.session().join(format!("{info_hash}.{ending}"));
        let files = [folders.metainfo_of(info_hash), of_session("bitv"), of_session("torrent")];
        let removed = tokio::task::spawn_blocking(move || {
            for file in files {
                let _ = std::fs::remove_file(file);
            }
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        if let Ok(Err(error)) = removed.await {
            warn!(%error, torrent = %info_hash, "the files of a torrent could not be removed");
        }
        self.0.shared.budget.forget(info_hash);
    }

    /// Where films lie below a data folder.
    pub fn films_in(data_dir: &Path) -> PathBuf {
        Folders(data_dir).torrents()
    }

    /// Makes everything fit that is on the disk: what may leave does, if there is less room than there was.
    pub async fn level(&self) {
        self.0.shared.level().await;
    }

    /// Pauses everything, or lets it go on: while it is paused nothing is fetched, given or looked for. What is here can be read.
    pub fn pause(&self, paused: bool) {
        self.0.shared.paused.send_if_modified(|held| std::mem::replace(held, paused) != paused);
    }

    /// Whether everything is paused; wakes when that changes.
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.0.shared.paused.subscribe()
    }

    /// Whether the engine runs.
    pub fn works(&self) -> bool {
        !self.0.shared.end.is_cancelled() && !self.0.shared.session.cancellation_token().is_cancelled()
    }

    /// Bytes that came from peers and that were given to them since the start.
    pub fn traffic(&self) -> (u64, u64) {
        let counters = self.0.shared.session.stats_snapshot().counters;
        (counters.fetched_bytes, counters.uploaded_bytes)
    }

    /// How many nodes of the DHT are known; `None` without it.
    pub fn dht_nodes(&self) -> Option<usize> {
        let stats = self.0.finder.dht.as_ref()?.stats();
        Some(stats.routing_table_size + stats.routing_table_size_v6)
    }

    /// Lets torrents talk to an address, although it may be private: one of our own seeders.
    pub fn admit(&self, peer: SocketAddr) {
        self.0.admission.name(peer);
    }

    /// Removes what lies in the data folder and belongs to none of `keep`.
    pub fn sweep(&self, keep: &[InfoHash]) {
        let folders = Folders(&self.0.config.data_dir);
        let kept: Vec<String> = keep.iter().map(InfoHash::to_string).collect();
        for (folder, is_dir) in [(folders.torrents(), true), (folders.metainfo(), false), (folders.session(), false)] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                let hash = stem.parse::<InfoHash>().ok();
                let known = hash.is_some_and(|hash| self.0.table().contains_key(&hash));
                // The session's folder holds more than what belongs to a torrent.
                let of_nobody = hash.is_none() && path.parent() == Some(&folders.session());
                if !known && !of_nobody && !kept.contains(&stem) {
                    let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                    if let Err(error) = removed {
                        warn!(%error, path = %path.display(), "what an earlier run left behind could not be removed");
                    }
                    hash.iter().for_each(|hash| self.0.shared.budget.forget(hash));
                }
            }
        }
    }

    /// Ends in order: readers are told, records and bytes are brought to the disk.
    pub async fn close(&self) {
        let entries: Vec<Entry> = self.0.table().drain().map(|(_, entry)| entry).collect();
        for entry in entries {
            let (torrent, finding) = match entry {
                Entry::There { torrent, finding } => (Some(torrent), finding),
                Entry::Adding(search) => (None, search.finding),
                Entry::Closing(ended) => {
                    is_closed(ended).await;
                    continue;
                }
            };
            finding.cancel();
            if let Some(torrent) = torrent {
                torrent.close(SourceError::Gone).await;
                let _ = tokio::task::spawn_blocking(move || torrent.sync()).await;
            }
        }
        self.0.shared.end.cancel();
        self.0.shared.session.cancellation_token().cancel();
        self.0.scout.cancellation_token().cancel();
    }

    fn origin(&self, magnet: &Magnet) -> Origin {
        let admitted = magnet.peers.iter().filter(|peer| self.0.admission.admits(peer));
        Origin { trackers: magnet.trackers.clone(), peers: admitted.copied().collect() }
    }

    async fn find_or_begin(&self, info_hash: InfoHash, origin: &Origin) -> Found {
        let failed = match self.0.table().get(&info_hash) {
            Some(Entry::There { torrent, .. }) if torrent.has_failed() => Some(torrent.clone()),
            _ => None,
        };
        if let Some(torrent) = failed {
            torrent.close(SourceError::Gone).await;
            if let Some(Entry::There { finding, .. }) = self.0.table().remove(&info_hash) {
                finding.cancel();
            }
        }
        let mut table = self.0.table();
        match table.get(&info_hash) {
            Some(Entry::There { torrent, .. }) => {
                torrent.heard_of(origin);
                return Found::There(torrent.clone());
            }
            Some(Entry::Adding(search)) if !search.finding.is_cancelled() => {
                search.book.add(origin.peers.iter().copied());
                return Found::Adding(search.clone());
            }
            Some(Entry::Closing(ended)) => return Found::Closing(ended.clone()),
            _ => {}
        }
        let book = PeerBook::new(self.0.admission.clone());
        book.add(self.0.config.peers.iter().copied());
        book.add(origin.peers.iter().copied());
        let (done, outcome) = watch::channel(None);
        let (moves, progress) = watch::channel(AddProgress { waited: Duration::ZERO, peers: *book.count().borrow() });
        let search = Search { outcome, progress, book, brought: Arc::default(), finding: self.0.shared.end.child_token() };
        table.insert(info_hash, Entry::Adding(search.clone()));
        drop(table);
        tokio::spawn(run_search(self.0.clone(), info_hash, origin.clone(), search.clone(), done, moves));
        Found::Adding(search)
    }
}

enum Found {
    There(Torrent),
    Adding(Search),
    Closing(watch::Receiver<()>),
}

/// Waits until a torrent is closed.
async fn is_closed(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
}

impl Search {
    async fn wait(mut self, told: &mut (impl FnMut(AddProgress) + Send)) -> Result<Torrent, TorrentError> {
        loop {
            let seen = *self.progress.borrow_and_update();
            told(seen);
            let moved = tokio::select! {
                biased;
                _ = self.outcome.wait_for(Option::is_some) => false,
                changed = self.progress.changed() => changed.is_ok(),
            };
            if !moved {
                return self.outcome.borrow().clone().unwrap_or(Err(TorrentError::Gone));
            }
        }
    }
}

impl Engine {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<InfoHash, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a torrent that is being closed.
    fn closing(&self, info_hash: &InfoHash) -> Option<watch::Receiver<()>> {
        if let Some(Entry::Closing(ended)) = self.table().get(info_hash) { Some(ended.clone()) } else { None }
    }
}

/// Looks for the metadata of one torrent and puts the torrent into the table. Ends when nobody waits for it any more.
async fn run_search(
    engine: Arc<Engine>,
    info_hash: InfoHash,
    origin: Origin,
    search: Search,
    done: watch::Sender<Outcome>,
    moves: watch::Sender<AddProgress>,
) {
    let Search { book, brought, finding, outcome, .. } = search;
    let found = find_metainfo(engine.clone(), info_hash, origin.clone(), book.clone(), &brought, finding.clone(), &moves);
    let found = tokio::select! {
        found = found => found,
        () = abandoned(&done, &moves) => Err(TorrentError::Gone),
        () = finding.cancelled() => Err(TorrentError::Gone),
    };
    let mut table = engine.table();
    let ours = |entry: &Entry| matches!(entry, Entry::Adding(search) if search.outcome.same_channel(&outcome));
    let still_wanted = table.get(&info_hash).is_some_and(ours);
    let result = match found {
        Ok(metainfo) if still_wanted => {
            let folder = Folders(&engine.config.data_dir).torrent(&info_hash);
            engine.rendezvous.tell(info_hash.0, &book);
            let torrent = Torrent::new(engine.shared.clone(), info_hash, metainfo, folder, book, origin);
            table.insert(info_hash, Entry::There { torrent: torrent.clone(), finding });
            Ok(torrent)
        }
        found => {
            finding.cancel();
            if still_wanted {
                table.remove(&info_hash);
            }
            found.and(Err(TorrentError::Gone))
        }
    };
    drop(table);
    done.send_replace(Some(result));
}

/// Returns when the receivers of the table and of the search itself are the only ones left.
async fn abandoned(done: &watch::Sender<Outcome>, moves: &watch::Sender<AddProgress>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let began = Instant::now();
    loop {
        tick.tick().await;
        if done.receiver_count() <= 2 && began.elapsed() > Duration::from_millis(500) {
            return;
        }
        moves.send_modify(|progress| progress.waited = began.elapsed());
    }
}

async fn find_metainfo(
    engine: Arc<Engine>,
    info_hash: InfoHash,
    origin: Origin,
    book: Arc<PeerBook>,
    brought: &Notify,
    finding: CancellationToken,
    moves: &watch::Sender<AddProgress>,
) -> Result<Metainfo, TorrentError> {
    let kept_at = Folders(&engine.config.data_dir).metainfo_of(&info_hash);
    let kept = read_kept(&kept_at, info_hash).await;
    let private = matches!(&kept, Some(Ok(metainfo)) if metainfo.private);
    // Peers are looked for as long as the torrent lives, not only for the metadata.
    tokio::spawn(finding.run_until_cancelled_owned({
        let (finder, book) = (engine.finder.clone(), book.clone());
        let mut pause = engine.shared.paused.subscribe();
        async move {
            let find = || finder.find(info_hash, &origin.trackers, private, &book);
            while unless_paused(&mut pause, find).await.is_none() {}
        }
    }));
    match kept {
        Some(Ok(metainfo)) => return Ok(metainfo),
        Some(Err(error)) => debug!(%error, "kept metadata is not usable"),
        None => {}
    }
    let mut pause = engine.shared.paused.subscribe();
    let bytes = loop {
        let told = |peers| moves.send_modify(|progress: &mut AddProgress| progress.peers = peers);
        // After a pause with all its time again.
        let deadline = || Instant::now() + engine.config.metadata_timeout;
        let read = unless_paused(&mut pause, || scout::read_metainfo(&engine.scout, info_hash, &book, deadline(), told));
        tokio::select! {
            read = read => match read {
                Some(read) => break read?,
                None => debug!("a search for metadata waits for the end of a pause"),
            },
            () = brought.notified() => {
                if let Some(Ok(metainfo)) = read_kept(&kept_at, info_hash).await {
                    return Ok(metainfo);
                }
            }
        }
    };
    let metainfo = examine(bytes, info_hash).await?;
    let kept = metainfo.bytes.clone();
    let written = tokio::task::spawn_blocking(move || disk::write_aside(&kept_at, &kept)).await;
    if let Ok(Err(error)) = written {
        warn!(%error, "the metadata could not be kept");
    }
    Ok(metainfo)
}

/// The metadata that was kept, examined; `None` where there is none.
async fn read_kept(kept_at: &Path, info_hash: InfoHash) -> Option<Result<Metainfo, TorrentError>> {
    let bytes = tokio::fs::read(kept_at).await.ok()?;
    Some(examine(Bytes::from(bytes), info_hash).await)
}

/// Works when nothing is paused. `None`: it was paused before the work was done, and the work given up.
async fn unless_paused<W: Future>(pause: &mut watch::Receiver<bool>, work: impl FnOnce() -> W) -> Option<W::Output> {
    if pause.wait_for(|paused| !*paused).await.is_err() {
        // The engine is gone, and whoever works for it is being ended.
        std::future::pending::<()>().await;
    }
    tokio::select! {
        done = work() => Some(done),
        Ok(_) = pause.wait_for(|paused| *paused) => None,
    }
}

/// The checks of [`Metainfo::examine`] in a task of their own: a parser that stumbles ends only that.
async fn examine(bytes: Bytes, info_hash: InfoHash) -> Result<Metainfo, TorrentError> {
    let examined = tokio::task::spawn_blocking(move || Metainfo::examine(&bytes, info_hash)).await;
    match examined {
        Ok(Ok(metainfo)) => Ok(metainfo),
        Ok(Err(reason)) => Err(TorrentError::Unsafe(reason)),
        Err(_) => Err(TorrentError::Unsafe("The torrent's metadata is damaged.".into())),
    }
}

/// Where things lie in the data folder.
struct Folders<'a>(&'a Path);

impl Folders<'_> {
    fn torrents(&self) -> PathBuf {
        self.0.join("torrents")
    }

    fn torrent(&self, info_hash: &InfoHash) -> PathBuf {
        self.torrents().join(info_hash.to_string())
    }

    fn metainfo(&self) -> PathBuf {
        self.0.join("metainfo")
    }

    fn metainfo_of(&self, info_hash: &InfoHash) -> PathBuf {
        self.metainfo().join(format!("{info_hash}.torrent"))
    }

    fn session(&self) -> PathBuf {
        self.0.join("session")
    }
}

fn peer_options(window: usize) -> PeerConnectionOptions {
    PeerConnectionOptions {
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_write_timeout: Some(SILENCE_TIMEOUT),
        keep_alive_interval: None,
        max_request_window: Some(window),
    }
}

fn fetching_session(config: &TorrentConfig, block_list: &Path, end: &CancellationToken) -> SessionOptions {
    let folder = Folders(&config.data_dir).session();
    let dht = DhtSessionConfig {
        persistence: Some(DhtPersistenceConfig { dump_interval: None, config_filename: Some(folder.join("dht.json")) }),
        ..Default::default()
    };
    SessionOptions {
        dht: config.dht.then_some(dht),
        fastresume: true,
        persistence: Some(SessionPersistenceConfig::Json { folder: Some(folder) }),
        listen: config.listen.map(|listen_addr| librqbit::ListenerOptions {
            mode: librqbit::ListenerMode::TcpOnly,
            listen_addr,
            ..Default::default()
        }),
        connect: Some(ConnectionOptions { peer_opts: Some(peer_options(config.request_window)), ..Default::default() }),
        // Every open stream holds one of these for its life, and each chunk that is written needs one.
        runtime_worker_threads: Some(512),
        concurrent_init_limit: Some(16),
        blocklist_url: (!config.allow_private_peers).then(|| url::Url::from_file_path(block_list).map(String::from)).and_then(Result::ok),
        cancellation_token: Some(end.child_token()),
        disable_local_service_discovery: true,
        ..Default::default()
    }
}

/// The scout has neither trackers nor DHT nor a port: it talks to the peers that it is given.
fn scout_session(end: &CancellationToken) -> SessionOptions {
    SessionOptions {
        dht: None,
        disable_trackers: true,
        connect: Some(ConnectionOptions { peer_opts: Some(peer_options(REQUEST_WINDOW)), ..Default::default() }),
        cancellation_token: Some(end.child_token()),
        disable_local_service_discovery: true,
        ..Default::default()
    }
}

/// Asks HTTP trackers: no redirects, no proxies of the environment, no private addresses.
fn http_client(admission: &Arc<Admission>) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(PublicNames(admission.clone())))
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(30))
        .build()
}

fn own_id() -> Result<Id20, TorrentError> {
    let mut id = *b"-BY0001-000000000000";
    let random = id.split_at_mut(8).1;
    getrandom::fill(random).map_err(|error| TorrentError::Failed(text_of(error)))?;
    Ok(Id20::new(id))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with this, and counts them.
    async fn tracker(answer: String) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listening");
        let (address, calls) = (listener.local_addr().expect("an address"), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let counted = calls.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (address, calls)
    }

    #[tokio::test]
    async fn trackers_lead_nobody_elsewhere() {
        let (inside, asked) = tracker("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()).await;
        for kind in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let (outside, _) = tracker(format!("HTTP/1.1 {kind}\r\nLocation: http://{inside}/admin\r\nContent-Length: 0\r\n\r\n")).await;
            let client = http_client(&Arc::new(Admission::new(false, []))).expect("a client");
            let answer = client.get(format!("http://{outside}/announce")).send().await.expect("an answer");
            assert_eq!(answer.status().as_str(), &kind[..3]);
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
        // A name that meant something else when it was judged.
        let client = http_client(&Arc::new(Admission::new(false, []))).expect("a client");
        client.get(format!("http://localhost:{}/announce", inside.port())).send().await.expect_err("looked up again, and private now");
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
        let client = http_client(&Arc::new(Admission::new(true, []))).expect("a client");
        client.get(format!("http://localhost:{}/announce", inside.port())).send().await.expect("with private peers it is allowed");
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
