//! Tickets: the part of a media address that says which device may read which stream, and that nobody can forge.
//!
//! A ticket is base64url (no padding) of `MAC (16 bytes) | number of the key (2, big-endian) | length of the device id (1) | device id |
//! stream id`, where the MAC is keyed BLAKE3 over the rest. It says nothing about whether the device and the stream still exist, or
//! whether the one may see the other: who serves media asks that.
//!
//! Keys grow old: a new one is made every week, for the streams that are started from then on. A stream keeps its key for life, so that
//! its addresses never change, and a key that no stream has is deleted.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq;

use super::{DeviceId, LONGEST_ID, StreamId, random, read_or_create, write_private};

const MAC: usize = 16;
const NUMBER: usize = 2;
const LONGEST: usize = (MAC + NUMBER + 1 + 2 * LONGEST_ID) * 4 / 3 + 1;
/// How long new streams get the same key.
const YOUNG: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A key of tickets.
#[derive(Clone)]
pub struct TicketKey {
    number: u16,
    born: Timestamp,
    secret: [u8; 32],
}

impl TicketKey {
    fn new(number: u16, born: Timestamp) -> Self {
        Self { number, born, secret: random() }
    }

    /// Its number, which stands in its tickets. Never given twice by one file.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.number, self.born, HEXLOWER_PERMISSIVE.encode(&self.secret))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (number, born, secret) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
        Some(Self { number, born, secret: secret_of(secret)? })
    }
}

fn secret_of(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey({}, …)", self.number)
    }
}

/// The keys of a data folder: the file `ticket-key` (mode 0600), a line `number birth secret` for each.
#[derive(Debug)]
pub struct TicketKeys {
    path: PathBuf,
    /// The oldest first; never empty.
    keys: ArcSwap<Vec<Arc<TicketKey>>>,
}

impl TicketKeys {
    /// Reads the keys, or makes the first one. A file with one bare secret, as earlier versions wrote it, becomes key 1.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn load(data_dir: &Path, now: Timestamp) -> io::Result<Self> {
        let path = data_dir.join("ticket-key");
        let text = read_or_create(&path, || TicketKey::new(1, now).line())?;
        let keys = match secret_of(text.trim()) {
            Some(secret) => {
                let key = TicketKey { number: 1, born: now, secret };
                write_private(&path, key.line().as_bytes())?;
                Some(vec![key])
            }
            None => text.lines().map(TicketKey::parse).collect(),
        };
        let mut keys: Vec<_> = keys.unwrap_or_default().into_iter().map(Arc::new).collect();
        keys.sort_by_key(|key| key.number);
        keys.dedup_by_key(|key| key.number);
        if keys.is_empty() {
            let sentence = "the file ticket-key holds no keys; delete it to get a new one (addresses of running streams change then)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        Ok(Self { path, keys: ArcSwap::from_pointee(keys) })
    }

    /// The key for a new stream.
    pub fn newest(&self) -> Arc<TicketKey> {
        self.keys.load().last().expect("there is always one").clone()
    }

    /// The key with this number.
    pub fn get(&self, number: u16) -> Option<Arc<TicketKey>> {
        let keys = self.keys.load();
        let at = keys.binary_search_by_key(&number, |key| key.number).ok()?;
        keys.get(at).cloned()
    }

    /// Makes a new key if the newest one is a week old. Answers whether it did. Blocks for a small file.
    ///
    /// # Errors
    /// When the file cannot be written; then everything stays as it is.
    pub fn renew(&self, now: Timestamp) -> io::Result<bool> {
        let newest = self.newest();
        let Some(number) = newest.number.checked_add(1).filter(|_| now.duration_since(newest.born) >= YOUNG) else { return Ok(false) };
        let mut keys = self.keys.load().to_vec();
        keys.push(Arc::new(TicketKey::new(number, now)));
        self.write(keys)?;
        Ok(true)
    }

