//! A film's file as one thing to read from, whatever is behind it: a torrent that is still coming, or a plain local file.
//!
//! Bytes that are here are read straight from the disk; for bytes that are missing the torrent is told to fetch them first, and the
//! reader waits. This file knows neither containers nor segments, and nothing of how a torrent gets its pieces.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::torrent::{FilmFile, Want};

/// Why bytes of a film cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The torrent was removed while somebody was reading.
    #[error("the torrent was removed")]
    Gone,
    /// The torrent has stopped with an error.
    #[error("the torrent failed: {0}")]
    Failed(String),
    /// The disk (or the part of it that may be used) is full.
    #[error("there is no space left for the film")]
    NoSpace,
    /// The range does not lie within the file.
    #[error("the range ends behind the end of the file")]
    PastEnd,
    /// More readers than a torrent session can serve at once.
    #[error("too many readers at once")]
    TooManyReaders,
    /// The operating system's answer when bytes that should be here could not be read.
    #[error("reading failed: {0}")]
    Io(io::ErrorKind),
}

/// What [`Source::refocus`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refocus {
    /// The bytes are here already, or nothing else is in flight: nothing stood in the way.
    NotNeeded,
    /// The place was made the most wanted one, but what is in flight was let come: cancelling it would cost more than it gives, or
    /// harm other viewers.
    Prioritised,
    /// What was in flight was thrown away, and the peers were dialled again.
    Cancelled,
}

/// A film's file. Clones are cheap and read the same file.
#[derive(Clone)]
pub struct Source(Arc<Behind>);

enum Behind {
    Local { file: Arc<File>, len: u64, name: String },
    Memory(Bytes),
    Torrent(FilmFile),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name()).field("len", &self.len()).finish()
    }
}

