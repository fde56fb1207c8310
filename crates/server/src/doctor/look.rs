//! Looks at this machine and says what is so; what it means is decided in [`super::judge`].
//!
//! Whatever may block is looked at apart, and each thing has its deadline: a disk that hangs keeps nobody waiting for the rest.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::timeout;

use super::Check;
use super::facts::{
    Certificate, Clock, Database, Discovery, Facts, Folder, FolderState, Ports, ProgramState, Server, Space, Torrents, Trials,
};
use super::ports;
use crate::app::size_of_tree;
use crate::config::Resolved;
use crate::config::resolved::cache_budget;
use crate::discovery::multicast_is_possible;
use crate::http::bind;
use crate::lan::{self, Addresses};
use crate::produce::trial;
pub(super) use crate::programs::ANSWER;
use crate::programs::{self, best};
use crate::spawner::Spawner;
use crate::store::{self, Soundness, Store};
use crate::trust::names::Names;
use crate::trust::{Authority, Certificates, Tls};

/// What is looked at.
#[derive(Clone)]
pub struct Place {
    /// Settings, and where everything is.
    pub config: Arc<Resolved>,
    /// What films may take, as it is asked for now.
    pub asked: u64,
    /// Starts programs in the cage.
    pub spawner: Spawner,
    /// The ffmpeg that is used.
    pub ffmpeg: PathBuf,
    /// Those that it was chosen from, where there was a choice.
    pub ffmpegs: best::Choice,
}

/// From where it is looked at.
#[derive(Clone)]
pub enum Standing {
    /// By the server that runs there.
    Within(Inside),
    /// Beside a server that answers at these ports.
    Beside {
        /// Its process.
        pid: u32,
        /// Plain HTTP and HTTPS.
        ports: bind::Ports,
    },
    /// Beside a process that should be one and does not answer.
    Silent {
        /// The process.
        pid: u32,
    },
    /// Nobody runs there.
    Alone,
}

/// What only the server itself knows.
#[derive(Clone)]
pub struct Inside {
    /// What handshakes are answered with.
    pub tls: Arc<Tls>,
    /// Where the house reaches this machine.
    pub addresses: Arc<Addresses>,
    /// Where it listens.
    pub ports: bind::Ports,
    /// How many nodes of the DHT it knows; `None` without it.
    pub nodes: Option<usize>,
    /// For how long it runs.
    pub since: Duration,
    /// What it knows of its encoders.
    pub encoders: trial::Told,
}

/// Looks at everything.
pub(super) async fn look(place: &Place, standing: &Standing) -> Facts {
    let mut facts = Facts::default();
    let programs = async {
        let (ffmpeg, ffprobe) =
            tokio::join!(programs::program(&place.spawner, &place.ffmpeg), programs::program(&place.spawner, &place.config.ffprobe));
        let (mut parts, mut trials, mut starts_in) = (None, None, None);
        if let ProgramState::Runs { path, .. } = &ffmpeg.state {
            let listed = programs::parts(&place.spawner, path).await;
            starts_in = programs::start_time(&place.spawner, path).await;
            if listed.is_ok() {
                trials = Some(trials_of(place, standing, path).await);
            }
            parts = Some(listed);
        }
        (ffmpeg, ffprobe, parts, trials, starts_in)
    };
    let (programs, cage, folders, space, database, certificate, discovery) = tokio::join!(
        programs,
        timeout(ANSWER, place.spawner.report()),
        folders(&place.config),
        apart({
            let (config, asked) = (place.config.clone(), place.asked);
            move || space(&config, asked).ok()
        }),
        apart({
            let path = place.config.data_dir.join("balcony.sqlite");
            move || {
                let aside = store::set_aside_before(&path).into_iter().next();
                Database { state: store::examine(&path), path, aside }
            }
        }),
        apart({
            let (config, standing) = (place.config.clone(), standing.clone());
            move || certificate(&config, &standing)
        }),
        apart({
            let (config, standing) = (place.config.clone(), standing.clone());
            move || discovery(&config, &standing)
        }),
    );
    let (ffmpeg, ffprobe, parts, trials, starts_in) = programs;
    (facts.starts_in, facts.choice) = (starts_in, place.ffmpegs.clone());
    (facts.ffmpeg, facts.ffprobe, facts.parts, facts.trials) = (Some(ffmpeg), Some(ffprobe), parts, trials);
    match cage {
        Ok(report) => facts.cage = Some(report.map_err(|error| error.kind().to_string())),
        Err(_) => facts.late.extend([Check::Cage]),
    }
    (facts.folders, facts.space) = (folders, space.flatten());
    let looked =
        [(Check::Database, database.is_some()), (Check::Certificate, certificate.is_some()), (Check::Discovery, discovery.is_some())];
    facts.late.extend(looked.into_iter().filter(|(_, looked)| !looked).map(|(check, _)| check));
    (facts.database, facts.certificate, facts.discovery) = (database, certificate, discovery);
    facts.server = Some(server(standing));
    facts.ports = Some(ports_of(&place.config, standing));
    facts.torrents = Some(torrents(&place.config, standing));
    let newest = match facts.database.as_ref().map(|database| &database.state) {
        Some(Soundness::Sound { newest }) => *newest,
        _ => None,
    };
    facts.clock = Some(Clock { now: Timestamp::now(), newest });
    facts
}

