//! SubStation Alpha (SSA v4, ASS v4.00+): files, and the blocks that Matroska holds of them.
//!
//! Of styles and overrides stay italics, bold, underline, and where the text stands, as far as WebVTT has words for it. Drawings, colours,
//! karaoke and movement are left out.

use std::collections::HashMap;

use super::markup::Style;
use super::{Cue, MOST_CUES, Markup, Said, time};

/// Most styles that are remembered of one file.
const MOST_STYLES: usize = 10_000;
/// Columns of events where the file names none.
const USUAL: &str = "layer, start, end, style, name, marginl, marginr, marginv, effect, text";

/// Where a text stands: SubStation's numbers, those of a numeric keypad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// 1 to 9; 2 is below in the middle.
    alignment: u8,
    /// `\pos`, in units of the script's resolution.
    at: Option<(f64, f64)>,
}

impl Default for Place {
    fn default() -> Self {
        Self { alignment: 2, at: None }
    }
}

impl Place {
    /// As a cue's settings (WebVTT, section 4.3); `resolution` is that of the script, without which a position means nothing.
    pub(super) fn settings(self, resolution: Option<(f64, f64)>) -> String {
        let (column, row) = ((self.alignment + 2) % 3, (self.alignment.max(1) - 1) / 3);
        let mut all: Vec<String> = Vec::new();
        let placed = self.at.zip(resolution).map(|((x, y), (width, height))| (share(x, width), share(y, height)));
        match (placed, row) {
            (Some((_, down)), 0) => all.push(format!("line:{down}%,end")),
            (Some((_, down)), 1) => all.push(format!("line:{down}%,center")),
            (Some((_, down)), _) => all.push(format!("line:{down}%")),
            (None, 1) => all.push("line:50%,center".to_owned()),
            (None, 2) => all.push("line:0".to_owned()),
            (None, _) => {}
        }
        match (placed, column) {
            (Some((across, _)), _) if across != 50 || column != 1 => all.push(format!("position:{across}%")),
            (None, 0) => all.push("position:5%".to_owned()),
            (None, 2) => all.push("position:95%".to_owned()),
            _ => {}
        }
        match column {
            0 => all.push("align:left".to_owned()),
            2 => all.push("align:right".to_owned()),
            _ => {}
        }
        all.join(" ")
    }
}

/// Per cent of a side.
fn share(at: f64, side: f64) -> u8 {
    (at / side * 100.0).round().clamp(0.0, 100.0) as u8
}

/// The numbers of SSA v4 (1-3 below, 5-7 above, 9-11 in the middle) as those of a keypad.
fn keypad(ssa: u8) -> u8 {
    match ssa {
        1..=3 => ssa,
        5..=7 => ssa + 2,
        9..=11 => ssa - 5,
        _ => 2,
    }
}

/// Changes style and place as the overrides in a pair of braces say. Answers whether a drawing begins or ends (`\p`).
pub(super) fn overrides(inner: &str, style: &mut Style, base: Style, place: &mut Place) -> Option<bool> {
    let mut drawing = None;
    for code in inner.split('\\').skip(1) {
        let code = code.trim();
        let number = |name: &str| code.strip_prefix(name).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
        let on = |value: &str, of: bool| if value.is_empty() { of } else { value != "0" };
        if let Some(value) = number("an") {
            place.alignment = value.parse().ok().filter(|value| (1..=9).contains(value)).unwrap_or(place.alignment);
        } else if let Some(value) = number("a") {
            place.alignment = value.parse().map_or(place.alignment, keypad);
        } else if let Some(value) = number("i") {
            style.italic = on(value, base.italic);
        } else if let Some(value) = number("b") {
            style.bold = on(value, base.bold);
        } else if let Some(value) = number("u") {
            style.underline = on(value, base.underline);
        } else if let Some(value) = number("p") {
            drawing = Some(on(value, false));
        } else if let Some(rest) = code.strip_prefix("pos(").or_else(|| code.strip_prefix("move(")) {
            place.at = point(rest).or(place.at);
        } else if code == "r" || code.starts_with('r') && !code.starts_with("rnd") {
            *style = base;
        }
    }
    drawing
}

fn point(inner: &str) -> Option<(f64, f64)> {
    let mut numbers =
        inner.trim_end_matches(')').split(',').map(|number| number.trim().parse::<f64>().ok().filter(|number| number.is_finite()));
    Some((numbers.next()??, numbers.next()??))
}

/// What a script says before its events: for Matroska its CodecPrivate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script {
    /// PlayResX and PlayResY.
    resolution: Option<(f64, f64)>,
    styles: HashMap<String, (StyleOf, u8)>,
    /// Names of an event's columns, in lower case.
    columns: Vec<String>,
}

