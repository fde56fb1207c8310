//! The devices of the house and the people whose they are: who holds a token, who is called what, who was revoked.
//!
//! All of it is in memory, so that no request waits for the disk; every change is on disk when it is answered. A device that is revoked
//! is gone for the very next request, and whatever is still being sent to it hears of it by its [`Holder`]'s tokens.
//! Which streams exist for whom is not known here.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{DeviceId, Holder, PersonId, Token, TokenHash};
use crate::lock::lock;
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
    /// A further token of the owner's own record, never on disk.
    of_this_run: Option<TokenHash>,
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
        lock(&self.seen)
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
    fn by_token(&self, hash: &TokenHash) -> Option<&Arc<Device>> {
        if self.of_this_run.as_ref() == Some(hash) { self.by_id.get(&DeviceId::owner()) } else { self.by_hash.get(hash) }
    }

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

    /// A person who was made for a device that did not come in.
    fn forget_if_alone(&mut self, person: &PersonId) {
        if *person != PersonId::owner() && !self.by_id.values().any(|device| device.holder.person == *person) {
            self.people.remove(person);
        }
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
        // From here on it is known how much time has passed.
        let _ = Now::present();
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

    /// A new token of the owner's own record, for the window of the program that runs this server: kept in memory only, it ends with
    /// this run, and with the next one that is made. The owner's other token stays good.
    pub fn token_of_this_run(&self) -> Token {
        let token = Token::random();
        self.write().of_this_run = Some(token.hash());
        token
    }

    /// Whose token this is, asked from this address just now. From memory, in a time that does not grow with the number of devices.
    pub fn who(&self, token: &Token, from: IpAddr) -> Option<Holder> {
        self.who_at(token, from, Now::present())
    }

    fn who_at(&self, token: &Token, from: IpAddr, now: impl Into<Now>) -> Option<Holder> {
        let (known, now) = (self.read(), now.into());
        let device = known.by_token(&token.hash()).filter(|device| !device.is_idle(now.vouched))?;
        *device.seen() = Seen { at: Some(now.told), from: Some(from.to_canonical()), unwritten: true };
        Some(device.holder.clone())
    }

    /// The device with this id, as long as it is one: for tickets.
    pub fn holder(&self, id: &DeviceId) -> Option<Holder> {
        self.holder_at(id, Now::present().vouched)
    }

    fn holder_at(&self, id: &DeviceId, now: Timestamp) -> Option<Holder> {
        self.read().by_id.get(id).filter(|device| !device.is_idle(now)).map(|device| device.holder.clone())
    }

    /// What a device is called, as far as `viewer` may know of it: the owner of all, others of their own person's.
    pub fn name_for(&self, id: &DeviceId, viewer: &Holder) -> Option<String> {
        let known = self.read();
        known.by_id.get(id).filter(|device| viewer.sees(&device.holder.person)).map(|device| device.name.clone())
    }

    /// What a person is called.
    pub fn person_name(&self, id: &PersonId) -> Option<String> {
        self.read().people.get(id).map(|person| person.name.clone())
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
        let written = write.await;
        let mut known = self.write();
        if let Err(error) = written {
            known.forget_if_alone(&device.holder.person);
            return Err(error);
        }
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
                Some(meant) if device.is_owner() => {
                    known.person(meant).filter(|person| *person == device.holder.person).ok_or(ChangeError::Owner)?
                }
                Some(meant) => known.person(meant).unwrap_or_else(|| known.new_person(meant, now())),
            };
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
        let (known, now) = (self.read(), Now::present().vouched);
        let device = known.by_id.get(id).filter(|device| for_whom.sees(&device.holder.person) && !device.is_idle(now))?;
        Some(known.view(device, Some(&for_whom.device)))
    }

    /// The devices that exist for this one: its own person's, and for the owner all. The oldest first.
    pub fn list(&self, for_whom: &Holder) -> Vec<DeviceView> {
        let (known, now) = (self.read(), Now::present().vouched);
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
                self.drop_idle(Now::present().vouched);
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

/// What time it is.
#[derive(Debug, Clone, Copy)]
struct Now {
    /// By the wall's clock.
    told: Timestamp,
    /// The same, as far as the time that has passed in this run vouches for it: a clock that jumps ahead makes nobody idle, and nobody is
    /// forgotten for it.
    vouched: Timestamp,
}

impl Now {
    fn present() -> Self {
        static BEGAN: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (now(), Instant::now()));
        let ((at, began), told) = (*BEGAN, now());
        let passed = SignedDuration::try_from(began.elapsed()).ok().and_then(|passed| at.checked_add(passed).ok());
        Self { told, vouched: passed.map_or(told, |passed| passed.min(told)) }
    }
}

