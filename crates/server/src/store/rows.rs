//! The rows, as the program sees them, and the statements that write and read them.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, params};

use super::StoreError;

/// A stream as it is kept: what is needed to bring it back, and the last words about it.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRow {
    /// Its id in the API.
    pub id: String,
    /// The device that started it.
    pub device: String,
    /// The person whose stream it is.
    pub person: String,
    /// Info hash of its torrent, 40 hex digits in lower case.
    pub info_hash: String,
    /// The magnet in its normal form.
    pub magnet: String,
    /// What was asked for at the start (quality, capabilities, …), as JSON.
    pub options: serde_json::Value,
    /// The chosen file, once it is known.
    pub file_index: Option<u32>,
    /// The public status.
    pub status: String,
    /// The public phase.
    pub phase: String,
    /// Why it failed, as JSON.
    pub error: Option<serde_json::Value>,
    /// The name of the chosen file.
    pub title: Option<String>,
    /// Where its viewer is, in seconds.
    pub position: f64,
    /// When it was started (kept in milliseconds).
    pub created_at: Timestamp,
    /// When its life ends if nobody watches.
    pub expires_at: Timestamp,
    /// When it was stopped or ended.
    pub stopped_at: Option<Timestamp>,
    /// Number of the key that its tickets are made with.
    pub ticket_key: u16,
    /// What it showed last, as JSON, once its film is known.
    pub view: Option<serde_json::Value>,
}

/// Subtitles that somebody sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtitleRow {
    /// For which stream.
    pub stream: String,
    /// In which order they were sent, from 0.
    pub number: u32,
    /// What the file was.
    pub format: String,
    /// BCP 47, or `und`.
    pub language: String,
    /// For people.
    pub title: String,
    /// Only what is foreign in the film.
    pub forced: bool,
    /// WebVTT.
    pub text: String,
}

/// A person as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRow {
    /// Its id in the API.
    pub id: String,
    /// For people.
    pub name: String,
    /// When it was first met (kept in milliseconds).
    pub created_at: Timestamp,
}

/// A device as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id in the API.
    pub id: String,
    /// Whose it is.
    pub person: String,
    /// For people.
    pub name: String,
    /// What it says it is.
    pub platform: String,
    /// SHA-256 of its token; `None` for the owner's own record, whose token is a file.
    pub token_hash: Option<[u8; 32]>,
    /// Whether it has the owner's scope.
    pub admin: bool,
    /// When it was paired (kept in milliseconds).
    pub created_at: Timestamp,
    /// When it last asked for something.
    pub last_seen_at: Option<Timestamp>,
    /// From where.
    pub last_address: Option<IpAddr>,
}

/// A torrent as it is kept, shared by its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentRow {
    /// 40 hex digits in lower case.
    pub info_hash: String,
    /// Its name, once it is known.
    pub name: Option<String>,
    /// Addresses of its trackers.
    pub trackers: Vec<String>,
    /// Peers to begin with: those of the magnet and those that had something.
    pub peers: Vec<SocketAddr>,
    /// The files that are fetched.
    pub selected: Vec<u32>,
}

/// A film that a person has watched, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct FilmRow {
    /// Who watched it.
    pub person: String,
    /// Info hash of its torrent, 40 hex digits in lower case.
    pub info_hash: String,
    /// Which file of the torrent it is.
    pub file_index: u32,
    /// Name of that file.
    pub title: String,
    /// The magnet in its normal form.
    pub magnet: String,
    /// Seconds, where they are known.
    pub duration: Option<f64>,
    /// Where its viewer was, in seconds.
    pub position: f64,
    /// The device that watched it last.
    pub device: Option<String>,
    /// When that was (kept in milliseconds).
    pub updated_at: Timestamp,
}

/// A stream whose device or person is gone is over, and is not written down: it must not come back.
pub(super) fn save_stream(connection: &Connection, row: &StreamRow) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO streams (id, device, person, info_hash, magnet, options, file_index, status, phase, error, title,
                              position, created_at, expires_at, stopped_at, ticket_key, view)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17
          WHERE EXISTS (SELECT 1 FROM devices WHERE id = ?2) AND EXISTS (SELECT 1 FROM people WHERE id = ?3)
         ON CONFLICT (id) DO UPDATE SET
            device = ?2, person = ?3, info_hash = ?4, magnet = ?5, options = ?6, file_index = ?7, status = ?8, phase = ?9,
            error = ?10, title = ?11, position = ?12, created_at = ?13, expires_at = ?14, stopped_at = ?15,
            ticket_key = ?16, view = ?17",
    )?;
    let written = statement.execute(params![
        row.id,
        row.device,
        row.person,
        row.info_hash,
        row.magnet,
        row.options.to_string(),
        row.file_index,
        row.status,
        row.phase,
        row.error.as_ref().map(ToString::to_string),
        row.title,
        row.position,
        row.created_at.as_millisecond(),
        row.expires_at.as_millisecond(),
        row.stopped_at.map(Timestamp::as_millisecond),
        row.ticket_key,
        row.view.as_ref().map(ToString::to_string),
    ])?;
    Ok(written > 0)
}

