//! SubRip: blocks of a number, a row with an arrow, and text with a few tags of HTML. There is no specification; this is what players read.

use super::markup::{Token, tag, tokens};
use super::{Cue, MOST_CUES, Markup, Said, ass, time};

/// All cues of a file, in file order.
///
/// Rows with an arrow divide the file, not empty rows: those occur inside of texts.
pub fn parse(text: &str) -> Vec<Cue> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut cues = Vec::new();
    let mut now: Option<(i64, i64)> = None;
    let mut rows: Vec<&str> = Vec::new();
    for row in text.lines() {
        let Some((start, end, _)) = time::row(row) else {
            rows.push(row);
            continue;
        };
        // What stands just before an arrow is the next block's number.
        if rows.last().is_some_and(|row| !row.trim().is_empty() && row.trim().bytes().all(|byte| byte.is_ascii_digit())) {
            rows.pop();
        }
        close(&mut cues, now.replace((start, end)), &rows);
        rows.clear();
        if cues.len() >= MOST_CUES {
            return cues;
        }
    }
    close(&mut cues, now, &rows);
    cues
}

fn close(cues: &mut Vec<Cue>, times: Option<(i64, i64)>, rows: &[&str]) {
    if let Some((start, end)) = times {
        cues.extend(Cue::new(start, end, said(&rows.join("\n"))));
    }
}

/// The text of one block, as Matroska keeps it too (`S_TEXT/UTF8`).
pub fn said(text: &str) -> Said {
    let mut markup = Markup::new();
    let mut place = ass::Place::default();
    for token in tokens(text, true) {
        match token {
            Token::Text(text) => markup.text(text),
            Token::Entity(text) => markup.text(text),
            Token::Open(name) => tag(&mut markup, name, true),
            Token::Close(name) => tag(&mut markup, name, false),
            Token::Stamp => {}
            // Overrides of SubStation are in use here as well. Other braces are text.
            Token::Braces(inner) if inner.trim_start().starts_with('\\') => {
                ass::overrides(inner, &mut markup.style, Default::default(), &mut place);
            }
            Token::Braces(inner) if microdvd_mark(inner) => super::microdvd::mark(inner, &mut markup.style),
            Token::Braces(inner) => {
                markup.text("{");
                markup.text(inner);
                markup.text("}");
            }
        }
    }
    markup.settings = place.settings(None);
    markup.finish()
}

fn microdvd_mark(inner: &str) -> bool {
    let mut letters = inner.chars();
    matches!(letters.next(), Some('y' | 'Y' | 'c' | 'C' | 'f' | 'F' | 's' | 'S')) && letters.next() == Some(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        let text = "\u{feff}1\r\n00:00:01,000 --> 00:00:02,500 X1:1\r\n<i>Ex & Y</i>\r\n\r\nafter an empty row\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n{\\an8}{\\i1}top\r\n3\r\n00:00:05,000-->00:00:04,000\r\nbackwards\r\n4\r\n00:00:06.000 --> 00:00:07.000\r\n<font color=\"red\">1984</font>";
        let cues = parse(text);
        let plain: Vec<_> = cues.iter().map(|cue| (cue.start, cue.end, cue.text.as_str(), cue.settings.as_str())).collect();
        assert_eq!(
            plain,
            [(1000, 2500, "<i>Ex &amp; Y</i>\nafter an empty row", ""), (3000, 4000, "<i>top</i>", "line:0"), (6000, 7000, "1984", ""),]
        );
    }
}
