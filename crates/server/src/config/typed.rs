//! What was typed: flags, environment and `config.toml`, each as a table from flag name to words.
//!
//! The list of settings is the list of flags and stands once, in [`Typed`]; the names of the environment
//! variables (`BALCONY_` and the flag in upper snake case) and of the keys of the file (the flag's name)
//! follow from it. This file finds out that a name is unknown or a value missing; whether a value makes
//! sense is checked in [`super::resolved`].

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, Parser};

use crate::trust::letters::clear;

/// The prefix of every environment variable of this program.
pub const ENVIRONMENT_PREFIX: &str = "BALCONY_";

/// Every flag of both programs. The values stay words here, so that one wrong value does not hide the next.
///
/// Durations are written `90s`, `10m`, `24h`; sizes `500MB`, `20GiB` or bytes. Every flag is also a key of
/// `config.toml` and an environment variable: `--https-port`, `https-port = 3443`, `BALCONY_HTTPS_PORT`.
#[derive(Debug, Parser)]
#[command(
    name = "balcony-server",
    version,
    about = "Streams torrents to the phones of your own house.",
    long_about = None,
    args_override_self = true,
    disable_help_subcommand = true,
    infer_long_args = false,
    after_help = "Every flag is also a key of config.toml (https-port = 3443) and an environment variable \
                  (BALCONY_HTTPS_PORT). A flag wins over the environment, and that over the file."
)]
#[allow(missing_docs)]
pub struct Typed {
    /// What to do: serve (the default), pair, sample, doctor, reset-ca, openapi
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,

    /// The name of this server, as people see it [the machine's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Folder of the settings (config.toml)
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<String>,
    /// Folder of the database, keys and logs
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Folder of torrent data and segments
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<String>,
    /// Port of HTTPS, open to the LAN; 0 is any free port [3443]
    #[arg(long, value_name = "PORT")]
    pub https_port: Option<String>,
    /// Port of plain HTTP, on loopback; 0 is any free port [3001]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<String>,
    /// The address to be open on for the LAN [all LAN interfaces]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// How much torrent data and segments may take [20GiB, never more than half of the free space]
    #[arg(long, value_name = "SIZE")]
    pub cache_max_bytes: Option<String>,
    /// Free space that is never touched [2GiB]
    #[arg(long, value_name = "SIZE")]
    pub reserve_bytes: Option<String>,
    /// How many ffmpeg processes may encode video at once [number of cores, at least 2]
    #[arg(long, value_name = "NUMBER")]
    pub max_productions: Option<String>,
    /// What converts pictures: auto, x264, videotoolbox, nvenc, qsv, vaapi, amf, or off for none [auto]
    #[arg(long, value_name = "NAME")]
    pub encoder: Option<String>,
    /// Streams of one device before the next one waits [3]
    #[arg(long, value_name = "NUMBER")]
    pub max_streams_per_device: Option<String>,
    /// Streams that may wait [20]
    #[arg(long, value_name = "NUMBER")]
    pub queue_length: Option<String>,
    /// How long a stream lives when nobody watches it [24h]
    #[arg(long, value_name = "TIME")]
    pub expire_after: Option<String>,
    /// How long to look for the metadata of a magnet [120s]
    #[arg(long, value_name = "TIME")]
    pub metadata_timeout: Option<String>,
    /// How long to wait for bytes before a stream is given up [10m]
    #[arg(long, value_name = "TIME")]
    pub stall_timeout: Option<String>,
    /// A torrent peer for every torrent, ip:port (may be repeated)
    #[arg(long, value_name = "IP:PORT", action = ArgAction::Append)]
    pub peer: Vec<String>,
    /// Let torrents talk to private and loopback addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub allow_private_peers: Option<String>,
    /// Do without the DHT
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub no_dht: Option<String>,
    /// Do without trackers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub no_trackers: Option<String>,
    /// Do not announce the server in the LAN
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub no_mdns: Option<String>,
    /// Own TLS certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Key of the own TLS certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Let the own certificate authority vouch for any name and address, not only for those of a LAN
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub ca_unconstrained: Option<String>,
    /// One more name or address by which this server is reached, behind a proxy or a router (may be repeated)
    #[arg(long, value_name = "HOST", action = ArgAction::Append)]
    pub host_name: Vec<String>,
    /// One more origin that may use the API, https://host (may be repeated)
    #[arg(long, value_name = "ORIGIN", action = ArgAction::Append)]
    pub cors_origin: Vec<String>,
    /// Serve the API with no torrent and no network, for people who write clients
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub mock: Option<String>,
    /// How many times faster than real the mock plays its part [1.0]
    #[arg(long, value_name = "FACTOR")]
    pub mock_speed: Option<String>,
    /// Start with the sample film streaming, and print its address
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub sample: Option<String>,
    /// No window and no tray (the desktop program only)
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub headless: Option<String>,
    /// The ffmpeg to use [$FFMPEG_BIN, then the best one that is found]
    #[arg(long, value_name = "FILE")]
    pub ffmpeg: Option<String>,
    /// The ffprobe to use [$FFPROBE_BIN, then PATH]
    #[arg(long, value_name = "FILE")]
    pub ffprobe: Option<String>,
    /// What is logged: a level, or target=level, separated by commas [info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// With pair: pair a browser as the owner of this server
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub admin: Option<String>,
    /// With pair: whose device it is
    #[arg(long, value_name = "NAME")]
    pub person: Option<String>,
    /// With doctor: write what somebody who helps may want to see into this file, without anything secret (.tar.gz)
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<String>,
    /// With reset-ca: yes, do it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub yes: Option<String>,
}

