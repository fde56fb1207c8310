//! Segments: what they are made of, who waits for them, and which encoded ones are kept.
//!
//! A segment is a growing list of [`Part`]s. Copied segments hold no media at all, only references into the film's file; encoded
//! ones refer to a file of their own under the cache folder, whose bytes the [`Budget`] counts (least recently used first out).
//! This file does not know how a segment is produced.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::budget::{BLOCK, Budget, GivesWay};
use crate::lock::lock;
use crate::source::{Source, SourceError};

/// Bytes that are read and sent in one go.
const READ: u64 = 512 * 1024;
/// The same for bytes that have to come first: what is here of them is not held back for long.
const READ_MISSING: u64 = 128 * 1024;

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

    /// At most `len` bytes of it, from `from` on.
    fn stretch(&self, from: u64, len: u64) -> Self {
        let len = self.len().saturating_sub(from).min(len);
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
                let to = usize::try_from(len).map_or(bytes.len(), |len| from.saturating_add(len).min(bytes.len()));
                Self::Bytes(bytes.slice(from..to))
            }
            Self::Film { offset, .. } => Self::Film { offset: offset + from, len },
            Self::Own { offset, .. } => Self::Own { offset: offset + from, len },
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
    /// What there was of it is void, and it is being made again.
    #[error("the segment is made anew")]
    Anew,
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
    file: Option<Own>,
}

/// A segment's own file. Its bytes are taken until nobody has it open any more, whether its name is still there or not.
struct Own {
    file: File,
    bytes: AtomicU64,
    budget: Arc<Budget>,
}

impl Own {
    fn grew(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.budget.segments_grew(bytes);
    }

    /// Bytes that it would take more if it had this length.
    fn growth(&self, len: u64) -> u64 {
        len.next_multiple_of(BLOCK).saturating_sub(self.bytes.load(Ordering::Acquire))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.budget.segments_shrank(*self.bytes.get_mut());
    }
}

impl Segment {
    /// A segment whose parts are all known.
    pub fn whole(parts: Vec<Part>) -> Self {
        let growth = watch::Sender::new(Growth::Done(parts.len()));
        Self(Arc::new(Inner { parts: Mutex::new(parts), growth, file: None }))
    }

    /// A segment that will grow.
    pub fn growing() -> Self {
        Self::growing_in(None)
    }

    fn growing_in(file: Option<Own>) -> Self {
        let growth = watch::Sender::new(Growth::Growing(0));
        Self(Arc::new(Inner { parts: Mutex::new(Vec::new()), growth, file }))
    }

    /// Whether nobody but the store has it.
    fn is_read_by_nobody(&self) -> bool {
        Arc::strong_count(&self.0) == 1
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
    /// Read into again as soon as what was read before is sent.
    buffer: BytesMut,
}

impl SegmentReader {
    /// A reader at the first byte.
    pub fn new(segment: Segment, film: Source) -> Self {
        Self { segment, film, at: 0, within: 0, buffer: BytesMut::new() }
    }

    /// Skips bytes of a segment whose parts are all known.
    pub fn skip(&mut self, bytes: u64) {
        self.pass(bytes);
    }

    /// Goes on by this many bytes, at most to the end of the last part.
    fn pass(&mut self, mut bytes: u64) {
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
    ///
    /// What is on the disk comes in large pieces, read in one go however small the parts are; of what is still missing, the next part
    /// comes as soon as it is here.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SegmentError> {
        let Some(next) = self.segment.part(self.at).await? else {
            return Ok(None);
        };
        let present = self.present_parts();
        let bytes = match (next, present.is_empty()) {
            (Part::Film { offset, len }, true) => {
                let take = (len - self.within).min(READ_MISSING);
                self.film.read_at(offset + self.within, usize::try_from(take).unwrap_or(usize::MAX)).await?
            }
            _ => self.read_present(present).await?,
        };
        self.pass(bytes.len() as u64);
        Ok(Some(bytes))
    }

