//! AC-3 and E-AC-3 (ETSI TS 102 366): the header of a frame, and the bodies of `dac3` and `dec3` (Annex F) that MP4 keeps in its place.
//!
//! Matroska keeps neither, so that both are made of the track's first frame. Audio blocks are never looked at.

use bytes::Bytes;

use super::DescribedSound;
use super::bits::Bits;
use crate::container::Sound;

/// First bytes of a synchronization frame.
const SYNC: u32 = 0x0b77;
/// Samples of an audio block, of which AC-3 has six in a frame.
const BLOCK: u32 = 256;
/// Samples of an MP4 sample of either codec (F.2, F.5: six blocks of every substream).
pub const FRAME: u32 = 6 * BLOCK;
/// What `bsid` says of AC-3, and of E-AC-3.
const AC3: std::ops::RangeInclusive<u8> = 0..=8;
const EAC3: std::ops::RangeInclusive<u8> = 11..=16;
/// Frames of one access unit that are looked at: eight programs and eight extensions of each.
const MOST_FRAMES: usize = 72;
/// Kilobits per second by `frmsizecod` / 2 (table 4.13).
const RATES: [u32; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];

/// What the body of `dac3` tells (F.4). `None` where it is damaged.
pub fn describe_ac3(dac3: &[u8]) -> Option<DescribedSound> {
    let bits = &mut Bits::new(dac3);
    let rate = rate(bits.take(2)?)?;
    let version = bits.take(5)?;
    bits.skip(3)?;
    let (mode, low) = (bits.take(3)?, bits.flag()?);
    let kilobits = RATES.get(usize::try_from(bits.take(5)?).ok()?)?;
    let known = u8::try_from(version).is_ok_and(|version| AC3.contains(&version));
    known.then(|| described("ac-3", channels(mode, low), rate, *kilobits))
}

/// What the body of `dec3` tells (F.6) of its first program: the substream and those that depend on it. `None` where it is damaged.
pub fn describe_eac3(dec3: &[u8]) -> Option<DescribedSound> {
    let bits = &mut Bits::new(dec3);
    let kilobits = bits.take(13)?;
    bits.skip(3)?;
    let rate = rate(bits.take(2)?)?;
    bits.skip(5 + 1 + 1 + 3)?;
    let mut channels = channels(bits.take(3)?, bits.flag()?);
    bits.skip(3)?;
    if bits.take(4)? > 0 {
        channels += extension(bits.take(9)?);
    }
    Some(described("ec-3", channels, rate, kilobits))
}

/// Whether the body of `dec3` says that the sound carries objects (ETSI TS 103 420, `flag_ec3_extension_type_a`), and how many at most.
pub fn objects(dec3: &[u8]) -> Option<u8> {
    let bits = &mut Bits::new(dec3);
    bits.skip(13)?;
    for _ in 0..=bits.take(3)? {
        bits.skip(19)?;
        let extended = bits.take(4)? > 0;
        bits.skip(if extended { 9 } else { 1 })?;
    }
    bits.skip(7)?;
    if bits.flag()? { bits.byte() } else { None }
}

fn described(codecs: &str, channels: u16, sample_rate: u32, kilobits: u32) -> DescribedSound {
    DescribedSound {
        codecs: codecs.to_owned(),
        sound: Sound { channels, sample_rate, frame_len: Some(FRAME) },
        bitrate: (kilobits > 0).then(|| u64::from(kilobits) * 1000),
    }
}

/// The body of `dac3` of a track whose first frame this is. `None` where it is no frame of AC-3 in 32 to 48 kHz.
pub fn dac3(frame: &[u8]) -> Option<Bytes> {
    let bits = &mut Bits::new(frame);
    if bits.take(16)? != SYNC {
        return None;
    }
    bits.skip(16)?; // crc1
    let rate_code = bits.take(2)?;
    rate(rate_code)?;
    let size_code = bits.take(6)?;
    RATES.get(usize::try_from(size_code / 2).ok()?)?;
    let version = bits.take(5)?;
    u8::try_from(version).ok().filter(|version| AC3.contains(version))?;
    let service = bits.take(3)?;
    let mode = bits.take(3)?;
    for there in [mode & 1 == 1 && mode != 1, mode & 4 != 0, mode == 2] {
        bits.skip(if there { 2 } else { 0 })?; // cmixlev, surmixlev, dsurmod
    }
    let low = bits.flag()?;
    let mut out = Packed::default();
    out.put(rate_code, 2).put(version, 5).put(service, 3).put(mode, 3).put(u32::from(low), 1).put(size_code / 2, 5).put(0, 5);
    Some(out.finish())
}

