//! What each fuzz target does with its bytes, and what must hold for any bytes whatever.
//!
//! The fuzzer and the ordinary test that replays its corpora include this same file, so that what was found once stays found.

#![allow(dead_code, reason = "a fuzz target uses one function of them")]

use std::sync::LazyLock;

use balcony_media::codec::{aac, alac, av1, dolby, flac, h264, hevc, opus, vp9};
use balcony_media::container::{Container, Damage, Frame, Index, Samples, Sparse, Stop, matroska, mp4};
use balcony_media::fmp4::read::{Event, ReadError, Reader};
use balcony_media::fmp4::wvtt;
use balcony_media::magnet::{self, Magnet};
use balcony_media::range::{self, Ranges};
use balcony_media::subtitle::{self, Cue, ass, charset, mov_text, name, srt, vtt, write};
use bytes::Bytes;

/// Any text: what can be read has a normal form that says the same.
pub(crate) fn magnet(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(magnet) = Magnet::parse(&text) else { return };
    assert!(magnet.trackers.len() <= magnet::MAX_TRACKERS);
    assert!(magnet.peers.len() <= magnet::MAX_PEERS);
    assert!(magnet.select.len() <= magnet::MAX_SELECTED && magnet.select.is_sorted());
    assert!(magnet.name.as_deref().is_none_or(|name| !name.is_empty() && !name.contains(char::is_control)));
    for tracker in &magnet.trackers {
        assert!(magnet::tracker_reach(tracker).is_some(), "{tracker:?} leads nowhere");
    }
    let link = magnet.to_link();
    assert!(link.len() <= magnet::MAX_LINK_LEN, "{} bytes", link.len());
    let again = Magnet::parse(&link).expect("the normal form is a magnet");
    assert_eq!((again.info_hash, &again.name, &again.trackers), (magnet.info_hash, &magnet.name, &magnet.trackers));
}

/// Eight bytes of file length, then the header: a range lies within the file.
pub(crate) fn range(data: &[u8]) {
    let Some((len, header)) = data.split_first_chunk::<8>() else { return };
    let len = u64::from_be_bytes(*len);
    let header = String::from_utf8_lossy(header);
    let ranges = range::parse(Some(&header), len);
    if let Ranges::One { start, end } = ranges {
        assert!(start <= end && end < len);
    }
    if let Some((offset, count)) = ranges.span(len) {
        assert!(offset.checked_add(count).is_some_and(|end| end <= len));
    }
    assert_eq!(ranges.content_range(len).is_some(), ranges.status() != 200);
    range::if_range_holds(Some(&header), Some("\"a\""), Some("Sat, 29 Oct 1994 19:43:31 GMT"));
}

/// One byte that tells the codec, then its configuration record.
pub(crate) fn codec(data: &[u8]) {
    let Some((which, config)) = data.split_first() else { return };
    let picture = match which {
        b'9' => {
            let made = vp9::vpcc(config, 24.0, None);
            assert!(made.as_deref().is_none_or(|made| vp9::describe(made).is_some()), "what is made can be read");
            assert!(vp9::describe(config).is_none_or(|told| told.codecs.len() < 64 && told.codecs.is_ascii()));
            return;
        }
        b'1' => {
            assert!(av1::describe(config).is_none_or(|told| told.codecs.len() < 64 && told.codecs.is_ascii()));
            return;
        }
        b'd' | b'o' | b'f' | b'l' => return sound(*which, config),
        b'4' => h264::describe(config),
        b'5' => {
            hevc::has_in_band_parameters_only(config);
            let completed = hevc::complete(config);
            assert!(completed.len() <= config.len() + 16, "completing adds a few bytes at most");
            hevc::describe(config)
        }
        _ => {
            let sound = aac::describe(config);
            assert!(sound.is_none_or(|sound| sound.codecs.starts_with("mp4a.40.")));
            return;
        }
    };
    if let Some(described) = picture {
        assert!((1..=4).contains(&described.nal_length));
        assert!(described.codecs.is_ascii() && described.codecs.len() < 64);
        described.codecs_in_band();
    }
}

