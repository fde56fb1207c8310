//! EBML (RFC 8794): element headers in a file of which parts are known, and the children of an element that is wholly in memory.
//!
//! Knows nothing of Matroska but the width of its IDs. Everything here is total: whatever the bytes are, it answers.

use super::super::{Sparse, Stop};

/// Bytes to look at (and to ask for) where an element is expected: enough for its header and for the header of a Block in it.
pub(super) const PEEK: usize = 64;

/// Why a number could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// The bytes end before it does.
    More,
    /// No number begins like this.
    Bad,
}

/// A variable-size integer (RFC 8794, section 4) with its length in bytes.
///
/// The marker bit is removed. The reserved "all ones" pattern comes back as it stands: `unknown` tells whether it was that.
fn vint(bytes: &[u8]) -> Result<(u64, usize, bool), Lack> {
    let first = *bytes.first().ok_or(Lack::More)?;
    let len = first.leading_zeros() as usize + 1;
    if len > 8 {
        return Err(Lack::Bad);
    }
    let all = bytes.get(..len).ok_or(Lack::More)?;
    let raw = all.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let mask = (1u64 << (7 * len)) - 1;
    Ok((raw & mask, len, raw & mask == mask))
}

/// An unsigned number such as the track number of a Block, with its length in bytes.
pub(super) fn unsigned(bytes: &[u8]) -> Result<(u64, usize), Lack> {
    vint(bytes).map(|(value, len, _)| (value, len))
}

/// A signed difference as in EBML lacing (RFC 9559, section 10.3.3), with its length in bytes.
pub(super) fn signed(bytes: &[u8]) -> Result<(i64, usize), Lack> {
    let (value, len, _) = vint(bytes)?;
    let bias = (1i64 << (7 * len - 1)) - 1;
    Ok((i64::try_from(value).unwrap_or(i64::MAX) - bias, len))
}

/// An element ID with its marker bits, at most four bytes (RFC 8794, section 5).
fn id(bytes: &[u8]) -> Result<(u32, usize), Lack> {
    let first = *bytes.first().ok_or(Lack::More)?;
    let len = first.leading_zeros() as usize + 1;
    if len > 4 {
        return Err(Lack::Bad);
    }
    let all = bytes.get(..len).ok_or(Lack::More)?;
    Ok((all.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte)), len))
}

/// ID, size of the body (`None`: unknown) and length of the header.
fn parse(bytes: &[u8]) -> Result<(u32, Option<u64>, usize), Lack> {
    let (id, id_len) = id(bytes)?;
    let (size, size_len, unknown) = vint(bytes.get(id_len..).unwrap_or_default())?;
    Ok((id, (!unknown).then_some(size), id_len + size_len))
}

/// The header of an element in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// Element ID with its marker bits.
    pub(super) id: u32,
    /// File offset of the header.
    pub(super) offset: u64,
    /// File offset of the body.
    pub(super) body: u64,
    /// Bytes of the body, `None` where unknown (RFC 8794, section 6.2).
    pub(super) size: Option<u64>,
}

impl Element {
    /// File offset just past the element, where its size is known.
    pub(super) fn end(&self) -> Option<u64> {
        self.size.map(|size| self.body.saturating_add(size))
    }
}

/// The element header at `offset`.
pub(super) fn element(bytes: &Sparse, offset: u64) -> Result<Element, Stop> {
    match parse(&bytes.known(offset, PEEK)) {
        Ok((id, size, len)) => Ok(Element { id, offset, body: offset.saturating_add(len as u64), size }),
        Err(Lack::Bad) => Err(Stop::broken(offset, "no element begins here")),
        Err(Lack::More) => {
            bytes.get(offset, peek_within(bytes, offset, PEEK))?;
            Err(Stop::truncated())
        }
    }
}

/// At most `len` bytes, fewer where the file ends before.
pub(super) fn peek_within(bytes: &Sparse, offset: u64, len: usize) -> usize {
    len.min(usize::try_from(bytes.len().saturating_sub(offset)).unwrap_or(usize::MAX))
}

