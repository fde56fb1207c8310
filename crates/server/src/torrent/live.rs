//! One torrent: its files, its readers, and the task that steers what is fetched next.
//!
//! Metadata is known and checked before a [`Torrent`] exists. Nothing is downloaded until a film of it is asked for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::SeekFrom;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use balcony_media::magnet::InfoHash;
use librqbit::api::TorrentIdOrHash;
use librqbit::dht::Id20;
use librqbit::storage::StorageFactoryExt;
use librqbit::{AddTorrent, AddTorrentOptions, Api, ManagedTorrent, PeerConnectionOptions, Session, TorrentStatsState};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncSeek;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::disk::{self, Disk, DiskFactory};
use super::metainfo::{FileEntry, Metainfo};
use super::peers::PeerBook;
use super::wants::{Place, ReaderCount, Want, Wants};
use super::{TorrentError, text_of};
use crate::budget::{Budget, Film, Shortage, Verdict};
use crate::source::{Refocus, Source, SourceError};

/// librqbit wakes nobody when a torrent fails or is deleted: so often its state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same while nothing is to come and nobody waits: so late may be heard what is wrong with it.
const LOOK_AT_REST: Duration = Duration::from_secs(10);
/// So often the record of verified pieces is written while pieces come.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// Two refocuses that drop the connections lie so far apart at least.
const REFOCUS_GAP: Duration = Duration::from_secs(2);
/// Dialling all peers again costs about this much; requests in flight that are served sooner are let come.
const DIALLING_COSTS: Duration = Duration::from_millis(100);
/// Readers wait and no peer is connected: after so long all are dialled again, and then after half as long again, up to the last.
const REDIAL: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_secs(10));
/// The same where peers are connected and nothing comes from any: a line that died tells nobody so.
const REDIAL_SILENT: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(30));
/// The engine is told what is wrong on the disk at most so often: it dials all peers again each time.
const UNLEARN_GAP: Duration = Duration::from_secs(2);
/// Bytes that are hashed in one go while nobody waits for them.
const SWEEP: u64 = 8 << 20;
/// Hashing what nobody waits for takes one part of the time in so many, unless something was found to be wrong.
const SWEEP_SHARE: u32 = 4;
/// Bytes of one request to a peer.
const REQUEST: u64 = 16 << 10;

/// So long room is waited for that somebody is about to give up, and so often.
const GIVING_WAY: (Duration, usize) = (Duration::from_millis(500), 6);

/// A film that has to wait for room asks for it so often.
const ROOM_AGAIN: Duration = Duration::from_secs(2);

/// Who has to give way for a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Somebody watches it: what nobody watches gives way.
    Others,
    /// Nobody does: it takes what nobody has.
    Nobody,
}

/// What the steering task is asked for, and to whom it says that it was done.
enum Call {
    /// A new focus: where, and for how many viewers.
    Refocus(Place, usize, oneshot::Sender<Refocus>),
    /// To give up the bytes of a file that was unselected before.
    Leave(usize, oneshot::Sender<()>),
}

/// What all torrents of a session share.
pub(super) struct Shared {
    pub(super) session: Arc<Session>,
    pub(super) api: Api,
    pub(super) count: ReaderCount,
    /// librqbit's own numbers are given twice when torrents are added at the same time, and the second torrent puts the first one out.
    pub(super) next_id: AtomicUsize,
    pub(super) request_window: usize,
    pub(super) rendezvous: String,
    pub(super) budget: Arc<Budget>,
    /// All torrents that are open.
    pub(super) open: Mutex<HashMap<InfoHash, Weak<Inner>>>,
    pub(super) folder: std::path::PathBuf,
    pub(super) bitfields: std::path::PathBuf,
    /// The right to hash what nobody waits for: one torrent at a time.
    pub(super) sweeping: Arc<Semaphore>,
    /// Whether nothing is to be fetched or given.
    pub(super) paused: watch::Sender<bool>,
    pub(super) end: CancellationToken,
}

/// A torrent whose metadata is known. Clones are cheap and mean the same torrent.
#[derive(Clone)]
pub struct Torrent(pub(super) Arc<Inner>);

pub(super) struct Inner {
    shared: Arc<Shared>,
    pub(super) info_hash: InfoHash,
    metainfo: Metainfo,
    disk: Arc<Disk>,
    pub(super) book: Arc<PeerBook>,
    wants: Arc<Wants>,
    origin: Mutex<Origin>,
    running: Mutex<Running>,
    calls: mpsc::Sender<Call>,
    inbox: Mutex<Option<mpsc::Receiver<Call>>>,
    selection_changed: Arc<Notify>,
    end: CancellationToken,
    _end_with_me: DropGuard,
}

/// Where the torrent was heard of.
#[derive(Debug, Default, Clone)]
pub(super) struct Origin {
    pub(super) trackers: Vec<String>,
    pub(super) peers: Vec<SocketAddr>,
}

#[derive(Default)]
struct Running {
    selected: BTreeSet<usize>,
    /// Files that were selected, and have left to make room: they are fetched again when somebody reads them.
    asleep: BTreeSet<usize>,
    /// Files for whose rest there is no room. What is here of them can be read, and the rest is fetched as soon as there is.
    lacking: BTreeSet<usize>,
    started: bool,
    handle: Option<Arc<ManagedTorrent>>,
    steering: Option<tokio::task::JoinHandle<Option<()>>>,
    /// Bytes that were uploaded before the last time the peers were dialled again.
    uploaded: u64,
}

/// What must be kept so that a torrent goes on after a restart. The bytes and the metadata lie in the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTorrent {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Trackers, as the magnet named them.
    pub trackers: Vec<String>,
    /// Peers, as the magnet named them.
    pub peers: Vec<SocketAddr>,
    /// Numbers of the files that are being fetched.
    pub selected: Vec<usize>,
}

