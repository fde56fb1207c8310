//! Connections: accepts them, speaks HTTP/1.1 and HTTP/2 on them, bounds and ends them.
//!
//! A connection costs at most so long: a client that says nothing, dribbles its headers or stops reading is cut off.
//! What a client hears when it breaks HTTP itself, so that no route ever sees its request, is a problem document
//! too: hyper writes a bare status line there, and [`Wire`] puts the document behind it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::{Buf, Bytes};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::line::{Answer, Line};
pub use super::places::Connections;
use super::places::Standing;
use super::problem;
use crate::stream::lives;
use crate::tasks::Tasks;

/// How long a client may take for its first bytes.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long an idle connection is kept, and how long the headers of a request may take.
const HEADERS: Duration = Duration::from_secs(30);
/// How long a connection is kept on which nothing is asked, whatever else is said on it: HTTP/2 has its pings.
const IDLE: Duration = Duration::from_secs(60);
/// How much may wait in the system before it is sent. What waits here is still ours to take back, and there is enough of
/// it to keep any line of a house busy.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 256 << 10;
/// How long a client may leave what we sent unread.
const UNREAD: Duration = Duration::from_secs(120);

/// The same; a program with debug assertions takes another time from its environment (`TEST_UNREAD_MS`).
fn unread() -> Duration {
    static TOLD: LazyLock<Duration> = LazyLock::new(|| lives::for_tests("TEST_UNREAD_MS").unwrap_or(UNREAD));
    *TOLD
}
/// How long and how far we read on after our last word, so that the client gets to read it before the reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;
/// How much of an answer TLS seals before the socket takes it. As much as is read from the disk in one go: sealed in smaller pieces, the
/// same bytes cost a third more of the processor, because the client is woken for each of them.
const TLS_BUFFER: usize = 512 << 10;
/// Buffer of one connection for request heads; beyond it hyper answers by itself.
const HEAD_BUFFER: usize = 64 << 10;
/// The most headers of one request in HTTP/2, in bytes, before they reach the door.
const HEADER_LIST: u32 = 256 << 10;

/// How a client came in: what it may ask for depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Plain HTTP from this very machine, at 127.0.0.1 or ::1: everything.
    Loopback,
    /// Plain HTTP at any other address: what a phone needs before it can use HTTPS.
    Lan,
    /// HTTPS: everything.
    Tls,
    /// Plain HTTP where HTTPS is spoken: led to HTTPS.
    PlainOnTls,
}

/// The two ends of the connection that a request came by, and which entrance it is; in the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client.
    pub remote: SocketAddr,
    /// The address of ours that it came in by.
    pub local: SocketAddr,
    /// The entrance.
    pub entrance: Entrance,
}

impl Peer {
    /// Of a connection by which plain HTTP is spoken where nothing else is.
    fn plain(remote: SocketAddr, local: SocketAddr) -> Self {
        let entrance = if is_here(remote, local) { Entrance::Loopback } else { Entrance::Lan };
        Self { remote, local, entrance }
    }
}

/// Whether a connection comes from this machine, to the loopback address proper: any other address, those of
/// 127.0.0.0/8 included, may be one that is forwarded to.
pub(super) fn is_here(remote: SocketAddr, local: SocketAddr) -> bool {
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    own.contains(&local.ip().to_canonical()) && remote.ip().to_canonical().is_loopback()
}

/// What is spoken on a socket.
#[derive(Clone)]
pub enum Speech {
    /// HTTP.
    Plain,
    /// HTTP over TLS. Who speaks plain HTTP there is understood too ([`Entrance::PlainOnTls`]).
    Tls(TlsAcceptor),
}

impl Speech {
    /// TLS with this configuration, which has to offer `h2` and `http/1.1` (ALPN).
    pub fn tls(config: Arc<ServerConfig>) -> Self {
        Self::Tls(TlsAcceptor::from(config))
    }
}

