//! What each person has watched and how far, for 90 days, whatever becomes of the stream or of the device.
//!
//! All of it is in memory, so that no position waits for the disk: it is written down a few seconds after the last move. What is forgotten
//! is gone from the disk when that is answered. It belongs to the person alone: not even the owner of the machine sees another one's.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balcony_media::magnet::InfoHash;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::lock::lock;
use crate::store::{FilmRow, Store, StoreError};
use crate::trust::{DeviceId, PersonId};

/// How long a film is remembered after it was last watched.
pub const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The most films of one person; the one that was watched longest ago makes room.
pub const MOST_FILMS: usize = 500;
/// How long after a change it is written down, with all that changed meanwhile.
const WRITING_PACE: Duration = Duration::from_secs(5);
/// How long until it is tried again where the disk refused.
const AGAIN: Duration = Duration::from_secs(60);
/// How often it is looked what is too old.
const DROPPING_PACE: Duration = Duration::from_secs(3600);
/// How long after the start the first film is dropped: a machine without a clock of its own has asked for the time by then.
const FIRST_DROP: Duration = Duration::from_secs(600);
/// Which part of a film is its end: who was there begins anew.
const END: f64 = 0.98;

/// Which film: its torrent and the number of its file.
pub type FilmKey = (InfoHash, usize);

/// A film, as far as it is told about.
#[derive(Debug, Clone, PartialEq)]
pub struct Film {
    /// Which one.
    pub key: FilmKey,
    /// Name of its file.
    pub title: String,
    /// By which it is found again.
    pub magnet_link: String,
    /// Seconds, where they are known.
    pub duration: Option<f64>,
}

/// A film that a person has watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The film.
    pub film: Film,
    /// How far, in seconds.
    pub position: f64,
    /// By which device last; it may be gone, or somebody else's by now.
    pub device: Option<DeviceId>,
    /// When that was.
    pub updated_at: Timestamp,
}

impl Watched {
    fn is_over(&self) -> bool {
        self.film.duration.is_some_and(|duration| self.position >= duration * END)
    }

    fn row(&self, person: &PersonId) -> FilmRow {
        let ((info_hash, file), film) = (self.film.key, &self.film);
        FilmRow {
            person: person.to_string(),
            info_hash: info_hash.to_string(),
            // No torrent has as many files as that.
            file_index: u32::try_from(file).unwrap_or(u32::MAX),
            title: film.title.clone(),
            magnet: film.magnet_link.clone(),
            duration: film.duration,
            position: self.position,
            device: self.device.as_ref().map(ToString::to_string),
            updated_at: self.updated_at,
        }
    }

    fn from_row(row: FilmRow) -> Option<(PersonId, Self)> {
        let key = (row.info_hash.parse().ok()?, usize::try_from(row.file_index).ok()?);
        let film = Film { key, title: row.title, magnet_link: row.magnet, duration: row.duration };
        let device = row.device.as_deref().and_then(DeviceId::parse);
        Some((PersonId::parse(&row.person)?, Self { film, position: row.position, device, updated_at: row.updated_at }))
    }
}

/// What everybody has watched.
#[derive(Debug)]
pub struct History {
    store: Arc<Store>,
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    people: HashMap<PersonId, HashMap<FilmKey, Watched>>,
    /// What the disk does not know yet: films that changed, and those that went.
    unwritten: HashSet<(PersonId, FilmKey)>,
}

impl Known {
    fn get(&self, person: &PersonId, key: &FilmKey) -> Option<&Watched> {
        self.people.get(person)?.get(key)
    }

    fn put(&mut self, person: &PersonId, watched: Watched) {
        self.unwritten.insert((person.clone(), watched.film.key));
        let films = self.people.entry(person.clone()).or_default();
        films.insert(watched.film.key, watched);
        if films.len() > MOST_FILMS
            && let Some(oldest) =
                films.values().min_by_key(|watched| (watched.updated_at, watched.film.key)).map(|watched| watched.film.key)
        {
            films.remove(&oldest);
            self.unwritten.insert((person.clone(), oldest));
        }
    }

    fn drop_old(&mut self, now: Timestamp) {
        let Self { people, unwritten } = self;
        for (person, films) in people.iter_mut() {
            films.retain(|key, watched| {
                let stays = is_kept(watched, now);
                if !stays {
                    unwritten.insert((person.clone(), *key));
                }
                stays
            });
        }
        people.retain(|_, films| !films.is_empty());
    }
}

fn is_kept(watched: &Watched, now: Timestamp) -> bool {
    now.duration_since(watched.updated_at) <= KEPT
}

