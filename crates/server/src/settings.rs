//! The settings while the server runs: what they are, where each comes from, and changing them.
//!
//! A change is checked by the same rules as at the start, then written into `config.toml`, which a person may have
//! edited meanwhile and goes on editing. What can be felt at once goes out through [`Settings::live`]; the rest waits
//! for the next start, and [`Overview::restart_needed`] says so.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use balcony_media::encoder::Wanted;
use serde_json::{Map, Value as Json};
use tokio::sync::watch;

use crate::config::edited::edited;
use crate::config::listed::{Rank, SETTINGS, Setting, by_key, key_of};
use crate::config::{self, Mistakes, Resolved, Words};
use crate::lock::lock;
use crate::trust::Tls;

/// What a change of the settings reaches while the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The name of this server, as people see it.
    pub name: String,
    /// How long a new stream lives when nobody watches it.
    pub expire_after: Duration,
    /// How long a stream waits for bytes before it is given up.
    pub stall_timeout: Duration,
    /// The most that torrent data and segments may take, in bytes, before the free space is looked at.
    pub cache_max_bytes: u64,
    /// What converts the pictures of films that are opened.
    pub encoder: Wanted,
}

impl Live {
    fn of(resolved: &Resolved) -> Self {
        Self {
            name: resolved.name.clone(),
            expire_after: resolved.expire_after,
            stall_timeout: resolved.stall_timeout,
            cache_max_bytes: resolved.cache_max_bytes,
            encoder: resolved.encoder,
        }
    }

    /// Makes these the values that the server runs with.
    fn put_into(&self, running: &mut Resolved) {
        let Self { name, expire_after, stall_timeout, cache_max_bytes, encoder } = self;
        running.name.clone_from(name);
        running.expire_after = *expire_after;
        running.stall_timeout = *stall_timeout;
        running.cache_max_bytes = *cache_max_bytes;
        running.encoder = *encoder;
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nobody said anything else.
    Default,
    /// `config.toml`.
    File,
    /// An environment variable of the running server.
    Environment,
    /// A flag of the running server.
    Flag,
}

/// One setting as it is now.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub setting: &'static Setting,
    /// Its value: what the server runs with, or will after the next start.
    pub value: Json,
    /// What the server runs with, where that is another value.
    pub running: Option<Json>,
    /// What it is where nobody says anything else.
    pub default: Json,
    /// Where its value comes from.
    pub source: Source,
}

impl Entry {
    /// Whether the file has a say in it, and this rank in the file.
    pub fn is_changeable(&self, by: Rank) -> bool {
        by >= self.setting.changed_by && self.setting.is_of_the_file() && matches!(self.source, Source::Default | Source::File)
    }
}

/// All settings as they are now.
#[derive(Debug)]
pub struct Overview {
    /// Each setting, in the order in which people are shown them.
    pub entries: Vec<Entry>,
    /// Where `config.toml` stands, or will.
    pub file: PathBuf,
    /// What is wrong with the file: the server goes on with the values that it has, but would not start again.
    pub mistakes: Vec<String>,
}

impl Overview {
    /// The settings (by their names in JSON) that will be others after the next start.
    pub fn restart_needed(&self) -> Vec<&'static str> {
        self.entries.iter().filter(|entry| entry.running.is_some()).map(|entry| entry.setting.key).collect()
    }
}

/// Why settings stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Who asks may not change them: a sentence that names them.
    #[error("{0}")]
    NotYours(String),
    /// Values that make no sense: a sentence each.
    #[error("{}", .0.join(" "))]
    Invalid(Vec<String>),
    /// A flag or an environment variable says what they are, and the file has no say.
    #[error("{0}")]
    Fixed(String),
    /// The file was broken before; to write over it would lose what somebody wrote.
    #[error("{}", .0.join(" "))]
    Broken(Vec<String>),
    /// The file cannot be written.
    #[error("config.toml cannot be written: {0}.")]
    Unwritable(io::Error),
}

/// The settings of the running server.
#[derive(Debug)]
pub struct Settings {
    /// What the server runs with. Locked for as long as the file is read and written: one change at a time.
    running: Mutex<Resolved>,
    live: watch::Sender<Live>,
}

impl Settings {
    /// The settings of a server that starts with these.
    pub fn new(config: &Resolved) -> Self {
        Self { running: Mutex::new(config.clone()), live: watch::Sender::new(Live::of(config)) }
    }

