//! Subtitles, seen from outside: the real program, a real swarm, films with text of every make. What a player gets is compared with the
//! film's own cues, and with what ffmpeg reads of it.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use balcony_media::subtitle::vtt;
use encoding_rs::{Encoding, SHIFT_JIS, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252};
use m3u8_rs::{AlternativeMediaType, MasterPlaylist, MediaPlaylist};
use reqwest::Method;
use serde_json::{Value, json};
use server::{Answer, TestServer};
use swarm::{Swarm, SwarmOptions};

/// A cue as it has to come: milliseconds, and the payload.
type Said = (i64, i64, String);

/// What the test films say: nothing overlaps, because timed text of MP4 cannot. Two reach over cuts of the picture (at 4.3, 9.7, 14.2 s).
const LINES: [(i64, i64, &str); 5] = [
    (500, 1700, "<i>Line one</i> – café"),
    (3000, 11_000, "Long, and it & goes on\nin a second row"),
    (11_500, 12_500, "<b>日本語</b>"),
    (14_000, 14_400, "over a cut"),
    (16_000, 18_000, "the last"),
];

fn stamp(at: i64, point: char) -> String {
    format!("{:02}:{:02}:{:02}{point}{:03}", at / 3_600_000, at / 60_000 % 60, at / 1000 % 60, at % 1000)
}

fn srt(lines: &[(i64, i64, &str)]) -> String {
    let block =
        |(n, (from, to, text)): (usize, &(i64, i64, &str))| format!("{}\n{} --> {}\n{text}\n\n", n + 1, stamp(*from, ','), stamp(*to, ','));
    lines.iter().enumerate().map(block).collect()
}

fn ass(lines: &[(i64, i64, &str)]) -> String {
    let head = "[Script Info]\nPlayResX: 640\nPlayResY: 360\n\n[V4+ Styles]\nFormat: Name, Bold, Italic, Underline, Alignment\nStyle: Default,0,0,0,2\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n";
    let time = |at: i64| format!("{}:{:02}:{:02}.{:02}", at / 3_600_000, at / 60_000 % 60, at / 1000 % 60, at / 10 % 100);
    let event = |(from, to, text): &(i64, i64, &str)| {
        let text =
            text.replace("<i>", "{\\i1}").replace("</i>", "{\\i0}").replace("<b>", "{\\b1}").replace("</b>", "{\\b0}").replace('\n', "\\N");
        format!("Dialogue: 0,{},{},Default,,0,0,0,,{{\\an8}}{text}\n", time(*from), time(*to))
    };
    head.to_owned() + &lines.iter().map(event).collect::<String>()
}

/// The lines as WebVTT says them.
fn expected() -> BTreeSet<Said> {
    LINES.iter().map(|(from, to, text)| (*from, *to, text.replace(" & ", " &amp; "))).collect()
}

/// Puts a file beside the films of the tests.
fn written(name: &str, text: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("subtitles");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    let aside = folder.join(format!("{name}.{}", std::process::id()));
    std::fs::write(&aside, text).expect("written");
    std::fs::rename(aside, &path).expect("in place");
    path
}

/// The usual film with two texts, put together by ffmpeg.
fn film(name: &str, codecs: &str) -> PathBuf {
    let (first, second) = (written("lines.srt", &srt(&LINES)), written("lines.ass", &ass(&LINES)));
    let inputs = format!("-i {} -i {} -i {}", films::usual(20.0).display(), first.display(), second.display());
    films::by_ffmpeg(
        name,
        &format!(
            "{inputs} -map 0 -map 1 -map 2 -c copy {codecs} -metadata:s:s:0 language=eng -metadata:s:s:1 language=jpn -disposition:s:1 forced"
        ),
    )
}

fn said(text: &str) -> BTreeSet<Said> {
    vtt::parse(text).into_iter().map(|cue| (cue.start, cue.end, cue.text)).collect()
}

fn path_of(url: &str) -> String {
    url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned())).expect("a path")
}

fn string(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}")).to_owned()
}

/// As the owner.
async fn asked(server: &TestServer, path: &str) -> Answer {
    server.call(Method::GET, path, None).await
}

async fn master(server: &TestServer, status: &Value) -> (String, MasterPlaylist) {
    let url = path_of(&string(status, "streamUrl"));
    let text = server.fetch(&url).await;
    let (_, master) = m3u8_rs::parse_master_playlist(&text).expect("a master playlist");
    (url.trim_end_matches("master.m3u8").to_owned(), master)
}

