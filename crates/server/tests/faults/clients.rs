//! Clients that ask for too much, read too little, or leave in the middle; and a server that runs out of descriptors because of them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::cable::Wire;
use super::stage::{Held, House, PACE, Row, Theatre, eventually};
use super::viewer::{LONG, Viewer};

fn address(house: &House) -> String {
    house.server.base().strip_prefix("http://").expect("an address").to_owned()
}

/// A request as it stands on the wire.
fn request(house: &House, url: &str) -> String {
    let path = house.server.here(url).replace(house.server.base(), "");
    format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", address(house))
}

/// A connection that has sent this and reads as it likes.
async fn sends(house: &House, words: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address(house)).await?;
    stream.write_all(words.as_bytes()).await?;
    Ok(stream)
}

/// How many connections the server has open.
fn sockets(house: &House) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", house.server.pid())).expect("its descriptors");
    let names = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
}

/// Until somebody new is answered.
async fn a_newcomer_is_answered(house: &House) -> Duration {
    let begun = Instant::now();
    loop {
        let newcomer = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a client");
        if newcomer.get(house.server.here("/api/health")).send().await.is_ok_and(|answer| answer.status() == 200) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LONG, "nobody new is answered any more\n{}", house.server.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_say_nothing_shut_nobody_out_for_long() {
    let mut row = Row::of("clients", "a thousand connections are opened and say nothing");
    let (house, theatre) = (House::open().await, Theatre::of(24).await);
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    // Whoever watches is connected already.
    viewer.gets(&house.server, 0).await;
    let before = sockets(&house);
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(address(&house)).await.expect("the system takes it"));
    }
    let got = viewer.plays(&house.server, 0..=viewer.last()).await;
    row.saw(format!("who watches: 503 × {}, broken off × {}", got.late, got.broken));
    row.back_after(got.took);
    let waited = a_newcomer_is_answered(&house).await;
    assert!(waited < Duration::from_secs(5), "somebody new waits {waited:?}");
    row.saw(format!("somebody new from the same machine waits {:.1} s", waited.as_secs_f64()));
    // They are cut off by themselves, although they stay.
    eventually("the silent are gone", || sockets(&house) <= before + 4).await;
    drop(idle);
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_players_of_one_phone_all_play() {
    let mut row = Row::of("clients", "one client opens fifty players of one film at once");
    let (house, theatre) = (House::open().await, Theatre::of(24).await);
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let held = Held::by(&house.server, &viewer).await;
    let base = house.server.base().to_owned();
    let mut players = JoinSet::new();
    for player in 0..50 {
        let client = reqwest::Client::builder().no_proxy().timeout(LONG).build().expect("a client");
        let urls: Vec<String> =
            (0..=viewer.last()).map(|n| house.server.here(&viewer.picture((n + player) % (viewer.last() + 1)))).collect();
        players.spawn(async move {
            let (mut refused, mut bytes) = (0, 0);
            for url in urls {
                loop {
                    let answer = client.get(&url).send().await.expect("an answer");
                    match answer.status().as_u16() {
                        200 => break bytes += answer.bytes().await.expect("a whole body").len(),
                        429 | 503 => {
                            let after = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
                            tokio::time::sleep(Duration::from_secs(after)).await;
                            refused += 1;
                        }
                        other => panic!("{other}"),
                    }
                }
            }
            (refused, bytes)
        });
    }
    let ended = Instant::now();
    let mut all = Vec::new();
    while let Some(player) = players.join_next().await {
        all.push(player.expect("it plays to the end"));
    }
    assert!(all.iter().all(|(_, bytes)| *bytes == all[0].1), "each got the same: {all:?}");
    row.saw(format!("all play; refused and asked again × {}", all.iter().map(|(refused, _)| refused).sum::<usize>()));
    row.back_after(ended.elapsed());
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    drop(base);
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_never_read_cost_no_memory_and_delay_nobody() {
    let mut row = Row::of("clients", "two hundred clients ask for events and never read them");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let before = house.server.rss();
    let events = house.server.status(&viewer.id).await["eventsUrl"].as_str().expect("a URL").to_owned();
    let mut deaf = Vec::new();
    for _ in 0..200 {
        deaf.push(sends(&house, &request(&house, &events)).await.expect("asked"));
    }
    let opened = Instant::now();
    let got = viewer.plays(&house.server, 0..=viewer.last()).await;
    row.saw(format!("503 segment_late × {}, broken off × {}", got.late, got.broken));
    row.back_after(Duration::ZERO);
    let grown = house.server.rss().saturating_sub(before) >> 20;
    assert!(grown < 60, "{grown} MiB more after {:?}", opened.elapsed());
    row.saw(format!("{grown} MiB of memory more"));
    drop(deaf);
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_hardly_read_delay_nobody() {
    let mut row = Row::of("clients", "forty clients ask for the film and for segments and read a few bytes a second");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let before = (house.server.rss(), sockets(&house));
    let direct = house.server.status(&viewer.id).await["directUrl"].as_str().expect("a URL").to_owned();
    let mut slow = JoinSet::new();
    for n in 0..40 {
        let url = if n % 2 == 0 { direct.clone() } else { viewer.picture(n % (viewer.last() + 1)) };
        let mut stream = sends(&house, &request(&house, &url)).await.expect("asked");
        slow.spawn(async move {
            let mut crumb = [0; 16];
            while stream.read_exact(&mut crumb).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let got = viewer.plays(&house.server, 0..=viewer.last()).await;
    row.saw(format!("503 segment_late × {}, broken off × {}", got.late, got.broken));
    row.back_after(Duration::ZERO);
    let grown = house.server.rss().saturating_sub(before.0) >> 20;
    assert!(grown < 100, "{grown} MiB more");
    row.saw(format!("{grown} MiB of memory more"));
    slow.shutdown().await;
    eventually("they are gone", || sockets(&house) <= before.1 + 4).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_cut_off_leave_nothing_behind() {
    let mut row =
        Row::of("clients", "three hundred requests are cut off: half a head, no body, closed after the question, reset in the answer");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let before = sockets(&house);
    let direct = house.server.status(&viewer.id).await["directUrl"].as_str().expect("a URL").to_owned();
    let last = viewer.picture(viewer.last());
    let plays = viewer.plays(&house.server, 0..=viewer.last());
    let cut = async {
        for n in 0..300 {
            let url = if n % 2 == 0 { &direct } else { &last };
            let whole = request(&house, url);
            let words = match n % 4 {
                0 => whole[..whole.len() / 2].to_owned(),
                1 => whole.replace("GET", "POST").replace("\r\n\r\n", "\r\ncontent-length: 1000\r\n\r\n{"),
                _ => whole,
            };
            let mut stream = sends(&house, &words).await.expect("asked");
            if n % 4 == 2 {
                stream.shutdown().await.ok();
                // Whoever has said all he wants may still get his answer, or be hung up on; he must not be left hanging.
                let ended = tokio::time::timeout(LONG, stream.read(&mut [0; 1024])).await;
                assert!(ended.is_ok(), "nobody answers and nobody hangs up");
            } else {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset at the end");
            }
        }
    };
    let (got, ()) = tokio::join!(plays, cut);
    row.saw(format!("503 segment_late × {}, broken off × {}", got.late, got.broken));
    row.back_after(Duration::ZERO);
    eventually("they are gone", || sockets(&house) <= before + 4).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_vanishes_in_the_middle_of_an_answer_is_let_go() {
    let Some(wire) = Wire::lay() else { return };
    let mut row = Row::of("clients", "a phone's network vanishes in the middle of an answer, and comes back");
    // What a client may leave unread is thrown away after two minutes; here after four seconds.
    let house = House::with(&["--bind", &wire.near()], &[("TEST_UNREAD_MS", "4000")]).await;
    let theatre = Theatre::of(60).await;
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    let direct = house.server.status(&viewer.id).await["directUrl"].as_str().expect("a URL").to_owned();
    let path = house.server.here(&direct).replace(house.server.base(), "");
    let (url, folder) = (format!("{}{path}", house.server.https()), tempfile::tempdir().expect("a folder"));
    let phone = |version: &str, rate: &str, file: &Path| {
        let mut curl = wire.at_the_far_end("curl");
        curl.arg(version);
        curl.args(["--silent", "--show-error", "--fail", "--insecure", "--noproxy", "*", "--limit-rate", rate, "--output"])
            .arg(file)
            .arg(&url);
        curl
    };
    let before = sockets(&house);
    let (part, other, whole) = (folder.path().join("part"), folder.path().join("other part"), folder.path().join("whole"));
    let mut watching =
        [("--http1.1", &part), ("--http2", &other)].map(|(version, file)| phone(version, "300k", file).spawn().expect("curl"));
    let come = |file: &Path| std::fs::metadata(file).map_or(0, |file| file.len());
    eventually("the film comes to the phones", || come(&part) > 500_000 && come(&other) > 500_000).await;
    assert!(sockets(&house) > before + 1, "their connections are among those that are counted");
    wire.far_end_vanishes();
    let gone = Instant::now();
    viewer.plays(&house.server, 0..=viewer.last()).await;
    for (what, left) in [("HTTP/1.1", 1), ("HTTP/2", 0)] {
        eventually("its connection is let go", || sockets(&house) <= before + left).await;
        let held = gone.elapsed();
        assert!(held > Duration::from_secs(2), "nobody is let go who is only slow: {held:?}");
        row.saw(format!(
            "let go of after {:.0} s by {what} (where four seconds are the bound for what is left unread)",
            held.as_secs_f64()
        ));
    }
    let all = theatre.film.metadata().expect("the film").len();
    for (phone, file) in watching.iter_mut().zip([&part, &other]) {
        assert!(phone.try_wait().expect("its end").is_none() && come(file) < all, "it was cut off");
        phone.kill().ok();
        phone.wait().expect("gone");
    }
    wire.far_end_is_back();
    let back = Instant::now();
    assert!(phone("--http2", "1G", &whole).status().expect("curl").success(), "it plays again");
    row.back_after(back.elapsed());
    assert!(std::fs::read(&whole).expect("read") == std::fs::read(&theatre.film).expect("the film"), "the film is another one");
    watch.told().into_iter().for_each(|told| row.saw(told));
    watch.ends().await;
    row.write();
    house.closes().await;
}

/// Lets the server have so many descriptors.
fn descriptors(house: &House, limit: usize) {
    let limit = format!("--nofile={limit}:");
    let done = Command::new("prlimit").args(["--pid", &house.server.pid().to_string(), &limit]).output().expect("prlimit");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_goes_on_when_there_are_some_again() {
    let mut row = Row::of("clients", "the server has no descriptor left; peers are lost meanwhile");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    descriptors(&house, 3);
    theatre.line.refuses();
    // Nobody new comes in.
    let newcomer = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().expect("a client");
    let answer = newcomer.get(house.server.here("/api/health")).send().await;
    row.saw(if answer.is_ok() { "somebody new is answered" } else { "somebody new waits" });
    super::stage::is_told_to_wait(&house.server, &viewer.id, &mut row).await;
    watch.told().into_iter().for_each(|told| row.saw(told));
    theatre.line.at_rate(None);
    theatre.line.recovers();
    descriptors(&house, 4096);
    let ended = Instant::now();
    let got = viewer.gets(&house.server, viewer.last()).await;
    row.saw(format!("503 segment_late × {}, broken off × {}", got.late, got.broken));
    row.back_after(ended.elapsed());
    a_newcomer_is_answered(&house).await;
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_starts_fifty_films_is_refused_in_words_and_others_are_not() {
    let mut row = Row::of("clients", "one phone starts fifty films at once");
    let (house, theatre) = (House::open().await, Theatre::of(24).await);
    let greedy = house.server.pair("greedy", Some("Greedy")).await;
    let other = house.server.pair("other", Some("Other")).await;
    let mut refused = 0;
    for n in 0..50 {
        let body = json!({ "magnetLink": format!("magnet:?xt=urn:btih:{:040x}", 0xfa01_0000_u64 + n) });
        let answer = house.server.call_as(&greedy, Method::POST, "/api/stream/start", Some(body)).await;
        match answer.status {
            201 => {}
            429 => {
                let code = answer.json()["code"].as_str().expect("a code").to_owned();
                assert!(matches!(code.as_str(), "queue_full" | "too_many_requests"), "{}", answer.text());
                assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "when to come again");
                row.saw(format!("429 {code}: “{}”", answer.json()["title"].as_str().expect("a title")));
                refused += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(refused > 0, "fifty are taken");
    let begun = Instant::now();
    let body = json!({ "magnetLink": theatre.link() });
    let started = house.server.call_as(&other, Method::POST, "/api/stream/start", Some(body)).await;
    assert_eq!(started.status, 201, "{}", started.text());
    let ready = house.server.until_ready(started.json()["streamId"].as_str().expect("an id")).await;
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.gets(&house.server, 0).await;
    row.back_after(begun.elapsed());
    row.write();
    house.closes().await;
}
