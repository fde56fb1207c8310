//! Server-sent events: a stream's object, first at once, then at each change.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::json;
use tokio_stream::StreamMap;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::base::Base;
use super::problem::{Path, Problem};
use super::streams::find;
use crate::app::App;
use crate::stream::{Stream, Streams};

/// At most four events a second.
const PACE: Duration = Duration::from_millis(250);
/// How often new streams are looked for in the list of all.
const LIST_PACE: Duration = Duration::from_millis(500);
/// A comment keeps the line open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The routes of this file that need a token.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(of_stream)).routes(routes!(of_all))
}

/// The events of one stream.
#[utoipa::path(get, path = "/api/stream/{streamId}/events", tag = "events", params(("streamId" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", description = "`stream` with the stream's object, `gone` when it is over")))]
async fn of_stream(State(streams): State<Arc<Streams>>, base: Base, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(one(&streams, find(&streams, &caller, &id)?, base))
}

/// The events of one stream as an answer.
pub fn one(streams: &Streams, stream: Arc<Stream>, base: Base) -> Response {
    answer(changes(stream, base), streams.ground().tasks.stopping())
}

/// The events of all streams of this person.
#[utoipa::path(get, path = "/api/events", tag = "events", responses((status = 200, content_type = "text/event-stream", description = "As for one stream, for all of this person's")))]
async fn of_all(State(streams): State<Arc<Streams>>, base: Base, caller: Caller) -> Response {
    let stopping = streams.ground().tasks.stopping();
    let state = (streams, caller, base, StreamMap::new(), Vec::new());
    let events = stream::unfold(state, |(streams, caller, base, mut open, mut known)| async move {
        loop {
            for stream in streams.list(&caller.person, caller.admin) {
                if !known.contains(&stream.id) {
                    known.push(stream.id.clone());
                    open.insert(stream.id.clone(), changes(stream, base.clone()));
                }
            }
            let next = async { if open.is_empty() { std::future::pending().await } else { open.next().await } };
            if let Ok(Some((_, event))) = tokio::time::timeout(LIST_PACE, next).await {
                return Some((event, (streams, caller, base, open, known)));
            }
        }
    });
    answer(events.boxed(), stopping)
}

/// A stream's changes as events: the object at once, then at each change, `gone` at the end.
fn changes(stream: Arc<Stream>, base: Base) -> BoxStream<'static, Event> {
    let mut changes = stream.changes();
    changes.mark_changed();
    let state = (Some((stream, changes)), base, true);
    stream::unfold(state, |(open, base, first)| async move {
        let (stream, mut changes) = open?;
        if !first {
            tokio::time::sleep(PACE).await;
        }
        if changes.changed().await.is_err() {
            return None;
        }
        let state = changes.borrow_and_update().state.clone();
        let view = stream.view(base.as_str());
        let event = Event::default().event("stream").json_data(&view).unwrap_or_default();
        let over = matches!(state, crate::stream::state::State::Stopped | crate::stream::state::State::Expired);
        let gone = over.then(|| Event::default().event("gone").json_data(json!({ "streamId": view.stream_id })).unwrap_or_default());
        let next = (!over).then_some((stream, changes));
        Some((stream::iter([Some(event), gone].into_iter().flatten()), (next, base, false)))
    })
    .flatten()
    .boxed()
}

fn answer(events: BoxStream<'static, Event>, stopping: CancellationToken) -> Response {
    let until_stop = events.take_until(stopping.cancelled_owned()).map(Ok::<_, Infallible>);
    Sse::new(until_stop).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}
