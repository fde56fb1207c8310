//! What readers of a torrent want, and in which order that is asked for.
//!
//! librqbit interleaves the look-ahead of all streams that are open, so the way to be served first is to be the only one: while
//! somebody waits for bytes, only those who wait have streams; when nobody waits, every cursor's look-ahead has one. This file decides
//! which places those are; opening the streams is the steering task's work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::source::SourceError;

/// Most readers of all torrents together. librqbit writes nothing while its 512 permits are all held by streams.
pub(super) const MAX_READERS: usize = 200;
/// A reader that has just been served is about to ask for the next bytes: so long nobody else gets its turn.
const AFTERGLOW: Duration = Duration::from_millis(300);
/// So long a new focus holds all other readers back when nobody comes to read there.
const FOCUS_LASTS: Duration = Duration::from_secs(5);

/// A place in a torrent: the number of the file and an offset in it, in bytes.
pub(super) type Place = (usize, u64);

#[derive(Debug, Clone, Copy)]
struct Entry {
    place: Place,
    waiting: bool,
    /// Until when it counts as waiting although it does not.
    warm_until: Option<Instant>,
    /// When it began to wait.
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Focus {
    place: Place,
    set: Instant,
    until: Instant,
}

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    focus: Option<Focus>,
}

/// All wants of one torrent.
#[derive(Default)]
pub(super) struct Wants {
    table: Mutex<Table>,
    changed: Notify,
}

/// The places that librqbit shall fetch now, and until when that answer holds if nothing changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) places: Vec<Place>,
    pub(super) until: Option<Instant>,
    /// Since when the longest waiting reader waits.
    pub(super) waiting_since: Option<Instant>,
}

impl Wants {
    fn with<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        change(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether nobody reads.
    pub(super) fn are_none(&self) -> bool {
        self.with(|table| table.entries.is_empty())
    }

    pub(super) fn focus(&self, place: Place, now: Instant) {
        self.with(|table| table.focus = Some(Focus { place, set: now, until: now + FOCUS_LASTS }));
        self.changed.notify_one();
    }

    /// What to fetch at `now`. Of readers that stand in one piece (of `piece_len` bytes), one is named.
    pub(super) fn desired(&self, now: Instant, piece_len: u64) -> Desired {
        self.with(|table| {
            table.focus.take_if(|focus| focus.until <= now);
            let hot = |entry: &&Entry| entry.waiting || entry.warm_until.is_some_and(|until| until > now);
            let after_focus = |entry: &&Entry| table.focus.is_none_or(|focus| entry.since >= focus.set);
            let mut places: Vec<Place> = table.focus.iter().map(|focus| focus.place).collect();
            places.extend(table.entries.values().filter(hot).filter(after_focus).map(|entry| entry.place));
            if places.is_empty() {
                places = table.entries.values().map(|entry| entry.place).collect();
            }
            let mut seen = BTreeSet::new();
            places.retain(|(file, offset)| seen.insert((*file, offset / piece_len)));
            let ends = table.entries.values().filter_map(|entry| entry.warm_until.filter(|until| *until > now));
            let until = ends.chain(table.focus.map(|focus| focus.until)).min();
            let waiting_since = table.entries.values().filter(|entry| entry.waiting).map(|entry| entry.since).min();
            Desired { places, until, waiting_since }
        })
    }
}

/// Counts the readers of a session.
#[derive(Clone, Default)]
pub(super) struct ReaderCount(Arc<AtomicUsize>);

impl ReaderCount {
    fn enter(&self) -> Result<(), SourceError> {
        let entered = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < MAX_READERS).then_some(count + 1));
        entered.map(|_| ()).map_err(|_| SourceError::TooManyReaders)
    }
}

/// A reader's place in a torrent, for as long as it lives.
pub(crate) struct Want {
    wants: Arc<Wants>,
    count: ReaderCount,
    id: u64,
    file: usize,
}

