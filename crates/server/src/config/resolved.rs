//! What the program needs, checked once: words in, either a [`Resolved`] or every mistake at once.
//!
//! A pure function of its arguments. What has to be measured (free space) is turned into a number later,
//! by [`cache_budget`], which is pure too.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use balcony_media::encoder::Wanted;

use super::typed::{COMMAND_FLAGS, COMMANDS, Words, quoted};
use crate::trust::letters::{clear, is_blank, is_joining};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve,
    /// Show a pairing code of the server that runs.
    Pair {
        /// The device becomes one of the owner's, with the owner's rights.
        admin: bool,
        /// Whose device it becomes: a person's id or name; `None` is somebody new.
        person: Option<String>,
    },
    /// Make and seed the sample film and print its magnet.
    Sample,
    /// See whether all is well, and say what is not.
    Doctor {
        /// Where to write everything that somebody who helps may want to see.
        bundle: Option<PathBuf>,
    },
    /// Throw the certificate authority away, so that the next start makes a new one.
    ResetCa {
        /// The price is known and accepted.
        yes: bool,
    },
    /// Print the API document.
    Openapi,
}

/// What the machine and the environment say where nobody said anything else.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its own name.
    pub name: String,
    /// The platform's own folder for settings; empty where the user has no home.
    pub config_dir: PathBuf,
    /// The platform's own folder for data.
    pub data_dir: PathBuf,
    /// The platform's own folder for caches.
    pub cache_dir: PathBuf,
    /// Number of cores.
    pub cores: usize,
    /// `FFMPEG_BIN`.
    pub ffmpeg_bin: Option<PathBuf>,
    /// `FFPROBE_BIN`.
    pub ffprobe_bin: Option<PathBuf>,
}

