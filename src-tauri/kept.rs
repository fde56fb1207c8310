//! What the shell remembers of what somebody chose, in `desktop.json` beside the server's own settings.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The choices. Whether the program starts at login is known to the session, not here.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Choices {
    /// The window came by itself at the first start.
    pub(crate) welcomed: bool,
    /// The computer stays awake while somebody watches.
    pub(crate) keep_awake: bool,
    /// Somebody was asked whether the program should start at login.
    pub(crate) asked_for_login: bool,
    /// Somebody was told that closing the window ends nothing.
    pub(crate) told_that_it_goes_on: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self { welcomed: false, keep_awake: true, asked_for_login: false, told_that_it_goes_on: false }
    }
}

/// The choices and their file.
#[derive(Debug)]
pub(crate) struct Kept {
    file: PathBuf,
    choices: Mutex<Choices>,
}

impl Kept {
    /// Reads them. What cannot be read is as it was at first.
    pub(crate) fn open(config_dir: &Path) -> Self {
        let file = config_dir.join("desktop.json");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Self { file, choices: Mutex::new(serde_json::from_str(&text).unwrap_or_default()) }
    }

    /// The choices as they are.
    pub(crate) fn choices(&self) -> Choices {
        self.lock().clone()
    }

    /// Changes them, and writes them down.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Choices)) {
        let mut choices = self.lock();
        change(&mut choices);
        self.write(&choices);
    }

    fn write(&self, choices: &Choices) {
        let aside = self.file.with_extension("json.new");
        let text = serde_json::to_vec_pretty(choices).unwrap_or_default();
        let folder = self.file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = folder.and_then(|()| std::fs::write(&aside, text)).and_then(|()| std::fs::rename(&aside, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, file = %self.file.display(), "the choices of the tray cannot be kept");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Choices> {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
