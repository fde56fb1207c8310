//! Segments: what they are made of, who waits for them, and which encoded ones are kept.
//!
//! A segment is a growing list of [`Part`]s. Copied segments hold no media at all, only references into the film's file; encoded
//! ones refer to a file of their own under the cache folder, whose bytes count against a budget (least recently used first out).
//! This file does not know how a segment is produced.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::source::{Source, SourceError};

/// Segments of some minutes of film.
const LEAST_ROOM: u64 = 64 << 20;
/// Most bytes of one read while a segment is sent.
const READ: u64 = 256 * 1024;

/// A stretch of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Bytes in memory: headers.
    Bytes(Bytes),
    /// Bytes of the film's file.
    Film {
        /// File offset in bytes.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Bytes of the segment's own file.
    Own {
        /// File offset in bytes.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Part {
    /// Bytes of this part.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Film { len, .. } | Self::Own { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<balcony_media::segment::Part> for Part {
    fn from(part: balcony_media::segment::Part) -> Self {
        match part {
            balcony_media::segment::Part::Bytes(bytes) => Self::Bytes(bytes),
            balcony_media::segment::Part::Film { offset, len } => Self::Film { offset, len },
        }
    }
}

/// Why a segment or a part of it cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// It was not there in time.
    #[error("the segment was not there in time")]
    Late,
    /// Its production ended without it.
    #[error("the segment could not be made: {0}")]
    Failed(String),
    /// The film's bytes cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The segment's own file cannot be read or written.
    #[error("the segment cache failed: {0}")]
    Cache(std::io::ErrorKind),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Growth {
    Growing(usize),
    Done(usize),
    Failed(SegmentError),
}

/// One segment that is being made or was made. Cheap to clone; the last clone that goes closes the segment's file.
#[derive(Clone)]
pub struct Segment(Arc<Inner>);

struct Inner {
    parts: Mutex<Vec<Part>>,
    growth: watch::Sender<Growth>,
    file: Option<File>,
}

impl Segment {
    /// A segment whose parts are all known.
    pub fn whole(parts: Vec<Part>) -> Self {
        let growth = watch::Sender::new(Growth::Done(parts.len()));
        Self(Arc::new(Inner { parts: Mutex::new(parts), growth, file: None }))
    }

    /// A segment that will grow.
    pub fn growing(file: Option<File>) -> Self {
        let growth = watch::Sender::new(Growth::Growing(0));
        Self(Arc::new(Inner { parts: Mutex::new(Vec::new()), growth, file }))
    }

    /// Adds parts at the end and wakes whoever waits for them.
    pub fn extend(&self, parts: impl IntoIterator<Item = Part>) {
        let count = {
            let mut all = lock(&self.0.parts);
            all.extend(parts.into_iter().filter(|part| !part.is_empty()));
            all.len()
        };
        self.0.growth.send_replace(Growth::Growing(count));
    }

    /// Nothing follows any more.
    pub fn finish(&self) {
        let count = lock(&self.0.parts).len();
        self.0.growth.send_replace(Growth::Done(count));
    }

    /// It will never be finished. What was sent of it stays sent.
    pub fn fail(&self, error: SegmentError) {
        self.0.growth.send_if_modified(|growth| {
            let open = matches!(growth, Growth::Growing(_));
            if open {
                *growth = Growth::Failed(error);
            }
            open
        });
    }

    /// Whether all parts are known.
    pub fn is_done(&self) -> bool {
        matches!(*self.0.growth.borrow(), Growth::Done(_))
    }

    /// Whether its production gave it up.
    pub fn is_failed(&self) -> bool {
        matches!(*self.0.growth.borrow(), Growth::Failed(_))
    }

    /// Bytes of the whole segment, once all parts are known.
    pub fn bytes(&self) -> Option<u64> {
        self.is_done().then(|| lock(&self.0.parts).iter().map(Part::len).sum())
    }

    /// Ranges of the film's file that the parts known so far refer to.
    pub fn film_ranges(&self) -> Vec<std::ops::Range<u64>> {
        let parts = lock(&self.0.parts);
        parts.iter().filter_map(|part| if let Part::Film { offset, len } = part { Some(*offset..offset + len) } else { None }).collect()
    }

    /// Waits until all parts are known.
    pub async fn done(&self) -> Result<(), SegmentError> {
        let mut growth = self.0.growth.subscribe();
        let end = growth.wait_for(|growth| !matches!(growth, Growth::Growing(_))).await;
        match end.as_deref() {
            Ok(Growth::Failed(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(SegmentError::Failed("its production ended".into())),
        }
    }

    /// Part number `at`, waiting for it; `None` past the last one.
    async fn part(&self, at: usize) -> Result<Option<Part>, SegmentError> {
        let mut growth = self.0.growth.subscribe();
        let reached = growth
            .wait_for(|growth| match growth {
                Growth::Growing(count) => *count > at,
                Growth::Done(_) | Growth::Failed(_) => true,
            })
            .await;
        let failed = match reached.as_deref() {
            Ok(Growth::Failed(error)) => Some(error.clone()),
            Ok(_) => None,
            Err(_) => Some(SegmentError::Failed("its production ended".into())),
        };
        match (lock(&self.0.parts).get(at).cloned(), failed) {
            (Some(part), _) => Ok(Some(part)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }
}

/// Reads a segment from its start, as it grows and as the film's pieces arrive.
pub struct SegmentReader {
    segment: Segment,
    film: Source,
    at: usize,
    within: u64,
}

impl SegmentReader {
    /// A reader at the first byte.
    pub fn new(segment: Segment, film: Source) -> Self {
        Self { segment, film, at: 0, within: 0 }
    }

    /// Skips bytes of a segment whose parts are all known.
    pub fn skip(&mut self, mut bytes: u64) {
        let parts = lock(&self.segment.0.parts);
        while let Some(part) = parts.get(self.at) {
            let rest = part.len() - self.within;
            if bytes < rest {
                self.within += bytes;
                return;
            }
            bytes -= rest;
            self.at += 1;
            self.within = 0;
        }
    }

    /// The next bytes, `None` at the end. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SegmentError> {
        let Some(part) = self.segment.part(self.at).await? else {
            return Ok(None);
        };
        let take = (part.len() - self.within).min(READ);
        let bytes = self.read(&part, take).await?;
        self.within += bytes.len() as u64;
        if self.within >= part.len() {
            self.at += 1;
            self.within = 0;
        }
        Ok(Some(bytes))
    }

    async fn read(&self, part: &Part, take: u64) -> Result<Bytes, SegmentError> {
        let len = usize::try_from(take).unwrap_or(usize::MAX);
        match part {
            Part::Bytes(bytes) => {
                let from = usize::try_from(self.within).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(from..(from + len).min(bytes.len())))
            }
            Part::Film { offset, .. } => Ok(self.film.read_at(offset + self.within, len).await?),
            Part::Own { offset, .. } => {
                let (segment, at) = (self.segment.clone(), offset + self.within);
                let read = tokio::task::spawn_blocking(move || {
                    let file = segment.0.file.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, at)?;
                    Ok::<_, std::io::Error>(Bytes::from(bytes))
                });
                read.await.map_err(|_| SegmentError::Cache(std::io::ErrorKind::Other))?.map_err(|error| SegmentError::Cache(error.kind()))
            }
        }
    }
}

/// Which encoded segment: a rendition's folder name and a segment number.
type Key = (Arc<str>, u32);

/// The encoded segments on disk, under a byte budget.
pub struct SegmentStore {
    folder: PathBuf,
    budget: u64,
    /// Bytes of the budget that films take.
    taken: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    bytes: u64,
}

struct Entry {
    segment: Segment,
    path: PathBuf,
    bytes: u64,
    used: Instant,
}

impl SegmentStore {
    /// Opens the store in `folder`, which is emptied: an encoded segment outlives no server.
    pub fn open(folder: &Path, budget: u64) -> std::io::Result<Arc<Self>> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        Ok(Arc::new(Self { folder: folder.to_owned(), budget, taken: AtomicU64::new(0), kept: Mutex::default() }))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        lock(&self.kept).bytes
    }

    /// Films take this much of the budget now; segments get the rest.
    pub fn share_with(&self, films: u64) {
        self.taken.store(films, Ordering::Relaxed);
        lock(&self.kept).evict(self.room(), None);
    }

    /// What segments may take: what films leave, but always enough to go on playing.
    fn room(&self) -> u64 {
        self.budget.saturating_sub(self.taken.load(Ordering::Relaxed)).max(LEAST_ROOM.min(self.budget))
    }

    /// Segment `n` of a rendition, made or being made; marks it as used.
    pub fn get(&self, rendition: &Arc<str>, n: u32) -> Option<Segment> {
        let mut kept = lock(&self.kept);
        let entry = kept.entries.get_mut(&(rendition.clone(), n))?;
        entry.used = Instant::now();
        Some(entry.segment.clone())
    }

    /// Whether segment `n` is made or being made, without marking it as used.
    pub fn has(&self, rendition: &Arc<str>, n: u32) -> bool {
        lock(&self.kept).entries.contains_key(&(rendition.clone(), n))
    }

    /// Starts segment `n`; its bytes follow through the writer.
    pub fn create(self: &Arc<Self>, rendition: &Arc<str>, n: u32) -> std::io::Result<SegmentWriter> {
        let folder = self.folder.join(&**rendition);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{n}.m4s"));
        let write = File::create(&path)?;
        let segment = Segment::growing(Some(File::open(&path)?));
        let entry = Entry { segment: segment.clone(), path, bytes: 0, used: Instant::now() };
        let key = (rendition.clone(), n);
        if let Some(old) = lock(&self.kept).insert(key.clone(), entry) {
            old.segment.fail(SegmentError::Failed("it is made anew".into()));
        }
        Ok(SegmentWriter { store: self.clone(), key, segment, file: write, written: 0, ended: false })
    }

    /// Forgets all segments of a rendition.
    pub fn remove(&self, rendition: &str) {
        let mut kept = lock(&self.kept);
        let gone: Vec<Key> = kept.entries.keys().filter(|(of, _)| **of == *rendition).cloned().collect();
        for key in gone {
            kept.drop_entry(&key);
        }
        drop(kept);
        remove_quietly(std::fs::remove_dir_all(self.folder.join(rendition)));
    }

    fn count(&self, key: &Key, bytes: u64) {
        let mut kept = lock(&self.kept);
        if let Some(entry) = kept.entries.get_mut(key) {
            entry.bytes += bytes;
            kept.bytes += bytes;
        }
        kept.evict(self.room(), Some(key));
    }

    fn forget(&self, key: &Key) {
        lock(&self.kept).drop_entry(key);
    }
}

impl Kept {
    fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        let old = self.entries.insert(key, entry);
        self.bytes -= old.as_ref().map_or(0, |old| old.bytes);
        old
    }

    fn drop_entry(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            remove_quietly(std::fs::remove_file(&entry.path));
        }
    }

    /// Drops the least recently used finished segments until the rest fits. `writing` is the one that grows right now.
    fn evict(&mut self, budget: u64, writing: Option<&Key>) {
        while self.bytes > budget {
            let oldest = self
                .entries
                .iter()
                .filter(|(key, entry)| Some(*key) != writing && entry.segment.is_done())
                .min_by_key(|(_, entry)| entry.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            self.drop_entry(&key);
        }
    }
}

