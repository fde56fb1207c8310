//! One owner of all room on the disk: films, what is still to come of those that are being fetched, and encoded segments.
//!
//! [`Books`] decide, and are pure: who fits, who has to leave for it and in which order, how much is left for segments. [`Budget`]
//! acts: it measures the disk, keeps the books, and is asked before a byte is written ([`Budget::spend`]), so that neither the limit
//! is passed nor the reserve touched, whatever was promised and whoever else fills the disk. How a film leaves is not known here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use balcony_media::magnet::InfoHash;
use tokio::sync::watch;

use crate::config::resolved::cache_budget;
use crate::lock::lock;

/// A film that was asked for within this time is being watched, and stays.
pub const KEPT_AFTER_USE: Duration = Duration::from_secs(600);
/// Always left to segments, so that what is being converted can be played: this, or a sixteenth of a small budget.
const SEGMENTS: u64 = 64 << 20;
/// So much may be written between two looks at the disk.
const GRANT: u64 = 32 << 20;
/// What belongs to a film besides its bytes: records of what is verified.
const RECORDS: u64 = 32 << 10;
/// Files take whole blocks of so many bytes.
pub const BLOCK: u64 = 4096;
/// Room that there has to be before who waits for some goes on.
const ENOUGH: u64 = 16 << 20;

/// A film: its torrent, and the number of its file in it.
pub type Film = (InfoHash, usize);

/// What is known of a film's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Bytes that it takes on the disk.
    pub held: u64,
    /// Bytes that it will take when it is whole, while it is being fetched; else 0.
    pub promised: u64,
    /// When something of it was last asked for, in milliseconds since the program began (before it, where negative).
    pub used: i64,
}

impl Account {
    /// Bytes that nobody else may have.
    fn charge(&self) -> u64 {
        self.held.max(self.promised)
    }

    fn may_leave(&self, now: i64, keep: i64) -> bool {
        self.promised <= self.held && self.held > 0 && self.is_unwatched(now, keep)
    }

    fn is_unwatched(&self, now: i64, keep: i64) -> bool {
        now.saturating_sub(self.used) >= keep
    }
}

/// Who has which part of the room, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// What all may take together.
    pub limit: u64,
    /// What encoded segments take.
    pub segments: u64,
    /// All films of which something is here or promised.
    pub films: BTreeMap<Film, Account>,
    /// Files to keep that were asked for, by the names of their streams. They stay as long as those.
    pub kept: BTreeMap<String, Account>,
    /// How long a film stays that nobody asks for, in milliseconds.
    pub keep: i64,
}

/// Whether a film may be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is room for it.
    Fits,
    /// When these films are fetched no further, these have left (in this order), and segments take no more than so many bytes.
    After {
        /// Films that are not whole and that nobody watches: what is still to come of them waits for room.
        hold_back: Vec<Film>,
        /// The one first that nobody has watched for longest.
        leave: Vec<Film>,
        /// What segments may still take.
        segments: u64,
    },
    /// There is not, and nothing can be done about it.
    Never(Shortage),
}

/// Why there is no room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What is still to come of the film.
    pub needed: u64,
    /// What it could have if everything left that may leave.
    pub free: u64,
    /// What all may take together.
    pub limit: u64,
    /// What other films keep that are being watched or fetched.
    pub others: u64,
}

impl Books {
    fn charged(&self) -> u64 {
        self.films.values().chain(self.kept.values()).fold(0, |sum, one| sum.saturating_add(one.charge()))
    }

    /// What files to keep take on the disk.
    pub fn kept(&self) -> u64 {
        self.kept.values().fold(0, |sum, file| sum.saturating_add(file.held))
    }

