//! Promises of the torrent layer, kept over real sockets by a seeder of another make.

#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::Path;
use std::time::{Duration, Instant};

use balcony_media::magnet::Magnet;
use balcony_server::source::{Refocus, Source, SourceError};
use balcony_server::torrent::{Seed, Torrent, TorrentConfig, TorrentError, TorrentState, Torrents, choose_film};
use swarm::{Swarm, SwarmOptions, random_film};

const MIB: usize = 1 << 20;

fn config(folder: &Path) -> TorrentConfig {
    TorrentConfig {
        allow_private_peers: true,
        dht: false,
        trackers: false,
        metadata_timeout: Duration::from_secs(30),
        reserve_bytes: 0,
        ..TorrentConfig::new(folder)
    }
}

struct Setup {
    folder: tempfile::TempDir,
    film: Vec<u8>,
    swarm: Swarm,
    torrents: Torrents,
}

impl Setup {
    async fn new(len: usize, options: SwarmOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("torrent-test-").tempdir().expect("a folder");
        let film = random_film(folder.path().join("film.mkv"), len);
        let swarm = Swarm::seed(folder.path().join("film.mkv"), options).await;
        let torrents = Torrents::open(config(&folder.path().join("data"))).await.expect("the engine");
        Self { folder, film, swarm, torrents }
    }

    async fn source(&self) -> (Torrent, Source) {
        let torrent = self.torrents.add(&self.swarm.magnet(), |_| {}).await.expect("the torrent");
        let index = choose_film(torrent.files(), None).expect("a film in it");
        let source = torrent.film(index).await.expect("its film");
        (torrent, source)
    }
}

async fn within<T>(seconds: u64, what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), wait).await.unwrap_or_else(|_| panic!("{what}: not within {seconds} s"))
}