    /// What comes next of the parts that can be read without waiting, up to the size of one read.
    fn present_parts(&self) -> Vec<Part> {
        let parts = lock(&self.segment.0.parts);
        let (mut present, mut left, mut within) = (Vec::new(), READ, self.within);
        for part in parts.iter().skip(self.at) {
            let part = part.stretch(within, left);
            within = 0;
            let here = if let Part::Film { offset, len } = &part { self.film.available(*offset..offset + len) } else { true };
            if left == 0 || !here {
                break;
            }
            left -= part.len();
            present.push(part);
        }
        present
    }

    async fn read_present(&mut self, parts: Vec<Part>) -> Result<Bytes, SegmentError> {
        if let [Part::Bytes(bytes)] = parts.as_slice() {
            return Ok(bytes.clone());
        }
        let (film, source) = (self.film.file()?, self.film.clone());
        let first = parts.first().cloned();
        let (segment, mut buffer) = (self.segment.clone(), std::mem::take(&mut self.buffer));
        let read = tokio::task::spawn_blocking(move || {
            buffer.reserve(usize::try_from(parts.iter().map(Part::len).sum::<u64>()).unwrap_or(0));
            for part in &parts {
                let (file, offset, len) = match part {
                    Part::Bytes(bytes) => {
                        buffer.extend_from_slice(bytes);
                        continue;
                    }
                    Part::Film { offset, len } => (Some(&*film), *offset, *len),
                    Part::Own { offset, len } => (segment.0.file.as_ref().map(|own| &own.file), *offset, *len),
                };
                let from = buffer.len();
                buffer.resize(from + usize::try_from(len).unwrap_or(0), 0);
                let file = file.ok_or(std::io::ErrorKind::NotFound)?;
                let read = file.read_exact_at(buffer.get_mut(from..).unwrap_or_default(), offset);
                if let Part::Film { .. } = part
                    && !source.still_holds(&(offset..offset.saturating_add(len)))
                {
                    return Ok(None);
                }
                read?;
            }
            Ok::<_, std::io::Error>(Some(buffer))
        });
        let read = read.await.map_err(|_| SegmentError::Cache(std::io::ErrorKind::Other))?;
        let Some(mut buffer) = read.map_err(|error| SegmentError::Cache(error.kind()))? else {
            return self.read_again(first).await;
        };
        let bytes = buffer.split().freeze();
        self.buffer = buffer;
        Ok(bytes)
    }

    /// Another program has emptied the film's file: of what was to be read, the first part, as soon as it is there again.
    async fn read_again(&mut self, first: Option<Part>) -> Result<Bytes, SegmentError> {
        match first {
            Some(Part::Film { offset, len }) => Ok(self.film.read_at(offset, usize::try_from(len).unwrap_or(usize::MAX)).await?),
            Some(own) => Box::pin(self.read_present(vec![own])).await,
            None => Err(SegmentError::Cache(std::io::ErrorKind::NotFound)),
        }
    }
}

/// Which encoded segment: a rendition's folder name and a segment number.
type Key = (Arc<str>, u32);

/// The encoded segments on disk, under a byte budget.
pub struct SegmentStore {
    folder: PathBuf,
    budget: Arc<Budget>,
    kept: Mutex<HashMap<Key, Entry>>,
}

struct Entry {
    segment: Segment,
    path: PathBuf,
    used: Instant,
}

impl GivesWay for SegmentStore {
    fn give_way(&self, bytes: u64) {
        while self.bytes() > bytes && self.drop_oldest() {}
    }
}

impl SegmentStore {
    /// Opens the store in `folder`, which is emptied: an encoded segment outlives no server.
    pub fn open(folder: &Path, budget: Arc<Budget>) -> std::io::Result<Arc<Self>> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        let store = Arc::new(Self { folder: folder.to_owned(), budget, kept: Mutex::default() });
        let gives_way: Weak<Self> = Arc::downgrade(&store);
        store.budget.segments_are(gives_way);
        Ok(store)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.budget.usage().segments
    }

    /// Who owns the room on the disk.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Where segments lie. Whatever else is put there is gone with the next start.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Room for files beside the segments, for as long as the answer is kept.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::StorageFull`] when there is none.
    pub fn room(&self, bytes: u64) -> std::io::Result<Room> {
        let bytes = bytes.next_multiple_of(BLOCK);
        self.make_room(bytes)?;
        self.budget.segments_grew(bytes);
        Ok(Room { bytes, budget: self.budget.clone() })
    }