/// Whether films are converted: what the server knows of that already, or what can be tried from here.
async fn trials_of(place: &Place, standing: &Standing, ffmpeg: &Path) -> Trials {
    let wanted = place.config.encoder;
    let silicon = match standing {
        Standing::Within(inside) => inside.encoders.clone(),
        Standing::Alone => trial::attempt_all(&place.spawner, ffmpeg, wanted).await,
        // It says so itself.
        Standing::Beside { .. } | Standing::Silent { .. } => trial::Told { wanted, ..trial::Told::default() },
    };
    Trials { processor: programs::processor(&place.spawner, ffmpeg).await, silicon }
}

/// Does work that may block where it keeps nothing waiting. `None`: it takes too long, and is left to itself.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(ANSWER, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

/// What does not work that every stream needs: database, data folder, ffmpeg. A word for each, which tells no path.
pub async fn shortcomings(config: &Resolved, store: &Store, spawner: &Spawner, ffmpeg: &Path) -> Vec<&'static str> {
    let written = async { timeout(ANSWER, store.writable()).await.is_ok_and(|written| written.is_ok()) };
    let sound = apart({
        let path = config.data_dir.join("balcony.sqlite");
        // Locked by somebody else, it is not known to be damaged.
        move || !matches!(store::examine(&path), Soundness::Damaged(_) | Soundness::Absent)
    });
    let folder = apart({
        let path = config.data_dir.clone();
        move || matches!(state_of(&path), FolderState::Fine | FolderState::Open)
    });
    let ffmpeg = async { matches!(programs::program(spawner, ffmpeg).await.state, ProgramState::Runs { .. }) };
    let (written, sound, folder, ffmpeg) = tokio::join!(written, sound, folder, ffmpeg);
    let all = [
        (written, "the database cannot be written"),
        (sound.unwrap_or(false), "the database is damaged or gone"),
        (folder.unwrap_or(false), "the data folder cannot be written"),
        (ffmpeg, "ffmpeg cannot be run"),
    ];
    all.into_iter().filter(|(works, _)| !works).map(|(_, what)| what).collect()
}

fn server(standing: &Standing) -> Server {
    match standing {
        Standing::Within(_) => Server::Runs { pid: std::process::id() },
        Standing::Beside { pid, .. } => Server::Runs { pid: *pid },
        Standing::Silent { pid } => Server::Silent { pid: *pid },
        Standing::Alone => Server::Nobody,
    }
}

fn ports_of(config: &Resolved, standing: &Standing) -> Ports {
    match standing {
        Standing::Within(Inside { ports, .. }) | Standing::Beside { ports, .. } => Ports::Ours { http: ports.http, https: ports.https },
        Standing::Silent { .. } | Standing::Alone => {
            let tried = [(config.http_port, "http-port"), (config.https_port, "https-port")];
            Ports::Tried(tried.into_iter().map(|(number, flag)| ports::attempt(config.bind, number, flag)).collect())
        }
    }
}

fn torrents(config: &Resolved, standing: &Standing) -> Torrents {
    let nodes = match standing {
        Standing::Within(inside) => inside.nodes.map(|nodes| (nodes, inside.since)),
        _ => None,
    };
    Torrents { mock: config.mock, dht: !config.no_dht, trackers: !config.no_trackers, private: config.allow_private_peers, nodes }
}

async fn folders(config: &Resolved) -> Vec<Folder> {
    let look = async |which: &'static str, path: &PathBuf| {
        let looked = apart({
            let path = path.clone();
            move || state_of(&path)
        });
        Folder { which, path: path.clone(), state: looked.await.unwrap_or(FolderState::Silent) }
    };
    let (data, cache) = tokio::join!(look("data", &config.data_dir), look("cache", &config.cache_dir));
    vec![data, cache]
}

