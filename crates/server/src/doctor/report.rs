//! A diagnosis as a text that can be shown to strangers who help: nothing secret in it, no film, no name of a person or a device, no
//! address by which the house is found from outside.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::Diagnosis;
use crate::amount::size;

/// What is counted of a running server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Household {
    /// For how long it runs.
    pub up: Duration,
    /// Streams by status.
    pub streams: BTreeMap<String, usize>,
    /// Devices that are paired.
    pub devices: usize,
    /// People.
    pub people: usize,
    /// Bytes that films and segments take.
    pub used: u64,
    /// Names of the settings that differ from their defaults. Their values may be private.
    pub settings: Vec<String>,
}

/// The text, line by line.
pub fn report(diagnosis: &Diagnosis, household: &Household, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{name}: {value}");
    };
    line("Balcony", &diagnosis.version);
    line("time", &Timestamp::from_second(now.as_second()).unwrap_or(now).to_string());
    line("system", &system());
    line("cores", &std::thread::available_parallelism().map_or(0, std::num::NonZero::get).to_string());
    line("up", &format!("{} s", household.up.as_secs()));
    let streams: Vec<_> = household.streams.iter().map(|(status, count)| format!("{count} {status}")).collect();
    line("streams", &listed(&streams));
    line("devices", &household.devices.to_string());
    line("people", &household.people.to_string());
    line("films and segments", &size(household.used));
    line("settings that are not the default", &listed(&household.settings));
    text.push('\n');
    for finding in &diagnosis.findings {
        let _ = writeln!(text, "{:<6} {:<11} {}", finding.level.name(), finding.check.name(), finding.message);
    }
    without_house(&text, std::env::home_dir().as_deref())
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn system() -> String {
    let told = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = told("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default().trim_matches('"');
    let words = [std::env::consts::OS, std::env::consts::ARCH, name, told("/proc/sys/kernel/osrelease").trim()].map(str::to_owned);
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The text without the user's name in paths and without public addresses.
pub(super) fn without_house(text: &str, home: Option<&Path>) -> String {
    let home = home.and_then(Path::to_str).filter(|home| home.len() > 1);
    let text = home.map_or_else(|| text.to_owned(), |home| text.replace(home, "~"));
    let is_of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_address(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        // A full stop or a colon may belong to the sentence.
        let bare = word.trim_end_matches(['.', ':']);
        let is_address = [word, bare].iter().any(|word| word.parse().is_ok_and(is_public));
        match bare.split_once(':') {
            _ if is_address => shown.push_str("(a public address)"),
            Some((ip, port)) if ip.parse::<Ipv4Addr>().is_ok_and(|ip| is_public(ip.into())) => {
                // Writing to a text cannot fail.
                let _ = write!(shown, "(a public address):{port}");
            }
            _ => shown.push_str(bare),
        }
        shown.push_str(word.get(bare.len()..).unwrap_or_default());
        let next = behind.find(is_of_address).unwrap_or(behind.len());
        let (between, after) = behind.split_at(next);
        shown.push_str(between);
        rest = after;
    }
    shown
}

fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()),
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Check, Finding, Level};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_house_is_not_told() {
        let home = Some(Path::new("/home/anna"));
        let table = [
            ("in /home/anna/.cache.", "in ~/.cache."),
            ("at 192.168.1.20.", "at 192.168.1.20."),
            ("at 203.0.113.7.", "at (a public address)."),
            ("at 203.0.113.7:6881, 10.0.0.1:6881.", "at (a public address):6881, 10.0.0.1:6881."),
            ("at 2001:db8::7:", "at (a public address):"),
            ("at [2001:db8::7], 10.0.0.1", "at [(a public address)], 10.0.0.1"),
            ("at fd00::7 and fe80::1 and ::1.", "at fd00::7 and fe80::1 and ::1."),
            ("ffmpeg 5.1.9-0+deb12u1: 6.1.0-13 12:30:00", "ffmpeg 5.1.9-0+deb12u1: 6.1.0-13 12:30:00"),
            ("Fünf ☃ 2026-11-23T10:00:00Z...", "Fünf ☃ 2026-11-23T10:00:00Z..."),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(without_house(text, home), expected, "{text}");
        }
        assert_eq!(without_house("/a/b", Some(Path::new("/"))), "/a/b");
    }

    #[test]
    fn it_says_what_was_found_and_counted() {
        let findings = vec![
            Finding::new(Check::Discovery, Level::Good, "discovery_good", json!({ "address": "2001:db8::1" })),
            Finding::new(Check::Server, Level::Good, "server_runs", json!({ "pid": 7 })),
        ];
        let household = Household {
            up: Duration::from_secs(90),
            streams: BTreeMap::from([("ready".to_owned(), 2), ("error".to_owned(), 1)]),
            devices: 3,
            people: 2,
            used: 5_000_000,
            settings: vec!["queueLength".to_owned()],
        };
        let text = report(&Diagnosis::of(findings), &household, Timestamp::from_millisecond(1_790_000_000_123).expect("time"));
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("system: ") && !line.starts_with("cores: ")).collect();
        let expected = [
            concat!("Balcony: ", env!("CARGO_PKG_VERSION")),
            "time: 2026-09-21T14:13:20Z",
            "up: 90 s",
            "streams: 1 error, 2 ready",
            "devices: 3",
            "people: 2",
            "films and segments: 5.0 MB",
            "settings that are not the default: queueLength",
            "",
            "good   server      The server runs (process 7).",
            "good   discovery   Phones find this server by themselves, at (a public address).",
        ];
        assert_eq!(lines, expected);
    }
}
