//! The tray: an icon that tells the state by its shape, and a menu. Only what has changed is touched, so that an open menu stays still.
//!
//! On Linux a click opens the menu whatever button it was, so everything is in the menu and its first entry is the main one.

use std::sync::{Mutex, PoisonError};

use tauri::image::Image;
use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Manager, Wry, include_image};

use crate::face::{Face, Line};
use crate::news::Condition;
use crate::shell::{Click, Shell};
use crate::words::Words;

/// The tray, once it is there.
pub(crate) struct Tray {
    icon: TrayIcon,
    status: MenuItem<Wry>,
    streams: Streams,
    pause: CheckMenuItem<Wry>,
    login: CheckMenuItem<Wry>,
    awake: CheckMenuItem<Wry>,
    links: CheckMenuItem<Wry>,
    disk: MenuItem<Wry>,
    drawn: Mutex<Option<Face>>,
}

/// The menu of the streams.
struct Streams {
    menu: Submenu<Wry>,
    /// Said where there are none, or more than fit.
    more: MenuItem<Wry>,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    stream: String,
    name: String,
    menu: Submenu<Wry>,
    state: MenuItem<Wry>,
}

fn picture(condition: Condition) -> Image<'static> {
    match condition {
        Condition::Idle => include_image!("icons/tray/idle-44.png"),
        Condition::Active => include_image!("icons/tray/active-44.png"),
        Condition::Trouble => include_image!("icons/tray/trouble-44.png"),
    }
}

impl Tray {
    /// Puts the tray up.
    ///
    /// # Errors
    /// When the system has no place for it.
    pub(crate) fn build(app: &AppHandle, words: &Words) -> tauri::Result<Self> {
        let entry = |click: &Click, text: &str| MenuItem::with_id(app, click.id(), text, true, None::<&str>);
        let check = |click: &Click, text: &str| CheckMenuItem::with_id(app, click.id(), text, true, false, None::<&str>);
        let said = |id: &str, text: &str| MenuItem::with_id(app, id, text, false, None::<&str>);
        let line = || PredefinedMenuItem::separator(app);

        let more = said("more", words.no_streams)?;
        let streams = Submenu::with_id_and_items(app, "streams", words.streams, true, &[&more])?;
        let (status, disk) = (said("status", words.starting)?, said("disk", "")?);
        let pause = check(&Click::Pause, words.pause_all)?;
        let login = check(&Click::Login, words.start_at_login)?;
        let awake = check(&Click::Awake, words.keep_awake)?;
        let links = check(&Click::Links, words.open_links)?;
        let menu = Menu::new(app)?;
        let first: [&dyn IsMenuItem<Wry>; 3] = [&entry(&Click::Open, words.open)?, &status, &line()?];
        let doing: [&dyn IsMenuItem<Wry>; 5] =
            [&entry(&Click::Pair, words.pair)?, &entry(&Click::AddMagnet, words.add_magnet)?, &streams, &pause, &line()?];
        menu.append_items(&first)?;
        menu.append_items(&doing)?;
        menu.append_items(&[&login, &awake])?;
        // On macOS the bundle says what it opens, and the system asks.
        if cfg!(not(target_os = "macos")) {
            menu.append(&links)?;
        }
        let last: [&dyn IsMenuItem<Wry>; 4] =
            [&line()?, &disk, &entry(&Click::CopyDiagnostics, words.copy_diagnostics)?, &entry(&Click::Quit, words.quit)?];
        menu.append_items(&last)?;

        let folder = app.state::<Shell>().data_dir.join("tray");
        let icon = TrayIconBuilder::with_id("tray")
            .icon(picture(Condition::Idle))
            .icon_as_template(true)
            .tooltip("Balcony")
            .temp_dir_path(folder)
            .menu(&menu)
            .on_menu_event(|app, event| {
                if let Some(click) = Click::of_id(event.id().as_ref()) {
                    app.state::<Shell>().clicked(app, click);
                }
            })
            .build(app)?;
        let streams = Streams { menu: streams, more, entries: Mutex::default() };
        Ok(Self { icon, status, streams, pause, login, awake, links, disk, drawn: Mutex::default() })
    }

