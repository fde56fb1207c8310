//! Facts in, findings out. Nothing is looked at here, not even the clock.

use std::collections::BTreeSet;
use std::time::Duration;

use balcony_media::encoder::Wanted;
use balcony_media::ffmpeg::DEMUXERS;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::facts::{
    Certificate, Clock, Database, Discovery, Facts, Folder, FolderState, Parts, Port, PortState, Ports, Program, ProgramState, Server,
    Space, Torrents, Trials,
};
use super::{Check, Finding, Level};
use crate::cage::Report;
use crate::produce::trial;
use crate::store::Soundness;

/// The oldest ffmpeg that knows every option that films are converted with (`-fps_mode`).
const OLDEST: (u32, u32) = (5, 1);
/// From when on the end of a certificate is worth a note, in days. One of our own is made anew long before.
const LATE: i64 = 7;
/// The same for the authority: every phone has to trust a new one.
const LATE_AUTHORITY: i64 = 30;
/// Less than this is not room for a film.
const TIGHT: u64 = 5_000_000_000;
/// Less than this is no room for a database and its journal.
const TIGHT_FOR_DATA: u64 = 50_000_000;
/// Within this time the first nodes of the DHT have answered, in seconds.
const DHT_PATIENCE: u64 = 120;
/// How far the clock may stand behind the newest time in the database, in seconds.
const BACK: i64 = 3600;
/// No clock is right that says less or more: 2025 and 2100.
const PLAUSIBLE: std::ops::Range<i64> = 1_735_689_600..4_102_444_800;

/// Containers without which there are no films.
const CONTAINERS: [&str; 2] = ["matroska", "mov"];
const ENCODERS: [&str; 2] = ["libx264", "aac"];
const FILTERS: [&str; 6] = ["scale", "format", "setsar", "trim", "aresample", "aformat"];
const HDR: [&str; 2] = ["zscale", "tonemap"];
const INTERLACED: [&str; 1] = ["bwdif"];
/// Encoder of text subtitles, and the filters that draw the others into the picture.
const SUBTITLES: [&str; 3] = ["webvtt", "overlay", "subtitles"];
/// What films are made with, for people, and the decoders of which one is enough.
pub(crate) const CODECS: [(&str, &[&str]); 17] = [
    ("H.264", &["h264"]),
    ("HEVC", &["hevc"]),
    ("AV1", &["libdav1d", "libaom-av1", "av1"]),
    ("VP9", &["vp9", "libvpx-vp9"]),
    ("VP8", &["vp8", "libvpx"]),
    ("MPEG-4", &["mpeg4"]),
    ("MPEG-2", &["mpeg2video"]),
    ("VC-1", &["vc1"]),
    ("AAC", &["aac", "aac_fixed", "libfdk_aac"]),
    ("AC-3", &["ac3", "ac3_fixed"]),
    ("E-AC-3", &["eac3"]),
    ("DTS", &["dca"]),
    ("TrueHD", &["truehd"]),
    ("MP3", &["mp3", "mp3float"]),
    ("Opus", &["opus", "libopus"]),
    ("Vorbis", &["vorbis", "libvorbis"]),
    ("FLAC", &["flac"]),
];

/// What the facts mean. `seconds` is how long what is late was waited for.
pub(super) fn judge(facts: &Facts, now: Timestamp, data_dir: &str, seconds: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(facts.server.map(|fact| server(fact, data_dir)));
    found.extend(facts.ffmpeg.iter().flat_map(|fact| ffmpeg(fact, seconds)));
    found.extend(facts.starts_in.map(|time| started(time, facts)));
    found.extend(facts.parts.iter().flat_map(parts));
    found.extend(facts.ffprobe.iter().map(|fact| program(Check::Ffprobe, "ffprobe", fact, seconds)));
    found.extend(facts.trials.iter().map(trials));
    found.extend(facts.cage.iter().flat_map(cage));
    found.extend(facts.ports.iter().flat_map(ports));
    found.extend(disk(&facts.folders, facts.space.as_ref()));
    found.extend(facts.database.iter().flat_map(database));
    found.extend(facts.certificate.iter().flat_map(|fact| certificate(fact, now)));
    found.extend(facts.discovery.iter().map(discovery));
    found.extend(facts.torrents.iter().flat_map(torrents));
    found.extend(facts.clock.iter().map(clock));
    found.extend(facts.late.iter().map(|check| note(*check, "late", json!({ "seconds": seconds }))));
    found
}

