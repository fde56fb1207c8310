//! The people of the house, for the owner.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Admin;
use super::devices::{checked_name, unwritten};
use super::problem::{Code, Json, Path, Problem, ProblemBody};
use crate::app::App;
use crate::trust::devices::PersonView;
use crate::trust::{Devices, PersonId};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(rename))
}

/// All people.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PersonList {
    /// The oldest first.
    people: Vec<PersonView>,
}

/// What is to change of a person.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonChange {
    /// 1 to 60 characters.
    name: String,
}

/// Lists the people of the house. Only for the owner.
#[utoipa::path(get, path = "/api/people", tag = "devices", responses((status = 200, body = PersonList)))]
async fn list(State(devices): State<Arc<Devices>>, _: Admin) -> Json<PersonList> {
    Json(PersonList { people: devices.people() })
}

/// Gives a person another name. Only for the owner.
#[utoipa::path(patch, path = "/api/people/{personId}", tag = "devices", params(("personId" = String, Path)), request_body = PersonChange, responses(
    (status = 200, body = PersonView),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The disk is full")
))]
async fn rename(
    State(devices): State<Arc<Devices>>,
    _: Admin,
    Path(id): Path<String>,
    Json(asked): Json<PersonChange>,
) -> Result<Json<PersonView>, Problem> {
    let unknown = || Problem::new(Code::NotFound, "There is no such person.");
    let id = PersonId::parse(&id).ok_or_else(unknown)?;
    let name = checked_name("A name", &asked.name)?;
    devices.rename_person(&id, &name).await.map_err(|error| unwritten(&error))?.map(Json).ok_or_else(unknown)
}
