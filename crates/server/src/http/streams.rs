//! Streams: start, status, list, stop.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use balcony_media::device::Capabilities;
use balcony_media::ladder::Quality;
use balcony_media::magnet::Magnet;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::base::Base;
use super::problem::{Code, Json, Path, Problem, quote};
use super::rate::{self, Limits};
use crate::app::App;
use crate::stream::state::Event;
use crate::stream::view::StreamView;
use crate::stream::{Method, Options, Stream, Streams};
use crate::subtitles;

/// Longest magnet in bytes.
const LONGEST_MAGNET: usize = 8 << 10;

/// When it is worth another try to start what the queue has no room for.
const FULL_WAIT: Duration = Duration::from_secs(30);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(status))
        .routes(routes!(list))
        .routes(routes!(stop))
        .routes(routes!(position))
}

/// What to stream, and how.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartRequest {
    /// A magnet link or a bare info hash.
    magnet_link: String,
    /// `auto`, `source`, `2160p`, `1440p`, `1080p`, `720p`, `480p` or `360p`: the box that the picture is fitted into.
    #[serde(default)]
    quality: Option<String>,
    /// The file to play; where it names no film, the largest film is chosen.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    file_index: Option<serde_json::Value>,
    /// What the client plays. Without it 8-bit H.264 and AAC are assumed.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    capabilities: Option<Capabilities>,
    /// The id of one of the film's own subtitle tracks, `s1`, `s2` …, to draw into the picture: images of text (PGS, VobSub, DVB). Which one
    /// is drawn the stream tells once its film is open.
    #[serde(default)]
    burn: Option<String>,
    /// Which URL `streamUrl` is: `auto`, `hls` or `original`.
    #[serde(default)]
    method: Option<String>,
}

/// Starts a stream.
#[utoipa::path(post, path = "/api/stream/start", tag = "streams", request_body = StartRequest,
    responses((status = 201, body = StreamView, description = "A new stream"), (status = 200, body = StreamView, description = "The same device streams this already")))]
async fn start(
    State(streams): State<Arc<Streams>>,
    State(limits): State<Arc<Limits>>,
    base: Base,
    caller: Caller,
    Json(request): Json<StartRequest>,
) -> Result<Response, Problem> {
    let magnet = magnet(&request.magnet_link)?;
    let options = options(&request)?;
    // Counted here and not before: whoever mistypes a link may try again.
    limits.start(&caller.device).map_err(|wait| rate::too_many("Too many streams were started in a short time.", wait))?;
    let started = streams.start(&caller, magnet, options);
    let (stream, new) = started.map_err(|full| Problem::new(Code::QueueFull, full.to_string()).retry_after(FULL_WAIT))?;
    stream.kept().await;
    if streams.ground().torrents.mock().is_some_and(|mock| mock.is_at_once(&stream.magnet)) {
        stream.settled().await;
    }
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(stream.view(base.as_str(), &caller))).into_response())
}

pub(super) fn magnet(link: &str) -> Result<Magnet, Problem> {
    if link.len() > LONGEST_MAGNET {
        return Err(Problem::new(Code::BadMagnet, "A magnet link has at most 8 KiB."));
    }
    Magnet::parse(link).map_err(|error| Problem::new(Code::BadMagnet, error.to_string()))
}

fn options(request: &StartRequest) -> Result<Options, Problem> {
    let invalid = |what: &str, value: &str, allowed: &str| {
        Problem::new(Code::Invalid, format!("{what} {} is not known; use {allowed}.", quote(value)))
    };
    let quality = match request.quality.as_deref() {
        None | Some("") => Quality::Auto,
        Some(name) => {
            Quality::named(name).ok_or_else(|| invalid("The quality", name, "auto, source, 2160p, 1440p, 1080p, 720p, 480p or 360p"))?
        }
    };
    let method = match request.method.as_deref() {
        None | Some("" | "auto") => Method::Auto,
        Some("hls") => Method::Hls,
        Some("dash") => Method::Dash,
        Some("original") => Method::Original,
        Some(other) => return Err(invalid("The method", other, "auto, hls, dash or original")),
    };
    let burn = request.burn.clone().filter(|track| !track.is_empty());
    if let Some(track) = burn.as_deref().filter(|track| !subtitles::is_id(track)) {
        return Err(invalid("The subtitle track", track, "the id of one of the film's, such as s1"));
    }
    let file_index = request.file_index.as_ref().and_then(serde_json::Value::as_u64).and_then(|index| usize::try_from(index).ok());
    Ok(Options { quality, file_index, capabilities: request.capabilities.clone().unwrap_or_default(), method, burn })
}

