//! Where torrents come from: from people who have them, or, in the mock, from a film of our own under any name. Streams stand on it and
//! do not ask which. It decides nothing; each answer is the engine's ([`torrent`](crate::torrent)) or the mock's.

use std::ops::Range;

use balcony_media::magnet::{InfoHash, Magnet};
use bytes::Bytes;
use tokio::sync::watch;

use crate::mock::{Mock, Pack};
use crate::source::Source;
use crate::torrent::{self, AddProgress, BringError, Brought, FileEntry, KeptTorrent, TorrentError, TorrentStats, Torrents};

/// Where torrents come from.
pub enum Swarm {
    /// From peers.
    Peers(Torrents),
    /// From nobody: no network is used.
    Mock(Mock),
}

impl Swarm {
    /// The torrent of a magnet, as soon as it is known what is in it ([`Torrents::add`]). The mock knows at once.
    ///
    /// # Errors
    /// When nobody has it, or it is not to be trusted.
    pub async fn add(&self, magnet: &Magnet, progress: impl FnMut(AddProgress) + Send) -> Result<Torrent, TorrentError> {
        match self {
            Self::Peers(torrents) => torrents.add(magnet, progress).await.map(Torrent::Peers),
            Self::Mock(mock) => Ok(Torrent::Mock(mock.pack(magnet))),
        }
    }

    /// The same for somebody who only wants to know what is in it. The mock takes its time.
    ///
    /// # Errors
    /// When nobody has it, or it is not to be trusted.
    pub async fn inspect(&self, magnet: &Magnet) -> Result<Torrent, TorrentError> {
        match self {
            Self::Peers(_) => self.add(magnet, |_| {}).await,
            Self::Mock(mock) => mock.inspect(magnet).await.map(Torrent::Mock),
        }
    }

    /// Removes a torrent with everything that was kept of it.
    pub async fn forget(&self, info_hash: &InfoHash) {
        if let Self::Peers(torrents) = self {
            torrents.forget(info_hash).await;
        }
    }

    /// Closes a torrent that nobody has any more ([`Torrents::rest`]); `false` where somebody has it.
    pub async fn rest(&self, info_hash: &InfoHash) -> bool {
        match self {
            Self::Peers(torrents) => torrents.rest(info_hash).await,
            Self::Mock(_) => true,
        }
    }

    /// Whether anything of a film is on the disk ([`Torrents::holds`]).
    pub fn holds(&self, info_hash: &InfoHash, file: usize) -> bool {
        match self {
            Self::Peers(torrents) => torrents.holds(info_hash, file),
            Self::Mock(_) => true,
        }
    }

    /// Makes everything fit that is on the disk ([`Torrents::level`]).
    pub async fn level(&self) {
        if let Self::Peers(torrents) = self {
            torrents.level().await;
        }
    }

    /// Pauses everything, or lets it go on.
    pub fn pause(&self, paused: bool) {
        match self {
            Self::Peers(torrents) => torrents.pause(paused),
            Self::Mock(mock) => mock.pause(paused),
        }
    }

    /// Whether everything is paused; wakes when that changes.
    pub fn paused(&self) -> watch::Receiver<bool> {
        match self {
            Self::Peers(torrents) => torrents.paused(),
            Self::Mock(mock) => mock.paused(),
        }
    }

    /// Keeps the metadata that somebody brings ([`Torrents::bring`]). The mock needs none.
    ///
    /// # Errors
    /// When it is none, or not to be trusted, or cannot be written.
    pub async fn bring(&self, bytes: Bytes) -> Result<Brought, BringError> {
        match self {
            Self::Peers(torrents) => torrents.bring(bytes).await,
            Self::Mock(_) => Brought::examine(bytes).await,
        }
    }

    /// Whether it runs.
    pub fn works(&self) -> bool {
        match self {
            Self::Peers(torrents) => torrents.works(),
            Self::Mock(_) => true,
        }
    }

