//! Which streams there are, and what is left of those that are over, found by id, by person and by torrent without walking over the
//! others. It decides nothing about them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use balcony_media::magnet::InfoHash;
use jiff::Timestamp;

use super::Stream;
use super::epitaph::Epitaph;
use crate::trust::{PersonId, StreamId};

/// The streams of a server.
#[derive(Default)]
pub(super) struct Shelf {
    by_id: HashMap<StreamId, Arc<Stream>>,
    /// The oldest first.
    by_person: HashMap<PersonId, BTreeMap<(Timestamp, StreamId), Arc<Stream>>>,
    by_torrent: HashMap<InfoHash, Vec<Arc<Stream>>>,
    /// Those that are over, in no order.
    over: HashMap<StreamId, Epitaph>,
}

impl Shelf {
    pub(super) fn put(&mut self, stream: Arc<Stream>) {
        let place = (stream.created_at, stream.id.clone());
        self.by_person.entry(stream.person.clone()).or_default().insert(place, stream.clone());
        self.by_torrent.entry(stream.magnet.info_hash).or_default().push(stream.clone());
        self.by_id.insert(stream.id.clone(), stream);
    }

    pub(super) fn take(&mut self, id: &StreamId) {
        let Some(stream) = self.by_id.remove(id) else { return };
        if let Some(own) = self.by_person.get_mut(&stream.person) {
            own.remove(&(stream.created_at, stream.id.clone()));
            if own.is_empty() {
                self.by_person.remove(&stream.person);
            }
        }
        if let Some(same) = self.by_torrent.get_mut(&stream.magnet.info_hash) {
            same.retain(|other| other.id != *id);
            if same.is_empty() {
                self.by_torrent.remove(&stream.magnet.info_hash);
            }
        }
    }

    /// From now on there is only this of it.
    pub(super) fn bury(&mut self, id: StreamId, epitaph: Epitaph) {
        self.take(&id);
        self.over.insert(id, epitaph);
    }

    pub(super) fn epitaph(&self, id: &StreamId) -> Option<&Epitaph> {
        self.over.get(id)
    }

    /// In no order.
    pub(super) fn epitaphs(&self) -> impl ExactSizeIterator<Item = (&StreamId, &Epitaph)> {
        self.over.iter()
    }

    /// Takes away those that are remembered no longer.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<StreamId> {
        let forgotten = self.over.extract_if(|_, epitaph| epitaph.until <= now).map(|(id, _)| id).collect();
        if self.over.len() * 4 < self.over.capacity() {
            self.over.shrink_to_fit();
        }
        forgotten
    }

    pub(super) fn get(&self, id: &StreamId) -> Option<&Arc<Stream>> {
        self.by_id.get(id)
    }

    /// In no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.by_id.values()
    }

    /// The oldest first.
    pub(super) fn of_person(&self, person: &PersonId) -> impl Iterator<Item = &Arc<Stream>> {
        self.by_person.get(person).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn of_torrent(&self, info_hash: &InfoHash) -> impl Iterator<Item = &Arc<Stream>> {
        self.by_torrent.get(info_hash).into_iter().flatten()
    }
}