    /// Deletes the keys that no stream has; the newest stays. Blocks for a small file.
    ///
    /// # Errors
    /// When the file cannot be written; then everything stays as it is.
    pub fn keep(&self, in_use: &HashSet<u16>) -> io::Result<()> {
        let newest = self.newest().number;
        let before = self.keys.load();
        let kept: Vec<_> = before.iter().filter(|key| key.number == newest || in_use.contains(&key.number)).cloned().collect();
        if kept.len() == before.len() { Ok(()) } else { self.write(kept) }
    }

    fn write(&self, keys: Vec<Arc<TicketKey>>) -> io::Result<()> {
        let text: String = keys.iter().map(|key| key.line()).collect();
        // On the disk first: an address must not be given away whose key a crash would lose.
        write_private(&self.path, text.as_bytes())?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }
}

/// A ticket as it stands in a path. Whoever has it may read, so it is never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(String);

/// What a ticket claims, and this server once vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The number of the key that it was made with.
    pub key: u16,
    /// Who may read.
    pub device: DeviceId,
    /// What.
    pub stream: StreamId,
}

impl Ticket {
    /// The ticket with which this device reads this stream; the same every time.
    pub fn issue(key: &TicketKey, device: &DeviceId, stream: &StreamId) -> Self {
        let claim = claim(key.number, device, stream);
        let mut bytes = mac(key, &claim).to_vec();
        bytes.extend(claim);
        Self(BASE64URL_NOPAD.encode(&bytes))
    }

    /// Whose ticket this text is, and for which stream; `None` when this server never issued it, or has deleted its key.
    pub fn verify(keys: &TicketKeys, text: &str) -> Option<Claim> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (shown, claim) = bytes.split_at_checked(MAC)?;
        let (number, ids) = claim.split_first_chunk::<NUMBER>()?;
        let key = keys.get(u16::from_be_bytes(*number))?;
        if !bool::from(shown.ct_eq(&mac(&key, claim))) {
            return None;
        }
        let (length, ids) = ids.split_first()?;
        let (device, stream) = ids.split_at_checked(usize::from(*length))?;
        let device = DeviceId::parse(std::str::from_utf8(device).ok()?)?;
        let stream = StreamId::parse(std::str::from_utf8(stream).ok()?)?;
        Some(Claim { key: key.number, device, stream })
    }

    /// The text that stands in the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

fn claim(key: u16, device: &DeviceId, stream: &StreamId) -> Vec<u8> {
    let length = u8::try_from(device.as_str().len()).expect("ids are at most 64 bytes");
    let ids = device.as_str().bytes().chain(stream.as_str().bytes());
    key.to_be_bytes().into_iter().chain(std::iter::once(length)).chain(ids).collect()
}