/// Words by flag name (`https-port`), from one place.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Words {
    /// The values of each flag that was given, in the order in which they stood.
    pub values: BTreeMap<String, Vec<String>>,
    /// What could not be understood at all, a sentence each.
    pub mistakes: Vec<String>,
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Help or version: print this text and end well.
    Print(String),
    /// Go on with these words; the command stands under the name `command`.
    Run(Words),
}

/// Reads the arguments, without the program's own name. Unknown flags are collected, not fatal.
pub fn from_flags(arguments: impl IntoIterator<Item = OsString>) -> Asked {
    let mut left: Vec<OsString> = arguments.into_iter().collect();
    let mut words = Words::default();
    // Each round takes at least one argument away.
    loop {
        let full = std::iter::once(OsString::from("balcony-server")).chain(left.iter().cloned());
        match Typed::command().try_get_matches_from(full) {
            Ok(matches) => {
                take_matches(&matches, &mut words.values);
                return Asked::Run(words);
            }
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Asked::Print(error.render().to_string());
            }
            Err(error) => {
                let (sentence, culprit) = explain(&error);
                words.mistakes.push(sentence);
                if !take_away(&mut left, culprit.as_deref()) {
                    return Asked::Run(words);
                }
            }
        }
    }
}

fn take_matches(matches: &clap::ArgMatches, values: &mut BTreeMap<String, Vec<String>>) {
    for id in matches.ids() {
        if let Ok(Some(given)) = matches.try_get_many::<String>(id.as_str()) {
            values.insert(id.as_str().replace('_', "-"), given.cloned().collect());
        }
    }
}

fn explain(error: &clap::Error) -> (String, Option<String>) {
    let culprit = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let name = culprit.as_deref().map(|text| text.split([' ', '=']).next().unwrap_or(text).to_owned());
    let sentence = match (&name, error.kind()) {
        (Some(name), ErrorKind::UnknownArgument) if name.starts_with('-') => {
            format!("There is no flag {}.", quoted(name))
        }
        (Some(name), ErrorKind::UnknownArgument) => {
            format!("{} is one word too many.", quoted(name))
        }
        (Some(name), _) => format!("The flag {name} needs a value."),
        (None, ErrorKind::InvalidUtf8) => "An argument is not valid UTF-8.".to_owned(),
        (None, _) => "The arguments cannot be understood.".to_owned(),
    };
    (sentence, name)
}

/// Takes the culprit, and the value that probably belongs to it, out of the arguments.
fn take_away(arguments: &mut Vec<OsString>, culprit: Option<&str>) -> bool {
    let place = match culprit {
        Some(name) => arguments.iter().position(|argument| {
            let text = argument.to_string_lossy();
            text == name || text.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
        }),
        None => arguments.iter().position(|argument| argument.to_str().is_none()),
    };
    let Some(place) = place else { return false };
    let taken = arguments.remove(place);
    let alone = taken.to_string_lossy().starts_with("--") && !taken.to_string_lossy().contains('=');
    let next = arguments.get(place).map(|next| next.to_string_lossy().into_owned());
    if alone && next.is_some_and(|next| !next.starts_with('-') && !COMMANDS.contains(&next.as_str())) {
        arguments.remove(place);
    }
    true
}

