//! Who is connected: so many in all, so many of one address, and who has to leave when somebody new comes.
//!
//! Whoever showed a valid token or ticket keeps its place. Of the others, the one that has been idle the longest gives its place to a
//! newcomer when all are taken, so that strangers with many addresses cannot lock the house out by sitting there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::listener::is_here;
use super::rate::{Counts, Taken, house};
use crate::lock::lock;

/// How many connections may be open at once: from other machines in all, from one of them, and from this one.
const CONNECTIONS: usize = 512;
const CONNECTIONS_PER_ADDRESS: usize = 128;
const CONNECTIONS_FROM_HERE: usize = 512;

/// Who is connected, over all sockets. This machine itself has its own share, so that nobody in the LAN can lock the
/// owner out. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Connections {
    others: Arc<Mutex<Others>>,
    here: Arc<Semaphore>,
    by_address: Counts<IpAddr>,
}

/// Those from other machines, by a number that is never used twice.
#[derive(Debug, Default)]
struct Others {
    next: u64,
    standing: HashMap<u64, Arc<Standing>>,
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Standing {
    state: Mutex<State>,
    /// Cancelled when the connection has to give its place away at once.
    pub(super) ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// It showed a token or a ticket that was good.
    known: bool,
    /// Requests of which the answer is not yet handed over.
    open: usize,
    /// When the last of them was handed over, or when the connection began.
    since: Instant,
}

/// A place among the [`Connections`], given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) standing: Arc<Standing>,
    _kept: Kept,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held for what dropping them does")]
enum Kept {
    Here(OwnedSemaphorePermit),
    Among(Seated, Taken<IpAddr>),
}

#[derive(Debug)]
struct Seated {
    others: Arc<Mutex<Others>>,
    number: u64,
}

impl Default for Connections {
    fn default() -> Self {
        Self { others: Arc::default(), here: Arc::new(Semaphore::new(CONNECTIONS_FROM_HERE)), by_address: Counts::default() }
    }
}

impl Connections {
    /// A place for one more connection; `None` when there are too many.
    pub(super) fn place(&self, remote: SocketAddr, local: SocketAddr) -> Option<Place> {
        let standing = Arc::new(Standing::new());
        if is_here(remote, local) {
            let permit = self.here.clone().try_acquire_owned().ok()?;
            return Some(Place { standing, _kept: Kept::Here(permit) });
        }
        // First, so that an address which has all that it may have drives nobody out.
        let counted = self.by_address.take(house(remote.ip()), CONNECTIONS_PER_ADDRESS)?;
        let mut others = lock(&self.others);
        if others.standing.len() >= CONNECTIONS {
            others.drive_out()?;
        }
        let number = others.next;
        others.next += 1;
        others.standing.insert(number, standing.clone());
        let seated = Seated { others: self.others.clone(), number };
        Some(Place { standing, _kept: Kept::Among(seated, counted) })
    }
}

impl Others {
    /// Ends the stranger that has been idle the longest, or if none is idle, the one that was served the longest ago.
    fn drive_out(&mut self) -> Option<()> {
        let rank = |(number, standing): (&u64, &Arc<Standing>)| {
            let state = standing.state();
            (!state.known).then_some(((state.open > 0, state.since), *number))
        };
        let (_, number) = self.standing.iter().filter_map(rank).min()?;
        self.standing.remove(&number)?.ended.cancel();
        Some(())
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        lock(&self.others).standing.remove(&self.number);
    }
}

impl Standing {
    pub(super) fn new() -> Self {
        let state = State { known: false, open: 0, since: Instant::now() };
        Self { state: Mutex::new(state), ended: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// It showed a token or a ticket that is good.
    pub(super) fn known(&self) {
        self.state().known = true;
    }

    /// One more request, until what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Open {
        self.state().open += 1;
        Open(self.clone())
    }

    /// How many requests are not yet answered.
    pub(super) fn open(&self) -> usize {
        self.state().open
    }

    /// Ends when nothing was asked for so long, counted from `begin` at the earliest.
    pub(super) async fn idle(&self, begin: Instant, length: Duration) {
        loop {
            let (open, since) = {
                let state = self.state();
                (state.open > 0, state.since)
            };
            let now = Instant::now();
            // Whatever is open now ends later than now: there is no need to look before.
            let until = if open { now } else { since.max(begin) } + length;
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// One request that is not yet answered.
#[derive(Debug)]
pub(super) struct Open(Arc<Standing>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = state.open.saturating_sub(1);
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: ([u8; 4], u16) = ([192, 168, 1, 7], 1);

    fn place(connections: &Connections, remote: &str) -> Option<Place> {
        connections.place(remote.parse().expect("remote"), LOCAL.into())
    }

    #[test]
    fn one_address_cannot_take_all_connections() {
        let connections = Connections::default();
        let take = |remote: String| place(&connections, &remote);
        let greedy: Vec<_> = (0..200).map_while(|n| take(format!("192.168.1.9:{}", n + 1))).collect();
        assert_eq!(greedy.len(), CONNECTIONS_PER_ADDRESS);
        let network: Vec<_> = (0..200).map_while(|n| take(format!("[2001:db8::{n:x}]:1"))).collect();
        assert_eq!(network.len(), CONNECTIONS_PER_ADDRESS, "an IPv6 network is one address");
        greedy.iter().chain(&network).for_each(|place| place.standing.known());
        let others: Vec<_> =
            (0..600).map_while(|n| take(format!("10.0.{}.{}:1", n / 250, n % 250))).inspect(|place| place.standing.known()).collect();
        assert_eq!(others.len(), CONNECTIONS - 2 * CONNECTIONS_PER_ADDRESS, "nobody who is known is driven out");
        let here: Vec<_> = (0..600).map_while(|_| connections.place(([127, 0, 0, 1], 9).into(), ([127, 0, 0, 1], 1).into())).collect();
        assert_eq!(here.len(), CONNECTIONS_FROM_HERE, "this machine has its own share");
        drop(greedy);
        assert!(take("192.168.1.9:1".to_owned()).is_some(), "places are given back");
        drop((network, others));
        assert_eq!(connections.by_address.len(), 0, "nothing is remembered of who has left");
        assert!(lock(&connections.others).standing.is_empty());
    }

    #[test]
    fn strangers_give_their_places_to_newcomers_the_longest_idle_first() {
        let connections = Connections::default();
        let mut strangers = vec![];
        for n in 0..CONNECTIONS {
            strangers.push(place(&connections, &format!("10.0.0.{}:1", n % 50)).expect("a place"));
        }
        let is_out = |place: &Place| place.standing.ended.is_cancelled();
        strangers[0].standing.known();
        let asking = strangers[1].standing.request();
        drop(strangers[2].standing.request());
        for n in 0..CONNECTIONS - 3 {
            let phone = place(&connections, "192.168.1.9:1").expect("a place for the phone");
            phone.standing.known();
            assert!(is_out(&strangers[n + 3]), "{n}");
            assert_eq!(strangers.iter().filter(|place| is_out(place)).count(), 1 + n);
            // Its own place is free again for the next.
            drop(phone);
            strangers.push(place(&connections, &format!("10.0.1.{}:1", n % 200)).expect("the place of the phone"));
            strangers[CONNECTIONS + n].standing.known();
        }
        let mut phones = vec![];
        for expected in [2, 1] {
            phones.push(place(&connections, "192.168.1.9:1").expect("a place"));
            phones.iter().for_each(|phone| phone.standing.known());
            assert!(is_out(&strangers[expected]), "{expected}: who asks goes last");
        }
        assert!(place(&connections, "192.168.1.9:1").is_none(), "all are known");
        assert!(!is_out(&strangers[0]));
        drop(asking);
    }

    #[tokio::test]
    async fn idle_is_counted_from_the_last_answer() {
        let standing = Arc::new(Standing::new());
        let begun = Instant::now();
        let length = Duration::from_millis(200);
        let asked = async {
            tokio::time::sleep(length / 2).await;
            let open = standing.request();
            tokio::time::sleep(length * 2).await;
            drop(open);
            Instant::now()
        };
        let idle = async {
            standing.idle(begun, length).await;
            Instant::now()
        };
        let (idle, answered) = tokio::join!(idle, asked);
        let waited = idle - answered;
        assert!(waited >= length && waited < length * 2, "{waited:?}");
    }
}
