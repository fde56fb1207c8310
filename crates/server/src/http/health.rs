//! Whether the server lives, for people, containers and the pairing page. Needs no token and tells no secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Code, Json, Problem, ProblemBody};
use crate::app::App;
use crate::settings::Live;

/// What health answers are made of.
#[derive(Debug, Clone)]
pub struct Health {
    live: watch::Receiver<Live>,
    /// The server's id, the same for its whole life.
    pub server_id: Arc<str>,
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Of a server that is not ready yet.
    pub fn new(live: watch::Receiver<Live>, server_id: &str) -> Self {
        Self { live, server_id: server_id.into(), ready: Arc::default() }
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

/// Takes requests: no longer while it stops.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, body = String), (status = 503, body = ProblemBody, content_type = "application/problem+json"))
)]
async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    if app.health.ready.load(Ordering::Relaxed) {
        return Ok("ready");
    }
    Err(Problem::new(Code::Internal, "The server is starting or stopping.").with_status(StatusCode::SERVICE_UNAVAILABLE))
}
