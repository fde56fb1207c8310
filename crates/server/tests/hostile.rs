//! Links and films of strangers who want to see this machine's network and files through us: nobody is called, and nothing is told.
//!
//! Calls are counted by listeners whose addresses stand in what the stranger sends. That the listeners count is shown first.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};
use tokio::task::JoinSet;

/// Generous: nothing here measures time, it only must not be endless.
const LONG: u64 = 120;

/// What stands in files that no stranger should ever see.
const SECRETS: [&str; 3] = ["root:x:0:0", "root:*:", "admin-token"];

/// Counts who calls one port of this machine, by TCP or UDP, at each of its loopback addresses.
struct Bell {
    port: u16,
    rung: Arc<AtomicUsize>,
}

impl Bell {
    fn hang() -> Self {
        let rung = Arc::new(AtomicUsize::new(0));
        let (port, first) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").expect("listening");
            let port = tcp.local_addr().expect("an address").port();
            if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
                break (port, tcp);
            }
        };
        listen(first, &rung);
        for host in ["::1", "127.0.1.1"] {
            // Not every machine has each of them.
            TcpListener::bind((host, port)).ok().into_iter().for_each(|tcp| listen(tcp, &rung));
        }
        for host in ["127.0.0.1", "::1", "127.0.1.1"] {
            UdpSocket::bind((host, port)).ok().into_iter().for_each(|udp| {
                let rung = rung.clone();
                std::thread::spawn(move || {
                    while udp.recv(&mut [0; 2048]).is_ok() {
                        rung.fetch_add(1, Ordering::SeqCst);
                    }
                });
            });
        }
        Self { port, rung }
    }

    fn rung(&self) -> usize {
        self.rung.load(Ordering::SeqCst)
    }
}

fn listen(tcp: TcpListener, rung: &Arc<AtomicUsize>) {
    let rung = rung.clone();
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            rung.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
}

// ---------------------------------------------------------------- links

/// Every way to write "this machine" into the address of a tracker.
fn hosts() -> Vec<String> {
    let mut hosts: Vec<String> = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0177.0.0.1",
        "0177.1",
        "017700000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "0X7F.0x0.0X0.01",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "127.0.1.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "localhost",
        "LocalHost",
        "localhost.",
        "tracker.localhost",
        "%6c%6f%63%61%6c%68%6f%73%74",
        "127%2e0%2e0%2e1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "someone@127.0.0.1",
        "someone:else@127.0.0.1",
        "1.1.1.1@127.0.0.1",
        "1.1.1.1%2f@127.0.0.1",
        "@127.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec();
    // The machine's own name, if it means this machine.
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if (name.as_str(), 1).to_socket_addrs().is_ok_and(|mut found| found.all(|address| address.ip().is_loopback())) {
        hosts.push(name);
    }
    hosts
}

fn parameter(key: &str, value: &str) -> String {
    let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("&{key}={encoded}")
}

