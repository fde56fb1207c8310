//! Tokens: 256 random bits that say who is asking. Kept and looked up as SHA-256 only.
//!
//! The owner's stands in a file of the data folder; those of devices are shown to them once, and [`super::devices`] knows whose they are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

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
///
/// Compared as any value is, and a key of maps: how long that takes may tell how much of a hash is right, and nobody can use it.
/// Whoever wants a token with a given hash has to invert SHA-256 of 256 random bits, and learns nothing of it by hitting a part.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The 32 bytes, as they are stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes what was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// Who is asking: a device, whose it is, and until when that holds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The device.
    pub device: DeviceId,
    /// The person whose device it is: to whom what it starts belongs.
    pub person: PersonId,
    /// Whether it has the owner's scope.
    pub admin: bool,
    /// Cancelled when the device is revoked: whatever is still being answered to it breaks off.
    pub gone: CancellationToken,
    /// Cancelled when the device is revoked or given to another person: whatever is being sent of this person's breaks off.
    pub moved: CancellationToken,
}

impl Holder {
    /// Whether what belongs to this person exists for it: its own person's, and for the owner everybody's.
    pub fn sees(&self, person: &PersonId) -> bool {
        self.admin || self.person == *person
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
    fn debug_shows_no_secret() {
        let token = Token::random();
        let shown = format!("{token:?} {:?}", token.hash());
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
