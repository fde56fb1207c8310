//! The store over real files: what was answered is there, and what is broken is said.

use super::*;
use jiff::Timestamp;
use proptest::prelude::ProptestConfig;
use proptest::test_runner::TestRunner;
use serde_json::json;

fn stream(id: &str, second: i64) -> StreamRow {
    StreamRow {
        id: id.to_owned(),
        device: "owner".to_owned(),
        person: "owner".to_owned(),
        info_hash: "a".repeat(40),
        magnet: "magnet:?xt=urn:btih:a".to_owned(),
        options: json!({"quality": "720p"}),
        file_index: None,
        status: "downloading".to_owned(),
        phase: "metadata".to_owned(),
        error: None,
        title: None,
        position: 0.0,
        created_at: Timestamp::from_second(second).expect("time"),
        expires_at: Timestamp::from_millisecond(second * 1000 + 86_400_123).expect("time"),
        stopped_at: None,
        ticket_key: 1,
        view: None,
    }
}

fn torrent(hash: &str) -> TorrentRow {
    TorrentRow {
        info_hash: hash.to_owned(),
        name: Some("Film 'quoted' ; DROP TABLE".to_owned()),
        trackers: vec!["udp://t.example:1".to_owned()],
        peers: ["127.0.0.1:6881", "[::1]:6882"].map(|p| p.parse().expect("address")).to_vec(),
        selected: vec![0, 7],
    }
}

#[tokio::test]
async fn rows_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("balcony.sqlite");
    let mut second = stream("b", 200);
    let first = stream("a", 100);
    {
        let store = Store::open(&path).expect("opened");
        store.save_stream(&second).await.expect("saved");
        store.save_stream(&first).await.expect("saved");
        second.status = "error".to_owned();
        second.error = Some(json!({"code": "no_peers"}));
        second.file_index = Some(3);
        second.title = Some("Ünïcode.mkv".to_owned());
        second.position = 12.75;
        second.ticket_key = 65_535;
        second.view = Some(json!({"duration": 7200.5, "why": "\"quoted\""}));
        second.stopped_at = Some(Timestamp::from_millisecond(1_234_567_890_123).expect("time"));
        store.save_stream(&second).await.expect("changed");
        store.save_torrent(&torrent("x")).await.expect("saved");
        store.save_torrent(&torrent("y")).await.expect("saved");
    }
    let store = Store::open(&path).expect("opened again");
    assert_eq!(store.streams().await.expect("read"), [first, second.clone()]);
    assert_eq!(store.torrents().await.expect("read"), [torrent("x"), torrent("y")]);
    assert!(store.delete_stream("a").await.expect("deleted"));
    assert!(!store.delete_stream("a").await.expect("was not there"));
    assert!(store.delete_torrent("x").await.expect("deleted"));
    assert_eq!(store.streams().await.expect("read"), [second]);
    assert_eq!(store.torrents().await.expect("read"), [torrent("y")]);
}

#[tokio::test]
async fn a_fact_is_decided_once() {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(&folder.path().join("db")).expect("opened");
    assert_eq!(store.fact("server_id", "one".to_owned()).await.expect("new"), ("one".to_owned(), true));
    assert_eq!(store.fact("server_id", "two".to_owned()).await.expect("known"), ("one".to_owned(), false));
}

fn person(id: &str) -> PersonRow {
    PersonRow { id: id.to_owned(), name: "Anna".to_owned(), created_at: Timestamp::from_second(5).expect("time") }
}

fn device(id: &str, person: &str) -> DeviceRow {
    DeviceRow {
        id: id.to_owned(),
        person: person.to_owned(),
        name: "Phone".to_owned(),
        platform: "ios".to_owned(),
        token_hash: Some(*blake3::hash(id.as_bytes()).as_bytes()),
        admin: false,
        created_at: Timestamp::from_second(6).expect("time"),
        last_seen_at: None,
        last_address: None,
    }
}

