//! What the tray shows, as a value: made of what the server tells and of what somebody chose, and compared before anything is drawn.

use crate::news::{Condition, News, Overview, Stream};
use crate::words::{Words, fill};

/// So many streams stand in the menu; the window shows the rest.
const MOST_STREAMS: usize = 12;
/// The longest title in the menu, in characters.
const LONGEST_TITLE: usize = 44;

/// Everything that can change about the tray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Face {
    pub(crate) icon: Condition,
    pub(crate) status: String,
    /// Oldest first.
    pub(crate) streams: Vec<Line>,
    /// What is said instead of streams, or below them.
    pub(crate) more: Option<String>,
    pub(crate) disk: String,
    pub(crate) checks: Checks,
}

/// A stream in the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) stream: String,
    /// Its title and its state.
    pub(crate) name: String,
    /// Its state and how far it is, which changes all the time.
    pub(crate) state: String,
}

/// The entries that are on or off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    pub(crate) paused: bool,
    pub(crate) login: bool,
    pub(crate) awake: bool,
    pub(crate) links: bool,
}

impl Face {
    /// The face of a server of which this is known. `checks.paused` is taken from there.
    pub(crate) fn of(news: &News, checks: Checks, words: &Words) -> Self {
        let overview = news.overview.as_ref();
        let all: Vec<_> = news.streams().collect();
        let hidden = all.len().saturating_sub(MOST_STREAMS);
        let more = match (all.len(), hidden) {
            (0, _) => Some(words.no_streams.to_owned()),
            (_, 0) => None,
            (_, hidden) => Some(fill(words.more_streams, &[("n", &hidden.to_string())])),
        };
        Self {
            icon: overview.map(|overview| overview.state).unwrap_or_default(),
            status: overview.map_or_else(|| words.starting.to_owned(), |overview| status(overview, news.is_watched_here(), words)),
            streams: all.iter().take(MOST_STREAMS).map(|stream| line(stream, words)).collect(),
            more,
            disk: overview.map(|overview| disk(overview, words)).unwrap_or_default(),
            checks: Checks { paused: overview.is_some_and(|overview| overview.paused), ..checks },
        }
    }
}

fn status(overview: &Overview, is_watched_here: bool, words: &Words) -> String {
    if let Some(trouble) = &overview.trouble {
        return match trouble.code.as_str() {
            "no_space" => words.disk_is_full.to_owned(),
            "no_ffmpeg" => words.ffmpeg_is_missing.to_owned(),
            _ => short(&trouble.message, 2 * LONGEST_TITLE),
        };
    }
    if overview.paused {
        return words.paused.to_owned();
    }
    let phones = overview.watching.saturating_sub(usize::from(is_watched_here));
    let sentence = match (phones, overview.watching, overview.preparing) {
        (0, 0, 0) => words.ready,
        (0, 0, 1) => words.one_is_prepared,
        (0, 0, _) => words.many_are_prepared,
        (0, ..) => words.watched_here,
        (1, ..) => words.one_watches,
        _ => words.many_watch,
    };
    let n = if phones > 0 { phones } else { overview.preparing };
    // Where all is here already, there is no speed to tell.
    let sentence = if overview.download_speed == 0 { sentence.trim_end_matches(", {speed}") } else { sentence };
    fill(sentence, &[("n", &n.to_string()), ("speed", &words.speed(overview.download_speed))])
}

fn disk(overview: &Overview, words: &Words) -> String {
    fill(words.used, &[("used", &words.bytes(overview.used_bytes)), ("budget", &words.bytes(overview.budget_bytes))])
}

