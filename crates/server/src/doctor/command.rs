//! `balcony-server doctor`: the findings as lines, one plain sentence each. Exit code 1 when something is broken.
//!
//! Beside a server that runs on the same data folder it asks that for what it finds, because only the server itself knows its certificate
//! and its ports, and because what it is started with may differ; what looks worse from here is added. It takes no lock, opens no
//! database for writing, and starts nothing but ffmpeg for its trials.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use reqwest::Client;
use serde::Deserialize;

use super::bundle::{self, Bundle};
use super::{Check, Diagnosis, Finding, Household, Level, Place, Standing};
use crate::config::Resolved;
use crate::http::bind::Ports;
use crate::programs::best;
use crate::settings::Settings;
use crate::spawner::Spawner;
use crate::trust::write_private;

/// How long the server may take to say that it is there.
const THERE: Duration = Duration::from_secs(3);
/// How long it may take to examine itself.
const EXAMINED: Duration = Duration::from_secs(35);

/// What only the server itself can say, where one runs.
const ITS_OWN: [Check; 4] = [Check::Server, Check::Ports, Check::Certificate, Check::Torrents];

/// Examines everything and prints what it finds; with `bundle` it also writes all that somebody who helps may want to see into that file.
pub fn run(config: Resolved, bundle: Option<&Path>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let found = runtime.block_on(examine(config, bundle.is_some()));
    // A disk that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let (diagnosis, packed) = match found {
        Ok(found) => found,
        Err(error) => return failed(&error.to_string()),
    };
    print(&diagnosis);
    let is_written = bundle.is_none_or(|path| write(path, packed));
    if diagnosis.ok && is_written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// For this user only: it is theirs to give away.
fn write(path: &Path, packed: std::io::Result<Vec<u8>>) -> bool {
    match packed.and_then(|packed| write_private(path, &packed)) {
        Ok(()) => eprintln!("Everything is in {}; nothing secret is in it.", path.display()),
        Err(error) => {
            eprintln!("{} could not be written: {error}.", path.display());
            return false;
        }
    }
    true
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("The examination could not be made: {reason}.");
    ExitCode::FAILURE
}

/// With `packed`, what goes into the bundle: the server's own, which knows more, or what can be seen from here.
async fn examine(config: Resolved, packed: bool) -> std::io::Result<(Diagnosis, std::io::Result<Vec<u8>>)> {
    let spawner = Spawner::start(std::env::current_exe()?)?;
    let neighbour = Neighbour::find(&config.data_dir).await;
    let asked = config.cache_max_bytes;
    let (ffmpeg, ffmpegs) = best::choose(&spawner, &config.ffmpeg, &config.data_dir.join(best::FILE), false).await;
    let place = Place { config: Arc::new(config), asked, spawner, ffmpeg, ffmpegs };
    let (own, its) = tokio::join!(super::examine(&place, &neighbour.standing), neighbour.diagnosis());
    let diagnosis = Diagnosis::of(together(its.map(|its| its.findings), own));
    let bundle = match if packed { neighbour.bundle().await } else { None } {
        Some(its) => Ok(its),
        None if packed => pack(&diagnosis, &place.config),
        None => Ok(Vec::new()),
    };
    Ok((diagnosis, bundle))
}

/// What can be seen while no server runs.
fn pack(diagnosis: &Diagnosis, config: &Resolved) -> std::io::Result<Vec<u8>> {
    let (now, mut bundle) = (Timestamp::now(), Bundle::new());
    let overview = Settings::new(config).overview();
    bundle.add("report.txt", &super::report(diagnosis, &Household::default(), now));
    bundle.add("doctor.json", &serde_json::to_string_pretty(diagnosis)?);
    bundle.add("settings.txt", &bundle::settings(&overview));
    bundle.add("database.txt", &bundle::tables(&config.data_dir, &[]));
    bundle.add_logs(&config.data_dir);
    bundle.archive(now)
}

/// What the server found, and what looks worse from here. All that was found here, where no server has told anything.
fn together(its: Option<Vec<Finding>>, own: Vec<Finding>) -> Vec<Finding> {
    let Some(mut all) = its else { return own };
    let is_new = |finding: &Finding| {
        let same = |other: &Finding| other.check == finding.check && other.message_key == finding.message_key;
        finding.level != Level::Good && !ITS_OWN.contains(&finding.check) && !all.iter().any(same)
    };
    let new: Vec<_> = own.into_iter().filter(is_new).collect();
    all.extend(new);
    all
}