/// Writes one encoded segment. A writer that is dropped before [`SegmentWriter::finish`] takes its segment with it.
pub struct SegmentWriter {
    store: Arc<SegmentStore>,
    key: Key,
    segment: Segment,
    file: File,
    written: u64,
    ended: bool,
}

impl SegmentWriter {
    /// Appends a chunk; readers get it at once. Small enough (half a second of film) to be written in place.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        let len = bytes.len() as u64;
        self.segment.extend([Part::Own { offset: self.written, len }]);
        self.written += len;
        self.store.count(&self.key, len);
        Ok(())
    }

    /// The segment is whole.
    pub fn finish(mut self) {
        self.ended = true;
        self.segment.finish();
    }

    /// The segment cannot be made; whoever waits for it hears why.
    pub fn fail(mut self, error: SegmentError) {
        self.ended = true;
        self.segment.fail(error);
        self.store.forget(&self.key);
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.segment.fail(SegmentError::Failed("its production ended".into()));
            self.store.forget(&self.key);
        }
    }
}

/// A panic elsewhere leaves these tables whole: each change is one insert or one remove.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_quietly(done: std::io::Result<()>) {
    if let Err(error) = done
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "a cached segment could not be removed");
    }
}

/// How long a request waits for the first byte of a segment.
pub const DEADLINE: Duration = Duration::from_secs(8);
