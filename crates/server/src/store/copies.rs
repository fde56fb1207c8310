//! Copies of the database that lie beside it, and what becomes of one that is broken.
//!
//! A copy is made before every change of the layout, and once a day. A broken database is set aside under a name of its own and never
//! deleted for it; the newest copy that holds together takes its place. Whoever was forgotten on purpose must not come back with an older
//! copy: after each such forgetting the copies are made anew ([`renew`]).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use super::{Soundness, StoreError, examine};

/// How many copies are kept, and how many broken databases.
const KEPT: usize = 3;
/// How old the newest copy may become.
const AGE: Duration = Duration::from_secs(24 * 3600);

const COPY: &str = ".copy-";
const BROKEN: &str = ".broken-";

/// What became of a database that was broken when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescue {
    /// Where the broken one lies now.
    pub aside: PathBuf,
    /// What was wrong with it, in SQLite's words.
    pub reason: String,
    /// From when the copy is that took its place; `None` where none was to be had, and so everything begins anew.
    pub copy_of: Option<Timestamp>,
}

/// The copies of a database with the time at which each was made, the newest first.
pub(super) fn all(path: &Path) -> Vec<(Timestamp, PathBuf)> {
    named(path, COPY)
}

/// Databases that were set aside, the newest first.
pub fn set_aside_before(path: &Path) -> Vec<(Timestamp, PathBuf)> {
    named(path, BROKEN)
}

/// Files beside the database with this in their names and a time in milliseconds behind it.
fn named(path: &Path, mark: &str) -> Vec<(Timestamp, PathBuf)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return Vec::new() };
    let begin = format!("{name}{mark}");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let at = entry.file_name().to_str()?.strip_prefix(&begin)?.parse().ok()?;
            Some((Timestamp::from_millisecond(at).ok()?, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Makes a copy: written aside, on the disk before it has its name. The oldest ones give way.
pub(super) fn make(connection: &Connection, path: &Path) -> Result<PathBuf, StoreError> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        kind => StoreError::Unopenable { path: path.to_owned(), reason: format!("no copy of it can be made: {kind}") },
    };
    let aside = beside(path, ".copying");
    // One of an earlier run that was cut off; SQLite writes into none that is there.
    let _ = std::fs::remove_file(&aside);
    let made = write(connection, &aside).and_then(|()| {
        // In one folder no two have one name, whatever the clock does.
        let newest = all(path).first().map_or(i64::MIN, |(at, _)| at.as_millisecond());
        let copy = beside(path, &format!("{COPY}{}", Timestamp::now().as_millisecond().max(newest.saturating_add(1))));
        std::fs::rename(&aside, &copy).and_then(|()| sync_folder(path)).map_err(told)?;
        Ok(copy)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    let copy = made?;
    forget_older(path, COPY, KEPT);
    Ok(copy)
}

fn write(connection: &Connection, aside: &Path) -> Result<(), StoreError> {
    let told = |error: io::Error| StoreError::Unopenable { path: aside.to_owned(), reason: error.kind().to_string() };
    let name = aside.to_str().ok_or_else(|| told(io::ErrorKind::InvalidFilename.into()))?;
    // Whole and consistent, whatever is written meanwhile; what was deleted is not in it.
    connection.execute("VACUUM INTO ?1", [name])?;
    crate::trust::close_to_others(aside).map_err(told)?;
    // SQLite does not sync what VACUUM INTO writes.
    File::options().write(true).open(aside).and_then(|file| file.sync_all()).map_err(told)
}

/// Makes a copy where the newest one is too old.
pub(super) fn make_if_due(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let newest = all(path).first().map(|(at, _)| *at);
    let age = newest.map(|at| Timestamp::now().duration_since(at));
    // One from the future counts for nothing: the clock was wrong then or is now.
    let is_fresh = age.and_then(|age| Duration::try_from(age).ok()).is_some_and(|age| age < AGE);
    if !is_fresh {
        make(connection, path)?;
    }
    Ok(())
}

/// Somebody or something was forgotten on purpose: copies in which it still stands give way to a new one, and to none if that cannot be made.
pub(super) fn renew(connection: &Connection, path: &Path) {
    let older = all(path);
    if older.is_empty() {
        return;
    }
    if let Err(error) = make(connection, path) {
        tracing::warn!(%error, "there is no copy of the database for now");
    }
    for (_, copy) in older {
        let _ = std::fs::remove_file(copy);
    }
}

/// Sets a broken database aside with its journal, and puts the newest copy in its place that holds together, if there is one.
pub(super) fn rescue(path: &Path, reason: &str) -> io::Result<Rescue> {
    let newest = set_aside_before(path).first().map_or(i64::MIN, |(at, _)| at.as_millisecond());
    let aside = beside(path, &format!("{BROKEN}{}", Timestamp::now().as_millisecond().max(newest.saturating_add(1))));
    std::fs::rename(path, &aside)?;
    // The newest writes may stand in the journal alone; the other file only says how it is read.
    match std::fs::rename(beside(path, "-wal"), beside(&aside, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let _ = std::fs::remove_file(beside(path, "-shm"));
    sync_folder(path)?;
    let good = all(path).into_iter().find(|(_, copy)| matches!(examine(copy), Soundness::Sound { .. }));
    if let Some((_, copy)) = &good {
        put_back(copy, path)?;
    }
    for (_, older) in set_aside_before(path).into_iter().skip(KEPT) {
        let _ = std::fs::remove_file(beside(&older, "-wal"));
        let _ = std::fs::remove_file(older);
    }
    Ok(Rescue { aside, reason: reason.to_owned(), copy_of: good.map(|(at, _)| at) })
}

/// The copy stays: what takes its place may break too.
fn put_back(copy: &Path, path: &Path) -> io::Result<()> {
    let aside = beside(path, ".copying");
    std::fs::copy(copy, &aside)?;
    crate::trust::close_to_others(&aside)?;
    File::options().write(true).open(&aside)?.sync_all()?;
    std::fs::rename(&aside, path)?;
    sync_folder(path)
}

fn forget_older(path: &Path, mark: &str, kept: usize) {
    for (_, older) in named(path, mark).into_iter().skip(kept) {
        let _ = std::fs::remove_file(older);
    }
}

/// A rename is on the disk when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
