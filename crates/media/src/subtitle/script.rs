//! SubStation scripts written anew for whoever draws them (libass): a head, and the events of a stretch of the film.
//!
//! A foreign script never gets there as it is. Of its head stays what says how letters look, of its events what is shown in the stretch,
//! each as one row, whatever bytes it held; fonts and pictures inside of a script, and all else, are left out. Text of other formats
//! becomes events in a plain style. What an event draws is not looked at: overrides are for libass.

use std::fmt::Write;

use super::ass::Columns;
use super::markup::{Token, tokens};
use super::{Cue, MOST_CUES, time};

/// Bytes of a head that are kept: a thousand styles take a tenth.
const MOST_HEAD: usize = 1 << 20;
/// Longest row of a head in bytes.
const LONGEST_ROW: usize = 4 << 10;
/// Longest event in bytes. Drawings of signs take some ten thousand.
const LONGEST_EVENT: usize = 128 << 10;
/// Most events and bytes of one script that is written: typesetting has some hundred within a second, for a few seconds.
const MOST_EVENTS: usize = 40_000;
const MOST_BYTES: usize = 16 << 20;

/// What a script says of itself that changes how it looks. Others are for editors.
const FACTS: [&str; 9] =
    ["scripttype", "playresx", "playresy", "layoutresx", "layoutresy", "wrapstyle", "scaledborderandshadow", "collisions", "ycbcr matrix"];

/// Sections of a head.
const SECTIONS: [&str; 3] = ["[Script Info]", "[V4 Styles]", "[V4+ Styles]"];

/// Lines of the plane of plain text; its columns follow from the shape of the picture.
const LINES: f64 = 1080.0;
/// Distance of plain text from the picture's edges, of its lines.
const MARGIN: f64 = 54.0;

/// Everything before the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head(String);

impl Head {
    /// Of a foreign script: a file, or Matroska's CodecPrivate.
    pub fn of(script: &str) -> Self {
        let (mut out, mut section, mut written) = (String::new(), None, None);
        for row in script.lines().map(|row| row.trim_start_matches('\u{feff}').trim()) {
            if row.starts_with('[') && row.ends_with(']') {
                section = SECTIONS.into_iter().find(|name| name.eq_ignore_ascii_case(row));
                continue;
            }
            let (Some(name), Some((key, _))) = (section, row.split_once(':')) else { continue };
            let key = key.trim().to_ascii_lowercase();
            let stays = if name == SECTIONS[0] { FACTS.contains(&key.as_str()) } else { key == "format" || key == "style" };
            if !stays || row.len() > LONGEST_ROW || out.len() + row.len() > MOST_HEAD {
                continue;
            }
            if written.replace(name) != Some(name) {
                out.extend([name, "\n"]);
            }
            out.extend(row.chars().filter(|letter| !letter.is_control()));
            out.push('\n');
        }
        Self(out)
    }

    /// Of text without styles.
    pub fn plain(stage: Stage) -> Self {
        let Stage { width, height } = stage;
        // Upright pictures have narrow lines.
        let size = (height * 0.054).min(width * 0.05).round();
        let edge = (width * 0.04).round();
        Self(format!(
            "[Script Info]\nScriptType: v4.00+\nPlayResX: {width}\nPlayResY: {height}\nWrapStyle: 0\nScaledBorderAndShadow: yes\n\n\
             [V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, \
             Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n\
             Style: Default,sans-serif,{size},&H00FFFFFF,&H00FFFFFF,&H00101010,&H80000000,0,0,0,0,100,100,0,0,1,{outline},1,2,{edge},{edge},{MARGIN},1\n",
            outline = (size / 18.0).round().max(1.0),
        ))
    }
}

/// The plane of plain text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    width: f64,
    height: f64,
}

impl Stage {
    /// For a picture of this shape: its width over its height.
    pub fn of_shape(width: u32, height: u32) -> Self {
        let shape = f64::from(width.max(1)) / f64::from(height.max(1));
        Self { width: (LINES * shape.clamp(0.1, 10.0)).round(), height: LINES }
    }
}

/// Something that is drawn from one time to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds from the film's beginning.
    pub start: i64,
    /// The same, past the start.
    pub end: i64,
    /// Its place in the script, by which events of one layer cover each other.
    order: u32,
    /// From Layer to Text, without the times.
    fields: Box<str>,
}

impl Event {
    fn new(start: i64, end: i64, order: u32, fields: &str) -> Option<Self> {
        let start = start.max(0);
        (end > start && fields.len() <= LONGEST_EVENT).then(|| Self { start, end, order, fields: clean(fields).into() })
    }

    /// A Matroska block (`S_TEXT/ASS`, `S_TEXT/SSA`): ReadOrder, Layer, Style, Name, three margins, Effect, Text.
    pub fn of_block(block: &str, start: i64, end: i64) -> Option<Self> {
        let (order, fields) = block.split_once(',')?;
        (fields.bytes().filter(|byte| *byte == b',').count() >= 7).then_some(())?;
        Self::new(start, end, order.trim().parse().unwrap_or(0), fields)
    }

