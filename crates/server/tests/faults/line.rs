//! A line to a seeder that does what it is told: slow, long, dead, refused, reset, or with wrong bytes on it.
//!
//! It knows enough of the peers' protocol (BEP 3) to spoil the content of pieces and nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the line does with what is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Everything passes.
    Open,
    /// Nothing passes, and nobody is told: a cable that was pulled out.
    Dead,
    /// Who calls is sent away at once.
    Refused,
}

/// What happens to the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoils {
    Nothing,
    /// A bit of each block of each piece.
    Pieces,
    /// Everything, so that nobody understands the protocol any more.
    All,
}

#[derive(Debug, Clone, Copy)]
struct Orders {
    /// Bytes per second toward the server.
    rate: Option<u64>,
    /// One way.
    delay: Duration,
    way: Way,
    spoils: Spoils,
    /// Connections of an older generation than this are reset.
    reset_before: usize,
    /// Connections of an older generation than this are dead for ever.
    dead_before: usize,
}

/// The line. It ends with its owner.
pub(crate) struct Line {
    front: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    _end: DropGuard,
}

#[derive(Default)]
struct Counts {
    dialled: AtomicUsize,
    brought: AtomicU64,
}

impl Line {
    /// An open line to this address, as fast as it goes.
    pub(crate) async fn to(seeder: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let front = listener.local_addr().expect("its address");
        let open = Orders { rate: None, delay: Duration::ZERO, way: Way::Open, spoils: Spoils::Nothing, reset_before: 0, dead_before: 0 };
        let (orders, counts, end) = (watch::Sender::new(open), Arc::<Counts>::default(), CancellationToken::new());
        let serving = serve(listener, seeder, orders.subscribe(), counts.clone(), end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(serving));
        Self { front, orders, counts, _end: end.drop_guard() }
    }

    /// Where the world reaches it.
    pub(crate) fn front(&self) -> SocketAddr {
        self.front
    }

    /// How often it was called.
    pub(crate) fn dialled(&self) -> usize {
        self.counts.dialled.load(Ordering::SeqCst)
    }

    /// Bytes that went to the server.
    pub(crate) fn brought(&self) -> u64 {
        self.counts.brought.load(Ordering::SeqCst)
    }

    /// Bytes per second from now on.
    pub(crate) fn at_rate(&self, rate: Option<u64>) {
        self.orders.send_modify(|orders| orders.rate = rate);
    }

    /// One-way delay from now on.
    pub(crate) fn as_long_as(&self, delay: Duration) {
        self.orders.send_modify(|orders| orders.delay = delay);
    }

    /// Nothing passes any more; connections stay.
    pub(crate) fn dies(&self) {
        self.orders.send_modify(|orders| orders.way = Way::Dead);
    }

    /// All connections are reset, and so are new ones.
    pub(crate) fn refuses(&self) {
        self.orders.send_modify(|orders| orders.way = Way::Refused);
        self.resets();
    }

    /// All connections of now are reset; new ones are taken.
    pub(crate) fn resets(&self) {
        let dialled = self.dialled();
        self.orders.send_modify(|orders| orders.reset_before = dialled + 1);
    }

    /// The connections of now never bring a byte again, and nobody is told; new ones are taken. So it is when a router starts anew.
    pub(crate) fn forgets(&self) {
        let dialled = self.dialled();
        self.orders.send_modify(|orders| orders.dead_before = dialled + 1);
    }

    /// Pieces come with wrong content.
    pub(crate) fn spoils_pieces(&self) {
        self.orders.send_modify(|orders| orders.spoils = Spoils::Pieces);
    }

    /// Nothing on it makes sense.
    pub(crate) fn babbles(&self) {
        self.orders.send_modify(|orders| orders.spoils = Spoils::All);
    }

    /// Everything is well again, at the rate that was set last.
    pub(crate) fn recovers(&self) {
        self.orders.send_modify(|orders| {
            orders.way = Way::Open;
            orders.spoils = Spoils::Nothing;
            orders.delay = Duration::ZERO;
        });
    }
}

async fn serve(listener: TcpListener, seeder: SocketAddr, orders: watch::Receiver<Orders>, counts: Arc<Counts>, end: CancellationToken) {
    let down = Arc::new(Mutex::new(Instant::now()));
    while let Ok((client, _)) = listener.accept().await {
        let number = counts.dialled.fetch_add(1, Ordering::SeqCst) + 1;
        if orders.borrow().way == Way::Refused {
            break_off(&client);
            continue;
        }
        let (orders, counts, down) = (orders.clone(), counts.clone(), down.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            let Ok(seeder) = TcpStream::connect(seeder).await else { return break_off(&client) };
            let _ = (client.set_nodelay(true), seeder.set_nodelay(true));
            let ((from_client, to_client), (from_seeder, to_seeder)) = (client.into_split(), seeder.into_split());
            let (mut reset, up) = (orders.clone(), orders.clone());
            tokio::select! {
                _ = reset.wait_for(|orders| orders.reset_before > number) => break_off(to_client.as_ref()),
                // Whoever hangs up first ends both ways.
                () = pump(from_seeder, &to_client, number, orders, Some((&down, &counts))) => {}
                () = pump(from_client, &to_seeder, number, up, None) => {}
            }
        }));
    }
}

