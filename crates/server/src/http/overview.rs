//! How everything stands, in a few numbers: for the tray, and for whoever wants to know at a glance. And pausing everything.
//!
//! Made from memory when somebody asks. Who listens is told when something moved ([`Watch`]); when nobody listens, nothing is counted.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use balcony_media::magnet::InfoHash;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Admin;
use super::devices::unwritten;
use super::problem::{Json, Problem, ProblemBody};
use crate::app::App;
use crate::budget::Usage;
use crate::config::Resolved;
use crate::stream::state::State as Life;
use crate::stream::{Stream, Streams};
use crate::trust::DeviceId;

/// At most one event so often.
const PACE: Duration = Duration::from_secs(1);
/// How often the disk is looked at while somebody listens: nobody tells when others fill or empty it.
const DISK_PACE: Duration = Duration::from_secs(30);
/// With less free space than this, in bytes, nothing of a film can be fetched, however small the reserve is.
const LEAST_FREE: u64 = 64 << 20;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(overview)).routes(routes!(pause))
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// In one word.
    state: Mood,
    /// Whether everything is paused.
    paused: bool,
    /// Streams that are not over.
    streams: usize,
    /// Devices that asked for something to see within the last minute.
    watching: usize,
    /// Streams that are on their way to be ready, and do not wait for their turn.
    preparing: usize,
    /// Bytes per second.
    download_speed: u64,
    /// Bytes per second.
    upload_speed: u64,
    /// Bytes that films and segments take.
    used_bytes: u64,
    /// Bytes of them that are films.
    film_bytes: u64,
    /// Bytes of them that are encoded segments.
    segment_bytes: u64,
    /// Bytes of films to keep.
    kept_bytes: u64,
    /// Bytes that are still to come of films that are being fetched; nobody else may have them.
    promised_bytes: u64,
    /// Bytes that they may take.
    budget_bytes: u64,
    /// Bytes that are free on their disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    /// What somebody has to look after.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<Trouble>,
}

/// How everything stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mood {
    /// Nobody watches, and nothing is fetched.
    Idle,
    /// Somebody watches, or something is on its way.
    Active,
    /// Somebody has to look after something.
    Trouble,
}

/// What somebody has to look after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// Stable name: `no_space`, `no_ffmpeg` or `database_set_aside`.
    code: &'static str,
    /// What is wrong and what to do.
    message: String,
    /// Stable name of the message.
    message_key: &'static str,
}

impl Trouble {
    fn of(machine: &Machine) -> Option<Self> {
        let least = machine.reserve.max(LEAST_FREE);
        let (code, message) = if machine.free.is_some_and(|free| free < least) {
            ("no_space", "The disk is full, so no film can be fetched. Make room on it, or stop a stream.")
        } else if !machine.ffmpeg {
            ("no_ffmpeg", "ffmpeg was not found, so nothing can be converted. Install it, or say where it is with --ffmpeg.")
        } else {
            ("database_set_aside", machine.rescued?.in_words())
        };
        Some(Self { code, message: message.to_owned(), message_key: code })
    }
}

/// What one stream adds.
struct Part {
    torrent: InfoHash,
    state: Life,
    /// Bytes per second down and up, of its whole torrent.
    speed: (u64, u64),
    watching: Vec<DeviceId>,
}

impl Part {
    /// And when the first of those who watch will have stopped, unless it asks again.
    fn of(stream: &Stream) -> (Self, Option<std::time::Instant>) {
        let (watching, until) = stream.watching();
        let seen = stream.changes();
        let seen = seen.borrow();
        let speed = (seen.view.download_speed.unwrap_or(0), seen.view.upload_speed.unwrap_or(0));
        (Self { torrent: stream.magnet.info_hash, state: seen.state.clone(), speed, watching }, until)
    }
}

/// The rest of it.
struct Machine {
    paused: bool,
    usage: Usage,
    free: Option<u64>,
    reserve: u64,
    /// Whether ffmpeg is where it should be.
    ffmpeg: bool,
    /// The database was broken when this run began.
    rescued: Option<Rescued>,
}

/// What took the place of a database that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rescued {
    WithCopy,
    WithNothing,
}

impl Rescued {
    fn in_words(self) -> &'static str {
        match self {
            Self::WithCopy => {
                "The database was damaged, and its last copy took its place. What was done after that copy is missing; pair devices again that are not let in."
            }
            Self::WithNothing => "The database was damaged, and there was no copy of it: it begins anew. Pair your devices again.",
        }
    }
}

impl Machine {
    fn now(streams: &Streams, config: &Resolved) -> Self {
        let ground = streams.ground();
        Self {
            paused: *ground.torrents.paused().borrow(),
            usage: ground.workshop.segments.budget().usage(),
            free: fs4::available_space(&config.cache_dir).ok(),
            reserve: config.reserve_bytes,
            ffmpeg: is_there(&ground.workshop.tools.ffmpeg, std::env::var_os("PATH").as_deref()),
            // Told for as long as this run lasts; the diagnosis tells it until the broken file is deleted.
            rescued: ground.store.rescue().map(|rescue| if rescue.copy_of.is_some() { Rescued::WithCopy } else { Rescued::WithNothing }),
        }
    }
}