    /// What takes effect at once, now and after each change.
    pub fn live(&self) -> watch::Receiver<Live> {
        self.live.subscribe()
    }

    /// All settings. Reads the file: not for a thread that must not wait.
    pub fn overview(&self) -> Overview {
        let running = lock(&self.running);
        overview(&running)
    }

    /// Changes settings by their names in JSON, for somebody of this rank; `null` is back to the default. All or nothing.
    /// Reads and writes the file: not for a thread that must not wait.
    ///
    /// # Errors
    /// Nothing was changed then.
    pub fn change(&self, asked: &Map<String, Json>, by: Rank) -> Result<Overview, Refusal> {
        permitted(asked, by)?;
        let mut running = lock(&self.running);
        let file = running.told.config_file();
        let text = read(&file).map_err(|sentence| Refusal::Broken(vec![sentence]))?;
        let (written, resolved) = changed(&running, &text, asked)?;
        check_certificate(&resolved, asked)?;
        if written != text {
            write(&file, &written).map_err(Refusal::Unwritable)?;
        }
        let live = Live::of(&resolved);
        live.put_into(&mut running);
        self.live.send_if_modified(|old| std::mem::replace(old, live.clone()) != live);
        Ok(overview(&running))
    }
}

/// Whether somebody of this rank may change all of these; what is no setting is told later.
fn permitted(asked: &Map<String, Json>, by: Rank) -> Result<(), Refusal> {
    let beyond = asked.keys().filter_map(|key| by_key(key)).filter(|setting| setting.changed_by > by);
    let keys: Vec<&str> = beyond.map(|setting| setting.key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    Err(Refusal::NotYours(format!("Only at this server's own computer can be changed: {}.", keys.join(", "))))
}

/// A certificate that is asked for is read now: the next start would fail by it, perhaps far from who could put it right.
fn check_certificate(resolved: &Resolved, asked: &Map<String, Json>) -> Result<(), Refusal> {
    let is_asked = ["tlsCert", "tlsKey"].iter().any(|key| asked.contains_key(*key));
    let Some((cert, key)) = resolved.tls.as_ref().filter(|_| is_asked) else { return Ok(()) };
    Tls::check(cert, key).map_err(|error| {
        let sentence = error.to_string();
        let mut letters = sentence.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        Refusal::Invalid(vec![first.into_iter().chain(letters).chain(['.']).collect()])
    })
}

/// The text of the file after a change, and what it comes to.
fn changed(running: &Resolved, text: &str, asked: &Map<String, Json>) -> Result<(String, Resolved), Refusal> {
    let mut mistakes = Vec::new();
    let mut changes = BTreeMap::new();
    for (key, value) in asked {
        match change(key, value) {
            Ok((setting, value)) => {
                changes.insert(setting.flag, value);
            }
            Err(sentence) => mistakes.push(sentence),
        }
    }
    let told = &running.told;
    let before = told.resolve_with(&config::from_file(text), key_of).err().map_or_else(Vec::new, |Mistakes(all)| all);
    let Ok(written) = edited(text, changes.clone()) else {
        return Err(if mistakes.is_empty() { Refusal::Broken(before) } else { Refusal::Invalid(mistakes) });
    };
    let resolved = told.resolve_with(&config::from_file(&written), key_of);
    if let Err(Mistakes(after)) = &resolved {
        mistakes.extend(after.iter().filter(|sentence| !before.contains(sentence)).cloned());
    }
    if !mistakes.is_empty() {
        return Err(Refusal::Invalid(mistakes));
    }
    let fixed: Vec<String> = changes.keys().filter_map(|flag| fixed_by(running, flag)).collect();
    if !fixed.is_empty() {
        return Err(Refusal::Fixed(fixed.join(" ")));
    }
    match resolved {
        Ok(resolved) => Ok((written, resolved)),
        Err(Mistakes(old)) => Err(Refusal::Broken(old)),
    }
}

fn change(key: &str, value: &Json) -> Result<(&'static Setting, Option<toml_edit::Value>), String> {
    let setting = by_key(key).ok_or_else(|| format!("There is no setting {}.", config::typed::quoted(key)))?;
    if !setting.is_of_the_file() {
        return Err(format!("{key} cannot be set here: the settings themselves stand there."));
    }
    let value = if value.is_null() { None } else { Some(setting.written(value)?) };
    Ok((setting, value))
}

fn fixed_by(running: &Resolved, flag: &str) -> Option<String> {
    let setting = SETTINGS.iter().find(|setting| setting.flag == flag)?;
    let by = match source(running, &Words::default(), setting) {
        Source::Flag => format!("the flag --{flag}"),
        Source::Environment => format!("the environment variable {}", setting.variable()),
        Source::File | Source::Default => return None,
    };
    Some(format!("{} was fixed at the start by {by}.", setting.key))
}

fn source(running: &Resolved, file: &Words, setting: &Setting) -> Source {
    let told = &running.told;
    let layers = [(&told.flags, Source::Flag), (&told.environment, Source::Environment), (file, Source::File)];
    let said = layers.into_iter().find(|(words, _)| words.values.contains_key(setting.flag));
    said.map_or(Source::Default, |(_, source)| source)
}

fn overview(running: &Resolved) -> Overview {
    let told = &running.told;
    let file = told.config_file();
    let words = match read(&file) {
        Ok(text) => config::from_file(&text),
        Err(sentence) => Words { mistakes: vec![sentence], ..Words::default() },
    };
    let (next, mistakes) = match told.resolve_with(&words, key_of) {
        Ok(next) => (next, Vec::new()),
        Err(Mistakes(mistakes)) => (running.clone(), mistakes),
    };
    let bare = config::Told { machine: told.machine.clone(), ..config::Told::default() };
    // Without a home folder there is no default for the folders, and nothing else either.
    let default = bare.resolve_with(&Words::default(), key_of).ok();
    let entries = SETTINGS.iter().map(|setting| {
        let (value, runs) = ((setting.value)(&next), (setting.value)(running));
        let default = default.as_ref().map_or(Json::Null, setting.value);
        Entry { setting, running: (runs != value).then_some(runs), default, source: source(running, &words, setting), value }
    });
    Overview { entries: entries.collect(), mistakes, file: std::path::absolute(&file).unwrap_or(file) }
}

/// The text of the file; empty where there is none.
fn read(file: &Path) -> Result<String, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("config.toml cannot be read: {error}.")),
    }
}