async fn playlist(server: &TestServer, url: &str) -> MediaPlaylist {
    m3u8_rs::parse_media_playlist(&server.fetch(url).await).expect("a media playlist").1
}

/// What ffmpeg reads of a film's text.
fn by_ffmpeg(film: &Path, stream: usize) -> BTreeSet<Said> {
    let map = format!("0:s:{stream}");
    let out =
        Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(film).args(["-map", &map, "-f", "webvtt", "-"]).output().expect("ffmpeg");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    said(&String::from_utf8_lossy(&out.stdout))
}

/// Judges the text renditions of a film segment by segment, and as files.
async fn judge(film: &Path) {
    let swarm = Swarm::seed(film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    assert_eq!(status["subtitles"].as_array().map(Vec::len), Some(2), "{status:#}");
    let (folder, master) = master(&server, &status).await;
    let texts: Vec<_> = master.alternatives.iter().filter(|one| one.media_type == AlternativeMediaType::Subtitles).collect();
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0].language.as_deref(), Some("en"));
    assert!(master.variants.iter().all(|variant| variant.subtitles.as_ref() == Some(&texts[0].group_id)));
    // MP4 has no word for what is forced that ffmpeg would write.
    let is_matroska = film.extension().is_some_and(|ending| ending == "mkv");
    let flags: Vec<_> = texts.iter().map(|text| (text.default, text.autoselect, text.forced)).collect();
    assert_eq!(flags, [(false, true, false), (false, true, is_matroska)]);
    let picture = playlist(&server, &format!("{folder}v0/index.m3u8")).await;
    for (n, text) in texts.iter().enumerate() {
        // A muxer may move all tracks of a film together, by the priming of its sound.
        let truth = by_ffmpeg(film, n);
        assert!(truth.iter().zip(&expected()).all(|(is, was)| is.2 == was.2 && (is.0 - was.0).abs() < 25), "the film itself: {truth:?}");
        let uri = text.uri.clone().expect("a URI");
        let list = playlist(&server, &format!("{folder}{uri}")).await;
        assert_eq!(list.target_duration, picture.target_duration);
        assert!(list.end_list && list.segments.len() > 3);
        let lengths = |list: &MediaPlaylist| list.segments.iter().map(|segment| segment.duration).collect::<Vec<_>>();
        assert_eq!(lengths(&list), lengths(&picture), "text is cut as the picture is");
        let mut all = BTreeSet::new();
        let mut begins = 0.0;
        for segment in &list.segments {
            let ends = begins + f64::from(segment.duration) * 1000.0;
            let answer = server.get(&format!("{folder}s{}/{}", n + 1, segment.uri)).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/vtt; charset=utf-8")));
            assert!(answer.text().starts_with("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n"), "{}", answer.text());
            let those = said(&answer.text());
            let within: BTreeSet<Said> =
                truth.iter().filter(|(from, to, _)| (*from as f64) < ends && *to as f64 > begins).cloned().collect();
            assert_eq!(those, within, "segment {} of s{} from {begins} to {ends}", segment.uri, n + 1);
            all.extend(those);
            begins = ends;
        }
        assert_eq!(all, truth);
        let in_fragments = server.get(&format!("{folder}s{}/init.mp4", n + 1)).await;
        assert_eq!((in_fragments.status, in_fragments.header("content-type")), (200, Some("application/mp4")));
        let first = server.fetch(&format!("{folder}s{}/0.m4s", n + 1)).await;
        assert!(String::from_utf8_lossy(&first).contains("payl<i>Line one</i> – café"));
        let past = server.get(&format!("{folder}s{}/{}.vtt", n + 1, list.segments.len())).await;
        assert_eq!(past.status, 404);
    }
    judge_files(&server, &status, &by_ffmpeg(film, 0)).await;
}

