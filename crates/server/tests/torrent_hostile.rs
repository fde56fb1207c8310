//! What lying torrents, strangers' addresses and full disks do to the torrent layer: nothing but a clear answer.

#[path = "support/liar.rs"]
mod liar;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balcony_media::magnet::Magnet;
use balcony_server::torrent::{TorrentConfig, TorrentError, TorrentState, Torrents};
use liar::{Liar, many_files, one_file, sha1};
use swarm::{Swarm, SwarmOptions, random_film};

const MIB: usize = 1 << 20;

fn config(folder: &Path) -> TorrentConfig {
    TorrentConfig {
        allow_private_peers: true,
        dht: false,
        trackers: false,
        metadata_timeout: Duration::from_secs(10),
        reserve_bytes: 0,
        ..TorrentConfig::new(folder)
    }
}

fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let names: Vec<String> = (0..100_000).map(|n| format!("{n}.mkv")).collect();
    let thousands: Vec<(Vec<&str>, &str)> = names.iter().map(|name| (vec![name.as_str()], "1")).collect();
    vec![
        ("a piece length of nothing", one_file("a.mkv", "1000000", "0", 4)),
        ("a piece length that is no power of two", one_file("a.mkv", "1000000", "100000", 10)),
        ("a piece length too small", one_file("a.mkv", "1000000", "1024", 977)),
        ("a piece length too large", one_file("a.mkv", "1000000", "134217728", 1)),
        ("a negative piece length", one_file("a.mkv", "1000000", "-1", 4)),
        ("a length of nothing", one_file("a.mkv", "0", "262144", 0)),
        ("a length that wraps", one_file("a.mkv", "18446744073709551615", "262144", 4)),
        ("a negative length", one_file("a.mkv", "-5", "262144", 4)),
        ("too few hashes", one_file("a.mkv", "1000000", "262144", 1)),
        ("too many hashes", one_file("a.mkv", "1000000", "262144", 400)),
        ("lengths whose sum wraps", many_files(&[(vec!["a.mkv"], "18446744073709551615"), (vec!["b.mkv"], "5")], 262_144, 1)),
        ("a hundred thousand files", many_files(&thousands, 262_144, 1)),
        ("a way up", many_files(&[(vec!["..", "..", "etc", "a.mkv"], "1000")], 262_144, 1)),
        ("a way up in one part", many_files(&[(vec!["../../a.mkv"], "1000")], 262_144, 1)),
        ("an absolute way", many_files(&[(vec!["/etc/a.mkv"], "1000")], 262_144, 1)),
        ("no name", many_files(&[(vec![], "1000")], 262_144, 1)),
        ("an empty name", many_files(&[(vec![""], "1000")], 262_144, 1)),
        ("a name with a zero", many_files(&[(vec!["a\0b.mkv"], "1000")], 262_144, 1)),
        ("a name twice", many_files(&[(vec!["a.mkv"], "1000"), (vec!["a.mkv"], "1000")], 262_144, 1)),
        ("no files", many_files(&[], 262_144, 0)),
        ("deep nesting", [&b"d1:x"[..], &b"l".repeat(200_000), &b"e".repeat(200_000), &one_file("a.mkv", "1", "16384", 1)[1..]].concat()),
        ("not a dictionary", b"4:spam".to_vec()),
        ("cut off", one_file("a.mkv", "1000000", "262144", 4)[..60].to_vec()),
    ]
}

