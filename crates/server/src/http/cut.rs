//! Breaks an answer off when its device is revoked: whoever is being sent a film hears no more of it from then on. What was handed
//! over already and waits in some buffer is thrown away with the connection ([`Line`]).
//!
//! Bodies that are there as a whole are sent as they are: they are under way before anybody could be revoked.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::auth::Gone;
use super::line::{self, Line};
use super::rate::Seat;

/// Makes an answer break off when the token in its extensions ([`Gone`]) is cancelled, or else `caller`'s; keeps the
/// [`Seat`] in its extensions for as long as it is being sent. `line` is the connection that it is sent on.
pub fn tie(mut response: Response, caller: Option<CancellationToken>, line: Option<&Line>) -> Response {
    let seat = response.extensions_mut().remove::<Seat>();
    let gone = response.extensions_mut().remove::<Gone>().map(|gone| gone.0).or(caller);
    let whole = response.body().size_hint().exact().is_some();
    if (gone.is_none() || whole) && seat.is_none() {
        return response;
    }
    let gone = gone.unwrap_or_default();
    let line = line.map(|line| line.tie(gone.clone()));
    response.map(|inner| Body::new(Tied { inner, gone: Box::pin(gone.cancelled_owned()), broken: false, line, _seat: seat }))
}

/// A body that ends with an error when its device is gone.
struct Tied {
    inner: Body,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    broken: bool,
    line: Option<line::Tied>,
    _seat: Option<Seat>,
}

impl http_body::Body for Tied {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.broken {
            return Poll::Ready(None);
        }
        if self.gone.as_mut().poll(cx).is_ready() {
            self.broken = true;
            if let Some(line) = &self.line {
                line.broken();
            }
            self.inner = Body::empty();
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::PermissionDenied)))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        !self.broken && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rate::Limits;
    use crate::trust::DeviceId;
    use axum::response::IntoResponse;
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;

    fn endless() -> Response {
        let first = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"film"))]);
        Body::from_stream(first.chain(stream::pending())).into_response()
    }

    #[tokio::test]
    async fn a_body_breaks_off_when_its_device_is_gone() {
        for in_the_answer in [true, false] {
            let gone = CancellationToken::new();
            let mut answer = endless();
            if in_the_answer {
                answer.extensions_mut().insert(Gone(gone.clone()));
            }
            let mut body = tie(answer, (!in_the_answer).then(|| gone.clone()), None).into_body();
            assert!(body.frame().await.expect("a frame").is_ok());
            let (_, next) = tokio::join!(async { gone.cancel() }, body.frame());
            assert!(next.expect("a frame").is_err());
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn the_answers_own_token_counts_before_the_callers() {
        let (own, caller) = (CancellationToken::new(), CancellationToken::new());
        let mut answer = endless();
        answer.extensions_mut().insert(Gone(own));
        caller.cancel();
        assert!(tie(answer, Some(caller), None).into_body().frame().await.expect("a frame").is_ok());
    }

    #[tokio::test]
    async fn whole_bodies_pass_and_keep_their_length() {
        let gone = CancellationToken::new();
        gone.cancel();
        let body = tie("whole".into_response(), Some(gone), None).into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.expect("whole").to_bytes(), "whole");
    }

    #[tokio::test]
    async fn a_seat_is_kept_until_the_body_is_dropped() {
        let limits = Limits::default();
        let device = DeviceId::owner();
        let taken = || (0..64).map_while(|_| limits.play(&device, false).ok()).collect::<Vec<_>>().len();
        for answer in [endless(), "whole".into_response()] {
            let mut answer = answer;
            answer.extensions_mut().insert(limits.play(&device, false).expect("a seat"));
            let mut answer = tie(answer, None, None);
            assert!(answer.body_mut().frame().await.expect("a frame").is_ok());
            assert_eq!(taken(), 63);
            drop(answer);
            assert_eq!(taken(), 64);
        }
    }
}