/// The body of `dec3` of a track whose first access unit this is: all its substreams, as far as they are whole enough to have a header.
/// `None` where it is no E-AC-3 in 32 to 48 kHz, or its frames have fewer than six blocks: an MP4 sample would hold several of them.
pub fn dec3(unit: &[u8]) -> Option<Bytes> {
    let (programs, bytes) = programs(unit)?;
    let first = programs.first()?;
    let rate = rate(first.header.rate_code)?;
    let kilobits = u64::try_from(bytes).ok()? * 8 * u64::from(rate) / u64::from(FRAME) / 1000;
    let mut out = Packed::default();
    out.put(u32::try_from(kilobits).ok()?.min((1 << 13) - 1), 13).put(u32::try_from(programs.len() - 1).ok()?, 3);
    for Program { header, dependents, location } in &programs {
        out.put(header.rate_code, 2).put(u32::from(header.version), 5).put(0, 2).put(header.service, 3).put(header.mode, 3);
        out.put(u32::from(header.low), 1).put(0, 3).put(*dependents, 4);
        out.put(*location, if *dependents > 0 { 9 } else { 1 });
    }
    if let Some(complexity) = first.header.objects {
        out.put(1, 8).put(u32::from(complexity), 8);
    }
    Some(out.finish())
}

/// An independent substream and what depends on it.
struct Program {
    header: Header,
    dependents: u32,
    /// `chan_loc`.
    location: u32,
}

impl Program {
    fn depend(&mut self, dependent: &Header) {
        self.dependents = (self.dependents + 1).min(15);
        self.location |= dependent.location;
        // Objects are announced in whichever substream is the last.
        self.header.objects = self.header.objects.or(dependent.objects);
    }
}

/// The programs of an access unit, and the bytes of their frames.
fn programs(unit: &[u8]) -> Option<(Vec<Program>, usize)> {
    let (mut programs, mut at) = (Vec::<Program>::new(), 0_usize);
    for _ in 0..MOST_FRAMES {
        let Some(header) = unit.get(at..).and_then(Header::read) else { break };
        let again = programs.iter().any(|program| program.header.id == header.id);
        match header.kind {
            INDEPENDENT if again => break, // the next access unit
            INDEPENDENT if header.blocks == 6 && programs.len() < 8 => programs.push(Program { header, dependents: 0, location: 0 }),
            DEPENDENT => programs.last_mut()?.depend(&header),
            _ => return None,
        }
        at += header.len;
    }
    Some((programs, at)).filter(|(programs, _)| !programs.is_empty())
}

/// `strmtyp` (E.1.3.1.1).
const INDEPENDENT: u32 = 0;
const DEPENDENT: u32 = 1;

/// What the header of an E-AC-3 frame tells (E.1.2.2).
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u32,
    id: u32,
    /// Bytes of the frame.
    len: usize,
    rate_code: u32,
    blocks: u32,
    mode: u32,
    low: bool,
    version: u8,
    /// `bsmod`
    service: u32,
    /// Of a dependent substream, in the bits of `chan_loc`.
    location: u32,
    /// `complexity_index_type_a`, where the frame says that it carries objects.
    objects: Option<u8>,
}

impl Header {
    fn read(frame: &[u8]) -> Option<Self> {
        let bits = &mut Bits::new(frame);
        if bits.take(16)? != SYNC {
            return None;
        }
        let (kind, id, size, rate_code, blocks) = (bits.take(2)?, bits.take(3)?, bits.take(11)?, bits.take(2)?, bits.take(2)?);
        let (mode, low, version) = (bits.take(3)?, bits.flag()?, bits.byte_of(5)?);
        rate(rate_code)?;
        let mut header = Self {
            kind,
            id,
            len: usize::try_from(size + 1).ok()? * 2,
            rate_code,
            blocks: [1, 2, 3, 6].get(usize::try_from(blocks).ok()?).copied()?,
            mode,
            low,
            version: Some(version).filter(|version| EAC3.contains(version))?,
            service: 0,
            location: 0,
            objects: None,
        };
        // A first frame that is cut off here is still one.
        let _ = header.read_rest(bits);
        Some(header)
    }

    fn read_rest(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        for _ in 0..if self.mode == 0 { 2 } else { 1 } {
            bits.skip(5)?; // dialnorm
            bits.optional(8)?; // compr
        }
        if self.kind == DEPENDENT && bits.flag()? {
            self.location = location(bits.take(16)?);
        }
        if bits.flag()? {
            self.skip_mixing(bits)?;
        }
        if bits.flag()? {
            self.read_information(bits)?;
        }
        if self.kind == INDEPENDENT && self.blocks != 6 {
            bits.skip(1)?; // convsync
        }
        if self.kind == 2 && (self.blocks == 6 || bits.flag()?) {
            bits.skip(6)?; // frmsizecod
        }
        if bits.flag()? {
            self.read_additional(bits)?;
        }
        Some(())
    }

