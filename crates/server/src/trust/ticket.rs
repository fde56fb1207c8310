//! Tickets: the part of a media address that says which device may read which stream, and that nobody can forge.
//!
//! A ticket is base64url (no padding) of `MAC (16 bytes) | length of the device id (1) | device id | stream id`, where
//! the MAC is keyed BLAKE3 over the rest. It says nothing about whether the device and the stream still exist:
//! who serves media asks that.

use std::fmt;
use std::io;
use std::path::Path;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use subtle::ConstantTimeEq;

use super::{DeviceId, LONGEST_ID, StreamId, random, read_or_create};

const MAC: usize = 16;
const LONGEST: usize = (MAC + 1 + 2 * LONGEST_ID) * 4 / 3 + 1;

/// The key of all tickets of this server.
#[derive(Clone)]
pub struct TicketKey([u8; 32]);

impl TicketKey {
    /// A new one.
    pub fn random() -> Self {
        Self(random())
    }

    /// Reads the key of a data folder (`ticket-key`, mode 0600), or makes it at the first start.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let fresh = || format!("{}\n", HEXLOWER_PERMISSIVE.encode(&random::<32>()));
        let text = read_or_create(&data_dir.join("ticket-key"), fresh)?;
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file ticket-key holds no key; delete it to get a new one"))
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

/// A ticket as it stands in a path. Whoever has it may read, so it is never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(String);

impl Ticket {
    /// The ticket with which this device reads this stream; the same every time.
    pub fn issue(key: &TicketKey, device: &DeviceId, stream: &StreamId) -> Self {
        let claim = claim(device, stream);
        let mut bytes = mac(key, &claim).to_vec();
        bytes.extend(claim);
        Self(BASE64URL_NOPAD.encode(&bytes))
    }

    /// Whose ticket this text is, and for which stream; `None` when this server never issued it.
    pub fn verify(key: &TicketKey, text: &str) -> Option<(DeviceId, StreamId)> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (shown, claim) = bytes.split_at_checked(MAC)?;
        if !bool::from(shown.ct_eq(&mac(key, claim))) {
            return None;
        }
        let (length, ids) = claim.split_first()?;
        let (device, stream) = ids.split_at_checked(usize::from(*length))?;
        let device = DeviceId::parse(std::str::from_utf8(device).ok()?)?;
        let stream = StreamId::parse(std::str::from_utf8(stream).ok()?)?;
        Some((device, stream))
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

fn claim(device: &DeviceId, stream: &StreamId) -> Vec<u8> {
    let length = u8::try_from(device.as_str().len()).expect("ids are at most 64 bytes");
    let ids = device.as_str().bytes().chain(stream.as_str().bytes());
    std::iter::once(length).chain(ids).collect()
}

fn mac(key: &TicketKey, claim: &[u8]) -> [u8; MAC] {
    let mut out = [0; MAC];
    blake3::Hasher::new_keyed(&key.0).update(claim).finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn ids(device: &str, stream: &str) -> (DeviceId, StreamId) {
        (DeviceId::parse(device).expect("id"), StreamId::parse(stream).expect("id"))
    }

    #[test]
    fn a_ticket_is_stable_and_compact() {
        let (device, stream) = ids("owner", "k3v9aaaaaaaaaaaa");
        let key = TicketKey([7; 32]);
        let ticket = Ticket::issue(&key, &device, &stream);
        assert_eq!(ticket, Ticket::issue(&key, &device, &stream));
        assert_eq!(ticket.as_str().len(), 51);
        assert_eq!(format!("{ticket:?} {key:?}"), "Ticket(…) TicketKey(…)");
    }

    #[test]
    fn another_server_did_not_issue_it() {
        let (device, stream) = ids("owner", "s");
        let ticket = Ticket::issue(&TicketKey::random(), &device, &stream);
        assert_eq!(Ticket::verify(&TicketKey::random(), ticket.as_str()), None);
    }

    #[test]
    fn ids_cannot_be_shifted_into_each_other() {
        let key = TicketKey::random();
        let (a, b) = (ids("ab", "c"), ids("a", "bc"));
        assert_ne!(Ticket::issue(&key, &a.0, &a.1), Ticket::issue(&key, &b.0, &b.1));
    }

    #[test]
    fn the_key_is_made_once() {
        let folder = tempfile::tempdir().expect("folder");
        let (first, second) = (TicketKey::load(folder.path()).expect("made"), TicketKey::load(folder.path()).expect("read"));
        assert_eq!(first.0, second.0);
        std::fs::write(folder.path().join("ticket-key"), "ab").expect("written");
        assert!(TicketKey::load(folder.path()).is_err());
    }

    proptest! {
        #[test]
        fn what_was_issued_is_read_back(device in "[a-z0-9-]{1,64}", stream in "[a-z0-9-]{1,64}") {
            let key = TicketKey([1; 32]);
            let (device, stream) = ids(&device, &stream);
            let ticket = Ticket::issue(&key, &device, &stream);
            prop_assert!(ticket.as_str().len() <= LONGEST);
            prop_assert_eq!(Ticket::verify(&key, ticket.as_str()), Some((device, stream)));
        }

        #[test]
        fn a_changed_ticket_is_refused(at in any::<proptest::sample::Index>(), with in "[A-Za-z0-9_-]") {
            let key = TicketKey([1; 32]);
            let (device, stream) = ids("owner", "k3v9aaaaaaaaaaaa");
            let ticket = Ticket::issue(&key, &device, &stream).as_str().to_owned();
            let at = at.index(ticket.len());
            let mut changed = ticket.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(Ticket::verify(&key, &changed).is_some(), changed == ticket);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = TicketKey([1; 32]);
            prop_assert!(Ticket::verify(&key, &text).is_none());
            prop_assert!(Ticket::verify(&key, &BASE64URL_NOPAD.encode(&bytes)).is_none());
        }
    }
}