impl History {
    /// Reads all of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Arc<Store>) -> Result<Arc<Self>, StoreError> {
        let mut known = Known::default();
        for (person, watched) in store.history().await?.into_iter().filter_map(Watched::from_row) {
            known.people.entry(person).or_default().insert(watched.film.key, watched);
        }
        Ok(Arc::new(Self { store, known: Mutex::new(known), changed: Notify::new() }))
    }

    /// Where a new stream of this film begins, in seconds: where the person was, or at the beginning after the end. `None` where the
    /// person has not watched it.
    pub fn begins_at(&self, person: &PersonId, key: &FilmKey) -> Option<f64> {
        let known = lock(&self.known);
        let watched = known.get(person, key).filter(|watched| is_kept(watched, now()))?;
        Some(if watched.is_over() { 0.0 } else { watched.position })
    }

    /// A stream of this film became playable for a person. How far the person was before stays known.
    pub fn entered(&self, person: &PersonId, device: DeviceId, film: Film, position: f64) {
        let mut known = lock(&self.known);
        let before = known.get(person, &film.key).filter(|watched| !watched.is_over()).map(|watched| watched.position);
        known.put(person, Watched { film, position: before.unwrap_or(position), device: Some(device), updated_at: now() });
        self.changed.notify_one();
    }

    /// A person is at another place of a film now. Without a `device` it is the one of before.
    pub fn moved(&self, person: &PersonId, device: Option<DeviceId>, film: Film, seconds: f64) {
        let mut known = lock(&self.known);
        let device = device.or_else(|| known.get(person, &film.key)?.device.clone());
        let position = film.duration.map_or(seconds, |duration| seconds.min(duration));
        known.put(person, Watched { film, position, device, updated_at: now() });
        self.changed.notify_one();
    }

    /// What this person has watched, the last first.
    pub fn list(&self, person: &PersonId) -> Vec<Watched> {
        let now = now();
        let known = lock(&self.known);
        let films = known.people.get(person).into_iter().flat_map(HashMap::values);
        let mut films: Vec<_> = films.filter(|watched| is_kept(watched, now)).cloned().collect();
        films.sort_by_key(|watched| Reverse((watched.updated_at, watched.film.key)));
        films
    }

    /// Forgets one film of a person, at once. On disk when it is done.
    ///
    /// # Errors
    /// When the disk refuses: it is forgotten all the same, and written as soon as that works.
    pub async fn forget(&self, person: &PersonId, key: &FilmKey) -> Result<(), StoreError> {
        let written = {
            let mut known = lock(&self.known);
            if known.people.get_mut(person).and_then(|films| films.remove(key)).is_none() {
                return Ok(());
            }
            known.unwritten.insert((person.clone(), *key));
            self.send(&mut known)
        };
        self.settle(written).await
    }

    /// Forgets all that a person has watched, at once. On disk when it is done.
    ///
    /// # Errors
    /// As [`History::forget`].
    pub async fn forget_all(&self, person: &PersonId) -> Result<(), StoreError> {
        let written = {
            let mut known = lock(&self.known);
            let films = known.people.remove(person).unwrap_or_default();
            known.unwritten.extend(films.into_keys().map(|key| (person.clone(), key)));
            self.send(&mut known)
        };
        self.settle(written).await
    }

    /// Writes down what changes, and drops what is too old, until it is told to stop.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let started = Instant::now();
        let mut pace = DROPPING_PACE;
        let mut ended = false;
        while !ended {
            tokio::select! {
                () = self.changed.notified() => drop(timeout(WRITING_PACE, stop.cancelled()).await),
                () = tokio::time::sleep(pace) => {}
                () = stop.cancelled() => {}
            }
            // Before the last writing, so that nothing is left behind it.
            ended = stop.is_cancelled();
            if started.elapsed() >= FIRST_DROP {
                lock(&self.known).drop_old(now());
            }
            let written = self.send(&mut lock(&self.known));
            pace = if let Err(error) = self.settle(written).await {
                tracing::warn!(%error, "what was watched could not be written down");
                AGAIN
            } else {
                DROPPING_PACE
            };
        }
    }

    /// Sends to the disk what it does not know yet: the films as they are now, under the lock, so that a change that comes later is
    /// written later.
    fn send(&self, known: &mut Known) -> Written<impl Future<Output = Result<(), StoreError>> + Send + use<>> {
        let what: Vec<_> = known.unwritten.drain().collect();
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for (person, key) in &what {
            match known.get(person, key) {
                Some(watched) => there.push(watched.row(person)),
                None => gone.push((person.to_string(), key.0.to_string(), u32::try_from(key.1).unwrap_or(u32::MAX))),
            }
        }
        let nothing = what.is_empty();
        let (saved, deleted) = (self.store.save_films(there), self.store.delete_films(gone));
        let work = async move {
            if nothing {
                return Ok(());
            }
            let (saved, deleted) = (saved.await, deleted.await);
            saved.and(deleted)
        };
        Written { what, work }
    }

    /// Waits until it is written; what could not be is tried again later.
    async fn settle(&self, written: Written<impl Future<Output = Result<(), StoreError>>>) -> Result<(), StoreError> {
        let done = written.work.await;
        if done.is_err() {
            lock(&self.known).unwritten.extend(written.what);
        }
        done
    }
}

/// What is on its way to the disk.
struct Written<F> {
    what: Vec<(PersonId, FilmKey)>,
    work: F,
}

