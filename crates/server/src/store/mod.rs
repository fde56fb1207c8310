//! What has to survive a restart, in one SQLite file. The only folder that names rusqlite.
//!
//! One thread owns the one connection; calls travel to it over a channel and come back when the row is on disk.
//! WAL with `synchronous = FULL`: what was answered is there after a `kill -9` and after a power cut. Writes are few
//! (a stream is born, changes its phase, ends), so that the sync costs nothing that anyone notices. Numbers that
//! move all the time (bytes, speeds) are not kept here. `synchronous = NORMAL` would be quicker and lose the last writes at a power cut: a
//! phone that was just revoked would be let in again. What becomes of a file that is broken all the same: [`copies`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

mod copies;
mod migrations;
mod rows;

pub use copies::{Rescue, set_aside_before};
pub use rows::{DeviceRow, FilmRow, PersonRow, StreamRow, SubtitleRow, TorrentRow};

/// How often it is looked whether a copy is due.
const COPY_PACE: Duration = Duration::from_secs(3600);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is no database, or a damaged one.
    #[error("the database {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The database was written by a newer program.
    #[error("the database {} belongs to a newer version of this program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or made.
    #[error("the database {} cannot be opened: {reason}", path.display())]
    Unopenable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// No space is left on the disk.
    #[error("there is no space left for the database")]
    Full,
    /// A row holds what this program never wrote.
    #[error("a row of the table {table} cannot be read: {reason}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The store was closed, or its thread ended.
    #[error("the database is closed")]
    Closed,
    /// Anything else that SQLite reports.
    #[error("the database reports: {0}")]
    Sqlite(String),
}

/// How a database file is, looked at from beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// It is not there.
    Absent,
    /// It holds together.
    Sound {
        /// The newest time in it.
        newest: Option<jiff::Timestamp>,
    },
    /// It does not, in SQLite's words.
    Damaged(String),
    /// A newer program wrote it.
    Newer,
    /// It cannot be opened or read.
    Unreadable(String),
}

/// Looks at a database file without changing anything, whether a server has it open or not. Blocks.
pub fn examine(path: &Path) -> Soundness {
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Soundness::Absent,
        Err(error) => return Soundness::Unreadable(error.kind().to_string()),
    }
    match look_at(path) {
        Ok(soundness) => soundness,
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Soundness::Damaged(error.to_string()),
            _ => Soundness::Unreadable(error.to_string()),
        },
    }
}

fn look_at(path: &Path) -> rusqlite::Result<Soundness> {
    let url = url::Url::from_file_path(path).map_err(|()| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-wal");
    // Without a journal nobody has it open. Opened in the usual way, a journal would be made, and be somebody else's if somebody else looks.
    let how = if Path::new(&journal).exists() { "ro" } else { "ro&immutable=1" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("{url}?mode={how}"), flags)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Soundness::Damaged(verdict));
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > migrations::LATEST {
        return Ok(Soundness::Newer);
    }
    let newest = "SELECT max(at) FROM (SELECT max(created_at) AS at FROM streams UNION ALL SELECT max(last_seen_at) FROM devices
                  UNION ALL SELECT max(created_at) FROM people)";
    let newest: Option<i64> = if version == 0 { None } else { connection.query_row(newest, [], |row| row.get(0))? };
    Ok(Soundness::Sound { newest: newest.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()) })
}

type Command = Box<dyn FnOnce(&mut Connection) + Send>;

/// The handle of the database. Share it in an `Arc`; dropping it closes the file in order.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    rescue: Option<Rescue>,
}