    /// Shows this face. On the first thread only.
    ///
    /// # Errors
    /// When the system refuses; what could be shown is.
    pub(crate) fn draw(&self, app: &AppHandle, face: &Face) -> tauri::Result<()> {
        let before = self.drawn.lock().unwrap_or_else(PoisonError::into_inner).replace(face.clone());
        let is_new = |part: fn(&Face) -> &String| before.as_ref().map(part) != Some(part(face));
        if is_new(|face| &face.status) {
            self.status.set_text(&face.status)?;
            // Seen where the system shows such a thing.
            self.icon.set_tooltip(Some(format!("Balcony: {}", face.status)))?;
        }
        if is_new(|face| &face.disk) {
            self.disk.set_text(&face.disk)?;
        }
        let icon = before.as_ref().map(|before| before.icon).unwrap_or_default();
        if icon != face.icon {
            self.icon.set_icon(Some(picture(face.icon)))?;
        }
        // A click sets the mark by itself, whether what it asks for comes true or not.
        let checks = face.checks;
        for (item, on) in
            [(&self.pause, checks.paused), (&self.login, checks.login), (&self.awake, checks.awake), (&self.links, checks.links)]
        {
            if item.is_checked()? != on {
                item.set_checked(on)?;
            }
        }
        self.streams.draw(app, before.as_ref(), face)
    }

    /// What the mark of an entry says that a click has just set.
    pub(crate) fn is_checked(&self, click: &Click) -> bool {
        let item = match click {
            Click::Pause => &self.pause,
            Click::Login => &self.login,
            Click::Awake => &self.awake,
            _ => &self.links,
        };
        item.is_checked().unwrap_or_default()
    }

    /// Takes the tray down.
    pub(crate) fn hide(&self) {
        self.icon.set_visible(false).ok();
    }
}

impl Streams {
    fn draw(&self, app: &AppHandle, before: Option<&Face>, face: &Face) -> tauri::Result<()> {
        if before.is_some_and(|before| before.streams == face.streams && before.more == face.more) {
            return Ok(());
        }
        let words = app.state::<Shell>().words;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // On Linux a submenu keeps the name that it was made with. So one with another name is another one; what changes all the time
        // stands inside it.
        let stays = |entry: &Entry| face.streams.iter().any(|line| line.stream == entry.stream && line.name == entry.name);
        for entry in entries.extract_if(.., |entry| !stays(entry)) {
            self.menu.remove(&entry.menu)?;
        }
        for (at, line) in face.streams.iter().enumerate() {
            match entries.iter().find(|entry| entry.stream == line.stream) {
                Some(entry) if entry.state.text()? == line.state => {}
                Some(entry) => entry.state.set_text(&line.state)?,
                None => {
                    let entry = Entry::new(app, line, words)?;
                    self.menu.insert(&entry.menu, at)?;
                    let place = at.min(entries.len());
                    entries.insert(place, entry);
                }
            }
        }
        if before.map(|before| &before.more) != Some(&face.more) {
            self.menu.remove(&self.more).ok();
            if let Some(more) = &face.more {
                self.more.set_text(more)?;
                self.menu.append(&self.more)?;
            }
        }
        Ok(())
    }
}

impl Entry {
    fn new(app: &AppHandle, line: &Line, words: &Words) -> tauri::Result<Self> {
        let (show, stop) = (Click::Show(line.stream.clone()), Click::Stop(line.stream.clone()));
        let state = MenuItem::new(app, &line.state, false, None::<&str>)?;
        let show = MenuItem::with_id(app, show.id(), words.show, true, None::<&str>)?;
        let stop = MenuItem::with_id(app, stop.id(), words.stop, true, None::<&str>)?;
        // A menu takes `&` for the mark of a key.
        let menu = Submenu::with_items(app, line.name.replace('&', "&&"), true, &[&state, &show, &stop])?;
        Ok(Self { stream: line.stream.clone(), name: line.name.clone(), menu, state })
    }
}
