//! The devices of the house and the people whose they are: who holds a token, who is called what, who was revoked.
//!
//! All of it is in memory, so that no request waits for the disk; every change is on disk when it is answered. A device that is revoked
//! is gone for the very next request, and whatever is still being sent to it hears of it by its [`Holder`]'s tokens.
//! Which streams exist for whom is not known here.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{DeviceId, Holder, PersonId, Token, TokenHash};
use crate::store::{DeviceRow, PersonRow, Store, StoreError};

/// A device that asked for nothing for so long is gone.
pub const IDLE: SignedDuration = SignedDuration::from_hours(180 * 24);
/// How often last-seen times are written.
const WRITING_PACE: Duration = Duration::from_secs(60);
/// How long after the start the first idle device is dropped: a machine without a clock of its own has asked for the time by then.
const FIRST_DROP: Duration = Duration::from_secs(600);
/// Events that one slow listener may be behind.
const EVENTS: usize = 256;

/// A device that comes in.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// For people; checked by [`super::name_of`].
    pub name: String,
    /// What it says it is.
    pub platform: String,
    /// Whose it is: an id, or a name in any case; a name that is unknown makes a new person. `None` makes one with the device's name.
    pub person: Option<String>,
    /// Whether it has the owner's scope; it belongs to the owner then.
    pub admin: bool,
    /// From where it came in.
    pub from: IpAddr,
}

/// What is to change of a device.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Its name; checked by [`super::name_of`].
    pub name: Option<String>,
    /// Whose it is from now on: an id, or a name in any case; a name that is unknown makes a new person.
    pub person: Option<String>,
}

/// Why a device did not change.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such device.
    #[error("there is no such device")]
    Unknown,
    /// The owner's own record stays with the owner.
    #[error("the owner's own record stays as it is")]
    Owner,
    /// It counts already, but is not on the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A device as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Device)]
pub struct DeviceView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: DeviceId,
    /// For people.
    pub name: String,
    /// Name of the person whose it is.
    pub person: String,
    /// Id of that person.
    #[schema(value_type = String)]
    pub person_id: PersonId,
    /// What it says it is.
    pub platform: String,
    /// Whether it has the owner's scope.
    pub admin: bool,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; missing where it never asked for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
    /// From where it last asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_address: Option<String>,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// A person as the API shows one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Person)]
pub struct PersonView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: PersonId,
    /// For people.
    pub name: String,
    /// How many devices are this person's.
    pub devices: usize,
    /// RFC 3339.
    pub created_at: String,
}

/// What happened to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It came in.
    Paired(DeviceView),
    /// It has another name or belongs to someone else.
    Changed(DeviceView),
    /// It was revoked, or was idle for too long.
    Revoked(DeviceId),
}

/// All devices and people.
#[derive(Debug)]
pub struct Devices {
    store: Arc<Store>,
    known: RwLock<Known>,
    events: broadcast::Sender<DeviceEvent>,
}

#[derive(Debug, Default)]
struct Known {
    by_hash: HashMap<TokenHash, Arc<Device>>,
    by_id: HashMap<DeviceId, Arc<Device>>,
    people: HashMap<PersonId, Person>,
    /// Revoked, and not yet gone from the disk.
    to_delete: HashSet<DeviceId>,
}

#[derive(Debug, Clone)]
struct Person {
    name: String,
    created_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Device {
    holder: Holder,
    hash: TokenHash,
    name: String,
    platform: String,
    created_at: Timestamp,
    /// Outlives changes of the rest.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Option<Timestamp>,
    from: Option<IpAddr>,
    unwritten: bool,
}

impl Device {
    fn id(&self) -> &DeviceId {
        &self.holder.device
    }

