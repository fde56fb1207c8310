//! What the shell says, in the languages it speaks: the tray, its notifications. One catalogue a language, complete by type.
//!
//! The pages have catalogues of their own; what the server says in a person's words is not translated here but by its code.

/// Everything that is said in one language. `{name}` stands for what is filled in.
#[derive(Debug)]
pub(crate) struct Words {
    /// Between the whole and its tenths.
    comma: &'static str,
    pub(crate) open: &'static str,
    pub(crate) starting: &'static str,
    pub(crate) ready: &'static str,
    pub(crate) paused: &'static str,
    pub(crate) one_watches: &'static str,
    pub(crate) many_watch: &'static str,
    pub(crate) watched_here: &'static str,
    pub(crate) one_is_prepared: &'static str,
    pub(crate) many_are_prepared: &'static str,
    pub(crate) disk_is_full: &'static str,
    pub(crate) ffmpeg_is_missing: &'static str,
    pub(crate) pair: &'static str,
    pub(crate) add_magnet: &'static str,
    pub(crate) streams: &'static str,
    pub(crate) no_streams: &'static str,
    pub(crate) more_streams: &'static str,
    pub(crate) show: &'static str,
    pub(crate) stop: &'static str,
    pub(crate) pause_all: &'static str,
    pub(crate) start_at_login: &'static str,
    pub(crate) keep_awake: &'static str,
    pub(crate) open_links: &'static str,
    pub(crate) used: &'static str,
    pub(crate) copy_diagnostics: &'static str,
    pub(crate) quit: &'static str,

    pub(crate) nameless: &'static str,
    pub(crate) queued: &'static str,
    pub(crate) metadata: &'static str,
    pub(crate) connecting: &'static str,
    pub(crate) buffering: &'static str,
    pub(crate) probing: &'static str,
    pub(crate) converting: &'static str,
    pub(crate) playable: &'static str,
    pub(crate) complete: &'static str,
    pub(crate) failed: &'static str,
    pub(crate) stopped: &'static str,

    pub(crate) paired: &'static str,
    pub(crate) paired_what: &'static str,
    pub(crate) revoke: &'static str,
    pub(crate) revoked: &'static str,
    pub(crate) stream_ready: &'static str,
    pub(crate) stream_ready_what: &'static str,
    pub(crate) disk_full_what: &'static str,
    pub(crate) free_space: &'static str,
    pub(crate) ffmpeg_what: &'static str,
    pub(crate) look: &'static str,
    pub(crate) ask_login: &'static str,
    pub(crate) ask_login_what: &'static str,
    pub(crate) goes_on: &'static str,
    pub(crate) goes_on_in_tray: &'static str,
    pub(crate) goes_on_without_tray: &'static str,
    pub(crate) no_magnet: &'static str,
    pub(crate) no_magnet_what: &'static str,
    pub(crate) not_added: &'static str,
    pub(crate) bad_file: &'static str,
    pub(crate) diagnostics_copied: &'static str,
    pub(crate) diagnostics_copied_what: &'static str,
    pub(crate) did_not_work: &'static str,
    pub(crate) no_answer: &'static str,
    pub(crate) did_not_start: &'static str,

    pub(crate) bad_magnet: &'static str,
    pub(crate) unsafe_torrent: &'static str,
    pub(crate) not_playable: &'static str,
    pub(crate) no_space: &'static str,
    pub(crate) queue_full: &'static str,
}

