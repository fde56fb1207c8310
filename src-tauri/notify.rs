//! Notifications: what happened, and what can be done about it.

use std::fmt;

use serde::{Deserialize, Serialize};
use tauri::{AppHandle, Manager};
use tauri_plugin_notification::{Action, ActionPerformed, ActionType, NotificationExt};

use crate::news::{Happening, Overview};
use crate::shell::Shell;
use crate::words::{Words, fill};

/// In a notification's own data: what a click on it does.
const CLICK: &str = "click";
/// In a notification's own data: what its button does.
const BUTTON: &str = "button";

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    title: String,
    body: String,
    /// What a click does.
    click: Deed,
    /// What its button does.
    button: Option<(Button, Deed)>,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.body)
    }
}

/// What a notification offers to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Deed {
    /// Show the window where it was.
    Open,
    /// Show the window at a route.
    Show(String),
    /// Lock a device out.
    Revoke { id: String, name: String },
    /// Start the program at login from now on.
    StartAtLogin,
    /// End the program.
    Quit,
}

/// The button of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Button {
    Revoke,
    FreeSpace,
    Look,
    StartAtLogin,
    Quit,
}

impl Button {
    const ALL: [Self; 5] = [Self::Revoke, Self::FreeSpace, Self::Look, Self::StartAtLogin, Self::Quit];

    fn id(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::FreeSpace => "free-space",
            Self::Look => "look",
            Self::StartAtLogin => "start-at-login",
            Self::Quit => "quit",
        }
    }

    fn title(self, words: &Words) -> &'static str {
        match self {
            Self::Revoke => words.revoke,
            Self::FreeSpace => words.free_space,
            Self::Look => words.look,
            Self::StartAtLogin => words.start_at_login,
            Self::Quit => words.quit,
        }
    }
}

impl Notice {
    /// A title and a sentence; a click shows the window.
    pub(crate) fn new(title: impl Into<String>, body: impl Into<String>) -> Self {
        Self { title: title.into(), body: body.into(), click: Deed::Open, button: None }
    }

    /// What is said of something that happened. `None` where the tray says enough.
    pub(crate) fn of(happening: &Happening, overview: Option<&Overview>, words: &Words) -> Option<Self> {
        let show = |route: &str| Deed::Show(route.to_owned());
        Some(match happening {
            Happening::Paired(device) => {
                let revoke = Deed::Revoke { id: device.id.clone(), name: device.name.clone() };
                let notice = Self::new(fill(words.paired, &[("device", &device.name)]), words.paired_what);
                Self { click: show("/devices"), button: Some((Button::Revoke, revoke)), ..notice }
            }
            Happening::Ready { stream, title, .. } => {
                let title = fill(words.stream_ready, &[("film", title.as_deref().unwrap_or(words.nameless))]);
                Self { click: Deed::Show(format!("/stream/{stream}")), ..Self::new(title, words.stream_ready_what) }
            }
            Happening::Trouble(trouble) if trouble.code == "no_space" => {
                let free = words.bytes(overview.map(|overview| overview.free_bytes).unwrap_or_default());
                let notice = Self::new(words.disk_is_full, fill(words.disk_full_what, &[("free", &free)]));
                Self { click: Deed::Open, button: Some((Button::FreeSpace, show("/settings"))), ..notice }
            }
            Happening::Trouble(trouble) if trouble.code == "no_ffmpeg" => {
                let notice = Self::new(words.ffmpeg_is_missing, words.ffmpeg_what);
                Self { click: show("/diagnostics"), button: Some((Button::Look, show("/diagnostics"))), ..notice }
            }
            Happening::Trouble(_) => return None,
        })
    }

    /// Asks whether the program should start at login.
    pub(crate) fn asking_for_login(words: &Words) -> Self {
        Self { button: Some((Button::StartAtLogin, Deed::StartAtLogin)), ..Self::new(words.ask_login, words.ask_login_what) }
    }

    /// Says that closing the window ended nothing; where there is no tray, how to end it.
    pub(crate) fn going_on(has_tray: bool, words: &Words) -> Self {
        if has_tray {
            return Self::new(words.goes_on, words.goes_on_in_tray);
        }
        Self { button: Some((Button::Quit, Deed::Quit)), ..Self::new(words.goes_on, words.goes_on_without_tray) }
    }

    /// Shows it. Whether anybody shows notifications is not told here.
    pub(crate) fn show(&self, app: &AppHandle) {
        let mut shown = app.notification().builder().title(&self.title).body(&self.body).extra(CLICK, &self.click);
        if let Some((button, deed)) = &self.button {
            shown = shown.action_type_id(button.id()).extra(BUTTON, deed);
        }
        if let Err(error) = shown.show() {
            tracing::warn!(%error, "a notification was not shown");
        }
    }
}

/// Gets notifications ready: their buttons, and who hears of them.
pub(crate) fn prepare(app: &AppHandle, words: &Words) {
    let types = Button::ALL.map(|button| {
        let action = Action::builder(button.id(), button.title(words)).build();
        ActionType::builder(button.id()).actions(vec![action]).build()
    });
    let heard = app.clone();
    let listening = app.notification().register_action_types(types.into());
    let listening = listening.and_then(|()| app.notification().on_action(move |performed| hear(&heard, performed)));
    if let Err(error) = listening {
        tracing::warn!(%error, "notifications have no buttons");
    }
}

fn hear(app: &AppHandle, performed: &ActionPerformed) {
    let part = if performed.action_id() == "tap" { CLICK } else { BUTTON };
    let told = performed.notification().and_then(|notification| notification.extra().get(part));
    if let Some(deed) = told.and_then(|deed| Deed::deserialize(deed).ok()) {
        app.state::<Shell>().act(app, deed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::news::{Device, Trouble};

    #[test]
    fn a_notification_says_what_happened_and_what_can_be_done() {
        let words = Words::of_language("en");
        let trouble = |code: &str| Happening::Trouble(Trouble { code: code.into(), message: String::new() });
        let overview = Overview { free_bytes: 1_200_000_000, ..Overview::default() };
        let table = [
            (Happening::Paired(Device { id: "abc".into(), name: "Pixel 8".into() }), "Pixel 8 was paired", Some("Revoke")),
            (Happening::Ready { stream: "s".into(), title: Some("Sintel".into()), here: true }, "Sintel is ready", None),
            (trouble("no_space"), "Disk almost full", Some("Free space")),
            (trouble("no_ffmpeg"), "ffmpeg is missing", Some("Diagnostics")),
        ];
        for (happening, title, button) in table {
            let notice = Notice::of(&happening, Some(&overview), words).expect("said");
            assert_eq!((notice.title.as_str(), notice.button.map(|(button, _)| button.title(words))), (title, button));
        }
        let full = Notice::of(&trouble("no_space"), Some(&overview), words).expect("said");
        assert_eq!(full.body, "1.2 GB are free. Stop a film, or give Balcony more room.");
        assert_eq!(Notice::of(&trouble("clock"), None, words), None);
    }
}
