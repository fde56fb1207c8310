//! `balcony`: a window over the server of one house, with the server in the same process.
//!
//! Thin on purpose: nothing here is worth a unit test. Whether there can be a window is decided before Tauri is touched, for
//! without a display it panics. What the page wants to know it asks over HTTP like every other client, so there is no command of
//! Tauri's own.

#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

use std::process::ExitCode;
use std::sync::mpsc;

use balcony_server::app::Listening;
use balcony_server::config::Resolved;
use balcony_server::start::{self, Begun, Hosted};
use tauri::{AppHandle, WebviewUrl, WebviewWindowBuilder};

fn main() -> ExitCode {
    match start::begin(std::env::args_os().skip(1)) {
        Begun::Ended(code) => code,
        Begun::Serve(resolved) if resolved.headless || !has_display() => start::serve(*resolved),
        Begun::Serve(resolved) => with_window(*resolved),
    }
}

fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(target_os = "linux") || is_set("WAYLAND_DISPLAY") || is_set("DISPLAY")
}

fn with_window(resolved: Resolved) -> ExitCode {
    let (hand_over, hosted) = mpsc::channel();
    let app = tauri::Builder::default().setup(move |app| {
        let (opener, ender) = (app.handle().clone(), app.handle().clone());
        hand_over.send(start::host(resolved, move |listening| open_window(&opener, &listening), move || ender.exit(0))?)?;
        Ok(())
    });
    let window = match app.build(tauri::generate_context!()) {
        Ok(app) => app.run_return(|_, _| {}),
        Err(error) => cannot_open(&error),
    };
    // However the window ended, the server ends in order.
    let server = hosted.try_recv().map_or(ExitCode::FAILURE, Hosted::end);
    if window == 0 { server } else { ExitCode::FAILURE }
}

fn cannot_open(error: &tauri::Error) -> i32 {
    eprintln!("The window cannot be opened: {error}.");
    1
}

/// The page learns where the server is, and gets the owner's token, from a script that runs before its own: neither stands in an address.
fn open_window(app: &AppHandle, listening: &Listening) {
    // An address and a token are letters, digits and a few signs that mean nothing in a string.
    let told = format!("window.__BALCONY__ = {{ server: '{}', token: '{}' }};", listening.http, listening.owner.reveal());
    let window = WebviewWindowBuilder::new(app, "main", WebviewUrl::App("index.html".into())).initialization_script(told);
    let window = window.title("Balcony").inner_size(1080.0, 720.0).min_inner_size(360.0, 480.0);
    if let Err(error) = window.build() {
        app.exit(cannot_open(&error));
    }
}
