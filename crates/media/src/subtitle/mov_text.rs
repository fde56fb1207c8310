//! Timed text of MP4 (3GPP TS 26.245, sample entry `tx3g`; QuickTime's `text` has the same samples): a length, a text, boxes behind it.

use super::{Markup, Said};
use crate::subtitle::markup::Style;

/// Most style records of one sample that are looked at.
const MOST_RECORDS: usize = 1000;

/// The text of one sample (section 5.17); nothing for the empty sample that ends the one before.
pub fn said(sample: &[u8]) -> Said {
    let Some(len) = sample.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len))) else { return Said::default() };
    let end = (2 + len).min(sample.len());
    let text = decoded(sample.get(2..end).unwrap_or_default());
    let records = styles(sample.get(end..).unwrap_or_default());
    let mut markup = Markup::new();
    let mut piece = String::new();
    for (at, letter) in text.chars().enumerate() {
        let style = records.iter().find(|record| (record.0..record.1).contains(&at)).map(|record| record.2).unwrap_or_default();
        if style != markup.style {
            markup.text(&piece);
            piece.clear();
            markup.style = style;
        }
        piece.push(if letter == '\r' { '\n' } else { letter });
    }
    markup.text(&piece);
    markup.finish()
}

/// UTF-8, or UTF-16 with its byte order mark (section 5.2).
fn decoded(bytes: &[u8]) -> String {
    let units = |order: fn([u8; 2]) -> u16| {
        bytes.chunks_exact(2).skip(1).filter_map(|pair| pair.first_chunk().copied()).map(order).collect::<Vec<_>>()
    };
    match bytes.first_chunk::<2>() {
        Some(b"\xfe\xff") => String::from_utf16_lossy(&units(u16::from_be_bytes)),
        Some(b"\xff\xfe") => String::from_utf16_lossy(&units(u16::from_le_bytes)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The records of a `styl` box (section 5.17.1.1): from which character to which, and how.
fn styles(mut rest: &[u8]) -> Vec<(usize, usize, Style)> {
    while let Some((size, kind)) = rest.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize).zip(rest.get(4..8)) {
        let Some(body) = rest.get(8..size) else { break };
        if kind == b"styl" {
            return body.get(2..).unwrap_or_default().chunks_exact(12).take(MOST_RECORDS).filter_map(record).collect();
        }
        rest = rest.get(size..).unwrap_or_default();
    }
    Vec::new()
}

fn record(record: &[u8]) -> Option<(usize, usize, Style)> {
    let [a, b, c, d, _, _, face, ..] = *record else { return None };
    let style = Style { bold: face & 1 != 0, italic: face & 2 != 0, underline: face & 4 != 0 };
    Some((usize::from(u16::from_be_bytes([a, b])), usize::from(u16::from_be_bytes([c, d])), style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_styles() {
        let styl = b"\0\0\0\x16styl\0\x01\0\x02\0\x04\0\x01\x02\x12\xff\xff\xff\xff";
        let sample = [&b"\0\x07a \xc3\xa9<\rb"[..], styl].concat();
        assert_eq!(said(&sample).text, "a <i>\u{e9}&lt;</i>\nb");
        assert_eq!(said(b"\0\x06\xfe\xff\0h\0i").text, "hi");
        assert_eq!(said(b"\0\0"), Said::default());
        assert_eq!(said(b"\xff\xffcut").text, "cut");
        assert_eq!(said(b""), Said::default());
    }
}