impl Want {
    pub(super) fn new(wants: &Arc<Wants>, count: &ReaderCount, place: Place) -> Result<Self, SourceError> {
        count.enter()?;
        let entry = Entry { place, waiting: false, warm_until: None, since: Instant::now() };
        let id = wants.with(|table| {
            table.next += 1;
            table.entries.insert(table.next, entry);
            table.next
        });
        wants.changed.notify_one();
        Ok(Self { wants: wants.clone(), count: count.clone(), id, file: place.0 })
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.wants.with(|table| table.entries.get_mut(&self.id).map(change));
        self.wants.changed.notify_one();
    }

    /// Stands elsewhere now.
    pub(crate) fn move_to(&self, offset: u64) {
        self.change(|entry| entry.place = (self.file, offset));
    }

    /// Waits for bytes at `offset` until the answer is dropped.
    pub(super) fn waiting(&self, offset: u64) -> Waiting<'_> {
        self.change(|entry| {
            let now = Instant::now();
            if !entry.waiting && entry.warm_until.is_none_or(|until| until < now) {
                entry.since = now;
            }
            entry.place = (self.file, offset);
            entry.waiting = true;
        });
        Waiting(self)
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.wants.with(|table| table.entries.remove(&self.id));
        self.count.0.fetch_sub(1, Ordering::AcqRel);
        self.wants.changed.notify_one();
    }
}

/// A reader that waits.
pub(super) struct Waiting<'a>(&'a Want);

impl Waiting<'_> {
    /// What is missing begins later now.
    pub(super) fn move_to(&self, offset: u64) {
        self.0.move_to(offset);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.change(|entry| {
            entry.waiting = false;
            entry.warm_until = Some(Instant::now() + AFTERGLOW);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 100;

    fn places(wants: &Wants, now: Instant) -> Vec<Place> {
        wants.desired(now, PIECE).places
    }

    #[test]
    fn who_waits_comes_before_who_only_looks_ahead() {
        let (wants, count) = (Arc::new(Wants::default()), ReaderCount::default());
        let now = Instant::now();
        let first = Want::new(&wants, &count, (0, 0)).expect("room");
        let second = Want::new(&wants, &count, (0, 500)).expect("room");
        assert_eq!(places(&wants, now), [(0, 0), (0, 500)]);
        let waiting = second.waiting(520);
        assert_eq!(places(&wants, now), [(0, 520)]);
        drop(waiting);
        let soon = Instant::now();
        assert_eq!(places(&wants, soon), [(0, 520)], "it will ask for the next bytes at once");
        assert_eq!(places(&wants, soon + AFTERGLOW), [(0, 0), (0, 520)]);
        drop(first);
        assert_eq!(places(&wants, soon + AFTERGLOW), [(0, 520)]);
        drop(second);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_focus_holds_older_waits_back_and_ends() {
        let (wants, count) = (Arc::new(Wants::default()), ReaderCount::default());
        let old = Want::new(&wants, &count, (0, 0)).expect("room");
        let _old = old.waiting(0);
        let now = Instant::now();
        wants.focus((0, 900), now);
        assert_eq!(places(&wants, now), [(0, 900)]);
        let new = Want::new(&wants, &count, (0, 910)).expect("room");
        let _new = new.waiting(1010);
        assert_eq!(places(&wants, now), [(0, 900), (0, 1010)]);
        assert_eq!(places(&wants, now + FOCUS_LASTS), [(0, 0), (0, 1010)]);
    }

    #[test]
    fn readers_in_one_piece_are_one_place() {
        let (wants, count) = (Arc::new(Wants::default()), ReaderCount::default());
        let readers: Vec<Want> = (0..20).map(|n| Want::new(&wants, &count, (1, 300 + n)).expect("room")).collect();
        assert_eq!(places(&wants, Instant::now()), [(1, 300)]);
        drop(readers);
    }

    #[test]
    fn too_many_readers_are_told_so() {
        let (wants, count) = (Arc::new(Wants::default()), ReaderCount::default());
        let mut readers: Vec<Want> = (0..MAX_READERS).map(|_| Want::new(&wants, &count, (0, 0)).expect("room")).collect();
        assert_eq!(Want::new(&wants, &count, (0, 0)).err(), Some(SourceError::TooManyReaders));
        readers.pop();
        assert!(Want::new(&wants, &count, (0, 0)).is_ok());
    }
}
