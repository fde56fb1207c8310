//! Tokens: 256 random bits that say who is asking. Kept and compared as SHA-256 only.
//!
//! For now there is one, the admin's, in a file of the data folder. Device tokens join the [`Keyring`] with pairing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{DeviceId, PersonId, random, read_or_create};

/// A token as a client shows it. Never logged, never stored.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one.
    pub fn random() -> Self {
        Self(BASE64URL_NOPAD.encode(&random::<32>()))
    }

    /// Takes what a client sent; `None` when it cannot be a token (256 bits in base64url are 43 letters).
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits.then(|| Self(text.to_owned()))
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The token itself, to be shown to its owner once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Compares without telling by its duration where the two differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The device.
    pub device: DeviceId,
    /// The person whose device it is.
    pub person: PersonId,
    /// Whether this is the owner of the machine.
    pub admin: bool,
}

/// All tokens that open the door, by their hashes.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<(TokenHash, Holder)>,
}

impl Keyring {
    /// A ring with the admin's token only.
    pub fn new(admin: &Token) -> Self {
        let owner = Holder { device: DeviceId::owner(), person: PersonId::owner(), admin: true };
        Self { keys: vec![(admin.hash(), owner)] }
    }

    /// Whose token this is.
    pub fn who(&self, token: &Token) -> Option<&Holder> {
        let hash = token.hash();
        // No early exit: how long it takes tells nothing.
        self.keys.iter().fold(None, |found, (key, holder)| if key.is(&hash) { Some(holder) } else { found })
    }
}

/// The file of the admin's token in a data folder.
pub fn admin_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin-token")
}

/// Reads the admin's token, or makes it at the first start (mode 0600).
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub fn admin_token(data_dir: &Path) -> io::Result<Token> {
    let text = read_or_create(&admin_token_file(data_dir), || format!("{}\n", Token::random().reveal()))?;
    Token::parse(text.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file admin-token holds no token; delete it to get a new one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_opens() {
        let (admin, other) = (Token::random(), Token::random());
        let ring = Keyring::new(&admin);
        assert_eq!(ring.who(&admin).map(|holder| (holder.admin, holder.device.as_str())), Some((true, "owner")));
        assert_eq!(ring.who(&other), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = Token::random();
        let shown = format!("{token:?} {:?} {:?}", token.hash(), Keyring::new(&token));
        assert!(!shown.contains(token.reveal()), "{shown}");
        assert!(shown.contains("TokenHash(…)"), "{shown}");
    }

    #[test]
    fn what_cannot_be_a_token_is_none() {
        for text in ["", "short", &"a".repeat(42), &"a".repeat(44), &"=".repeat(43), &" ".repeat(43)] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_admin_token_is_made_once() {
        let folder = tempfile::tempdir().expect("folder");
        let first = admin_token(folder.path()).expect("made");
        assert_eq!(first.reveal(), admin_token(folder.path()).expect("read").reveal());
        std::fs::write(admin_token_file(folder.path()), "rubbish").expect("written");
        let error = admin_token(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("admin-token") && !error.contains("rubbish"), "{error}");
    }
}