/// Whether there is a program of this name: a path, or a bare name that is looked up in `folders` (as in `PATH`).
fn is_there(program: &Path, folders: Option<&std::ffi::OsStr>) -> bool {
    let is_bare = program.components().count() == 1 && !program.is_absolute();
    let named = |folder: std::path::PathBuf| folder.join(program).with_added_extension(std::env::consts::EXE_EXTENSION).is_file();
    if is_bare { folders.is_some_and(|folders| std::env::split_paths(folders).any(named)) } else { program.is_file() }
}

impl Overview {
    /// As of now.
    pub fn now(streams: &Streams, config: &Resolved) -> Self {
        Self::and_when(streams, config).0
    }

    /// And when the first of those who watch will have stopped, unless it asks again.
    fn and_when(streams: &Streams, config: &Resolved) -> (Self, Option<Instant>) {
        let (parts, ends): (Vec<_>, Vec<_>) = streams.all().iter().map(|stream| Part::of(stream)).unzip();
        (Self::of(&parts, &Machine::now(streams, config)), ends.into_iter().flatten().min().map(Instant::from_std))
    }

    fn of(parts: &[Part], machine: &Machine) -> Self {
        let alive = || parts.iter().filter(|part| !part.state.is_over());
        let watching: HashSet<_> = alive().flat_map(|part| &part.watching).collect();
        let preparing = alive().filter(|part| !matches!(part.state, Life::Queued { .. } | Life::Ready { .. })).count();
        // Streams of one torrent all show its speed.
        let speeds: HashMap<_, _> = alive().map(|part| (part.torrent, part.speed)).collect();
        let sum = |of: fn(&(u64, u64)) -> u64| speeds.values().map(of).fold(0_u64, u64::saturating_add);
        let (download_speed, upload_speed) = (sum(|speed| speed.0), sum(|speed| speed.1));
        let trouble = Trouble::of(machine);
        let moves = !watching.is_empty() || download_speed > 0 || (preparing > 0 && !machine.paused);
        Self {
            state: match (&trouble, moves) {
                (Some(_), _) => Mood::Trouble,
                (None, true) => Mood::Active,
                (None, false) => Mood::Idle,
            },
            paused: machine.paused,
            streams: alive().count(),
            watching: watching.len(),
            preparing,
            download_speed,
            upload_speed,
            used_bytes: machine.usage.taken(),
            film_bytes: machine.usage.films,
            segment_bytes: machine.usage.segments,
            kept_bytes: machine.usage.kept,
            promised_bytes: machine.usage.promised,
            budget_bytes: machine.usage.limit,
            free_bytes: machine.free,
            trouble,
        }
    }
}

/// Tells how everything stands: at once, then when it is otherwise than before, at most once a second.
pub struct Watch {
    config: Arc<Resolved>,
    moves: watch::Receiver<u64>,
    paused: watch::Receiver<bool>,
    told: Option<Overview>,
    /// Not before this time.
    not_before: Instant,
    /// Then in any case.
    at_last: Instant,
}

impl Watch {
    /// Nothing was told yet.
    pub fn new(streams: &Streams, config: Arc<Resolved>) -> Self {
        let (moves, paused, now) = (streams.moves(), streams.ground().torrents.paused(), Instant::now());
        Self { config, moves, paused, told: None, not_before: now, at_last: now }
    }

    /// Waits until it may be otherwise than it was told. May be dropped and called again.
    pub async fn moved(&mut self) {
        tokio::time::sleep_until(self.not_before).await;
        tokio::select! {
            Ok(()) = self.moves.changed() => {}
            Ok(()) = self.paused.changed() => {}
            () = tokio::time::sleep_until(self.at_last) => {}
        }
    }

    /// What is to be told now, if anything is.
    pub fn look(&mut self, streams: &Streams) -> Option<&Overview> {
        let now = Instant::now();
        let (overview, until) = Overview::and_when(streams, &self.config);
        self.not_before = now + PACE;
        self.at_last = until.map_or(now + DISK_PACE, |until| until.min(now + DISK_PACE));
        if self.told.as_ref() == Some(&overview) {
            return None;
        }
        Some(self.told.insert(overview))
    }
}

/// Tells how everything stands. Only for the owner.
#[utoipa::path(get, path = "/api/overview", tag = "overview", responses((status = 200, body = Overview)))]
async fn overview(State(app): State<App>, _: Admin) -> Json<Overview> {
    Json(Overview::now(&app.streams, &app.config))
}

/// Whether everything shall be paused.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Whether nothing shall be fetched and given from now on.
    paused: bool,
}