    /// Whether a file to keep of `whole` bytes may be made. `true`: when idle films have left ([`Books::surplus`]). Changes nothing.
    ///
    /// # Errors
    /// When there is no room even then.
    pub fn admit_kept(&self, whole: u64, now: i64) -> Result<bool, Shortage> {
        let room = self.limit.saturating_sub(self.least_for_segments());
        let charged = self.charged();
        let idle = self.idle(now).iter().fold(0u64, |sum, (_, account)| sum.saturating_add(account.charge()));
        let others = charged.saturating_sub(idle);
        if others.saturating_add(whole) > room {
            return Err(Shortage { needed: whole, free: room.saturating_sub(others), limit: self.limit, others });
        }
        Ok(charged.saturating_add(whole) > room)
    }

    /// What films take on the disk.
    pub fn held(&self) -> u64 {
        self.films.values().fold(0, |sum, film| sum.saturating_add(film.held))
    }

    /// What films will be fetched, and is not here yet.
    pub fn to_come(&self) -> u64 {
        self.films.values().fold(0, |sum, film| sum.saturating_add(film.promised.saturating_sub(film.held)))
    }

    fn least_for_segments(&self) -> u64 {
        SEGMENTS.min(self.limit / 16)
    }

    /// Films that may leave, the one first that nobody has watched for longest.
    fn idle(&self, now: i64) -> Vec<(&Film, &Account)> {
        let mut idle: Vec<_> = self.films.iter().filter(|(_, account)| account.may_leave(now, self.keep)).collect();
        idle.sort_by_key(|(key, account)| (account.used, **key));
        idle
    }

    /// Films of which something is still to come though nobody watches them, the one first that nobody has watched for longest.
    fn unfinished(&self, now: i64) -> Vec<(&Film, &Account)> {
        let waits = |account: &Account| account.promised > account.held && account.is_unwatched(now, self.keep);
        let mut unfinished: Vec<_> = self.films.iter().filter(|(_, account)| waits(account)).collect();
        unfinished.sort_by_key(|(key, account)| (account.used, **key));
        unfinished
    }

    /// Whether a film may be fetched that takes `whole` bytes in the end. Changes nothing.
    ///
    /// Whole films that nobody watches leave first: they were seen, or can be had again in the time that they took. Then what is still to
    /// come of films that nobody watches is put off, which loses nothing but time, and at last these leave too.
    pub fn admit(&self, film: Film, whole: u64, now: i64) -> Verdict {
        let own = self.films.get(&film).copied();
        let whole = whole.max(own.map_or(0, |own| own.held));
        // Nothing is to come of a film that is here, however little may be taken by now: refused, it would be lost for nothing.
        if own.is_some_and(|own| own.promised >= whole || own.held >= whole) {
            return Verdict::Fits;
        }
        let mut others = self.charged() - own.map_or(0, |own| own.charge());
        let fits = |others: u64, segments: u64| others.saturating_add(whole).saturating_add(segments) <= self.limit;
        if fits(others, self.segments.max(self.least_for_segments())) {
            return Verdict::Fits;
        }
        let (mut hold_back, mut leave) = (Vec::new(), Vec::new());
        let idle = self.idle(now).into_iter().map(|(key, account)| (key, account.charge(), true));
        let unfinished = self.unfinished(now);
        let to_come = unfinished.iter().map(|(key, account)| (*key, account.promised - account.held, false));
        let come = unfinished.iter().filter(|(_, account)| account.held > 0).map(|(key, account)| (*key, account.held, true));
        let mut give_way = idle.chain(to_come).chain(come).filter(|(key, ..)| **key != film);
        while !fits(others, self.least_for_segments()) {
            let Some((key, bytes, leaves)) = give_way.next() else {
                let held = own.map_or(0, |own| own.held);
                let room = self.limit.saturating_sub(self.least_for_segments());
                let free = room.saturating_sub(others).saturating_sub(held);
                return Verdict::Never(Shortage { needed: whole - held, free, limit: self.limit, others });
            };
            others -= bytes;
            if leaves { &mut leave } else { &mut hold_back }.push(*key);
        }
        Verdict::After { hold_back, leave, segments: self.limit - others - whole }
    }

    /// What segments may take: what films leave of it, and always enough to go on playing, as long as that is really free.
    pub fn room_for_segments(&self) -> u64 {
        let least = self.least_for_segments().min(self.limit.saturating_sub(self.held()).saturating_sub(self.kept()));
        self.limit.saturating_sub(self.charged()).max(least)
    }

