//! What can happen to a stream, as a pure function. It cannot wait, read a clock or start anything: it returns what is to be done.
//!
//! Work that was started carries an epoch; an answer from an older epoch belongs to a life that is over and changes nothing.

use balcony_media::plan::Mode;
use serde::{Deserialize, Serialize};

/// A stable name of what went wrong, as in the API's `error.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// Nobody has it.
    NoPeers,
    /// Its metadata is not to be trusted.
    UnsafeTorrent,
    /// There is no film in it, or the film cannot be read.
    NotPlayable,
    /// The disk is full, or would be.
    NoSpace,
    /// The torrent broke.
    TorrentFailed,
    /// ffmpeg gave up.
    ConversionFailed,
}

impl FailureCode {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPeers => "no_peers",
            Self::UnsafeTorrent => "unsafe_torrent",
            Self::NotPlayable => "not_playable",
            Self::NoSpace => "no_space",
            Self::TorrentFailed => "torrent_failed",
            Self::ConversionFailed => "conversion_failed",
        }
    }

    /// Whether bytes that came so far are of use when the stream is started again: nothing was wrong with them.
    fn keeps_bytes(self) -> bool {
        match self {
            Self::TorrentFailed | Self::ConversionFailed | Self::NoPeers => true,
            Self::UnsafeTorrent | Self::NotPlayable | Self::NoSpace => false,
        }
    }

    /// A few words for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::NoPeers => "Nobody has this film right now",
            Self::UnsafeTorrent => "This torrent is not safe",
            Self::NotPlayable => "This cannot be played",
            Self::NoSpace => "Not enough room on the disk",
            Self::TorrentFailed => "The download failed",
            Self::ConversionFailed => "The conversion failed",
        }
    }
}

/// Why a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub code: FailureCode,
    /// One sentence that says what to do.
    pub detail: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits for a slot of its device.
    Queued {
        /// Place in the queue, from 1.
        place: usize,
    },
    /// Nobody has told yet what is in the torrent.
    Metadata,
    /// The film's index is being read.
    Opening,
    /// The film has no index of its own; ffprobe looks at it.
    Probing,
    /// Its first segment needs an encoder.
    Lined {
        /// What becomes of the film.
        mode: Mode,
        /// Place in the queue, from 1; none while it is not known that there is any wait.
        place: Option<usize>,
    },
    /// The first segments are being made.
    Warming(Mode),
    /// It can be played.
    Ready {
        /// The whole file is here.
        complete: bool,
    },
    /// It broke.
    Failed(Failure),
    /// Somebody stopped it.
    Stopped,
    /// Its time was over.
    Expired,
}

impl State {
    /// Whether nothing will happen any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Stopped | Self::Expired)
    }
}

/// A stream's state and the epoch of the work that runs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Where it stands.
    pub state: State,
    /// Counts the pieces of work that were started.
    pub epoch: u32,
    /// It is ready and its film is not open: nobody has wanted it since the program began, or for a while. It is opened when somebody
    /// does.
    pub asleep: bool,
}

impl Life {
    /// A stream is born waiting for its turn.
    pub fn born(place: usize) -> Self {
        Self::of(State::Queued { place })
    }

    /// One that comes back as it was in an earlier run.
    pub fn of(state: State) -> Self {
        let asleep = matches!(state, State::Ready { .. });
        Self { state, epoch: 0, asleep }
    }
}

/// What a piece of work found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The torrent's metadata, and a film in it.
    Metadata,
    /// The container has no index of ours.
    NeedsProbe,
    /// Everything that playlists need.
    Presentation {
        /// What becomes of the film.
        mode: Mode,
        /// Whether the first segment needs an encoder.
        encoder: bool,
    },
    /// There is an encoder for the first segment, or somebody else's makes it.
    Encoder,
    /// The first segments of picture and sound are here.
    FirstSegments,
    /// It will not work.
    Failure(Failure),
}

/// What happens to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It moved in the queue.
    Place(usize),
    /// It is its turn.
    Turn,
    /// Somebody wants to see something of it.
    Wanted,
    /// Work of this epoch has come to something.
    Found(u32, Found),
    /// The whole file is here.
    Complete,
    /// What it stands on broke (torrent, disk), whatever it was doing.
    Broke(Failure),
    /// Nobody has wanted it for a while, and nothing more comes.
    Rest,
    /// Its viewer is at another place now.
    Moved,
    /// Somebody asked to stop it.
    Stop,
    /// Its time is over.
    Expire,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start the torrent and find out what is in it.
    FindMetadata(u32),
    /// Read the film's index and plan.
    OpenFilm(u32),
    /// Wait for an encoder.
    AwaitEncoder(u32),
    /// Let the first segments be made.
    MakeFirstSegments(u32),
    /// Open a film that is asleep again.
    Reopen(u32),
    /// End all work that runs for it.
    EndWork,
    /// Tell the queue that it waits for nothing more, and may have no slot any more.
    LeaveQueue,
    /// Let go of the film and of its torrent until somebody wants it again.
    Sleep,
    /// Let go of the film and of what was made of it.
    Release,
    /// Delete the torrent and its bytes, if nobody else needs them.
    Delete,
    /// Write it down, while the next effects are carried out.
    Save,
    /// Wait until it is written down.
    AwaitSaved,
}