    fn is_owner(&self) -> bool {
        *self.id() == DeviceId::owner()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it asked for nothing for so long that it is gone. The owner's own record never is.
    fn is_idle(&self, now: Timestamp) -> bool {
        let last = self.seen().at.unwrap_or(self.created_at).max(self.created_at);
        !self.is_owner() && now.duration_since(last) > IDLE
    }

    fn row(&self) -> DeviceRow {
        let seen = *self.seen();
        DeviceRow {
            id: self.id().to_string(),
            person: self.holder.person.to_string(),
            name: self.name.clone(),
            platform: self.platform.clone(),
            token_hash: (!self.is_owner()).then_some(*self.hash.as_bytes()),
            admin: self.holder.admin,
            created_at: self.created_at,
            last_seen_at: seen.at,
            last_address: seen.from,
        }
    }

    fn from_row(row: &DeviceRow, admin: TokenHash) -> Option<Self> {
        let (device, person) = (DeviceId::parse(&row.id)?, PersonId::parse(&row.person)?);
        let hash = if device == DeviceId::owner() { admin } else { TokenHash::from_bytes(row.token_hash?) };
        let gone = CancellationToken::new();
        let holder = Holder { device, person, admin: row.admin, moved: gone.child_token(), gone };
        let seen = Seen { at: row.last_seen_at, from: row.last_address, unwritten: false };
        let (name, platform) = (row.name.clone(), row.platform.clone());
        Some(Self { holder, hash, name, platform, created_at: row.created_at, seen: Arc::new(Mutex::new(seen)) })
    }
}

impl Known {
    fn put(&mut self, device: Device) {
        let device = Arc::new(device);
        self.by_hash.insert(device.hash, device.clone());
        self.by_id.insert(device.id().clone(), device);
    }

    fn take(&mut self, id: &DeviceId) -> Option<Arc<Device>> {
        let device = self.by_id.remove(id)?;
        self.by_hash.remove(&device.hash);
        self.to_delete.insert(id.clone());
        Some(device)
    }

    /// The person that an id or a name means. The oldest of those who share a name.
    fn person(&self, meant: &str) -> Option<PersonId> {
        if let Some(id) = PersonId::parse(meant).filter(|id| self.people.contains_key(id)) {
            return Some(id);
        }
        let meant = meant.trim().to_lowercase();
        let same = self.people.iter().filter(|(_, person)| person.name.to_lowercase() == meant);
        same.min_by(|a, b| (a.1.created_at, a.0).cmp(&(b.1.created_at, b.0))).map(|(id, _)| id.clone())
    }

    fn new_person(&mut self, name: &str, now: Timestamp) -> PersonId {
        let id = PersonId::random();
        self.people.insert(id.clone(), Person { name: name.to_owned(), created_at: now });
        id
    }

    fn person_row(&self, id: &PersonId, now: Timestamp) -> PersonRow {
        let person = self.people.get(id);
        PersonRow {
            id: id.to_string(),
            name: person.map(|person| person.name.clone()).unwrap_or_default(),
            created_at: person.map_or(now, |person| person.created_at),
        }
    }

    fn view(&self, device: &Device, for_whom: Option<&DeviceId>) -> DeviceView {
        let seen = *device.seen();
        DeviceView {
            id: device.id().clone(),
            name: device.name.clone(),
            person: self.people.get(&device.holder.person).map(|person| person.name.clone()).unwrap_or_default(),
            person_id: device.holder.person.clone(),
            platform: device.platform.clone(),
            admin: device.holder.admin,
            created_at: device.created_at.to_string(),
            last_seen_at: seen.at.map(|at| at.to_string()),
            last_address: seen.from.map(|from| from.to_string()),
            current: for_whom == Some(device.id()),
        }
    }
}

impl Devices {
    /// Reads them all. `admin` is the owner's own token.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Arc<Store>, admin: &Token) -> Result<Arc<Self>, StoreError> {
        let (people, devices) = (store.people(), store.devices());
        let mut known = Known::default();
        for row in people.await? {
            let Some(id) = PersonId::parse(&row.id) else { continue };
            known.people.insert(id, Person { name: row.name, created_at: row.created_at });
        }
        for row in devices.await? {
            match Device::from_row(&row, admin.hash()) {
                Some(device) => known.put(device),
                None => tracing::warn!(id = row.id, "a device in the database has no token; it stays locked out"),
            }
        }
        Ok(Arc::new(Self { store, known: RwLock::new(known), events: broadcast::Sender::new(EVENTS) }))
    }

    /// Whose token this is, asked from this address just now. From memory, in a time that does not grow with the number of devices.
    pub fn who(&self, token: &Token, from: IpAddr) -> Option<Holder> {
        self.who_at(token, from, now())
    }

    fn who_at(&self, token: &Token, from: IpAddr, now: Timestamp) -> Option<Holder> {
        let known = self.read();
        let device = known.by_hash.get(&token.hash()).filter(|device| !device.is_idle(now))?;
        *device.seen() = Seen { at: Some(now), from: Some(from.to_canonical()), unwritten: true };
        Some(device.holder.clone())
    }