/// How a torrent is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct TorrentStats {
    /// Verified bytes of the file that was asked about.
    pub downloaded: u64,
    /// Bytes of that file.
    pub total: u64,
    /// Bytes per second, of the whole torrent.
    pub download_speed: u64,
    /// Bytes per second, of the whole torrent.
    pub upload_speed: u64,
    /// Bytes uploaded since the start of the program.
    pub uploaded: u64,
    /// Peers that are connected or being dialled.
    pub peers: usize,
    /// Peers that answer.
    pub live: usize,
    /// Peers that are known.
    pub seen: usize,
    /// What it does.
    pub state: TorrentState,
    /// Why it has stopped, in `state` [`TorrentState::Failed`].
    pub error: Option<SourceError>,
}

/// What a torrent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TorrentState {
    /// No film of it was asked for yet, or all were released.
    Idle,
    /// What lies on the disk is being checked.
    Checking,
    /// It fetches, or has all.
    Live,
    /// There is no room on the disk for what comes next. It goes on by itself when there is.
    Full,
    /// It has stopped with an error.
    Failed,
    /// It was removed.
    Gone,
}

impl std::fmt::Debug for Torrent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Torrent").field(&self.0.info_hash).finish()
    }
}

impl Torrent {
    pub(super) fn new(
        shared: Arc<Shared>,
        info_hash: InfoHash,
        metainfo: Metainfo,
        folder: std::path::PathBuf,
        book: Arc<PeerBook>,
        origin: Origin,
    ) -> Self {
        let (calls, inbox) = mpsc::channel(16);
        let end = shared.end.child_token();
        let inner = Arc::new(Inner {
            disk: Disk::new(folder, &metainfo, shared.budget.clone()),
            shared,
            info_hash,
            metainfo,
            book,
            wants: Arc::default(),
            origin: Mutex::new(origin),
            running: Mutex::default(),
            calls,
            inbox: Mutex::new(Some(inbox)),
            selection_changed: Arc::default(),
            _end_with_me: end.clone().drop_guard(),
            end,
        });
        inner.shared.open().insert(info_hash, Arc::downgrade(&inner));
        Self(inner)
    }

    /// Which torrent.
    pub fn info_hash(&self) -> InfoHash {
        self.0.info_hash
    }

    /// The name that the torrent gives itself.
    pub fn name(&self) -> Option<&str> {
        self.0.metainfo.name.as_deref()
    }

    /// Bytes of all files together.
    pub fn total(&self) -> u64 {
        self.0.metainfo.total
    }

    /// All files, in the torrent's order.
    pub fn files(&self) -> &[FileEntry] {
        &self.0.metainfo.files
    }

    /// What the store must keep of it.
    pub fn kept(&self) -> KeptTorrent {
        let origin = self.0.origin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let selected = self.0.running().selected.iter().copied().collect();
        KeptTorrent { info_hash: self.0.info_hash, trackers: origin.trackers, peers: origin.peers, selected }
    }

    /// Begins (or goes on) to fetch a file and gives it to read from; its head and tail come first. Other files that are being
    /// fetched go on.
    ///
    /// # Errors
    /// When there is no room for it, it is not there, or the engine fails.
    pub async fn film(&self, index: usize) -> Result<Source, TorrentError> {
        self.open(index, Needs::Others).await
    }

    /// The same for a film that somebody had before. Where there is no room for the rest, what is here can be read, and the rest comes
    /// when there is; others give way for it only once somebody reads what is missing.
    ///
    /// # Errors
    /// When it is not there, or the engine fails.
    pub async fn film_again(&self, index: usize) -> Result<Source, TorrentError> {
        self.open(index, Needs::Nobody).await
    }

    async fn open(&self, index: usize, needs: Needs) -> Result<Source, TorrentError> {
        let Some(entry) = self.0.metainfo.files.get(index) else { return Err(TorrentError::NothingPlayable) };
        if let Some(fault) = self.0.disk.fault() {
            return Err(fault.into());
        }
        let fits = match self.0.make_room(index, entry.length, needs).await {
            Ok(()) => true,
            // It may be read by others who wait for room, or fetched for them.
            Err(TorrentError::NoSpace { .. }) if needs == Needs::Nobody => self.is_fetched(index),
            Err(error) => return Err(error),
        };
        let start = {
            let mut running = self.0.running();
            running.asleep.remove(&index);
            if fits {
                running.lacking.remove(&index);
                running.selected.insert(index);
            } else {
                running.lacking.insert(index);
            }
            !std::mem::replace(&mut running.started, true)
        };
        if start {
            // A task of its own: whoever asked may go away, and the torrent must not be half begun.
            let inner = self.0.clone();
            let begun = tokio::spawn(async move { inner.start().await }).await;
            let begun = begun.unwrap_or_else(|_| Err(TorrentError::Failed("the torrent engine stumbled over this torrent".into())));
            if let Err(error) = begun {
                self.0.running().started = false;
                self.0.shared.budget.settle(&self.0.film(index));
                return Err(error);
            }
        }
        self.0.selection_changed.notify_one();
        Ok(Source::torrent(FilmFile { inner: self.0.clone(), index }))
    }

    /// Stops fetching a file (what is here of it stays until the torrent is removed). The last one stops the torrent.
    pub fn release(&self, index: usize) {
        {
            let mut running = self.0.running();
            running.selected.remove(&index);
            running.asleep.remove(&index);
            running.lacking.remove(&index);
        }
        self.0.selection_changed.notify_one();
        self.0.shared.budget.settle(&self.0.film(index));
    }

