//! Which subtitles of a film can be drawn into its picture: images of text inside of the film, and text wherever it is.
//!
//! Where an image belongs on the picture depends on the plane that it was made for. DVDs write its size into the track's header, Blu-rays
//! into every image: then the first one is looked at, as far as the film's index tells where it is. Text of a file is read here, so that
//! it is there when the first segment is made; text inside of the film is not.

use std::sync::Arc;
use std::time::Duration;

use balcony_media::container::{Codec, Kind, Track};
use balcony_media::ffmpeg;
use balcony_media::ladder::Size;
use balcony_media::subtitle::script::{self, Event, Head, Stage};
use balcony_media::subtitle::{self, Format};
use tokio::io::AsyncReadExt;

use super::drawing::{Drawing, Images, Lines, Text, image_at};
use super::{MOST_BESIDE, beside, number};
use crate::cage::{Limits, Reach};
use crate::film::Film;
use crate::produce::Workshop;
use crate::produce::encode::Tools;
use crate::source::SourceError;
use crate::store::SubtitleRow;
use crate::swarm::Torrent;

/// How long the first image is waited for; the usual plane is right nearly always.
const WAIT: Duration = Duration::from_secs(3);
/// How long a file beside the film is waited for.
const FILE_WAIT: Duration = Duration::from_secs(60);
/// How long ffmpeg may take to say whether it has libass, and how much of the answer is read.
const ASS_WAIT: Duration = Duration::from_secs(10);
const ANSWER: u64 = 4 << 10;
/// The plane of Blu-rays, also of those whose pictures are larger.
const BLU_RAY: Size = Size { width: 1920, height: 1080 };

/// Why subtitles are not drawn into the picture; the film plays without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undrawn {
    /// There are none with this id, or they cannot be read.
    #[error("the film has no subtitles with the id {0} that can be drawn")]
    NoSuch(String),
    /// There is nothing to draw into.
    #[error("the film has no picture")]
    NoPicture,
    /// ffmpeg was built without libass.
    #[error("this ffmpeg cannot draw text, it was built without libass")]
    NoAss,
    /// They lie beside the film, and do not come.
    #[error("the file of the subtitles cannot be had now")]
    NotHere,
}

/// Where subtitles may be: in a film, beside it in its torrent, and among what was sent.
pub struct Sources<'a> {
    /// The film.
    pub film: &'a Arc<Film>,
    /// Its torrent.
    pub torrent: &'a Torrent,
    /// The film's number in it.
    pub file: usize,
    /// What was sent for the stream.
    pub sent: &'a [SubtitleRow],
    /// Who draws.
    pub workshop: &'a Arc<Workshop>,
}

impl Sources<'_> {
    /// What to draw for the track with this id.
    ///
    /// # Errors
    /// Why nothing is drawn.
    pub async fn drawing(&self, id: &str) -> Result<Drawing, Undrawn> {
        let found = if self.film.index.video().is_none() { Err(Undrawn::NoPicture) } else { self.found(id).await };
        if let Err(why) = &found {
            tracing::warn!(subtitles = id, %why, "no subtitles are burnt in");
        }
        found
    }

    async fn found(&self, id: &str) -> Result<Drawing, Undrawn> {
        let no_such = || Undrawn::NoSuch(id.to_owned());
        let at = number(id).and_then(|number| number.checked_sub(1)).ok_or_else(no_such)?;
        let own: Vec<&Track> = self.film.index.tracks.iter().filter(|track| track.kind == Kind::Subtitle).collect();
        if let Some(track) = own.get(at) {
            return self.of_film(track).await.unwrap_or_else(|| Err(no_such()));
        }
        let at = at - own.len();
        let film = self.torrent.files().iter().find(|entry| entry.index == self.file).ok_or_else(no_such)?;
        let those = beside::find(self.torrent.files(), film);
        let count = those.len().min(MOST_BESIDE);
        if let Some((entry, format)) = those.get(at).filter(|_| at < count) {
            if format.is_none() {
                return Err(no_such());
            }
            let language = subtitle::name::told(entry.name(), film.name()).language;
            let text = tokio::time::timeout(FILE_WAIT, beside::text(self.torrent, entry.index, &language)).await;
            let text = text.map_err(|_| Undrawn::NotHere)?.map_err(|_| Undrawn::NotHere)?;
            return self.of_file(text, format!("-burnt-file{}", entry.index), no_such).await;
        }
        let row = self.sent.get(at - count).ok_or_else(no_such)?;
        // Of whoever sends the same it is the same.
        let hash = blake3::hash(row.text.as_bytes()).to_hex();
        let name = format!("-burnt-sent{}", hash.get(..16).unwrap_or_default());
        self.of_file(row.text.clone(), name, no_such).await
    }

    async fn of_film(&self, track: &Track) -> Option<Result<Drawing, Undrawn>> {
        let Self { film, workshop, .. } = self;
        let plane = match track.codec {
            Codec::Pgs => Some(blu_ray(film, track).await.unwrap_or(BLU_RAY)),
            Codec::VobSub => dvd(&track.config),
            Codec::DvbSub => None,
            Codec::Srt | Codec::Ass | Codec::WebVtt | Codec::MovText if film.has_tables() => {
                let head = (track.codec == Codec::Ass).then(|| Head::of(&String::from_utf8_lossy(&track.config)));
                let text = Text::new(film, format!("-burnt{}", track.stream), head, Lines::Film(track.stream), workshop.segments.clone());
                return Some(with_ass(&workshop.tools).await.map(|()| Drawing::Text(Arc::new(text))));
            }
            _ => return None,
        };
        // Blu-rays of standard definition have the pixels of their pictures.
        let square = track.codec == Codec::Pgs && plane.is_some_and(|plane| plane.width >= 1280);
        let burn = ffmpeg::Images { stream: track.stream, plane, square };
        Some(Ok(Drawing::Images(Arc::new(Images::new(film, burn)))))
    }

    async fn of_file(&self, text: String, name: String, no_such: impl FnOnce() -> Undrawn) -> Result<Drawing, Undrawn> {
        let Self { film, workshop, .. } = self;
        let picture = film.index.video().and_then(|track| track.video.as_ref());
        let rate = picture.and_then(|picture| picture.frame_rate);
        let stage = stage(film);
        let read = tokio::task::spawn_blocking(move || events(&text, rate, stage)).await.ok().flatten();
        let (head, events) = read.ok_or_else(no_such)?;
        with_ass(&workshop.tools).await?;
        Ok(Drawing::Text(Arc::new(Text::new(film, name, head, Lines::Whole(events), workshop.segments.clone()))))
    }
}

