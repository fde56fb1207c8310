//! Who may do what: identities, the tokens that prove them, and the tickets that stand in media addresses.
//!
//! Everything secret is a type of its own whose `Debug` shows nothing.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

pub mod ca;
pub mod chain;
pub mod devices;
pub mod letters;
pub mod names;
pub mod pairing;
pub mod ticket;
pub mod tls;
pub mod token;

pub use ca::{Authority, CaError, Fingerprint};
pub use devices::Devices;
pub use names::Names;
pub use ticket::{Ticket, TicketKeys};
pub use tls::{Certificates, Policy, Tls, TlsError};
pub use token::{Holder, Token, TokenHash};

/// The longest id, in bytes: it has to fit in a ticket's length byte and in an address.
pub const LONGEST_ID: usize = 64;

/// Makes a type for ids: short text of `a-z`, `0-9` and `-`, cheap to clone.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes an id as it is written; `None` when it cannot be one.
            pub fn parse(text: &str) -> Option<Self> {
                is_id(text).then(|| Self(text.into()))
            }

            /// A new one that nobody can guess or meet twice: 80 random bits, 16 letters of base32.
            pub fn random() -> Self {
                Self(data_encoding::BASE32_NOPAD.encode(&random::<10>()).to_ascii_lowercase().into())
            }

            /// The id as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id!(
    /// A device that holds a token.
    DeviceId
);
id!(
    /// A person, to whom devices and streams belong.
    PersonId
);
id!(
    /// A stream, as it stands in the addresses of the API.
    StreamId
);
id!(
    /// A pairing offer.
    OfferId
);

impl DeviceId {
    /// The device record of the machine's own admin token.
    pub fn owner() -> Self {
        Self("owner".into())
    }
}

impl PersonId {
    /// The person who owns the machine.
    pub fn owner() -> Self {
        Self("owner".into())
    }
}

fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The longest name of a device or a person, in characters.
pub const LONGEST_NAME: usize = 60;

/// A name that somebody gave to a device or a person, fit to be shown: 1 to 60 characters, some of which can be seen, and none that
/// control a terminal or turn the text around them. `None` where that leaves nothing, or too much.
pub fn name_of(text: &str) -> Option<String> {
    pairing::presentable(text, LONGEST_NAME).filter(|name| name.chars().any(|c| !letters::is_joining(c)))
}

/// Random bytes of the operating system.
///
/// # Panics
/// Where the operating system has none: nothing can be kept secret on such a machine.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Reads a file of secrets, or makes it with `fresh` where there is none: mode 0600, complete or not there at all.
fn read_or_create(path: &Path, fresh: impl FnOnce() -> String) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            close_to_others(path)?;
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = fresh();
            write_private(path, text.as_bytes())?;
            Ok(text)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file that only this user can read: aside first, then renamed, so that it is never half there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&aside)?;
    close_to_others(Path::new(&aside))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}

/// Takes everyone else's rights from a file that somebody may have copied here with wider ones.
#[cfg(unix)]
pub(crate) fn close_to_others(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
pub(crate) fn close_to_others(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        for good in ["owner", "a", "k3v9-x", &"a".repeat(64)] {
            assert_eq!(StreamId::parse(good).map(|id| id.as_str().to_owned()).as_deref(), Some(good));
        }
        for bad in ["", "A", "a b", "ä", "../x", "a/b", &"a".repeat(65)] {
            assert_eq!(StreamId::parse(bad), None, "{bad}");
        }
        let id = DeviceId::random();
        assert_eq!((id.as_str().len(), DeviceId::parse(id.as_str())), (16, Some(id.clone())));
        assert_ne!(id, DeviceId::random());
    }

    #[test]
    fn names_show_what_they_are() {
        let table = [
            ("Anna's phone", Some("Anna's phone")),
            ("  Anna\t", Some("Anna")),
            ("\u{1b}[31mred\u{7}", Some("[31mred")),
            ("abc\u{202e}gpj.exe", Some("abcgpj.exe")),
            ("👩\u{200d}🚀", Some("👩\u{200d}🚀")),
            ("\u{200b}\u{2066} \u{2069}", None),
            ("\u{200d}", None),
            ("\u{3164}", None),
            ("\u{2800}\u{2800}", None),
            ("An\u{1160}na\u{e0041}", Some("Anna")),
            ("\u{2800}Anna\u{2800}\u{2800}B", Some("Anna B")),
            ("Z\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}", Some("Z\u{301}\u{302}\u{303}\u{304}")),
            ("", None),
            (" \n ", None),
        ];
        for (text, name) in table {
            assert_eq!(name_of(text).as_deref(), name, "{text:?}");
        }
        assert!(name_of(&"ä".repeat(60)).is_some() && name_of(&"ä".repeat(61)).is_none());
    }

    #[test]
    fn a_secret_file_is_made_once_and_only_for_us() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        assert_eq!(read_or_create(&path, || "first".to_owned()).expect("made"), "first");
        assert_eq!(read_or_create(&path, || "second".to_owned()).expect("read"), "first");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened");
            read_or_create(&path, String::new).expect("read");
            assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 1);
    }
}
