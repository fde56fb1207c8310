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
use crate::stream::state::State as Stage;
use crate::stream::view::Status;
use crate::stream::{Seen, Stream, Streams, Viewing};
use crate::trust::Devices;
use crate::trust::devices::DeviceEvent;
use crate::trust::{DeviceId, PersonId, StreamId};

/// At most so many events of a stream in any second.
const MOST: usize = 4;
/// Numbers that move take turns that leave one of those free, so that a stream which is ready is told of at once.
const PACE: Duration = Duration::from_millis(334);
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

/// When a stream's next event may be sent.
#[derive(Default)]
struct Pace {
    /// The last ones, at most [`MOST`].
    sent: VecDeque<Instant>,
}

impl Pace {
    /// `hurried`: something happened that somebody waits for.
    fn due(&self, hurried: bool) -> Instant {
        let full = self.sent.front().filter(|_| self.sent.len() >= MOST).map(|first| *first + Duration::from_secs(1));
        let turn = self.sent.back().filter(|_| !hurried).map(|last| *last + PACE);
        full.max(turn).unwrap_or_else(Instant::now)
    }

    fn sent(&mut self, at: Instant) {
        if self.sent.len() >= MOST {
            self.sent.pop_front();
        }
        self.sent.push_back(at);
    }
}

/// What is told of a stream to one device.
struct Telling {
    stream: Arc<Stream>,
    changes: watch::Receiver<Seen>,
    base: Base,
    viewer: DeviceId,
    devices: Arc<Devices>,
    pace: Pace,
    told: Option<Status>,
}

impl Telling {
    /// The next event, and whether the stream is over; `None` when it is forgotten, or exists for this device no longer.
    async fn next(&mut self) -> Option<(Event, bool)> {
        self.changes.changed().await.ok()?;
        loop {
            let hurried = self.told != Some(self.changes.borrow_and_update().view.status);
            tokio::select! {
                () = tokio::time::sleep_until(self.pace.due(hurried)) => break,
                more = self.changes.changed() => if more.is_err() { break },
            }
        }
        let seen = self.changes.borrow_and_update().clone();
        self.pace.sent(Instant::now());
        self.told = Some(seen.view.status);
        // Asked each time: what it may know may be something else by now.
        let view = self.stream.view(self.base.as_str(), &self.devices.holder(&self.viewer)?);
        let event = Event::default().event("stream").json_data(&view).unwrap_or_default();
        Some((event, matches!(seen.state, Stage::Stopped | Stage::Expired)))
    }
}

/// A stream's changes as events for a device: the object at once, then at each change, `gone` at the end.
fn changes(stream: Arc<Stream>, base: Base, viewer: DeviceId, devices: Arc<Devices>) -> BoxStream<'static, Event> {
    let mut changes = stream.changes();
    changes.mark_changed();
    let telling = Telling { stream, changes, base, viewer, devices, pace: Pace::default(), told: None };
    stream::unfold(Some(telling), |telling| async move {
        let mut telling = telling?;
        let (event, over) = telling.next().await?;
        let gone = over.then(|| gone(&telling.stream.id));
        Some((stream::iter([Some(event), gone].into_iter().flatten()), (!over).then_some(telling)))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_awaited_does_not_wait_behind_numbers() {
        let began = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..20 {
            let due = pace.due(false);
            pace.sent(due.max(began));
        }
        let last = *pace.sent.back().expect("one was sent");
        assert_eq!(pace.due(false), last + PACE);
        assert!(pace.due(true) <= last + Duration::from_millis(1));
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_four(hurries in proptest::collection::vec(any::<bool>(), 1..60)) {
            let mut pace = Pace::default();
            let mut sent = vec![Instant::now()];
            pace.sent(sent[0]);
            for hurried in hurries {
                let at = pace.due(hurried).max(sent[sent.len() - 1]);
                pace.sent(at);
                sent.push(at);
            }
            prop_assert!(sent.windows(MOST + 1).all(|five| five[MOST] - five[0] >= Duration::from_secs(1)));
        }
    }
}