#[tokio::test]
async fn a_stream_goes_with_its_device_and_is_not_written_again() {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(&folder.path().join("db")).expect("opened");
    let mut row = StreamRow { device: "phone".to_owned(), person: "anna".to_owned(), ..stream("a", 1) };
    assert!(!store.save_stream(&row).await.expect("left out"));
    store.add_device(person("anna"), device("phone", "anna")).await.expect("added");
    store.add_device(person("anna"), device("tablet", "anna")).await.expect("added");
    assert!(store.save_stream(&row).await.expect("saved"));
    store.delete_devices(vec!["phone".to_owned()]).await.expect("deleted");
    assert!(!store.save_stream(&row).await.expect("left out"));
    assert_eq!(store.streams().await.expect("read"), []);
    // One that was taken over is.
    row.device = "tablet".to_owned();
    assert!(store.save_stream(&row).await.expect("saved"));
    assert_eq!(store.streams().await.expect("read"), [row]);
}

#[tokio::test]
async fn devices_and_people_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let mut phone = device("phone", "anna");
    {
        let store = Store::open(&path).expect("opened");
        store.add_device(person("anna"), phone.clone()).await.expect("added");
        store.add_device(person("bert"), device("tablet", "bert")).await.expect("added");
        store.rename_person("anna".to_owned(), "Änne".to_owned()).await.expect("renamed");
        phone.name = "Old phone".to_owned();
        phone.person = "carl".to_owned();
        phone.admin = true;
        phone.last_seen_at = Some(Timestamp::from_second(77).expect("time"));
        phone.last_address = Some("fe80::1".parse().expect("address"));
        let lost = device("never-added", "anna");
        store.change_devices(Some(person("carl")), vec![phone.clone(), lost]).await.expect("changed");
        store.delete_devices(vec!["tablet".to_owned(), "never-added".to_owned()]).await.expect("deleted");
    }
    let store = Store::open(&path).expect("opened again");
    let devices = store.devices().await.expect("read");
    assert_eq!(devices.iter().map(|device| (device.id.as_str(), device.admin)).collect::<Vec<_>>(), [("phone", true), ("owner", true)]);
    assert_eq!(devices[0], phone);
    // Of Anna and Bert nothing is left.
    let people: Vec<_> = store.people().await.expect("read").into_iter().map(|person| person.id).collect();
    assert_eq!(people, ["carl", "owner"]);
}

fn film(person: &str, hash: &str, file_index: u32, second: i64) -> FilmRow {
    FilmRow {
        person: person.to_owned(),
        info_hash: hash.repeat(40),
        file_index,
        title: "Ünïcode 'quoted'.mkv".to_owned(),
        magnet: "magnet:?xt=urn:btih:a".to_owned(),
        duration: Some(5400.5),
        position: 12.25,
        device: Some("phone".to_owned()),
        updated_at: Timestamp::from_millisecond(second * 1000 + 7).expect("time"),
    }
}

#[tokio::test]
async fn what_was_watched_comes_back_and_goes_with_its_person() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let mut changed = FilmRow { duration: None, device: None, ..film("anna", "a", 0, 30) };
    {
        let store = Store::open(&path).expect("opened");
        store.add_device(person("anna"), device("phone", "anna")).await.expect("added");
        let films = vec![film("anna", "a", 0, 10), film("anna", "a", 1, 20), film("owner", "a", 0, 5), film("nobody", "a", 0, 5)];
        store.save_films(films).await.expect("saved");
        store.save_films(vec![changed.clone()]).await.expect("changed");
        // Without a device the person is there for the sake of the films.
        store.delete_devices(vec!["phone".to_owned()]).await.expect("deleted");
    }
    let store = Store::open(&path).expect("opened again");
    assert_eq!(store.people().await.expect("read").len(), 2);
    assert_eq!(store.history().await.expect("read"), [film("anna", "a", 1, 20), changed.clone(), film("owner", "a", 0, 5)]);
    changed.person = "owner".to_owned();
    store.save_films(vec![changed.clone()]).await.expect("changed");
    store.delete_films(vec![("anna".to_owned(), "a".repeat(40), 1), ("owner".to_owned(), "b".repeat(40), 0)]).await.expect("deleted");
    store.delete_history("anna".to_owned()).await.expect("deleted");
    assert_eq!(store.history().await.expect("read"), [changed]);
    assert_eq!(store.people().await.expect("read").len(), 1, "of Anna nothing is left");
}