/// Links of which none may make this machine call the port.
fn links(port: u16) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for host in hosts() {
        for scheme in ["http", "https", "udp", "HTTP", "ws", "ftp"] {
            parts.push(parameter("tr", &format!("{scheme}://{host}:{port}/announce")));
        }
        // Web seeds, sources, lists of keywords, feeds: whatever a client might fetch.
        for key in ["ws", "as", "xs", "mt", "kt", "cr", "dn"] {
            parts.push(parameter(key, &format!("http://{host}:{port}/film.torrent")));
        }
    }
    for odd in
        ["http:127.0.0.1", "http:/127.0.0.1", "http:\\\\127.0.0.1", "//127.0.0.1", "http://1.1.1.1:80#@127.0.0.1", "http://127.0.0.1\t"]
    {
        parts.push(parameter("tr", &format!("{odd}:{port}/announce")));
    }
    for peer in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.0.1.1", "localhost", "0.0.0.0", "2130706433"] {
        parts.push(parameter("x.pe", &format!("{peer}:{port}")));
    }
    // A link holds fifty trackers at most.
    let links = parts.chunks(30).enumerate();
    links.map(|(n, parts)| format!("magnet:?xt=urn:btih:{:040x}{}", 0xabc0_0000_u64 + n as u64, parts.concat())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_link_makes_this_machine_call_itself() {
    let bell = Bell::hang();
    // The same links with everything allowed: the bell rings, so it would.
    let careless = ["--metadata-timeout", "4s", "--allow-private-peers"];
    for part in [
        parameter("tr", &format!("http://127.0.0.1:{}/announce", bell.port)),
        parameter("tr", &format!("udp://localhost:{}", bell.port)),
        parameter("x.pe", &format!("127.0.0.1:{}", bell.port)),
    ] {
        let (server, before) = (TestServer::among_strangers(&careless).await, bell.rung());
        fails(&server, &format!("magnet:?xt=urn:btih:{:040x}{part}", 0xdef_u64), "no_peers").await;
        assert!(bell.rung() > before, "nobody rings for {part} even where that is allowed");
    }

    let server = Arc::new(TestServer::among_strangers(&["--metadata-timeout", "4s"]).await);
    let before = bell.rung();
    let mut trials = JoinSet::new();
    // A device may look into so many at once.
    let looks = Arc::new(tokio::sync::Semaphore::new(3));
    for link in links(bell.port) {
        let (server, looks) = (server.clone(), looks.clone());
        trials.spawn(async move {
            let look = looks.acquire().await.expect("open");
            let answer = server.call(reqwest::Method::POST, "/api/torrents/inspect", Some(json!({ "magnetLink": link }))).await;
            assert!(matches!(answer.status, 422), "{}: {}", answer.status, answer.text());
            drop(look);
            fails(&server, &link, "no_peers").await;
        });
    }
    while let Some(trial) = trials.join_next().await {
        trial.expect("no peers, and that is all");
    }
    // What was only being begun would come soon.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bell.rung(), before, "somebody was called\n{}", server.said());
}

/// Nothing but the three forms of a magnet or hash is taken: a URL is not fetched in order to see what it is.
#[tokio::test(flavor = "multi_thread")]
async fn no_address_of_a_user_is_fetched() {
    let bell = Bell::hang();
    let server = TestServer::among_strangers(&["--metadata-timeout", "4s"]).await;
    let port = bell.port;
    for link in [
        format!("http://127.0.0.1:{port}/film.torrent"),
        format!("https://localhost:{port}/film.torrent"),
        format!("udp://127.0.0.1:{port}"),
        "file:///etc/passwd".to_owned(),
        "/etc/passwd".to_owned(),
        format!("magnet:?xs=http://127.0.0.1:{port}/film.torrent"),
        format!("magnet:?xt=http://127.0.0.1:{port}/film.torrent"),
    ] {
        for path in ["/api/stream/start", "/api/torrents/inspect"] {
            let answer = server.call(reqwest::Method::POST, path, Some(json!({ "magnetLink": link }))).await;
            assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("bad_magnet")), "{link}");
            tells_nothing(&answer.text(), &link);
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bell.rung(), 0);
}

// ---------------------------------------------------------------- films

/// How a stream ends that was started with `link`.
async fn end_of(server: &TestServer, link: &str, options: Value) -> Value {
    let started = server.start(link, options).await;
    let id = started["streamId"].as_str().expect("an id").to_owned();
    let over = |status: &Value| matches!(status["status"].as_str(), Some("error" | "ready"));
    server.until(&id, LONG, "over", over).await
}

async fn fails(server: &TestServer, link: &str, code: &str) {
    let status = end_of(server, link, json!({})).await;
    assert_eq!((&status["status"], &status["error"]["code"]), (&json!("error"), &json!(code)), "{link}: {status:#}");
    tells_nothing(&status.to_string(), link);
    server.stop(status["streamId"].as_str().expect("an id")).await;
}

