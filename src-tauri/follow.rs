//! Listens to the server as long as it runs, and brings what it tells to the tray, to the notifications and to what keeps the computer awake.

use std::time::Duration;

use jiff::Timestamp;
use tauri::{AppHandle, Manager};
use tokio::time::Instant;

use crate::news::{Event, Happening, Reader};
use crate::notify::Notice;
use crate::server::{Refusal, Server};
use crate::shell::Shell;
use crate::window;

/// How soon after something happened it is drawn; what happens until then is drawn with it.
const PACE: Duration = Duration::from_millis(250);
/// Before the line is opened again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Listens until the program ends.
pub(crate) async fn follow(app: AppHandle, server: Server) {
    loop {
        match listen(&app, &server).await {
            Ok(()) => tracing::debug!("the server's events ended"),
            Err(error) => tracing::warn!(%error, "the server's events cannot be heard"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn listen(app: &AppHandle, server: &Server) -> Result<(), Refusal> {
    let shell = app.state::<Shell>();
    let mut body = server.events().await?;
    shell.news().begin_anew(Timestamp::now());
    let mut reader = Reader::default();
    let mut due = None;
    loop {
        tokio::select! {
            part = body.chunk() => {
                let Some(events) = part?.and_then(|part| reader.take(&part)) else { return Ok(()) };
                events.iter().for_each(|event| hear(app, &shell, event));
                due.get_or_insert(Instant::now() + PACE);
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                shell.redraw(app);
            }
        }
    }
}

fn hear(app: &AppHandle, shell: &Shell, event: &Event) {
    let (happening, notice) = {
        let mut news = shell.news();
        let happening = news.hear(event, Timestamp::now());
        let notice = happening.as_ref().and_then(|happening| Notice::of(happening, news.overview.as_ref(), shell.words));
        (happening, notice)
    };
    let is_seen = matches!(&happening, Some(Happening::Ready { here: true, .. })) && window::is_looked_at(app);
    if let Some(notice) = notice.filter(|_| !is_seen) {
        notice.show(app);
    }
    if let Some(Happening::Paired(_)) = happening {
        shell.ask_for_login(app);
    }
}