pub(super) fn streams(connection: &Connection) -> Result<Vec<StreamRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM streams ORDER BY created_at, id")?;
    let rows = statement.query_map([], stream)?;
    rows.collect::<Result<_, _>>().map_err(|error| unreadable("streams", error))
}

fn stream(row: &Row<'_>) -> rusqlite::Result<StreamRow> {
    Ok(StreamRow {
        id: row.get("id")?,
        device: row.get("device")?,
        person: row.get("person")?,
        info_hash: row.get("info_hash")?,
        magnet: row.get("magnet")?,
        options: json(row, "options")?,
        file_index: row.get("file_index")?,
        status: row.get("status")?,
        phase: row.get("phase")?,
        error: json_or_none(row, "error")?,
        title: row.get("title")?,
        position: row.get("position")?,
        created_at: time(row.get("created_at")?)?,
        expires_at: time(row.get("expires_at")?)?,
        stopped_at: row.get::<_, Option<i64>>("stopped_at")?.map(time).transpose()?,
        ticket_key: row.get("ticket_key")?,
        view: json_or_none(row, "view")?,
    })
}

pub(super) fn save_torrent(connection: &Connection, row: &TorrentRow) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO torrents (info_hash, name, trackers, peers, selected) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (info_hash) DO UPDATE SET name = ?2, trackers = ?3, peers = ?4, selected = ?5",
    )?;
    let (trackers, peers) = (serde_json::json!(row.trackers).to_string(), serde_json::json!(row.peers).to_string());
    statement.execute(params![row.info_hash, row.name, trackers, peers, serde_json::json!(row.selected).to_string()])?;
    Ok(())
}

pub(super) fn torrents(connection: &Connection) -> Result<Vec<TorrentRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM torrents ORDER BY info_hash")?;
    let rows = statement.query_map([], |row| {
        Ok(TorrentRow {
            info_hash: row.get("info_hash")?,
            name: row.get("name")?,
            trackers: json(row, "trackers")?,
            peers: json(row, "peers")?,
            selected: json(row, "selected")?,
        })
    })?;
    rows.collect::<Result<_, _>>().map_err(|error| unreadable("torrents", error))
}

pub(super) fn people(connection: &Connection) -> Result<Vec<PersonRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM people ORDER BY created_at, id")?;
    let rows = statement
        .query_map([], |row| Ok(PersonRow { id: row.get("id")?, name: row.get("name")?, created_at: time(row.get("created_at")?)? }))?;
    rows.collect::<Result<_, _>>().map_err(|error| unreadable("people", error))
}

pub(super) fn devices(connection: &Connection) -> Result<Vec<DeviceRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM devices ORDER BY created_at, id")?;
    let rows = statement.query_map([], device)?;
    rows.collect::<Result<_, _>>().map_err(|error| unreadable("devices", error))
}

fn device(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    Ok(DeviceRow {
        id: row.get("id")?,
        person: row.get("person")?,
        name: row.get("name")?,
        platform: row.get("platform")?,
        token_hash: row.get("token_hash")?,
        admin: row.get("admin")?,
        created_at: time(row.get("created_at")?)?,
        last_seen_at: row.get::<_, Option<i64>>("last_seen_at")?.map(time).transpose()?,
        // Only shown: one that cannot be read is none.
        last_address: row.get::<_, Option<String>>("last_address")?.and_then(|address| address.parse().ok()),
    })
}

/// A person that is there already stays as it is.
pub(super) fn add_person(connection: &Connection, row: &PersonRow) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare_cached("INSERT INTO people (id, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING")?;
    statement.execute(params![row.id, row.name, row.created_at.as_millisecond()])?;
    Ok(())
}

pub(super) fn add_device(transaction: &Transaction<'_>, row: &DeviceRow) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO devices (id, person, name, platform, token_hash, admin, created_at, last_seen_at, last_address)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        row.id,
        row.person,
        row.name,
        row.platform,
        row.token_hash,
        row.admin,
        row.created_at.as_millisecond(),
        row.last_seen_at.map(Timestamp::as_millisecond),
        row.last_address.map(|address| address.to_string()),
    ])?;
    Ok(())
}