/// A configuration of sound, or the frame that it is made of: what is made of either can be read again and stays as it is.
fn sound(which: u8, config: &[u8]) {
    match which {
        b'd' => {
            dolby::objects(config);
            let (ac3, eac3) = (dolby::dac3(config), dolby::dec3(config));
            assert!(ac3.as_deref().is_none_or(|made| dolby::describe_ac3(made).is_some()));
            assert!(eac3.as_deref().is_none_or(|made| dolby::describe_eac3(made).is_some() && made.len() < 64));
            let (ac3, eac3) = (dolby::describe_ac3(config), dolby::describe_eac3(config));
            assert!([ac3, eac3].iter().flatten().all(|told| told.sound.channels > 0 && told.sound.sample_rate > 0));
        }
        b'o' => {
            let made = opus::dops(config);
            assert!(made.as_deref().is_none_or(|made| opus::dops(made).as_deref() == Some(made)));
            assert_eq!(made.is_some(), opus::describe(config).is_some());
            assert!(opus::packet_len(config).is_none_or(|len| (1..=5760).contains(&len)));
        }
        b'f' => {
            let made = flac::dfla(config);
            assert!(made.as_deref().is_none_or(|made| flac::dfla(made).as_deref() == Some(made)));
            assert!(flac::describe(config).is_none_or(|told| made.is_some() && told.sound.sample_rate > 0));
        }
        _ => assert!(alac::describe(config).is_none_or(|told| alac::body(config).is_some() && told.sound.sample_rate > 0)),
    }
}

/// A whole MP4 file: its index, and if it is fragmented all its frames.
pub(crate) fn mp4(data: &[u8]) {
    for mut film in Film::honest_and_huge(data) {
        let Ok(index) = film.answer(mp4::index) else { continue };
        check_index(&index, film.len);
        if index.container == Container::FragmentedMp4 {
            let Ok(context) = film.answer(mp4::Context::read) else { continue };
            let mut fragments = mp4::Fragments::at(index.first_byte, context);
            film.read_frames(|bytes| fragments.next(bytes));
        }
    }
}

/// A whole Matroska file: its index, then frames from the beginning and between key frames.
pub(crate) fn matroska(data: &[u8]) {
    for mut film in Film::honest_and_huge(data) {
        let Ok(index) = film.answer(matroska::index) else { continue };
        check_index(&index, film.len);
        let mut blocks = matroska::Blocks::at(index.first_byte, &index);
        film.read_frames(|bytes| blocks.next(bytes));
        let keys = index.video().map_or(&[][..], |track| &track.key_frames);
        for pair in keys.windows(2).take(4) {
            let mut blocks = matroska::Blocks::between(&index, pair.first(), pair.last());
            film.read_frames(|bytes| blocks.next(bytes));
        }
    }
}

/// Clusters alone, read after the index of a film that has picture, laced sound, stripped headers and subtitles.
pub(crate) fn matroska_blocks(data: &[u8]) {
    static INDEX: LazyLock<Index> = LazyLock::new(|| {
        let film = include_bytes!("../../../../fuzz/corpus/matroska/all-kinds.mkv");
        let mut index = Film::new(film, film.len() as u64).answer(matroska::index).expect("a sound film");
        index.first_byte = 0;
        index
    });
    for mut film in Film::honest_and_huge(data) {
        let index = Index { end_byte: film.len, ..INDEX.clone() };
        let mut blocks = matroska::Blocks::at(0, &index);
        film.read_frames(|bytes| blocks.next(bytes));
    }
}

/// One byte that tells the size of pushes, then what comes out of a pipe: the events are the same however it is divided.
pub(crate) fn fmp4_read(data: &[u8]) {
    let Some((step, pipe)) = data.split_first() else { return };
    let whole = read_pipe(pipe, pipe.len().max(1));
    let divided = read_pipe(pipe, 1 + 3 * usize::from(*step));
    assert_eq!(whole, divided);
    let mut header_seen = false;
    for event in &whole.0 {
        match event {
            Event::Header(tracks) => {
                assert!(!header_seen && tracks.iter().all(|track| track.timescale > 0));
                header_seen = true;
            }
            Event::Packet(packet) => assert!(header_seen && packet.data.len() <= pipe.len()),
        }
    }
}

/// All events of a pipe, and how it ended.
fn read_pipe(pipe: &[u8], step: usize) -> (Vec<Event>, Result<(), ReadError>) {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for part in pipe.chunks(step) {
        reader.push(Bytes::copy_from_slice(part));
        loop {
            match reader.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(), Err(error.clone()), "what is broken stays broken");
                    return (events, Err(error));
                }
            }
            assert!(events.len() <= 1024 + 64 * pipe.len(), "events without end");
        }
    }
    (events, reader.finish())
}

/// A film file that answers what a parser asks for, and watches how it asks.
struct Film<'a> {
    data: &'a [u8],
    /// Length that the parser is told; what lies past `data` is zero.
    len: u64,
    known: Sparse,
    /// Questions that may still be asked.
    patience: usize,
    zeros: u64,
}

impl<'a> Film<'a> {
    /// Nothing that a parser asks for at once may be larger.
    const LARGEST_READ: u64 = 256 << 20;
    /// Zeros past the data that are told before the film breaks off, as more of them find nothing new.
    const ZEROS: u64 = 128 << 10;

    fn new(data: &'a [u8], len: u64) -> Self {
        Self { data, len, known: Sparse::new(len), patience: 512 + data.len() / 8, zeros: Self::ZEROS }
    }

