//! What the parts of the shell share, and what is done when somebody asks for something: by the menu, by a notification, by a second start.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use balcony_server::app::Listening;
use jiff::Timestamp;
use tauri::{AppHandle, Manager};
use tauri_plugin_autostart::ManagerExt;
use tauri_plugin_deep_link::DeepLinkExt;
use tokio::io::AsyncReadExt;

use crate::awake::Awake;
use crate::face::{Checks, Face};
use crate::follow::follow;
use crate::kept::Kept;
use crate::links::{Launch, Link, magnet_in};
use crate::news::News;
use crate::notify::{Deed, Notice};
use crate::server::{Refusal, Server};
use crate::tray::Tray;
use crate::words::{Words, fill};
use crate::{bus, clipboard, window};

/// The largest torrent file that is read; the server takes no larger one.
const LARGEST_TORRENT: u64 = 8 << 20;

/// An entry of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Click {
    Open,
    Pair,
    AddMagnet,
    Pause,
    Login,
    Awake,
    Links,
    CopyDiagnostics,
    Quit,
    /// A stream's.
    Show(String),
    /// A stream's.
    Stop(String),
}

impl Click {
    const PLAIN: [(Self, &'static str); 9] = [
        (Self::Open, "open"),
        (Self::Pair, "pair"),
        (Self::AddMagnet, "add-magnet"),
        (Self::Pause, "pause"),
        (Self::Login, "login"),
        (Self::Awake, "awake"),
        (Self::Links, "links"),
        (Self::CopyDiagnostics, "copy-diagnostics"),
        (Self::Quit, "quit"),
    ];

    /// Its name in the menu.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Show(stream) => format!("show:{stream}"),
            Self::Stop(stream) => format!("stop:{stream}"),
            plain => Self::PLAIN.iter().find(|(click, _)| click == plain).map_or("", |(_, id)| id).to_owned(),
        }
    }

    /// The entry of that name.
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        match id.split_once(':') {
            Some(("show", stream)) => Some(Self::Show(stream.to_owned())),
            Some(("stop", stream)) => Some(Self::Stop(stream.to_owned())),
            _ => Self::PLAIN.into_iter().find(|(_, name)| *name == id).map(|(click, _)| click),
        }
    }
}

/// Everything that outlives a click. There is one.
pub(crate) struct Shell {
    pub(crate) words: &'static Words,
    /// The server's folder of what it keeps.
    pub(crate) data_dir: PathBuf,
    kept: Kept,
    awake: Awake,
    tray: OnceLock<Tray>,
    server: OnceLock<Server>,
    news: Mutex<News>,
    /// As the session has them.
    checks: Mutex<Checks>,
    /// What somebody asked for before there was a server.
    asked: Mutex<Vec<Asked>>,
}

/// Something that needs the server.
#[derive(Debug)]
enum Asked {
    Show(Option<String>),
    Add(Link),
}