fn mac(key: &TicketKey, claim: &[u8]) -> [u8; MAC] {
    let mut out = [0; MAC];
    blake3::Hasher::new_keyed(&key.secret).update(claim).finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn ids(device: &str, stream: &str) -> (DeviceId, StreamId) {
        (DeviceId::parse(device).expect("id"), StreamId::parse(stream).expect("id"))
    }

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).expect("time")
    }

    /// Keys of a folder that is gone: nothing of them is written.
    fn keys(secret: u8) -> TicketKeys {
        let key = TicketKey { number: 3, born: at(0), secret: [secret; 32] };
        TicketKeys { path: PathBuf::new(), keys: ArcSwap::from_pointee(vec![Arc::new(key)]) }
    }

    #[test]
    fn a_ticket_is_stable_and_compact() {
        let (device, stream) = ids("owner", "k3v9aaaaaaaaaaaa");
        let key = keys(7).newest();
        let ticket = Ticket::issue(&key, &device, &stream);
        assert_eq!(ticket, Ticket::issue(&key, &device, &stream));
        assert_eq!(ticket.as_str().len(), 54);
        assert_eq!(format!("{ticket:?} {key:?}"), "Ticket(…) TicketKey(3, …)");
    }

    #[test]
    fn another_server_did_not_issue_it() {
        let (device, stream) = ids("owner", "s");
        let ticket = Ticket::issue(&keys(1).newest(), &device, &stream);
        assert_eq!(Ticket::verify(&keys(2), ticket.as_str()), None);
    }

    #[test]
    fn ids_cannot_be_shifted_into_each_other() {
        let key = keys(1).newest();
        let (a, b) = (ids("ab", "c"), ids("a", "bc"));
        assert_ne!(Ticket::issue(&key, &a.0, &a.1), Ticket::issue(&key, &b.0, &b.1));
    }

    #[test]
    fn keys_come_weekly_stay_while_streams_have_them_and_survive_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let keys = TicketKeys::load(folder.path(), at(0)).expect("made");
        let (device, stream) = ids("phone", "s");
        let old = Ticket::issue(&keys.newest(), &device, &stream);
        assert!(!keys.renew(at(6)).expect("too young"));
        // A clock that went back makes none either.
        assert!(!keys.renew(at(-100)).expect("younger still"));
        assert!(keys.renew(at(7)).expect("renewed"));
        assert!(keys.renew(at(14)).expect("renewed again"));
        keys.keep(&HashSet::from([1])).expect("written");
        assert_eq!((keys.newest().number(), keys.get(2).is_none()), (3, true));
        let again = TicketKeys::load(folder.path(), at(20)).expect("read");
        assert_eq!(Ticket::verify(&again, old.as_str()), Some(Claim { key: 1, device: device.clone(), stream: stream.clone() }));
        assert_ne!(Ticket::issue(&again.newest(), &device, &stream), old);
        again.keep(&HashSet::new()).expect("written");
        assert_eq!(Ticket::verify(&again, old.as_str()), None);
        // A number is not given again while its file lives.
        assert!(again.renew(at(30)).expect("renewed"));
        assert_eq!(again.newest().number(), 4);
    }

    #[test]
    fn the_single_key_of_earlier_versions_is_key_1() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ticket-key");
        std::fs::write(&path, format!("{}\n", "ab".repeat(32))).expect("written");
        let keys = TicketKeys::load(folder.path(), at(0)).expect("taken over");
        assert_eq!((keys.newest().number, keys.newest().secret), (1, [0xab; 32]));
        assert!(std::fs::read_to_string(&path).expect("read").starts_with("1 2027-"));
        assert_eq!(TicketKeys::load(folder.path(), at(1)).expect("read").newest().born, at(0));
        for rubbish in ["ab", "", "1 2026-01-01T00:00:00Z ab\n", &format!("x {} {}", at(0), "ab".repeat(32))] {
            std::fs::write(&path, rubbish).expect("written");
            let error = TicketKeys::load(folder.path(), at(0)).expect_err("refused").to_string();
            assert!(error.contains("ticket-key"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_was_issued_is_read_back(device in "[a-z0-9-]{1,64}", stream in "[a-z0-9-]{1,64}") {
            let keys = keys(1);
            let (device, stream) = ids(&device, &stream);
            let ticket = Ticket::issue(&keys.newest(), &device, &stream);
            prop_assert!(ticket.as_str().len() <= LONGEST);
            prop_assert_eq!(Ticket::verify(&keys, ticket.as_str()), Some(Claim { key: 3, device, stream }));
        }

        #[test]
        fn a_changed_ticket_is_refused(at in any::<proptest::sample::Index>(), with in "[A-Za-z0-9_-]") {
            let keys = keys(1);
            let (device, stream) = ids("owner", "k3v9aaaaaaaaaaaa");
            let ticket = Ticket::issue(&keys.newest(), &device, &stream).as_str().to_owned();
            let at = at.index(ticket.len());
            let mut changed = ticket.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(Ticket::verify(&keys, &changed).is_some(), changed == ticket);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let keys = keys(1);
            prop_assert!(Ticket::verify(&keys, &text).is_none());
            prop_assert!(Ticket::verify(&keys, &BASE64URL_NOPAD.encode(&bytes)).is_none());
        }
    }
}