/// The commands that can be typed.
pub const COMMANDS: &[&str] = &["serve", "pair", "sample", "doctor", "reset-ca", "openapi"];

/// The flags that say how one command works. They are no settings: neither file nor environment knows them.
pub const COMMAND_FLAGS: &[(&str, &str)] = &[("admin", "pair"), ("person", "pair"), ("bundle", "doctor"), ("yes", "reset-ca")];

/// The names of all settings, as flags are written without their dashes.
pub fn names() -> Vec<String> {
    Typed::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .filter(|name| name != "help" && name != "version" && COMMAND_FLAGS.iter().all(|(flag, _)| flag != name))
        .collect()
}

/// Whether this flag, written without its dashes, stands for yes by itself and has another value only behind a `=`.
pub fn is_switch(name: &str) -> bool {
    Typed::command().get_arguments().any(|argument| argument.get_long() == Some(name) && argument.is_require_equals_set())
}

/// Flags that may be given more than once.
pub(super) fn is_list(name: &str) -> bool {
    matches!(name, "peer" | "cors-origin" | "host-name")
}

/// Reads the variables that begin with `BALCONY_`; lists are separated by commas. An empty value counts as not set.
pub fn from_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Words {
    let known = names();
    let mut words = Words::default();
    for (variable, value) in variables {
        let variable = variable.to_string_lossy();
        let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let name = rest.to_ascii_lowercase().replace('_', "-");
        if !known.contains(&name) || rest != rest.to_ascii_uppercase() {
            words.mistakes.push(format!("There is no setting for the environment variable {}.", quoted(&variable)));
            continue;
        }
        let Some(value) = value.to_str() else {
            words.mistakes.push(format!("The environment variable {variable} is not valid UTF-8."));
            continue;
        };
        let values: Vec<String> = if is_list(&name) {
            value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        } else {
            Some(value.trim()).filter(|value| !value.is_empty()).map(str::to_owned).into_iter().collect()
        };
        if !values.is_empty() {
            words.values.insert(name, values);
        }
    }
    words.mistakes.sort();
    words
}

/// Reads the text of `config.toml`: one key per flag, an array where a flag may be repeated.
pub fn from_file(text: &str) -> Words {
    let mut words = Words::default();
    let document = match text.parse::<toml_edit::DocumentMut>() {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map(|span| 1 + text.get(..span.start).unwrap_or(text).matches('\n').count());
            let place = line.map(|line| format!(" in line {line}")).unwrap_or_default();
            let what = error.message().lines().next().unwrap_or_default();
            words.mistakes.push(format!("config.toml cannot be read{place}: {what}."));
            return words;
        }
    };
    let known = names();
    for (key, item) in document.iter() {
        // Where to find the file cannot stand in the file.
        if !known.iter().any(|name| name == key) || key == "config-dir" {
            words.mistakes.push(format!("There is no setting {} (in config.toml).", quoted(key)));
            continue;
        }
        match file_values(item, is_list(key)) {
            Some(values) => {
                words.values.insert(key.to_owned(), values);
            }
            None => words.mistakes.push(format!("The value of {key} in config.toml is of the wrong kind.")),
        }
    }
    words
}

fn file_values(item: &toml_edit::Item, list: bool) -> Option<Vec<String>> {
    match item.as_value()? {
        toml_edit::Value::Array(array) if list => array.iter().map(file_word).collect(),
        value => file_word(value).map(|word| vec![word]),
    }
}

fn file_word(value: &toml_edit::Value) -> Option<String> {
    match value {
        toml_edit::Value::String(text) => Some(text.value().clone()),
        toml_edit::Value::Integer(number) => Some(number.value().to_string()),
        toml_edit::Value::Float(number) => Some(number.value().to_string()),
        toml_edit::Value::Boolean(flag) => Some(flag.value().to_string()),
        toml_edit::Value::Datetime(_) | toml_edit::Value::Array(_) | toml_edit::Value::InlineTable(_) => None,
    }
}