fn tells_nothing(said: &str, what: &str) {
    for secret in SECRETS {
        assert!(!said.contains(secret), "{what} tells a secret: {said}");
    }
}

/// Files that call themselves films and are lists of addresses, by name and content.
fn impostors(port: u16) -> Vec<(&'static str, String)> {
    let there = format!("http://127.0.0.1:{port}/secret.ts");
    let hls = |lines: &str| format!("#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:4\n{lines}\n#EXT-X-ENDLIST\n");
    let segment = |address: &str| hls(&format!("#EXTINF:4,\n{address}"));
    let mpd = |address: &str| {
        format!(
            "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" mediaPresentationDuration=\"PT8S\" \
             profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\"><Period><AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\" \
             bandwidth=\"1000\" codecs=\"avc1.42c01e\" width=\"64\" height=\"64\"><BaseURL>{address}</BaseURL><SegmentList duration=\"4\">\
             <SegmentURL media=\"{address}\"/></SegmentList></Representation></AdaptationSet></Period></MPD>"
        )
    };
    vec![
        ("hls.mkv", segment(&there)),
        ("hls.mp4", segment(&there)),
        ("hls-file.mkv", segment("file:///etc/passwd")),
        ("hls-path.mp4", segment("/etc/passwd")),
        ("hls-subfile.mkv", segment("subfile,,start,0,end,64,,:/etc/passwd")),
        ("hls-concat.mkv", segment(&format!("concat:{there}|file:///etc/passwd"))),
        ("hls-data.mp4", segment("data:text/plain;base64,I0VYVE0zVQo=")),
        ("hls-crypto.mp4", hls(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"http://127.0.0.1:{port}/key\"\n#EXTINF:4,\n{there}"))),
        ("hls-map.mkv", hls(&format!("#EXT-X-MAP:URI=\"{there}\"\n#EXTINF:4,\n{there}"))),
        ("hls-master.mkv", format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nhttp://127.0.0.1:{port}/index.m3u8\n")),
        ("dash.mp4", mpd(&there)),
        ("dash-file.mkv", mpd("file:///etc/passwd")),
        (
            "session.mkv",
            format!(
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=film\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
            ),
        ),
        (
            "session-control.mp4",
            format!("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=film\r\nt=0 0\r\na=control:rtsp://127.0.0.1:{port}/\r\nm=video 0 RTP/AVP 96\r\n"),
        ),
        ("redirect.mkv", format!("RTSPtextrtsp://127.0.0.1:{port}/film\r\n")),
        ("concat.mkv", format!("ffconcat version 1.0\nfile {there}\n")),
        ("concat.mp4", "ffconcat version 1.0\nfile '/etc/passwd'\nduration 4\n".to_owned()),
        ("concat-bare.mkv", "file '/etc/passwd'\n".to_owned()),
        ("list.mp4", format!("[playlist]\nNumberOfEntries=1\nFile1={there}\n")),
        ("asx.mkv", format!("<ASX version=\"3.0\"><ENTRY><REF HREF=\"{there}\"/></ENTRY></ASX>")),
        ("reference.mp4", format!("[Reference]\nRef1={there}\n")),
        ("smil.mkv", format!("<smil><body><video src=\"{there}\"/></body></smil>")),
        (
            "cpl.mkv",
            format!(
                "<?xml version=\"1.0\"?><CompositionPlaylist xmlns=\"http://www.smpte-ra.org/schemas/2067-3/2016\"><Id>{there}</Id></CompositionPlaylist>"
            ),
        ),
        ("picture-%03d.mkv", "P6\n1 1\n255\n...".to_owned()),
        ("picture-*.mp4", "P6\n1 1\n255\n...".to_owned()),
        ("subtitles.mkv", format!("1\n00:00:01,000 --> 00:00:02,000\n<img src=\"{there}\">\n")),
        ("commands.mkv", format!("#!/bin/sh\ncurl {there}\n")),
        ("manifest.mp4", format!("<SmoothStreamingMedia Duration=\"1\" Url=\"{there}\"></SmoothStreamingMedia>")),
        ("reference-movie.mp4", reference_movie(&there)),
    ]
}

