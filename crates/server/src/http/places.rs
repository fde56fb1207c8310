//! Who is connected: so many in all, so many of one address, and who has to leave when somebody new comes.
//!
//! Whoever showed a valid token or ticket keeps its place. Of the others, the one that has been idle the longest gives its place to a
//! newcomer when all are taken: all of its own address, or all that there are. So neither a program that sits there locks out the others
//! of its machine, nor strangers with many addresses the house.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::listener::is_here;
use super::rate::house;
use crate::lock::lock;

/// How many connections may be open at once: from other machines in all, from one of them, and from this one.
const CONNECTIONS: usize = 512;
const CONNECTIONS_PER_ADDRESS: usize = 128;
const CONNECTIONS_FROM_HERE: usize = 512;

/// Who is connected, over all sockets. This machine itself has its own share, so that nobody in the LAN can lock the
/// owner out. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    seats: Arc<Mutex<Seats>>,
}

/// Where somebody comes from, as far as places are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whence {
    /// This machine.
    Here,
    /// Another one, or a whole network where that is one house.
    Address(IpAddr),
}

/// All who are connected, by a number that is never used twice.
#[derive(Debug, Default)]
struct Seats {
    next: u64,
    seated: HashMap<u64, (Whence, Arc<Standing>)>,
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
    seats: Arc<Mutex<Seats>>,
    number: u64,
}

impl Connections {
    /// A place for one more connection; `None` when there are too many.
    pub(super) fn place(&self, remote: SocketAddr, local: SocketAddr) -> Option<Place> {
        let standing = Arc::new(Standing::new());
        let (whence, share) = if is_here(remote, local) {
            (Whence::Here, CONNECTIONS_FROM_HERE)
        } else {
            (Whence::Address(house(remote.ip())), CONNECTIONS_PER_ADDRESS)
        };
        let mut seats = lock(&self.seats);
        // First its own: an address which has all that it may have drives nobody else out.
        if seats.count(|one| one == whence) >= share {
            seats.drive_out(|one| one == whence)?;
        } else if whence != Whence::Here && seats.count(|one| one != Whence::Here) >= CONNECTIONS {
            seats.drive_out(|one| one != Whence::Here)?;
        }
        let number = seats.next;
        seats.next += 1;
        seats.seated.insert(number, (whence, standing.clone()));
        Some(Place { standing, seats: self.seats.clone(), number })
    }
}

impl Seats {
    fn count(&self, among: impl Fn(Whence) -> bool) -> usize {
        self.seated.values().filter(|(whence, _)| among(*whence)).count()
    }

    /// Ends the stranger among these that has been idle the longest, or if none is idle, the one that was served the longest ago.
    fn drive_out(&mut self, among: impl Fn(Whence) -> bool) -> Option<()> {
        let rank = |(number, (whence, standing)): (&u64, &(Whence, Arc<Standing>))| {
            let state = standing.state();
            (among(*whence) && !state.known).then_some(((state.open > 0, state.since), *number))
        };
        let (_, number) = self.seated.iter().filter_map(rank).min()?;
        self.seated.remove(&number)?.1.ended.cancel();
        Some(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.seats).seated.remove(&self.number);
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
        let known = |place: &Place| place.standing.known();
        let greedy: Vec<_> = (0..200).map_while(|n| take(format!("192.168.1.9:{}", n + 1))).inspect(known).collect();
        assert_eq!(greedy.len(), CONNECTIONS_PER_ADDRESS);
        let network: Vec<_> = (0..200).map_while(|n| take(format!("[2001:db8::{n:x}]:1"))).inspect(known).collect();
        assert_eq!(network.len(), CONNECTIONS_PER_ADDRESS, "an IPv6 network is one address");
        let others: Vec<_> =
            (0..600).map_while(|n| take(format!("10.0.{}.{}:1", n / 250, n % 250))).inspect(|place| place.standing.known()).collect();
        assert_eq!(others.len(), CONNECTIONS - 2 * CONNECTIONS_PER_ADDRESS, "nobody who is known is driven out");
        let from_here = |_: usize| connections.place(([127, 0, 0, 1], 9).into(), ([127, 0, 0, 1], 1).into());
        let here: Vec<_> = (0..600).map_while(from_here).inspect(known).collect();
        assert_eq!(here.len(), CONNECTIONS_FROM_HERE, "this machine has its own share");
        drop(greedy);
        assert!(take("192.168.1.9:1".to_owned()).is_some(), "places are given back");
        drop((network, others, here));
        assert!(lock(&connections.seats).seated.is_empty(), "nothing is remembered of who has left");
    }

    #[test]
    fn who_sits_there_gives_its_place_to_others_of_its_machine() {
        let connections = Connections::default();
        let from_here = || connections.place(([127, 0, 0, 1], 9).into(), ([127, 0, 0, 1], 1).into()).expect("a place");
        let neighbour = || place(&connections, "192.168.1.9:1").expect("a place");
        let stranger = place(&connections, "192.168.1.10:1").expect("a place");
        for (share, newcomer) in [(CONNECTIONS_FROM_HERE, &from_here as &dyn Fn() -> Place), (CONNECTIONS_PER_ADDRESS, &neighbour)] {
            let watching = newcomer();
            watching.standing.known();
            let idle: Vec<_> = (0..1000).map(|_| newcomer()).collect();
            let out = idle.iter().filter(|place| place.standing.ended.is_cancelled()).count();
            assert_eq!(out, 1000 - (share - 1), "the longest idle ones had to leave");
            assert!(idle[999 - (share - 2)..].iter().all(|place| !place.standing.ended.is_cancelled()), "in their order");
            assert!(!watching.standing.ended.is_cancelled() && !stranger.standing.ended.is_cancelled(), "nobody else had to");
        }
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
