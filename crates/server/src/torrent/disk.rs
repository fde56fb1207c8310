//! Where a torrent's bytes lie, and which of them are verified.
//!
//! librqbit writes through [`DiskStorage`], so that we learn at once that a piece is complete or that the disk is full, instead of
//! looking again and again. Files lie under their number in the torrent, in the torrent's own folder, and are made when their first
//! byte comes: no name from a stranger ever becomes a path, and a torrent of 20,000 files opens one. Which pieces are verified is
//! kept beside them, so that a restart does not wait until the film is hashed again. What an earlier run verified is only said to be
//! here: each such piece is hashed once before its bytes are given to anybody ([`Disk::check`]), for between two runs anything may
//! have happened to it. This file decides nothing about what is fetched.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::BASE64;
use librqbit::storage::filesystem::FilesystemStorageFactory;
use librqbit::storage::{BoxStorageFactory, StorageFactory, StorageFactoryExt, TorrentStorage};
use librqbit::{ManagedTorrentShared, TorrentMetadata};
use librqbit_sha1_wrapper::{ISha1, Sha1};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::metainfo::Metainfo;
use crate::budget::Budget;
use crate::source::{SourceError, read_exact_at};

/// Name of the record of verified pieces in a torrent's folder.
const RECORD: &str = "verified.json";
/// Name of the journal of the pieces that came since the record: the start of the machine that wrote it, and one bit per piece.
const JOURNAL: &str = "verified.bits";
/// A file that was changed so long after the record was written was changed by somebody else.
const RECORD_GRACE: Duration = Duration::from_secs(30);
/// Bytes that are read and hashed in one go.
const HASH: usize = 256 << 10;
/// Holes of files begin and end at multiples of so many bytes.
const PAGE: u64 = 4096;

/// One file of the torrent.
struct Slot {
    /// Where it begins in the torrent, in bytes.
    start: u64,
    len: u64,
    padding: bool,
    file: OnceLock<Arc<File>>,
}

/// A torrent's files and its verified pieces.
pub(super) struct Disk {
    folder: PathBuf,
    slots: Vec<Slot>,
    piece_len: u64,
    total: u64,
    hashes: Bytes,
    /// What was verified in this run or an earlier one. One bit per piece, the first in the highest bit of the first byte (BEP 3's
    /// bitfield).
    verified: Vec<AtomicU8>,
    /// What was verified in this run.
    hashed: Vec<AtomicU8>,
    /// Whether the engine hashes everything at the start, as there is no record.
    engine_hashes: AtomicBool,
    /// Held while a piece is hashed: nobody hashes it twice, and no old verdict comes after a new piece.
    checking: Mutex<()>,
    /// The record may be wrong: everything is to be hashed soon, not only what is asked for.
    alarmed: AtomicBool,
    /// Pieces were found to be wrong that the engine takes for right.
    unlearned: AtomicBool,
    doubted: Notify,
    found_wrong: Notify,
    /// Set when librqbit has agreed to what the record says.
    settled: AtomicBool,
    /// Counts everything that a waiting reader must look at.
    changes: watch::Sender<u64>,
    fault: Mutex<Option<SourceError>>,
    journal: Mutex<Option<File>>,
    boot: String,
    /// Asked before a byte is written.
    budget: Arc<Budget>,
    /// There was no room for the last byte.
    full: AtomicBool,
    /// A file was found to be shorter than what was written, or with holes in it: somebody else was there.
    tampered: AtomicBool,
}

