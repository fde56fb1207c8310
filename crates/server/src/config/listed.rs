//! The settings as a program for people shows them: each with its name in JSON, its kind, its value and when a change of it is felt.
//!
//! The list says what is there; which values are right is checked in [`super::resolved`], and only there.

use std::time::Duration;

use clap::CommandFactory;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::resolved::Resolved;
use super::typed::{ENVIRONMENT_PREFIX, Typed, quoted};

/// What kind of value a setting has. In JSON: sizes are bytes, times seconds, both as numbers; lists are arrays of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Any text within the rules of this setting.
    Text,
    /// A number.
    Number,
    /// A number of bytes; may be set as a text such as `20GiB` too.
    Size,
    /// A number of seconds; may be set as a text such as `24h` too.
    Time,
    /// True or false.
    Switch,
    /// Texts, in an order.
    List,
    /// The path of a folder.
    Folder,
    /// The path of a file.
    File,
}

/// What a setting is about: settings of one group are shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The server itself.
    Server,
    /// Where it is reached, and by whom.
    Network,
    /// Folders, and what may lie in them.
    Space,
    /// The life of streams.
    Streams,
    /// The BitTorrent network.
    Torrents,
    /// Programs and what is written about them.
    Programs,
    /// For people who write clients.
    Development,
}

/// When a change is felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// At once: the next stream, the next file, the next answer.
    Now,
    /// At the next start of the server.
    Restart,
}

/// By whom a setting may be changed while the server runs. Who is higher may do what the lower ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// By every device with the owner's scope.
    Admin,
    /// By the owner at this machine only: what would lead to running, reading or telling something that the device that asks could not do
    /// by itself. A stolen phone must not.
    Owner,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name as a flag, without dashes, and in `config.toml`.
    pub flag: &'static str,
    /// What it is about.
    pub group: Group,
    /// What kind of value it has.
    pub kind: Kind,
    /// When a change is felt.
    pub effect: Effect,
    /// Who may change it.
    pub changed_by: Rank,
    /// Its value.
    pub value: fn(&Resolved) -> Json,
}

const fn setting(key: &'static str, flag: &'static str, group: Group, kind: Kind, effect: Effect, value: fn(&Resolved) -> Json) -> Setting {
    Setting { key, flag, group, kind, effect, changed_by: Rank::Admin, value }
}

/// A setting that is changed by the owner at this machine only.
const fn owners(setting: Setting) -> Setting {
    Setting { changed_by: Rank::Owner, ..setting }
}

/// Every setting, in the order in which people are shown them.
pub const SETTINGS: &[Setting] = {
    use Effect::{Now, Restart};
    use Group::{Development, Network, Programs, Server, Space, Streams, Torrents};
    use Kind::{File, Folder, List, Number, Size, Switch, Text, Time};
    &[
        setting("name", "name", Server, Text, Now, |r| json!(r.name)),
        setting("headless", "headless", Server, Switch, Restart, |r| json!(r.headless)),
        owners(setting("httpPort", "http-port", Network, Number, Restart, |r| json!(r.http_port))),
        owners(setting("httpsPort", "https-port", Network, Number, Restart, |r| json!(r.https_port))),
        owners(setting("bind", "bind", Network, Text, Restart, |r| json!(r.bind))),
        owners(setting("hostNames", "host-name", Network, List, Restart, |r| json!(r.host_names))),
        owners(setting("corsOrigins", "cors-origin", Network, List, Restart, |r| json!(r.cors_origins))),
        owners(setting("tlsCert", "tls-cert", Network, File, Restart, |r| json!(r.tls.as_ref().map(|(certificate, _)| certificate)))),
        owners(setting("tlsKey", "tls-key", Network, File, Restart, |r| json!(r.tls.as_ref().map(|(_, key)| key)))),
        owners(setting("caUnconstrained", "ca-unconstrained", Network, Switch, Restart, |r| json!(r.ca_unconstrained))),
        setting("noMdns", "no-mdns", Network, Switch, Restart, |r| json!(r.no_mdns)),
        setting("cacheMaxBytes", "cache-max-bytes", Space, Size, Now, |r| json!(r.cache_max_bytes)),
        setting("reserveBytes", "reserve-bytes", Space, Size, Restart, |r| json!(r.reserve_bytes)),
        owners(setting("cacheDir", "cache-dir", Space, Folder, Restart, |r| json!(r.cache_dir))),
        owners(setting("dataDir", "data-dir", Space, Folder, Restart, |r| json!(r.data_dir))),
        owners(setting("configDir", "config-dir", Space, Folder, Restart, |r| json!(r.config_dir))),
        setting("expireAfter", "expire-after", Streams, Time, Now, |r| seconds(r.expire_after)),
        setting("maxStreamsPerDevice", "max-streams-per-device", Streams, Number, Restart, |r| json!(r.max_streams_per_device)),
        setting("queueLength", "queue-length", Streams, Number, Restart, |r| json!(r.queue_length)),
        setting("maxProductions", "max-productions", Streams, Number, Restart, |r| json!(r.max_productions)),
        setting("encoder", "encoder", Streams, Text, Now, |r| json!(r.encoder.name())),
        setting("metadataTimeout", "metadata-timeout", Torrents, Time, Restart, |r| seconds(r.metadata_timeout)),
        setting("stallTimeout", "stall-timeout", Torrents, Time, Now, |r| seconds(r.stall_timeout)),
        setting("noDht", "no-dht", Torrents, Switch, Restart, |r| json!(r.no_dht)),
        setting("noTrackers", "no-trackers", Torrents, Switch, Restart, |r| json!(r.no_trackers)),
        owners(setting("peers", "peer", Torrents, List, Restart, |r| json!(r.peers))),
        owners(setting("allowPrivatePeers", "allow-private-peers", Torrents, Switch, Restart, |r| json!(r.allow_private_peers))),
        owners(setting("ffmpeg", "ffmpeg", Programs, File, Restart, |r| json!(r.ffmpeg))),
        owners(setting("ffprobe", "ffprobe", Programs, File, Restart, |r| json!(r.ffprobe))),
        owners(setting("log", "log", Programs, Text, Restart, |r| json!(r.log))),
        setting("sample", "sample", Development, Switch, Restart, |r| json!(r.sample)),
        setting("mock", "mock", Development, Switch, Restart, |r| json!(r.mock)),
        setting("mockSpeed", "mock-speed", Development, Number, Restart, |r| number(r.mock_speed)),
    ]
};