    /// Films that have to leave because the limit is lower than it was; segments are asked first.
    pub fn surplus(&self, now: i64) -> Vec<Film> {
        let mut charged = self.charged();
        let mut leave = Vec::new();
        for (key, account) in self.idle(now) {
            if charged.saturating_add(self.least_for_segments()) <= self.limit {
                break;
            }
            charged -= account.charge();
            leave.push(*key);
        }
        leave
    }
}

/// Who gives up encoded segments.
pub trait GivesWay: Send + Sync {
    /// Drops segments that nobody reads, the least recently used first, until all of them take no more than `bytes`.
    fn give_way(&self, bytes: u64);
}

/// How much of the disk is taken, and by what, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What all may take together.
    pub limit: u64,
    /// What films take, with what belongs to them.
    pub films: u64,
    /// What is still to come of films that are being fetched.
    pub promised: u64,
    /// What encoded segments take.
    pub segments: u64,
    /// What files to keep take.
    pub kept: u64,
}

impl Usage {
    /// What is taken, by all of them.
    pub fn taken(&self) -> u64 {
        self.films.saturating_add(self.segments).saturating_add(self.kept)
    }
}

/// What the disk may be filled with.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What all may take together as somebody asked for it, in bytes; never more than half of what would be free.
    pub asked: u64,
    /// Whether `asked` is cut to half of what would be free.
    pub only_half: bool,
    /// Free space that is never touched, in bytes.
    pub reserve: u64,
    /// How long a film stays that nobody asks for.
    pub keep: Duration,
}

impl Terms {
    /// So many bytes, and everything else as usual.
    pub fn of(asked: u64) -> Self {
        Self { asked, only_half: false, reserve: 0, keep: KEPT_AFTER_USE }
    }
}

/// The owner of the room.
pub struct Budget {
    /// What lies below it counts as films; it need not be there yet.
    films: PathBuf,
    began: Instant,
    state: Mutex<State>,
    segments: OnceLock<Weak<dyn GivesWay>>,
    /// Counts what makes room.
    made_room: watch::Sender<u64>,
}

struct State {
    books: Books,
    terms: Terms,
    /// What may be written before the disk is looked at again.
    granted: u64,
    /// What films really take, at the last look.
    films: u64,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("usage", &self.usage()).finish()
    }
}

impl Budget {
    /// The room for films that lie below a folder (each in the folder of its torrent, under its number), and for segments. Films of
    /// an earlier run are found there.
    pub fn open(films: &Path, terms: Terms) -> Arc<Self> {
        let books = Books { limit: terms.asked, segments: 0, films: found(films), kept: BTreeMap::new(), keep: milliseconds(terms.keep) };
        let budget = Self {
            films: films.to_owned(),
            began: Instant::now(),
            state: Mutex::new(State { books, terms, granted: 0, films: 0 }),
            segments: OnceLock::new(),
            made_room: watch::Sender::new(0),
        };
        budget.look(&mut lock(&budget.state));
        Arc::new(budget)
    }

    /// Segments are given up by this one.
    pub fn segments_are(&self, segments: Weak<dyn GivesWay>) {
        // There is one store of segments.
        let _ = self.segments.set(segments);
    }

    fn now(&self) -> i64 {
        milliseconds(self.began.elapsed())
    }

    /// How much is taken, and by what: as of the last look, with what was written since.
    pub fn usage(&self) -> Usage {
        let state = lock(&self.state);
        Usage {
            limit: state.books.limit,
            films: state.films,
            promised: state.books.to_come(),
            segments: state.books.segments,
            kept: state.books.kept(),
        }
    }

    /// What may be taken from now on, as somebody asks for it; felt at the next look.
    pub fn ask_for(&self, bytes: u64) {
        lock(&self.state).terms.asked = bytes;
    }