/// What a user typed, bounded and without what controls a terminal, hides, or turns the text around it, in quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = clear(text).chars().filter(|c| !c.is_control()).take(80).collect();
    if text.chars().count() > 80 {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Words {
        match from_flags(arguments.iter().map(OsString::from)) {
            Asked::Run(words) => words,
            Asked::Print(text) => panic!("asked to print {text}"),
        }
    }

    #[test]
    fn flags_become_words() {
        let words = run(&["serve", "--http-port", "0", "--peer", "1.2.3.4:5", "--peer=[::1]:6", "--no-dht", "--mock=false"]);
        assert_eq!(words.mistakes, Vec::<String>::new());
        let expected = [
            ("command", vec!["serve"]),
            ("http-port", vec!["0"]),
            ("mock", vec!["false"]),
            ("no-dht", vec!["true"]),
            ("peer", vec!["1.2.3.4:5", "[::1]:6"]),
        ];
        let expected: BTreeMap<String, Vec<String>> =
            expected.into_iter().map(|(k, v)| (k.to_owned(), v.into_iter().map(str::to_owned).collect())).collect();
        assert_eq!(words.values, expected);
    }

    #[test]
    fn every_unknown_flag_is_named_and_the_known_ones_are_kept() {
        let words = run(&["--pory", "17", "--http-port", "1", "--nope=3", "serve", "extra", "--data-dir"]);
        assert_eq!(
            words.mistakes,
            [
                "There is no flag \"--pory\".",
                "There is no flag \"--nope\".",
                "\"extra\" is one word too many.",
                "The flag --data-dir needs a value.",
            ]
        );
        assert_eq!(words.values.get("http-port"), Some(&vec!["1".to_owned()]));
    }

    #[test]
    fn help_and_version_are_printed() {
        for flag in ["--help", "-h", "--version", "-V"] {
            let Asked::Print(text) = from_flags([OsString::from(flag)]) else { panic!("{flag} ran") };
            assert!(text.starts_with("Streams torrents") || text.starts_with("balcony-server "), "{text}");
        }
    }

    #[test]
    fn the_last_of_two_flags_counts() {
        assert_eq!(run(&["--http-port", "1", "--http-port", "2"]).values.get("http-port"), Some(&vec!["2".to_owned()]));
    }

    #[test]
    fn environment_is_read_by_prefix() {
        let words = from_environment(
            [
                ("PATH", "/bin"),
                ("BALCONY_HTTP_PORT", "7"),
                ("BALCONY_PEER", "1.1.1.1:1, 2.2.2.2:2"),
                ("BALCONY_NO_DHT", ""),
                ("BALCONY_COLOUR", "red"),
            ]
            .map(|(k, v)| (k.into(), v.into())),
        );
        assert_eq!(words.mistakes, ["There is no setting for the environment variable \"BALCONY_COLOUR\"."]);
        assert_eq!(words.values.get("http-port"), Some(&vec!["7".to_owned()]));
        assert_eq!(words.values.get("peer"), Some(&vec!["1.1.1.1:1".to_owned(), "2.2.2.2:2".to_owned()]));
        assert_eq!(words.values.get("no-dht"), None);
    }

    #[test]
    fn the_file_has_a_key_per_flag() {
        let words = from_file(
            "http-port = 7\nmock-speed = 2.5\nno-dht = true\npeer = [\"1.1.1.1:1\"]\nexpire-after = \"2h\"\nhue = 1\nbind = [1]\n[http]\n",
        );
        assert_eq!(
            words.mistakes,
            [
                "There is no setting \"hue\" (in config.toml).",
                "The value of bind in config.toml is of the wrong kind.",
                "There is no setting \"http\" (in config.toml).",
            ]
        );
        for (name, value) in [("http-port", "7"), ("mock-speed", "2.5"), ("no-dht", "true"), ("peer", "1.1.1.1:1"), ("expire-after", "2h")]
        {
            assert_eq!(words.values.get(name), Some(&vec![value.to_owned()]), "{name}");
        }
    }

    #[test]
    fn a_broken_file_is_one_mistake_with_its_line() {
        let words = from_file("http-port = 1\nhttp-port 2\n");
        assert_eq!(words.mistakes.len(), 1);
        assert!(words.mistakes[0].starts_with("config.toml cannot be read in line 2"), "{:?}", words.mistakes);
    }
}
