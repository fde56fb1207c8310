//! Keeps the computer awake while somebody watches, and only then. The screen may go dark: the film is on a phone.

use std::sync::mpsc::{self, Sender};

use keepawake::KeepAwake;

/// Who holds the computer awake. Lets it sleep when dropped.
#[derive(Debug)]
pub(crate) struct Awake {
    wanted: Sender<bool>,
}

impl Awake {
    /// Begins without holding. On a thread of its own, for the system may take its time to answer.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn start(reason: &'static str) -> std::io::Result<Self> {
        let (wanted, told) = mpsc::channel::<bool>();
        std::thread::Builder::new().name("awake".into()).spawn(move || {
            let mut held: Option<KeepAwake> = None;
            let mut before = false;
            for wanted in told {
                // Where it was refused once, it is not asked for at every turn.
                if wanted != before {
                    held = if wanted { hold(reason) } else { None };
                    before = wanted;
                }
            }
            drop(held);
        })?;
        Ok(Self { wanted })
    }

    /// From now on the computer is kept awake, or no longer.
    pub(crate) fn keep(&self, wanted: bool) {
        // The thread lives as long as this.
        self.wanted.send(wanted).ok();
    }
}

fn hold(reason: &str) -> Option<KeepAwake> {
    let mut lock = keepawake::Builder::default();
    lock.idle(true).reason(reason).app_name("Balcony").app_reverse_domain("app.balcony.desktop");
    // On Linux, desktops that put a computer to sleep do that as if somebody had asked for it; where a program may not refuse that,
    // what it may has to do.
    let firm = cfg!(target_os = "linux").then(|| lock.clone().sleep(true).create().ok()).flatten();
    let held = firm.map_or_else(|| lock.create(), Ok);
    held.inspect_err(|error| tracing::warn!(%error, "the computer may fall asleep while somebody watches")).ok()
}
