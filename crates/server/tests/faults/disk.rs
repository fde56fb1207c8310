//! Disks: slow ones, broken ones, full of somebody's tidying up; and a database that others hold.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::stage::{Held, House, PACE, Row, Theatre, eventually, id};
use super::viewer::Viewer;

/// A disk that is slow or fails where it is told to, for the calls of one server.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// A good one.
    fn new() -> Self {
        let disk = Self { folder: tempfile::Builder::new().prefix("faults-disk-").tempdir().expect("a folder") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/disk.c");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(disk.library()).arg(source).status();
        assert!(made.expect("a C compiler").success());
        disk.recovers();
        disk
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("disk.so")
    }

    fn orders(&self) -> PathBuf {
        self.folder.path().join("orders")
    }

    /// A server on it.
    async fn house(&self) -> House {
        let (library, orders) = (self.library(), self.orders());
        let environment = [("LD_PRELOAD", library.to_str().expect("text")), ("FAULTS_DISK", orders.to_str().expect("text"))];
        House::with(&[], &environment).await
    }

    /// From now on these calls on files whose path has this word in it take so long, and fail where an error is given.
    fn is(&self, operation: &str, word: &str, takes: Duration, error: Option<nix::errno::Errno>) {
        let line = format!("{operation} {word} {} {}\n", takes.as_millis(), error.map_or(0, |error| error as i32));
        let aside = self.folder.path().join("aside");
        std::fs::write(&aside, line).expect("written");
        std::fs::rename(&aside, self.orders()).expect("in place");
    }

    fn recovers(&self) {
        std::fs::write(self.orders(), "").expect("written");
    }
}

