//! The mock: any magnet is a film of our own that "comes" by the clock, for people who write clients. No torrent, no network.
//!
//! Only the ground is played. Streams, their states, doors, tickets and segments are the real ones; what a stream's task brings to an end
//! is held back until its cue ([`Part::cue`]), and what nobody here can measure (peers, speed, bytes) follows the clock. The clock runs
//! `--mock-speed` times as fast as the one on the wall and stands still while torrents are paused. All times here are seconds of it,
//! counted from the start of a stream.

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use balcony_media::magnet::{InfoHash, Magnet};
use balcony_media::plan::Mode;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::sample;
use crate::segments::SegmentError;
use crate::source::Source;
use crate::spawner::Spawner;
use crate::stream::actor::{segment_failure, torrent_failure};
use crate::stream::state::{Failure, State};
use crate::stream::view::{self, Moving, Words};
use crate::torrent::{FileEntry, KeptTorrent, TorrentError, TorrentState, TorrentStats};

/// The first peers are heard of.
const HEARD: f64 = 2.0;
/// It is known what is in the torrent.
const METADATA: f64 = 5.0;
/// The film's index is read.
const INDEX: f64 = 10.0;
/// The first bytes are here.
const CONVERTING: f64 = 15.0;
/// A conversion that fails fails here.
const BROKEN: f64 = 17.5;
/// The first segments are made.
const READY: f64 = 20.0;
/// The whole film is here.
const COMPLETE: f64 = 60.0;
/// Whoever only looks what is in a torrent waits this long.
const INSPECTED: f64 = 1.0;
/// And gives up after this long, where nobody says it.
const GIVEN_UP: f64 = 30.0;
/// Peers that are asked in vain.
const ASKED: usize = 9;
/// Numbers that move are not looked at more often than this, however fast the clock runs.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// The torrent of the sample film.
const SAMPLE: InfoHash = InfoHash(*b"Balcony sample film!");
/// What a torrent without a name is called.
const NAMELESS: &str = "Balcony mock film";

/// The ground of a server that has none.
pub struct Mock {
    clock: Clock,
    paused: watch::Sender<bool>,
    films: Arc<Films>,
}

/// The films that are played for all others.
#[derive(Debug)]
struct Films {
    feature: (PathBuf, u64),
    short: (PathBuf, u64),
}

impl Mock {
    /// Makes the films where they are not there yet, which takes some seconds.
    ///
    /// # Errors
    /// When ffmpeg cannot make them.
    pub async fn open(spawner: &Spawner, ffmpeg: &Path, data_dir: &Path, speed: f64) -> anyhow::Result<Self> {
        let (feature, short) = sample::make_for_mock(spawner, ffmpeg, data_dir).await?;
        let measured = |path: PathBuf| -> anyhow::Result<(PathBuf, u64)> {
            let len = path.metadata().context("the mock's film cannot be read")?.len();
            Ok((path, len))
        };
        let films = Films { feature: measured(feature)?, short: measured(short)? };
        Ok(Self { clock: Clock::started(speed), paused: watch::Sender::new(false), films: Arc::new(films) })
    }

    /// The magnet of the sample film, which nobody needs to seed.
    pub fn sample() -> Magnet {
        Magnet { name: Some(sample::NAME.to_owned()), ..Magnet::of(SAMPLE) }
    }

    /// What a stream of this magnet does that was started so long ago.
    pub fn part(&self, magnet: &Magnet, age: Duration) -> Part {
        let fate = Fate::of(&magnet.info_hash);
        let ahead = if fate == Fate::AtOnce { READY } else { 0.0 };
        let begun = self.clock.now() - age.as_secs_f64() * self.clock.speed - ahead;
        Part { clock: self.clock.clone(), begun, fate }
    }

    /// Whether a stream of this magnet is ready before anybody can ask.
    pub fn is_at_once(&self, magnet: &Magnet) -> bool {
        Fate::of(&magnet.info_hash) == Fate::AtOnce
    }

    /// While torrents are paused the clock stands still.
    pub fn pause(&self, paused: bool) {
        self.clock.pause(paused);
        self.paused.send_if_modified(|held| std::mem::replace(held, paused) != paused);
    }

    /// Whether it stands still; wakes when that changes.
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    /// What is in the torrent of a magnet.
    pub fn pack(&self, magnet: &Magnet) -> Pack {
        Pack::of(magnet, self.films.clone())
    }

