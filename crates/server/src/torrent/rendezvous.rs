//! A tracker on loopback that tells our own librqbit session which peers we know (BEP 15).
//!
//! librqbit takes peers when a torrent is added and from trackers, and from nobody else. It announces itself here when a torrent
//! starts and every few seconds after: so peers that became known later reach it, and after a pause all of them are dialled at once.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::peers::PeerBook;

/// Seconds between two announces; librqbit asks no more often.
const INTERVAL: u32 = 5;
/// Most peers in one answer: 6 bytes each, and librqbit reads 16 KiB.
const MAX_TOLD: usize = 2500;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;

#[derive(Default)]
pub(super) struct Rendezvous {
    books: Mutex<HashMap<[u8; 20], Weak<PeerBook>>>,
}

impl Rendezvous {
    /// Listens on a free loopback port until `end`. Gives the address for the torrents' tracker list.
    pub(super) async fn open(end: CancellationToken) -> io::Result<(Arc<Self>, SocketAddr)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let rendezvous = Arc::new(Self::default());
        tokio::spawn(end.run_until_cancelled_owned(rendezvous.clone().serve(socket)));
        Ok((rendezvous, address))
    }

    pub(super) fn tell(&self, info_hash: [u8; 20], book: &Arc<PeerBook>) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).insert(info_hash, Arc::downgrade(book));
    }

    pub(super) fn forget(&self, info_hash: &[u8; 20]) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(info_hash);
    }

    async fn serve(self: Arc<Self>, socket: UdpSocket) {
        let mut request = [0; 512];
        loop {
            let (len, from) = match socket.recv_from(&mut request).await {
                Ok(received) => received,
                Err(error) => {
                    debug!(%error, "an announce could not be received");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            if let Some(answer) = self.answer(request.get(..len).unwrap_or_default())
                && let Err(error) = socket.send_to(&answer, from).await
            {
                debug!(%error, "an announce could not be answered");
            }
        }
    }

    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let action = u32::from_be_bytes(request.get(8..12)?.try_into().ok()?);
        let transaction = request.get(12..16)?;
        let mut answer = action.to_be_bytes().to_vec();
        answer.extend_from_slice(transaction);
        match action {
            CONNECT => answer.extend_from_slice(&1_u64.to_be_bytes()),
            ANNOUNCE => {
                let info_hash: [u8; 20] = request.get(16..36)?.try_into().ok()?;
                let book = self.books.lock().unwrap_or_else(PoisonError::into_inner).get(&info_hash).and_then(Weak::upgrade);
                [INTERVAL, 0, 0].iter().for_each(|number| answer.extend_from_slice(&number.to_be_bytes()));
                for peer in book.map(|book| book.all()).unwrap_or_default().into_iter().take(MAX_TOLD) {
                    if let SocketAddr::V4(peer) = peer {
                        answer.extend_from_slice(&peer.ip().octets());
                        answer.extend_from_slice(&peer.port().to_be_bytes());
                    }
                }
            }
            _ => return None,
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::peers::Admission;

    #[test]
    fn it_tells_what_the_book_knows() {
        let book = PeerBook::new(Arc::new(Admission::new(true, [])));
        book.add(["10.1.2.3:258".parse().expect("an address"), "[fd00::1]:5".parse().expect("an address")]);
        let rendezvous = Rendezvous::default();
        rendezvous.tell([7; 20], &book);
        let mut announce = vec![0; 98];
        announce[8..12].copy_from_slice(&ANNOUNCE.to_be_bytes());
        announce[12..16].copy_from_slice(b"abcd");
        announce[16..36].copy_from_slice(&[7; 20]);
        let answer = rendezvous.answer(&announce).expect("an answer");
        assert_eq!(answer, [&[0, 0, 0, 1][..], b"abcd", &[0, 0, 0, 5], &[0; 8], &[10, 1, 2, 3, 1, 2]].concat());
        announce[16] = 8;
        assert_eq!(rendezvous.answer(&announce).expect("an answer").len(), 20, "nothing about other torrents");
        for cut in 0..announce.len() {
            let _ = rendezvous.answer(&announce[..cut]);
        }
    }
}
