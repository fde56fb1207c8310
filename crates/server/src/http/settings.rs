//! The settings, for the owner of the server: seeing them all, and changing them in `config.toml`.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::PartialSchema;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Admin, Caller};
use super::problem::{Code, Json, Problem, ProblemBody};
use crate::app::App;
use crate::config::listed::{Effect, Group, Kind, Rank, SETTINGS, Setting};
use crate::settings::{Entry, Overview, Refusal, Settings, Source};
use crate::trust::DeviceId;

/// The most mistakes that one answer lists.
const MOST_MISTAKES: usize = 20;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, change))
}

/// All settings, as a page can show them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingsView {
    settings: Entries,
    /// Where they are written down. The file is there once something was changed.
    #[schema(value_type = String)]
    config_file: PathBuf,
    /// Names of the settings that will have another value after the next start of the server.
    restart_needed: Vec<&'static str>,
    /// What is wrong with the file, a sentence each. The server goes on, but would not start with it.
    mistakes: Vec<String>,
}

/// Settings by name, in the order in which people are shown them.
#[derive(Debug)]
struct Entries {
    all: Vec<Entry>,
    /// For whom they are shown.
    rank: Rank,
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.all.len()))?;
        for entry in &self.all {
            map.serialize_entry(entry.setting.key, &SettingView::of(entry, self.rank))?;
        }
        map.end()
    }
}

impl PartialSchema for Entries {
    fn schema() -> RefOr<Schema> {
        let each = AdditionalProperties::RefOr(Ref::from_schema_name("SettingView").into());
        let names = SETTINGS.iter().map(|setting| setting.key);
        let object = ObjectBuilder::new().description(Some("Settings by name, in the order in which people are shown them."));
        names.fold(object.additional_properties(Some(each)), ObjectBuilder::required).into()
    }
}

impl utoipa::ToSchema for Entries {
    fn name() -> std::borrow::Cow<'static, str> {
        "SettingsByName".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("SettingView".to_owned(), SettingView::schema()));
        SettingView::schemas(schemas);
    }
}

/// One setting.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SettingView {
    /// Its value after the next start, and now too unless `running` says otherwise. Null: nothing is set.
    #[schema(value_type = Value)]
    value: Value,
    /// What the server runs with until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    running: Option<Value>,
    /// Its value where nobody says anything else.
    #[schema(value_type = Value)]
    default: Value,
    /// Where its value comes from.
    source: Source,
    /// Whether whoever asks can change it here: not where a flag or the environment says what it is, nor, from another device than the
    /// server's own computer, where it reaches into that computer (programs, folders, certificates, ports, peers, hosts).
    changeable: bool,
    /// What kind of value it has.
    kind: Kind,
    /// When a change is felt.
    effect: Effect,
    /// What it is about.
    group: Group,
    /// One line that says what it is.
    about: String,
}

impl SettingView {
    fn of(entry: &Entry, rank: Rank) -> Self {
        Self {
            value: entry.value.clone(),
            running: entry.running.clone(),
            default: entry.default.clone(),
            source: entry.source,
            changeable: entry.is_changeable(rank),
            kind: entry.setting.kind,
            effect: entry.setting.effect,
            group: entry.setting.group,
            about: entry.setting.about(),
        }
    }
}

/// New values by name; what is not named stays.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct SettingsChange(Map<String, Value>);

impl PartialSchema for SettingsChange {
    fn schema() -> RefOr<Schema> {
        let text = "New values by name; null is back to the default, and what is not named stays. \
                    A size may be a text (`20GiB`) or a number of bytes, a time a text (`24h`) or a number of seconds.";
        let object = ObjectBuilder::new().description(Some(text)).additional_properties(Some(AdditionalProperties::FreeForm(false)));
        let changeable = SETTINGS.iter().filter(|setting| setting.is_of_the_file());
        changeable.fold(object, |object, setting| object.property(setting.key, schema_of(setting))).into()
    }
}

impl utoipa::ToSchema for SettingsChange {}

