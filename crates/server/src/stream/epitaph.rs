//! What is left of a stream that is over: what can still be asked about it for a while, in as few pieces of memory as it can be.
//!
//! A busy evening ends hundreds of streams within the ten minutes for which each of them is remembered. Whole ones would be some twenty
//! small pieces of memory each, scattered between others that come and go, and keep the pages they lie in. It decides nothing.

use std::sync::Arc;
use std::time::Instant;

use balcony_media::magnet::Magnet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::actor::first_view;
use super::state::State;
use super::view::{Moving, Saved, StreamView, words};
use super::{Born, Options, Stream};
use crate::trust::ticket::TicketKey;
use crate::trust::{DeviceId, PersonId, StreamId};

/// One stream that is over.
pub(super) struct Epitaph {
    /// Whose it was.
    pub(super) person: PersonId,
    /// When it was started.
    pub(super) created_at: Timestamp,
    /// The end of its life, as it was told.
    expires_at: Timestamp,
    /// When it is forgotten.
    pub(super) until: Instant,
    /// What its tickets were made with.
    pub(super) key: Arc<TicketKey>,
    /// An [`Inscription`], as JSON.
    text: Box<[u8]>,
}

/// The rest.
#[derive(Serialize, Deserialize)]
struct Inscription {
    device: String,
    magnet: String,
    options: Options,
    /// Its time had come; else it was stopped.
    expired: bool,
    progress: u8,
    position: f64,
    title: Option<String>,
    file_index: Option<usize>,
    saved: Saved,
}

impl Epitaph {
    /// Of a stream that is over; `expires_at` is the end of its life as it was told.
    pub(super) fn of(stream: &Stream, expires_at: Timestamp, until: Instant) -> Self {
        let seen = stream.seen.borrow();
        let text = Inscription {
            device: stream.device().to_string(),
            magnet: stream.magnet.to_link(),
            options: stream.options.clone(),
            expired: seen.state == State::Expired,
            progress: seen.view.progress,
            position: stream.position(),
            title: seen.view.title.clone(),
            file_index: seen.view.file_index,
            saved: Saved::of(&seen.view),
        };
        let (person, created_at, key) = (stream.person.clone(), stream.created_at, stream.key.clone());
        Self { person, created_at, expires_at, until, key, text: serde_json::to_vec(&text).unwrap_or_default().into_boxed_slice() }
    }

    /// What it tells of the stream with this name: how it was born, where it stands, and what it shows.
    pub(super) fn read(&self, id: &StreamId) -> Option<(Born, State, StreamView)> {
        let text: Inscription = serde_json::from_slice(&self.text).ok()?;
        let born = Born {
            id: id.clone(),
            device: DeviceId::parse(&text.device)?,
            person: self.person.clone(),
            key: self.key.clone(),
            magnet: Magnet::parse(&text.magnet).ok()?,
            options: text.options,
            created_at: self.created_at,
            expires_at: self.expires_at,
            position: text.position,
        };
        let state = if text.expired { State::Expired } else { State::Stopped };
        let words = words(&state, &Moving::default());
        let mut view = first_view(&born);
        text.saved.put_into(&mut view);
        view.status = words.status;
        view.phase = words.phase;
        view.progress = text.progress;
        view.message = words.message;
        view.message_key = words.key;
        view.message_params = words.params;
        view.title = text.title;
        view.file_index = text.file_index;
        Some((born, state, view))
    }
}