/// What a style of the script says of letters.
type StyleOf = (bool, bool, bool);

impl Script {
    /// Reads the sections before the events, and the events' `Format` row.
    pub fn read(text: &str) -> Self {
        let mut reader = Reader::default();
        for row in text.lines() {
            reader.take(row);
        }
        reader.script()
    }

    /// The text of a Matroska block (`S_TEXT/ASS`): ReadOrder, Layer, Style, Name, three margins, Effect, Text.
    pub fn block(&self, payload: &str) -> Said {
        let mut fields = payload.splitn(9, ',');
        let style = fields.nth(2).unwrap_or_default();
        let text = fields.nth(5).unwrap_or_default();
        self.said(style, text)
    }

    fn said(&self, style: &str, text: &str) -> Said {
        let named = self.styles.get(style.trim().trim_start_matches('*')).or_else(|| self.styles.get("Default"));
        let ((italic, bold, underline), alignment) = named.copied().unwrap_or(((false, false, false), 2));
        let base = Style { italic, bold, underline };
        let mut place = Place { alignment, at: None };
        let mut markup = Markup::new();
        markup.style = base;
        let mut draws = false;
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((inner, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                draws = overrides(inner, &mut markup.style, base, &mut place).unwrap_or(draws);
                rest = after;
                continue;
            }
            // A brace that is never closed is text, and so is all that follows it: looked for once, whatever a file is full of.
            if rest.starts_with('{') {
                plain(&mut markup, rest, draws);
                break;
            }
            let end = rest.find('{').unwrap_or(rest.len());
            let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            plain(&mut markup, piece, draws);
            rest = after;
        }
        markup.settings = place.settings(self.resolution);
        markup.finish()
    }
}

/// Text between overrides; `draws`: it is a drawing and no text.
fn plain(markup: &mut Markup, piece: &str, draws: bool) {
    if !draws {
        markup.text(&piece.replace("\\N", "\n").replace("\\n", " ").replace("\\h", "\u{a0}"));
    }
}

/// Reads a file's events by the columns that its rows have told.
#[derive(Debug)]
pub(super) struct Columns {
    reader: Reader,
    usual: Vec<String>,
}

/// The fields of one event.
pub(super) struct Fields<'c, 'r> {
    names: &'c [String],
    fields: Vec<&'r str>,
}

impl Columns {
    pub(super) fn new() -> Self {
        Self { reader: Reader::default(), usual: columns(USUAL) }
    }

    /// Takes a row; an event's fields are given back.
    pub(super) fn take<'r>(&mut self, row: &'r str) -> Option<Fields<'_, 'r>> {
        let event = self.reader.take(row)?;
        let names = if self.reader.events.is_empty() { &self.usual } else { &self.reader.events };
        Some(Fields { names, fields: event.splitn(names.len().max(1), ',').collect() })
    }
}

impl<'r> Fields<'_, 'r> {
    /// The field of the column with this name, in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&'r str> {
        self.names.iter().position(|column| column == name).and_then(|at| self.fields.get(at)).copied()
    }
}

/// All cues of a file, in file order.
pub fn parse(text: &str) -> Vec<Cue> {
    let mut reader = Reader::default();
    let mut script: Option<Script> = None;
    let mut cues = Vec::new();
    for row in text.lines() {
        let Some(event) = reader.take(row) else { continue };
        let script = script.get_or_insert_with(|| reader.script());
        cues.extend(dialogue(script, event));
        if cues.len() >= MOST_CUES {
            break;
        }
    }
    cues
}

fn dialogue(script: &Script, event: &str) -> Option<Cue> {
    let count = script.columns.len();
    let fields: Vec<_> = event.splitn(count.max(1), ',').collect();
    let field = |name: &str| script.columns.iter().position(|column| column == name).and_then(|at| fields.get(at)).copied();
    let (start, end) = (time::stamp(field("start")?)?, time::stamp(field("end")?)?);
    Cue::new(start, end, script.said(field("style").unwrap_or("Default"), field("text")?))
}

/// Reads a script row by row.
#[derive(Debug, Default)]
struct Reader {
    section: String,
    width: Option<f64>,
    height: Option<f64>,
    /// Columns of styles.
    format: Vec<String>,
    events: Vec<String>,
    styles: HashMap<String, (StyleOf, u8)>,
}