    /// The device with this id, as long as it is one: for tickets.
    pub fn holder(&self, id: &DeviceId) -> Option<Holder> {
        let now = now();
        self.read().by_id.get(id).filter(|device| !device.is_idle(now)).map(|device| device.holder.clone())
    }

    /// Cancelled when this device is revoked; it is already where there is no such device.
    pub fn life(&self, id: &DeviceId) -> CancellationToken {
        self.read().by_id.get(id).map_or_else(
            || {
                let over = CancellationToken::new();
                over.cancel();
                over
            },
            |device| device.holder.gone.clone(),
        )
    }

    /// Takes a device in. Its token is told here and never again.
    ///
    /// # Errors
    /// When it cannot be written down; then it is not in.
    pub async fn pair(&self, device: NewDevice) -> Result<(DeviceView, Token), StoreError> {
        let (token, now) = (Token::random(), now());
        let gone = CancellationToken::new();
        let (device, write) = {
            let mut known = self.write();
            let person = match &device.person {
                _ if device.admin => PersonId::owner(),
                Some(meant) => known.person(meant).unwrap_or_else(|| known.new_person(meant, now)),
                None => known.new_person(&device.name, now),
            };
            let row = known.person_row(&person, now);
            let holder = Holder { device: DeviceId::random(), person, admin: device.admin, moved: gone.child_token(), gone };
            let seen = Seen { at: Some(now), from: Some(device.from.to_canonical()), unwritten: false };
            let (name, platform) = (device.name, device.platform);
            let device = Device { holder, hash: token.hash(), name, platform, created_at: now, seen: Arc::new(Mutex::new(seen)) };
            let write = self.store.add_device(row, device.row());
            (device, write)
        };
        // Nobody has the token yet: it opens once it is on the disk.
        write.await?;
        let mut known = self.write();
        let view = known.view(&device, None);
        known.put(device);
        self.events.send(DeviceEvent::Paired(view.clone())).ok();
        Ok((view, token))
    }

    /// Locks a device out, at once and for ever. Answers whether it was in; the owner's own record cannot be revoked.
    ///
    /// # Errors
    /// When it cannot be written down: it is out all the same, and written as soon as that works.
    pub async fn revoke(&self, id: &DeviceId) -> Result<bool, StoreError> {
        if *id == DeviceId::owner() {
            return Ok(false);
        }
        let write = {
            let mut known = self.write();
            let Some(device) = known.take(id) else { return Ok(false) };
            device.holder.gone.cancel();
            self.store.delete_devices(vec![id.to_string()])
        };
        self.events.send(DeviceEvent::Revoked(id.clone())).ok();
        write.await?;
        self.write().to_delete.remove(id);
        Ok(true)
    }

    /// Gives a device another name, or to another person. Given away, it loses the owner's scope; what it started stays where it was.
    ///
    /// # Errors
    /// When there is no such device, or it is the owner's own and would change hands, or it cannot be written down (it counts all the same).
    pub async fn change(&self, id: &DeviceId, change: Change) -> Result<DeviceView, ChangeError> {
        let (view, write) = {
            let mut known = self.write();
            let mut device = known.by_id.get(id).map(|device| Device::clone(device)).ok_or(ChangeError::Unknown)?;
            let person = match &change.person {
                None => device.holder.person.clone(),
                Some(meant) => known.person(meant).unwrap_or_else(|| known.new_person(meant, now())),
            };
            if device.is_owner() && person != device.holder.person {
                return Err(ChangeError::Owner);
            }
            let before = device.holder.clone();
            if person != before.person {
                device.holder.admin = before.admin && person == PersonId::owner();
                device.holder.moved = before.gone.child_token();
                device.holder.person = person;
            }
            device.name = change.name.unwrap_or(device.name);
            // Written with the next batch if it cannot be written now.
            device.seen().unwritten = true;
            let row = known.person_row(&device.holder.person, now());
            let write = self.store.change_devices(Some(row), vec![device.row()]);
            let view = known.view(&device, None);
            let moved = device.holder.person != before.person;
            known.put(device);
            // Last: whoever hears it finds the device where it is now.
            if moved {
                before.moved.cancel();
            }
            (view, write)
        };
        self.events.send(DeviceEvent::Changed(view.clone())).ok();
        write.await?;
        Ok(view)
    }