    /// What is in the torrent of a magnet, once that would have been found out.
    ///
    /// # Errors
    /// When it is one that nobody has.
    pub async fn inspect(&self, magnet: &Magnet) -> Result<Pack, TorrentError> {
        let now = self.clock.now();
        match Fate::of(&magnet.info_hash) {
            Fate::AtOnce => {}
            Fate::Plays | Fate::Breaks => self.clock.reach(now + INSPECTED).await,
            Fate::NobodyHasIt => {
                self.clock.reach(now + METADATA).await;
                return Err(TorrentError::NoPeers { asked: ASKED });
            }
            Fate::NeverKnown => {
                self.clock.reach(now + GIVEN_UP).await;
                return Err(TorrentError::NoPeers { asked: ASKED });
            }
        }
        Ok(self.pack(magnet))
    }
}

/// What becomes of a torrent, by its info hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Plays,
    AtOnce,
    NeverKnown,
    Breaks,
    NobodyHasIt,
}

impl Fate {
    fn of(info_hash: &InfoHash) -> Self {
        match &info_hash.0 {
            [0xaa, 0xaa, ..] => Self::AtOnce,
            [0xcc, 0xcc, ..] => Self::NeverKnown,
            [0xdd, 0xdd, ..] => Self::Breaks,
            [0xee, 0xee, ..] => Self::NobodyHasIt,
            _ => Self::Plays,
        }
    }
}

/// Seconds that run at their own speed and can be stopped.
#[derive(Debug, Clone)]
struct Clock {
    speed: f64,
    hands: Arc<watch::Sender<Hands>>,
}

#[derive(Debug, Clone, Copy)]
struct Hands {
    at: f64,
    /// Since when they have gone on from there; `None` while they stand still.
    running: Option<Instant>,
}

impl Clock {
    fn started(speed: f64) -> Self {
        Self { speed, hands: Arc::new(watch::Sender::new(Hands { at: 0.0, running: Some(Instant::now()) })) }
    }

    fn now(&self) -> f64 {
        self.read(*self.hands.borrow())
    }

    fn read(&self, hands: Hands) -> f64 {
        hands.at + hands.running.map_or(0.0, |since| since.elapsed().as_secs_f64() * self.speed)
    }

    fn runs(&self) -> bool {
        self.hands.borrow().running.is_some()
    }

    fn pause(&self, paused: bool) {
        self.hands.send_if_modified(|hands| {
            let changes = hands.running.is_some() == paused;
            if changes {
                *hands = Hands { at: self.read(*hands), running: (!paused).then(Instant::now) };
            }
            changes
        });
    }

    /// Time on the wall that `seconds` of this clock take.
    fn wall(&self, seconds: f64) -> Duration {
        // Rounded up, so that whoever has waited for it does not come too early.
        Duration::from_secs_f64((seconds / self.speed).max(0.0)) + Duration::from_micros(1)
    }

