//! Wires the parts, says when they are ready, and stops them in order. Decides nothing else.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::FromRef;
use balcony_media::magnet::Magnet;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::config::resolved::cache_budget;
use crate::config::{Command, Resolved};
use crate::data_dir::{DataDir, Run, make_private};
use crate::http::base::Base;
use crate::http::bind::{self, Doors, Ports};
use crate::http::health::Health;
use crate::http::host::Hosts;
use crate::http::listener::{self, Connections, Entrance, Speech};
use crate::http::rate::Limits;
use crate::http::{self, Door};
use crate::lan::machine_name;
use crate::logging;
use crate::loopback::Loopback;
use crate::produce::Workshop;
use crate::produce::encode::{Patience, Tools};
use crate::sample::Sample;
use crate::segments::SegmentStore;
use crate::settings::Settings;
use crate::spawner::Spawner;
use crate::store::Store;
use crate::stream::state::State;
use crate::stream::{Ground, Options, Streams};
use crate::tasks::Tasks;
use crate::torrent::{TorrentConfig, Torrents};
use crate::trust::token::{admin_token, admin_token_file};
use crate::trust::{DeviceId, Devices, StreamId, TicketKeys};

/// How long running requests may take to end, and everything else after them.
const REQUESTS_END: Duration = Duration::from_secs(3);
const TASKS_END: Duration = Duration::from_secs(3);
/// How often the budget is shared anew.
const BUDGET_PACE: Duration = Duration::from_secs(2);

const NOTICE: &str = "\
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
}

impl App {
    /// The sample film, made and seeded when it is asked for first.
    ///
    /// # Errors
    /// When ffmpeg cannot make it or it cannot be seeded.
    pub async fn sample(&self) -> anyhow::Result<&Sample> {
        let (torrents, spawner) = (&self.streams.ground().torrents, &self.streams.ground().workshop.tools.spawner);
        self.samples.get_or_try_init(|| Sample::open(spawner, &self.config.ffmpeg, &self.config.data_dir, torrents)).await
    }
}

impl FromRef<App> for Arc<Devices> {
    fn from_ref(app: &App) -> Self {
        app.devices.clone()
    }
}

impl FromRef<App> for Arc<Streams> {
    fn from_ref(app: &App) -> Self {
        app.streams.clone()
    }
}

/// Runs the server until `stop` completes, then stops it in order. `listening` is told once where it is reached.
///
/// # Errors
/// When it cannot start: one sentence with its reasons.
pub async fn run(config: Resolved, listening: impl FnOnce(SocketAddr), stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let mut data = DataDir::take(&config.data_dir)?;
    let logging = logging::start(data.path(), config.log.as_deref()).context("the log file cannot be opened")?;
    make_private(&config.cache_dir).with_context(|| format!("the cache folder {} cannot be used", config.cache_dir.display()))?;
    let admin = admin_token(data.path()).context("the admin token cannot be read")?;
    let keys = TicketKeys::load(data.path(), jiff::Timestamp::now()).context("the ticket keys cannot be read")?;
    let store = Arc::new(Store::open(&data.path().join("balcony.sqlite"))?);
    let (server_id, _) = store.fact("server_id", StreamId::random().to_string()).await?;
    let devices = Devices::open(store.clone(), &admin).await?;
    show_notice(&store).await?;

    let Doors { http: plain, http_address: http, https, https_address } = bind::bind(config.bind, config.http_port, config.https_port)?;
    // Nobody speaks TLS yet.
    drop(https);

    let tasks = Tasks::new();
    let (doors, behind) = (tasks.child("http"), tasks.child("app"));
    let machine = machine_name();
    let settings = Arc::new(Settings::new(&config));
    let health = Health::new(settings.live(), &server_id);
    let limits = Arc::new(Limits::default());
    let door = Door {
        hosts: Hosts::new(machine.as_deref(), &config.host_names, &config.cors_origins),
        devices: devices.clone(),
        ports: Ports { http: http.port(), https: https_address.port() },
        limits: limits.clone(),
    };
    let config = Arc::new(config);
    let free = fs4::available_space(&config.cache_dir).context("the free space of the cache folder is unknown")?;
    let budget = cache_budget(config.cache_max_bytes, free, size_of_tree(&config.cache_dir));
    let torrents = Arc::new(Torrents::open(torrent_config(&config, budget)).await.context("the torrent engine cannot start")?);
    let workshop = workshop(&config, budget, &behind).await?;
    let ground = Ground {
        torrents: torrents.clone(),
        workshop,
        store: store.clone(),
        tasks: behind.clone(),
        keys,
        devices: devices.clone(),
        expire_after: config.expire_after,
        stall_timeout: config.stall_timeout,
    };
    let streams = Streams::new(Arc::new(ground));
    streams.restore().await?;
    behind.spawn_ending("last seen", |stopping| devices.clone().tend(stopping));
    behind.spawn_ending("ticket keys", |stopping| streams.clone().tend_keys(stopping));
    behind.spawn_ending("budget", |stopping| share_budget(streams.clone(), stopping));
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
    };
    let (router, connections) = (http::open(door, app.clone()), Connections::default());
    for listener in plain {
        listener::serve(listener, Speech::Plain, router.clone(), &connections, &doors);
    }

    // Before it is announced: whoever reads the line may ask at once.
    health.set_ready(true);
    announce(&mut data, http)?;
    listening(http);
    tokio::select! {
        shown = show_sample(&app, http) => {
            shown?;
            stop.await;
        }
        () = &mut stop => {}
    }

    health.set_ready(false);
    tracing::info!("stopping");
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

