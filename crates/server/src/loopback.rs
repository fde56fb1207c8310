//! The address at which our own ffmpeg reads a film: HTTP/1.1 on 127.0.0.1, one unguessable path for each child.
//!
//! Not a part of the API: it has no tokens, no cookies, no names. A path exists as long as its [`Lease`], answers GET and HEAD with
//! ranges, and gives bytes as the torrent gives them. The lease tells whether the child waits for bytes or the bytes for the child,
//! which is what a watchdog must know.
//!
//! The path stands in the child's arguments, which every user of the machine may read. So the path alone opens nothing: the connection
//! has to be held by the very process that the lease was given to, where the system can tell ([`owner`]). When that process ends,
//! nobody is left whom the path would answer.

mod owner;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use balcony_media::range::{self, Ranges};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::owner::Owner;
use crate::lock::lock;
use crate::source::{Cursor, Source, SourceError};
use crate::tasks::Tasks;

/// Requests that one child may have open at once: it reads in one place, and lets go of the earlier one when it seeks.
const OPEN_REQUESTS: usize = 4;

/// How long a request waits for an earlier one of the same child to be let go.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// How long a request waits until its lease is given to somebody: a child may ask sooner than its parent knows its number.
const READER_WAIT: Duration = Duration::from_secs(5);

/// Bytes of one read.
const READ: usize = 256 * 1024;

/// Connections at once, of all children.
const CONNECTIONS: usize = 256;

type Body = UnsyncBoxBody<Bytes, SourceError>;

/// The listener. Cheap to clone.
#[derive(Clone)]
pub struct Loopback(Arc<Inner>);

struct Inner {
    address: SocketAddrV4,
    leased: Mutex<HashMap<String, Arc<Leased>>>,
}

impl Loopback {
    /// Listens on a free port of 127.0.0.1 until the group of tasks ends.
    pub async fn start(tasks: &Tasks) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr()?.port());
        let inner = Arc::new(Inner { address, leased: Mutex::default() });
        let tasks = tasks.child("loopback");
        let (connections, serving) = (tasks.clone(), inner.clone());
        tasks.spawn("listener", async move { accept(&listener, &connections, &serving).await });
        Ok(Self(inner))
    }

    /// Whether this system tells which process holds a connection.
    pub async fn knows_its_readers(&self) -> bool {
        let near = self.0.address;
        let Ok(own) = TcpStream::connect(near).await else { return false };
        let far = own.local_addr().ok().and_then(v4);
        far.is_some_and(|far| owner::of(far, near, std::process::id()) == Owner::This)
    }

    /// Opens an address for one child, which answers once it was [given](Lease::give_to) to it. It is gone when the lease is dropped, and so is every answer that is still being sent.
    pub fn lease(&self, source: Source) -> io::Result<Lease> {
        self.lease_spliced(source, None)
    }

    /// The same for the film's head and what follows another place of it, as if nothing lay between.
    pub fn lease_spliced(&self, source: Source, splice: Option<Splice>) -> io::Result<Lease> {
        let splice = splice.filter(|splice| splice.head <= splice.from && splice.from <= source.len());
        let mut secret = [0_u8; 24];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let secret = data_encoding::BASE64URL_NOPAD.encode(&secret);
        let leased = Arc::new(Leased {
            source,
            splice,
            reader: watch::Sender::new(None),
            closed: CancellationToken::new(),
            room: Arc::new(Semaphore::new(OPEN_REQUESTS)),
            gauge: Mutex::new(Gauge { waits: Vec::new(), next: 0, flowed: Instant::now(), served: 0, error: None }),
        });
        lock(&self.0.leased).insert(secret.clone(), leased.clone());
        Ok(Lease { loopback: self.0.clone(), secret, leased })
    }
}

/// What is left out of a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// Bytes at the beginning that are given.
    pub head: u64,
    /// Offset at which the film goes on behind them.
    pub from: u64,
}

/// The right of one child to read one film.
pub struct Lease {
    loopback: Arc<Inner>,
    secret: String,
    leased: Arc<Leased>,
}

impl Lease {
    /// The address to give to the child.
    pub fn url(&self) -> String {
        format!("http://{}/{}/film", self.loopback.address, self.secret)
    }

    /// Names the process that may read here: this one and no other.
    pub fn give_to(&self, pid: u32) {
        self.leased.reader.send_replace(Some(pid));
    }

    /// The port of that address: the only one that the child has to reach.
    pub fn port(&self) -> u16 {
        self.loopback.address.port()
    }

