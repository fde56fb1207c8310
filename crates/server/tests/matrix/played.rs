//! One film on one server: what a player gets of it, and what is wrong with that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use m3u8_rs::{AlternativeMediaType, MediaPlaylist};
use serde_json::{Value, json};

use super::eye::{self, Pictures, Sound};
use super::films::{Film, Traits};
use super::server::TestServer;
use super::swarm::{Swarm, SwarmOptions};

/// Picture and sound may stand this far, in seconds, from where they stand in the film.
const STEP: f64 = 0.020;

/// A segment after a far seek has to come within this time, in seconds, on a busy machine. Fetching all of the film takes five times as long.
const SEEK: f64 = 6.0;

/// What came of a film.
#[derive(Debug, Default)]
pub(crate) struct Row {
    name: String,
    mode: String,
    ready: f64,
    middle: f64,
    end: f64,
    pictures: (usize, usize),
    /// The farthest that a flash and a beep stand from their places, in seconds.
    off: (f64, f64),
    pub(crate) problems: Vec<String>,
    /// Why that is so, where it is known.
    pub(crate) known: Option<&'static str>,
}

impl Row {
    pub(crate) const HEAD: &str =
        "film                   mode                        ready  middle    end  pictures     flash ms  beep ms  came of it";

    /// A film with which nothing could be done.
    pub(crate) fn failed(name: &str, why: String) -> Self {
        Self { name: name.to_owned(), problems: vec![why], ..Self::default() }
    }

    /// For the table; times in seconds.
    pub(crate) fn line(&self, took: Duration) -> String {
        let what = match (self.problems.is_empty(), self.known) {
            (true, _) => "ok".to_owned(),
            (false, Some(why)) => format!("known: {why}"),
            (false, None) => format!("FAILED: {}", self.problems.join("; ")),
        };
        format!(
            "{:<22} {:<26} {:>6.2} {:>7.2} {:>6.2}  {:>4} of {:<4}  {:>8.1} {:>8.1}  {what} ({:.0} s)",
            self.name,
            self.mode,
            self.ready,
            self.middle,
            self.end,
            self.pictures.0,
            self.pictures.1,
            self.off.0 * 1000.0,
            self.off.1 * 1000.0,
            took.as_secs_f64()
        )
    }

    fn wrong(&mut self, what: String) {
        self.problems.push(what);
    }
}

/// One rendition, fetched wholly.
struct Fetched {
    list: MediaPlaylist,
    init: Bytes,
    segments: Vec<Bytes>,
    /// Seconds until the two segments in the middle, and those at the end, were there.
    middle: f64,
    end: f64,
}

/// What the film itself is, as far as ffprobe knows.
struct Original {
    path: PathBuf,
    facts: Value,
    zero: f64,
    picture: bool,
    sound: bool,
}

impl Original {
    fn of(path: PathBuf, traits: &Traits) -> Self {
        let facts = ffprobe(&path);
        let format = facts["format"]["format_name"].as_str().unwrap_or_default();
        // Where the container has tables of ours, its own zero counts; elsewhere the first time stamp.
        let ours = format.contains("mp4") || format.contains("matroska");
        let start = facts["format"]["start_time"].as_str().and_then(|text| text.parse().ok()).filter(|_| !ours).unwrap_or(0.0);
        let has = |kind: &str| facts["streams"].as_array().into_iter().flatten().any(|one| is_shown(one, kind));
        let (picture, sound) = (has("video"), has("audio"));
        Self { path, zero: traits.zero.unwrap_or(start), picture, sound, facts }
    }

    /// The stream of this kind that a player should show, in ffmpeg's words.
    fn stream(&self, kind: &str) -> String {
        let all = self.facts["streams"].as_array().expect("streams");
        let shown: Vec<&Value> = all.iter().filter(|one| is_shown(one, kind)).collect();
        let marked = shown.iter().find(|one| kind == "audio" && one["disposition"]["default"] == 1);
        let one = marked.or(shown.first()).expect("a stream of this kind");
        format!("0:{}", one["index"])
    }
}