impl Reader {
    /// Takes a row; an event's fields are given back.
    fn take<'a>(&mut self, row: &'a str) -> Option<&'a str> {
        let row = row.trim_start_matches('\u{feff}').trim_end_matches('\r');
        let trimmed = row.trim();
        if trimmed.starts_with('[') && trimmed.ends_with(']') {
            self.section = trimmed.to_ascii_lowercase();
            return None;
        }
        let (key, value) = row.split_once(':')?;
        let key = key.trim().to_ascii_lowercase();
        match (key.as_str(), self.section.as_str()) {
            ("playresx", _) => self.width = side(value),
            ("playresy", _) => self.height = side(value),
            ("format", "[events]") => self.events = columns(value),
            ("format", _) => self.format = columns(value),
            ("style", section) => self.style(value, section == "[v4 styles]"),
            ("dialogue", _) => return Some(value.trim_start()),
            _ => {}
        }
        None
    }

    fn style(&mut self, value: &str, old: bool) {
        let fields: Vec<_> = value.split(',').map(str::trim).collect();
        let field = |name: &str| self.format.iter().position(|column| column == name).and_then(|at| fields.get(at)).copied();
        let is = |name: &str| field(name).is_some_and(|value| value != "0");
        let told: Option<u8> = field("alignment").and_then(|value| value.parse().ok());
        let alignment = match told {
            Some(told) if old => keypad(told),
            Some(told) if (1..=9).contains(&told) => told,
            _ => 2,
        };
        let of = (is("italic"), is("bold"), is("underline"));
        if let (Some(name), true) = (field("name"), self.styles.len() < MOST_STYLES) {
            self.styles.insert(name.trim_start_matches('*').to_owned(), (of, alignment));
        }
    }

    fn script(&self) -> Script {
        // What libass and VSFilter take where the script does not tell.
        let resolution = match (self.width, self.height) {
            (Some(width), Some(height)) => (width, height),
            (Some(width), None) => (width, width * 3.0 / 4.0),
            (None, Some(height)) => (height * 4.0 / 3.0, height),
            (None, None) => (384.0, 288.0),
        };
        let columns = if self.events.is_empty() { columns(USUAL) } else { self.events.clone() };
        Script { resolution: Some(resolution), styles: self.styles.clone(), columns }
    }
}

fn side(value: &str) -> Option<f64> {
    value.trim().parse().ok().filter(|side: &f64| (1.0..=100_000.0).contains(side))
}

fn columns(row: &str) -> Vec<String> {
    row.split(',').take(64).map(|name| name.trim().to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[Script Info]\nPlayResX: 1000\nPlayResY: 500\n\n[V4+ Styles]\nFormat: Name, Fontname, Bold, Italic, Underline, Alignment\nStyle: Default,Arial,0,0,0,2\nStyle: Sign,Arial,0,-1,0,8\n";

    #[test]
    fn a_file() {
        let text = format!(
            "{HEAD}\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n\
             Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,no\n\
             Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,Hi, {{\\i1}}you{{\\i0}}\\Nthere {{a comment}}\n\
             Dialogue: 0,0:00:03.00,0:00:04.00,Sign,,0,0,0,,{{\\pos(250,400)\\an1}}A <sign>\n\
             Dialogue: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,{{\\p1}}m 0 0 l 10 10{{\\p0}}\n\
             Dialogue: 0,0:00:07.00,0:00:08.00,Sign,,0,0,0,,{{\\r}}slanted {{open\n"
        );
        let cues: Vec<_> = parse(&text).into_iter().map(|cue| (cue.start, cue.text, cue.settings)).collect();
        let expected = [
            (1000, "Hi, <i>you</i>\nthere", ""),
            (3000, "<i>A &lt;sign&gt;</i>", "line:80%,end position:25% align:left"),
            (7000, "<i>slanted {open</i>", "line:0"),
        ];
        assert_eq!(cues, expected.map(|(start, text, settings)| (start, text.to_owned(), settings.to_owned())));
    }

    #[test]
    fn a_block_of_matroska() {
        let script = Script::read(HEAD);
        let said = script.block("7,0,Sign,,0,0,0,,one, two");
        assert_eq!(said, Said { text: "<i>one, two</i>".to_owned(), settings: "line:0".to_owned() });
        assert_eq!(script.block("7,0,Sign").text, "");
    }

    #[test]
    fn places() {
        let at = |alignment| Place { alignment, at: None }.settings(None);
        let table = ["position:5% align:left", "", "position:95% align:right", "line:50%,center position:5% align:left", "line:50%,center"];
        for (alignment, settings) in (1..).zip(table) {
            assert_eq!(at(alignment), settings);
        }
        assert_eq!(at(9), "line:0 position:95% align:right");
        assert_eq!([1, 3, 5, 7, 9, 11, 4].map(keypad), [1, 3, 7, 9, 4, 6, 2]);
    }
}