/// The record of verified pieces.
#[derive(Serialize, Deserialize)]
struct Record {
    pieces: u32,
    verified: String,
    /// Which start of the machine wrote it: after a power cut the pages of the films may be lost, the record not.
    boot: String,
    /// Whether the data had been brought to the disk before the record.
    synced: bool,
    /// Seconds since 1970.
    written: u64,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, metainfo: &Metainfo, budget: Arc<Budget>) -> Arc<Self> {
        let mut start = 0;
        let mut slots = Vec::with_capacity(metainfo.files.len());
        for (file, padding) in metainfo.files.iter().zip(&metainfo.padding) {
            slots.push(Slot { start, len: file.length, padding: *padding, file: OnceLock::new() });
            start += file.length;
        }
        let no_bits = || (0..metainfo.pieces().div_ceil(8)).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Self {
            folder,
            slots,
            piece_len: u64::from(metainfo.piece_len),
            total: metainfo.total,
            hashes: metainfo.hashes.clone(),
            verified: no_bits(),
            hashed: no_bits(),
            engine_hashes: AtomicBool::new(false),
            checking: Mutex::new(()),
            alarmed: AtomicBool::new(false),
            unlearned: AtomicBool::new(false),
            doubted: Notify::new(),
            found_wrong: Notify::new(),
            settled: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            fault: Mutex::new(None),
            journal: Mutex::new(None),
            boot: boot_id(),
            budget,
            full: AtomicBool::new(false),
            tampered: AtomicBool::new(false),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn piece_len(&self) -> u64 {
        self.piece_len
    }

    /// Something changed: a piece came, or a fault. Look again.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn fault(&self) -> Option<SourceError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends all waiting with `fault`. The first one stays, but [`SourceError::Gone`] is final.
    pub(super) fn fail(&self, fault: SourceError) {
        let mut held = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() || fault == SourceError::Gone {
            *held = Some(fault);
        }
        drop(held);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The first byte of the range of a file that cannot be read yet, as an offset in that file: it is not here, or not verified in
    /// this run.
    pub(super) fn first_missing(&self, file: usize, range: &Range<u64>) -> Option<u64> {
        self.first_without(&self.hashed, file, range)
    }

    /// The first byte of the range of a file that has to be fetched, as far as is known.
    pub(super) fn first_unfetched(&self, file: usize, range: &Range<u64>) -> Option<u64> {
        self.first_without(&self.verified, file, range)
    }

    fn first_without(&self, bits: &[AtomicU8], file: usize, range: &Range<u64>) -> Option<u64> {
        let slot = self.slots.get(file)?;
        if range.is_empty() {
            return None;
        }
        if !self.settled.load(Ordering::Acquire) {
            return Some(range.start);
        }
        let pieces = self.pieces_of(slot, range);
        let missing = pieces.into_iter().find(|piece| !is_set(bits, *piece))?;
        Some((missing * self.piece_len).saturating_sub(slot.start).max(range.start))
    }

    /// Bytes of a file.
    pub(super) fn len(&self, file: usize) -> u64 {
        self.slots.get(file).map_or(0, |slot| slot.len)
    }

    /// Bytes of a file that are verified.
    pub(super) fn verified_bytes(&self, file: usize) -> u64 {
        let Some(slot) = self.slots.get(file) else { return 0 };
        if slot.len == 0 || !self.settled.load(Ordering::Acquire) {
            return 0;
        }
        let end = slot.start + slot.len;
        let part = |piece: u64| (piece + 1).saturating_mul(self.piece_len).min(end) - (piece * self.piece_len).max(slot.start);
        self.pieces_of(slot, &(0..slot.len)).filter(|piece| self.is_verified(*piece)).map(part).sum()
    }

    /// Counts what changes: pieces that come, faults.
    pub(super) fn change(&self) -> u64 {
        *self.changes.borrow()
    }

    /// The parts of a file that are verified, as offsets in that file: ascending, none touching the next.
    pub(super) fn verified_ranges(&self, file: usize) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let Some(slot) = self.slots.get(file).filter(|_| self.settled.load(Ordering::Acquire)) else { return ranges };
        let end = slot.start + slot.len;
        for piece in self.pieces_of(slot, &(0..slot.len)).filter(|piece| self.is_verified(*piece)) {
            let from = (piece * self.piece_len).max(slot.start) - slot.start;
            let to = (piece + 1).saturating_mul(self.piece_len).min(end) - slot.start;
            match ranges.last_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => ranges.push(from..to),
            }
        }
        ranges
    }

    /// Bytes that a file will take when it is whole: those of all pieces that have a part of it, for they come whole.
    pub(super) fn whole(&self, file: usize) -> u64 {
        let Some(slot) = self.slots.get(file) else { return 0 };
        let pieces = self.pieces_of(slot, &(0..slot.len));
        pieces.end.saturating_mul(self.piece_len).min(self.total).saturating_sub(pieces.start * self.piece_len)
    }

    /// Whether there was no room for what came last.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// There is no room.
    pub(super) fn has_no_room(&self) {
        self.full.store(true, Ordering::Release);
        self.changed();
    }

    /// There is room again.
    pub(super) fn has_room_again(&self) {
        self.full.store(false, Ordering::Release);
        self.changed();
    }

    /// Gives up what is here of a file, but what others of these files need of it. Nobody may be writing.
    pub(super) fn give_up(&self, file: usize, kept: &BTreeSet<usize>) -> io::Result<()> {
        let Some(slot) = self.slots.get(file) else { return Ok(()) };
        let needed: Vec<Range<u64>> =
            kept.iter().filter_map(|other| self.slots.get(*other)).map(|other| self.pieces_of(other, &(0..other.len))).collect();
        let shared = |piece: u64| needed.iter().any(|pieces| pieces.contains(&piece));
        let pieces = self.pieces_of(slot, &(0..slot.len));
        for piece in pieces.clone().filter(|piece| !shared(*piece)) {
            clear(&self.verified, piece);
            clear(&self.hashed, piece);
        }
        // First it is written down: a crash must not leave a record of what is gone.
        if self.settled.load(Ordering::Acquire) {
            self.begin_journal();
        }
        self.record(false)?;
        // The ends that others need are small: all but them goes.
        if !pieces.clone().any(shared) && self.folder.join(file.to_string()).exists() {
            self.open(file)?.set_len(0)?;
        }
        self.changed();
        Ok(())
    }

    fn pieces_of(&self, slot: &Slot, range: &Range<u64>) -> Range<u64> {
        let start = slot.start + range.start.min(slot.len);
        let end = slot.start + range.end.min(slot.len);
        start / self.piece_len..end.div_ceil(self.piece_len)
    }

    fn is_verified(&self, piece: u64) -> bool {
        is_set(&self.verified, piece)
    }

    fn is_doubtful(&self, piece: u64) -> bool {
        self.is_verified(piece) && !is_set(&self.hashed, piece)
    }

    /// The piece with this byte of a file, if an earlier run has verified it and this one not yet.
    pub(super) fn doubtful(&self, file: usize, offset: u64) -> Option<u64> {
        let slot = self.slots.get(file).filter(|slot| offset < slot.len && self.settled.load(Ordering::Acquire))?;
        Some((slot.start + offset) / self.piece_len).filter(|piece| self.is_doubtful(*piece))
    }

    /// The next piece from this one on that is [doubtful](Self::doubtful), going round.
    pub(super) fn next_doubtful(&self, from: u64) -> Option<u64> {
        let pieces = self.total.div_ceil(self.piece_len);
        let from = from.min(pieces);
        (from..pieces).chain(0..from).find(|piece| self.is_doubtful(*piece))
    }

    /// Hashes a doubtful piece (BEP 3). One that is wrong, or cannot be read, is not here any more: it has to be fetched again.
    /// Blocks for as long as the disk takes.
    pub(super) fn check(&self, piece: u64) {
        let _alone = self.checking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_doubtful(piece) {
            return;
        }
        if self.hash_of(piece).is_ok_and(|found| self.expected(piece) == Some(found)) {
            set(&self.hashed, piece);
            self.changed();
        } else {
            self.lose(piece);
        }
    }

    /// Whether the file still holds what was just read of a range. Another program may have emptied or shortened it: then it ends sooner,
    /// or has a hole there as soon as something is written behind, and zeros were read. What it does not hold has to be hashed again
    /// before it is believed: file systems may keep real zeros as holes.
    pub(super) fn still_holds(&self, file: usize, range: &Range<u64>) -> bool {
        let Some(slot) = self.slots.get(file).filter(|slot| !slot.padding && !range.is_empty()) else { return true };
        // What was written at the edge of a hole has zeros in the same page, which are no hole: a page before and behind must be here too.
        let around = range.start.saturating_sub(PAGE)..range.end.saturating_add(PAGE).min(slot.len);
        let from = if self.first_missing(file, &(around.start..range.start)).is_some() { range.start } else { around.start };
        let to = if self.first_missing(file, &(range.end..around.end)).is_some() { range.end } else { around.end };
        let holds = self.open(file).is_ok_and(|open| written_until(&open, from).is_ok_and(|until| until >= to));
        if !holds {
            self.pieces_of(slot, &(from..to)).for_each(|piece| clear(&self.hashed, piece));
            self.tampered.store(true, Ordering::Release);
        }
        holds
    }

    /// A piece that was said to be here is not, or is another.
    pub(super) fn lose(&self, piece: u64) {
        if self.tampered.swap(false, Ordering::AcqRel) {
            // What this run has seen itself is not believed any more either.
            self.hashed.iter().for_each(|byte| byte.store(0, Ordering::Release));
        }
        clear(&self.verified, piece);
        clear(&self.hashed, piece);
        self.note(piece);
        if !self.alarmed.swap(true, Ordering::AcqRel) {
            tracing::warn!(piece, "a piece of an earlier run is wrong on the disk: everything of its torrent is checked");
        }
        self.unlearned.store(true, Ordering::Release);
        self.found_wrong.notify_one();
        self.doubt();
        self.changed();
    }

    fn expected(&self, piece: u64) -> Option<[u8; 20]> {
        let from = usize::try_from(piece).ok()?.checked_mul(20)?;
        self.hashes.get(from..from.checked_add(20)?)?.try_into().ok()
    }

    fn hash_of(&self, piece: u64) -> io::Result<[u8; 20]> {
        let (mut hash, mut buffer) = (Sha1::new(), vec![0; HASH]);
        let mut at = piece * self.piece_len;
        let end = at.saturating_add(self.piece_len).min(self.total);
        // Files of no bytes begin where the next one does.
        let mut file = self.slots.partition_point(|slot| slot.start + slot.len <= at);
        while at < end {
            let slot = self.slots.get(file).ok_or(io::ErrorKind::NotFound)?;
            let rest = (slot.start + slot.len).min(end).saturating_sub(at);
            if rest == 0 {
                file += 1;
                continue;
            }
            let take = usize::try_from(rest).unwrap_or(HASH).min(HASH);
            let chunk = buffer.get_mut(..take).unwrap_or_default();
            self.read(file, at - slot.start, chunk)?;
            hash.update(chunk);
            at += chunk.len() as u64;
        }
        Ok(hash.finish())
    }

    /// Somebody reads what is doubtful: the rest is looked at too, in its time.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits until somebody reads what is doubtful.
    pub(super) async fn is_doubted(&self) {
        self.doubted.notified().await;
    }

    /// Whether everything is to be checked soon.
    pub(super) fn is_alarmed(&self) -> bool {
        self.alarmed.load(Ordering::Acquire)
    }

    /// Wakes when a piece was found to be wrong.
    pub(super) async fn finds_wrong(&self) {
        self.found_wrong.notified().await;
    }

    /// Whether the engine still takes pieces for right that are wrong.
    pub(super) fn is_unlearned(&self) -> bool {
        self.unlearned.load(Ordering::Acquire)
    }

    /// The bitfield that the engine is to go on with: from now on it knows what is wrong.
    pub(super) fn learned_bits(&self) -> Vec<u8> {
        // Before: what is found to be wrong meanwhile is told anew.
        self.unlearned.store(false, Ordering::Release);
        self.bits()
    }

    /// A piece came, and the engine has hashed it.
    fn came(&self, piece: u64) {
        set(&self.verified, piece);
        set(&self.hashed, piece);
        self.note(piece);
        self.changed();
    }

    /// The bitfield of what is verified.
    pub(super) fn bits(&self) -> Vec<u8> {
        self.verified.iter().map(|byte| byte.load(Ordering::Acquire)).collect()
    }

    /// Takes over what librqbit holds for verified, after its own check. What only the record claimed is forgotten.
    pub(super) fn settle(&self, confirmed: &[u8]) {
        let first_time = !self.settled.load(Ordering::Acquire);
        for (byte, confirmed) in self.verified.iter().zip(confirmed) {
            if first_time {
                byte.store(*confirmed, Ordering::Release);
            } else {
                byte.fetch_or(*confirmed, Ordering::AcqRel);
            }
        }
        if first_time && self.engine_hashes.load(Ordering::Acquire) {
            self.hashed.iter().zip(confirmed).for_each(|(byte, confirmed)| byte.store(*confirmed, Ordering::Release));
        }
        self.settled.store(true, Ordering::Release);
        if first_time {
            self.begin_journal();
        }
        self.changed();
    }

    /// The record is written once a second; a piece that came since would be fetched again after a crash without the journal.
    fn begin_journal(&self) {
        let begun = [self.boot.as_bytes(), &self.bits()].concat();
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(self.folder.join(JOURNAL));
        let file = file.and_then(|file| write_all_at(&file, 0, &begun).map(|()| file));
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = file.ok();
    }

    /// Notes a piece that came. A journal that cannot be written costs a piece after a crash, and nothing else.
    fn note(&self, piece: u64) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let byte = byte_of(&self.verified, piece);
        let Some((file, byte)) = journal.as_ref().zip(byte) else { return };
        if write_all_at(file, self.boot.len() as u64 + piece / 8, &[byte.load(Ordering::Acquire)]).is_err() {
            *journal = None;
        }
    }

    /// What the journal adds to the record: nothing where another start of the machine wrote it.
    fn noted(&self) -> Vec<u8> {
        let journal = std::fs::read(self.folder.join(JOURNAL)).unwrap_or_default();
        let bits = journal.strip_prefix(self.boot.as_bytes()).filter(|bits| bits.len() == self.verified.len());
        bits.map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// The file behind a slot, made when it is not there.
    pub(super) fn open(&self, file: usize) -> io::Result<Arc<File>> {
        let slot = self.slots.get(file).ok_or(io::ErrorKind::NotFound)?;
        if let Some(open) = slot.file.get() {
            return Ok(open.clone());
        }
        let path = self.folder.join(file.to_string());
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        Ok(slot.file.get_or_init(|| Arc::new(opened)).clone())
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let slot = self.slots.get(file).ok_or(io::ErrorKind::NotFound)?;
        if slot.padding {
            buffer.fill(0);
            return Ok(());
        }
        // A file of which nothing came yet is not made just because somebody looks.
        if slot.file.get().is_none() && !self.folder.join(file.to_string()).exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        read_exact_at(&*self.open(file)?, offset, buffer)
    }

    fn write(&self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.slots.get(file).is_some_and(|slot| slot.padding) {
            return Ok(());
        }
        let granted = self.budget.spend_on_films(bytes.len() as u64);
        let written = granted.and_then(|()| write_all_at(&*self.open(file)?, offset, bytes));
        if let Err(error) = &written {
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.has_no_room(),
                kind => self.fail(SourceError::Failed(format!("writing the film failed: {kind}"))),
            }
        }
        written
    }

    /// The bitfield to start librqbit with: that of the record. `None` means that there is none, so that librqbit hashes all.
    pub(super) fn recorded(&self) -> Option<Vec<u8>> {
        let recorded = self.read_record();
        self.engine_hashes.store(recorded.is_none(), Ordering::Release);
        recorded
    }

    fn read_record(&self) -> Option<Vec<u8>> {
        let text = match std::fs::read(self.folder.join(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let untouched = (0..self.slots.len()).all(|file| !self.folder.join(file.to_string()).exists());
                return untouched.then(|| vec![0; self.verified.len()]);
            }
            Err(_) => return None,
        };
        let record: Record = serde_json::from_slice(&text).ok()?;
        let bits = BASE64.decode(record.verified.as_bytes()).ok()?;
        let same = u64::from(record.pieces) == self.total.div_ceil(self.piece_len) && bits.len() == self.verified.len();
        if !same {
            return None;
        }
        if !(record.synced || record.boot == self.boot) || !self.untouched_since(record.written) {
            self.alarmed.store(true, Ordering::Release);
        }
        let noted = self.noted().into_iter().chain(std::iter::repeat(0));
        Some(bits.iter().zip(noted).map(|(recorded, noted)| recorded | noted).collect())
    }

    fn untouched_since(&self, written: u64) -> bool {
        let limit = UNIX_EPOCH + Duration::from_secs(written) + RECORD_GRACE;
        (0..self.slots.len()).all(|file| {
            let changed = std::fs::metadata(self.folder.join(file.to_string())).and_then(|found| found.modified());
            changed.is_ok_and(|changed| changed <= limit) || changed_is_missing(&self.folder, file)
        })
    }

    /// Writes the record, beside and renamed. With `sync` the data is brought to the disk before.
    pub(super) fn record(&self, sync: bool) -> io::Result<()> {
        if !self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let bits = self.bits();
        if sync {
            self.slots.iter().filter_map(|slot| slot.file.get()).try_for_each(|file| file.sync_data())?;
        }
        let record = Record {
            pieces: u32::try_from(self.total.div_ceil(self.piece_len)).unwrap_or(u32::MAX),
            verified: BASE64.encode(&bits),
            boot: self.boot.clone(),
            synced: sync,
            written: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        write_aside(&self.folder.join(RECORD), &serde_json::to_vec(&record)?)
    }
}