    /// Everything behind `mixmdate`.
    fn skip_mixing(&self, bits: &mut Bits<'_>) -> Option<()> {
        let (mode, dual) = (self.mode, self.mode == 0);
        bits.skip(if mode > 2 { 2 } else { 0 })?; // dmixmod
        bits.skip(if mode & 1 == 1 && mode > 2 { 6 } else { 0 })?; // mix levels of the centre
        bits.skip(if mode & 4 != 0 { 6 } else { 0 })?; // mix levels of the surround channels
        if self.low {
            bits.optional(5)?;
        }
        if self.kind != INDEPENDENT {
            return Some(());
        }
        for _ in 0..if dual { 3 } else { 2 } {
            bits.optional(6)?; // pgmscl, pgmscl2, extpgmscl
        }
        match bits.take(2)? {
            1 => bits.skip(5)?,
            2 => bits.skip(12)?,
            3 => {
                let len = usize::try_from(bits.take(5)?).ok()?;
                bits.skip(8 * (len + 2))?;
            }
            _ => {}
        }
        if mode < 2 {
            for _ in 0..if dual { 2 } else { 1 } {
                bits.optional(14)?; // panmean, paninfo
            }
        }
        if bits.flag()? {
            if self.blocks == 1 {
                bits.skip(5)?;
            } else {
                for _ in 0..self.blocks {
                    bits.optional(5)?;
                }
            }
        }
        Some(())
    }

    /// Everything behind `infomdate`.
    fn read_information(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.service = bits.take(3)?;
        bits.skip(2)?; // copyrightb, origbs
        bits.skip(match self.mode {
            2 => 4,   // dsurmod, dheadphonmod
            6.. => 2, // dsurexmod
            _ => 0,
        })?;
        for _ in 0..if self.mode == 0 { 2 } else { 1 } {
            bits.optional(8)?; // mixlevel, roomtyp, adconvtyp
        }
        bits.skip(1) // sourcefscod
    }

    /// `addbsi`, in which objects are announced (ETSI TS 103 420, 8.3.1).
    fn read_additional(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let len = bits.take(6)? + 1;
        bits.skip(7)?;
        if bits.flag()? && len >= 2 {
            self.objects = bits.byte();
        }
        Some(())
    }
}

/// `chan_loc` (table F.1) of a `chanmap` (table E.1.4): the places that no independent substream has.
fn location(map: u32) -> u32 {
    let second_low = map >> 1 & 1;
    (0..8).map(|place| (map >> (10 - place) & 1) << place).sum::<u32>() | second_low << 8
}

/// Channels at the places of a `chan_loc`.
fn extension(location: u32) -> u16 {
    const CHANNELS: [u16; 9] = [2, 2, 1, 1, 2, 2, 2, 1, 1];
    CHANNELS.iter().enumerate().filter(|(place, _)| location >> place & 1 == 1).map(|(_, channels)| channels).sum()
}

/// From `acmod` (table 4.3) and `lfeon`.
fn channels(mode: u32, low: bool) -> u16 {
    [2, 1, 2, 3, 3, 4, 4, 5].get(mode as usize & 7).copied().unwrap_or(2) + u16::from(low)
}

/// From `fscod`. The half rates of E-AC-3 have no place in `dec3` that all readers know.
fn rate(code: u32) -> Option<u32> {
    [48_000, 44_100, 32_000].get(usize::try_from(code).ok()?).copied()
}

/// Writes numbers of some bits one after the other.
#[derive(Default)]
struct Packed {
    bytes: Vec<u8>,
    /// Bits in the last byte.
    filled: u32,
}

