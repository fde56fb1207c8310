//! What the phone sees of a stream: the public words, an honest message, numbers that move. A projection; it decides nothing.

use balcony_media::plan::{Mode, Why};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{Failure, State};

/// The object that start, status and events answer.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamView {
    /// The stream's name in URLs.
    pub stream_id: String,
    /// One of five words.
    pub status: Status,
    /// Where it stands more exactly.
    pub phase: Phase,
    /// Per cent toward `ready`; never goes back.
    pub progress: u8,
    /// Seconds until `ready`, where they can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
    /// What it is waiting for, in a person's words.
    pub message: String,
    /// Stable name of the message.
    pub message_key: &'static str,
    /// What stands in the message.
    pub message_params: Value,
    /// Name of the chosen file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Lower-case hex.
    pub info_hash: String,
    /// The chosen file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_index: Option<usize>,
    /// As asked for.
    pub quality: String,
    /// Place in the queue, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<usize>,
    /// Bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_speed: Option<u64>,
    /// Bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_speed: Option<u64>,
    /// Peers that are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<usize>,
    /// Per cent of the chosen file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_progress: Option<f64>,
    /// Bytes of the chosen file that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<u64>,
    /// Bytes of the chosen file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Spans `[from, to]` of the film that are here, in seconds: ascending, at most 64. Once its index is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched: Option<Vec<[f64; 2]>>,
    /// What to give to a player. With `method: original` it is known when the film's name is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_url: Option<String>,
    /// The same for players of DASH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dash_url: Option<String>,
    /// The original bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_url: Option<String>,
    /// Server-sent events of this object, without a header.
    pub events_url: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Where its viewer is, in seconds.
    pub position: f64,
    /// Sizes of the pictures that are encoded, once they are known: they stay the same over a restart.
    #[serde(skip)]
    #[schema(ignore)]
    pub rungs: Option<Vec<(u32, u32)>>,
    /// `copy`, `convert_audio` or `convert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The sentence why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Stable name of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_key: Option<String>,
    /// The subtitle track that is drawn into the picture, by its id. Where one was asked for and this is missing, the film has none of
    /// that id that could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn: Option<String>,
    /// The film's picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoView>,
    /// The film's sound tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<Vec<AudioView>>,
    /// The film's subtitles, those beside it, and those that were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtitles: Option<Vec<SubtitleView>>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorView>,
    /// The film as one file to keep, once somebody asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<DownloadView>,
    /// The device that started it, or has taken it over. Missing where it is another person's by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Named>,
    /// Whose it is; for the owner of the server only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<Named>,
    /// The devices that asked for something to see within the last minute. Only the owner of the server is told of other people's.
    pub watching: Vec<Named>,
}

/// What of the object is written down, so that a stream that was ready comes back as it was before its film is opened again. Columns of
/// their own hold the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    downloaded_bytes: Option<u64>,
    total_bytes: Option<u64>,
    download_progress: Option<f64>,
    fetched: Option<Vec<[f64; 2]>>,
    stream_url: Option<String>,
    direct_url: Option<String>,
    duration: Option<f64>,
    mode: Option<String>,
    why: Option<String>,
    why_key: Option<String>,
    #[serde(default)]
    burn: Option<String>,
    video: Option<VideoView>,
    audio: Option<Vec<AudioView>>,
    #[serde(default)]
    subtitles: Option<Vec<SubtitleView>>,
    rungs: Option<Vec<(u32, u32)>>,
}

impl Saved {
    /// What of this object is written down.
    pub fn of(view: &StreamView) -> Self {
        let view = view.clone();
        Self {
            downloaded_bytes: view.downloaded_bytes,
            total_bytes: view.total_bytes,
            download_progress: view.download_progress,
            fetched: view.fetched,
            stream_url: view.stream_url,
            direct_url: view.direct_url,
            duration: view.duration,
            mode: view.mode,
            why: view.why,
            why_key: view.why_key,
            burn: view.burn,
            video: view.video,
            audio: view.audio,
            subtitles: view.subtitles,
            rungs: view.rungs,
        }
    }

    /// Puts it back.
    pub fn put_into(self, view: &mut StreamView) {
        view.downloaded_bytes = self.downloaded_bytes;
        view.total_bytes = self.total_bytes;
        view.download_progress = self.download_progress;
        view.fetched = self.fetched;
        view.stream_url = self.stream_url;
        view.direct_url = self.direct_url;
        view.duration = self.duration;
        view.mode = self.mode;
        view.why = self.why;
        view.why_key = self.why_key;
        view.burn = self.burn;
        view.video = self.video;
        view.audio = self.audio;
        view.subtitles = self.subtitles;
        view.rungs = self.rungs;
    }
}

/// A device or a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
}

