//! What both programs do first and last: from the arguments to a running server, and from its end to an exit code.
//!
//! Exit codes: 0 in order, 1 failed, 2 mistyped. What a window does meanwhile is not known here.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::thread::JoinHandle;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::app::{Hosting, Listening};
use crate::config::typed::Asked;
use crate::config::{self, Command, Machine, Mistakes, Resolved, Words};
use crate::pair::Wanted;
use crate::{app, cage, doctor, heap, http, lan, pair, reset_ca};

/// What the arguments came to.
#[derive(Debug)]
pub enum Begun {
    /// All is done or all is wrong, and was said: end with this code.
    Ended(ExitCode),
    /// Run the server.
    Serve(Box<Resolved>),
}

/// Reads the arguments (without the program's own name), the environment and the file. As a child of the server it becomes ffmpeg
/// instead and does not return.
pub fn begin(arguments: impl IntoIterator<Item = OsString>) -> Begun {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Hidden: what a child of the server runs before it becomes ffmpeg. Before all else, for it must be quick.
    if arguments.first().is_some_and(|word| word == "cage") {
        cage::run(arguments.into_iter().skip(1));
    }
    heap::share();
    let words = match config::from_flags(arguments) {
        Asked::Print(text) => return Begun::Ended(print(&text)),
        Asked::Run(words) => words,
    };
    match resolve(&words) {
        Ok(resolved) => match &resolved.command {
            Command::Openapi => Begun::Ended(print(&http::document().to_pretty_json().expect("the API document is plain JSON"))),
            Command::Pair { admin, person } => Begun::Ended(pair(&resolved.data_dir, &Wanted { admin: *admin, person: person.clone() })),
            Command::Doctor { bundle } => {
                let bundle = bundle.clone();
                Begun::Ended(doctor::run(resolved, bundle.as_deref()))
            }
            Command::ResetCa { yes } => Begun::Ended(reset_ca::run(&resolved.data_dir, *yes)),
            Command::Serve | Command::Sample => Begun::Serve(Box::new(resolved)),
        },
        Err(Mistakes(sentences)) => mistyped(sentences),
    }
}

fn pair(data_dir: &Path, wanted: &Wanted) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    runtime.block_on(async {
        match stop_signal() {
            Ok(stop) => pair::run(data_dir, wanted, stop).await,
            Err(error) => failed(&error),
        }
    })
}

fn mistyped(sentences: Vec<String>) -> Begun {
    for sentence in sentences {
        eprintln!("{sentence}");
    }
    Begun::Ended(ExitCode::from(2))
}

/// Runs the server on this thread until a signal stops it.
pub fn serve(resolved: Resolved) -> ExitCode {
    code_of(&run(resolved, Hosting::Alone, |_| {}, CancellationToken::new()))
}

/// A server on a thread of its own, for a program that needs its first thread for a window.
#[derive(Debug)]
pub struct Hosted {
    stop: CancellationToken,
    thread: JoinHandle<ExitCode>,
}

/// Starts a server beside the caller. `listening` hears once where it is reached, `ended` that it ended: with the sentence that was
/// printed, where that was not in order.
///
/// # Errors
/// When there is no thread for it.
pub fn host(
    resolved: Resolved,
    listening: impl FnOnce(Listening) + Send + 'static,
    ended: impl FnOnce(Option<String>) + Send + 'static,
) -> std::io::Result<Hosted> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let thread = std::thread::Builder::new().name("server".into()).spawn(move || {
        let result = run(resolved, Hosting::Window, listening, stopped);
        let code = code_of(&result);
        ended(result.err().map(|error| format!("{error:#}")));
        code
    })?;
    Ok(Hosted { stop, thread })
}

impl Hosted {
    /// Stops the server in order, waits for it, and answers how it ended.
    pub fn end(self) -> ExitCode {
        self.stop.cancel();
        self.thread.join().unwrap_or(ExitCode::FAILURE)
    }
}

fn run(resolved: Resolved, hosting: Hosting, listening: impl FnOnce(Listening), stopped: CancellationToken) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let result = runtime.block_on(async {
        // Heard from the very beginning: a signal during start-up stops in order too.
        let signal = stop_signal()?;
        let stop = async {
            tokio::select! {
                () = signal => {}
                () = stopped.cancelled() => {}
            }
        };
        app::run(resolved, hosting, listening, stop).await
    });
    // Whatever still blocks a thread must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

fn code_of(result: &anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
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
        name: lan::machine_name().unwrap_or_default(),
        config_dir: folder(directories::ProjectDirs::config_dir),
        data_dir: folder(directories::ProjectDirs::data_dir),
        cache_dir: folder(directories::ProjectDirs::cache_dir),
        cores: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        ffmpeg_bin: program("FFMPEG_BIN"),
        ffprobe_bin: program("FFPROBE_BIN"),
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