/// Removes what an earlier run has left of a file in a torrent's folder, while nobody has the torrent open. What else lies there is
/// hashed when the torrent is opened.
pub(super) fn remove_left(folder: &Path, file: usize) {
    for name in [RECORD.to_owned(), JOURNAL.to_owned(), file.to_string()] {
        if let Err(error) = std::fs::remove_file(folder.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "what an earlier run has left of a film could not be removed");
        }
    }
}

fn changed_is_missing(folder: &Path, file: usize) -> bool {
    !folder.join(file.to_string()).exists()
}

fn bit_of(piece: u64) -> u8 {
    0x80 >> (piece % 8)
}

fn byte_of(bits: &[AtomicU8], piece: u64) -> Option<&AtomicU8> {
    bits.get(usize::try_from(piece / 8).ok()?)
}

fn is_set(bits: &[AtomicU8], piece: u64) -> bool {
    byte_of(bits, piece).is_some_and(|byte| byte.load(Ordering::Acquire) & bit_of(piece) != 0)
}

fn set(bits: &[AtomicU8], piece: u64) {
    if let Some(byte) = byte_of(bits, piece) {
        byte.fetch_or(bit_of(piece), Ordering::AcqRel);
    }
}

fn clear(bits: &[AtomicU8], piece: u64) {
    if let Some(byte) = byte_of(bits, piece) {
        byte.fetch_and(!bit_of(piece), Ordering::AcqRel);
    }
}

