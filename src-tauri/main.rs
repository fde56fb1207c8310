//! `balcony`: a tray, and a window when it is wanted, over the server of one house in the same process.
//!
//! Thin: what the tray shows is made of what the server tells over HTTP, as to every other client, and there is no command of Tauri's
//! own. Whether there can be a tray and a window is decided before Tauri is touched, for without a display it panics.

#![forbid(unsafe_code)]
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

mod awake;
#[cfg(target_os = "linux")]
mod bus;
#[cfg(not(target_os = "linux"))]
#[path = "no_bus.rs"]
mod bus;
mod clipboard;
mod face;
mod follow;
mod kept;
mod links;
mod news;
mod notify;
mod server;
mod shell;
mod tray;
mod window;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use balcony_server::config::Resolved;
use balcony_server::start::{self, Begun, Hosted};
use tauri::{AppHandle, Builder, Manager, RunEvent, WindowEvent, Wry};

use links::{HIDDEN, Launch};
use shell::Shell;
use tray::Tray;

fn main() -> ExitCode {
    let mut launch = Launch::read(std::env::args_os().skip(1), &std::env::current_dir().unwrap_or_default());
    match start::begin(std::mem::take(&mut launch.rest)) {
        Begun::Ended(code) => code,
        Begun::Serve(resolved) if resolved.headless => start::serve(*resolved),
        Begun::Serve(resolved) => match bus::open_display() {
            Ok(()) => with_tray(*resolved, launch),
            Err(why) => {
                eprintln!("{why}: Balcony runs without a tray and a window. To pair a phone: balcony pair");
                start::serve(*resolved)
            }
        },
    }
}

/// The server, until it has ended, and then how it did.
#[derive(Debug, Clone, Default)]
struct Inside(Arc<Mutex<(Option<Hosted>, Option<ExitCode>)>>);

impl Inside {
    fn keep(&self, hosted: Hosted) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(hosted);
    }

    /// Ends it in order, where it has not ended yet; answers how it ended.
    fn end(&self) -> ExitCode {
        let (hosted, code) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hosted) = hosted.take() {
            *code = Some(hosted.end());
        }
        code.unwrap_or(ExitCode::SUCCESS)
    }
}

fn with_tray(resolved: Resolved, launch: Launch) -> ExitCode {
    let shell = match Shell::open(&resolved.config_dir, &resolved.data_dir) {
        Ok(shell) => shell,
        Err(error) => return failed(&error),
    };
    let inside = Inside::default();
    let (kept, ending) = (inside.clone(), inside.clone());
    let app = builder().manage(shell).setup(move |app| {
        // Here and not before: a second start has handed over its arguments and is gone by now.
        set_up(app.handle(), resolved, launch, &kept)?;
        Ok(())
    });
    let window = match app.build(tauri::generate_context!()) {
        Ok(app) => app.run_return(move |app, event| hear(app, event, &ending)),
        Err(error) => {
            failed(&error);
            1
        }
    };
    // However the window ended, the server ends in order.
    let server = inside.end();
    if window == 0 { server } else { ExitCode::FAILURE }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("Balcony cannot start: {error}.");
    ExitCode::FAILURE
}

fn builder() -> Builder<Wry> {
    let again = |app: &AppHandle, arguments: Vec<String>, folder: String| {
        let launch = Launch::read(arguments.into_iter().skip(1).map(Into::into), folder.as_ref());
        app.state::<Shell>().launched_again(app, launch);
    };
    Builder::default()
        // First: in a second start nothing else begins.
        .plugin(tauri_plugin_single_instance::init(again))
        .plugin(tauri_plugin_autostart::Builder::new().arg(HIDDEN).build())
        .plugin(tauri_plugin_deep_link::init())
        .plugin(tauri_plugin_notification::init())
        .plugin(tauri_plugin_opener::init())
        .plugin(tauri_plugin_window_state::Builder::new().with_state_flags(window::kept()).build())
}

fn set_up(app: &AppHandle, resolved: Resolved, launch: Launch, inside: &Inside) -> std::io::Result<()> {
    let (listened, ended) = (app.clone(), app.clone());
    let begin = move |listening| listened.state::<Shell>().begin(&listened, &listening);
    let over = move |why| ended.state::<Shell>().over(&ended, why);
    inside.keep(start::host(resolved, begin, over)?);

    let shell = app.state::<Shell>();
    notify::prepare(app, shell.words);
    // Where the system's library for trays is missing, looking for it panics.
    match catch_unwind(AssertUnwindSafe(|| Tray::build(app, shell.words))) {
        Ok(Ok(tray)) => shell.put_up(app, tray),
        Ok(Err(error)) => eprintln!("There is no tray: {error}."),
        Err(_) => eprintln!("There is no tray on this system."),
    }
    bus::watch_session(app);
    shell.launched(app, launch);
    Ok(())
}

fn hear(app: &AppHandle, event: RunEvent, inside: &Inside) {
    match event {
        RunEvent::WindowEvent { event: WindowEvent::CloseRequested { api, .. }, .. } => {
            api.prevent_close();
            window::hide(app);
            app.state::<Shell>().closed(app);
        }
        RunEvent::WindowEvent { event: WindowEvent::Focused(false), .. } => app.state::<Shell>().left(app),
        // The last window is gone; that ends nothing.
        RunEvent::ExitRequested { code: None, api, .. } => api.prevent_exit(),
        // On some systems nothing runs after this.
        RunEvent::Exit => {
            inside.end();
        }
        #[cfg(target_os = "macos")]
        RunEvent::Reopen { .. } => app.state::<Shell>().show(app, None),
        #[cfg(target_os = "macos")]
        RunEvent::Opened { urls } => {
            let launch = Launch::read(urls.into_iter().map(|url| String::from(url).into()), "/".as_ref());
            app.state::<Shell>().launched_again(app, launch);
        }
        _ => {}
    }
}