async fn read_all(source: &Source) -> Vec<u8> {
    let mut cursor = source.cursor(0);
    let mut all = Vec::new();
    loop {
        let bytes = cursor.read(64 << 10).await.expect("bytes");
        if bytes.is_empty() {
            return all;
        }
        all.extend_from_slice(&bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_the_film() {
    let setup = Setup::new(20 * MIB + 12_345, SwarmOptions::default()).await;
    let (torrent, source) = setup.source().await;
    assert_eq!((source.len(), source.name()), (setup.film.len() as u64, "film.mkv"));
    assert_eq!(source.piece_len(), Some(256 << 10));
    assert!(within(30, "the whole film", read_all(&source)).await == setup.film);
    assert!(source.available(0..source.len()));
    let stats = torrent.stats(0);
    assert_eq!((stats.downloaded, stats.total, stats.state), (source.len(), source.len(), TorrentState::Live));
    assert_eq!(source.read_at(source.len() - 1, 2).await, Err(SourceError::PastEnd));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_comes_before_the_rest() {
    // At 4 MB/s the whole film takes 6 s.
    let setup = Setup::new(24 * MIB, SwarmOptions { rate: Some(4_000_000), ..Default::default() }).await;
    let (_, source) = setup.source().await;
    let began = Instant::now();
    let (head, tail) = tokio::join!(source.read_at(0, 1000), source.read_at(23 * MIB as u64, MIB));
    assert!(head.expect("head")[..] == setup.film[..1000] && tail.expect("tail")[..] == setup.film[23 * MIB..]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!source.available(0..source.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_cursors_at_once() {
    let setup = Setup::new(20 * MIB, SwarmOptions::default()).await;
    let (_, source) = setup.source().await;
    let readers = (0..20).map(|n| {
        let (source, expected) = (source.clone(), setup.film[n * MIB..(n + 1) * MIB].to_vec());
        tokio::spawn(async move {
            let mut cursor = source.cursor((n * MIB) as u64);
            let mut read = Vec::new();
            while read.len() < MIB {
                read.extend_from_slice(&cursor.read(MIB - read.len()).await.expect("bytes"));
            }
            assert!(read == expected, "cursor {n}");
        })
    });
    let readers: Vec<_> = readers.collect();
    for reader in readers {
        within(30, "a cursor", reader).await.expect("its bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_when_the_seeder_comes_back() {
    let mut setup = Setup::new(16 * MIB, SwarmOptions { rate: Some(4_000_000), ..Default::default() }).await;
    let (_, source) = setup.source().await;
    source.read_at(0, MIB).await.expect("the beginning");
    setup.swarm.kill();
    let reading = tokio::spawn({
        let source = source.clone();
        async move { read_all(&source).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!reading.is_finished());
    setup.swarm.revive();
    assert!(within(25, "the rest", reading).await.expect("read") == setup.film);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_wakes_who_waits_and_leaves_nothing() {
    let setup = Setup::new(16 * MIB, SwarmOptions { rate: Some(200_000), ..Default::default() }).await;
    let (torrent, source) = setup.source().await;
    let data = setup.folder.path().join("data");
    let folder = data.join("torrents").join(torrent.info_hash().to_string());
    assert!(folder.exists());
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.read_at(8 * MIB as u64, MIB).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    setup.torrents.forget(&torrent.info_hash()).await;
    assert_eq!(within(1, "the reader", waiting).await.expect("ended"), Err(SourceError::Gone));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(source.read_at(0, 1).await, Err(SourceError::Gone));
    assert_eq!(torrent.stats(0).state, TorrentState::Gone);
    assert!(!folder.exists());
    assert_eq!(std::fs::read_dir(data.join("metainfo")).expect("the folder").count(), 0);
    // And it can come again.
    let (_, again) = setup.source().await;
    within(10, "the film again", again.read_at(0, 1000)).await.expect("bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_magnet_of_nobody_ends_at_its_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TorrentConfig { metadata_timeout: Duration::from_secs(2), ..config(folder.path()) };
    let torrents = Torrents::open(config).await.expect("the engine");
    let nobody = Magnet { peers: vec!["127.0.0.1:9".parse().expect("an address")], ..Magnet::of("a".repeat(40).parse().expect("a hash")) };
    for (magnet, asked) in [(nobody.clone(), 1), (Magnet { peers: vec![], ..nobody }, 0)] {
        let began = Instant::now();
        let mut told = 0;
        let added = torrents.add(&magnet, |_| told += 1).await;
        assert_eq!(added.err(), Some(TorrentError::NoPeers { asked }));
        assert!((2.0..3.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
        assert!(told >= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_add_one_torrent_share_it() {
    let setup = Setup::new(2 * MIB, SwarmOptions::default()).await;
    let magnet = setup.swarm.magnet();
    let (one, two) = tokio::join!(setup.torrents.add(&magnet, |_| {}), setup.torrents.add(&magnet, |_| {}));
    let (one, two) = (one.expect("a torrent"), two.expect("a torrent"));
    let (a, b) = (one.film(0).await.expect("a film"), two.film(0).await.expect("a film"));
    let (a, b) = tokio::join!(a.read_at(0, MIB), b.read_at(MIB as u64, MIB));
    assert!(a.expect("bytes")[..] == setup.film[..MIB] && b.expect("bytes")[..] == setup.film[MIB..]);
    assert_eq!(one.kept(), two.kept());
    assert_eq!(one.kept().selected, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_bytes_and_metadata() {
    let mut setup = Setup::new(8 * MIB, SwarmOptions::default()).await;
    let (torrent, source) = setup.source().await;
    within(20, "the film", source.wait_available(0..source.len())).await.expect("all of it");
    // The record is written every second; a killed program has no last words.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let kept = serde_json::to_string(&torrent.kept()).expect("kept");
    drop((torrent, source));
    let data = setup.folder.path().join("data");
    drop(std::mem::replace(&mut setup.torrents, Torrents::open(config(&setup.folder.path().join("other"))).await.expect("an engine")));
    setup.swarm.kill();

    let torrents = Torrents::open(config(&data)).await.expect("the engine");
    let began = Instant::now();
    let restored = torrents.restore(vec![serde_json::from_str(&kept).expect("kept")]).await;
    let torrent = restored[0].1.clone().expect("restored");
    let source = torrent.film(0).await.expect("the film");
    assert!(within(5, "the film", read_all(&source)).await == setup.film);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_somebody_changed_are_not_trusted() {
    let mut setup = Setup::new(4 * MIB, SwarmOptions::default()).await;
    let (torrent, source) = setup.source().await;
    within(20, "the film", source.wait_available(0..source.len())).await.expect("all of it");
    drop(source);
    setup.torrents.close().await;
    let data = setup.folder.path().join("data");
    let file = data.join("torrents").join(torrent.info_hash().to_string()).join("0");
    let mut bytes = std::fs::read(&file).expect("the film");
    bytes[MIB..2 * MIB].fill(0);
    std::fs::write(&file, bytes).expect("written");
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(later)).expect("its time");
    setup.torrents = Torrents::open(config(&data)).await.expect("the engine");
    let (_, source) = setup.source().await;
    assert!(within(20, "the film", read_all(&source)).await == setup.film);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_files_only_the_film_is_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = folder.path().join("pack");
    std::fs::create_dir_all(pack.join("Sample")).expect("folders");
    std::fs::write(pack.join("a readme.txt"), "read me").expect("written");
    random_film(pack.join("Sample/sample.mkv"), 300_000);
    let film = random_film(pack.join("film.mkv"), 6 * MIB);
    random_film(pack.join("zz other.mp4"), 3 * MIB);
    let swarm = Swarm::seed(&pack, SwarmOptions::default()).await;
    let torrents = Torrents::open(config(&folder.path().join("data"))).await.expect("the engine");
    let torrent = torrents.add(&swarm.magnet(), |_| {}).await.expect("the torrent");
    let readme = torrent.files().iter().find(|file| file.path.ends_with("readme.txt")).expect("the text");
    assert!(!readme.playable);
    let index = choose_film(torrent.files(), Some(readme.index)).expect("a film");
    let other = torrent.files().iter().find(|file| file.path.ends_with("other.mp4")).expect("the other film").index;
    let source = torrent.film(index).await.expect("the film");
    assert_eq!(source.name(), "film.mkv");
    assert!(within(20, "the film", read_all(&source)).await == film);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(torrent.stats(other).downloaded < 600_000, "{:?}", torrent.stats(other));
    // A second stream takes the other film of the same torrent.
    let second = torrent.film(other).await.expect("the other film");
    within(20, "the other film", second.wait_available(0..second.len())).await.expect("all of it");
    assert_eq!(torrent.kept().selected.len(), 2);
    torrent.release(index);
    assert_eq!(torrent.kept().selected, [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_seeder_may_be_reached_when_private_peers_may_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = random_film(folder.path().join("sample.mp4"), 3 * MIB);
    let seed = Seed::file(folder.path().join("sample.mp4")).await.expect("a seeder");
    let config =
        TorrentConfig { allow_private_peers: false, metadata_timeout: Duration::from_secs(2), ..config(&folder.path().join("data")) };
    let torrents = Torrents::open(config).await.expect("the engine");
    assert_eq!(torrents.add(seed.magnet(), |_| {}).await.err(), Some(TorrentError::NoPeers { asked: 0 }));
    torrents.admit(seed.address());
    let torrent = torrents.add(seed.magnet(), |_| {}).await.expect("the torrent");
    let source = torrent.film(0).await.expect("the film");
    assert!(within(20, "the film", read_all(&source)).await == film);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_seek_is_served_at_the_speed_of_the_line() {
    let setup = Setup::new(30 * MIB, SwarmOptions { rate: Some(2_000_000), piece_len: 1 << 20, ..Default::default() }).await;
    let (_, source) = setup.source().await;
    source.read_at(0, 2 * MIB).await.expect("the beginning");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let did = source.refocus(20 * MIB as u64, 1).await;
    let bytes = source.read_at(20 * MIB as u64, 4 * MIB).await.expect("the new place");
    let took = began.elapsed().as_secs_f64();
    assert!(bytes[..] == setup.film[20 * MIB..24 * MIB]);
    assert_eq!(did, Refocus::Cancelled);
    let ideal = 4.0 * MIB as f64 / 2e6;
    assert!(took < ideal * 1.25, "{took:.2} s instead of {ideal:.2} s");
}
