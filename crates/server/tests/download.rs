//! A film to keep: one MP4 with its tables in front, made of what players get, fetched with ranges, as long as its stream lives.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Generous: it only must not be endless.
const LONG: u64 = 90;

/// Twelve seconds of moving pictures with two languages and subtitles.
fn film(folder: &Path) -> PathBuf {
    let path = folder.join("Ein Film (2020).mkv");
    let text = folder.join("text.srt");
    std::fs::write(&text, "1\n00:00:01,000 --> 00:00:03,000\n<i>Grüße</i>\n\n2\n00:00:09,000 --> 00:00:11,000\nEnde\n").expect("written");
    let args = "-nostdin -v error -y -f lavfi -i testsrc2=s=640x360:r=24:d=12 -f lavfi -i sine=f=330:r=48000:d=12 \
                -f lavfi -i sine=f=660:r=48000:d=12 -i TEXT -map 0 -map 1 -map 2 -map 3 -c:s srt -metadata:s:s:0 language=ger -c:v libx264 -preset ultrafast -bf 2 -g 48 -pix_fmt yuv420p -c:a aac \
                -metadata:s:a:0 language=ger -metadata:s:a:1 language=eng -disposition:a:1 default -disposition:a:0 0";
    let args = args.split_whitespace().map(|word| if word == "TEXT" { text.to_str().expect("text") } else { word });
    let made = Command::new("ffmpeg").args(args).arg(&path).status();
    assert!(made.expect("ffmpeg").success());
    path
}