fn is_shown(stream: &Value, kind: &str) -> bool {
    stream["codec_type"] == kind && stream["disposition"]["attached_pic"] != 1
}

fn ffprobe(path: &Path) -> Value {
    let arguments = ["-v", "quiet", "-show_streams", "-show_format", "-of", "json"];
    let done = Command::new("ffprobe").args(arguments).arg(path).output().expect("ffprobe");
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// Plays a film and tells everything that is wrong.
pub(crate) async fn judge(server: &TestServer, film: &Film) -> Row {
    let path = (film.make)(film.name);
    let original = Original::of(path.clone(), &film.traits);
    let swarm = Swarm::seed(&path, SwarmOptions { piece_len: 64 << 10, ..SwarmOptions::default() }).await;
    let mut row = Row { name: film.name.to_owned(), ..Row::default() };
    let begun = Instant::now();
    // What plays neither H.264 nor AAC gets them all the same, made anew.
    let capabilities = json!({ "capabilities": { "video": ["theora"], "audio": ["vorbis"] } });
    let started = server.start(&swarm.link(), if film.traits.converted { capabilities } else { json!({}) }).await;
    let id = started["streamId"].as_str().expect("an id").to_owned();
    let over = |status: &Value| matches!(status["status"].as_str(), Some("ready" | "error" | "stopped"));
    let status = server.until(&id, 30, "ready", over).await;
    row.ready = begun.elapsed().as_secs_f64();
    row.mode = format!("{} {}", status["mode"].as_str().unwrap_or("-"), status["whyKey"].as_str().unwrap_or("-"));
    if status["status"] == "ready" {
        listen_and_look(server, &status, film, &original, &mut row).await;
    } else {
        row.wrong(format!("{}: {}", status["status"], status["message"]));
    }
    server.stop(&id).await;
    row
}

async fn listen_and_look(server: &TestServer, status: &Value, film: &Film, original: &Original, row: &mut Row) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = status["streamUrl"].as_str().expect("a URL");
    let text = server.fetch(url).await;
    let root = url.rsplit_once('/').expect("a folder").0;
    let master = m3u8_rs::parse_master_playlist_res(&text).expect("a master playlist");
    let sounds: Vec<_> = master.alternatives.iter().filter(|one| one.media_type == AlternativeMediaType::Audio).collect();
    for other in &master.alternatives {
        let uri = other.uri.as_ref().expect("a rendition of its own");
        let list = server.fetch(&format!("{root}/{uri}")).await;
        if let Err(error) = m3u8_rs::parse_media_playlist_res(&list) {
            row.wrong(format!("{uri}: {error:?}"));
        }
    }
    let variant = master.variants.first().expect("a variant");
    let length = status["duration"].as_f64().unwrap_or(0.0);
    let chosen = sounds.iter().find(|one| one.default).or(sounds.first()).and_then(|one| one.uri.clone());
    let picture = original.picture.then(|| variant.uri.clone());
    let sound = if original.picture { chosen } else { chosen.or_else(|| Some(variant.uri.clone())) };
    if original.sound != sound.is_some() {
        row.wrong(format!("sound: {} in the film", original.sound));
    }
    let size = variant.resolution.map(|size| (size.width as u32, size.height as u32));
    if let (Some(shown), Some(size)) = (film.traits.shown, size)
        && shown != size
    {
        row.wrong(format!("shown as {size:?} and not as {shown:?}"));
    }
    let mut ends = 0.0f64;
    if let Some(uri) = picture {
        let fetched = fetch(server, root, &uri).await;
        (row.middle, row.end) = (fetched.middle, fetched.end);
        let whole = write(&fetched, &folder.path().join("picture.mp4"));
        let theirs = eye::pictures(&original.path, &original.stream("video"), original.zero).await;
        let ours = eye::pictures(&whole, "0:v:0", 0.0).await;
        ends = ends.max(last_time(&theirs));
        let seen = &ffprobe(&whole)["streams"][0];
        if seen["pix_fmt"] != "yuv420p"
            || (film.traits.colours && ["color_transfer", "color_space", "color_primaries"].iter().any(|key| seen[key] != "bt709"))
        {
            row.wrong(format!("{} in {} {} {}", seen["pix_fmt"], seen["color_transfer"], seen["color_space"], seen["color_primaries"]));
        }
        let fields = seen["field_order"].as_str().unwrap_or("progressive");
        if film.traits.fields && fields != "progressive" {
            row.wrong(format!("fields: {fields}"));
        }
        judge_pictures(film, &ours, &theirs, row);
        judge_seams(&fetched, &whole, row);
    }
    if let Some(uri) = sound.filter(|_| original.sound) {
        let fetched = fetch(server, root, &uri).await;
        if !original.picture {
            (row.middle, row.end) = (fetched.middle, fetched.end);
        }
        let whole = write(&fetched, &folder.path().join("sound.mp4"));
        let theirs = eye::sound(&original.path, &original.stream("audio"), original.zero).await;
        let ours = eye::sound(&whole, "0:a:0", 0.0).await;
        ends = ends.max(theirs.seconds());
        judge_sound(film, &ours, &theirs, row);
        judge_seams(&fetched, &whole, row);
    }
    let off = (length - ends).abs();
    if off > 0.1 && film.traits.broken.is_none() && film.traits.flashes.is_none() {
        row.wrong(format!("lasts {length} s, the film {ends:.3} s"));
    }
}

