//! How often and how much at once: who asks too often hears 429, and how long to wait.
//!
//! | who | how often | in store |
//! |---|---|---|
//! | an address without a token | 20 a second | 20 |
//! | an address that tries to pair | 10 a minute | 10 |
//! | a device that starts streams | 20 a minute | 20 |
//! | a device that looks into torrents | 20 a minute, 3 at once | 20 |
//! | a device that brings torrents which nobody streams yet | 50 at once | |
//! | a device | 200 a second | 400 |
//! | a device of the owner | 500 a second | 1000 |
//!
//! Media is never counted by rate: a player that seeks asks for much in a short time. There it counts how many answers
//! one device takes at once. What is remembered is bounded, whoever asks; nothing here waits.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::problem::{Code, Problem};
use crate::lock::lock;
use crate::trust::DeviceId;

/// How many keys a limit remembers at most. A house has fewer.
const REMEMBERED: usize = 4096;
/// How many torrents one device may look into at once: each holds connections to many peers.
const INSPECTING: usize = 3;
/// How many torrents one device may bring that nobody streams yet: each lies on the disk.
const BRINGING: usize = 50;
/// How many answers with media one device may take at once.
const PLAYING: usize = 64;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// All limits of the server.
#[derive(Debug)]
pub struct Limits<C: Clock = MonotonicClock> {
    strangers: Rate<IpAddr, C>,
    pairing: Rate<IpAddr, C>,
    starts: Rate<DeviceId, C>,
    inspections: Rate<DeviceId, C>,
    inspecting: Counts<DeviceId>,
    bringing: Counts<DeviceId>,
    devices: Rate<DeviceId, C>,
    owners: Rate<DeviceId, C>,
    playing: Counts<DeviceId>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&MonotonicClock)
    }
}

impl<C: Clock + Clone> Limits<C> {
    /// Limits by this clock, with everything in store.
    pub fn new(clock: &C) -> Self {
        Self {
            strangers: Rate::new(20, SECOND, 20, clock),
            pairing: Rate::new(10, MINUTE, 10, clock),
            starts: Rate::new(20, MINUTE, 20, clock),
            inspections: Rate::new(20, MINUTE, 20, clock),
            inspecting: Counts::default(),
            bringing: Counts::default(),
            devices: Rate::new(200, SECOND, 400, clock),
            owners: Rate::new(500, SECOND, 1000, clock),
            playing: Counts::default(),
        }
    }

    /// Counts a request without a token.
    ///
    /// # Errors
    /// How long to wait.
    pub fn stranger(&self, address: IpAddr) -> Result<(), Duration> {
        self.strangers.take(&house(address))
    }

    /// Counts an attempt to pair.
    ///
    /// # Errors
    /// How long to wait.
    pub fn pairing(&self, address: IpAddr) -> Result<(), Duration> {
        self.pairing.take(&house(address))
    }

    /// Counts the start of a stream.
    ///
    /// # Errors
    /// How long to wait.
    pub fn start(&self, device: &DeviceId) -> Result<(), Duration> {
        self.starts.take(device)
    }

    /// Counts a look into a torrent, which goes on until what is returned is dropped.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub fn inspect(&self, device: &DeviceId) -> Result<Inspection, Problem> {
        let taken = self.inspecting.take(device.clone(), INSPECTING);
        let taken = taken.ok_or_else(|| too_many("This device looks into too many torrents at once.", SECOND))?;
        self.inspections.take(device).map_err(|wait| too_many("Too many torrents were looked into in a short time.", wait))?;
        Ok(Inspection { _taken: taken })
    }

    /// Counts a torrent that was brought, which is kept until what is returned is dropped.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub fn bring(&self, device: &DeviceId) -> Result<Inspection, Problem> {
        let taken = self.bringing.take(device.clone(), BRINGING);
        let taken = taken.ok_or_else(|| too_many("This device brought many torrents that nobody streams yet.", MINUTE))?;
        Ok(Inspection { _taken: taken })
    }

    /// Counts a request of a device; `owner` says whether it has the owner's scope.
    ///
    /// # Errors
    /// How long to wait.
    pub fn call(&self, device: &DeviceId, owner: bool) -> Result<(), Duration> {
        if owner { self.owners.take(device) } else { self.devices.take(device) }
    }

    /// A seat for one answer with media. It is taken until the last clone is dropped, which the door does with the answer's
    /// body when it finds the seat in the answer's extensions. The owner's devices have as many as they like.
    ///
    /// # Errors
    /// `too_many_requests` when the device has all that it may have.
    pub fn play(&self, device: &DeviceId, owner: bool) -> Result<Seat, Problem> {
        let most = if owner { usize::MAX } else { PLAYING };
        let seat = self.playing.take(device.clone(), most).map(|taken| Seat { _taken: Arc::new(taken) });
        seat.ok_or_else(|| too_many("This device is being sent too much at once.", SECOND))
    }
}