/// Accepts connections until `tasks` stop, then lets the running requests end within the group's deadline.
/// Runs as tasks of the group; returns at once.
pub fn serve(listener: TcpListener, speech: Speech, router: Router, connections: &Connections, tasks: &Tasks) {
    let (group, connections) = (tasks.clone(), connections.clone());
    tasks.spawn("accept", async move {
        loop {
            let Some((stream, remote, local)) = accept(&listener).await else { continue };
            let Some(place) = connections.place(remote, local) else {
                tracing::debug!(%remote, "too many connections");
                continue;
            };
            let (router, speech) = (router.clone(), speech.clone());
            drop(group.spawn_ending("connection", move |stop| async move {
                // As a whole: a closure would take of it only what is named.
                let place = place;
                let standing = &place.standing;
                let greeted = standing.ended.run_until_cancelled(greet(stream, remote, local, speech));
                match tokio::time::timeout(FIRST_BYTES, greeted).await {
                    Ok(Some(Ok(Greeted::Plain(io, peer)))) => converse(io, router, peer, standing, IDLE, stop).await,
                    Ok(Some(Ok(Greeted::Tls(io, peer)))) => converse(io, router, peer, standing, IDLE, stop).await,
                    Ok(Some(Err(error))) => tracing::debug!(%error, "a handshake failed"),
                    Ok(None) => tracing::debug!("a handshake gave its place away"),
                    Err(_) => tracing::debug!("a handshake took too long"),
                }
            }));
        }
    });
}

/// A connection of which is known what is spoken on it.
enum Greeted {
    Plain(TcpStream, Peer),
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

/// The first byte of a TLS connection: a record of the kind "handshake" (RFC 8446 section 5.1). No method of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;

async fn greet(stream: TcpStream, remote: SocketAddr, local: SocketAddr, speech: Speech) -> io::Result<Greeted> {
    let Speech::Tls(acceptor) = speech else {
        return Ok(Greeted::Plain(stream, Peer::plain(remote, local)));
    };
    let mut first = [0_u8];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [HANDSHAKE] {
        return Ok(Greeted::Plain(stream, Peer { remote, local, entrance: Entrance::PlainOnTls }));
    }
    let accepted = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(TLS_BUFFER)));
    Ok(Greeted::Tls(Box::new(accepted.await?), Peer { remote, local, entrance: Entrance::Tls }))
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr, SocketAddr)> {
    match listener.accept().await {
        Ok((stream, remote)) => {
            // Small chunks of a growing segment must not wait for the acknowledgement of the last one.
            stream.set_nodelay(true).ok()?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT).ok();
            let local = stream.local_addr().ok()?;
            Some((stream, remote, local))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // Out of file descriptors, most likely: trying again at once would only burn the processor.
            sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// What HTTP is spoken on.
trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Has the connection reset when it is closed: what waits to be sent is thrown away.
    fn reset_at_the_end(&self);
}

impl Transport for TcpStream {
    fn reset_at_the_end(&self) {
        if let Err(error) = SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a connection will not be reset");
        }
    }
}

impl Transport for Box<TlsStream<TcpStream>> {
    fn reset_at_the_end(&self) {
        self.get_ref().0.reset_at_the_end();
    }
}

/// Serves one connection until it ends, is idle for too long, has to leave, or somebody is gone to whom things are sent on it.
async fn converse<Io: Transport>(io: Io, router: Router, peer: Peer, standing: &Arc<Standing>, kept: Duration, stop: CancellationToken) {
    let (line, ties) = Line::new(standing.clone());
    let asked = line.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (line, open) = (asked.clone(), asked.request(request.version()));
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(line.clone());
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { answer.await.map(|answer| answer.map(|body| Answer::new(line, open, body))) }
    });
    let builder = protocol();
    let wire = Wire::new(io, line.clone(), FIRST_BYTES, unread());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let mut idle = pin!(standing.idle(Instant::now(), kept));
    let mut gone = pin!(line.watch(ties));
    let mut leaving = false;
    loop {
        tokio::select! {
            // Who is gone before all else: what is polled after it might still send.
            biased;
            () = gone.as_mut() => return,
            () = standing.ended.cancelled() => return,
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !leaving => leaving = true,
            () = idle.as_mut() => {
                // It was told to leave, and had as long again.
                if leaving {
                    return;
                }
                leaving = true;
                idle.set(standing.idle(Instant::now(), kept));
            }
        }
        connection.as_mut().graceful_shutdown();
    }
}

fn protocol() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEAD_BUFFER).max_headers(256);
    builder
        .http2()
        .timer(TokioTimer::new())
        // Far more than is let in: beyond this h2 answers by itself, with a bare status.
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(100)
        .keep_alive_interval(HEADERS)
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// The transport under HTTP: cuts off the silent and those who do not read, completes bare error answers, and
/// lingers at the end.
struct Wire<Io: Transport> {
    io: Io,
    line: Line,
    /// How long the client may leave what we sent unread.
    patience: Duration,
    /// Until enough was read to know what is spoken.
    silence: Option<Pin<Box<Sleep>>>,
    read: usize,
    /// Runs while the client leaves things unread.
    unread: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// What is written in place of a bare error.
    owed: Bytes,
    end: End,
}

