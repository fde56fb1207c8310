//! Real swarms on loopback for tests: libtorrent seeders, each behind a proxy that makes its line as slow and as long as one wants.
//!
//! libtorrent's own upload limit comes in bursts of seconds; the proxy's line is smooth. Everything ends when the [`Swarm`] is dropped.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balcony_media::magnet::{InfoHash, Magnet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a swarm is like.
#[derive(Debug, Clone)]
pub(crate) struct SwarmOptions {
    /// Bytes per second of each seeder; `None` is as fast as it goes.
    pub(crate) rate: Option<u64>,
    /// One-way delay of each line.
    pub(crate) delay: Duration,
    /// Bytes.
    pub(crate) piece_len: u32,
    pub(crate) seeders: usize,
}

impl Default for SwarmOptions {
    fn default() -> Self {
        Self { rate: None, delay: Duration::ZERO, piece_len: 256 << 10, seeders: 1 }
    }
}

/// Seeders of one file or folder.
pub(crate) struct Swarm {
    path: PathBuf,
    options: SwarmOptions,
    info_hash: InfoHash,
    seeders: Vec<Seeder>,
    folder: tempfile::TempDir,
    lines: CancellationToken,
}

struct Seeder {
    process: Option<Child>,
    address: SocketAddr,
    /// Where the world reaches it.
    front: SocketAddr,
}

impl Swarm {
    /// Seeds a file or folder and returns when everybody listens.
    pub(crate) async fn seed(path: impl AsRef<Path>, options: SwarmOptions) -> Self {
        let path = path.as_ref().canonicalize().expect("the film is there");
        let folder = tempfile::Builder::new().prefix("torrent-swarm-").tempdir().expect("a folder");
        let lines = CancellationToken::new();
        let mut info_hash = None;
        let mut seeders = Vec::new();
        for _ in 0..options.seeders {
            let (process, hash, address) = spawn(&path, &folder.path().join("it.torrent"), options.piece_len, 0);
            info_hash = Some(hash);
            let front = match (options.rate, options.delay) {
                (None, Duration::ZERO) => address,
                (rate, delay) => proxy(address, rate, delay, lines.clone()).await,
            };
            seeders.push(Seeder { process: Some(process), address, front });
        }
        Self { path, options, info_hash: info_hash.expect("at least one seeder"), seeders, folder, lines }
    }

    pub(crate) fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The magnet with every seeder's address in it.
    pub(crate) fn magnet(&self) -> Magnet {
        Magnet { peers: self.seeders.iter().map(|seeder| seeder.front).collect(), ..Magnet::of(self.info_hash) }
    }

    /// The magnet as people paste it.
    pub(crate) fn link(&self) -> String {
        let peers: String = self.seeders.iter().map(|seeder| format!("&x.pe={}", seeder.front)).collect();
        format!("magnet:?xt=urn:btih:{}{peers}", self.info_hash)
    }

    /// The torrent's metainfo file.
    pub(crate) fn torrent_file(&self) -> PathBuf {
        self.folder.path().join("it.torrent")
    }

    /// Kills all seeders, without a goodbye.
    pub(crate) fn kill(&mut self) {
        self.seeders.iter_mut().for_each(Seeder::kill);
    }

    /// Starts them again, at the same addresses.
    pub(crate) fn revive(&mut self) {
        for seeder in self.seeders.iter_mut().filter(|seeder| seeder.process.is_none()) {
            let torrent_file = self.folder.path().join("it.torrent");
            let (process, _, address) = spawn(&self.path, &torrent_file, self.options.piece_len, seeder.address.port());
            assert_eq!(address, seeder.address);
            seeder.process = Some(process);
        }
    }
}

impl Seeder {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.kill();
        self.lines.cancel();
    }
}

fn spawn(path: &Path, torrent_file: &Path, piece_len: u32, port: u16) -> (Child, InfoHash, SocketAddr) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/seed.py");
    let mut process = Command::new("/usr/bin/python3")
        .arg(script)
        .args([path, torrent_file])
        .args([piece_len.to_string(), port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 with libtorrent (Debian: python3-libtorrent)");
    let mut line = String::new();
    let output = process.stdout.take().expect("its output");
    BufReader::new(output).read_line(&mut line).expect("a line of the seeder");
    let mut words = line.split_whitespace().skip_while(|word| *word != "ready").skip(1);
    let hash = words.next().and_then(|word| word.parse().ok());
    let port = words.next().and_then(|word| word.parse().ok());
    let (Some(hash), Some(port)) = (hash, port) else {
        let _ = process.kill();
        let _ = process.wait();
        panic!("the seeder did not begin: {line:?}");
    };
    (process, hash, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// A line of constant speed: each packet takes its time on it, one after the other.
struct Line {
    rate: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Line {
    async fn pass(&self, len: usize) {
        let Some(rate) = self.rate else { return };
        let through = {
            let mut free_at = self.free_at.lock().expect("the line");
            // A timer that wakes late must not make the line slower: so much of lost time is made good.
            let begins = (*free_at).max(Instant::now() - Duration::from_millis(20));
            *free_at = begins + Duration::from_secs_f64(len as f64 / rate as f64);
            *free_at
        };
        tokio::time::sleep_until(through).await;
    }
}

async fn proxy(to: SocketAddr, rate: Option<u64>, delay: Duration, end: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let front = listener.local_addr().expect("its address");
    let down = Arc::new(Line { rate, free_at: Mutex::new(Instant::now()) });
    let up = Arc::new(Line { rate: None, free_at: Mutex::new(Instant::now()) });
    let serving = end.clone();
    tokio::spawn(end.run_until_cancelled_owned(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(seeder) = TcpStream::connect(to).await else { continue };
            let _ = (client.set_nodelay(true), seeder.set_nodelay(true));
            let ((from_client, to_client), (from_seeder, to_seeder)) = (client.into_split(), seeder.into_split());
            let (down, up) = (down.clone(), up.clone());
            tokio::spawn(serving.clone().run_until_cancelled_owned(async move {
                // Whoever hangs up first ends both ways.
                tokio::select! {
                    () = pump(from_seeder, to_client, &down, delay) => {}
                    () = pump(from_client, to_seeder, &up, delay) => {}
                }
            }));
        }
    }));
    front
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line, delay: Duration) {
    let (queue, mut arriving) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(64);
    let sending = async move {
        let mut buffer = vec![0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            line.pass(len).await;
            if queue.send((Instant::now() + delay, buffer[..len].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let receiving = async move {
        while let Some((at, bytes)) = arriving.recv().await {
            if !delay.is_zero() {
                tokio::time::sleep_until(at).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(sending, receiving);
}

/// A film of random bytes: nothing that is read of it can be right by accident.
pub(crate) fn random_film(path: impl AsRef<Path>, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut film = Vec::with_capacity(len + 8);
    while film.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        film.extend_from_slice(&state.to_le_bytes());
    }
    film.truncate(len);
    std::fs::write(path, &film).expect("written");
    film
}