/// One step of a life.
pub fn step(life: Life, event: Event) -> (Life, Vec<Effect>) {
    let Life { state, epoch, asleep } = life;
    let stay = |state| Life { state, epoch, asleep };
    if state.is_over() {
        return after_the_end(state, epoch, &event);
    }
    match (state, event) {
        (_, Event::Stop) => end(State::Stopped, epoch),
        (_, Event::Expire) => end(State::Expired, epoch),
        (_, Event::Broke(failure)) => end(State::Failed(failure), epoch),
        (state, Event::Moved) => (stay(state), vec![Effect::Save]),
        (state, Event::Found(of, _)) if of != epoch => (stay(state), vec![]),
        (_, Event::Found(_, Found::Failure(failure))) => end(State::Failed(failure), epoch),
        (State::Queued { .. }, Event::Place(place)) => (stay(State::Queued { place }), vec![]),
        (State::Queued { .. }, Event::Turn) => begin(State::Metadata, epoch, Effect::FindMetadata),
        (State::Metadata, Event::Found(_, Found::Metadata)) => begin(State::Opening, epoch, Effect::OpenFilm),
        (State::Opening, Event::Found(_, Found::NeedsProbe)) => (stay(State::Probing), vec![]),
        (State::Opening | State::Probing, Event::Found(_, Found::Presentation { mode, encoder })) => {
            if encoder {
                begin(State::Lined { mode, place: None }, epoch, Effect::AwaitEncoder)
            } else {
                begin(State::Warming(mode), epoch, Effect::MakeFirstSegments)
            }
        }
        (State::Lined { mode, .. }, Event::Place(place)) => (stay(State::Lined { mode, place: Some(place) }), vec![]),
        (State::Lined { mode, .. }, Event::Found(_, Found::Encoder)) => begin(State::Warming(mode), epoch, Effect::MakeFirstSegments),
        (State::Warming(_), Event::Found(_, Found::FirstSegments)) => {
            (stay(State::Ready { complete: false }), vec![Effect::LeaveQueue, Effect::Save])
        }
        (State::Ready { complete: false }, Event::Complete) => (stay(State::Ready { complete: true }), vec![Effect::Save]),
        (state @ State::Ready { .. }, Event::Wanted) if asleep => {
            let epoch = epoch.wrapping_add(1);
            (Life { state, epoch, asleep: false }, vec![Effect::Reopen(epoch)])
        }
        (state @ State::Ready { .. }, Event::Rest) if !asleep => {
            (Life { state, epoch: epoch.wrapping_add(1), asleep: true }, vec![Effect::EndWork, Effect::Sleep])
        }
        // Late or early news that changes nothing in this state.
        (state, Event::Place(_) | Event::Turn | Event::Wanted | Event::Rest | Event::Complete | Event::Found(_, _)) => {
            (stay(state), vec![])
        }
    }
}

fn begin(state: State, epoch: u32, work: fn(u32) -> Effect) -> (Life, Vec<Effect>) {
    let epoch = epoch.wrapping_add(1);
    // The work goes on while the disk is written.
    (Life { state, epoch, asleep: false }, vec![work(epoch), Effect::Save])
}

fn end(state: State, epoch: u32) -> (Life, Vec<Effect>) {
    let mut effects = vec![Effect::EndWork, Effect::LeaveQueue];
    effects.extend(match &state {
        State::Failed(failure) if failure.code.keeps_bytes() => vec![Effect::Release, Effect::Save],
        State::Failed(_) => vec![Effect::Release, Effect::Delete, Effect::Save],
        _ => [&[Effect::Save, Effect::Release], &GONE[..]].concat(),
    });
    (Life { state, epoch: epoch.wrapping_add(1), asleep: false }, effects)
}

/// How a stream goes that is being written down as over. Deleting may take a while, and on a full disk it makes the room for the writing:
/// neither waits for the other, and what a crash leaves between them is swept at the next start.
const GONE: [Effect; 2] = [Effect::Delete, Effect::AwaitSaved];

