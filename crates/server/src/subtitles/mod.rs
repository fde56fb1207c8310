//! The subtitles of a film as one stream offers them: those inside of it, those beside it in its torrent, and those that somebody sent.
//!
//! Nothing here waits for a whole film: the text of a segment comes from the part of the film that the segment is made of. Images of text
//! are listed, and drawn into the picture for who asks for it, as text is, with all its styles.

mod beside;
mod burnt;
mod drawing;
mod fonts;
mod inside;

use std::sync::{Arc, PoisonError, RwLock};

use balcony_media::container::{Codec, Kind, Track as FilmTrack};
use balcony_media::cut::Cuts;
use balcony_media::playlist::hls;
use balcony_media::subtitle::{self, Cue, Format, name};

use self::beside::Beside;
pub use self::burnt::{Sources, Undrawn};
pub use self::drawing::{DrawError, Drawing, Drawn, Stretch};
pub use self::inside::Inside;
use crate::film::Film;
use crate::source::SourceError;
use crate::store::{Store, StoreError, SubtitleRow};
use crate::stream::view::SubtitleView;
use crate::swarm::Torrent;
use crate::torrent::TorrentError;

/// Most files that one stream takes.
pub const MOST_SENT: usize = 20;
/// Most files beside a film that are offered.
const MOST_BESIDE: usize = 100;

/// Why a text cannot be had now.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Bytes of the film, or of the file beside it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file beside the film cannot be begun.
    #[error(transparent)]
    Torrent(#[from] TorrentError),
}

/// All subtitles of a stream: `s1`, `s2` … in this order. Grows, and never changes what is there.
pub struct Tracks {
    /// Where their segments are cut: as those of the rendition that a player begins with.
    pub cuts: Cuts,
    film: Arc<Film>,
    all: RwLock<Vec<Arc<Track>>>,
    /// One at a time is added, so that the number written down is the one that is answered.
    adding: tokio::sync::Mutex<()>,
}

/// One of them.
pub struct Track {
    /// What the API shows of it.
    pub view: SubtitleView,
    cues: Origin,
}

/// Where the cues come from.
enum Origin {
    /// A track of the film, by its number in the file.
    Film(usize),
    /// A file of the torrent.
    Beside(Beside),
    /// Somebody sent them.
    Sent(Vec<Cue>),
    /// They are images, or text that cannot be read here.
    Nothing,
}

impl Track {
    /// Whether there is WebVTT of it.
    pub fn is_text(&self) -> bool {
        !matches!(self.cues, Origin::Nothing)
    }
}

/// A file that somebody sends.
pub struct Sent {
    /// What it is.
    pub format: Format,
    /// BCP 47, or `und`.
    pub language: String,
    /// For people.
    pub title: String,
    /// Only what is foreign in the film.
    pub forced: bool,
    /// What is in it.
    pub cues: Vec<Cue>,
    /// What it was, if that is more: a script with styles.
    pub script: Option<String>,
}

impl Tracks {
    /// Those inside of the film.
    pub fn inside(film: &Arc<Film>, cuts: Cuts) -> Self {
        let own = film.index.tracks.iter().filter(|track| track.kind == Kind::Subtitle).enumerate();
        let all = own.map(|(at, track)| Arc::new(of_film(film, at, track))).collect();
        Self { cuts, film: film.clone(), all: RwLock::new(all), adding: tokio::sync::Mutex::default() }
    }

    /// Adds those that lie beside the film in its torrent. Nothing is fetched before somebody asks for it.
    pub fn add_beside(&self, torrent: &Torrent, file: usize) {
        let Some(film) = torrent.files().iter().find(|entry| entry.index == file) else { return };
        let rate = self.film.index.video().and_then(|track| track.video.as_ref()?.frame_rate);
        let those = beside::find(torrent.files(), film);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        for (entry, format) in those.into_iter().take(MOST_BESIDE) {
            let told = name::told(entry.name(), film.name());
            let is_image = format.is_none();
            let view = SubtitleView {
                id: format!("s{}", all.len() + 1),
                format: format.map_or("vobsub", Format::name).to_owned(),
                kind: if is_image { "image" } else { "text" }.to_owned(),
                title: if told.deaf && told.title.is_empty() { "SDH".to_owned() } else { told.title },
                language: told.language.clone(),
                default: false,
                forced: told.forced,
                external: true,
            };
            let cues =
                if is_image { Origin::Nothing } else { Origin::Beside(Beside::new(torrent.clone(), entry.index, told.language, rate)) };
            all.push(Arc::new(Track { view, cues }));
        }
    }

