//! The legal notice, which each person is shown once.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::devices::unwritten;
use super::problem::{Json, Problem, ProblemBody};
use crate::app::{App, NOTICE};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, change))
}

/// The legal notice.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Notice {
    /// Whether the person who asks has read it.
    seen: bool,
    /// In English, for people.
    text: &'static str,
}

/// What is to change of it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoticeSeen {
    /// Whether the person who asks has read it.
    seen: bool,
}

/// Whether the person who asks has read the legal notice, and what it says.
#[utoipa::path(get, path = "/api/notice", tag = "people", responses((status = 200, body = Notice)))]
async fn show(State(app): State<App>, caller: Caller) -> Result<Json<Notice>, Problem> {
    let seen = app.store.notice_seen(caller.person.to_string()).await.map_err(Problem::internal)?;
    Ok(Json(Notice { seen, text: NOTICE }))
}

/// Remembers that the person who asks has read the legal notice.
#[utoipa::path(put, path = "/api/notice", tag = "people", request_body = NoticeSeen, responses(
    (status = 200, body = Notice),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The disk is full")
))]
async fn change(State(app): State<App>, caller: Caller, Json(asked): Json<NoticeSeen>) -> Result<Json<Notice>, Problem> {
    let at = asked.seen.then(jiff::Timestamp::now);
    app.store.set_notice_seen(caller.person.to_string(), at).await.map_err(|error| unwritten(&error))?;
    Ok(Json(Notice { seen: asked.seen, text: NOTICE }))
}