    /// Since when the child has been waiting for bytes that the film does not have yet; `None` while it is not waiting.
    pub fn waiting_since(&self) -> Option<Instant> {
        lock(&self.leased.gauge).waits.iter().map(|(_, since)| *since).min()
    }

    /// When bytes were last given to the child, or the lease was made.
    pub fn flowed_at(&self) -> Instant {
        lock(&self.leased.gauge).flowed
    }

    /// Bytes given to the child so far.
    pub fn served(&self) -> u64 {
        lock(&self.leased.gauge).served
    }

    /// As if the child waited for bytes, until the guard is dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + use<> {
        self.leased.waiting()
    }

    /// Why the film could not be read, if it ever could not: the child took that for the end of the film.
    pub fn error(&self) -> Option<SourceError> {
        lock(&self.leased.gauge).error.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.loopback.leased).remove(&self.secret);
        self.leased.closed.cancel();
    }
}

struct Leased {
    source: Source,
    splice: Option<Splice>,
    /// The process that may read.
    reader: watch::Sender<Option<u32>>,
    closed: CancellationToken,
    room: Arc<Semaphore>,
    gauge: Mutex<Gauge>,
}

/// What the watchdog wants to know.
struct Gauge {
    waits: Vec<(u64, Instant)>,
    next: u64,
    flowed: Instant,
    served: u64,
    error: Option<SourceError>,
}

impl Leased {
    /// Whether the other end of this connection is held by whom the lease was given to. Where the system does not tell, the secret that
    /// was known has to do.
    async fn is_read_by(&self, far: SocketAddrV4, near: SocketAddrV4) -> bool {
        let mut reader = self.reader.subscribe();
        let given = tokio::time::timeout(READER_WAIT, reader.wait_for(Option::is_some)).await;
        let Some(pid) = given.ok().and_then(Result::ok).and_then(|pid| *pid) else { return false };
        owner::of(far, near, pid) != Owner::Another
    }

    /// Counts a read that has begun, until the guard is dropped.
    fn waiting(self: &Arc<Self>) -> Waiting {
        let mut gauge = lock(&self.gauge);
        let id = gauge.next;
        gauge.next += 1;
        gauge.waits.push((id, Instant::now()));
        Waiting { leased: self.clone(), id }
    }

    /// Bytes that the child can read.
    fn len(&self) -> u64 {
        self.splice.map_or(self.source.len(), |splice| self.source.len() - splice.from + splice.head)
    }

    /// Where in the film the byte `at` of the address lies, and how many follow it there.
    fn place(&self, at: u64) -> (u64, u64) {
        match self.splice {
            Some(splice) if at < splice.head => (at, splice.head - at),
            Some(splice) => (at - splice.head + splice.from, u64::MAX),
            None => (at, u64::MAX),
        }
    }

    fn delivered(&self, read: &Result<Bytes, SourceError>) {
        let mut gauge = lock(&self.gauge);
        match read {
            Ok(bytes) => {
                gauge.served += bytes.len() as u64;
                gauge.flowed = Instant::now();
            }
            Err(error) => gauge.error = Some(error.clone()),
        }
    }
}

struct Waiting {
    leased: Arc<Leased>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.leased.gauge).waits.retain(|(id, _)| *id != self.id);
    }
}

