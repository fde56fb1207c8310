//! Our own seeder: one film on loopback, for the sample and for trying things out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use balcony_media::magnet::{InfoHash, Magnet};
use librqbit::{CreateTorrentOptions, ListenerMode, ListenerOptions, Session, SessionOptions};

use super::{TorrentError, text_of};

/// Where our own seeders listen. On Linux the whole of 127/8 is this machine, so that an address of its own can be let through the
/// block list without opening 127.0.0.1 to strangers' peers; elsewhere there is only that one.
pub(super) const ADDRESS: IpAddr =
    if cfg!(target_os = "linux") { IpAddr::V4(Ipv4Addr::new(127, 66, 76, 67)) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };

/// A film that is being seeded, until it is dropped.
pub struct Seed {
    session: Arc<Session>,
    magnet: Magnet,
    address: SocketAddr,
}

impl Seed {
    /// Seeds a file (it is hashed now) on a free loopback port, in pieces of 256 KiB.
    pub async fn file(path: impl AsRef<Path>) -> Result<Self, TorrentError> {
        Self::file_in_pieces(path, 256 << 10).await
    }

    /// The same with pieces of `piece_len` bytes, a power of two.
    pub async fn file_in_pieces(path: impl AsRef<Path>, piece_len: u32) -> Result<Self, TorrentError> {
        let failed = |error: &dyn std::fmt::Display| TorrentError::Failed(text_of(error));
        let path = path.as_ref();
        let options = SessionOptions {
            dht: None,
            disable_trackers: true,
            disable_local_service_discovery: true,
            listen: Some(ListenerOptions {
                mode: ListenerMode::TcpOnly,
                listen_addr: SocketAddr::new(ADDRESS, 0),
                ipv4_only: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        let session = Session::new_with_opts(folder.to_owned(), options).await.map_err(|error| failed(&error))?;
        let create = CreateTorrentOptions { piece_length: Some(piece_len), ..Default::default() };
        let served = session.create_and_serve_torrent(path, create).await.map_err(|error| failed(&error))?;
        served.1.wait_until_initialized().await.map_err(|error| failed(&error))?;
        let address = session.listen_addr().ok_or_else(|| failed(&"the seeder has no port"))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let magnet = Magnet { name, peers: vec![address], ..Magnet::of(InfoHash(served.0.info_hash().0)) };
        Ok(Self { session, magnet, address })
    }

    /// The film's magnet, with the seeder's address in `peers`.
    pub fn magnet(&self) -> &Magnet {
        &self.magnet
    }

    /// Where it listens: to be told to [`Torrents::admit`](super::Torrents::admit).
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.session.cancellation_token().cancel();
    }
}