fn state_of(path: &Path) -> FolderState {
    let told = |error: io::Error| FolderState::Unusable(error.kind().to_string());
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => FolderState::Unusable("it is no folder".to_owned()),
        Ok(metadata) => match write_in(path) {
            Ok(()) if is_open(&metadata) => FolderState::Open,
            Ok(()) => FolderState::Fine,
            Err(error) => told(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match existing(path).map(write_in) {
            Some(Ok(())) => FolderState::Absent,
            Some(Err(error)) => told(error),
            None => told(error),
        },
        Err(error) => told(error),
    }
}

/// The folder, or the next one above it that is there.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.is_dir())
}

/// Writes a small file and takes it away again.
fn write_in(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".doctor-{}-{}", std::process::id(), data_encoding::HEXLOWER.encode(&crate::trust::random::<6>())));
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create_new(true).open(&file).and_then(|mut file| io::Write::write_all(&mut file, b"."));
    match (written, std::fs::remove_file(&file)) {
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(())) => Ok(()),
    }
}

#[cfg(unix)]
fn is_open(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open(_metadata: &std::fs::Metadata) -> bool {
    false
}

fn space(config: &Resolved, asked: u64) -> io::Result<Space> {
    let free = |folder: &Path| fs4::available_space(existing(folder).unwrap_or(folder));
    let (free, free_for_data) = (free(&config.cache_dir)?, free(&config.data_dir)?);
    let used = size_of_tree(&config.cache_dir);
    Ok(Space { free, free_for_data, used, reserve: config.reserve_bytes, asked, budget: cache_budget(asked, free, used) })
}

fn certificate(config: &Resolved, standing: &Standing) -> Certificate {
    if let Standing::Within(inside) = standing {
        return served(&inside.tls, &inside.addresses);
    }
    if let Some((cert, key)) = config.tls.clone() {
        return match Tls::open(Certificates::Files { cert, key }, Names::default()) {
            Ok(tls) => served(&tls, &Addresses::default()),
            Err(error) => Certificate::Unusable(error.to_string()),
        };
    }
    if !Authority::is_in(&config.data_dir) {
        return Certificate::ToBeMade;
    }
    // Where there is one, it is only read.
    match Authority::load_or_create(&config.data_dir, &config.name, !config.ca_unconstrained) {
        Ok(authority) => Certificate::Authority { until: timestamp(authority.until()) },
        Err(error) => Certificate::Unusable(error.to_string()),
    }
}

fn served(tls: &Tls, addresses: &Addresses) -> Certificate {
    let authority = tls.authority();
    // The user's own is made out to names.
    let should = |ip: &IpAddr| authority.is_some_and(|authority| authority.permits(*ip)) && !tls.covers(*ip);
    Certificate::Served {
        authority_until: authority.map(|authority| timestamp(authority.until())),
        until: timestamp(tls.until()),
        lacking: addresses.lasting().into_iter().filter(should).collect(),
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::MAX)
}

fn discovery(config: &Resolved, standing: &Standing) -> Discovery {
    let addresses = match standing {
        Standing::Within(inside) => inside.addresses.clone(),
        _ => Arc::new(lan::now()),
    };
    let lan = addresses.bound_to(config.bind).lan();
    Discovery {
        switched_off: config.no_mdns,
        alone: config.bind.is_some_and(|ip| ip.to_canonical().is_loopback()),
        address: lan.first().copied(),
        obstacle: multicast_is_possible(&lan).err().map(|error| error.kind().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn folders_are_told_apart() {
        use std::os::unix::fs::PermissionsExt;
        let house = tempfile::tempdir().expect("folder");
        let set = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
        set(house.path(), 0o700);
        assert_eq!(state_of(house.path()), FolderState::Fine);
        assert_eq!(state_of(&house.path().join("not/there")), FolderState::Absent);
        set(house.path(), 0o755);
        assert_eq!(state_of(house.path()), FolderState::Open);
        let file = house.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert_eq!(state_of(&file), FolderState::Unusable("it is no folder".to_owned()));
        assert!(matches!(state_of(&file.join("below")), FolderState::Unusable(_)));
        assert!(matches!(state_of(Path::new("/proc/not-there")), FolderState::Unusable(_)), "where nobody may write");
        assert_eq!(std::fs::read_dir(house.path()).expect("folder").count(), 1, "nothing is left behind");
    }
}