/// A failed stream can still be stopped; everything else is over.
fn after_the_end(state: State, epoch: u32, event: &Event) -> (Life, Vec<Effect>) {
    let over = |state| Life { state, epoch, asleep: false };
    match (&state, event) {
        (State::Failed(_), Event::Stop) => (over(State::Stopped), [&[Effect::Save], &GONE[..]].concat()),
        (State::Failed(_), Event::Expire) => (over(State::Expired), [&[Effect::Save], &GONE[..]].concat()),
        _ => (over(state), vec![]),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn states() -> Vec<State> {
        vec![
            State::Queued { place: 2 },
            State::Metadata,
            State::Opening,
            State::Probing,
            State::Lined { mode: Mode::Convert, place: None },
            State::Lined { mode: Mode::Convert, place: Some(3) },
            State::Warming(Mode::Copy),
            State::Ready { complete: false },
            State::Ready { complete: true },
            State::Failed(broken()),
            State::Stopped,
            State::Expired,
        ]
    }

    fn presentation(encoder: bool) -> Found {
        Found::Presentation { mode: Mode::Convert, encoder }
    }

    fn broken() -> Failure {
        Failure::new(FailureCode::NoPeers, "x")
    }

    fn events(epoch: u32) -> Vec<Event> {
        let mut events: Vec<Event> = [
            Found::Metadata,
            Found::NeedsProbe,
            presentation(false),
            presentation(true),
            Found::Encoder,
            Found::FirstSegments,
            Found::Failure(broken()),
        ]
        .into_iter()
        .map(|found| Event::Found(epoch, found))
        .collect();
        events.extend([
            Event::Place(1),
            Event::Turn,
            Event::Wanted,
            Event::Complete,
            Event::Broke(broken()),
            Event::Rest,
            Event::Moved,
            Event::Stop,
            Event::Expire,
        ]);
        events
    }

    fn shown(life: &Life) -> String {
        format!("{:?}{} #{}", life.state, if life.asleep { " asleep" } else { "" }, life.epoch)
    }

    #[test]
    fn every_state_meets_every_event() {
        let mut table = String::new();
        let awake = states().into_iter().map(|state| Life { state, epoch: 7, asleep: false });
        let asleep = [false, true].map(|complete| Life { state: State::Ready { complete }, epoch: 7, asleep: true });
        for life in awake.chain(asleep) {
            for event in events(7) {
                let (after, effects) = step(life.clone(), event.clone());
                let stays = if after == life { "=".to_owned() } else { shown(&after) };
                writeln!(table, "{} + {event:?} -> {stays} {effects:?}", shown(&life)).expect("a string takes all");
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn an_answer_of_an_older_epoch_changes_nothing() {
        for state in states() {
            for event in events(6).into_iter().filter(|event| matches!(event, Event::Found(..))) {
                let life = Life { state: state.clone(), epoch: 7, asleep: false };
                assert_eq!(step(life.clone(), event), (life, vec![]));
            }
        }
    }

    fn rank(state: &State) -> u8 {
        match state {
            State::Queued { .. } => 0,
            State::Metadata => 1,
            State::Opening => 2,
            State::Probing => 3,
            State::Lined { .. } => 4,
            State::Warming(_) => 5,
            State::Ready { .. } => 6,
            State::Failed(_) => 7,
            State::Stopped | State::Expired => 8,
        }
    }

    proptest! {
        #[test]
        fn no_history_goes_back_or_releases_twice(
            picks in proptest::collection::vec((0usize..16, any::<bool>()), 0..60),
            restored in any::<bool>(),
        ) {
            let mut life = if restored { Life::of(State::Ready { complete: false }) } else { Life::born(1) };
            let mut released = 0;
            let mut deleted = false;
            for (pick, current) in picks {
                let epoch = if current { life.epoch } else { life.epoch.wrapping_sub(1) };
                let before = rank(&life.state);
                let event = events(epoch).swap_remove(pick);
                let (after, effects) = step(life, event);
                prop_assert!(rank(&after.state) >= before);
                // A slot is given back with each of the steps that can end its use.
                let left = effects.contains(&Effect::LeaveQueue);
                prop_assert_eq!(left, before < rank(&after.state) && rank(&after.state) >= 6 && before < 7);
                released += effects.iter().filter(|effect| **effect == Effect::Release).count();
                prop_assert!(released <= 1);
                deleted |= effects.contains(&Effect::Delete);
                prop_assert!(!after.state.is_over() || released == 1);
                prop_assert!(!matches!(after.state, State::Stopped | State::Expired) || deleted);
                life = after;
            }
        }
    }
}