impl Packed {
    fn put(&mut self, value: u32, bits: u32) -> &mut Self {
        for bit in (0..bits).rev() {
            if self.filled.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::try_from(value >> bit & 1).unwrap_or(0) << (7 - self.filled % 8);
            }
            self.filled += 1;
        }
        self
    }

    fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::bytes;
    use super::*;

    /// Beginnings of frames that libavcodec's encoders wrote: 5.1 at 448 kbit/s, stereo at 192 kbit/s.
    const AC3_SURROUND: &str = "0b77c4b71e40ebf8403eff99";
    const AC3_STEREO: &str = "0b77fe95144043e106f46370";

    type Line = (String, u16, u32, Option<u32>, Option<u64>);

    fn line(told: Option<DescribedSound>) -> Option<Line> {
        told.map(|told| (told.codecs, told.sound.channels, told.sound.sample_rate, told.sound.frame_len, told.bitrate))
    }

    /// A frame of E-AC-3 with nothing behind its header.
    fn frame(kind: u32, id: u32, mode: u32, low: u32, rest: &[(u32, u32)]) -> Vec<u8> {
        let mut out = Packed::default();
        out.put(SYNC, 16).put(kind, 2).put(id, 3).put(767, 11).put(0, 2).put(3, 2).put(mode, 3).put(low, 1).put(16, 5);
        for (value, bits) in rest {
            out.put(*value, *bits);
        }
        let mut frame = out.finish().to_vec();
        frame.resize(1536, 0);
        frame
    }

    #[test]
    fn ac3_of_a_frame() {
        let surround = dac3(&bytes(AC3_SURROUND)).unwrap();
        assert_eq!(surround[..], [0x10, 0x3d, 0xe0]);
        assert_eq!(line(describe_ac3(&surround)), Some(("ac-3".into(), 6, 48_000, Some(1536), Some(448_000))));
        let stereo = dac3(&bytes(AC3_STEREO)).unwrap();
        assert_eq!(line(describe_ac3(&stereo)), Some(("ac-3".into(), 2, 48_000, Some(1536), Some(192_000))));
        assert_eq!(dac3(b"\x77\x0b swapped"), None);
        assert_eq!(dac3(&frame(0, 0, 7, 1, &[])), None, "E-AC-3");
    }

    #[test]
    fn eac3_of_libavcodec() {
        // 2,560 bytes in a frame
        let body = dec3(&[&bytes("0b7704ff3f87c0000084210841084210")[..], &[0; 2544]].concat()).unwrap();
        assert_eq!(body[..], [0x14, 0x00, 0x20, 0x0f, 0x00]);
        assert_eq!(line(describe_eac3(&body)), Some(("ec-3".into(), 6, 48_000, Some(1536), Some(640_000))));
    }

    #[test]
    fn eac3_of_one_substream() {
        // no compression word, no mixing data, information with bsmod 2
        let unit = frame(INDEPENDENT, 0, 7, 1, &[(31, 5), (0, 1), (0, 1), (1, 1), (2, 3)]);
        let body = dec3(&unit).unwrap();
        assert_eq!(body[..], [0x0c, 0x00, 0x20, 0x2f, 0x00]);
    }

    #[test]
    fn eac3_of_eight_channels() {
        let rear = 1 << 12 | 1 << 11 | 1 << 9; // Ls, Rs, Lrs and Rrs
        let whole = [
            frame(INDEPENDENT, 0, 7, 1, &[(31, 5), (0, 1), (0, 1), (0, 1), (0, 1)]),
            frame(DEPENDENT, 0, 6, 0, &[(31, 5), (0, 1), (1, 1), (rear, 16), (0, 1), (0, 1), (0, 1)]),
        ]
        .concat();
        let body = dec3(&whole).unwrap();
        assert_eq!(line(describe_eac3(&body)), Some(("ec-3".into(), 8, 48_000, Some(1536), Some(768_000))));
        assert_eq!(objects(&body), None);
        // The frame of the next access unit belongs to nobody here.
        assert_eq!(dec3(&[&whole[..], &whole[..]].concat()), Some(body));
    }

    #[test]
    fn eac3_with_objects() {
        let announced = [(31, 5), (0, 1), (0, 1), (0, 1), (1, 1), (1, 6), (1, 8), (16, 8)];
        let body = dec3(&frame(INDEPENDENT, 0, 7, 1, &announced)).unwrap();
        assert_eq!(objects(&body), Some(16));
        assert_eq!(body.len(), 7);
        assert_eq!(line(describe_eac3(&body)), Some(("ec-3".into(), 6, 48_000, Some(1536), Some(384_000))));
    }

    #[test]
    fn what_cannot_be_one_sample_is_refused() {
        let mut two_blocks = frame(INDEPENDENT, 0, 7, 1, &[]);
        two_blocks[4] = two_blocks[4] & 0xcf | 0x10;
        assert_eq!(dec3(&two_blocks), None);
        assert_eq!(dec3(&frame(DEPENDENT, 0, 7, 1, &[])), None);
        assert_eq!(dec3(&bytes(AC3_STEREO)), None);
        assert_eq!(dec3(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80), after_sync: bool) {
            let frame = [if after_sync { &[0x0b, 0x77][..] } else { &[] }, &bytes].concat();
            if let Some(body) = dac3(&frame) {
                prop_assert!(describe_ac3(&body).is_some());
            }
            if let Some(body) = dec3(&frame) {
                prop_assert!(describe_eac3(&body).is_some());
            }
            let _ = (describe_ac3(&bytes), describe_eac3(&bytes), objects(&bytes));
        }
    }
}
