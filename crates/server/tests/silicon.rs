//! Encoders in silicon over the real program: one is tried, used, fails in the middle of a film, is told of, and is tried again after a
//! restart; a wish for one, for none, and for no conversion at all. What one run does is tried in `encode.rs`.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

fn ffmpeg(args: &str, out: &Path) {
    let made = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(args.split_whitespace()).arg(out).status();
    assert!(made.expect("ffmpeg").success(), "ffmpeg {args}");
}

/// A film whose picture no browser plays as it is, and one that all play.
fn films(folder: &Path) -> (PathBuf, PathBuf) {
    let (old, new) = (folder.join("old.mkv"), folder.join("new.mp4"));
    let source = "-f lavfi -i testsrc2=s=640x360:r=25:d=40 -f lavfi -i sine=d=40:r=48000";
    ffmpeg(&format!("{source} -c:v mpeg4 -b:v 800k -g 50 -c:a ac3"), &old);
    ffmpeg(&format!("{source} -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 -sc_threshold 0 -c:a aac"), &new);
    (old, new)
}

/// A program in place of ffmpeg that has Nvidia's encoder, which is x264 in disguise.
struct Card(PathBuf);

impl Card {
    /// How it is from the next start of it on.
    fn is(&self, how: &str) {
        let film = match how {
            "well" => "",
            // Behind the first segments of a film; a trial goes well.
            "weak" => "case \"$*\" in *http://*) pictures='-frames:v 90';; esac",
            "missing" => "echo 'Cannot load libcuda.so.1' >&2; exit 1",
            other => panic!("{other}"),
        };
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *h264_nvenc*) ;; *) exec ffmpeg \"$@\";; esac\n{film}\nn=$#\nwhile [ $n -gt 0 ]; do\nword=$1; shift; n=$((n-1))\n\
             case $word in\nh264_nvenc) set -- \"$@\" libx264 -sc_threshold 0 -crf 23 -pix_fmt yuv420p;;\n\
             -tune|-rc|-cq|-b:v|-no-scenecut|-rc-lookahead) shift; n=$((n-1));;\n\
             -preset) set -- \"$@\" -preset superfast; shift; n=$((n-1));;\n\
             -video_track_timescale) set -- \"$@\" $pictures -video_track_timescale;;\n\
             *) set -- \"$@\" \"$word\";;\nesac\ndone\nexec ffmpeg \"$@\"\n"
        );
        let aside = self.0.with_extension("aside");
        std::fs::write(&aside, script).expect("written");
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).expect("made a program");
        std::fs::rename(&aside, &self.0).expect("in place");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