fn line(stream: &Stream, words: &Words) -> Line {
    let title = stream.title.as_deref().map_or_else(|| words.nameless.to_owned(), |title| short(title, LONGEST_TITLE));
    let (state, percent) = match stream.phase.as_str() {
        "queued" => (words.queued, None),
        "metadata" => (words.metadata, Some(stream.progress)),
        "connecting" => (words.connecting, Some(stream.progress)),
        "probing" => (words.probing, Some(stream.progress)),
        "converting" => (words.converting, Some(stream.progress)),
        "playable" => (words.playable, stream.download_progress),
        "complete" => (words.complete, None),
        "failed" => (words.failed, None),
        "stopped" | "expired" => (words.stopped, None),
        _ => (words.buffering, Some(stream.progress)),
    };
    let percent = percent.map(|percent| format!(", {:.0} %", percent.clamp(0.0, 100.0).floor())).unwrap_or_default();
    Line { stream: stream.stream_id.clone(), name: format!("{title}: {state}"), state: format!("{state}{percent}") }
}

/// A text in at most so many characters, its middle left out where it is longer: the end of a title tells the episode.
fn short(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().filter(|c| !c.is_control()).collect();
    if letters.len() <= most {
        return letters.into_iter().collect();
    }
    let (start, end) = (most / 2, most - most / 2 - 1);
    let (start, end) = (letters.iter().take(start), letters.iter().skip(letters.len() - end));
    start.chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> &'static Words {
        Words::of_language("en")
    }

    #[test]
    fn the_status_line_says_the_most_important_thing() {
        let table = [
            (r#"{}"#, false, "Ready"),
            (r#"{"watching":1,"downloadSpeed":5200000}"#, false, "1 phone watching, 5.2 MB/s"),
            (r#"{"watching":2,"preparing":3,"downloadSpeed":8300000}"#, false, "2 phones watching, 8.3 MB/s"),
            (r#"{"watching":2}"#, true, "1 phone watching"),
            (r#"{"watching":1}"#, true, "Watched on this computer"),
            (r#"{"preparing":1,"downloadSpeed":40000}"#, false, "Preparing a film, 40 kB/s"),
            (r#"{"preparing":4}"#, false, "Preparing 4 films"),
            (r#"{"watching":2,"paused":true}"#, false, "Paused"),
            (r#"{"watching":2,"trouble":{"code":"no_space"}}"#, false, "Disk almost full"),
            (r#"{"trouble":{"code":"clock","message":"The clock is wrong."}}"#, false, "The clock is wrong."),
        ];
        for (overview, here, expected) in table {
            let overview: Overview = serde_json::from_str(overview).expect("an overview");
            assert_eq!(status(&overview, here, words()), expected);
        }
    }

    #[test]
    fn a_streams_line_has_title_state_and_per_cent() {
        let table = [
            (r#"{"title":"Sintel","phase":"buffering","progress":41.9}"#, "Sintel: Fetching the beginning", "Fetching the beginning, 41 %"),
            (r#"{"phase":"metadata"}"#, "A film: Looking for peers", "Looking for peers, 0 %"),
            (r#"{"title":"Sintel","phase":"playable","progress":100,"downloadProgress":99.99}"#, "Sintel: Ready", "Ready, 99 %"),
            (r#"{"title":"Sintel","phase":"complete","downloadProgress":100}"#, "Sintel: Ready, all here", "Ready, all here"),
            (r#"{"title":"Sintel","phase":"queued"}"#, "Sintel: In the queue", "In the queue"),
        ];
        for (stream, name, state) in table {
            let line = line(&serde_json::from_str(stream).expect("a stream"), words());
            assert_eq!((line.name.as_str(), line.state.as_str()), (name, state));
        }
    }

    #[test]
    fn long_titles_lose_their_middle() {
        let title = format!("{}S01E02.mkv", "x".repeat(100));
        let cut = short(&title, LONGEST_TITLE);
        assert_eq!(cut.chars().count(), LONGEST_TITLE);
        assert!(cut.starts_with('x') && cut.contains('…') && cut.ends_with("S01E02.mkv"));
        assert_eq!(short("a\nb", 9), "ab");
    }

    #[test]
    fn a_server_that_has_told_nothing_yet_is_starting() {
        let face = Face::of(&News::default(), Checks { awake: true, ..Checks::default() }, words());
        assert_eq!((face.status.as_str(), face.icon, face.disk.as_str()), ("Starting", Condition::Idle, ""));
        assert_eq!(face.more.as_deref(), Some("No streams"));
        assert!(face.checks.awake && !face.checks.paused);
    }
}
