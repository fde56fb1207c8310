//! The clipboard: a text read, a text written. Waits for whoever holds it, so never on the first thread.

use std::sync::{Mutex, PoisonError};

use arboard::{Clipboard, Error};

/// Kept, for a text that was written is handed out by who wrote it.
static OPEN: Mutex<Option<Clipboard>> = Mutex::new(None);

/// The text in it; `None` where there is none.
pub(crate) fn read() -> Option<String> {
    with(Clipboard::get_text).inspect_err(|error| tracing::debug!(%error, "no text in the clipboard")).ok()
}

/// Puts a text into it.
///
/// # Errors
/// When there is no clipboard.
pub(crate) fn write(text: String) -> Result<(), Error> {
    with(|clipboard| clipboard.set_text(text))
}

fn with<T>(act: impl FnOnce(&mut Clipboard) -> Result<T, Error>) -> Result<T, Error> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let clipboard = match &mut *open {
        Some(clipboard) => clipboard,
        empty => empty.insert(Clipboard::new()?),
    };
    act(clipboard)
}