/// What the server finds of its encoders, as soon as it is that.
async fn encoders(server: &TestServer, key: &str) -> Value {
    let begun = Instant::now();
    loop {
        let found = server.call(Method::GET, "/api/doctor", None).await.json();
        let finding = found["findings"].as_array().expect("findings").iter().find(|one| one["check"] == "encoders").cloned();
        let finding = finding.unwrap_or_default();
        if finding["messageKey"] == key {
            return finding;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "never {key}: {finding}\n{}", server.said());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn wish(server: &TestServer, encoder: Value) -> Value {
    let answer = server.call(Method::PATCH, "/api/settings", Some(json!({ "encoder": encoder }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn beside(status: &Value, name: &str) -> String {
    status["streamUrl"].as_str().expect("a URL").replace("master.m3u8", name)
}

/// All of the first picture as one file.
async fn whole(server: &TestServer, status: &Value) -> Vec<u8> {
    let playlist = server.fetch(&beside(status, "v0/index.m3u8")).await;
    let count = String::from_utf8_lossy(&playlist).lines().filter(|line| line.ends_with(".m4s")).count();
    let mut all = server.fetch(&beside(status, "v0/init.mp4")).await.to_vec();
    for n in 0..count {
        let url = beside(status, &format!("v0/{n}.m4s"));
        let begun = Instant::now();
        // One that was begun before the card failed is broken off, and comes again.
        let bytes = loop {
            let answer = server.client().get(server.here(&url)).send().await.expect("an answer");
            if let (true, Ok(bytes)) = (answer.status().is_success(), answer.bytes().await) {
                break bytes;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{url}\n{}", server.said());
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        all.extend_from_slice(&bytes);
    }
    all
}

/// How many pictures a decoder finds, and what it complains about.
fn decoded(folder: &Path, file: &[u8]) -> (usize, String) {
    let path = folder.join("whole.mp4");
    std::fs::write(&path, file).expect("written");
    let args = ["-v", "warning", "-nostdin", "-xerror", "-i", path.to_str().expect("text"), "-f", "framemd5", "-"];
    let output = Command::new("ffmpeg").args(args).output().expect("ffmpeg");
    let pictures = String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.starts_with('#')).count();
    (pictures, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_tried_and_used_and_replaced_when_it_fails() {
    let folder = tempfile::Builder::new().prefix("silicon-").tempdir().expect("a folder");
    let (old, _) = films(folder.path());
    let card = Card(folder.path().join("ffmpeg"));
    card.is("well");
    let mut server = TestServer::with(&["--ffmpeg", card.path(), "--encoder", "nvenc"], &[]).await;
    let found = encoders(&server, "encoders_silicon").await;
    assert!(found["message"].as_str().is_some_and(|text| text.contains("nvenc") && text.contains("3840×2160")), "{found}");
    // Good for as long as it stays the same card.
    let kept = std::fs::read_to_string(server.data_dir().join("encoder.json")).expect("written down");
    assert!(kept.contains("nvenc") && kept.contains("3840"), "{kept}");

    card.is("weak");
    let swarm = Swarm::seed(old, SwarmOptions::default()).await;
    let ready = server.play(&swarm.link(), json!({})).await;
    assert_eq!(ready["mode"], "convert");
    let (pictures, complaints) = decoded(folder.path(), &whole(&server, &ready).await);
    assert_eq!((pictures, complaints.as_str()), (1000, ""));
    let id = ready["streamId"].as_str().expect("an id");
    assert_eq!(server.status(id).await["status"], "ready");
    let found = encoders(&server, "encoders_distrusted").await;
    assert_eq!((&found["level"], &found["messageParams"]["encoder"]), (&json!("note"), &json!("nvenc")));
    assert!(server.said().contains("this encoder failed"), "{}", server.said());
    server.stop(id).await;

    // The next start tries it anew.
    card.is("well");
    server.restart().await;
    encoders(&server, "encoders_silicon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_are_heard_at_once() {
    let folder = tempfile::Builder::new().prefix("silicon-").tempdir().expect("a folder");
    let (old, new) = films(folder.path());
    let card = Card(folder.path().join("ffmpeg"));
    card.is("missing");
    let server = TestServer::with(&["--ffmpeg", card.path()], &[]).await;
    let entry = |settings: &Value| (settings["settings"]["encoder"]["value"].clone(), settings["restartNeeded"].clone());
    let all = server.call(Method::GET, "/api/settings", None).await.json();
    assert_eq!((&all["settings"]["encoder"]["default"], &all["settings"]["encoder"]["effect"]), (&json!("auto"), &json!("now")));

    assert_eq!(entry(&wish(&server, json!("nvenc")).await), (json!("nvenc"), json!([])));
    let found = encoders(&server, "encoders_not_that").await;
    assert!(found["message"].as_str().is_some_and(|text| text.contains("nvenc: Cannot load libcuda.so.1")), "{found}");
    let (old, new) = (Swarm::seed(old, SwarmOptions::default()).await, Swarm::seed(new, SwarmOptions::default()).await);
    let ready = server.play(&old.link(), json!({})).await;
    assert_eq!((&ready["mode"], &ready["status"]), (&json!("convert"), &json!("ready")));
    server.stop(ready["streamId"].as_str().expect("an id")).await;

    let refused = server.call(Method::PATCH, "/api/settings", Some(json!({ "encoder": "gpu" }))).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("one of auto, x264, videotoolbox, nvenc, qsv, vaapi, amf, off"), "{}", refused.text());

    wish(&server, json!("off")).await;
    encoders(&server, "encoders_off").await;
    for (link, options, advice) in [
        (old.link(), json!({}), "Choose another release"),
        (new.link(), json!({ "quality": "360p", "capabilities": { "video": ["vp9"] } }), "Choose another release"),
    ] {
        let id = server.start(&link, options).await["streamId"].as_str().expect("an id").to_owned();
        let failed = server.until(&id, 60, "failed", |status| status["status"] == "error").await;
        assert_eq!(failed["error"]["code"], "not_playable");
        let detail = failed["error"]["detail"].as_str().expect("a detail");
        assert!(detail.contains("switched off") && detail.contains("--encoder off") && detail.contains(advice), "{detail}");
    }
    // What plays as it is plays, and nothing else is offered.
    let ready = server.play(&new.link(), json!({})).await;
    assert_eq!(ready["mode"], "copy");
    let master = server.fetch(ready["streamUrl"].as_str().expect("a URL")).await;
    let master = String::from_utf8_lossy(&master);
    assert_eq!(master.matches("#EXT-X-STREAM-INF").count(), 1, "{master}");
    server.stop(ready["streamId"].as_str().expect("an id")).await;

    wish(&server, Value::Null).await;
    let ready = server.play(&old.link(), json!({})).await;
    assert_eq!(ready["mode"], "convert");
    encoders(&server, "encoders_good").await;
}