/// Somebody watches while the disk is as it is told, for as long as a few segments take; then it is well again.
async fn disk_is(fault: &'static str, begins: impl FnOnce(&Disk), lasts: impl AsyncFnOnce(&House, &Viewer, &mut Row)) {
    let mut row = Row::of("disk", fault);
    let disk = Disk::new();
    let (house, theatre) = (disk.house().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    begins(&disk);
    lasts(&house, &viewer, &mut row).await;
    watch.told().into_iter().for_each(|told| row.saw(told));
    disk.recovers();
    theatre.line.at_rate(None);
    let ended = Instant::now();
    viewer.gets(&house.server, viewer.last()).await;
    row.back_after(ended.elapsed());
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_makes_a_film_slow_and_nothing_else() {
    disk_is(
        "each write of the film takes 100 ms",
        |disk| disk.is("write", "torrents", Duration::from_millis(100), None),
        async |house, viewer, row| {
            let begun = Instant::now();
            for _ in 0..20 {
                assert_eq!(house.server.status(&viewer.id).await["status"], "ready");
            }
            row.saw(format!("twenty status calls in {:.2} s", begun.elapsed().as_secs_f64()));
            let got = viewer.plays(&house.server, 2..4).await;
            row.saw(format!("503 segment_late × {}", got.late));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_cannot_be_read_are_late_and_never_wrong() {
    disk_is(
        "reading the film fails (EIO) for a while",
        |disk| disk.is("read", "torrents", Duration::ZERO, Some(nix::errno::Errno::EIO)),
        async |house, viewer, row| {
            for _ in 0..3 {
                // Players ask again; each answer has an end.
                let answer = house.server.client().get(house.server.here(&viewer.picture(1))).send().await.expect("an answer");
                let status = answer.status();
                let whole = answer.bytes().await.is_ok();
                assert!(status == 503 || !whole, "{status}, whole: {whole}");
                row.saw(if whole { "503 segment_late".to_owned() } else { format!("{status}, broken off") });
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_stops_no_film_and_is_written_again() {
    disk_is(
        "the database's disk is read-only (EROFS) for a while",
        |disk| disk.is("write", "balcony.sqlite", Duration::ZERO, Some(nix::errno::Errno::EROFS)),
        async |house, viewer, row| {
            let moved =
                house.server.call(Method::PUT, &format!("/api/stream/{}/position", viewer.id), Some(json!({ "seconds": 0.0 }))).await;
            row.saw(format!("its position is taken: {}", moved.status));
            let nobody = house.server.try_start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
            let told = if nobody.status == 201 { String::new() } else { format!(" {}", nobody.json()["code"]) };
            row.saw(format!("another film is started: {}{told}", nobody.status));
            viewer.plays(&house.server, 2..4).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_breaks_under_the_film_is_told_and_the_film_goes_on_when_it_is_started_again() {
    let mut row = Row::of("disk", "writing the film fails (EIO) for a while");
    let disk = Disk::new();
    let (house, theatre) = (disk.house().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    drop(watch);
    disk.is("write", "torrents", Duration::ZERO, Some(nix::errno::Errno::EIO));
    let says = |status: &serde_json::Value| status["status"] == "error";
    let told = house.server.until(&viewer.id, super::viewer::LONG.as_secs(), "told that the disk fails", says).await;
    assert!(told["message"].as_str().is_some_and(|message| message.contains("writing the film failed")), "{told:#}");
    row.saw(format!("error {}: “{}”", told["error"]["code"], told["message"].as_str().expect("a message")));
    assert_eq!(house.server.get("/api/health").await.json()["status"], "ok");
    disk.recovers();
    theatre.line.at_rate(None);
    let ended = Instant::now();
    let again = house.server.play(&theatre.link(), json!({})).await;
    let viewer = Viewer::of(&house.server, &again, &theatre.film).await;
    viewer.gets(&house.server, viewer.last()).await;
    row.back_after(ended.elapsed());
    viewer.plays(&house.server, 0..=viewer.last()).await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_emptied_under_the_viewer_never_shows_zeros() {
    let mut row = Row::of("disk", "another program empties the file of the film, while it comes and when it is whole");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..3).await;
    watch.told();
    let empty = || {
        let films = find(&house, "torrents").expect("a folder of films").join("torrents");
        let file = films.join(theatre.swarm.info_hash().to_string()).join("0");
        let file = std::fs::File::options().write(true).open(file).expect("the film's file");
        assert!(file.metadata().expect("its length").len() > 0);
        file.set_len(0).expect("emptied");
    };
    let mut late = 0;
    for whole in [false, true] {
        if whole {
            house.server.until(&viewer.id, super::viewer::LONG.as_secs(), "complete", |status| status["phase"] == "complete").await;
        }
        empty();
        let emptied = Instant::now();
        // What comes now is written behind a hole.
        late += viewer.gets(&house.server, viewer.last()).await.late;
        row.back_after(emptied.elapsed());
        late += viewer.plays(&house.server, 0..=viewer.last()).await.late;
        theatre.line.at_rate(None);
        let direct = house.server.fetch(house.server.status(&viewer.id).await["directUrl"].as_str().expect("a URL")).await;
        assert!(direct == std::fs::read(&theatre.film).expect("the film"), "the film is another one");
    }
    row.saw(format!("503 segment_late × {late}"));
    watch.told().into_iter().for_each(|told| row.saw(told));
    watch.ends().await;
    row.write();
    house.closes().await;
}

/// Another program that has the database for itself, until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(database: &Path) -> Self {
        let script = "import sqlite3, sys\nbase = sqlite3.connect(sys.argv[1], isolation_level=None)\nbase.execute('BEGIN IMMEDIATE')\n\
                      print('held', flush=True)\nsys.stdin.readline()\nbase.execute('ROLLBACK')";
        let mut process = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "held");
        Self(process)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_holds_is_waited_for() {
    let mut row = Row::of("disk", "another program holds the database for eight seconds, and the server is killed after it");
    let (mut house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let held = Held::by(&house.server, &viewer).await;
    let holder = Holder::of(&house.server.data_dir().join("balcony.sqlite"));
    let begun = Instant::now();
    let releases = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        drop(holder);
        Instant::now()
    };
    let starts = async {
        let answer = house.server.try_start("c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", json!({})).await;
        (answer, Instant::now())
    };
    let plays = viewer.plays(&house.server, 0..4);
    let (ended, (answer, answered), got) = tokio::join!(releases, starts, plays);
    assert_eq!(answer.status, 201, "{}", answer.text());
    row.saw(format!("a start is answered after {:.1} s", (answered - begun).as_secs_f64()));
    row.saw(format!("503 segment_late × {}", got.late));
    row.back_after(answered.saturating_duration_since(ended));
    watch.ends().await;
    // It was answered, so it is there.
    let started = id(&answer.json());
    eventually("it is written down", || {
        let path = house.server.data_dir().join("balcony.sqlite");
        super::stage::rows(&path, "SELECT id FROM streams").contains(&started)
    })
    .await;
    house.server.kill_9();
    house.server.restart().await;
    assert_eq!(house.server.status(&started).await["status"], "downloading");
    house.server.until_ready(&viewer.id).await;
    held.is_all_there(&house.server, &viewer, &mut row).await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_deleted_under_the_viewer_plays_on() {
    let mut row = Row::of("disk", "somebody deletes the folder of all films while one is being watched");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    let folder = find(&house, "torrents").expect("a folder of films");
    std::fs::remove_dir_all(&folder).expect("removed");
    theatre.line.at_rate(None);
    let ended = Instant::now();
    let got = viewer.gets(&house.server, viewer.last()).await;
    row.saw(format!("503 segment_late × {}", got.late));
    row.back_after(ended.elapsed());
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.told().into_iter().for_each(|told| row.saw(told));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    // Another film can be fetched as before.
    let other = Theatre::of(24).await;
    let (second, second_watch) = other.begins(&house.server, json!({})).await;
    second.plays(&house.server, 0..=second.last()).await;
    second_watch.ends().await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

/// The folder of this name below the server's own.
fn find(house: &House, name: &str) -> Option<PathBuf> {
    [house.server.cache_dir(), house.server.data_dir()].into_iter().map(|folder| folder.join(name)).find(|path| path.is_dir())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_for_a_while_is_told_and_the_film_goes_on_when_it_is_started_again() {
    let mut row = Row::of("disk", "writing the film fails (EDQUOT, quota used up) for a while");
    let disk = Disk::new();
    let (house, theatre) = (disk.house().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    watch.told();
    disk.is("write", "torrents", Duration::ZERO, Some(nix::errno::Errno::EDQUOT));
    let says = |status: &serde_json::Value| {
        status["error"]["code"] == "no_space" || status["messageKey"].as_str().is_some_and(|key| key.contains("space"))
    };
    let told = house.server.until(&viewer.id, super::viewer::LONG.as_secs(), "told that there is no room", says).await;
    row.saw(format!("{}: “{}”", told["status"].as_str().expect("a status"), told["message"].as_str().expect("a message")));
    // A stream that has ended may not be ready any more; one that goes on is.
    drop(watch);
    disk.recovers();
    theatre.line.at_rate(None);
    let ended = Instant::now();
    // Whether it goes on by itself or is started again by the person who reads that: the same request is right.
    let again = house.server.play(&theatre.link(), json!({})).await;
    let viewer = Viewer::of(&house.server, &again, &theatre.film).await;
    viewer.gets(&house.server, viewer.last()).await;
    row.back_after(ended.elapsed());
    viewer.plays(&house.server, 0..=viewer.last()).await;
    row.write();
    house.closes().await;
}
