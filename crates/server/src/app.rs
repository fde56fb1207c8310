//! Wires the parts, says when they are ready, and stops them in order. Decides nothing else.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::FromRef;
use balcony_media::magnet::Magnet;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use crate::budget::{Budget, KEPT_AFTER_USE, Terms};
use crate::config::{Command, Resolved};
use crate::data_dir::{DataDir, Run, make_private};
use crate::doctor::Examinations;
use crate::download::Downloads;
use crate::heap::Heap;
use crate::history::History;
use crate::http::base::Base;
use crate::http::bind::{self, Doors, Ports};
use crate::http::health::Health;
use crate::http::listener::{self, Connections, Entrance, Speech};
use crate::http::rate::Limits;
use crate::http::{self, Door};
use crate::lan::Addresses;
use crate::loopback::Loopback;
use crate::mock::Mock;
use crate::presence::Presence;
use crate::produce::Workshop;
use crate::produce::encode::{Patience, Tools};
use crate::produce::filters::Filters;
use crate::produce::pace::Paced;
use crate::produce::trial::{self, Choice};
use crate::programs::best;
use crate::sample::Sample;
use crate::segments::SegmentStore;
use crate::settings::{Live, Settings};
use crate::spawner::Spawner;
use crate::store::{Rescue, Store};
use crate::stream::lives::{self, Lives};
use crate::stream::queue::Limits as QueueLimits;
use crate::stream::state::State;
use crate::stream::{Ground, Options, Streams};
use crate::swarm::Swarm;
use crate::tasks::Tasks;
use crate::torrent::{TorrentConfig, Torrents};
use crate::trust::pairing::Pairings;
use crate::trust::token::{admin_token, admin_token_file};
use crate::trust::{DeviceId, Devices, StreamId, TicketKeys, Tls, Token};
use crate::{awake, logging, notify};

/// How long running requests may take to end, and everything else after them.
const REQUESTS_END: Duration = Duration::from_secs(3);
const TASKS_END: Duration = Duration::from_secs(3);
/// How many streams of one person may wait at once.
const PER_PERSON: usize = 5;
/// How often the disk is looked at.
const BUDGET_PACE: Duration = Duration::from_secs(2);

/// What everybody is told once.
pub const NOTICE: &str = "\
This is your own server. It fetches and shares what you ask it for, through the BitTorrent network, from your address.
Share only what you may: you are responsible for it, not the makers of this program.";

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// What was asked for at the start.
    pub config: Arc<Resolved>,
    /// What of it can be changed while the server runs, and is.
    pub settings: Arc<Settings>,
    /// What health answers are made of.
    pub health: Health,
    /// What survives a restart.
    pub store: Arc<Store>,
    /// The devices of the house and whose they are.
    pub devices: Arc<Devices>,
    /// The group of everything that runs behind the door.
    pub tasks: Tasks,
    /// All streams.
    pub streams: Arc<Streams>,
    /// The sample film, once somebody asked for it.
    pub samples: Arc<OnceCell<Sample>>,
    /// How often and how much at once.
    pub limits: Arc<Limits>,
    /// The pairing offers.
    pub pairings: Arc<Pairings>,
    /// What handshakes are answered with.
    pub tls: Arc<Tls>,
    /// Where the house reaches this machine, best for a phone first.
    pub addresses: watch::Receiver<Arc<Addresses>>,
    /// Where this server listens.
    pub ports: Ports,
    /// What was found when somebody last asked whether all is well.
    pub examinations: Arc<Examinations>,
    /// The ffmpegs that the one that is used was chosen from, where there was a choice.
    pub ffmpegs: best::Choice,
}

impl App {
    /// The sample film, made and seeded when it is asked for first.
    ///
    /// # Errors
    /// When ffmpeg cannot make it or it cannot be seeded.
    pub async fn sample(&self) -> anyhow::Result<&Sample> {
        let (torrents, tools) = (&self.streams.ground().torrents, &self.streams.ground().workshop.tools);
        self.samples.get_or_try_init(|| Sample::open(&tools.spawner, &tools.ffmpeg, &self.config.data_dir, torrents)).await
    }
}

impl FromRef<App> for Arc<Devices> {
    fn from_ref(app: &App) -> Self {
        app.devices.clone()
    }
}

