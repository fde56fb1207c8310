//! What a Linux desktop is asked over its bus, on systems where it needs no asking: there is always a display, a tray, a place for
//! notifications, and the session's end comes as the end of the application.

use tauri::AppHandle;

/// There is one.
pub(crate) fn open_display() -> Result<(), String> {
    Ok(())
}

/// There is one.
pub(crate) fn has_tray() -> bool {
    true
}

/// Somebody does.
pub(crate) fn has_notifications() -> bool {
    true
}

/// The program ends too soon for a notification here; the sentence stands in the terminal and in the log.
pub(crate) fn notify_now(_title: &str, _body: &str) {}

/// The application hears of it by itself.
pub(crate) fn watch_session(_app: &AppHandle) {}
