//! The sentences of all findings. A key never changes its meaning; what stands in braces is a parameter of that name.

use serde_json::{Map, Value};

use crate::amount::size;

/// Key and sentence.
pub(super) const SENTENCES: &[(&str, &str)] = &[
    ("server_runs", "The server runs (process {pid})."),
    ("server_none", "No server runs on the data folder {path}."),
    ("server_silent", "The server (process {pid}) does not answer; end it and start it again."),
    ("program_good", "{program} {version} is here: {path}."),
    (
        "program_missing",
        "{program} was not found ({path}); install ffmpeg (Debian and Ubuntu: apt install ffmpeg; macOS: brew install ffmpeg) or say where it is with --{program}.",
    ),
    ("program_unusable", "{program} ({path}) cannot be run: {reason}; install ffmpeg anew, or name another one with --{program}."),
    ("program_hangs", "{program} ({path}) does not answer within {seconds} s; name another one with --{program}."),
    (
        "ffmpeg_old",
        "ffmpeg {version} is too old: films are converted with {needed} or newer; install a newer one, or name it with --ffmpeg.",
    ),
    ("ffmpeg_starts", "ffmpeg starts in {milliseconds} ms."),
    (
        "ffmpeg_chosen",
        "ffmpeg starts in {milliseconds} ms; {path} was chosen rather than {others}, for it lacks nothing that they have and starts quicker or has more; --ffmpeg names another one.",
    ),
    ("ffmpeg_unlisted", "What this ffmpeg was built with could not be found out: {reason}."),
    (
        "ffmpeg_lacks",
        "This ffmpeg was built without {what}: films cannot be converted; install the full ffmpeg of your system, or name another one with --ffmpeg.",
    ),
    ("ffmpeg_lacks_containers", "This ffmpeg does not open films in {what}; the full ffmpeg of your system does."),
    (
        "ffmpeg_lacks_codecs",
        "This ffmpeg cannot decode {what}: such films play only where the device can play them as they are; the full ffmpeg of your system can.",
    ),
    (
        "ffmpeg_lacks_hdr",
        "This ffmpeg was built without {what}: HDR films play only where the device shows HDR as it is; install one that was built with zimg.",
    ),
    ("ffmpeg_lacks_interlaced", "This ffmpeg was built without {what}: interlaced films, such as recordings of TV, cannot be converted."),
    (
        "ffmpeg_lacks_subtitles",
        "This ffmpeg was built without {what}: some subtitles cannot be shown, or not be drawn into the picture; install one that was built with libass.",
    ),
    ("encoders_good", "Films can be converted, by the processor."),
    (
        "encoders_silicon",
        "Films are converted by {encoder} (pictures up to {width}×{height}), and by the processor where that fails; a trial has shown that it works.",
    ),
    ("encoders_trying", "Films can be converted, by the processor; whether the graphics card can do it too is being tried."),
    ("encoders_none", "Films can be converted, by the processor; the graphics card was tried and does not do it ({reasons})."),
    (
        "encoders_not_that",
        "The encoder {encoder} was asked for and does not work here ({reasons}): films are converted by the processor; put its driver right, or leave --encoder out.",
    ),
    (
        "encoders_distrusted",
        "The encoder {encoder} failed in the middle of a film ({reason}): the processor converts everything until the server starts again; see whether its driver is up to date, or choose --encoder x264.",
    ),
    ("encoders_off", "Converting pictures is switched off (--encoder off): what a device cannot play as it is, it cannot play at all."),
    (
        "encoders_fail",
        "Films cannot be converted, a trial failed: {reason}; install the full ffmpeg of your system, or name another one with --ffmpeg.",
    ),
    ("cage_good", "ffmpeg runs in a cage: it reaches no files and no machines but those that it needs (Landlock {landlock})."),
    ("cage_no_files", "This system cannot keep ffmpeg from reading your files; a newer kernel could (Linux 5.13 with Landlock)."),
    (
        "cage_no_network",
        "This system cannot keep ffmpeg from connecting to other machines; a newer kernel could (Linux 6.7 with Landlock).",
    ),
    ("cage_no_calls", "This system cannot forbid system calls to ffmpeg; a kernel with seccomp could."),
    ("cage_untried", "The cage around ffmpeg could not be tried: {reason}."),
    ("ports_ours", "The server listens on port {http} (plain, this computer) and {https} (HTTPS, the house)."),
    ("ports_free", "The ports are free: {ports}."),
    ("ports_any", "The system will choose the ports."),
    ("port_taken", "Port {port} is taken by {program} (process {pid}); end that, or choose another port with --{flag}."),
    ("port_taken_by_stranger", "Port {port} is taken by another program; end that, or choose another port with --{flag}."),
    ("port_forbidden", "This user may not open port {port}; choose one above 1023 with --{flag}."),
    ("port_no_address", "This computer does not have the address {address} of --bind; name one that it has, or leave it out."),
    ("port_unusable", "Port {port} cannot be opened: {reason}; choose another one with --{flag}."),
    ("disk_good", "{freeBytes} are free; films may take {budgetBytes}."),
    (
        "folder_unusable",
        "The {folder} folder {path} cannot be used: {reason}; give it to this user, or choose another one with --{folder}-dir.",
    ),
    ("folder_open", "Others on this computer can look into the {folder} folder {path}; the next start closes it."),
    (
        "folder_silent",
        "The disk of the {folder} folder {path} does not answer; see whether it is connected, or choose another one with --{folder}-dir.",
    ),
    (
        "disk_full",
        "Only {freeBytes} are free and {reserveBytes} of the disk are never touched: no film can be loaded; make room, or lower --reserve-bytes.",
    ),
    ("disk_tight", "Only {leftBytes} are left for films beside the {reserveBytes} that are never touched; make room for longer ones."),
    ("disk_budget", "Films may take {budgetBytes} and not the {askedBytes} of --cache-max-bytes: never more than half of what is free."),
    ("disk_data_full", "Only {freeBytes} are free for the data folder: the database cannot grow; make room."),
    ("database_good", "The database is sound."),
    ("database_none", "There is no database yet; the first start makes it."),
    (
        "database_damaged",
        "The database {path} is damaged ({reason}); the next start sets it aside and takes the newest copy of it, or begins with an empty one.",
    ),
    (
        "database_set_aside",
        "A damaged database was set aside on {date}: {path}; what was done after the last copy is missing, and devices may have to be paired again; delete the file when you do not need it.",
    ),
    ("database_newer", "The database {path} belongs to a newer version of this program; install that one."),
    ("database_unreadable", "The database {path} cannot be read: {reason}."),
    ("certificate_good", "The certificate is valid for {days} more days and names every address of this computer."),
    ("certificate_yours", "Your own certificate is valid for {days} more days."),
    ("certificate_none", "There is no certificate yet; the first start makes it."),
    ("certificate_at_start", "The certificate authority is here; each start makes a certificate."),
    (
        "certificate_over",
        "The certificate ended on {date}: phones refuse it; put a new one in its place, or see whether the clock is right.",
    ),
    ("certificate_ends", "The certificate ends in {days} days; put a new one in its place."),
    (
        "certificate_lacks",
        "The certificate does not name {addresses}: phones that come by that refuse it; a new one is made when addresses change, and at each start.",
    ),
    ("certificate_unusable", "The certificate cannot be used: {reason}."),
    (
        "authority_over",
        "The certificate authority ended on {date}: no phone accepts the server; `balcony-server reset-ca` makes a new one.",
    ),
    (
        "authority_ends",
        "The certificate authority ends in {days} days; `balcony-server reset-ca` makes a new one, which every phone has to trust anew.",
    ),
    ("discovery_good", "Phones find this server by themselves, at {address}."),
    ("discovery_off", "This server is not announced in the house (--no-mdns); phones come by the pairing code, at {address}."),
    ("discovery_alone", "This server listens to this computer only (--bind): no phone can reach it; leave --bind out for that."),
    ("discovery_no_address", "This computer has no address in a network that a phone could reach; connect it by cable or Wi-Fi."),
    ("discovery_impossible", "This server cannot be announced in the house: {reason}; phones come by the pairing code, at {address}."),
    ("torrents_good", "Peers are looked for in the DHT and by trackers; no port has to be opened for that."),
    ("torrents_mock", "This is the mock (--mock): nothing is fetched from anybody, and every film is one of its own."),
    ("torrents_no_dht", "The DHT is switched off (--no-dht): magnets without a tracker find nobody."),
    ("torrents_no_trackers", "Trackers are switched off (--no-trackers): peers are looked for in the DHT only."),
    (
        "torrents_alone",
        "DHT and trackers are switched off (--no-dht, --no-trackers): only peers that are named in a magnet or with --peer are found.",
    ),
    ("torrents_dht_silent", "Nobody in the DHT has answered for {seconds} s; see whether this network lets UDP out."),
    ("torrents_private", "Torrents may talk to private addresses of your network (--allow-private-peers)."),
    ("clock_good", "The clock says {time}."),
    ("clock_wrong", "The clock says {time}, which cannot be; set it, for certificates and the life of streams depend on it."),
    ("clock_back", "The clock says {time}, and the database knows of {newest}; see whether the clock is right."),
    ("late", "This did not answer within {seconds} s; try again when the computer has less to do."),
];