fn good(check: Check, key: &'static str, params: Value) -> Finding {
    Finding::new(check, Level::Good, key, params)
}

fn note(check: Check, key: &'static str, params: Value) -> Finding {
    Finding::new(check, Level::Note, key, params)
}

fn broken(check: Check, key: &'static str, params: Value) -> Finding {
    Finding::new(check, Level::Broken, key, params)
}

fn server(fact: Server, data_dir: &str) -> Finding {
    match fact {
        Server::Nobody => good(Check::Server, "server_none", json!({ "path": data_dir })),
        Server::Runs { pid } => good(Check::Server, "server_runs", json!({ "pid": pid })),
        Server::Silent { pid } => broken(Check::Server, "server_silent", json!({ "pid": pid })),
    }
}

fn program(check: Check, name: &str, fact: &Program, seconds: u64) -> Finding {
    let asked = fact.asked.display().to_string();
    match &fact.state {
        ProgramState::Missing => broken(check, "program_missing", json!({ "program": name, "path": asked })),
        ProgramState::Unusable(reason) => broken(check, "program_unusable", json!({ "program": name, "path": asked, "reason": reason })),
        ProgramState::Hangs => broken(check, "program_hangs", json!({ "program": name, "path": asked, "seconds": seconds })),
        ProgramState::Runs { path, version } => {
            good(check, "program_good", json!({ "program": name, "path": path.display().to_string(), "version": version }))
        }
    }
}

fn ffmpeg(fact: &Program, seconds: u64) -> Vec<Finding> {
    let mut found = vec![program(Check::Ffmpeg, "ffmpeg", fact, seconds)];
    if let ProgramState::Runs { version, .. } = &fact.state
        && is_too_old(version)
    {
        let needed = format!("{}.{}", OLDEST.0, OLDEST.1);
        found = vec![broken(Check::Ffmpeg, "ffmpeg_old", json!({ "version": version, "needed": needed }))];
    }
    found
}

/// Whether an ffmpeg of this version lacks options that films are converted with.
pub(crate) fn is_too_old(version: &str) -> bool {
    number(version).is_some_and(|number| number < OLDEST)
}

/// How long ffmpeg takes to start, and why it is this one where there are others.
fn started(time: Duration, facts: &Facts) -> Finding {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let used = match facts.ffmpeg.as_ref().map(|fact| &fact.state) {
        Some(ProgramState::Runs { path, .. }) => path.canonicalize().unwrap_or_else(|_| path.clone()),
        _ => return good(Check::Ffmpeg, "ffmpeg_starts", json!({ "milliseconds": milliseconds })),
    };
    let others = facts.choice.found.iter().filter(|found| found.path != used);
    let others: Vec<String> = others.map(|found| found.path.display().to_string()).collect();
    if others.is_empty() {
        return good(Check::Ffmpeg, "ffmpeg_starts", json!({ "milliseconds": milliseconds }));
    }
    good(Check::Ffmpeg, "ffmpeg_chosen", json!({ "milliseconds": milliseconds, "path": used.display().to_string(), "others": others }))
}

/// The number in a version: `5.1.9-0+deb12u1`, `n7.0`. `None` for what was built from some day's sources, which count as new.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('n').split(|letter: char| !letter.is_ascii_digit());
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0));
    (major < 1000).then_some((major, minor))
}

