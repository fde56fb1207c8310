//! A peer that knows nothing but how to tell metadata, true or not (BEP 9, BEP 10), and the metadata that it tells.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balcony_media::magnet::InfoHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A bencoded string (BEP 3).
fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [format!("{}:", text.len()).as_bytes(), text].concat()
}

/// An info dictionary of one file.
pub(crate) fn one_file(name: &str, length: &str, piece_len: &str, hashes: usize) -> Vec<u8> {
    let mut info = b"d".to_vec();
    info.extend([text("length"), format!("i{length}e").into_bytes(), text("name"), text(name)].concat());
    info.extend([text("piece length"), format!("i{piece_len}e").into_bytes(), text("pieces"), text(vec![7; hashes * 20])].concat());
    info.push(b'e');
    info
}

/// An info dictionary of many files; each is `(path in parts, length)`.
pub(crate) fn many_files(files: &[(Vec<&str>, &str)], piece_len: u64, hashes: usize) -> Vec<u8> {
    let mut info = [&b"d"[..], &text("files"), b"l"].concat();
    for (path, length) in files {
        let parts: Vec<u8> = path.iter().flat_map(text).collect();
        info.extend([&b"d"[..], &text("length"), format!("i{length}e").as_bytes(), &text("path"), b"l", &parts, b"ee"].concat());
    }
    info.extend([&b"e"[..], &text("name"), &text("pack")].concat());
    info.extend([text("piece length"), format!("i{piece_len}e").into_bytes(), text("pieces"), text(vec![7; hashes * 20])].concat());
    info.push(b'e');
    info
}

pub(crate) fn sha1(bytes: &[u8]) -> InfoHash {
    let printed = Command::new("sha1sum").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let mut process = printed.expect("sha1sum");
    std::io::Write::write_all(&mut process.stdin.take().expect("its input"), bytes).expect("written");
    let printed = process.wait_with_output().expect("its output").stdout;
    String::from_utf8_lossy(&printed)[..40].parse().expect("a hash")
}

/// A peer that knows nothing but how to send metadata (BEP 9, BEP 10).
pub(crate) struct Liar {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Liar {
    pub(crate) async fn tell(info: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let info = Arc::new(info);
        let serving = tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let info = info.clone();
                tokio::spawn(async move { talk(peer, &info).await });
            }
        });
        Self { address, calls, serving }
    }

    /// How often it was dialled.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn talk(mut peer: TcpStream, info: &[u8]) -> Option<()> {
    let mut handshake = [0; 68];
    peer.read_exact(&mut handshake).await.ok()?;
    handshake[25] |= 0x10;
    handshake[48..].copy_from_slice(b"-LI0001-abcdefghijkl");
    peer.write_all(&handshake).await.ok()?;
    let hello = format!("d1:md11:ut_metadatai1ee13:metadata_sizei{}ee", info.len());
    send(&mut peer, 0, hello.as_bytes()).await?;
    let mut their_id = 1;
    loop {
        let len = peer.read_u32().await.ok()? as usize;
        let mut message = vec![0; len.min(1 << 20)];
        peer.read_exact(&mut message).await.ok()?;
        let [20, kind, body @ ..] = &message[..] else { continue };
        let body = String::from_utf8_lossy(body);
        let number = |key: &str| body.split(key).nth(1)?.split('e').next()?.parse::<usize>().ok();
        if *kind == 0 {
            their_id = number("11:ut_metadatai").unwrap_or(1) as u8;
        } else if let Some(piece) = number("5:piecei") {
            let part = info.chunks(16 << 10).nth(piece)?;
            let head = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{}ee", info.len());
            send(&mut peer, their_id, &[head.as_bytes(), part].concat()).await?;
        }
    }
}

async fn send(peer: &mut TcpStream, kind: u8, body: &[u8]) -> Option<()> {
    peer.write_u32(body.len() as u32 + 2).await.ok()?;
    peer.write_all(&[20, kind]).await.ok()?;
    peer.write_all(body).await.ok()
}