    /// How it is doing; `index` is the file whose bytes are counted.
    pub fn stats(&self, index: usize) -> TorrentStats {
        let total = self.0.metainfo.files.get(index).map_or(0, |file| file.length);
        let mut stats = TorrentStats {
            downloaded: self.0.disk.verified_bytes(index),
            total,
            download_speed: 0,
            upload_speed: 0,
            uploaded: 0,
            peers: 0,
            live: 0,
            seen: *self.0.book.count().borrow(),
            state: TorrentState::Idle,
            error: self.0.disk.fault(),
        };
        let (handle, uploaded, lacking) = {
            let running = self.0.running();
            (running.handle.clone(), running.uploaded, running.lacking.contains(&index))
        };
        stats.uploaded = uploaded;
        if let Some(handle) = handle {
            let seen = handle.stats();
            stats.uploaded += seen.uploaded_bytes;
            stats.state = match seen.state {
                TorrentStatsState::Initializing { .. } => TorrentState::Checking,
                TorrentStatsState::Live => TorrentState::Live,
                TorrentStatsState::Paused => TorrentState::Idle,
                TorrentStatsState::Error => TorrentState::Failed,
            };
            if let Some(live) = seen.live {
                stats.download_speed = bytes_per_second(live.download_speed.mbps);
                stats.upload_speed = bytes_per_second(live.upload_speed.mbps);
                let peers = live.snapshot.peer_stats;
                stats.live = peers.live as usize;
                stats.peers = (peers.live + peers.connecting) as usize;
                stats.seen = stats.seen.max(peers.seen as usize);
            }
        }
        match stats.error {
            Some(SourceError::Gone) => stats.state = TorrentState::Gone,
            Some(_) => stats.state = TorrentState::Failed,
            None if self.0.disk.is_full() || lacking => stats.state = TorrentState::Full,
            None => {}
        }
        stats
    }

    /// Counts what changes in what is here of it.
    pub fn change(&self) -> u64 {
        self.0.disk.change()
    }

    /// The parts of a file that are here, as offsets in that file: ascending, none touching the next.
    pub fn fetched(&self, index: usize) -> Vec<Range<u64>> {
        self.0.disk.verified_ranges(index)
    }

    /// Adds what another magnet knows about the same torrent.
    pub(super) fn heard_of(&self, origin: &Origin) {
        self.0.book.add(origin.peers.iter().copied());
        let mut held = self.0.origin.lock().unwrap_or_else(PoisonError::into_inner);
        for tracker in &origin.trackers {
            if !held.trackers.contains(tracker) {
                held.trackers.push(tracker.clone());
            }
        }
        for peer in &origin.peers {
            if !held.peers.contains(peer) {
                held.peers.push(*peer);
            }
        }
    }

    /// Whether nobody else has it.
    pub(super) fn is_only_one(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Whether a file is being fetched, or would be if it were not whole.
    pub fn is_fetched(&self, index: usize) -> bool {
        let running = self.0.running();
        running.selected.contains(&index) || running.lacking.contains(&index)
    }

    /// Whether it has stopped with an error, so that it must be taken up anew.
    pub(super) fn has_failed(&self) -> bool {
        self.0.disk.fault().is_some()
    }

    /// Ends it: whoever reads is told, librqbit lets go of it. The files stay.
    pub(super) async fn close(&self, fault: SourceError) {
        self.0.disk.fail(fault);
        self.0.end.cancel();
        // It may be about to add the torrent anew.
        let steering = self.0.running().steering.take();
        if let Some(steering) = steering {
            let _ = steering.await;
        }
        let handle = self.0.running().handle.take();
        if handle.is_some() {
            let id = TorrentIdOrHash::Hash(Id20::new(self.0.info_hash.0));
            if let Err(error) = self.0.shared.session.delete(id, false).await {
                debug!(%error, "a torrent was gone already");
            }
        }
    }

    /// Brings bytes and record to the disk, so that the next start trusts them whatever happens to the machine.
    pub(super) fn sync(&self) {
        if let Err(error) = self.0.disk.record(true) {
            warn!(%error, "the record of verified pieces could not be written");
        }
    }
}

fn bytes_per_second(mebibytes: f64) -> u64 {
    // Not negative and far below 2^53; `as` saturates.
    (mebibytes * 1_048_576.0) as u64
}

impl Shared {
    pub(super) fn open(&self) -> std::sync::MutexGuard<'_, HashMap<InfoHash, Weak<Inner>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything fit that is here: what may leave does.
    pub(super) async fn level(&self) {
        let budget = self.budget.clone();
        let Ok(surplus) = tokio::task::spawn_blocking(move || budget.level()).await else { return };
        for film in surplus {
            self.leave(film).await;
        }
    }

    /// Makes a film that nobody watches wait with what is still to come of it.
    fn hold_back(&self, film: Film) {
        if let Some(torrent) = self.open().get(&film.0).and_then(Weak::upgrade) {
            torrent.hold_back(film.1);
        }
        self.budget.settle(&film);
    }

    /// Makes a film give up its bytes.
    pub(super) async fn leave(&self, film: Film) {
        let home = self.open().get(&film.0).and_then(Weak::upgrade);
        match home {
            Some(torrent) => torrent.leave(film.1).await,
            None => {
                let folder = self.folder.join(film.0.to_string());
                if tokio::task::spawn_blocking(move || disk::remove_left(&folder, film.1)).await.is_err() {
                    warn!("what an earlier run has left of a film could not be removed");
                }
            }
        }
        self.budget.left(&film);
    }
}

impl Inner {
    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under which name the budget knows a file.
    fn film(&self, index: usize) -> Film {
        (self.info_hash, index)
    }

    /// Gets room for the rest of the file, for which others may have to give way.
    async fn make_room(&self, index: usize, length: u64, needs: Needs) -> Result<(), TorrentError> {
        std::fs::create_dir_all(self.disk.folder()).map_err(|error| TorrentError::Failed(text_of(error.kind())))?;
        let (budget, film, whole) = (&self.shared.budget, self.film(index), self.disk.whole(index).max(length));
        let mut made_room = budget.made_room();
        for _ in 0..GIVING_WAY.1 {
            made_room.mark_unchanged();
            match budget.admit(film, whole) {
                Verdict::Fits => return Ok(()),
                // Segments that are being read go when they were.
                Verdict::After { .. } if needs == Needs::Nobody => break,
                Verdict::After { hold_back, leave, .. } if hold_back.is_empty() && leave.is_empty() => {
                    let _ = tokio::time::timeout(GIVING_WAY.0, made_room.changed()).await;
                }
                Verdict::After { hold_back, leave, .. } => {
                    for other in hold_back {
                        self.shared.hold_back(other);
                    }
                    for other in leave {
                        // Boxed: the one that leaves never makes room itself.
                        Box::pin(self.shared.leave(other)).await;
                    }
                }
                Verdict::Never(Shortage { needed, free, limit, others }) => {
                    return Err(TorrentError::NoSpace { needed, free, limit, others });
                }
            }
        }
        let usage = budget.usage();
        Err(TorrentError::NoSpace { needed: whole, free: 0, limit: usage.limit, others: usage.films.saturating_add(usage.promised) })
    }