    /// The file as it is, and as the beginning of one of a tebibyte, in which every large number of the file may come true.
    fn honest_and_huge(data: &'a [u8]) -> [Self; 2] {
        [Self::new(data, data.len() as u64), Self::new(data, data.len() as u64 | 1 << 40)]
    }

    /// Calls a parser until it needs nothing more.
    fn answer<T>(&mut self, mut parse: impl FnMut(&Sparse) -> Result<T, Stop>) -> Result<T, Damage> {
        loop {
            match parse(&self.known) {
                Ok(value) => return Ok(value),
                Err(Stop::Bad(damage)) => return Err(damage),
                Err(Stop::Need { offset, len }) => self.tell(offset, len)?,
            }
        }
    }

    fn tell(&mut self, offset: u64, len: u64) -> Result<(), Damage> {
        let end = offset.checked_add(len).expect("a range");
        assert!(len > 0, "asks for nothing at {offset}");
        assert!(end <= self.len, "asks for {len} bytes at {offset} of {}", self.len);
        assert!(len <= Self::LARGEST_READ, "asks for {len} bytes at once");
        assert!(self.known.known(offset, 1).is_empty(), "asks again for the byte at {offset}");
        self.patience = self.patience.checked_sub(1).expect("asks a bounded number of times");
        let known = usize::try_from(offset).ok().and_then(|from| self.data.get(from..)).unwrap_or_default();
        self.zeros = self.zeros.checked_sub(len.saturating_sub(known.len() as u64)).ok_or(Damage::Truncated)?;
        let mut part = known.get(..known.len().min(len as usize)).unwrap_or_default().to_vec();
        part.resize(len as usize, 0);
        self.known.insert(offset, Bytes::from(part));
        Ok(())
    }

    /// Reads frames to the end: each lies within the file, and they are not many more than its bytes can describe.
    fn read_frames(&mut self, mut next: impl FnMut(&Sparse) -> Result<Option<Frame>, Stop>) {
        let mut frames = 0;
        while let Ok(Some(frame)) = self.answer(&mut next) {
            let end = frame.offset.checked_add(u64::from(frame.len));
            assert!(end.is_some_and(|end| end <= self.len), "{frame:?} lies outside of the file");
            frames += 1;
            assert!(frames <= 1024 + 64 * self.data.len(), "frames without end");
        }
    }
}

/// What the types promise of every index.
fn check_index(index: &Index, len: u64) {
    assert!(index.first_byte <= len && index.end_byte <= len, "{}..{}", index.first_byte, index.end_byte);
    assert!(index.duration.is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0), "{:?}", index.duration);
    for track in &index.tracks {
        assert!(track.timescale > 0);
        assert!(track.video.as_ref().is_none_or(|picture| matches!(picture.rotation, 0 | 90 | 180 | 270)));
        assert!(track.key_frames.is_sorted_by_key(|key| key.pts), "key frames are in order of time");
        assert!(track.key_frames.iter().all(|key| key.offset < len));
        if let Samples::Table(samples) = &track.samples {
            let within = |offset: u64, size: u32| offset.checked_add(u64::from(size)).is_some_and(|end| end <= len);
            assert!(samples.iter().all(|sample| within(sample.offset, sample.size)));
        }
    }
}

/// One byte that tells how to read, then a file of subtitles or a sample: cues have a time and a text, and are read again as they were
/// written.
pub(crate) fn subtitles(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let text = charset::decode(data, None);
    let said = match which {
        b's' => srt::said(&text),
        b'a' => ass::Script::read(&text).block(&text),
        b'v' => vtt::block(data),
        b't' => mov_text::said(data),
        b'w' => vtt::sample(data).into_iter().next().unwrap_or_default(),
        b'n' => {
            let told = name::told(&text, "Film.mkv");
            assert!(!told.language.is_empty());
            name::belongs(&text, "a/Film.mkv", true);
            return;
        }
        _ => return subtitle_file(&text),
    };
    if let Some(cue) = Cue::new(0, 1, said) {
        assert_eq!(vtt::parse(&write::document([&cue])), [cue]);
    }
}

fn subtitle_file(text: &str) {
    let Some((_, cues)) = subtitle::parse(text, Some(25.0)) else { return };
    assert!((1..=subtitle::MOST_CUES).contains(&cues.len()) && cues.is_sorted_by_key(|cue| (cue.start, cue.end)));
    for cue in &cues {
        assert!(cue.start >= 0 && cue.end > cue.start && !cue.text.is_empty());
        assert!(!cue.text.contains("-->") && !cue.text.contains("\n\n") && !cue.settings.contains('\n'), "{cue:?}");
    }
    assert_eq!(vtt::parse(&write::segment(&cues)), cues, "what is written is read again");
    wvtt::segment(0, 0, 60_000, &cues);
}