/// A number of seconds; whole ones without a point.
fn seconds(time: Duration) -> Json {
    number(time.as_millis() as f64 / 1000.0)
}

fn number(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 1e15 { json!(number as i64) } else { json!(number) }
}

/// The setting with this name in JSON.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// A flag's name as it is in JSON; what is no setting stays as it is.
pub fn key_of(flag: &str) -> String {
    let setting = SETTINGS.iter().find(|setting| setting.flag == flag);
    setting.map_or_else(|| flag.to_owned(), |setting| setting.key.to_owned())
}

impl Setting {
    /// Whether it can stand in `config.toml`: where to find the file cannot.
    pub fn is_of_the_file(&self) -> bool {
        self.flag != "config-dir"
    }

    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// One line for people that says what it is, without its default.
    pub fn about(&self) -> String {
        let command = Typed::command();
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(self.flag));
        let help = argument.and_then(|argument| argument.get_help()).map(ToString::to_string).unwrap_or_default();
        help.split(" [").next().unwrap_or_default().to_owned()
    }

    /// A value out of JSON as it is written into `config.toml`.
    ///
    /// # Errors
    /// A sentence where the value is of another kind.
    pub fn written(&self, value: &Json) -> Result<toml_edit::Value, String> {
        let written = match (self.kind, value) {
            (Kind::Text | Kind::Folder | Kind::File | Kind::Size | Kind::Time, Json::String(text)) => Some(text.as_str().into()),
            (Kind::Switch, Json::Bool(on)) => Some((*on).into()),
            (Kind::Number | Kind::Size, Json::Number(number)) => written_number(number),
            // A file has no seconds without their unit: nobody would know what the number means.
            (Kind::Time, Json::Number(number)) => Some(format!("{}s", plain(number)).into()),
            (Kind::List, Json::Array(words)) => words
                .iter()
                .map(Json::as_str)
                .collect::<Option<Vec<_>>>()
                .map(|words| words.into_iter().collect::<toml_edit::Array>().into()),
            _ => None,
        };
        written.ok_or_else(|| {
            let given = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{} wants {}, not {}.", self.key, self.kind.wanted(), quoted(&given))
        })
    }
}

impl Kind {
    fn wanted(self) -> &'static str {
        match self {
            Self::Text | Self::Folder | Self::File => "a text",
            Self::Number => "a number",
            Self::Size => "a size such as \"20GiB\" or a number of bytes",
            Self::Time => "a time such as \"24h\" or a number of seconds",
            Self::Switch => "true or false",
            Self::List => "a list of texts",
        }
    }
}