    /// Gives up the bytes of a file. It is fetched again when somebody reads it.
    async fn leave(&self, index: usize) {
        let steered = {
            let mut running = self.running();
            if running.selected.remove(&index) {
                running.asleep.insert(index);
            }
            running.steering.is_some()
        };
        info!(torrent = %self.info_hash, "a film that nobody watches leaves, so that there is room for another one");
        if steered {
            let (answer, done) = oneshot::channel();
            if self.calls.send(Call::Leave(index, answer)).await.is_ok() {
                let _ = done.await;
            }
        } else {
            self.give_up(index).await;
        }
    }

    async fn give_up(&self, index: usize) {
        let (disk, kept) = (self.disk.clone(), self.running().selected.clone());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || disk.give_up(index, &kept)).await {
            warn!(%error, "the bytes of a film could not be given up");
        }
    }

    /// Fetches a file again that has left or waits for room.
    async fn wake(&self, index: usize, needs: Needs) -> Result<(), TorrentError> {
        let rests = |running: &Running| running.asleep.contains(&index) || running.lacking.contains(&index);
        if !rests(&self.running()) {
            return Ok(());
        }
        let length = self.metainfo.files.get(index).map_or(0, |entry| entry.length);
        self.make_room(index, length, needs).await?;
        {
            let mut running = self.running();
            if rests(&running) {
                running.asleep.remove(&index);
                running.lacking.remove(&index);
                running.selected.insert(index);
            }
        }
        self.selection_changed.notify_one();
        Ok(())
    }

    /// What is still to come of a file that nobody watches is fetched when there is more room.
    fn hold_back(&self, index: usize) {
        let mut running = self.running();
        if running.selected.remove(&index) {
            running.lacking.insert(index);
        }
        drop(running);
        info!(torrent = %self.info_hash, "what is still to come of a film that nobody watches waits, so that there is room for another one");
        self.selection_changed.notify_one();
    }

    /// Somebody reads a file that has left, and there is no room: it is fetched when there is.
    fn lack(&self, index: usize) {
        let mut running = self.running();
        if running.asleep.remove(&index) {
            running.lacking.insert(index);
        }
    }

    /// Files that wait for room.
    fn lacking(&self) -> Vec<usize> {
        self.running().lacking.iter().copied().collect()
    }

    /// Hands the torrent to librqbit and starts the steering task.
    async fn start(self: Arc<Self>) -> Result<(), TorrentError> {
        let handle = self.begin(self.shared.request_window, self.disk.recorded()).await?;
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inbox) = inbox {
            let steering = Steering::new(&self, handle, inbox);
            let task = tokio::spawn(self.end.clone().run_until_cancelled_owned(steering.run()));
            self.running().steering = Some(task);
        }
        Ok(())
    }

    /// Adds the torrent to librqbit, paused, with what is verified already; without `bits` it hashes all that lies there.
    async fn begin(&self, request_window: usize, bits: Option<Vec<u8>>) -> Result<Arc<ManagedTorrent>, TorrentError> {
        self.lay_out_bitfield(bits)?;
        let options = AddTorrentOptions {
            // The steering task lets it go as soon as the first readers' places are known: else the first requests to a slow peer
            // would be for whatever librqbit takes first by itself.
            paused: true,
            only_files: Some(self.running().selected.iter().copied().collect()),
            overwrite: true,
            output_folder: Some(self.disk.folder().to_string_lossy().into_owned()),
            peer_opts: Some(PeerConnectionOptions { max_request_window: Some(request_window), ..Default::default() }),
            initial_peers: Some(self.book.all()),
            preferred_id: Some(self.shared.next_id.fetch_add(1, Ordering::Relaxed)),
            storage_factory: Some(DiskFactory(self.disk.clone()).boxed()),
            trackers: Some(vec![self.shared.rendezvous.clone()]),
            ..Default::default()
        };
        let add = AddTorrent::from_bytes(self.metainfo.bytes.clone());
        let added = self.shared.session.add_torrent(add, Some(options)).await;
        let handle = added.map_err(|error| TorrentError::Failed(text_of(error)))?.into_handle();
        let handle = handle.ok_or_else(|| TorrentError::Failed("the torrent engine did not take the torrent".into()))?;
        self.running().handle = Some(handle.clone());
        Ok(handle)
    }

    /// Puts down the bitfield from which librqbit resumes.
    fn lay_out_bitfield(&self, bits: Option<Vec<u8>>) -> Result<(), TorrentError> {
        let path = self.shared.bitfields.join(format!("{}.bitv", self.info_hash));
        // Somebody may have tidied up while we run.
        for folder in [&self.shared.bitfields, self.disk.folder()] {
            std::fs::create_dir_all(folder).map_err(|error| TorrentError::Failed(text_of(error.kind())))?;
        }
        let laid = match bits {
            Some(bits) => std::fs::write(&path, bits),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        laid.map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => SourceError::NoSpace.into(),
            kind => TorrentError::Failed(text_of(kind)),
        })
    }
}

/// A stream of librqbit. It stands for a priority: it is moved, and never read from.
struct OpenStream {
    place: Place,
    stream: Box<dyn AsyncSeek + Send + Sync + Unpin>,
}

impl OpenStream {
    fn move_to(&mut self, place: Place) -> bool {
        self.place = place;
        Pin::new(&mut self.stream).start_seek(SeekFrom::Start(place.1)).is_ok()
    }
}

