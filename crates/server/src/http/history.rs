//! What the person who asks has watched, and how far; of nobody else's, whoever asks.

use std::collections::HashMap;

use axum::extract::State;
use balcony_media::magnet::InfoHash;
use http::StatusCode;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::devices::unwritten;
use super::problem::{Code, Json, Path, Problem, ProblemBody};
use crate::app::App;
use crate::history::{FilmKey, Watched};
use crate::trust::{Devices, StreamId};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, forget_all)).routes(routes!(forget))
}

/// What a person has watched in the last 90 days.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct History {
    /// What was watched last comes first.
    films: Vec<WatchedFilm>,
}

/// A film that was watched.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchedFilm {
    /// 40 hex digits in lower case.
    info_hash: String,
    /// Which file of the torrent it is.
    file_index: usize,
    /// Name of that file.
    title: String,
    /// By which it is started again.
    magnet_link: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    /// How far it was watched, in seconds. A new stream begins here, or at the beginning after the end of the film.
    position: f64,
    /// RFC 3339.
    updated_at: String,
    /// Which device watched it last, as long as that is this person's.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<WatchingDevice>,
    /// A stream of this person that plays it, the youngest.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<String>,
}

/// A device, by id and name.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct WatchingDevice {
    /// Its id.
    id: String,
    /// For people.
    name: String,
}

/// Lists the films that the person who asks has watched, and how far; the owner of the machine sees the owner's own.
#[utoipa::path(get, path = "/api/history", tag = "history", responses((status = 200, body = History)))]
async fn list(State(app): State<App>, caller: Caller) -> Json<History> {
    let (devices, streams) = (own_devices(&app.devices, &caller), own_streams(&app, &caller));
    let view = |watched: Watched| WatchedFilm {
        info_hash: watched.film.key.0.to_string(),
        file_index: watched.film.key.1,
        stream_id: streams.get(&watched.film.key).map(ToString::to_string),
        title: watched.film.title,
        magnet_link: watched.film.magnet_link,
        duration: watched.film.duration,
        position: watched.position,
        updated_at: watched.updated_at.to_string(),
        device: watched.device.and_then(|device| devices.get(device.as_str()).cloned()),
    };
    Json(History { films: app.streams.ground().history.list(&caller.person).into_iter().map(view).collect() })
}

fn own_devices(devices: &Devices, caller: &Caller) -> HashMap<String, WatchingDevice> {
    let own = devices.list(caller).into_iter().filter(|device| device.person_id == caller.person);
    own.map(|device| (device.id.to_string(), WatchingDevice { id: device.id.to_string(), name: device.name })).collect()
}

/// The streams that play something, by what they play. Of several the youngest, which comes last.
fn own_streams(app: &App, caller: &Caller) -> HashMap<FilmKey, StreamId> {
    let streams = app.streams.list(caller).into_iter();
    let own = streams.filter(|stream| stream.person == caller.person && !stream.state().is_over());
    own.filter_map(|stream| Some((stream.film()?.key, stream.id.clone()))).collect()
}

/// Forgets all that the person who asks has watched.
#[utoipa::path(delete, path = "/api/history", tag = "history", responses(
    (status = 204, description = "It is forgotten"),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The disk is full")
))]
async fn forget_all(State(app): State<App>, caller: Caller) -> Result<StatusCode, Problem> {
    app.streams.ground().history.forget_all(&caller.person).await.map_err(|error| unwritten(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets that the person who asks has watched this film; nothing is to be done where that is not so.
#[utoipa::path(delete, path = "/api/history/{infoHash}/{fileIndex}", tag = "history",
    params(("infoHash" = String, Path, description = "40 hex digits", pattern = "^[0-9a-f]{40}$"), ("fileIndex" = u32, Path)),
    responses(
        (status = 204, description = "It is forgotten"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The disk is full")
    )
)]
async fn forget(State(app): State<App>, caller: Caller, Path((info_hash, file)): Path<(String, String)>) -> Result<StatusCode, Problem> {
    let unknown = || Problem::new(Code::NotFound, "No film has this info hash and number.");
    let key: (InfoHash, usize) = (info_hash.parse().map_err(|_| unknown())?, file.parse().map_err(|_| unknown())?);
    app.streams.ground().history.forget(&caller.person, &key).await.map_err(|error| unwritten(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