fn written_number(number: &serde_json::Number) -> Option<toml_edit::Value> {
    if let Some(whole) = number.as_i64() {
        return Some(whole.into());
    }
    let fraction = number.as_f64()?;
    // 3.0 is the same number as 3 (RFC 8259 knows one kind), and a whole one is wanted almost everywhere.
    if fraction.fract() == 0.0 && fraction.abs() < 1e15 { Some((fraction as i64).into()) } else { Some(fraction.into()) }
}

/// A number without an exponent.
fn plain(number: &serde_json::Number) -> String {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(fraction)) => fraction.to_string(),
        (None, None) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::typed;
    use super::*;

    #[test]
    fn every_flag_is_listed_once() {
        let mut listed: Vec<&str> = SETTINGS.iter().map(|setting| setting.flag).collect();
        listed.sort_unstable();
        let mut flags = typed::names();
        flags.sort_unstable();
        assert_eq!(listed, flags);
    }

    #[test]
    fn keys_are_the_flags_in_camel_case() {
        for setting in SETTINGS {
            let mut words = setting.flag.split('-');
            let first = words.next().unwrap_or_default().to_owned();
            let mut camel = words.fold(first, |all, word| all + &word[..1].to_ascii_uppercase() + &word[1..]);
            if setting.kind == Kind::List {
                camel.push('s');
            }
            assert_eq!(setting.key, camel);
            assert_eq!(key_of(setting.flag), setting.key);
            assert!(by_key(setting.key).is_some_and(|found| found.flag == setting.flag));
            assert_eq!(setting.kind == Kind::List, typed::is_list(setting.flag), "{camel}");
        }
    }

    #[test]
    fn what_reaches_into_the_machine_is_the_owners() {
        let of = |rank| SETTINGS.iter().filter(move |setting| setting.changed_by == rank);
        assert!(of(Rank::Admin).all(|setting| !matches!(setting.kind, Kind::File | Kind::Folder | Kind::List)), "paths and lists");
        let names: Vec<&str> = of(Rank::Admin).map(|setting| setting.key).collect();
        assert_eq!(
            names.join(" "),
            "name headless noMdns cacheMaxBytes reserveBytes expireAfter maxStreamsPerDevice queueLength maxProductions encoder \
             metadataTimeout stallTimeout noDht noTrackers sample mock mockSpeed"
        );
        assert!(Rank::Owner > Rank::Admin);
    }

    #[test]
    fn each_says_what_it_is() {
        let about = |key| by_key(key).expect("listed").about();
        assert_eq!(about("expireAfter"), "How long a stream lives when nobody watches it");
        assert_eq!(about("noDht"), "Do without the DHT");
        assert!(SETTINGS.iter().all(|setting| setting.about().len() > 8));
        assert_eq!(by_key("maxStreamsPerDevice").expect("listed").variable(), "BALCONY_MAX_STREAMS_PER_DEVICE");
    }

    #[test]
    fn values_of_json_in_the_file() {
        let table = [
            ("name", json!("Anna's den"), Ok("\"Anna's den\"")),
            ("name", json!(7), Err("name wants a text, not \"7\".")),
            ("noDht", json!(true), Ok("true")),
            ("noDht", json!("true"), Err("noDht wants true or false, not \"true\".")),
            ("httpPort", json!(8080), Ok("8080")),
            ("httpPort", json!(8080.0), Ok("8080")),
            ("httpPort", json!("8080"), Err("httpPort wants a number, not \"8080\".")),
            ("mockSpeed", json!(2.5), Ok("2.5")),
            ("cacheMaxBytes", json!("20GiB"), Ok("\"20GiB\"")),
            ("cacheMaxBytes", json!(21_474_836_480_u64), Ok("21474836480")),
            ("cacheMaxBytes", json!([1]), Err("cacheMaxBytes wants a size such as \"20GiB\" or a number of bytes, not \"[1]\".")),
            ("expireAfter", json!("12h"), Ok("\"12h\"")),
            ("expireAfter", json!(90), Ok("\"90s\"")),
            ("expireAfter", json!(0.25), Ok("\"0.25s\"")),
            ("expireAfter", json!(1e-7), Ok("\"0.0000001s\"")),
            ("peers", json!(["1.2.3.4:5", "[::1]:6"]), Ok("[\"1.2.3.4:5\", \"[::1]:6\"]")),
            ("peers", json!([]), Ok("[]")),
            ("peers", json!("1.2.3.4:5"), Err("peers wants a list of texts, not \"1.2.3.4:5\".")),
            ("peers", json!([1]), Err("peers wants a list of texts, not \"[1]\".")),
        ];
        for (key, value, expected) in table {
            let written = by_key(key).expect("listed").written(&value).map(|value| value.to_string());
            assert_eq!(written.as_ref().map(String::as_str).map_err(String::as_str), expected, "{key} {value}");
        }
    }
}
