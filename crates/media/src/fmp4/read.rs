//! Reads the fragmented MP4 that ffmpeg writes to a pipe, as it comes: first the tracks, then packet after packet.
//!
//! A push parser: bytes go in with [`Reader::push`], events come out of [`Reader::next`] as soon as their last byte is there. A packet is
//! a slice of what was pushed where it lies in one push, and is copied only where it lies in several. Times are passed on as they are;
//! placing them on the film's time line is for the caller. Any bytes are survived, and only one box is ever waited for.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Packet;
use crate::container::mp4::boxes::{Header, Kind as BoxKind, LONGEST_HEADER};
use crate::container::mp4::fragments::{Reading, Told};
use crate::container::mp4::movie::{Movie, Trak};
use crate::container::{Codec, Damage, Kind};

/// A larger box is refused.
const LARGEST_BOX: u64 = 256 * 1024 * 1024;
/// A larger packet is refused.
const LARGEST_PACKET: u32 = 64 * 1024 * 1024;

/// Why a pipe cannot be read on. It stays so: every later call gives the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not what ffmpeg writes.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// A fragment came before the tracks were told.
    #[error("a fragment before the tracks")]
    NoHeader,
}

/// What came out of the pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The tracks, once, before all packets.
    Header(Vec<PipeTrack>),
    /// A packet. Those of one track come in decode order.
    Packet(Packet),
}

/// A track as ffmpeg's `moov` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeTrack {
    /// `track_ID`, as in [`Packet::track`].
    pub id: u32,
    /// Ticks per second of its packets' times, at least 1.
    pub timescale: u32,
    /// Video, audio or something else.
    pub kind: Kind,
    /// How it is coded.
    pub codec: Codec,
    /// The body of `avcC` or `hvcC`, or AAC's AudioSpecificConfig; empty where there is none.
    pub config: Bytes,
    /// Pixels, 0 of a track that is no video.
    pub width: u32,
    /// Pixels, 0 of a track that is no video.
    pub height: u32,
    /// 0 of a track that is no sound.
    pub channels: u16,
    /// Hertz, 0 of a track that is no sound.
    pub sample_rate: u32,
    /// The composition time in ticks at which the edit list begins the presentation: encoder delay of sound, reordering of pictures.
    pub media_time: i64,
}

impl PipeTrack {
    fn new(trak: &Trak) -> Option<Self> {
        let track = &trak.track;
        let (width, height) = track.video.as_ref().map_or((0, 0), |picture| (picture.width, picture.height));
        let (channels, sample_rate) = track.audio.as_ref().map_or((0, 0), |sound| (sound.channels, sound.sample_rate));
        Some(Self {
            id: u32::try_from(track.id).ok()?,
            timescale: track.timescale,
            kind: track.kind,
            codec: track.codec.clone(),
            config: track.config.clone(),
            width,
            height,
            channels,
            sample_rate,
            media_time: trak.media_time(),
        })
    }
}

/// Where reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the head of a box.
    Head,
    /// In a box that is waited for as a whole: its type, where it began, where it ends.
    Body { kind: BoxKind, at: u64, end: u64 },
    /// In an `mdat`.
    Data { end: u64 },
    /// In what is of no use.
    Skip { end: u64 },
}