static ENGLISH: Words = Words {
    comma: ".",
    open: "Open Balcony",
    starting: "Starting",
    ready: "Ready",
    paused: "Paused",
    one_watches: "1 phone watching, {speed}",
    many_watch: "{n} phones watching, {speed}",
    watched_here: "Watched on this computer, {speed}",
    one_is_prepared: "Preparing a film, {speed}",
    many_are_prepared: "Preparing {n} films, {speed}",
    disk_is_full: "Disk almost full",
    ffmpeg_is_missing: "ffmpeg is missing",
    pair: "Pair a phone…",
    add_magnet: "Add magnet from clipboard",
    streams: "Streams",
    no_streams: "No streams",
    more_streams: "And {n} more…",
    show: "Show",
    stop: "Stop",
    pause_all: "Pause all",
    start_at_login: "Start at login",
    keep_awake: "Keep awake while streaming",
    open_links: "Open magnet links with Balcony",
    used: "{used} of {budget} used",
    copy_diagnostics: "Copy diagnostics",
    quit: "Quit",

    nameless: "A film",
    queued: "In the queue",
    metadata: "Looking for peers",
    connecting: "Connecting",
    buffering: "Fetching the beginning",
    probing: "Looking at picture and sound",
    converting: "Converting",
    playable: "Ready",
    complete: "Ready, all here",
    failed: "Cannot be played",
    stopped: "Stopped",

    paired: "{device} was paired",
    paired_what: "If that was not you, revoke it.",
    revoke: "Revoke",
    revoked: "{device} was revoked",
    stream_ready: "{film} is ready",
    stream_ready_what: "It plays now, the rest follows while you watch.",
    disk_full_what: "{free} are free. Stop a film, or give Balcony more room.",
    free_space: "Free space",
    ffmpeg_what: "Films that a phone does not play as they are cannot be converted. Install ffmpeg, then start Balcony again.",
    look: "Diagnostics",
    ask_login: "Start Balcony when you log in?",
    ask_login_what: "Your phones find it then without anybody starting it. You can change that in the tray's menu.",
    goes_on: "Balcony goes on",
    goes_on_in_tray: "It stays in the tray, so that phones can watch. Quit is in its menu.",
    goes_on_without_tray: "It goes on in the background, so that phones can watch. Start it again to bring the window back.",
    no_magnet: "There is no magnet link in the clipboard",
    no_magnet_what: "Copy one: it begins with \"magnet:\".",
    not_added: "This film was not added",
    bad_file: "The file {file} cannot be read.",
    diagnostics_copied: "Diagnostics copied",
    diagnostics_copied_what: "Paste them where somebody helps you. They hold no titles, links or tokens.",
    did_not_work: "That did not work",
    no_answer: "The server inside does not answer.",
    did_not_start: "Balcony cannot start",

    bad_magnet: "That is not a magnet link. It begins with \"magnet:\".",
    unsafe_torrent: "This link was refused. Its file names point outside their folder.",
    not_playable: "There is no film in this link.",
    no_space: "There is no room for this film.",
    queue_full: "Too many films wait already. Try again in a minute.",
};

static GERMAN: Words = Words {
    comma: ",",
    open: "Balcony öffnen",
    starting: "Startet",
    ready: "Bereit",
    paused: "Angehalten",
    one_watches: "1 Telefon schaut zu, {speed}",
    many_watch: "{n} Telefone schauen zu, {speed}",
    watched_here: "Läuft auf diesem Computer, {speed}",
    one_is_prepared: "Ein Film wird vorbereitet, {speed}",
    many_are_prepared: "{n} Filme werden vorbereitet, {speed}",
    disk_is_full: "Platte fast voll",
    ffmpeg_is_missing: "ffmpeg fehlt",
    pair: "Telefon koppeln…",
    add_magnet: "Magnet-Link aus der Zwischenablage",
    streams: "Streams",
    no_streams: "Keine Streams",
    more_streams: "Und {n} weitere…",
    show: "Anzeigen",
    stop: "Beenden",
    pause_all: "Alle anhalten",
    start_at_login: "Beim Anmelden starten",
    keep_awake: "Beim Streamen wach bleiben",
    open_links: "Magnet-Links mit Balcony öffnen",
    used: "{used} von {budget} belegt",
    copy_diagnostics: "Diagnose kopieren",
    quit: "Balcony beenden",

    nameless: "Ein Film",
    queued: "In der Warteschlange",
    metadata: "Sucht Peers",
    connecting: "Verbindet",
    buffering: "Holt den Anfang",
    probing: "Prüft Bild und Ton",
    converting: "Wandelt um",
    playable: "Bereit",
    complete: "Bereit, ganz da",
    failed: "Nicht abspielbar",
    stopped: "Beendet",

    paired: "{device} wurde gekoppelt",
    paired_what: "Warst du das nicht, dann entzieh dem Gerät den Zugang.",
    revoke: "Zugang entziehen",
    revoked: "{device} hat keinen Zugang mehr",
    stream_ready: "{film} ist bereit",
    stream_ready_what: "Der Film läuft jetzt, der Rest kommt beim Schauen.",
    disk_full_what: "{free} sind frei. Beende einen Film oder gib Balcony mehr Platz.",
    free_space: "Platz schaffen",
    ffmpeg_what: "Filme, die ein Telefon nicht von sich aus abspielt, lassen sich nicht umwandeln. Installiere ffmpeg und starte Balcony neu.",
    look: "Diagnose",
    ask_login: "Balcony beim Anmelden starten?",
    ask_login_what: "Dann finden deine Telefone es, ohne dass es jemand startet. Im Menü des Symbols lässt sich das ändern.",
    goes_on: "Balcony läuft weiter",
    goes_on_in_tray: "Es bleibt als Symbol in der Leiste, damit Telefone schauen können. Beenden steht in seinem Menü.",
    goes_on_without_tray: "Es läuft im Hintergrund weiter, damit Telefone schauen können. Starte es noch einmal, dann kommt das Fenster zurück.",
    no_magnet: "In der Zwischenablage ist kein Magnet-Link",
    no_magnet_what: "Kopiere einen: Er beginnt mit „magnet:“.",
    not_added: "Der Film wurde nicht hinzugefügt",
    bad_file: "Die Datei {file} ist nicht lesbar.",
    diagnostics_copied: "Diagnose kopiert",
    diagnostics_copied_what: "Füge sie ein, wo dir jemand hilft. Titel, Links und Zugänge stehen nicht darin.",
    did_not_work: "Das ging nicht",
    no_answer: "Der Server im Programm antwortet nicht.",
    did_not_start: "Balcony kann nicht starten",

    bad_magnet: "Das ist kein Magnet-Link. Er beginnt mit „magnet:“.",
    unsafe_torrent: "Dieser Link wurde abgelehnt. Seine Dateinamen zeigen aus ihrem Ordner hinaus.",
    not_playable: "In diesem Link ist kein Film.",
    no_space: "Für diesen Film ist kein Platz.",
    queue_full: "Es warten schon zu viele Filme. Versuch es in einer Minute noch einmal.",
};