/// A QuickTime movie that is nothing but the address of another one (`rmra`). Its lengths are small: it is text throughout.
fn reference_movie(address: &str) -> String {
    let part = |name: &str, body: Vec<u8>| [&(body.len() as u32 + 8).to_be_bytes()[..], name.as_bytes(), &body].concat();
    let link = [&[0; 4][..], b"url ", &(address.len() as u32 + 1).to_be_bytes(), address.as_bytes(), b"\0"].concat();
    let movie = part("moov", part("rmra", part("rmda", part("rdrf", link))));
    String::from_utf8([part("ftyp", b"qt  \0\0\0\0qt  ".to_vec()), movie].concat()).expect("small lengths are text")
}

#[tokio::test(flavor = "multi_thread")]
async fn films_that_are_lists_of_addresses_are_refused_and_nobody_is_called() {
    let bell = Bell::hang();
    let folder = tempfile::tempdir().expect("a folder");
    // What these files do to an ffmpeg without our care: it calls.
    let list = folder.path().join("careless.m3u8");
    std::fs::write(&list, &impostors(bell.port)[0].1).expect("written");
    let careless = Command::new("ffprobe").args(["-v", "error", "-protocol_whitelist", "file,http,tcp", "-i"]).arg(&list).output();
    assert!(!careless.expect("ffprobe").status.success() && bell.rung() > 0, "the bell rings");
    let before = bell.rung();

    // A device may start twenty streams in a minute.
    for some in impostors(bell.port).chunks(9) {
        refuses_all(some, folder.path()).await;
    }
    assert_eq!(bell.rung(), before, "somebody was called");
}

