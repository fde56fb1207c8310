//! The session of a Linux desktop, over its bus: whether somebody shows tray icons and notifications, and that it ends.
//!
//! No other system needs this file: there is always a tray there, and the session's end comes as the end of the application.

use std::time::Duration;

use gtk::gio::{self, BusType, Cancellable, DBusCallFlags, DBusConnection, DBusSignalFlags};
use gtk::glib::prelude::*;
use gtk::glib::{Error, Variant};
use tauri::AppHandle;

use crate::shell;

/// Who is on the same bus answers at once or not at all.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
const NOTIFICATIONS: &str = "org.freedesktop.Notifications";

/// Opens the display.
///
/// # Errors
/// When there is none: one sentence.
pub(crate) fn open_display() -> Result<(), String> {
    gtk::init().map_err(|_| "There is no display".to_owned())
}

/// Whether there is a place for tray icons.
pub(crate) fn has_tray() -> bool {
    let property = ("org.kde.StatusNotifierWatcher", "IsStatusNotifierHostRegistered").to_variant();
    let answer = ask("org.kde.StatusNotifierWatcher", "/StatusNotifierWatcher", "org.freedesktop.DBus.Properties", "Get", &property);
    answer.ok().and_then(|answer| answer.child_value(0).as_variant()).and_then(|value| value.get()).unwrap_or_default()
}

/// Whether somebody shows notifications, or would if there were one.
pub(crate) fn has_notifications() -> bool {
    let names = |method: &str| ask_bus(method, None).ok().and_then(|answer| answer.child_value(0).get::<Vec<String>>());
    ["ListNames", "ListActivatableNames"].into_iter().filter_map(names).flatten().any(|name| name == NOTIFICATIONS)
}

/// Shows a notification before this returns: for a program that ends right after it.
pub(crate) fn notify_now(title: &str, body: &str) {
    let hints = gtk::glib::VariantDict::new(None);
    hints.insert("urgency", 2_u8);
    let no_actions: [&str; 0] = [];
    let what = ("Balcony", 0_u32, "balcony", title, body, &no_actions[..], hints.end(), -1_i32).to_variant();
    ask(NOTIFICATIONS, "/org/freedesktop/Notifications", NOTIFICATIONS, "Notify", &what).ok();
}

fn ask_bus(method: &str, what: Option<&Variant>) -> Result<Variant, Error> {
    let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    call(&session()?, name, path, name, method, what)
}

fn ask(name: &str, path: &str, interface: &str, method: &str, what: &Variant) -> Result<Variant, Error> {
    call(&session()?, name, path, interface, method, Some(what))
}

fn session() -> Result<DBusConnection, Error> {
    gio::bus_get_sync(BusType::Session, Cancellable::NONE)
}

fn call(bus: &DBusConnection, name: &str, path: &str, interface: &str, method: &str, what: Option<&Variant>) -> Result<Variant, Error> {
    let within = i32::try_from(ANSWERS_WITHIN.as_millis()).unwrap_or(i32::MAX);
    let flags = DBusCallFlags::NO_AUTO_START;
    bus.call_sync(Some(name), path, interface, method, what, None, flags, within, Cancellable::NONE)
}

/// A session manager that programs can register with, to be asked and told before it ends.
struct Keeper {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
    client: &'static str,
}

/// GNOME, MATE, Cinnamon and their kin; Xfce. Others end a session by signals alone.
const KEEPERS: [Keeper; 2] = [
    Keeper {
        name: "org.gnome.SessionManager",
        path: "/org/gnome/SessionManager",
        interface: "org.gnome.SessionManager",
        client: "org.gnome.SessionManager.ClientPrivate",
    },
    Keeper {
        name: "org.xfce.SessionManager",
        path: "/org/xfce/SessionManager",
        interface: "org.xfce.Session.Manager",
        client: "org.xfce.Session.Client",
    },
];

/// Listens for the end of the session, so that the server ends in order before the display is gone. On the first thread only.
pub(crate) fn watch_session(app: &AppHandle) {
    let Ok(bus) = session() else { return };
    for keeper in &KEEPERS {
        let who = (app.config().identifier.as_str(), std::env::var("DESKTOP_AUTOSTART_ID").unwrap_or_default()).to_variant();
        let Ok(answer) = call(&bus, keeper.name, keeper.path, keeper.interface, "RegisterClient", Some(&who)) else { continue };
        let path = answer.child_value(0);
        let (app, client) = (app.clone(), keeper.client);
        // The subscription lasts as long as the connection, and that as long as the program.
        bus.signal_subscribe(None, Some(client), None, path.str(), None, DBusSignalFlags::NONE, move |bus, sender, path, _, signal, _| {
            match signal {
                // Nothing here is lost by ending.
                "QueryEndSession" => {
                    let yes = (true, "").to_variant();
                    call(bus, sender, path, client, "EndSessionResponse", Some(&yes)).ok();
                }
                // The end of the process is the answer.
                "EndSession" | "Stop" => shell::quit(&app),
                _ => {}
            }
        });
        return;
    }
}
