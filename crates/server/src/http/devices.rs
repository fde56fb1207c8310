//! The devices of this person; of everybody's, for the owner.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::problem::{Code, Json, Path, Problem, ProblemBody};
use crate::app::App;
use crate::store::StoreError;
use crate::trust::devices::{Change, ChangeError, DeviceView};
use crate::trust::{DeviceId, Devices, LONGEST_NAME, name_of};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(me)).routes(routes!(change, revoke))
}

/// The devices that exist for the one that asks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct DeviceList {
    /// The oldest first.
    devices: Vec<DeviceView>,
}

/// What is to change of a device.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// 1 to 60 characters.
    #[serde(default)]
    name: Option<String>,
    /// Whose it is: id or name of a person; a name that is unknown makes a new person. Only the owner may say that.
    #[serde(default)]
    person: Option<String>,
}

/// Lists the devices of the person who asks; the owner sees all.
#[utoipa::path(get, path = "/api/devices", tag = "devices", responses((status = 200, body = DeviceList)))]
async fn list(State(devices): State<Arc<Devices>>, caller: Caller) -> Json<DeviceList> {
    Json(DeviceList { devices: devices.list(&caller) })
}

/// The device that asks.
#[utoipa::path(get, path = "/api/devices/me", tag = "devices", responses((status = 200, body = DeviceView)))]
async fn me(State(devices): State<Arc<Devices>>, caller: Caller) -> Result<Json<DeviceView>, Problem> {
    devices.get(&caller.device, &caller).map(Json).ok_or_else(unknown)
}

/// Gives a device another name, or to another person. A device may rename itself; the rest is the owner's.
#[utoipa::path(patch, path = "/api/devices/{deviceId}", tag = "devices", params(("deviceId" = String, Path)), request_body = DeviceChange, responses(
    (status = 200, body = DeviceView),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "It is this machine's own record, or the disk is full")
))]
async fn change(
    State(devices): State<Arc<Devices>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(asked): Json<DeviceChange>,
) -> Result<Json<DeviceView>, Problem> {
    let id = allowed(&devices, &caller, &id)?;
    if asked.person.is_some() {
        caller.require_admin()?;
    }
    let name = asked.name.as_deref().map(|name| checked_name("A name", name)).transpose()?;
    let person = asked.person.as_deref().map(|name| checked_name("A name", name)).transpose()?;
    let view = devices.change(&id, Change { name, person }).await.map_err(|error| match error {
        ChangeError::Unknown => unknown(),
        ChangeError::Owner => Problem::new(Code::Conflict, "This machine's own record stays with its owner."),
        ChangeError::Store(error) => unwritten(&error),
    })?;
    let current = view.id == caller.device;
    Ok(Json(DeviceView { current, ..view }))
}

/// Revokes a device: its next request fails, media included. A device may revoke itself; the rest is the owner's.
#[utoipa::path(delete, path = "/api/devices/{deviceId}", tag = "devices", params(("deviceId" = String, Path)), responses(
    (status = 204, description = "It is out"),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "It is this machine's own record, or the disk is full")
))]
async fn revoke(State(devices): State<Arc<Devices>>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = allowed(&devices, &caller, &id)?;
    if id == DeviceId::owner() {
        return Err(Problem::new(Code::Conflict, "This machine's own record cannot be revoked."));
    }
    match devices.revoke(&id).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(unknown()),
        Err(error) => Err(unwritten(&error)),
    }
}

/// The device that a caller may change: its own, or any where it is the owner. Another person's does not exist.
fn allowed(devices: &Devices, caller: &Caller, id: &str) -> Result<DeviceId, Problem> {
    let id = DeviceId::parse(id).filter(|id| devices.get(id, caller).is_some()).ok_or_else(unknown)?;
    if id != caller.device {
        caller.require_admin()?;
    }
    Ok(id)
}

/// A name that may be shown.
/// `what` begins the sentence to who gave another one.
pub(super) fn checked_name(what: &str, text: &str) -> Result<String, Problem> {
    name_of(text).ok_or_else(|| Problem::new(Code::Invalid, format!("{what} has 1 to {LONGEST_NAME} characters that can be seen.")))
}

/// It counts, but would be forgotten by a crash.
pub(super) fn unwritten(error: &StoreError) -> Problem {
    match error {
        StoreError::Full => Problem::new(Code::NoSpace, "There is no space left on the disk to write this down."),
        other => Problem::internal(other),
    }
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "There is no such device.")
}