    /// Adds those that were sent in an earlier run.
    pub fn add_kept(&self, rows: Vec<SubtitleRow>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let cues = subtitle::parse(&row.text, None).map(|(_, cues)| cues).unwrap_or_default();
            let format = row.format;
            let view = sent_view(all.len() + 1, format, row.language, row.title, row.forced);
            all.push(Arc::new(Track { view, cues: Origin::Sent(cues) }));
        }
    }

    /// Writes down and adds what somebody sends; `None` where there are too many already.
    ///
    /// # Errors
    /// When it cannot be written down; then it is not there.
    pub async fn add(&self, sent: Sent, store: &Store, stream: &str) -> Result<Option<SubtitleView>, StoreError> {
        let _turn = self.adding.lock().await;
        let (count, before) = {
            let all = self.read();
            (all.iter().filter(|track| matches!(track.cues, Origin::Sent(_))).count(), all.len())
        };
        if count >= MOST_SENT {
            return Ok(None);
        }
        let row = SubtitleRow {
            stream: stream.to_owned(),
            number: u32::try_from(count).unwrap_or(u32::MAX),
            format: sent.format.name().to_owned(),
            language: sent.language.clone(),
            title: sent.title.clone(),
            forced: sent.forced,
            text: sent.script.unwrap_or_else(|| subtitle::write::document(&sent.cues)),
        };
        store.save_subtitle(row).await?;
        let view = sent_view(before + 1, sent.format.name().to_owned(), sent.language, sent.title, sent.forced);
        let track = Arc::new(Track { view: view.clone(), cues: Origin::Sent(sent.cues) });
        self.all.write().unwrap_or_else(PoisonError::into_inner).push(track);
        Ok(Some(view))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Track>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Track>> {
        self.read().clone()
    }

    /// What the API shows of all of them.
    pub fn views(&self) -> Vec<SubtitleView> {
        self.read().iter().map(|track| track.view.clone()).collect()
    }

    /// The text with this id; else the first one in this language.
    pub fn text(&self, named: &str) -> Option<Arc<Track>> {
        let all = self.read();
        let texts = || all.iter().filter(|track| track.is_text());
        texts().find(|track| track.view.id == named).or_else(|| texts().find(|track| short(&track.view.language) == short(named))).cloned()
    }

    /// The text with this id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Track>> {
        self.read().iter().find(|track| track.is_text() && track.view.id == id).cloned()
    }

    /// The cues of segment `n`, in order: those that are shown in it, as far as they can be known without more of the film than the segment
    /// needs itself. Waits for that.
    ///
    /// # Errors
    /// When bytes cannot be had.
    pub async fn segment(&self, track: &Track, n: u32) -> Result<Vec<Cue>, TextError> {
        let at = |ticks: i64| balcony_media::cut::rescale(ticks, self.cuts.timescale, 1000);
        // What is said before the film begins belongs to its first segment, what is said after its end to the last.
        let from = if n == 0 { i64::MIN } else { at(self.cuts.start(n)) };
        let to = if n + 1 >= self.cuts.count() { i64::MAX } else { at(self.cuts.end(n)) };
        let within = |cue: &&Cue| cue.start < to && cue.end > from;
        Ok(match &track.cues {
            Origin::Film(stream) => self.film.text.between(&self.film, *stream, from, to).await?,
            Origin::Beside(beside) => beside.cues().await?.iter().filter(within).cloned().collect(),
            Origin::Sent(cues) => cues.iter().filter(within).cloned().collect(),
            Origin::Nothing => Vec::new(),
        })
    }

    /// All cues that are known now or can be without fetching more of the film, and whether these are all there will be. A file beside the
    /// film is fetched.
    ///
    /// # Errors
    /// When bytes cannot be had.
    pub async fn known(&self, track: &Track) -> Result<(Vec<Cue>, bool), TextError> {
        Ok(match &track.cues {
            Origin::Film(stream) => self.film.text.known(&self.film, *stream).await?,
            Origin::Beside(beside) => (beside.cues().await?.to_vec(), true),
            Origin::Sent(cues) => (cues.clone(), true),
            Origin::Nothing => (Vec::new(), true),
        })
    }

    /// The renditions of a master playlist.
    ///
    /// None is written as the default: films mark nearly every track so, and players would show what nobody asked for. What is forced is
    /// said to be, and players choose it by the language of the sound.
    pub fn renditions(&self) -> Vec<hls::Text> {
        let texts = self.list().into_iter().filter(|track| track.is_text());
        let rendition = |track: Arc<Track>| hls::Text {
            name: if track.view.title.is_empty() { track.view.language.clone() } else { track.view.title.clone() },
            language: track.view.language.clone(),
            forced: track.view.forced,
            uri: format!("{}/index.m3u8", track.view.id),
        };
        texts.map(rendition).collect()
    }
}

/// Whether a track may have this id: `s` and a number from 1 on, as it is written here.
pub fn is_id(id: &str) -> bool {
    number(id).is_some()
}

/// The number in a track's id, from 1 on.
fn number(id: &str) -> Option<usize> {
    let number: usize = id.strip_prefix('s')?.parse().ok()?;
    (number > 0 && id == format!("s{number}")).then_some(number)
}

/// Languages are compared by their two letters: `eng` is `en`.
fn short(language: &str) -> String {
    let lower = language.to_ascii_lowercase();
    hls::language(&lower).map_or_else(|| lower.clone(), |short| short.into_owned())
}

fn sent_view(number: usize, format: String, language: String, title: String, forced: bool) -> SubtitleView {
    SubtitleView { id: format!("s{number}"), format, kind: "text".to_owned(), language, title, default: false, forced, external: true }
}

fn of_film(film: &Film, at: usize, track: &FilmTrack) -> Track {
    let is_text = matches!(track.codec, Codec::Srt | Codec::Ass | Codec::WebVtt | Codec::MovText);
    let format = match &track.codec {
        Codec::Unknown(_) => "unknown",
        codec => codec.name(),
    };
    let view = SubtitleView {
        id: format!("s{}", at + 1),
        format: format.to_owned(),
        kind: if is_text { "text" } else { "image" }.to_owned(),
        language: track.language.clone(),
        title: track.title.clone(),
        default: track.default,
        forced: track.forced,
        external: false,
    };
    let can = is_text && film.has_tables();
    Track { view, cues: if can { Origin::Film(track.stream) } else { Origin::Nothing } }
}