enum End {
    Open,
    Lingering { until: Pin<Box<Sleep>>, left: usize },
    Closed,
}

/// Long enough to tell HTTP/1 from the preface of HTTP/2.
const TELLING: usize = 24;

impl<Io: Transport> Drop for Wire<Io> {
    fn drop(&mut self) {
        if self.line.is_to_be_reset() {
            self.io.reset_at_the_end();
        }
    }
}

impl<Io: Transport> Wire<Io> {
    fn new(io: Io, line: Line, silence: Duration, patience: Duration) -> Self {
        let silence = Some(Box::pin(sleep(silence)));
        Self { io, line, patience, silence, read: 0, unread: None, waiting: false, owed: Bytes::new(), end: End::Open }
    }

    /// Counts the time for which nothing can be written.
    fn bound<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = false;
            return poll;
        }
        let patience = self.patience;
        let timer = self.unread.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes what stands in place of a bare error.
    fn pay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.owed.has_remaining() {
            let poll = Pin::new(&mut self.io).poll_write(cx, &self.owed);
            let written = ready!(self.bound(cx, poll))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.owed.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: Transport> AsyncRead for Wire<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Some(silence) = &mut self.silence {
            if poll.is_pending() {
                ready!(silence.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.read += buffer.filled().len() - before;
            if self.read >= TELLING {
                self.silence = None;
            }
        }
        poll
    }
}

impl<Io: Transport> AsyncWrite for Wire<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.pay(cx))?;
        // Bytes of a film may look like anything.
        if let Some(whole) = (!self.line.may_write_body()).then(|| completed(bytes)).flatten() {
            self.owed = whole;
            return Poll::Ready(Ok(bytes.len()));
        }
        let poll = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.bound(cx, poll)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [only] = slices {
            return self.poll_write(cx, only);
        }
        ready!(self.pay(cx))?;
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.bound(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pay(cx))?;
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        if poll.is_ready() {
            // HTTP/1 flushes what lies under it only when it has nothing more to write itself.
            self.line.flushed();
        }
        self.bound(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Open) {
            ready!(self.pay(cx))?;
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.end = End::Lingering { until: Box::pin(sleep(LINGER)), left: LINGER_BYTES };
        }
        let this = &mut *self;
        if let End::Lingering { until, left } = &mut this.end {
            ready!(linger(&mut this.io, until.as_mut(), left, cx));
            this.end = End::Closed;
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads on until the client closes too: closing with unread bytes makes the system send a reset, which may overtake our answer.
fn linger<Io: AsyncRead + Unpin>(io: &mut Io, until: Pin<&mut Sleep>, left: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
    let mut sink = [0_u8; 8192];
    while *left > 0 {
        let mut buffer = ReadBuf::new(&mut sink);
        match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return until.poll(cx),
        }
    }
    Poll::Ready(())
}