/// Closes it with a reset.
fn break_off(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

/// Brings bytes one way, as ordered. `down` is for the way toward the server: when its line is free, and what it brought.
async fn pump(
    mut from: OwnedReadHalf,
    to: &OwnedWriteHalf,
    number: usize,
    mut orders: watch::Receiver<Orders>,
    down: Option<(&Mutex<Instant>, &Counts)>,
) {
    let (queue, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let reading = orders.clone();
    let sending = async move {
        let mut buffer = vec![0; 4096];
        let mut frames = Frames::default();
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            let now = *reading.borrow();
            let mut bytes = buffer[..len].to_vec();
            if let Some((free_at, _)) = down {
                let spoil = frames.payload(&bytes);
                match now.spoils {
                    Spoils::Nothing => {}
                    Spoils::Pieces => spoil.into_iter().for_each(|at| bytes[at] ^= 1),
                    Spoils::All => bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7)),
                }
                occupy(free_at, now.rate, len).await;
            }
            if queue.send((Instant::now() + now.delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let receiving = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            let passes = |orders: &Orders| orders.way != Way::Dead && orders.dead_before <= number;
            if orders.wait_for(passes).await.is_err() || write(to, &bytes).await.is_err() {
                return;
            }
            if let Some((_, counts)) = down {
                counts.brought.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            }
        }
    };
    tokio::join!(sending, receiving);
}

async fn write(to: &OwnedWriteHalf, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Each packet takes its time on the line, one after the other.
async fn occupy(free_at: &Mutex<Instant>, rate: Option<u64>, len: usize) {
    let Some(rate) = rate else { return };
    let through = {
        let mut free_at = free_at.lock().expect("the line");
        // What was lost by waking late is made good.
        *free_at = (*free_at).max(Instant::now() - Duration::from_millis(20)) + Duration::from_secs_f64(len as f64 / rate as f64);
        *free_at
    };
    tokio::time::sleep_until(through).await;
}

/// Follows the messages of a peer: a handshake of 68 bytes, then messages behind their length (BEP 3).
struct Frames {
    /// Bytes of the current message that are still to come.
    left: u64,
    /// Those of its first five bytes that came, length and kind.
    head: Vec<u8>,
    handshake: bool,
    piece: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { left: 68, head: Vec::new(), handshake: true, piece: false }
    }
}

impl Frames {
    /// The places of these next bytes that are the last byte of a block of a piece.
    fn payload(&mut self, bytes: &[u8]) -> Vec<usize> {
        const PIECE: u8 = 7;
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if self.left == 0 {
                self.handshake = false;
                self.head.push(bytes[at]);
                at += 1;
                if self.head.len() == 4 {
                    self.left = u64::from(u32::from_be_bytes([self.head[0], self.head[1], self.head[2], self.head[3]]));
                    self.head.clear();
                    self.piece = false;
                    if self.left > 0 {
                        if let Some(kind) = bytes.get(at) {
                            self.piece = *kind == PIECE;
                        } else {
                            self.head.push(0);
                        }
                    }
                }
                continue;
            }
            // The kind comes with the next bytes.
            if !self.handshake && !self.head.is_empty() {
                self.piece = bytes[at] == PIECE;
                self.head.clear();
            }
            let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            at += step;
            self.left -= step as u64;
            if self.left == 0 && self.piece {
                found.push(at - 1);
            }
        }
        found
    }
}

#[test]
fn the_last_byte_of_each_block_is_found_however_the_bytes_come() {
    let mut talk = vec![19; 68];
    let mut expected = Vec::new();
    for (kind, len) in [(5_u8, 3_u32), (7, 20), (4, 5), (7, 1000)] {
        talk.extend(len.to_be_bytes());
        talk.push(kind);
        talk.extend(vec![7; len as usize - 1]);
        if kind == 7 {
            expected.push(talk.len() - 1);
        }
        talk.extend([0; 4]);
    }
    for size in [1, 2, 3, 5, 64, 2000] {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for (n, chunk) in talk.chunks(size).enumerate() {
            found.extend(frames.payload(chunk).into_iter().map(|at| n * size + at));
        }
        assert_eq!(found, expected, "in chunks of {size}");
    }
}
