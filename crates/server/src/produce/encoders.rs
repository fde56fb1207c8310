//! Who may encode pictures: so many productions at once, no more. Streams whose first segment needs an encoder go in turns round the people;
//! a viewer of a stream that is ready goes before them. Whoever waits gets the encoder of the production that nobody has read for longest,
//! if nobody needs that one right now: it is told to end, and is begun again when its own viewer comes back.
//!
//! It does not know what is encoded, nor how.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lock::lock;
use crate::stream::queue::{Elsewhere, Turns};
use crate::trust::PersonId;

/// A production that nobody has read for this long gives its encoder to whoever waits.
const UNREAD: Duration = Duration::from_secs(15);

/// One that somebody waits for does so too when it has made nothing for this long: it waits for bytes that do not come.
const STARVED: Duration = Duration::from_secs(20);

/// The encoders of this machine.
pub struct Encoders {
    inner: Mutex<Inner>,
    /// When a production will have been unread for so long that it gives way to those who wait.
    alarm: watch::Sender<Option<Instant>>,
}

/// Told of a place in the queue, from 1.
type Tell = Box<dyn Fn(usize) + Send>;

#[derive(Default)]
struct Inner {
    most: usize,
    last: u64,
    running: HashMap<u64, Running>,
    /// Viewers of ready streams, the first comer first.
    viewers: VecDeque<u64>,
    /// First segments.
    first: Turns<u64, PersonId>,
    /// Of all that wait.
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    granted: watch::Sender<bool>,
    taken: CancellationToken,
    tell: Option<Tell>,
}

/// A production that has an encoder.
#[derive(Debug)]
struct Running {
    /// When it was last asked for something, or began.
    read: Instant,
    /// Whether any viewer ever asked for something.
    viewed: bool,
    /// It has made all that it was asked for.
    rests: bool,
    /// When it last made something, or began.
    made: Instant,
    /// Requests that wait for what it makes right now.
    awaited: usize,
    /// Cancelled when it has to give its encoder up.
    taken: CancellationToken,
}

impl Running {
    /// From when on it may be stopped for somebody who waits. What was made for a start and is not looked at yet is as good as done when
    /// it rests: seconds of film lie ready for its viewer.
    fn unread_from(&self) -> Instant {
        match (self.awaited, self.rests && !self.viewed) {
            (0, true) => self.read,
            (0, false) => self.read + UNREAD,
            _ => self.made + STARVED,
        }
    }
}

impl Inner {
    /// Gives free encoders to those who wait, takes others away for the rest, and answers when to look again.
    fn settle(&mut self, now: Instant) -> Option<Instant> {
        while self.running.len() < self.most {
            let Some(id) = self.viewers.pop_front().or_else(|| self.first.take_turn()) else { break };
            if let Some(Waiting { granted, taken, .. }) = self.waiting.remove(&id) {
                self.running.insert(id, Running { read: now, viewed: false, rests: false, made: now, awaited: 0, taken });
                granted.send_replace(true);
            }
        }
        for (id, place) in self.first.moved() {
            if let Some(tell) = self.waiting.get(&id).and_then(|waiting| waiting.tell.as_ref()) {
                tell(place);
            }
        }
        let ending = self.running.values().filter(|running| running.taken.is_cancelled()).count();
        for _ in ending..self.waiting.len() {
            let kept = self.running.values().filter(|running| !running.taken.is_cancelled());
            let unread = kept.filter(|running| running.unread_from() <= now).min_by_key(|running| running.read);
            let Some(unread) = unread else { break };
            unread.taken.cancel();
        }
        if self.waiting.is_empty() {
            return None;
        }
        let kept = self.running.values().filter(|running| !running.taken.is_cancelled());
        kept.map(Running::unread_from).filter(|from| *from > now).min()
    }
}

