//! Keeps the machine of a headless server awake while somebody watches, and only then: a small computer under a television would fall asleep
//! in the middle of a film, because nobody touches it. The window does this for itself, and knows other systems too.
//!
//! systemd's own program asks logind for the lock and holds it for as long as its child runs, which ends with its standard input: however
//! this process ends, nothing is held any longer. Where there is no such program, no bus or no permission, nothing happens.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

use crate::stream::Streams;

/// What asks logind.
const PROGRAM: &str = "systemd-inhibit";
/// What is refused while somebody watches: any sleep; or at least that of idle machines, which every user may refuse.
const WAYS: [&str; 2] = ["sleep:idle", "idle"];
/// How long logind may take to refuse. A lock that is granted is silent.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
/// How long the program may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// At most one look so often.
const PACE: Duration = Duration::from_secs(1);

/// Holds the machine awake while somebody watches. Dropped, it lets go.
pub async fn keep(streams: Arc<Streams>) {
    let mut moves = streams.moves();
    let mut held = Held::Nothing;
    loop {
        moves.mark_unchanged();
        let until = watched_until(&streams);
        held = held.turn(until.is_some()).await;
        tokio::time::sleep(PACE).await;
        tokio::select! {
            moved = moves.changed() => if moved.is_err() { return },
            () = sleep_until(until.map(Instant::from_std)) => {}
            // Somebody killed it, or logind went.
            () = held.lost() => {}
        }
    }
}

/// When the first of those who watch will have stopped, unless it asks again. `None`: nobody watches.
fn watched_until(streams: &Streams) -> Option<std::time::Instant> {
    let alive = streams.all().into_iter().filter(|stream| !stream.state().is_over());
    alive.filter_map(|stream| stream.watching().1).min()
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// What is held.
enum Held {
    Nothing,
    /// For as long as the child's input is open.
    Lock(Box<Child>, Option<ChildStdin>),
    /// It was refused, and is not asked for again before somebody watches anew.
    Refused,
}

impl Held {
    async fn turn(self, wanted: bool) -> Self {
        match (self, wanted) {
            (Self::Nothing, true) => take().await,
            (Self::Lock(mut lock, input), true) => match lock.try_wait() {
                Ok(None) => Self::Lock(lock, input),
                Ok(Some(_)) | Err(_) => Self::Refused,
            },
            (Self::Lock(lock, input), false) => {
                drop(input);
                let_go(lock).await;
                Self::Nothing
            }
            (Self::Refused, true) => Self::Refused,
            (Self::Nothing | Self::Refused, false) => Self::Nothing,
        }
    }

    /// Ends when the lock does.
    async fn lost(&mut self) {
        match self {
            Self::Lock(lock, _) => lock.wait().await.map_or((), drop),
            Self::Nothing | Self::Refused => std::future::pending().await,
        }
    }
}

async fn take() -> Held {
    for what in WAYS {
        let mut lock = match begin(what) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::debug!(%error, "this machine may fall asleep while somebody watches");
                return Held::Refused;
            }
        };
        // Waiting for a child closes its input.
        let input = lock.stdin.take();
        if tokio::time::timeout(REFUSED_WITHIN, lock.wait()).await.is_err() {
            tracing::info!(what, "this machine is kept awake while somebody watches");
            return Held::Lock(Box::new(lock), input);
        }
    }
    tracing::debug!("this machine may fall asleep while somebody watches: logind refuses");
    Held::Refused
}

fn begin(what: &str) -> std::io::Result<Child> {
    let mut program = Command::new(PROGRAM);
    program.arg(format!("--what={what}")).args(["--who=Balcony", "--why=Somebody watches a film", "--mode=block", "cat"]);
    // The last words of a program that nobody asked for are for nobody.
    program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()
}

async fn let_go(mut lock: Box<Child>) {
    if tokio::time::timeout(ENDS_WITHIN, lock.wait()).await.is_err() {
        // What is left ends with its handle.
        lock.start_kill().ok();
    }
}
