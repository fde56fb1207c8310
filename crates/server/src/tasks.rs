//! The one owner of all tasks: each has a name, a span, a group that can be cancelled, and a logged end.
//!
//! Groups form a tree (server → stream → production). Ending a group ends everything below it and waits for
//! it under a deadline; what does not end in time is dropped where it waits. This file does not restart
//! anything and knows nothing of what the tasks do.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A group of tasks. Cheap to clone; clones are the same group. Dropping it ends nothing.
#[derive(Clone)]
pub struct Tasks {
    group: Arc<Group>,
}

struct Group {
    name: String,
    tracker: TaskTracker,
    /// Asks the tasks to end.
    stop: CancellationToken,
    /// Drops those that did not.
    kill: CancellationToken,
    parent: Option<Tasks>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Done,
    /// By itself, with an error (which is logged).
    Failed,
    /// Its group was ended.
    Cancelled,
    /// It did not end in time and was dropped.
    Killed,
    /// It panicked (which is logged).
    Panicked,
}

impl Tasks {
    /// The group of the whole program.
    pub fn new() -> Self {
        Self::group("server".to_owned(), CancellationToken::new(), CancellationToken::new(), None)
    }

    /// A group below this one: it ends when this one ends, and can be ended alone.
    pub fn child(&self, name: impl Into<String>) -> Self {
        let (stop, kill) = (self.group.stop.child_token(), self.group.kill.child_token());
        Self::group(name.into(), stop, kill, Some(self.clone()))
    }

    fn group(name: String, stop: CancellationToken, kill: CancellationToken, parent: Option<Self>) -> Self {
        let tracker = TaskTracker::new();
        Self { group: Arc::new(Group { name, tracker, stop, kill, parent }) }
    }

    /// A token that is cancelled when this group is asked to end.
    pub fn stopping(&self) -> CancellationToken {
        self.group.stop.clone()
    }

    /// Whether the group was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.group.stop.is_cancelled()
    }

    /// How many tasks run in this group and below.
    pub fn len(&self) -> usize {
        self.group.tracker.len()
    }

    /// Whether nothing runs in this group and below.
    pub fn is_empty(&self) -> bool {
        self.group.tracker.is_empty()
    }

    /// Starts a task that is dropped at its next await when the group ends.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<End>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_fallible(name, future.map(Ok::<(), std::convert::Infallible>))
    }

    /// Like [`Tasks::spawn`], for a task that can fail: its error is logged.
    pub fn spawn_fallible<F, E>(&self, name: &'static str, future: F) -> JoinHandle<End>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let stop = self.stopping();
        self.launch(name, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => End::Cancelled,
                result = future => ended(name, result),
            }
        })
    }

    /// Starts a task that ends by itself when the token that it is given is cancelled, so that it can clean up.
    pub fn spawn_ending<F>(&self, name: &'static str, start: impl FnOnce(CancellationToken) -> F) -> JoinHandle<End>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = start(self.stopping());
        self.launch(name, async move {
            future.await;
            End::Done
        })
    }

    fn launch<F>(&self, name: &'static str, future: F) -> JoinHandle<End>
    where
        F: Future<Output = End> + Send + 'static,
    {
        let span = tracing::info_span!("task", group = %self.group.name, name);
        let kill = self.group.kill.clone();
        // Every group above counts the task too, so that ending a group waits for all below it.
        let mut tokens = vec![];
        let mut above = self.group.parent.clone();
        while let Some(group) = above {
            tokens.push(group.group.tracker.token());
            above = group.group.parent.clone();
        }
        let watched = async move {
            let started = Instant::now();
            let end = tokio::select! {
                biased;
                () = kill.cancelled() => End::Killed,
                end = AssertUnwindSafe(future).catch_unwind() => end.unwrap_or_else(|panic| panicked(name, &*panic)),
            };
            drop(tokens);
            tracing::debug!(task = name, ?end, seconds = started.elapsed().as_secs_f64(), "task ended");
            end
        };
        tokio::spawn(self.group.tracker.track_future(watched.instrument(span)))
    }

    /// Ends this group and everything below it: asks, waits up to `deadline`, drops what is left and gives it
    /// another second. Answers how many tasks had to be dropped. Tasks can no longer be added with effect.
    pub async fn end(&self, deadline: Duration) -> usize {
        self.group.stop.cancel();
        self.group.tracker.close();
        if tokio::time::timeout(deadline, self.group.tracker.wait()).await.is_ok() {
            return 0;
        }
        let left = self.group.tracker.len();
        tracing::warn!(group = %self.group.name, left, "tasks did not end in time and are dropped");
        self.group.kill.cancel();
        // A task that blocks its thread cannot be dropped; the program does not wait for it for ever.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.group.tracker.wait()).await;
        left
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({}, {} running)", self.group.name, self.len())
    }
}

fn ended<E: fmt::Display>(name: &'static str, result: Result<(), E>) -> End {
    match result {
        Ok(()) => End::Done,
        Err(error) => {
            tracing::warn!(task = name, %error, "task failed");
            End::Failed
        }
    }
}

fn panicked(name: &'static str, panic: &(dyn std::any::Any + Send)) -> End {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(task = name, text, "task panicked");
    End::Panicked
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn each_end_is_told() {
        let tasks = Tasks::new();
        let ends = [
            tasks.spawn("done", async {}),
            tasks.spawn_fallible("failed", async { Err("no") }),
            tasks.spawn("panicked", async { panic!("on purpose") }),
        ];
        let mut told = vec![];
        for end in ends {
            told.push(end.await.expect("joined"));
        }
        assert_eq!(told, [End::Done, End::Failed, End::Panicked]);
        let waiting = tasks.spawn("waiting", pending());
        assert_eq!(tasks.end(LONG).await, 0);
        assert_eq!(waiting.await.expect("joined"), End::Cancelled);
    }

    #[tokio::test]
    async fn a_child_ends_alone_and_with_its_parent() {
        let tasks = Tasks::new();
        let (left, right) = (tasks.child("left"), tasks.child("right"));
        let below = right.child("below");
        let (a, b) = (left.spawn("a", pending()), below.spawn("b", pending()));
        assert_eq!((tasks.len(), right.len()), (2, 1));
        left.end(LONG).await;
        assert_eq!(a.await.expect("joined"), End::Cancelled);
        assert!(!right.is_stopping() && !b.is_finished());
        assert_eq!(tasks.end(LONG).await, 0);
        assert!(b.is_finished() && below.is_stopping() && tasks.is_empty());
    }

    #[tokio::test]
    async fn a_task_may_clean_up_before_it_ends() {
        let tasks = Tasks::new();
        let (told, heard) = tokio::sync::oneshot::channel();
        tasks.spawn_ending("cleaner", |stop| async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            told.send(()).expect("heard");
        });
        assert_eq!(tasks.end(LONG).await, 0);
        heard.await.expect("cleaned up");
    }

    #[tokio::test]
    async fn what_does_not_end_is_dropped_at_the_deadline() {
        let tasks = Tasks::new();
        let child = tasks.child("stubborn");
        let task = child.spawn_ending("deaf", |_| pending());
        assert_eq!(tasks.end(Duration::from_millis(20)).await, 1);
        assert_eq!(task.await.expect("joined"), End::Killed);
    }

    #[tokio::test]
    async fn a_task_started_after_the_end_does_not_run() {
        let tasks = Tasks::new();
        tasks.end(LONG).await;
        assert_eq!(tasks.spawn("late", pending()).await.expect("joined"), End::Cancelled);
    }
}
