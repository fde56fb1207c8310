//! Subtitles as text: what film files and the files beside them hold becomes cues, and cues become WebVTT.
//!
//! Every parser here is total: what cannot be read is left out, and no input makes more cues than [`MOST_CUES`]. No markup of a foreign
//! file becomes markup of a page: text is taken apart and written anew, with italics, bold, underline and a place, and nothing else.
//! Images of text (PGS, VobSub, DVB) are not read.

pub mod ass;
pub mod charset;
mod markup;
pub mod microdvd;
pub mod mov_text;
pub mod name;
pub mod script;
pub mod srt;
mod time;
pub mod vtt;
pub mod write;

use markup::Markup;

/// Most cues that are taken from one file. A film of three hours with a line every second has a tenth of that.
pub const MOST_CUES: usize = 100_000;
/// Largest file of subtitles that is read, in bytes.
pub const LARGEST_FILE: usize = 8 << 20;
/// Longest text of one cue in bytes of its file.
pub const LONGEST_TEXT: usize = 16 << 10;

/// A text and when it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cue {
    /// Milliseconds from the film's beginning, at least 0.
    pub start: i64,
    /// Milliseconds from the film's beginning, past the start.
    pub end: i64,
    /// A cue's payload as WebVTT writes it (W3C WebVTT, section 4.2.2): escaped, with `<i>`, `<b>`, `<u>` at most, no empty line.
    pub text: String,
    /// A cue's settings as WebVTT writes them (section 4.3), or nothing.
    pub settings: String,
}

impl Cue {
    /// A cue, if there is anything to show and a time to show it in. Milliseconds.
    pub fn new(start: i64, end: i64, said: Said) -> Option<Self> {
        let start = start.max(0);
        (end > start && !said.text.is_empty()).then_some(Self { start, end, text: said.text, settings: said.settings })
    }
}

/// The text of one cue without its times: what a container's sample holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// [`Cue::text`]
    pub text: String,
    /// [`Cue::settings`]
    pub settings: String,
}

/// The formats of whole files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SubRip.
    Srt,
    /// SubStation Alpha, plain or advanced.
    Ass,
    /// WebVTT.
    WebVtt,
    /// MicroDVD, or SubViewer, which has the same ending.
    Sub,
}

impl Format {
    /// By a file's name.
    pub fn of_name(name: &str) -> Option<Self> {
        let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
        match ending.as_str() {
            "srt" => Some(Self::Srt),
            "ass" | "ssa" => Some(Self::Ass),
            "vtt" => Some(Self::WebVtt),
            "sub" => Some(Self::Sub),
            _ => None,
        }
    }

    /// By what stands in a file, whatever it is called. `None`: it holds no subtitles of a format that is known here.
    pub fn of_text(text: &str) -> Option<Self> {
        let mut head = 4096.min(text.len());
        while !text.is_char_boundary(head) {
            head -= 1;
        }
        let head = text.get(..head).unwrap_or_default();
        let lower = head.to_ascii_lowercase();
        if head.trim_start_matches('\u{feff}').starts_with("WEBVTT") {
            return Some(Self::WebVtt);
        }
        if ["[script info]", "[v4+ styles]", "[v4 styles]", "[events]"].iter().any(|section| lower.contains(section)) {
            return Some(Self::Ass);
        }
        if head.contains("-->") {
            return Some(Self::Srt);
        }
        (microdvd::looks_like(head)).then_some(Self::Sub)
    }

    /// The short name that the API uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Srt => "srt",
            Self::Ass => "ass",
            Self::WebVtt => "vtt",
            Self::Sub => "sub",
        }
    }
}

/// The cues of a whole file in order of their times, and what it turned out to be. `rate` is the film's pictures per second, for formats
/// that count pictures. `None`: it holds no cue.
pub fn parse(text: &str, rate: Option<f64>) -> Option<(Format, Vec<Cue>)> {
    let format = Format::of_text(text)?;
    let mut cues = match format {
        Format::Srt => srt::parse(text),
        Format::Ass => ass::parse(text),
        Format::WebVtt => vtt::parse(text),
        Format::Sub => microdvd::parse(text, rate),
    };
    order(&mut cues);
    (!cues.is_empty()).then_some((format, cues))
}

/// Puts cues in order of their times. The same text at the same time (the layers of an effect) stays once.
pub fn order(cues: &mut Vec<Cue>) {
    cues.sort_by_key(|cue| (cue.start, cue.end));
    // Layers need not be neighbours, but they are few.
    let mut kept: Vec<Cue> = Vec::with_capacity(cues.len());
    for cue in cues.drain(..) {
        let same = kept
            .iter()
            .rev()
            .take(64)
            .take_while(|before| before.start == cue.start)
            .any(|before| before.end == cue.end && before.text == cue.text);
        if !same {
            kept.push(cue);
        }
    }
    *cues = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_found_by_what_stands_in_them() {
        let table = [
            ("1\n00:00:01,000 --> 00:00:02,000\nHi\n", Some(Format::Srt)),
            ("WEBVTT\n\n00:01.000 --> 00:02.000\nHi\n", Some(Format::WebVtt)),
            ("\u{feff}[Script Info]\n[Events]\n", Some(Format::Ass)),
            ("{1}{1}25\n{10}{20}Hi\n", Some(Format::Sub)),
            ("00:00:01.00,00:00:02.00\nHi\n", Some(Format::Sub)),
            ("Just words", None),
            ("", None),
        ];
        for (text, format) in table {
            assert_eq!(Format::of_text(text), format, "{text:?}");
        }
    }

    #[test]
    fn layers_of_an_effect_are_one_cue() {
        let cue = |start, text: &str| Cue { start, end: 9, text: text.to_owned(), settings: String::new() };
        let mut cues = vec![cue(2, "b"), cue(1, "a"), cue(1, "c"), cue(1, "a")];
        order(&mut cues);
        assert_eq!(cues, [cue(1, "a"), cue(1, "c"), cue(2, "b")]);
    }
}