impl Source {
    /// A plain file: all of it is available at once.
    pub fn local(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self(Arc::new(Behind::Local { file: Arc::new(file), len, name })))
    }

    /// Bytes that are nowhere on a disk.
    pub(crate) fn memory(bytes: Bytes) -> Self {
        Self(Arc::new(Behind::Memory(bytes)))
    }

    pub(crate) fn torrent(file: FilmFile) -> Self {
        Self(Arc::new(Behind::Torrent(file)))
    }

    /// Length of the file in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an empty file is no film")]
    pub fn len(&self) -> u64 {
        match &*self.0 {
            Behind::Local { len, .. } => *len,
            Behind::Memory(bytes) => bytes.len() as u64,
            Behind::Torrent(film) => film.len(),
        }
    }

    /// Name of the file, without folders.
    pub fn name(&self) -> &str {
        match &*self.0 {
            Behind::Local { name, .. } => name,
            Behind::Memory(_) => "",
            Behind::Torrent(film) => film.name(),
        }
    }

    /// Length of the torrent's pieces in bytes; `None` for a local file.
    pub fn piece_len(&self) -> Option<u64> {
        match &*self.0 {
            Behind::Local { .. } | Behind::Memory(_) => None,
            Behind::Torrent(film) => Some(film.piece_len()),
        }
    }

    /// Whether every byte of the range is verified and on disk. An empty range is.
    pub fn available(&self, range: Range<u64>) -> bool {
        match &*self.0 {
            Behind::Local { .. } | Behind::Memory(_) => range.end <= self.len(),
            Behind::Torrent(film) => film.available(&range),
        }
    }

    /// How many bytes can be read at `offset` without waiting, at most `max`.
    pub fn available_from(&self, offset: u64, max: u64) -> u64 {
        let end = offset.saturating_add(max).min(self.len());
        match &*self.0 {
            Behind::Local { .. } | Behind::Memory(_) => end.saturating_sub(offset),
            Behind::Torrent(film) => film.first_missing(&(offset..end)).unwrap_or(end).saturating_sub(offset),
        }
    }

    /// Waits until [`available`](Self::available), with the missing pieces fetched before all others.
    ///
    /// There is no deadline here: a swarm may be silent for minutes. Drop the future to stop waiting.
    pub async fn wait_available(&self, range: Range<u64>) -> Result<(), SourceError> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        match &*self.0 {
            Behind::Local { .. } | Behind::Memory(_) => Ok(()),
            Behind::Torrent(film) => film.wait(&range, None).await,
        }
    }

    /// Exactly `len` bytes at `offset`, waiting for those that are missing.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, SourceError> {
        let end = self.check(offset, len as u64)?;
        if let Behind::Torrent(film) = &*self.0 {
            film.wait(&(offset..end), None).await?;
        }
        self.read_present(offset, len, None).await
    }

    /// The bytes `[offset, offset + len)`, if all of them are here: nothing is fetched for them, and nothing waited for.
    pub async fn read_here(&self, offset: u64, len: usize) -> Option<Bytes> {
        let end = self.check(offset, len as u64).ok()?;
        if !self.available(offset..end) {
            return None;
        }
        if let Behind::Memory(bytes) = &*self.0 {
            return Some(held(bytes, offset, len));
        }
        let (read, holds) = self.read_file(offset, len).await.ok()?;
        read.ok().filter(|_| holds)
    }

    /// Somebody watches what is made of it: it is not given up to make room for another film.
    pub fn touch(&self) {
        if let Behind::Torrent(film) = &*self.0 {
            film.touch();
        }
    }

    /// A sequential reader at `offset`. While it lives, the torrent's look-ahead is kept at its place.
    pub fn cursor(&self, offset: u64) -> Cursor {
        Cursor { source: self.clone(), position: offset, want: None }
    }

    /// Tells the torrent that the picture goes on at `offset` now, after a far seek.
    ///
    /// Whatever else is wanted comes after that place until its first pieces are here. If `viewers` is 1 and the line is so slow that
    /// the requests in flight would hold the new place up noticeably, they are thrown away (see [`Refocus`]). It never fails: a
    /// refocus that could not be done is a seek that takes longer.
    pub async fn refocus(&self, offset: u64, viewers: usize) -> Refocus {
        match &*self.0 {
            Behind::Local { .. } | Behind::Memory(_) => Refocus::NotNeeded,
            Behind::Torrent(film) => film.refocus(offset, viewers).await,
        }
    }

    fn check(&self, offset: u64, len: u64) -> Result<u64, SourceError> {
        let end = offset.checked_add(len).ok_or(SourceError::PastEnd)?;
        if end > self.len() { Err(SourceError::PastEnd) } else { Ok(end) }
    }

    /// The file on the disk, to read what is [`available`](Self::available) of it in one's own way.
    pub(crate) fn file(&self) -> Result<Arc<File>, SourceError> {
        match &*self.0 {
            Behind::Local { file, .. } => Ok(file.clone()),
            Behind::Memory(_) => Err(SourceError::Io(io::ErrorKind::Unsupported)),
            Behind::Torrent(film) => film.open(),
        }
    }

    /// Whether the file still holds what was just read of it in one's own way. Where it does not, what was read is worth nothing, and
    /// [`read_at`](Self::read_at) waits until it is here again. Blocks for a moment.
    pub(crate) fn still_holds(&self, range: &Range<u64>) -> bool {
        match &*self.0 {
            Behind::Local { .. } | Behind::Memory(_) => true,
            Behind::Torrent(film) => film.still_holds(range),
        }
    }

    /// Bytes that are here. Where another program has emptied the file meanwhile, waits until they are here again.
    async fn read_present(&self, offset: u64, len: usize, want: Option<&Want>) -> Result<Bytes, SourceError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        if let Behind::Memory(bytes) = &*self.0 {
            return Ok(held(bytes, offset, len));
        }
        let range = offset..offset.saturating_add(len as u64);
        let mut doubted = None;
        loop {
            let (read, holds) = self.read_file(offset, len).await?;
            match read {
                Ok(bytes) if holds => return Ok(bytes),
                // Hashed in between, and the same again: there are holes because the film has zeros there.
                Ok(bytes) if doubted.as_ref() == Some(&bytes) => return Ok(bytes),
                Ok(bytes) => doubted = Some(bytes),
                Err(error) if holds => return Err(SourceError::Io(error.kind())),
                Err(_) => doubted = None,
            }
            if let Behind::Torrent(film) = &*self.0 {
                film.wait(&range, want).await?;
            }
        }
    }

    /// What the file says, and whether that is what was written there.
    async fn read_file(&self, offset: u64, len: usize) -> Result<(io::Result<Bytes>, bool), SourceError> {
        let (source, file) = (self.clone(), self.file()?);
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; len];
            let read = read_exact_at(&file, offset, &mut buffer).map(|()| Bytes::from(buffer));
            (read, source.still_holds(&(offset..offset.saturating_add(len as u64))))
        });
        read.await.map_err(|_| SourceError::Io(io::ErrorKind::Other))
    }
}

