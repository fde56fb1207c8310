//! A cursor over bits, most significant first, with the variable-length codes of H.264 and HEVC (clause 9.1 and 9.2).

/// Reads bits; `None` once they are used up.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn left(&self) -> usize {
        (self.bytes.len().saturating_mul(8)).saturating_sub(self.at)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// An unsigned number of `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        let mut value = 0_u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.byte_of(8)
    }

    /// A number of `count` bits, at most 8.
    pub(super) fn byte_of(&mut self, count: u32) -> Option<u8> {
        self.take(count).and_then(|value| u8::try_from(value).ok())
    }

    /// Passes over `count` bits that are there if the flag before them says so.
    pub(super) fn optional(&mut self, count: usize) -> Option<()> {
        if self.flag()? { self.skip(count) } else { Some(()) }
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len().saturating_mul(8))?;
        Some(())
    }

    /// To the next byte boundary.
    pub(super) const fn align(&mut self) {
        self.at = self.at.div_ceil(8) * 8;
    }

    /// `ue(v)`.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        Some((1_u32 << zeros) - 1 + rest)
    }

    /// `se(v)`.
    pub(super) fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }

    /// A `ue(v)` that may not exceed `limit`.
    pub(super) fn ue_up_to(&mut self, limit: u32) -> Option<u32> {
        self.ue().filter(|value| *value <= limit)
    }
}

/// The payload of a NAL unit without its emulation prevention bytes (H.264 7.4.1, HEVC 7.4.2).
pub(super) fn unescaped(nal: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

/// A cursor over whole bytes.
pub(super) struct Bytewise<'a>(pub(super) &'a [u8]);

impl<'a> Bytewise<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.0.split_first_chunk::<2>().map(|(bytes, rest)| {
            self.0 = rest;
            u16::from_be_bytes(*bytes)
        })
    }

    /// A NAL unit behind its 16-bit length.
    pub(super) fn nal(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb() {
        // 1 | 010 | 011 | 00100 | 00101 → 0 1 2 3 4
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::new(&bytes);
        let read: Vec<_> = (0..5).map(|_| bits.ue()).collect();
        assert_eq!(read, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        let mut bits = Bits::new(&bytes);
        let read: Vec<_> = (0..5).map(|_| bits.se()).collect();
        assert_eq!(read, [Some(0), Some(1), Some(-1), Some(2), Some(-2)]);
    }

    #[test]
    fn the_end_is_none() {
        assert_eq!(Bits::new(&[0; 9]).ue(), None);
        assert_eq!(Bits::new(&[0, 0]).ue(), None);
        assert_eq!(Bits::new(&[1]).take(9), None);
        assert_eq!(Bits::new(&[1]).skip(9), None);
    }

    #[test]
    fn emulation_prevention() {
        assert_eq!(unescaped(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3]), [0, 0, 1, 0, 0, 0, 0, 3]);
        assert_eq!(unescaped(&[0, 3, 0, 3]), [0, 3, 0, 3]);
    }
}