impl Encoders {
    /// So many that may run at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { most: most.max(1), ..Inner::default() }), alarm: watch::Sender::new(None) })
    }

    /// A place in line for an encoder, for a segment that somebody watches.
    pub fn for_viewer(self: &Arc<Self>) -> Lease {
        self.line_up(None)
    }

    /// A place in line for an encoder, for the first segment of a stream of this person. `tell` is told of its place in the queue,
    /// whenever that changes; not at all where there is nothing to wait for.
    pub fn for_first_segment(self: &Arc<Self>, person: PersonId, tell: impl Fn(usize) + Send + 'static) -> Lease {
        self.line_up(Some((person, Box::new(tell))))
    }

    fn line_up(self: &Arc<Self>, first: Option<(PersonId, Tell)>) -> Lease {
        let (granted, taken) = (watch::Sender::new(false), CancellationToken::new());
        let hear = granted.subscribe();
        let mut inner = lock(&self.inner);
        inner.last += 1;
        let id = inner.last;
        let tell = match first {
            Some((person, tell)) => {
                inner.first.enter(id, person);
                Some(tell)
            }
            None => {
                inner.viewers.push_back(id);
                None
            }
        };
        inner.waiting.insert(id, Waiting { granted, taken: taken.clone(), tell });
        self.settle(&mut inner);
        drop(inner);
        Lease { encoders: self.clone(), id, granted: hear, taken, since: Instant::now() }
    }

    /// How many streams wait for their first segment's encoder, and how many of them are this person's.
    pub fn waiting(&self, person: &PersonId) -> Elsewhere {
        lock(&self.inner).first.waiting(person)
    }

    /// How many productions have an encoder.
    pub fn running(&self) -> usize {
        lock(&self.inner).running.len()
    }

    /// Whether anybody waits right now for what a production makes, or for an encoder.
    pub fn is_awaited(&self) -> bool {
        let inner = lock(&self.inner);
        !inner.waiting.is_empty() || inner.running.values().any(|running| running.awaited > 0)
    }

    fn settle(&self, inner: &mut Inner) {
        let alarm = inner.settle(Instant::now());
        self.alarm.send_if_modified(|before| std::mem::replace(before, alarm) != alarm);
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Running)) {
        let mut inner = lock(&self.inner);
        if let Some(running) = inner.running.get_mut(&id) {
            change(running);
            if !inner.waiting.is_empty() {
                self.settle(&mut inner);
            }
        }
    }
}

/// A place in line for an encoder, and the encoder when its turn has come. Given back when it is dropped.
pub struct Lease {
    encoders: Arc<Encoders>,
    id: u64,
    granted: watch::Receiver<bool>,
    taken: CancellationToken,
    since: Instant,
}

impl Lease {
    /// Waits for the encoder. May be dropped and called again.
    pub async fn granted(&self) {
        let (mut granted, mut alarm) = (self.granted.clone(), self.encoders.alarm.subscribe());
        loop {
            let at = *alarm.borrow_and_update();
            let rings = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            // The senders live as long as this does.
            tokio::select! {
                _ = granted.wait_for(|granted| *granted) => return,
                _ = alarm.changed() => {}
                () = rings => self.encoders.settle(&mut lock(&self.encoders.inner)),
            }
        }
    }

    /// Since when it waits; `None` where it has its encoder.
    pub fn waits_since(&self) -> Option<Instant> {
        (!*self.granted.borrow()).then_some(self.since)
    }

    /// Ends when the encoder has to be given up.
    pub async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// Its production ends now: nobody else need give way meanwhile.
    pub fn end(&self) {
        self.taken.cancel();
    }

    /// Whether the encoder has to be given up.
    pub fn is_taken(&self) -> bool {
        self.taken.is_cancelled()
    }

    /// Somebody asked for what it makes; `viewer`: to see it, and not only for the start.
    pub fn read(&self, viewer: bool) {
        self.encoders.change(self.id, |running| {
            running.read = Instant::now();
            running.viewed |= viewer;
        });
    }

    /// It has made something.
    pub fn made(&self) {
        self.encoders.change(self.id, |running| running.made = Instant::now());
    }

    /// It has made all that it was asked for, or goes on.
    pub fn rests(&self, rests: bool) {
        self.encoders.change(self.id, |running| running.rests = rests);
    }

    /// Somebody waits for what it makes until the answer is dropped: it is not stopped meanwhile.
    pub fn awaited(self: &Arc<Self>) -> Awaited {
        let mut counted = false;
        self.encoders.change(self.id, |running| {
            running.awaited += 1;
            counted = true;
        });
        Awaited { lease: self.clone(), counted }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = lock(&self.encoders.inner);
        inner.running.remove(&self.id);
        if inner.waiting.remove(&self.id).is_some() {
            inner.viewers.retain(|id| *id != self.id);
            inner.first.leave(&self.id);
        }
        self.encoders.settle(&mut inner);
    }
}