impl Shell {
    /// Reads what is kept. Nothing is shown yet.
    ///
    /// # Errors
    /// When there is no thread for what has to wait.
    pub(crate) fn open(config_dir: &Path, data_dir: &Path) -> std::io::Result<Self> {
        let words = Words::of_system();
        Ok(Self {
            words,
            data_dir: data_dir.to_owned(),
            kept: Kept::open(config_dir),
            awake: Awake::start(words.keep_awake)?,
            tray: OnceLock::new(),
            server: OnceLock::new(),
            news: Mutex::new(News::since(Timestamp::now())),
            checks: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// Takes the tray, once it is up.
    pub(crate) fn put_up(&self, app: &AppHandle, tray: Tray) {
        self.tray.set(tray).ok();
        self.look_at_session(app);
    }

    /// The first start of this run: the window comes where nobody would see anything else.
    pub(crate) fn launched(&self, app: &AppHandle, launch: Launch) {
        let is_seen = self.tray.get().is_some() && bus::has_tray();
        if !launch.hidden && (!self.kept.choices().welcomed || !is_seen) {
            self.show(app, None);
            self.kept.change(|choices| choices.welcomed = true);
        }
        launch.links.into_iter().for_each(|link| self.add(app, link));
    }

    /// A second start handed over what it was asked to do.
    pub(crate) fn launched_again(&self, app: &AppHandle, launch: Launch) {
        if launch.links.is_empty() && !launch.hidden {
            self.show(app, None);
        }
        launch.links.into_iter().for_each(|link| self.add(app, link));
    }

    /// The server listens: what was asked for meanwhile is done, and its news are followed.
    pub(crate) fn begin(&self, app: &AppHandle, listening: &Listening) {
        let server = match Server::at(listening) {
            Ok(server) => server,
            Err(error) => return tracing::error!(%error, "the server inside cannot be asked"),
        };
        let asked = {
            // Under the lock, so that nothing is asked between the two.
            let mut asked = lock(&self.asked);
            self.server.set(server.clone()).ok();
            std::mem::take(&mut *asked)
        };
        tauri::async_runtime::spawn(follow(app.clone(), server));
        for asked in asked {
            match asked {
                Asked::Show(route) => self.show(app, route),
                Asked::Add(link) => self.add(app, link),
            }
        }
    }

    /// What is known of the server. Not to be held across anything that waits.
    pub(crate) fn news(&self) -> MutexGuard<'_, News> {
        lock(&self.news)
    }

    /// Shows the tray as things are now.
    pub(crate) fn redraw(&self, app: &AppHandle) {
        let choices = self.kept.choices();
        let checks = Checks { awake: choices.keep_awake, ..*lock(&self.checks) };
        let (face, watching) = {
            let news = self.news();
            (Face::of(&news, checks, self.words), news.overview.as_ref().is_some_and(|overview| overview.watching > 0))
        };
        self.awake.keep(choices.keep_awake && watching);
        on_first_thread(app, move |app| {
            let Some(tray) = app.state::<Self>().inner().tray.get() else { return };
            if let Err(error) = tray.draw(app, &face) {
                tracing::warn!(%error, "the tray is not as it should be");
            }
        });
    }

    /// Brings the window, at a route of its page or where it was.
    pub(crate) fn show(&self, app: &AppHandle, route: Option<String>) {
        let Some(server) = self.server_or(|| Asked::Show(route.clone())) else { return };
        on_first_thread(app, move |app| window::show(app, &server, route.as_deref()));
    }

    /// Starts a film, and shows the window at it.
    pub(crate) fn add(&self, app: &AppHandle, link: Link) {
        let Some(server) = self.server_or(|| Asked::Add(link.clone())) else { return };
        let app = app.clone();
        tauri::async_runtime::spawn(async move {
            let shell = app.state::<Self>();
            match shell.start(&server, link).await {
                Ok(stream) => shell.show(&app, Some(format!("/stream/{stream}"))),
                Err(why) => shell.tell(&app, Notice::new(shell.words.not_added, why)),
            }
        });
    }

    async fn start(&self, server: &Server, link: Link) -> Result<String, String> {
        let magnet = match link {
            Link::Magnet(magnet) => magnet,
            Link::File(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let torrent = read_torrent(&path).await.map_err(|error| {
                    tracing::warn!(%error, "a torrent file cannot be read");
                    fill(self.words.bad_file, &[("file", &name)])
                })?;
                server.magnet_of(torrent).await.map_err(|refusal| self.why(&refusal))?
            }
        };
        server.start(&magnet).await.map_err(|refusal| self.why(&refusal))
    }

    /// The server; where it does not listen yet, what is asked of it waits until it does.
    fn server_or(&self, asked: impl FnOnce() -> Asked) -> Option<Server> {
        let mut waiting = lock(&self.asked);
        let server = self.server.get().cloned();
        if server.is_none() {
            waiting.push(asked());
        }
        server
    }

    /// Somebody clicked in the menu. On the first thread.
    pub(crate) fn clicked(&self, app: &AppHandle, click: Click) {
        match &click {
            Click::Open => self.show(app, None),
            Click::Pair => self.show(app, Some("/pair".to_owned())),
            Click::Show(stream) => self.show(app, Some(format!("/stream/{stream}"))),
            Click::Quit => quit(app),
            Click::Awake => {
                let on = self.is_checked(&click);
                self.kept.change(|choices| choices.keep_awake = on);
                self.redraw(app);
            }
            Click::Login | Click::Links => {
                let (app, on) = (app.clone(), self.is_checked(&click));
                tauri::async_runtime::spawn_blocking(move || app.state::<Self>().change_session(&app, &click, on));
            }
            Click::AddMagnet => {
                let app = app.clone();
                tauri::async_runtime::spawn_blocking(move || app.state::<Self>().add_from_clipboard(&app));
            }
            Click::Pause | Click::Stop(_) | Click::CopyDiagnostics => {
                let (app, on) = (app.clone(), self.is_checked(&click));
                tauri::async_runtime::spawn(async move {
                    let shell = app.state::<Self>();
                    if let Err(why) = shell.ask(&app, click, on).await {
                        shell.tell(&app, Notice::new(shell.words.did_not_work, why));
                    }
                    // A mark that a click set stands for nothing when that failed.
                    shell.redraw(&app);
                });
            }
        }
    }

    fn is_checked(&self, click: &Click) -> bool {
        self.tray.get().is_some_and(|tray| tray.is_checked(click))
    }

    async fn ask(&self, app: &AppHandle, click: Click, on: bool) -> Result<(), String> {
        let server = self.server.get().ok_or_else(|| self.words.no_answer.to_owned())?;
        let asked = match click {
            Click::Pause => server.pause(on).await,
            Click::Stop(stream) => server.stop(&stream).await,
            _ => return self.copy_diagnostics(app, server).await,
        };
        asked.map_err(|refusal| self.why(&refusal))
    }

    async fn copy_diagnostics(&self, app: &AppHandle, server: &Server) -> Result<(), String> {
        let report = server.report().await.map_err(|refusal| self.why(&refusal))?;
        let written = tauri::async_runtime::spawn_blocking(move || clipboard::write(report)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Notice::new(self.words.diagnostics_copied, self.words.diagnostics_copied_what).show(app);
        Ok(())
    }

    fn add_from_clipboard(&self, app: &AppHandle) {
        match clipboard::read().as_deref().and_then(magnet_in) {
            Some(magnet) => self.add(app, Link::Magnet(magnet)),
            None => self.tell(app, Notice::new(self.words.no_magnet, self.words.no_magnet_what)),
        }
    }

    /// What a notification offered.
    pub(crate) fn act(&self, app: &AppHandle, deed: Deed) {
        match deed {
            Deed::Open => self.show(app, None),
            Deed::Show(route) => self.show(app, Some(route)),
            Deed::Quit => quit(app),
            Deed::StartAtLogin => self.change_session(app, &Click::Login, true),
            Deed::Revoke { id, name } => {
                let (app, server) = (app.clone(), self.server.get().cloned());
                tauri::async_runtime::spawn(async move {
                    let (shell, Some(server)) = (app.state::<Self>(), server) else { return };
                    match server.revoke(&id).await {
                        Ok(()) => Notice::new(fill(shell.words.revoked, &[("device", &name)]), "").show(&app),
                        Err(refusal) => shell.tell(&app, Notice::new(shell.words.did_not_work, shell.why(&refusal))),
                    }
                });
            }
        }
    }

    /// Asks once whether the program should start at login: when the first phone came in, for that is what it would be good for.
    pub(crate) fn ask_for_login(&self, app: &AppHandle) {
        if self.kept.choices().asked_for_login || lock(&self.checks).login {
            return;
        }
        self.kept.change(|choices| choices.asked_for_login = true);
        Notice::asking_for_login(self.words).show(app);
    }

    /// The window was closed and is hidden.
    pub(crate) fn closed(&self, app: &AppHandle) {
        let has_tray = self.tray.get().is_some() && bus::has_tray();
        if !has_tray || !self.kept.choices().told_that_it_goes_on {
            Notice::going_on(has_tray, self.words).show(app);
            self.kept.change(|choices| choices.told_that_it_goes_on = true);
        }
    }

    /// Changes what the session does for this program. Runs other programs: not on the first thread.
    fn change_session(&self, app: &AppHandle, click: &Click, on: bool) {
        let changed = match (click, on) {
            (Click::Login, true) => app.autolaunch().enable().map_err(|error| error.to_string()),
            (Click::Login, false) => app.autolaunch().disable().map_err(|error| error.to_string()),
            (_, true) => app.deep_link().register("magnet").map_err(|error| error.to_string()),
            (_, false) => app.deep_link().unregister("magnet").map_err(|error| error.to_string()),
        };
        if let Err(error) = changed {
            self.tell(app, Notice::new(self.words.did_not_work, error));
        }
        self.take_session(app);
    }

    fn look_at_session(&self, app: &AppHandle) {
        let app = app.clone();
        tauri::async_runtime::spawn_blocking(move || app.state::<Self>().take_session(&app));
    }

    /// The window was left: its page may have changed whether the program starts at login.
    pub(crate) fn left(&self, app: &AppHandle) {
        lock(&self.checks).login = app.autolaunch().is_enabled().unwrap_or_default();
        self.redraw(app);
    }

    fn take_session(&self, app: &AppHandle) {
        let login = app.autolaunch().is_enabled().unwrap_or_default();
        let links = app.deep_link().is_registered("magnet").unwrap_or_default();
        {
            let mut checks = lock(&self.checks);
            (checks.login, checks.links) = (login, links);
        }
        self.redraw(app);
    }

    /// Answers somebody who asked for something: where nobody shows notifications, the window has to do.
    fn tell(&self, app: &AppHandle, notice: Notice) {
        notice.show(app);
        if !bus::has_notifications() {
            eprintln!("{notice}");
            self.show(app, Some("/".to_owned()));
        }
    }

    fn why(&self, refusal: &Refusal) -> String {
        match refusal {
            Refusal::Said { code, detail } => self.words.refusal(code).map_or_else(|| detail.clone(), str::to_owned),
            Refusal::Silent(error) => {
                tracing::warn!(%error, "the server inside does not answer");
                self.words.no_answer.to_owned()
            }
        }
    }

    /// The server ended: the program does, too. With the sentence of a server that could not go on.
    pub(crate) fn over(&self, app: &AppHandle, why: Option<String>) {
        if let Some(why) = &why {
            // Who started it by a click sees no terminal.
            bus::notify_now(self.words.did_not_start, why);
        }
        app.exit(i32::from(why.is_some()));
    }

    fn take_down(&self, app: &AppHandle) {
        window::hide(app);
        if let Some(tray) = self.tray.get() {
            tray.hide();
        }
    }
}

/// Ends the program in order: nothing is seen of it while the server ends.
pub(crate) fn quit(app: &AppHandle) {
    on_first_thread(app, |app| {
        app.state::<Shell>().take_down(app);
        app.exit(0);
    });
}

async fn read_torrent(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut torrent = Vec::new();
    // One byte more than the server takes, so that it says what is wrong with a larger one.
    tokio::fs::File::open(path).await?.take(LARGEST_TORRENT + 1).read_to_end(&mut torrent).await?;
    Ok(torrent)
}

fn on_first_thread(app: &AppHandle, act: impl FnOnce(&AppHandle) + Send + 'static) {
    let there = app.clone();
    // It fails only when the program is ending.
    app.run_on_main_thread(move || act(&there)).ok();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_name_of_its_own() {
        let streams = [Click::Show("k3v9".into()), Click::Stop("k3v9".into())];
        for click in Click::PLAIN.into_iter().map(|(click, _)| click).chain(streams) {
            assert_eq!(Click::of_id(&click.id()), Some(click));
        }
        for id in ["", "status", "show", "other:x"] {
            assert_eq!(Click::of_id(id), None, "{id}");
        }
    }
}
