//! The ffmpeg to use where none is named: of those that are found the one that lacks nothing that another one has, and starts quickest.
//!
//! A static build starts in a sixth of the time that one takes whose fifty libraries have to be found first, and each jump in a film that
//! is converted waits for that. Looked at once, and written down until one of the programs is another.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use balcony_media::encoder::Wanted;
use balcony_media::ffmpeg::DEMUXERS;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{file_of, parts, program, start_time};
use crate::doctor::facts::{Parts, ProgramState};
use crate::doctor::{CODECS, is_too_old};
use crate::produce::trial;
use crate::spawner::Spawner;
use crate::trust::write_private;

/// Name of the file in the data folder in which it is written down.
pub const FILE: &str = "ffmpeg.json";

/// Folders in which programs lie that no PATH leads to.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin", "/usr/lib/jellyfin-ffmpeg"];
/// More are not looked at.
const MOST: usize = 8;
/// How long all of it may take: the server does not begin before it knows. Who only asks has more time.
const WAIT: Duration = Duration::from_secs(8);
const PATIENT: Duration = Duration::from_secs(40);
/// One that starts in less than this part of the time is worth another choice than the user's own order.
const QUICKER: f64 = 0.6;

/// Encoders and filters that films are converted with: what is here in one program is not given up for another.
const NEEDED: [&str; 15] = [
    "libx264",
    "aac",
    "webvtt",
    "mjpeg",
    "scale",
    "format",
    "setsar",
    "trim",
    "aresample",
    "aformat",
    "zscale",
    "tonemap",
    "bwdif",
    "overlay",
    "subtitles",
];

/// One ffmpeg that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its file, behind all links.
    pub path: PathBuf,
    /// Size and time of the file.
    pub stamp: String,
    /// How long it takes to start, in milliseconds; `None` where it does not run, or is too old.
    pub starts_in: Option<u64>,
    /// What it lacks of all that films could need.
    pub lacks: BTreeSet<String>,
}

/// What was found, the one that is used first in the user's own order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// All that were looked at.
    pub found: Vec<Found>,
}

impl Choice {
    /// The one to use.
    pub fn best(&self) -> Option<&Found> {
        let mut usable = self.found.iter().filter(|found| found.starts_in.is_some());
        let first = usable.next()?;
        Some(usable.fold(first, |best, other| if other.is_better_than(best) { other } else { best }))
    }
}

impl Choice {
    /// Whether it was made from these very files.
    fn is_of(&self, files: &[(PathBuf, String)]) -> bool {
        self.found.iter().map(|found| (&found.path, &found.stamp)).eq(files.iter().map(|(path, stamp)| (path, stamp)))
    }
}

impl Found {
    fn is_better_than(&self, other: &Self) -> bool {
        let time = |found: &Self| found.starts_in.unwrap_or(u64::MAX) as f64;
        let has_more = self.lacks.len() < other.lacks.len();
        self.lacks.is_subset(&other.lacks) && (has_more || time(self) < time(other) * QUICKER)
    }
}

/// The ffmpeg to use for this wish, and what it was chosen from; nothing where it was named, or only one is there. What is known already
/// stands in `kept`, and is written there where this server may: `writes`.
pub async fn choose(spawner: &Spawner, asked: &Path, kept: &Path, writes: bool) -> (PathBuf, Choice) {
    let files = if asked == Path::new("ffmpeg") { files() } else { Vec::new() };
    let unlooked = |path: &Path| (path.to_owned(), Choice::default());
    match files.as_slice() {
        [] => return unlooked(asked),
        [(only, _)] => return unlooked(if file_of(asked).is_some() { asked } else { only }),
        _ => {}
    }
    let choice = match read(kept).filter(|choice| choice.is_of(&files)) {
        Some(known) => known,
        None => {
            let wait = if writes { WAIT } else { PATIENT };
            let Ok(found) = timeout(wait, look(spawner, files)).await else { return unlooked(asked) };
            if writes {
                write(kept, &found);
            }
            found
        }
    };
    let best = choice.best().map_or_else(|| asked.to_owned(), |best| best.path.clone());
    (best, choice)
}

fn read(kept: &Path) -> Option<Choice> {
    serde_json::from_slice(&std::fs::read(kept).ok()?).ok()
}

fn write(kept: &Path, choice: &Choice) {
    let written = serde_json::to_vec(choice).map_err(std::io::Error::from).and_then(|bytes| write_private(kept, &bytes));
    if let Err(error) = written {
        tracing::warn!(%error, "which ffmpeg is best could not be written down");
    }
}

async fn look(spawner: &Spawner, files: Vec<(PathBuf, String)>) -> Choice {
    let mut found = Vec::new();
    // One after the other: what is measured is time.
    for (path, stamp) in files {
        let runs = matches!(program(spawner, &path).await.state, ProgramState::Runs { version, .. } if !is_too_old(&version));
        let listed = if runs { parts(spawner, &path).await.ok() } else { None };
        let starts_in = match &listed {
            Some(_) => start_time(spawner, &path).await.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            None => None,
        };
        let lacks = listed.as_ref().map(lacking).unwrap_or_default();
        tracing::debug!(path = %path.display(), ?starts_in, ?lacks, "an ffmpeg was looked at");
        found.push(Found { path, stamp, starts_in, lacks });
    }
    Choice { found }
}