/// The five public words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Metadata, index or first bytes are missing.
    Downloading,
    /// The first segment is being made.
    Converting,
    /// Playable now.
    Ready,
    /// Failed.
    Error,
    /// Over.
    Stopped,
}

/// Where a stream stands more exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the API's own words
pub enum Phase {
    Queued,
    Metadata,
    Connecting,
    Buffering,
    Probing,
    Converting,
    Playable,
    Complete,
    Failed,
    Stopped,
    Expired,
}

/// The film's picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VideoView {
    /// Short name.
    pub codec: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<f64>,
    /// HDR10 or HLG.
    pub hdr: bool,
    /// Bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u64>,
}

/// One sound track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioView {
    /// `a1`, `a2` …
    pub id: String,
    /// Short name.
    pub codec: String,
    /// As in the file.
    pub language: String,
    /// For people.
    pub title: String,
    /// Number of channels.
    pub channels: u16,
    /// The one to choose.
    pub default: bool,
}

/// A film as one file to keep.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct DownloadView {
    /// Per cent of it that is made.
    pub progress: f64,
    /// Where it is fetched, once it is whole. Needs no header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Why it could not be made. It may be asked for again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorView>,
}

/// One choice of subtitles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubtitleView {
    /// `s1`, `s2` …
    pub id: String,
    /// Short name: `srt`, `ass`, `vtt`, `sub`, `mov_text`, `pgs`, `vobsub`, `dvbsub` …
    pub format: String,
    /// `text`, or `image`: these have no text to give.
    pub kind: String,
    /// As in the file, or guessed from its name; `und` where it is not told.
    pub language: String,
    /// For people.
    pub title: String,
    /// Marked as the one to choose.
    pub default: bool,
    /// Only what is foreign in the film.
    pub forced: bool,
    /// Not in the film's own file.
    pub external: bool,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ErrorView {
    /// Stable name.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// What to do.
    pub detail: String,
}

impl From<&Failure> for ErrorView {
    fn from(failure: &Failure) -> Self {
        Self { code: failure.code.name(), title: failure.code.title(), detail: failure.detail.clone() }
    }
}

/// The numbers behind a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moving {
    /// Seconds since the present state began; of a ready stream, since bytes last came.
    pub seconds: u64,
    /// Peers that are connected.
    pub peers: usize,
    /// Bytes per second.
    pub speed: u64,
    /// Bytes of the film are missing, and none came lately.
    pub starved: bool,
    /// The film of an earlier run is opened when somebody wants it.
    pub asleep: bool,
    /// Nothing is fetched because somebody paused everything.
    pub paused: bool,
    /// Seconds that the next part of a ready stream has been waiting for an encoder.
    pub encoder: Option<u64>,
    /// Seconds that a player of a ready stream has been waiting for a segment that is being converted.
    pub behind: Option<u64>,
    /// Per cent of real time at which the pictures are converted, where that is too slow to watch and not for want of bytes.
    pub slow: Option<u64>,
    /// Nothing is fetched because there is no room on the disk.
    pub full: bool,
    /// Bytes of the first segments that are here, and all of them, where they are known.
    pub first: Option<(u64, u64)>,
}

/// The words for a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Words {
    /// One of five.
    pub status: Status,
    /// More exactly.
    pub phase: Phase,
    /// Per cent.
    pub progress: u8,
    /// Seconds to go.
    pub eta: Option<u64>,
    /// For people.
    pub message: String,
    /// Stable name.
    pub key: &'static str,
    /// What stands in the message.
    pub params: Value,
}

/// Finds the words for a state and its moving numbers.
pub fn words(state: &State, moving: &Moving) -> Words {
    let words = words_of_state(state, moving);
    let missing = *state == State::Metadata || moving.starved;
    if moving.full && missing && !matches!(state, State::Queued { .. }) && !state.is_over() {
        let message = match state {
            State::Ready { .. } => {
                format!("Ready to play what is here; the disk is full, and the rest waits for room ({} s)", moving.seconds)
            }
            _ => format!("The disk is full: it goes on when there is room again ({} s)", moving.seconds),
        };
        return Words { eta: None, message, key: "no_space", params: json!({ "seconds": moving.seconds }), ..words };
    }
    if !(moving.paused && missing) {
        return words;
    }
    let message = match state {
        // It is something else that it waits for.
        State::Lined { place: Some(_), .. } => return words,
        State::Metadata | State::Opening | State::Probing | State::Lined { place: None, .. } | State::Warming(_) => {
            format!("Paused: nothing is fetched until downloads go on ({} s)", moving.seconds)
        }
        State::Ready { complete: false } => "Ready to play what is here; fetching the rest is paused".to_owned(),
        State::Queued { .. } | State::Ready { complete: true } | State::Failed(_) | State::Stopped | State::Expired => return words,
    };
    Words { eta: None, message, key: "paused", params: json!({ "seconds": moving.seconds }), ..words }
}

