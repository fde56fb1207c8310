//! Magnet links: what people paste, read leniently and written back strictly.
//!
//! A link comes from a stranger, so it is bounded in every direction, and only what has been understood goes on to the torrent engine
//! ([`Magnet::to_link`]): the hash, a display name and trackers. Peer addresses and file selections are kept beside it for the caller.
//! Formats: BEP 9 (`xt=urn:btih:`, `dn`, `tr`, `x.pe`), BEP 53 (`so`), BEP 52 (`xt=urn:btmh:`, refused when it stands alone).
//! This file resolves no names; whether an address may be talked to is told by [`is_public`] and [`tracker_reach`].

mod reach;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::{BASE32, HEXLOWER, HEXLOWER_PERMISSIVE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
pub use reach::{Reach, is_public, normalised_tracker, tracker_reach};

/// Longest link that is looked at, in bytes. [`Magnet::to_link`] stays within it as well.
pub const MAX_LINK_LEN: usize = 8 * 1024;
/// Most trackers that are kept of one link.
pub const MAX_TRACKERS: usize = 50;
/// Most peer addresses that are kept of one link.
pub const MAX_PEERS: usize = 100;
/// Most file indexes that are kept of one link.
pub const MAX_SELECTED: usize = 64;
/// Longest display name in characters.
pub const MAX_NAME_CHARS: usize = 200;

/// All bytes of a value but RFC 3986's unreserved ones are percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The version 1 info hash of a torrent: SHA-1 of its info dictionary (BEP 3). Text form: 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({self})")
    }
}

impl FromStr for InfoHash {
    type Err = MagnetError;

    /// Reads 40 hex digits or 32 base32 digits (RFC 4648), in any case. The all-zero hash is refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid: fn(char) -> bool = match text.chars().count() {
            40 => |c| c.is_ascii_hexdigit(),
            32 => |c| c.is_ascii_alphabetic() || ('2'..='7').contains(&c),
            length => return Err(MagnetError::HashLength(length)),
        };
        if let Some(wrong) = text.chars().find(|c| !valid(*c)) {
            return Err(MagnetError::HashCharacter(wrong));
        }
        let bytes = if text.len() == 40 {
            HEXLOWER_PERMISSIVE.decode(text.as_bytes())
        } else {
            BASE32.decode(text.to_ascii_uppercase().as_bytes())
        };
        let bytes = bytes.ok().and_then(|bytes| <[u8; 20]>::try_from(bytes).ok());
        match bytes {
            Some(bytes) if bytes == [0; 20] => Err(MagnetError::AllZero),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(MagnetError::HashLength(text.len())),
        }
    }
}

impl serde::Serialize for InfoHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for InfoHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not a magnet link that can be streamed. Each sentence is for the person who pasted it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// Something else altogether.
    #[error("This is not a magnet link. Paste a link that begins with magnet:?xt=urn:btih: or an info hash of 40 characters.")]
    NotAMagnet,
    /// A magnet link, but of no torrent.
    #[error("The magnet link names no torrent: its xt=urn:btih: part is missing. Copy the whole link again.")]
    NoHash,
    /// The info hash has this many characters.
    #[error("The info hash has {0} characters instead of 40 (or 32). Part of it was lost: copy the whole link again.")]
    HashLength(usize),
    /// The info hash contains something that is no digit of it.
    #[error("The info hash contains {0:?}, which cannot be part of one. Copy the link again.")]
    HashCharacter(char),
    /// The info hash is zero throughout.
    #[error("The info hash is all zeros, so it names no torrent. Look for another link.")]
    AllZero,
    /// Only a version 2 hash (BEP 52).
    #[error("v2 only torrents are not supported. Look for a link with xt=urn:btih: in it.")]
    V2Only,
    /// Over [`MAX_LINK_LEN`].
    #[error("The magnet link is longer than 8 KiB. Remove some of its trackers (the parts that begin with &tr=).")]
    TooLong,
}