fn last_time(pictures: &Pictures) -> f64 {
    let mut times: Vec<f64> = pictures.all.iter().map(|one| one.at).collect();
    times.sort_by(f64::total_cmp);
    let last = times.last().copied().unwrap_or(0.0);
    let frame = times.len().checked_sub(2).and_then(|at| times.get(at)).map_or(0.04, |before| last - before);
    last + frame
}

/// Every segment: two in the middle, two at the end, then the rest from the start.
async fn fetch(server: &TestServer, root: &str, uri: &str) -> Fetched {
    let url = format!("{root}/{uri}");
    let list = m3u8_rs::parse_media_playlist_res(&server.fetch(&url).await).unwrap_or_else(|error| panic!("{uri}: {error:?}"));
    let folder = url.rsplit_once('/').expect("a folder").0.to_owned();
    let count = list.segments.len();
    let mut segments = vec![Bytes::new(); count];
    let mut timed = [0.0; 2];
    for (at, from) in [count / 2, count.saturating_sub(2)].into_iter().enumerate() {
        let begun = Instant::now();
        for (n, (segment, told)) in segments.iter_mut().zip(&list.segments).enumerate().skip(from).take(2) {
            *segment = server.fetch(&format!("{folder}/{}", told.uri)).await;
            timed[at] = if n == from { begun.elapsed().as_secs_f64() } else { timed[at] };
        }
    }
    for (segment, told) in segments.iter_mut().zip(&list.segments).filter(|(segment, _)| segment.is_empty()) {
        *segment = server.fetch(&format!("{folder}/{}", told.uri)).await;
    }
    let map = &list.segments[0].map.as_ref().expect("an init segment").uri;
    let init = server.fetch(&format!("{folder}/{map}")).await;
    Fetched { list, init, segments, middle: timed[0], end: timed[1] }
}

fn write(fetched: &Fetched, path: &Path) -> PathBuf {
    let whole: Vec<u8> = std::iter::once(&fetched.init).chain(&fetched.segments).flatten().copied().collect();
    std::fs::write(path, whole).expect("written");
    path.to_owned()
}

