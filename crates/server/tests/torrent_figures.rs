//! Figures of the torrent layer, printed: how quickly a far seek is served. Nothing is promised here; run by hand with
//! `cargo nextest run --release --test torrent_figures --run-ignored all --no-capture`.

#![allow(clippy::print_stdout, reason = "it prints a table")]

#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::time::{Duration, Instant};

use balcony_server::torrent::{TorrentConfig, Torrents};
use swarm::{Swarm, SwarmOptions, random_film};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures, promises nothing"]
async fn seeks() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    }
    let folder = tempfile::Builder::new().prefix("torrent-figures-").tempdir().expect("a folder");
    let film = random_film(folder.path().join("film.mkv"), (160 * MIB) as usize);
    let windows: Vec<usize> = std::env::var("WINDOWS").unwrap_or("64".into()).split(',').filter_map(|w| w.parse().ok()).collect();
    let pieces: Vec<u32> = std::env::var("PIECES").unwrap_or("256,1024".into()).split(',').filter_map(|w| w.parse().ok()).collect();
    let lines: Vec<(usize, u64)> = match std::env::var("LINES").as_deref() {
        Ok("many") => vec![(6, 400_000)],
        Ok("fast") => vec![(1, 10_000_000)],
        _ => vec![(1, 2_000_000)],
    };
    let delay = Duration::from_millis(std::env::var("DELAY").ok().and_then(|delay| delay.parse().ok()).unwrap_or(0));
    println!("seeders × rate      piece window refocus to %  did          refocus  first piece  4 MiB   ideal   ratio");
    for (seeders, rate) in lines {
        for piece in &pieces {
            for window in &windows {
                for tricks in [true, false] {
                    let options = SwarmOptions { rate: Some(rate), piece_len: piece << 10, seeders, delay };
                    let swarm = Swarm::seed(folder.path().join("film.mkv"), options).await;
                    let data = folder.path().join(format!("data-{seeders}-{piece}-{window}-{tricks}"));
                    let config = TorrentConfig {
                        allow_private_peers: true,
                        dht: false,
                        reserve_bytes: 0,
                        request_window: *window,
                        ..TorrentConfig::new(&data)
                    };
                    let torrents = Torrents::open(config).await.expect("the engine");
                    let torrent = torrents.add(&swarm.magnet(), |_| {}).await.expect("the torrent");
                    let source = torrent.film(0).await.expect("the film");
                    source.read_at(0, 1 << 20).await.expect("the beginning");
                    for percent in [50, 80, 95] {
                        tokio::time::sleep(Duration::from_millis(2500)).await;
                        let at = (source.len() * percent / 100) & !(MIB - 1);
                        let began = Instant::now();
                        let did = if tricks { format!("{:?}", source.refocus(at, 1).await) } else { "-".into() };
                        let refocus = began.elapsed();
                        let mut cursor = source.cursor(at);
                        let mut got = Vec::new();
                        let mut first = None;
                        while got.len() < 4 << 20 {
                            got.extend_from_slice(&cursor.read((4 << 20) - got.len()).await.expect("bytes"));
                            first.get_or_insert(began.elapsed());
                        }
                        let took = began.elapsed().as_secs_f64();
                        assert!(got[..] == film[at as usize..][..4 << 20]);
                        let ideal = (4 * MIB) as f64 / (rate * seeders as u64) as f64;
                        println!(
                            "{seeders} × {:>5} kB/s {piece:>8} {window:>6} {tricks:>7} {percent:>4} %  {did:<12} {:>5.0} ms {:>9.0} ms {took:>6.2} s {ideal:>6.2} s {:>6.2}",
                            rate / 1000,
                            refocus.as_secs_f64() * 1e3,
                            first.unwrap_or_default().as_secs_f64() * 1e3,
                            took / ideal,
                        );
                    }
                    torrents.forget(&swarm.info_hash()).await;
                }
            }
        }
    }
}