impl FromRef<App> for Arc<Limits> {
    fn from_ref(app: &App) -> Self {
        app.limits.clone()
    }
}

impl FromRef<App> for Arc<Streams> {
    fn from_ref(app: &App) -> Self {
        app.streams.clone()
    }
}

/// What a program that hosts the server needs to ask it things.
#[derive(Debug, Clone)]
pub struct Listening {
    /// Where the whole API is, in plain HTTP.
    pub http: SocketAddr,
    /// A token of the owner's, made for this run: it stands in no file.
    pub owner: Token,
}

/// What runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosting {
    /// Nothing else: it looks after the machine itself.
    Alone,
    /// A program with a window, which keeps the machine awake where its user wants that.
    Window,
}

/// Runs the server until `stop` completes, then stops it in order. `listening` is told once where it is reached.
///
/// # Errors
/// When it cannot start: one sentence with its reasons.
pub async fn run(
    config: Resolved,
    hosting: Hosting,
    listening: impl FnOnce(Listening),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let mut data = DataDir::take(&config.data_dir)?;
    let logging = logging::start(data.path(), config.log.as_deref()).context("the log file cannot be opened")?;
    make_private(&config.cache_dir).with_context(|| format!("the cache folder {} cannot be used", config.cache_dir.display()))?;
    let admin = admin_token(data.path()).context("the admin token cannot be read")?;
    let keys = TicketKeys::load(data.path(), jiff::Timestamp::now()).context("the ticket keys cannot be read")?;
    let store = Arc::new(Store::open(&data.path().join("balcony.sqlite"))?);
    if let Some(Rescue { aside, reason, copy_of }) = store.rescue() {
        let (aside, copy_of) = (aside.display(), copy_of.map_or_else(|| "none was to be had".to_owned(), |at| at.to_string()));
        tracing::error!(%aside, reason, copy_of, "the database was damaged: it was set aside, and a copy takes its place");
    }
    let (server_id, _) = store.fact("server_id", StreamId::random().to_string()).await?;
    let devices = Devices::open(store.clone(), &admin).await?;
    let history = History::open(store.clone()).await?;
    let owner = devices.token_of_this_run();
    show_notice(&store).await?;

    let settings = Arc::new(Settings::new(&config));
    let presence = Presence::open(&config, data.path(), &settings, &server_id)?;
    let sockets = bind::bind(config.bind, config.http_port, config.https_port)?;
    let (http, https) = (sockets.http_address, sockets.https_address);
    let ports = Ports { http: http.port(), https: https.port() };

    let tasks = Tasks::new();
    let (doors, behind) = (tasks.child("http"), tasks.child("app"));
    let health = Health::new(settings.live(), &server_id);
    let limits = Arc::new(Limits::default());
    let door = Door { hosts: presence.hosts(&config), devices: devices.clone(), ports, limits: limits.clone() };
    let config = Arc::new(config);
    let budget = budget(&config);
    let (workshop, ffmpegs) = workshop(&config, budget.clone(), settings.live(), &behind).await?;
    let torrents = tokio::select! {
        opened = swarm(&config, &budget, &workshop) => Arc::new(opened?),
        // Making the mock's film takes seconds.
        () = &mut stop => return Ok(()),
    };
    let ground = Ground {
        torrents: torrents.clone(),
        workshop,
        store: store.clone(),
        history: history.clone(),
        tasks: behind.clone(),
        closing: doors.stopping(),
        keys,
        devices: devices.clone(),
        live: settings.live(),
        lives: Lives::of_this_program(),
        downloads: Downloads::open(&config.cache_dir.join("kept"), budget.clone(), behind.clone())
            .context("the folder of films to keep cannot be used")?,
        limits: QueueLimits { per_device: config.max_streams_per_device, waiting: config.queue_length, per_person: PER_PERSON },
        heap: Arc::<Heap>::default(),
    };
    let heap = ground.heap.clone();
    let streams = Streams::new(Arc::new(ground));
    streams.restore().await?;
    behind.spawn_ending("last seen", |stopping| devices.clone().tend(stopping));
    behind.spawn_ending("history", |stopping| history.tend(stopping));
    if hosting == Hosting::Alone {
        behind.spawn("awake", awake::keep(streams.clone()));
    }
    behind.spawn_ending("copies", |stopping| store.clone().tend_copies(stopping));
    behind.spawn_ending("streams that are over", |stopping| streams.clone().tend_over(stopping));
    behind.spawn_ending("ticket keys", |stopping| streams.clone().tend_keys(stopping));
    behind.spawn_ending("heap", |stopping| async move { heap.tend(stopping).await });
    behind.spawn_ending("budget", |stopping| keep_budget(budget, torrents.clone(), settings.live(), stopping));
    let app = App {
        config: config.clone(),
        settings,
        health: health.clone(),
        store,
        devices,
        tasks: behind.clone(),
        streams,
        samples: Arc::default(),
        limits,
        pairings: Arc::default(),
        tls: presence.tls.clone(),
        addresses: presence.addresses.clone(),
        ports,
        examinations: Arc::default(),
        ffmpegs,
    };
    answer(sockets, http::open(door, app.clone()), &presence.tls, &doors);

    // Before it is announced: whoever reads the line may ask at once.
    health.set_ready(true);
    announce(&mut data, http, https)?;
    notify::tell(notify::READY);
    listening(Listening { http, owner });
    presence.keep(ports, !config.no_mdns, &behind);
    tokio::select! {
        shown = show_sample(&app, http) => {
            shown?;
            stop.await;
        }
        () = &mut stop => {}
    }

    health.set_ready(false);
    tracing::info!("stopping");
    notify::tell(notify::STOPPING);
    doors.end(REQUESTS_END).await;
    // Streams first: to them, torrents that are closed have failed, and that would be written down.
    behind.end(TASKS_END).await;
    torrents.close().await;
    tasks.end(TASKS_END).await;
    tracing::info!("stopped");
    drop(data);
    drop(logging);
    Ok(())
}

