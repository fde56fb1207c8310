//! The sample film: something to try everything with.

use axum::extract::State;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::problem::{Json, Problem};
use crate::app::App;
use crate::sample;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sample))
}

/// A film that this server seeds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleView {
    /// To be given to a start.
    magnet_link: String,
    /// Name of its file.
    title: &'static str,
    /// Seconds.
    duration: u32,
}

/// The sample film's magnet. The film is made when it is asked for first, which takes some seconds.
#[utoipa::path(get, path = "/api/sample", tag = "sample", responses((status = 200, body = SampleView)))]
async fn sample(State(app): State<App>, _: Caller) -> Result<Json<SampleView>, Problem> {
    let sample = app.sample().await.map_err(|error| Problem::internal(format!("{error:#}")))?;
    Ok(Json(SampleView { magnet_link: sample.link(), title: sample::NAME, duration: sample::SECONDS }))
}
