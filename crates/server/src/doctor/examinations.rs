//! The server examines itself at most once in a while, however many ask: who asks meanwhile gets the answer of the one before.
//! What is examined is not known here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Diagnosis;
use crate::lock::lock;
use crate::tasks::Tasks;

/// For how long an answer counts.
const FRESH: Duration = Duration::from_secs(5);
/// How long an answer is waited for; every part of it has a deadline of its own, and they end before.
const WAIT: Duration = Duration::from_secs(30);

type Answer<T> = watch::Receiver<Option<(Instant, Arc<T>)>>;

/// The last examination, or the one that runs.
#[derive(Debug)]
pub struct Examinations<T = Diagnosis> {
    last: Mutex<Option<Answer<T>>>,
    began: Instant,
    fresh: Duration,
    wait: Duration,
}

impl Default for Examinations {
    fn default() -> Self {
        Self::new(FRESH, WAIT)
    }
}

impl<T: Send + Sync + 'static> Examinations<T> {
    /// None was made yet. An answer counts for as long as `fresh`, and is waited for as long as `wait`.
    pub fn new(fresh: Duration, wait: Duration) -> Self {
        Self { last: Mutex::default(), began: Instant::now(), fresh, wait }
    }

    /// For how long the server runs.
    pub fn since(&self) -> Duration {
        self.began.elapsed()
    }

    /// What an examination finds now, or found just now. `None` where it ended without an answer or took too long.
    pub async fn diagnosis<F>(&self, tasks: &Tasks, examine: impl FnOnce() -> F) -> Option<Arc<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut answer = self.begun(tasks, examine);
        let found = timeout(self.wait, answer.wait_for(Option::is_some)).await.ok()?.ok()?;
        found.as_ref().map(|(_, diagnosis)| diagnosis.clone())
    }

    fn begun<F>(&self, tasks: &Tasks, examine: impl FnOnce() -> F) -> Answer<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut last = lock(&self.last);
        if let Some(answer) = last.as_ref().filter(|answer| self.is_fresh(answer)) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        let work = examine();
        tasks.spawn("examination", async move {
            let found = work.await;
            tell.send_replace(Some((Instant::now(), Arc::new(found))));
        });
        *last = Some(answer.clone());
        answer
    }

    /// Whether it counts still, or will.
    fn is_fresh(&self, answer: &Answer<T>) -> bool {
        match &*answer.borrow() {
            Some((at, _)) => at.elapsed() < self.fresh,
            // Its task may have ended without a word.
            None => answer.has_changed().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn examinations(fresh: u64, wait: u64) -> Examinations {
        Examinations { fresh: Duration::from_millis(fresh), wait: Duration::from_millis(wait), ..Examinations::default() }
    }

    #[tokio::test]
    async fn many_who_ask_are_one_examination() {
        let (tasks, made) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let examinations = examinations(500, 10_000);
        let ask = || {
            let made = made.clone();
            examinations.diagnosis(&tasks, move || async move {
                made.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(700)).await;
                Diagnosis::of(vec![])
            })
        };
        let (first, second) = tokio::join!(ask(), ask());
        assert!(first.is_some() && second.is_some() && ask().await.is_some());
        assert_eq!(made.load(Ordering::Relaxed), 1, "it counts from its end");
        tokio::time::sleep(Duration::from_millis(550)).await;
        assert!(ask().await.is_some());
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn one_that_fails_or_hangs_keeps_nobody_waiting() {
        let (tasks, examinations) = (Tasks::new(), examinations(10_000, 100));
        assert_eq!(examinations.diagnosis(&tasks, || async { panic!("on purpose") }).await, None);
        assert!(examinations.diagnosis(&tasks, || async { Diagnosis::of(vec![]) }).await.is_some(), "after a failure the next one begins");
        let hanging = super::tests::examinations(10_000, 100);
        assert_eq!(hanging.diagnosis(&tasks, std::future::pending).await, None);
    }
}