fn schema_of(setting: &Setting) -> Schema {
    let types = match setting.kind {
        Kind::Text | Kind::Folder | Kind::File => vec![Type::String],
        Kind::Number => vec![Type::Number],
        Kind::Size | Kind::Time => vec![Type::String, Type::Number],
        Kind::Switch => vec![Type::Boolean],
        Kind::List => vec![Type::Array],
    };
    let types = SchemaType::from_iter(types.into_iter().chain([Type::Null]));
    let about = Some(setting.about());
    if setting.kind == Kind::List {
        let word = ObjectBuilder::new().schema_type(Type::String);
        return ArrayBuilder::new().schema_type(types).items(word).description(about).into();
    }
    ObjectBuilder::new().schema_type(types).description(about).into()
}

/// All settings: their values, where each comes from, and when a change is felt. Only for the owner of the server.
#[utoipa::path(get, path = "/api/settings", tag = "settings", responses((status = 200, body = SettingsView)))]
async fn show(State(app): State<App>, Admin(caller): Admin) -> Result<Json<SettingsView>, Problem> {
    apart(app.settings, rank(&caller), |settings| Ok(settings.overview())).await
}

/// Changes settings, all or none, and writes them into `config.toml`. Only for the owner of the server; what reaches into its computer
/// only with that computer's own token.
#[utoipa::path(patch, path = "/api/settings", tag = "settings", request_body = SettingsChange, responses(
    (status = 200, body = SettingsView, description = "Changed; `restartNeeded` names what waits for the next start"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json",
        description = "Not the owner's scope; or some can be changed at the server's own computer only: they are named"),
    (status = 409, body = ProblemBody, content_type = "application/problem+json",
        description = "A flag or the environment fixes a setting, or the file is broken or cannot be written"),
    (status = 422, body = ProblemBody, content_type = "application/problem+json", description = "Values that make no sense: all of them are named")
))]
async fn change(State(app): State<App>, Admin(caller): Admin, Json(asked): Json<SettingsChange>) -> Result<Json<SettingsView>, Problem> {
    let rank = rank(&caller);
    apart(app.settings, rank, move |settings| settings.change(&asked.0, rank)).await
}

/// What somebody with the owner's scope may change: at this machine all, from elsewhere what a thief may have.
fn rank(caller: &Caller) -> Rank {
    if caller.device == DeviceId::owner() { Rank::Owner } else { Rank::Admin }
}

/// Files are read and written where it keeps no request waiting.
async fn apart(
    settings: Arc<Settings>,
    rank: Rank,
    work: impl FnOnce(&Settings) -> Result<Overview, Refusal> + Send + 'static,
) -> Result<Json<SettingsView>, Problem> {
    let done = tokio::task::spawn_blocking(move || work(&settings)).await.map_err(Problem::internal)?;
    done.map(|overview| Json(view(overview, rank))).map_err(problem)
}

fn view(overview: Overview, rank: Rank) -> SettingsView {
    SettingsView {
        restart_needed: overview.restart_needed(),
        settings: Entries { all: overview.entries, rank },
        config_file: overview.file,
        mistakes: overview.mistakes,
    }
}

fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotYours(sentence) => Problem::new(Code::Forbidden, sentence),
        Refusal::Invalid(sentences) => Problem::new(Code::Invalid, listed(&sentences)),
        Refusal::Fixed(sentence) => Problem::new(Code::Conflict, sentence),
        Refusal::Broken(sentences) => {
            Problem::new(Code::Conflict, format!("config.toml has to be put right by hand first: {}", listed(&sentences)))
        }
        Refusal::Unwritable(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Problem::new(Code::NoSpace, "The disk of config.toml is full."),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::ResourceBusy | ErrorKind::NotADirectory => {
                Problem::new(Code::Conflict, Refusal::Unwritable(error).to_string())
            }
            _ => Problem::internal(error),
        },
    }
}

fn listed(sentences: &[String]) -> String {
    let mut shown: Vec<String> = sentences.iter().take(MOST_MISTAKES).cloned().collect();
    if let Some(more) = sentences.len().checked_sub(MOST_MISTAKES).filter(|more| *more > 0) {
        shown.push(format!("And {more} more."));
    }
    shown.join(" ")
}