/// The sentence for a key.
///
/// # Panics
/// When there is none: a defect that the tests of [`super::judge`] find.
pub(super) fn say(key: &'static str, params: &Map<String, Value>) -> String {
    let (_, sentence) = SENTENCES.iter().find(|(known, _)| *known == key).expect("every key has its sentence");
    let (mut text, mut rest) = (String::new(), *sentence);
    while let Some((before, (name, after))) = rest.split_once('{').and_then(|(before, behind)| Some((before, behind.split_once('}')?))) {
        text.push_str(before);
        text.push_str(&params.get(name).map_or_else(|| format!("{{{name}}}"), |value| written(name, value)));
        rest = after;
    }
    text + rest
}

fn written(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(|one| written("", one)).collect::<Vec<_>>().join(", "),
        Value::Number(number) if name.ends_with("Bytes") => size(number.as_u64().unwrap_or(0)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_stand_where_they_belong() {
        let params = json!({ "ports": [3001, 3443] });
        assert_eq!(say("ports_free", params.as_object().expect("an object")), "The ports are free: 3001, 3443.");
        let params = json!({ "freeBytes": 5_000_000, "budgetBytes": 7 });
        assert_eq!(say("disk_good", params.as_object().expect("an object")), "5.0 MB are free; films may take 7 bytes.");
    }

    #[test]
    fn every_key_is_plain_and_there_once_and_every_sentence_is_one() {
        let mut seen = std::collections::BTreeSet::new();
        for (key, sentence) in SENTENCES {
            assert!(seen.insert(key), "{key}");
            assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{key}");
            assert!(sentence.ends_with('.') && !sentence.contains(". "), "{sentence}");
        }
    }
}