/// A sequential reader of a [`Source`].
pub struct Cursor {
    source: Source,
    position: u64,
    want: Option<Want>,
}

impl Cursor {
    /// The next bytes: at least one and at most `max`, none at the end of the file. Gives what is there before it waits for more.
    ///
    /// It may be cancelled: nothing is lost, the position moves only when bytes are returned.
    pub async fn read(&mut self, max: usize) -> Result<Bytes, SourceError> {
        if self.position >= self.source.len() || max == 0 {
            return Ok(Bytes::new());
        }
        self.keep_look_ahead()?;
        if let (Behind::Torrent(film), Some(want)) = (&*self.source.0, &self.want) {
            film.wait(&(self.position..self.position + 1), Some(want)).await?;
        }
        let ready = self.source.available_from(self.position, max as u64).max(1);
        let len = usize::try_from(ready).unwrap_or(max).min(max);
        let bytes = self.source.read_present(self.position, len, self.want.as_ref()).await?;
        self.seek(self.position + bytes.len() as u64);
        Ok(bytes)
    }

    /// Goes on reading at `offset`. A place behind the end gives no bytes.
    pub fn seek(&mut self, offset: u64) {
        self.position = offset;
        if let Some(want) = &self.want {
            want.move_to(offset);
        }
    }

    /// Keeps the torrent's look-ahead here from now on, without reading anything. Where no more readers can be served it does nothing.
    pub fn hold(&mut self) {
        if let Err(error) = self.keep_look_ahead() {
            tracing::debug!(%error, "nothing is fetched ahead");
        }
    }

    /// Where the next byte is read.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn keep_look_ahead(&mut self) -> Result<(), SourceError> {
        if let (None, Behind::Torrent(film)) = (&self.want, &*self.source.0) {
            self.want = Some(film.look_ahead(self.position)?);
        }
        Ok(())
    }
}

/// As much of a range as there is.
fn held(bytes: &Bytes, offset: u64, len: usize) -> Bytes {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(from..from.saturating_add(len).min(bytes.len()))
}

/// Fills the whole buffer from `offset` on, whatever the file's own position is.
pub(crate) fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn film(bytes: &[u8]) -> (tempfile::NamedTempFile, Source) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        let source = Source::local(file.path()).expect("opened");
        (file, source)
    }

    #[tokio::test]
    async fn a_local_file_is_read_where_it_is_asked() {
        let (_keep, source) = film(b"0123456789");
        assert_eq!(source.len(), 10);
        assert_eq!(&source.read_at(3, 4).await.expect("within")[..], b"3456");
        assert_eq!(source.read_at(8, 3).await, Err(SourceError::PastEnd));
        assert_eq!(source.read_at(u64::MAX, 1).await, Err(SourceError::PastEnd));
        assert!(source.available(0..10) && !source.available(0..11));
        assert_eq!(source.refocus(5, 1).await, Refocus::NotNeeded);
    }

    #[tokio::test]
    async fn memory_is_read_like_a_file() {
        let source = Source::memory(Bytes::from_static(b"0123456789"));
        assert_eq!(source.len(), 10);
        assert_eq!(&source.read_at(3, 4).await.expect("within")[..], b"3456");
        assert_eq!(source.read_at(8, 3).await, Err(SourceError::PastEnd));
        let mut cursor = source.cursor(8);
        assert_eq!(&cursor.read(5).await.expect("bytes")[..], b"89");
        assert_eq!(source.read_here(9, 1).await.as_deref(), Some(&b"9"[..]));
        assert_eq!(source.read_here(9, 2).await, None);
    }

    #[tokio::test]
    async fn a_cursor_goes_on_where_it_stopped_and_ends_with_nothing() {
        let (_keep, source) = film(b"0123456789");
        let mut cursor = source.cursor(7);
        assert_eq!(&cursor.read(2).await.expect("bytes")[..], b"78");
        assert_eq!(&cursor.read(5).await.expect("bytes")[..], b"9");
        assert_eq!(&cursor.read(5).await.expect("the end")[..], b"");
        cursor.seek(1);
        assert_eq!(&cursor.read(1).await.expect("bytes")[..], b"1");
        assert_eq!(cursor.position(), 2);
    }
}