/// Pauses everything, or lets it go on: paused, no torrent fetches or gives anything, and what is here still plays. Kept over a restart.
/// Only for the owner.
#[utoipa::path(put, path = "/api/pause", tag = "overview", request_body = PauseRequest, responses(
    (status = 200, body = Overview),
    (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "The disk is full: it counts until the next start")
))]
async fn pause(State(app): State<App>, _: Admin, Json(asked): Json<PauseRequest>) -> Result<Json<Overview>, Problem> {
    app.streams.pause(asked.paused).await.map_err(|error| unwritten(&error))?;
    Ok(Json(Overview::now(&app.streams, &app.config)))
}

#[cfg(test)]
mod tests {
    use balcony_media::plan::Mode;

    use super::*;
    use crate::stream::state::{Failure, FailureCode};

    fn part(torrent: u8, state: Life, down: u64, watching: &[&str]) -> Part {
        let watching = watching.iter().filter_map(|id| DeviceId::parse(id)).collect();
        Part { torrent: InfoHash([torrent; 20]), state, speed: (down, down / 10), watching }
    }

    fn machine() -> Machine {
        Machine {
            paused: false,
            usage: Usage { limit: 20, films: 2, promised: 5, segments: 1, kept: 0 },
            free: Some(1 << 40),
            reserve: 2 << 30,
            ffmpeg: true,
            rescued: None,
        }
    }

    #[test]
    fn each_is_counted_once() {
        let ready = Life::Ready { complete: false };
        let parts = [
            part(1, ready.clone(), 1000, &["tv", "phone"]),
            // The same torrent, watched by one that watches something else too.
            part(1, Life::Warming(Mode::Copy), 1000, &["phone"]),
            part(2, Life::Metadata, 0, &[]),
            part(3, Life::Queued { place: 2 }, 0, &[]),
            part(4, Life::Stopped, 500, &["tablet"]),
            part(5, Life::Failed(Failure::new(FailureCode::NoSpace, "x")), 500, &[]),
        ];
        let seen = Overview::of(&parts, &machine());
        assert_eq!((seen.streams, seen.watching, seen.preparing), (4, 2, 2));
        assert_eq!((seen.download_speed, seen.upload_speed), (1000, 100));
        assert_eq!((seen.used_bytes, seen.budget_bytes, seen.free_bytes, seen.trouble), (3, 20, Some(1 << 40), None));
    }

    #[test]
    fn in_one_word() {
        let ready = || Life::Ready { complete: true };
        let paused = || Machine { paused: true, ..machine() };
        let table = [
            ("nothing", vec![], machine(), Mood::Idle),
            ("a film that is here", vec![part(1, ready(), 0, &[])], machine(), Mood::Idle),
            ("somebody watches it", vec![part(1, ready(), 0, &["tv"])], machine(), Mood::Active),
            ("bytes come", vec![part(1, ready(), 9, &[])], machine(), Mood::Active),
            ("on its way", vec![part(1, Life::Opening, 0, &[])], machine(), Mood::Active),
            ("paused on its way", vec![part(1, Life::Opening, 0, &[])], paused(), Mood::Idle),
            ("watched while paused", vec![part(1, ready(), 0, &["tv"])], paused(), Mood::Active),
            ("waiting for its turn", vec![part(1, Life::Queued { place: 1 }, 0, &[])], machine(), Mood::Idle),
            ("no room", vec![part(1, ready(), 9, &["tv"])], Machine { free: Some(1 << 30), ..machine() }, Mood::Trouble),
            ("no room and no reserve", vec![], Machine { free: Some(1 << 20), reserve: 0, ..machine() }, Mood::Trouble),
            ("nobody knows how much room", vec![], Machine { free: None, ..machine() }, Mood::Idle),
            ("no ffmpeg", vec![], Machine { ffmpeg: false, ..machine() }, Mood::Trouble),
            ("a copy of the database", vec![], Machine { rescued: Some(Rescued::WithCopy), ..machine() }, Mood::Trouble),
            ("a new database", vec![], Machine { rescued: Some(Rescued::WithNothing), ..machine() }, Mood::Trouble),
        ];
        for (what, parts, machine, expected) in table {
            let seen = Overview::of(&parts, &machine);
            assert_eq!(seen.state, expected, "{what}");
            assert_eq!(seen.trouble.is_some(), expected == Mood::Trouble, "{what}");
        }
    }

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("ffmpeg").with_added_extension(std::env::consts::EXE_EXTENSION);
        std::fs::write(&program, "").expect("written");
        let empty = tempfile::tempdir().expect("a folder");
        let folders = std::env::join_paths([empty.path(), folder.path()]).expect("joined");
        for (name, folders, expected) in [
            (Path::new("ffmpeg"), Some(folders.as_os_str()), true),
            (Path::new("ffmpeg"), Some(empty.path().as_os_str()), false),
            (Path::new("ffmpeg"), None, false),
            (Path::new("ffprobe"), Some(folders.as_os_str()), false),
            (program.as_path(), None, true),
            (empty.path(), None, false),
        ] {
            assert_eq!(is_there(name, folders), expected, "{} in {folders:?}", name.display());
        }
    }
}