    /// Looks at the disk: what films take, and how much all may take. Blocks for as long as the disk takes.
    pub fn refresh(&self) {
        let mut state = lock(&self.state);
        let before = (state.books.limit, state.films);
        self.look(&mut state);
        if before != (state.books.limit, state.films) {
            drop(state);
            self.tell();
        }
    }

    fn tell(&self) {
        self.made_room.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Answers what may be written now, as well.
    fn look(&self, state: &mut State) -> u64 {
        state.films = crate::app::size_of_tree(&self.films);
        let used = state.films.saturating_add(state.books.segments).saturating_add(state.books.kept());
        // Where the free space cannot be told, what was asked for has to do.
        let free = existing(&self.films).and_then(|folder| fs4::available_space(folder).ok()).unwrap_or(u64::MAX);
        let spare = free.saturating_sub(state.terms.reserve);
        let asked = if state.terms.only_half { cache_budget(state.terms.asked, free, used) } else { state.terms.asked };
        state.books.limit = asked.min(used.saturating_add(spare));
        for (film, account) in &mut state.books.films {
            account.held = size_of(&self.films, film);
        }
        asked.saturating_sub(used).min(spare)
    }

    /// May so many bytes be written now? Asked before each one that is.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when the limit or the reserve would be touched.
    pub fn spend(&self, bytes: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.granted < bytes {
            state.granted = self.look(&mut state).min(GRANT.max(bytes));
        }
        match state.granted.checked_sub(bytes) {
            Some(left) => {
                state.granted = left;
                Ok(())
            }
            None => {
                state.granted = 0;
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }

    /// [`spend`](Self::spend) for a film.
    ///
    /// # Errors
    /// The same.
    pub fn spend_on_films(&self, bytes: u64) -> io::Result<()> {
        self.spend(bytes)?;
        let mut state = lock(&self.state);
        // Until the next look, which counts what was written twice once.
        state.films = state.films.saturating_add(bytes);
        Ok(())
    }

    /// Whether somebody who found the disk full may go on: there is room for what is still to come of it, or for a good part of that.
    pub fn has_room(&self, to_come: u64) -> bool {
        self.look(&mut lock(&self.state)) >= to_come.min(ENOUGH)
    }

    /// Lets a film be fetched that takes `whole` bytes in the end, if there is room. Segments give way by themselves; films that are
    /// named have to be made to leave, and then it must be asked again. Looks at the disk.
    pub fn admit(&self, film: Film, whole: u64) -> Verdict {
        let (now, whole) = (self.now(), whole.saturating_add(RECORDS));
        let mut state = lock(&self.state);
        self.look(&mut state);
        let mut verdict = state.books.admit(film, whole, now);
        if let Verdict::After { hold_back, leave, segments } = &verdict
            && leave.is_empty()
            && hold_back.is_empty()
        {
            let most = *segments;
            drop(state);
            self.segments_give_way(most);
            state = lock(&self.state);
            verdict = state.books.admit(film, whole, now);
        }
        if verdict == Verdict::Fits {
            let held = size_of(&self.films, &film);
            let account = state.books.films.entry(film).or_insert(Account { held, promised: 0, used: now });
            account.promised = account.promised.max(whole);
            account.used = now;
        }
        verdict
    }

    fn segments_give_way(&self, most: u64) {
        if let Some(segments) = self.segments.get().and_then(Weak::upgrade) {
            segments.give_way(most);
        }
    }

    /// Makes segments fit again, and answers which films have to leave. Looks at the disk.
    pub fn level(&self) -> Vec<Film> {
        let (room, surplus) = {
            let mut state = lock(&self.state);
            self.look(&mut state);
            (state.books.room_for_segments(), state.books.surplus(self.now()))
        };
        self.segments_give_way(room);
        surplus
    }

    /// Whether anything of a film is here, or comes.
    pub fn holds(&self, film: &Film) -> bool {
        lock(&self.state).books.films.contains_key(film)
    }

    /// Reserves room for a file to keep that takes about `whole` bytes in the end. `true`: films have to leave for it ([`Budget::level`]).
    /// Looks at the disk.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn admit_kept(&self, name: &str, whole: u64) -> Result<bool, Shortage> {
        let now = self.now();
        let mut state = lock(&self.state);
        self.look(&mut state);
        state.books.kept.remove(name);
        let leave = state.books.admit_kept(whole, now)?;
        state.books.kept.insert(name.to_owned(), Account { held: 0, promised: whole, used: now });
        Ok(leave)
    }

    /// A file to keep takes so many bytes more.
    pub fn kept_grew(&self, name: &str, bytes: u64) {
        if let Some(account) = lock(&self.state).books.kept.get_mut(name) {
            account.held = account.held.saturating_add(bytes);
        }
    }

    /// A file to keep is whole, and takes so many bytes.
    pub fn kept_whole(&self, name: &str, bytes: u64) {
        let now = self.now();
        lock(&self.state).books.kept.insert(name.to_owned(), Account { held: bytes, promised: 0, used: now });
        self.tell();
    }

    /// A file to keep is gone.
    pub fn kept_left(&self, name: &str) {
        lock(&self.state).books.kept.remove(name);
        self.tell();
    }

    /// Something of a film was asked for.
    pub fn touch(&self, film: &Film) {
        let now = self.now();
        if let Some(account) = lock(&self.state).books.films.get_mut(film) {
            account.used = now;
        }
    }

    /// Nothing more comes of a film: it is whole, or nobody wants more of it. What is here of it stays.
    pub fn settle(&self, film: &Film) {
        if let Some(account) = lock(&self.state).books.films.get_mut(film) {
            account.promised = 0;
            account.held = size_of(&self.films, film);
        }
        self.tell();
    }

    /// Nothing of a film is here any more, and nothing comes.
    pub fn left(&self, film: &Film) {
        lock(&self.state).books.films.remove(film);
        self.tell();
    }

    /// A torrent is gone with everything of it.
    pub fn forget(&self, torrent: &InfoHash) {
        lock(&self.state).books.films.retain(|(of, _), _| of != torrent);
        self.tell();
    }

    /// What segments may take now.
    pub fn room_for_segments(&self) -> u64 {
        lock(&self.state).books.room_for_segments()
    }

    /// Segments take so many bytes more.
    pub fn segments_grew(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.books.segments = state.books.segments.saturating_add(bytes);
    }

    /// Segments take so many bytes less.
    pub fn segments_shrank(&self, bytes: u64) {
        {
            let mut state = lock(&self.state);
            state.books.segments = state.books.segments.saturating_sub(bytes);
        }
        self.tell();
    }

    /// Wakes when room was made.
    pub fn made_room(&self) -> watch::Receiver<u64> {
        self.made_room.subscribe()
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The folder, or the next one above it that is there.
fn existing(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.is_dir())
}

fn file_of(films: &Path, (torrent, file): &Film) -> PathBuf {
    films.join(torrent.to_string()).join(file.to_string())
}

fn size_of(films: &Path, film: &Film) -> u64 {
    std::fs::metadata(file_of(films, film)).map_or(0, |found| blocks(&found).saturating_add(RECORDS))
}

#[cfg(unix)]
fn blocks(found: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(found).saturating_mul(512)
}

#[cfg(not(unix))]
fn blocks(found: &std::fs::Metadata) -> u64 {
    found.len()
}

/// The films of an earlier run, used when they were last written.
fn found(films: &Path) -> BTreeMap<Film, Account> {
    let mut all = BTreeMap::new();
    for torrent in std::fs::read_dir(films).into_iter().flatten().flatten() {
        let Some(hash) = torrent.file_name().to_str().and_then(|name| name.parse::<InfoHash>().ok()) else { continue };
        for file in std::fs::read_dir(torrent.path()).into_iter().flatten().flatten() {
            let Some(number) = file.file_name().to_str().and_then(|name| name.parse::<usize>().ok()) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|changed| changed.elapsed().ok()).unwrap_or_default();
            all.insert((hash, number), Account { held: blocks(&metadata).saturating_add(RECORDS), promised: 0, used: -milliseconds(age) });
        }
    }
    all
}