fn parts(fact: &Result<Parts, String>) -> Vec<Finding> {
    let fact = match fact {
        Ok(parts) => parts,
        Err(reason) => return vec![note(Check::Ffmpeg, "ffmpeg_unlisted", json!({ "reason": reason }))],
    };
    let lacks = |names: &BTreeSet<String>, wanted: &[&str]| -> Vec<String> {
        wanted.iter().filter(|name| !names.contains(**name)).map(|name| (*name).to_owned()).collect()
    };
    let vital = [lacks(&fact.demuxers, &CONTAINERS), lacks(&fact.encoders, &ENCODERS), lacks(&fact.filters, &FILTERS)].concat();
    let containers: Vec<_> = DEMUXERS.split(',').filter(|name| !CONTAINERS.contains(name) && !fact.demuxers.contains(*name)).collect();
    let is_lacking = |decoders: &[&str]| !decoders.iter().any(|name| fact.decoders.contains(*name));
    let codecs: Vec<_> = CODECS.iter().filter(|(_, decoders)| is_lacking(decoders)).map(|(name, _)| *name).collect();
    let either: BTreeSet<String> = fact.encoders.union(&fact.filters).cloned().collect();
    let mut found = Vec::new();
    if !vital.is_empty() {
        found.push(broken(Check::Ffmpeg, "ffmpeg_lacks", json!({ "what": vital })));
    }
    if !containers.is_empty() {
        found.push(note(Check::Ffmpeg, "ffmpeg_lacks_containers", json!({ "what": containers })));
    }
    if !codecs.is_empty() {
        found.push(note(Check::Ffmpeg, "ffmpeg_lacks_codecs", json!({ "what": codecs })));
    }
    let rest = [
        ("ffmpeg_lacks_hdr", lacks(&fact.filters, &HDR)),
        ("ffmpeg_lacks_interlaced", lacks(&fact.filters, &INTERLACED)),
        ("ffmpeg_lacks_subtitles", lacks(&either, &SUBTITLES)),
    ];
    let lacking = rest.into_iter().filter(|(_, what)| !what.is_empty());
    found.extend(lacking.map(|(key, what)| note(Check::Ffmpeg, key, json!({ "what": what }))));
    found
}

fn trials(fact: &Trials) -> Finding {
    let check = Check::Encoders;
    let told = &fact.silicon;
    if told.wanted == Wanted::Off {
        return note(check, "encoders_off", json!({}));
    }
    if let Some(reason) = &fact.processor {
        return broken(check, "encoders_fail", json!({ "reason": reason }));
    }
    if let Some((silicon, reason)) = told.distrusted.last() {
        return note(check, "encoders_distrusted", json!({ "encoder": silicon.family().name(), "reason": reason }));
    }
    if let Some((used, (width, height))) = told.used().and_then(|used| Some((used, used.largest?))) {
        return good(check, "encoders_silicon", json!({ "encoder": used.silicon.family().name(), "width": width, "height": height }));
    }
    let flaw = |tried: &trial::Tried| format!("{}: {}", tried.silicon.family().name(), tried.flaw.as_deref().unwrap_or("it failed"));
    let mut flaws: Vec<String> = told.tried.iter().map(flaw).collect();
    flaws.dedup();
    match told.wanted {
        _ if told.trying => good(check, "encoders_trying", json!({})),
        Wanted::One(family) => note(check, "encoders_not_that", json!({ "encoder": family.name(), "reasons": flaws })),
        Wanted::Auto if !flaws.is_empty() => good(check, "encoders_none", json!({ "reasons": flaws })),
        Wanted::Auto | Wanted::X264 | Wanted::Off => good(check, "encoders_good", json!({})),
    }
}

fn cage(fact: &Result<Report, String>) -> Vec<Finding> {
    let report = match fact {
        Ok(report) => report,
        Err(reason) => return vec![note(Check::Cage, "cage_untried", json!({ "reason": reason }))],
    };
    if report.is_whole() {
        return vec![good(Check::Cage, "cage_good", json!({ "landlock": report.landlock }))];
    }
    let walls = [(report.files, "cage_no_files"), (report.network, "cage_no_network"), (report.calls, "cage_no_calls")];
    walls.into_iter().filter(|(holds, _)| !holds).map(|(_, key)| note(Check::Cage, key, json!({}))).collect()
}

