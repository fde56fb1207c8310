//! Server-sent events: a stream's object, first at once, then at each change; for the owner also what happens to devices, and how everything
//! stands.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, SelectAll};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::base::Base;
use super::overview::Watch;
use super::problem::{Path, Problem};
use super::streams::find;
use crate::app::App;
use crate::config::Resolved;
use crate::stream::{Stream, Streams, Viewing};
use crate::trust::Devices;
use crate::trust::devices::DeviceEvent;
use crate::trust::{DeviceId, PersonId, StreamId};

/// At most four events a second.
const PACE: Duration = Duration::from_millis(250);
/// How often new streams are looked for in the list of all at most.
const LIST_PACE: Duration = Duration::from_millis(500);
/// A comment keeps the line open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The routes of this file that need a token.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(of_stream)).routes(routes!(of_all))
}

/// The events of one stream.
#[utoipa::path(get, path = "/api/stream/{streamId}/events", tag = "events", params(("streamId" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", description = "`stream` with the stream's object, `gone` when it is over or exists for this device no longer")))]
async fn of_stream(State(streams): State<Arc<Streams>>, base: Base, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let stream = find(&streams, &caller, &id)?;
    Ok(one(&streams, Viewing { stream, holder: caller }, base))
}

/// The events of one stream as an answer.
pub fn one(streams: &Arc<Streams>, viewing: Viewing, base: Base) -> Response {
    let Viewing { stream, holder } = viewing;
    let (id, person, moved) = (stream.id.clone(), stream.person.clone(), holder.moved.clone());
    let devices = streams.ground().devices.clone();
    let until_moved = changes(stream, base, holder.device.clone(), devices.clone()).take_until(holder.moved.cancelled_owned());
    // A device that was given to somebody else lives on; the stream does not, to it.
    let farewell = stream::once(async move {
        let lives_elsewhere = devices.holder(&holder.device).is_some_and(|now| !now.sees(&person));
        (moved.is_cancelled() && lives_elsewhere).then(|| gone(&id))
    });
    answer(until_moved.chain(farewell.filter_map(std::future::ready)).boxed(), holder.gone, streams.ground().closing.clone())
}

/// The events of all streams of this person. The owner hears of devices, too.
#[utoipa::path(get, path = "/api/events", tag = "events", responses((status = 200, content_type = "text/event-stream",
    description = "As for one stream, for all of this person's. To the owner also `device`: `{\"change\":\"paired|changed|revoked\",\"device\"|\"deviceId\"}`, and `overview` with the object of `/api/overview`, \
    at once and when it changes")))]
async fn of_all(State(app): State<App>, base: Base, caller: Caller) -> Response {
    let App { streams, config, .. } = app;
    let (end, stopping) = (caller.gone.clone(), streams.ground().closing.clone());
    let listening = Listening::new(streams, config, base, caller);
    let events = stream::unfold(listening, |mut listening| async move { listening.next().await.map(|event| (event, listening)) });
    answer(events.boxed(), end, stopping)
}

/// Somebody who listens to everything that exists for a device.
struct Listening {
    streams: Arc<Streams>,
    base: Base,
    caller: Caller,
    changes: SelectAll<BoxStream<'static, Event>>,
    /// The streams that are told of: whose they are, and how their telling is ended.
    told: HashMap<StreamId, (PersonId, CancellationToken)>,
    births: watch::Receiver<u64>,
    next_look: Instant,
    devices: broadcast::Receiver<DeviceEvent>,
    overview: Watch,
    waiting: VecDeque<Event>,
}

impl Listening {
    fn new(streams: Arc<Streams>, config: Arc<Resolved>, base: Base, caller: Caller) -> Self {
        let mut births = streams.births();
        births.mark_changed();
        let devices = streams.ground().devices.events();
        let (changes, told, waiting) = (SelectAll::new(), HashMap::new(), VecDeque::new());
        let overview = Watch::new(&streams, config);
        Self { streams, base, caller, changes, told, births, next_look: Instant::now(), devices, overview, waiting }
    }