/// Writes the file aside and puts it in place all at once. A link stays one: what it leads to is written. A file that
/// is there keeps its rights, a new one is for this user only.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let target = behind_links(file)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut aside = target.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let placed = write_aside(&aside, &target, text).and_then(|()| std::fs::rename(&aside, &target));
    if placed.is_err() {
        // It may not even have been made.
        let _ = std::fs::remove_file(&aside);
    }
    placed?;
    // It is in place. Where folders cannot be synced, a power cut could bring the old one back, whole.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn behind_links(file: &Path) -> io::Result<PathBuf> {
    match file.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match std::fs::read_link(file) {
            Ok(target) => Ok(file.parent().unwrap_or(Path::new(".")).join(target)),
            Err(_) => Ok(file.to_owned()),
        },
        other => other,
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_aside(aside: &Path, target: &Path, text: &str) -> io::Result<()> {
    // Left behind by a crash, perhaps with other rights.
    if let Err(error) = std::fs::remove_file(aside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(aside)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = std::fs::metadata(target) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, fchown};
            // Only root may give a file away; for everybody else it is the right owner already.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::*;
    use crate::config::typed::Asked;
    use crate::config::{Machine, from_environment, from_file, from_flags, resolve};

    /// Settings of a server that was started like this, on a folder of its own.
    struct Den {
        folder: tempfile::TempDir,
        settings: Settings,
    }

    impl Den {
        fn new(flags: &[&str], environment: &[(&str, &str)], text: Option<&str>) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("config.toml");
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            let Asked::Run(flags) = from_flags(flags.iter().map(std::ffi::OsString::from)) else { panic!("printed") };
            let environment = from_environment(environment.iter().map(|(key, value)| (key.into(), value.into())));
            let machine = Machine {
                name: "machine".to_owned(),
                config_dir: folder.path().to_owned(),
                data_dir: "/d".into(),
                cache_dir: "/e".into(),
                cores: 4,
                ..Machine::default()
            };
            let resolved = resolve(&flags, &environment, &from_file(text.unwrap_or_default()), &machine).expect("no mistakes");
            Self { settings: Settings::new(&resolved), folder }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("config.toml")
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.file()).expect("the file")
        }

        fn change(&self, asked: Json) -> Result<Overview, Refusal> {
            self.settings.change(asked.as_object().expect("an object"), Rank::Owner)
        }

        fn refusal(&self, asked: Json) -> String {
            format!("{:?}", self.change(asked).expect_err("refused"))
        }
    }

    fn entry<'a>(overview: &'a Overview, key: &str) -> &'a Entry {
        overview.entries.iter().find(|entry| entry.setting.key == key).expect("listed")
    }

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let den = Den::new(&["--http-port", "0"], &[("BALCONY_QUEUE_LENGTH", "5")], Some("no-dht = true\nqueue-length = 9\n"));
        let overview = den.settings.overview();
        let table = [
            ("httpPort", json!(0), json!(3001), Source::Flag, false),
            ("queueLength", json!(5), json!(20), Source::Environment, false),
            ("noDht", json!(true), json!(false), Source::File, true),
            ("name", json!("machine"), json!("machine"), Source::Default, true),
            ("expireAfter", json!(86400), json!(86400), Source::Default, true),
            ("bind", json!(null), json!(null), Source::Default, true),
            ("configDir", json!(den.folder.path()), json!(den.folder.path()), Source::Default, false),
        ];
        for (key, value, default, source, changeable) in table {
            let entry = entry(&overview, key);
            assert_eq!((&entry.value, &entry.default, entry.source), (&value, &default, source), "{key}");
            assert_eq!((entry.is_changeable(Rank::Owner), &entry.running), (changeable, &None), "{key}");
        }
        assert_eq!((overview.restart_needed(), overview.mistakes, overview.file), (vec![], vec![], den.file()));
    }

    #[test]
    fn a_change_is_written_and_felt() {
        let den = Den::new(&[], &[], Some("# mine\nhttp-port = 1 # one\n"));
        let live = den.settings.live();
        let overview = den.change(json!({ "name": "Studio", "httpPort": 2, "expireAfter": "12h" })).expect("changed");
        assert_eq!(den.text(), "# mine\nhttp-port = 2 # one\nexpire-after = \"12h\"\nname = \"Studio\"\n");
        assert_eq!((live.borrow().name.as_str(), live.has_changed().ok()), ("Studio", Some(true)));
        let (name, port) = (entry(&overview, "name"), entry(&overview, "httpPort"));
        assert_eq!((&name.value, &name.running, name.source), (&json!("Studio"), &None, Source::File));
        assert_eq!((&port.value, &port.running), (&json!(2), &Some(json!(1))));
        assert_eq!(overview.restart_needed(), ["httpPort"]);
        assert_eq!(live.borrow().expire_after, Duration::from_secs(43_200));

        let overview = den.change(json!({ "name": null, "httpPort": 1, "expireAfter": null })).expect("changed back");
        assert_eq!(den.text(), "# mine\nhttp-port = 1 # one\n");
        assert_eq!(live.borrow().name, "machine");
        assert_eq!(overview.restart_needed(), [""; 0]);
    }

    #[test]
    fn every_setting_that_is_felt_at_once_runs_with_its_new_value() {
        use crate::config::listed::Effect;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_string_lossy().into_owned();
        let [cert, key] = pair(folder.path(), "a", 2100);
        let port = |key: &str| if key == "httpsPort" { json!(7001) } else { json!(7002) };
        let mut asked = Map::new();
        for setting in SETTINGS.iter().filter(|setting| setting.is_of_the_file()) {
            use crate::config::listed::Kind;
            let value = match (setting.key, setting.kind) {
                ("tlsCert", _) => json!(cert),
                ("tlsKey", _) => json!(key),
                ("bind", _) => json!("192.168.7.7"),
                ("log", _) => json!("debug"),
                ("encoder", _) => json!("nvenc"),
                ("peers", _) => json!(["192.168.7.7:7"]),
                ("corsOrigins", _) => json!(["https://app.example"]),
                (_, Kind::Text) => json!("seven"),
                (_, Kind::Folder | Kind::File) => json!(path),
                ("httpPort" | "httpsPort", _) => port(setting.key),
                (_, Kind::Number | Kind::Size | Kind::Time) => json!(777),
                (_, Kind::Switch) => json!(true),
                (_, Kind::List) => json!(["seven.example"]),
            };
            asked.insert(setting.key.to_owned(), value);
        }
        let den = Den::new(&[], &[], None);
        let overview = den.settings.change(&asked, Rank::Owner).expect("changed");
        for entry in overview.entries.iter().filter(|entry| entry.setting.is_of_the_file()) {
            let key = entry.setting.key;
            assert_eq!(Some(&entry.value), asked.get(key), "{key}");
            assert_eq!(entry.running.is_none(), entry.setting.effect == Effect::Now, "{key}");
        }
    }

    #[test]
    fn all_mistakes_at_once_and_nothing_is_changed() {
        let text = "name = \"Den\"\n";
        let den = Den::new(&[], &[], Some(text));
        let asked = json!({
            "name": "", "colour": "red", "http-port": 1, "httpPort": 70000, "noDht": "yes", "peers": ["x"], "tlsCert": "/c",
            "configDir": "/x", "expireAfter": 0, "cacheMaxBytes": -1, "log": "a=b=c", "bind": "lan",
        });
        let Err(Refusal::Invalid(mut mistakes)) = den.change(asked) else { panic!("accepted") };
        mistakes.sort();
        assert_eq!(
            mistakes,
            [
                "There is no setting \"colour\".",
                "There is no setting \"http-port\".",
                "bind wants an IP address, not \"lan\".",
                "cacheMaxBytes wants a size such as 500MB, 20GiB or a number of bytes, not \"-1\".",
                "configDir cannot be set here: the settings themselves stand there.",
                "expireAfter wants a time such as 90s, 10m or 24h, not \"0s\".",
                "httpPort wants a number from 0 to 65535, not \"70000\".",
                "log wants a level or a list of target=level, not \"a=b=c\".",
                "name wants a name of 1 to 60 characters, not \"\".",
                "noDht wants true or false, not \"yes\".",
                "peers wants an address and a port such as 192.168.1.5:6881, not \"x\".",
                "tlsCert and tlsKey belong together: one of them is missing.",
            ]
        );
        assert_eq!(den.text(), text);
        assert_eq!(den.settings.live().borrow().name, "Den");
    }

    /// A certificate that ends in this year, and its key, in files.
    fn pair(folder: &Path, name: &str, until: i32) -> [PathBuf; 2] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a host");
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(until, 1, 1));
        let files = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        std::fs::write(&files[0], params.self_signed(&key).expect("signed").pem()).expect("written");
        std::fs::write(&files[1], key.serialize_pem()).expect("written");
        files
    }

    #[test]
    fn a_certificate_is_read_before_it_is_taken() {
        let den = Den::new(&[], &[], None);
        let [cert, key] = pair(den.folder.path(), "good", 2100);
        let [_, other] = pair(den.folder.path(), "other", 2100);
        let [old, old_key] = pair(den.folder.path(), "old", 2001);
        let nothing = den.folder.path().join("nothing");
        for (cert, key, flaw) in [
            (&cert, &other, "the key does not belong to this certificate."),
            (&cert, &nothing, "the key cannot be read: No such file or directory (os error 2)."),
            (&old, &old_key, "it expired on 2001-01-01."),
        ] {
            let Err(Refusal::Invalid(said)) = den.change(json!({ "tlsCert": cert, "tlsKey": key, "name": "x" })) else { panic!("{flaw}") };
            assert!(said.len() == 1 && said[0].starts_with("The certificate ") && said[0].ends_with(flaw), "{said:?}");
            assert!(!den.file().exists());
        }
        den.change(json!({ "tlsCert": cert, "tlsKey": key })).expect("taken");
        // What went bad meanwhile is in the way of nothing else, nor of taking it back.
        std::fs::remove_file(&cert).expect("gone");
        den.change(json!({ "name": "x" })).expect("changed");
        assert!(den.refusal(json!({ "tlsCert": cert })).contains("cannot be read"));
        den.change(json!({ "tlsCert": null, "tlsKey": null })).expect("taken back");
    }

    #[test]
    fn what_is_the_owners_no_other_device_changes() {
        let den = Den::new(&[], &[], Some("queue-length = 1\n"));
        let change = |asked: Json| den.settings.change(asked.as_object().expect("an object"), Rank::Admin);
        for setting in SETTINGS.iter().filter(|setting| setting.changed_by == Rank::Owner) {
            // Taking back is a change, and a wrong value does not tell what a right one would have.
            for value in [Json::Null, json!({ "odd": 1 })] {
                let Err(Refusal::NotYours(said)) = change(json!({ "name": "x", setting.key: value })) else { panic!("{}", setting.key) };
                assert_eq!(said, format!("Only at this server's own computer can be changed: {}.", setting.key));
            }
        }
        let Err(Refusal::NotYours(said)) = change(json!({ "ffmpeg": "/x", "log": "trace", "queueLength": 3 })) else { panic!("changed") };
        assert!(said.contains("ffmpeg") && said.contains("log") && !said.contains("queueLength"), "{said}");
        assert_eq!(den.text(), "queue-length = 1\n");
        let overview = change(json!({ "name": "x", "queueLength": 3, "expireAfter": "1h", "cacheMaxBytes": "5GiB" })).expect("changed");
        for entry in overview.entries.iter().filter(|entry| entry.setting.is_of_the_file()) {
            assert!(entry.is_changeable(Rank::Owner), "{}", entry.setting.key);
            assert_eq!(entry.is_changeable(Rank::Admin), entry.setting.changed_by == Rank::Admin, "{}", entry.setting.key);
        }
    }

    #[test]
    fn what_was_fixed_at_the_start_stays() {
        let den = Den::new(&["--http-port", "0"], &[("BALCONY_NAME", "Den")], None);
        assert_eq!(
            den.refusal(json!({ "name": "x", "httpPort": 1, "queueLength": 2 })),
            "Fixed(\"httpPort was fixed at the start by the flag --http-port. name was fixed at the start by the environment variable BALCONY_NAME.\")"
        );
        assert!(den.refusal(json!({ "name": null })).starts_with("Fixed"));
        assert!(!den.file().exists());
    }

    #[test]
    fn a_file_that_is_broken_is_left_alone() {
        let den = Den::new(&[], &[], None);
        let broken: [&[u8]; 4] = [b"name = \n", b"colour = 1\n", b"http-port = 70000\n", b"name = \"\xff\"\n"];
        for text in broken {
            std::fs::write(den.file(), text).expect("written");
            assert!(den.refusal(json!({ "name": "x" })).starts_with("Broken"), "{text:?}");
            assert_eq!(std::fs::read(den.file()).expect("there"), text);
            let overview = den.settings.overview();
            assert_eq!(overview.mistakes.len(), 1, "{:?}", overview.mistakes);
            assert_eq!((overview.restart_needed(), &entry(&overview, "name").value), (vec![], &json!("machine")));
        }
        // What a change puts right is no obstacle to it.
        std::fs::write(den.file(), "http-port = 70000 # oh\n").expect("written");
        den.change(json!({ "httpPort": 7000 })).expect("changed");
        assert_eq!(den.text(), "http-port = 7000 # oh\n");
    }

    #[test]
    fn what_was_written_by_hand_meanwhile_is_kept() {
        let den = Den::new(&[], &[], Some("queue-length = 1\n"));
        std::fs::write(den.file(), "# by hand\nqueue-length = 2\nname = \"Hand\"\n").expect("written");
        assert_eq!(den.settings.overview().restart_needed(), ["name", "queueLength"]);
        let overview = den.change(json!({ "noDht": true })).expect("changed");
        assert_eq!(den.text(), "# by hand\nqueue-length = 2\nname = \"Hand\"\nno-dht = true\n");
        assert_eq!(overview.restart_needed(), ["queueLength", "noDht"]);
        assert_eq!(den.settings.live().borrow().name, "Hand");
    }

    #[test]
    fn nothing_to_change_writes_nothing() {
        let den = Den::new(&[], &[], None);
        den.change(json!({})).expect("fine");
        den.change(json!({ "name": null })).expect("fine");
        assert!(!den.file().exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_rights() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let den = Den::new(&[], &[], None);
        den.change(json!({ "name": "x" })).expect("changed");
        assert_eq!(mode(&den.file()), 0o600);
        std::fs::set_permissions(den.file(), std::fs::Permissions::from_mode(0o640)).expect("opened");
        den.change(json!({ "name": "y" })).expect("changed");
        assert_eq!(mode(&den.file()), 0o640);
        assert_eq!(std::fs::read_dir(den.folder.path()).expect("folder").count(), 1, "something was left behind");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_stays() {
        let den = Den::new(&[], &[], None);
        let elsewhere = tempfile::tempdir().expect("a folder");
        let target = elsewhere.path().join("deep/balcony.toml");
        std::os::unix::fs::symlink(&target, den.file()).expect("linked");
        for name in ["first", "second"] {
            den.change(json!({ "name": name })).expect("changed");
            assert_eq!(std::fs::read_to_string(&target).expect("written through"), format!("name = \"{name}\"\n"));
            assert!(std::fs::symlink_metadata(den.file()).expect("there").is_symlink());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_missing_is_made_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b");
        let den = Den::new(&["--config-dir", &path.to_string_lossy()], &[], None);
        den.change(json!({ "name": "x" })).expect("changed");
        assert_eq!(std::fs::read_to_string(path.join("config.toml")).expect("there"), "name = \"x\"\n");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_said() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let den = Den::new(&["--config-dir", &file.path().to_string_lossy()], &[], None);
        // A file where the folder should be: it cannot even be looked into.
        assert!(matches!(den.change(json!({ "name": "x" })), Err(Refusal::Broken(_) | Refusal::Unwritable(_))));
    }

    #[test]
    fn changes_at_the_same_time_all_arrive() {
        let den = Den::new(&[], &[], None);
        let changes = [
            json!({ "name": "x" }),
            json!({ "queueLength": 7 }),
            json!({ "noDht": true }),
            json!({ "httpPort": 8 }),
            json!({ "peers": ["1.2.3.4:5"] }),
            json!({ "expireAfter": "1h" }),
        ];
        std::thread::scope(|scope| {
            for change in &changes {
                scope.spawn(|| den.change(change.clone()).expect("changed"));
            }
        });
        let overview = den.settings.overview();
        for (key, value) in changes.iter().flat_map(|change| change.as_object().expect("an object")) {
            let expected = if key == "expireAfter" { &json!(3600) } else { value };
            assert_eq!(&entry(&overview, key).value, expected, "{key}");
        }
    }

    /// A change of one setting, and its value afterwards.
    fn a_change() -> impl Strategy<Value = (&'static str, Json, Json)> {
        let switches = proptest::sample::select(vec!["noDht", "noTrackers", "noMdns", "allowPrivatePeers", "caUnconstrained"]);
        let times = proptest::sample::select(vec!["expireAfter", "metadataTimeout", "stallTimeout"]);
        let sizes = proptest::sample::select(vec!["cacheMaxBytes", "reserveBytes"]);
        prop_oneof![
            "[ -~äß]{0,58}[!-~]".prop_map(|name| ("name", json!(name), json!(name.trim()))),
            (switches, any::<bool>()).prop_map(|(key, on)| (key, json!(on), json!(on))),
            (times.clone(), 1u32..1_000_000).prop_map(|(key, n)| (key, json!(format!("{n}m")), json!(u64::from(n) * 60))),
            (times, 1u32..1_000_000).prop_map(|(key, n)| (key, json!(n), json!(n))),
            (sizes.clone(), any::<u32>()).prop_map(|(key, n)| (key, json!(format!("{n} KiB")), json!(u64::from(n) << 10))),
            (sizes, 0..i64::MAX).prop_map(|(key, n)| (key, json!(n), json!(n))),
            (0..10_000u16).prop_map(|n| ("queueLength", json!(n), json!(n))),
            proptest::collection::btree_set(1..9999u16, 0..5).prop_map(|ports| {
                let peers: Vec<String> = ports.iter().map(|port| format!("10.0.0.1:{port}")).collect();
                ("peers", json!(peers), json!(peers))
            }),
            "[a-z0-9/ #\"'\\\\=-]{1,20}".prop_map(|path| ("cacheDir", json!(path), json!(path))),
        ]
    }

    proptest! {
        #[test]
        fn what_was_asked_is_what_is_read_at_the_next_start(changes in proptest::collection::vec(a_change(), 1..12)) {
            let den = Den::new(&[], &[], Some("# top\npeer = [\n  \"10.0.0.1:7\", # attic\n]\n# end\n"));
            let mut expected = BTreeMap::new();
            for (key, value, read) in changes {
                let asked = Map::from_iter([(key.to_owned(), value)]);
                prop_assert!(den.settings.change(&asked, Rank::Owner).is_ok(), "{asked:?}");
                expected.insert(key, read);
            }
            let told = den.settings.running.lock().expect("unlocked").told.clone();
            let next = told.resolve_with(&from_file(&den.text()), key_of).expect("no mistakes");
            for (key, read) in expected {
                prop_assert_eq!((by_key(key).expect("listed").value)(&next), read, "{}", key);
            }
            prop_assert!(den.text().starts_with("# top\n") && den.text().contains("# end\n"));
        }
    }
}