impl Words {
    /// Those of the system's language; English where it is one that is not spoken here.
    pub(crate) fn of_system() -> &'static Self {
        Self::of_language(&sys_locale::get_locale().unwrap_or_default())
    }

    /// Those of a language by its tag (BCP 47: `de-AT`) or the name of a locale (`de_AT.UTF-8`).
    pub(crate) fn of_language(tag: &str) -> &'static Self {
        let language = tag.split(['-', '_', '.', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("de") { &GERMAN } else { &ENGLISH }
    }

    /// A number of bytes: `6.2 GB`, `850 kB`. Decimal units, a tenth below ten.
    pub(crate) fn bytes(&self, bytes: u64) -> String {
        const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
        let mut tenths = u128::from(bytes) * 10 / 1000;
        let mut unit = 0;
        while tenths >= 10_000 && unit + 1 < UNITS.len() {
            tenths /= 1000;
            unit += 1;
        }
        let (whole, tenth) = (tenths / 10, tenths % 10);
        let unit = UNITS.get(unit).copied().unwrap_or_default();
        if whole < 10 && tenth > 0 { format!("{whole}{}{tenth} {unit}", self.comma) } else { format!("{whole} {unit}") }
    }

    /// Bytes a second: `8.3 MB/s`.
    pub(crate) fn speed(&self, bytes: u64) -> String {
        format!("{}/s", self.bytes(bytes))
    }

    /// Why the server refused something, where there is a word for that code.
    pub(crate) fn refusal(&self, code: &str) -> Option<&'static str> {
        match code {
            "bad_magnet" => Some(self.bad_magnet),
            "unsafe_torrent" => Some(self.unsafe_torrent),
            "not_playable" => Some(self.not_playable),
            "no_space" => Some(self.no_space),
            "queue_full" => Some(self.queue_full),
            _ => None,
        }
    }
}

/// A sentence with its places filled in: `fill("{n} films", &[("n", "2")])`.
pub(crate) fn fill(sentence: &str, places: &[(&str, &str)]) -> String {
    // Piece by piece, so that what is filled in is never looked at as a place.
    let mut filled = String::with_capacity(sentence.len());
    let mut rest = sentence;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else { break };
        filled.push_str(places.iter().find(|(place, _)| *place == name).map_or("", |(_, text)| text));
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_language_is_spoken_where_it_is_known() {
        for tag in ["de", "de-DE", "DE_at.UTF-8", "de@euro"] {
            assert_eq!(Words::of_language(tag).quit, GERMAN.quit, "{tag}");
        }
        for tag in ["", "C", "C.UTF-8", "en-GB", "den", "fr"] {
            assert_eq!(Words::of_language(tag).quit, ENGLISH.quit, "{tag}");
        }
    }

    #[test]
    fn bytes_are_written_as_people_write_them() {
        let table = [
            (0, "0 kB"),
            (999, "0.9 kB"),
            (40_000, "40 kB"),
            (999_999, "999 kB"),
            (8_300_000, "8.3 MB"),
            (6_249_000_000, "6.2 GB"),
            (20_000_000_000, "20 GB"),
            (1_000_000_000, "1 GB"),
            (u64::MAX, "18446744 TB"),
        ];
        for (bytes, text) in table {
            assert_eq!(ENGLISH.bytes(bytes), text);
        }
        assert_eq!(GERMAN.speed(8_300_000), "8,3 MB/s");
    }

    #[test]
    fn places_are_filled_and_what_fills_them_is_no_place() {
        assert_eq!(fill("{n} of {m}", &[("n", "{m}"), ("m", "2")]), "{m} of 2");
        assert_eq!(fill("nothing", &[("n", "1")]), "nothing");
        assert_eq!(fill("{gone}!", &[]), "!");
    }
}
