//! Where a torrent's bytes lie, and which of them are verified.
//!
//! librqbit writes through [`DiskStorage`], so that we learn at once that a piece is complete or that the disk is full, instead of
//! looking again and again. Files lie under their number in the torrent, in the torrent's own folder, and are made when their first
//! byte comes: no name from a stranger ever becomes a path, and a torrent of 20,000 files opens one. Which pieces are verified is
//! kept beside them, so that a restart does not hash the film again. This file decides nothing about what is fetched.

use std::any::TypeId;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use librqbit::storage::filesystem::FilesystemStorageFactory;
use librqbit::storage::{BoxStorageFactory, StorageFactory, StorageFactoryExt, TorrentStorage};
use librqbit::{ManagedTorrentShared, TorrentMetadata};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::metainfo::Metainfo;
use crate::source::{SourceError, read_exact_at};

/// So much may be written between two looks at the free space.
const LOOK_AT_SPACE_EVERY: u64 = 32 << 20;
/// Name of the record of verified pieces in a torrent's folder.
const RECORD: &str = "verified.json";
/// Name of the journal of the pieces that came since the record: the start of the machine that wrote it, and one bit per piece.
const JOURNAL: &str = "verified.bits";
/// A file that was changed so long after the record was written was changed by somebody else.
const RECORD_GRACE: Duration = Duration::from_secs(30);

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
    /// One bit per piece, the first in the highest bit of the first byte (BEP 3's bitfield).
    verified: Vec<AtomicU8>,
    /// Set when librqbit has agreed to what the record says.
    settled: AtomicBool,
    /// Counts everything that a waiting reader must look at.
    changes: watch::Sender<u64>,
    fault: Mutex<Option<SourceError>>,
    journal: Mutex<Option<File>>,
    boot: String,
    reserve: u64,
    unlooked: AtomicU64,
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
    pub(super) fn new(folder: PathBuf, metainfo: &Metainfo, reserve: u64) -> Arc<Self> {
        let mut start = 0;
        let mut slots = Vec::with_capacity(metainfo.files.len());
        for (file, padding) in metainfo.files.iter().zip(&metainfo.padding) {
            slots.push(Slot { start, len: file.length, padding: *padding, file: OnceLock::new() });
            start += file.length;
        }
        let verified = (0..metainfo.pieces().div_ceil(8)).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Self {
            folder,
            slots,
            piece_len: u64::from(metainfo.piece_len),
            total: metainfo.total,
            verified,
            settled: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            fault: Mutex::new(None),
            journal: Mutex::new(None),
            boot: boot_id(),
            reserve,
            unlooked: AtomicU64::new(LOOK_AT_SPACE_EVERY),
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

    /// The first byte of the range of a file that is not verified, as an offset in that file.
    pub(super) fn first_missing(&self, file: usize, range: &Range<u64>) -> Option<u64> {
        let slot = self.slots.get(file)?;
        if range.is_empty() {
            return None;
        }
        if !self.settled.load(Ordering::Acquire) {
            return Some(range.start);
        }
        let pieces = self.pieces_of(slot, range);
        let missing = pieces.into_iter().find(|piece| !self.is_verified(*piece))?;
        Some((missing * self.piece_len).saturating_sub(slot.start).max(range.start))
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

    /// Bytes that a file takes on the disk already; less than its length, as it is sparse.
    pub(super) fn taken(&self, file: usize) -> u64 {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(self.folder.join(file.to_string())).map_or(0, |found| found.blocks().saturating_mul(512))
        }
        #[cfg(not(unix))]
        self.verified_bytes(file)
    }

    fn pieces_of(&self, slot: &Slot, range: &Range<u64>) -> Range<u64> {
        let start = slot.start + range.start.min(slot.len);
        let end = slot.start + range.end.min(slot.len);
        start / self.piece_len..end.div_ceil(self.piece_len)
    }

    fn is_verified(&self, piece: u64) -> bool {
        let byte = usize::try_from(piece / 8).ok().and_then(|index| self.verified.get(index));
        byte.is_some_and(|byte| byte.load(Ordering::Acquire) & bit_of(piece) != 0)
    }

    fn set_verified(&self, piece: u64) {
        if let Some(byte) = usize::try_from(piece / 8).ok().and_then(|index| self.verified.get(index)) {
            byte.fetch_or(bit_of(piece), Ordering::AcqRel);
        }
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
        let byte = usize::try_from(piece / 8).ok().and_then(|index| self.verified.get(index));
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
        let written = self.spare(bytes.len() as u64).and_then(|()| write_all_at(&*self.open(file)?, offset, bytes));
        if let Err(error) = &written {
            self.fail(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SourceError::NoSpace,
                kind => SourceError::Failed(format!("writing the film failed: {kind}")),
            });
        }
        written
    }

    /// Refuses to write into the reserve. Looks at the disk only now and then.
    fn spare(&self, len: u64) -> io::Result<()> {
        if self.reserve == 0 || self.unlooked.fetch_add(len, Ordering::Relaxed) < LOOK_AT_SPACE_EVERY {
            return Ok(());
        }
        self.unlooked.store(0, Ordering::Relaxed);
        if fs4::available_space(&self.folder)? < self.reserve {
            self.unlooked.store(LOOK_AT_SPACE_EVERY, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// The bitfield to start librqbit with: that of the record if it can be trusted. `None` means that all must be hashed.
    pub(super) fn recorded(&self) -> Option<Vec<u8>> {
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
        if !same || !(record.synced || record.boot == self.boot) || !self.untouched_since(record.written) {
            return None;
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

fn changed_is_missing(folder: &Path, file: usize) -> bool {
    !folder.join(file.to_string()).exists()
}

fn bit_of(piece: u64) -> u8 {
    0x80 >> (piece % 8)
}

/// Which start of the machine this is, where the system tells (Linux); else nothing is known, and nothing but a clean end is trusted.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown since {:?}", SystemTime::now()), |id| id.trim().to_owned())
}

/// Writes a file so that it is there whole or not at all.
pub(super) fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes)?;
    std::fs::rename(&aside, path)
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
        self.disk.set_verified(u64::from(piece.get()));
        self.disk.note(u64::from(piece.get()));
        self.disk.changed();
        Ok(())
    }
}