async fn accept(listener: &TcpListener, tasks: &Tasks, inner: &Arc<Inner>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, far)) => {
                let inner = inner.clone();
                tasks.spawn("connection", async move {
                    let _permit = permit;
                    if let Some(far) = v4(far) {
                        serve(stream, far, inner).await;
                    }
                });
            }
            Err(error) => {
                // Too many open files: those that are open will end.
                tracing::warn!(%error, "a connection from a child could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

async fn serve(stream: TcpStream, far: SocketAddrV4, inner: Arc<Inner>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let inner = inner.clone();
        async move { Ok::<_, Infallible>(answer(&inner, far, &request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(READ);
    // An error here is a child that went away in the middle of an answer, which it does at every seek.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(inner: &Inner, far: SocketAddrV4, request: &Request<Incoming>) -> Response<Body> {
    let secret = request.uri().path().strip_prefix('/').and_then(|path| path.strip_suffix("/film"));
    // Looked up by hash, not compared byte by byte: how long it takes tells nothing about other leases.
    let Some(leased) = secret.and_then(|secret| lock(&inner.leased).get(secret).cloned()) else {
        return status(StatusCode::NOT_FOUND);
    };
    if !leased.is_read_by(far, inner.address).await {
        tracing::warn!("a process that is not the film's reader knew its address, and was refused");
        return status(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let len = leased.len();
    let ranges = range::parse(single(request.headers()), len);
    if request.method() == Method::HEAD {
        return head(ranges, len, 0).body(Empty::new().map_err(never).boxed_unsync()).unwrap_or_default();
    }
    let Some((offset, bytes)) = ranges.span(len) else {
        return head(ranges, len, 0).body(Empty::new().map_err(never).boxed_unsync()).unwrap_or_default();
    };
    let Ok(Ok(permit)) = tokio::time::timeout(ROOM_WAIT, leased.room.clone().acquire_owned()).await else {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    };
    let body = StreamBody::new(flow(leased, offset, bytes, permit)).boxed_unsync();
    head(ranges, len, bytes).body(body).unwrap_or_default()
}

fn single(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::RANGE).and_then(|value| value.to_str().ok())
}

fn head(ranges: Ranges, len: u64, bytes: u64) -> http::response::Builder {
    let mut response = Response::builder()
        .status(ranges.status())
        .header(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(range) = ranges.content_range(len) {
        response = response.header(header::CONTENT_RANGE, range);
    }
    let content = ranges.span(len).map_or(0, |(_, span)| span);
    debug_assert!(bytes == 0 || bytes == content);
    response.header(header::CONTENT_LENGTH, content)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(never).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn never(error: Infallible) -> SourceError {
    match error {}
}

/// One answer that is being sent.
struct Flow {
    leased: Arc<Leased>,
    cursor: Cursor,
    /// What the child asks for next.
    at: u64,
    left: u64,
    _permit: OwnedSemaphorePermit,
}

/// The bytes of a range as the film gives them. Ends with an error, and so with a broken connection, when the film cannot be read or the
/// lease is over: never with fewer bytes than promised.
fn flow(
    leased: Arc<Leased>,
    offset: u64,
    bytes: u64,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Frame<Bytes>, SourceError>> {
    let cursor = leased.source.cursor(leased.place(offset).0);
    let start = Flow { leased, cursor, at: offset, left: bytes, _permit: permit };
    stream::try_unfold(start, |mut flow| async move {
        if flow.left == 0 {
            return Ok(None);
        }
        let bytes = flow.read().await?;
        flow.left = flow.left.saturating_sub(bytes.len() as u64);
        flow.at += bytes.len() as u64;
        Ok(Some((Frame::data(bytes), flow)))
    })
}

impl Flow {
    async fn read(&mut self) -> Result<Bytes, SourceError> {
        let (place, room) = self.leased.place(self.at);
        if place != self.cursor.position() {
            self.cursor.seek(place);
        }
        let max = usize::try_from(self.left.min(room)).unwrap_or(READ).min(READ);
        let waiting = self.leased.waiting();
        let read = tokio::select! {
            biased;
            () = self.leased.closed.cancelled() => return Err(SourceError::Gone),
            read = self.cursor.read(max) => read,
        };
        drop(waiting);
        let read = read.and_then(|bytes| if bytes.is_empty() { Err(SourceError::PastEnd) } else { Ok(bytes) });
        self.leased.delivered(&read);
        read
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn film(bytes: &[u8]) -> (tempfile::NamedTempFile, Tasks, Loopback, Lease) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        let tasks = Tasks::new();
        let loopback = Loopback::start(&tasks).await.expect("listening");
        let lease = loopback.lease(Source::local(file.path()).expect("opened")).expect("leased");
        lease.give_to(std::process::id());
        (file, tasks, loopback, lease)
    }

    #[tokio::test]
    async fn what_lies_between_the_head_and_a_place_is_left_out() {
        let (file, _tasks, loopback, _lease) = film(b"head-----and the rest").await;
        let source = Source::local(file.path()).expect("opened");
        let lease = loopback.lease_spliced(source.clone(), Some(Splice { head: 4, from: 9 })).expect("leased");
        lease.give_to(std::process::id());
        let client = reqwest::Client::new();
        for (range, expected) in [("bytes=0-", "headand the rest"), ("bytes=2-5", "adan"), ("bytes=4-6", "and"), ("bytes=-4", "rest")] {
            let answer = client.get(lease.url()).header("range", range).send().await.expect("an answer");
            assert_eq!(answer.text().await.expect("a body"), expected, "{range}");
        }
        // One that makes no sense leaves nothing out.
        let lease = loopback.lease_spliced(source, Some(Splice { head: 4, from: 99 })).expect("leased");
        lease.give_to(std::process::id());
        let whole = client.get(lease.url()).send().await.expect("an answer").text().await.expect("a body");
        assert_eq!(whole, "head-----and the rest");
    }

    #[tokio::test]
    async fn ranges_of_the_film_are_answered_while_the_lease_lives() {
        let (_file, tasks, _loopback, lease) = film(b"0123456789").await;
        let (client, url) = (reqwest::Client::new(), lease.url());
        let table = [
            (None, 200, None, "0123456789"),
            (Some("bytes=0-"), 206, Some("bytes 0-9/10"), "0123456789"),
            (Some("bytes=3-4"), 206, Some("bytes 3-4/10"), "34"),
            (Some("bytes=-2"), 206, Some("bytes 8-9/10"), "89"),
            (Some("bytes=10-"), 416, Some("bytes */10"), ""),
        ];
        for (range, status, content_range, body) in table {
            let request = range.into_iter().fold(client.get(&url), |request, range| request.header("range", range));
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), status, "{range:?}");
            assert_eq!(response.headers().get("content-range").map(|value| value.to_str().expect("text")), content_range);
            assert_eq!(response.text().await.expect("a body"), body);
        }
        let response = client.head(&url).header("range", "bytes=2-").send().await.expect("an answer");
        assert_eq!((response.status().as_u16(), response.headers()["content-length"].to_str().expect("text")), (206, "8"));
        assert_eq!(client.post(&url).send().await.expect("an answer").status().as_u16(), 405);
        assert_eq!((lease.served(), lease.waiting_since(), lease.error()), (24, None, None));
        drop(lease);
        assert_eq!(client.get(&url).send().await.expect("an answer").status().as_u16(), 404);
        assert_eq!(tasks.end(Duration::from_secs(5)).await, 0);
        assert!(client.get(&url).send().await.is_err(), "the listener ended");
    }

    #[tokio::test]
    async fn no_other_path_exists() {
        let (_file, _tasks, loopback, lease) = film(b"x").await;
        let other = loopback.lease(lease.leased.source.clone()).expect("leased");
        assert_ne!(lease.url(), other.url());
        let base = format!("http://{}", loopback.0.address);
        for path in ["", "/", "/film", "//film", "/../film", &format!("/{}", lease.secret), &format!("/{}/film/", lease.secret)] {
            let status = reqwest::get(format!("{base}{path}")).await.expect("an answer").status();
            assert_eq!(status.as_u16(), 404, "{path}");
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn only_the_process_that_it_was_given_to_is_answered() {
        let (_file, _tasks, loopback, lease) = film(b"secret").await;
        assert!(loopback.knows_its_readers().await);
        assert_eq!(reqwest::get(lease.url()).await.expect("an answer").status().as_u16(), 200);
        lease.give_to(1);
        assert_eq!(reqwest::get(lease.url()).await.expect("an answer").status().as_u16(), 404);
    }

    #[tokio::test]
    async fn a_request_waits_until_the_lease_is_given_to_somebody() {
        let (_file, _tasks, loopback, lease) = film(b"film").await;
        let early = loopback.lease(lease.leased.source.clone()).expect("leased");
        let asking = tokio::spawn(reqwest::get(early.url()));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asking.is_finished());
        early.give_to(std::process::id());
        assert_eq!(asking.await.expect("joined").expect("an answer").status().as_u16(), 200);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_any_more_makes_room_for_others() {
        let (_file, _tasks, _loopback, lease) = film(&vec![7; 64 << 20]).await;
        let client = reqwest::Client::new();
        for _ in 0..3 * OPEN_REQUESTS {
            let mut response = client.get(lease.url()).send().await.expect("an answer");
            assert!(response.chunk().await.expect("bytes").is_some());
        }
        let all = lease.leased.room.acquire_many(OPEN_REQUESTS as u32);
        let all = tokio::time::timeout(ROOM_WAIT, all).await;
        assert!(all.is_ok(), "every dropped answer gave its place back");
    }

    #[tokio::test]
    async fn the_end_of_a_lease_breaks_what_is_being_sent() {
        let (_file, _tasks, _loopback, lease) = film(&vec![7; 64 << 20]).await;
        let mut response = reqwest::get(lease.url()).await.expect("an answer");
        response.chunk().await.expect("bytes");
        drop(lease);
        let rest = async {
            while response.chunk().await?.is_some() {}
            Ok::<_, reqwest::Error>(())
        };
        assert!(tokio::time::timeout(ROOM_WAIT, rest).await.expect("in time").is_err());
    }
}