    /// Segment `n` of a rendition, made or being made; marks it as used.
    pub fn get(&self, rendition: &Arc<str>, n: u32) -> Option<Segment> {
        let mut kept = lock(&self.kept);
        let entry = kept.get_mut(&(rendition.clone(), n))?;
        entry.used = Instant::now();
        Some(entry.segment.clone())
    }

    /// Whether segment `n` is made or being made, without marking it as used.
    pub fn has(&self, rendition: &Arc<str>, n: u32) -> bool {
        lock(&self.kept).contains_key(&(rendition.clone(), n))
    }

    /// Starts segment `n`; its bytes follow through the writer.
    pub fn create(self: &Arc<Self>, rendition: &Arc<str>, n: u32) -> std::io::Result<SegmentWriter> {
        let folder = self.folder.join(&**rendition);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{n}.m4s"));
        let write = File::create(&path)?;
        let own = Own { file: File::open(&path)?, bytes: AtomicU64::new(0), budget: self.budget.clone() };
        let segment = Segment::growing_in(Some(own));
        let entry = Entry { segment: segment.clone(), path, used: Instant::now() };
        let key = (rendition.clone(), n);
        let old = lock(&self.kept).insert(key.clone(), entry);
        if let Some(old) = old {
            old.segment.fail(SegmentError::Anew);
        }
        Ok(SegmentWriter { store: self.clone(), key, segment, file: write, written: 0, ended: false })
    }

    /// Forgets all segments of a rendition.
    pub fn remove(&self, rendition: &str) {
        let mut kept = lock(&self.kept);
        let gone: Vec<Key> = kept.keys().filter(|(of, _)| **of == *rendition).cloned().collect();
        let gone: Vec<Entry> = gone.iter().filter_map(|key| kept.remove(key)).collect();
        drop(kept);
        drop(gone);
        remove_quietly(std::fs::remove_dir_all(self.folder.join(rendition)));
    }

    fn forget(&self, key: &Key) {
        let entry = lock(&self.kept).remove(key);
        if let Some(entry) = entry {
            remove_quietly(std::fs::remove_file(&entry.path));
        }
    }

    /// Gets room for so many bytes more; the least recently used finished segments go for it, but none that is being read: its bytes
    /// would stay until it was.
    fn make_room(&self, bytes: u64) -> std::io::Result<()> {
        while self.bytes().saturating_add(bytes) > self.budget.room_for_segments() {
            if !self.drop_oldest() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
        }
        while let Err(error) = self.budget.spend(bytes) {
            if !self.drop_oldest() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Drops the finished segment that nobody reads and nobody has used for longest; `false` where there is none.
    fn drop_oldest(&self) -> bool {
        let entry = {
            let mut kept = lock(&self.kept);
            let idle = kept.iter().filter(|(_, entry)| entry.segment.is_done() && entry.segment.is_read_by_nobody());
            let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key))
        };
        entry.is_some_and(|entry| {
            remove_quietly(std::fs::remove_file(&entry.path));
            true
        })
    }
}

/// Room on the disk that files beside the segments take.
pub struct Room {
    bytes: u64,
    budget: Arc<Budget>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.segments_shrank(self.bytes);
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
    ///
    /// # Errors
    /// [`std::io::ErrorKind::StorageFull`] when there is no room for it.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let len = bytes.len() as u64;
        if let Some(own) = &self.segment.0.file {
            let growth = own.growth(self.written + len);
            self.store.make_room(growth)?;
            own.grew(growth);
        }
        self.file.write_all(bytes)?;
        self.segment.extend([Part::Own { offset: self.written, len }]);
        self.written += len;
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

fn remove_quietly(done: std::io::Result<()>) {
    if let Err(error) = done
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "a cached segment could not be removed");
    }
}