/// The task of one torrent: keeps librqbit's streams where the readers are, and looks after its health.
struct Steering {
    shared: Arc<Shared>,
    info_hash: InfoHash,
    inner: Weak<Inner>,
    wants: Arc<Wants>,
    disk: Arc<Disk>,
    book: Arc<PeerBook>,
    handle: Arc<ManagedTorrent>,
    inbox: mpsc::Receiver<Call>,
    selection_changed: Arc<Notify>,
    paused: watch::Receiver<bool>,
    streams: Vec<OpenStream>,
    applied: BTreeSet<usize>,
    last_refocus: Option<Instant>,
    request_window: usize,
    redial_after: Duration,
    redial_silent_after: Duration,
    last_redial: Instant,
    /// Bytes that came from peers at the last look, and when they last grew.
    came: (u64, Instant),
    recorded: (u64, Instant),
    last_unlearned: Option<Instant>,
    /// When room was last asked for that something waits for.
    asked_for_room: Instant,
    /// Files that are whole, as far as the budget was told.
    whole: BTreeSet<usize>,
    _sweep: AbortOnDropHandle<()>,
}

/// Hashes what an earlier run has left of a torrent, once somebody reads of it: slowly, as nobody waits for it; at once when
/// something of it was found to be wrong.
async fn sweep(disk: Arc<Disk>, turns: Arc<Semaphore>) {
    let mut from = 0;
    loop {
        disk.is_doubted().await;
        while disk.next_doubtful(from).is_some() {
            let Ok(turn) = turns.acquire().await else { return };
            let began = Instant::now();
            let hashing = disk.clone();
            let swept = tokio::task::spawn_blocking(move || {
                let mut done = 0;
                while let Some(piece) = hashing.next_doubtful(from).filter(|_| done < SWEEP) {
                    hashing.check(piece);
                    (done, from) = (done + hashing.piece_len(), piece + 1);
                }
                from
            });
            match swept.await {
                Ok(next) => from = next,
                Err(_) => return,
            }
            drop(turn);
            if !disk.is_alarmed() {
                tokio::time::sleep(began.elapsed() * (SWEEP_SHARE - 1)).await;
            }
        }
    }
}

impl Steering {
    fn new(inner: &Arc<Inner>, handle: Arc<ManagedTorrent>, inbox: mpsc::Receiver<Call>) -> Self {
        Self {
            shared: inner.shared.clone(),
            info_hash: inner.info_hash,
            inner: Arc::downgrade(inner),
            wants: inner.wants.clone(),
            disk: inner.disk.clone(),
            book: inner.book.clone(),
            handle,
            inbox,
            selection_changed: inner.selection_changed.clone(),
            paused: inner.shared.paused.subscribe(),
            streams: Vec::new(),
            applied: inner.running().selected.clone(),
            last_refocus: None,
            request_window: inner.shared.request_window,
            redial_after: REDIAL.0,
            redial_silent_after: REDIAL_SILENT.0,
            last_redial: Instant::now(),
            came: (0, Instant::now()),
            recorded: (0, Instant::now()),
            last_unlearned: None,
            asked_for_room: Instant::now(),
            whole: BTreeSet::new(),
            _sweep: AbortOnDropHandle::new(tokio::spawn(sweep(inner.disk.clone(), inner.shared.sweeping.clone()))),
        }
    }

    async fn run(mut self) {
        if !self.settle().await {
            return;
        }
        self.steer().await;
        if !self.applied.is_empty() && !self.let_go().await {
            return;
        }
        let mut looked = Instant::now();
        loop {
            let look = looked + if self.is_at_rest() { LOOK_AT_REST } else { LOOK_EVERY };
            let until = self.steer().await;
            tokio::select! {
                () = self.wants.changed() => {}
                () = wait_until(until) => {}
                () = self.disk.finds_wrong() => {
                    if !self.unlearn().await {
                        return;
                    }
                }
                () = self.selection_changed.notified() => self.apply_selection().await,
                Ok(()) = self.paused.changed() => self.apply_pause().await,
                Some(call) = self.inbox.recv() => match call {
                    Call::Refocus(place, viewers, answer) => {
                        let done = self.refocus(place, viewers).await;
                        let _ = answer.send(done);
                    }
                    Call::Leave(file, answer) => {
                        let goes_on = self.leave(file).await;
                        let _ = answer.send(());
                        if !goes_on {
                            return;
                        }
                    }
                },
                () = wait_until(Some(look)) => {
                    if !self.look().await {
                        return;
                    }
                    looked = Instant::now();
                }
            }
        }
    }

    /// Waits until librqbit has checked what lies on the disk, and takes its result over.
    async fn settle(&self) -> bool {
        if let Err(error) = self.handle.wait_until_initialized().await {
            self.disk.fail(SourceError::Failed(text_of(error)));
            return false;
        }
        // Twice: the first answer may be older than a piece that came meanwhile, the second only adds.
        for _ in 0..2 {
            match self.shared.api.api_dump_haves(TorrentIdOrHash::Hash(Id20::new(self.info_hash.0))) {
                Ok((bits, _)) => self.disk.settle(bits.as_raw_slice()),
                Err(error) => {
                    self.disk.fail(SourceError::Failed(text_of(error)));
                    return false;
                }
            }
        }
        true
    }

    /// Makes librqbit's streams those that the readers want. Gives the time at which that must be done again.
    async fn steer(&mut self) -> Option<Instant> {
        let desired = self.wants.desired(Instant::now(), self.disk.piece_len());
        // A place is fetched whether its file is or not.
        let mut missing: BTreeSet<Place> = desired.places.into_iter().filter(|(file, _)| self.applied.contains(file)).collect();
        let held = std::mem::take(&mut self.streams);
        let (kept, mut free): (Vec<_>, Vec<_>) = held.into_iter().partition(|open| missing.remove(&open.place));
        self.streams = kept;
        for place in missing {
            // Moving one is cheaper: opening makes librqbit look at all its peers.
            let moved = free.iter().position(|open| open.place.0 == place.0).map(|index| free.swap_remove(index));
            let open = match moved {
                Some(mut open) => open.move_to(place).then_some(open),
                None => self.open(place).await,
            };
            self.streams.extend(open);
        }
        desired.until
    }

