//! What is drawn into the pictures of a rendition, and what each run of ffmpeg has to be given for it.
//!
//! Images come from the film that ffmpeg reads anyway; a run only has to begin early enough to meet one that is still shown. Text is given
//! to libass as a script of our own, a file that it reads once before its first picture: so a run lasts no longer than the stretch of the
//! film whose text is known, and the next stretch is another run. Which tracks can be drawn is not decided here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use balcony_media::container::{Codec, KeyFrame, Sparse, Stop, Track, matroska};
use balcony_media::cut;
use balcony_media::ffmpeg::{self, Burn, Script};
use balcony_media::ladder::Size;
use balcony_media::subtitle::script::{self, Event, Head, Stage};
use tokio::sync::OnceCell;

use super::burnt::stage;
use super::fonts;
use super::inside::inflate;
use crate::film::{self, Film};
use crate::segments::{Room, SegmentStore};
use crate::source::SourceError;

/// Segments (of about two seconds) of the first, the second and all further runs in a row: at least, even if their text has to be waited
/// for, and at most. The first one begins soon; what it costs to start another is nothing beside a minute and a half of film.
const STRETCHES: [(u32, u32); 3] = [(1, 4), (2, 16), (4, 45)];
/// An image that began longer ago than this is not shown any more, in microseconds.
const LONGEST_IMAGE: i64 = 30_000_000;
/// A run that begins where an image begins reads from a little before it, in microseconds.
const A_LITTLE: i64 = 100_000;
/// Images before a picture that are looked at, and how long they are waited for.
const MOST_IMAGES: usize = 6;
const WAIT: Duration = Duration::from_millis(800);
/// How long a film's fonts are waited for. Those that come later are there for the next run.
const FONTS_WAIT: Duration = Duration::from_secs(20);
/// Reads on the way from the index to an image's first bytes, and bytes of it that are looked at.
const MOST_READS: usize = 64;
const HEAD: u32 = 4096;

/// Numbers folders within one life of the server: what an earlier one left was removed at its start.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// What is drawn into the pictures of a rendition. Clones mean the same.
#[derive(Clone)]
pub enum Drawing {
    /// Images inside of the film.
    Images(Arc<Images>),
    /// Text.
    Text(Arc<Text>),
}

/// Why a run cannot be given what it needs.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// Bytes of the film.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The folder for what ffmpeg reads.
    #[error("the text for the picture could not be written: {0}")]
    Disk(io::Error),
}

/// A run that draws, or one that has nothing to draw.
pub struct Drawn {
    /// What ffmpeg is told.
    pub burn: Option<Burn>,
    /// How far ahead of its first segment it begins to read, in microseconds.
    pub lead_us: i64,
    /// The run ends before this segment.
    pub until: u32,
    /// A folder that it has to read.
    pub folder: Option<PathBuf>,
    /// Removes the script when the run is over.
    _script: Option<Gone>,
}

impl Drawn {
    /// Nothing is drawn.
    pub const fn nothing(until: u32) -> Self {
        Self { burn: None, lead_us: 0, until, folder: None, _script: None }
    }

    /// Whether libass draws in it.
    pub fn is_text(&self) -> bool {
        matches!(self.burn, Some(Burn::Script(_)))
    }

    /// The same run with no text in it.
    #[must_use]
    pub fn without_text(self) -> Self {
        if self.is_text() { Self::nothing(self.until) } else { self }
    }
}

/// A run of a rendition, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    /// Where segments begin, in ticks of film time.
    pub cuts: &'a [i64],
    /// Ticks per second.
    pub timescale: u32,
    /// Its first segment.
    pub from: u32,
    /// The one that it must end before.
    pub goal: u32,
    /// How many runs came before it without a pause.
    pub turn: u32,
    /// File time of film time zero, in microseconds.
    pub zero_us: i64,
}