/// Packets follow each other without going back, whichever production made them.
fn judge_seams(fetched: &Fetched, whole: &Path, row: &mut Row) {
    let arguments = ["-v", "error", "-show_entries", "packet=dts_time", "-of", "csv=p=0"];
    let done = Command::new("ffprobe").args(arguments).arg(whole).output().expect("ffprobe");
    let text = String::from_utf8_lossy(&done.stdout);
    let times: Vec<f64> = text.lines().filter_map(|line| line.trim_matches(',').parse().ok()).collect();
    let back = times.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    if back > 0 {
        row.wrong(format!("time goes back {back} times"));
    }
    let longest = fetched.list.segments.iter().map(|one| f64::from(one.duration).round() as u64).max().unwrap_or(0);
    if longest > fetched.list.target_duration {
        row.wrong(format!("a segment of {longest} s under a target of {} s", fetched.list.target_duration));
    }
}

/// Whether nothing can be asked of this moment, or it may stand elsewhere.
fn is_broken(traits: &Traits, at: f64) -> bool {
    traits.broken.is_some_and(|(from, to)| at >= from && at <= to)
}

fn judge_pictures(film: &Film, ours: &Pictures, theirs: &Pictures, row: &mut Row) {
    row.pictures = (ours.all.len(), theirs.all.len());
    if film.traits.broken.is_none()
        && let Some(complaint) = ours.complaints.first().filter(|_| theirs.complaints.is_empty())
    {
        row.wrong(format!("picture: {complaint}"));
    }
    if !film.traits.fields && film.traits.flashes.is_none() {
        judge_each(film, ours, theirs, row);
    }
    let expected = film.traits.flashes.map_or_else(|| eye::flashes(&theirs.all), <[f64]>::to_vec);
    row.off.0 = compare("flash", &film.traits, &eye::flashes(&ours.all), &expected, &mut row.problems);
}

/// Each picture of the film is there at its time, and shows what it should.
fn judge_each(film: &Film, ours: &Pictures, theirs: &Pictures, row: &mut Row) {
    let mut sorted: Vec<_> = ours.all.iter().collect();
    sorted.sort_by(|a, b| a.at.total_cmp(&b.at));
    let (mut missing, mut different) = (Vec::new(), Vec::new());
    let asked = theirs.all.iter().filter(|one| one.at > -0.001 && !is_broken(&film.traits, one.at));
    for theirs in asked {
        let at = sorted.partition_point(|one| one.at < theirs.at - 0.012);
        match sorted.get(at).filter(|one| one.at <= theirs.at + 0.012) {
            None => missing.push(theirs.at),
            Some(one) if !film.traits.colours && one.differs(theirs) > 14.0 => different.push(theirs.at),
            Some(_) => {}
        }
    }
    let places = |all: &[f64]| all.iter().take(4).map(|at| format!("{at:.2}")).collect::<Vec<_>>().join(" ");
    if !missing.is_empty() {
        row.wrong(format!("{} pictures missing (at {} …)", missing.len(), places(&missing)));
    }
    if !different.is_empty() {
        row.wrong(format!("{} pictures show something else (at {} …)", different.len(), places(&different)));
    }
    let more = ours.all.len().saturating_sub(theirs.all.len());
    if more > 0 && film.traits.broken.is_none() {
        row.wrong(format!("{more} pictures more than the film"));
    }
}

fn judge_sound(film: &Film, ours: &Sound, theirs: &Sound, row: &mut Row) {
    if film.traits.broken.is_none()
        && let Some(complaint) = ours.complaints.first().filter(|_| theirs.complaints.is_empty())
    {
        row.wrong(format!("sound: {complaint}"));
    }
    let expected = film.traits.flashes.map_or_else(|| theirs.beeps(), <[f64]>::to_vec);
    row.off.1 = compare("beep", &film.traits, &ours.beeps(), &expected, &mut row.problems);
    let holes: Vec<f64> = eye::holes(ours, theirs).into_iter().filter(|at| !is_broken(&film.traits, *at)).collect();
    if let Some(first) = holes.first().filter(|_| film.traits.flashes.is_none()) {
        row.wrong(format!("{} ms of sound missing (at {first:.2} …)", holes.len() * 20));
    }
}

