//! The index of MP4 and QuickTime films (ISO 14496-12), from the `moov` alone: wherever it is, it is fetched once and whole.
//!
//! [`index`] finds it by walking the boxes of the top level by their heads, so that media bytes are never read. Films in movie
//! fragments have no table of samples: [`fragments`] finds their key frames where an index lists them, and reads fragments one by one.

pub(crate) mod boxes;
mod entry;
pub mod fragments;
pub(crate) mod movie;
mod tables;

use bytes::Bytes;
pub use fragments::{Context, Fragments};

use self::boxes::{Header, Kind, LONGEST_HEADER};
use self::movie::Movie;
use super::{Container, Damage, Index, Sparse, Stop};

/// What is asked for before anything is known.
const HEAD: u64 = 64 * 1024;
/// A larger `moov` is refused.
const LARGEST_MOOV: u64 = 256 * 1024 * 1024;
/// More boxes than this are not walked over.
const MOST_BOXES: usize = 1_000;

/// Reads the table of contents of an MP4 or QuickTime file.
///
/// Of a file that ends before its last samples, a track's table ends before the first sample that is not wholly in the file, and
/// [`Index::duration`] is that of the pictures that are left. Besides several edits, [`super::Track::complex_edits`] is set where
/// pictures lie before the beginning of the presentation, or where a track's samples have several descriptions.
pub fn index(bytes: &Sparse) -> Result<Index, Stop> {
    let top = Top::find(bytes)?;
    let mut movie = Movie::read(&top.moov, top.at, top.quicktime)?;
    movie.expand(bytes.len())?;
    if movie.extends
        && let Some(first) = fragments::first_moof(bytes, &top)?
    {
        return fragments::index(bytes, movie, first);
    }
    Ok(of_tables(movie, bytes.len()))
}

/// The index of a film whose samples are all in tables.
fn of_tables(movie: Movie, file_len: u64) -> Index {
    let duration = movie.duration();
    let extents = || movie.traks.iter().filter_map(|trak| trak.extent);
    let first_byte = extents().map(|extent| extent.first_byte).min().unwrap_or(file_len);
    let end_byte = extents().map(|extent| extent.end_byte).max().unwrap_or(file_len);
    let tracks = movie.into_tracks();
    Index { container: Container::Mp4, duration, tracks, first_byte, end_byte }
}

/// A box of the top level.
#[derive(Debug, Clone, Copy)]
struct Place {
    kind: Kind,
    /// File offset of its head.
    at: u64,
    /// File offset of what follows the head.
    body: u64,
    /// File offset just past the box, which may lie past the end of the file.
    end: u64,
}

impl Place {
    /// The body, whole.
    fn read(&self, bytes: &Sparse, most: u64, what: &'static str) -> Result<Bytes, Stop> {
        let len = self.end - self.body;
        if self.end > bytes.len() {
            return Err(Stop::truncated());
        }
        if len > most {
            return Err(Damage::TooLarge(what).into());
        }
        bytes.get(self.body, usize::try_from(len).map_err(|_| Damage::TooLarge(what))?)
    }
}

/// The box at `at`, or `None` at the end of the file.
fn place(bytes: &Sparse, at: u64) -> Result<Option<Place>, Stop> {
    let room = bytes.len().saturating_sub(at);
    if room < 8 {
        return Ok(None);
    }
    let head = bytes.get(at, usize::try_from(room).unwrap_or(usize::MAX).min(LONGEST_HEADER))?;
    let header = match Header::read(&head) {
        Ok(Some(header)) => header,
        Ok(None) => return Err(Stop::truncated()),
        Err(what) => return Err(Stop::broken(at, what)),
    };
    let end = match header.size {
        Some(size) => at.checked_add(size).ok_or(Stop::broken(at, "a box ends nowhere"))?,
        None => bytes.len(),
    };
    Ok(Some(Place { kind: header.kind, at, body: at + header.len, end }))
}

/// What the top level of a file holds.
#[derive(Debug)]
struct Top {
    moov: Bytes,
    /// File offset of the `moov`.
    at: u64,
    /// File offset just past it.
    end: u64,
    /// The file says that it is a QuickTime film, or is so old that it says nothing.
    quicktime: bool,
}

impl Top {
    /// Finds the `moov`. Steps over media data by its size.
    fn find(bytes: &Sparse) -> Result<Self, Stop> {
        let not_this = || Stop::Bad(Damage::NotThis("an MP4 or QuickTime film"));
        if bytes.len() < 8 {
            return Err(not_this());
        }
        if bytes.known(0, LONGEST_HEADER).len() < LONGEST_HEADER.min(usize::try_from(bytes.len()).unwrap_or(usize::MAX)) {
            bytes.get(0, usize::try_from(bytes.len().min(HEAD)).unwrap_or(usize::MAX))?;
        }
        let mut quicktime = true;
        let mut at = 0;
        for _ in 0..MOST_BOXES {
            let found = match place(bytes, at) {
                Ok(Some(found)) if at > 0 || opens_a_film(found.kind) => found,
                Ok(Some(_)) => return Err(not_this()),
                Err(Stop::Bad(_)) if at == 0 => return Err(not_this()),
                // Whatever promised a film, its table of contents is not here.
                Ok(None) => return Err(Stop::truncated()),
                Err(stop) => return Err(stop),
            };
            match &found.kind {
                b"ftyp" if found.end - found.body >= 4 => quicktime = bytes.get(found.body, 4)? == b"qt  "[..],
                b"moov" => {
                    let moov = found.read(bytes, LARGEST_MOOV, "the table of contents")?;
                    return Ok(Self { moov, at, end: found.end, quicktime });
                }
                _ => {}
            }
            at = found.end;
        }
        Err(Damage::TooLarge("the number of boxes").into())
    }
}

/// Whether a box of this type can be a film's first.
fn opens_a_film(kind: Kind) -> bool {
    matches!(
        &kind,
        b"ftyp"
            | b"styp"
            | b"moov"
            | b"mdat"
            | b"free"
            | b"skip"
            | b"wide"
            | b"pnot"
            | b"PICT"
            | b"udta"
            | b"uuid"
            | b"moof"
            | b"sidx"
            | b"pdin"
    )
}