impl Stretch<'_> {
    /// Film time at which segment `n` begins, in milliseconds.
    fn begins(&self, n: u32) -> i64 {
        let cut = self.cuts.get(n as usize).or_else(|| self.cuts.last()).copied().unwrap_or(0);
        cut::rescale(cut, self.timescale, 1000)
    }

    /// The time that segments up to `until` show: what is behind the film's told end belongs to its last one.
    fn times(&self, until: u32) -> (i64, i64) {
        let is_last = until as usize + 1 >= self.cuts.len();
        (self.begins(self.from), if is_last { i64::MAX } else { self.begins(until) })
    }

    /// The segment before which the run ends: as soon as it may where text is missing, which begins at the time that `here` answers for
    /// the time up to which it would be good to have it.
    fn until(&self, here: impl FnOnce(i64) -> i64) -> u32 {
        let last = STRETCHES.len() - 1;
        let (least, most) = STRETCHES.get(self.turn as usize).or_else(|| STRETCHES.get(last)).copied().unwrap_or((1, 1));
        let (least, most) = (self.from.saturating_add(least).min(self.goal), self.from.saturating_add(most).min(self.goal));
        let here = here(self.begins(most));
        (least..=most).rev().find(|until| self.begins(*until) <= here).unwrap_or(least)
    }
}

impl Drawing {
    /// What distinguishes a rendition with it from the one without.
    pub fn name(&self) -> &str {
        match self {
            Self::Images(images) => &images.name,
            Self::Text(text) => &text.name,
        }
    }

    /// How far ahead of its first segment a run usually begins to read, in microseconds.
    pub fn lead_us(&self) -> i64 {
        match self {
            Self::Images(_) => ffmpeg::BURN_LEAD_US,
            Self::Text(_) => 0,
        }
    }

    /// What a run has to be given. Waits for the text of its stretch.
    ///
    /// # Errors
    /// When bytes of the film cannot be had, or a file cannot be written.
    pub async fn of_run(&self, run: Stretch<'_>) -> Result<Drawn, DrawError> {
        match self {
            Self::Images(images) => {
                let burn = Some(Burn::Images(images.burn.clone()));
                Ok(Drawn { burn, lead_us: images.lead_us(run.begins(run.from)).await, ..Drawn::nothing(run.goal) })
            }
            Self::Text(text) => text.of_run(run).await,
        }
    }
}

impl fmt::Debug for Drawing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Drawing").field(&self.name()).finish()
    }
}

/// Images of a track of the film.
pub struct Images {
    name: String,
    burn: ffmpeg::Images,
    film: Weak<Film>,
}

impl Images {
    pub(super) fn new(film: &Arc<Film>, burn: ffmpeg::Images) -> Self {
        Self { name: format!("-burnt{}", burn.stream), burn, film: Arc::downgrade(film) }
    }

    /// How far ahead of a time (milliseconds) a run has to begin to read, to draw what is shown by then.
    async fn lead_us(&self, at: i64) -> i64 {
        let film = self.film.upgrade();
        let Some((film, track)) = film.as_ref().and_then(|film| Some((film, film.track(self.burn.stream)?))) else {
            return ffmpeg::BURN_LEAD_US;
        };
        if track.key_frames.is_empty() {
            // Nobody knows where they are.
            return ffmpeg::BURN_LEAD_US;
        }
        match tokio::time::timeout(WAIT, lead(film, track, at)).await {
            // Never less: ffmpeg takes the first moments of a run for a screen that was cleared.
            Ok(Ok(lead)) => lead.max(ffmpeg::BURN_LEAD_US),
            Ok(Err(_)) | Err(_) => ffmpeg::BURN_LEAD_US,
        }
    }
}

/// The way back to the image that is shown at a time (milliseconds), in microseconds: the Cues tell where the last ones before it are, and
/// they themselves whether they are still there, or draw on what was there before.
async fn lead(film: &Film, track: &Track, at: i64) -> Result<i64, SourceError> {
    let time = |key: &KeyFrame| cut::rescale(key.pts, track.timescale, 1000);
    let end = track.key_frames.partition_point(|key| time(key) < at);
    let mut lead = 0;
    for point in track.key_frames.get(..end).unwrap_or_default().iter().rev().take(MOST_IMAGES) {
        let age = at.saturating_sub(time(point)).saturating_mul(1000);
        if age > LONGEST_IMAGE {
            break;
        }
        let Some((image, duration)) = image_at(film, track, point).await? else { break };
        let ends = duration.map(|duration| time(point).saturating_add(cut::rescale(i64::from(duration), track.timescale, 1000)));
        let state = state(&track.codec, &image);
        if state == Image::Nothing || ends.is_some_and(|ends| ends <= at) {
            break;
        }
        lead = age.saturating_add(A_LITTLE);
        if state == Image::Whole {
            break;
        }
    }
    Ok(lead)
}