/// Answers at every socket, each in the way that is spoken there.
fn answer(sockets: Doors, router: Router, tls: &Tls, tasks: &Tasks) {
    let connections = Connections::default();
    let plain = sockets.http.into_iter().map(|listener| (listener, Speech::Plain));
    let secure = sockets.https.into_iter().map(|listener| (listener, Speech::tls(tls.server_config())));
    for (listener, speech) in plain.chain(secure) {
        listener::serve(listener, speech, router.clone(), &connections, tasks);
    }
}

/// Where torrents come from: with `--mock` from nowhere.
async fn swarm(config: &Resolved, budget: &Arc<Budget>, workshop: &Workshop) -> anyhow::Result<Swarm> {
    if config.mock {
        tracing::warn!(speed = config.mock_speed, "this is the mock: every magnet is a film of our own, and nothing is fetched");
        let mock = Mock::open(&workshop.tools.spawner, &workshop.tools.ffmpeg, &config.data_dir, config.mock_speed);
        return Ok(Swarm::Mock(mock.await?));
    }
    let torrents = Torrents::open(torrent_config(config, budget)).await;
    Ok(Swarm::Peers(torrents.context("the torrent engine cannot start")?))
}

fn torrent_config(config: &Resolved, budget: &Arc<Budget>) -> TorrentConfig {
    TorrentConfig {
        peers: config.peers.clone(),
        allow_private_peers: config.allow_private_peers,
        dht: !config.no_dht,
        trackers: !config.no_trackers,
        metadata_timeout: config.metadata_timeout,
        budget: Some(budget.clone()),
        ..TorrentConfig::new(torrents_dir(config))
    }
}

async fn workshop(
    config: &Resolved,
    budget: Arc<Budget>,
    live: watch::Receiver<Live>,
    tasks: &Tasks,
) -> anyhow::Result<(Arc<Workshop>, best::Choice)> {
    let own = std::env::current_exe().context("the program's own path is unknown")?;
    let spawner = Spawner::start(own).context("no thread for child processes")?;
    let (ffmpeg, ffmpegs) = best::choose(&spawner, &config.ffmpeg, &config.data_dir.join(best::FILE), true).await;
    let tools = Tools {
        spawner,
        loopback: Loopback::start(tasks).await.context("no loopback listener for ffmpeg")?,
        choice: Choice::open(config.data_dir.join("encoder.json"), &ffmpeg, live),
        ffmpeg,
        ffprobe: config.ffprobe.clone(),
        filters: Filters::default(),
        tasks: tasks.clone(),
        patience: Patience::default(),
    };
    tasks.spawn("trial", tell_cage(tools.clone()));
    let folder = config.cache_dir.join("segments");
    let segments = SegmentStore::open(&folder, budget).with_context(|| format!("{} cannot be used", folder.display()))?;
    let pace = Paced::open(config.data_dir.join("pace.json"), &tools.ffmpeg);
    let workshop = Workshop::new(tools, segments, config.max_productions, pace);
    tasks.spawn_ending("encoders", |stopping| trial::keep(workshop.clone(), stopping));
    Ok((workshop, ffmpegs))
}