fn words_of_state(state: &State, moving: &Moving) -> Words {
    match state {
        State::Queued { place } => words_of(
            Status::Downloading,
            Phase::Queued,
            0,
            "queued",
            json!({ "place": place, "seconds": moving.seconds }),
            format!("Waiting for this device's other films: number {place} in the queue ({} s)", moving.seconds),
        ),
        State::Metadata => metadata(moving),
        State::Opening => {
            let message = match (moving.peers, moving.speed) {
                (0, _) => format!("Connecting to the people who have it ({} s)", moving.seconds),
                (_, 0) => format!("Waiting for the first bytes ({} s)", moving.seconds),
                _ => "Reading the film's table of contents".to_owned(),
            };
            let (phase, key) = match (moving.peers, moving.speed) {
                (0, _) => (Phase::Connecting, "connecting"),
                (_, 0) => (Phase::Buffering, "waiting_for_bytes"),
                _ => (Phase::Buffering, "reading_index"),
            };
            words_of(Status::Downloading, phase, 15, key, json!({ "seconds": moving.seconds, "peers": moving.peers }), message)
        }
        State::Probing => words_of(
            Status::Converting,
            Phase::Probing,
            20,
            "probing",
            json!({ "seconds": moving.seconds }),
            "Looking at how the film is made".into(),
        ),
        State::Warming(Mode::Copy) => buffering(moving),
        State::Lined { place: Some(place), .. } => words_of(
            Status::Downloading,
            Phase::Queued,
            25,
            "queued_for_encoder",
            json!({ "place": place, "seconds": moving.seconds }),
            format!("Waiting for a free converter: number {place} in the queue ({} s)", moving.seconds),
        ),
        State::Lined { place: None, .. } | State::Warming(Mode::ConvertAudio | Mode::Convert) => {
            let progress = 60 + u8::try_from(moving.seconds.min(7) * 5).unwrap_or(35);
            let params = json!({ "seconds": moving.seconds });
            let (key, message) = if moving.starved {
                ("converting_waits_for_bytes", format!("Waiting for bytes of the film to convert ({} s)", moving.seconds))
            } else {
                ("converting", format!("Converting the first seconds for this device ({} s)", moving.seconds))
            };
            words_of(Status::Converting, Phase::Converting, progress, key, params, message)
        }
        State::Ready { .. } if moving.encoder.is_some() => {
            let (phase, seconds) =
                (if *state == (State::Ready { complete: true }) { Phase::Complete } else { Phase::Playable }, moving.encoder);
            let message = format!("Ready to play; the next part waits for a free converter ({} s)", seconds.unwrap_or(0));
            words_of(Status::Ready, phase, 100, "playable_waits_for_encoder", json!({ "seconds": seconds }), message)
        }
        State::Ready { complete: false } if moving.starved => {
            let whom = if moving.peers == 0 { "waiting for people who have the rest" } else { "waiting for bytes of the rest" };
            let message = format!("Ready to play what is here; {whom} ({} s)", moving.seconds);
            let params = json!({ "seconds": moving.seconds, "peers": moving.peers });
            words_of(Status::Ready, Phase::Playable, 100, "playable_waits_for_bytes", params, message)
        }
        State::Ready { complete } if moving.slow.is_some() => {
            let (phase, percent) = (if *complete { Phase::Complete } else { Phase::Playable }, moving.slow);
            let message = format!(
                "Ready to play, but this computer converts at {} % of the film's speed; choose a smaller picture",
                percent.unwrap_or(0)
            );
            words_of(Status::Ready, phase, 100, "playable_converts_slowly", json!({ "percent": percent }), message)
        }
        State::Ready { complete } if moving.behind.is_some() => {
            let (phase, seconds) = (if *complete { Phase::Complete } else { Phase::Playable }, moving.behind);
            let message = format!("Ready to play; the next part is still being converted ({} s)", seconds.unwrap_or(0));
            words_of(Status::Ready, phase, 100, "playable_waits_for_conversion", json!({ "seconds": seconds }), message)
        }
        State::Ready { complete: false } if moving.asleep => {
            let message = "Ready to play; the rest is fetched when its turn comes, or somebody watches".to_owned();
            words_of(Status::Ready, Phase::Playable, 100, "playable_asleep", json!({}), message)
        }
        State::Ready { complete: false } => {
            let message = "Ready to play; the rest is on its way".to_owned();
            words_of(Status::Ready, Phase::Playable, 100, "playable", json!({}), message)
        }
        State::Ready { complete: true } => {
            words_of(Status::Ready, Phase::Complete, 100, "complete", json!({}), "Ready to play; the whole film is here".into())
        }
        State::Failed(failure) => {
            let params = json!({ "code": failure.code.name() });
            words_of(Status::Error, Phase::Failed, 0, "failed", params, format!("{}. {}", failure.code.title(), failure.detail))
        }
        State::Stopped => words_of(Status::Stopped, Phase::Stopped, 0, "stopped", json!({}), "Stopped".into()),
        State::Expired => words_of(Status::Stopped, Phase::Expired, 0, "expired", json!({}), "Its time was over, so it was removed".into()),
    }
}

