//! What is in a torrent, before anything of it is fetched.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, unauthenticated};
use super::problem::{Code, Json, Problem};
use super::rate::Limits;
use super::streams::magnet;
use crate::app::App;
use crate::stream::Streams;
use crate::torrent::TorrentError;

/// How long to look for somebody who has it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the answer is kept for a start that follows it.
const KEPT: Duration = Duration::from_secs(600);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(inspect))
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
    ground.tasks.spawn_ending("forget inspected torrent", |stopping| async move {
        if tokio::time::timeout(KEPT, stopping.cancelled()).await.is_err() && !streams.needs(&magnet.info_hash) {
            streams.ground().torrents.forget(&magnet.info_hash).await;
        }
    });
    Ok(Json(answer))
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
