//! Every film, played from outside: film × action × reader, one row each, the table printed at the end.
//!
//! The real server plays each film of a real swarm. Its playlists are read by a parser of another make, segments are asked for in the
//! middle, near the end, then from the start, and what comes is decoded by ffmpeg beside the film itself: each picture has to be there at
//! its time, flashes and beeps have to come when they come in the film, and nothing may be silent that is not silent there.
//!
//! Without more words the core of the matrix is played. `MATRIX=all` plays every film, `MATRIX=name,name` those with one of these words
//! in their names; `MATRIX_TABLE` names a folder in which the rows are kept. Run the whole with `scripts/matrix`.
#![cfg(target_os = "linux")]

mod eye;
mod films;
mod played;
#[path = "../support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod recipes;
#[path = "../support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "../support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use films::Film;
use played::Row;
use server::TestServer;

/// Films that are meant by the environment.
fn chosen(films: Vec<Film>) -> Vec<Film> {
    let asked = std::env::var("MATRIX").unwrap_or_default();
    let meant = |film: &Film| match asked.as_str() {
        "" => film.core,
        "all" => true,
        words => words.split(',').any(|word| film.name.contains(word)),
    };
    films.into_iter().filter(meant).collect()
}

/// What is done with a film.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Every segment is fetched and judged.
    Play,
    /// Far seeks over a slow line.
    Seek,
}

/// Plays films one after the other on one server, and prints what came of it.
async fn play(part: &str, films: Vec<Film>, how: Action) {
    let server = Arc::new(TestServer::open().await);
    let (mut lines, mut failed) = (vec![Row::HEAD.to_owned()], 0);
    for film in chosen(films) {
        let begun = Instant::now();
        let name = film.name;
        if let Some(why) = film.traits.skip {
            lines.push(format!("{name:<22} not tried: {why}"));
            continue;
        }
        let known = film.traits.known;
        let server = server.clone();
        let row = tokio::spawn(async move {
            match how {
                Action::Play => played::judge(&server, &film).await,
                Action::Seek => played::seek(&server, &film).await,
            }
        })
        .await;
        let mut row = row.unwrap_or_else(|error| {
            let said = error.into_panic();
            let text = said.downcast_ref::<String>().cloned().or_else(|| said.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let first: String = text.unwrap_or_default().chars().take(600).collect();
            Row::failed(name, first)
        });
        match known {
            Some(why) if !row.problems.is_empty() => row.known = Some(why),
            Some(_) => row.problems.push("it plays now: take its reason away".into()),
            None => {}
        }
        failed += usize::from(!row.problems.is_empty() && row.known.is_none());
        lines.push(row.line(begun.elapsed()));
    }
    let table = lines.join("\n");
    eprintln!("{table}");
    if let Some(folder) = std::env::var_os("MATRIX_TABLE") {
        let path = std::path::Path::new(&folder).join(format!("{part}.txt"));
        std::fs::File::create(path).and_then(|mut file| file.write_all(table.as_bytes())).expect("the table is kept");
    }
    assert_eq!(failed, 0, "films that do not play as they should: see the table");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_films_are_stored_in() {
    play("containers", films::containers(), Action::Play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pictures_are_like() {
    play("pictures", films::pictures(), Action::Play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged() {
    play("damaged", films::damaged(), Action::Play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sound_is_like() {
    play("sounds", films::sounds(), Action::Play).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn far_seeks() {
    play("seeks", films::long(), Action::Seek).await;
}
