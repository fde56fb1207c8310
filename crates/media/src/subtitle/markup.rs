//! Text with marks, written as a WebVTT cue's payload (W3C WebVTT, section 4.2.2) while it is read.

use super::{LONGEST_TEXT, Said};

/// The marks that stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) italic: bool,
    pub(super) bold: bool,
    pub(super) underline: bool,
}

impl Style {
    fn tags(self) -> impl Iterator<Item = &'static str> {
        [("i", self.italic), ("b", self.bold), ("u", self.underline)].into_iter().filter_map(|(tag, on)| on.then_some(tag))
    }
}

/// A payload that is being written. Lines are trimmed, empty ones left out (one would end the cue).
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
    /// What is open in `out`, innermost last.
    open: Vec<&'static str>,
    /// What the next text looks like.
    pub(super) style: Style,
    at_start: bool,
    /// White space that is written when something follows it on its line.
    space: String,
    breaks: bool,
    pub(super) settings: String,
}

impl Markup {
    pub(super) fn new() -> Self {
        Self { at_start: true, ..Self::default() }
    }

    pub(super) fn text(&mut self, text: &str) {
        // Letters that are not shown are no text: a payload of nothing else is empty.
        let shown = |letter: char| letter == '\n' || letter == '\t' || !letter.is_control();
        let text: String = text.chars().filter(|letter| shown(*letter)).collect();
        for (n, line) in text.split('\n').enumerate() {
            if n > 0 {
                self.line_break();
            }
            self.piece(line);
        }
    }

    pub(super) fn line_break(&mut self) {
        self.breaks = !self.out.is_empty();
        self.at_start = true;
        self.space.clear();
    }

    fn piece(&mut self, text: &str) {
        let text = if self.at_start { text.trim_start() } else { text };
        let said = text.trim_end();
        let after = text.get(said.len()..).unwrap_or_default();
        if said.is_empty() || self.out.len() > LONGEST_TEXT {
            self.space.push_str(if self.space.len() < LONGEST_TEXT { after } else { "" });
            return;
        }
        // White space belongs to no style: it stands outside of the tags, wherever it came from.
        let (before, said) = said.split_at(said.len() - said.trim_start().len());
        if !self.style.tags().eq(self.open.iter().copied()) {
            self.close_tags();
        }
        if std::mem::take(&mut self.breaks) {
            self.out.push('\n');
        }
        self.at_start = false;
        let space = std::mem::replace(&mut self.space, after.to_owned());
        self.write(&space);
        self.write(before);
        self.open_tags();
        self.write(said);
    }

    fn write(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '\t' => self.out.push(' '),
                other => self.out.push(other),
            }
        }
    }

    /// Closes and opens what the style asks for.
    fn open_tags(&mut self) {
        let wanted: Vec<_> = self.style.tags().collect();
        if wanted == self.open {
            return;
        }
        self.close_tags();
        for tag in &wanted {
            self.out.push('<');
            self.out.push_str(tag);
            self.out.push('>');
        }
        self.open = wanted;
    }

    fn close_tags(&mut self) {
        while let Some(tag) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(tag);
            self.out.push('>');
        }
    }

    pub(super) fn finish(mut self) -> Said {
        self.close_tags();
        Said { text: self.out, settings: self.settings }
    }
}

/// One piece of marked text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Text(&'a str),
    /// `<name …>` with its name in the file's letters.
    Open(&'a str),
    /// `</name>`
    Close(&'a str),
    /// `{…}` without its braces.
    Braces(&'a str),
    /// `<00:00:01.000>`
    Stamp,
    /// `&name;`
    Entity(&'static str),
}

/// Longest tag, override or entity.
const LONGEST_MARK: usize = 256;

/// Takes marked text apart. `braces`: whether `{…}` is a mark.
pub(super) fn tokens(mut rest: &str, braces: bool) -> impl Iterator<Item = Token<'_>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((token, len)) = mark(rest, braces) {
            rest = rest.get(len..).unwrap_or_default();
            return Some(token);
        }
        // What begins like a mark and is none is a letter of the text.
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let tail = rest.get(first..).unwrap_or_default();
        let next = tail.find(['<', '&', '{']).map_or(rest.len(), |at| first + at);
        let (text, after) = rest.split_at_checked(next).unwrap_or((rest, ""));
        rest = after;
        Some(Token::Text(text))
    })
}

fn mark(rest: &str, braces: bool) -> Option<(Token<'_>, usize)> {
    match rest.as_bytes().first()? {
        b'<' => {
            let (inner, len) = enclosed(rest, '>')?;
            let (closes, name) = inner.strip_prefix('/').map_or((false, inner), |name| (true, name));
            if name.starts_with(|letter: char| letter.is_ascii_digit()) && super::time::stamp(name).is_some() {
                return Some((Token::Stamp, len));
            }
            let end = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
            let name = name.get(..end).filter(|name| is_mark(name))?;
            Some((if closes { Token::Close(name) } else { Token::Open(name) }, len))
        }
        b'{' if braces => {
            let (inner, len) = enclosed(rest, '}')?;
            Some((Token::Braces(inner), len))
        }
        b'&' => {
            const ENTITIES: [(&str, &str); 8] = [
                ("&amp;", "&"),
                ("&lt;", "<"),
                ("&gt;", ">"),
                ("&nbsp;", "\u{a0}"),
                ("&lrm;", "\u{200e}"),
                ("&rlm;", "\u{200f}"),
                ("&quot;", "\""),
                ("&apos;", "'"),
            ];
            ENTITIES.iter().find(|(name, _)| rest.starts_with(name)).map(|(name, means)| (Token::Entity(means), name.len()))
        }
        _ => None,
    }
}

/// What stands between the first letter and the next `end`, and the length of all that.
fn enclosed(rest: &str, end: char) -> Option<(&str, usize)> {
    let at = rest.bytes().take(LONGEST_MARK).position(|byte| byte == end as u8)?;
    Some((rest.get(1..at)?, at + 1))
}

/// Names of marks that occur in subtitles. Others in angle brackets (`<sighs>`) are text.
fn is_mark(name: &str) -> bool {
    const NAMES: [&str; 22] = [
        "i", "b", "u", "s", "em", "strong", "font", "span", "c", "v", "lang", "ruby", "rt", "br", "p", "div", "center", "small", "big",
        "tt", "script", "style",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// What a tag of SubRip or WebVTT does.
pub(super) fn tag(markup: &mut Markup, name: &str, on: bool) {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "i" | "em" => markup.style.italic = on,
        "b" | "strong" => markup.style.bold = on,
        "u" => markup.style.underline = on,
        "br" => markup.line_break(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_what_only_looks_like_one() {
        let all: Vec<_> = tokens("a<i>b</I> <3 <sighs> &amp;&x; {\\an8}{", true).collect();
        assert_eq!(
            all,
            [
                Token::Text("a"),
                Token::Open("i"),
                Token::Text("b"),
                Token::Close("I"),
                Token::Text(" "),
                Token::Text("<3 "),
                Token::Text("<sighs> "),
                Token::Entity("&"),
                Token::Text("&x; "),
                Token::Braces("\\an8"),
                Token::Text("{"),
            ]
        );
    }

    #[test]
    fn a_payload_has_no_empty_line_and_no_open_tag() {
        let mut markup = Markup::new();
        markup.text("  one  ");
        markup.style.italic = true;
        markup.text("\n \n two & <three>\n");
        markup.style.bold = true;
        markup.text("four\n");
        assert_eq!(markup.finish().text, "one\n<i>two &amp; &lt;three&gt;</i>\n<i><b>four</b></i>");
    }
}
