//! The manifest of DASH, read by a parser of another make and held against the segments that it leads to.

#[path = "support/films.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod films;
#[path = "support/hls.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod hls;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use balcony_media::fmp4::read::{Event, Reader};
use dash_mpd_core::{AdaptationSet, MPD};
use films::{AAC, X264, by_ffmpeg, picture, sound};
use serde_json::json;
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

/// Start and end of each segment on the time line of a set, in its ticks.
fn line(set: &AdaptationSet) -> (u64, Vec<(u64, u64)>) {
    let template = set.SegmentTemplate.as_ref().expect("a template");
    let mut at = None;
    let mut all = Vec::new();
    for s in &template.SegmentTimeline.as_ref().expect("a time line").segments {
        for _ in 0..=s.r.unwrap_or(0) {
            let from = s.t.filter(|_| at.is_none()).or(at).expect("a first time");
            all.push((from, from + s.d));
            at = Some(from + s.d);
        }
    }
    (template.timescale.expect("a timescale"), all)
}

fn sets<'a>(mpd: &'a MPD, content: &str) -> Vec<&'a AdaptationSet> {
    mpd.periods[0].adaptations.iter().filter(|set| set.contentType.as_deref() == Some(content)).collect()
}

/// Fetches every segment of every representation, and finds it where the time line says, with no more bits than are told.
async fn judge(server: &TestServer, root: &str, set: &AdaptationSet) {
    let (timescale, line) = line(set);
    let template = set.SegmentTemplate.as_ref().expect("a template");
    assert_eq!(template.startNumber, Some(0));
    for one in &set.representations {
        let id = one.id.as_deref().expect("an id");
        let named = |pattern: &Option<String>, n: usize| {
            let pattern = pattern.as_deref().expect("a pattern");
            format!("{root}/{}", pattern.replace("$RepresentationID$", id).replace("$Number$", &n.to_string()))
        };
        let init = server.fetch(&named(&template.initialization, 0)).await;
        let track = hls::track_of(&init);
        assert_eq!(u64::from(track.timescale), timescale, "{id}");
        for (n, (from, to)) in line.iter().enumerate() {
            let bytes = server.fetch(&named(&template.media, n)).await;
            let mut reader = Reader::new();
            reader.push(init.clone());
            reader.push(bytes.clone());
            let mut packets = Vec::new();
            while let Some(event) = reader.next().expect("boxes") {
                if let Event::Packet(packet) = event {
                    packets.push(packet);
                }
            }
            let begins = packets.iter().map(|packet| packet.pts - track.media_time).min().expect("a sample");
            let ends = packets.iter().map(|packet| packet.pts - track.media_time + i64::from(packet.duration)).max().expect("a sample");
            let usual = packets.iter().map(|packet| i64::from(packet.duration)).max().expect("a sample");
            // The last one may end with its track, a little before or behind the film.
            let off = (begins.max(0).abs_diff(*from as i64), if n + 1 < line.len() { ends.abs_diff(*to as i64) } else { 0 });
            assert!(off.0.max(off.1) <= usual.unsigned_abs(), "{id} {n}: {begins} to {ends}, told {from} to {to} of {timescale}");
            let seconds = (to - from) as f64 / timescale as f64;
            let rate = bytes.len() as f64 * 8.0 / seconds;
            let told = one.bandwidth.expect("a bandwidth");
            assert!(seconds < 0.5 || rate <= told as f64, "{id} {n}: {rate} bit/s, told {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_over_the_same_segments() {
    let text = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("dash.srt");
    std::fs::write(&text, "1\n00:00:02,000 --> 00:00:05,500\nOne\n\n2\n00:00:11,000 --> 00:00:12,000\nTwo\n").expect("written");
    let inputs = format!("{} {} -i {} -map 0 -map 1 -map 2", picture("1280x720", 20.0), sound(20.0), text.display());
    let coding = "-c:s mov_text -metadata:s:a:0 language=ger -metadata:s:s:0 language=eng -movflags +faststart";
    let film = by_ffmpeg("dash-with-text.mp4", &format!("{inputs} {X264} {AAC} {coding}"));
    let swarm = Swarm::seed(film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({ "method": "dash" })).await;
    let url = status["streamUrl"].as_str().expect("an address");
    assert_eq!(status["dashUrl"], url);
    assert!(url.ends_with("/manifest.mpd"));
    let answer = server.get(url).await;
    assert_eq!(answer.header("content-type"), Some("application/dash+xml"));
    let mpd = dash_mpd_core::parse(&answer.text()).expect("a manifest");
    assert_eq!(mpd.mpdtype.as_deref(), Some("static"));
    let duration = mpd.mediaPresentationDuration.expect("a duration").as_secs_f64();
    assert!((duration - 20.0).abs() < 0.1, "{duration}");

    let pictures = sets(&mpd, "video");
    assert_eq!(pictures.len(), 2, "the copy, and the ladder");
    assert_eq!(pictures[0].representations.len(), 1);
    assert_eq!(pictures[0].representations[0].id.as_deref(), Some("v0"));
    let rungs: Vec<_> = pictures[1].representations.iter().map(|one| (one.width, one.height)).collect();
    assert_eq!(rungs[rungs.len() - 2..], [(Some(854), Some(480)), (Some(640), Some(360))]);
    assert!(pictures[1].representations.iter().all(|one| one.frameRate.as_deref() == Some("24000/1001")));
    let sounds = sets(&mpd, "audio");
    assert_eq!((sounds.len(), sounds[0].lang.as_deref()), (1, Some("de")));

    let texts = sets(&mpd, "text");
    assert_eq!((texts.len(), texts[0].lang.as_deref(), texts[0].representations[0].codecs.as_deref()), (1, Some("en"), Some("wvtt")));

    let root = url.rsplit_once('/').expect("a folder").0;
    for set in pictures.into_iter().chain(sounds).chain(texts) {
        judge(&server, root, set).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_of_sound_alone() {
    let film = by_ffmpeg("song.mp4", &format!("{} {AAC}", sound(12.0)));
    let swarm = Swarm::seed(film, SwarmOptions::default()).await;
    let server = TestServer::open().await;
    let status = server.play(&swarm.link(), json!({})).await;
    let url = status["dashUrl"].as_str().expect("an address");
    let mpd = dash_mpd_core::parse(&server.get(url).await.text()).expect("a manifest");
    assert_eq!((sets(&mpd, "video").len(), sets(&mpd, "audio").len()), (0, 1));
    judge(&server, url.rsplit_once('/').expect("a folder").0, sets(&mpd, "audio")[0]).await;
}
