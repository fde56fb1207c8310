//! What is in a torrent, before anything of it is fetched.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use balcony_media::magnet::InfoHash;
use http::header::{self, HeaderMap};
use serde::{Deserialize, Serialize};
use utoipa::PartialSchema;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, unauthenticated};
use super::problem::{Code, Json, Problem, ProblemBody, read_body};
use super::rate::{Inspection, Limits};
use super::streams::magnet;
use crate::app::App;
use crate::stream::Streams;
use crate::torrent::{BringError, TorrentError};

/// How long to look for somebody who has it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the answer is kept for a start that follows it.
const KEPT: Duration = Duration::from_secs(600);

/// The largest torrent file, in bytes.
const LARGEST_FILE: usize = 8 << 20;
/// What a torrent file is called (in use everywhere, registered nowhere).
const FILE_TYPE: &str = "application/x-bittorrent";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(inspect)).routes(routes!(bring))
}

/// Which torrent.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectRequest {
    /// A magnet link or a bare info hash.
    magnet_link: String,
}

/// What is in it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// Lower-case hex.
    info_hash: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Bytes of all files.
    total_bytes: u64,
    /// Its files.
    files: Vec<InspectedFile>,
}

/// One file of a torrent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct InspectedFile {
    /// Its number: `fileIndex` of a start.
    index: usize,
    /// Path within the torrent.
    path: String,
    /// Bytes.
    length: u64,
    /// Whether it is a film by its name.
    playable: bool,
}

/// Lists the files of a torrent.
#[utoipa::path(post, path = "/api/torrents/inspect", tag = "torrents", request_body = InspectRequest, responses((status = 200, body = Inspected)))]
async fn inspect(
    State(streams): State<Arc<Streams>>,
    State(limits): State<Arc<Limits>>,
    caller: Caller,
    Json(request): Json<InspectRequest>,
) -> Result<Json<Inspected>, Problem> {
    let magnet = magnet(&request.magnet_link)?;
    let _look = limits.inspect(&caller.device)?;
    let ground = streams.ground().clone();
    let looked = tokio::time::timeout(PATIENCE, ground.torrents.inspect(&magnet));
    let found = caller.gone.run_until_cancelled(looked).await.ok_or_else(unauthenticated)?;
    let torrent = found.unwrap_or(Err(TorrentError::NoPeers { asked: 0 })).map_err(problem)?;
    let files = torrent.files().iter().map(|file| InspectedFile {
        index: file.index,
        path: file.path.clone(),
        length: file.length,
        playable: file.playable,
    });
    let answer = Inspected {
        info_hash: magnet.info_hash.to_string(),
        name: torrent.name().map(str::to_owned),
        total_bytes: torrent.total(),
        files: files.collect(),
    };
    forget_unless_needed(streams, magnet.info_hash, None);
    Ok(Json(answer))
}

/// Keeps what is known of a torrent for a start that may follow.
fn forget_unless_needed(streams: Arc<Streams>, info_hash: InfoHash, counted: Option<Inspection>) {
    let tasks = streams.ground().tasks.clone();
    tasks.spawn_ending("forget torrent unless needed", |stopping| async move {
        let _counted = counted;
        if tokio::time::timeout(KEPT, stopping.cancelled()).await.is_err() && !streams.needs(&info_hash) {
            streams.ground().torrents.forget(&info_hash).await;
        }
    });
}

/// A metainfo file (BEP 3), as it is.
pub struct TorrentFile;

impl PartialSchema for TorrentFile {
    fn schema() -> RefOr<Schema> {
        let text = "A metainfo file (BEP 3) of at most 8 MiB.";
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).description(Some(text)).into()
    }
}

impl utoipa::ToSchema for TorrentFile {}

/// The magnet of a torrent file.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bringing {
    /// To be given to a start, which then asks nobody what is in it.
    magnet_link: String,
    /// Lower-case hex.
    info_hash: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Bytes of all files.
    total_bytes: u64,
}

/// Makes a magnet of a torrent file, and keeps what is in the file for a start that follows within ten minutes.
#[utoipa::path(post, path = "/api/torrents/magnet", tag = "torrents", request_body(content = TorrentFile, content_type = FILE_TYPE), responses(
    (status = 200, body = Bringing),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The disk is full"),
    (status = 413, body = ProblemBody, content_type = "application/problem+json", description = "The file is larger than 8 MiB, or the address or the headers are too large"),
    (status = 415, body = ProblemBody, content_type = "application/problem+json", description = "The body is not of type application/x-bittorrent"),
    (status = 422, body = ProblemBody, content_type = "application/problem+json", description = "It is no torrent file, or one that is not safe")
))]
async fn bring(
    State(streams): State<Arc<Streams>>,
    State(limits): State<Arc<Limits>>,
    caller: Caller,
    request: Request,
) -> Result<Json<Bringing>, Problem> {
    // Before anything is read: a file is large.
    let (_look, kept) = (limits.inspect(&caller.device)?, limits.bring(&caller.device)?);
    let is_torrent = is_torrent(request.headers());
    let bytes = read_body(request.into_body(), LARGEST_FILE).await?;
    if !is_torrent {
        return Err(Problem::new(Code::UnsupportedMediaType, format!("The content type has to be {FILE_TYPE}.")));
    }
    let brought = streams.ground().torrents.bring(bytes).await.map_err(not_kept)?;
    forget_unless_needed(streams, brought.magnet.info_hash, Some(kept));
    Ok(Json(Bringing {
        magnet_link: brought.magnet.to_link(),
        info_hash: brought.magnet.info_hash.to_string(),
        name: brought.name,
        total_bytes: brought.total,
    }))
}

fn is_torrent(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FILE_TYPE)
}

fn not_kept(error: BringError) -> Problem {
    match error {
        BringError::Unreadable(why) => Problem::new(Code::Invalid, why),
        BringError::Unsafe(why) => Problem::new(Code::UnsafeTorrent, why),
        BringError::NoSpace => Problem::new(Code::NoSpace, "There is no space left on the disk for the torrent's metadata."),
        error @ BringError::Failed(_) => Problem::internal(error),
    }
}

fn problem(error: TorrentError) -> Problem {
    let code = match &error {
        TorrentError::NoPeers { .. } => Code::NoPeers,
        TorrentError::Unsafe(_) => Code::UnsafeTorrent,
        TorrentError::NoSpace { .. } => Code::NoSpace,
        TorrentError::NothingPlayable => Code::NotPlayable,
        TorrentError::Gone | TorrentError::Failed(_) => Code::TorrentFailed,
    };
    Problem::new(code, error.to_string())
}