    async fn open(&self, place: Place) -> Option<OpenStream> {
        let opened = tokio::time::timeout(LOOK_EVERY, self.handle.clone().stream(place.0)).await;
        match opened {
            Ok(Ok(stream)) => {
                let mut open = OpenStream { place, stream: Box::new(stream) };
                open.move_to(place).then_some(open)
            }
            Ok(Err(error)) => {
                debug!(%error, "a stream could not be opened");
                None
            }
            Err(_) => None,
        }
    }

    async fn apply_selection(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let selected = inner.running().selected.clone();
        drop(inner);
        if selected == self.applied {
            return;
        }
        if selected.is_empty() {
            if let Err(error) = self.shared.session.pause(&self.handle).await {
                debug!(%error, "a torrent could not be paused");
            }
        } else {
            let files: HashSet<usize> = selected.iter().copied().collect();
            if let Err(error) = self.shared.session.update_only_files(&self.handle, &files).await {
                warn!(%error, "the selected files could not be changed");
            }
            if self.applied.is_empty() {
                self.go_on().await;
            }
        }
        self.applied = selected;
    }

    /// Everything was paused, or goes on.
    async fn apply_pause(&mut self) {
        let paused = *self.paused.borrow_and_update();
        if !paused && !self.applied.is_empty() {
            self.go_on().await;
        }
        if !paused || self.handle.is_paused() {
            return;
        }
        self.learn_live_peers();
        self.count_uploaded();
        if let Err(error) = self.shared.session.pause(&self.handle).await {
            debug!(%error, "a torrent could not be paused");
        }
    }

    /// Takes the torrent up again, unless everything is paused.
    async fn go_on(&self) {
        if *self.paused.borrow() || !self.handle.is_paused() {
            return;
        }
        if let Err(error) = self.shared.session.unpause(&self.handle).await {
            warn!(%error, "a torrent could not be taken up again");
        }
    }

    async fn refocus(&mut self, place: Place, viewers: usize) -> Refocus {
        let now = Instant::now();
        if viewers > 1 {
            return Refocus::Prioritised;
        }
        self.wants.focus(place, now);
        self.steer().await;
        if self.last_refocus.is_some_and(|last| now - last < REFOCUS_GAP) {
            return Refocus::Prioritised;
        }
        // Nothing comes either while everything is paused.
        let Some(pace) = self.pace() else { return Refocus::NotNeeded };
        // A peer is asked for whole pieces, and for no more than the window at once: what is left of the piece comes after it.
        let asked = (self.request_window as u64 * REQUEST).max(self.disk.piece_len());
        let lasts = Duration::from_secs_f64(asked as f64 / pace as f64);
        if lasts <= DIALLING_COSTS {
            return Refocus::Prioritised;
        }
        self.last_refocus = Some(now);
        let done = self.dial_anew(fitting_window(pace, self.request_window)).await;
        debug!(?lasts, pace, window = self.request_window, done, took = ?now.elapsed(), "refocus");
        if done { Refocus::Cancelled } else { Refocus::Prioritised }
    }

    /// Bytes per second that one peer sends; `None` when nothing comes.
    fn pace(&self) -> Option<u64> {
        let live = self.handle.stats().live?;
        let speed = bytes_per_second(live.download_speed.mbps);
        Some(speed / u64::from(live.snapshot.peer_stats.live).max(1)).filter(|pace| *pace > 0)
    }

    /// Drops all connections and dials all known peers again, with another request window if that fits better.
    async fn dial_anew(&mut self, request_window: usize) -> bool {
        if request_window == self.request_window { self.redial().await } else { self.rejoin(request_window).await }
    }

    /// Takes the torrent out of librqbit and puts it in again with another request window, which is fixed at the add. Bytes and
    /// readers stay where they are.
    async fn rejoin(&mut self, request_window: usize) -> bool {
        let Some(inner) = self.inner.upgrade() else { return false };
        self.take_out().await;
        self.put_in(inner, request_window).await
    }

    async fn take_out(&mut self) {
        self.last_redial = Instant::now();
        self.learn_live_peers();
        self.count_uploaded();
        self.streams.clear();
        let id = TorrentIdOrHash::Hash(Id20::new(self.info_hash.0));
        if let Err(error) = self.shared.session.delete(id, false).await {
            // It is out all the same when only its record could not be written: there is nothing to go back to.
            debug!(%error, "a torrent was taken out with an error");
        }
    }

    async fn put_in(&mut self, inner: Arc<Inner>, request_window: usize) -> bool {
        self.applied = inner.running().selected.clone();
        match inner.begin(request_window, Some(self.disk.learned_bits())).await {
            Ok(handle) => self.handle = handle,
            // A quota shows in no free space: it is tried again with the next look.
            Err(TorrentError::NoSpace { .. }) => {
                self.disk.has_no_room();
                return false;
            }
            Err(error) => {
                self.disk.fail(SourceError::Failed(text_of(error)));
                return false;
            }
        }
        drop(inner);
        self.request_window = request_window;
        if !self.settle().await {
            return false;
        }
        self.steer().await;
        self.applied.is_empty() || self.let_go().await
    }

    /// Gives up the bytes of a file, of which librqbit must not know any more. False ends the task.
    async fn leave(&mut self, file: usize) -> bool {
        let Some(inner) = self.inner.upgrade() else { return false };
        self.whole.remove(&file);
        self.take_out().await;
        inner.give_up(file).await;
        self.put_in(inner, self.request_window).await
    }

    /// Tells the budget of files that are whole: nothing more comes of them.
    fn count_whole(&mut self) {
        for file in self.applied.clone() {
            let is_whole = || self.disk.verified_bytes(file) >= self.disk.len(file);
            if !self.whole.contains(&file) && is_whole() {
                self.whole.insert(file);
                self.shared.budget.settle(&(self.info_hash, file));
            }
        }
    }

    /// There was no room for what came last. When there is again, it goes on. False ends the task.
    async fn wait_for_room(&mut self) -> bool {
        let to_come = self.applied.iter().map(|file| self.disk.len(*file).saturating_sub(self.disk.verified_bytes(*file))).sum();
        if !self.shared.budget.has_room(to_come) {
            return true;
        }
        info!(torrent = %self.info_hash, "there is room again");
        self.disk.has_room_again();
        self.rejoin(self.request_window).await || self.disk.fault().is_none()
    }