/// The push parser. See the module.
#[derive(Debug)]
pub struct Reader {
    parts: VecDeque<Bytes>,
    /// Bytes in `parts`.
    held: u64,
    /// Offset in the pipe of the first byte of `parts`.
    at: u64,
    state: State,
    /// Known since the `moov`.
    reading: Option<Reading>,
    tracks: Vec<u32>,
    /// Samples of the last `moof` whose bytes have not come, in the order of the pipe.
    pending: VecDeque<Told>,
    failed: Option<ReadError>,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self {
            parts: VecDeque::new(),
            held: 0,
            at: 0,
            state: State::Head,
            reading: None,
            tracks: Vec::new(),
            pending: VecDeque::new(),
            failed: None,
        }
    }

    /// Adds what came next out of the pipe. Take all events with [`Reader::next`] before the next push, so that not more is held than one
    /// box or packet needs.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() && self.failed.is_none() {
            self.held += bytes.len() as u64;
            self.parts.push_back(bytes);
        }
    }

    /// The next event, or `None` when more bytes are needed.
    #[allow(clippy::should_implement_trait)] // `None` is not the end
    pub fn next(&mut self) -> Result<Option<Event>, ReadError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            match self.step() {
                Ok(Step::On) => {}
                Ok(Step::Give(event)) => return Ok(Some(event)),
                Ok(Step::Wait) => return Ok(None),
                Err(error) => {
                    self.parts.clear();
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// To be called at the end of the pipe, when [`Reader::next`] has given everything: an error where something was cut off.
    pub fn finish(self) -> Result<(), ReadError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.state == State::Head && self.held == 0 && self.pending.is_empty() => Ok(()),
            None => Err(Damage::Truncated.into()),
        }
    }

    fn broken(&self, what: &'static str) -> ReadError {
        Damage::Broken { offset: self.at, what }.into()
    }

    fn step(&mut self) -> Result<Step, ReadError> {
        match self.state {
            State::Head => self.head(),
            State::Body { kind, at, end } => match self.take(end - self.at) {
                Some(body) if kind == *b"moov" => self.header(&body, at),
                Some(body) => self.fragment(&body, at),
                None => Ok(Step::Wait),
            },
            State::Data { end } => self.packet(end),
            State::Skip { end } => Ok(self.skip_to(end, State::Head)),
        }
    }

    fn head(&mut self) -> Result<Step, ReadError> {
        let front = self.front();
        let header = match Header::read(&front) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Step::Wait),
            Err(what) => return Err(self.broken(what)),
        };
        let Some(size) = header.size else { return Err(self.broken("a box without end")) };
        if size > LARGEST_BOX {
            return Err(Damage::TooLarge("a box of the pipe").into());
        }
        if self.held < header.len {
            return Ok(Step::Wait);
        }
        let (at, end) = (self.at, self.at + size);
        self.drop_front(header.len);
        self.state = match &header.kind {
            b"moov" if self.reading.is_none() => State::Body { kind: header.kind, at, end },
            b"moof" => State::Body { kind: header.kind, at, end },
            b"mdat" => State::Data { end },
            _ => State::Skip { end },
        };
        Ok(Step::On)
    }

    fn header(&mut self, body: &Bytes, at: u64) -> Result<Step, ReadError> {
        let movie = Movie::read(body, at, false)?;
        let tracks: Vec<PipeTrack> = movie.traks.iter().filter_map(PipeTrack::new).collect();
        self.tracks = tracks.iter().map(|track| track.id).collect();
        self.reading = Some(Reading::new(movie.traks.iter().map(Trak::defaults)));
        self.state = State::Head;
        Ok(Step::Give(Event::Header(tracks)))
    }

    fn fragment(&mut self, body: &Bytes, at: u64) -> Result<Step, ReadError> {
        if !self.pending.is_empty() {
            return Err(self.broken("a fragment before the end of the last one"));
        }
        let told = self.reading.as_mut().ok_or(ReadError::NoHeader)?.fragment(body, at)?;
        if told.iter().any(|sample| !self.tracks.contains(&sample.track)) {
            return Err(self.broken("a packet of no track"));
        }
        if told.iter().any(|sample| sample.size > LARGEST_PACKET) {
            return Err(Damage::TooLarge("a packet").into());
        }
        self.pending = told.into();
        self.state = State::Head;
        Ok(Step::On)
    }

    /// Gives the next packet of the `mdat` that ends at `end`.
    fn packet(&mut self, end: u64) -> Result<Step, ReadError> {
        let Some(next) = self.pending.front().copied().filter(|next| next.offset < end) else {
            self.state = State::Skip { end };
            return Ok(Step::On);
        };
        let next_end = next.offset.saturating_add(u64::from(next.size));
        if next.offset < self.at || next_end > end {
            return Err(self.broken("a packet lies outside of its data"));
        }
        if next.offset > self.at {
            return Ok(self.skip_to(next.offset, State::Data { end }));
        }
        let Some(data) = self.take(u64::from(next.size)) else { return Ok(Step::Wait) };
        self.pending.pop_front();
        Ok(Step::Give(Event::Packet(Packet {
            track: next.track,
            pts: next.dts.saturating_add(i64::from(next.composition)),
            dts: next.dts,
            duration: next.duration,
            key: next.key,
            data,
        })))
    }

    /// The first bytes, as many as a head can have.
    fn front(&self) -> Bytes {
        match self.parts.front() {
            Some(part) if part.len() >= LONGEST_HEADER => part.slice(..LONGEST_HEADER),
            _ => self.parts.iter().flatten().copied().take(LONGEST_HEADER).collect(),
        }
    }

    /// Takes `len` bytes from the front when they are all there.
    fn take(&mut self, len: u64) -> Option<Bytes> {
        if len > self.held {
            return None;
        }
        let len = usize::try_from(len).ok()?;
        self.held -= len as u64;
        self.at += len as u64;
        if let Some(first) = self.parts.front_mut().filter(|first| first.len() >= len) {
            let data = first.split_to(len);
            if first.is_empty() {
                self.parts.pop_front();
            }
            return Some(data);
        }
        let mut data = BytesMut::with_capacity(len);
        while data.len() < len {
            let mut part = self.parts.pop_front()?;
            let take = part.len().min(len - data.len());
            data.extend_from_slice(&part.split_to(take));
            if !part.is_empty() {
                self.parts.push_front(part);
            }
        }
        Some(data.freeze())
    }

    /// Drops `len` bytes, or as many as there are.
    fn drop_front(&mut self, len: u64) {
        let mut left = len.min(self.held);
        self.held -= left;
        self.at += left;
        while left > 0 {
            let Some(mut part) = self.parts.pop_front() else { return };
            let drop = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
            left -= drop as u64;
            if drop < part.len() {
                self.parts.push_front(part.split_off(drop));
            }
        }
    }

    fn skip_to(&mut self, end: u64, then: State) -> Step {
        self.drop_front(end.saturating_sub(self.at));
        if self.at < end {
            return Step::Wait;
        }
        self.state = then;
        Step::On
    }
}

