//! MicroDVD (`{10}{50}text|row`, times counted in pictures) and SubViewer (`00:00:01.00,00:00:02.00`, `[br]`): the files called `.sub` that
//! are text. There is no specification of either; this is what players read.

use super::markup::Style;
use super::{Cue, MOST_CUES, Markup, time};

/// Pictures per second where neither the file nor the film tells.
const USUAL_RATE: f64 = 23.976;

/// Whether a file that begins like this is one of the two.
pub fn looks_like(head: &str) -> bool {
    head.lines().take(200).any(|row| frames(row).is_some() || span(row).is_some())
}

/// All cues of a file, in file order. `rate`: pictures per second of the film, unless the file tells its own.
pub fn parse(text: &str, rate: Option<f64>) -> Vec<Cue> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if text.lines().take(200).any(|row| frames(row).is_some()) { by_pictures(&text, rate) } else { sub_viewer(&text) }
}

fn by_pictures(text: &str, rate: Option<f64>) -> Vec<Cue> {
    let sound = |rate: &f64| (1.0..=240.0).contains(rate);
    let mut rate = rate.filter(sound).unwrap_or(USUAL_RATE);
    let mut cues = Vec::new();
    for (from, to, said) in text.lines().filter_map(frames) {
        // The first row may tell the rate: `{1}{1}25.000`.
        if from == to && from <= 1 && cues.is_empty() {
            rate = said.trim().replace(',', ".").parse().ok().filter(sound).unwrap_or(rate);
            continue;
        }
        let at = |frame: u32| (f64::from(frame) / rate * 1000.0).round() as i64;
        // Without an end it stays for a while.
        let end = if to == 0 { at(from).saturating_add(4000) } else { at(to) };
        cues.extend(Cue::new(at(from), end, line(said)));
        if cues.len() >= MOST_CUES {
            break;
        }
    }
    cues
}

/// `{10}{50}text`
fn frames(row: &str) -> Option<(u32, u32, &str)> {
    let row = row.trim_start_matches('\u{feff}');
    let (from, rest) = row.strip_prefix('{')?.split_once('}')?;
    let (to, text) = rest.strip_prefix('{')?.split_once('}')?;
    let to = if to.is_empty() { 0 } else { number(to)? };
    Some((number(from)?, to, text))
}

fn number(text: &str) -> Option<u32> {
    (text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn line(text: &str) -> super::Said {
    let mut markup = Markup::new();
    for (n, row) in text.split('|').enumerate() {
        if n > 0 {
            markup.line_break();
        }
        // Marks with a small letter hold for one row, those with a capital for the whole text.
        let whole = markup.style;
        let mut rest = row;
        let mut lasting = whole;
        while let Some((inner, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            mark(inner, &mut markup.style);
            if inner.starts_with('Y') {
                mark(inner, &mut lasting);
            }
            rest = after;
        }
        if let Some(slanted) = rest.strip_prefix('/') {
            markup.style.italic = true;
            rest = slanted;
        }
        markup.text(rest);
        markup.style = lasting;
    }
    markup.finish()
}

/// `y:i,b`: what stands between braces. Colours, fonts and sizes are left out.
pub(super) fn mark(inner: &str, style: &mut Style) {
    let Some(letters) = inner.strip_prefix("y:").or_else(|| inner.strip_prefix("Y:")) else { return };
    for letter in letters.split(',') {
        match letter.trim() {
            "i" => style.italic = true,
            "b" => style.bold = true,
            "u" => style.underline = true,
            _ => {}
        }
    }
}

/// `00:00:01.00,00:00:02.00`
fn span(row: &str) -> Option<(i64, i64)> {
    let row = row.trim_start_matches('\u{feff}').trim();
    // The comma in the middle is the one that no digit of a fraction stands before.
    let (from, to) = row.split_once(',')?;
    (from.matches(':').count() == 2 && to.matches(':').count() == 2).then_some((time::stamp(from)?, time::stamp(to)?))
}

fn sub_viewer(text: &str) -> Vec<Cue> {
    let mut cues = Vec::new();
    let mut rows = text.lines();
    while let Some(row) = rows.next() {
        let Some((start, end)) = span(row) else { continue };
        let said: Vec<_> = rows.by_ref().take_while(|row| !row.trim().is_empty()).collect();
        let mut markup = Markup::new();
        markup.text(&said.join("\n").replace("[br]", "\n"));
        cues.extend(Cue::new(start, end, markup.finish()));
        if cues.len() >= MOST_CUES {
            break;
        }
    }
    cues
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_counted() {
        let cues = parse("{1}{1}25\n{25}{50}{Y:i}One|two\n{100}{}{y:b}Three|four\n{200}{225}/five", None);
        let cues: Vec<_> = cues.into_iter().map(|cue| (cue.start, cue.end, cue.text)).collect();
        let expected = [(1000, 2000, "<i>One\ntwo</i>"), (4000, 8000, "<b>Three</b>\nfour"), (8000, 9000, "<i>five</i>")];
        assert_eq!(cues, expected.map(|(start, end, text)| (start, end, text.to_owned())));
        assert_eq!(parse("{24}{48}a", Some(24.0)).first().map(|cue| (cue.start, cue.end)), Some((1000, 2000)));
    }

    #[test]
    fn sub_viewer_files() {
        let cues = parse("[INFORMATION]\n[TITLE]x\n\n00:00:01.00,00:00:02.50\nOne[br]two\n\n", None);
        assert_eq!(cues.first().map(|cue| (cue.start, cue.end, cue.text.as_str())), Some((1000, 2500, "One\ntwo")));
    }
}