fn is_refused(what: &str, outcome: Result<balcony_server::torrent::Torrent, TorrentError>) {
    match outcome {
        Err(TorrentError::Unsafe(reason)) => {
            assert!(reason.ends_with('.') && reason.len() < 300, "{what}: {reason}");
        }
        // Metadata that is no metadata at all counts as not given.
        Err(TorrentError::NoPeers { .. })
            if ["not a dictionary", "cut off", "deep nesting", "a negative piece length", "a negative length"].contains(&what) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_lies_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TorrentConfig { metadata_timeout: Duration::from_secs(3), ..config(folder.path()) };
    let torrents = Arc::new(Torrents::open(config).await.expect("the engine"));
    let mut trials = tokio::task::JoinSet::new();
    for (what, info) in lies() {
        let torrents = torrents.clone();
        trials.spawn(async move {
            let hash = sha1(&info);
            let liar = Liar::tell(info).await;
            let added = torrents.add(&Magnet { peers: vec![liar.address], ..Magnet::of(hash) }, |_| {}).await;
            assert!(liar.calls() > 0, "{what}: it was not asked");
            (what, added)
        });
    }
    while let Some(trial) = trials.join_next().await {
        let (what, added) = trial.expect("no panic reaches the caller");
        is_refused(what, added);
    }
    let files = |name: &str| std::fs::read_dir(folder.path().join(name)).expect("the folder").count();
    assert_eq!((files("torrents"), files("metainfo")), (0, 0), "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_peer_of_that_kind_is_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let torrents = Torrents::open(config(folder.path())).await.expect("the engine");
    let info = many_files(&[(vec!["a", "film.mkv"], "300000"), (vec!["b.txt"], "10")], 262_144, 2);
    let liar = Liar::tell(info.clone()).await;
    let torrent = torrents.add(&Magnet { peers: vec![liar.address], ..Magnet::of(sha1(&info)) }, |_| {}).await.expect("the torrent");
    let shown: Vec<_> = torrent.files().iter().map(|file| (file.path.as_str(), file.length, file.playable)).collect();
    assert_eq!(shown, [("a/film.mkv", 300_000, true), ("b.txt", 10, false)]);
    assert_eq!(torrent.name(), Some("pack"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_metadata_is_distrusted_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let torrents = Torrents::open(TorrentConfig { metadata_timeout: Duration::from_millis(500), ..config(folder.path()) }).await;
    let torrents = Arc::new(torrents.expect("the engine"));
    let mut trials = tokio::task::JoinSet::new();
    for (what, info) in lies() {
        let hash = sha1(&info);
        let kept = [&b"d4:info"[..], &info, b"e"].concat();
        std::fs::write(folder.path().join("metainfo").join(format!("{hash}.torrent")), kept).expect("written");
        let torrents = torrents.clone();
        trials.spawn(async move { (what, torrents.add(&Magnet::of(hash), |_| {}).await) });
    }
    while let Some(trial) = trials.join_next().await {
        let (what, added) = trial.expect("no panic reaches the caller");
        // What was kept is not usable, so others are asked, and there are none.
        assert_eq!(added.err(), Some(TorrentError::NoPeers { asked: 0 }), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_of_strangers_are_never_dialled() {
    let folder = tempfile::tempdir().expect("a folder");
    let info = one_file("a.mkv", "1000000", "262144", 4);
    let neighbour = Liar::tell(info.clone()).await;
    let config =
        TorrentConfig { allow_private_peers: false, trackers: true, metadata_timeout: Duration::from_secs(2), ..config(folder.path()) };
    let torrents = Torrents::open(config).await.expect("the engine");
    let magnet = Magnet {
        peers: vec![neighbour.address],
        trackers: vec![format!("http://{}/announce", neighbour.address), format!("http://localhost:{}/a", neighbour.address.port())],
        ..Magnet::of(sha1(&info))
    };
    assert_eq!(torrents.add(&magnet, |_| {}).await.err(), Some(TorrentError::NoPeers { asked: 0 }));
    assert_eq!(neighbour.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_rubbish_instead_of_pieces_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = random_film(folder.path().join("film.mkv"), 2 * MIB);
    let swarm = Swarm::seed(folder.path().join("film.mkv"), SwarmOptions::default()).await;
    let rubbish = Liar::tell(b"not what was asked for".to_vec()).await;
    let torrents = Torrents::open(config(&folder.path().join("data"))).await.expect("the engine");
    let mut magnet = swarm.magnet();
    magnet.peers.insert(0, rubbish.address);
    let torrent = torrents.add(&magnet, |_| {}).await.expect("the torrent");
    let source = torrent.film(0).await.expect("the film");
    let read = tokio::time::timeout(Duration::from_secs(20), source.read_at(0, film.len())).await.expect("in time");
    assert!(read.expect("bytes")[..] == film[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_before_a_byte_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    random_film(folder.path().join("film.mkv"), 4 * MIB);
    let swarm = Swarm::seed(folder.path().join("film.mkv"), SwarmOptions::default()).await;
    for (what, config) in [
        ("budget", TorrentConfig { budget_bytes: MIB as u64, ..config(&folder.path().join("a")) }),
        ("reserve", TorrentConfig { reserve_bytes: u64::MAX / 2, ..config(&folder.path().join("b")) }),
    ] {
        let torrents = Torrents::open(config).await.expect("the engine");
        let torrent = torrents.add(&swarm.magnet(), |_| {}).await.expect("the torrent");
        match torrent.film(0).await {
            Err(TorrentError::NoSpace { needed, free, .. }) => assert!((4..5).contains(&(needed / MIB as u64)) && free < needed, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(torrent.stats(0).state, TorrentState::Idle);
    }
}

/// A file system of a few megabytes, for as long as it lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(folder.path()).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_waited_for() {
    let Some(disk) = SmallDisk::new("24m") else {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let film = random_film(folder.path().join("film.mkv"), 20 * MIB);
    let swarm = Swarm::seed(folder.path().join("film.mkv"), SwarmOptions { rate: Some(8_000_000), ..Default::default() }).await;
    let torrents = Torrents::open(config(disk.0.path())).await.expect("the engine");
    let torrent = torrents.add(&swarm.magnet(), |_| {}).await.expect("the torrent");
    let source = torrent.film(0).await.expect("the film");
    // Somebody else takes the room in the meantime.
    let hog = disk.0.path().join("hog");
    std::fs::write(&hog, vec![1; 12 * MIB]).expect("the hog");
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { source.read_at(0, usize::try_from(source.len()).expect("a small film")).await }
    });
    let began = Instant::now();
    while torrent.stats(0).state != TorrentState::Full {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", torrent.stats(0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(torrent.stats(0).error, None);
    // What is here can be read, and nobody else's file was touched.
    assert!(source.read_at(0, MIB).await.expect("the beginning")[..] == film[..MIB]);
    assert!(!waiting.is_finished());
    // When there is room again it goes on by itself.
    std::fs::remove_file(hog).expect("removed");
    let read = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("in time").expect("read");
    assert!(read.expect("bytes")[..] == film[..]);
    assert_eq!(torrent.stats(0).state, TorrentState::Live);
}