impl From<Timestamp> for Now {
    fn from(now: Timestamp) -> Self {
        Self { told: now, vouched: now }
    }
}

/// In whole milliseconds, as the store keeps it.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    struct House {
        folder: tempfile::TempDir,
        admin: Token,
    }

    impl House {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("folder"), admin: Token::random() }
        }

        /// As after a start.
        async fn open(&self) -> Arc<Devices> {
            let store = Store::open(&self.folder.path().join("db")).expect("opened");
            Devices::open(Arc::new(store), &self.admin).await.expect("read")
        }
    }

    fn phone(name: &str, person: Option<&str>) -> NewDevice {
        let (name, platform) = (name.to_owned(), "ios".to_owned());
        NewDevice { name, platform, person: person.map(str::to_owned), admin: false, from: HERE }
    }

    fn days(from: Timestamp, days: i64) -> Timestamp {
        from + SignedDuration::from_hours(24 * days)
    }

    #[tokio::test]
    async fn a_device_comes_in_stays_over_a_restart_and_is_locked_out_for_ever() {
        let house = House::new();
        let devices = house.open().await;
        let mut events = devices.events();
        let (view, token) = devices.pair(phone("Anna's phone", None)).await.expect("paired");
        assert_eq!((view.name.as_str(), view.person.as_str(), view.admin), ("Anna's phone", "Anna's phone", false));
        assert!(devices.who(&Token::random(), HERE).is_none());
        let before = devices.who(&token, HERE).expect("it is in");
        assert_eq!((&before.device, &before.person, before.admin), (&view.id, &view.person_id, false));
        let owner = devices.who(&house.admin, HERE).expect("the owner");
        assert_eq!((owner.device.clone(), owner.person.clone(), owner.admin), (DeviceId::owner(), PersonId::owner(), true));
        drop(devices);

        let devices = house.open().await;
        let holder = devices.who(&token, HERE).expect("it still is");
        assert_eq!((&holder.device, &holder.person), (&view.id, &view.person_id));
        let lists = (devices.list(&holder).len(), devices.list(&devices.who(&house.admin, HERE).expect("the owner")).len());
        assert_eq!(lists, (1, 2));
        assert!(devices.list(&holder)[0].current);
        assert!(devices.revoke(&view.id).await.expect("written"));
        assert!(holder.gone.is_cancelled() && holder.moved.is_cancelled());
        assert!(devices.who(&token, HERE).is_none() && devices.holder(&view.id).is_none() && devices.life(&view.id).is_cancelled());
        assert!(!devices.revoke(&view.id).await.expect("gone already"));
        assert!(!devices.revoke(&DeviceId::owner()).await.expect("never"));
        assert!(devices.who(&house.admin, HERE).is_some());
        drop(devices);
        assert!(house.open().await.who(&token, HERE).is_none());
        assert_eq!(events.try_recv().expect("heard"), DeviceEvent::Paired(view));
    }

    #[tokio::test]
    async fn the_token_of_a_run_is_the_owners_and_ends_with_the_run() {
        let house = House::new();
        let devices = house.open().await;
        let before = devices.token_of_this_run();
        let token = devices.token_of_this_run();
        assert_ne!(token.hash(), house.admin.hash());
        assert!(devices.who(&before, HERE).is_none(), "there is one at a time");
        let renamed = Change { name: Some("Study".into()), person: None };
        devices.change(&DeviceId::owner(), renamed).await.expect("renamed");
        let owner = devices.who(&token, HERE).expect("the owner, renamed or not");
        assert_eq!((&owner.device, &owner.person, owner.admin), (&DeviceId::owner(), &PersonId::owner(), true));
        assert!(devices.who(&house.admin, HERE).is_some());
        assert_eq!(devices.list(&owner).len(), 1, "it is no device of its own");
        devices.write_down().await.expect("written");
        drop(devices);
        let bytes: Vec<u8> = std::fs::read_dir(house.folder.path())
            .expect("folder")
            .flat_map(|entry| std::fs::read(entry.expect("entry").path()).expect("read"))
            .collect();
        let hash = *token.hash().as_bytes();
        assert!(!bytes.windows(32).any(|window| window == hash), "nothing of it is on the disk");
        assert!(!String::from_utf8_lossy(&bytes).contains(token.reveal()));
        let devices = house.open().await;
        assert!(devices.who(&token, HERE).is_none() && devices.who(&house.admin, HERE).is_some());
    }

    #[tokio::test]
    async fn an_offer_names_a_person_by_id_or_name_or_makes_a_new_one() {
        let house = House::new();
        let devices = house.open().await;
        let (first, _) = devices.pair(phone("Phone", Some("Anna"))).await.expect("paired");
        let (second, _) = devices.pair(phone("Tablet", Some(" aNNA "))).await.expect("paired");
        let (third, _) = devices.pair(phone("TV", Some(first.person_id.as_str()))).await.expect("paired");
        assert!([&second, &third].iter().all(|view| view.person_id == first.person_id && view.person == "Anna"));
        // Two phones of the same name are not one person's.
        let (one, _) = devices.pair(phone("iPhone", None)).await.expect("paired");
        let (two, _) = devices.pair(phone("iPhone", None)).await.expect("paired");
        assert_ne!(one.person_id, two.person_id);
        let owners = devices.pair(NewDevice { admin: true, ..phone("Browser", Some("Anna")) }).await.expect("paired").0;
        assert_eq!((owners.person_id, owners.admin), (PersonId::owner(), true));
        let of_owner = devices.pair(phone("Own phone", Some("owner"))).await.expect("paired").0;
        assert_eq!((of_owner.person_id, of_owner.admin), (PersonId::owner(), false));
        let told = devices.people();
        assert_eq!(told.iter().map(|person| (person.name.as_str(), person.devices)).collect::<Vec<_>>().len(), 4);
        assert_eq!(told.iter().find(|person| person.id == first.person_id).map(|person| person.devices), Some(3));
        drop(devices);
        assert_eq!(house.open().await.people(), told);
    }

    #[tokio::test]
    async fn a_device_changes_its_name_and_its_person() {
        let house = House::new();
        let devices = house.open().await;
        let (phone_, token) = devices.pair(phone("Phone", Some("Anna"))).await.expect("paired");
        let (_, tablet) = devices.pair(phone("Tablet", Some("Bert"))).await.expect("paired");
        let before = devices.who(&token, HERE).expect("in");
        let renamed = Change { name: Some("Old phone".into()), person: None };
        assert_eq!(devices.change(&phone_.id, renamed).await.expect("renamed").name, "Old phone");
        assert!(!before.moved.is_cancelled());
        let given = Change { name: None, person: Some("bert".into()) };
        let after = devices.change(&phone_.id, given.clone()).await.expect("given");
        assert_eq!((after.name.as_str(), after.person.as_str()), ("Old phone", "Bert"));
        assert!(before.moved.is_cancelled() && !before.gone.is_cancelled());
        let now = devices.who(&token, HERE).expect("still in");
        assert_eq!(now.person, devices.who(&tablet, HERE).expect("in").person);
        assert!(!now.moved.is_cancelled());
        // The same token of life: revoked, both hear it.
        devices.revoke(&phone_.id).await.expect("written");
        assert!(before.gone.is_cancelled() && now.gone.is_cancelled() && now.moved.is_cancelled());
        assert!(matches!(devices.change(&phone_.id, given.clone()).await, Err(ChangeError::Unknown)));
        assert!(matches!(devices.change(&DeviceId::owner(), given).await, Err(ChangeError::Owner)));
        let to_nobody = Change { name: None, person: Some("Nobody".into()) };
        assert!(matches!(devices.change(&DeviceId::owner(), to_nobody).await, Err(ChangeError::Owner)));
        assert!(!devices.people().iter().any(|person| person.name == "Nobody"));
        // Given to somebody else, a device of the owner's has no more to say than any.
        let (browser, _) = devices.pair(NewDevice { admin: true, ..phone("Browser", None) }).await.expect("paired");
        let given = devices.change(&browser.id, Change { name: None, person: Some("Carl".into()) }).await.expect("given");
        assert!(!given.admin);
        let back = devices.change(&browser.id, Change { name: None, person: Some("owner".into()) }).await.expect("given back");
        assert!(!back.admin);
        let carl = devices.people().into_iter().find(|person| person.name == "Carl").expect("a new person");
        assert_eq!(devices.rename_person(&carl.id, "Karl").await.expect("written").expect("there").name, "Karl");
        assert!(devices.rename_person(&PersonId::random(), "Nobody").await.expect("written").is_none());
        drop(devices);
        let devices = house.open().await;
        assert!(!devices.list(&devices.who(&house.admin, HERE).expect("the owner")).iter().any(|device| device.id == phone_.id));
    }

    #[tokio::test]
    async fn who_is_not_seen_for_180_days_is_gone() {
        let house = House::new();
        let devices = house.open().await;
        let (quiet, quiet_token) = devices.pair(phone("Quiet", None)).await.expect("paired");
        let (_, busy_token) = devices.pair(phone("Busy", None)).await.expect("paired");
        let start = now();
        assert!(devices.who_at(&busy_token, HERE, days(start, 100)).is_some());
        let life = devices.life(&quiet.id);
        assert!(devices.holder_at(&quiet.id, days(start, 179)).is_some());
        let late = days(start, 181);
        assert!(devices.who_at(&quiet_token, HERE, late).is_none() && devices.holder_at(&quiet.id, late).is_none());
        // A clock that was wrong for a while has done no harm yet.
        assert!(devices.holder_at(&quiet.id, days(start, 1)).is_some());
        devices.drop_idle(late);
        assert!(life.is_cancelled() && devices.holder(&quiet.id).is_none());
        assert!(devices.who_at(&busy_token, HERE, late).is_some() && devices.who_at(&house.admin, HERE, days(start, 9999)).is_some());
        devices.write_down().await.expect("written");
        drop(devices);
        let devices = house.open().await;
        assert!(devices.who(&quiet_token, HERE).is_none() && devices.who_at(&busy_token, HERE, days(start, 200)).is_some());
        assert!(!devices.people().iter().any(|person| person.name == "Quiet"), "nothing of this person is left");
    }

    #[tokio::test]
    async fn who_was_seen_is_written_now_and_then() {
        let house = House::new();
        let devices = house.open().await;
        let (view, token) = devices.pair(phone("Phone", None)).await.expect("paired");
        let written = async || {
            let rows = devices.store.devices().await.expect("read");
            rows.into_iter().find(|row| row.id == view.id.as_str()).map(|row| (row.last_seen_at, row.last_address)).expect("there")
        };
        let paired = written().await;
        assert_eq!(paired.1, Some(HERE));
        let seen = days(now(), 1);
        let from: IpAddr = "::ffff:192.168.1.9".parse().expect("address");
        for _ in 0..1000 {
            devices.who_at(&token, from, seen).expect("in");
        }
        assert_eq!(written().await, paired, "asking writes nothing");
        devices.write_down().await.expect("written");
        assert_eq!(written().await, (Some(seen), Some(from.to_canonical())));
        // Nothing is written twice.
        let unseen: Vec<_> = devices.read().by_id.values().filter(|device| device.seen().unwritten).cloned().collect();
        assert!(unseen.is_empty());
    }

    /// Whatever happens in whatever order: those who were paired and not revoked are in, as whom they were told last; nobody else is.
    #[test]
    fn any_history_leaves_in_who_should_be_in() {
        use proptest::prelude::*;
        let step = (0_u8..6, any::<prop::sample::Index>(), 0_u8..4);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() });
        runner
            .run(&prop::collection::vec(step, 1..25), |steps| {
                runtime.block_on(async {
                    let house = House::new();
                    let mut devices = house.open().await;
                    let mut inside: Vec<(Token, DeviceId, String)> = Vec::new();
                    let mut outside: Vec<Token> = Vec::new();
                    for (what, which, whose) in steps {
                        let person = format!("person {whose}");
                        match what {
                            0 | 1 => {
                                let (view, token) = devices.pair(phone("x", Some(&person))).await.expect("paired");
                                inside.push((token, view.id, person));
                            }
                            2 if !inside.is_empty() => {
                                let (token, id, _) = inside.swap_remove(which.index(inside.len()));
                                assert!(devices.revoke(&id).await.expect("written"));
                                outside.push(token);
                            }
                            3 if !inside.is_empty() => {
                                let at = which.index(inside.len());
                                let change = Change { name: None, person: Some(person.clone()) };
                                devices.change(&inside[at].1, change).await.expect("given");
                                inside[at].2 = person;
                            }
                            4 => devices.write_down().await.expect("written"),
                            _ => {
                                drop(devices);
                                devices = house.open().await;
                            }
                        }
                        let names: HashMap<PersonId, String> =
                            devices.people().into_iter().map(|person| (person.id, person.name)).collect();
                        for (token, id, person) in &inside {
                            let holder = devices.who(token, HERE).expect("in");
                            assert_eq!((&holder.device, names.get(&holder.person)), (id, Some(person)));
                            assert!(!holder.gone.is_cancelled() && !holder.moved.is_cancelled() && !holder.admin);
                        }
                        assert!(outside.iter().all(|token| devices.who(token, HERE).is_none()));
                    }
                });
                Ok(())
            })
            .expect("no history");
    }
}