/// How a stream stands.
#[utoipa::path(get, path = "/api/stream/status/{streamId}", tag = "streams", params(("streamId" = String, Path)), responses((status = 200, body = StreamView)))]
async fn status(
    State(streams): State<Arc<Streams>>,
    base: Base,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<StreamView>, Problem> {
    Ok(Json(find(&streams, &caller, &id)?.view(base.as_str(), &caller)))
}

/// Where a viewer is.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct Position {
    /// Seconds from the beginning of the film.
    seconds: f64,
}

/// Remembers where the viewer is.
#[utoipa::path(put, path = "/api/stream/{streamId}/position", tag = "streams", params(("streamId" = String, Path)), request_body = Position,
    responses((status = 200, body = StreamView)))]
async fn position(
    State(streams): State<Arc<Streams>>,
    base: Base,
    caller: Caller,
    Path(id): Path<String>,
    Json(position): Json<Position>,
) -> Result<Json<StreamView>, Problem> {
    let stream = find(&streams, &caller, &id)?;
    if !position.seconds.is_finite() || position.seconds < 0.0 {
        return Err(Problem::new(Code::Invalid, "A position is a number of seconds from 0 on."));
    }
    stream.move_to(position.seconds);
    if let Some(film) = stream.film() {
        // The owner may move what another person watches; that is no device of theirs.
        let device = (caller.person == stream.person).then(|| caller.device.clone());
        streams.ground().history.moved(&stream.person, device, film, position.seconds);
    }
    let mut view = stream.view(base.as_str(), &caller);
    view.position = position.seconds;
    Ok(Json(view))
}

/// All streams of this person.
#[derive(Serialize, utoipa::ToSchema)]
pub struct StreamList {
    /// How many.
    count: usize,
    /// Oldest first.
    streams: Vec<StreamView>,
}

/// Lists the streams of the person who asks; the owner of the machine sees all.
#[utoipa::path(get, path = "/api/streams", tag = "streams", responses((status = 200, body = StreamList)))]
async fn list(State(streams): State<Arc<Streams>>, base: Base, caller: Caller) -> Json<StreamList> {
    let found = streams.list(&caller);
    let streams: Vec<StreamView> = found.iter().map(|stream| stream.view(base.as_str(), &caller)).collect();
    Json(StreamList { count: streams.len(), streams })
}

/// The answer to a stop.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Which stream.
    stream_id: String,
    /// Always `stopped`.
    status: &'static str,
    /// For people.
    message: &'static str,
}

/// Stops a stream and releases what nobody else uses.
#[utoipa::path(delete, path = "/api/stream/{streamId}", tag = "streams", params(("streamId" = String, Path)), responses((status = 200, body = Stopped)))]
async fn stop(State(streams): State<Arc<Streams>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Stopped>, Problem> {
    let stream = find(&streams, &caller, &id)?;
    stream.tell(Event::Stop);
    // The stream's own task does the work; what is said to be released is gone.
    if tokio::time::timeout(Duration::from_secs(10), stream.released()).await.is_err() {
        tracing::warn!(stream = %stream.id, "a stop takes long");
    }
    Ok(Json(Stopped { stream_id: id, status: "stopped", message: "Stream resources released" }))
}

/// The stream with this name, if it exists for the caller.
pub fn find(streams: &Streams, caller: &Caller, id: &str) -> Result<Arc<Stream>, Problem> {
    streams.get(id, caller).ok_or_else(|| Problem::new(Code::NotFound, "There is no such stream."))
}