    /// Tells librqbit which pieces are not here any more, by taking the torrent out and putting it in again: it forgets none by
    /// itself. Not too often; what is put off is done at the next look. False ends the task.
    async fn unlearn(&mut self) -> bool {
        let now = Instant::now();
        if !self.disk.is_unlearned() || self.disk.is_full() || self.last_unlearned.is_some_and(|last| now - last < UNLEARN_GAP) {
            return true;
        }
        self.last_unlearned = Some(now);
        info!(torrent = %self.info_hash, "pieces that are wrong on the disk are fetched again");
        self.rejoin(self.request_window).await || self.disk.fault().is_none()
    }

    async fn let_go(&self) -> bool {
        if *self.paused.borrow() {
            return true;
        }
        if let Err(error) = self.shared.session.unpause(&self.handle).await {
            self.disk.fail(SourceError::Failed(text_of(error)));
            return false;
        }
        true
    }

    /// Drops all connections and dials all known peers again; streams stay.
    async fn redial(&mut self) -> bool {
        self.last_redial = Instant::now();
        self.learn_live_peers();
        self.count_uploaded();
        let paused = self.shared.session.pause(&self.handle).await;
        let unpaused = self.shared.session.unpause(&self.handle).await;
        if let Err(error) = paused.and(unpaused) {
            debug!(%error, "peers could not be dialled again");
            return false;
        }
        true
    }

    /// librqbit begins to count anew with each pause.
    fn count_uploaded(&self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.running().uploaded += self.handle.stats().uploaded_bytes;
        }
    }

    /// Peers that librqbit found by itself (PEX) are forgotten by a pause, but not by us.
    fn learn_live_peers(&self) {
        if let Some(live) = self.handle.live() {
            let peers = live.per_peer_stats_snapshot(Default::default()).peers;
            self.book.add(peers.keys().filter_map(|address| address.parse().ok()));
        }
    }

    /// Whether all of it that is wanted is here and written down, and nobody waits for anything.
    fn is_at_rest(&self) -> bool {
        self.whole.is_superset(&self.applied)
            && self.recorded.0 == self.disk.change()
            && !self.disk.is_full()
            && !self.disk.is_unlearned()
            && self.wants.are_none()
            && self.inner.upgrade().is_none_or(|inner| inner.lacking().is_empty())
    }

    /// Asks for room that something waits for.
    async fn ask_for_room(&mut self) {
        let Some(inner) = self.inner.upgrade().filter(|_| self.asked_for_room.elapsed() >= ROOM_AGAIN) else { return };
        self.asked_for_room = Instant::now();
        for file in inner.lacking() {
            match inner.wake(file, Needs::Nobody).await {
                Ok(()) => info!(torrent = %self.info_hash, "there is room for the rest of a film"),
                Err(error) => debug!(%error, "a film waits for room"),
            }
        }
    }

    /// The regular look: has it failed, is anybody connected, is there something to record? False ends the task.
    async fn look(&mut self) -> bool {
        self.ask_for_room().await;
        let stats = self.handle.stats();
        if self.disk.is_full() {
            return self.wait_for_room().await;
        }
        if matches!(stats.state, TorrentStatsState::Error) {
            let text = stats.error.unwrap_or_else(|| "unknown".into());
            warn!(torrent = %self.info_hash, error = %text, "a torrent has failed");
            self.disk.fail(SourceError::Failed(text_of(text)));
            return false;
        }
        if !self.unlearn().await {
            return false;
        }
        if let Some(live) = stats.live {
            self.redial_when_nothing_comes(live.snapshot.peer_stats.live, live.snapshot.fetched_bytes).await;
        }
        if self.record().await {
            self.count_whole();
        }
        true
    }

    /// librqbit dials a peer that was lost once again after ten seconds and more, and notices a line that died in silence after twenty; a
    /// person who waits for a picture is not so patient.
    async fn redial_when_nothing_comes(&mut self, live: u32, fetched: u64) {
        let now = Instant::now();
        // librqbit begins to count anew with each pause.
        if fetched > self.came.0 {
            self.came.1 = now;
            self.redial_silent_after = REDIAL_SILENT.0;
        }
        self.came.0 = fetched;
        if live > 0 {
            self.redial_after = REDIAL.0;
        }
        let Some(waiting) = self.wants.desired(now, self.disk.piece_len()).waiting_since else { return };
        let (since, patience, at_least) = if live == 0 {
            (self.last_redial, self.redial_after, REDIAL.0)
        } else {
            (self.last_redial.max(self.came.1), self.redial_silent_after, REDIAL_SILENT.0)
        };
        // A request for a segment gives up before the longest patience is over, and the next one begins to wait anew: how long it has waited
        // must not be held against the patience, or nobody is ever called again.
        if now - since < patience || now - waiting < at_least || *self.book.count().borrow() == 0 {
            return;
        }
        info!(torrent = %self.info_hash, live, "nothing comes: dialling all known peers again");
        if live == 0 {
            self.redial_after = (self.redial_after * 3 / 2).min(REDIAL.1);
        } else {
            self.redial_silent_after = (self.redial_silent_after * 2).min(REDIAL_SILENT.1);
        }
        self.redial().await;
    }

    /// Writes the record where something has changed; whether it has.
    async fn record(&mut self) -> bool {
        let changes = *self.disk.changes().borrow();
        if changes == self.recorded.0 || self.recorded.1.elapsed() < RECORD_EVERY {
            return false;
        }
        self.recorded = (changes, Instant::now());
        self.learn_live_peers();
        let disk = self.disk.clone();
        let recorded = tokio::task::spawn_blocking(move || disk.record(false)).await;
        if let Ok(Err(error)) = recorded {
            warn!(%error, "the record of verified pieces could not be written");
        }
        true
    }
}