/// The list, and the text of each track as one file.
async fn judge_files(server: &TestServer, status: &Value, truth: &BTreeSet<Said>) {
    let id = string(status, "streamId");
    server.until(&id, 60, "complete", |status| status["phase"] == "complete").await;
    let list = asked(server, &format!("/api/stream/{id}/subtitles")).await.json();
    assert_eq!(list["tracks"].as_array().map(Vec::len), Some(2), "{list:#}");
    let short = |language: &str| list["subtitles"][language].as_str().map(str::to_owned);
    assert!(short("en").is_some_and(|url| url.ends_with("/s1.vtt")), "{list:#}");
    for track in list["tracks"].as_array().expect("tracks") {
        let bare = reqwest::Client::new().get(server.here(&string(track, "url"))).send().await.expect("an answer");
        assert_eq!(bare.headers()["subtitle-complete"], "true", "{track:#}");
        assert_eq!(&said(&bare.text().await.expect("text")), truth);
        for name in [string(track, "id"), string(track, "language")] {
            let answer = asked(server, &format!("/api/stream/{id}/subtitles/{name}")).await;
            assert_eq!((answer.status, &said(&answer.text())), (200, truth));
        }
    }
    let missing = asked(server, &format!("/api/stream/{id}/subtitles/s9")).await;
    assert_eq!((missing.status, missing.json()["code"].clone()), (404, json!("not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_matroska_by_ffmpeg() {
    judge(&film("texts.mkv", "-c:s:0 srt -c:s:1 ass")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_matroska_by_mkvmerge() {
    judge(&films::by_mkvmerge("merged.mkv", "", &film("texts.mkv", "-c:s:0 srt -c:s:1 ass"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_matroska_whose_cues_know_no_text() {
    judge(&films::by_mkvmerge("few-cues.mkv", "--cues 2:none --cues 3:none", &film("texts.mkv", "-c:s:0 srt -c:s:1 ass"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_mp4() {
    judge(&film("texts.mp4", "-c:s mov_text -movflags +faststart")).await;
}

/// A film as it is shared: in a folder, with texts in old charsets beside it.
fn shared(folder: &Path) -> Vec<(&'static str, &'static str, String)> {
    let spoken: [(&str, &str, &'static Encoding, &str); 4] = [
        ("Film.en.srt", "en", WINDOWS_1252, "It’s a naïve café – isn’t it? Déjà vu, he said."),
        ("Subs/2_Polish.srt", "pl", WINDOWS_1250, "Zażółć gęślą jaźń. Nie wiem, co się stało."),
        ("Film.ru.forced.srt", "ru", WINDOWS_1251, "Съешь же ещё этих мягких французских булок."),
        ("Film.ja.srt", "ja", SHIFT_JIS, "私はここにいます。いろはにほへと。"),
    ];
    std::fs::create_dir_all(folder.join("Subs")).expect("a folder");
    std::fs::copy(films::usual(20.0), folder.join("Film.mp4")).expect("a film");
    let mut all: Vec<(&str, &str, String)> = Vec::new();
    for (name, language, charset, text) in spoken {
        let (bytes, _, lossy) = charset.encode(text).clone();
        assert!(!lossy, "{name}");
        let body = [srt(&[(1000, 2000, "@")]).split('@').next().expect("a head").as_bytes(), &bytes, b"\n\n"].concat();
        std::fs::write(folder.join(name), body).expect("written");
        all.push((name, language, text.to_owned()));
    }
    let german: Vec<u8> = ass(&[(1000, 2000, "Grüße")]).encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(folder.join("Film.de.ass"), [&b"\xff\xfe"[..], &german].concat()).expect("written");
    all.push(("Film.de.ass", "de", "Grüße".to_owned()));
    std::fs::write(folder.join("Film.sub"), "{1}{1}24\n{24}{48}counted").expect("written");
    all.push(("Film.sub", "und", "counted".to_owned()));
    std::fs::write(folder.join("Other.srt"), srt(&[(1, 2, "of another film")])).expect("written");
    std::fs::write(folder.join("Film.nfo"), "no subtitles").expect("written");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_beside_the_film_in_whatever_charset() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("Film (2020)");
    let spoken = shared(&root);
    let swarm = Swarm::seed(&root, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    let id = string(&status, "streamId");
    let list = asked(&server, &format!("/api/stream/{id}/subtitles")).await.json();
    let tracks = list["tracks"].as_array().unwrap_or_else(|| panic!("{list:#} {status:#}"));
    for (name, language, text) in &spoken {
        let track = tracks.iter().find(|track| track["language"] == *language).unwrap_or_else(|| panic!("no {name} in {list:#}"));
        assert_eq!(track["external"], true);
        assert_eq!(track["forced"], name.contains("forced"), "{name}");
        let answer = server.get(&path_of(&string(track, "url"))).await;
        assert_eq!((answer.status, answer.header("subtitle-complete")), (200, Some("true")), "{name}");
        assert_eq!(said(&answer.text()), BTreeSet::from([(1000, 2000, text.clone())]), "{name}");
    }
    // "Other.srt" may be of the only film: the torrent has no second one.
    assert_eq!(tracks.len(), spoken.len() + 1, "{list:#}");
    let (folder, master) = master(&server, &status).await;
    let uri = master.alternatives.iter().find(|one| one.language.as_deref() == Some("pl")).and_then(|one| one.uri.clone()).expect("Polish");
    let first = server.fetch(&format!("{folder}{}", uri.replace("index.m3u8", "0.vtt"))).await;
    assert!(String::from_utf8_lossy(&first).contains("Zażółć"));
}

async fn send(server: &TestServer, token: &str, id: &str, query: &str, body: impl Into<reqwest::Body>) -> Answer {
    let address = server.here(&format!("/api/stream/{id}/subtitles{query}"));
    server::answer(server.client().post(address).bearer_auth(token).header("content-type", "application/x-subrip").body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_somebody_sends_stay_with_the_stream() {
    let swarm = Swarm::seed(films::usual(20.0), SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let (mine, theirs) = (server.pair("Mine", Some("One")).await, server.pair("Theirs", Some("Two")).await);
    let started = server.call_as(&mine, Method::POST, "/api/stream/start", Some(json!({ "magnetLink": swarm.link() }))).await.json();
    let id = string(&started, "streamId");
    let ready = server.until_ready(&id).await;
    assert_eq!(ready["subtitles"], json!([]));
    let none = server.call_as(&mine, Method::GET, &format!("/api/stream/{id}/subtitles"), None).await;
    assert_eq!((none.status, none.json()["code"].clone()), (404, json!("not_found")));

    let (bytes, _, _) = WINDOWS_1250.encode("1\n00:00:01,000 --> 00:00:02,000\nPříliš žluťoučký kůň úpěl ďábelské ódy.\n");
    let added = send(&server, &mine, &id, "?name=usual.cs.srt", bytes.into_owned()).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let track = added.json();
    assert_eq!(
        (&track["id"], &track["language"], &track["format"], &track["external"]),
        (&json!("s1"), &json!("cs"), &json!("srt"), &json!(true))
    );
    let wicked = "1\n00:00:03,000 --> 00:00:04,000\n<script>alert(1)</script><img src=x onerror=alert(1)> --> {\\an8}<b><i><u>x\n\n2\n99:99:99,999 --> 00:00:00,000\nno\n";
    let second = send(&server, &mine, &id, "?language=en&title=Mine%0A%22x", wicked).await.json();
    assert_eq!((&second["id"], &second["title"]), (&json!("s2"), &json!("Mine\"x")));

    for (query, body, status) in [("", "no subtitles".to_owned(), 422), ("", String::new(), 422), ("", "1\n".repeat(5 << 20), 413)] {
        assert_eq!(send(&server, &mine, &id, query, body).await.status, status);
    }
    assert_eq!(send(&server, &theirs, &id, "", srt(&LINES)).await.status, 404, "another person's stream does not exist");
    assert_eq!(server.call_as(&theirs, Method::GET, &format!("/api/stream/{id}/subtitles/s1"), None).await.status, 404);

    let before = judge_sent(&server, &mine, &id).await;
    server.restart().await;
    let shown = server.call_as(&mine, Method::GET, &format!("/api/stream/status/{id}"), None).await.json();
    assert_eq!(shown["subtitles"].as_array().map(Vec::len), Some(2), "{shown:#}");
    assert_eq!(judge_sent(&server, &mine, &id).await, before);
    let third = send(&server, &mine, &id, "", srt(&LINES)).await.json();
    assert_eq!(third["id"], "s3");

    // Another quality is another stream; what its person sent for the film is there too, and nothing of it for anybody else.
    let smaller = json!({ "magnetLink": swarm.link(), "quality": "360p" });
    let other = server.call_as(&mine, Method::POST, "/api/stream/start", Some(smaller.clone())).await.json();
    let other = string(&other, "streamId");
    assert_ne!(other, id);
    server.until_ready(&other).await;
    assert_eq!(judge_sent(&server, &mine, &other).await.len(), before.len() + 1);
    server.stop(&id).await;
    assert_eq!(server.call_as(&mine, Method::GET, &format!("/api/stream/{other}/subtitles/s3"), None).await.status, 200);
    let foreign = server.call_as(&theirs, Method::POST, "/api/stream/start", Some(smaller)).await.json();
    let foreign = server.until_ready(&string(&foreign, "streamId")).await;
    assert_eq!(foreign["subtitles"], json!([]));
    assert_eq!(server.call_as(&mine, Method::GET, &format!("/api/stream/{id}/subtitles/s1"), None).await.status, 404);
}

/// What was sent, as a player gets it.
async fn judge_sent(server: &TestServer, token: &str, id: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for (name, language) in [("s1", "cs"), ("s2", "en")] {
        let by_id = server.call_as(token, Method::GET, &format!("/api/stream/{id}/subtitles/{name}"), None).await;
        let by_language = server.call_as(token, Method::GET, &format!("/api/stream/{id}/subtitles/{language}"), None).await;
        assert_eq!((by_id.status, by_id.text()), (200, by_language.text()));
        texts.push(by_id.text());
    }
    assert!(texts[0].contains("Příliš žluťoučký kůň"), "{}", texts[0]);
    let harmless = "alert(1)&lt;img src=x onerror=alert(1)&gt; --&gt; <i><b><u>x</u></b></i>";
    assert_eq!(said(&texts[1]), BTreeSet::from([(3000, 4000, harmless.to_owned())]));
    let status = server.call_as(token, Method::GET, &format!("/api/stream/status/{id}"), None).await.json();
    let (folder, master) = master(server, &status).await;
    let uris: Vec<_> = master
        .alternatives
        .iter()
        .filter(|one| one.media_type == AlternativeMediaType::Subtitles)
        .filter_map(|one| one.uri.clone())
        .collect();
    assert_eq!(uris.get(..2), Some(["s1/index.m3u8".to_owned(), "s2/index.m3u8".to_owned()].as_slice()));
    for uri in uris {
        texts.push(String::from_utf8_lossy(&server.fetch(&format!("{folder}{}", uri.replace("index.m3u8", "0.vtt"))).await).into_owned());
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn text_in_the_middle_needs_no_byte_more_than_its_segment() {
    let lines: Vec<(i64, i64, &str)> = (0..60).map(|n| (n * 2000 + 500, n * 2000 + 1500, "said")).collect();
    let text = written("many.srt", &srt(&lines));
    let picture = format!("{} {} -i {}", films::picture("640x360", 120.0), films::sound(120.0), text.display());
    let film = films::by_ffmpeg(
        "long-text.mkv",
        &format!("{picture} -map 0 -map 1 -map 2 -c:v libx264 -preset veryfast -b:v 900k -g 48 -pix_fmt yuv420p {} -c:s srt", films::AAC),
    );
    let piece_len = 64 << 10;
    let swarm = Swarm::seed(&film, SwarmOptions { rate: Some(250_000), piece_len, ..SwarmOptions::default() }).await;
    let server = TestServer::open().await;
    let ready = server.play(&swarm.link(), json!({})).await;
    let (folder, _) = master(&server, &ready).await;
    let list = playlist(&server, &format!("{folder}s1/index.m3u8")).await;
    let n = list.segments.len() * 3 / 4;
    let begins: f64 = list.segments.iter().take(n).map(|segment| f64::from(segment.duration)).sum();
    let ends = begins + f64::from(list.segments[n].duration);
    let answer = server.get(&format!("{folder}s1/{n}.vtt")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let within = |at: i64| (at as f64) < ends * 1000.0 && (at + 1000) as f64 > begins * 1000.0;
    let expected: BTreeSet<i64> = lines.iter().map(|line| line.0).filter(|at| within(*at)).collect();
    assert_eq!(said(&answer.text()).into_iter().map(|cue| (cue.0 - 21 + 10) / 100 * 100).collect::<BTreeSet<_>>(), expected);
    let id = string(&ready, "streamId");
    // Spans are looked at once a second.
    let spans_of = |status: &Value| serde_json::from_value::<Vec<(f64, f64)>>(status["fetched"].clone()).expect("spans");
    let is_here = |status: &Value| spans_of(status).iter().any(|(from, to)| *from <= begins + 0.5 && *to >= ends - 0.5);
    let status = server.until(&id, 5, "the segment's span", is_here).await;
    assert!(status["downloadProgress"].as_f64().is_some_and(|share| share < 60.0), "{status:#}");
    let spans = spans_of(&status);
    assert!(!spans.iter().any(|(from, to)| *from < begins - 20.0 && *to > begins), "nothing of what lies before was waited for: {spans:?}");
}