fn said(program: &str, args: &[&str], path: &Path) -> String {
    let output = Command::new(program).args(args).arg(path).output().expect("ffmpeg is installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.trim().is_empty(), "{program} {args:?}: {complaints}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a decoder makes of all pictures, without their times.
fn pictures(path: &Path) -> Vec<String> {
    let out = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(path).args(["-map", "0:v:0", "-f", "framemd5", "-"]).output();
    let text = String::from_utf8(out.expect("ffmpeg").stdout).expect("text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().expect("a hash").trim().to_owned()).collect()
}

/// What a reader makes of the subtitles.
fn subtitles(path: &Path) -> String {
    let out = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(path).args(["-map", "0:s", "-f", "webvtt", "-"]).output();
    String::from_utf8(out.expect("ffmpeg").stdout).expect("text")
}

fn id(status: &Value) -> &str {
    status["streamId"].as_str().expect("an id")
}

fn job(status: &Value) -> String {
    format!("/api/stream/{}/download", id(status))
}

async fn kept(server: &TestServer, status: &Value, body: Option<Value>) -> Value {
    let begun = server.call(Method::POST, &job(status), body).await;
    assert_eq!((begun.status, begun.json()["download"]["progress"].as_f64()), (202, Some(0.0)), "{}", begun.text());
    server.until(id(status), LONG, "a whole file", |status| status["download"]["url"].is_string()).await
}

async fn bytes(server: &TestServer, status: &Value) -> Vec<u8> {
    server.fetch(&server.here(status["download"]["url"].as_str().expect("a URL"))).await.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_film_is_kept_with_all_that_it_holds_and_stays_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = TestServer::open().await;
    let source = film(folder.path());
    let swarm = Swarm::seed(&source, SwarmOptions::default()).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    assert_eq!(ready["download"], Value::Null);
    let done = kept(&server, &ready, None).await;
    assert_eq!(done["download"]["progress"], 100.0);
    let url = server.here(done["download"]["url"].as_str().expect("a URL"));
    assert!(url.ends_with("/download/Ein%20Film%20%282020%29.mp4"), "{url}");

    let whole = bytes(&server, &done).await;
    let path = folder.path().join("kept.mp4");
    std::fs::write(&path, &whole).expect("written");
    let at = |four: &[u8; 4]| whole.windows(4).position(|window| window == four).expect("a box");
    assert!(at(b"moov") < at(b"mdat"), "its tables stand in front");
    assert_eq!(pictures(&path), pictures(&source));
    let tracks = said("ffprobe", &["-v", "error", "-show_entries", "stream=codec_name:stream_tags=language", "-of", "csv=p=0"], &path);
    assert_eq!(tracks.lines().collect::<Vec<_>>(), ["h264,und", "aac,eng", "aac,ger", "mov_text,ger"], "the sound that plays comes first");
    let [text, of_source] = [&path, &source].map(|path| subtitles(path));
    assert_eq!(text, of_source.replace("<i>", "").replace("</i>", ""), "an MP4 has no word for what leans");
    let entries = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"];
    let [kept, of_source] = [&path, &source].map(|path| said("ffprobe", &entries, path).trim().parse::<f64>().expect("a number"));
    assert!((kept - of_source).abs() < 0.05, "{kept} {of_source}");

    // Any part of it, as a phone goes on with what broke off.
    let head = server.client().head(&url).send().await.expect("an answer");
    let etag = head.headers()[ETAG].clone();
    assert_eq!(head.headers()["content-length"], whole.len().to_string().as_str());
    assert!(head.headers()[CONTENT_DISPOSITION].to_str().expect("text").starts_with("attachment"));
    let tables = at(b"mdat") + 8;
    for (from, to) in [(0, 9), (tables - 5, tables + 700), (whole.len() - 7, whole.len() - 1)] {
        let part =
            server.client().get(&url).header(RANGE, format!("bytes={from}-{to}")).header(IF_RANGE, &etag).send().await.expect("an answer");
        assert_eq!(
            (part.status().as_u16(), part.headers()[CONTENT_RANGE].to_str().expect("text")),
            (206, format!("bytes {from}-{to}/{}", whole.len()).as_str())
        );
        assert_eq!(part.bytes().await.expect("bytes"), whole[from..=to]);
    }

    // Asked for again it is there, after `kill -9` too.
    let again = server.call(Method::POST, &job(&done), Some(json!({}))).await;
    assert_eq!((again.status, again.json()["download"]["progress"].as_f64()), (200, Some(100.0)));
    server.kill_9();
    server.restart().await;
    let back = server.status(id(&done)).await;
    assert_eq!(bytes(&server, &back).await, whole);

    let stopped = server.stop(id(&done)).await;
    assert_eq!(stopped["status"], "stopped");
    let left = std::fs::read_dir(server.cache_dir().join("kept")).expect("the folder").count();
    assert_eq!(left, 0, "it goes with its stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_converted_film_is_kept_in_its_quality_with_the_sound_that_was_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::open().await;
    let source = film(folder.path());
    let swarm = Swarm::seed(&source, SwarmOptions::default()).await;
    let ready = server.play(&swarm.link(), json!({ "quality": "360p", "capabilities": { "video": [], "audio": [] } })).await;
    let wrong = server.call(Method::POST, &job(&ready), Some(json!({ "audio": ["a7"] }))).await;
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (422, Some("invalid")), "{}", wrong.text());
    let done = kept(&server, &ready, Some(json!({ "audio": ["a1"], "subtitles": [] }))).await;
    let path = folder.path().join("kept.mp4");
    std::fs::write(&path, bytes(&server, &done).await).expect("written");
    let tracks = said("ffprobe", &["-v", "error", "-show_entries", "stream=codec_name:stream_tags=language", "-of", "csv=p=0"], &path);
    assert_eq!(tracks.lines().collect::<Vec<_>>(), ["h264,und", "aac,ger"]);
    assert_eq!(pictures(&path).len(), pictures(&source).len());
    let gone = server.call(Method::DELETE, &job(&done), None).await;
    assert_eq!((gone.status, &gone.json()["download"]), (200, &Value::Null));
    let url = server.here(done["download"]["url"].as_str().expect("a URL"));
    assert_eq!(server.get(&url).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_figures_and_half_a_file_is_tidied_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = film(folder.path());
    let size = std::fs::metadata(&source).expect("a film").len();
    let budget = (size * 3 / 2).to_string();
    let mut server = TestServer::with(&["--cache-max-bytes", &budget], &[]).await;
    let swarm = Swarm::seed(&source, SwarmOptions::default()).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    let begun = server.call(Method::POST, &job(&ready), None).await;
    assert_eq!(begun.status, 202);
    let refused = server.until(id(&ready), LONG, "refused", |status| status["download"]["error"].is_object()).await;
    assert_eq!(
        (refused["status"].as_str(), refused["download"]["error"]["code"].as_str()),
        (Some("ready"), Some("no_space")),
        "{refused:#}"
    );
    assert!(refused["download"]["error"]["detail"].as_str().expect("text").contains(budget.as_str()), "{refused:#}");

    server.kill_9();
    let half = server.cache_dir().join("kept").join(format!("{}.media", id(&ready)));
    std::fs::write(&half, b"what a crash left").expect("written");
    server.restart().await;
    assert!(!half.exists());
    assert_eq!(server.status(id(&ready)).await["download"], Value::Null);
}