/// How many requests of 16 KiB a peer should be asked for at once that sends `pace` bytes per second.
///
/// A quarter of a second's worth keeps any line of a house busy; what is more than that makes a slow peer sit on several pieces that
/// others could bring sooner. Small differences are not worth a change.
fn fitting_window(pace: u64, current: usize) -> usize {
    let fitting = usize::try_from(pace / 4 / REQUEST).unwrap_or(usize::MAX).clamp(16, 128).next_power_of_two();
    if fitting >= current * 2 || fitting * 2 <= current { fitting } else { current }
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// A file of a torrent, as [`Source`] sees it.
pub(crate) struct FilmFile {
    inner: Arc<Inner>,
    index: usize,
}

impl FilmFile {
    fn entry(&self) -> Option<&FileEntry> {
        self.inner.metainfo.files.get(self.index)
    }

    pub(crate) fn len(&self) -> u64 {
        self.entry().map_or(0, |entry| entry.length)
    }

    pub(crate) fn name(&self) -> &str {
        self.entry().map_or("", FileEntry::name)
    }

    pub(crate) fn piece_len(&self) -> u64 {
        self.inner.disk.piece_len()
    }

    pub(crate) fn available(&self, range: &Range<u64>) -> bool {
        range.end <= self.len() && self.first_missing(range).is_none()
    }

    pub(crate) fn first_missing(&self, range: &Range<u64>) -> Option<u64> {
        self.inner.disk.first_missing(self.index, range)
    }

    /// Somebody watches it: it does not have to leave for another film.
    pub(crate) fn touch(&self) {
        self.inner.shared.budget.touch(&self.inner.film(self.index));
    }

    pub(crate) fn open(&self) -> Result<Arc<File>, SourceError> {
        self.touch();
        if let Some(SourceError::Gone) = self.inner.disk.fault() {
            return Err(SourceError::Gone);
        }
        self.inner.disk.open(self.index).map_err(|error| SourceError::Io(error.kind()))
    }

    pub(crate) fn look_ahead(&self, offset: u64) -> Result<Want, SourceError> {
        Want::new(&self.inner.wants, &self.inner.shared.count, (self.index, offset))
    }

    /// Waits until the range is verified; `want` is the reader's own, or one is made for the time of waiting.
    pub(crate) async fn wait(&self, range: &Range<u64>, want: Option<&Want>) -> Result<(), SourceError> {
        let mut changes = self.inner.disk.changes();
        self.touch();
        let Some(mut missing) = self.unfetched(range).await else { return self.not_gone() };
        let mut asked_for_room = self.ask_for_room().await?;
        let own = match want {
            Some(_) => None,
            None => Some(self.look_ahead(missing)?),
        };
        let waiting = want.or(own.as_ref()).map(|want| want.waiting(missing));
        loop {
            changes.mark_unchanged();
            match self.unfetched(range).await {
                None => return self.not_gone(),
                Some(now_missing) if now_missing != missing => {
                    missing = now_missing;
                    waiting.iter().for_each(|waiting| waiting.move_to(missing));
                }
                Some(_) => {}
            }
            if let Some(fault) = self.inner.disk.fault() {
                return Err(fault);
            }
            // The look at the state every half second is the steering task's; should that have ended, nobody else would tell.
            let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            if asked_for_room.elapsed() >= ROOM_AGAIN {
                asked_for_room = self.ask_for_room().await?;
            }
            if self.inner.end.is_cancelled() && self.inner.disk.fault().is_none() {
                return Err(SourceError::Gone);
            }
        }
    }

    /// Makes the file come that somebody waits for, if it does not. Where there is no room, it is waited for.
    async fn ask_for_room(&self) -> Result<Instant, SourceError> {
        match self.inner.wake(self.index, Needs::Others).await {
            Ok(()) => {}
            Err(TorrentError::NoSpace { .. }) => self.inner.lack(self.index),
            Err(TorrentError::Gone) => return Err(SourceError::Gone),
            Err(other) => return Err(SourceError::Failed(other.to_string())),
        }
        Ok(Instant::now())
    }

    /// The first byte of the range that is not here. What an earlier run has left before it is hashed, and can be read from now on.
    async fn unfetched(&self, range: &Range<u64>) -> Option<u64> {
        loop {
            let missing = self.first_missing(range)?;
            let Some(piece) = self.inner.disk.doubtful(self.index, missing) else { return Some(missing) };
            let disk = self.inner.disk.clone();
            if tokio::task::spawn_blocking(move || disk.check(piece)).await.is_err() {
                self.inner.disk.lose(piece);
            }
            self.inner.disk.doubt();
        }
    }

    /// Whether the file still holds what was just read. Where it does not, [`wait`](Self::wait) waits for it again. Blocks for a moment.
    pub(crate) fn still_holds(&self, range: &Range<u64>) -> bool {
        self.inner.disk.still_holds(self.index, range)
    }

    fn not_gone(&self) -> Result<(), SourceError> {
        self.inner.disk.fault().filter(|fault| *fault == SourceError::Gone).map_or(Ok(()), Err)
    }

    pub(crate) async fn refocus(&self, offset: u64, viewers: usize) -> Refocus {
        let end = offset.saturating_add(self.piece_len()).min(self.len());
        if offset >= end || self.inner.disk.first_unfetched(self.index, &(offset..end)).is_none() {
            return Refocus::NotNeeded;
        }
        let (answer, done) = oneshot::channel();
        if self.inner.calls.send(Call::Refocus((self.index, offset), viewers, answer)).await.is_err() {
            return Refocus::Prioritised;
        }
        tokio::time::timeout(Duration::from_secs(2), done).await.ok().and_then(Result::ok).unwrap_or(Refocus::Prioritised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_window_fits_the_pace_of_a_peer() {
        for (pace, current, fitting) in [
            (400_000, 64, 16),
            (400_000, 16, 16),
            (2_000_000, 64, 32),
            (3_000_000, 64, 64),
            (10_000_000, 64, 128),
            (u64::MAX, 128, 128),
            (1, 64, 16),
        ] {
            assert_eq!(fitting_window(pace, current), fitting, "{pace} bytes per second, {current} before");
        }
    }
}