/// One look into a torrent.
#[derive(Debug)]
pub struct Inspection {
    _taken: Taken<DeviceId>,
}

/// One answer with media that is being sent.
#[derive(Debug, Clone)]
pub struct Seat {
    _taken: Arc<Taken<DeviceId>>,
}

/// The answer to who asks too often.
pub fn too_many(detail: &str, wait: Duration) -> Problem {
    Problem::new(Code::TooManyRequests, detail).retry_after(wait)
}

/// So many per so long for each key, with so many in store.
struct Rate<K: Hash + Eq + Clone, C: Clock> {
    quota: Quota,
    clock: C,
    keys: ArcSwap<Keys<K, C>>,
}

type Keys<K, C> = RateLimiter<K, HashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl<K: Hash + Eq + Clone, C: Clock + Clone> Rate<K, C> {
    fn new(count: u32, time: Duration, store: u32, clock: &C) -> Self {
        let each = time / count.max(1);
        let store = NonZeroU32::new(store).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(each).expect("no rate of the table is endless").allow_burst(store);
        let keys = ArcSwap::from_pointee(RateLimiter::hashmap_with_clock(quota, clock.clone()));
        Self { quota, clock: clock.clone(), keys }
    }

    fn take(&self, key: &K) -> Result<(), Duration> {
        let keys = self.keys.load();
        if keys.len() >= REMEMBERED {
            // Who has everything in store again is as good as unknown.
            keys.retain_recent();
            if keys.len() >= REMEMBERED {
                // Thousands at once are no house: start anew rather than grow.
                self.keys.store(Arc::new(RateLimiter::hashmap_with_clock(self.quota, self.clock.clone())));
            }
        }
        keys.check_key(key).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

impl<K: Hash + Eq + Clone, C: Clock> fmt::Debug for Rate<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").field("quota", &self.quota).field("keys", &self.keys.load().len()).finish()
    }
}

/// How much is taken at once, by key. Cheap to clone; clones count together.
#[derive(Debug)]
pub(super) struct Counts<K: Hash + Eq>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Hash + Eq> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Hash + Eq> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// One that is taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken<K: Hash + Eq> {
    counts: Counts<K>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    /// One more for this key, unless it has `most` already.
    pub(super) fn take(&self, key: K, most: usize) -> Option<Taken<K>> {
        let mut counts = lock(&self.0);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Taken { counts: self.clone(), key })
    }

    /// How many keys have something.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

impl<K: Hash + Eq> Drop for Taken<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts.0);
        let Some(count) = counts.get_mut(&self.key) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&self.key);
        }
    }
}

