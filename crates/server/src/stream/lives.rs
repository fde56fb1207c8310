//! How long things count in a stream's life, and a clock that no jump of the wall's clock moves. It decides nothing.

use std::time::Duration;

use jiff::Timestamp;

/// A stream is watched while something of it was asked for within this time.
const WATCHED: Duration = Duration::from_secs(600);
/// A stream that is over can still be asked about for this long.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A film that is whole and of which nothing was asked for within this time goes to sleep. Players ask at least every minute or two, and
/// most pauses are shorter than this; who comes back later waits some tenths of a second for the film to be opened, as after a restart.
const RESTS: Duration = Duration::from_secs(300);

/// How long things count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    /// A stream is watched while something of it was asked for within this time.
    pub watched: Duration,
    /// A stream that is over can still be asked about for this long.
    pub remembered: Duration,
    /// A film that is whole and of which nothing was asked for within this time goes to sleep.
    pub rests: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self { watched: WATCHED, remembered: REMEMBERED, rests: RESTS }
    }
}

impl Lives {
    /// As usual; a program with debug assertions takes shorter ones from its environment (`TEST_STREAM_WATCHED_MS`,
    /// `TEST_STREAM_REMEMBERED_MS`, `TEST_STREAM_RESTS_MS`), so that tests need not wait.
    pub fn of_this_program() -> Self {
        let usual = Self::default();
        Self {
            watched: for_tests("TEST_STREAM_WATCHED_MS").unwrap_or(usual.watched),
            remembered: for_tests("TEST_STREAM_REMEMBERED_MS").unwrap_or(usual.remembered),
            rests: for_tests("TEST_STREAM_RESTS_MS").unwrap_or(usual.rests),
        }
    }
}

/// A time that tests give to a program with debug assertions, in milliseconds, because they cannot wait for minutes.
pub fn for_tests(variable: &str) -> Option<Duration> {
    let told = std::env::var(variable).ok().filter(|_| cfg!(debug_assertions))?;
    told.parse().ok().map(Duration::from_millis)
}

/// Time since some beginning. It goes on while the machine sleeps, and nobody can set it.
pub fn uptime() -> Duration {
    // On macOS this one counts sleep.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// When a stream's life ends, on the wall's clock as people read it and by a clock that does not jump. A wall's clock that is set while
/// the program runs ends no life too early, nor makes it endless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// As it is told and written down.
    pub told: Timestamp,
    /// By [`uptime`].
    at: Duration,
}

impl Lifetime {
    /// The end that is told as `told`, where the wall's clock shows `now` at `uptime`.
    pub fn new(told: Timestamp, now: Timestamp, uptime: Duration) -> Self {
        let left = Duration::try_from(told.duration_since(now)).unwrap_or_default();
        Self { told, at: uptime.saturating_add(left) }
    }

    /// How long it is until then.
    pub fn left(&self, uptime: Duration) -> Duration {
        self.at.saturating_sub(uptime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_lasts_as_long_as_was_told_whatever_the_wall_says() {
        let second = Duration::from_secs;
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let told = now.checked_add(second(100)).expect("a time");
        let end = Lifetime::new(told, now, second(5000));
        assert_eq!(end.left(second(5000)), second(100));
        assert_eq!(end.left(second(5090)), second(10));
        assert_eq!(end.left(second(5101)), Duration::ZERO);
        // Told in the past, as after a long rest: it is over at once.
        assert_eq!(Lifetime::new(now, told, second(1)).left(second(1)), Duration::ZERO);
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = uptime();
        std::thread::sleep(Duration::from_millis(2));
        let passed = uptime() - before;
        assert!(passed >= Duration::from_millis(2) && passed < Duration::from_secs(60), "{passed:?}");
    }
}