/// Each moment that the film has is there; the farthest that one stands from its place.
fn compare(what: &str, traits: &Traits, ours: &[f64], theirs: &[f64], problems: &mut Vec<String>) -> f64 {
    let asked: Vec<f64> = theirs.iter().copied().filter(|at| *at >= 0.0 && !is_broken(traits, *at)).collect();
    if asked.is_empty() {
        problems.push(format!("no {what} in the film itself"));
    }
    let nearest = |at: f64| ours.iter().map(|one| (one - at).abs()).fold(f64::INFINITY, f64::min);
    let farthest = asked.iter().map(|at| nearest(*at)).fold(0.0, f64::max);
    if farthest > STEP {
        problems.push(format!("{what} at {ours:.3?}, in the film at {asked:.3?}"));
    }
    if ours.len() > theirs.len() && traits.broken.is_none() {
        problems.push(format!("{} {what} more", ours.len() - theirs.len()));
    }
    farthest
}

/// Seeks far in a long film over a line of 4 MB/s, of which next to nothing is here: what lies between must not be fetched first.
pub(crate) async fn seek(server: &TestServer, film: &Film) -> Row {
    let path = (film.make)(film.name);
    let options = SwarmOptions { rate: Some(4_000_000), piece_len: 256 << 10, ..SwarmOptions::default() };
    let swarm = Swarm::seed(&path, options).await;
    let mut row = Row { name: film.name.to_owned(), ..Row::default() };
    let begun = Instant::now();
    let status = server.play(&swarm.link(), json!({})).await;
    row.ready = begun.elapsed().as_secs_f64();
    row.mode = format!("{} {}", status["mode"].as_str().unwrap_or("-"), status["whyKey"].as_str().unwrap_or("-"));
    let url = status["streamUrl"].as_str().expect("a URL");
    let root = url.rsplit_once('/').expect("a folder").0;
    let master = m3u8_rs::parse_master_playlist_res(&server.fetch(url).await).expect("a master playlist");
    let folder = format!("{root}/{}", master.variants[0].uri);
    let list = m3u8_rs::parse_media_playlist_res(&server.fetch(&folder).await).expect("a playlist");
    let folder = folder.rsplit_once('/').expect("a folder").0;
    let init = server.fetch(&format!("{folder}/{}", list.segments[0].map.as_ref().expect("an init segment").uri)).await;
    let starts: Vec<f64> = list.segments.iter().scan(0.0, |at, one| Some(std::mem::replace(at, *at + f64::from(one.duration)))).collect();
    let kept = tempfile::tempdir().expect("a folder");
    for part in [0.5, 0.9] {
        let n = (starts.len() as f64 * part) as usize;
        let begun = Instant::now();
        let segment = server.fetch(&format!("{folder}/{}", list.segments[n].uri)).await;
        let took = begun.elapsed().as_secs_f64();
        *(if part < 0.6 { &mut row.middle } else { &mut row.end }) = took;
        if took > SEEK {
            row.wrong(format!("{took:.1} s for the segment at {:.0} s", starts[n]));
        }
        let path = kept.path().join("one.mp4");
        std::fs::write(&path, [&init[..], &segment[..]].concat()).expect("written");
        let seen = eye::pictures(&path, "0:v:0", 0.0).await.all;
        let first = seen.iter().map(|one| one.at).fold(f64::INFINITY, f64::min);
        row.pictures = (seen.len(), seen.len());
        if (first - starts[n]).abs() > 0.09 || seen.len() < 20 {
            row.wrong(format!("{} pictures from {first:.3} s in the segment at {:.3} s", seen.len(), starts[n]));
        }
    }
    let missing = status["totalBytes"].as_f64().unwrap_or(0.0)
        - server.status(status["streamId"].as_str().expect("an id")).await["downloadedBytes"].as_f64().unwrap_or(0.0);
    row.mode = format!("{} {:.0} MB left", row.mode, missing / 1e6);
    server.stop(status["streamId"].as_str().expect("an id")).await;
    row
}