/// Which start of the machine this is, where the system tells (Linux); else nothing is known, and nothing but a clean end is trusted.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown since {:?}", SystemTime::now()), |id| id.trim().to_owned())
}

/// Writes a file so that it is there whole or not at all. After a power cut it may be the former one, or empty.
pub(super) fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes)?;
    std::fs::rename(&aside, path)
}

/// The same, and on the disk when it returns: for what nobody could give a second time.
pub(super) fn write_lasting(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes)?;
    OpenOptions::new().write(true).open(&aside)?.sync_all()?;
    std::fs::rename(&aside, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Until where a file has been written without a hole from this place on.
fn written_until(file: &File, from: u64) -> io::Result<u64> {
    #[cfg(target_os = "linux")]
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(from)) {
        // It ends before.
        Err(rustix::io::Errno::NXIO) => return Ok(0),
        Ok(hole) => return Ok(hole),
        // This file system knows nothing of holes.
        Err(_) => {}
    }
    let _ = from;
    Ok(file.metadata()?.len())
}

fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                wrote => done += wrote,
            }
        }
        Ok(())
    }
}

/// Makes librqbit write into a [`Disk`].
#[derive(Clone)]
pub(super) struct DiskFactory(pub(super) Arc<Disk>);

impl StorageFactory for DiskFactory {
    type Storage = DiskStorage;

