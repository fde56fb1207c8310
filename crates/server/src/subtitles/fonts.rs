//! The fonts that a film carries for its subtitles, as files for libass. Bounded in size and number; what they are called is no path of
//! ours, and whether they are fonts is seen by how they begin.

use std::io;
use std::path::Path;

use balcony_media::container::matroska::{Attached, attachments};
use balcony_media::container::{Container, Sparse, Stop};

use super::drawing::DrawError;
use crate::film::{self, Film};
use crate::segments::{Room, SegmentStore};
use crate::source::{Source, SourceError};

/// Most fonts of a film. Typeset films carry some dozen.
const MOST: usize = 128;
/// Largest font in bytes. Those with all of Chinese take some twenty megabytes.
const LARGEST: u64 = 40 << 20;
/// Bytes of all of them.
const MOST_BYTES: u64 = 128 << 20;
/// Reads on the way to the list.
const MOST_READS: usize = 4096;
/// Bytes of one read.
const READ: u64 = 1 << 20;
/// Bytes that are asked for where the list needs a few.
const LOOK: u64 = 4 << 10;

/// Puts the film's fonts into `folder` and answers what they take there; `None` where it has none.
pub(super) async fn bring(film: &Film, folder: &Path, store: &SegmentStore) -> Result<Option<Room>, DrawError> {
    if film.index.container != Container::Matroska {
        return Ok(None);
    }
    let all = chosen(list(&film.source).await?);
    if all.is_empty() {
        return Ok(None);
    }
    let bytes = all.iter().map(|font| font.len).sum();
    let room = match store.room(bytes) {
        Ok(room) => room,
        Err(error) => {
            tracing::warn!(%error, bytes, "there is no room for the film's fonts, so its subtitles are drawn with others");
            return Ok(None);
        }
    };
    tokio::fs::create_dir_all(folder).await?;
    for (number, font) in all.iter().enumerate() {
        copy(&film.source, font, &folder.join(format!("{number}.font"))).await?;
    }
    Ok(Some(room))
}

/// Those that look like fonts, as far as they fit.
fn chosen(all: Vec<Attached>) -> Vec<Attached> {
    let mut left = MOST_BYTES;
    let fits = |font: &Attached| {
        let fits = font.is_font() && font.len <= LARGEST.min(left);
        left -= if fits { font.len } else { 0 };
        fits
    };
    all.into_iter().filter(fits).take(MOST).collect()
}

async fn list(source: &Source) -> Result<Vec<Attached>, SourceError> {
    let mut known = Sparse::new(source.len());
    for _ in 0..MOST_READS {
        match attachments(&known) {
            Ok(all) => return Ok(all),
            Err(Stop::Need { offset, len }) => {
                known.insert(offset, film::read(source, offset, len.max(LOOK)).await?);
            }
            Err(Stop::Bad(damage)) => {
                tracing::debug!(%damage, "what a film carries cannot be read");
                break;
            }
        }
    }
    Ok(Vec::new())
}

async fn copy(source: &Source, font: &Attached, file: &Path) -> Result<(), DrawError> {
    use tokio::io::AsyncWriteExt;
    let end = font.offset.saturating_add(font.len).min(source.len());
    let mut at = font.offset;
    let mut out: Option<tokio::fs::File> = None;
    while at < end {
        let len = READ.min(end - at);
        let bytes = source.read_at(at, usize::try_from(len).unwrap_or(0)).await?;
        let out = match &mut out {
            Some(out) => out,
            None if is_font(&bytes) => out.insert(tokio::fs::File::create(file).await?),
            None => return Ok(()),
        };
        out.write_all(&bytes).await?;
        at += len;
    }
    if let Some(mut out) = out {
        out.flush().await?;
    }
    Ok(())
}

/// TrueType, OpenType, collections of them (ISO 14496-22, section 4), and WOFF.
fn is_font(bytes: &[u8]) -> bool {
    matches!(bytes.first_chunk::<4>(), Some([0, 1, 0, 0] | b"OTTO" | b"true" | b"ttcf" | b"wOFF" | b"wOF2" | b"typ1"))
}

impl From<io::Error> for DrawError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_are_bounded_in_size_and_number() {
        let font = |len| Attached { name: "../../x.ttf".into(), kind: String::new(), offset: 1, len };
        let lens = |all: Vec<Attached>| chosen(all).iter().map(|font| font.len).collect::<Vec<_>>();
        assert_eq!(
            lens(vec![font(LARGEST + 1), font(LARGEST), font(LARGEST), font(LARGEST), font(LARGEST), font(9 << 20), font(1 << 20)]),
            [LARGEST, LARGEST, LARGEST, 1 << 20]
        );
        assert_eq!(lens(vec![font(1); 500]).len(), MOST);
        assert_eq!(lens(vec![Attached { name: "cover.jpg".into(), ..font(1) }, font(u64::MAX)]), Vec::<u64>::new());
    }

    #[test]
    fn fonts_are_known_by_how_they_begin() {
        for (bytes, is) in [(&b"OTTO\0"[..], true), (&[0, 1, 0, 0, 0], true), (b"\x89PNG", false), (b"OT", false), (b"", false)] {
            assert_eq!(is_font(bytes), is, "{bytes:?}");
        }
    }
}