    /// One device, if it exists for this one.
    pub fn get(&self, id: &DeviceId, for_whom: &Holder) -> Option<DeviceView> {
        let (known, now) = (self.read(), now());
        let device = known.by_id.get(id).filter(|device| for_whom.sees(&device.holder.person) && !device.is_idle(now))?;
        Some(known.view(device, Some(&for_whom.device)))
    }

    /// The devices that exist for this one: its own person's, and for the owner all. The oldest first.
    pub fn list(&self, for_whom: &Holder) -> Vec<DeviceView> {
        let (known, now) = (self.read(), now());
        let seen = known.by_id.values().filter(|device| for_whom.sees(&device.holder.person) && !device.is_idle(now));
        let mut list: Vec<_> = seen.collect();
        list.sort_by(|a, b| (a.created_at, a.id()).cmp(&(b.created_at, b.id())));
        list.into_iter().map(|device| known.view(device, Some(&for_whom.device))).collect()
    }

    /// All people, the oldest first.
    pub fn people(&self) -> Vec<PersonView> {
        let known = self.read();
        let mut count: HashMap<&PersonId, usize> = HashMap::new();
        known.by_id.values().for_each(|device| *count.entry(&device.holder.person).or_default() += 1);
        let mut people: Vec<_> = known.people.iter().collect();
        people.sort_by(|a, b| (a.1.created_at, a.0).cmp(&(b.1.created_at, b.0)));
        let view = |(id, person): (&PersonId, &Person)| PersonView {
            id: id.clone(),
            name: person.name.clone(),
            devices: count.get(id).copied().unwrap_or(0),
            created_at: person.created_at.to_string(),
        };
        people.into_iter().map(view).collect()
    }

    /// Gives a person another name; `None` where there is no such person.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub async fn rename_person(&self, id: &PersonId, name: &str) -> Result<Option<PersonView>, StoreError> {
        let write = {
            let mut known = self.write();
            let Some(person) = known.people.get_mut(id) else { return Ok(None) };
            name.clone_into(&mut person.name);
            self.store.rename_person(id.to_string(), name.to_owned())
        };
        write.await?;
        Ok(self.people().into_iter().find(|person| person.id == *id))
    }

    /// What happens to devices from now on.
    pub fn events(&self) -> broadcast::Receiver<DeviceEvent> {
        self.events.subscribe()
    }

    /// Writes once a minute who was seen, and drops devices that were idle for too long, until it is told to stop.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let started = tokio::time::Instant::now();
        let mut ended = false;
        while !ended {
            ended = tokio::time::timeout(WRITING_PACE, stop.cancelled()).await.is_ok();
            if started.elapsed() >= FIRST_DROP {
                self.drop_idle(now());
            }
            if let Err(error) = self.write_down().await {
                tracing::warn!(%error, "who was seen could not be written down");
            }
        }
    }

    /// Everything of devices that is not on the disk yet.
    async fn write_down(&self) -> Result<(), StoreError> {
        let (gone, seen) = {
            let known = self.read();
            let unwritten = known.by_id.values().filter(|device| std::mem::take(&mut device.seen().unwritten));
            (known.to_delete.clone(), unwritten.cloned().collect::<Vec<_>>())
        };
        if !gone.is_empty() {
            self.store.delete_devices(gone.iter().map(ToString::to_string).collect()).await?;
            self.write().to_delete.retain(|id| !gone.contains(id));
        }
        if seen.is_empty() {
            return Ok(());
        }
        // The rows as they are now, sent under the lock: a change that comes later is written later.
        let write = {
            let known = self.read();
            let rows = seen.iter().filter_map(|device| known.by_id.get(device.id())).map(|device| device.row()).collect();
            self.store.change_devices(None, rows)
        };
        let written = write.await;
        if written.is_err() {
            seen.iter().for_each(|device| device.seen().unwritten = true);
        }
        written
    }

    fn drop_idle(&self, now: Timestamp) {
        let mut known = self.write();
        let idle: Vec<_> = known.by_id.values().filter(|device| device.is_idle(now)).map(|device| device.id().clone()).collect();
        for id in idle {
            if let Some(device) = known.take(&id) {
                tracing::info!(device = %id, "a device was not seen for 180 days and is forgotten");
                device.holder.gone.cancel();
                self.events.send(DeviceEvent::Revoked(id)).ok();
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In whole milliseconds, as the store keeps it.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default()
}
