//! Metadata from peers (BEP 9), by a librqbit session that knows nobody but those whom it is told.
//!
//! Each attempt runs in a task of its own, since librqbit stumbles over some metadata; it is given a handful of peers, and the first
//! attempt that succeeds ends the others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balcony_media::magnet::InfoHash;
use bytes::Bytes;
use librqbit::{AddTorrent, AddTorrentOptions, AddTorrentResponse, Session};
use tokio::task::JoinSet;
use tracing::debug;

use super::peers::PeerBook;
use super::{TorrentError, text_of};

/// Most peers of one attempt.
const TOGETHER: usize = 16;
/// Most attempts at once.
const ATTEMPTS: usize = 12;
/// A peer that failed is asked again after this, and after twice that the next time, up to half a minute.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// What one attempt may last.
const ATTEMPT_LASTS: Duration = Duration::from_secs(30);
/// librqbit's words for "none of these peers had it". Everything else that it complains about is in the metadata itself.
const NOBODY: &[&str] = &["address stream exhausted", "no known way to resolve peers"];

/// When each peer was asked, and how often in vain.
#[derive(Default)]
struct Asked(HashMap<SocketAddr, Try>);

#[derive(Clone, Copy)]
struct Try {
    failures: u32,
    /// `None` while it is being asked.
    again_at: Option<Instant>,
}

impl Asked {
    /// The next handful of those that may be asked at `now`; they count as being asked.
    fn next(&mut self, known: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let may = |peer: &&SocketAddr| self.0.get(peer).is_none_or(|asked| asked.again_at.is_some_and(|at| at <= now));
        let next: Vec<SocketAddr> = known.iter().filter(may).take(TOGETHER).copied().collect();
        for peer in &next {
            self.0.entry(*peer).or_insert(Try { failures: 0, again_at: None }).again_at = None;
        }
        next
    }

    fn failed(&mut self, peers: &[SocketAddr], now: Instant) {
        for peer in peers {
            if let Some(asked) = self.0.get_mut(peer) {
                asked.failures += 1;
                let after = AGAIN_AFTER.saturating_mul(1 << asked.failures.min(10)).min(AGAIN_AT_MOST) / 2;
                asked.again_at = Some(now + after);
            }
        }
    }

    fn next_time(&self) -> Option<Instant> {
        self.0.values().filter_map(|asked| asked.again_at).min()
    }
}

/// The metainfo of a torrent from whoever of the book has it, at the latest at `deadline`.
pub(super) async fn read_metainfo(
    scout: &Arc<Session>,
    info_hash: InfoHash,
    book: &PeerBook,
    deadline: Instant,
    mut known: impl FnMut(usize),
) -> Result<Bytes, TorrentError> {
    let mut count = book.count();
    let mut asked = Asked::default();
    let mut attempts = JoinSet::new();
    let end = tokio::time::sleep_until(deadline.into());
    tokio::pin!(end);
    loop {
        known(*count.borrow_and_update());
        while attempts.len() < ATTEMPTS {
            let peers = asked.next(&book.all(), Instant::now());
            if peers.is_empty() {
                break;
            }
            attempts.spawn(attempt(scout.clone(), info_hash, peers));
        }
        let again = asked.next_time();
        tokio::select! {
            Some(outcome) = attempts.join_next(), if !attempts.is_empty() => match outcome {
                Ok(Attempt::Found(bytes)) => return Ok(bytes),
                Ok(Attempt::Nobody(peers)) => asked.failed(&peers, Instant::now()),
                Ok(Attempt::Refused(reason)) => {
                    return Err(TorrentError::Unsafe(format!("The torrent's metadata is not acceptable: {reason}.")));
                }
                Err(_) => return Err(TorrentError::Unsafe("The torrent's metadata is damaged: its sizes cannot be.".into())),
            },
            Ok(()) = count.changed() => {}
            () = until(again), if attempts.len() < ATTEMPTS => {}
            () = &mut end => return Err(TorrentError::NoPeers { asked: asked.0.len() }),
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

enum Attempt {
    Found(Bytes),
    Nobody(Vec<SocketAddr>),
    Refused(String),
}

async fn attempt(scout: Arc<Session>, info_hash: InfoHash, peers: Vec<SocketAddr>) -> Attempt {
    let link = format!("magnet:?xt=urn:btih:{info_hash}");
    let options = AddTorrentOptions { list_only: true, initial_peers: Some(peers.clone()), ..Default::default() };
    let listed = tokio::time::timeout(ATTEMPT_LASTS, scout.add_torrent(AddTorrent::from_url(link), Some(options))).await;
    match listed {
        Ok(Ok(AddTorrentResponse::ListOnly(listed))) => Attempt::Found(listed.torrent_bytes),
        Ok(Ok(_)) | Err(_) => Attempt::Nobody(peers),
        Ok(Err(error)) => {
            let text = text_of(&error);
            debug!(error = %text, "an attempt to read metadata failed");
            if NOBODY.iter().any(|words| text.contains(words)) { Attempt::Nobody(peers) } else { Attempt::Refused(text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_asked_again_later_and_later() {
        let known: Vec<SocketAddr> = (1..=20).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
        let mut asked = Asked::default();
        let now = Instant::now();
        assert_eq!(asked.next(&known, now), known[..16]);
        assert_eq!(asked.next(&known, now), known[16..]);
        assert_eq!(asked.next(&known, now), []);
        asked.failed(&known[..1], now);
        assert_eq!(asked.next(&known, now), []);
        assert_eq!(asked.next(&known, now + AGAIN_AFTER), known[..1]);
        asked.failed(&known[..1], now);
        assert_eq!(asked.next_time(), Some(now + 2 * AGAIN_AFTER));
        for _ in 0..100 {
            asked.failed(&known[..1], now);
        }
        assert_eq!(asked.next_time(), Some(now + AGAIN_AT_MOST / 2));
    }
}
