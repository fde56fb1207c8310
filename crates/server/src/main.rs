//! The headless server: reads what was typed, then runs the library. Exit codes: 0 in order, 1 failed, 2 mistyped.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use balcony_server::config::typed::Asked;
use balcony_server::config::{self, Command, Machine, Mistakes, Resolved, Words};
use balcony_server::{app, http};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Hidden: what a child of the server runs before it becomes ffmpeg. Before all else, for it must be quick.
    if arguments.first().is_some_and(|word| word == "cage") {
        balcony_server::cage::run(arguments.into_iter().skip(1));
    }
    let words = match config::from_flags(arguments) {
        Asked::Print(text) => return print(&text),
        Asked::Run(words) => words,
    };
    match resolve(&words) {
        Ok(resolved) => act(resolved),
        Err(mistakes) => {
            for sentence in mistakes.0 {
                eprintln!("{sentence}");
            }
            ExitCode::from(2)
        }
    }
}

fn resolve(flags: &Words) -> Result<Resolved, Mistakes> {
    let environment = config::from_environment(std::env::vars_os());
    let machine = machine();
    let path = config::config_dir(flags, &environment, &machine).join("config.toml");
    let mut file = Words::default();
    match std::fs::read_to_string(&path) {
        Ok(text) => file = config::from_file(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => file.mistakes.push(format!("{} cannot be read: {error}.", path.display())),
    }
    config::resolve(flags, &environment, &file, &machine)
}

fn machine() -> Machine {
    let folders = directories::ProjectDirs::from("app", "balcony", "balcony");
    let folder = |which: fn(&directories::ProjectDirs) -> &Path| folders.as_ref().map(which).map(Path::to_owned).unwrap_or_default();
    let program = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(Into::into);
    Machine {
        config_dir: folder(directories::ProjectDirs::config_dir),
        data_dir: folder(directories::ProjectDirs::data_dir),
        cache_dir: folder(directories::ProjectDirs::cache_dir),
        cores: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        ffmpeg_bin: program("FFMPEG_BIN"),
        ffprobe_bin: program("FFPROBE_BIN"),
    }
}

fn act(resolved: Resolved) -> ExitCode {
    match resolved.command {
        Command::Openapi => print(&http::document().to_pretty_json().expect("the API document is plain JSON")),
        Command::Serve | Command::Sample => serve(resolved),
    }
}

fn serve(resolved: Resolved) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(async {
        // Heard from the very beginning: a signal during start-up stops in order too.
        let stop = stop_signal()?;
        app::run(resolved, stop).await
    });
    // Whatever still blocks a thread must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without the signal there is nothing to wait for but the end of the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    // A reader that goes away early (`| head`) is no failure.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    ExitCode::SUCCESS
}
