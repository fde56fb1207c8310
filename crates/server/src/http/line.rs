//! One connection as its requests see it: what is being sent on it to whom, and how all of it is thrown away at once.
//!
//! When a device is revoked, it is not enough to send nothing more: what lies in the buffers of HTTP and TLS and in the
//! system's send queue would still reach a client that reads slowly, for many seconds. So the connection is reset,
//! which throws the queue away. On HTTP/2 other answers may be under way on the same connection. A connection belongs to
//! one device in practice, and a proxy that mixes devices on one asks again for what broke off.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Version;
use http_body::{Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::places::{Open, Standing};

/// For how long the end of a body that HTTP has taken may still lie in some buffer on its way to a slow client.
const TAIL: Duration = Duration::from_secs(60);
/// How long the other answers on the connection may take: a device that revokes itself gets to read that it did.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The connection that a request came by; in the extensions of every request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    standing: Arc<Standing>,
    ties: mpsc::UnboundedSender<Tie>,
    /// How many answers are tied to somebody now.
    tied: AtomicUsize,
    /// What is still to be sent is not for the client any more.
    reset: AtomicBool,
    /// A body was handed over of which not everything is written yet.
    holds_body: AtomicBool,
    multiplexed: AtomicBool,
}

/// One answer and for how long its client may have it.
#[derive(Debug)]
pub(super) struct Tie {
    gone: CancellationToken,
    sent: oneshot::Receiver<()>,
}

/// Held by an answer for as long as it is being sent.
#[derive(Debug)]
pub struct Tied {
    line: Line,
    _sent: oneshot::Sender<()>,
}

impl Line {
    /// With what [`Line::watch`] needs.
    pub(super) fn new(standing: Arc<Standing>) -> (Self, mpsc::UnboundedReceiver<Tie>) {
        let (ties, made) = mpsc::unbounded_channel();
        let flag = AtomicBool::default;
        let inner = Inner { standing, ties, tied: AtomicUsize::new(0), reset: flag(), holds_body: flag(), multiplexed: flag() };
        (Self(Arc::new(inner)), made)
    }

    /// The client showed a token or a ticket that is good.
    pub fn known(&self) {
        self.0.standing.known();
    }

    /// Resets the connection when `gone` is cancelled while what is returned is held, or shortly after.
    pub fn tie(&self, gone: CancellationToken) -> Tied {
        let (until, sent) = oneshot::channel();
        self.0.tied.fetch_add(1, Ordering::Relaxed);
        // The connection may be over already.
        self.0.ties.send(Tie { gone, sent }).ok();
        Tied { line: self.clone(), _sent: until }
    }

    /// A request in this version of HTTP has come; it is open until what is returned is dropped.
    pub(super) fn request(&self, version: Version) -> Open {
        self.0.multiplexed.fetch_or(version == Version::HTTP_2, Ordering::Relaxed);
        self.0.standing.request()
    }

    /// Ends when somebody is gone to whom something was being sent: it is time to reset.
    pub(super) async fn watch(&self, mut made: mpsc::UnboundedReceiver<Tie>) {
        let mut ties = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(tie) = made.recv() => ties.push(tie.gone()),
                Some(gone) = ties.next(), if !ties.is_empty() => if gone { break },
                // Not met: the line itself holds a sender.
                else => std::future::pending().await,
            }
        }
        self.to_be_reset();
        if self.0.standing.open() > self.0.tied.load(Ordering::Relaxed) {
            sleep(LAST_WORD).await;
        }
    }

    fn to_be_reset(&self) {
        self.0.reset.store(true, Ordering::Relaxed);
    }

    /// Whether what is still to be sent is to be thrown away.
    pub(super) fn is_to_be_reset(&self) -> bool {
        self.0.reset.load(Ordering::Relaxed)
    }

    /// Everything that HTTP had is written.
    pub(super) fn flushed(&self) {
        self.0.holds_body.store(false, Ordering::Relaxed);
    }

    /// Whether what is written now may be of a body. HTTP/2 keeps what it was given beyond a flush.
    pub(super) fn may_write_body(&self) -> bool {
        self.0.multiplexed.load(Ordering::Relaxed) || self.0.holds_body.load(Ordering::Relaxed)
    }
}

impl Tie {
    /// Whether the client was gone before everything had reached it.
    async fn gone(self) -> bool {
        let Self { gone, sent } = self;
        let tail = async {
            sent.await.ok();
            sleep(TAIL).await;
        };
        gone.run_until_cancelled(tail).await.is_none()
    }
}

impl Tied {
    /// The answer was broken off: the connection is reset as soon as it ends, whatever ends it.
    pub fn broken(&self) {
        self.line.to_be_reset();
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        self.line.0.tied.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer; tells the line what becomes of it.
pub(super) struct Answer {
    // Given back first: an answer that is tied is open too.
    _open: Open,
    line: Line,
    inner: Body,
}

impl Answer {
    pub(super) fn new(line: Line, open: Open, inner: Body) -> Self {
        Self { _open: open, line, inner }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_some() {
            self.line.0.holds_body.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.inner)
    }
}