#[tokio::test]
async fn who_was_told_is_known_by_person() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let seen = async |store: &Store| {
        let of = |person: &str| store.notice_seen(person.to_owned());
        (of("owner").await.expect("read"), of("anna").await.expect("read"), of("nobody").await.expect("read"))
    };
    {
        let store = Store::open(&path).expect("opened");
        store.add_device(person("anna"), device("phone", "anna")).await.expect("added");
        assert_eq!(seen(&store).await, (false, false, false));
        store.set_notice_seen("anna".to_owned(), Some(Timestamp::now())).await.expect("written");
        store.set_notice_seen("nobody".to_owned(), Some(Timestamp::now())).await.expect("nobody to write it for");
    }
    let store = Store::open(&path).expect("opened again");
    assert_eq!(seen(&store).await, (false, true, false));
    store.set_notice_seen("anna".to_owned(), None).await.expect("written");
    assert_eq!(seen(&store).await, (false, false, false));
}

/// The file of the version before devices: everything of it is there, and the owner's record is the owner's.
#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let mut raw = rusqlite::Connection::open(&path).expect("opened");
    migrations::first_only().to_latest(&mut raw).expect("made as it was");
    raw.execute(
        "INSERT INTO streams (id, device, person, info_hash, magnet, options, status, phase, created_at, expires_at)
         VALUES ('a', 'owner', 'owner', 'h', 'm', '{}', 'ready', 'playable', 1000, 2000)",
        [],
    )
    .expect("written as it was");
    drop(raw);
    let store = Store::open(&path).expect("taken over");
    // As it was before, it lies beside.
    let (_, before) = copies::all(&path).first().expect("a copy").clone();
    let raw = rusqlite::Connection::open(before).expect("opened");
    let version: i64 = raw.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("read");
    let streams: i64 = raw.query_row("SELECT count(*) FROM streams", [], |row| row.get(0)).expect("read");
    assert_eq!((version, streams), (1, 1));
    let streams = store.streams().await.expect("read");
    assert_eq!(streams.iter().map(|row| (row.id.as_str(), row.ticket_key)).collect::<Vec<_>>(), [("a", 1)]);
    let devices = store.devices().await.expect("read");
    assert_eq!(devices.iter().map(|row| (row.id.as_str(), row.admin, row.token_hash)).collect::<Vec<_>>(), [("owner", true, None)]);
}

/// What was acknowledged stands in the files at once: a copy of them, as a `kill -9` would leave them, has it.
#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let store = Store::open(&path).expect("opened");
    for n in 0..20 {
        store.save_stream(&stream(&format!("s{n}"), n)).await.expect("saved");
    }
    let crashed = tempfile::tempdir().expect("folder");
    for name in ["db", "db-wal"] {
        std::fs::copy(folder.path().join(name), crashed.path().join(name)).expect("copied");
    }
    let other = Store::open(&crashed.path().join("db")).expect("recovered");
    assert_eq!(other.streams().await.expect("read").len(), 20);
}

/// From beside, a sound one is told from a damaged one, open or not; and looking leaves no trace.
#[tokio::test]
async fn looking_from_beside_changes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a name with ? and #.db");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(folder.path()).expect("folder").map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!((examine(&path), names().len()), (Soundness::Absent, 0));
    let store = Store::open(&path).expect("made");
    let mut late = stream("a", 4_000_000_000);
    store.save_stream(&late).await.expect("saved");
    let newest = |second| Soundness::Sound { newest: Some(Timestamp::from_second(second).expect("time")) };
    assert_eq!(examine(&path), newest(4_000_000_000), "what stands in the journal counts");
    late.created_at = Timestamp::from_second(4_000_000_001).expect("time");
    store.save_stream(&late).await.expect("saved while somebody looked");
    assert_eq!(examine(&path), newest(4_000_000_001));
    drop(store);
    let before = names();
    assert_eq!((examine(&path), names()), (newest(4_000_000_001), before));
    let raw = rusqlite::Connection::open(&path).expect("opened");
    raw.pragma_update(None, "user_version", 99).expect("set");
    drop(raw);
    assert_eq!(examine(&path), Soundness::Newer);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes.iter_mut().skip(5000).step_by(3).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, bytes).expect("damaged");
    assert!(matches!(examine(&path), Soundness::Damaged(_)), "{:?}", examine(&path));
    std::fs::write(&path, "this is no database, but it is long enough to look at".repeat(100)).expect("written");
    assert!(matches!(examine(&path), Soundness::Damaged(_)), "{:?}", examine(&path));
    assert!(matches!(examine(folder.path()), Soundness::Unreadable(_)));
}