    /// A cue as it is written for players: with `<i>`, `<b>`, `<u>` and a place, and no style.
    pub fn of_cue(cue: &Cue, order: u32, stage: Stage) -> Option<Self> {
        let mut text = place(&cue.settings, stage);
        for token in tokens(&cue.text, false) {
            match token {
                Token::Text(said) => push_text(&mut text, said),
                Token::Entity(said) => push_text(&mut text, said),
                Token::Open(name @ ("i" | "b" | "u")) => text.extend(["{\\", name, "1}"]),
                Token::Close(name @ ("i" | "b" | "u")) => text.extend(["{\\", name, "0}"]),
                Token::Open(_) | Token::Close(_) | Token::Stamp | Token::Braces(_) => {}
            }
        }
        Self::new(cue.start, cue.end, order, &format!("0,Default,,0,0,0,,{text}"))
    }

    /// Bytes that it takes in memory.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// All events of a file, in file order.
pub fn events(script: &str) -> Vec<Event> {
    let mut columns = Columns::new();
    let mut all: Vec<Event> = Vec::new();
    for row in script.lines() {
        let Some(event) = columns.take(row) else { continue };
        let field = |name: &str| event.field(name).unwrap_or_default();
        let stamps = time::stamp(field("start")).zip(time::stamp(field("end")));
        let Some((start, end)) = stamps else { continue };
        let order = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let names = ["style", "name", "marginl", "marginr", "marginv", "effect", "text"];
        let layer = event.field("layer").unwrap_or("0");
        let fields = std::iter::once(layer).chain(names.into_iter().map(field)).collect::<Vec<_>>().join(",");
        all.extend(Event::new(start, end, order, &fields));
        if all.len() >= MOST_CUES {
            break;
        }
    }
    all
}

/// A script with the events that are shown between two times (milliseconds of the film), `shift` milliseconds later than they say.
/// `None` where there are none.
pub fn write<'a>(head: &Head, events: impl IntoIterator<Item = &'a Event>, (from, to): (i64, i64), shift: i64) -> Option<String> {
    let mut shown: Vec<&Event> = events.into_iter().filter(|event| event.start < to && event.end > from).collect();
    if shown.is_empty() {
        return None;
    }
    shown.sort_by_key(|event| (event.order, event.start));
    let mut out = format!("{}\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n", head.0);
    for event in shown.into_iter().take(MOST_EVENTS) {
        if out.len() + event.fields.len() > MOST_BYTES {
            break;
        }
        let (layer, rest) = event.fields.split_once(',').unwrap_or(("0", ""));
        // `Marked=0` of SSA is no layer.
        let layer: i32 = layer.trim().parse().unwrap_or(0);
        let (start, end) = (Stamp(event.start.saturating_add(shift)), Stamp(event.end.saturating_add(shift)));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "Dialogue: {layer},{start},{end},{rest}");
    }
    Some(out)
}