impl Store {
    /// Opens the database, or makes it (mode 0600), and brings it to the newest layout. One that is broken is set aside, and the newest
    /// copy that holds together takes its place ([`Store::rescue`]). Blocks; for start-up.
    ///
    /// # Errors
    /// A sentence that says which file is unusable and why.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (mut connection, rescue) = match connect(path) {
            Err(StoreError::Damaged { reason, .. }) => {
                let unopenable = |error: io::Error| StoreError::Unopenable { path: path.to_owned(), reason: error.to_string() };
                let rescue = copies::rescue(path, &reason).map_err(unopenable)?;
                (connect(path)?, Some(rescue))
            }
            opened => (opened?, None),
        };
        let (commands, inbox) = mpsc::channel::<Command>();
        let work = move || {
            for command in inbox {
                command(&mut connection);
            }
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(work);
        let thread = thread.map_err(|error| StoreError::Unopenable { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { path: path.to_owned(), commands: Some(commands), thread: Some(thread), rescue })
    }

    /// What became of a broken database when this was opened.
    pub fn rescue(&self) -> Option<&Rescue> {
        self.rescue.as_ref()
    }

    /// Makes a copy once a day, beginning now, until it is told to stop.
    pub async fn tend_copies(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let path = self.path.clone();
            if let Err(error) = self.ask(move |connection| copies::make_if_due(connection, &path)).await {
                tracing::warn!(%error, "the database was not copied");
            }
            if tokio::time::timeout(COPY_PACE, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// Whether it could be written now. Nothing is.
    ///
    /// # Errors
    /// Why not.
    pub async fn writable(&self) -> Result<(), StoreError> {
        self.ask(|connection| Ok(connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?)).await
    }

    /// How many rows each table has.
    pub async fn rows(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.ask(|connection| Ok(rows::count(connection)?)).await
    }

    /// Sends a question to the store's thread at once; the answer is waited for apart. Questions are answered in the order in which they
    /// were asked, whoever waits first.
    fn ask<T, F>(&self, question: F) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, heard) = oneshot::channel();
        let command: Command = Box::new(move |connection: &mut Connection| {
            // Whoever asked may have gone away; the write counts all the same.
            let _ = answer.send(question(connection));
        });
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        async move { if sent { heard.await.map_err(|_| StoreError::Closed)? } else { Err(StoreError::Closed) } }
    }

    /// Writes a stream, new or changed; on disk when this returns. `false`: its device or its person is gone, so it was not written.
    pub async fn save_stream(&self, row: &StreamRow) -> Result<bool, StoreError> {
        let row = row.clone();
        self.ask(move |connection| rows::save_stream(connection, &row)).await
    }

    /// All streams, the oldest first.
    pub async fn streams(&self) -> Result<Vec<StreamRow>, StoreError> {
        self.ask(|connection| rows::streams(connection)).await
    }

    /// Forgets a stream. Answers whether it was there.
    pub async fn delete_stream(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.ask(move |connection| Ok(connection.execute("DELETE FROM streams WHERE id = ?1", [id])? > 0)).await
    }

    /// Writes subtitles that somebody sent for a stream that is written down; on disk when this returns.
    pub async fn save_subtitle(&self, row: SubtitleRow) -> Result<(), StoreError> {
        self.ask(move |connection| Ok(rows::save_subtitle(connection, &row)?)).await
    }

    /// The subtitles that were sent for a stream of the `file`th file, in that order. Where none were sent, those that its person sent for
    /// another stream of the same file become its own too: who takes another quality keeps them.
    pub async fn subtitles(&self, stream: &str, file: usize) -> Result<Vec<SubtitleRow>, StoreError> {
        let stream = stream.to_owned();
        let read = move |connection: &mut Connection| {
            rows::inherit_subtitles(connection, &stream, u32::try_from(file).unwrap_or(u32::MAX))?;
            Ok(rows::subtitles(connection, &stream)?)
        };
        self.ask(read).await
    }

    /// Writes a torrent, new or changed; on disk when this returns.
    pub async fn save_torrent(&self, row: &TorrentRow) -> Result<(), StoreError> {
        let row = row.clone();
        self.ask(move |connection| rows::save_torrent(connection, &row)).await
    }

    /// All torrents.
    pub async fn torrents(&self) -> Result<Vec<TorrentRow>, StoreError> {
        self.ask(|connection| rows::torrents(connection)).await
    }

    /// Forgets a torrent. Answers whether it was there.
    pub async fn delete_torrent(&self, info_hash: &str) -> Result<bool, StoreError> {
        let hash = info_hash.to_owned();
        self.ask(move |connection| Ok(connection.execute("DELETE FROM torrents WHERE info_hash = ?1", [hash])? > 0)).await
    }

    /// Forgets many streams in one go.
    pub async fn delete_streams(&self, ids: Vec<String>) -> Result<(), StoreError> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            for id in &ids {
                transaction.prepare_cached("DELETE FROM streams WHERE id = ?1")?.execute([id])?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Forgets many torrents in one go.
    pub async fn delete_torrents(&self, info_hashes: Vec<String>) -> Result<(), StoreError> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            for hash in &info_hashes {
                transaction.prepare_cached("DELETE FROM torrents WHERE info_hash = ?1")?.execute([hash])?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// All people, the oldest first. Those of whom nothing is left, neither device nor stream nor a film that they watched, are forgotten
    /// before: who has lost the only phone finds the history by the next one.
    pub fn people(&self) -> impl Future<Output = Result<Vec<PersonRow>, StoreError>> + Send + use<> {
        self.ask(|connection| {
            connection.execute(
                "DELETE FROM people WHERE admin = 0 AND id NOT IN (SELECT person FROM devices) AND id NOT IN (SELECT person FROM streams)
                    AND id NOT IN (SELECT person FROM history)",
                [],
            )?;
            rows::people(connection)
        })
    }

    /// All devices, the oldest first.
    pub fn devices(&self) -> impl Future<Output = Result<Vec<DeviceRow>, StoreError>> + Send + use<> {
        self.ask(|connection| rows::devices(connection))
    }

    /// Writes a new device, and its person if that is new too. Asked at once, on disk when the future is done.
    pub fn add_device(&self, person: PersonRow, device: DeviceRow) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            rows::add_person(&transaction, &person)?;
            rows::add_device(&transaction, &device)?;
            Ok(transaction.commit()?)
        })
    }

    /// Writes what changed of devices, with a person of theirs that may be new. Asked at once, on disk when the future is done.
    pub fn change_devices(
        &self,
        person: Option<PersonRow>,
        devices: Vec<DeviceRow>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            if let Some(person) = &person {
                rows::add_person(&transaction, person)?;
            }
            devices.iter().try_for_each(|device| rows::change_device(&transaction, device))?;
            Ok(transaction.commit()?)
        })
    }

    /// Forgets devices, and the streams that only they stand for. Asked at once, on disk when the future is done.
    pub fn delete_devices(&self, ids: Vec<String>) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let path = self.path.clone();
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            for id in &ids {
                transaction.execute("DELETE FROM devices WHERE id = ?1", [id])?;
            }
            transaction.commit()?;
            copies::renew(connection, &path);
            Ok(())
        })
    }

    /// Gives a person another name. Asked at once, on disk when the future is done.
    pub fn rename_person(&self, id: String, name: String) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.ask(move |connection| {
            connection.execute("UPDATE people SET name = ?2 WHERE id = ?1", [id, name])?;
            Ok(())
        })
    }

    /// All that was watched, person by person, what was watched last at the end.
    pub async fn history(&self) -> Result<Vec<FilmRow>, StoreError> {
        self.ask(|connection| rows::history(connection)).await
    }

    /// Writes films that were watched, new or changed. Asked at once, on disk when the future is done.
    pub fn save_films(&self, films: Vec<FilmRow>) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            films.iter().try_for_each(|film| rows::save_film(&transaction, film))?;
            Ok(transaction.commit()?)
        })
    }

    /// Forgets that a person watched these films: info hash and number of the file. Asked at once, on disk when the future is done.
    pub fn delete_films(&self, films: Vec<(String, String, u32)>) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let path = self.path.clone();
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            for film in &films {
                let statement = "DELETE FROM history WHERE person = ?1 AND info_hash = ?2 AND file_index = ?3";
                transaction.prepare_cached(statement)?.execute(rusqlite::params![film.0, film.1, film.2])?;
            }
            transaction.commit()?;
            copies::renew(connection, &path);
            Ok(())
        })
    }

    /// Forgets all that a person watched. Asked at once, on disk when the future is done.
    pub fn delete_history(&self, person: String) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let path = self.path.clone();
        self.ask(move |connection| {
            connection.execute("DELETE FROM history WHERE person = ?1", [person])?;
            copies::renew(connection, &path);
            Ok(())
        })
    }

    /// Whether a person was told whose server this is.
    pub async fn notice_seen(&self, person: String) -> Result<bool, StoreError> {
        let read = "SELECT notice_seen_at IS NOT NULL FROM people WHERE id = ?1";
        self.ask(move |connection| Ok(connection.query_row(read, [person], |row| row.get(0)).optional()?.unwrap_or(false))).await
    }

    /// A person was told so at this time, or has to be told again.
    pub async fn set_notice_seen(&self, person: String, at: Option<jiff::Timestamp>) -> Result<(), StoreError> {
        self.ask(move |connection| {
            let at = at.map(jiff::Timestamp::as_millisecond);
            connection.execute("UPDATE people SET notice_seen_at = ?2 WHERE id = ?1", rusqlite::params![person, at])?;
            Ok(())
        })
        .await
    }

    /// A fact that is decided once: reads it, or writes `fresh` where there is none (a server id, "notice shown").
    /// Answers the value and whether it is new.
    pub async fn fact(&self, name: &'static str, fresh: String) -> Result<(String, bool), StoreError> {
        self.ask(move |connection| {
            let read = "SELECT value FROM facts WHERE name = ?1";
            let known = connection.query_row(read, [name], |row| row.get(0)).optional()?;
            if let Some(value) = known {
                return Ok((value, false));
            }
            connection.execute("INSERT INTO facts (name, value) VALUES (?1, ?2)", [name, fresh.as_str()])?;
            Ok((fresh, true))
        })
        .await
    }

    /// Writes a fact that may change. Sent at once: the one that is asked for last is the one that stays.
    pub fn set_fact(&self, name: &'static str, value: String) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.ask(move |connection| {
            let write = "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            connection.execute(write, [name, value.as_str()])?;
            Ok(())
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.commands.take();
        if let Some(thread) = self.thread.take() {
            // What was sent is written first. The thread cannot panic but by a defect of a question.
            let _ = thread.join();
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite(error.to_string()),
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Whoever moves it away wants to begin anew.
    let was_there = path.exists();
    let unopenable = |reason: String| StoreError::Unopenable { path: path.to_owned(), reason };
    make_private(path).map_err(|error| unopenable(error.to_string()))?;
    // An empty file would be taken for a new database. Where copies are, there was one.
    let is_empty = std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
    if is_empty && was_there && !copies::all(path).is_empty() {
        return Err(StoreError::Damaged { path: path.to_owned(), reason: "the file is empty".to_owned() });
    }
    let mut connection = Connection::open(path).map_err(|error| unopenable(error.to_string()))?;
    prepare(&mut connection).map_err(|error| told(path, error))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| told(path, error))?;
    if version > 0 && version < migrations::LATEST {
        copies::make(&connection, path)?;
    }
    match migrations::all().to_latest(&mut connection) {
        Ok(()) => Ok(connection),
        Err(rusqlite_migration::Error::MigrationDefinition(rusqlite_migration::MigrationDefinitionError::DatabaseTooFarAhead)) => {
            Err(StoreError::Newer { path: path.to_owned() })
        }
        Err(rusqlite_migration::Error::RusqliteError { err, .. }) => Err(told(path, err)),
        // Not the file's fault: set aside, it would be lost for nothing.
        Err(error) => Err(unopenable(error.to_string())),
    }
}

fn told(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Damaged { path, reason: error.to_string() },
        Some(ErrorCode::DiskFull) => StoreError::Full,
        _ => StoreError::Unopenable { path, reason: error.to_string() },
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(damaged, Some(verdict)))
}

/// The file exists for nobody else before SQLite opens it; its journal files take over its mode.
fn make_private(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    crate::trust::close_to_others(path)
}

#[cfg(test)]
mod tests;