/// How long a request waits for the first byte of a segment.
pub const DEADLINE: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    fn film(bytes: &[u8]) -> (tempfile::NamedTempFile, Source) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        let source = Source::local(file.path()).expect("readable");
        (file, source)
    }

    fn room(folder: &Path, bytes: u64) -> Arc<Budget> {
        Budget::open(&folder.join("films"), crate::budget::Terms::of(bytes))
    }

    async fn whole(mut reader: SegmentReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await.expect("readable") {
            assert!(!bytes.is_empty());
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn parts_of_all_kinds_are_sent_in_order_from_any_byte() {
        let bytes: Vec<u8> = (0..2_000_000u32).map(|n| (n / 7) as u8).collect();
        let (_kept, source) = film(&bytes);
        let mut parts = vec![Part::Bytes(Bytes::from_static(b"head"))];
        parts.extend((0..1000u64).map(|n| Part::Film { offset: n * 1999, len: 600 + n % 5 }));
        parts.push(Part::Film { offset: 100, len: 1_500_000 });
        let mut expected = b"head".to_vec();
        for part in &parts {
            if let Part::Film { offset, len } = part {
                expected.extend_from_slice(&bytes[*offset as usize..(offset + len) as usize]);
            }
        }
        for skip in [0, 1, 4, 5, 603, 604, 605, 300_000, 700_000, expected.len() as u64] {
            let mut reader = SegmentReader::new(Segment::whole(parts.clone()), source.clone());
            reader.skip(skip);
            assert!(whole(reader).await == expected[skip as usize..], "from byte {skip}");
        }
    }

    #[tokio::test]
    async fn a_growing_segment_is_followed_and_its_failure_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SegmentStore::open(&folder.path().join("s"), room(folder.path(), 1 << 20)).expect("a store");
        let (_kept, source) = film(b"");
        let name: Arc<str> = "film-v".into();
        let mut writer = store.create(&name, 3).expect("created");
        let reader = SegmentReader::new(store.get(&name, 3).expect("begun"), source.clone());
        let reading = tokio::spawn(whole(reader));
        for chunk in [b"one".as_slice(), b"two", b"three"] {
            writer.append(chunk).expect("written");
            tokio::task::yield_now().await;
        }
        writer.finish();
        assert_eq!(reading.await.expect("read"), b"onetwothree");
        assert_eq!(store.bytes(), BLOCK);

        let mut writer = store.create(&name, 4).expect("created");
        writer.append(b"half").expect("written");
        let mut reader = SegmentReader::new(store.get(&name, 4).expect("begun"), source);
        drop(writer);
        assert_eq!(reader.next().await.expect("what was there"), Some(Bytes::from_static(b"half")));
        assert!(reader.next().await.is_err());
        assert!(!store.has(&name, 4));
        // Its bytes are there for as long as somebody reads it.
        assert_eq!(store.bytes(), 2 * BLOCK);
        drop(reader);
        assert_eq!(store.bytes(), BLOCK);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_budget_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SegmentStore::open(&folder.path().join("s"), room(folder.path(), 3 * BLOCK + 1000)).expect("a store");
        let name: Arc<str> = "film-v".into();
        let make = |n: u32| {
            let mut writer = store.create(&name, n).expect("created");
            writer.append(&[0; 300]).expect("written");
            writer.finish();
            assert!(store.bytes() <= 3 * BLOCK);
        };
        (0..3).for_each(make);
        assert!(store.get(&name, 0).is_some());
        make(3);
        let kept: Vec<bool> = (0..4).map(|n| store.has(&name, n)).collect();
        assert_eq!(kept, [true, false, true, true]);
        let on_disk = std::fs::read_dir(folder.path().join("s/film-v")).expect("a folder").count();
        assert_eq!(on_disk, 3);
        // One that is being read stays, and counts until it was.
        let read = store.get(&name, 0).expect("kept");
        store.give_way(0);
        assert_eq!((store.bytes(), store.has(&name, 0), store.has(&name, 3)), (BLOCK, true, false));
        store.remove(&name);
        assert_eq!(store.bytes(), BLOCK);
        drop(read);
        assert_eq!(store.bytes(), 0);
        store.remove(&name);
        assert_eq!(store.bytes(), 0);
    }
}