#[cfg(unix)]
#[test]
fn the_files_are_only_for_us() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    std::fs::write(&path, "").expect("made");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened");
    let _store = Store::open(&path).expect("opened");
    for entry in std::fs::read_dir(folder.path()).expect("folder") {
        let entry = entry.expect("entry");
        let mode = entry.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

fn rubbish() -> String {
    "this is no database, but it is long enough to look at".repeat(100)
}

/// The names of the files beside the database.
fn beside(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path.parent().expect("a folder")).expect("folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

async fn copy(store: &Store, path: &Path) -> PathBuf {
    let path = path.to_owned();
    store.ask(move |connection| copies::make(connection, &path)).await.expect("copied")
}

#[tokio::test]
async fn a_broken_database_is_set_aside_and_the_newest_sound_copy_takes_its_place() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    {
        let store = Store::open(&path).expect("made");
        assert_eq!(store.rescue(), None);
        store.add_device(person("anna"), device("phone", "anna")).await.expect("added");
        copy(&store, &path).await;
        let broken = copy(&store, &path).await;
        std::fs::write(broken, rubbish()).expect("a copy that is broken too");
        store.add_device(person("bert"), device("tablet", "bert")).await.expect("added after the copies");
    }
    let newest_sound = copies::all(&path)[1].0;
    std::fs::write(&path, rubbish()).expect("broken");
    let store = Store::open(&path).expect("opened all the same");
    let Rescue { aside, reason, copy_of } = store.rescue().expect("told").clone();
    assert_eq!(copy_of, Some(newest_sound));
    assert!(!reason.is_empty());
    assert_eq!(std::fs::read_to_string(&aside).expect("kept"), rubbish());
    let devices: Vec<_> = store.devices().await.expect("read").into_iter().map(|device| device.id).collect();
    assert_eq!(devices, ["phone", "owner"]);
    drop(store);
    assert_eq!(Store::open(&path).expect("opened").rescue(), None, "once");
    assert_eq!(set_aside_before(&path).len(), 1);
}

#[tokio::test]
async fn without_a_copy_everything_begins_anew_and_nothing_is_deleted() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    for n in 1..6 {
        std::fs::write(&path, format!("{n}{}", rubbish())).expect("broken");
        let store = Store::open(&path).expect("opened");
        let rescue = store.rescue().expect("told");
        assert_eq!(rescue.copy_of, None);
        assert_eq!(std::fs::read_to_string(&rescue.aside).expect("kept"), format!("{n}{}", rubbish()));
        assert_eq!(store.devices().await.expect("read").len(), 1);
    }
    assert_eq!(set_aside_before(&path).len(), 3, "not for ever");
}

#[tokio::test]
async fn an_empty_file_is_no_new_database_where_there_was_one() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    {
        let store = Store::open(&path).expect("made");
        store.add_device(person("anna"), device("phone", "anna")).await.expect("added");
        copy(&store, &path).await;
    }
    std::fs::write(&path, "").expect("emptied");
    std::fs::write(folder.path().join("db-wal"), "a journal").expect("written");
    let store = Store::open(&path).expect("opened");
    let names = beside(&path);
    assert!(names.iter().any(|name| name.starts_with("db.broken-") && name.ends_with("-wal")), "{names:?}");
    assert!(store.rescue().is_some_and(|rescue| rescue.copy_of.is_some()));
    assert_eq!(store.devices().await.expect("read").len(), 2);
    drop(store);
    std::fs::remove_file(&path).expect("moved away by somebody who wants a new one");
    let store = Store::open(&path).expect("made");
    assert_eq!((store.rescue(), store.devices().await.expect("read").len()), (None, 1));
}