/// The children of a master element whose body is in memory.
///
/// A child that claims to reach past its parent is cut at the parent's end; the walk ends at the first thing that is no element.
pub(super) struct Children<'a> {
    rest: &'a [u8],
}

pub(super) fn children(body: &[u8]) -> Children<'_> {
    Children { rest: body }
}

impl<'a> Iterator for Children<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (id, size, len) = parse(self.rest).ok()?;
        let after = self.rest.get(len..)?;
        let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX).min(after.len());
        let (body, rest) = after.split_at_checked(size)?;
        self.rest = rest;
        Some((id, body))
    }
}

/// An unsigned integer element (RFC 8794, section 7.2); an empty one is 0, of one that is too long the last eight bytes count.
pub(super) fn uint(body: &[u8]) -> u64 {
    body.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
}

/// A float element (RFC 8794, section 7.3); 0 where it has no such length or is no number.
pub(super) fn float(body: &[u8]) -> f64 {
    let value = match (<[u8; 4]>::try_from(body), <[u8; 8]>::try_from(body)) {
        (Ok(four), _) => f64::from(f32::from_be_bytes(four)),
        (_, Ok(eight)) => f64::from_be_bytes(eight),
        _ => 0.0,
    };
    if value.is_finite() { value } else { 0.0 }
}

/// A string element (RFC 8794, sections 7.4 and 7.5): it ends at the first NUL, and what is not UTF-8 is replaced.
pub(super) fn text(body: &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    String::from_utf8_lossy(body.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(unsigned(&[0x81]), Ok((1, 1)));
        assert_eq!(unsigned(&[0x40, 0x02, 9]), Ok((2, 2)));
        assert_eq!(unsigned(&[0x01, 0, 0, 0, 0, 0, 1, 0]), Ok((256, 8)));
        assert_eq!(unsigned(&[0x40]), Err(Lack::More));
        assert_eq!(unsigned(&[]), Err(Lack::More));
        assert_eq!(unsigned(&[0x00]), Err(Lack::Bad));
        assert_eq!(signed(&[0xBF]), Ok((0, 1)));
        assert_eq!(signed(&[0x80]), Ok((-63, 1)));
        assert_eq!(signed(&[0x60, 0x00]), Ok((1, 2)));
    }

    #[test]
    fn headers() {
        assert_eq!(parse(&[0x1A, 0x45, 0xDF, 0xA3, 0x84]), Ok((0x1A45_DFA3, Some(4), 5)));
        assert_eq!(parse(&[0xEC, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Ok((0xEC, None, 9)));
        assert_eq!(parse(&[0xEC, 0xFF]), Ok((0xEC, None, 2)));
        assert_eq!(parse(&[0x08, 0x81]), Err(Lack::Bad));
    }

    #[test]
    fn children_are_cut_at_their_parent() {
        let body = [0xEC, 0x81, 7, 0xBF, 0x8F, 1, 2];
        assert_eq!(children(&body).collect::<Vec<_>>(), [(0xEC, &[7][..]), (0xBF, &[1, 2][..])]);
        assert_eq!(children(&[0xEC]).count(), 0);
    }

    #[test]
    fn values() {
        assert_eq!(uint(&[1, 0]), 256);
        assert_eq!(uint(&[]), 0);
        assert_eq!(uint(&[9, 0, 0, 0, 0, 0, 0, 0, 1]), 1);
        assert!((float(&1.5f32.to_be_bytes()) - 1.5).abs() < f64::EPSILON);
        assert!((float(&2.5f64.to_be_bytes()) - 2.5).abs() < f64::EPSILON);
        assert_eq!(float(&f64::NAN.to_be_bytes()).to_bits(), 0);
        assert_eq!(text(b"eng\0\0"), "eng");
        assert_eq!(text(b"\xFFa"), "\u{FFFD}a");
    }

    #[test]
    fn a_header_at_the_end_of_the_file_is_cut_off_not_missing() {
        let mut file = Sparse::new(3);
        assert_eq!(element(&file, 0), Err(Stop::Need { offset: 0, len: 3 }));
        file.insert(0, Bytes::from_static(&[0x1A, 0x45, 0xDF]));
        assert_eq!(element(&file, 0), Err(Stop::truncated()));
    }
}
