//! What the server tells, kept as it was told last: the overview and all streams. What of it is worth a notification is decided here,
//! without doing anything about it.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Who waits for a film for so long may have put the phone away: the computer says that it is ready, too.
const LONG: SignedDuration = SignedDuration::from_secs(60);
/// The longest event that is taken; the server's are a few kB.
const LONGEST_EVENT: usize = 4 << 20;
/// The id of the owner's own record: this computer.
const OWNER: &str = "owner";

/// Everything at one glance, as `GET /api/overview` tells it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Overview {
    pub(crate) state: Condition,
    pub(crate) paused: bool,
    /// Devices that asked for media just now.
    pub(crate) watching: usize,
    /// Streams that are on their way to being playable.
    pub(crate) preparing: usize,
    /// Bytes a second.
    pub(crate) download_speed: u64,
    /// Bytes a second.
    pub(crate) upload_speed: u64,
    /// Bytes of films and segments on the disk.
    pub(crate) used_bytes: u64,
    /// The most they may take.
    pub(crate) budget_bytes: u64,
    /// Bytes free on the disk.
    pub(crate) free_bytes: u64,
    pub(crate) trouble: Option<Trouble>,
}

/// What the icon shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// Somebody watches, or a stream is being prepared.
    Active,
    /// Something needs the owner.
    Trouble,
    /// Nothing plays. What is not known here counts as this.
    #[default]
    #[serde(other)]
    Idle,
}

/// What needs the owner.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// A stream, as far as the tray shows it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stream {
    pub(crate) stream_id: String,
    pub(crate) status: String,
    pub(crate) phase: String,
    pub(crate) title: Option<String>,
    /// Per cent toward being playable.
    pub(crate) progress: f64,
    /// Per cent of the file that is here.
    pub(crate) download_progress: Option<f64>,
    pub(crate) created_at: String,
    /// Whose stream it is, where that is told.
    pub(crate) device: Option<Device>,
    /// Who watches it.
    pub(crate) watching: Vec<Device>,
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Something that somebody may want to hear of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happening {
    /// A device came in.
    Paired(Device),
    /// A film can be watched. `here`: it was asked for on this computer.
    Ready { stream: String, title: Option<String>, here: bool },
    /// Something needs the owner now that did not before.
    Trouble(Trouble),
}

/// All that is known of the server.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) overview: Option<Overview>,
    streams: HashMap<String, Stream>,
    /// The streams that did not play when they were last told of.
    awaited: HashSet<String>,
    /// Since when this is listened to. A stream that is older and plays when it is first told of did so before.
    began: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gone {
    stream_id: String,
}

#[derive(Deserialize)]
struct DeviceChange {
    change: String,
    device: Option<Device>,
}

impl News {
    /// Nothing is known yet.
    pub(crate) fn since(began: Timestamp) -> Self {
        Self { began, ..Self::default() }
    }

    /// Takes one event in. What this program does not understand is left aside.
    pub(crate) fn hear(&mut self, event: &Event, now: Timestamp) -> Option<Happening> {
        match event.name.as_str() {
            "overview" => self.hear_overview(event.read()?),
            "stream" => self.hear_stream(event.read()?, now),
            "gone" => {
                let gone: Gone = event.read()?;
                self.streams.remove(&gone.stream_id);
                self.awaited.remove(&gone.stream_id);
                None
            }
            "device" => {
                let told: DeviceChange = event.read()?;
                told.device.filter(|_| told.change == "paired").map(Happening::Paired)
            }
            _ => None,
        }
    }

    /// The line is open anew: what is over was perhaps told to nobody, and what is not will be told again.
    pub(crate) fn begin_anew(&mut self, now: Timestamp) {
        self.streams.clear();
        self.began = now;
    }

    /// The streams, oldest first.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &Stream> {
        let sorted: BTreeMap<_, _> = self.streams.values().map(|stream| ((&stream.created_at, &stream.stream_id), stream)).collect();
        sorted.into_values()
    }

    /// Whether somebody watches on this computer.
    pub(crate) fn is_watched_here(&self) -> bool {
        self.streams.values().any(|stream| stream.watching.iter().any(|device| device.id == OWNER))
    }

    fn hear_overview(&mut self, overview: Overview) -> Option<Happening> {
        let before = self.overview.take().and_then(|overview| overview.trouble).map(|trouble| trouble.code);
        let trouble = overview.trouble.clone().filter(|trouble| Some(&trouble.code) != before.as_ref());
        self.overview = Some(overview);
        trouble.map(Happening::Trouble)
    }

    fn hear_stream(&mut self, stream: Stream, now: Timestamp) -> Option<Happening> {
        let id = stream.stream_id.clone();
        let before = self.streams.insert(id.clone(), stream.clone());
        let born: Timestamp = stream.created_at.parse().unwrap_or_default();
        match stream.status.as_str() {
            "downloading" | "converting" => {
                self.awaited.insert(id);
                None
            }
            "ready" => {
                let is_new = self.awaited.remove(&id) || (before.is_none() && born >= self.began);
                let here = stream.device.as_ref().is_none_or(|device| device.id == OWNER);
                let is_told = is_new && (here || now.duration_since(born) >= LONG);
                is_told.then_some(Happening::Ready { stream: id, title: stream.title, here })
            }
            _ => {
                self.awaited.remove(&id);
                None
            }
        }
    }
}

/// A server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    name: String,
    data: String,
}

impl Event {
    fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.data).inspect_err(|error| tracing::warn!(%error, event = self.name, "not understood")).ok()
    }
}