/// What of a device changes. One that is gone stays gone.
pub(super) fn change_device(connection: &Connection, row: &DeviceRow) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached("UPDATE devices SET person = ?2, name = ?3, admin = ?4, last_seen_at = ?5, last_address = ?6 WHERE id = ?1")?;
    let seen = (row.last_seen_at.map(Timestamp::as_millisecond), row.last_address.map(|address| address.to_string()));
    statement.execute(params![row.id, row.person, row.name, row.admin, seen.0, seen.1])?;
    Ok(())
}

pub(super) fn history(connection: &Connection) -> Result<Vec<FilmRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM history ORDER BY person, updated_at, info_hash, file_index")?;
    let rows = statement.query_map([], |row| {
        Ok(FilmRow {
            person: row.get("person")?,
            info_hash: row.get("info_hash")?,
            file_index: row.get("file_index")?,
            title: row.get("title")?,
            magnet: row.get("magnet")?,
            duration: row.get("duration")?,
            position: row.get("position")?,
            device: row.get("device")?,
            updated_at: time(row.get("updated_at")?)?,
        })
    })?;
    rows.collect::<Result<_, _>>().map_err(|error| unreadable("history", error))
}

/// What a person who is gone has watched is not written down.
pub(super) fn save_film(connection: &Connection, row: &FilmRow) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO history (person, info_hash, file_index, title, magnet, duration, position, device, updated_at)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE EXISTS (SELECT 1 FROM people WHERE id = ?1)
         ON CONFLICT (person, info_hash, file_index) DO UPDATE SET
            title = ?4, magnet = ?5, duration = ?6, position = ?7, device = ?8, updated_at = ?9",
    )?;
    statement.execute(params![
        row.person,
        row.info_hash,
        row.file_index,
        row.title,
        row.magnet,
        row.duration,
        row.position,
        row.device,
        row.updated_at.as_millisecond(),
    ])?;
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn json_or_none(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<serde_json::Value>> {
    match row.get_ref(column)?.data_type() {
        Type::Null => Ok(None),
        _ => json(row, column).map(Some),
    }
}

fn time(milliseconds: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Integer, Box::new(error)))
}

fn unreadable(table: &'static str, error: rusqlite::Error) -> StoreError {
    match error {
        rusqlite::Error::FromSqlConversionFailure(_, _, reason) => StoreError::Row { table, reason: reason.to_string() },
        other => other.into(),
    }
}

pub(super) fn save_subtitle(connection: &Connection, row: &SubtitleRow) -> rusqlite::Result<()> {
    let write = "INSERT INTO subtitles (stream, number, format, language, title, forced, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.execute(write, params![row.stream, row.number, row.format, row.language, row.title, row.forced, row.text])?;
    Ok(())
}

/// Gives a stream that has none those of its person's newest other stream of the same file.
pub(super) fn inherit_subtitles(connection: &Connection, stream: &str, file: u32) -> rusqlite::Result<()> {
    let write = "INSERT INTO subtitles (stream, number, format, language, title, forced, text)
        SELECT ?1, number, format, language, title, forced, text FROM subtitles
        WHERE NOT EXISTS (SELECT 1 FROM subtitles WHERE stream = ?1) AND stream = (
            SELECT other.id FROM streams AS mine JOIN streams AS other USING (person, info_hash)
            WHERE mine.id = ?1 AND other.id <> ?1 AND other.file_index = ?2 AND other.id IN (SELECT stream FROM subtitles)
            ORDER BY other.created_at DESC LIMIT 1)";
    connection.execute(write, params![stream, file])?;
    Ok(())
}

pub(super) fn subtitles(connection: &Connection, stream: &str) -> rusqlite::Result<Vec<SubtitleRow>> {
    let read = "SELECT number, format, language, title, forced, text FROM subtitles WHERE stream = ?1 ORDER BY number";
    let mut statement = connection.prepare_cached(read)?;
    let rows = statement.query_map([stream], |row| {
        Ok(SubtitleRow {
            stream: stream.to_owned(),
            number: row.get(0)?,
            format: row.get(1)?,
            language: row.get(2)?,
            title: row.get(3)?,
            forced: row.get(4)?,
            text: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// Names of all tables and how many rows each has.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let rows = |name: String| {
        let count: i64 = connection.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0))?;
        Ok((name, u64::try_from(count).unwrap_or(0)))
    };
    names.into_iter().map(rows).collect()
}