#[allow(clippy::print_stdout, reason = "the findings that were asked for")]
fn print(diagnosis: &Diagnosis) {
    let mut text = String::new();
    for finding in &diagnosis.findings {
        text.push_str(&format!("{:<6}  {}\n", finding.level.name(), finding.message));
    }
    let broken = diagnosis.findings.iter().filter(|finding| finding.level == Level::Broken).count();
    let sum = match broken {
        0 => "Nothing is broken.".to_owned(),
        1 => "One thing is broken.".to_owned(),
        more => format!("{more} things are broken."),
    };
    // A reader that goes away early is no failure.
    let _ = writeln!(std::io::stdout(), "{text}{sum}");
}

/// The server on the same data folder, if there is one.
struct Neighbour {
    standing: Standing,
    /// Where it is asked, and with which token.
    door: Option<(Client, String, String)>,
}

/// What of `run.json` counts here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    pid: u32,
    http: SocketAddr,
    https: SocketAddr,
    admin_token_file: PathBuf,
}

impl Neighbour {
    const fn nobody() -> Self {
        Self { standing: Standing::Alone, door: None }
    }

    async fn find(data_dir: &Path) -> Self {
        let run = std::fs::read(data_dir.join("run.json")).ok().and_then(|text| serde_json::from_slice::<Run>(&text).ok());
        // Loopback needs no proxy, whatever the environment says.
        let (Some(run), Ok(client)) = (run, Client::builder().no_proxy().build()) else { return Self::nobody() };
        let base = format!("http://{}", run.http);
        let there = client.get(format!("{base}/api/health")).timeout(THERE).send().await;
        if there.is_ok_and(|answer| answer.status().is_success()) {
            let token = std::fs::read_to_string(&run.admin_token_file).ok();
            let standing = Standing::Beside { pid: run.pid, ports: Ports { http: run.http.port(), https: run.https.port() } };
            return Self { standing, door: token.map(|token| (client, base, token.trim().to_owned())) };
        }
        // What a crash left behind is no server.
        if is_one_of_ours(run.pid) { Self { standing: Standing::Silent { pid: run.pid }, door: None } } else { Self::nobody() }
    }

    /// What it packs itself. `None` where nobody runs, or it does not give it.
    async fn bundle(&self) -> Option<Vec<u8>> {
        let (client, base, token) = self.door.as_ref()?;
        let answer = client.get(format!("{base}/api/doctor/bundle")).bearer_auth(token).timeout(EXAMINED).send().await.ok()?;
        Some(answer.error_for_status().ok()?.bytes().await.ok()?.to_vec())
    }

    /// What it finds itself. `None` where nobody runs, or it does not tell.
    async fn diagnosis(&self) -> Option<Diagnosis> {
        let (client, base, token) = self.door.as_ref()?;
        let answer = client.get(format!("{base}/api/doctor")).bearer_auth(token).timeout(EXAMINED).send().await.ok()?;
        let body = answer.error_for_status().ok()?.bytes().await.ok()?;
        serde_json::from_slice(&body).ok()
    }
}

/// Whether a process with this number is there, and is no other program that got the number of one that is gone.
fn is_one_of_ours(pid: u32) -> bool {
    let Ok(number) = i32::try_from(pid) else { return false };
    let is_there = number > 0 && kill(Pid::from_raw(number), None).is_ok();
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    is_there && program.map_or(!cfg!(target_os = "linux"), |program| program.starts_with("balcony"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_says_counts_and_what_is_worse_here_is_added() {
        let finding = |check, level, key| Finding::new(check, level, key, json!({}));
        let its = vec![
            finding(Check::Ports, Level::Good, "ports_ours"),
            finding(Check::Ffmpeg, Level::Good, "program_good"),
            finding(Check::Disk, Level::Note, "disk_tight"),
            finding(Check::Ffprobe, Level::Broken, "program_missing"),
        ];
        let own = vec![
            finding(Check::Ports, Level::Broken, "port_taken"),
            finding(Check::Ffmpeg, Level::Broken, "program_missing"),
            finding(Check::Disk, Level::Note, "disk_tight"),
            finding(Check::Database, Level::Good, "database_good"),
            finding(Check::Ffprobe, Level::Good, "program_good"),
        ];
        let keys = |findings: Vec<Finding>| findings.into_iter().map(|one| (one.check, one.message_key)).collect::<Vec<_>>();
        let expected = [its.clone(), vec![own[1].clone()]].concat();
        assert_eq!(keys(together(Some(its), own.clone())), keys(expected));
        assert_eq!(keys(together(None, own.clone())), keys(own));
    }

    #[test]
    fn only_a_living_server_is_silent() {
        // Process 1 is there and none of ours; that of the test is called after the crate.
        for (pid, is_ours) in [(0, false), (1, false), (u32::MAX, false), (std::process::id(), cfg!(target_os = "linux"))] {
            assert_eq!(is_one_of_ours(pid), is_ours, "{pid}");
        }
    }
}
