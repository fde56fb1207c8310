//! Cues as WebVTT: whole, and as the segments of an HLS rendition (RFC 8216, section 3.5).

use std::fmt::Write;

use super::Cue;

/// All cues as one file.
pub fn document<'a>(cues: impl IntoIterator<Item = &'a Cue>) -> String {
    written("WEBVTT\n\n", cues)
}

/// The cues of one segment of a rendition whose times count from the film's beginning, as those of its pictures do: what a cue's time is
/// on the media's clock is told by the header's second row.
pub fn segment<'a>(cues: impl IntoIterator<Item = &'a Cue>) -> String {
    written("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n", cues)
}

fn written<'a>(head: &str, cues: impl IntoIterator<Item = &'a Cue>) -> String {
    let mut out = String::from(head);
    for cue in cues {
        let space = if cue.settings.is_empty() { "" } else { " " };
        let (id, start, end) = (identifier(cue), Stamp(cue.start), Stamp(cue.end));
        // Writing to a String cannot fail.
        let _ = write!(out, "{id}\n{start} --> {end}{space}{}\n{}\n\n", cue.settings, cue.text);
    }
    out
}

/// The same cue has the same name in every segment that it reaches into, and another one another.
pub fn identifier(cue: &Cue) -> String {
    // FNV-1a: nobody gains by two cues with one name, and it stays what it is from one build to the next.
    let bytes = cue.end.to_be_bytes().into_iter().chain(cue.text.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}.{hash:08x}", cue.start)
}

/// `00:00:01.000`
struct Stamp(i64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.0.max(0);
        let (seconds, rest) = (at / 1000, at % 1000);
        write!(formatter, "{:02}:{:02}:{:02}.{rest:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cue, srt, vtt};
    use super::*;

    #[test]
    fn what_is_written() {
        let cues = [
            Cue { start: 1000, end: 3_723_450, text: "<i>a</i>\nb".to_owned(), settings: "line:0".to_owned() },
            Cue { start: 2000, end: 2500, text: "--&gt;".to_owned(), settings: String::new() },
        ];
        insta::assert_snapshot!(segment(&cues), @r"
        WEBVTT
        X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000

        1000.926129bf
        00:00:01.000 --> 01:02:03.450 line:0
        <i>a</i>
        b

        2000.b272ceb8
        00:00:02.000 --> 00:00:02.500
        --&gt;
        ");
        assert!(document(&cues).starts_with("WEBVTT\n\n1000."));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(texts in proptest::collection::vec("\\PC{0,40}(\n\\PC{0,20})?", 0..20)) {
            let cues: Vec<Cue> = (0..).zip(&texts).filter_map(|(n, text)| Cue::new(n * 1000, n * 1000 + 500, srt::said(text))).collect();
            proptest::prop_assert_eq!(vtt::parse(&segment(&cues)), cues.clone());
            proptest::prop_assert_eq!(vtt::parse(&document(&cues)), cues);
        }
    }
}