    /// The next event; `None` when nothing exists for this device any more.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            tokio::select! {
                Some(event) = self.changes.next() => return Some(event),
                happened = self.devices.recv() => self.hear(happened)?,
                Ok(()) = born(&mut self.births, self.next_look) => self.look_for_new(),
                () = self.overview.moved(), if self.caller.admin => {
                    let overview = self.overview.look(&self.streams);
                    self.waiting.extend(overview.map(|overview| Event::default().event("overview").json_data(overview).unwrap_or_default()));
                }
            }
        }
    }

    fn look_for_new(&mut self) {
        self.next_look = Instant::now() + LIST_PACE;
        let all = self.streams.list(&self.caller);
        let living: HashSet<_> = all.iter().map(|stream| stream.id.clone()).collect();
        self.told.retain(|id, _| living.contains(id));
        for stream in all {
            if self.told.contains_key(&stream.id) {
                continue;
            }
            let end = CancellationToken::new();
            self.told.insert(stream.id.clone(), (stream.person.clone(), end.clone()));
            let changes = changes(stream, self.base.clone(), self.caller.device.clone(), self.streams.ground().devices.clone());
            self.changes.push(changes.take_until(end.cancelled_owned()).boxed());
        }
    }

    /// Something happened to a device, perhaps to this one: what it sees may be something else now.
    fn hear(&mut self, happened: Result<DeviceEvent, broadcast::error::RecvError>) -> Option<()> {
        self.caller = self.streams.ground().devices.holder(&self.caller.device)?;
        let Self { told, caller, waiting, .. } = self;
        let lost: Vec<_> = told.extract_if(|_, (person, _)| !caller.sees(person)).collect();
        for (id, (_, end)) in lost {
            end.cancel();
            waiting.push_back(gone(&id));
        }
        // What is new to it is looked for.
        self.births.mark_changed();
        if let (Ok(event), true) = (happened, self.caller.admin) {
            self.waiting.push_back(of_device(&event));
        }
        Some(())
    }
}

/// Waits for streams that were born since the last look, which was long enough ago at `next_look`.
async fn born(births: &mut watch::Receiver<u64>, next_look: Instant) -> Result<(), watch::error::RecvError> {
    tokio::time::sleep_until(next_look).await;
    births.changed().await
}

fn of_device(event: &DeviceEvent) -> Event {
    let told = match event {
        DeviceEvent::Paired(device) => json!({ "change": "paired", "device": device }),
        DeviceEvent::Changed(device) => json!({ "change": "changed", "device": device }),
        DeviceEvent::Revoked(id) => json!({ "change": "revoked", "deviceId": id }),
    };
    Event::default().event("device").json_data(told).unwrap_or_default()
}

fn gone(id: &StreamId) -> Event {
    Event::default().event("gone").json_data(json!({ "streamId": id })).unwrap_or_default()
}

/// A stream's changes as events for a device: the object at once, then at each change, `gone` at the end.
fn changes(stream: Arc<Stream>, base: Base, viewer: DeviceId, devices: Arc<Devices>) -> BoxStream<'static, Event> {
    let mut changes = stream.changes();
    changes.mark_changed();
    let state = (Some((stream, changes)), base, viewer, devices, true);
    stream::unfold(state, |(open, base, viewer, devices, first)| async move {
        let (stream, mut changes) = open?;
        if !first {
            tokio::time::sleep(PACE).await;
        }
        if changes.changed().await.is_err() {
            return None;
        }
        let state = changes.borrow_and_update().state.clone();
        // Asked each time: what it may know may be something else by now.
        let view = stream.view(base.as_str(), &devices.holder(&viewer)?);
        let event = Event::default().event("stream").json_data(&view).unwrap_or_default();
        let over = matches!(state, crate::stream::state::State::Stopped | crate::stream::state::State::Expired);
        let gone = over.then(|| gone(&stream.id));
        let next = (!over).then_some((stream, changes));
        Some((stream::iter([Some(event), gone].into_iter().flatten()), (next, base, viewer, devices, false)))
    })
    .flatten()
    .boxed()
}

/// The events as an answer, which ends when the device is revoked or the server stops.
fn answer(events: BoxStream<'static, Event>, gone: CancellationToken, stopping: CancellationToken) -> Response {
    let over = async move {
        tokio::select! {
            () = gone.cancelled() => {}
            () = stopping.cancelled() => {}
        }
    };
    let until_over = events.take_until(Box::pin(over)).map(Ok::<_, Infallible>);
    Sse::new(until_over).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}
