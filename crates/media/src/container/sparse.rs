//! The bytes of a file that are known so far.
//!
//! Indexing must not read a whole film, and this package cannot wait for bytes. So a parser looks into a [`Sparse`] and, where
//! bytes are missing, stops with the range that it needs; the caller fetches that range, inserts it, and calls the parser again.
//! This file does not fetch and does not forget.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::Stop;

/// Parts of a file, by offset in bytes.
#[derive(Debug, Clone)]
pub struct Sparse {
    len: u64,
    parts: BTreeMap<u64, Bytes>,
}

impl Sparse {
    /// A file of `len` bytes of which nothing is known.
    pub fn new(len: u64) -> Self {
        Self { len, parts: BTreeMap::new() }
    }

    /// Length of the whole file in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bytes known, counting a byte twice where inserted ranges overlap.
    pub fn held(&self) -> u64 {
        self.parts.values().map(|part| part.len() as u64).sum()
    }

    /// Makes bytes at `offset` known. What lies past the end of the file is cut off.
    pub fn insert(&mut self, offset: u64, mut bytes: Bytes) {
        let room = self.len.saturating_sub(offset);
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return;
        }
        let longer_known = self.parts.get(&offset).is_some_and(|known| known.len() >= bytes.len());
        if !longer_known {
            self.parts.insert(offset, bytes);
        }
    }

    /// The bytes `[offset, offset + len)`, or what is missing of them ([`Stop::Need`]).
    ///
    /// A range that reaches past the end of the file is [`Stop::Bad`]: no fetch can ever satisfy it.
    pub fn get(&self, offset: u64, len: usize) -> Result<Bytes, Stop> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.len).ok_or_else(Stop::truncated)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let mut at = offset;
        let mut whole = BytesMut::new();
        while at < end {
            let Some(part) = self.part_at(at) else {
                return Err(Stop::Need { offset: at, len: end - at });
            };
            let take = part.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let part = part.slice(..take);
            if at == offset && take == len {
                return Ok(part);
            }
            whole.extend_from_slice(&part);
            at += take as u64;
        }
        Ok(whole.freeze())
    }

    /// As many known bytes as follow `offset` without a hole, at most `max`; empty when the first byte is unknown.
    pub fn known(&self, offset: u64, max: usize) -> Bytes {
        let mut end = offset;
        let limit = offset.saturating_add(max as u64).min(self.len);
        while end < limit {
            match self.part_at(end) {
                Some(part) => end = end.saturating_add(part.len() as u64).min(limit),
                None => break,
            }
        }
        let len = usize::try_from(end - offset).unwrap_or(0);
        self.get(offset, len).unwrap_or_default()
    }

    /// The rest of the longest-reaching part that covers `at`.
    fn part_at(&self, at: u64) -> Option<Bytes> {
        self.parts
            .range(..=at)
            .rev()
            .find(|(start, part)| at - **start < part.len() as u64)
            .and_then(|(start, part)| usize::try_from(at - start).ok().map(|skip| part.slice(skip..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_neighbours_and_names_the_hole() {
        let mut sparse = Sparse::new(10);
        sparse.insert(0, Bytes::from_static(b"abc"));
        sparse.insert(3, Bytes::from_static(b"def"));
        assert_eq!(sparse.get(1, 4).expect("known"), &b"bcde"[..]);
        assert_eq!(sparse.get(4, 5), Err(Stop::Need { offset: 6, len: 3 }));
        assert_eq!(sparse.known(4, 99), &b"ef"[..]);
        assert_eq!(sparse.get(8, 3), Err(Stop::truncated()));
    }

    #[test]
    fn cuts_off_what_lies_past_the_end() {
        let mut sparse = Sparse::new(2);
        sparse.insert(1, Bytes::from_static(b"xyz"));
        sparse.insert(7, Bytes::from_static(b"xyz"));
        assert_eq!(sparse.held(), 1);
    }
}