fn torrent_config(config: &Resolved, budget: u64) -> TorrentConfig {
    TorrentConfig {
        peers: config.peers.clone(),
        allow_private_peers: config.allow_private_peers,
        dht: !config.no_dht,
        trackers: !config.no_trackers,
        metadata_timeout: config.metadata_timeout,
        reserve_bytes: config.reserve_bytes,
        budget_bytes: budget,
        ..TorrentConfig::new(config.cache_dir.join("torrents"))
    }
}

async fn workshop(config: &Resolved, budget: u64, tasks: &Tasks) -> anyhow::Result<Arc<Workshop>> {
    let own = std::env::current_exe().context("the program's own path is unknown")?;
    let tools = Tools {
        spawner: Spawner::start(own).context("no thread for child processes")?,
        loopback: Loopback::start(tasks).await.context("no loopback listener for ffmpeg")?,
        ffmpeg: config.ffmpeg.clone(),
        ffprobe: config.ffprobe.clone(),
        tasks: tasks.clone(),
        patience: Patience::default(),
    };
    tasks.spawn("trial", tell_cage(tools.clone()));
    let folder = config.cache_dir.join("segments");
    let segments = SegmentStore::open(&folder, budget).with_context(|| format!("{} cannot be used", folder.display()))?;
    Ok(Workshop::new(tools, segments, config.max_productions))
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

/// Films and segments share one budget: what films have grown by, segments give up.
async fn share_budget(streams: Arc<Streams>, stopping: CancellationToken) {
    while tokio::time::timeout(BUDGET_PACE, stopping.cancelled()).await.is_err() {
        streams.ground().workshop.segments.share_with(streams.film_bytes());
    }
}

/// Bytes that the files under a folder take on the disk. What cannot be looked at counts nothing.
fn size_of_tree(folder: &Path) -> u64 {
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
        let (stream, _) = app.streams.start(&owner, magnet, Options::default());
        let mut changes = stream.changes();
        changes.wait_for(|seen| seen.state.is_over() || matches!(seen.state, State::Ready { .. })).await?;
        let view = stream.view(Base::of(Entrance::Loopback, &http.to_string()).as_str(), &owner.device);
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
fn announce(data: &mut DataDir, http: SocketAddr) -> anyhow::Result<()> {
    let admin_token_file = admin_token_file(data.path());
    data.announce(&Run { pid: std::process::id(), http, https: None, admin_token_file }).context("run.json cannot be written")?;
    println!("listening http={http}");
    tracing::info!(%http, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(())
}