/// The whole answer for a bare error of hyper: a status line, no content, nothing else. Our own errors always have content.
fn completed(bytes: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(256))?).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?.get(..3)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok().filter(|status| status.as_u16() >= 400)?;
    if bytes.len() > 256 || !text.ends_with("\r\n\r\n") || !text.contains("\r\ncontent-length: 0\r\n") || text.contains("content-type") {
        return None;
    }
    let problem = problem::of_status(status);
    let status = problem.status;
    let body = problem.json();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        body.len()
    );
    Some([head.into_bytes(), body].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use futures_util::{StreamExt, stream};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const SHORT: Duration = Duration::from_millis(200);
    const KEPT: Duration = Duration::from_millis(500);

    impl Transport for DuplexStream {
        fn reset_at_the_end(&self) {}
    }

    fn wire(io: DuplexStream) -> Wire<DuplexStream> {
        Wire::new(io, Line::new(Arc::new(Standing::new())).0, SHORT, SHORT)
    }

    /// Serves these routes on a connection; answers the client's end of it.
    fn served(router: Router) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, io) = tokio::io::duplex(64 << 10);
        let here = ([127, 0, 0, 1], 1).into();
        let serving = tokio::spawn(async move {
            converse(io, router, Peer::plain(here, here), &Arc::new(Standing::new()), KEPT, CancellationToken::new()).await;
        });
        (client, serving)
    }

    #[test]
    fn only_the_loopback_address_proper_is_this_machine() {
        let entrance = |remote: &str, local: &str| Peer::plain(remote.parse().expect("remote"), local.parse().expect("local")).entrance;
        for (remote, local) in [
            ("127.0.0.1:9", "127.0.0.1:1"),
            ("[::1]:9", "[::1]:1"),
            ("[::ffff:127.0.0.1]:9", "[::ffff:127.0.0.1]:1"),
            ("127.0.0.3:9", "127.0.0.1:1"),
        ] {
            assert_eq!(entrance(remote, local), Entrance::Loopback, "{remote} {local}");
        }
        for (remote, local) in [
            ("127.0.0.1:9", "127.0.0.2:1"),
            ("192.168.1.9:9", "192.168.1.7:1"),
            ("192.168.1.7:9", "192.168.1.7:1"),
            // Whatever let such a packet in: it does not come from here.
            ("192.168.1.9:9", "127.0.0.1:1"),
            ("[fe80::1]:9", "[::1]:1"),
        ] {
            assert_eq!(entrance(remote, local), Entrance::Lan, "{remote} {local}");
        }
    }

    #[test]
    fn only_bare_errors_are_completed() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\n\r\n";
        let whole = completed(bare.as_bytes()).expect("completed");
        let text = std::str::from_utf8(&whole).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 413 Payload Too Large\r\ncontent-type: application/problem+json\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains("\"code\":\"too_large\"") && body.contains("\"status\":413"), "{body}");
        for other in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-type: a/b\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\nmore",
            "HTTP/1.1 4é",
        ] {
            assert_eq!(completed(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_piece_of_a_film_that_looks_like_a_bare_error_passes() {
        const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        assert!(completed(BARE).is_some());
        let film = || async {
            let pieces = stream::iter([&b"film"[..], BARE, BARE]).then(|piece| async move {
                // Not written together with what is before it.
                sleep(Duration::from_millis(50)).await;
                Ok::<_, io::Error>(Bytes::from_static(piece))
            });
            ([("content-length", (4 + 2 * BARE.len()).to_string())], Body::from_stream(pieces))
        };
        let (mut client, _serving) = served(Router::new().route("/film", get(film)));
        for _ in 0..2 {
            client.write_all(b"GET /film HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
            let mut answer = vec![];
            while !answer.ends_with(&[b"film", BARE, BARE].concat()) {
                let read = tokio::time::timeout(Duration::from_secs(5), client.read_buf(&mut answer)).await;
                assert!(read.is_ok_and(|read| read.is_ok_and(|read| read > 0)), "{}", String::from_utf8_lossy(&answer));
            }
        }
        // And on the very same connection an error of HTTP itself is completed.
        client.write_all(b"GARBAGE\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }

    #[tokio::test]
    async fn http2_that_asks_nothing_is_ended_and_slow_answers_are_not() {
        let slow = || async {
            sleep(KEPT * 2).await;
            "slow"
        };
        let (client, serving) = served(Router::new().route("/slow", get(slow)));
        // This client answers every ping.
        let (mut client, connection) = h2::client::handshake(client).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let begun = Instant::now();
        sleep(KEPT / 2).await;
        let (answer, _) = client.send_request(Request::get("http://h/slow").body(()).expect("request"), true).expect("sent");
        let answer = answer.await.expect("answered");
        assert_eq!(answer.into_body().data().await.expect("a body").expect("data"), "slow");
        let answered = begun.elapsed();
        assert!(answered >= KEPT * 5 / 2, "{answered:?}");
        connection.await.expect("ended").expect("told to leave, not cut off");
        serving.await.expect("ended");
        let kept = begun.elapsed() - answered;
        assert!(kept >= KEPT * 9 / 10 && kept < KEPT * 2, "{kept:?}");
    }

    #[tokio::test]
    async fn a_silent_client_is_cut_off() {
        let (_client, server) = tokio::io::duplex(64);
        let error = wire(server).read_u8().await.expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, server) = tokio::io::duplex(64);
        let mut wire = wire(server);
        wire.write_all(&[0; 64]).await.expect("fits");
        let started = Instant::now();
        let reading = async {
            // One read in time starts the clock again.
            sleep(SHORT / 2).await;
            client.read_exact(&mut [0; 64]).await.expect("read");
            client
        };
        let (result, _client) = tokio::join!(wire.write_all(&[0; 200]), reading);
        assert_eq!(result.expect_err("cut off").kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= SHORT * 3 / 2);
    }
}
