//! Wires the parts, says when they are ready, and stops them in order. Decides nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::config::Resolved;
use crate::data_dir::{DataDir, Run, make_private};
use crate::http::health::Health;
use crate::http::host::Hosts;
use crate::http::{self, Door, listener};
use crate::logging;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::trust::token::{admin_token, admin_token_file};
use crate::trust::{Keyring, StreamId, TicketKey};

/// How long running requests may take to end, and everything else after them.
const REQUESTS_END: Duration = Duration::from_secs(3);
const TASKS_END: Duration = Duration::from_secs(3);

const NOTICE: &str = "\
This is your own server. It fetches and shares what you ask it for, through the BitTorrent network, from your address.
Share only what you may: you are responsible for it, not the makers of this program.";

/// What the routes work with. Cheap to clone.
#[derive(Debug, Clone)]
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
}

/// Runs the server until `stop` completes, then stops it in order.
///
/// # Errors
/// When it cannot start: one sentence with its reasons.
pub async fn run(config: Resolved, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
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
    let app = App { config: Arc::new(config), health: health.clone(), store, ticket_key, tasks: behind.clone() };
    listener::serve(tcp, http::open(door, app), &doors, listener::plain);

    announce(&mut data, http)?;
    health.set_ready(true);
    stop.await;

    health.set_ready(false);
    tracing::info!("stopping");
    doors.end(REQUESTS_END).await;
    behind.end(TASKS_END).await;
    tasks.end(TASKS_END).await;
    tracing::info!("stopped");
    drop(data);
    drop(logging);
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

/// The machine's own name, without its domain.
fn machine_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.split('.').next()?.to_owned();
    (!name.is_empty()).then_some(name)
}
