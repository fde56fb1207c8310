//! WebVTT in movie fragments (ISO 14496-30, section 7; what DASH wants of text): an init segment, and segments whose samples follow one
//! another without a gap, each with all cues that are shown while it lasts.
//!
//! Times are milliseconds, as WebVTT's own are.

use bytes::Bytes;

use super::{Row, write};
use crate::subtitle::Cue;

/// Ticks per second of everything here.
pub const TIMESCALE: u32 = 1000;
/// RFC 6381, and the sample entry's name.
pub const CODECS: &str = "wvtt";
/// Most cues that are written into one sample: nobody reads more at once.
const MOST_AT_ONCE: usize = 64;

/// The init segment of a text track in this language (ISO 639-2/T; anything else is written as undetermined).
pub fn init(language: &str) -> Bytes {
    let mut out = Vec::with_capacity(512);
    put(&mut out, b"ftyp", |out| out.extend(b"iso6\0\0\0\0iso6cmfccwvtmp41"));
    put(&mut out, b"moov", |out| {
        put(out, b"mvhd", |out| {
            words(out, &[0, 0, 0, TIMESCALE, 0, 0x0001_0000, 0x0100_0000, 0, 0]);
            unity(out);
            words(out, &[0, 0, 0, 0, 0, 0, 2]);
        });
        put(out, b"trak", |out| {
            put(out, b"tkhd", |out| {
                words(out, &[7, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
                unity(out);
                words(out, &[0, 0]);
            });
            put(out, b"mdia", |out| media(out, language));
        });
        put(out, b"mvex", |out| put(out, b"trex", |out| words(out, &[0, 1, 1, 0, 0, 0])));
    });
    Bytes::from(out)
}

fn media(out: &mut Vec<u8>, language: &str) {
    put(out, b"mdhd", |out| {
        words(out, &[0, 0, 0, TIMESCALE, 0]);
        out.extend(packed(language).to_be_bytes());
        out.extend([0, 0]);
    });
    put(out, b"hdlr", |out| {
        words(out, &[0, 0]);
        out.extend(b"text\0\0\0\0\0\0\0\0\0\0\0\0\0");
    });
    put(out, b"minf", |out| {
        put(out, b"nmhd", |out| words(out, &[0]));
        put(out, b"dinf", |out| {
            put(out, b"dref", |out| {
                words(out, &[0, 1]);
                put(out, b"url ", |out| words(out, &[1]));
            });
        });
        put(out, b"stbl", |out| {
            put(out, b"stsd", |out| {
                words(out, &[0, 1]);
                put(out, b"wvtt", |out| {
                    out.extend([0, 0, 0, 0, 0, 0, 0, 1]);
                    put(out, b"vttC", |out| out.extend(b"WEBVTT"));
                });
            });
            put(out, b"stts", |out| words(out, &[0, 0]));
            put(out, b"stsc", |out| words(out, &[0, 0]));
            put(out, b"stsz", |out| words(out, &[0, 0, 0]));
            put(out, b"stco", |out| words(out, &[0, 0]));
        });
    });
}

/// Segment `n`, from `start` to `end` milliseconds: `cues` are those that are shown in it, in order.
pub fn segment(n: u32, start: i64, end: i64, cues: &[Cue]) -> Bytes {
    let start = start.max(0);
    let end = end.max(start.saturating_add(1));
    let (mut rows, mut payload) = (Vec::new(), Vec::new());
    for (from, to, shown) in stretches(start, end, cues) {
        let before = payload.len();
        if shown.is_empty() {
            put(&mut payload, b"vtte", |_| {});
        }
        shown.iter().for_each(|cue| sample_cue(&mut payload, cue));
        let size = u32::try_from(payload.len() - before).unwrap_or(0);
        rows.push(Row { size, duration: u32::try_from(to - from).unwrap_or(u32::MAX), composition: 0, key: true });
    }
    let head = write::chunk(n.wrapping_add(1), u64::try_from(start).unwrap_or(0), &rows, true);
    Bytes::from([&head[..], &payload].concat())
}

/// The time between two moments, cut wherever a cue begins or ends, with the cues that are shown in each part.
fn stretches(start: i64, end: i64, cues: &[Cue]) -> Vec<(i64, i64, Vec<&Cue>)> {
    let mut moments: Vec<i64> =
        cues.iter().flat_map(|cue| [cue.start, cue.end]).filter(|at| (start..end).contains(at)).chain([start, end]).collect();
    moments.sort_unstable();
    moments.dedup();
    let mut all = Vec::with_capacity(moments.len());
    let (mut waiting, mut shown): (_, Vec<&Cue>) = (cues.iter().peekable(), Vec::new());
    for (from, to) in moments.iter().zip(moments.iter().skip(1)) {
        while let Some(cue) = waiting.next_if(|cue| cue.start <= *from) {
            shown.push(cue);
        }
        shown.retain(|cue| cue.end > *from);
        all.push((*from, *to, shown.iter().take(MOST_AT_ONCE).copied().collect()));
    }
    all
}

/// `vttc` (section 7.5): the same cue has the same `vsid` in all samples that it is written into.
fn sample_cue(out: &mut Vec<u8>, cue: &Cue) {
    put(out, b"vttc", |out| {
        let id = crate::subtitle::write::identifier(cue);
        let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        put(out, b"vsid", |out| words(out, &[hash & 0x7fff_ffff]));
        put(out, b"iden", |out| out.extend(id.as_bytes()));
        if !cue.settings.is_empty() {
            put(out, b"sttg", |out| out.extend(cue.settings.as_bytes()));
        }
        put(out, b"payl", |out| out.extend(cue.text.as_bytes()));
    });
}

fn put(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    out.extend(kind);
    body(out);
    let size = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}

/// The matrix that changes nothing (ISO 14496-12, 6.2.2).
fn unity(out: &mut Vec<u8>) {
    words(out, &[0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000]);
}

/// Three letters of five bits each (ISO 14496-12, 8.4.2.3).
fn packed(language: &str) -> u16 {
    let letters = language.as_bytes();
    let fits = letters.len() == 3 && letters.iter().all(u8::is_ascii_lowercase);
    let letters = if fits { letters } else { b"und" };
    letters.iter().fold(0, |packed, letter| packed << 5 | u16::from(letter - 0x60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Codec, Sparse, Stop, mp4};
    use crate::subtitle::vtt;

    fn cue(start: i64, end: i64, text: &str) -> Cue {
        Cue { start, end, text: text.to_owned(), settings: if text == "b" { "line:0".to_owned() } else { String::new() } }
    }

    /// The times and texts of the samples of a film made of these segments, as our reader of fragments finds them.
    fn samples(segments: &[Bytes]) -> Vec<(i64, u32, Vec<String>)> {
        let film = Bytes::from(std::iter::once(init("ger")).chain(segments.iter().cloned()).collect::<Vec<_>>().concat());
        let mut bytes = Sparse::new(film.len() as u64);
        bytes.insert(0, film.clone());
        let index = mp4::index(&bytes).expect("an index");
        let [track] = &index.tracks[..] else { panic!("one track: {index:?}") };
        assert_eq!((&track.codec, track.timescale, track.language.as_str()), (&Codec::WebVtt, 1000, "ger"));
        let mut fragments = mp4::Fragments::at(index.first_byte, mp4::Context::read(&bytes).expect("a context"));
        let mut all = Vec::new();
        while let Some(frame) = fragments.next(&bytes).unwrap_or_else(|stop: Stop| panic!("{stop}")) {
            let (from, to) = (frame.offset as usize, frame.offset as usize + frame.len as usize);
            let texts = vtt::sample(&film[from..to]).into_iter().map(|said| format!("{} {}", said.text, said.settings)).collect();
            all.push((frame.pts, frame.duration.expect("told"), texts));
        }
        all
    }

    #[test]
    fn samples_follow_one_another_and_hold_what_is_shown() {
        let cues = [cue(500, 3000, "a"), cue(2000, 2500, "b")];
        let written = [segment(0, 0, 2200, &cues), segment(1, 2200, 4000, &cues)];
        let (a, b) = ("a ".to_owned(), "b line:0".to_owned());
        let expected = [
            (0, 500, vec![]),
            (500, 1500, vec![a.clone()]),
            (2000, 200, vec![a.clone(), b.clone()]),
            (2200, 300, vec![a.clone(), b]),
            (2500, 500, vec![a]),
            (3000, 1000, vec![]),
        ];
        assert_eq!(samples(&written), expected);
    }

    #[test]
    fn an_empty_segment_is_one_empty_sample() {
        assert_eq!(samples(&[segment(3, 6000, 8000, &[])]), [(6000, 2000, vec![])]);
    }

    #[test]
    fn a_thousand_cues_at_once_are_not_all_written() {
        let cues: Vec<Cue> = (0..1000).map(|n| cue(0, 1000, &format!("n{n}"))).collect();
        assert_eq!(samples(&[segment(0, 0, 1000, &cues)])[0].2.len(), MOST_AT_ONCE);
    }
}
