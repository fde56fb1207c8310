//! Whether all is well, for the owner of the server: what is, what is not, and what to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use jiff::Timestamp;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Admin, Caller};
use super::problem::{Code, Json, Problem};
use crate::app::App;
use crate::doctor::bundle::{self, Bundle};
use crate::doctor::{self, Diagnosis, Household, Inside, Place, Standing};
use crate::settings::Source;

/// How long the database may take to count its rows.
const ROWS_WITHIN: Duration = Duration::from_secs(5);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(report)).routes(routes!(bundle))
}

/// Examines the server and the machine that it runs on. Only for the owner. Takes a second or two; for some seconds after that the answer
/// stays the same.
#[utoipa::path(get, path = "/api/doctor", tag = "doctor", responses((status = 200, body = Diagnosis)))]
async fn show(State(app): State<App>, _: Admin) -> Result<Json<Diagnosis>, Problem> {
    Ok(Json(Diagnosis::clone(&*diagnosis(&app).await?)))
}

/// The same as a text to be shown to somebody who helps: without tokens, films, names of people and public addresses. Only for the owner.
#[utoipa::path(get, path = "/api/doctor/report", tag = "doctor", responses((status = 200, body = String, content_type = "text/plain")))]
async fn report(State(app): State<App>, Admin(caller): Admin) -> Result<Response, Problem> {
    let diagnosis = diagnosis(&app).await?;
    let household = household(&app, &caller).await?;
    let text = doctor::report(&diagnosis, &household, Timestamp::now());
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// A gzipped tar archive.
struct Archive;

impl PartialSchema for Archive {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).into()
    }
}

impl ToSchema for Archive {}

/// The same with the settings, the metrics, the size of the database and the last of the log, as a gzipped tar archive. Nothing secret or
/// private is in it, as in the report. Only for the owner.
#[utoipa::path(get, path = "/api/doctor/bundle", tag = "doctor", responses((status = 200, body = Archive, content_type = "application/gzip")))]
async fn bundle(State(app): State<App>, Admin(caller): Admin) -> Result<Response, Problem> {
    let now = Timestamp::now();
    let diagnosis = diagnosis(&app).await?;
    let household = household(&app, &caller).await?;
    let metrics = super::metrics::text(&app);
    // Where the database does not answer, the rest is wanted all the more.
    let rows = tokio::time::timeout(ROWS_WITHIN, app.store.rows()).await.ok().and_then(Result::ok).unwrap_or_default();
    let packed = tokio::task::spawn_blocking(move || {
        let mut bundle = Bundle::new();
        bundle.add("report.txt", &doctor::report(&diagnosis, &household, now));
        bundle.add("doctor.json", &serde_json::to_string_pretty(&*diagnosis).unwrap_or_default());
        bundle.add("settings.txt", &bundle::settings(&app.settings.overview()));
        bundle.add("metrics.txt", &metrics);
        bundle.add("database.txt", &bundle::tables(&app.config.data_dir, &rows));
        bundle.add_logs(&app.config.data_dir);
        bundle.archive(now)
    });
    let archive = packed.await.map_err(Problem::internal)?.map_err(Problem::internal)?;
    let day: String = now.to_string().chars().take(10).collect();
    let name = format!("attachment; filename=\"balcony-bundle-{day}.tar.gz\"");
    Ok(([(header::CONTENT_TYPE, "application/gzip"), (header::CONTENT_DISPOSITION, name.as_str())], archive).into_response())
}

async fn diagnosis(app: &App) -> Result<Arc<Diagnosis>, Problem> {
    let found = app.examinations.diagnosis(&app.tasks, || examine(app.clone())).await;
    found.ok_or_else(|| Problem::new(Code::Internal, "The examination did not end in time."))
}

async fn examine(app: App) -> Diagnosis {
    let ground = app.streams.ground();
    let inside = Inside {
        tls: app.tls.clone(),
        addresses: app.addresses.borrow().clone(),
        ports: app.ports,
        nodes: ground.torrents.dht_nodes(),
        since: app.examinations.since(),
        encoders: ground.workshop.tools.choice.told(),
    };
    let place = Place {
        config: app.config.clone(),
        asked: app.settings.live().borrow().cache_max_bytes,
        spawner: ground.workshop.tools.spawner.clone(),
        ffmpeg: ground.workshop.tools.ffmpeg.clone(),
        ffmpegs: app.ffmpegs.clone(),
    };
    Diagnosis::of(doctor::examine(&place, &Standing::Within(inside)).await)
}

async fn household(app: &App, caller: &Caller) -> Result<Household, Problem> {
    let mut streams = BTreeMap::new();
    for stream in app.streams.list(caller) {
        let status = serde_json::to_value(stream.changes().borrow().view.status).unwrap_or_default();
        *streams.entry(status.as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    // The file of the settings is read.
    let settings = app.settings.clone();
    let overview = tokio::task::spawn_blocking(move || settings.overview()).await.map_err(Problem::internal)?;
    let changed = overview.entries.into_iter().filter(|entry| entry.source != Source::Default);
    Ok(Household {
        up: app.examinations.since(),
        streams,
        devices: app.devices.list(caller).len(),
        people: app.devices.people().len(),
        used: app.streams.ground().workshop.segments.budget().usage().taken(),
        settings: changed.map(|entry| entry.setting.key.to_owned()).collect(),
    })
}
