//! What phones meet when they come in by TLS: for the page that shows whether they can trust it.

use std::time::SystemTime;

use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Admin;
use super::problem::{Json, Problem};
use crate::app::App;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(certificate))
}

/// The certificate of now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// Who vouches for it.
    kind: CertificateKind,
    /// First 16 bytes of SHA-256 of the public key of who vouches for it, base64url: as in QR codes.
    fingerprint: String,
    /// The same to be compared by eye: eight groups of four hex digits.
    fingerprint_for_people: String,
    /// What the authority is called in a phone's settings, where it is this server's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    /// Names and addresses that it is good for.
    names: Vec<String>,
    /// RFC 3339.
    not_before: String,
    /// RFC 3339.
    not_after: String,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertificateKind {
    /// From this server's own authority, which phones have to be told to trust.
    Own,
    /// From files of the owner.
    Files,
}

/// Tells what phones meet when they come in by TLS. Only for the owner.
#[utoipa::path(get, path = "/api/certificate", tag = "health", responses((status = 200, body = CertificateView)))]
async fn certificate(State(app): State<App>, _: Admin) -> Result<Json<CertificateView>, Problem> {
    let (from, until) = app.tls.validity().ok_or_else(|| Problem::internal("the certificate in use cannot be read"))?;
    let (fingerprint, authority) = (app.tls.fingerprint(), app.tls.authority());
    Ok(Json(CertificateView {
        kind: if authority.is_some() { CertificateKind::Own } else { CertificateKind::Files },
        fingerprint: fingerprint.short(),
        fingerprint_for_people: fingerprint.for_people(),
        authority: authority.map(|authority| authority.common_name().to_owned()),
        names: app.tls.hosts(),
        not_before: moment(from),
        not_after: moment(until),
    }))
}

/// RFC 3339; a time that no calendar has is the nearest that one has.
fn moment(at: SystemTime) -> String {
    Timestamp::try_from(at).unwrap_or(Timestamp::MAX).to_string()
}
