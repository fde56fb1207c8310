//! The layout of the database, as the steps that lead to it. A step that was released is never changed.

use rusqlite_migration::{M, Migrations};

/// The number of steps: what `user_version` says once all are done.
pub(super) const LATEST: i64 = 5;

/// Every step, in order.
pub(super) fn all() -> Migrations<'static> {
    Migrations::new(vec![M::up(FIRST), M::up(DEVICES), M::up(HISTORY), M::up(VIEWS), M::up(SUBTITLES)])
}

/// Times are milliseconds since 1970 (UTC); JSON stands in columns whose inside is never asked for.
const FIRST: &str = "
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE people (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    admin      INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
    id           TEXT PRIMARY KEY,
    person       TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    platform     TEXT NOT NULL,
    -- SHA-256 of the token; NULL for the owner, whose token is a file.
    token_hash   BLOB UNIQUE,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER,
    last_address TEXT
) STRICT;

CREATE TABLE streams (
    id         TEXT PRIMARY KEY,
    device     TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    person     TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    info_hash  TEXT NOT NULL,
    magnet     TEXT NOT NULL,
    options    TEXT NOT NULL,
    file_index INTEGER,
    status     TEXT NOT NULL,
    phase      TEXT NOT NULL,
    error      TEXT,
    title      TEXT,
    position   REAL NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    stopped_at INTEGER
) STRICT;
CREATE INDEX streams_by_torrent ON streams (info_hash);

CREATE TABLE torrents (
    info_hash TEXT PRIMARY KEY,
    name      TEXT,
    trackers  TEXT NOT NULL,
    peers     TEXT NOT NULL,
    selected  TEXT NOT NULL
) STRICT;

INSERT INTO people (id, name, admin, created_at) VALUES ('owner', 'Owner', 1, unixepoch() * 1000);
INSERT INTO devices (id, person, name, platform, created_at) VALUES ('owner', 'owner', 'This machine', 'server', unixepoch() * 1000);
";

/// The owner's scope belongs to a device and not to a person; a stream keeps the key that its addresses were made with.
const DEVICES: &str = "
ALTER TABLE devices ADD COLUMN admin INTEGER NOT NULL DEFAULT 0;
UPDATE devices SET admin = 1 WHERE id = 'owner';
ALTER TABLE streams ADD COLUMN ticket_key INTEGER NOT NULL DEFAULT 1;
CREATE INDEX streams_by_device ON streams (device);
CREATE INDEX streams_by_person ON streams (person);
CREATE INDEX devices_by_person ON devices (person);
";

/// What a person has watched, whatever became of the stream; and when the person was told whose server this is.
const HISTORY: &str = "
CREATE TABLE history (
    person     TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    info_hash  TEXT NOT NULL,
    file_index INTEGER NOT NULL,
    title      TEXT NOT NULL,
    magnet     TEXT NOT NULL,
    duration   REAL,
    position   REAL NOT NULL,
    -- The device that watched last. It may be gone, or somebody else's by now.
    device     TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (person, info_hash, file_index)
) STRICT, WITHOUT ROWID;
ALTER TABLE people ADD COLUMN notice_seen_at INTEGER;
";

/// What a stream that is ready showed last, as JSON: it comes back with it before its film is opened again.
const VIEWS: &str = "
ALTER TABLE streams ADD COLUMN view TEXT;
";

/// Subtitles that somebody sent for a stream, as WebVTT; they go with it.
const SUBTITLES: &str = "
CREATE TABLE subtitles (
    stream   TEXT NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    format   TEXT NOT NULL,
    language TEXT NOT NULL,
    title    TEXT NOT NULL,
    forced   INTEGER NOT NULL,
    text     TEXT NOT NULL,
    PRIMARY KEY (stream, number)
) STRICT;
";

/// The database as the first version of the program made it.
#[cfg(test)]
pub(super) fn first_only() -> Migrations<'static> {
    Migrations::new(vec![M::up(FIRST)])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_steps_are_valid() {
        super::all().validate().expect("valid");
        let mut connection = rusqlite::Connection::open_in_memory().expect("opened");
        super::all().to_latest(&mut connection).expect("made");
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("read");
        assert_eq!(version, super::LATEST);
    }
}