/// What an image does to the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    /// It clears it.
    Nothing,
    /// It is shown, and needs nothing that was before.
    Whole,
    /// It needs what was before.
    Part,
}

/// A PGS display set begins with its composition (US 2009/0185789): state in byte 10, number of objects in byte 13. Others are whole.
fn state(codec: &Codec, image: &[u8]) -> Image {
    match (codec, image) {
        (Codec::Pgs, [0x16, ..]) => match (image.get(10), image.get(13)) {
            (_, None | Some(0)) => Image::Nothing,
            (Some(0), _) => Image::Part,
            _ => Image::Whole,
        },
        _ => Image::Whole,
    }
}

/// The beginning of the image that a point of the film's index leads to, and how long it is shown, in ticks of its track.
pub(super) async fn image_at(film: &Film, track: &Track, point: &KeyFrame) -> Result<Option<(Vec<u8>, Option<u32>)>, SourceError> {
    let mut blocks = matroska::Blocks::cued(&film.index, track.id, point);
    let mut known = Sparse::new(film.source.len());
    for _ in 0..MOST_READS {
        match blocks.next(&known) {
            Ok(Some(frame)) => {
                let body = film.source.read_at(frame.offset, frame.len.min(HEAD) as usize).await?;
                let image = [&frame.prefix[..], &body[..]].concat();
                let image = if track.complex_edits { inflate(&image) } else { Some(image) };
                return Ok(image.map(|image| (image, frame.duration.filter(|duration| *duration > 0))));
            }
            Err(Stop::Need { offset, len }) => {
                known.insert(offset, film::read(&film.source, offset, len.max(u64::from(HEAD))).await?);
            }
            Ok(None) | Err(Stop::Bad(_)) => break,
        }
    }
    Ok(None)
}

/// Text, and how it looks.
pub struct Text {
    name: String,
    head: Head,
    stage: Stage,
    /// The film's own pixels, where the script was made for them.
    original: Option<Size>,
    lines: Lines,
    film: Weak<Film>,
    store: Arc<SegmentStore>,
    folder: OnceCell<Folder>,
    /// Room that the film's fonts take, where it has some.
    fonts: OnceCell<Option<Room>>,
    scripts: AtomicU64,
}

/// Where the events come from.
pub(super) enum Lines {
    /// A track of the film, by its number in the file.
    Film(usize),
    /// All are known.
    Whole(Vec<Event>),
}

impl Text {
    /// `script` is the head of a script with styles, if the text has one.
    pub(super) fn new(film: &Arc<Film>, name: String, script: Option<Head>, lines: Lines, store: Arc<SegmentStore>) -> Self {
        let picture = film.index.video().and_then(|track| track.video.clone()).unwrap_or_default();
        let stage = stage(film);
        let turned = !picture.rotation.is_multiple_of(180);
        let (width, height) = if turned { (picture.height, picture.width) } else { (picture.width, picture.height) };
        let original = script.is_some().then_some(Size { width, height }).filter(|size| size.width > 0 && size.height > 0);
        Self {
            name,
            head: script.unwrap_or_else(|| Head::plain(stage)),
            stage,
            original,
            lines,
            film: Arc::downgrade(film),
            store,
            folder: OnceCell::new(),
            fonts: OnceCell::new(),
            scripts: AtomicU64::new(0),
        }
    }

    async fn of_run(&self, run: Stretch<'_>) -> Result<Drawn, DrawError> {
        let film = self.film.upgrade().ok_or(SourceError::Gone)?;
        let until = match &self.lines {
            Lines::Film(stream) => run.until(|most| film.text.here_until(&film, *stream, run.begins(run.from), most)),
            Lines::Whole(_) => run.goal,
        };
        let times = run.times(until);
        let shift = run.zero_us.saturating_add(500).div_euclid(1000);
        let script = match &self.lines {
            Lines::Film(stream) => {
                let events = film.text.events(&film, *stream, times, self.stage).await?;
                script::write(&self.head, &events, times, shift)
            }
            Lines::Whole(events) => script::write(&self.head, events, times, shift),
        };
        // Where nothing is said, nothing is loaded for it.
        let Some(script) = script else { return Ok(Drawn::nothing(until)) };
        let folder = self.folder().await?;
        let fonts = self.fonts(&film, folder).await;
        let file = folder.0.join(format!("{}.ass", self.scripts.fetch_add(1, Ordering::Relaxed)));
        let gone = Gone(file.clone());
        tokio::fs::write(&file, script).await?;
        let burn = Script { file: utf8(&file)?, fonts: fonts.as_deref().map(utf8).transpose()?, original: self.original };
        Ok(Drawn { burn: Some(Burn::Script(burn)), lead_us: 0, until, folder: Some(folder.0.clone()), _script: Some(gone) })
    }