/// One line in the log about what holds ffmpeg on this machine, and one for each thing that is missing.
async fn tell_cage(tools: Tools) {
    match tools.spawner.report().await {
        Ok(report) => {
            tracing::info!("cage: {report}");
            report.missing().into_iter().for_each(|sentence| tracing::warn!("{sentence}"));
        }
        Err(error) => tracing::warn!(%error, "the cage around ffmpeg could not be tried"),
    }
    if !tools.loopback.knows_its_readers().await {
        tracing::warn!(
            "This system does not tell which process a connection belongs to: a film's address is protected by its secret alone."
        );
    }
}

fn torrents_dir(config: &Resolved) -> PathBuf {
    config.cache_dir.join("torrents")
}

fn budget(config: &Resolved) -> Arc<Budget> {
    let (asked, reserve) = (config.cache_max_bytes, config.reserve_bytes);
    let keep = lives::for_tests("TEST_FILM_KEPT_MS").unwrap_or(KEPT_AFTER_USE);
    Budget::open(&Torrents::films_in(&torrents_dir(config)), Terms { asked, only_half: true, reserve, keep })
}

/// Looks at the disk now and then: others fill it too, and somebody may ask for another budget.
async fn keep_budget(budget: Arc<Budget>, torrents: Arc<Swarm>, mut live: watch::Receiver<Live>, stopping: CancellationToken) {
    while tokio::time::timeout(BUDGET_PACE, stopping.cancelled()).await.is_err() {
        budget.ask_for(live.borrow_and_update().cache_max_bytes);
        torrents.level().await;
    }
}

/// Bytes that the files under a folder take on the disk. What cannot be looked at counts nothing.
pub(crate) fn size_of_tree(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of_tree(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Makes and seeds the sample film, if that was asked for, and with `--sample` streams it to the owner.
#[allow(clippy::print_stdout, reason = "the addresses that were asked for")]
async fn show_sample(app: &App, http: SocketAddr) -> anyhow::Result<()> {
    let (stream_it, seed_it) = (app.config.sample, app.config.command == Command::Sample);
    if !stream_it && !seed_it {
        return Ok(());
    }
    let link = app.sample().await?.link();
    println!("magnet {link}");
    if stream_it {
        let magnet = Magnet::parse(&link).context("the sample's magnet is not one")?;
        let owner = app.devices.holder(&DeviceId::owner()).context("the owner's own record is missing")?;
        let (stream, _) = app.streams.start(&owner, magnet, Options::default())?;
        let mut changes = stream.changes();
        changes.wait_for(|seen| seen.state.is_over() || matches!(seen.state, State::Ready { .. })).await?;
        let view = stream.view(Base::of(Entrance::Loopback, &http.to_string()).as_str(), &owner);
        match stream.state() {
            State::Ready { .. } => println!("playable {}", view.stream_url.unwrap_or_default()),
            _ => println!("not playable: {}", view.message),
        }
    }
    Ok(())
}

async fn show_notice(store: &Store) -> anyhow::Result<()> {
    let (_, first) = store.fact("notice_shown", jiff::Timestamp::now().to_string()).await?;
    if first {
        eprintln!("{NOTICE}");
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the line that says that the server is ready")]
fn announce(data: &mut DataDir, http: SocketAddr, https: SocketAddr) -> anyhow::Result<()> {
    let admin_token_file = admin_token_file(data.path());
    data.announce(&Run { pid: std::process::id(), http, https, admin_token_file }).context("run.json cannot be written")?;
    println!("listening http={http} https={https}");
    tracing::info!(%http, %https, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(())
}
