//! Which subtitles of a film can be drawn into its picture, and what ffmpeg has to be told of them: images of text inside of the film.
//!
//! Where an image belongs on the picture depends on the plane that it was made for. DVDs write its size into the track's header, Blu-rays
//! into every image: then the first one is looked at, as far as the film's index tells where it is.

use std::time::Duration;

use balcony_media::container::{Codec, Kind, Sparse, Stop, Track, matroska};
use balcony_media::ffmpeg::Burn;
use balcony_media::ladder::Size;

use super::inside::inflate;
use super::number;
use crate::film::Film;
use crate::source::SourceError;

/// How long the first image is waited for; the usual plane is right nearly always.
const WAIT: Duration = Duration::from_secs(3);
/// The plane of Blu-rays, also of those whose pictures are larger.
const BLU_RAY: Size = Size { width: 1920, height: 1080 };
/// Reads and bytes on the way from the index to an image's first bytes, at most.
const MOST_READS: usize = 64;
/// Bytes of an image that are looked at.
const HEAD: u32 = 4096;

/// What to draw for the track with this id; `None` where the film has none of this id that could be.
pub async fn burn(film: &Film, id: &str) -> Option<Burn> {
    let mut own = film.index.tracks.iter().filter(|track| track.kind == Kind::Subtitle);
    let track = number(id).and_then(|number| own.nth(number - 1));
    let Some(track) = track.filter(|track| is_image(track)) else {
        tracing::warn!(subtitles = id, "the film has no images of text with this id, so none are burnt in");
        return None;
    };
    let plane = match track.codec {
        Codec::Pgs => Some(blu_ray(film, track).await.unwrap_or(BLU_RAY)),
        Codec::VobSub => dvd(&track.config),
        _ => None,
    };
    // Blu-rays of standard definition have the pixels of their pictures.
    let square = track.codec == Codec::Pgs && plane.is_some_and(|plane| plane.width >= 1280);
    Some(Burn { stream: track.stream, plane, square })
}

fn is_image(track: &Track) -> bool {
    matches!(track.codec, Codec::Pgs | Codec::VobSub | Codec::DvbSub)
}

async fn blu_ray(film: &Film, track: &Track) -> Option<Size> {
    match tokio::time::timeout(WAIT, first_image(film, track)).await {
        Ok(Ok(image)) => plane(&image?),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the first image of text is not known");
            None
        }
        Err(_) => None,
    }
}

/// The beginning of the first image of a track that the film's index leads to.
async fn first_image(film: &Film, track: &Track) -> Result<Option<Vec<u8>>, SourceError> {
    let Some(point) = track.key_frames.first() else { return Ok(None) };
    let mut blocks = matroska::Blocks::cued(&film.index, track.id, point);
    let mut known = Sparse::new(film.source.len());
    for _ in 0..MOST_READS {
        match blocks.next(&known) {
            Ok(Some(frame)) => {
                let body = film.source.read_at(frame.offset, frame.len.min(HEAD) as usize).await?;
                let image = [&frame.prefix[..], &body[..]].concat();
                return Ok(if track.complex_edits { inflate(&image) } else { Some(image) });
            }
            Err(Stop::Need { offset, len }) => {
                let len = len.max(u64::from(HEAD)).min(film.source.len().saturating_sub(offset));
                known.insert(offset, film.source.read_at(offset, usize::try_from(len).unwrap_or(0)).await?);
            }
            Ok(None) | Err(Stop::Bad(_)) => break,
        }
    }
    Ok(None)
}

/// The plane that a presentation composition segment is for: its type 0x16, its length, width and height, 16 bits each but the first
/// (US 2009/0185789, table 5).
fn plane(image: &[u8]) -> Option<Size> {
    let [0x16, _, _, w1, w2, h1, h2, ..] = *image else { return None };
    let (width, height) = (u16::from_be_bytes([w1, w2]), u16::from_be_bytes([h1, h2]));
    size(width.into(), height.into())
}

/// The plane of a DVD's subtitles: the line `size: 720x576` of their index file, which is the track's configuration in Matroska.
fn dvd(config: &[u8]) -> Option<Size> {
    let text = String::from_utf8_lossy(config);
    let told = text.lines().find_map(|line| line.trim().strip_prefix("size:"))?;
    let (width, height) = told.trim().split_once('x')?;
    size(width.trim().parse().ok()?, height.trim().parse().ok()?)
}

/// A plane that a film may have. A made-up one would take memory for nothing.
fn size(width: u32, height: u32) -> Option<Size> {
    let sane = (16..=4096).contains(&width) && (16..=2304).contains(&height);
    sane.then_some(Size { width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes() {
        let pgs = [0x16, 0, 19, 0x07, 0x80, 0x04, 0x38, 0x10, 0, 0, 0x80];
        assert_eq!(plane(&pgs), Some(BLU_RAY));
        for bad in [
            &pgs[..6],
            &[],
            &[0x17, 0, 19, 0x07, 0x80, 0x04, 0x38][..],
            &[0x16, 0, 19, 0, 0, 0, 0][..],
            &[0x16, 0, 19, 255, 255, 255, 255][..],
        ] {
            assert_eq!(plane(bad), None, "{bad:?}");
        }
        let idx = b"# VobSub index file, v7\nsize: 720x576\npalette: 000000, ffffff\n";
        assert_eq!(dvd(idx), Some(Size { width: 720, height: 576 }));
        for bad in ["", "size: 720", "size: x", "size: 999999x9", "palette: 0"] {
            assert_eq!(dvd(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn ids() {
        for (id, expected) in
            [("s1", Some(1)), ("s20", Some(20)), ("s0", None), ("s01", None), ("s+1", None), ("1", None), ("a1", None), ("s", None)]
        {
            assert_eq!(number(id), expected, "{id}");
        }
    }
}