/// What one step led to.
enum Step {
    On,
    Give(Event),
    Wait,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A box.
    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).expect("small").to_be_bytes();
        [&size[..], kind, body].concat()
    }

    /// 32-bit numbers one after the other.
    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// A `moov` of one sound track with the time scale 1000 and samples of 10 ticks.
    fn moov() -> Vec<u8> {
        let tkhd = boxed(b"tkhd", &[words(&[1, 0, 0, 7]), vec![0; 68]].concat());
        let mdhd = boxed(b"mdhd", &words(&[0, 0, 0, 1000, 0, 0x55c4_0000]));
        let hdlr = boxed(b"hdlr", &[&words(&[0, 0])[..], b"soun", &[0; 13]].concat());
        let entry = boxed(b"mp4a", &words(&[0, 1, 0, 0, 0x2_0010, 0, 48_000 << 16]));
        let stsd = boxed(b"stsd", &[words(&[0, 1]), entry].concat());
        let minf = boxed(b"minf", &boxed(b"stbl", &stsd));
        let elst = boxed(b"edts", &boxed(b"elst", &words(&[0, 1, 0, 24, 0x1_0000])));
        let trak = boxed(b"trak", &[tkhd, elst, boxed(b"mdia", &[mdhd, hdlr, minf].concat())].concat());
        let mvex = boxed(b"mvex", &boxed(b"trex", &words(&[0, 7, 1, 10, 0, 0])));
        boxed(b"moov", &[boxed(b"mvhd", &words(&[0, 0, 0, 1000, 0])), trak, mvex].concat())
    }

    /// A `moof` with samples of the given sizes from the time `from` on, the first of them `gap` bytes into the `mdat`.
    fn moof(from: i64, sizes: &[u32], gap: u32) -> Vec<u8> {
        let tfhd = boxed(b"tfhd", &words(&[0x2_0000, 7]));
        let tfdt = boxed(b"tfdt", &[words(&[0x100_0000]), from.to_be_bytes().to_vec()].concat());
        let run = |offset: u32| {
            let rows: Vec<u32> = [&[0x201, u32::try_from(sizes.len()).expect("few"), offset], sizes].concat();
            let traf = boxed(b"traf", &[&tfhd[..], &tfdt, &boxed(b"trun", &words(&rows))].concat());
            boxed(b"moof", &traf)
        };
        let len = u32::try_from(run(0).len()).expect("small");
        run(len + 8 + gap)
    }

    /// The same with its `mdat`, whose bytes count up.
    fn fragment(from: i64, sizes: &[u32], gap: u32) -> Vec<u8> {
        let data: Vec<u8> = (0..gap + sizes.iter().sum::<u32>()).map(|byte| byte as u8).collect();
        [moof(from, sizes, gap), boxed(b"mdat", &data)].concat()
    }

    fn pipe() -> Vec<u8> {
        [boxed(b"ftyp", b"iso5"), moov(), fragment(-24, &[3, 0, 4], 0), boxed(b"free", &[1; 9]), fragment(6, &[2], 5), boxed(b"mfra", &[])]
            .concat()
    }

    /// All events of bytes that come in parts of `part` bytes.
    fn events(bytes: &[u8], part: usize) -> Result<Vec<Event>, ReadError> {
        let mut reader = Reader::new();
        let mut events = Vec::new();
        for part in bytes.chunks(part) {
            reader.push(Bytes::copy_from_slice(part));
            while let Some(event) = reader.next()? {
                events.push(event);
            }
        }
        reader.finish().map(|()| events)
    }

    #[test]
    fn header_then_packets_however_the_bytes_come() {
        let whole = events(&pipe(), usize::MAX).expect("a good pipe");
        let Some(Event::Header(tracks)) = whole.first() else { panic!("no header") };
        let [track] = tracks.as_slice() else { panic!("not one track") };
        assert_eq!((track.id, track.timescale, track.kind, track.media_time), (7, 1000, Kind::Audio, 24));
        assert_eq!((track.channels, track.sample_rate, &track.codec), (2, 48_000, &Codec::Aac));
        let packets: Vec<_> = whole
            .iter()
            .filter_map(|event| match event {
                Event::Packet(packet) => Some((packet.pts, packet.duration, packet.data.to_vec())),
                Event::Header(_) => None,
            })
            .collect();
        assert_eq!(packets, [(-24, 10, vec![0, 1, 2]), (-14, 10, vec![]), (-4, 10, vec![3, 4, 5, 6]), (6, 10, vec![5, 6])]);
        for part in [1, 2, 7, 8, 9, 64] {
            assert_eq!(events(&pipe(), part).as_ref(), Ok(&whole), "in parts of {part}");
        }
    }

    #[test]
    fn packets_are_slices_of_what_was_pushed() {
        let bytes = Bytes::from(pipe());
        let mut reader = Reader::new();
        reader.push(bytes.clone());
        while let Some(event) = reader.next().expect("a good pipe") {
            if let Event::Packet(packet) = event
                && !packet.data.is_empty()
            {
                assert!(bytes.as_ptr_range().contains(&packet.data.as_ptr()));
            }
        }
    }

    #[test]
    fn refusals() {
        let broken = |bytes: &[u8]| events(bytes, 16).expect_err("refused");
        assert_eq!(broken(&fragment(0, &[1], 0)), ReadError::NoHeader);
        assert_eq!(broken(b"\xff\xff\xff\xffmdat........"), ReadError::Damage(Damage::TooLarge("a box of the pipe")));
        assert_eq!(broken(&[moov(), moof(0, &[1 << 27], 0)].concat()), ReadError::Damage(Damage::TooLarge("a packet")));
        assert!(matches!(broken(b"\0\0\0\0mdat"), ReadError::Damage(Damage::Broken { offset: 0, .. })));
        let pipe = pipe();
        assert_eq!(broken(&pipe[..pipe.len() - 9]), ReadError::Damage(Damage::Truncated));
        let twice = [moov(), moof(0, &[4], 0), fragment(0, &[4], 0)].concat();
        assert!(matches!(broken(&twice), ReadError::Damage(Damage::Broken { .. })));
    }

    #[test]
    fn an_error_stays() {
        let mut reader = Reader::new();
        reader.push(Bytes::from_static(b"\0\0\0\x02abcd"));
        let error = reader.next().expect_err("refused");
        reader.push(Bytes::from(pipe()));
        assert_eq!(reader.next(), Err(error.clone()));
        assert_eq!(reader.finish(), Err(error));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), part in 1_usize..40) {
            let _ = events(&bytes, part);
        }

        #[test]
        fn survives_any_change(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), part in 1_usize..400) {
            let mut bytes = pipe();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = events(&bytes, part);
        }
    }
}
