//! The floor that the bench measures against: given ranges of a torrent's largest file through librqbit alone, nothing around it.
//!
//! `raw_torrent MAGNET FOLDER START-END…` adds the magnet, reads the ranges side by side and prints the milliseconds from the add
//! to the last byte. The magnet needs `x.pe` peers. It knows the ranges beforehand, which a server has to find out.

#![allow(clippy::print_stdout, reason = "the figure is the output")]

use std::io::SeekFrom;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use librqbit::{AddTorrent, AddTorrentOptions, ConnectionOptions, ManagedTorrent, PeerConnectionOptions, Session, SessionOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let magnet = words.next().context("which magnet?")?;
    let folder = PathBuf::from(words.next().context("which folder?")?);
    let ranges = words.map(|word| range(&word)).collect::<anyhow::Result<Vec<_>>>()?;
    let peers = peers(&magnet)?;
    let session = Session::new_with_opts(folder, options()).await?;

    let began = Instant::now();
    let add = AddTorrentOptions { initial_peers: Some(peers), overwrite: true, ..Default::default() };
    let added = session.add_torrent(AddTorrent::from_url(magnet.as_str()), Some(add)).await?;
    let torrent = added.into_handle().context("the torrent was only listed")?;
    torrent.wait_until_initialized().await?;
    let film = torrent.with_metadata(|metadata| {
        let files = metadata.file_infos.iter().enumerate();
        files.max_by_key(|(_, file)| file.len).map(|(at, _)| at)
    })?;
    let film = film.context("the torrent is empty")?;
    let mut reads = JoinSet::new();
    for (start, end) in ranges {
        reads.spawn(read(torrent.clone(), film, start, end));
    }
    while let Some(ended) = reads.join_next().await {
        ended??;
    }
    println!("{:.3}", began.elapsed().as_secs_f64() * 1000.0);
    session.stop().await;
    Ok(())
}

fn options() -> SessionOptions {
    let peers = PeerConnectionOptions { max_request_window: Some(128), ..Default::default() };
    SessionOptions {
        dht: None,
        disable_trackers: true,
        disable_local_service_discovery: true,
        connect: Some(ConnectionOptions { peer_opts: Some(peers), ..Default::default() }),
        runtime_worker_threads: Some(512),
        ..Default::default()
    }
}

async fn read(torrent: std::sync::Arc<ManagedTorrent>, film: usize, start: u64, end: u64) -> anyhow::Result<()> {
    let mut stream = torrent.stream(film).await?;
    stream.seek(SeekFrom::Start(start)).await?;
    let mut left = end.saturating_sub(start);
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let some = stream.read(buffer.get_mut(..most).unwrap_or_default()).await?;
        ensure!(some > 0, "the film ended too early");
        left -= u64::try_from(some)?;
    }
    Ok(())
}

fn range(word: &str) -> anyhow::Result<(u64, u64)> {
    let (start, end) = word.split_once('-').context("a range is START-END")?;
    Ok((start.parse()?, end.parse()?))
}

fn peers(magnet: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let words = magnet.split(['?', '&']).filter_map(|word| word.strip_prefix("x.pe="));
    words.map(|word| word.parse().context("x.pe is not an address")).collect()
}