/// `0:00:01.00`, to the nearest hundredth.
struct Stamp(i64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.0.max(0).saturating_add(5) / 10;
        let (seconds, rest) = (at / 100, at % 100);
        write!(formatter, "{}:{:02}:{:02}.{rest:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// One row, whatever it was: a line's end is `\N`, and what is no letter is nothing.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let text = text.replace("\r\n", "\n");
    for letter in text.trim_end_matches(['\n', '\r', '\0']).chars() {
        match letter {
            '\n' | '\r' => out.push_str("\\N"),
            '\t' => out.push(' '),
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out
}

/// Letters that mean something to SubStation mean nothing here.
fn push_text(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            // Followed by a letter it would be a mark; a word joiner is not seen.
            '\\' => out.push_str("\\\u{2060}"),
            '{' => out.push_str("\\{"),
            '}' => out.push_str("\\}"),
            '\n' => out.push_str("\\N"),
            letter => out.push(letter),
        }
    }
}

/// Where a cue's settings (W3C WebVTT, section 4.3) put it: an override, or nothing for below in the middle.
fn place(settings: &str, stage: Stage) -> String {
    let mut told = Told::default();
    for (name, value) in settings.split_whitespace().filter_map(|setting| setting.split_once(':')) {
        told.take(name, value);
    }
    let Told { column, across, line } = told;
    let (row, down) = match line {
        Line::Below => (0, None),
        Line::Above => (2, None),
        Line::At { share, row } => (row, Some(share)),
    };
    let alignment = row * 3 + column;
    let edges = [5.0, 50.0, 95.0];
    let usual = edges.get(usize::from(column - 1)).copied().unwrap_or(50.0);
    match (across, down) {
        (None, None) if alignment == 2 => String::new(),
        (None, None) => format!("{{\\an{alignment}}}"),
        (across, down) => {
            let edge = MARGIN / LINES * 100.0;
            let down = down.unwrap_or(if row == 0 { 100.0 - edge } else { edge });
            let (x, y) = (across.unwrap_or(usual) / 100.0 * stage.width, down / 100.0 * stage.height);
            format!("{{\\an{alignment}\\pos({},{})}}", x.round(), y.round())
        }
    }
}

struct Told {
    /// 1 to 3 from the left.
    column: u8,
    /// Per cent of the width.
    across: Option<f64>,
    line: Line,
}

impl Default for Told {
    fn default() -> Self {
        Self { column: 2, across: None, line: Line::Below }
    }
}

enum Line {
    Below,
    Above,
    /// At a share of the height, in per cent; the text stands on it (0), around it (1) or under it (2).
    At {
        share: f64,
        row: u8,
    },
}

impl Told {
    fn take(&mut self, name: &str, value: &str) {
        let (value, anchor) = value.split_once(',').unwrap_or((value, ""));
        let share = value.strip_suffix('%').and_then(|share| share.parse::<f64>().ok()).filter(|share| (0.0..=100.0).contains(share));
        match (name, share) {
            ("align", _) => {
                self.column = match value {
                    "start" | "left" => 1,
                    "end" | "right" => 3,
                    _ => 2,
                }
            }
            ("position", Some(share)) => self.across = Some(share),
            ("line", Some(share)) => {
                let row = match anchor {
                    "end" => 0,
                    "center" => 1,
                    _ => 2,
                };
                self.line = Line::At { share, row };
            }
            ("line", None) => self.line = if value.parse::<i32>().is_ok_and(|line| line >= 0) { Line::Above } else { Line::Below },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "\u{feff}[Script Info]\nTitle: x\nPlayResX: 640\n[V4+ Styles]\nFormat: Name, Fontsize\nStyle: A,20\n[Fonts]\nfontname: x\n\
                        [Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n\
                        Dialogue: 3,0:00:01.00,0:00:02.00,A,,0,0,0,,{\\an8}Hi, you\nComment: 0,0:00:01.00,0:00:02.00,A,,0,0,0,,no\n\
                        Dialogue: 0,0:00:05.00,0:00:04.00,A,,0,0,0,,backwards\n";

    #[test]
    fn a_head_keeps_what_letters_look_like() {
        assert_eq!(Head::of(FILE).0, "[Script Info]\nPlayResX: 640\n[V4+ Styles]\nFormat: Name, Fontsize\nStyle: A,20\n");
        assert_eq!(Head::of("words\n[Events]\nFormat: x"), Head(String::new()));
    }

    #[test]
    fn events_of_files_and_of_blocks_are_written_alike() {
        let of_file = events(FILE);
        let of_block = Event::of_block("0,3,A,,0,0,0,,{\\an8}Hi, you\r\n", 1000, 2000).expect("an event");
        assert_eq!(of_file, [of_block]);
        let written = |times, shift| write(&Head(String::new()), &of_file, times, shift);
        let row = "Dialogue: 3,0:00:11.50,0:00:12.50,A,,0,0,0,,{\\an8}Hi, you\n";
        assert!(written((0, 1001), 10_500).is_some_and(|script| script.ends_with(row)));
        assert_eq!((written((2000, 9000), 0), written((0, 1000), 0)), (None, None), "it is shown at neither time");
        assert_eq!(Event::of_block("0,3,A,,0,0", 0, 1), None);
    }

    #[test]
    fn cues_lie_where_their_settings_say() {
        let stage = Stage::of_shape(16, 9);
        let drawn = |text: &str, settings: &str| {
            let cue = Cue { start: 0, end: 1000, text: text.to_owned(), settings: settings.to_owned() };
            Event::of_cue(&cue, 0, stage).map(|event| event.fields.strip_prefix("0,Default,,0,0,0,,").expect("plain").to_owned())
        };
        let cases = [
            ("<i>a</i> &amp; {b}\n\\N", "", "{\\i1}a{\\i0} & \\{b\\}\\N\\\u{2060}N"),
            ("a", "line:0", "{\\an8}a"),
            ("a", "align:left", "{\\an1}a"),
            ("a", "position:50% line:50%,center", "{\\an5\\pos(960,540)}a"),
        ];
        for (text, settings, expected) in cases {
            assert_eq!(drawn(text, settings).as_deref(), Some(expected), "{text} {settings}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_script_holds_each_event_is_one_row(
            text in "(\\[Events\\]\n)?(Format: [A-Za-z, ]{0,40}\n)?(Dialogue: [^\r]{0,60}\n){0,4}\\PC{0,80}",
            block in "\\PC{0,60}", start in any::<i64>(), end in any::<i64>(), shift in any::<i64>(),
        ) {
            let mut all = events(&text);
            all.extend(Event::of_block(&block, start, end));
            all.extend(Event::of_block(&format!("1,0,A,,0,0,0,,{block}\n[Events]\r"), start, end));
            let head = Head::of(&text);
            if let Some(script) = write(&head, &all, (i64::MIN, i64::MAX), shift) {
                let rows = script.split_once("[Events]\n").expect("events").1;
                prop_assert_eq!(rows.lines().filter(|row| row.starts_with("Dialogue: ")).count() + 1, rows.lines().count());
            }
        }
    }
}