    /// Waits until it shows `at`.
    async fn reach(&self, at: f64) {
        let mut hands = self.hands.subscribe();
        loop {
            let seen = *hands.borrow_and_update();
            let left = at - self.read(seen);
            if left <= 0.0 {
                return;
            }
            if seen.running.is_some() {
                // Either way it is looked again. The sender lives as long as the clock does.
                tokio::time::timeout(self.wall(left), hands.changed()).await.ok();
            } else if hands.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What a stream's work comes to, each at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is known what is in the torrent.
    Metadata,
    /// The film's index is read.
    Index,
    /// The first segments are made.
    FirstSegments,
}

/// What one stream plays. Clones play the same.
#[derive(Debug, Clone)]
pub struct Part {
    clock: Clock,
    /// When the stream began, by the clock.
    begun: f64,
    fate: Fate,
}

impl Part {
    /// Waits until it is time for an act to be over.
    ///
    /// # Errors
    /// When it is time to fail instead.
    pub async fn cue(&self, act: Act) -> Result<(), Failure> {
        match (act, self.fate) {
            (Act::Metadata, Fate::NeverKnown) => std::future::pending().await,
            (Act::Metadata, Fate::NobodyHasIt) => {
                self.reach(METADATA).await;
                return Err(torrent_failure(TorrentError::NoPeers { asked: ASKED }));
            }
            (Act::FirstSegments, Fate::Breaks) => {
                self.reach(BROKEN).await;
                return Err(segment_failure(&SegmentError::Failed("ffmpeg ended with exit status: 1".into())));
            }
            (Act::Metadata, _) => self.reach(METADATA).await,
            (Act::Index, _) => self.reach(INDEX).await,
            (Act::FirstSegments, _) => self.reach(READY).await,
        }
        Ok(())
    }

    async fn reach(&self, at: f64) {
        self.clock.reach(self.begun + at).await;
    }

    fn now(&self) -> f64 {
        self.clock.now() - self.begun
    }

    /// How long until the stream has to be looked at again, where it would be looked at after `pause` in earnest.
    pub fn pause(&self, pause: Duration) -> Duration {
        let now = self.now();
        if !self.clock.runs() || now > COMPLETE {
            return pause;
        }
        let next = [HEARD, METADATA, INDEX, CONVERTING, READY, COMPLETE].into_iter().find(|at| *at > now);
        let often = self.clock.wall(pause.as_secs_f64()).max(SHORTEST_PAUSE);
        next.map_or(pause, |at| self.clock.wall(at - now)).min(often).min(pause)
    }

    /// The words for a state: the real ones, with the time line's numbers.
    pub fn words(&self, state: &State, moving: Moving) -> Words {
        self.words_at(self.now(), state, moving)
    }

    fn words_at(&self, now: f64, state: &State, moving: Moving) -> Words {
        let share = ((now - INDEX) / (CONVERTING - INDEX)).clamp(0.0, 1.0);
        let (mut words, progress) = match state {
            State::Metadata => (view::words(state, &moving), 0),
            // Nobody is connected yet, and nothing has come.
            State::Opening => (view::words(state, &Moving { peers: 0, speed: 0, ..moving }), 25),
            State::Warming(_) if now < CONVERTING => {
                // As of a hundred parts.
                let first = Some(((share * 100.0) as u64, 100));
                (view::words(&State::Warming(Mode::Copy), &Moving { first, ..moving }), 50)
            }
            State::Warming(_) => {
                let seconds = self.clock.wall(now - CONVERTING).as_secs();
                (view::words(&State::Warming(Mode::Convert), &Moving { seconds, starved: moving.paused, ..moving }), 75)
            }
            _ => return view::words(state, &moving),
        };
        words.progress = progress;
        words.eta = (progress > 0 && self.clock.runs()).then(|| self.clock.wall(READY - now).as_secs_f64().round().max(1.0) as u64);
        words
    }

    /// Peers that the search for metadata has heard of.
    pub fn peers(&self) -> usize {
        known_peers(self.now(), self.fate)
    }

    /// How the torrent is doing; `told` is what would be true if all were here.
    pub fn stats(&self, told: TorrentStats) -> TorrentStats {
        let now = self.now();
        let per_second = if self.clock.runs() { bytes_per_second(now, told.total) } else { 0.0 };
        let download_speed = (per_second * self.clock.speed) as u64;
        TorrentStats {
            downloaded: bytes(now, told.total),
            download_speed,
            upload_speed: download_speed / 8,
            peers: connected_peers(now),
            ..told
        }
    }
}

fn known_peers(now: f64, fate: Fate) -> usize {
    match fate {
        Fate::NobodyHasIt => 0,
        _ if now < HEARD => 0,
        // One more in each third of a second.
        _ => (((now - HEARD) * 3.0) as usize + 1).min(ASKED),
    }
}

fn connected_peers(now: f64) -> usize {
    if now < INDEX {
        return 0;
    }
    // Three at first, then twelve, one or two more or less.
    let grown = 3.0 + (now - INDEX).min(9.0);
    (grown + 1.5 * (now / 3.0).sin()).round().max(1.0) as usize
}

/// How often the speed goes up and down while the film comes.
const WAVES: f64 = 5.0;
/// By how much, as a part of the film that comes earlier or later. Below `1 / (TAU * WAVES)`, so that no byte goes back.
const SWELL: f64 = 0.01;

/// Bytes of a film of `total` bytes that are here.
fn bytes(now: f64, total: u64) -> u64 {
    let share = (now - INDEX) / (COMPLETE - INDEX);
    match share {
        ..=0.0 => 0,
        1.0.. => total,
        _ => ((share - SWELL * (share * WAVES * TAU).sin()) * total as f64) as u64,
    }
}

/// By how much [`bytes`] grows in a second of the clock.
fn bytes_per_second(now: f64, total: u64) -> f64 {
    let share = (now - INDEX) / (COMPLETE - INDEX);
    if !(0.0..1.0).contains(&share) {
        return 0.0;
    }
    (1.0 - SWELL * WAVES * TAU * (share * WAVES * TAU).cos()) * total as f64 / (COMPLETE - INDEX)
}

/// What is in a torrent of the mock: two films that can be played, and what usually lies beside them. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Pack(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    name: String,
    files: Vec<FileEntry>,
    kept: KeptTorrent,
    films: Arc<Films>,
}

impl Pack {
    fn of(magnet: &Magnet, films: Arc<Films>) -> Self {
        let name = magnet.name.as_deref().map_or(NAMELESS, without_ending).to_owned();
        let (feature, short) = (films.feature.1, films.short.1);
        let files = if magnet.info_hash == SAMPLE {
            files(&[(sample::NAME, feature, true)])
        } else {
            files(&[
                (&format!("{name}/{name}.mp4"), feature, true),
                (&format!("{name}/Extras/{name} - Making of.mp4"), short, true),
                (&format!("{name}/Sample/sample.mp4"), feature / 20, true),
                (&format!("{name}/Subtitles/English.srt"), 4_096, false),
                (&format!("{name}/Cover.jpg"), 98_304, false),
                (&format!("{name}/Read me.txt"), 512, false),
            ])
        };
        let (trackers, peers) = (magnet.trackers.clone(), magnet.peers.clone());
        let kept = KeptTorrent { info_hash: magnet.info_hash, trackers, peers, selected: Vec::new() };
        Self(Arc::new(Inside { name, files, kept, films }))
    }

