//! The network between the server and those who have the film.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::cable::Cable;
use super::line::Line;
use super::server::TestServer;
use super::stage::{Held, House, PACE, Row, Theatre, Watch, film, id, is_told_to_wait, number};
use super::viewer::{LONG, Viewer};

/// Where the viewer is when a fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// He jumps to the end: the server turns to all peers anew.
    Jumps,
    /// He goes on where he is.
    Stays,
}

/// Somebody watches the beginning of a film and jumps to its end when the fault begins, or goes on. He is told that he waits and for how long; when
/// the fault ends, the film goes on by itself, and all of it is right.
async fn interrupts(fault: &'static str, place: Place, begins: impl AsyncFnOnce(&Theatre), ends: impl AsyncFnOnce(&Theatre)) {
    let mut row = Row::of("network", fault);
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();

    begins(&theatre).await;
    let waits = async {
        is_told_to_wait(&house.server, &viewer.id, &mut row).await;
        for told in watch.told() {
            row.saw(told);
        }
        // What is here plays on.
        viewer.gets(&house.server, 0).await;
        theatre.line.at_rate(None);
        let ended = Instant::now();
        ends(&theatre).await;
        ended
    };
    let next = async {
        // Those before it are partly here.
        let next = if place == Place::Jumps { viewer.last()..=viewer.last() } else { 2..=viewer.last() };
        let got = viewer.plays(&house.server, next).await;
        (got, Instant::now())
    };
    let (ended, (got, came)) = tokio::join!(waits, next);
    if got.late > 0 {
        row.saw(format!("503 segment_late × {}", got.late));
    }
    row.back_after(came.saturating_duration_since(ended));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_goes_dead_and_comes_back_is_waited_for_in_words() {
    interrupts(
        "the only line to the film goes dead, connections stay",
        Place::Jumps,
        async |theatre| theatre.line.dies(),
        async |theatre| theatre.line.recovers(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_in_silence_are_made_anew() {
    interrupts(
        "all connections are forgotten by a router and never bring a byte again",
        Place::Stays,
        async |theatre| {
            theatre.line.forgets();
            theatre.line.dies();
        },
        async |theatre| theatre.line.recovers(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_everybody_away_is_called_again() {
    interrupts(
        "the only seeder resets all connections and refuses new ones",
        Place::Jumps,
        async |theatre| theatre.line.refuses(),
        async |theatre| theatre.line.recovers(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_pieces_of_the_only_peer_are_never_shown() {
    interrupts(
        "each piece of the only peer comes with wrong content",
        Place::Jumps,
        async |theatre| theatre.line.spoils_pieces(),
        async |theatre| theatre.line.recovers(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_who_is_the_only_one_is_told_of_steadily() {
    let mut row = Row::of("network", "the only peer sends wrong pieces for half a minute");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let held = Held::by(&house.server, &viewer).await;
    theatre.line.spoils_pieces();
    let lies = async {
        // Until it is known that what comes is wrong.
        tokio::time::sleep(Duration::from_secs(14)).await;
        watch.told();
        let before = theatre.line.dialled();
        tokio::time::sleep(Duration::from_secs(16)).await;
        let (told, calls) = (watch.told_in_order(), theatre.line.dialled() - before);
        assert!(told.len() <= 2, "it flickers: {told:#?}");
        row.saw(format!("in 16 s, {} times dropped and called again: {}", calls, told.join(", then ")));
        theatre.line.at_rate(None);
        theatre.line.recovers();
        Instant::now()
    };
    let jump = async {
        viewer.gets(&house.server, viewer.last()).await;
        Instant::now()
    };
    let (ended, came) = tokio::join!(lies, jump);
    row.back_after(came.saturating_duration_since(ended));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_babbles_is_left_and_called_again() {
    interrupts(
        "the only peer sends nothing that makes sense",
        Place::Jumps,
        async |theatre| theatre.line.babbles(),
        async |theatre| theatre.line.recovers(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_dribbles_is_told_and_used() {
    let mut row = Row::of("network", "the line becomes as slow as 20 kB/s, then quick again");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(20_000));
    let started = house.server.start(&theatre.link(), json!({})).await;
    let watch = Watch::over(&house.server, &id(&started));
    let loading = |status: &serde_json::Value| status["messageKey"] == "buffering" && number(status, "downloadSpeed") > 0;
    let status = house.server.until(&id(&started), LONG.as_secs(), "loading slowly", loading).await;
    assert!(status["message"].as_str().is_some_and(|message| message.contains('%') && message.contains("MB/s")), "{status:#}");
    assert!(number(&status, "eta") > 5, "{status:#}");
    watch.told().into_iter().for_each(|told| row.saw(told));
    let ended = Instant::now();
    theatre.line.at_rate(None);
    let ready = house.server.until_ready(&id(&started)).await;
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.gets(&house.server, 0).await;
    row.back_after(ended.elapsed());
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_round_the_world_that_is_reset_again_and_again_still_plays() {
    let mut row = Row::of("network", "400 ms each way, and all connections reset every two seconds");
    let (house, theatre) = (House::open().await, Theatre::of(24).await);
    theatre.line.as_long_as(Duration::from_millis(400));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let resets = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            theatre.line.resets();
        }
        Instant::now()
    };
    let plays = async {
        let got = viewer.plays(&house.server, 0..=viewer.last()).await;
        (got, Instant::now())
    };
    let (ended, (got, done)) = tokio::join!(resets, plays);
    watch.told().into_iter().for_each(|told| row.saw(told));
    row.saw(format!("503 segment_late × {}", got.late));
    row.back_after(done.saturating_duration_since(ended));
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_among_honest_peers_costs_nothing_but_bytes() {
    let mut row = Row::of("network", "one of two peers sends wrong pieces all the time");
    // Two seeders: behind two lines to one, the engine would find itself at the same peer twice.
    let (house, theatre) = (House::open().await, Theatre::seeded(film(60), 2).await);
    let liar = Line::to(theatre.swarm.magnet().peers[1]).await;
    liar.spoils_pieces();
    for line in [&liar, &theatre.line] {
        line.at_rate(Some(2 * PACE));
    }
    let started = house.server.start(&theatre.link_to(&[liar.front(), theatre.line.front()]), json!({})).await;
    let watch = Watch::over(&house.server, &id(&started));
    let ready = house.server.until_ready(&id(&started)).await;
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    let got = viewer.plays(&house.server, 0..=viewer.last()).await;
    assert!(liar.brought() > 64 << 10, "the liar was asked for a piece at least: {} bytes in {} calls", liar.brought(), liar.dialled());
    row.saw(format!("the liar brought {} KiB in {} calls", liar.brought() >> 10, liar.dialled()));
    watch.told().into_iter().for_each(|told| row.saw(told));
    row.saw(format!("503 segment_late × {}", got.late));
    watch.ends().await;
    row.back_after(Duration::ZERO);
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_before_the_metadata_is_waited_for_in_words() {
    let mut row = Row::of("network", "the only line is dead when the film is asked for");
    let (house, theatre) = (House::open().await, Theatre::of(24).await);
    theatre.line.dies();
    let started = house.server.start(&theatre.link(), json!({})).await;
    let watch = Watch::over(&house.server, &id(&started));
    is_told_to_wait(&house.server, &id(&started), &mut row).await;
    watch.told().into_iter().for_each(|told| row.saw(told));
    let ended = Instant::now();
    theatre.line.recovers();
    let ready = house.server.until_ready(&id(&started)).await;
    row.back_after(ended.elapsed());
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_waits_goes_on_with_the_peer_of_somebody_elses_link() {
    let mut row =
        Row::of("network", "the peer of the link is gone for good; somebody else starts the same film with another peer's address");
    let (house, theatre) = (House::open().await, Theatre::of(60).await);
    theatre.line.at_rate(Some(PACE));
    let (viewer, watch) = theatre.begins(&house.server, json!({})).await;
    let held = Held::by(&house.server, &viewer).await;
    theatre.line.refuses();
    watch.told();
    let other = Line::to(theatre.swarm.magnet().peers[0]).await;
    let waits = async {
        is_told_to_wait(&house.server, &viewer.id, &mut row).await;
        watch.told().into_iter().for_each(|told| row.saw(told));
        let ended = Instant::now();
        let token = house.server.pair("the other phone", Some("Somebody else")).await;
        let body = json!({ "magnetLink": theatre.link_to(&[other.front()]) });
        let answer = house.server.call_as(&token, reqwest::Method::POST, "/api/stream/start", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        ended
    };
    let jump = async {
        viewer.gets(&house.server, viewer.last()).await;
        Instant::now()
    };
    let (ended, came) = tokio::join!(waits, jump);
    row.back_after(came.saturating_duration_since(ended));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

// ---------------------------------------------------------------- trackers

/// A tracker that behaves as it was told last.
struct Tracker {
    address: SocketAddr,
    mood: tokio::sync::watch::Sender<Mood>,
    asked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Clone)]
enum Mood {
    /// Takes the question and says nothing.
    Silent,
    /// This answer.
    Says(Vec<u8>),
}

impl Tracker {
    async fn new(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (mood, asked) = (tokio::sync::watch::Sender::new(mood), std::sync::Arc::<std::sync::atomic::AtomicUsize>::default());
        let (heard, count) = (mood.subscribe(), asked.clone());
        let serving = tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut heard = heard.clone();
                tokio::spawn(async move {
                    let mut question = [0; 4096];
                    // What it is asked changes nothing.
                    let Ok(1..) = caller.read(&mut question).await else { return };
                    let said = heard.wait_for(|mood| matches!(mood, Mood::Says(_))).await.map(|mood| mood.clone());
                    if let Ok(Mood::Says(answer)) = said {
                        caller.write_all(&answer).await.ok();
                    }
                });
            }
        });
        Self { address, mood, asked, serving }
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn answer(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    /// An answer with this one peer in it (BEP 3, BEP 23).
    fn with(peer: SocketAddr) -> Vec<u8> {
        let SocketAddr::V4(peer) = peer else { panic!("loopback") };
        let mut body = b"d8:intervali1800e5:peers6:".to_vec();
        body.extend(peer.ip().octets());
        body.extend(peer.port().to_be_bytes());
        body.push(b'e');
        Self::answer("200 OK", &body)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trackers_that_hang_fail_or_babble_hold_up_nobody() {
    let mut row = Row::of("network", "of five trackers one hangs, one says 500, one babbles, one is not there, and one knows a peer");
    let house = House::of(TestServer::among_strangers(&["--allow-private-peers"]).await);
    let theatre = Theatre::of(24).await;
    let silent = Tracker::new(Mood::Silent).await;
    let broken = Tracker::new(Mood::Says(Tracker::answer("500 Internal Server Error", b"no"))).await;
    let babbling = Tracker::new(Mood::Says(Tracker::answer("200 OK", &b"d5:peersi".repeat(5000)))).await;
    let good = Tracker::new(Mood::Says(Tracker::with(theatre.line.front()))).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let all = [silent.address, broken.address, babbling.address, nobody, good.address];
    let link = all.iter().fold(theatre.link_to(&[]), |link, tracker| format!("{link}&tr=http%3A%2F%2F{tracker}%2Fannounce"));
    let begun = Instant::now();
    let started = house.server.start(&link, json!({})).await;
    let watch = Watch::over(&house.server, &id(&started));
    let ready = house.server.until_ready(&id(&started)).await;
    row.back_after(begun.elapsed());
    for tracker in [&silent, &broken, &babbling, &good] {
        assert!(tracker.asked() > 0, "each was asked");
    }
    watch.told().into_iter().for_each(|told| row.saw(told));
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_fails_at_first_is_asked_again() {
    let mut row = Row::of("network", "the only tracker answers 503 at first");
    let house = House::of(TestServer::among_strangers(&["--allow-private-peers"]).await);
    let theatre = Theatre::of(24).await;
    let tracker = Tracker::new(Mood::Says(Tracker::answer("503 Service Unavailable", b""))).await;
    let link = format!("{}&tr=http%3A%2F%2F{}%2Fannounce", theatre.link_to(&[]), tracker.address);
    let started = house.server.start(&link, json!({})).await;
    let watch = Watch::over(&house.server, &id(&started));
    is_told_to_wait(&house.server, &id(&started), &mut row).await;
    super::stage::eventually("the tracker was asked", || tracker.asked() > 0).await;
    watch.told().into_iter().for_each(|told| row.saw(told));
    let ended = Instant::now();
    tracker.mood.send_replace(Mood::Says(Tracker::with(theatre.line.front())));
    let ready = house.server.until(&id(&started), LONG.as_secs(), "ready", |status| status["status"] == "ready").await;
    assert!(tracker.asked() > 1, "it was asked again");
    row.back_after(ended.elapsed());
    let viewer = Viewer::of(&house.server, &ready, &theatre.film).await;
    viewer.plays(&house.server, 0..=viewer.last()).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

// ---------------------------------------------------------------- cables

/// Somebody watches over a real interface that goes away under him; then it is back, as told.
async fn cable_is(fault: &'static str, begins: impl FnOnce(&Cable), ends: impl FnOnce(&Cable)) {
    let film = film(60);
    let Some(mut cable) = Cable::to_a_seeder_of(&film) else { return };
    let mut row = Row::of("network", fault);
    let house = House::open().await;
    cable.at_rate(PACE);
    let started = house.server.start(&cable.link(), json!({})).await;
    let watch = Watch::over(&house.server, &id(&started));
    let ready = house.server.until_ready(&id(&started)).await;
    let viewer = Viewer::of(&house.server, &ready, &film).await;
    viewer.plays(&house.server, 0..2).await;
    let held = Held::by(&house.server, &viewer).await;
    watch.told();
    begins(&cable);
    let waits = async {
        is_told_to_wait(&house.server, &viewer.id, &mut row).await;
        watch.told().into_iter().for_each(|told| row.saw(told));
        cable.at_rate(0);
        ends(&cable);
        Instant::now()
    };
    let next = async {
        let got = viewer.plays(&house.server, 2..=viewer.last()).await;
        (got, Instant::now())
    };
    let (ended, (got, came)) = tokio::join!(waits, next);
    row.saw(format!("503 segment_late × {}", got.late));
    row.back_after(came.saturating_duration_since(ended));
    held.is_all_there(&house.server, &viewer, &mut row).await;
    watch.ends().await;
    row.write();
    house.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_goes_down_and_up_is_used_again() {
    cable_is("the network interface goes down and comes up again", Cable::is_pulled_out, Cable::is_put_in).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_gets_another_address_calls_its_peers_from_there() {
    cable_is("the network interface goes down and comes up with another address", Cable::is_pulled_out, |cable| {
        cable.gets_another_address();
        cable.is_put_in();
    })
    .await;
}