    /// Bytes that came from peers and that were given to them since the start.
    pub fn traffic(&self) -> (u64, u64) {
        match self {
            Self::Peers(torrents) => torrents.traffic(),
            Self::Mock(_) => (0, 0),
        }
    }

    /// How many nodes of the DHT are known; `None` without it.
    pub fn dht_nodes(&self) -> Option<usize> {
        match self {
            Self::Peers(torrents) => torrents.dht_nodes(),
            Self::Mock(_) => None,
        }
    }

    /// Removes what an earlier run has left of torrents other than these.
    pub fn sweep(&self, keep: &[InfoHash]) {
        if let Self::Peers(torrents) = self {
            torrents.sweep(keep);
        }
    }

    /// Ends in order.
    pub async fn close(&self) {
        if let Self::Peers(torrents) = self {
            torrents.close().await;
        }
    }

    /// The mock, if this is one.
    pub fn mock(&self) -> Option<&Mock> {
        match self {
            Self::Peers(_) => None,
            Self::Mock(mock) => Some(mock),
        }
    }
}

/// A torrent of which it is known what is in it. Clones mean the same one.
#[derive(Debug, Clone)]
pub enum Torrent {
    /// One that peers have.
    Peers(torrent::Torrent),
    /// One of the mock.
    Mock(Pack),
}

impl Torrent {
    /// The name that it gives itself.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Peers(torrent) => torrent.name(),
            Self::Mock(pack) => Some(pack.name()),
        }
    }

    /// Bytes of all files together.
    pub fn total(&self) -> u64 {
        match self {
            Self::Peers(torrent) => torrent.total(),
            Self::Mock(pack) => pack.files().iter().map(|file| file.length).sum(),
        }
    }

    /// All files, in its own order.
    pub fn files(&self) -> &[FileEntry] {
        match self {
            Self::Peers(torrent) => torrent.files(),
            Self::Mock(pack) => pack.files(),
        }
    }

    /// Begins to fetch a file and gives it to read from.
    ///
    /// # Errors
    /// When it does not fit, or cannot be had.
    pub async fn film(&self, index: usize) -> Result<Source, TorrentError> {
        match self {
            Self::Peers(torrent) => torrent.film(index).await,
            Self::Mock(pack) => pack.film(index),
        }
    }

    /// The same for a film that somebody had before: it waits for room, where there is none.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn film_again(&self, index: usize) -> Result<Source, TorrentError> {
        match self {
            Self::Peers(torrent) => torrent.film_again(index).await,
            Self::Mock(pack) => pack.film(index),
        }
    }

    /// Stops fetching a file.
    pub fn release(&self, index: usize) {
        if let Self::Peers(torrent) = self {
            torrent.release(index);
        }
    }

    /// Whether a file is being fetched, or would be if it were not whole.
    pub fn is_fetched(&self, index: usize) -> bool {
        match self {
            Self::Peers(torrent) => torrent.is_fetched(index),
            Self::Mock(_) => true,
        }
    }

    /// How it is doing; `index` is the file whose bytes are counted.
    pub fn stats(&self, index: usize) -> TorrentStats {
        match self {
            Self::Peers(torrent) => torrent.stats(index),
            Self::Mock(pack) => pack.stats(index),
        }
    }

    /// Another number whenever something else of it is here; `downloaded` is what its [stats](Self::stats) say.
    pub fn change(&self, downloaded: u64) -> u64 {
        match self {
            Self::Peers(torrent) => torrent.change(),
            Self::Mock(_) => downloaded,
        }
    }

    /// The parts of a file that are here, as offsets in that file: ascending, none touching the next. The mock's come in order.
    pub fn fetched(&self, index: usize, downloaded: u64) -> Vec<Range<u64>> {
        match self {
            Self::Peers(torrent) => torrent.fetched(index),
            Self::Mock(_) => std::iter::once(0..downloaded).collect(),
        }
    }

    /// What the store must keep of it.
    pub fn kept(&self) -> KeptTorrent {
        match self {
            Self::Peers(torrent) => torrent.kept(),
            Self::Mock(pack) => pack.kept(),
        }
    }
}