/// What a magnet link says, checked and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magnet {
    /// Which torrent. Never all zero.
    pub info_hash: InfoHash,
    /// Name to show until the torrent's own is known: one line, no control characters, no path separators, at most
    /// [`MAX_NAME_CHARS`].
    pub name: Option<String>,
    /// Trackers in the form of [`normalised_tracker`], without duplicates, in the order of the link. They may lie at private
    /// addresses: see [`tracker_reach`].
    pub trackers: Vec<String>,
    /// Addresses of peers (`x.pe`), without duplicates. They may be private: see [`is_public`].
    pub peers: Vec<SocketAddr>,
    /// File indexes that the link asks for (`so`), ascending, without duplicates: a hint, perhaps the beginning of a longer list.
    pub select: Vec<u32>,
}

impl Magnet {
    /// A link that says nothing but which torrent.
    pub const fn of(info_hash: InfoHash) -> Self {
        Self { info_hash, name: None, trackers: Vec::new(), peers: Vec::new(), select: Vec::new() }
    }

    /// A link that a torrent's own metadata makes: its name and its trackers are cleaned and bounded as those of a link are.
    pub fn described<'a>(info_hash: InfoHash, name: Option<&str>, trackers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut magnet = Self { name: name.and_then(clean_name), ..Self::of(info_hash) };
        for tracker in trackers {
            add_new(&mut magnet.trackers, MAX_TRACKERS, normalised_tracker(tracker.trim()));
        }
        drop_excess_trackers(&mut magnet);
        magnet
    }

    /// Reads a magnet link or a bare info hash, however it was copied.
    ///
    /// Forgiven are blanks around it and line breaks within, the scheme in any case, a link that is percent-encoded as a whole,
    /// `&amp;` for `&`, numbered keys (`xt.1`, `tr.2`). Parts that are broken or unknown are left out; only a missing or broken
    /// hash is an error.
    pub fn parse(text: &str) -> Result<Self, MagnetError> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
        if text.len() > MAX_LINK_LEN {
            return Err(MagnetError::TooLong);
        }
        let text: String = text.chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')).collect();
        if let Some(query) = query_of(&text) {
            return from_query(query);
        }
        if strip_prefix_any_case(&text, "magnet%3a").is_some() {
            let decoded = decoded(&text);
            return query_of(&decoded).ok_or(MagnetError::NotAMagnet).and_then(from_query);
        }
        bare_hash(&text).map(Self::of)
    }

    /// The link in its one normal form for the torrent engine: hash in hex, name, trackers; no peers and no file selection.
    ///
    /// [`Magnet::parse`] gives the same hash, name and trackers back.
    pub fn to_link(&self) -> String {
        let mut link = format!("magnet:?xt=urn:btih:{}", self.info_hash);
        if let Some(name) = &self.name {
            link.push_str(&parameter("dn", name));
        }
        for tracker in &self.trackers {
            link.push_str(&parameter("tr", tracker));
        }
        link
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn parameter(key: &str, value: &str) -> String {
    format!("&{key}={}", utf8_percent_encode(value, ENCODED))
}

/// What follows `magnet:?`, of a text that is a magnet link.
fn query_of(text: &str) -> Option<&str> {
    let rest = strip_prefix_any_case(text, "magnet:")?.trim_start_matches('/');
    Some(rest.strip_prefix('?').unwrap_or(rest))
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    if head.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

fn decoded(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8_lossy()
}

/// A text that is no link: perhaps a hash that somebody typed or copied alone.
fn bare_hash(text: &str) -> Result<InfoHash, MagnetError> {
    if is_v2_hash(text) {
        return Err(MagnetError::V2Only);
    }
    let looks_like_a_hash = (20..=80).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric());
    if looks_like_a_hash { text.parse() } else { Err(MagnetError::NotAMagnet) }
}

/// SHA-256 in hex, alone or as a multihash (`1220…`).
fn is_v2_hash(text: &str) -> bool {
    matches!(text.strip_prefix("1220").map_or(text.len(), str::len), 64) && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn from_query(query: &str) -> Result<Magnet, MagnetError> {
    let mut topic = Topic::default();
    let (mut name, mut trackers, mut peers, mut select) = (None, Vec::new(), Vec::new(), Vec::new());
    for (key, value) in query.split('&').filter_map(key_and_value) {
        match key.as_str() {
            "xt" => topic.read(&decoded(value)),
            "dn" => name = name.or_else(|| clean_name(&decoded(&value.replace('+', " ")))),
            "tr" => add_new(&mut trackers, MAX_TRACKERS, normalised_tracker(decoded(value).trim())),
            "x.pe" => add_new(&mut peers, MAX_PEERS, peer(decoded(value).trim())),
            "so" => read_selection(&decoded(value), &mut select),
            _ => {}
        }
    }
    select.sort_unstable();
    let mut magnet = Magnet { name, trackers, peers, select, ..Magnet::of(topic.hash()?) };
    drop_excess_trackers(&mut magnet);
    Ok(magnet)
}

/// Splits one parameter; the key in lower case, without the number of a numbered form and without what is left of `&amp;`.
fn key_and_value(parameter: &str) -> Option<(String, &str)> {
    let (key, value) = parameter.split_once('=')?;
    let key = decoded(key).to_ascii_lowercase();
    let key = key.rsplit(';').next().unwrap_or_default();
    let base = match key.rsplit_once('.') {
        Some((base, number)) if number.chars().all(|c| c.is_ascii_digit()) => base,
        _ => key,
    };
    Some((base.to_owned(), value))
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, most: usize, value: Option<T>) {
    if let Some(value) = value.filter(|value| list.len() < most && !list.contains(value)) {
        list.push(value);
    }
}

/// Encoding may triple a name or a tracker; the last trackers give way, so that the normal form can always be read back.
fn drop_excess_trackers(magnet: &mut Magnet) {
    let mut len = Magnet { trackers: Vec::new(), ..magnet.clone() }.to_link().len();
    magnet.trackers.retain(|tracker| {
        let with_it = len + parameter("tr", tracker).len();
        let fits = with_it <= MAX_LINK_LEN;
        len = if fits { with_it } else { len };
        fits
    });
}

/// The `xt` parameters met so far.
#[derive(Default)]
struct Topic {
    hash: Option<InfoHash>,
    wrong: Option<MagnetError>,
    v2: bool,
}

impl Topic {
    /// The first good version 1 hash counts, however many broken or foreign ones stand around it.
    fn read(&mut self, value: &str) {
        let value = value.split('#').next().unwrap_or_default().trim();
        if strip_prefix_any_case(value, "urn:btmh:").is_some() {
            self.v2 = true;
        } else if let Some(text) = strip_prefix_any_case(value, "urn:btih:") {
            match text.parse() {
                Ok(hash) => self.hash = self.hash.or(Some(hash)),
                Err(_) if is_v2_hash(text) => self.v2 = true,
                Err(wrong) => self.wrong = self.wrong.take().or(Some(wrong)),
            }
        }
    }

    fn hash(self) -> Result<InfoHash, MagnetError> {
        let otherwise = self.wrong.unwrap_or(if self.v2 { MagnetError::V2Only } else { MagnetError::NoHash });
        self.hash.ok_or(otherwise)
    }
}

/// Characters that show nothing, or turn the direction of what follows: they serve to deceive, or were copied by accident.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A name that can be shown in one line and that no one can mistake for a path.
fn clean_name(name: &str) -> Option<String> {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let visible: String = name.chars().filter(|c| !is_invisible(*c)).map(|c| if matches!(c, '/' | '\\') { '_' } else { c }).collect();
    let line = visible.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(MAX_NAME_CHARS).collect();
    let short = short.trim_end();
    (!short.chars().all(|c| c == '.')).then(|| short.to_owned())
}

/// `address:port` or `[address]:port`. Host names are dropped: nobody should be made to look up names by a link.
fn peer(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    let ip = address.ip().to_canonical();
    let nobody = ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    (!nobody && address.port() != 0).then(|| SocketAddr::new(ip, address.port()))
}

/// BEP 53: indexes and ranges of indexes with commas between. What a range holds beyond the limit is never counted out.
fn read_selection(text: &str, select: &mut Vec<u32>) {
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u64>()) else { continue };
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        for index in (first..=last).take(MAX_SELECTED) {
            add_new(select, MAX_SELECTED, Some(index));
        }
    }
}

#[cfg(test)]
mod tests;
