//! Wires the parts, says when they are ready, and stops them in order. Decides nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::FromRef;
use balcony_media::magnet::Magnet;
use tokio::net::TcpListener;

use crate::config::{Command, Resolved};
use crate::data_dir::{DataDir, Run, make_private};
use crate::http::base::Base;
use crate::http::health::Health;
use crate::http::host::Hosts;
use crate::http::{self, Door, listener};
use crate::logging;
use crate::loopback::Loopback;
use crate::produce::Workshop;
use crate::produce::encode::{Patience, Tools};
use crate::sample::Sample;
use crate::segments::SegmentStore;
use crate::spawner::Spawner;
use crate::store::Store;
use crate::stream::state::State;
use crate::stream::{Ground, Options, Streams};
use crate::tasks::Tasks;
use crate::torrent::{TorrentConfig, Torrents};
use crate::trust::token::{admin_token, admin_token_file};
use crate::trust::{DeviceId, Keyring, PersonId, StreamId, TicketKey};

/// How long running requests may take to end, and everything else after them.
const REQUESTS_END: Duration = Duration::from_secs(3);
const TASKS_END: Duration = Duration::from_secs(3);

const NOTICE: &str = "\
This is your own server. It fetches and shares what you ask it for, through the BitTorrent network, from your address.
Share only what you may: you are responsible for it, not the makers of this program.";

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// What was asked for at the start.
    pub config: Arc<Resolved>,
    /// What health answers are made of.
    pub health: Health,
    /// What survives a restart.
    pub store: Arc<Store>,
    /// The key of all media tickets.
    pub ticket_key: TicketKey,
    /// The group of everything that runs behind the door.
    pub tasks: Tasks,
    /// All streams.
    pub streams: Arc<Streams>,
}

impl FromRef<App> for Arc<Streams> {
    fn from_ref(app: &App) -> Self {
        app.streams.clone()
    }
}

/// Runs the server until `stop` completes, then stops it in order.
///
/// # Errors
/// When it cannot start: one sentence with its reasons.
pub async fn run(config: Resolved, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let mut data = DataDir::take(&config.data_dir)?;
    let logging = logging::start(data.path(), config.log.as_deref()).context("the log file cannot be opened")?;
    make_private(&config.cache_dir).with_context(|| format!("the cache folder {} cannot be used", config.cache_dir.display()))?;
    let keyring = Keyring::new(&admin_token(data.path()).context("the admin token cannot be read")?);
    let ticket_key = TicketKey::load(data.path()).context("the ticket key cannot be read")?;
    let store = Arc::new(Store::open(&data.path().join("balcony.sqlite"))?);
    let (server_id, _) = store.fact("server_id", StreamId::random().to_string()).await?;
    show_notice(&store).await?;

    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, config.http_port));
    let tcp = tcp.await.with_context(|| format!("port {} of 127.0.0.1 cannot be opened", config.http_port))?;
    let http = tcp.local_addr().context("the address of the listener is unknown")?;

    let tasks = Tasks::new();
    let (doors, behind) = (tasks.child("http"), tasks.child("app"));
    let machine = machine_name();
    let health = Health::new(machine.as_deref().unwrap_or("balcony"), &server_id);
    let door = Door { hosts: Hosts::new(machine.as_deref(), &[], &config.cors_origins), keyring, ports: vec![http.port()] };
    let config = Arc::new(config);
    let torrents = Arc::new(Torrents::open(torrent_config(&config, data.path())).await.context("the torrent engine cannot start")?);
    let workshop = workshop(&config, &behind).await?;
    let ground = Ground {
        torrents: torrents.clone(),
        workshop,
        store: store.clone(),
        tasks: behind.clone(),
        key: ticket_key.clone(),
        expire_after: config.expire_after,
        stall_timeout: config.stall_timeout,
    };
    let streams = Streams::new(Arc::new(ground));
    streams.restore().await?;
    let app = App { config: config.clone(), health: health.clone(), store, ticket_key, tasks: behind.clone(), streams: streams.clone() };
    listener::serve(tcp, http::open(door, app), &doors, listener::plain);

    announce(&mut data, http)?;
    health.set_ready(true);
    let sample = tokio::select! {
        sample = open_sample(&config, &streams, http) => Some(sample?),
        () = &mut stop => None,
    };
    if sample.is_some() {
        stop.await;
    }

    health.set_ready(false);
    tracing::info!("stopping");
    doors.end(REQUESTS_END).await;
    torrents.close().await;
    behind.end(TASKS_END).await;
    tasks.end(TASKS_END).await;
    tracing::info!("stopped");
    drop(data);
    drop(logging);
    Ok(())
}

fn torrent_config(config: &Resolved, data_dir: &Path) -> TorrentConfig {
    TorrentConfig {
        peers: config.peers.clone(),
        allow_private_peers: config.allow_private_peers,
        dht: !config.no_dht,
        trackers: !config.no_trackers,
        metadata_timeout: config.metadata_timeout,
        reserve_bytes: config.reserve_bytes,
        budget_bytes: config.cache_max_bytes,
        ..TorrentConfig::new(data_dir.join("torrents"))
    }
}

async fn workshop(config: &Resolved, tasks: &Tasks) -> anyhow::Result<Arc<Workshop>> {
    let own = std::env::current_exe().context("the program's own path is unknown")?;
    let tools = Tools {
        spawner: Spawner::start(own).context("no thread for child processes")?,
        loopback: Loopback::start(tasks).await.context("no loopback listener for ffmpeg")?,
        ffmpeg: config.ffmpeg.clone(),
        ffprobe: config.ffprobe.clone(),
        tasks: tasks.clone(),
        patience: Patience::default(),
    };
    let folder = config.cache_dir.join("segments");
    let segments = SegmentStore::open(&folder, config.cache_max_bytes).with_context(|| format!("{} cannot be used", folder.display()))?;
    Ok(Workshop::new(tools, segments, config.max_productions))
}

/// Makes and seeds the sample film, if that was asked for, and streams it to the owner.
#[allow(clippy::print_stdout, reason = "the addresses that `--sample` is there for")]
async fn open_sample(config: &Resolved, streams: &Arc<Streams>, http: SocketAddr) -> anyhow::Result<Option<Sample>> {
    if !config.sample && config.command != Command::Sample {
        return Ok(None);
    }
    let sample = Sample::open(&config.ffmpeg, &config.data_dir, &streams.ground().torrents).await?;
    println!("magnet {}", sample.link());
    if config.sample {
        let (device, person) = (DeviceId::owner(), PersonId::owner());
        let magnet = Magnet::parse(&sample.link()).context("the sample's magnet is not one")?;
        let (stream, _) = streams.start(device, person, magnet, Options::default());
        let mut changes = stream.changes();
        changes.wait_for(|seen| seen.state.is_over() || matches!(seen.state, State::Ready { .. })).await?;
        let view = stream.view(Base::of(&http.to_string()).as_str());
        println!("{} {}", view.message.to_lowercase(), view.stream_url);
    }
    Ok(Some(sample))
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

/// The machine's own name, without its domain.
fn machine_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.split('.').next()?.to_owned();
    (!name.is_empty()).then_some(name)
}