fn ports(fact: &Ports) -> Vec<Finding> {
    let tried = match fact {
        Ports::Ours { http, https } => return vec![good(Check::Ports, "ports_ours", json!({ "http": http, "https": https }))],
        Ports::Tried(tried) => tried,
    };
    let mut found: Vec<_> = tried.iter().filter_map(port).collect();
    // The address is one for all ports.
    found.dedup_by(|a, b| a.message == b.message);
    if !found.is_empty() {
        return found;
    }
    let named: Vec<_> = tried.iter().map(|port| port.number).filter(|number| *number > 0).collect();
    if named.is_empty() {
        return vec![good(Check::Ports, "ports_any", json!({}))];
    }
    vec![good(Check::Ports, "ports_free", json!({ "ports": named }))]
}

fn port(fact: &Port) -> Option<Finding> {
    let Port { number, flag, state } = fact;
    let (key, params) = match state {
        PortState::Free => return None,
        PortState::Taken(Some((program, pid))) => ("port_taken", json!({ "port": number, "flag": flag, "program": program, "pid": pid })),
        PortState::Taken(None) => ("port_taken_by_stranger", json!({ "port": number, "flag": flag })),
        PortState::Forbidden => ("port_forbidden", json!({ "port": number, "flag": flag })),
        PortState::NoAddress(address) => ("port_no_address", json!({ "address": address.to_string() })),
        PortState::Unusable(reason) => ("port_unusable", json!({ "port": number, "flag": flag, "reason": reason })),
    };
    Some(broken(Check::Ports, key, params))
}

fn disk(folders: &[Folder], space: Option<&Space>) -> Vec<Finding> {
    let mut found: Vec<_> = folders.iter().filter_map(folder).collect();
    found.extend(space.into_iter().flat_map(room));
    if let Some(space) = space
        && found.is_empty()
    {
        found.push(good(Check::Disk, "disk_good", json!({ "freeBytes": space.free, "budgetBytes": space.budget })));
    }
    found
}

fn folder(fact: &Folder) -> Option<Finding> {
    let (which, path) = (fact.which, fact.path.display().to_string());
    match &fact.state {
        FolderState::Fine | FolderState::Absent => None,
        FolderState::Open => Some(note(Check::Disk, "folder_open", json!({ "folder": which, "path": path }))),
        FolderState::Unusable(reason) => {
            Some(broken(Check::Disk, "folder_unusable", json!({ "folder": which, "path": path, "reason": reason })))
        }
        FolderState::Silent => Some(broken(Check::Disk, "folder_silent", json!({ "folder": which, "path": path }))),
    }
}

fn room(space: &Space) -> Vec<Finding> {
    let mut found = Vec::new();
    let left = space.free.saturating_sub(space.reserve);
    if left == 0 {
        found.push(broken(Check::Disk, "disk_full", json!({ "freeBytes": space.free, "reserveBytes": space.reserve })));
    } else if left < TIGHT {
        found.push(note(Check::Disk, "disk_tight", json!({ "leftBytes": left, "reserveBytes": space.reserve })));
    }
    if space.budget < space.asked {
        found.push(note(Check::Disk, "disk_budget", json!({ "budgetBytes": space.budget, "askedBytes": space.asked })));
    }
    if space.free_for_data < TIGHT_FOR_DATA {
        found.push(broken(Check::Disk, "disk_data_full", json!({ "freeBytes": space.free_for_data })));
    }
    found
}

fn database(fact: &Database) -> Vec<Finding> {
    let path = fact.path.display().to_string();
    let aside = fact.aside.as_ref().map(|(at, path)| {
        let (date, path) = (at.to_string().chars().take(10).collect::<String>(), path.display().to_string());
        note(Check::Database, "database_set_aside", json!({ "path": path, "date": date }))
    });
    let state = match &fact.state {
        Soundness::Absent => good(Check::Database, "database_none", json!({})),
        Soundness::Sound { .. } => good(Check::Database, "database_good", json!({})),
        Soundness::Damaged(reason) => broken(Check::Database, "database_damaged", json!({ "path": path, "reason": reason })),
        Soundness::Newer => broken(Check::Database, "database_newer", json!({ "path": path })),
        Soundness::Unreadable(reason) => broken(Check::Database, "database_unreadable", json!({ "path": path, "reason": reason })),
    };
    std::iter::once(state).chain(aside).collect()
}