/// Reads server-sent events from a body that comes in parts (HTML Living Standard, 9.2.6).
#[derive(Debug, Default)]
pub(crate) struct Reader {
    rest: Vec<u8>,
    open: Event,
}

impl Reader {
    /// Takes the next part; answers the events that are complete with it, `None` when one of them is absurdly long.
    pub(crate) fn take(&mut self, part: &[u8]) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        self.rest.extend_from_slice(part);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\r', '\n']), &mut events);
        }
        (self.rest.len() + self.open.data.len() <= LONGEST_EVENT).then_some(events)
    }

    fn line(&mut self, line: &str, events: &mut Vec<Event>) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let event = std::mem::take(&mut self.open);
                events.extend((!event.data.is_empty()).then_some(event));
            }
            "event" => value.clone_into(&mut self.open.name),
            "data" => {
                if !self.open.data.is_empty() {
                    self.open.data.push('\n');
                }
                self.open.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &serde_json::Value) -> Event {
        Event { name: name.to_owned(), data: data.to_string() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn stream(id: &str, born: i64, status: &str, device: Option<&str>) -> Event {
        let device = device.map(|id| serde_json::json!({ "id": id, "name": "x" }));
        let told = serde_json::json!({
            "streamId": id, "status": status, "title": "Film", "device": device, "createdAt": at(born).to_string()
        });
        event("stream", &told)
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let body = b": hello\n\nevent: stream\ndata: {\"a\":\r\ndata: 1}\n\nevent: gone\ndata:x\nid: 7\n\nevent: empty\n\n";
        let expected =
            [Event { name: "stream".into(), data: "{\"a\":\n1}".into() }, Event { name: "gone".into(), data: "x".into() }].to_vec();
        for size in 1..body.len() {
            let mut reader = Reader::default();
            let events: Vec<Event> = body.chunks(size).flat_map(|part| reader.take(part).expect("short")).collect();
            assert_eq!(events, expected, "in parts of {size}");
        }
        let mut reader = Reader::default();
        assert_eq!(reader.take(&vec![b'x'; LONGEST_EVENT + 1]), None);
    }

    #[test]
    fn a_stream_is_announced_once_when_it_was_awaited_or_is_new() {
        let ready = |id: &str| Some(Happening::Ready { stream: id.into(), title: Some("Film".into()), here: true });
        let mut news = News::since(at(10));
        assert_eq!(news.hear(&stream("1", 9, "ready", None), at(10)), None, "it was ready before");
        assert_eq!(news.hear(&stream("2", 9, "downloading", Some("owner")), at(10)), None);
        assert_eq!(news.hear(&stream("2", 9, "ready", Some("owner")), at(11)), ready("2"));
        assert_eq!(news.hear(&stream("2", 9, "ready", Some("owner")), at(11)), None);
        assert_eq!(news.hear(&stream("3", 12, "ready", None), at(12)), ready("3"), "nothing was told while it was prepared");
        news.begin_anew(at(20));
        assert_eq!(news.hear(&stream("3", 12, "ready", None), at(20)), None);
    }

    #[test]
    fn a_phones_stream_is_announced_when_it_took_long() {
        for (waited, told) in [(59, false), (60, true)] {
            let mut news = News::since(at(0));
            news.hear(&stream("1", 1, "downloading", Some("abc")), at(1));
            news.begin_anew(at(9));
            news.hear(&stream("1", 1, "converting", Some("abc")), at(10));
            assert_eq!(news.hear(&stream("1", 1, "ready", Some("abc")), at(1 + waited)).is_some(), told);
        }
    }

    #[test]
    fn streams_come_and_go_oldest_first() {
        let mut news = News::default();
        for (id, born) in [("3", 3), ("1", 1), ("2", 2)] {
            news.hear(&stream(id, born, "downloading", None), at(9));
        }
        let ids = |news: &News| news.streams().map(|stream| stream.stream_id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&news), ["1", "2", "3"]);
        news.hear(&event("gone", &serde_json::json!({ "streamId": "2" })), at(9));
        assert_eq!(ids(&news), ["1", "3"]);
        news.hear(&Event { name: "stream".into(), data: "rubbish".into() }, at(9));
        news.hear(&event("something new", &serde_json::json!(1)), at(9));
        assert_eq!(ids(&news), ["1", "3"]);
    }

    #[test]
    fn trouble_and_phones_are_told_when_they_come() {
        let mut news = News::default();
        let overview = |code: Option<&str>| {
            let trouble = code.map(|code| serde_json::json!({ "code": code, "message": "m" }));
            event("overview", &serde_json::json!({ "state": "trouble", "trouble": trouble, "freeBytes": 1 }))
        };
        let mut codes = Vec::new();
        for code in [None, Some("no_space"), Some("no_space"), Some("no_ffmpeg"), None, Some("no_space")] {
            if let Some(Happening::Trouble(trouble)) = news.hear(&overview(code), at(9)) {
                codes.push(trouble.code);
            }
        }
        assert_eq!(codes, ["no_space", "no_ffmpeg", "no_space"]);
        assert_eq!(news.overview.as_ref().map(|overview| overview.state), Some(Condition::Trouble));
        let device = serde_json::json!({ "id": "abc", "name": "Pixel 8", "person": "Anna" });
        let paired = Happening::Paired(Device { id: "abc".into(), name: "Pixel 8".into() });
        let told = |change: &str| event("device", &serde_json::json!({ "change": change, "device": device }));
        assert_eq!(news.hear(&told("paired"), at(9)), Some(paired));
        assert_eq!(news.hear(&told("changed"), at(9)), None);
    }
}