    async fn folder(&self) -> io::Result<&Folder> {
        self.folder.get_or_try_init(|| Folder::make(self.store.folder())).await
    }

    /// The folder of the film's fonts, where it has some. Text without styles names none.
    async fn fonts(&self, film: &Film, folder: &Folder) -> Option<PathBuf> {
        self.original?;
        let fonts = folder.0.join("fonts");
        let bring = self.fonts.get_or_try_init(|| fonts::bring(film, &fonts, &self.store));
        match tokio::time::timeout(FONTS_WAIT, bring).await {
            Ok(Ok(room)) => room.is_some().then_some(fonts),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the film's fonts cannot be had, so its subtitles are drawn with others");
                None
            }
            Err(_) => None,
        }
    }
}

/// ffmpeg's filters take text.
fn utf8(path: &Path) -> Result<String, DrawError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| DrawError::Disk(io::Error::new(io::ErrorKind::InvalidFilename, "the cache folder's name is not UTF-8")))
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    async fn make(within: &Path) -> io::Result<Self> {
        let folder = Self(within.join(format!("drawn-{}", FOLDERS.fetch_add(1, Ordering::Relaxed))));
        tokio::fs::create_dir_all(&folder.0).await?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_quietly(std::fs::remove_dir_all(&self.0));
    }
}

/// A file that goes with its owner.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        remove_quietly(std::fs::remove_file(&self.0));
    }
}

fn remove_quietly(done: io::Result<()>) {
    if let Err(error) = done
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "text for the picture could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(cuts: &[i64], turn: u32) -> Stretch<'_> {
        Stretch { cuts, timescale: 1, from: 10, goal: 600, turn, zero_us: 0 }
    }

    #[test]
    fn a_run_lasts_as_long_as_its_text_is_here() {
        let cuts: Vec<i64> = (0..=700).map(|n| n * 2).collect();
        // Seconds up to which text is here, how many runs came before, and the segment before which it ends.
        for (here, turn, until) in [
            (0, 0, 11),
            (24, 0, 12),
            (25, 0, 12),
            (1000, 0, 14),
            (0, 1, 12),
            (30, 1, 15),
            (1000, 1, 26),
            (0, 2, 14),
            (1000, 2, 55),
            (1000, 90, 55),
            (60, 90, 30),
        ] {
            let run = stretch(&cuts, turn);
            assert_eq!(run.until(|most| most.min(here * 1000)), until, "{here} s, run {turn}");
        }
        let short = Stretch { goal: 11, ..stretch(&cuts, 5) };
        assert_eq!(short.until(|most| most), 11);
        assert_eq!((stretch(&cuts, 0).times(11), stretch(&cuts, 0).times(700).1), ((20_000, 22_000), i64::MAX));
    }

    #[test]
    fn what_an_image_does_to_the_screen() {
        let set = |state, objects| [0x16, 0, 19, 7, 128, 4, 56, 16, 0, 1, state, 0, 0, objects, 0];
        for (image, does) in [
            (&set(0x80, 1)[..], Image::Whole),
            (&set(0x40, 2), Image::Whole),
            (&set(0, 1), Image::Part),
            (&set(0, 0), Image::Nothing),
            (&set(0x80, 0), Image::Nothing),
            (&[0x16, 0], Image::Nothing),
            (&[], Image::Whole),
        ] {
            assert_eq!(state(&Codec::Pgs, image), does, "{image:?}");
        }
        assert_eq!(state(&Codec::VobSub, &set(0, 0)), Image::Whole);
    }

    #[tokio::test]
    async fn files_go_with_their_owner() {
        let house = tempfile::tempdir().expect("a folder");
        let folder = Folder::make(house.path()).await.expect("made");
        let script = Gone(folder.0.join("0.ass"));
        std::fs::write(&script.0, "x").expect("written");
        let (at, file) = (folder.0.clone(), script.0.clone());
        drop(script);
        assert!(!file.exists() && at.exists());
        std::fs::write(&file, "x").expect("written");
        drop(folder);
        assert!(!at.exists());
    }
}
