//! Keeps the heap small: in few arenas, and with free memory given back to the system when films that were open are closed.
//!
//! The system's allocator under Linux (glibc) keeps what was freed between pieces that live on: after a hundred films were opened at
//! once, seven times what lives. It gives whole free pages back when it is asked. Elsewhere there is nothing to ask, and nothing is done.
//! Decision 0010 says why this file alone may call what the compiler cannot check.

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Films close in crowds: the walk through the heap comes after the last of them.
const QUIET: Duration = Duration::from_secs(2);
/// And at the latest so long after the first.
const AT_LAST: Duration = Duration::from_secs(30);

/// Who is told when much was freed.
#[derive(Debug, Default)]
pub struct Heap {
    freed: Notify,
}

impl Heap {
    /// A film was closed: what it held is free.
    pub fn freed(&self) {
        self.freed.notify_one();
    }

    /// Gives back what is free each time that much was freed, until `stopping`.
    pub async fn tend(&self, stopping: CancellationToken) {
        while stopping.run_until_cancelled(self.settled(QUIET, AT_LAST)).await.is_some() {
            // Milliseconds, and every arena is locked in turn: not on a thread that answers.
            let gone = tokio::task::spawn_blocking(give_back).await.unwrap_or(false);
            tracing::debug!(gone, "free memory goes back to the system");
        }
    }

    /// Until something was freed and nothing more has been for a moment.
    async fn settled(&self, quiet: Duration, at_last: Duration) {
        self.freed.notified().await;
        let more = async { while tokio::time::timeout(quiet, self.freed.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(at_last, more).await;
    }
}

/// Lets all threads allocate from two arenas. glibc gives each of a crowd of threads one of its own (eight for each core), and what lives
/// on is scattered over all of them: pages that hold a little of it cannot be given back. Counts for arenas that are made from now on, so
/// it is called before there is a second thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn share() {
    #[expect(unsafe_code, reason = "decision 0010")]
    // SAFETY: mallopt(3) sets a number that is read under the allocator's own lock, and takes any value.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2)
    };
}

/// Other systems' allocators have no arenas to share, or share them.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share() {}

/// Gives whole pages that are free back to the system; says whether there were any.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() -> bool {
    #[expect(unsafe_code, reason = "decision 0010")]
    // SAFETY: malloc_trim(3) takes a number, touches only memory that is free, and may be called on any thread at any time.
    let gone = unsafe { libc::malloc_trim(0) };
    gone != 0
}

/// Other systems' allocators are not asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_that_closes_is_waited_for_but_not_for_ever() {
        let heap = Heap::default();
        let ever = Duration::from_secs(3600);
        let crowd = async {
            for _ in 0..5 {
                heap.freed();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            "the last has closed"
        };
        let quiet = async {
            heap.settled(Duration::from_millis(500), ever).await;
            "quiet"
        };
        let (mut crowd, mut quiet) = (Box::pin(crowd), Box::pin(quiet));
        let first = tokio::select! {
            said = &mut crowd => said,
            said = &mut quiet => said,
        };
        assert_eq!(first, "the last has closed");
        quiet.await;

        let endless = async {
            loop {
                heap.freed();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = heap.settled(ever, Duration::from_millis(200)) => {}
            () = endless => {}
        }
    }

    /// Many small pieces with a long one alive behind each: what an allocator does not give back by itself.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn what_lies_free_between_living_pieces_goes_back() {
        let resident = || {
            let said = std::fs::read_to_string("/proc/self/statm").expect("statm");
            said.split(' ').nth(1).expect("resident").parse::<usize>().expect("pages") * 4096
        };
        let pieces: Vec<Vec<u8>> = (0..20_000).map(|n| vec![1; if n % 64 == 0 { 100 } else { 4_000 }]).collect();
        let living: Vec<Vec<u8>> = pieces.into_iter().filter(|piece| piece.len() == 100).collect();
        let before = resident();
        assert!(give_back());
        let after = resident();
        assert!(before - after > 40 << 20, "{before} to {after} bytes with {} pieces alive", living.len());
    }
}
