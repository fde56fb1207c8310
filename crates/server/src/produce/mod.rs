//! Just-in-time production of segments: copied ones are described, encoded ones are made by ffmpeg and kept.

pub mod assemble;
pub mod copy;
pub mod encode;
pub mod encoders;
pub mod filters;
pub mod pace;
pub mod previews;
pub mod probe;
pub mod rendition;
pub mod trial;
pub mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use balcony_media::ladder::Pace;
use balcony_media::magnet::InfoHash;

use self::encode::Tools;
use self::encoders::Encoders;
use self::pace::Paced;
use crate::film::Film;
use crate::segments::SegmentStore;

/// Everything that production needs, and the films that are being played.
pub struct Workshop {
    /// Child processes and what they need.
    pub tools: Tools,
    /// Encoded segments.
    pub segments: Arc<SegmentStore>,
    /// Who may encode pictures.
    pub encoders: Arc<Encoders>,
    /// How fast they are.
    pub pace: Paced,
    /// Held by who makes a sheet of stills: one at a time.
    pub sheets: tokio::sync::Semaphore,
    films: Mutex<HashMap<(InfoHash, usize), Arc<Film>>>,
}

impl Workshop {
    /// A workshop with no films in it.
    pub fn new(tools: Tools, segments: Arc<SegmentStore>, encoders: usize, pace: Paced) -> Arc<Self> {
        Arc::new(Self {
            tools,
            segments,
            encoders: Encoders::new(encoders),
            pace,
            sheets: tokio::sync::Semaphore::new(1),
            films: Mutex::default(),
        })
    }

    /// Finds out how fast the encoders are, unless that is known.
    pub fn measure(self: &Arc<Self>) {
        if self.pace.claim() {
            self.tools.tasks.spawn("pace", pace::measure(self.clone()));
        }
    }

    /// How fast pictures are encoded, by whatever does it now.
    pub fn now(&self) -> Pace {
        self.tools.choice.pace().unwrap_or_else(|| self.pace.now())
    }

    /// The film, if somebody plays it already.
    pub fn film(&self, info_hash: InfoHash, file: usize) -> Option<Arc<Film>> {
        self.films().get(&(info_hash, file)).cloned()
    }

    /// Shares a film that was just opened; where somebody was faster, theirs is used.
    pub fn share(&self, film: Film) -> Arc<Film> {
        self.films().entry((film.info_hash, film.file)).or_insert_with(|| Arc::new(film)).clone()
    }

    /// Ends everything that runs for a film and deletes what was made of it.
    pub fn forget(&self, info_hash: InfoHash, file: usize) {
        let film = self.films().remove(&(info_hash, file));
        film.iter().for_each(|film| film.stop());
    }

    /// The same if nobody plays it any more; `false` where somebody does.
    pub fn rest(&self, info_hash: InfoHash, file: usize) -> bool {
        let film = {
            let mut films = self.films();
            // Whoever plays it has got it from here, under this lock.
            if films.get(&(info_hash, file)).is_some_and(|film| Arc::strong_count(film) > 1) {
                return false;
            }
            films.remove(&(info_hash, file))
        };
        film.iter().for_each(|film| film.stop());
        true
    }

    /// A panic elsewhere leaves the table whole.
    fn films(&self) -> MutexGuard<'_, HashMap<(InfoHash, usize), Arc<Film>>> {
        self.films.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