/// The plane of plain text over a film's picture.
pub(super) fn stage(film: &Film) -> Stage {
    let picture = film.index.video().and_then(|track| track.video.clone()).unwrap_or_default();
    let Size { width, height } = balcony_media::ladder::fit(&picture, balcony_media::ladder::Quality::Source, None);
    Stage::of_shape(width, height)
}

/// The events of a whole file, with the head of its script where it is one. `None`: nothing in it is ever shown.
fn events(text: &str, rate: Option<f64>, stage: Stage) -> Option<(Option<Head>, Vec<Event>)> {
    if Format::of_text(text) == Some(Format::Ass) {
        let events = script::events(text);
        return (!events.is_empty()).then(|| (Some(Head::of(text)), events));
    }
    let (_, cues) = subtitle::parse(text, rate)?;
    Some((None, cues.iter().zip(0..).filter_map(|(cue, order)| Event::of_cue(cue, order, stage)).collect()))
}

/// Asks ffmpeg whether it can draw text. Where it does not answer, the conversion will tell why.
async fn with_ass(tools: &Tools) -> Result<(), Undrawn> {
    let asked = async {
        let mut child = tools.spawner.spawn(Limits::PROBE, &Reach::nothing(), &tools.ffmpeg, &ffmpeg::has_ass_args()).await.ok()?;
        let mut answer = Vec::new();
        child.take_stdout()?.take(ANSWER).read_to_end(&mut answer).await.ok()?;
        child.wait().await.ok()?.status.success().then_some(answer)
    };
    match tokio::time::timeout(ASS_WAIT, asked).await {
        Ok(Some(answer)) if !ffmpeg::has_ass(&String::from_utf8_lossy(&answer)) => Err(Undrawn::NoAss),
        _ => Ok(()),
    }
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
    Ok(image_at(film, track, point).await?.map(|(image, _)| image))
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
    fn files_of_text_are_drawn_with_their_styles_or_in_a_plain_one() {
        let stage = Stage::of_shape(16, 9);
        let srt = "1\n00:00:01,000 --> 00:00:02,000\nHi\n";
        let (head, found) = events(srt, None, stage).expect("events");
        assert_eq!((head, found.len()), (None, 1));
        let ass = "[Script Info]\nPlayResX: 7\n[Events]\nFormat: Start, End, Text\nDialogue: 0:00:01.00,0:00:02.00,{\\p1}m 0 0 l 9 9\n";
        let (head, found) = events(ass, None, stage).expect("events");
        // A drawing is no text, and drawn.
        assert_eq!((head, found.len()), (Some(Head::of(ass)), 1));
        assert_eq!(subtitle::parse(ass, None), None);
        for text in ["", "words", "[Script Info]\n[Events]\nDialogue: x\n"] {
            assert_eq!(events(text, None, stage), None, "{text}");
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