#[tokio::test]
async fn who_was_forgotten_does_not_come_back_with_a_copy() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let store = Store::open(&path).expect("made");
    store.delete_devices(vec!["nobody".to_owned()]).await.expect("deleted");
    assert!(copies::all(&path).is_empty(), "where none is, none is made");
    store.add_device(person("anna"), device("phone", "anna")).await.expect("added");
    store.add_device(person("anna"), device("tablet", "anna")).await.expect("added");
    store.save_films(vec![film("anna", "a", 0, 10), film("anna", "b", 0, 10)]).await.expect("saved");
    let all_of_it = || copies::all(&path).iter().map(|(_, copy)| std::fs::read(copy).expect("read")).collect::<Vec<_>>().concat();
    let has = |text: &str| memchr::memmem::find(&all_of_it(), text.as_bytes()).is_some();
    copy(&store, &path).await;
    copy(&store, &path).await;
    assert!(has("phone") && has(&"a".repeat(40)) && copies::all(&path).len() == 2);
    store.delete_devices(vec!["phone".to_owned()]).await.expect("revoked");
    assert_eq!(copies::all(&path).len(), 1);
    let hash = device("phone", "anna").token_hash.expect("a hash");
    assert!(memchr::memmem::find(&all_of_it(), &hash).is_none() && has("tablet"));
    store.delete_films(vec![("anna".to_owned(), "a".repeat(40), 0)]).await.expect("forgotten");
    assert!(!has(&"a".repeat(40)) && has(&"b".repeat(40)));
    store.delete_history("anna".to_owned()).await.expect("forgotten");
    assert!(!has(&"b".repeat(40)) && copies::all(&path).len() == 1);
}

#[tokio::test]
async fn copies_are_made_once_a_day_and_only_a_few_are_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let store = Arc::new(Store::open(&path).expect("made"));
    let stop = CancellationToken::new();
    stop.cancel();
    for _ in 0..3 {
        store.clone().tend_copies(stop.clone()).await;
        assert_eq!(copies::all(&path).len(), 1);
    }
    let (_, first) = copies::all(&path)[0].clone();
    let old = folder.path().join(format!("db.copy-{}", Timestamp::now().as_millisecond() - 25 * 3_600_000));
    std::fs::rename(first, old).expect("it was made yesterday");
    store.clone().tend_copies(stop.clone()).await;
    assert_eq!(copies::all(&path).len(), 2);
    for _ in 0..5 {
        copy(&store, &path).await;
    }
    assert_eq!(copies::all(&path).len(), 3);
    assert!(!beside(&path).contains(&"db.copying".to_owned()));
}

#[tokio::test]
async fn whether_it_can_be_written_is_found_out_without_writing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    let store = Store::open(&path).expect("made");
    store.writable().await.expect("writable");
    let rows = store.rows().await.expect("counted");
    assert_eq!(rows.iter().find(|(name, _)| name == "devices"), Some(&("devices".to_owned(), 1)));
    let other = rusqlite::Connection::open(&path).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let refused = tokio::time::timeout(Duration::from_secs(20), store.writable()).await.expect("an answer");
    assert!(matches!(refused, Err(StoreError::Sqlite(_))), "{refused:?}");
    other.execute_batch("ROLLBACK").expect("free again");
    store.writable().await.expect("writable again");
}

#[test]
fn a_newer_database_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    drop(Store::open(&path).expect("made"));
    let raw = rusqlite::Connection::open(&path).expect("opened");
    raw.pragma_update(None, "user_version", 99).expect("set");
    drop(raw);
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { .. })));
}

#[test]
fn a_folder_in_the_way_is_said() {
    let folder = tempfile::tempdir().expect("folder");
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Unopenable { .. })));
}

/// Whatever bytes of the file are damaged: it opens or is refused, and never panics or hangs.
#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("db");
    drop(Store::open(&path).expect("made"));
    let sound = std::fs::read(&path).expect("read");
    let damage = proptest::collection::vec((0..sound.len(), proptest::num::u8::ANY), 1..40);
    TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })
        .run(&damage, |damage| {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("db");
            let mut bytes = sound.clone();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            std::fs::write(&path, bytes).expect("written");
            let _ = Store::open(&path);
            Ok(())
        })
        .expect("no panic");
}