async fn refuses_all(impostors: &[(&'static str, String)], folder: &Path) {
    let server = Arc::new(TestServer::open().await);
    let mut trials = JoinSet::new();
    for (name, content) in impostors {
        let (name, film) = (*name, folder.join(name));
        // Long enough for a film, and still what it is: all of these formats end where they end.
        std::fs::write(&film, content.clone() + &"\n".repeat(70_000)).expect("written");
        let server = server.clone();
        trials.spawn(async move {
            let swarm = Swarm::seed(&film, SwarmOptions::default()).await;
            for options in [json!({}), json!({ "quality": "360p" })] {
                let status = end_of(&server, &swarm.link(), options).await;
                assert_eq!((&status["status"], &status["error"]["code"]), (&json!("error"), &json!("not_playable")), "{name}: {status:#}");
                tells_nothing(&status.to_string(), name);
                server.stop(status["streamId"].as_str().expect("an id")).await;
            }
        });
    }
    while let Some(trial) = trials.join_next().await {
        trial.expect("refused");
    }
    tells_nothing(&server.said(), "the log");
}

/// Four letters and a length, anywhere in a box's path.
fn position(bytes: &[u8], name: &[u8], from: usize) -> usize {
    from + bytes[from..].windows(4).position(|four| four == name).expect("the box") - 4
}

/// An MP4 whose data reference (ISO/IEC 14496-12, 8.7.2) says that the samples lie elsewhere. The tables stand behind the samples, so
/// that nothing else moves when they grow.
fn elsewhere(film: &Path, address: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(film).expect("the film");
    let entry = [&(address.len() as u32 + 13).to_be_bytes()[..], b"url ", &[0; 4], address.as_bytes(), b"\0"].concat();
    let moov = position(&bytes, b"moov", position(&bytes, b"mdat", 0));
    let mut from = moov;
    while let Some(found) = bytes[from..].windows(4).position(|four| four == b"dref") {
        let dref = from + found - 4;
        let old = dref + 16;
        assert_eq!(&bytes[old..old + 8], b"\0\0\0\x0curl ", "one reference, to itself");
        let growth = entry.len() as u32 - 12;
        bytes.splice(old..old + 12, entry.iter().copied());
        // Every box around it grows: those whose extent holds the place.
        let mut inside = vec![dref];
        for name in [b"moov", b"trak", b"mdia", b"minf", b"dinf"] {
            let before = bytes[..dref].windows(4).rposition(|four| four == name).expect("the box") - 4;
            inside.push(before);
        }
        for at in inside {
            let len = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four")) + growth;
            bytes[at..at + 4].copy_from_slice(&len.to_be_bytes());
        }
        from = old + entry.len();
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn films_that_point_elsewhere_play_what_they_hold_and_nobody_is_called() {
    let bell = Bell::hang();
    let folder = tempfile::tempdir().expect("a folder");
    let there = format!("http://127.0.0.1:{}/secret.mp4", bell.port);
    let behind = films::by_ffmpeg("behind.mp4", &format!("{} {} {}", films::both(6.0), films::X264, films::AAC));
    let made = |name: &str, bytes: &[u8]| -> PathBuf {
        std::fs::write(folder.path().join(name), bytes).expect("written");
        folder.path().join(name)
    };
    let by_address = made("dref-address.mp4", &elsewhere(&behind, &there));
    let by_file = made("dref-file.mp4", &elsewhere(&behind, "file:///etc/passwd"));
    // ffmpeg as it is today follows such references to files only, and only when told to; this holds it to that.
    let before = bell.rung();

    let note = made("note.html", format!("<img src=\"{there}\">").as_bytes());
    let linked = folder.path().join("linked.mkv");
    let done = Command::new("mkvmerge")
        .args(["-q", "-o"])
        .arg(&linked)
        .args(["--link-to-next", "0x41da73660f2ef23a6b1e9d2f0d3f3f01", "--attachment-mime-type", "text/html", "--attach-file"])
        .arg(&note)
        .arg(&behind)
        .status();
    assert!(done.expect("mkvmerge (Debian: mkvtoolnix)").success());

    let server = TestServer::open().await;
    for (film, may_play) in [(by_address, true), (by_file, true), (linked, true)] {
        let what = film.display().to_string();
        let swarm = Swarm::seed(&film, SwarmOptions::default()).await;
        for options in [json!({}), json!({ "quality": "360p" })] {
            let status = end_of(&server, &swarm.link(), options).await;
            let plays = status["status"] == "ready";
            let refused = ["not_playable", "conversion_failed"].iter().any(|code| status["error"]["code"] == *code);
            assert!((plays && may_play) || refused, "{what}: {status:#}");
            tells_nothing(&status.to_string(), &what);
            if plays {
                let master = server.fetch(status["streamUrl"].as_str().expect("an address")).await;
                tells_nothing(&String::from_utf8_lossy(&master), &what);
            }
            server.stop(status["streamId"].as_str().expect("an id")).await;
        }
    }
    assert_eq!(bell.rung(), before, "somebody was called\n{}", server.said());
}

/// The addresses above mean this machine, so that a call would have been heard.
#[test]
fn what_is_tried_would_be_heard() {
    let bell = Bell::hang();
    let before = bell.rung();
    for host in ["127.0.0.1", "localhost"] {
        let addresses: Vec<SocketAddr> = (host, bell.port).to_socket_addrs().expect("known").collect();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        std::net::TcpStream::connect(&addresses[..]).expect("connected");
    }
    let udp = UdpSocket::bind((IpAddr::from([127, 0, 0, 1]), 0)).expect("bound");
    udp.send_to(b"hello", ("127.0.0.1", bell.port)).expect("sent");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(bell.rung() - before, 3);
}