/// What it lacks of all that films could need on this machine.
fn lacking(parts: &Parts) -> BTreeSet<String> {
    let has = |name: &str| parts.encoders.contains(name) || parts.filters.contains(name);
    let candidates = trial::devices().candidates(Wanted::Auto);
    let silicon = candidates.iter().map(|silicon| silicon.family().codec());
    let made = NEEDED.into_iter().chain(silicon).filter(|name| !has(name)).map(str::to_owned);
    let opened = DEMUXERS.split(',').filter(|name| !parts.demuxers.contains(*name)).map(|name| format!("{name} files"));
    let decoded = CODECS.iter().filter(|(_, decoders)| !decoders.iter().any(|name| parts.decoders.contains(*name)));
    made.chain(opened).chain(decoded.map(|(name, _)| (*name).to_owned())).collect()
}

/// The programs of this machine, each once, in the order in which they would be taken.
fn files() -> Vec<(PathBuf, String)> {
    let own = std::env::current_exe().ok().and_then(|file| Some(file.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain(std::env::split_paths(&path)).chain(FOLDERS.map(PathBuf::from));
    in_folders(folders)
}

fn in_folders(folders: impl Iterator<Item = PathBuf>) -> Vec<(PathBuf, String)> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for folder in folders.filter(|folder| folder.is_absolute()) {
        let Some((file, stamp)) = program_in(&folder) else { continue };
        if found.len() < MOST && found.iter().all(|(before, _)| *before != file) {
            found.push((file, stamp));
        }
    }
    found
}

/// The file behind all links, and by what it is known again. A wrapper that goes by its own name (`busybox`, `snap`) is left out: behind
/// its link lies another program.
fn program_in(folder: &Path) -> Option<(PathBuf, String)> {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join("ffmpeg").canonicalize().ok()?;
    let metadata = file.metadata().ok()?;
    let named = file.file_name().is_some_and(|name: &OsStr| name.to_string_lossy().starts_with("ffmpeg"));
    let changed = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    (named && is_program).then(|| (file, format!("{} {}", metadata.len(), changed.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, starts_in: Option<u64>, lacks: &str) -> Found {
        let lacks = lacks.split_whitespace().map(str::to_owned).collect();
        Found { path: name.into(), stamp: String::new(), starts_in, lacks }
    }

    #[test]
    fn the_quickest_that_lacks_nothing_more() {
        let table = [
            (vec![], None),
            (vec![found("old", None, "")], None),
            (vec![found("a", Some(90), ""), found("b", Some(15), "")], Some("b")),
            // Its own order counts where they are alike.
            (vec![found("a", Some(20), ""), found("b", Some(15), "")], Some("a")),
            (vec![found("a", Some(90), ""), found("b", Some(15), "zscale")], Some("a")),
            (vec![found("a", Some(90), "zscale subtitles"), found("b", Some(15), "zscale")], Some("b")),
            (vec![found("a", Some(15), "zscale"), found("b", Some(90), "")], Some("b")),
            (vec![found("a", Some(90), "zscale"), found("b", Some(15), "subtitles")], Some("a")),
            (vec![found("old", None, ""), found("b", Some(90), "zscale"), found("c", Some(14), "zscale")], Some("c")),
        ];
        for (all, best) in table {
            let choice = Choice { found: all };
            assert_eq!(choice.best().map(|found| found.path.display().to_string()).as_deref(), best, "{choice:?}");
        }
    }

    #[test]
    fn each_program_is_found_once() {
        use std::os::unix::fs::PermissionsExt;
        let house = tempfile::tempdir().expect("a folder");
        let root = house.path().canonicalize().expect("a path");
        let make = |name: &str, mode: u32| {
            let file = root.join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(&file, "x").expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
        };
        make("a/ffmpeg", 0o755);
        make("b/ffmpeg-7", 0o755);
        make("c/ffmpeg", 0o644);
        make("d/busybox", 0o755);
        for (folder, target) in [("b", "ffmpeg-7"), ("e", "../a/ffmpeg"), ("d", "busybox")] {
            std::fs::create_dir_all(root.join(folder)).expect("made");
            std::os::unix::fs::symlink(target, root.join(folder).join("ffmpeg")).expect("linked");
        }
        let folders = ["c", "d", "e", "b", "a", "none"].map(|folder| root.join(folder));
        let files: Vec<_> = in_folders(folders.into_iter().chain([PathBuf::from("relative")])).into_iter().map(|(file, _)| file).collect();
        assert_eq!(files, [root.join("a/ffmpeg"), root.join("b/ffmpeg-7")]);
    }
}