fn metadata(moving: &Moving) -> Words {
    let (key, message) = if moving.peers == 0 {
        ("looking_for_peers", format!("Looking for peers ({} s)", moving.seconds))
    } else {
        ("asking_for_metadata", format!("Asking {} peers what is in it ({} s)", moving.peers, moving.seconds))
    };
    let params = json!({ "seconds": moving.seconds, "peers": moving.peers });
    words_of(Status::Downloading, Phase::Metadata, u8::try_from(moving.seconds.min(10)).unwrap_or(10), key, params, message)
}

fn buffering(moving: &Moving) -> Words {
    let (have, all) = moving.first.unwrap_or((0, 1));
    let share = if all == 0 { 1.0 } else { (have as f64 / all as f64).clamp(0.0, 1.0) };
    let percent = (share * 100.0) as u64;
    let (phase, key, message) = match (moving.peers, moving.speed) {
        (0, _) => (Phase::Connecting, "connecting", format!("Connecting to the people who have it ({} s)", moving.seconds)),
        (_, 0) => (Phase::Buffering, "waiting_for_bytes", format!("Waiting for the first bytes ({} s)", moving.seconds)),
        (_, speed) => (Phase::Buffering, "buffering", format!("Loading the first seconds: {percent} % at {:.1} MB/s", speed as f64 / 1e6)),
    };
    let params = json!({ "percent": percent, "speed": moving.speed, "seconds": moving.seconds });
    let mut words = words_of(Status::Downloading, phase, 20 + (share * 75.0) as u8, key, params, message);
    words.eta = all.saturating_sub(have).checked_div(moving.speed);
    words
}

fn words_of(status: Status, phase: Phase, progress: u8, key: &'static str, params: Value, message: String) -> Words {
    Words { status, phase, progress, eta: None, message, key, params }
}

/// A reason in the API's form.
pub fn why(why: &Why) -> (String, String) {
    (why.to_string(), why.key().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::state::FailureCode;
    use super::*;

    #[test]
    fn every_wait_has_its_words() {
        let nobody = Moving { seconds: 4, ..Moving::default() };
        let slow = Moving { seconds: 9, peers: 3, speed: 2_000_000, first: Some((1_000_000, 5_000_000)), ..Moving::default() };
        let starved = Moving { seconds: 9, peers: 3, starved: true, first: Some((0, 5_000_000)), ..Moving::default() };
        let paused = Moving { seconds: 9, starved: true, paused: true, first: Some((0, 5_000_000)), ..Moving::default() };
        let lined = Moving { seconds: 9, peers: 3, encoder: Some(4), ..Moving::default() };
        let behind = Moving { seconds: 9, peers: 3, behind: Some(4), ..Moving::default() };
        let hot = Moving { seconds: 9, peers: 3, slow: Some(70), ..Moving::default() };
        let asleep = Moving { asleep: true, ..Moving::default() };
        let all_here = Moving { seconds: 1, paused: true, ..Moving::default() };
        let failed = State::Failed(Failure::new(FailureCode::NoPeers, "Try again later."));
        let states = [
            State::Queued { place: 2 },
            State::Metadata,
            State::Opening,
            State::Probing,
            State::Lined { mode: Mode::Convert, place: None },
            State::Lined { mode: Mode::Convert, place: Some(3) },
            State::Warming(Mode::Copy),
            State::Warming(Mode::Convert),
            State::Ready { complete: false },
            State::Ready { complete: true },
            failed,
            State::Stopped,
            State::Expired,
        ];
        let mut lines = String::new();
        for state in &states {
            for moving in [&nobody, &slow, &starved, &paused, &lined, &behind, &hot, &asleep, &all_here] {
                let words = words(state, moving);
                assert!(!words.message.is_empty() && !words.key.is_empty());
                let line =
                    format!("{:?}/{:?} {} % {:?} {}: {}\n", words.status, words.phase, words.progress, words.eta, words.key, words.message);
                if !lines.ends_with(&line) {
                    lines.push_str(&line);
                }
            }
        }
        insta::assert_snapshot!(lines);
    }
}