/// Everything that the program needs to know, in its own types.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// What to do.
    pub command: Command,
    /// The name of this server, as people see it: 1 to 60 characters.
    pub name: String,
    /// Folder of the settings.
    pub config_dir: PathBuf,
    /// Folder of the database, keys and logs.
    pub data_dir: PathBuf,
    /// Folder of torrent data and segments.
    pub cache_dir: PathBuf,
    /// Port of HTTPS; 0 is any.
    pub https_port: u16,
    /// Port of plain HTTP on loopback; 0 is any.
    pub http_port: u16,
    /// The address to be open on for the LAN; `None` is all LAN interfaces.
    pub bind: Option<IpAddr>,
    /// The most that torrent data and segments may take, in bytes, before the free space is looked at (see [`cache_budget`]).
    pub cache_max_bytes: u64,
    /// Free space that is never touched, in bytes.
    pub reserve_bytes: u64,
    /// ffmpeg processes that may encode video at once; at least 1.
    pub max_productions: usize,
    /// What converts pictures.
    pub encoder: Wanted,
    /// Streams of one device before the next one waits; at least 1.
    pub max_streams_per_device: usize,
    /// Streams that may wait.
    pub queue_length: usize,
    /// How long a stream lives when nobody watches it.
    pub expire_after: Duration,
    /// How long to look for the metadata of a magnet.
    pub metadata_timeout: Duration,
    /// How long to wait for bytes before a stream is given up.
    pub stall_timeout: Duration,
    /// Peers for every torrent.
    pub peers: Vec<SocketAddr>,
    /// Whether torrents may talk to private and loopback addresses.
    pub allow_private_peers: bool,
    /// Do without the DHT.
    pub no_dht: bool,
    /// Do without trackers.
    pub no_trackers: bool,
    /// Do not announce the server in the LAN.
    pub no_mdns: bool,
    /// Own certificate and key (PEM files).
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether the own certificate authority may vouch for any name and address.
    pub ca_unconstrained: bool,
    /// More hosts that are this server, in lower case: DNS names without a closing dot, addresses without brackets; never a port.
    pub host_names: Vec<String>,
    /// More origins that may use the API, each `scheme://host[:port]` in lower case.
    pub cors_origins: Vec<String>,
    /// Serve the API with no torrent and no network.
    pub mock: bool,
    /// How many times faster than real the mock plays, from 0.05 to 1000.
    pub mock_speed: f64,
    /// Start with the sample film streaming.
    pub sample: bool,
    /// No window and no tray.
    pub headless: bool,
    /// The ffmpeg to start; a bare name is looked up in PATH.
    pub ffmpeg: PathBuf,
    /// The ffprobe to start; a bare name is looked up in PATH.
    pub ffprobe: PathBuf,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`; `None` is the default.
    pub log: Option<String>,
    /// What all this came from, but for the file.
    pub told: Told,
}

/// What stays as it was told at the start, while `config.toml` may change.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// The flags.
    pub flags: Words,
    /// The environment.
    pub environment: Words,
    /// The machine.
    pub machine: Machine,
}

impl Told {
    /// Where `config.toml` stands, if there is one.
    pub fn config_file(&self) -> PathBuf {
        config_dir(&self.flags, &self.environment, &self.machine).join("config.toml")
    }

    /// Checks it all again with another file. Mistakes name settings by what `spell` makes of the flag's name.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn resolve_with(&self, file: &Words, spell: fn(&str) -> String) -> Result<Resolved, Mistakes> {
        let layers = [&self.flags, &self.environment, file];
        let mut reader = Reader { layers, mistakes: Vec::new(), spell };
        for words in layers {
            reader.mistakes.extend(words.mistakes.iter().cloned());
        }
        let resolved = reader.resolved(self);
        if reader.mistakes.is_empty() { Ok(resolved) } else { Err(Mistakes(reader.mistakes)) }
    }
}

/// Every mistake in what was typed: one plain sentence each, in the order flags, environment, file, values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// The folder of the settings, which has to be known before its `config.toml` can be read.
pub fn config_dir(flags: &Words, environment: &Words, machine: &Machine) -> PathBuf {
    let given = [flags, environment].into_iter().find_map(|words| words.values.get("config-dir")?.first());
    given.map(PathBuf::from).unwrap_or_else(|| machine.config_dir.clone())
}

/// Checks everything that was typed. Flags win over the environment, and that over the file.
///
/// # Errors
/// All mistakes at once, never only the first.
pub fn resolve(flags: &Words, environment: &Words, file: &Words, machine: &Machine) -> Result<Resolved, Mistakes> {
    let told = Told { flags: flags.clone(), environment: environment.clone(), machine: machine.clone() };
    told.resolve_with(file, |name| format!("--{name}"))
}

/// The bytes that the cache may really take: what was asked for, and never more than half of the space
/// that would be free without the cache.
///
/// `free` is the free space of the cache folder's file system, `used` what the cache takes already; all in bytes.
pub fn cache_budget(asked: u64, free: u64, used: u64) -> u64 {
    asked.min(free.saturating_add(used) / 2)
}

struct Reader<'a> {
    layers: [&'a Words; 3],
    mistakes: Vec<String>,
    spell: fn(&str) -> String,
}

impl Reader<'_> {
    fn resolved(&mut self, told: &Told) -> Resolved {
        let machine = &told.machine;
        let resolved = Resolved {
            command: self.command(),
            name: self.one("name", NAME, name).or_else(|| name(&machine.name)).unwrap_or_else(|| "balcony".to_owned()),
            config_dir: self.folder("config-dir", &machine.config_dir),
            data_dir: self.folder("data-dir", &machine.data_dir),
            cache_dir: self.folder("cache-dir", &machine.cache_dir),
            https_port: self.number("https-port", 3443, 0, u16::MAX),
            http_port: self.number("http-port", 3001, 0, u16::MAX),
            bind: self.one("bind", "an IP address", |word| word.parse().ok()),
            cache_max_bytes: self.one("cache-max-bytes", SIZE, size).unwrap_or(20 << 30),
            reserve_bytes: self.one("reserve-bytes", SIZE, size).unwrap_or(2 << 30),
            max_productions: self.number("max-productions", machine.cores.max(2), 1, 1024),
            encoder: self.one("encoder", &format!("one of {}", Wanted::WORDS.join(", ")), Wanted::named).unwrap_or_default(),
            max_streams_per_device: self.number("max-streams-per-device", 3, 1, 10_000),
            queue_length: self.number("queue-length", 20, 0, 100_000),
            expire_after: self.time("expire-after", 24 * 3600),
            metadata_timeout: self.time("metadata-timeout", 120),
            stall_timeout: self.time("stall-timeout", 600),
            peers: self.list("peer", "an address and a port such as 192.168.1.5:6881", peer),
            allow_private_peers: self.switch("allow-private-peers"),
            no_dht: self.switch("no-dht"),
            no_trackers: self.switch("no-trackers"),
            no_mdns: self.switch("no-mdns"),
            tls: self.tls(),
            ca_unconstrained: self.switch("ca-unconstrained"),
            host_names: self.list("host-name", "a host such as films.example.org, with no port", host),
            cors_origins: self.list("cors-origin", "an origin such as https://app.example", origin),
            mock: self.switch("mock"),
            mock_speed: self.number("mock-speed", 1.0, 0.05, 1000.0),
            sample: self.switch("sample"),
            headless: self.switch("headless"),
            ffmpeg: self.program("ffmpeg", machine.ffmpeg_bin.as_ref()),
            ffprobe: self.program("ffprobe", machine.ffprobe_bin.as_ref()),
            log: self.one("log", "a level or a list of target=level", log_filter),
            told: told.clone(),
        };
        if resolved.https_port != 0 && resolved.https_port == resolved.http_port {
            let (https, http) = ((self.spell)("https-port"), (self.spell)("http-port"));
            self.mistakes.push(format!("{https} and {http} are both {}.", resolved.http_port));
        }
        resolved
    }

    fn words(&self, name: &str) -> &[String] {
        self.layers.iter().find_map(|layer| layer.values.get(name)).map(Vec::as_slice).unwrap_or_default()
    }

    fn one<T>(&mut self, name: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let word = self.words(name).last()?.clone();
        let value = read(&word);
        if value.is_none() {
            self.mistakes.push(format!("{} wants {wanted}, not {}.", (self.spell)(name), quoted(&word)));
        }
        value
    }

    fn list<T>(&mut self, name: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut seen = BTreeSet::new();
        let mut values = Vec::new();
        for word in self.words(name).to_vec() {
            match read(&word) {
                Some(value) if seen.insert(word.clone()) => values.push(value),
                Some(_) => {}
                None => self.mistakes.push(format!("{} wants {wanted}, not {}.", (self.spell)(name), quoted(&word))),
            }
        }
        values
    }

    fn number<T: FromStr + PartialOrd + fmt::Display + Copy>(&mut self, name: &str, default: T, least: T, most: T) -> T {
        let wanted = format!("a number from {least} to {most}");
        self.one(name, &wanted, |word| word.parse::<T>().ok().filter(|n| *n >= least && *n <= most)).unwrap_or(default)
    }

    fn time(&mut self, name: &str, default: u64) -> Duration {
        self.one(name, "a time such as 90s, 10m or 24h", |word| duration(word).filter(|time| !time.is_zero()))
            .unwrap_or(Duration::from_secs(default))
    }

    fn switch(&mut self, name: &str) -> bool {
        self.one(name, "true or false", switch).unwrap_or(false)
    }

    fn folder(&mut self, name: &str, default: &std::path::Path) -> PathBuf {
        let folder = self.one(name, "a folder", path).unwrap_or_else(|| default.to_owned());
        if folder.as_os_str().is_empty() {
            self.mistakes.push(format!("{} is needed: this user has no home folder.", (self.spell)(name)));
        }
        folder
    }

    fn program(&mut self, name: &str, variable: Option<&PathBuf>) -> PathBuf {
        self.one(name, "a file", path).or_else(|| variable.cloned()).unwrap_or_else(|| PathBuf::from(name))
    }

    fn tls(&mut self) -> Option<(PathBuf, PathBuf)> {
        let certificate = self.one("tls-cert", "a file", path);
        let key = self.one("tls-key", "a file", path);
        if certificate.is_some() != key.is_some() {
            let (certificate, key) = ((self.spell)("tls-cert"), (self.spell)("tls-key"));
            self.mistakes.push(format!("{certificate} and {key} belong together: one of them is missing."));
        }
        certificate.zip(key)
    }

    fn command(&mut self) -> Command {
        let word = self.words("command").last().cloned().unwrap_or_else(|| "serve".to_owned());
        let person = self.one("person", NAME, name);
        let bundle = self.one("bundle", "a file", path);
        let (admin, yes) = (self.switch("admin"), self.switch("yes"));
        for (flag, command) in COMMAND_FLAGS {
            if *command != word && !self.words(flag).is_empty() {
                self.mistakes.push(format!("--{flag} goes with the command {command} only."));
            }
        }
        match word.as_str() {
            "serve" => Command::Serve,
            "pair" => Command::Pair { admin, person },
            "sample" => Command::Sample,
            "doctor" => Command::Doctor { bundle },
            "reset-ca" => Command::ResetCa { yes },
            "openapi" => Command::Openapi,
            other => {
                let sentence = format!("There is no command {}; there are {}.", quoted(other), COMMANDS.join(", "));
                self.mistakes.push(sentence);
                Command::Serve
            }
        }
    }
}

const NAME: &str = "a name of 1 to 60 characters";
const SIZE: &str = "a size such as 500MB, 20GiB or a number of bytes";

/// Reads a size: bytes, or a number (a fraction is fine) with `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB` (of 1024).
pub fn size(word: &str) -> Option<u64> {
    let (number, unit) = split_unit(word);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1_000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    scaled(number, factor)
}

/// Reads a time: a number (a fraction is fine) with `ms`, `s`, `m`, `h` or `d`. A number alone is refused: nobody knows what it means.
pub fn duration(word: &str) -> Option<Duration> {
    let (number, unit) = split_unit(word);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // A hundred years: beyond it, adding to the clock could overflow.
    scaled(number, milliseconds).filter(|ms| *ms <= 3_155_760_000_000).map(Duration::from_millis)
}

fn split_unit(word: &str) -> (&str, &str) {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at(end);
    (number, unit.trim())
}

/// `number × factor`, exact for whole numbers and for up to nine decimals.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let tenth = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / tenth;
    whole.checked_add(u64::try_from(part).ok()?)
}

fn switch(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A name for people: 1 to 60 characters, none of which controls a terminal or turns the direction of the text around.
pub fn name(word: &str) -> Option<String> {
    let word = word.trim();
    // Refused, not taken out: what somebody writes into a file is not silently another name.
    let is_plain = clear(word) == word && !word.chars().any(|c| c.is_control() || is_invisible(c));
    let is_seen = word.chars().any(|c| !is_blank(c) && !is_joining(c));
    ((1..=60).contains(&word.chars().count()) && is_plain && is_seen).then(|| word.to_owned())
}

/// Line and paragraph separators and joiners: they change how what stands around them is shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}' | '\u{2029}')
}

/// A host without a port: an address, or a name of labels (RFC 1123 section 2.1; the underscore is met in homes and does no harm).
fn host(word: &str) -> Option<String> {
    let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(word).parse::<IpAddr>() {
        let fits = !ip.is_unspecified() && (bare.is_none() || ip.is_ipv6());
        return fits.then(|| ip.to_canonical().to_string());
    }
    let name = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number would be read as an address by some clients, and as a name by others.
    let is_address = name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    (name.len() <= 253 && name.split('.').all(label_fits) && !is_address).then_some(name)
}

fn path(word: &str) -> Option<PathBuf> {
    (!word.is_empty() && !word.contains('\0')).then(|| PathBuf::from(word))
}

fn peer(word: &str) -> Option<SocketAddr> {
    word.parse::<SocketAddr>().ok().filter(|peer| peer.port() != 0 && !peer.ip().is_unspecified())
}

fn log_filter(word: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::try_new(word).ok().map(|_| word.to_owned())
}

/// `scheme://host[:port]`, nothing behind it (RFC 6454 section 6.2). `null` and `*` name nobody and are refused.
fn origin(word: &str) -> Option<String> {
    let word = word.strip_suffix('/').unwrap_or(word).to_ascii_lowercase();
    let (scheme, rest) = word.split_once("://")?;
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let authority = rest.parse::<http::uri::Authority>().ok()?;
    let bare = !rest.contains(['@', '*', '/', '?', '#']) && !authority.host().is_empty();
    (scheme_fits && bare).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::super::typed::{Asked, from_environment, from_file, from_flags};
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn machine() -> Machine {
        Machine {
            name: "den".to_owned(),
            config_dir: "/c".into(),
            data_dir: "/d".into(),
            cache_dir: "/e".into(),
            cores: 8,
            ffmpeg_bin: None,
            ffprobe_bin: Some("/opt/ffprobe".into()),
        }
    }

    fn check(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Resolved, Mistakes> {
        let Asked::Run(flags) = from_flags(flags.iter().map(std::ffi::OsString::from)) else { panic!("printed") };
        let environment = from_environment(environment.iter().map(|(k, v)| (k.into(), v.into())));
        resolve(&flags, &environment, &from_file(file), &machine())
    }

    #[test]
    fn nothing_typed_gives_the_contracts_defaults() {
        let expected = Resolved {
            command: Command::Serve,
            name: "den".to_owned(),
            config_dir: "/c".into(),
            data_dir: "/d".into(),
            cache_dir: "/e".into(),
            https_port: 3443,
            http_port: 3001,
            bind: None,
            cache_max_bytes: 21_474_836_480,
            reserve_bytes: 2_147_483_648,
            max_productions: 8,
            encoder: Wanted::Auto,
            max_streams_per_device: 3,
            queue_length: 20,
            expire_after: Duration::from_secs(86_400),
            metadata_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(600),
            peers: vec![],
            allow_private_peers: false,
            no_dht: false,
            no_trackers: false,
            no_mdns: false,
            tls: None,
            ca_unconstrained: false,
            host_names: vec![],
            cors_origins: vec![],
            mock: false,
            mock_speed: 1.0,
            sample: false,
            headless: false,
            ffmpeg: "ffmpeg".into(),
            ffprobe: "/opt/ffprobe".into(),
            log: None,
            told: Told { machine: machine(), ..Told::default() },
        };
        assert_eq!(check(&[], &[], ""), Ok(expected));
    }

    #[test]
    fn flags_win_over_environment_and_that_over_the_file() {
        let file = "http-port = 1\nhttps-port = 2\nqueue-length = 3\n";
        let resolved =
            check(&["--http-port", "11"], &[("BALCONY_HTTP_PORT", "21"), ("BALCONY_HTTPS_PORT", "22")], file).expect("no mistakes");
        assert_eq!((resolved.http_port, resolved.https_port, resolved.queue_length), (11, 22, 3));
    }

    #[test]
    fn a_switch_of_the_file_can_be_taken_back() {
        assert!(check(&[], &[], "no-dht = true").expect("fine").no_dht);
        assert!(!check(&["--no-dht=false"], &[], "no-dht = true").expect("fine").no_dht);
    }

    #[test]
    fn every_value_of_a_rich_command_line_arrives() {
        let resolved = check(
            &[
                "openapi",
                "--peer",
                "10.0.0.1:6881",
                "--peer",
                "[::1]:7",
                "--cors-origin",
                "HTTPS://App.example/",
                "--tls-cert",
                "a",
                "--tls-key",
                "b",
                "--expire-after",
                "1.5h",
                "--cache-max-bytes",
                "500MB",
                "--ffmpeg",
                "/x/ffmpeg",
                "--mock",
                "--mock-speed",
                "20",
                "--bind",
                "192.168.1.2",
                "--log",
                "debug,hyper=warn",
                "--name",
                " Anna\u{2019}s Studio ",
                "--host-name",
                "Films.Example.org.",
                "--host-name",
                "[2001:DB8::1]",
                "--ca-unconstrained",
            ],
            &[],
            "",
        )
        .expect("no mistakes");
        assert_eq!(resolved.command, Command::Openapi);
        assert_eq!(resolved.peers, ["10.0.0.1:6881", "[::1]:7"].map(|p| p.parse().expect("address")));
        assert_eq!(resolved.cors_origins, ["https://app.example"]);
        assert_eq!(resolved.tls, Some(("a".into(), "b".into())));
        assert_eq!(resolved.expire_after, Duration::from_secs(5400));
        assert_eq!(resolved.cache_max_bytes, 500_000_000);
        assert_eq!(resolved.ffmpeg, PathBuf::from("/x/ffmpeg"));
        assert!(resolved.mock && resolved.mock_speed == 20.0);
        assert_eq!(resolved.bind, "192.168.1.2".parse().ok());
        assert_eq!(resolved.name, "Anna\u{2019}s Studio");
        assert_eq!(resolved.host_names, ["films.example.org", "2001:db8::1"]);
        assert!(resolved.ca_unconstrained);
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let Err(Mistakes(mistakes)) = check(
            &[
                "dance",
                "--wat",
                "--http-port",
                "70000",
                "--expire-after",
                "10",
                "--stall-timeout",
                "0s",
                "--peer",
                "host:1",
                "--tls-cert",
                "x",
                "--mock-speed",
                "nan",
                "--cors-origin",
                "*",
            ],
            &[("BALCONY_FOO", "1"), ("BALCONY_RESERVE_BYTES", "5 PB"), ("BALCONY_MAX_PRODUCTIONS", "0")],
            "sound = 1\nno-dht = \"maybe\"\nbind = \"lan\"\n",
        ) else {
            panic!("accepted")
        };
        assert_eq!(
            mistakes,
            [
                "There is no flag \"--wat\".",
                "There is no setting for the environment variable \"BALCONY_FOO\".",
                "There is no setting \"sound\" (in config.toml).",
                "There is no command \"dance\"; there are serve, pair, sample, doctor, reset-ca, openapi.",
                "--http-port wants a number from 0 to 65535, not \"70000\".",
                "--bind wants an IP address, not \"lan\".",
                "--reserve-bytes wants a size such as 500MB, 20GiB or a number of bytes, not \"5 PB\".",
                "--max-productions wants a number from 1 to 1024, not \"0\".",
                "--expire-after wants a time such as 90s, 10m or 24h, not \"10\".",
                "--stall-timeout wants a time such as 90s, 10m or 24h, not \"0s\".",
                "--peer wants an address and a port such as 192.168.1.5:6881, not \"host:1\".",
                "--no-dht wants true or false, not \"maybe\".",
                "--tls-cert and --tls-key belong together: one of them is missing.",
                "--cors-origin wants an origin such as https://app.example, not \"*\".",
                "--mock-speed wants a number from 0.05 to 1000, not \"nan\".",
            ]
        );
    }

    #[test]
    fn the_mock_is_not_endlessly_fast_or_slow() {
        for (word, speed) in [("0.05", Some(0.05)), ("1", Some(1.0)), ("20", Some(20.0)), ("1000", Some(1000.0))] {
            assert_eq!(check(&["--mock-speed", word], &[], "").map(|resolved| resolved.mock_speed).ok(), speed);
        }
        for word in ["0", "-1", "0.049", "1000.1", "inf", "nan", "fast", ""] {
            let flag = format!("--mock-speed={word}");
            let Err(Mistakes(mistakes)) = check(&[&flag], &[], "") else { panic!("{word} accepted") };
            assert_eq!(mistakes, [format!("--mock-speed wants a number from 0.05 to 1000, not {}.", quoted(word))]);
        }
    }

    #[test]
    fn some_flags_go_with_one_command_only() {
        let pair = |words: &[&str]| check(words, &[], "").map(|resolved| resolved.command);
        assert_eq!(pair(&["pair"]), Ok(Command::Pair { admin: false, person: None }));
        assert_eq!(pair(&["pair", "--admin"]), Ok(Command::Pair { admin: true, person: None }));
        assert_eq!(pair(&["--person", "Anna", "pair"]), Ok(Command::Pair { admin: false, person: Some("Anna".to_owned()) }));
        assert_eq!(pair(&["reset-ca"]), Ok(Command::ResetCa { yes: false }));
        assert_eq!(pair(&["reset-ca", "--yes"]), Ok(Command::ResetCa { yes: true }));
        let Err(Mistakes(mistakes)) =
            check(&["sample", "--admin", "--yes", "--person", ""], &[("BALCONY_ADMIN", "1"), ("BALCONY_PERSON", "Anna")], "yes = true")
        else {
            panic!("accepted")
        };
        assert_eq!(
            mistakes,
            [
                "There is no setting for the environment variable \"BALCONY_ADMIN\".",
                "There is no setting for the environment variable \"BALCONY_PERSON\".",
                "There is no setting \"yes\" (in config.toml).",
                "--person wants a name of 1 to 60 characters, not \"\".",
                "--admin goes with the command pair only.",
                "--person goes with the command pair only.",
                "--yes goes with the command reset-ca only.",
            ]
        );
    }

    #[test]
    fn names_for_people() {
        let long = "n".repeat(60);
        let table = [
            ("Studio", Some("Studio")),
            ("  Küche 厨房 ", Some("Küche 厨房")),
            (&long, Some(long.as_str())),
            (&format!("{long}n"), None),
            ("", None),
            (" \t ", None),
            ("a\u{1b}[2J", None),
            ("a\nb", None),
            ("a\u{202e}b", None),
            ("a\u{2066}b", None),
            ("a\u{200b}b", None),
            ("a\u{3164}", None),
            ("\u{2800}", None),
            ("\u{fe0f}", None),
            ("a\u{e0041}", None),
            ("a\u{301}\u{301}\u{301}\u{301}\u{301}", None),
        ];
        for (word, expected) in table {
            assert_eq!(name(word).as_deref(), expected, "{word:?}");
        }
    }

    #[test]
    fn hosts() {
        let table = [
            ("films.example.org", Some("films.example.org")),
            ("NAS", Some("nas")),
            ("nas_2.lan.", Some("nas_2.lan")),
            ("203.0.113.7", Some("203.0.113.7")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("[2001:DB8:0::1]", Some("2001:db8::1")),
            ("[1.2.3.4]", None),
            ("0.0.0.0", None),
            ("1.2.3", None),
            ("films.example.org:443", None),
            ("https://films.example.org", None),
            ("*.example.org", None),
            ("-a.example", None),
            ("a..b", None),
            ("", None),
            (".", None),
            ("é.example", None),
        ];
        for (word, expected) in table {
            assert_eq!(host(word).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn without_a_home_the_folders_have_to_be_named() {
        let homeless = Machine { config_dir: "".into(), data_dir: "".into(), cache_dir: "".into(), ..machine() };
        let named = from_file("cache-dir = \"/x\"");
        let Err(Mistakes(mistakes)) = resolve(&Words::default(), &Words::default(), &named, &homeless) else { panic!("accepted") };
        assert_eq!(mistakes, ["config", "data"].map(|name| format!("--{name}-dir is needed: this user has no home folder.")));
    }

    #[test]
    fn two_ports_that_clash_are_a_mistake_but_two_free_ones_are_not() {
        assert!(check(&["--http-port", "5", "--https-port", "5"], &[], "").is_err());
        assert!(check(&["--http-port", "0", "--https-port", "0"], &[], "").is_ok());
    }

    #[test]
    fn config_dir_comes_from_flag_environment_or_platform() {
        let words = |value: &str| Words { values: [("config-dir".to_owned(), vec![value.to_owned()])].into(), mistakes: vec![] };
        assert_eq!(config_dir(&words("a"), &words("b"), &machine()), PathBuf::from("a"));
        assert_eq!(config_dir(&Words::default(), &words("b"), &machine()), PathBuf::from("b"));
        assert_eq!(config_dir(&Words::default(), &Words::default(), &machine()), PathBuf::from("/c"));
    }

    #[test]
    fn sizes() {
        let table = [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("500MB", Some(500_000_000)),
            ("20GiB", Some(20 << 30)),
            ("20 GiB", Some(20 << 30)),
            ("1.5GiB", Some(3 << 29)),
            ("0.1kB", Some(100)),
            ("2gb", Some(2_000_000_000)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("-1", None),
            ("", None),
            ("GiB", None),
            (".5GiB", None),
            ("5.GiB", None),
            ("1.2.3MB", None),
            ("1e9", None),
            ("5PB", None),
            ("٣MB", None),
        ];
        for (word, expected) in table {
            assert_eq!(size(word), expected, "{word}");
        }
    }

    #[test]
    fn durations() {
        let seconds = Duration::from_secs;
        let table = [
            ("90s", Some(seconds(90))),
            ("10m", Some(seconds(600))),
            ("24h", Some(seconds(86_400))),
            ("2d", Some(seconds(172_800))),
            ("250ms", Some(Duration::from_millis(250))),
            ("0.5s", Some(Duration::from_millis(500))),
            ("10", None),
            ("10M", None),
            ("1h30m", None),
            ("-1s", None),
            ("99999999d", None),
        ];
        for (word, expected) in table {
            assert_eq!(duration(word), expected, "{word}");
        }
    }

    #[test]
    fn the_cache_never_takes_more_than_half_of_the_free_space() {
        assert_eq!(cache_budget(100, 1000, 0), 100);
        assert_eq!(cache_budget(1000, 1000, 0), 500);
        assert_eq!(cache_budget(1000, 100, 900), 500);
        assert_eq!(cache_budget(u64::MAX, u64::MAX, 5), u64::MAX / 2);
    }

    proptest! {
        #[test]
        fn whole_sizes_are_exact(n in any::<u32>()) {
            prop_assert_eq!(size(&format!("{n}")), Some(u64::from(n)));
            prop_assert_eq!(size(&format!("{n}KiB")), Some(u64::from(n) << 10));
            prop_assert_eq!(size(&format!("{n}.000000MB")), Some(u64::from(n) * 1_000_000));
        }

        #[test]
        fn whole_durations_are_exact(n in 0u32..1_000_000) {
            prop_assert_eq!(duration(&format!("{n}s")), Some(Duration::from_secs(n.into())));
            prop_assert_eq!(duration(&format!("{n}.5m")), Some(Duration::from_secs(u64::from(n) * 60 + 30)));
        }

        #[test]
        fn no_words_make_it_panic(word in "\\PC{0,40}", digits in "[0-9.]{0,30}(ms|s|m|h|d|GiB|TB)?") {
            for word in [&word, &digits] {
                let _ = (size(word), duration(word), origin(word), peer(word), name(word), host(word));
                let known = [("expire-after".to_owned(), vec![word.clone()]), ("command".to_owned(), vec![word.clone()])];
                let words = Words { values: known.into(), mistakes: vec![] };
                if let Err(Mistakes(mistakes)) = resolve(&words, &Words::default(), &Words::default(), &machine()) {
                    prop_assert!(mistakes.iter().all(|sentence| sentence.ends_with('.')));
                }
            }
        }

        #[test]
        fn no_file_makes_it_panic(text in "\\PC{0,80}", key in "[a-z-]{1,12}") {
            from_file(&text);
            from_file(&format!("{key} = {text}"));
        }
    }
}