    fn create(&self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<DiskStorage> {
        Ok(DiskStorage { disk: self.0.clone(), retired: AtomicBool::new(false) })
    }

    /// It is plain files in a folder; librqbit keeps its bitfields only for those.
    fn is_type_id(&self, type_id: TypeId) -> bool {
        type_id == TypeId::of::<FilesystemStorageFactory>()
    }

    fn clone_box(&self) -> BoxStorageFactory {
        self.clone().boxed()
    }
}

/// librqbit's hold on a [`Disk`], until it is taken over by the next one (when the torrent is paused).
pub(super) struct DiskStorage {
    disk: Arc<Disk>,
    retired: AtomicBool,
}

impl DiskStorage {
    fn in_use(&self) -> anyhow::Result<&Disk> {
        anyhow::ensure!(!self.retired.load(Ordering::Acquire), "the torrent was paused");
        Ok(&self.disk)
    }
}

impl TorrentStorage for DiskStorage {
    fn init(&mut self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<()> {
        Ok(std::fs::create_dir_all(&self.disk.folder)?)
    }

    fn pread_exact(&self, file: usize, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.in_use()?.read(file, offset, buffer)?)
    }

    fn pwrite_all(&self, file: usize, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.in_use()?.write(file, offset, bytes)?)
    }

    fn remove_file(&self, _: usize, _: &Path) -> anyhow::Result<()> {
        Ok(()) // the whole folder is removed by its owner
    }

    fn remove_directory_if_empty(&self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn ensure_file_length(&self, file: usize, len: u64) -> anyhow::Result<()> {
        Ok(self.in_use()?.open(file)?.set_len(len)?)
    }

    fn take(&self) -> anyhow::Result<Box<dyn TorrentStorage>> {
        self.retired.store(true, Ordering::Release);
        Ok(Box::new(Self { disk: self.disk.clone(), retired: AtomicBool::new(false) }))
    }

    fn on_piece_completed(&self, piece: librqbit_core::lengths::ValidPieceIndex) -> anyhow::Result<()> {
        self.disk.came(u64::from(piece.get()));
        Ok(())
    }
}
