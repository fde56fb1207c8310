//! Whether the server lives, and whether it works, for people, containers and the pairing page. Needs no token and tells no secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Code, Json, Problem, ProblemBody};
use crate::app::App;
use crate::doctor::{Examinations, shortcomings};
use crate::settings::Live;

/// For how long it counts what was found missing: whoever asks all the time costs no more than whoever asks so often.
const FRESH: Duration = Duration::from_secs(2);
/// How long that may take; everything in it has a deadline before that.
const WAIT: Duration = Duration::from_secs(8);

/// What health answers are made of.
#[derive(Debug, Clone)]
pub struct Health {
    live: watch::Receiver<Live>,
    /// The server's id, the same for its whole life.
    pub server_id: Arc<str>,
    ready: Arc<AtomicBool>,
    /// What was found missing when somebody last asked.
    fitness: Arc<Examinations<Vec<&'static str>>>,
}

impl Health {
    /// Of a server that is not ready yet.
    pub fn new(live: watch::Receiver<Live>, server_id: &str) -> Self {
        let fitness = Arc::new(Examinations::new(FRESH, WAIT));
        Self { live, server_id: server_id.into(), ready: Arc::default(), fitness }
    }

    /// The server's name, as people see it.
    pub fn name(&self) -> String {
        self.live.borrow().name.clone()
    }

    /// Tells whether new requests are welcome.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// The answer of `/api/health`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// Always `ok`.
    status: &'static str,
    /// The server's name.
    name: String,
    /// The program's version.
    version: &'static str,
    /// The server's id.
    server_id: String,
    /// First 16 bytes of SHA-256 of the certificate authority's public key, base64url. With a certificate of the
    /// user's own, of the last one in its chain.
    fingerprint: String,
    /// The server's clock, RFC 3339.
    timestamp: String,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(healthz)).routes(routes!(readyz))
}

/// Who this server is, and that it lives.
#[utoipa::path(get, path = "/api/health", tag = "health", responses((status = 200, body = HealthView)))]
async fn health(State(app): State<App>) -> Json<HealthView> {
    Json(HealthView {
        status: "ok",
        name: app.health.name(),
        version: env!("CARGO_PKG_VERSION"),
        server_id: app.health.server_id.to_string(),
        fingerprint: app.tls.fingerprint().short(),
        timestamp: jiff::Timestamp::now().to_string(),
    })
}

/// Lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok"
}

/// Takes requests, and everything works that a stream needs: database, data folder, ffmpeg, torrent engine. Else the problem says what does
/// not. Not while it starts or stops.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, body = String), (status = 503, body = ProblemBody, content_type = "application/problem+json"))
)]
async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    let unready = |why: String| {
        let problem = Problem::new(Code::Internal, why).with_status(StatusCode::SERVICE_UNAVAILABLE);
        Err(problem.retry_after(FRESH))
    };
    if !app.health.ready.load(Ordering::Relaxed) {
        return unready("The server is starting or stopping.".to_owned());
    }
    let missing = app.health.fitness.diagnosis(&app.tasks, || examine(app.clone())).await;
    match missing.as_deref().map(Vec::as_slice) {
        Some([]) => Ok("ready"),
        Some(missing) => unready(format!("Not ready: {}.", missing.join(", "))),
        None => unready("Not ready: this machine does not answer in time.".to_owned()),
    }
}

async fn examine(app: App) -> Vec<&'static str> {
    let ground = app.streams.ground();
    let mut missing = shortcomings(&app.config, &app.store, &ground.workshop.tools.spawner, &ground.workshop.tools.ffmpeg).await;
    if !ground.torrents.works() {
        missing.push("the torrent engine has ended");
    }
    missing
}