    /// The name that the torrent gives itself.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// All files, in the torrent's order.
    pub fn files(&self) -> &[FileEntry] {
        &self.0.files
    }

    /// A film to read from.
    ///
    /// # Errors
    /// When the file behind it is gone, or it is none of those that are ever chosen.
    pub fn film(&self, index: usize) -> Result<Source, TorrentError> {
        let films = &self.0.films;
        let length = self.0.files.get(index).map(|file| file.length);
        let file = [&films.feature, &films.short].into_iter().find(|film| Some(film.1) == length);
        let (path, _) = file.ok_or(TorrentError::NothingPlayable)?;
        Source::local(path).map_err(|error| TorrentError::Failed(format!("the mock's film cannot be read ({})", error.kind())))
    }

    /// How it would do if all were here.
    pub fn stats(&self, index: usize) -> TorrentStats {
        let total = self.0.files.get(index).map_or(0, |file| file.length);
        TorrentStats {
            downloaded: total,
            total,
            download_speed: 0,
            upload_speed: 0,
            uploaded: 0,
            peers: 0,
            live: 0,
            seen: 0,
            state: TorrentState::Live,
            error: None,
        }
    }

    /// What the store keeps of it.
    pub fn kept(&self) -> KeptTorrent {
        self.0.kept.clone()
    }
}

fn files(list: &[(&str, u64, bool)]) -> Vec<FileEntry> {
    let entry = |(index, (path, length, playable)): (usize, &(&str, u64, bool))| FileEntry {
        index,
        path: (*path).to_owned(),
        length: *length,
        playable: *playable,
    };
    list.iter().enumerate().map(entry).collect()
}

/// A film's name without what says how it is packed: the mock's are all MP4.
fn without_ending(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, "mp4" | "m4v" | "mkv" | "avi" | "mov" | "webm" | "ts")) if !stem.is_empty() => stem,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::stream::state::FailureCode;

    fn part(fate: Fate, speed: f64) -> Part {
        Part { clock: Clock::started(speed), begun: 0.0, fate }
    }

    #[test]
    fn the_first_digits_decide() {
        let fate = |hash: &str| Fate::of(&hash.repeat(40 / hash.len()).parse().expect("an info hash"));
        assert_eq!(["a", "c", "d", "e"].map(fate), [Fate::AtOnce, Fate::NeverKnown, Fate::Breaks, Fate::NobodyHasIt]);
        assert_eq!(["b", "f", "aaab", "12345678"].map(fate), [Fate::Plays; 4]);
    }

    #[test]
    fn every_time_has_its_words() {
        let part = part(Fate::Plays, 1.0);
        let mut lines = String::new();
        let table = [
            (0.0, State::Metadata),
            (3.0, State::Metadata),
            (5.0, State::Opening),
            (9.9, State::Opening),
            (10.0, State::Warming(Mode::Copy)),
            (12.5, State::Warming(Mode::Convert)),
            (15.0, State::Warming(Mode::Copy)),
            (19.5, State::Warming(Mode::ConvertAudio)),
            (25.0, State::Warming(Mode::Convert)),
            (20.0, State::Ready { complete: false }),
            (60.0, State::Ready { complete: true }),
            (7.0, State::Stopped),
        ];
        for (now, state) in table {
            let moving = Moving { seconds: 2, peers: connected_peers(now), speed: 1_000_000, ..Moving::default() };
            let words = part.words_at(now, &state, moving);
            let (status, phase) = (words.status, words.phase);
            writeln!(lines, "{now} s {status:?}/{phase:?} {} % {:?} {}: {}", words.progress, words.eta, words.key, words.message)
                .expect("a string takes all");
        }
        insta::assert_snapshot!(lines);
    }

    #[tokio::test]
    async fn a_part_waits_for_its_cues_and_fails_at_its_time() {
        // A thousand seconds in one, so that the whole line takes twenty milliseconds.
        let plays = part(Fate::Plays, 1000.0);
        for (act, at) in [(Act::Metadata, METADATA), (Act::Index, INDEX), (Act::FirstSegments, READY)] {
            assert_eq!(plays.cue(act).await, Ok(()));
            assert!(plays.now() >= at, "{act:?} at {}", plays.now());
        }
        let code = |failed: Result<(), Failure>| failed.expect_err("it fails").code;
        assert_eq!(code(part(Fate::NobodyHasIt, 1000.0).cue(Act::Metadata).await), FailureCode::NoPeers);
        let breaks = part(Fate::Breaks, 1000.0);
        assert_eq!((breaks.cue(Act::Metadata).await, breaks.cue(Act::Index).await), (Ok(()), Ok(())));
        assert_eq!(code(breaks.cue(Act::FirstSegments).await), FailureCode::ConversionFailed);
        assert!((BROKEN..).contains(&breaks.now()));
        let never = part(Fate::NeverKnown, 1000.0);
        assert!(tokio::time::timeout(Duration::from_millis(100), never.cue(Act::Metadata)).await.is_err());
    }

    #[tokio::test]
    async fn a_clock_that_is_paused_stands_still() {
        let clock = Clock::started(1000.0);
        clock.pause(true);
        let stands = clock.now();
        let waits = tokio::spawn({
            let clock = clock.clone();
            async move { clock.reach(stands + 10.0).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        clock.pause(true);
        assert!(clock.now() == stands && !waits.is_finished());
        clock.pause(false);
        waits.await.expect("it comes");
        assert!(clock.now() >= stands + 10.0);
    }

    #[test]
    fn looks_come_when_something_changes() {
        // At real speed never later than in earnest, and at a change of the line.
        let look = Duration::from_millis(250);
        assert_eq!(part(Fate::Plays, 1.0).pause(look), look);
        let short_before = Part { begun: -4.9, ..part(Fate::Plays, 1.0) };
        assert!(short_before.pause(look) <= Duration::from_millis(101));
        assert!(part(Fate::Plays, 1000.0).pause(look) <= Duration::from_millis(20));
        assert_eq!(part(Fate::Plays, 0.05).pause(look), look);
        let complete = Part { begun: -61.0, ..part(Fate::Plays, 1000.0) };
        assert_eq!(complete.pause(look), look);
    }

    #[test]
    fn names_lose_their_ending() {
        let table = [("Film.mkv", "Film"), ("Film.2020", "Film.2020"), (".mkv", ".mkv"), ("Film", "Film"), ("a.b.mp4", "a.b")];
        for (name, expected) in table {
            assert_eq!(without_ending(name), expected);
        }
    }

    proptest! {
        #[test]
        fn bytes_only_come(a in 0.0..70.0, b in 0.0..70.0, total in 0_u64..1 << 40) {
            let (early, late) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(bytes(early, total) <= bytes(late, total));
            prop_assert!(bytes(late, total) <= total);
            prop_assert!(bytes_per_second(a, total) >= 0.0);
            prop_assert_eq!((bytes(INDEX, total), bytes(COMPLETE, total)), (0, total));
            // The speed is that of the bytes.
            let step = 0.001;
            if a > INDEX && a + step < COMPLETE && total > 1 << 20 {
                let moved = (bytes(a + step, total) - bytes(a, total)) as f64;
                let told = bytes_per_second(a, total) * step;
                prop_assert!((moved - told).abs() <= 2.0 + told * 0.05, "{} and {}", moved, told);
            }
        }
    }
}