fn certificate(fact: &Certificate, now: Timestamp) -> Vec<Finding> {
    let check = Check::Certificate;
    match fact {
        Certificate::ToBeMade => vec![good(check, "certificate_none", json!({}))],
        Certificate::Unusable(reason) => vec![broken(check, "certificate_unusable", json!({ "reason": reason }))],
        Certificate::Authority { until } => {
            vec![authority(*until, now).unwrap_or_else(|| good(check, "certificate_at_start", json!({})))]
        }
        Certificate::Served { authority_until, until, lacking } => {
            let mut found: Vec<_> = authority_until.and_then(|until| authority(until, now)).into_iter().collect();
            let days = days(*until, now);
            if *until <= now {
                found.push(broken(check, "certificate_over", json!({ "date": date(*until) })));
            } else if days < LATE {
                found.push(note(check, "certificate_ends", json!({ "days": days })));
            }
            if !lacking.is_empty() {
                let addresses: Vec<_> = lacking.iter().map(ToString::to_string).collect();
                found.push(note(check, "certificate_lacks", json!({ "addresses": addresses })));
            }
            if found.is_empty() {
                let key = if authority_until.is_some() { "certificate_good" } else { "certificate_yours" };
                found.push(good(check, key, json!({ "days": days })));
            }
            found
        }
    }
}

fn authority(until: Timestamp, now: Timestamp) -> Option<Finding> {
    if until <= now {
        return Some(broken(Check::Certificate, "authority_over", json!({ "date": date(until) })));
    }
    let days = days(until, now);
    (days < LATE_AUTHORITY).then(|| note(Check::Certificate, "authority_ends", json!({ "days": days })))
}

fn days(until: Timestamp, now: Timestamp) -> i64 {
    until.duration_since(now).as_hours() / 24
}

/// The day, in UTC.
fn date(at: Timestamp) -> String {
    at.to_string().split('T').next().unwrap_or_default().to_owned()
}

fn discovery(fact: &Discovery) -> Finding {
    let check = Check::Discovery;
    if fact.alone {
        return note(check, "discovery_alone", json!({}));
    }
    let Some(address) = fact.address.map(|address| address.to_string()) else { return note(check, "discovery_no_address", json!({})) };
    if fact.switched_off {
        return note(check, "discovery_off", json!({ "address": address }));
    }
    match &fact.obstacle {
        Some(reason) => note(check, "discovery_impossible", json!({ "reason": reason, "address": address })),
        None => good(check, "discovery_good", json!({ "address": address })),
    }
}

fn torrents(fact: &Torrents) -> Vec<Finding> {
    let check = Check::Torrents;
    if fact.mock {
        return vec![note(check, "torrents_mock", json!({}))];
    }
    let mut found = match (fact.dht, fact.trackers, fact.nodes) {
        (false, false, _) => vec![note(check, "torrents_alone", json!({}))],
        (false, true, _) => vec![note(check, "torrents_no_dht", json!({}))],
        (true, trackers, nodes) => {
            let silent = nodes.filter(|(nodes, tried)| *nodes == 0 && tried.as_secs() >= DHT_PATIENCE);
            let silent = silent.map(|(_, tried)| note(check, "torrents_dht_silent", json!({ "seconds": tried.as_secs() })));
            let off = (!trackers).then(|| note(check, "torrents_no_trackers", json!({})));
            silent.into_iter().chain(off).collect()
        }
    };
    if fact.private {
        found.push(note(check, "torrents_private", json!({})));
    }
    if found.is_empty() {
        found.push(good(check, "torrents_good", json!({})));
    }
    found
}

fn clock(fact: &Clock) -> Finding {
    let time = in_seconds(fact.now);
    if !PLAUSIBLE.contains(&fact.now.as_second()) {
        return broken(Check::Clock, "clock_wrong", json!({ "time": time }));
    }
    match fact.newest.filter(|newest| newest.as_second().saturating_sub(fact.now.as_second()) > BACK) {
        Some(newest) => note(Check::Clock, "clock_back", json!({ "time": time, "newest": in_seconds(newest) })),
        None => good(Check::Clock, "clock_good", json!({ "time": time })),
    }
}

/// RFC 3339, without fractions of seconds.
fn in_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