/// In whole milliseconds, as the store keeps it.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{DeviceRow, PersonRow};

    struct House {
        folder: tempfile::TempDir,
    }

    impl House {
        /// With Anna in it.
        async fn new() -> Self {
            let house = Self { folder: tempfile::tempdir().expect("folder") };
            let created_at = Timestamp::from_second(5).expect("time");
            let person = PersonRow { id: "anna".into(), name: "Anna".into(), created_at };
            let device = DeviceRow {
                id: "phone".into(),
                person: "anna".into(),
                name: "Phone".into(),
                platform: "test".into(),
                token_hash: Some([7; 32]),
                admin: false,
                created_at,
                last_seen_at: None,
                last_address: None,
            };
            house.store().add_device(person, device).await.expect("added");
            house
        }

        fn store(&self) -> Arc<Store> {
            Arc::new(Store::open(&self.folder.path().join("db")).expect("opened"))
        }

        /// As after a start.
        async fn history(&self) -> Arc<History> {
            History::open(self.store()).await.expect("read")
        }
    }

    fn id(text: &str) -> PersonId {
        PersonId::parse(text).expect("an id")
    }

    fn phone() -> DeviceId {
        DeviceId::parse("phone").expect("an id")
    }

    fn film(n: u8) -> Film {
        Film { key: (InfoHash([n; 20]), 3), title: format!("{n}.mkv"), magnet_link: "magnet:?".into(), duration: Some(1000.0) }
    }

    #[tokio::test]
    async fn a_new_stream_begins_where_the_person_was() {
        let history = House::new().await.history().await;
        let (anna, bert) = (id("anna"), id("bert"));
        let begins = |person: &PersonId| history.begins_at(person, &film(1).key);
        assert_eq!(begins(&anna), None);
        history.entered(&anna, phone(), film(1), 0.0);
        assert_eq!(begins(&anna), Some(0.0));
        history.moved(&anna, None, film(1), 500.0);
        history.entered(&anna, phone(), film(1), 0.0);
        assert_eq!((begins(&anna), begins(&bert)), (Some(500.0), None));
        // At the end, and beyond it, there is nothing more to see.
        for (seconds, begin, kept) in [(979.0, 979.0, 979.0), (980.0, 0.0, 980.0), (5000.0, 0.0, 1000.0)] {
            history.moved(&anna, None, film(1), seconds);
            assert_eq!((begins(&anna), history.list(&anna)[0].position), (Some(begin), kept));
        }
        history.entered(&anna, phone(), film(1), 0.0);
        assert_eq!(history.list(&anna)[0].position, 0.0, "it is watched anew");
    }

    #[tokio::test]
    async fn everything_is_on_the_disk_when_it_ends_and_nothing_that_was_forgotten() {
        let house = House::new().await;
        let anna = id("anna");
        {
            let history = house.history().await;
            let stop = CancellationToken::new();
            let tending = tokio::spawn(history.clone().tend(stop.clone()));
            for n in 1..5 {
                history.entered(&anna, phone(), film(n), 0.0);
            }
            history.moved(&anna, None, film(2), 77.0);
            history.forget(&anna, &film(4).key).await.expect("written");
            history.moved(&id("nobody"), None, film(2), 77.0);
            stop.cancel();
            tending.await.expect("ended");
        }
        let history = house.history().await;
        let mut films: Vec<_> = history.list(&anna).iter().map(|watched| (watched.film.title.clone(), watched.position)).collect();
        films.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(films, [("1.mkv".to_owned(), 0.0), ("2.mkv".to_owned(), 77.0), ("3.mkv".to_owned(), 0.0)]);
        assert_eq!(
            history.list(&anna).iter().find(|watched| watched.position > 0.0).and_then(|watched| watched.device.clone()),
            Some(phone())
        );
        assert_eq!(history.list(&id("nobody")), [], "a person who is gone leaves nothing");
        history.forget_all(&anna).await.expect("written");
        history.forget(&anna, &film(1).key).await.expect("nothing to do");
        drop(history);
        assert_eq!(house.history().await.list(&anna), []);
    }

    #[tokio::test]
    async fn what_is_too_old_or_too_much_goes() {
        let house = House::new().await;
        let (anna, store) = (id("anna"), house.store());
        let old = |n: u8, hours: i64| Watched {
            film: film(n),
            position: 5.0,
            device: None,
            updated_at: now().checked_sub(SignedDuration::from_hours(hours)).expect("time"),
        };
        store.save_films(vec![old(1, 24 * 89).row(&anna), old(2, 24 * 91).row(&anna)]).await.expect("saved");
        let history = History::open(store.clone()).await.expect("read");
        let titles = || history.list(&anna).into_iter().map(|watched| watched.film.title).collect::<Vec<_>>();
        assert_eq!((titles(), history.begins_at(&anna, &film(2).key)), (vec!["1.mkv".to_owned()], None));
        lock(&history.known).drop_old(now());
        for n in 0..MOST_FILMS {
            history.entered(&anna, phone(), Film { key: (InfoHash([9; 20]), n), ..film(9) }, 0.0);
        }
        assert_eq!(titles().len(), MOST_FILMS);
        assert!(!titles().contains(&"1.mkv".to_owned()), "the oldest made room");
        let written = history.send(&mut lock(&history.known));
        history.settle(written).await.expect("written");
        assert_eq!(store.history().await.expect("read").len(), MOST_FILMS);
    }
}
