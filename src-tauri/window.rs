//! The window: made when it is first wanted, hidden when it is closed, brought back where it was. What its page shows is said by the part
//! of its address that never leaves it (`#/pair`).

use tauri::webview::NewWindowResponse;
use tauri::{AppHandle, Manager, Url, WebviewUrl, WebviewWindow, WebviewWindowBuilder};
use tauri_plugin_opener::OpenerExt;
use tauri_plugin_window_state::{AppHandleExt, StateFlags};

use crate::server::Server;

/// The window's name.
pub(crate) const MAIN: &str = "main";

/// What of a window is kept from one start to the next.
pub(crate) fn kept() -> StateFlags {
    StateFlags::SIZE | StateFlags::POSITION | StateFlags::MAXIMIZED | StateFlags::FULLSCREEN
}

/// Brings the window, at a route of its page (`/pair`) or, with none, where it was. On the first thread only.
pub(crate) fn show(app: &AppHandle, server: &Server, route: Option<&str>) {
    let shown = match app.get_webview_window(MAIN) {
        Some(window) => route.map_or(Ok(()), |route| turn(&window, route)).and_then(|()| bring(&window)),
        None => build(app, server, route.unwrap_or("/")).and_then(|window| bring(&window)),
    };
    if let Err(error) = shown {
        eprintln!("The window cannot be opened: {error}.");
        tracing::error!(%error, "the window cannot be opened");
    }
}

/// Hides the window, as if it had been closed. Whoever plays in it goes on watching: its page hears of it and may stop.
pub(crate) fn hide(app: &AppHandle) {
    if let Some(window) = app.get_webview_window(MAIN) {
        app.save_window_state(kept()).ok();
        window.hide().ok();
    }
}

/// Whether somebody looks at it.
pub(crate) fn is_looked_at(app: &AppHandle) -> bool {
    let window = app.get_webview_window(MAIN);
    window.is_some_and(|window| window.is_visible().unwrap_or_default() && window.is_focused().unwrap_or_default())
}

fn bring(window: &WebviewWindow) -> tauri::Result<()> {
    window.show()?;
    window.unminimize()?;
    window.set_focus()
}

fn turn(window: &WebviewWindow, route: &str) -> tauri::Result<()> {
    window.eval(format!("location.hash = {}", literal(route)))
}

/// The page learns where the server is, and gets a token, from a script that runs before its own: neither stands in an address. It runs
/// in every page of this window, so the window goes to no page but its own.
fn build(app: &AppHandle, server: &Server, route: &str) -> tauri::Result<WebviewWindow> {
    let (at, token) = server.reached();
    let told = format!("window.__BALCONY__ = {{ server: {}, token: {} }};", literal(at), literal(token));
    let (elsewhere, outside) = (app.clone(), app.clone());
    WebviewWindowBuilder::new(app, MAIN, WebviewUrl::App(format!("#{route}").into()))
        .initialization_script(told)
        .title("Balcony")
        .inner_size(1080.0, 720.0)
        .min_inner_size(360.0, 480.0)
        // Shown once it stands where it stood.
        .visible(false)
        // Files that are dropped are the page's.
        .disable_drag_drop_handler()
        .on_navigation(move |url| is_own(url) || open_outside(&elsewhere, url))
        .on_new_window(move |url, _| {
            open_outside(&outside, &url);
            NewWindowResponse::Deny
        })
        .build()
}

/// The addresses of the bundled page: `tauri://localhost`, and on Windows `http://tauri.localhost`. And what pages make of their own data.
fn is_own(url: &Url) -> bool {
    match url.scheme() {
        "tauri" | "about" | "blob" | "data" => true,
        "http" | "https" => url.host_str() == Some("tauri.localhost"),
        _ => false,
    }
}

/// Opens an address in the browser or in the player it is for. Answers that the window does not go there.
fn open_outside(app: &AppHandle, url: &Url) -> bool {
    if matches!(url.scheme(), "http" | "https" | "vlc" | "mailto")
        && let Err(error) = app.opener().open_url(url.as_str(), None::<&str>)
    {
        tracing::warn!(%error, scheme = url.scheme(), "nothing opens this address");
    }
    false
}

/// A text as JavaScript writes it.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
