//! A film to keep: asked for, given up, fetched.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::base::Base;
use super::media::{NOT_KEPT, Part};
use super::problem::{self, Code, Json, Path, Problem, ProblemBody, quote};
use super::streams::find;
use crate::app::App;
use crate::download::Chosen;
use crate::stream::view::StreamView;
use crate::stream::{Streams, Viewing};

/// Bytes of the file in one piece of a body.
const READ: usize = 512 * 1024;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(begin, forget))
}

/// What of a film is to be kept; everything where nothing is said.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub struct DownloadRequest {
    /// Sound tracks by their ids.
    #[serde(default)]
    audio: Option<Vec<String>>,
    /// Text subtitles by their ids.
    #[serde(default)]
    subtitles: Option<Vec<String>>,
}

/// Begins to make one MP4 file of the film. How it goes, and where it is fetched, stands in the stream's `download`.
#[utoipa::path(post, path = "/api/stream/{streamId}/download", tag = "streams", params(("streamId" = String, Path)),
    request_body = Option<DownloadRequest>,
    responses((status = 202, body = StreamView, description = "It is begun"), (status = 200, body = StreamView, description = "It is being made, or is there"),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The stream is over, or there is no room for the file")))]
async fn begin(
    State(streams): State<Arc<Streams>>,
    base: Base,
    caller: Caller,
    Path(id): Path<String>,
    problem::Optional(request): problem::Optional<DownloadRequest>,
) -> Result<Response, Problem> {
    let stream = find(&streams, &caller, &id)?;
    if stream.state().is_over() {
        return Err(Problem::new(Code::Conflict, "This stream is over; start the film again, then ask for the file."));
    }
    let view = stream.view(base.as_str(), &caller);
    let known = view.audio.map(|tracks| tracks.into_iter().map(|track| track.id).collect::<Vec<_>>());
    let unknown = request.audio.iter().flatten().find(|id| known.as_ref().is_some_and(|known| !known.contains(id)));
    if let Some(unknown) = unknown {
        return Err(Problem::new(
            Code::Invalid,
            format!("The film has no sound track {}; its status lists those that it has.", quote(unknown)),
        ));
    }
    let texts =
        view.subtitles.map(|tracks| tracks.into_iter().filter(|track| track.kind == "text").map(|track| track.id).collect::<Vec<_>>());
    let unknown = request.subtitles.iter().flatten().find(|id| texts.as_ref().is_some_and(|known| !known.contains(id)));
    if let Some(unknown) = unknown {
        return Err(Problem::new(
            Code::Invalid,
            format!("The film has no text {} to keep; its status lists its subtitles.", quote(unknown)),
        ));
    }
    let chosen = Chosen { audio: request.audio, subtitles: request.subtitles };
    let ground = streams.ground();
    let begun = ground.downloads.begin(&stream, chosen, ground.torrents.clone());
    let status = if begun { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(stream.view(base.as_str(), &caller))).into_response())
}

/// Gives the file up, or ends the making of it.
#[utoipa::path(delete, path = "/api/stream/{streamId}/download", tag = "streams", params(("streamId" = String, Path)),
    responses((status = 200, body = StreamView)))]
async fn forget(
    State(streams): State<Arc<Streams>>,
    base: Base,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<StreamView>, Problem> {
    let stream = find(&streams, &caller, &id)?;
    streams.ground().downloads.forget(stream.id.as_str());
    stream.downloads(None);
    Ok(Json(stream.view(base.as_str(), &caller)))
}

/// The file, once it is whole.
pub async fn file(
    State(streams): State<Arc<Streams>>,
    Extension(viewing): Extension<Viewing>,
    method: Method,
    asked: HeaderMap,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let downloads = streams.ground().downloads.clone();
    let id = viewing.stream.id.to_string();
    let opened = tokio::task::spawn_blocking(move || downloads.read(&id)).await;
    let kept = opened.ok().and_then(Result::ok).flatten().ok_or_else(Problem::not_found)?;
    let (len, kept) = (kept.len(), Arc::new(kept));
    let etag = format!("\"{}-{len}\"", viewing.stream.id);
    let Part { status, mut headers, from, count } = Part::of(&asked, len, Some(&etag), HeaderValue::from_static("video/mp4"), NOT_KEPT)?;
    let disposition = format!("attachment; filename*=UTF-8''{}", crate::stream::actor::url_name(&name));
    HeaderValue::from_str(&disposition).ok().and_then(|value| headers.insert(header::CONTENT_DISPOSITION, value));
    if method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    let body = stream::unfold((from, count), move |(at, left)| {
        let (kept, viewing) = (kept.clone(), viewing.clone());
        async move {
            if left == 0 {
                return None;
            }
            viewing.touch();
            let most = READ.min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = tokio::task::spawn_blocking(move || kept.read(at, most)).await;
            let read: std::io::Result<Bytes> = read.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()));
            let next = read.as_ref().map_or((at, 0), |bytes| (at + bytes.len() as u64, left - bytes.len() as u64));
            Some((read, next))
        }
    });
    Ok((status, headers, Body::from_stream(body)).into_response())
}
