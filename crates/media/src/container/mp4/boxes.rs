//! Boxes of ISO 14496-12 (4.2) and of QuickTime: headers, children, fields. Knows no box by name.
//!
//! Everything here answers `None` or ends where bytes run out; nothing panics and nothing allocates.

use bytes::Bytes;

/// A box type, such as `b"moov"`.
pub(crate) type Kind = [u8; 4];

/// The head of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its type.
    pub(crate) kind: Kind,
    /// Bytes of the head itself: 8, or 16 with a 64-bit size.
    pub(crate) len: u64,
    /// Bytes of the whole box with its head; `None` where it reaches to the end of what surrounds it (size 0).
    pub(crate) size: Option<u64>,
}

/// The longest head of a box in bytes.
pub(crate) const LONGEST_HEADER: usize = 16;

impl Header {
    /// Reads the head at the start of `bytes`. `Ok(None)` where more bytes are needed, `Err` where the size is less than the head.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let mut fields = Fields::new(bytes);
        let (Some(size), Some(kind)) = (fields.u32(), fields.kind()) else { return Ok(None) };
        match size {
            0 => Ok(Some(Self { kind, len: 8, size: None })),
            1 => match fields.u64() {
                None => Ok(None),
                Some(size) if size < 16 => Err("a box is smaller than its own head"),
                Some(size) => Ok(Some(Self { kind, len: 16, size: Some(size) })),
            },
            2..8 => Err("a box is smaller than its own head"),
            size => Ok(Some(Self { kind, len: 8, size: Some(u64::from(size)) })),
        }
    }
}

/// A box that is wholly in memory.
#[derive(Debug, Clone)]
pub(crate) struct Boxed {
    /// Its type.
    pub(crate) kind: Kind,
    /// What follows its head.
    pub(crate) body: Bytes,
}

/// The boxes one after the other in `bytes`. Ends at the first that is damaged or does not fit (QuickTime closes lists with a zero).
pub(crate) fn children(bytes: &Bytes) -> impl Iterator<Item = Boxed> + use<> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        let header = Header::read(&rest).ok().flatten()?;
        let size = match header.size {
            Some(size) => usize::try_from(size).ok().filter(|size| *size <= rest.len())?,
            None if header.kind == [0; 4] => return None,
            None => rest.len(),
        };
        let mut whole = rest.split_to(size);
        let body = whole.split_off(usize::try_from(header.len).ok().filter(|len| *len <= size)?);
        Some(Boxed { kind: header.kind, body })
    })
}

/// The body of the first child of type `kind`.
pub(crate) fn child(bytes: &Bytes, kind: &Kind) -> Option<Bytes> {
    children(bytes).find(|child| child.kind == *kind).map(|child| child.body)
}

/// The body at the end of a path of types.
pub(crate) fn descend(bytes: &Bytes, path: &[&Kind]) -> Option<Bytes> {
    path.iter().try_fold(bytes.clone(), |at, kind| child(&at, kind))
}

/// Reads big-endian fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Begins at the front of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Begins behind version and flags of a full box (ISO 14496-12, 4.2), which are returned.
    pub(crate) fn full(bytes: &'a [u8]) -> Option<(u8, u32, Self)> {
        let mut fields = Self(bytes);
        let version = fields.u8()?;
        let flags = fields.u24()?;
        Some((version, flags, fields))
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// Leaves `count` bytes out.
    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Option<u32> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Four bytes as a name.
    pub(crate) fn kind(&mut self) -> Option<Kind> {
        self.array()
    }

    /// A field of 32 bits in version 0 of a box and of 64 bits in version 1.
    pub(crate) fn word(&mut self, version: u8) -> Option<u64> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_sizes() {
        let head = |kind: &Kind, len, size| Ok(Some(Header { kind: *kind, len, size }));
        assert_eq!(Header::read(b"\0\0\0\x10ftyp"), head(b"ftyp", 8, Some(16)));
        assert_eq!(Header::read(b"\0\0\0\0mdat"), head(b"mdat", 8, None));
        assert_eq!(Header::read(b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\0"), head(b"mdat", 16, Some(1 << 32)));
        assert_eq!(Header::read(b"\0\0\0\x01mdat\0\0\0\0"), Ok(None));
        assert!(Header::read(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x0f").is_err());
        assert!(Header::read(b"\0\0\0\x07mdat").is_err());
    }

    #[test]
    fn children_end_at_damage_and_at_zero() {
        let bytes = Bytes::from_static(b"\0\0\0\x09abcdX\0\0\0\x08efgh\0\0\0\0\0\0\0\0\0\0\0\x08ijkl");
        let kinds: Vec<Kind> = children(&bytes).map(|child| child.kind).collect();
        assert_eq!(kinds, [*b"abcd", *b"efgh"]);
        let too_long = Bytes::from_static(b"\0\0\0\x08abcd\0\0\0\x20efgh");
        assert_eq!(children(&too_long).count(), 1);
        assert_eq!(descend(&bytes, &[b"abcd"]).as_deref(), Some(&b"X"[..]));
    }
}
