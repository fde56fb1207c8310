//! What is counted and measured, for Prometheus.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Admin;
use crate::app::App;
use crate::metrics::{CONTENT_TYPE, Gauges, METRICS};
use crate::stream::view::Status;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What is counted and measured since the start, in Prometheus's text format. Only for the owner.
#[utoipa::path(get, path = "/metrics", tag = "metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(app): State<App>, _: Admin) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text(&app)).into_response()
}

/// The same as text.
pub(super) fn text(app: &App) -> String {
    let mut streams = BTreeMap::new();
    for stream in app.streams.all() {
        let status = match stream.changes().borrow().view.status {
            Status::Downloading => "downloading",
            Status::Converting => "converting",
            Status::Ready => "ready",
            Status::Error => "error",
            Status::Stopped => "stopped",
        };
        *streams.entry(status).or_insert(0) += 1;
    }
    let over = app.streams.over();
    if over > 0 {
        *streams.entry("stopped").or_insert(0) += over;
    }
    let ground = app.streams.ground();
    let (fetched, given) = ground.torrents.traffic();
    let cache = ground.workshop.segments.budget().usage().taken();
    METRICS.text(&Gauges { streams, fetched, given, cache })
}