/// Somebody waits for what a production makes.
pub struct Awaited {
    lease: Arc<Lease>,
    counted: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let counted = self.counted;
        self.lease.encoders.change(self.lease.id, |running| {
            running.read = Instant::now();
            running.awaited = running.awaited.saturating_sub(usize::from(counted));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> PersonId {
        PersonId::parse(name).expect("a person")
    }

    async fn has(lease: &Lease) -> bool {
        tokio::time::timeout(Duration::from_millis(200), lease.granted()).await.is_ok()
    }

    /// As if nobody had read it for so long.
    fn age(encoders: &Encoders, lease: &Lease, by: Duration) {
        encoders.change(lease.id, |running| running.read = running.read.checked_sub(by).expect("the machine runs longer"));
    }

    #[tokio::test]
    async fn a_viewer_goes_first_and_people_take_turns() {
        let encoders = Encoders::new(1);
        let told: Arc<Mutex<Vec<(&str, usize)>>> = Arc::default();
        let first = |name: &'static str, of: &str| {
            let told = told.clone();
            encoders.for_first_segment(person(of), move |place| lock(&told).push((name, place)))
        };
        let a1 = first("a1", "anna");
        assert!(has(&a1).await && a1.waits_since().is_none());
        let (a2, a3, b1) = (first("a2", "anna"), first("a3", "anna"), first("b1", "bert"));
        assert_eq!(*lock(&told), [("a2", 1), ("a3", 2), ("b1", 1)]);
        assert_eq!(encoders.waiting(&person("anna")), Elsewhere { all: 3, own: 2 });
        let viewer = encoders.for_viewer();
        assert!(!has(&viewer).await && viewer.waits_since().is_some());
        drop(a1);
        assert!(has(&viewer).await && !has(&b1).await);
        drop(viewer);
        assert!(has(&b1).await && !has(&a2).await);
        drop(a2);
        drop(b1);
        assert!(has(&a3).await);
        assert_eq!((encoders.running(), encoders.waiting(&person("anna")).all), (1, 0));
    }

    #[tokio::test]
    async fn the_one_that_nobody_has_read_for_longest_gives_way() {
        let encoders = Encoders::new(3);
        let [watched, old, older] = [(); 3].map(|()| Arc::new(encoders.for_viewer()));
        for lease in [&watched, &old, &older] {
            assert!(has(lease).await);
            lease.read(true);
        }
        let waiting = encoders.for_viewer();
        assert!(!has(&waiting).await, "all are being read");
        age(&encoders, &old, UNREAD);
        age(&encoders, &older, UNREAD * 2);
        assert_eq!([&watched, &old, &older].map(|lease| lease.is_taken()), [false, true, false], "the first that could go was taken");
        drop(old);
        assert!(has(&waiting).await);
        // One that somebody waits for is not stopped, however long ago it was asked, while it makes anything.
        let hold = watched.awaited();
        age(&encoders, &watched, UNREAD * 9);
        let next = encoders.for_viewer();
        assert!(older.is_taken() && !watched.is_taken());
        drop(older);
        assert!(has(&next).await);
        next.read(true);
        let last = encoders.for_viewer();
        encoders.change(watched.id, |running| running.made = running.made.checked_sub(STARVED).expect("the machine runs longer"));
        assert!(watched.is_taken(), "it waits for bytes that do not come");
        drop(hold);
        drop(watched);
        assert!(has(&last).await);
    }

    #[tokio::test]
    async fn what_was_only_made_for_a_start_gives_way_as_soon_as_it_rests() {
        let encoders = Encoders::new(1);
        let begun = encoders.for_first_segment(person("anna"), |_| {});
        begun.read(false);
        let next = encoders.for_first_segment(person("anna"), |_| {});
        assert!(!has(&next).await && !begun.is_taken());
        begun.rests(true);
        assert!(begun.is_taken());
        drop(begun);
        assert!(has(&next).await);
        next.read(true);
        next.rests(true);
        let third = encoders.for_viewer();
        assert!(!has(&third).await && !next.is_taken(), "somebody watches it");
    }
}