/// One device may use every address of its IPv6 network (the first 64 bits).
pub(super) fn house(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(name).expect("an id")
    }

    fn limits() -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limits::new(&clock), clock)
    }

    #[test]
    #[allow(clippy::type_complexity, reason = "a table is read by its rows")]
    fn so_many_at_once_and_so_many_in_time() {
        type Ask = fn(&Limits<FakeRelativeClock>) -> Result<(), Duration>;
        // What is asked, how many fit at once, after a pause, and after a long one; how long the next has to wait at most.
        let table: [(&str, Ask, usize, (u64, usize), u64); 6] = [
            ("stranger", |limits| limits.stranger(address(1)), 20, (500, 10), 50),
            ("pairing", |limits| limits.pairing(address(1)), 10, (12_000, 2), 6_000),
            ("start", |limits| limits.start(&device("a")), 20, (9_000, 3), 3_000),
            ("inspection", |limits| limits.inspect(&device("a")).map(drop).map_err(|_| Duration::from_secs(1)), 20, (9_000, 3), 3_000),
            ("device", |limits| limits.call(&device("a"), false), 400, (1_000, 200), 5),
            ("owner", |limits| limits.call(&device("a"), true), 1000, (1_000, 500), 2),
        ];
        for (name, ask, at_once, (pause, then), wait) in table {
            let (limits, clock) = limits();
            let count = || (0..3000).take_while(|_| ask(&limits).is_ok()).count();
            assert_eq!(count(), at_once, "{name}");
            let told = ask(&limits).expect_err("too many");
            assert!(told <= Duration::from_millis(wait) && told > Duration::ZERO, "{name}: {told:?}");
            clock.advance(Duration::from_millis(pause));
            assert_eq!(count(), then, "{name}");
            clock.advance(Duration::from_secs(3600));
            assert_eq!(count(), at_once, "{name}: no more in store than at first");
        }
    }

    #[test]
    fn whoever_waits_as_told_is_served() {
        let (limits, clock) = limits();
        for _ in 0..100 {
            if let Err(wait) = limits.pairing(address(1)) {
                clock.advance(wait);
                assert_eq!(limits.pairing(address(1)), Ok(()));
            }
        }
    }

    #[test]
    fn others_are_not_affected() {
        let (limits, _) = limits();
        assert!((0..500).any(|_| limits.call(&device("a"), false).is_err()));
        assert_eq!(limits.call(&device("b"), false), Ok(()));
        assert_eq!(limits.call(&device("a"), true), Ok(()));
        assert!((0..50).any(|_| limits.stranger(address(1)).is_err()));
        assert_eq!((limits.stranger(address(2)), limits.pairing(address(1))), (Ok(()), Ok(())));
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let (limits, _) = limits();
        let ask = |text: &str| limits.stranger(text.parse().expect("address")).is_ok();
        assert_eq!((0..30).filter(|n| ask(&format!("2001:db8::{n}"))).count(), 20);
        assert!(ask("2001:db8:0:1::1"));
        assert_eq!((0..30).filter(|_| ask("::ffff:192.168.1.9") && ask("192.168.1.9")).count(), 10, "one address in two dresses");
    }

    #[test]
    fn memory_is_bounded() {
        let (limits, clock) = limits();
        for n in 0..20_000 {
            assert_eq!(limits.stranger(address(n)), Ok(()));
            assert!(limits.strangers.keys.load().len() <= REMEMBERED);
        }
        clock.advance(MINUTE);
        for n in 0..REMEMBERED as u32 {
            limits.stranger(address(n)).ok();
        }
        assert!(limits.strangers.keys.load().len() <= REMEMBERED);
    }

    #[test]
    fn few_torrents_are_looked_into_at_once() {
        let (limits, _) = limits();
        let looks: Vec<_> = (0..10).map_while(|_| limits.inspect(&device("a")).ok()).collect();
        assert_eq!(looks.len(), INSPECTING);
        assert_eq!(limits.inspect(&device("a")).expect_err("no more").code, Code::TooManyRequests);
        assert!(limits.inspect(&device("b")).is_ok());
        drop(looks);
        assert!(limits.inspect(&device("a")).is_ok());
        assert_eq!(limits.inspecting.len(), 0);
    }

    #[test]
    fn seats_are_given_back() {
        let (limits, _) = limits();
        let phone = device("phone");
        let mut seats: Vec<_> = (0..100).map_while(|_| limits.play(&phone, false).ok()).collect();
        assert_eq!(seats.len(), PLAYING);
        let refused = limits.play(&phone, false).expect_err("no more");
        assert_eq!(refused.status.as_u16(), 429);
        assert!(limits.play(&device("other"), false).is_ok());
        let copy = seats.last().cloned();
        seats.pop();
        assert!(limits.play(&phone, false).is_err(), "a clone still sits there");
        drop(copy);
        assert!(limits.play(&phone, false).is_ok());
        let owner: Vec<_> = (0..500).map_while(|_| limits.play(&DeviceId::owner(), true).ok()).collect();
        assert_eq!(owner.len(), 500);
        drop((seats, owner));
        assert_eq!(limits.playing.len(), 0);
    }
}
